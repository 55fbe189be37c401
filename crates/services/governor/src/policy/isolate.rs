//! Runs work on foreign rules where it can do no harm to the caller.
//!
//! Parsing and compiling are recursive. A stack overflow is not a panic: it ends the process. So this work gets
//! a thread of its own with a stack that the limits of [`super::lint`] cannot fill, a panic there is an answer,
//! and the caller waits only so long. A thread that is still busy then is left behind; it holds nothing but its
//! own copy of the bundle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

/// Several times what the deepest nesting that passes the token check needs in a debug build. Only touched pages
/// are ever backed by memory.
const STACK_BYTES: usize = 64 << 20;
/// Compiling the largest bundle accepted takes well under a second.
const WAIT: Duration = Duration::from_secs(10);

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The work panicked, or no thread could be had for it.
    Panicked,
    /// The work did not end in time.
    TooSlow,
}

/// Runs `work` on a thread of its own and waits for it, within limits.
pub(super) fn isolated<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned =
        std::thread::Builder::new().name("policy".into()).stack_size(STACK_BYTES).spawn(move || {
            // The receiver may have given up waiting; then there is nobody to tell.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        });
    if spawned.is_err() {
        return Err(Lost::Panicked);
    }
    match receiver.recv_timeout(WAIT) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => Err(Lost::Panicked),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Lost::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(isolated(|| 1), Ok(1));
        assert_eq!(isolated(|| -> u8 { panic!("as asked") }), Err(Lost::Panicked));
    }
}
