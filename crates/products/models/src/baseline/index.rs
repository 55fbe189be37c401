//! The inverted index: from each feature to the examples that have it.
//!
//! A feature's weight in a text is `(1 + ln count) · idf`, with `idf = ln((1 + N) / (1 + df)) + 1` over N examples,
//! halved for pairs; the vector of a text is scaled to length 1, so the product of two vectors is their cosine.
//! Pairs that occur in one example only are dropped: they match nothing but that example.
//!
//! Weights are kept as integers in units of 2⁻¹⁵ and added up as integers. Sums then do not depend on order or on
//! the last bit of a logarithm, and equal examples score exactly the same: ties are real ties, broken by position.
//! A query touches only the postings of its own features; with 50,000 short tickets that is a fraction of a
//! millisecond.

use std::collections::HashMap;

use super::token;

/// Weight 1.0.
const ONE: f64 = 32_768.0;
/// A cosine of 1.0 in the unit of [`Hit::similarity`].
pub(super) const SIMILARITY_ONE: u64 = 1 << 30;
/// Most features of a query that are looked up; the heaviest are kept. Fewer than 100 begin to cost accuracy on long
/// tickets, more than this bought none.
const QUERY_FEATURES_MAX: usize = 128;

/// An example that shares something with the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// Position of the example in training order.
    pub example: u32,
    /// Cosine in units of 2⁻³⁰.
    pub similarity: u32,
}

pub(super) struct Index {
    features: HashMap<String, Feature>,
    /// Inverse document frequency of a word that no example has.
    idf_unseen: f64,
    examples: usize,
    postings_example: Vec<u32>,
    postings_weight: Vec<u16>,
}

struct Feature {
    idf: f64,
    from: u32,
    to: u32,
}

impl Index {
    /// Builds the index over `texts`; positions are their order.
    pub(super) fn build<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        // Ids go by first appearance, so nothing depends on the hash map's order.
        let mut ids = HashMap::<String, u32>::new();
        let mut frequency = Vec::<u32>::new();
        let mut pair = Vec::<bool>::new();
        let mut vectors = Vec::<Vec<(u32, u32)>>::new();
        for text in texts {
            let mut vector = Vec::new();
            for (feature, count) in token::features(text) {
                let is_pair = token::is_pair(&feature);
                let id = *ids.entry(feature).or_insert_with(|| {
                    frequency.push(0);
                    pair.push(is_pair);
                    frequency.len() as u32 - 1
                });
                frequency[id as usize] += 1;
                vector.push((id, count));
            }
            vectors.push(vector);
        }
        let examples = vectors.len();
        let idf_of = |frequency: u32| ((1.0 + examples as f64) / (1.0 + f64::from(frequency))).ln() + 1.0;
        let idf: Vec<f64> = frequency
            .iter()
            .zip(&pair)
            .map(|(frequency, pair)| match (pair, frequency) {
                (true, 0 | 1) => 0.0,
                (true, _) => idf_of(*frequency) * 0.5,
                (false, _) => idf_of(*frequency),
            })
            .collect();
        let mut lists = vec![Vec::<(u32, u16)>::new(); idf.len()];
        for (example, vector) in vectors.into_iter().enumerate() {
            let weights = vector.into_iter().map(|(id, count)| (id, tf(count) * idf[id as usize])).collect();
            for (id, weight) in unit(weights) {
                lists[id as usize].push((example as u32, weight));
            }
        }
        let mut index = Self {
            features: HashMap::new(),
            idf_unseen: idf_of(0),
            examples,
            postings_example: Vec::new(),
            postings_weight: Vec::new(),
        };
        let mut spans = Vec::with_capacity(lists.len());
        for list in lists {
            let from = index.postings_example.len() as u32;
            for (example, weight) in list {
                index.postings_example.push(example);
                index.postings_weight.push(weight);
            }
            spans.push((from, index.postings_example.len() as u32));
        }
        index.features = ids
            .into_iter()
            .filter(|(_, id)| idf[*id as usize] > 0.0)
            .map(|(feature, id)| {
                let (from, to) = spans[id as usize];
                (feature, Feature { idf: idf[id as usize], from, to })
            })
            .collect();
        index
    }

    /// The `most` examples nearest to `text`, nearest first, the earlier one among equals.
    ///
    /// Words that no example has take part in the length of the query: a text that is mostly unknown is near to
    /// nothing.
    pub(super) fn nearest(&self, text: &str, most: usize) -> Vec<Hit> {
        let mut spans = Vec::new();
        let mut weights = Vec::new();
        for (feature, count) in token::features(text) {
            let (idf, from, to) = match self.features.get(&feature) {
                Some(known) => (known.idf, known.from, known.to),
                None if token::is_pair(&feature) => continue,
                None => (self.idf_unseen, 0, 0),
            };
            weights.push((spans.len() as u32, tf(count) * idf));
            spans.push(from as usize..to as usize);
        }
        let mut query: Vec<_> =
            unit(weights).into_iter().filter(|(at, _)| !spans[*at as usize].is_empty()).collect();
        query.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        query.truncate(QUERY_FEATURES_MAX);
        // Both vectors have length 1 but for rounding, so a sum stays near 2³⁰ and far below 2³².
        let mut sums = vec![0u32; self.examples];
        for (at, weight) in query {
            let span = spans[at as usize].clone();
            for (example, other) in
                self.postings_example[span.clone()].iter().zip(&self.postings_weight[span])
            {
                let sum = &mut sums[*example as usize];
                *sum = sum.saturating_add(u32::from(weight) * u32::from(*other));
            }
        }
        let mut top = Vec::<Hit>::with_capacity(most + 1);
        for (example, similarity) in sums.into_iter().enumerate() {
            if similarity == 0
                || top.len() == most && top.last().is_none_or(|last| last.similarity >= similarity)
            {
                continue;
            }
            let at = top.partition_point(|hit| hit.similarity >= similarity);
            top.insert(at, Hit { example: example as u32, similarity });
            top.truncate(most);
        }
        top
    }
}

