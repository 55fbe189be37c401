//! The one source of identity and randomness, injected so that tests can run on seeded values.

use kernel::Id;

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

/// Ids from the operating system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn uuid(&self, at_ms: i64) -> uuid::Uuid {
        let bytes = self.entropy();
        let mut random = [0u8; 10];
        random.copy_from_slice(&bytes[..10]);
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(at_ms).unwrap_or(0), &random).into_uuid()
    }

    fn entropy(&self) -> [u8; 32] {
        let mut bytes = [0u8; 32];
        // Without randomness there are no safe keys, salts or ids; going on would be worse than stopping.
        getrandom::fill(&mut bytes).expect("the operating system provides randomness");
        bytes
    }
}
