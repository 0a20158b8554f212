//! Puts key presses into the order in which they happened, for vendors whose messages may overtake each other. Pure.
//!
//! A press waits a moment for those that were pressed before it and come after. What comes later still is late, not lost.

use crate::base::time::{Mono, Wall};
use std::time::Duration;

/// How long a press waits.
const WAIT: Duration = Duration::from_millis(150);
/// Presses that may wait.
const MAX: usize = 16;

#[derive(Debug)]
struct Press {
    at: Wall,
    came: Mono,
    key: char,
}

/// The presses that wait, in order.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Press>);

impl Keys {
    /// A key that was pressed at `at`. Of two at one time the first to come is first.
    pub(super) fn press(&mut self, now: Mono, at: Wall, key: char) {
        let place = self.0.partition_point(|p| p.at <= at);
        self.0.insert(place, Press { at, came: now, key });
    }

    /// When [`Keys::due`] has something, at the latest.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.iter().map(|p| p.came + WAIT).min()
    }

    /// Takes the earliest, when it or one after it has waited long enough, or too many wait.
    pub(super) fn due(&mut self, now: Mono) -> Option<char> {
        let is_due = self.0.len() > MAX || self.next().is_some_and(|at| at <= now);
        is_due.then(|| self.0.remove(0).key)
    }

    /// Takes the earliest, however long it has waited.
    pub(super) fn take(&mut self) -> Option<char> {
        (!self.0.is_empty()).then(|| self.0.remove(0).key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Wall {
        Wall::from_micros(ms * 1000)
    }

    fn due(keys: &mut Keys, ms: u64) -> String {
        std::iter::from_fn(|| keys.due(Mono::from_millis(ms))).collect()
    }

    #[test]
    fn presses_that_crossed_are_put_in_order_and_none_waits_for_long() {
        let mut keys = Keys::default();
        keys.press(Mono::from_millis(1000), at(20), '2');
        keys.press(Mono::from_millis(1040), at(10), '1');
        keys.press(Mono::from_millis(1100), at(90), '3');
        assert_eq!(keys.next(), Some(Mono::from_millis(1150)));
        assert_eq!(due(&mut keys, 1149), "");
        assert_eq!(due(&mut keys, 1150), "12", "what was pressed before goes before");
        assert_eq!(due(&mut keys, 1249), "");
        assert_eq!(due(&mut keys, 1250), "3");
        assert_eq!(keys.next(), None);
    }

    #[test]
    fn one_that_comes_too_late_is_late_and_not_lost() {
        let mut keys = Keys::default();
        keys.press(Mono::from_millis(0), at(20), '2');
        assert_eq!(due(&mut keys, 150), "2");
        keys.press(Mono::from_millis(151), at(10), '1');
        assert_eq!(keys.take(), Some('1'));
        assert_eq!(keys.take(), None);
    }

    proptest! {
        #[test]
        fn each_press_comes_out_once_and_few_wait(presses in proptest::collection::vec((0..400u64, 0..400i64), 0..60)) {
            let mut keys = Keys::default();
            let (mut now, mut out) = (0, 0);
            for (pause, pressed) in &presses {
                now += pause / 8;
                keys.press(Mono::from_millis(now), at(*pressed), '5');
                out += due(&mut keys, now).len();
                prop_assert!(keys.0.len() <= MAX);
                prop_assert!(keys.0.is_sorted_by_key(|p| p.at));
            }
            out += std::iter::from_fn(|| keys.take()).count();
            prop_assert_eq!(out, presses.len());
        }
    }
}
