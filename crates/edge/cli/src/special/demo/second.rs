//! The second tenant: a policy of its own, two people who agree in Slack, and a budget that runs out.
//!
//! The first tenant runs on the platform's policy, which lets routine write-backs through by themselves. This one has
//! signed and published a policy beside it: nothing is written before two people have agreed. The same ticket comes to
//! both, so that the difference is the policy and nothing else. The two people are asked by cards in Slack's stand-in and
//! click, after each has said with their own key who they are there. Then more tickets come at once than the budget has
//! calls for; exactly as many as fit are asked about, and the rest goes on once an administrator has raised the budget.
//!
//! What is told is read from the installation: approvals, runs, budgets, facts. A click that changes nothing is believed to
//! have changed nothing because the approval says so.

use super::data::Part;
use super::drive::{Played, send};
use super::report::prove;
use super::stage::{Person, Provider, SLACK_PEOPLE, Stage, call, provide, tenant};
use crate::exit::Failure;
use act::{Clock as _, Ids as _, SystemIds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cli::furnish::{self, MANIFEST, passing, slack_user};
use client::{Client, ClientError};
use governor::policy::bundle::bundle_build;
use governor::policy::signer::Signer;
use governor::policy::{ENGINE, Files, Manifest, Metadata};
use http::Method;
use kernel::{hex, sha256};
use sandbox::{IncidentSeed, SlackClick, SlackMessage, WebhookEvent};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use store::SystemClock;

/// The tenant's policy.
const RULES: &str = include_str!("../../../../../../contracts/policies/examples/two-people/people.rego");
const RULES_DATA: &str = include_str!("../../../../../../contracts/policies/examples/two-people/data.json");
/// What the tenant is called.
const NAME: &str = "clinic";
/// The button on a card that agrees.
const GRANT: &str = "approval_grant";
/// How long the administrator's strong key and the policy hold.
const HOURS_8_MS: i64 = 8 * 60 * 60 * 1000;
/// How many model calls the budget has room for.
const CALLS_THAT_FIT: i64 = 5;
/// How many tickets come at once.
const TICKETS: usize = 9;
/// How often something that is about to happen is looked for, and how long between two looks.
const LOOKS: u32 = 2_400;
const LOOK: Duration = Duration::from_millis(25);

/// What came of it. Its members are part of the interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecondSummary {
    /// The tenant.
    pub tenant: String,
    /// Digest of its own policy.
    pub policy: String,
    /// What the platform's policy alone said of the write, in the first tenant.
    pub default_effect: String,
    /// What both together said of the same write here.
    pub own_effect: String,
    /// Writes that took effect after two people had agreed.
    pub written_back: usize,
    /// Clicks that counted.
    pub clicks: usize,
    /// Clicks that changed nothing: by a stranger, by people not yet linked, and by one person twice.
    pub clicks_refused: usize,
    /// Model calls that fitted into the budget.
    pub calls_that_fit: usize,
    /// Runs that stopped before their model call.
    pub calls_refused: usize,
    /// What was left of the budget then.
    pub budget_left: i64,
    /// Runs that went on after the budget was raised.
    pub replayed: usize,
    /// Whether its evidence verifies.
    pub evidence_verified: bool,
}

/// The tenant, and everybody in it.
struct Clinic<'a> {
    stage: &'a Stage,
    /// Administers: policy, budget, Slack.
    owner: Person,
    /// Publishes, watches, exports.
    operator: Person,
    /// Those who decide: name and key.
    people: Vec<(&'static str, Person)>,
    /// Where ServiceNow delivers to.
    hook: String,
    /// Where Slack sends clicks.
    callback: String,
    clicks: usize,
    clicks_refused: usize,
}

/// A ticket that the first tenant routed by itself.
struct Twin {
    at: usize,
    effect: String,
}

