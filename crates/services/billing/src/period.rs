//! Periods of budgets: named stretches of UTC time.
//!
//! A budget of a hundred a month is another hundred next month. Nothing happens at midnight for that: the name of the
//! period stands in the id of the account that is spent from, so the first call of a new month finds a new account. All
//! periods are UTC; a tenant's own midnight would be another one in summer.

use kernel::calendar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How long a budget lasts before it begins anew. Shorter rates are for policy's throttles, which keep no books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// An hour.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// For ever: a fixed sum.
    Total,
}

impl Period {
    /// The name of the period that holds `at_ms`, in the grammar of ids: `2026-11`, `2026-11-21`, `2026-11-21t09`.
    pub fn key(self, at_ms: i64) -> String {
        let (year, month, date) = calendar::date(at_ms);
        match self {
            Period::Hour => {
                let hour = at_ms.rem_euclid(DAY_MS) / HOUR_MS;
                format!("{year:04}-{month:02}-{date:02}t{hour:02}")
            }
            Period::Day => format!("{year:04}-{month:02}-{date:02}"),
            Period::Month => format!("{year:04}-{month:02}"),
            Period::Total => "total".into(),
        }
    }

    /// When the period that holds `at_ms` ends, milliseconds UTC; `None`: never.
    pub fn ends_ms(self, at_ms: i64) -> Option<i64> {
        let step = match self {
            Period::Hour => HOUR_MS,
            Period::Day => DAY_MS,
            Period::Month => {
                let day = at_ms.div_euclid(DAY_MS);
                let (_, month, _) = calendar::date(at_ms);
                // A month has at most 31 days, so the search is short.
                let first = (day + 1..=day + 31).find(|next| calendar::date(*next * DAY_MS).1 != month)?;
                return Some(first * DAY_MS);
            }
            Period::Total => return None,
        };
        Some((at_ms.div_euclid(step) + 1) * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_named_by_the_calendar() {
        for (at_ms, hour, month_end_ms) in [
            (0, "1970-01-01t00", 31 * DAY_MS),
            (-1, "1969-12-31t23", 0),
            (951_782_400_000, "2000-02-29t00", 951_868_800_000),
            (1_709_164_800_000, "2024-02-29t00", 1_709_251_200_000),
            (1_764_547_199_999, "2025-11-30t23", 1_764_547_200_000),
            (4_107_542_399_999, "2100-02-28t23", 4_107_542_400_000),
        ] {
            assert_eq!(Period::Hour.key(at_ms), hour);
            assert_eq!(Period::Day.key(at_ms), hour[..10]);
            assert_eq!(Period::Month.key(at_ms), hour[..7]);
            assert_eq!(Period::Month.ends_ms(at_ms), Some(month_end_ms), "{hour}");
        }
        assert_eq!((Period::Total.key(5), Period::Total.ends_ms(5)), ("total".into(), None));
    }

    #[test]
    fn a_period_ends_where_the_next_begins() {
        let mut at_ms = 1_700_000_000_000;
        for _ in 0..500 {
            at_ms += 13 * DAY_MS + 7 * HOUR_MS + 1;
            for period in [Period::Hour, Period::Day, Period::Month] {
                let end_ms = period.ends_ms(at_ms).unwrap();
                assert!(end_ms > at_ms);
                assert_eq!(period.key(at_ms), period.key(end_ms - 1));
                assert_ne!(period.key(at_ms), period.key(end_ms));
            }
        }
    }
}
