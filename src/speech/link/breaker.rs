//! A circuit breaker: spares a service that keeps failing, and the calls that would wait for it. Pure but for its lock.
//!
//! [`FAILURES`] in a row open it, for 5 s at first and twice as long after each failed probe, up to a minute. Then one probe
//! passes at a time; a success closes it. A service that asks for patience is given it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
const OPEN: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// The next probe passes after this time, where the last one never told how it ended.
const PROBE: Duration = Duration::from_secs(10);

/// One service's, shared by all threads.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    openings: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a try may be made now, else in how long.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match state.open_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                state.open_until = Some(now + PROBE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The service works.
    pub fn succeeded(&self) {
        *self.state() = State::default();
    }

    /// It does not.
    pub fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures += 1;
        if state.failures >= FAILURES {
            let long = OPEN * 2u32.saturating_pow(state.openings.min(8));
            state.openings += 1;
            state.open_until = Some(now + long.min(LONGEST));
        }
    }

    /// It asks not to be tried for this long.
    pub fn hold(&self, now: Instant, long: Duration) {
        let mut state = self.state();
        let until = now + long.min(LONGEST);
        state.open_until = Some(state.open_until.map_or(until, |u| u.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_for_longer_and_longer() {
        let (breaker, s) = (Breaker::default(), Duration::from_secs);
        let mut now = Instant::now();
        for _ in 0..4 {
            breaker.failed(now);
        }
        breaker.succeeded();
        for _ in 0..4 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Ok(()), "four in a row are not five");
        for open in [5, 10, 20, 40, 60, 60] {
            breaker.failed(now);
            assert_eq!(breaker.admit(now), Err(s(open)));
            now += s(open);
            assert_eq!(breaker.admit(now), Ok(()), "a probe passes");
            assert!(breaker.admit(now).is_err(), "one alone");
        }
        breaker.succeeded();
        assert_eq!((breaker.admit(now), breaker.admit(now)), (Ok(()), Ok(())));
    }

    #[test]
    fn patience_that_is_asked_for_is_given_within_bounds() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        breaker.hold(now, Duration::from_secs(7));
        assert_eq!(breaker.admit(now), Err(Duration::from_secs(7)));
        breaker.hold(now, Duration::from_secs(7200));
        assert_eq!(breaker.admit(now), Err(Duration::from_secs(60)));
    }
}
