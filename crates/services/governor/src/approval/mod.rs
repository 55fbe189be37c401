//! Approvals: an act that waits for people.
//!
//! The record binds everything that was decided on: principal, act, target, the digest of the arguments, the digest of
//! what the approver is shown. It is decided by compare-and-swap on its state, granted by different people of the tier
//! that policy named, never by the requester or anybody it is for, and it is used up by one commit. A time-out is
//! EXPIRED, which is not DENIED. On use, policy is asked again, under the bundle of that moment.
//!
//! Who may grant is policy's to say like for any act (`governor.approval.grant`); the rules above hold whatever policy
//! says.

mod routes;
mod verbs;

pub use routes::routes;
pub use verbs::verbs;

use crate::Granted;
use act::Ctx;
use kernel::permit::JobKind;
use kernel::{Digest, Id, hex, json as canonical, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Document;
use store::key::Key;

/// How long an act waits before its approval expires, unless the act says otherwise.
pub const WAIT_MS: i64 = 24 * 60 * 60 * 1000;

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
    /// Of which tier.
    pub tier: u8,
    /// When, milliseconds UTC.
    pub at_ms: i64,
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
    /// The requester with everything needed to carry the act out later.
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
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("status", Key::new().text(self.status.as_str()).integer(self.requested_at_ms).bytes())]
    }
}

impl Approval {
    /// The grants, for a decision. `None` unless enough people have granted it.
    pub fn granted(&self) -> Option<Granted> {
        (self.status == Status::Granted).then(|| Granted {
            approval: self.id.clone(),
            args_digest: hex::decode32(&self.args_digest).unwrap_or_default(),
            by: self.grants.iter().map(|grant| (grant.approver.clone(), grant.tier, grant.at_ms)).collect(),
        })
    }

    /// Whether `principal` asked for it, or it is done for them.
    pub fn is_for(&self, principal: &Id) -> bool {
        self.requester.principal.id == *principal || self.requester.on_behalf_of.contains(principal)
    }
}

/// Settles an approval: carries the act out once it is granted, tells those who wait once it is closed, expires it when
/// its time has come. Run by the harness.
pub static SETTLE: JobKind = JobKind {
    name: "governor.approval.settle",
    writes: &["governor.approval"],
    facts: &["governor.approval.closed"],
    lease_ms: 30_000,
    starts_max: 50,
};

/// The id of the job that ends an approval's time; known from the approval's, so that a decision can cancel it.
pub fn expiry_job(approval: &Id) -> Id {
    let suffix = approval.as_str().trim_start_matches("apr_");
    // An approval's suffix is a valid one for a job.
    Id::parse(&format!("job_exp-{suffix}")).unwrap_or_else(|_| approval.clone())
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

/// The tier of an approver with these roles; 0 is nobody's.
pub fn tier(roles: &[String]) -> u8 {
    roles
        .iter()
        .map(|role| match role.as_str() {
            "approver" => 1,
            "tenant_admin" | "platform_admin" => 2,
            _ => 0,
        })
        .max()
        .unwrap_or(0)
}

/// An approval, as the API shows it.
pub fn shown(approval: &Approval) -> Value {
    json!({
        "id": approval.id, "status": approval.status, "act": approval.act, "args": approval.args,
        "target": {"kind": approval.target.0, "id": approval.target.1},
        "preview": approval.preview.iter().map(|(label, text)| json!({"label": label, "text": text})).collect::<Vec<_>>(),
        "preview_digest": approval.preview_digest,
        "requester": approval.requester.principal.id, "on_behalf_of": approval.requester.on_behalf_of,
        "tier": approval.tier, "needed": approval.needed,
        "grants": approval.grants.iter()
            .map(|grant| json!({"approver": grant.approver, "tier": grant.tier, "at_ms": grant.at_ms})).collect::<Vec<_>>(),
        "reasons": approval.reasons, "requested_at_ms": approval.requested_at_ms,
        "expires_at_ms": approval.expires_at_ms,
        "closed": approval.closed.as_ref()
            .map(|closed| json!({"at_ms": closed.at_ms, "by": closed.by, "reason": closed.reason})),
    })
}
