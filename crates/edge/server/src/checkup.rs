//! What is wrong with this machine's half of an installation, found without starting it and without changing it.
//!
//! `writ doctor` asks here about the folder: is there one, may others read it, are the keys whole, is there room left. Every
//! finding says what to do, because the person who reads it has a server that does not start and no time for theory.
//! Nothing here opens the store: that takes its lock, and a running server holds it.

use crate::admin;
use crate::assemble::KEYS_FOLDER;
use crate::config::Config;
use act::Coded as _;
use custody::Keyring;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Below this many free bytes on the folder's device a server is about to stop: 64 MiB.
pub const FREE_BYTES_LEAST: u64 = 64 << 20;
/// Below this many it is time to make room: 1 GiB.
pub const FREE_BYTES_GOOD: u64 = 1 << 30;

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// It works, and somebody should know.
    Note,
    /// It does not work, or is not safe.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub says: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

impl Finding {
    /// A finding.
    pub fn new(what: &'static str, state: State, says: impl Into<String>, advice: &str) -> Finding {
        Finding { what, state, says: says.into(), advice: advice.to_owned() }
    }
}

/// Looks at the configured folder.
pub fn folder(config: &Config) -> Vec<Finding> {
    let folder = &config.folder;
    let shown = folder.display();
    if !folder.exists() {
        let advice = "`writ init` makes one; `writ serve` does it too. If it should be there, check `folder` and WRIT_FOLDER.";
        return vec![Finding::new("folder", State::Note, format!("there is no {shown}"), advice)];
    }
    let mut findings = vec![private("folder", folder, "chmod 700, and make new keys if others had access")];
    findings.push(match Keyring::open(&folder.join(KEYS_FOLDER)) {
        Ok(_) => Finding::new("keys", State::Good, "the four keys are there and belong together", ""),
        Err(error) => {
            let says = format!("{error} ({})", error.code());
            let advice = "Restore the folder `keys` from the backup that the rest of the folder came from; see docs/errors.";
            Finding::new("keys", State::Bad, says, advice)
        }
    });
    if folder.join(admin::SECRET_FILE).exists() {
        let advice = "Start the server once; it goes on where it stopped.";
        findings.push(Finding::new(
            "admin key",
            State::Note,
            "the first start did not come to its end",
            advice,
        ));
    } else if folder.join(admin::KEY_FILE).exists() {
        findings.push(private("admin key", &folder.join(admin::KEY_FILE), "chmod 600, and replace the key"));
    }
    findings.push(disk(folder));
    findings
}

/// Whether only the owner can read it.
pub fn private(what: &'static str, path: &Path, advice: &str) -> Finding {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            Finding::new(what, State::Good, format!("{shown}, readable by its owner alone"), "")
        }
        Ok(_) => Finding::new(what, State::Bad, format!("{shown} can be read by others"), advice),
        Err(error) => Finding::new(
            what,
            State::Bad,
            format!("{shown} cannot be looked at: {error}"),
            "Run this as the user that runs the server.",
        ),
    }
}

fn disk(folder: &Path) -> Finding {
    let free = match rustix::fs::statvfs(folder) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Finding::new("disk", State::Note, format!("free space cannot be asked for: {error}"), "");
        }
    };
    let says = format!("{} MiB free", free >> 20);
    let advice = "Make room: without it no act can be recorded, and so none is carried out.";
    match free {
        ..FREE_BYTES_LEAST => Finding::new("disk", State::Bad, says, advice),
        FREE_BYTES_LEAST..FREE_BYTES_GOOD => Finding::new("disk", State::Note, says, advice),
        FREE_BYTES_GOOD.. => Finding::new("disk", State::Good, says, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::SystemIds;
    use std::fs::{self, Permissions};

    fn states(config: &Config) -> Vec<(&'static str, State)> {
        folder(config).into_iter().map(|finding| (finding.what, finding.state)).collect()
    }

    #[test]
    fn a_folder_is_looked_at_and_not_changed() {
        let place = tempfile::tempdir().unwrap();
        let config = Config { folder: place.path().join("data"), ..Config::default() };
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(states(&config), [("folder", State::Note)]);
        assert!(!config.folder.exists());
        fs::create_dir(&config.folder).unwrap();
        mode(&config.folder, 0o755);
        assert_eq!(states(&config)[..2], [("folder", State::Bad), ("keys", State::Bad)]);
        mode(&config.folder, 0o700);
        let keys = config.folder.join(KEYS_FOLDER);
        Keyring::open_or_create(&keys, &SystemIds, 1).unwrap();
        assert_eq!(states(&config)[..2], [("folder", State::Good), ("keys", State::Good)]);
        let key = config.folder.join(admin::KEY_FILE);
        fs::write(&key, "key_a.b\n").unwrap();
        mode(&key, 0o644);
        assert_eq!(states(&config)[2], ("admin key", State::Bad));
        mode(&key, 0o600);
        assert_eq!(states(&config)[2], ("admin key", State::Good));
        fs::write(config.folder.join(admin::SECRET_FILE), "x").unwrap();
        assert_eq!(states(&config)[2], ("admin key", State::Note));
        fs::remove_file(keys.join("seal.key")).unwrap();
        assert_eq!(states(&config)[1], ("keys", State::Bad));
        // What is bad says what to do, and nothing says what is in a key.
        for finding in folder(&config) {
            assert!(finding.state == State::Good || !finding.advice.is_empty(), "{finding:?}");
            assert!(!finding.says.contains("key_a.b"), "{finding:?}");
        }
    }
}
