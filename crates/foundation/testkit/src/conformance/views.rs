//! Views: reading, remembering what was read, and committing on it.

use super::bed::{Bed, ITEM, OTHER, expect, id};
use super::refused;
use kernel::changeset::Operation;
use kernel::{Id, TenantId};
use serde::{Deserialize, Serialize};
use store::{CommitError, Document, Range, Read, View, put_if, put_new};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    id: Id,
    size: u32,
}

impl Document for Item {
    const KIND: &'static str = ITEM;

    fn id(&self) -> &Id {
        &self.id
    }

    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("by_size", self.size.to_be_bytes().to_vec())]
    }

    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", self.id.as_str().into())]
    }
}

/// The record that every writer of the set of items bumps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Guard {
    id: Id,
    count: u32,
}

impl Document for Guard {
    const KIND: &'static str = OTHER;

    fn id(&self) -> &Id {
        &self.id
    }
}

fn thing(name: &str, size: u32) -> Item {
    Item { id: id(name), size }
}

fn view(bed: &Bed, tenant: &TenantId) -> View {
    bed.store().view(tenant, bed.now_ms())
}

fn expectations(reads: Vec<Read>) -> Vec<Operation> {
    reads.into_iter().map(|Read { kind, id, rev }| Operation::Expect { kind, id, rev }).collect()
}

/// Present or absent, by its first reading; what was only peeked at is not remembered.
pub async fn a_view_remembers_what_it_read_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![put_new(&thing("rec_a", 1)), put_new(&thing("rec_b", 1))]).await;
    let view = view(&bed, &tenant);
    assert_eq!((view.tenant(), view.at_ms()), (&tenant, bed.now_ms()));
    let stored = view.get::<Item>(&id("rec_a")).await.unwrap().unwrap();
    assert_eq!((&stored.doc, stored.rev), (&thing("rec_a", 1), 1));
    assert!(view.get::<Item>(&id("rec_none")).await.unwrap().is_none());
    assert!(view.get::<Guard>(&id("rec_a")).await.unwrap().is_none());
    assert!(view.peek::<Item>(&id("rec_b")).await.unwrap().is_some());
    bed.done(&tenant, vec![put_if(&stored, &thing("rec_a", 2)), put_new(&thing("rec_none", 1))]).await;
    assert_eq!(view.get::<Item>(&id("rec_a")).await.unwrap().unwrap().rev, 2);
    assert!(view.get::<Item>(&id("rec_none")).await.unwrap().is_some());
    let read = |kind, name: &str, rev| Read { kind, id: id(name), rev };
    let expected =
        vec![read(ITEM, "rec_a", Some(1)), read(ITEM, "rec_none", None), read(OTHER, "rec_a", None)];
    assert_eq!(view.into_reads(), Ok(expected));
}

/// Committing on a view fails once anything it read has moved, appeared or gone.
pub async fn what_was_read_must_not_move(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![put_new(&thing("rec_a", 1)), put_new(&thing("rec_b", 1))]).await;
    let reads = async || {
        let view = view(&bed, &tenant);
        for name in ["rec_a", "rec_b", "rec_c"] {
            let _ = view.get::<Item>(&id(name)).await.unwrap();
        }
        expectations(view.into_reads().unwrap())
    };
    let still = reads().await;
    bed.done(&tenant, still).await;
    let stored = async |name: &str| view(&bed, &tenant).get::<Item>(&id(name)).await.unwrap().unwrap();
    for change in [
        put_if(&stored("rec_a").await, &thing("rec_a", 2)),
        put_new(&thing("rec_c", 1)),
        Operation::Delete { kind: ITEM, id: id("rec_b"), rev: 1 },
    ] {
        let before = reads().await;
        bed.done(&tenant, vec![change]).await;
        refused!(bed.commit(&tenant, before).await, CommitError::Conflict { .. });
    }
}

