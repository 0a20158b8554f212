//! The control plane: decides what happens to calls. One task per call owns its machine and its agent; this is the door.
//!
//! Everything here runs off the media threads and may wait. A step is committed before it is told to anybody.

use crate::{
    base::{
        fault::Fault,
        ids::{CallId, ConnectionId, MessageId, TenantId},
    },
    media::Arrival,
    store::{CallRow, CallStatus},
    vendor::{Answer, CallUpdate, Descriptor},
};
use std::time::Duration;
use tokio::sync::mpsc;

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control {}

/// A call to place.
#[derive(Clone, Debug, Default)]
pub struct DialRequest {
    /// E.164 (`^\+[1-9][0-9]{6,14}$`), or `sip:` where the vendor takes it.
    pub to: String,
    /// One of the tenant's numbers; the first of the vendor's when empty.
    pub from: String,
    /// The vendor; that of `from` when `None`.
    pub vendor: Option<String>,
    /// The agent that serves the call; the number's when `None`.
    pub agent: Option<String>,
}

/// Words to say to a caller.
#[derive(Clone, Debug, Default)]
pub struct Say {
    /// The words.
    pub text: String,
    /// BCP 47, or `auto`.
    pub language: String,
    /// The frontend's own reference, echoed in every status of the message.
    pub client_ref: Option<String>,
    /// Who says it.
    pub sender_name: Option<String>,
}

/// A piece of a frontend's microphone.
#[derive(Clone, Debug)]
pub struct Microphone {
    /// Mono samples.
    pub samples: Vec<i16>,
    /// Their rate, one of `AudioFormat::RATES`.
    pub rate: u32,
    /// Whether the caller hears it (else it is recognised).
    pub to_caller: bool,
    /// Whether the microphone stops with it.
    pub last: bool,
}

/// A call in memory.
#[derive(Clone, Debug)]
pub struct LiveCall {
    /// Its record as it stands.
    pub row: CallRow,
    /// Its media socket, once it streams.
    pub connection: Option<ConnectionId>,
}

impl Control {
    /// A call arrived at a vendor: records it, tells the frontends, and says how to answer. A repetition gets the same answer.
    pub async fn incoming(&self, _vendor: &'static Descriptor, _update: CallUpdate) -> Result<Answer, Fault> {
        todo!()
    }

    /// News of a call from its vendor. Repeated and late news change nothing.
    pub async fn update(&self, _vendor: &'static Descriptor, _update: CallUpdate) -> Result<(), Fault> {
        todo!()
    }

    /// Places a call.
    pub async fn dial(&self, _tenant: TenantId, _request: DialRequest) -> Result<CallRow, Fault> {
        todo!()
    }

    /// Ends a call, at the vendor too. Either id. Ending an ended call succeeds.
    pub async fn hang_up(&self, _tenant: TenantId, _id: &str) -> Result<CallRow, Fault> {
        todo!()
    }

    /// Says something to the caller. Returns once it is queued; `News::MessageStatus` tells when it is durable and when it was heard.
    pub async fn say(&self, _tenant: TenantId, _id: &str, _say: Say) -> Result<MessageId, Fault> {
        todo!()
    }

    /// A person moves the call: `Answered`, `InProgress`, or `Ended` (which hangs up).
    pub async fn set_status(&self, _tenant: TenantId, _id: &str, _status: CallStatus) -> Result<(), Fault> {
        todo!()
    }

    /// Audio from a frontend. Never waits; a full queue drops the audio and counts it.
    pub fn microphone(&self, _tenant: TenantId, _id: &str, _audio: Microphone) -> Result<(), Fault> {
        todo!()
    }

    /// A person's language for a call's recogniser (`init_telephony_stream`), for calls that have none yet.
    pub fn call_exists(&self, _tenant: TenantId, _id: &str) -> Option<CallId> {
        todo!()
    }

    /// Live calls of a tenant, newest first.
    pub fn active(&self, _tenant: TenantId) -> Vec<LiveCall> {
        todo!()
    }

    /// Announces a simulated incoming call of a tenant, to be streamed to by whoever holds the returned token.
    pub async fn announce_simulated(
        &self,
        _tenant: TenantId,
        _vendor: &'static Descriptor,
        _update: CallUpdate,
    ) -> Result<Answer, Fault> {
        todo!()
    }

    /// Where the shards report legs that began.
    pub fn arrivals(&self) -> mpsc::Sender<Arrival> {
        todo!()
    }

    /// Live calls in all.
    pub fn live(&self) -> usize {
        todo!()
    }

    /// Refuses new calls from now on; live ones go on. Returns when none is left or `limit` has passed, then ends the rest.
    pub async fn drain(&self, _limit: Duration) {
        todo!()
    }
}
