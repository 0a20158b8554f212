//! A stand-in for OpenAI Realtime: hears bursts of tone (see [`crate::speech::stt::fake`]), says what it heard, and answers in tones.
//!
//! It answers `you said` and the words; a tone that has the name of a tool of the session (by its place among them: 2000 Hz the first,
//! 2100 Hz the second, …) has it ask for that. An answer is generated in ten times real time, paced by the audio that comes in, so
//! that it can be cut off on the way. Strict: unknown or missing members, another order than the protocol's, and a wrong key are refused.

use crate::{
    audio::codec,
    base::format::{AudioFormat, Encoding},
    speech::{
        double::{Answer, Conversation, Double, Said, parameter, says, spoken, wrong_members, wrong_query},
        stt::fake::{Bursts, Found, words},
    },
    wire::base64,
};
use http::request::Parts;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_tungstenite::tungstenite::Message;

/// Frequency of the first tool.
const TOOL_HZ: u32 = 2000;

/// Audio generated for each message of audio that comes in, in ms.
const PACE_MS: usize = 200;

/// Seconds of life of a session.
const LIFE_S: u64 = 3600;

/// The service.
#[derive(Debug)]
pub struct Realtime {
    key: String,
    beta: bool,
}

impl Realtime {
    /// A service that accepts this key.
    pub fn new(key: &str) -> Self {
        let key = key.to_owned();
        Self { key, beta: false }
    }

    /// A server of the older shape.
    pub fn of_beta(key: &str) -> Self {
        let key = key.to_owned();
        Self { key, beta: true }
    }
}

impl Double for Realtime {
    fn answer(&self, head: &Parts, _: &[u8]) -> Answer {
        if !says(head, "authorization", &format!("Bearer {}", self.key)) {
            return Answer::refuse(401, "Incorrect API key provided.");
        }
        if !head.uri.path().ends_with("/realtime") {
            return Answer::refuse(404, "no such path");
        }
        if let Some(wrong) = wrong_query(head, &["model"], &[]) {
            return Answer::refuse(400, &wrong);
        }
        let wants_beta = says(head, "openai-beta", "realtime=v1");
        if wants_beta != self.beta {
            return Answer::refuse(400, "beta_api_shape_disabled");
        }
        if parameter(head, "model").is_empty() {
            return Answer::refuse(400, "model is empty");
        }
        Answer::Socket(Box::new(Session::new(self.beta)))
    }
}

/// An item of the conversation that the caller can be told about: how much audio of it was sent, in ms.
struct Item {
    id: String,
    sent_ms: u64,
}

/// An answer being generated.
struct Active {
    response: String,
    item: String,
    words: VecDeque<String>,
    said: String,
    audio: VecDeque<u8>,
    calls: bool,
}

/// A session.
struct Session {
    beta: bool,
    ready: bool,
    heard: AudioFormat,
    spoken: AudioFormat,
    bursts: Bursts,
    answers: bool,
    interrupts: bool,
    tools: Vec<String>,
    active: Option<Active>,
    items: Vec<Item>,
    count: u32,
    /// Audio since the last commit.
    uncommitted: u64,
    audio: Vec<u8>,
    said: Vec<Said>,
}

const PCM: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 24_000,
};

impl Session {
    fn new(beta: bool) -> Self {
        Self {
            beta,
            ready: false,
            heard: PCM,
            spoken: PCM,
            bursts: Bursts::new(PCM.rate),
            answers: true,
            interrupts: true,
            tools: Vec::new(),
            active: None,
            items: Vec::new(),
            count: 0,
            uncommitted: 0,
            audio: Vec::new(),
            said: Vec::new(),
        }
    }

