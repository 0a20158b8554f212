//! G.711 one sample at a time, in the terms of the Recommendation: sign, segment, interval. The oracle of the vector kernels.

/// What is added to a 16-bit magnitude so that μ-law segments begin at powers of two (33 in the 14-bit scale).
const ULAW_BIAS: u16 = 132;

/// The μ-law code of a sample.
pub const fn ulaw_encode(sample: i16) -> u8 {
    let (sign, magnitude) = split(sample);
    // Segments begin at 128, 256, … 16384 in the biased 16-bit scale; the bias would carry the largest beyond the last.
    let biased = if magnitude > 0x7fff - ULAW_BIAS {
        0x7fff
    } else {
        magnitude + ULAW_BIAS
    };
    let segment = biased.ilog2() as u8 - 7;
    let interval = (biased >> (segment + 3)) as u8 & 0x0f;
    !(sign | segment << 4 | interval)
}

/// The A-law code of a sample.
pub const fn alaw_encode(sample: i16) -> u8 {
    let (sign, magnitude) = split(sample);
    let code = if magnitude < 256 {
        (magnitude >> 4) as u8
    } else {
        let segment = magnitude.ilog2() as u8 - 7;
        segment << 4 | (magnitude >> (segment + 3)) as u8 & 0x0f
    };
    (sign | code) ^ 0xd5
}

/// The sample in the middle of a μ-law code's interval.
pub const fn ulaw_decode(code: u8) -> i16 {
    let code = !code;
    let segment = code >> 4 & 0x07;
    let interval = (code & 0x0f) as i16;
    let magnitude = (((interval << 3) + ULAW_BIAS as i16) << segment) - ULAW_BIAS as i16;
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The sample in the middle of an A-law code's interval.
pub const fn alaw_decode(code: u8) -> i16 {
    let code = code ^ 0xd5;
    let segment = code >> 4 & 0x07;
    let interval = (code & 0x0f) as i16;
    let magnitude = match segment {
        0 => (interval << 4) + 8,
        _ => ((interval << 4) + 0x108) << (segment - 1),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Sign bit (set when negative) and one's-complement magnitude, below 32768.
const fn split(sample: i16) -> (u8, u16) {
    if sample < 0 {
        (0x80, !sample as u16)
    } else {
        (0, sample as u16)
    }
}
