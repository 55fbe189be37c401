//! The built-in classifier, on the project's own samples.

use std::{collections::BTreeMap, path::Path};

use models::{
    baseline::{self, Baseline, Config, Fill, TrainError},
    check,
    contract::{Ask, Pin, Usage},
    score,
};
use proptest::prelude::*;
use serde_json::{Value, json};

type Row = (String, String);

/// Text and group of every row of a sample file.
fn sample(file: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contracts/samples").join(file);
    csv::Reader::from_path(path)
        .unwrap()
        .deserialize::<(String, String, String)>()
        .map(|row| row.map(|(_id, document, group)| (document, group)).unwrap())
        .collect()
}

fn train(rows: &[Row], config: Config) -> Result<Baseline, TrainError> {
    Baseline::train(rows.iter().map(|(text, group)| (text.as_str(), group.as_str())), config)
}

fn trained() -> Baseline {
    train(&sample("training.csv"), Config::default()).unwrap()
}

#[test]
fn it_beats_the_majority_on_the_samples() {
    let (training, incidents) = (sample("training.csv"), sample("incidents.csv"));
    assert!((80..=120).contains(&training.len()) && incidents.len() == 12);
    let baseline = trained();
    let guesses: Vec<_> = incidents.iter().map(|(text, _)| baseline.classify(text).label).collect();
    let scores = score::score(
        incidents.iter().zip(&guesses).map(|((_, truth), guess)| (truth.as_str(), guess.as_deref())),
    );
    let majority = score::majority(
        training.iter().map(|(_, group)| group.as_str()),
        incidents.iter().map(|(_, group)| group.as_str()),
    );
    assert!(majority.macro_f1_milli < 100, "{majority:?}");
    assert!(scores.macro_f1_milli >= 750, "{scores:?}");
}

