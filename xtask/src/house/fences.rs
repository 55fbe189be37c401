//! Who may name which dependency.
//!
//! Some dependencies are a way around the house: a second HTTP client skips the
//! vetting of addresses, a second user of SQL writes without a fact. Each has one
//! owner. And some crates are promises about what they do not know: `kernel` has
//! no IO, so that a verifier can run it anywhere.

use super::{Crate, Finding, House, Need};

/// Only these crates may name this dependency.
struct Fence {
    dependency: &'static str,
    only: &'static [&'static str],
    /// Tests of other crates may not name it either.
    tests_too: bool,
    why: &'static str,
}

const FENCES: &[Fence] = &[
    Fence {
        dependency: "rusqlite",
        // `bench` measures the same rows written by SQLite alone, as the baseline.
        only: &["store", "bench"],
        tests_too: true,
        why: "only `store` has SQL: read and write through its records, facts and jobs",
    },
    Fence {
        dependency: "axum",
        only: &["server", "sandbox"],
        tests_too: false,
        why: "only `server` has a web framework: export a table of routes (act::Route) and let it mount them",
    },
    Fence {
        dependency: "reqwest",
        only: &["egress"],
        tests_too: true,
        why: "outbound connections go through `egress` alone, which vets and pins the address",
    },
    Fence {
        dependency: "regorus",
        only: &["governor"],
        tests_too: true,
        why: "only `governor` decides: ask it for a permit",
    },
    Fence {
        dependency: "opentelemetry-proto",
        only: &["server"],
        tests_too: false,
        why: "what is exported leaves through the server's one tap: open a span of `tracing` where you are",
    },
];

/// What one crate must never know.
struct Promise {
    by: &'static str,
    never: Never,
    why: &'static str,
}

enum Never {
    /// Dependencies by name.
    These(&'static [&'static str]),
    /// Any crate of this workspace.
    OurCrates,
}

const PROMISES: &[Promise] = &[
    Promise {
        by: "kernel",
        never: Never::These(&[
            "async-trait",
            "axum",
            "futures",
            "getrandom",
            "http",
            "http-body-util",
            "hyper",
            "hyper-util",
            "reqwest",
            "rusqlite",
            "rustls",
            "tokio",
            "tower",
            "ureq",
        ]),
        why: "`kernel` is pure and synchronous: values in, values out; time and randomness come in as arguments",
    },
    Promise {
        by: "client",
        never: Never::These(&["store", "act", "server"]),
        why: "`client` speaks the public API and nothing else, as any customer's program does",
    },
    Promise {
        by: "sandbox",
        never: Never::OurCrates,
        why: "`sandbox` stands in for other people's systems: it must not know the product that it is pointed at, \
              or both could agree on the same mistake",
    },
];

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for of in &house.crates {
        for need in &of.needs {
            let broken = fence(of, need).or_else(|| promise(house, of, need));
            if let Some(why) = broken {
                findings
                    .push(Finding::new(of.manifest(), format!("`{}` names `{}`: {why}", of.name, need.name)));
            }
        }
    }
    findings
}

fn fence(of: &Crate, need: &Need) -> Option<&'static str> {
    let fence = FENCES.iter().find(|fence| fence.dependency == need.name)?;
    let allowed = fence.only.contains(&of.name.as_str()) || (need.for_tests && !fence.tests_too);
    (!allowed).then_some(fence.why)
}

fn promise(house: &House, of: &Crate, need: &Need) -> Option<&'static str> {
    if need.for_tests {
        return None;
    }
    let promise = PROMISES.iter().find(|promise| promise.by == of.name)?;
    let broken = match promise.never {
        Never::These(names) => names.contains(&need.name.as_str()),
        Never::OurCrates => house.crates.iter().any(|ours| ours.name == need.name),
    };
    broken.then_some(promise.why)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{crates, expect};
    use super::check;

    #[test]
    fn owners_may_name_what_they_fence_off() {
        let house = crates(&[
            ("crates/foundation/kernel", &["serde", "sha2", "dev:tokio"]),
            ("crates/foundation/store", &["rusqlite", "tokio", "kernel"]),
            ("crates/services/egress", &["reqwest", "tokio", "dev:axum"]),
            ("crates/services/governor", &["regorus"]),
            ("crates/edge/server", &["axum"]),
            ("crates/edge/sandbox", &["axum"]),
            ("bench", &["rusqlite"]),
        ]);
        expect(&check(&house), &[]);
    }

    #[test]
    fn others_may_not() {
        let house = crates(&[
            ("crates/foundation/kernel", &["tokio"]),
            ("crates/services/billing", &["dev:rusqlite", "axum"]),
            ("crates/products/models", &["reqwest", "regorus"]),
            ("crates/edge/client", &["store", "kernel"]),
            ("crates/edge/sandbox", &["kernel"]),
        ]);
        expect(
            &check(&house),
            &[
                "`kernel` names `tokio`: `kernel` is pure",
                "`billing` names `rusqlite`: only `store` has SQL",
                "`billing` names `axum`: only `server`",
                "`models` names `reqwest`: outbound",
                "`models` names `regorus`: only `governor`",
                "`client` names `store`: `client` speaks",
                "`sandbox` names `kernel`: `sandbox` stands in",
            ],
        );
    }
}
