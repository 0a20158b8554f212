//! A synthesizer of one mouth with another behind it, which speaks what the first one cannot.
//!
//! An utterance is spoken by one of them alone: the second takes over before the first sample, and stays to the utterance's end.

use super::{Pcm, Tts, TtsError};
use crate::metrics;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};
use tokio::sync::mpsc;

/// Two synthesizers as one. [`Tts::voice`] begins an utterance, as a mouth calls it.
pub(crate) struct Fallback {
    first: (&'static str, Rc<dyn Tts>),
    second: (&'static str, Rc<dyn Tts>),
    /// Who speaks the present utterance.
    speaker: Cell<Speaker>,
    /// The second's voice for it.
    voice: RefCell<Result<String, TtsError>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    /// The first, which has given no sample yet.
    First,
    /// The first, which has.
    FirstBegun,
    Second,
}

impl Fallback {
    /// Two named synthesizers.
    pub(crate) fn new(first: (&'static str, Rc<dyn Tts>), second: (&'static str, Rc<dyn Tts>)) -> Self {
        Self {
            first,
            second,
            speaker: Cell::new(Speaker::First),
            voice: RefCell::new(Ok(String::new())),
        }
    }

    fn hand_over(&self, error: &TtsError) {
        self.speaker.set(Speaker::Second);
        let labels = [("backend", self.first.0), ("kind", error.kind())];
        metrics::counter(metrics::speech_faults_total, &labels).increment(1);
        metrics::counter(metrics::speech_failovers_total, &[("backend", self.second.0)]).increment(1);
        let (backend, instead) = (self.first.0, self.second.0);
        tracing::warn!(backend, instead, reason = error.message(), "another synthesizer speaks");
    }
}

impl Tts for Fallback {
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
        self.speaker.set(Speaker::First);
        *self.voice.borrow_mut() = self.second.1.voice("", language);
        self.first.1.voice(voice, language).or_else(|error| {
            self.hand_over(&error);
            Ok(String::new())
        })
    }

    fn speak(
        self: Rc<Self>,
        text: String,
        voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
        async move {
            if self.speaker.get() != Speaker::Second {
                let (heard, mut audio) = mpsc::channel(1);
                let mut run = Rc::clone(&self.first.1).speak(text.clone(), voice, heard);
                let mut ended = None;
                let outcome = loop {
                    tokio::select! {
                        biased;
                        pcm = audio.recv() => match (pcm, ended.take()) {
                            (Some(pcm), waits) => {
                                ended = waits;
                                self.speaker.set(Speaker::FirstBegun);
                                if out.send(pcm).await.is_err() {
                                    return Ok(());
                                }
                            }
                            (None, Some(outcome)) => break outcome,
                            (None, None) => break run.await,
                        },
                        outcome = &mut run, if ended.is_none() => ended = Some(outcome),
                    }
                };
                match outcome {
                    Err(error) if self.speaker.get() == Speaker::First => self.hand_over(&error),
                    outcome => return outcome,
                }
            }
            let voice = self.voice.borrow().clone()?;
            Rc::clone(&self.second.1).speak(text, voice, out).await
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says one sample of its number, unless the text holds a word that it fails at.
    struct One(i16, &'static str);

    impl Tts for One {
        fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
            match language {
                "xx" if self.0 == 1 => Err(TtsError::Refused("xx".to_owned())),
                _ => Ok(voice.to_owned()),
            }
        }

        fn speak(
            self: Rc<Self>,
            text: String,
            _: String,
            out: mpsc::Sender<Pcm>,
        ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
            async move {
                if text.contains(self.1) {
                    return Err(TtsError::Lost(text));
                }
                let samples = vec![self.0];
                let _ = out.send(Pcm { rate: 8000, samples }).await;
                Ok(())
            }
            .boxed_local()
        }
    }

    fn say(tts: &Rc<Fallback>, language: &str, pieces: &[&str]) -> (Vec<i16>, bool) {
        let voice = tts.voice("", language).unwrap();
        let (tx, mut rx) = mpsc::channel(16);
        let all = pieces.iter().all(|text| {
            let run = Rc::clone(tts).speak((*text).to_owned(), voice.clone(), tx.clone());
            run.now_or_never().unwrap().is_ok()
        });
        (
            std::iter::from_fn(|| rx.try_recv().ok())
                .flat_map(|p| p.samples)
                .collect(),
            all,
        )
    }

    #[test]
    fn an_utterance_is_spoken_by_one_synthesizer_alone() {
        let tts = Rc::new(Fallback::new(
            ("one", Rc::new(One(1, "bad"))),
            ("two", Rc::new(One(2, "worse"))),
        ));
        assert_eq!(say(&tts, "en", &["a", "b"]), (vec![1, 1], true));
        assert_eq!(say(&tts, "en", &["bad", "b"]), (vec![2, 2], true));
        assert_eq!(
            say(&tts, "en", &["a", "bad"]),
            (vec![1], false),
            "not half of one and half of another"
        );
        assert_eq!(say(&tts, "xx", &["a"]), (vec![2], true));
        assert_eq!(say(&tts, "en", &["bad worse"]), (vec![], false));
    }
}
