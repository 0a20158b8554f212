//! Any rate to any other, for files and synthesizers: off the media path, where delay is trimmed away and buffers may grow.
//!
//! Built on `rubato`'s FFT resampler in blocks of about 20 ms. A whole stream of `n` samples gives exactly
//! ⌈n × to / from⌉ samples, aligned with the input to within half an input sample: the filter's delay is cut off the
//! beginning and flushed out at the end.

use rubato::{
    Fft, FixedSync, Indexing, Resampler as _, WindowFunction, audioadapter_buffers::direct::InterleavedSlice,
};
use std::fmt;

/// A converter of one stream of mono samples.
#[derive(Debug)]
pub struct AnyResampler {
    from: u32,
    to: u32,
    /// Absent between equal rates: samples pass through.
    blocks: Option<Blocks>,
    taken: u64,
    given: u64,
}

/// The FFT resampler, which takes whole blocks, and a block's worth of samples on each side.
struct Blocks {
    fft: Fft<f32>,
    input: Vec<f32>,
    output: Vec<f32>,
    /// Output samples still to be dropped from the beginning.
    delay: usize,
}

impl AnyResampler {
    /// The rates taken, in Hz.
    pub const RATES: std::ops::RangeInclusive<u32> = 1000..=384_000;

    /// A converter between two rates within [`RATES`](Self::RATES).
    pub fn new(from: u32, to: u32) -> Result<Self, RateOutOfRange> {
        for rate in [from, to] {
            if !Self::RATES.contains(&rate) {
                return Err(RateOutOfRange(rate));
            }
        }
        let blocks = if from == to {
            None
        } else {
            let chunk = (from / 50) as usize;
            let window = WindowFunction::BlackmanHarris2;
            let fft = Fft::new_custom(from as usize, to as usize, chunk, 1, 1, window, FixedSync::Both);
            Some(Blocks::new(fft.map_err(|_| RateOutOfRange(from))?))
        };
        Ok(Self {
            from,
            to,
            blocks,
            taken: 0,
            given: 0,
        })
    }

    /// Appends to `out` what can be said about the stream after `input`.
    pub fn push(&mut self, input: &[i16], out: &mut Vec<i16>) {
        self.taken += input.len() as u64;
        let before = out.len();
        match &mut self.blocks {
            Some(blocks) => blocks.push(input, out),
            None => out.extend_from_slice(input),
        }
        self.given += (out.len() - before) as u64;
    }

    /// Appends the rest of the stream, and begins a new one.
    pub fn finish(&mut self, out: &mut Vec<i16>) {
        let due = (self.taken * u64::from(self.to)).div_ceil(u64::from(self.from));
        let missing = due.saturating_sub(self.given) as usize;
        (self.taken, self.given) = (0, 0);
        if let Some(blocks) = &mut self.blocks {
            let end = out.len() + missing;
            while out.len() < end {
                let silence = blocks.fft.input_frames_next() - blocks.input.len();
                blocks.push(&vec![0; silence], out);
            }
            out.truncate(end);
            blocks.reset();
        }
    }

    /// Converts a whole clip.
    pub fn convert(from: u32, to: u32, input: &[i16]) -> Result<Vec<i16>, RateOutOfRange> {
        let mut resampler = Self::new(from, to)?;
        let mut out = Vec::with_capacity((input.len() as u64 * u64::from(to) / u64::from(from)) as usize + 1);
        resampler.push(input, &mut out);
        resampler.finish(&mut out);
        Ok(out)
    }
}

impl Blocks {
    fn new(fft: Fft<f32>) -> Self {
        Self {
            input: Vec::with_capacity(fft.input_frames_max()),
            output: vec![0.0; fft.output_frames_max()],
            delay: fft.output_delay(),
            fft,
        }
    }

    fn push(&mut self, mut input: &[i16], out: &mut Vec<i16>) {
        while !input.is_empty() {
            let block = self.fft.input_frames_next();
            let (now, later) = input.split_at(input.len().min(block - self.input.len()));
            self.input.extend(now.iter().map(|&x| f32::from(x)));
            input = later;
            if self.input.len() == block {
                let written = self.process();
                self.input.clear();
                let skipped = self.delay.min(written);
                self.delay -= skipped;
                out.extend(self.output[skipped..written].iter().map(|x| x.round() as i16));
            }
        }
    }

    /// Runs one block and returns how many samples it gave. The buffers are as long as the resampler asks for, so it never
    /// refuses them.
    fn process(&mut self) -> usize {
        let (frames_in, frames_out) = (self.input.len(), self.output.len());
        let Ok(input) = InterleavedSlice::new(&self.input, 1, frames_in) else {
            return 0;
        };
        let Ok(mut output) = InterleavedSlice::new_mut(&mut self.output, 1, frames_out) else {
            return 0;
        };
        self.fft
            .process_into_buffer(&input, &mut output, Some(&Indexing::new()))
            .map_or(0, |(_, written)| written)
    }

    fn reset(&mut self) {
        self.fft.reset();
        self.input.clear();
        self.delay = self.fft.output_delay();
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("fft", &self.fft).finish_non_exhaustive()
    }
}

/// A rate no sound has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateOutOfRange(pub u32);

impl fmt::Display for RateOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (AnyResampler::RATES.start(), AnyResampler::RATES.end());
        write!(f, "a sample rate of {} Hz is outside {least} to {most} Hz", self.0)
    }
}

impl std::error::Error for RateOutOfRange {}
