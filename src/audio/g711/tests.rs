//! Every kernel against the ITU-T reference coder, over the whole domain, at every length and alignment.

use super::*;
use crate::audio::isa::Isa;

/// The reference coder as the G.191 Software Tools Library states it, loop by loop. Shares nothing with the kernels.
mod g191 {
    pub(super) fn ulaw_compress(lin: i16) -> u8 {
        // 14-bit right-justified one's-complement magnitude, plus the difference between A-law and μ-law thresholds.
        let lin = i32::from(lin);
        let mut abs = if lin < 0 { (!lin >> 2) + 33 } else { (lin >> 2) + 33 };
        if abs > 0x1fff {
            abs = 0x1fff;
        }
        let mut i = abs >> 6;
        let mut segment = 1;
        while i != 0 {
            segment += 1;
            i >>= 1;
        }
        let high_nibble = 8 - segment;
        let low_nibble = 0x0f - ((abs >> segment) & 0x0f);
        let mut log = (high_nibble << 4) | low_nibble;
        if lin >= 0 {
            log |= 0x80;
        }
        log as u8
    }

    pub(super) fn ulaw_expand(log: u8) -> i16 {
        let sign = if log < 0x80 { -1 } else { 1 };
        let mantissa = !i32::from(log);
        let exponent = (mantissa >> 4) & 7;
        let segment = exponent + 1;
        let mantissa = mantissa & 0x0f;
        let step = 4 << segment;
        (sign * ((0x80 << exponent) + step * mantissa + step / 2 - 4 * 33)) as i16
    }

    pub(super) fn alaw_compress(lin: i16) -> u8 {
        let lin = i32::from(lin);
        let mut ix = if lin < 0 { !lin >> 4 } else { lin >> 4 };
        if ix > 15 {
            let mut exponent = 1;
            while ix > 16 + 15 {
                ix >>= 1;
                exponent += 1;
            }
            ix -= 16;
            ix += exponent << 4;
        }
        if lin >= 0 {
            ix |= 0x80;
        }
        ix as u8 ^ 0x55
    }

    pub(super) fn alaw_expand(log: u8) -> i16 {
        let ix = i32::from(log ^ 0x55) & 0x7f;
        let exponent = ix >> 4;
        let mut mantissa = ix & 0x0f;
        if exponent > 0 {
            mantissa += 16;
        }
        mantissa = (mantissa << 4) + 8;
        if exponent > 1 {
            mantissa <<= exponent - 1;
        }
        (if log > 127 { mantissa } else { -mantissa }) as i16
    }
}

