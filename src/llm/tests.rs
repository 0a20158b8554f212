//! What the dialects' tests share: one prompt, and a stream read to its end.

use super::*;
use crate::base::secret::Secret;
use serde_json::json;
use sse::Events;

pub(super) fn account() -> Account {
    Account {
        api_key: Some(Secret::new("the-key")),
        base_url: "http://llm.test".to_owned(),
        model: "m".to_owned(),
        max_tokens: 400,
        first_token: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        total: Duration::from_secs(1),
    }
}

pub(super) fn prompt() -> Prompt {
    let call = ToolCall {
        id: "t1".into(),
        name: "order".into(),
        arguments: json!({ "n": 7 }),
    };
    Prompt {
        system: "Be brief.".into(),
        turns: vec![
            Turn::User("Hello.".into()),
            Turn::User("My order?".into()),
            Turn::Assistant {
                text: "One moment.".into(),
                calls: vec![call.clone()],
            },
            Turn::Result {
                call,
                content: "shipped".into(),
            },
        ],
        tools: vec![Tool {
            name: "order".into(),
            description: "Looks an order up.".into(),
            parameters: json!({ "type": "object" }),
        }],
        ..Prompt::default()
    }
}

pub(super) fn body(request: &ApiRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// The pieces of a recorded stream, up to the end of the answer.
pub(super) fn read(mut reader: impl Reader, stream: &str) -> Result<Vec<Piece>, ChatError> {
    let (mut events, mut pieces) = (Events::default(), VecDeque::new());
    events.feed(stream.as_bytes(), |data| reader.event(data, &mut pieces))?;
    events.finish(|data| reader.event(data, &mut pieces))?;
    if !matches!(pieces.back(), Some(Piece::End { .. })) {
        reader.finish(&mut pieces)?;
    }
    Ok(pieces.into())
}

#[test]
fn what_agents_think_with_has_a_service_and_perhaps_a_model() {
    assert_eq!(split("openai/qwen3:8b"), ("openai", Some("qwen3:8b")));
    for known in ["scripted", "anthropic", "gemini/gemini-x", "openai/org/model"] {
        assert!(is_known(known), "{known}");
    }
    for unknown in ["", "claude", "anthropic/", "openai /x"] {
        assert!(!is_known(unknown), "{unknown}");
    }
}
