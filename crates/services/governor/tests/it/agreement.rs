//! Machine and interpreter agree on every policy that the lint accepts.
//!
//! regorus' machine is fast and does not evaluate all of Rego as it is meant; the lint narrows the language to where
//! it does. This test writes policies at random in that language, full of references to what does not exist, and
//! asks both evaluators. Before the narrowing one policy in thirty came out differently, some of them as an ALLOW
//! that should have been none.

use crate::support::{compiled_with_bundle, input};
use governor::policy::Warm;
use governor::policy::engine::SecondOpinion;
use serde_json::json;

const POLICIES: u64 = 300;

/// Writes one policy. Scalars and collections are kept apart, because a type error is an error in one evaluator and
/// an undefined value in the other.
struct Writer {
    state: u64,
    names: usize,
    scalars: Vec<String>,
    sets: Vec<String>,
    functions: Vec<String>,
}

impl Writer {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64 (Marsaglia 2003): repeatable, and good enough to choose between forms.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % limit as u64) as usize
    }

    fn pick(&mut self, from: &[&str]) -> String {
        let at = self.below(from.len());
        from[at].to_owned()
    }

    fn any(&mut self, from: &[String]) -> Option<String> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())].clone()) }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn scalar(&mut self, local: &[String]) -> String {
        let constants = ["1", "2", "\"s\"", "true", "false", "null"];
        let known =
            ["input.args.n", "input.args.s", "input.args.list[0]", "input.args.o.k", "input.args.flag"];
        let missing = [
            "input.args.no",
            "input.args.no.such",
            "input.args.list[9]",
            "input.args.o.no",
            "data.writ.config.no",
        ];
        let choice = match self.below(8) {
            0 => None,
            1 | 2 => Some(self.pick(&known)),
            3 => Some(self.pick(&missing)),
            4 => self.any(&self.scalars.clone()),
            5 => {
                let function = self.any(&self.functions.clone());
                function.map(|function| format!("{function}({})", self.scalar(local)))
            }
            6 => Some(format!(
                "input.args.o[{}]",
                self.pick(&["\"k\"", "\"no\"", "input.args.s", "input.args.no"])
            )),
            _ => self.any(local),
        };
        choice.unwrap_or_else(|| self.pick(&constants))
    }

    fn collection(&mut self, local: &[String], depth: usize) -> String {
        match self.below(if depth == 0 { 4 } else { 8 }) {
            0 => "input.args.list".into(),
            1 => self.pick(&["input.args.empty", "data.writ.config.a", "input.args.no_list"]),
            2 => self.any(&self.sets.clone()).unwrap_or_else(|| "input.args.o".into()),
            3 => "input.args.objects".into(),
            4 => format!("[{}, {}]", self.scalar(local), self.scalar(local)),
            5 => format!("{{{}, {}}}", self.scalar(local), self.scalar(local)),
            _ => {
                let (source, one) = (self.collection(local, depth - 1), self.name());
                let mut bound = vec![one.clone()];
                let mut text = format!("some {one} in {source}");
                if self.below(2) == 0 {
                    let (last, next) = (self.any(&bound).unwrap_or_default(), self.name());
                    let value = self.pick(&[&format!("{last}.t"), &last, &format!("input.args.o[{last}]")]);
                    text += &format!("; {next} := {value}");
                    bound.push(next);
                }
                if self.below(2) == 0 {
                    let (one, other) = (self.any(&bound).unwrap_or_default(), self.scalar(local));
                    text += &format!("; {one} {} {other}", self.pick(&["==", "!="]));
                }
                let term = self.any(&bound).unwrap_or_default();
                let (open, close) = [("[", "]"), ("{", "}")][self.below(2)];
                format!("{open}{term} | {text}{close}")
            }
        }
    }

    fn condition(&mut self, local: &[String], depth: usize) -> String {
        match self.below(if depth == 0 { 4 } else { 8 }) {
            0 => self.scalar(local),
            1 => format!("{} == {}", self.scalar(local), self.scalar(local)),
            2 => format!("{} != {}", self.scalar(local), self.scalar(local)),
            3 => format!("{} in {}", self.scalar(local), self.collection(local, depth)),
            4 | 5 => format!("not {}", self.condition(local, 0)),
            6 => format!("count({}) == {}", self.collection(local, depth - 1), self.below(3)),
            _ => {
                let (source, one) =
                    (self.pick(&["input.args.list", "input.args.empty", "data.writ.config.a"]), self.name());
                format!("every {one} in {source} {{ {one} != {} }}", self.scalar(local))
            }
        }
    }

    /// A body, and the names it binds.
    fn body(&mut self, mut local: Vec<String>) -> (String, Vec<String>) {
        let mut statements = Vec::new();
        for _ in 0..=self.below(3) {
            statements.push(match self.below(6) {
                0 | 1 => {
                    let (value, name) = (self.scalar(&local), self.name());
                    local.push(name.clone());
                    format!("{name} := {value}")
                }
                2 => {
                    let (source, name) = (self.collection(&local, 2), self.name());
                    local.push(name.clone());
                    format!("some {name} in {source}")
                }
                _ => self.condition(&local, 2),
            });
        }
        (statements.join("\n\t"), local)
    }

    fn policy(&mut self) -> String {
        let mut text = "package writ\n\ndefault verdict := {\"effect\": \"DENY\"}\n".to_owned();
        for at in 0..=self.below(5) {
            match self.below(5) {
                0 => {
                    let (body, local) = self.body(vec!["p".into()]);
                    text += &format!("\nf{at}(p) := {} if {{\n\t{body}\n}}\n", self.scalar(&local));
                    self.functions.push(format!("f{at}"));
                }
                1 => {
                    for _ in 0..=self.below(2) {
                        let (body, local) = self.body(Vec::new());
                        text += &format!("\ns{at} contains {} if {{\n\t{body}\n}}\n", self.scalar(&local));
                    }
                    self.sets.push(format!("s{at}"));
                }
                2 => {
                    let (body, _) = self.body(Vec::new());
                    text += &format!("\ndefault d{at} := 2\n\nd{at} := 1 if {{\n\t{body}\n}}\n");
                    self.scalars.push(format!("d{at}"));
                }
                _ => {
                    for _ in 0..=self.below(2) {
                        let (body, _) = self.body(Vec::new());
                        text += &format!("\nb{at} if {{\n\t{body}\n}}\n");
                    }
                    self.scalars.push(format!("b{at}"));
                }
            }
        }
        let (body, _) = self.body(Vec::new());
        text + &format!("\nverdict := {{\"effect\": \"ALLOW\"}} if {{\n\t{body}\n}}\n")
    }
}

