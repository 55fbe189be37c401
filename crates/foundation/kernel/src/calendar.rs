//! Times as people and other systems write them, always in UTC.
//!
//! Inside, a time is a number of milliseconds. It becomes a date where somebody reads it: in the name of a budget's month,
//! in a table, in a question to a system that counts in seconds. This is the one place where that happens; the calendar is
//! the proleptic Gregorian one, and times outside the years 0 to 9999 are taken for the nearest time within.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// First and last second of the years that have four digits.
const SECONDS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

fn moment(at_ms: i64) -> OffsetDateTime {
    let seconds = at_ms.div_euclid(1000).clamp(SECONDS.0, SECONDS.1);
    // Never the other way: the range is that of the type.
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Year, month (1 to 12) and day (1 to 31).
pub fn date(at_ms: i64) -> (i32, u8, u8) {
    let moment = moment(at_ms);
    (moment.year(), moment.month().into(), moment.day())
}

/// `2026-11-21 06:31:25`: what is left of a second is cut off.
pub fn text(at_ms: i64) -> String {
    let ((year, month, day), (hour, minute, second)) = (date(at_ms), moment(at_ms).to_hms());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Reads what [`text`] writes, with anything between date and time and anything behind the seconds; `None` if it is no
/// time.
pub fn parse(text: &str) -> Option<i64> {
    let field = |range: std::ops::Range<usize>| {
        text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u16>().ok()
    };
    let small = |range| field(range).and_then(|number| u8::try_from(number).ok());
    let month = Month::try_from(small(5..7)?).ok()?;
    let date = Date::from_calendar_date(field(0..4)?.into(), month, small(8..10)?).ok()?;
    let time = Time::from_hms(small(11..13)?, small(14..16)?, small(17..19)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_gregorian_calendar() {
        for (at_ms, expected) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_399_999, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_000, "2024-02-29 23:59:59"),
            (1_795_232_472_123, "2026-11-21 03:41:12"),
            (4_107_542_399_000, "2100-02-28 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
            (i64::MIN, "0000-01-01 00:00:00"),
            (i64::MAX, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(text(at_ms), expected, "{at_ms}");
            let within = at_ms.clamp(SECONDS.0 * 1000, SECONDS.1 * 1000).div_euclid(1000) * 1000;
            assert_eq!(parse(expected), Some(within), "{expected}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "2026-13-01 00:00:00",
            "2026-02-29 00:00:00",
            "2026-02-01 24:00:00",
            "2026-é1-01 00:00:00",
            "+026-01-01 00:00:00",
            "soon",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(1000));
    }
}
