//! Scores the baseline on a file of labelled tickets, beside the majority baseline.
//!
//! ```text
//! cargo run --release --example evaluate -p models -- FILE.csv LIMIT
//! cargo run --release --example evaluate -p models -- FILE.csv LIMIT --folds 4
//! ```
//!
//! FILE has the columns `id, document, topic_group`. The first LIMIT rows are asked, the rest are the training
//! examples. With `--folds N` the first LIMIT rows are set aside unread and the training rows are split N ways,
//! each part asked of the others: that is where a setting may be tried out without looking at the asked rows.
//!
//! The table is printed for the default settings; what other mixtures of the two halves would have scored stands in a
//! line each. Whoever chooses by these lines looks at the cross-validated ones.
//!
//! Every query is timed three times and the fastest counts: other work on the machine is not the query's.

use std::{error::Error, time::Instant};

use models::{
    baseline::{Baseline, Config},
    score,
};

type Row = (String, String);

/// The confidence from which the shipped policy lets harmless writes through without a person.
const SURE_MILLI: u32 = 850;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: evaluate FILE.csv LIMIT [--folds N]";
    let (file, limit, folds) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [file, limit] => (file, limit.parse::<usize>()?, None),
        [file, limit, "--folds", folds] => (file, limit.parse()?, Some(folds.parse::<usize>()?)),
        _ => return Err(usage.into()),
    };
    let mut rows = Vec::new();
    for record in csv::Reader::from_path(file)?.deserialize() {
        let (_id, document, label): (String, String, String) = record?;
        rows.push((document, label));
    }
    if limit == 0 || limit >= rows.len() || folds.is_some_and(|folds| folds < 2) {
        return Err(usage.into());
    }
    let training = rows.split_off(limit);
    // The neighbours alone, mixtures, the linear model alone.
    for linear_milli in [0, 300, 500, 600, 700, 800, 1_000] {
        let config = Config { linear_milli, ..Config::default() };
        let is_default = config == Config::default();
        let outcome = match folds {
            None => {
                evaluate(&training.iter().collect::<Vec<_>>(), &rows.iter().collect::<Vec<_>>(), &config)?
            }
            Some(folds) => {
                let mut all = Outcome::default();
                for fold in 0..folds {
                    let part = |asked: bool| {
                        training
                            .iter()
                            .enumerate()
                            .filter(move |(n, _)| (n % folds == fold) == asked)
                            .map(|(_, row)| row)
                            .collect::<Vec<_>>()
                    };
                    all.extend(evaluate(&part(false), &part(true), &config)?);
                }
                all
            }
        };
        outcome.print_line(&format!("linear {linear_milli}{}", if is_default { " (default)" } else { "" }));
        if is_default {
            outcome.print(if folds.is_some() { "training rows, cross-validated" } else { "asked rows" });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Outcome {
    /// Truth, leading label, confidence, and what the majority baseline says.
    cases: Vec<(String, Option<String>, u32, Option<String>)>,
    train_ms: u128,
    query_us: Vec<u128>,
}

#[expect(clippy::disallowed_methods, reason = "an example that measures; it has no injected clock")]
fn evaluate(training: &[&Row], asked: &[&Row], config: &Config) -> Result<Outcome, Box<dyn Error>> {
    let majority = score::majority_label(training.iter().map(|(_, label)| label.as_str())).map(str::to_owned);
    let start = Instant::now();
    let baseline = Baseline::train(
        training.iter().map(|(text, label)| (text.as_str(), label.as_str())),
        config.clone(),
    )?;
    let mut outcome = Outcome { train_ms: start.elapsed().as_millis(), ..Outcome::default() };
    for (text, truth) in asked {
        let timed = || {
            let start = Instant::now();
            let vote = baseline.classify(text);
            (start.elapsed().as_micros(), vote)
        };
        let ((first, vote), (second, _), (third, _)) = (timed(), timed(), timed());
        outcome.query_us.push(first.min(second).min(third));
        outcome.cases.push((truth.clone(), vote.leading, vote.confidence_milli, majority.clone()));
    }
    Ok(outcome)
}

impl Outcome {
    fn extend(&mut self, other: Self) {
        self.cases.extend(other.cases);
        self.train_ms += other.train_ms;
        self.query_us.extend(other.query_us);
    }

    /// What is answered with at least this confidence.
    fn scores(&self, threshold: u32) -> score::Scores {
        score::score(
            self.cases
                .iter()
                .map(|case| (case.0.as_str(), case.1.as_deref().filter(|_| case.2 >= threshold))),
        )
    }

    /// How far confidence is from how often it is right, over ten classes of confidence.
    fn calibration_error_milli(&self) -> u64 {
        let mut bins = [(0u64, 0u64, 0u64); 10];
        for case in &self.cases {
            let bin = &mut bins[(case.2 as usize / 100).min(9)];
            bin.0 += 1;
            bin.1 += u64::from(case.2);
            bin.2 += if case.1.as_ref() == Some(&case.0) { 1_000 } else { 0 };
        }
        bins.iter().map(|(_, said, was)| said.abs_diff(*was)).sum::<u64>() / (self.cases.len() as u64).max(1)
    }

    #[expect(clippy::print_stdout, reason = "printing is what this example is for")]
    fn print_line(&self, name: &str) {
        let (all, sure) = (self.scores(0), self.scores(SURE_MILLI));
        println!(
            "{name:<24} macro-F1 {} accuracy {} | at {SURE_MILLI}: coverage {} right {} | calibration error {}",
            all.macro_f1_milli,
            all.accuracy_milli,
            sure.coverage_milli,
            sure.answered_accuracy_milli.unwrap_or(0),
            self.calibration_error_milli()
        );
    }

    #[expect(clippy::print_stdout, reason = "printing is what this example is for")]
    fn print(mut self, what: &str) {
        self.query_us.sort_unstable();
        let at = |share: usize| self.query_us[(self.query_us.len() - 1) * share / 100];
        println!("{what}: {}", self.cases.len());
        println!(
            "training {} ms; query p50 {} us, p99 {} us, max {} us",
            self.train_ms,
            at(50),
            at(99),
            at(100)
        );
        println!(
            "{:<24} {:>8} {:>8} {:>8} {:>12}",
            "milli", "macroF1", "accuracy", "coverage", "acc.answered"
        );
        let line = |name: &str, scores: &score::Scores| {
            let answered = scores.answered_accuracy_milli.unwrap_or(0);
            let (f1, accuracy, coverage) =
                (scores.macro_f1_milli, scores.accuracy_milli, scores.coverage_milli);
            println!("{name:<24} {f1:>8} {accuracy:>8} {coverage:>8} {answered:>12}");
        };
        line("majority", &score::score(self.cases.iter().map(|case| (case.0.as_str(), case.3.as_deref()))));
        let default = Config::default().threshold_milli;
        for threshold in [0, default, 400, 500, 600, 700, SURE_MILLI] {
            let mark = if threshold == default { " (default)" } else { "" };
            line(&format!("threshold {threshold}{mark}"), &self.scores(threshold));
        }
        let scores = self.scores(default);
        println!(
            "\n{:<24} {:>8} {:>9} {:>8} {:>8}",
            "class (default)", "support", "precision", "recall", "F1"
        );
        for class in scores.classes {
            println!(
                "{:<24} {:>8} {:>9} {:>8} {:>8}",
                class.label, class.support, class.precision_milli, class.recall_milli, class.f1_milli
            );
        }
        println!();
    }
}
