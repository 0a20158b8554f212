//! The `[frontends]` section: what a frontend's socket may do, and how long it may take.

use crate::{access::limit::Rate, base::settings::Section};
use std::time::Duration;

/// What `[frontends]` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Time to `init_telephony_stream`, where the query did not say enough.
    pub init_timeout: Duration,
    /// Time between our pings.
    pub ping_every: Duration,
    /// Time a pong may take.
    pub pong_timeout: Duration,
    /// Time a write may make no progress.
    pub write_stall: Duration,
    /// Time a client has to answer our close.
    pub close_wait: Duration,
    /// The longest frame, in bytes.
    pub frame_bytes: usize,
    /// The longest message, in bytes.
    pub message_bytes: usize,
    /// Fragments of one message.
    pub fragments: u32,
    /// From the first fragment of a message to its last.
    pub fragments_timeout: Duration,
    /// Bytes that may wait for one client.
    pub queue_bytes: usize,
    /// Messages that may wait for one client.
    pub queue_messages: usize,
    /// Messages of one client.
    pub messages: Rate,
    /// Messages of all clients of one tenant.
    pub tenant_messages: Rate,
    /// Pings and pongs of one client.
    pub control_frames: Rate,
    /// How long a client may send too much before it is closed.
    pub over_limit: Duration,
    /// Sockets in all.
    pub sockets: usize,
    /// Sockets of one address.
    pub sockets_per_address: usize,
    /// Sockets of one tenant.
    pub sockets_per_tenant: usize,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

impl Default for Config {
    fn default() -> Self {
        Self {
            init_timeout: SECOND * 10,
            ping_every: SECOND * 20,
            pong_timeout: SECOND * 20,
            write_stall: SECOND * 10,
            close_wait: SECOND * 2,
            frame_bytes: 64 * 1024,
            message_bytes: 1024 * 1024,
            fragments: 64,
            fragments_timeout: SECOND * 5,
            queue_bytes: 512 * 1024,
            queue_messages: 4096,
            messages: Rate::per_second(50, 200),
            tenant_messages: Rate::per_second(1000, 4000),
            control_frames: Rate::per_second(20, 200),
            over_limit: SECOND * 10,
            sockets: 8192,
            sockets_per_address: 64,
            sockets_per_tenant: 1024,
        }
    }
}

impl Config {
    /// Lifts the bounds on how many and how often (`--dev`); sizes and times stay.
    pub fn lift_limits(&mut self) {
        (self.messages, self.tenant_messages) = (Rate::UNLIMITED, Rate::UNLIMITED);
        (self.sockets, self.sockets_per_address) = (usize::MAX, usize::MAX);
        self.sockets_per_tenant = usize::MAX;
    }

    /// Reads the section.
    pub fn read(section: &Section<'_>) -> Self {
        let d = Self::default();
        let time = |key, default| section.duration(key, default, SECOND / 100..=HOUR);
        let size = |key, default: usize, least: usize| section.int(key, default, least..=1 << 30);
        let rate = |per_second: &str, n: u32, burst: &str, b: u32| {
            let most = 1..=1_000_000;
            Rate::per_second(section.int(per_second, n, most.clone()), section.int(burst, b, most))
        };
        Self {
            init_timeout: time("init_timeout", d.init_timeout),
            ping_every: time("ping_every", d.ping_every),
            pong_timeout: time("pong_timeout", d.pong_timeout),
            write_stall: time("write_stall", d.write_stall),
            close_wait: time("close_wait", d.close_wait),
            frame_bytes: size("frame_bytes", d.frame_bytes, 128),
            message_bytes: size("message_bytes", d.message_bytes, 128),
            fragments: section.int("fragments", d.fragments, 1..=1_000_000),
            fragments_timeout: time("fragments_timeout", d.fragments_timeout),
            queue_bytes: size("queue_bytes", d.queue_bytes, 4096),
            queue_messages: size("queue_messages", d.queue_messages, 8),
            messages: rate("messages_per_s", 50, "messages_burst", 200),
            tenant_messages: rate("tenant_messages_per_s", 1000, "tenant_messages_burst", 4000),
            control_frames: rate("control_frames_per_s", 20, "control_frames_burst", 200),
            over_limit: time("over_limit", d.over_limit),
            sockets: size("sockets", d.sockets, 1),
            sockets_per_address: size("sockets_per_address", d.sockets_per_address, 1),
            sockets_per_tenant: size("sockets_per_tenant", d.sockets_per_tenant, 1),
        }
    }
}
