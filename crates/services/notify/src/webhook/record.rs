//! What came of deliveries, written down: an act of this installation, which nobody else can ask for.
//!
//! One record may say three things: that the cursor moved on past what was taken or was not wanted, that the event at the
//! cursor failed, and what became of a letter that was sent again. It names the cursor that its writer began at, and is
//! refused (`webhook.moved`) where that is not the endpoint's any more: somebody set it anew, or another process sends as
//! well. Then the writer reads again and begins where the endpoint is.

use super::endpoint::{Endpoint, Failing, State, read};
use super::letter::{self, LETTERS_MAX, Letter};
use super::schedule::{FAILING_MS_MAX, wait_ms};
use act::{Draw as _, Fault, Plan, Stamp, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::changeset::{Draft, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// The act. None of its facts is sent to a webhook, but for [`DISABLED`].
pub const ACT: &str = "notify.webhook.record";
/// The fact that an endpoint is sent nothing any more. It takes a person to make it possible again, so it makes no loop.
pub const DISABLED: &str = "notify.webhook.disabled";
/// The code of a record that comes too late.
pub const MOVED: &str = "webhook.moved";

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureArgs {
    /// Stable code.
    pub code: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// When the target wants to be asked again, milliseconds from now.
    pub after_ms: Option<i64>,
}

/// A letter that was sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LetterArgs {
    /// The letter.
    pub letter: String,
    /// Why it was not taken; absent, it was.
    pub failure: Option<FailureArgs>,
}

/// Arguments of [`ACT`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordArgs {
    /// The endpoint.
    pub webhook: String,
    /// The cursor that the writer began at.
    pub from: u64,
    /// Where it is now.
    pub to: u64,
    /// Events taken in between.
    pub sent: u64,
    /// Why the event at `to` was not taken.
    pub failure: Option<FailureArgs>,
    /// A letter that was sent again.
    pub letter: Option<LetterArgs>,
}

/// Whether an event is for webhooks at all.
pub fn told(fact: &Value) -> bool {
    fact["act"] != ACT || fact["kind"] == DISABLED
}

/// Facts that the act states.
const FACTS: &[&str] = &[
    "notify.webhook.advanced",
    "notify.webhook.failed",
    DISABLED,
    "notify.letter.dead",
    "notify.letter.sent",
];

/// Whether facts of this kind can reach a webhook.
pub fn posted(kind: &str) -> bool {
    kind == DISABLED || !FACTS.contains(&kind)
}

/// The verb.
pub fn verb() -> Verb {
    Verb {
        act: ACT,
        summary: "Writes down what came of deliveries to a webhook",
        args: || schemars::schema_for!(RecordArgs).into(),
        writes: &["notify.webhook", "notify.letter"],
        facts: FACTS,
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: RecordArgs = parse(args)?;
                let stored = read(view, &args.webhook).await?;
                let mut target = Target::of(Endpoint::KIND, &stored.id);
                target.attributes = json!({"origin": stored.origin(), "state": stored.state});
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| plan(view, args, stamp).boxed()),
    }
}

/// What an endpoint becomes.
#[derive(Debug, PartialEq)]
pub struct Judged {
    /// Afterwards.
    pub endpoint: Endpoint,
    /// The event at the cursor is given up.
    pub dead: bool,
    /// It is disabled.
    pub disabled: bool,
}

/// What becomes of an endpoint whose event at the cursor failed once more.
pub fn judged(before: &Endpoint, failure: &FailureArgs, now_ms: i64, random: u8) -> Judged {
    let mut endpoint = before.clone();
    let (since_ms, attempts) =
        before.failing.as_ref().map_or((now_ms, 0), |failing| (failing.since_ms, failing.attempts));
    let failing = |attempts, next_at_ms| {
        let FailureArgs { code, status, .. } = failure.clone();
        Some(Failing { since_ms, attempts, next_at_ms, code, status })
    };
    let wait = wait_ms(attempts + 1, failure.after_ms, random);
    let dead = wait.is_none() && before.letters < LETTERS_MAX;
    let why = if failure.code == "webhook.gone" {
        Some("webhook.gone")
    } else if now_ms.saturating_sub(since_ms) >= FAILING_MS_MAX {
        Some("webhook.failing")
    } else if wait.is_none() && !dead {
        Some("webhook.letters_full")
    } else {
        None
    };
    if let Some(why) = why {
        // The event at the cursor is not given up: whoever resumes says what becomes of it.
        endpoint.state = State::Disabled;
        endpoint.why = Some(why.to_owned());
        endpoint.failing = failing(attempts + 1, now_ms);
        return Judged { endpoint, dead: false, disabled: true };
    }
    match wait {
        Some(wait) => endpoint.failing = failing(attempts + 1, now_ms.saturating_add(wait)),
        None => {
            endpoint.letters += 1;
            endpoint.cursor += 1;
            // The next event begins its own schedule; that nothing was taken since then stays true.
            endpoint.failing = failing(0, now_ms);
        }
    }
    Judged { endpoint, dead, disabled: false }
}