/// Sublinear term frequency.
fn tf(count: u32) -> f64 {
    1.0 + f64::from(count.max(1)).ln()
}

/// Scales a vector to length 1 and rounds it; features without weight fall out.
fn unit(weights: Vec<(u32, f64)>) -> Vec<(u32, u16)> {
    let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
    weights
        .into_iter()
        // Of an empty or all-zero vector the length is 0, and there is nothing to divide.
        .filter(|(_, weight)| *weight > 0.0)
        .map(|(id, weight)| (id, (weight / length * ONE).round() as u16))
        .filter(|(_, weight)| *weight > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(index: &Index, text: &str, most: usize) -> Vec<u32> {
        index.nearest(text, most).into_iter().map(|hit| hit.example).collect()
    }

    #[test]
    fn a_text_is_nearest_to_itself_and_equal_texts_come_in_order() {
        let texts = ["printer jams paper", "vpn token expired", "printer jams paper", "printer offline"];
        let index = Index::build(texts.into_iter());
        let hits = index.nearest("printer jams paper", 10);
        assert_eq!(hits.iter().map(|hit| hit.example).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(hits[0].similarity, hits[1].similarity);
        let one = f64::from(hits[0].similarity) / SIMILARITY_ONE as f64;
        assert!((one - 1.0).abs() < 0.001, "{one}");
        assert_eq!(near(&index, "printer jams paper", 1), [0]);
        assert_eq!(near(&index, "unheard of", 10), [0u32; 0]);
        assert_eq!(near(&index, "", 10), [0u32; 0]);
    }

    #[test]
    fn the_cosine_is_the_one_computed_by_hand() {
        // Over 3 examples: idf(red) = ln(4/3)+1, idf(blue) = ln(4/2)+1, idf(green) = ln(4/2)+1. Pairs occur once.
        // Every word stands in the head, so each count is 2 and tf cancels out.
        let index = Index::build(["red blue", "red green", "red"].into_iter().chain([]));
        let (red, two) = ((4.0f64 / 4.0).ln() + 1.0, (4.0f64 / 2.0).ln() + 1.0);
        let cosine = red / (red * red + two * two).sqrt();
        let hits = index.nearest("red", 3);
        assert_eq!(hits[0].example, 2);
        let got = f64::from(hits[1].similarity) / SIMILARITY_ONE as f64;
        assert!((got - cosine).abs() < 0.001, "{got} {cosine}");
    }

    #[test]
    fn unknown_words_push_a_text_away() {
        let index = Index::build(["printer jams", "vpn down"].into_iter());
        let plain = index.nearest("printer", 1)[0].similarity;
        let diluted = index.nearest("printer zebra quark lotus", 1)[0].similarity;
        assert!(diluted < plain / 2 + plain / 4, "{diluted} {plain}");
    }
}