/// Plays.
pub async fn play(stage: &Stage, played: &Played, tell: &dyn Fn(&str)) -> Result<SecondSummary, Failure> {
    let twin = twin(stage, played).await?;
    let name = tenant(&stage.platform, NAME, 1).await?;
    let mut clinic = Clinic::open(stage, &name).await?;
    let policy = clinic.policy(&name).await?;
    tell(&format!(
        "\nA second tenant, {name}, with a policy of its own beside the platform's: two people agree to each write"
    ));

    // The same ticket.
    let incident = clinic.seed(played, twin.at)?;
    let run = clinic.deliver(&incident.0).await?;
    let approval = clinic.waiting(&run).await?;
    let own_effect = clinic.effect(&run).await?;
    tell(&format!(
        "  {} is the same ticket as {}: there the write was {}, here it is {}",
        incident.1,
        played.incidents.get(twin.at).map_or("", |incident| incident.number.as_str()),
        twin.effect,
        own_effect
    ));
    clinic.clicked_in_vain(&approval, "guest", tell, "is nobody here: shown a code, nothing else").await?;
    let people: Vec<&'static str> = clinic.people.iter().map(|(name, _)| *name).collect();
    for (n, name) in people.iter().enumerate() {
        clinic.clicked_in_vain(&approval, name, tell, "is not linked yet: shown a code").await?;
        clinic.link(name).await?;
        clinic.click(&approval, name, n + 1).await?;
        tell(&format!(
            "  {name} says with their own key who they are, and clicks: {} of {}",
            n + 1,
            people.len()
        ));
        if n == 0 {
            clinic.clicked_in_vain(&approval, name, tell, "clicks again: one person is one person").await?;
        }
    }
    let cost = clinic.done(&run).await?;
    tell(&format!("  {} is written back", incident.1));

    // The budget.
    let (measure, each) = match stage.provider {
        Provider::Baseline => ("cost", cost),
        // What a call to a provider costs is not known to the unit beforehand, so calls are counted.
        Provider::OpenAi { .. } => ("calls", 1),
    };
    let unit = if measure == "cost" { "µ$" } else { "calls" };
    let budget = clinic.budget(measure, CALLS_THAT_FIT * each).await?;
    tell(&format!(
        "  a budget of {} {unit}, room for {CALLS_THAT_FIT} model calls; {TICKETS} tickets come at once",
        CALLS_THAT_FIT * each
    ));
    let mut runs = Vec::new();
    for _ in 0..TICKETS {
        let (sys_id, _) = clinic.seed(played, twin.at)?;
        runs.push(sys_id);
    }
    let runs: Vec<String> =
        futures::future::try_join_all(runs.iter().map(|sys_id| clinic.deliver(sys_id))).await?;
    let (fit, refused) = clinic.rest(&runs).await?;
    let left = call(&clinic.owner.client, Method::GET, &format!("/v1/budgets/{budget}"), None).await?.body;
    let left = left["left"].as_i64().ok_or(ClientError::Reply)?;
    tell(&format!(
        "  {} went ahead, {} stopped before their call with budget.exhausted; {left} {unit} are left",
        fit.len(),
        refused.len()
    ));
    clinic.agree(&fit).await?;
    clinic.budget(measure, i64::try_from(TICKETS).unwrap_or(i64::MAX) * each).await?;
    for run in &refused {
        call(&clinic.operator.client, Method::POST, &format!("/v1/runs/{run}/replay"), Some(&json!({})))
            .await?;
    }
    clinic.agree(&refused).await?;
    tell(&format!(
        "  the budget is raised, the {} others go on from the dead letters; two people click for each",
        refused.len()
    ));
    let proof = prove(stage, &clinic.operator.client, NAME).await?;
    let written_back = 1 + fit.len() + refused.len();
    let summary = SecondSummary {
        tenant: name,
        policy,
        default_effect: twin.effect,
        own_effect,
        written_back,
        clicks: clinic.clicks,
        clicks_refused: clinic.clicks_refused,
        calls_that_fit: fit.len(),
        calls_refused: refused.len(),
        budget_left: left,
        replayed: refused.len(),
        evidence_verified: proof.verified,
    };
    tell(&format!("  its evidence: {}", proof.bundle.display()));
    Ok(summary)
}

