//! A frontend's microphone on a call: recognised by an ear of its own, or played to the caller as it is.

use super::{
    Microphone,
    call::{Call, Now},
};
use crate::{
    agent::Profile,
    audio::ring::{self, UplinkTx},
    base::{format::AudioFormat, ids::UtteranceId, time::Mono},
    metrics,
    speech::{EarHandle, EarSpec, Mouth, Speech, SpeechEvent},
    store::Sender,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// A microphone that says nothing for so long is off.
const IDLE: Duration = Duration::from_secs(10);
/// Seconds of audio kept for an ear that does not keep up.
const RING_SECONDS: usize = 5;
/// News that may wait for the call's task.
const NEWS: usize = 64;

/// The microphone of one call's frontends.
#[derive(Debug)]
pub(super) struct Desk {
    ear: Option<UplinkTx>,
    /// The language that frontends asked for, and the ear that is to know of it.
    language: Option<String>,
    handle: Option<EarHandle>,
    news_tx: Option<mpsc::Sender<SpeechEvent>>,
    /// What the ear hears; ends after [`Desk::close`], with the ear.
    pub(super) news: Option<mpsc::Receiver<SpeechEvent>>,
    /// Whose words the ear hears: the customer's where no vendor carries the call.
    pub(super) sender: Sender,
    aloud: Option<UtteranceId>,
    used: Mono,
    closed: bool,
}

impl Desk {
    /// A microphone that is off.
    pub(super) const fn new() -> Self {
        Self {
            ear: None,
            language: None,
            handle: None,
            news_tx: None,
            news: None,
            sender: Sender::Agent,
            aloud: None,
            used: Mono::ZERO,
            closed: false,
        }
    }

    /// A piece of audio for the caller.
    pub(super) fn play(&mut self, now: Now, call: &mut Call, mouth: Option<&Mouth>, audio: Microphone) {
        self.used = now.mono;
        let Some((mouth, utterance)) = mouth.zip(self.aloud.or_else(|| call.sound())) else {
            return metrics::dropped("frontend_audio", "no_caller", 1);
        };
        self.aloud = (!audio.last).then_some(utterance);
        if !mouth.play(utterance, audio.samples, audio.rate, audio.last) {
            metrics::dropped("frontend_audio", "mouth_full", 1);
        }
    }

    /// A piece of audio to be recognised, on the lane of `shard`.
    pub(super) fn hear(
        &mut self,
        now: Now,
        speech: &Speech,
        shard: usize,
        profile: &Profile,
        has_leg: bool,
        audio: &Microphone,
    ) {
        if self.closed {
            return metrics::dropped("frontend_audio", "call_ended", 1);
        }
        self.used = now.mono;
        if self.ear.as_ref().is_none_or(|ear| ear.rate() != audio.rate) {
            self.open(speech, shard, profile, has_leg, audio.rate);
        }
        if let Some(ear) = &mut self.ear {
            let piece = (ear.rate() / 50) as usize;
            let lost = audio.samples.chunks(piece).filter(|piece| !ear.push(piece)).count();
            if lost > 0 {
                metrics::dropped("frontend_audio", "ear_full", lost as u64);
            }
            if let Some(bell) = ear.bell() {
                bell.ring();
            }
        }
        if audio.last {
            self.ear = None;
        }
    }

    fn open(&mut self, speech: &Speech, shard: usize, profile: &Profile, has_leg: bool, rate: u32) {
        let anything = || EarSpec {
            backend: profile.stt.clone(),
            fallback: profile.stt_fallback.clone(),
            language: profile.language.clone(),
            phrases: Vec::new(),
            free_speech: true,
        };
        self.sender = if has_leg { Sender::Agent } else { Sender::Customer };
        let spec = if has_leg {
            anything()
        } else {
            profile.ear().unwrap_or_else(anything)
        };
        let news = self.news_tx.get_or_insert_with(|| {
            let (tx, rx) = mpsc::channel(NEWS);
            self.news = Some(rx);
            tx
        });
        let (tx, rx) = ring::uplink(rate, rate as usize * RING_SECONDS, Some(speech.bell(shard)));
        let handle = speech.open_ear(shard, spec, rx, news.clone());
        if let Some(language) = &self.language {
            handle.listen_in(language);
        }
        self.handle = Some(handle);
        self.ear = Some(tx);
    }

    /// Recognises another language from now on, where the recogniser can.
    pub(super) fn listen_in(&mut self, language: &str) {
        self.language = Some(language.to_owned());
        if let Some(handle) = &self.handle {
            handle.listen_in(language);
        }
    }

    /// When [`Desk::timeout`] is due.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        (self.ear.is_some() || self.aloud.is_some()).then(|| self.used + IDLE)
    }

    /// Time has passed: turns an idle microphone off.
    pub(super) fn timeout(&mut self, now: Now, mouth: Option<&Mouth>) {
        if self.next_timeout().is_some_and(|at| at <= now.mono) {
            self.ear = None;
            if let Some((utterance, mouth)) = self.aloud.take().zip(mouth) {
                mouth.play(utterance, Vec::new(), AudioFormat::RATES[0], true);
            }
        }
    }

    /// The call has ended: nothing is heard any more; what was heard is still told.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.ear = None;
        self.news_tx = None;
        self.aloud = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::Kind,
        base::{
            settings::{Faults, Section},
            time::Wall,
        },
        speech::{Config, stt::fake::phrase},
    };

    fn at(seconds: u64) -> Now {
        Now {
            mono: Mono::ZERO + Duration::from_secs(seconds),
            wall: Wall::default(),
        }
    }

    #[tokio::test]
    async fn an_idle_microphone_is_off_and_what_it_heard_is_still_told() {
        let speech = Speech::new(&Config::read(&Section::empty(&Faults::default())), 1);
        let profile = Profile {
            stt: "fake".into(),
            ..Profile::new("human", Kind::Human)
        };
        let mut desk = Desk::new();
        assert_eq!(desk.next_timeout(), None);
        // A tone that has not ended when the microphone falls silent.
        let samples = phrase(0, 100, 8000)[..800].to_vec();
        let audio = Microphone {
            samples,
            rate: 8000,
            to_caller: false,
            last: false,
        };
        desk.hear(at(1), &speech, 0, &profile, false, &audio);
        assert_eq!(desk.next_timeout(), Some(at(1).mono + IDLE));
        desk.timeout(at(5), None);
        assert!(desk.next_timeout().is_some());
        desk.timeout(at(11), None);
        assert_eq!((desk.next_timeout(), desk.sender), (None, Sender::Customer));
        desk.close();
        let mut finals = Vec::new();
        while let Some(event) = desk.news.as_mut().unwrap().recv().await {
            if let SpeechEvent::Transcript(words) = event {
                finals.push((words.text, words.is_final));
            }
        }
        assert_eq!(finals, [("tone of 400 Hz".to_owned(), true)]);
        desk.hear(at(12), &speech, 0, &profile, false, &audio);
        assert_eq!(desk.next_timeout(), None, "an ended call hears nothing");
    }
}