/// A law's name, the kernels' encoder, the reference.
type Encoder = (&'static str, fn(&G711, &[i16], &mut [u8]) -> usize, fn(i16) -> u8);

/// A law's name, the kernels' decoder, the reference.
type Decoder = (&'static str, fn(&G711, &[u8], &mut [i16]) -> usize, fn(u8) -> i16);

const ENCODERS: [Encoder; 2] = [
    ("ulaw", G711::ulaw_encode, g191::ulaw_compress),
    ("alaw", G711::alaw_encode, g191::alaw_compress),
];

const DECODERS: [Decoder; 2] = [
    ("ulaw", G711::ulaw_decode, g191::ulaw_expand),
    ("alaw", G711::alaw_decode, g191::alaw_expand),
];

/// Everything that can run here, with a name: each set of this CPU, the one without VBMI, and the portable form Neon uses.
fn kernels() -> Vec<(String, G711)> {
    let mut kernels: Vec<_> = Isa::available()
        .map(|isa| (isa.to_string(), G711::on(isa).unwrap()))
        .collect();
    kernels.push((
        "portable".into(),
        G711::new(
            Isa::Scalar,
            (portable::ulaw_encode, portable::ulaw_decode),
            (portable::alaw_encode, portable::alaw_decode),
        ),
    ));
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx512.is_available() {
        kernels.push(("avx512 without vbmi".into(), simd_avx512::KERNELS));
    }
    kernels
}

fn every_sample() -> Vec<i16> {
    (i16::MIN..=i16::MAX).collect()
}

fn every_code() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

#[test]
fn every_sample_encodes_as_the_itu_reference_does() {
    let pcm = every_sample();
    for (name, kernel) in kernels() {
        for (law, encode, reference) in ENCODERS {
            let mut codes = vec![0; pcm.len()];
            assert_eq!(encode(&kernel, &pcm, &mut codes), pcm.len());
            for (&x, &code) in pcm.iter().zip(&codes) {
                assert_eq!(code, reference(x), "{law} {name} of {x}");
            }
        }
    }
}

#[test]
fn every_code_decodes_as_the_itu_reference_does() {
    let codes = every_code();
    for (name, kernel) in kernels() {
        for (law, decode, reference) in DECODERS {
            let mut pcm = vec![0; codes.len()];
            assert_eq!(decode(&kernel, &codes, &mut pcm), codes.len());
            for (&code, &x) in codes.iter().zip(&pcm) {
                assert_eq!(x, reference(code), "{law} {name} of {code:#04x}");
            }
        }
    }
}

#[test]
fn the_public_entry_points_are_the_reference_too() {
    let (pcm, codes) = (every_sample(), every_code());
    let mut coded = vec![0; pcm.len()];
    ulaw_encode(&pcm, &mut coded);
    assert!(pcm.iter().zip(&coded).all(|(&x, &c)| c == g191::ulaw_compress(x)));
    alaw_encode(&pcm, &mut coded);
    assert!(pcm.iter().zip(&coded).all(|(&x, &c)| c == g191::alaw_compress(x)));
    let mut decoded = vec![0; codes.len()];
    ulaw_decode(&codes, &mut decoded);
    assert!(codes.iter().zip(&decoded).all(|(&c, &x)| x == g191::ulaw_expand(c)));
    alaw_decode(&codes, &mut decoded);
    assert!(codes.iter().zip(&decoded).all(|(&c, &x)| x == g191::alaw_expand(c)));
}

/// Samples that visit every segment of both signs within any few neighbours.
fn mixed_samples(n: usize) -> Vec<i16> {
    (0..n as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 16) as i16 >> (i % 9))
        .collect()
}

#[test]
fn encoding_is_right_at_every_length_and_alignment_and_writes_nothing_beyond() {
    const LONGEST: usize = 130;
    let pcm = mixed_samples(LONGEST + 32);
    for (name, kernel) in kernels() {
        for (law, encode, reference) in ENCODERS {
            for len in 0..=LONGEST {
                for offset in [0, 1, 2, 3, 7, 8, 15, 16, 31] {
                    let mut codes = [0xa5; LONGEST + 64];
                    encode(&kernel, &pcm[offset..offset + len], &mut codes[offset..offset + len]);
                    for (i, &code) in codes.iter().enumerate() {
                        let wanted = if (offset..offset + len).contains(&i) {
                            reference(pcm[i])
                        } else {
                            0xa5
                        };
                        assert_eq!(code, wanted, "{law} {name}, {len} from {offset}, at {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn decoding_is_right_at_every_length_and_alignment_and_writes_nothing_beyond() {
    const LONGEST: usize = 130;
    let codes: Vec<u8> = (0..LONGEST + 32).map(|i| (i * 167 + 13) as u8).collect();
    for (name, kernel) in kernels() {
        for (law, decode, reference) in DECODERS {
            for len in 0..=LONGEST {
                for offset in [0, 1, 2, 3, 7, 8, 15, 16, 31] {
                    let mut pcm = [0x5a5a; LONGEST + 64];
                    decode(&kernel, &codes[offset..offset + len], &mut pcm[offset..offset + len]);
                    for (i, &x) in pcm.iter().enumerate() {
                        let wanted = if (offset..offset + len).contains(&i) {
                            reference(codes[i])
                        } else {
                            0x5a5a
                        };
                        assert_eq!(x, wanted, "{law} {name}, {len} from {offset}, at {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn unequal_lengths_convert_what_both_hold() {
    let pcm = mixed_samples(100);
    for (name, kernel) in kernels() {
        for (_, encode, reference) in ENCODERS {
            for (from, to) in [(100, 67), (67, 100), (0, 5), (5, 0)] {
                let mut codes = vec![0xa5; to];
                let n = encode(&kernel, &pcm[..from], &mut codes);
                assert_eq!(n, from.min(to), "{name}");
                assert!(codes[..n].iter().zip(&pcm).all(|(&c, &x)| c == reference(x)), "{name}");
                assert!(codes[n..].iter().all(|&c| c == 0xa5), "{name}");
            }
        }
        for (_, decode, reference) in DECODERS {
            let codes = every_code();
            for (from, to) in [(100, 67), (67, 100), (0, 5), (5, 0)] {
                let mut pcm = vec![0x5a5a; to];
                let n = decode(&kernel, &codes[..from], &mut pcm);
                assert_eq!(n, from.min(to), "{name}");
                assert!(pcm[..n].iter().zip(&codes).all(|(&x, &c)| x == reference(c)), "{name}");
                assert!(pcm[n..].iter().all(|&x| x == 0x5a5a), "{name}");
            }
        }
    }
}

#[test]
fn a_code_survives_decoding_and_encoding() {
    for code in every_code() {
        assert_eq!(scalar::alaw_encode(scalar::alaw_decode(code)), code);
        // μ-law has two zeros; the reference coder writes the positive one.
        let wanted = if code == 0x7f { 0xff } else { code };
        assert_eq!(scalar::ulaw_encode(scalar::ulaw_decode(code)), wanted);
    }
}

#[test]
fn decision_values_of_the_recommendation_begin_new_codes() {
    // G.711 tables 1a and 2a, column "decision value", at the ends of the segments, left-justified to 16 bits.
    for (segment, x) in [31, 95, 223, 479, 991, 2015, 4063].into_iter().enumerate() {
        let x = x * 4;
        assert_eq!(ulaw_segment(x) as usize, segment + 1, "{x}");
        assert_eq!(ulaw_segment(x - 1) as usize, segment, "{x}");
    }
    for (segment, x) in [16, 32, 64, 128, 256, 512, 1024].into_iter().enumerate() {
        let x = x * 16;
        assert_eq!(alaw_segment(x) as usize, segment + 1, "{x}");
        assert_eq!(alaw_segment(x - 1) as usize, segment, "{x}");
    }
}

fn ulaw_segment(x: i16) -> u8 {
    !scalar::ulaw_encode(x) >> 4 & 7
}

fn alaw_segment(x: i16) -> u8 {
    (scalar::alaw_encode(x) ^ 0x55) >> 4 & 7
}

#[test]
fn silence_has_the_documented_codes() {
    assert_eq!(scalar::ulaw_encode(0), ULAW_SILENCE);
    assert_eq!(scalar::alaw_encode(0), ALAW_SILENCE);
    assert_eq!(scalar::ulaw_decode(ULAW_SILENCE), 0);
    assert_eq!(scalar::alaw_decode(ALAW_SILENCE), 8);
}