#[test]
fn machine_and_interpreter_agree() {
    let act = input(json!({"args": {
        "n": 2, "s": "s", "flag": false, "list": [1, 2], "empty": [], "o": {"k": 1, "s": "s"},
        "objects": [{"t": 1}, {"t": "s"}, {"u": 2}],
    }}));
    let (act, mut warm) = (act.prepare().unwrap(), Warm::new());
    let (mut accepted, mut allowed) = (0, 0);
    for seed in 1..=POLICIES {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut writer = Writer { state, names: 0, scalars: vec![], sets: vec![], functions: vec![] };
        let text = writer.policy();
        let (bundle, compiled) = compiled_with_bundle(&text);
        let compiled = match compiled {
            Ok(compiled) => compiled,
            // Such as one name bound twice in a body.
            Err(_) => continue,
        };
        accepted += 1;
        let verdict = compiled.explain(&act, &mut warm);
        allowed += u64::from(verdict.as_ref().is_ok_and(|verdict| verdict.effect == kernel::Effect::Allow));
        let objection = SecondOpinion::new(&bundle).unwrap().objection(&act, &verdict);
        assert_eq!(objection, None, "seed {seed}\n{text}");
    }
    // The policies are not all refused, and not all of one answer.
    assert!(
        accepted > POLICIES / 2 && allowed > accepted / 20 && allowed < accepted * 19 / 20,
        "{accepted} {allowed}"
    );
}
