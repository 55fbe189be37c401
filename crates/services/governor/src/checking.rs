//! Checking a foreign policy beside the work of everybody else.
//!
//! Opening, compiling and probing a bundle takes the processor for a while: for seconds, if its author means it to. Done
//! on the runtime's own threads, a few hostile bundles at once would hold all of them, and with them every tenant's acts.
//! So the work goes to the runtime's blocking threads, and only one bundle is checked at a time in the installation.
//! Whoever comes meanwhile does not queue; they are told to come back.

use act::{Class, Fault};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// When somebody who was told to come back may, in milliseconds. Ordinary bundles take a fraction of it.
const COME_BACK_MS: i64 = 2_000;

/// The one place where bundles are checked.
pub(crate) struct Checking(Arc<Semaphore>);

impl Default for Checking {
    fn default() -> Checking {
        Checking(Arc::new(Semaphore::new(1)))
    }
}

impl Checking {
    /// Does the work if nobody else's is being done. The place is taken until the work has ended, also when whoever waits
    /// for it has gone.
    ///
    /// # Errors
    /// `policy.check_busy` if somebody else's is being done; `internal` if the work panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let Ok(place) = self.0.clone().try_acquire_owned() else {
            let why = "another policy is being checked; try again in a moment";
            let busy = Fault::new(Class::Throttled, "policy.check_busy", why);
            return Err(Fault { retry_after_ms: Some(COME_BACK_MS), ..busy });
        };
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(act::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// On a runtime of one thread: were the work done on it, the second would never be asked.
    #[tokio::test]
    async fn one_at_a_time_and_everybody_else_goes_on() {
        let checking = Checking::default();
        let (go_on, until) = mpsc::channel::<()>();
        let first = checking.run(move || until.recv().is_ok());
        let second = async {
            let fault = checking.run(|| ()).await.unwrap_err();
            go_on.send(()).unwrap();
            fault
        };
        let (first, fault) = futures::join!(first, second);
        assert!(first.unwrap());
        assert_eq!((fault.code.as_str(), fault.class), ("policy.check_busy", Class::Throttled));
        assert!(fault.retry_after_ms.is_some());
        assert_eq!(checking.run(|| 7).await.unwrap(), 7, "the place is free again");
    }

    #[tokio::test]
    async fn who_goes_away_does_not_make_room_for_more() {
        let checking = Checking::default();
        let (go_on, until) = mpsc::channel::<()>();
        let (ended, end) = tokio::sync::oneshot::channel();
        {
            let mut first = Box::pin(checking.run(move || {
                let _ = until.recv();
                let _ = ended.send(());
            }));
            assert!(futures::poll!(&mut first).is_pending());
        }
        assert_eq!(checking.run(|| ()).await.unwrap_err().code, "policy.check_busy");
        go_on.send(()).unwrap();
        end.await.unwrap();
    }
}
