//! Parameters and bodies: only what is declared, and each thing once.

use super::header_once;
use super::problem::{Problem, Refusal};
use act::Param;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Parameters by name.
pub type Params = BTreeMap<String, String>;

/// The parameters of the path, as the route's template names them.
pub async fn path(parts: &mut Parts) -> Params {
    // A route without parameters has none to extract, and the path was canonical before it was routed.
    let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return Params::new() };
    params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The parameters of the query: those the route declares, at most once each.
pub fn query(text: Option<&str>, declared: &[Param]) -> Result<Params, Problem> {
    let mut params = Params::new();
    for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let malformed = || Refusal::Query.because("the query is not form-encoded UTF-8");
        let name = unescaped(name).ok_or_else(malformed)?;
        let Some(known) = declared.iter().find(|param| param.name == name) else {
            let names: Vec<&str> = declared.iter().map(|param| param.name).collect();
            return Err(Refusal::Query.because(match names.as_slice() {
                [] => "this route takes no query parameters".to_owned(),
                names => format!("this route takes the query parameters {}", names.join(", ")),
            }));
        };
        let value = unescaped(value).ok_or_else(malformed)?;
        if params.insert(name, value).is_some() {
            return Err(
                Refusal::Query.because(format!("the query parameter {} stands more than once", known.name))
            );
        }
    }
    Ok(params)
}

/// Form decoding of one part; `None` unless it is UTF-8 without control characters.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                // Two digits make at most 255.
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

/// The body's bytes, within the limits of size and time.
pub async fn body(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || Refusal::BodyTooLarge.because(format!("a body has at most {bytes_max} bytes"));
    if header_once(headers, &CONTENT_ENCODING)?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        return Err(Refusal::ContentType.because("a body is sent as it is, without a content encoding"));
    }
    // Said in advance, it need not be sent first.
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    match tokio::time::timeout(within, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::Body.because("the body did not arrive whole")),
        Err(_) => Err(Refusal::BodyTooSlow.because("the body took too long to arrive")),
    }
}

/// Refuses a body where none belongs.
pub fn bodiless(headers: &HeaderMap) -> Result<(), Problem> {
    let announced = headers.get(CONTENT_LENGTH).is_some_and(|value| value != "0");
    if announced || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::Body.because("this route takes no body"));
    }
    Ok(())
}

/// A verb's arguments: the body's members, and the parameters of path and query as texts. No member may come twice.
pub fn arguments(headers: &HeaderMap, body: &[u8], params: Params) -> Result<Value, Problem> {
    let mut args = if body.is_empty() { Map::new() } else { object(headers, body)? };
    for (name, value) in params {
        if args.contains_key(&name) {
            return Err(Refusal::Body.because(format!("{name} stands in the path or query and in the body")));
        }
        args.insert(name, Value::String(value));
    }
    Ok(Value::Object(args))
}

fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let content_type = header_once(headers, &CONTENT_TYPE)?.unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    if !json || !parts.all(|parameter| parameter.eq_ignore_ascii_case("charset=utf-8")) {
        return Err(Refusal::ContentType.because("a body is application/json in UTF-8"));
    }
    match super::strict_json::parse(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal::Body.because("a body is a JSON object")),
        Err(why) => Err(Refusal::Body.because(format!("the body is refused: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Param] = &[Param { name: "status", summary: "" }, Param { name: "limit", summary: "" }];

    #[test]
    fn only_declared_query_parameters_and_each_once() {
        let read = |text| query(Some(text), DECLARED).map_err(|problem| problem.fault.message);
        assert_eq!(
            read("status=a%20b+c&limit=").unwrap(),
            Params::from([("status".into(), "a b c".into()), ("limit".into(), "".into())])
        );
        assert_eq!(read("").unwrap(), Params::new());
        assert_eq!(read("stat%75s=x").unwrap()["status"], "x");
        for (text, expected) in [
            ("status=a&status=b", "more than once"),
            ("status=a&stat%75s=b", "more than once"),
            ("tenant=ten_other", "takes the query parameters status, limit"),
            ("=x", "takes the query"),
            ("status=%ff", "UTF-8"),
            ("status=%0a", "UTF-8"),
            ("status=%2", "UTF-8"),
            ("status=%zz", "UTF-8"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }

    #[test]
    fn arguments_come_from_one_place_each() {
        let headers =
            |content_type: &str| HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let params = || Params::from([("run".to_owned(), "run_a".to_owned())]);
        let read = |content_type: &str, body: &str| {
            arguments(&headers(content_type), body.as_bytes(), params())
                .map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(
            read("application/json", r#"{"a":1}"#).unwrap(),
            serde_json::json!({"a": 1, "run": "run_a"})
        );
        assert_eq!(
            read("Application/JSON; charset=UTF-8", "{}").unwrap(),
            serde_json::json!({"run": "run_a"})
        );
        assert_eq!(arguments(&HeaderMap::new(), b"", params()).unwrap(), serde_json::json!({"run": "run_a"}));
        for (content_type, body, status) in [
            ("application/json", r#"{"run":"run_b"}"#, 400),
            ("application/json", r#"{"run":"run_a"}"#, 400),
            ("application/json", "[]", 400),
            ("application/json", "{", 400),
            ("text/plain", "{}", 415),
            ("application/json; charset=latin1", "{}", 415),
            ("application/jsonp", "{}", 415),
            ("multipart/form-data; boundary=x", "{}", 415),
        ] {
            assert_eq!(read(content_type, body), Err(status), "{content_type} {body}");
        }
    }
}
