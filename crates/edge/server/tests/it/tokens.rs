//! What proves who somebody is: bearer keys, and everything that looks like one and is none.

use crate::acts::carry_out;
use crate::desk::{Desk, WEBHOOK_SECRET};
use crate::support::{Answer, World};
use act::{Auth, Call, Clock as _, Method};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use kernel::{hex, sha256};
use serde_json::{Value, json};
use store::SystemClock;
use tokio::net::TcpListener;

/// HMAC-SHA256 (RFC 2104), written out: what signs here is not what checks there.
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&sha256(key)),
    }
    let padded = |byte: u8| block.map(|other| other ^ byte).to_vec();
    sha256(&[padded(0x5c), sha256(&[padded(0x36), message.to_vec()].concat()).to_vec()].concat())
}

/// A JSON web token (RFC 7519) of this header and these claims, signed in some way.
fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64_URL.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = BASE64_URL.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// An answer without what differs from request to request.
pub fn told(answer: &Answer) -> (u16, Value, Vec<String>) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    (answer.status, body, answer.headers.iter().map(|(name, _)| name.clone()).collect())
}

impl World {
    /// A read of the first tenant with this as its bearer key.
    async fn bearing(&self, key: &str) -> Answer {
        self.ask(Method::Get, "/v1/principals")
            .key(key)
            .header("Writ-Tenant", self.tenant().as_str())
            .send()
            .await
    }

    /// Demands that each of these is told exactly what a key that nobody has is told.
    async fn unknown_each(&self, bearers: impl IntoIterator<Item = (String, String)>) {
        let nobody = self.bearing(&format!("key_nobody.{}", "0".repeat(64))).await;
        nobody.refused(401, "access.key_invalid");
        for (what, bearer) in bearers {
            let answer = self.bearing(&bearer).await;
            assert_eq!(told(&answer), told(&nobody), "{what}: {bearer}");
        }
    }

    /// The claims of a token that would be the administrator's, if there were such tokens.
    fn claims(&self) -> Value {
        let now_s = SystemClock.now_ms() / 1000;
        json!({
            "iss": self.house().config.installation, "aud": "writ", "sub": "prn_admin", "iat": now_s, "nbf": now_s,
            "exp": now_s + 600, "roles": ["platform_admin"], "tenant": self.tenant().as_str(), "typ": "access",
        })
    }
}

