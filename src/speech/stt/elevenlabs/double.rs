//! A stand-in for ElevenLabs' live recognition: transcribes bursts of tone (see [`crate::speech::stt::fake`]).

use crate::{
    audio::codec,
    base::format::Encoding,
    speech::{
        double::{Answer, Conversation, Double, Said, parameter, says, wrong_members, wrong_query},
        stt::fake::{Bursts, Found, words},
    },
    wire::base64,
};
use http::request::Parts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The largest chunk, in bytes.
const MOST: usize = 1 << 20;

/// The service.
#[derive(Debug)]
pub struct Listen {
    key: String,
}

impl Listen {
    /// A service that accepts this key.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }
}

impl Double for Listen {
    fn answer(&self, head: &Parts, _: &[u8]) -> Answer {
        if !says(head, "xi-api-key", &self.key) {
            return Answer::refuse(401, "invalid_api_key");
        }
        if head.uri.path() != "/v1/speech-to-text/realtime" {
            return Answer::refuse(404, "no such path");
        }
        let optional = ["commit_strategy", "language_code", "vad_silence_threshold_secs"];
        if let Some(wrong) = wrong_query(head, &["model_id", "audio_format"], &optional) {
            return Answer::refuse(400, &wrong);
        }
        let silence: f64 = parameter(head, "vad_silence_threshold_secs").parse().unwrap_or(1.5);
        if !(0.3..=3.0).contains(&silence) {
            return Answer::refuse(400, "vad_silence_threshold_secs is 0.3 to 3.0");
        }
        let (encoding, rate) = match parameter(head, "audio_format").as_str() {
            "ulaw_8000" => (Encoding::Ulaw, 8000),
            "pcm_8000" => (Encoding::L16Le, 8000),
            "pcm_16000" => (Encoding::L16Le, 16_000),
            "pcm_24000" => (Encoding::L16Le, 24_000),
            "pcm_48000" => (Encoding::L16Le, 48_000),
            _ => return Answer::refuse(400, "unsupported audio_format"),
        };
        let bursts = Bursts::new(rate);
        Answer::Socket(Box::new(Live { encoding, rate, bursts }))
    }
}

struct Live {
    encoding: Encoding,
    rate: u32,
    bursts: Bursts,
}

impl Conversation for Live {
    fn open(&mut self) -> Vec<Said> {
        vec![Said::json(
            &json!({ "message_type": "session_started", "session_id": "s", "config": {} }),
        )]
    }

    fn hear(&mut self, message: Message) -> Vec<Said> {
        let complain = |why: &str| {
            let error = json!({ "message_type": "input_error", "error": why });
            vec![Said::json(&error), Said::Close(1008, why.to_owned())]
        };
        let Message::Text(text) = message else {
            return complain("a binary message");
        };
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let members = ["message_type", "audio_base_64", "commit", "sample_rate"];
        if let Some(wrong) = wrong_members(&value, &members, &["previous_text"]) {
            return complain(&wrong);
        }
        let Ok(bytes) = base64::decode_vec(value["audio_base_64"].as_str().unwrap_or("?").as_bytes(), MOST) else {
            return complain("audio that is not base64");
        };
        if value["message_type"] != "input_audio_chunk"
            || value["sample_rate"] != self.rate
            || !value["commit"].is_boolean()
        {
            return complain("another type, rate, or no commit");
        }
        let mut samples = vec![0; bytes.len() / self.encoding.sample_bytes()];
        let Ok(n) = codec::decode(self.encoding, &bytes, &mut samples) else {
            return complain("half a sample");
        };
        let (mut found, mut said) = (Vec::new(), Vec::new());
        self.bursts.push(&samples[..n], |f| found.push(f));
        let commit = value["commit"] == true;
        if commit {
            self.bursts.finish(|f| found.push(f));
        }
        for found in found {
            match found {
                Found::Began { .. } => {}
                Found::Going(b) => {
                    said.push(Said::json(
                        &json!({ "message_type": "partial_transcript", "text": words(b.hz) }),
                    ));
                }
                Found::Ended(b) => {
                    said.push(Said::json(
                        &json!({ "message_type": "committed_transcript", "text": words(b.hz) }),
                    ));
                }
            }
        }
        if commit && said.is_empty() {
            said.push(Said::json(
                &json!({ "message_type": "committed_transcript", "text": "" }),
            ));
        }
        said
    }
}
