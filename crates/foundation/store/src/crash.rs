//! Named crash points: places where a test can make the process die at once, as if by `kill -9`.
//!
//! The write path promises that nothing acknowledged is lost and nothing is done twice, and the only honest test of
//! that is to die at every step of it. A point does nothing until it is armed by name, which only the operator's
//! environment can do ([`VARIABLE`]`=name`, or `name:3` for the third time it is passed). Then the process aborts
//! without unwinding, flushing or replying.
//!
//! Those who add a step to the write path or a call to the outside add a point before and after it, and its name to
//! [`POINTS`]. Two tests walk that list and demand a case for each name: the survivor in `testkit` for the points of a
//! commit, and `writ serve` under the stand-ins, in the tests of `cli`, for all of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The variable that arms a point.
pub const VARIABLE: &str = "WRIT_CRASH_POINT";

/// Every crash point, in the order in which a governed run passes them.
pub const POINTS: &[&str] = &[
    // A delivery is believed, and nothing of it is recorded.
    "webhook.received",
    // It is recorded, and its sender has no answer.
    "webhook.recorded",
    // A commit: on its way to the writer, in an open transaction, durable, and known to whoever asked.
    "commit.received",
    "commit.applied",
    "commit.durable",
    "commit.replied",
    // A call outside: its intent is durable, its reply (or the lack of one) is known, its outcome is durable.
    "tool.intended",
    "tool.sent",
    "tool.finished",
    // The other side was asked what became of a call in doubt.
    "tool.looked",
    "model.intended",
    "model.sent",
    "model.finished",
    // People have decided, and nothing has come of it yet.
    "approval.decided",
    // What they decided is carried out, or whoever waits is told, and the approval's own job has not ended.
    "approval.settled",
    // An event was taken by a webhook's target, and nothing of that is recorded; and then it is.
    "event.sent",
    "event.recorded",
    // A card is shown, or changed, and nothing of that is recorded; and then it is.
    "card.sent",
    "card.recorded",
    // A head is signed, and then kept, before anybody sees it.
    "checkpoint.signed",
    "checkpoint.kept",
    // The checkpoint is durable, and the high-water mark behind it; the mark has caught up, and nobody was told.
    "mark.due",
    "mark.moved",
    // A bundle lies in its folder, and no record names it.
    "evidence.written",
    // An older schema is being brought up to date: in the open transaction, and once it is durable.
    "schema.applied",
    "schema.durable",
];

struct Armed {
    name: String,
    passes_left: AtomicU32,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Arms the point that `text` names (`name` or `name:n`). Only the first call of a process counts.
///
/// # Errors
/// If there is no such point.
pub fn arm(text: &str) -> Result<(), String> {
    let (name, pass) = match text.split_once(':') {
        None => (text, 1),
        Some((name, pass)) => {
            let passes = pass.parse().ok().filter(|passes| *passes > 0);
            (name, passes.ok_or_else(|| format!("{pass:?} is not a number of passes"))?)
        }
    };
    if !POINTS.contains(&name) {
        return Err(format!("there is no crash point {name:?}; there are: {}", POINTS.join(", ")));
    }
    let _ = ARMED.set(Some(Armed { name: name.to_owned(), passes_left: AtomicU32::new(pass) }));
    Ok(())
}

/// Passes the point `name`; the process dies here if it is armed and its time has come.
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is missing in POINTS");
    if let Some(Some(armed)) = ARMED.get()
        && armed.name == name
        && armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}
