//! The README's figures are the last measured ones.
//!
//! The table between the markers is written by `cargo xtask bench`. A figure
//! changed by hand, or a result file committed without its table, is a claim that
//! nobody measured.

use super::{Finding, House};
use crate::bench;

pub(super) fn check(house: &House) -> Vec<Finding> {
    let Some(results) = house.tree.text(bench::RESULTS) else { return Vec::new() };
    let readme = house.tree.text(bench::README).unwrap_or_default();
    match bench::with_table(readme, results) {
        Ok(expected) if expected == readme => Vec::new(),
        Ok(_) => vec![Finding::new(
            bench::README,
            format!(
                "the table of figures is not that of {}: run `cargo xtask bench --table`",
                bench::RESULTS
            ),
        )],
        Err(failure) => vec![Finding::new(bench::README, failure.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    const RESULT: &str = r#"[{"name": "verify", "value": 612000, "unit": "facts/s", "baseline": null, "ratio": null,
                              "fsync_p50_us": 310, "at": 1767225600000}]"#;

    #[test]
    fn a_table_changed_by_hand_is_found() {
        let markers = format!("# x\n{}\n{}\n", bench::BEGIN, bench::END);
        let readme = bench::with_table(&markers, RESULT).expect("markers and figures are there");
        expect(&check(&files(&[(bench::RESULTS, RESULT), (bench::README, &readme)])), &[]);
        let boast = readme.replace("612,000", "999,000");
        assert_ne!(boast, readme);
        expect(&check(&files(&[(bench::RESULTS, RESULT), (bench::README, &boast)])), &["is not that of"]);
    }

    #[test]
    fn figures_need_a_place_and_no_figures_need_none() {
        expect(
            &check(&files(&[(bench::RESULTS, RESULT), (bench::README, "# x\n")])),
            &["<!-- bench:begin -->"],
        );
        expect(&check(&files(&[(bench::README, "# x\n")])), &[]);
    }
}
