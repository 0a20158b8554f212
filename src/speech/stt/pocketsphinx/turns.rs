//! What waits for a worker, in turns: one of each tenant after the other, each tenant's own in the order in which it came.
//!
//! Bounded. A tenant alone may have all the room; where it is short, whoever waits with most makes way for others, so that no
//! tenant's many calls leave another's without a turn.

use crate::base::ids::TenantId;
use std::collections::{HashMap, VecDeque};

/// What became of something that was to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered<T> {
    /// It waits.
    Waits,
    /// It waits, and this does no more: the newest of the tenant that had most.
    Displaced(T),
    /// There is no room for it.
    Full(T),
}

/// Things that wait.
#[derive(Debug)]
pub(super) struct Turns<T> {
    most: usize,
    len: usize,
    waiting: HashMap<TenantId, VecDeque<T>>,
    /// Tenants of whom something waits, the next in turn first.
    order: VecDeque<TenantId>,
}

impl<T> Turns<T> {
    /// Room for `most` in all.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            len: 0,
            waiting: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn of(&self, tenant: TenantId) -> usize {
        self.waiting.get(&tenant).map_or(0, VecDeque::len)
    }

    /// Lets something of a tenant's wait.
    pub(super) fn push(&mut self, tenant: TenantId, one: T) -> Entered<T> {
        let mut displaced = None;
        if self.len >= self.most {
            let greediest = self.order.iter().copied().max_by_key(|t| self.of(*t));
            // With one more the newcomer would have as many at least: then nothing would be gained.
            match greediest.filter(|g| self.of(*g) > self.of(tenant) + 1) {
                Some(greediest) => displaced = self.take(greediest, VecDeque::pop_back),
                None => return Entered::Full(one),
            }
        }
        let theirs = self.waiting.entry(tenant).or_default();
        if theirs.is_empty() {
            self.order.push_back(tenant);
        }
        theirs.push_back(one);
        self.len += 1;
        displaced.map_or(Entered::Waits, Entered::Displaced)
    }

    /// The next in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let tenant = *self.order.front()?;
        let one = self.take(tenant, VecDeque::pop_front);
        if self.order.front() == Some(&tenant) {
            self.order.rotate_left(1);
        }
        one
    }

    fn take(&mut self, tenant: TenantId, end: fn(&mut VecDeque<T>) -> Option<T>) -> Option<T> {
        let theirs = self.waiting.get_mut(&tenant)?;
        let one = end(theirs)?;
        self.len -= 1;
        if theirs.is_empty() {
            self.waiting.remove(&tenant);
            self.order.retain(|t| *t != tenant);
        }
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);
    const C: TenantId = TenantId(3);

    #[test]
    fn tenants_take_turns_and_keep_their_own_order() {
        let mut turns = Turns::new(10);
        for one in ["a1", "a2", "a3"] {
            assert_eq!(turns.push(A, one), Entered::Waits);
        }
        turns.push(B, "b1");
        turns.push(C, "c1");
        turns.push(C, "c2");
        assert_eq!(turns.pop(), Some("a1"));
        // Who comes back comes behind all who wait.
        turns.push(B, "b2");
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ["b1", "c1", "a2", "b2", "c2", "a3"]);
        assert!(turns.waiting.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn who_waits_with_most_makes_way_for_others_and_not_for_himself() {
        let mut turns = Turns::new(4);
        for one in ["a1", "a2", "a3", "a4"] {
            assert_eq!(turns.push(A, one), Entered::Waits);
        }
        assert_eq!(turns.push(A, "a5"), Entered::Full("a5"));
        assert_eq!(turns.push(B, "b1"), Entered::Displaced("a4"));
        assert_eq!(turns.push(B, "b2"), Entered::Displaced("a3"));
        assert_eq!(turns.push(B, "b3"), Entered::Full("b3"), "two and two is fair");
        assert!(matches!(turns.push(C, "c1"), Entered::Displaced("a2" | "b2")));
        assert_eq!(turns.push(C, "c2"), Entered::Full("c2"));
    }

    proptest! {
        /// Against any others: the room is kept, a tenant's order too, and whoever waits is served once all others who wait
        /// have had a turn.
        #[test]
        fn nobody_waits_longer_than_a_turn_of_each_other(steps in prop::collection::vec((0..4i64, any::<bool>()), 1..200), most in 1..12usize) {
            let mut turns = Turns::new(most);
            let mut waiting: HashMap<i64, VecDeque<usize>> = HashMap::new();
            let mut since: HashMap<i64, usize> = HashMap::new();
            for (n, (tenant, comes)) in steps.into_iter().enumerate() {
                if comes {
                    match turns.push(TenantId(tenant), (tenant, n)) {
                        Entered::Full(_) => {
                            prop_assert_eq!(waiting.values().map(VecDeque::len).sum::<usize>(), most);
                            continue;
                        }
                        Entered::Displaced((loser, newest)) => {
                            let theirs = waiting.get_mut(&loser).unwrap();
                            prop_assert_eq!(theirs.pop_back(), Some(newest));
                            prop_assert!(waiting.values().all(|t| t.len() <= waiting[&loser].len() + 1));
                        }
                        Entered::Waits => {}
                    }
                    waiting.entry(tenant).or_default().push_back(n);
                } else if let Some((tenant, n)) = turns.pop() {
                    prop_assert_eq!(waiting.get_mut(&tenant).and_then(VecDeque::pop_front), Some(n));
                    since.remove(&tenant);
                    for (other, theirs) in &waiting {
                        let passed = since.entry(*other).or_default();
                        *passed = if theirs.is_empty() || *other == tenant { 0 } else { *passed + 1 };
                        prop_assert!(*passed <= 3, "tenant {} was passed over", other);
                    }
                }
                prop_assert!(waiting.values().map(VecDeque::len).sum::<usize>() <= most);
                prop_assert_eq!(turns.len, waiting.values().map(VecDeque::len).sum::<usize>());
            }
        }
    }
}
