//! Chat completions as JSON: a request out of a prompt, pieces out of chunks. Pure.

use crate::{
    llm::{Account, ChatError, Piece, Prompt, Reader, Stop, Tool, ToolCall, Turn, Usage, config::post, remote::shown},
    net::client::ApiRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Calls of one answer.
const MAX_CALLS: usize = 16;

/// The request.
pub(super) fn request(account: &Account, max_tokens_field: &str, prompt: &Prompt, model: &str) -> ApiRequest {
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(json!({ "role": "system", "content": prompt.system }));
    }
    messages.extend(prompt.turns.iter().map(message));
    let mut body = json!({
        "model": model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "messages": messages,
    });
    body[max_tokens_field] = json!(account.max_tokens);
    if let Some(schema) = &prompt.schema {
        let schema = json!({ "name": "answer", "schema": schema });
        body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
    }
    if !prompt.tools.is_empty() {
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    let key = account
        .api_key
        .as_ref()
        .map(|key| ("authorization", format!("Bearer {}", key.expose())));
    post(account, "/chat/completions", key, &body)
}

fn tool(tool: &Tool) -> Value {
    let function = json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters });
    json!({ "type": "function", "function": function })
}

fn message(turn: &Turn) -> Value {
    match turn {
        Turn::User(text) => json!({ "role": "user", "content": text }),
        Turn::Assistant { text, calls } => {
            let mut message = json!({ "role": "assistant", "content": text });
            if !calls.is_empty() {
                let call = |c: &ToolCall| {
                    let function = json!({ "name": c.name, "arguments": c.arguments.to_string() });
                    json!({ "id": c.id, "type": "function", "function": function })
                };
                message["tool_calls"] = calls.iter().map(call).collect();
            }
            message
        }
        Turn::Result { call, content } => json!({ "role": "tool", "tool_call_id": call.id, "content": content }),
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Tokens>,
    error: Option<Told>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallPart>>,
}

#[derive(Deserialize)]
struct CallPart {
    #[serde(default)]
    index: usize,
    id: Option<String>,
    function: Option<FunctionPart>,
}

#[derive(Deserialize)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    message: String,
}

/// Reads one answer.
#[derive(Default)]
pub(super) struct Stream {
    /// Id, name and arguments so far.
    calls: Vec<(String, String, String)>,
    stop: Option<Stop>,
    usage: Usage,
    ended: bool,
}

impl Stream {
    fn call(&mut self, part: CallPart) -> Result<(), ChatError> {
        if part.index >= MAX_CALLS {
            return Err(ChatError::Garbled("too many calls in one answer"));
        }
        while self.calls.len() <= part.index {
            self.calls.push(Default::default());
        }
        let (id, name, arguments) = &mut self.calls[part.index];
        id.push_str(part.id.as_deref().unwrap_or_default());
        if let Some(function) = part.function {
            name.push_str(function.name.as_deref().unwrap_or_default());
            arguments.push_str(function.arguments.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        for (id, name, arguments) in self.calls.drain(..).filter(|(_, name, _)| !name.is_empty()) {
            let arguments = if arguments.trim().is_empty() { "{}" } else { &arguments };
            let arguments =
                serde_json::from_str(arguments).map_err(|_| ChatError::Garbled("a tool's arguments are not JSON"))?;
            out.push_back(Piece::Call(ToolCall { id, name, arguments }));
        }
        let (stop, usage) = (self.stop.unwrap_or_default(), self.usage);
        out.push_back(Piece::End { stop, usage });
        Ok(())
    }
}

impl Reader for Stream {
    fn event(&mut self, data: &str, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        if data.trim() == "[DONE]" {
            return self.end(out);
        }
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|_| ChatError::Garbled("a chunk is not one of the API's"))?;
        if let Some(error) = chunk.error {
            return Err(ChatError::Unavailable(shown(&error.message)));
        }
        if let Some(tokens) = chunk.usage {
            self.usage = Usage {
                input: tokens.prompt_tokens,
                output: tokens.completion_tokens,
            };
        }
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Ok(());
        };
        let words = [choice.delta.content, choice.delta.refusal].into_iter().flatten();
        out.extend(words.filter(|w| !w.is_empty()).map(Piece::Text));
        for part in choice.delta.tool_calls.into_iter().flatten() {
            self.call(part)?;
        }
        self.stop = choice.finish_reason.map_or(self.stop, |reason| {
            Some(match reason.as_str() {
                "length" => Stop::Length,
                "tool_calls" => Stop::Calls,
                "content_filter" => Stop::Declined,
                _ => Stop::Said,
            })
        });
        Ok(())
    }

