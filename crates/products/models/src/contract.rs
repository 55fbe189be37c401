//! What every model speaks: an [`Ask`] in, an [`Answer`] out.
//!
//! A hosted model, a model on our own machines and the built-in baseline are interchangeable only if none of them
//! shows through. The contract therefore holds what a workflow means (which fields, which values, how long, which
//! model) and nothing of a wire: `response_format`, `choices` and `usage` objects stay in their dialect's module.
//!
//! Rules for those who add to it:
//! - Nothing here is believed. An [`Answer`] is what somebody said; only [`crate::check`] turns it into something
//!   that may be used.
//! - Tokens that were counted, tokens that nobody counted and calls that have no tokens are three different things
//!   ([`Usage`]). A missing number is never written as 0: a ledger that reads 0 believes it.
//! - Texts of an ask and an answer are a customer's data. `Debug` prints their sizes, never their content.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest system text of an ask, in bytes.
pub const SYSTEM_BYTES_MAX: usize = 16 * 1024;
/// Longest untrusted text an ask may carry, in bytes. The prompt cuts it further.
pub const USER_BYTES_MAX: usize = 1024 * 1024;
/// Longest model name or accepted version, in bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 200;
/// Most dated versions one pin may accept.
pub const PIN_ACCEPTS_MAX: usize = 16;
/// Most fields with an allow list.
pub const ALLOWED_FIELDS_MAX: usize = 32;
/// Most values of one allow list.
pub const ALLOWED_VALUES_MAX: usize = 500;
/// Longest allowed value, in bytes.
pub const ALLOWED_VALUE_BYTES_MAX: usize = 200;
/// Largest output bound an ask may set, in tokens.
pub const OUTPUT_TOKENS_MAX: u32 = 65_536;
/// Largest temperature, in thousandths.
pub const TEMPERATURE_MILLI_MAX: u32 = 2_000;

/// Which model is meant, and under which names it may report itself.
///
/// Providers publish an alias (`gpt-x-mini`) that answers as a dated version (`gpt-x-mini-2026-04-14`) and move
/// the alias without notice. The pin says which dated versions were accepted; anything else is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The name sent to the provider.
    pub model: String,
    /// Names that a reply may carry besides `model` itself. Exact, no patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<String>,
}

impl Pin {
    /// A pin that accepts the name itself and nothing else.
    pub fn exact(model: &str) -> Self {
        Self { model: model.to_owned(), accepts: Vec::new() }
    }

    /// Whether a reply that names itself `reported` comes from the pinned model.
    pub fn admits(&self, reported: &str) -> bool {
        self.model == reported || self.accepts.iter().any(|name| name == reported)
    }
}

/// One question to a model. See [`Ask::validate`] for its limits.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The pinned model.
    pub model: Pin,
    /// What the model is to do. Written by the workflow's author, trusted.
    pub system: String,
    /// The text it is to do it with, for example a ticket. Written by anybody, untrusted.
    pub user: String,
    /// JSON Schema (2020-12) of the answer: an object.
    pub schema: Value,
    /// Top-level fields of the answer that may only hold one of the listed values, compared byte by byte.
    #[serde(default)]
    pub allowed: BTreeMap<String, Vec<String>>,
    /// Most tokens the model may produce, its reasoning included.
    pub max_output_tokens: u32,
    /// Sampling temperature in thousandths. 1000 is the providers' default.
    pub temperature_milli: u32,
}

/// An ask that cannot be put to any model, because of `field`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ask's `{field}` {reason}")]
pub struct AskInvalid {
    /// The field of [`Ask`] at fault.
    pub field: &'static str,
    /// What is wrong with it, as the end of a sentence.
    pub reason: &'static str,
}

impl AskInvalid {
    /// Stable code of this error.
    pub const CODE: &'static str = "model.ask_invalid";
}

