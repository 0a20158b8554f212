//! Recognisers: the trait one implements, and the list of those there are. One folder each, one line in [`BACKENDS`].

pub mod deepgram;
pub mod elevenlabs;
pub mod fake;
pub(super) mod live;
pub mod openai;
pub mod pocketsphinx;
pub mod segment;
pub mod vosk;
mod whole;

use super::{EarSpec, Hearing, double::Make};
use crate::base::{
    format::{AudioFormat, Encoding},
    secret::Secret,
    settings::Section,
};
use futures_util::future::LocalBoxFuture;
use std::{fmt, rc::Rc, sync::Arc};

/// Every recogniser. Configuration, metrics labels and tests iterate it.
pub static BACKENDS: &[&Descriptor] = &[
    &pocketsphinx::DESCRIPTOR,
    &deepgram::DESCRIPTOR,
    &elevenlabs::DESCRIPTOR,
    &openai::DESCRIPTOR,
    &vosk::DESCRIPTOR,
    &fake::DESCRIPTOR,
];

/// What a recogniser is called and how it is configured.
pub struct Descriptor {
    /// Lower-case name: configuration section, `backend` of an [`EarSpec`], metrics label.
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

/// A configured recogniser, one for the daemon. `Debug` shows its whole configuration.
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
    fn open(&self) -> Rc<dyn Stt>;
}

/// A recogniser on a lane. Serves all ears of the lane, so nothing in it may block the thread.
pub trait Stt {
    /// The sample rate it wants for a ring of `ring` Hz, one of `AudioFormat::RATES`.
    fn rate(&self, ring: u32) -> u32;

    /// Whether it takes audio in this encoding as it is, at the rate it wants. Such audio is never decoded: [`Hearing::read_bytes`]
    /// gives the vendor's own codes.
    fn takes(&self, _encoding: Encoding) -> bool {
        false
    }

    /// One session: hears the audio to its end, tells the words, then returns `Ok`. Says [`Hearing::ready`] once it works and
    /// [`Hearing::settle`] as it goes, since another session hears from there if this one breaks.
    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>>;

    /// Whether it could listen with this spec: knows the language, can listen for the phrases.
    fn accepts(&self, _spec: &EarSpec) -> Result<(), SttError> {
        Ok(())
    }

    /// Gets ready for an ear that is about to open on audio that it would hear in this format. Must not wait.
    fn warm(&self, _spec: &EarSpec, _format: AudioFormat) {}
}

/// Why a session ended before its audio did. Both carry a sentence that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SttError {
    /// Another try cannot help: the language is not known, the phrases cannot be listened for.
    Refused(String),
    /// Another session may do better: something crashed, hung, or is not there yet.
    Lost(String),
}

impl SttError {
    /// The sentence.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused(m) | Self::Lost(m) => m,
        }
    }

    /// The word for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "stt_refused",
            Self::Lost(_) => "stt_lost",
        }
    }
}

impl fmt::Display for SttError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for SttError {}
