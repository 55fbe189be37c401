//! A store in whose commits a process can die: before the commit, or after it and before anybody hears of it.
//!
//! It stands around a real engine and passes everything on. When its time has come, a commit is carried out or not, and
//! never returns; whoever drives the process sees that it is dead and drops it.

use kernel::changeset::Changeset;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use store::{CommitError, Committed, Engine, Pending};
use testkit::around::Hook;

/// When the process dies.
#[derive(Debug, Default)]
pub struct Fate {
    /// Commits that still go through; negative for ever.
    left: AtomicI64,
    /// Whether the last one is carried out.
    after: AtomicBool,
    /// Whether it has died.
    dead: AtomicBool,
}

impl Fate {
    /// The process dies in its commit number `commit`, from 0: before it, or right after it.
    pub fn dies_in(&self, commit: i64, after: bool) {
        self.after.store(after, Ordering::SeqCst);
        self.left.store(commit, Ordering::SeqCst);
    }

    /// It lives for ever.
    pub fn spared(&self) {
        self.left.store(-1, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }

    /// Whether it has died.
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// Kills the process when its time has come.
pub struct Mortal(pub Arc<Fate>);

impl Hook for Mortal {
    fn commit<'a>(
        &'a self,
        inner: &'a dyn Engine,
        changeset: Changeset,
    ) -> Pending<'a, Result<Committed, CommitError>> {
        Box::pin(async move {
            let left = self.0.left.load(Ordering::SeqCst);
            if left > 0 {
                self.0.left.store(left - 1, Ordering::SeqCst);
            }
            if left == 0 {
                let committed = match self.0.after.load(Ordering::SeqCst) {
                    true => Some(inner.commit(changeset).await),
                    false => None,
                };
                self.0.dead.store(true, Ordering::SeqCst);
                tokio::task::yield_now().await;
                // What it would have said is never heard.
                drop(committed);
                return std::future::pending().await;
            }
            inner.commit(changeset).await
        })
    }
}
