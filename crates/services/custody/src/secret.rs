//! A secret value in memory.
//!
//! `password: String` ends up in a log the day somebody derives `Debug` on the struct around it. [`Secret`] is a type for
//! which that does not compile: it has no `Debug`, no `Display`, no `Serialize` and no `Clone`, and it overwrites its
//! memory when it is dropped. To use the value one has to write [`Secret::expose`], which a reviewer can search for.
//!
//! What it does not do: keep the value out of swap or a core dump, or wipe copies that a library makes on its way to a
//! socket.

use zeroize::Zeroizing;

/// Largest secret, in bytes: a private key with its chain fits.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// A value that is used and never shown.
///
/// It cannot be printed:
///
/// ```compile_fail,E0277
/// let secret = custody::Secret::new(b"value".to_vec());
/// println!("{secret:?}");
/// ```
///
/// ```compile_fail,E0277
/// let secret = custody::Secret::new(b"value".to_vec());
/// println!("{secret}");
/// ```
///
/// It cannot be serialised:
///
/// ```compile_fail,E0277
/// let secret = custody::Secret::new(b"value".to_vec());
/// let _ = serde_json::to_string(&secret);
/// ```
///
/// It cannot be copied:
///
/// ```compile_fail,E0599
/// let secret = custody::Secret::new(b"value".to_vec());
/// let _ = secret.clone();
/// ```
///
/// What compiles is to use it:
///
/// ```
/// let secret = custody::Secret::new(b"value".to_vec());
/// assert_eq!(secret.expose().len(), 5);
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`; they are wiped when the secret is dropped.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// The value, for the one call that needs it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text; `None` if it is none.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}
