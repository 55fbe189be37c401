//! Faults on demand: what goes wrong, at which request, how often.
//!
//! The dangerous faults of an outside system are not its refusals but its lies: the write that took effect
//! although the connection broke, the 200 that dropped a field, the model that answers under another
//! version. A [`FaultRule`] says which requests it looks at and in which window it strikes, so a test reads
//! as a script: "the second PATCH of an incident is applied, then the connection closes".
//!
//! Rules are tried in the order in which they were added; the first whose window is open strikes, and at most
//! one strikes a request. Only authenticated requests are looked at, so a refused stranger uses up nothing.
//! A rule that could never strike (a model's fault on the ServiceNow service) is refused when it is added.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::{effects::Service, exchange::Call};

/// Most rules held at once.
pub const MAX_FAULT_RULES: usize = 256;
/// Most bytes that [`Fault::HugeBody`] may send.
pub const MAX_HUGE_BODY_BYTES: u64 = 1 << 30;
/// Most field names in [`Fault::DroppedFields`].
pub const MAX_DROPPED_FIELDS: usize = 64;
/// Longest string in a rule, in bytes.
pub const MAX_RULE_TEXT_BYTES: usize = 2_048;
/// Pause between the pieces of [`Fault::SlowDrip`].
pub const DRIP_INTERVAL_MS: u64 = 20;
/// Most pieces of [`Fault::SlowDrip`]; the rest of the body then comes at once.
pub const MAX_DRIPS: usize = 3_000;

/// What goes wrong. "Before" means that nothing was applied, "after" that the write took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Before: 429 with `Retry-After` in seconds.
    RateLimited {
        /// The value of `Retry-After`.
        retry_after_s: u32,
    },
    /// Before: an error of this status, 500 to 599.
    ServerError {
        /// The status.
        status: u16,
    },
    /// After: an error of this status, 500 to 599, as a gateway sends when its upstream is slow.
    ServerErrorAfterEffect {
        /// The status.
        status: u16,
    },
    /// Before: the connection closes without a reply.
    DropBeforeEffect,
    /// After: the connection closes without a reply. The time-out whose write took effect.
    DropAfterEffect,
    /// Before: no reply until the client goes away or the sandbox shuts down.
    Hang,
    /// After: no reply until the client goes away or the sandbox shuts down.
    HangAfterEffect,
    /// ServiceNow: these fields of the write are not applied; the reply is the usual 200.
    DroppedFields {
        /// Field names.
        fields: Vec<String>,
    },
    /// Model: the reply names another version than the configured one.
    WrongModel,
    /// After: 200 with a body that is cut in the middle of its JSON.
    MalformedJson,
    /// Model: the content breaks the JSON schema of the request.
    SchemaViolation,
    /// Model: the content names a group that does not exist.
    UnknownGroup,
    /// Before: 401, as for a token that was good once.
    ExpiredToken,
    /// Model, before: no capacity. 529 where the vendor has that, else 503.
    Overloaded,
    /// Model, before: the prompt is longer than the model reads.
    ContextExceeded,
    /// Model: the content filter stops it, before or after, as the vendor does.
    ContentFiltered,
    /// After: the true reply, broken off after this many bytes with its connection.
    CutReply {
        /// Bytes of the body that are sent.
        bytes: usize,
    },
    /// Model, after: a stream that ends after this many events as if that were all.
    ShortStream {
        /// Events that are sent.
        events: usize,
    },
    /// Model, after: a stream that says after this many events that it failed.
    StreamError {
        /// Events that are sent before.
        events: usize,
    },
    /// Model, after: a stream that stops after this many events and stays open.
    StreamStall {
        /// Events that are sent.
        events: usize,
    },
    /// After: 200 with a JSON string of this many bytes, at most [`MAX_HUGE_BODY_BYTES`], sent as it is made.
    HugeBody {
        /// Body size in bytes.
        bytes: u64,
    },
    /// Before: 307 to this location.
    Redirect {
        /// The value of `Location`.
        location: String,
    },
    /// After: the true reply, in pieces of this many bytes with a pause between them.
    SlowDrip {
        /// Size of a piece, at least 1.
        chunk_bytes: usize,
    },
}

