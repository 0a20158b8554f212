//! OpenAI Realtime over a WebSocket, and servers that speak its protocol as it is or as it was (`compatible`).
//!
//! G.711 at 8 kHz passes as it is, both ways; anything else goes and comes as samples at 24 kHz. A session is opened while the phone
//! still rings, and renewed before it ends. Sources: the official SDK's types of November 2026 (messages); issue threads of
//! clients (the bound of an hour, `beta_api_shape_disabled`).

pub mod double;
mod proto;
mod session;

use super::{Descriptor, Dialogue, Duplex, DuplexSpec, Engine};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
        time::Wall,
    },
    net::dial::Dialer,
    speech::{
        Hearing,
        link::{Frame, Line, Link, LinkError, Service, with_query},
        stt::SttError,
    },
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::{HeaderName, HeaderValue, header};
use proto::{Shape, Told, TurnDetection};
use std::{
    fmt,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The service itself.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "openai",
    label: "openai-realtime",
    read: |section| Arc::new(Realtime::new(Config::read(section))),
    double: Some(|key| Arc::new(double::Realtime::new(key))),
};

/// A server with the same interface.
pub static COMPATIBLE: Descriptor = Descriptor {
    name: "compatible",
    label: "compatible-realtime",
    read: |section| Arc::new(Realtime::new(Config::read_compatible(section))),
    double: Some(|key| Arc::new(double::Realtime::of_beta(key))),
};

/// Samples a second of what is not G.711.
const RATE: u32 = 24_000;

/// How long a session that was opened for a call may wait for it.
const WAITS: Duration = Duration::from_secs(60);

/// Sessions that wait at most.
const WAITING: usize = 32;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What its tokens are counted as.
#[derive(Clone, Copy, Debug)]
struct Labels {
    /// Of text; and what the service is called in metrics.
    text: &'static str,
    audio: &'static str,
    transcription: &'static str,
}

/// `[speech.duplex.openai]` and `[speech.duplex.compatible]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    labels: Labels,
    shape: Shape,
    model: String,
    voice: String,
    speed: f64,
    transcription: String,
    noise_reduction: Option<&'static str>,
    turns: TurnDetection,
    max_tokens: u32,
    /// How long the beginning of a session may take.
    ready: Duration,
    /// How long the beginning of an answer may take.
    answer: Duration,
    /// A session of this age is replaced.
    renew_after: Duration,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let service = Service::read(section, "OpenAI Realtime", "https://api.openai.com/v1");
        let labels = Labels {
            text: DESCRIPTOR.label,
            audio: "openai-realtime-audio",
            transcription: "openai-transcription",
        };
        Self::read_rest(section, service, labels, Shape::Current)
    }

    fn read_compatible(section: &Section<'_>) -> Self {
        let service = Service::read(section, "the realtime server", "http://127.0.0.1:8080/v1");
        let shape = section.choice(
            "shape",
            Shape::Beta,
            &[("beta", Shape::Beta), ("current", Shape::Current)],
        );
        let labels = Labels {
            text: COMPATIBLE.label,
            audio: "compatible-realtime-audio",
            transcription: "compatible-transcription",
        };
        Self::read_rest(section, service, labels, shape)
    }

    fn read_rest(section: &Section<'_>, service: Service, labels: Labels, shape: Shape) -> Self {
        let (threshold, prefix, silence) = (
            section.float("threshold", 0.5, 0.0..=1.0),
            section.duration("prefix_padding", MS * 300, Duration::ZERO..=SECOND * 2),
            section.duration("silence_duration", MS * 500, MS * 100..=SECOND * 5),
        );
        let words = [("auto", "auto"), ("low", "low"), ("medium", "medium"), ("high", "high")];
        let eagerness = section.choice("eagerness", "auto", &words);
        let turns = match section.choice("vad", true, &[("server", true), ("semantic", false)]) {
            true => TurnDetection::Server {
                threshold,
                prefix_ms: prefix.as_millis() as u64,
                silence_ms: silence.as_millis() as u64,
            },
            false => TurnDetection::Semantic { eagerness },
        };
        let kinds = [
            ("none", None),
            ("near_field", Some("near_field")),
            ("far_field", Some("far_field")),
        ];
        Self {
            service,
            labels,
            shape,
            model: section.text("model", "gpt-realtime-2.1"),
            voice: section.text("voice", "marin"),
            speed: section.float("speed", 1.0, 0.25..=1.5),
            transcription: section.text("transcription", "gpt-transcribe"),
            noise_reduction: section.choice("noise_reduction", None, &kinds),
            turns,
            max_tokens: section.int("max_output_tokens", 0, 0..=4096),
            ready: section.duration("ready", SECOND * 5, MS * 100..=SECOND * 30),
            answer: section.duration("answer", SECOND * 10, MS * 100..=MINUTE),
            renew_after: section.duration("renew_after", MINUTE * 20, SECOND..=MINUTE * 55),
        }
    }
}

/// The configured engine.
struct Realtime(Arc<Shared>);

