//! One compact JWS (RFC 7515) with ES256 (RFC 7518 §3.4), and nothing else.
//!
//! The history of JWT libraries is a list of headers that were believed: `alg: none`, an HMAC keyed with the
//! public key, a key fetched from an address in the token. Here the header names a key and that is all it does:
//! the algorithm is a property of our record of that key, and a header that says otherwise, or says anything
//! beyond `alg`, `kid` and `typ`, is refused before the signature is looked at.

use super::bundle::{Algorithm, BundleError, KeyRecord, KeyRing};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey};
use serde::{Deserialize, Serialize};

/// Most bytes of a token: 64 files at some 200 bytes each, in base64, with room.
const TOKEN_BYTES_MAX: usize = 32 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
}

/// Signs `payload` with the key that verifiers know as `keyid`.
pub(super) fn sign(payload: &[u8], keyid: &str, key: &SigningKey) -> Result<String, BundleError> {
    let header = Header { alg: Algorithm::Es256.name().into(), kid: Some(keyid.into()), typ: None };
    let header = serde_json::to_vec(&header).map_err(|error| BundleError::Malformed(error.to_string()))?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature: Signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
    Ok(token)
}

/// Verifies `token` under the key it names, and returns its payload, that key's id and its record.
pub(super) fn verify<'ring>(
    token: &str,
    keys: &'ring KeyRing,
) -> Result<(Vec<u8>, &'ring str, &'ring KeyRecord), BundleError> {
    let refused = BundleError::Signature;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused("the signature is longer than any real one"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(refused("the signature is no compact JWS"))?;
    let (header, payload) = signed.split_once('.').ok_or(refused("the signature is no compact JWS"))?;
    if payload.contains('.') {
        return Err(refused("the signature is no compact JWS"));
    }
    let decode =
        |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| refused("the signature is no compact JWS"));
    let header: Header = serde_json::from_slice(&decode(header)?)
        .map_err(|_| refused("the signature's header holds something else than alg, kid and typ"))?;
    let payload = decode(payload)?;
    let keyid = header.kid.ok_or(refused("the signature names no key"))?;
    let (keyid, record) =
        keys.get_key_value(&keyid).ok_or(refused("the signature names a key that is not trusted here"))?;
    if header.alg != record.algorithm.name() {
        return Err(refused("the signature's algorithm is not the one of the key it names"));
    }
    let valid = match record.algorithm {
        Algorithm::Es256 => Signature::from_slice(&decode(signature)?)
            .is_ok_and(|signature| record.key.verify(signed.as_bytes(), &signature).is_ok()),
    };
    if valid { Ok((payload, keyid, record)) } else { Err(refused("the signature does not verify")) }
}
