//! Policies that mean harm, or are merely wrong: refused at upload, or denied at decision time; never an ALLOW, a
//! panic, a hang or a lost process.

use crate::support::*;
use governor::policy::bundle::{bundle_build, bundle_sign};
use governor::policy::{Files, Warm, publish_check};
use kernel::verdict::Effect;
use serde_json::{Value, json};

/// A policy of one rule that allows under a condition.
fn when(condition: &str) -> String {
    format!(
        "package writ\n\ndefault verdict := {{\"effect\": \"DENY\"}}\n\nverdict := {{\"effect\": \"ALLOW\"}} if {{\n\t{condition}\n}}\n"
    )
}

/// The codes of an upload's problems; none if it is published.
fn upload(rego: &str) -> Vec<&'static str> {
    let bytes =
        signed(&manifest(), &files(&[("a.rego", rego), ("data.json", r#"{"writ":{"config":{"a":[1]}}}"#)]));
    publish_check(&bytes, &ring(), SCOPE, None, NOW_MS)
        .map(|_| Vec::new())
        .unwrap_or_else(|problems| problems.iter().map(|problem| problem.code).collect())
}

#[test]
fn rules_use_what_policies_may_use() {
    for condition in [
        "true",
        "count([x | some x in input.args.list; x > 1]) == 1",
        "startswith(input.action, \"flows.\")",
        "regex.match(`^[a-z.]+$`, input.action)",
        "glob.match(\"flows.*\", [], input.action)",
        "x := sprintf(\"%s-%d%%\", [input.action, 1])\n\tcontains(x, \"-\")",
        "every x in input.principal.roles { x != \"root\" }",
        "object.get(input.args, [\"a\", \"b\"], false)",
        "input.action in {\"http.send\", \"a\"} # http.send({})",
        "data.writ.config.a[0] == 1",
    ] {
        assert_eq!(upload(&when(condition)), Vec::<&str>::new(), "{condition}");
    }
}

#[test]
fn c02_c04_rules_reach_for_nothing_outside() {
    for condition in [
        // C2: effects, the network, the clock, chance.
        "http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"})",
        "not http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"})",
        "count([x | some y in [1]; x := http.send({\"n\": y})]) == 0",
        "http[\"send\"]({})",
        "net.lookup_ip_addr(\"example.org\")",
        "opa.runtime().env.HOME",
        "rand.intn(\"a\", 2) == 1",
        "time.now_ns() > 0",
        "uuid.rfc4122(\"a\") != \"\"",
        "trace(\"a\")",
        "print(\"a\")",
        "io.jwt.decode(\"a\")",
        "rego.parse_module(\"a\", \"b\")",
        "__builtin_host_await(1, \"a\")",
        "no_such_builtin(1)",
        // C1: one call, unbounded work.
        "count(numbers.range(1, 1000000000)) > 0",
        "walk(input, [a, b])",
        "bits.lsh(1, 1000000000) > 0",
        "x := sprintf(\"%999999999d\", [1])",
        "x := sprintf(input.action, [1])",
        "regex.match(input.args.pattern, input.action)",
        "glob.match(input.args.pattern, [], input.action)",
        "replace(input.action, \"a\", \"b\") == \"\"",
        "json.marshal(input) == \"\"",
        // C4: others' rules and data.
        "data.other.allow",
        "data.system.authz.allow",
        "data[input.action].allow",
        "data[\"other\"].allow",
        "x := data\n\tx.writ",
        "count([x | some x in data]) > 0",
        // The names of rules and variables.
        "input.x with input as {\"x\": true}",
        "x == 1",
        // Forms that the machine does not evaluate as they are meant.
        "x = input.action\n\tx",
        "[x, y] := input.args.list\n\tx",
        "{\"a\": x} := input.args\n\tx",
        "_ := input.args.list",
        "some x\n\tinput.args.list[x]",
        "input.args.list[_] == 1",
        "some [x, y] in input.args.list\n\tx",
        "count([x.t | some x in input.args.list]) == 0",
        "count([x | x := input.args.list]) == 0",
        "count([x | some x in input.args.list; input.flag]) == 0",
        "not x := 1",
        "count(input.args.list, x)\n\tx == 1",
    ] {
        assert_eq!(
            upload(&when(condition)).first(),
            Some(&"policy.lint"),
            "{condition}: {:?}",
            upload(&when(condition))
        );
    }
    let base = when("true");
    for (what, rego, code) in [
        ("another package", base.replacen("package writ", "package other", 1), "policy.lint"),
        ("system", base.replacen("package writ", "package system.authz", 1), "policy.lint"),
        ("a package that begins alike", base.replacen("package writ", "package writing", 1), "policy.lint"),
        (
            "others' data by import",
            base.replacen("package writ", "package writ\nimport data.other", 1),
            "policy.lint",
        ),
        (
            "others' data under another name",
            base.replacen("package writ", "package writ\nimport data.other as input2", 1),
            "policy.lint",
        ),
        ("its own http.send", format!("{base}\nhttp.send(x) := x\n"), "policy.lint"),
        ("its own count", format!("{base}\ncount(x) := 0\n"), "policy.lint"),
        (
            "a builtin by import",
            format!(
                "{}\n",
                base.replacen("package writ", "package writ\nimport data.writ.h as http", 1)
                    .replace("\ttrue", "\thttp.send(1)")
            ),
            "policy.lint",
        ),
        ("else", format!("{base}\na := 1 if input.x else := 2\n"), "policy.lint"),
        (
            "members added to an object",
            format!("{base}\na[x] := 1 if some x in input.args.list\n"),
            "policy.lint",
        ),
        (
            "a default that is computed",
            format!("{base}\ndefault a := [x | some x in input.args.list]\n"),
            "policy.lint",
        ),
        ("a default that calls", format!("{base}\ndefault a := count([1])\n"), "policy.lint"),
        (
            "one value out of many",
            format!("{base}\na := x if {{\n\tsome x in input.args.list\n}}\n"),
            "policy.lint",
        ),
        ("nine arguments", format!("{base}\nf(a, b, c, d, e, g, h, i, j) := a\n"), "policy.lint"),
        ("too few arguments", format!("{base}\nf(a, b) := a if b\n\ng if f(1)\n"), "policy.lint"),
        ("a rule on itself", format!("{base}\na if not a\n"), "policy.lint"),
        ("a rule on itself by its path", format!("{base}\na if data.writ.a\n"), "policy.lint"),
        ("a function on itself", format!("{base}\nf(x) := f(x + 1)\n"), "policy.lint"),
        ("three on one another", format!("{base}\na if b\n\nb if c\n\nc if a\n"), "policy.lint"),
        ("the package as a document", format!("{base}\na if count(data.writ) > 0\n"), "policy.lint"),
        ("v0 syntax", "package writ\nallow { input.x }\n".to_owned(), "policy.syntax"),
        ("not Rego", "<html>".to_owned(), "policy.syntax"),
        ("nothing", String::new(), "policy.syntax"),
        ("NUL", format!("{base}\0"), "policy.syntax"),
        ("no verdict", "package writ\n\na := 1\n".to_owned(), "policy.compile"),
        ("a rule where data is", format!("{base}\nconfig := 1\n"), "policy.lint"),
    ] {
        assert_eq!(upload(&rego).first(), Some(&code), "{what}: {:?}", upload(&rego));
    }
}

