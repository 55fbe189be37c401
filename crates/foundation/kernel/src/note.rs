//! C2SP signed notes and transparency-log checkpoints.
//!
//! A checkpoint is three lines, origin, size and root, signed as a note; nothing of ours is added to either format,
//! so any C2SP tool reads them:
//!
//! ```text
//! writ.example/local/ten_acme/1
//! 42
//! qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=
//!
//! — writ.example/local/ten_acme/1 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```
//!
//! Grammar is taken literally: no leading zeros, canonical base64, a final newline, no extension lines.
//! Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint.

use crate::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use std::fmt;

/// Largest note read, in bytes.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// Most signature lines looked at.
pub const SIGNATURES_MAX: usize = 16;
const ED25519: u8 = 0x01;

/// A named Ed25519 public key, spelled `name+hash+key` as a C2SP verifier key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

/// Why a note, a key or a checkpoint is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text does not follow the grammar.
    #[error("malformed signed note")]
    Malformed,
    /// No signature by the key asked for.
    #[error("no signature by the expected key")]
    UnknownKey,
    /// A signature by that key that does not verify.
    #[error("the signature does not verify")]
    Signature,
    /// The text is signed but no checkpoint.
    #[error("the note is no checkpoint")]
    NotACheckpoint,
}

/// Whether `name` may name a key: not empty, no white space, no plus sign, printable.
fn name_ok(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c != '+' && !c.is_whitespace() && !c.is_control())
}

impl VerifierKey {
    /// A key under a name.
    pub fn new(name: &str, key: VerifyingKey) -> Result<VerifierKey, NoteError> {
        if name_ok(name) { Ok(VerifierKey { name: name.to_owned(), key }) } else { Err(NoteError::Malformed) }
    }

    /// Reads `name+hash+key`.
    pub fn parse(text: &str) -> Result<VerifierKey, NoteError> {
        // The base64 part may itself contain plus signs; name and hash may not.
        let mut parts = text.splitn(3, '+');
        let (name, hash, key) = match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(hash), Some(key)) => (name, hash, key),
            _ => return Err(NoteError::Malformed),
        };
        let bytes = BASE64.decode(key).map_err(|_| NoteError::Malformed)?;
        let Some((ED25519, key)) = bytes.split_first().map(|(kind, key)| (*kind, key)) else {
            return Err(NoteError::Malformed);
        };
        let key: [u8; 32] = key.try_into().map_err(|_| NoteError::Malformed)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| NoteError::Malformed)?;
        let parsed = VerifierKey::new(name, key)?;
        if crate::hex::encode(&parsed.hash()) == hash { Ok(parsed) } else { Err(NoteError::Malformed) }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The four-byte key id of the note format.
    pub fn hash(&self) -> [u8; 4] {
        key_hash(&self.name, &self.key)
    }

    /// Checks that `note` carries this key's signature and returns the signed text.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, NoteError> {
        let (text, signatures) = parse(note)?;
        for signature in signatures {
            if signature.name == self.name && signature.hash == self.hash() {
                let bytes: [u8; 64] =
                    signature.bytes.as_slice().try_into().map_err(|_| NoteError::Signature)?;
                return match self.key.verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes)) {
                    Ok(()) => Ok(text),
                    Err(_) => Err(NoteError::Signature),
                };
            }
        }
        Err(NoteError::UnknownKey)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, crate::hex::encode(&self.hash()), BASE64.encode(bytes))
    }
}

fn key_hash(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(b'\n');
    bytes.push(ED25519);
    bytes.extend_from_slice(key.as_bytes());
    let digest = crate::sha256(&bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

/// Signs `text`, which ends in a newline, under `name`.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<String, NoteError> {
    if !text.ends_with('\n') || !name_ok(name) {
        return Err(NoteError::Malformed);
    }
    let mut bytes = key_hash(name, &key.verifying_key()).to_vec();
    bytes.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
    Ok(format!("{text}\n— {name} {}\n", BASE64.encode(bytes)))
}

struct SignatureLine<'n> {
    name: &'n str,
    hash: [u8; 4],
    bytes: Vec<u8>,
}

