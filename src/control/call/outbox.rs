//! What a call writes, on its way to the store: one batch in the air, the rest gathers behind it.
//!
//! So order is kept, a slow disk makes batches larger instead of queues longer, and a batch that failed is tried again
//! before anything later. What a step makes true ([`Then`]) is handed back once the step is durable, never before.

use crate::{
    base::fault::Fault,
    bus::Event,
    store::{Batch, Write},
};
use tokio::sync::oneshot;

/// Writes that may gather before what is not essential is refused.
pub(in crate::control) const MAX_WAITING: usize = 512;

/// Tells somebody that a step is durable, or why it will not be.
pub(in crate::control) type Done = oneshot::Sender<Result<(), Fault>>;

/// What follows from a commit.
#[derive(Debug)]
pub(in crate::control) enum Then {
    /// Publish; the event's id is that of the step's [`Write::Event`].
    Publish(Box<Event>),
    /// Tell whoever waits.
    Tell(Done),
    /// The call's record exists.
    Created,
    /// The call's end is on record.
    Released,
}

#[derive(Debug, Default)]
struct Load {
    writes: Vec<Write>,
    then: Vec<Then>,
}

/// The queue.
#[derive(Debug, Default)]
pub(in crate::control) struct Outbox {
    flying: Option<Load>,
    waiting: Load,
}

impl Outbox {
    /// Appends a step. Each [`Then::Publish`] belongs to one [`Write::Event`], in order.
    pub(in crate::control) fn push(
        &mut self,
        writes: impl IntoIterator<Item = Write>,
        then: impl IntoIterator<Item = Then>,
    ) {
        self.waiting.writes.extend(writes);
        self.waiting.then.extend(then);
    }

    /// Whether so much waits that only essential steps may still be pushed.
    pub(in crate::control) const fn is_full(&self) -> bool {
        self.waiting.writes.len() >= MAX_WAITING
    }

    /// Whether nothing is on its way.
    pub(in crate::control) const fn is_idle(&self) -> bool {
        self.flying.is_none() && self.waiting.writes.is_empty() && self.waiting.then.is_empty()
    }

    /// The next batch to commit, if none is in the air.
    pub(in crate::control) fn take(&mut self) -> Option<Batch> {
        if self.flying.is_some() || self.waiting.writes.is_empty() {
            return None;
        }
        self.flying = Some(std::mem::take(&mut self.waiting));
        self.again()
    }

    /// The batch in the air once more.
    pub(in crate::control) fn again(&self) -> Option<Batch> {
        self.flying.as_ref().map(|load| Batch {
            writes: load.writes.clone(),
        })
    }

    /// The batch in the air is durable: what follows from it, its events numbered.
    pub(in crate::control) fn done(&mut self, event_ids: &[i64]) -> Vec<Then> {
        let mut then = self.abandon();
        let mut ids = event_ids.iter();
        for step in &mut then {
            if let Then::Publish(event) = step {
                event.id = ids.next().copied();
            }
        }
        then
    }

    /// Gives the batch in the air up: what would have followed from it.
    pub(in crate::control) fn abandon(&mut self) -> Vec<Then> {
        self.flying.take().map(|load| load.then).unwrap_or_default()
    }

    /// What follows from steps that had nothing to write, once all before them is durable.
    pub(in crate::control) fn free(&mut self) -> Vec<Then> {
        if self.flying.is_some() || !self.waiting.writes.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting.then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{
            ids::{CallId, TenantId},
            time::Wall,
        },
        bus::News,
    };
    use proptest::prelude::*;

    fn event(n: u32) -> (Write, Then) {
        let call = CallId::new();
        let digit = char::from_u32(n).unwrap_or('?');
        let write = Write::Event {
            tenant: TenantId(1),
            call_id: call,
            payload: n.to_string(),
        };
        let event = Event {
            tenant: TenantId(1),
            call,
            id: None,
            at: Wall::default(),
            news: News::Dtmf(digit),
        };
        (write, Then::Publish(Box::new(event)))
    }

    #[test]
    fn a_failed_batch_is_tried_again_before_anything_later() {
        let mut outbox = Outbox::default();
        let (write, then) = event(1);
        outbox.push([write], [then]);
        assert_eq!(outbox.take().unwrap().writes.len(), 1);
        let (write, then) = event(2);
        outbox.push([write], [then]);
        assert!(outbox.take().is_none());
        assert_eq!(outbox.again().unwrap().writes.len(), 1);
        assert_eq!(outbox.done(&[7]).len(), 1);
        assert_eq!(outbox.take().unwrap().writes.len(), 1);
    }

    #[test]
    fn whoever_waits_for_nothing_is_told_once_all_before_is_durable() {
        let mut outbox = Outbox::default();
        let (done, _told) = oneshot::channel();
        outbox.push([], [Then::Tell(done)]);
        assert_eq!(outbox.free().len(), 1);
        let (write, then) = event(1);
        outbox.push([write], [then]);
        outbox.take().unwrap();
        let (done, _told) = oneshot::channel();
        outbox.push([], [Then::Tell(done)]);
        assert!(outbox.free().is_empty() && !outbox.is_idle());
        outbox.done(&[1]);
        assert_eq!(outbox.free().len(), 1);
        assert!(outbox.is_idle());
    }

    proptest! {
        #[test]
        fn events_are_published_once_in_order_and_with_their_own_id(ops in prop::collection::vec(0u8..4, 1..120)) {
            let mut outbox = Outbox::default();
            let (mut pushed, mut next_id, mut in_air) = (0u32, 0i64, Vec::new());
            let mut published = Vec::new();
            for op in ops.into_iter().chain([2, 3, 2, 3]) {
                match op {
                    0 | 1 => {
                        pushed += 1;
                        let (write, then) = event(pushed);
                        outbox.push([write], [then]);
                    }
                    2 => if let Some(batch) = outbox.take() {
                        in_air = batch.writes.iter().map(|w| match w {
                            Write::Event { payload, .. } => payload.parse::<i64>().unwrap(),
                            _ => unreachable!(),
                        }).collect();
                    },
                    _ => {
                        for then in outbox.done(&in_air) {
                            let Then::Publish(event) = then else { continue };
                            next_id += 1;
                            prop_assert_eq!(event.id, Some(next_id));
                            published.push(event);
                        }
                        in_air.clear();
                    }
                }
            }
            prop_assert_eq!(published.len(), pushed as usize);
        }
    }
}
