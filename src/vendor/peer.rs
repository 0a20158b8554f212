//! The other end of the protocol: what a simulated vendor says and takes, and the trait of who speaks as one.

use super::{Answer, ApiRequest, HookRequest, Payload, WireError};
use crate::base::{format::AudioFormat, secret::Secret};
use http::{HeaderName, HeaderValue};

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
    /// One of [`Caps::offers`](super::Caps::offers) for it to send; its usual one, or what the URL asks for, when `None`.
    pub format: Option<AudioFormat>,
    /// The secret in the URLs that the vendor was given, where that is another than the account's.
    pub url_secret: Option<Secret>,
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
    /// It goes on without us: its stream is over.
    Leave,
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
