//! A stand-in for OpenAI's transcriptions: hears bursts of tone (see [`crate::speech::stt::fake`]).

use crate::{
    audio::wav::Wav,
    speech::{
        double::{Answer, Double, says},
        stt::fake::{Bursts, Found, words},
    },
};
use http::request::Parts;

const FIELDS: &[&str] = &["model", "response_format", "language", "prompt", "temperature", "file"];

/// The service.
#[derive(Debug)]
pub struct Transcriptions {
    key: String,
}

impl Transcriptions {
    /// A service that accepts this key.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }
}

/// The parts of a form by name, or what is wrong with it.
fn parts<'a>(head: &Parts, body: &'a [u8]) -> Result<Vec<(String, &'a [u8])>, &'static str> {
    let kind = head
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let boundary = kind
        .strip_prefix("multipart/form-data; boundary=")
        .ok_or("not a form")?;
    let (first, between, last) = (
        format!("--{boundary}\r\n"),
        format!("\r\n--{boundary}\r\n"),
        format!("\r\n--{boundary}--\r\n"),
    );
    let mut rest = body.strip_prefix(first.as_bytes()).ok_or("no first part")?;
    rest = rest.strip_suffix(last.as_bytes()).ok_or("no last boundary")?;
    let mut found = Vec::new();
    loop {
        let next = memchr::memmem::find(rest, between.as_bytes());
        let part = &rest[..next.unwrap_or(rest.len())];
        let at = memchr::memmem::find(part, b"\r\n\r\n").ok_or("a part without a head")?;
        let head = String::from_utf8_lossy(&part[..at]);
        let (_, name) = head.split_once(" name=\"").ok_or("a part without a name")?;
        found.push((name.split('"').next().unwrap_or_default().to_owned(), &part[at + 4..]));
        match next {
            Some(at) => rest = &rest[at + between.len()..],
            None => return Ok(found),
        }
    }
}

impl Double for Transcriptions {
    fn answer(&self, head: &Parts, body: &[u8]) -> Answer {
        if !says(head, "authorization", &format!("Bearer {}", self.key)) {
            return Answer::refuse(401, "Incorrect API key provided.");
        }
        if !head.uri.path().ends_with("/audio/transcriptions") || head.method != http::Method::POST {
            return Answer::refuse(404, "no such path");
        }
        let parts = match parts(head, body) {
            Ok(parts) => parts,
            Err(wrong) => return Answer::refuse(400, wrong),
        };
        if let Some((name, _)) = parts.iter().find(|(name, _)| !FIELDS.contains(&name.as_str())) {
            return Answer::refuse(400, &format!("{name} is not known"));
        }
        let get = |name: &str| parts.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        let (Some(_), Some(b"json"), Some(file)) = (get("model"), get("response_format"), get("file")) else {
            return Answer::refuse(400, "model, response_format json and file are due");
        };
        let Ok(wav) = Wav::parse(file) else {
            return Answer::refuse(400, "the file is no WAVE");
        };
        let (mut bursts, mut found) = (Bursts::new(wav.rate), Vec::new());
        bursts.push(&wav.into_mono(), |f| found.push(f));
        bursts.finish(|f| found.push(f));
        let heard = found.into_iter().filter_map(|f| match f {
            Found::Ended(b) => Some(words(b.hz)),
            _ => None,
        });
        let text = heard.collect::<Vec<_>>().join(" ");
        Answer::Reply {
            status: 200,
            content_type: "application/json",
            body: serde_json::json!({ "text": text }).to_string().into_bytes(),
        }
    }
}
