//! `/v2/listen` (Flux): turns of the caller, which the model itself finds. Pure.
//!
//! An `Update` replaces what the turn's transcript was; `EndOfTurn` makes it final. There is no message that keeps a session alive:
//! silence is sent instead.

use crate::{
    audio::codec,
    base::format::{AudioFormat, Encoding},
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
    TurnInfo(Turn),
    Error {
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Turn {
    event: String,
    #[serde(default)]
    audio_window_start: f64,
    #[serde(default)]
    audio_window_end: f64,
    #[serde(default)]
    transcript: String,
    #[serde(default)]
    words: Vec<Word>,
    #[serde(default)]
    languages: Vec<String>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    confidence: f64,
    start: Option<f64>,
    end: Option<f64>,
}

/// The turns of one session.
pub(super) struct Turns(AudioFormat);

impl Turns {
    pub(super) const fn new(format: AudioFormat) -> Self {
        Self(format)
    }
}

fn words(turn: Turn) -> Option<Words> {
    let text = turn.transcript.trim();
    let least = turn.words.iter().map(|w| w.confidence).reduce(f64::min);
    let from = turn
        .words
        .first()
        .and_then(|w| w.start)
        .unwrap_or(turn.audio_window_start);
    let to = turn.words.last().and_then(|w| w.end).unwrap_or(turn.audio_window_end);
    (!text.is_empty()).then(|| Words {
        text: text.to_owned(),
        confidence: least.map(|c| c.clamp(0.0, 1.0) as f32),
        language: turn.languages.into_iter().next(),
        times: Some((from, to)),
    })
}

impl Dialect for Turns {
    fn audio(&mut self, bytes: Vec<u8>) -> Message {
        Message::binary(bytes)
    }

    fn keep_alive(&mut self) -> Option<(Message, u64)> {
        let samples = self.0.samples_of_ms(80);
        let silence = match self.0.encoding {
            law @ (Encoding::Ulaw | Encoding::Alaw) => codec::silence(law),
            _ => 0,
        };
        let bytes = vec![silence; self.0.encoding.bytes(samples)];
        Some((Message::binary(bytes), samples as u64))
    }

    fn finish(&mut self) -> Option<Message> {
        Some(Message::text(r#"{"type":"CloseStream"}"#))
    }

    fn read(&mut self, text: &str, heard: &mut Vec<Heard>) -> Result<(), Trouble> {
        let event = json::read(text.as_bytes()).map_err(|_| Trouble::Strange("JSON that is none of its messages"))?;
        match event {
            Event::TurnInfo(turn) => {
                let end = turn.audio_window_end;
                match turn.event.as_str() {
                    "StartOfTurn" => heard.push(Heard::Started),
                    "Update" | "EagerEndOfTurn" | "TurnResumed" => {
                        heard.extend(words(turn).map(Heard::Interim));
                    }
                    "EndOfTurn" => {
                        heard.extend(words(turn).map(Heard::Final));
                        heard.push(Heard::Settled(Some(end)));
                    }
                    _ => {}
                }
                Ok(())
            }
            Event::Error { description } => {
                let message = format!("Deepgram broke off: {description}");
                Err(Trouble::Failed(LinkError::Lost(message)))
            }
            Event::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_told_once_at_its_end() {
        let mut turns = Turns::new(AudioFormat {
            encoding: Encoding::Ulaw,
            rate: 8000,
        });
        let mut heard = Vec::new();
        for line in include_str!("testdata/flux.jsonl").lines() {
            turns.read(line, &mut heard).unwrap();
        }
        let words = |text: &str, confidence| Words {
            text: text.to_owned(),
            confidence: Some(confidence),
            language: None,
            times: Some((0.9, 1.4)),
        };
        assert_eq!(
            heard,
            [
                Heard::Started,
                Heard::Interim(words("hello", 0.7)),
                Heard::Interim(words("Hello?", 0.8)),
                Heard::Final(words("Hello?", 0.9)),
                Heard::Settled(Some(2.0)),
            ]
        );
        let Some((Message::Binary(silence), samples)) = turns.keep_alive() else {
            panic!("silence keeps a session alive")
        };
        assert!(silence.len() as u64 == samples && silence.iter().all(|b| *b == 0xff));
    }
}
