//! The names of a scope, collected as by jinja2's `idtracking`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Resolver;
use crate::ast::{Expr, If, Part, Stmt, StmtKind};
use crate::walk::{self, Use};

/// A variable, by the level of its scope and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ident {
    pub(super) level: usize,
    pub(super) name: Arc<str>,
}

/// Initial value of a variable at the start of its scope.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    Parameter,
    Resolve(Arc<str>),
    Alias(Ident),
    Undefined,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    pub(super) level: usize,
    pub(super) parent: Option<usize>,
    refs: Vec<Ident>,
    pub(super) loads: Vec<(Ident, Begin)>,
    pub(super) stores: BTreeSet<Arc<str>>,
}

impl Symbols {
    pub(super) fn within(parent: usize, level: usize) -> Self {
        Self { level: level + 1, parent: Some(parent), ..Self::default() }
    }

    fn own_ref(&self, name: &str) -> Option<&Ident> {
        self.refs.iter().find(|ident| &*ident.name == name)
    }

    fn set_load(&mut self, ident: &Ident, begin: Begin) {
        match self.loads.iter_mut().find(|(other, _)| other == ident) {
            Some((_, load)) => *load = begin,
            None => self.loads.push((ident.clone(), begin)),
        }
    }

    fn define(&mut self, name: &str, begin: Begin) -> Ident {
        let ident = Ident { level: self.level, name: name.into() };
        if self.own_ref(name).is_none() {
            self.refs.push(ident.clone());
        }
        self.set_load(&ident, begin);
        ident
    }

    /// A variable that is set from outside.
    pub(super) fn declare(&mut self, name: &str) -> Ident {
        self.stores.insert(name.into());
        self.define(name, Begin::Parameter)
    }
}

impl Resolver {
    pub(super) fn find_ref(&self, symbols: &Symbols, name: &str) -> Option<Ident> {
        let own = symbols.own_ref(name).cloned();
        own.or_else(|| self.find_outer_ref(symbols, name))
    }

    fn find_outer_ref(&self, symbols: &Symbols, name: &str) -> Option<Ident> {
        symbols.parent.and_then(|parent| self.find_ref(&self.symbols[parent], name))
    }

    pub(super) fn visit(&self, symbols: &mut Symbols, name: Use<'_>) {
        match name {
            Use::Parameter(name) => {
                symbols.declare(&name.name);
            }
            Use::Load(name) | Use::Namespace(name) => {
                if self.find_ref(symbols, &name.name).is_none() {
                    symbols.define(&name.name, Begin::Resolve(name.name.clone()));
                }
            }
            Use::Store(name) => self.store(symbols, &name.name),
        }
    }

    fn store(&self, symbols: &mut Symbols, name: &Arc<str>) {
        symbols.stores.insert(name.clone());
        if symbols.own_ref(name).is_none() {
            let begin = self.find_outer_ref(symbols, name).map_or(Begin::Undefined, Begin::Alias);
            symbols.define(name, begin);
        }
    }

    /// Collects the names of a scope's statements; nested scopes are analyzed later.
    pub(super) fn analyze(&self, symbols: &mut Symbols, body: &[Stmt]) {
        for stmt in body {
            let visit = &mut |name: Use<'_>| self.visit(symbols, name);
            match &stmt.kind {
                StmtKind::Output(parts, _) => parts.iter().for_each(|part| match part {
                    Part::Data(_) => {}
                    Part::Expr(expr) => walk::expression(expr, visit),
                }),
                StmtKind::For(it) => walk::expression(&it.iter, visit),
                StmtKind::If(it) => self.branches(symbols, it),
                StmtKind::Macro(_, name, _) => visit(Use::Store(name)),
                StmtKind::CallBlock(call, _) => {
                    walk::expression(&call.callee, visit);
                    call.arguments.expressions().for_each(|argument| walk::expression(argument, visit));
                }
                StmtKind::FilterBlock(it) => walk::expression(&it.filter, visit),
                StmtKind::With(it) => it.values.iter().for_each(|value| walk::expression(value, visit)),
                StmtKind::Set(it) => {
                    walk::expression(&it.value, visit);
                    walk::target(&it.target, visit);
                }
                StmtKind::SetBlock(it) => walk::target(&it.target, visit),
                StmtKind::Load(_, template, names) => {
                    walk::expression(template, visit);
                    names.iter().for_each(|name| visit(Use::Store(name)));
                }
                StmtKind::Generation(_)
                | StmtKind::Autoescape(_)
                | StmtKind::Block(_)
                | StmtKind::Break
                | StmtKind::Continue => {}
            }
        }
    }

    /// Branches share a scope. A variable set in only one branch starts with its outer value.
    fn branches(&self, symbols: &mut Symbols, it: &If) {
        if let Some(((test, body), others)) = it.branches.split_first() {
            self.branch(symbols, test, body, others, &it.otherwise);
        }
    }

    fn branch(
        &self,
        symbols: &mut Symbols,
        test: &Expr,
        body: &[Stmt],
        others: &[(Expr, Vec<Stmt>)],
        otherwise: &[Stmt],
    ) {
        walk::expression(test, &mut |name| self.visit(symbols, name));
        let inside = |work: &dyn Fn(&mut Symbols)| {
            let mut branch = symbols.clone();
            work(&mut branch);
            branch
        };
        let copies = [
            inside(&|branch| self.analyze(branch, body)),
            // all `elif` branches share one copy, each analyzed as an `if`
            inside(&|branch| others.iter().for_each(|(test, body)| self.branch(branch, test, body, &[], &[]))),
            inside(&|branch| self.analyze(branch, otherwise)),
        ];
        self.merge(symbols, copies);
    }

    fn merge(&self, symbols: &mut Symbols, branches: [Symbols; 3]) {
        let mut stores: BTreeSet<Arc<str>> = branches.iter().flat_map(|branch| branch.stores.iter().cloned()).collect();
        stores.retain(|name| !symbols.stores.contains(name));
        for branch in branches {
            for ident in branch.refs {
                if symbols.own_ref(&ident.name).is_none() {
                    symbols.refs.push(ident);
                }
            }
            for (ident, begin) in branch.loads {
                symbols.set_load(&ident, begin);
            }
            symbols.stores.extend(branch.stores);
        }
        for name in stores {
            let Some(ident) = symbols.own_ref(&name).cloned() else { continue };
            let begin = match self.find_outer_ref(symbols, &name) {
                Some(outer) => Begin::Alias(outer),
                None => Begin::Resolve(name),
            };
            symbols.set_load(&ident, begin);
        }
    }
}