/// A ticket whose write the first tenant's policy let through by itself; if there is none, the first that was written.
async fn twin(stage: &Stage, played: &Played) -> Result<Twin, Failure> {
    let mut second_best = None;
    let mut runs: Vec<(&String, &usize)> = played.runs.iter().collect();
    runs.sort_by_key(|(_, at)| **at);
    for (run, at) in runs {
        let ordinary = played.incidents.get(*at).is_some_and(|incident| incident.part == Part::Ordinary);
        if !ordinary {
            continue;
        }
        let shown = call(&stage.operator.client, Method::GET, &format!("/v1/runs/{run}"), None).await?.body;
        if shown["outcome"] != "done" {
            continue;
        }
        let effect = effect(&stage.operator.client, run).await?;
        if effect == "ALLOW" {
            return Ok(Twin { at: *at, effect });
        }
        second_best.get_or_insert(Twin { at: *at, effect });
    }
    second_best.ok_or_else(|| Failure::Other("no ticket of the first tenant was written back".into()))
}

/// What policy said when the run first asked for its write.
async fn effect(client: &Client, run: &str) -> Result<String, Failure> {
    let facts = call(client, Method::GET, &format!("/v1/runs/{run}/facts"), None).await?.body;
    let items = facts["items"].as_array().ok_or(ClientError::Reply)?;
    let decided = items.iter().map(|item| &item["fact"]).find(|fact| {
        // A write that has to wait is decided without being intended.
        fact["kind"] == "governor.decided" || fact["outcome"]["action"] == "incident.update"
    });
    let effect = decided.and_then(|fact| fact["decision"]["effect"].as_str());
    Ok(effect.ok_or(ClientError::Reply)?.to_owned())
}

/// Looks until it is there.
async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    for _ in 0..LOOKS {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Other(format!("{what} did not happen in time")))
}

impl<'a> Clinic<'a> {
    /// Sets the tenant up, as an operator would.
    async fn open(stage: &'a Stage, tenant: &str) -> Result<Clinic<'a>, Failure> {
        let admin = stage.platform.in_tenant(tenant);
        let until_ms = SystemClock.now_ms() + HOURS_8_MS;
        let owner = stage.person(&admin, "clinic-owner", &["tenant_admin"], Some(until_ms)).await?;
        let operator = stage.person(&admin, "clinic-operator", &["builder", "operator"], None).await?;
        let mut people = Vec::new();
        for name in SLACK_PEOPLE.into_iter().filter(|name| *name != "guest") {
            people.push((name, stage.person(&admin, name, &["approver"], None).await?));
        }
        let base_url = stage.sandbox.base_url();
        let hook = furnish::servicenow(&owner.client, MANIFEST, base_url, &stage.secrets).await?;
        let api = format!("{base_url}/slack/api");
        let callback = furnish::slack(&owner.client, &stage.workspace, &api).await?;
        if let Provider::OpenAi { key, model, .. } = &stage.provider {
            provide(&owner.client, key, model).await?;
        }
        furnish::workflow(&operator.client, &stage.workflow).await?;
        Ok(Clinic { stage, owner, operator, people, hook, callback, clicks: 0, clicks_refused: 0 })
    }

    /// Signs the tenant's policy with a key of its own, publishes it, and waits until it is in force. Its digest.
    async fn policy(&self, tenant: &str) -> Result<String, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Other(format!("the policy: {error}"));
        let signer = Signer::from_entropy(&SystemIds.entropy()).ok_or_else(|| failed(&"no key"))?;
        let public = signer.public_pem().map_err(|error| failed(&error))?;
        let key = json!({"name": NAME, "public_key": public});
        call(&self.owner.client, Method::POST, "/v1/policy-keys", Some(&key)).await?;
        let files = Files::from([
            ("people.rego".to_owned(), RULES.as_bytes().to_vec()),
            ("data.json".to_owned(), RULES_DATA.as_bytes().to_vec()),
        ]);
        let now_ms = SystemClock.now_ms();
        let metadata = Metadata {
            seq: u64::try_from(now_ms).unwrap_or_default(),
            not_after_ms: now_ms + HOURS_8_MS,
            min_engine: ENGINE,
        };
        let manifest =
            Manifest { revision: "two-people".into(), roots: vec!["writ".into()], rego_version: 1, metadata };
        let unsigned = bundle_build(&manifest, &files).map_err(|error| failed(&error))?;
        let bundle = signer.sign(&unsigned, tenant).map_err(|error| failed(&error))?;
        let publish = json!({"bundle_base64": BASE64.encode(&bundle)});
        call(&self.owner.client, Method::POST, "/v1/policy", Some(&publish)).await?;
        self.recorded("governor.policy.published", |outcome| outcome["in_force"] == true).await?;
        Ok(hex::encode(&sha256(&bundle)))
    }

