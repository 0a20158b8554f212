//! What clients of the telephony socket say: JSON text, read.

use crate::{
    access::Role,
    audio::codec,
    base::{
        fault::{Fault, Kind},
        format::{AudioFormat, Encoding},
    },
    control::{Microphone, Say},
    store::CallStatus,
    wire::{base64, json, shape},
};
use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::borrow::Cow;

/// The longest id of a call, in bytes, that is looked up.
const MAX_CALL_ID: usize = 255;
/// The longest complaint sent back, in bytes.
const MAX_COMPLAINT: usize = 256;
/// Audio in one `audio_data`.
const MAX_AUDIO_MS: usize = 30_000;

/// What a client said.
#[derive(Debug)]
pub enum ClientMessage {
    /// Which call, and how; replaces what the query said.
    Init(Settings),
    /// Something to be done to a call.
    Do {
        /// The call as named, if it was.
        call_id: Option<String>,
        /// What.
        action: Action,
    },
    /// Prolongs the session.
    RefreshToken(String),
    /// Wants a pong.
    Ping,
}

/// What a client asks to be done to a call.
#[derive(Debug)]
pub enum Action {
    /// Say this to the caller.
    Say(Say),
    /// Move the call.
    Move(CallStatus),
    /// A piece of the client's microphone.
    Hear(Microphone),
}

impl Action {
    /// The message that asked for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Say(_) => "agent_message",
            Self::Move(_) => "update_call_status",
            Self::Hear(_) => "audio_data",
        }
    }

    /// The least role that may ask.
    pub const fn needs(&self) -> Role {
        match self {
            Self::Say(_) | Self::Move(_) | Self::Hear(_) => Role::Agent,
        }
    }

    /// The frontend's reference, for errors.
    pub fn client_ref(&self) -> Option<String> {
        match self {
            Self::Say(say) => say.client_ref.clone(),
            Self::Move(_) | Self::Hear(_) => None,
        }
    }
}

/// What a client wants to see, from its query or its `init_telephony_stream`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// One call by either id; the whole tenant when `None`.
    pub call_id: Option<String>,
    /// BCP 47, or `auto`: the language of messages that name none.
    pub language: Option<String>,
    /// A recogniser's model. Known to the client alone; echoed.
    pub model: Option<String>,
    /// `telephony`.
    pub client_type: Option<String>,
    /// How synthesized speech is encoded for this client, at 8 kHz; μ-law when `None`.
    pub encoding: Option<Encoding>,
    /// The last event the client saw before it lost its socket.
    pub last_event_id: Option<i64>,
}

impl Settings {
    /// What the query of the upgrade request may hold, beside `token`.
    pub const QUERY: &'static [(&'static str, &'static str)] = &[
        (
            "call_id",
            "The one call to watch, by either id; without one, every call of the tenant.",
        ),
        ("language", "What is spoken, BCP 47, or `auto`."),
        ("model", "A recogniser's model. Echoed."),
        ("client_type", "`telephony`."),
        (
            "encoding",
            "How synthesized speech is encoded, at 8 kHz: MULAW (the default), ALAW or L16.",
        ),
        (
            "last_event_id",
            "The last event that was seen: what followed is sent first.",
        ),
    ];

    /// Reads the query of the upgrade request. An empty value is no value; the last of several counts.
    pub fn from_query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, Fault> {
        let mut s = Self::default();
        for (name, value) in pairs.filter(|(_, v)| !v.is_empty()) {
            let text = || Some(value.to_owned());
            match name {
                "call_id" => s.call_id = text(),
                "language" => s.language = text(),
                "model" => s.model = text(),
                "client_type" => s.client_type = text(),
                "encoding" => s.encoding = Some(encoding_named(value)?),
                "last_event_id" => {
                    let id = value
                        .parse()
                        .map_err(|_| malformed("last_event_id is not a whole number"))?;
                    s.last_event_id = Some(id);
                }
                _ => {}
            }
        }
        s.checked()
    }

    /// Whether the client has said enough to be served without an `init_telephony_stream`.
    pub const fn suffice(&self) -> bool {
        self.call_id.is_some() || self.client_type.is_some()
    }

    fn checked(self) -> Result<Self, Fault> {
        let tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        let fits = |v: &Option<String>, max| v.as_ref().is_none_or(|t| t.len() <= max && t.chars().all(tag));
        if self.call_id.as_ref().is_some_and(|id| id.len() > MAX_CALL_ID) {
            return Err(malformed("call_id is longer than 255 bytes"));
        }
        if !fits(&self.language, 35) {
            return Err(malformed("language is not auto or a language tag such as en or pt-BR"));
        }
        if !fits(&self.model, 64) {
            return Err(malformed("model is not a name of at most 64 characters"));
        }
        if self.client_type.as_deref().is_some_and(|t| t != "telephony") {
            return Err(malformed("client_type is not telephony"));
        }
        Ok(self)
    }
}

