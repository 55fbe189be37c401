//! Commits until it is killed: `survivor FOLDER FIRST_NUMBER immediate|deferred`. See `testkit::survivor`.

use std::io::Write as _;
use std::sync::Arc;
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store, SystemClock};
use testkit::survivor;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, from, mode] = &arguments[..] else { return Err("expected three arguments".into()) };
    let sequencing = match &**mode {
        "immediate" => Sequencing::Immediate,
        "deferred" => Sequencing::Deferred,
        _ => return Err("expected immediate or deferred".into()),
    };
    let (mint, seal) = kernel::permit::permit_pair();
    let store = Store::new(Sqlite::open(Options {
        folder: folder.into(),
        clock: Arc::new(SystemClock),
        seal,
        installation: "writ.test".into(),
        cell: "local".into(),
        sequencing,
        page_count_max: None,
    })?);
    survivor::prepare(&store).await?;
    // Armed only now, so that a first pass is the first numbered commit's.
    if let Ok(point) = std::env::var(survivor::CRASH_POINT) {
        store::crash::arm(&point)?;
    }
    let report = |n: u64| {
        let mut out = std::io::stdout().lock();
        // Whoever reads has gone: then nobody counts any more.
        let _ = writeln!(out, "{n}").and_then(|()| out.flush());
    };
    survivor::commit_on(store, mint, from.parse()?, report).await?;
    Ok(())
}