    fn id(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}_{}", self.count)
    }

    fn say(&mut self, mut event: Value) {
        event["event_id"] = json!(self.id("event"));
        self.said.push(Said::json(&event));
    }

    /// A complaint of the service, which goes on.
    fn complain(&mut self, code: &str, message: &str) {
        self.say(json!({ "type": "error", "error": {
            "type": "invalid_request_error", "code": code, "message": message, "param": null, "event_id": null,
        }}));
    }

    /// What no client of the protocol does: the stand-in closes.
    fn refuse(&mut self, why: impl Into<String>) {
        self.said.push(Said::Close(4000, why.into()));
    }

    fn ms(&self, samples: u64) -> u64 {
        samples * 1000 / u64::from(self.heard.rate)
    }

    fn take(&mut self, event: &Value) -> Result<(), String> {
        let check = |required: &[&str], optional: &[&str]| {
            let required: Vec<_> = ["type"].iter().chain(required).copied().collect();
            let optional: Vec<_> = ["event_id"].iter().chain(optional).copied().collect();
            wrong_members(event, &required, &optional).map_or(Ok(()), Err)
        };
        let kind = event["type"].as_str().unwrap_or_default();
        if !self.ready && kind != "session.update" {
            return Err(format!("{kind} before the session was asked for"));
        }
        match kind {
            "session.update" => {
                check(&["session"], &[])?;
                match self.beta {
                    false => self.update(&event["session"])?,
                    true => self.update_beta(&event["session"])?,
                }
                self.ready = true;
                let session = event["session"].clone();
                self.say(json!({ "type": "session.updated", "session": session }));
            }
            "input_audio_buffer.append" => {
                check(&["audio"], &[])?;
                let text = event["audio"].as_str().ok_or("audio is no text")?;
                let bytes = base64::decode_vec(text.as_bytes(), 15 << 20).map_err(|_| "audio is not base64")?;
                self.hear_audio(&bytes)?;
            }
            "input_audio_buffer.commit" => {
                check(&[], &[])?;
                self.commit();
            }
            "response.create" => {
                check(&[], &["response"])?;
                let response = &event["response"];
                if !response.is_null() {
                    wrong_members(response, &[], &["instructions", "tool_choice"]).map_or(Ok(()), Err)?;
                }
                if self.active.is_some() {
                    self.complain("conversation_already_has_active_response", "wait for its end");
                    return Ok(());
                }
                let how = response["instructions"].as_str().unwrap_or("go on").to_owned();
                self.respond(&greeting(&how));
            }
            "response.cancel" => {
                check(&[], &["response_id"])?;
                if self.active.is_none() {
                    self.complain("response_cancel_not_active", "nothing to cancel");
                }
                self.end(true);
            }
            "conversation.item.truncate" => {
                check(&["item_id", "content_index", "audio_end_ms"], &[])?;
                let (id, ms) = (&event["item_id"], event["audio_end_ms"].as_u64().ok_or("no time")?);
                let item = self.items.iter().find(|i| *id == *i.id);
                let item = item.ok_or("item_truncate: no such item")?;
                if ms > item.sent_ms {
                    return Err(format!("item_truncate: {ms} ms of {} were heard", item.sent_ms));
                }
                let id = item.id.clone();
                self.say(
                    json!({ "type": "conversation.item.truncated", "item_id": id, "content_index": 0,
                    "audio_end_ms": ms }),
                );
            }
            "conversation.item.delete" => {
                check(&["item_id"], &[])?;
                let id = event["item_id"].as_str().ok_or("item_id is no text")?.to_owned();
                self.say(json!({ "type": "conversation.item.deleted", "item_id": id }));
            }
            "conversation.item.create" => {
                check(&["item"], &["previous_item_id"])?;
                self.create(&event["item"])?;
            }
            _ => return Err(format!("{kind} is not known")),
        }
        Ok(())
    }

    fn create(&mut self, item: &Value) -> Result<(), String> {
        match item["type"].as_str() {
            Some("function_call_output") => {
                wrong_members(item, &["type", "call_id", "output"], &[]).map_or(Ok(()), Err)?;
            }
            Some("message") => {
                wrong_members(item, &["type", "role", "content"], &[]).map_or(Ok(()), Err)?;
                let of_agent = if self.beta { "text" } else { "output_text" };
                let kind = match item["role"].as_str() {
                    Some("user" | "system") => "input_text",
                    Some("assistant") => of_agent,
                    _ => return Err("role is not known".to_owned()),
                };
                let content = item["content"].as_array().ok_or("content is no list")?;
                for part in content {
                    wrong_members(part, &["type", "text"], &[]).map_or(Ok(()), Err)?;
                    if part["type"] != kind {
                        return Err(format!("{} is not of this role", part["type"]));
                    }
                }
            }
            _ => return Err("item.type is not known".to_owned()),
        }
        let id = self.id("item");
        let added = match self.beta {
            false => "conversation.item.added",
            true => "conversation.item.created",
        };
        self.say(json!({ "type": added, "previous_item_id": null, "item": { "id": id, "type": item["type"] } }));
        Ok(())
    }

    /// A burst of tone was heard to its end: says so, transcribes it, and answers.
    fn ended(&mut self, item: &str, hz: u32, to: u64) {
        let at = self.ms(to);
        self.uncommitted = 0;
        self.say(json!({ "type": "input_audio_buffer.speech_stopped", "audio_end_ms": at, "item_id": item }));
        self.committed(item, hz);
        if self.answers && self.active.is_none() {
            match hz
                .checked_sub(TOOL_HZ)
                .and_then(|n| self.tools.get(n as usize / 100).cloned())
            {
                Some(tool) => self.call(&tool),
                None => self.respond(&format!("you said {}", words(hz))),
            }
        }
    }

    fn committed(&mut self, item: &str, hz: u32) {
        self.say(json!({ "type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": null }));
        let text = words(hz);
        let kind = "conversation.item.input_audio_transcription";
        self.say(json!({ "type": format!("{kind}.delta"), "item_id": item, "content_index": 0, "delta": "tone" }));
        self.say(
            json!({ "type": format!("{kind}.completed"), "item_id": item, "content_index": 0, "transcript": text,
            "usage": { "type": "tokens", "input_tokens": 4, "output_tokens": 5, "total_tokens": 9 } }),
        );
    }

    fn commit(&mut self) {
        if self.ms(self.uncommitted) < 100 {
            return self.complain("input_audio_buffer_commit_empty", "too little audio");
        }
        self.uncommitted = 0;
        let mut found = Vec::new();
        self.bursts.finish(|f| found.push(f));
        for f in found {
            if let Found::Ended(burst) = f {
                let item = format!("user_{}", burst.from);
                self.committed(&item, burst.hz);
            }
        }
    }

    fn hear_audio(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut samples = vec![0; bytes.len() / self.heard.encoding.sample_bytes()];
        codec::decode(self.heard.encoding, bytes, &mut samples).map_err(|_| "half a sample")?;
        self.audio.extend_from_slice(bytes);
        self.uncommitted += samples.len() as u64;
        let mut found = Vec::new();
        self.bursts.push(&samples, |f| found.push(f));
        for f in found {
            match f {
                Found::Began { at } => {
                    let (at_ms, item) = (self.ms(at), format!("user_{at}"));
                    self.say(
                        json!({ "type": "input_audio_buffer.speech_started", "audio_start_ms": at_ms,
                        "item_id": item }),
                    );
                    if self.interrupts {
                        self.end(true);
                    }
                }
                Found::Ended(burst) => self.ended(&format!("user_{}", burst.from), burst.hz, burst.to),
                Found::Going(_) => {}
            }
        }
        self.generate();
        Ok(())
    }

    /// Begins an answer in words.
    fn respond(&mut self, text: &str) {
        let audio = spoken(text, self.spoken);
        self.begin(text, audio, false);
        self.generate();
    }

    fn begin(&mut self, text: &str, audio: Vec<u8>, calls: bool) {
        let (response, item) = (self.id("resp"), self.id("item"));
        self.say(json!({ "type": "response.created", "response": { "id": response, "status": "in_progress" } }));
        let kind = if calls { "function_call" } else { "message" };
        self.say(
            json!({ "type": "response.output_item.added", "response_id": response, "output_index": 0,
            "item": { "id": item, "type": kind, "role": "assistant" } }),
        );
        if !calls {
            self.items.push(Item {
                id: item.clone(),
                sent_ms: 0,
            });
        }
        self.active = Some(Active {
            response,
            item,
            words: text.split_whitespace().map(str::to_owned).collect(),
            said: String::new(),
            audio: audio.into(),
            calls,
        });
    }

    /// Asks for a tool.
    fn call(&mut self, tool: &str) {
        self.begin("", Vec::new(), true);
        let call = self.id("call");
        let Some(active) = &self.active else { return };
        let (response, item) = (active.response.clone(), active.item.clone());
        self.say(
            json!({ "type": "response.function_call_arguments.delta", "response_id": response, "item_id": item,
            "output_index": 0, "call_id": call, "delta": "{" }),
        );
        self.say(
            json!({ "type": "response.function_call_arguments.done", "response_id": response, "item_id": item,
            "output_index": 0, "call_id": call, "name": tool, "arguments": arguments(tool).to_string() }),
        );
        self.end(false);
    }

    /// Goes on with the answer: so much audio, and a word beside it.
    fn generate(&mut self) {
        let Some(active) = &mut self.active else { return };
        let piece = self.spoken.encoding.bytes(self.spoken.samples_of_ms(PACE_MS as u32));
        let n = active.audio.len().min(piece);
        let audio: Vec<u8> = active.audio.drain(..n).collect();
        let word = active.words.pop_front().map(|word| {
            let gap = if active.said.is_empty() { "" } else { " " };
            format!("{gap}{word}")
        });
        if let Some(word) = &word {
            active.said += word;
        }
        let (response, item) = (active.response.clone(), active.item.clone());
        let over = active.audio.is_empty();
        let ms = (n / self.spoken.encoding.sample_bytes()) as u64 * 1000 / u64::from(self.spoken.rate);
        if let Some(known) = self.items.iter_mut().find(|i| i.id == item) {
            known.sent_ms += ms;
        }
        let part = |kind: &str, delta: &str| {
            json!({ "type": kind, "response_id": response, "item_id": item, "output_index": 0, "content_index": 0,
                "delta": delta })
        };
        let (sound, words) = self.names();
        if let Some(word) = word {
            self.say(part(&format!("{words}.delta"), &word));
        }
        if !audio.is_empty() {
            self.say(part(&format!("{sound}.delta"), &base64::encode_string(&audio)));
        }
        if over {
            self.end(false);
        }
    }

    const fn names(&self) -> (&'static str, &'static str) {
        match self.beta {
            false => ("response.output_audio", "response.output_audio_transcript"),
            true => ("response.audio", "response.audio_transcript"),
        }
    }

    /// Ends the answer, complete or cancelled.
    fn end(&mut self, cancelled: bool) {
        let Some(mut active) = self.active.take() else { return };
        let (response, item) = (active.response.clone(), active.item.clone());
        if !active.calls {
            if !cancelled {
                for word in active.words.drain(..) {
                    active.said += " ";
                    active.said += &word;
                }
            }
            let (sound, words) = self.names();
            let of = json!({ "response_id": response, "item_id": item, "output_index": 0, "content_index": 0 });
            let mut done = of.clone();
            done["type"] = json!(format!("{sound}.done"));
            self.say(done);
            let mut done = of;
            done["type"] = json!(format!("{words}.done"));
            done["transcript"] = json!(active.said.trim());
            self.say(done);
        }
        let (status, details) = match cancelled {
            false => ("completed", Value::Null),
            true => ("cancelled", json!({ "type": "cancelled", "reason": "turn_detected" })),
        };
        self.say(json!({ "type": "response.done", "response": {
            "id": response, "status": status, "status_details": details, "output": [],
            "usage": { "total_tokens": 60, "input_tokens": 40, "output_tokens": 20,
                "input_token_details": { "text_tokens": 10, "audio_tokens": 30, "cached_tokens": 0 },
                "output_token_details": { "text_tokens": 4, "audio_tokens": 16 } },
        }}));
    }

    fn update(&mut self, session: &Value) -> Result<(), String> {
        let optional = [
            "instructions",
            "output_modalities",
            "audio",
            "tools",
            "tool_choice",
            "max_output_tokens",
        ];
        wrong_members(session, &["type"], &optional).map_or(Ok(()), Err)?;
        if session["type"] != "realtime" {
            return Err("session.type is realtime".to_owned());
        }
        let audio = &session["audio"];
        wrong_members(audio, &["input"], &["output"]).map_or(Ok(()), Err)?;
        let input = &audio["input"];
        let known = ["format", "noise_reduction", "transcription", "turn_detection"];
        wrong_members(input, &[], &known).map_or(Ok(()), Err)?;
        if let Some(format) = input.get("format") {
            self.heard = read_format(format)?;
            self.bursts = Bursts::new(self.heard.rate);
        }
        self.turns(&input["turn_detection"])?;
        if !audio["output"].is_null() {
            wrong_members(&audio["output"], &["format", "voice"], &["speed"]).map_or(Ok(()), Err)?;
            self.spoken = read_format(&audio["output"]["format"])?;
        }
        self.read_tools(session)
    }

    fn update_beta(&mut self, session: &Value) -> Result<(), String> {
        let known = [
            "instructions",
            "modalities",
            "voice",
            "input_audio_format",
            "output_audio_format",
            "input_audio_transcription",
            "turn_detection",
            "tools",
            "tool_choice",
            "max_response_output_tokens",
        ];
        wrong_members(session, &[], &known).map_or(Ok(()), Err)?;
        let read = |name: &str| match session[name].as_str() {
            None => Ok(None),
            Some("pcm16") => Ok(Some(PCM)),
            Some("g711_ulaw") => Ok(Some(AudioFormat::ULAW_8K)),
            Some("g711_alaw") => Ok(Some(ALAW)),
            Some(other) => Err(format!("{other} is no format")),
        };
        if let Some(format) = read("input_audio_format")? {
            self.heard = format;
            self.bursts = Bursts::new(format.rate);
        }
        self.spoken = read("output_audio_format")?.unwrap_or(self.spoken);
        self.turns(&session["turn_detection"])?;
        self.read_tools(session)
    }

    fn turns(&mut self, turns: &Value) -> Result<(), String> {
        let both = ["create_response", "interrupt_response"];
        let wrong = match turns["type"].as_str() {
            Some("server_vad") => wrong_members(
                turns,
                &["type"],
                &[
                    "threshold",
                    "prefix_padding_ms",
                    "silence_duration_ms",
                    both[0],
                    both[1],
                ],
            ),
            Some("semantic_vad") => wrong_members(turns, &["type"], &["eagerness", both[0], both[1]]),
            _ => Some("turn_detection.type is not known".to_owned()),
        };
        self.answers = turns[both[0]].as_bool().unwrap_or(true);
        self.interrupts = turns[both[1]].as_bool().unwrap_or(true);
        wrong.map_or(Ok(()), Err)
    }

    fn read_tools(&mut self, session: &Value) -> Result<(), String> {
        for tool in session["tools"].as_array().into_iter().flatten() {
            wrong_members(tool, &["type", "name", "description", "parameters"], &[]).map_or(Ok(()), Err)?;
            self.tools
                .push(tool["name"].as_str().ok_or("a tool without a name")?.to_owned());
        }
        Ok(())
    }
}

