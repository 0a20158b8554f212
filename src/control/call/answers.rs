//! What a service says of its own accord: heard before its words are known, and on record once they are.

use super::{Call, Leg, Now, Spoken, ledger::Settled, record::message_status};
use crate::{
    base::ids::{MessageId, UtteranceId},
    bus::News,
    store::{Sender, Write},
};

/// Answers whose words are not on record yet, at once; those beyond are not spoken.
const MAX_ANSWERS: usize = 32;

/// An answer whose words are not on record yet.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    utterance: UtteranceId,
    message_id: MessageId,
    /// The words so far.
    text: String,
    /// What became of it already.
    settled: Option<(&'static str, u32)>,
}

impl Call {
    /// A service begins to speak. `None` while the caller cannot hear, or too much waits.
    pub(in crate::control) fn answer(&mut self) -> Option<UtteranceId> {
        if self.leg != Leg::Live || self.is_ended() || self.answers.len() >= MAX_ANSWERS {
            return None;
        }
        let message_id = MessageId::new();
        let utterance = self.ledger.open(Some(Spoken {
            message_id,
            client_ref: None,
            text: "".into(),
        }))?;
        self.answers.push(Answer {
            utterance,
            message_id,
            text: String::new(),
            settled: None,
        });
        Some(utterance)
    }

    /// The words of an answer so far; all of them, where there is somebody (`complete`) who said them.
    pub(in crate::control) fn answer_words(
        &mut self,
        now: Now,
        utterance: UtteranceId,
        text: &str,
        complete: Option<String>,
    ) {
        let Some(at) = self.answers.iter().position(|a| a.utterance == utterance) else {
            return;
        };
        text.clone_into(&mut self.answers[at].text);
        self.ledger.reword(utterance, text);
        if complete.is_some() {
            let answer = self.answers.remove(at);
            self.record_answer(now, answer, complete);
        }
    }

    /// Stores an answer's words, and what became of it where that is known already. One without words is no message.
    pub(super) fn record_answer(&mut self, now: Now, answer: Answer, name: Option<String>) {
        let Answer {
            message_id,
            text,
            settled,
            ..
        } = answer;
        if text.trim().is_empty() {
            self.ledger.forget(message_id);
            return;
        }
        if self.outbox.is_full() {
            self.ledger.forget(message_id);
            return self.lose();
        }
        let mut row = self.message(now, "tts_audio", Sender::Agent, text.clone());
        row.message_id = message_id;
        row.sender_name = name.or_else(|| Some(self.row.agent.clone()));
        row.delivery = Some("stored");
        let spoken = Spoken {
            message_id,
            client_ref: None,
            text: text.as_str().into(),
        };
        let news: News = message_status(&spoken, "stored", 0);
        self.keep(now, [Write::Message(Box::new(row))], news, []);
        if let Some((delivery, heard_ms)) = settled {
            self.settle(
                now,
                Settled {
                    spoken,
                    delivery,
                    heard_ms,
                },
            );
        }
    }

    /// Keeps what became of an answer until its words are on record; anything else is settled now.
    pub(super) fn settle_later(&mut self, settled: Settled) -> Option<Settled> {
        let of = settled.spoken.message_id;
        let Some(answer) = self.answers.iter_mut().find(|a| a.message_id == of) else {
            return Some(settled);
        };
        answer.settled = Some((settled.delivery, settled.heard_ms));
        None
    }
}
