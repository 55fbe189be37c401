//! Errors as callers meet them: a stable code, a class, and a message that is safe to show.
//!
//! Each crate has its own error enum and implements [`Coded`] for it. Where errors of many domains pass through one
//! place they travel as a [`Fault`]. A class is the only thing that the edge looks at: it maps once to an HTTP status, a
//! CLI exit code and whether a retry makes sense. Nothing below the edge knows a status.

use serde_json::Value;

/// Codes that belong to no domain: of the request's form, of storage, and of what this system keeps to itself.
pub const CODES: &[(&str, &str)] = &[
    ("internal", "something went wrong on our side; the log says what"),
    ("not_found", "there is no such thing, or not for this caller"),
    ("request.invalid", "an argument is missing, unknown, malformed or outside its limits"),
    ("request.state", "the thing is not in a state in which this can be done, or it has been done already"),
    ("request.too_large", "the arguments of an act are larger than it takes"),
    ("store.contention", "a record that was read has been changed by somebody else meanwhile"),
    ("store.fact_too_large", "a fact or a change is larger than its format allows"),
    ("store.failed", "storage cannot be read or written right now"),
    ("store.fenced", "a job's lease was lost to a later claim; its work belongs to somebody else now"),
    ("store.full", "there is no room left on the storage device"),
    ("store.insufficient", "an account of the ledger has not enough left"),
    ("store.ledger", "a transfer contradicts the ledger, or itself"),
    ("store.log", "the tenant's log is not in the state that the change needs"),
    ("store.outside_permit", "a change goes beyond what was permitted, or its permit is no longer valid"),
    ("store.overloaded", "too many changes of this tenant wait to be written"),
];

/// What kind of failure it is; a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request itself is wrong; repeating it changes nothing.
    Invalid,
    /// Larger than a limit.
    TooLarge,
    /// No valid credentials.
    Unauthenticated,
    /// Policy or role says no.
    Denied,
    /// The caller has to prove more strongly who they are.
    StepUp,
    /// It waits for a person.
    NeedsApproval,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// It contradicts what is there now.
    Conflict,
    /// Too many changed the same thing at once; retrying may succeed.
    Contention,
    /// Over a rate or quota.
    Throttled,
    /// A system outside failed.
    Upstream,
    /// This system cannot do it now.
    Unavailable,
    /// Evidence does not verify.
    Evidence,
    /// A bug or a broken machine; details are in the log only.
    Internal,
}

impl Class {
    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        match self {
            Class::Contention | Class::Throttled | Class::Upstream | Class::Unavailable => true,
            Class::Invalid
            | Class::TooLarge
            | Class::Unauthenticated
            | Class::Denied
            | Class::StepUp
            | Class::NeedsApproval
            | Class::NotFound
            | Class::Conflict
            | Class::Evidence
            | Class::Internal => false,
        }
    }
}

/// An error with a stable code.
pub trait Coded: std::error::Error {
    /// `<domain>.<what>`, stable for ever; operators look it up in `docs/errors/`.
    fn code(&self) -> &'static str;
    /// Its class.
    fn class(&self) -> Class;
    /// What the caller may read. By default the error's own text, which must not hold secrets or internals.
    fn public(&self) -> String {
        self.to_string()
    }
}

/// An error on its way to the edge.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// The stable code.
    pub code: String,
    /// The class.
    pub class: Class,
    /// Safe to show.
    pub message: String,
    /// When a retry makes sense, in milliseconds from now.
    pub retry_after_ms: Option<i64>,
    /// Machine-readable details, safe to show.
    pub details: Option<Box<Value>>,
}

impl Fault {
    /// A fault.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { code: code.into(), class, message: message.into(), retry_after_ms: None, details: None }
    }

    /// The request is wrong.
    pub fn invalid(code: &str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Invalid, code, message)
    }

    /// There is no such thing for this caller. The text never says which of the two it is.
    pub fn not_found(what: &str) -> Fault {
        Fault::new(Class::NotFound, "not_found", format!("there is no such {what}"))
    }

    /// It contradicts what is there.
    pub fn conflict(code: &str, message: impl Into<String>) -> Fault {
        Fault::new(Class::Conflict, code, message)
    }

    /// Adds details.
    pub fn with(mut self, details: Value) -> Fault {
        self.details = Some(Box::new(details));
        self
    }
}

/// A bug or a broken machine: the cause goes to the log of whoever catches it, the caller reads only that it happened.
pub fn internal(error: impl std::fmt::Display) -> Fault {
    Fault::new(
        Class::Internal,
        "internal",
        "something went wrong on our side; the request id leads to the log",
    )
    .with(Value::String(error.to_string()))
}

impl<E: Coded> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::new(error.class(), error.code(), error.public())
    }
}

impl Coded for store::ReadError {
    fn code(&self) -> &'static str {
        "store.failed"
    }
    fn class(&self) -> Class {
        Class::Unavailable
    }
    fn public(&self) -> String {
        "storage cannot be read right now".into()
    }
}

impl Coded for store::CommitError {
    fn code(&self) -> &'static str {
        use store::CommitError as E;
        match self {
            E::Conflict { .. } => "store.contention",
            E::Fenced => "store.fenced",
            E::Permit(_) | E::OutsidePermit(_) => "store.outside_permit",
            E::Insufficient { .. } => "store.insufficient",
            E::Ledger(_) => "store.ledger",
            E::Log => "store.log",
            E::Leaf(_) | E::TooLarge => "store.fact_too_large",
            E::Overloaded => "store.overloaded",
            E::Full => "store.full",
            E::Failed(_) => "store.failed",
        }
    }
    fn class(&self) -> Class {
        use store::CommitError as E;
        match self {
            E::Conflict { .. } | E::Fenced => Class::Contention,
            E::Insufficient { .. } => Class::Denied,
            E::Ledger(_) => Class::Conflict,
            E::Leaf(_) | E::TooLarge => Class::TooLarge,
            E::Overloaded | E::Full | E::Failed(_) => Class::Unavailable,
            E::Permit(_) | E::OutsidePermit(_) | E::Log => Class::Internal,
        }
    }
    fn public(&self) -> String {
        match self.class() {
            Class::Internal => "something went wrong on our side; the request id leads to the log".into(),
            _ => match self {
                store::CommitError::Failed(_) => "storage cannot be written right now".into(),
                other => other.to_string(),
            },
        }
    }
}
