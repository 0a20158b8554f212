//! OpenAI Realtime's messages, both ways, without I/O: what a session is asked for, and what it says.
//!
//! The service has two shapes of the same protocol: its present one, where a session names its type and formats are objects, and the
//! one before, which it refuses by now and servers that copied it still speak. What comes is read in both: an unknown type or
//! member says nothing, a missing one has a default.

use crate::{
    base::format::{AudioFormat, Encoding},
    speech::duplex::{Asked, Role, Tool},
    wire::base64,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use tokio_tungstenite::tungstenite::Message;

/// Which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The present one.
    Current,
    /// The one before it (`OpenAI-Beta: realtime=v1`).
    Beta,
}

/// How the end of the caller's turn is found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TurnDetection {
    /// By silence.
    Server {
        threshold: f64,
        prefix_ms: u64,
        silence_ms: u64,
    },
    /// By what is said.
    Semantic { eagerness: &'static str },
}

/// What a session is asked for.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    pub(super) shape: Shape,
    pub(super) instructions: &'a str,
    pub(super) voice: &'a str,
    pub(super) speed: f64,
    pub(super) heard: AudioFormat,
    pub(super) spoken: AudioFormat,
    /// The model that transcribes the caller; empty for none.
    pub(super) transcription: &'a str,
    /// The caller's language, where it is known.
    pub(super) language: Option<&'a str>,
    pub(super) noise_reduction: Option<&'static str>,
    pub(super) turns: &'a TurnDetection,
    /// Whether the service answers of its own accord.
    pub(super) answers: bool,
    /// Whether the caller's speech ends its answer.
    pub(super) interrupts: bool,
    pub(super) tools: &'a [Tool],
    /// 0 for no bound.
    pub(super) max_tokens: u32,
}

/// A format as the service names it. It takes and speaks G.711 at 8 kHz and samples at 24 kHz.
fn format(shape: Shape, format: AudioFormat) -> Value {
    match (shape, format.encoding) {
        (Shape::Current, Encoding::Ulaw) => json!({ "type": "audio/pcmu" }),
        (Shape::Current, Encoding::Alaw) => json!({ "type": "audio/pcma" }),
        (Shape::Current, _) => json!({ "type": "audio/pcm", "rate": format.rate }),
        (Shape::Beta, Encoding::Ulaw) => json!("g711_ulaw"),
        (Shape::Beta, Encoding::Alaw) => json!("g711_alaw"),
        (Shape::Beta, _) => json!("pcm16"),
    }
}

impl Wishes<'_> {
    fn turn_detection(&self) -> Value {
        let mut object = match self.turns {
            TurnDetection::Server {
                threshold,
                prefix_ms,
                silence_ms,
            } => json!({
                "type": "server_vad", "threshold": threshold, "prefix_padding_ms": prefix_ms,
                "silence_duration_ms": silence_ms,
            }),
            TurnDetection::Semantic { eagerness } => json!({ "type": "semantic_vad", "eagerness": eagerness }),
        };
        object["create_response"] = json!(self.answers);
        object["interrupt_response"] = json!(self.interrupts);
        object
    }

    fn transcription(&self) -> Value {
        if self.transcription.is_empty() {
            return Value::Null;
        }
        let mut object = json!({ "model": self.transcription });
        if let Some(language) = self.language {
            object["language"] = json!(language);
        }
        object
    }

    fn tools(&self) -> Value {
        let tools = self.tools.iter().map(|tool| {
            json!({
                "type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
            })
        });
        tools.collect()
    }

    /// Asks for the session.
    pub(super) fn session(&self) -> Message {
        let max_tokens = match self.max_tokens {
            0 => json!("inf"),
            n => json!(n),
        };
        let session = match self.shape {
            Shape::Current => {
                let noise = self.noise_reduction.map(|kind| json!({ "type": kind }));
                json!({
                    "type": "realtime",
                    "instructions": self.instructions,
                    "output_modalities": ["audio"],
                    "audio": {
                        "input": {
                            "format": format(self.shape, self.heard),
                            "noise_reduction": noise,
                            "transcription": self.transcription(),
                            "turn_detection": self.turn_detection(),
                        },
                        "output": { "format": format(self.shape, self.spoken), "voice": self.voice, "speed": self.speed },
                    },
                    "tools": self.tools(),
                    "tool_choice": "auto",
                    "max_output_tokens": max_tokens,
                })
            }
            Shape::Beta => json!({
                "instructions": self.instructions,
                "modalities": ["text", "audio"],
                "voice": self.voice,
                "input_audio_format": format(self.shape, self.heard),
                "output_audio_format": format(self.shape, self.spoken),
                "input_audio_transcription": self.transcription(),
                "turn_detection": self.turn_detection(),
                "tools": self.tools(),
                "tool_choice": "auto",
                "max_response_output_tokens": max_tokens,
            }),
        };
        update(session)
    }

    /// Changes how it answers and is interrupted, and nothing else.
    pub(super) fn turns_only(&self) -> Message {
        update(match self.shape {
            Shape::Current => json!({
                "type": "realtime", "audio": { "input": { "turn_detection": self.turn_detection() } },
            }),
            Shape::Beta => json!({ "turn_detection": self.turn_detection() }),
        })
    }
}

