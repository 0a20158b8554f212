//! Audio on its way to the caller: paced onto the vendor's clock, marked, cut, and accounted for sample by sample.
//!
//! The vendor queues what it is sent and plays it in real time, so the queue's far end (the horizon) is known without asking.
//! Frames go out while the horizon is less than the vendor's lead ahead of now; hence a starved or stalled stream catches up by itself,
//! and a cut acts on little. Frames are always whole: the tail of an utterance is padded with silence, a gap inside one waits.
//!
//! A ring of packets is passed on packet by packet, each as long as it is; the samples beside them are for those who listen.
//! A ring of G.711 codes is played code by code, as they are.

use crate::{
    audio::{codec, opus, resample::Resampler, ring::DownlinkRx},
    base::{
        format::{AudioFormat, Encoding},
        ids::UtteranceId,
        time::Mono,
    },
    media::{Accounting, LegEvent},
    vendor::Caps,
};
use std::{collections::VecDeque, time::Duration};

/// Utterances that may be sent and not yet reported as played. More are reported by the clock.
const AWAITING: usize = 64;
/// A mark that is this late is believed lost, and its utterance reported by the clock.
const MARK_LOST: Duration = Duration::from_secs(5);
/// How long playout waits for a cut to be confirmed after the caller spoke over it.
const CUT_HOLD: Duration = Duration::from_millis(500);
/// A live stream that stayed later than this for [`LATE_WINDOW`] skips ahead to where it was before.
const LATE: Duration = Duration::from_millis(300);
const LATE_WINDOW: Duration = Duration::from_millis(400);

/// One thing to be written to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A frame of so many samples or codes, left in the caller's buffer, that begins to sound at this time.
    Frame { samples: usize, at: Mono },
    /// A packet of so many bytes and the samples that it says, left in the caller's buffers.
    Packet { samples: usize, bytes: usize, at: Mono },
    /// Ask for this utterance's mark.
    Mark(UtteranceId),
    /// Drop the vendor's queue.
    Clear,
    /// Nothing now.
    Nothing,
}

/// An utterance of which something was sent.
#[derive(Clone, Copy, Debug)]
struct Spoken {
    utterance: UtteranceId,
    /// When its first sample sounds.
    from: Mono,
    /// When its last sample sent so far has sounded.
    to: Mono,
}

impl Spoken {
    fn heard_ms(&self, now: Mono) -> u32 {
        now.min(self.to).millis_since(self.from) as u32
    }

    fn total_ms(&self) -> u32 {
        self.to.millis_since(self.from) as u32
    }
}

/// Paces one downlink ring onto one vendor stream.
#[derive(Debug)]
pub(super) struct Playout {
    ring: DownlinkRx,
    resampler: Option<Resampler>,
    /// What stands for nothing said: 0, or the law's code of it.
    silence: i16,
    /// Samples of a frame at the ring's rate, and what the length of an utterance's last frame is a multiple of.
    frame: usize,
    quantum: usize,
    ptime: Duration,
    /// The longest run of audio that the stream's source hands over at once, where there is one.
    burst: Duration,
    lead: Duration,
    marks: bool,
    clears: bool,
    /// The stream cannot be held back at its source, so lateness is mended by skipping.
    live: bool,

    /// Samples of a frame that is not whole yet, and whose they are.
    partial: Vec<i16>,
    partial_of: UtteranceId,
    /// When everything sent so far has sounded.
    horizon: Mono,
    floor: UtteranceId,
    speaking: Option<Spoken>,
    awaiting: VecDeque<Spoken>,
    mark_due: Option<UtteranceId>,
    clear_due: bool,
    held_until: Option<Mono>,
    late_since: Option<Mono>,
    skipping: bool,
    muted: bool,
    sent_any: bool,
}

