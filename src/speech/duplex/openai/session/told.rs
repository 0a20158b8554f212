//! What the service says in a session, message by message: the caller's words and where they lie, its answers, its complaints.

use super::{HINDSIGHT_MS, HOLD, IN_ORDER, ITEMS, MOST, SAID, STRANGE, Said, Session, refusal};
use crate::{
    audio::codec,
    base::format::Encoding,
    metrics,
    speech::{
        Transcript,
        duplex::{
            News, Role,
            openai::proto::{self, Tokens, Told},
        },
        link::{Link, LinkError, Service},
        mouth::Raw,
    },
    wire::base64,
};
use tokio::time::Instant;

impl Session<'_> {
    /// Takes a message.
    pub(super) async fn read(&mut self, text: &str, link: &mut Link<'_>) -> Result<(), LinkError> {
        let told = match proto::read(text) {
            Ok(told) => told,
            Err(what) => return self.count_strange(what, link.service),
        };
        self.strange = 0;
        let is_work = !matches!(
            told,
            Told::Created { .. } | Told::Updated | Told::Complaint { .. } | Told::Other
        );
        if is_work && !std::mem::replace(&mut self.works, true) {
            link.service.works();
            self.hearing.ready().await;
        }
        match told {
            Told::Created { .. } | Told::Updated | Told::Committed { .. } | Told::Other => {}
            Told::Began { item, at_ms } => {
                let from = self.position(at_ms);
                if self.said.len() >= SAID {
                    self.said.pop_front();
                }
                self.said.push_back(Said {
                    item: item.into_owned(),
                    from,
                    to: None,
                    text: String::new(),
                    told: false,
                });
                self.answer_by = None;
                self.hearing.started();
            }
            Told::Stopped { item, at_ms } => {
                let to = self.position(at_ms);
                if let Some(said) = self.said.iter_mut().find(|s| s.item == item) {
                    said.to = Some(to);
                    said.told |= self.config.transcription.is_empty();
                }
                if !self.dialogue.paused {
                    let to_ms = self.hearing.ms(to);
                    self.dialogue.tell(News::Stopped { to_ms });
                    self.answer_by = Some(Instant::now() + self.config.answer);
                }
                self.settle();
            }
            Told::Interim { item, delta } => self.interim(&item, &delta).await,
            Told::Final { item, text, tokens } => {
                let (read, heard) = (tokens.text, tokens.audio);
                self.used(self.config.labels.transcription, (read.0 + heard.0, read.1 + heard.1));
                self.final_words(&item, &text).await;
            }
            Told::Unheard { item } => self.final_words(&item, "").await,
            Told::Answering { response } => {
                self.answering = Some(response.into_owned());
                self.begun = self.asked.take();
                self.generating.clear();
                self.answer_by.get_or_insert(Instant::now() + self.config.answer);
            }
            Told::Audio { item, data } => {
                self.answers();
                self.note_item(&item);
                let bytes = base64::decode_vec(data.as_bytes(), MOST)
                    .map_err(|_| link.service.strange("audio that is not base64"))?;
                let (raw, us) = self.raw(bytes);
                self.dialogue.audio(&item, raw, us);
            }
            Told::AudioOver { item } => self.dialogue.whole(&item),
            Told::Words { item, delta } => {
                self.answers();
                self.note_item(&item);
                self.dialogue.words(&item, &delta);
            }
            Told::WordsOver { item, text } => self.worded(item.into_owned(), text.map(Into::into)),
            Told::Wants(asked) => {
                self.answers();
                if self.calls.len() >= ITEMS {
                    metrics::dropped("backend_message", "too_many_requests", 1);
                    return Ok(());
                }
                self.calls.push((asked.id.clone(), asked.name.clone()));
                self.dialogue.wants(asked);
            }
            Told::Answered {
                response,
                tokens,
                failed,
            } => return self.answered(&response, tokens, failed, link),
            Told::Complaint { kind, code, message } => return self.complained(&kind, &code, &message, link),
        }
        Ok(())
    }

    /// Something of an answer came.
    fn answers(&mut self) {
        self.answer_by = None;
        self.begun = None;
    }

    fn answered(
        &mut self,
        response: &str,
        tokens: Tokens,
        failed: Option<String>,
        link: &Link<'_>,
    ) -> Result<(), LinkError> {
        if response.is_empty() || self.answering.as_deref().is_some_and(|r| r == response) {
            self.answering = None;
            self.answers();
        }
        for item in std::mem::take(&mut self.generating) {
            self.dialogue.whole(&item);
            self.worded(item, None);
        }
        self.used(self.config.labels.text, tokens.text);
        self.used(self.config.labels.audio, tokens.audio);
        self.dialogue.tell(News::Answered);
        match failed.as_deref() {
            None => Ok(()),
            Some(code @ ("insufficient_quota" | "invalid_api_key")) => Err(LinkError::Refused(format!(
                "{} wants to be paid first ({code}): see to the account's credit",
                link.service.name
            ))),
            Some(code) => Err(link.service.lost(format_args!("could not answer ({code})"))),
        }
    }

    fn complained(&mut self, kind: &str, code: &str, message: &str, link: &Link<'_>) -> Result<(), LinkError> {
        match code {
            // Harmless: what was to be cancelled was over already.
            "response_cancel_not_active" => Ok(()),
            // It answers by itself at the moment; ours is asked for again.
            "conversation_already_has_active_response" => {
                self.dialogue.wanted = self.dialogue.wanted.take().or(self.asked.take());
                self.hold_until = Some(Instant::now() + HOLD);
                Ok(())
            }
            "session_expired" | "insufficient_quota" | "invalid_api_key" | "beta_api_shape_disabled" => {
                Err(refusal(link.service, kind, code, message))
            }
            _ => {
                metrics::dropped("backend_message", "complaint", 1);
                tracing::warn!(
                    backend = self.config.labels.text,
                    kind,
                    code,
                    "a service complains of what it was sent"
                );
                Ok(())
            }
        }
    }

    fn used(&mut self, service: &'static str, (input, output): (u64, u64)) {
        if (input, output) != (0, 0) {
            self.dialogue.tell(News::Used { service, input, output });
        }
    }

    pub(super) fn count_strange(&mut self, what: &'static str, service: &Service) -> Result<(), LinkError> {
        self.strange += 1;
        if self.strange >= STRANGE {
            return Err(service.strange(what));
        }
        metrics::dropped("backend_message", "unreadable", 1);
        Ok(())
    }

    fn note_item(&mut self, item: &str) {
        if self.generating.len() < ITEMS && !self.generating.iter().any(|i| i == item) {
            self.generating.push(item.to_owned());
        }
        if !self.items.iter().any(|i| i == item) {
            self.items.push_back(item.to_owned());
            if self.items.len() > ITEMS {
                self.items.pop_front();
            }
        }
    }

    /// Audio as it came, and how long it lasts in microseconds.
    fn raw(&self, bytes: Vec<u8>) -> (Raw, u64) {
        let samples = bytes.len() / self.spoken.encoding.sample_bytes();
        let us = samples as u64 * 1_000_000 / u64::from(self.spoken.rate);
        if self.spoken.encoding != Encoding::L16Le {
            return (Raw::Codes(bytes, self.spoken.encoding), us);
        }
        let mut out = vec![0; samples];
        let whole = &bytes[..samples * 2];
        let n = codec::decode(Encoding::L16Le, whole, &mut out).unwrap_or_default();
        out.truncate(n);
        (Raw::Samples(out, self.spoken.rate), us)
    }

    /// All words of a reply came: told once those of the caller before it are.
    fn worded(&mut self, item: String, text: Option<String>) {
        if self.in_order.iter().any(|(i, _)| *i == item) {
            return;
        }
        self.in_order.push((item, text));
        if self.in_order.len() < ITEMS && self.said.iter().any(|s| s.to.is_some() && !s.told) {
            self.words_by.get_or_insert(Instant::now() + IN_ORDER);
        } else {
            self.flush_words();
        }
    }

    pub(super) fn flush_words(&mut self) {
        self.words_by = None;
        for (item, text) in std::mem::take(&mut self.in_order) {
            self.dialogue.worded(&item, text);
        }
    }

    async fn interim(&mut self, item: &str, delta: &str) {
        let Some(said) = self.said.iter_mut().find(|s| s.item == item) else {
            return;
        };
        said.text.push_str(delta);
        let (text, from, to) = (said.text.clone(), said.from, said.to);
        self.tell(text, from, to, false).await;
    }

    async fn final_words(&mut self, item: &str, text: &str) {
        let Some(said) = self.said.iter_mut().find(|s| s.item == item && !s.told) else {
            return;
        };
        said.told = true;
        let (from, to) = (said.from, said.to);
        if !text.trim().is_empty() {
            self.dialogue.note(Role::Caller, text);
            self.tell(text.trim().to_owned(), from, to, true).await;
        }
        self.settle();
        if !self.said.iter().any(|s| s.to.is_some() && !s.told) {
            self.flush_words();
        }
    }

    async fn tell(&self, text: String, from: u64, to: Option<u64>, is_final: bool) {
        let to = to.unwrap_or(self.hearing.position());
        let transcript = Transcript {
            text,
            is_final,
            confidence: None,
            language: None,
            from_ms: self.hearing.ms(from),
            to_ms: self.hearing.ms(to.max(from)),
        };
        self.hearing.transcript(transcript).await;
    }

    /// Says what no other session need hear: what was transcribed, and silence.
    pub(super) fn settle(&mut self) {
        while let Some(said) = self.said.front().filter(|s| s.told) {
            if let Some(to) = said.to {
                self.hearing.settle(to);
            }
            self.said.pop_front();
        }
        match self.said.front() {
            Some(said) => self.hearing.settle(said.from),
            None => {
                let hindsight = HINDSIGHT_MS * u64::from(self.heard.rate) / 1000;
                self.hearing.settle(self.hearing.position().saturating_sub(hindsight));
            }
        }
    }

    /// Where a time of the session lies in what the ear heard.
    fn position(&self, ms: u64) -> u64 {
        self.timeline
            .position(ms.saturating_mul(u64::from(self.heard.rate)) / 1000)
    }
}
