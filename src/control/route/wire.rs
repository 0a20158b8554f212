//! What nodes ask each other about calls, and answer, as JSON. Pure.
//!
//! A node that asks has checked its client and names the client's tenant; the node that answers looks for the call among that
//! tenant's alone. What a call's record says is not sent: both read the same store.

use super::claim::{Claim, Given};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        format::{AudioFormat, Encoding},
        ids::{ConnectionId, MessageId},
        phone::is_e164,
    },
    bus::envelope::{self, BadMessage, VERSION},
    control::{LiveCall, Mute, Silence, call::Words},
    store::CallStatus,
    vendor::{Answer, CallNews, CallUpdate, EndReason},
    wire::base64,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest text said to a caller at once, in bytes.
const MAX_TEXT: usize = 4000;
/// Keys sent at once.
const MAX_DIGITS: usize = 64;
/// How long an order may take that ends with a commit.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same where the vendor is asked first.
const LONG_PATIENCE: Duration = Duration::from_secs(62);

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::control) struct Question {
    v: u16,
    pub(super) asked: Asked,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Asked {
    /// Do this to a call of a tenant's.
    Do { tenant: i64, call: String, order: Order },
    /// What is live of a tenant's calls, or of one of them.
    Live { tenant: i64, call: Option<String> },
    /// Let go of the call of a stream that came here.
    Claim(Claim),
    /// News of a call from its vendor, at the path of a number's if one is named. With `answer`, the vendor waits for how to
    /// answer the call.
    News {
        vendor: String,
        line: Option<String>,
        update: Update,
        answer: bool,
    },
}

/// What is to be done to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Order {
    /// Say words to the caller.
    Say {
        text: String,
        language: Option<String>,
        client_ref: Option<String>,
        sender_name: Option<String>,
    },
    /// Move it to a status, which is not its end.
    Move(String),
    /// Understand it in another language.
    Language(String),
    /// Stop its audio, or let it pass again.
    Mute {
        inbound: Option<bool>,
        outbound: Option<bool>,
    },
    /// Stop its recording, or let it go on.
    Record(bool),
    /// Drop what is queued at the vendor: one chunk, the last one, or everything. The call is named by its media socket.
    Silence { everything: bool, chunk: Option<u64> },
    /// Send keys.
    Digits(String),
    /// Hand it to a number.
    Transfer(String),
    /// A person takes it, or hands it back.
    Person { takes: bool, by: String },
    /// End it.
    HangUp,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Told {
    /// It is done, and durable.
    Done,
    /// The message that will be said.
    Message(String),
    /// What is stopped now.
    Muted { inbound: bool, outbound: bool },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    v: u16,
    said: Said,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Said {
    /// The call is not here.
    NotHere,
    /// It is, and this became of the order.
    Told(Told),
    /// It is, and the order was not carried out.
    Fault {
        origin: String,
        kind: String,
        message: String,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// What is live here.
    Live(Vec<Live>),
    /// How the vendor is answered.
    Answer(Connect),
    /// The call is yours.
    Given(Given),
}

/// What is live of a call, beside its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::control) struct Live {
    pub(super) call: String,
    connection: Option<String>,
    /// The vendor's id of the stream, and the encoding and rate of the caller's audio.
    stream: Option<(String, String, u32)>,
}

/// News from a vendor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::control) struct Update {
    call_sid: String,
    from: String,
    to: String,
    inbound: bool,
    news: String,
    end_reason: Option<String>,
    dedup_key: String,
    duration_s: Option<u32>,
    #[serde(default)]
    key: Option<char>,
    #[serde(default)]
    why: Option<String>,
}

/// How a vendor is told to connect a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Connect {
    Stream {
        url: String,
        token: String,
        status_url: String,
        session_id: String,
    },
    Busy,
    HangUp,
}

