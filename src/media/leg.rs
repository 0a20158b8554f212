//! The state of one leg and what each thing that happens does to it. Nothing is written here: that is what `session` drains.

use super::{
    Accounting, LegEnd, LegEvent, Limits, Plan, Route,
    ingress::{Ingress, Onset, Scratch, Taken, Uplink},
    keys::Keys,
    monitor::Monitor,
    playout::Playout,
    rate::{Rate, Verdict},
    reorder::{Reorder, Turn},
    tap::Tap,
    timer::{Timer, Timers},
    tones::Tones,
};
use crate::{
    audio::{
        codec::Encoder,
        ring::{self, DownlinkTx, UplinkRx},
        vad::VadConfig,
    },
    base::{
        format::{AudioFormat, Encoding},
        ids::UtteranceId,
        time::Mono,
    },
    vendor::{Caps, Media, Payload, StreamStart},
};
use std::{collections::VecDeque, time::Duration};

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
/// The vendor's clock is believed while it is at most this far from ours.
const DRIFT_MS: u64 = 2000;
/// Payload faults are forgiven after this long.
const FAULT_WINDOW: Duration = Duration::from_secs(10);

/// Where a leg stands.
#[derive(Debug)]
pub(super) enum State {
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
pub(super) enum Way {
    /// Nobody listens.
    None,
    /// An ear.
    Ear(Uplink),
    /// Back to the caller through two rings.
    Echo { up: Uplink, rx: UplinkRx, down: DownlinkTx },
    /// Back to the caller, packet by packet.
    Passed { down: DownlinkTx },
}

/// The state, apart from the codec that its messages are borrowed from.
pub(super) struct Leg {
    pub(super) caps: &'static Caps,
    pub(super) limits: Limits,
    pub(super) state: State,
    pub(super) timers: Timers,
    pub(super) arrival: Option<Box<StreamStart>>,
    pub(super) outbound: AudioFormat,
    /// Absent for a format that is not spoken.
    pub(super) encoder: Option<Encoder>,
    pub(super) ptime_ms: u32,
    pub(super) ingress: Ingress,
    pub(super) reorder: Reorder,
    pub(super) keys: Keys,
    pub(super) way: Way,
    pub(super) playout: Option<Playout>,
    /// Boxed, as is the tap: not every leg has one.
    pub(super) onset: Option<Box<Onset>>,
    pub(super) tap: Option<Box<Tap>>,
    pub(super) monitor: Option<Monitor>,
    /// When `start` came.
    pub(super) began: Mono,
    pub(super) muted_uplink: bool,
    /// What takes the place of the caller's audio, in order.
    pub(super) tones: VecDeque<Box<Tones>>,
    /// What is being said may not be talked over.
    pub(super) protected: bool,
    pub(super) events: VecDeque<LegEvent>,
    pub(super) accounts: Accounting,
    pub(super) rate: Rate,
    /// Changes of the audio's rate so far.
    pub(super) retunes: u8,
    pub(super) controls: Rate,
    /// The peer has said something since it was last asked.
    pub(super) heard: bool,
    /// It is yet to be asked.
    pub(super) ping: bool,
    pub(super) strikes: u32,
    pub(super) bad: (Mono, u32),
    pub(super) end: Option<LegEnd>,
    /// What the peer was told when it was closed.
    pub(super) reason: &'static str,
    /// The vendor is yet to be told that the call is over.
    pub(super) hang_up: bool,
    /// The vendor is yet to be told not to play this chunk.
    pub(super) interrupt: Option<Option<u64>>,
    pub(super) wake_ear: bool,
}

impl Leg {
    /// A leg whose socket has just opened.
    pub(super) fn new(now: Mono, caps: &'static Caps, limits: Limits) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Start, now + limits.start);
        if !limits.ping_every.is_zero() {
            timers.set(Timer::Ping, now + limits.ping_every);
        }
        Self {
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
            tones: VecDeque::new(),
            protected: false,
            events: VecDeque::with_capacity(32),
            accounts: Accounting::default(),
            heard: true,
            ping: false,
            strikes: 0,
            bad: (now, 0),
            end: None,
            reason: "",
            hang_up: false,
            interrupt: None,
            wake_ear: false,
        }
    }

    /// Whether anybody records or listens.
    pub(super) const fn is_copied(&self) -> bool {
        self.tap.is_some() || self.monitor.is_some()
    }

    /// Copies what is sent for those who record and listen.
    pub(super) fn copy(&mut self, at: Mono, samples: &[i16], sent: &[u8]) {
        if let Some(tap) = &mut self.tap {
            tap.agent(at, samples);
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.agent(at, samples, sent, self.outbound.rate);
        }
    }

    /// Whether a message may be looked at now; keeps the idle timer and the message rate.
    pub(super) fn admit(&mut self, now: Mono) -> bool {
        self.heard = true;
        match self.state {
            State::Closing { .. } | State::Closed => return false,
            State::Opening => {}
            State::Waiting { .. } | State::Streaming => self.timers.set(Timer::Idle, now + self.limits.idle),
        }
        match self.rate.take(now) {
            Verdict::Pass => return true,
            Verdict::Drop => self.accounts.in_flooded += 1,
            Verdict::Flood => self.close(now, 1008, "too many messages", LegEnd::Violation(1008)),
        }
        false
    }

