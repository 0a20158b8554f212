//! Lays a leg's audio: rings, ear, mouth and recording as the agent of its call needs them.

use crate::{
    agent::{Kind, Profile},
    audio::ring::{self, DownlinkRx, DownlinkTx},
    base::{
        format::{AudioFormat, Encoding},
        ids::{CallId, TenantId},
    },
    media::{Arrival, LegEvent, Plan, Route},
    record::TapTx,
    speech::{
        EarHandle, EarSpec, Mouth, Speech, SpeechEvent,
        duplex::{DuplexHandle, DuplexSpec, Memory},
    },
};
use tokio::sync::mpsc;

/// How much of the caller's audio waits for its ear's lane, in ms: what a leg holds until its plan comes, and half a second more. What
/// a recogniser has not settled is kept behind the ear.
const UPLINK_MS: usize = 1500;
/// Seconds of speech a mouth may be ahead of the caller.
const DOWNLINK_SECONDS: usize = 1;
/// Runs of samples a mouth may be ahead: a second in pieces of 8 ms.
const DOWNLINK_SPANS: usize = 128;
/// Bytes of packets a mouth may be ahead: a second at 64 kbit/s, more than is ever sent.
const DOWNLINK_BYTES: usize = 8000;
/// News that may wait for the call's task.
const NEWS: usize = 256;

/// A leg's audio as laid: the plan for the leg, and the control plane's ends.
pub(super) struct Laid {
    pub(super) plan: Plan,
    pub(super) leg: mpsc::Receiver<LegEvent>,
    /// News of ear and mouth; ends when both are closed.
    pub(super) speech: Option<mpsc::Receiver<SpeechEvent>>,
    pub(super) mouth: Option<Mouth>,
    pub(super) ear: Option<EarHandle>,
    pub(super) conversation: Option<DuplexHandle>,
}

/// Opens what the agent needs, on the lane of the leg's shard. `memory` is what a conversation of the call remembers.
pub(super) fn lay(
    speech: &Speech,
    profile: &Profile,
    (call, tenant): (CallId, TenantId),
    arrival: &Arrival,
    tap: Option<TapTx>,
    memory: Option<&Memory>,
) -> Laid {
    let (events, leg) = mpsc::channel(NEWS);
    let plan = |route| Plan {
        call,
        route,
        barge_in_after: profile.onset(),
        tap,
        events,
    };
    let (inbound, outbound) = (arrival.start.inbound, arrival.start.outbound);
    if profile.kind == Kind::Echo {
        // Opus is passed back as it came, or encoded where there is time for it.
        let encodes = outbound.encoding == Encoding::Opus && inbound.encoding != Encoding::Opus;
        let route = match encodes {
            false => Route::Echo,
            true => {
                let (up, heard) = ring::uplink(outbound.rate, outbound.rate as usize, None);
                let (said, down) = downlink(outbound);
                speech.open_echo(arrival.shard, heard, said);
                Route::Relay {
                    uplink: Some(up),
                    downlink: Some(down),
                }
            }
        };
        return Laid {
            plan: plan(route),
            leg,
            speech: None,
            mouth: None,
            ear: None,
            conversation: None,
        };
    }
    let (news_tx, news) = mpsc::channel(NEWS);
    let (tx, downlink) = downlink(outbound);
    // An agent that says nothing presses keys, which need no voice.
    let voice = profile.mouth().unwrap_or_default();
    let mouth = speech.open_mouth(arrival.shard, voice, tx, news_tx.clone());
    let uplink = || {
        let room = inbound.rate as usize * UPLINK_MS / 1000;
        ring::uplink_of(inbound, room, Some(speech.bell(arrival.shard)))
    };
    let (uplink, ear, conversation) = match (profile.duplex(), profile.ear()) {
        (Some(spec), _) => {
            let (tx, rx) = uplink();
            let spec = DuplexSpec {
                outbound: Some(outbound),
                history: memory.cloned().unwrap_or_default(),
                ..spec
            };
            let (conversation, ear) = speech.open_duplex(arrival.shard, spec, rx, mouth.clone(), news_tx);
            (Some(tx), Some(ear), Some(conversation))
        }
        (None, Some(spec)) => {
            let (tx, rx) = uplink();
            let spec = EarSpec { tenant, ..spec };
            (Some(tx), Some(speech.open_ear(arrival.shard, spec, rx, news_tx)), None)
        }
        (None, None) => (None, None, None),
    };
    Laid {
        plan: plan(Route::Relay {
            uplink,
            downlink: Some(downlink),
        }),
        leg,
        speech: Some(news),
        mouth: Some(mouth),
        ear,
        conversation,
    }
}

/// The ring towards a caller who is spoken to in this format: of Opus it holds packets, of G.711 codes.
fn downlink(format: AudioFormat) -> (DownlinkTx, DownlinkRx) {
    let capacity = format.rate as usize * DOWNLINK_SECONDS;
    match format.encoding {
        Encoding::Opus => ring::downlink_of_packets(format.rate, capacity, DOWNLINK_SPANS, DOWNLINK_BYTES),
        _ => ring::downlink_of(format, capacity, DOWNLINK_SPANS),
    }
}