const ALAW: AudioFormat = AudioFormat {
    encoding: Encoding::Alaw,
    rate: 8000,
};

fn read_format(format: &Value) -> Result<AudioFormat, String> {
    match format["type"].as_str() {
        Some("audio/pcm") => {
            wrong_members(format, &["type", "rate"], &[]).map_or(Ok(()), Err)?;
            match format["rate"].as_u64() {
                Some(24_000) => Ok(PCM),
                _ => Err("audio/pcm has a rate of 24000".to_owned()),
            }
        }
        Some(law @ ("audio/pcmu" | "audio/pcma")) => {
            wrong_members(format, &["type"], &[]).map_or(Ok(()), Err)?;
            Ok(if law == "audio/pcmu" {
                AudioFormat::ULAW_8K
            } else {
                ALAW
            })
        }
        _ => Err(format!("{format} is no format")),
    }
}

/// What is said when words in quotes are asked for: those; else a word that says that something was asked for.
fn greeting(how: &str) -> String {
    let quoted = how.split('"').nth(1).unwrap_or_default();
    if quoted.is_empty() {
        "well".to_owned()
    } else {
        quoted.to_owned()
    }
}

/// Arguments that a tool is asked for with.
fn arguments(tool: &str) -> Value {
    match tool {
        "transfer" => json!({ "to": "+14155550100" }),
        "send_digits" => json!({ "digits": "12#" }),
        _ => json!({}),
    }
}

impl Conversation for Session {
    fn open(&mut self) -> Vec<Said> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let kind = if self.beta { "realtime.session" } else { "realtime" };
        self.say(json!({ "type": "session.created", "session": {
            "id": "sess_1", "type": kind, "expires_at": now + LIFE_S,
        }}));
        std::mem::take(&mut self.said)
    }

    fn hear(&mut self, message: Message) -> Vec<Said> {
        match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(event) => {
                    if let Err(why) = self.take(&event) {
                        self.refuse(why);
                    }
                }
                Err(_) => self.refuse("not JSON"),
            },
            _ => self.refuse("a binary message"),
        }
        std::mem::take(&mut self.said)
    }

    fn take_audio(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.audio)
    }
}
