//! What a run may cost: however many branches ask at once, exactly as many calls are made as fit; and what is held for a
//! call is never less than it can come to.

use crate::money::{CALL, House, publish, run};
use act::{Class, Fault};
use billing::price::{ModelPrice, Tokens};
use contracts::models::{Brake, Cost, ModelCall, ModelCalls as _, ModelFault, ModelReply};
use models::call::{PROVIDER_TOKENS, input_tokens_max};
use models::contract::{Ask, Pin};
use models::dialect::Dialect;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Call number `n` of run 1, under these brakes.
fn asks(n: usize, brakes: &[(usize, i64)]) -> ModelCall {
    let brakes =
        brakes.iter().map(|(of, most_micros)| Brake { run: run(*of), most_micros: *most_micros }).collect();
    ModelCall { key: format!("run_1:ask{n}:0"), brakes, ..House::asks(1, "triage", None) }
}

fn stopped(result: &Result<ModelReply, ModelFault>) -> bool {
    matches!(result, Err(missed) if missed.fault.code == "billing.run_limit" && missed.fault.class == Class::Denied
        && missed.cost == Cost::default())
}

async fn spent(house: &House, of: usize) -> i64 {
    let account = kernel::Id::parse(&format!("acc_run.{of}.usd")).unwrap();
    house.spent(&account).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i08_of_64_calls_of_one_run_exactly_as_many_are_made_as_it_may_cost() {
    for fits in [0usize, 1, 10, 63, 64] {
        let house = Arc::new(House::new().await);
        // A millionth short of one more.
        let most_micros = CALL * fits as i64 + CALL - 1;
        let tasks = (0..64).map(|n| {
            let house = house.clone();
            async move {
                house.models.model_call(&house.service(&house.tenant), asks(n, &[(1, most_micros)])).await
            }
        });
        let results = tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
        let paid: Vec<Cost> = results.iter().flatten().map(|reply| reply.cost).collect();
        assert_eq!(paid, vec![Cost { cost_micros: CALL, unmeasured_micros: 0 }; fits]);
        assert!(results.iter().all(|result| result.is_ok() || stopped(result)), "{results:?}");
        if fits > 0 {
            assert_eq!(spent(&house, 1).await, CALL * fits as i64);
        }
        assert_eq!(house.facts("models.call.intended").await.len(), fits);
        // It is the run's own limit: no budget has run out.
        assert_eq!(house.facts("billing.budget.exhausted").await.len(), 0);
        house.balanced().await;
    }
}

#[tokio::test]
async fn a_call_is_held_against_every_run_around_it_and_a_budget_says_so_first() {
    let house = House::new().await;
    let ask = async |n, brakes: &[(usize, i64)]| {
        house.models.model_call(&house.service(&house.tenant), asks(n, brakes)).await
    };
    ask(1, &[(1, 3 * CALL), (2, CALL)]).await.unwrap();
    assert!(stopped(&ask(2, &[(1, 3 * CALL), (2, CALL)]).await), "the inner one is used up");
    ask(3, &[(1, 3 * CALL), (3, CALL)]).await.unwrap();
    ask(4, &[(1, 3 * CALL)]).await.unwrap();
    let refused = ask(5, &[(1, 3 * CALL)]).await.unwrap_err().fault;
    let details: Value = *refused.details.unwrap();
    assert_eq!(details, json!({"run": "run_1", "needed": CALL, "available": 0}));
    assert_eq!(
        (spent(&house, 1).await, spent(&house, 2).await, spent(&house, 3).await),
        (3 * CALL, CALL, CALL)
    );
    // A run whose workflow has no limit is held to none, and one that may cost nothing asks nobody.
    ask(6, &[]).await.unwrap();
    assert!(stopped(&ask(7, &[(4, 0)]).await));
    house.budget(json!({"level": "tenant", "amount": 1, "period": "month"})).await;
    assert_eq!(ask(8, &[(5, 0)]).await.unwrap_err().fault.code, "budget.exhausted");
    house.balanced().await;
}

#[tokio::test]
async fn what_was_paid_for_calls_that_got_lost_is_part_of_the_cost() {
    let house = House::new().await;
    // Answered and paid for, and the process died before anybody could use it: the same question is asked again.
    for n in 1..=3 {
        let service = house.service(&house.tenant);
        let reply = house.models.model_call(&service, asks(1, &[(1, 10 * CALL)])).await;
        assert_eq!(reply.unwrap().cost, Cost { cost_micros: n * CALL, unmeasured_micros: 0 });
    }
    // One of which nobody knows what came: it may have cost all that was held.
    let house = House::new().await;
    house.intended_as(&asks(1, &[])).await;
    let reply = house.models.model_call(&house.service(&house.tenant), asks(1, &[])).await.unwrap();
    assert_eq!(reply.cost, Cost { cost_micros: CALL, unmeasured_micros: CALL });
    let listed = house.shown("model_call_list", &[("run", "run_1")]).await.unwrap();
    let costs: Vec<(&Value, &Value)> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (&call["status"], &call["cost_micros"]))
        .collect();
    assert_eq!(costs, [(&json!("intended"), &json!(0)), (&json!("answered"), &json!(CALL))]);
}

