//! What clients of the telephony socket are told: news, answers and errors, written as JSON text.

use crate::{
    audio::codec,
    base::{
        format::{AudioFormat, Encoding},
        ids::{CallId, MessageId},
        time::Wall,
    },
    bus::{Event, News},
    store::{CallRow, CallStatus, EventRow},
    wire::base64,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;

/// What a client is told. News that was stored carries its `id`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
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
