//! What can be known about a workflow before it runs.
//!
//! Everything found here would otherwise be found at three in the morning by a run with a ticket in its hands: a name
//! that does not exist, a way that leads back, a template that does not compile, a parameter that the connector does not
//! take. All problems are reported at once.

use super::model::{
    ApprovalStep, BRANCHES_MAX, DEAD, DEADLINE_MS_MAX, END, ModelStep, NAME_BYTES_MAX, NEEDS_HUMAN,
    PARALLEL_DEPTH_MAX, ParallelStep, RETRY_MAX, STEPS_MAX, Step, StepKind, SubStep, ToolStep, WAIT_MS_MAX,
    WAYS_MAX, WaitStep, Way, Workflow,
};
use super::parse::{Problem, cut};
use super::record::workflow_id;
use crate::connector::manifest::{Effect, Manifest, parameters};
use crate::connector::record::connector_id;
use crate::schema;
use crate::template::{self, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Manifests of the installed connectors, by installed name.
pub type Installed<'a> = BTreeMap<&'a str, &'a Manifest>;

/// Most fields of a transform.
pub const FIELDS_MAX: usize = 64;
/// Most fields that have to be as they were seen.
const UNCHANGED_MAX: usize = 8;
/// Most lines of a preview.
pub const PREVIEW_LINES_MAX: usize = 16;

/// Everything that is wrong with a workflow, as far as can be known.
pub fn problems(workflow: &Workflow, installed: &Installed<'_>) -> Vec<Problem> {
    let mut check = Check {
        workflow,
        installed,
        earlier: BTreeSet::new(),
        ids: BTreeSet::new(),
        depth: 0,
        problems: Vec::new(),
    };
    check.whole();
    check.list(&workflow.steps);
    cut(check.problems)
}

/// Whether a text may name a step, field or pin.
fn name_ok(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

struct Check<'a> {
    workflow: &'a Workflow,
    installed: &'a Installed<'a>,
    /// Steps whose outputs can be there.
    earlier: BTreeSet<&'a str>,
    /// Every id so far.
    ids: BTreeSet<&'a str>,
    /// How many parallel steps stand around this one.
    depth: usize,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn say(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(Problem::at(place, message));
    }

    fn whole(&mut self) {
        let workflow = self.workflow;
        if workflow_id(&workflow.name).is_none() {
            self.say(
                "name",
                "A name is lower-case letters, digits and `-`, at most 48, and begins with a letter.",
            );
        }
        if workflow.version.as_ref().is_some_and(|label| label.is_empty() || label.len() > NAME_BYTES_MAX) {
            self.say("version", "A version is a label of 1 to 48 bytes.");
        }
        if workflow.description.len() > 2_000 {
            self.say("description", "A description has at most 2000 bytes.");
        }
        if workflow.steps.is_empty() || workflow.all_steps().count() > STEPS_MAX {
            self.say("steps", format!("There are 1 to {STEPS_MAX} steps, those of branches among them."));
        }
        if !(1..=DEADLINE_MS_MAX).contains(&workflow.limits.deadline_ms) {
            self.say("limits.deadline_ms", "A deadline is 1 ms to one day.");
        }
        if workflow.limits.cost_micros.is_some_and(|cost| cost < 0) {
            self.say("limits.cost_micros", "A cost limit is not negative.");
        }
        if let Err(error) = workflow.canonical() {
            self.say("", format!("It has no canonical form: {error}."));
        }
        if let Some(trigger) = &workflow.trigger {
            match self.installed.get(trigger.connector.as_str()) {
                None => {
                    self.say("trigger.connector", format!("No connector {} is installed.", trigger.connector))
                }
                Some(manifest) if !manifest.events.contains_key(&trigger.event) => {
                    self.say(
                        "trigger.event",
                        format!("{} has no event {}.", trigger.connector, trigger.event),
                    );
                }
                Some(_) => {}
            }
            if let Some(condition) = &trigger.matches {
                match template::condition_shape(condition) {
                    Err(error) => self.say("trigger.match", format!("{error}.")),
                    Ok(shape) if shape.names.iter().any(|name| root(name) != "event") => {
                        self.say("trigger.match", "It may refer to `event` only.");
                    }
                    Ok(_) => {}
                }
            }
        }
        for (name, pin) in &workflow.pins.models {
            let name_fits = |name: &str| {
                !name.is_empty() && name.len() <= 200 && name.bytes().all(|b| b.is_ascii_graphic())
            };
            if !name_ok(name)
                || !name_fits(&pin.model)
                || pin.accepts.len() > 16
                || !pin.accepts.iter().all(|n| name_fits(n))
            {
                self.say(
                    &format!("pins.models.{name}"),
                    "A pin names a model `provider/model` and at most 16 further names.",
                );
            }
        }
        for (name, pin) in &workflow.pins.connectors {
            let place = format!("pins.connectors.{name}");
            match self.installed.get(name.as_str()) {
                None => self.say(&place, "No connector of this name is installed."),
                Some(manifest) if (&manifest.name, &manifest.version) != (&pin.manifest, &pin.version) => {
                    let (is, version) = (manifest.name.clone(), manifest.version.clone());
                    self.say(
                        &place,
                        format!("Installed is {is} {version}, not {} {}.", pin.manifest, pin.version),
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// The steps of the workflow, or of a branch.
    fn list(&mut self, steps: &'a [Step]) {
        for (at, step) in steps.iter().enumerate() {
            self.step(steps, at, step);
            self.earlier.insert(&step.id);
        }
    }

    fn step(&mut self, list: &'a [Step], at: usize, step: &'a Step) {
        let place = format!("steps.{}", step.id);
        if !name_ok(&step.id) || [END, NEEDS_HUMAN, DEAD].contains(&step.id.as_str()) {
            self.say(&place, "An id is lower-case letters, digits and `_`, at most 48, and none of end, needs_human and dead.");
        }
        if !self.ids.insert(&step.id) {
            self.say(&place, "Another step has this id.");
        }
        if !(1..=DEADLINE_MS_MAX).contains(&step.deadline_ms) {
            self.say(&place, "A deadline is 1 ms to one day.");
        }
        if step.retry.external > RETRY_MAX || step.retry.engine > RETRY_MAX {
            self.say(&place, format!("A step is tried again at most {RETRY_MAX} times."));
        }
        if let Some(condition) = &step.when {
            self.condition(&place, "when", condition);
        }
        if let Some(next) = &step.next {
            self.target(&place, (list, at), "next", next, &[END, NEEDS_HUMAN]);
        }
        self.target(&place, (list, at), "on_error", &step.on_error, &[END, NEEDS_HUMAN, DEAD]);
        for (name, target) in [("on_denied", &step.on_denied), ("on_expired", &step.on_expired)] {
            if let Some(target) = target {
                self.target(&place, (list, at), name, target, &[END, NEEDS_HUMAN]);
            }
        }
        match &step.kind {
            StepKind::Tool(tool) => self.tool(&place, tool),
            StepKind::Model(model) => self.model(&place, model),
            StepKind::Approval(approval) => self.approval(&place, approval),
            StepKind::Transform(fields) => self.transform(&place, fields),
            StepKind::Branch(ways) => self.branch(&place, (list, at), step, ways),
            StepKind::Wait(wait) => self.wait(&place, wait),
            StepKind::Parallel(parallel) => self.parallel(&place, parallel),
            StepKind::Workflow(sub) => self.sub(&place, sub),
        }
    }

    fn wait(&mut self, place: &str, wait: &WaitStep) {
        let ways = [wait.for_ms.is_some(), wait.until_ms.is_some(), wait.signal.is_some()];
        if ways.iter().filter(|given| **given).count() != 1 {
            self.say(place, "A wait has exactly one of for_ms, until_ms and signal.");
        }
        if wait.signal.is_some() != wait.timeout_ms.is_some() {
            self.say(place, "A signal is waited for until timeout_ms has passed, and only a signal is.");
        }
        for (name, ms) in [("for_ms", wait.for_ms), ("timeout_ms", wait.timeout_ms)] {
            if ms.is_some_and(|ms| !(1..=WAIT_MS_MAX).contains(&ms)) {
                self.say(place, format!("{name} is 1 ms to thirty days."));
            }
        }
        if wait.signal.as_ref().is_some_and(|signal| !name_ok(signal)) {
            self.say(place, "A signal's name is lower-case letters, digits and `_`, at most 48.");
        }
        if let Some(source) = &wait.until_ms {
            self.template(place, "until_ms", source);
        }
    }

    fn parallel(&mut self, place: &str, parallel: &'a ParallelStep) {
        if !(2..=BRANCHES_MAX).contains(&parallel.branches.len()) {
            self.say(place, format!("A parallel step has 2 to {BRANCHES_MAX} branches."));
        }
        if self.depth >= PARALLEL_DEPTH_MAX {
            return self.say(
                place,
                format!("Parallel steps stand in one another at most {PARALLEL_DEPTH_MAX} deep."),
            );
        }
        self.depth += 1;
        let before = self.earlier.clone();
        let mut after = before.clone();
        for (name, steps) in &parallel.branches {
            if !name_ok(name) {
                self.say(place, "A branch's name is lower-case letters, digits and `_`, at most 48.");
            }
            if steps.is_empty() {
                self.say(place, format!("The branch {name} has no steps."));
            }
            // A branch sees what was there before, and not what happens beside it.
            self.earlier.clone_from(&before);
            self.list(steps);
            after.append(&mut self.earlier);
        }
        self.earlier = after;
        self.depth -= 1;
    }

    fn sub(&mut self, place: &str, sub: &SubStep) {
        if workflow_id(&sub.name).is_none() {
            self.say(place, "A workflow's name is lower-case letters, digits and `-`, at most 48.");
        }
        if sub.name == self.workflow.name {
            self.say(place, "A workflow does not run itself.");
        }
        self.shape(place, "with", template::tree_shape(&Value::Object(sub.with.clone())));
    }

    /// A successor is a later step of the same list, or one of the ends that are named.
    fn target(&mut self, place: &str, (list, at): (&[Step], usize), name: &str, target: &str, ends: &[&str]) {
        if ends.contains(&target) {
            return;
        }
        match list.iter().position(|step| step.id == target) {
            Some(later) if later > at => {}
            None if self.workflow.step(target).is_some() => {
                self.say(
                    place,
                    format!(
                        "{name} leads into or out of a branch, to {target}; a branch has ways of its own."
                    ),
                );
            }
            Some(_) => self.say(place, format!("{name} leads back to {target}; ways lead forward only.")),
            None => self.say(
                place,
                format!("{name} names {target}, which is no step and none of {}.", ends.join(", ")),
            ),
        }
    }

    fn shape(&mut self, place: &str, what: &str, shape: Result<Shape, template::TemplateError>) {
        let shape = match shape {
            Ok(shape) => shape,
            Err(error) => return self.say(place, format!("{what}: {error}.")),
        };
        for name in &shape.names {
            let mut parts = name.split('.');
            match (parts.next(), parts.next()) {
                (Some("event"), _) => {}
                (Some("run"), Some("id" | "workflow")) => {}
                (Some("steps"), Some(step)) if self.earlier.contains(step) => {}
                (Some("steps"), Some(step)) => {
                    self.say(place, format!("{what} refers to {step}, which is no earlier step."));
                }
                _ => self
                    .say(place, format!("{what} refers to {name}; there are event, steps.<id> and run.id.")),
            }
        }
    }

    fn template(&mut self, place: &str, what: &str, source: &str) {
        self.shape(place, what, template::shape(source));
    }

    fn condition(&mut self, place: &str, what: &str, source: &str) {
        self.shape(place, what, template::condition_shape(source));
    }

    fn tool(&mut self, place: &str, tool: &ToolStep) {
        let tree = Value::Object(tool.params.clone());
        self.shape(place, "params", template::tree_shape(&tree));
        let hints = &tool.policy;
        for (name, source) in [
            ("confidence_milli", &hints.confidence_milli),
            ("priority", &hints.priority),
            ("sensitivity", &hints.sensitivity),
        ] {
            if let Some(source) = source {
                self.template(place, &format!("policy.{name}"), source);
            }
        }
        self.preview(place, &tool.preview);
        if tool.unchanged.len() > UNCHANGED_MAX {
            self.say(place, format!("At most {UNCHANGED_MAX} fields have to be unchanged."));
        }
        for source in tool.unchanged.values() {
            self.template(place, "unchanged", source);
        }
        if connector_id(&tool.connector).is_none() {
            return self.say(place, "A connector's name is lower-case letters, digits and `-`.");
        }
        let Some(manifest) = self.installed.get(tool.connector.as_str()) else {
            return self.say(place, format!("No connector {} is installed.", tool.connector));
        };
        let Some(action) = manifest.action(&tool.action) else {
            return self.say(place, format!("{} has no action {}.", tool.connector, tool.action));
        };
        if action.effect == Effect::Read && hints.auto_approve {
            self.say(place, "auto_approve is for writes.");
        }
        let takes = parameters(&action.params);
        for name in tool.params.keys().filter(|name| !takes.contains(name.as_str())) {
            self.say(place, format!("{} does not take the parameter {name}.", tool.action));
        }
        let required = action.params.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str).filter(|name| !tool.params.contains_key(*name)) {
            self.say(place, format!("{} needs the parameter {name}.", tool.action));
        }
        // A parameter without a template in it is known now.
        for (name, value) in &tool.params {
            let rule = action.params.get("properties").and_then(|all| all.get(name));
            let (Some(rule), false) = (rule, dynamic(value)) else { continue };
            let alone = serde_json::json!({"type": "object", "properties": {(name): rule}});
            if let Ok(validator) = schema::compile(&alone)
                && let Err(why) = schema::check(&validator, &serde_json::json!({(name): value}))
            {
                self.say(place, format!("The parameter {name} does not fit: {why}."));
            }
        }
    }

    fn model(&mut self, place: &str, model: &ModelStep) {
        if !self.workflow.pins.models.contains_key(&model.pin) {
            self.say(place, format!("pins.models has no {}.", model.pin));
        }
        self.template(place, "system", &model.system);
        self.template(place, "user", &model.user);
        if let Some(source) = &model.sensitivity {
            self.template(place, "sensitivity", source);
        }
        if model.max_output_tokens == 0 || model.max_output_tokens > 65_536 {
            self.say(place, "max_output_tokens is 1 to 65536.");
        }
        if let Err(why) = schema::compile(&model.answer) {
            self.say(place, format!("The schema of the answer {why}."));
        }
        let fields = parameters(&model.answer);
        for (field, values) in &model.allowed {
            if !fields.contains(field.as_str()) {
                self.say(place, format!("allowed names {field}, which the answer does not have."));
            }
            match values {
                Value::String(source) if template::is_dynamic(source) => {
                    self.template(place, "allowed", source)
                }
                Value::Array(values)
                    if !values.is_empty() && values.len() <= 500 && values.iter().all(Value::is_string) => {}
                _ => self.say(
                    place,
                    format!("allowed.{field} is a list of texts or a template that comes to one."),
                ),
            }
        }
    }

    fn approval(&mut self, place: &str, approval: &ApprovalStep) {
        if approval.preview.is_empty() {
            self.say(place, "An approval shows at least one line.");
        }
        if approval.tier > 9 || !(1..=9).contains(&approval.approvals) {
            self.say(place, "A tier is at most 9, and 1 to 9 people approve.");
        }
        self.preview(place, &approval.preview);
    }

    fn preview(&mut self, place: &str, preview: &BTreeMap<String, String>) {
        if preview.len() > PREVIEW_LINES_MAX {
            self.say(place, format!("A preview has at most {PREVIEW_LINES_MAX} lines."));
        }
        for (label, source) in preview {
            if label.is_empty() || label.len() > NAME_BYTES_MAX {
                self.say(place, "A label has 1 to 48 bytes.");
            }
            self.template(place, "preview", source);
        }
    }

    fn transform(&mut self, place: &str, fields: &Map<String, Value>) {
        if fields.is_empty() || fields.len() > FIELDS_MAX || !fields.keys().all(|name| name_ok(name)) {
            self.say(
                place,
                format!("A transform makes 1 to {FIELDS_MAX} fields of lower-case letters, digits and `_`."),
            );
        }
        self.shape(place, "transform", template::tree_shape(&Value::Object(fields.clone())));
    }

    fn branch(&mut self, place: &str, at: (&[Step], usize), step: &Step, ways: &[Way]) {
        if step.next.is_some() {
            self.say(place, "A branch has ways and no `next`.");
        }
        if ways.is_empty() || ways.len() > WAYS_MAX {
            self.say(place, format!("A branch has 1 to {WAYS_MAX} ways."));
        }
        for (n, way) in ways.iter().enumerate() {
            match &way.when {
                Some(condition) => self.condition(place, "branch", condition),
                None if n + 1 == ways.len() => {}
                None => self.say(place, "Only the last way has no condition."),
            }
            self.target(place, at, "branch", &way.next, &[END, NEEDS_HUMAN]);
        }
        if ways.last().is_some_and(|way| way.when.is_some()) {
            self.say(place, "The last way has no condition, so that there always is one.");
        }
    }
}

fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn dynamic(value: &Value) -> bool {
    match value {
        Value::String(text) => template::is_dynamic(text),
        Value::Array(items) => items.iter().any(dynamic),
        Value::Object(members) => members.values().any(dynamic),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::parse;

    fn manifest() -> Manifest {
        crate::connector::manifest::parse(
            r#"
name: tickets
version: "1"
events: {ticket.created: {}}
actions:
  get:
    effect: READ
    method: GET
    path: /t/{id}
    params:
      type: object
      additionalProperties: false
      required: [id]
      properties: {id: {type: string, pattern: "^[0-9]+$"}, n: {type: integer}}
    response: {status: [200], extract: {id: /id}}
"#,
        )
        .unwrap()
    }

    fn found(text: &str) -> Vec<String> {
        let manifest = manifest();
        let installed = Installed::from([("tickets", &manifest)]);
        match parse::parse(text) {
            Ok(workflow) => problems(&workflow, &installed),
            Err(problems) => problems,
        }
        .into_iter()
        .map(|problem| format!("{}: {}", problem.place, problem.message))
        .collect()
    }

    #[test]
    fn a_good_workflow() {
        let text = r#"
name: triage
version: "3"
trigger: {connector: tickets, event: ticket.created, match: "event.kind == 'incident'"}
pins:
  models: {classifier: {model: baseline/tfidf-1}}
  connectors: {tickets: {manifest: tickets, version: "1"}}
limits: {deadline_ms: 60000, cost_micros: 1000}
steps:
  - id: fetch
    tool: {connector: tickets, action: get, params: {id: "{{ event.id }}", n: 1}}
    retry: {external: 2}
  - id: classify
    model:
      pin: classifier
      system: Sort it.
      user: "{{ steps.fetch.id }}"
      answer: {type: object, properties: {group: {type: string}}}
      allowed: {group: [a, b]}
    on_error: needs_human
  - id: way
    branch:
      - {when: "steps.classify.group == 'a'", next: ask}
      - {next: end}
  - id: ask
    approval: {preview: {Group: "{{ steps.classify.group }}"}}
    on_denied: done
  - id: both
    parallel:
      on_failure: cancel
      branches:
        one: [{id: first, wait: {for_ms: 1000}}, {id: second, transform: {id: "{{ steps.fetch.id }}"}}]
        two: [{id: heard, wait: {signal: answered, timeout_ms: 1000}}]
  - {id: more, workflow: {name: other, with: {id: "{{ steps.second.id }}"}}}
  - id: done
    when: "steps.ask is defined"
    transform: {run: "{{ run.id }}", text: "for {{ steps.classify.group }}"}
"#;
        assert_eq!(found(text), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_kept() {
        let steps = |steps: &str| format!("name: x\nsteps:\n{steps}");
        let many: String =
            (0..=STEPS_MAX).map(|n| format!("  - {{id: s{n}, transform: {{a: 1}}}}\n")).collect();
        for (text, expected) in [
            (steps("  - {id: a, transform: {v: '{{ steps.b.v }}'}}\n  - {id: b, transform: {v: 1}}\n"), "no earlier step"),
            (steps("  - {id: a, transform: {v: '{{ steps.a.v }}'}}\n"), "no earlier step"),
            (steps("  - {id: a, transform: {v: '{{ steps }}'}}\n"), "refers to steps"),
            (steps("  - {id: a, transform: {v: '{{ secrets.x }}'}}\n"), "refers to secrets.x"),
            (steps("  - {id: a, transform: {v: '{{ run.tenant }}'}}\n"), "refers to run.tenant"),
            (steps("  - {id: a, transform: {v: 1}}\n  - {id: a, transform: {v: 1}}\n"), "Another step has this id"),
            (steps("  - {id: a, transform: {v: 1}, next: a}\n"), "leads back"),
            (steps("  - {id: a, transform: {v: 1}}\n  - {id: b, transform: {v: 1}, on_error: a}\n"), "leads back"),
            (steps("  - {id: a, transform: {v: 1}, next: nowhere}\n"), "is no step"),
            (steps("  - {id: a, transform: {v: 1}, next: dead}\n"), "is no step"),
            (steps("  - {id: end, transform: {v: 1}}\n"), "An id is"),
            (steps("  - {id: A, transform: {v: 1}}\n"), "An id is"),
            (steps("  - {id: a}\n"), "exactly one of"),
            (steps("  - {id: a, transform: {v: 1}, branch: [{next: end}]}\n"), "exactly one of"),
            (steps("  - {id: a, transform: {v: 1}, on_denyed: end}\n"), "unknown field"),
            (steps("  - {id: a, transform: {}}\n"), "A transform makes"),
            (steps("  - {id: a, transform: {v: '{% for x in y %}'}}\n"), "of statements only"),
            (steps("  - {id: a, transform: {v: '{{ 1 +'}}\n"), "does not end"),
            (steps("  - {id: a, when: '1 +', transform: {v: 1}}\n"), "when:"),
            (steps("  - {id: a, transform: {v: 1}, deadline_ms: 0}\n"), "A deadline is"),
            (steps("  - {id: a, transform: {v: 1}, retry: {external: 99}}\n"), "tried again at most"),
            (steps("  - {id: a, branch: []}\n"), "1 to 16 ways"),
            (steps("  - {id: a, branch: [{next: end, when: 'true'}]}\n"), "The last way has no condition"),
            (steps("  - {id: a, branch: [{next: end}, {next: end}]}\n"), "Only the last way"),
            (steps("  - {id: a, approval: {preview: {}}}\n"), "at least one line"),
            (steps("  - {id: a, tool: {connector: other, action: get}}\n"), "No connector other"),
            (steps("  - {id: a, tool: {connector: tickets, action: drop}}\n"), "no action drop"),
            (steps("  - {id: a, tool: {connector: tickets, action: get}}\n"), "needs the parameter id"),
            (steps("  - {id: a, tool: {connector: tickets, action: get, params: {id: '1', x: 1}}}\n"), "does not take"),
            (steps("  - {id: a, tool: {connector: tickets, action: get, params: {id: abc}}}\n"), "does not fit"),
            (steps("  - {id: a, tool: {connector: tickets, action: get, params: {id: '1', n: x}}}\n"), "does not fit"),
            (steps("  - {id: a, tool: {connector: tickets, action: get, params: {id: '1'}, policy: {auto_approve: true}}}\n"), "is for writes"),
            (steps("  - {id: a, model: {pin: p, system: s, user: u, answer: {type: object}}}\n"), "pins.models has no p"),
            (steps("  - {id: a, model: {pin: p, system: s, user: u, answer: {$ref: x}}}\n"), "The schema of the answer"),
            (steps(&many), "more than 64 steps"),
            (steps("  - {id: a, wait: {}}\n"), "exactly one of for_ms"),
            (steps("  - {id: a, wait: {for_ms: 1, signal: s, timeout_ms: 1}}\n"), "exactly one of for_ms"),
            (steps("  - {id: a, wait: {signal: s}}\n"), "until timeout_ms"),
            (steps("  - {id: a, wait: {for_ms: 1, timeout_ms: 1}}\n"), "until timeout_ms"),
            (steps("  - {id: a, wait: {for_ms: 2592000001}}\n"), "thirty days"),
            (steps("  - {id: a, wait: {signal: No, timeout_ms: 1}}\n"), "A signal's name"),
            (steps("  - {id: a, wait: {until_ms: '{{ steps.b.v }}'}}\n"), "no earlier step"),
            (steps("  - {id: a, parallel: {branches: {b: [{id: c, transform: {v: 1}}]}}}\n"), "2 to 8 branches"),
            (steps("  - {id: a, parallel: {branches: {b: [{id: c, transform: {v: 1}}], d: []}}}\n"), "has no steps"),
            (steps("  - {id: a, parallel: {branches: {b: [{id: c, transform: {v: 1}}], d: [{id: c, transform: {v: 1}}]}}}\n"), "Another step has this id"),
            (steps("  - {id: a, parallel: {branches: {b: [{id: c, transform: {v: 1}}], d: [{id: e, transform: {v: '{{ steps.c.v }}'}}]}}}\n"), "no earlier step"),
            (steps("  - {id: a, parallel: {branches: {b: [{id: c, transform: {v: 1}, next: f}], d: [{id: e, transform: {v: 1}}]}}}\n  - {id: f, transform: {v: 1}}\n"), "out of a branch"),
            (steps("  - {id: a, workflow: {name: x}}\n"), "does not run itself"),
            (steps("  - {id: a, workflow: {name: 'X Y'}}\n"), "A workflow's name"),
            ("name: x\nsteps: []\n".into(), "1 to 64 steps"),
            ("name: x\n".into(), "no list of steps"),
            ("name: X Y\nsteps: [{id: a, transform: {v: 1}}]\n".into(), "A name is"),
            ("name: x\nextra: 1\nsteps: [{id: a, transform: {v: 1}}]\n".into(), "unknown field"),
            ("name: x\ntrigger: {connector: tickets, event: nope}\nsteps: [{id: a, transform: {v: 1}}]\n".into(), "has no event"),
            ("name: x\ntrigger: {connector: tickets, event: ticket.created, match: run.id}\nsteps: [{id: a, transform: {v: 1}}]\n".into(), "`event` only"),
            ("name: x\npins: {connectors: {tickets: {manifest: tickets, version: '9'}}}\nsteps: [{id: a, transform: {v: 1}}]\n".into(), "Installed is tickets 1"),
        ] {
            let found = found(&text);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{text}\n{expected}: {found:?}");
        }
    }
}
