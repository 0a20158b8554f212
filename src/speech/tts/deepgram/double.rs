//! A stand-in for Deepgram's synthesis over a WebSocket: speaks words as tones (see [`crate::speech::tts::fake`]).

use crate::{
    base::format::{AudioFormat, Encoding},
    speech::{
        double::{Answer, Conversation, Double, Said, parameter, says, spoken, wrong_members, wrong_query},
        tts::stream::ENCODINGS,
    },
};
use http::{Method, request::Parts};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The service.
#[derive(Debug)]
pub struct Speak {
    key: String,
}

impl Speak {
    /// A service that accepts this key.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }
}

impl Double for Speak {
    fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        if !says(head, "authorization", &format!("Token {}", self.key)) {
            return Answer::refuse(401, "Invalid credentials.");
        }
        let flux = match head.uri.path() {
            "/v1/speak" => false,
            "/v2/speak" => true,
            _ => return Answer::refuse(404, "no such path"),
        };
        let rest = head.method == Method::POST;
        let required: &[&str] = match rest {
            true => &["model", "encoding", "sample_rate", "container"],
            false => &["model", "encoding", "sample_rate"],
        };
        if rest && flux {
            return Answer::refuse(404, "no such path");
        }
        if let Some(wrong) = wrong_query(head, required, &["speed", "mip_opt_out"]) {
            return Answer::refuse(400, &wrong);
        }
        let model = parameter(head, "model");
        if !model.starts_with(if flux { "flux-" } else { "aura-" }) {
            return Answer::refuse(400, "no such model here");
        }
        let name = parameter(head, "encoding");
        let Some((_, encoding)) = ENCODINGS.iter().find(|(word, _)| *word == name) else {
            return Answer::refuse(400, "unsupported encoding");
        };
        let rate = parameter(head, "sample_rate").parse().unwrap_or_default();
        let g711 = *encoding != Encoding::L16Le;
        if ![8000, 16_000, 24_000, 32_000, 48_000].contains(&rate) || (g711 && rate > 16_000) {
            return Answer::refuse(400, "unsupported sample_rate");
        }
        let encoding = *encoding;
        if rest {
            return post(head, body, AudioFormat { encoding, rate });
        }
        Answer::Socket(Box::new(Live {
            flux,
            format: AudioFormat { encoding, rate },
            text: String::new(),
            flushed: 0,
        }))
    }
}

/// A text in one request. Raw audio has no header only where no container is asked for.
fn post(head: &Parts, body: &[u8], format: AudioFormat) -> Answer {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = value["text"].as_str().unwrap_or_default();
    let wrong = match () {
        () if parameter(head, "container") != "none" => Some("a header would be heard".to_owned()),
        () if !says(head, "content-type", "application/json") => Some("no JSON".to_owned()),
        () if text.is_empty() || text.chars().count() > 2000 => Some("no text, or too much".to_owned()),
        () => wrong_members(&value, &["text"], &[]),
    };
    match wrong {
        Some(wrong) => Answer::refuse(400, &wrong),
        None => Answer::Reply {
            status: 200,
            content_type: "audio/l16",
            body: spoken(text, format),
        },
    }
}

/// A session.
struct Live {
    flux: bool,
    format: AudioFormat,
    text: String,
    flushed: u32,
}

impl Conversation for Live {
    fn open(&mut self) -> Vec<Said> {
        let (kind, model) = match self.flux {
            true => ("Connected", ("model_uuids", json!(["u"]))),
            false => ("Metadata", ("model_uuid", json!("u"))),
        };
        vec![Said::json(&json!({
            "type": kind, "request_id": "r", "model_name": "m", "model_version": "1", model.0: model.1,
        }))]
    }

    fn hear(&mut self, message: Message) -> Vec<Said> {
        let complain = |why: &str| vec![Said::Close(1008, format!("DATA-0000: {why}"))];
        let Message::Text(text) = message else {
            return complain("a binary message");
        };
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let kind = value["type"].as_str().unwrap_or_default();
        let members: &[&str] = if kind == "Speak" { &["type", "text"] } else { &["type"] };
        if let Some(wrong) = wrong_members(&value, members, &[]) {
            return complain(&wrong);
        }
        match kind {
            "Speak" => {
                let text = value["text"].as_str().unwrap_or_default();
                if text.is_empty() || text.chars().count() > 2000 {
                    return complain("no text, or too much");
                }
                self.text += text;
                Vec::new()
            }
            "Flush" => {
                let audio = spoken(&std::mem::take(&mut self.text), self.format);
                let pieces = audio.chunks(self.format.bytes_of_ms(100));
                let mut said: Vec<_> = pieces.map(|p| Said::Message(Message::binary(p.to_vec()))).collect();
                let flushed = json!({ "type": "Flushed", "sequence_id": self.flushed });
                self.flushed += 1;
                if self.flux {
                    said.insert(0, Said::json(&json!({ "type": "SpeechStarted", "speech_id": "s" })));
                    said.insert(1, Said::json(&json!({ "type": "Flushed", "speech_id": "s" })));
                    let ms = audio.len() / self.format.bytes_of_ms(1).max(1);
                    said.push(Said::json(&json!({
                        "type": "SpeechMetadata", "speech_id": "s", "audio_duration_ms": ms,
                        "input_character_count": 1, "billable_character_count": 1,
                        "controls_applied": { "pronunciations_applied": 0, "breaks_applied": 0, "pronunciation_warnings": 0 },
                    })));
                } else {
                    said.push(Said::json(&flushed));
                }
                said
            }
            "Clear" if !self.flux => {
                self.text.clear();
                vec![Said::json(&json!({ "type": "Cleared", "sequence_id": self.flushed }))]
            }
            "Close" => vec![Said::Close(1000, String::new())],
            other => complain(&format!("unknown type {other}")),
        }
    }
}
