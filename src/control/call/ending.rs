//! How a call ends: by the vendor's word, with its leg, by a person's or agent's wish, or by the clock; once, whichever comes first.

use super::{
    Ask, Call, Done, Effect, LINGER, LOST_WITHIN, Leg, MAX_LOST_STREAMS, Now, TOLD_LOST_STREAMS, Timer, outbox::Then,
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        time::Wall,
    },
    control::cdr::{LostStream, duration_s},
    media::LegEnd,
    store::{CallChange, CallStatus, JobRow, Write},
    vendor::EndReason,
};

impl Call {
    pub(super) fn vendor_ended(&mut self, now: Now, reason: EndReason, duration_s: Option<u32>) {
        let late = self.is_ended();
        if duration_s.is_some() && self.facts.vendor_duration_s.is_none() {
            self.facts.vendor_duration_s = duration_s;
            if late {
                self.amend();
            }
        }
        self.end(now, reason);
    }

    pub(super) fn stream_failed(&mut self, now: Now, why: Option<&str>) {
        if self.is_ended() {
            return;
        }
        self.facts.vendor_faults += 1;
        let lost_before = !self.facts.lost_streams.is_empty();
        let again = self.leg == Leg::Awaited && !lost_before && !self.restreamed && self.may_restream();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let then = if again { "; it is asked once more" } else { "" };
        let message = format!("the vendor could not carry the media stream{why}{then}");
        self.vendor_fault(now, Fault::new(Origin::Vendor, Kind::BadGateway, message), true);
        if again {
            self.restreamed = true;
            self.ask(Ask::StartStream);
        } else if self.leg == Leg::Awaited && !lost_before {
            self.end(now, EndReason::Failed);
            self.ask_hang_up();
        }
    }

    /// The vendor found fault with what we sent on the media stream, which goes on.
    pub(super) fn complained(&mut self, now: Now, code: u64) {
        self.facts.vendor_faults += 1;
        let message = format!("the vendor complains of what it was sent on the media stream (code {code})");
        self.fault(now, Fault::new(Origin::Vendor, Kind::BadGateway, message));
    }

    fn may_restream(&self) -> bool {
        self.terms.handling.restream && self.terms.rest && self.knows_sid()
    }

    /// The socket broke and the phone call may well go on: the vendor is asked for another.
    fn stream_again(&mut self, now: Now, end: LegEnd) {
        let accounting = self.facts.accounting.take();
        self.lost_at.push_back(now.mono);
        self.facts.streams_lost += 1;
        if self.facts.lost_streams.len() == TOLD_LOST_STREAMS {
            self.facts.lost_streams.remove(0);
        }
        self.facts.lost_streams.push(LostStream {
            at: now.wall,
            stream_id: self.facts.stream_id.clone(),
            end,
            accounting,
        });
        self.leg = Leg::Awaited;
        self.held = Some(Vec::new());
        self.timers.set(Timer::Stream, now.mono + self.terms.media_grace);
        let message = "the media stream was lost, and the vendor is asked for another";
        self.vendor_fault(now, Fault::new(Origin::Vendor, Kind::BadGateway, message), true);
        self.ask(Ask::StartStream);
    }

    /// The leg's thread is gone without a word.
    pub(in crate::control) fn leg_lost(&mut self, now: Now) {
        if self.leg == Leg::Live {
            self.leg_ended(now, LegEnd::Crashed);
        }
    }

