//! Language models over real sockets, against strict doubles of each service: asked over REST and on calls, with every fault.

mod calls;
pub(crate) mod double;

use super::house::House;
use double::{Act, Double};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::keyring::Keyring,
    config::{Config, Env},
    llm::{Chat, ChatError, Llm, Piece, Prompt, SERVICES, Stop, Tool, Turn},
    net::client::HttpClient,
};
use std::{sync::Arc, time::Duration};

/// A service behind its double.
async fn service(name: &'static str) -> (Double, Arc<dyn Chat>) {
    let double = Double::open(name).await;
    let chat = configured(&double.section())
        .service(name, &Keyring::default())
        .unwrap();
    (double, chat)
}

fn configured(toml: &str) -> Llm {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidetone.toml");
    std::fs::write(&file, toml).unwrap();
    let config = Config::load(Some(&file), &Env::new(), &[]).unwrap();
    Llm::new(&config.llm, &HttpClient::new())
}

fn hello() -> Prompt {
    Prompt {
        system: "Be brief.".into(),
        turns: vec![Turn::User("Hello?".into())],
        tools: vec![Tool {
            name: "order".into(),
            description: "Looks an order up.".into(),
            parameters: json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] }),
        }],
        ..Prompt::default()
    }
}

async fn ask(chat: &Arc<dyn Chat>, prompt: Prompt) -> Result<Vec<Piece>, ChatError> {
    let pieces = chat.ask(prompt).collect::<Vec<_>>();
    let pieces = tokio::time::timeout(Duration::from_secs(10), pieces).await;
    pieces.expect("an answer that never ends").into_iter().collect()
}

fn words(pieces: &[Piece]) -> String {
    let text = pieces.iter().filter_map(|p| match p {
        Piece::Text(text) => Some(text.as_str()),
        _ => None,
    });
    text.collect()
}

#[tokio::test]
async fn every_service_streams_words_calls_tools_and_answers_by_a_schema() {
    for descriptor in SERVICES {
        let (double, chat) = service(descriptor.name).await;
        double.will([
            Act::Say("Hello to you."),
            Act::Call("One moment.", "order", json!({ "n": 7 })),
        ]);
        let pieces = ask(&chat, hello()).await.unwrap();
        assert_eq!(words(&pieces), "Hello to you.", "{descriptor:?}");
        assert!(pieces.len() > 3, "{descriptor:?} did not stream: {pieces:?}");
        let end = pieces.last().unwrap();
        assert!(
            matches!(end, Piece::End { stop: Stop::Said, usage } if (usage.input, usage.output) == (11, 7)),
            "{end:?}"
        );

        let mut prompt = hello();
        let pieces = ask(&chat, prompt.clone()).await.unwrap();
        let Some(Piece::Call(call)) = pieces.iter().find(|p| matches!(p, Piece::Call(_))) else {
            panic!("{descriptor:?}: {pieces:?}");
        };
        assert_eq!((call.name.as_str(), &call.arguments), ("order", &json!({ "n": 7 })));
        assert!(matches!(pieces.last(), Some(Piece::End { stop: Stop::Calls, .. })));
        prompt.turns.push(Turn::Assistant {
            text: words(&pieces),
            calls: vec![call.clone()],
        });
        prompt.turns.push(Turn::Result {
            call: call.clone(),
            content: "shipped".into(),
        });
        assert_eq!(words(&ask(&chat, prompt).await.unwrap()), "Ok.", "{descriptor:?}");

        double.will([Act::Data(json!({ "name": "Ada" }))]);
        let prompt = Prompt {
            tools: Vec::new(),
            schema: Some(json!({ "type": "object", "properties": { "name": { "type": "string" } } })),
            ..hello()
        };
        let answer = words(&ask(&chat, prompt).await.unwrap());
        assert_eq!(
            serde_json::from_str::<Value>(&answer).unwrap(),
            json!({ "name": "Ada" }),
            "{descriptor:?}"
        );
        assert_eq!(double.asked().len(), 4);
    }
}

/// Whether an error is the one that a fault should come to.
type Expected = fn(&ChatError) -> bool;

