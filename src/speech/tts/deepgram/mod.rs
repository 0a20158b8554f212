//! Synthesis by Deepgram: Aura over a WebSocket (`/v1/speak`), or over HTTP there, and Flux over a WebSocket (`/v2/speak`).
//!
//! A socket speaks one piece of text after the other; one that was cut off is closed, not cleared, so that nothing stale can follow.
//! Source: Deepgram's AsyncAPI description of July 2026.

pub mod double;

use super::{
    Descriptor, Engine, Pcm, Tts, TtsError,
    stream::{ENCODINGS, Patience, Stream, name_of_voice, primary},
};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    net::{client::HttpClient, dial::Dialer},
    speech::{
        MouthSpec,
        link::{Frame, Link, LinkError, Service, Spare, with_query},
    },
    wire::json,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::{HeaderValue, header};
use serde::Deserialize;
use std::{fmt, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_tungstenite::tungstenite::Message;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "deepgram",
    read: |section| Arc::new(Deepgram(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Speak::new(key))),
};

/// A socket is used this long, and for so many pieces and characters: below the service's limits for a minute.
const AGE: Duration = Duration::from_secs(50);
const PIECES: usize = 18;
const CHARACTERS: usize = 2200;

/// Samples a second that the service makes of raw audio.
const RATES: [(&str, u32); 4] = [("8000", 8000), ("16000", 16_000), ("24000", 24_000), ("48000", 48_000)];

/// `[speech.tts.deepgram]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    /// The voice where none is asked for.
    model: String,
    format: AudioFormat,
    /// Whether Aura is asked over HTTP, a request for each piece of text.
    rest: bool,
    patience: Patience,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let encoding = section.choice("encoding", Encoding::L16Le, &ENCODINGS);
        let rate = section.choice("sample_rate", 8000, &RATES);
        Self {
            service: Service::read(section, "Deepgram", "https://api.deepgram.com"),
            model: section.text("model", "aura-2-thalia-en"),
            format: AudioFormat { encoding, rate },
            rest: section.choice("transport", false, &[("websocket", false), ("rest", true)]),
            patience: Patience::read(section),
        }
    }

    fn is_rest(&self, voice: &str) -> bool {
        self.rest && !is_flux(voice)
    }

    fn path(&self, voice: &str) -> String {
        let encoding = ENCODINGS.iter().find(|(_, e)| *e == self.format.encoding);
        let mut query = vec![
            ("model", voice.to_owned()),
            ("encoding", encoding.map_or("", |(word, _)| word).to_owned()),
            ("sample_rate", self.format.rate.to_string()),
        ];
        if self.is_rest(voice) {
            query.push(("container", "none".to_owned()));
        }
        with_query(if is_flux(voice) { "/v2/speak" } else { "/v1/speak" }, &query)
    }
}

/// Flux voices have no HTTP interface.
fn is_flux(voice: &str) -> bool {
    voice.starts_with("flux-")
}

/// The configured engine.
struct Deepgram(Arc<Config>);

impl fmt::Debug for Deepgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine for Deepgram {
    fn lacks(&self) -> Option<String> {
        self.0.service.lacks_key("DEEPGRAM_API_KEY")
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let service = self.0.service.with_key(key);
        Some(Arc::new(Deepgram(Arc::new(Config {
            service,
            ..(*self.0).clone()
        }))))
    }

    fn open(&self) -> Rc<dyn Tts> {
        Rc::new(Lane(Rc::new(Inner {
            config: Arc::clone(&self.0),
            dialer: Dialer::default(),
            client: HttpClient::new(),
        })))
    }
}

/// The engine on a lane.
struct Lane(Rc<Inner>);

