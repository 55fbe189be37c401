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
use models::baseline::{self, Baseline};
use models::call::{OpenAi, Providers};
use serde::Deserialize;
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
    /// The provider's address is none.
    #[error("models.openai.base_url is refused: {0}")]
    Address(String),
}

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
    let openai =
        config.models.openai.as_ref().map(|openai| provider(config, openai, custody, store)).transpose()?;
    Ok(Providers { baseline: Some(Arc::new(trained(config)?)), openai, egress: Some(egress.clone()) })
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
    openai: &config::OpenAi,
    custody: &Custody,
    store: &Store,
) -> Result<OpenAi, ProvidersError> {
    let refused = |error: &dyn std::fmt::Display| ProvidersError::Address(error.to_string());
    let base = openai.base_url.trim_end_matches('/');
    let target = Target::parse(&format!("{base}/")).map_err(|fault| refused(&fault))?;
    let mut rule = Rule::parse(&target.origin()).map_err(|error| refused(&error))?;
    if config.private_host(&target.host().to_string(), target.port()) {
        rule = rule.allow_private().map_err(|error| refused(&error))?;
    }
    let allow = Allowlist::new(vec![rule]).map_err(|error| refused(&error))?;
    let (credential, custody, store) = (openai.credential.clone(), custody.clone(), store.clone());
    Ok(OpenAi {
        base_url: base.to_owned(),
        allow,
        key: Arc::new(move |tenant| {
            let (credential, custody, store) = (credential.clone(), custody.clone(), store.clone());
            async move { opened(&credential, &custody, &store, tenant).await }.boxed()
        }),
    })
}

async fn opened(
    credential: &SecretRef,
    custody: &Custody,
    store: &Store,
    tenant: &TenantId,
) -> Result<SecretHeader, Fault> {
    let missing = |why: &str| Fault::invalid("model.credential", why);
    let header = match credential {
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(key) if !key.is_empty() => SecretHeader::bearer(&key),
            Ok(_) | Err(_) => return Err(missing("the variable with the provider's key is not set")),
        },
        SecretRef::Custody(reference) => {
            let secret = custody.open(store, tenant, reference).await?;
            SecretHeader::bearer(
                secret.expose_text().ok_or_else(|| missing("the provider's key is no text"))?,
            )
        }
    };
    header.map_err(|_| missing("the provider's key cannot stand in a header"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
