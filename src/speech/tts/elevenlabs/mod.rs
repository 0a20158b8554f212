//! Synthesis by ElevenLabs over a WebSocket (`stream-input` with `auto_mode`), one for each piece of text, the next dialled ahead.
//!
//! There is no message that cuts a synthesis off: the socket is closed. Source: ElevenLabs' AsyncAPI description of August 2025.

pub mod double;

use super::{
    Descriptor, Engine, Pcm, Tts, TtsError,
    stream::{Patience, Stream, name_of_voice, primary},
};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    net::dial::Dialer,
    speech::{
        MouthSpec,
        link::{Frame, Link, LinkError, Service, Spare, with_query},
    },
    wire::{base64, json},
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::HeaderName;
use serde::Deserialize;
use std::{borrow::Cow, fmt, rc::Rc, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_tungstenite::tungstenite::Message;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "elevenlabs",
    read: |section| Arc::new(ElevenLabs(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Speak::new(key))),
};

/// A socket that has said nothing waits this long: the service closes it after 20 s.
const AGE: Duration = Duration::from_secs(15);

/// Bytes of audio in one message.
const MOST: usize = 2 << 20;

/// What is made of speech, with its words in the configuration and on the wire.
const FORMATS: [(&str, AudioFormat); 5] = [
    ("pcm_8000", format(Encoding::L16Le, 8000)),
    ("ulaw_8000", format(Encoding::Ulaw, 8000)),
    ("alaw_8000", format(Encoding::Alaw, 8000)),
    ("pcm_16000", format(Encoding::L16Le, 16_000)),
    ("pcm_24000", format(Encoding::L16Le, 24_000)),
];

const fn format(encoding: Encoding, rate: u32) -> AudioFormat {
    AudioFormat { encoding, rate }
}

/// `[speech.tts.elevenlabs]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    model: String,
    /// The voice's id where none is asked for.
    voice: String,
    format: AudioFormat,
    stability: f64,
    similarity: f64,
    speed: f64,
    patience: Patience,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        Self {
            service: Service::read(section, "ElevenLabs", "https://api.elevenlabs.io"),
            model: section.text("model", "eleven_flash_v2_5"),
            voice: section.text("voice", "21m00Tcm4TlvDq8ikWAM"),
            format: section.choice("output_format", FORMATS[0].1, &FORMATS),
            stability: section.float("stability", 0.5, 0.0..=1.0),
            similarity: section.float("similarity_boost", 0.8, 0.0..=1.0),
            speed: section.float("speed", 1.0, 0.7..=1.2),
            patience: Patience::read(section),
        }
    }

    /// Where a piece of text in this voice is spoken. The language follows the voice's name, behind a `/`.
    fn path(&self, voice: &str) -> String {
        let (voice, language) = voice.split_once('/').unwrap_or((voice, ""));
        let word = FORMATS
            .iter()
            .find(|(_, f)| *f == self.format)
            .map_or("", |(word, _)| word);
        let mut query = vec![
            ("model_id", self.model.clone()),
            ("output_format", word.to_owned()),
            ("auto_mode", "true".to_owned()),
        ];
        if !language.is_empty() {
            query.push(("language_code", language.to_owned()));
        }
        with_query(&format!("/v1/text-to-speech/{voice}/stream-input"), &query)
    }

    fn opening(&self) -> Message {
        let settings = serde_json::json!({
            "stability": self.stability, "similarity_boost": self.similarity, "speed": self.speed,
        });
        Message::text(serde_json::json!({ "text": " ", "voice_settings": settings }).to_string())
    }
}

/// The configured engine.
struct ElevenLabs(Arc<Config>);

impl fmt::Debug for ElevenLabs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine for ElevenLabs {
    fn lacks(&self) -> Option<String> {
        self.0.service.lacks_key("ELEVENLABS_API_KEY")
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let service = self.0.service.with_key(key);
        Some(Arc::new(ElevenLabs(Arc::new(Config {
            service,
            ..(*self.0).clone()
        }))))
    }