/// Shown, yes; decided upon, no.
pub async fn a_list_without_a_guard_is_not_committed_on(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![put_new(&thing("rec_b", 2)), put_new(&thing("rec_a", 1))]).await;
    let view = view(&bed, &tenant);
    let found = view.list::<Item>(Range::of("by_size", vec![])).await.unwrap();
    let shown: Vec<_> =
        found.iter().map(|found| (&*found.key, found.stored.doc.size, found.stored.rev)).collect();
    assert_eq!(shown, [(&[0, 0, 0, 1][..], 1, 1), (&[0, 0, 0, 2], 2, 1)]);
    assert_eq!(view.into_reads(), Err(ITEM));
    let empty = bed.store().view(&tenant, 0);
    assert!(empty.list::<Item>(Range::of("by_none", vec![])).await.unwrap().is_empty());
    assert_eq!(empty.into_reads(), Err(ITEM), "an empty list is a list");
}

/// A writer of the set bumps the guard, and whoever listed before cannot commit; also if the guard was not there yet.
pub async fn a_guarded_list_stands_and_falls_with_its_guard(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let guard = id("grd_items");
    let listed = async || {
        let view = view(&bed, &tenant);
        let found = view.list_guarded::<Item, Guard>(&guard, Range::of("by_size", vec![])).await.unwrap();
        let stored = view.peek::<Guard>(&guard).await.unwrap();
        (found.len(), stored, expectations(view.into_reads().unwrap()))
    };
    let (count, _, before) = listed().await;
    assert_eq!(
        (count, &*before),
        (0, &[Operation::Expect { kind: OTHER, id: guard.clone(), rev: None }][..])
    );
    let first = Guard { id: guard.clone(), count: 1 };
    bed.done(&tenant, vec![put_new(&thing("rec_a", 1)), put_new(&first)]).await;
    refused!(bed.commit(&tenant, before).await, CommitError::Conflict { .. });
    let (count, stored, before) = listed().await;
    assert_eq!(count, 1);
    bed.done(&tenant, before.clone()).await;
    let second = put_if(&stored.unwrap(), &Guard { count: 2, ..first });
    bed.done(&tenant, vec![put_new(&thing("rec_b", 1)), second]).await;
    refused!(bed.commit(&tenant, before).await, CommitError::Conflict { .. });
    assert_eq!(listed().await.0, 2);
}

/// Found by a unique key, it must stand; not found, it is the put's own key that guards.
pub async fn a_found_record_is_remembered(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![put_new(&thing("rec_a", 1))]).await;
    let view = view(&bed, &tenant);
    assert_eq!(view.find::<Item>("name", b"rec_a").await.unwrap().unwrap().doc, thing("rec_a", 1));
    assert!(view.find::<Item>("name", b"rec_b").await.unwrap().is_none());
    assert_eq!(expectations(view.into_reads().unwrap()), [expect("rec_a", Some(1))]);
}

/// A rewrite by this version keeps what a newer one wrote beside it.
pub async fn members_of_a_newer_version_survive_a_rewrite(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let newer = br#"{"v":2,"doc":{"id":"rec_a","size":1,"colour":"red"}}"#;
    let put = kernel::changeset::Put { body: newer.to_vec(), ..super::bed::item("rec_a") };
    bed.done(&tenant, vec![Operation::Put(put)]).await;
    let stored = view(&bed, &tenant).get::<Item>(&id("rec_a")).await.unwrap().unwrap();
    bed.done(&tenant, vec![put_if(&stored, &thing("rec_a", 2))]).await;
    let body: serde_json::Value = serde_json::from_slice(&bed.body(&tenant, "rec_a").await.unwrap()).unwrap();
    assert_eq!(body["doc"], serde_json::json!({"id": "rec_a", "size": 2, "colour": "red"}));
    let bad = kernel::changeset::Put { body: b"{}".to_vec(), ..super::bed::item("rec_bad") };
    bed.done(&tenant, vec![Operation::Put(bad)]).await;
    assert!(view(&bed, &tenant).get::<Item>(&id("rec_bad")).await.is_err());
}
