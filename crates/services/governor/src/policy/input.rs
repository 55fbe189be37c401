//! What a policy may see of an act: a closed document.
//!
//! A rule that reads `input.resource.atributes.host` is undefined for ever, and a rule that is undefined does not
//! deny. So the document has a fixed shape and a version, and a request to evaluate one with an unknown field is
//! refused before any rule runs. Only `resource.attributes` and `args` are open inside: they are the act's own,
//! and the default policy says which of their fields it needs and denies where one is missing.
//!
//! Everything here is decided before: roles by `access`, attributes by the verb that aims, approvals by the
//! governor, and `now_ms` by the one clock. A policy that reads nothing else can be evaluated again in a year
//! with the same answer.

use regorus::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The version of the document.
pub const INPUT_VERSION: u8 = 1;
/// Most values in one document, its nested ones among them.
const VALUES_MAX: usize = 4_096;
/// Most bytes of text in one document.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Deepest nesting of attributes and arguments.
const DEPTH_MAX: usize = 16;

type Json = serde_json::Value;
type Object = serde_json::Map<String, Json>;

/// The version of a document: 1, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct InputVersion;

impl TryFrom<u8> for InputVersion {
    type Error = &'static str;
    fn try_from(version: u8) -> Result<InputVersion, &'static str> {
        if version == INPUT_VERSION { Ok(InputVersion) } else { Err("the policy input has version 1") }
    }
}

impl From<InputVersion> for u8 {
    fn from(_: InputVersion) -> u8 {
        INPUT_VERSION
    }
}

/// Everything a policy may see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInput {
    /// Always 1.
    pub version: InputVersion,
    /// Who acts.
    pub principal: Principal,
    /// The act, such as `flows.tool.call`.
    pub action: String,
    /// What it is done to.
    pub resource: Resource,
    /// The act's arguments.
    #[serde(default)]
    pub args: Object,
    /// What is true around the act.
    pub context: Context,
    /// When (milliseconds UTC).
    pub now_ms: i64,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// Their id.
    pub id: String,
    /// `person`, `service` or `integration`.
    pub kind: String,
    /// Their roles that hold for this very resource, already resolved: those in the whole tenant, and those in the project
    /// that it stands in. A tenant's own role stands here by its id.
    pub roles: Vec<String>,
    /// Those of the tenant's own roles among them that permit this act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitting: Vec<String>,
    /// The tenant they act in.
    pub tenant: String,
}

/// What an act is done to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The kind of thing.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What its own verb says about it.
    #[serde(default)]
    pub attributes: Object,
    /// The project it stands in, if it stands in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The project's workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The workspace's class: `development`, `staging` or `production`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// What is true around an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The installation's environment, such as `production` or `demo`.
    pub environment: String,
    /// How sure we are who acts.
    pub assurance: Assurance,
    /// Whether `approvals` cover this very act: same principal, act, resource and argument digest, none expired
    /// or used, none by the requester.
    #[serde(default)]
    pub approved: bool,
    /// The approvals that cover this act. Whether they are enough is the policy's to say.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

/// How sure we are who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assurance {
    /// 0: an ordinary key or session. 1: the installation's own administrator key. 2 and up: a second factor.
    pub level: u8,
    /// How it was proven, such as `api_key`.
    pub method: String,
    /// When it was proven (milliseconds UTC).
    pub proven_at_ms: i64,
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Its id.
    pub id: String,
    /// Who gave it.
    pub approver: String,
    /// The approver's tier.
    pub tier: u8,
    /// When (milliseconds UTC).
    pub granted_at_ms: i64,
}

/// A document ready for the virtual machine. Made once, evaluated under every bundle that speaks about the act.
#[derive(Debug, Clone)]
pub struct PreparedInput {
    pub(super) value: Value,
    pub(super) now_ms: i64,
}

/// The document is larger or deeper than a policy may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the policy input has more than 4096 values, 256 KiB of text or 16 levels")]
pub struct InputTooLarge;

impl PolicyInput {
    /// Converts the document for the virtual machine.
    pub fn prepare(&self) -> Result<PreparedInput, InputTooLarge> {
        let k = &*KEYS;
        let mut meter = Meter { values: VALUES_MAX, text: TEXT_BYTES_MAX };
        let m = &mut meter;
        let mut principal = vec![
            (&k.id, m.text(&self.principal.id)?),
            (&k.kind, m.text(&self.principal.kind)?),
            (&k.roles, m.array(&self.principal.roles, |m, role| m.text(role))?),
            (&k.tenant, m.text(&self.principal.tenant)?),
        ];
        if !self.principal.permitting.is_empty() {
            principal.push((&k.permitting, m.array(&self.principal.permitting, |m, role| m.text(role))?));
        }
        let principal = object(principal);
        let mut resource = vec![
            (&k.attributes, m.object(&self.resource.attributes, 0)?),
            (&k.id, m.text(&self.resource.id)?),
            (&k.kind, m.text(&self.resource.kind)?),
        ];
        for (key, text) in [
            (&k.project, &self.resource.project),
            (&k.workspace, &self.resource.workspace),
            (&k.environment, &self.resource.environment),
        ] {
            if let Some(text) = text {
                resource.push((key, m.text(text)?));
            }
        }
        let resource = object(resource);
        let assurance = object([
            (&k.level, m.value(Value::from(u64::from(self.context.assurance.level)))?),
            (&k.method, m.text(&self.context.assurance.method)?),
            (&k.proven_at_ms, m.value(Value::from(self.context.assurance.proven_at_ms))?),
        ]);
        let approvals = m.array(&self.context.approvals, |m, approval| {
            Ok(object([
                (&k.approver, m.text(&approval.approver)?),
                (&k.granted_at_ms, m.value(Value::from(approval.granted_at_ms))?),
                (&k.id, m.text(&approval.id)?),
                (&k.tier, m.value(Value::from(u64::from(approval.tier)))?),
            ]))
        })?;
        let context = object([
            (&k.approvals, approvals),
            (&k.approved, Value::Bool(self.context.approved)),
            (&k.assurance, assurance),
            (&k.environment, m.text(&self.context.environment)?),
        ]);
        let value = object([
            (&k.action, m.text(&self.action)?),
            (&k.args, m.object(&self.args, 0)?),
            (&k.context, context),
            (&k.now_ms, Value::from(self.now_ms)),
            (&k.principal, principal),
            (&k.resource, resource),
            (&k.version, Value::from(u64::from(INPUT_VERSION))),
        ]);
        Ok(PreparedInput { value, now_ms: self.now_ms })
    }
}

