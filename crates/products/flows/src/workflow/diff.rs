//! What changed between two versions, for the person who publishes or approves one.
//!
//! Steps are compared by their id, not by their place: a step that moved is one change, not two. So are those of branches.

use super::model::{Step, StepKind, Workflow};
use serde::Serialize;
use serde_json::{Map, Value};

/// Most changes that are listed.
pub const CHANGES_MAX: usize = 200;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where: `steps.classify.model.system`.
    pub place: String,
    /// What was there; absent if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; absent if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The differences, in order of their places.
pub fn diff(before: &Workflow, after: &Workflow) -> Vec<Change> {
    values(&keyed(before), &keyed(after))
}

/// The differences of a first version from nothing.
pub fn first(workflow: &Workflow) -> Vec<Change> {
    values(&Value::Object(Map::new()), &keyed(workflow))
}

/// The differences of two values, in order of their places.
pub(crate) fn values(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes.truncate(CHANGES_MAX);
    changes
}

/// The workflow as a value in which steps stand under their ids, and their order as a list of ids.
fn keyed(workflow: &Workflow) -> Value {
    let mut value = serde_json::to_value(workflow).unwrap_or_default();
    (value["steps"], value["order"]) = by_id(&workflow.steps);
    value
}

/// Steps under their ids, and their order.
fn by_id(list: &[Step]) -> (Value, Value) {
    let mut steps = Map::new();
    for step in list {
        let mut value = serde_json::to_value(step).unwrap_or_default();
        if let StepKind::Parallel(parallel) = &step.kind {
            for (name, branch) in &parallel.branches {
                let (steps, order) = by_id(branch);
                value["parallel"]["branches"][name] = serde_json::json!({"steps": steps, "order": order});
            }
        }
        steps.insert(step.id.clone(), value);
    }
    let order: Vec<&str> = list.iter().map(|step| step.id.as_str()).collect();
    (Value::Object(steps), order.into())
}

fn compare(place: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if before == after || changes.len() > CHANGES_MAX {
        return;
    }
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (before, after) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            compare(&inner, a.get(key), b.get(key), changes);
        }
        return;
    }
    changes.push(Change { place: place.to_owned(), before: before.cloned(), after: after.cloned() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::parse;

    #[test]
    fn steps_are_compared_by_their_id() {
        let a =
            parse::parse("name: a\nsteps:\n  - {id: x, transform: {v: 1}}\n  - {id: y, transform: {v: 2}}\n")
                .unwrap();
        let b = parse::parse(
            "name: a\nversion: '2'\nsteps:\n  - {id: y, transform: {v: 2}}\n  - {id: x, transform: {v: 3}}\n  - {id: z, transform: {v: 4}}\n",
        )
        .unwrap();
        let places: Vec<String> = diff(&a, &b).into_iter().map(|change| change.place).collect();
        assert_eq!(places, ["order", "steps.x.transform.v", "steps.z", "version"]);
        assert_eq!(diff(&a, &a), vec![]);
        let first: Vec<String> = first(&a).into_iter().map(|change| change.place).collect();
        assert_eq!(first, ["name", "order", "steps"]);
        assert_ne!(a.digest(), b.digest());
    }

    #[test]
    fn so_are_the_steps_of_branches() {
        let text = |v: u8| {
            format!(
                "name: a\nsteps:\n  - id: p\n    parallel:\n      branches:\n        x: [{{id: y, transform: {{v: {v}}}}}]\n        z: [{{id: w, transform: {{v: 1}}}}]\n"
            )
        };
        let (a, b) = (parse::parse(&text(1)).unwrap(), parse::parse(&text(2)).unwrap());
        let places: Vec<String> = diff(&a, &b).into_iter().map(|change| change.place).collect();
        assert_eq!(places, ["steps.p.parallel.branches.x.steps.y.transform.v"]);
    }
}
