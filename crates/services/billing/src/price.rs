//! The price book: what a million tokens of a model cost, from when on.
//!
//! A tenant publishes versions. Each is kept as it was, under its name, with the moment from which it holds; the version
//! in force at a moment is the one that began last before it. A version never begins in the past: what has been held or
//! rated keeps its price. A call is rated at the version that was in force when its hold was taken, so a version that
//! begins while the call is under way changes nothing about it. Without a version of its own a tenant has the built-in
//! book.

use act::{Class, Coded, Draw as _, Fault, Plan, Route, Target, Verb};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, View};

/// Most rows of a book.
pub const MODELS_MAX: usize = 500;
/// Most versions that the schedule keeps; of those that no longer hold, the oldest are dropped from it.
pub const VERSIONS_MAX: usize = 200;
const MILLION: u128 = 1_000_000;

/// A price book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// Names this version in every row it rates.
    pub version: String,
    /// ISO 4217 code; one currency per book.
    pub currency: String,
    /// From when it holds, milliseconds UTC, not in the past; without it: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from_ms: Option<i64>,
    /// Prices of models, tried in order.
    pub models: Vec<ModelPrice>,
    /// Price of one connector call, in millionths.
    pub connector_call_micros: i64,
}

/// Price of a model, in millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// `provider/model`, or `provider/*` for every other model of a provider.
    pub model: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Per million input tokens that were not cached.
    pub input_micros_per_million: i64,
    /// Per million input tokens read from a cache.
    pub cached_input_micros_per_million: i64,
    /// Per million tokens written to a cache.
    pub cache_write_micros_per_million: i64,
    /// Per million output tokens, reasoning included.
    pub output_micros_per_million: i64,
    /// Per call.
    pub call_micros: i64,
}

/// Measured usage of one call, in disjoint buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Input that was not cached.
    pub input: u64,
    /// Input read from a cache.
    pub cached_input: u64,
    /// Written to a cache.
    pub cache_write: u64,
    /// Output, reasoning included.
    pub output: u64,
}

impl Tokens {
    /// All of them.
    pub fn total(&self) -> u64 {
        [self.cached_input, self.cache_write, self.output].into_iter().fold(self.input, u64::saturating_add)
    }
}

/// Why something has no price.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// No row of the book fits.
    #[error("the price book has no price for {0}")]
    Unpriced(String),
    /// The book is malformed.
    #[error("the price book is refused: {0}")]
    Book(&'static str),
    /// More than money can be.
    #[error("the usage is larger than can be rated")]
    Overflow,
}

impl Coded for PriceError {
    fn code(&self) -> &'static str {
        match self {
            PriceError::Unpriced(_) => "billing.unpriced",
            PriceError::Book(_) => "billing.prices_invalid",
            PriceError::Overflow => "request.invalid",
        }
    }
    fn class(&self) -> Class {
        match self {
            PriceError::Unpriced(_) => Class::Denied,
            PriceError::Book(_) | PriceError::Overflow => Class::Invalid,
        }
    }
}

impl Book {
    /// The book that comes with the product.
    pub fn built_in() -> Book {
        // A constant of the build; a test reads it.
        serde_json::from_str(include_str!("../../../../contracts/prices/default.json"))
            .expect("the built-in price book")
    }

    /// Checks what the type cannot say.
    pub fn check(&self) -> Result<(), PriceError> {
        let prices = self.models.iter().flat_map(|row| {
            [
                row.input_micros_per_million,
                row.cached_input_micros_per_million,
                row.cache_write_micros_per_million,
                row.output_micros_per_million,
                row.call_micros,
            ]
        });
        if self.version.is_empty() || self.version.len() > 64 {
            Err(PriceError::Book("a version has 1 to 64 characters"))
        } else if self.currency.len() != 3 || !self.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            Err(PriceError::Book("a currency is three capital letters"))
        } else if self.models.len() > MODELS_MAX {
            Err(PriceError::Book("more than 500 rows"))
        } else if prices.chain([self.connector_call_micros]).any(|price| price < 0) {
            Err(PriceError::Book("a price is negative"))
        } else {
            Ok(())
        }
    }

    /// The row for a model, `provider/model`.
    pub fn model(&self, model: &str) -> Result<&ModelPrice, PriceError> {
        let exact = self.models.iter().find(|row| row.model == model);
        let provider = model.split('/').next().unwrap_or_default();
        exact
            .or_else(|| self.models.iter().find(|row| row.model.strip_suffix("/*") == Some(provider)))
            .ok_or_else(|| PriceError::Unpriced(model.to_owned()))
    }

    /// What a call costs, in millionths, rounded up once.
    pub fn rate(&self, model: &str, tokens: &Tokens) -> Result<i64, PriceError> {
        self.model(model)?.rate(tokens)
    }
}

