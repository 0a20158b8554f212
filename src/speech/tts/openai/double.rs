//! A stand-in for OpenAI's synthesis: speaks words as tones (see [`crate::speech::tts::fake`]).

use super::FORMAT;
use crate::speech::double::{Answer, Double, says, spoken, wrong_members};
use http::request::Parts;
use serde_json::Value;

/// The service.
#[derive(Debug)]
pub struct Speech {
    key: String,
}

impl Speech {
    /// A service that accepts this key.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }
}

impl Double for Speech {
    fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        if !says(head, "authorization", &format!("Bearer {}", self.key)) {
            return Answer::refuse(401, "Incorrect API key provided.");
        }
        if !head.uri.path().ends_with("/audio/speech") || head.method != http::Method::POST {
            return Answer::refuse(404, "no such path");
        }
        if !says(head, "content-type", "application/json") {
            return Answer::refuse(400, "not JSON");
        }
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let optional = ["response_format", "instructions", "speed", "stream_format"];
        if let Some(wrong) = wrong_members(&value, &["model", "input", "voice"], &optional) {
            return Answer::refuse(400, &wrong);
        }
        let input = value["input"].as_str().unwrap_or_default();
        if value["response_format"] != "pcm" || input.is_empty() || input.chars().count() > 4096 {
            return Answer::refuse(400, "only pcm here, and 1 to 4096 characters");
        }
        Answer::Reply {
            status: 200,
            content_type: "audio/pcm",
            body: spoken(input, FORMAT),
        }
    }
}