    fn open(&self) -> Rc<dyn Tts> {
        Rc::new(Lane(Rc::new(Inner {
            config: Arc::clone(&self.0),
            dialer: Dialer::default(),
        })))
    }
}

/// The engine on a lane.
struct Lane(Rc<Inner>);

struct Inner {
    config: Arc<Config>,
    dialer: Dialer,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    audio: Option<Cow<'a, str>>,
    #[serde(default, rename = "isFinal", alias = "is_final")]
    is_final: Option<bool>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
}

impl Inner {
    async fn dial(&self, path: &str) -> Result<Link<'_>, LinkError> {
        let service = &self.config.service;
        let headers = service.credential(HeaderName::from_static("xi-api-key"), "")?;
        service.dial(&self.dialer, path, headers).await
    }

    /// Dials a socket that waits for the next piece of text.
    fn dial_ahead(self: &Rc<Self>, path: String) {
        let inner = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // What goes wrong is told to the mouth, when it speaks.
            if let Ok(link) = inner.dial(&path).await {
                let line = link.set_aside();
                let service = &inner.config.service;
                service.spares.put(Spare {
                    path: path.clone(),
                    line,
                    opened: Instant::now(),
                    spoken: (0, 0),
                    nudges: 0,
                });
                service.tend(&path, AGE, AGE, None).await;
            }
        });
    }

    async fn speak(self: &Rc<Self>, text: &str, voice: &str, out: mpsc::Sender<Pcm>) -> Result<(), TtsError> {
        let config = &*self.config;
        let path = config.path(voice);
        let mut stream = Stream::new(&config.service, config.patience, config.format, out);
        if let Some(spare) = config.service.spares.take(&path, AGE) {
            self.dial_ahead(path.clone());
            let mut link = config.service.resume(spare.line);
            match self.converse(&mut link, text, &mut stream).await {
                // It may have died while it waited; nothing was heard of it.
                Err(LinkError::Lost(_)) if !stream.has_begun() => {}
                outcome => return Ok(outcome?),
            }
        }
        let mut link = stream.wait(self.dial(&path)).await?;
        self.dial_ahead(path);
        Ok(self.converse(&mut link, text, &mut stream).await?)
    }

    async fn converse(&self, link: &mut Link<'_>, text: &str, stream: &mut Stream<'_>) -> Result<(), LinkError> {
        link.send(self.config.opening()).await?;
        let words = serde_json::json!({ "text": format!("{text} ") });
        link.send(Message::text(words.to_string())).await?;
        link.send(Message::text(r#"{"text":""}"#)).await?;
        loop {
            let text = match stream.wait(link.next()).await? {
                Frame::Text(text) => text,
                Frame::Binary(_) => return Err(link.service.strange("a binary message")),
                Frame::Closed { code: 1000 | 1005, .. } if stream.has_begun() => return Ok(()),
                Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
            };
            let event: Event<'_> =
                json::read(text.as_bytes()).map_err(|_| link.service.strange("JSON that is none of its messages"))?;
            if let Some(error) = event.error {
                let message = event.message.unwrap_or_default();
                return Err(link.service.lost(format_args!("broke off: {error} {message}")));
            }
            if let Some(audio) = event.audio.filter(|a| !a.is_empty()) {
                let bytes = base64::decode_vec(audio.as_bytes(), MOST)
                    .map_err(|_| link.service.strange("audio that is not base64"))?;
                if !stream.push(&bytes).await? {
                    return Ok(());
                }
            }
            if event.is_final == Some(true) {
                return stream.end();
            }
        }
    }
}

impl Tts for Lane {
    fn voice(&self, voice: &str, language: &str) -> Result<String, TtsError> {
        let voice = name_of_voice(if voice.is_empty() { &self.0.config.voice } else { voice })?;
        Ok(match primary(language) {
            Some(language) => format!("{voice}/{language}"),
            None => voice,
        })
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
        if let Ok(voice) = self.voice(&spec.voice, &spec.language) {
            self.0.dial_ahead(self.0.config.path(&voice));
        }
    }
}
