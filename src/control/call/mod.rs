//! One call as a state machine: its record, where it stands, what was said and heard, and how it ends. No I/O and no clock.
//!
//! Inputs are methods that take the time; what they ask for is drained with [`Call::poll`] after each. Status only moves
//! forward: repeated, late and reordered news change facts at most. What others are told follows the commit that made
//! it true (`outbox`); speech does not wait for the disk.

use crate::{
    base::{
        backoff::Backoff,
        fault::Fault,
        ids::{CallId, UtteranceId},
        time::{Mono, Wall},
    },
    bus::Event,
    control::cdr::Facts,
    store::{Batch, CallRow, CallStatus, Write},
    vendor::Handling,
};
use std::{collections::VecDeque, time::Duration};

mod answers;
mod arriving;
mod durable;
mod ending;
mod keys;
mod leaving;
mod ledger;
mod outbox;
mod record;
#[cfg(test)]
mod tests;
mod timers;
mod wishes;
mod words;

pub(super) use leaving::Left;
pub(super) use outbox::Done;

use answers::Answer;
use keys::{Keys, Teller};
use ledger::{Ledger, Spoken};
use outbox::{Outbox, Then};
use timers::{Timer, Timers};

/// How long an ended call waits for its last words and its leg's accounting.
const LINGER: Duration = Duration::from_secs(10);
/// How long before the longest length the log is told.
const WARN_BEFORE: Duration = Duration::from_secs(300);
/// News of the vendor that is recognised when it is repeated: many times what a call has.
const MAX_SEEN: usize = 64;
/// Streams of one call that may break within [`LOST_WITHIN`] and be asked for again.
const MAX_LOST_STREAMS: usize = 3;
/// A call whose stream has lived for so long starts anew.
const LOST_WITHIN: Duration = Duration::from_secs(60);
/// Lost streams that the record tells of: the last ones.
const TOLD_LOST_STREAMS: usize = 16;
/// Utterances held for a caller who cannot hear yet.
const MAX_HELD: usize = 16;

/// Both clocks at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    pub(super) mono: Mono,
    pub(super) wall: Wall,
}

/// What the surroundings of a call allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The vendor's name.
    pub(super) vendor: &'static str,
    /// The code of its faults.
    pub(super) error_code: &'static str,
    /// Whether the vendor takes commands by REST.
    pub(super) rest: bool,
    /// What the vendor is told of its own accord.
    pub(super) handling: Handling,
    /// Whether the phone call ends with its media socket.
    pub(super) close_ends_call: bool,
    /// How long to wait for the media stream.
    pub(super) stream_within: Duration,
    /// How long to wait for another after it broke.
    pub(super) media_grace: Duration,
    /// The longest call.
    pub(super) max_length: Duration,
}

/// What is asked of the vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Place the call.
    Dial,
    /// Take the call, and connect it to our media socket.
    Accept,
    /// Connect the call to our media socket.
    StartStream,
    /// Clean the audio of noise, or stop it.
    Enhance(bool),
    /// End it.
    HangUp,
    /// Hand it to a number.
    Transfer(String),
    /// Send keys.
    Digits(String),
}

impl Ask {
    /// What it is, for the log: numbers and keys are not for it.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Dial => "dial",
            Self::Accept => "accept",
            Self::StartStream => "start_stream",
            Self::Enhance(_) => "enhance",
            Self::HangUp => "hang_up",
            Self::Transfer(_) => "transfer",
            Self::Digits(_) => "digits",
        }
    }
}

/// What a call wants done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Make durable, then tell [`Call::committed`].
    Commit(Batch),
    /// Publish.
    Publish(Box<Event>),
    /// Tell somebody that what they wait for is durable.
    Tell(Done),
    /// Speak to the caller.
    Speak {
        utterance: UtteranceId,
        text: String,
        language: Option<String>,
    },
    /// Drop all speech below this utterance.
    Cut(UtteranceId),
    /// An utterance is over, for the agent to know.
    Over {
        utterance: UtteranceId,
        whole: bool,
        heard_ms: u32,
    },
    /// Close the media socket.
    Close { code: u16, reason: &'static str },
    /// Ask the vendor, then tell [`Call::asked`].
    Ask(Ask),
    /// The vendor's id of the call is known.
    Sid(String),
    /// The record exists: the call may be shown.
    Created,
    /// The end is on record: the call counts no more.
    Released,
    /// The longest length is near.
    LengthWarning,
    /// A message was left out of the record because storage does not keep up.
    Lost,
    /// A commit failed for good.
    StoreFault(Fault),
}