/// Why a client's message was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not JSON, nested too deep, or an object with too many members.
    NotJson,
    /// JSON, and not a message of this protocol.
    NotAMessage {
        /// The message it wanted to be; empty where that is not said.
        asked: String,
        /// What is wrong, and where.
        what: String,
        /// The call it named.
        call_id: Option<String>,
    },
}

/// A message as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::hub) struct Written<'a> {
    /// The call it is about, by either id; without one, the call of the socket.
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
    /// When it was said, by the client's clock. Taken and not used.
    #[serde(rename = "timestamp")]
    #[schemars(with = "Option<String>")]
    _timestamp: Option<IgnoredAny>,
    #[serde(borrow, flatten)]
    request: Request<'a>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Request<'a> {
    /// Which call is watched (without `call_id` the whole tenant), and how. Replaces what the query said.
    InitTelephonyStream {
        /// What is spoken, BCP 47, or `auto`.
        language: Option<String>,
        /// A recogniser's model. Echoed.
        model: Option<String>,
        /// `telephony`.
        client_type: Option<String>,
        /// How synthesized speech is encoded for this client, at 8 kHz: MULAW (the default), ALAW or L16.
        encoding: Option<String>,
        /// The last event the client saw before it lost its socket: what followed is sent first.
        last_event_id: Option<i64>,
    },
    /// Words to say to the caller. Needs the role agent.
    AgentMessage {
        /// The words.
        message: String,
        /// Their language, BCP 47, or `auto`.
        language: Option<String>,
        /// Given back with what becomes of the message; at most 128 bytes.
        client_ref: Option<String>,
    },
    /// Moves the call. Needs the role agent.
    UpdateCallStatus {
        /// Where to.
        status: Move,
    },
    /// A piece of the client's microphone. Needs the role agent.
    AudioData {
        /// At most 30 seconds in base64.
        #[serde(borrow)]
        audio_data: Cow<'a, str>,
        /// Samples a second: 8000 (the default), 16000, 24000 or 48000.
        sample_rate: Option<u32>,
        /// MULAW (the default), ALAW or L16.
        encoding: Option<String>,
        /// Who hears it.
        target: Option<Target>,
        /// Whether the client stops talking with it.
        #[serde(default)]
        last: bool,
    },
    /// Prolongs the session.
    RefreshToken {
        /// A fresh token of the same tenant.
        token: String,
    },
    /// Wants a pong.
    Ping {},
}

/// Where a client may move a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Move {
    Answered,
    InProgress,
    Ended,
}

/// Who hears a client's microphone.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Target {
    /// The caller.
    Caller,
    /// The recogniser.
    #[serde(alias = "")]
    Stt,
}

