//! The call machine with a store that commits when told to; by hand (`rules`) and under random sequences of all that can happen (`model`).

use super::*;
use crate::{
    base::{
        fault::Kind,
        ids::{TenantId, UtteranceId},
    },
    bus::News,
    media::{Accounting, LegEnd, LegEvent},
    speech::{SpeechEvent, Transcript},
    store::{Committed, Sender},
    vendor::{CallNews, CallUpdate, EndReason},
};
use tokio::sync::oneshot::{self, Receiver};

mod leaving;
mod model;
mod rules;

const TERMS: Terms = Terms {
    vendor: "acme",
    error_code: "ACME_ERROR",
    rest: true,
    handling: Handling {
        by_command: false,
        stream_after_answer: false,
        restream: false,
        enhance: false,
        repeatable: false,
    },
    close_ends_call: true,
    stream_within: Duration::from_secs(60),
    media_grace: Duration::from_secs(10),
    max_length: Duration::from_secs(3600),
};

fn row(inbound: bool) -> CallRow {
    let call_id = CallId::new();
    CallRow {
        call_id,
        call_sid: if inbound {
            "sid".to_owned()
        } else {
            format!("pending:{call_id}")
        },
        session_id: "session".into(),
        vendor: "acme".into(),
        inbound,
        customer_number: "+14155550100".into(),
        organization_number: "+14155550101".into(),
        status: if inbound {
            CallStatus::Incoming
        } else {
            CallStatus::Initiated
        },
        end_reason: None,
        start_time: Wall::default(),
        answered_at: None,
        end_time: None,
        duration: None,
        tenant_id: TenantId(1),
        agent: "desk".into(),
        recording: None,
        legal_hold: false,
        metadata: serde_json::Value::Null,
    }
}

/// A call, a store that commits when told to, and all that the call asked for.
struct Desk {
    call: Call,
    now: Now,
    in_air: Option<Batch>,
    stored: Vec<Write>,
    events: i64,
    requests: usize,
    published: Vec<Event>,
    spoken: Vec<UtteranceId>,
    asks: Vec<Ask>,
    closed: Vec<u16>,
    cuts: Vec<UtteranceId>,
    created: bool,
    released: bool,
}

impl Desk {
    fn with(inbound: bool, terms: Terms) -> Self {
        let mut desk = Self {
            call: Call::new(Now::default(), row(inbound), terms, Facts::default()),
            now: Now::default(),
            in_air: None,
            stored: Vec::new(),
            events: 0,
            requests: 0,
            published: Vec::new(),
            spoken: Vec::new(),
            asks: Vec::new(),
            closed: Vec::new(),
            cuts: Vec::new(),
            created: false,
            released: false,
        };
        desk.drain();
        desk
    }

    /// An incoming call on record.
    fn incoming() -> Self {
        let mut desk = Self::with(true, TERMS);
        desk.commit();
        desk
    }

    /// A call whose caller hears and is heard.
    fn talking(terms: Terms) -> Self {
        let mut desk = Self::with(true, terms);
        desk.commit();
        desk.attach();
        desk.commit();
        desk
    }

    fn drain(&mut self) {
        while let Some(effect) = self.call.poll() {
            match effect {
                Effect::Commit(batch) => {
                    assert!(self.in_air.is_none(), "one batch in the air at a time");
                    self.in_air = Some(batch);
                }
                Effect::Publish(event) => self.published.push(*event),
                Effect::Tell(done) => drop(done.send(Ok(()))),
                Effect::Speak { utterance, .. } => self.spoken.push(utterance),
                Effect::Cut(floor) => self.cuts.push(floor),
                Effect::Close { code, .. } => self.closed.push(code),
                Effect::Ask(ask) => self.asks.push(ask),
                Effect::Created => self.created = true,
                Effect::Released => self.released = true,
                Effect::Over { .. } | Effect::Sid(_) | Effect::LengthWarning | Effect::Lost | Effect::StoreFault(_) => {
                }
            }
        }
    }

