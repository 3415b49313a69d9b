//! Attributes, items and slices, with the rules of jinja2's sandbox.

use std::rc::Rc;

use crate::error::{Result, fail};
use crate::methods;
use crate::objects::{Loop, Object};
use crate::value::{ITEM, Range, Value};
use crate::vm::Vm;

/// Attributes of every Python object.
const OF_ALL: [&str; 12] = [
    "__class__",
    "__doc__",
    "__init__",
    "__eq__",
    "__ne__",
    "__hash__",
    "__str__",
    "__repr__",
    "__format__",
    "__dir__",
    "__new__",
    "__reduce__",
];

impl Vm {
    /// `value.name`: the attribute, else the item.
    pub(crate) fn getattr(&mut self, value: &Value, name: &str) -> Result<Value> {
        if let Some(attribute) = self.attribute(value, name)? {
            return Ok(attribute);
        }
        match self.item(value, &Value::str(name))? {
            Some(item) => Ok(item),
            None => Ok(self.missing(value, &Value::str(name))),
        }
    }

    /// `value[index]`: the item, else the attribute.
    pub(crate) fn getitem(&mut self, value: &Value, index: &Value) -> Result<Value> {
        if let Some(item) = self.item(value, index)? {
            return Ok(item);
        }
        let attribute = match index.as_text() {
            Some(name) => self.attribute(value, &name.clone())?,
            None => None,
        };
        Ok(attribute.unwrap_or_else(|| self.missing(value, index)))
    }

    fn missing(&mut self, value: &Value, name: &Value) -> Value {
        let what = self.describe(value);
        Value::undefined(match name.as_str() {
            Some(name) => format!("'{what}' has no attribute '{name}'"),
            None => format!("{what} has no element {}", self.repr(name).unwrap_or_default()),
        })
    }

    pub(crate) fn describe(&self, value: &Value) -> String {
        match value {
            Value::None => "None".into(),
            other => format!("{} object", other.type_name()),
        }
    }

    /// Python's `getattr`. An attribute hidden by the sandbox is an undefined value that fails when used.
    pub(crate) fn attribute(&mut self, value: &Value, name: &str) -> Result<Option<Value>> {
        value.defined()?;
        if let Value::Object(Object::Namespace(it)) = value {
            return Ok(it.attributes.borrow().get_str(name).cloned());
        }
        if OF_ALL.contains(&name) {
            return Ok(Some(Value::unsafe_attribute(value, name)));
        }
        if let Some(name) = methods::named(value, name) {
            return match methods::changes(value, name) {
                true => Ok(Some(Value::unsafe_attribute(value, name))),
                false => self.method(value, name).map(Some),
            };
        }
        Ok(match value {
            Value::Bool(_) | Value::Int(_) => match name {
                "real" | "numerator" => value.as_int().map(Value::Int),
                "imag" => Some(Value::Int(0)),
                "denominator" => Some(Value::Int(1)),
                _ => None,
            },
            Value::Float(_) => match name {
                "real" => Some(value.clone()),
                "imag" => Some(Value::Float(0.0)),
                _ => None,
            },
            Value::Range(range) => match name {
                "start" => Some(Value::Int(range.start)),
                "stop" => Some(Value::Int(range.stop)),
                "step" => Some(Value::Int(range.step)),
                _ => None,
            },
            Value::Group(group) => match name {
                "grouper" => group.items.first().cloned(),
                "list" => group.items.get(1).cloned(),
                _ => None,
            },
            Value::Object(object) => self.attribute_of_object(object, name)?,
            _ => None,
        })
    }

    fn attribute_of_object(&mut self, object: &Object, name: &str) -> Result<Option<Value>> {
        Ok(match object {
            Object::Loop(it) => self.attribute_of_loop(it, name)?,
            Object::Cycler(it) => match name {
                "current" => Some(it.current()),
                "items" => Some(Value::tuple(it.items.clone())?),
                "pos" => Some(Value::Int(it.position.get() as i128)),
                _ => None,
            },
            Object::Joiner(it) => match name {
                "sep" => Some(it.separator.clone()),
                "used" => Some(Value::Bool(it.used.get())),
                _ => None,
            },
            Object::Macro(it) => match name {
                "name" => Some(it.code.name.clone().map_or(Value::None, Value::Str)),
                "arguments" => {
                    let names = it.code.parameters.iter().map(|parameter| Value::Str(parameter.name.clone()));
                    Some(Value::tuple(names.collect())?)
                }
                "catch_kwargs" => Some(Value::Bool(it.code.kwargs.is_some())),
                "catch_varargs" => Some(Value::Bool(it.code.varargs.is_some())),
                "caller" => Some(Value::Bool(it.code.caller.is_some())),
                "explicit_caller" => {
                    Some(Value::Bool(it.code.parameters.iter().any(|parameter| &*parameter.name == "caller")))
                }
                _ => None,
            },
            Object::Block(block) => match name {
                "name" => Some(Value::Str(block.name.clone())),
                "super" => Some(Value::undefined(format!("there is no parent block called '{}'.", block.name))),
                _ => None,
            },
            _ => None,
        })
    }

