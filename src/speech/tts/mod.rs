//! Synthesizers: the trait one implements, and the list of those there are. One folder each, one line in [`BACKENDS`].

pub mod deepgram;
pub mod elevenlabs;
pub mod espeak;
pub mod fake;
mod fallback;
pub mod openai;
mod pieces;
mod stream;

pub(super) use fallback::Fallback;
pub use pieces::pieces;

use super::{MouthSpec, double::Make};
use crate::base::{secret::Secret, settings::Section};
use futures_util::future::LocalBoxFuture;
use std::{fmt, rc::Rc, sync::Arc};
use tokio::sync::mpsc;

/// Every synthesizer. Configuration, metrics labels and tests iterate it.
pub static BACKENDS: &[&Descriptor] = &[
    &espeak::DESCRIPTOR,
    &deepgram::DESCRIPTOR,
    &elevenlabs::DESCRIPTOR,
    &openai::DESCRIPTOR,
    &fake::DESCRIPTOR,
];

/// What a synthesizer is called and how it is configured.
pub struct Descriptor {
    /// Lower-case name: configuration section, `backend` of a [`MouthSpec`], metrics label.
    pub name: &'static str,
    /// Reads its section. Does no I/O.
    pub read: fn(&Section<'_>) -> Arc<dyn Engine>,
    /// A stand-in for the service behind it that accepts this key; `None` for an engine of our own machine.
    pub double: Option<Make>,
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A configured synthesizer, one for the daemon. `Debug` shows its whole configuration.
pub trait Engine: fmt::Debug + Send + Sync {
    /// What it cannot do without and was not configured with, as a hint to write it: `set speech.stt.NAME.key`.
    fn lacks(&self) -> Option<String> {
        None
    }

    /// The same with another key; `None` for an engine that needs none.
    fn with_key(&self, _key: &Secret) -> Option<Arc<dyn Engine>> {
        None
    }

    /// Opens it on a lane, within the lane's runtime. Once per lane; must not wait.
    fn open(&self) -> Rc<dyn Tts>;
}

/// A synthesizer on a lane. Serves all mouths of the lane, so nothing in it may block the thread.
pub trait Tts {
    /// The voice for these words: the one asked for, else one for the language. `auto` and an empty language leave the choice open.
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError>;

    /// Speaks a piece of text, a sentence or two, with a voice that [`voice`](Self::voice) gave. Sends samples as they come
    /// and returns after the last. Dropping the future ends the synthesis at once. It must fail rather than hang.
    fn speak(
        self: Rc<Self>,
        text: String,
        voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>>;

    /// Gets ready for a mouth that is about to open. Must not wait.
    fn warm(&self, _spec: &MouthSpec) {}
}

/// Samples from a synthesizer, mono. The rate stays the same within one call of [`Tts::speak`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcm {
    /// Sample rate in Hz.
    pub rate: u32,
    /// The samples.
    pub samples: Vec<i16>,
}

/// Why words were not spoken, or not to their end. Carries a sentence that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TtsError {
    /// The request cannot be met: no such voice, a language that is not spoken.
    Refused(String),
    /// The engine is missing, crashed or hung.
    Lost(String),
}

impl TtsError {
    /// The sentence.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused(m) | Self::Lost(m) => m,
        }
    }

    /// The word for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "tts_refused",
            Self::Lost(_) => "tts_lost",
        }
    }
}

impl fmt::Display for TtsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TtsError {}
