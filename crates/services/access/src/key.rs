//! API keys: `key_<id>.<secret>`.

use crate::principal::PrincipalDoc;
use act::{Auth, Call, Draw as _, Fault, Method, Plan, Route, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::{Id, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range};

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyDoc {
    /// `key_…`, the part before the dot.
    pub id: Id,
    /// Whose.
    pub principal: Id,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret's text, in hexadecimal.
    pub secret_sha256: String,
    /// Strength of the proof: 1 only for the administrator's key made on the installation's own machine.
    pub level: u8,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// From when on it is refused.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

impl Document for KeyDoc {
    const KIND: &'static str = "access.key";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("principal", Key::new().text(self.principal.as_str()).integer(self.created_at_ms).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("id", Key::new().text(self.id.as_str()).bytes())]
    }
}

/// Arguments of `access.key.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Whose key it shall be.
    pub principal: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret's text in lower-case hexadecimal. The secret itself stays with whoever made it.
    pub secret_sha256: String,
    /// From when on it is refused, milliseconds UTC.
    pub expires_at_ms: Option<i64>,
}

/// Arguments of `access.key.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The key's id.
    pub key: String,
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "access.key.create",
            summary: "Registers an API key for a principal",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.key"],
            facts: &["access.key.created"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    let id = Id::parse(&args.principal).map_err(|_| Fault::not_found("principal"))?;
                    let owner =
                        view.get::<PrincipalDoc>(&id).await?.ok_or_else(|| Fault::not_found("principal"))?;
                    let mut target = Target::of(PrincipalDoc::KIND, &id);
                    target.attributes = json!({"own": id == ctx.principal.id, "roles": owner.roles});
                    target.preview = vec![("Key for".into(), owner.name.clone()), ("Name".into(), args.name)];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Create = parse(args)?;
                    crate::principal::name_check(&args.name)?;
                    if hex::decode32(&args.secret_sha256).is_none() {
                        return Err(Fault::invalid(
                            "request.invalid",
                            "secret_sha256 is 64 lower-case hexadecimal digits",
                        ));
                    }
                    let principal = Id::parse(&args.principal).map_err(|_| Fault::not_found("principal"))?;
                    view.get::<PrincipalDoc>(&principal)
                        .await?
                        .ok_or_else(|| Fault::not_found("principal"))?;
                    let doc = KeyDoc {
                        id: stamp.id("key"),
                        principal: principal.clone(),
                        name: args.name,
                        secret_sha256: args.secret_sha256,
                        level: 0,
                        created_at_ms: stamp.at_ms,
                        expires_at_ms: args.expires_at_ms,
                        revoked_at_ms: None,
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"key": doc.id}) };
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "access.key.created",
                        &principal,
                        (KeyDoc::KIND, &doc.id),
                        json!({"principal": principal, "expires_at_ms": doc.expires_at_ms}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.key.revoke",
            summary: "Revokes an API key",
            args: || schemars::schema_for!(Revoke).into(),
            writes: &["access.key"],
            facts: &["access.key.revoked"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Revoke = parse(args)?;
                    let id = Id::parse(&args.key).map_err(|_| Fault::not_found("key"))?;
                    let doc = view.get::<KeyDoc>(&id).await?.ok_or_else(|| Fault::not_found("key"))?;
                    let mut target = Target::of(KeyDoc::KIND, &id);
                    target.attributes = json!({"own": doc.principal == ctx.principal.id});
                    target.preview = vec![("Revoke key".into(), doc.name.clone())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Revoke = parse(args)?;
                    let id = Id::parse(&args.key).map_err(|_| Fault::not_found("key"))?;
                    let stored = view.get::<KeyDoc>(&id).await?.ok_or_else(|| Fault::not_found("key"))?;
                    if stored.revoked_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the key is already revoked"));
                    }
                    let doc = KeyDoc { revoked_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"key": id, "revoked_at_ms": stamp.at_ms}),
                    };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "access.key.revoked",
                        &doc.principal,
                        (KeyDoc::KIND, &id),
                        json!({"principal": doc.principal}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(doc: &KeyDoc) -> Value {
    json!({
        "id": doc.id, "principal": doc.principal, "name": doc.name, "created_at_ms": doc.created_at_ms,
        "expires_at_ms": doc.expires_at_ms, "revoked_at_ms": doc.revoked_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::Post,
            path: "/v1/keys",
            operation: "key_create",
            summary: "Register an API key",
            auth: Auth::Principal,
            call: Call::Verb("access.key.create"),
            query: &[],
        },
        Route {
            method: Method::Post,
            path: "/v1/keys/{key}/revoke",
            operation: "key_revoke",
            summary: "Revoke an API key",
            auth: Auth::Principal,
            call: Call::Verb("access.key.revoke"),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/keys",
            operation: "key_list",
            summary: "List the tenant's API keys by principal",
            auth: Auth::Principal,
            call: Call::Query(
                "access.key.read",
                Arc::new(|query| {
                    async move {
                        let found = query.view.list::<KeyDoc>(Range::of("principal", Vec::new())).await?;
                        Ok(json!({"items": found.iter().map(|found| shown(&found.stored)).collect::<Vec<_>>()}))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
    ]
}
