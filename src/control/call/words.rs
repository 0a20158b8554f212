//! What is said on a call, by either side: stored, published, spoken, cut.

use super::{Call, Effect, Leg, MAX_HELD, Now, Spoken, Words, record::message_status};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::{MessageId, UtteranceId},
        time::Mono,
    },
    bus::News,
    control::waterfall::TurnTimes,
    llm::{Usage, extract::Extracted},
    metrics,
    speech::{SpeechEvent, Transcript},
    store::{Sender, Write},
};
use serde_json::{Value, json};
use std::time::Duration;

impl Call {
    /// News from the ear or mouth of the call, or (`sender` and words alone) from that of a frontend's microphone.
    pub(in crate::control) fn speech(&mut self, now: Now, sender: Sender, event: SpeechEvent) {
        match event {
            SpeechEvent::Started | SpeechEvent::Connected { .. } | SpeechEvent::Duplex(_) => {}
            SpeechEvent::Transcript(words) => self.transcript(now, sender, words),
            SpeechEvent::Audio {
                utterance,
                seq,
                audio,
                last,
            } => {
                if let Some(spoken) = self.ledger.spoken(utterance) {
                    let (message_id, message) = (spoken.message_id, spoken.text.to_string());
                    self.publish(
                        now,
                        News::TtsAudio {
                            message_id,
                            message,
                            audio,
                            seq,
                            last,
                        },
                    );
                }
            }
            SpeechEvent::SttFailed { message } => {
                if !std::mem::replace(&mut self.stt_out, true) {
                    self.facts.stt_faults += 1;
                    self.speech_fault(now, "STT_ERROR", message, None);
                }
            }
            SpeechEvent::SttRecovered => self.stt_out = false,
            SpeechEvent::TtsFailed { utterance, message } => self.unspoken(now, utterance, message),
        }
    }

    /// A frontend's microphone is not heard in full.
    pub(in crate::control) fn unheard(&mut self, now: Now, message: &str) {
        self.speech_fault(now, "STT_ERROR", message.to_owned(), None);
    }

    pub(super) fn transcript(&mut self, now: Now, sender: Sender, words: Transcript) {
        if words.text.trim().is_empty() {
            return;
        }
        let news = |message_id| News::Transcript {
            text: words.text.clone(),
            sender: sender.as_str(),
            is_final: words.is_final,
            confidence: words.confidence,
            detected_language: words.language.clone(),
            message_id,
        };
        if !words.is_final {
            return self.publish(now, news(None));
        }
        if sender == Sender::Customer {
            self.facts.customer_talk_ms += words.to_ms.saturating_sub(words.from_ms);
        }
        if self.outbox.is_full() {
            return self.lose();
        }
        let mut row = self.message(now, "transcript", sender, words.text.clone());
        row.confidence = words.confidence;
        row.detected_language = words.language.clone();
        let news = news(Some(row.message_id));
        self.keep(now, [Write::Message(Box::new(row))], news, []);
    }

    pub(super) fn unspoken(&mut self, now: Now, utterance: UtteranceId, message: String) {
        self.facts.tts_faults += 1;
        let message_id = self.ledger.spoken(utterance).map(|s| s.message_id);
        self.speech_fault(now, "TTS_ERROR", message, message_id);
        if let Some(settled) = self.ledger.failed(utterance) {
            self.settle(now, settled);
        }
        self.effects.push_back(Effect::Over {
            utterance,
            whole: true,
            heard_ms: 0,
        });
    }

    fn speech_fault(&mut self, now: Now, code: &'static str, message: String, message_id: Option<MessageId>) {
        let vendor = None;
        let fault = News::Fault {
            code,
            vendor,
            message,
            message_id,
            of_stream: false,
        };
        self.publish(now, fault);
    }

    /// The language model did not answer: told once an outage.
    pub(in crate::control) fn mind_failed(&mut self, now: Now, message: String) {
        self.facts.llm_faults += 1;
        if !std::mem::replace(&mut self.llm_out, true) {
            self.speech_fault(now, "CONNECTION_FAILED", message, None);
        }
    }

