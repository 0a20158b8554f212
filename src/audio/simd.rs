//! Whole-number loops over samples, each one plain body that is compiled once per instruction set: byte order, gain, mix, energy.
//!
//! A compiler vectorises them for whatever set it is allowed to use, and none of their results depends on it: the sums are exact
//! and the rest is sample by sample. [`Loops::best`] is chosen once per process; [`Loops::on`] picks a set by name. Where the set
//! is [`Isa::Scalar`], the target's own baseline is used. [`l16`](super::l16) and [`gain`](super::gain) are what callers see.
#![allow(unsafe_code)]

use super::isa::{Isa, MissingIsa};
use std::{iter::zip, sync::OnceLock};

/// The loops of one instruction set.
///
/// It exists only for a set the CPU has, so holding one is the proof that its loops may run.
#[derive(Clone, Copy, Debug)]
pub struct Loops {
    isa: Isa,
    read_be: unsafe fn(&[[u8; 2]], &mut [i16]),
    write_be: unsafe fn(&[i16], &mut [[u8; 2]]),
    amplify: unsafe fn(&mut [i16], i32),
    mix: unsafe fn(&mut [i16], &[i16]),
    energy: unsafe fn(&[i16]) -> u64,
}

impl Loops {
    /// The loops of the fastest set this CPU has.
    #[inline]
    pub fn best() -> &'static Self {
        static BEST: OnceLock<Loops> = OnceLock::new();
        BEST.get_or_init(|| Self::on(Isa::best()).unwrap_or(baseline::LOOPS))
    }

    /// The loops of `isa`, where the CPU has it.
    pub fn on(isa: Isa) -> Result<Self, MissingIsa> {
        let loops = match isa.require()? {
            #[cfg(target_arch = "x86_64")]
            Isa::Sse => sse::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::LOOPS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::LOOPS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::LOOPS,
            _ => baseline::LOOPS,
        };
        Ok(Self { isa, ..loops })
    }

    /// Whose loops these are.
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Reads big-endian samples, as many as both slices hold.
    #[inline]
    pub fn read_be(&self, bytes: &[[u8; 2]], pcm: &mut [i16]) {
        // SAFETY: `self` exists, so the CPU has the features its loops were built for.
        unsafe { (self.read_be)(bytes, pcm) }
    }

    /// Writes big-endian samples, as many as both slices hold.
    #[inline]
    pub fn write_be(&self, pcm: &[i16], bytes: &mut [[u8; 2]]) {
        // SAFETY: as in `read_be`.
        unsafe { (self.write_be)(pcm, bytes) }
    }

    /// Multiplies by `q12` / 2¹², to the nearest sample (halves upwards), the ends saturating. `q12` is in 0 to 2¹⁶.
    #[inline]
    pub fn amplify(&self, samples: &mut [i16], q12: i32) {
        // SAFETY: as in `read_be`.
        unsafe { (self.amplify)(samples, q12) }
    }

    /// Adds `other` to `samples`, as far as both go, the ends saturating.
    #[inline]
    pub fn mix(&self, samples: &mut [i16], other: &[i16]) {
        // SAFETY: as in `read_be`.
        unsafe { (self.mix)(samples, other) }
    }

    /// Sum of squares.
    #[inline]
    pub fn energy(&self, samples: &[i16]) -> u64 {
        // SAFETY: as in `read_be`.
        unsafe { (self.energy)(samples) }
    }
}

/// The bodies.
mod body {
    use super::zip;

    #[inline(always)]
    pub(super) fn read_be(bytes: &[[u8; 2]], pcm: &mut [i16]) {
        for (&pair, sample) in zip(bytes, pcm) {
            *sample = i16::from_be_bytes(pair);
        }
    }

    #[inline(always)]
    pub(super) fn write_be(pcm: &[i16], bytes: &mut [[u8; 2]]) {
        for (&sample, pair) in zip(pcm, bytes) {
            *pair = sample.to_be_bytes();
        }
    }

    #[inline(always)]
    pub(super) fn amplify(samples: &mut [i16], q12: i32) {
        for x in samples {
            // The ends, −2¹⁵ × 2¹⁶ and (2¹⁵ − 1) × 2¹⁶ + 2¹¹, just fit.
            let y = (i32::from(*x) * q12 + (1 << 11)) >> 12;
            *x = y.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        }
    }

    #[inline(always)]
    pub(super) fn mix(samples: &mut [i16], other: &[i16]) {
        for (x, &y) in zip(samples, other) {
            *x = x.saturating_add(y);
        }
    }

    #[inline(always)]
    pub(super) fn energy(samples: &[i16]) -> u64 {
        // A square has 31 bits at most: two of them would overflow an i32.
        samples
            .iter()
            .map(|&x| u64::from((i32::from(x) * i32::from(x)) as u32))
            .sum()
    }
}

