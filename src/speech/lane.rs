//! A lane: the thread on which the ears and mouths of one media shard live. May stall or lose a task without a frame being late.
//!
//! The shard rings the lane's bell at most once a tick; on waking, the lane gives each ear with audio its turn. Everything else are
//! tasks of the lane's own runtime. A panic ends the ear or mouth it happened in, counted, and nothing else.

use super::{
    Config, EarSpec, Mouth, MouthSpec, SpeechEvent,
    duplex::{self, Dialogue, Duplex, DuplexSpec, Talker},
    ear::{self, Candidate, Ear},
    echo::echo,
    mouth::{self, Speaker},
    outbox::Outbox,
    outlet::Outlet,
    stt::{self, Stt},
    tts::{self, Fallback, Tts},
};
use crate::{
    audio::ring::{DownlinkTx, UplinkRx},
    base::{doorbell::Doorbell, format::AudioFormat, keyring::Keyring},
    metrics,
};
use futures_util::FutureExt as _;
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, LocalSet},
};

/// Commands that wait at most.
const COMMANDS: usize = 1024;

/// How often ears are looked at even when no bell rings: a ring whose writer went away does not ring.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// What a lane is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Open an ear.
    Ear {
        spec: EarSpec,
        audio: UplinkRx,
        events: mpsc::Sender<SpeechEvent>,
        /// The language that is wanted instead of the spec's; empty until one is.
        language: watch::Receiver<String>,
    },
    /// Open a mouth.
    Mouth {
        spec: MouthSpec,
        audio: DownlinkTx,
        events: mpsc::Sender<SpeechEvent>,
        orders: mpsc::UnboundedReceiver<mouth::Order>,
        shared: Arc<mouth::Shared>,
    },
    /// Hold a conversation.
    Duplex {
        spec: Box<DuplexSpec>,
        audio: UplinkRx,
        mouth: Mouth,
        events: mpsc::Sender<SpeechEvent>,
        orders: mpsc::UnboundedReceiver<duplex::Order>,
        language: watch::Receiver<String>,
    },
    /// Get ready for one.
    WarmDuplex(Box<DuplexSpec>),
    /// Give back what is heard.
    Echo { from: UplinkRx, to: DownlinkTx },
    /// Get ready.
    Warm {
        ear: Option<(EarSpec, AudioFormat)>,
        mouth: Option<MouthSpec>,
    },
}

/// A running lane. Dropping it ends everything on it and waits for the thread.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) commands: Option<mpsc::Sender<Command>>,
    pub(super) bell: Arc<Doorbell>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread.
    ///
    /// # Panics
    /// When the system has no thread to give.
    pub(super) fn start(index: usize, config: Config) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let bell = Arc::new(Doorbell::new());
        let lane_bell = Arc::clone(&bell);
        let thread = thread::Builder::new()
            .name(format!("speech-{index}"))
            .spawn(
                move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => LocalSet::new().block_on(&runtime, run(config, inbox, lane_bell)),
                    Err(error) => tracing::error!(%error, "a speech lane could not start its runtime"),
                },
            )
            .expect("a thread for a speech lane can be started");
        Self {
            commands: Some(commands),
            bell,
            thread: Some(thread),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An ear on the lane and the task of its recogniser.
struct Slot {
    ear: Ear,
    listening: JoinHandle<()>,
}

/// The backends as opened on this lane.
struct Backends {
    config: Config,
    stt: Opened<dyn stt::Engine, dyn Stt>,
    tts: Opened<dyn tts::Engine, dyn Tts>,
    duplex: Opened<dyn duplex::Engine, dyn Duplex>,
}

/// Engines that are kept open at once besides those in use; the least lately used go first.
const OPENED: usize = 64;

/// Engines with what they were opened as.
struct Opened<E: ?Sized, T: ?Sized>(RefCell<Vec<(Arc<E>, Rc<T>)>>);

impl<E: ?Sized, T: ?Sized> Opened<E, T> {
    fn new() -> Self {
        Self(RefCell::default())
    }

    fn get(&self, engine: Arc<E>, open: impl FnOnce(&E) -> Rc<T>) -> Rc<T> {
        let mut kept = self.0.borrow_mut();
        let entry = match kept.iter().position(|(e, _)| Arc::ptr_eq(e, &engine)) {
            Some(at) => kept.remove(at),
            None => {
                let opened = open(&engine);
                (engine, opened)
            }
        };
        let opened = Rc::clone(&entry.1);
        kept.push(entry);
        if kept.len() > OPENED {
            kept.remove(0);
        }
        opened
    }
}

/// A lane's life, within a [`LocalSet`]: until the sender of `commands` is gone.
pub(super) async fn run(config: Config, mut commands: mpsc::Receiver<Command>, bell: Arc<Doorbell>) {
    let backends = Backends {
        config,
        stt: Opened::new(),
        tts: Opened::new(),
        duplex: Opened::new(),
    };
    let mut slots: Vec<Slot> = Vec::new();
    loop {
        let has_work = || slots.iter().any(|s| s.ear.has_work());
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(command) => backends.obey(command, &mut slots),
                None => return,
            },
            () = bell.wait(has_work) => {}
            () = tokio::time::sleep(LOOK), if !slots.is_empty() => {}
        }
        slots.retain_mut(|slot| {
            let turn = catch_unwind(AssertUnwindSafe(|| slot.ear.turn()));
            if turn.is_err() {
                metrics::counter(metrics::panics_total, &[("kind", "ear")]).increment(1);
            }
            turn.unwrap_or(false) && !slot.listening.is_finished()
        });
        // The recognisers read what the turns brought before the lane looks for more.
        tokio::task::yield_now().await;
    }
}

