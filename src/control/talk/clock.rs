//! Both clocks, and sleep, on the runtime's time.

use crate::{
    base::time::{Mono, Wall},
    control::call::Now,
};

/// Both clocks, and sleep, on the runtime's time, which tests may turn by hand.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Clock {
    origin: tokio::time::Instant,
    mono: Mono,
}

impl Clock {
    /// A clock that runs from now.
    pub(in crate::control) fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            mono: Mono::now(),
        }
    }

    /// Reads it.
    pub(in crate::control) fn now(&self) -> Now {
        let wall = Wall::now();
        Now {
            mono: self.mono + self.origin.elapsed(),
            wall,
        }
    }

    pub(super) async fn sleep_until(self, at: Mono) {
        tokio::time::sleep_until(self.origin + at.since(self.mono)).await;
    }
}