/// Reads one text message.
pub fn parse(text: &str) -> Result<ClientMessage, Unreadable> {
    if !json::is_bounded(text.as_bytes()) {
        return Err(Unreadable::NotJson);
    }
    let Written { call_id, request, .. } = match serde_json::from_str(text) {
        Ok(written) => written,
        Err(e) if e.is_data() => return Err(unread(text)),
        Err(_) => return Err(Unreadable::NotJson),
    };
    let call_id = call_id.filter(|id| !id.is_empty()).map(Cow::into_owned);
    if call_id.as_ref().is_some_and(|id| id.len() > MAX_CALL_ID) {
        return Err(wrong("", "call_id is longer than 255 bytes", None));
    }
    let (asked, action) = match request {
        Request::Ping {} => return Ok(ClientMessage::Ping),
        Request::RefreshToken { token } => return Ok(ClientMessage::RefreshToken(token)),
        Request::InitTelephonyStream {
            language,
            model,
            client_type,
            encoding,
            last_event_id,
        } => {
            let some = |v: Option<String>| v.filter(|t| !t.is_empty());
            let encoding = some(encoding).map(|e| encoding_named(&e)).transpose();
            let settings = encoding.and_then(|encoding| {
                Settings {
                    call_id: call_id.clone(),
                    language: some(language),
                    model: some(model),
                    client_type: some(client_type),
                    encoding,
                    last_event_id,
                }
                .checked()
            });
            return settings
                .map(ClientMessage::Init)
                .map_err(|e| wrong("init_telephony_stream", &e.message, call_id));
        }
        Request::AgentMessage {
            message,
            language,
            client_ref,
        } => ("agent_message", read_say(message, language, client_ref)),
        Request::UpdateCallStatus { status } => {
            let status = match status {
                Move::Answered => CallStatus::Answered,
                Move::InProgress => CallStatus::InProgress,
                Move::Ended => CallStatus::Ended,
            };
            ("update_call_status", Ok(Action::Move(status)))
        }
        Request::AudioData {
            audio_data,
            sample_rate,
            encoding,
            target,
            last,
        } => {
            let microphone =
                read_audio(&audio_data, sample_rate, encoding.as_deref()).map(|(samples, rate)| Microphone {
                    samples,
                    rate,
                    to_caller: target == Some(Target::Caller),
                    last,
                });
            ("audio_data", microphone.map(Action::Hear))
        }
    };
    match action {
        Ok(action) => Ok(ClientMessage::Do { call_id, action }),
        Err(fault) => Err(wrong(asked, &fault.message, call_id)),
    }
}

/// What is wrong with JSON that is no message.
fn unread(text: &str) -> Unreadable {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let word = |name: &str| value[name].as_str().filter(|word| !word.is_empty());
    let call_id = word("call_id").filter(|id| id.len() <= MAX_CALL_ID).map(str::to_owned);
    // A value that fits, and was not read, had a member twice.
    let what = shape::difference::<Written<'_>>(&value, "a message");
    let what = what.unwrap_or_else(|| "a member stands in it twice".to_owned());
    // What is wrong with the type is no fault of the message that it names.
    let asked = word("type").filter(|_| !what.starts_with("type "));
    wrong(asked.unwrap_or_default(), &what, call_id)
}

fn wrong(asked: &str, what: &str, call_id: Option<String>) -> Unreadable {
    let mut what = match asked {
        "" => what.to_owned(),
        _ => format!("{asked}: {what}"),
    };
    what.truncate(what.floor_char_boundary(MAX_COMPLAINT));
    let asked = asked.to_owned();
    Unreadable::NotAMessage { asked, what, call_id }
}

fn read_say(message: String, language: Option<String>, client_ref: Option<String>) -> Result<Action, Fault> {
    if message.trim().is_empty() {
        return Err(malformed("message is empty"));
    }
    if client_ref.as_ref().is_some_and(|r| r.len() > 128) {
        return Err(malformed("client_ref is longer than 128 bytes"));
    }
    let language = Settings {
        language: language.filter(|l| !l.is_empty()),
        ..Settings::default()
    };
    Ok(Action::Say(Say {
        text: message,
        language: language.checked()?.language.unwrap_or_default(),
        client_ref,
        sender_name: None,
    }))
}

/// Samples and their rate.
fn read_audio(data: &str, rate: Option<u32>, encoding: Option<&str>) -> Result<(Vec<i16>, u32), Fault> {
    let encoding = encoding.map_or(Ok(Encoding::Ulaw), encoding_named)?;
    let rate = rate.unwrap_or(8000);
    if !AudioFormat::RATES.contains(&rate) {
        return Err(malformed("sample_rate is none of 8000, 16000, 24000, 48000"));
    }
    let max = AudioFormat { encoding, rate }.bytes_of_ms(MAX_AUDIO_MS as u32);
    let bytes = base64::decode_vec(data.as_bytes(), max)
        .map_err(|_| malformed("audio_data is not base64 of at most 30 seconds of audio"))?;
    let mut samples = vec![0; bytes.len() / encoding.sample_bytes()];
    codec::decode(encoding, &bytes, &mut samples)
        .map_err(|_| malformed("audio_data holds half a sample: L16 has two bytes for each"))?;
    Ok((samples, rate))
}

fn encoding_named(name: &str) -> Result<Encoding, Fault> {
    Encoding::parse(name).ok_or_else(|| malformed("encoding is none of MULAW, ALAW, L16"))
}

fn malformed(what: &'static str) -> Fault {
    Fault::client(Kind::Malformed, what)
}
