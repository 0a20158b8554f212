//! `/v1/listen`: slices of transcript, gathered to utterances. Pure.
//!
//! A slice that `is_final` will not change and is appended to the utterance; `speech_final` or `UtteranceEnd` ends it.

use crate::{
    speech::{
        link::LinkError,
        stt::live::{Dialect, Heard, Trouble, Words},
    },
    wire::json,
};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Message;

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Event {
    Results(Results),
    SpeechStarted {},
    UtteranceEnd {},
    Metadata {},
    Error {
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    start: f64,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    speech_final: bool,
    #[serde(default)]
    from_finalize: bool,
    channel: Channel,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Alternative {
    transcript: String,
    confidence: f64,
    languages: Vec<String>,
    words: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    start: f64,
    #[serde(default)]
    end: f64,
}

/// The utterance in progress.
#[derive(Default)]
pub(super) struct Slices {
    words: Option<Words>,
    /// Up to where slices are final, in seconds of audio.
    end: f64,
    /// Whether the audio is over.
    finished: bool,
}

/// `more` behind `words`. Confidence is that of the less certain part.
fn join(words: Option<&Words>, more: Words) -> Words {
    let Some(words) = words else { return more };
    let times = words.times.zip(more.times);
    Words {
        text: format!("{} {}", words.text, more.text),
        confidence: match (words.confidence, more.confidence) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        language: words.language.clone().or(more.language),
        times: times.map(|((from, _), (_, to))| (from, to)),
    }
}

impl Slices {
    fn end_utterance(&mut self, heard: &mut Vec<Heard>) {
        heard.extend(self.words.take().map(Heard::Final));
        heard.push(Heard::Settled(Some(self.end)));
    }

    fn results(&mut self, results: Results, heard: &mut Vec<Heard>) {
        let end = results.start + results.duration;
        let best = results.channel.alternatives.into_iter().next().unwrap_or_default();
        let text = best.transcript.trim();
        let words = (!text.is_empty()).then(|| Words {
            text: text.to_owned(),
            confidence: Some(best.confidence.clamp(0.0, 1.0) as f32),
            language: best.languages.into_iter().next(),
            times: Some((
                best.words.first().map_or(results.start, |w| w.start),
                best.words.last().map_or(end, |w| w.end),
            )),
        });
        if !results.is_final {
            heard.extend(words.map(|w| Heard::Interim(join(self.words.as_ref(), w))));
            return;
        }
        self.end = self.end.max(end);
        let is_new = words.is_some();
        if let Some(words) = words {
            self.words = Some(join(self.words.take().as_ref(), words));
        }
        if results.speech_final || results.from_finalize || self.words.is_none() {
            self.end_utterance(heard);
        } else if is_new {
            heard.extend(self.words.clone().map(Heard::Interim));
        }
    }
}

impl Dialect for Slices {
    fn audio(&mut self, bytes: Vec<u8>) -> Message {
        Message::binary(bytes)
    }

    fn keep_alive(&mut self) -> Option<(Message, u64)> {
        Some((Message::text(r#"{"type":"KeepAlive"}"#), 0))
    }

    fn finish(&mut self) -> Option<Message> {
        self.finished = true;
        Some(Message::text(r#"{"type":"CloseStream"}"#))
    }

    fn read(&mut self, text: &str, heard: &mut Vec<Heard>) -> Result<(), Trouble> {
        match json::read(text.as_bytes()).map_err(|_| Trouble::Strange("JSON that is none of its messages"))? {
            Event::Results(results) => self.results(results, heard),
            Event::SpeechStarted {} => heard.push(Heard::Started),
            Event::UtteranceEnd {} if self.words.is_some() => self.end_utterance(heard),
            Event::Metadata {} if self.finished => {
                self.rest(heard);
                heard.push(Heard::Over);
            }
            Event::Error { description } => {
                let message = format!("Deepgram broke off: {description}");
                return Err(Trouble::Failed(LinkError::Lost(message)));
            }
            Event::UtteranceEnd {} | Event::Metadata {} | Event::Other => {}
        }
        Ok(())
    }

    fn rest(&mut self, heard: &mut Vec<Heard>) {
        if self.words.is_some() {
            self.end_utterance(heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a conversation recorded in `testdata` is heard as.
    fn replay(lines: &str) -> Vec<Heard> {
        let (mut slices, mut heard) = (Slices::default(), Vec::new());
        for line in lines.lines().filter(|l| !l.is_empty()) {
            slices.read(line, &mut heard).unwrap();
        }
        slices.rest(&mut heard);
        heard
    }

    #[test]
    fn slices_become_utterances_once() {
        let heard = replay(include_str!("testdata/nova.jsonl"));
        let words = |text: &str, confidence: f32, times| Words {
            text: text.to_owned(),
            confidence: Some(confidence),
            language: Some("en".to_owned()),
            times: Some(times),
        };
        assert_eq!(
            heard,
            [
                Heard::Settled(Some(1.92)),
                Heard::Started,
                Heard::Interim(words("Hello", 0.81, (1.98, 2.3))),
                Heard::Interim(words("Hello, I need", 0.97, (1.98, 2.9))),
                Heard::Interim(words("Hello, I need help", 0.9, (1.98, 3.3))),
                Heard::Final(words("Hello, I need help.", 0.97, (1.98, 3.42))),
                Heard::Settled(Some(4.1)),
                Heard::Interim(words("Goodbye.", 0.99, (4.5, 5.0))),
                Heard::Final(words("Goodbye.", 0.99, (4.5, 5.0))),
                Heard::Settled(Some(5.0)),
            ]
        );
    }

    #[test]
    fn what_is_no_message_is_strange_and_what_is_new_is_ignored() {
        let mut slices = Slices::default();
        let mut heard = Vec::new();
        for text in ["", "{", "[]", r#"{"type":"Results"}"#, "null"] {
            assert!(
                matches!(slices.read(text, &mut heard), Err(Trouble::Strange(_))),
                "{text}"
            );
        }
        assert_eq!(slices.read(r#"{"type":"Sentiment","x":1}"#, &mut heard), Ok(()));
        assert!(heard.is_empty());
        let failed = slices.read(r#"{"type":"Error","description":"no","variant":"X"}"#, &mut heard);
        assert!(matches!(failed, Err(Trouble::Failed(LinkError::Lost(m))) if m.contains("no")));
    }
}
