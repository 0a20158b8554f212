//! One leg of a call without I/O: what comes in is handled with the time as an argument, what must go out is polled.
//!
//! The shell that owns the socket is `shard::leg_task`; the words exchanged with the control plane are here, because
//! news travels up through types of the lower layer.

mod ingress;
mod keys;
mod leg;
mod limits;
mod mark;
pub mod monitor;
mod playout;
mod rate;
mod reorder;
mod session;
mod tap;
mod timer;
mod tones;

pub use ingress::Scratch;
pub use limits::Limits;
pub use session::{Output, Session};
pub use tones::Tones;

use crate::{
    audio::ring::{DownlinkRx, UplinkTx},
    base::{
        doorbell::Doorbell,
        ids::{CallId, ConnectionId, UtteranceId},
    },
    record::TapTx,
    vendor::{Descriptor, StreamStart},
};
use crossbeam_channel::{Sender, TrySendError};
use monitor::MonitorTx;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A leg whose vendor said `start` and that waits for its plan.
#[derive(Debug)]
pub struct Arrival {
    /// How to command the leg.
    pub leg: LegHandle,
    /// Our id of the socket.
    pub connection: ConnectionId,
    /// Whose socket it is.
    pub vendor: &'static Descriptor,
    /// What `start` said.
    pub start: StreamStart,
    /// The token of the socket's path, if it had one.
    pub path_token: Option<String>,
    /// The id of our number that the socket's path names, if it names one.
    pub number: Option<String>,
    /// Whether the socket's request proved itself, so that no token is needed.
    pub proven: bool,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The shard that owns the leg: its ears and mouths live on the lane of the same number.
    pub shard: usize,
}

/// Commands a leg from any thread.
#[derive(Clone, Debug)]
pub struct LegHandle {
    commands: Sender<(u64, LegCommand)>,
    bell: Arc<Doorbell>,
    key: u64,
}

/// A command did not reach its shard.
#[derive(Debug)]
pub enum LegSendError {
    /// The shard's queue is full; the command is handed back to be tried again.
    Full(LegCommand),
    /// The shard is gone.
    Gone,
}

impl LegHandle {
    /// A handle to the leg that its shard knows as `key`. `bell` wakes the shard.
    pub const fn new(commands: Sender<(u64, LegCommand)>, bell: Arc<Doorbell>, key: u64) -> Self {
        Self { commands, bell, key }
    }

    /// Queues a command; a leg that has ended ignores it.
    pub fn try_send(&self, command: LegCommand) -> Result<(), LegSendError> {
        self.commands.try_send((self.key, command)).map_err(|e| match e {
            TrySendError::Full((_, c)) => LegSendError::Full(c),
            TrySendError::Disconnected(_) => LegSendError::Gone,
        })?;
        self.bell.ring();
        Ok(())
    }
}

/// What the control plane tells a leg.
#[derive(Debug)]
pub enum LegCommand {
    /// Where the leg's audio goes; ends its opening.
    Plan(Box<Plan>),
    /// Close with this WebSocket code and reason instead.
    Close {
        /// RFC 6455 §7.4 code.
        code: u16,
        /// At most 123 bytes, fixed text.
        reason: &'static str,
    },
    /// Cut everything below this utterance off: drop it, clear the vendor's queue, report what was heard.
    Cut {
        /// The first utterance that may still be played.
        floor: UtteranceId,
    },
    /// Ask the vendor not to play one of our messages, by its number; the last one when `None`.
    Interrupt(Option<u64>),
    /// Stop or resume audio at the relay, each way.
    Mute {
        /// The caller is not heard.
        uplink: bool,
        /// The caller hears silence.
        downlink: bool,
    },
    /// What is being said may not be talked over, or may again: the caller's voice does not cut it.
    Protect(bool),
    /// Sound that takes the place of what the caller says, after what takes it already: an echo gives it back.
    Tones(Box<Tones>),
    /// Copy the leg's audio for somebody who listens in, in place of who did before.
    Monitor(Box<MonitorTx>),
    /// Start or stop writing the recording's tap.
    Record(bool),
}