/// Whoever says in a token how it is to be checked is not asked: no algorithm at all, in any spelling; our public keys as
/// the secret of an HMAC; our own key as what has truly signed it; times that are none. There are no such tokens, so
/// nothing of one is read, and each is what an unknown key is.
#[tokio::test]
async fn a01_a02_a03_a_token_that_says_how_it_is_to_be_checked_is_not_asked() {
    let world = World::start().await;
    let (house, claims) = (world.house(), world.claims());
    let mut bearers = Vec::new();
    for alg in ["none", "None", "nOnE", "NONE", ""] {
        let header = json!({"alg": alg, "typ": "JWT"});
        bearers.push((format!("alg {alg}"), jwt(&header, &claims, |_| Vec::new())));
        bearers.push((
            format!("alg {alg} and no end"),
            jwt(&header, &claims, |_| Vec::new()).trim_end_matches('.').into(),
        ));
        bearers.push((format!("alg {alg}, signed"), jwt(&header, &claims, |_| vec![7; 32])));
    }
    let keyring = house.custody.keyring();
    let public = [keyring.log_key().to_bytes(), keyring.evidence_key().to_bytes()];
    for (n, public) in public.iter().enumerate() {
        for (form, secret) in [
            ("raw", public.to_vec()),
            ("hex", hex::encode(public).into()),
            ("base64", BASE64.encode(public).into()),
        ] {
            for alg in ["HS256", "hs256", "RS256", "ES256", "EdDSA"] {
                let header = json!({"alg": alg, "typ": "JWT", "kid": world.admin.split('.').next()});
                bearers.push((
                    format!("{alg} under public key {n}, {form}"),
                    jwt(&header, &claims, |text| hmac(&secret, text).to_vec()),
                ));
            }
        }
    }
    // Truly signed by a key of this installation, which signs statements and nobody's identity.
    let header = json!({"alg": "EdDSA", "typ": "JWT"});
    bearers
        .push(("by our own key".into(), jwt(&header, &claims, |text| keyring.evidence_sign(text).to_vec())));
    for times in [
        json!("9999999999"),
        json!(9_999_999_999.5),
        Value::Null,
        json!(-1),
        json!(1e300),
        json!([1]),
        json!({}),
        json!(true),
        json!(u64::MAX),
    ] {
        for name in ["exp", "nbf", "iat"] {
            let mut claims = claims.clone();
            claims[name] = times.clone();
            let signed = jwt(&header, &claims, |text| keyring.evidence_sign(text).to_vec());
            bearers.push((format!("{name} {times}"), signed));
        }
    }
    for absent in ["exp", "nbf", "iat", "aud", "iss", "sub"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(absent);
        bearers.push((
            format!("no {absent}"),
            jwt(&header, &claims, |text| keyring.evidence_sign(text).to_vec()),
        ));
    }
    // Not even well formed: nobody notices, because nobody reads it.
    let deep = "[".repeat(2_000);
    for (what, text) in [
        ("not base64", "%%%.%%%.%%%".to_owned()),
        ("deep", format!("{}.{}.", BASE64_URL.encode(&deep), BASE64_URL.encode(deep))),
    ] {
        bearers.push((what.into(), text));
    }
    world.unknown_each(bearers).await;
    world.running.shutdown().await;
}

/// A key's id is found as it stands or not at all: no path, no pattern, no address, no other spelling, with the right
/// secret behind it.
#[tokio::test]
async fn a04_a_key_is_looked_up_by_its_exact_id() {
    let world = World::start().await;
    let (id, secret) = world.admin.split_once('.').unwrap();
    let name = id.strip_prefix("key_").unwrap();
    let with = |id: String| (format!("id {}", &id[..id.len().min(60)]), format!("{id}.{secret}"));
    let ids = [
        "../../dev/null".to_owned(),
        "key_../../dev/null".into(),
        format!("key_x/../{name}"),
        format!("./{id}"),
        format!("{id}/"),
        format!("{id}%00"),
        format!("%6bey_{name}"),
        format!("{}%", &id[..id.len() - 1]),
        "key_%".into(),
        "key_*".into(),
        "key__".into(),
        "key_' OR '1'='1".into(),
        format!("{id}'--"),
        format!("{id};DROP"),
        format!("http://127.0.0.1/{id}"),
        format!("https://evil.example/keys/{id}"),
        id.to_uppercase(),
        format!("Key_{name}"),
        format!("prn_{name}"),
        format!("ten_main/{id}"),
        format!("ten_platform:{id}"),
        id[..id.len() - 1].to_owned(),
        format!("{id}0"),
        format!("key_{}", "a".repeat(10_240)),
        String::new(),
    ];
    world.unknown_each(ids.into_iter().map(with)).await;
    // And in a token's header, where it would choose the key that checks it.
    let tokens = ["../../dev/null", id, "' UNION SELECT 1--", "http://127.0.0.1:1/key"].map(|kid| {
        let token = jwt(&json!({"alg": "HS256", "kid": kid}), &world.claims(), |text| {
            hmac(secret.as_bytes(), text).to_vec()
        });
        (format!("kid {kid}"), token)
    });
    world.unknown_each(tokens).await;
    world.bearing(&world.admin).await.ok();
    world.running.shutdown().await;
}

