//! The names in a syntax tree, in the order of jinja2's visitors.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{Block, Expr, Macro, Name, Part, Stmt, StmtKind};

/// A use of a name.
pub(crate) enum Use<'a> {
    Load(&'a Name),
    Store(&'a Name),
    Parameter(&'a Name),
    /// A namespace whose attribute is assigned.
    Namespace(&'a Name),
}

/// Names in an evaluated expression.
pub(crate) fn expression<'a>(expr: &'a Expr, visit: &mut dyn FnMut(Use<'a>)) {
    match expr {
        Expr::Literal(_) => {}
        Expr::Name(name) => visit(Use::Load(name)),
        Expr::Attribute(name, _) => visit(Use::Namespace(name)),
        Expr::Tuple(items) | Expr::List(items) | Expr::Concat(items, _) => {
            items.iter().for_each(|item| expression(item, visit));
        }
        Expr::Dict(items) => items.iter().for_each(|(key, value)| {
            expression(key, visit);
            expression(value, visit);
        }),
        Expr::Neg(operand) | Expr::Pos(operand) | Expr::Not(operand) | Expr::Getattr(operand, _) => {
            expression(operand, visit);
        }
        Expr::And(left, right) | Expr::Or(left, right) | Expr::Binary(_, left, right) | Expr::Getitem(left, right) => {
            expression(left, visit);
            expression(right, visit);
        }
        Expr::Compare(first, rest) => {
            expression(first, visit);
            rest.iter().for_each(|(_, operand)| expression(operand, visit));
        }
        Expr::Condition(it) => {
            expression(&it.test, visit);
            expression(&it.then, visit);
            it.otherwise.iter().for_each(|otherwise| expression(otherwise, visit));
        }
        Expr::Slice(parts) => parts.iter().flatten().for_each(|part| expression(part, visit)),
        Expr::Call(call) => {
            expression(&call.callee, visit);
            call.arguments.expressions().for_each(|argument| expression(argument, visit));
        }
        Expr::Filter(filter) | Expr::Test(filter) => {
            filter.value.iter().for_each(|value| expression(value, visit));
            filter.arguments.expressions().for_each(|argument| expression(argument, visit));
        }
    }
}

/// Names in an assignment target.
pub(crate) fn target<'a>(expr: &'a Expr, visit: &mut dyn FnMut(Use<'a>)) {
    match expr {
        Expr::Name(name) => visit(Use::Store(name)),
        Expr::Tuple(items) => items.iter().for_each(|item| target(item, visit)),
        other => expression(other, visit),
    }
}

/// Names in a target, as parameters.
pub(crate) fn parameters<'a>(expr: &'a Expr, visit: &mut dyn FnMut(Use<'a>)) {
    target(expr, &mut |name| match name {
        Use::Store(name) => visit(Use::Parameter(name)),
        other => visit(other),
    });
}

/// A macro's parameters, defaults and body.
pub(crate) fn signature<'a>(code: &'a Macro, visit: &mut dyn FnMut(Use<'a>)) {
    code.parameters.iter().for_each(|parameter| visit(Use::Parameter(parameter)));
    code.defaults.iter().for_each(|default| expression(default, visit));
}

/// All names in statements, nested ones included, except in named blocks.
pub(crate) fn statements<'a>(body: &'a [Stmt], visit: &mut dyn FnMut(Use<'a>)) {
    for stmt in body {
        match &stmt.kind {
            StmtKind::Output(parts, _) => parts.iter().for_each(|part| match part {
                Part::Data(_) => {}
                Part::Expr(expr) => expression(expr, visit),
            }),
            StmtKind::For(it) => {
                target(&it.target, visit);
                expression(&it.iter, visit);
                statements(&it.body, visit);
                statements(&it.otherwise, visit);
                it.test.iter().for_each(|test| expression(test, visit));
            }
            StmtKind::If(it) => {
                for (test, body) in &it.branches {
                    expression(test, visit);
                    statements(body, visit);
                }
                statements(&it.otherwise, visit);
            }
            StmtKind::Macro(code, ..) | StmtKind::Generation(code) => {
                signature(code, visit);
                statements(&code.body, visit);
            }
            StmtKind::CallBlock(call, code) => {
                expression(&call.callee, visit);
                call.arguments.expressions().for_each(|argument| expression(argument, visit));
                signature(code, visit);
                statements(&code.body, visit);
            }
            StmtKind::FilterBlock(it) => {
                statements(&it.body, visit);
                expression(&it.filter, visit);
            }
            StmtKind::With(it) => {
                it.targets.iter().for_each(|name| parameters(name, visit));
                it.values.iter().for_each(|value| expression(value, visit));
                statements(&it.body, visit);
            }
            StmtKind::Set(it) => {
                target(&it.target, visit);
                expression(&it.value, visit);
            }
            StmtKind::SetBlock(it) => {
                target(&it.target, visit);
                it.filter.iter().for_each(|filter| expression(filter, visit));
                statements(&it.body, visit);
            }
            StmtKind::Autoescape(it) => {
                expression(&it.value, visit);
                statements(&it.body, visit);
            }
            StmtKind::Load(_, template, _) => expression(template, visit),
            StmtKind::Block(_) | StmtKind::Break | StmtKind::Continue => {}
        }
    }
}

/// For each of `names`, whether the statements read it before they set it.
pub(crate) fn undeclared<const N: usize>(body: &[Stmt], names: [&str; N]) -> [bool; N] {
    let mut open: HashSet<&str> = names.into_iter().collect();
    let mut found = HashSet::new();
    statements(body, &mut |it| match it {
        Use::Load(name) if open.contains(&*name.name) => {
            found.insert(name.name.clone());
        }
        Use::Load(name) | Use::Store(name) | Use::Parameter(name) => {
            open.remove(&*name.name);
        }
        Use::Namespace(_) => {}
    });
    names.map(|name| found.contains(name))
}

/// Named blocks in statements, nested ones included.
pub(crate) fn blocks<'a>(body: &'a [Stmt], visit: &mut dyn FnMut(&'a Arc<Block>)) {
    for stmt in body {
        match &stmt.kind {
            StmtKind::Block(block) => {
                visit(block);
                blocks(&block.body, visit);
            }
            StmtKind::For(it) => {
                blocks(&it.body, visit);
                blocks(&it.otherwise, visit);
            }
            StmtKind::If(it) => {
                it.branches.iter().for_each(|(_, body)| blocks(body, visit));
                blocks(&it.otherwise, visit);
            }
            StmtKind::Macro(code, ..) | StmtKind::Generation(code) | StmtKind::CallBlock(_, code) => {
                blocks(&code.body, visit);
            }
            StmtKind::FilterBlock(it) => blocks(&it.body, visit),
            StmtKind::With(it) => blocks(&it.body, visit),
            StmtKind::SetBlock(it) => blocks(&it.body, visit),
            StmtKind::Autoescape(it) => blocks(&it.body, visit),
            StmtKind::Output(..) | StmtKind::Set(_) | StmtKind::Load(..) | StmtKind::Break | StmtKind::Continue => {}
        }
    }
}
