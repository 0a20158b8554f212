//! What synthesizers behind a network share: bytes to samples, patience, and WebSockets that wait to be used again.

use super::{Pcm, TtsError};
use crate::{
    audio::codec,
    base::{
        format::{AudioFormat, Encoding},
        settings::Section,
    },
    net::client::Reply,
    speech::link::{LinkError, Service},
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// Speech of one piece of text that is taken at most.
const LONGEST_S: usize = 300;

/// How long a service may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    first_audio: Duration,
    limit: Duration,
}

impl Patience {
    /// Reads `first_audio` and `limit`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            first_audio: section.duration("first_audio", s(3), ms(100)..=s(60)),
            limit: section.duration("limit", s(30), s(1)..=s(300)),
        }
    }
}

/// The audio of one piece of text on its way to a mouth.
pub(super) struct Stream<'a> {
    service: &'a Service,
    patience: Patience,
    began: Instant,
    format: AudioFormat,
    out: mpsc::Sender<Pcm>,
    /// Half a sample.
    rest: Option<u8>,
    samples: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(service: &'a Service, patience: Patience, format: AudioFormat, out: mpsc::Sender<Pcm>) -> Self {
        Self {
            service,
            patience,
            began: Instant::now(),
            format,
            out,
            rest: None,
            samples: 0,
        }
    }

    /// Whether audio has come.
    pub(super) const fn has_begun(&self) -> bool {
        self.samples > 0
    }

    /// How long the beginning of an answer may take.
    pub(super) const fn first_audio(&self) -> Duration {
        self.patience.first_audio
    }

    /// Waits for the service, as long as it may take.
    pub(super) async fn wait<T>(&self, next: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
        let (what, patience) = match self.has_begun() {
            false => ("audio", self.patience.first_audio),
            true => ("end", self.patience.limit),
        };
        let by = self.began + patience;
        timeout_at(by, next)
            .await
            .unwrap_or_else(|_| Err(self.service.late(what, patience)))
    }

    /// Passes bytes on. Returns whether somebody still listens.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<bool, LinkError> {
        let mut whole: Vec<u8> = self.rest.take().into_iter().chain(bytes.iter().copied()).collect();
        if self.format.encoding == Encoding::L16Le && whole.len() % 2 == 1 {
            self.rest = whole.pop();
        }
        let mut samples = vec![0; whole.len() / self.format.encoding.sample_bytes()];
        let n = codec::decode(self.format.encoding, &whole, &mut samples).unwrap_or_default();
        samples.truncate(n);
        if samples.is_empty() {
            return Ok(true);
        }
        if !self.has_begun() {
            self.service.works();
        }
        self.samples += n;
        if self.samples > LONGEST_S * self.format.rate as usize {
            return Err(self.service.lost("does not come to an end"));
        }
        let rate = self.format.rate;
        Ok(self.out.send(Pcm { rate, samples }).await.is_ok())
    }

    /// Passes a reply on to its end.
    pub(super) async fn copy(mut self, mut reply: Reply) -> Result<(), TtsError> {
        if matches!(reply.content_type(), "application/json" | "text/html" | "text/plain") {
            return Err(self.service.strange("a reply that is no audio").into());
        }
        loop {
            let service = self.service;
            let next = async { reply.next().await.map_err(|e| service.broken(&e)) };
            match self.wait(next).await? {
                Some(bytes) => {
                    if !self.push(&bytes).await? {
                        return Ok(());
                    }
                }
                None => return Ok(self.end()?),
            }
        }
    }

    /// The service says that this was all.
    pub(super) fn end(&self) -> Result<(), LinkError> {
        if self.has_begun() {
            return Ok(());
        }
        Err(self.service.lost("gave no audio for the text"))
    }
}

/// What a name of `encoding` in the configuration stands for, with its word in it.
pub(super) const ENCODINGS: [(&str, Encoding); 3] = [
    ("linear16", Encoding::L16Le),
    ("mulaw", Encoding::Ulaw),
    ("alaw", Encoding::Alaw),
];

/// The primary language of a BCP 47 tag; `None` for any.
pub(super) fn primary(language: &str) -> Option<String> {
    let primary = language
        .split(['-', '_'])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    (!primary.is_empty() && primary != "auto").then_some(primary)
}

/// A voice's name, which goes into a URL: letters, digits, `-`, `_` and `.`.
pub(super) fn name_of_voice(name: &str) -> Result<String, TtsError> {
    let is_name = name.len() <= 100 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_name && !name.is_empty() {
        return Ok(name.to_owned());
    }
    Err(TtsError::Refused(format!("{name:?} cannot be the name of a voice")))
}