/// A token that says where its own key is to be had. The address is one that this server may reach, and nobody comes.
#[tokio::test]
async fn a05_nothing_that_a_token_names_is_fetched() {
    let world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let public = world.house().custody.keyring().evidence_key().to_bytes();
    let own = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64_URL.encode(public)});
    let headers = [
        json!({"alg": "RS256", "jku": url, "kid": "1"}),
        json!({"alg": "RS256", "x5u": url}),
        json!({"alg": "EdDSA", "jwk": own}),
        json!({"alg": "EdDSA", "jwk": own, "jku": url, "x5u": url, "x5c": [url]}),
        json!({"alg": "RS256", "kid": url, "iss": url}),
    ];
    let tokens = headers.into_iter().map(|header| {
        let mut claims = world.claims();
        claims["iss"] = json!(url);
        let sign = |text: &[u8]| world.house().custody.keyring().evidence_sign(text).to_vec();
        (header.to_string(), jwt(&header, &claims, sign))
    });
    world.unknown_each(tokens).await;
    // Whoever had been on their way would be at the door by the time that the server has come to its end.
    world.running.shutdown().await;
    assert!(futures::poll!(std::pin::pin!(listener.accept())).is_pending(), "somebody asked {url}");
}

/// There are many things here that open something: each opens one sort of door. Every one of them is tried at every
/// other's.
#[tokio::test]
async fn a06_what_opens_one_door_opens_no_other() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    let (id, secret) = world.admin.split_once('.').unwrap();
    let signing = "canary-signing-secret-0123456789";
    let put = json!({"name": "slack-signing", "purpose": "a test", "value": signing});
    world.admin(Method::Post, "/v1/secrets").json(&put).send().await.ok();
    let connect = json!({
        "team": "T0", "app": "A0", "bot_token": "secret:slack-signing", "signing_secret": "secret:slack-signing",
        "channels": {"1": "C0"}, "base_url": "http://127.0.0.1:9",
    });
    let slack = world.admin(Method::Put, "/v1/slack").json(&connect).send().await.ok();
    let callback = slack["callback"].as_str().unwrap().to_owned();
    let (slack_hook, hook) = (callback.rsplit('/').next().unwrap(), desk.hook().rsplit('/').next().unwrap());
    let bindings = world.admin(Method::Get, "/v1/bindings?limit=1").send().await.ok();
    let cursor = bindings["next"].as_str().unwrap().to_owned();
    let webhook_key = BASE64.decode(WEBHOOK_SECRET.strip_prefix("whsec_").unwrap()).unwrap();

    // Everything else as a bearer key.
    let hash = hex::encode(&sha256(secret.as_bytes()));
    let bearers = [
        ("the hash of a key's secret", format!("{id}.{hash}")),
        ("the hash alone", hash.clone()),
        ("a secret alone", secret.to_owned()),
        ("the address of a hook", hook.to_owned()),
        ("the address of a hook for a key", format!("{hook}.{secret}")),
        ("Slack's address", slack_hook.to_owned()),
        ("a webhook's secret", WEBHOOK_SECRET.to_owned()),
        ("a webhook's secret behind a key's id", format!("{id}.{WEBHOOK_SECRET}")),
        ("a signing secret behind a key's id", format!("{id}.{signing}")),
        ("a connector's password", "canary-value-4711".to_owned()),
        ("a cursor", cursor.clone()),
        ("a reference to a secret", "secret:slack-signing".to_owned()),
        ("a signature", format!("v1,{}", BASE64.encode(hmac(&webhook_key, b"x")))),
        ("the fingerprint of a trust file", world.running.trust_fingerprint.clone()),
    ];
    world.unknown_each(bearers.map(|(what, bearer)| (what.to_owned(), bearer))).await;

    // A key is a Bearer key and nothing else.
    for scheme in ["Basic", "Token", "Key", "DPoP", "Slack"] {
        let ask = world
            .ask(Method::Get, "/v1/principals")
            .header("Authorization", &format!("{scheme} {}", world.admin));
        ask.send().await.refused(401, "edge.credentials_missing");
    }

    // Deliveries: by whose secret, in whose form, at whose address.
    let at = (SystemClock.now_ms() / 1000).to_string();
    let body = br#"{"event":"incident.created"}"#;
    let standard = |key: &[u8]| {
        let signed = [format!("msg_1.{at}.").as_bytes(), &body[..]].concat();
        vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", at.clone()),
            ("webhook-signature", format!("v1,{}", BASE64.encode(hmac(key, &signed)))),
        ]
    };
    let slackish = |key: &[u8]| {
        let signed = [format!("v0:{at}:").as_bytes(), &body[..]].concat();
        vec![
            ("x-slack-request-timestamp", at.clone()),
            ("x-slack-signature", format!("v0={}", hex::encode(&hmac(key, &signed)))),
        ]
    };
    let bearer = vec![("authorization", format!("Bearer {}", world.admin))];
    let (slack_there, hook_there) = (format!("/v1/slack-hooks/{hook}"), format!("/v1/hooks/{slack_hook}"));
    let before = world.size(&world.tenant()).await;
    for (what, path, headers, status, code) in [
        (
            "Slack's secret in a webhook's form",
            desk.hook(),
            standard(signing.as_bytes()),
            401,
            "hook.signature",
        ),
        (
            "a key's secret in a webhook's form",
            desk.hook(),
            standard(secret.as_bytes()),
            401,
            "hook.signature",
        ),
        (
            "the text of a webhook's secret for the secret",
            desk.hook(),
            standard(WEBHOOK_SECRET.as_bytes()),
            401,
            "hook.signature",
        ),
        ("Slack's form", desk.hook(), slackish(&webhook_key), 401, "hook.headers"),
        ("a key", desk.hook(), bearer.clone(), 401, "hook.headers"),
        ("Slack's address for a hook's", &hook_there, standard(&webhook_key), 401, "hook.unknown"),
        ("a webhook's secret in Slack's form", &callback, slackish(&webhook_key), 401, "slack.signature"),
        (
            "a webhook's form at Slack's address",
            &callback,
            standard(signing.as_bytes()),
            401,
            "slack.headers",
        ),
        ("a key at Slack's address", &callback, bearer, 401, "slack.headers"),
        (
            "a hook's address for Slack's",
            &slack_there,
            slackish(signing.as_bytes()),
            401,
            "slack.hook_unknown",
        ),
    ] {
        let ask = world.ask(Method::Post, path).body("application/json", body);
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        let answer = ask.send().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {}", answer.text());
    }

    // A code that Slack shows, a preview that people agree to, a cursor: none is another, and no key is one of them.
    let link = |code: &str| world.admin(Method::Post, "/v1/slack/links").json(&json!({"code": code}));
    let waiting = desk.waiting_write().await;
    let shown = world.admin(Method::Get, &format!("/v1/runs/{waiting}")).send().await.ok();
    let approval = shown["approval"].as_str().unwrap().to_owned();
    let preview = world.admin(Method::Get, &format!("/v1/approvals/{approval}")).send().await.ok();
    let preview = preview["preview_digest"].as_str().unwrap().to_owned();
    for token in [world.admin.as_str(), secret, &cursor, &preview, &approval, WEBHOOK_SECRET, slack_hook] {
        // Whoever holds the platform's role is no person of this tenant, and hears of that first or of the code.
        assert!([403, 422].contains(&link(token).send().await.status), "{token} is no code");
        let list = world.admin(Method::Get, &format!("/v1/runs?after={token}")).send().await;
        assert!([400, 422].contains(&list.status), "{token} is no cursor: {}", list.text());
        if token != preview {
            let grant = json!({"preview_digest": token});
            let grant = world
                .admin(Method::Post, &format!("/v1/approvals/{approval}/grant"))
                .json(&grant)
                .send()
                .await;
            assert!([403, 409, 422].contains(&grant.status), "{token} is no preview: {}", grant.text());
        }
        let path = format!("/v1/approvals/{}", token.replace(['/', '+', '=', ':'], "_"));
        if token != approval {
            assert_ne!(world.admin(Method::Get, &path).send().await.status, 200, "{token} is no approval");
        }
    }
    let shown = world.admin(Method::Get, &format!("/v1/approvals/{approval}")).send().await.ok();
    assert_eq!(shown["status"], "pending");
    assert!(world.size(&world.tenant()).await >= before);
    world.running.shutdown().await;
}

