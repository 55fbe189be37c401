//! `growth_commit` and `growth_list`: does a commit or a list get slower as the installation gets full?
//!
//! One tenant is filled to 10,000, 100,000 and 1,000,000 records and as many facts, through the same act, decision, commit
//! and log as any other: the act that fills writes [`BATCH`] of each in one changeset, because one at a time would take
//! longer than the measuring. At each size, callers commit one record at a time, and lists are read page by page under
//! names spread over all that is there. What is compared is the last size with the first, so the disk and the machine are
//! the same; each figure is the middle one of several windows, because one stall of a shared disk is not growth.

use crate::commit::{fsync_p50_us, percentile};
use crate::house::{self, Item};
use crate::row;
use harness::{Harness, Terms};
use kernel::TenantId;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Clock as _, SystemClock};
use tokio::task::JoinSet;

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Records and facts of one filling act; one changeset holds 256 of both together.
const BATCH: u64 = 120;
/// Filling acts under way at once.
const FILLERS: u64 = 4;
/// Callers who commit at once while it is measured.
const CALLERS: u64 = 16;
const WINDOWS: usize = 7;
/// Commits and lists of one window.
const COMMITS: u64 = 1_600;
const LISTS: u64 = 2_000;
/// Rows of a list: a page as an operator reads it.
const PAGE: usize = 50;

/// Carries out the act `times` times, by so many callers; returns each one's wait in microseconds.
async fn acts(harness: &Harness, tenant: &TenantId, callers: u64, times: u64, count: u64) -> Vec<u64> {
    let left = Arc::new(AtomicU64::new(times));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (harness, ctx, left) = (harness.clone(), house::ctx(tenant), left.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let args =
                    json!({"note": "a note of about the length that notes have in tickets", "count": count});
                let from_us = SystemClock.monotonic_us();
                harness
                    .act(&ctx, "flows.run.start", args, Terms::default())
                    .await
                    .expect("the act is allowed");
                waits.push(SystemClock.monotonic_us() - from_us);
            }
            waits
        });
    }
    tasks.join_all().await.concat()
}

/// Reads pages under names spread over all there are; returns each one's wait in microseconds.
async fn lists(harness: &Harness, tenant: &TenantId) -> Vec<u64> {
    let mut waits = Vec::new();
    for n in 0..LISTS {
        // A multiplicative walk visits shelves in an order that no cache foresees.
        let prefix = house::shelf_key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
        let range = store::Range { limit: PAGE, ..store::Range::of(house::SHELF, prefix) };
        let from_us = SystemClock.monotonic_us();
        let view = harness.store().view(tenant, SystemClock.now_ms());
        let found = view.list::<Item>(range).await.expect("items are listed");
        waits.push(SystemClock.monotonic_us() - from_us);
        assert_eq!(found.len(), PAGE, "there are enough under each name");
    }
    waits
}

/// The rows, after each size's figures on standard output.
#[expect(clippy::print_stdout, reason = "figures are printed")]
pub async fn rows() -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let fsync = fsync_p50_us(folder.path());
    let (harness, tenant) = house::harness(folder.path()).await;
    let mut there = 0;
    let (mut commits, mut pages) = (Vec::new(), Vec::new());
    for size in SIZES {
        let from_us = SystemClock.monotonic_us();
        let missing = (size - there).div_ceil(BATCH);
        acts(&harness, &tenant, FILLERS, missing, BATCH).await;
        there += missing * BATCH;
        let filled_s = (SystemClock.monotonic_us() - from_us) as f64 / 1e6;
        let (mut commit, mut page) = (Vec::new(), Vec::new());
        for _ in 0..WINDOWS {
            commit.push(percentile(acts(&harness, &tenant, CALLERS, COMMITS, 1).await, 0.99));
            there += COMMITS;
            page.push(percentile(lists(&harness, &tenant).await, 0.99));
        }
        let (commit, page) = (percentile(commit, 0.5), percentile(page, 0.5));
        println!(
            "growth at {size:>9}: commit p99 {commit} µs, list p99 {page} µs; filled in {filled_s:.1} s"
        );
        commits.push(commit as f64 / 1000.0);
        pages.push(page as f64 / 1000.0);
    }
    let ends = |figures: &[f64]| {
        (figures.last().copied().unwrap_or_default(), figures.first().copied().unwrap_or_default())
    };
    let ((commit, commit_first), (page, page_first)) = (ends(&commits), ends(&pages));
    vec![
        row("growth_commit", commit, "ms", Some(commit_first), fsync, "p99 at 1M against 10k: ratio <= 1.5"),
        row("growth_list", page, "ms", Some(page_first), 0, "p99 at 1M against 10k: ratio <= 1.5"),
    ]
}