/// What all lanes have in common. A socket works on another lane than it was opened on while that one lives, and they live equally long.
struct Shared {
    config: Config,
    waiting: Mutex<Vec<(String, Opened)>>,
}

impl Realtime {
    fn new(config: Config) -> Self {
        let waiting = Mutex::default();
        Self(Arc::new(Shared { config, waiting }))
    }
}

impl fmt::Debug for Realtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.config.fmt(f)
    }
}

impl Engine for Realtime {
    fn lacks(&self) -> Option<String> {
        let service = &self.0.config.service;
        service
            .is_at("api.openai.com")
            .then(|| service.lacks_key("OPENAI_API_KEY"))
            .flatten()
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let config = &self.0.config;
        Some(Arc::new(Self::new(Config {
            service: config.service.with_key(key),
            ..config.clone()
        })))
    }

    fn open(&self) -> Rc<dyn Duplex> {
        Rc::new(Lane(Rc::new(Inner {
            shared: Arc::clone(&self.0),
            dialer: Dialer::default(),
        })))
    }
}

/// A session that was begun, and asked for nothing yet.
struct Opened {
    line: Line,
    began: Instant,
    /// When the service ends it.
    expires: Option<Instant>,
}

/// The engine on a lane.
struct Lane(Rc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    dialer: Dialer,
}

impl Inner {
    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(String, Opened)>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, model: Option<&str>) -> String {
        let model = model.unwrap_or(&self.config().model).to_owned();
        with_query("/realtime", &[("model", model)])
    }

    /// A session: one that waits, else a new one.
    async fn open(&self, path: &str) -> Result<Opened, LinkError> {
        loop {
            let found = {
                let mut waiting = self.waiting();
                let at = waiting.iter().position(|(p, _)| p == path);
                at.map(|at| waiting.swap_remove(at).1)
            };
            let Some(mut opened) = found else {
                return self.dial(path).await;
            };
            if opened.began.elapsed() < WAITS && opened.line.is_quiet(false) {
                return Ok(opened);
            }
        }
    }

    async fn dial(&self, path: &str) -> Result<Opened, LinkError> {
        let config = self.config();
        let service = &config.service;
        let mut headers = service.credential_if_any(header::AUTHORIZATION, "Bearer ")?;
        if config.shape == Shape::Beta {
            let name = HeaderName::from_static("openai-beta");
            headers.insert(name, HeaderValue::from_static("realtime=v1"));
        }
        let mut link = service.dial(&self.dialer, path, headers).await?;
        let greeted = timeout(config.ready, created(&mut link)).await;
        let expires_at = greeted.unwrap_or_else(|_| Err(service.late("session", config.ready)))?;
        let expires = expires_at.map(|at| {
            let left = at - Wall::now().as_secs();
            Instant::now() + Duration::from_secs(left.clamp(0, 86_400) as u64)
        });
        Ok(Opened {
            line: link.set_aside(),
            began: Instant::now(),
            expires,
        })
    }

    /// Opens a session that waits for the call that is about to begin.
    async fn open_ahead(self: Rc<Self>, path: String) {
        // What goes wrong is told to the call, when it begins.
        let Ok(opened) = self.dial(&path).await else { return };
        let began = opened.began;
        {
            let mut waiting = self.waiting();
            if waiting.len() >= WAITING {
                waiting.remove(0);
            }
            waiting.push((path, opened));
        }
        tokio::time::sleep_until(began + WAITS).await;
        self.waiting().retain(|(_, opened)| opened.began.elapsed() < WAITS);
    }
}

/// Waits for the service's first word.
async fn created(link: &mut Link<'_>) -> Result<Option<i64>, LinkError> {
    loop {
        let text = match link.next().await? {
            Frame::Text(text) => text,
            Frame::Binary(_) => return Err(link.service.strange("a binary message")),
            Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
        };
        match proto::read(&text).map_err(|what| link.service.strange(what))? {
            Told::Created { expires_at } => return Ok(expires_at),
            Told::Complaint { kind, code, message } => {
                return Err(session::refusal(link.service, &kind, &code, &message));
            }
            _ => {}
        }
    }
}

impl Duplex for Lane {
    fn format(&self, leg: AudioFormat) -> AudioFormat {
        match leg {
            AudioFormat {
                encoding: Encoding::Ulaw | Encoding::Alaw,
                rate: 8000,
            } => leg,
            _ => AudioFormat {
                encoding: Encoding::L16Le,
                rate: RATE,
            },
        }
    }

    fn converse<'a>(
        &'a self,
        dialogue: &'a mut Dialogue,
        hearing: &'a mut Hearing,
        language: &'a str,
    ) -> LocalBoxFuture<'a, Result<(), SttError>> {
        session::converse(&self.0, dialogue, hearing, language).boxed_local()
    }

    fn warm(&self, spec: &DuplexSpec) {
        let path = self.0.path(spec.model.as_deref());
        tokio::task::spawn_local(Rc::clone(&self.0).open_ahead(path));
    }
}
