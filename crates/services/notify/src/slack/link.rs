//! Links: which Slack user is which principal.
//!
//! A Slack profile says a name and a mail address, and whoever administers the workspace can make it say any other. So
//! neither is looked at. A link is made from both sides: Slack gives a one-time code to the user (an answer to their own
//! click, which only they see), and the principal brings that code with their own API key. Each side proves itself the way
//! it always does, and the fact names both.
//!
//! A code is 50 random bits, holds for ten minutes, is kept as a hash only, and the next one for the same user replaces it.
//! Policy limits how often somebody may try (`throttles`).

use act::{Class, Coded, Draw as _, Fault, Plan, PrincipalKind, Route, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::changeset::Operation;
use kernel::{Id, TenantId, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Document;
use store::key::Key;

/// How long a code holds, milliseconds.
pub const CODE_MS: i64 = 10 * 60 * 1000;
/// Crockford's alphabet: no letter that is read as a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_CHARS: usize = 10;

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// `lnk_…`
    pub id: Id,
    /// The workspace.
    pub team: String,
    /// The Slack user.
    pub user: String,
    /// Who that is.
    pub principal: Id,
    /// When it was made, milliseconds UTC.
    pub created_at_ms: i64,
}

impl Document for Link {
    const KIND: &'static str = "notify.link";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("principal", Key::new().text(self.principal.as_str()).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("user", user_key(&self.team, &self.user))]
    }
}

/// The unique key of a Slack user. The workspace is part of it: users of two workspaces may have one id.
pub fn user_key(team: &str, user: &str) -> Vec<u8> {
    Key::new().text(team).text(user).bytes()
}

/// A code that was given to a Slack user, without the code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkCode {
    /// `lkc_<team>-<user>` in lower case: one per user.
    pub id: Id,
    /// The workspace.
    pub team: String,
    /// The Slack user.
    pub user: String,
    /// Hash of tenant and code.
    pub digest: String,
    /// Until when it holds.
    pub expires_at_ms: i64,
}

impl Document for LinkCode {
    const KIND: &'static str = "notify.link_code";
    fn id(&self) -> &Id {
        &self.id
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("digest", Key::new().text(&self.digest).bytes())]
    }
}

/// The id of a user's code; `None` if Slack's ids make no id.
pub fn code_id(team: &str, user: &str) -> Option<Id> {
    Id::parse(&format!("lkc_{}-{}", team.to_lowercase(), user.to_lowercase())).ok()
}

/// A code from random bytes: `XXXXX-XXXXX`.
pub fn code(entropy: &[u8; 32]) -> String {
    let mut text: String =
        entropy[..CODE_CHARS].iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    text.insert(CODE_CHARS / 2, '-');
    text
}

/// The hash under which a code is kept: of the tenant and the code as people may type it.
pub fn code_digest(tenant: &TenantId, text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        })
        .collect();
    hex::encode(&sha256(format!("{tenant}|{plain}").as_bytes()))
}

/// Why a link is not made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The code is unknown, used or too old.
    #[error("the code is unknown, has been used, or is too old; click in Slack for another")]
    Code,
    /// There is a link already.
    #[error("the Slack user is linked already; remove that link first")]
    Linked,
    /// It is no person of this tenant.
    #[error("only a person of this tenant can be linked to a Slack user")]
    Home,
}

impl Coded for LinkError {
    fn code(&self) -> &'static str {
        match self {
            LinkError::Code => "slack.code_invalid",
            LinkError::Linked => "slack.linked",
            LinkError::Home => "slack.link_home",
        }
    }
    fn class(&self) -> Class {
        match self {
            LinkError::Code => Class::Invalid,
            LinkError::Linked => Class::Conflict,
            LinkError::Home => Class::Denied,
        }
    }
}

/// Arguments of `notify.link.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateArgs {
    /// The code that Slack showed you.
    #[schemars(extend("writeOnly" = true))]
    pub code: String,
}

