//! Objects with identity that Jinja adds to Python's values: namespaces, macros, loops and others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::ast;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::value::{Dict, Value, deeper};
use crate::vm::Vm;

#[derive(Clone)]
pub(crate) enum Object {
    Namespace(Rc<Namespace>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    Loop(Rc<Loop>),
    Macro(Rc<Macro>),
    Method(Rc<Method>),
    Function(Function),
    /// `self`, whose attributes are the named blocks.
    Itself,
    Block(Arc<ast::Block>),
}

/// A function of the environment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Dict,
    Lipsum,
    Cycler,
    Joiner,
    Namespace,
    RaiseException,
    StrftimeNow,
}

impl Function {
    /// The name in Python's `repr`.
    fn python_name(self) -> &'static str {
        match self {
            Self::Range => "safe_range",
            Self::Lipsum => "generate_lorem_ipsum",
            Self::RaiseException => "_cached_compile_jinja_template.<locals>.raise_exception",
            Self::StrftimeNow => "_cached_compile_jinja_template.<locals>.strftime_now",
            Self::Dict => "dict",
            Self::Cycler => "Cycler",
            Self::Joiner => "Joiner",
            Self::Namespace => "Namespace",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "lipsum" => Self::Lipsum,
            "cycler" => Self::Cycler,
            "joiner" => Self::Joiner,
            "namespace" => Self::Namespace,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }
}

pub(crate) struct Namespace {
    pub(crate) attributes: RefCell<Dict>,
}

pub(crate) struct Cycler {
    pub(crate) items: Vec<Value>,
    pub(crate) position: Cell<usize>,
    depth: u16,
}

impl Cycler {
    pub(crate) fn new(items: Vec<Value>) -> Result<Self> {
        let depth = items.iter().try_fold(1, |depth: u16, item| Ok(depth.max(deeper(item)?)))?;
        Ok(Self { items, position: Cell::new(0), depth })
    }

    pub(crate) fn current(&self) -> Value {
        self.items[self.position.get()].clone()
    }
}

pub(crate) struct Joiner {
    pub(crate) separator: Value,
    pub(crate) used: Cell<bool>,
    depth: u16,
}

impl Joiner {
    pub(crate) fn new(separator: Value) -> Result<Self> {
        Ok(Self { depth: deeper(&separator)?, separator, used: Cell::new(false) })
    }
}

/// A bound method, such as `text.upper`.
pub(crate) struct Method {
    pub(crate) receiver: Value,
    pub(crate) name: &'static str,
    depth: u16,
}

impl Method {
    pub(crate) fn new(receiver: Value, name: &'static str) -> Result<Self> {
        Ok(Self { depth: deeper(&receiver)?, receiver, name })
    }
}

/// The variables of a running function; `None` is a variable without a value.
pub(crate) struct Activation {
    pub(crate) slots: RefCell<Vec<Option<Value>>>,
    pub(crate) parent: Option<Rc<Activation>>,
}

/// A macro or the body of a `call` block, with the variables of its definition.
pub(crate) struct Macro {
    pub(crate) code: Arc<ast::Macro>,
    pub(crate) closure: Rc<Activation>,
}

/// `loop`.
pub(crate) struct Loop {
    pub(crate) state: RefCell<LoopState>,
    pub(crate) depth0: usize,
    /// The loop's code and the variables around it, if it is recursive.
    pub(crate) recursion: Option<(Arc<ast::For>, Rc<Activation>)>,
    /// Whether it is kept until the end of the rendering, because it may contain itself.
    pub(crate) kept: Cell<bool>,
    depth: u16,
}

pub(crate) struct LoopState {
    iterable: Value,
    iter: Iter,
    pub(crate) index: usize,
    length: Option<usize>,
    after: Option<Value>,
    pub(crate) current: Option<Value>,
    pub(crate) before: Option<Value>,
    pub(crate) changed: Option<Value>,
}

impl Loop {
    pub(crate) fn new(
        iterable: Value,
        depth0: usize,
        recursion: Option<(Arc<ast::For>, Rc<Activation>)>,
    ) -> Result<Self> {
        let state = LoopState {
            iter: Iter::of(&iterable)?,
            index: 0,
            length: None,
            after: None,
            current: None,
            before: None,
            changed: None,
            iterable,
        };
        let depth = deeper(&state.iterable)?;
        Ok(Self { state: RefCell::new(state), depth0, recursion, kept: Cell::new(false), depth })
    }

    /// The number of items; reads an iterator to its end.
    pub(crate) fn length(&self, vm: &mut Vm) -> Result<usize> {
        if let Some(length) = self.state.borrow().length {
            return Ok(length);
        }
        let known = vm.len(&self.state.borrow().iterable);
        let length = match known {
            Ok(length) => length,
            Err(_) => {
                let mut iter = std::mem::replace(&mut self.state.borrow_mut().iter, Iter::empty());
                let items = iter.collect(vm)?;
                let mut state = self.state.borrow_mut();
                let length = items.len() + state.index + usize::from(state.after.is_some());
                state.iter = Iter::Owned(items.into_iter());
                length
            }
        };
        self.state.borrow_mut().length = Some(length);
        Ok(length)
    }

