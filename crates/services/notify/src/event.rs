//! A fact as an event: one shape for the live feed and for webhooks.
//!
//! CloudEvents 1.0 in the JSON format. What identifies an event is the fact's own id, so somebody who hears of one fact
//! twice, over two ways, sees that it is one. `data` is the leaf of the log, member by member: whoever wants to know more
//! than the event says finds the same words in evidence.
//!
//! | attribute | is |
//! |---|---|
//! | `id`, `type`, `subject`, `time` | the fact's id, kind, resource, and time in UTC |
//! | `source` | the log it stands in, `<installation>/<cell>/<tenant>/<epoch>` |
//! | `logindex` | its index there, as decimal text: an extension, because CloudEvents' integers end at 2^31 |

use kernel::calendar;
use serde_json::{Value, json};

/// Media type of an event by itself.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

/// A leaf as a value; `None` if it is none, which a log does not hold.
pub fn fact(leaf: &[u8]) -> Option<Value> {
    serde_json::from_slice(leaf).ok()
}

/// What happened.
pub fn kind(fact: &Value) -> &str {
    fact["kind"].as_str().unwrap_or_default()
}

/// The CloudEvent of the fact at `index`.
pub fn cloud(index: u64, fact: Value) -> Value {
    let at_ms = fact["at_ms"].as_i64().unwrap_or_default();
    json!({
        "specversion": "1.0", "id": fact["id"], "source": fact["origin"], "type": fact["kind"],
        "subject": fact["resource"], "time": time(at_ms), "datacontenttype": "application/json",
        "logindex": index.to_string(), "data": fact,
    })
}

/// RFC 3339 with milliseconds, in UTC.
fn time(at_ms: i64) -> String {
    format!("{}.{:03}Z", calendar::text(at_ms).replacen(' ', "T", 1), at_ms.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_a_cloud_event() {
        let leaf = br#"{"at_ms":1767225600007,"id":"fct_1","kind":"a.b.done","origin":"i/c/ten_a/1","resource":"c/ten_a/a.b/b_1"}"#;
        let made = cloud(7, fact(leaf).unwrap());
        assert_eq!(made["time"], "2026-01-01T00:00:00.007Z");
        assert_eq!(
            (&made["id"], &made["type"], &made["logindex"]),
            (&json!("fct_1"), &json!("a.b.done"), &json!("7"))
        );
        assert_eq!((&made["source"], &made["subject"]), (&json!("i/c/ten_a/1"), &json!("c/ten_a/a.b/b_1")));
        assert_eq!(made["data"], fact(leaf).unwrap());
    }
}
