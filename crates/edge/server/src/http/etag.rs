//! Entity tags: what a caller has seen, and whether it is still so (RFC 9110 §8.8.3 and §13).
//!
//! Two people look at a run. One cancels it, the other, who has not seen that, replays it. With the tag of what they looked
//! at in `If-Match`, the second is told so (412) instead of replaying what is no longer there.
//!
//! A tag is `"<rev>-<digest>"`: the revision of the record that the path names, and 8 bytes of the SHA-256 of this very
//! representation, so that it is a strong one: an approval's age is shown, and two looks at it are two representations of
//! one revision. `If-None-Match` compares the whole. `If-Match` goes by the revision, because that is what a commit can
//! check ([`harness::Matching`]): what is derived while showing (an age, who may decide) is nothing that a write changes.
//!
//! | route | takes | answers |
//! |---|---|---|
//! | a read whose path ends in a parameter | `If-None-Match` | `ETag`; 304 |
//! | an act on such a path or below it | `If-Match`: tags, or `*` for "whatever, as long as it is there" | 412 |
//! | lists, and everything else | neither; on an act they are refused, because ignoring a condition would be acting without it | |

use super::header_once;
use super::problem::{Problem, Refusal};
use act::{Auth, Call, Domain, Method, Route};
use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use kernel::{hex, sha256};

/// Most tags in one header.
pub const TAGS_MAX: usize = 16;
/// Reads of one thing that is no record and has no revision: an account is a balance, counted by the writer.
const NO_RECORD: &[&str] = &["account_show"];

/// Whether a route reads one record, and so answers with a tag.
pub fn tagged(route: &Route) -> bool {
    matches!((&route.call, route.auth, route.method), (Call::Query(..), Auth::Principal, Method::Get))
        && route.path.ends_with('}')
        && !NO_RECORD.contains(&route.operation)
}

/// The read of the record that an act's path names, if it names one.
pub fn record_of<'a>(domains: &'a [Domain], route: &Route) -> Option<&'a Route> {
    let below = |path: &str| {
        route.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut reads = domains.iter().flat_map(|domain| &domain.routes).filter(|read| tagged(read));
    matches!(route.call, Call::Verb(_)).then(|| reads.find(|read| below(read.path))).flatten()
}

/// The tag of a representation.
pub fn tag(rev: Option<u64>, representation: &[u8]) -> String {
    format!("\"{}-{}\"", rev.unwrap_or(0), hex::encode(&sha256(representation)[..8]))
}

/// What a caller has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`
    Any,
    /// These; of each, whether it is weak.
    These(Vec<(bool, String)>),
}

impl Tags {
    /// Whether a caller that has these needs not be sent this one: the weak comparison of RFC 9110 §8.8.3.2.
    pub fn has(&self, tag: &str) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|(_, other)| other == tag),
        }
    }

    /// The revisions that they name; `None`: any. A weak tag matches nothing here, and neither does one that is not ours.
    pub fn revs(&self) -> Option<Vec<u64>> {
        let rev = |(weak, tag): &(bool, String)| {
            let (rev, digest) = tag.trim_matches('"').split_once('-')?;
            let ours = digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            // As we write it: `+1` and `01` are numbers to the parser, and no tags of ours.
            rev.parse().ok().filter(|known: &u64| !*weak && ours && known.to_string() == rev)
        };
        match self {
            Tags::Any => None,
            Tags::These(tags) => Some(tags.iter().filter_map(rev).collect()),
        }
    }
}

/// `If-None-Match`, for a read.
pub fn if_none_match(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
    header_once(headers, &IF_NONE_MATCH)?.map(parse).transpose()
}

/// `If-Match`, for an act that takes one; refused where it does not, as is `If-None-Match` on any act.
pub fn if_match(headers: &HeaderMap, taken: bool) -> Result<Option<Tags>, Problem> {
    if headers.contains_key(IF_NONE_MATCH) {
        return Err(Refusal::Header.because("an act takes no header if-none-match"));
    }
    let tags = header_once(headers, &IF_MATCH)?.map(parse).transpose()?;
    if tags.is_some() && !taken {
        return Err(Refusal::Header.because("this route names no record, so it takes no header if-match"));
    }
    Ok(tags)
}

fn parse(text: &str) -> Result<Tags, Problem> {
    let malformed = || {
        Refusal::Header.because(format!(
            "a condition is * or at most {TAGS_MAX} entity tags in quotes, separated by commas"
        ))
    };
    if text.trim() == "*" {
        return Ok(Tags::Any);
    }
    let (mut tags, mut rest) = (Vec::new(), text.trim());
    loop {
        let (weak, opaque) = match rest.strip_prefix("W/") {
            Some(opaque) => (true, opaque),
            None => (false, rest),
        };
        let inner = opaque.strip_prefix('"').ok_or_else(malformed)?;
        let end = inner.find('"').ok_or_else(malformed)?;
        // The caller's header is visible ASCII and blanks; a tag has no blanks.
        if inner[..end].contains([' ', '\t']) || tags.len() == TAGS_MAX {
            return Err(malformed());
        }
        tags.push((weak, opaque[..end + 2].to_owned()));
        rest = inner[end + 1..].trim_start();
        if rest.is_empty() {
            return Ok(Tags::These(tags));
        }
        rest = rest.strip_prefix(',').ok_or_else(malformed)?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_are_written() {
        let mine = tag(Some(7), b"{}");
        assert_eq!(mine, "\"7-44136fa355b3678a\"");
        let weak = format!("W/{mine}");
        let both = format!("\"x\", {mine}");
        for (text, has, revs) in [
            ("*", true, None),
            (mine.as_str(), true, Some(vec![7])),
            (weak.as_str(), true, Some(vec![])),
            (both.as_str(), true, Some(vec![7])),
            ("\"7-0000000000000000\"", false, Some(vec![7])),
            ("\"7\"", false, Some(vec![])),
            ("\"-1-0000000000000000\"", false, Some(vec![])),
            ("\"+7-0000000000000000\"", false, Some(vec![])),
            ("\"07-0000000000000000\"", false, Some(vec![])),
            ("\"\"", false, Some(vec![])),
            ("\"a,b\"", false, Some(vec![])),
        ] {
            let tags = parse(text).unwrap();
            assert_eq!((tags.has(&mine), tags.revs()), (has, revs), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let many = vec!["\"a\""; TAGS_MAX + 1].join(",");
        for text in [
            "",
            "7",
            "\"",
            "\"a",
            "a\"",
            "\"a\" \"b\"",
            "\"a\",",
            ",\"a\"",
            "w/\"a\"",
            "*, \"a\"",
            "\"a b\"",
            &many,
        ] {
            assert_eq!(parse(text).unwrap_err().status.as_u16(), 400, "{text}");
        }
        assert!(parse(&vec!["\"a\""; TAGS_MAX].join(",")).is_ok());
    }
}
