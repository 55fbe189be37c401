//! The baseline: a linear model and nearest neighbours over TF-IDF, as a real and honest stand-in for a model.
//!
//! Without a provider's key the flow still has to classify tickets, and with one there has to be something that
//! the paid model must beat. This is it, in two halves that err differently. A logistic regression says which label
//! the words of a text point to ([`linear`]); the ten most similar training examples vote, each with the weight of
//! its similarity ([`index`]), which keeps an answer traceable to tickets that were answered alike. Their shares are
//! mixed, and below a threshold there is no answer. It is named as what it is ([`MODEL`]), speaks the same contract
//! ([`Baseline::answer`]), and its answers pass the same check.
//!
//! **Confidence** is the winner's mixed share, in thousandths. Neighbours below a minimum similarity do not
//! vote; each empty seat votes for nobody with that minimum weight, so a text that shares one weak word with one
//! example does not come out as certain. On tickets set aside, an answer given with 850 or more was right 99 times
//! in 100 (`docs/decisions/0013-baseline.md`); on other tickets it has to be measured again.
//!
//! **Same in, same out**: training order decides ties between examples, the name decides ties between labels, nothing
//! is drawn at random, and [`Baseline::fingerprint`] says which examples and settings were used.
//!
//! What it does not do: understand. Negation, word order beyond pairs, languages it has no examples of, and
//! instructions are all just words to it; the last of these makes it immune to prompt injection, though not to a
//! text stuffed with words of another group.

mod index;
mod linear;
mod summary;
mod token;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    contract::{Answer, Ask, Usage},
    digest,
};
pub use summary::{SUMMARY_CHARS_MAX, SUMMARY_NONE, summary};

/// The name under which the baseline reports itself, and the pin that asks for it. It changes when the same
/// training would classify differently.
pub const MODEL: &str = "baseline/tfidf-linear-1";
/// Most training examples.
pub const EXAMPLES_MAX: usize = 100_000;
/// Most bytes of training text, all examples together.
pub const TRAINING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most different labels.
pub const LABELS_MAX: usize = 500;
/// Longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 200;
/// Most neighbours that vote.
pub const NEIGHBOURS_MAX: usize = 100;

/// A share of one, while shares are added up.
const SHARE_ONE: u64 = 1_000_000;

/// How the baseline decides and what it writes into an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seats in the vote, 1 to [`NEIGHBOURS_MAX`].
    pub neighbours: usize,
    /// Least confidence of an answer, in thousandths; below it the baseline abstains.
    pub threshold_milli: u32,
    /// Least cosine of a neighbour that votes, in thousandths.
    pub similarity_min_milli: u32,
    /// How much the linear model counts against the neighbours, in thousandths: at 0 the neighbours vote alone.
    pub linear_milli: u32,
    /// The fields of an answer's body and what fills them.
    pub fields: BTreeMap<String, Fill>,
}

impl Default for Config {
    /// Ten neighbours, 300 ‰ confidence, 50 ‰ similarity, 700 ‰ linear; `assignment_group` (null if abstained),
    /// `summary` and `confidence`.
    fn default() -> Self {
        Self {
            neighbours: 10,
            threshold_milli: 300,
            similarity_min_milli: 50,
            linear_milli: 700,
            fields: BTreeMap::from([
                ("assignment_group".to_owned(), Fill::Label { abstained: Value::Null }),
                ("summary".to_owned(), Fill::Summary),
                ("confidence".to_owned(), Fill::ConfidenceMilli),
            ]),
        }
    }
}

/// What fills one field of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fill", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fill {
    /// The label.
    Label {
        /// What stands there if the baseline abstained.
        abstained: Value,
    },
    /// A value that follows from the label, for example a category.
    ByLabel {
        /// The value for each label.
        values: BTreeMap<String, Value>,
        /// The value for labels that are not listed, and if the baseline abstained.
        otherwise: Value,
    },
    /// The extractive [`summary`].
    Summary,
    /// The winner's share in thousandths, also if the baseline abstained.
    ConfidenceMilli,
    /// Whether the baseline abstained.
    Abstained,
    /// Always this.
    Fixed {
        /// The value.
        value: Value,
    },
}

