//! What a policy may say before it is compiled.
//!
//! Rego is a fine language for rules and has doors that a decision point cannot leave open. `http.send` in a rule
//! is an outbound connection, and where it is missing `not http.send(…)` is simply true. `time.now_ns` makes
//! yesterday's decision impossible to repeat. `numbers.range(1, 1000000000)` is one instruction and sixteen
//! gigabytes. A reference to `data[x]` reaches whatever lies there, rules of other owners among it. And a file
//! of five thousand opening brackets does not reach a rule at all: it ends the parser's stack, and with it the
//! process.
//!
//! Three passes, each on what the one before has bounded:
//!
//! 1. [`tokens`]: size, lines, nesting and chains, on the token stream of regorus' own lexer, before anything
//!    recursive looks at the file. regorus' parser tries a bracket as a comprehension first and as a literal
//!    second, so work doubles with every level; the pass counts that work and refuses before it is done.
//! 2. regorus' parser, which says whether it is Rego.
//! 3. [`walk`]: over the tree: packages and data under the bundle's roots, calls to the allowlist or to the
//!    bundle's own functions, no `with`, no recursion, no deep towers of rules, and only those forms of Rego
//!    that regorus' machine evaluates as they are meant.
//!
//! The list of builtins is an allowlist. A builtin that is new in a later regorus is refused until somebody has
//! read what it does.

mod guard;
mod tokens;
mod tree;
mod walk;

use super::bundle::{Bundle, DATA};
use super::isolate::{Lost, isolated};
use regorus::PolicyLengthConfig;
use regorus::unstable::{Module, Parser, Ref, Source};
use serde::Serialize;
use std::num::{NonZeroU32, NonZeroUsize};

/// What regorus is asked to refuse: 512 columns, 256 KiB and 5,000 lines in one file.
pub(super) const LENGTHS: PolicyLengthConfig = PolicyLengthConfig {
    max_col: NonZeroU32::new(512).unwrap(),
    max_file_bytes: NonZeroUsize::new(super::archive::FILE_BYTES_MAX).unwrap(),
    max_lines: NonZeroUsize::new(5_000).unwrap(),
};
/// Most rules in one bundle, default rules and every definition counted.
const RULES_MAX: usize = 1_000;
/// Most problems reported at once.
const PROBLEMS_MAX: usize = 20;

/// Builtins that a policy may call: deterministic, without effect, and bounded by the size of what they are given.
///
/// Left out though harmless in themselves: what multiplies (`replace`, `numbers.range`, `bits.lsh`, `walk`,
/// `json.marshal`), and what costs the square of its input (`indexof`).
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "abs", "array.concat", "array.reverse", "array.slice", "ceil", "concat", "contains", "count", "endswith",
    "floor", "glob.match", "intersection", "is_array", "is_boolean", "is_null", "is_number", "is_object",
    "is_set", "is_string", "lower", "max", "min", "object.filter", "object.get", "object.keys",
    "object.remove", "object.subset", "object.union", "object.union_n", "regex.match", "round",
    "semver.compare", "semver.is_valid", "sort", "split", "sprintf", "startswith", "strings.any_prefix_match",
    "strings.any_suffix_match", "substring", "sum", "to_number", "trim", "trim_left", "trim_prefix",
    "trim_right", "trim_space", "trim_suffix", "type_name", "union", "upper",
];

/// First names that belong to builtins: a rule of such a name would shadow one, or look as if it did.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "array", "base64", "base64url", "bits", "crypto", "glob", "graph", "graphql", "hex", "http", "io", "json",
    "net", "numbers", "object", "opa", "print", "providers", "rand", "regex", "rego", "semver", "strings",
    "time", "trace", "units", "urlquery", "uuid", "walk", "yaml",
];

/// Something in a bundle that keeps it from being published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}{}: {message} [{code}]", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct Problem {
    /// The stable code.
    pub code: &'static str,
    /// The file, or the name of the step for what concerns no single file.
    pub file: String,
    /// The line, from 1, where one is known.
    pub line: Option<u32>,
    /// What is wrong, for the author.
    pub message: String,
}

impl Problem {
    pub(super) fn new(
        code: &'static str,
        file: &str,
        line: Option<u32>,
        message: impl Into<String>,
    ) -> Problem {
        Problem { code, file: file.to_owned(), line, message: message.into() }
    }
}

/// Checks a bundle's rules. No problems means that it may be compiled.
pub fn lint(bundle: &Bundle) -> Vec<Problem> {
    let copy = bundle.clone();
    isolated(move || check(&copy).err().unwrap_or_default()).unwrap_or_else(|lost| vec![lost_problem(lost)])
}

pub(super) fn lost_problem(lost: Lost) -> Problem {
    match lost {
        Lost::Panicked => {
            Problem::new("policy.panicked", "bundle", None, "checking the rules ended in a panic")
        }
        Lost::TooSlow => Problem::new("policy.too_slow", "bundle", None, "checking the rules took too long"),
    }
}

/// [`lint`] on the caller's own stack, for callers that are isolated already. Returns the modules as they are to be
/// compiled: see [`guard`] for what is added to them.
pub(super) fn check(bundle: &Bundle) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut modules: Vec<(&str, Ref<Module>)> = Vec::new();
    let mut budget = tokens::Budget::default();
    for (name, content) in bundle.files.iter().filter(|(name, _)| *name != DATA) {
        match module_parse(name, content, &mut budget) {
            Ok(module) => modules.push((name, module)),
            Err(problem) => problems.push(problem),
        }
    }
    let rules: usize = modules.iter().map(|(_, module)| module.policy.len()).sum();
    if rules > RULES_MAX {
        let message = format!("{rules} rules; a bundle has at most {RULES_MAX}");
        problems.push(Problem::new("policy.lint", "bundle", None, message));
    }
    if problems.is_empty() {
        // An opened bundle's data is JSON.
        let data =
            bundle.files.get(DATA).and_then(|data| serde_json::from_slice(data).ok()).unwrap_or_default();
        problems = walk::check(&modules, &bundle.manifest.roots, &data);
    }
    problems.truncate(PROBLEMS_MAX);
    if problems.is_empty() {
        let absent = guard::absent(bundle);
        Ok(modules
            .iter()
            .map(|(name, module)| ((*name).to_owned(), guard::guarded(module, &absent)))
            .collect())
    } else {
        Err(problems)
    }
}

fn module_parse(name: &str, content: &[u8], budget: &mut tokens::Budget) -> Result<Ref<Module>, Problem> {
    let syntax = |message: String| Problem::new("policy.syntax", name, None, message);
    let text = std::str::from_utf8(content).map_err(|error| syntax(error.to_string()))?;
    if text.contains('\0') {
        return Err(syntax("a NUL character".into()));
    }
    let source = Source::from_contents_with_limits(
        name.to_owned(),
        text.to_owned(),
        LENGTHS.max_file_bytes,
        LENGTHS.max_lines,
    )
    .map_err(|error| syntax(error.to_string()))?;
    budget.spend(name, &source)?;
    let parse = || {
        let mut parser = Parser::new(&source)?;
        parser.set_max_col(LENGTHS.max_col);
        parser.enable_rego_v1()?;
        parser.parse()
    };
    parse().map(Ref::new).map_err(|error| syntax(error.to_string().trim().to_owned()))
}
