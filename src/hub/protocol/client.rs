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
    wire::{base64, json},
};
use serde::Deserialize;
use std::{borrow::Cow, fmt};

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
        /// The message it wanted to be, where that is known.
        asked: &'static str,
        /// What is wrong, and where.
        what: String,
        /// The call it named.
        call_id: Option<String>,
    },
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct InitFields {
    call_id: Option<String>,
    language: Option<String>,
    model: Option<String>,
    client_type: Option<String>,
    encoding: Option<String>,
    last_event_id: Option<i64>,
}

#[derive(Deserialize)]
struct SayFields {
    message: String,
    language: Option<String>,
    client_ref: Option<String>,
}

#[derive(Deserialize)]
struct MoveFields {
    status: String,
}

#[derive(Deserialize)]
struct AudioFields<'a> {
    #[serde(borrow)]
    audio_data: Cow<'a, str>,
    sample_rate: Option<u32>,
    encoding: Option<String>,
    target: Option<String>,
    #[serde(default)]
    last: bool,
}

#[derive(Deserialize)]
struct RefreshFields {
    token: String,
}

/// Reads one text message.
pub fn parse(text: &str) -> Result<ClientMessage, Unreadable> {
    if !json::is_bounded(text.as_bytes()) {
        return Err(Unreadable::NotJson);
    }
    let head: Head<'_> = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(e) if e.is_data() => return Err(wrong("", &e, None)),
        Err(_) => return Err(Unreadable::NotJson),
    };
    let call_id = head.call_id.filter(|id| !id.is_empty()).map(Cow::into_owned);
    if call_id.as_ref().is_some_and(|id| id.len() > MAX_CALL_ID) {
        return Err(wrong("", &"call_id is longer than 255 bytes", None));
    }
    let action = match head.kind.as_deref() {
        Some("ping") => return Ok(ClientMessage::Ping),
        Some("init_telephony_stream") => {
            let settings = fields(text).and_then(read_init);
            return settings
                .map(ClientMessage::Init)
                .map_err(|e| wrong("init_telephony_stream", &e, call_id));
        }
        Some("refresh_token") => {
            // What is wrong with it is not repeated: it may hold the token.
            let token = serde_json::from_str::<RefreshFields>(text).map(|f| f.token);
            return token
                .map(ClientMessage::RefreshToken)
                .map_err(|_| wrong("refresh_token", &"token is missing", call_id));
        }
        Some("agent_message") => fields(text).and_then(read_say).map_err(|e| ("agent_message", e)),
        Some("update_call_status") => fields(text).and_then(read_move).map_err(|e| ("update_call_status", e)),
        Some("audio_data") => fields(text).and_then(read_audio).map_err(|e| ("audio_data", e)),
        Some(_) => return Err(wrong("", &"this type of message is not known", call_id)),
        None => return Err(wrong("", &"type is missing", call_id)),
    };
    match action {
        Ok(action) => Ok(ClientMessage::Do { call_id, action }),
        Err((asked, what)) => Err(wrong(asked, &what, call_id)),
    }
}

fn wrong(asked: &'static str, what: &dyn fmt::Display, call_id: Option<String>) -> Unreadable {
    let mut what = match asked {
        "" => what.to_string(),
        _ => format!("{asked}: {what}"),
    };
    // The reader's own words quote what it read, however long.
    what.truncate(what.floor_char_boundary(MAX_COMPLAINT));
    Unreadable::NotAMessage { asked, what, call_id }
}

fn fields<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| Fault::client(Kind::Malformed, e.to_string()))
}

fn read_init(f: InitFields) -> Result<Settings, Fault> {
    let some = |v: Option<String>| v.filter(|t| !t.is_empty());
    Settings {
        call_id: some(f.call_id),
        language: some(f.language),
        model: some(f.model),
        client_type: some(f.client_type),
        encoding: some(f.encoding).map(|e| encoding_named(&e)).transpose()?,
        last_event_id: f.last_event_id,
    }
    .checked()
}

fn read_say(f: SayFields) -> Result<Action, Fault> {
    if f.message.trim().is_empty() {
        return Err(malformed("message is empty"));
    }
    if f.client_ref.as_ref().is_some_and(|r| r.len() > 128) {
        return Err(malformed("client_ref is longer than 128 bytes"));
    }
    let language = Settings {
        language: f.language.filter(|l| !l.is_empty()),
        ..Settings::default()
    };
    Ok(Action::Say(Say {
        text: f.message,
        language: language.checked()?.language.unwrap_or_default(),
        client_ref: f.client_ref,
        sender_name: None,
    }))
}

fn read_move(f: MoveFields) -> Result<Action, Fault> {
    CallStatus::parse(&f.status)
        .filter(|s| *s >= CallStatus::Answered)
        .map(Action::Move)
        .ok_or_else(|| malformed("status is none of answered, in_progress, ended"))
}

fn read_audio(f: AudioFields<'_>) -> Result<Action, Fault> {
    let encoding = f.encoding.as_deref().map_or(Ok(Encoding::Ulaw), encoding_named)?;
    let rate = f.sample_rate.unwrap_or(8000);
    if !AudioFormat::RATES.contains(&rate) {
        return Err(malformed("sample_rate is none of 8000, 16000, 24000, 48000"));
    }
    let to_caller = match f.target.as_deref() {
        None | Some("" | "stt") => false,
        Some("caller") => true,
        Some(_) => return Err(malformed("target is neither caller nor stt")),
    };
    let max = AudioFormat { encoding, rate }.bytes_of_ms(MAX_AUDIO_MS as u32);
    let bytes = base64::decode_vec(f.audio_data.as_bytes(), max)
        .map_err(|_| malformed("audio_data is not base64 of at most 30 seconds of audio"))?;
    let mut samples = vec![0; bytes.len() / encoding.sample_bytes()];
    codec::decode(encoding, &bytes, &mut samples)
        .map_err(|_| malformed("audio_data holds half a sample: L16 has two bytes for each"))?;
    Ok(Action::Hear(Microphone {
        samples,
        rate,
        to_caller,
        last: f.last,
    }))
}

fn encoding_named(name: &str) -> Result<Encoding, Fault> {
    Encoding::parse(name).ok_or_else(|| malformed("encoding is none of MULAW, ALAW, L16"))
}

fn malformed(what: &'static str) -> Fault {
    Fault::client(Kind::Malformed, what)
}
