//! How good a classifier is, counted so that it cannot be flattered.
//!
//! On skewed classes accuracy praises whoever always names the largest one; macro-F1 weighs every class the same
//! and does not. Both are given, and beside them what "always the largest class" would have scored
//! ([`majority`]): a figure without that is not a result.
//!
//! **Abstentions** count against the classifier: a case without an answer is a miss for its true class (its recall
//! falls) and wrong in the accuracy, but it is no false alarm for any other class. What was answered, and how much
//! of that was right, stands apart in [`Scores::coverage_milli`] and [`Scores::answered_accuracy_milli`].
//!
//! **Classes** are those that occur as truth or as guess. A class that was guessed and never true has an F1 of 0
//! and pulls the mean down: inventing classes is a mistake, not a footnote.
//!
//! Figures are exact ratios rounded half up to thousandths; the macro mean is taken over millionths first.

use std::collections::BTreeMap;

use serde::Serialize;

/// Precision, recall and F1 of one class, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassScore {
    /// The class.
    pub label: String,
    /// How many cases truly are of this class.
    pub support: u64,
    /// Of those guessed to be this class, how many are. 0 where nothing was guessed.
    pub precision_milli: u32,
    /// Of those that are this class, how many were guessed. 0 where there are none.
    pub recall_milli: u32,
    /// Harmonic mean of the two.
    pub f1_milli: u32,
}

/// What a classifier scored over a set of cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scores {
    /// Cases asked.
    pub asked: u64,
    /// Cases without an answer.
    pub abstained: u64,
    /// Right answers among all cases.
    pub accuracy_milli: u32,
    /// Unweighted mean of the classes' F1.
    pub macro_f1_milli: u32,
    /// Answered cases among all cases.
    pub coverage_milli: u32,
    /// Right answers among answered cases; nothing where none was answered.
    pub answered_accuracy_milli: Option<u32>,
    /// By class, in the order of their names.
    pub classes: Vec<ClassScore>,
}

#[derive(Default)]
struct Count {
    right: u64,
    truths: u64,
    guesses: u64,
}

/// Scores pairs of (truth, guess); a guess of `None` is an abstention. No cases score 0 everywhere.
pub fn score<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Scores {
    let mut counts = BTreeMap::<&str, Count>::new();
    let (mut asked, mut abstained, mut right) = (0, 0, 0);
    for (truth, guess) in pairs {
        asked += 1;
        counts.entry(truth).or_default().truths += 1;
        let Some(guess) = guess else {
            abstained += 1;
            continue;
        };
        counts.entry(guess).or_default().guesses += 1;
        if guess == truth {
            right += 1;
            counts.entry(truth).or_default().right += 1;
        }
    }
    let f1_sum: u64 =
        counts.values().map(|count| ratio(2 * count.right, count.truths + count.guesses, 1_000_000)).sum();
    let answered = asked - abstained;
    Scores {
        asked,
        abstained,
        accuracy_milli: milli(right, asked),
        macro_f1_milli: milli(f1_sum, counts.len() as u64 * 1_000_000),
        coverage_milli: milli(answered, asked),
        answered_accuracy_milli: (answered > 0).then(|| milli(right, answered)),
        classes: counts
            .into_iter()
            .map(|(label, count)| ClassScore {
                label: label.to_owned(),
                support: count.truths,
                precision_milli: milli(count.right, count.guesses),
                recall_milli: milli(count.right, count.truths),
                // 2PR/(P+R) with P = right/guesses and R = right/truths.
                f1_milli: milli(2 * count.right, count.truths + count.guesses),
            })
            .collect(),
    }
}

/// The label that occurs most often; the first by name among equals. `None` of nothing.
pub fn majority_label<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts = BTreeMap::<&str, u64>::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0))).map(|(label, _)| label)
}

/// Scores the classifier that always answers with the most frequent label of its *training* examples.
pub fn majority<'a>(
    training: impl IntoIterator<Item = &'a str>,
    truths: impl IntoIterator<Item = &'a str>,
) -> Scores {
    let label = majority_label(training);
    score(truths.into_iter().map(|truth| (truth, label)))
}

fn milli(part: u64, whole: u64) -> u32 {
    // At most 1000: `part` never exceeds `whole` here.
    ratio(part, whole, 1_000) as u32
}

/// `part / whole` in `units`, rounded half up; 0 of nothing.
fn ratio(part: u64, whole: u64, units: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    ((u128::from(part) * u128::from(units) * 2 + u128::from(whole)) / (u128::from(whole) * 2)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(scores: &Scores, label: &str) -> (u64, u32, u32, u32) {
        let class = scores.classes.iter().find(|class| class.label == label).unwrap();
        (class.support, class.precision_milli, class.recall_milli, class.f1_milli)
    }

    #[test]
    fn by_hand() {
        // a: 3 cases, guessed a a b; b: 2 cases, guessed b a; c: 1 case, guessed b.
        let scores = score([
            ("a", Some("a")),
            ("a", Some("a")),
            ("a", Some("b")),
            ("b", Some("b")),
            ("b", Some("a")),
            ("c", Some("b")),
        ]);
        assert_eq!(class(&scores, "a"), (3, 667, 667, 667)); // 2/3, 2/3
        assert_eq!(class(&scores, "b"), (2, 333, 500, 400)); // 1/3, 1/2, 2/5
        assert_eq!(class(&scores, "c"), (1, 0, 0, 0));
        assert_eq!(scores.macro_f1_milli, 356); // (2/3 + 2/5 + 0) / 3 = 0.35556
        assert_eq!(scores.accuracy_milli, 500);
        assert_eq!((scores.asked, scores.abstained, scores.coverage_milli), (6, 0, 1000));
        assert_eq!(scores.answered_accuracy_milli, Some(500));
    }

    #[test]
    fn an_abstention_costs_recall_and_accuracy_but_is_no_false_alarm() {
        let scores = score([("a", Some("a")), ("a", None), ("b", Some("b")), ("b", None)]);
        assert_eq!(class(&scores, "a"), (2, 1000, 500, 667)); // 2/3
        assert_eq!((scores.macro_f1_milli, scores.accuracy_milli), (667, 500));
        assert_eq!((scores.abstained, scores.coverage_milli), (2, 500));
        assert_eq!(scores.answered_accuracy_milli, Some(1000));
    }

    #[test]
    fn a_class_that_is_only_guessed_pulls_the_mean_down() {
        let scores = score([("a", Some("a")), ("a", Some("invented"))]);
        assert_eq!(scores.macro_f1_milli, 333); // (2/3 + 0) / 2
        assert_eq!(class(&scores, "invented"), (0, 0, 0, 0));
    }

    #[test]
    fn the_majority_is_taken_from_training_and_ties_go_by_name() {
        assert_eq!(majority_label(["b", "a", "b", "a", "c"]), Some("a"));
        let scores = majority(["b", "b", "a"], ["a", "a", "a", "b"]);
        assert_eq!((scores.accuracy_milli, scores.macro_f1_milli), (250, 200)); // b: 2·1/(1+4), a: 0
    }

    #[test]
    fn nothing_scores_nothing() {
        let scores = score([]);
        assert_eq!((scores.asked, scores.accuracy_milli, scores.macro_f1_milli), (0, 0, 0));
        assert_eq!(scores.answered_accuracy_milli, None);
        assert_eq!(majority([], ["a"]).abstained, 1);
        assert_eq!(score([("a", None)]).answered_accuracy_milli, None);
    }
}