    /// Some servers leave `[DONE]` out: then a reason to finish is the end.
    fn finish(&mut self, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        match self.stop {
            Some(_) => self.end(out),
            None => Err(ChatError::Garbled("the answer broke off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::tests::{account, body, prompt, read};

    const TALK: &str = include_str!("testdata/talk.sse");
    const TOOL: &str = include_str!("testdata/tool.sse");

    #[test]
    fn a_prompt_becomes_messages_with_its_tools() {
        let request = request(&account(), "max_tokens", &prompt(), "qwen3:8b");
        assert_eq!(request.url, "http://llm.test/chat/completions");
        assert_eq!(request.headers["authorization"], "Bearer the-key");
        let body = body(&request);
        assert_eq!(
            (&body["max_tokens"], &body["max_completion_tokens"]),
            (&json!(400), &Value::Null)
        );
        assert_eq!(
            body["messages"],
            json!([
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Hello." },
                { "role": "user", "content": "My order?" },
                { "role": "assistant", "content": "One moment.", "tool_calls": [
                    { "id": "t1", "type": "function", "function": { "name": "order", "arguments": "{\"n\":7}" } },
                ] },
                { "role": "tool", "tool_call_id": "t1", "content": "shipped" },
            ])
        );
        assert_eq!(body["tools"][0]["function"]["name"], "order");
    }

    #[test]
    fn words_and_tokens_are_read_and_reasoning_is_not() {
        let usage = Usage { input: 9, output: 12 };
        let expected = [
            Piece::Text("Hello".into()),
            Piece::Text(" there.".into()),
            Piece::End {
                stop: Stop::Said,
                usage,
            },
        ];
        assert_eq!(read(Stream::default(), TALK).unwrap(), expected);
        let without_done = TALK.replace("data: [DONE]\n", "");
        assert_eq!(read(Stream::default(), &without_done).unwrap(), expected);
    }

    #[test]
    fn calls_come_in_parts_and_leave_whole() {
        let pieces = read(Stream::default(), TOOL).unwrap();
        let calls: Vec<_> = pieces
            .iter()
            .filter_map(|p| match p {
                Piece::Call(c) => Some((c.id.as_str(), c.name.as_str(), c.arguments.to_string())),
                _ => None,
            })
            .collect();
        assert_eq!(
            calls,
            [
                ("call_a", "order", "{\"n\":7}".into()),
                ("call_b", "hang_up", "{}".into())
            ]
        );
        assert!(matches!(pieces[2], Piece::End { stop: Stop::Calls, .. }));
    }

    #[test]
    fn what_breaks_off_or_runs_away_is_told() {
        let cut = TALK.split("\"finish_reason\":\"stop\"").next().unwrap();
        let cut = cut.rsplit_once("data:").unwrap().0;
        assert!(matches!(read(Stream::default(), cut), Err(ChatError::Garbled(_))));
        let many = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":4000000000}]}}]}"#;
        assert!(matches!(
            read(Stream::default(), &format!("{many}\n\n")),
            Err(ChatError::Garbled(_))
        ));
        let error = "data: {\"error\":{\"message\":\"model is loading\",\"code\":503}}\n\n";
        assert!(matches!(read(Stream::default(), error), Err(ChatError::Unavailable(_))));
    }
}
