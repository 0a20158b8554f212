//! Delays between tries: doubling, capped, with full jitter, within a budget of time.

use std::time::Duration;

/// A schedule of retries. Pure: the caller brings the random fraction and does the waiting.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    budget: Duration,
    spent: Duration,
    tries: u32,
}

impl Backoff {
    /// Starts at `first`, doubles up to `cap`, gives up once the delays handed out exceed `budget`.
    pub const fn new(first: Duration, cap: Duration, budget: Duration) -> Self {
        Self {
            first,
            cap,
            budget,
            spent: Duration::ZERO,
            tries: 0,
        }
    }

    /// The next delay, or `None` once the budget is spent. `fraction` (0..1) is the jitter: the delay is that part of the step.
    pub fn next(&mut self, fraction: f64) -> Option<Duration> {
        if self.spent >= self.budget {
            return None;
        }
        let step = self
            .first
            .saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX))
            .min(self.cap);
        self.tries = self.tries.saturating_add(1).min(31);
        self.spent += step;
        Some(step.mul_f64(fraction.clamp(0.0, 1.0)))
    }

    /// Forgets past failures, as after a success.
    pub const fn reset(&mut self) {
        self.spent = Duration::ZERO;
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_cap_and_stops_at_the_budget() {
        let ms = Duration::from_millis;
        let mut b = Backoff::new(ms(100), ms(400), ms(1000));
        let steps: Vec<_> = std::iter::from_fn(|| b.next(1.0)).collect();
        assert_eq!(steps, [ms(100), ms(200), ms(400), ms(400)]);
        b.reset();
        assert_eq!(b.next(0.5), Some(ms(50)));
    }
}
