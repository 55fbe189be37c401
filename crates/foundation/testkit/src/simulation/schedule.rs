//! Actors, gates, and who goes next.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long an actor may be busy with something real before the simulation is given up. Nothing that belongs into one takes
/// a hundredth of it.
const BUSY: Duration = Duration::from_secs(60);

/// What becomes of whoever waits at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It happens, and is told.
    Go,
    /// It does not happen, and an error is told.
    Refuse,
    /// It happens, and an error is told all the same.
    Lose,
}

/// Where somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What is behind the gate: a method of the store, a request.
    pub what: &'static str,
    /// Whether it has happened: what is left is to hear of it.
    pub happened: bool,
}

/// Somebody who waits at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Its number; later ones are greater.
    pub number: u64,
    /// The actor that it keeps waiting.
    pub actor: u64,
    /// Where.
    pub place: Place,
}

#[derive(Debug)]
struct Waiting {
    actor: u64,
    place: Place,
    verdict: Option<Verdict>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct State {
    /// Who runs; nobody outside of the schedule.
    running: Option<u64>,
    /// What the running actor has begun, past its gate, and not yet heard of.
    underway: usize,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Whoever waits for the running actor to come to a gate.
    watcher: Option<Waker>,
}

/// The gates of one simulation. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<Mutex<State>>);

impl Gates {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it has ended the simulation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at the gate before something, until the schedule opens it. Outside of an actor there are no gates: whoever
    /// prepares a world, or judges it, passes at once.
    pub fn before(&self, what: &'static str) -> Pass {
        Pass { gates: self.clone(), place: Place { what, happened: false }, number: None }
    }

    /// Waits at the gate between something and whoever is to hear of it.
    pub fn after(&self, what: &'static str) -> Pass {
        Pass { gates: self.clone(), place: Place { what, happened: true }, number: None }
    }

    /// Something real begins for the running actor. Until what is returned is dropped, nobody else's turn comes: an actor
    /// that does two things at once may stand at a gate with one of them while the other still happens.
    pub fn begin(&self) -> Underway {
        let mut state = self.state();
        let counted = state.running.is_some();
        state.underway += usize::from(counted);
        drop(state);
        Underway { gates: self.clone(), counted }
    }

    /// Whether all that an actor does waits at gates.
    fn parked(&self, actor: u64) -> bool {
        let state = self.state();
        let mut waiting = state.waiting.values();
        state.underway == 0 && waiting.any(|waiting| waiting.actor == actor && waiting.verdict.is_none())
    }
}

/// Something real that an actor waits for.
#[derive(Debug)]
pub struct Underway {
    gates: Gates,
    counted: bool,
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.counted {
            let mut state = self.gates.state();
            state.underway -= 1;
            if let Some(watcher) = &state.watcher {
                watcher.wake_by_ref();
            }
        }
    }
}

/// A future that waits at a gate.
#[derive(Debug)]
pub struct Pass {
    gates: Gates,
    place: Place,
    number: Option<u64>,
}

impl Future for Pass {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let gates = self.gates.clone();
        let mut state = gates.state();
        let Some(number) = self.number else {
            let Some(actor) = state.running else { return Poll::Ready(Verdict::Go) };
            state.next += 1;
            let (number, waker) = (state.next, Some(context.waker().clone()));
            state.waiting.insert(number, Waiting { actor, place: self.place, verdict: None, waker });
            self.number = Some(number);
            if let Some(watcher) = &state.watcher {
                watcher.wake_by_ref();
            }
            return Poll::Pending;
        };
        match state.waiting.get_mut(&number) {
            // Taken away with the actor that it was for.
            None => Poll::Ready(Verdict::Refuse),
            Some(waiting) => match waiting.verdict {
                Some(verdict) => {
                    state.waiting.remove(&number);
                    self.number = None;
                    Poll::Ready(verdict)
                }
                None => {
                    waiting.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            },
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.gates.state().waiting.remove(&number);
        }
    }
}

type Actor = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who is on the way, and who waits where.
#[derive(Default)]
pub struct Schedule {
    gates: Gates,
    actors: BTreeMap<u64, Actor>,
    next: u64,
}

impl Schedule {
    /// A schedule without actors.
    pub fn new() -> Schedule {
        Schedule::default()
    }

    /// Its gates.
    pub fn gates(&self) -> Gates {
        self.gates.clone()
    }

    /// Lets an actor begin; it runs to its first gate. Returns its number.
    pub async fn start(&mut self, actor: impl Future<Output = ()> + Send + 'static) -> u64 {
        self.next += 1;
        let number = self.next;
        self.actors.insert(number, Box::pin(actor));
        self.run(number).await;
        number
    }

