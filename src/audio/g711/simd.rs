//! Choosing the G.711 kernels: the CPU is asked once, and what it has is remembered as a set of function pointers.
//!
//! A [`G711`] exists only for a set the CPU has, so holding one is the proof that its kernels may run.
#![allow(unsafe_code)]

use super::scalar;
use crate::audio::isa::{Isa, MissingIsa};
use std::{iter::zip, sync::OnceLock};

/// Encodes as many samples as both slices hold. Unsafe: the caller vouches for the CPU's features.
pub(super) type Encode = unsafe fn(&[i16], &mut [u8]);

/// Decodes as many codes as both slices hold. Unsafe: the caller vouches for the CPU's features.
pub(super) type Decode = unsafe fn(&[u8], &mut [i16]);

/// The G.711 kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct G711 {
    isa: Isa,
    ulaw_encode: Encode,
    ulaw_decode: Decode,
    alaw_encode: Encode,
    alaw_decode: Decode,
}

impl G711 {
    /// The kernels of the fastest set this CPU has.
    #[inline]
    pub fn best() -> &'static Self {
        static BEST: OnceLock<G711> = OnceLock::new();
        BEST.get_or_init(|| Self::on(Isa::best()).unwrap_or(SCALAR))
    }

    /// The kernels of `isa`, where the CPU has it.
    pub fn on(isa: Isa) -> Result<Self, MissingIsa> {
        Ok(match isa.require()? {
            Isa::Scalar => SCALAR,
            #[cfg(target_arch = "x86_64")]
            Isa::Sse => super::simd_sse::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::simd_avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vbmi") => super::simd_avx512::VBMI_KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::simd_avx512::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::simd_neon::KERNELS,
            #[allow(unreachable_patterns)]
            other => return Err(MissingIsa(other)),
        })
    }

    /// A set of kernels. They must need no CPU feature beyond those [`Isa::is_available`] checks for `isa`, save where
    /// [`on`](Self::on) checks more before it hands them out.
    pub(super) const fn new(
        isa: Isa,
        (ulaw_encode, ulaw_decode): (Encode, Decode),
        (alaw_encode, alaw_decode): (Encode, Decode),
    ) -> Self {
        Self {
            isa,
            ulaw_encode,
            ulaw_decode,
            alaw_encode,
            alaw_decode,
        }
    }

    /// Whose kernels these are.
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Writes the μ-law code of each sample; returns how many, the shorter of the two lengths.
    #[inline]
    pub fn ulaw_encode(&self, pcm: &[i16], codes: &mut [u8]) -> usize {
        // SAFETY: `self` exists, so the CPU has the features its kernels were built for.
        unsafe { (self.ulaw_encode)(pcm, codes) };
        pcm.len().min(codes.len())
    }

    /// Writes the sample of each μ-law code; returns how many, the shorter of the two lengths.
    #[inline]
    pub fn ulaw_decode(&self, codes: &[u8], pcm: &mut [i16]) -> usize {
        // SAFETY: as in `ulaw_encode`.
        unsafe { (self.ulaw_decode)(codes, pcm) };
        pcm.len().min(codes.len())
    }

    /// Writes the A-law code of each sample; returns how many, the shorter of the two lengths.
    #[inline]
    pub fn alaw_encode(&self, pcm: &[i16], codes: &mut [u8]) -> usize {
        // SAFETY: as in `ulaw_encode`.
        unsafe { (self.alaw_encode)(pcm, codes) };
        pcm.len().min(codes.len())
    }

    /// Writes the sample of each A-law code; returns how many, the shorter of the two lengths.
    #[inline]
    pub fn alaw_decode(&self, codes: &[u8], pcm: &mut [i16]) -> usize {
        // SAFETY: as in `ulaw_encode`.
        unsafe { (self.alaw_decode)(codes, pcm) };
        pcm.len().min(codes.len())
    }
}

const SCALAR: G711 = G711::new(
    Isa::Scalar,
    (
        |pcm, codes| encode_each(scalar::ulaw_encode, pcm, codes),
        |codes, pcm| decode_each(scalar::ulaw_decode, codes, pcm),
    ),
    (
        |pcm, codes| encode_each(scalar::alaw_encode, pcm, codes),
        |codes, pcm| decode_each(scalar::alaw_decode, codes, pcm),
    ),
);

/// Encodes one by one: the scalar kernel, and what is too short for a vector.
#[inline]
pub(super) fn encode_each(encode: fn(i16) -> u8, pcm: &[i16], codes: &mut [u8]) {
    for (&sample, code) in zip(pcm, codes) {
        *code = encode(sample);
    }
}

/// Decodes one by one: the scalar kernel, and what is too short for a vector.
#[inline]
pub(super) fn decode_each(decode: fn(u8) -> i16, codes: &[u8], pcm: &mut [i16]) {
    for (&code, sample) in zip(codes, pcm) {
        *sample = decode(code);
    }
}

/// The block after the one at `i`: `width` further, or the last one, at `last`, overlapping it. Nothing after the last.
///
/// Vectors of `width` then cover any length from `width` up without a scalar tail.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn next_block(i: usize, width: usize, last: usize) -> Option<usize> {
    if i == last { None } else { Some((i + width).min(last)) }
}