/// Where a leg's audio goes.
#[derive(Debug)]
pub struct Plan {
    /// The call, for log lines.
    pub call: CallId,
    /// The way of its audio.
    pub route: Route,
    /// Cut playout when the caller has spoken this long over it; `None` leaves that to commands.
    pub barge_in_after: Option<Duration>,
    /// Copies of both sides for the recording.
    pub tap: Option<TapTx>,
    /// Where the leg's news goes. Dropped when the leg ends, after [`LegEvent::Ended`].
    pub events: mpsc::Sender<LegEvent>,
}

/// The way of a leg's audio.
#[derive(Debug)]
pub enum Route {
    /// What the caller says comes back, through both rings, on the shard. Where both ways are Opus, the caller's own packets do,
    /// byte for byte; where only the way out is, nothing can, for encoding has no place there.
    Echo,
    /// To an ear and from a mouth; either may be missing.
    Relay {
        /// To the ear.
        uplink: Option<UplinkTx>,
        /// From the mouth.
        downlink: Option<DownlinkRx>,
    },
}

/// What a leg tells the control plane. Never per frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// A key was pressed.
    Dtmf(char),
    /// The vendor complains of what we sent, with a code of its own.
    Complaint(u64),
    /// The first byte of an utterance went out.
    Playing(UtteranceId),
    /// An utterance is over: played to its end, or cut.
    Played {
        /// Which.
        utterance: UtteranceId,
        /// How much of it the caller heard.
        heard_ms: u32,
        /// Whether that was all of it.
        whole: bool,
    },
    /// The caller spoke over the playout, which was cut; `Played` for each utterance follows. Nothing more is played until
    /// [`LegCommand::Cut`] says from which utterance to go on, or half a second has passed.
    BargedIn,
    /// The leg is over. Nothing follows.
    Ended {
        /// Why.
        end: LegEnd,
        /// Where every frame went. Boxed, so that the many small events stay small.
        accounting: Box<Accounting>,
    },
}

/// Why a leg ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LegEnd {
    /// The vendor said `stop`.
    Stopped,
    /// The socket closed without it.
    ClosedWithoutStop,
    /// Nothing arrived for the idle time.
    Idle,
    /// The peer did not read what it was sent.
    Stalled,
    /// We closed it.
    Closed,
    /// The peer broke the protocol or a limit; the code it was closed with.
    Violation(u16),
    /// The leg's task panicked.
    Crashed,
}

/// Audio in milliseconds, each way: received = relayed + dropped + queued at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Accounting {
    /// From the caller: frames received.
    pub in_frames: u64,
    /// From the caller: samples received, and those made up for what was lost.
    pub in_samples: u64,
    /// Of those, samples made up.
    pub in_concealed: u64,
    /// Of those, samples handed to the ear or echoed.
    pub in_relayed: u64,
    /// Dropped because nobody listens or the leg is muted.
    pub in_dropped_unheard: u64,
    /// Dropped because the ring was full.
    pub in_dropped_full: u64,
    /// Messages dropped because they could not be read.
    pub in_bad: u64,
    /// Messages dropped because there were too many in a second.
    pub in_flooded: u64,
    /// Messages dropped because they came after their turn, or again.
    pub in_late: u64,
    /// Messages whose time was so far from ours that it was not believed.
    pub in_misdated: u64,
    /// Keys dropped because the call did not take them, or no telephone has them.
    pub keys_dropped: u64,
    /// Complaints of the vendor about what we sent.
    pub complaints: u64,
    /// To the caller: samples taken from the mouth or the echo.
    pub out_samples: u64,
    /// Of those, samples written to the socket.
    pub out_sent: u64,
    /// Of those, samples cut by barge-in or command before they were written.
    pub out_cut: u64,
    /// Of those, samples dropped because the peer did not read.
    pub out_dropped_stalled: u64,
    /// Of those, samples still queued when the leg ended.
    pub out_queued: u64,
    /// Frames written.
    pub out_frames: u64,
}

impl Accounting {
    /// What was dropped, by kind and reason, for the process's counters.
    pub const fn drops(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            ("media_message", "unreadable", self.in_bad),
            ("media_message", "too_many", self.in_flooded),
            ("media_message", "late", self.in_late),
            ("caller_samples", "ring_full", self.in_dropped_full),
            ("agent_samples", "peer_not_reading", self.out_dropped_stalled),
            ("key", "not_taken", self.keys_dropped),
        ]
    }
}

#[cfg(test)]
mod tests;
