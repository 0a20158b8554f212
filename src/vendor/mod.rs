//! Neutral words for every vendor's dialect, and the traits a dialect implements. One folder per vendor, one line in [`VENDORS`].
//!
//! Dialects are pure: no sockets, no clock, no allocation per frame. A quirk is a fact in [`Caps`] or a few lines in the
//! vendor's folder, never an `if vendor ==` elsewhere.

use crate::base::{
    fault::Fault,
    format::{AudioFormat, Encoding},
    secret::Secret,
    settings::Section,
    time::Wall,
};
use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

mod account;
mod codec;
mod desk;
pub mod exotel;
mod gate;
pub mod ozonetel;
mod params;
pub mod teler;
pub mod telnyx;
pub mod twilio;

pub use params::CallDetails;

/// A REST request to a vendor, as `net::client` sends it.
pub use crate::net::client::ApiRequest;

/// Every vendor sidetone speaks by itself.
pub static VENDORS: &[&Descriptor] = &[
    &twilio::TWILIO,
    &telnyx::TELNYX,
    &exotel::EXOTEL,
    &ozonetel::OZONETEL,
    &teler::TELER,
];

/// The path of a number's own webhook, which serves every dialect: the number's id follows, and `/status` after it for
/// news of calls.
pub const NUMBER_HOOK: &str = "/api/telephony/webhook";
/// The path of a number's own media socket, which serves every dialect: the number's id follows, and a token may after it.
pub const NUMBER_STREAM: &str = "/api/telephony/ws";

static ALL: OnceLock<Box<[&'static Descriptor]>> = OnceLock::new();

/// Every vendor, those of [`add`] included. Routes, configuration, metrics labels, conformance tests and simulation
/// iterate it.
pub fn all() -> &'static [&'static Descriptor] {
    ALL.get().map_or(VENDORS, |all| all)
}

/// Adds dialects that are not sidetone's own: once, before anything is read or routed. Returns whether they were added.
pub fn add(more: &[&'static Descriptor]) -> bool {
    ALL.set([VENDORS, more].concat().into()).is_ok()
}

/// The vendor of that name.
pub fn by_name(name: &str) -> Option<&'static Descriptor> {
    all().iter().copied().find(|v| v.name == name)
}

/// What a vendor is: facts and constructors.
pub struct Descriptor {
    /// Lower-case name: configuration section, REST path segment, metrics label, `provider` in JSON.
    pub name: &'static str,
    /// Facts about its media stream.
    pub caps: &'static Caps,
    /// `error_code` of `telephony_error` when this vendor is at fault.
    pub error_code: &'static str,
    /// Path of the media socket. Empty where there is only each number's own ([`NUMBER_STREAM`]).
    pub stream_path: &'static str,
    /// Where the URL of the media socket carries the token.
    pub token_in: TokenPlace,
    /// Paths of its webhooks, beside each number's own.
    pub hook_paths: &'static [HookPath],
    /// What arrives at a number's own webhook ([`NUMBER_HOOK`]).
    pub number_hook: HookKind,
    /// Whether a request to a number's own path is of this dialect. Asked only where no number has the path's id, which
    /// `--dev` lets in.
    pub claims: fn(&HookRequest<'_>) -> Claim,
    /// Whether it places the calls whose request names neither a vendor nor a number of ours. At most one does.
    pub dials_by_default: bool,
    /// Builds the codec of one media socket from its upgrade request.
    pub codec: fn(&Upgrade) -> Box<dyn StreamCodec>,
    /// Reads the vendor account from its configuration section.
    pub trunk: fn(&Section<'_>) -> Arc<dyn Trunk>,
    /// Makes the other end of the protocol, for simulation.
    pub peer: fn(PeerCall) -> Box<dyn Peer>,
    /// What the section of an account with the simulated vendor holds, whose REST interface is at `{base}`: with it calls
    /// are placed that no account can carry (`--dev`). Empty where none can be.
    pub simulated: &'static [(&'static str, &'static str)],
}

impl Descriptor {
    /// The webhook path that receives this kind, else one that receives every kind.
    pub fn hook(&self, kind: HookKind) -> Option<&'static HookPath> {
        let of = |kind| self.hook_paths.iter().find(|h| h.kind == kind);
        of(kind).or_else(|| of(HookKind::Mixed))
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Where the URL of a media socket carries its token. Either is understood from every vendor; this one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// As one more path segment.
    Path,
    /// As the query parameter `token`.
    Query,
}

impl TokenPlace {
    /// The URL of the media socket at `url` with its token.
    pub fn url(self, url: &str, token: &str) -> String {
        match self {
            Self::Path => format!("{url}/{token}"),
            Self::Query => format!("{url}?token={token}"),
        }
    }
}

/// A webhook path and what arrives there.
#[derive(Clone, Copy, Debug)]
pub struct HookPath {
    /// The path as routed.
    pub path: &'static str,
    /// What arrives.
    pub kind: HookKind,
}

/// What a webhook path receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A call that wants an answer document.
    Call,
    /// News about a call or stream.
    Status,
    /// Both: the request says which.
    Mixed,
}

/// What an account lacks for a number's requests to be told from anybody's ([`Trunk::unguarded`]); nothing where it is
/// enough that a request comes to the path of a number, whose id the vendor alone was told.
pub fn lacks(trunk: &dyn Trunk) -> Option<&'static str> {
    let request = HookRequest {
        method: "POST",
        path_and_query: "/",
        headers: &http::HeaderMap::new(),
        body: &[],
        public_base: "",
        by_number: true,
        client: None,
        received_at: Wall::now(),
    };
    trunk.unguarded().filter(|_| trunk.verify(&request).is_err())
}

