//! What a verification came to.

use act::{Class, Coded};
use serde::{Serialize, Serializer};
use std::fmt;

/// Why a bundle is refused: a closed set with a code each, the same in both verifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described once, in CODES")]
pub enum Reason {
    ArchiveTooLarge,
    ArchiveMalformed,
    ArchiveEntry,
    ArchiveName,
    FileUnexpected,
    FileMissing,
    FileUnlisted,
    FileDigest,
    ManifestMalformed,
    ManifestType,
    ManifestSignature,
    ManifestMismatch,
    EvidenceKeyUnknown,
    EvidenceKeyExpired,
    LogUnknown,
    LogKeyExpired,
    CheckpointMalformed,
    CheckpointKeyUnknown,
    CheckpointSignature,
    WitnessQuorum,
    HistoryMalformed,
    HistoryInconsistent,
    ProofMalformed,
    RangeGap,
    FactMalformed,
    FactOrigin,
    FactTime,
    FactTwice,
    StreamGap,
    Inclusion,
    HeldInvalid,
    HeldNewer,
    HeldUnproven,
    HeldConflict,
    HeldEpoch,
    DisclosureMalformed,
    DisclosureUnknown,
    DisclosureMismatch,
    PolicyMismatch,
    PolicyUnreferenced,
    Overclaim,
}

/// The codes of [`Reason`], with what each says.
pub const CODES: &[(&str, &str)] = &[
    ("evidence.archive_too_large", "the bundle has more bytes or files than a bundle may have"),
    ("evidence.archive_malformed", "the file is not a bundle's archive in its one spelling"),
    ("evidence.archive_entry", "the archive holds something else than regular files"),
    ("evidence.archive_name", "the archive holds a file name that is not allowed, doubled or out of order"),
    ("evidence.file_unexpected", "the bundle holds a file that no bundle has"),
    ("evidence.file_missing", "the bundle lacks a file that it must have or that its manifest lists"),
    ("evidence.file_unlisted", "the bundle holds a file that its manifest does not list"),
    ("evidence.file_digest", "a file is not the one that the manifest lists"),
    ("evidence.manifest_malformed", "the manifest is not a signed statement in canonical form"),
    ("evidence.manifest_type", "the manifest is of another type or version"),
    ("evidence.manifest_signature", "the manifest's signature does not verify"),
    (
        "evidence.manifest_mismatch",
        "the manifest speaks of another log, size or range than the rest of the bundle",
    ),
    ("evidence.evidence_key_unknown", "the manifest is signed by a key that the trust file does not name"),
    (
        "evidence.evidence_key_expired",
        "the key that signed the manifest was not valid when the bundle was made",
    ),
    ("evidence.log_unknown", "the trust file names no log of this origin"),
    ("evidence.log_key_expired", "the log's key was not valid when the bundle was made"),
    ("evidence.checkpoint_malformed", "a checkpoint does not follow the C2SP grammar"),
    ("evidence.checkpoint_key_unknown", "a checkpoint carries no signature by a trusted key of its log"),
    ("evidence.checkpoint_signature", "a checkpoint's signature does not verify"),
    ("evidence.witness_quorum", "the trust file asks for more witnesses than were counted"),
    ("evidence.history_malformed", "the list of earlier checkpoints is not one"),
    (
        "evidence.history_inconsistent",
        "an earlier checkpoint is not a prefix of the next: the log was rewritten",
    ),
    ("evidence.proof_malformed", "the inclusion proof is not one"),
    ("evidence.range_gap", "there are more or fewer facts than the ranges claim"),
    ("evidence.fact_malformed", "a fact is not in the frozen form"),
    ("evidence.fact_origin", "a fact belongs to another log"),
    ("evidence.fact_time", "a fact's time lies before its predecessors' or after the making of the bundle"),
    ("evidence.fact_twice", "a fact is there twice"),
    ("evidence.stream_gap", "a stream claimed to be complete lacks a fact, or one is out of order"),
    ("evidence.inclusion", "the facts are not those of the log under the checkpoint"),
    ("evidence.held_invalid", "the checkpoint held by the verifier is not a trusted checkpoint of this log"),
    ("evidence.held_newer", "the verifier holds a checkpoint of a larger log than the bundle's"),
    ("evidence.held_unproven", "the bundle cannot show that the checkpoint held belongs to its history"),
    ("evidence.held_conflict", "the checkpoint held belongs to another history: the log was rewritten"),
    (
        "evidence.held_epoch",
        "the checkpoint held is of another epoch of the log, and the bundle does not show it in its history",
    ),
    ("evidence.disclosure_malformed", "the disclosures are not disclosures"),
    ("evidence.disclosure_unknown", "a disclosure is for a fact that is not here or committed to nothing"),
    ("evidence.disclosure_mismatch", "a disclosed argument is not the one committed to"),
    ("evidence.policy_mismatch", "a policy bundle is not the one that its name says"),
    ("evidence.policy_unreferenced", "a policy bundle that no fact names"),
    ("evidence.overclaim", "the bundle claims more than it holds, or does not say what it does not prove"),
];

