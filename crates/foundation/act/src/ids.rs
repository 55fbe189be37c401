//! The one source of identity and randomness, injected so that tests can run on seeded values.

use kernel::Id;
use std::cell::RefCell;

/// Makes ids and random bytes.
pub trait Ids: Send + Sync + 'static {
    /// A UUIDv7 (RFC 9562) for `at_ms`.
    fn uuid(&self, at_ms: i64) -> uuid::Uuid;
    /// 32 unpredictable bytes.
    fn entropy(&self) -> [u8; 32];

    /// A fresh id with this kind prefix.
    fn id(&self, prefix: &str, at_ms: i64) -> Id {
        Id::mint(prefix, self.uuid(at_ms))
    }
}

/// Random bits of one id, in bytes: what a UUIDv7 takes.
const ID_BYTES: usize = 10;
/// Ids whose bits are fetched at once.
const IDS_AT_ONCE: usize = 64;

/// Bits for ids to come. An id names a thing and keeps no secret, so it is no loss that the next few lie in memory; an act
/// mints five of them, and asking the kernel for each took a twentieth of its time.
struct Stock {
    bytes: [u8; ID_BYTES * IDS_AT_ONCE],
    used: usize,
}

thread_local! {
    static STOCK: RefCell<Stock> =
        const { RefCell::new(Stock { bytes: [0; ID_BYTES * IDS_AT_ONCE], used: ID_BYTES * IDS_AT_ONCE }) };
}

fn fill(bytes: &mut [u8]) {
    // Without randomness there are no safe keys, salts or ids; going on would be worse than stopping.
    getrandom::fill(bytes).expect("the operating system provides randomness");
}

/// Ids and secrets from the operating system's random source. What [`Ids::entropy`] returns is fetched when it is asked for,
/// and lies nowhere before.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn uuid(&self, at_ms: i64) -> uuid::Uuid {
        let mut random = [0u8; ID_BYTES];
        STOCK.with_borrow_mut(|stock| {
            if stock.used == stock.bytes.len() {
                fill(&mut stock.bytes);
                stock.used = 0;
            }
            random.copy_from_slice(&stock.bytes[stock.used..stock.used + ID_BYTES]);
            stock.used += ID_BYTES;
        });
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(at_ms).unwrap_or(0), &random).into_uuid()
    }

    fn entropy(&self) -> [u8; 32] {
        let mut bytes = [0u8; 32];
        fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_id_comes_twice_on_any_thread() {
        let mint = || (0..IDS_AT_ONCE * 5).map(|_| SystemIds.uuid(1)).collect::<Vec<_>>();
        let minted: Vec<uuid::Uuid> = std::thread::scope(|scope| {
            let threads = [scope.spawn(mint), scope.spawn(mint)];
            threads.into_iter().flat_map(|thread| thread.join().expect("it mints")).collect()
        });
        assert_eq!(minted.iter().collect::<HashSet<_>>().len(), IDS_AT_ONCE * 10);
        assert!(minted.iter().all(|id| id.get_version_num() == 7));
        assert_ne!(SystemIds.entropy(), SystemIds.entropy());
    }
}
