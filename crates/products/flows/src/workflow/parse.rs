//! YAML in, typed form out.

use super::model::{STEPS_MAX, Step, Workflow};
use crate::yaml::{self, YamlError};
use serde_json::Value;

/// Something that keeps a workflow or manifest from being accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where: `steps.classify`, `trigger`, or empty for the whole text.
    pub place: String,
    /// What is wrong, as a sentence.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { place: place.into(), message: message.into() }
    }
}

/// Most problems that are reported at once.
pub const PROBLEMS_MAX: usize = 32;

/// Reads a workflow's text. What it refers to is not looked at yet; [`super::check`] does that.
pub fn parse(text: &str) -> Result<Workflow, Vec<Problem>> {
    let mut value = yaml::parse(text).map_err(|error| match error {
        YamlError::TooLarge | YamlError::Refused(_) => vec![Problem::at("", error.to_string())],
    })?;
    // Steps are read one by one, so that each problem names its step and all of them are found at once.
    let steps = match value.get_mut("steps").map(Value::take) {
        Some(Value::Array(steps)) if steps.len() <= STEPS_MAX => steps,
        Some(Value::Array(_)) => {
            return Err(vec![Problem::at("steps", format!("There are more than {STEPS_MAX} steps."))]);
        }
        _ => return Err(vec![Problem::at("steps", "There is no list of steps.")]),
    };
    if let Some(slot) = value.get_mut("steps") {
        *slot = Value::Array(Vec::new());
    }
    let mut problems = Vec::new();
    let mut read = Vec::with_capacity(steps.len());
    for (n, step) in steps.into_iter().enumerate() {
        let name = step.get("id").and_then(Value::as_str).map_or_else(|| n.to_string(), str::to_owned);
        match serde_json::from_value::<Step>(step) {
            Ok(step) => read.push(step),
            Err(error) => {
                problems.push(Problem::at(format!("steps.{name}"), format!("It cannot be read: {error}.")))
            }
        }
    }
    match serde_json::from_value::<Workflow>(value) {
        Ok(mut workflow) if problems.is_empty() => {
            workflow.steps = read;
            Ok(workflow)
        }
        Ok(_) => Err(cut(problems)),
        Err(error) => {
            problems.insert(0, Problem::at("", format!("It cannot be read: {error}.")));
            Err(cut(problems))
        }
    }
}

pub(crate) fn cut(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.truncate(PROBLEMS_MAX);
    problems
}
