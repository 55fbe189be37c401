//! The play: incidents come in, runs go their way, a second person decides, until nothing is left to do.
//!
//! Three things go on at once. Deliveries are sent, several at a time and some of them twice. The tenant's live feed tells
//! what happens to them. And the second person looks at every approval that the feed reports, and decides by what it says.
//! The feed is only a hint, as for every client: if it ends it is followed again from the beginning, everything read from it
//! is a set, and what the demo reports in the end is read from the records.

use super::data::{ASKED_MAX, Part, Row, confidential, part};
use super::progress::{Mark, Progress};
use super::stage::{Stage, WORKFLOW_NAME, call, passing};
use crate::exit::Failure;
use act::Clock as _;
use bytes::Bytes;
use client::{Client, ClientError};
use futures::{StreamExt as _, stream};
use http::Method;
use sandbox::{IncidentSeed, Webhook, WebhookEvent};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use store::SystemClock;
use tokio::sync::{Semaphore, mpsc};

/// Incidents in work at once: from their delivery until they come before a person or to an end. Beyond it, what would be
/// measured is how long the queue is and not how long an incident takes.
pub const IN_WORK: usize = 16;
/// Approvals looked at at once.
const DECISIONS: usize = 8;
/// Every so many incidents, one is delivered twice over.
const DUPLICATE_EVERY: usize = 10;
/// Which of them.
const DUPLICATE_AT: usize = 1;
/// How often one delivery is tried.
const DELIVERY_TRIES: u32 = 8;
/// How often the feed is followed anew.
const FEEDS_MAX: u32 = 50;
/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Most events waiting to be taken in; beyond, the feed waits.
const QUEUE: usize = 1024;
/// Most approvals waiting for the second person: each incident comes before a person at most once, so this queue is never
/// full and the feed never waits for a decision that waits for the feed.
const ASKS: usize = ASKED_MAX + 64;
/// How long an unattended demo may take.
pub const DEADLINE: Duration = Duration::from_secs(600);
/// Most runs named when the deadline has passed.
const OPEN_NAMED: usize = 10;
/// Field of an incident by which people mark it confidential, and what they write there.
const CONFIDENTIAL: (&str, &str) = ("subcategory", "confidential");

/// An incident of the play.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The ticket.
    pub row: Row,
    /// Its part.
    pub part: Part,
    /// Its id in ServiceNow.
    pub sys_id: String,
    /// Its number there.
    pub number: String,
}

/// What became of the deliveries and the waiting acts.
#[derive(Debug, Default)]
pub struct Played {
    /// The incidents in order.
    pub incidents: Vec<Incident>,
    /// Run to incident.
    pub runs: HashMap<String, usize>,
    /// When each incident's event was sent, milliseconds UTC.
    pub sent_at_ms: BTreeMap<usize, i64>,
    /// The group that the model named, for acts that came before a person: incident to id of the group.
    pub named: BTreeMap<usize, String>,
    /// Approvals left for whoever watches: incident to approval.
    pub left: BTreeMap<usize, String>,
    /// Deliveries made on purpose once more.
    pub repeated: usize,
}

/// What the two lines of work tell the one that follows.
enum News {
    Delivered { at: usize, run: String, sent_at_ms: i64, repeated: usize },
    Decided { at: usize, group: Option<String>, left: Option<String> },
    Fact(Value),
}

/// Puts the incidents on the instance.
fn seed(stage: &Stage, rows: &[Row], left: usize) -> Result<Vec<Incident>, Failure> {
    let mut incidents = Vec::new();
    let parts = rows.iter().enumerate().map(|(at, row)| (row.clone(), part(at, left)));
    let extra = (left > 0)
        .then(|| rows.first().map(|row| (confidential(&row.topic_group), Part::Confidential)))
        .flatten();
    for (row, part) in parts.chain(extra) {
        let (short_description, description) = row.texts();
        let level = |level: &str| {
            Map::from_iter([("impact".to_owned(), json!(level)), ("urgency".to_owned(), json!(level))])
        };
        let fields = match part {
            Part::Ordinary => Map::new(),
            Part::Urgent => level("1"),
            Part::Left => level("2"),
            Part::Confidential => Map::from_iter([(CONFIDENTIAL.0.to_owned(), json!(CONFIDENTIAL.1))]),
        };
        let seed = IncidentSeed { short_description, description, fields, ..IncidentSeed::default() };
        let there = stage.sandbox.incident_seed(&seed).map_err(|error| Failure::Other(error.to_string()))?;
        incidents.push(Incident { row, part, sys_id: there.sys_id, number: there.number });
    }
    Ok(incidents)
}