impl ModelPrice {
    /// What a call costs, in millionths, rounded up once.
    pub fn rate(&self, tokens: &Tokens) -> Result<i64, PriceError> {
        let parts = [
            (tokens.input, self.input_micros_per_million),
            (tokens.cached_input, self.cached_input_micros_per_million),
            (tokens.cache_write, self.cache_write_micros_per_million),
            (tokens.output, self.output_micros_per_million),
        ];
        let sum: u128 = parts
            .iter()
            .try_fold(0u128, |sum, (tokens, price)| {
                sum.checked_add(u128::from(*tokens).checked_mul(u128::try_from(*price).ok()?)?)
            })
            .ok_or(PriceError::Overflow)?;
        let call = u128::try_from(self.call_micros).map_err(|_| PriceError::Overflow)?;
        let total = sum.div_ceil(MILLION).checked_add(call).ok_or(PriceError::Overflow)?;
        i64::try_from(total).map_err(|_| PriceError::Overflow)
    }

    /// The most that a call can cost: all of its input in the dearest of the three input buckets, all of its output.
    pub fn most(&self, input_tokens: u64, output_tokens: u64) -> Result<i64, PriceError> {
        let dearest = self
            .input_micros_per_million
            .max(self.cached_input_micros_per_million)
            .max(self.cache_write_micros_per_million);
        let worst = ModelPrice { input_micros_per_million: dearest, ..self.clone() };
        worst.rate(&Tokens { input: input_tokens, output: output_tokens, ..Tokens::default() })
    }
}

/// A version of the tenant's price book, as it was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PricesDoc {
    /// `prc_…`, from the version's name; `prc_current` for the one book that there was before versions.
    pub id: Id,
    /// The book.
    pub book: Book,
    /// When it was published, milliseconds UTC.
    pub published_at_ms: i64,
}

impl Document for PricesDoc {
    const KIND: &'static str = "billing.prices";
    const VERSION: u32 = 2;
    fn id(&self) -> &Id {
        &self.id
    }
    fn upcast(version: u32, doc: Value) -> Option<Value> {
        // Version 1 had no `effective_from_ms`: it held from when it was published.
        (version == 1).then_some(doc)
    }
}

/// Which version holds from when on: the one record that every publication changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleDoc {
    /// `prc_schedule`
    pub id: Id,
    /// Versions in the order in which they begin; of those that begin together, the later published comes later.
    pub versions: Vec<Entry>,
}

/// A row of the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub version: String,
    /// Its record.
    pub prices: Id,
    /// From when it holds, milliseconds UTC.
    pub effective_at_ms: i64,
    /// When it was published, milliseconds UTC.
    pub published_at_ms: i64,
}

impl Document for ScheduleDoc {
    const KIND: &'static str = "billing.price_schedule";
    fn id(&self) -> &Id {
        &self.id
    }
}

impl ScheduleDoc {
    /// The version in force at a moment.
    pub fn in_force(&self, at_ms: i64) -> Option<&Entry> {
        self.versions.iter().rev().find(|entry| entry.effective_at_ms <= at_ms)
    }

    fn add(&mut self, entry: Entry) {
        self.versions.push(entry);
        // Stable, so what was published later stays later.
        self.versions.sort_by_key(|entry| entry.effective_at_ms);
    }

    /// Drops what has not held for longest. `false`: there are too many that still will.
    fn trim(&mut self, at_ms: i64) -> bool {
        let past =
            self.versions.iter().filter(|entry| entry.effective_at_ms <= at_ms).count().saturating_sub(1);
        let surplus = self.versions.len().saturating_sub(VERSIONS_MAX);
        self.versions.drain(..surplus.min(past));
        surplus <= past
    }
}

fn constant(id: &str) -> Id {
    // Constants of the grammar.
    Id::parse(id).expect("a constant id")
}

/// The record of a version. Names are free text, so their digest stands in the id.
fn version_id(version: &str) -> Id {
    let digest = kernel::hex::encode(&kernel::sha256(version.as_bytes()));
    constant(&format!("prc_{}", &digest[..32]))
}

