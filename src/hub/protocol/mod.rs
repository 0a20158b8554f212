//! The messages of the telephony socket, both ways, as JSON text. Pure: no socket, no clock, no call is looked up.
//!
//! Names and fields are those that existing frontends speak; what sidetone adds (`id`, `client_ref`, `seq`, …) stands beside
//! them. Unknown members are ignored, an unknown `type` is not.

use crate::{
    access::Role,
    audio::codec,
    base::{
        fault::{Fault, Kind, Origin},
        format::{AudioFormat, Encoding},
        ids::{CallId, MessageId},
        time::Wall,
    },
    bus::{Event, News},
    control::{Microphone, Say},
    store::{CallRow, CallStatus, EventRow},
    wire::{base64, json},
};
use serde::{Deserialize, Serialize};
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

/// What a client is told. News that was stored carries its `id`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The client is served from now on.
    TelephonyConnected {
        /// Our id of the one call, or null for the whole tenant.
        call_id: Option<CallId>,
        /// The vendor's id of it.
        call_sid: Option<&'a str>,
        /// `ready`.
        status: &'static str,
        /// As asked for.
        language: Option<&'a str>,
        /// As asked for.
        model: Option<&'a str>,
    },
    /// A call moved, or stands so (`snapshot`).
    CallStatusUpdate {
        /// The call.
        call_id: CallId,
        /// Where it stands.
        status: &'static str,
        /// Why it ended.
        end_reason: Option<&'static str>,
        /// The far party.
        customer_number: &'a str,
        /// Our number.
        organization_number: &'a str,
        /// How long it was, in seconds, once it ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        duration: Option<i64>,
        /// When.
        timestamp: Wall,
        /// Marks what a client that has just come is told of calls as they stand.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
        /// Position in the tenant's order.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
    },
    /// Words were recognised.
    CustomerTranscript {
        /// The call.
        call_id: CallId,
        /// The words.
        transcript: &'a str,
        /// `customer`, or `agent` for a frontend's microphone on a call with a vendor leg.
        sender: &'a str,
        /// Whether they are final.
        is_final: bool,
        /// 0..1, where it means something.
        confidence: Option<f64>,
        /// Where it was detected.
        detected_language: Option<&'a str>,
        /// The stored message.
        message_id: Option<MessageId>,
        /// Whether it is on disk.
        stored: bool,
        /// When.
        timestamp: Wall,
        /// Position in the tenant's order.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
    },
    /// Synthesized speech on its way to the caller.
    AgentTtsAudio {
        /// The call.
        call_id: CallId,
        /// Base64.
        audio_data: String,
        /// The text that was synthesized.
        message: &'a str,
        /// When.
        timestamp: Wall,
        /// The message it speaks.
        message_id: MessageId,
        /// How the samples are written.
        encoding: &'static str,
        /// Samples a second.
        sample_rate: u32,
        /// Chunk number from 0.
        seq: u32,
        /// Whether the message ends with it.
        last: bool,
    },
    /// What became of a message said to the caller.
    AgentMessageStatus {
        /// The call.
        call_id: CallId,
        /// The stored message.
        message_id: MessageId,
        /// The frontend's own reference.
        client_ref: Option<&'a str>,
        /// `stored`, `heard`, `cut`, `failed`.
        status: &'static str,
        /// How much was heard.
        heard_ms: u32,
        /// The words.
        message: &'a str,
        /// When.
        timestamp: Wall,
        /// Position in the tenant's order.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
    },
    /// The caller pressed a key.
    Dtmf {
        /// The call.
        call_id: CallId,
        /// Which.
        digit: char,
        /// When.
        timestamp: Wall,
        /// Position in the tenant's order.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
    },
    /// The call was given to another agent, as to a person.
    CallHandoff {
        /// The call.
        call_id: CallId,
        /// Who serves it now.
        agent: &'a str,
        /// When.
        timestamp: Wall,
        /// Position in the tenant's order.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
    },
    /// Something went wrong.
    TelephonyError {
        /// The call, where one is concerned.
        call_id: Option<&'a str>,
        /// One of the protocol's codes.
        error_code: &'static str,
        /// What a person can act on.
        message: &'a str,
        /// The vendor at fault.
        #[serde(skip_serializing_if = "Option::is_none")]
        vendor: Option<&'static str>,
        /// The stored message concerned.
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        /// The client's own reference of its request.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_ref: Option<&'a str>,
        /// When.
        timestamp: Wall,
    },
    /// The session lives on.
    TokenRefreshed {
        /// Until when.
        expires_at: Option<Wall>,
    },
    /// Live messages were left out because the client reads too slowly, or missed events because they are no longer kept.
    Gap {
        /// How many.
        dropped: u64,
    },
    /// Answers a ping.
    Pong,
}

/// What may happen to a message that waits for a slow client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Must arrive, or the client must start anew.
    Event,
    /// Words that will change: the next supersede them.
    Interim,
    /// Worth nothing late.
    Audio,
}