fn update(session: Value) -> Message {
    text(&json!({ "type": "session.update", "session": session }))
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

/// The caller's audio, in the format that was asked for.
pub(super) fn append(audio: &[u8]) -> Message {
    let mut out = String::with_capacity(audio.len() * 4 / 3 + 60);
    out += r#"{"type":"input_audio_buffer.append","audio":""#;
    base64::append_str(audio, &mut out);
    out += r#""}"#;
    Message::text(out)
}

/// The caller is gone: what they said last is to be transcribed.
pub(super) fn commit() -> Message {
    text(&json!({ "type": "input_audio_buffer.commit" }))
}

/// Answer now.
pub(super) fn respond(how: Option<&str>, tools: bool) -> Message {
    let mut response = Map::new();
    if let Some(how) = how {
        response.insert("instructions".to_owned(), json!(how));
    }
    if !tools {
        response.insert("tool_choice".to_owned(), json!("none"));
    }
    match response.is_empty() {
        true => text(&json!({ "type": "response.create" })),
        false => text(&json!({ "type": "response.create", "response": response })),
    }
}

/// Stop answering.
pub(super) fn cancel(response: &str) -> Message {
    if response.is_empty() {
        return text(&json!({ "type": "response.cancel" }));
    }
    text(&json!({ "type": "response.cancel", "response_id": response }))
}

/// A reply was heard for so long.
pub(super) fn truncate(item: &str, heard_ms: u64) -> Message {
    text(&json!({
        "type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": heard_ms,
    }))
}

/// Nothing of a reply was heard.
pub(super) fn delete(item: &str) -> Message {
    text(&json!({ "type": "conversation.item.delete", "item_id": item }))
}

/// What was said before, or in its place.
pub(super) fn said(shape: Shape, role: Role, words: &str) -> Message {
    let (role, content) = match (role, shape) {
        (Role::Caller, _) => ("user", "input_text"),
        (Role::Note, _) => ("system", "input_text"),
        (Role::Agent, Shape::Current) => ("assistant", "output_text"),
        (Role::Agent, Shape::Beta) => ("assistant", "text"),
    };
    text(&json!({
        "type": "conversation.item.create",
        "item": { "type": "message", "role": role, "content": [{ "type": content, "text": words }] },
    }))
}

/// What came of something that was asked for.
pub(super) fn result(call: &str, output: &str) -> Message {
    text(&json!({
        "type": "conversation.item.create",
        "item": { "type": "function_call_output", "call_id": call, "output": output },
    }))
}

/// Tokens of one answer, or of one transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Read and written as text.
    pub(super) text: (u64, u64),
    /// Heard and spoken.
    pub(super) audio: (u64, u64),
}

