//! G.711 sixteen samples at a time with SSSE3 and SSE4.1.
//!
//! SSE has no shift by a count per lane: multiplying by a power of two looked up by segment takes its place.
#![allow(unsafe_code)]

use super::{
    law::{Alaw, Law, NORMALISE, Ulaw},
    simd::{G711, decode_each, encode_each, next_block},
};
use crate::audio::isa::Isa;
use std::arch::x86_64::*;

pub(super) const KERNELS: G711 = G711::new(
    Isa::Sse,
    (encode::<Ulaw>, decode::<Ulaw>),
    (encode::<Alaw>, decode::<Alaw>),
);

const WIDTH: usize = 16;

#[target_feature(enable = "ssse3,sse4.1")]
fn encode<L: Law>(pcm: &[i16], codes: &mut [u8]) {
    let n = pcm.len().min(codes.len());
    let Some(last) = n.checked_sub(WIDTH) else {
        return encode_each(L::encode, pcm, codes);
    };
    let mut at = Some(0);
    while let Some(i) = at {
        // SAFETY: `i` is at most `last`, so `WIDTH` samples from `i` lie within `pcm`.
        let samples = unsafe { [load(pcm.as_ptr().add(i)), load(pcm.as_ptr().add(i + WIDTH / 2))] };
        let block = encode_block::<L>(samples);
        // SAFETY: `i` is at most `last`, so `WIDTH` codes from `i` lie within `codes`.
        unsafe { store(codes.as_mut_ptr().add(i), block) };
        at = next_block(i, WIDTH, last);
    }
}

#[target_feature(enable = "ssse3,sse4.1")]
fn decode<L: Law>(codes: &[u8], pcm: &mut [i16]) {
    let n = pcm.len().min(codes.len());
    let Some(last) = n.checked_sub(WIDTH) else {
        return decode_each(L::decode, codes, pcm);
    };
    let mut at = Some(0);
    while let Some(i) = at {
        // SAFETY: `i` is at most `last`, so `WIDTH` codes from `i` lie within `codes`.
        let block = unsafe { load(codes.as_ptr().add(i)) };
        let [low, high] = decode_block::<L>(block);
        // SAFETY: `i` is at most `last`, so `WIDTH` samples from `i` lie within `pcm`.
        unsafe {
            store(pcm.as_mut_ptr().add(i), low);
            store(pcm.as_mut_ptr().add(i + WIDTH / 2), high);
        }
        at = next_block(i, WIDTH, last);
    }
}

/// Two vectors of eight samples to sixteen codes.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn encode_block<L: Law>([x0, x1]: [__m128i; 2]) -> __m128i {
    let bias = _mm_set1_epi16(L::BIAS);
    let b0 = _mm_adds_epi16(_mm_xor_si128(x0, _mm_srai_epi16(x0, 15)), bias);
    let b1 = _mm_adds_epi16(_mm_xor_si128(x1, _mm_srai_epi16(x1, 15)), bias);

    // High bytes are below 128, so a byte shuffle looks at their low nibble alone.
    let high = _mm_packus_epi16(_mm_srli_epi16(b0, 8), _mm_srli_epi16(b1, 8));
    let nibble = _mm_and_si128(_mm_srli_epi16(high, 4), _mm_set1_epi8(0x0f));
    let segment = _mm_max_epu8(
        _mm_shuffle_epi8(table(&L::SEGMENTS.low), high),
        _mm_shuffle_epi8(table(&L::SEGMENTS.high), nibble),
    );

    let power = _mm_shuffle_epi8(table(&NORMALISE), segment);
    let zero = _mm_setzero_si128();
    let m0 = _mm_srli_epi16(_mm_mullo_epi16(b0, _mm_unpacklo_epi8(power, zero)), 10);
    let m1 = _mm_srli_epi16(_mm_mullo_epi16(b1, _mm_unpackhi_epi8(power, zero)), 10);

    let sum = _mm_add_epi8(_mm_packus_epi16(m0, m1), _mm_slli_epi16(segment, 4));
    let code = _mm_sub_epi8(sum, _mm_set1_epi8(16));
    let sign = _mm_and_si128(_mm_packs_epi16(x0, x1), _mm_set1_epi8(-128));
    _mm_xor_si128(_mm_xor_si128(code, _mm_set1_epi8(L::TOGGLE as i8)), sign)
}

/// Sixteen codes to two vectors of eight samples.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn decode_block<L: Law>(codes: __m128i) -> [__m128i; 2] {
    let codes = _mm_xor_si128(codes, _mm_set1_epi8(L::FLIP as i8));
    let line = _mm_and_si128(_mm_srli_epi16(codes, 4), _mm_set1_epi8(0x0f));
    let (base_low, base_high) = const { L::LINES.base_bytes() };
    let (step_low, step_high) = const { L::LINES.step_bytes() };
    let base = [
        _mm_shuffle_epi8(table(&base_low), line),
        _mm_shuffle_epi8(table(&base_high), line),
    ];
    let step = [
        _mm_shuffle_epi8(table(&step_low), line),
        _mm_shuffle_epi8(table(&step_high), line),
    ];
    let zero = _mm_setzero_si128();
    let low = _mm_mullo_epi16(_mm_unpacklo_epi8(codes, zero), _mm_unpacklo_epi8(step[0], step[1]));
    let high = _mm_mullo_epi16(_mm_unpackhi_epi8(codes, zero), _mm_unpackhi_epi8(step[0], step[1]));
    [
        _mm_add_epi16(low, _mm_unpacklo_epi8(base[0], base[1])),
        _mm_add_epi16(high, _mm_unpackhi_epi8(base[0], base[1])),
    ]
}

/// A lookup table for a byte shuffle.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn table(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen bytes are there to read.
    unsafe { load(bytes.as_ptr()) }
}

/// Reads sixteen bytes, however aligned.
///
/// # Safety
/// They must be readable.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn load<T>(from: *const T) -> __m128i {
    // SAFETY: as the caller promises.
    unsafe { _mm_loadu_si128(from.cast()) }
}

/// Writes sixteen bytes, however aligned.
///
/// # Safety
/// They must be writable.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn store<T>(to: *mut T, vector: __m128i) {
    // SAFETY: as the caller promises.
    unsafe { _mm_storeu_si128(to.cast(), vector) }
}
