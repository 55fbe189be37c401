//! Approvals: an act that waits for people.
//!
//! The record binds everything that was decided on: principal, act, target, the digest of the arguments, the digest of
//! what the approver is shown. It is decided by compare-and-swap on its state, granted by different people of the tier
//! that policy named, never by the requester or anybody it is for, and it is used up by one commit. A time-out is
//! EXPIRED, which is not DENIED. On use, policy is asked again, under the bundle of that moment, and what would be done is
//! held against what people were shown.
//!
//! Who may grant is policy's to say like for any act (`governor.approval.grant`); the rules above hold whatever policy
//! says.
//!
//! | module | what it holds |
//! |---|---|
//! | [`separation`] | who may decide, as one pure function |
//! | [`timeline`] | when people are reminded, when more of them are asked, when it is over |
//! | `rules` | the tables that code and policy share: tiers, times |
//! | `queue` | the lists and routes |
//! | `verbs` | granting and denying |

mod queue;
mod rules;
pub mod separation;
pub mod timeline;
mod verbs;

pub use queue::routes;
pub use rules::Rules;
pub use verbs::verbs;

use crate::Granted;
use act::Ctx;
use kernel::permit::JobKind;
use kernel::{Digest, Id, hex, json as canonical, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Document;
use store::key::Key;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for people.
    Pending,
    /// Enough people have granted it; the act is about to be carried out.
    Granted,
    /// It has been used by one commit.
    Used,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Granted, but policy no longer allows the act, or what it was about has changed.
    Void,
}

impl Status {
    /// The spelling in facts and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Granted => "granted",
            Status::Used => "used",
            Status::Denied => "denied",
            Status::Expired => "expired",
            Status::Void => "void",
        }
    }
}

/// One person's grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedBy {
    /// Who.
    pub approver: Id,
    /// Of which tier: their own, or that of the person they decided for.
    pub tier: u8,
    /// When, milliseconds UTC.
    pub at_ms: i64,
    /// In whose place, if not in their own name.
    pub delegator: Option<Id>,
    /// The delegation under which.
    pub delegation: Option<Id>,
}

impl GrantedBy {
    /// Everybody who stands behind the grant.
    pub fn people(&self) -> impl Iterator<Item = &Id> {
        std::iter::once(&self.approver).chain(&self.delegator)
    }
}

/// A waiting act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// `apr_…`
    pub id: Id,
    /// Where it stands.
    pub status: Status,
    /// The act.
    pub act: String,
    /// Its arguments, exactly as they will be carried out.
    pub args: Value,
    /// SHA-256 of their canonical form, in hexadecimal.
    pub args_digest: String,
    /// Kind and id of the target.
    pub target: (String, Id),
    /// What approvers are shown.
    pub preview: Vec<(String, String)>,
    /// SHA-256 of the preview's canonical form.
    pub preview_digest: String,
    /// The project that the target stands in: whoever has the tier there may decide.
    #[serde(default)]
    pub project: Option<Id>,
    /// The requester with everything needed to carry the act out later. Of their rights only what their key was limited to
    /// is kept; the rest is what they have when it is carried out.
    pub requester: Ctx,
    /// The tier an approver needs.
    pub tier: u8,
    /// How many different people have to grant it.
    pub needed: u8,
    /// Who has.
    pub grants: Vec<GrantedBy>,
    /// Why policy asked for people.
    pub reasons: Vec<String>,
    /// When it was asked for, milliseconds UTC.
    pub requested_at_ms: i64,
    /// When it expires.
    pub expires_at_ms: i64,
    /// The highest tier whose people have been asked; raised by escalation. What is needed stays `tier`.
    pub asked_tier: u8,
    /// When those who were asked are to be reminded; absent once that is past.
    pub remind_at_ms: Option<i64>,
    /// When they were.
    pub reminded_at_ms: Option<i64>,
    /// When the next tier is to be asked as well; absent once there is none.
    pub escalate_at_ms: Option<i64>,
    /// The job that does the next of these; a decision cancels it.
    pub timer: Id,
    /// When it left `pending` for good, by whom and why.
    pub closed: Option<Closed>,
    /// The fact that asked for it.
    pub requested_fact: Id,
}