impl Playout {
    /// Plays `ring` in frames of `ptime_ms` as `caps` and the stream's `format` demand, or in the packets that it holds. `None`
    /// where no resampler exists between their rates, or the ring's codes are not the stream's.
    pub(super) fn new(ring: DownlinkRx, format: AudioFormat, ptime_ms: u32, caps: &Caps, live: bool) -> Option<Self> {
        let silence = match ring.format().encoding {
            Encoding::L16Le => 0,
            _ if ring.format() != format => return None,
            law => i16::from(codec::silence(law)),
        };
        let resampler = match ring.rate() {
            rate if rate == format.rate || ring.holds_packets() => None,
            rate => Some(Resampler::new(rate, format.rate).ok()?),
        };
        let frame = (ring.rate() as usize * ptime_ms as usize) / 1000;
        let quantum_ms = caps.chunk_multiple / caps.outbound.bytes_of_ms(1).max(1);
        let quantum = (ring.rate() as usize * quantum_ms / 1000).clamp(1, frame);
        Some(Self {
            silence,
            frame,
            quantum,
            burst: Duration::from_millis(u64::from(ptime_ms)),
            ring,
            resampler,
            ptime: Duration::from_millis(u64::from(ptime_ms)),
            // A frame longer than the lead still has to go.
            lead: Duration::from_millis(u64::from(caps.lead_ms.max(ptime_ms))),
            marks: caps.mark,
            clears: caps.clear,
            live,
            partial: Vec::with_capacity(frame),
            partial_of: UtteranceId::default(),
            horizon: Mono::ZERO,
            floor: UtteranceId::default(),
            speaking: None,
            // What is played live is one utterance without an end.
            awaiting: VecDeque::with_capacity(if live { 0 } else { AWAITING }),
            mark_due: None,
            clear_due: false,
            held_until: None,
            late_since: None,
            skipping: false,
            muted: false,
            sent_any: false,
        })
    }

    /// Whether the caller hears something now, as far as we know.
    pub(super) fn is_sounding(&self, now: Mono) -> bool {
        self.horizon > now && !self.muted
    }

    /// Whether time alone may give it something to do. A ring that another thread fills always may.
    pub(super) fn wants_ticks(&self) -> bool {
        !self.live || self.skipping || self.late_since.is_some() || self.ring.queued() > 0
    }

    /// The source hands over so much at once.
    pub(super) fn expect(&mut self, burst: Duration) {
        self.burst = self.burst.max(burst);
    }

    /// Replaces audio by silence, or stops doing so. Time goes on either way.
    pub(super) const fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// The law of the codes that it plays, where it plays codes.
    pub(super) fn law(&self) -> Option<Encoding> {
        Some(self.ring.format().encoding).filter(|e| *e != Encoding::L16Le)
    }

    /// Samples taken up and not sent, for the accounts.
    pub(super) fn queued(&self) -> u64 {
        self.partial.len() as u64
    }

    /// The next thing to write. Call until it returns [`Step::Nothing`].
    pub(super) fn poll(
        &mut self,
        now: Mono,
        out: &mut [i16],
        packet: &mut [u8],
        accounts: &mut Accounting,
        events: &mut VecDeque<LegEvent>,
    ) -> Step {
        if std::mem::take(&mut self.clear_due) {
            return Step::Clear;
        }
        if let Some(utterance) = self.mark_due.take() {
            return Step::Mark(utterance);
        }
        if let Some(until) = self.held_until {
            if now < until {
                return Step::Nothing;
            }
            self.held_until = None;
        }
        self.skip_stale(accounts);
        if self.live {
            self.catch_up(now, accounts);
        }
        if self.ring.holds_packets() {
            return self.pass_on(now, out, packet, accounts, events);
        }
        if self.horizon.max(now) + self.ptime > now + self.lead {
            return Step::Nothing;
        }
        let from = self.taken_at(out);
        let Some((real, last)) = self.fill(&mut out[from..], accounts) else {
            return Step::Nothing;
        };
        self.send(now, (real, last), out, accounts, events)
    }

