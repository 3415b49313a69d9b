//! Functions of the environment.

use std::cell::RefCell;
use std::rc::Rc;

use crate::args::Args;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::lorem;
use crate::objects::{Cycler, Function, Joiner, Namespace, Object, check_name};
use crate::value::{Dict, ITEM, Range, Value};
use crate::vm::Vm;

/// The longest range that jinja2's sandbox allows.
const LONGEST_RANGE: u128 = 100_000;

pub(crate) fn call(vm: &mut Vm, function: Function, args: Args) -> Result<Value> {
    match function {
        Function::Range => range(args),
        Function::Dict => dict(vm, args).map(Value::dict),
        Function::Lipsum => lorem::lipsum(vm, args),
        Function::Cycler => {
            if !args.keywords.is_empty() {
                return fail!(Type, "Cycler.__init__() got an unexpected keyword argument");
            }
            if args.positional.is_empty() {
                return fail!(Runtime, "at least one item has to be provided");
            }
            Ok(Value::Object(Object::Cycler(Rc::new(Cycler::new(args.positional)?))))
        }
        Function::Joiner => {
            let [separator] = args.bind("Joiner", ["sep"], 0)?;
            let separator = separator.unwrap_or_else(|| Value::str(", "));
            Ok(Value::Object(Object::Joiner(Rc::new(Joiner::new(separator)?))))
        }
        Function::Namespace => {
            let attributes = dict(vm, args)?;
            attributes.entries().iter().try_for_each(|(name, _)| check_name(name))?;
            vm.keep_namespace(Namespace { attributes: RefCell::new(attributes) })
        }
        Function::StrftimeNow => {
            let [format] = args.bind("strftime_now", ["format"], 1)?;
            let format = format.unwrap_or(Value::None);
            let text = (vm.clock)(format.text("strftime() argument 1")?);
            vm.budget.charge(text.len())?;
            Ok(Value::Str(text.into()))
        }
        Function::RaiseException => fail!(Raised, ""),
    }
}

fn range(args: Args) -> Result<Value> {
    let [first, second, step] = args.places("range", 1)?;
    let number = |value: &Option<Value>, default| value.as_ref().map_or(Ok(default), Value::index);
    let (first, second) = match second {
        None => (None, first),
        second => (first, second),
    };
    let range = Range { start: number(&first, 0)?, stop: number(&second, 0)?, step: number(&step, 1)? };
    if range.step == 0 {
        return fail!(Value, "range() arg 3 must not be zero");
    }
    if range.len() > LONGEST_RANGE {
        return fail!(Overflow, "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({LONGEST_RANGE}).");
    }
    Ok(Value::Range(Rc::new(range)))
}

/// Python's `dict(…)`: from a mapping or from pairs, with keywords.
fn dict(vm: &mut Vm, args: Args) -> Result<Dict> {
    if args.positional.len() > 1 {
        return fail!(Type, "dict expected at most 1 argument, got {}", args.positional.len());
    }
    let mut dict = Dict::default();
    match args.positional.first() {
        None => {}
        Some(Value::Dict(other)) => {
            vm.budget.charge_many(other.len(), 4 * ITEM)?;
            other.entries().iter().try_for_each(|(key, value)| dict.insert(key.clone(), value.clone()))?;
        }
        Some(pairs) => {
            let mut pairs = Iter::of(pairs)?;
            while let Some(pair) = pairs.next(vm)? {
                let mut items = Iter::of(&pair)?.collect(vm)?.into_iter();
                let (Some(key), Some(value), None) = (items.next(), items.next(), items.next()) else {
                    return fail!(Value, "every item of a dictionary must be a pair");
                };
                vm.budget.charge(4 * ITEM)?;
                dict.insert(key, value)?;
            }
        }
    }
    args.keywords.into_iter().try_for_each(|(keyword, value)| dict.insert(Value::Str(keyword), value))?;
    Ok(dict)
}
