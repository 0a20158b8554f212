//! What the x86 kernels see of a law: constants and small tables, derived from [`scalar`] or by definition.
//!
//! Encoding, in either law, is the same walk:
//! 1. magnitude = sample, or its one's complement when negative; `biased` = min(magnitude + [`BIAS`](Law::BIAS), 32767);
//! 2. segment = max(bit length of `biased >> 8`, [`FIRST`](Law::FIRST)); A-law's segments 0 and 1 share a step, hence `FIRST` 1;
//! 3. code = (`biased >> (segment + 3)`) + 16 × segment − 16, where the leading one of the mantissa pays for the −16;
//! 4. invert [`TOGGLE`](Law::TOGGLE), and the top bit once more when negative.
//!
//! Decoding is a straight line per sign and segment: after inverting [`FLIP`](Law::FLIP), the code's upper four bits
//! choose a line of [`LINES`](Law::LINES), and sample = base + code × step, modulo 2¹⁶.

use super::scalar;

/// The constants of one law.
pub(super) trait Law {
    /// Added to the magnitude.
    const BIAS: i16;
    /// The smallest segment number.
    const FIRST: u8;
    /// Code bits inverted when the sample is not negative.
    const TOGGLE: u8;
    /// Code bits inverted before decoding.
    const FLIP: u8;
    /// Where decoded samples lie.
    const LINES: Lines;
    /// The segment of a high byte, looked up by nibbles.
    const SEGMENTS: Segments = Segments::of(Self::FIRST);

    /// One sample's code.
    fn encode(sample: i16) -> u8;
    /// One code's sample.
    fn decode(code: u8) -> i16;
}

/// μ-law.
pub(super) struct Ulaw;

/// A-law.
pub(super) struct Alaw;

impl Law for Ulaw {
    const BIAS: i16 = 132;
    const FIRST: u8 = 0;
    const TOGGLE: u8 = 0xff;
    const FLIP: u8 = 0;
    const LINES: Lines = {
        let (mut at_0, mut at_1) = ([0; 16], [0; 16]);
        let mut s = 0;
        while s < 16 {
            at_0[s] = scalar::ulaw_decode((s << 4) as u8);
            at_1[s] = scalar::ulaw_decode((s << 4 | 1) as u8);
            s += 1;
        }
        Lines::through(&at_0, &at_1)
    };

    fn encode(sample: i16) -> u8 {
        scalar::ulaw_encode(sample)
    }

    fn decode(code: u8) -> i16 {
        scalar::ulaw_decode(code)
    }
}

impl Law for Alaw {
    const BIAS: i16 = 0;
    const FIRST: u8 = 1;
    const TOGGLE: u8 = 0xd5;
    const FLIP: u8 = 0x55;
    const LINES: Lines = {
        let (mut at_0, mut at_1) = ([0; 16], [0; 16]);
        let mut s = 0;
        while s < 16 {
            at_0[s] = scalar::alaw_decode((s << 4) as u8 ^ Self::FLIP);
            at_1[s] = scalar::alaw_decode((s << 4 | 1) as u8 ^ Self::FLIP);
            s += 1;
        }
        Lines::through(&at_0, &at_1)
    };

    fn encode(sample: i16) -> u8 {
        scalar::alaw_encode(sample)
    }

    fn decode(code: u8) -> i16 {
        scalar::alaw_decode(code)
    }
}

/// Sixteen straight lines: for a code in `16 s .. 16 s + 16`, sample = `base[s]` + code × `step[s]`, modulo 2¹⁶.
pub(super) struct Lines {
    pub(super) base: [i16; 16],
    pub(super) step: [i16; 16],
}

impl Lines {
    /// The lines through the first and second sample of each segment.
    const fn through(at_0: &[i16; 16], at_1: &[i16; 16]) -> Self {
        let mut lines = Self {
            base: [0; 16],
            step: [0; 16],
        };
        let mut s = 0;
        while s < 16 {
            lines.step[s] = at_1[s] - at_0[s];
            lines.base[s] = at_0[s].wrapping_sub(lines.step[s].wrapping_mul(16 * s as i16));
            s += 1;
        }
        lines
    }

    /// The low and the high bytes of the bases.
    pub(super) const fn base_bytes(&self) -> ([u8; 16], [u8; 16]) {
        split_bytes(&self.base)
    }

    /// The low and the high bytes of the steps.
    pub(super) const fn step_bytes(&self) -> ([u8; 16], [u8; 16]) {
        split_bytes(&self.step)
    }
}

const fn split_bytes(words: &[i16; 16]) -> ([u8; 16], [u8; 16]) {
    let (mut low, mut high) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < 16 {
        [low[i], high[i]] = words[i].to_le_bytes();
        i += 1;
    }
    (low, high)
}

/// The bit length of a seven-bit number, as the larger of two lookups: by its low nibble and by its upper three bits.
pub(super) struct Segments {
    pub(super) low: [u8; 16],
    pub(super) high: [u8; 16],
}

impl Segments {
    const fn of(first: u8) -> Self {
        let mut segments = Self {
            low: [0; 16],
            high: [0; 16],
        };
        let mut n = 0u8;
        while n < 16 {
            let bits = (8 - n.leading_zeros()) as u8;
            segments.low[n as usize] = if bits > first { bits } else { first };
            segments.high[n as usize] = if n == 0 { 0 } else { bits + 4 };
            n += 1;
        }
        segments
    }
}

/// 2^(7 − segment): multiplying by it moves the mantissa of any segment to the place it has in the last one.
pub(super) const NORMALISE: [u8; 16] = [128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
