//! What people and agents want of a call, beside its end: another status, a number, keys, another agent.

use super::durable::refuse;
use super::{Ask, Call, Done, Now};
use crate::{
    base::fault::{Fault, Kind},
    bus::News,
    control::cdr::Handoff,
    store::{CallChange, CallStatus},
};

impl Call {
    /// A person moves the call on.
    pub(in crate::control) fn set_status(&mut self, now: Now, status: CallStatus, done: Done) {
        match status {
            CallStatus::Ended => self.hang_up(now, Some(done)),
            CallStatus::Answered | CallStatus::InProgress => {
                self.advance(now, status);
                self.when_durable(done);
            }
            CallStatus::Initiated | CallStatus::Ringing | CallStatus::Incoming => {
                let hint = "a call is moved to answered, in_progress or ended";
                let _ = done.send(Err(Fault::client(Kind::Invalid, hint)));
            }
        }
    }

    /// Tells `done` when the vendor has taken a call of ours.
    pub(in crate::control) fn when_dialed(&mut self, done: Done) {
        self.waiting_for_dial.push(done);
    }

    /// Asks the vendor to hand the call to a number, and tells `done` what it said.
    pub(in crate::control) fn transfer(&mut self, to: String, done: Option<Done>) {
        self.ask_for(Ask::Transfer(to), done);
    }

    /// Asks the vendor to send keys, and tells `done` what it said.
    pub(in crate::control) fn digits(&mut self, digits: String, done: Option<Done>) {
        self.ask_for(Ask::Digits(digits), done);
    }

    pub(super) fn ask_for(&mut self, ask: Ask, done: Option<Done>) {
        if self.is_ended() || self.void {
            let over = Fault::client(Kind::Conflict, "the call has ended");
            return done.into_iter().for_each(|done| refuse(done, &over));
        }
        if let Some(done) = done {
            self.waiting_for_ask.push((ask.clone(), done));
        }
        self.ask(ask);
    }

    /// Gives the call to another agent.
    pub(in crate::control) fn hand_off(&mut self, now: Now, to: &str, why: &'static str, by: Option<String>) {
        let from = std::mem::replace(&mut self.row.agent, to.to_owned());
        self.facts.handoffs.push(Handoff {
            at: now.wall,
            from,
            to: to.to_owned(),
            why,
            by,
        });
        let write = self.changes(CallChange {
            agent: Some(to.to_owned()),
            metadata: Some(self.facts.to_json()),
            ..CallChange::default()
        });
        self.keep(now, [write], News::Handoff { agent: to.to_owned() }, []);
    }
}
