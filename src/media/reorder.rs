//! Puts audio messages that overtook each other back in order, by their number, before anything is decoded.
//!
//! A message that comes too early waits for at most [`SLOTS`] others, so the delay is bounded by what arrives and no clock is
//! asked. One that comes too late is dropped, as is a repetition. Numbers that make no sense are no longer looked at.

/// Messages that may wait: 60 ms of the usual 20.
const SLOTS: usize = 3;
/// Longest payload that waits; 20 ms at 48 kHz in base64 has 2560 bytes.
const LONGEST: usize = 4096;
/// So many messages dropped in a row say that it is the numbers that are wrong.
const MISTRUST: u32 = 8;

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Take it, then what [`Reorder::ready`] gives.
    Now,
    /// It waits.
    Held,
    /// Take what [`Reorder::ready`] gives, then ask again: the gap before the waiting ones is given up.
    Full,
    /// Drop it.
    Late,
}

/// A message that waits.
#[derive(Debug, Default)]
pub(super) struct Held {
    chunk: u64,
    /// As it came.
    pub(super) payload: Vec<u8>,
    /// Its presentation time.
    pub(super) at_ms: Option<u64>,
}

/// The order of one stream.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    /// The number that is due. `None` before the first.
    due: Option<u64>,
    held: [Option<Held>; SLOTS],
    /// Buffers that wait for the next use.
    spare: Vec<Held>,
    late: u32,
    mistrusted: bool,
    /// Messages given up on right before the one that is due.
    lost: u64,
}

impl Reorder {
    /// Where a message belongs.
    pub(super) fn admit(&mut self, chunk: Option<u64>, payload: &[u8], at_ms: Option<u64>) -> Turn {
        let Some(chunk) = chunk.filter(|_| !self.mistrusted) else {
            return Turn::Now;
        };
        let due = *self.due.get_or_insert(chunk);
        if chunk < due || self.held.iter().flatten().any(|h| h.chunk == chunk) {
            self.late += 1;
            self.mistrusted = self.late >= MISTRUST;
            return Turn::Late;
        }
        if chunk == due {
            self.late = 0;
            self.due = Some(due.saturating_add(1));
            return Turn::Now;
        }
        let Some(slot) = self
            .held
            .iter_mut()
            .find(|h| h.is_none())
            .filter(|_| payload.len() <= LONGEST)
        else {
            self.give_up(chunk);
            return Turn::Full;
        };
        let mut held = self.spare.pop().unwrap_or_default();
        held.payload.clear();
        held.payload.extend_from_slice(payload);
        (held.chunk, held.at_ms) = (chunk, at_ms);
        *slot = Some(held);
        Turn::Held
    }

    /// What is due is not waited for any longer: the oldest of what is here is next.
    fn give_up(&mut self, chunk: u64) {
        let waiting = self.held.iter().flatten().map(|h| h.chunk);
        let next = waiting.min().map_or(chunk, |first| first.min(chunk));
        self.go_on_at(next);
    }

    /// Nothing more comes: what waits is due.
    pub(super) fn finish(&mut self) {
        if let Some(next) = self.held.iter().flatten().map(|h| h.chunk).min() {
            self.go_on_at(next);
        }
    }

    fn go_on_at(&mut self, next: u64) {
        self.lost = self.due.map_or(0, |due| next.saturating_sub(due));
        self.due = Some(next);
    }