/// The bodies, compiled with the features named.
macro_rules! compiled {
    ($(#[$gate:meta])* $module:ident $(, $features:literal)?) => {
        $(#[$gate])*
        mod $module {
            use super::{Isa, Loops, body};

            pub(super) const LOOPS: Loops = Loops {
                isa: Isa::Scalar,
                read_be,
                write_be,
                amplify,
                mix,
                energy,
            };

            $(#[target_feature(enable = $features)])?
            fn read_be(bytes: &[[u8; 2]], pcm: &mut [i16]) {
                body::read_be(bytes, pcm);
            }

            $(#[target_feature(enable = $features)])?
            fn write_be(pcm: &[i16], bytes: &mut [[u8; 2]]) {
                body::write_be(pcm, bytes);
            }

            $(#[target_feature(enable = $features)])?
            fn amplify(samples: &mut [i16], q12: i32) {
                body::amplify(samples, q12);
            }

            $(#[target_feature(enable = $features)])?
            fn mix(samples: &mut [i16], other: &[i16]) {
                body::mix(samples, other);
            }

            $(#[target_feature(enable = $features)])?
            fn energy(samples: &[i16]) -> u64 {
                body::energy(samples)
            }
        }
    };
}

compiled!(baseline);
compiled!(
    #[cfg(target_arch = "x86_64")]
    sse,
    "ssse3,sse4.1"
);
compiled!(
    #[cfg(target_arch = "x86_64")]
    avx2,
    "avx2"
);
compiled!(
    #[cfg(target_arch = "x86_64")]
    avx512,
    "avx512f,avx512bw,avx512vl"
);
compiled!(
    #[cfg(target_arch = "aarch64")]
    neon,
    "neon"
);

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = 130;
    const OFFSETS: [usize; 9] = [0, 1, 2, 3, 7, 8, 15, 16, 31];

    /// What stands around a slice and must not change.
    const AROUND: i16 = 0x5a5a;

    /// Samples of every size and sign among any few neighbours, the ends of the range included.
    fn samples(seed: u32) -> Vec<i16> {
        (0..(LONGEST + 32) as u32)
            .map(|i| match (i + seed) % 11 {
                0 => i16::MIN,
                1 => i16::MAX,
                n => ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 16) as i16 >> n,
            })
            .collect()
    }

    /// Runs `check` for every set of this CPU, at every length and alignment.
    fn everywhere(mut check: impl FnMut(&Loops, std::ops::Range<usize>)) {
        for isa in Isa::available() {
            let loops = Loops::on(isa).unwrap();
            assert_eq!(loops.isa(), isa);
            for len in 0..=LONGEST {
                for offset in OFFSETS {
                    check(&loops, offset..offset + len);
                }
            }
        }
    }

    #[test]
    fn bytes_are_swapped_at_every_length_and_alignment_and_nothing_beyond() {
        let pcm = samples(1);
        // One byte further than samples are aligned.
        let bytes: Vec<u8> = std::iter::once(0)
            .chain(pcm.iter().flat_map(|x| x.to_be_bytes()))
            .collect();
        let pairs = bytes[1..].as_chunks::<2>().0;
        everywhere(|loops, range| {
            let mut read = [AROUND; LONGEST + 64];
            loops.read_be(&pairs[range.clone()], &mut read[range.clone()]);
            let mut written = [[0xa5; 2]; LONGEST + 64];
            loops.write_be(&pcm[range.clone()], &mut written[range.clone()]);
            for i in 0..read.len() {
                let (x, pair) = match range.contains(&i) {
                    true => (pcm[i], pcm[i].to_be_bytes()),
                    false => (AROUND, [0xa5; 2]),
                };
                assert_eq!((read[i], written[i]), (x, pair), "{} {range:?} at {i}", loops.isa());
            }
        });
    }

    #[test]
    fn a_gain_is_its_definition_at_every_length_and_alignment() {
        let pcm = samples(2);
        for q12 in [0, 1, 2047, 4096, 5793, 65_536] {
            let expected = |x: i16| {
                let exact = i64::from(x) * i64::from(q12);
                (exact + 2048).div_euclid(4096).clamp(-32768, 32767) as i16
            };
            everywhere(|loops, range| {
                let mut out = pcm.clone();
                loops.amplify(&mut out[range.clone()], q12);
                for (i, (&y, &x)) in zip(&out, &pcm).enumerate() {
                    let wanted = if range.contains(&i) { expected(x) } else { x };
                    assert_eq!(y, wanted, "{} × {q12}, {range:?} at {i}", loops.isa());
                }
            });
        }
    }

    #[test]
    fn a_mix_is_addition_that_stops_at_the_ends_at_every_length_and_alignment() {
        let (a, b) = (samples(3), samples(4));
        everywhere(|loops, range| {
            let mut out = a.clone();
            loops.mix(&mut out[range.clone()], &b[..range.len()]);
            for (i, &y) in out.iter().enumerate() {
                let sum = match range.contains(&i) {
                    true => (i32::from(a[i]) + i32::from(b[i - range.start])).clamp(-32768, 32767),
                    false => a[i].into(),
                };
                assert_eq!(i32::from(y), sum, "{} {range:?} at {i}", loops.isa());
            }
        });
    }

    #[test]
    fn energy_is_exact_at_every_length_and_alignment() {
        let pcm = samples(5);
        everywhere(|loops, range| {
            let exact: i64 = pcm[range.clone()].iter().map(|&x| i64::from(x) * i64::from(x)).sum();
            assert_eq!(loops.energy(&pcm[range]), exact as u64, "{}", loops.isa());
        });
        let loudest = vec![i16::MIN; 48_000];
        assert_eq!(Loops::best().energy(&loudest), 48_000 << 30);
    }

    #[test]
    fn unequal_lengths_go_as_far_as_both() {
        for isa in Isa::available() {
            let loops = Loops::on(isa).unwrap();
            let mut pcm = [7; 5];
            loops.read_be(&[[0, 1]; 3], &mut pcm);
            assert_eq!(pcm, [1, 1, 1, 7, 7]);
            loops.mix(&mut pcm, &[1; 9]);
            assert_eq!(pcm, [2, 2, 2, 8, 8]);
            let mut bytes = [[9; 2]; 2];
            loops.write_be(&pcm, &mut bytes);
            assert_eq!(bytes, [[0, 2]; 2]);
        }
    }
}