/// A secret that was rotated away is dead, whatever came after it; that somebody tries it again is on record.
#[tokio::test]
async fn a17_what_was_rotated_away_is_dead() {
    let world = World::start().await;
    let (_, key) = world.principal("rotates", &["auditor"]).await;
    let id = key.split('.').next().unwrap().to_owned();
    let secret = |n: u8| hex::encode(&sha256(&[n; 9]));
    let key_of = |n: u8| format!("{id}.{}", secret(n));
    let rotate = async |n: u8, overlap_ms: i64| {
        let body =
            json!({"secret_sha256": hex::encode(&sha256(secret(n).as_bytes())), "overlap_ms": overlap_ms});
        world.admin(Method::Post, &format!("/v1/keys/{id}/rotate")).json(&body).send().await
    };
    let reads = async |key: &str| world.ask(Method::Get, "/v1/approvals").key(key).send().await;
    reads(&key).await.ok();
    rotate(1, 0).await.ok();
    reads(&key).await.refused(401, "access.key_invalid");
    reads(&key_of(1)).await.ok();
    // In an overlap the one before goes on, and the one before that does not.
    rotate(2, 600_000).await.ok();
    reads(&key_of(1)).await.ok();
    rotate(3, 600_000).await.ok();
    for (dead, n) in [(true, 1), (false, 2), (false, 3)] {
        let answer = reads(&key_of(n)).await;
        assert_eq!(answer.status, if dead { 401 } else { 200 }, "{n}");
    }
    // Going on with the old one ends nothing and extends nothing; an overlap of nothing ends it for good.
    rotate(4, 0).await.ok();
    let before = world.size(&kernel::TenantId::platform()).await;
    for n in [0, 1, 2, 3] {
        reads(&key_of(n)).await.refused(401, "access.key_invalid");
    }
    reads(&key_of(4)).await.ok();
    // The secret that is in force is not one to rotate to; an old one gives nobody back what it was.
    rotate(4, 0).await.refused(409, "request.state");
    world.admin(Method::Post, &format!("/v1/keys/{id}/revoke")).json(&json!({})).send().await.ok();
    for n in 0..=4 {
        reads(&key_of(n)).await.refused(401, "access.key_invalid");
    }
    rotate(5, 0).await.refused(409, "request.state");
    server::rounds::refused(world.house().clone()).await;
    let leaves = world.leaves(&kernel::TenantId::platform(), before).await;
    let counted =
        leaves.iter().find(|leaf| leaf["outcome"]["code"] == "access.key_invalid").expect("it is on record");
    assert!(counted["outcome"]["count"].as_i64().unwrap() >= 9, "{counted}");
    world.running.shutdown().await;
}

