//! The live feed: a tenant's facts as server-sent events, from now on or from where a client stopped.
//!
//! The stream reads the log from an index on, sends each fact as a CloudEvent, and then waits for the store's hint or looks
//! by itself once a second. The id of an event is the index of its leaf, so a client that lost its connection sends it
//! back (`Last-Event-ID`, WHATWG HTML section 9.2) and misses nothing and gets nothing twice, over a restart of the server
//! as well.
//!
//! An id that no event of this log can have had is refused and not taken for *now*: a client that resumes with it would
//! otherwise miss, without knowing, whatever lies between. That is one that is no number, and one that the log has not
//! reached, which is what a client sees whose installation was set back to an older copy. There is none that is too old: a
//! log keeps all its leaves.
//!
//! What it does not do: it keeps nothing per client. A client that does not read is disconnected by the edge.

use crate::event;
use act::{Class, Coded, Fault, StreamSource};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use kernel::TenantId;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::watch;

/// Leaves read from the log at once.
const PAGE: usize = 100;
/// How often the log is looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("events.cursor_invalid", "the place to go on from is no index of an event"),
    ("events.cursor_ahead", "the place to go on from lies beyond the end of the log"),
];

/// Why a feed does not begin where it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is no index.
    #[error("the id of the last event is its index in the log, a number")]
    Invalid,
    /// The log has not come that far.
    #[error(
        "the log has no event with this id yet; if it had one, the installation was set back to an older copy"
    )]
    Ahead,
}

impl Coded for CursorError {
    fn code(&self) -> &'static str {
        match self {
            CursorError::Invalid => "events.cursor_invalid",
            CursorError::Ahead => "events.cursor_ahead",
        }
    }
    fn class(&self) -> Class {
        match self {
            CursorError::Invalid => Class::Invalid,
            CursorError::Ahead => Class::Conflict,
        }
    }
}

/// Where a feed begins: after the event `after`, or at the end of a log of `size` leaves.
pub fn begin(after: Option<&str>, size: u64) -> Result<u64, CursorError> {
    let Some(text) = after.filter(|text| !text.is_empty()) else { return Ok(size) };
    // `+7` is a number to the parser and no id of ours.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let after = text.parse::<u64>().ok().filter(|_| digits).ok_or(CursorError::Invalid)?;
    // Of an empty log everything may be asked for: its first event has the index 0, and 0 is what people begin with.
    if after != 0 && after >= size { Err(CursorError::Ahead) } else { Ok(after.saturating_add(1).min(size)) }
}

struct Feed {
    store: Store,
    tenant: TenantId,
    next: u64,
    hints: watch::Receiver<u64>,
    kinds: Option<String>,
    ready: VecDeque<(String, String, Value)>,
}

impl Feed {
    async fn next(mut self) -> Option<((String, String, Value), Feed)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            self.hints.borrow_and_update();
            let leaves = match self.store.leaves(&self.tenant, self.next, PAGE).await {
                Ok(leaves) => leaves,
                Err(error) => {
                    tracing::warn!(%error, "a live feed ends because the log cannot be read");
                    return None;
                }
            };
            if leaves.is_empty() {
                // A hint may be missed without harm, because of the time-out; the store's end closes the feed.
                if let Ok(Err(_)) = tokio::time::timeout(LOOK, self.hints.changed()).await {
                    return None;
                }
                continue;
            }
            let passed = leaves.last().map(|last| (last.index.to_string(), String::new(), Value::Null));
            for leaf in leaves {
                self.next = leaf.index + 1;
                let Some(fact) = event::fact(&leaf.leaf) else { continue };
                let kind = event::kind(&fact).to_owned();
                if self.kinds.as_ref().is_none_or(|prefix| kind.starts_with(prefix.as_str())) {
                    self.ready.push_back((leaf.index.to_string(), kind, event::cloud(leaf.index, fact)));
                }
            }
            if self.ready.is_empty() {
                // Nothing of it is wanted: whoever comes back need not look through it again.
                self.ready.extend(passed);
            }
        }
    }
}

/// A tenant's facts from now on, or from after `last_event_id` or `after`; `kind` keeps only kinds with that prefix.
pub fn source(store: Store) -> StreamSource {
    Arc::new(move |ctx, params| {
        let store = store.clone();
        async move {
            let hints = store.hints().facts;
            let size = store.head(&ctx.tenant).await?.map_or(0, |head| head.size);
            let after = params.get("last_event_id").or_else(|| params.get("after"));
            let next = begin(after.map(String::as_str), size)?;
            let kinds = params.get("kind").cloned();
            // What to come back with if there is no event before the end.
            let mark = next.checked_sub(1).map(|before| (before.to_string(), String::new(), Value::Null));
            let feed =
                Feed { store, tenant: ctx.tenant, next, hints, kinds, ready: VecDeque::from_iter(mark) };
            Ok::<_, Fault>(stream::unfold(feed, Feed::next).boxed())
        }
        .boxed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_begins_where_it_was_left_or_says_why_not() {
        for (after, size, expected) in [
            (None, 7, Ok(7)),
            (Some(""), 7, Ok(7)),
            (Some("0"), 7, Ok(1)),
            (Some("0"), 0, Ok(0)),
            (Some("6"), 7, Ok(7)),
            (Some("7"), 7, Err(CursorError::Ahead)),
            (Some("18446744073709551615"), 7, Err(CursorError::Ahead)),
            (Some("18446744073709551616"), 7, Err(CursorError::Invalid)),
            (Some("-1"), 7, Err(CursorError::Invalid)),
            (Some("+6"), 7, Err(CursorError::Invalid)),
            (Some("six"), 7, Err(CursorError::Invalid)),
        ] {
            assert_eq!(begin(after, size), expected, "{after:?} of {size}");
        }
    }
}