    /// Where in `out` a frame is taken from the ring: in its place, or with a resampler in the other half.
    fn taken_at(&self, out: &[i16]) -> usize {
        if self.resampler.is_some() { out.len() / 2 } else { 0 }
    }

    /// Drops what lies below the floor.
    fn skip_stale(&mut self, accounts: &mut Accounting) {
        let stale = |u: UtteranceId| u < self.floor && u != UtteranceId::default();
        if !self.partial.is_empty() && stale(self.partial_of) {
            accounts.out_cut += self.partial.len() as u64;
            self.partial.clear();
        }
        while let Some(span) = self.ring.peek().filter(|s| stale(s.utterance)) {
            let (n, ended) = self.ring.skip(span.samples as usize);
            accounts.out_samples += n as u64;
            accounts.out_cut += n as u64;
            if n == 0 && !ended {
                break;
            }
        }
    }

    /// Brings a live stream that has stayed late back by leaving its oldest unsent audio out.
    fn catch_up(&mut self, now: Mono, accounts: &mut Accounting) {
        let queued = self.length_of(self.ring.queued() as u64);
        let late = self.horizon.since(now) + queued;
        // A source that hands over much at once is not late for it.
        if late <= LATE.max(self.burst * 2) {
            self.late_since = None;
        } else if now.since(*self.late_since.get_or_insert(now)) >= LATE_WINDOW {
            self.skipping = true;
        }
        if self.skipping {
            if self.horizon.since(now) <= self.ptime * 2 && queued <= self.ptime * 2 {
                self.skipping = false;
                self.late_since = None;
                return;
            }
            let keep = if self.horizon.since(now) <= self.ptime * 2 {
                self.frame
            } else {
                0
            };
            self.skip_to(keep, |a, n| a.out_dropped_stalled += n, accounts);
        }
    }

    /// Takes samples of one utterance into `out` until a frame is whole, and returns how many there are and whether the utterance
    /// ends with them. What is not whole yet stays behind in `partial`.
    fn fill(&mut self, out: &mut [i16], accounts: &mut Accounting) -> Option<(usize, bool)> {
        let mut had = self.partial.len();
        out[..had].copy_from_slice(&self.partial);
        let filled = loop {
            let Some(span) = self.ring.peek() else { break None };
            if had == 0 {
                self.partial_of = span.utterance;
            } else if span.utterance != self.partial_of {
                // Its end was never said: the frame is padded, and the utterance is over.
                break Some((had, true));
            }
            let (n, ended) = self.ring.pop(&mut out[had..self.frame]);
            had += n;
            accounts.out_samples += n as u64;
            if ended || had == self.frame {
                break Some((had, ended));
            }
            if n == 0 {
                break None;
            }
        };
        self.partial.clear();
        if filled.is_none() {
            self.partial.extend_from_slice(&out[..had]);
        }
        filled
    }

    fn send(
        &mut self,
        now: Mono,
        (real, last): (usize, bool),
        out: &mut [i16],
        accounts: &mut Accounting,
        events: &mut VecDeque<LegEvent>,
    ) -> Step {
        let utterance = self.partial_of;
        if real == 0 {
            return self.end_alone(now, utterance);
        }
        // Only an utterance's last frame is not whole. It is padded as little as the vendor allows.
        let padded = real.next_multiple_of(self.quantum).min(self.frame);
        let ptime = self.ptime * padded as u32 / self.frame as u32;
        let taken_at = self.taken_at(out);
        let samples = match &mut self.resampler {
            None => {
                out[real..padded].fill(self.silence);
                padded
            }
            Some(r) => {
                let (sent, taken) = out.split_at_mut(taken_at);
                taken[real..padded].fill(0);
                r.process(&taken[..padded], sent)
            }
        };
        if self.muted {
            out[..samples].fill(self.silence);
        }
        accounts.out_sent += real as u64;
        let at = self.sound(now, utterance, ptime, last, accounts, events);
        Step::Frame { samples, at }
    }

