//! A double of every language model's service: reads requests as strictly as the service does, refuses what it refuses, answers in
//! its own wire format, and fails in every way that a service fails.

use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) const KEY: &str = "key-of-the-double";

/// What a double does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Says these words, one event each.
    Say(&'static str),
    /// Says these words and calls this tool.
    Call(&'static str, &'static str, Value),
    /// Answers by the schema.
    Data(Value),
    /// Refuses with this status.
    Status(u16),
    /// Refuses with 429 and asks for patience.
    Busy(u32),
    /// Says nothing at all.
    Hang,
    /// Begins, says a word, and says no more.
    Stall,
    /// Says a word and closes.
    Cut,
    /// Answers 200 with something else.
    Garbage,
    /// Says that it failed after it began.
    Late,
    /// Waits that long before the first word of this.
    Slow(Duration, &'static str),
}

/// A running double.
#[derive(Clone, Debug)]
pub(crate) struct Double {
    pub(crate) service: &'static str,
    pub(crate) address: SocketAddr,
    acts: Arc<Mutex<VecDeque<Act>>>,
    asked: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Double {
    pub(crate) async fn open(service: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Self {
            service,
            address: listener.local_addr().unwrap(),
            acts: Arc::default(),
            asked: Arc::default(),
            said: Arc::default(),
        };
        let serving = double.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let double = serving.clone();
                tokio::spawn(async move { double.serve(socket).await });
            }
        });
        double
    }

    /// Its section of the configuration.
    pub(crate) fn section(&self) -> String {
        let path = match self.service {
            "anthropic" => "",
            "openai" => "/v1",
            _ => "/v1beta",
        };
        let Self { service, address, .. } = self;
        format!(
            "[llm.{service}]\napi_key = \"{KEY}\"\nbase_url = \"http://{address}{path}\"\nmodel = \"m-1\"\n\
             first_token_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n"
        )
    }

    /// What it does with the next requests; afterwards it says "Ok.".
    pub(crate) fn will(&self, acts: impl IntoIterator<Item = Act>) {
        self.acts.lock().unwrap().extend(acts);
    }

    /// The bodies of the requests that it took.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }

    /// The events of its answers.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.said.lock().unwrap().clone()
    }

    async fn serve(&self, mut socket: TcpStream) {
        while let Some((head, body)) = read(&mut socket).await {
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            if let Err((status, message)) = self.check(&head, &body) {
                let _ = socket.write_all(self.refusal(status, &message, None).as_bytes()).await;
                continue;
            }
            let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Say("Ok."));
            self.asked.lock().unwrap().push(body);
            if !self.perform(&mut socket, act).await {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    async fn perform(&self, socket: &mut TcpStream, act: Act) -> bool {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let stalls = matches!(act, Act::Stall);
        let (events, broken) = match act {
            Act::Say(words) => (self.answer(words, None), false),
            Act::Call(words, name, arguments) => (self.answer(words, Some((name, arguments))), false),
            Act::Data(data) => (self.data(&data), false),
            Act::Status(status) => {
                let text = self.refusal(status, "as the test wants it", None);
                return socket.write_all(text.as_bytes()).await.is_ok();
            }
            Act::Busy(seconds) => {
                let text = self.refusal(429, "slow down", Some(seconds));
                return socket.write_all(text.as_bytes()).await.is_ok();
            }
            Act::Hang => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return false;
            }
            Act::Stall | Act::Cut => {
                let mut events = self.answer("Well, then.", None);
                events.truncate(if self.service == "anthropic" { 3 } else { 1 });
                (events, true)
            }
            Act::Garbage => {
                let text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 20\r\n\r\ndata: <html>oops</h\n";
                let _ = socket.write_all(text.as_bytes()).await;
                return false;
            }
            Act::Late => (vec![self.late()], false),
            Act::Slow(wait, words) => {
                let _ = socket.write_all(OK.as_bytes()).await;
                tokio::time::sleep(wait).await;
                return send(socket, &self.answer(words, None)).await && end(socket).await;
            }
        };
        let data = events
            .iter()
            .flat_map(|event| event.lines())
            .filter_map(|line| line.strip_prefix("data: "));
        let data = data.filter_map(|text| serde_json::from_str(text).ok());
        self.said.lock().unwrap().extend(data);
        if socket.write_all(OK.as_bytes()).await.is_err() || !send(socket, &events).await {
            return false;
        }
        if broken {
            if stalls {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            return false;
        }
        end(socket).await
    }

    /// What the service refuses.
    fn check(&self, head: &str, body: &Value) -> Result<(), (u16, String)> {
        let bad = |message: &str| (400, message.to_owned());
        let header = |name: &str| {
            head.lines()
                .find_map(|l| l.strip_prefix(&format!("{name}: ")))
                .unwrap_or("")
        };
        let line = head.lines().next().unwrap_or_default();
        let (path, key, fields): (_, _, &[&str]) = match self.service {
            "anthropic" => (
                "POST /v1/messages HTTP/1.1",
                header("x-api-key").to_owned(),
                &[
                    "model",
                    "max_tokens",
                    "stream",
                    "messages",
                    "system",
                    "tools",
                    "tool_choice",
                ],
            ),
            "openai" => (
                "POST /v1/chat/completions HTTP/1.1",
                header("authorization").replace("Bearer ", ""),
                &[
                    "model",
                    "stream",
                    "stream_options",
                    "messages",
                    "max_completion_tokens",
                    "tools",
                    "response_format",
                ],
            ),
            _ => (
                "POST /v1beta/models/m-1:streamGenerateContent?alt=sse HTTP/1.1",
                header("x-goog-api-key").to_owned(),
                &["contents", "generationConfig", "systemInstruction", "tools"],
            ),
        };
        if line != path {
            return Err((404, format!("no {line}")));
        }
        if key != KEY {
            return Err((401, "invalid key".to_owned()));
        }
        if header("content-type") != "application/json" {
            return Err(bad("content-type"));
        }
        let object = body.as_object().ok_or_else(|| bad("no object"))?;
        if let Some(unknown) = object.keys().find(|k| !fields.contains(&k.as_str())) {
            return Err(bad(&format!("{unknown}: Extra inputs are not permitted")));
        }
        match self.service {
            "anthropic" => {
                if header("anthropic-version").len() != 10 || body["max_tokens"].as_u64().is_none() {
                    return Err(bad("anthropic-version and max_tokens are required"));
                }
                alternates(&body["messages"], "assistant").map_err(|e| bad(&e))
            }
            "openai" => {
                let known =
                    |m: &Value| ["system", "user", "assistant", "tool"].contains(&m["role"].as_str().unwrap_or(""));
                let messages = body["messages"]
                    .as_array()
                    .filter(|m| !m.is_empty() && m.iter().all(known));
                messages.map(drop).ok_or_else(|| bad("messages"))
            }
            _ => alternates(&body["contents"], "model").map_err(|e| bad(&e)),
        }
    }

    fn refusal(&self, status: u16, message: &str, retry_after: Option<u32>) -> String {
        let body = match self.service {
            "anthropic" => json!({ "type": "error", "error": { "type": "some_error", "message": message } }),
            "openai" => json!({ "error": { "message": message, "type": "some_error", "param": null, "code": null } }),
            _ => json!({ "error": { "code": status, "message": message, "status": "SOME_STATUS" } }),
        };
        let body = body.to_string();
        let retry = retry_after.map_or_else(String::new, |s| format!("retry-after: {s}\r\n"));
        let length = body.len();
        format!(
            "HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n{retry}content-length: {length}\r\n\r\n{body}"
        )
    }

    fn late(&self) -> String {
        match self.service {
            "anthropic" => {
                let error =
                    json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
                format!("event: error\ndata: {error}\n\n")
            }
            _ => format!(
                "data: {}\n\n",
                json!({ "error": { "code": 503, "message": "overloaded", "type": "server_error" } })
            ),
        }
    }

    fn data(&self, data: &Value) -> Vec<String> {
        match self.service {
            "anthropic" => self.answer("", Some(("answer", data.clone()))),
            _ => self.answer_text(vec![data.to_string()], None),
        }
    }

    fn answer(&self, words: &str, call: Option<(&str, Value)>) -> Vec<String> {
        let words = words.split_inclusive(' ').map(str::to_owned).collect();
        self.answer_text(words, call)
    }

    fn answer_text(&self, words: Vec<String>, call: Option<(&str, Value)>) -> Vec<String> {
        match self.service {
            "anthropic" => anthropic(&words, call),
            "openai" => openai(&words, call),
            _ => gemini(&words, call),
        }
    }
}

fn anthropic(words: &[String], call: Option<(&str, Value)>) -> Vec<String> {
    let event = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 11, "output_tokens": 1 } });
    let mut events = vec![event(json!({ "type": "message_start", "message": message }))];
    let block =
        |n: u32, block: Value| event(json!({ "type": "content_block_start", "index": n, "content_block": block }));
    let delta = |n: u32, delta: Value| event(json!({ "type": "content_block_delta", "index": n, "delta": delta }));
    events.push(block(0, json!({ "type": "text", "text": "" })));
    events.extend(
        words
            .iter()
            .map(|w| delta(0, json!({ "type": "text_delta", "text": w }))),
    );
    events.push(event(json!({ "type": "ping" })));
    events.push(event(json!({ "type": "content_block_stop", "index": 0 })));
    let stop = if call.is_some() { "tool_use" } else { "end_turn" };
    if let Some((name, arguments)) = call {
        events.push(block(
            1,
            json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": {} }),
        ));
        let text = arguments.to_string();
        let (a, b) = text.split_at(text.len() / 2);
        events.extend([a, b].map(|part| delta(1, json!({ "type": "input_json_delta", "partial_json": part }))));
        events.push(event(json!({ "type": "content_block_stop", "index": 1 })));
    }
    let ended = json!({ "stop_reason": stop, "stop_sequence": null });
    events.push(event(
        json!({ "type": "message_delta", "delta": ended, "usage": { "output_tokens": 7 } }),
    ));
    events.push(event(json!({ "type": "message_stop" })));
    events
}