/// Why a baseline cannot be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// There are no examples.
    #[error("there are no training examples")]
    Empty,
    /// More than [`EXAMPLES_MAX`] examples or [`TRAINING_BYTES_MAX`] bytes.
    #[error("more than 100000 training examples, or more than 64 MiB of them")]
    TooLarge,
    /// A label is empty or longer than [`LABEL_BYTES_MAX`], or there are more than [`LABELS_MAX`].
    #[error("a label is empty or longer than 200 bytes, or there are more than 500 labels")]
    Labels,
    /// A number of [`Config`] is out of its range.
    #[error("neighbours must be 1 to 100, shares and thresholds 0 to 1000 thousandths")]
    Config,
}

/// The outcome of one classification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The answer; `None` if the baseline abstained.
    pub label: Option<String>,
    /// The label that won, also where that was not enough for an answer. `None` if the text shares nothing with the
    /// examples.
    pub leading: Option<String>,
    /// The winner's share, in thousandths.
    pub confidence_milli: u32,
    /// The second label and its share.
    pub runner_up: Option<RunnerUp>,
    /// Who voted, nearest first.
    pub neighbours: Vec<Neighbour>,
}

/// The second label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerUp {
    /// Its label.
    pub label: String,
    /// Its share, in thousandths.
    pub confidence_milli: u32,
}

/// One training example that voted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its position in training order.
    pub example: usize,
    /// Its label.
    pub label: String,
    /// Its cosine with the text, in thousandths.
    pub similarity_milli: u32,
}

/// A trained baseline. Immutable: share it.
pub struct Baseline {
    config: Config,
    labels: Vec<String>,
    label_of: Vec<u16>,
    index: index::Index,
    /// None if it counts nothing.
    linear: Option<linear::Linear>,
    fingerprint: String,
}

