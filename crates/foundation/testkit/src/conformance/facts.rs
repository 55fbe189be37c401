//! Facts and their leaves.

use super::bed::{Bed, DONE, NOTED, id, new};
use super::refused;
use kernel::changeset::Draft;
use kernel::fact::{CAUSES_MAX, LEAF_BYTES_MAX, LeafError};
use kernel::{Fact, hex};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use store::CommitError;
use tokio::task::JoinSet;

/// 64 writers, 320 commits of up to three facts over nine streams and two tenants.
pub async fn indexes_and_streams_are_gapless_under_many_writers(bed: Bed) {
    let tenants = [bed.tenant("a").await, bed.tenant("b").await];
    let bed = Arc::new(bed);
    let mut writers = JoinSet::new();
    for writer in 0..64usize {
        let (bed, tenants) = (bed.clone(), tenants.clone());
        writers.spawn(async move {
            let mut indexes = Vec::new();
            for n in 0..5 {
                let tenant = &tenants[(writer + n) % 2];
                let facts: Vec<_> =
                    (0..1 + n % 3).map(|k| bed.fact(&format!("run_{}", (writer + n * k) % 9))).collect();
                let count = facts.len() as u64;
                let committed =
                    bed.draft_commit(tenant, Draft { facts, ..bed.draft(vec![], "run_a") }).await.unwrap();
                assert_eq!(committed.first_index.is_none(), bed.deferred());
                if let Some(first) = committed.first_index {
                    indexes.extend((first..first + count).map(|index| (tenant.clone(), index)));
                }
            }
            indexes
        });
    }
    let indexes = writers.join_all().await.concat();
    bed.settle().await;
    let mut total = 0;
    let mut ids = HashSet::new();
    for tenant in &tenants {
        let leaves = bed.log_checked(tenant).await;
        total += leaves.len();
        for row in &leaves {
            assert!(
                ids.insert(kernel::fact::read(&row.leaf).unwrap().id.to_string()),
                "a fact is there once"
            );
        }
        // Whoever was told a place has it, and nobody else.
        let told: HashSet<u64> =
            indexes.iter().filter(|(of, _)| of == tenant).map(|(_, index)| *index).collect();
        let expected: HashSet<u64> =
            if bed.deferred() { HashSet::new() } else { (1..leaves.len() as u64).collect() };
        assert_eq!(told, expected);
    }
    assert_eq!(total, 2 + 64 * (1 + 2 + 3 + 1 + 2));
}

