//! The linear half: multinomial logistic regression over the weights of words.
//!
//! Neighbours see what is alike as a whole; a linear model sees that one word ("supplier") decides, however the rest
//! of the ticket reads. For each label it has one weight per word and a bias; the label's score is their sum over the
//! text's words, and the scores become shares that add up to one. The weights are those that make the training labels
//! most likely, with rare labels weighing as much in all as frequent ones, and large weights costing something
//! ([`STRENGTH`]): a word seen in one ticket must not decide.
//!
//! The best weights are found by L-BFGS (Liu and Nocedal, 1989) from zero, in a fixed order over the examples, without
//! chance. Floating point is involved, so the last digit may differ between machines; shares are rounded before they
//! are compared with anything.
//!
//! Scores are sharpened by [`SHARPNESS`] before they become shares: the penalty on large weights makes the plain shares
//! very timid. They are left a little timid, because a threshold on them lets writes through without a person;
//! `docs/decisions/0013-baseline.md` says how both numbers were chosen.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::token;

/// How much fitting the examples counts against keeping weights small.
const STRENGTH: f64 = 4.0;
/// Factor of scores before they become shares.
const SHARPNESS: f64 = 1.25;
/// Most weights, labels times words. Beyond it the rarest words are left out.
const WEIGHTS_MAX: usize = 2_000_000;
/// Most steps of the search.
const STEPS_MAX: usize = 80;
/// Fewest, however large the training is.
const STEPS_MIN: usize = 6;
/// Multiplications that all steps together may take, about.
const WORK_MAX: usize = 3_000_000_000;
/// Steps that the search remembers.
const MEMORY: usize = 6;
/// The search ends when a step improves the objective by less than this part of it.
const IMPROVEMENT_MIN: f64 = 1e-7;
/// Times a step is halved before the search gives up.
const HALVINGS_MAX: usize = 25;

/// A text as word numbers and weights; its length is 1.
type Vector = Vec<(u32, f32)>;

pub(super) struct Linear {
    words: HashMap<String, u32>,
    idf: Vec<f64>,
    labels: usize,
    /// By word, then by label; the biases come last.
    weights: Vec<f32>,
}

impl Linear {
    /// Trains on texts and the numbers of their labels, which are below `labels`.
    pub(super) fn train(texts: &[&str], label_of: &[u16], labels: usize) -> Linear {
        let counted: Vec<BTreeMap<String, u32>> = texts.iter().map(|text| words_of(text)).collect();
        let mut frequency = BTreeMap::<&str, u32>::new();
        for word in counted.iter().flat_map(BTreeMap::keys) {
            *frequency.entry(word).or_default() += 1;
        }
        let mut kept: Vec<(&str, u32)> = frequency.into_iter().collect();
        // The map is in the order of the words and the sort is stable.
        kept.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kept.truncate(WEIGHTS_MAX / labels.max(1));
        let all = texts.len() as f64;
        let idf =
            kept.iter().map(|(_, count)| ((1.0 + all) / (1.0 + f64::from(*count))).ln() + 1.0).collect();
        let words = kept.iter().enumerate().map(|(at, (word, _))| ((*word).to_owned(), at as u32)).collect();
        let mut linear = Linear { words, idf, labels, weights: Vec::new() };
        let vectors: Vec<Vector> = counted.iter().map(|counts| linear.vector(counts)).collect();
        let problem = Problem::new(&vectors, label_of, labels, linear.idf.len());
        linear.weights = problem.solve().into_iter().map(|weight| weight as f32).collect();
        linear
    }

    /// The share of each label; nothing if the text has no word that was learned from.
    pub(super) fn shares(&self, text: &str) -> Option<Vec<f64>> {
        let vector = self.vector(&words_of(text));
        if vector.is_empty() {
            return None;
        }
        let (weights, biases) = self.weights.split_at(self.weights.len() - self.labels);
        let mut scores: Vec<f64> = biases.iter().map(|bias| f64::from(*bias)).collect();
        for (word, weight) in vector {
            let from = word as usize * self.labels;
            for (score, of_label) in scores.iter_mut().zip(&weights[from..from + self.labels]) {
                *score += f64::from(weight) * f64::from(*of_label);
            }
        }
        scores.iter_mut().for_each(|score| *score *= SHARPNESS);
        softmax(&mut scores);
        Some(scores)
    }

