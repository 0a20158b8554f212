//! How many messages of a peer are believed: a token bucket on the leg's own clock.

use crate::base::time::Mono;
use std::time::Duration;

/// A peer may be over its rate for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A token bucket for messages.
#[derive(Debug)]
pub(super) struct Rate {
    per_s: u64,
    /// Thousandths of a message: at most, and now.
    full: u64,
    tokens: u64,
    at: Mono,
    over_since: Option<Mono>,
}

/// What becomes of a message.
pub(super) enum Verdict {
    /// It is looked at.
    Pass,
    /// It is one too many.
    Drop,
    /// There have been too many for too long.
    Flood,
}

impl Rate {
    /// A full bucket.
    pub(super) const fn new(now: Mono, per_s: u32, burst: u32) -> Self {
        Self {
            per_s: per_s as u64,
            full: burst as u64 * 1000,
            tokens: burst as u64 * 1000,
            at: now,
            over_since: None,
        }
    }

    /// Judges one message.
    pub(super) fn take(&mut self, now: Mono) -> Verdict {
        let ms = now.millis_since(self.at);
        if ms > 0 {
            self.tokens = (self.tokens + ms * self.per_s).min(self.full);
            self.at = now;
        }
        if self.tokens >= 1000 {
            self.tokens -= 1000;
            if self.tokens > self.full / 2 {
                self.over_since = None;
            }
            return Verdict::Pass;
        }
        if now.since(*self.over_since.get_or_insert(now)) > PATIENCE {
            Verdict::Flood
        } else {
            Verdict::Drop
        }
    }
}
