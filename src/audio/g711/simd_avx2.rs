//! G.711 thirty-two samples at a time with AVX2: the SSE kernel in both halves of wider registers.
//!
//! Packing and unpacking stay within 128-bit halves, so one permutation of quarters per block puts codes in order.
#![allow(unsafe_code)]

use super::{
    law::{Alaw, Law, NORMALISE, Ulaw},
    simd::{G711, decode_each, encode_each, next_block},
};
use crate::audio::isa::Isa;
use std::arch::x86_64::*;

pub(super) const KERNELS: G711 = G711::new(
    Isa::Avx2,
    (encode::<Ulaw>, decode::<Ulaw>),
    (encode::<Alaw>, decode::<Alaw>),
);

const WIDTH: usize = 32;

/// Quarters 0, 2, 1, 3: the order that packing two vectors leaves, and that unpacking one wants.
const INTERLEAVED: i32 = 0b11_01_10_00;

#[target_feature(enable = "avx2")]
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

#[target_feature(enable = "avx2")]
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

/// Two vectors of sixteen samples to thirty-two codes.
#[inline]
#[target_feature(enable = "avx2")]
fn encode_block<L: Law>([x0, x1]: [__m256i; 2]) -> __m256i {
    let bias = _mm256_set1_epi16(L::BIAS);
    let b0 = _mm256_adds_epi16(_mm256_xor_si256(x0, _mm256_srai_epi16(x0, 15)), bias);
    let b1 = _mm256_adds_epi16(_mm256_xor_si256(x1, _mm256_srai_epi16(x1, 15)), bias);

    // High bytes are below 128, so a byte shuffle looks at their low nibble alone.
    let high = _mm256_packus_epi16(_mm256_srli_epi16(b0, 8), _mm256_srli_epi16(b1, 8));
    let nibble = _mm256_and_si256(_mm256_srli_epi16(high, 4), _mm256_set1_epi8(0x0f));
    let segment = _mm256_max_epu8(
        _mm256_shuffle_epi8(table(&L::SEGMENTS.low), high),
        _mm256_shuffle_epi8(table(&L::SEGMENTS.high), nibble),
    );

    let power = _mm256_shuffle_epi8(table(&NORMALISE), segment);
    let zero = _mm256_setzero_si256();
    let m0 = _mm256_srli_epi16(_mm256_mullo_epi16(b0, _mm256_unpacklo_epi8(power, zero)), 10);
    let m1 = _mm256_srli_epi16(_mm256_mullo_epi16(b1, _mm256_unpackhi_epi8(power, zero)), 10);

    let sum = _mm256_add_epi8(_mm256_packus_epi16(m0, m1), _mm256_slli_epi16(segment, 4));
    let code = _mm256_sub_epi8(sum, _mm256_set1_epi8(16));
    let sign = _mm256_and_si256(_mm256_packs_epi16(x0, x1), _mm256_set1_epi8(-128));
    let code = _mm256_xor_si256(_mm256_xor_si256(code, _mm256_set1_epi8(L::TOGGLE as i8)), sign);
    _mm256_permute4x64_epi64(code, INTERLEAVED)
}

/// Thirty-two codes to two vectors of sixteen samples.
#[inline]
#[target_feature(enable = "avx2")]
fn decode_block<L: Law>(codes: __m256i) -> [__m256i; 2] {
    let codes = _mm256_permute4x64_epi64(codes, INTERLEAVED);
    let codes = _mm256_xor_si256(codes, _mm256_set1_epi8(L::FLIP as i8));
    let line = _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(0x0f));
    let (base_low, base_high) = const { L::LINES.base_bytes() };
    let (step_low, step_high) = const { L::LINES.step_bytes() };
    let base = [
        _mm256_shuffle_epi8(table(&base_low), line),
        _mm256_shuffle_epi8(table(&base_high), line),
    ];
    let step = [
        _mm256_shuffle_epi8(table(&step_low), line),
        _mm256_shuffle_epi8(table(&step_high), line),
    ];
    let zero = _mm256_setzero_si256();
    let low = _mm256_mullo_epi16(
        _mm256_unpacklo_epi8(codes, zero),
        _mm256_unpacklo_epi8(step[0], step[1]),
    );
    let high = _mm256_mullo_epi16(
        _mm256_unpackhi_epi8(codes, zero),
        _mm256_unpackhi_epi8(step[0], step[1]),
    );
    [
        _mm256_add_epi16(low, _mm256_unpacklo_epi8(base[0], base[1])),
        _mm256_add_epi16(high, _mm256_unpackhi_epi8(base[0], base[1])),
    ]
}

/// A lookup table for a byte shuffle, the same in both halves.
#[inline]
#[target_feature(enable = "avx2")]
fn table(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: sixteen bytes are there to read.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Reads thirty-two bytes, however aligned.
///
/// # Safety
/// They must be readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load<T>(from: *const T) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// Writes thirty-two bytes, however aligned.
///
/// # Safety
/// They must be writable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<T>(to: *mut T, vector: __m256i) {
    // SAFETY: as the caller promises.
    unsafe { _mm256_storeu_si256(to.cast(), vector) }
}