impl Fault {
    /// The only service that can have this fault; `None` where any can.
    fn service(&self) -> Option<Service> {
        match self {
            Fault::DroppedFields { .. } => Some(Service::ServiceNow),
            Fault::WrongModel
            | Fault::SchemaViolation
            | Fault::UnknownGroup
            | Fault::Overloaded
            | Fault::ContextExceeded
            | Fault::ContentFiltered
            | Fault::ShortStream { .. }
            | Fault::StreamError { .. }
            | Fault::StreamStall { .. } => Some(Service::Model),
            Fault::RateLimited { .. }
            | Fault::ServerError { .. }
            | Fault::ServerErrorAfterEffect { .. }
            | Fault::DropBeforeEffect
            | Fault::DropAfterEffect
            | Fault::Hang
            | Fault::HangAfterEffect
            | Fault::MalformedJson
            | Fault::ExpiredToken
            | Fault::CutReply { .. }
            | Fault::HugeBody { .. }
            | Fault::Redirect { .. }
            | Fault::SlowDrip { .. } => None,
        }
    }
}

/// Which requests a fault strikes, and in which window. An empty field matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The stand-in.
    #[serde(default)]
    pub service: Option<Service>,
    /// The HTTP method, upper case.
    #[serde(default)]
    pub method: Option<String>,
    /// Text that the path contains.
    #[serde(default)]
    pub path_contains: Option<String>,
    /// Text that the raw body contains.
    #[serde(default)]
    pub body_contains: Option<String>,
    /// Strikes from the nth matching request on, counted from 1. Absent: from the first.
    #[serde(default)]
    pub nth: Option<u32>,
    /// Strikes this often, then no more. Absent: every time.
    #[serde(default)]
    pub times: Option<u32>,
    /// What goes wrong.
    pub fault: Fault,
}

impl FaultRule {
    /// A rule for every request of one stand-in.
    pub fn new(service: Service, fault: Fault) -> FaultRule {
        FaultRule {
            service: Some(service),
            method: None,
            path_contains: None,
            body_contains: None,
            nth: None,
            times: None,
            fault,
        }
    }

    /// Only requests of this method.
    pub fn method(mut self, method: &str) -> FaultRule {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path contains this text.
    pub fn path_contains(mut self, text: &str) -> FaultRule {
        self.path_contains = Some(text.to_owned());
        self
    }

    /// Only requests whose raw body contains this text.
    pub fn body_contains(mut self, text: &str) -> FaultRule {
        self.body_contains = Some(text.to_owned());
        self
    }

    /// From the nth matching request on, counted from 1.
    pub fn nth(mut self, nth: u32) -> FaultRule {
        self.nth = Some(nth);
        self
    }

    /// At most this often.
    pub fn times(mut self, times: u32) -> FaultRule {
        self.times = Some(times);
        self
    }

    /// Once.
    pub fn once(self) -> FaultRule {
        self.times(1)
    }

    fn matches(&self, service: Service, call: &Call) -> bool {
        let body = &call.body[..];
        self.service.is_none_or(|wanted| wanted == service)
            && self.fault.service().is_none_or(|wanted| wanted == service)
            && self.method.as_deref().is_none_or(|wanted| call.method == wanted)
            && self.path_contains.as_deref().is_none_or(|wanted| call.path.contains(wanted))
            && self.body_contains.as_deref().is_none_or(|wanted| {
                wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted.as_bytes())
            })
    }

