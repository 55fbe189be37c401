//! Sealing: a secret at rest.
//!
//! AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce. The associated data names the tenant, the record, its version
//! and the key, so that a ciphertext that is copied to another tenant, another secret, or over a newer version of the same
//! secret does not open: whoever can write to the database can destroy a secret, not swap one in.
//!
//! Each tenant has its own key, derived from the key-encryption key as HMAC-SHA256(KEK, label ‖ tenant), which is the
//! expand step of HKDF (RFC 5869) for one block; the KEK is uniformly random, so it needs no extract step. Deriving was
//! chosen over wrapping a data key per tenant because there is then no second record to lose, to guard and to keep in step
//! with the first. What it costs: one tenant cannot be shredded by deleting its wrapped key, its sealed records have to be
//! deleted; and a change of the KEK means sealing again rather than wrapping again. With random nonces a tenant's key is
//! good for 2³² seals.
//!
//! ```text
//! sealed = nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)
//! aad    = for each of label, tenant, record, version, key id: length as u32 big-endian ‖ bytes
//! ```

use crate::secret::Secret;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hmac::{Hmac, Mac as _};
use kernel::{Id, TenantId, hex};
use sha2::Sha256;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"writ/custody/secret/v1";
const TENANT_LABEL: &[u8] = b"writ/custody/tenant-key/v1\0";
const KEY_ID_LABEL: &[u8] = b"writ/custody/key-id/v1";

/// What a sealed value belongs to. All of it is authenticated.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// The record that holds it.
    pub record: &'a Id,
    /// The secret's version, from 1.
    pub version: u64,
}

/// The bytes do not open here: changed, moved, or sealed under another key. Which of these it was is not knowable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open")]
pub struct Unsealable;

/// The key-encryption key.
pub(crate) struct SealKey {
    kek: Zeroizing<[u8; 32]>,
    id: String,
}

impl SealKey {
    pub(crate) fn new(kek: Zeroizing<[u8; 32]>) -> SealKey {
        let id = hex::encode(&mac(&kek, KEY_ID_LABEL)[..8]);
        SealKey { kek, id: format!("kek_{id}") }
    }

    /// Identity of the key: a one-way derivation of it, so that it can stand beside what it sealed.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Seals `value`. `entropy` is fresh: its first 96 bits are the nonce and must never come twice.
    pub(crate) fn seal(&self, place: Place<'_>, value: &Secret, entropy: &[u8; 32]) -> Vec<u8> {
        let nonce: &[u8; NONCE_BYTES] = entropy.first_chunk().unwrap_or(&[0; NONCE_BYTES]);
        let aad = aad(place, &self.id);
        let payload = Payload { msg: value.expose(), aad: &aad };
        // The cipher refuses only messages of 2³⁶ bytes; a secret has at most SECRET_BYTES_MAX.
        let sealed = self.cipher(place.tenant).encrypt(nonce.into(), payload).unwrap_or_default();
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`SealKey::seal`] made for the same place.
    pub(crate) fn open(&self, place: Place<'_>, key_id: &str, sealed: &[u8]) -> Result<Secret, Unsealable> {
        if key_id != self.id || sealed.len() < NONCE_BYTES + TAG_BYTES {
            return Err(Unsealable);
        }
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Unsealable)?;
        let aad = aad(place, key_id);
        let value = self.cipher(place.tenant).decrypt(nonce.into(), Payload { msg: rest, aad: &aad });
        value.map(Secret::new).map_err(|_| Unsealable)
    }

    fn cipher(&self, tenant: &TenantId) -> Aes256Gcm {
        let key = mac(&self.kek, &[TENANT_LABEL, tenant.as_str().as_bytes()].concat());
        Aes256Gcm::new((&*key).into())
    }
}

fn mac(key: &[u8; 32], message: &[u8]) -> Zeroizing<[u8; 32]> {
    // HMAC pads a short key with zeros to the block of its hash, and this type wants it padded.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn aad(place: Place<'_>, key_id: &str) -> Vec<u8> {
    let version = place.version.to_be_bytes();
    let parts = [
        LABEL,
        place.tenant.as_str().as_bytes(),
        place.record.as_str().as_bytes(),
        &version,
        key_id.as_bytes(),
    ];
    let mut aad = Vec::with_capacity(160);
    for part in parts {
        // Ids and labels are far below four gigabytes.
        aad.extend_from_slice(&(part.len() as u32).to_be_bytes());
        aad.extend_from_slice(part);
    }
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SealKey {
        SealKey::new(Zeroizing::new([seed; 32]))
    }

    #[test]
    fn h07_opens_only_in_its_own_place_and_whole() {
        let (a, b) = (TenantId::parse("ten_a").unwrap(), TenantId::parse("ten_b").unwrap());
        let (x, y) = (Id::parse("sec_x").unwrap(), Id::parse("sec_y").unwrap());
        let home = Place { tenant: &a, record: &x, version: 2 };
        let key_a = key(1);
        let sealed = key_a.seal(home, &Secret::new(b"hunter2".to_vec()), &[9; 32]);
        let opens = |key: &SealKey, place, id: &str, bytes: &[u8]| key.open(place, id, bytes).is_ok();
        assert_eq!(key_a.open(home, key_a.id(), &sealed).ok().unwrap().expose(), b"hunter2");
        for (what, place) in [
            ("another tenant", Place { tenant: &b, ..home }),
            ("another record", Place { record: &y, ..home }),
            ("an older version", Place { version: 1, ..home }),
            ("a newer version", Place { version: 3, ..home }),
        ] {
            assert!(!opens(&key_a, place, key_a.id(), &sealed), "{what}");
        }
        let other = key(2);
        assert!(!opens(&other, home, other.id(), &sealed), "another key under its own name");
        assert!(!opens(&other, home, key_a.id(), &sealed), "another key under this name");
        assert!(!opens(&key_a, home, other.id(), &sealed), "this key under another name");
        for at in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[at] ^= 1;
            assert!(!opens(&key_a, home, key_a.id(), &touched), "byte {at} flipped");
            assert!(!opens(&key_a, home, key_a.id(), &sealed[..at]), "cut to {at}");
        }
    }

    #[test]
    fn two_seals_of_one_value_have_nothing_in_common() {
        let tenant = TenantId::parse("ten_a").unwrap();
        let record = Id::parse("sec_x").unwrap();
        let place = Place { tenant: &tenant, record: &record, version: 1 };
        let seal = |entropy| key(1).seal(place, &Secret::new(vec![0; 64]), &entropy);
        let (one, two) = (seal([1; 32]), seal([2; 32]));
        assert!(one.iter().zip(&two).filter(|(a, b)| a == b).count() < 16);
        assert!(!key(1).id().contains(&hex::encode(&[1; 8])), "the id is not the key");
    }

    #[test]
    fn the_form_at_rest_is_frozen() {
        // Computed by another implementation from the description above; a change that cannot open it needs a new label.
        let tenant = TenantId::parse("ten_a").unwrap();
        let record = Id::parse("sec_x").unwrap();
        let place = Place { tenant: &tenant, record: &record, version: 1 };
        let sealed = key(1).seal(place, &Secret::new(b"v".to_vec()), &[3; 32]);
        assert_eq!(
            (key(1).id(), hex::encode(&sealed).as_str()),
            ("kek_6cdd961f0de6c484", "0303030303030303030303033b4ae092654c2989bc9d0fc09878d587e1")
        );
    }
}
