//! What every step of a call has in common: the row and the facts change, writes are queued, news follows from them.

use super::{Ask, Call, Effect, Now, Spoken, ledger::Settled, outbox::Then, session_id};
use crate::{
    base::{
        fault::Fault,
        ids::{MessageId, UtteranceId},
    },
    bus::{Event, News},
    control::news,
    store::{CallChange, CallStatus, MessageRow, Sender, Write},
    vendor::EndReason,
};

impl Call {
    pub(super) fn advance(&mut self, now: Now, status: CallStatus) {
        let foreign = match status {
            CallStatus::Initiated | CallStatus::Ringing => self.row.inbound,
            CallStatus::Incoming => !self.row.inbound,
            _ => false,
        };
        if foreign || status <= self.row.status || status == CallStatus::Ended {
            return;
        }
        self.row.status = status;
        let mut change = CallChange {
            status: Some(status),
            ..CallChange::default()
        };
        if status >= CallStatus::Answered && self.answered.is_none() {
            self.answered = Some(now.mono);
            self.row.answered_at = Some(now.wall);
            change.answered_at = Some(now.wall);
        }
        let write = self.changes(change);
        self.keep(now, [write], self.status_news(), []);
        if status >= CallStatus::Answered && self.terms.handling.enhance && !self.enhanced && self.knows_sid() {
            self.enhanced = true;
            self.ask(Ask::Enhance(true));
        }
    }

    pub(super) fn knows_sid(&self) -> bool {
        !self.row.call_sid.starts_with("pending:")
    }

    /// The vendor told its id of the call.
    pub(super) fn learn_sid(&mut self, call_sid: &str) {
        if self.knows_sid() || call_sid.is_empty() {
            return;
        }
        self.row.call_sid = call_sid.to_owned();
        self.row.session_id = session_id(call_sid, self.row.call_id);
        self.effects.push_back(Effect::Sid(call_sid.to_owned()));
        self.change(CallChange {
            call_sid: Some(self.row.call_sid.clone()),
            session_id: Some(self.row.session_id.clone()),
            ..CallChange::default()
        });
    }

    pub(super) fn over(&mut self, now: Now, utterance: UtteranceId, end: (bool, u32), settled: Option<Settled>) {
        let (whole, heard_ms) = end;
        if let Some(settled) = settled {
            self.settle(now, settled);
        }
        self.effects.push_back(Effect::Over {
            utterance,
            whole,
            heard_ms,
        });
    }

    pub(super) fn settle_rest(&mut self, now: Now) {
        self.held = None;
        for settled in self.ledger.close() {
            self.settle(now, settled);
        }
    }

    /// No more words will come: those of a service's answers that did are stored.
    pub(in crate::control) fn settle_answers(&mut self, now: Now) {
        for answer in std::mem::take(&mut self.answers) {
            self.record_answer(now, answer, None);
        }
    }

    pub(super) fn settle(&mut self, now: Now, settled: Settled) {
        let Some(settled) = self.settle_later(settled) else {
            return;
        };
        let Settled {
            spoken,
            delivery,
            heard_ms,
        } = settled;
        let write = Write::Delivery {
            message_id: spoken.message_id,
            delivery,
            heard_ms,
        };
        self.keep(now, [write], message_status(&spoken, delivery, heard_ms), []);
    }

    pub(super) fn message(
        &mut self,
        now: Now,
        message_type: &'static str,
        sender_type: Sender,
        content: String,
    ) -> MessageRow {
        self.seq += 1;
        MessageRow {
            message_id: MessageId::new(),
            call_id: self.row.call_id,
            seq: self.seq,
            message_type,
            content,
            sender_type,
            sender_name: None,
            confidence: None,
            detected_language: None,
            delivery: None,
            heard_ms: None,
            created_at: now.wall,
        }
    }

    pub(super) fn lose(&mut self) {
        self.facts.messages_lost += 1;
        self.effects.push_back(Effect::Lost);
    }

    pub(super) fn fault(&mut self, now: Now, fault: Fault) {
        self.vendor_fault(now, fault, false);
    }

    /// The vendor is at fault, `of_stream` where it could not carry the media stream.
    pub(super) fn vendor_fault(&mut self, now: Now, fault: Fault, of_stream: bool) {
        let news = News::Fault {
            code: self.terms.error_code,
            vendor: Some(self.terms.vendor),
            message: fault.message.into_owned(),
            message_id: None,
            of_stream,
        };
        self.publish(now, news);
    }

    pub(super) fn publish(&mut self, now: Now, news: News) {
        let event = self.event(now, news);
        self.effects.push_back(Effect::Publish(event));
    }

    pub(super) fn event(&self, now: Now, news: News) -> Box<Event> {
        Box::new(Event {
            tenant: self.row.tenant_id,
            call: self.row.call_id,
            id: None,
            at: now.wall,
            news,
        })
    }

    /// A step: writes, the event that tells of them, and what else follows from their commit.
    pub(super) fn keep(
        &mut self,
        now: Now,
        writes: impl IntoIterator<Item = Write>,
        news: News,
        then: impl IntoIterator<Item = Then>,
    ) {
        self.outbox.push(writes, []);
        if let Some(payload) = news::payload(self.row.call_id, now.wall, &news) {
            let (tenant, call_id) = (self.row.tenant_id, self.row.call_id);
            let write = Write::Event {
                tenant,
                call_id,
                payload: payload.to_string(),
            };
            let event = self.event(now, news);
            self.outbox.push([write], [Then::Publish(event)]);
        }
        self.outbox.push([], then);
    }

    pub(super) fn changes(&mut self, change: CallChange) -> Write {
        self.changed = true;
        Write::CallChange(Box::new(CallChange {
            call_id: Some(self.row.call_id),
            ..change
        }))
    }

    pub(super) fn change(&mut self, change: CallChange) {
        let write = self.changes(change);
        self.outbox.push([write], []);
    }

    /// Stores the facts as they are now.
    pub(super) fn amend(&mut self) {
        self.row.metadata = self.facts.to_json();
        self.change(CallChange {
            metadata: Some(self.row.metadata.clone()),
            ..CallChange::default()
        });
    }

    pub(super) fn status_news(&self) -> News {
        News::Status {
            status: self.row.status.as_str(),
            end_reason: self.row.end_reason.map(EndReason::as_str),
            customer_number: self.row.customer_number.clone(),
            organization_number: self.row.organization_number.clone(),
            call_sid: self.row.call_sid.clone(),
            inbound: self.row.inbound,
            duration: self.row.duration,
        }
    }
}

pub(super) fn message_status(spoken: &Spoken, status: &'static str, heard_ms: u32) -> News {
    News::MessageStatus {
        message_id: spoken.message_id,
        client_ref: spoken.client_ref.clone(),
        status,
        heard_ms,
        message: spoken.text.to_string(),
    }
}
