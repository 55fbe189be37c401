//! A short summary by extraction: the first sentence that says something, cut to size.
//!
//! It invents nothing and understands nothing; it is the baseline's counterpart to a written summary. Courtesies at
//! the start of a sentence are skipped, and the result passes [`hygiene::line`] like any model's text.

use super::token;
use crate::hygiene;

/// Longest summary, in characters.
pub const SUMMARY_CHARS_MAX: usize = 160;
/// Written where a text has no words at all.
pub const SUMMARY_NONE: &str = "No readable text.";
/// A sentence with fewer kept words than this is a greeting or a fragment, and the next one is tried.
const WORDS_MIN: usize = 3;
/// Sentences that are looked at.
const SENTENCES_MAX: usize = 50;

/// Summarises `text` in at most [`SUMMARY_CHARS_MAX`] characters.
pub fn summary(text: &str) -> String {
    let text = hygiene::block(hygiene::prefix(text, token::TEXT_BYTES_MAX)).text;
    let sentences = || sentences(&text).take(SENTENCES_MAX).map(courtesies_skip);
    let informative = sentences().find(|sentence| token::words(sentence).len() >= WORDS_MIN);
    let chosen = informative.or_else(|| sentences().max_by_key(|sentence| sentence.chars().count()));
    let line = hygiene::line(chosen.unwrap_or_default()).text;
    if line.is_empty() { SUMMARY_NONE.to_owned() } else { shorten(&line) }
}

/// Pieces that end with a line or with `.`, `!` or `?` before white space.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = rest
                .char_indices()
                .find(|(at, c)| {
                    let after = &rest[at + c.len_utf8()..];
                    matches!(c, '.' | '!' | '?' | '。')
                        && (after.is_empty() || after.starts_with(char::is_whitespace))
                })
                .map_or(rest.len(), |(at, c)| at + c.len_utf8());
            let (sentence, after) = rest.split_at(end);
            rest = after;
            Some(sentence)
        })
    })
}

/// Drops leading stop words (`Hi, please …`) unless nothing else is there.
fn courtesies_skip(sentence: &str) -> &str {
    let mut rest = sentence.trim();
    loop {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let after = after.trim_start();
        if after.is_empty() || !bare.is_empty() && !token::is_stop(&bare) {
            return rest;
        }
        rest = after;
    }
}

/// Cuts at the last space that leaves room for the mark of the cut.
fn shorten(line: &str) -> String {
    if line.chars().count() <= SUMMARY_CHARS_MAX {
        return line.to_owned();
    }
    let end = line.char_indices().nth(SUMMARY_CHARS_MAX - 1).map_or(line.len(), |(at, _)| at);
    let head = &line[..end];
    let cut = head.rfind(' ').unwrap_or(head.len());
    format!("{}…", head[..cut].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_that_says_something() {
        let long = "laptop ".repeat(60);
        let blob = "x".repeat(500);
        for (text, want) in [
            ("Hi. Please note: the printer on floor 3 jams. Thanks.", "note: the printer on floor 3 jams."),
            (
                "Hello team,\nVPN drops every hour since Monday!\nRegards",
                "VPN drops every hour since Monday!",
            ),
            ("Help", "Help"),
            ("Outlook.exe v1.2.3 crashes daily. More below.", "Outlook.exe v1.2.3 crashes daily."),
            ("", SUMMARY_NONE),
            ("\u{202e}\n \u{0}", SUMMARY_NONE),
            (
                "Reset here https://evil.example/x my bank password",
                "Reset here [link removed] my bank password",
            ),
        ] {
            assert_eq!(summary(text), want, "{text:?}");
        }
        for text in [long.as_str(), blob.as_str(), &"ä".repeat(400)] {
            let summary = summary(text);
            assert!(summary.chars().count() <= SUMMARY_CHARS_MAX && summary.ends_with('…'), "{summary}");
        }
    }
}
