//! Syntax tree of a template. The parser fills in names, [`resolve`](crate::resolve) their variables.

use std::sync::Arc;

/// A variable: `up` functions outwards, at index `at` of that function's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) up: usize,
    pub(crate) at: usize,
}

/// Initial value of a variable at the start of a scope.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// The template variable of this name.
    Resolve(Arc<str>),
    /// The variable of an enclosing scope.
    Alias(Slot),
    /// No value.
    Undefined,
}

/// Variables of a scope: initial values, and all slots cleared at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) loads: Vec<(Slot, Load)>,
    pub(crate) all: Vec<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
}

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) name: Arc<str>,
    pub(crate) slot: Slot,
    pub(crate) line: u32,
}

/// Whether text is escaped for HTML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Escape {
    #[default]
    No,
    Yes,
    /// By the setting at run time.
    Volatile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

impl Binary {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::FloorDiv => "//",
            Self::Mod => "%",
            Self::Pow => "** or pow()",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Literal(Literal),
    Name(Name),
    /// The target of `{% set namespace.attribute = … %}`.
    Attribute(Name, Arc<str>),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Neg(Box<Expr>),
    Pos(Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    Concat(Vec<Expr>, Escape),
    Condition(Box<Condition>),
    Getattr(Box<Expr>, Arc<str>),
    Getitem(Box<Expr>, Box<Expr>),
    /// Start, stop and step within brackets.
    Slice(Box<[Option<Expr>; 3]>),
    Call(Box<Call>),
    Filter(Box<Filter>),
    Test(Box<Filter>),
}

/// `then if test else otherwise`
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) test: Expr,
    pub(crate) then: Expr,
    pub(crate) otherwise: Option<Expr>,
    pub(crate) line: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expr>,
    pub(crate) keywords: Vec<(Arc<str>, Expr)>,
    pub(crate) rest: Option<Expr>,
    pub(crate) keyword_rest: Option<Expr>,
}

impl Arguments {
    /// The expressions, in the order of jinja2's visitors.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let keywords = self.keywords.iter().map(|(_, value)| value);
        self.positional.iter().chain(keywords).chain(&self.rest).chain(&self.keyword_rest)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) callee: Expr,
    pub(crate) arguments: Arguments,
}

/// A filter or a test. Without a value, it applies to the text of its block.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) value: Option<Expr>,
    pub(crate) name: Arc<str>,
    pub(crate) arguments: Arguments,
    pub(crate) line: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Data(Arc<str>),
    Expr(Expr),
}

#[derive(Clone, Debug)]
pub(crate) struct Stmt {
    pub(crate) kind: StmtKind,
    pub(crate) line: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum StmtKind {
    Output(Vec<Part>, Escape),
    For(Arc<For>),
    If(Box<If>),
    /// A macro, its variable, and whether that variable is at the top level.
    Macro(Arc<Macro>, Name, bool),
    /// A call, and the macro of its block.
    CallBlock(Box<Call>, Arc<Macro>),
    /// transformers' tag `generation`, which marks the assistant's text.
    Generation(Arc<Macro>),
    FilterBlock(Box<FilterBlock>),
    With(Box<With>),
    Set(Box<Set>),
    SetBlock(Box<SetBlock>),
    Autoescape(Box<Autoescape>),
    Block(Arc<Block>),
    /// `include`, `import`, `from` or `extends`, which fail without a loader: tag, template, imported names.
    Load(&'static str, Expr, Vec<Name>),
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(crate) struct For {
    pub(crate) target: Expr,
    pub(crate) iter: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) otherwise: Vec<Stmt>,
    pub(crate) recursive: bool,
    /// Slot of `loop`, if the body uses it.
    pub(crate) loop_slot: Option<Slot>,
    /// Number of variables of a recursive loop, which is a function of its own.
    pub(crate) slots: usize,
    pub(crate) scope: Scope,
    pub(crate) otherwise_scope: Scope,
    /// The function of `test`: target, number of variables, scope.
    pub(crate) test_target: Option<Expr>,
    pub(crate) test_slots: usize,
    pub(crate) test_scope: Scope,
}

#[derive(Clone, Debug)]
pub(crate) struct If {
    pub(crate) branches: Vec<(Expr, Vec<Stmt>)>,
    pub(crate) otherwise: Vec<Stmt>,
}

/// A macro, or the body of a `call` block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Macro {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) parameters: Vec<Name>,
    /// Default values of the last parameters.
    pub(crate) defaults: Vec<Expr>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) slots: usize,
    pub(crate) scope: Scope,
    pub(crate) caller: Option<Slot>,
    pub(crate) kwargs: Option<Slot>,
    pub(crate) varargs: Option<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) struct FilterBlock {
    pub(crate) filter: Expr,
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
}

#[derive(Clone, Debug)]
pub(crate) struct With {
    pub(crate) targets: Vec<Expr>,
    pub(crate) values: Vec<Expr>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
}

/// Names set at the top level, visible in blocks.
pub(crate) type Exports = Vec<Name>;

#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) target: Expr,
    pub(crate) value: Expr,
    pub(crate) exports: Exports,
}

#[derive(Clone, Debug)]
pub(crate) struct SetBlock {
    pub(crate) target: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
    pub(crate) exports: Exports,
}

#[derive(Clone, Debug)]
pub(crate) struct Autoescape {
    pub(crate) value: Expr,
    pub(crate) body: Vec<Stmt>,
    pub(crate) scope: Scope,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) name: Arc<str>,
    pub(crate) scoped: bool,
    pub(crate) required: bool,
    pub(crate) body: Vec<Stmt>,
    /// Variables of enclosing scopes visible in a scoped block.
    pub(crate) visible: Vec<(Arc<str>, Slot)>,
    pub(crate) slots: usize,
    pub(crate) scope: Scope,
    pub(crate) itself: Option<Slot>,
    pub(crate) parent: Option<Slot>,
}

/// A whole template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) body: Vec<Stmt>,
    pub(crate) slots: usize,
    pub(crate) scope: Scope,
    pub(crate) itself: Option<Slot>,
}
