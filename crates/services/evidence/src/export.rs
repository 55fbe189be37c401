//! The resource `evidence.bundle`: exporting evidence as an act, and giving it out.
//!
//! An export signs the head of the log, gathers, assembles and writes a file, all before its one commit. That is allowed in
//! a plan because each part can be repeated without harm: sealing an unchanged log does nothing, and the file is named by
//! its own digest, flushed and renamed into place. A plan that is then not committed leaves a file that nobody names; it
//! costs space and says nothing wrong.
//!
//! Bundles are files in the installation's evidence folder and not blobs in the store, because a blob is capped at 1 MiB
//! and a bundle is not. The record keeps digest and size, and every reader checks the digest.
//!
//! The fact `evidence.sealed` counts in the stream that was exported, after what the bundle holds, and names its last fact
//! as cause. So the next bundle of a run tells that, and when, evidence of it was given out before.

use crate::bundle::{Bundle, BundleError, assemble};
use crate::disclosure::Disclosure;
use crate::gather::{GatherError, Scope, gather};
use crate::manifest::Predicate;
use crate::seal::{SealError, checkpoint_seal};
use crate::signing::Signing;
use crate::trust::Trust;
use act::{Class, Coded, Draw as _, Fault, Plan, Route, Target, Verb, page, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::FutureExt as _;
use kernel::note::{Checkpoint, VerifierKey};
use kernel::{Digest, Id, TenantId, fact, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use store::key::Key;
use store::{Document, ReadError, SEQUENCE_MAX, Store, files};

/// Largest bundle that is given out in one reply, in bytes; a larger one is taken from the folder.
pub const DOWNLOAD_BYTES_MAX: u64 = 64 << 20;

/// Most rounds in which waiting facts are given their places before an export: 65,536 facts. Nobody's export waits for more
/// that somebody else has done.
const SEQUENCE_ROUNDS_MAX: usize = 16;

/// What exporting needs.
#[derive(Clone)]
pub struct Evidence(Arc<Config>);

/// How evidence is made in this installation.
pub struct Config {
    /// Name of the installation, the first part of every origin.
    pub installation: String,
    /// Where bundles are written; created if missing.
    pub folder: PathBuf,
    /// The installation's signers.
    pub signing: Signing,
    /// Which arguments bundles show.
    pub disclosure: Disclosure,
}

/// Why evidence could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log's head could not be signed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The log is empty.
    #[error("the log is empty")]
    Empty,
    /// There is no such stream.
    #[error("there is no such stream in the log")]
    NoStream,
    /// More than one bundle may hold.
    #[error("there is more than one bundle may hold")]
    TooLarge,
    /// The log does not fit together.
    #[error("the log is damaged near index {0}")]
    Damaged(u64),
    /// The bundle could not be written.
    #[error("the evidence folder cannot be written")]
    Storage(#[source] std::io::Error),
    /// Storage cannot be read.
    #[error("storage cannot be read")]
    Read(#[from] ReadError),
}

impl From<GatherError> for ExportError {
    fn from(error: GatherError) -> ExportError {
        match error {
            GatherError::NoStream => ExportError::NoStream,
            GatherError::TooLarge => ExportError::TooLarge,
            GatherError::Damaged(index) => ExportError::Damaged(index),
            GatherError::Read(error) => ExportError::Read(error),
        }
    }
}

impl From<BundleError> for ExportError {
    fn from(error: BundleError) -> ExportError {
        match error {
            BundleError::TooLarge => ExportError::TooLarge,
            // Disclosures are the only part that is not ours, and they were checked when they were gathered.
            BundleError::Json(_) => ExportError::Damaged(0),
        }
    }
}

impl Coded for ExportError {
    fn code(&self) -> &'static str {
        match self {
            ExportError::Seal(error) => error.code(),
            ExportError::Empty | ExportError::NoStream => "evidence.nothing_to_export",
            ExportError::TooLarge => "evidence.bundle_too_large",
            ExportError::Damaged(_) => "evidence.log_damaged",
            ExportError::Storage(_) => "evidence.folder_unwritable",
            ExportError::Read(error) => error.code(),
        }
    }
    fn class(&self) -> Class {
        match self {
            ExportError::Seal(error) => error.class(),
            ExportError::Empty | ExportError::NoStream => Class::NotFound,
            ExportError::TooLarge => Class::TooLarge,
            ExportError::Damaged(_) => Class::Internal,
            ExportError::Storage(_) => Class::Unavailable,
            ExportError::Read(error) => error.class(),
        }
    }
}

/// A bundle that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleDoc {
    /// `bun_` and the first 32 digits of the digest.
    pub id: Id,
    /// SHA-256 of the file, in hexadecimal; the file is `<digest>.evidence.tar`.
    pub digest: String,
    /// The stream that it is about, or `log`.
    pub subject: String,
    /// Size of the file.
    pub bytes: u64,
    /// Facts in it.
    pub facts: u64,
    /// Size of the log at its checkpoint.
    pub size: u64,
    /// When it was made, milliseconds UTC.
    pub created_at_ms: i64,
    /// Who asked for it.
    pub created_by: Id,
}

impl Document for BundleDoc {
    const KIND: &'static str = "evidence.bundle";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("created", Key::new().integer(self.created_at_ms).text(self.id.as_str()).bytes())]
    }
}

