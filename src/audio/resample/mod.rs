//! Streaming resampler between 8, 16, 24 and 48 kHz: mono, linear phase, same bits on every CPU.
//!
//! Every chunk gives exactly `n × to / from` samples from the first chunk on, and how a stream is cut into chunks does not
//! change what comes out. Where `n × to / from` is no whole number (never for multiples of 10 ms) the odd samples wait for
//! the next chunk. Nothing allocates after construction; the state of one direction is at most 5 KiB.
//!
//! The filter is one Kaiser-windowed sinc for all ratios, cut at the Nyquist frequency of the lower rate, so that every tap a
//! whole number of low-rate samples away from the middle is zero: a rate doubled passes every second sample through unchanged,
//! and the delay is a whole number of samples of the lower rate. There are two lengths of it ([`Quality`]); what each does between
//! each pair of rates is a table in `docs/performance.md`, which a test measures and compares.
//!
//! With a lower rate of 8 kHz all is flat to 3.4 kHz, down by 6 dB at 4 kHz and rejected from 4.6 kHz; other rates scale.
//! What lies between 4 and 4.6 kHz folds into the top of the band, above what telephone speech holds.
//! Other rates (files, synthesizers) go through [`any`], off the media path.

pub mod any;
mod filter;
mod kernel;
mod simd;
#[cfg(test)]
mod tests;

use super::isa::{Isa, MissingIsa};
use filter::Filter;
use kernel::{BLOCK, HISTORY, STRIDE};
use std::{fmt, sync::Arc};

/// How much is let through that should not be, against how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// For audio that somebody waits for: 32 samples of the lower rate long, aliases and images below −74 dB after 2 ms at 8 kHz.
    Path,
    /// For recordings and listeners: 40 samples long, below −90 dB after 2.5 ms, a quarter dearer.
    Fine,
}

/// A resampler of one stream in one direction.
#[derive(Clone, Debug)]
pub struct Resampler {
    from: u32,
    to: u32,
    /// Absent between equal rates: samples pass through.
    polyphase: Option<Polyphase>,
}

/// The state of a stream whose rate changes by `up / down`.
#[derive(Clone, Debug)]
struct Polyphase {
    filter: Arc<Filter>,
    isa: Isa,
    /// `down` streams of [`STRIDE`] samples: stream `s` holds input samples `s`, `s + down`, …, its history in front.
    streams: Box<[f32]>,
    /// Samples of an incomplete group of `down`, at the start of the streams behind the history.
    waiting: usize,
}

impl Resampler {
    /// A resampler from one rate to another, both of 8000, 16000, 24000, 48000 Hz, for the path of a call.
    pub fn new(from: u32, to: u32) -> Result<Self, UnsupportedRates> {
        Self::build(from, to, Quality::Path, Isa::best())
    }

    /// The same for recordings and listeners.
    pub fn fine(from: u32, to: u32) -> Result<Self, UnsupportedRates> {
        Self::build(from, to, Quality::Fine, Isa::best())
    }

    /// A resampler on a given instruction set (tests and benches: the samples do not depend on it).
    pub fn on(isa: Isa, from: u32, to: u32, quality: Quality) -> Result<Result<Self, UnsupportedRates>, MissingIsa> {
        Ok(Self::build(from, to, quality, isa.require()?))
    }

    fn build(from: u32, to: u32, quality: Quality, isa: Isa) -> Result<Self, UnsupportedRates> {
        let unsupported = UnsupportedRates { from, to };
        if ![from, to].iter().all(|rate| [8000, 16000, 24000, 48000].contains(rate)) {
            return Err(unsupported);
        }
        let polyphase = if from == to {
            None
        } else {
            let filter = Filter::shared(from, to, quality).ok_or(unsupported)?;
            Some(Polyphase {
                streams: vec![0.0; filter.down * STRIDE].into(),
                filter,
                isa,
                waiting: 0,
            })
        };
        Ok(Self { from, to, polyphase })
    }

    /// Resamples the next chunk and returns how many samples were written: [`output_len`](Self::output_len) of them, or
    /// `out.len()` if that is less; what does not fit is lost.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        match &mut self.polyphase {
            Some(polyphase) => polyphase.process(input, out),
            None => {
                let n = input.len().min(out.len());
                out[..n].copy_from_slice(&input[..n]);
                n
            }
        }
    }

    /// How many samples the next chunk gives if it has `input` samples: `input × to / from` for multiples of 10 ms.
    pub fn output_len(&self, input: usize) -> usize {
        match &self.polyphase {
            Some(p) => (p.waiting + input) / p.filter.down * p.filter.up,
            None => input,
        }
    }

    /// Forgets the past: what follows is a new stream.
    pub fn reset(&mut self) {
        if let Some(p) = &mut self.polyphase {
            p.streams.fill(0.0);
            p.waiting = 0;
        }
    }

    /// How far the output lags behind the input, in output samples.
    pub fn delay_samples(&self) -> usize {
        self.polyphase.as_ref().map_or(0, |p| p.filter.delay)
    }

    /// How far the output lags behind the input, in milliseconds.
    pub fn delay_ms(&self) -> f32 {
        self.delay_samples() as f32 * 1000.0 / self.to as f32
    }

    /// Input rate in Hz.
    pub const fn from_rate(&self) -> u32 {
        self.from
    }

    /// Output rate in Hz.
    pub const fn to_rate(&self) -> u32 {
        self.to
    }
}

impl Polyphase {
    fn process(&mut self, mut input: &[i16], out: &mut [i16]) -> usize {
        let (up, down) = (self.filter.up, self.filter.down);
        let mut written = 0;
        while !input.is_empty() {
            let (now, later) = input.split_at(input.len().min(BLOCK * down - self.waiting));
            input = later;
            let groups = (self.waiting + now.len()) / down;
            let room = &mut out[written..];
            let whole = room.len().min(groups * up);
            simd::run(
                self.isa,
                &self.filter,
                &mut self.streams,
                self.waiting,
                now,
                &mut room[..whole],
            );
            written += whole;
            self.waiting = (self.waiting + now.len()) % down;
            for stream in self.streams.chunks_exact_mut(STRIDE) {
                stream.copy_within(groups..groups + HISTORY + usize::from(self.waiting > 0), 0);
            }
        }
        written
    }
}

/// A pair of rates with no resampler on the media path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedRates {
    /// Input rate in Hz.
    pub from: u32,
    /// Output rate in Hz.
    pub to: u32,
}

impl fmt::Display for UnsupportedRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot stream from {} Hz to {} Hz: both must be 8000, 16000, 24000 or 48000",
            self.from, self.to
        )
    }
}

impl std::error::Error for UnsupportedRates {}
