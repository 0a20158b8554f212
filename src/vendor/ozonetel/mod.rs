//! Ozonetel (KooKoo), the `ucid` dialect: audio as JSON arrays of samples over `<stream>`, the call-flow hook, outbound calls.
//!
//! Ozonetel publishes no page of this protocol; sources are open integrations that speak it (`kookoo-voicebot` and its notes,
//! Pipecat's serializer) and the guide of a service that vendors of this dialect connect to directly. Where they disagree, either
//! is read and what all of them take is written.

mod api;
mod config;
mod desk;
mod hooks;
mod message;
mod peer;
mod stream;

pub use config::Config;

use super::{
    Admit, Answer, ApiRequest, CallAction, Caps, Claim, Descriptor, Document, Hook, HookKind, HookPath, HookRequest,
    TokenPlace, Trunk, params,
};
use crate::base::{
    fault::Fault,
    format::{AudioFormat, Encoding},
};
use std::sync::Arc;

/// What Ozonetel is.
pub static OZONETEL: Descriptor = Descriptor {
    title: "Ozonetel",
    name: "ozonetel",
    caps: &CAPS,
    error_code: "VENDOR_ERROR",
    stream_path: "/ws",
    token_in: TokenPlace::Query,
    hook_paths: &[HookPath {
        path: "/api/calls/ozonetel/webhook",
        kind: HookKind::Mixed,
    }],
    number_hook: HookKind::Mixed,
    claims: |request| match params::Params::read(request) {
        Ok(params) if params.get(&["event"]).is_some() && params.get(&["sid", "cid"]).is_some() => Claim::Yes,
        _ => Claim::No,
    },
    dials_by_default: false,
    dials_sip: false,
    codec: |upgrade| Box::new(stream::Codec::new(upgrade)),
    trunk: |section| Arc::new(Account::new(Config::read(section))),
    peer: |call| Box::new(peer::Peer::new(call)),
    simulated: &[("api_key", "simulated"), ("base_url", "{base}")],
};

const L16_8K: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 8000,
};

/// Frames of 10 ms each way. The platform queues 60 s and drops the rest silently. Its marks mean different things to different
/// integrations, so none is waited for.
static CAPS: Caps = Caps {
    inbound: L16_8K,
    outbound: L16_8K,
    offers: &[L16_8K],
    ptime_ms: 10,
    chunk_multiple: 160,
    lead_ms: 200,
    mark: false,
    clear: true,
    interrupt: false,
    stop: true,
    close_ends_call: true,
    max_inbound_ms: 1000,
    binary: true,
};

/// An account at Ozonetel.
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

    fn parse(&self, _: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
        hooks::parse(request)
    }

    fn answer(&self, request: &HookRequest<'_>, answer: &Answer) -> Document {
        hooks::answer(&self.config, request, answer)
    }

    fn receipt(&self, request: &HookRequest<'_>) -> Document {
        hooks::receipt(request)
    }

    fn request(&self, _: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
        api::request(&self.config, action)
    }

    fn reply(&self, action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
        api::reply(action, status, body)
    }

    fn can_dial(&self) -> bool {
        self.config.api_key.is_some()
    }
}
