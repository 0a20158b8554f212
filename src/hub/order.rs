//! Puts the events of one tenant into the order of their ids.
//!
//! Ids are given by commits; each call publishes its own events when its commit returns, so those of two calls can arrive
//! crossed. A client that reconnects asks for what follows the last id it saw: it must not have seen 8 before 7. Pure.

use crate::base::time::Mono;
use std::{collections::BTreeMap, time::Duration};

/// How long a missing event is waited for before it is read from the store.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Events that may wait for a missing one.
const MAX_HELD: usize = 1024;

/// The order of one tenant.
#[derive(Debug)]
pub struct Order<T> {
    /// The first id that came and the one that is due.
    span: Option<(i64, i64)>,
    held: BTreeMap<i64, T>,
    since: Mono,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            span: None,
            held: BTreeMap::new(),
            since: Mono::ZERO,
        }
    }
}

impl<T> Order<T> {
    /// An event came: those that are now due, in order.
    pub fn place(&mut self, id: i64, event: T, now: Mono) -> Vec<T> {
        let (first, next) = *self.span.get_or_insert((id, id));
        if id < first {
            // Crossed with the very first: late is better than never.
            return vec![event];
        }
        if id > next {
            if self.held.is_empty() {
                self.since = now;
            }
            self.held.insert(id, event);
            return Vec::new();
        }
        if id < next {
            // Read from the store already.
            return Vec::new();
        }
        self.span = Some((first, id + 1));
        let mut due = vec![event];
        self.follow(&mut due, now);
        due
    }

    /// Whether an event waits for one that is missing.
    pub fn waits(&self) -> bool {
        !self.held.is_empty()
    }

    /// The last id in order, when what should follow it is overdue and must be read from the store.
    pub fn overdue(&self, now: Mono) -> Option<i64> {
        let late = now.since(self.since) >= PATIENCE || self.held.len() > MAX_HELD;
        self.last().filter(|_| late && self.waits())
    }

    /// The store was read up to `last` (and knows of nothing between that and what is held): those that are now due.
    pub fn filled(&mut self, last: i64, now: Mono) -> Vec<T> {
        self.held.retain(|id, _| *id > last);
        let next = self.held.keys().next().copied().unwrap_or(last + 1);
        self.span = Some((self.span.map_or(next, |(first, _)| first), next));
        let mut due = Vec::new();
        self.follow(&mut due, now);
        due
    }

    /// The last id that was in order, to catch up from after the news were interrupted.
    pub fn last(&self) -> Option<i64> {
        self.span.map(|(_, next)| next - 1)
    }

    fn follow(&mut self, due: &mut Vec<T>, now: Mono) {
        while let Some((first, next)) = self.span
            && let Some(event) = self.held.remove(&next)
        {
            self.span = Some((first, next + 1));
            due.push(event);
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: Mono = Mono::from_millis(1000);

    #[test]
    fn crossed_events_are_put_in_order() {
        let mut order = Order::default();
        assert_eq!(order.place(5, 5, T0), [5]);
        assert!(order.place(8, 8, T0).is_empty());
        assert!(order.place(7, 7, T0).is_empty());
        assert_eq!(order.place(6, 6, T0), [6, 7, 8]);
        assert_eq!(order.overdue(T0 + PATIENCE), None);
    }

    #[test]
    fn a_missing_event_is_asked_for_once_overdue_and_late_ones_change_nothing() {
        let mut order = Order::default();
        order.place(5, 5, T0);
        order.place(8, 8, T0);
        order.place(9, 9, T0 + PATIENCE / 2);
        assert_eq!(order.overdue(T0 + PATIENCE / 2), None);
        assert_eq!(order.overdue(T0 + PATIENCE), Some(5));
        assert_eq!(order.filled(7, T0 + PATIENCE), [8, 9]);
        assert!(order.place(6, 6, T0 + PATIENCE).is_empty());
        assert_eq!(order.place(10, 10, T0 + PATIENCE), [10]);
    }

    #[test]
    fn an_event_that_crossed_with_the_first_is_late_and_not_lost() {
        let mut order = Order::default();
        assert_eq!(order.place(6, 6, T0), [6]);
        assert_eq!(order.place(5, 5, T0), [5]);
        assert_eq!(order.place(7, 7, T0), [7]);
    }

    #[test]
    fn what_the_store_has_told_is_not_told_again() {
        let mut order = Order::default();
        order.place(1, 1, T0);
        order.place(4, 4, T0);
        assert!(order.filled(6, T0).is_empty());
        assert!(order.place(5, 5, T0).is_empty());
        assert_eq!(order.place(7, 7, T0), [7]);
    }

    proptest! {
        #[test]
        fn whatever_the_crossing_each_comes_once_and_in_order(ids in Just((2..60i64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut order = Order::default();
            let mut seen = order.place(1, 1, T0);
            for id in ids {
                seen.extend(order.place(id, id, T0));
            }
            prop_assert_eq!(seen, (1..60).collect::<Vec<_>>());
        }
    }
}
