//! Copies of both sides for the recording, each on the recording's clock of 8 kHz.

use crate::{
    audio::resample::Resampler,
    base::time::Mono,
    record::{Side, TapTx},
};

/// Rate of recordings.
const RATE: u32 = 8000;
/// Samples brought to that rate at once.
const PIECE: usize = 8000;
/// A side is set right when it is this many samples away from its clock.
const SLACK: u64 = 480;

/// A leg's copies.
#[derive(Debug)]
pub(super) struct Tap {
    tx: TapTx,
    began: Mono,
    caller: Track,
    agent: Track,
    paused: bool,
}

/// One side.
#[derive(Debug)]
struct Track {
    side: Side,
    /// Where the next sample belongs.
    next: u64,
    rate: u32,
    resampler: Option<Resampler>,
    buffer: Vec<i16>,
}

impl Tap {
    /// Copies audio of these rates from now on.
    pub(super) fn new(began: Mono, tx: TapTx, caller_rate: u32, agent_rate: u32) -> Self {
        Self {
            tx,
            began,
            caller: Track::new(Side::Caller, caller_rate),
            agent: Track::new(Side::Agent, agent_rate),
            paused: false,
        }
    }

    /// Stops copying, or goes on.
    pub(super) const fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// The caller's audio has another rate from now on.
    pub(super) fn retune_caller(&mut self, rate: u32) {
        self.caller.retune(rate);
    }

    /// Caller audio ends now, or begins at `at_ms` of the stream: what arrives has just been spoken.
    pub(super) fn caller(&mut self, now: Mono, at_ms: Option<u64>, samples: &[i16]) {
        let length_ms = samples.len() as u64 * 1000 / u64::from(self.caller.rate);
        let ms = at_ms.unwrap_or_else(|| now.millis_since(self.began).saturating_sub(length_ms));
        self.caller.push(&mut self.tx, position(ms), samples, self.paused);
    }

    /// Agent audio begins to sound at `at`.
    pub(super) fn agent(&mut self, at: Mono, samples: &[i16]) {
        let ms = at.millis_since(self.began);
        self.agent.push(&mut self.tx, position(ms), samples, self.paused);
    }
}

/// Where a moment lies on the recording's clock.
const fn position(ms: u64) -> u64 {
    ms.saturating_mul(RATE as u64) / 1000
}

impl Track {
    fn new(side: Side, rate: u32) -> Self {
        let mut track = Self {
            side,
            next: 0,
            rate,
            resampler: None,
            buffer: Vec::new(),
        };
        track.retune(rate);
        track
    }

    /// Takes samples of this rate from now on.
    fn retune(&mut self, rate: u32) {
        self.rate = rate;
        self.resampler = Resampler::fine(rate, RATE).ok().filter(|_| rate != RATE);
        if self.resampler.is_some() {
            self.buffer.resize(PIECE, 0);
        }
    }

    fn push(&mut self, tx: &mut TapTx, at: u64, samples: &[i16], paused: bool) {
        if self.next.abs_diff(at) > SLACK {
            self.next = at;
        }
        // A recording never has more samples than its source.
        for piece in samples.chunks(PIECE) {
            let piece = match &mut self.resampler {
                None => piece,
                Some(r) => {
                    let n = r.process(piece, &mut self.buffer);
                    &self.buffer[..n]
                }
            };
            if !paused {
                tx.push(self.side, self.next, piece);
            }
            self.next = self.next.saturating_add(piece.len() as u64);
        }
    }
}