    /// The peer is asked for a sign of life, unless it owes us one.
    pub(super) fn ask(&mut self, now: Mono) {
        if !std::mem::take(&mut self.heard) {
            return self.close(now, 1001, "no answer to a ping", LegEnd::Idle);
        }
        self.ping = true;
        self.timers.set(Timer::Ping, now + self.limits.ping_every);
    }

    /// The caller pressed a key.
    pub(super) fn keyed(&mut self, key: char) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(LegEvent::Dtmf(key));
        } else {
            self.accounts.keys_dropped += 1;
        }
    }

    /// Passes on the keys that have waited for those before them.
    pub(super) fn release_keys(&mut self, now: Mono) {
        while let Some(key) = self.keys.due(now) {
            self.keyed(key);
        }
        if let Some(at) = self.keys.next() {
            self.timers.set(Timer::Keys, at);
        }
    }

    pub(super) fn refuse_format(&mut self, now: Mono) {
        self.close(now, 1008, "an audio format that is not spoken", LegEnd::Violation(1008));
    }

    /// The vendor complains: passed on a few times, counted always.
    pub(super) fn complain(&mut self, code: u64) {
        self.accounts.complaints += 1;
        if self.accounts.complaints <= MAX_COMPLAINTS {
            self.events.push_back(LegEvent::Complaint(code));
        }
    }

    pub(super) fn strike(&mut self, now: Mono) {
        self.accounts.in_bad += 1;
        self.strikes += 1;
        if self.strikes >= self.limits.protocol_strikes {
            self.close(now, 1008, "unreadable messages", LegEnd::Violation(1008));
        }
    }

    pub(super) fn handle_start(&mut self, now: Mono, start: Box<StreamStart>) {
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

    pub(super) fn handle_media(&mut self, now: Mono, media: Media<'_>, scratch: &mut Scratch) {
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
    pub(super) fn take_held(&mut self, now: Mono, scratch: &mut Scratch) {
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
        let at_ms = self.believe(now, at_ms, n as u64 * 1000 / u64::from(rate));
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

    /// When audio began that has just come, on the stream's clock, unless that is far from ours: one wrong number must not move
    /// all that is recorded after it.
    fn believe(&mut self, now: Mono, at_ms: Option<u64>, length_ms: u64) -> Option<u64> {
        let ours = now.millis_since(self.began).saturating_sub(length_ms);
        let far = at_ms.is_some_and(|at| at.abs_diff(ours) > DRIFT_MS);
        self.accounts.in_misdated += u64::from(far);
        at_ms.filter(|_| !far)
    }

    /// The caller's audio has another rate than `start` said. Allocates, a few times at most; returns whether it is followed.
    fn retune(&mut self, rate: u32) -> bool {
        if !AudioFormat::RATES.contains(&rate) || self.retunes == MAX_RETUNES {
            return false;
        }
        self.retunes += 1;
        self.ingress.retune(rate);
        // Sound of another rate would be another sound.
        self.tones.clear();
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

    /// Hands the caller's samples to whoever listens, or what takes their place, with the payload that said them; the first
    /// `concealed` samples are not in it.
    fn relay(&mut self, samples: &[i16], said: Option<(Encoding, &[u8])>, concealed: usize, resampled: &mut [i16]) {
        match self.tones.pop_front() {
            Some(tones) => self.relay_tones(tones, samples, resampled),
            None if self.muted_uplink => self.accounts.in_dropped_unheard += samples.len() as u64,
            None => self.hand_on(samples, said, concealed, resampled),
        }
    }

    /// Hands samples to whoever listens.
    pub(super) fn hand_on(
        &mut self,
        samples: &[i16],
        said: Option<(Encoding, &[u8])>,
        concealed: usize,
        resampled: &mut [i16],
    ) {
        match &mut self.way {
            Way::None => self.accounts.in_dropped_unheard += samples.len() as u64,
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

    pub(super) fn handle_plan(&mut self, now: Mono, plan: Plan, scratch: &mut Scratch) {
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
            Onset::new(rate, config).map(Box::new)
        });
        self.tap = plan
            .tap
            .map(|tx| Box::new(Tap::new(self.began, tx, rate, self.outbound.rate)));
        self.timers.stop(Timer::Plan);
        self.state = State::Streaming;
        if let Some(tap) = &mut self.tap {
            tap.caller(now, Some(0), &held);
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

    pub(super) fn close(&mut self, now: Mono, code: u16, reason: &'static str, end: LegEnd) {
        if matches!(self.state, State::Closing { .. } | State::Closed) {
            return;
        }
        self.end.get_or_insert(end);
        self.reason = reason;
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

    pub(super) fn finish(&mut self, now: Mono) {
        if !matches!(self.state, State::Closing { .. } | State::Closed) {
            self.settle(now);
        }
        self.timers.stop_all();
        self.state = State::Closed;
    }
}
