//! Expressions, from the lowest precedence to the highest.

use std::sync::Arc;

use crate::ast::{Arguments, Binary, Call, Compare, Condition, Escape, Expr, Filter, Literal, Name, Slot};
use crate::error::{Result, fail};
use crate::lexer::Token;
use crate::parser::{DEEPEST, Parser};

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper(Self::condition)
    }

    /// An expression, or several separated by commas: a tuple.
    pub(super) fn tuple(&mut self) -> Result<Expr> {
        self.tuple_until(true, &[])
    }

    pub(super) fn tuple_until(&mut self, with_condition: bool, ends: &[&str]) -> Result<Expr> {
        let item = if with_condition { Self::expression } else { Self::or_expression };
        self.items(ends, false, |parser| parser.deeper(item))
    }

    pub(super) fn simple_tuple(&mut self, ends: &[&str], with_namespace: bool) -> Result<Expr> {
        self.items(ends, false, |parser| parser.deeper(|parser| parser.primary(with_namespace)))
    }

    fn items(
        &mut self,
        ends: &[&str],
        in_brackets: bool,
        mut item: impl FnMut(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            let ended = match self.peek() {
                Token::VariableEnd | Token::BlockEnd | Token::Operator(")") => true,
                Token::Name(name) => ends.contains(&&**name),
                _ => false,
            };
            if ended {
                break;
            }
            items.push(item(self)?);
            if !self.is_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(only) if !is_tuple => Ok(only),
            None if !in_brackets => self.unexpected("an expression"),
            last => {
                items.extend(last);
                Ok(Expr::Tuple(items))
            }
        }
    }

    fn condition(&mut self) -> Result<Expr> {
        let mut line = self.line();
        let mut expression = self.or_expression()?;
        let mut count = 0;
        while self.skip_name("if") {
            self.chain(&mut count)?;
            let test = self.or_expression()?;
            let otherwise = if self.skip_name("else") { Some(self.deeper(Self::condition)?) } else { None };
            expression = Expr::Condition(Box::new(Condition { test, then: expression, otherwise, line }));
            line = self.line();
        }
        Ok(expression)
    }

    /// Counts chained operators, each of which is nested in the next.
    fn chain(&self, count: &mut usize) -> Result<()> {
        if let Some(limit) = DEEPEST.reached(*count) {
            return fail!(Syntax, "more than {limit} operators in a row");
        }
        *count += 1;
        Ok(())
    }

    fn or_expression(&mut self) -> Result<Expr> {
        let mut left = self.and_expression()?;
        let mut count = 0;
        while self.skip_name("or") {
            self.chain(&mut count)?;
            left = Expr::Or(Box::new(left), Box::new(self.and_expression()?));
        }
        Ok(left)
    }

    fn and_expression(&mut self) -> Result<Expr> {
        let mut left = self.not_expression()?;
        let mut count = 0;
        while self.skip_name("and") {
            self.chain(&mut count)?;
            left = Expr::And(Box::new(left), Box::new(self.not_expression()?));
        }
        Ok(left)
    }

    fn not_expression(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.deeper(Self::not_expression)?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.peek() {
                Token::Operator("==") => Compare::Eq,
                Token::Operator("!=") => Compare::Ne,
                Token::Operator("<") => Compare::Lt,
                Token::Operator("<=") => Compare::Le,
                Token::Operator(">") => Compare::Gt,
                Token::Operator(">=") => Compare::Ge,
                Token::Name(name) if &**name == "in" => Compare::In,
                Token::Name(name)
                    if &**name == "not" && matches!(self.peek_second(), Token::Name(name) if &**name == "in") =>
                {
                    self.next();
                    Compare::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((operator, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.concatenation()?;
        let mut count = 0;
        loop {
            let operator = match self.peek() {
                Token::Operator("+") => Binary::Add,
                Token::Operator("-") => Binary::Sub,
                _ => return Ok(left),
            };
            self.next();
            self.chain(&mut count)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.concatenation()?));
        }
    }

    fn concatenation(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts, Escape::No))
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.power()?;
        let mut count = 0;
        loop {
            let operator = match self.peek() {
                Token::Operator("*") => Binary::Mul,
                Token::Operator("/") => Binary::Div,
                Token::Operator("//") => Binary::FloorDiv,
                Token::Operator("%") => Binary::Mod,
                _ => return Ok(left),
            };
            self.next();
            self.chain(&mut count)?;
            left = Expr::Binary(operator, Box::new(left), Box::new(self.power()?));
        }
    }

    /// Left-associative, unlike Python.
    fn power(&mut self) -> Result<Expr> {
        let mut left = self.unary(true)?;
        let mut count = 0;
        while self.skip_operator("**") {
            self.chain(&mut count)?;
            left = Expr::Binary(Binary::Pow, Box::new(left), Box::new(self.unary(true)?));
        }
        Ok(left)
    }

    fn unary(&mut self, with_filter: bool) -> Result<Expr> {
        let sign = match self.peek() {
            Token::Operator("-") => Some(Expr::Neg as fn(Box<Expr>) -> Expr),
            Token::Operator("+") => Some(Expr::Pos as fn(Box<Expr>) -> Expr),
            _ => None,
        };
        let expression = match sign {
            Some(sign) => {
                self.next();
                sign(Box::new(self.deeper(|parser| parser.unary(false))?))
            }
            None => self.primary(false)?,
        };
        let expression = self.postfix(expression)?;
        if with_filter { self.filters_and_tests(expression) } else { Ok(expression) }
    }

    fn primary(&mut self, with_namespace: bool) -> Result<Expr> {
        let line = self.line();
        let literal = |literal| Ok(Expr::Literal(literal));
        match self.peek() {
            Token::Operator("(") => {
                self.next();
                let inner = self.items(&[], true, Self::expression)?;
                self.expect_operator(")")?;
                return Ok(inner);
            }
            Token::Operator("[") => return self.list(),
            Token::Operator("{") => return self.dict(),
            Token::Name(_) | Token::Str(_) | Token::Int(_) | Token::Float(_) => {}
            _ => return fail!(Syntax, "unexpected {}", self.found()),
        }
        match self.next() {
            Token::Name(name) => match &*name {
                "true" | "True" => literal(Literal::Bool(true)),
                "false" | "False" => literal(Literal::Bool(false)),
                "none" | "None" => literal(Literal::None),
                _ => {
                    let variable = Name { name, slot: Slot::default(), line };
                    if with_namespace && self.skip_operator(".") {
                        return Ok(Expr::Attribute(variable, self.expect_name()?));
                    }
                    Ok(Expr::Name(variable))
                }
            },
            Token::Str(text) => {
                let Token::Str(_) = self.peek() else { return literal(Literal::Str(text)) };
                let mut joined = text.to_string();
                while let Token::Str(text) = self.peek() {
                    joined.push_str(text);
                    self.next();
                }
                literal(Literal::Str(joined.into()))
            }
            Token::Int(number) => literal(Literal::Int(number)),
            Token::Float(number) => literal(Literal::Float(number)),
            _ => self.unexpected("an expression"),
        }
    }

    fn list(&mut self) -> Result<Expr> {
        self.expect_operator("[")?;
        let mut items = Vec::new();
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_operator("]")?;
        Ok(Expr::List(items))
    }

    fn dict(&mut self) -> Result<Expr> {
        self.expect_operator("{")?;
        let mut items = Vec::new();
        while !self.is_operator("}") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_operator(":")?;
            items.push((key, self.expression()?));
        }
        self.expect_operator("}")?;
        Ok(Expr::Dict(items))
    }

    fn postfix(&mut self, mut expression: Expr) -> Result<Expr> {
        let mut count = 0;
        loop {
            expression = match self.peek() {
                Token::Operator("." | "[") => self.subscript(expression)?,
                Token::Operator("(") => self.call(expression)?,
                _ => return Ok(expression),
            };
            self.chain(&mut count)?;
        }
    }

    fn filters_and_tests(&mut self, mut expression: Expr) -> Result<Expr> {
        let mut count = 0;
        loop {
            expression = match self.peek() {
                Token::Operator("|") => self.filters(Some(expression))?.unwrap_or(Expr::Literal(Literal::None)),
                Token::Name(name) if &**name == "is" => self.test(expression)?,
                Token::Operator("(") => self.call(expression)?,
                _ => return Ok(expression),
            };
            self.chain(&mut count)?;
        }
    }

    fn subscript(&mut self, of: Expr) -> Result<Expr> {
        if self.skip_operator(".") {
            return match self.next() {
                Token::Name(name) => Ok(Expr::Getattr(Box::new(of), name)),
                Token::Int(number) => Ok(Expr::Getitem(Box::new(of), Box::new(Expr::Literal(Literal::Int(number))))),
                _ => fail!(Syntax, "expected name or number"),
            };
        }
        self.expect_operator("[")?;
        let mut items = Vec::new();
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            items.push(self.subscripted()?);
        }
        self.expect_operator("]")?;
        let index = match items.pop() {
            Some(only) if items.is_empty() => only,
            last => {
                items.extend(last);
                Expr::Tuple(items)
            }
        };
        Ok(Expr::Getitem(Box::new(of), Box::new(index)))
    }

    /// An index, or a slice.
    fn subscripted(&mut self) -> Result<Expr> {
        let start = if self.is_operator(":") { None } else { Some(self.expression()?) };
        if !self.skip_operator(":") {
            return start.map_or_else(|| self.unexpected("an index"), Ok);
        }
        let ends = |parser: &Self| parser.is_operator(":") || parser.is_operator("]") || parser.is_operator(",");
        let stop = if ends(self) { None } else { Some(self.expression()?) };
        let step = match self.skip_operator(":") {
            true if !(self.is_operator("]") || self.is_operator(",")) => Some(self.expression()?),
            _ => None,
        };
        Ok(Expr::Slice(Box::new([start, stop, step])))
    }

    fn call(&mut self, callee: Expr) -> Result<Expr> {
        let arguments = self.arguments()?;
        Ok(Expr::Call(Box::new(Call { callee, arguments })))
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut is_first = true;
        while !self.is_operator(")") {
            if !std::mem::take(&mut is_first) {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            let has_rest = arguments.rest.is_some();
            let has_keyword_rest = arguments.keyword_rest.is_some();
            let keyword = match (self.peek(), self.peek_second()) {
                (Token::Name(name), Token::Operator("=")) => Some(name.clone()),
                _ => None,
            };
            let misplaced = if self.skip_operator("*") {
                arguments.rest = Some(self.expression()?);
                has_rest || has_keyword_rest
            } else if self.skip_operator("**") {
                arguments.keyword_rest = Some(self.expression()?);
                has_keyword_rest
            } else if let Some(name) = keyword {
                self.next();
                self.next();
                let repeated = arguments.keywords.iter().any(|(other, _)| *other == name);
                arguments.keywords.push((name, self.expression()?));
                has_keyword_rest || repeated
            } else {
                arguments.positional.push(self.expression()?);
                has_rest || has_keyword_rest || !arguments.keywords.is_empty()
            };
            if misplaced {
                return fail!(Syntax, "invalid syntax for function call expression");
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }

    /// Any number of `|name(arguments)`.
    pub(super) fn filters(&mut self, mut value: Option<Expr>) -> Result<Option<Expr>> {
        let mut count = 0;
        while self.skip_operator("|") {
            self.chain(&mut count)?;
            let line = self.line();
            let (name, arguments) = self.filter_call()?;
            value = Some(Expr::Filter(Box::new(Filter { value, name, arguments, line })));
        }
        Ok(value)
    }

    pub(super) fn filter_call(&mut self) -> Result<(Arc<str>, Arguments)> {
        let name = self.dotted_name()?;
        let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
        Ok((name, arguments))
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.expect_name()?;
        while self.skip_operator(".") {
            name = format!("{name}.{}", self.expect_name()?).into();
        }
        Ok(name)
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        self.expect_word("is")?;
        let line = self.line();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let arguments = match self.peek() {
            Token::Operator("(") => self.arguments()?,
            Token::Name(word) if matches!(&**word, "else" | "or" | "and") => Arguments::default(),
            Token::Name(word) if &**word == "is" => return fail!(Syntax, "You cannot chain multiple tests with is"),
            Token::Name(_) | Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => {
                let argument = self.primary(false)?;
                Arguments { positional: vec![self.postfix(argument)?], ..Arguments::default() }
            }
            _ => Arguments::default(),
        };
        let test = Expr::Test(Box::new(Filter { value: Some(value), name, arguments, line }));
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }
}
