//! Abuse, generated from the table: foreign ids, foreign members, tricks with paths, errors that talk too much.

use crate::acts::{EXAMPLES, carry_out, route_of, split};
use crate::support::{Answer, World};
use act::{Auth, Call};
use serde_json::{Value, json};
use server::openapi::path_params;

/// Everything in a problem but the id of its request.
fn without_id(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    (answer.status, body)
}

/// B1: what belongs to another tenant is answered exactly like what does not exist.
#[tokio::test]
async fn b01_b03_the_ids_of_another_tenant_do_not_exist() {
    let world = World::start().await;
    let other = world.second_tenant().await;
    let (_, stranger) = world.principal_in(&other, "foreign admin", &["tenant_admin"]).await;
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        let names = path_params(route.path);
        if names.is_empty() || route.auth != Auth::Principal {
            continue;
        }
        // Ids of the first tenant that really exist: from the examples of acts whose routes have the same parameter.
        for (act, prepare) in EXAMPLES {
            let Some(row) = route_of(&world, act) else { continue };
            if path_params(row.path) != names {
                continue;
            }
            let example = prepare(&world).await;
            let (_, body) = split(row.path, &example.args);
            let ask = |id: &str| {
                let path = names
                    .iter()
                    .fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), id));
                let ask = world.ask(route.method, &path).key(&stranger);
                match route.call {
                    Call::Verb(_) => ask.json(&if matches!(route.call, Call::Verb(name) if name == *act) {
                        body.clone()
                    } else {
                        json!({})
                    }),
                    _ => ask,
                }
            };
            let id = example.args[names[0]].as_str().unwrap();
            let foreign = ask(id).send().await;
            let mut absent = id.to_owned();
            absent.pop();
            absent.push(if id.ends_with('0') { '1' } else { '0' });
            let nothing = ask(&absent).send().await;
            let same_act = matches!(route.call, Call::Verb(name) if name == *act);
            if same_act || matches!(route.call, Call::Query(..)) {
                assert_eq!(foreign.status, 404, "{} {act}: {}", route.path, foreign.text());
            }
            assert_eq!(without_id(&foreign), without_id(&nothing), "{} {act}", route.path);
        }
    }
    world.running.shutdown().await;
}

/// B2: naming another tenant is refused, whether it exists or not.
#[tokio::test]
async fn b02_another_tenant_cannot_be_named() {
    let world = World::start().await;
    let other = world.second_tenant().await;
    let (_, stranger) = world.principal_in(&other, "foreign admin", &["tenant_admin"]).await;
    let named = |tenant: &str| {
        world.ask(act::Method::Get, "/v1/principals").key(&stranger).header("Writ-Tenant", tenant)
    };
    named(other.as_str()).send().await.ok();
    let existing = named(world.tenant().as_str()).send().await;
    existing.refused(403, "access.tenant_denied");
    assert_eq!(without_id(&existing), without_id(&named("ten_nowhere").send().await));
    named("ten_platform").send().await.refused(403, "access.tenant_denied");
    named("not a tenant").send().await.refused(400, "edge.header_refused");
    named(other.as_str())
        .header("Writ-Tenant", other.as_str())
        .send()
        .await
        .refused(400, "edge.header_refused");
    // A platform administrator may name a tenant, not one that does not exist.
    let admin = |tenant: &str| {
        world.ask(act::Method::Get, "/v1/principals").key(&world.admin).header("Writ-Tenant", tenant)
    };
    admin(other.as_str()).send().await.ok();
    admin("ten_nowhere").send().await.refused(403, "access.tenant_denied");
    world.running.shutdown().await;
}

/// B13: a member that a verb does not know is refused, and nothing is done.
#[tokio::test]
async fn b13_no_verb_takes_a_member_that_it_does_not_know() {
    let world = World::start().await;
    for (act, prepare) in EXAMPLES {
        if route_of(&world, act).is_none() {
            continue;
        }
        for member in ["tenant_id", "tenant", "is_admin", "created_by", "balance", "act"] {
            let mut example = prepare(&world).await;
            if example.args.get(member).is_some() {
                continue;
            }
            example.args[member] = json!("x");
            let before = world.size(&example.tenant).await;
            let answer = carry_out(&world, act, &example).send().await;
            assert_eq!(answer.status, 422, "{act} takes {member}: {}", answer.text());
            assert_eq!(answer.code(), "request.invalid", "{act} {member}");
            // Others may go on meanwhile: what counts is that nothing was stated under this act.
            let leaves = world.leaves(&example.tenant, before).await;
            assert!(leaves.iter().all(|leaf| leaf["act"] != *act), "{act} did something all the same");
            // The same names in the query are refused there.
            example.args.as_object_mut().unwrap().remove(member);
            let route = route_of(&world, act).unwrap();
            let (path, body) = split(route.path, &example.args);
            let ask = world.ask(route.method, &format!("{path}?{member}=x")).key(&example.key).json(&body);
            ask.header("Writ-Tenant", example.tenant.as_str())
                .send()
                .await
                .refused(400, "edge.query_refused");
            let dear = matches!(*act, "governor.approval.grant" | "governor.approval.deny")
                || act.starts_with("notify.card.")
                || act.starts_with("notify.webhook")
                || act.starts_with("notify.link.");
            if member == "tenant_id" && dear {
                // Preparing these is dear, and one member is as foreign as another.
                break;
            }
        }
    }
    world.running.shutdown().await;
}

