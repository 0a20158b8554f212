//! Telnyx: media streaming over WebSocket, webhooks of API v2, Call Control commands.
//!
//! Sources are Telnyx's public pages "Media Streaming over WebSockets", "Receiving Webhooks", "Voice API: Call Commands",
//! and its open SDKs. A call is announced by a webhook and answered by a command; the answer to the webhook says nothing.

mod api;
mod config;
mod hooks;
mod message;
mod peer;
mod rest;
mod ring;
mod stream;
mod verify;

pub use config::{ByteOrder, Codec, Config, Track};

use super::{
    Admit, Agreed, Answer, ApiRequest, CallAction, CallDetails, Caps, Claim, Descriptor, Document, Handling, Hook,
    HookKind, HookPath, HookRequest, TokenPlace, Trunk,
};
use crate::base::{
    fault::Fault,
    format::{AudioFormat, Encoding},
};
use std::sync::Arc;

/// What Telnyx is.
pub static TELNYX: Descriptor = Descriptor {
    title: "Telnyx",
    name: "telnyx",
    caps: &CAPS,
    error_code: "VENDOR_ERROR",
    stream_path: "/audio-stream",
    token_in: TokenPlace::Path,
    hook_paths: &[
        HookPath {
            path: "/api/calls/telnyx/webhook",
            kind: HookKind::Mixed,
        },
        HookPath {
            path: "/telnyx/webhook",
            kind: HookKind::Mixed,
        },
    ],
    number_hook: HookKind::Mixed,
    claims: |request| match request.headers.contains_key(&verify::SIGNATURE) {
        true => Claim::Yes,
        false => Claim::No,
    },
    dials_by_default: false,
    dials_sip: true,
    codec: |upgrade| Box::new(stream::Codec::new(upgrade)),
    trunk: |section| Arc::new(Account::new(Config::read(section))),
    peer: |call| Box::new(peer::Peer::new(call)),
    simulated: &[
        ("api_key", "simulated"),
        ("application_id", "simulated"),
        ("base_url", "{base}/v2"),
    ],
};

const fn of(encoding: Encoding, rate: u32) -> AudioFormat {
    AudioFormat { encoding, rate }
}

/// Telnyx frames 20 ms and takes 20 ms to 30 s at a time, queued without limit. The call outlives its media socket.
static CAPS: Caps = Caps {
    inbound: AudioFormat::ULAW_8K,
    outbound: AudioFormat::ULAW_8K,
    offers: &[
        AudioFormat::ULAW_8K,
        of(Encoding::Alaw, 8000),
        of(Encoding::L16Le, 16_000),
        of(Encoding::L16Le, 8000),
        of(Encoding::L16Le, 24_000),
        of(Encoding::L16Le, 48_000),
        of(Encoding::G722, 16_000),
        of(Encoding::Opus, 16_000),
        of(Encoding::Opus, 48_000),
    ],
    ptime_ms: 20,
    chunk_multiple: 160,
    lead_ms: 240,
    mark: true,
    clear: true,
    interrupt: false,
    stop: true,
    close_ends_call: false,
    max_inbound_ms: 1000,
    binary: false,
};

/// An account at Telnyx.
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
        verify::webhook(&self.config, request)
    }

    fn unguarded(&self) -> Option<&'static str> {
        (self.config.public_keys.is_empty() && !self.config.insecure).then_some("public_key")
    }

    /// Nothing but the token tells Telnyx's upgrade request from anybody's: it is compared when the stream says `start`.
    fn verify_upgrade(&self, _: &HookRequest<'_>) -> Result<Admit, Fault> {
        Ok(Admit::WithToken)
    }

    fn parse(&self, _: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
        hooks::parse(request)
    }

    /// The call is answered by a command; Telnyx ignores what stands here.
    fn answer(&self, request: &HookRequest<'_>, _: &Answer) -> Document {
        self.receipt(request)
    }

    fn receipt(&self, _: &HookRequest<'_>) -> Document {
        Document {
            status: 200,
            content_type: "application/json",
            body: r#"{"received":true}"#.to_owned(),
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

    fn handling(&self) -> Handling {
        Handling {
            by_command: true,
            stream_after_answer: self.config.needs_rate(),
            restream: true,
            enhance: self.config.noise_suppression,
            repeatable: true,
        }
    }

    fn wished(&self, wishes: &[(&'static str, String)]) -> Result<Option<Arc<dyn Trunk>>, Fault> {
        if wishes.is_empty() {
            return Ok(None);
        }
        let config = self.config.clone().wished(wishes)?;
        Ok(Some(Arc::new(Self { config })))
    }

    fn agreed(&self) -> Agreed {
        Agreed {
            outbound: Some(self.config.outbound()),
            l16: self.config.l16_byte_order.encoding(),
        }
    }
}