async fn plan(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: RecordArgs = parse(args)?;
    let stored = read(view, &args.webhook).await?;
    let moved = stored.cursor != args.from || args.to < args.from;
    if moved || (args.failure.is_some() && stored.state != State::Active) {
        return Err(Fault::conflict(MOVED, "the webhook is elsewhere by now"));
    }
    let mut draft = stamp.draft();
    let fact = |kind, outcome| stamp.fact(kind, &stored.id, (Endpoint::KIND, &stored.id), outcome);
    let mut doc = Endpoint { cursor: args.to, ..stored.doc.clone() };
    if args.sent > 0 {
        doc.sent = doc.sent.saturating_add(args.sent);
        doc.failing = None;
        doc.taken_at_ms = Some(stamp.at_ms);
    }
    if args.to > args.from {
        let outcome = json!({"from": args.from, "to": args.to, "sent": args.sent});
        draft.fact(fact("notify.webhook.advanced", outcome));
    }
    if let Some(failure) = &args.failure {
        let Judged { endpoint, dead, disabled } = judged(&doc, failure, stamp.at_ms, stamp.ids.entropy()[0]);
        let attempts = doc.failing.as_ref().map_or(0, |failing| failing.attempts) + 1;
        let mut outcome =
            json!({"index": args.to, "attempt": attempts, "code": failure.code, "status": failure.status});
        if !dead && !disabled {
            outcome["retry_at_ms"] = json!(endpoint.failing.as_ref().map(|failing| failing.next_at_ms));
        }
        draft.fact(fact("notify.webhook.failed", outcome));
        if dead {
            let letter = buried(view, stamp, &doc, failure, attempts).await?;
            draft.put_new(&letter).fact(stamp.fact(
                "notify.letter.dead",
                &stored.id,
                (Letter::KIND, &letter.id),
                json!({"index": letter.index, "fact": letter.fact, "code": letter.code, "attempts": attempts}),
            ));
        }
        if disabled {
            let since_ms = endpoint.failing.as_ref().map(|failing| failing.since_ms);
            draft.fact(fact(
                DISABLED,
                json!({"why": endpoint.why, "code": failure.code, "since_ms": since_ms, "cursor": endpoint.cursor}),
            ));
        }
        doc = endpoint;
    }
    if let Some(args) = &args.letter {
        let letter = letter::letter(view, &stored.id, &args.letter).await?;
        resent(&mut draft, &mut doc, &letter, args, stamp);
    }
    if draft.facts.is_empty() {
        return Err(Fault::invalid("request.invalid", "there is nothing to write down"));
    }
    let outcome =
        json!({"cursor": doc.cursor, "active": doc.state == State::Active, "failing": doc.failing.is_some()});
    let mut plan = Plan { draft, outcome };
    plan.draft.put_if(&stored, &doc);
    Ok(plan)
}

/// The letter of the event at the cursor.
async fn buried(
    view: &View,
    stamp: &Stamp,
    doc: &Endpoint,
    failure: &FailureArgs,
    attempts: u32,
) -> Result<Letter, Fault> {
    let leaves = view.store().leaves(view.tenant(), doc.cursor, 1).await?;
    let fact = leaves.first().and_then(|leaf| crate::event::fact(&leaf.leaf)).unwrap_or_default();
    Ok(Letter {
        id: stamp.id("whl"),
        webhook: doc.id.clone(),
        index: doc.cursor,
        fact: fact["id"].as_str().unwrap_or_default().to_owned(),
        kind: crate::event::kind(&fact).to_owned(),
        state: letter::State::Dead,
        code: failure.code.clone(),
        status: failure.status,
        attempts,
        replays: 0,
        died_at_ms: stamp.at_ms,
    })
}

