//! Name resolution before a template runs, with the scopes of jinja2's compiler.
//!
//! A scope belongs to a function: the template itself, a macro, a named block, a recursive loop or a loop's condition. Variables
//! with the same level and name share a slot of the function, as in the Python code that jinja2 generates.

mod symbols;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Escape, Expr, For, Literal, Load, Macro, Name, Part, Program, Scope, Slot, Stmt, StmtKind};
use crate::depth::Limit;
use crate::error::{Result, fail};
use crate::filters;
use crate::predicates;
use crate::walk::{self, Use};
use symbols::{Begin, Ident, Symbols};

/// Maximum nesting of operators; deeper expressions overflow Python's stack.
const DEEPEST: Limit = Limit::new(48, 1000);

/// The program of a template's statements.
pub(crate) fn resolve(mut body: Vec<Stmt>) -> Result<Program> {
    let mut names = HashMap::new();
    let mut twice = None;
    walk::blocks(&body, &mut |block| {
        if names.insert(block.name.clone(), ()).is_some() {
            twice.get_or_insert(block.name.clone());
        }
    });
    if let Some(name) = twice {
        return fail!(Syntax, "block '{name}' defined twice");
    }
    let mut resolver = Resolver { symbols: Vec::new(), depth: 0, functions: vec![Function::default()] };
    let mut symbols = Symbols::default();
    let [uses_itself] = walk::undeclared(&body, ["self"]);
    let itself = uses_itself.then(|| symbols.declare("self"));
    resolver.analyze(&mut symbols, &body);
    let frame = Frame { symbols: resolver.add(symbols), toplevel: true, soft: false, escape: Escape::No };
    let scope = resolver.scope(frame.symbols);
    resolver.statements(&mut body, frame)?;
    let itself = itself.map(|ident| resolver.slot(&ident));
    let slots = resolver.functions.pop().map_or(0, |function| function.slots.len());
    Ok(Program { body, slots, scope, itself })
}

#[derive(Default)]
struct Function {
    /// The level of its outermost scope.
    level: usize,
    slots: HashMap<Ident, usize>,
}

#[derive(Clone, Copy)]
struct Frame {
    symbols: usize,
    toplevel: bool,
    /// Inside a condition: unknown filters are errors only when they are evaluated.
    soft: bool,
    escape: Escape,
}

struct Resolver {
    symbols: Vec<Symbols>,
    /// Number of enclosing expressions.
    depth: usize,
    /// The enclosing functions, innermost last.
    functions: Vec<Function>,
}

impl Resolver {
    fn add(&mut self, symbols: Symbols) -> usize {
        self.symbols.push(symbols);
        self.symbols.len() - 1
    }

    /// Symbols for a scope inside that of `frame`.
    fn within(&self, frame: Frame) -> Symbols {
        Symbols::within(frame.symbols, self.symbols[frame.symbols].level)
    }

    fn inner(&mut self, frame: Frame, symbols: Symbols) -> Frame {
        Frame { symbols: self.add(symbols), toplevel: false, soft: false, escape: frame.escape }
    }

    /// Slot of a variable, relative to the current function.
    fn slot(&mut self, ident: &Ident) -> Slot {
        let up = self.functions.iter().rev().position(|function| function.level <= ident.level).unwrap_or(0);
        let at = self.functions.len() - 1 - up;
        let slots = &mut self.functions[at].slots;
        let next = slots.len();
        Slot { up, at: *slots.entry(ident.clone()).or_insert(next) }
    }

    fn scope(&mut self, symbols: usize) -> Scope {
        let mut scope = Scope::default();
        for (ident, begin) in self.symbols[symbols].loads.clone() {
            let slot = self.slot(&ident);
            scope.all.push(slot);
            let load = match begin {
                Begin::Parameter => continue,
                Begin::Resolve(name) => Load::Resolve(name),
                Begin::Alias(outer) => Load::Alias(self.slot(&outer)),
                Begin::Undefined => Load::Undefined,
            };
            scope.loads.push((slot, load));
        }
        scope
    }

    fn name(&mut self, name: &mut Name, frame: Frame) -> Result<()> {
        match self.find_ref(&self.symbols[frame.symbols], &name.name) {
            Some(ident) => name.slot = self.slot(&ident),
            // jinja2 fails here as well: it does not visit the arguments of a `set` block's filters
            None => return fail!(Assertion, "the name '{}' is unknown here", name.name),
        }
        Ok(())
    }

    /// Runs `work` in a function whose outermost scope is `level`; also returns the number of its variables.
    fn function<T>(&mut self, level: usize, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, usize)> {
        self.functions.push(Function { level, slots: HashMap::new() });
        let result = work(self);
        let slots = self.functions.pop().map_or(0, |function| function.slots.len());
        Ok((result?, slots))
    }

