//! The Messages API as JSON: a request out of a prompt, pieces out of events. Pure.
//!
//! An answer by a schema is asked for as the one tool that the model must use: its input is the answer.

use crate::{
    llm::{Account, ChatError, Piece, Prompt, Reader, Stop, Tool, ToolCall, Turn, Usage, config::post, remote::shown},
    net::client::ApiRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The tool that stands for an answer by a schema.
const ANSWER: &str = "answer";

/// The request.
pub(super) fn request(account: &Account, version: &str, prompt: &Prompt, model: &str) -> ApiRequest {
    let mut body = json!({
        "model": model,
        "max_tokens": account.max_tokens,
        "stream": true,
        "messages": messages(&prompt.turns),
    });
    if !prompt.system.is_empty() {
        body["system"] = json!(prompt.system);
    }
    if let Some(schema) = &prompt.schema {
        body["tools"] = json!([{ "name": ANSWER, "description": "The answer.", "input_schema": schema }]);
        body["tool_choice"] = json!({ "type": "tool", "name": ANSWER });
    } else if !prompt.tools.is_empty() {
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    let key = account
        .api_key
        .as_ref()
        .map(|key| ("x-api-key", key.expose().to_owned()));
    let headers = key.into_iter().chain([("anthropic-version", version.to_owned())]);
    post(account, "/v1/messages", headers, &body)
}

fn tool(tool: &Tool) -> Value {
    json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters })
}

/// Turns in blocks; consecutive turns of one side are one message, and the first is the user's.
fn messages(turns: &[Turn]) -> Vec<Value> {
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in turns {
        let (role, blocks) = match turn {
            Turn::User(text) => ("user", vec![text_block(text)]),
            Turn::Assistant { text, calls } => {
                let words = Some(text).filter(|t| !t.is_empty()).map(|t| text_block(t));
                let uses = calls
                    .iter()
                    .map(|c| json!({ "type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments }));
                ("assistant", words.into_iter().chain(uses).collect())
            }
            Turn::Result { call, content } => (
                "user",
                vec![json!({ "type": "tool_result", "tool_use_id": call.id, "content": content })],
            ),
        };
        match messages.last_mut() {
            _ if blocks.is_empty() => {}
            None if role == "assistant" => messages.extend([("user", vec![text_block("…")]), (role, blocks)]),
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => messages.push((role, blocks)),
        }
    }
    messages
        .into_iter()
        .map(|(role, content)| json!({ "role": role, "content": content }))
        .collect()
}

fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// What is read of an event.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Started,
    },
    ContentBlockStart {
        index: u32,
        content_block: Block,
    },
    ContentBlockDelta {
        index: u32,
        delta: Delta,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: Ended,
        #[serde(default)]
        usage: Tokens,
    },
    MessageStop,
    Error {
        error: Told,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default)]
    usage: Tokens,
}

