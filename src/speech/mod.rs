//! The ears and mouths of calls: speech recognition and synthesis behind one seam, on threads of their own.
//!
//! An ear owns the reading end of a leg's uplink ring for the leg's life, a mouth the writing end of its downlink ring;
//! drivers come and go behind them. They live on a lane, one I/O thread per media shard, which can stall or lose a task without a frame being late.
//! What they learn travels up as [`SpeechEvent`]s.

use crate::{
    audio::ring::{DownlinkTx, UplinkRx},
    base::{doorbell::Doorbell, ids::UtteranceId},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

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
    /// Backend's name (`pocketsphinx`, `fake`, …).
    pub backend: String,
    /// BCP 47 language, or `auto`.
    pub language: String,
    /// Phrases that are expected: a grammar for engines that take one.
    pub phrases: Vec<String>,
    /// Whether speech outside the phrases should be transcribed by the engine's general model, if it has one.
    pub free_speech: bool,
}

/// What a mouth speaks with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MouthSpec {
    /// Backend's name (`espeak`, `fake`, …).
    pub backend: String,
    /// Voice as the backend names it; empty chooses by language.
    pub voice: String,
    /// BCP 47 language, or `auto`.
    pub language: String,
}

/// The speech side of the daemon: one lane per media shard, and the configured backends. Cheap to clone.
#[derive(Clone)]
pub struct Speech {}

impl Speech {
    /// The bell of a shard's lane, for that shard's uplink rings.
    pub fn bell(&self, _shard: usize) -> Arc<Doorbell> {
        todo!()
    }

    /// Opens an ear on the lane of `shard`. Events go to `events`; the ear closes when the ring's writer is gone, after the last final.
    pub fn open_ear(&self, _shard: usize, _spec: EarSpec, _audio: UplinkRx, _events: mpsc::Sender<SpeechEvent>) {
        todo!()
    }

    /// Opens a mouth on the lane of `shard`. It closes when its handle is dropped or the ring's reader is gone.
    pub fn open_mouth(
        &self,
        _shard: usize,
        _spec: MouthSpec,
        _audio: DownlinkTx,
        _events: mpsc::Sender<SpeechEvent>,
    ) -> Mouth {
        todo!()
    }

    /// Gets engines ready for these specs (processes spawned, grammar loaded), as when a webhook announces a call.
    pub fn warm(&self, _shard: usize, _ear: Option<&EarSpec>, _mouth: Option<&MouthSpec>) {
        todo!()
    }

    /// The names of configured recognisers and synthesizers.
    pub fn backends(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        todo!()
    }
}

/// The handle of a mouth. Utterances are spoken in the order given.
#[derive(Clone, Debug)]
pub struct Mouth {}

impl Mouth {
    /// Queues words. `language` overrides the mouth's own (`auto` does not). `false` when the queue is full or the mouth closed.
    pub fn say(&self, _utterance: UtteranceId, _text: String, _language: Option<String>) -> bool {
        todo!()
    }

    /// Queues audio as it is, at any rate of `AudioFormat::RATES` (a person's microphone, tones). `last` ends the utterance.
    pub fn play(&self, _utterance: UtteranceId, _samples: Vec<i16>, _rate: u32, _last: bool) -> bool {
        todo!()
    }

    /// Drops everything below `floor` and kills a synthesis in progress there.
    pub fn cut(&self, _floor: UtteranceId) {
        todo!()
    }
}
