//! Links in the documents lead somewhere.
//!
//! A reader follows a link once; after a dead one they follow none. Checked are
//! relative links in README.md, ARCHITECTURE.md and everything under docs/. What
//! lies outside the repository is not asked for: the check works offline.

use super::{Finding, House};

fn is_document(path: &str) -> bool {
    let at_the_root = !path.contains('/');
    path.ends_with(".md") && (at_the_root || path.starts_with("docs/"))
}

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in house.tree.texts().filter(|(path, _)| is_document(path)) {
        for (line, target) in links(text) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            if file.is_empty() || is_outside(target) {
                continue;
            }
            let place = format!("{path}:{line}");
            match resolve(path, file) {
                Some(resolved) if house.tree.exists(&resolved) => {}
                Some(resolved) => findings.push(Finding::new(
                    place,
                    format!("the link `{target}` leads to {resolved}, and there is no such file"),
                )),
                None => findings.push(Finding::new(
                    place,
                    format!(
                        "the link `{target}` leads out of the repository; write it relative to this file"
                    ),
                )),
            }
        }
    }
    findings
}

/// A link with a scheme, as in `https:` or `mailto:`.
fn is_outside(target: &str) -> bool {
    target.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// The path that `link` means in the document at `from`; `None` if it leaves the
/// repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Targets of inline links, images and reference definitions with their line
/// numbers. Code, fenced or inline, holds no links.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => found.extend(line_links(line).into_iter().map(|target| (index + 1, target))),
        }
    }
    found
}

fn line_links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        found.extend(target.split_whitespace().next());
    }
    // Every second piece between backticks is code. A link whose text is code,
    // as in [`x`](y), is whole again because its target lies outside of it.
    for piece in line.split('`').step_by(2) {
        for (at, _) in piece.match_indices("](") {
            let rest = &piece[at + 2..];
            let Some(end) = rest.find(')') else { continue };
            // A title may follow the target: [text](target "title").
            found.extend(rest[..end].split_whitespace().next().map(|t| t.trim_matches(['<', '>'])));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    #[test]
    fn links_to_what_exists_pass() {
        let house = files(&[
            (
                "README.md",
                "[a](docs/journeys/first.md#top) ![p](docs/picture.svg \"t\") [`c`](ARCHITECTURE.md) [s](#here)\n\
                 [w](https://example.org/x.md) [m](mailto:a@example.org) [d](docs/journeys/) [e](docs)\n\
                 `[code](nowhere.md)`\n```\n[fenced](nowhere.md)\n```\n[ref]: docs/picture.svg\n",
            ),
            ("ARCHITECTURE.md", ""),
            ("docs/picture.svg", ""),
            ("docs/journeys/first.md", "[up](../../README.md) [beside](./first.md)"),
            ("crates/edge/cli/notes.md", "[not a document](nowhere.md)"),
        ]);
        expect(&check(&house), &[]);
    }

    #[test]
    fn dead_links_are_found() {
        let house = files(&[
            (
                "README.md",
                "\n[a](docs/gone.md#x) and [`code`](gone.md)\n[r]: docs/gone.svg\n~~~\n```\n~~~\n[b](gone)",
            ),
            ("docs/a/b.md", "[up](../../../x.md) [root](/README.md) [here](README.md)"),
        ]);
        expect(
            &check(&house),
            &[
                "README.md:2: the link `docs/gone.md#x` leads to docs/gone.md",
                "README.md:2: the link `gone.md`",
                "README.md:3: the link `docs/gone.svg`",
                "README.md:7: the link `gone`",
                "docs/a/b.md:1: the link `../../../x.md` leads out",
                "docs/a/b.md:1: the link `/README.md` leads out",
                "docs/a/b.md:1: the link `README.md` leads to docs/a/README.md",
            ],
        );
    }
}