struct Inner {
    config: Arc<Config>,
    dialer: Dialer,
    client: HttpClient,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Event {
    /// All of the text was spoken (Aura).
    Flushed {},
    /// All of the text was spoken (Flux).
    SpeechMetadata {},
    Warning {
        #[serde(default)]
        code: String,
    },
    Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

impl Inner {
    async fn dial(&self, path: &str) -> Result<Link<'_>, LinkError> {
        let service = &self.config.service;
        let headers = service.credential(header::AUTHORIZATION, "Token ")?;
        service.dial(&self.dialer, path, headers).await
    }

    async fn speak(&self, text: &str, voice: &str, out: mpsc::Sender<Pcm>) -> Result<(), TtsError> {
        let config = &*self.config;
        let path = config.path(voice);
        let mut stream = Stream::new(&config.service, config.patience, config.format, out);
        if config.is_rest(voice) {
            return self.post(&path, text, stream).await;
        }
        let characters = text.chars().count();
        let fits = |s: &Spare| s.spoken.0 < PIECES && s.spoken.1 + characters <= CHARACTERS;
        let spare = config.service.spares.take(&path, AGE).filter(fits);
        if let Some(Spare {
            line, opened, spoken, ..
        }) = spare
        {
            let mut link = config.service.resume(line);
            match converse(&mut link, text, voice, &mut stream).await {
                Ok(whole) => {
                    if whole {
                        self.set_aside(link, path, opened, (spoken.0 + 1, spoken.1 + characters));
                    }
                    return Ok(());
                }
                // It may have died while it waited; nothing was heard of it.
                Err(LinkError::Lost(_)) if !stream.has_begun() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let opened = Instant::now();
        let mut link = stream.wait(self.dial(&path)).await?;
        if converse(&mut link, text, voice, &mut stream).await? {
            self.set_aside(link, path, opened, (1, characters));
        }
        Ok(())
    }

    fn set_aside(&self, link: Link<'_>, path: String, opened: Instant, spoken: (usize, usize)) {
        let line = link.set_aside();
        self.config.service.spares.put(Spare {
            path,
            line,
            opened,
            spoken,
            nudges: 0,
        });
    }

    /// Has a text spoken over HTTP.
    async fn post(&self, path: &str, text: &str, stream: Stream<'_>) -> Result<(), TtsError> {
        let service = &self.config.service;
        let mut headers = service.credential(header::AUTHORIZATION, "Token ")?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::json!({ "text": text }).to_string().into();
        let patience = stream.first_audio();
        let reply = service.post(&self.client, path, headers, body, patience).await?;
        stream.copy(reply).await
    }
}

/// Has a text spoken. Returns whether it was heard to its end.
async fn converse(link: &mut Link<'_>, text: &str, voice: &str, stream: &mut Stream<'_>) -> Result<bool, LinkError> {
    let speak = serde_json::json!({ "type": "Speak", "text": text });
    link.send(Message::text(speak.to_string())).await?;
    link.send(Message::text(r#"{"type":"Flush"}"#)).await?;
    loop {
        match stream.wait(link.next()).await? {
            Frame::Binary(bytes) => {
                if !stream.push(&bytes).await? {
                    return Ok(false);
                }
            }
            Frame::Text(text) => match json::read(text.as_bytes()) {
                Ok(Event::Flushed {}) if !is_flux(voice) => return stream.end().map(|()| true),
                Ok(Event::SpeechMetadata {}) => return stream.end().map(|()| true),
                Ok(Event::Warning { code }) => tracing::warn!(code, "Deepgram warns about a synthesis"),
                Ok(Event::Error { code, description }) => {
                    return Err(link.service.lost(format_args!("broke off: {code} {description}")));
                }
                Ok(Event::Flushed {} | Event::Other) => {}
                Err(_) => return Err(link.service.strange("JSON that is none of its messages")),
            },
            Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
        }
    }
}

impl Tts for Lane {
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
        if !voice.is_empty() {
            return name_of_voice(voice);
        }
        let model = &self.0.config.model;
        match primary(language) {
            Some(wanted) if !model.ends_with(&format!("-{wanted}")) => Err(TtsError::Refused(format!(
                "Deepgram's voice {model} does not speak {language:?}: name a voice that does"
            ))),
            _ => name_of_voice(model),
        }
    }

    fn speak(
        self: Rc<Self>,
        text: String,
        voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
        async move { self.0.speak(&text, &voice, out).await }.boxed_local()
    }

    fn warm(&self, spec: &MouthSpec) {
        let voice = self.voice(&spec.voice, &spec.language);
        let Some(voice) = voice.ok().filter(|voice| !self.0.config.is_rest(voice)) else {
            return;
        };
        let inner = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let path = inner.config.path(&voice);
            // What goes wrong is told to the mouth, when it speaks.
            if let Ok(link) = inner.dial(&path).await {
                inner.set_aside(link, path.clone(), Instant::now(), (0, 0));
                inner.config.service.tend(&path, AGE, AGE, None).await;
            }
        });
    }
}