/// The vendor with the greatest claim to a request, if any has one.
pub fn claimed(request: &HookRequest<'_>) -> Option<&'static Descriptor> {
    let claims = all().iter().map(|v| ((v.claims)(request), *v));
    let greatest = claims.max_by_key(|(claim, _)| *claim)?;
    (greatest.0 > Claim::No).then_some(greatest.1)
}

/// Whether a request is of a dialect. The greatest claim has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// It is another's.
    No,
    /// It says nothing, and who says nothing is taken for this vendor. At most one vendor claims so.
    ByDefault,
    /// It bears this vendor's marks.
    Yes,
}

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

/// A webhook request as received.
#[derive(Clone, Copy, Debug)]
pub struct HookRequest<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query exactly as received.
    pub path_and_query: &'a str,
    /// Headers.
    pub headers: &'a http::HeaderMap,
    /// The raw body.
    pub body: &'a [u8],
    /// Our public base URL as configured at the vendor, without a trailing slash (`https://relay.example.com`).
    pub public_base: &'a str,
    /// Whether the path names one of our numbers by its id: 128 random bits, of which the tenant and the vendor know. A
    /// vendor that signs nothing, with no other secret configured, is believed for this.
    pub by_number: bool,
    /// The address that it came from, behind trusted proxies the one that they tell. `None` where nobody asked.
    pub client: Option<IpAddr>,
    /// When it was received, for signatures that grow old.
    pub received_at: Wall,
}

/// What a webhook request is, once read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A call that wants an answer document.
    Call(CallUpdate),
    /// News of a call or stream, to be acknowledged.
    News(CallUpdate),
    /// Of no call, such as a vendor's test of the URL; to be acknowledged.
    Probe,
}

/// News of a call, in neutral words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallUpdate {
    /// The vendor's id of the call.
    pub call_sid: String,
    /// The calling party as the vendor writes it: E.164, SIP, `anonymous`.
    pub from: String,
    /// The called party.
    pub to: String,
    /// Whether the call came to us (as opposed to one we placed).
    pub inbound: bool,
    /// What happened.
    pub news: CallNews,
    /// A key under which a repetition of this very request is recognised.
    pub dedup_key: String,
    /// Call length as the vendor counts it, in seconds, on terminal news.
    pub duration_s: Option<u32>,
}

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallNews {
    /// It exists and is not ringing yet.
    Initiated,
    /// It rings.
    Ringing,
    /// It was answered.
    Answered,
    /// It is over.
    Ended(EndReason),
    /// The vendor could not carry the stream.
    StreamFailed,
    /// Nothing the record needs.
    Other,
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Somebody hung up.
    Completed,
    /// The called party was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// The network or the vendor failed.
    Failed,
    /// The caller gave up before an answer.
    Canceled,
    /// The media stream was lost and did not come back.
    MediaLost,
    /// The daemon died while the call was live.
    Interrupted,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Failed,
        Self::Canceled,
        Self::MediaLost,
        Self::Interrupted,
    ];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }

    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::MediaLost => "media_lost",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How to answer a call that wants a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Connect the call to our media socket.
    Stream {
        /// The socket's URL, token included where the dialect puts it there.
        url: String,
        /// The single-use token, for dialects that carry it as a parameter.
        token: String,
        /// Where stream status callbacks go.
        status_url: String,
        /// The call's one id in logs, files and events, for dialects that carry it along.
        session_id: String,
    },
    /// Tell the caller that we are busy.
    Busy,
    /// End the call.
    HangUp,
}

