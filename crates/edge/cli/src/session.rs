//! Which installation, as whom, in which tenant.

use crate::exit::Failure;
use cli::furnish::monotonic_ms;
use client::Client;
use std::path::PathBuf;

/// The options that every command takes.
#[derive(Debug, Clone)]
pub struct Session {
    /// Address of the installation.
    pub url: String,
    /// File with the API key, if it is not in the environment.
    pub key_file: Option<PathBuf>,
    /// Whether the file was named on the command line, which goes before the environment.
    pub key_file_named: bool,
    /// Tenant to act in, if it is not the key's own.
    pub tenant: Option<String>,
}

impl Session {
    /// The key: from `--key-file`, else from `WRIT_KEY`. It is never an argument, where other users of the machine see it.
    fn key(&self) -> Result<String, Failure> {
        let in_environment = std::env::var("WRIT_KEY").unwrap_or_default();
        match &self.key_file {
            // Whichever were taken, somebody else might act than whoever typed this believes.
            Some(file) if !self.key_file_named && !in_environment.is_empty() => Err(Failure::Usage(format!(
                "WRIT_KEY and WRIT_KEY_FILE ({}) are both set; unset one, or say --key-file",
                file.display()
            ))),
            Some(file) => std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|error| {
                Failure::Usage(format!(
                    "the key file {} (--key-file, WRIT_KEY_FILE) cannot be read: {error}",
                    file.display()
                ))
            }),
            None => Ok(in_environment),
        }
    }

    /// Whether a key is given at all.
    pub fn has_key(&self) -> bool {
        self.key().is_ok_and(|key| !key.is_empty())
    }

    /// A client without a key, for what anybody may ask.
    pub fn keyless(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url, String::new(), None, monotonic_ms)?)
    }

    /// A client.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url, self.key()?, self.tenant.clone(), monotonic_ms)?)
    }
}