    fn statements(&mut self, body: &mut [Stmt], frame: Frame) -> Result<()> {
        body.iter_mut().try_for_each(|stmt| {
            let line = stmt.line;
            self.statement(stmt, frame).map_err(|error| error.at(line))
        })
    }

    fn statement(&mut self, stmt: &mut Stmt, frame: Frame) -> Result<()> {
        match &mut stmt.kind {
            StmtKind::Output(parts, escape) => {
                *escape = frame.escape;
                for part in parts {
                    if let Part::Expr(expr) = part {
                        self.expression(expr, frame)?;
                    }
                }
            }
            StmtKind::For(it) => self.for_loop(Arc::make_mut(it), frame)?,
            StmtKind::If(it) => {
                let soft = Frame { soft: true, ..frame };
                for (test, body) in &mut it.branches {
                    self.expression(test, soft)?;
                    self.statements(body, soft)?;
                }
                self.statements(&mut it.otherwise, soft)?;
            }
            StmtKind::Macro(code, name, toplevel) => {
                self.code(Arc::make_mut(code), frame)?;
                self.name(name, frame)?;
                *toplevel = frame.toplevel;
            }
            StmtKind::CallBlock(call, code) => {
                self.code(Arc::make_mut(code), frame)?;
                self.expression(&mut call.callee, frame)?;
                self.arguments(&mut call.arguments, frame)?;
            }
            StmtKind::Generation(code) => self.code(Arc::make_mut(code), frame)?,
            StmtKind::FilterBlock(it) => {
                let mut symbols = self.within(frame);
                self.analyze(&mut symbols, &it.body);
                walk::expression(&it.filter, &mut |name| self.visit(&mut symbols, name));
                let inner = self.inner(frame, symbols);
                it.scope = self.scope(inner.symbols);
                self.statements(&mut it.body, inner)?;
                self.expression(&mut it.filter, inner)?;
            }
            StmtKind::With(it) => {
                let mut symbols = self.within(frame);
                for target in &it.targets {
                    walk::parameters(target, &mut |name| self.visit(&mut symbols, name));
                }
                self.analyze(&mut symbols, &it.body);
                let inner = self.inner(frame, symbols);
                it.scope = self.scope(inner.symbols);
                for (target, value) in it.targets.iter_mut().zip(&mut it.values) {
                    self.expression(target, inner)?;
                    self.expression(value, frame)?;
                }
                self.statements(&mut it.body, inner)?;
            }
            StmtKind::Set(it) => {
                self.expression(&mut it.value, frame)?;
                self.expression(&mut it.target, frame)?;
                it.exports = exports(&it.target, frame);
            }
            StmtKind::SetBlock(it) => {
                let mut symbols = self.within(frame);
                self.analyze(&mut symbols, &it.body);
                let inner = self.inner(frame, symbols);
                it.scope = self.scope(inner.symbols);
                self.statements(&mut it.body, inner)?;
                self.expression(&mut it.target, frame)?;
                if let Some(filter) = &mut it.filter {
                    self.expression(filter, inner)?;
                }
                it.exports = exports(&it.target, frame);
            }
            StmtKind::Autoescape(it) => {
                let mut symbols = self.within(frame);
                walk::expression(&it.value, &mut |name| self.visit(&mut symbols, name));
                self.analyze(&mut symbols, &it.body);
                let inner = self.inner(frame, symbols);
                it.scope = self.scope(inner.symbols);
                self.expression(&mut it.value, inner)?;
                let escape = match &it.value {
                    Expr::Literal(literal) if literal.is_true() => Escape::Yes,
                    Expr::Literal(_) => Escape::No,
                    _ => Escape::Volatile,
                };
                self.statements(&mut it.body, Frame { escape, ..inner })?;
            }
            StmtKind::Block(block) => {
                let visible = if block.scoped { self.visible(frame) } else { Vec::new() };
                let block = Arc::make_mut(block);
                block.visible = visible;
                self.block(block)?;
            }
            StmtKind::Load(_, template, names) => {
                self.expression(template, frame)?;
                names.iter_mut().try_for_each(|name| self.name(name, frame))?;
            }
            StmtKind::Break | StmtKind::Continue => {}
        }
        Ok(())
    }