/// Words for the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) text: String,
    pub(super) language: Option<String>,
    pub(super) client_ref: Option<String>,
    pub(super) sender_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Awaited,
    Live,
    Gone,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Call {
    row: CallRow,
    terms: Terms,
    facts: Box<Facts>,
    timers: Timers,
    outbox: Outbox,
    ledger: Ledger,
    /// What a service says of its own accord, until its words are on record.
    answers: Vec<Answer>,
    retry: Backoff,
    effects: VecDeque<Effect>,
    seq: i64,
    answered: Option<Mono>,
    leg: Leg,
    /// Whether an ear or a mouth may still send news.
    ears_open: bool,
    /// The call waited long enough for what comes after its end.
    lingered: bool,
    /// Words for a caller who cannot hear yet; `None` once they can.
    held: Option<Vec<(UtteranceId, String, Option<String>)>>,
    dialing: bool,
    hanging_up: bool,
    hang_up_wanted: bool,
    /// The vendor cleans the call's audio of noise.
    enhanced: bool,
    /// The vendor was asked for the media stream once more.
    restreamed: bool,
    /// When its last streams broke.
    lost_at: VecDeque<Mono>,
    asking: u32,
    waiting_for_dial: Vec<Done>,
    waiting_for_end: Vec<Done>,
    /// Who waits for what the vendor says to what.
    waiting_for_ask: Vec<(Ask, Done)>,
    /// Keys of the vendor's latest news.
    seen: VecDeque<String>,
    keys: Keys,
    stt_out: bool,
    llm_out: bool,
    /// Whether the record exists.
    created: bool,
    /// The call never came to be: another record has its id, or storage refused it.
    void: bool,
    changed: bool,
}

/// The one id of a call in logs, files and events: the vendor's id, made safe for a file name, and part of ours.
pub(super) fn session_id(call_sid: &str, call: CallId) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
            c
        } else {
            '_'
        }
    };
    let sid: String = call_sid.chars().map(safe).collect();
    let ours = call.as_str();
    format!("{sid}-{}", &ours[ours.len().saturating_sub(8)..])
}

impl Call {
    /// A call that begins as `row` says. A call placed by us is asked of the vendor once its record exists.
    pub(super) fn new(now: Now, row: CallRow, terms: Terms, facts: Facts) -> Self {
        let mut call = Self::bare(now, row, terms, facts);
        call.row.metadata = call.facts.to_json();
        let mut writes = Vec::new();
        if call.row.inbound {
            writes.push(Write::Seen {
                vendor: terms.vendor,
                key: format!("call:{}:{}", call.row.tenant_id.0, call.row.call_sid),
            });
        }
        writes.push(Write::Call(Box::new(call.row.clone())));
        call.keep(now, writes, call.status_news(), [Then::Created]);
        call
    }

    /// A call of which nothing was said or done yet.
    fn bare(now: Now, row: CallRow, terms: Terms, facts: Facts) -> Self {
        let mut call = Self {
            terms,
            facts: Box::new(facts),
            timers: Timers::default(),
            outbox: Outbox::default(),
            ledger: Ledger::default(),
            answers: Vec::new(),
            retry: retry_schedule(),
            effects: VecDeque::new(),
            seq: 0,
            answered: None,
            leg: Leg::Awaited,
            ears_open: false,
            lingered: false,
            held: Some(Vec::new()),
            dialing: false,
            hanging_up: false,
            hang_up_wanted: false,
            enhanced: false,
            restreamed: false,
            lost_at: VecDeque::new(),
            asking: 0,
            waiting_for_dial: Vec::new(),
            waiting_for_end: Vec::new(),
            waiting_for_ask: Vec::new(),
            seen: VecDeque::new(),
            keys: Keys::default(),
            stt_out: false,
            llm_out: false,
            created: false,
            void: false,
            changed: true,
            row,
        };
        call.timers.set(Timer::Stream, now.mono + terms.stream_within);
        call
    }

    /// The record as it stands.
    pub(super) const fn row(&self) -> &CallRow {
        &self.row
    }

    /// Whether the record changed since this was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Whether the call has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.row.status == CallStatus::Ended
    }

    /// Whether a media socket may take this call.
    pub(super) fn awaits_leg(&self) -> bool {
        self.leg == Leg::Awaited && !self.is_ended()
    }

    /// Whether a vendor leg carries, or carried, the call.
    pub(super) fn has_leg(&self) -> bool {
        self.leg != Leg::Awaited || !self.facts.lost_streams.is_empty()
    }

    /// Media streams that broke while the call went on.
    pub(super) const fn lost_streams(&self) -> u32 {
        self.facts.streams_lost
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_over(&self) -> bool {
        let quiet = self.lingered || (self.leg != Leg::Live && !self.ears_open);
        let quiet = quiet && self.asking == 0 && !self.dialing;
        self.void || (self.is_ended() && quiet && self.outbox.is_idle() && self.effects.is_empty())
    }

    /// When [`Call::timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The next thing to do. Drain it after every input.
    pub(super) fn poll(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            if let Some(batch) = self.outbox.take() {
                return Some(Effect::Commit(batch));
            }
            let free = self.outbox.free();
            if free.is_empty() {
                return None;
            }
            self.follow(free);
        }
    }

    /// Whether an ear or a mouth may still send news; the call waits for the last of it.
    pub(super) const fn set_ears_open(&mut self, open: bool) {
        self.ears_open = open;
    }

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.expired(now.mono) {
            match timer {
                Timer::Stream => self.stream_overdue(now),
                Timer::LengthWarning => self.effects.push_back(Effect::LengthWarning),
                Timer::Length => {
                    self.facts.length_limit = true;
                    self.hang_up(now, None);
                }
                Timer::Retry => self.effects.extend(self.outbox.again().map(Effect::Commit)),
                Timer::Linger => {
                    self.lingered = true;
                    self.settle_rest(now);
                    self.settle_answers(now);
                }
            }
        }
    }
}

/// Tries of a failed commit: storage that is away for long is asked every five seconds.
const fn retry_schedule() -> Backoff {
    Backoff::new(
        Duration::from_millis(100),
        Duration::from_secs(5),
        Duration::from_secs(60),
    )
}
