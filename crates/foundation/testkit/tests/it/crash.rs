//! Dying at every step of a commit, and at moments that nobody chose.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store, SystemClock};
use testkit::Random;
use testkit::survivor::{self, Found, Seen};

fn spawn(folder: &Path, from: u64, sequencing: Sequencing, point: Option<&str>) -> Child {
    let mode = match sequencing {
        Sequencing::Immediate => "immediate",
        Sequencing::Deferred => "deferred",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_survivor"));
    command
        .arg(folder)
        .arg(from.to_string())
        .arg(mode)
        .stdout(Stdio::piped())
        .env_remove(survivor::CRASH_POINT);
    if let Some(point) = point {
        command.env(survivor::CRASH_POINT, point);
    }
    command.spawn().expect("the survivor starts")
}

/// Reads acknowledged numbers; after `kill_after` of them the process is killed. Returns when it has ended.
fn watch(mut child: Child, kill_after: usize) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = out.lines();
    // What it had printed before it died counts, so reading goes on to the end; only a torn last line does not.
    while let Some(Ok(line)) = lines.next() {
        if let Ok(number) = line.parse() {
            numbers.insert(number);
        }
        if numbers.len() == kill_after {
            child.kill().expect("it is ours to kill");
        }
    }
    let status = child.wait().expect("it has ended");
    assert!(!status.success(), "it was to die, not to finish: {status}");
    numbers
}

/// One folder through many deaths.
struct Trial {
    folder: tempfile::TempDir,
    sequencing: Sequencing,
    acknowledged: BTreeSet<u64>,
    seen: Vec<Seen>,
    next: u64,
}

impl Trial {
    fn new(sequencing: Sequencing) -> Trial {
        let folder = testkit::folder::fresh();
        Trial { folder, sequencing, acknowledged: BTreeSet::new(), seen: Vec::new(), next: 1 }
    }

    /// Lets a process die and judges what it left. Returns how many were acknowledged and how many more are there.
    async fn die(&mut self, point: Option<&str>, kill_after: usize) -> (usize, usize) {
        let child = spawn(self.folder.path(), self.next, self.sequencing, point);
        let mut numbers = watch(child, kill_after);
        let acknowledged = numbers.len();
        self.acknowledged.append(&mut numbers);
        let (_mint, seal) = kernel::permit::permit_pair();
        let store = Store::new(
            Sqlite::open(Options {
                folder: self.folder.path().to_owned(),
                clock: Arc::new(SystemClock),
                seal,
                installation: "writ.test".into(),
                cell: "local".into(),
                sequencing: self.sequencing,
                page_count_max: None,
            })
            .expect("a dead process holds no lock"),
        );
        let Found { numbers, head } = survivor::judge(&store, &self.acknowledged, &self.seen).await;
        self.seen.push(head);
        self.next = numbers.last().map_or(1, |last| last + 1);
        (acknowledged, numbers.difference(&self.acknowledged).count())
    }
}

async fn dies_at_every_point(sequencing: Sequencing) {
    let mut trial = Trial::new(sequencing);
    let points = store::crash::POINTS.iter().filter(|point| point.starts_with("commit."));
    let mut unacknowledged = 0;
    for point in points {
        for pass in [1, 2, 3, 9, 40] {
            let (acknowledged, more) = trial.die(Some(&format!("{point}:{pass}")), usize::MAX).await;
            // A batch holds at most one commit of each task.
            assert!(acknowledged <= pass * survivor::TASKS as usize, "{point}:{pass}");
            // What was found beyond what was acknowledged so far only grows.
            assert!(more >= unacknowledged, "{point}:{pass}");
            match *point {
                // Nothing was durable that was not acknowledged, or not yet: at most the tasks' last commits.
                "commit.received" | "commit.applied" => {
                    assert!(more - unacknowledged < survivor::TASKS as usize, "{point}:{pass}");
                }
                // It died with its first batch durable and unanswered. (A later one may have held no commit.)
                "commit.durable" if pass == 1 => assert!(more > unacknowledged, "{point}:{pass}"),
                _ => {}
            }
            unacknowledged = more;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_at_any_crash_point() {
    dies_at_every_point(Sequencing::Immediate).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_at_any_crash_point_deferred() {
    dies_at_every_point(Sequencing::Deferred).await;
}

async fn is_killed(sequencing: Sequencing, seed: u64) {
    let mut trial = Trial::new(sequencing);
    let mut random = Random::seeded(seed);
    // The long one is killed after the write-ahead log has begun to be copied back into the database.
    let long = 1 + random.below(11);
    for round in 0..12 {
        let kill_after = if round == long { 2_000 } else { 1 + random.below(120) };
        let (acknowledged, _) = trial.die(None, kill_after).await;
        assert!(acknowledged >= kill_after, "round {round}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill() {
    is_killed(Sequencing::Immediate, 1).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_deferred() {
    is_killed(Sequencing::Deferred, 2).await;
}
