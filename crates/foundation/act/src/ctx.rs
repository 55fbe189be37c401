//! Who asks, for whom, and how sure we are.

use kernel::{Id, TenantId};
use serde::{Deserialize, Serialize};

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
    /// Role names, sorted.
    pub roles: Vec<String>,
    /// The tenant it belongs to, which may be the platform's.
    pub home: TenantId,
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
