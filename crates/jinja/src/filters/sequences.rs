//! Filters of sequences and mappings.

use std::cmp::Ordering;

use super::{flag, given};
use crate::args::Args;
use crate::ast::Binary;
use crate::error::{Result, fail};
use crate::iterate::{Iter, Lazy};
use crate::methods;
use crate::operators::binary;
use crate::value::{ITEM, Value};
use crate::vm::Vm;

/// Key of an item: attributes, optionally with case ignored.
pub(super) struct Getter {
    paths: Vec<Vec<Value>>,
    ignores_case: bool,
    default: Option<Value>,
}

impl Getter {
    /// One attribute path, its parts separated by dots.
    pub(super) fn one(attribute: Option<&Value>, ignores_case: bool, default: Option<Value>) -> Result<Self> {
        Ok(Self { paths: vec![path(attribute)?], ignores_case, default })
    }

    /// Several attribute paths, separated by commas.
    fn several(attribute: Option<&Value>, ignores_case: bool) -> Result<Self> {
        let paths = match attribute.and_then(Value::as_str) {
            Some(text) => text.split(',').map(|part| path(Some(&Value::str(part)))).collect::<Result<_>>()?,
            None => vec![path(attribute)?],
        };
        Ok(Self { paths, ignores_case, default: None })
    }

    pub(super) fn get(&self, vm: &mut Vm, item: &Value) -> Result<Value> {
        self.at(vm, item, &self.paths[0])
    }

    fn get_all(&self, vm: &mut Vm, item: &Value) -> Result<Value> {
        Value::list(self.paths.iter().map(|path| self.at(vm, item, path)).collect::<Result<_>>()?)
    }

    fn at(&self, vm: &mut Vm, item: &Value, path: &[Value]) -> Result<Value> {
        let mut item = item.clone();
        for part in path {
            item = vm.getitem(&item, part)?;
            if let (true, Some(default)) = (item.is_undefined(), &self.default) {
                item = default.clone();
            }
        }
        match item.as_str() {
            Some(text) if self.ignores_case => {
                vm.budget.charge(text.len())?;
                Ok(Value::str(methods::lower(text)))
            }
            _ => Ok(item),
        }
    }
}

fn path(attribute: Option<&Value>) -> Result<Vec<Value>> {
    let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) else {
        return Ok(Vec::new());
    };
    let Some(text) = attribute.as_str() else { return Ok(vec![attribute.clone()]) };
    let part = |part: &str| match part.parse::<i128>() {
        Ok(number) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(number),
        _ => Value::str(part),
    };
    Ok(text.split('.').map(part).collect())
}

/// A flag that Python converts as an integer.
fn whole_flag(argument: Option<Value>) -> Result<bool> {
    Ok(argument.map_or(Ok(0), |argument| argument.index())? != 0)
}

