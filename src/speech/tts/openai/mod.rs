//! Synthesis by OpenAI, or a server that copies it: one HTTP request for a piece of text, audio as it comes.
//!
//! PCM at 24 kHz is all that it makes without a container. Source: the official SDK's types.

pub mod double;

use super::{
    Descriptor, Engine, Pcm, Tts, TtsError,
    stream::{Patience, Stream, name_of_voice},
};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    net::client::HttpClient,
    speech::link::Service,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::{HeaderValue, header};
use std::{fmt, rc::Rc, sync::Arc};
use tokio::sync::mpsc;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "openai",
    read: |section| Arc::new(OpenAi(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Speech::new(key))),
};

const FORMAT: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 24_000,
};

/// `[speech.tts.openai]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    model: String,
    /// The voice where none is asked for.
    voice: String,
    /// How to speak; empty leaves it to the model.
    instructions: String,
    patience: Patience,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        Self {
            service: Service::read_http(section, "OpenAI", "https://api.openai.com/v1"),
            model: section.text("model", "gpt-4o-mini-tts"),
            voice: section.text("voice", "marin"),
            instructions: section.text("instructions", ""),
            patience: Patience::read(section),
        }
    }
}

/// The configured engine.
struct OpenAi(Arc<Config>);

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine for OpenAi {
    fn lacks(&self) -> Option<String> {
        self.0.service.lacks_key("OPENAI_API_KEY")
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let service = self.0.service.with_key(key);
        Some(Arc::new(OpenAi(Arc::new(Config {
            service,
            ..(*self.0).clone()
        }))))
    }

    fn open(&self) -> Rc<dyn Tts> {
        Rc::new(Lane {
            config: Arc::clone(&self.0),
            client: HttpClient::new(),
        })
    }
}

/// The engine on a lane.
struct Lane {
    config: Arc<Config>,
    client: HttpClient,
}

impl Lane {
    async fn speak(&self, text: &str, voice: &str, out: mpsc::Sender<Pcm>) -> Result<(), TtsError> {
        let Config { service, .. } = &*self.config;
        let mut headers = service.credential(header::AUTHORIZATION, "Bearer ")?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut body = serde_json::json!({
            "model": self.config.model, "input": text, "voice": voice, "response_format": "pcm",
        });
        if !self.config.instructions.is_empty() {
            body["instructions"] = self.config.instructions.as_str().into();
        }
        let stream = Stream::new(service, self.config.patience, FORMAT, out);
        let body = body.to_string().into();
        let patience = stream.first_audio();
        let reply = service
            .post(&self.client, "/audio/speech", headers, body, patience)
            .await?;
        stream.copy(reply).await
    }
}

impl Tts for Lane {
    fn voice(&self, voice: &str, _language: &str) -> Result<String, TtsError> {
        name_of_voice(if voice.is_empty() { &self.config.voice } else { voice })
    }

    fn speak(
        self: Rc<Self>,
        text: String,
        voice: String,
        out: mpsc::Sender<Pcm>,
    ) -> LocalBoxFuture<'static, Result<(), TtsError>> {
        async move { Lane::speak(&self, &text, &voice, out).await }.boxed_local()
    }
}
