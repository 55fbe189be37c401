//! Which models there are, from the configuration.
//!
//! The baseline is always there: trained on the operator's examples, or on the few that come with the product. A provider
//! is there if its address and the place of its key are configured. The key itself is opened for each call, under the
//! tenant that makes it, and forgotten after it.

use crate::config::{self, Config, SecretRef};
use act::Fault;
use custody::Custody;
use egress::{Allowlist, Egress, Rule, SecretHeader, Target};
use futures::FutureExt as _;
use kernel::TenantId;
use models::azure::is_api_version;
use models::baseline::{self, Baseline};
use models::call::{Fallback, Hosted, Providers};
use models::dialect::Dialect;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Take};
use std::path::PathBuf;
use std::sync::Arc;
use store::Store;

/// The examples that come with the product.
const SAMPLES: &str = include_str!("../../../../contracts/samples/training.csv");
/// Largest file of examples, in bytes: what the baseline takes, and room for the other columns.
const FILE_BYTES_MAX: u64 = 2 * baseline::TRAINING_BYTES_MAX as u64;

/// Why the configured models cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// The file of examples cannot be read.
    #[error("the examples in {0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// It is not the table that is expected.
    #[error("the examples are no CSV with the columns id, document, topic_group")]
    Csv(#[from] csv::Error),
    /// The baseline cannot learn from them.
    #[error("the baseline cannot be trained")]
    Train(#[from] baseline::TrainError),
    /// A provider's address is none.
    #[error("models.{provider}.base_url is refused: {reason}")]
    Address {
        /// The provider's section of the configuration.
        provider: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// The version is none.
    #[error("models.azure_openai.api_version is not made of letters, digits and hyphens")]
    ApiVersion,
    /// The fallbacks are too many, name no model, or name the same one twice.
    #[error(
        "models.fallback names a pair twice, a model as its own fallback, no provider/model, or more than 32 pairs"
    )]
    Fallback,
}

/// Most pairs of models that may stand in for one another.
const FALLBACKS_MAX: usize = 32;

/// One labelled example.
#[derive(Debug, Deserialize)]
struct Example {
    document: String,
    topic_group: String,
}

/// The providers of this configuration.
pub fn providers(
    config: &Config,
    egress: &Egress,
    custody: &Custody,
    store: &Store,
) -> Result<Providers, ProvidersError> {
    let models = &config.models;
    let mut hosted = BTreeMap::new();
    let mut add = |name: &str, section, dialect, base_url: &str, credential: &SecretRef| {
        let provider = provider(config, section, dialect, base_url, credential, custody, store)?;
        hosted.insert(name.to_owned(), provider);
        Ok::<_, ProvidersError>(())
    };
    if let Some(openai) = &models.openai {
        add("openai", "openai", Dialect::OpenAi, &openai.base_url, &openai.credential)?;
    }
    if let Some(azure) = &models.azure_openai {
        if azure.api_version.as_deref().is_some_and(|version| !is_api_version(version)) {
            return Err(ProvidersError::ApiVersion);
        }
        let dialect = Dialect::AzureOpenAi { api_version: azure.api_version.clone() };
        add("azure-openai", "azure_openai", dialect, &azure.base_url, &azure.credential)?;
    }
    if let Some(anthropic) = &models.anthropic {
        add("anthropic", "anthropic", Dialect::Anthropic, &anthropic.base_url, &anthropic.credential)?;
    }
    Ok(Providers {
        baseline: Some(Arc::new(trained(config)?)),
        hosted,
        egress: Some(egress.clone()),
        fallbacks: fallbacks(&models.fallback)?,
    })
}

fn fallbacks(pairs: &[config::ModelFallback]) -> Result<BTreeMap<String, Vec<Fallback>>, ProvidersError> {
    let mut found = BTreeMap::<String, Vec<Fallback>>::new();
    let is_pin =
        |text: &str| text.split_once('/').is_some_and(|(left, right)| !left.is_empty() && !right.is_empty());
    for pair in pairs {
        let others = found.entry(pair.of.clone()).or_default();
        let known = pair.of == pair.to || others.iter().any(|other| other.pin == pair.to);
        if known || pairs.len() > FALLBACKS_MAX || !is_pin(&pair.of) || !is_pin(&pair.to) {
            return Err(ProvidersError::Fallback);
        }
        others.push(Fallback { pin: pair.to.clone(), accepts: pair.accepts.clone() });
    }
    Ok(found)
}

fn trained(config: &Config) -> Result<Baseline, ProvidersError> {
    let examples: Vec<Example> = match &config.models.baseline_training {
        None => read(SAMPLES.as_bytes())?,
        Some(path) => {
            let file = File::open(path).map_err(|error| ProvidersError::File(path.clone(), error))?;
            let bounded: Take<File> = file.take(FILE_BYTES_MAX);
            read(bounded)?
        }
    };
    let pairs = examples.iter().map(|example| (example.document.as_str(), example.topic_group.as_str()));
    Ok(Baseline::train(pairs, baseline::Config::default())?)
}

