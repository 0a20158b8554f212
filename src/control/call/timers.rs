//! The deadlines of one call: a table indexed by what is waited for.

use crate::base::time::Mono;

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Timer {
    /// The media stream of an announced call.
    Stream,
    /// A note in the log that the longest length is near.
    LengthWarning,
    /// The longest length.
    Length,
    /// The next try of a commit that failed.
    Retry,
    /// What still arrives after the end: the last words, the leg's accounting.
    Linger,
}

impl Timer {
    const ALL: [Self; 5] = [
        Self::Stream,
        Self::LengthWarning,
        Self::Length,
        Self::Retry,
        Self::Linger,
    ];
}

/// At most one deadline for each [`Timer`].
#[derive(Debug, Default)]
pub(in crate::control) struct Timers([Option<Mono>; Timer::ALL.len()]);

impl Timers {
    /// Sets or moves a deadline.
    pub(in crate::control) const fn set(&mut self, timer: Timer, at: Mono) {
        self.0[timer as usize] = Some(at);
    }

    /// Forgets a deadline.
    pub(in crate::control) const fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// The next deadline.
    pub(in crate::control) fn next(&self) -> Option<Mono> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one deadline that has passed.
    pub(in crate::control) fn expired(&mut self, now: Mono) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .find(|t| self.0[*t as usize].is_some_and(|at| at <= now))?;
        self.clear(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_taken_once_and_not_before_its_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Length, Mono::from_millis(20));
        timers.set(Timer::Retry, Mono::from_millis(10));
        assert_eq!(timers.next(), Some(Mono::from_millis(10)));
        assert_eq!(timers.expired(Mono::from_millis(9)), None);
        assert_eq!(timers.expired(Mono::from_millis(20)), Some(Timer::Length));
        assert_eq!(timers.expired(Mono::from_millis(20)), Some(Timer::Retry));
        assert_eq!((timers.expired(Mono::from_millis(99)), timers.next()), (None, None));
    }
}