/// A letter that was sent again: it is gone, or dead once more.
fn resent(draft: &mut Draft, doc: &mut Endpoint, stored: &Stored<Letter>, args: &LetterArgs, stamp: &Stamp) {
    let attempts = stored.attempts.saturating_add(1);
    let fact = |kind, code: Option<&str>| {
        let outcome = json!({"index": stored.index, "fact": stored.fact, "code": code, "attempts": attempts});
        stamp.fact(kind, &stored.webhook, (Letter::KIND, &stored.id), outcome)
    };
    match &args.failure {
        None => {
            doc.letters = doc.letters.saturating_sub(1);
            let (kind, id, rev) = (Letter::KIND, stored.id.clone(), stored.rev);
            draft.push(Operation::Delete { kind, id, rev }).fact(fact("notify.letter.sent", None));
        }
        Some(failure) => {
            let dead = Letter {
                state: letter::State::Dead,
                code: failure.code.clone(),
                status: failure.status,
                attempts,
                died_at_ms: stamp.at_ms,
                ..stored.doc.clone()
            };
            draft.put_if(stored, &dead).fact(fact("notify.letter.dead", Some(&failure.code)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{ATTEMPTS_MAX, WAITS_MS};
    use super::*;
    use kernel::Id;

    fn endpoint() -> Endpoint {
        Endpoint {
            id: Id::parse("whk_1").unwrap(),
            target: "https://x.example/in".into(),
            kinds: Vec::new(),
            note: String::new(),
            state: State::Active,
            why: None,
            secrets: Vec::new(),
            cursor: 7,
            sent: 0,
            letters: 0,
            failing: None,
            taken_at_ms: None,
            created_at_ms: 0,
            created_by: Id::parse("prn_a").unwrap(),
        }
    }

    fn failure(code: &str) -> FailureArgs {
        FailureArgs { code: code.into(), status: Some(500), after_ms: None }
    }

    /// A target that takes nothing: how many events were given up, and when it was over.
    #[test]
    fn an_endpoint_that_takes_nothing_is_disabled_after_days() {
        let (mut doc, mut now_ms, mut dead) = (endpoint(), 1_000, 0);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let judged = judged(&doc, &failure("webhook.status"), now_ms, 255);
            doc = judged.endpoint;
            if judged.disabled {
                break;
            }
            if judged.dead {
                dead += 1;
                assert_eq!((doc.cursor, doc.letters), (7 + dead, u32::try_from(dead).unwrap()));
            }
            now_ms = doc.failing.as_ref().unwrap().next_at_ms;
        }
        assert_eq!((doc.state, doc.why.as_deref()), (State::Disabled, Some("webhook.failing")));
        let failing_ms = now_ms - 1_000;
        let longest = WAITS_MS[WAITS_MS.len() - 1] * 5 / 4;
        assert!((FAILING_MS_MAX..FAILING_MS_MAX + longest).contains(&failing_ms), "{failing_ms}");
        // Small: a few attempts an hour, a few letters a day.
        assert!((10..=20).contains(&dead), "{dead}");
        assert!(attempts <= 20 * u64::from(ATTEMPTS_MAX), "{attempts}");
        assert_eq!(doc.cursor, 7 + dead, "the event at the cursor is not given up");
    }

    #[test]
    fn an_endpoint_is_disabled_at_once_if_it_is_gone_or_its_letters_are_too_many() {
        let judged_gone = judged(&endpoint(), &failure("webhook.gone"), 5, 0);
        assert_eq!((judged_gone.disabled, judged_gone.dead, judged_gone.endpoint.cursor), (true, false, 7));
        assert_eq!(judged_gone.endpoint.why.as_deref(), Some("webhook.gone"));
        let last = Failing {
            since_ms: 0,
            attempts: ATTEMPTS_MAX - 1,
            next_at_ms: 0,
            code: String::new(),
            status: None,
        };
        let full = Endpoint { letters: LETTERS_MAX, failing: Some(last.clone()), ..endpoint() };
        let judged_full = judged(&full, &failure("webhook.status"), 5, 0);
        assert_eq!(
            (judged_full.disabled, judged_full.dead, judged_full.endpoint.letters),
            (true, false, LETTERS_MAX)
        );
        assert_eq!(judged_full.endpoint.why.as_deref(), Some("webhook.letters_full"));
        let room = Endpoint { letters: LETTERS_MAX - 1, failing: Some(last), ..endpoint() };
        assert!(judged(&room, &failure("webhook.status"), 5, 0).dead);
    }

    #[test]
    fn what_the_post_records_is_not_posted() {
        for (act, kind, expected) in [
            (ACT, "notify.webhook.advanced", false),
            (ACT, "notify.webhook.failed", false),
            (ACT, "notify.letter.dead", false),
            // A refusal of the record itself, were policy to refuse it.
            (ACT, "governor.decided", false),
            (ACT, DISABLED, true),
            ("notify.webhook.pause", "notify.webhook.paused", true),
            ("flows.run.start", "flows.run.created", true),
        ] {
            assert_eq!(told(&json!({"act": act, "kind": kind})), expected, "{act} {kind}");
        }
    }
}
