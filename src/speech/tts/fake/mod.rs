//! A synthesizer of tones instead of words: deterministic, instant, needs nothing installed. For tests, simulations and load.
//!
//! Each word is 120 ms of tone and 30 ms of silence at 8 kHz, its frequency (400 to 2900 Hz) made from its letters. The word
//! `[break]` ends the synthesis with an error. Every language is spoken but `xx`, and every voice exists but `nobody`.

use crate::{
    audio::tone::Sine,
    base::settings::Section,
    speech::tts::{Descriptor, Engine, Pcm, Tts, TtsError},
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::{rc::Rc, sync::Arc};
use tokio::sync::mpsc;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "fake",
    read: |_: &Section<'_>| Arc::new(Fake),
    double: None,
};

const RATE: u32 = 8000;

/// Samples that a word makes.
pub fn word(letters: &str) -> Vec<i16> {
    let sum: u32 = letters.bytes().map(u32::from).sum();
    let mut samples = vec![0; (RATE * 150 / 1000) as usize];
    Sine::new(RATE, f64::from(400 + 100 * (sum % 26)), 8000.0).fill(&mut samples[..(RATE * 120 / 1000) as usize]);
    samples
}

#[derive(Debug)]
struct Fake;

impl Engine for Fake {
    fn open(&self) -> Rc<dyn Tts> {
        Rc::new(Self)
    }
}

impl Tts for Fake {
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
        if language == "xx" || voice == "nobody" {
            return Err(TtsError::Refused(
                "the fake synthesizer has no language xx and no voice nobody".to_owned(),
            ));
        }
        Ok(voice.to_owned())
    }

    fn speak(
        self: Rc<Self>,
        text: String,
        _voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
        async move {
            for letters in text.split_whitespace() {
                if letters.contains("[break]") {
                    return Err(TtsError::Lost("the fake synthesizer was told to break".to_owned()));
                }
                let pcm = Pcm {
                    rate: RATE,
                    samples: word(letters),
                };
                if out.send(pcm).await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}