/// What may still be converted.
struct Meter {
    values: usize,
    text: usize,
}

impl Meter {
    fn value(&mut self, value: Value) -> Result<Value, InputTooLarge> {
        self.values = self.values.checked_sub(1).ok_or(InputTooLarge)?;
        Ok(value)
    }

    fn text(&mut self, text: &str) -> Result<Value, InputTooLarge> {
        self.text = self.text.checked_sub(text.len()).ok_or(InputTooLarge)?;
        self.value(Value::String(text.into()))
    }

    fn array<T>(
        &mut self,
        items: &[T],
        mut convert: impl FnMut(&mut Meter, &T) -> Result<Value, InputTooLarge>,
    ) -> Result<Value, InputTooLarge> {
        let items: Vec<Value> = items.iter().map(|item| convert(self, item)).collect::<Result<_, _>>()?;
        self.value(Value::from(items))
    }

    fn object(&mut self, members: &Object, depth: usize) -> Result<Value, InputTooLarge> {
        let members: BTreeMap<Value, Value> = members
            .iter()
            .map(|(key, member)| Ok((self.text(key)?, self.json(member, depth + 1)?)))
            .collect::<Result<_, _>>()?;
        self.value(Value::from(members))
    }

    fn json(&mut self, json: &Json, depth: usize) -> Result<Value, InputTooLarge> {
        if depth > DEPTH_MAX {
            return Err(InputTooLarge);
        }
        match json {
            Json::Null => self.value(Value::Null),
            Json::Bool(value) => self.value(Value::Bool(*value)),
            Json::String(text) => self.text(text),
            Json::Array(items) => self.array(items, |meter, item| meter.json(item, depth + 1)),
            Json::Object(members) => self.object(members, depth),
            Json::Number(number) => self.value(if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                // A number that is neither is a float, and JSON has no others.
                number.as_f64().map_or(Value::Null, Value::from)
            }),
        }
    }
}

fn object<'k>(members: impl IntoIterator<Item = (&'k Value, Value)>) -> Value {
    Value::from(members.into_iter().map(|(key, value)| (key.clone(), value)).collect::<BTreeMap<_, _>>())
}

/// The fixed keys, made once: cloning one counts a reference instead of copying a text.
macro_rules! keys {
    ($($key:ident)*) => {
        struct Keys { $($key: Value,)* }
        static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys { $($key: Value::from(stringify!($key)),)* });
    };
}

keys!(action approvals approved approver args assurance attributes context environment granted_at_ms id kind level
    method now_ms permitting principal project proven_at_ms resource roles tenant tier version workspace);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn full() -> Json {
        json!({
            "version": 1,
            "principal": {"id": "pri_a", "kind": "person", "roles": ["b", "a"], "permitting": ["rol_a"], "tenant": "ten_a"},
            "action": "flows.tool.call",
            "resource": {"kind": "tool", "id": "con_a", "project": "prj_a", "workspace": "wks_a", "environment": "staging", "attributes": {"n": -1, "f": 0.5, "u": u64::MAX, "z": null, "o": {"x": [true]}}},
            "args": {"é": "α"},
            "context": {
                "environment": "demo",
                "assurance": {"level": 1, "method": "api_key", "proven_at_ms": 5},
                "approved": true,
                "approvals": [{"id": "apr_a", "approver": "pri_b", "tier": 2, "granted_at_ms": 7}],
            },
            "now_ms": 9,
        })
    }

    #[test]
    fn the_machine_sees_what_the_decision_log_shows() {
        let input: PolicyInput = serde_json::from_value(full()).unwrap();
        assert_eq!(serde_json::to_value(&input).unwrap(), full());
        assert_eq!(input.prepare().unwrap().value, Value::from(full()));
    }

    #[test]
    fn i01_the_document_that_decides_is_closed() {
        for pointer in
            ["", "/principal", "/resource", "/context", "/context/assurance", "/context/approvals/0"]
        {
            let mut document = full();
            document.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("extra".into(), json!(1));
            assert!(serde_json::from_value::<PolicyInput>(document).is_err(), "{pointer}");
        }
        for version in [json!(0), json!(2), json!("1"), json!(null)] {
            let mut document = full();
            document["version"] = version;
            assert!(serde_json::from_value::<PolicyInput>(document).is_err());
        }
    }

    #[test]
    fn the_document_is_bounded() {
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        for args in
            [json!({"a": vec![0; VALUES_MAX]}), json!({"a": "x".repeat(TEXT_BYTES_MAX)}), json!({"a": deep})]
        {
            let mut document = full();
            document["args"] = args;
            let input: PolicyInput = serde_json::from_value(document).unwrap();
            assert_eq!(input.prepare().map(|_| ()), Err(InputTooLarge));
        }
    }
}