/// Plays. `left` incidents are left for whoever watches.
pub async fn play(stage: &Stage, rows: &[Row], left: usize, plain: bool) -> Result<Played, Failure> {
    let incidents = seed(stage, rows, left)?;
    let mut progress = Progress::new(incidents.len() as u64, plain);
    let (news, mut heard) = mpsc::channel(QUEUE);
    let (ask, asked) = mpsc::channel(ASKS);
    let by_id: HashMap<String, usize> =
        incidents.iter().enumerate().map(|(at, one)| (one.sys_id.clone(), at)).collect();
    let mut played = Played { incidents: incidents.clone(), ..Played::default() };
    let room = Semaphore::new(IN_WORK);
    let work = async {
        tokio::try_join!(
            deliver(stage, &incidents, &room, news.clone()),
            decide(&stage.approver.client, &incidents, &by_id, asked, news.clone()),
            follow(&stage.operator.client, news.clone()),
        )
    };
    let watch = watch(&mut played, &mut progress, &room, &mut heard, ask);
    let ended = tokio::select! {
        // The work ends only by failing: deciding and following go on until nobody listens.
        failed = work => failed.map(|_| ()),
        watched = tokio::time::timeout(DEADLINE, watch) => match watched {
            Ok(watched) => watched,
            Err(_) => Err(still_open(stage).await),
        },
    };
    progress.end();
    ended.map(|()| played)
}

/// Takes in the news until every incident has come to an end or is left for whoever watches.
async fn watch(
    played: &mut Played,
    progress: &mut Progress,
    room: &Semaphore,
    heard: &mut mpsc::Receiver<News>,
    ask: mpsc::Sender<String>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let mut rested = 0;
    while !over(played, &seen) {
        let Some(news) = heard.recv().await else {
            return Err(Failure::Other("the demo's own work ended early".into()));
        };
        match news {
            News::Delivered { at, run, sent_at_ms, repeated } => {
                played.repeated += repeated;
                played.sent_at_ms.insert(at, sent_at_ms);
                if let Some(other) = played.runs.insert(run, at)
                    && other != at
                {
                    return Err(Failure::Other("two incidents were taken for one".into()));
                }
                progress.set(Mark::Delivered, played.runs.len());
            }
            News::Decided { at, group, left } => {
                played.named.extend(group.map(|group| (at, group)));
                match left {
                    Some(approval) => {
                        played.left.insert(at, approval);
                    }
                    None => {
                        seen.decided.insert(at);
                    }
                }
            }
            News::Fact(fact) => {
                if let Some(approval) = seen.take(&fact, progress, &|run| name(played, run))
                    && ask.send(approval).await.is_err()
                {
                    return Err(Failure::Other("nobody decides any more".into()));
                }
                let rest = seen.resting.len();
                room.add_permits(rest - rested);
                rested = rest;
                progress.set(Mark::Classified, seen.classified.len());
                progress.set(Mark::Decided, seen.settled.len());
                progress.set(Mark::Written, seen.written.len());
                progress.set(Mark::Finished, seen.ended.len());
            }
        }
        progress.waiting(seen.asked.len().saturating_sub(seen.decided.len()));
    }
    Ok(())
}

/// What people call a run: the number of its incident.
fn name(played: &Played, run: &str) -> String {
    let number =
        played.runs.get(run).and_then(|at| played.incidents.get(*at)).map(|incident| incident.number.clone());
    number.unwrap_or_else(|| run.to_owned())
}

/// Whether every incident has come to an end or is left for whoever watches.
fn over(played: &Played, seen: &Seen) -> bool {
    let all = played.incidents.len();
    // Whoever watches may be quick: a run that was left and has ended since counts once. The sums come first, because they
    // are cheap and nearly always too small.
    played.runs.len() == all
        && seen.ended.len() + played.left.len() >= all
        && played.runs.iter().all(|(run, at)| seen.ended.contains(run) || played.left.contains_key(at))
}