/// B15, B16: a path has one spelling and a method is what the request line says.
#[tokio::test]
async fn b15_b16_tricks_with_paths_and_methods() {
    let world = World::start().await;
    let mut paths: Vec<&str> =
        world.house().domains.iter().flat_map(|domain| &domain.routes).map(|route| route.path).collect();
    paths.dedup();
    for path in paths.into_iter().filter(|path| path.starts_with("/v1/") && !path.contains('{')) {
        let rest = &path[4..];
        for trick in [
            format!("/v1/./{rest}"),
            format!("/v1//{rest}"),
            format!("//v1/{rest}"),
            format!("/v1/x/../{rest}"),
            format!("/v1/%2e%2e/{rest}"),
            format!("/v1%2f{rest}"),
            format!("{path}/"),
            format!("{path}."),
            format!("{path};x=1"),
            format!("{path}%00"),
            format!("/v1/%6{:x}{}", rest.as_bytes()[0] & 15, &rest[1..]),
        ] {
            let answer = world.ask(act::Method::Get, &trick).key(&world.admin).send().await;
            answer.refused(400, "edge.path_refused");
        }
        let upper = world.ask(act::Method::Get, &path.to_uppercase()).key(&world.admin).send().await;
        upper.refused(404, "edge.route_unknown");
    }
    for (method, status) in
        [("TRACE", 405), ("PATCH", 405), ("OPTIONS", 405), ("DELETE", 405), ("HEAD", 200), ("get", 405)]
    {
        let answer = crate::support::Ask::new(world.running.addr, method, "/v1/principals")
            .key(&world.admin)
            .send()
            .await;
        assert_eq!(answer.status, status, "{method}");
        if status == 405 {
            assert_eq!(answer.code(), "edge.method_refused");
            let allow = answer.header("allow").unwrap().to_owned();
            assert!(
                ["GET", "HEAD", "POST"].iter().all(|name| allow.split(',').any(|other| other == *name)),
                "{allow}"
            );
        }
    }
    let post = crate::support::Ask::new(world.running.addr, "HEAD", "/v1/approvals/apr_x/grant")
        .key(&world.admin)
        .send()
        .await;
    assert_eq!(post.status, 405);
    // An override is a header like any other: not looked at.
    let answer = world
        .ask(act::Method::Get, "/v1/principals")
        .key(&world.admin)
        .header("X-HTTP-Method-Override", "POST")
        .send()
        .await;
    assert!(answer.ok()["items"].is_array());
    let absolute = crate::support::Ask::new(world.running.addr, "GET", "http://127.0.0.1/v1/principals")
        .key(&world.admin);
    absolute.send().await.refused(400, "edge.path_refused");
    world.running.shutdown().await;
}

/// Something that a caller may have put in the wrong place and that belongs to nobody else's eyes.
const CANARY: &str = "canary-4711";

