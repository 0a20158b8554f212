//! A stand-in for a Vosk server: transcribes bursts of tone (see [`crate::speech::stt::fake`]), one reply for each message of audio.

use crate::{
    audio::codec,
    base::format::Encoding,
    speech::{
        double::{Answer, Conversation, Double, Said, wrong_members},
        stt::fake::{Bursts, Found, words},
    },
};
use http::request::Parts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The server, which knows no keys.
#[derive(Debug)]
pub struct Server;

impl Double for Server {
    fn answer(&self, head: &Parts, _: &[u8]) -> Answer {
        if head.uri.path() != "/" {
            return Answer::refuse(404, "no such path");
        }
        Answer::Socket(Box::new(Live {
            rate: 8000,
            bursts: Bursts::new(8000),
            heard: false,
        }))
    }
}

struct Live {
    rate: u32,
    bursts: Bursts,
    /// Whether audio has come: the configuration is due before.
    heard: bool,
}

impl Live {
    fn reply(&self, found: &[Found]) -> Said {
        let seconds = |n: u64| n as f64 / f64::from(self.rate);
        let mut partial = String::new();
        for found in found {
            match found {
                Found::Ended(b) => {
                    let word =
                        json!({ "conf": 0.99, "start": seconds(b.from), "end": seconds(b.to), "word": words(b.hz) });
                    return Said::json(&json!({ "result": [word], "text": words(b.hz) }));
                }
                Found::Going(b) => partial = words(b.hz),
                Found::Began { .. } => {}
            }
        }
        Said::json(&json!({ "partial": partial }))
    }
}

impl Conversation for Live {
    fn hear(&mut self, message: Message) -> Vec<Said> {
        let complain = |why: &str| vec![Said::Close(1011, why.to_owned())];
        let mut found = Vec::new();
        match message {
            Message::Text(text) if text.as_str() == r#"{"eof" : 1}"# => {
                self.bursts.finish(|f| found.push(f));
                let last = match self.reply(&found) {
                    Said::Message(m) if m.to_text().is_ok_and(|t| t.contains("partial")) => {
                        Said::json(&json!({ "text": "" }))
                    }
                    said => said,
                };
                vec![last, Said::Close(1000, String::new())]
            }
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap_or_default();
                let optional = ["words", "max_alternatives", "phrase_list"];
                let wrong = wrong_members(&value, &["config"], &[])
                    .or_else(|| wrong_members(&value["config"], &["sample_rate"], &optional));
                let rate = value["config"]["sample_rate"]
                    .as_u64()
                    .filter(|r| (8000..=48_000).contains(r));
                match (wrong, rate) {
                    (None, Some(rate)) if !self.heard => {
                        self.rate = rate as u32;
                        self.bursts = Bursts::new(self.rate);
                        Vec::new()
                    }
                    (wrong, _) => complain(&wrong.unwrap_or_else(|| "no rate, or too late".to_owned())),
                }
            }
            Message::Binary(bytes) => {
                self.heard = true;
                let mut samples = vec![0; bytes.len() / 2];
                let Ok(n) = codec::decode(Encoding::L16Le, &bytes, &mut samples) else {
                    return complain("half a sample");
                };
                self.bursts.push(&samples[..n], |f| found.push(f));
                vec![self.reply(&found)]
            }
            _ => Vec::new(),
        }
    }
}
