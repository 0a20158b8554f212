//! Recognition by ElevenLabs, live over a WebSocket. Takes μ-law as it is; tells no times, so those of its words are those of the audio
//! between what it committed before and now.
//!
//! Source: ElevenLabs' AsyncAPI description and the official SDK's types.

pub mod double;

use super::{
    Descriptor, Engine, Stt, SttError,
    live::{self, Dialect, Heard, Patience, Trouble, Words},
};
use crate::{
    audio::codec,
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    net::dial::Dialer,
    speech::{
        EarSpec, Hearing,
        link::{LinkError, Service, with_query},
    },
    wire::{base64, json},
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::HeaderName;
use serde::Deserialize;
use std::{fmt, rc::Rc, sync::Arc, time::Duration};
use tokio_tungstenite::tungstenite::Message;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "elevenlabs",
    read: |section| Arc::new(ElevenLabs(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Listen::new(key))),
};

/// Without audio for this long a session is kept alive, with silence.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// `[speech.stt.elevenlabs]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    model: String,
    /// Silence after which the service commits to what it heard.
    endpointing: Duration,
    answer: Duration,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            service: Service::read(section, "ElevenLabs", "https://api.elevenlabs.io"),
            model: section.text("model", "scribe_v2_realtime"),
            endpointing: section.duration("endpointing", ms(500), ms(300)..=s(3)),
            answer: section.duration("answer", s(8), Duration::ZERO..=s(60)),
        }
    }

    fn path(&self, spec: &EarSpec, format: AudioFormat) -> String {
        let mut query = vec![
            ("model_id", self.model.clone()),
            ("audio_format", name(format)),
            ("commit_strategy", "vad".to_owned()),
            (
                "vad_silence_threshold_secs",
                format!("{:.2}", self.endpointing.as_secs_f64()),
            ),
        ];
        let language = spec.language.split(['-', '_']).next().unwrap_or_default();
        if !language.is_empty() && language != "auto" {
            query.push(("language_code", language.to_owned()));
        }
        with_query("/v1/speech-to-text/realtime", &query)
    }
}

/// The service's word for a format.
fn name(format: AudioFormat) -> String {
    let encoding = if format.encoding == Encoding::Ulaw {
        "ulaw"
    } else {
        "pcm"
    };
    format!("{encoding}_{}", format.rate)
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

    fn open(&self) -> Rc<dyn Stt> {
        Rc::new(Lane {
            config: Arc::clone(&self.0),
            dialer: Dialer::default(),
        })
    }
}

/// The engine on a lane.
struct Lane {
    config: Arc<Config>,
    dialer: Dialer,
}

impl Stt for Lane {
    fn rate(&self, ring: u32) -> u32 {
        ring
    }

    fn takes(&self, encoding: Encoding) -> bool {
        encoding == Encoding::Ulaw
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            let (config, format) = (&*self.config, hearing.format());
            let headers = config.service.credential(HeaderName::from_static("xi-api-key"), "")?;
            let patience = Patience {
                keep_alive: KEEP_ALIVE,
                answer: config.answer,
            };
            let path = config.path(spec, format);
            let mut dialect = Chunks {
                format,
                finished: false,
            };
            live::session(
                &config.service,
                &self.dialer,
                &path,
                headers,
                patience,
                &mut dialect,
                hearing,
            )
            .await
        }
        .boxed_local()
    }

    fn warm(&self, spec: &EarSpec, format: AudioFormat) {
        let service = &self.config.service;
        let headers = service.credential(HeaderName::from_static("xi-api-key"), "");
        let path = self.config.path(spec, format);
        let finished = false;
        let keep_alive = Chunks { format, finished }.keep_alive();
        live::open_ahead(service, &self.dialer, path, headers, KEEP_ALIVE, keep_alive);
    }
}

#[derive(Deserialize)]
struct Event {
    message_type: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    error: String,
}

/// One session.
struct Chunks {
    format: AudioFormat,
    finished: bool,
}

impl Chunks {
    fn chunk(&self, bytes: &[u8], commit: bool) -> Message {
        let audio = base64::encode_string(bytes);
        let rate = self.format.rate;
        Message::text(format!(
            r#"{{"message_type":"input_audio_chunk","audio_base_64":"{audio}","commit":{commit},"sample_rate":{rate}}}"#
        ))
    }
}

impl Dialect for Chunks {
    fn audio(&mut self, bytes: Vec<u8>) -> Message {
        self.chunk(&bytes, false)
    }

    fn keep_alive(&mut self) -> Option<(Message, u64)> {
        let samples = self.format.samples_of_ms(100);
        let silence = vec![codec::silence(self.format.encoding); self.format.encoding.bytes(samples)];
        Some((self.chunk(&silence, false), samples as u64))
    }

    fn finish(&mut self) -> Option<Message> {
        self.finished = true;
        Some(self.chunk(&[], true))
    }

    fn read(&mut self, text: &str, heard: &mut Vec<Heard>) -> Result<(), Trouble> {
        let event: Event =
            json::read(text.as_bytes()).map_err(|_| Trouble::Strange("JSON that is none of its messages"))?;
        let text = event.text.trim();
        let words = (!text.is_empty()).then(|| Words {
            text: text.to_owned(),
            confidence: None,
            language: None,
            times: None,
        });
        match event.message_type.as_str() {
            "partial_transcript" => heard.extend(words.map(Heard::Interim)),
            "committed_transcript" => {
                heard.extend(words.map(Heard::Final));
                heard.push(Heard::Settled(None));
                if self.finished {
                    heard.push(Heard::Over);
                }
            }
            "auth_error" | "quota_exceeded" | "unaccepted_terms" => {
                let message = format!("ElevenLabs refused ({}): {}", event.message_type, event.error);
                return Err(Trouble::Failed(LinkError::Refused(message)));
            }
            // Asked for too soon after the last one: what was said comes with the next.
            "commit_throttled" => {}
            kind if !event.error.is_empty() || kind.ends_with("error") => {
                let message = format!("ElevenLabs broke off ({kind}): {}", event.error);
                return Err(Trouble::Failed(LinkError::Lost(message)));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_told_and_errors_are_what_they_mean() {
        let format = AudioFormat {
            encoding: Encoding::Ulaw,
            rate: 8000,
        };
        let mut chunks = Chunks {
            format,
            finished: false,
        };
        let mut heard = Vec::new();
        let mut read = |text: &str, heard: &mut Vec<Heard>| chunks.read(text, heard);
        for text in [
            r#"{"message_type":"session_started","session_id":"s","config":{}}"#,
            r#"{"message_type":"partial_transcript","text":" Hello"}"#,
            r#"{"message_type":"committed_transcript","text":"Hello there."}"#,
            r#"{"message_type":"commit_throttled","error":"slow"}"#,
            r#"{"message_type":"news","x":1}"#,
        ] {
            assert_eq!(read(text, &mut heard), Ok(()), "{text}");
        }
        let [Heard::Interim(interim), Heard::Final(words), Heard::Settled(None)] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!((interim.text.as_str(), words.text.as_str()), ("Hello", "Hello there."));
        let refused = read(r#"{"message_type":"quota_exceeded","error":"none left"}"#, &mut heard);
        assert!(matches!(refused, Err(Trouble::Failed(LinkError::Refused(_)))));
        let lost = read(r#"{"message_type":"transcriber_error","error":"x"}"#, &mut heard);
        assert!(matches!(lost, Err(Trouble::Failed(LinkError::Lost(_)))));
        assert!(matches!(read("}", &mut heard), Err(Trouble::Strange(_))));
    }
}
