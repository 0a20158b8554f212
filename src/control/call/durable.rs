//! What follows from a commit, and from one that failed for good.

use super::{Ask, Call, Done, Effect, Leg, Now, Timer, outbox::Then, retry_schedule};
use crate::{
    base::fault::{Fault, Kind},
    store::{CallStatus, Committed},
};
use std::time::Duration;

impl Call {
    /// Tells `done` once all that happened so far is durable.
    pub(in crate::control) fn when_durable(&mut self, done: Done) {
        if self.void {
            refuse(done, &seen_before());
        } else {
            self.outbox.push([], [Then::Tell(done)]);
        }
    }

    /// What became of the batch of the last [`Effect::Commit`].
    pub(in crate::control) fn committed(&mut self, now: Now, result: Result<Committed, Fault>) {
        match result {
            Ok(Committed::Done { event_ids }) => {
                self.retry = retry_schedule();
                let then = self.outbox.done(&event_ids);
                self.follow(then);
            }
            Ok(Committed::Duplicate) => self.annul(&seen_before()),
            Err(fault) if fault.retryable() => {
                // The delays need no jitter: one call has one batch in the air. The budget only ends with the call's life.
                let delay = self.retry.next(1.0).unwrap_or(Duration::from_secs(5));
                self.timers.set(Timer::Retry, now.mono + delay);
            }
            Err(fault) => {
                self.effects.push_back(Effect::StoreFault(fault.clone()));
                if self.created {
                    self.give_up(&fault);
                } else {
                    self.annul(&fault);
                }
            }
        }
    }

    pub(super) fn follow(&mut self, then: Vec<Then>) {
        for step in then {
            match step {
                Then::Publish(event) => self.effects.push_back(Effect::Publish(event)),
                Then::Tell(done) => self.effects.push_back(Effect::Tell(done)),
                Then::Created => self.exists(),
                Then::Released => self.effects.push_back(Effect::Released),
            }
        }
    }

    pub(super) fn exists(&mut self) {
        self.created = true;
        self.effects.push_back(Effect::Created);
        if self.row.inbound {
            if self.terms.handling.by_command && self.row.status < CallStatus::Answered {
                self.ask(Ask::Accept);
            }
            return;
        }
        if self.is_ended() {
            let fault = Fault::client(Kind::Conflict, "the call was ended before it was placed");
            return self.waiting_for_dial.drain(..).for_each(|done| refuse(done, &fault));
        }
        self.dialing = true;
        self.ask(Ask::Dial);
    }

    /// One batch is lost: whoever waits for it learns why, nobody is told what it would have made true.
    pub(super) fn give_up(&mut self, fault: &Fault) {
        for step in self.outbox.abandon() {
            match step {
                Then::Tell(done) => refuse(done, fault),
                Then::Released => self.effects.push_back(Effect::Released),
                Then::Publish(_) | Then::Created => {}
            }
        }
    }

    /// The call never was.
    pub(super) fn annul(&mut self, fault: &Fault) {
        self.void = true;
        self.give_up(fault);
        while self.outbox.take().is_some() {
            self.give_up(fault);
        }
        let waiting = self.outbox.free().into_iter().filter_map(|step| match step {
            Then::Tell(done) => Some(done),
            _ => None,
        });
        let waiting = waiting
            .chain(self.waiting_for_dial.drain(..))
            .chain(self.waiting_for_end.drain(..));
        waiting.for_each(|done| refuse(done, fault));
        if self.leg == Leg::Live {
            self.effects.push_back(Effect::Close {
                code: 1008,
                reason: "the call is over",
            });
        }
    }
}

fn seen_before() -> Fault {
    Fault::client(Kind::Conflict, "the call was seen before and is over")
}

pub(super) fn refuse(done: Done, fault: &Fault) {
    let _ = done.send(Err(fault.clone()));
}
