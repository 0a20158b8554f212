//! A stand-in for Deepgram's live recognition: transcribes bursts of tone (see [`crate::speech::stt::fake`]) in its words.

use crate::{
    audio::codec,
    base::format::Encoding,
    speech::{
        double::{Answer, Conversation, Double, Said, parameter, says, wrong_members, wrong_query},
        stt::fake::{Burst, Bursts, Found, words},
    },
};
use http::request::Parts;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Quiet after which an empty slice is told, in samples of a second.
const QUIET_S: f64 = 3.0;

const NOVA: &[&str] = &[
    "channels",
    "language",
    "interim_results",
    "punctuate",
    "vad_events",
    "endpointing",
    "utterance_end_ms",
    "smart_format",
    "version",
    "mip_opt_out",
    "keyterm*",
];
const FLUX: &[&str] = &[
    "language_hint*",
    "keyterm*",
    "mip_opt_out",
    "eot_threshold",
    "eager_eot_threshold",
    "eot_timeout_ms",
];

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
        if !says(head, "authorization", &format!("Token {}", self.key)) {
            return Answer::refuse(401, "Invalid credentials.");
        }
        let (flux, optional) = match head.uri.path() {
            "/v1/listen" => (false, NOVA),
            "/v2/listen" => (true, FLUX),
            _ => return Answer::refuse(404, "no such path"),
        };
        if let Some(wrong) = wrong_query(head, &["model", "encoding", "sample_rate"], optional) {
            return Answer::refuse(400, &wrong);
        }
        let encoding = match parameter(head, "encoding").as_str() {
            "linear16" => Encoding::L16Le,
            "mulaw" => Encoding::Ulaw,
            "alaw" => Encoding::Alaw,
            _ => return Answer::refuse(400, "unsupported encoding"),
        };
        let Ok(rate) = parameter(head, "sample_rate").parse() else {
            return Answer::refuse(400, "sample_rate is no number");
        };
        let model = parameter(head, "model");
        if flux != model.starts_with("flux-general-")
            || !(flux || ["nova-3", "nova-2"].iter().any(|m| model.starts_with(m)))
        {
            return Answer::refuse(400, "no such model here");
        }
        if !parameter(head, "keyterm").is_empty() && model.starts_with("nova-2") {
            return Answer::refuse(400, "keyterm needs nova-3");
        }
        let interims = parameter(head, "interim_results") == "true";
        if !flux && !parameter(head, "utterance_end_ms").is_empty() && !interims {
            return Answer::refuse(400, "utterance_end_ms needs interim_results");
        }
        Answer::Socket(Box::new(Live {
            flux,
            encoding,
            rate,
            bursts: Bursts::new(rate),
            sliced: 0,
            turn: 0,
            sequence: 0,
        }))
    }
}

/// A session.
struct Live {
    flux: bool,
    encoding: Encoding,
    rate: u32,
    bursts: Bursts,
    /// Where the next slice begins.
    sliced: u64,
    turn: u32,
    sequence: u32,
}

