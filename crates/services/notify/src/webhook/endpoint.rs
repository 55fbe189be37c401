//! The endpoint: where a tenant's events go, which of them, and how far they have come.
//!
//! The secret is the caller's: 24 to 64 random bytes that `writ webhook create` makes and shows once. It lies here sealed by
//! custody, bound to this record, and is opened for the moment in which a delivery is signed. The address may hold a secret
//! as well (many receivers put one into the path), so facts state its origin and a digest, never the whole.
//!
//! How many endpoints a tenant has is a rule over a list; [`Set`] is the record that every writer of the list bumps.

use super::letter::Letter;
use super::signature::key;
use crate::Deps;
use act::{Draw as _, Fault, Plan, PlanFn, QueryCtx, Route, Stamp, Target, Verb, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::{Custody, Place, Secret};
use futures::FutureExt as _;
use kernel::changeset::Operation;
use kernel::{Id, TenantId, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range, Stored, View};
use zeroize::Zeroizing;

/// Most endpoints of a tenant.
pub const ENDPOINTS_MAX: u32 = 20;
/// Most rows of a filter.
pub const KINDS_MAX: usize = 20;
/// Longest row of a filter, and longest note, in bytes.
const TEXT_BYTES_MAX: usize = 80;
/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 1024;
/// How long the secret before signs as well, unless somebody says otherwise, milliseconds.
pub const OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;
/// The longest that may be.
pub const OVERLAP_MS_MAX: i64 = 7 * OVERLAP_MS;
/// Most secrets at once: the newest and the one before it.
const SECRETS_MAX: usize = 2;

/// Whether events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They are.
    Active,
    /// Somebody has paused it.
    Paused,
    /// It was disabled because of what its target did; `why` says what.
    Disabled,
}

impl State {
    /// The spelling in indexes.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Paused => "paused",
            State::Disabled => "disabled",
        }
    }
}

/// A signing secret at rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// Part of what is authenticated, from 1.
    pub version: u64,
    /// The sealed value, base64.
    pub sealed: String,
    /// The key-encryption key it was sealed under.
    pub key_id: String,
    /// Until when it signs; `None`: it is the newest.
    pub until_ms: Option<i64>,
}

/// What an endpoint that fails is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when nothing was taken, milliseconds UTC.
    pub since_ms: i64,
    /// Failed attempts of the event at the cursor.
    pub attempts: u32,
    /// When it is tried again.
    pub next_at_ms: i64,
    /// Code of the last failure.
    pub code: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `whk_…`
    pub id: Id,
    /// Where events are sent.
    pub target: String,
    /// Which: exact kinds, or everything below a prefix (`flows.*`). Empty: all.
    pub kinds: Vec<String>,
    /// What it is for, in the words of whoever made it.
    pub note: String,
    /// Whether events are sent.
    pub state: State,
    /// Code of the reason why it was disabled.
    pub why: Option<String>,
    /// The secrets, newest first.
    pub secrets: Vec<Sealed>,
    /// Index of the next leaf to look at.
    pub cursor: u64,
    /// Events sent so far.
    pub sent: u64,
    /// Dead letters there are.
    pub letters: u32,
    /// Set while it fails.
    pub failing: Option<Failing>,
    /// When something was last taken, milliseconds UTC; written down with the cursor.
    pub taken_at_ms: Option<i64>,
    /// When it was made.
    pub created_at_ms: i64,
    /// By whom.
    pub created_by: Id,
}

impl Document for Endpoint {
    const KIND: &'static str = "notify.webhook";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("state", Key::new().text(self.state.as_str()).integer(self.created_at_ms).bytes())]
    }
}

impl Endpoint {
    /// Whether an event is for this endpoint: of a kind that it wants, or its own test, whatever it wants.
    pub fn wants(&self, fact: &Value) -> bool {
        let kind = crate::event::kind(fact);
        if kind == TESTED {
            // Only its own: a test of one is no news to another.
            return fact["stream"] == self.id.as_str();
        }
        self.kinds.is_empty() || self.kinds.iter().any(|row| kept(row, kind))
    }

    /// Scheme, host and port of the address.
    pub fn origin(&self) -> String {
        egress::Target::parse(&self.target).map(|target| target.origin()).unwrap_or_default()
    }

