//! Expressions.

use std::rc::Rc;

use super::Vm;
use crate::args::Args;
use crate::ast::{Arguments, Compare, Escape, Expr, Filter, Literal};
use crate::error::{Result, fail};
use crate::filters;
use crate::iterate::Iter;
use crate::objects::Activation;
use crate::operators;
use crate::predicates;
use crate::value::{Dict, ITEM, Value};

impl Vm {
    pub(crate) fn eval(&mut self, expr: &Expr, env: &Rc<Activation>) -> Result<Value> {
        self.budget.step()?;
        self.budget.enter()?;
        let value = self.eval_here(expr, env)?;
        self.budget.leave();
        Ok(value)
    }

    fn eval_here(&mut self, expr: &Expr, env: &Rc<Activation>) -> Result<Value> {
        match expr {
            Expr::Literal(literal) => Ok(match literal {
                Literal::None => Value::None,
                Literal::Bool(flag) => Value::Bool(*flag),
                Literal::Int(number) => Value::Int(*number),
                Literal::Float(number) => Value::Float(*number),
                Literal::Str(text) => Value::Str(text.clone()),
            }),
            Expr::Name(name) => Ok(self
                .get(env, name.slot)
                .unwrap_or_else(|| Value::undefined(format!("'{}' is undefined", name.name)))),
            Expr::Attribute(name, _) => fail!(Runtime, "the attribute of '{}' is only assigned to", name.name),
            Expr::Tuple(items) => Value::tuple(self.all(items, env)?),
            Expr::List(items) => Value::list(self.all(items, env)?),
            Expr::Dict(items) => self.dict(items, env),
            Expr::Neg(operand) => {
                let operand = self.eval(operand, env)?;
                operators::negate(&operand)
            }
            Expr::Pos(operand) => {
                let operand = self.eval(operand, env)?;
                operators::plus(&operand)
            }
            Expr::Not(operand) => {
                let operand = self.eval(operand, env)?;
                Ok(Value::Bool(!self.truth(&operand)?))
            }
            Expr::And(left, right) => {
                let left = self.eval(left, env)?;
                if self.truth(&left)? { self.eval(right, env) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left, env)?;
                if self.truth(&left)? { Ok(left) } else { self.eval(right, env) }
            }
            Expr::Binary(operator, left, right) => {
                let left = self.eval(left, env)?;
                let right = self.eval(right, env)?;
                operators::binary(self, *operator, &left, &right)
            }
            Expr::Compare(first, rest) => self.comparison(first, rest, env),
            Expr::Concat(parts, escape) => {
                let parts = self.all(parts, env)?;
                self.concat(&parts, *escape == Escape::Yes)
            }
            Expr::Condition(it) => {
                let test = self.eval(&it.test, env)?;
                match &it.otherwise {
                    _ if self.truth(&test)? => self.eval(&it.then, env),
                    Some(otherwise) => self.eval(otherwise, env),
                    None => Ok(Value::undefined(format!(
                        "the inline if-expression on line {} evaluated to false and no else section was defined.",
                        it.line
                    ))),
                }
            }
            Expr::Getattr(of, name) => {
                let of = self.eval(of, env)?;
                self.getattr(&of, name)
            }
            Expr::Getitem(of, index) => self.subscript(of, index, env),
            Expr::Slice(_) => fail!(Type, "a slice stands alone"),
            Expr::Call(call) => {
                let callee = self.eval(&call.callee, env)?;
                let args = self.arguments(&call.arguments, env)?;
                self.call(&callee, args)
            }
            Expr::Filter(filter) => self.filter(filter, env),
            Expr::Test(test) => {
                let (value, args) = self.operands(test, env)?;
                Ok(Value::Bool(predicates::apply(self, &test.name, value, args)?))
            }
        }
    }

    fn all(&mut self, items: &[Expr], env: &Rc<Activation>) -> Result<Vec<Value>> {
        self.budget.charge_many(items.len(), ITEM)?;
        items.iter().map(|item| self.eval(item, env)).collect()
    }

