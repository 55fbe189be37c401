//! Calls of hosted models against stand-ins that break on cue: what comes back, what is recorded, and that a provider
//! is never asked once more than the record says.

use crate::support::World;
use act::{Fault, Method};
use contracts::models::{ModelCall, ModelCalls as _, ModelReply};
use egress::{Egress, EgressConfig};
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{Compiled, KeyRecord, KeyRing};
use kernel::Id;
use models::call::Models;
use sandbox::{Credentials, Fault as Broken, FaultRule, Sandbox, Service};
use serde_json::{Value, json};
use server::config::{Anthropic, AzureOpenAi, ModelFallback, OpenAi, SecretRef};
use std::collections::BTreeMap;
use std::sync::Arc;

const OPENAI: &str = "openai/stand-in";
const AZURE: &str = "azure-openai/stand-in";
const ANTHROPIC: &str = "anthropic/stand-in";
const KEY: &str = "stand-in-model-key";
/// Patience where a stand-in hangs, in milliseconds. Nothing depends on how long it is.
const PATIENCE_MS: u64 = 300;

/// A server, the stand-ins, and callers of all three providers.
struct Scene {
    world: World,
    sandbox: Sandbox,
    whole: Models,
    streamed: Models,
}

async fn scene() -> Scene {
    let credentials = Credentials {
        user_name: "u".into(),
        password: "p".into(),
        bearer_token: "t".into(),
        model_key: KEY.into(),
        webhook_secret: "whsec_c3RhbmQtaW4tc2VjcmV0LW9mLTMyLWJ5dGVzISEhISE=".into(),
        control_token: "c".into(),
    };
    let sandbox =
        Sandbox::start(sandbox::Config::new(Arc::new(|| 1_795_232_472_123), credentials)).await.unwrap();
    let url = sandbox.base_url().to_owned();
    let world = World::start_with(|config| {
        let credential = || SecretRef::try_from("secret:models".to_owned()).unwrap();
        config.models.openai = Some(OpenAi { base_url: format!("{url}/v1"), credential: credential() });
        config.models.azure_openai = Some(AzureOpenAi {
            base_url: url.clone(),
            credential: credential(),
            api_version: Some("2024-10-21".into()),
        });
        config.models.anthropic = Some(Anthropic { base_url: url.clone(), credential: credential() });
        let pair = |to: &str| ModelFallback {
            of: OPENAI.into(),
            to: to.into(),
            accepts: vec!["stand-in-2026-11-01".into()],
        };
        config.models.fallback = vec![pair(AZURE), pair(ANTHROPIC)];
    })
    .await;
    let secret = json!({"name": "models", "purpose": "a test", "value": KEY});
    world.admin(Method::Post, "/v1/secrets").json(&secret).send().await.ok();
    let models = |stream| {
        let house = world.house();
        let mut config = (*house.config).clone();
        config.models.stream = stream;
        let egress = Egress::new(EgressConfig::new(|| 0)).unwrap();
        let mut providers =
            server::providers::providers(&config, &egress, &house.custody, &house.store).unwrap();
        for hosted in providers.hosted.values_mut() {
            hosted.limits.first_byte_ms = PATIENCE_MS;
            hosted.limits.idle_ms = PATIENCE_MS;
        }
        Models::new(house.harness.clone(), providers)
    };
    let (whole, streamed) = (models(false), models(true));
    Scene { world, sandbox, whole, streamed }
}

