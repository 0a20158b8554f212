//! The Gemini API as JSON: a request out of a prompt, pieces out of partial responses. Pure.

use crate::{
    llm::{Account, ChatError, Piece, Prompt, Reader, Stop, Tool, ToolCall, Turn, Usage, config::post, remote::shown},
    net::client::ApiRequest,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// The request.
pub(super) fn request(account: &Account, thinking_budget: i32, prompt: &Prompt, model: &str) -> ApiRequest {
    let mut config = json!({ "maxOutputTokens": account.max_tokens });
    if thinking_budget >= 0 {
        config["thinkingConfig"] = json!({ "thinkingBudget": thinking_budget });
    }
    if let Some(schema) = &prompt.schema {
        config["responseMimeType"] = json!("application/json");
        config["responseJsonSchema"] = schema.clone();
    }
    let mut body = json!({ "contents": contents(&prompt.turns), "generationConfig": config });
    if !prompt.system.is_empty() {
        body["systemInstruction"] = json!({ "parts": [{ "text": prompt.system }] });
    }
    if !prompt.tools.is_empty() {
        let functions: Vec<_> = prompt.tools.iter().map(tool).collect();
        body["tools"] = json!([{ "functionDeclarations": functions }]);
    }
    let key = account
        .api_key
        .as_ref()
        .map(|key| ("x-goog-api-key", key.expose().to_owned()));
    post(
        account,
        &format!("/models/{model}:streamGenerateContent?alt=sse"),
        key,
        &body,
    )
}

/// A function without arguments has no schema.
fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name, "description": tool.description });
    if tool.parameters["properties"].as_object().is_some_and(|p| !p.is_empty()) {
        function["parametersJsonSchema"] = tool.parameters.clone();
    }
    function
}

/// Turns in parts; consecutive turns of one side are one content, and the first is the user's.
fn contents(turns: &[Turn]) -> Vec<Value> {
    let text = |text: &str| json!({ "text": text });
    let mut contents: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (role, parts) = match turn {
            Turn::User(words) => ("user", vec![text(words)]),
            Turn::Assistant { text: words, calls } => {
                let words = Some(words).filter(|w| !w.is_empty()).map(|w| text(w));
                let calls = calls.iter().map(part_of_call);
                ("model", words.into_iter().chain(calls).collect())
            }
            Turn::Result { call, content } => {
                let response = json!({ "name": call.name, "response": { "result": content } });
                ("user", vec![json!({ "functionResponse": response })])
            }
        };
        match contents.last_mut() {
            _ if parts.is_empty() => {}
            None if role == "model" => contents.extend([("user", vec![text("…")]), (role, parts)]),
            Some((last, before)) if *last == role => before.extend(parts),
            _ => contents.push((role, parts)),
        }
    }
    contents
        .into_iter()
        .map(|(role, parts)| json!({ "role": role, "parts": parts }))
        .collect()
}