    /// The language model, or the service that holds the conversation, works again.
    pub(in crate::control) const fn mind_works(&mut self) {
        self.llm_out = false;
    }

    /// The language model answered, and used so much.
    pub(in crate::control) fn thought(&mut self, service: &'static str, usage: Usage) {
        self.llm_out = false;
        self.used(service, usage);
    }

    fn used(&mut self, service: &'static str, usage: Usage) {
        for (direction, tokens) in [("input", usage.input), ("output", usage.output)] {
            let labels = [("service", service), ("direction", direction)];
            metrics::counter(metrics::llm_tokens_total, &labels).increment(tokens);
        }
        *self.facts.llm_usage.entry(service).or_default() += usage;
    }

    /// What was read out of the conversation so far.
    pub(in crate::control) const fn known(&self) -> &Value {
        &self.facts.extracted
    }

    /// It was read again, by this service, which used so much. After the end the last reading is a job's.
    pub(in crate::control) fn extracted(&mut self, service: &'static str, usage: Usage, read: Extracted) {
        self.used(service, usage);
        if !self.is_ended() {
            self.facts.extracted = read.data;
            self.facts.extraction = json!({ "missing": read.missing });
            self.amend();
        }
    }

    /// How long the call has been answered.
    pub(in crate::control) fn lasted(&self, now: Mono) -> Duration {
        self.answered.map_or(Duration::ZERO, |at| now.since(at))
    }

    /// A turn of the agent was heard this fast.
    pub(in crate::control) fn turned(&mut self, times: TurnTimes) {
        self.facts.turns.push(times);
    }

    /// Words for the caller: stored, and spoken at once or as soon as the caller can hear.
    pub(in crate::control) fn say(&mut self, now: Now, words: Words) -> Result<(MessageId, UtteranceId), Fault> {
        if self.is_ended() {
            return Err(Fault::client(Kind::Conflict, "the call has ended"));
        }
        if self.outbox.is_full() {
            return Err(Fault::new(
                Origin::Us,
                Kind::Unavailable,
                "storage does not keep up: try again in a moment",
            ));
        }
        let busy = || Fault::client(Kind::TooMany, "too much waits to be said on this call");
        if self.ledger.is_full() || self.held.as_ref().is_some_and(|held| held.len() >= MAX_HELD) {
            return Err(busy());
        }
        let mut row = self.message(now, "tts_audio", Sender::Agent, words.text.clone());
        row.sender_name = words.sender_name;
        row.delivery = Some("stored");
        let spoken = Spoken {
            message_id: row.message_id,
            client_ref: words.client_ref,
            text: words.text.as_str().into(),
        };
        let news = message_status(&spoken, "stored", 0);
        let message_id = row.message_id;
        let utterance = self.ledger.open(Some(spoken)).ok_or_else(busy)?;
        self.keep(now, [Write::Message(Box::new(row))], news, []);
        match &mut self.held {
            Some(held) => held.push((utterance, words.text, words.language)),
            None => {
                self.effects.push_back(Effect::Speak {
                    utterance,
                    text: words.text,
                    language: words.language,
                });
            }
        }
        Ok((message_id, utterance))
    }

    /// Words for the caller that no longer fit on the record: the call goes on while storage does not.
    pub(in crate::control) fn say_unrecorded(&mut self, text: String) -> Option<UtteranceId> {
        let utterance = self.sound()?;
        self.lose();
        self.effects.push_back(Effect::Speak {
            utterance,
            text,
            language: None,
        });
        Some(utterance)
    }

    /// Sounds for the caller that are no message: a microphone, tones. `None` while the caller cannot hear, or too much waits.
    pub(in crate::control) fn sound(&mut self) -> Option<UtteranceId> {
        (self.leg == Leg::Live && !self.is_ended())
            .then(|| self.ledger.open(None))
            .flatten()
    }

    /// Cuts off all that is being said.
    pub(in crate::control) fn cut(&mut self, now: Now) {
        let floor = self.ledger.next();
        self.effects.push_back(Effect::Cut(floor));
        for (utterance, settled) in self.ledger.cut_below(floor) {
            self.over(now, utterance, (false, 0), settled);
        }
    }
}
