//! Reading a leaf back.
//!
//! A leaf has exactly one spelling, so reading one is passing over it: each member where it has to be, each value as its
//! writer would have written it. What comes out borrows from the leaf. A general parser would have to find the members
//! first and could not say whether it had seen the one spelling; a verifier asks that for every fact of a bundle.

use super::LEAF_BYTES_MAX;
use crate::json::Scan;
use crate::{Id, hex};
use std::borrow::Cow;

/// A leaf read back.
#[derive(Debug, Clone)]
pub struct Leaf<'a> {
    /// Identity.
    pub id: &'a str,
    /// When, in milliseconds UTC.
    pub at_ms: i64,
    /// The log it belongs to.
    pub origin: Cow<'a, str>,
    /// What happened.
    pub kind: Cow<'a, str>,
    /// The stream it counts in.
    pub stream: &'a str,
    /// Its number in the stream, from 1.
    pub stream_n: u64,
    /// Facts that led to it.
    pub causes: Vec<&'a str>,
    /// Who acted.
    pub actor: &'a str,
    /// For whom.
    pub on_behalf_of: Vec<&'a str>,
    /// The verb.
    pub act: Cow<'a, str>,
    /// Full name of the resource.
    pub resource: Cow<'a, str>,
    /// Effect and id of the decision.
    pub decision: Option<LeafDecision<'a>>,
    /// Digest of the policy that decided.
    pub policy: Option<Cow<'a, str>>,
    /// How the actor had proven who they are.
    pub assurance: Option<Cow<'a, str>>,
    /// Commitment to the arguments: 64 hexadecimal digits.
    pub args_commitment: Option<&'a str>,
    /// Metadata.
    pub outcome: Outcome<'a>,
    /// Trace id.
    pub trace: Cow<'a, str>,
}

/// The decision inside a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafDecision<'a> {
    /// The effect, as [`crate::Effect::as_str`] spells it.
    pub effect: &'a str,
    /// Id of the decision.
    pub id: &'a str,
}

/// The outcome inside a leaf: a canonical JSON object, unparsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a>(&'a str);

impl<'a> Outcome<'a> {
    /// Its text.
    pub fn get(&self) -> &'a str {
        self.0
    }
}

/// Reads a leaf. `None` unless the bytes are exactly what [`super::Fact::leaf`] writes: canonical, all members and no
/// other, ids that are ids.
pub fn read(leaf: &[u8]) -> Option<Leaf<'_>> {
    if leaf.len() > LEAF_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(leaf).ok()?;
    let mut reader = Reader { text, scan: Scan::new(leaf) };
    // In the order of the bytes, which is that of the members' names.
    let act = reader.after(b"{\"act\":")?.text()?;
    let actor = reader.after(b",\"actor\":")?.id()?;
    let args_commitment = reader.after(b",\"args_commitment\":")?.optional(Reader::digest)?;
    let assurance = reader.after(b",\"assurance\":")?.optional(Reader::text)?;
    let at_ms = reader.after(b",\"at_ms\":")?.scan.integer().ok()?;
    let causes = reader.after(b",\"causes\":")?.ids()?;
    let decision = reader.after(b",\"decision\":")?.optional(Reader::decision)?;
    let id = reader.after(b",\"id\":")?.id()?;
    let kind = reader.after(b",\"kind\":")?.text()?;
    let on_behalf_of = reader.after(b",\"on_behalf_of\":")?.ids()?;
    let origin = reader.after(b",\"origin\":")?.text()?;
    let outcome = reader.after(b",\"outcome\":")?.object()?;
    let policy = reader.after(b",\"policy\":")?.optional(Reader::text)?;
    let resource = reader.after(b",\"resource\":")?.text()?;
    let stream = reader.after(b",\"stream\":")?.id()?;
    let stream_n =
        u64::try_from(reader.after(b",\"stream_n\":")?.scan.integer().ok()?).ok().filter(|n| *n > 0)?;
    let trace = reader.after(b",\"trace\":")?.text()?;
    reader.after(b",\"v\":1}")?.scan.at_end().then_some(Leaf {
        id,
        at_ms,
        origin,
        kind,
        stream,
        stream_n,
        causes,
        actor,
        on_behalf_of,
        act,
        resource,
        decision,
        policy,
        assurance,
        args_commitment,
        outcome,
        trace,
    })
}

