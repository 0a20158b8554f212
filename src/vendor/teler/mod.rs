//! FreJun Teler: the call flow, audio over `/media-stream`, webhooks of both versions, the REST API.
//!
//! Sources are FreJun's public pages "Media streaming", "Call flows" and "Webhooks", its OpenAPI description, the official SDKs
//! for Python and Node, and its sample bridges. A call has two ids, one for REST and webhooks and one on the socket, with no way from
//! one to the other: the socket's URL, which Teler dials as it was given, carries ours.

mod api;
mod config;
mod desk;
mod hooks;
mod message;
mod peer;
mod stream;
mod verify;

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
use verify::Verifier;

/// What Teler is.
pub static TELER: Descriptor = Descriptor {
    title: "Teler",
    name: "teler",
    caps: &CAPS,
    error_code: "VENDOR_ERROR",
    stream_path: "/media-stream",
    token_in: TokenPlace::Query,
    hook_paths: &[
        HookPath {
            path: "/flow",
            kind: HookKind::Call,
        },
        HookPath {
            path: "/webhook",
            kind: HookKind::Status,
        },
    ],
    number_hook: HookKind::Mixed,
    claims: |request| match hooks::is_teler(request) {
        true => Claim::Yes,
        false => Claim::No,
    },
    dials_by_default: true,
    dials_sip: false,
    codec: |upgrade| Box::new(stream::Codec::new(upgrade)),
    trunk: |section| Arc::new(Account::new(Config::read(section))),
    peer: |call| Box::new(peer::Peer::new(call)),
    simulated: &[("api_key", "simulated"), ("base_url", "{base}/api/v1")],
};

const L16_8K: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 8000,
};

const fn at(rate: u32) -> AudioFormat {
    AudioFormat { rate, ..L16_8K }
}

/// Teler recommends half a second in every message against choppy playback. There is no `stop`, no mark and no key: the socket's
/// end is the call's, and the clock says what was played. Playback at another rate than 8 kHz is not known to work.
static CAPS: Caps = Caps {
    inbound: L16_8K,
    outbound: L16_8K,
    offers: &[L16_8K, at(16_000)],
    ptime_ms: 500,
    chunk_multiple: 320,
    lead_ms: 1000,
    mark: false,
    clear: true,
    interrupt: true,
    stop: false,
    close_ends_call: true,
    max_inbound_ms: 2000,
    binary: false,
};

/// An account at Teler.
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
        self.verifier.check(request)
    }

    fn unguarded(&self) -> Option<&'static str> {
        // Flow requests are never signed.
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

    fn receipt(&self, _: &HookRequest<'_>) -> Document {
        hooks::receipt()
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
        self.config.api_key.is_some()
    }
}
