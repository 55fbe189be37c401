//! The high-water mark: how far the history had come, kept where the database is not.
//!
//! Somebody stops the server, copies last week's folder over today's and starts it. Nothing inside the folder can tell: all
//! of it is last week's, and fits together. So each time a checkpoint was kept, and before anybody is told of it, a line
//! goes into a file elsewhere: which installation (the public key of its logs), which epoch, and how many checkpoints were
//! ever kept. A database that is behind its mark has been put back. So has one whose mark is gone or is another
//! installation's, unless it never kept a checkpoint: what cannot be compared is not taken on trust.
//!
//! What it cannot see: a mark put back together with the database, as a snapshot of the whole machine does. That is found
//! by whoever outside holds a newer checkpoint. Keep it on another disk than the folder.
//!
//! While a database is put back its mark is left alone; opening an epoch, which is newer than the mark's, moves it on.

use super::epochs;
use crate::{CommitError, Standing, files};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest mark read, in bytes.
const BYTES_MAX: u64 = 4096;

/// Why a mark cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The file cannot be read or written.
    #[error("the mark {0} cannot be kept")]
    File(PathBuf, #[source] io::Error),
    /// The writer has failed.
    #[error(transparent)]
    Commit(CommitError),
}

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    version: u32,
    /// Public key of the installation's logs, hexadecimal.
    key: String,
    epoch: u64,
    generation: u64,
}

/// What was found in its place.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Damaged,
    Line(Line),
}

/// A mark that is kept.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    key: String,
}

impl Mark {
    /// Compares the database with its mark and brings the mark up to it, or writes down that the database was put back.
    pub fn begin(db: &Connection, path: PathBuf, key: String) -> rusqlite::Result<Result<Mark, MarkError>> {
        let found = match read(&path) {
            Ok(found) => found,
            Err(error) => return Ok(Err(MarkError::File(path, error))),
        };
        let standing = epochs::standing(db)?;
        let known = match &found {
            Found::Line(line) => epochs::known(db, line.epoch)?,
            Found::Nothing | Found::Damaged => false,
        };
        if let Some(why) = judge(&standing, known, &found, &key) {
            epochs::put_back(db, &why)?;
        }
        let mark = Mark { path, key };
        let Standing { epoch, generation, .. } = standing;
        // A full disk is no reason not to start: what is right already is left as it is.
        if found == Found::Line(Line { version: 1, key: mark.key.clone(), epoch, generation }) {
            return Ok(Ok(mark));
        }
        Ok(match mark.advance(db)? {
            Ok(()) => Ok(mark),
            Err(error) => Err(MarkError::File(mark.path, error)),
        })
    }

    /// Writes where the database stands, unless that was put back.
    pub fn advance(&self, db: &Connection) -> rusqlite::Result<io::Result<()>> {
        let Standing { epoch, generation, put_back } = epochs::standing(db)?;
        if put_back.is_some() {
            return Ok(Ok(()));
        }
        Ok(write(&self.path, &Line { version: 1, key: self.key.clone(), epoch, generation }))
    }
}

/// Why a database does not continue what its mark says; `None`: it does.
fn judge(standing: &Standing, known: bool, found: &Found, key: &str) -> Option<String> {
    let begun = standing.generation > 0;
    match found {
        Found::Nothing => begun
            .then(|| "its high-water mark is gone: this folder was moved or copied without it".to_owned()),
        Found::Damaged => Some("its high-water mark cannot be understood".to_owned()),
        Found::Line(line) if line.key != key => {
            begun.then(|| "its high-water mark is another installation's".to_owned())
        }
        Found::Line(line) => {
            let went_back = if line.epoch == standing.epoch {
                line.generation > standing.generation
            } else {
                line.epoch > standing.epoch || !known
            };
            went_back.then(|| {
                format!(
                    "it has kept {} checkpoints in epoch {}, and its high-water mark says {} in epoch {}",
                    standing.generation, standing.epoch, line.generation, line.epoch
                )
            })
        }
    }
}

fn read(path: &Path) -> io::Result<Found> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Damaged),
        Err(error) => return Err(error),
    }
    let line = serde_json::from_str::<Line>(&text).ok().filter(|line| line.version == 1);
    Ok(line.map_or(Found::Damaged, Found::Line))
}

fn write(path: &Path, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    files::replace(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_continue_its_mark_was_put_back() {
        let line = |key: &str, epoch, generation| {
            Found::Line(Line { version: 1, key: key.to_owned(), epoch, generation })
        };
        // Epoch and generation of the database, whether it knows the mark's epoch, the mark, and whether it was put back.
        for (epoch, generation, known, found, put_back) in [
            (1, 0, true, Found::Nothing, false),
            (1, 1, true, Found::Nothing, true),
            (1, 0, true, Found::Damaged, true),
            (1, 0, true, line("other", 9, 9), false),
            (1, 1, true, line("other", 1, 1), true),
            (1, 5, true, line("ours", 1, 5), false),
            (1, 6, true, line("ours", 1, 5), false),
            (1, 4, true, line("ours", 1, 5), true),
            (1, 0, true, line("ours", 1, 5), true),
            // The mark was not moved on after an epoch had been opened.
            (7, 2, true, line("ours", 1, 5), false),
            // From before the epoch that the mark speaks of.
            (1, 9, false, line("ours", 7, 5), true),
            // From another line of epochs.
            (9, 9, false, line("ours", 7, 5), true),
        ] {
            let standing = Standing { epoch, generation, put_back: None };
            assert_eq!(judge(&standing, known, &found, "ours").is_some(), put_back, "{standing:?} {found:?}");
        }
    }

    #[test]
    fn a_mark_comes_back_and_anything_else_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        let line = Line { version: 1, key: "ab".into(), epoch: 20_261_121_154_500, generation: 3 };
        write(&path, &line).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Line(line));
        for bad in [&b""[..], b"{}", b"\xff", b"{\"version\":2,\"key\":\"ab\",\"epoch\":1,\"generation\":1}"]
        {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Damaged, "{bad:?}");
        }
    }
}
