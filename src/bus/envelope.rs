//! Events as bytes between nodes: JSON with the version of this format and the node it comes from. Pure.
//!
//! What comes from another node is believed as little as anything from the network: it is bounded before it is read, words are
//! those that we know ourselves, and whatever is not understood is refused as a whole.

use super::{Event, News};
use crate::{
    base::{
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    vendor::{self, EndReason},
    wire::base64,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// The version of everything that nodes say to each other. Nodes of another version are not understood, nor do they understand us.
pub const VERSION: u16 = 1;

/// The longest message between nodes, in bytes. A server's own bound is four times this by default.
pub const MAX_BYTES: usize = 256 * 1024;

/// Speech in one event at most, in bytes of sound.
const MAX_AUDIO: usize = 64 * 1024;

/// Where a call may stand.
const STATUSES: [&str; 6] = ["initiated", "ringing", "incoming", "answered", "in_progress", "ended"];
/// Who speaks.
const SENDERS: [&str; 2] = ["customer", "agent"];
/// What becomes of a message.
const DELIVERIES: [&str; 4] = ["stored", "heard", "cut", "failed"];
/// Faults that are no vendor's.
const CODES: [&str; 3] = ["CONNECTION_FAILED", "STT_ERROR", "TTS_ERROR"];

/// Why a message of another node is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// Longer than [`MAX_BYTES`].
    TooLong,
    /// Of another version.
    Version,
    /// Not of the shape that its version has.
    Shape,
    /// It came where another tenant's messages come.
    Tenant,
}

impl BadMessage {
    /// The reason, as a metric counts it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Version => "version",
            Self::Shape => "shape",
            Self::Tenant => "tenant",
        }
    }
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::Version => "of another version",
            Self::Shape => "not of the shape of its version",
            Self::Tenant => "of another tenant than its subject",
        })
    }
}

impl std::error::Error for BadMessage {}

/// The version alone, which is looked at first.
#[derive(Deserialize)]
struct Versioned {
    v: u16,
}

/// Reads a message of this version into its type.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadMessage> {
    if bytes.len() > MAX_BYTES {
        return Err(BadMessage::TooLong);
    }
    let Versioned { v } = serde_json::from_slice(bytes).map_err(|_| BadMessage::Shape)?;
    if v != VERSION {
        return Err(BadMessage::Version);
    }
    serde_json::from_slice(bytes).map_err(|_| BadMessage::Shape)
}

/// Writes a message, unless it is longer than others would read.
pub fn write<T: Serialize>(message: &T) -> Result<Vec<u8>, BadMessage> {
    let bytes = serde_json::to_vec(message).map_err(|_| BadMessage::Shape)?;
    match bytes.len() {
        0..=MAX_BYTES => Ok(bytes),
        _ => Err(BadMessage::TooLong),
    }
}

/// An event on its way.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    v: u16,
    tenant: i64,
    call: Cow<'a, str>,
    id: Option<i64>,
    /// Microseconds since the epoch.
    at: i64,
    news: Told<'a>,
}

/// [`News`] on its way.
#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Told<'a> {
    Status {
        status: Cow<'a, str>,
        end_reason: Option<Cow<'a, str>>,
        customer_number: Cow<'a, str>,
        organization_number: Cow<'a, str>,
        call_sid: Cow<'a, str>,
        inbound: bool,
        duration: Option<i64>,
    },
    Transcript {
        text: Cow<'a, str>,
        sender: Cow<'a, str>,
        is_final: bool,
        confidence: Option<f32>,
        detected_language: Option<Cow<'a, str>>,
        message_id: Option<Cow<'a, str>>,
    },
    TtsAudio {
        message_id: Cow<'a, str>,
        message: Cow<'a, str>,
        /// Base64.
        audio: String,
        seq: u32,
        last: bool,
    },
    MessageStatus {
        message_id: Cow<'a, str>,
        client_ref: Option<Cow<'a, str>>,
        status: Cow<'a, str>,
        heard_ms: u32,
        message: Cow<'a, str>,
    },
    Dtmf {
        digit: char,
    },
    Handoff {
        agent: Cow<'a, str>,
    },
    Fault {
        code: Cow<'a, str>,
        vendor: Option<Cow<'a, str>>,
        message: Cow<'a, str>,
        message_id: Option<Cow<'a, str>>,
        of_stream: bool,
    },
}

