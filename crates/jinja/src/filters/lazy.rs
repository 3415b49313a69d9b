//! Filters that are generators in Python. Even their arguments are checked only when the first item is taken.

use std::collections::HashSet;

use super::sequences::Getter;
use super::{apply, flag, given};
use crate::args::Args;
use crate::ast::Compare;
use crate::error::{Result, fail};
use crate::iterate::{Generator, Iter, Lazy};
use crate::predicates;
use crate::value::{ITEM, Key, Value};
use crate::vm::Vm;

/// State of a generator.
enum Stage<T> {
    Waiting,
    Running(Iter, T),
}

impl Args {
    /// A copy of the arguments for one item.
    fn again(&self) -> Self {
        Self { positional: self.positional.clone(), keywords: self.keywords.clone() }
    }
}

fn generator(
    function: &'static str,
    source: Value,
    generator: impl Generator + 'static,
    args: &[Value],
) -> Result<Value> {
    let held: Vec<&Value> = args.iter().chain([&source]).collect();
    Lazy::generator(function, generator, &held)
}

fn values(args: &Args) -> Vec<Value> {
    args.positional.iter().cloned().chain(args.keywords.iter().map(|(_, value)| value.clone())).collect()
}

/// `map`
pub(super) fn map(source: Value, args: Args) -> Result<Value> {
    let held = values(&args);
    generator("sync_do_map", source.clone(), Map { source, args, stage: Stage::Waiting }, &held)
}

struct Map {
    source: Value,
    args: Args,
    stage: Stage<Mapper>,
}

enum Mapper {
    Attribute(Getter),
    Filter(Value),
}

impl Map {
    fn mapper(&mut self) -> Result<Mapper> {
        if self.args.positional.is_empty()
            && let Some(attribute) = self.args.take("attribute")
        {
            let default = given(self.args.take("default"));
            if let Some((keyword, _)) = self.args.keywords.first() {
                return fail!(Runtime, "Unexpected keyword argument '{keyword}'");
            }
            return Ok(Mapper::Attribute(Getter::one(Some(&attribute), false, default)?));
        }
        if self.args.positional.is_empty() {
            return fail!(Runtime, "map requires a filter argument");
        }
        Ok(Mapper::Filter(self.args.positional.remove(0)))
    }
}

impl Generator for Map {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        if let Stage::Waiting = self.stage {
            if !vm.truth(&self.source)? {
                return Ok(None);
            }
            let mapper = self.mapper()?;
            self.stage = Stage::Running(Iter::of(&self.source)?, mapper);
        }
        let Stage::Running(iter, mapper) = &mut self.stage else { return Ok(None) };
        let Some(item) = iter.next(vm)? else { return Ok(None) };
        match mapper {
            Mapper::Attribute(getter) => getter.get(vm, &item).map(Some),
            Mapper::Filter(name) => match name.as_text() {
                Some(name) => apply(vm, &name.clone(), item, self.args.again()).map(Some),
                None => fail!(Runtime, "No filter named {}.", vm.repr(name)?),
            },
        }
    }
}

/// `select`, `reject` and their forms for attributes.
pub(super) fn select(source: Value, args: Args, by_attribute: bool, negated: bool) -> Result<Value> {
    let held = values(&args);
    let select = Select { source, args, by_attribute, negated, stage: Stage::Waiting };
    generator("select_or_reject", select.source.clone(), select, &held)
}

struct Select {
    source: Value,
    args: Args,
    by_attribute: bool,
    negated: bool,
    /// Key of an item, and the test; without a test, its truth value.
    stage: Stage<(Getter, Option<Value>)>,
}

