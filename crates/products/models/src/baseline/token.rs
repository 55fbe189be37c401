//! Text into features: what counts as a word here, and what does not.
//!
//! A *word* is a run of Unicode letters and digits, lower-cased; other characters separate. Single ASCII characters,
//! words longer than [`WORD_CHARS_MAX`] characters (hashes, encoded blobs) and the words of [`STOP`] are left out.
//! A final `s` of a longer word is dropped, so that `printers` and `printer` meet; there is no further stemming
//! and no Unicode normalisation. A *pair* is two neighbouring words that were kept.
//!
//! The first [`HEAD_WORDS`] kept words count once more: tickets put their subject first.

use std::collections::BTreeMap;

use crate::hygiene;

/// Most bytes of a text that are read.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most words of a text that are kept.
pub const WORDS_MAX: usize = 2_000;
/// Longest word, in characters.
pub const WORD_CHARS_MAX: usize = 40;
/// How many leading words count twice.
pub const HEAD_WORDS: usize = 8;

/// English words that say nothing about a ticket: articles, pronouns, auxiliaries, prepositions, and the courtesies
/// and headers of mail. Sorted.
pub const STOP: [&str; 100] = [
    "am",
    "an",
    "and",
    "are",
    "as",
    "at",
    "be",
    "been",
    "best",
    "but",
    "by",
    "can",
    "cc",
    "could",
    "dear",
    "did",
    "do",
    "does",
    "for",
    "from",
    "fw",
    "fwd",
    "good",
    "had",
    "has",
    "have",
    "he",
    "hello",
    "her",
    "hey",
    "hi",
    "him",
    "his",
    "how",
    "if",
    "in",
    "into",
    "is",
    "it",
    "its",
    "just",
    "kind",
    "kindly",
    "many",
    "may",
    "me",
    "morning",
    "mr",
    "ms",
    "my",
    "no",
    "not",
    "of",
    "on",
    "or",
    "our",
    "please",
    "pm",
    "re",
    "regard",
    "regards",
    "sent",
    "she",
    "should",
    "sincerely",
    "so",
    "some",
    "subject",
    "thank",
    "thanks",
    "that",
    "the",
    "their",
    "them",
    "then",
    "there",
    "these",
    "they",
    "this",
    "those",
    "to",
    "us",
    "was",
    "we",
    "were",
    "what",
    "when",
    "where",
    "which",
    "who",
    "will",
    "wish",
    "wishes",
    "with",
    "would",
    "yes",
    "yet",
    "you",
    "your",
    "yours",
];

/// Whether a lower-case word is left out.
pub fn is_stop(word: &str) -> bool {
    STOP.binary_search(&word).is_ok()
}

/// The words of `text` that are kept, in order.
pub fn words(text: &str) -> Vec<String> {
    hygiene::prefix(text, TEXT_BYTES_MAX)
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_lowercase)
        .filter(|word| !is_stop(word) && word.chars().count() <= WORD_CHARS_MAX)
        .map(singular)
        .take(WORDS_MAX)
        .collect()
}

fn singular(mut word: String) -> String {
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
    word
}

/// How often each feature occurs. A pair is written as its two words with a space, which no word holds.
pub fn features(text: &str) -> BTreeMap<String, u32> {
    let words = words(text);
    let mut counts = BTreeMap::new();
    for pair in words.windows(2) {
        *counts.entry(format!("{} {}", pair[0], pair[1])).or_insert(0) += 1;
    }
    for (at, word) in words.into_iter().enumerate() {
        *counts.entry(word).or_insert(0) += if at < HEAD_WORDS { 2 } else { 1 };
    }
    counts
}

/// Whether a feature is a pair of words.
pub fn is_pair(feature: &str) -> bool {
    feature.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_list_is_sorted() {
        assert!(STOP.is_sorted());
    }

    #[test]
    fn words_are_what_the_header_says() {
        let long = "x".repeat(WORD_CHARS_MAX + 1);
        for (text, want) in [
            ("Printers, printing: PRINTER!", vec!["printer", "printing", "printer"]),
            ("Hi, please reset my password. Thanks", vec!["reset", "password"]),
            ("VPN-Zugang für MÜLLER läuft ab", vec!["vpn", "zugang", "für", "müller", "läuft", "ab"]),
            ("access a 1 22 class gas", vec!["access", "22", "class", "gas"]),
            (long.as_str(), vec![]),
            ("", vec![]),
        ] {
            assert_eq!(words(text), want, "{text}");
        }
        assert_eq!(words(&"word ".repeat(100_000)).len(), WORDS_MAX);
    }

    #[test]
    fn the_head_counts_twice_and_pairs_once() {
        let text = "one1 two2 tri3 four4 five5 six6 seven7 eight8 nine9 two2 tri3";
        let counts = features(text);
        assert_eq!(counts["two2"], 3);
        assert_eq!(counts["nine9"], 1);
        assert_eq!(counts["two2 tri3"], 2);
        assert!(is_pair("two2 tri3") && !is_pair("two2"));
    }
}
