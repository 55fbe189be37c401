//! Dead letters: runs that could not go on, each with what an operator needs to decide what becomes of it.
//!
//! A dead letter is no record of its own. It is a run that stands in the status *dead*, with everything it knew: the event,
//! the outputs so far, the call in flight if there is one. So there is nothing to keep in step, and replaying is an act on
//! the run (`flows.run.replay`), under the same effect keys as before.
//!
//! What to do with one depends on its call:
//!
//! | `call` | what became of it | replay |
//! |---|---|---|
//! | none | nothing was in flight | the step is tried again |
//! | in doubt | it may have had its effect | the run looks, if its action lets it be looked for; else say `applied` |

use super::routes::{PROJECT, dead, in_flight, readable};
use super::{RunDoc, Status};
use act::{Fault, QueryCtx, Route, page};
use futures::FutureExt as _;
use kernel::{hex, json as canonical, sha256};
use serde_json::{Value, json};

const READ: &str = "flows.run.read";

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    dead(&query).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let run = readable(&query, "dead letter").await?;
    if run.status != Status::Dead {
        return Err(Fault::not_found("dead letter"));
    }
    Ok(letter(&run))
}

fn letter(run: &RunDoc) -> Value {
    let code = run.error.as_ref().map(|error| error.code.as_str());
    let about = code.and_then(|code| crate::CODES.iter().find(|(known, _)| *known == code));
    let digest = canonical::canonical(&run.event).map(|bytes| hex::encode(&sha256(&bytes))).ok();
    json!({
        "run": run.id, "workflow": run.workflow, "project": run.project, "workflow_digest": run.workflow_digest,
        "connectors": run.connectors, "step": run.step, "error": run.error, "cause": about.map(|(_, line)| line),
        "page": code.map(|code| format!("docs/errors/{code}.md")), "attempts": run.attempts, "crashes": run.crashes,
        "part_of": run.strand.as_ref().map(|strand| &strand.parent),
        "call": in_flight(run), "in_doubt": run.pending.is_some(), "input_digest": digest,
        "died_at_ms": run.finished_at_ms, "created_at_ms": run.created_at_ms, "replays": run.replays,
        "event": run.event, "outputs": run.outputs, "trace": run.trace,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/dead-letters",
            "dead_letter_list",
            "List dead letters, oldest first",
            READ,
            |query| list(query).boxed(),
        )
        .taking(&[PROJECT, page::AFTER, page::LIMIT]),
        Route::get(
            "/v1/dead-letters/{run}",
            "dead_letter_show",
            "Show a dead letter with its cause",
            READ,
            |query| show(query).boxed(),
        ),
        Route::post(
            "/v1/dead-letters/{run}/replay",
            "dead_letter_replay",
            "Replay a dead letter from the step it died in",
            "flows.run.replay",
        ),
    ]
}