    fn for_loop(&mut self, it: &mut For, frame: Frame) -> Result<()> {
        let mut symbols = self.within(frame);
        let level = symbols.level;
        let mut has_scoped_block = false;
        walk::blocks(&it.body, &mut |block| has_scoped_block |= block.scoped);
        walk::blocks(&it.otherwise, &mut |block| has_scoped_block |= block.scoped);
        let [uses_loop] = walk::undeclared(&it.body, ["loop"]);
        let extended = it.recursive || uses_loop || has_scoped_block;
        let loop_ident = extended.then(|| symbols.declare("loop"));
        walk::parameters(&it.target, &mut |name| self.visit(&mut symbols, name));
        self.analyze(&mut symbols, &it.body);
        self.check_loop_variable(it)?;

        let mut otherwise = self.within(frame);
        self.analyze(&mut otherwise, &it.otherwise);
        let mut condition = self.within(frame);
        let body_frame = self.inner(frame, symbols);
        if let Some(test) = &mut it.test {
            walk::parameters(&it.target, &mut |name| self.visit(&mut condition, name));
            walk::expression(test, &mut |name| self.visit(&mut condition, name));
            let test_frame = self.inner(frame, condition);
            let mut target = it.target.clone();
            let (scope, slots) = self.function(level, |resolver| {
                let scope = resolver.scope(test_frame.symbols);
                resolver.expression(&mut target, body_frame)?;
                resolver.expression(test, test_frame)?;
                Ok(scope)
            })?;
            (it.test_target, it.test_slots, it.test_scope) = (Some(target), slots, scope);
        }
        self.expression(&mut it.iter, frame)?;
        let otherwise_frame = self.inner(frame, otherwise);
        let body = |resolver: &mut Self| {
            it.loop_slot = loop_ident.map(|ident| resolver.slot(&ident));
            it.scope = resolver.scope(body_frame.symbols);
            resolver.expression(&mut it.target, body_frame)?;
            resolver.statements(&mut it.body, body_frame)?;
            it.otherwise_scope = resolver.scope(otherwise_frame.symbols);
            resolver.statements(&mut it.otherwise, otherwise_frame)
        };
        if it.recursive {
            let mut count = 0;
            self.function(level, body).map(|((), slots)| count = slots)?;
            it.slots = count;
            Ok(())
        } else {
            body(self)
        }
    }