    /// The next item, without advancing.
    pub(crate) fn peek(&self, vm: &mut Vm) -> Result<Option<Value>> {
        if self.state.borrow().after.is_none() {
            let next = self.advance(vm)?;
            self.state.borrow_mut().after = next;
        }
        Ok(self.state.borrow().after.clone())
    }

    /// Advances to the next item.
    pub(crate) fn next(&self, vm: &mut Vm) -> Result<Option<Value>> {
        let peeked = self.state.borrow_mut().after.take();
        let next = match peeked {
            Some(next) => Some(next),
            None => self.advance(vm)?,
        };
        if let Some(item) = &next {
            let mut state = self.state.borrow_mut();
            state.index += 1;
            state.before = state.current.replace(item.clone());
        }
        Ok(next)
    }

    fn advance(&self, vm: &mut Vm) -> Result<Option<Value>> {
        // the iterator may refer to this loop, so the state must not stay borrowed
        let mut iter = std::mem::replace(&mut self.state.borrow_mut().iter, Iter::empty());
        let next = iter.next(vm);
        self.state.borrow_mut().iter = iter;
        next
    }
}

impl Object {
    pub(crate) fn identity(&self) -> usize {
        match self {
            Self::Namespace(it) => Rc::as_ptr(it) as usize,
            Self::Cycler(it) => Rc::as_ptr(it) as usize,
            Self::Joiner(it) => Rc::as_ptr(it) as usize,
            Self::Loop(it) => Rc::as_ptr(it) as usize,
            Self::Macro(it) => Rc::as_ptr(it) as usize,
            Self::Method(it) => Rc::as_ptr(it) as usize,
            Self::Function(it) => *it as usize + 1,
            Self::Itself => 0,
            Self::Block(it) => Arc::as_ptr(it) as usize,
        }
    }

    /// Nesting depth of the values inside. 0 for namespaces and macros, which are emptied at the end of the rendering.
    pub(crate) fn depth(&self) -> u16 {
        match self {
            Self::Cycler(it) => it.depth,
            Self::Joiner(it) => it.depth,
            Self::Loop(it) => it.depth,
            Self::Method(it) => it.depth,
            _ => 0,
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "TemplateNamespace",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(_) => "builtin_function_or_method",
            Self::Function(Function::Dict) => "TemplateDict",
            Self::Function(Function::Cycler | Function::Joiner | Function::Namespace) => "type",
            Self::Function(_) => "function",
            Self::Itself => "TemplateReference",
            Self::Block(_) => "BlockReference",
        }
    }

    /// Python's `repr`, with a fixed address.
    pub(crate) fn repr(&self, vm: &mut Vm) -> Result<String> {
        Ok(match self {
            Self::Namespace(it) => {
                let attributes = it.attributes.borrow().entries().to_vec();
                let mut dict = Dict::default();
                for (key, value) in attributes {
                    dict.insert(key, value)?;
                }
                format!("<Namespace {}>", vm.repr(&Value::dict(dict))?)
            }
            Self::Loop(it) => {
                let length = it.length(vm)?;
                format!("<LoopContext {}/{length}>", it.state.borrow().index)
            }
            Self::Macro(it) => match &it.code.name {
                Some(name) => format!("<Macro {}>", vm.repr(&Value::Str(name.clone()))?),
                None => "<Macro anonymous>".into(),
            },
            Self::Method(it) => {
                format!("<built-in method {} of {} object at 0x7f0000000000>", it.name, it.receiver.type_name())
            }
            Self::Function(Function::Cycler) => "<class 'jinja2.utils.Cycler'>".into(),
            Self::Function(Function::Joiner) => "<class 'jinja2.utils.Joiner'>".into(),
            Self::Itself => "<TemplateReference None>".into(),
            Self::Function(Function::Namespace) => {
                "<class 'transformers.utils.chat_template_utils._cached_compile_jinja_template.<locals>.TemplateNamespace'>".into()
            }
            Self::Cycler(_) | Self::Joiner(_) => {
                format!("<jinja2.utils.{} object at 0x7f0000000000>", self.type_name())
            }
            Self::Block(_) => "<jinja2.runtime.BlockReference object at 0x7f0000000000>".into(),
            Self::Function(Function::Dict) => {
                "<transformers.utils.chat_template_utils._cached_compile_jinja_template.<locals>.TemplateDict object at 0x7f0000000000>".into()
            }
            Self::Function(function) => format!("<function {} at 0x7f0000000000>", function.python_name()),
        })
    }
}

impl Namespace {
    /// Sets an attribute. As in transformers, names must not begin with an underscore.
    pub(crate) fn set(&self, name: &Value, value: Value) -> Result<()> {
        check_name(name)?;
        self.attributes.borrow_mut().insert(name.clone(), value)
    }
}

pub(crate) fn check_name(name: &Value) -> Result<()> {
    match name.as_str() {
        Some(text) if text.starts_with('_') => {
            fail!(
                Security,
                "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{text}'. Please rename the attribute."
            )
        }
        _ => Ok(()),
    }
}