/// The call as it came: its id is the signature that the model wants back with it, where it sent one.
fn part_of_call(call: &ToolCall) -> Value {
    let mut part = json!({ "functionCall": { "name": call.name, "args": call.arguments } });
    if !call.id.is_empty() {
        part["thoughtSignature"] = json!(call.id);
    }
    part
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    candidates: Vec<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Tokens>,
    error: Option<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<Call>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    args: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    #[serde(default)]
    prompt_token_count: u64,
    #[serde(default)]
    candidates_token_count: u64,
    #[serde(default)]
    thoughts_token_count: u64,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Stream {
    stop: Option<Stop>,
    called: bool,
    usage: Usage,
}

impl Reader for Stream {
    fn event(&mut self, data: &str, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        let response: Response =
            serde_json::from_str(data).map_err(|_| ChatError::Garbled("a response is not one of the API's"))?;
        if let Some(error) = response.error {
            return Err(match error.code {
                401 | 403 => ChatError::Unauthenticated,
                429 => ChatError::TooMany { retry_after: None },
                _ => ChatError::Unavailable(shown(&error.message)),
            });
        }
        if let Some(tokens) = response.usage_metadata {
            self.usage = Usage {
                input: tokens.prompt_token_count,
                output: tokens.candidates_token_count + tokens.thoughts_token_count,
            };
        }
        if response.prompt_feedback.is_some_and(|f| f.block_reason.is_some()) {
            self.stop = Some(Stop::Declined);
        }
        let Some(candidate) = response.candidates.into_iter().next() else {
            return Ok(());
        };
        for part in candidate
            .content
            .into_iter()
            .flat_map(|c| c.parts)
            .filter(|p| !p.thought)
        {
            if let Some(call) = part.function_call {
                self.called = true;
                out.push_back(Piece::Call(ToolCall {
                    id: part.thought_signature.unwrap_or_default(),
                    name: call.name,
                    arguments: Value::Object(call.args),
                }));
            } else if let Some(text) = part.text.filter(|t| !t.is_empty()) {
                out.push_back(Piece::Text(text));
            }
        }
        if let Some(reason) = candidate.finish_reason {
            self.stop = Some(match reason.as_str() {
                "STOP" | "FINISH_REASON_UNSPECIFIED" => Stop::Said,
                "MAX_TOKENS" => Stop::Length,
                _ => Stop::Declined,
            });
        }
        Ok(())
    }

    /// There is no last event: a reason to finish was the end, and the count of tokens may come with it or after.
    fn finish(&mut self, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        let stop = self.stop.ok_or(ChatError::Garbled("the answer broke off"))?;
        let stop = if self.called && stop == Stop::Said {
            Stop::Calls
        } else {
            stop
        };
        out.push_back(Piece::End {
            stop,
            usage: self.usage,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::tests::{account, body, prompt, read};

    const TALK: &str = include_str!("testdata/talk.sse");
    const TOOL: &str = include_str!("testdata/tool.sse");

    #[test]
    fn a_prompt_becomes_contents_with_its_tools() {
        let request = request(&account(), 0, &prompt(), "gemini-x");
        assert_eq!(
            request.url,
            "http://llm.test/models/gemini-x:streamGenerateContent?alt=sse"
        );
        assert_eq!(request.headers["x-goog-api-key"], "the-key");
        let body = body(&request);
        assert_eq!(
            body["contents"],
            json!([
                { "role": "user", "parts": [{ "text": "Hello." }, { "text": "My order?" }] },
                { "role": "model", "parts": [
                    { "text": "One moment." },
                    { "functionCall": { "name": "order", "args": { "n": 7 } }, "thoughtSignature": "t1" },
                ] },
                { "role": "user", "parts": [{ "functionResponse": { "name": "order", "response": { "result": "shipped" } } }] },
            ])
        );
        assert_eq!(
            body["generationConfig"],
            json!({ "maxOutputTokens": 400, "thinkingConfig": { "thinkingBudget": 0 } })
        );
        assert_eq!(body["systemInstruction"]["parts"][0]["text"], "Be brief.");
        assert_eq!(
            body["tools"],
            json!([{ "functionDeclarations": [{ "name": "order", "description": "Looks an order up." }] }])
        );
    }

    #[test]
    fn words_and_tokens_are_read_and_thoughts_are_not() {
        let usage = Usage { input: 8, output: 11 };
        assert_eq!(
            read(Stream::default(), TALK).unwrap(),
            [
                Piece::Text("Hello".into()),
                Piece::Text(" there.".into()),
                Piece::End {
                    stop: Stop::Said,
                    usage
                }
            ]
        );
    }

    #[test]
    fn a_call_and_a_refusal_are_told() {
        let pieces = read(Stream::default(), TOOL).unwrap();
        let call = ToolCall {
            id: "c2ln".into(),
            name: "order".into(),
            arguments: json!({ "n": 7 }),
        };
        assert_eq!(pieces[0], Piece::Call(call));
        assert!(matches!(pieces[1], Piece::End { stop: Stop::Calls, .. }));
        let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n";
        let pieces = read(Stream::default(), blocked).unwrap();
        assert!(matches!(
            pieces[0],
            Piece::End {
                stop: Stop::Declined,
                ..
            }
        ));
        let late = "data: {\"error\":{\"code\":429,\"message\":\"quota\",\"status\":\"RESOURCE_EXHAUSTED\"}}\n\n";
        assert_eq!(
            read(Stream::default(), late),
            Err(ChatError::TooMany { retry_after: None })
        );
        assert!(matches!(read(Stream::default(), ""), Err(ChatError::Garbled(_))));
    }
}