/// A document that answers a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Document {
    /// `204`, which says that a request was received and nothing more.
    pub const EMPTY: Self = Self {
        status: 204,
        content_type: "",
        body: String::new(),
    };
}

/// What we ask of a vendor about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallAction<'a> {
    /// Place a call that will be connected to our media socket.
    Dial {
        /// Our id of the call, for the vendor to give back with its news.
        call: &'a str,
        /// The agent that serves the call, for the vendor to give back with its news.
        agent: &'a str,
        /// E.164 or a SIP address.
        to: &'a str,
        /// One of our numbers.
        from: &'a str,
        /// What the vendor is given for when the call is answered.
        answer: &'a Answer,
        /// Where the vendor asks for it, if it is not given.
        answer_url: &'a str,
        /// Where call status callbacks go.
        status_url: &'a str,
        /// How long it may ring.
        ring: Duration,
    },
    /// Take a call that was announced, and connect it to our media socket, where calls are answered by commands.
    Accept {
        /// Our id of the call, for the vendor to give back with its news.
        call: &'a str,
        /// The agent that serves the call, for the vendor to give back with its news.
        agent: &'a str,
        /// Where the media socket is.
        answer: &'a Answer,
    },
    /// Refuse a call that was announced, where calls are answered by commands.
    Reject {
        /// Whether because we are busy; else because nobody has the number.
        busy: bool,
    },
    /// Connect a call that was answered to our media socket, once more or at last.
    StartStream {
        /// Where the media socket is.
        answer: &'a Answer,
    },
    /// Let the vendor clean the call's audio of noise, both ways, or stop it.
    Enhance {
        /// Whether it is to begin.
        on: bool,
    },
    /// End the call.
    HangUp,
    /// Hand the call to a phone number; ends our leg.
    Transfer {
        /// E.164 or a SIP address.
        to: &'a str,
    },
    /// Tell how the call stands ([`Trunk::details`]).
    Details,
    /// Send keys to the far end, where the vendor can without ending the stream.
    Digits {
        /// `0-9*#A-D`.
        digits: &'a str,
    },
}

/// How an account wants its calls handled by the control plane, where vendors and their settings differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Calls are answered and refused by commands ([`CallAction::Accept`], [`CallAction::Reject`]), not by a document.
    pub by_command: bool,
    /// The media stream of a call that came to us is asked for once it was answered ([`CallAction::StartStream`]).
    pub stream_after_answer: bool,
    /// A stream that the vendor could not open is asked for once more, and one that broke again ([`CallAction::StartStream`]).
    pub restream: bool,
    /// Calls are cleaned of noise from their answer to their end ([`CallAction::Enhance`]).
    pub enhance: bool,
    /// The vendor recognises a request that is sent again unchanged, so one whose fate is unknown may be.
    pub repeatable: bool,
}

