//! Templates that would run or grow without end fail soon and with little memory.

use std::time::Instant;

use phi3_jinja::{Error, ErrorKind, Template};

fn render(template: &str) -> Result<String, Error> {
    Template::new(template)?.render(&[], |format| format.into())
}

/// Asserts that the template fails soon, with this kind.
fn check(template: &str, kind: ErrorKind) {
    let start = Instant::now();
    let short: String = template.chars().take(80).collect();
    match render(template) {
        Err(error) => assert_eq!(error.kind(), kind, "{short}: {error}"),
        Ok(text) => panic!("{short}: renders {} bytes", text.len()),
    }
    assert!(start.elapsed().as_secs() < 20, "{short}");
}

#[test]
fn sizes() {
    for expression in [
        "'a\\nb'|indent(3000000000, true)",
        "'a\\nb'|indent('x' * 10**9)",
        "'a' * 10**9",
        "[1] * 10**9",
        "10**9 * (1,)",
        "'a'.center(10**12)",
        "'a'.ljust(10**9)",
        "'a'.rjust(10**18)",
        "'a'.zfill(10**9)",
        "'a'|center(10**9)",
        "'\\t'.expandtabs(10**9)",
        "('\\t' * 10**6).expandtabs(10**6)",
        "('a' * 10**6).replace('a', 'b' * 10**6)",
        "('a' * 10**6)|replace('', 'b' * 10**6)",
        "('b' * 10**6).join('a' * 10**6)",
        "('a' * 10**6)|join('b' * 10**6)",
        "('ab' * 10**6).translate({97: 'z' * 10**6})",
        "'%999999999d' % 1",
        "'%.999999999f' % 1.0",
        "'%*d' % (10**10, 1)",
        "'%999999999s'|format('x')",
        "'{:999999999}'.format(1)",
        "'{:.999999999f}'.format(1.0)",
        "'{:0999999999,}'.format(1)",
        "'{:{}}'.format(1, 999999999)",
        "('{0}' * 10**6).format('x' * 1000)",
        "[1]|batch(10**9, 0)|list",
        "[1]|slice(10**9)|list",
        "[1]|tojson(indent=10**9)",
        "lipsum(n=10**9)",
        "lipsum(n=1, min=10**9, max=10**10)",
        "('x ' * 10**6)|wordwrap(1, wrapstring='y' * 10**6)",
        "([[0] * 1000] * 1000)|sum(start=[])|length",
    ] {
        check(&format!("{{{{ {expression} }}}}"), ErrorKind::Limit);
    }
    check("{{ range(10**9)|list }}", ErrorKind::Overflow);
    check("{{ 9**9**9 }}", ErrorKind::Unsupported);
    check("{{ 2**1000 }}", ErrorKind::Unsupported);
    assert_eq!(
        render("{{ 1.5|round(10**9) }}{{ 'ab'[:10**30] }}{{ 2**126 }}").unwrap(),
        format!("1.5ab{}", 1i128 << 126)
    );
}

#[test]
fn steps() {
    check("{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}", ErrorKind::Limit);
    let twice = |start: &str, next: &str, rest: &str| {
        let set = "{% for i in range(60) %}{% set ns.x = ";
        format!(
            "{{% set ns = namespace(x={start}, y={start}) %}}{set}{next} %}}{{% set ns.y = {next} %}}{{% endfor %}}{rest}"
        )
    };
    check(&twice("'ab'", "ns.x ~ ns.x", ""), ErrorKind::Limit);
    for rest in ["{{ ns.x }}", "{{ ns.x|tojson }}", "{{ ns.x|pprint }}", "{{ ns.x|string|length }}"] {
        check(&twice("[1]", "[ns.x, ns.x]", rest), ErrorKind::Limit);
    }
    let pair = "{% set ns.y = [ns.y, ns.y] %}";
    let equal = format!(
        "{{% set ns = namespace(x=[1], y=[1]) %}}{{% for i in range(60) %}}{{% set ns.x = [ns.x, ns.x] %}}{pair}{{% endfor %}}{{{{ ns.x == ns.y }}}}"
    );
    check(&equal, ErrorKind::Limit);
}