/// Arguments of `notify.link.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveArgs {
    /// The link.
    pub link: String,
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "notify.link.create",
            summary: "Links you to the Slack user who was shown the code",
            args: || schemars::schema_for!(CreateArgs).into(),
            writes: &["notify.link", "notify.link_code"],
            facts: &["notify.link.created"],
            secret_args: &["code"],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let _: CreateArgs = parse(args)?;
                    let mut target = Target::of("access.principal", &ctx.principal.id);
                    target.attributes = json!({"own": true});
                    target.preview = vec![("Link to Slack".into(), ctx.principal.id.to_string())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: CreateArgs = parse(args)?;
                    let who = &stamp.ctx.principal;
                    if who.kind != PrincipalKind::Person || who.home != stamp.ctx.tenant {
                        return Err(LinkError::Home.into());
                    }
                    let digest = code_digest(&stamp.ctx.tenant, &args.code);
                    let found = view.find::<LinkCode>("digest", &Key::new().text(&digest).bytes()).await?;
                    let found =
                        found.filter(|found| stamp.at_ms < found.expires_at_ms).ok_or(LinkError::Code)?;
                    if view.find::<Link>("user", &user_key(&found.team, &found.user)).await?.is_some() {
                        return Err(LinkError::Linked.into());
                    }
                    let doc = Link {
                        id: stamp.id("lnk"),
                        team: found.team.clone(),
                        user: found.user.clone(),
                        principal: who.id.clone(),
                        created_at_ms: stamp.at_ms,
                    };
                    let outcome = json!({"link": doc.id, "team": doc.team, "user": doc.user});
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "notify.link.created",
                        &doc.id,
                        (Link::KIND, &doc.id),
                        json!({"team": doc.team, "user": doc.user, "principal": doc.principal}),
                    ));
                    // Used up.
                    let (kind, id, rev) = (LinkCode::KIND, found.id.clone(), found.rev);
                    plan.draft.push(Operation::Delete { kind, id, rev });
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "notify.link.remove",
            summary: "Removes a link to a Slack user",
            args: || schemars::schema_for!(RemoveArgs).into(),
            writes: &["notify.link"],
            facts: &["notify.link.removed"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: RemoveArgs = parse(args)?;
                    let doc = read(view, &args.link).await?;
                    let mut target = Target::of(Link::KIND, &doc.id);
                    target.attributes = json!({"own": doc.principal == ctx.principal.id});
                    target.preview = vec![("Remove link of".into(), doc.principal.to_string())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RemoveArgs = parse(args)?;
                    let stored = read(view, &args.link).await?;
                    let mut plan =
                        Plan { draft: stamp.draft(), outcome: json!({"link": stored.id, "removed": true}) };
                    let (kind, id, rev) = (Link::KIND, stored.id.clone(), stored.rev);
                    plan.draft.push(Operation::Delete { kind, id, rev }).fact(stamp.fact(
                        "notify.link.removed",
                        &stored.id,
                        (Link::KIND, &stored.id),
                        json!({"team": stored.team, "user": stored.user, "principal": stored.principal}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

async fn read(view: &store::View, text: &str) -> Result<store::Stored<Link>, Fault> {
    let missing = || Fault::not_found("link");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<Link>(&id).await?.ok_or_else(missing)
}

fn shown(doc: &Link) -> Value {
    json!({"id": doc.id, "principal": doc.principal, "team": doc.team, "user": doc.user, "created_at_ms": doc.created_at_ms})
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/slack/links",
            "link_create",
            "Link yourself to the Slack user who was shown the code",
            "notify.link.create",
        ),
        Route::get(
            "/v1/slack/links",
            "link_list",
            "List links between Slack users and principals",
            "notify.link.read",
            |query| async move { page::list(&query, "principal", Vec::new(), false, shown).await }.boxed(),
        )
        .taking(&page::PARAMS),
        Route::post(
            "/v1/slack/links/{link}/remove",
            "link_remove",
            "Remove a link to a Slack user",
            "notify.link.remove",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One id in two workspaces is two people, and so is one name in one.
    #[test]
    fn a08_users_of_two_workspaces_are_two() {
        let keys = [("T1", "U1"), ("T2", "U1"), ("T1", "U2"), ("T1U1", ""), ("T", "1U1"), ("", "T1U1")];
        for (n, (team, user)) in keys.iter().enumerate() {
            for (other_team, other_user) in &keys[n + 1..] {
                assert_ne!(user_key(team, user), user_key(other_team, other_user), "{team} {user}");
            }
        }
        assert_ne!(code_id("T1", "U1"), code_id("T2", "U1"));
        let (a, b) = (TenantId::parse("ten_a").unwrap(), TenantId::parse("ten_b").unwrap());
        assert_ne!(code_digest(&a, "00000-00000"), code_digest(&b, "00000-00000"));
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let tenant = TenantId::parse("ten_acme").unwrap();
        let mut entropy = [0; 32];
        entropy[..10].copy_from_slice(&[0, 1, 31, 32, 255, 17, 18, 19, 20, 21]);
        let code = code(&entropy);
        assert_eq!(code, "01Z0Z-HJKMN");
        let digest = code_digest(&tenant, &code);
        for typed in ["01Z0Z-HJKMN", "01z0z hjkmn", " oiZOz-HJKMN\n", "0LZ0ZHJKMN"] {
            assert_eq!(code_digest(&tenant, typed), digest, "{typed}");
        }
        assert_ne!(code_digest(&tenant, "01Z0Z-HJKMP"), digest);
        assert_ne!(code_digest(&TenantId::parse("ten_other").unwrap(), &code), digest);
    }
}
