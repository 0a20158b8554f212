//! The state machine of one leg. Messages, commands and time go in; text messages, a close, and news come out.
//!
//! Mutate once (`handle_*`), then drain: [`Session::poll_output`] until `None`, then events. Nothing here waits, and per frame
//! nothing allocates, locks or logs. What the vendor's dialect cannot do is a fact in its caps, never a special case.

use super::{
    Accounting, LegCommand, LegEnd, LegEvent, Limits, Plan, Route,
    ingress::{Ingress, Onset, Scratch, Taken, Uplink},
    keys::Keys,
    mark::{MarkName, read_mark},
    monitor::Monitor,
    playout::{Playout, Step},
    rate::{Rate, Verdict},
    reorder::{Reorder, Turn},
    tap::Tap,
    timer::{Timer, Timers},
};
use crate::{
    audio::{
        codec::Encoder,
        ring::{self, DownlinkTx, UplinkRx},
        vad::VadConfig,
    },
    base::{
        doorbell::Doorbell,
        format::{AudioFormat, Encoding},
        ids::UtteranceId,
        time::Mono,
    },
    vendor::{Caps, Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, WireError},
};
use bytes::BytesMut;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Audio held while a leg waits for its plan, in ms.
const HELD_MS: u32 = 1000;
/// The ring towards the caller of an echo, in ms: what may wait beyond the vendor's lead.
const ECHO_RING_MS: u32 = 500;
/// The ring from the caller of an echo, in ms. It is emptied at once, so a frame's length is enough.
const ECHO_UPLINK_MS: u32 = 40;
/// Packets of an echo, and room for them at 128 kbit/s.
const ECHO_PACKETS: (usize, usize) = (25, 25 * 320);
/// How long the peer has to answer our close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Changes of the audio's rate that a stream may make; what comes at yet another is left out.
const MAX_RETUNES: u8 = 8;
/// Complaints of the vendor that are passed on.
const MAX_COMPLAINTS: u64 = 10;
/// News that may wait for the call. What the mouth brings about is bounded by what it says; keys beyond this many are dropped.
const MAX_EVENTS: usize = 256;
/// Pings and pongs from a peer: sustained a second, and at once.
const CONTROLS_PER_S: u32 = 20;
const CONTROLS_BURST: u32 = 200;
/// Payload faults are forgiven after this long.
const FAULT_WINDOW: Duration = Duration::from_secs(10);

/// Where a leg stands.
#[derive(Debug)]
enum State {
    /// The socket is open, `start` has not come.
    Opening,
    /// `start` has come, the plan has not; audio is held.
    Waiting {
        held: Vec<i16>,
        /// The packets that say the same, each with its samples and how many of them stand for what was lost before it, where an
        /// echo would pass them on.
        packets: Vec<(usize, usize, Box<[u8]>)>,
    },
    /// Audio flows.
    Streaming,
    /// We asked to close, or are about to.
    Closing {
        code: u16,
        reason: &'static str,
        said: bool,
    },
    /// Over.
    Closed,
}

/// Where uplink audio goes.
#[derive(Debug)]
enum Way {
    /// Nobody listens.
    None,
    /// An ear.
    Ear(Uplink),
    /// Back to the caller through two rings.
    Echo { up: Uplink, rx: UplinkRx, down: DownlinkTx },
    /// Back to the caller, packet by packet.
    Passed { down: DownlinkTx },
}

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

