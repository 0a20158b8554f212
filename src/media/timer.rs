//! The deadlines of a leg: one slot for each reason, none on the heap.

use crate::base::time::Mono;

/// Why a leg must be looked at by a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The vendor has not said `start`.
    Start,
    /// The control plane has not sent a plan.
    Plan,
    /// The vendor has sent nothing.
    Idle,
    /// A key press has waited for those before it.
    Keys,
    /// The peer is to be asked for a sign of life.
    Ping,
    /// The peer has not answered our close.
    Close,
}

const ALL: [Timer; 6] = [
    Timer::Start,
    Timer::Plan,
    Timer::Idle,
    Timer::Keys,
    Timer::Ping,
    Timer::Close,
];

/// At most one deadline for each [`Timer`].
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Mono>; ALL.len()]);

impl Timers {
    /// Sets or moves a deadline.
    pub(super) const fn set(&mut self, timer: Timer, at: Mono) {
        self.0[timer as usize] = Some(at);
    }

    /// Forgets a deadline.
    pub(super) const fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Forgets all deadlines.
    pub(super) fn stop_all(&mut self) {
        self.0 = Default::default();
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one deadline that has passed.
    pub(super) fn expired(&mut self, now: Mono) -> Option<Timer> {
        let timer = ALL
            .into_iter()
            .find(|t| self.0[*t as usize].is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deadline_passes_once_and_can_be_moved() {
        let mut t = Timers::default();
        t.set(Timer::Idle, Mono::from_millis(10));
        t.set(Timer::Idle, Mono::from_millis(30));
        t.set(Timer::Start, Mono::from_millis(20));
        assert_eq!(t.next(), Some(Mono::from_millis(20)));
        assert_eq!(t.expired(Mono::from_millis(19)), None);
        assert_eq!(t.expired(Mono::from_millis(40)), Some(Timer::Start));
        assert_eq!(t.expired(Mono::from_millis(40)), Some(Timer::Idle));
        assert_eq!(t.expired(Mono::from_millis(40)), None);
    }
}
