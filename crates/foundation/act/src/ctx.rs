//! Who asks, for whom, and how sure we are.

use kernel::{Id, TenantId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What sort of principal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A human being.
    Person,
    /// A part of this installation, such as the workflow engine.
    Service,
    /// An outside system that sends events.
    Integration,
    /// A program that acts for people.
    Agent,
}

impl PrincipalKind {
    /// The spelling in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::Person => "person",
            PrincipalKind::Service => "service",
            PrincipalKind::Integration => "integration",
            PrincipalKind::Agent => "agent",
        }
    }
}

/// An identified principal with the roles it has in the tenant it acts in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// `prn_…`
    pub id: Id,
    /// What sort.
    pub kind: PrincipalKind,
    /// Names of the roles that hold in the whole tenant it acts in, sorted.
    pub roles: Vec<String>,
    /// The tenant it belongs to, which may be the platform's.
    pub home: TenantId,
    /// What else it may, and what its key is limited to.
    #[serde(default)]
    pub rights: Rights,
}

/// What a principal has besides roles in the whole tenant. Resolved when it is identified, and anew by whoever acts for
/// it later; see `access::rights`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// Those of its roles that hold in every tenant, sorted.
    pub platform: Vec<String>,
    /// Roles that hold in one project only: project and role.
    pub projects: Vec<(Id, String)>,
    /// What those of these roles permit that the tenant made itself: acts and reads by the role's id.
    pub own_roles: BTreeMap<String, Vec<String>>,
    /// What the key in use is limited to.
    pub key: KeyLimits,
}

/// What a key is limited to, within what its owner may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyLimits {
    /// Acts and reads, exact or as `<domain>.<noun>.*`; `None`: all of the owner's.
    pub acts: Option<Vec<String>>,
    /// The one project in which it is good; `None`: wherever its owner is.
    pub project: Option<Id>,
}

/// How the principal has proven who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assurance {
    /// `key`, `key+stepup`, `signature`, `internal`.
    pub method: String,
    /// 0: a bearer secret; 1: a secret on the operator's own machine or a fresh second factor.
    pub level: u8,
    /// When they proved it, milliseconds UTC.
    pub at_ms: i64,
    /// When what they proved it with ends; `None`: it does not. Nobody hands on more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// Everything about a request that the act itself cannot choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ctx {
    /// The tenant whose things are acted on.
    pub tenant: TenantId,
    /// Who acts.
    pub principal: Principal,
    /// Those they act for, nearest first. They may never approve what is done for them.
    pub on_behalf_of: Vec<Id>,
    /// How sure we are of the principal.
    pub assurance: Assurance,
    /// Joins logs, facts and traces; see [`crate::trace`] for its form.
    pub trace: String,
    /// The caller's key for doing it once.
    pub idempotency_key: Option<String>,
    /// When it was asked for, milliseconds UTC.
    pub requested_at_ms: i64,
}
