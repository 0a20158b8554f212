//! Recognition by a Vosk server: one's own machine, any language that there is a model for, samples over a WebSocket.
//!
//! The server answers each message of audio with one of its own, which is how its answers are told apart. Source: the server's own code.

pub mod double;

use super::{
    Descriptor, Engine, Stt, SttError,
    live::{self, Dialect, Heard, Patience, Trouble, Words},
};
use crate::{
    base::settings::Section,
    net::dial::Dialer,
    speech::{EarSpec, Hearing, link::Service},
    wire::json,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::HeaderMap;
use serde::Deserialize;
use std::{collections::VecDeque, fmt, rc::Rc, sync::Arc, time::Duration};
use tokio_tungstenite::tungstenite::Message;

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "vosk",
    read: |section| Arc::new(Vosk(Arc::new(Config::read(section)))),
    double: Some(|_| Arc::new(double::Server)),
};

/// `[speech.stt.vosk]`.
#[derive(Debug)]
struct Config {
    service: Service,
    /// BCP 47 language of the model that the server has; empty where nobody should be refused.
    language: String,
    answer: Duration,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let s = Duration::from_secs;
        Self {
            service: Service::read_open(section, "Vosk", "ws://127.0.0.1:2700"),
            language: section.text("language", ""),
            answer: section.duration("answer", s(8), Duration::ZERO..=s(60)),
        }
    }
}

/// The configured engine.
struct Vosk(Arc<Config>);

impl fmt::Debug for Vosk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine for Vosk {
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
        ring.min(16_000)
    }

    fn accepts(&self, spec: &EarSpec) -> Result<(), SttError> {
        let primary = |tag: &str| tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
        let (own, wanted) = (primary(&self.config.language), primary(&spec.language));
        if own.is_empty() || wanted.is_empty() || wanted == "auto" || own == wanted {
            return Ok(());
        }
        Err(SttError::Refused(format!(
            "the Vosk server's model understands {}, not {}",
            self.config.language, spec.language
        )))
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            self.accepts(spec)?;
            let patience = Patience {
                keep_alive: Duration::from_secs(3600),
                answer: self.config.answer,
            };
            let mut dialect = Replies::new(hearing.rate(), spec, &self.config.language);
            let (service, dialer) = (&self.config.service, &self.dialer);
            live::session(service, dialer, "", HeaderMap::new(), patience, &mut dialect, hearing).await
        }
        .boxed_local()
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    partial: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    result: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    conf: f64,
    #[serde(default)]
    start: f64,
    #[serde(default)]
    end: f64,
}

/// One session.
struct Replies {
    rate: u32,
    /// A grammar, where nothing else is wanted.
    phrases: Vec<String>,
    language: Option<String>,
    /// Samples sent.
    sent: u64,
    /// Samples sent up to each message that is not answered yet.
    unanswered: VecDeque<u64>,
    /// Whether the end of the audio is one of them, the last.
    finished: bool,
}

impl Replies {
    fn new(rate: u32, spec: &EarSpec, language: &str) -> Self {
        let plain = |phrase: &String| {
            let words = phrase.split(|c: char| !c.is_alphanumeric() && c != '\'');
            words
                .filter(|w| !w.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
                .to_lowercase()
        };
        let mut phrases: Vec<String> = match spec.free_speech {
            true => Vec::new(),
            false => spec.phrases.iter().map(plain).filter(|p| !p.is_empty()).collect(),
        };
        if !phrases.is_empty() {
            phrases.push("[unk]".to_owned());
        }
        Self {
            rate,
            phrases,
            language: (!language.is_empty()).then(|| language.to_owned()),
            sent: 0,
            unanswered: VecDeque::new(),
            finished: false,
        }
    }
}

impl Dialect for Replies {
    fn open(&mut self) -> Option<Message> {
        let mut config = serde_json::json!({ "sample_rate": self.rate, "words": 1 });
        if !self.phrases.is_empty() {
            config["phrase_list"] = self.phrases.clone().into();
        }
        Some(Message::text(serde_json::json!({ "config": config }).to_string()))
    }

    fn audio(&mut self, bytes: Vec<u8>) -> Message {
        self.sent += bytes.len() as u64 / 2;
        self.unanswered.push_back(self.sent);
        Message::binary(bytes)
    }

    fn finish(&mut self) -> Option<Message> {
        self.finished = true;
        self.unanswered.push_back(self.sent);
        // The server compares the text, spaces included.
        Some(Message::text(r#"{"eof" : 1}"#))
    }

    fn read(&mut self, text: &str, heard: &mut Vec<Heard>) -> Result<(), Trouble> {
        let reply: Reply =
            json::read(text.as_bytes()).map_err(|_| Trouble::Strange("JSON that is none of its messages"))?;
        if reply.partial.is_none() && reply.text.is_none() {
            return Err(Trouble::Strange("a reply without text"));
        }
        let end = self.unanswered.pop_front().unwrap_or(self.sent) as f64 / f64::from(self.rate);
        let is_final = reply.text.is_some();
        let text = reply.text.or(reply.partial).unwrap_or_default();
        let said: Vec<&str> = text.split_whitespace().filter(|w| *w != "[unk]").collect();
        if !said.is_empty() {
            let sum: f64 = reply.result.iter().map(|w| w.conf).sum();
            let confidence =
                (!reply.result.is_empty()).then(|| (sum / reply.result.len() as f64).clamp(0.0, 1.0) as f32);
            let times = reply
                .result
                .first()
                .zip(reply.result.last())
                .map(|(a, b)| (a.start, b.end));
            let words = Words {
                text: said.join(" "),
                confidence,
                language: self.language.clone(),
                times,
            };
            heard.push(if is_final {
                Heard::Final(words)
            } else {
                Heard::Interim(words)
            });
        }
        if is_final {
            heard.push(Heard::Settled(Some(end)));
        }
        if self.finished && self.unanswered.is_empty() {
            heard.push(Heard::Over);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_the_audio_that_they_answer() {
        let spec = EarSpec {
            phrases: vec!["Yes, please!".to_owned(), "…".to_owned()],
            ..EarSpec::default()
        };
        let mut replies = Replies::new(8000, &spec, "en-US");
        let config = replies.open().unwrap().into_text().unwrap();
        assert_eq!(
            config.as_str(),
            r#"{"config":{"phrase_list":["yes please","[unk]"],"sample_rate":8000,"words":1}}"#
        );
        let mut heard = Vec::new();
        for _ in 0..3 {
            replies.audio(vec![0; 8000]);
        }
        replies.finish();
        for text in [
            r#"{"partial":"yes"}"#,
            r#"{"result":[{"conf":0.5,"start":0.2,"end":0.5,"word":"yes"},{"conf":1.0,"start":0.5,"end":0.9,"word":"please"}],"text":"yes please"}"#,
            r#"{"partial":""}"#,
            r#"{"text":"[unk]"}"#,
        ] {
            replies.read(text, &mut heard).unwrap();
        }
        let words = |text: &str, confidence, times| Words {
            text: text.to_owned(),
            confidence,
            language: Some("en-US".to_owned()),
            times,
        };
        assert_eq!(
            heard,
            [
                Heard::Interim(words("yes", None, None)),
                Heard::Final(words("yes please", Some(0.75), Some((0.2, 0.9)))),
                Heard::Settled(Some(1.0)),
                Heard::Settled(Some(1.5)),
                Heard::Over,
            ]
        );
        assert!(matches!(
            replies.read(r#"{"x":1}"#, &mut heard),
            Err(Trouble::Strange(_))
        ));
    }
}