/// The book in force for the view's tenant at the view's time: its own, or the built-in one.
pub async fn book(view: &View) -> Result<Book, store::ReadError> {
    let schedule = view.get::<ScheduleDoc>(&constant("prc_schedule")).await?;
    let in_force = schedule.as_ref().and_then(|schedule| schedule.in_force(view.at_ms()));
    let id = in_force.map_or_else(|| constant("prc_current"), |entry| entry.prices.clone());
    match view.get::<PricesDoc>(&id).await? {
        Some(stored) => Ok(stored.doc.book),
        None if in_force.is_none() => Ok(Book::built_in()),
        // A schedule without its version would make every price a guess.
        None => Err(store::ReadError::Unreadable { kind: PricesDoc::KIND.into(), id: id.to_string() }),
    }
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "billing.price.publish",
        summary: "Publishes a version of the tenant's price book",
        args: || schemars::schema_for!(Book).into(),
        writes: &["billing.prices", "billing.price_schedule"],
        facts: &["billing.prices.published"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, args, _| {
            async move {
                let book: Book = act::parse(args)?;
                book.check()?;
                let mut target = Target::of(PricesDoc::KIND, &version_id(&book.version));
                target.preview = vec![("Price book".into(), book.version)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let book: Book = act::parse(args)?;
                book.check()?;
                let effective_at_ms = book.effective_from_ms.unwrap_or(stamp.at_ms);
                if effective_at_ms < stamp.at_ms {
                    return Err(PriceError::Book("prices do not hold for the past").into());
                }
                let id = version_id(&book.version);
                if view.get::<PricesDoc>(&id).await?.is_some() {
                    return Err(Fault::conflict(
                        "billing.prices_invalid",
                        "this version has been published already",
                    ));
                }
                let digest =
                    kernel::hex::encode(&kernel::sha256(&serde_json::to_vec(&book).unwrap_or_default()));
                let outcome =
                    json!({"version": book.version, "digest": digest, "effective_at_ms": effective_at_ms});
                let schedule_id = constant("prc_schedule");
                let stored = view.get::<ScheduleDoc>(&schedule_id).await?;
                let mut schedule = stored.as_ref().map_or_else(
                    || ScheduleDoc { id: schedule_id, versions: Vec::new() },
                    |stored| stored.doc.clone(),
                );
                schedule.add(Entry {
                    version: book.version.clone(),
                    prices: id.clone(),
                    effective_at_ms,
                    published_at_ms: stamp.at_ms,
                });
                if !schedule.trim(stamp.at_ms) {
                    return Err(PriceError::Book("more than 200 versions are still to come").into());
                }
                let doc = PricesDoc { id, book, published_at_ms: stamp.at_ms };
                let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                match &stored {
                    Some(stored) => plan.draft.put_if(stored, &schedule),
                    None => plan.draft.put_new(&schedule),
                };
                plan.draft.put_new(&doc).fact(stamp.fact(
                    "billing.prices.published",
                    &doc.id,
                    (PricesDoc::KIND, &doc.id),
                    outcome,
                ));
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/prices",
            "price_show",
            "Show the price book in force",
            "billing.price.read",
            |query| async move { Ok(json!(book(query.view).await?)) }.boxed(),
        ),
        Route::get(
            "/v1/prices/versions",
            "price_list",
            "List the versions of the tenant's price book",
            "billing.price.read",
            |query| {
                async move {
                        let schedule = query.view.get::<ScheduleDoc>(&constant("prc_schedule")).await?;
                        let in_force =
                            schedule.as_ref().and_then(|schedule| schedule.in_force(query.view.at_ms())).cloned();
                        let versions = schedule.map(|stored| stored.doc.versions).unwrap_or_default();
                        let shown = |entry: &Entry| {
                            json!({
                                "version": entry.version, "effective_at_ms": entry.effective_at_ms,
                                "published_at_ms": entry.published_at_ms, "in_force": in_force.as_ref() == Some(entry),
                            })
                        };
                        Ok(json!({"items": versions.iter().rev().map(shown).collect::<Vec<_>>()}))
                    }
                    .boxed()
            },
        ),
        Route::put(
            "/v1/prices",
            "price_publish",
            "Publish a version of the tenant's price book",
            "billing.price.publish",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, input: i64, output: i64) -> ModelPrice {
        ModelPrice {
            model: model.into(),
            note: None,
            input_micros_per_million: input,
            cached_input_micros_per_million: input / 2,
            cache_write_micros_per_million: input,
            output_micros_per_million: output,
            call_micros: 0,
        }
    }

    fn book() -> Book {
        Book {
            version: "1".into(),
            currency: "USD".into(),
            effective_from_ms: None,
            models: vec![row("a/*", 10, 10), row("a/big", 2_000_000, 8_000_000)],
            connector_call_micros: 0,
        }
    }

    #[test]
    fn rating() {
        let tokens = |input, cached_input, output| Tokens { input, cached_input, cache_write: 0, output };
        for (model, tokens, micros) in [
            ("a/big", tokens(1000, 0, 100), 2800),
            ("a/big", tokens(0, 1000, 0), 1000),
            ("a/big", tokens(0, 0, 0), 0),
            // Less than one millionth is rounded up, once for the whole call and not once per bucket.
            ("a/small", tokens(1, 1, 1), 1),
        ] {
            assert_eq!(book().rate(model, &tokens).unwrap(), micros, "{model} {tokens:?}");
        }
        assert!(matches!(book().rate("b/big", &tokens(1, 0, 0)), Err(PriceError::Unpriced(_))));
        assert!(book().rate("a", &tokens(1, 0, 0)).is_ok(), "a provider's own name falls under its star");
        assert!(matches!(book().rate("a/big", &tokens(u64::MAX, 0, u64::MAX)), Err(PriceError::Overflow)));
    }

    #[test]
    fn nothing_within_its_limits_costs_more_than_the_most() {
        let price =
            ModelPrice { cache_write_micros_per_million: 2_500_000, ..row("a/big", 2_000_000, 8_000_000) };
        let most = price.most(1_000, 100).unwrap();
        assert_eq!(most, 2_500 + 800);
        for (input, cached_input, cache_write) in
            [(1_000, 0, 0), (0, 1_000, 0), (0, 0, 1_000), (300, 300, 400)]
        {
            let tokens = Tokens { input, cached_input, cache_write, output: 100 };
            assert!(price.rate(&tokens).unwrap() <= most, "{tokens:?}");
        }
        assert!(matches!(price.most(u64::MAX, 1), Err(PriceError::Overflow)));
    }

    #[test]
    fn the_version_in_force_is_the_last_that_has_begun() {
        let entry = |version: &str, effective_at_ms, published_at_ms| Entry {
            version: version.into(),
            prices: version_id(version),
            effective_at_ms,
            published_at_ms,
        };
        let mut schedule = ScheduleDoc { id: constant("prc_schedule"), versions: vec![] };
        let at = |schedule: &ScheduleDoc, at_ms| schedule.in_force(at_ms).map(|entry| entry.version.clone());
        assert_eq!(at(&schedule, 5), None);
        schedule.add(entry("1", 10, 10));
        schedule.add(entry("3", 30, 11));
        schedule.add(entry("2", 20, 12));
        schedule.add(entry("2b", 20, 13));
        for (at_ms, version) in
            [(9, None), (10, Some("1")), (19, Some("1")), (20, Some("2b")), (31, Some("3"))]
        {
            assert_eq!(at(&schedule, at_ms).as_deref(), version, "{at_ms}");
        }
        for n in 0..i64::try_from(VERSIONS_MAX).unwrap() {
            schedule.add(entry(&format!("later {n}"), 1_000 + n, 14));
        }
        assert!(schedule.clone().trim(2_000));
        // All that are kept begin later than now, but for the one in force: nothing can be dropped.
        assert!(!schedule.trim(20), "{}", schedule.versions.len());
    }

    #[test]
    fn a_book_from_before_versions_can_still_be_read() {
        let old = json!({"v": 1, "doc": {"id": "prc_current", "published_at_ms": 7,
            "book": {"version": "1", "currency": "USD", "models": [], "connector_call_micros": 0}}});
        let row = store::Row { id: constant("prc_current"), rev: 1, body: serde_json::to_vec(&old).unwrap() };
        let doc = store::decode::<PricesDoc>(&row).unwrap().doc;
        assert_eq!((doc.book.effective_from_ms, doc.published_at_ms), (None, 7));
    }

    #[test]
    fn the_built_in_book_is_in_order() {
        Book::built_in().check().unwrap();
        assert!(Book::built_in().rate("baseline/knn", &Tokens::default()).is_ok());
        for bad in [
            Book { currency: "usd".into(), ..book() },
            Book { version: String::new(), ..book() },
            Book { models: vec![row("a/*", -1, 0)], ..book() },
            Book { connector_call_micros: -1, ..book() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
