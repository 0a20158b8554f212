//! Synthesis by the `espeak-ng` program: offline, a hundred languages, plain to hear that it is a machine.
//!
//! The program is GPL-3.0 and stays outside: a process per piece of text, words in on stdin, a WAVE stream out. The next process of
//! a voice is started ahead and waits, so that the first samples come within a millisecond of the words; what hangs is killed.

mod driver;
#[cfg(test)]
mod tests;
mod text;
mod voices;

use super::{Descriptor, Engine, Pcm, Tts, TtsError};
use crate::{base::settings::Section, speech::MouthSpec};
use driver::Driver;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "espeak",
    read: |section| Arc::new(Config::read(section)),
    double: None,
};

/// `[speech.tts.espeak]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Config {
    /// The program: a name to be found in `PATH`, or a path.
    program: String,
    /// Words a minute.
    rate: u32,
    /// How long the first audio may take.
    first_audio: Duration,
    /// How long a piece of text may take.
    limit: Duration,
    /// For how many voices a process is kept ready, on each lane.
    ready_voices: usize,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            program: section.text("program", "espeak-ng"),
            rate: section.int("rate", 160, 80..=450),
            first_audio: section.duration("first_audio", seconds(3), Duration::from_millis(100)..=seconds(60)),
            limit: section.duration("limit", seconds(30), seconds(1)..=seconds(300)),
            ready_voices: section.int("ready_voices", 4, 0..=64),
        }
    }
}

impl Engine for Config {
    fn open(&self) -> Rc<dyn Tts> {
        Rc::new(Espeak(Driver::new(self.clone())))
    }
}

struct Espeak(Driver);

impl Tts for Espeak {
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
        if voice.is_empty() {
            return voices::of(language).map(str::to_owned).ok_or_else(|| {
                TtsError::Refused(format!(
                    "eSpeak NG does not speak {language:?}: choose another language, or name a voice of `espeak-ng --voices`"
                ))
            });
        }
        if voices::is_name(voice) {
            Ok(voice.to_owned())
        } else {
            Err(TtsError::Refused(format!(
                "{voice:?} cannot be the name of an eSpeak NG voice: see `espeak-ng --voices`"
            )))
        }
    }

    fn speak(
        self: Rc<Self>,
        text: String,
        voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
        async move { self.0.speak(&text::plain(&text), &voice, &out).await }.boxed_local()
    }

    fn warm(&self, spec: &MouthSpec) {
        if let Ok(voice) = self.voice(&spec.voice, &spec.language) {
            self.0.prepare(&voice);
        }
    }
}
