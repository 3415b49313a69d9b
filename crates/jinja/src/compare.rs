//! Truth, length, equality, order and membership.

use std::cmp::Ordering;

use crate::ast::Compare;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::objects::Object;
use crate::value::{Part, Value, float_as_int};
use crate::vm::Vm;

impl Vm {
    pub(crate) fn truth(&mut self, value: &Value) -> Result<bool> {
        Ok(match value {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(flag) => *flag,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Iterator(_) => true,
            Value::Object(Object::Loop(it)) => it.length(self)? > 0,
            Value::Object(_) => true,
            sized => self.len(sized)? > 0,
        })
    }

    pub(crate) fn len(&mut self, value: &Value) -> Result<usize> {
        Ok(match value {
            Value::Undefined(_) => 0,
            Value::Str(text) | Value::Markup(text) => {
                self.budget.steps(text.len() / 256)?;
                text.chars().count()
            }
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => items.items.len(),
            Value::Dict(dict) | Value::View(dict, _) => dict.len(),
            Value::Range(range) => usize::try_from(range.len()).unwrap_or(usize::MAX),
            Value::Object(Object::Loop(it)) => it.length(self)?,
            other => return fail!(Type, "object of type '{}' has no len()", other.type_name()),
        })
    }

    pub(crate) fn compare(&mut self, operator: Compare, left: &Value, right: &Value) -> Result<bool> {
        if let (Value::View(a, Part::Keys | Part::Items), Value::View(b, Part::Keys | Part::Items)) = (left, right) {
            let (larger, smaller, strict) = match operator {
                Compare::Lt | Compare::Le => (right, left, operator == Compare::Lt),
                Compare::Gt | Compare::Ge => (left, right, operator == Compare::Gt),
                _ => (left, right, false),
            };
            if matches!(operator, Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge) {
                return Ok(self.is_subset(smaller, larger)? && !(strict && a.len() == b.len()));
            }
        }
        let order = |vm: &mut Self, symbol| vm.order(left, right, symbol);
        Ok(match operator {
            Compare::Eq => self.eq(left, right)?,
            Compare::Ne => !self.eq(left, right)?,
            Compare::Lt => order(self, "<")? == Some(Ordering::Less),
            Compare::Le => matches!(order(self, "<=")?, Some(Ordering::Less | Ordering::Equal)),
            Compare::Gt => order(self, ">")? == Some(Ordering::Greater),
            Compare::Ge => matches!(order(self, ">=")?, Some(Ordering::Greater | Ordering::Equal)),
            Compare::In => self.contains(right, left)?,
            Compare::NotIn => !self.contains(right, left)?,
        })
    }