    /// Passes the packet at the head on, when it is due.
    fn pass_on(
        &mut self,
        now: Mono,
        out: &mut [i16],
        packet: &mut [u8],
        accounts: &mut Accounting,
        events: &mut VecDeque<LegEvent>,
    ) -> Step {
        let Some(span) = self.ring.peek() else {
            return Step::Nothing;
        };
        let ptime = self.length_of(span.samples.into());
        if span.samples > 0 && self.horizon.max(now) + ptime > now + self.lead.max(ptime) {
            return Step::Nothing;
        }
        let (samples, mut bytes, last) = self.ring.pop_packet(out, packet);
        accounts.out_samples += u64::from(span.samples);
        if samples == 0 {
            return self.end_alone(now, span.utterance);
        }
        if self.muted {
            out[..samples].fill(0);
            bytes = opus::silence(samples, self.ring.rate(), packet);
        }
        accounts.out_sent += u64::from(span.samples);
        let at = self.sound(now, span.utterance, ptime, last, accounts, events);
        Step::Packet { samples, bytes, at }
    }

    /// How long so many samples of the ring last.
    fn length_of(&self, samples: u64) -> Duration {
        Duration::from_micros(samples * 1_000_000 / u64::from(self.ring.rate().max(1)))
    }

    /// The end of an utterance came alone: nothing more to send, but its mark is due.
    fn end_alone(&mut self, now: Mono, utterance: UtteranceId) -> Step {
        let at = self.horizon.max(now);
        if self.speaking.is_some_and(|s| s.utterance != utterance) {
            self.finish_speaking();
        }
        let spoken = self.speaking.unwrap_or(Spoken {
            utterance,
            from: at,
            to: at,
        });
        self.speaking = Some(spoken);
        self.finish_speaking();
        self.mark_due.take().map_or(Step::Nothing, Step::Mark)
    }

    /// A frame of an utterance goes out, which lasts `ptime` and may be its last. Returns when it begins to sound.
    fn sound(
        &mut self,
        now: Mono,
        utterance: UtteranceId,
        ptime: Duration,
        last: bool,
        accounts: &mut Accounting,
        events: &mut VecDeque<LegEvent>,
    ) -> Mono {
        if self.speaking.is_some_and(|s| s.utterance != utterance) {
            self.finish_speaking();
        }
        let at = self.horizon.max(now);
        accounts.out_frames += 1;
        self.horizon = at + ptime;
        self.sent_any = true;
        match &mut self.speaking {
            Some(s) => s.to = self.horizon,
            None => {
                self.speaking = Some(Spoken {
                    utterance,
                    from: at,
                    to: self.horizon,
                });
                if utterance != UtteranceId::default() {
                    events.push_back(LegEvent::Playing(utterance));
                }
            }
        }
        if last {
            self.finish_speaking();
        }
        at
    }

    /// The utterance has been sent whole: from here its mark or the clock says when it was heard.
    fn finish_speaking(&mut self) {
        let Some(spoken) = self.speaking.take().filter(|s| s.utterance != UtteranceId::default()) else {
            return;
        };
        if self.marks {
            self.mark_due = Some(spoken.utterance);
        }
        self.awaiting.push_back(spoken);
    }

    /// The vendor says that everything up to this utterance was played.
    pub(super) fn marked(&mut self, utterance: UtteranceId, events: &mut VecDeque<LegEvent>) {
        if self.awaiting.iter().any(|s| s.utterance == utterance) {
            while let Some(s) = self.awaiting.pop_front() {
                events.push_back(LegEvent::Played {
                    utterance: s.utterance,
                    heard_ms: s.total_ms(),
                    whole: true,
                });
                if s.utterance == utterance {
                    break;
                }
            }
        }
    }