/// How an approval ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// When, milliseconds UTC.
    pub at_ms: i64,
    /// Who; nobody if time did it.
    pub by: Option<Id>,
    /// A short reason.
    pub reason: String,
}

impl Document for Approval {
    const KIND: &'static str = "governor.approval";
    const VERSION: u32 = 3;
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("status", Key::new().text(self.status.as_str()).integer(self.requested_at_ms).bytes())]
    }
    /// Version 1 knew one timer, for its end, with an id made of the approval's; version 2 knew no projects.
    fn upcast(version: u32, mut doc: Value) -> Option<Value> {
        if version == 2 {
            return Some(doc);
        }
        (version == 1).then_some(())?;
        let suffix = doc["id"].as_str()?.trim_start_matches("apr_").to_owned();
        doc["asked_tier"] = doc["tier"].clone();
        doc["timer"] = json!(format!("job_exp-{suffix}"));
        Some(doc)
    }
}

impl Approval {
    /// The grants, for a decision. `None` unless enough people have granted it.
    pub fn granted(&self) -> Option<Granted> {
        (self.status == Status::Granted).then(|| Granted {
            approval: self.id.clone(),
            args_digest: hex::decode32(&self.args_digest).unwrap_or_default(),
            by: self.grants.clone(),
        })
    }

    /// Whether `principal` asked for it, or it is done for them.
    pub fn is_for(&self, principal: &Id) -> bool {
        self.requester.principal.id == *principal || self.requester.on_behalf_of.contains(principal)
    }
}

/// Settles an approval: carries the act out once it is granted, tells those who wait once it is closed, and does what its
/// timer finds due. Run by the harness.
pub static SETTLE: JobKind = JobKind {
    name: "governor.approval.settle",
    writes: &["governor.approval"],
    facts: &[
        "governor.approval.closed",
        "governor.approval.escalated",
        "governor.approval.reminded",
        "governor.approval.timer_idle",
        "governor.approval.told",
    ],
    lease_ms: 30_000,
    starts_max: 50,
};

/// The body of a settling job; `timer` for the one that waits for a time and not for people.
pub fn settle_body(approval: &Id, timer: bool) -> Value {
    json!({"approval": approval, "timer": timer})
}

/// The digest that binds what an approver was shown.
pub fn preview_digest(
    act: &str,
    target: (&str, &Id),
    args_digest: &Digest,
    preview: &[(String, String)],
) -> String {
    let shown = json!({
        "act": act, "target": [target.0, target.1], "args": hex::encode(args_digest),
        "preview": preview.iter().map(|(label, text)| json!([label, text])).collect::<Vec<_>>(),
    });
    // Texts and lists only: always within the canonical profile.
    hex::encode(&sha256(&canonical::canonical(&shown).unwrap_or_default()))
}

