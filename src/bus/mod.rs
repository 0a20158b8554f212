//! News between the calls and whoever watches them: within the process ([`local`]), and between the nodes of a cluster ([`nats`]).
//!
//! Events are values, published after the commit that made them true. What is merely live (interims, audio) carries no id.

use crate::base::{
    ids::{CallId, MessageId, TenantId},
    time::Wall,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

mod config;
pub mod envelope;
pub mod local;
pub mod nats;
pub mod peers;

pub use config::Config;
pub use peers::Peers;

/// News of one call.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose call.
    pub tenant: TenantId,
    /// Which call.
    pub call: CallId,
    /// Position in the tenant's order, for what is durable.
    pub id: Option<i64>,
    /// When.
    pub at: Wall,
    /// What.
    pub news: News,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum News {
    /// The call moved.
    Status {
        /// `initiated`, `ringing`, `incoming`, `answered`, `in_progress`, `ended`.
        status: &'static str,
        /// With `ended`.
        end_reason: Option<&'static str>,
        /// The far party.
        customer_number: String,
        /// Our number.
        organization_number: String,
        /// The vendor's id of the call; `pending:` and ours until the vendor has told it.
        call_sid: String,
        /// Whether the call came to us.
        inbound: bool,
        /// With `ended`: how long it was, in seconds.
        duration: Option<i64>,
    },
    /// Words were recognised.
    Transcript {
        /// The words.
        text: String,
        /// `customer`, or `agent` for a frontend's microphone on a call with a vendor leg.
        sender: &'static str,
        /// Whether they are final. Finals are stored before they are published.
        is_final: bool,
        /// Where it means something.
        confidence: Option<f32>,
        /// Where it was detected.
        detected_language: Option<String>,
        /// The stored message, for finals.
        message_id: Option<MessageId>,
    },
    /// Synthesized speech on its way to the caller: MULAW 8 kHz.
    TtsAudio {
        /// The message it speaks.
        message_id: MessageId,
        /// Its text.
        message: String,
        /// Encoded audio.
        audio: Bytes,
        /// Chunk number from 0.
        seq: u32,
        /// Whether the message ends with it.
        last: bool,
    },
    /// What became of an agent message.
    MessageStatus {
        /// Which.
        message_id: MessageId,
        /// The frontend's own reference.
        client_ref: Option<String>,
        /// `stored`, `heard`, `cut`, `failed`.
        status: &'static str,
        /// How much was heard.
        heard_ms: u32,
        /// The words, so that every viewer can show them.
        message: String,
    },
    /// A key was pressed.
    Dtmf(char),
    /// The call was given to another agent, as to a person at a frontend.
    Handoff {
        /// The name of the agent that serves it now.
        agent: String,
    },
    /// Something failed and the call goes on.
    Fault {
        /// `CONNECTION_FAILED`, `TTS_ERROR`, `STT_ERROR`, or the vendor's code.
        code: &'static str,
        /// The vendor, where it is at fault.
        vendor: Option<&'static str>,
        /// What a person can act on.
        message: String,
        /// The message concerned.
        message_id: Option<MessageId>,
        /// Whether the vendor could not carry the media stream.
        of_stream: bool,
    },
}

impl News {
    /// Whether it may be lost to a slow viewer without harm.
    pub const fn is_live_audio(&self) -> bool {
        matches!(self, Self::TtsAudio { .. })
    }
}

/// Carries events to everyone subscribed.
pub trait Bus: Send + Sync {
    /// Publishes. Never waits: a subscriber that does not keep up loses its subscription, which it learns by its end.
    fn publish(&self, event: Arc<Event>);

    /// Receives every event from now on.
    fn subscribe(&self) -> mpsc::Receiver<Arc<Event>>;

    /// A frontend of this tenant came (or, for `false`, went): it wants what is live of its calls, speech among it.
    fn watch(&self, _tenant: TenantId, _comes: bool) {}

    /// The other nodes, where there may be some.
    fn peers(&self) -> Option<&Peers> {
        None
    }
}