/// What the feed has told. Everything is a set, so that it may be told twice.
#[derive(Default)]
struct Seen {
    facts: BTreeSet<String>,
    runs: BTreeSet<String>,
    classified: BTreeSet<String>,
    /// Came before a person, or to an end.
    resting: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// Decided by the second person.
    decided: BTreeSet<usize>,
    /// Decided by anybody: policy, or a person.
    settled: BTreeSet<String>,
    written: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl Seen {
    /// Takes a fact in. Returns an approval that has to be decided on.
    fn take(&mut self, fact: &Value, progress: &Progress, name: &dyn Fn(&str) -> String) -> Option<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, run, outcome) = (text(&fact["kind"]), text(&fact["stream"]), &fact["outcome"]);
        if !self.facts.insert(text(&fact["id"])) {
            return None;
        }
        // The probe of a provider's model is a run as well, and not one of the play.
        if kind == "flows.run.created" && outcome["workflow"] == WORKFLOW_NAME {
            self.runs.insert(run.clone());
        }
        if !self.runs.contains(&run) {
            return None;
        }
        let told = |what: &str| progress.line(&format!("{}: {what}", name(&run)));
        match (kind.as_str(), outcome["outcome"].as_str(), outcome["code"].as_str()) {
            ("flows.step.finished", ..) if outcome["kind"] == "model" => {
                self.classified.insert(run);
            }
            ("flows.tool.intended", ..) if outcome["action"] == "incident.update" => {
                self.settled.insert(run);
            }
            ("flows.step.waiting", ..) => {
                self.resting.insert(run);
                let approval = text(&outcome["approval"]);
                return self.asked.insert(approval.clone()).then_some(approval);
            }
            ("flows.tool.finished", Some("failed"), Some(code)) => {
                told(&format!("ServiceNow did not do it ({code}); it is tried again"))
            }
            ("flows.tool.finished", Some("unknown"), Some(code)) => {
                told(&format!(
                    "nobody knows whether the write took effect ({code}); it is looked for before anything else"
                ));
            }
            ("flows.tool.finished", Some("done"), _) if outcome["action"] == "incident.update" => {
                if outcome["fields"]
                    .as_array()
                    .is_some_and(|fields| fields.iter().any(|field| field == "reconciled"))
                {
                    told("the write was found in ServiceNow by its marker; nothing is sent twice");
                }
                self.written.insert(run);
            }
            ("flows.run.finished", Some("denied"), _) if outcome["error"] == "data.restricted" => {
                told("policy denies it: the incident is confidential");
                self.end(run);
            }
            ("flows.run.finished", ..) => self.end(run),
            ("flows.run.dead", _, code) => {
                told(&format!("it cannot go on ({}) and waits for an operator", code.unwrap_or("no code")));
                self.end(run);
            }
            _ => {}
        }
        None
    }

    fn end(&mut self, run: String) {
        self.resting.insert(run.clone());
        self.settled.insert(run.clone());
        self.ended.insert(run);
    }
}

/// Delivers every incident, some twice.
async fn deliver(
    stage: &Stage,
    incidents: &[Incident],
    room: &Semaphore,
    news: mpsc::Sender<News>,
) -> Result<(), Failure> {
    let each = incidents.iter().enumerate().map(|(at, incident)| {
        let news = news.clone();
        async move {
            // Given back by whoever sees the run come to a rest.
            room.acquire().await.map_err(|error| Failure::Other(error.to_string()))?.forget();
            let webhook = || {
                let made = stage.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created);
                made.map_err(|error| Failure::Other(error.to_string()))
            };
            let (first, again) = (webhook()?, webhook()?);
            let client = &stage.operator.client;
            let sent_at_ms = SystemClock.now_ms();
            let mut repeated = 0;
            let run = if at % DUPLICATE_EVERY == DUPLICATE_AT {
                // The same delivery twice at once, and the same event under another delivery's id.
                let (one, two, three) = tokio::try_join!(
                    send(client, &stage.hook, &first),
                    send(client, &stage.hook, &first),
                    send(client, &stage.hook, &again)
                )?;
                if one != two || two != three {
                    return Err(Failure::Other(format!(
                        "{} was delivered three times and became more than one run",
                        incident.number
                    )));
                }
                repeated = 2;
                one
            } else {
                send(client, &stage.hook, &first).await?
            };
            let delivered = News::Delivered { at, run, sent_at_ms, repeated };
            news.send(delivered).await.map_err(|_| Failure::Other("the demo ended while delivering".into()))
        }
    });
    let mut each = stream::iter(each).buffer_unordered(IN_WORK);
    while let Some(sent) = each.next().await {
        sent?;
    }
    Ok(())
}