/// D13: whatever goes wrong, nobody learns what is behind.
#[tokio::test]
async fn d13_errors_say_nothing_about_the_inside() {
    let world = World::start().await;
    let mut answers = vec![
        world.ask(act::Method::Get, "/v1/nothing").send().await,
        world.ask(act::Method::Get, "/v1/keys?a=%27%3B%20DROP").key(&world.admin).send().await,
        world
            .ask(act::Method::Get, "/v1/keys")
            .key("key_a'--.0123456789012345678901234567890123")
            .send()
            .await,
        world
            .admin(act::Method::Post, "/v1/keys")
            .body("application/json", b"{\"principal\":\"\xff\xfe\"}")
            .send()
            .await,
        world.admin(act::Method::Get, "/v1/approvals?limit=99999999999999999999999").send().await,
        world.admin(act::Method::Get, "/v1/approvals?status=%f0%9f%92%a9").send().await,
    ];
    for (act, prepare) in EXAMPLES {
        let Some(route) = route_of(&world, act) else { continue };
        if ["governor.approval", "notify.card", "notify.link"].iter().any(|dear| act.starts_with(dear)) {
            continue;
        }
        let example = prepare(&world).await;
        // Each member in turn of a type that it is not.
        for name in example
            .args
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| !path_params(route.path).contains(&name.as_str()))
        {
            let wrong = [json!({"a": 1}), json!(["a"]), json!(-1), json!(1e300), Value::Null];
            let canary = [json!({CANARY: CANARY}), json!([CANARY]), json!([{CANARY: [CANARY]}])];
            for wrong in wrong.into_iter().chain(canary) {
                let mut args = example.args.clone();
                args[name] = wrong;
                let (path, body) = split(route.path, &args);
                let ask = world
                    .ask(route.method, &path)
                    .key(&example.key)
                    .header("Writ-Tenant", example.tenant.as_str());
                answers.push(ask.json(&body).send().await);
            }
        }
    }
    for answer in answers {
        if answer.status < 300 {
            continue;
        }
        assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
        answer.code();
        let text = answer.text().to_lowercase();
        for inside in
            ["sqlite", "select ", "panicked", ".rs:", "/src/", "stack", "rusqlite", "/dev/shm", "/tmp"]
        {
            assert!(!text.contains(inside), "{inside}: {text}");
        }
        assert!(!text.contains(CANARY), "it repeats what was sent: {text}");
        assert_eq!(answer.header("server"), None);
    }
    world.running.shutdown().await;
}

/// E12: nothing that is sent is a file of ours. A form with files is refused by every act there is, and a text in place of
/// a file's content is that text, whatever path it looks like.
#[tokio::test]
async fn e12_no_body_makes_this_server_read_a_file() {
    let world = World::start().await;
    let file = world.folder.path().join("bait");
    std::fs::write(&file, format!("name: bait\nmanifest: {CANARY}\n")).unwrap();
    let path = file.to_str().unwrap();
    let form = format!(
        "--x\r\nContent-Disposition: form-data; name=\"yaml\"; filename=\"{path}\"\r\n\r\n{CANARY}\r\n--x--\r\n"
    );
    let routes = world.house().domains.iter().flat_map(|domain| &domain.routes);
    for route in routes.filter(|route| matches!(route.call, Call::Verb(_))) {
        let names = path_params(route.path);
        let at =
            names.iter().fold(route.path.to_owned(), |at, name| at.replace(&format!("{{{name}}}"), "run_0"));
        for content_type in ["multipart/form-data; boundary=x", "application/octet-stream", "text/uri-list"] {
            let ask = world.ask(route.method, &at).key(&world.admin).body(content_type, form.as_bytes());
            ask.send().await.refused(415, "edge.content_type_refused");
        }
    }
    // Where the content of a file is an argument, its name is not.
    let contents = ["yaml", "manifest", "bundle_base64", "public_key", "value"];
    let mut tried = 0;
    for (act, prepare) in EXAMPLES {
        let Some(route) = route_of(&world, act) else { continue };
        if ["governor.approval", "notify."].iter().any(|dear| act.starts_with(dear)) {
            continue;
        }
        let example = prepare(&world).await;
        for name in contents.iter().filter(|name| example.args.get(**name).is_some()) {
            for claimed in [
                json!(path),
                json!(format!("file://{path}")),
                json!(format!("@{path}")),
                json!(format!("!include {path}")),
                json!({"filepath": path, "originalFilename": "a.yaml", "mimetype": "text/yaml", "size": 1}),
                json!({"path": path}),
                json!([{"file": path}]),
            ] {
                let mut args = example.args.clone();
                args[*name] = claimed.clone();
                let (at, body) = split(route.path, &args);
                let ask = world.ask(route.method, &at).key(&example.key).json(&body);
                let answer = ask.header("Writ-Tenant", example.tenant.as_str()).send().await;
                assert!(!answer.text().contains(CANARY), "{act} {claimed}: {}", answer.text());
                // A secret's value may be any text; it is that text and not what lies there.
                let text_of_a_secret = *name == "value" && claimed.is_string();
                assert!(
                    text_of_a_secret || (400..500).contains(&answer.status),
                    "{act} {claimed}: {}",
                    answer.text()
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 7 * contents.len(), "each of them is an argument of some act: {tried}");
    let log = format!("{:?}", world.leaves(&world.tenant(), 0).await);
    assert!(!log.contains(CANARY));
    world.running.shutdown().await;
}
