//! How many connections there may be, and which may be used again.
//!
//! Two bounds keep one slow destination from starving the others: a number of requests in flight for the
//! process, and a smaller one per host. Who finds both full waits, up to a bounded crowd; the next caller is
//! turned away at once with `egress.busy`.
//!
//! An idle connection is used again only for the same origin, within the partition that the caller names (a
//! tenant, so that nobody's reply can be laid into a connection for somebody else), under the same limits, and
//! only if its peer is among the addresses that were resolved and judged for *this* request. So a destination
//! that moved, or lost its permission, is not reached through an old connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::SetupError;
use crate::error::Fault;
use crate::link::Link;

/// Bounds on connections, for the whole client.
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Requests in flight, streams included.
    pub in_flight: usize,
    /// Requests in flight to one host and port.
    pub in_flight_per_host: usize,
    /// Callers that may wait for one of those.
    pub waiting: usize,
    /// Idle connections kept open for use again.
    pub idle: usize,
    /// How long one is kept.
    pub idle_ms: i64,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { in_flight: 256, in_flight_per_host: 64, waiting: 1_024, idle: 64, idle_ms: 30_000 }
    }
}

impl PoolLimits {
    pub(crate) fn check(&self) -> Result<(), SetupError> {
        let most = Semaphore::MAX_PERMITS;
        for (name, value) in [("in_flight", self.in_flight), ("in_flight_per_host", self.in_flight_per_host)]
        {
            if value == 0 || value > most {
                return Err(SetupError::LimitInvalid(name));
            }
        }
        Ok(())
    }
}

/// The right to have one request in flight. Given back when dropped.
pub(crate) struct Slot {
    _host: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

/// Hands out [`Slot`]s.
pub(crate) struct Slots {
    limits: PoolLimits,
    total: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    waiting: AtomicUsize,
}

impl Slots {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self {
            total: Arc::new(Semaphore::new(limits.in_flight)),
            hosts: Mutex::new(HashMap::new()),
            waiting: AtomicUsize::new(0),
            limits,
        }
    }

    /// A slot for `host:port`, waiting for one until the deadline if the crowd is not too large.
    pub(crate) async fn acquire(&self, authority: &str, deadline: Instant) -> Result<Slot, Fault> {
        let host = self.host(authority);
        // The host first: who waits for a slow host must not hold one of everybody's slots meanwhile.
        let host = self.permit(host, deadline).await?;
        let total = self.permit(Arc::clone(&self.total), deadline).await?;
        Ok(Slot { _host: host, _total: total })
    }

    async fn permit(
        &self,
        semaphore: Arc<Semaphore>,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Fault> {
        if let Ok(permit) = Arc::clone(&semaphore).try_acquire_owned() {
            return Ok(permit);
        }
        let _crowd = Crowd::join(&self.waiting, self.limits.waiting).ok_or(Fault::Busy)?;
        match tokio::time::timeout_at(deadline, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphores are never closed; a closed one would mean that nothing can be sent any more.
            Ok(Err(_)) | Err(_) => Err(Fault::Busy),
        }
    }

    fn host(&self, authority: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if let Some(found) = hosts.get(authority) {
            return Arc::clone(found);
        }
        // Whoever holds or awaits a permit shares the semaphore; the others are only memory. In use at once
        // are at most as many as there are slots and places to wait.
        if hosts.len() > self.limits.in_flight + self.limits.waiting {
            hosts.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let made = Arc::new(Semaphore::new(self.limits.in_flight_per_host));
        hosts.insert(authority.to_owned(), Arc::clone(&made));
        made
    }
}

/// A place among those who wait.
struct Crowd<'a>(&'a AtomicUsize);

impl<'a> Crowd<'a> {
    fn join(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        waiting
            .try_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < most).then_some(now + 1))
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an idle connection must share with a request that wants to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdleKey {
    pub(crate) partition: String,
    pub(crate) origin: String,
    /// The parser's limits are fixed when a connection is made.
    pub(crate) response_headers: usize,
    pub(crate) response_header_bytes: usize,
}

struct Idle {
    key: IdleKey,
    link: Link,
    since_ms: i64,
}

/// Connections that wait to be used again, oldest first.
pub(crate) struct IdleLinks {
    limits: PoolLimits,
    links: Mutex<Vec<Idle>>,
}

impl IdleLinks {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self { limits, links: Mutex::new(Vec::new()) }
    }

    /// The youngest usable connection to one of these addresses.
    pub(crate) async fn take(&self, key: &IdleKey, addresses: &[IpAddr], now_ms: i64) -> Option<Link> {
        // Ends: each turn takes one out.
        while let Some(mut link) = self.take_one(key, addresses, now_ms) {
            if link.is_reusable().await {
                return Some(link);
            }
        }
        None
    }

    fn take_one(&self, key: &IdleKey, addresses: &[IpAddr], now_ms: i64) -> Option<Link> {
        let mut links = self.links.lock();
        // A clock that went backwards makes the age unknown, hence too old.
        links.retain(|idle| {
            (0..=self.limits.idle_ms).contains(&now_ms.checked_sub(idle.since_ms).unwrap_or(i64::MAX))
        });
        let found =
            links.iter().rposition(|idle| idle.key == *key && addresses.contains(&idle.link.peer()))?;
        Some(links.remove(found).link)
    }

    /// Keeps a connection whose reply has been read to its end, if it can be used again.
    pub(crate) async fn put(&self, key: IdleKey, mut link: Link, now_ms: i64) {
        if self.limits.idle == 0 || !link.is_reusable().await {
            return;
        }
        let mut links = self.links.lock();
        if links.len() >= self.limits.idle {
            links.remove(0);
        }
        links.push(Idle { key, link, since_ms: now_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(in_flight: usize, per_host: usize, waiting: usize) -> Slots {
        Slots::new(PoolLimits { in_flight, in_flight_per_host: per_host, waiting, idle: 0, idle_ms: 0 })
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_full_host_leaves_others_alone() {
        let slots = slots(4, 1, 4);
        let held = slots.acquire("a:443", soon()).await.unwrap();
        assert!(matches!(slots.acquire("a:443", soon()).await, Err(Fault::Busy)));
        assert!(slots.acquire("b:443", soon()).await.is_ok());
        drop(held);
        assert!(slots.acquire("a:443", soon()).await.is_ok());
    }

    #[tokio::test]
    async fn the_crowd_is_bounded_and_counted_back() {
        let slots = slots(1, 1, 1);
        let late = Instant::now() + std::time::Duration::from_secs(600);
        let held = slots.acquire("a:443", late).await.unwrap();
        let mut first = Box::pin(slots.acquire("a:443", late));
        assert!(futures_poll(&mut first).await.is_none(), "waits");
        // The crowd is full, so this one does not wait although its deadline is far.
        assert!(matches!(slots.acquire("a:443", late).await, Err(Fault::Busy)));
        drop(first);
        let mut second = Box::pin(slots.acquire("a:443", late));
        assert!(futures_poll(&mut second).await.is_none(), "waits in the place that was left");
        drop(held);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn hosts_out_of_use_are_forgotten() {
        let slots = slots(2, 1, 2);
        let held = slots.acquire("held:443", soon()).await.unwrap();
        for n in 0..100 {
            slots.acquire(&format!("h{n}:443"), soon()).await.unwrap();
        }
        assert!(slots.hosts.lock().len() <= 5, "bounded by slots and places to wait");
        assert!(slots.hosts.lock().contains_key("held:443"));
        drop(held);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
