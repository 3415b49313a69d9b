//! Calls.

use std::rc::Rc;
use std::sync::Arc;

use super::Vm;
use crate::args::Args;
use crate::error::{Result, fail};
use crate::functions;
use crate::methods;
use crate::objects::{Function, Macro, Object};
use crate::value::{Dict, Value};

impl Vm {
    /// Calls a value; a type error if it is not callable.
    pub(crate) fn call(&mut self, callee: &Value, mut args: Args) -> Result<Value> {
        self.budget.enter()?;
        let result = match callee {
            Value::Undefined(undefined) => Err(undefined.error()),
            Value::Object(Object::Macro(it)) => self.call_macro(it, args),
            Value::Object(Object::Method(it)) => methods::call(self, &it.receiver, it.name, args),
            Value::Object(Object::Function(Function::RaiseException)) => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = self.str(&message.unwrap_or(Value::None))?;
                fail!(Raised, "{message}")
            }
            Value::Object(Object::Function(function)) => functions::call(self, *function, args),
            Value::Object(Object::Joiner(it)) => {
                args.places::<0>("__call__", 0)?;
                Ok(if it.used.replace(true) { it.separator.clone() } else { Value::str("") })
            }
            Value::Object(Object::Loop(it)) => {
                let [iterable] = args.bind("__call__", ["iterable"], 1)?;
                let Some((code, env)) = &it.recursion else {
                    return fail!(Type, "The loop must have the 'recursive' marker to be called recursively.");
                };
                self.recurse(code, env, iterable.unwrap_or(Value::None), it.depth0 + 1)
            }
            Value::Object(Object::Block(block)) => {
                args.take("caller");
                args.places::<0>("__call__", 0)?;
                let block: Arc<_> = block.clone();
                self.call_block(&block)
            }
            other => fail!(Type, "'{}' object is not callable", other.type_name()),
        }?;
        self.budget.leave();
        Ok(result)
    }

    /// Runs a macro. Arguments are bound by position, by name, and then to `varargs`, `kwargs` and `caller`.
    pub(super) fn call_macro(&mut self, it: &Macro, mut args: Args) -> Result<Value> {
        let code = it.code.clone();
        let name = || code.name.as_ref().map_or_else(|| "None".to_owned(), |name| format!("'{name}'"));
        let count = code.parameters.len();
        let rest = args.positional.split_off(count.min(args.positional.len()));
        let given = args.positional.len();
        let mut values: Vec<Option<Value>> = args.positional.drain(..).map(Some).collect();
        values.extend(code.parameters[given..].iter().map(|parameter| args.take(&parameter.name)));
        let undefined = || Value::undefined("No caller defined");
        let caller = code.caller.map(|_| args.take("caller").unwrap_or_else(undefined));
        if code.kwargs.is_none()
            && let Some((keyword, _)) = args.keywords.first()
        {
            return fail!(Type, "macro {} takes no keyword argument '{keyword}'", name());
        }
        if code.varargs.is_none() && !rest.is_empty() {
            return fail!(Type, "macro {} takes not more than {count} argument(s)", name());
        }

        let env = self.activation(code.slots, Some(&it.closure));
        if let (Some(slot), Some(caller)) = (code.caller, caller) {
            self.set(&env, slot, caller);
        }
        if let Some(slot) = code.kwargs {
            let mut kwargs = Dict::default();
            for (keyword, value) in args.keywords {
                kwargs.insert(Value::Str(keyword), value)?;
            }
            self.set(&env, slot, Value::dict(kwargs));
        }
        if let Some(slot) = code.varargs {
            self.set(&env, slot, Value::tuple(rest)?);
        }
        for (parameter, value) in code.parameters.iter().zip(&values) {
            self.set(&env, parameter.slot, value.clone());
        }
        self.enter(&code.scope, &env);
        let without_default = count - code.defaults.len();
        for (at, parameter) in code.parameters.iter().enumerate().filter(|(at, _)| values[*at].is_none()) {
            let value = match at.checked_sub(without_default) {
                Some(at) => self.eval(&code.defaults[at], &env)?,
                None => Value::undefined(format!("parameter '{}' was not provided", parameter.name)),
            };
            self.set(&env, parameter.slot, value);
        }
        Ok(self.capture(|vm| vm.body(&code.body, &env))?.0)
    }

    /// A bound method as a value.
    pub(crate) fn method(&mut self, receiver: &Value, name: &'static str) -> Result<Value> {
        let method = crate::objects::Method::new(receiver.clone(), name)?;
        Ok(Value::Object(Object::Method(Rc::new(method))))
    }

    /// `self.name`
    pub(crate) fn block_named(&self, name: &str) -> Option<Value> {
        self.named_block(name).map(|block| Value::Object(Object::Block(block.clone())))
    }
}
