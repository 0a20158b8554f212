//! G.711 as branch-free arithmetic that compilers vectorise for any target; instantiated for Neon.
//!
//! The exponent and the four leading mantissa bits of `magnitude as f32` (exact below 2²⁴) are segment and interval.

use std::iter::zip;

/// The exponent field of 128.0 above four mantissa bits: segment 0, interval 0.
const SEGMENT_0: u32 = (127 + 7) << 4;

#[inline(always)]
pub(super) fn ulaw_encode(pcm: &[i16], codes: &mut [u8]) {
    for (&sample, code) in zip(pcm, codes) {
        let sign = sample >> 15;
        let biased = (i32::from(sample ^ sign) + 132).min(0x7fff);
        let segment_interval = ((biased as f32).to_bits() >> 19).wrapping_sub(SEGMENT_0) as u8;
        *code = !(segment_interval | sign as u8 & 0x80);
    }
}

#[inline(always)]
pub(super) fn alaw_encode(pcm: &[i16], codes: &mut [u8]) {
    for (&sample, code) in zip(pcm, codes) {
        let sign = sample >> 15;
        let magnitude = i32::from(sample ^ sign);
        let above = ((magnitude as f32).to_bits() >> 19).wrapping_sub(SEGMENT_0) as u8;
        let below = (magnitude >> 4) as u8;
        let segment_interval = if magnitude < 256 { below } else { above };
        *code = (segment_interval | sign as u8 & 0x80) ^ 0xd5;
    }
}

#[inline(always)]
pub(super) fn ulaw_decode(codes: &[u8], pcm: &mut [i16]) {
    for (&code, sample) in zip(codes, pcm) {
        let code = i32::from(!code);
        let magnitude = ((((code & 0x0f) << 3) + 132) << (code >> 4 & 7)) - 132;
        let sign = -(code >> 7);
        *sample = ((magnitude ^ sign) - sign) as i16;
    }
}

#[inline(always)]
pub(super) fn alaw_decode(codes: &[u8], pcm: &mut [i16]) {
    for (&code, sample) in zip(codes, pcm) {
        let code = i32::from(code ^ 0xd5);
        let (segment, interval) = (code >> 4 & 7, (code & 0x0f) << 4);
        let magnitude = if segment == 0 {
            interval + 8
        } else {
            (interval + 0x108) << ((segment - 1) & 7)
        };
        let sign = -(code >> 7);
        *sample = ((magnitude ^ sign) - sign) as i16;
    }
}