#[tokio::test]
async fn a_price_that_changes_between_two_calls_of_a_run_counts_from_the_next_one_on() {
    let house = House::new().await;
    let ask =
        async |n| house.models.model_call(&house.service(&house.tenant), asks(n, &[(1, 10 * CALL)])).await;
    assert_eq!(ask(1).await.unwrap().cost.cost_micros, CALL);
    publish(&house, "dearer", "USD", 8 * CALL, None).await.unwrap();
    assert_eq!(ask(2).await.unwrap().cost.cost_micros, 8 * CALL);
    assert!(stopped(&ask(3).await), "one of the old ones would have fitted");
    publish(&house, "cheaper", "USD", CALL / 2, None).await.unwrap();
    assert_eq!(ask(4).await.unwrap().cost.cost_micros, CALL / 2);
    assert_eq!(spent(&house, 1).await, 9 * CALL + CALL / 2);
    house.balanced().await;
}

#[tokio::test]
async fn calls_are_listed_by_run_or_all_of_them_page_by_page() {
    let house = House::new().await;
    for n in [1, 2, 3] {
        house.call(n).await.unwrap();
    }
    let runs = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| call["run"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = house.shown("model_call_list", &[]).await.unwrap();
    assert_eq!(
        (runs(&all), &all["next"]),
        (vec!["run_3".into(), "run_2".into(), "run_1".into()], &Value::Null)
    );
    let first = house.shown("model_call_list", &[("limit", "2")]).await.unwrap();
    let after = first["next"].as_str().unwrap();
    let second = house.shown("model_call_list", &[("limit", "2"), ("after", after)]).await.unwrap();
    assert_eq!((runs(&first), runs(&second)), (vec!["run_3".into(), "run_2".into()], vec!["run_1".into()]));
    let one = house.shown("model_call_list", &[("run", "run_2")]).await.unwrap();
    assert_eq!(runs(&one), ["run_2"]);
    let foreign = house.shown("model_call_list", &[("run", "run_1"), ("after", after)]).await;
    assert_eq!(foreign.unwrap_err().code, "request.invalid", "a cursor of another list");
    let bad: Result<Value, Fault> = house.shown("model_call_list", &[("run", "no id")]).await;
    assert!(bad.is_err());
}

/// Bytes of every text in a document, names of members among them.
fn texts(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(texts).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + texts(value)).sum(),
        other => other.to_string().len(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A provider may count a token for every byte that it is sent, whichever bucket it puts it into and whatever it adds by
    /// itself: the bill is not above what was held.
    #[test]
    fn a_hold_is_never_smaller_than_the_cost(
        system in "\\PC{0,200}",
        user in "(?s).{0,600}",
        values in proptest::collection::vec("\\PC{1,40}", 1..20),
        describes in "(?s).{0,200}",
        prices in proptest::array::uniform5(0i64..2_000_000_000),
        output in 1u32..65_536,
        shares in proptest::array::uniform3(0u64..=100),
    ) {
        let ask = Ask {
            model: Pin::exact("m"),
            system,
            user,
            schema: json!({"type": "object", "properties": {"group": {"type": "string", "description": describes}}}),
            allowed: BTreeMap::from([("group".to_owned(), values)]),
            max_output_tokens: output,
            temperature_milli: 0,
        };
        let price = ModelPrice {
            model: "p/m".into(),
            note: None,
            input_micros_per_million: prices[0],
            cached_input_micros_per_million: prices[1],
            cache_write_micros_per_million: prices[2],
            output_micros_per_million: prices[3],
            call_micros: prices[4] / 1_000,
        };
        let versioned = Dialect::AzureOpenAi { api_version: Some("2024-10-21".into()) };
        for dialect in [Dialect::OpenAi, versioned, Dialect::AzureOpenAi { api_version: None }, Dialect::Anthropic] {
            for stream in [false, true] {
                let request = dialect.request(&ask, stream);
                let counted = texts(&request.body) as u64 + PROVIDER_TOKENS;
                let cached = counted * shares[0] / 200;
                let written = counted * shares[1] / 200;
                let tokens = Tokens {
                    input: counted - cached - written,
                    cached_input: cached,
                    cache_write: written,
                    output: u64::from(output) * shares[2] / 100,
                };
                let held = price.most(input_tokens_max(request.bytes()), u64::from(output)).unwrap();
                let cost = price.rate(&tokens).unwrap();
                prop_assert!(cost <= held, "{dialect:?}: {cost} of {held}");
            }
        }
    }
}