impl Live {
    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.rate)
    }

    /// A slice up to `end`, with what was heard in it.
    fn slice(&mut self, end: u64, burst: Option<Burst>, is_final: bool) -> Said {
        let start = self.sliced;
        if is_final {
            self.sliced = end;
        }
        let text = burst.map_or_else(String::new, |b| words(b.hz));
        let words: Vec<Value> = burst
            .iter()
            .map(|b| {
                json!({ "word": text, "start": self.seconds(b.from), "end": self.seconds(b.to), "confidence": 0.99,
                    "punctuated_word": text })
            })
            .collect();
        let confidence = if burst.is_some() { 0.99 } else { 0.0 };
        Said::json(&json!({
            "type": "Results", "channel_index": [0, 1],
            "start": self.seconds(start), "duration": self.seconds(end.saturating_sub(start)),
            "is_final": is_final, "speech_final": is_final && burst.is_some(), "from_finalize": false,
            "channel": { "alternatives": [{ "transcript": text, "confidence": confidence, "words": words }] },
            "metadata": { "request_id": "00000000-0000-0000-0000-000000000000", "model_uuid": "m",
                "model_info": { "name": "general-nova-3", "version": "1", "arch": "nova-3" } },
        }))
    }

    fn turn(&mut self, event: &str, end: u64, burst: Option<Burst>) -> Said {
        self.sequence += 1;
        let text = burst.map_or_else(String::new, |b| words(b.hz));
        let words: Vec<Value> = burst
            .iter()
            .map(|b| json!({ "word": text, "start": self.seconds(b.from), "end": self.seconds(b.to), "confidence": 0.99 }))
            .collect();
        Said::json(&json!({
            "type": "TurnInfo", "request_id": "r", "sequence_id": self.sequence, "event": event, "turn_index": self.turn,
            "audio_window_start": self.seconds(self.sliced), "audio_window_end": self.seconds(end),
            "transcript": text, "words": words, "end_of_turn_confidence": 0.5,
        }))
    }

    fn tell(&mut self, found: Vec<Found>) -> Vec<Said> {
        let mut said = Vec::new();
        for found in found {
            let now = self.bursts.position();
            match (found, self.flux) {
                (Found::Began { at }, false) => {
                    said.push(Said::json(&json!({
                        "type": "SpeechStarted", "channel": [0, 1], "timestamp": self.seconds(at),
                    })));
                }
                (Found::Going(burst), false) => said.push(self.slice(now, Some(burst), false)),
                (Found::Ended(burst), false) => said.push(self.slice(now, Some(burst), true)),
                (Found::Began { .. }, true) => said.push(self.turn("StartOfTurn", now, None)),
                (Found::Going(burst), true) => said.push(self.turn("Update", now, Some(burst))),
                (Found::Ended(burst), true) => {
                    said.push(self.turn("EndOfTurn", now, Some(burst)));
                    self.sliced = now;
                    self.turn += 1;
                }
            }
        }
        let quiet = self.bursts.position() - self.sliced;
        if !self.flux && self.bursts.is_quiet() && self.seconds(quiet) >= QUIET_S {
            said.push(self.slice(self.bursts.position(), None, true));
        }
        said
    }
}

impl Conversation for Live {
    fn open(&mut self) -> Vec<Said> {
        let connected = json!({ "type": "Connected", "request_id": "r", "sequence_id": 0 });
        self.flux.then(|| Said::json(&connected)).into_iter().collect()
    }

    fn hear(&mut self, message: Message) -> Vec<Said> {
        let mut found = Vec::new();
        let complain = |why: &str| vec![Said::Close(1008, format!("DATA-0000: {why}"))];
        match message {
            Message::Binary(bytes) if bytes.is_empty() => complain("an empty message"),
            Message::Binary(bytes) => {
                let mut samples = vec![0; bytes.len() / self.encoding.sample_bytes()];
                let Ok(n) = codec::decode(self.encoding, &bytes, &mut samples) else {
                    return complain("half a sample");
                };
                self.bursts.push(&samples[..n], |f| found.push(f));
                self.tell(found)
            }
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap_or_default();
                if let Some(wrong) = wrong_members(&value, &["type"], &[]) {
                    return complain(&wrong);
                }
                match (value["type"].as_str().unwrap_or_default(), self.flux) {
                    ("KeepAlive", false) => Vec::new(),
                    ("Finalize", false) => {
                        let end = self.bursts.position();
                        vec![self.slice(end, None, true)]
                    }
                    ("CloseStream", flux) => {
                        self.bursts.finish(|f| found.push(f));
                        let mut said = self.tell(found);
                        if !flux {
                            said.push(Said::json(&json!({
                                "type": "Metadata", "transaction_key": "deprecated", "request_id": "r", "sha256": "",
                                "created": "2026-01-01T00:00:00.000Z", "channels": 1,
                                "duration": self.seconds(self.bursts.position()),
                            })));
                        }
                        said.push(Said::Close(1000, String::new()));
                        said
                    }
                    (other, _) => complain(&format!("unknown type {other}")),
                }
            }
            _ => Vec::new(),
        }
    }
}