/// The state, apart from the codec that its messages are borrowed from.
struct Leg {
    caps: &'static Caps,
    limits: Limits,
    state: State,
    timers: Timers,
    arrival: Option<Box<StreamStart>>,
    outbound: AudioFormat,
    /// Absent for a format that is not spoken.
    encoder: Option<Encoder>,
    ptime_ms: u32,
    ingress: Ingress,
    reorder: Reorder,
    keys: Keys,
    way: Way,
    playout: Option<Playout>,
    onset: Option<Onset>,
    tap: Option<Tap>,
    monitor: Option<Monitor>,
    /// When `start` came.
    began: Mono,
    muted_uplink: bool,
    /// What is being said may not be talked over.
    protected: bool,
    events: VecDeque<LegEvent>,
    accounts: Accounting,
    rate: Rate,
    /// Changes of the audio's rate so far.
    retunes: u8,
    controls: Rate,
    /// The peer has said something since it was last asked.
    heard: bool,
    /// It is yet to be asked.
    ping: bool,
    strikes: u32,
    bad: (Mono, u32),
    end: Option<LegEnd>,
    /// The vendor is yet to be told that the call is over.
    hang_up: bool,
    /// The vendor is yet to be told not to play this chunk.
    interrupt: Option<Option<u64>>,
    wake_ear: bool,
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
        let mut timers = Timers::default();
        timers.set(Timer::Start, now + limits.start);
        if !limits.ping_every.is_zero() {
            timers.set(Timer::Ping, now + limits.ping_every);
        }
        let leg = Leg {
            caps,
            retunes: 0,
            rate: Rate::new(now, limits.messages_per_s, limits.messages_per_s * 2),
            controls: Rate::new(now, CONTROLS_PER_S, CONTROLS_BURST),
            limits,
            state: State::Opening,
            timers,
            arrival: None,
            outbound: caps.outbound,
            encoder: Encoder::new(caps.outbound),
            reorder: Reorder::default(),
            keys: Keys::default(),
            ptime_ms: caps.ptime_ms,
            ingress: Ingress::new(caps.inbound, caps.max_inbound_ms),
            way: Way::None,
            playout: None,
            onset: None,
            tap: None,
            monitor: None,
            began: now,
            muted_uplink: false,
            protected: false,
            events: VecDeque::with_capacity(32),
            accounts: Accounting::default(),
            heard: true,
            ping: false,
            strikes: 0,
            bad: (now, 0),
            end: None,
            hang_up: false,
            interrupt: None,
            wake_ear: false,
        };
        Self { codec, leg }
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
                    let encoder = self.leg.encoder.as_mut();
                    let n = encoder.map_or(0, |e| e.encode(&scratch.samples[..samples], &mut scratch.bytes));
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

impl Leg {
    /// Copies what is sent for those who record and listen.
    fn copy(&mut self, at: Mono, samples: &[i16], sent: &[u8]) {
        if let Some(tap) = &mut self.tap {
            tap.agent(at, samples);
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.agent(at, samples, sent, self.outbound.rate);
        }
    }

    /// Whether a message may be looked at now; keeps the idle timer and the message rate.
    fn admit(&mut self, now: Mono) -> bool {
        self.heard = true;
        match self.state {
            State::Closing { .. } | State::Closed => return false,
            State::Opening => {}
            State::Waiting { .. } | State::Streaming => self.timers.set(Timer::Idle, now + self.limits.idle),
        }
        match self.rate.take(now) {
            Verdict::Pass => return true,
            Verdict::Drop => self.accounts.in_bad += 1,
            Verdict::Flood => self.close(now, 1008, "too many messages", LegEnd::Violation(1008)),
        }
        false
    }

    /// The peer is asked for a sign of life, unless it owes us one.
    fn ask(&mut self, now: Mono) {
        if !std::mem::take(&mut self.heard) {
            return self.close(now, 1001, "no answer to a ping", LegEnd::Idle);
        }
        self.ping = true;
        self.timers.set(Timer::Ping, now + self.limits.ping_every);
    }

