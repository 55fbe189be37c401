//! Keys that sign policy, as their owners hold them: P-256, in the PEM that other tools read and write.
//!
//! A tenant's policy is signed where the tenant keeps its keys, never here: the installation knows public halves only, and
//! an administrator of the platform cannot speak for a tenant. The private half is PKCS#8 (RFC 5958), the public one
//! SubjectPublicKeyInfo (RFC 5480), so `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one too.
//!
//! A key's id is a hash of the public key: it names the same key everywhere, and nobody can register another under it.

use super::bundle::{BundleError, bundle_sign};
use kernel::{hex, sha256};
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
};

/// Largest PEM that is read, in bytes.
pub const PEM_BYTES_MAX: usize = 4096;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not a public key of the kind that is taken.
    #[error("a public key is P-256 in PEM, as in -----BEGIN PUBLIC KEY-----")]
    Public,
    /// Not a private key of the kind that is taken.
    #[error("a signing key is P-256 in PKCS#8 PEM, without a passphrase, as in -----BEGIN PRIVATE KEY-----")]
    Private,
}

/// A private key that signs policy. It is not printable.
pub struct Signer(SigningKey);

impl Signer {
    /// A key from 32 random bytes; `None` for the one draw in 2³² that is no key.
    pub fn from_entropy(bytes: &[u8; 32]) -> Option<Signer> {
        SigningKey::from_slice(bytes).ok().map(Signer)
    }

    /// Reads a private key.
    ///
    /// # Errors
    /// If it is none, of another kind, or under a passphrase.
    pub fn from_pem(text: &str) -> Result<Signer, SignerError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(SignerError::Private);
        }
        SigningKey::from_pkcs8_pem(text.trim()).map(Signer).map_err(|_| SignerError::Private)
    }

    /// The private key as a text, wiped when it is dropped.
    ///
    /// # Errors
    /// None for a key that exists; the format has a case for it.
    pub fn to_pem(&self) -> Result<impl AsRef<[u8]> + use<>, SignerError> {
        let text = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| SignerError::Private)?;
        Ok(Text(text))
    }

    /// The public half as a text.
    ///
    /// # Errors
    /// None for a key that exists; the format has a case for it.
    pub fn public_pem(&self) -> Result<String, SignerError> {
        public_pem(self.0.verifying_key())
    }

    /// The key's id.
    pub fn id(&self) -> String {
        key_id(self.0.verifying_key())
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        *self.0.verifying_key()
    }

    /// Signs an unsigned archive for a scope: `platform`, or a tenant's id.
    ///
    /// # Errors
    /// As [`bundle_sign`].
    pub fn sign(&self, unsigned: &[u8], scope: &str) -> Result<Vec<u8>, BundleError> {
        bundle_sign(unsigned, &self.id(), scope, &self.0)
    }
}

struct Text<T>(T);

impl<T: AsRef<str>> AsRef<[u8]> for Text<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_bytes()
    }
}

/// Reads a public key.
///
/// # Errors
/// If it is none, or of another kind.
pub fn public_parse(text: &str) -> Result<VerifyingKey, SignerError> {
    if text.len() > PEM_BYTES_MAX {
        return Err(SignerError::Public);
    }
    VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| SignerError::Public)
}

/// A public key as a text: one spelling for each key.
///
/// # Errors
/// None for a key that exists; the format has a case for it.
pub fn public_pem(key: &VerifyingKey) -> Result<String, SignerError> {
    key.to_public_key_pem(LineEnding::LF).map_err(|_| SignerError::Public)
}

/// `plk_` and 32 hexadecimal digits of the SHA-256 of the public point, uncompressed (SEC 1 §2.3.3).
pub fn key_id(key: &VerifyingKey) -> String {
    let digest = hex::encode(&sha256(key.to_sec1_point(false).as_bytes()));
    // A digest has 64 digits.
    format!("plk_{}", digest.get(..32).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:…`, and its public half by `openssl pkey -pubout`.
    const OPENSSL: &str = include_str!("../../tests/it/keys/p256.pem");
    const OPENSSL_PUBLIC: &str = include_str!("../../tests/it/keys/p256.pub.pem");
    const P384: &str = include_str!("../../tests/it/keys/p384.pem");
    const P384_PUBLIC: &str = include_str!("../../tests/it/keys/p384.pub.pem");

    #[test]
    fn keys_go_out_and_come_back() {
        assert!(Signer::from_entropy(&[0; 32]).is_none());
        let signer = Signer::from_entropy(&[7; 32]).unwrap();
        let text = String::from_utf8(signer.to_pem().unwrap().as_ref().to_vec()).unwrap();
        assert_eq!(Signer::from_pem(&text).unwrap().id(), signer.id());
        let public = public_parse(&signer.public_pem().unwrap()).unwrap();
        assert_eq!(key_id(&public), signer.id());
        assert!(kernel::Id::parse(&signer.id()).is_ok(), "{}", signer.id());
        assert_ne!(Signer::from_entropy(&[8; 32]).unwrap().id(), signer.id());
    }

    #[test]
    fn keys_of_other_tools_are_read_and_other_kinds_are_not() {
        let signer = Signer::from_pem(OPENSSL).unwrap();
        assert_eq!(signer.public_pem().unwrap(), OPENSSL_PUBLIC);
        assert_eq!(key_id(&public_parse(&OPENSSL_PUBLIC.replace('\n', "\r\n")).unwrap()), signer.id());
        for (what, text) in [
            ("another curve", P384),
            ("a public key", OPENSSL_PUBLIC),
            ("nothing", ""),
            ("a text", "hunter2"),
            ("too long", &" ".repeat(PEM_BYTES_MAX + 1)),
        ] {
            assert_eq!(Signer::from_pem(text).map(|_| ()), Err(SignerError::Private), "{what}");
        }
        for (what, text) in [
            ("another curve", P384_PUBLIC),
            ("a private key", OPENSSL),
            ("nothing", ""),
            ("cut", &OPENSSL_PUBLIC[..80]),
            ("two keys", &OPENSSL_PUBLIC.repeat(2)),
            ("too long", &" ".repeat(PEM_BYTES_MAX + 1)),
        ] {
            assert_eq!(public_parse(text).map(|_| ()), Err(SignerError::Public), "{what}");
        }
    }
}
