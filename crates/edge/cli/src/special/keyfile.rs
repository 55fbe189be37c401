//! Files of signing keys: made in pairs, and refused where others than their owner can read them.

use super::printed;
use crate::exit::Failure;
use crate::output::Format;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use store::files;

/// A key that was drawn.
pub struct Drawn<'a> {
    /// What it is called in the answer: `policy_key`.
    pub member: &'a str,
    /// Its id.
    pub id: &'a str,
    /// What its file holds.
    pub key: &'a [u8],
    /// What the file of its public half holds.
    pub public: &'a [u8],
    /// The command that registers it, without its arguments.
    pub register: &'a str,
}

/// A new file that cannot be made is the caller's to name otherwise.
pub fn made(path: &Path, result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::Usage(format!("{} cannot be made: {error}", path.display())))
}

/// Writes a key to the new file `out`, its public half to `<out>.pub`, and says where they are.
pub fn keygen(out: &Path, drawn: &Drawn<'_>, format: Format) -> Result<(), Failure> {
    let mut public = out.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    made(&public, files::create_public(&public, drawn.public))?;
    if let Err(failure) = made(out, files::create(out, drawn.key)) {
        // A public half without its key would only mislead.
        let _ = fs::remove_file(&public);
        return Err(failure);
    }
    made(out, files::folder_flush(files::above(out)))?;
    let lines = format!(
        "{}\n  signing key: {}  (keep it; only its owner can read it)\n  public key:  {}\nRegister it: {} --name NAME --public-key @{}",
        drawn.id,
        out.display(),
        public.display(),
        drawn.register,
        public.display()
    );
    let mut value = json!({"key_file": out, "public_key_file": public});
    value[drawn.member] = json!(drawn.id);
    printed(&value, &lines, format)
}

/// Refuses a key that others than its owner can read. One that is not there is for its reader to miss.
pub fn private(path: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let message = format!(
            "{} can be read by others than its owner: chmod 600, and think about who has read it",
            path.display()
        );
        return Err(Failure::Usage(message));
    }
    Ok(())
}