impl Reason {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::ArchiveTooLarge => "evidence.archive_too_large",
            Reason::ArchiveMalformed => "evidence.archive_malformed",
            Reason::ArchiveEntry => "evidence.archive_entry",
            Reason::ArchiveName => "evidence.archive_name",
            Reason::FileUnexpected => "evidence.file_unexpected",
            Reason::FileMissing => "evidence.file_missing",
            Reason::FileUnlisted => "evidence.file_unlisted",
            Reason::FileDigest => "evidence.file_digest",
            Reason::ManifestMalformed => "evidence.manifest_malformed",
            Reason::ManifestType => "evidence.manifest_type",
            Reason::ManifestSignature => "evidence.manifest_signature",
            Reason::ManifestMismatch => "evidence.manifest_mismatch",
            Reason::EvidenceKeyUnknown => "evidence.evidence_key_unknown",
            Reason::EvidenceKeyExpired => "evidence.evidence_key_expired",
            Reason::LogUnknown => "evidence.log_unknown",
            Reason::LogKeyExpired => "evidence.log_key_expired",
            Reason::CheckpointMalformed => "evidence.checkpoint_malformed",
            Reason::CheckpointKeyUnknown => "evidence.checkpoint_key_unknown",
            Reason::CheckpointSignature => "evidence.checkpoint_signature",
            Reason::WitnessQuorum => "evidence.witness_quorum",
            Reason::HistoryMalformed => "evidence.history_malformed",
            Reason::HistoryInconsistent => "evidence.history_inconsistent",
            Reason::ProofMalformed => "evidence.proof_malformed",
            Reason::RangeGap => "evidence.range_gap",
            Reason::FactMalformed => "evidence.fact_malformed",
            Reason::FactOrigin => "evidence.fact_origin",
            Reason::FactTime => "evidence.fact_time",
            Reason::FactTwice => "evidence.fact_twice",
            Reason::StreamGap => "evidence.stream_gap",
            Reason::Inclusion => "evidence.inclusion",
            Reason::HeldInvalid => "evidence.held_invalid",
            Reason::HeldNewer => "evidence.held_newer",
            Reason::HeldUnproven => "evidence.held_unproven",
            Reason::HeldConflict => "evidence.held_conflict",
            Reason::HeldEpoch => "evidence.held_epoch",
            Reason::DisclosureMalformed => "evidence.disclosure_malformed",
            Reason::DisclosureUnknown => "evidence.disclosure_unknown",
            Reason::DisclosureMismatch => "evidence.disclosure_mismatch",
            Reason::PolicyMismatch => "evidence.policy_mismatch",
            Reason::PolicyUnreferenced => "evidence.policy_unreferenced",
            Reason::Overclaim => "evidence.overclaim",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.code())
    }
}

/// The first thing that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which check.
    pub check: &'static str,
    /// Why.
    #[serde(rename = "code")]
    pub reason: Reason,
    /// Where, for people.
    pub detail: String,
}

impl Failure {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Failure {
        Failure { check: "", reason, detail: detail.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a bundle says of itself may hold anything; a terminal gets no control characters from it.
        let detail: String =
            self.detail.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let says = CODES.iter().find(|(code, _)| *code == self.reason.code()).map_or("", |(_, says)| says);
        write!(f, "{says} ({detail})")
    }
}

impl std::error::Error for Failure {}

impl Coded for Failure {
    fn code(&self) -> &'static str {
        self.reason.code()
    }
    fn class(&self) -> Class {
        Class::Evidence
    }
}

/// One check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// What a verification came to. Everything but `checks` and `failure` is to be believed only as far as the checks went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The checks in order; the last one may have failed.
    pub checks: Vec<Check>,
    /// The first failure; `None`: the bundle is valid.
    pub failure: Option<Failure>,
    /// SHA-256 of the bundle; empty where only [`super::verify`] was asked.
    pub bundle_sha256: String,
    /// What it is about: a stream, or `log`.
    pub subject: String,
    /// The log.
    pub origin: String,
    /// Size of the log at the checkpoint.
    pub size: u64,
    /// When the bundle was made, milliseconds UTC.
    pub created_at_ms: i64,
    /// Facts in it.
    pub facts: u64,
    /// Streams they belong to.
    pub streams: u64,
    /// Facts whose arguments are opened.
    pub disclosed: u64,
    /// Policies that decided and are not in the bundle.
    pub policies_absent: Vec<String>,
    /// What is not proven.
    pub not_proven: Vec<String>,
}

impl Report {
    /// Whether every check held.
    pub fn ok(&self) -> bool {
        self.failure.is_none()
    }

    pub(super) fn begin(&mut self, name: &'static str) {
        self.checks.push(Check { name, ok: false, detail: String::new() });
    }

    pub(super) fn done(&mut self, detail: String) {
        if let Some(check) = self.checks.last_mut() {
            check.ok = true;
            check.detail = detail;
        }
    }

    pub(super) fn failed(&mut self, mut failure: Failure) {
        if let Some(check) = self.checks.last_mut() {
            failure.check = check.name;
            check.detail = failure.to_string();
        }
        self.failure = Some(failure);
    }
}