impl Ask {
    /// Checks the limits of every field but the schema's own, which [`crate::check::Checker::new`] compiles.
    pub fn validate(&self) -> Result<(), AskInvalid> {
        let fail = |field, reason| Err(AskInvalid { field, reason });
        let bad_name = |name: &String| {
            name.is_empty()
                || name.len() > MODEL_NAME_BYTES_MAX
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if bad_name(&self.model.model) || self.model.accepts.iter().any(bad_name) {
            return fail("model", "is not 1 to 200 printable ASCII characters without spaces");
        }
        if self.model.accepts.len() > PIN_ACCEPTS_MAX {
            return fail("model", "accepts more than 16 versions");
        }
        if self.system.len() > SYSTEM_BYTES_MAX {
            return fail("system", "is longer than 16 KiB");
        }
        if self.user.len() > USER_BYTES_MAX {
            return fail("user", "is longer than 1 MiB");
        }
        if !(1..=OUTPUT_TOKENS_MAX).contains(&self.max_output_tokens) {
            return fail("max_output_tokens", "is not between 1 and 65536");
        }
        if self.temperature_milli > TEMPERATURE_MILLI_MAX {
            return fail("temperature_milli", "is above 2000");
        }
        let Some(properties) = self.schema.get("properties").and_then(Value::as_object) else {
            return fail("schema", "has no `properties`");
        };
        if self.allowed.len() > ALLOWED_FIELDS_MAX {
            return fail("allowed", "names more than 32 fields");
        }
        for (field, values) in &self.allowed {
            if !properties.get(field).is_some_and(Value::is_object) {
                return fail("allowed", "names a field that the schema's `properties` do not describe");
            }
            if values.is_empty() || values.len() > ALLOWED_VALUES_MAX {
                return fail("allowed", "has a list that is empty or longer than 500 values");
            }
            if values.iter().any(|value| value.is_empty() || value.len() > ALLOWED_VALUE_BYTES_MAX) {
                return fail("allowed", "has a value that is empty or longer than 200 bytes");
            }
        }
        Ok(())
    }

    /// The schema with the allow lists written into it as `enum`, so that a provider can constrain its output to
    /// them. Where the schema has an `enum` of its own, what both contain is left.
    pub fn answer_schema(&self) -> Value {
        let mut schema = self.schema.clone();
        for (field, values) in &self.allowed {
            let Some(property) = schema.get_mut("properties").and_then(|all| all.get_mut(field)) else {
                continue;
            };
            let Some(property) = property.as_object_mut() else { continue };
            let own = property.get("enum").and_then(Value::as_array);
            let both: Vec<Value> = values
                .iter()
                .map(|value| Value::from(value.as_str()))
                .filter(|value| own.is_none_or(|own| own.contains(value)))
                .collect();
            property.insert("enum".to_owned(), Value::Array(both));
        }
        schema
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ask")
            .field("model", &self.model)
            .field("system_bytes", &self.system.len())
            .field("user_bytes", &self.user.len())
            .field("allowed", &self.allowed.keys())
            .field("max_output_tokens", &self.max_output_tokens)
            .field("temperature_milli", &self.temperature_milli)
            .finish_non_exhaustive()
    }
}

/// What came back, before anything of it is believed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The answer itself, unchecked.
    pub body: Value,
    /// The model's name as the reply reports it.
    pub model: String,
    /// The provider's fingerprint of the serving configuration, where there is one.
    pub fingerprint: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// SHA-256 of the reply's bytes as received, 64 lower-case hexadecimal digits.
    pub raw_digest: String,
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("model", &self.model)
            .field("fingerprint", &self.fingerprint)
            .field("usage", &self.usage)
            .field("raw_digest", &self.raw_digest)
            .finish_non_exhaustive()
    }
}

/// What is known about the tokens of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Usage {
    /// The provider counted, and its counts agree with each other.
    Reported(Tokens),
    /// Tokens were or may have been used and nobody knows how many: the count is missing or contradicts itself.
    /// It is settled as unpriced, never as nothing.
    Unknown,
    /// There is nothing to count: a model in this process, or a provider that refused before doing any work.
    Unmetered,
}

/// Token counts in buckets that do not overlap, so that each is priced once and their sum is the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Input read afresh.
    pub input_tokens: u64,
    /// Input served from the provider's cache.
    pub cached_input_tokens: u64,
    /// Input written to the provider's cache, where that is priced apart.
    pub cache_write_tokens: u64,
    /// Output that is part of the answer.
    pub output_tokens: u64,
    /// Output spent on reasoning that is not shown.
    pub reasoning_tokens: u64,
}

impl Tokens {
    /// All input. Counts are the provider's claim and may be any number.
    pub fn input(&self) -> u64 {
        self.input_tokens.saturating_add(self.cached_input_tokens).saturating_add(self.cache_write_tokens)
    }

    /// All output.
    pub fn output(&self) -> u64 {
        self.output_tokens.saturating_add(self.reasoning_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_claimed_counts_never_overflow() {
        let most = u64::MAX;
        let tokens = Tokens {
            input_tokens: 1,
            cached_input_tokens: most,
            cache_write_tokens: most,
            output_tokens: 1,
            reasoning_tokens: most,
        };
        assert_eq!((tokens.input(), tokens.output()), (most, most));
        let tokens =
            Tokens { input_tokens: 1, cached_input_tokens: 2, reasoning_tokens: 3, ..Tokens::default() };
        assert_eq!((tokens.input(), tokens.output()), (3, 3));
    }
}