    pub(super) fn leg_ended(&mut self, now: Now, end: LegEnd) {
        self.leg = Leg::Gone;
        self.settle_rest(now);
        if self.is_ended() {
            self.amend();
            return;
        }
        let lost = matches!(
            end,
            LegEnd::ClosedWithoutStop | LegEnd::Idle | LegEnd::Stalled | LegEnd::Crashed
        );
        let restreams = lost && !self.hanging_up && self.may_restream();
        self.lost_at.retain(|at| now.mono.since(*at) < LOST_WITHIN);
        if restreams && self.lost_at.len() < MAX_LOST_STREAMS {
            return self.stream_again(now, end);
        }
        let (reason, vendor_knows) = match end {
            // It broke too often to be asked for again.
            LegEnd::ClosedWithoutStop if restreams => (EndReason::MediaLost, self.terms.close_ends_call),
            LegEnd::Stopped => (EndReason::Completed, true),
            LegEnd::ClosedWithoutStop | LegEnd::Closed => (EndReason::Completed, self.terms.close_ends_call),
            LegEnd::Idle | LegEnd::Stalled => (EndReason::MediaLost, self.terms.close_ends_call),
            LegEnd::Violation(_) | LegEnd::Crashed => (EndReason::Failed, self.terms.close_ends_call),
        };
        self.end(now, reason);
        if !vendor_knows {
            self.ask_hang_up();
        }
    }

    /// Ends the call: at the vendor if it takes commands, else by closing the socket where that ends it.
    /// With `done`, somebody wants to know: a refusal of the vendor leaves the call as it is.
    pub(in crate::control) fn hang_up(&mut self, now: Now, done: Option<Done>) {
        if self.is_ended() || self.void {
            return done.into_iter().for_each(|d| self.when_durable(d));
        }
        let unasked = done.is_none();
        self.waiting_for_end.extend(done);
        if self.hanging_up {
            return;
        }
        if self.dialing {
            self.hang_up_wanted = true;
        } else if self.terms.rest && self.knows_sid() {
            self.hanging_up = true;
            self.ask(Ask::HangUp);
        } else if self.leg == Leg::Awaited || self.terms.close_ends_call {
            self.end(now, self.our_end());
        } else {
            let message = "the vendor's REST credentials are missing: the call cannot be ended from here";
            let fault = Fault::client(Kind::Conflict, message);
            if unasked {
                self.fault(now, fault.clone());
            }
            self.refuse_hang_up(&fault);
        }
    }

    pub(super) const fn our_end(&self) -> EndReason {
        if self.answered.is_some() {
            EndReason::Completed
        } else {
            EndReason::Canceled
        }
    }

    pub(super) fn refuse_hang_up(&mut self, fault: &Fault) {
        for done in self.waiting_for_end.drain(..) {
            let _ = done.send(Err(fault.clone()));
        }
    }

    /// The vendor was told that the call cannot be taken. One without a record counts no more, and its late record ends with it.
    pub(in crate::control) fn refused(&mut self, now: Now) {
        if self.created || self.void || self.is_ended() {
            return;
        }
        self.end(now, EndReason::Failed);
        self.effects.push_back(Effect::Released);
    }

    /// The daemon stops: ends the call now.
    pub(in crate::control) fn interrupt(&mut self, now: Now) {
        self.end_with(now, EndReason::Interrupted, 1001, "the relay is stopping");
        self.ask_hang_up();
    }

    /// What the vendor said to an [`Effect::Ask`]: its id of a placed call, or why not.
    pub(in crate::control) fn asked(&mut self, now: Now, ask: Ask, result: Result<String, Fault>) {
        self.asking = self.asking.saturating_sub(1);
        // What was begun for a call that has ended meanwhile concerns nobody.
        let stale = self.is_ended() && matches!(ask, Ask::Accept | Ask::StartStream | Ask::Enhance(_));
        if let Some(fault) = result.as_ref().err().filter(|_| !stale) {
            self.facts.vendor_faults += 1;
            self.fault(now, fault.clone());
        }
        if let Some(at) = self.waiting_for_ask.iter().position(|(asked, _)| *asked == ask) {
            let (_, done) = self.waiting_for_ask.remove(at);
            let _ = done.send(result.clone().map(drop));
        }
        match (ask, result) {
            (Ask::Dial, result) => self.dialed(now, result),
            (Ask::HangUp, Ok(_)) => {
                self.hanging_up = false;
                self.end(now, self.our_end());
            }
            (Ask::HangUp, Err(fault)) => self.hang_up_failed(now, &fault),
            (Ask::Transfer(to), Ok(_)) => {
                self.facts.transferred_to = Some(to);
                self.amend();
            }
            // After a timeout nobody knows what the vendor did: the stream's deadline decides.
            (Ask::Accept | Ask::StartStream, Err(fault)) if !fault.in_doubt && self.leg == Leg::Awaited => {
                let reason = match self.facts.lost_streams.is_empty() {
                    true => EndReason::Failed,
                    false => EndReason::MediaLost,
                };
                self.end(now, reason);
                self.ask_hang_up();
            }
            (Ask::Accept | Ask::StartStream | Ask::Enhance(_) | Ask::Transfer(_) | Ask::Digits(_), _) => {}
        }
    }

