//! Services that hear a caller and answer by themselves, speech to speech: the trait one implements, and the list of those there are.
//! One folder each, one line in [`BACKENDS`].
//!
//! A conversation takes the place of a recogniser in an ear ([`Talker`]), so that outages, replay and another service in its place
//! are the ear's; it speaks through the leg's mouth, so that people, keys and it take turns. Which utterance a reply is, and what
//! becomes of it, is for the call to say ([`Order`]).

mod dialogue;
mod history;
pub mod openai;

pub use dialogue::Dialogue;
pub use history::{History, Role};

use super::{
    EarSpec, Hearing,
    double::Make,
    stt::{Stt, SttError},
};
use crate::base::{
    format::{AudioFormat, Encoding},
    ids::UtteranceId,
    keyring::Keyring,
    secret::Secret,
    settings::Section,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use serde_json::Value;
use std::{
    fmt,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Mutex as Turns, mpsc};

/// Every service. Configuration, metrics labels and tests iterate it.
pub static BACKENDS: &[&Descriptor] = &[&openai::DESCRIPTOR, &openai::COMPATIBLE];

/// What a service is called and how it is configured.
pub struct Descriptor {
    /// Lower-case name: configuration section, `backend` of a [`DuplexSpec`].
    pub name: &'static str,
    /// Metrics label.
    pub label: &'static str,
    /// Reads its section. Does no I/O.
    pub read: fn(&Section<'_>) -> Arc<dyn Engine>,
    /// A stand-in for it that accepts this key.
    pub double: Option<Make>,
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The label of a service.
pub(super) fn label(name: &str) -> &'static str {
    BACKENDS.iter().find(|d| d.name == name).map_or("unknown", |d| d.label)
}

/// A configured service, one for the daemon. `Debug` shows its whole configuration.
pub trait Engine: fmt::Debug + Send + Sync {
    /// What it cannot do without and was not configured with, as a hint to write it.
    fn lacks(&self) -> Option<String> {
        None
    }

    /// The same with another account's key. `None` where it takes none.
    fn with_key(&self, _key: &Secret) -> Option<Arc<dyn Engine>> {
        None
    }

    /// Opens it on a lane, within the lane's runtime. Once per lane; must not wait.
    fn open(&self) -> Rc<dyn Duplex>;
}

/// A service on a lane. Serves all conversations of the lane, so nothing in it may block the thread.
pub trait Duplex {
    /// What it hears or speaks where a leg's audio is this: the same G.711 where it can, else samples ([`Encoding::L16Le`]) at its rate.
    fn format(&self, leg: AudioFormat) -> AudioFormat;

    /// One session: hears the audio to its end and answers, then returns `Ok`. Says [`Hearing::ready`] once it works and
    /// [`Hearing::settle`] as it goes, since another session hears from there if this one breaks.
    fn converse<'a>(
        &'a self,
        dialogue: &'a mut Dialogue,
        hearing: &'a mut Hearing,
        language: &'a str,
    ) -> LocalBoxFuture<'a, Result<(), SttError>>;

    /// Gets ready for a conversation that is about to begin. Must not wait.
    fn warm(&self, _spec: &DuplexSpec) {}
}

/// What a conversation is held with.
#[derive(Clone, Debug, Default)]
pub struct DuplexSpec {
    /// Service's name (`openai`, …).
    pub backend: String,
    /// The service that takes over where that one fails; empty is none.
    pub fallback: String,
    /// Its model, where that is not the configured one.
    pub model: Option<String>,
    /// Its voice; empty is the configured one.
    pub voice: String,
    /// BCP 47 language of the caller, or `auto`.
    pub language: String,
    /// What it is told about itself.
    pub instructions: String,
    /// What it may ask to be done.
    pub tools: Vec<Tool>,
    /// Whether the caller's speech ends a reply at once, as the service itself sees to it.
    pub interruptible: bool,
    /// Keys that go before the operator's.
    pub keys: Keyring,
    /// What the leg plays to the caller.
    pub outbound: Option<AudioFormat>,
    /// What was said before; kept for as long as the call lasts.
    pub history: Memory,
}

/// Something that a service may ask to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// When to use it.
    pub description: String,
    /// JSON schema of its arguments: an object.
    pub parameters: Value,
}

