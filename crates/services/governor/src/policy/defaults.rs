//! The platform policy that comes with the product, as sources.
//!
//! The sources are in the binary; the signature is not. Whoever sets up an installation builds and signs them
//! with that installation's own key, as the first bundle of scope [`PLATFORM_SCOPE`], so that there is no key in
//! the world whose loss endangers every installation at once.

use super::bundle::{BundleError, DATA, Files, Manifest};

/// The scope of the policy that speaks about every tenant's acts.
pub const PLATFORM_SCOPE: &str = "platform";

const MANIFEST: &str = include_str!("../../../../../contracts/policies/platform/.manifest");
const RULES: &[(&str, &str)] = &[
    ("acts.rego", include_str!("../../../../../contracts/policies/platform/acts.rego")),
    ("connectors.rego", include_str!("../../../../../contracts/policies/platform/connectors.rego")),
    (DATA, include_str!("../../../../../contracts/policies/platform/data.json")),
    ("writ.rego", include_str!("../../../../../contracts/policies/platform/writ.rego")),
];

/// The manifest and files of the default platform policy.
///
/// # Errors
/// None in a build whose tests passed: the sources are constants.
pub fn platform_sources() -> Result<(Manifest, Files), BundleError> {
    let manifest =
        serde_json::from_str(MANIFEST).map_err(|error| BundleError::Malformed(error.to_string()))?;
    let files = RULES.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    Ok((manifest, files))
}
