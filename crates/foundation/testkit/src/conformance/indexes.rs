//! Index entries and the lists that read them.

use super::bed::{Bed, ITEM, OTHER, delete, id, item};
use kernel::TenantId;
use kernel::changeset::{Operation, Put};
use store::{PAGE_MAX, Range};

const INDEX: &str = "by_key";

fn indexed(name: &str, key: &[u8]) -> Operation {
    Operation::Put(Put { indexes: vec![(INDEX, key.to_vec())], ..item(name) })
}

async fn names(bed: &Bed, tenant: &TenantId, range: Range) -> Vec<String> {
    let rows = bed.store().record_list(tenant, ITEM, range).await.unwrap();
    rows.into_iter().map(|(_, row)| row.id.to_string()).collect()
}

fn under(prefix: &[u8]) -> Range {
    Range::of(INDEX, prefix.to_vec())
}

/// By key as bytes, then by id; rows carry key, revision and body.
pub async fn lists_come_in_key_order_both_ways(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let keys: [(&str, &[u8]); 6] = [
        ("rec_e", b"b"),
        ("rec_a", b"b"),
        ("rec_b", b"\xff"),
        ("rec_c", b""),
        ("rec_d", b"b\0"),
        ("rec_f", b"a\xff"),
    ];
    bed.done(&tenant, keys.iter().map(|(name, key)| indexed(name, key)).collect()).await;
    let mut expected = ["rec_c", "rec_f", "rec_a", "rec_e", "rec_d", "rec_b"];
    assert_eq!(names(&bed, &tenant, under(b"")).await, expected);
    expected.reverse();
    assert_eq!(names(&bed, &tenant, Range { descending: true, ..under(b"") }).await, expected);
    let first = Range { limit: 1, ..under(b"b") };
    let rows = bed.store().record_list(&tenant, ITEM, first).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&*rows[0].0, rows[0].1.rev, &*rows[0].1.body), (&b"b"[..], 1, &b"rec_a"[..]));
}

/// 450 records of which many share a key, read page by page in several page sizes, both ways.
pub async fn pages_join_without_gap_or_double(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let records: Vec<(String, Vec<u8>)> = (0..450u32)
        .map(|n| (format!("rec_{:03}", n * 7 % 450), vec![b'k', (n * 7 % 450 / 100) as u8]))
        .collect();
    for chunk in records.chunks(150) {
        bed.done(&tenant, chunk.iter().map(|(name, key)| indexed(name, key)).collect()).await;
    }
    let mut sorted: Vec<_> = records.iter().map(|(name, key)| (key.clone(), name.clone())).collect();
    sorted.sort();
    for descending in [false, true] {
        for limit in [1, 7, 100, 199, 200, 10_000] {
            let mut seen = Vec::new();
            let mut range = Range { limit, descending, ..under(b"k") };
            loop {
                let rows = bed.store().record_list(&tenant, ITEM, range.clone()).await.unwrap();
                assert!(rows.len() <= limit.min(PAGE_MAX));
                let Some((key, row)) = rows.last() else { break };
                range.after = Some((key.clone(), row.id.clone()));
                seen.extend(rows.into_iter().map(|(key, row)| (key, row.id.to_string())));
            }
            assert_eq!(seen, sorted, "descending: {descending}, pages of {limit}");
        }
        sorted.reverse();
    }
}

/// Keys next to a prefix, down to zero bytes and up to 0xff.
pub async fn a_prefix_is_a_prefix_to_the_byte(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let keys: [&[u8]; 9] =
        [b"", b"a", b"a\0", b"a\xff", b"a\xff\xff", b"b", b"\xfe\xff", b"\xff", b"\xff\xff\0"];
    let name = |n: usize| format!("rec_{n}");
    bed.done(&tenant, keys.iter().enumerate().map(|(n, key)| indexed(&name(n), key)).collect()).await;
    for prefix in [&b""[..], b"a", b"a\0", b"a\xff", b"a\xff\xff", b"b", b"c", b"\xff", b"\xff\xff", b"\xfe"]
    {
        let mut expected: Vec<_> =
            (0..keys.len()).filter(|n| keys[*n].starts_with(prefix)).map(name).collect();
        assert_eq!(names(&bed, &tenant, under(prefix)).await, expected, "{prefix:?}");
        expected.reverse();
        let down = Range { descending: true, ..under(prefix) };
        assert_eq!(names(&bed, &tenant, down).await, expected, "{prefix:?}, descending");
    }
}

