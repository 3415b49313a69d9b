//! Iteration over values.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Result, fail};
use crate::objects::{Loop, Object};
use crate::value::{Dict, ITEM, Part, Range, Sequence, Value, deeper};
use crate::vm::Vm;

/// An iterator over a value.
pub(crate) enum Iter {
    Items(Rc<Sequence>, usize),
    Owned(std::vec::IntoIter<Value>),
    Chars(Arc<str>, usize),
    Bytes(Rc<[u8]>, usize),
    Dict(Rc<Dict>, Part, usize),
    Range(Rc<Range>, i128),
    Lazy(Rc<Lazy>),
    Loop(Rc<Loop>),
}

impl Iter {
    pub(crate) fn empty() -> Self {
        Self::Owned(Vec::new().into_iter())
    }

    pub(crate) fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::Undefined(_) => Self::empty(),
            Value::Str(text) | Value::Markup(text) => Self::Chars(text.clone(), 0),
            Value::Bytes(bytes) => Self::Bytes(bytes.clone(), 0),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => Self::Items(items.clone(), 0),
            Value::Dict(dict) => Self::Dict(dict.clone(), Part::Keys, 0),
            Value::View(dict, part) => Self::Dict(dict.clone(), *part, 0),
            Value::Range(range) => Self::Range(range.clone(), 0),
            Value::Iterator(lazy) => Self::Lazy(lazy.clone()),
            Value::Object(Object::Loop(it)) => Self::Loop(it.clone()),
            other => return fail!(Type, "'{}' object is not iterable", other.type_name()),
        })
    }

    /// The items backwards, for `reversed`.
    pub(crate) fn reversed(value: &Value, vm: &mut Vm) -> Result<Self> {
        match value {
            Value::Undefined(_)
            | Value::Str(_)
            | Value::Markup(_)
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::View(..)
            | Value::Range(_) => {
                let mut items = Self::of(value)?.collect(vm)?;
                if let Value::Markup(_) = value {
                    items = items.into_iter().map(|item| item.marked_up()).collect();
                }
                items.reverse();
                Ok(Self::Owned(items.into_iter()))
            }
            other => fail!(Type, "'{}' object is not reversible", other.type_name()),
        }
    }

    pub(crate) fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        vm.budget.step()?;
        Ok(match self {
            Self::Items(items, at) => take(at, items.items.get(*at).cloned()),
            Self::Owned(items) => items.next(),
            Self::Chars(text, at) => text[*at..].chars().next().map(|char| {
                *at += char.len_utf8();
                Value::char(char)
            }),
            Self::Bytes(bytes, at) => take(at, bytes.get(*at).map(|&byte| Value::Int(byte.into()))),
            Self::Dict(dict, part, at) => match dict.entries().get(*at) {
                None => None,
                Some((key, value)) => {
                    *at += 1;
                    Some(match part {
                        Part::Keys => key.clone(),
                        Part::Values => value.clone(),
                        Part::Items => Value::tuple(vec![key.clone(), value.clone()])?,
                    })
                }
            },
            Self::Range(range, at) => {
                let here = *at;
                ((here as u128) < range.len()).then(|| {
                    *at += 1;
                    Value::Int(range.get(here))
                })
            }
            Self::Lazy(lazy) => lazy.clone().next(vm)?,
            Self::Loop(it) => {
                let it = it.clone();
                match it.next(vm)? {
                    Some(item) => Some(Value::tuple(vec![item, Value::Object(Object::Loop(it))])?),
                    None => None,
                }
            }
        })
    }

    /// The remaining items.
    pub(crate) fn collect(&mut self, vm: &mut Vm) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        while let Some(item) = self.next(vm)? {
            vm.budget.charge(ITEM)?;
            items.push(item);
        }
        Ok(items)
    }
}

fn take(at: &mut usize, item: Option<Value>) -> Option<Value> {
    *at += usize::from(item.is_some());
    item
}

impl Value {
    pub(crate) fn char(char: char) -> Self {
        Self::str(char.encode_utf8(&mut [0; 4]))
    }

    /// Text marked as HTML; other values are unchanged.
    pub(crate) fn marked_up(self) -> Self {
        match self {
            Self::Str(text) => Self::Markup(text),
            other => other,
        }
    }
}

/// Computes the items of a generator, one at a time.
pub(crate) trait Generator {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>>;
}

/// An iterator as a value. All references share its position.
pub(crate) struct Lazy {
    /// The type's name, or that of the generator's function.
    name: &'static str,
    is_generator: bool,
    depth: u16,
    state: RefCell<State>,
}

enum State {
    Running,
    Done,
    Iter(Iter),
    Generator(Box<dyn Generator>),
}

impl Lazy {
    /// An iterator over `source`, of the Python type `name`.
    pub(crate) fn iterator(name: &'static str, iter: Iter, source: &Value) -> Result<Value> {
        Self::value(name, State::Iter(iter), &[source])
    }

    /// A generator of the Python function `function`; `held` are the values that it references.
    pub(crate) fn generator(
        function: &'static str,
        generator: impl Generator + 'static,
        held: &[&Value],
    ) -> Result<Value> {
        Self::value(function, State::Generator(Box::new(generator)), held)
    }

    fn value(name: &'static str, state: State, held: &[&Value]) -> Result<Value> {
        let depth = held.iter().try_fold(1, |depth: u16, value| Ok(depth.max(deeper(value)?)))?;
        let is_generator = matches!(state, State::Generator(_));
        Ok(Value::Iterator(Rc::new(Self { name, is_generator, depth, state: RefCell::new(state) })))
    }

    /// The type's name.
    pub(crate) fn name(&self) -> &'static str {
        if self.is_generator { "generator" } else { self.name }
    }

    pub(crate) fn repr(&self) -> String {
        let kind = if self.is_generator { "generator object " } else { "" };
        let object = if self.is_generator { "" } else { " object" };
        format!("<{kind}{}{object} at 0x7f0000000000>", self.name)
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    fn next(&self, vm: &mut Vm) -> Result<Option<Value>> {
        let mut state = self.state.replace(State::Running);
        vm.budget.enter()?;
        let next = match &mut state {
            State::Running => fail!(Value, "generator already executing"),
            State::Done => Ok(None),
            State::Iter(iter) => iter.next(vm),
            State::Generator(generator) => generator.next(vm),
        };
        vm.budget.leave();
        let ended = !matches!(next, Ok(Some(_)));
        self.state.replace(if ended { State::Done } else { state });
        next
    }
}
