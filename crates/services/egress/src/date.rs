//! Dates in headers (RFC 9110 §5.6.7).
//!
//! "Retry after Fri, 31 Dec 1999 23:59:59 GMT" is said by somebody's clock, which is not ours. Every reply carries the moment
//! at which that clock sent it, so the wait is the difference between the two dates of one reply, and no clock has to be
//! right. Where a reply has no date, the time of its arrival is put in its place, as RFC 9110 §6.6.1 wants it of whoever
//! has a clock.

use http::{HeaderMap, HeaderValue, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time that a header's date names, in milliseconds UTC; all three forms of RFC 9110 are read.
pub fn at_ms(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// How long it is, in milliseconds, from one date to another: 0 if that is over already.
pub fn until_ms(then: &str, now: &str) -> Option<i64> {
    Some(at_ms(then)?.saturating_sub(at_ms(now)?).max(0))
}

/// Makes sure that a reply says when it was sent.
pub(crate) fn complete(headers: &mut HeaderMap, arrived_ms: i64) {
    let says = headers
        .get(header::DATE)
        .and_then(|date| date.to_str().ok())
        .is_some_and(|date| at_ms(date).is_some());
    let arrived =
        u64::try_from(arrived_ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    if let (false, Some(arrived)) = (says, arrived.filter(|arrived| *arrived < last()))
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(arrived))
    {
        headers.insert(header::DATE, date);
    }
}

/// The end of the years that have four digits: the form has no others.
fn last() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(253_402_300_799)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read_and_what_is_none_is_not() {
        let at = Some(784_111_777_000);
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(at_ms(text), at, "{text}");
        }
        for text in
            ["", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT", "1994-11-06", "7"]
        {
            assert_eq!(at_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_wait_is_a_difference_of_one_clock() {
        let (then, now) = ("Sun, 06 Nov 1994 08:50:07 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!((until_ms(then, now), until_ms(now, then)), (Some(30_000), Some(0)));
        assert_eq!(until_ms(then, "now"), None);
        assert_eq!(
            until_ms("Fri, 31 Dec 9999 23:59:59 GMT", now),
            Some(253_402_300_799_000 - 784_111_777_000)
        );
    }

    #[test]
    fn a_reply_without_a_date_gets_the_time_of_its_arrival() {
        let date = |headers: &HeaderMap| headers.get("date").map(|date| date.to_str().unwrap().to_owned());
        let mut headers = HeaderMap::new();
        complete(&mut headers, 784_111_777_999);
        assert_eq!(date(&headers).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        complete(&mut headers, 0);
        assert_eq!(date(&headers).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "its own stays");
        headers.insert("date", "yesterday".parse().unwrap());
        complete(&mut headers, 0);
        assert_eq!(date(&headers).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        for never in [-1, i64::MAX] {
            let mut headers = HeaderMap::new();
            complete(&mut headers, never);
            assert_eq!(date(&headers), None);
        }
    }
}