    fn check_loop_variable(&self, it: &For) -> Result<()> {
        let mut assigned = None;
        let mut visit = |name: Use<'_>| match name {
            Use::Store(name) if &*name.name == "loop" => assigned = Some(name.line),
            _ => {}
        };
        walk::target(&it.target, &mut visit);
        walk::statements(&it.body, &mut visit);
        walk::statements(&it.otherwise, &mut visit);
        match assigned {
            Some(_) => fail!(Syntax, "Can't assign to special loop variable in for-loop target"),
            None => Ok(()),
        }
    }

    /// A macro, or the body of a `call` block.
    fn code(&mut self, code: &mut Macro, frame: Frame) -> Result<()> {
        let mut symbols = self.within(frame);
        let level = symbols.level;
        walk::signature(code, &mut |name| self.visit(&mut symbols, name));
        self.analyze(&mut symbols, &code.body);
        let [caller, kwargs, varargs] = walk::undeclared(&code.body, ["caller", "kwargs", "varargs"]);
        let named = |name: &str| code.parameters.iter().position(|parameter| &*parameter.name == name);
        let without_default = code.parameters.len() - code.defaults.len();
        let caller = match named("caller") {
            Some(at) if caller && at < without_default => {
                return fail!(
                    Syntax,
                    "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default."
                );
            }
            Some(_) => None,
            None => caller.then(|| symbols.declare("caller")),
        };
        let kwargs = (kwargs && named("kwargs").is_none()).then(|| symbols.declare("kwargs"));
        let varargs = (varargs && named("varargs").is_none()).then(|| symbols.declare("varargs"));
        let inner = self.inner(frame, symbols);
        let ((), slots) = self.function(level, |resolver| {
            let place = |resolver: &mut Self, ident: Option<Ident>| ident.map(|ident| resolver.slot(&ident));
            code.caller = place(resolver, caller);
            code.kwargs = place(resolver, kwargs);
            code.varargs = place(resolver, varargs);
            code.scope = resolver.scope(inner.symbols);
            code.parameters.iter_mut().try_for_each(|parameter| resolver.name(parameter, inner))?;
            code.defaults.iter_mut().try_for_each(|default| resolver.expression(default, inner))?;
            resolver.statements(&mut code.body, inner)
        })?;
        code.slots = slots;
        Ok(())
    }

    /// A named block sees only the exports of the top level.
    fn block(&mut self, block: &mut crate::ast::Block) -> Result<()> {
        let around = std::mem::take(&mut self.functions);
        let mut symbols = Symbols::default();
        let [itself, parent] = walk::undeclared(&block.body, ["self", "super"]);
        let itself = itself.then(|| symbols.declare("self"));
        let parent = parent.then(|| symbols.declare("super"));
        self.analyze(&mut symbols, &block.body);
        let frame = Frame { symbols: self.add(symbols), toplevel: false, soft: false, escape: Escape::No };
        let result = self.function(0, |resolver| {
            block.itself = itself.map(|ident| resolver.slot(&ident));
            block.parent = parent.map(|ident| resolver.slot(&ident));
            block.scope = resolver.scope(frame.symbols);
            resolver.statements(&mut block.body, frame)
        });
        self.functions = around;
        block.slots = result?.1;
        Ok(())
    }

    /// Variables assigned in the enclosing scopes.
    fn visible(&mut self, frame: Frame) -> Vec<(Arc<str>, Slot)> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut at = Some(frame.symbols);
        while let Some(symbols) = at.map(|at| &self.symbols[at]) {
            names.extend(symbols.stores.iter().cloned());
            at = symbols.parent;
        }
        names.sort();
        names.dedup();
        let found = names.into_iter().filter_map(|name| {
            let ident = self.find_ref(&self.symbols[frame.symbols], &name)?;
            Some((name, self.slot(&ident)))
        });
        found.collect()
    }

    fn arguments(&mut self, arguments: &mut crate::ast::Arguments, frame: Frame) -> Result<()> {
        let keywords = arguments.keywords.iter_mut().map(|(_, value)| value);
        let all = arguments.positional.iter_mut().chain(keywords);
        all.chain(&mut arguments.rest)
            .chain(&mut arguments.keyword_rest)
            .try_for_each(|argument| self.expression(argument, frame))
    }

    fn expression(&mut self, expr: &mut Expr, frame: Frame) -> Result<()> {
        if let Some(limit) = DEEPEST.reached(self.depth) {
            return fail!(Syntax, "expressions are nested more than {limit} deep");
        }
        self.depth += 1;
        let resolved = self.parts(expr, frame);
        self.depth -= 1;
        resolved
    }

    fn parts(&mut self, expr: &mut Expr, frame: Frame) -> Result<()> {
        match expr {
            Expr::Literal(_) => Ok(()),
            Expr::Name(name) | Expr::Attribute(name, _) => self.name(name, frame),
            Expr::Tuple(items) | Expr::List(items) => {
                items.iter_mut().try_for_each(|item| self.expression(item, frame))
            }
            Expr::Concat(items, escape) => {
                *escape = frame.escape;
                items.iter_mut().try_for_each(|item| self.expression(item, frame))
            }
            Expr::Dict(items) => items.iter_mut().try_for_each(|(key, value)| {
                self.expression(key, frame)?;
                self.expression(value, frame)
            }),
            Expr::Neg(operand) | Expr::Pos(operand) | Expr::Not(operand) | Expr::Getattr(operand, _) => {
                self.expression(operand, frame)
            }
            Expr::And(left, right)
            | Expr::Or(left, right)
            | Expr::Binary(_, left, right)
            | Expr::Getitem(left, right) => {
                self.expression(left, frame)?;
                self.expression(right, frame)
            }
            Expr::Compare(first, rest) => {
                self.expression(first, frame)?;
                rest.iter_mut().try_for_each(|(_, operand)| self.expression(operand, frame))
            }
            Expr::Condition(it) => {
                let soft = Frame { soft: true, ..frame };
                self.expression(&mut it.test, soft)?;
                self.expression(&mut it.then, soft)?;
                it.otherwise.as_mut().map_or(Ok(()), |otherwise| self.expression(otherwise, soft))
            }
            Expr::Slice(parts) => parts.iter_mut().flatten().try_for_each(|part| self.expression(part, frame)),
            Expr::Call(call) => {
                self.expression(&mut call.callee, frame)?;
                self.arguments(&mut call.arguments, frame)
            }
            Expr::Filter(it) | Expr::Test(it) => {
                if let Some(value) = &mut it.value {
                    self.expression(value, frame)?;
                }
                self.arguments(&mut it.arguments, frame)?;
                self.check_known(expr, frame)
            }
        }
    }

    /// Unknown filters and tests are errors of the template, except inside a condition.
    fn check_known(&self, expr: &Expr, frame: Frame) -> Result<()> {
        match expr {
            Expr::Filter(it) if !frame.soft && !filters::is_known(&it.name) => {
                Err(filters::unknown(&it.name).at(it.line))
            }
            Expr::Test(it) if !frame.soft && !predicates::is_known(&it.name) => {
                Err(predicates::unknown(&it.name).at(it.line))
            }
            _ => Ok(()),
        }
    }
}

impl Literal {
    fn is_true(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => !text.is_empty(),
        }
    }
}

/// The names that an assignment at the top level sets.
fn exports(target: &Expr, frame: Frame) -> Vec<Name> {
    let mut names = Vec::new();
    if frame.toplevel {
        walk::target(target, &mut |name| {
            if let Use::Store(name) = name {
                names.push(name.clone());
            }
        });
    }
    names
}
