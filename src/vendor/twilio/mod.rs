//! Twilio: Media Streams over `<Connect><Stream>`, voice webhooks, the 2010-04-01 REST API.
//!
//! Sources are Twilio's public pages "Media Streams – WebSocket Messages", "TwiML Voice: `<Stream>`", "Webhooks Security"
//! and "Call resource", and its open SDKs. Read `stream.rs` for the path of a frame.

mod api;
mod config;
mod desk;
mod hooks;
mod message;
mod peer;
mod ring;
mod stream;
mod verify;

pub use config::{Config, SharedKey};

use super::{
    Admit, Answer, ApiRequest, CallAction, CallDetails, Caps, Claim, Descriptor, Document, Hook, HookKind, HookPath,
    HookRequest, TokenPlace, Trunk,
};
use crate::base::{fault::Fault, format::AudioFormat};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use verify::Verifier;

/// What Twilio is.
pub static TWILIO: Descriptor = Descriptor {
    title: "Twilio",
    name: "twilio",
    caps: &CAPS,
    error_code: "TWILIO_ERROR",
    stream_path: "/api/calls/twilio/stream",
    token_in: TokenPlace::Path,
    hook_paths: &[
        HookPath {
            path: "/api/calls/twilio/webhook",
            kind: HookKind::Call,
        },
        HookPath {
            path: "/api/calls/twilio/status",
            kind: HookKind::Status,
        },
    ],
    number_hook: HookKind::Call,
    claims: |request| match request.headers.contains_key(&verify::SIGNATURE) {
        true => Claim::Yes,
        false => Claim::No,
    },
    dials_by_default: false,
    dials_sip: true,
    codec: |_| Box::new(stream::Codec::new()),
    trunk: |section| Arc::new(Account::new(Config::read(section))),
    peer: |call| Box::new(peer::Peer::new(call)),
    simulated: &[
        ("account_sid", "AC00000000000000000000000000000000"),
        ("auth_token", "simulated"),
        ("base_url", "{base}"),
    ],
};

/// Twilio frames 20 ms, takes any size and queues without limit. The lead covers the network's jitter and our own
/// stalls, and is what a barge-in without `clear` would cost.
static CAPS: Caps = Caps {
    inbound: AudioFormat::ULAW_8K,
    outbound: AudioFormat::ULAW_8K,
    offers: &[AudioFormat::ULAW_8K],
    ptime_ms: 20,
    chunk_multiple: 160,
    lead_ms: 240,
    mark: true,
    clear: true,
    interrupt: false,
    stop: true,
    close_ends_call: true,
    max_inbound_ms: 1000,
    binary: false,
};

/// An account at Twilio.
#[derive(Debug)]
pub struct Account {
    config: Config,
    verifier: Verifier,
}

impl Account {
    /// The account that the configuration names.
    pub fn new(config: Config) -> Self {
        let verifier = Verifier::new(&config);
        Self { config, verifier }
    }
}

impl Trunk for Account {
    fn verify(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        self.verifier.webhook(request)
    }

    fn unguarded(&self) -> Option<&'static str> {
        let can_tell = self.config.auth_token.is_some() || !self.config.shared_keys.is_empty();
        (!can_tell && !self.config.insecure).then_some("auth_token or shared_keys")
    }

    fn verify_upgrade(&self, request: &HookRequest<'_>) -> Result<Admit, Fault> {
        self.verifier.upgrade(request).map(|()| Admit::WithToken)
    }

    fn parse(&self, kind: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
        let update = hooks::parse(kind, request)?;
        Ok(match kind {
            HookKind::Status => Hook::News(update),
            HookKind::Call | HookKind::Mixed => Hook::Call(update),
        })
    }

    fn answer(&self, _: &HookRequest<'_>, answer: &Answer) -> Document {
        Document {
            status: 200,
            content_type: "text/xml; charset=utf-8",
            body: hooks::twiml(answer),
        }
    }

    fn request(&self, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
        api::request(&self.config, call_sid, action)
    }

    fn reply(&self, action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
        api::reply(action, status, body)
    }

    fn details(&self, body: &[u8]) -> Result<CallDetails, Fault> {
        Ok(api::details(body))
    }

    fn can_dial(&self) -> bool {
        self.config.credentials().is_some()
    }

    fn account(&self) -> Option<&str> {
        self.config.account_sid.as_deref()
    }

    fn sign_upgrade(&self, url: &str) -> Vec<(HeaderName, HeaderValue)> {
        verify::sign_upgrade(&self.config, url)
    }
}
