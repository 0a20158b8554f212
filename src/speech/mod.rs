//! The ears and mouths of calls: speech recognition and synthesis behind one seam, on threads of their own.
//!
//! An ear owns the reading end of a leg's uplink ring for the leg's life, a mouth the writing end of its downlink ring;
//! drivers come and go behind them. They live on a lane, one I/O thread per media shard, which can stall or lose a task without a frame being late.
//! What they learn travels up as [`SpeechEvent`]s.

pub mod double;
pub mod duplex;
pub mod link;
pub mod stt;
pub mod tts;

mod config;
#[cfg(test)]
mod contract;
mod ear;
mod echo;
mod lane;
mod mouth;
mod outbox;
mod outlet;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use ear::Hearing;

use crate::{
    audio::ring::{DownlinkTx, UplinkRx},
    base::{
        doorbell::Doorbell,
        format::AudioFormat,
        ids::{TenantId, UtteranceId},
        keyring::Keyring,
    },
    metrics,
};
use bytes::Bytes;
use duplex::{DuplexHandle, DuplexSpec};
use lane::{Command, Lane};
use mouth::Raw;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Words recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// The words.
    pub text: String,
    /// Whether they will not change.
    pub is_final: bool,
    /// 0..1, where the engine's number means something.
    pub confidence: Option<f32>,
    /// BCP 47 language, where the engine says it.
    pub language: Option<String>,
    /// Where the speech began, in ms of audio heard by this ear.
    pub from_ms: u64,
    /// Where it ended.
    pub to_ms: u64,
}

/// News from an ear or a mouth.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeechEvent {
    /// Speech began (the driver's own detector, not the leg's onset).
    Started,
    /// Words were recognised.
    Transcript(Transcript),
    /// A chunk of synthesized speech, MULAW 8 kHz, for frontends.
    Audio {
        /// Which utterance.
        utterance: UtteranceId,
        /// Chunk number from 0.
        seq: u32,
        /// The audio; may be empty when `last`.
        audio: Bytes,
        /// Whether the utterance is complete.
        last: bool,
    },
    /// Recognition is out of order: said once an outage. The call goes on.
    SttFailed {
        /// What a person can act on.
        message: String,
    },
    /// Recognition works again.
    SttRecovered,
    /// A backend was heard from for the first time: a session of an ear works, or a mouth has audio.
    Connected {
        /// What it does: `stt`, `tts`, or `realtime`.
        kind: &'static str,
        /// Its name.
        backend: &'static str,
    },
    /// News of a conversation with a service that hears and speaks.
    Duplex(duplex::News),
    /// An utterance could not be spoken, or not to its end.
    TtsFailed {
        /// Which.
        utterance: UtteranceId,
        /// What a person can act on.
        message: String,
    },
}

/// What an ear listens with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EarSpec {
    /// Whose call it is: where ears share an engine, tenants take turns.
    pub tenant: TenantId,
    /// Backend's name (`pocketsphinx`, `fake`, …).
    pub backend: String,
    /// The backend that takes over where that one fails; empty is none.
    pub fallback: String,
    /// BCP 47 language, or `auto`.
    pub language: String,
    /// Phrases that are expected: a grammar for engines that take one.
    pub phrases: Vec<String>,
    /// Whether speech outside the phrases should be transcribed by the engine's general model, if it has one.
    pub free_speech: bool,
    /// Keys that go before the operator's.
    pub keys: Keyring,
}

/// What a mouth speaks with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MouthSpec {
    /// Backend's name (`espeak`, `fake`, …).
    pub backend: String,
    /// The backend that speaks where that one fails, with the voice of its language; empty is none.
    pub fallback: String,
    /// Voice as the backend names it; empty chooses by language.
    pub voice: String,
    /// BCP 47 language, or `auto`.
    pub language: String,
    /// Keys that go before the operator's.
    pub keys: Keyring,
}

/// The speech side of the daemon: one lane per media shard, and the configured backends. Cheap to clone; the lanes end with the last clone.
#[derive(Clone, Debug)]
pub struct Speech {
    lanes: Arc<[Lane]>,
    config: Config,
}

impl Speech {
    /// Starts `lanes` lanes, at least one.
    ///
    /// # Panics
    /// When the system has no threads to give.
    pub fn new(config: &Config, lanes: usize) -> Self {
        Self {
            lanes: (0..lanes.max(1)).map(|i| Lane::start(i, config.clone())).collect(),
            config: config.clone(),
        }
    }

    fn lane(&self, shard: usize) -> &Lane {
        &self.lanes[shard % self.lanes.len()]
    }

    /// Queues a command; a lane that takes none is counted.
    fn command(&self, shard: usize, command: Command) -> bool {
        let lane = self.lane(shard);
        let taken = lane.commands.as_ref().is_some_and(|c| c.try_send(command).is_ok());
        if !taken {
            metrics::dropped("speech_command", "lane_full", 1);
        }
        taken
    }

    /// The bell of a shard's lane, for that shard's uplink rings.
    pub fn bell(&self, shard: usize) -> Arc<Doorbell> {
        Arc::clone(&self.lane(shard).bell)
    }

    /// Opens an ear on the lane of `shard`. Events go to `events`; the ear closes when the ring's writer is gone, after the last
    /// final, whether or not its handle is kept.
    pub fn open_ear(
        &self,
        shard: usize,
        spec: EarSpec,
        audio: UplinkRx,
        events: mpsc::Sender<SpeechEvent>,
    ) -> EarHandle {
        let failed = events.clone();
        let (handle, language) = watch::channel(String::new());
        let ear = Command::Ear {
            spec,
            audio,
            events,
            language,
        };
        if !self.command(shard, ear) {
            let message = "the speech thread takes no more ears: it is overloaded".to_owned();
            let _ = failed.try_send(SpeechEvent::SttFailed { message });
        }
        EarHandle(handle)
    }

