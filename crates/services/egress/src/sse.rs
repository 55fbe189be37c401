//! Server-sent events, decoded from the chunks of a [`crate::ReplyStream`].
//!
//! A model that streams tokens and our own live events speak this format (WHATWG HTML, section 9.2). The
//! decoder is pure: bytes in, events out, with a bound on what one event may take, so that a server that never
//! ends its line cannot fill the memory.
//!
//! It does not reconnect: that is the caller's part, who finds the id to come back with in [`Decoder::last_id`].

/// The largest event, in bytes of its lines.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The event's name; empty means `message`.
    pub name: String,
    /// The `data` lines, joined by line feeds.
    pub data: String,
    /// The `id` of this event, where it has one.
    pub id: Option<String>,
    /// A `retry` of this event, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// Why a stream is no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is larger than [`MAX_EVENT_BYTES`].
    #[error("an event is over {MAX_EVENT_BYTES} bytes")]
    EventTooLarge,
    /// A line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotText,
}

/// Turns chunks into events. After an error it stays failed.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed right after it belongs to it.
    after_return: bool,
    started: bool,
    event: Event,
    has_data: bool,
    last_id: Option<String>,
    /// Bytes of the lines of the event so far.
    size: usize,
    failed: Option<SseError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id to come back with, if the stream has said one; it may stand in a block without data, which is no event.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref().filter(|id| !id.is_empty())
    }

    /// Takes the next chunk and returns the events that it completes, oldest first.
    ///
    /// An event that the stream's end leaves incomplete is never returned, as the specification asks.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut events = Vec::new();
        for &byte in chunk {
            if let Err(error) = self.push_byte(byte, &mut events) {
                self.failed = Some(error);
                self.line = Vec::new();
                self.event = Event::default();
                return Err(error);
            }
        }
        Ok(events)
    }

    fn push_byte(&mut self, byte: u8, events: &mut Vec<Event>) -> Result<(), SseError> {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Ok(()),
            b'\n' | b'\r' => self.end_line(events),
            _ => {
                self.size += 1;
                if self.size > MAX_EVENT_BYTES {
                    return Err(SseError::EventTooLarge);
                }
                self.line.push(byte);
                Ok(())
            }
        }
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| SseError::NotText)?;
        // A byte order mark may stand at the very beginning.
        let text = if self.started { text } else { text.strip_prefix('\u{feff}').unwrap_or(text) };
        self.started = true;
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            self.size = 0;
            if event.id.is_some() {
                self.last_id.clone_from(&event.id);
            }
            // Without data there is no event, only a heartbeat or a setting.
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.size += 1;
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "event" => self.event.name = value.to_owned(),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.event.retry_ms = value.parse().ok();
            }
            // A comment has an empty field name; unknown fields are ignored. Comments of a heartbeat must not
            // add up to an oversized event, so they do not count once they are read.
            _ => self.size -= line.len(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event { name: name.into(), data: data.into(), id: id.map(Into::into), retry_ms: None }
    }

    #[test]
    fn the_same_events_whatever_the_chunks() {
        let table: &[(&str, Vec<Event>)] = &[
            ("data: a\n\n", vec![event("", "a", None)]),
            (
                "data:a\r\n\r\ndata:b\r\rdata:c\n\n",
                vec![event("", "a", None), event("", "b", None), event("", "c", None)],
            ),
            ("\u{feff}data: a\n\n", vec![event("", "a", None)]),
            ("data: a\ndata:  b\ndata\n\n", vec![event("", "a\n b\n", None)]),
            ("event: delta\nid: 7\ndata: {\"x\":1}\n\n", vec![event("delta", "{\"x\":1}", Some("7"))]),
            (": heartbeat\n\nevent: lonely\n\nunknown: x\ndata: é\n\n", vec![event("", "é", None)]),
            ("data: [DONE]\n\ndata: cut", vec![event("", "[DONE]", None)]),
            ("id: a\0b\ndata: x\n\n", vec![event("", "x", None)]),
            (
                "retry: 2500\ndata: x\n\nretry: 2s\ndata: y\n\n",
                vec![Event { retry_ms: Some(2500), ..event("", "x", None) }, event("", "y", None)],
            ),
        ];
        for (text, expected) in table {
            for size in [1, 2, 3, 7, text.len()] {
                let mut decoder = Decoder::new();
                let mut found = Vec::new();
                for chunk in text.as_bytes().chunks(size) {
                    found.extend(decoder.push(chunk).unwrap());
                }
                assert_eq!(found, *expected, "{text:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_cut() {
        for line in
            ["data: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "data: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", "data\n"]
        {
            let mut decoder = Decoder::new();
            let mut result = Ok(Vec::new());
            for _ in 0..MAX_EVENT_BYTES {
                result = decoder.push(line.as_bytes());
                if result.is_err() {
                    break;
                }
            }
            assert_eq!(result, Err(SseError::EventTooLarge), "{line:?}");
            assert_eq!(decoder.push(b"data: a\n\n"), Err(SseError::EventTooLarge), "stays failed");
        }
    }

    #[test]
    fn heartbeats_do_not_add_up() {
        let mut decoder = Decoder::new();
        let beat = format!(":{}\n", "a".repeat(MAX_EVENT_BYTES / 4));
        for _ in 0..8 {
            assert!(decoder.push(beat.as_bytes()).unwrap().is_empty());
        }
        assert_eq!(decoder.push(b"data: a\n\n").unwrap().len(), 1);
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(Decoder::new().push(b"data: \xff\n"), Err(SseError::NotText));
    }
}