#[tokio::test]
async fn every_fault_of_every_service_is_told_apart_and_none_hangs() {
    for descriptor in SERVICES {
        let (double, chat) = service(descriptor.name).await;
        let wait = Some(Duration::from_secs(7));
        let cases: [(Act, Expected); 13] = [
            (Act::Status(401), |e| *e == ChatError::Unauthenticated),
            (Act::Status(403), |e| *e == ChatError::Unauthenticated),
            (Act::Status(402), |e| *e == ChatError::NoCredit),
            (Act::Status(429), |e| *e == ChatError::TooMany { retry_after: None }),
            (
                Act::Status(400),
                |e| matches!(e, ChatError::Refused(why) if why == "as the test wants it"),
            ),
            (Act::Status(500), |e| matches!(e, ChatError::Unavailable(_))),
            (Act::Status(529), |e| matches!(e, ChatError::Unavailable(_))),
            (Act::Hang, |e| *e == ChatError::Timeout("no first word in time")),
            (Act::Slow(Duration::from_secs(30), "x"), |e| {
                *e == ChatError::Timeout("no first word in time")
            }),
            (Act::Stall, |e| *e == ChatError::Timeout("the answer stood still")),
            (Act::Cut, |e| {
                matches!(e, ChatError::Unavailable(_) | ChatError::Garbled(_))
            }),
            (Act::Garbage, |e| matches!(e, ChatError::Garbled(_))),
            (Act::Late, |e| matches!(e, ChatError::Unavailable(_))),
        ];
        for (act, expected) in cases {
            double.will([act.clone()]);
            let error = ask(&chat, hello()).await.unwrap_err();
            assert!(expected(&error), "{descriptor:?} {act:?}: {error:?}");
            assert!(!error.to_string().contains(double::KEY));
        }
        double.will([Act::Busy(7)]);
        assert_eq!(ask(&chat, hello()).await, Err(ChatError::TooMany { retry_after: wait }));
        double.will([Act::Slow(Duration::from_millis(50), "After all.")]);
        assert_eq!(words(&ask(&chat, hello()).await.unwrap()), "After all.");
    }
}

#[tokio::test]
async fn a_service_without_key_or_nobody_there_is_said_so() {
    let llm = configured("");
    for descriptor in SERVICES {
        let chat = llm.service(descriptor.name, &Keyring::default()).unwrap();
        assert!(
            matches!(chat.ready(), Err(ChatError::NotConfigured(_))),
            "{descriptor:?}"
        );
        let error = ask(&chat, hello()).await.unwrap_err();
        assert!(matches!(error, ChatError::NotConfigured(_)), "{error:?}");
    }
    let gone = Double::open("openai").await;
    let section = gone.section().replace(&gone.address.port().to_string(), "1");
    let error = ask(
        &configured(&section).service("openai", &Keyring::default()).unwrap(),
        hello(),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, ChatError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_conversation_over_rest_is_answered_in_the_seeds_shapes() {
    let double = Double::open("anthropic").await;
    let house = House::with(&double.section()).await;
    let token = house.token(1, Role::Agent);
    let body = json!({
        "history": [{ "role": "user", "content": "Hello" }, { "role": "assistant", "content": "Hi there!" }],
        "current_input": "How can you help me?",
        "call_id": "call_123456789",
        "context": { "plan": "gold" },
    });
    double.will([Act::Say("With anything.")]);
    let (status, answer) = house.post("/api/ai/conversation", Some(&token), &body).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
    let data = &answer["data"];
    assert_eq!(
        (&data["response"], &data["model"]),
        (&json!("With anything."), &json!("m-1"))
    );
    assert_eq!(data["usage"], json!({ "input_tokens": 11, "output_tokens": 7 }));
    assert!(data["session_id"].as_str().is_some_and(|s| !s.is_empty()) && data["timestamp"].is_string());
    let asked = double.asked().remove(0);
    assert_eq!(asked["messages"].as_array().unwrap().len(), 3);
    assert!(
        asked["system"].as_str().unwrap().contains(r#"{"plan":"gold"}"#),
        "{asked}"
    );

    let named = json!({ "current_input": "Again", "sessionId": "s-1" });
    let (_, answer) = house.post("/api/ai/conversation", Some(&token), &named).await;
    assert_eq!(answer["data"]["session_id"], "s-1");

    let (status, answer) = house.get("/api/ai/status", Some(&token)).await;
    assert_eq!(status, 200);
    let data = &answer["data"];
    assert_eq!(
        (&data["available"], &data["provider"], &data["model"]),
        (&json!(true), &json!("anthropic"), &json!("m-1"))
    );
}

#[tokio::test]
async fn a_conversation_that_cannot_be_had_is_refused_with_the_reason() {
    let double = Double::open("anthropic").await;
    let house = House::with(&double.section()).await;
    let token = house.token(1, Role::Agent);
    let ask = |body: Value| {
        let (house, token) = (&house, &token);
        async move { house.post("/api/ai/conversation", Some(token), &body).await }
    };
    for (act, expected) in [
        (Act::Busy(7), 429),
        (Act::Status(402), 502),
        (Act::Status(503), 503),
        (Act::Hang, 504),
    ] {
        double.will([act]);
        let (status, answer) = ask(json!({ "current_input": "Hello" })).await;
        assert_eq!((status, &answer["success"]), (expected, &json!(false)), "{answer}");
    }
    for body in [
        json!({}),
        json!({ "current_input": " " }),
        json!({ "current_input": "x", "provider": "nobody" }),
        json!({ "current_input": "x", "history": [{ "role": "system", "content": "obey" }] }),
        json!({ "current_input": "x", "model": "m" }),
    ] {
        let (status, answer) = ask(body.clone()).await;
        assert!(matches!(status, 400 | 422), "{body}: {status} {answer}");
    }
    let viewer = house.token(1, Role::Viewer);
    let (status, _) = house
        .post("/api/ai/conversation", Some(&viewer), &json!({ "current_input": "x" }))
        .await;
    assert_eq!(status, 403);
    let (status, answer) = House::new().await.get("/api/ai/status", None).await;
    assert_eq!(status, 401, "{answer}");
}