impl Scene {
    /// Calls a model for a run of its own.
    async fn call(&self, stream: bool, pin: &str) -> (Result<ModelReply, Fault>, Vec<Value>) {
        let harness = &self.world.house().harness;
        let run = Id::parse(&format!("run_{}", self.world.unused("call").replace(' ', ""))).unwrap();
        let ctx = harness.service("flows", &self.world.tenant(), Vec::new(), "trc_test");
        let call = ModelCall {
            key: format!("{run}:classify:0"),
            run: run.clone(),
            workflow: "triage".into(),
            project: None,
            ticket: None,
            pin: pin.into(),
            accepts: vec!["stand-in-2026-11-01".into()],
            system: "Classify the ticket.".into(),
            user: "My laptop screen is broken".into(),
            schema: json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["assignment_group", "summary"],
                "properties": {"assignment_group": {"type": "string"}, "summary": {"type": "string"}},
            }),
            allowed: BTreeMap::from([(
                "assignment_group".to_owned(),
                ["Access", "Hardware"].map(str::to_owned).into(),
            )]),
            max_output_tokens: 200,
            sensitivity: "internal".into(),
            causes: Vec::new(),
            brakes: Vec::new(),
        };
        let models = if stream { &self.streamed } else { &self.whole };
        let result = models.model_call(&ctx, call).await;
        // Whatever came of it, what the caller is told it cost is what is on its bill.
        let told = match &result {
            Ok(reply) => reply.cost,
            Err(missed) => missed.cost,
        };
        let usage = self.world.admin(Method::Get, &format!("/v1/usage?run={run}")).send().await.ok();
        let sum = |field: &str| -> i64 {
            usage["items"].as_array().unwrap().iter().map(|row| row[field].as_i64().unwrap_or_default()).sum()
        };
        assert_eq!(
            (sum("cost_micros"), sum("unmeasured_micros")),
            (told.cost_micros, told.unmeasured_micros)
        );
        let result = result.map_err(|missed| missed.fault);
        let listed = self.world.admin(Method::Get, &format!("/v1/model-calls?run={run}")).send().await.ok();
        (result, listed["items"].as_array().unwrap().clone())
    }

    /// Lets the next requests of a path fail.
    fn breaks(&self, fault: &Broken, path: &str, times: u32) {
        let rule = FaultRule::new(Service::Model, fault.clone()).path_contains(path).times(times);
        self.sandbox.fault_add(rule).unwrap();
    }

    /// Puts a policy in force that lets models stand in for others.
    fn fallbacks_allow(&self, pairs: Value) {
        let house = self.world.house();
        let (mut manifest, mut files) = platform_sources().unwrap();
        let (name, data) = files.iter().find(|(name, _)| name.ends_with("data.json")).unwrap();
        let (name, mut data) = (name.clone(), serde_json::from_slice::<Value>(data).unwrap());
        data["writ"]["config"]["model_fallbacks"] = pairs;
        files.insert(name, data.to_string().into_bytes());
        manifest.metadata.seq = 1_000;
        manifest.metadata.not_after_ms = house.harness.now_ms() + 86_400_000;
        let keyring = house.custody.keyring();
        let record = KeyRecord {
            scope: PLATFORM_SCOPE.into(),
            algorithm: Algorithm::Es256,
            key: *keyring.policy_key().verifying_key(),
        };
        let bundle = bundle_build(&manifest, &files).unwrap();
        let signed = bundle_sign(&bundle, "test", PLATFORM_SCOPE, keyring.policy_key()).unwrap();
        let keys = KeyRing::from([("test".to_owned(), record)]);
        let compiled = Compiled::new(&bundle_open(&signed, &keys, PLATFORM_SCOPE).unwrap()).unwrap();
        house.harness.governor().platform_install(compiled);
    }
}