    pub(super) fn dialed(&mut self, now: Now, result: Result<String, Fault>) {
        self.dialing = false;
        let waiting = std::mem::take(&mut self.waiting_for_dial);
        match result {
            Ok(sid) => {
                self.learn_sid(&sid);
                waiting.into_iter().for_each(|d| self.when_durable(d));
                if self.is_ended() {
                    self.ask_hang_up();
                } else if self.hang_up_wanted {
                    self.hang_up(now, None);
                }
            }
            Err(fault) => {
                // Where nobody knows whether the phone rings, the stream's deadline decides.
                if !fault.in_doubt {
                    self.end(now, EndReason::Failed);
                }
                for done in waiting {
                    let _ = done.send(Err(fault.clone()));
                }
            }
        }
    }

    pub(super) fn hang_up_failed(&mut self, now: Now, fault: &Fault) {
        self.hanging_up = false;
        let somebody_waits = !self.waiting_for_end.is_empty();
        self.refuse_hang_up(fault);
        if !somebody_waits && self.terms.close_ends_call {
            self.end(now, self.our_end());
        }
    }

    pub(super) fn stream_overdue(&mut self, now: Now) {
        let reason = match (self.answered.is_none(), self.row.inbound) {
            _ if !self.facts.lost_streams.is_empty() => EndReason::MediaLost,
            (true, false) => EndReason::NoAnswer,
            _ => EndReason::Failed,
        };
        self.end(now, reason);
        self.ask_hang_up();
    }

    pub(super) fn end(&mut self, now: Now, reason: EndReason) {
        self.end_with(now, reason, 1000, "the call has ended");
    }

    pub(super) fn end_with(&mut self, now: Now, reason: EndReason, code: u16, close_reason: &'static str) {
        if self.is_ended() || self.void {
            return;
        }
        if self.leg == Leg::Live {
            self.effects.push_back(Effect::Close {
                code,
                reason: close_reason,
            });
        } else {
            self.settle_rest(now);
        }
        if std::mem::take(&mut self.enhanced) {
            self.ask(Ask::Enhance(false));
        }
        for timer in [Timer::Stream, Timer::LengthWarning, Timer::Length] {
            self.timers.clear(timer);
        }
        self.timers.set(Timer::Linger, now.mono + LINGER);
        self.row.status = CallStatus::Ended;
        self.row.end_reason = Some(reason);
        self.row.end_time = Some(now.wall);
        self.row.metadata = self.facts.to_json();
        self.row.duration = Some(duration_s(self.answered, now.mono));
        let write = self.changes(CallChange {
            status: Some(CallStatus::Ended),
            end_reason: Some(reason),
            end_time: self.row.end_time,
            duration: self.row.duration,
            metadata: Some(self.row.metadata.clone()),
            ..CallChange::default()
        });
        // Due a while after the last that may still be amended; the call's task makes it due once it is over.
        let due = Wall::from_micros(now.wall.as_micros() + (LINGER * 2).as_micros() as i64);
        let job = Write::Job(Box::new(JobRow::after_call(&self.row, now.wall, due)));
        self.keep(now, [write, job], self.status_news(), [Then::Released]);
        for done in std::mem::take(&mut self.waiting_for_end) {
            self.when_durable(done);
        }
    }

    /// Best effort: nobody waits for it, and a refusal changes nothing.
    pub(super) fn ask_hang_up(&mut self) {
        if self.terms.rest && self.knows_sid() && !self.hanging_up {
            self.hanging_up = true;
            self.ask(Ask::HangUp);
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        self.asking += 1;
        self.effects.push_back(Effect::Ask(ask));
    }
}
