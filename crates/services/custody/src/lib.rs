//! Keys and secrets: what must be used without ever being seen.
//!
//! A connector needs the password of an outside system; the log needs a key that signs its checkpoints. Both are worth
//! stealing, and both leak in the same few ways: printed in an error, copied into a log line, left readable on a disk,
//! moved from one tenant's row to another's. This crate makes each of these hard to write down in the first place.
//!
//! | module | what it holds |
//! |---|---|
//! | [`keyring`] | the installation's own keys, as files that only their owner can read |
//! | [`recovery`] | the installation's keys in a backup, sealed under a key that is in none |
//! | [`secret`] | a value in memory that cannot be printed, copied or serialised, and is wiped when dropped |
//! | [`seal`] | a value at rest: AES-256-GCM, bound to its tenant, record, version and key |
//! | [`credential`] | the resource `custody.secret`: document, verbs, routes, and the reference by which others name one |
//!
//! Rules for those who add to it. A raw key leaves the keyring only where another crate's function demands it; otherwise
//! there is a method that signs. A secret is handed out as [`Secret`], never as text. No query returns a value.
//!
//! There is no fact for each use of a secret, on purpose: a secret is opened by the one who is about to make a call, and
//! the *intent* fact of that call already names the [`CredentialRef`], the act and the decision that allowed it. A second
//! fact would say the same with less. Storing and revoking are acts and leave facts.
//!
//! A secret that has no life of its own may lie sealed in another domain's record ([`Custody::seal`]): it is bound to that
//! record and version as a `custody.secret` is to its own.
//!
//! What this crate does not do: hardware keys, outside vaults, certificates. It does not decide who may use a secret;
//! policy does, when it decides on the act that names it.

pub mod credential;
pub mod keyring;
pub mod recovery;
pub mod seal;
pub mod secret;

pub use credential::{CredentialRef, CustodyError, Opened};
pub use keyring::{Keyring, KeyringError};
pub use recovery::RecoveryKey;
pub use seal::Place;
pub use secret::Secret;

use act::Domain;
use kernel::TenantId;
use std::sync::Arc;
use store::Store;
use zeroize::Zeroize as _;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("custody.secret_missing", "a credential names a secret that does not exist in the tenant"),
    ("custody.secret_revoked", "a credential names a secret that has been revoked"),
    (
        "custody.secret_damaged",
        "a sealed secret does not open: it was changed, moved, or sealed under another key",
    ),
    ("custody.secret_invalid", "a secret's name, purpose or value is outside its limits"),
    ("custody.key_exposed", "a key file can be read by others than its owner"),
    ("custody.key_missing", "the keys folder exists and lacks a file"),
    ("custody.key_damaged", "a key file is malformed, or not the one that the keyring was made with"),
    ("custody.key_storage", "the keys folder cannot be read or written"),
];

/// Opens and seals secrets. Cheap to clone.
#[derive(Clone)]
pub struct Custody {
    keyring: Arc<Keyring>,
}

impl Custody {
    /// Custody under the installation's keys.
    pub fn new(keyring: Arc<Keyring>) -> Custody {
        Custody { keyring }
    }

    /// The installation's keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Opens the secret that `reference` names in `tenant`. Who calls this has been permitted the act that names it, and
    /// states the intent, with the reference, before using the value.
    ///
    /// # Errors
    /// If there is none, it is revoked, it does not open, or storage cannot be read.
    pub async fn open(
        &self,
        store: &Store,
        tenant: &TenantId,
        reference: &CredentialRef,
    ) -> Result<Secret, CustodyError> {
        credential::open(&self.keyring, store, tenant, reference, None).await.map(|opened| opened.secret)
    }

    /// Opens every version of a secret that may be used at `now_ms`: the newest, and during an overlap the one before.
    ///
    /// # Errors
    /// As [`Custody::open`].
    pub async fn open_versions(
        &self,
        store: &Store,
        tenant: &TenantId,
        reference: &CredentialRef,
        now_ms: i64,
    ) -> Result<Opened, CustodyError> {
        credential::open(&self.keyring, store, tenant, reference, Some(now_ms)).await
    }

    /// Seals a value for a record of another domain, which keeps it and the key's id: for a secret that has no life of its
    /// own, such as the one that a webhook's deliveries are signed with. `entropy` is used once.
    pub fn seal(&self, place: Place<'_>, value: &Secret, mut entropy: [u8; 32]) -> (String, Vec<u8>) {
        let sealed = self.keyring.seal(place, value, &entropy);
        entropy.zeroize();
        sealed
    }

    /// Opens what [`Custody::seal`] sealed for the same place.
    ///
    /// # Errors
    /// If it does not open.
    pub fn unseal(&self, place: Place<'_>, key_id: &str, sealed: &[u8]) -> Result<Secret, CustodyError> {
        self.keyring.unseal(place, key_id, sealed).map_err(|_| CustodyError::Damaged)
    }
}

/// The domain's table.
pub fn domain(custody: &Custody) -> Domain {
    Domain {
        name: "custody",
        kinds: &["custody.secret"],
        facts: &["custody.secret.stored", "custody.secret.retired", "custody.secret.revoked"],
        verbs: credential::verbs(custody),
        routes: credential::routes(),
        jobs: Vec::new(),
        codes: CODES,
    }
}
