//! Where the time of a turn goes: from the end of the caller's speech until the agent's first sound leaves for them.
//!
//! The segments of a turn sum to the whole. Its beginning is what the recogniser says of when the speech ended, on the clock of
//! the audio; its end is the first frame given to the vendor, whose own way to the caller nobody here can see.

use crate::{
    base::{ids::UtteranceId, time::Mono},
    metrics,
};
use serde::Serialize;
use std::time::Duration;

/// Turns of one call that are kept.
const MAX_TURNS: usize = 200;

/// One turn, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TurnTimes {
    /// From the end of the speech to the final transcript: endpointing and recognition.
    pub(super) stt_ms: u32,
    /// From there until the model was asked: what the agent waited for more words, and asked others before.
    pub(super) wait_ms: u32,
    /// Until the model's first word.
    pub(super) llm_ms: u32,
    /// Until the first sentence was whole.
    pub(super) sentence_ms: u32,
    /// Until its first audio.
    pub(super) tts_ms: u32,
    /// Until the first frame of it was given to the vendor: encoding, and what was queued before.
    pub(super) playout_ms: u32,
    /// All of it.
    pub(super) total_ms: u32,
}

/// A turn on its way.
#[derive(Clone, Copy, Debug)]
struct Open {
    spoke: Mono,
    last: Mono,
    stt: Duration,
    wait: Duration,
    llm: Option<Duration>,
    sentence: Duration,
    tts: Option<Duration>,
    utterance: Option<UtteranceId>,
    asked: bool,
}

/// Takes the times of a call's turns.
#[derive(Debug, Default)]
pub(super) struct Waterfall {
    began: Option<Mono>,
    open: Option<Open>,
}

impl Waterfall {
    /// The ear's audio begins.
    pub(super) const fn hears(&mut self, now: Mono) {
        self.began = Some(now);
    }

    /// A final transcript of the caller's speech that ended `to_ms` into their audio.
    pub(super) fn heard(&mut self, now: Mono, to_ms: u64) {
        let ended = self.began.map_or(now, |began| began + Duration::from_millis(to_ms));
        // The clocks of audio and wall may part; a turn is not made longer than what can be believed.
        let spoke = ended.max(now - Duration::from_secs(10)).min(now);
        self.open = Some(Open {
            spoke,
            last: now,
            stt: now.since(spoke),
            wait: Duration::ZERO,
            llm: None,
            sentence: Duration::ZERO,
            tts: None,
            utterance: None,
            asked: false,
        });
    }

    /// The model is asked.
    pub(super) fn asked(&mut self, now: Mono) {
        if let Some(open) = self.open.as_mut().filter(|o| o.llm.is_none() && o.utterance.is_none()) {
            open.wait = now.since(open.spoke + open.stt);
            open.last = now;
            open.asked = true;
        }
    }

    /// It says a word.
    pub(super) fn worded(&mut self, now: Mono) {
        if let Some(open) = self
            .open
            .as_mut()
            .filter(|o| o.asked && o.llm.is_none() && o.utterance.is_none())
        {
            open.llm = Some(now.since(open.last));
            open.last = now;
        }
    }

    /// The first sentence goes to the synthesizer as this utterance.
    pub(super) fn said(&mut self, now: Mono, utterance: UtteranceId) {
        if let Some(open) = self.open.as_mut().filter(|o| o.utterance.is_none()) {
            open.sentence = now.since(open.last);
            open.last = now;
            open.utterance = Some(utterance);
        }
    }

    /// Audio of an utterance was synthesized.
    pub(super) fn audio(&mut self, now: Mono, utterance: UtteranceId) {
        if let Some(open) = self
            .open
            .as_mut()
            .filter(|o| o.utterance == Some(utterance) && o.tts.is_none())
        {
            open.tts = Some(now.since(open.last));
            open.last = now;
        }
    }

    /// The first frame of an utterance went out: the turn's times, if it is the one.
    pub(super) fn playing(&mut self, now: Mono, utterance: UtteranceId) -> Option<TurnTimes> {
        let open = self.open.take_if(|o| o.utterance == Some(utterance))?;
        let times = [
            open.stt,
            open.wait,
            open.llm.unwrap_or_default(),
            open.sentence,
            open.tts.unwrap_or_default(),
            now.since(open.last),
        ];
        for (histogram, time) in metrics::TURN_SEGMENTS.iter().zip(times) {
            histogram.record(time);
        }
        metrics::ANSWER_TIME.record(times.iter().sum());
        // Rounded by their ends, so that the segments sum to the whole in milliseconds too.
        let mut end = Duration::ZERO;
        let [stt_ms, wait_ms, llm_ms, sentence_ms, tts_ms, playout_ms] = times.map(|time| {
            let before = end.as_millis();
            end += time;
            (end.as_millis() - before) as u32
        });
        Some(TurnTimes {
            stt_ms,
            wait_ms,
            llm_ms,
            sentence_ms,
            tts_ms,
            playout_ms,
            total_ms: end.as_millis() as u32,
        })
    }
}

/// The turns of a call.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Turns(Vec<TurnTimes>);

impl Turns {
    /// Keeps one, unless there are many.
    pub(super) fn push(&mut self, times: TurnTimes) {
        if self.0.len() < MAX_TURNS {
            self.0.push(times);
        }
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const U: UtteranceId = UtteranceId(3);

    #[test]
    fn each_segment_ends_where_the_next_begins() {
        let at = Mono::from_millis;
        let mut w = Waterfall::default();
        w.hears(at(1000));
        w.heard(at(3400), 2000);
        w.asked(at(3500));
        w.worded(at(3900));
        w.worded(at(3950));
        w.said(at(4000), U);
        w.said(at(4050), UtteranceId(4));
        w.audio(at(4100), U);
        assert_eq!(w.playing(at(4110), UtteranceId(2)), None);
        let times = w.playing(at(4120), U).unwrap();
        let expected = TurnTimes {
            stt_ms: 400,
            wait_ms: 100,
            llm_ms: 400,
            sentence_ms: 100,
            tts_ms: 100,
            playout_ms: 20,
            total_ms: 1120,
        };
        assert_eq!(times, expected);
        assert_eq!(w.playing(at(4130), U), None);
    }

    proptest! {
        #[test]
        fn the_segments_sum_to_the_whole(steps in prop::collection::vec((0u8..5, 0u64..3_000_000_000), 1..20)) {
            let (mut w, mut now) = (Waterfall::default(), Mono::from_millis(60_000));
            w.hears(now - Duration::from_secs(20));
            w.heard(now, 19_700);
            for (step, ns) in steps {
                now = now + Duration::from_nanos(ns);
                match step {
                    0 => w.asked(now),
                    1 => w.worded(now),
                    2 => w.said(now, U),
                    _ => w.audio(now, U),
                }
            }
            w.said(now, U);
            let t = w.playing(now, U).unwrap();
            let sum = t.stt_ms + t.wait_ms + t.llm_ms + t.sentence_ms + t.tts_ms + t.playout_ms;
            prop_assert_eq!(sum, t.total_ms);
            let whole = now.since(Mono::from_millis(59_700)).as_millis() as i64;
            prop_assert!((i64::from(t.total_ms) - whole).abs() <= 1, "{} {}", t.total_ms, whole);
        }
    }
}