fn told(calls: &[Value]) -> Vec<(String, String)> {
    let text = |call: &Value, field: &str| call[field].as_str().unwrap_or_default().to_owned();
    calls.iter().map(|call| (text(call, "attempt"), text(call, "status"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(attempt, status)| ((*attempt).to_owned(), (*status).to_owned())).collect()
}

/// Each fault under each dialect, whole and streamed: what the workflow hears, which calls are on record, and how often
/// the model worked.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_hosted_models() {
    let scene = scene().await;
    let expired = ["model.provider_auth"; 3];
    let rows: [(Broken, [&str; 3], u64); 12] = [
        (Broken::RateLimited { retry_after_s: 7 }, ["model.provider_rate_limited"; 3], 0),
        (
            Broken::Overloaded,
            ["model.provider_unavailable", "model.provider_unavailable", "model.provider_overloaded"],
            0,
        ),
        (Broken::ExpiredToken, expired, 0),
        (Broken::ContextExceeded, ["model.provider_context_exceeded"; 3], 0),
        (Broken::WrongModel, ["model.pin_mismatch"; 3], 1),
        (Broken::ServerErrorAfterEffect { status: 503 }, ["model.provider_unavailable"; 3], 1),
        (Broken::HangAfterEffect, ["egress.first_byte_timeout"; 3], 1),
        (Broken::DropAfterEffect, ["egress.connection_lost"; 3], 1),
        (Broken::CutReply { bytes: 200 }, ["egress.connection_lost"; 3], 1),
        (Broken::ShortStream { events: 4 }, ["model.provider_stream_cut"; 3], 1),
        (Broken::StreamStall { events: 4 }, ["egress.idle_timeout"; 3], 1),
        (
            Broken::StreamError { events: 4 },
            ["model.provider_unavailable", "model.provider_unavailable", "model.provider_overloaded"],
            1,
        ),
    ];
    for stream in [false, true] {
        for (fault, codes, works) in &rows {
            let of_stream = matches!(
                fault,
                Broken::ShortStream { .. } | Broken::StreamStall { .. } | Broken::StreamError { .. }
            );
            if of_stream && !stream {
                continue;
            }
            for (pin, code) in [OPENAI, AZURE, ANTHROPIC].into_iter().zip(codes) {
                let before = scene.sandbox.model_work().answers;
                scene.breaks(fault, "/", 1);
                let (result, calls) = scene.call(stream, pin).await;
                let fault_heard = result.expect_err("a broken call");
                let what = format!("{pin} {fault:?} streamed {stream}");
                assert_eq!(fault_heard.code, *code, "{what}");
                // The fallbacks are configured and policy allows none: whoever was asked is who failed.
                assert_eq!(told(&calls), pairs(&[("first", code)]), "{what}");
                assert_eq!(scene.sandbox.model_work().answers - before, *works, "{what}");
                if matches!(fault, Broken::RateLimited { .. }) {
                    assert_eq!(fault_heard.retry_after_ms, Some(7_000), "{what}");
                }
                scene.sandbox.faults_clear();
            }
        }
        for pin in [OPENAI, AZURE, ANTHROPIC] {
            let (result, calls) = scene.call(stream, pin).await;
            let reply = result.unwrap();
            assert_eq!(reply.body["assignment_group"], "Hardware");
            assert_eq!(reply.model, "stand-in-2026-11-01");
            assert!(reply.input_tokens > Some(50) && reply.output_tokens > Some(1), "{reply:?}");
            assert!(reply.cost.cost_micros > 0 && reply.cost.unmeasured_micros == 0);
            assert_eq!(told(&calls), pairs(&[("first", "answered")]));
        }
    }
}

/// An answer that breaks its schema is asked for once more, on record and on the bill; not twice.
#[tokio::test(flavor = "multi_thread")]
async fn one_repair_and_no_second() {
    let scene = scene().await;
    for (pin, stream) in [(OPENAI, false), (AZURE, true), (ANTHROPIC, false), (ANTHROPIC, true)] {
        let plain = scene.call(stream, pin).await.0.unwrap();
        scene.breaks(&Broken::SchemaViolation, "/", 1);
        let (result, calls) = scene.call(stream, pin).await;
        let reply = result.unwrap();
        assert_eq!(reply.body["assignment_group"], "Hardware", "{pin}");
        let [(first, broken), (repair, answered)] = told(&calls).try_into().unwrap();
        assert_eq!((first.as_str(), repair.as_str(), answered.as_str()), ("first", "repair", "answered"));
        assert!(broken == "model.schema_violation" || broken == "model.value_not_allowed", "{broken}");
        assert_ne!(calls[0]["prompt_digest"], calls[1]["prompt_digest"], "it is told what was wrong");
        assert!(reply.cost.cost_micros > plain.cost.cost_micros, "both are paid for");

        scene.sandbox.faults_clear();
        scene.breaks(&Broken::UnknownGroup, "/", 9);
        let before = scene.sandbox.model_work().answers;
        let (result, calls) = scene.call(stream, pin).await;
        assert_eq!(result.unwrap_err().code, "model.value_not_allowed");
        let refused = "model.value_not_allowed";
        assert_eq!(told(&calls), pairs(&[("first", refused), ("repair", refused)]), "{pin}");
        assert_eq!(scene.sandbox.model_work().answers - before, 2, "{pin}");
        scene.sandbox.faults_clear();
    }
}

/// Another model stands in where policy lists the pair, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_is_a_decision() {
    let scene = scene().await;
    let unavailable = "model.provider_unavailable";
    for (allowed, expected, ok) in [
        (json!({}), vec![("first", unavailable)], false),
        (json!({AZURE: [OPENAI]}), vec![("first", unavailable)], false),
        (json!({OPENAI: [ANTHROPIC]}), vec![("first", unavailable), ("fallback", "answered")], true),
        (
            json!({OPENAI: [AZURE, ANTHROPIC]}),
            vec![("first", unavailable), ("fallback", unavailable), ("fallback", "answered")],
            true,
        ),
    ] {
        scene.fallbacks_allow(allowed.clone());
        // Everything that speaks OpenAI's dialect is down.
        scene.breaks(&Broken::Overloaded, "/chat/completions", 9);
        let (result, calls) = scene.call(false, OPENAI).await;
        assert_eq!(told(&calls), pairs(&expected), "{allowed}");
        match result {
            Ok(reply) => assert!(ok && reply.body["assignment_group"] == "Hardware", "{allowed}"),
            Err(fault) => assert!(!ok && fault.code == unavailable, "{allowed}: {}", fault.code),
        }
        for call in calls.iter().skip(1) {
            assert_eq!(call["instead_of"], OPENAI, "the record says for whom");
        }
        scene.sandbox.faults_clear();
    }
    // A refusal is an answer: nobody else is asked.
    scene.breaks(&Broken::ContentFiltered, "/chat/completions", 9);
    let (result, calls) = scene.call(false, OPENAI).await;
    assert_eq!(result.unwrap_err().code, "model.provider_content_filtered");
    assert_eq!(calls.len(), 1);
}