    /// Opens a mouth on the lane of `shard`, which speaks in packets of Opus where the ring takes packets. It closes when its handle is dropped or the ring's reader is gone.
    pub fn open_mouth(
        &self,
        shard: usize,
        spec: MouthSpec,
        audio: DownlinkTx,
        events: mpsc::Sender<SpeechEvent>,
    ) -> Mouth {
        let (sender, orders) = mpsc::unbounded_channel();
        let mouth = Mouth {
            shared: Arc::default(),
            orders: sender,
        };
        let shared = Arc::clone(&mouth.shared);
        self.command(
            shard,
            Command::Mouth {
                spec,
                audio,
                events,
                orders,
                shared,
            },
        );
        mouth
    }

    /// Holds a conversation on the lane of `shard` with a service that hears `audio` and speaks through `mouth`. News goes to `events`:
    /// the caller's words and outages as of an ear, the rest as [`SpeechEvent::Duplex`]. It ends when the ring's writer is gone.
    pub fn open_duplex(
        &self,
        shard: usize,
        spec: DuplexSpec,
        audio: UplinkRx,
        mouth: Mouth,
        events: mpsc::Sender<SpeechEvent>,
    ) -> (DuplexHandle, EarHandle) {
        let failed = events.clone();
        let (sender, orders) = mpsc::unbounded_channel();
        let (ear, language) = watch::channel(String::new());
        let open = Command::Duplex {
            spec: Box::new(spec),
            audio,
            mouth,
            events,
            orders,
            language,
        };
        if !self.command(shard, open) {
            let message = "the speech thread takes no more conversations: it is overloaded".to_owned();
            let _ = failed.try_send(SpeechEvent::SttFailed { message });
        }
        (DuplexHandle(sender), EarHandle(ear))
    }

    /// Gives back what comes by `from` on `to`, on the lane of `shard`, until the leg is gone: the echo of a leg that is spoken to
    /// in packets, which are encoded there. Both rings have one rate.
    pub fn open_echo(&self, shard: usize, from: UplinkRx, to: DownlinkTx) {
        self.command(shard, Command::Echo { from, to });
    }

    /// Gets engines ready for these specs (processes spawned, grammar loaded, services dialled), as when a webhook announces a
    /// call. `ear` comes with the format in which the caller is expected.
    pub fn warm(&self, shard: usize, ear: Option<(EarSpec, AudioFormat)>, mouth: Option<MouthSpec>) {
        self.command(shard, Command::Warm { ear, mouth });
    }

    /// Gets a service ready for a conversation, as when a webhook announces a call.
    pub fn warm_duplex(&self, shard: usize, spec: DuplexSpec) {
        self.command(shard, Command::WarmDuplex(Box::new(spec)));
    }

    /// The names of configured services that hear and speak.
    pub fn duplexes(&self) -> Vec<&'static str> {
        self.config.duplex.iter().map(|(name, _)| *name).collect()
    }

    /// The names of configured recognisers and synthesizers.
    pub fn backends(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        (
            self.config.stt.iter().map(|(name, _)| *name).collect(),
            self.config.tts.iter().map(|(name, _)| *name).collect(),
        )
    }
}

/// The handle of an ear.
#[derive(Clone, Debug)]
pub struct EarHandle(watch::Sender<String>);

impl EarHandle {
    /// Listens in another language (BCP 47) from now on. A recogniser that cannot says so by [`SpeechEvent::SttFailed`] and goes
    /// on in the language it has.
    pub fn listen_in(&self, language: &str) {
        self.0.send_if_modified(|now| {
            let changed = now != language;
            if changed {
                language.clone_into(now);
            }
            changed
        });
    }
}

/// The handle of a mouth. Utterances are spoken in the order given.
#[derive(Clone, Debug)]
pub struct Mouth {
    shared: Arc<mouth::Shared>,
    orders: mpsc::UnboundedSender<mouth::Order>,
}

impl Mouth {
    /// Queues words. `language` overrides the mouth's own (`auto` does not). `false` when the queue is full or the mouth closed.
    pub fn say(&self, utterance: UtteranceId, text: String, language: Option<String>) -> bool {
        let order = mouth::Order::Say {
            utterance,
            text,
            language,
        };
        self.shared.admit_words() && self.orders.send(order).is_ok()
    }

    /// Queues audio as it is, at any rate of `AudioFormat::RATES` (a person's microphone, tones). `last` ends the utterance.
    /// `false` when a minute of it waits already, or the mouth is closed.
    pub fn play(&self, utterance: UtteranceId, samples: Vec<i16>, rate: u32, last: bool) -> bool {
        self.play_raw(utterance, Raw::Samples(samples, rate), last, false)
    }

    /// Queues speech that a service made by itself. `false` when three minutes of it wait already, or the mouth is closed.
    fn speak(&self, utterance: UtteranceId, raw: Raw, last: bool) -> bool {
        self.play_raw(utterance, raw, last, true)
    }

    fn play_raw(&self, utterance: UtteranceId, raw: Raw, last: bool, speech: bool) -> bool {
        let most = if speech { mouth::SPEECH_MS } else { mouth::SOUND_MS };
        if !self.shared.admit_sound(&raw, most) {
            return false;
        }
        let order = mouth::Order::Play {
            utterance,
            raw,
            last,
            speech,
        };
        self.orders.send(order).is_ok()
    }

    /// Drops everything below `floor` and kills a synthesis in progress there.
    pub fn cut(&self, floor: UtteranceId) {
        self.shared.cut(floor);
    }
}
