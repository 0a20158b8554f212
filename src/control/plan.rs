//! Lays a leg's audio: rings, ear, mouth and recording as the agent of its call needs them.

use crate::{
    agent::{Kind, Profile},
    audio::ring,
    base::ids::CallId,
    media::{Arrival, LegEvent, Plan, Route},
    record::TapTx,
    speech::{EarHandle, Mouth, Speech, SpeechEvent},
};
use tokio::sync::mpsc;

/// Seconds of the caller's audio kept for an ear that does not keep up.
const UPLINK_SECONDS: usize = 5;
/// Seconds of speech a mouth may be ahead of the caller.
const DOWNLINK_SECONDS: usize = 2;
/// Runs of samples a mouth may be ahead: two seconds in pieces of 8 ms.
const DOWNLINK_SPANS: usize = 256;
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
}

/// Opens what the agent needs, on the lane of the leg's shard.
pub(super) fn lay(speech: &Speech, profile: &Profile, call: CallId, arrival: &Arrival, tap: Option<TapTx>) -> Laid {
    let (events, leg) = mpsc::channel(NEWS);
    let plan = |route| Plan {
        call,
        route,
        barge_in_after: profile.onset(),
        tap,
        events,
    };
    if profile.kind == Kind::Echo {
        return Laid {
            plan: plan(Route::Echo),
            leg,
            speech: None,
            mouth: None,
            ear: None,
        };
    }
    let (news_tx, news) = mpsc::channel(NEWS);
    let (uplink, ear) = profile
        .ear()
        .map(|spec| {
            let format = arrival.start.inbound;
            let room = format.rate as usize * UPLINK_SECONDS;
            let (tx, rx) = ring::uplink_of(format, room, Some(speech.bell(arrival.shard)));
            (tx, speech.open_ear(arrival.shard, spec, rx, news_tx.clone()))
        })
        .unzip();
    let (downlink, mouth) = profile
        .mouth()
        .map(|spec| {
            let rate = arrival.start.outbound.rate;
            let (tx, rx) = ring::downlink(rate, rate as usize * DOWNLINK_SECONDS, DOWNLINK_SPANS);
            (rx, speech.open_mouth(arrival.shard, spec, tx, news_tx))
        })
        .unzip();
    Laid {
        plan: plan(Route::Relay { uplink, downlink }),
        leg,
        speech: Some(news),
        mouth,
        ear,
    }
}
