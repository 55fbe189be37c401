//! The price book: what a million tokens of a model cost.

use act::{Auth, Call, Class, Coded, Draw as _, Fault, Method, Plan, Route, Target, Verb};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::{Document, View};

/// Most rows of a book.
pub const MODELS_MAX: usize = 500;
const MILLION: u128 = 1_000_000;

/// A price book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// Names this version in every row it rates.
    pub version: String,
    /// ISO 4217 code; one currency per book.
    pub currency: String,
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
        let row = self.model(model)?;
        let parts = [
            (tokens.input, row.input_micros_per_million),
            (tokens.cached_input, row.cached_input_micros_per_million),
            (tokens.cache_write, row.cache_write_micros_per_million),
            (tokens.output, row.output_micros_per_million),
        ];
        let sum: u128 = parts
            .iter()
            .try_fold(0u128, |sum, (tokens, price)| {
                sum.checked_add(u128::from(*tokens).checked_mul(u128::try_from(*price).ok()?)?)
            })
            .ok_or(PriceError::Overflow)?;
        let total =
            sum.div_ceil(MILLION) + u128::try_from(row.call_micros).map_err(|_| PriceError::Overflow)?;
        i64::try_from(total).map_err(|_| PriceError::Overflow)
    }
}

/// The tenant's own price book.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PricesDoc {
    /// `prc_current`
    pub id: Id,
    /// The book.
    pub book: Book,
    /// When it was published, milliseconds UTC.
    pub published_at_ms: i64,
}

impl Document for PricesDoc {
    const KIND: &'static str = "billing.prices";
    fn id(&self) -> &Id {
        &self.id
    }
}

fn current() -> Id {
    // A constant of the grammar.
    Id::parse("prc_current").expect("a constant id")
}

/// The book in force for the view's tenant: its own, or the built-in one.
pub async fn book(view: &View) -> Result<Book, store::ReadError> {
    Ok(view.get::<PricesDoc>(&current()).await?.map_or_else(Book::built_in, |stored| stored.doc.book))
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "billing.price.publish",
        summary: "Publishes a version of the tenant's price book",
        args: || schemars::schema_for!(Book).into(),
        writes: &["billing.prices"],
        facts: &["billing.prices.published"],
        secret_args: &[],
        on_closed: None,
        aim: Arc::new(|_, args, _| {
            async move {
                let book: Book = act::parse(args)?;
                book.check()?;
                let mut target = Target::of(PricesDoc::KIND, &current());
                target.preview = vec![("Price book".into(), book.version)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let book: Book = act::parse(args)?;
                book.check()?;
                let stored = view.get::<PricesDoc>(&current()).await?;
                if stored.as_ref().is_some_and(|stored| stored.book.version == book.version) {
                    return Err(Fault::conflict(
                        "billing.prices_invalid",
                        "this version is in force already",
                    ));
                }
                let digest =
                    kernel::hex::encode(&kernel::sha256(&serde_json::to_vec(&book).unwrap_or_default()));
                let outcome = json!({"version": book.version, "digest": digest});
                let doc = PricesDoc { id: current(), book, published_at_ms: stamp.at_ms };
                let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                match &stored {
                    Some(stored) => plan.draft.put_if(stored, &doc),
                    None => plan.draft.put_new(&doc),
                };
                plan.draft.fact(stamp.fact(
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
        Route {
            method: Method::Get,
            path: "/v1/prices",
            operation: "price_show",
            summary: "Show the price book in force",
            auth: Auth::Principal,
            call: Call::Query(
                "billing.price.read",
                Arc::new(|query| async move { Ok(json!(book(query.view).await?)) }.boxed()),
            ),
            query: &[],
        },
        Route {
            method: Method::Put,
            path: "/v1/prices",
            operation: "price_publish",
            summary: "Publish a version of the tenant's price book",
            auth: Auth::Principal,
            call: Call::Verb("billing.price.publish"),
            query: &[],
        },
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
