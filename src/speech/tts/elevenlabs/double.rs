//! A stand-in for ElevenLabs' synthesis over a WebSocket: speaks words as tones (see [`crate::speech::tts::fake`]).

use super::FORMATS;
use crate::{
    base::format::AudioFormat,
    speech::double::{Answer, Conversation, Double, Said, parameter, says, spoken, wrong_members, wrong_query},
    wire::base64,
};
use http::request::Parts;
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
    fn answer(&self, head: &Parts, _: &[u8]) -> Answer {
        if !says(head, "xi-api-key", &self.key) {
            return Answer::refuse(401, "invalid_api_key");
        }
        let path = head.uri.path().strip_prefix("/v1/text-to-speech/");
        let voice = path.and_then(|p| p.strip_suffix("/stream-input"));
        if voice.is_none_or(|v| v.is_empty() || v.contains('/')) {
            return Answer::refuse(404, "no such path");
        }
        let optional = [
            "language_code",
            "inactivity_timeout",
            "sync_alignment",
            "enable_ssml_parsing",
            "seed",
        ];
        if let Some(wrong) = wrong_query(head, &["model_id", "output_format", "auto_mode"], &optional) {
            return Answer::refuse(400, &wrong);
        }
        let name = parameter(head, "output_format");
        let Some((_, format)) = FORMATS.iter().find(|(word, _)| *word == name) else {
            return Answer::refuse(400, "unsupported output_format");
        };
        if parameter(head, "auto_mode") != "true" {
            return Answer::refuse(400, "auto_mode is true or false, and true here");
        }
        let format = *format;
        Answer::Socket(Box::new(Live { format, opened: false }))
    }
}

/// A session.
struct Live {
    format: AudioFormat,
    opened: bool,
}

impl Conversation for Live {
    fn hear(&mut self, message: Message) -> Vec<Said> {
        let complain = |why: &str| {
            let error = json!({ "message": why, "error": "invalid_message", "code": 1008 });
            vec![Said::json(&error), Said::Close(1008, why.to_owned())]
        };
        let Message::Text(text) = message else {
            return complain("a binary message");
        };
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let optional: &[&str] = match self.opened {
            false => &["voice_settings", "generation_config"],
            true => &["flush", "try_trigger_generation"],
        };
        if let Some(wrong) = wrong_members(&value, &["text"], optional) {
            return complain(&wrong);
        }
        let text = value["text"].as_str().unwrap_or_default();
        if !std::mem::replace(&mut self.opened, true) {
            return if text == " " {
                Vec::new()
            } else {
                complain("the first text is a space")
            };
        }
        if text.is_empty() {
            return vec![
                Said::json(&json!({ "isFinal": true })),
                Said::Close(1000, String::new()),
            ];
        }
        if !text.ends_with(' ') {
            return complain("a text ends with a space");
        }
        let audio = spoken(text, self.format);
        let pieces = audio.chunks(self.format.bytes_of_ms(100));
        let said = pieces.map(|piece| {
            Said::json(&json!({
                "audio": base64::encode_string(piece), "isFinal": null, "normalizedAlignment": null,
                "alignment": { "chars": ["x"], "charStartTimesMs": [0], "charsDurationsMs": [100] },
            }))
        });
        said.collect()
    }
}
