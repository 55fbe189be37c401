//! Keys as files.

use crate::house::Counting;
use custody::{Keyring, KeyringError};
use kernel::note::Checkpoint;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const FILES: [&str; 5] = ["log.key", "evidence.key", "policy.key", "seal.key", "keyring.json"];

fn open(folder: &Path) -> Result<Keyring, KeyringError> {
    Keyring::open_or_create(folder, &Counting::default(), 5)
}

fn code(result: Result<Keyring, KeyringError>) -> String {
    match result {
        Ok(_) => "opened".into(),
        Err(error) => act::Coded::code(&error).into(),
    }
}

#[test]
fn keys_are_made_once_and_come_back() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("a/keys");
    let made = open(&folder).unwrap();
    // Other entropy, another time: what is there wins.
    let again = Keyring::open_or_create(&folder, &act::SystemIds, 9).unwrap();
    assert_eq!((made.created_at_ms(), again.created_at_ms()), (5, 5));
    assert_eq!(made.log_key(), again.log_key());
    assert_eq!(made.evidence_key(), again.evidence_key());
    assert_eq!(made.policy_key().verifying_key(), again.policy_key().verifying_key());
    assert_ne!(made.log_key(), made.evidence_key(), "two jobs, two keys");

    let checkpoint = Checkpoint { origin: "writ.test/local/ten_a/1".into(), size: 3, root: [1; 32] };
    let note = made.checkpoint_sign(&checkpoint).unwrap();
    assert_eq!(
        Checkpoint::open(&note, &again.log_verifier("writ.test/local/ten_a/1").unwrap()),
        Ok(checkpoint)
    );
    let signature = ed25519_dalek::Signature::from_bytes(&made.evidence_sign(b"m"));
    assert!(again.evidence_key().verify_strict(b"m", &signature).is_ok());
    assert!(again.log_key().verify_strict(b"m", &signature).is_err());

    let siblings: Vec<_> = fs::read_dir(home.path().join("a")).unwrap().collect();
    assert_eq!(siblings.len(), 1, "no half-made folder is left behind");
}

#[test]
fn only_the_owner_can_read_them() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("keys");
    open(&folder).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in FILES {
        let path = folder.join(file);
        assert_eq!(mode(&path), 0o600, "{file}");
        for (bits, expected) in
            [(0o640, "custody.key_exposed"), (0o604, "custody.key_exposed"), (0o400, "opened")]
        {
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            // The public description may be read by anybody.
            let expected = if file == "keyring.json" { "opened" } else { expected };
            assert_eq!(code(open(&folder)), expected, "{file} {bits:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn what_is_missing_swapped_or_damaged_is_refused_and_never_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let other = home.path().join("other");
    Keyring::open_or_create(&other, &act::SystemIds, 5).unwrap();
    for file in FILES {
        let folder = home.path().join(format!("keys-{file}"));
        open(&folder).unwrap();
        let path = folder.join(file);
        let good = fs::read(&path).unwrap();
        let check = |what: &str, bytes: Option<&[u8]>, expected: &str| {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert_eq!(code(open(&folder)), expected, "{file}: {what}");
            fs::write(&path, &good).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(code(open(&folder)), "opened", "{file}: restored");
        };
        let neighbour =
            fs::read(folder.join(if file == "log.key" { "evidence.key" } else { "log.key" })).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        check("missing", None, "custody.key_missing");
        check("empty", Some(b""), "custody.key_damaged");
        check("cut", Some(&good[..good.len() - 3]), "custody.key_damaged");
        check("longer", Some(&[good.as_slice(), b"x"].concat()), "custody.key_damaged");
        check("flipped", Some(&flipped), "custody.key_damaged");
        check("its neighbour's", Some(&neighbour), "custody.key_damaged");
        check("another installation's", Some(&fs::read(other.join(file)).unwrap()), "custody.key_damaged");
        check("huge", Some(&vec![b'A'; 1 << 20]), "custody.key_damaged");
    }
}

#[test]
fn many_who_start_at_once_get_the_same_keys() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("keys");
    let keys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Keyring::open_or_create(&folder, &act::SystemIds, 5).unwrap().log_key()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn errors_say_which_file_and_not_what_is_in_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("keys");
    open(&folder).unwrap();
    let canary = "writ-log-ed25519-v1 Q0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZ!\n";
    fs::write(folder.join("log.key"), canary).unwrap();
    let Err(error) = open(&folder) else { panic!("a damaged key opened") };
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("log.key") && !shown.contains("Q0FO"), "{shown}");
}
