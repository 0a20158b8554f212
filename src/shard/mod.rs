//! Media threads: pinned, one current-thread runtime and one timer each, owning the vendors' sockets and their audio.
//!
//! The control plane can stall, block or lose a task without a frame being late: what crosses are queues.
//! [`Shards`] places new sockets; [`thread`] runs a shard; [`leg_task`] is one leg's shell around `media::Session`.

mod affinity;
mod leg_task;
mod thread;

pub use thread::{CodecBox, Handover, Shards};

use crate::{base::settings::Section, media::Limits};
use std::time::Duration;

/// Keys of `[media]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of media threads; 0 means one for each CPU but the first, at least one.
    pub threads: usize,
    /// Whether each is pinned to a CPU of its own.
    pub pin: bool,
    /// Largest WebSocket frame from a vendor, in bytes; more is closed with 1009 before it is read.
    pub max_frame: usize,
    /// Largest message from a vendor, in bytes.
    pub max_message: usize,
    /// Media sockets on one shard; beyond it a new one is refused.
    pub max_legs: usize,
    /// A peer that has not read for so long is dropped.
    pub write_stall: Duration,
    /// Limits of each leg.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            pin: true,
            max_frame: 64 * 1024,
            max_message: 256 * 1024,
            max_legs: 4000,
            write_stall: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads `[media]`.
    pub fn read(s: &Section<'_>) -> Self {
        let d = Self::default();
        let ms = Duration::from_millis;
        let span = |key, default, max_s| s.duration(key, default, ms(100)..=Duration::from_secs(max_s));
        Self {
            threads: s.int("threads", d.threads, 0..=256),
            pin: s.bool("pin", d.pin),
            max_frame: s.int("max_frame_bytes", d.max_frame, 1024..=16 << 20),
            max_message: s.int("max_message_bytes", d.max_message, 1024..=64 << 20),
            max_legs: s.int("max_legs_per_thread", d.max_legs, 1..=100_000),
            write_stall: span("write_stall", d.write_stall, 600),
            limits: Limits {
                start: span("start_timeout", d.limits.start, 600),
                plan: span("plan_timeout", d.limits.plan, 600),
                idle: span("idle_timeout", d.limits.idle, 86_400),
                ping_every: s.duration(
                    "ping_every",
                    d.limits.ping_every,
                    Duration::ZERO..=Duration::from_secs(3600),
                ),
                messages_per_s: s.int("messages_per_second", d.limits.messages_per_s, 1..=1_000_000),
                protocol_strikes: s.int("protocol_strikes", d.limits.protocol_strikes, 1..=1_000_000),
                bad_payloads: s.int("bad_payloads", d.limits.bad_payloads, 1..=1_000_000),
            },
        }
    }
}