/// A vendor account: verifies and reads its webhooks, answers them, and writes its REST requests.
pub trait Trunk: Send + Sync {
    /// Whether the request is from the vendor. The message of the fault says what failed and nothing secret.
    fn verify(&self, request: &HookRequest<'_>) -> Result<(), Fault>;

    /// What is missing for telling the vendor's requests from anybody's: the settings of which one is needed, as words
    /// for a person. `None` where they can be told, or where the account says `insecure`.
    fn unguarded(&self) -> Option<&'static str>;

    /// Whether the upgrade request of a media socket is from the vendor, where the vendor signs it, and whether it needs
    /// a token. [`Admit::WithToken`] where nothing can be told from the request.
    fn verify_upgrade(&self, request: &HookRequest<'_>) -> Result<Admit, Fault>;

    /// Reads a verified request.
    fn parse(&self, kind: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault>;

    /// Writes the document that answers the verified request of a [`Hook::Call`].
    fn answer(&self, request: &HookRequest<'_>, answer: &Answer) -> Document;

    /// Writes what acknowledges the verified request of any other [`Hook`].
    fn receipt(&self, _request: &HookRequest<'_>) -> Document {
        Document::EMPTY
    }

    /// Writes the REST request for an action on `call_sid` (empty for `Dial`), or `None` where the vendor has no such command.
    fn request(&self, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest>;

    /// Reads the reply to [`Trunk::request`]: the vendor's call id on success (empty where it tells none).
    fn reply(&self, action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault>;

    /// Reads what a successful reply to [`CallAction::Details`] tells.
    fn details(&self, _body: &[u8]) -> Result<CallDetails, Fault> {
        Err(Fault::not_found("details"))
    }

    /// Whether credentials for REST are configured.
    fn can_dial(&self) -> bool;

    /// The vendor's id of the account. A stream that names another one is refused.
    fn account(&self) -> Option<&str> {
        None
    }

    /// The headers with which this account's vendor signs the upgrade request of its media socket at `url`, for simulated
    /// calls to this very daemon. Empty where it signs none, or where no secret is configured.
    fn sign_upgrade(&self, _url: &str) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// How the control plane handles its calls.
    fn handling(&self) -> Handling {
        Handling::default()
    }

    /// What is agreed about its media streams.
    fn agreed(&self) -> Agreed {
        Agreed::default()
    }
}

/// The call a simulated vendor carries.
#[derive(Clone, Debug, Default)]
pub struct PeerCall {
    /// The vendor's id of the call.
    pub call_sid: String,
    /// The token that our answer document gave, if any.
    pub token: Option<String>,
    /// The calling number.
    pub from: String,
    /// The called number.
    pub to: String,
    /// The vendor's id of the account; one made up when `None`.
    pub account: Option<String>,
    /// The URL of the media socket, where it is known: some vendors read the stream's settings there.
    pub url: Option<String>,
    /// One of [`Caps::offers`] for it to send; its usual one, or what the URL asks for, when `None`.
    pub format: Option<AudioFormat>,
}

/// What our side said to a simulated vendor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PeerEvent<'a> {
    /// Audio to play.
    Media(Payload<'a>),
    /// A mark to send back once all audio before it has been played.
    Mark(&'a str),
    /// Drop all queued audio and send all outstanding marks back.
    Clear,
    /// Nothing of consequence.
    Other,
}

/// What a simulated vendor's REST interface replies, and what becomes of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, JSON.
    pub body: String,
    /// What the request did.
    pub order: PeerOrder,
}

/// What a command does to a simulated call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOrder {
    /// Nothing that is heard.
    Nothing,
    /// It is answered, and connected to nothing yet.
    Take,
    /// It is connected to a media socket, answered where it was not.
    Connect(Answer),
    /// It is over.
    HangUp,
}

/// The vendor's end of a media socket: for simulation, and later for bots that speak the dialect.
pub trait Peer: Send {
    /// Format in which it sends audio.
    fn format(&self) -> AudioFormat;
    /// Format in which it receives audio.
    fn plays(&self) -> AudioFormat {
        self.format()
    }
    /// Milliseconds of audio in each of its messages.
    fn frame_ms(&self) -> u32 {
        20
    }
    /// The messages that open a stream, in order.
    fn open(&mut self) -> Vec<String>;
    /// Appends a message with `audio` (encoded) that begins `at_ms` into the stream.
    fn media(&mut self, audio: &[u8], at_ms: u64, out: &mut String);
    /// A first message of audio at another rate than the stream's, where messages say their rate.
    fn stray(&mut self) -> Option<String> {
        None
    }
    /// A key press; empty where keys do not travel on the socket.
    fn dtmf(&mut self, digit: char) -> String;
    /// A played mark.
    fn mark(&mut self, name: &str) -> String;
    /// The end of the stream; empty where the socket's end says it.
    fn stop(&mut self) -> String;
    /// The request by which the vendor announces the call at `url`, signed where the account's secret is given. `None`
    /// where it announces none.
    fn announce(&self, _url: &str, _secret: Option<&Secret>) -> Option<ApiRequest> {
        None
    }
    /// The header by which the vendor signs the upgrade request of its media socket at `url` with the account's secret.
    /// `None` where it signs none.
    fn sign_upgrade(&self, _url: &str, _secret: &Secret) -> Option<(HeaderName, HeaderValue)> {
        None
    }
    /// Reads the document that answered it, as the vendor would.
    fn answered(&self, _document: &[u8]) -> Result<Answer, WireError> {
        Err(WireError::Shape("document"))
    }
    /// The request by which the vendor tells `url` that the call is over, after `seconds`. `None` where it tells nothing.
    fn conclude(&self, _url: &str, _seconds: u32, _secret: Option<&Secret>) -> Option<ApiRequest> {
        None
    }
    /// Whether it answers calls when it is told so over its REST interface, so that the document says nothing.
    fn by_command(&self) -> bool {
        false
    }
    /// Takes a request to its REST interface as the real vendor would; `key` is the account's, any is right when `None`.
    /// `None` where it has no such interface.
    fn command(&mut self, _request: &HookRequest<'_>, _key: Option<&Secret>) -> Option<PeerReply> {
        None
    }
    /// The request by which the vendor tells `url` that the call was answered. `None` where it tells nothing.
    fn pick_up(&self, _url: &str, _secret: Option<&Secret>) -> Option<ApiRequest> {
        None
    }
    /// Reads one of our messages; refuses what the real vendor would refuse.
    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError>;
}
