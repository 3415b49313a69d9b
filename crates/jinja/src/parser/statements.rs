//! Tags.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{
    Autoescape, Block, Escape, Expr, Filter, FilterBlock, For, If, Macro, Name, Part, Set, SetBlock, Slot, Stmt,
    StmtKind, With,
};
use crate::error::{Result, fail};
use crate::lexer::Token;
use crate::parser::Parser;
use crate::unicode;

impl Parser {
    pub(super) fn statement(&mut self) -> Result<Stmt> {
        let line = self.line();
        let tag = match self.peek() {
            Token::Name(name) => name.clone(),
            _ => return fail!(Syntax, "tag name expected, got {}", self.found()),
        };
        self.next();
        let kind = match &*tag {
            "for" => self.for_loop(),
            "if" => self.if_block(),
            "set" => self.set(),
            "macro" => self.macro_block(),
            "call" => self.call_block(),
            "filter" => self.filter_block(line),
            "with" => self.with(),
            "print" => self.print_statement(),
            "autoescape" => self.autoescape(),
            "block" => self.named_block(),
            "generation" => self.generation(),
            "include" => self.include(),
            "extends" => Ok(StmtKind::Load("extends", self.expression()?, Vec::new())),
            "import" => self.import(),
            "from" => self.import_names(),
            "break" | "continue" if self.loops == 0 => fail!(Syntax, "'{tag}' outside loop"),
            "break" => Ok(StmtKind::Break),
            "continue" => Ok(StmtKind::Continue),
            _ => {
                self.at -= 1;
                fail!(Syntax, "Encountered unknown tag '{tag}'. {}", self.looking_for())
            }
        }?;
        Ok(Stmt { kind, line })
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.assignment_target(&["in"], false)?;
        self.expect_word("in")?;
        let iter = self.tuple_until(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        let around = self.loops;
        self.loops = if recursive { 1 } else { around + 1 };
        let body = self.open_block(&["endfor", "else"])?;
        // `break` and `continue` after `else` belong to the enclosing loop
        self.loops = if recursive { 0 } else { around };
        let has_else = self.is_name("else");
        self.next();
        let otherwise = if has_else { self.block(&["endfor"])? } else { Vec::new() };
        self.loops = around;
        Ok(StmtKind::For(Arc::new(For {
            target,
            iter,
            test,
            body,
            otherwise,
            recursive,
            loop_slot: None,
            slots: 0,
            scope: Default::default(),
            otherwise_scope: Default::default(),
            test_target: None,
            test_slots: 0,
            test_scope: Default::default(),
        })))
    }

    fn if_block(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple_until(false, &[])?;
            branches.push((test, self.open_block(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            let has_else = self.is_name("else");
            self.next();
            let otherwise = if has_else { self.block(&["endif"])? } else { Vec::new() };
            return Ok(StmtKind::If(Box::new(If { branches, otherwise })));
        }
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.assignment_target(&[], true)?;
        if self.skip_operator("=") {
            let value = self.tuple()?;
            return Ok(StmtKind::Set(Box::new(Set { target, value, exports: Vec::new() })));
        }
        let filter = self.filters(None)?;
        let body = self.block(&["endset"])?;
        let scope = Default::default();
        Ok(StmtKind::SetBlock(Box::new(SetBlock { target, filter, body, scope, exports: Vec::new() })))
    }

    fn name(&mut self) -> Result<Name> {
        let line = self.line();
        let name = self.expect_name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return fail!(Syntax, "can't assign to 'name'");
        }
        Ok(Name { name, slot: Slot::default(), line })
    }

    /// Target of an assignment: names, tuples of names, attributes of namespaces.
    fn assignment_target(&mut self, ends: &[&str], with_namespace: bool) -> Result<Expr> {
        let target = self.simple_tuple(ends, with_namespace)?;
        if is_assignable(&target) { Ok(target) } else { fail!(Syntax, "can't assign to this expression") }
    }

    fn signature(&mut self, code: &mut Macro) -> Result<()> {
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if !code.parameters.is_empty() {
                self.expect_operator(",")?;
            }
            code.parameters.push(self.name()?);
            if self.skip_operator("=") {
                code.defaults.push(self.expression()?);
            } else if !code.defaults.is_empty() {
                return fail!(Syntax, "non-default argument follows default argument");
            }
        }
        let names: HashSet<&str> = code.parameters.iter().map(|parameter| &*parameter.name).collect();
        if names.len() < code.parameters.len() {
            return fail!(Syntax, "duplicate argument in the definition of a macro");
        }
        self.expect_operator(")")
    }

    fn macro_block(&mut self) -> Result<StmtKind> {
        let name = self.name()?;
        let mut code = Macro { name: Some(name.name.clone()), ..Macro::default() };
        self.signature(&mut code)?;
        code.body = self.function(|parser| parser.block(&["endmacro"]))?;
        Ok(StmtKind::Macro(Arc::new(code), name, false))
    }

    fn call_block(&mut self) -> Result<StmtKind> {
        let mut code = Macro::default();
        if self.is_operator("(") {
            self.signature(&mut code)?;
        }
        let Expr::Call(call) = self.expression()? else { return fail!(Syntax, "expected call") };
        code.body = self.function(|parser| parser.block(&["endcall"]))?;
        Ok(StmtKind::CallBlock(call, Arc::new(code)))
    }

    fn generation(&mut self) -> Result<StmtKind> {
        let body = self.function(|parser| parser.block(&["endgeneration"]))?;
        Ok(StmtKind::Generation(Arc::new(Macro { body, ..Macro::default() })))
    }

    fn filter_block(&mut self, line: u32) -> Result<StmtKind> {
        let (name, arguments) = self.filter_call()?;
        let first = Expr::Filter(Box::new(Filter { value: None, name, arguments, line }));
        let filter = self.filters(Some(first.clone()))?.unwrap_or(first);
        let body = self.block(&["endfilter"])?;
        Ok(StmtKind::FilterBlock(Box::new(FilterBlock { filter, body, scope: Default::default() })))
    }

    fn with(&mut self) -> Result<StmtKind> {
        let (mut targets, mut values) = (Vec::new(), Vec::new());
        while self.peek() != &Token::BlockEnd {
            if !targets.is_empty() {
                self.expect_operator(",")?;
            }
            targets.push(self.assignment_target(&[], false)?);
            self.expect_operator("=")?;
            values.push(self.expression()?);
        }
        let body = self.block(&["endwith"])?;
        Ok(StmtKind::With(Box::new(With { targets, values, body, scope: Default::default() })))
    }

    fn print_statement(&mut self) -> Result<StmtKind> {
        let mut parts = Vec::new();
        while self.peek() != &Token::BlockEnd {
            if !parts.is_empty() {
                self.expect_operator(",")?;
            }
            parts.push(Part::Expr(self.expression()?));
        }
        Ok(StmtKind::Output(parts, Escape::No))
    }

    fn autoescape(&mut self) -> Result<StmtKind> {
        let value = self.expression()?;
        let body = self.block(&["endautoescape"])?;
        Ok(StmtKind::Autoescape(Box::new(Autoescape { value, body, scope: Default::default() })))
    }

    fn named_block(&mut self) -> Result<StmtKind> {
        let name = self.expect_name()?;
        let scoped = self.skip_name("scoped");
        let required = self.skip_name("required");
        if self.is_operator("-") {
            return fail!(Syntax, "Block names in Jinja may not contain hyphens, use an underscore instead.");
        }
        let body = self.function(|parser| parser.block(&["endblock"]))?;
        let is_blank = |part: &Part| matches!(part, Part::Data(data) if data.chars().all(unicode::is_space));
        let blank = |stmt: &Stmt| matches!(&stmt.kind, StmtKind::Output(parts, _) if parts.iter().all(is_blank));
        if required && !body.iter().all(blank) {
            return fail!(Syntax, "Required blocks can only contain comments or whitespace");
        }
        self.skip_name(&name);
        Ok(StmtKind::Block(Arc::new(Block {
            name,
            scoped,
            required,
            body,
            visible: Vec::new(),
            slots: 0,
            scope: Default::default(),
            itself: None,
            parent: None,
        })))
    }

    fn include(&mut self) -> Result<StmtKind> {
        let template = self.expression()?;
        if self.is_name("ignore") && matches!(self.peek_second(), Token::Name(name) if &**name == "missing") {
            self.next();
            self.next();
        }
        self.import_context();
        Ok(StmtKind::Load("include", template, Vec::new()))
    }

    /// `with context` or `without context`
    fn import_context(&mut self) -> bool {
        let found = (self.is_name("with") || self.is_name("without"))
            && matches!(self.peek_second(), Token::Name(name) if &**name == "context");
        if found {
            self.next();
            self.next();
        }
        found
    }

    fn import(&mut self) -> Result<StmtKind> {
        let template = self.expression()?;
        self.expect_word("as")?;
        let name = self.name()?;
        self.import_context();
        Ok(StmtKind::Load("import", template, vec![name]))
    }

    fn import_names(&mut self) -> Result<StmtKind> {
        let template = self.expression()?;
        self.expect_word("import")?;
        let mut names = Vec::new();
        loop {
            if !names.is_empty() {
                self.expect_operator(",")?;
            }
            if self.import_context() {
                break;
            }
            let name = self.name()?;
            if name.name.starts_with('_') {
                return fail!(Syntax, "names starting with an underline can not be imported");
            }
            names.push(if self.skip_name("as") { self.name()? } else { name });
            if self.import_context() || !self.is_operator(",") {
                break;
            }
        }
        Ok(StmtKind::Load("from", template, names))
    }
}

fn is_assignable(target: &Expr) -> bool {
    match target {
        Expr::Name(name) => !matches!(&*name.name, "true" | "false" | "none" | "True" | "False" | "None"),
        Expr::Attribute(..) => true,
        Expr::Tuple(items) => items.iter().all(is_assignable),
        _ => false,
    }
}
