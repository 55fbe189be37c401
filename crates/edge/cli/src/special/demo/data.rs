//! The tickets: who is asked about, who is learned from, and which part each plays.
//!
//! The rows that are asked about and the rows that the baseline learns from never overlap: a classifier that has seen the
//! answer is not being tested. The project's own samples come as two files; of a file that the caller brings, the first
//! rows are asked about and the rest are learned from.

use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const INCIDENTS: &str = include_str!("../../../../../../contracts/samples/incidents.csv");
const TRAINING: &str = include_str!("../../../../../../contracts/samples/training.csv");

/// Largest file of tickets, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most rows of it.
const ROWS_MAX: usize = 100_000;
/// Most tickets asked about in one demo.
pub const ASKED_MAX: usize = 5_000;
/// How many of a caller's tickets are asked about unless said otherwise.
const ASKED: usize = 500;
/// Longest headline of an incident, in characters: what a ServiceNow instance keeps.
const HEADLINE_CHARS: usize = 160;
/// One in so many incidents comes as urgent, and the second person declines to have those routed by a machine.
const URGENT_EVERY: usize = 25;
/// Which of them.
const URGENT_AT: usize = 4;

/// A labelled ticket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Row {
    /// The file's own name for it.
    pub id: String,
    /// Its text.
    pub document: String,
    /// The group that it truly belongs to.
    pub topic_group: String,
}

impl Row {
    /// Headline and text of the incident. Together they are the document and nothing twice, so that the classifier sees
    /// what the file says: the headline is the first sentence, or as many words as fit.
    pub fn texts(&self) -> (String, String) {
        let text = self.document.trim();
        let fits = text.char_indices().nth(HEADLINE_CHARS).map_or(text.len(), |(at, _)| at);
        let head = text.get(..fits).unwrap_or(text);
        let sentence = [". ", "? ", "! "].iter().filter_map(|end| head.find(end)).min().map(|at| at + 1);
        let words = if fits == text.len() { fits } else { head.rfind(char::is_whitespace).unwrap_or(fits) };
        let (head, rest) = text.split_at(sentence.unwrap_or(words));
        (head.trim().to_owned(), rest.trim().to_owned())
    }
}

/// The part that an incident plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// As it comes.
    Ordinary,
    /// Urgent: it needs a person, and the demo's second person declines.
    Urgent,
    /// Of middling urgency: it needs a person, and is left for whoever watches.
    Left,
    /// Marked confidential: policy lets its text go nowhere.
    Confidential,
}

/// Everything that the demo plays with.
#[derive(Debug, Clone)]
pub struct Tickets {
    /// Asked about.
    pub asked: Vec<Row>,
    /// Learned from.
    pub training: Vec<Row>,
    /// Every group there is, sorted.
    pub groups: Vec<String>,
}

impl Tickets {
    /// The caller's tickets, or the project's own.
    pub fn load(file: Option<&Path>, limit: Option<usize>) -> Result<Tickets, Failure> {
        if limit.is_some_and(|limit| limit == 0 || limit > ASKED_MAX) {
            return Err(Failure::Usage(format!("--limit is between 1 and {ASKED_MAX}")));
        }
        let (asked, training) = match file {
            None => {
                let mut asked = read(INCIDENTS.as_bytes(), "the samples")?;
                asked.truncate(limit.unwrap_or(asked.len()));
                (asked, read(TRAINING.as_bytes(), "the samples")?)
            }
            Some(file) => {
                let name = file.display().to_string();
                let open = File::open(file)
                    .map_err(|error| Failure::Usage(format!("{name} cannot be read: {error}")))?;
                let mut asked = read(open.take(FILE_BYTES_MAX), &name)?;
                let limit = limit.unwrap_or(ASKED);
                if asked.len() <= limit {
                    return Err(Failure::Usage(format!(
                        "{name} has {} tickets; the first {limit} are asked about and some must be left to learn from (--limit)",
                        asked.len()
                    )));
                }
                let training = asked.split_off(limit);
                (asked, training)
            }
        };
        let groups: BTreeSet<String> =
            asked.iter().chain(&training).map(|row| row.topic_group.clone()).collect();
        Ok(Tickets { asked, training, groups: groups.into_iter().collect() })
    }

    /// The training examples as the server reads them.
    pub fn training_csv(&self) -> Result<Vec<u8>, Failure> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
        for row in &self.training {
            writer.serialize(row).map_err(|error| failed(&error))?;
        }
        writer.into_inner().map_err(|error| failed(&error))
    }
}

/// The project's own incidents.
pub fn samples() -> Result<Vec<Row>, Failure> {
    read(INCIDENTS.as_bytes(), "the samples")
}

/// The part of the incident at `at`. With `left`, that many are left for whoever watches, beginning with the third.
pub fn part(at: usize, left: usize) -> Part {
    if at % URGENT_EVERY == URGENT_AT {
        Part::Urgent
    } else if (2..2 + left).contains(&at) {
        Part::Left
    } else {
        Part::Ordinary
    }
}

