//! How many messages of a peer are believed: a token bucket on the leg's own clock.

use crate::base::time::Mono;
use std::time::Duration;

/// A peer may be over its rate for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer that was within its rate for so long is forgiven.
const RESPITE: Duration = Duration::from_secs(1);

/// A token bucket for messages.
#[derive(Debug)]
pub(super) struct Rate {
    per_s: u64,
    /// Thousandths of a message: at most, and now.
    full: u64,
    tokens: u64,
    at: Mono,
    /// When the messages dropped now began to be, and the last of them.
    over: Option<(Mono, Mono)>,
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
            over: None,
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
            return Verdict::Pass;
        }
        let since = match self.over {
            Some((since, last)) if now.since(last) <= RESPITE => since,
            _ => now,
        };
        self.over = Some((since, now));
        if now.since(since) > PATIENCE {
            Verdict::Flood
        } else {
            Verdict::Drop
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a peer that says so many messages at each of these times is a flood.
    fn floods(messages: impl IntoIterator<Item = (u64, u32)>) -> bool {
        let mut rate = Rate::new(Mono::ZERO, 10, 20);
        messages
            .into_iter()
            .any(|(ms, n)| (0..n).any(|_| matches!(rate.take(Mono::from_millis(ms)), Verdict::Flood)))
    }

    #[test]
    fn being_over_the_rate_all_the_time_is_a_flood() {
        assert!(floods((0..200).map(|n| (n * 100, 2))));
        assert!(!floods((0..100).map(|n| (n * 100, 2))), "not for ten seconds");
    }

    #[test]
    fn two_bursts_with_the_allowed_rate_between_them_are_none() {
        let steady = (1..200).map(|n| (n * 100, 1));
        assert!(!floods([(0, 21)].into_iter().chain(steady).chain([(20_000, 3)])));
    }
}
