//! The arguments of a call.

use std::sync::Arc;

use crate::error::{Result, fail};
use crate::value::Value;

#[derive(Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Value>,
    pub(crate) keywords: Vec<(Arc<str>, Value)>,
}

impl Args {
    pub(crate) fn of(positional: Vec<Value>) -> Self {
        Self { positional, keywords: Vec::new() }
    }

    /// Removes a keyword argument and returns its value.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.keywords.iter().position(|(keyword, _)| &**keyword == name)?;
        Some(self.keywords.remove(at).1)
    }

    /// Values of parameters given by position or by name; the first `required` must be present.
    pub(crate) fn bind<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        let given = self.positional.len();
        if given > N {
            return fail!(Type, "{function}() takes at most {N} arguments ({given} given)");
        }
        let mut values = [const { None }; N];
        for (slot, value) in values.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (keyword, value) in self.keywords {
            match names.iter().position(|name| *name == &*keyword) {
                None => return fail!(Type, "{function}() got an unexpected keyword argument '{keyword}'"),
                Some(at) if values[at].is_some() => {
                    return fail!(Type, "{function}() got multiple values for argument '{keyword}'");
                }
                Some(at) => values[at] = Some(value),
            }
        }
        match names[..required].iter().zip(&values).find(|(_, value)| value.is_none()) {
            Some((name, _)) => fail!(Type, "{function}() missing required argument: '{name}'"),
            None => Ok(values),
        }
    }

    /// Values of parameters given by position only.
    pub(crate) fn places<const N: usize>(self, function: &str, required: usize) -> Result<[Option<Value>; N]> {
        if !self.keywords.is_empty() {
            return fail!(Type, "{function}() takes no keyword arguments");
        }
        let given = self.positional.len();
        if given < required || given > N {
            return fail!(Type, "{function}() takes {required} to {N} arguments ({given} given)");
        }
        let mut values = [const { None }; N];
        for (slot, value) in values.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        Ok(values)
    }
}

impl Value {
    /// The value as an integer; a type error for any other type.
    pub(crate) fn index(&self) -> Result<i128> {
        match self.as_int() {
            Some(number) => Ok(number),
            None => {
                self.defined()?;
                fail!(Type, "'{}' object cannot be interpreted as an integer", self.type_name())
            }
        }
    }

    /// The value as a string; a type error for any other type.
    pub(crate) fn text(&self, what: &str) -> Result<&Arc<str>> {
        match self.as_text() {
            Some(text) => Ok(text),
            None => fail!(Type, "{what} must be str, not {}", self.type_name()),
        }
    }
}