/// Nothing that a browser would send along by itself means anything: no route takes a cookie for a key, none answers
/// otherwise for one, and none sets one.
#[tokio::test]
async fn a18_no_route_takes_a_session_from_outside_or_gives_one_out() {
    let world = World::start().await;
    let cookies = [
        format!("session={0}; __Host-session={0}; key={0}; Authorization=Bearer%20{0}", world.admin),
        "session=chosen-by-somebody-else".to_owned(),
    ];
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        let names = server::openapi::path_params(route.path);
        let path = names
            .iter()
            .fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), "run_0"));
        let ask = || {
            let ask = world.ask(route.method, &path);
            if route.method == Method::Get { ask } else { ask.json(&json!({})) }
        };
        let without = ask().send().await;
        for cookie in &cookies {
            let with = ask().header("Cookie", cookie).header("X-Session", cookie).send().await;
            assert_eq!(with.status, without.status, "{}", route.path);
            if with.status >= 400 {
                assert_eq!(told(&with), told(&without), "{}", route.path);
            }
            assert!(route.auth != Auth::Principal || with.status == 401, "{}: {}", route.path, with.text());
            let known = match route.call {
                // A stream does not end by itself.
                Call::Stream(..) => continue,
                _ => ask().key(&world.admin).header("Cookie", cookie).send().await,
            };
            for answer in [&without, &with, &known] {
                assert_eq!(answer.header("set-cookie"), None, "{}", route.path);
            }
        }
    }
    world.running.shutdown().await;
}