#[test]
fn c05_size_and_depth_are_bounded() {
    let rules = |count: usize| (0..count).map(|n| format!("r{n} := {n}\n")).collect::<String>();
    let tower = |height: usize| {
        let steps: String = (1..height).map(|n| format!("r{n} if r{}\n\n", n - 1)).collect();
        format!("{}\nr0 if input.action == \"flows.run.start\"\n\n{steps}", when(&format!("r{}", height - 1)))
    };
    let nested = |open: &str, close: &str, depth: usize| {
        when(&format!("x := {}1{}", open.repeat(depth), close.repeat(depth)))
    };
    for (what, rego, code) in [
        ("900 rules", format!("{}\n{}", when("true"), rules(900)), None),
        ("1,001 rules", format!("{}\n{}", when("true"), rules(1_001)), Some("policy.lint")),
        ("24 rules deep", tower(23), None),
        ("25 rules deep", tower(25), Some("policy.lint")),
        ("5,000 brackets", nested("[\n", "]\n", 2_000), Some("policy.lint")),
        ("5,000 parentheses", nested("(\n", ")\n", 2_000), Some("policy.lint")),
        ("9 levels of literals", nested("[", "]", 9), None),
        ("30 levels of literals", nested("[", "]", 30), Some("policy.lint")),
        ("16 levels of parentheses", nested("(", ")", 14), None),
        ("functions in functions", nested("abs(\n", ")\n", 2_000), Some("policy.lint")),
        ("keys in keys", nested("{\n", ": 1}\n", 2_000), Some("policy.lint")),
        ("a chain of 5,000", when(&format!("x := {}1", "1 +\n".repeat(4_900))), Some("policy.lint")),
        ("a chain of 60", when(&format!("x := {}1", "1 + ".repeat(60))), None),
        ("5,001 lines", when(&"\n".repeat(5_001)), Some("policy.syntax")),
        ("a long line", when(&format!("input.action == \"{}\"", "a".repeat(600))), Some("policy.syntax")),
    ] {
        assert_eq!(upload(&rego).first().copied(), code, "{what}: {:?}", upload(&rego));
    }
    // 10,000 rules and 10 MiB do not get as far as the parser.
    let build = |rego: String| {
        let files = Files::from([("a.rego".to_owned(), rego.into_bytes())]);
        let bytes =
            bundle_build(&manifest(), &files).and_then(|bytes| bundle_sign(&bytes, "k1", SCOPE, &key(1)));
        bytes.map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(build(format!("{}\n{}", when("true"), rules(30_000))), Err("policy.bundle_too_large"));
    assert_eq!(build(format!("{}# {}", when("true"), "a".repeat(10 << 20))), Err("policy.bundle_too_large"));
    assert_eq!(upload(&format!("{}\n{}", when("true"), rules(10_000))).first(), Some(&"policy.syntax"));
}

/// What a policy decides, and the reason if there is exactly one.
fn decided(rego: &str, change: Value) -> (Effect, String) {
    let compiled = compiled(rego).unwrap_or_else(|problems| panic!("{problems:#?}\n{rego}"));
    let verdict = compiled.evaluate(&input(change), &mut Warm::new());
    (verdict.effect, verdict.reasons.into_iter().collect::<Vec<_>>().join(" "))
}

#[test]
fn c01_what_takes_too_long_is_denied() {
    let list = json!({"args": {"list": (0..1_500).collect::<Vec<u32>>()}});
    let steps = |first: &str, step: &str, count: usize| {
        let steps: Vec<String> =
            (1..count).map(|n| format!("x{n} := {}", step.replace('@', &format!("x{}", n - 1)))).collect();
        when(&format!("x0 := {first}\n\t{}\n\tx{} != 0", steps.join("\n\t"), count - 1))
    };
    for (what, rego) in [
        (
            "a cross product",
            when("count({[a, b] | some a in input.args.list; some b in input.args.list}) == 0"),
        ),
        (
            "a cube that finds nothing",
            when(
                "some a in input.args.list\n\tsome b in input.args.list\n\tsome c in input.args.list\n\ta + b + c < 0",
            ),
        ),
        ("every of every", when("every a in input.args.list { every b in input.args.list { a + b >= 0 } }")),
        (
            "a function in two loops",
            format!(
                "{}\nf(x) if {{\n\tsome y in input.args.list\n\ty + x < 0\n}}\n",
                when("some a in input.args.list\n\tf(a)")
            ),
        ),
        ("a number squared forty times", steps("1234567890123456789", "@ * @", 40)),
        ("a text doubled forty times", steps("\"0123456789abcdef\"", "concat(\"\", [@, @])", 40)),
        ("a list doubled forty times", steps("[1, 2, 3, 4]", "array.concat(@, @)", 40)),
    ] {
        assert_eq!(decided(&rego, list.clone()), (Effect::Deny, "policy.too_slow".into()), "{what}");
    }
}

#[test]
fn b17_only_a_verdict_is_an_answer() {
    let answers = |value: &str| {
        decided(&format!("package writ\n\nverdict := {value} if input.action != \"\"\n"), json!({}))
    };
    let malformed = (Effect::Deny, "policy.malformed".to_owned());
    for value in [
        "true",
        "\"ALLOW\"",
        "1",
        "null",
        "[]",
        "{\"ALLOW\"}",
        "{}",
        "{\"effect\": \"allow\"}",
        "{\"effect\": \"PERMIT\"}",
        "{\"effect\": true}",
        "{\"effect\": [\"ALLOW\"]}",
        "{\"Effect\": \"ALLOW\"}",
        "{\"effect\": \"ALLOW\", \"note\": \"x\"}",
        "{\"effect\": \"ALLOW\", 1: 2}",
        "{\"effect\": \"ALLOW\", \"reasons\": \"a.b\"}",
        "{\"effect\": \"ALLOW\", \"reasons\": [1]}",
        "{\"effect\": \"ALLOW\", \"reasons\": [\"A.b\"]}",
        "{\"effect\": \"ALLOW\", \"reasons\": [\"ab\"]}",
        "{\"effect\": \"ALLOW\", \"reasons\": [\"a.b\\n\"]}",
        "{\"effect\": \"ALLOW\", \"reasons\": [\"\"]}",
        "{\"effect\": \"ROUTE\"}",
        "{\"effect\": \"ROUTE\", \"routes\": []}",
        "{\"effect\": \"ROUTE\", \"routes\": \"eu\"}",
        "{\"effect\": \"THROTTLE\"}",
        "{\"effect\": \"THROTTLE\", \"per_minute\": -1}",
        "{\"effect\": \"THROTTLE\", \"per_minute\": 1.5}",
        "{\"effect\": \"THROTTLE\", \"per_minute\": \"9\"}",
        "{\"effect\": \"HITL\", \"approvals\": 0}",
        "{\"effect\": \"HITL\", \"approvals\": 300}",
        "{\"effect\": \"HITL\", \"approver_tier\": null}",
    ] {
        assert_eq!(answers(value), malformed, "{value}");
    }
    for (value, effect, reasons) in [
        ("{\"effect\": \"ALLOW\"}", Effect::Allow, ""),
        ("{\"effect\": \"DENY\"}", Effect::Deny, "policy.denied"),
        ("{\"effect\": \"DENY\", \"reasons\": {\"b.c\", \"a.b\"}}", Effect::Deny, "a.b b.c"),
        ("{\"effect\": \"HITL\", \"reasons\": []}", Effect::Hitl, ""),
        ("{\"effect\": \"STEP_UP\", \"reasons\": [\"a.b\", \"a.b\"]}", Effect::StepUp, "a.b"),
        ("{\"effect\": \"ROUTE\", \"routes\": [\"eu\"]}", Effect::Route, ""),
        ("{\"effect\": \"THROTTLE\", \"per_minute\": 0}", Effect::Throttle, ""),
    ] {
        assert_eq!(answers(value), (effect, reasons.to_owned()), "{value}");
    }
    for value in
        ["input.no.such.thing", "{\"effect\": input.no.such.thing}", "lower(1)", "1 / 0", "input.args[0]"]
    {
        assert_eq!(answers(value), (Effect::Deny, "policy.undefined".into()), "{value}");
    }
    let contradiction = "package writ\n\nverdict := {\"effect\": \"ALLOW\"} if input.now_ms > 0\n\nverdict := {\"effect\": \"HITL\"} if input.now_ms > 1\n";
    assert_eq!(decided(contradiction, json!({})).0, Effect::Deny, "two rules that contradict each other");
}

#[test]
fn a_policy_without_an_answer_is_not_published() {
    for (what, rego, code) in [
        (
            "undefined",
            "package writ\n\nverdict := {\"effect\": \"ALLOW\"} if input.action == \"no\"\n",
            "policy.undefined",
        ),
        ("malformed", "package writ\n\nverdict := true if input.action != \"\"\n", "policy.malformed"),
        (
            "a type error somewhere",
            "package writ\n\ndefault verdict := {\"effect\": \"DENY\"}\n\nverdict := {\"effect\": \"ALLOW\"} if not startswith(input.args.number, \"a\")\n",
            "policy.compile",
        ),
    ] {
        assert!(upload(rego).contains(&code), "{what}: {:?}", upload(rego));
        // The first probe that finds it is the last: each costs what the policy makes it cost.
        assert!(upload(rego).len() <= 2, "{what}: {:?}", upload(rego));
    }
}

#[test]
fn nothing_is_not_something() {
    // In each of these regorus' machine alone says ALLOW, or loses the input, where Rego says otherwise.
    for (what, condition, effect) in [
        ("a name bound to nothing", "x := input.no.such.thing", Effect::Deny),
        ("a name bound to nothing in an array", "x := [input.no]", Effect::Deny),
        ("a sum with nothing", "x := input.now_ms + input.no", Effect::Deny),
        ("nothing in a loop", "some role in input.principal.roles\n\tx := input.no[role]", Effect::Deny),
        ("an argument that is nothing", "f(input.no)", Effect::Deny),
        (
            "elements bound to nothing",
            "count([y | some x in input.principal.roles; y := x.no]) == 0",
            Effect::Allow,
        ),
        (
            "the input after a comprehension that did not run",
            "count([x | some x in data.writ.config.no; x == input.action]) == 0\n\tinput.action == \"flows.run.start\"",
            Effect::Allow,
        ),
        (
            "the input after a loop that stopped early",
            "count([x | some x in [1]; x == 2; x == input.now_ms]) == 0\n\tinput.action == \"flows.run.start\"",
            Effect::Allow,
        ),
        (
            "the data after an every that did not run",
            "every x in data.writ.config.no_list { x == data.writ.config.a }",
            Effect::Deny,
        ),
        (
            "the data after an empty every",
            "every x in [] { x == data.writ.config.a }\n\tdata.writ.config.a == [1, 2, 3]",
            Effect::Allow,
        ),
    ] {
        let rego = format!("{}\nf(x) := 1\n", when(condition));
        assert_eq!(decided(&rego, json!({})).0, effect, "{what}");
    }
}

#[test]
fn c03_names_are_data() {
    // C3: nothing of the input is ever read as Rego.
    let rego = when("input.action in {\"flows.run.start\"}");
    for action in [
        "\"]; allow := true #",
        "flows.run.start\" || true",
        "flows.run.start\n",
        "${input}",
        "{{input}}",
        "\u{0}",
    ] {
        assert_eq!(decided(&rego, json!({ "action": action })).0, Effect::Deny, "{action:?}");
    }
    let by_role = when("data.writ.config[input.principal.roles[0]]");
    for role in ["__proto__", "a.b", "", "config", "../a"] {
        assert_eq!(decided(&by_role, json!({"principal": {"roles": [role]}})).0, Effect::Deny, "{role:?}");
    }
}

#[test]
fn a_decision_leaves_nothing_behind() {
    // One machine serves act after act, also after a failure: the next verdict is as on a fresh one.
    let rego = format!(
        "{}\nseen := input.args.flag\n",
        when("seen == true\n\tcount([x | some x in input.args.list; x == x]) < 3")
    );
    let compiled = compiled(&rego).unwrap();
    let mut warm = Warm::new();
    let huge: Vec<u32> = (0..4_000).collect();
    for (args, effect) in [
        (json!({"flag": true, "list": [1]}), Effect::Allow),
        (json!({"list": [1]}), Effect::Deny),
        (json!({"flag": true, "list": [1, 2]}), Effect::Allow),
        (json!({"flag": true, "list": huge}), Effect::Deny),
        (json!({"flag": false, "list": []}), Effect::Deny),
        (json!({"flag": true, "list": []}), Effect::Allow),
    ] {
        let act = input(json!({ "args": args }));
        assert_eq!(compiled.evaluate(&act, &mut warm).effect, effect, "{args}");
        assert_eq!(compiled.evaluate(&act, &mut Warm::new()).effect, effect, "{args}, fresh");
    }
}