    fn vector(&self, counts: &BTreeMap<String, u32>) -> Vector {
        let weighed: Vec<(u32, f64)> = counts
            .iter()
            .filter_map(|(word, count)| {
                let at = *self.words.get(word)?;
                Some((at, (1.0 + f64::from(*count).ln()) * self.idf[at as usize]))
            })
            .collect();
        let length = weighed.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
        // Every weight is at least 1, so a vector that is not empty has a length.
        weighed.into_iter().map(|(at, weight)| (at, (weight / length) as f32)).collect()
    }
}

/// Words and how often they occur; pairs are the neighbours' matter.
fn words_of(text: &str) -> BTreeMap<String, u32> {
    let mut features = token::features(text);
    features.retain(|feature, _| !token::is_pair(feature));
    features
}

/// Turns scores into shares of one.
fn softmax(scores: &mut [f64]) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - most).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// What is minimised: the examples' surprise, and half the square of the weights.
struct Problem<'a> {
    vectors: &'a [Vector],
    label_of: &'a [u16],
    labels: usize,
    words: usize,
    /// How much an example of each label counts.
    balance: Vec<f64>,
    steps: usize,
}

impl<'a> Problem<'a> {
    fn new(vectors: &'a [Vector], label_of: &'a [u16], labels: usize, words: usize) -> Self {
        let mut examples = vec![0u32; labels];
        label_of.iter().for_each(|label| examples[usize::from(*label)] += 1);
        let even = label_of.len() as f64 / labels as f64;
        let balance = examples.iter().map(|count| STRENGTH * even / f64::from((*count).max(1))).collect();
        let work = 2 * labels * vectors.iter().map(Vec::len).sum::<usize>();
        let steps = (WORK_MAX / work.max(1)).clamp(STEPS_MIN, STEPS_MAX);
        Problem { vectors, label_of, labels, words, balance, steps }
    }

    /// The objective at `weights`, and its slope.
    fn at(&self, weights: &[f64], slope: &mut [f64]) -> f64 {
        let biases = self.words * self.labels;
        slope[..biases].copy_from_slice(&weights[..biases]);
        slope[biases..].fill(0.0);
        let mut objective = 0.5 * dot(&weights[..biases], &weights[..biases]);
        let mut shares = vec![0.0; self.labels];
        for (vector, label) in self.vectors.iter().zip(self.label_of) {
            let label = usize::from(*label);
            shares.copy_from_slice(&weights[biases..]);
            for (word, weight) in vector {
                let from = *word as usize * self.labels;
                for (share, of_label) in shares.iter_mut().zip(&weights[from..from + self.labels]) {
                    *share += f64::from(*weight) * of_label;
                }
            }
            softmax(&mut shares);
            let counts = self.balance[label];
            objective -= counts * shares[label].max(f64::MIN_POSITIVE).ln();
            shares[label] -= 1.0;
            shares.iter_mut().for_each(|share| *share *= counts);
            for (word, weight) in vector {
                let from = *word as usize * self.labels;
                for (of_label, share) in slope[from..from + self.labels].iter_mut().zip(&shares) {
                    *of_label += f64::from(*weight) * share;
                }
            }
            for (of_label, share) in slope[biases..].iter_mut().zip(&shares) {
                *of_label += share;
            }
        }
        objective
    }

    fn solve(&self) -> Vec<f64> {
        let size = (self.words + 1) * self.labels;
        let mut weights = vec![0.0; size];
        let mut slope = vec![0.0; size];
        let mut objective = self.at(&weights, &mut slope);
        let mut memory = VecDeque::<Step>::new();
        for _ in 0..self.steps {
            let mut direction = downhill(&slope, &memory);
            let mut descent = dot(&direction, &slope);
            if descent >= 0.0 {
                // Rounding has spoilt the memory: start from the steepest way again.
                memory.clear();
                direction = slope.iter().map(|slope| -slope).collect();
                descent = dot(&direction, &slope);
            }
            // Without memory a step has no natural length.
            let mut length = if memory.is_empty() { 1.0 / (-descent).sqrt().max(1.0) } else { 1.0 };
            let mut halvings = 0;
            let (next, next_slope, next_objective) = loop {
                let next: Vec<f64> = weights.iter().zip(&direction).map(|(w, d)| w + length * d).collect();
                let mut next_slope = vec![0.0; size];
                let value = self.at(&next, &mut next_slope);
                if value <= objective + 1e-4 * length * descent {
                    break (next, next_slope, value);
                }
                halvings += 1;
                if halvings > HALVINGS_MAX {
                    return weights;
                }
                length *= 0.5;
            };
            let step = Step::between(&weights, &next, &slope, &next_slope);
            let improved = objective - next_objective;
            (weights, slope, objective) = (next, next_slope, next_objective);
            if improved <= IMPROVEMENT_MIN * objective {
                break;
            }
            if let Some(step) = step {
                memory.push_back(step);
                if memory.len() > MEMORY {
                    memory.pop_front();
                }
            }
        }
        weights
    }
}