/// A piece of a frontend's microphone for a call of another node's.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::control) struct Piece {
    v: u16,
    pub(super) tenant: i64,
    pub(super) call: String,
    rate: u32,
    to_caller: bool,
    last: bool,
    /// Little-endian samples in base64.
    audio: String,
}

const ORIGINS: [(&str, Origin); 4] = [
    ("client", Origin::Client),
    ("vendor", Origin::Vendor),
    ("backend", Origin::Backend),
    ("us", Origin::Us),
];

const KINDS: [(&str, Kind); 12] = [
    ("malformed", Kind::Malformed),
    ("invalid", Kind::Invalid),
    ("unauthenticated", Kind::Unauthenticated),
    ("forbidden", Kind::Forbidden),
    ("not_found", Kind::NotFound),
    ("conflict", Kind::Conflict),
    ("too_large", Kind::TooLarge),
    ("too_many", Kind::TooMany),
    ("unavailable", Kind::Unavailable),
    ("timeout", Kind::Timeout),
    ("bad_gateway", Kind::BadGateway),
    ("internal", Kind::Internal),
];

const NEWS: [(&str, CallNews); 5] = [
    ("initiated", CallNews::Initiated),
    ("ringing", CallNews::Ringing),
    ("answered", CallNews::Answered),
    ("stream_failed", CallNews::StreamFailed),
    ("other", CallNews::Other),
];

fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, v)| v == value).map_or("", |(w, _)| w)
}

fn meaning<T: Copy>(words: &[(&'static str, T)], word: &str) -> Option<T> {
    words.iter().find(|(w, _)| *w == word).map(|(_, v)| *v)
}

impl Asked {
    /// The question as bytes.
    pub(super) fn write(self) -> Result<Vec<u8>, BadMessage> {
        envelope::write(&Question {
            v: VERSION,
            asked: self,
        })
    }

    /// Reads a question.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BadMessage> {
        envelope::read::<Question>(bytes).map(|question| question.asked)
    }
}

impl Said {
    /// The answer as bytes; one that is too long becomes a fault.
    pub(super) fn write(self) -> Vec<u8> {
        let written = envelope::write(&Reply { v: VERSION, said: self });
        written
            .or_else(|_| {
                let fault = Fault::internal("the answer is too long for another node");
                envelope::write(&Reply {
                    v: VERSION,
                    said: Self::fault(&fault),
                })
            })
            .unwrap_or_default()
    }

    /// Reads an answer.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BadMessage> {
        envelope::read::<Reply>(bytes).map(|reply| reply.said)
    }

    /// A fault on its way.
    pub(super) fn fault(fault: &Fault) -> Self {
        Self::Fault {
            origin: word(&ORIGINS, &fault.origin).to_owned(),
            kind: word(&KINDS, &fault.kind).to_owned(),
            message: fault.message.chars().take(1000).collect(),
            retry_after_ms: fault.retry_after.and_then(|wait| wait.as_millis().try_into().ok()),
        }
    }

    /// What became of an order; `None` where the call is not there.
    pub(super) fn outcome(self) -> Option<Result<Told, Fault>> {
        match self {
            Self::NotHere => None,
            Self::Told(told) => Some(Ok(told)),
            Self::Fault {
                origin,
                kind,
                message,
                retry_after_ms,
            } => Some(Err(match meaning(&ORIGINS, &origin).zip(meaning(&KINDS, &kind)) {
                Some((origin, kind)) => Fault {
                    retry_after: retry_after_ms.map(Duration::from_millis),
                    ..Fault::new(origin, kind, message)
                },
                None => not_understood(),
            })),
            Self::Live(_) | Self::Answer(_) | Self::Given(_) => Some(Err(not_understood())),
        }
    }
}

/// Another node answered something that is no answer to what was asked.
pub(in crate::control) fn not_understood() -> Fault {
    Fault::internal("another node's answer was not understood")
}

