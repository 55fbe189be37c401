//! The storage engines under the conformance suite, and what only one of them can be asked.

mod crash;
mod full;

use futures::future::{BoxFuture, FutureExt as _};
use std::sync::atomic::{AtomicU32, Ordering};
use store::Store;
use store::sqlite::{Options, Sqlite};
use testkit::conformance::{Home, Opening};

/// The embedded engine in a folder of its own.
struct SqliteHome {
    folder: tempfile::TempDir,
    /// Zero: as far as the disk goes.
    page_count_max: AtomicU32,
}

fn sqlite_home() -> SqliteHome {
    SqliteHome { folder: testkit::folder::fresh(), page_count_max: AtomicU32::new(0) }
}

impl Home for SqliteHome {
    fn open(&self, opening: Opening) -> BoxFuture<'_, Store> {
        let pages = self.page_count_max.load(Ordering::SeqCst);
        let options = Options {
            folder: self.folder.path().to_owned(),
            clock: opening.clock,
            seal: opening.seal,
            installation: opening.installation,
            cell: opening.cell,
            sequencing: opening.sequencing,
            page_count_max: (pages > 0).then_some(pages),
        };
        let engine = Sqlite::open(options).expect("the folder is free: drop every handle before a restart");
        std::future::ready(Store::new(engine)).boxed()
    }
}

mod sqlite {
    testkit::conformance!(crate::sqlite_home);
}