fn parse(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    if note.len() > NOTE_BYTES_MAX || note.chars().any(|c| c != '\n' && c.is_control()) {
        return Err(NoteError::Malformed);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, lines) = (&note[..at + 1], &note[at + 2..]);
    let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    if lines.split('\n').count() > SIGNATURES_MAX {
        return Err(NoteError::Malformed);
    }
    let signatures = lines
        .split('\n')
        .map(|line| {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = BASE64.decode(signature).ok()?;
            let (hash, bytes) = bytes.split_first_chunk::<4>()?;
            (name_ok(name) && !bytes.is_empty()).then(|| SignatureLine {
                name,
                hash: *hash,
                bytes: bytes.to_vec(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(NoteError::Malformed)?;
    Ok((text, signatures))
}

/// The head of a log: its origin, size and root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `<installation>/<cell>/<tenant>/<epoch>`
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// Signs it under the name of its origin.
    pub fn sign(&self, key: &SigningKey) -> Result<String, NoteError> {
        sign(&self.text(), &self.origin, key)
    }

    /// Opens a signed checkpoint. The origin in its text must be the key's name: a key signs for one log.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, NoteError> {
        let text = key.open(note)?;
        let checkpoint = Checkpoint::parse(text).ok_or(NoteError::NotACheckpoint)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(NoteError::NotACheckpoint) }
    }

    /// Reads the signed text, literally.
    fn parse(text: &str) -> Option<Checkpoint> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        if lines.next().is_some() || !name_ok(origin) {
            return None;
        }
        let size_ok =
            size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let root: Digest = BASE64.decode(root).ok()?.try_into().ok()?;
        size_ok.then_some(())?;
        Some(Checkpoint { origin: origin.to_owned(), size: size.parse().ok()?, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "writ.test/local/ten_a/1".into(), size: 3, root: [1; 32] }
    }

    fn verifier() -> VerifierKey {
        VerifierKey::new("writ.test/local/ten_a/1", key().verifying_key()).unwrap()
    }

    #[test]
    fn signs_and_opens() {
        let note = checkpoint().sign(&key()).unwrap();
        assert_eq!(Checkpoint::open(&note, &verifier()), Ok(checkpoint()));
        assert_eq!(VerifierKey::parse(&verifier().to_string()), Ok(verifier()));
    }

    #[test]
    fn refuses_everything_else() {
        let note = checkpoint().sign(&key()).unwrap();
        let stranger =
            VerifierKey::new("writ.test/local/ten_a/1", SigningKey::from_bytes(&[8; 32]).verifying_key())
                .unwrap();
        assert_eq!(Checkpoint::open(&note, &stranger), Err(NoteError::UnknownKey));
        let renamed = VerifierKey::new("writ.test/local/ten_b/1", key().verifying_key()).unwrap();
        assert_eq!(Checkpoint::open(&note, &renamed), Err(NoteError::UnknownKey));
        for (from, to, error) in [
            ("\n3\n", "\n4\n", NoteError::Signature),
            ("\n3\n", "\n03\n", NoteError::Signature),
            ("— ", "- ", NoteError::Malformed),
            ("=\n", "\n", NoteError::Signature),
            ("— writ", "— writ ", NoteError::Malformed),
            ("\n\n", "\n", NoteError::Malformed),
            ("writ", "wr\tit", NoteError::Malformed),
        ] {
            assert_eq!(
                Checkpoint::open(&note.replacen(from, to, 1), &verifier()),
                Err(error),
                "{from:?} → {to:?}"
            );
        }
        assert_eq!(Checkpoint::open(note.trim_end(), &verifier()), Err(NoteError::Malformed));
    }

    #[test]
    fn the_text_is_taken_literally() {
        let name = "writ.test/local/ten_a/1";
        let root = BASE64.encode([1; 32]);
        for text in [
            format!("{name}\n03\n{root}\n"),
            format!("{name}\n+3\n{root}\n"),
            format!("{name}\n3\n{root}\nextension\n"),
            format!("{name}\n3\n{}\n", BASE64.encode([1; 31])),
            format!("{name}\n18446744073709551616\n{root}\n"),
            format!("other\n3\n{root}\n"),
            format!("{name}\n3\n"),
        ] {
            let note = sign(&text, name, &key()).unwrap();
            assert_eq!(Checkpoint::open(&note, &verifier()), Err(NoteError::NotACheckpoint), "{text}");
        }
        for bad in ["", "a", "a+b", "a+00000000+AQ==", "+0+0"] {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
    }

    /// A root, a signature and a key each have one spelling.
    #[test]
    fn g05_only_the_canonical_base64_is_read() {
        let (name, root) = ("writ.test/local/ten_a/1", BASE64.encode([1; 32]));
        // The last letter before the padding carries two bits that stand for nothing.
        let spilled = root.replace("E=", "F=");
        assert_ne!(spilled, root);
        for spelt in [
            spilled,
            root.trim_end_matches('=').to_owned(),
            format!("{root}="),
            format!("{root} "),
            root.replace('A', "-"),
            crate::hex::encode(&[1; 32]),
        ] {
            let note = sign(&format!("{name}\n3\n{spelt}\n"), name, &key()).unwrap();
            assert_eq!(Checkpoint::open(&note, &verifier()), Err(NoteError::NotACheckpoint), "{spelt}");
        }
        let note = checkpoint().sign(&key()).unwrap();
        let signature = note.trim_end().rsplit(' ').next().unwrap();
        for spelt in [
            signature.trim_end_matches('=').to_owned(),
            format!("{signature}="),
            signature.replace(['+', '/'], "-"),
            format!("{}=", &signature[..signature.len() - 1]),
            String::new(),
            "====".into(),
        ] {
            if spelt != signature {
                let bent = note.replace(signature, &spelt);
                assert!(Checkpoint::open(&bent, &verifier()).is_err(), "{spelt}");
            }
        }
    }
}