    /// The keys that sign at `now_ms`, newest first; an error's code if they cannot be had.
    pub fn keys(
        &self,
        custody: &Custody,
        tenant: &TenantId,
        now_ms: i64,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, &'static str> {
        let valid =
            self.secrets.iter().filter(|sealed| sealed.until_ms.is_none_or(|until_ms| now_ms < until_ms));
        let keys: Option<Vec<_>> = valid
            .map(|sealed| {
                let place = Place { tenant, record: &self.id, version: sealed.version };
                let bytes = BASE64.decode(&sealed.sealed).ok()?;
                key(&custody.unseal(place, &sealed.key_id, &bytes).ok()?)
            })
            .collect();
        keys.filter(|keys| !keys.is_empty()).ok_or("custody.secret_damaged")
    }
}

/// Whether a row of a filter keeps a kind.
fn kept(row: &str, kind: &str) -> bool {
    match row.strip_suffix('*') {
        // The dot stays: `flows.*` is not `flowsome.thing`.
        Some(prefix) => kind.starts_with(prefix),
        None => row == kind,
    }
}

/// The fact of a test; it goes to its own endpoint alone.
pub const TESTED: &str = "notify.webhook.tested";

/// The guard of the list of endpoints, and their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Set {
    /// `whs_all`
    pub id: Id,
    /// How many there are.
    pub endpoints: u32,
}

impl Document for Set {
    const KIND: &'static str = "notify.webhook_set";
    fn id(&self) -> &Id {
        &self.id
    }
}

fn set_id() -> Id {
    // A constant of the code, within the grammar.
    Id::parse("whs_all").unwrap_or_else(|_| TenantId::platform().id().clone())
}

/// Arguments of `notify.webhook.create`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateArgs {
    /// Where events are sent: `https://host/path`.
    pub target: String,
    /// What they are signed with: `whsec_` and base64 of 24 to 64 random bytes. It is sealed at once and never returned.
    #[serde(deserialize_with = "secret_read")]
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub secret: Secret,
    /// Which facts: exact kinds, or everything below a prefix, such as `flows.*`. All, if absent.
    pub kinds: Option<Vec<String>>,
    /// What it is for.
    pub note: Option<String>,
    /// Begin after this index of the log; by default, now.
    pub after: Option<u64>,
}

/// Arguments of acts on one endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneArgs {
    /// The webhook.
    pub webhook: String,
}

/// Where an endpoint goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// With everything that happened meanwhile.
    Cursor,
    /// With what happens from now on.
    Now,
}

/// Arguments of `notify.webhook.resume`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeArgs {
    /// The webhook.
    pub webhook: String,
    /// `cursor`: with everything that happened meanwhile (the default); `now`: with what happens from now on.
    pub from: Option<From>,
}

/// Arguments of `notify.webhook.rotate`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateArgs {
    /// The webhook.
    pub webhook: String,
    /// The new secret: `whsec_` and base64 of 24 to 64 random bytes.
    #[serde(deserialize_with = "secret_read")]
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub secret: Secret,
    /// How long the old one signs as well, milliseconds: 0 to seven days, one day if absent.
    pub overlap_ms: Option<i64>,
}

/// Reads a secret. Anything but a text is refused in words of our own: the deserialiser's error would quote it.
fn secret_read<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(Secret::new(text.into_bytes())),
        _ => Err(serde::de::Error::custom("secret is a text")),
    }
}

fn invalid(message: &str) -> Fault {
    Fault::invalid("webhook.invalid", message)
}

pub(super) fn state(message: &str) -> Fault {
    Fault::conflict("webhook.state", message)
}

fn checked_secret(secret: &Secret) -> Result<(), Fault> {
    let message = "a secret is whsec_ and base64 of 24 to 64 random bytes";
    key(secret).map(|_| ()).ok_or_else(|| invalid(message))
}

/// The address, if events may be sent there: https, or a private destination that the operator allows.
pub(super) fn checked_url(private_hosts: &[String], url: &str) -> Result<String, Fault> {
    let wrong =
        || invalid("an address is https://host/path, without user name or fragment, of at most 1024 bytes");
    let target = egress::Target::parse(url).map_err(|_| wrong())?;
    let secure = target.scheme() == egress::Scheme::Https
        || crate::private(private_hosts, &target.host().to_string(), target.port());
    if !secure || url.len() > URL_BYTES_MAX { Err(wrong()) } else { Ok(target.origin()) }
}