/// What is said of a key that exists, of one that was revoked, of somebody who is suspended, and of nobody, is one thing.
#[tokio::test]
async fn a19_whether_somebody_exists_cannot_be_heard() {
    let world = World::start().await;
    let (_, revoked) = world.principal("revoked", &["auditor"]).await;
    let revoke = format!("/v1/keys/{}/revoke", revoked.split('.').next().unwrap());
    world.admin(Method::Post, &revoke).json(&json!({})).send().await.ok();
    let (suspended_id, suspended) = world.principal("suspended", &["auditor"]).await;
    let suspend = format!("/v1/principals/{suspended_id}/suspend");
    world.admin(Method::Post, &suspend).json(&json!({})).send().await.ok();
    let (_, known) = world.principal("known", &["auditor"]).await;
    let wrong = |key: &str| format!("{}.{}", key.split('.').next().unwrap(), "f".repeat(64));
    let mut bearers = vec![
        ("revoked, with its secret".to_owned(), revoked.clone()),
        ("suspended, with its secret".to_owned(), suspended.clone()),
    ];
    for (what, key) in
        [("revoked", &revoked), ("suspended", &suspended), ("known", &known), ("the first", &world.admin)]
    {
        bearers.push((format!("{what}, with another secret"), wrong(key)));
    }
    world.unknown_each(bearers).await;
    // The same at an act, and where a tenant is named that there is or is not.
    let act = |key: &str, tenant: &str| {
        world.ask(Method::Post, "/v1/keys").key(key).header("Writ-Tenant", tenant).json(&json!({"name": "x"}))
    };
    let nobody = format!("key_nobody.{}", "f".repeat(64));
    let expected = told(&act(&nobody, "ten_nowhere").send().await);
    for tenant in [world.tenant().as_str(), "ten_platform", "ten_nowhere"] {
        for key in [&nobody, &wrong(&known), &wrong(&world.admin), &revoked] {
            assert_eq!(told(&act(key, tenant).send().await), expected, "{tenant}");
        }
    }
    world.running.shutdown().await;
}