#[test]
fn the_samples_share_no_text_and_have_the_same_groups() {
    let (training, incidents) = (sample("training.csv"), sample("incidents.csv"));
    assert!(incidents.iter().all(|(text, _)| training.iter().all(|(other, _)| other != text)));
    let groups =
        |rows: &[Row]| rows.iter().map(|(_, group)| group.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(groups(&training), groups(&incidents));
    assert_eq!(groups(&training).len(), 8);
}

#[test]
fn the_vote_is_counted_as_described() {
    let rows: Vec<Row> = [("red", "a"), ("red", "b"), ("red", "a"), ("blue", "c")]
        .map(|(text, group)| (text.to_owned(), group.to_owned()))
        .into();
    let config = |neighbours, threshold_milli| Config {
        neighbours,
        threshold_milli,
        similarity_min_milli: 50,
        // The neighbours alone.
        linear_milli: 0,
        ..Config::default()
    };
    let vote = train(&rows, config(3, 500)).unwrap().classify("red");
    assert_eq!((vote.label.as_deref(), vote.confidence_milli), (Some("a"), 666)); // two of three equal votes
    assert_eq!(
        vote.runner_up.map(|second| (second.label, second.confidence_milli)),
        Some(("b".to_owned(), 333))
    );
    assert_eq!(
        vote.neighbours.iter().map(|n| (n.example, n.similarity_milli)).collect::<Vec<_>>(),
        [(0, 1000), (1, 1000), (2, 1000)]
    );

    // Below the threshold there is no answer, but what led is still said.
    let vote = train(&rows, config(3, 700)).unwrap().classify("red");
    assert_eq!((vote.label, vote.leading.as_deref(), vote.confidence_milli), (None, Some("a"), 666));

    // Seven empty seats vote for nobody with 0.05 each: 2 / (3 + 0.35).
    assert_eq!(train(&rows, config(10, 0)).unwrap().classify("red").confidence_milli, 597);

    // A tie between labels goes by name, whatever the order of the examples.
    let vote = train(&rows[..2], config(2, 0)).unwrap().classify("red");
    assert_eq!(vote.label.as_deref(), Some("a"));
    let turned: Vec<Row> = rows[..2].iter().rev().cloned().collect();
    assert_eq!(train(&turned, config(2, 0)).unwrap().classify("red").label.as_deref(), Some("a"));

    // Nothing shared, nothing said.
    for text in ["green", "", "!!! ???"] {
        let vote = train(&rows, config(3, 0)).unwrap().classify(text);
        assert_eq!((vote.leading, vote.confidence_milli, vote.neighbours.len()), (None, 0, 0), "{text:?}");
        assert_eq!(vote.label, None, "{text:?}");
    }
}

#[test]
fn the_halves_are_mixed_as_configured() {
    let rows: Vec<Row> = [("red dawn", "a"), ("red dusk", "a"), ("blue dawn", "b"), ("blue noon", "b")]
        .map(|(text, group)| (text.to_owned(), group.to_owned()))
        .into();
    let asked = |linear_milli| {
        let config = Config { linear_milli, neighbours: 2, threshold_milli: 0, ..Config::default() };
        train(&rows, config).unwrap().classify("red dawn")
    };
    let (votes, linear, mixed) = (asked(0), asked(1000), asked(700));
    for vote in [&votes, &linear, &mixed] {
        assert_eq!(vote.leading.as_deref(), Some("a"));
        assert_eq!(vote.neighbours[0].example, 0, "whoever decides, the neighbours are named");
    }
    let between = (linear.confidence_milli * 7 + votes.confidence_milli * 3) / 10;
    assert!(votes.confidence_milli != linear.confidence_milli);
    assert!(mixed.confidence_milli.abs_diff(between) <= 1, "{mixed:?} {linear:?} {votes:?}");
}

#[test]
fn training_is_bounded_and_named_by_its_fingerprint() {
    let rows = sample("training.csv");
    let error = |rows: &[Row], config| train(rows, config).err();
    let row = |text: &str, label: &str| vec![(text.to_owned(), label.to_owned())];
    assert_eq!(error(&[], Config::default()), Some(TrainError::Empty));
    assert_eq!(error(&row("x", ""), Config::default()), Some(TrainError::Labels));
    assert_eq!(error(&row("x", &"l".repeat(201)), Config::default()), Some(TrainError::Labels));
    let labels: Vec<Row> = (0..=baseline::LABELS_MAX).map(|n| ("x".to_owned(), n.to_string())).collect();
    assert_eq!(error(&labels, Config::default()), Some(TrainError::Labels));
    assert_eq!(error(&rows, Config { neighbours: 0, ..Config::default() }), Some(TrainError::Config));
    assert_eq!(error(&rows, Config { neighbours: 101, ..Config::default() }), Some(TrainError::Config));
    assert_eq!(error(&rows, Config { threshold_milli: 1001, ..Config::default() }), Some(TrainError::Config));
    assert_eq!(error(&rows, Config { linear_milli: 1001, ..Config::default() }), Some(TrainError::Config));
    let too_many = std::iter::repeat_n(("", "a"), baseline::EXAMPLES_MAX + 1);
    assert_eq!(Baseline::train(too_many, Config::default()).err(), Some(TrainError::TooLarge));
    let too_large = "x".repeat(baseline::TRAINING_BYTES_MAX + 1);
    assert_eq!(error(&row(&too_large, "a"), Config::default()), Some(TrainError::TooLarge));

    let fingerprint = trained().fingerprint().to_owned();
    assert_eq!(trained().fingerprint(), fingerprint);
    assert_ne!(train(&rows[1..], Config::default()).unwrap().fingerprint(), fingerprint);
    let other = Config { threshold_milli: 301, ..Config::default() };
    assert_ne!(train(&rows, other).unwrap().fingerprint(), fingerprint);
}

/// The triage ask of the flow, in the shape a workflow would give it.
fn triage(model: &str, user: &str, groups: &[&str]) -> (Ask, Config) {
    let text = |value: &str| Value::from(value);
    let ask = Ask {
        model: Pin::exact(model),
        system: "Classify the ticket.".to_owned(),
        user: user.to_owned(),
        schema: json!({
            "type": "object",
            "properties": {
                "assignment_group": {"type": "string"},
                "category": {"type": "string"},
                "priority": {"type": "string"},
                "summary": {"type": "string", "minLength": 1, "maxLength": baseline::SUMMARY_CHARS_MAX},
                "confidence": {"type": "integer", "minimum": 0, "maximum": 1000},
                "unsure": {"type": "boolean"},
            },
            "required": ["assignment_group", "category", "priority", "summary", "confidence", "unsure"],
            "additionalProperties": false,
        }),
        allowed: BTreeMap::from([
            ("assignment_group".to_owned(), groups.iter().map(|group| (*group).to_owned()).collect()),
            ("category".to_owned(), vec!["hardware".to_owned(), "inquiry".to_owned()]),
            ("priority".to_owned(), vec!["3".to_owned()]),
        ]),
        max_output_tokens: 300,
        temperature_milli: 0,
    };
    let config = Config {
        fields: BTreeMap::from([
            ("assignment_group".to_owned(), Fill::Label { abstained: text("Miscellaneous") }),
            (
                "category".to_owned(),
                Fill::ByLabel {
                    values: BTreeMap::from([("Hardware".to_owned(), text("hardware"))]),
                    otherwise: text("inquiry"),
                },
            ),
            ("priority".to_owned(), Fill::Fixed { value: text("3") }),
            ("summary".to_owned(), Fill::Summary),
            ("confidence".to_owned(), Fill::ConfidenceMilli),
            ("unsure".to_owned(), Fill::Abstained),
        ]),
        ..Config::default()
    };
    (ask, config)
}

const GROUPS: [&str; 3] = ["Hardware", "Access", "Miscellaneous"];

#[test]
fn it_speaks_the_contract_and_passes_the_same_check() {
    let user = "Hi, the laptop battery does not charge. See https://evil.example/x";
    let (ask, config) = triage(baseline::MODEL, user, &GROUPS);
    let baseline = train(&sample("training.csv"), config).unwrap();
    let answer = baseline.answer(&ask);
    assert_eq!(
        (answer.usage, answer.fingerprint.as_deref()),
        (Usage::Unmetered, Some(baseline.fingerprint()))
    );
    let checked = check::answer_check(&ask, &answer).unwrap();
    let body = checked.body();
    assert_eq!(body["assignment_group"], "Hardware");
    assert_eq!(body["category"], "hardware");
    assert_eq!(body["summary"], "laptop battery does not charge.");
    assert_eq!(body["unsure"], false);
    assert_eq!(body["confidence"], baseline.classify(user).confidence_milli);
    assert!(checked.neutralised().is_empty(), "its own summaries are clean already");

    let unsure =
        check::answer_check(&ask, &baseline.answer(&Ask { user: "zzz".to_owned(), ..ask.clone() })).unwrap();
    assert_eq!(unsure.body()["assignment_group"], "Miscellaneous");
    assert_eq!((&unsure.body()["category"], &unsure.body()["unsure"]), (&json!("inquiry"), &json!(true)));
    assert_eq!(unsure.body()["confidence"], 0);
}

#[test]
fn it_does_not_pass_for_another_model_or_another_list() {
    let user = "the laptop battery does not charge";
    let (ask, config) = triage("small-1", user, &GROUPS);
    let baseline = train(&sample("training.csv"), config).unwrap();
    assert_eq!(check::answer_check(&ask, &baseline.answer(&ask)).unwrap_err().code(), "model.pin_mismatch");
    let (ask, _) = triage(baseline::MODEL, user, &["Access"]);
    assert_eq!(
        check::answer_check(&ask, &baseline.answer(&ask)).unwrap_err().code(),
        "model.value_not_allowed"
    );
}

#[test]
fn the_config_reads_back_as_written_and_refuses_what_it_does_not_know() {
    let (_, config) = triage(baseline::MODEL, "", &GROUPS);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    for bad in
        [r#"{"neighbors":3}"#, r#"{"fields":{"a":{"fill":"guess"}}}"#, r#"{"fields":{"a":{"fill":"fixed"}}}"#]
    {
        assert!(serde_json::from_str::<Config>(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_gets_the_same_sound_vote_twice(text in any::<String>()) {
        let rows = sample("training.csv");
        let baseline = train(&rows[..16], Config::default()).unwrap();
        let vote = baseline.classify(&text);
        prop_assert!(vote.confidence_milli <= 1000 && vote.neighbours.len() <= 10);
        prop_assert_eq!(vote, baseline.classify(&text));
        let summary = baseline::summary(&text);
        prop_assert!(!summary.is_empty() && summary.chars().count() <= baseline::SUMMARY_CHARS_MAX);
    }
}