/// The rows of a filter, if each is a kind of fact that there is, or leads to some. A row that nothing fits is most
/// likely misspelt, and whoever wrote it would wait for ever.
fn checked_kinds(kinds: Vec<String>, known: &[&str]) -> Result<Vec<String>, Fault> {
    let good = |row: &String| {
        let name = row.strip_suffix(".*").unwrap_or(row);
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        row.len() <= TEXT_BYTES_MAX && name.split('.').all(word)
    };
    if kinds.len() > KINDS_MAX || !kinds.iter().all(good) {
        return Err(invalid("kinds are at most 20 rows such as flows.run.finished or flows.*"));
    }
    if kinds.iter().any(|row| !known.iter().any(|kind| kept(row, kind))) {
        return Err(invalid("one of the kinds is no kind of fact and leads to none"));
    }
    Ok(kinds)
}

/// Reads the endpoint that an argument names.
pub(super) async fn read(view: &View, text: &str) -> Result<Stored<Endpoint>, Fault> {
    let missing = || Fault::not_found("webhook");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<Endpoint>(&id).await?.ok_or_else(missing)
}

async fn head_size(view: &View) -> Result<u64, Fault> {
    Ok(view.store().head(view.tenant()).await?.map_or(0, |head| head.size))
}

fn sealed(custody: &Custody, stamp: &Stamp, id: &Id, version: u64, secret: &Secret) -> Sealed {
    let place = Place { tenant: &stamp.ctx.tenant, record: id, version };
    let (key_id, bytes) = custody.seal(place, secret, stamp.ids.entropy());
    Sealed { version, sealed: BASE64.encode(bytes), key_id, until_ms: None }
}

/// An act on one endpoint that takes no more to be judged than which it is.
pub(super) fn on_endpoint(
    act: &'static str,
    summary: &'static str,
    args: fn() -> Value,
    facts: &'static [&'static str],
    plan: PlanFn,
) -> Verb {
    Verb {
        act,
        summary,
        args,
        writes: &["notify.webhook"],
        facts,
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(move |view, args, _| {
            async move {
                let stored = read(view, args["webhook"].as_str().unwrap_or_default()).await?;
                let mut target = Target::of(Endpoint::KIND, &stored.id);
                target.attributes = json!({"origin": stored.origin(), "state": stored.state});
                target.preview = vec![(summary.to_owned(), stored.origin())];
                Ok(target)
            }
            .boxed()
        }),
        plan,
    }
}

/// Writes a changed endpoint with its fact.
fn changed(
    stamp: &Stamp,
    stored: &Stored<Endpoint>,
    doc: &Endpoint,
    fact: &'static str,
    outcome: Value,
) -> Plan {
    let mut plan = Plan { draft: stamp.draft(), outcome: shown(doc) };
    plan.draft.put_if(stored, doc).fact(stamp.fact(fact, &doc.id, (Endpoint::KIND, &doc.id), outcome));
    plan
}

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    vec![create(deps), pause(), resume(), rotate(deps), test(), delete()]
}

