//! Neutral words of webhooks: a request as received, what it tells of a call, and the document that answers it.

use crate::base::time::Wall;
use std::net::IpAddr;

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
    /// Why, in the vendor's own words, where it says.
    pub why: Option<String>,
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
    /// The caller pressed a key: `0-9`, `*`, `#`, `A-D`. The media stream may tell of it as well.
    Key(char),
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