/// An approval, as the API shows it at `now_ms`.
pub fn shown(approval: &Approval, rules: &Rules, now_ms: i64) -> Value {
    json!({
        "id": approval.id, "status": approval.status, "act": approval.act, "args": approval.args,
        "target": {"kind": approval.target.0, "id": approval.target.1}, "project": approval.project,
        "preview": approval.preview.iter().map(|(label, text)| json!({"label": label, "text": text})).collect::<Vec<_>>(),
        "preview_digest": approval.preview_digest,
        "requester": approval.requester.principal.id, "on_behalf_of": approval.requester.on_behalf_of,
        "tier": approval.tier, "needed": approval.needed, "asked_tier": approval.asked_tier,
        "may_decide": rules.roles_from(approval.tier),
        "grants": approval.grants.iter().map(|grant| json!({
            "approver": grant.approver, "tier": grant.tier, "at_ms": grant.at_ms,
            "delegator": grant.delegator, "delegation": grant.delegation,
        })).collect::<Vec<_>>(),
        "reasons": approval.reasons, "requested_at_ms": approval.requested_at_ms,
        "age_ms": now_ms.saturating_sub(approval.requested_at_ms).max(0),
        "reminded_at_ms": approval.reminded_at_ms, "expires_at_ms": approval.expires_at_ms,
        "closed": approval.closed.as_ref()
            .map(|closed| json!({"at_ms": closed.at_ms, "by": closed.by, "reason": closed.reason})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::{Assurance, Principal, PrincipalKind};
    use kernel::TenantId;

    pub fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    /// Approver is of tier 1, tenant_admin of tier 2; reminded after 100, escalated after 200, over after 1000.
    pub fn rules() -> Rules {
        let shared = json!({"writ": {"config": {
            "approver_tiers": {"approver": 1, "tenant_admin": 2}, "delegates": {"own_tier_min": 1},
        }}});
        let mut rules = Rules::read(&shared);
        (rules.remind_ms, rules.escalate_ms, rules.expire_ms) = (100, 200, 1000);
        rules
    }

    pub fn ctx(name: &str, kind: PrincipalKind, roles: &[&str]) -> Ctx {
        let tenant = TenantId::parse("ten_acme").unwrap();
        Ctx {
            tenant: tenant.clone(),
            principal: Principal {
                id: id(name),
                kind,
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                home: tenant,
                rights: Default::default(),
            },
            on_behalf_of: Vec::new(),
            assurance: Assurance { method: "key".into(), level: 0, at_ms: 0, until_ms: None },
            trace: "trc_a".into(),
            idempotency_key: None,
            requested_at_ms: 0,
        }
    }

    /// Asked for by Ann at 0, tier 1, one person, shown as "seen".
    pub fn approval() -> Approval {
        Approval {
            id: id("apr_a"),
            status: Status::Pending,
            act: "a.b.c".into(),
            args: json!({}),
            args_digest: "0".repeat(64),
            target: ("a.b".into(), id("thg_a")),
            preview: vec![("What".into(), "it".into())],
            preview_digest: "seen".into(),
            project: None,
            requester: ctx("prn_ann", PrincipalKind::Person, &["operator"]),
            tier: 1,
            needed: 1,
            grants: Vec::new(),
            reasons: vec!["a.b".into()],
            requested_at_ms: 0,
            expires_at_ms: 1000,
            asked_tier: 1,
            remind_at_ms: Some(100),
            reminded_at_ms: None,
            escalate_at_ms: Some(200),
            timer: id("job_a"),
            closed: None,
            requested_fact: id("fct_a"),
        }
    }

    #[test]
    fn an_approval_of_the_first_version_is_read() {
        let mut old = serde_json::to_value(approval()).unwrap();
        let members = old.as_object_mut().unwrap();
        for member in ["asked_tier", "remind_at_ms", "reminded_at_ms", "escalate_at_ms", "timer"] {
            members.remove(member);
        }
        members.insert("grants".into(), json!([{"approver": "prn_bob", "tier": 1, "at_ms": 5}]));
        let body = serde_json::to_vec(&json!({"v": 1, "doc": old})).unwrap();
        let row = store::Row { id: id("apr_a"), rev: 1, body };
        let read = store::decode::<Approval>(&row).unwrap();
        assert_eq!((read.asked_tier, read.timer.as_str()), (1, "job_exp-a"));
        assert_eq!((read.remind_at_ms, read.escalate_at_ms), (None, None));
        assert_eq!((read.grants[0].approver.as_str(), &read.grants[0].delegator), ("prn_bob", &None));
    }

    #[test]
    fn expired_and_denied_are_two_things() {
        let all =
            [Status::Pending, Status::Granted, Status::Used, Status::Denied, Status::Expired, Status::Void];
        let names: std::collections::BTreeSet<&str> = all.iter().map(|status| status.as_str()).collect();
        assert_eq!(names.len(), all.len());
        for status in all {
            assert_eq!(
                serde_json::to_value(status).unwrap(),
                json!(status.as_str()),
                "facts and records agree"
            );
        }
    }
}
