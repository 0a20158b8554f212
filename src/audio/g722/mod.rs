//! ITU-T G.722 at 64 kbit/s (mode 1): 16 kHz speech in two sub-bands, ADPCM in each; two samples a byte.
//!
//! Bit-exact with the Recommendation's fixed-point description. Both directions keep their state between calls, so pieces of
//! any even number of samples may follow each other; nothing is allocated.

mod band;
mod tables;
#[cfg(test)]
mod tests;

use band::{Band, saturate};
use tables::{IHN, IHP, ILN, ILP, Q6, QM2, QM4, QM6, QMF, RH2, RL42, WH, WL};

/// Samples a second.
pub const RATE: u32 = 16_000;

/// Bounds of the steps' logarithms.
const MOST_LOW: i32 = 18_432;
const MOST_HIGH: i32 = 22_528;

/// The two sub-bands, as encoder and decoder keep them alike.
#[derive(Clone, Debug)]
struct Bands {
    low: Band,
    high: Band,
}

impl Bands {
    const fn new() -> Self {
        Self {
            low: Band::new(32),
            high: Band::new(8),
        }
    }

    /// Adapts both to a code.
    fn adapt(&mut self, low: u8, high: u8) {
        let four = usize::from(low >> 2);
        let difference = (self.low.step * QM4[four]) >> 15;
        self.low.scale(WL[RL42[four]], MOST_LOW, 8);
        self.low.adapt(difference);

        let two = usize::from(high);
        let difference = (self.high.step * QM2[two]) >> 15;
        self.high.scale(WH[RH2[two]], MOST_HIGH, 10);
        self.high.adapt(difference);
    }
}

/// The samples that a quadrature mirror filter looks at: the last 24, the oldest first.
type Window = [i32; 24];

fn shift(window: &mut Window, pair: [i32; 2]) {
    window.copy_within(2.., 0);
    window[22..].copy_from_slice(&pair);
}

/// The filter over the even and the odd samples of the window.
fn filter(window: &Window) -> (i32, i32) {
    let pairs = window.as_chunks::<2>().0.iter();
    pairs
        .zip(QMF.iter().zip(QMF.iter().rev()))
        .fold((0, 0), |(even, odd), (pair, (forth, back))| {
            (even + pair[0] * forth, odd + pair[1] * back)
        })
}

/// Samples to bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    bands: Bands,
    window: Window,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            bands: Bands::new(),
            window: [0; 24],
        }
    }
}

impl Encoder {
    /// Encodes pairs of samples, as many as both slices hold; returns the bytes written.
    pub fn encode(&mut self, pcm: &[i16], bytes: &mut [u8]) -> usize {
        let (pairs, _) = pcm.as_chunks::<2>();
        for (pair, byte) in pairs.iter().zip(&mut *bytes) {
            *byte = self.code(pair.map(i32::from));
        }
        pairs.len().min(bytes.len())
    }

    fn code(&mut self, pair: [i32; 2]) -> u8 {
        shift(&mut self.window, pair);
        let (odd, even) = filter(&self.window);
        let low = quantise_low((even + odd) >> 14, &self.bands.low);
        let high = quantise_high((even - odd) >> 14, &self.bands.high);
        self.bands.adapt(low, high);
        high << 6 | low
    }
}

/// The size of a difference, as the quantisers see it.
const fn magnitude(difference: i32) -> i32 {
    if difference < 0 { -(difference + 1) } else { difference }
}

/// `SUBTRA` and `QUANTL`: 6 bits.
fn quantise_low(sample: i32, band: &Band) -> u8 {
    let difference = saturate(sample - band.predicted);
    let size = magnitude(difference);
    let interval = (1..30).find(|i| size < (Q6[*i] * band.step) >> 12).unwrap_or(30);
    if difference < 0 { ILN[interval] } else { ILP[interval] }
}

/// `SUBTRA` and `QUANTH`: 2 bits.
fn quantise_high(sample: i32, band: &Band) -> u8 {
    let difference = saturate(sample - band.predicted);
    let interval = if magnitude(difference) >= (564 * band.step) >> 12 {
        2
    } else {
        1
    };
    if difference < 0 { IHN[interval] } else { IHP[interval] }
}

/// Bytes to samples.
#[derive(Clone, Debug)]
pub struct Decoder {
    bands: Bands,
    window: Window,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            bands: Bands::new(),
            window: [0; 24],
        }
    }
}

impl Decoder {
    /// Decodes bytes, as many as both slices hold at two samples each; returns the samples written.
    pub fn decode(&mut self, bytes: &[u8], pcm: &mut [i16]) -> usize {
        let (pairs, _) = pcm.as_chunks_mut::<2>();
        let n = bytes.len().min(pairs.len());
        for (byte, pair) in bytes.iter().zip(pairs) {
            *pair = self.samples(*byte);
        }
        n * 2
    }

    fn samples(&mut self, code: u8) -> [i16; 2] {
        let (low, high) = (code & 0x3f, code >> 6);
        let reconstruct = |band: &Band, level: i32| {
            let sample = band.predicted + ((band.step * level) >> 15);
            sample.clamp(-16_384, 16_383)
        };
        let lower = reconstruct(&self.bands.low, QM6[usize::from(low)]);
        let higher = reconstruct(&self.bands.high, QM2[usize::from(high)]);
        self.bands.adapt(low, high);
        shift(&mut self.window, [lower + higher, lower - higher]);
        let (second, first) = filter(&self.window);
        [first, second].map(|x| saturate(x >> 11) as i16)
    }
}
