//! Statements.

use std::rc::Rc;
use std::sync::Arc;

use super::{Flow, Vm};
use crate::args::Args;
use crate::ast::{Block, Escape, Expr, For, Part, Stmt, StmtKind};
use crate::error::{Result, fail};
use crate::iterate::{Generator, Iter, Lazy};
use crate::objects::{Activation, Loop, Macro, Object};
use crate::value::Value;

impl Vm {
    pub(super) fn body(&mut self, body: &[Stmt], env: &Rc<Activation>) -> Result<Flow> {
        for stmt in body {
            self.budget.step()?;
            let flow = self.statement(stmt, env).map_err(|error| error.at(stmt.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &Stmt, env: &Rc<Activation>) -> Result<Flow> {
        match &stmt.kind {
            StmtKind::Output(parts, escape) => {
                for part in parts {
                    match part {
                        Part::Data(data) => self.write(data)?,
                        Part::Expr(expr) => self.print(expr, *escape, env)?,
                    }
                }
            }
            StmtKind::For(it) => return self.for_loop(it, env),
            StmtKind::If(it) => {
                for (test, body) in &it.branches {
                    let test = self.eval(test, env)?;
                    if self.truth(&test)? {
                        return self.body(body, env);
                    }
                }
                return self.body(&it.otherwise, env);
            }
            StmtKind::Macro(code, name, toplevel) => {
                self.keep_activation(env)?;
                let code = Macro { code: code.clone(), closure: env.clone() };
                let value = Value::Object(Object::Macro(Rc::new(code)));
                if *toplevel {
                    self.context.insert(name.name.clone(), value.clone());
                }
                self.set(env, name.slot, value);
            }
            StmtKind::CallBlock(call, code) => {
                self.keep_activation(env)?;
                let caller = Macro { code: code.clone(), closure: env.clone() };
                let callee = self.eval(&call.callee, env)?;
                let mut args = self.arguments(&call.arguments, env)?;
                args.keywords.push(("caller".into(), Value::Object(Object::Macro(Rc::new(caller)))));
                let text = self.call(&callee, args)?;
                self.write_text(&text)?;
            }
            StmtKind::Generation(code) => {
                let code = Macro { code: code.clone(), closure: env.clone() };
                let text = self.call_macro(&code, Args::default())?;
                self.write_text(&text)?;
            }
            StmtKind::FilterBlock(it) => {
                self.enter(&it.scope, env);
                let (text, flow) = self.capture(|vm| vm.body(&it.body, env))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let filtered = self.filter_captured(&it.filter, text, env)?;
                self.write_text(&filtered)?;
                self.leave(&it.scope, env);
            }
            StmtKind::With(it) => {
                self.enter(&it.scope, env);
                for (target, value) in it.targets.iter().zip(&it.values) {
                    let value = self.eval(value, env)?;
                    self.assign(target, value, env)?;
                }
                let flow = self.body(&it.body, env)?;
                self.leave(&it.scope, env);
                return Ok(flow);
            }
            StmtKind::Set(it) => {
                self.check_namespaces(&it.target, env)?;
                let value = self.eval(&it.value, env)?;
                self.assign(&it.target, value, env)?;
                self.export(&it.exports, env);
            }
            StmtKind::SetBlock(it) => {
                self.enter(&it.scope, env);
                let (text, flow) = self.capture(|vm| vm.body(&it.body, env))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = match &it.filter {
                    Some(filter) => self.filter_captured(filter, text, env)?,
                    None => text,
                };
                self.check_namespaces(&it.target, env)?;
                let value = if self.autoescape { Value::Markup(self.str(&value)?) } else { value };
                self.assign(&it.target, value, env)?;
                self.export(&it.exports, env);
                self.leave(&it.scope, env);
            }
            StmtKind::Autoescape(it) => {
                self.enter(&it.scope, env);
                let value = self.eval(&it.value, env)?;
                let before = std::mem::replace(&mut self.autoescape, false);
                self.autoescape = self.truth(&value)?;
                let flow = self.body(&it.body, env)?;
                self.autoescape = before;
                self.leave(&it.scope, env);
                return Ok(flow);
            }
            StmtKind::Block(block) => self.block(block, env)?,
            StmtKind::Load(tag, template, _) => {
                self.eval(template, env)?;
                return fail!(Type, "no loader for this environment specified, which '{tag}' needs");
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, expr: &Expr, escape: Escape, env: &Rc<Activation>) -> Result<()> {
        let value = self.eval(expr, env)?;
        let escapes = match escape {
            Escape::No => false,
            Escape::Yes => true,
            // jinja2 prints constants at compile time, when the setting is not known yet
            Escape::Volatile => self.autoescape && !matches!(expr, Expr::Literal(_)),
        };
        let text = if escapes { self.escape(&value)? } else { self.str(&value)? };
        self.write(&text)
    }

    /// Writes the result of a call or filter block, which must be text.
    fn write_text(&mut self, value: &Value) -> Result<()> {
        match value.as_text() {
            Some(text) => {
                let text = text.clone();
                self.write(&text)
            }
            None => fail!(Type, "sequence item 0: expected str instance, {} found", value.type_name()),
        }
    }

    fn filter_captured(&mut self, filter: &Expr, text: Value, env: &Rc<Activation>) -> Result<Value> {
        self.captured.push(text);
        let filtered = self.eval(filter, env);
        self.captured.pop();
        filtered
    }

    fn export(&mut self, names: &[crate::ast::Name], env: &Rc<Activation>) {
        for name in names {
            if let Some(value) = self.get(env, name.slot) {
                self.context.insert(name.name.clone(), value);
            }
        }
    }

    fn check_namespaces(&mut self, target: &Expr, env: &Rc<Activation>) -> Result<()> {
        match target {
            Expr::Attribute(name, _) => match self.get(env, name.slot) {
                Some(Value::Object(Object::Namespace(_))) => Ok(()),
                _ => fail!(Runtime, "cannot assign attribute on non-namespace object"),
            },
            Expr::Tuple(items) => items.iter().try_for_each(|item| self.check_namespaces(item, env)),
            _ => Ok(()),
        }
    }

    fn assign(&mut self, target: &Expr, value: Value, env: &Rc<Activation>) -> Result<()> {
        match target {
            Expr::Name(name) => {
                self.set(env, name.slot, value);
                Ok(())
            }
            Expr::Attribute(name, attribute) => match self.get(env, name.slot) {
                Some(Value::Object(Object::Namespace(it))) => it.set(&Value::Str(attribute.clone()), value),
                _ => fail!(Runtime, "cannot assign attribute on non-namespace object"),
            },
            Expr::Tuple(targets) => {
                let Ok(mut iter) = Iter::of(&value) else {
                    return fail!(Type, "cannot unpack non-iterable {} object", value.type_name());
                };
                let mut items = Vec::with_capacity(targets.len());
                while let Some(item) = iter.next(self)? {
                    if items.len() == targets.len() {
                        return fail!(Value, "too many values to unpack (expected {})", targets.len());
                    }
                    items.push(item);
                }
                if items.len() < targets.len() {
                    return fail!(
                        Value,
                        "not enough values to unpack (expected {}, got {})",
                        targets.len(),
                        items.len()
                    );
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item, env))
            }
            _ => fail!(Type, "this cannot be assigned to"),
        }
    }

    fn block(&mut self, block: &Arc<Block>, env: &Rc<Activation>) -> Result<()> {
        if block.required {
            return fail!(Runtime, "Required block '{}' not found", block.name);
        }
        if !block.scoped {
            return self.run_block(block);
        }
        let mut context = self.context.clone();
        for (name, slot) in &block.visible {
            if let Some(value) = self.get(env, *slot) {
                context.insert(name.clone(), value);
            }
        }
        self.budget.charge_many(context.len(), 64)?;
        let before = std::mem::replace(&mut self.context, context);
        let result = self.run_block(block);
        self.context = before;
        result
    }

    fn run_block(&mut self, block: &Arc<Block>) -> Result<()> {
        self.budget.enter()?;
        let env = self.activation(block.slots, None);
        if let Some(slot) = block.itself {
            self.set(&env, slot, Value::Object(Object::Itself));
        }
        if let Some(slot) = block.parent {
            self.set(&env, slot, Value::undefined(format!("there is no parent block called '{}'.", block.name)));
        }
        self.enter(&block.scope, &env);
        self.body(&block.body, &env)?;
        self.budget.leave();
        Ok(())
    }

    /// The text of a block called as `self.name()`.
    pub(super) fn call_block(&mut self, block: &Arc<Block>) -> Result<Value> {
        Ok(self.capture(|vm| vm.run_block(block))?.0)
    }

    pub(super) fn named_block(&self, name: &str) -> Option<&Arc<Block>> {
        self.blocks.get(name)
    }

    fn for_loop(&mut self, it: &Arc<For>, env: &Rc<Activation>) -> Result<Flow> {
        let iterable = self.eval(&it.iter, env)?;
        if it.recursive {
            let text = self.recurse(it, env, iterable, 0)?;
            self.write_text(&text)?;
            return Ok(Flow::Next);
        }
        let iterable = self.tested(it, env, iterable)?;
        self.run_loop(it, env, iterable, 0, None)
    }

    /// The text of a recursive loop over some items; `env` holds the variables around the loop.
    pub(super) fn recurse(
        &mut self,
        it: &Arc<For>,
        env: &Rc<Activation>,
        iterable: Value,
        depth: usize,
    ) -> Result<Value> {
        let inner = self.activation(it.slots, Some(env));
        let iterable = self.tested(it, env, iterable)?;
        let recursion = Some((it.clone(), env.clone()));
        Ok(self.capture(|vm| vm.run_loop(it, &inner, iterable, depth, recursion))?.0)
    }

    /// The items for which the loop's condition holds.
    fn tested(&mut self, it: &Arc<For>, env: &Rc<Activation>, iterable: Value) -> Result<Value> {
        if it.test.is_none() {
            return Ok(iterable);
        }
        self.keep_activation(env)?;
        let test_env = self.activation(it.test_slots, Some(env));
        let tested = Tested { code: it.clone(), env: test_env, source: iterable.clone(), iter: None };
        Lazy::generator("t", tested, &[&iterable])
    }

    fn run_loop(
        &mut self,
        it: &Arc<For>,
        env: &Rc<Activation>,
        iterable: Value,
        depth: usize,
        recursion: Option<(Arc<For>, Rc<Activation>)>,
    ) -> Result<Flow> {
        let mut items = match it.loop_slot {
            Some(slot) => {
                self.set(env, slot, None);
                Items::Loop(slot, Rc::new(Loop::new(iterable, depth, recursion)?))
            }
            None => Items::Plain(Iter::of(&iterable)?),
        };
        let mut is_empty = true;
        loop {
            let item = match &mut items {
                Items::Plain(iter) => iter.next(self)?,
                Items::Loop(_, context) => context.next(self)?,
            };
            let Some(item) = item else { break };
            self.assign(&it.target, item, env)?;
            if let Items::Loop(slot, context) = &items {
                self.set(env, *slot, Value::Object(Object::Loop(context.clone())));
            }
            self.enter(&it.scope, env);
            match self.body(&it.body, env)? {
                Flow::Break => break,
                Flow::Continue => {}
                Flow::Next => is_empty = false,
            }
        }
        self.leave(&it.scope, env);
        // as in jinja2, a loop counts as empty if no iteration reached the end of the body
        if !is_empty || it.otherwise.is_empty() {
            return Ok(Flow::Next);
        }
        self.enter(&it.otherwise_scope, env);
        let flow = self.body(&it.otherwise, env)?;
        self.leave(&it.otherwise_scope, env);
        Ok(flow)
    }
}

enum Items {
    Plain(Iter),
    Loop(crate::ast::Slot, Rc<Loop>),
}

/// Items of a loop with a condition.
struct Tested {
    code: Arc<For>,
    env: Rc<Activation>,
    source: Value,
    iter: Option<Iter>,
}

impl Generator for Tested {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        let (Some(target), Some(test)) = (&self.code.test_target, &self.code.test) else { return Ok(None) };
        let iter = match &mut self.iter {
            Some(iter) => iter,
            None => {
                vm.enter(&self.code.test_scope, &self.env);
                self.iter.insert(Iter::of(&self.source)?)
            }
        };
        while let Some(item) = iter.next(vm)? {
            vm.assign(target, item, &self.env)?;
            let holds = vm.eval(test, &self.env)?;
            if vm.truth(&holds)? {
                return vm.eval(target, &self.env).map(Some);
            }
        }
        Ok(None)
    }
}
