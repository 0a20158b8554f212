//! Neutral words for every vendor's dialect, and the traits a dialect implements. One folder per vendor, one line in [`VENDORS`].
//!
//! Dialects are pure: no sockets, no clock, no allocation per frame. A quirk is a fact in [`Caps`] or a few lines in the
//! vendor's folder, never an `if vendor ==` elsewhere.

use crate::base::{settings::Section, time::Wall};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

mod account;
mod codec;
mod desk;
pub mod exotel;
mod gate;
mod hook;
pub mod ozonetel;
mod params;
mod peer;
mod refusal;
mod stream;
pub mod teler;
pub mod telnyx;
mod trunk;
pub mod twilio;

pub use hook::{Answer, CallNews, CallUpdate, Document, EndReason, Hook, HookKind, HookRequest};
pub use params::CallDetails;
pub use peer::{Peer, PeerCall, PeerEvent, PeerOrder, PeerReply};
pub use stream::{
    Admit, Agreed, Caps, Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, Upgrade, WireError,
};
pub use trunk::{CallAction, Handling, Trunk};

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
    /// The name as people write it, for sentences.
    pub title: &'static str,
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
    /// Whether it calls SIP addresses, too.
    pub dials_sip: bool,
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