impl Order {
    /// Words for the caller.
    pub(in crate::control) fn say(words: Words) -> Self {
        Self::Say {
            text: words.text,
            language: words.language,
            client_ref: words.client_ref,
            sender_name: words.sender_name,
        }
    }

    /// What is not to be played.
    pub(in crate::control) const fn silence(what: Silence) -> Self {
        match what {
            Silence::Everything => Self::Silence {
                everything: true,
                chunk: None,
            },
            Silence::Chunk(chunk) => Self::Silence {
                everything: false,
                chunk,
            },
        }
    }

    /// Whether the call is named by its media socket.
    pub(super) const fn is_of_socket(&self) -> bool {
        matches!(self, Self::Silence { .. })
    }

    /// How long whoever asked waits for it.
    pub(super) const fn patience(&self) -> Duration {
        match self {
            Self::HangUp | Self::Digits(_) | Self::Transfer(_) => LONG_PATIENCE,
            _ => PATIENCE,
        }
    }

    /// Whether it makes sense, whoever the call's is.
    pub(in crate::control) fn check(&self) -> Result<(), Fault> {
        let invalid = |message: String| Err(Fault::client(Kind::Invalid, message));
        match self {
            Self::Say { text, .. } if text.is_empty() => {
                invalid("there is nothing to say: message is empty".to_owned())
            }
            Self::Say { text, .. } if text.len() > MAX_TEXT => {
                let message = format!("message is longer than {MAX_TEXT} bytes");
                Err(Fault::client(Kind::TooLarge, message))
            }
            Self::Digits(digits) => {
                let known = |c: char| c.is_ascii_digit() || matches!(c, '*' | '#' | 'A'..='D');
                if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.chars().all(known) {
                    return invalid(format!("digits are 1 to {MAX_DIGITS} of 0-9, *, #, A-D"));
                }
                Ok(())
            }
            Self::Transfer(to) => check_dialable(to),
            Self::Move(status) => match CallStatus::parse(status) {
                Some(CallStatus::Ended) | None => invalid("a call cannot be moved there".to_owned()),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// What is said of a number that nobody can call.
pub(in crate::control) const NOT_E164: &str = "Destination number must be in E.164 format (e.g., +1234567890)";

/// A number or a SIP address that a vendor may be asked to call.
pub(in crate::control) fn check_dialable(to: &str) -> Result<(), Fault> {
    let is_sip = to
        .strip_prefix("sip:")
        .is_some_and(|rest| rest.len() > 2 && rest.len() <= 200);
    if is_e164(to) || is_sip {
        return Ok(());
    }
    Err(Fault::client(Kind::Invalid, NOT_E164))
}

impl Told {
    /// What is stopped.
    pub(super) fn muted(mute: Mute) -> Self {
        Self::Muted {
            inbound: mute.inbound.unwrap_or_default(),
            outbound: mute.outbound.unwrap_or_default(),
        }
    }

    /// The message that will be said.
    pub(in crate::control) fn message(self) -> Result<MessageId, Fault> {
        match self {
            Self::Message(id) => id.parse().map_err(|_| not_understood()),
            _ => Err(not_understood()),
        }
    }

    /// What is stopped now.
    pub(in crate::control) fn mute(self) -> Result<Mute, Fault> {
        match self {
            Self::Muted { inbound, outbound } => Ok(Mute {
                inbound: Some(inbound),
                outbound: Some(outbound),
            }),
            _ => Err(not_understood()),
        }
    }
}

impl From<&LiveCall> for Live {
    fn from(call: &LiveCall) -> Self {
        let stream = call.stream.as_ref();
        Self {
            call: call.row.call_id.to_string(),
            connection: call.connection.map(|c| c.to_string()),
            stream: stream.map(|(id, format)| (id.clone(), format.encoding.name().to_owned(), format.rate)),
        }
    }
}

impl Live {
    /// Adds what is live to what is on record.
    pub(super) fn add_to(self, call: &mut LiveCall) {
        call.connection = self.connection.and_then(|id| id.parse::<ConnectionId>().ok());
        call.stream = self.stream.and_then(|(id, encoding, rate)| {
            let encoding = Encoding::parse(&encoding)?;
            Some((id, AudioFormat { encoding, rate }))
        });
    }
}

impl From<&CallUpdate> for Update {
    fn from(update: &CallUpdate) -> Self {
        let (news, end_reason) = match update.news {
            CallNews::Ended(reason) => ("ended", Some(reason.as_str().to_owned())),
            CallNews::Key(_) => ("key", None),
            other => (word(&NEWS, &other), None),
        };
        let key = match update.news {
            CallNews::Key(key) => Some(key),
            _ => None,
        };
        Self {
            call_sid: update.call_sid.clone(),
            from: update.from.clone(),
            to: update.to.clone(),
            inbound: update.inbound,
            news: news.to_owned(),
            end_reason,
            key,
            dedup_key: update.dedup_key.clone(),
            duration_s: update.duration_s,
            why: update.why.clone(),
        }
    }
}

impl Update {
    /// The news; `None` where a word of it is not known.
    pub(super) fn read(self) -> Option<CallUpdate> {
        let news = match self.news.as_str() {
            "ended" => CallNews::Ended(EndReason::parse(self.end_reason.as_deref()?)?),
            "key" => CallNews::Key(self.key?),
            other => meaning(&NEWS, other)?,
        };
        Some(CallUpdate {
            call_sid: self.call_sid,
            from: self.from,
            to: self.to,
            inbound: self.inbound,
            news,
            dedup_key: self.dedup_key,
            duration_s: self.duration_s,
            why: self.why,
        })
    }
}

impl From<Answer> for Connect {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Stream {
                url,
                token,
                status_url,
                session_id,
            } => Self::Stream {
                url,
                token,
                status_url,
                session_id,
            },
            Answer::Busy => Self::Busy,
            Answer::HangUp => Self::HangUp,
        }
    }
}

impl From<Connect> for Answer {
    fn from(connect: Connect) -> Self {
        match connect {
            Connect::Stream {
                url,
                token,
                status_url,
                session_id,
            } => Self::Stream {
                url,
                token,
                status_url,
                session_id,
            },
            Connect::Busy => Self::Busy,
            Connect::HangUp => Self::HangUp,
        }
    }
}

impl Piece {
    /// A piece on its way to the node of its call.
    pub(super) fn write(tenant: i64, call: &str, audio: &crate::control::Microphone) -> Result<Vec<u8>, BadMessage> {
        let bytes: Vec<u8> = audio.samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        envelope::write(&Self {
            v: VERSION,
            tenant,
            call: call.to_owned(),
            rate: audio.rate,
            to_caller: audio.to_caller,
            last: audio.last,
            audio: base64::encode_string(&bytes),
        })
    }

    /// Reads a piece, and the audio in it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, crate::control::Microphone), BadMessage> {
        let piece: Self = envelope::read(bytes)?;
        let sound = base64::decode_vec(piece.audio.as_bytes(), envelope::MAX_BYTES).map_err(|_| BadMessage::Shape)?;
        if !AudioFormat::RATES.contains(&piece.rate) || sound.len() % 2 != 0 {
            return Err(BadMessage::Shape);
        }
        let microphone = crate::control::Microphone {
            samples: sound
                .chunks_exact(2)
                .map(|b| i16::from_le_bytes([b[0], b[1]]))
                .collect(),
            rate: piece.rate,
            to_caller: piece.to_caller,
            last: piece.last,
        };
        Ok((piece, microphone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Microphone;
    use proptest::prelude::*;

    #[test]
    fn every_order_and_what_became_of_it_comes_through() {
        let orders = [
            Order::say(Words {
                text: "h\u{e9}llo".into(),
                client_ref: Some("r".into()),
                ..Words::default()
            }),
            Order::Move("answered".into()),
            Order::Language("de-DE".into()),
            Order::Mute {
                inbound: Some(true),
                outbound: None,
            },
            Order::Record(false),
            Order::silence(Silence::Chunk(Some(3))),
            Order::silence(Silence::Everything),
            Order::Digits("12#".into()),
            Order::Transfer("+14155550100".into()),
            Order::Person {
                takes: true,
                by: "ann".into(),
            },
            Order::HangUp,
        ];
        for order in orders {
            assert_eq!(order.check(), Ok(()));
            let asked = Asked::Do {
                tenant: 3,
                call: "call_1".into(),
                order: order.clone(),
            };
            match Asked::read(&asked.write().unwrap()).unwrap() {
                Asked::Do {
                    tenant: 3,
                    call,
                    order: read,
                } => assert_eq!((call.as_str(), read), ("call_1", order)),
                other => panic!("{other:?}"),
            }
        }
        for told in [Told::Done, Told::Message("msg_1".into()), Told::muted(Mute::default())] {
            let read = Said::read(&Said::Told(told.clone()).write()).unwrap();
            assert_eq!(read.outcome(), Some(Ok(told)));
        }
        assert_eq!(Said::read(&Said::NotHere.write()).unwrap().outcome(), None);
    }

    #[test]
    fn faults_keep_whose_and_what_they_are() {
        for (_, origin) in ORIGINS {
            for (_, kind) in KINDS {
                let fault = Fault {
                    retry_after: Some(Duration::from_secs(7)),
                    ..Fault::new(origin, kind, "because")
                };
                let read = Said::read(&Said::fault(&fault).write()).unwrap();
                assert_eq!(read.outcome(), Some(Err(fault)));
            }
        }
    }

    #[test]
    fn news_of_vendors_come_through() {
        let ends = EndReason::ALL.map(CallNews::Ended);
        let keys = ['5', '#'].map(CallNews::Key);
        for news in NEWS.iter().map(|(_, news)| *news).chain(ends).chain(keys) {
            let update = CallUpdate {
                call_sid: "CA1".into(),
                from: "+1".into(),
                to: "+2".into(),
                inbound: true,
                news,
                dedup_key: "k".into(),
                duration_s: Some(4),
                why: Some("because".into()),
            };
            assert_eq!(
                format!("{:?}", Update::from(&update).read().unwrap()),
                format!("{update:?}")
            );
        }
    }

    #[test]
    fn orders_that_make_no_sense_are_refused_wherever_they_come_from() {
        let words = |text: &str| {
            Order::say(Words {
                text: text.into(),
                ..Words::default()
            })
        };
        for (order, kind) in [
            (words(""), Kind::Invalid),
            (words(&"x".repeat(MAX_TEXT + 1)), Kind::TooLarge),
            (Order::Digits("1x".into()), Kind::Invalid),
            (Order::Digits("1".repeat(MAX_DIGITS + 1)), Kind::Invalid),
            (Order::Transfer("0123".into()), Kind::Invalid),
            (Order::Move("ended".into()), Kind::Invalid),
            (Order::Move("gone".into()), Kind::Invalid),
        ] {
            assert_eq!(order.check().unwrap_err().kind, kind, "{order:?}");
        }
    }

    #[test]
    fn a_microphone_comes_through_sample_by_sample() {
        let audio = Microphone {
            samples: vec![0, 1, -1, i16::MAX, i16::MIN],
            rate: 16_000,
            to_caller: true,
            last: true,
        };
        let (piece, read) = Piece::read(&Piece::write(1, "call_1", &audio).unwrap()).unwrap();
        assert_eq!((piece.tenant, piece.call.as_str()), (1, "call_1"));
        assert_eq!(format!("{read:?}"), format!("{audio:?}"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Asked::read(&bytes), Said::read(&bytes), Piece::read(&bytes));
        }
    }
}