fn read(from: impl Read) -> Result<Vec<Example>, csv::Error> {
    // One more than the baseline takes, so that it can say so.
    csv::Reader::from_reader(from).deserialize().take(baseline::EXAMPLES_MAX + 1).collect()
}

fn provider(
    config: &Config,
    section: &'static str,
    dialect: Dialect,
    base_url: &str,
    credential: &SecretRef,
    custody: &Custody,
    store: &Store,
) -> Result<Hosted, ProvidersError> {
    let refused = |error: &dyn std::fmt::Display| ProvidersError::Address {
        provider: section,
        reason: error.to_string(),
    };
    let base = base_url.trim_end_matches('/');
    let target = Target::parse(&format!("{base}/")).map_err(|fault| refused(&fault))?;
    let mut rule = Rule::parse(&target.origin()).map_err(|error| refused(&error))?;
    if config.private_host(&target.host().to_string(), target.port()) {
        rule = rule.allow_private().map_err(|error| refused(&error))?;
    }
    let allow = Allowlist::new(vec![rule]).map_err(|error| refused(&error))?;
    let (credential, custody, store) = (credential.clone(), custody.clone(), store.clone());
    let header = dialect.key_header();
    Ok(Hosted {
        dialect,
        base_url: base.to_owned(),
        allow,
        key: Arc::new(move |tenant| {
            let (credential, custody, store) = (credential.clone(), custody.clone(), store.clone());
            async move { opened(header, &credential, &custody, &store, tenant).await }.boxed()
        }),
        stream: config.models.stream,
        limits: Hosted::limits(config.models.stream),
    })
}

async fn opened(
    header: Option<&str>,
    credential: &SecretRef,
    custody: &Custody,
    store: &Store,
    tenant: &TenantId,
) -> Result<SecretHeader, Fault> {
    let missing = |why: &str| Fault::invalid("model.credential", why);
    let made = |key: &str| match header {
        None => SecretHeader::bearer(key),
        Some(name) => SecretHeader::new(name, key.as_bytes().to_vec()),
    };
    let header = match credential {
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(key) if !key.is_empty() => made(&key),
            Ok(_) | Err(_) => return Err(missing("the variable with the provider's key is not set")),
        },
        SecretRef::Custody(reference) => {
            let secret = custody.open(store, tenant, reference).await?;
            made(secret.expose_text().ok_or_else(|| missing("the provider's key is no text"))?)
        }
    };
    header.map_err(|_| missing("the provider's key cannot stand in a header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallbacks_are_pairs_of_models_each_once() {
        let pair = |of: &str, to: &str| config::ModelFallback {
            of: of.to_owned(),
            to: to.to_owned(),
            accepts: vec!["dated".to_owned()],
        };
        let found = fallbacks(&[pair("openai/a", "anthropic/b"), pair("openai/a", "baseline/c")]).unwrap();
        let pins: Vec<&str> = found["openai/a"].iter().map(|fallback| fallback.pin.as_str()).collect();
        assert_eq!(pins, ["anthropic/b", "baseline/c"], "in the order of the configuration");
        for bad in [
            vec![pair("openai/a", "openai/a")],
            vec![pair("openai/a", "b")],
            vec![pair("/a", "openai/b")],
            vec![pair("openai/a", "x/b"), pair("openai/a", "x/b")],
            (0..33).map(|n| pair("openai/a", &format!("x/{n}"))).collect(),
        ] {
            assert!(matches!(fallbacks(&bad), Err(ProvidersError::Fallback)), "{bad:?}");
        }
    }

    #[test]
    fn the_samples_train_and_nonsense_does_not() {
        let with = |path: &str| {
            let mut config = Config::default();
            config.models.baseline_training = Some(path.into());
            trained(&config).map(|_| ())
        };
        assert!(trained(&Config::default()).is_ok());
        let folder = testkit::folder::fresh();
        let file = folder.path().join("examples.csv");
        let path = file.to_str().unwrap();
        assert!(matches!(with(path), Err(ProvidersError::File(..))));
        std::fs::write(&file, "id,text\n1,a\n").unwrap();
        assert!(matches!(with(path), Err(ProvidersError::Csv(_))));
        std::fs::write(&file, "id,document,topic_group\n").unwrap();
        assert!(matches!(with(path), Err(ProvidersError::Train(_))));
        std::fs::write(&file, "id,document,topic_group\n1,the printer is on fire,Hardware\n").unwrap();
        assert!(with(path).is_ok());
    }
}