    fn check(&self) -> Result<(), FaultError> {
        let texts = [&self.method, &self.path_contains, &self.body_contains];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_RULE_TEXT_BYTES) {
            return Err(FaultError::Invalid("a text is too long"));
        }
        if self.method.as_deref().is_some_and(|method| method.bytes().any(|byte| byte.is_ascii_lowercase())) {
            return Err(FaultError::Invalid("the method is not in upper case"));
        }
        if self.nth == Some(0) || self.times == Some(0) {
            return Err(FaultError::Invalid("nth and times count from 1"));
        }
        if let (Some(asked), Some(only)) = (self.service, self.fault.service())
            && asked != only
        {
            return Err(FaultError::Invalid("the service cannot have this fault"));
        }
        let problem = match &self.fault {
            Fault::ServerError { status } | Fault::ServerErrorAfterEffect { status } => {
                (!(500..=599).contains(status)).then_some("the status is not 500 to 599")
            }
            Fault::DroppedFields { fields } => (fields.len() > MAX_DROPPED_FIELDS
                || fields.iter().any(|field| field.len() > MAX_RULE_TEXT_BYTES))
            .then_some("too many or too long field names"),
            Fault::HugeBody { bytes } => {
                (*bytes > MAX_HUGE_BODY_BYTES).then_some("the body is larger than the bound")
            }
            Fault::Redirect { location } => (location.len() > MAX_RULE_TEXT_BYTES
                || HeaderValue::from_str(location).is_err())
            .then_some("the location is not a header value"),
            Fault::SlowDrip { chunk_bytes } => (*chunk_bytes == 0).then_some("a piece has at least one byte"),
            Fault::RateLimited { .. }
            | Fault::DropBeforeEffect
            | Fault::DropAfterEffect
            | Fault::Hang
            | Fault::HangAfterEffect
            | Fault::WrongModel
            | Fault::MalformedJson
            | Fault::SchemaViolation
            | Fault::ExpiredToken
            | Fault::Overloaded
            | Fault::ContextExceeded
            | Fault::ContentFiltered
            | Fault::CutReply { .. }
            | Fault::ShortStream { .. }
            | Fault::StreamError { .. }
            | Fault::StreamStall { .. }
            | Fault::UnknownGroup => None,
        };
        problem.map_or(Ok(()), |problem| Err(FaultError::Invalid(problem)))
    }
}

/// Why a rule was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultError {
    /// The rule could never strike, or breaks a bound.
    #[error("invalid fault rule: {0}")]
    Invalid(&'static str),
    /// [`MAX_FAULT_RULES`] are held already.
    #[error("no room for another fault rule")]
    Full,
}

/// A rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// The rule.
    pub rule: FaultRule,
    /// Requests that it matched.
    pub seen: u64,
    /// Requests that it struck.
    pub fired: u64,
}

/// The script: rules in order, with their counts.
#[derive(Default)]
pub(crate) struct FaultTable {
    rules: Vec<FaultCount>,
}

impl FaultTable {
    /// Adds all of the rules or none.
    pub fn add(&mut self, rules: Vec<FaultRule>) -> Result<(), FaultError> {
        rules.iter().try_for_each(FaultRule::check)?;
        if self.rules.len() + rules.len() > MAX_FAULT_RULES {
            return Err(FaultError::Full);
        }
        self.rules.extend(rules.into_iter().map(|rule| FaultCount { rule, seen: 0, fired: 0 }));
        Ok(())
    }

    pub fn clear(&mut self) {
        self.rules.clear();
    }

    pub fn counts(&self) -> Vec<FaultCount> {
        self.rules.to_vec()
    }

    /// The fault that strikes this request. Every matching rule counts it as seen.
    pub fn strike(&mut self, service: Service, call: &Call) -> Option<Fault> {
        let mut struck = None;
        for count in self.rules.iter_mut().filter(|count| count.rule.matches(service, call)) {
            count.seen += 1;
            let begun = count.seen >= u64::from(count.rule.nth.unwrap_or(1));
            let left = count.rule.times.is_none_or(|times| count.fired < u64::from(times));
            if struck.is_none() && begun && left {
                count.fired += 1;
                struck = Some(count.rule.fault.clone());
            }
        }
        struck
    }
}