/// Writes an event.
pub fn write_event(event: &Event) -> Result<Vec<u8>, BadMessage> {
    write(&Envelope {
        v: VERSION,
        tenant: event.tenant.0,
        call: event.call.as_str().into(),
        id: event.id,
        at: event.at.as_micros(),
        news: told(&event.news),
    })
}

/// Reads an event that came where those of `tenant` come.
pub fn read_event(bytes: &[u8], tenant: TenantId) -> Result<Event, BadMessage> {
    let envelope: Envelope<'_> = read(bytes)?;
    if envelope.tenant != tenant.0 {
        return Err(BadMessage::Tenant);
    }
    let call: CallId = envelope.call.parse().map_err(|_| BadMessage::Shape)?;
    Ok(Event {
        tenant,
        call,
        id: envelope.id,
        at: Wall::from_micros(envelope.at),
        news: news(envelope.news).ok_or(BadMessage::Shape)?,
    })
}

fn told(news: &News) -> Told<'_> {
    let message = |id: &MessageId| Cow::Owned(id.to_string());
    match news {
        News::Status {
            status,
            end_reason,
            customer_number,
            organization_number,
            call_sid,
            inbound,
            duration,
        } => Told::Status {
            status: (*status).into(),
            end_reason: end_reason.map(Into::into),
            customer_number: customer_number.into(),
            organization_number: organization_number.into(),
            call_sid: call_sid.into(),
            inbound: *inbound,
            duration: *duration,
        },
        News::Transcript {
            text,
            sender,
            is_final,
            confidence,
            detected_language,
            message_id,
        } => Told::Transcript {
            text: text.into(),
            sender: (*sender).into(),
            is_final: *is_final,
            confidence: *confidence,
            detected_language: detected_language.as_deref().map(Into::into),
            message_id: message_id.as_ref().map(message),
        },
        News::TtsAudio {
            message_id,
            message: text,
            audio,
            seq,
            last,
        } => Told::TtsAudio {
            message_id: message(message_id),
            message: text.into(),
            audio: base64::encode_string(audio),
            seq: *seq,
            last: *last,
        },
        News::MessageStatus {
            message_id,
            client_ref,
            status,
            heard_ms,
            message: text,
        } => Told::MessageStatus {
            message_id: message(message_id),
            client_ref: client_ref.as_deref().map(Into::into),
            status: (*status).into(),
            heard_ms: *heard_ms,
            message: text.into(),
        },
        News::Dtmf(digit) => Told::Dtmf { digit: *digit },
        News::Handoff { agent } => Told::Handoff { agent: agent.into() },
        News::Fault {
            code,
            vendor,
            message: text,
            message_id,
            of_stream,
        } => Told::Fault {
            code: (*code).into(),
            vendor: vendor.map(Into::into),
            message: text.into(),
            message_id: message_id.as_ref().map(message),
            of_stream: *of_stream,
        },
    }
}

fn news(told: Told<'_>) -> Option<News> {
    Some(match told {
        Told::Status {
            status,
            end_reason,
            customer_number,
            organization_number,
            call_sid,
            inbound,
            duration,
        } => News::Status {
            status: word(&STATUSES, &status)?,
            end_reason: optional(end_reason, |r| EndReason::parse(r).map(EndReason::as_str))?,
            customer_number: customer_number.into_owned(),
            organization_number: organization_number.into_owned(),
            call_sid: call_sid.into_owned(),
            inbound,
            duration,
        },
        Told::Transcript {
            text,
            sender,
            is_final,
            confidence,
            detected_language,
            message_id,
        } => News::Transcript {
            text: text.into_owned(),
            sender: word(&SENDERS, &sender)?,
            is_final,
            confidence,
            detected_language: detected_language.map(Cow::into_owned),
            message_id: optional(message_id, |id| id.parse().ok())?,
        },
        Told::TtsAudio {
            message_id,
            message,
            audio,
            seq,
            last,
        } => News::TtsAudio {
            message_id: message_id.parse().ok()?,
            message: message.into_owned(),
            audio: base64::decode_vec(audio.as_bytes(), MAX_AUDIO).ok()?.into(),
            seq,
            last,
        },
        Told::MessageStatus {
            message_id,
            client_ref,
            status,
            heard_ms,
            message,
        } => News::MessageStatus {
            message_id: message_id.parse().ok()?,
            client_ref: client_ref.map(Cow::into_owned),
            status: word(&DELIVERIES, &status)?,
            heard_ms,
            message: message.into_owned(),
        },
        Told::Dtmf { digit } => News::Dtmf(digit),
        Told::Handoff { agent } => News::Handoff {
            agent: agent.into_owned(),
        },
        Told::Fault {
            code,
            vendor,
            message,
            message_id,
            of_stream,
        } => News::Fault {
            code: code_word(&code)?,
            vendor: optional(vendor, |name| vendor::by_name(name).map(|v| v.name))?,
            message: message.into_owned(),
            message_id: optional(message_id, |id| id.parse().ok())?,
            of_stream,
        },
    })
}