/// A name is what a thing is found by, so there is one spelling of each. What only looks like a name that is taken, or like
/// a role that is built in, is no name at all.
#[tokio::test]
async fn a09_a_name_that_only_looks_like_another_is_refused() {
    let world = World::start().await;
    let looks_like = |name: &str| {
        let mut chars = name.chars();
        let first = chars.next().unwrap();
        let rest: String = chars.collect();
        vec![
            name.to_uppercase(),
            format!("{}{rest}", first.to_ascii_uppercase()),
            format!(" {name}"),
            format!("{name} "),
            format!("{name}\t"),
            format!("{name}\u{200b}"),
            format!("\u{feff}{name}"),
            format!("{first}\u{ad}{rest}"),
            format!("{name}\u{202e}"),
            format!("{first}\u{301}{rest}"),
            // Full width, and a Cyrillic letter.
            format!("{}{rest}", char::from_u32(u32::from(first) - 0x61 + 0xff41).unwrap()),
            name.replace('e', "\u{435}").replace('a', "\u{430}"),
            format!("{name}."),
            format!("{name}/"),
            format!("{name}%20"),
        ]
    };
    let roles = "access.role.create";
    for (act, kind, args) in [
        (roles, "role", json!({"acts": ["flows.run.start"]})),
        ("access.workspace.create", "workspace", json!({"environment": "staging"})),
        (
            "flows.connector.install",
            "connector",
            json!({
                "manifest": include_str!("../../../../../contracts/connectors/http.yaml"), "base_url": "https://api.example",
            }),
        ),
    ] {
        let named = |name: &str| {
            let mut args = args.clone();
            args["name"] = json!(name);
            carry_out(&world, act, &crate::acts::by_admin(&world, args))
        };
        named("desk-lead").send().await.ok();
        for name in looks_like("desk-lead") {
            let answer = named(&name).send().await;
            assert!(
                [400, 409, 422].contains(&answer.status),
                "{kind} {name:?}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    // A workflow's name stands in its text.
    for name in looks_like("desk-lead") {
        let yaml = include_str!("../../../../../contracts/workflows/three-steps.yaml");
        let yaml = yaml.replace("name: three-steps", &format!("name: {}", json!(name)));
        let publish = world.admin(Method::Post, "/v1/workflows").json(&json!({"yaml": yaml})).send().await;
        assert_eq!(publish.status, 422, "workflow {name:?}: {}", publish.text());
    }
    // A built-in role is neither made again nor meant by what looks like it.
    let (principal, _) = world.principal("somebody", &[]).await;
    for role in [
        "tenant_admin",
        "auditor",
        "operator",
        "builder",
        "approver",
        "integration",
        "platform_admin",
        "service",
    ] {
        let own = json!({"name": role, "acts": ["flows.run.start"]});
        let own = carry_out(&world, roles, &crate::acts::by_admin(&world, own)).send().await;
        assert!([409, 422].contains(&own.status), "{role}: {} {}", own.status, own.text());
        for name in looks_like(role) {
            let bind = json!({"principal": principal, "role": name});
            let bind = world.admin(Method::Post, "/v1/bindings").json(&bind).send().await;
            assert!([400, 422].contains(&bind.status), "{name:?}: {} {}", bind.status, bind.text());
        }
    }
    world.running.shutdown().await;
}

/// The first start makes the one key there is without anybody's leave; afterwards there is no way to have it made again.
/// Whatever sets up, rekeys or resets is no route, or one that asks for a key.
#[tokio::test]
async fn h10_nothing_is_set_up_or_rekeyed_without_a_key() {
    let world = World::start().await;
    let key_file = world.folder.path().join("data/admin.key");
    let before = std::fs::read(&key_file).unwrap();
    for word in [
        "init",
        "setup",
        "bootstrap",
        "rekey",
        "rekey/init",
        "unseal",
        "seal",
        "reset",
        "rotate",
        "recover",
        "generate-root",
        "admin",
        "keys/admin",
        "install",
        "debug",
        "restart",
        "shutdown",
        "policy/reset",
        "sys/init",
        "sys/rekey/cancel",
    ] {
        for path in [format!("/{word}"), format!("/v1/{word}"), format!("/v1/sys/{word}")] {
            for method in [Method::Get, Method::Post, Method::Put, Method::Delete] {
                let answer = world.ask(method, &path).send().await;
                assert!(
                    [401, 404, 405].contains(&answer.status),
                    "{path}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    }
    // Every act there is, by whoever brings no key, a made-up one, or the file's name for it.
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        if !matches!(route.call, Call::Verb(_)) {
            continue;
        }
        let path = server::openapi::path_params(route.path)
            .iter()
            .fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), "key_admin"));
        for key in ["", "admin", "admin.key", "key_admin.", "null"] {
            let ask = world.ask(route.method, &path).json(&json!({"admin": true, "first_start": true}));
            assert_eq!(ask.key(key).send().await.status, 401, "{path}");
        }
    }
    assert_eq!(std::fs::read(&key_file).unwrap(), before);
    let world = world.restart().await;
    assert_eq!((std::fs::read(&key_file).unwrap(), world.running.admin_key.clone()), (before, None));
    world.bearing(&world.admin).await.ok();
    world.running.shutdown().await;
}
