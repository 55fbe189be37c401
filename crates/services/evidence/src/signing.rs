//! What signs: two functions and two public keys, handed in by whoever holds the private ones.
//!
//! This crate never sees a private key. The installation's keyring lives in another crate on the same step of the stair, so
//! the two meet only where the installation is put together.

use crate::trust::{self, EvidenceKey, Trust, TrustedLog, Witnesses};
use ed25519_dalek::VerifyingKey;
use kernel::note::{Checkpoint, NoteError};
use std::sync::Arc;
use store::EpochRow;

/// Signs a checkpoint under the name of its origin.
pub type CheckpointSign = Arc<dyn Fn(&Checkpoint) -> Result<String, NoteError> + Send + Sync>;
/// Signs bytes with the key of evidence bundles.
pub type StatementSign = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// The installation's signers.
#[derive(Clone)]
pub struct Signing {
    /// Public key of the logs.
    pub log_key: VerifyingKey,
    /// Signs with its private half.
    pub checkpoint: CheckpointSign,
    /// Public key of evidence bundles; another one.
    pub evidence_key: VerifyingKey,
    /// Signs with its private half.
    pub statement: StatementSign,
    /// When the keys were made, milliseconds UTC.
    pub since_ms: i64,
}

impl Signing {
    /// The id under which verifiers know the evidence key.
    pub fn evidence_key_id(&self) -> String {
        trust::key_id(&self.evidence_key)
    }

    /// The trust file for one log: the epochs that it was in, and the one that it is in now.
    pub fn trust_of(&self, installation: &str, epochs: &[EpochRow], origin: &str) -> Trust {
        let mut from_ms = self.since_ms;
        let mut logs = Vec::with_capacity(epochs.len() + 1);
        for row in epochs {
            // Keys that end where they begin would make the file none; two epochs of one moment have one key.
            let until_ms = row.at_ms.max(from_ms + 1);
            let log = TrustedLog::of(&row.previous, &self.log_key, from_ms);
            logs.extend(log.map(|log| TrustedLog { until_ms: Some(until_ms), ..log }));
            from_ms = until_ms;
        }
        logs.extend(TrustedLog::of(origin, &self.log_key, from_ms));
        Trust { logs, ..self.trust(installation, &[]) }
    }

    /// The trust file for logs of these origins, all of one installation.
    pub fn trust(&self, installation: &str, origins: &[String]) -> Trust {
        Trust {
            version: 1,
            installation: installation.to_owned(),
            logs: origins
                .iter()
                .filter_map(|origin| TrustedLog::of(origin, &self.log_key, self.since_ms))
                .collect(),
            evidence_keys: vec![EvidenceKey::of(&self.evidence_key, self.since_ms)],
            witnesses: Witnesses::default(),
        }
    }
}