impl Backends {
    fn recogniser(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Rc<dyn Stt>)> {
        let (name, engine) = self.config.recogniser(name, keys)?;
        Some((name, self.stt.get(engine, |e| e.open())))
    }

    fn synthesizer(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Rc<dyn Tts>)> {
        let (name, engine) = self.config.synthesizer(name, keys)?;
        Some((name, self.tts.get(engine, |e| e.open())))
    }

    fn service(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Rc<dyn Duplex>)> {
        let (name, engine) = self.config.conversations(name, keys)?;
        Some((name, self.duplex.get(engine, |e| e.open())))
    }

    fn obey(&self, command: Command, slots: &mut Vec<Slot>) {
        match command {
            Command::Ear {
                spec,
                audio,
                events,
                language,
            } => {
                let (ring, keys) = (audio.format(), spec.keys.clone());
                let candidate = |backend: &str| {
                    self.recogniser(backend, &keys)
                        .ok_or_else(|| missing("recogniser", backend, &self.config.stt))
                        .and_then(|(name, stt)| Candidate::new(name, stt, ring))
                };
                slots.extend(open_ear(candidate, spec, audio, events, language));
            }
            Command::Mouth {
                spec,
                audio,
                events,
                orders,
                shared,
            } => {
                let find = |name: &str| self.synthesizer(name, &spec.keys);
                let tts = find(&spec.backend).map(|(name, first)| {
                    let second = find(&spec.fallback).filter(|(other, _)| *other != name);
                    match second {
                        Some(second) => (name, Rc::new(Fallback::new((name, first), second)) as Rc<dyn Tts>),
                        None => (name, first),
                    }
                });
                let speaker = Speaker {
                    backend: tts.as_ref().map_or("unknown", |(name, _)| name),
                    tts: tts
                        .map(|(_, tts)| tts)
                        .ok_or_else(|| missing("synthesizer", &spec.backend, &self.config.tts)),
                    spec,
                    ring: Outlet::new(audio),
                    orders,
                    shared,
                    news: Outbox::new(events),
                };
                tokio::task::spawn_local(counting("mouth", speaker.run()));
            }
            Command::Duplex {
                spec,
                audio,
                mouth,
                events,
                orders,
                language,
            } => {
                let ear = EarSpec {
                    backend: spec.backend.clone(),
                    fallback: spec.fallback.clone(),
                    language: spec.language.clone(),
                    ..EarSpec::default()
                };
                let (ring, keys) = (audio.format(), spec.keys.clone());
                let dialogue = Dialogue::new(*spec, orders, mouth, events.clone());
                let dialogue = Rc::new(tokio::sync::Mutex::new(dialogue));
                let candidate = |backend: &str| {
                    self.service(backend, &keys)
                        .ok_or_else(|| missing("realtime service", backend, &self.config.duplex))
                        .and_then(|(name, service)| {
                            let talker = Talker::stt(service, &dialogue, ring);
                            Candidate::new(duplex::label(name), talker, ring)
                        })
                };
                slots.extend(open_ear(candidate, ear, audio, events, language));
            }
            Command::WarmDuplex(spec) => {
                if let Some((_, service)) = self.service(&spec.backend, &spec.keys) {
                    service.warm(&spec);
                }
            }
            Command::Echo { from, to } => {
                tokio::task::spawn_local(counting("echo", echo(from, Outlet::new(to))));
            }
            Command::Warm { ear, mouth } => {
                if let Some((spec, ring)) = ear
                    && let Some((name, stt)) = self.recogniser(&spec.backend, &spec.keys)
                    && let Ok(candidate) = Candidate::new(name, stt, ring)
                {
                    candidate.warm(&spec);
                }
                if let Some(spec) = mouth
                    && let Some((_, tts)) = self.synthesizer(&spec.backend, &spec.keys)
                {
                    tts.warm(&spec);
                }
            }
        }
    }
}

/// Opens an ear that listens with the candidates of these names.
fn open_ear(
    candidate: impl Fn(&str) -> Result<Candidate, String>,
    spec: EarSpec,
    audio: UplinkRx,
    events: mpsc::Sender<SpeechEvent>,
    language: watch::Receiver<String>,
) -> Option<Slot> {
    let ring = audio.format();
    let opened = candidate(&spec.backend).and_then(|first| {
        let (ear, hearing) = Ear::new(audio, &first, events.clone())?;
        let audio = if first.takes(ring) { "passed_through" } else { "decoded" };
        let labels = [("backend", first.name), ("audio", audio)];
        metrics::counter(metrics::speech_ears_total, &labels).increment(1);
        let second = Some(&spec.fallback).filter(|name| !name.is_empty() && **name != spec.backend);
        let second = second.and_then(|name| match candidate(name) {
            Ok(second) => Some(second),
            Err(message) => {
                tracing::warn!(message, "a call has no fallback recogniser");
                None
            }
        });
        Ok((ear, hearing, [Some(first), second].into_iter().flatten().collect()))
    });
    match opened {
        Ok((ear, hearing, candidates)) => {
            let task = ear::listen(candidates, spec, hearing, language);
            let listening = tokio::task::spawn_local(counting("ear", task));
            Some(Slot { ear, listening })
        }
        Err(message) => {
            tokio::task::spawn_local(async move {
                let _ = events.send(SpeechEvent::SttFailed { message }).await;
            });
            None
        }
    }
}

fn missing<T: ?Sized>(what: &str, name: &str, backends: &[(&'static str, Arc<T>)]) -> String {
    let known: Vec<_> = backends.iter().map(|(n, _)| *n).collect();
    format!("there is no {what} called {name:?}; there are: {}", known.join(", "))
}

/// Counts a panic instead of losing it with the task.
async fn counting(kind: &'static str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        metrics::counter(metrics::panics_total, &[("kind", kind)]).increment(1);
    }
}