impl Evidence {
    /// Evidence in this installation.
    pub fn new(config: Config) -> Evidence {
        Evidence(Arc::new(config))
    }

    /// Signs the head of a tenant's log if it has grown; the step of the checkpoint worker.
    ///
    /// # Errors
    /// See [`SealError`].
    pub async fn seal(&self, store: &Store, tenant: &TenantId) -> Result<crate::seal::Sealed, SealError> {
        checkpoint_seal(store, &self.0.signing, tenant).await
    }

    /// Makes a bundle in memory.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn bundle(
        &self,
        store: &Store,
        tenant: &TenantId,
        scope: &Scope,
        at_ms: i64,
    ) -> Result<Bundle, ExportError> {
        // What was acknowledged before somebody asks is in the answer, also where facts get their places a moment later.
        for _ in 0..SEQUENCE_ROUNDS_MAX {
            if store.sequence(SEQUENCE_MAX).await.map_err(SealError::Commit)? < SEQUENCE_MAX {
                break;
            }
        }
        let kept = self.seal(store, tenant).await?.newest().ok_or(ExportError::Empty)?;
        let foreign = || ExportError::Seal(SealError::Foreign { tenant: tenant.clone() });
        let origin = kept.note.lines().next().unwrap_or_default();
        let key = VerifierKey::new(origin, self.0.signing.log_key).map_err(|_| foreign())?;
        let checkpoint = Checkpoint::open(&kept.note, &key).map_err(|_| foreign())?;
        let parts = gather(store, tenant, scope, checkpoint, kept, &self.0.disclosure, at_ms).await?;
        let config = self.0.clone();
        // Hashing a large log takes a second; it is done where it holds nobody up.
        let assembled = tokio::task::spawn_blocking(move || assemble(&parts, &config.signing)).await;
        Ok(assembled.map_err(|error| ExportError::Storage(std::io::Error::other(error)))??)
    }

    /// Writes a bundle into the evidence folder, whole or not at all, and returns its path.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub async fn write(&self, digest: &Digest, bytes: Vec<u8>) -> Result<PathBuf, ExportError> {
        let (folder, path) = (self.0.folder.clone(), self.path(digest));
        // Two writers of one name write the same bytes: it is their digest.
        let written = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(folder)?;
            files::replace(&path, &bytes)?;
            Ok(path)
        });
        written.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(ExportError::Storage)
    }

    /// Where the bundle of this digest lies.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.folder.join(format!("{}.evidence.tar", hex::encode(digest)))
    }

    /// The trust file for the log of one tenant.
    ///
    /// # Errors
    /// If storage cannot be read.
    pub async fn trust(&self, store: &Store, tenant: &TenantId) -> Result<Trust, ReadError> {
        let Some(head) = store.head(tenant).await? else {
            return Ok(self.0.signing.trust(&self.0.installation, &[]));
        };
        let epochs = store.epochs(tenant).await?;
        Ok(self.0.signing.trust_of(&self.0.installation, &epochs, &head.origin))
    }

    /// Reads a bundle that was exported and checks that it is still the one.
    async fn read(&self, doc: &BundleDoc) -> Result<Vec<u8>, Fault> {
        if doc.bytes > DOWNLOAD_BYTES_MAX {
            return Err(Fault::new(
                Class::TooLarge,
                "evidence.bundle_too_large",
                "the bundle is over 64 MiB: take it from the installation's evidence folder",
            ));
        }
        let gone = || {
            Fault::new(Class::Unavailable, "evidence.bundle_lost", "the bundle's file is gone or was changed")
        };
        let digest = hex::decode32(&doc.digest).ok_or_else(gone)?;
        let path = self.path(&digest);
        let length = tokio::fs::metadata(&path).await.map_err(|_| gone())?.len();
        if length != doc.bytes {
            return Err(gone());
        }
        let bytes = tokio::fs::read(&path).await.map_err(|_| gone())?;
        if kernel::sha256(&bytes) == digest { Ok(bytes) } else { Err(gone()) }
    }
}

/// Arguments of `evidence.bundle.export`: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// A run, with all that led to it.
    pub run: Option<String>,
    /// Any other stream, with all that led to it.
    pub stream: Option<String>,
    /// The tenant's whole log.
    #[serde(default)]
    pub all: bool,
}

fn scope(args: &Value) -> Result<Scope, Fault> {
    let args: Export = parse(args)?;
    let stream =
        |text: String, what: &str| Id::parse(&text).map(Scope::Stream).map_err(|_| Fault::not_found(what));
    match (args.run, args.stream, args.all) {
        (Some(run), None, false) if run.starts_with("run_") => stream(run, "run"),
        (Some(_), None, false) => Err(Fault::not_found("run")),
        (None, Some(text), false) => stream(text, "stream"),
        (None, None, true) => Ok(Scope::Log),
        _ => Err(Fault::invalid("request.invalid", "exactly one of run, stream and all says what to export")),
    }
}

