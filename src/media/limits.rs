//! What a leg puts up with.

use std::time::Duration;

/// Limits of a leg (keys of `[media]`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// A socket that has not said `start` by then is closed with 1008.
    pub start: Duration,
    /// A leg without a plan by then is closed with 1011.
    pub plan: Duration,
    /// A stream that sends nothing for so long has ended.
    pub idle: Duration,
    /// Sustained messages a second; a burst of twice as many is let through. More are dropped, and ten seconds of it close with 1008.
    pub messages_per_s: u32,
    /// The peer is pinged so often; one that has said nothing at all since is gone. Zero never asks.
    pub ping_every: Duration,
    /// Unreadable messages until the socket is closed with 1008.
    pub protocol_strikes: u32,
    /// Unreadable payloads within ten seconds until the socket is closed with 1008.
    pub bad_payloads: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(10),
            plan: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            messages_per_s: 200,
            ping_every: Duration::from_secs(20),
            protocol_strikes: 3,
            bad_payloads: 100,
        }
    }
}