impl Generator for Select {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        if let Stage::Waiting = self.stage {
            if !vm.truth(&self.source)? {
                return Ok(None);
            }
            if self.by_attribute && self.args.positional.is_empty() {
                return fail!(Runtime, "Missing parameter for attribute name");
            }
            let attribute = self.by_attribute.then(|| self.args.positional.remove(0));
            let getter = Getter::one(attribute.as_ref(), false, None)?;
            let test = (!self.args.positional.is_empty()).then(|| self.args.positional.remove(0));
            self.stage = Stage::Running(Iter::of(&self.source)?, (getter, test));
        }
        let Stage::Running(iter, (getter, test)) = &mut self.stage else { return Ok(None) };
        while let Some(item) = iter.next(vm)? {
            let looked_at = getter.get(vm, &item)?;
            let holds = match test {
                None => vm.truth(&looked_at)?,
                Some(test) => match test.as_text() {
                    Some(name) => predicates::apply(vm, &name.clone(), looked_at, self.args.again())?,
                    None => return fail!(Runtime, "No test named {}.", vm.repr(test)?),
                },
            };
            if holds != self.negated {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// `batch`
pub(super) fn batch(source: Value, args: Args) -> Result<Value> {
    let [count, fill] = args.bind("do_batch", ["linecount", "fill_with"], 1)?;
    let (count, fill) = (count.unwrap_or(Value::None), given(fill));
    let held: Vec<Value> = fill.iter().cloned().collect();
    let batch = Batch { source, count, fill, iter: None, waiting: None };
    generator("do_batch", batch.source.clone(), batch, &held)
}

struct Batch {
    source: Value,
    count: Value,
    fill: Option<Value>,
    iter: Option<Iter>,
    /// The item that did not fit into the last row.
    waiting: Option<Value>,
}

impl Generator for Batch {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        let is_first = self.iter.is_none();
        let iter = match &mut self.iter {
            Some(iter) => iter,
            None => self.iter.insert(Iter::of(&self.source)?),
        };
        let is_full = |length: usize| match &self.count {
            Value::Float(count) => *count == length as f64,
            count => count.as_int() == Some(length as i128),
        };
        let mut row: Vec<Value> = self.waiting.take().into_iter().collect();
        // jinja2 checks for a full row when an item arrives, also for the first item
        let mut starts = is_first;
        while let Some(item) = iter.next(vm)? {
            vm.budget.charge(ITEM)?;
            if is_full(row.len()) && (starts || !row.is_empty()) {
                self.waiting = Some(item);
                return Value::list(row).map(Some);
            }
            starts = false;
            row.push(item);
        }
        if row.is_empty() {
            return Ok(None);
        }
        if let Some(fill) = &self.fill {
            let length = Value::Int(row.len() as i128);
            if vm.compare(Compare::Lt, &length, &self.count)? {
                let missing = usize::try_from(self.count.index()?).unwrap_or(usize::MAX) - row.len();
                vm.budget.charge_many(missing, ITEM)?;
                row.extend(std::iter::repeat_n(fill.clone(), missing));
            }
        }
        Value::list(row).map(Some)
    }
}

/// `slice`
pub(super) fn slice(source: Value, args: Args) -> Result<Value> {
    let [slices, fill] = args.bind("do_slice", ["slices", "fill_with"], 1)?;
    let (slices, fill) = (slices.unwrap_or(Value::None), given(fill));
    let held: Vec<Value> = fill.iter().cloned().collect();
    let slice = Slice { source, slices, fill, items: None, number: 0 };
    generator("sync_do_slice", slice.source.clone(), slice, &held)
}

struct Slice {
    source: Value,
    slices: Value,
    fill: Option<Value>,
    items: Option<Vec<Value>>,
    number: i128,
}

impl Generator for Slice {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        let items = match &mut self.items {
            Some(items) => items,
            None => self.items.insert(Iter::of(&self.source)?.collect(vm)?),
        };
        let slices = self.slices.index()?;
        if slices == 0 {
            return fail!(Division, "integer division or modulo by zero");
        }
        let number = self.number;
        if number >= slices {
            return Ok(None);
        }
        self.number += 1;
        let length = items.len() as i128;
        let (per_slice, extra) = (length / slices, length % slices);
        let start = number * per_slice + number.min(extra);
        let end = start + per_slice + i128::from(number < extra);
        let mut column = items[start as usize..end as usize].to_vec();
        if let Some(fill) = &self.fill
            && number >= extra
        {
            column.push(fill.clone());
        }
        vm.budget.charge_many(column.len() + 1, ITEM)?;
        Value::list(column).map(Some)
    }
}

/// `unique`
pub(super) fn unique(source: Value, args: Args) -> Result<Value> {
    let [case_sensitive, attribute] = args.bind("do_unique", ["case_sensitive", "attribute"], 0)?;
    let unique = Unique { source, case_sensitive, attribute, stage: Stage::Waiting };
    generator("sync_do_unique", unique.source.clone(), unique, &[])
}

struct Unique {
    source: Value,
    case_sensitive: Option<Value>,
    attribute: Option<Value>,
    stage: Stage<(Getter, HashSet<Key>)>,
}

impl Generator for Unique {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        if let Stage::Waiting = self.stage {
            let case_sensitive = flag(vm, self.case_sensitive.take())?;
            let getter = Getter::one(self.attribute.as_ref(), !case_sensitive, None)?;
            self.stage = Stage::Running(Iter::of(&self.source)?, (getter, HashSet::new()));
        }
        let Stage::Running(iter, (getter, seen)) = &mut self.stage else { return Ok(None) };
        while let Some(item) = iter.next(vm)? {
            vm.budget.charge_many(2, ITEM)?;
            if seen.insert(Key::of(&getter.get(vm, &item)?)?) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// `items`
pub(super) fn items(source: Value, args: Args) -> Result<Value> {
    args.bind::<0>("do_items", [], 0)?;
    generator("do_items", source.clone(), Items { source, iter: None }, &[])
}

struct Items {
    source: Value,
    iter: Option<Iter>,
}

impl Generator for Items {
    fn next(&mut self, vm: &mut Vm) -> Result<Option<Value>> {
        let iter = match (&mut self.iter, &self.source) {
            (Some(iter), _) => iter,
            (None, Value::Dict(dict)) => self.iter.insert(Iter::Dict(dict.clone(), crate::value::Part::Items, 0)),
            (None, Value::Undefined(_)) => self.iter.insert(Iter::empty()),
            _ => return fail!(Type, "Can only get item pairs from a mapping."),
        };
        iter.next(vm)
    }
}
