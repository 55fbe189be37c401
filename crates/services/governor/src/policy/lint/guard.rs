//! What is added to a policy before it is compiled, so that the machine means what the policy says.
//!
//! Two errors of regorus' compiler are too near to ordinary rules to be forbidden, so they are mended in the text:
//!
//! - `x := input.a.b` succeeds when there is no such thing, and the rule goes on with nothing in `x`. Behind each
//!   `:=` comes `; x == x`, which has no value if `x` has none, and fails.
//! - `input` and `data` are loaded into a register where a body first mentions them. If that is inside a
//!   comprehension or an `every` that then does not run, the register stays empty, and whatever comes later in the
//!   body finds an empty input. A body with such a part begins with two statements that load both.
//!
//! Everything is added on the line where it belongs, so that messages keep their line numbers. The signed text is
//! what is stored, shown and asked for a second opinion; only the machine sees this.

use super::super::bundle::Bundle;
use super::tree;
use regorus::unstable::{Module, Query, Rule};

/// A path in `data` that is under the bundle's root and names nothing.
pub(super) fn absent(bundle: &Bundle) -> String {
    let mentioned = |name: &str| {
        let name = name.as_bytes();
        bundle.files.values().any(|content| content.windows(name.len()).any(|window| window == name))
    };
    // A bundle of bounded size cannot mention all of them.
    let name = (0u32..).map(|n| format!("absent_{n}")).find(|name| !mentioned(name)).unwrap_or_default();
    let root = bundle.manifest.roots.first().map(|root| root.replace('/', ".")).unwrap_or_default();
    format!("data.{root}.{name}")
}

/// The text of a module with everything that is added to it; `missing` as [`absent`] made it.
pub(super) fn guarded(module: &Module, missing: &str) -> String {
    let source = module.package.span.source.contents();
    let mut additions: Vec<(usize, String)> = Vec::new();
    for rule in &module.policy {
        let queries = tree::queries(rule);
        for stmt in queries.iter().flat_map(|query| &query.stmts) {
            if let Some(name) = tree::binding(stmt) {
                additions.push((end(source, stmt.span.end), format!("; {name} == {name}")));
            }
        }
        if let Rule::Spec { bodies, .. } = &**rule
            && queries.len() > bodies.len()
        {
            bodies.iter().for_each(|body| load(source, &body.query, missing, &mut additions));
        }
    }
    // What closes a body goes behind what was added to its last statement; the sort is stable.
    additions.sort_by_key(|(at, _)| *at);
    let mut text = String::with_capacity(source.len() * 2);
    let mut rest = 0;
    for (at, addition) in additions {
        text.push_str(source.get(rest..at).unwrap_or_default());
        text.push_str(&addition);
        rest = at;
    }
    text.push_str(source.get(rest..).unwrap_or_default());
    text
}

/// Has a body begin with loading `input` and `data`.
fn load(source: &str, query: &Query, missing: &str, additions: &mut Vec<(usize, String)>) {
    let Some(first) = query.stmts.first() else { return };
    let mut start = first.span.start as usize;
    // The span of a text begins behind its opening quote.
    if start
        .checked_sub(1)
        .and_then(|at| source.as_bytes().get(at))
        .is_some_and(|byte| matches!(byte, b'"' | b'`'))
    {
        start -= 1;
    }
    // A body of one statement may stand without braces: it gets them.
    let braces = (query.span.start as usize) < start
        && source.as_bytes().get(query.span.start as usize) == Some(&b'{');
    let open = if braces { "" } else { "{ " };
    additions.push((start, format!("{open}input; not {missing}; ")));
    if !braces {
        additions.push((end(source, first.span.end), " }".to_owned()));
    }
}

/// The end of a statement; the span of a text ends before its closing quote.
fn end(source: &str, end: u32) -> usize {
    let end = end as usize;
    end + usize::from(matches!(source.as_bytes().get(end), Some(b'"' | b'`')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use regorus::unstable::{Parser, Source};

    fn guard(text: &str) -> String {
        let source = Source::from_contents("a.rego".into(), text.into()).unwrap();
        let mut parser = Parser::new(&source).unwrap();
        parser.enable_rego_v1().unwrap();
        let guarded = guarded(&parser.parse().unwrap(), "data.a.absent_0");
        // What comes out is Rego again.
        let source = Source::from_contents("a.rego".into(), guarded.clone()).unwrap();
        let mut parser = Parser::new(&source).unwrap();
        parser.enable_rego_v1().unwrap();
        parser.parse().unwrap_or_else(|error| panic!("{error}\n{guarded}"));
        guarded
    }

    #[test]
    fn every_binding_is_checked_and_every_nested_body_loads_first() {
        let load = "input; not data.a.absent_0; ";
        for (text, want) in [
            ("a if input.x", "a if input.x".to_owned()),
            ("a if {\n\tx := \"s\"\n\tx == `t`\n}", "a if {\n\tx := \"s\"; x == x\n\tx == `t`\n}".to_owned()),
            (
                "a if { x := `é`; y := [x][0] } # y := 1",
                "a if { x := `é`; x == x; y := [x][0]; y == y } # y := 1".to_owned(),
            ),
            (
                "a if {\n\tevery v in input.l { w := v; w }\n}",
                format!("a if {{\n\t{load}every v in input.l {{ w := v; w == w; w }}\n}}"),
            ),
            ("a if every v in input.l { v }", format!("a if {{ {load}every v in input.l {{ v }} }}")),
            (
                "a if {v | some v in input.l} == {1}",
                format!("a if {{ {load}{{v | some v in input.l}} == {{1}} }}"),
            ),
            (
                "a if \"s\" in {v | some v in input.l}",
                format!("a if {{ {load}\"s\" in {{v | some v in input.l}} }}"),
            ),
            (
                "a if {v | some v in input.l} == \"s\"",
                format!("a if {{ {load}{{v | some v in input.l}} == \"s\" }}"),
            ),
            (
                "a if {\n\t\"s\" in [v | some v in input.l]\n\tx := \"t\"\n}",
                format!("a if {{\n\t{load}\"s\" in [v | some v in input.l]\n\tx := \"t\"; x == x\n}}"),
            ),
            (
                "a contains [v | some v in input.l] if true",
                format!("a contains [v | some v in input.l] if {{ {load}true }}"),
            ),
            (
                "f(x) := y if { y := [z | some z in x] }",
                format!("f(x) := y if {{ {load}y := [z | some z in x]; y == y }}"),
            ),
        ] {
            assert_eq!(guard(&format!("package a\n{text}")), format!("package a\n{want}"));
        }
    }
}