/// Who, for whom, by which decision, with which arguments: from the permit. What, where and when: from the draft.
pub async fn a_leaf_says_what_the_origin_says(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let fact = Fact {
        kind: NOTED,
        resource: "local/ten_a/test.item/rec_\"é\"".into(),
        causes: vec![id("fct_1"), id("fct_2")],
        outcome: json!({"b": [1, null, true], "a": "\n\u{1}"}),
        ..bed.fact("run_x")
    };
    let fact_id = fact.id.clone();
    bed.draft_commit(&tenant, Draft { at_ms: 123, operations: vec![], facts: vec![fact] }).await.unwrap();
    bed.settle().await;
    let row = bed.log_checked(&tenant).await.pop().unwrap();
    let leaf = kernel::fact::read(&row.leaf).unwrap();
    assert_eq!((row.index, leaf.id, leaf.at_ms), (1, fact_id.as_str(), 123));
    assert_eq!((&*leaf.origin, &*leaf.kind), ("writ.test/local/ten_a/1", NOTED));
    assert_eq!((leaf.stream, leaf.stream_n), ("run_x", 1));
    assert_eq!(
        (&*leaf.causes, &*leaf.resource),
        (&["fct_1", "fct_2"][..], "local/ten_a/test.item/rec_\"é\"")
    );
    assert_eq!(
        (leaf.actor, &*leaf.on_behalf_of, &*leaf.act),
        ("prn_alice", &["prn_bob"][..], "test.item.change")
    );
    let decision = leaf.decision.unwrap();
    assert_eq!((decision.id, decision.effect), ("dec_1", "ALLOW"));
    assert_eq!(
        (leaf.policy.as_deref(), leaf.assurance.as_deref(), &*leaf.trace),
        (Some("ab12"), Some("key"), "trace-1")
    );
    assert_eq!(leaf.args_commitment, Some(&*hex::encode(&[2; 32])));
    assert_eq!(leaf.outcome.get(), r#"{"a":"\n\u0001","b":[1,null,true]}"#);
}

/// Too large, too many causes, outside the canonical form: nothing of the changeset, and the stream has no gap.
pub async fn a_fact_that_does_not_fit_stops_its_changeset(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let fit = bed.fact("run_s");
    for (bad, error) in [
        (Fact { outcome: json!({"a": "x".repeat(LEAF_BYTES_MAX)}), ..fit.clone() }, LeafError::TooLarge),
        (Fact { causes: vec![id("fct_1"); CAUSES_MAX + 1], ..fit.clone() }, LeafError::TooManyCauses),
        (Fact { outcome: json!([]), ..fit.clone() }, LeafError::Outcome),
        (Fact { outcome: json!({"a": 0.5}), ..fit.clone() }, LeafError::Outcome),
        (Fact { outcome: json!({"é": 1}), ..fit.clone() }, LeafError::Outcome),
    ] {
        let facts = vec![bed.fact("run_s"), Fact { id: bed.fact("run_s").id, ..bad }];
        let result =
            bed.draft_commit(&tenant, Draft { facts, ..bed.draft(vec![new("rec_a")], "run_s") }).await;
        refused!(result, CommitError::Leaf(found) if *found == error);
    }
    bed.draft_commit(&tenant, Draft { facts: vec![fit], ..bed.draft(vec![], "run_s") }).await.unwrap();
    bed.settle().await;
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
    assert_eq!(bed.log_checked(&tenant).await.len(), 2);
    // The largest that fits goes in and comes out.
    let padding = LEAF_BYTES_MAX - bed.leaves(&tenant).await[1].leaf.len() - r#","p":"""#.len();
    let large = Fact { outcome: json!({"n": 1, "p": "x".repeat(padding)}), ..bed.fact("run_s") };
    bed.draft_commit(&tenant, Draft { facts: vec![large], ..bed.draft(vec![], "run_s") }).await.unwrap();
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await[2].leaf.len(), LEAF_BYTES_MAX);
}

/// From any index, as many as asked, none beyond the end.
pub async fn leaves_are_read_in_pieces(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let facts = (0..99).map(|_| bed.fact("run_s")).collect();
    bed.draft_commit(&tenant, Draft { facts, ..bed.draft(vec![], "run_s") }).await.unwrap();
    bed.settle().await;
    let all = bed.log_checked(&tenant).await;
    assert_eq!(all.len(), 100);
    for (from, limit) in
        [(0, 1), (0, 100), (40, 20), (99, 5), (100, 5), (101, 5), (3, 0), (u64::MAX, 5), (90, usize::MAX)]
    {
        let found = bed.store().leaves(&tenant, from, limit).await.unwrap();
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(all.len());
        assert_eq!(found, all[start..start + limit.min(all.len() - start)], "from {from}, at most {limit}");
    }
}

/// By its own numbers, whatever lies between in the log; another tenant's stream of the same name is another one.
pub async fn a_stream_is_read_in_pieces(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    for n in 0..30 {
        let facts = vec![bed.fact("run_odd"), bed.fact(if n % 3 == 0 { "run_s" } else { "run_t" })];
        bed.draft_commit(&a, Draft { facts, ..bed.draft(vec![], "run_s") }).await.unwrap();
    }
    bed.draft_commit(&b, bed.draft(vec![], "run_s")).await.unwrap();
    bed.settle().await;
    let numbers = async |tenant, from, limit| {
        let rows = bed.store().stream(tenant, &id("run_s"), from, limit).await.unwrap();
        rows.iter().map(|row| kernel::fact::read(&row.leaf).unwrap().stream_n).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&a, 0, 100).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(numbers(&a, 4, 3).await, [4, 5, 6]);
    assert_eq!(numbers(&a, 10, 3).await, [10]);
    assert_eq!(numbers(&a, 11, 3).await, [0u64; 0]);
    assert_eq!(numbers(&a, u64::MAX, 3).await, [0u64; 0]);
    assert_eq!(numbers(&b, 0, 100).await, [1]);
    let rows = bed.store().stream(&a, &id("run_s"), 1, 100).await.unwrap();
    let all = bed.leaves(&a).await;
    assert!(rows.iter().all(|row| all[row.index as usize] == *row), "a stream shows the log's own rows");
}

