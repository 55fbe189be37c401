//! Every command line that the documentation shows, or that a pipeline types, is one that `writ` takes. Nothing is run:
//! nouns, verbs, options and required arguments are looked at, so that no page shows and no pipeline types what a renamed
//! route has taken away.

use crate::{command, contract};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The command lines of a page: what stands after `$ ` in its code blocks, with lines that go on put together.
fn lines(text: &str) -> Vec<String> {
    let (mut found, mut within, mut open) = (Vec::new(), false, None::<String>);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
            continue;
        }
        let part = match open.take() {
            Some(before) => format!("{before} {}", line.trim()),
            None => match line.trim_start().strip_prefix("$ ").filter(|_| within) {
                Some(line) => line.to_owned(),
                None => continue,
            },
        };
        match part.strip_suffix('\\') {
            Some(unfinished) => open = Some(unfinished.to_owned()),
            None => found.push(part),
        }
    }
    found
}

/// The words of the `writ` commands in a line of shell, without what the shell itself acts on.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("a quote stays open: {line}"));
    words
        .split(|word| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&"))
        .map(|words| {
            let end = words.iter().position(|word| word.starts_with('>')).unwrap_or(words.len());
            // Variables set for one command, as in `WRIT_KEY=… writ run list`.
            let start = words.iter().position(|word| !word.contains('=')).unwrap_or(0);
            words.get(start..end).unwrap_or_default().to_vec()
        })
        .filter(|words| words.first().is_some_and(|word| word == "writ"))
        .collect()
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_command_in_the_documentation_is_one_that_writ_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut found = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    pages(&root.join("docs"), &mut found);
    let operations = contract::operations();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in found {
        for line in lines(&std::fs::read_to_string(&page).unwrap()) {
            for words in commands(&line) {
                seen += 1;
                if let Err(error) = command(&operations).try_get_matches_from(&words)
                    && error.use_stderr()
                {
                    let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                    wrong.push(format!("{}: {}\n    {first}", page.display(), words.join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} commands were found; is the documentation still where it was?");
}

#[test]
fn what_is_no_command_is_found_to_be_none() {
    let operations = contract::operations();
    let taken = |line: &str| {
        commands(line).iter().all(|words| command(&operations).try_get_matches_from(words).is_ok())
    };
    assert!(taken("writ run list --state dead | head > list.txt"));
    for bad in ["writ run lists", "writ run list --status dead", "writ run show", "A=b writ no-such thing"] {
        assert!(!taken(bad), "{bad}");
    }
    let page = "$ writ not a command\n```console\n$ writ run \\\n    list   # all\nwrit prints\n```\n";
    assert_eq!(lines(page), ["writ run  list   # all"]);
}

/// The scripts of a pipeline, by job: GitLab's lists of lines, GitHub's blocks of them.
fn scripts(pipeline: &Value) -> Vec<(String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        let of = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        match value {
            Value::String(text) => of(text),
            Value::Array(items) => items.iter().filter_map(Value::as_str).flat_map(of).collect(),
            _ => Vec::new(),
        }
    };
    let github = pipeline["jobs"].as_object().into_iter().flatten().map(|(name, job)| {
        let steps = job["steps"].as_array().cloned().unwrap_or_default();
        (name.clone(), steps.iter().flat_map(|step| texts(&step["run"])).collect())
    });
    let gitlab = pipeline.as_object().into_iter().flatten().filter(|(_, job)| job["script"].is_array());
    github.chain(gitlab.map(|(name, job)| (name.clone(), texts(&job["script"])))).collect()
}

#[test]
fn every_command_in_a_pipeline_is_one_that_writ_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contracts/pipelines");
    let read = |file: &str| -> Value {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let operations = contract::operations();
    for file in ["gitlab/writ.gitlab-ci.yml", "github/writ.yml"] {
        let jobs = scripts(&read(file));
        assert!(jobs.len() >= 3, "{file} has jobs");
        let mut used = std::collections::BTreeSet::new();
        for (job, lines) in jobs {
            assert!(!lines.is_empty(), "{file}: {job} does nothing");
            for line in lines {
                let found = commands(&line);
                // A wrapper is thin: what is not `writ` only puts a secret where `writ` reads it.
                let helps = ["umask ", "printf "].iter().any(|word| line.starts_with(word));
                assert!(!found.is_empty() || helps, "{file}: {job} runs {line}");
                for words in found {
                    let parsed = command(&operations).try_get_matches_from(&words);
                    assert!(parsed.is_ok(), "{file}: {job}: {line}: {:?}", parsed.err());
                    used.insert(words.get(1..3).unwrap_or_default().join(" "));
                }
            }
        }
        for needed in ["policy check", "policy test", "policy sign", "workflow check", "workflow diff", "workflow publish"] {
            assert!(used.contains(needed), "{file} types no writ {needed}");
        }
        assert!(used.iter().any(|words| words.starts_with("verify ")), "{file} verifies no evidence");
    }
    // GitLab: every job in a stage that there is. GitHub: nothing more than reading, and steps that either run or use.
    let gitlab = read("gitlab/writ.gitlab-ci.yml");
    let stages = gitlab["stages"].as_array().unwrap();
    for (name, job) in gitlab.as_object().unwrap().iter().filter(|(_, job)| job["script"].is_array()) {
        assert!(stages.contains(&job["stage"]), "{name} is in no stage");
    }
    let github = read("github/writ.yml");
    assert_eq!(github["permissions"], serde_json::json!({"contents": "read"}));
    assert!(github["on"]["push"].is_object() && github["on"].get("pull_request_target").is_none());
    for (name, job) in github["jobs"].as_object().unwrap() {
        assert!(job["runs-on"].is_string(), "{name}");
        for step in job["steps"].as_array().unwrap() {
            assert!(step["run"].is_string() != step["uses"].is_string(), "{name}: {step}");
        }
    }
}