/// The items sorted by key, stable.
fn sorted(vm: &mut Vm, mut items: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>> {
    if reverse {
        items.reverse();
    }
    let mut items = merge_sort(vm, items)?;
    if reverse {
        items.reverse();
    }
    Ok(items)
}

fn merge_sort(vm: &mut Vm, mut items: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = items.split_off(items.len() / 2);
    let mut left = merge_sort(vm, items)?.into_iter().peekable();
    let mut right = merge_sort(vm, right)?.into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let goes_first = vm.order(&b.0, &a.0, "<")? == Some(Ordering::Less);
        merged.extend(if goes_first { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

pub(super) fn sort(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [reverse, case_sensitive, attribute] = args.bind("do_sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let (reverse, case_sensitive) = (whole_flag(reverse)?, flag(vm, case_sensitive)?);
    let getter = Getter::several(attribute.as_ref(), !case_sensitive)?;
    let mut items = Vec::new();
    for item in Iter::of(value)?.collect(vm)? {
        items.push((getter.get_all(vm, &item)?, item));
    }
    let items = sorted(vm, items, reverse)?;
    Value::list(items.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn dictsort(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [case_sensitive, by, reverse] = args.bind("do_dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let (case_sensitive, reverse) = (flag(vm, case_sensitive)?, whole_flag(reverse)?);
    let by_value = match by.as_ref().map(|by| by.as_str()) {
        None | Some(Some("key")) => false,
        Some(Some("value")) => true,
        _ => return fail!(Runtime, "You can only sort by either \"key\" or \"value\""),
    };
    value.defined()?;
    let Value::Dict(dict) = value else {
        return fail!(Attribute, "'{}' object has no attribute 'items'", value.type_name());
    };
    let getter = Getter::one(None, !case_sensitive, None)?;
    let mut items = Vec::new();
    vm.budget.charge_many(dict.len(), 4 * ITEM)?;
    for (key, value) in dict.entries() {
        let by = if by_value { value } else { key };
        items.push((getter.get(vm, by)?, Value::tuple(vec![key.clone(), value.clone()])?));
    }
    let items = sorted(vm, items, reverse)?;
    Value::list(items.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn groupby(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [attribute, default, case_sensitive] =
        args.bind("do_groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let default = given(default);
    let case_sensitive = flag(vm, case_sensitive)?;
    let getter = Getter::one(attribute.as_ref(), !case_sensitive, default.clone())?;
    let plain = Getter::one(attribute.as_ref(), false, default)?;
    let mut items = Vec::new();
    for item in Iter::of(value)?.collect(vm)? {
        items.push((getter.get(vm, &item)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sorted(vm, items, false)? {
        match groups.last_mut() {
            Some((last, group)) if vm.same_or_eq(last, &key)? => group.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (key, items) in groups {
        // the group has the case of its first item
        let grouper = if case_sensitive { key } else { plain.get(vm, &items[0])? };
        vm.budget.charge_many(4, ITEM)?;
        out.push(Value::Group(Value::sequence(vec![grouper, Value::list(items)?])?));
    }
    Value::list(out)
}

/// `min` and `max`
pub(super) fn extreme(vm: &mut Vm, value: &Value, args: Args, is_max: bool) -> Result<Value> {
    let [case_sensitive, attribute] = args.bind("min_or_max", ["case_sensitive", "attribute"], 0)?;
    let case_sensitive = flag(vm, case_sensitive)?;
    let mut iter = Iter::of(value)?;
    let Some(mut best) = iter.next(vm)? else {
        return Ok(Value::undefined("No aggregated item, sequence was empty."));
    };
    let getter = Getter::one(attribute.as_ref(), !case_sensitive, None)?;
    let mut best_key = getter.get(vm, &best)?;
    while let Some(item) = iter.next(vm)? {
        let key = getter.get(vm, &item)?;
        let (symbol, wanted) = if is_max { (">", Ordering::Greater) } else { ("<", Ordering::Less) };
        if vm.order(&key, &best_key, symbol)? == Some(wanted) {
            (best, best_key) = (item, key);
        }
    }
    Ok(best)
}

pub(super) fn sum(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [attribute, start] = args.bind("do_sum", ["attribute", "start"], 0)?;
    let mut total = start.unwrap_or(Value::Int(0));
    if total.as_str().is_some() {
        return fail!(Type, "sum() can't sum strings [use ''.join(seq) instead]");
    }
    let getter = Getter::one(attribute.as_ref(), false, None)?;
    let mut iter = Iter::of(value)?;
    while let Some(item) = iter.next(vm)? {
        let item = getter.get(vm, &item)?;
        total = binary(vm, Binary::Add, &total, &item)?;
    }
    Ok(total)
}

pub(super) fn join(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [separator, attribute] = args.bind("do_join", ["d", "attribute"], 0)?;
    let separator = separator.unwrap_or_else(|| Value::str(""));
    let getter = Getter::one(attribute.as_ref(), false, None)?;
    let mut items = Vec::new();
    let mut iter = Iter::of(value)?;
    while let Some(item) = iter.next(vm)? {
        vm.budget.charge(ITEM)?;
        items.push(getter.get(vm, &item)?);
    }
    let is_markup = |value: &Value| matches!(value, Value::Markup(_));
    let escapes = vm.autoescape && (is_markup(&separator) || items.iter().any(is_markup));
    let separator = if escapes { vm.escape(&separator)? } else { vm.str(&separator)? };
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let text = if escapes { vm.escape(item)? } else { vm.str(item)? };
        vm.budget.charge(separator.len() + text.len())?;
        out.push_str(if i == 0 { "" } else { &separator });
        out.push_str(&text);
    }
    Ok(if escapes { Value::Markup(out.into()) } else { Value::Str(out.into()) })
}

pub(super) fn first(vm: &mut Vm, value: &Value) -> Result<Value> {
    let first = Iter::of(value)?.next(vm)?;
    Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
}

pub(super) fn last(vm: &mut Vm, value: &Value) -> Result<Value> {
    let last = Iter::reversed(value, vm)?.next(vm)?;
    Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
}

pub(super) fn reverse(vm: &mut Vm, value: &Value) -> Result<Value> {
    if let Some(text) = value.as_str() {
        vm.budget.charge(text.len())?;
        return Ok(super::like(value, text.chars().rev().collect::<String>()));
    }
    let name = match value {
        Value::List(_) => "list_reverseiterator",
        Value::Dict(_) => "dict_reversekeyiterator",
        Value::Range(_) => "range_iterator",
        _ => "reversed",
    };
    if let Ok(items) = Iter::reversed(value, vm) {
        return Lazy::iterator(name, items, value);
    }
    let Ok(mut items) = Iter::of(value) else { return fail!(Runtime, "argument must be iterable") };
    let mut items = items.collect(vm)?;
    items.reverse();
    Value::list(items)
}

/// One of the items. The choice is the same in every rendering: the text of earlier messages of a chat must not change.
pub(super) fn random(vm: &mut Vm, value: &Value) -> Result<Value> {
    let length = vm.len(value)?;
    if length == 0 {
        return Ok(Value::undefined("No random item, sequence was empty."));
    }
    let at = vm.random.below(length);
    match vm.getitem(value, &Value::Int(at as i128))? {
        Value::Undefined(_) => fail!(Lookup, "{at}"),
        item => Ok(item),
    }
}

pub(super) fn attr(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [name] = args.bind("do_attr", ["name"], 1)?;
    let name = name.unwrap_or(Value::None);
    let name = name.text("attribute name")?.clone();
    match vm.attribute(value, &name)? {
        Some(attribute) => Ok(attribute),
        None => Ok(Value::undefined(format!("'{}' has no attribute '{name}'", vm.describe(value)))),
    }
}