/// What policy sees of an export: the stream itself, or the tenant.
fn subject(scope: &Scope, tenant: &TenantId) -> Id {
    match scope {
        Scope::Stream(stream) => stream.clone(),
        Scope::Log => tenant.id().clone(),
    }
}

/// The verbs.
pub(crate) fn verbs(evidence: &Evidence) -> Vec<Verb> {
    let evidence = evidence.clone();
    vec![Verb {
        act: "evidence.bundle.export",
        summary: "Exports evidence of a run, a stream or the whole log",
        args: || schemars::schema_for!(Export).into(),
        writes: &["evidence.bundle"],
        facts: &["evidence.sealed"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, args, ctx| {
            async move {
                let scope = scope(args)?;
                let mut target = Target::of(BundleDoc::KIND, &subject(&scope, &ctx.tenant));
                let (what, whole) = match &scope {
                    Scope::Log => ("the whole log".to_owned(), true),
                    Scope::Stream(stream) => (stream.to_string(), false),
                };
                target.attributes = json!({"all": whole});
                target.preview = vec![("Export evidence of".into(), what)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(move |view, args, stamp| {
            let evidence = evidence.clone();
            async move {
                let scope = scope(args)?;
                let tenant = &stamp.ctx.tenant;
                let bundle = evidence.bundle(view.store(), tenant, &scope, stamp.at_ms).await?;
                let Bundle { bytes, digest, predicate, facts } = bundle;
                let size = bytes.len() as u64;
                evidence.write(&digest, bytes).await?;
                store::crash::point("evidence.written");
                let digest = hex::encode(&digest);
                let doc = BundleDoc {
                    // 32 hexadecimal digits are an id's body.
                    id: Id::parse(&format!("bun_{}", &digest[..32])).map_err(act::internal)?,
                    digest,
                    subject: predicate.subject.clone(),
                    bytes: size,
                    facts,
                    size: predicate.size,
                    created_at_ms: stamp.at_ms,
                    created_by: stamp.ctx.principal.id.clone(),
                };
                let stream = subject(&scope, tenant);
                let outcome = json!({
                    "bundle": doc.id, "digest": doc.digest, "bytes": doc.bytes, "facts": doc.facts, "size": doc.size,
                });
                let mut sealed = stamp.fact("evidence.sealed", &stream, (BundleDoc::KIND, &doc.id), outcome.clone());
                if let Scope::Stream(stream) = &scope {
                    sealed.causes = last_fact(view.store(), tenant, stream, &predicate).await?.into_iter().collect();
                }
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.put_new(&doc).fact(sealed);
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// The id of the last fact that a bundle holds of `stream`.
async fn last_fact(
    store: &Store,
    tenant: &TenantId,
    stream: &Id,
    predicate: &Predicate,
) -> Result<Option<Id>, Fault> {
    let claim = predicate.streams.iter().find(|claim| claim.stream == stream.as_str());
    let Some(claim) = claim else { return Ok(None) };
    let row = store.stream(tenant, stream, claim.last, 1).await?.pop();
    Ok(row.and_then(|row| Id::parse(fact::read(&row.leaf)?.id).ok()))
}

fn shown(doc: &BundleDoc) -> Value {
    json!({
        "id": doc.id, "digest": doc.digest, "subject": doc.subject, "bytes": doc.bytes, "facts": doc.facts,
        "size": doc.size, "created_at_ms": doc.created_at_ms, "created_by": doc.created_by,
    })
}

/// The routes.
pub(crate) fn routes(evidence: &Evidence) -> Vec<Route> {
    let (download, trust) = (evidence.clone(), evidence.clone());
    vec![
        Route::post(
            "/v1/evidence",
            "evidence_export",
            "Export evidence of a run, a stream or the whole log",
            "evidence.bundle.export",
        ),
        Route::get(
            "/v1/evidence",
            "evidence_list",
            "List exported bundles, newest first",
            "evidence.bundle.read",
            |query| async move { page::list(&query, "created", Vec::new(), true, shown).await }.boxed(),
        )
        .taking(&page::PARAMS),
        Route::get(
            "/v1/evidence/{bundle}",
            "evidence_download",
            "Download a bundle of at most 64 MiB, as base64",
            "evidence.bundle.read",
            move |query| {
                let evidence = download.clone();
                async move {
                    let id = query.id("bundle", "bundle")?;
                    let doc =
                        query.view.peek::<BundleDoc>(&id).await?.ok_or_else(|| Fault::not_found("bundle"))?;
                    let mut reply = shown(&doc);
                    reply["bundle_base64"] = BASE64.encode(evidence.read(&doc).await?).into();
                    Ok(reply)
                }
                .boxed()
            },
        ),
        Route::get(
            "/v1/trust",
            "trust_show",
            "Show the trust file for the tenant's log, with its fingerprint",
            "evidence.trust.read",
            move |query| {
                let evidence = trust.clone();
                async move {
                    let trust = evidence.trust(query.view.store(), query.view.tenant()).await?;
                    Ok(json!({"trust": trust, "fingerprint": trust.fingerprint()}))
                }
                .boxed()
            },
        ),
    ]
}