/// Side by side in the log, counted on within the changeset, also when two streams alternate.
pub async fn facts_of_one_changeset_stand_together(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let commit = async |streams: &[&str]| {
        let facts = streams.iter().map(|stream| bed.fact(stream)).collect();
        bed.draft_commit(&tenant, Draft { facts, ..bed.draft(vec![], "run_a") }).await.unwrap()
    };
    let (first, second) =
        tokio::join!(commit(&["run_x", "run_y", "run_x", "run_x"]), commit(&["run_y", "run_x"]));
    bed.settle().await;
    let leaves = bed.log_checked(&tenant).await;
    let streams: Vec<String> =
        leaves[1..].iter().map(|row| kernel::fact::read(&row.leaf).unwrap().stream.to_string()).collect();
    let (one, two) = (["run_x", "run_y", "run_x", "run_x"], ["run_y", "run_x"]);
    assert!(streams == [&one[..], &two].concat() || streams == [&two[..], &one].concat(), "{streams:?}");
    if !bed.deferred() {
        let mut firsts = [first.first_index.unwrap(), second.first_index.unwrap()];
        firsts.sort_unstable();
        assert!(firsts == [1, 5] || firsts == [1, 3], "{firsts:?}");
    }
}

/// Twice in one changeset, or with the side row of one that is there, it is a conflict: the second side row would be
/// lost or would replace the first.
pub async fn a_fact_is_stated_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let fact = Fact { aside: Some(b"first".to_vec()), ..bed.fact("run_s") };
    let again = Fact { aside: Some(b"second".to_vec()), ..fact.clone() };
    let draft = |facts| Draft { facts, ..bed.draft(vec![new("rec_a")], "run_s") };
    let both = vec![fact.clone(), again.clone()];
    refused!(bed.draft_commit(&tenant, draft(both)).await, CommitError::Conflict { .. });
    bed.draft_commit(&tenant, Draft { operations: vec![], ..draft(vec![fact.clone()]) }).await.unwrap();
    refused!(bed.draft_commit(&tenant, draft(vec![again])).await, CommitError::Conflict { .. });
    assert_eq!(bed.store().aside(&tenant, &fact.id).await.unwrap().unwrap(), b"first");
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 2);
}

/// Readable by the fact's id, in their tenant, and not a byte of them in the leaf.
pub async fn asides_are_kept_beside_the_log(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let secret = b"a-person's-name \x00\xff".to_vec();
    let with = Fact { aside: Some(secret.clone()), ..bed.fact("run_s") };
    let empty = Fact { aside: Some(vec![]), ..bed.fact("run_s") };
    let without = Fact { kind: DONE, ..bed.fact("run_s") };
    let ids = [&with, &empty, &without].map(|fact| fact.id.clone());
    bed.draft_commit(&a, Draft { facts: vec![with, empty, without], ..bed.draft(vec![], "run_s") })
        .await
        .unwrap();
    let read = async |tenant, n: usize| bed.store().aside(tenant, &ids[n]).await.unwrap();
    assert_eq!(read(&a, 0).await, Some(secret));
    assert_eq!(read(&a, 1).await, Some(vec![]));
    assert_eq!(read(&a, 2).await, None);
    assert_eq!(read(&b, 0).await, None);
    bed.settle().await;
    for row in bed.log_checked(&a).await {
        assert!(!row.leaf.windows(8).any(|bytes| bytes == b"a-person"));
    }
}
