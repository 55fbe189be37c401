//! Work that outlives whoever asked for it.
//!
//! When a caller closes its connection, the web framework drops the handler, wherever it stands. For a read that is right.
//! An act would be left between its commit and what follows from it: leases that nobody runs until they have expired. So
//! acts, and the pumps of event streams, run on a set of their own, bounded, and waited for at the end.

use futures::FutureExt as _;
use parking_lot::Mutex;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

/// Waits until the server stops. That whoever says so is gone is a stop as well.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Why a piece of work has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// There is as much under way as there may be.
    #[error("too much is under way")]
    Full,
    /// It panicked.
    #[error("a task panicked")]
    Panicked,
}

/// A bounded set of tasks that somebody waits for.
pub struct Tasks {
    set: Mutex<JoinSet<()>>,
    slots: Arc<Semaphore>,
}

impl Tasks {
    /// A set of at most `limit` tasks.
    pub fn new(limit: usize) -> Tasks {
        Tasks { set: Mutex::default(), slots: Arc::new(Semaphore::new(limit)) }
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, TaskError> {
        self.slots.clone().try_acquire_owned().map_err(|_| TaskError::Full)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock();
        while set.try_join_next().is_some() {}
        set.spawn(work);
    }

    /// Runs `work` to its end, even if this future is dropped, and returns what it came to.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, TaskError> {
        let slot = self.slot()?;
        let (result, outcome) = oneshot::channel();
        self.spawn(async move {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            drop(slot);
            // Whoever asked may have gone.
            let _ = result.send(done);
        });
        match outcome.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(TaskError::Panicked),
        }
    }

    /// Starts `work` that nobody needs a result of.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), TaskError> {
        let slot = self.slot()?;
        self.spawn(async move {
            let _slot = slot;
            work.await;
        });
        Ok(())
    }

    /// Waits until everything has ended, at most `within`; what is left then is stopped where it stands.
    pub async fn drain(&self, within: Duration) {
        let mut set = std::mem::take(&mut *self.set.lock());
        let ended = tokio::time::timeout(within, async { while set.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!(left = set.len(), "stopping did not wait any longer for what was under way");
            set.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn work_goes_on_without_whoever_asked() {
        let tasks = Tasks::new(1);
        let done = Arc::new(AtomicBool::new(false));
        let (go, gate) = oneshot::channel::<()>();
        {
            let done = done.clone();
            let asked = tasks.run(async move {
                let _ = gate.await;
                done.store(true, Ordering::SeqCst);
            });
            // Polled once, so that it has begun; then dropped.
            assert!(asked.now_or_never().is_none());
        }
        assert_eq!(tasks.run(async {}).await, Err(TaskError::Full));
        let _ = go.send(());
        tasks.drain(Duration::from_secs(30)).await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_a_result_and_frees_its_place() {
        let tasks = Tasks::new(1);
        assert_eq!(
            tasks.run(async { panic!("as the test wants it") }).await.map(|(): ()| ()),
            Err(TaskError::Panicked)
        );
        assert_eq!(tasks.run(async { 7 }).await, Ok(7));
    }
}