impl Baseline {
    /// Trains on pairs of text and label. The order matters only for ties and for the fingerprint.
    pub fn train<'a>(
        examples: impl Iterator<Item = (&'a str, &'a str)>,
        config: Config,
    ) -> Result<Self, TrainError> {
        let thresholds = config.threshold_milli.max(config.similarity_min_milli).max(config.linear_milli);
        if !(1..=NEIGHBOURS_MAX).contains(&config.neighbours) || thresholds > 1_000 {
            return Err(TrainError::Config);
        }
        let mut texts = Vec::new();
        let mut label_of = Vec::new();
        let mut ids = BTreeMap::<&str, u16>::new();
        let mut bytes = 0;
        // One digest over the digests of the parts: no two trainings can run together into the same bytes. A map
        // of plain values always serialises.
        let mut parts = digest::hex(serde_json::to_string(&config).unwrap_or_default().as_bytes());
        for (text, label) in examples {
            bytes += text.len();
            if texts.len() == EXAMPLES_MAX || bytes > TRAINING_BYTES_MAX {
                return Err(TrainError::TooLarge);
            }
            let next = ids.len();
            let id = *ids.entry(label).or_insert(next as u16);
            if label.is_empty() || label.len() > LABEL_BYTES_MAX || ids.len() > LABELS_MAX {
                return Err(TrainError::Labels);
            }
            parts.push_str(&digest::hex(text.as_bytes()));
            parts.push_str(&digest::hex(label.as_bytes()));
            texts.push(text);
            label_of.push(id);
        }
        if texts.is_empty() {
            return Err(TrainError::Empty);
        }
        let mut labels = vec![String::new(); ids.len()];
        for (label, id) in ids {
            labels[usize::from(id)] = label.to_owned();
        }
        let index = index::Index::build(texts.iter().copied());
        let linear =
            (config.linear_milli > 0).then(|| linear::Linear::train(&texts, &label_of, labels.len()));
        Ok(Self { config, labels, label_of, index, linear, fingerprint: digest::hex(parts.as_bytes()) })
    }

    /// SHA-256 over the settings and every training example, in order: 64 lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Classifies one text. Reads at most 16 KiB of it.
    pub fn classify(&self, text: &str) -> Vote {
        let similarity_min = u64::from(self.config.similarity_min_milli) * index::SIMILARITY_ONE / 1_000;
        let mut hits = self.index.nearest(text, self.config.neighbours);
        hits.retain(|hit| u64::from(hit.similarity) >= similarity_min);
        let empty_seats = (self.config.neighbours - hits.len()) as u64;
        let total =
            hits.iter().map(|hit| u64::from(hit.similarity)).sum::<u64>() + empty_seats * similarity_min;
        let linear = self.linear.as_ref().and_then(|linear| linear.shares(text));
        let mut ranked: Vec<(&str, u64)> = Vec::new();
        for (at, label) in self.labels.iter().enumerate() {
            let votes = hits.iter().filter(|hit| usize::from(self.label_of[hit.example as usize]) == at);
            let voted = votes.map(|hit| u64::from(hit.similarity)).sum::<u64>() * SHARE_ONE;
            let voted = voted.checked_div(total).unwrap_or(0);
            let said = linear.as_ref().map_or(0, |shares| (shares[at] * SHARE_ONE as f64).round() as u64);
            let weight = u64::from(self.config.linear_milli);
            let share = (said * weight + voted * (1_000 - weight)) / 1_000;
            if share > 0 {
                ranked.push((label, share));
            }
        }
        ranked.sort_by(|(a, share_a), (b, share_b)| share_b.cmp(share_a).then(a.cmp(b)));
        let milli = |share: u64| (share * 1_000 / SHARE_ONE) as u32;
        let confidence_milli = ranked.first().map_or(0, |(_, share)| milli(*share));
        let leading = ranked.first().map(|(label, _)| (*label).to_owned());
        Vote {
            label: leading.clone().filter(|_| confidence_milli >= self.config.threshold_milli),
            leading,
            confidence_milli,
            runner_up: ranked.get(1).map(|(label, share)| RunnerUp {
                label: (*label).to_owned(),
                confidence_milli: milli(*share),
            }),
            neighbours: hits
                .iter()
                .map(|hit| Neighbour {
                    example: hit.example as usize,
                    label: self.label(hit.example).to_owned(),
                    similarity_milli: (u64::from(hit.similarity) * 1_000 / index::SIMILARITY_ONE).min(1_000)
                        as u32,
                })
                .collect(),
        }
    }

    /// Answers an ask through the contract: classifies `ask.user` and fills the configured fields. It reports
    /// itself as [`MODEL`] whatever was pinned, so an ask for another model fails its check.
    pub fn answer(&self, ask: &Ask) -> Answer {
        let vote = self.classify(&ask.user);
        let body: Map<String, Value> = self
            .config
            .fields
            .iter()
            .map(|(field, fill)| (field.clone(), filled(fill, &vote, &ask.user)))
            .collect();
        let body = Value::Object(body);
        Answer {
            raw_digest: digest::hex(body.to_string().as_bytes()),
            body,
            model: MODEL.to_owned(),
            fingerprint: Some(self.fingerprint.clone()),
            usage: Usage::Unmetered,
        }
    }

    fn label(&self, example: u32) -> &str {
        &self.labels[usize::from(self.label_of[example as usize])]
    }
}

fn filled(fill: &Fill, vote: &Vote, text: &str) -> Value {
    match fill {
        Fill::Label { abstained } => vote.label.as_deref().map_or_else(|| abstained.clone(), Value::from),
        Fill::ByLabel { values, otherwise } => {
            vote.label.as_ref().and_then(|label| values.get(label)).unwrap_or(otherwise).clone()
        }
        Fill::Summary => Value::from(summary(text)),
        Fill::ConfidenceMilli => Value::from(vote.confidence_milli),
        Fill::Abstained => Value::from(vote.label.is_none()),
        Fill::Fixed { value } => value.clone(),
    }
}