    fn dict(&mut self, items: &[(Expr, Expr)], env: &Rc<Activation>) -> Result<Value> {
        self.budget.charge_many(items.len(), 4 * ITEM)?;
        let mut dict = Dict::default();
        for (key, value) in items {
            let key = self.eval(key, env)?;
            let value = self.eval(value, env)?;
            dict.insert(key, value)?;
        }
        Ok(Value::dict(dict))
    }

    fn comparison(&mut self, first: &Expr, rest: &[(Compare, Expr)], env: &Rc<Activation>) -> Result<Value> {
        let mut left = self.eval(first, env)?;
        let mut holds = true;
        for (operator, right) in rest {
            let right = self.eval(right, env)?;
            holds = self.compare(*operator, &left, &right)?;
            if !holds {
                break;
            }
            left = right;
        }
        Ok(Value::Bool(holds))
    }

    /// `~`. With escaping, if any part is `Markup`, all other parts are escaped and the result is `Markup`.
    fn concat(&mut self, parts: &[Value], escaping: bool) -> Result<Value> {
        let is_markup = escaping && parts.iter().any(|part| matches!(part, Value::Markup(_)));
        let mut out = String::new();
        for part in parts {
            let text = if is_markup { self.escape(part)? } else { self.str(part)? };
            self.budget.charge(text.len())?;
            out.push_str(&text);
        }
        Ok(if is_markup { Value::Markup(out.into()) } else { Value::Str(out.into()) })
    }

    fn subscript(&mut self, of: &Expr, index: &Expr, env: &Rc<Activation>) -> Result<Value> {
        let of = self.eval(of, env)?;
        match index {
            Expr::Slice(parts) => {
                let mut bounds = [None, None, None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = Some(self.eval(part, env)?);
                    }
                }
                self.slice(&of, &bounds)
            }
            // no value has a tuple with a slice as an index
            Expr::Tuple(items) if items.iter().any(|item| matches!(item, Expr::Slice(_))) => {
                of.defined()?;
                Ok(Value::undefined(format!("{} has no such element", self.describe(&of))))
            }
            index => {
                let index = self.eval(index, env)?;
                self.getitem(&of, &index)
            }
        }
    }

    pub(super) fn arguments(&mut self, arguments: &Arguments, env: &Rc<Activation>) -> Result<Args> {
        let mut args = Args::of(self.all(&arguments.positional, env)?);
        for (name, value) in &arguments.keywords {
            args.keywords.push((name.clone(), self.eval(value, env)?));
        }
        if let Some(rest) = &arguments.rest {
            let rest = self.eval(rest, env)?;
            args.positional.extend(Iter::of(&rest)?.collect(self)?);
        }
        if let Some(rest) = &arguments.keyword_rest {
            let rest = self.eval(rest, env)?;
            let Value::Dict(dict) = &rest else {
                return fail!(Type, "argument after ** must be a mapping, not {}", rest.type_name());
            };
            self.budget.charge_many(dict.len(), ITEM)?;
            for (key, value) in dict.entries() {
                let Some(name) = key.as_text() else { return fail!(Type, "keywords must be strings") };
                if args.keywords.iter().any(|(keyword, _)| keyword == name) {
                    return fail!(Type, "got multiple values for keyword argument '{name}'");
                }
                args.keywords.push((name.clone(), value.clone()));
            }
        }
        Ok(args)
    }

    fn operands(&mut self, filter: &Filter, env: &Rc<Activation>) -> Result<(Value, Args)> {
        let value = match &filter.value {
            Some(value) => self.eval(value, env)?,
            None => self.captured.last().cloned().unwrap_or(Value::None),
        };
        Ok((value, self.arguments(&filter.arguments, env)?))
    }

    fn filter(&mut self, filter: &Filter, env: &Rc<Activation>) -> Result<Value> {
        let (value, args) = self.operands(filter, env)?;
        filters::apply(self, &filter.name, value, args)
    }
}