    fn attribute_of_loop(&mut self, it: &Rc<Loop>, name: &str) -> Result<Option<Value>> {
        let index = it.state.borrow().index as i128;
        let number = |number| Ok(Some(Value::Int(number)));
        match name {
            "index" => number(index),
            "index0" => number(index - 1),
            "revindex" => number(it.length(self)? as i128 - index + 1),
            "revindex0" => number(it.length(self)? as i128 - index),
            "length" => number(it.length(self)? as i128),
            "depth" => number(it.depth0 as i128 + 1),
            "depth0" => number(it.depth0 as i128),
            "first" => Ok(Some(Value::Bool(index == 1))),
            "last" => Ok(Some(Value::Bool(it.peek(self)?.is_none()))),
            "previtem" => {
                let before = it.state.borrow().before.clone();
                Ok(Some(before.unwrap_or_else(|| Value::undefined("there is no previous item"))))
            }
            "nextitem" => {
                let after = it.peek(self)?;
                Ok(Some(after.unwrap_or_else(|| Value::undefined("there is no next item"))))
            }
            _ => Ok(None),
        }
    }

    /// Python's `value[index]`; `None` if there is no such item.
    fn item(&mut self, value: &Value, index: &Value) -> Result<Option<Value>> {
        value.defined()?;
        if let Value::Dict(dict) = value {
            // an unhashable index is a missing key
            return Ok(dict.get(index).unwrap_or_default().cloned());
        }
        if let (Value::Object(Object::Itself), Some(name)) = (value, index.as_str()) {
            return Ok(self.block_named(name));
        }
        let Some(index) = index.as_int() else { return Ok(None) };
        if let Value::Range(range) = value {
            let length = range.len() as i128;
            let at = if index < 0 { index + length } else { index };
            return Ok((0..length).contains(&at).then(|| Value::Int(range.get(at))));
        }
        if let Some(text) = value.as_str() {
            self.budget.steps(text.len() / 64)?;
            let char = match usize::try_from(index) {
                Ok(at) => text.chars().nth(at),
                Err(_) => usize::try_from(-(index + 1)).ok().and_then(|at| text.chars().nth_back(at)),
            };
            let char = char.map(Value::char);
            return Ok(if let Value::Markup(_) = value { char.map(Value::marked_up) } else { char });
        }
        if let Value::Bytes(bytes) = value {
            return Ok(place(index, bytes.len()).map(|at| Value::Int(bytes[at].into())));
        }
        Ok(value.as_items().and_then(|items| items.get(place(index, items.len())?)).cloned())
    }

    /// `value[start:stop:step]`
    pub(crate) fn slice(&mut self, value: &Value, bounds: &[Option<Value>; 3]) -> Result<Value> {
        value.defined()?;
        let is_sliceable = value.as_str().is_some()
            || value.as_items().is_some()
            || matches!(value, Value::Bytes(_) | Value::Range(_));
        if !is_sliceable {
            return fail!(Type, "'{}' object cannot be sliced", value.type_name());
        }
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            *number = match bound {
                None | Some(Value::None) => None,
                Some(bound) => match bound.as_int() {
                    Some(number) => Some(number),
                    None => {
                        return fail!(Type, "slice indices must be integers or None or have an __index__ method");
                    }
                },
            };
        }
        let length = self.len(value)?;
        let Some(places) = places(length, numbers) else { return fail!(Value, "slice step cannot be zero") };
        self.budget.charge_many(usize::try_from(places.len()).unwrap_or(usize::MAX), 8)?;
        let at = |i: i128| places.get(i) as usize;
        let count = 0..places.len() as i128;
        Ok(match value {
            Value::Range(range) => {
                let step = range.step.saturating_mul(places.step);
                Value::Range(Rc::new(Range { start: range.get(places.start), stop: range.get(places.stop), step }))
            }
            Value::Bytes(bytes) => Value::Bytes(count.map(|i| bytes[at(i)]).collect()),
            Value::Str(text) | Value::Markup(text) => {
                let sliced = match places.step {
                    1 => Value::str(chars_between(text, places.start as usize, places.len() as usize)),
                    _ => {
                        self.budget.charge_many(length, 4)?;
                        let chars: Vec<char> = text.chars().collect();
                        Value::str(count.map(|i| chars[at(i)]).collect::<String>())
                    }
                };
                self.budget.charge(text.len() / 16)?;
                if let Value::Markup(_) = value { sliced.marked_up() } else { sliced }
            }
            other => {
                let items = other.as_items().unwrap_or_default();
                let sliced: Vec<Value> = count.map(|i| items[at(i)].clone()).collect();
                self.budget.charge_many(sliced.len(), ITEM)?;
                if let Value::List(_) = value { Value::list(sliced)? } else { Value::tuple(sliced)? }
            }
        })
    }
}

/// Position of an index; a negative index counts from the end.
fn place(index: i128, length: usize) -> Option<usize> {
    let at = if index < 0 { index + length as i128 } else { index };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// CPython's slice bounds, as a range of positions; `None` for a step of 0.
pub(crate) fn places(length: usize, [start, stop, step]: [Option<i128>; 3]) -> Option<Range> {
    let length = length as i128;
    let step = step.unwrap_or(1).clamp(-(1 << 64), 1 << 64);
    if step == 0 {
        return None;
    }
    let (lowest, highest) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let clamp = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (first, last) = if step < 0 { (highest, lowest) } else { (lowest, highest) };
    Some(Range { start: clamp(start, first), stop: clamp(stop, last), step })
}

fn chars_between(text: &str, start: usize, count: usize) -> &str {
    let offset = |at: usize, text: &str| text.char_indices().nth(at).map_or(text.len(), |(offset, _)| offset);
    let rest = &text[offset(start, text)..];
    &rest[..offset(count, rest)]
}
