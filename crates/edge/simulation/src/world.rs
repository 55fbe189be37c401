//! The seed at work: who goes next, and what becomes of it.
//!
//! A history has two parts. In the *storm* everything is drawn: who runs, what fails, when the process dies, how time passes.
//! In the *calm* after it nothing fails any more and first come is first served, until nothing is left to do; time then passes
//! to whatever is due next. People outside are plain data: they send again what was not acknowledged, and never forget what
//! was.

use crate::judge;
use crate::outside::{MODEL, Manner, READ, WRITE};
use crate::stage::{Ground, HOOK_SECRET, House, Stage, person, tenant};
use crate::weather::Weather;
use act::Clock as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evidence::Sealed;
use flows::run::{RunDoc, Status};
use harness::{Done, Terms};
use hmac::{KeyInit as _, Mac as _};
use kernel::{Id, hex, sha256};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Document as _;
use testkit::Random;
use testkit::simulation::{Schedule, Ticket, Verdict};

/// Most steps of a storm.
const STORM_MAX: u32 = 900;
/// Most steps of a calm.
const CALM_MAX: u32 = 20_000;
/// Most jobs at once.
const JOBS_MAX: usize = 4;
/// Longer than a run's lease, so that whoever holds one and sleeps has lost it.
const LEASE_OVER_MS: i64 = 31_000;

/// The calls of the store that write.
const WRITES: [&str; 5] = ["commit", "jobs_claim", "job_renew", "checkpoint_put", "holds_expire"];

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comes {
    /// The model is sure: it goes through.
    Sure,
    /// A person is asked, and does this; `None`: nothing, until time is up.
    Asked(Option<bool>),
    /// The model is so unsure that it is left to people, and nothing is written.
    Doubtful,
}

/// An incident, and who tells of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// What kind of.
    pub comes: Comes,
    /// Of the ticket.
    pub sys_id: String,
    /// The delivery's own id.
    message: String,
    body: String,
    /// How often it was sent.
    sent: u32,
    /// The actor that carries it, if one does.
    carried_by: Option<u64>,
}

/// What somebody outside was told, and so must be true for ever.
#[derive(Debug, Default)]
pub struct Known {
    /// By case: the run.
    pub runs: BTreeMap<usize, String>,
    /// Approvals that somebody tried to decide.
    pub tried: BTreeSet<String>,
    /// Decisions that were acknowledged.
    pub decided: BTreeMap<String, bool>,
    /// Runs that are cancelled.
    pub cancelled: BTreeSet<String>,
    /// Runs that were read as ended: their outcome.
    pub ended: BTreeMap<String, Value>,
    /// Checkpoints that are kept: size and note.
    pub held: Vec<(u64, String)>,
    /// Bundles that were given out.
    pub bundles: BTreeSet<String>,
}

/// What a history came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// SHA-256 over every step and every fact, in hexadecimal.
    pub digest: String,
    /// Steps.
    pub steps: u32,
    /// Runs by how they ended.
    pub ends: BTreeMap<String, u32>,
    /// Answers of the store that were compared with the model.
    pub compared: u64,
    /// Times the process died.
    pub crashes: u32,
    /// Faults that were drawn.
    pub faults: u32,
}

/// One history.
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    /// Its seed.
    pub seed: u64,
    /// Whether each step is written to the standard error.
    pub aloud: bool,
}

/// One history in which exactly one call of the store fails.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Which, from 0.
    pub nth: u32,
    /// How: [`Verdict::Refuse`] or [`Verdict::Lose`].
    pub verdict: Verdict,
    /// Whether the process is started again right after it.
    pub restart: bool,
}

/// Says how to see a history again if it fails.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

impl Seeded {
    /// Lives through it, and judges it.
    ///
    /// # Panics
    /// If what must hold does not.
    pub async fn live(self, stage: &Stage) -> Told {
        let seed = self.seed;
        let _named = Named(format!(
            "the history of seed {seed} failed; see it again: make soak ARGS=\"--seed {seed}\""
        ));
        let mut random = Random::seeded(seed);
        let weather = Weather::of(seed, &mut random);
        let reads = random.chance(50);
        let mut world = World::new(stage, seed, random, weather, reads, self.aloud).await;
        for number in 1..=1 + world.random.below(3) {
            let comes = match world.random.below(8) {
                0..3 => Comes::Sure,
                3 | 4 => Comes::Asked(Some(true)),
                5 => Comes::Asked(Some(false)),
                6 => Comes::Asked(None),
                _ => Comes::Doubtful,
            };
            world.happens(number, comes);
        }
        world.storm().await;
        world.calm().await;
        world.judged().await
    }
}