/// A conversation's history, which outlives its sessions, services and streams.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<History>>);

impl Memory {
    /// Looks at it, or changes it. Never held for long.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call tells its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A reply is this utterance; `None`: the caller cannot be spoken to, and it is dropped.
    Name {
        /// As [`News::Begins`] counts it.
        reply: u32,
        /// The utterance.
        utterance: Option<UtteranceId>,
    },
    /// A reply is over: heard to its end, or cut off after this long.
    Over {
        /// Which.
        reply: u32,
        /// Whether that was all of it.
        whole: bool,
        /// How much the caller heard.
        heard_ms: u32,
    },
    /// Say something now, or as soon as the present answer is complete.
    Respond {
        /// What to say, or how; without it, what follows from the conversation.
        how: Option<String>,
        /// Whether it may ask for something to be done.
        tools: bool,
    },
    /// What came of something that was asked for.
    Result {
        /// Of [`Asked`].
        id: String,
        /// What the service is told.
        content: String,
    },
    /// What a person said to the caller in its place.
    Note(String),
    /// A person has the call: hear, and answer nothing; or answer again, and what is unanswered at once.
    Pause(bool),
}

/// What a service asks to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The service's id of it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// An object.
    pub arguments: Value,
}

/// News of a conversation, beside the caller's words.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The caller stopped speaking at this ms of audio heard, and is to be answered.
    Stopped {
        /// Where.
        to_ms: u64,
    },
    /// A reply begins; it waits to be told its utterance.
    Begins {
        /// Counted from 1 over all sessions.
        reply: u32,
    },
    /// The words of a reply so far, or all of them.
    Words {
        /// Which.
        utterance: UtteranceId,
        /// The words.
        text: String,
        /// Whether they are all.
        last: bool,
    },
    /// It wants something done.
    Wants(Asked),
    /// An answer is complete: nothing more comes of it.
    Answered,
    /// A service has used so many tokens.
    Used {
        /// Whose they are and of what sort: `NAME-realtime` (text), `NAME-realtime-audio`, `NAME-transcription`.
        service: &'static str,
        /// Read or heard.
        input: u64,
        /// Written or spoken.
        output: u64,
    },
}

/// The handle of a conversation. Cheap to clone; the conversation ends with the leg.
#[derive(Clone, Debug)]
pub struct DuplexHandle(pub(super) mpsc::UnboundedSender<Order>);

impl DuplexHandle {
    /// Tells it something. A conversation that is over ignores it.
    pub fn tell(&self, order: Order) {
        let _ = self.0.send(order);
    }
}

/// A conversation in a recogniser's place.
pub(super) struct Talker {
    duplex: Rc<dyn Duplex>,
    dialogue: Rc<Turns<Dialogue>>,
    /// What the leg's audio is made into for it.
    hears: AudioFormat,
}

impl Talker {
    /// A service's turn in a conversation whose leg brings this.
    pub(super) fn stt(duplex: Rc<dyn Duplex>, dialogue: &Rc<Turns<Dialogue>>, inbound: AudioFormat) -> Rc<dyn Stt> {
        Rc::new(Self {
            hears: duplex.format(inbound),
            duplex,
            dialogue: Rc::clone(dialogue),
        })
    }
}

impl Stt for Talker {
    fn rate(&self, _ring: u32) -> u32 {
        self.hears.rate
    }

    fn takes(&self, encoding: Encoding) -> bool {
        self.hears.encoding == encoding
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            let mut dialogue = self.dialogue.lock().await;
            // One that was dropped on the way may have left replies behind.
            dialogue.break_off();
            let outcome = self.duplex.converse(&mut dialogue, hearing, &spec.language).await;
            dialogue.break_off();
            dialogue.told().await;
            outcome
        }
        .boxed_local()
    }
}