/// What a message of the service says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told<'a> {
    /// The session is there, and ends at this Unix time, in seconds.
    Created { expires_at: Option<i64> },
    /// It is as it was asked for.
    Updated,
    /// The caller began to speak at this ms of audio.
    Began { item: Cow<'a, str>, at_ms: u64 },
    /// The caller stopped.
    Stopped { item: Cow<'a, str>, at_ms: u64 },
    /// What they said is in the conversation.
    Committed { item: Cow<'a, str> },
    /// More words of it.
    Interim { item: Cow<'a, str>, delta: Cow<'a, str> },
    /// All of them, and what they cost.
    Final {
        item: Cow<'a, str>,
        text: Cow<'a, str>,
        tokens: Tokens,
    },
    /// It could not be transcribed.
    Unheard { item: Cow<'a, str> },
    /// An answer begins.
    Answering { response: Cow<'a, str> },
    /// Audio of it, in base64.
    Audio { item: Cow<'a, str>, data: Cow<'a, str> },
    /// No more audio of this item.
    AudioOver { item: Cow<'a, str> },
    /// Words of it.
    Words { item: Cow<'a, str>, delta: Cow<'a, str> },
    /// All words of this item.
    WordsOver {
        item: Cow<'a, str>,
        text: Option<Cow<'a, str>>,
    },
    /// Something is to be done.
    Wants(Asked),
    /// An answer is complete, or will not be.
    Answered {
        response: Cow<'a, str>,
        tokens: Tokens,
        /// Why it failed: a code of the service.
        failed: Option<String>,
    },
    /// It complains.
    Complaint {
        kind: Cow<'a, str>,
        code: Cow<'a, str>,
        message: Cow<'a, str>,
    },
    /// Something else.
    Other,
}

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    item_id: Text<'a>,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(borrow, default)]
    transcript: Text<'a>,
    #[serde(borrow, default)]
    call_id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    arguments: Text<'a>,
    #[serde(default)]
    audio_start_ms: Option<u64>,
    #[serde(default)]
    audio_end_ms: Option<u64>,
    #[serde(default)]
    session: Option<Session>,
    #[serde(borrow, default)]
    response: Option<Response<'a>>,
    #[serde(borrow, default)]
    error: Option<Error<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    expires_at: Option<i64>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    status_details: Option<Details<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow, default)]
    error: Option<Error<'a>>,
}

#[derive(Deserialize)]
struct Error<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    code: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    input_token_details: Option<Kinds>,
    #[serde(default)]
    output_token_details: Option<Kinds>,
}

#[derive(Default, Deserialize)]
struct Kinds {
    #[serde(default)]
    audio_tokens: Option<u64>,
}

impl Usage {
    /// What is not said to be audio is text.
    fn tokens(self) -> Tokens {
        let audio = |kinds: Option<Kinds>| kinds.and_then(|k| k.audio_tokens).unwrap_or(0);
        let audio = (audio(self.input_token_details), audio(self.output_token_details));
        let text = (
            self.input_tokens.unwrap_or(0).saturating_sub(audio.0),
            self.output_tokens.unwrap_or(0).saturating_sub(audio.1),
        );
        Tokens { text, audio }
    }
}

/// Reads a message. Fails on what is no message of this protocol.
pub(super) fn read(message: &str) -> Result<Told<'_>, &'static str> {
    // The session that it repeats holds our tools' schemas, which may be nested deeper than vendors' messages are let be.
    let event: Event<'_> = serde_json::from_str(message).map_err(|_| "JSON that is none of its messages")?;
    let item = event.item_id.unwrap_or_default();
    let delta = event.delta.unwrap_or_default();
    Ok(match &*event.kind {
        "session.created" => Told::Created {
            expires_at: event.session.and_then(|s| s.expires_at),
        },
        "session.updated" => Told::Updated,
        "input_audio_buffer.speech_started" => Told::Began {
            item,
            at_ms: event.audio_start_ms.unwrap_or(0),
        },
        "input_audio_buffer.speech_stopped" => Told::Stopped {
            item,
            at_ms: event.audio_end_ms.unwrap_or(u64::MAX),
        },
        "input_audio_buffer.committed" => Told::Committed { item },
        "conversation.item.input_audio_transcription.delta" => Told::Interim { item, delta },
        "conversation.item.input_audio_transcription.completed" => Told::Final {
            item,
            text: event.transcript.unwrap_or_default(),
            tokens: event.usage.unwrap_or_default().tokens(),
        },
        "conversation.item.input_audio_transcription.failed" => Told::Unheard { item },
        "response.created" => Told::Answering {
            response: event.response.and_then(|r| r.id).unwrap_or_default(),
        },
        "response.output_audio.delta" | "response.audio.delta" => Told::Audio { item, data: delta },
        "response.output_audio.done" | "response.audio.done" => Told::AudioOver { item },
        "response.output_audio_transcript.delta" | "response.audio_transcript.delta" => Told::Words { item, delta },
        "response.output_audio_transcript.done" | "response.audio_transcript.done" => Told::WordsOver {
            item,
            text: event.transcript,
        },
        "response.function_call_arguments.done" => {
            let arguments = event.arguments.unwrap_or_default();
            let arguments = serde_json::from_str(&arguments).ok().filter(Value::is_object);
            Told::Wants(Asked {
                id: event.call_id.unwrap_or_default().into_owned(),
                name: event.name.unwrap_or_default().into_owned(),
                arguments: arguments.unwrap_or_else(|| json!({})),
            })
        }
        "response.done" => {
            let response = event.response.ok_or("an answer without itself")?;
            let failed = (response.status.as_deref() == Some("failed")).then(|| {
                let error = response.status_details.and_then(|d| d.error);
                let code = error.and_then(|e| e.code.or(e.kind));
                code.unwrap_or(Cow::Borrowed("no reason")).into_owned()
            });
            Told::Answered {
                response: response.id.unwrap_or_default(),
                tokens: response.usage.unwrap_or_default().tokens(),
                failed,
            }
        }
        "error" => {
            let error = event.error.ok_or("a complaint without itself")?;
            Told::Complaint {
                kind: error.kind.unwrap_or_default(),
                code: error.code.unwrap_or_default(),
                message: error.message.unwrap_or_default(),
            }
        }
        _ => Told::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCM: AudioFormat = AudioFormat {
        encoding: Encoding::L16Le,
        rate: 24_000,
    };

    fn wishes<'a>(shape: Shape, turns: &'a TurnDetection) -> Wishes<'a> {
        Wishes {
            shape,
            instructions: "Be brief.",
            voice: "marin",
            speed: 1.0,
            heard: AudioFormat::ULAW_8K,
            spoken: PCM,
            transcription: "gpt-transcribe",
            language: Some("en"),
            noise_reduction: Some("far_field"),
            turns,
            answers: true,
            interrupts: false,
            tools: &[],
            max_tokens: 0,
        }
    }

    fn value(message: &Message) -> Value {
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[test]
    fn a_session_is_asked_for_in_either_shape() {
        let turns = TurnDetection::Server {
            threshold: 0.5,
            prefix_ms: 300,
            silence_ms: 500,
        };
        let expected = json!({ "type": "session.update", "session": {
            "type": "realtime", "instructions": "Be brief.", "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": { "type": "audio/pcmu" }, "noise_reduction": { "type": "far_field" },
                    "transcription": { "model": "gpt-transcribe", "language": "en" },
                    "turn_detection": { "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
                        "silence_duration_ms": 500, "create_response": true, "interrupt_response": false },
                },
                "output": { "format": { "type": "audio/pcm", "rate": 24000 }, "voice": "marin", "speed": 1.0 },
            },
            "tools": [], "tool_choice": "auto", "max_output_tokens": "inf",
        }});
        assert_eq!(value(&wishes(Shape::Current, &turns).session()), expected);
        let semantic = TurnDetection::Semantic { eagerness: "low" };
        let beta = value(&wishes(Shape::Beta, &semantic).session());
        let session = &beta["session"];
        assert_eq!((&session["type"], &session["audio"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&session["input_audio_format"], &session["output_audio_format"]),
            (&json!("g711_ulaw"), &json!("pcm16"))
        );
        assert_eq!(session["turn_detection"]["eagerness"], "low");
    }

    #[test]
    fn what_it_says_is_read_in_either_shape_and_what_is_new_says_nothing() {
        let read = |text| read(text).unwrap();
        assert_eq!(
            read(r#"{"type":"session.created","event_id":"e","session":{"id":"s","expires_at":1790000000,"new":[1]}}"#),
            Told::Created {
                expires_at: Some(1_790_000_000)
            }
        );
        for kind in ["output_audio", "audio"] {
            let text = format!(r#"{{"type":"response.{kind}.delta","item_id":"i","delta":"AAAA"}}"#);
            let told = Told::Audio {
                item: "i".into(),
                data: "AAAA".into(),
            };
            assert_eq!(super::read(&text), Ok(told));
            let text =
                format!(r#"{{"type":"response.{kind}_transcript.done","item_id":"i","transcript":"Hi \"you\""}}"#);
            let told = Told::WordsOver {
                item: "i".into(),
                text: Some("Hi \"you\"".into()),
            };
            assert_eq!(super::read(&text), Ok(told));
        }
        assert_eq!(read(r#"{"type":"rate_limits.updated","rate_limits":[]}"#), Told::Other);
        assert_eq!(
            read(r#"{"type":"response.function_call_arguments.done","call_id":"c","name":"n","arguments":"no"}"#),
            Told::Wants(Asked {
                id: "c".into(),
                name: "n".into(),
                arguments: json!({})
            })
        );
        let Told::Answered { tokens, failed, .. } = read(
            r#"{"type":"response.done","response":{"id":"r","status":"failed",
                "status_details":{"type":"failed","error":{"type":"server_error","code":null}},
                "usage":{"input_tokens":100,"output_tokens":50,"input_token_details":{"audio_tokens":60,"text_tokens":40},
                    "output_token_details":{"audio_tokens":45}}}}"#,
        ) else {
            panic!()
        };
        let counted = Tokens {
            text: (40, 5),
            audio: (60, 45),
        };
        assert_eq!((tokens, failed.as_deref()), (counted, Some("server_error")));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"type":7}"#,
            r#"{"type":"error"}"#,
            r#"{"type":"response.done"}"#,
        ] {
            assert!(super::read(bad).is_err(), "{bad}");
        }
    }
}