/// A history without faults, before all others: what a process keeps of the workflow once it has read it is kept from then
/// on, so that the first history reads no more often than the others.
pub(crate) async fn warm(stage: &Stage) {
    let mut world = World::new(stage, u64::MAX, Random::seeded(0), Weather::default(), true, false).await;
    world.happens(1, Comes::Sure);
    world.calm().await;
    world.judged().await;
}

impl Sweep {
    /// Lives through it, and judges it. `None`: there are not so many calls.
    ///
    /// # Panics
    /// If what must hold does not.
    pub async fn live(self, stage: &Stage) -> Option<Told> {
        let _named = Named(format!("it fails with {self:?}"));
        let seed = 1_000_000 + u64::from(self.nth);
        let mut world = World::new(stage, seed, Random::seeded(seed), Weather::default(), true, false).await;
        (world.strike, world.swept) = (Some(self), true);
        for (number, comes) in
            [(1, Comes::Sure), (2, Comes::Asked(Some(true))), (3, Comes::Asked(Some(false)))]
        {
            world.happens(number, comes);
        }
        world.calm().await;
        let struck = world.strike.is_none();
        let told = world.judged().await;
        struck.then_some(told)
    }
}

/// A history under way.
pub struct World<'a> {
    stage: &'a Stage,
    ground: Ground,
    /// The process; there is always one but in the moment between two.
    house: Option<House>,
    hook: String,
    schedule: Schedule,
    random: Random,
    weather: Weather,
    /// What is to fail, if it is one thing.
    strike: Option<Sweep>,
    calls: u32,
    /// Whether one call fails at most.
    swept: bool,
    /// Whether holds were let go of in the calm.
    let_go: bool,
    /// The incidents.
    cases: Vec<Case>,
    known: Arc<Mutex<Known>>,
    /// Approvals that want a decision: whose case it is, and who carries the decision.
    asked: BTreeMap<String, (usize, Option<u64>)>,
    /// Runs that exist.
    created: Vec<String>,
    /// Leaves that were looked at.
    heard: u64,
    jobs: BTreeSet<u64>,
    /// What goes on besides: claims, checkpoints, holds, bundles, reads. One of each at a time.
    chores: BTreeMap<&'static str, u64>,
    aloud: bool,
    digest: [u8; 32],
    told: Told,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sign(id: &str, timestamp: i64, body: &str) -> Vec<(String, String)> {
    let key = BASE64.decode(HOOK_SECRET.trim_start_matches("whsec_")).expect("the secret is base64");
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).expect("any length will do");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