/// An incident that no machine may read: it is asked about nobody and counts in no score.
pub fn confidential(group: &str) -> Row {
    Row {
        id: "confidential".into(),
        document: "Confidential: letter of termination for an employee of the Lisbon office. Please block the accounts on \
                   Friday evening and tell nobody before."
            .into(),
        topic_group: group.to_owned(),
    }
}

fn read(from: impl Read, name: &str) -> Result<Vec<Row>, Failure> {
    let mut reader = csv::Reader::from_reader(from);
    let refused = |why: String| Failure::Usage(format!("{name}: {why}"));
    let headers = reader.headers().map_err(|error| refused(error.to_string()))?;
    for column in ["id", "document", "topic_group"] {
        if !headers.iter().any(|header| header == column) {
            return Err(refused(format!(
                "there is no column {column}; the columns are id, document, topic_group"
            )));
        }
    }
    let mut rows = Vec::new();
    for (at, row) in reader.deserialize::<Row>().enumerate() {
        let row = row.map_err(|error| refused(error.to_string()))?;
        if row.document.trim().is_empty()
            || row.topic_group.trim().is_empty()
            || row.topic_group.chars().count() > 80
        {
            return Err(refused(format!(
                "ticket {} has no text, or no group of at most 80 characters",
                at + 1
            )));
        }
        if rows.len() == ROWS_MAX {
            return Err(refused(format!("there are more than {ROWS_MAX} tickets")));
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(document: &str) -> Row {
        Row { id: "1".into(), document: document.into(), topic_group: "A".into() }
    }

    #[test]
    fn a_document_becomes_headline_and_text_without_loss() {
        for (document, head, rest) in [
            ("short", "short", ""),
            ("VPN is down. It says 789. Help!", "VPN is down.", "It says 789. Help!"),
            ("  padded  ", "padded", ""),
            (&"word ".repeat(60), "word ".repeat(32).trim_end(), "word ".repeat(28).trim_end()),
        ] {
            assert_eq!(row(document).texts(), (head.to_owned(), rest.to_owned()), "{document}");
        }
        for document in ["x".repeat(400), "ü".repeat(400), format!("{} y", "ü".repeat(159))] {
            let (head, rest) = row(&document).texts();
            assert!(head.chars().count() <= HEADLINE_CHARS && !head.is_empty());
            assert_eq!(format!("{head}{rest}").replace(' ', ""), document.replace(' ', ""));
        }
    }

    #[test]
    fn the_samples_are_whole_and_apart() {
        let tickets = Tickets::load(None, None).unwrap();
        assert_eq!(tickets.asked.len(), 12);
        let seen: BTreeSet<_> = tickets.training.iter().map(|row| &row.document).collect();
        assert!(tickets.asked.iter().all(|row| !seen.contains(&row.document)));
        assert!(
            tickets
                .asked
                .iter()
                .all(|row| tickets.training.iter().any(|other| other.topic_group == row.topic_group))
        );
        assert_eq!(Tickets::load(None, Some(3)).unwrap().asked.len(), 3);
        let csv = tickets.training_csv().unwrap();
        assert_eq!(read(&csv[..], "x").unwrap(), tickets.training);
    }

    #[test]
    fn a_callers_file_is_split_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.csv");
        let load = |text: &str, limit| {
            std::fs::write(&path, text).unwrap();
            Tickets::load(Some(&path), limit)
                .map(|tickets| (tickets.asked.len(), tickets.training.len(), tickets.groups))
        };
        let good = "id,document,topic_group\n1,\"a, b\",X\n2,b,Y\n3,c,X\n";
        assert_eq!(load(good, Some(2)).unwrap(), (2, 1, vec!["X".to_owned(), "Y".to_owned()]));
        for (text, limit, expected) in [
            (good, Some(3), "left to learn from"),
            (good, None, "--limit"),
            (good, Some(0), "between 1 and"),
            (good, Some(ASKED_MAX + 1), "between 1 and"),
            ("id,text,topic_group\n1,a,X\n", Some(1), "no column document"),
            ("id,document,topic_group\n1,,X\n", Some(1), "ticket 1"),
            ("id,document,topic_group\n1,a\n", Some(1), "record"),
            ("", Some(1), "no column"),
        ] {
            let failure = load(text, limit).unwrap_err();
            assert!(failure.to_string().contains(expected), "{text:?}: {failure}");
            assert_eq!(failure.code(), 2, "{text:?}");
        }
    }

    #[test]
    fn parts() {
        let parts: Vec<Part> = (0..12).map(|at| part(at, 2)).collect();
        assert_eq!(parts.iter().filter(|part| **part == Part::Left).count(), 2);
        assert_eq!(parts[4], Part::Urgent);
        assert!((0..100).all(|at| part(at, 0) != Part::Left));
    }
}