    /// Everybody who waits, in the order in which they came.
    pub fn waiting(&self) -> Vec<Ticket> {
        let state = self.gates.state();
        let open = state.waiting.iter().filter(|(_, waiting)| waiting.verdict.is_none());
        open.map(|(number, waiting)| Ticket { number: *number, actor: waiting.actor, place: waiting.place })
            .collect()
    }

    /// Opens a gate; whoever waited there runs to its next gate or its end. A ticket that is gone opens nothing.
    pub async fn open(&mut self, ticket: &Ticket, verdict: Verdict) {
        let woken = {
            let mut state = self.gates.state();
            let waiting = state.waiting.get_mut(&ticket.number);
            waiting.map(|waiting| {
                waiting.verdict = Some(verdict);
                waiting.waker.take()
            })
        };
        let Some(waker) = woken else { return };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.run(ticket.actor).await;
    }

    /// How many are on the way.
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// Whether an actor is on the way.
    pub fn is_on_its_way(&self, actor: u64) -> bool {
        self.actors.contains_key(&actor)
    }

    /// Drops every actor where it stands, as a process does that is killed. What waits on the network for one of them is
    /// lost. Returns how many there were.
    pub fn kill(&mut self) -> usize {
        let killed = std::mem::take(&mut self.actors);
        let count = killed.len();
        drop(killed);
        let left = std::mem::take(&mut self.gates.state().waiting);
        left.into_values().filter_map(|waiting| waiting.waker).for_each(Waker::wake);
        count
    }

    /// Runs an actor until it waits at a gate or ends. What it waits for besides is real, and is waited for.
    async fn run(&mut self, number: u64) {
        let Some(mut actor) = self.actors.remove(&number) else { return };
        let gates = self.gates.clone();
        gates.state().running = Some(number);
        let to_the_next_gate = std::future::poll_fn(|context| {
            gates.state().watcher = Some(context.waker().clone());
            if actor.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            if gates.parked(number) { Poll::Ready(false) } else { Poll::Pending }
        });
        let ended = tokio::time::timeout(BUSY, to_the_next_gate).await;
        let mut state = gates.state();
        state.running = None;
        state.watcher = None;
        drop(state);
        match ended {
            Ok(true) => {}
            Ok(false) => {
                self.actors.insert(number, actor);
            }
            Err(_) => panic!("actor {number} waits for something that no gate stands before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Go, Lose, Refuse};

    /// Two actors add to one number in two strokes each, as whoever reads and then writes does.
    async fn added(order: &[usize]) -> u32 {
        let mut schedule = Schedule::new();
        let number = Arc::new(Mutex::new(0));
        for _ in 0..2 {
            let (gates, number) = (schedule.gates(), number.clone());
            schedule
                .start(async move {
                    gates.before("read").await;
                    let read = *number.lock().unwrap();
                    gates.before("write").await;
                    *number.lock().unwrap() = read + 1;
                })
                .await;
        }
        for at in order {
            let ticket = schedule.waiting()[*at];
            schedule.open(&ticket, Go).await;
        }
        assert_eq!(schedule.actors(), 0);
        *number.lock().unwrap()
    }

    #[tokio::test]
    async fn the_order_of_gates_is_the_order_of_events() {
        // One after the other; and both read before either writes.
        assert_eq!((added(&[0, 1, 0, 0]).await, added(&[0, 0, 0, 0]).await), (2, 1));
    }

    #[tokio::test]
    async fn nobody_elses_turn_comes_while_something_happens() {
        let mut schedule = Schedule::new();
        let (gates, happened) = (schedule.gates(), Arc::new(Mutex::new(false)));
        let happens = happened.clone();
        schedule
            .start(async move {
                let real = async {
                    let _underway = gates.begin();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    *happens.lock().unwrap() = true;
                };
                futures::join!(gates.before("a"), real);
            })
            .await;
        assert_eq!((schedule.waiting().len(), *happened.lock().unwrap()), (1, true));
    }

    #[tokio::test]
    async fn verdicts_are_heard_and_the_killed_hear_nothing() {
        let mut schedule = Schedule::new();
        let heard = Arc::new(Mutex::new(Vec::new()));
        for verdict in [Some(Go), Some(Refuse), Some(Lose), None] {
            let (gates, heard) = (schedule.gates(), heard.clone());
            schedule
                .start(async move {
                    // What is real may take its time.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let told = gates.before("a").await;
                    heard.lock().unwrap().push(told);
                    gates.after("a").await;
                    panic!("nobody opens this one");
                })
                .await;
            let ticket = *schedule.waiting().last().unwrap();
            if let Some(verdict) = verdict {
                schedule.open(&ticket, verdict).await;
            }
        }
        assert_eq!(*heard.lock().unwrap(), [Go, Refuse, Lose]);
        assert_eq!((schedule.waiting().len(), schedule.kill(), schedule.waiting().len()), (4, 4, 0));
        // Outside of the schedule there are no gates.
        assert_eq!(schedule.gates().before("a").await, Go);
    }
}