/// One step of the search: how far, and how the slope changed.
struct Step {
    moved: Vec<f64>,
    turned: Vec<f64>,
    /// One over their product, which is positive.
    rho: f64,
}

impl Step {
    fn between(from: &[f64], to: &[f64], slope: &[f64], next: &[f64]) -> Option<Step> {
        let moved: Vec<f64> = to.iter().zip(from).map(|(to, from)| to - from).collect();
        let turned: Vec<f64> = next.iter().zip(slope).map(|(next, slope)| next - slope).collect();
        let product = dot(&moved, &turned);
        (product > 0.0).then(|| Step { moved, turned, rho: 1.0 / product })
    }
}

/// The direction that the remembered steps suggest (two-loop recursion).
fn downhill(slope: &[f64], memory: &VecDeque<Step>) -> Vec<f64> {
    let mut direction: Vec<f64> = slope.iter().map(|slope| -slope).collect();
    let mut factors = Vec::with_capacity(memory.len());
    for step in memory.iter().rev() {
        let factor = step.rho * dot(&step.moved, &direction);
        direction.iter_mut().zip(&step.turned).for_each(|(d, t)| *d -= factor * t);
        factors.push(factor);
    }
    if let Some(last) = memory.back() {
        let scale = 1.0 / (last.rho * dot(&last.turned, &last.turned));
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (step, factor) in memory.iter().zip(factors.into_iter().rev()) {
        let back = step.rho * dot(&step.turned, &direction);
        direction.iter_mut().zip(&step.moved).for_each(|(d, m)| *d += (factor - back) * m);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] =
        ["printer jams", "printer offline", "printer toner", "vpn token", "payslip late", "payslip missing"];
    const LABELS: [u16; 6] = [0, 0, 0, 1, 2, 2];

    #[test]
    fn the_word_that_decides_decides_and_shares_add_up() {
        let linear = Linear::train(&TEXTS, &LABELS, 3);
        for (text, label) in [("the printer is late", 0), ("my vpn", 1), ("payslip", 2)] {
            let shares = linear.shares(text).unwrap();
            let best = (0..3).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap();
            assert_eq!(best, label, "{text}: {shares:?}");
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        assert_eq!(linear.shares("unheard of"), None);
        assert_eq!(linear.shares(""), None);
        // Three labels share a word that says nothing: the rare one is not drowned.
        let shares = Linear::train(&["word"; 6], &LABELS, 3).shares("word").unwrap();
        assert!(shares.iter().all(|share| (share - 1.0 / 3.0).abs() < 0.02), "{shares:?}");
    }

    #[test]
    fn the_slope_is_the_objectives_and_the_search_ends_where_it_is_flat() {
        let linear = Linear::train(&TEXTS, &LABELS, 3);
        let vectors: Vec<Vector> = TEXTS.iter().map(|text| linear.vector(&words_of(text))).collect();
        let problem = Problem::new(&vectors, &LABELS, 3, linear.idf.len());
        let size = (linear.idf.len() + 1) * 3;
        let mut slope = vec![0.0; size];
        let weights: Vec<f64> = (0..size).map(|at| (at % 7) as f64 * 0.1 - 0.3).collect();
        problem.at(&weights, &mut slope);
        for at in 0..size {
            let near = |by: f64| {
                let mut weights = weights.clone();
                weights[at] += by;
                problem.at(&weights, &mut vec![0.0; size])
            };
            let numeric = (near(1e-5) - near(-1e-5)) / 2e-5;
            assert!((numeric - slope[at]).abs() < 1e-4, "{at}: {numeric} {}", slope[at]);
        }
        let best = problem.solve();
        problem.at(&best, &mut slope);
        assert!(slope.iter().all(|slope| slope.abs() < 0.05), "{slope:?}");
    }
}
