//! Files that outlive a power loss.
//!
//! A file is there for good once its bytes are flushed *and* the folder that names it is: of a file that was made and
//! flushed alone, a power loss may leave nothing. And a name that had a content keeps it or gets the new one whole, because
//! the new one is made under another name and renamed. Unless it says otherwise, what is made here is readable by its
//! owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tempfile::NamedTempFile;

/// Makes a new file and flushes it; its name lasts once its folder is flushed ([`folder_flush`]).
///
/// # Errors
/// `AlreadyExists` if there is something; whatever the system says.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_as(path, 0o600, bytes)
}

/// The same for what everybody may read.
///
/// # Errors
/// As [`create`].
pub fn create_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_as(path, 0o644, bytes)
}

fn create_as(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a new file that is there whole or not at all, and lastingly.
///
/// # Errors
/// As [`create`].
pub fn create_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    staged(path, bytes)?.persist_noclobber(path)?;
    folder_flush(above(path))
}

/// Gives a name this content, whole or not at all, and lastingly. Of two writers at once, the name has what one of them wrote.
///
/// # Errors
/// Whatever the system says; then the name has the content that it had.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    staged(path, bytes)?.persist(path)?;
    folder_flush(above(path))
}

/// The content beside its name, under one that nobody else has. Whoever dies here leaves it there.
fn staged(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new-");
    let mut file = tempfile::Builder::new().prefix(&name).tempfile_in(above(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The folder that a name stands in; of a bare name, the working folder.
pub fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Flushes a folder: what was made, renamed or removed in it lasts.
///
/// # Errors
/// Whatever the system says, unless it says that this file system's folders need no flush.
pub fn folder_flush(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        flushed => flushed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_name_has_the_old_content_or_the_new_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("name");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(create_whole(&path, b"second").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let whole = place.path().join("whole");
        create_whole(&whole, b"x").unwrap();
        assert_eq!(fs::metadata(&whole).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing is left beside");
        // A name that cannot be had leaves the folder's other names alone.
        fs::create_dir(place.path().join("taken")).unwrap();
        assert!(replace(&place.path().join("taken"), b"x").is_err());
        assert!(place.path().join("taken").is_dir());
    }

    #[test]
    fn a_bare_name_stands_in_the_working_folder() {
        for (path, folder) in [("a", "."), ("a/b", "a"), ("/a", "/"), ("../a", "..")] {
            assert_eq!(above(Path::new(path)), Path::new(folder));
        }
        assert!(folder_flush(Path::new("/nowhere/at/all")).is_err());
    }
}
