//! The interpreter.

mod calls;
mod expressions;
mod statements;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::ast::{Block, Load, Program, Scope, Slot};
use crate::budget::Budget;
use crate::error::Result;
use crate::objects::{Activation, Function, Loop, Namespace, Object};
use crate::random::Random;
use crate::value::Value;
use crate::walk;

/// Implementation of `strftime_now`.
pub(crate) type Clock = fn(&str) -> String;

pub(crate) struct Vm {
    pub(crate) budget: Budget,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    /// Variables given to the template, and those set at its top level.
    context: HashMap<Arc<str>, Value>,
    blocks: HashMap<Arc<str>, Arc<Block>>,
    /// The output, and on top of it the texts being captured.
    out: Vec<String>,
    /// Texts of the `filter` and `set` blocks whose filters are being applied.
    captured: Vec<Value>,
    pub(crate) autoescape: bool,
    /// Objects that may contain themselves; emptied at the end.
    kept: Kept,
}

#[derive(Default)]
struct Kept {
    namespaces: Vec<Rc<Namespace>>,
    activations: Vec<Rc<Activation>>,
    loops: Vec<Rc<Loop>>,
}

/// Control flow after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Renders a program.
pub(crate) fn run(program: &Program, context: HashMap<Arc<str>, Value>, clock: Clock) -> Result<String> {
    let mut blocks = HashMap::new();
    walk::blocks(&program.body, &mut |block| {
        blocks.insert(block.name.clone(), block.clone());
    });
    let mut vm = Vm {
        budget: Budget::new(),
        clock,
        random: Random::new(),
        context,
        blocks,
        out: vec![String::new()],
        captured: Vec::new(),
        autoescape: false,
        kept: Kept::default(),
    };
    let env = vm.activation(program.slots, None);
    let result = vm.program(program, &env);
    vm.take_apart();
    result?;
    Ok(vm.out.pop().unwrap_or_default())
}

impl Vm {
    fn program(&mut self, program: &Program, env: &Rc<Activation>) -> Result<()> {
        if let Some(slot) = program.itself {
            self.set(env, slot, Value::Object(Object::Itself));
        }
        self.enter(&program.scope, env);
        self.body(&program.body, env).map(|_| ())
    }

    /// Empties all objects that may contain themselves, before any of them is dropped.
    fn take_apart(&mut self) {
        self.context.clear();
        self.kept.namespaces.iter().for_each(|it| it.attributes.borrow_mut().clear());
        self.kept.activations.iter().for_each(|it| it.slots.borrow_mut().clear());
        self.kept.loops.iter().for_each(|it| it.state.borrow_mut().changed = None);
    }

    fn activation(&mut self, slots: usize, parent: Option<&Rc<Activation>>) -> Rc<Activation> {
        Rc::new(Activation { slots: RefCell::new(vec![None; slots]), parent: parent.cloned() })
    }

    /// Keeps the variables visible to a macro until the end, because the macro may be one of them.
    fn keep_activation(&mut self, env: &Rc<Activation>) -> Result<()> {
        let mut env = Some(env);
        while let Some(it) = env {
            if !self.kept.activations.iter().rev().take(8).any(|kept| Rc::ptr_eq(kept, it)) {
                self.budget.charge(256 + 64 * it.slots.borrow().len())?;
                self.kept.activations.push(it.clone());
            }
            env = it.parent.as_ref();
        }
        Ok(())
    }

    pub(crate) fn keep_loop(&mut self, it: &Rc<Loop>) -> Result<()> {
        if !it.kept.replace(true) {
            self.budget.charge(512)?;
            self.kept.loops.push(it.clone());
        }
        Ok(())
    }

    pub(crate) fn keep_namespace(&mut self, it: Namespace) -> Result<Value> {
        self.budget.charge(512)?;
        let it = Rc::new(it);
        self.kept.namespaces.push(it.clone());
        Ok(Value::Object(Object::Namespace(it)))
    }

    fn get(&self, env: &Rc<Activation>, slot: Slot) -> Option<Value> {
        let slots = owner(env, slot).slots.borrow();
        slots.get(slot.at).cloned().flatten()
    }

    fn set(&self, env: &Rc<Activation>, slot: Slot, value: impl Into<Option<Value>>) {
        if let Some(place) = owner(env, slot).slots.borrow_mut().get_mut(slot.at) {
            *place = value.into();
        }
    }

    /// Looks up a name: a given variable, one set at the top level, or a function of Jinja.
    fn resolve(&self, name: &str) -> Option<Value> {
        let given = self.context.get(name).cloned();
        given.or_else(|| Function::named(name).map(|function| Value::Object(Object::Function(function))))
    }

    fn enter(&mut self, scope: &Scope, env: &Rc<Activation>) {
        for (slot, load) in &scope.loads {
            let value = match load {
                Load::Resolve(name) => self.resolve(name),
                Load::Alias(outer) => self.get(env, *outer),
                Load::Undefined => None,
            };
            self.set(env, *slot, value);
        }
    }

    fn leave(&mut self, scope: &Scope, env: &Rc<Activation>) {
        scope.all.iter().for_each(|slot| self.set(env, *slot, None));
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.budget.charge(text.len())?;
        if let Some(out) = self.out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    /// Captures the output of `work`.
    fn capture<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<(Value, T)> {
        self.out.push(String::new());
        let result = work(self);
        let text = self.out.pop().unwrap_or_default();
        let result = result?;
        let text: Arc<str> = text.into();
        Ok((if self.autoescape { Value::Markup(text) } else { Value::Str(text) }, result))
    }
}

fn owner(env: &Rc<Activation>, slot: Slot) -> &Activation {
    let mut env = &**env;
    for _ in 0..slot.up {
        match &env.parent {
            Some(parent) => env = parent,
            None => break,
        }
    }
    env
}
