//! A vendor account: what is asked of the vendor about a call, and the trait of who writes, reads and verifies it.

use super::{Admit, Agreed, Answer, ApiRequest, CallDetails, Document, Hook, HookKind, HookRequest};
use crate::base::fault::{Fault, Kind};
use http::{HeaderName, HeaderValue};
use std::{sync::Arc, time::Duration};

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

    /// This account for one call whose media stream is wished to be other than configured: names and values as the vendor's
    /// API has them. The fault names what the vendor does not know or take.
    fn wished(&self, wishes: &[(&'static str, String)]) -> Result<Option<Arc<dyn Trunk>>, Fault> {
        match wishes.first() {
            None => Ok(None),
            Some((name, _)) => Err(Fault::client(
                Kind::Invalid,
                format!("{name} is no option of calls with this vendor"),
            )),
        }
    }
}