    fn is_subset(&mut self, smaller: &Value, larger: &Value) -> Result<bool> {
        let mut items = Iter::of(smaller)?;
        while let Some(item) = items.next(self)? {
            if !self.contains(larger, &item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn eq(&mut self, left: &Value, right: &Value) -> Result<bool> {
        self.budget.step()?;
        Ok(match (left, right) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a) | Value::Markup(a), Value::Str(b) | Value::Markup(b)) => {
                self.budget.steps(a.len().min(b.len()) / 256)?;
                a == b
            }
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => self.eq_items(&a.items, &b.items)?,
            (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
                self.eq_items(&a.items, &b.items)?
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.entries() {
                    match b.get(key)? {
                        Some(other) if self.same_or_eq(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::View(a, Part::Keys), Value::View(b, Part::Keys)) => {
                a.len() == b.len() && a.entries().iter().all(|(key, _)| matches!(b.get(key), Ok(Some(_))))
            }
            (Value::View(a, Part::Items), Value::View(b, Part::Items)) => {
                self.eq(&Value::Dict(a.clone()), &Value::Dict(b.clone()))?
            }
            (Value::Range(a), Value::Range(b)) => {
                a.len() == b.len() && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step))
            }
            (left, right) => match numbers(left, right) {
                Some(order) => order == Some(Ordering::Equal),
                None => left.is(right),
            },
        })
    }

    /// Equality within containers, where the same object is always equal.
    pub(crate) fn same_or_eq(&mut self, left: &Value, right: &Value) -> Result<bool> {
        Ok(left.is(right) || self.eq(left, right)?)
    }

    fn eq_items(&mut self, left: &[Value], right: &[Value]) -> Result<bool> {
        if left.len() != right.len() {
            return Ok(false);
        }
        for (a, b) in left.iter().zip(right) {
            if !self.same_or_eq(a, b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Order of two values; `None` if one is NaN; a type error if they have no order.
    pub(crate) fn order(&mut self, left: &Value, right: &Value, symbol: &str) -> Result<Option<Ordering>> {
        self.budget.step()?;
        left.defined()?;
        right.defined()?;
        match (left, right) {
            (Value::Str(a) | Value::Markup(a), Value::Str(b) | Value::Markup(b)) => {
                self.budget.steps(a.len().min(b.len()) / 256)?;
                Ok(Some(a.cmp(b)))
            }
            (Value::Bytes(a), Value::Bytes(b)) => Ok(Some(a.cmp(b))),
            (Value::List(a), Value::List(b))
            | (Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !self.same_or_eq(a, b)? {
                        return self.order(a, b, symbol);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            _ => match numbers(left, right) {
                Some(order) => Ok(order),
                None => fail!(
                    Type,
                    "'{symbol}' not supported between instances of '{}' and '{}'",
                    left.type_name(),
                    right.type_name()
                ),
            },
        }
    }

    pub(crate) fn contains(&mut self, container: &Value, item: &Value) -> Result<bool> {
        match container {
            Value::Undefined(_) => Ok(false),
            Value::Str(text) | Value::Markup(text) => match item.as_str() {
                Some(part) => {
                    self.budget.steps(text.len() / 64)?;
                    Ok(text.contains(part))
                }
                None => fail!(Type, "'in <string>' requires string as left operand, not {}", item.type_name()),
            },
            Value::Dict(dict) | Value::View(dict, Part::Keys) => Ok(dict.get(item)?.is_some()),
            Value::View(dict, Part::Items) => match item {
                Value::Tuple(pair) if pair.items.len() == 2 => match dict.get(&pair.items[0])? {
                    Some(value) => self.same_or_eq(value, &pair.items[1]),
                    None => Ok(false),
                },
                _ => Ok(false),
            },
            Value::Range(range) => {
                let number = match item {
                    Value::Float(number) => float_as_int(*number),
                    other => other.as_int(),
                };
                Ok(number.is_some_and(|number| {
                    let steps = (number - range.start).checked_div(range.step).unwrap_or(-1);
                    steps >= 0 && (steps as u128) < range.len() && range.get(steps) == number
                }))
            }
            Value::Object(Object::Loop(_))
            | Value::Object(_)
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
                if Iter::of(container).is_err() =>
            {
                fail!(Type, "argument of type '{}' is not iterable", container.type_name())
            }
            iterable => {
                let mut iter = Iter::of(iterable)?;
                while let Some(other) = iter.next(self)? {
                    if self.same_or_eq(item, &other)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

/// Order of two numbers; the outer `None` if a value is not a number, the inner one for NaN.
fn numbers(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return Some(Some(a.cmp(&b)));
    }
    match (left, right) {
        (Value::Float(a), Value::Float(b)) => Some(a.partial_cmp(b)),
        (Value::Float(a), _) => right.as_int().map(|b| float_to_int(*a, b)),
        (_, Value::Float(b)) => left.as_int().map(|a| float_to_int(*b, a).map(Ordering::reverse)),
        _ => None,
    }
}

/// Exact comparison, also for integers beyond the precision of a float.
fn float_to_int(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1.7e38 {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let floor = a.floor();
    Some((floor as i128).cmp(&b).then(if a > floor { Ordering::Greater } else { Ordering::Equal }))
}