#[derive(Default, Deserialize)]
struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        #[serde(default)]
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Ended {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

/// Reads one answer.
pub(super) struct Stream {
    as_data: bool,
    /// The tool use that is being written: block, id, name, arguments so far.
    open: Option<(u32, String, String, String)>,
    stop: Option<Stop>,
    usage: Usage,
}

impl Stream {
    pub(super) fn new(as_data: bool) -> Self {
        Self {
            as_data,
            open: None,
            stop: None,
            usage: Usage::default(),
        }
    }

    fn close(&mut self, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        let Some((_, id, name, arguments)) = self.open.take() else {
            return Ok(());
        };
        if self.as_data && name == ANSWER {
            out.push_back(Piece::Text(arguments));
            return Ok(());
        }
        let arguments = if arguments.trim().is_empty() { "{}" } else { &arguments };
        let arguments =
            serde_json::from_str(arguments).map_err(|_| ChatError::Garbled("a tool's arguments are not JSON"))?;
        out.push_back(Piece::Call(ToolCall { id, name, arguments }));
        Ok(())
    }
}

impl Reader for Stream {
    fn event(&mut self, data: &str, out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        let event = serde_json::from_str(data).map_err(|_| ChatError::Garbled("an event is not one of the API's"))?;
        match event {
            Event::MessageStart { message } => self.usage.input = message.usage.input_tokens.unwrap_or(0),
            Event::ContentBlockStart { index, content_block } => match content_block {
                Block::Text { text } if !text.is_empty() => out.push_back(Piece::Text(text)),
                Block::ToolUse { id, name } => self.open = Some((index, id, name, String::new())),
                Block::Text { .. } | Block::Other => {}
            },
            Event::ContentBlockDelta { index, delta } => match (delta, &mut self.open) {
                (Delta::Text { text }, _) if !self.as_data => out.push_back(Piece::Text(text)),
                (Delta::InputJson { partial_json }, Some((open, .., arguments))) if *open == index => {
                    arguments.push_str(&partial_json);
                }
                _ => {}
            },
            Event::ContentBlockStop { index } => {
                if self.open.as_ref().is_some_and(|(open, ..)| *open == index) {
                    self.close(out)?;
                }
            }
            Event::MessageDelta { delta, usage } => {
                self.usage.input = usage.input_tokens.unwrap_or(self.usage.input);
                self.usage.output = usage.output_tokens.unwrap_or(self.usage.output);
                self.stop = delta.stop_reason.map(|reason| match reason.as_str() {
                    "max_tokens" | "model_context_window_exceeded" => Stop::Length,
                    "tool_use" if !self.as_data => Stop::Calls,
                    "refusal" => Stop::Declined,
                    _ => Stop::Said,
                });
            }
            Event::MessageStop => {
                let (stop, usage) = (self.stop.unwrap_or_default(), self.usage);
                out.push_back(Piece::End { stop, usage });
            }
            Event::Error { error } => return Err(told(&error)),
            Event::Other => {}
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut VecDeque<Piece>) -> Result<(), ChatError> {
        Err(ChatError::Garbled("the answer broke off"))
    }
}

/// An error that came after the answer had begun.
fn told(error: &Told) -> ChatError {
    match error.kind.as_str() {
        "authentication_error" | "permission_error" => ChatError::Unauthenticated,
        "billing_error" => ChatError::NoCredit,
        "rate_limit_error" => ChatError::TooMany { retry_after: None },
        "timeout_error" => ChatError::Timeout("the service gave up"),
        "overloaded_error" | "api_error" => ChatError::Unavailable(shown(&error.kind)),
        _ => ChatError::Refused(shown(&error.message)),
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
        let request = request(&account(), "2023-06-01", &prompt(), "claude-haiku-4-5");
        assert_eq!(request.url, "http://llm.test/v1/messages");
        assert_eq!(request.headers["x-api-key"], "the-key");
        assert!(request.headers["x-api-key"].is_sensitive());
        assert_eq!(request.headers["anthropic-version"], "2023-06-01");
        assert_eq!(
            body(&request),
            json!({
                "model": "claude-haiku-4-5", "max_tokens": 400, "stream": true, "system": "Be brief.",
                "messages": [
                    { "role": "user", "content": [{ "type": "text", "text": "Hello." }, { "type": "text", "text": "My order?" }] },
                    { "role": "assistant", "content": [
                        { "type": "text", "text": "One moment." },
                        { "type": "tool_use", "id": "t1", "name": "order", "input": { "n": 7 } },
                    ] },
                    { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t1", "content": "shipped" }] },
                ],
                "tools": [{ "name": "order", "description": "Looks an order up.", "input_schema": { "type": "object" } }],
            })
        );
    }

    #[test]
    fn a_conversation_that_the_agent_began_begins_with_the_user_all_the_same() {
        let turns = [
            Turn::assistant("Welcome."),
            Turn::User("Hi.".into()),
            Turn::assistant(""),
        ];
        let messages = messages(&turns);
        let roles: Vec<_> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user"]);
    }

    #[test]
    fn words_and_tokens_are_read() {
        let pieces = read(Stream::new(false), TALK).unwrap();
        let usage = Usage { input: 25, output: 15 };
        assert_eq!(
            pieces,
            [
                Piece::Text("Hello".into()),
                Piece::Text("! I can help.".into()),
                Piece::End {
                    stop: Stop::Said,
                    usage
                }
            ]
        );
    }

    #[test]
    fn a_tools_arguments_come_in_parts_and_leave_whole() {
        let pieces = read(Stream::new(false), TOOL).unwrap();
        let call = ToolCall {
            id: "toolu_01".into(),
            name: "order".into(),
            arguments: json!({ "n": 7 }),
        };
        assert_eq!(pieces[1], Piece::Call(call));
        assert!(matches!(pieces[2], Piece::End { stop: Stop::Calls, .. }));
        let data = TOOL.replace("\"order\"", "\"answer\"");
        let pieces = read(Stream::new(true), &data).unwrap();
        assert_eq!(pieces[0], Piece::Text("{\"n\": 7}".into()));
    }

    #[test]
    fn an_error_after_the_beginning_and_a_stream_without_end_are_told() {
        let late =
            "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
        assert!(matches!(read(Stream::new(false), late), Err(ChatError::Unavailable(_))));
        let cut = TALK.split("event: message_delta").next().unwrap();
        assert!(matches!(read(Stream::new(false), cut), Err(ChatError::Garbled(_))));
        assert!(matches!(
            read(Stream::new(false), "data: <html>\n\n"),
            Err(ChatError::Garbled(_))
        ));
    }
}