/// Our own copy of a word, if it is one of these.
fn word(words: &[&'static str], word: &str) -> Option<&'static str> {
    words.iter().copied().find(|w| *w == word)
}

fn code_word(code: &str) -> Option<&'static str> {
    let vendors = vendor::all().iter().map(|v| v.error_code);
    CODES.into_iter().chain(vendors).find(|c| *c == code)
}

/// What is not there is well; what is there must be understood.
fn optional<T>(value: Option<Cow<'_, str>>, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => read(&value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TENANT: TenantId = TenantId(7);

    fn event(news: News) -> Event {
        Event {
            tenant: TENANT,
            call: CallId::new(),
            id: Some(12),
            at: Wall::from_micros(1_700_000_000_123_456),
            news,
        }
    }

    fn status(status: &'static str, end_reason: Option<&'static str>) -> News {
        News::Status {
            status,
            end_reason,
            customer_number: "+14155550100".into(),
            organization_number: "sip:desk@example.org".into(),
            call_sid: "CA1".into(),
            inbound: true,
            duration: end_reason.map(|_| 12),
        }
    }

    fn each() -> Vec<News> {
        let id = Some(MessageId::new());
        let mut all: Vec<News> = STATUSES.iter().map(|s| status(s, None)).collect();
        all.extend(EndReason::ALL.iter().map(|r| status("ended", Some(r.as_str()))));
        all.extend(SENDERS.map(|sender| News::Transcript {
            text: "h\u{e9}llo \"you\"\n".into(),
            sender,
            is_final: sender == "agent",
            confidence: Some(0.25),
            detected_language: Some("en-US".into()),
            message_id: id,
        }));
        all.extend(DELIVERIES.map(|status| News::MessageStatus {
            message_id: MessageId::new(),
            client_ref: Some("r-1".into()),
            status,
            heard_ms: 40,
            message: "hello".into(),
        }));
        let codes = CODES.into_iter().chain(vendor::all().iter().map(|v| v.error_code));
        all.extend(codes.map(|code| News::Fault {
            code,
            vendor: Some(vendor::all()[0].name),
            message: "gone".into(),
            message_id: None,
            of_stream: true,
        }));
        all.extend([
            News::TtsAudio {
                message_id: MessageId::new(),
                message: "hello".into(),
                audio: (0..=255u8).collect::<Vec<_>>().into(),
                seq: 3,
                last: true,
            },
            News::Dtmf('#'),
            News::Handoff { agent: "human".into() },
        ]);
        all
    }

    #[test]
    fn all_news_comes_through_as_it_was() {
        for news in each() {
            let sent = event(news);
            let bytes = write_event(&sent).unwrap();
            let read = read_event(&bytes, TENANT).unwrap();
            assert_eq!(format!("{sent:?}"), format!("{read:?}"));
        }
    }

    #[test]
    fn what_is_not_ours_to_believe_is_refused_by_its_reason() {
        let bytes = write_event(&event(status("answered", None))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let refused = |text: &str| read_event(text.as_bytes(), TENANT).unwrap_err();
        assert_eq!(
            read_event(text.as_bytes(), TenantId(8)).unwrap_err(),
            BadMessage::Tenant
        );
        assert_eq!(refused(&text.replace("\"v\":1", "\"v\":2")), BadMessage::Version);
        assert_eq!(refused(&text.replace("\"answered\"", "\"stolen\"")), BadMessage::Shape);
        assert_eq!(refused(&text.replace("\"call_", "\"ca ll_")), BadMessage::Shape);
        assert_eq!(refused("{}"), BadMessage::Shape);
        assert_eq!(refused(&" ".repeat(MAX_BYTES + 1)), BadMessage::TooLong);
        let long = News::Handoff {
            agent: "x".repeat(MAX_BYTES),
        };
        assert_eq!(write_event(&event(long)).unwrap_err(), BadMessage::TooLong);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_event(&bytes, TENANT);
        }
    }
}