    /// Follows the tenant's facts from the beginning until one of this kind says so.
    async fn recorded(&self, kind: &str, says: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let mut events = self.operator.client.events(Some(kind), Some(0)).await?;
        let found = async {
            while let Some(event) = events.next().await? {
                if says(&event["data"]["outcome"]) {
                    return Ok(());
                }
            }
            Err(Failure::Other(format!("the live feed ended before {kind}")))
        };
        let late = || Failure::Other(format!("{kind} was not recorded in time"));
        tokio::time::timeout(LOOK * LOOKS, found).await.map_err(|_| late())?
    }

    /// The ticket once more, as a new incident: its id and its number.
    fn seed(&self, played: &Played, at: usize) -> Result<(String, String), Failure> {
        let incident = played.incidents.get(at).ok_or(ClientError::Reply)?;
        let (short_description, description) = incident.row.texts();
        let seed = IncidentSeed { short_description, description, ..IncidentSeed::default() };
        let there =
            self.stage.sandbox.incident_seed(&seed).map_err(|error| Failure::Other(error.to_string()))?;
        Ok((there.sys_id, there.number))
    }

    /// Delivers an incident to the tenant's hook; its run.
    async fn deliver(&self, sys_id: &str) -> Result<String, Failure> {
        let webhook = self.stage.sandbox.incident_webhook(sys_id, WebhookEvent::Created);
        let webhook = webhook.map_err(|error| Failure::Other(error.to_string()))?;
        send(&self.operator.client, &self.hook, &webhook).await
    }

    async fn run(&self, run: &str) -> Result<Value, Failure> {
        Ok(call(&self.operator.client, Method::GET, &format!("/v1/runs/{run}"), None).await?.body)
    }

    async fn effect(&self, run: &str) -> Result<String, Failure> {
        effect(&self.operator.client, run).await
    }

    /// The approval that a run waits for.
    async fn waiting(&self, run: &str) -> Result<String, Failure> {
        until("the question to two people", async || {
            let shown = self.run(run).await?;
            match (shown["approval"].as_str(), shown["outcome"].as_str()) {
                (Some(approval), _) => Ok(Some(approval.to_owned())),
                (None, None) => Ok(None),
                (None, Some(outcome)) => {
                    Err(Failure::Other(format!("{run} ended ({outcome}) without asking two people")))
                }
            }
        })
        .await
    }

    /// Waits until a run has written back; what it cost.
    async fn done(&self, run: &str) -> Result<i64, Failure> {
        until("the write-back", async || {
            let shown = self.run(run).await?;
            match shown["outcome"].as_str() {
                None => Ok(None),
                Some("done") if shown["written_back_at_ms"].is_i64() => Ok(shown["cost_micros"].as_i64()),
                Some(outcome) => Err(Failure::Other(format!("{run} ended as {outcome}, not written back"))),
            }
        })
        .await
    }

    /// Waits until every run waits for people or has stopped for want of money: those, and these.
    async fn rest(&self, runs: &[String]) -> Result<(Vec<String>, Vec<String>), Failure> {
        let (mut fit, mut refused) = (BTreeSet::new(), BTreeSet::new());
        until("an answer to every ticket", async || {
            for run in runs {
                let shown = self.run(run).await?;
                if shown["approval"].is_string() {
                    fit.insert(run.clone());
                } else if shown["error"]["code"] == "budget.exhausted" && shown["status"] == "dead" {
                    refused.insert(run.clone());
                }
            }
            Ok((fit.len() + refused.len() == runs.len()).then_some(()))
        })
        .await?;
        Ok((fit.into_iter().collect(), refused.into_iter().collect()))
    }

    /// Sets the workflow's budget; its id.
    async fn budget(&self, measure: &str, amount: i64) -> Result<String, Failure> {
        let set = json!({
            "level": "workflow", "name": super::stage::WORKFLOW_NAME, "measure": measure, "amount": amount,
            "period": "total",
        });
        let set = call(&self.owner.client, Method::POST, "/v1/budgets", Some(&set)).await?.body;
        Ok(set["budget"].as_str().ok_or(ClientError::Reply)?.to_owned())
    }

