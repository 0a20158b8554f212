//! What every client's session has to mind whatever it speaks: whose it is and until when, pings, and how much it may send.
//! Pure: time in, verdicts out.

use super::{Config, outbox::Close};
use crate::{
    access::{Identity, limit::Bucket},
    base::time::{Mono, Wall},
    metrics,
};
use std::time::Duration;

/// Pause after which a client that sent too much starts anew.
const CALM: Duration = Duration::from_secs(2);
/// Messages that were no JSON, before the socket is closed.
const MAX_GARBAGE: u8 = 3;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The end.
    Close(Close),
}

/// One client's.
#[derive(Debug)]
pub struct Vitals {
    identity: Identity,
    expires: Option<Mono>,
    messages: Bucket,
    control: Bucket,
    over_since: Option<Mono>,
    last_drop: Mono,
    over_limit: Duration,
    ping_every: Duration,
    pong_timeout: Duration,
    next_ping: Mono,
    ping_sent: Option<Mono>,
    garbage: u8,
}

impl Vitals {
    /// Those of a client that has just connected.
    pub fn new(config: &Config, identity: Identity, now: Mono, wall: Wall) -> Self {
        let mut vitals = Self {
            expires: None,
            identity: identity.clone(),
            messages: Bucket::new(config.messages),
            control: Bucket::new(config.control_frames),
            over_since: None,
            last_drop: Mono::ZERO,
            over_limit: config.over_limit,
            ping_every: config.ping_every,
            pong_timeout: config.pong_timeout,
            next_ping: now + config.ping_every,
            ping_sent: None,
            garbage: 0,
        };
        vitals.assume(identity, now, wall);
        vitals
    }

    /// Whose session it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When [`Vitals::tick`] is due at the latest.
    pub fn deadline(&self) -> Mono {
        let pong = self.ping_sent.map(|at| at + self.pong_timeout);
        [pong, self.expires]
            .into_iter()
            .flatten()
            .fold(self.next_ping, Ord::min)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Mono) -> Due {
        if self.expires.is_some_and(|end| end <= now) {
            return Due::Close(Close::new(4401, "token expired"));
        }
        if self.ping_sent.is_some_and(|at| now.since(at) >= self.pong_timeout) {
            return Due::Close(Close::new(1001, "no pong"));
        }
        if self.next_ping > now {
            return Due::Nothing;
        }
        self.next_ping = now + self.ping_every;
        self.ping_sent.get_or_insert(now);
        Due::Ping
    }

    /// A ping or pong came.
    pub fn control_frame(&mut self, pong: bool, now: Mono) -> Result<(), Close> {
        if pong {
            self.ping_sent = None;
        }
        match self.control.take(now) {
            true => Ok(()),
            false => Err(Close::new(1008, "too many control frames")),
        }
    }

    /// Whether a message may be looked at. `within` says whether the tenant's own limit allows it.
    pub fn admit(&mut self, within: bool, now: Mono) -> Result<bool, Close> {
        if self.messages.take(now) && within {
            return Ok(true);
        }
        metrics::dropped("frontend_message", "rate", 1);
        if now.since(self.last_drop) > CALM {
            self.over_since = None;
        }
        self.last_drop = now;
        if now.since(*self.over_since.get_or_insert(now)) >= self.over_limit {
            return Err(Close::new(1008, "too many messages"));
        }
        Ok(false)
    }

    /// A message was no JSON.
    pub fn garbage(&mut self) -> Result<(), Close> {
        self.garbage += 1;
        metrics::dropped("frontend_message", "not_json", 1);
        match self.garbage < MAX_GARBAGE {
            true => Ok(()),
            false => Err(Close::new(1007, "not JSON")),
        }
    }

    /// A token sent by `refresh_token` was verified, or was not. Until when the session lives now, unless it was refused.
    pub fn refreshed(&mut self, identity: Option<Identity>, now: Mono, wall: Wall) -> Option<Option<Wall>> {
        let new = identity.filter(|new| new.tenant == self.identity.tenant)?;
        self.assume(new, now, wall);
        Some(self.identity.expires)
    }

    /// The wall clock is read once: the session ends when as much time has passed, however that clock is set meanwhile.
    fn assume(&mut self, identity: Identity, now: Mono, wall: Wall) {
        self.expires = identity.expires.map(|end| {
            let left = end.as_micros().saturating_sub(wall.as_micros()).max(0);
            now + Duration::from_micros(left as u64)
        });
        self.identity = identity;
    }
}
