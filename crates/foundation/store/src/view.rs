//! A view: one tenant's records as an act sees them, and a memory of what it saw.
//!
//! An act reads, decides, and then commits on the condition that what it read has not moved. The view keeps the list of
//! (kind, id, revision) for that, so no planner can forget one. A list cannot be guarded that way: a record that joins
//! it between reading and committing has no revision to check. So a rule over a list names a guard record that every
//! writer of the set bumps ([`View::list_guarded`]), and a view that has listed without a guard refuses to be committed
//! on ([`View::into_reads`]).

use crate::document::{decode, encode};
use crate::{Document, Found, PAGE_MAX, Range, ReadError, Store, Stored};
use kernel::changeset::{Operation, Put};
use kernel::{Id, TenantId};
use parking_lot::Mutex;

/// What a view saw of one record: its revision, or that it was absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Kind of the record.
    pub kind: &'static str,
    /// Its id.
    pub id: Id,
    /// Its revision; `None`: absent.
    pub rev: Option<u64>,
}

/// A remembering reader over one tenant.
#[derive(Debug)]
pub struct View {
    store: Store,
    tenant: TenantId,
    at_ms: i64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    reads: Vec<Read>,
    first: Option<Read>,
    unguarded: Option<&'static str>,
}

impl View {
    pub(crate) fn new(store: Store, tenant: TenantId, at_ms: i64) -> View {
        View { store, tenant, at_ms, seen: Mutex::default() }
    }

    /// The tenant it looks at.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// When it was opened, milliseconds UTC.
    pub fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// The store behind it, for what is immutable: leaves, blobs, proofs.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn remember(&self, kind: &'static str, id: &Id, rev: Option<u64>) {
        self.noticed(kind, id, rev);
        let mut seen = self.seen.lock();
        if !seen.reads.iter().any(|read| read.kind == kind && read.id == *id) {
            seen.reads.push(Read { kind, id: id.clone(), rev });
        }
    }

    fn noticed(&self, kind: &'static str, id: &Id, rev: Option<u64>) {
        self.seen.lock().first.get_or_insert_with(|| Read { kind, id: id.clone(), rev });
    }

    /// The record that was looked at before all others, whether or not a commit would depend on it: for a read of one
    /// thing, that thing.
    pub fn first(&self) -> Option<Read> {
        self.seen.lock().first.clone()
    }

    /// The revision that a record has now; `None`: it is absent. A commit on this view depends on it.
    pub async fn rev(&self, kind: &'static str, id: &Id) -> Result<Option<u64>, ReadError> {
        let rev = self.store.record(&self.tenant, kind, id).await?.map(|row| row.rev);
        self.remember(kind, id, rev);
        Ok(rev)
    }

    /// Reads a document.
    pub async fn get<T: Document>(&self, id: &Id) -> Result<Option<Stored<T>>, ReadError> {
        let row = self.store.record(&self.tenant, T::KIND, id).await?;
        self.remember(T::KIND, id, row.as_ref().map(|row| row.rev));
        row.map(|row| decode(&row)).transpose()
    }

    /// Reads a document without making the commit depend on it: for what is only shown.
    pub async fn peek<T: Document>(&self, id: &Id) -> Result<Option<Stored<T>>, ReadError> {
        let row = self.store.record(&self.tenant, T::KIND, id).await?;
        self.noticed(T::KIND, id, row.as_ref().map(|row| row.rev));
        row.map(|row| decode(&row)).transpose()
    }

    /// Finds a document by a unique key. Finding one makes the commit depend on it; finding none does not guard the
    /// key, the unique entry of the put does.
    pub async fn find<T: Document>(&self, name: &str, key: &[u8]) -> Result<Option<Stored<T>>, ReadError> {
        let row = self.store.record_unique(&self.tenant, T::KIND, name, key).await?;
        if let Some(row) = &row {
            self.remember(T::KIND, &row.id, Some(row.rev));
        }
        row.map(|row| decode(&row)).transpose()
    }

    /// Lists documents to be shown. A commit on this view is refused.
    pub async fn list<T: Document>(&self, range: Range) -> Result<Vec<Found<T>>, ReadError> {
        self.seen.lock().unguarded = Some(T::KIND);
        self.rows(range).await
    }

    /// Lists documents page after page until there are no more, or `max` of them at least: for what is added up or looked
    /// through rather than shown. A commit on this view is refused.
    pub async fn list_through<T: Document>(
        &self,
        mut range: Range,
        max: usize,
    ) -> Result<Vec<Found<T>>, ReadError> {
        range.limit = PAGE_MAX;
        let mut rows: Vec<Found<T>> = Vec::new();
        loop {
            let found = self.list::<T>(range.clone()).await?;
            let whole = found.len() == PAGE_MAX;
            rows.extend(found);
            match rows.last() {
                Some(last) if whole && rows.len() < max => {
                    range.after = Some((last.key.clone(), last.stored.doc.id().clone()));
                }
                _ => return Ok(rows),
            }
        }
    }

    /// Lists documents that a rule is about; `guard` is the record that every writer of the set bumps.
    pub async fn list_guarded<T: Document, G: Document>(
        &self,
        guard: &Id,
        range: Range,
    ) -> Result<Vec<Found<T>>, ReadError> {
        // The guard is read first: a writer that comes between shows as a moved guard.
        self.get::<G>(guard).await?;
        self.rows(range).await
    }

    async fn rows<T: Document>(&self, range: Range) -> Result<Vec<Found<T>>, ReadError> {
        self.store
            .record_list(&self.tenant, T::KIND, range)
            .await?
            .into_iter()
            .map(|(key, row)| Ok(Found { key, stored: decode(&row)? }))
            .collect()
    }

    /// What the commit has to check. `Err` names the kind of a list that was read without a guard.
    pub fn into_reads(self) -> Result<Vec<Read>, &'static str> {
        let seen = self.seen.into_inner();
        match seen.unguarded {
            None => Ok(seen.reads),
            Some(kind) => Err(kind),
        }
    }
}

/// A put of a document that must not exist yet.
pub fn put_new<T: Document>(doc: &T) -> Operation {
    put(doc, None, None)
}

/// A put that replaces `stored` by `doc`.
pub fn put_if<T: Document>(stored: &Stored<T>, doc: &T) -> Operation {
    put(doc, Some(stored.rev), stored.unknown.as_ref())
}

fn put<T: Document>(
    doc: &T,
    rev: Option<u64>,
    unknown: Option<&serde_json::Map<String, serde_json::Value>>,
) -> Operation {
    Operation::Put(Put {
        kind: T::KIND,
        id: doc.id().clone(),
        rev,
        body: encode(doc, unknown),
        indexes: doc.indexes(),
        uniques: doc.uniques(),
    })
}