    fn commit(&mut self) {
        let Some(batch) = self.in_air.take() else { return };
        let count = batch.writes.iter().filter(|w| matches!(w, Write::Event { .. })).count() as i64;
        let event_ids = (self.events + 1..=self.events + count).collect();
        self.events += count;
        self.stored.extend(batch.writes);
        self.call.committed(self.now, Ok(Committed::Done { event_ids }));
        self.drain();
    }

    fn settle(&mut self) {
        while self.in_air.is_some() {
            self.commit();
        }
    }

    fn refuse(&mut self, kind: Kind) {
        self.in_air = None;
        self.call.committed(self.now, Err(Fault::client(kind, "no")));
        self.drain();
    }

    fn attach(&mut self) {
        self.call.attached(self.now, "sid", "stream", true);
        self.drain();
    }

    fn leg(&mut self, event: LegEvent) {
        self.call.leg(self.now, event);
        self.drain();
    }

    fn leg_ends(&mut self, end: LegEnd) {
        let accounting = Box::new(Accounting {
            in_frames: 7,
            ..Accounting::default()
        });
        self.leg(LegEvent::Ended { end, accounting });
    }

    fn played(&mut self, utterance: UtteranceId, heard_ms: u32, whole: bool) {
        self.leg(LegEvent::Playing(utterance));
        self.leg(LegEvent::Played {
            utterance,
            heard_ms,
            whole,
        });
    }

    fn vendor(&mut self, news: CallNews) -> Receiver<Result<(), Fault>> {
        self.requests += 1;
        self.vendor_request(news, self.requests)
    }

    fn vendor_request(&mut self, news: CallNews, request: usize) -> Receiver<Result<(), Fault>> {
        let (done, told) = oneshot::channel();
        let update = CallUpdate {
            why: None,
            call_sid: "sid".into(),
            from: String::new(),
            to: String::new(),
            inbound: true,
            news,
            dedup_key: request.to_string(),
            duration_s: None,
        };
        self.call.vendor(self.now, &update, done);
        self.drain();
        told
    }

    fn say(&mut self, text: &str) -> UtteranceId {
        let words = Words {
            text: text.into(),
            client_ref: Some("ref".into()),
            ..Words::default()
        };
        let (_, utterance) = self.call.say(self.now, words).unwrap();
        self.drain();
        utterance
    }

    fn hang_up(&mut self) -> Receiver<Result<(), Fault>> {
        let (done, told) = oneshot::channel();
        self.call.hang_up(self.now, Some(done));
        self.drain();
        told
    }

    fn answer(&mut self, result: Result<&str, Kind>) {
        let ask = self.asks.remove(0);
        let result = result
            .map(str::to_owned)
            .map_err(|k| Fault::new(crate::base::fault::Origin::Vendor, k, "refused"));
        self.call.asked(self.now, ask, result);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.call.timeout(self.now);
        self.drain();
    }

    fn statuses(&self) -> Vec<&'static str> {
        let status = |e: &Event| match e.news {
            News::Status { status, .. } => Some(status),
            _ => None,
        };
        self.published.iter().filter_map(status).collect()
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.call.row().end_reason
    }

    fn deliveries(&self) -> Vec<(&'static str, u32)> {
        let status = |e: &Event| match e.news {
            News::MessageStatus { status, heard_ms, .. } => Some((status, heard_ms)),
            _ => None,
        };
        self.published.iter().filter_map(status).collect()
    }

    fn faults(&self) -> Vec<&'static str> {
        let code = |e: &Event| match e.news {
            News::Fault { code, .. } => Some(code),
            _ => None,
        };
        self.published.iter().filter_map(code).collect()
    }
}

fn heard(text: &str, is_final: bool) -> SpeechEvent {
    SpeechEvent::Transcript(Transcript {
        text: text.into(),
        is_final,
        confidence: Some(0.5),
        language: None,
        from_ms: 0,
        to_ms: 100,
    })
}