impl<'a> World<'a> {
    async fn new(
        stage: &'a Stage,
        seed: u64,
        random: Random,
        weather: Weather,
        reads: bool,
        aloud: bool,
    ) -> World<'a> {
        let schedule = Schedule::new();
        stage.outside.begin(schedule.gates());
        let ground = stage.ground(seed, schedule.gates(), reads);
        let house = stage.open(&ground);
        let hook = house.hook().await;
        let head = house.store.head(&tenant()).await.expect("storage works").expect("the tenant is there");
        World {
            stage,
            ground,
            house: Some(house),
            hook,
            schedule,
            random,
            weather,
            strike: None,
            calls: 0,
            swept: false,
            let_go: false,
            cases: Vec::new(),
            known: Arc::default(),
            asked: BTreeMap::new(),
            created: Vec::new(),
            heard: head.size,
            jobs: BTreeSet::new(),
            chores: BTreeMap::new(),
            aloud,
            digest: [0; 32],
            told: Told {
                digest: String::new(),
                steps: 0,
                ends: BTreeMap::new(),
                compared: 0,
                crashes: 0,
                faults: 0,
            },
        }
    }

    fn house(&self) -> &House {
        // Taken only in `crash`, which puts another in its place.
        self.house.as_ref().expect("the process lives")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    /// Something happened: a line of the history.
    fn line(&mut self, text: &str) {
        if self.aloud {
            eprintln!("{:>5} {:>9} ms  {text}", self.told.steps, self.ground.clock.now_ms() % 1_000_000_000);
        }
        let mut bytes = self.digest.to_vec();
        bytes.extend_from_slice(text.as_bytes());
        self.digest = sha256(&bytes);
    }

    /// An incident happens; its sender has a delivery to make.
    fn happens(&mut self, number: usize, comes: Comes) {
        let confidence = match comes {
            Comes::Sure => 900,
            Comes::Asked(_) => 600,
            Comes::Doubtful => 100,
        };
        let sys_id = self.stage.outside.seen().incident(number, confidence);
        let body = json!({"event": "incident.created", "sys_id": sys_id, "number": format!("INC{number:07}"),
                          "sys_mod_count": "0", "sys_updated_by": "service.desk"});
        self.line(&format!("incident {number}: {comes:?}"));
        self.cases.push(Case {
            comes,
            sys_id,
            message: format!("msg_{number}"),
            body: body.to_string(),
            sent: 0,
            carried_by: None,
        });
    }

    /// Everything is drawn.
    async fn storm(&mut self) {
        for _ in 0..STORM_MAX {
            self.told.steps += 1;
            let tickets = self.schedule.waiting();
            let drawn = self.random.below(1_000);
            if drawn < self.weather.sleeps {
                self.told.faults += 1;
                self.passes(LEASE_OVER_MS);
                continue;
            }
            if drawn < 30 {
                let by_ms = 1 + self.random.below(2_000) as i64;
                self.passes(by_ms);
                continue;
            }
            if drawn < 34 && self.weather.crashes > 0 {
                self.weather.crashes -= 1;
                self.crash().await;
                continue;
            }
            let begins = match drawn {
                0..150 => self.people(true).await,
                150..200 => self.chore().await,
                200..400 => self.work().await,
                _ => false,
            };
            if begins {
                continue;
            }
            if !tickets.is_empty() {
                let at = self.random.below(tickets.len());
                self.open(tickets[at]).await;
            } else if !self.work().await && !self.people(false).await && !self.wait().await {
                return;
            }
        }
    }

    /// Nothing fails any more, and everything ends.
    async fn calm(&mut self) {
        self.weather = Weather::default();
        self.line("calm");
        for _ in 0..CALM_MAX {
            self.told.steps += 1;
            match self.schedule.waiting().first().copied() {
                Some(ticket) => self.open(ticket).await,
                None if self.work().await || self.people(false).await => {}
                None if self.wait().await => {}
                None => {
                    // The last ones: the log is signed, and evidence is given out.
                    if self.chores_left().await {
                        continue;
                    }
                    assert_eq!(self.schedule.actors(), 0, "somebody is on the way and at no gate");
                    return;
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn passes(&mut self, by_ms: i64) {
        self.ground.clock.advance_ms(by_ms);
        self.line(&format!("time passes: {by_ms} ms"));
    }

    /// What becomes of whoever waits here.
    fn verdict(&mut self, ticket: &Ticket) -> Verdict {
        let outside = [READ, WRITE, MODEL].contains(&ticket.place.what);
        // Of a read there is nothing to lose: it is refused, or answered.
        let may = |strike: &Sweep| strike.verdict == Verdict::Refuse || WRITES.contains(&ticket.place.what);
        if let Some(strike) = self.strike.filter(|strike| !outside && !ticket.place.happened && may(strike)) {
            self.calls += 1;
            if self.calls > strike.nth {
                self.strike = None;
                self.told.faults += 1;
                return strike.verdict;
            }
        }
        let weather = self.weather;
        let (refuse, lose) = match (outside, ticket.place.happened) {
            (true, false) => (weather.turn_away * 10, 0),
            (true, true) => (0, weather.unheard * 10),
            (false, false) => (weather.refuse, weather.lose),
            (false, true) => (0, 0),
        };
        let drawn = if refuse + lose == 0 { 1_000 } else { self.random.below(1_000) };
        if drawn >= refuse + lose {
            return Verdict::Go;
        }
        self.told.faults += 1;
        let manners = [Manner::HangUp, Manner::Gateway, Manner::Other];
        self.stage.outside.seen().manner = *self.random.pick(&manners);
        if drawn < refuse { Verdict::Refuse } else { Verdict::Lose }
    }

    async fn open(&mut self, ticket: Ticket) {
        let strikes = self.strike;
        let verdict = self.verdict(&ticket);
        let place = ticket.place;
        let after = if place.happened { "after " } else { "" };
        self.line(&format!("actor {}: {after}{} {verdict:?}", ticket.actor, place.what));
        self.schedule.open(&ticket, verdict).await;
        if place.what == "commit" {
            self.hear().await;
        }
        if let (Some(strike), None) = (strikes, self.strike)
            && strike.restart
        {
            self.crash().await;
        }
    }

    /// Looks at the facts that are new.
    async fn hear(&mut self) {
        let leaves = self.house().store.leaves(&tenant(), self.heard, 1_000).await.expect("storage works");
        for leaf in leaves {
            self.heard = leaf.index + 1;
            let fact: Value = serde_json::from_slice(&leaf.leaf).expect("a leaf is JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, stream) = (text(&fact["kind"]), text(&fact["stream"]));
            let outcome = &fact["outcome"];
            self.line(&format!("  {kind} {stream} {} {}", outcome["outcome"], outcome["code"]));
            match kind.as_str() {
                "flows.run.created" => self.created.push(stream),
                "flows.step.waiting" => self.asks(text(&outcome["approval"])).await,
                _ => {}
            }
        }
    }

    /// A run waits for people.
    async fn asks(&mut self, approval: String) {
        let shown = self.approval(&approval).await;
        let about = shown["args"]["params"]["sys_id"].as_str().expect("it is about an incident").to_owned();
        let case = self.cases.iter().position(|case| case.sys_id == about).expect("an incident of ours");
        self.asked.entry(approval).or_insert((case, None));
    }

    async fn approval(&self, approval: &str) -> Value {
        let id = Id::parse(approval).expect("the id of an approval");
        let row = self.house().store.record(&tenant(), governor::approval::Approval::KIND, &id).await;
        let row = row.expect("storage works").expect("an approval that was asked for is there");
        let mut body: Value = serde_json::from_slice(&row.body).expect("a document");
        body["doc"].take()
    }

    /// The process dies and is started again.
    async fn crash(&mut self) {
        self.told.crashes += 1;
        let killed = self.schedule.kill();
        self.stage.outside.hang_up();
        self.jobs.clear();
        self.chores.clear();
        drop(self.house.take());
        self.house = Some(self.stage.open(&self.ground));
        self.line(&format!("the process dies with {killed} on the way"));
        // A commit that nobody heard of is in the log all the same.
        self.hear().await;
    }

    /// A job begins, or due ones are claimed.
    async fn work(&mut self) -> bool {
        let schedule = &self.schedule;
        self.jobs.retain(|job| schedule.is_on_its_way(*job));
        if self.jobs.len() >= JOBS_MAX {
            return false;
        }
        let lease = locked(&self.house().handed).pop_front();
        if let Some(lease) = lease {
            self.line(&format!("job {} {}, epoch {}", lease.kind.name, lease.id, lease.epoch));
            let run = self.house().job(&lease);
            let actor = self.schedule.start(run(lease)).await;
            self.jobs.insert(actor);
            return true;
        }
        let due_ms = self.house().store.jobs_next_due_ms().await.expect("storage works");
        if self.chore_runs("claim") || due_ms.is_none_or(|due_ms| due_ms > self.ground.clock.now_ms()) {
            return false;
        }
        let (harness, handed, kinds) =
            (self.house().harness.clone(), self.house().handed.clone(), self.house().kinds);
        self.start_chore("claim", async move {
            // Who cannot claim looks again.
            if let Ok(leases) = harness.store().jobs_claim(kinds, 2).await {
                locked(&handed).extend(leases);
            }
        })
        .await;
        true
    }

    fn chore_runs(&self, what: &str) -> bool {
        self.chores.get(what).is_some_and(|actor| self.schedule.is_on_its_way(*actor))
    }

    async fn start_chore(&mut self, what: &'static str, chore: impl Future<Output = ()> + Send + 'static) {
        self.line(what);
        let actor = self.schedule.start(chore).await;
        self.chores.insert(what, actor);
    }

    /// Somebody outside does something; `more`: also what need not be done.
    async fn people(&mut self, more: bool) -> bool {
        let mut may = self.may(more);
        if more && self.weather.cancels && !self.created.is_empty() && !self.chore_runs("cancel") {
            may.push(("cancel", self.random.below(self.created.len())));
        }
        if may.is_empty() {
            return false;
        }
        let (what, at) = may[if more { self.random.below(may.len()) } else { 0 }];
        match what {
            "deliver" => self.deliver(at).await,
            "decide" => self.decide(at).await,
            _ => self.cancel(at).await,
        }
        true
    }

    /// What people may do: bring a delivery, or a decision.
    fn may(&self, more: bool) -> Vec<(&'static str, usize)> {
        let mut may = Vec::new();
        let known = locked(&self.known);
        for (at, case) in self.cases.iter().enumerate() {
            let carried = case.carried_by.is_some_and(|actor| self.schedule.is_on_its_way(actor));
            let acknowledged = known.runs.contains_key(&at);
            // A sender that never heard sends again; sometimes one sends again that did.
            if (!carried && !acknowledged) || (more && case.sent < 3) {
                may.push(("deliver", at));
            }
        }
        for (at, (approval, (case, carried_by))) in self.asked.iter().enumerate() {
            let carried = carried_by.is_some_and(|actor| self.schedule.is_on_its_way(actor));
            let wanted = matches!(self.cases[*case].comes, Comes::Asked(Some(_)));
            if wanted && !carried && !known.decided.contains_key(approval) {
                may.push(("decide", at));
            }
        }
        may
    }

    async fn deliver(&mut self, at: usize) {
        let now_s = self.ground.clock.now_ms() / 1_000;
        self.cases[at].sent += 1;
        let case = self.cases[at].clone();
        self.line(&format!("delivery {}", case.message));
        let house = self.house();
        let receiving =
            house.receive(self.hook.clone(), sign(&case.message, now_s, &case.body), case.body.clone());
        let (harness, handed, known) = (house.harness.clone(), house.handed.clone(), self.known.clone());
        let delivery = async move {
            let Ok(delivery) = receiving.await else { return };
            let done = harness.act(&delivery.ctx, delivery.act, delivery.args, Terms::default()).await;
            let Ok(Done::Outcome { value, held, .. }) = done else { return };
            locked(&handed).extend(held);
            let run = value["run"].as_str().expect("a delivery is answered with a run").to_owned();
            let before = locked(&known).runs.insert(at, run.clone());
            assert!(before.is_none_or(|before| before == run), "one delivery, two runs");
        };
        let actor = self.schedule.start(delivery).await;
        self.cases[at].carried_by = Some(actor);
    }

    async fn decide(&mut self, at: usize) {
        let (approval, (case, _)) = self.asked.iter().nth(at).expect("it was just counted");
        let (approval, case) = (approval.clone(), *case);
        let grant = self.cases[case].comes == Comes::Asked(Some(true));
        let shown = self.approval(&approval).await;
        let ctx = person(&self.ground.clock, "bob", &["approver", "tenant_admin"]);
        let (act, args) = match grant {
            true => (
                "governor.approval.grant",
                json!({"approval": approval, "preview_digest": shown["preview_digest"]}),
            ),
            false => ("governor.approval.deny", json!({"approval": approval, "reason": "no"})),
        };
        self.line(&format!("{act} {approval}"));
        let (harness, handed) = (self.house().harness.clone(), self.house().handed.clone());
        let (known, of) = (self.known.clone(), approval.clone());
        let actor = self
            .schedule
            .start(async move {
                let before = !locked(&known).tried.insert(of.clone());
                match harness.act(&ctx, act, args, Terms::default()).await {
                    Ok(Done::Outcome { held, .. }) => {
                        locked(&handed).extend(held);
                        locked(&known).decided.insert(of, grant);
                    }
                    Ok(Done::Waiting { .. }) => panic!("a decision waits"),
                    // It was taken before, and its acknowledgement was lost; or time was up.
                    Err(fault) if fault.code.starts_with("approval.") => {
                        assert!(before || fault.code != "approval.decided", "{of}: {fault}");
                        locked(&known).decided.entry(of).or_insert(grant);
                    }
                    Err(_) => {}
                }
            })
            .await;
        if let Some((_, carried_by)) = self.asked.get_mut(&approval) {
            *carried_by = Some(actor);
        }
    }

    async fn cancel(&mut self, at: usize) {
        let run = self.created[at].clone();
        let ctx = person(&self.ground.clock, "ann", &["operator"]);
        let (harness, known) = (self.house().harness.clone(), self.known.clone());
        self.line(&format!("cancel {run}"));
        self.start_chore("cancel", async move {
            let args = json!({"run": run});
            if let Ok(Done::Outcome { .. }) =
                harness.act(&ctx, "flows.run.cancel", args, Terms::default()).await
            {
                locked(&known).cancelled.insert(run);
            }
        })
        .await;
    }

    /// Something that the house does by itself, or that somebody looks at.
    async fn chore(&mut self) -> bool {
        let what = *self.random.pick(&["seal", "holds", "read", "export"]);
        !self.chore_runs(what) && self.chore_of(what).await
    }

    async fn chore_of(&mut self, what: &'static str) -> bool {
        let (harness, known) = (self.house().harness.clone(), self.known.clone());
        let runs: Vec<String> = self.known().runs.values().cloned().collect();
        let at = if runs.is_empty() { 0 } else { self.random.below(runs.len()) };
        let run = runs.into_iter().nth(at);
        match what {
            "seal" => {
                let evidence = self.house().evidence.clone();
                self.start_chore(what, async move {
                    match evidence.seal(harness.store(), &tenant()).await {
                        Ok(Sealed::New(row) | Sealed::Unchanged(row)) => {
                            locked(&known).held.push((row.size, row.note));
                        }
                        Ok(Sealed::Nothing) => {}
                        Err(
                            error @ (evidence::SealError::Regressed { .. }
                            | evidence::SealError::Rewritten { .. }
                            | evidence::SealError::Foreign { .. }),
                        ) => panic!("{error}"),
                        Err(_) => {}
                    }
                })
                .await;
            }
            "holds" => {
                self.start_chore(what, async move {
                    // Who cannot looks again.
                    let _ = harness.store().holds_expire(100).await;
                })
                .await;
            }
            "export" => {
                let Some(run) = run else { return false };
                let mut ctx = person(&self.ground.clock, "joe", &["operator", "auditor", "tenant_admin"]);
                ctx.idempotency_key = Some(format!("evidence of {run}"));
                self.start_chore(what, async move {
                    let args = json!({"run": run});
                    let done = harness.act(&ctx, "evidence.bundle.export", args, Terms::default()).await;
                    if let Ok(Done::Outcome { value, .. }) = done {
                        let bundle = value["bundle"].as_str().expect("a bundle").to_owned();
                        locked(&known).bundles.insert(bundle);
                    }
                })
                .await;
            }
            _ => {
                let Some(run) = run else { return false };
                self.start_chore(what, async move {
                    let id = Id::parse(&run).expect("the id of a run");
                    let Ok(row) = harness.store().record(&tenant(), RunDoc::KIND, &id).await else { return };
                    let run = store::decode::<RunDoc>(&row.expect("an acknowledged run is there"));
                    let run = run.expect("a run can be read");
                    let mut known = locked(&known);
                    let outcome = json!(run.outcome);
                    if let Some(before) = known.ended.get(id.as_str()) {
                        assert_eq!(*before, outcome, "{id} had ended, and reads otherwise");
                    } else if run.status == Status::Finished {
                        known.ended.insert(id.to_string(), outcome);
                    }
                })
                .await;
            }
        }
        true
    }

    /// Signs the log and takes evidence of every run, once, at the end.
    async fn chores_left(&mut self) -> bool {
        let size = self.heard;
        let signed = self.known().held.iter().any(|(held, _)| *held == size);
        let taken = self.known().bundles.len() >= self.cases.len().min(1);
        if !taken {
            return self.chore_of("export").await;
        }
        if !self.let_go {
            self.let_go = true;
            return self.chore_of("holds").await;
        }
        !signed && self.chore_of("seal").await
    }

    /// Time passes to whatever is due next.
    async fn wait(&mut self) -> bool {
        let Some(due_ms) = self.house().store.jobs_next_due_ms().await.expect("storage works") else {
            return false;
        };
        let by_ms = due_ms - self.ground.clock.now_ms();
        // What is due already is somebody's whose turn will come.
        self.passes(by_ms.max(1));
        true
    }

    async fn judged(mut self) -> Told {
        // Whatever was held and never settled runs out.
        self.ground.clock.advance_ms(2 * 3_600_000);
        let store = self.house().store.clone();
        while store.holds_expire(1_000).await.expect("storage works") > 0 {}
        let known = std::mem::take(&mut *self.known());
        let fair = self.told.faults == 0 && self.told.crashes == 0;
        let strict = fair || self.swept;
        let served = self.stage.outside.seen().answered;
        let notes: Vec<usize> = {
            let seen = self.stage.outside.seen();
            self.cases.iter().map(|case| seen.notes_of(&case.sys_id)).collect()
        };
        let end = judge::End {
            store: &store,
            cases: &self.cases,
            notes: &notes,
            known: &known,
            served,
            fair,
            strict,
        };
        self.told.ends = end.judge().await;
        self.told.compared = locked(&self.ground.mirror).compared();
        self.told.digest = hex::encode(&self.digest);
        self.told.clone()
    }
}