    /// The people agree to what each of the runs waits for, one click each.
    async fn agree(&mut self, runs: &[String]) -> Result<(), Failure> {
        let names: Vec<&'static str> = self.people.iter().map(|(name, _)| *name).collect();
        for run in runs {
            let approval = self.waiting(run).await?;
            for (n, name) in names.iter().enumerate() {
                self.click(&approval, name, n + 1).await?;
            }
        }
        for run in runs {
            self.done(run).await?;
        }
        Ok(())
    }

    /// The card about an approval: its foot names it.
    async fn card(&self, approval: &str) -> Result<SlackMessage, Failure> {
        until("the card in Slack", async || {
            let cards = self.stage.sandbox.slack_messages().into_iter();
            let mut cards =
                cards.filter(|message| message.only_for.is_none() && !message.buttons().is_empty());
            Ok(cards.find(|card| card.blocks.iter().any(|block| block.to_string().contains(approval))))
        })
        .await
    }

    /// Clicks on "Grant", as Slack tells it: again, as people do, while the card is not yet known to be there.
    async fn press(&self, approval: &str, name: &str) -> Result<(), Failure> {
        let card = self.card(approval).await?;
        let click = SlackClick {
            user: slack_user(name),
            channel: card.channel.clone(),
            ts: card.ts.clone(),
            action_id: GRANT.into(),
            ..SlackClick::default()
        };
        until("a click", async || {
            let signed = self.stage.sandbox.slack_click(&click);
            let signed = signed.map_err(|error| Failure::Other(error.to_string()))?;
            let client = &self.operator.client;
            match client.deliver(&self.callback, &signed.headers, Bytes::from(signed.body)).await {
                Ok(_) => Ok(Some(())),
                Err(ClientError::Problem(problem)) if problem.code == "slack.card" => Ok(None),
                Err(error) if passing(&error) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// How many people have agreed.
    async fn agreed(&self, approval: &str) -> Result<usize, Failure> {
        let path = format!("/v1/approvals/{approval}");
        let shown = call(&self.operator.client, Method::GET, &path, None).await?.body;
        Ok(shown["grants"].as_array().ok_or(ClientError::Reply)?.len())
    }

    /// A click that counts: so many have agreed afterwards.
    async fn click(&mut self, approval: &str, name: &str, people: usize) -> Result<(), Failure> {
        self.press(approval, name).await?;
        until("the click's effect", async || Ok((self.agreed(approval).await? == people).then_some(())))
            .await?;
        self.clicks += 1;
        Ok(())
    }

    /// What only this person sees.
    fn told(&self, name: &str) -> Vec<String> {
        let (user, messages) = (slack_user(name), self.stage.sandbox.slack_messages().into_iter());
        let own = messages.filter(|message| message.only_for.as_ref() == Some(&user));
        own.map(|message| message.text).collect()
    }

    /// A click that changes nothing: whoever clicks is told something, and as many have agreed as before.
    async fn clicked_in_vain(
        &mut self,
        approval: &str,
        name: &str,
        tell: &dyn Fn(&str),
        why: &str,
    ) -> Result<(), Failure> {
        let (before, told) = (self.agreed(approval).await?, self.told(name).len());
        self.press(approval, name).await?;
        until("the answer to a click", async || Ok((self.told(name).len() > told).then_some(()))).await?;
        if self.agreed(approval).await? != before {
            return Err(Failure::Other(format!("a click by {name} counted, though {name} {why}")));
        }
        self.clicks_refused += 1;
        tell(&format!("  {name} {why}"));
        Ok(())
    }

    /// Says with a person's own key that they are who was shown the code.
    async fn link(&self, name: &str) -> Result<(), Failure> {
        // A code holds from when it is on record, a moment after it is shown.
        let user = slack_user(name);
        self.recorded("notify.link.offered", |outcome| outcome["user"] == user.as_str()).await?;
        let told = self.told(name).pop().ok_or(ClientError::Reply)?;
        let code = told.split("--code ").nth(1).and_then(|rest| rest.split('`').next());
        let code = json!({"code": code.ok_or(ClientError::Reply)?});
        let person = self.people.iter().find(|(known, _)| *known == name).ok_or(ClientError::Reply)?;
        call(&person.1.client, Method::POST, "/v1/slack/links", Some(&code)).await.map(|_| ())
    }
}
