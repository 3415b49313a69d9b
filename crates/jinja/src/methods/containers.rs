//! Methods of lists, tuples, ranges and dictionaries.

use std::rc::Rc;

use crate::args::Args;
use crate::attributes::places;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::value::{Dict, ITEM, Part, Value};
use crate::vm::Vm;

pub(super) fn call_sequence(vm: &mut Vm, receiver: &Value, name: &str, args: Args) -> Result<Value> {
    match name {
        "copy" => {
            args.places::<0>(name, 0)?;
            let items = receiver.as_items().unwrap_or_default();
            vm.budget.charge_many(items.len(), ITEM)?;
            Value::list(items.to_vec())
        }
        "count" => {
            let [wanted] = args.places(name, 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let (mut iter, mut count) = (Iter::of(receiver)?, 0);
            while let Some(item) = iter.next(vm)? {
                count += i128::from(vm.same_or_eq(&item, &wanted)?);
            }
            Ok(Value::Int(count))
        }
        "index" => {
            let [wanted, start, stop] = args.places(name, 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let bound = |bound: Option<Value>| bound.map(|bound| bound.index()).transpose();
            let range = places(vm.len(receiver)?, [bound(start)?, bound(stop)?, None]);
            let mut iter = Iter::of(receiver)?;
            let mut at = 0;
            while let Some(item) = iter.next(vm)? {
                let is_within = range.as_ref().is_some_and(|range| (range.start..range.stop).contains(&at));
                if is_within && vm.same_or_eq(&item, &wanted)? {
                    return Ok(Value::Int(at));
                }
                at += 1;
            }
            fail!(Value, "{} is not in {}", vm.repr(&wanted)?, receiver.type_name())
        }
        other => fail!(Attribute, "'{}' object has no attribute '{other}'", receiver.type_name()),
    }
}

pub(super) fn call_dict(vm: &mut Vm, dict: &Rc<Dict>, name: &str, args: Args) -> Result<Value> {
    match name {
        "get" => {
            let [key, default] = args.places(name, 1)?;
            let found = dict.get(&key.unwrap_or(Value::None))?.cloned();
            return Ok(found.or(default).unwrap_or(Value::None));
        }
        "fromkeys" => return from_keys(vm, args),
        _ => {}
    }
    args.places::<0>(name, 0)?;
    match name {
        "items" => Ok(Value::View(dict.clone(), Part::Items)),
        "keys" => Ok(Value::View(dict.clone(), Part::Keys)),
        "values" => Ok(Value::View(dict.clone(), Part::Values)),
        "copy" => {
            vm.budget.charge_many(dict.len(), 4 * ITEM)?;
            let mut copy = Dict::default();
            for (key, value) in dict.entries() {
                copy.insert(key.clone(), value.clone())?;
            }
            Ok(Value::dict(copy))
        }
        other => fail!(Attribute, "'dict' object has no attribute '{other}'"),
    }
}

/// `dict.fromkeys(iterable, value)`
pub(super) fn from_keys(vm: &mut Vm, args: Args) -> Result<Value> {
    let [keys, value] = args.places("fromkeys", 1)?;
    let value = value.unwrap_or(Value::None);
    let mut dict = Dict::default();
    let mut iter = Iter::of(&keys.unwrap_or(Value::None))?;
    while let Some(key) = iter.next(vm)? {
        vm.budget.charge(4 * ITEM)?;
        dict.insert(key, value.clone())?;
    }
    Ok(Value::dict(dict))
}

pub(super) fn is_disjoint(vm: &mut Vm, view: &Value, args: Args) -> Result<Value> {
    let [other] = args.places("isdisjoint", 1)?;
    let mut iter = Iter::of(&other.unwrap_or(Value::None))?;
    while let Some(item) = iter.next(vm)? {
        if vm.contains(view, &item)? {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}