/// One delivery, as ServiceNow makes it: again until it is taken.
pub async fn send(client: &Client, hook: &str, webhook: &Webhook) -> Result<String, Failure> {
    for attempt in 1.. {
        match client.deliver(hook, &webhook.headers, Bytes::from(webhook.body.clone())).await {
            Ok(reply) => match reply.body["run"].as_str() {
                Some(run) => return Ok(run.to_owned()),
                None => {
                    return Err(Failure::Other(format!(
                        "a delivery started nothing: {}",
                        reply.body["ignored"]
                    )));
                }
            },
            Err(error) if attempt < DELIVERY_TRIES && passing(&error) => {
                tokio::time::sleep(PAUSE * attempt).await
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ClientError::Reply.into())
}

/// Follows the tenant's facts from the beginning. Ends when nobody listens any more.
async fn follow(client: &Client, news: mpsc::Sender<News>) -> Result<(), Failure> {
    for _ in 0..FEEDS_MAX {
        if let Ok(mut events) = client.events(Some("flows."), Some(0)).await {
            while let Ok(Some(mut event)) = events.next().await {
                if news.send(News::Fact(event["data"].take())).await.is_err() {
                    return Ok(());
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::Other("the live feed ended again and again".into()))
}

/// The second person: looks at what waits and decides.
async fn decide(
    client: &Client,
    incidents: &[Incident],
    by_id: &HashMap<String, usize>,
    asked: mpsc::Receiver<String>,
    news: mpsc::Sender<News>,
) -> Result<(), Failure> {
    let waiting = stream::unfold(asked, async |mut asked: mpsc::Receiver<String>| {
        let approval = asked.recv().await?;
        Some((approval, asked))
    });
    let decisions = waiting.map(|approval| async move {
        let shown = call(client, Method::GET, &format!("/v1/approvals/{approval}"), None).await?.body;
        let params = &shown["args"]["params"];
        let at = params["sys_id"].as_str().and_then(|sys_id| by_id.get(sys_id)).copied();
        let (Some(at), Some(digest)) = (at, shown["preview_digest"].as_str()) else {
            return Err(Failure::Other(format!("{approval} is about no incident of the demo")));
        };
        let group = params["assignment_group"].as_str().map(str::to_owned);
        let part = incidents.get(at).map_or(Part::Ordinary, |incident| incident.part);
        let left = match part {
            Part::Left => Some(approval.clone()),
            Part::Urgent => {
                let reason = "an urgent incident goes to the duty manager, not to a queue";
                call(
                    client,
                    Method::POST,
                    &format!("/v1/approvals/{approval}/deny"),
                    Some(&json!({"reason": reason})),
                )
                .await?;
                None
            }
            Part::Ordinary | Part::Confidential => {
                let grant = json!({"preview_digest": digest});
                call(client, Method::POST, &format!("/v1/approvals/{approval}/grant"), Some(&grant)).await?;
                None
            }
        };
        Ok::<_, Failure>(News::Decided { at, group, left })
    });
    let mut decisions = std::pin::pin!(decisions.buffer_unordered(DECISIONS));
    while let Some(decided) = decisions.next().await {
        if news.send(decided?).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is still open when the time is over.
async fn still_open(stage: &Stage) -> Failure {
    let mut open = Vec::new();
    for state in ["running", "waiting"] {
        let query = [("state".to_owned(), state.to_owned())];
        let Ok(found) = stage.operator.client.call(Method::GET, "/v1/runs", &query, None, None).await else {
            continue;
        };
        for run in found.body["items"].as_array().into_iter().flatten() {
            let text = |name: &str| run[name].as_str().unwrap_or("-").to_owned();
            open.push(format!(
                "{} is {state} at {} (last trouble: {})",
                text("id"),
                text("step"),
                text("error")
            ));
        }
    }
    let more = open.len().saturating_sub(OPEN_NAMED);
    open.truncate(OPEN_NAMED);
    Failure::Other(format!(
        "not everything came to an end within {} s: {}{}; the log is in {}",
        DEADLINE.as_secs(),
        if open.is_empty() {
            "no run is open, but not every event was seen".to_owned()
        } else {
            open.join("; ")
        },
        if more > 0 { format!("; and {more} more") } else { String::new() },
        stage.folder.join("writ.log").display(),
    ))
}