/// Cursors come back from callers and may point anywhere: before the range, beyond it, at what is gone.
pub async fn a_cursor_may_lie_outside_the_range(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![indexed("rec_a", b"k1"), indexed("rec_b", b"k2"), indexed("rec_c", b"m")]).await;
    for (key, at, up, down) in [
        (&b"a"[..], "rec_z", vec!["rec_a", "rec_b"], vec![]),
        (b"k", "rec_z", vec!["rec_a", "rec_b"], vec![]),
        (b"k1", "rec_0", vec!["rec_a", "rec_b"], vec![]),
        (b"k1", "rec_z", vec!["rec_b"], vec!["rec_a"]),
        (b"k2", "rec_b", vec![], vec!["rec_a"]),
        (b"l", "rec_0", vec![], vec!["rec_b", "rec_a"]),
        (b"z", "rec_0", vec![], vec!["rec_b", "rec_a"]),
        (b"\xff\xff", "rec_0", vec![], vec!["rec_b", "rec_a"]),
    ] {
        let range = Range { after: Some((key.to_vec(), id(at))), ..under(b"k") };
        assert_eq!(names(&bed, &tenant, range.clone()).await, up, "after {key:?} {at}");
        assert_eq!(
            names(&bed, &tenant, Range { descending: true, ..range }).await,
            down,
            "before {key:?} {at}"
        );
    }
}

/// An update replaces the entries, a delete removes them, and entries that stay stay.
pub async fn entries_follow_the_record(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let put =
        |rev, indexes: Vec<(&'static str, Vec<u8>)>| Operation::Put(Put { rev, indexes, ..item("rec_a") });
    let entry = |name, key: &[u8]| (name, key.to_vec());
    bed.done(&tenant, vec![put(None, vec![entry("by_x", b"1"), entry("by_y", b"1")])]).await;
    bed.done(
        &tenant,
        vec![put(Some(1), vec![entry("by_x", b"2"), entry("by_y", b"1"), entry("by_z", b"1")])],
    )
    .await;
    let keys = async |index| {
        let rows = bed.store().record_list(&tenant, ITEM, Range::of(index, vec![])).await.unwrap();
        rows.into_iter().map(|(key, row)| (key, row.rev)).collect::<Vec<_>>()
    };
    assert_eq!(keys("by_x").await, [(b"2".to_vec(), 2)]);
    assert_eq!(
        keys("by_y").await,
        [(b"1".to_vec(), 2)],
        "an entry that did not change shows the new revision"
    );
    assert_eq!(keys("by_z").await, [(b"1".to_vec(), 2)]);
    bed.done(&tenant, vec![put(Some(2), vec![entry("by_x", b"2"), entry("by_x", b"3")])]).await;
    assert_eq!(keys("by_x").await, [(b"2".to_vec(), 3), (b"3".to_vec(), 3)], "two keys of one name");
    assert_eq!(keys("by_y").await, []);
    bed.done(&tenant, vec![delete("rec_a", 3)]).await;
    for index in ["by_x", "by_y", "by_z"] {
        assert_eq!(keys(index).await, [], "{index}");
    }
    bed.done(&tenant, vec![put(None, vec![entry("by_x", b"2")])]).await;
    assert_eq!(keys("by_x").await.len(), 1);
}

/// A planner that computes the same entry twice has made no mistake worth failing for, least of all a neighbour's.
pub async fn an_entry_named_twice_counts_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let twice = |rev| {
        let entries = vec![(INDEX, b"k".to_vec()), (INDEX, b"k".to_vec())];
        Operation::Put(Put { rev, indexes: entries.clone(), uniques: entries, ..item("rec_a") })
    };
    bed.done(&tenant, vec![twice(None)]).await;
    bed.done(&tenant, vec![twice(Some(1))]).await;
    assert_eq!(names(&bed, &tenant, under(b"")).await, ["rec_a"]);
    bed.done(&tenant, vec![delete("rec_a", 2)]).await;
    assert_eq!(names(&bed, &tenant, under(b"")).await, Vec::<String>::new());
}

/// The same key under another tenant, kind or name is another list.
pub async fn lists_keep_to_tenant_kind_and_name(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let entry = |name: &'static str| vec![(name, b"k".to_vec())];
    bed.done(&a, vec![Operation::Put(Put { indexes: entry(INDEX), ..item("rec_a") })]).await;
    bed.done(&a, vec![Operation::Put(Put { kind: OTHER, indexes: entry(INDEX), ..item("rec_b") })]).await;
    bed.done(&a, vec![Operation::Put(Put { indexes: entry("by_key2"), ..item("rec_c") })]).await;
    bed.done(&b, vec![Operation::Put(Put { indexes: entry(INDEX), ..item("rec_d") })]).await;
    assert_eq!(names(&bed, &a, under(b"")).await, ["rec_a"]);
    assert_eq!(names(&bed, &b, under(b"")).await, ["rec_d"]);
    assert_eq!(names(&bed, &a, Range::of("by_key2", vec![])).await, ["rec_c"]);
}

/// No list is longer than a page, and nothing may be asked for.
pub async fn limits_are_kept(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for from in [0, 150] {
        bed.done(&tenant, (from..from + 150).map(|n| indexed(&format!("rec_{n}"), b"k")).collect()).await;
    }
    for (limit, expected) in
        [(0, 0), (1, 1), (PAGE_MAX, PAGE_MAX), (PAGE_MAX + 1, PAGE_MAX), (usize::MAX, PAGE_MAX)]
    {
        let rows = names(&bed, &tenant, Range { limit, ..under(b"") }).await;
        assert_eq!(rows.len(), expected, "limit {limit}");
    }
}
