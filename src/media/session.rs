//! One leg as its shell drives it. Messages, commands and time go in; text messages, a close, and news come out.
//!
//! Mutate once (`handle_*`), then drain: [`Session::poll_output`] until `None`, then events. Nothing here waits, and per frame
//! nothing allocates, locks or logs. What the vendor's dialect cannot do is a fact in its caps, never a special case.

use super::{
    Accounting, LegCommand, LegEnd, LegEvent, Limits,
    ingress::Scratch,
    leg::{Leg, State, Way},
    mark::{MarkName, read_mark},
    monitor::Monitor,
    playout::{Playout, Step},
    rate::Verdict,
    timer::Timer,
};
use crate::{
    audio::codec,
    base::{doorbell::Doorbell, time::Mono},
    vendor::{Caps, StreamCodec, StreamCommand, StreamEvent, StreamStart, WireError},
};
use bytes::BytesMut;
use std::{sync::Arc, time::Duration};

/// What must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One text message, left in the buffer.
    Text,
    /// A ping without a payload.
    Ping,
    /// A close frame; nothing follows it.
    Close {
        /// RFC 6455 §7.4 code.
        code: u16,
        /// Fixed text.
        reason: &'static str,
    },
}

/// One leg: its dialect and its state.
pub struct Session {
    codec: Box<dyn StreamCodec>,
    leg: Leg,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.leg.state)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A leg whose socket has just opened.
    pub fn new(now: Mono, caps: &'static Caps, codec: Box<dyn StreamCodec>, limits: Limits) -> Self {
        Self {
            codec,
            leg: Leg::new(now, caps, limits),
        }
    }

    /// A text message arrived.
    pub fn handle_message(&mut self, now: Mono, text: &[u8], scratch: &mut Scratch) {
        let Self { codec, leg } = self;
        if !leg.admit(now) {
            return;
        }
        match codec.parse(text) {
            Ok(StreamEvent::Media(media)) => leg.handle_media(now, media, scratch),
            Ok(StreamEvent::Mark(name)) => {
                if let (Some(playout), Some(utterance)) = (&mut leg.playout, read_mark(name)) {
                    playout.marked(utterance, &mut leg.events);
                }
            }
            Ok(StreamEvent::Dtmf(key)) if matches!(leg.state, State::Streaming) => {
                leg.keyed(key);
            }
            Ok(StreamEvent::DtmfAt(key, at)) if matches!(leg.state, State::Streaming) => {
                leg.keys.press(now, at, key);
                leg.release_keys(now);
            }
            Ok(StreamEvent::Start(start)) => leg.handle_start(now, start),
            Ok(StreamEvent::Complaint(code)) => leg.complain(code),
            Ok(StreamEvent::Stop) => {
                leg.reorder.finish();
                leg.take_held(now, scratch);
                leg.close(now, 1000, "", LegEnd::Stopped);
            }
            Ok(StreamEvent::Hello | StreamEvent::Ignored | StreamEvent::Dtmf(_) | StreamEvent::DtmfAt(..)) => {}
            // It will not speak another format at the second try.
            Err(WireError::Format) if matches!(leg.state, State::Opening) => leg.refuse_format(now),
            Err(WireError::Id(_)) if matches!(leg.state, State::Opening) => {
                leg.close(now, 1008, "a start without a valid id", LegEnd::Violation(1008));
            }
            Err(WireError::Key) => leg.accounts.keys_dropped += 1,
            Err(_) => leg.strike(now),
        }
    }

    /// A ping or a pong arrived. They are free of meaning, so that more than a heartbeat needs is a flood.
    pub fn handle_control(&mut self, now: Mono) {
        self.leg.heard = true;
        if !matches!(self.leg.controls.take(now), Verdict::Pass) {
            self.leg
                .close(now, 1008, "too many control frames", LegEnd::Violation(1008));
        }
    }

    /// The control plane said something. A plan's event queue is the shell's to keep.
    pub fn handle_command(&mut self, now: Mono, command: LegCommand, scratch: &mut Scratch) {
        match command {
            LegCommand::Plan(plan) => self.leg.handle_plan(now, *plan, scratch),
            LegCommand::Close { code, reason } => self.leg.close(now, code, reason, LegEnd::Closed),
            LegCommand::Cut { floor } => {
                if let Some(playout) = &mut self.leg.playout {
                    playout.cut(floor, now, &mut self.leg.accounts, &mut self.leg.events);
                }
            }
            LegCommand::Interrupt(chunk) => self.leg.interrupt = Some(chunk),
            LegCommand::Mute { uplink, downlink } => {
                self.leg.muted_uplink = uplink;
                if let Some(playout) = &mut self.leg.playout {
                    playout.mute(downlink);
                }
            }
            LegCommand::Protect(on) => self.leg.protected = on,
            LegCommand::Tones(tones) => self.leg.tones.push_back(tones),
            LegCommand::Monitor(tx) => self.leg.monitor = Some(Monitor::new(*tx, self.leg.began)),
            LegCommand::Record(on) => {
                if let Some(tap) = &mut self.leg.tap {
                    tap.pause(!on);
                }
            }
        }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Mono) {
        while let Some(timer) = self.leg.timers.expired(now) {
            match timer {
                Timer::Start => self.leg.close(now, 1008, "no start", LegEnd::Violation(1008)),
                Timer::Plan => self.leg.close(now, 1011, "no plan", LegEnd::Closed),
                Timer::Keys => self.leg.release_keys(now),
                Timer::Idle => self.leg.close(now, 1000, "no media", LegEnd::Idle),
                Timer::Ping => self.leg.ask(now),
                Timer::Close => self.leg.finish(now),
            }
        }
        if let Some(playout) = &mut self.leg.playout {
            playout.tick(now, &mut self.leg.events);
        }
    }

    /// The socket is gone.
    pub fn handle_closed(&mut self, now: Mono) {
        let end = match self.leg.caps.stop {
            true => LegEnd::ClosedWithoutStop,
            false => LegEnd::Stopped,
        };
        self.leg.end.get_or_insert(end);
        self.leg.finish(now);
    }

    /// The peer has not read for too long. Returns whether the leg ends for that.
    pub fn handle_stalled(&mut self, now: Mono) -> bool {
        let open = !matches!(self.leg.state, State::Closing { .. } | State::Closed);
        self.leg.close(now, 1013, "what was sent is not read", LegEnd::Stalled);
        open
    }

    /// The peer sent something no leg accepts; `code` is what it is closed with (1003 binary, 1007 UTF-8, 1009 size, 1002 framing).
    pub fn handle_violation(&mut self, now: Mono, code: u16, reason: &'static str) {
        self.leg.close(now, code, reason, LegEnd::Violation(code));
    }

    /// When the leg must be looked at, if nothing arrives before.
    pub fn next_tick(&self, now: Mono) -> Mono {
        let playing = self.leg.playout.as_ref().is_some_and(Playout::wants_ticks);
        if playing || !self.leg.events.is_empty() {
            return now;
        }
        self.leg.timers.next().unwrap_or(now)
    }

    /// How the leg ended, once it has, and what its peer was told.
    pub const fn outcome(&self) -> (Option<LegEnd>, &'static str) {
        (self.leg.end, self.leg.reason)
    }

    /// Whether the leg is over and the socket may be dropped.
    pub const fn is_closed(&self) -> bool {
        matches!(self.leg.state, State::Closed)
    }

    /// The next thing to write; a text message is appended to `out`.
    pub fn poll_output(&mut self, now: Mono, scratch: &mut Scratch, out: &mut BytesMut) -> Option<Output> {
        let before = out.len();
        if let State::Closing { code, reason, said } = &mut self.leg.state {
            if std::mem::take(&mut self.leg.hang_up) {
                self.codec.format(StreamCommand::HangUp, out);
                if out.len() > before {
                    return Some(Output::Text);
                }
            }
            return (!std::mem::replace(said, true)).then_some(Output::Close { code: *code, reason });
        }
        if std::mem::take(&mut self.leg.ping) {
            return Some(Output::Ping);
        }
        if let Some(chunk) = self.leg.interrupt.take() {
            self.codec.format(StreamCommand::Interrupt(chunk), out);
            if out.len() > before {
                return Some(Output::Text);
            }
        }
        loop {
            let playout = self.leg.playout.as_mut()?;
            let Scratch { samples, bytes, .. } = scratch;
            match playout.poll(now, samples, bytes, &mut self.leg.accounts, &mut self.leg.events) {
                Step::Nothing => return None,
                Step::Clear => self.codec.format(StreamCommand::Clear, out),
                Step::Mark(utterance) => self.codec.format(StreamCommand::Mark(&MarkName::new(utterance)), out),
                Step::Frame { samples, at } => {
                    let n = match playout.law() {
                        Some(law) => {
                            let wide = &mut scratch.samples[..samples];
                            codec::narrow(wide, &mut scratch.bytes);
                            if self.leg.is_copied() {
                                codec::decode_wide(law, wide);
                            }
                            samples
                        }
                        None => {
                            let encoder = self.leg.encoder.as_mut();
                            encoder.map_or(0, |e| e.encode(&scratch.samples[..samples], &mut scratch.bytes))
                        }
                    };
                    self.leg.copy(at, &scratch.samples[..samples], &scratch.bytes[..n]);
                    self.codec.format(StreamCommand::Media(&scratch.bytes[..n]), out);
                }
                Step::Packet { samples, bytes, at } => {
                    self.leg.copy(at, &scratch.samples[..samples], &scratch.bytes[..bytes]);
                    self.codec.format(StreamCommand::Media(&scratch.bytes[..bytes]), out);
                }
            }
            if out.len() > before {
                return Some(Output::Text);
            }
        }
    }

    /// What `start` said, once, to be reported as an arrival.
    pub fn take_arrival(&mut self) -> Option<Box<StreamStart>> {
        self.leg.arrival.take()
    }

    /// Whether an event waits to be taken.
    pub fn has_events(&self) -> bool {
        !self.leg.events.is_empty()
    }

    /// Takes the oldest event, once its queue has room.
    pub fn pop_event(&mut self) -> Option<LegEvent> {
        self.leg.events.pop_front()
    }

    /// The bell of the ear, if it has something to hear since the last call.
    pub fn take_bell(&mut self) -> Option<&Arc<Doorbell>> {
        match &self.leg.way {
            Way::Ear(up) if std::mem::take(&mut self.leg.wake_ear) => up.ring().bell(),
            _ => None,
        }
    }

    /// Audio that waits for its ear.
    pub fn ear_queue(&self) -> Duration {
        match &self.leg.way {
            Way::Ear(up) => {
                let ring = up.ring();
                Duration::from_micros(ring.queued() as u64 * 1_000_000 / u64::from(ring.rate()))
            }
            Way::None | Way::Echo { .. } | Way::Passed { .. } => Duration::ZERO,
        }
    }

    /// Frames received and sent so far.
    pub const fn frames(&self) -> (u64, u64) {
        (self.leg.accounts.in_frames, self.leg.accounts.out_frames)
    }

    /// The accounts as they stand.
    pub const fn accounting(&self) -> &Accounting {
        &self.leg.accounts
    }
}
