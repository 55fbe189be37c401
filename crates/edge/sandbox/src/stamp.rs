//! Times and ids as the outside systems write them, both deterministic: the time is handed in, an id is the
//! hash of a counter.

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// `YYYY-MM-DD HH:MM:SS` in UTC, as ServiceNow stores date-times. Times before 1970 or after 9999 are
/// clamped to that range.
pub(crate) fn date_time(at_ms: i64) -> String {
    let seconds = at_ms.div_euclid(1000).clamp(0, 253_402_300_799);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (month, (hour, minute, second)) = (u8::from(at.month()), at.to_hms());
    format!("{:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", at.year(), at.day())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 hex digits of an id: the hash of what it names. The same name always gives the same id, in every
/// sandbox, so a fixture may hold on to a group's id.
pub(crate) fn id_of(kind: &str, name: &str) -> String {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(name).finalize();
    hex(&digest[..16])
}

#[cfg(test)]
mod tests {
    use super::date_time;

    #[test]
    fn date_times_follow_the_gregorian_calendar() {
        for (at_ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_999, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_000, "2024-02-29 23:59:59"),
            (1_795_232_472_123, "2026-11-21 03:41:12"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
            (i64::MIN, "1970-01-01 00:00:00"),
            (i64::MAX, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(date_time(at_ms), text, "{at_ms}");
        }
    }
}