#[test]
fn depth() {
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("{1: ", "1", "}"),
        ("-", "1", ""),
        ("not ", "1", ""),
        ("", "1", " + 1"),
        ("", "x", ".a"),
        ("", "x", "|e"),
        ("", "1", " if 1 else 1"),
        ("f(", "1", ")"),
        ("", "1", " and 1"),
    ] {
        let nested = |count: usize| format!("{{{{ {}{middle}{} }}}}", open.repeat(count), close.repeat(count));
        check(&nested(50_000), ErrorKind::Syntax);
        assert!(Template::new(nested(50)).is_ok(), "{open}{close}");
    }
    let chain = |count: usize| {
        let sum = "(".repeat(count) + "1" + &format!("{})", " + 1".repeat(190)).repeat(count);
        format!("{{{{ {sum} }}}}")
    };
    assert_eq!(render(&chain(4)).unwrap(), "761");
    check(&chain(100), ErrorKind::Syntax);
    check(&"{% if 1 %}".repeat(50_000), ErrorKind::Syntax);
    check("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ErrorKind::Limit);
    check("{% block a %}{{ self.a() }}{% endblock %}", ErrorKind::Limit);
    check("{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}", ErrorKind::Limit);
    check("{% macro a() %}{% call a() %}{{ caller() }}{% endcall %}{% endmacro %}{{ a() }}", ErrorKind::Limit);
}

#[test]
fn values_within_values() {
    for next in ["[ns.x]", "(ns.x,)", "{'a': ns.x}", "{'a': ns.x}.values()", "cycler(ns.x)", "ns.x|map('string')"] {
        let nested = |levels: usize| {
            format!(
                "{{% set ns = namespace(x=[1]) %}}{{% for i in range({levels}) %}}{{% set ns.x = {next} %}}{{% endfor %}}{{{{ ns.x is defined }}}}"
            )
        };
        assert_eq!(render(&nested(900)).unwrap(), "True");
        check(&nested(90_000), ErrorKind::Limit);
    }
    for next in ["namespace(p=ns.x)", "joiner(namespace(p=ns.x))"] {
        let source = format!(
            "{{% set ns = namespace(x=0) %}}{{% for i in range(90000) %}}{{% set ns.x = {next} %}}{{% endfor %}}ok"
        );
        assert_eq!(render(&source).unwrap(), "ok");
    }
    let macros = "{% set ns = namespace(f=0) %}{% macro make(prev) %}{% macro inner() %}{{ prev }}{% endmacro %}\
                  {% set ns.f = inner %}{% endmacro %}{% for i in range(90000) %}{{ make(ns.f) }}{% endfor %}ok";
    assert_eq!(render(macros).unwrap(), "ok");
}

#[test]
fn values_that_contain_themselves() {
    let start = "{% set ns = namespace() %}";
    for set in [
        "{% set ns.x = ns %}",
        "{% set ns.x = [1, {'a': (ns,)}] %}",
        "{% set a, ns.x = 1, ns %}",
        "{% set ns.x = {'a': ns}.values() %}",
        "{% macro f(a) %}{% set a.x = [a] %}{% endmacro %}{{ f(ns) }}",
    ] {
        check(&format!("{start}{set}{{{{ ns }}}}"), ErrorKind::Limit);
        check(&format!("{start}{set}{{{{ ns.x|tojson }}}}"), ErrorKind::Type);
        assert!(render(&format!("{start}{set}{{{{ ns == ns.x }}}}")).is_ok());
    }
    assert_eq!(
        render("{% for x in [1] %}{{ loop.changed(loop) }}{{ loop.changed(loop) }}{% endfor %}").unwrap(),
        "TrueFalse"
    );
}

#[test]
fn the_same_at_every_rendering() {
    let source =
        "{{ range(1000)|random }} {{ range(1000)|random }} {{ lipsum(2, false) }}{{ ['a']|random }}{{ ''|random }}";
    let first = render(source).unwrap();
    assert_eq!(render(source).unwrap(), first);
    let words: Vec<&str> = first.split(' ').collect();
    assert_ne!(words[0], words[1]);
    assert!(words.len() > 40);
    assert!(render("{{ lipsum(1) }}").unwrap().starts_with("<p>"));
}

#[test]
fn errors_have_lines() {
    for (source, line) in [
        ("a\n{{ 1 / 0 }}", 2),
        ("\n\n{% if %}", 3),
        ("{% for x in [1] %}\n{{ x.y.z }}{% endfor %}", 2),
        ("\n{{ 'a }}", 2),
    ] {
        let error = render(source).unwrap_err();
        assert_eq!(error.line(), Some(line), "{source:?}: {error}");
        assert!(error.to_string().ends_with(&format!("(line {line})")), "{error}");
    }
}