fn openai(words: &[String], call: Option<(&str, Value)>) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices, "usage": usage });
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, finish: Value| {
        chunk(
            json!([{ "index": 0, "delta": delta, "finish_reason": finish }]),
            Value::Null,
        )
    };
    let mut events: Vec<_> = words
        .iter()
        .map(|w| delta(json!({ "content": w }), Value::Null))
        .collect();
    let stop = if call.is_some() { "tool_calls" } else { "stop" };
    if let Some((name, arguments)) = call {
        let function = json!({ "name": name, "arguments": arguments.to_string() });
        let call = json!([{ "index": 0, "id": "call_1", "type": "function", "function": function }]);
        events.push(delta(json!({ "tool_calls": call }), Value::Null));
    }
    events.push(delta(json!({}), json!(stop)));
    events.push(chunk(
        json!([]),
        json!({ "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 }),
    ));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn gemini(words: &[String], call: Option<(&str, Value)>) -> Vec<String> {
    let call = call.map(|(name, args)| json!({ "functionCall": { "name": name, "args": args } }));
    let parts: Vec<_> = words.iter().map(|w| json!({ "text": w })).chain(call).collect();
    let last = parts.len() - 1;
    let event = |(n, part): (usize, Value)| {
        let mut candidate = json!({ "index": 0, "content": { "role": "model", "parts": [part] } });
        if n == last {
            candidate["finishReason"] = json!("STOP");
        }
        let usage = json!({ "promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18 });
        format!(
            "data: {}\r\n\r\n",
            json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": "m-1" })
        )
    };
    parts.into_iter().enumerate().map(event).collect()
}

/// Turns of the two sides follow each other, the user's first and last, none of them empty.
fn alternates(turns: &Value, other: &str) -> Result<(), String> {
    let turns = turns.as_array().filter(|t| !t.is_empty()).ok_or("no turns")?;
    for (n, turn) in turns.iter().enumerate() {
        let wanted = if n % 2 == 0 { "user" } else { other };
        if turn["role"] != wanted {
            return Err(format!("turn {n} is not {wanted}'s"));
        }
        let parts = turn.get("content").or(turn.get("parts")).and_then(Value::as_array);
        if parts.is_none_or(|p| p.is_empty() || p.iter().any(|p| p["text"] == "")) {
            return Err(format!("turn {n} is empty"));
        }
    }
    if turns.len() % 2 == 0 {
        return Err("the last turn is not the user's".to_owned());
    }
    Ok(())
}

async fn read(socket: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 8192];
        let n = socket.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |l| l.parse().unwrap());
        if bytes.len() >= at + 4 + length {
            return Some((head, bytes[at + 4..at + 4 + length].to_vec()));
        }
    }
}

/// Each event is cut in two pieces, wherever that is.
async fn send(socket: &mut TcpStream, events: &[String]) -> bool {
    for event in events {
        let (a, b) = event.as_bytes().split_at(event.len() / 3);
        for piece in [a, b] {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            if socket.write_all(&chunk).await.is_err() {
                return false;
            }
        }
    }
    true
}

async fn end(socket: &mut TcpStream) -> bool {
    socket.write_all(b"0\r\n\r\n").await.is_ok()
}