    /// The caller pressed a key.
    fn keyed(&mut self, key: char) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(LegEvent::Dtmf(key));
        } else {
            self.accounts.keys_dropped += 1;
        }
    }

    /// Passes on the keys that have waited for those before them.
    fn release_keys(&mut self, now: Mono) {
        while let Some(key) = self.keys.due(now) {
            self.keyed(key);
        }
        if let Some(at) = self.keys.next() {
            self.timers.set(Timer::Keys, at);
        }
    }

    fn refuse_format(&mut self, now: Mono) {
        self.close(now, 1008, "an audio format that is not spoken", LegEnd::Violation(1008));
    }

    /// The vendor complains: passed on a few times, counted always.
    fn complain(&mut self, code: u64) {
        self.accounts.complaints += 1;
        if self.accounts.complaints <= MAX_COMPLAINTS {
            self.events.push_back(LegEvent::Complaint(code));
        }
    }

    fn strike(&mut self, now: Mono) {
        self.accounts.in_bad += 1;
        self.strikes += 1;
        if self.strikes >= self.limits.protocol_strikes {
            self.close(now, 1008, "unreadable messages", LegEnd::Violation(1008));
        }
    }

    fn handle_start(&mut self, now: Mono, start: Box<StreamStart>) {
        if !matches!(self.state, State::Opening) {
            return self.strike(now);
        }
        self.began = now;
        self.ingress = Ingress::new(start.inbound, self.caps.max_inbound_ms);
        self.outbound = start.outbound;
        self.encoder = Encoder::new(start.outbound);
        if !self.ingress.speaks() {
            return self.refuse_format(now);
        }
        self.ptime_ms = start.ptime_ms.unwrap_or(self.caps.ptime_ms);
        self.timers.stop(Timer::Start);
        self.timers.set(Timer::Plan, now + self.limits.plan);
        self.timers.set(Timer::Idle, now + self.limits.idle);
        self.state = State::Waiting {
            held: Vec::new(),
            packets: Vec::new(),
        };
        self.arrival = Some(start);
    }

    fn handle_media(&mut self, now: Mono, media: Media<'_>, scratch: &mut Scratch) {
        if matches!(self.state, State::Opening) {
            return self.strike(now);
        }
        if !media.inbound {
            return;
        }
        if let Some(rate) = media.rate.filter(|r| *r != self.ingress.rate())
            && !self.retune(rate)
        {
            return self.bad_payload(now);
        }
        let Payload::Base64(text) = media.payload else {
            return self.take_media(now, media.payload, media.at_ms, scratch);
        };
        loop {
            match self.reorder.admit(media.chunk, text, media.at_ms) {
                Turn::Now => self.take_media(now, media.payload, media.at_ms, scratch),
                Turn::Held => {}
                Turn::Late => self.accounts.in_late += 1,
                Turn::Full => {
                    self.take_held(now, scratch);
                    continue;
                }
            }
            break;
        }
        self.take_held(now, scratch);
    }

    /// Takes the messages that waited for those before them.
    fn take_held(&mut self, now: Mono, scratch: &mut Scratch) {
        while let Some(held) = self.reorder.ready() {
            self.take_media(now, Payload::Base64(&held.payload), held.at_ms, scratch);
            self.reorder.reuse(held);
        }
    }

    /// Audio in its place.
    fn take_media(&mut self, now: Mono, payload: Payload<'_>, at_ms: Option<u64>, scratch: &mut Scratch) {
        let lost = self.reorder.take_lost();
        let Ok(taken) = self.ingress.decode(payload, lost, scratch) else {
            return self.bad_payload(now);
        };
        if let Some(encoder) = &mut self.encoder {
            encoder.follow(self.ingress.encoding());
        }
        let Taken {
            bytes,
            concealed,
            samples: n,
        } = taken;
        self.accounts.in_frames += 1;
        self.accounts.in_samples += n as u64;
        self.accounts.in_concealed += concealed as u64;
        let rate = self.ingress.rate();
        if let State::Waiting { held, packets } = &mut self.state {
            let room = self.ingress.samples_of_ms(HELD_MS).saturating_sub(held.len()).min(n);
            held.extend_from_slice(&scratch.samples[..room]);
            self.accounts.in_dropped_full += (n - room) as u64;
            if self.ingress.encoding() == Encoding::Opus && room == n {
                packets.push((n, concealed, scratch.bytes[..bytes].into()));
            }
            return;
        }
        let Scratch {
            samples,
            resampled,
            bytes: written,
        } = scratch;
        let samples = &samples[..n];
        let said = match payload {
            Payload::Base64(_) => Some((self.ingress.encoding(), &written[..bytes])),
            Payload::Numbers(_) => None,
        };
        if let Some(tap) = &mut self.tap {
            let concealed_ms = concealed as u64 * 1000 / u64::from(rate);
            tap.caller(now, at_ms.map(|ms| ms.saturating_sub(concealed_ms)), samples);
        }
        if self.monitor.take_if(|m| !m.is_heard()).is_none()
            && !self.muted_uplink
            && let Some(monitor) = &mut self.monitor
        {
            monitor.caller(now, payload, at_ms, (samples, concealed), rate);
        }
        if let (Some(onset), Some(playout), false) = (&mut self.onset, &mut self.playout, self.muted_uplink) {
            let spoke = onset.heard(samples);
            if spoke && !self.protected && playout.is_sounding(now) {
                playout.barge_in(now, &mut self.accounts, &mut self.events);
            }
        }
        self.relay(samples, said, concealed, resampled);
    }

    /// The caller's audio has another rate than `start` said. Allocates, a few times at most; returns whether it is followed.
    fn retune(&mut self, rate: u32) -> bool {
        if !AudioFormat::RATES.contains(&rate) || self.retunes == MAX_RETUNES {
            return false;
        }
        self.retunes += 1;
        self.ingress.retune(rate);
        match &mut self.way {
            Way::None | Way::Passed { .. } => {}
            Way::Ear(up) | Way::Echo { up, .. } => up.retune(rate),
        }
        if let Some(onset) = &mut self.onset {
            onset.retune(rate);
        }
        if let Some(tap) = &mut self.tap {
            tap.retune_caller(rate);
        }
        true
    }

    /// Hands samples to whoever listens, with the payload that said them; the first `concealed` samples are not in it.
    fn relay(&mut self, samples: &[i16], said: Option<(Encoding, &[u8])>, concealed: usize, resampled: &mut [i16]) {
        match &mut self.way {
            Way::None => self.accounts.in_dropped_unheard += samples.len() as u64,
            _ if self.muted_uplink => self.accounts.in_dropped_unheard += samples.len() as u64,
            Way::Ear(up) => self.wake_ear |= up.push(samples, said, resampled, &mut self.accounts),
            Way::Echo { up, rx, down } => {
                let ms = samples.len() as u64 * 1000 / u64::from(self.ingress.rate());
                if let Some(playout) = &mut self.playout {
                    playout.expect(Duration::from_millis(ms));
                }
                for piece in samples.chunks((up.ring().rate() * ECHO_UPLINK_MS / 1000) as usize) {
                    up.push(piece, None, resampled, &mut self.accounts);
                    while rx.queued() > 0 && down.room() > 0 {
                        let n = rx.pop(&mut resampled[..down.room().min(960)]);
                        down.push(UtteranceId::default(), &resampled[..n], false);
                    }
                }
            }
            Way::Passed { down } => {
                let (lost, samples) = samples.split_at(concealed);
                let packet = said.map_or(&[][..], |(_, packet)| packet);
                let ms = samples.len() as u64 * 1000 / u64::from(self.ingress.rate());
                if let Some(playout) = &mut self.playout {
                    playout.expect(Duration::from_millis(ms));
                }
                let taken = down.push_packet(UtteranceId::default(), samples, packet, false);
                let a = &mut self.accounts;
                *(if taken {
                    &mut a.in_relayed
                } else {
                    &mut a.in_dropped_full
                }) += samples.len() as u64;
                self.accounts.in_dropped_unheard += lost.len() as u64;
            }
        }
    }

    fn bad_payload(&mut self, now: Mono) {
        self.accounts.in_bad += 1;
        if now.since(self.bad.0) > FAULT_WINDOW {
            self.bad = (now, 0);
        }
        self.bad.1 += 1;
        if self.bad.1 >= self.limits.bad_payloads {
            self.close(now, 1008, "unreadable audio", LegEnd::Violation(1008));
        }
    }

    fn handle_plan(&mut self, now: Mono, plan: Plan, scratch: &mut Scratch) {
        let State::Waiting { held, packets } = &mut self.state else {
            return;
        };
        let (held, packets) = (std::mem::take(held), std::mem::take(packets));
        let rate = self.ingress.rate();
        let opus = |encoding| encoding == Encoding::Opus;
        let (opus_in, opus_out) = (opus(self.ingress.encoding()), opus(self.outbound.encoding));
        let (way, downlink, live) = match plan.route {
            Route::Echo if opus_in && opus_out => {
                let room = (rate * ECHO_RING_MS / 1000) as usize;
                let (down, playing) = ring::downlink_of_packets(rate, room, ECHO_PACKETS.0, ECHO_PACKETS.1);
                // Packets tell no rate: what is sent has the one that they were read at.
                self.outbound.rate = rate;
                (Way::Passed { down }, Some(playing), true)
            }
            Route::Echo => {
                let ring = |ms| (rate * ms / 1000) as usize;
                let (tx, rx) = ring::uplink(rate, ring(ECHO_UPLINK_MS), None);
                // Four frames, where the vendor's frames are long.
                let room = ECHO_RING_MS.max(self.ptime_ms * 4);
                let (down, playing) = ring::downlink(rate, ring(room), 64);
                let way = Uplink::new(tx, rate).map_or(Way::None, |up| Way::Echo { up, rx, down });
                (way, Some(playing), true)
            }
            Route::Relay { uplink, downlink } => (
                uplink.and_then(|u| Uplink::new(u, rate)).map_or(Way::None, Way::Ear),
                downlink,
                false,
            ),
        };
        self.way = way;
        // Of Opus there are packets to pass on, or nothing can be said.
        let downlink = downlink.filter(|ring| match opus_out {
            true => ring.holds_packets(),
            false => self.encoder.is_some() && !ring.holds_packets(),
        });
        self.playout = downlink.and_then(|ring| Playout::new(ring, self.outbound, self.ptime_ms, self.caps, live));
        self.onset = plan.barge_in_after.and_then(|after| {
            let config = VadConfig {
                onset_ms: after.as_millis() as u32,
                ..VadConfig::default()
            };
            Onset::new(rate, config)
        });
        self.tap = plan.tap.map(|tx| Tap::new(now, tx, rate, self.outbound.rate));
        self.timers.stop(Timer::Plan);
        self.state = State::Streaming;
        if let Some(tap) = &mut self.tap {
            tap.caller(now, None, &held);
        }
        if !matches!(self.way, Way::Passed { .. }) {
            return self.relay(&held, None, 0, &mut scratch.resampled);
        }
        let mut held = &held[..];
        for (n, concealed, packet) in packets {
            let (samples, rest) = held.split_at(n.min(held.len()));
            self.relay(
                samples,
                Some((Encoding::Opus, &packet)),
                concealed.min(n),
                &mut scratch.resampled,
            );
            held = rest;
        }
        self.accounts.in_dropped_unheard += held.len() as u64;
    }

    fn close(&mut self, now: Mono, code: u16, reason: &'static str, end: LegEnd) {
        if matches!(self.state, State::Closing { .. } | State::Closed) {
            return;
        }
        self.end.get_or_insert(end);
        // A refused socket (1008) must not end the call that it is not.
        self.hang_up = self.end == Some(LegEnd::Closed) && matches!(code, 1000 | 1001);
        self.timers.stop_all();
        self.timers.set(Timer::Close, now + CLOSE_GRACE);
        self.state = State::Closing {
            code,
            reason,
            said: false,
        };
        self.settle(now);
    }

    /// Closes the accounts; the ear learns the end by its ring, the recording by its tap.
    fn settle(&mut self, now: Mono) {
        while let Some(key) = self.keys.take() {
            self.keyed(key);
        }
        if let Way::Echo { rx, .. } = &self.way {
            let left = rx.queued() as u64;
            self.accounts.in_relayed -= left;
            self.accounts.in_dropped_unheard += left;
        }
        if let Some(mut playout) = self.playout.take() {
            playout.end(now, &mut self.accounts, &mut self.events);
        }
        self.wake_ear |= matches!(self.way, Way::Ear(_));
        self.tap = None;
        self.monitor = None;
        self.onset = None;
        let end = self.end.unwrap_or(LegEnd::Closed);
        self.events.push_back(LegEvent::Ended {
            end,
            accounting: Box::new(self.accounts),
        });
    }

    fn finish(&mut self, now: Mono) {
        if !matches!(self.state, State::Closing { .. } | State::Closed) {
            self.settle(now);
        }
        self.timers.stop_all();
        self.state = State::Closed;
    }
}