    /// How many messages are missing before the one that is taken now.
    pub(super) const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }

    /// The waiting message that is due now. Give it back with [`Reorder::reuse`].
    pub(super) fn ready(&mut self) -> Option<Held> {
        let due = self.due?;
        let slot = self
            .held
            .iter_mut()
            .find(|h| h.as_ref().is_some_and(|h| h.chunk == due))?;
        self.due = Some(due.saturating_add(1));
        slot.take()
    }

    /// Keeps the buffer of a message that was taken.
    pub(super) fn reuse(&mut self, held: Held) {
        self.spare.push(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The numbers in the order they are taken, and how many were dropped.
    fn taken(numbers: &[u64]) -> (Vec<u64>, usize) {
        let (mut order, mut out, mut late) = (Reorder::default(), Vec::new(), 0);
        fn drain(order: &mut Reorder, out: &mut Vec<u64>) {
            while let Some(held) = order.ready() {
                assert_eq!(held.payload, held.chunk.to_le_bytes());
                out.push(held.chunk);
                order.reuse(held);
            }
        }
        for n in numbers {
            loop {
                match order.admit(Some(*n), &n.to_le_bytes(), None) {
                    Turn::Now => out.push(*n),
                    Turn::Held => {}
                    Turn::Late => late += 1,
                    Turn::Full => {
                        drain(&mut order, &mut out);
                        continue;
                    }
                }
                break;
            }
            drain(&mut order, &mut out);
        }
        order.finish();
        while !order.held.iter().all(Option::is_none) {
            drain(&mut order, &mut out);
            order.finish();
        }
        (out, late)
    }

    #[test]
    fn the_greatest_number_of_all_is_a_number() {
        assert_eq!(taken(&[u64::MAX]), (vec![u64::MAX], 0));
        assert_eq!(taken(&[7, u64::MAX]), (vec![7, u64::MAX], 0));
    }

    #[test]
    fn neighbours_that_changed_places_are_put_back() {
        assert_eq!(taken(&[1, 3, 2, 4, 6, 5, 7]), (vec![1, 2, 3, 4, 5, 6, 7], 0));
        assert_eq!(taken(&[5, 8, 7, 6, 9]), (vec![5, 6, 7, 8, 9], 0));
    }

    #[test]
    fn a_lost_message_is_waited_for_and_given_up() {
        assert_eq!(taken(&[1, 3, 4, 5, 6, 7]), (vec![1, 3, 4, 5, 6, 7], 0));
        assert_eq!(taken(&[1, 3, 4, 5, 6, 2, 7]), (vec![1, 3, 4, 5, 6, 7], 1), "too late");
        assert_eq!(
            taken(&[1, 1000, 1001]),
            (vec![1, 1000, 1001], 0),
            "at the end what waits is taken"
        );
    }

    #[test]
    fn what_was_given_up_is_counted_before_the_next() {
        let mut order = Reorder::default();
        assert_eq!(order.admit(Some(1), b"", None), Turn::Now);
        for n in [4, 5, 7] {
            assert_eq!(order.admit(Some(n), b"", None), Turn::Held);
        }
        assert_eq!(order.admit(Some(8), b"", None), Turn::Full);
        let mut taken = || order.ready().map(|held| (held.chunk, order.take_lost()));
        assert_eq!([taken(), taken(), taken()], [Some((4, 2)), Some((5, 0)), None]);
        order.finish();
        assert_eq!(order.ready().map(|held| (held.chunk, order.take_lost())), Some((7, 1)));
    }

    #[test]
    fn a_repetition_is_dropped_wherever_it_comes() {
        assert_eq!(taken(&[1, 2, 2, 4, 4, 3]), (vec![1, 2, 3, 4], 2));
    }

    #[test]
    fn numbers_that_make_no_sense_cost_little() {
        let (out, late) = taken(&[1; 100]);
        assert_eq!((out.len() + late, late), (100, MISTRUST as usize));
        let mut order = Reorder::default();
        assert!((0..9).all(|_| order.admit(None, b"", None) == Turn::Now));
    }

    #[test]
    fn a_message_too_long_to_wait_is_taken_in_its_turn() {
        let mut order = Reorder::default();
        assert_eq!(order.admit(Some(1), b"", None), Turn::Now);
        let long = vec![b'A'; LONGEST + 1];
        assert_eq!(order.admit(Some(3), &long, None), Turn::Full);
        assert!(order.ready().is_none());
        assert_eq!(order.admit(Some(3), &long, None), Turn::Now);
    }

    proptest! {
        #[test]
        fn what_is_taken_rises_and_nothing_is_taken_twice(numbers in prop::collection::vec(0u64..40, 0..60)) {
            let (out, late) = taken(&numbers);
            if late < MISTRUST as usize {
                prop_assert!(out.is_sorted_by(|a, b| a < b), "{out:?}");
                prop_assert_eq!(out.len() + late, numbers.len());
            }
        }

        #[test]
        fn a_shuffle_within_the_window_is_undone(moves in prop::collection::vec(0u64..3, 1..60)) {
            // The first message settles where the count begins.
            let mut numbers: Vec<(u64, u64)> = moves.iter().enumerate().map(|(i, m)| (i as u64 + m + 1, i as u64 + 1)).collect();
            numbers.sort_by_key(|(place, _)| *place);
            let numbers: Vec<u64> = std::iter::once(0).chain(numbers.into_iter().map(|(_, n)| n)).collect();
            let (out, late) = taken(&numbers);
            prop_assert_eq!((out, late), ((0..numbers.len() as u64).collect(), 0));
        }
    }
}
