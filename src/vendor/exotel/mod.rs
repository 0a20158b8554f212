//! Exotel: AgentStream (Voicebot applet, `Calls/connect` with `StreamUrl`), the applets' webhooks, the v1 REST API.
//!
//! Sources are Exotel's public pages "AgentStream protocol", "Voicebot applet", "Passthru applet", "Make a call" and its sample
//! code, which contradict each other in places; where they do, all of it is read and what works everywhere is written.
//! A second way to answer, TwiML-like XML with `<Connect><Stream>`, is what existing integrations expect of the webhook.

mod api;
mod config;
mod desk;
mod hooks;
mod message;
mod peer;
mod stream;

pub use config::Config;

use super::{
    Admit, Answer, ApiRequest, CallAction, CallDetails, Caps, Claim, Descriptor, Document, Hook, HookKind, HookPath,
    HookRequest, TokenPlace, Trunk,
};
use crate::base::{
    fault::Fault,
    format::{AudioFormat, Encoding},
};
use std::sync::Arc;

/// What Exotel is.
pub static EXOTEL: Descriptor = Descriptor {
    title: "Exotel",
    name: "exotel",
    caps: &CAPS,
    error_code: "VENDOR_ERROR",
    stream_path: "/api/calls/exotel/stream",
    token_in: TokenPlace::Query,
    hook_paths: &[
        HookPath {
            path: "/api/calls/exotel/webhook",
            kind: HookKind::Mixed,
        },
        HookPath {
            path: "/api/calls/exotel/status",
            kind: HookKind::Status,
        },
    ],
    number_hook: HookKind::Mixed,
    // Its requests bear no mark, and the paths of numbers were its own before they were everybody's.
    claims: |_| Claim::ByDefault,
    dials_by_default: false,
    dials_sip: false,
    codec: |upgrade| Box::new(stream::Codec::new(upgrade)),
    trunk: |section| Arc::new(Account::new(Config::read(section))),
    peer: |call| Box::new(peer::Peer::new(call)),
    simulated: &[
        ("sid", "simulated"),
        ("api_key", "simulated"),
        ("api_token", "simulated"),
        ("base_url", "{base}"),
    ],
};

const L16_8K: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 8000,
};

const fn at(rate: u32) -> AudioFormat {
    AudioFormat { rate, ..L16_8K }
}

/// Messages of 100 ms are what Exotel's samples send; a payload that is no multiple of 320 bytes leaves gaps, and audio that
/// comes much faster than it is played ends calls.
static CAPS: Caps = Caps {
    inbound: L16_8K,
    outbound: L16_8K,
    offers: &[L16_8K, at(16_000), at(24_000)],
    ptime_ms: 100,
    chunk_multiple: 320,
    lead_ms: 200,
    mark: true,
    clear: true,
    interrupt: false,
    stop: true,
    close_ends_call: true,
    max_inbound_ms: 2000,
    binary: true,
};

/// An account at Exotel.
#[derive(Debug)]
pub struct Account {
    config: Config,
}

impl Account {
    /// The account that the configuration names.
    pub const fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Trunk for Account {
    fn verify(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        self.config.gate.check(request)
    }

    fn unguarded(&self) -> Option<&'static str> {
        self.config.gate.unguarded()
    }

    fn verify_upgrade(&self, request: &HookRequest<'_>) -> Result<Admit, Fault> {
        Ok(self.config.gate.admit(request))
    }

    fn parse(&self, kind: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
        hooks::parse(kind, request)
    }

    fn answer(&self, request: &HookRequest<'_>, answer: &Answer) -> Document {
        hooks::answer(&self.config, request, answer)
    }

    fn receipt(&self, request: &HookRequest<'_>) -> Document {
        hooks::receipt(request)
    }

    fn request(&self, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
        api::request(&self.config, call_sid, action)
    }

    fn details(&self, body: &[u8]) -> Result<CallDetails, Fault> {
        Ok(api::details(body))
    }

    fn reply(&self, action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
        api::reply(action, status, body)
    }

    fn can_dial(&self) -> bool {
        self.config.credentials().is_some()
    }

    fn account(&self) -> Option<&str> {
        self.config.sid.as_deref()
    }
}
