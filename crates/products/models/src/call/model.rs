//! The record of a call: metadata only.

use contracts::models::Cost;
use kernel::Id;
use serde::{Deserialize, Serialize};
use store::Document;
use store::key::Key;

/// A call of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallDoc {
    /// `cal_…`
    pub id: Id,
    /// The run it is for.
    pub run: Id,
    /// The workflow of the run.
    pub workflow: String,
    /// The project of the run, if it has one.
    #[serde(default)]
    pub project: Option<String>,
    /// What the run is about, as its source names it.
    #[serde(default)]
    pub ticket: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The model that was pinned.
    pub model: String,
    /// SHA-256 of the prompt and the schema.
    pub prompt_digest: String,
    /// The key under which its caller asked. Repairs and fallbacks have their first call's.
    #[serde(default)]
    pub asked: String,
    /// Which attempt it is: `first`, `repair` or `fallback`.
    #[serde(default = "super::verbs::first")]
    pub attempt: String,
    /// The `provider/model` that was asked for, where this one stands in for it.
    #[serde(default)]
    pub instead_of: Option<String>,
    /// `intended`, `answered`, `unknown`, or the code of what went wrong.
    pub status: String,
    /// The model as the provider reported it.
    pub reported: Option<String>,
    /// The fact of the intent.
    pub intended: Id,
    /// When it was intended, milliseconds UTC.
    pub intended_at_ms: i64,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// What was measured of its cost, in millionths.
    #[serde(default)]
    pub cost_micros: i64,
    /// What is charged although nobody measured it, in millionths.
    #[serde(default)]
    pub unmeasured_micros: i64,
    /// What it is held at; calls from before there were holds have none.
    #[serde(default)]
    pub terms: Option<billing::spend::Terms>,
}

impl CallDoc {
    /// What it has cost. A call that nobody has come back from may have cost all that is held: its end will say so.
    pub fn cost(&self) -> Cost {
        let held_micros = self.terms.as_ref().map_or(0, |terms| terms.most_micros);
        match self.finished_at_ms {
            Some(_) => Cost { cost_micros: self.cost_micros, unmeasured_micros: self.unmeasured_micros },
            None => Cost { cost_micros: 0, unmeasured_micros: held_micros },
        }
    }
}

impl Document for CallDoc {
    const KIND: &'static str = "models.call";
    const VERSION: u32 = 2;
    fn upcast(version: u32, doc: serde_json::Value) -> Option<serde_json::Value> {
        // Version 1 had no holds, project or ticket.
        (version == 1).then_some(doc)
    }
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("run", Key::new().text(self.run.as_str()).integer(self.intended_at_ms).bytes())]
    }
}
