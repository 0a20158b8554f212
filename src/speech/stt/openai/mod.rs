//! Recognition by OpenAI, or a server that copies it, such as those around Whisper: an HTTP request for each utterance, cut here.
//!
//! Utterances go out as 16-bit WAVE at 16 kHz, which every such server reads. What such models make of silence ("[BLANK_AUDIO]") is
//! left out. Source: the official SDK's types.

pub mod double;

use super::{
    Descriptor, Engine, Stt, SttError,
    whole::{self, Recognised, Unheard},
};
use crate::{
    audio::{codec, wav},
    base::{format::Encoding, secret::Secret, settings::Section},
    net::client::HttpClient,
    speech::{
        EarSpec, Hearing,
        link::{LinkError, Service},
    },
    wire::json,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::{HeaderValue, header};
use serde::Deserialize;
use std::{fmt, rc::Rc, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "openai",
    read: |section| Arc::new(OpenAi(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Transcriptions::new(key))),
};

/// Samples a second of what is sent.
const RATE: u32 = 16_000;

/// Bytes of a reply.
const MOST: usize = 256 * 1024;

/// Characters of phrases that are told to the model as words to expect.
const PROMPT: usize = 600;

/// `[speech.stt.openai]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    model: String,
    /// How long it may take over an utterance.
    answer: Duration,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let s = Duration::from_secs;
        Self {
            service: Service::read_http(section, "OpenAI", "https://api.openai.com/v1"),
            model: section.text("model", "gpt-transcribe"),
            answer: section.duration("answer", s(10), Duration::from_millis(100)..=s(60)),
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
        let service = &self.0.service;
        service
            .is_at("api.openai.com")
            .then(|| service.lacks_key("OPENAI_API_KEY"))
            .flatten()
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let service = self.0.service.with_key(key);
        Some(Arc::new(OpenAi(Arc::new(Config {
            service,
            ..(*self.0).clone()
        }))))
    }

    fn open(&self) -> Rc<dyn Stt> {
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

impl Stt for Lane {
    fn rate(&self, ring: u32) -> u32 {
        ring.min(RATE)
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            let recognise = |samples: Vec<i16>| {
                async move {
                    match self.transcribe(spec, &samples).await {
                        Ok(text) if is_silence(&text) => Err(Unheard::Dropped("no_words")),
                        Ok(text) => Ok(Recognised { text, language: None }),
                        Err(error) => Err(Unheard::Again(error.into())),
                    }
                }
                .boxed_local()
            };
            whole::session(hearing, RATE, recognise).await
        }
        .boxed_local()
    }
}

/// Whether a model's text says that there was nothing to hear.
fn is_silence(text: &str) -> bool {
    let within = |open, close| text.starts_with(open) && text.ends_with(close);
    text.is_empty() || within('[', ']') || within('(', ')')
}

#[derive(Deserialize)]
struct Reply {
    text: String,
}

impl Lane {
    async fn transcribe(&self, spec: &EarSpec, samples: &[i16]) -> Result<String, LinkError> {
        let Config { service, model, answer } = &*self.config;
        let mut fields = vec![("model", model.clone()), ("response_format", "json".to_owned())];
        let language = spec.language.split(['-', '_']).next().unwrap_or_default();
        if !language.is_empty() && language != "auto" {
            fields.push(("language", language.to_owned()));
        }
        let prompt: String = spec.phrases.join(", ").chars().take(PROMPT).collect();
        if !prompt.is_empty() {
            fields.push(("prompt", prompt));
        }
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        let body = form(&boundary, &fields, samples);
        let mut headers = service.credential_if_any(header::AUTHORIZATION, "Bearer ")?;
        if let Ok(value) = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        let by = Instant::now() + *answer;
        let mut reply = service
            .post(&self.client, "/audio/transcriptions", headers, body.into(), *answer)
            .await?;
        let mut text = Vec::new();
        loop {
            let piece = timeout_at(by, reply.next())
                .await
                .map_err(|_| service.late("words", *answer))?;
            match piece.map_err(|e| service.broken(&e))? {
                Some(piece) => text.extend_from_slice(&piece),
                None => break,
            }
            if text.len() > MOST {
                return Err(service.strange("a reply without end"));
            }
        }
        let reply: Reply = json::read(&text).map_err(|_| service.strange("a reply that is no transcription"))?;
        service.works();
        Ok(reply.text.trim().to_owned())
    }
}

/// A `multipart/form-data` body (RFC 7578) of text fields and the audio.
fn form(boundary: &str, fields: &[(&str, String)], samples: &[i16]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = "content-disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\ncontent-type: audio/wav";
    body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
    let mut bytes = vec![0; samples.len() * 2];
    codec::encode(Encoding::L16Le, samples, &mut bytes);
    body.extend_from_slice(&wav::header(RATE, 1, bytes.len() as u32));
    body.extend_from_slice(&bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_makes_of_silence_is_no_words() {
        for text in ["", "[BLANK_AUDIO]", "(wind blowing)"] {
            assert!(is_silence(text), "{text}");
        }
        assert!(!is_silence("yes (I think)") && !is_silence("Hello."));
    }
}
