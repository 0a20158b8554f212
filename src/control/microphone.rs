//! A frontend's microphone on a call: recognised by an ear of its own, or played to the caller as it is.
//!
//! A microphone speaks in real time: what is to be recognised and comes faster is dropped, since recognition is everybody's.

use super::{
    Microphone,
    call::{Call, Now},
};
use crate::{
    agent::Profile,
    audio::ring::{self, UplinkTx},
    base::{
        format::AudioFormat,
        ids::{TenantId, UtteranceId},
        time::Mono,
    },
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
/// How far audio to be recognised may run ahead of the clock.
const AHEAD: Duration = Duration::from_secs(2);
/// Each change of rate and each new beginning takes a new ear, and gives one back so often.
const EAR_EVERY: Duration = Duration::from_secs(2);
/// How many of them there may be at once.
const EARS: u32 = 4;
/// News that may wait for the call's task.
const NEWS: usize = 64;

/// How much of something there may be in a time.
#[derive(Debug)]
struct Pace {
    /// How far it may run ahead of the clock.
    ahead: Duration,
    /// Until when it is taken already.
    until: Mono,
}

impl Pace {
    const fn new(ahead: Duration) -> Self {
        Self {
            ahead,
            until: Mono::ZERO,
        }
    }

    /// What there is room for.
    fn room(&self, now: Mono) -> Duration {
        (now + self.ahead).since(self.until.max(now))
    }

    /// Takes so much, which there is room for.
    fn take(&mut self, now: Mono, much: Duration) {
        self.until = self.until.max(now) + much;
    }
}

/// The microphone of one call's frontends.
#[derive(Debug)]
pub(super) struct Desk {
    /// Whose call it is.
    tenant: TenantId,
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
    /// Of the audio to be recognised.
    pace: Pace,
    /// Of the ears that are opened for it.
    ears: Pace,
    /// The frontends know that audio was too fast.
    told: bool,
    closed: bool,
}

impl Desk {
    /// A microphone that is off.
    pub(super) const fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            ear: None,
            language: None,
            handle: None,
            news_tx: None,
            news: None,
            sender: Sender::Agent,
            aloud: None,
            used: Mono::ZERO,
            pace: Pace::new(AHEAD),
            ears: Pace::new(EAR_EVERY.saturating_mul(EARS)),
            told: false,
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

    /// A piece of audio to be recognised, on the lane of `shard`. What it errs with is for the frontends to know, once a call.
    pub(super) fn hear(
        &mut self,
        now: Now,
        speech: &Speech,
        shard: usize,
        profile: &Profile,
        has_leg: bool,
        audio: &Microphone,
    ) -> Result<(), &'static str> {
        if self.closed {
            metrics::dropped("frontend_audio", "call_ended", 1);
            return Ok(());
        }
        self.used = now.mono;
        let heard = self.take(now.mono, speech, shard, profile, has_leg, audio);
        if audio.last {
            self.ear = None;
        }
        match heard {
            Err(message) if !std::mem::replace(&mut self.told, true) => Err(message),
            _ => Ok(()),
        }
    }

    fn take(
        &mut self,
        now: Mono,
        speech: &Speech,
        shard: usize,
        profile: &Profile,
        has_leg: bool,
        audio: &Microphone,
    ) -> Result<(), &'static str> {
        if self.ear.as_ref().is_none_or(|ear| ear.rate() != audio.rate) {
            if self.ears.room(now) < EAR_EVERY {
                metrics::dropped("frontend_audio", "new_ears", 1);
                return Err("the microphone begins anew or changes its rate too often: some of its audio is not heard");
            }
            self.ears.take(now, EAR_EVERY);
            self.open(speech, shard, profile, has_leg, audio.rate);
        }
        let Some(ear) = &mut self.ear else { return Ok(()) };
        let rate = ear.rate();
        let room = (self.pace.room(now).as_secs_f64() * f64::from(rate)) as usize;
        let samples = &audio.samples[..audio.samples.len().min(room)];
        self.pace
            .take(now, Duration::from_secs_f64(samples.len() as f64 / f64::from(rate)));
        let lost = samples
            .chunks((rate / 50) as usize)
            .filter(|piece| !ear.push(piece))
            .count();
        if lost > 0 {
            metrics::dropped("frontend_audio", "ear_full", lost as u64);
        }
        if let Some(bell) = ear.bell() {
            bell.ring();
        }
        if samples.len() < audio.samples.len() {
            metrics::dropped("frontend_audio", "too_fast", 1);
            return Err("the microphone's audio comes faster than real time: some of it is not heard");
        }
        Ok(())
    }

    fn open(&mut self, speech: &Speech, shard: usize, profile: &Profile, has_leg: bool, rate: u32) {
        let anything = || EarSpec {
            tenant: self.tenant,
            backend: profile.stt.clone(),
            fallback: profile.stt_fallback.clone(),
            language: profile.language.clone(),
            phrases: Vec::new(),
            free_speech: true,
            keys: profile.keys.clone(),
        };
        self.sender = if has_leg { Sender::Agent } else { Sender::Customer };
        let spec = if has_leg {
            anything()
        } else {
            let tenant = self.tenant;
            profile.ear().map_or_else(anything, |spec| EarSpec { tenant, ..spec })
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
        let mut desk = Desk::new(TenantId(1));
        assert_eq!(desk.next_timeout(), None);
        // A tone that has not ended when the microphone falls silent.
        let samples = phrase(0, 100, 8000)[..800].to_vec();
        let audio = Microphone {
            samples,
            rate: 8000,
            to_caller: false,
            last: false,
        };
        desk.hear(at(1), &speech, 0, &profile, false, &audio).unwrap();
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
        desk.hear(at(12), &speech, 0, &profile, false, &audio).unwrap();
        assert_eq!(desk.next_timeout(), None, "an ended call hears nothing");
    }

    /// Hears pieces of 700 ms, 45 a second, for ten seconds; how many seconds were taken, ears opened, and messages told.
    fn flood(rates: &[u32], last: bool) -> (u64, usize, usize) {
        let speech = Speech::new(&Config::read(&Section::empty(&Faults::default())), 1);
        let profile = Profile {
            stt: "fake".into(),
            ..Profile::new("human", Kind::Human)
        };
        let mut desk = Desk::new(TenantId(1));
        let (mut opened, mut told, mut before) = (0, 0, Mono::ZERO);
        for n in 0..450u64 {
            let rate = rates[n as usize % rates.len()];
            let audio = Microphone {
                samples: vec![0; rate as usize * 7 / 10],
                rate,
                to_caller: false,
                last,
            };
            let now = Now {
                mono: at(1).mono + Duration::from_millis(n * 1000 / 45),
                wall: Wall::default(),
            };
            told += usize::from(desk.hear(now, &speech, 0, &profile, false, &audio).is_err());
            opened += usize::from(desk.ears.until != before);
            before = desk.ears.until;
        }
        (desk.pace.until.since(at(1).mono).as_secs(), opened, told)
    }

    #[tokio::test]
    async fn a_microphone_is_heard_in_real_time_however_fast_it_speaks_and_however_often_it_begins_anew() {
        for (rates, last, most) in [(&[8000][..], false, 1), (&[8000, 16_000], false, 9), (&[8000], true, 9)] {
            let (seconds, opened, told) = flood(rates, last);
            assert!(seconds <= 12, "{rates:?}: {seconds} s were taken in 10 s");
            assert!((1..=most).contains(&opened), "{rates:?}: {opened} ears");
            assert_eq!(told, 1, "{rates:?}");
        }
    }
}