    /// Reports by the clock what no mark will report.
    pub(super) fn tick(&mut self, now: Mono, events: &mut VecDeque<LegEvent>) {
        let patience = if self.marks { MARK_LOST } else { Duration::ZERO };
        while let Some(s) = self.awaiting.front() {
            if s.to + patience > now && self.awaiting.len() < AWAITING {
                break;
            }
            events.push_back(LegEvent::Played {
                utterance: s.utterance,
                heard_ms: s.total_ms(),
                whole: true,
            });
            self.awaiting.pop_front();
        }
    }

    /// The caller spoke over it: everything known is cut at once, and nothing more is played until [`Playout::cut`] says where to go on.
    pub(super) fn barge_in(&mut self, now: Mono, accounts: &mut Accounting, events: &mut VecDeque<LegEvent>) {
        events.push_back(LegEvent::BargedIn);
        let queued = self.ring.peek().map(|s| s.utterance);
        let speaking = self.speaking.map(|s| s.utterance);
        let top = self
            .awaiting
            .back()
            .map(|s| s.utterance)
            .max(speaking)
            .max(queued)
            .unwrap_or_default();
        self.cut(top.next(), now, accounts, events);
        self.held_until = Some(now + CUT_HOLD);
    }

    /// Cuts everything below `floor`: unsent audio is dropped, the vendor's queue cleared, and what was heard is reported.
    pub(super) fn cut(
        &mut self,
        floor: UtteranceId,
        now: Mono,
        accounts: &mut Accounting,
        events: &mut VecDeque<LegEvent>,
    ) {
        self.held_until = None;
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let report = |s: Spoken, complete: bool, events: &mut VecDeque<LegEvent>| {
            if s.utterance == UtteranceId::default() {
                return;
            }
            let whole = complete && s.to <= now;
            events.push_back(LegEvent::Played {
                utterance: s.utterance,
                heard_ms: s.heard_ms(now),
                whole,
            });
        };
        let mut kept = self.awaiting.len();
        while kept > 0 {
            kept -= 1;
            if let Some(s) = self.awaiting.pop_front() {
                if s.utterance < floor {
                    report(s, true, events)
                } else {
                    self.awaiting.push_back(s)
                }
            }
        }
        let mut outlives = !self.awaiting.is_empty();
        if let Some(s) = self.speaking {
            if s.utterance < floor {
                report(s, false, events);
                self.speaking = None;
            } else {
                outlives = true;
            }
        }
        self.mark_due = self.mark_due.filter(|u| *u >= floor);
        if !outlives {
            self.clear_due = self.clears && self.sent_any;
            if self.clears {
                self.horizon = now;
            }
        }
        self.skip_stale(accounts);
        if self.live {
            accounts.out_cut += self.partial.len() as u64;
            self.partial.clear();
            self.skip_to(0, |a, n| a.out_cut += n, accounts);
        }
    }

    /// Leaves out the oldest queued samples until `keep` are left.
    fn skip_to(&mut self, keep: usize, book: fn(&mut Accounting, u64), accounts: &mut Accounting) {
        while self.ring.queued() > keep {
            let (n, ended) = self.ring.skip(self.ring.queued() - keep);
            accounts.out_samples += n as u64;
            book(accounts, n as u64);
            if n == 0 && !ended {
                break;
            }
        }
    }

    /// At the end of the leg: what was under way is reported as cut here.
    pub(super) fn end(&mut self, now: Mono, accounts: &mut Accounting, events: &mut VecDeque<LegEvent>) {
        while let Some(s) = self.awaiting.pop_front() {
            events.push_back(LegEvent::Played {
                utterance: s.utterance,
                heard_ms: s.heard_ms(now),
                whole: s.to <= now,
            });
        }
        if let Some(s) = self.speaking.take().filter(|s| s.utterance != UtteranceId::default()) {
            events.push_back(LegEvent::Played {
                utterance: s.utterance,
                heard_ms: s.heard_ms(now),
                whole: false,
            });
        }
        accounts.out_queued = self.queued() + self.ring.queued() as u64;
        accounts.out_samples += self.ring.queued() as u64;
    }
}

#[cfg(test)]
mod tests;
