//! Times and ids as the outside systems write them, both deterministic: the time is handed in, an id is the
//! hash of a counter.

use sha2::{Digest, Sha256};

const MS_PER_DAY: i64 = 86_400_000;

/// `YYYY-MM-DD HH:MM:SS` in UTC, as ServiceNow stores date-times. Times before 1970 or after 9999 are
/// clamped to that range.
pub(crate) fn date_time(at_ms: i64) -> String {
    let at_ms = at_ms.clamp(0, 253_402_300_799_000);
    let (days, of_day_s) = (at_ms.div_euclid(MS_PER_DAY), at_ms.rem_euclid(MS_PER_DAY) / 1000);
    // Days to civil date in the proleptic Gregorian calendar, counted in 400-year eras that begin on 1 March,
    // so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day_s / 3600, of_day_s % 3600 / 60, of_day_s % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
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
