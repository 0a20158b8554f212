//! Copies of a leg's audio for the recording: each side at the recording's rate, in its place on the recording's clock.

use crate::{
    audio::resample::Resampler,
    base::time::Mono,
    record::{Side, TapTx},
};

/// Copies both sides to the recording, each on the recording's clock of 8 kHz.
#[derive(Debug)]
pub(super) struct Tap {
    tx: TapTx,
    began: Mono,
    pub(super) caller: TapSide,
    agent: TapSide,
    pub(super) paused: bool,
}

/// One side of it.
#[derive(Debug)]
pub(super) struct TapSide {
    side: Side,
    /// Where the next sample belongs.
    next: u64,
    rate: u32,
    resampler: Option<Resampler>,
    buffer: Vec<i16>,
}

/// Rate of recordings.
const TAP_RATE: u32 = 8000;
/// Samples brought to that rate at once.
const TAP_PIECE: usize = 8000;
/// A side is set right when it is this many samples away from its clock.
const TAP_SLACK: u64 = 480;

impl Tap {
    pub(super) fn new(began: Mono, tx: TapTx, rate_in: u32, rate_out: u32) -> Self {
        let side = |side, rate: u32| TapSide {
            side,
            next: 0,
            rate,
            resampler: None,
            buffer: Vec::new(),
        };
        let side = |s, rate| {
            let mut side = side(s, rate);
            side.retune(rate);
            side
        };
        Self {
            tx,
            began,
            caller: side(Side::Caller, rate_in),
            agent: side(Side::Agent, rate_out),
            paused: false,
        }
    }

    /// Caller audio ends now: what arrives has just been spoken.
    pub(super) fn caller(&mut self, now: Mono, at_ms: Option<u64>, samples: &[i16]) {
        let spoken_in = samples.len() as u64 * 1000 / u64::from(self.caller.rate);
        let ms = at_ms.unwrap_or_else(|| now.millis_since(self.began).saturating_sub(spoken_in));
        self.caller
            .push(&mut self.tx, ms * u64::from(TAP_RATE) / 1000, samples, self.paused);
    }

    /// Agent audio begins to sound at `at`.
    pub(super) fn agent(&mut self, at: Mono, samples: &[i16]) {
        let ms = at.millis_since(self.began);
        self.agent
            .push(&mut self.tx, ms * u64::from(TAP_RATE) / 1000, samples, self.paused);
    }
}

impl TapSide {
    /// Takes samples of this rate from now on.
    pub(super) fn retune(&mut self, rate: u32) {
        self.rate = rate;
        self.resampler = Resampler::new(rate, TAP_RATE).ok().filter(|_| rate != TAP_RATE);
        if self.resampler.is_some() {
            self.buffer.resize(TAP_PIECE, 0);
        }
    }

    fn push(&mut self, tx: &mut TapTx, at: u64, samples: &[i16], paused: bool) {
        if self.next.abs_diff(at) > TAP_SLACK {
            self.next = at;
        }
        // Recordings never have more samples than their source.
        for piece in samples.chunks(TAP_PIECE) {
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
            self.next += piece.len() as u64;
        }
    }
}