fn create(deps: &Deps) -> Verb {
    // Not all of it: the harness keeps the verbs, and verbs that kept the harness would keep it for ever.
    let (aiming, planning) = (deps.private_hosts.clone(), deps.private_hosts.clone());
    let (custody, facts) = (deps.custody.clone(), deps.facts.clone());
    Verb {
        act: "notify.webhook.create",
        summary: "Sends the tenant's facts to an address from now on",
        args: || schemars::schema_for!(CreateArgs).into(),
        writes: &["notify.webhook", "notify.webhook_set"],
        facts: &["notify.webhook.created"],
        secret_args: &["secret"],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(move |view, args, _| {
            let private_hosts = aiming.clone();
            async move {
                let args: CreateArgs = parse(args)?;
                let origin = checked_url(&private_hosts, &args.target)?;
                let mut target = Target::of("access.tenant", view.tenant().id());
                target.attributes =
                    json!({"origin": origin, "kinds": args.kinds.clone().unwrap_or_default()});
                let kinds = args.kinds.filter(|kinds| !kinds.is_empty());
                target.preview = vec![
                    ("Send events to".into(), origin),
                    ("Kinds".into(), kinds.map_or_else(|| "all".to_owned(), |kinds| kinds.join(", "))),
                ];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(move |view, args, stamp| {
            let (private_hosts, custody, facts) = (planning.clone(), custody.clone(), facts.clone());
            async move {
                let args: CreateArgs = parse(args)?;
                let origin = checked_url(&private_hosts, &args.target)?;
                checked_secret(&args.secret)?;
                let known = facts.get().map_or(&[][..], Vec::as_slice);
                let kinds = checked_kinds(args.kinds.unwrap_or_default(), known)?;
                let note = args.note.unwrap_or_default();
                if note.len() > TEXT_BYTES_MAX || note.chars().any(char::is_control) {
                    return Err(invalid("a note is one line of at most 80 bytes"));
                }
                let size = head_size(view).await?;
                let cursor = match args.after {
                    None => size,
                    Some(after) if after < size => after + 1,
                    Some(_) => return Err(invalid("after is the index of a fact that is there")),
                };
                let set = view.get::<Set>(&set_id()).await?;
                let endpoints = set.as_ref().map_or(0, |set| set.endpoints);
                if endpoints >= ENDPOINTS_MAX {
                    let message = format!("a tenant has at most {ENDPOINTS_MAX} webhooks");
                    return Err(Fault::conflict("webhook.limit", message));
                }
                let id = stamp.id("whk");
                let doc = Endpoint {
                    secrets: vec![sealed(&custody, stamp, &id, 1, &args.secret)],
                    id,
                    target: args.target,
                    kinds,
                    note,
                    state: State::Active,
                    why: None,
                    cursor,
                    sent: 0,
                    letters: 0,
                    failing: None,
                    taken_at_ms: None,
                    created_at_ms: stamp.at_ms,
                    created_by: stamp.ctx.principal.id.clone(),
                };
                let more = Set { id: set_id(), endpoints: endpoints + 1 };
                let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                match &set {
                    Some(set) => plan.draft.put_if(set, &more),
                    None => plan.draft.put_new(&more),
                };
                plan.draft.put_new(&doc).fact(stamp.fact(
                    "notify.webhook.created",
                    &doc.id,
                    (Endpoint::KIND, &doc.id),
                    json!({
                        "origin": origin, "target_sha256": hex::encode(&sha256(doc.target.as_bytes())),
                        "kinds": doc.kinds, "cursor": doc.cursor,
                    }),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

fn pause() -> Verb {
    on_endpoint(
        "notify.webhook.pause",
        "Pauses a webhook; its place is kept",
        || schemars::schema_for!(OneArgs).into(),
        &["notify.webhook.paused"],
        Arc::new(|view, args, stamp| {
            async move {
                let args: OneArgs = parse(args)?;
                let stored = read(view, &args.webhook).await?;
                if stored.state != State::Active {
                    return Err(state("only a webhook that is active is paused"));
                }
                let doc = Endpoint { state: State::Paused, ..stored.doc.clone() };
                Ok(changed(stamp, &stored, &doc, "notify.webhook.paused", json!({"cursor": doc.cursor})))
            }
            .boxed()
        }),
    )
}

fn resume() -> Verb {
    on_endpoint(
        "notify.webhook.resume",
        "Sends to a webhook again that was paused or disabled",
        || schemars::schema_for!(ResumeArgs).into(),
        &["notify.webhook.resumed"],
        Arc::new(|view, args, stamp| {
            async move {
                let args: ResumeArgs = parse(args)?;
                let stored = read(view, &args.webhook).await?;
                if stored.state == State::Active {
                    return Err(state("the webhook is active"));
                }
                let cursor = match args.from {
                    None | Some(From::Cursor) => stored.cursor,
                    Some(From::Now) => head_size(view).await?.max(stored.cursor),
                };
                let doc =
                    Endpoint { state: State::Active, why: None, failing: None, cursor, ..stored.doc.clone() };
                let outcome = json!({"cursor": cursor, "left_out": cursor - stored.cursor});
                Ok(changed(stamp, &stored, &doc, "notify.webhook.resumed", outcome))
            }
            .boxed()
        }),
    )
}

fn rotate(deps: &Deps) -> Verb {
    let custody = deps.custody.clone();
    let verb = on_endpoint(
        "notify.webhook.rotate",
        "Gives a webhook a new secret; the old one signs as well for a while",
        || schemars::schema_for!(RotateArgs).into(),
        &["notify.webhook.rotated"],
        Arc::new(move |view, args, stamp| {
            let custody = custody.clone();
            async move {
                let args: RotateArgs = parse(args)?;
                checked_secret(&args.secret)?;
                let overlap_ms = args.overlap_ms.unwrap_or(OVERLAP_MS);
                if !(0..=OVERLAP_MS_MAX).contains(&overlap_ms) {
                    return Err(invalid("an overlap is 0 to 604800000 milliseconds"));
                }
                let stored = read(view, &args.webhook).await?;
                let version = stored.secrets.first().map_or(0, |newest| newest.version) + 1;
                let until_ms = stamp.at_ms.saturating_add(overlap_ms);
                let mut secrets = vec![sealed(&custody, stamp, &stored.id, version, &args.secret)];
                secrets.extend(stored.secrets.iter().take(SECRETS_MAX - 1).map(|old| Sealed {
                    until_ms: Some(old.until_ms.map_or(until_ms, |earlier| earlier.min(until_ms))),
                    ..old.clone()
                }));
                let doc = Endpoint { secrets, ..stored.doc.clone() };
                let outcome = json!({"version": version, "until_ms": until_ms});
                Ok(changed(stamp, &stored, &doc, "notify.webhook.rotated", outcome))
            }
            .boxed()
        }),
    );
    Verb { secret_args: &["secret"], ..verb }
}

fn test() -> Verb {
    on_endpoint(
        "notify.webhook.test",
        "Sends an event to a webhook and to nobody else, whatever kinds it wants",
        || schemars::schema_for!(OneArgs).into(),
        &[TESTED],
        Arc::new(|view, args, stamp| {
            async move {
                let args: OneArgs = parse(args)?;
                let stored = read(view, &args.webhook).await?;
                if stored.state != State::Active {
                    return Err(state("only a webhook that is active is tested"));
                }
                // The fact is the event: it goes the way of all others, in its turn.
                let fact = stamp.fact(TESTED, &stored.id, (Endpoint::KIND, &stored.id), json!({}));
                let mut plan = Plan {
                    draft: stamp.draft(),
                    outcome: json!({"webhook": stored.id, "webhook_id": fact.id}),
                };
                plan.draft.fact(fact);
                Ok(plan)
            }
            .boxed()
        }),
    )
}

fn delete() -> Verb {
    let verb = on_endpoint(
        "notify.webhook.delete",
        "Deletes a webhook with its secrets and its dead letters",
        || schemars::schema_for!(OneArgs).into(),
        &["notify.webhook.deleted"],
        Arc::new(|view, args, stamp| {
            async move {
                let args: OneArgs = parse(args)?;
                let stored = read(view, &args.webhook).await?;
                let range = Range::of("webhook", Key::new().text(stored.id.as_str()).bytes());
                // Every writer of its letters writes the endpoint as well; there are fewer than a page of them.
                let letters = view.list_guarded::<Letter, Endpoint>(&stored.id, range).await?;
                let mut plan = Plan {
                    draft: stamp.draft(),
                    outcome: json!({"webhook": stored.id, "deleted": true, "letters": letters.len()}),
                };
                if let Some(set) = view.get::<Set>(&set_id()).await? {
                    let less = Set { id: set_id(), endpoints: set.endpoints.saturating_sub(1) };
                    plan.draft.put_if(&set, &less);
                }
                for letter in &letters {
                    let (kind, id, rev) = (Letter::KIND, letter.stored.id.clone(), letter.stored.rev);
                    plan.draft.push(Operation::Delete { kind, id, rev });
                }
                let (kind, id, rev) = (Endpoint::KIND, stored.id.clone(), stored.rev);
                plan.draft.push(Operation::Delete { kind, id, rev }).fact(stamp.fact(
                    "notify.webhook.deleted",
                    &stored.id,
                    (Endpoint::KIND, &stored.id),
                    json!({"cursor": stored.cursor, "letters": letters.len()}),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    );
    Verb { writes: &["notify.webhook", "notify.webhook_set", "notify.letter"], ..verb }
}

/// An endpoint without its secrets.
pub(super) fn shown(doc: &Endpoint) -> Value {
    let secrets: Vec<Value> = doc
        .secrets
        .iter()
        .map(|secret| json!({"version": secret.version, "until_ms": secret.until_ms}))
        .collect();
    let about = doc.why.as_deref().and_then(super::schedule::about);
    json!({
        "webhook": doc.id, "target": doc.target, "kinds": doc.kinds, "note": doc.note, "state": doc.state, "why": doc.why,
        "cause": about, "secrets": secrets, "cursor": doc.cursor, "sent": doc.sent, "letters": doc.letters,
        "failing": doc.failing, "taken_at_ms": doc.taken_at_ms, "created_at_ms": doc.created_at_ms,
        "created_by": doc.created_by,
    })
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let id = query.id("webhook", "webhook")?;
    let stored = query.view.peek::<Endpoint>(&id).await?.ok_or_else(|| Fault::not_found("webhook"))?;
    let mut shown = shown(&stored);
    // What is still before it, its own uninteresting facts included.
    shown["behind"] = json!(head_size(query.view).await?.saturating_sub(stored.cursor));
    Ok(shown)
}

/// The routes.
pub fn routes() -> Vec<Route> {
    const READ: &str = "notify.webhook.read";
    vec![
        Route::post(
            "/v1/webhooks",
            "webhook_create",
            "Send the tenant's facts to an address",
            "notify.webhook.create",
        ),
        Route::get("/v1/webhooks", "webhook_list", "List the tenant's webhooks", READ, |query| {
            async move {
                // At most 20.
                let found = query.view.list::<Endpoint>(Range::of("state", Vec::new())).await?;
                Ok(json!({"items": found.iter().map(|found| shown(&found.stored)).collect::<Vec<_>>()}))
            }
            .boxed()
        }),
        Route::get(
            "/v1/webhooks/{webhook}",
            "webhook_show",
            "Show a webhook and how far it is",
            READ,
            |query| show(query).boxed(),
        ),
        Route::post(
            "/v1/webhooks/{webhook}/pause",
            "webhook_pause",
            "Pause a webhook; its place is kept",
            "notify.webhook.pause",
        ),
        Route::post(
            "/v1/webhooks/{webhook}/resume",
            "webhook_resume",
            "Send again, from where it stopped or from now",
            "notify.webhook.resume",
        ),
        Route::post(
            "/v1/webhooks/{webhook}/rotate",
            "webhook_rotate",
            "Give a webhook a new secret",
            "notify.webhook.rotate",
        ),
        Route::post(
            "/v1/webhooks/{webhook}/test",
            "webhook_test",
            "Send an event to this webhook alone",
            "notify.webhook.test",
        ),
        Route::post(
            "/v1/webhooks/{webhook}/delete",
            "webhook_delete",
            "Delete a webhook with its dead letters",
            "notify.webhook.delete",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(kinds: &[&str]) -> Endpoint {
        Endpoint {
            id: Id::parse("whk_1").unwrap(),
            target: "https://x.example/in".into(),
            kinds: kinds.iter().map(|row| (*row).to_owned()).collect(),
            note: String::new(),
            state: State::Active,
            why: None,
            secrets: Vec::new(),
            cursor: 0,
            sent: 0,
            letters: 0,
            failing: None,
            taken_at_ms: None,
            created_at_ms: 0,
            created_by: Id::parse("prn_a").unwrap(),
        }
    }

    #[test]
    fn an_endpoint_gets_what_it_wants() {
        let run = json!({"kind": "flows.run.finished", "stream": "run_1"});
        for (kinds, wanted) in [
            (&[][..], true),
            (&["flows.*"], true),
            (&["flows.run.*"], true),
            (&["flows.run.finished"], true),
            (&["models.*", "flows.run.finished"], true),
            (&["flows.run"], false),
            (&["flows.runs.*"], false),
            (&["flow.*"], false),
            (&["models.*"], false),
        ] {
            assert_eq!(endpoint(kinds).wants(&run), wanted, "{kinds:?}");
        }
        let test = |stream: &str| json!({"kind": TESTED, "stream": stream});
        assert!(endpoint(&["models.*"]).wants(&test("whk_1")));
        assert!(!endpoint(&[]).wants(&test("whk_2")));
    }

    #[test]
    fn what_a_filter_may_say() {
        let known = ["flows.run.created", "flows.run.finished", "models.call.finished"];
        let many = vec!["flows.*".to_owned(); KINDS_MAX + 1];
        let long = vec!["a".repeat(TEXT_BYTES_MAX + 1)];
        let one = |row: &str| vec![row.to_owned()];
        for (kinds, good) in [
            (Vec::new(), true),
            (one("flows.run.finished"), true),
            (one("flows.*"), true),
            (one("flows.run.*"), true),
            (one("models.call.finished"), true),
            (one("models.*"), true),
            // Well formed, and there is nothing of the kind.
            (one("flows.run.finishd"), false),
            (one("flows.run"), false),
            (one("flow.*"), false),
            (one("flows.run.finished.*"), false),
            (vec!["flows.*".to_owned(), "flow.*".to_owned()], false),
            (one("*"), false),
            (one(""), false),
            (one("flows.*.finished"), false),
            (one("flows..*"), false),
            (one("Flows.run"), false),
            (one("flows.run*"), false),
            (many, false),
            (long, false),
        ] {
            assert_eq!(checked_kinds(kinds.clone(), &known).is_ok(), good, "{kinds:?}");
        }
    }

    #[test]
    fn an_endpoint_names_its_host_and_not_its_path() {
        assert_eq!(endpoint(&[]).origin(), "https://x.example");
    }
}
