//! Closed while the installation is put back, and open otherwise.
//!
//! A restored installation holds work that was done after the backup was made: a ticket written, a card shown, a webhook
//! told. Doing it again because nobody remembers is the harm that a backup can do. So until an operator opens an epoch
//! ([`evidence::epoch`]) acts are refused, deliveries are not taken, no job is claimed and nothing is sent. What is there
//! can be read, and the built-in policy is kept in force so that the one act that helps can be decided.

use act::Fault;
use tokio::sync::{Mutex, MutexGuard, watch};

/// Whether anything is done.
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<State>,
    /// Held by whoever is about to open or close it.
    turn: Mutex<()>,
}

#[derive(Debug, Clone)]
struct State {
    /// Why it is closed.
    why: Option<String>,
    /// The epoch that every log is known to be in.
    settled: u64,
}

impl Gate {
    /// A gate that is closed until [`Gate::settle`].
    pub fn closed() -> Gate {
        let state = State { why: Some("the server is starting".to_owned()), settled: 0 };
        Gate { state: watch::Sender::new(state), turn: Mutex::default() }
    }

    /// Waits until nobody else is about to open or close it.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Why nothing is done; `None`: it is open.
    pub fn why(&self) -> Option<String> {
        self.state.borrow().why.clone()
    }

    /// Refuses if it is closed.
    ///
    /// # Errors
    /// `evidence.put_back`.
    pub fn pass(&self) -> Result<(), Fault> {
        match &self.state.borrow().why {
            None => Ok(()),
            Some(why) => Err(evidence::epoch::closed(why)),
        }
    }

    /// Closes it, or says why it stays closed.
    pub fn close(&self, why: String) {
        self.state.send_modify(|state| state.why = Some(why));
    }

    /// Opens it: nothing is known against the installation.
    pub fn open(&self) {
        self.state.send_if_modified(|state| state.why.take().is_some());
    }

    /// Remembers that every log that can be is in `epoch`.
    pub fn settle(&self, epoch: u64) {
        self.state.send_if_modified(|state| {
            state.settled = epoch;
            false
        });
    }

    /// The epoch that every log is known to be in.
    pub fn settled(&self) -> u64 {
        self.state.borrow().settled
    }

    /// Returns once it is open.
    pub async fn opened(&self) {
        // The sender is here, so the wait ends only by opening.
        let _ = self.state.subscribe().wait_for(|state| state.why.is_none()).await;
    }
}
