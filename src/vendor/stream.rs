//! Neutral words of media streams: what a vendor's socket says and is told, the facts it keeps to, and the trait of a codec.

use crate::base::{
    format::{AudioFormat, Encoding},
    time::Wall,
};
use bytes::BytesMut;
use std::fmt;

/// Facts about a vendor's media stream. The session obeys them.
#[derive(Debug)]
pub struct Caps {
    /// What the vendor sends unless `start` says otherwise.
    pub inbound: AudioFormat,
    /// What it wants unless `start` says otherwise.
    pub outbound: AudioFormat,
    /// What it can send, [`Caps::inbound`] first.
    pub offers: &'static [AudioFormat],
    /// Milliseconds of audio in one of our outbound messages.
    pub ptime_ms: u32,
    /// Outbound payload lengths must be a multiple of this many bytes of [`Caps::outbound`], or of audio as long.
    pub chunk_multiple: usize,
    /// How far ahead of real time outbound audio may be queued at the vendor, in ms.
    pub lead_ms: u32,
    /// Whether the vendor reports marks.
    pub mark: bool,
    /// Whether the vendor drops its queue on command.
    pub clear: bool,
    /// Whether the vendor drops one of our messages on command.
    pub interrupt: bool,
    /// Whether a stream ends with a message of its own.
    pub stop: bool,
    /// Whether the phone call ends when we close the socket and nothing follows in the answer document.
    pub close_ends_call: bool,
    /// The longest inbound message that is believed, in ms of audio.
    pub max_inbound_ms: u32,
    /// Whether its messages may come in binary frames. They are JSON all the same; a binary frame that is no text is passed
    /// over.
    pub binary: bool,
}

/// The upgrade request of a media socket, as far as a codec may need it.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// The token in the URL, if any: the path segment after the stream path, else the query parameter `token`.
    pub path_token: Option<String>,
    /// Decoded query parameters in order.
    pub query: Vec<(String, String)>,
    /// The id of our number, where the path names one.
    pub number: Option<String>,
    /// Whether the request proved itself, so that the stream needs no token ([`Admit::Proven`]).
    pub proven: bool,
    /// Headers, credentials among them.
    pub headers: http::HeaderMap,
    /// What the account has agreed with the vendor about its streams.
    pub agreed: Agreed,
}

/// How a vendor's account lets a media socket in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// If it brings the token of a call that was announced.
    WithToken,
    /// As it is: the request holds a secret that the vendor alone was told. For vendors with one URL for all streams.
    Proven,
}

/// What an account has agreed with its vendor about media streams, where no message of theirs tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Format of the audio to the call; that of caps, or of `start`, when `None`.
    pub outbound: Option<AudioFormat>,
    /// How 16-bit samples are written; found from the audio when `None`.
    pub l16: Option<Encoding>,
}

/// What a media socket said. Borrows the message.
#[derive(Debug)]
pub enum StreamEvent<'a> {
    /// A greeting that carries nothing.
    Hello,
    /// The stream begins. Once, before any media.
    Start(Box<StreamStart>),
    /// Audio from the call.
    Media(Media<'a>),
    /// A key was pressed: `0-9`, `*`, `#`, `A-D`.
    Dtmf(char),
    /// The same, and when: of a vendor whose messages may overtake each other.
    DtmfAt(char, Wall),
    /// A mark of ours came back.
    Mark(&'a str),
    /// The vendor complains of what we sent, with a code of its own. The stream goes on.
    Complaint(u64),
    /// The stream ends.
    Stop,
    /// Understood or unknown, and of no consequence.
    Ignored,
}

/// Audio from the call, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Media<'a> {
    /// The audio.
    pub payload: Payload<'a>,
    /// Whether this is the caller's side. Our own audio played back to us is the other.
    pub inbound: bool,
    /// Its place among the audio of its side, where messages may overtake each other or come twice: counts up by one.
    pub chunk: Option<u64>,
    /// Presentation time in ms since the stream began, where the vendor says it.
    pub at_ms: Option<u64>,
    /// Sample rate, where every message says it; a change is followed.
    pub rate: Option<u32>,
}

/// How audio travels in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Base64 of the encoded samples (RFC 4648 §4, padding optional).
    Base64(&'a [u8]),
    /// The text between the brackets of a JSON array of 16-bit numbers.
    Numbers(&'a [u8]),
}

/// What `start` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The vendor's id of the stream.
    pub stream_id: String,
    /// The vendor's id of the call.
    pub call_sid: String,
    /// The vendor's id of the account, where it says.
    pub account: Option<String>,
    /// The token that binds the stream to an announced call, where it came in the message.
    pub token: Option<String>,
    /// Format of the audio from the call.
    pub inbound: AudioFormat,
    /// Format of the audio to the call.
    pub outbound: AudioFormat,
    /// The caller's number, where it says (`from` parameter).
    pub from: Option<String>,
    /// The called number, where it says (`to` parameter).
    pub to: Option<String>,
    /// Milliseconds of audio in one of our messages, where this stream wants another length than [`Caps::ptime_ms`].
    pub ptime_ms: Option<u32>,
}

impl StreamStart {
    /// The vendor's id of the call, where `start` says more than the stream's own.
    pub fn names_call(&self) -> Option<&str> {
        (self.call_sid != self.stream_id).then_some(&*self.call_sid)
    }
}

/// What we say on a media socket.
#[derive(Clone, Copy, Debug)]
pub enum StreamCommand<'a> {
    /// Audio to the call, encoded in the outbound format.
    Media(&'a [u8]),
    /// Ask to be told when all audio before this has been played.
    Mark(&'a str),
    /// Drop all queued audio.
    Clear,
    /// Stop playing one chunk of ours, by its number; the last one when `None`.
    Interrupt(Option<u64>),
    /// End the call. The socket is closed next.
    HangUp,
}

/// Why a message was refused. Small and `Copy`: it is made from untrusted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Not JSON, or nested deeper than `wire::json::MAX_DEPTH`.
    NotJson,
    /// JSON, and not a message of this dialect or of this stream: the field named is missing, of the wrong type, or
    /// holds what it must not.
    Shape(&'static str),
    /// `start` names its call or stream by what is no id: missing, too long, or with other than printable characters.
    Id(&'static str),
    /// A key that no telephone has.
    Key,
    /// An audio format sidetone does not speak.
    Format,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => f.write_str("not JSON, or nested too deeply"),
            Self::Shape(field) => write!(f, "{field} is missing or wrong"),
            Self::Id(field) => write!(f, "{field} is no id"),
            Self::Key => f.write_str("unknown key"),
            Self::Format => f.write_str("unknown audio format or sample rate"),
        }
    }
}

impl std::error::Error for WireError {}

/// Parses and formats the messages of one media socket.
pub trait StreamCodec: Send {
    /// Reads one text message. The event borrows it, and the codec where text had to be unescaped.
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError>;

    /// Appends one text message. A command the dialect has no word for appends nothing (caps say which).
    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut);
}