struct Reader<'a> {
    text: &'a str,
    scan: Scan<'a>,
}

impl<'a> Reader<'a> {
    #[inline]
    fn after<const N: usize>(&mut self, literal: &[u8; N]) -> Option<&mut Reader<'a>> {
        self.scan.literal(literal).ok()?;
        Some(self)
    }

    #[inline]
    fn text(&mut self) -> Option<Cow<'a, str>> {
        let span = self.scan.string().ok()?;
        if span.plain {
            return Some(Cow::Borrowed(&self.text[span.from..span.to]));
        }
        // With its quotes it is a JSON string, of a form that has just been checked.
        serde_json::from_str(&self.text[span.from - 1..span.to + 1]).ok().map(Cow::Owned)
    }

    /// A string without escapes that `fits`.
    #[inline]
    fn plain(&mut self, fits: impl Fn(&str) -> bool) -> Option<&'a str> {
        let span = self.scan.string().ok()?;
        Some(&self.text[span.from..span.to]).filter(|text| span.plain && fits(text))
    }

    #[inline]
    fn id(&mut self) -> Option<&'a str> {
        self.plain(Id::valid)
    }

    fn digest(&mut self) -> Option<&'a str> {
        self.plain(hex::is32)
    }

    /// A value or `null`; the outer `None` is a failure.
    fn optional<T>(&mut self, read: impl Fn(&mut Reader<'a>) -> Option<T>) -> Option<Option<T>> {
        if self.scan.peek() == Some(b'n') {
            self.scan.literal(b"null").ok()?;
            return Some(None);
        }
        read(self).map(Some)
    }

    fn ids(&mut self) -> Option<Vec<&'a str>> {
        let mut ids = Vec::new();
        self.after(b"[")?;
        if self.scan.peek() == Some(b']') {
            return self.after(b"]").map(|_| ids);
        }
        loop {
            ids.push(self.id()?);
            match self.scan.peek()? {
                b',' => self.after(b",")?,
                _ => return self.after(b"]").map(|_| ids),
            };
        }
    }

    fn decision(&mut self) -> Option<LeafDecision<'a>> {
        const EFFECTS: [&str; 6] = ["ALLOW", "ROUTE", "THROTTLE", "HITL", "STEP_UP", "DENY"];
        let effect = self.after(b"{\"effect\":")?.plain(|text| EFFECTS.contains(&text))?;
        let id = self.after(b",\"id\":")?.id()?;
        self.after(b"}").map(|_| LeafDecision { effect, id })
    }

    fn object(&mut self) -> Option<Outcome<'a>> {
        let from = self.scan.at();
        if self.scan.peek() != Some(b'{') {
            return None;
        }
        self.scan.value(1).ok()?;
        Some(Outcome(&self.text[from..self.scan.at()]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fact, Place};
    use super::*;
    use crate::permit::{Authority, Decision};
    use crate::{Effect, json};
    use serde_json::{Value, json};

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    fn full() -> Vec<u8> {
        let fact = Fact {
            id: id("fct_1"),
            kind: "flows.run.created",
            stream: id("run_1"),
            resource: "local/ten_a/flows.run/run_1".into(),
            causes: vec![id("fct_0"), id("fct_00")],
            outcome: json!({"steps": 3, "note": "a\nb", "none": null, "list": [[-1]]}),
            aside: None,
        };
        let authority = Authority {
            actor: id("prn_a"),
            on_behalf_of: vec![id("prn_b")],
            act: "flows.run.start".into(),
            decision: Some(Decision { id: id("dec_1"), effect: Effect::StepUp }),
            policy: Some("é\u{1}".into()),
            assurance: None,
            trace: "t\"1".into(),
        };
        let place = Place { origin: "writ.test/local/ten_a/1", stream_n: 1, at_ms: -5 };
        fact.leaf(place, &authority, Some(&[9; 32])).unwrap()
    }

    #[test]
    fn reads_what_was_written() {
        let bytes = full();
        let leaf = read(&bytes).unwrap();
        assert_eq!((leaf.id, leaf.stream, leaf.stream_n, leaf.at_ms), ("fct_1", "run_1", 1, -5));
        assert_eq!((&*leaf.trace, leaf.policy.as_deref()), ("t\"1", Some("é\u{1}")));
        assert_eq!((&leaf.causes[..], &leaf.on_behalf_of[..]), (&["fct_0", "fct_00"][..], &["prn_b"][..]));
        assert_eq!(leaf.decision, Some(LeafDecision { effect: "STEP_UP", id: "dec_1" }));
        assert_eq!(leaf.args_commitment, Some("09".repeat(32).as_str()));
        assert_eq!((&*leaf.kind, &*leaf.act), ("flows.run.created", "flows.run.start"));
        assert_eq!((&*leaf.origin, leaf.assurance), ("writ.test/local/ten_a/1", None));
        assert_eq!(leaf.outcome.get(), r#"{"list":[[-1]],"none":null,"note":"a\nb","steps":3}"#);
    }

    #[test]
    fn reads_only_the_frozen_form() {
        let good = String::from_utf8(full()).unwrap();
        for (from, to) in [
            ("\"v\":1", "\"v\":2"),
            (",\"v\":1", ",\"v\":1,\"w\":1"),
            ("\"assurance\":null,", ""),
            ("\"at_ms\":-5", "\"at_ms\": -5"),
            ("\"at_ms\":-5", "\"at_ms\":-05"),
            ("\"at_ms\":-5", "\"at_ms\":-0"),
            ("\"at_ms\":-5", "\"at_ms\":5.0"),
            ("\"at_ms\":-5", "\"at_ms\":9007199254740992"),
            ("\"at_ms\":-5", "\"at_ms\":null"),
            ("\"stream_n\":1", "\"stream_n\":-1"),
            ("\"stream_n\":1", "\"stream_n\":0"),
            ("\"fct_1\"", "\"FCT_1\""),
            ("\"fct_1\"", "null"),
            ("\"run_1\"", "\"run\""),
            ("\"prn_a\"", "\"prn_\\u0001\""),
            ("[\"fct_0\",\"fct_00\"]", "[\"fct_0\",]"),
            ("[\"fct_0\",\"fct_00\"]", "[\"fct_0\" ,\"fct_00\"]"),
            ("[\"fct_0\",\"fct_00\"]", "null"),
            ("STEP_UP", "MAYBE"),
            ("\"effect\"", "\"Effect\""),
            ("09090909", "0909090"),
            ("0909", "09AA"),
            ("{\"list\"", "[{\"list\""),
            ("\"outcome\":{", "\"outcome\":{\"z\":1,"),
            ("\"steps\":3", "\"note\":3"),
            ("a\\nb", "a\nb"),
            ("a\\nb", "a\\u000ab"),
            ("a\\nb", "a\\/b"),
            ("{\"act\"", "{ \"act\""),
            ("1}", "1} "),
            ("1}", "1"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(read(good.replacen(from, to, 1).as_bytes()).is_none(), "{from} → {to}");
        }
        let deep = good.replacen("[[-1]]", &format!("{}{}", "[".repeat(16), "]".repeat(16)), 1);
        assert!(read(deep.as_bytes()).is_none(), "too deep");
        assert!(read(&[b"[\"a\"]".as_slice(), b"", b"\xff", b"null"].concat()).is_none());
        let long = good.replacen("a\\nb", &"x".repeat(LEAF_BYTES_MAX), 1);
        assert!(read(long.as_bytes()).is_none(), "too long");
    }

    #[test]
    fn whatever_is_read_is_canonical_json() {
        let good = full();
        for at in 0..good.len() {
            for byte in [b' ', b'"', b'\\', b'0', b'}', 0x01, 0xc3, good[at] ^ 1] {
                let mut touched = good.clone();
                touched[at] = byte;
                if read(&touched).is_some() {
                    assert_eq!(json::check(&touched), Ok(()), "byte {at} as {byte}");
                    let value: Value = serde_json::from_slice(&touched).unwrap();
                    assert_eq!(json::canonical(&value).unwrap(), touched);
                }
            }
            assert!(read(&good[..at]).is_none());
        }
    }
}