impl<'a> ServerMessage<'a> {
    /// The text of the message.
    pub fn text(&self) -> String {
        // Writing strings and numbers into memory has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How it may be treated when it waits.
    pub const fn class(&self) -> Class {
        match self {
            Self::AgentTtsAudio { .. } => Class::Audio,
            Self::CustomerTranscript { is_final: false, .. } => Class::Interim,
            _ => Class::Event,
        }
    }

    /// A call as it stands.
    pub fn snapshot(row: &'a CallRow) -> Self {
        Self::CallStatusUpdate {
            call_id: row.call_id,
            status: row.status.as_str(),
            end_reason: row.end_reason.map(|r| r.as_str()),
            customer_number: &row.customer_number,
            organization_number: &row.organization_number,
            duration: row.duration,
            timestamp: row.end_time.or(row.answered_at).unwrap_or(row.start_time),
            snapshot: true,
            id: None,
        }
    }

    /// News of a call. `encoding` is how the client wants speech, at 8 kHz.
    pub fn news(event: &'a Event, encoding: Encoding) -> Self {
        let (call_id, timestamp, id) = (event.call, event.at, event.id);
        match &event.news {
            News::Status {
                status,
                end_reason,
                customer_number,
                organization_number,
                duration,
                ..
            } => Self::CallStatusUpdate {
                call_id,
                status,
                end_reason: *end_reason,
                customer_number,
                organization_number,
                duration: *duration,
                timestamp,
                snapshot: false,
                id,
            },
            News::Transcript {
                text,
                sender,
                is_final,
                confidence,
                detected_language,
                message_id,
            } => Self::CustomerTranscript {
                call_id,
                transcript: text,
                sender,
                is_final: *is_final,
                confidence: confidence.map(|c| short(c.into())),
                detected_language: detected_language.as_deref(),
                message_id: *message_id,
                stored: message_id.is_some(),
                timestamp,
                id,
            },
            News::TtsAudio {
                message_id,
                message,
                audio,
                seq,
                last,
            } => Self::AgentTtsAudio {
                call_id,
                audio_data: base64::encode_string(&transcode(audio, encoding)),
                message,
                timestamp,
                message_id: *message_id,
                encoding: encoding.name(),
                sample_rate: AudioFormat::ULAW_8K.rate,
                seq: *seq,
                last: *last,
            },
            News::MessageStatus {
                message_id,
                client_ref,
                status,
                heard_ms,
                message,
            } => Self::AgentMessageStatus {
                call_id,
                message_id: *message_id,
                client_ref: client_ref.as_deref(),
                status,
                heard_ms: *heard_ms,
                message,
                timestamp,
                id,
            },
            News::Dtmf(digit) => Self::Dtmf {
                call_id,
                digit: *digit,
                timestamp,
                id,
            },
            News::Handoff { agent } => Self::CallHandoff {
                call_id,
                agent,
                timestamp,
                id,
            },
            News::Fault {
                code,
                vendor,
                message,
                message_id,
                ..
            } => Self::TelephonyError {
                call_id: Some(event.call.as_str()),
                error_code: code,
                message,
                vendor: *vendor,
                message_id: *message_id,
                client_ref: None,
                timestamp,
            },
        }
    }
}

/// An event as it was stored, for a client that missed it, and the status it tells if it tells one.
/// `None` where the store holds no JSON object.
pub fn replayed(row: &EventRow) -> Option<(String, Option<CallStatus>)> {
    let mut event: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&row.payload).ok()?;
    let mut status = None;
    match event.get("type")?.as_str()? {
        "customer_transcript" => {
            event.insert("stored".to_owned(), true.into());
            if let Some(confidence) = event.get_mut("confidence") {
                *confidence = confidence.as_f64().map(short).into();
            }
        }
        "call_status_update" => status = event.get("status")?.as_str().and_then(CallStatus::parse),
        _ => {}
    }
    event.insert("id".to_owned(), row.id.into());
    Some((serde_json::to_string(&event).ok()?, status))
}

/// `error_code` of a fault in answer to the message named `asked`. A vendor's own code is the caller's to know.
pub fn error_code(origin: Origin, asked: &str) -> &'static str {
    match (origin, asked) {
        (Origin::Client | Origin::Backend, "audio_data") => "STT_ERROR",
        (Origin::Backend, _) => "TTS_ERROR",
        (Origin::Vendor, _) => "VENDOR_ERROR",
        (Origin::Client | Origin::Us, _) => "CONNECTION_FAILED",
    }
}

/// A confidence as people write it: `0.95`, not the nearest binary fraction of an `f32`.
fn short(confidence: f64) -> f64 {
    (confidence * 1e4).round() / 1e4
}

fn transcode(ulaw: &[u8], encoding: Encoding) -> Cow<'_, [u8]> {
    if encoding == Encoding::Ulaw {
        return Cow::Borrowed(ulaw);
    }
    let mut samples = vec![0; ulaw.len()];
    let mut bytes = vec![0; encoding.bytes(ulaw.len())];
    // A byte of μ-law is a sample, so no length can be odd.
    let n = codec::decode(Encoding::Ulaw, ulaw, &mut samples).unwrap_or_default();
    codec::encode(encoding, &samples[..n], &mut bytes);
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests;
