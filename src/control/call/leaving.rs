//! A call that moves to another node before its stream begins: what the node that had it tells, and how the other goes on.

use super::{Call, Effect, Leg, Now, Terms};
use crate::{
    control::cdr::Facts,
    store::{CallRow, CallStatus},
};

/// What is not on record of a call that was let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct Left {
    /// The number of its last message.
    pub(in crate::control) seq: i64,
    /// No vendor carries it.
    pub(in crate::control) simulated: bool,
}

impl Call {
    /// A call that another node let go of, as it is on record; its media stream is here.
    pub(in crate::control) fn adopted(now: Now, row: CallRow, terms: Terms, facts: Facts, seq: i64) -> Self {
        let mut call = Self::bare(now, row, terms, facts);
        let answered = call.row.status >= CallStatus::Answered;
        call.seq = seq;
        call.created = true;
        call.enhanced = answered && terms.handling.enhance;
        call.answered = answered.then_some(now.mono);
        call.effects.push_back(Effect::Created);
        call
    }

    /// Whether another node may take it: it has never had a stream.
    pub(in crate::control) fn may_leave(&self) -> bool {
        self.leg == Leg::Awaited && !self.has_leg() && !self.is_ended() && !self.void
    }

    /// What was to be said to a caller who cannot hear yet will not be said.
    pub(in crate::control) fn give_words_up(&mut self, now: Now) {
        self.settle_rest(now);
    }

    /// Whether all that happened is on record, and nothing is asked of the vendor.
    pub(in crate::control) fn is_settled(&self) -> bool {
        self.created && self.asking == 0 && !self.dialing && self.outbox.is_idle() && self.effects.is_empty()
    }

    /// What is not on record of it.
    pub(in crate::control) const fn left(&self) -> Left {
        Left {
            seq: self.seq,
            simulated: self.facts.simulated,
        }
    }
}
