//! An arrow only ever points down.
//!
//! Floors are folders, and within a floor there may be a stair. A crate depends
//! on crates that stand lower than itself, never on one beside or above it. That
//! keeps `flows` from reaching into `models` "just for one type", after which the
//! two can only be understood, built and changed together.
//!
//! Tests may need more: what every crate's tests may use stands in
//! [`TEST_TOOLS`].

use super::{Crate, Finding, House};

struct Floor {
    name: &'static str,
    /// Lowest first; crates on one step do not see each other. Empty: any crate
    /// may stand here, and all stand on one step.
    stair: &'static [&'static [&'static str]],
}

/// Lowest first. A new crate of a floor with a stair is given its step here.
const FLOORS: &[Floor] = &[
    Floor { name: "foundation", stair: &[&["kernel"], &["store"], &["act"], &["testkit"]] },
    Floor {
        name: "services",
        stair: &[
            &["egress", "access"],
            &["governor"],
            &["custody", "evidence", "billing"],
            &["harness"],
            // Carries out what people click: an act like any other, so it stands above the one who carries out acts.
            &["notify"],
            &["contracts"],
        ],
    },
    // Products meet through `contracts` or over the public API.
    Floor { name: "products", stair: &[] },
    Floor { name: "edge", stair: &[&["sandbox", "client", "simulation"], &["server"], &["cli"]] },
];

/// What any crate may use in its tests, from any height: `testkit` exists for
/// that, and `sandbox` knows no other crate, so no arrow can come back.
const TEST_TOOLS: &[&str] = &["testkit", "sandbox"];

/// Height of a crate as (floor, step).
fn height(of: &Crate) -> Result<(usize, usize), String> {
    let Some(floor_name) = of.floor() else { return Err("it stands outside crates/".to_owned()) };
    let floor = FLOORS.iter().position(|floor| floor.name == floor_name).ok_or_else(|| {
        format!(
            "there is no floor `{floor_name}`: a new floor is a row of FLOORS in xtask/src/house/arrows.rs"
        )
    })?;
    let stair = FLOORS[floor].stair;
    if stair.is_empty() {
        return Ok((floor, 0));
    }
    let step = stair.iter().position(|step| step.contains(&of.name.as_str())).ok_or_else(|| {
        format!(
            "`{}` has no step on the stair of `{floor_name}`: decide what it may know, then give it one in \
             FLOORS in xtask/src/house/arrows.rs",
            of.name
        )
    })?;
    Ok((floor, step))
}

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for from in house.crates.iter().filter(|of| of.floor().is_some()) {
        let from_height = match height(from) {
            Ok(height) => height,
            Err(message) => {
                findings.push(Finding::new(from.manifest(), message));
                continue;
            }
        };
        for need in &from.needs {
            let Some(to) = house.crates.iter().find(|to| to.name == need.name) else { continue };
            if need.for_tests && TEST_TOOLS.contains(&to.name.as_str()) {
                continue;
            }
            match height(to) {
                Ok(to_height) if to_height < from_height => {}
                Ok(to_height) => {
                    findings.push(Finding::new(from.manifest(), lesson(from, from_height, to, to_height)));
                }
                // Its own finding says it, unless it is no crate of the product.
                Err(message) if to.floor().is_none() => findings.push(Finding::new(
                    from.manifest(),
                    format!("`{}` depends on `{}`, but {message}", from.name, to.name),
                )),
                Err(_) => {}
            }
        }
    }
    findings
}

fn lesson(from: &Crate, from_height: (usize, usize), to: &Crate, to_height: (usize, usize)) -> String {
    let (from_name, to_name) = (&from.name, &to.name);
    let floor = FLOORS[from_height.0].name;
    if from_height.0 == to_height.0 && FLOORS[from_height.0].stair.is_empty() {
        format!(
            "`{from_name}` depends on `{to_name}`, another of the {floor}: they never know each other. Put the trait \
             that `{from_name}` needs into `contracts`, let `{to_name}` implement it and `server` hand it over"
        )
    } else if from_height == to_height {
        format!(
            "`{from_name}` depends on `{to_name}`, which stands on the same step of {floor}: move what both need one \
             step down, or let a higher crate join them"
        )
    } else {
        format!(
            "`{from_name}` depends on `{to_name}`, which stands above it: arrows only point down. Pass what is needed \
             in as a value or a trait of `{from_name}`'s own, or move the code up"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{crates, expect};
    use super::check;

    #[test]
    fn arrows_may_point_down() {
        let house = crates(&[
            ("crates/foundation/kernel", &["dev:testkit", "serde"]),
            ("crates/foundation/store", &["kernel"]),
            ("crates/foundation/act", &["kernel", "store"]),
            ("crates/foundation/testkit", &["act"]),
            ("crates/services/egress", &[]),
            ("crates/services/governor", &["act", "dev:testkit"]),
            ("crates/services/harness", &["governor"]),
            ("crates/services/contracts", &["act"]),
            ("crates/products/flows", &["contracts", "harness", "dev:sandbox"]),
            ("crates/edge/sandbox", &[]),
            ("crates/edge/client", &["egress"]),
            ("crates/edge/server", &["flows"]),
            ("crates/edge/cli", &["server", "client"]),
            ("bench", &["server", "store"]),
            ("xtask", &["serde_json"]),
        ]);
        expect(&check(&house), &[]);
    }

    #[test]
    fn no_arrow_points_up_or_sideways() {
        let down: &[(&str, &[&str])] = &[
            ("crates/foundation/kernel", &["store"]),
            ("crates/foundation/store", &[]),
            ("crates/foundation/testkit", &[]),
            ("crates/services/access", &["testkit", "egress", "governor"]),
            ("crates/services/egress", &[]),
            ("crates/services/governor", &["dev:harness"]),
            ("crates/services/harness", &["flows"]),
            ("crates/products/flows", &["models"]),
            ("crates/products/models", &["dev:flows", "xtask"]),
            ("xtask", &[]),
        ];
        expect(
            &check(&crates(down)),
            &[
                "`kernel` depends on `store`, which stands above it",
                "`access` depends on `egress`, which stands on the same step",
                "`access` depends on `governor`, which stands above it",
                "`governor` depends on `harness`, which stands above it",
                "`harness` depends on `flows`, which stands above it",
                "`flows` depends on `models`, another of the products",
                "`models` depends on `flows`, another of the products",
                "`models` depends on `xtask`, but it stands outside crates/",
            ],
        );
    }

    #[test]
    fn a_new_crate_must_be_given_its_place() {
        let house = crates(&[
            ("crates/services/novelty", &[]),
            ("crates/products/anything", &[]),
            ("crates/attic/box", &[]),
        ]);
        expect(
            &check(&house),
            &["`novelty` has no step on the stair of `services`", "there is no floor `attic`"],
        );
    }
}
