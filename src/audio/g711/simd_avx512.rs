//! G.711 with AVX-512, thirty-two samples at a time: a shift count per lane, tables of 32 words, masks for what is left over.
//!
//! With VBMI one lookup in 128 bytes finds the segment, and two of them decode sixty-four codes; without it, there are two
//! lookups in 32 words.
#![allow(unsafe_code)]

use super::{
    law::{Alaw, Law, Ulaw},
    simd::G711,
};
use crate::audio::isa::Isa;
use std::arch::x86_64::*;

/// For a CPU with F, BW and VL.
pub(super) const KERNELS: G711 = G711::new(
    Isa::Avx512,
    (encode::<Ulaw>, decode::<Ulaw>),
    (encode::<Alaw>, decode::<Alaw>),
);

/// For a CPU with F, BW, VL and VBMI.
pub(super) const VBMI_KERNELS: G711 = G711::new(
    Isa::Avx512,
    (encode_vbmi::<Ulaw>, decode_vbmi::<Ulaw>),
    (encode_vbmi::<Alaw>, decode_vbmi::<Alaw>),
);

const WIDTH: usize = 32;

/// Lanes of the last, incomplete block.
const fn tail_mask(left: usize) -> __mmask32 {
    (1 << left) - 1
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn encode<L: Law>(pcm: &[i16], codes: &mut [u8]) {
    let low = words(&const { shifts_by_low_five::<L>() });
    let high = words(&const { shifts_by_high_two::<L>() });
    encode_with::<L>(pcm, codes, |biased| {
        _mm512_max_epi16(
            _mm512_permutexvar_epi16(_mm512_srli_epi16(biased, 8), low),
            _mm512_permutexvar_epi16(_mm512_srli_epi16(biased, 13), high),
        )
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn encode_vbmi<L: Law>(pcm: &[i16], codes: &mut [u8]) {
    let [low, high] = bytes(&const { shifts::<L>() });
    encode_with::<L>(pcm, codes, |biased| {
        _mm512_permutex2var_epi8(low, _mm512_srli_epi16(biased, 8), high)
    });
}

/// Encodes; `shift` gives segment + 3 for biased magnitudes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn encode_with<L: Law>(pcm: &[i16], codes: &mut [u8], shift: impl Fn(__m512i) -> __m512i) {
    let n = pcm.len().min(codes.len());
    let whole = n - n % WIDTH;
    let mut i = 0;
    while i < whole {
        // SAFETY: `WIDTH` samples from `i` end at `whole` or before it.
        let x = unsafe { _mm512_loadu_epi16(pcm.as_ptr().add(i)) };
        let block = encode_block::<L>(x, &shift);
        // SAFETY: `WIDTH` codes from `i` end at `whole` or before it.
        unsafe { _mm256_storeu_epi8(codes.as_mut_ptr().add(i).cast(), block) };
        i += WIDTH;
    }
    if whole < n {
        let mask = tail_mask(n - whole);
        // SAFETY: the mask's lanes begin at `whole` and end at `n`; the others are not read.
        let x = unsafe { _mm512_maskz_loadu_epi16(mask, pcm.as_ptr().add(whole)) };
        let block = encode_block::<L>(x, &shift);
        // SAFETY: the mask's lanes begin at `whole` and end at `n`; the others are not written.
        unsafe { _mm256_mask_storeu_epi8(codes.as_mut_ptr().add(whole).cast(), mask, block) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn decode<L: Law>(codes: &[u8], pcm: &mut [i16]) {
    let n = pcm.len().min(codes.len());
    let base = words(&const { twice(&L::LINES.base) });
    let step = words(&const { twice(&L::LINES.step) });
    let whole = n - n % WIDTH;
    let mut i = 0;
    while i < whole {
        // SAFETY: `WIDTH` codes from `i` end at `whole` or before it.
        let code = unsafe { _mm256_loadu_si256(codes.as_ptr().add(i).cast()) };
        let x = decode_block::<L>(code, base, step);
        // SAFETY: `WIDTH` samples from `i` end at `whole` or before it.
        unsafe { _mm512_storeu_epi16(pcm.as_mut_ptr().add(i), x) };
        i += WIDTH;
    }
    if whole < n {
        let mask = tail_mask(n - whole);
        // SAFETY: the mask's lanes begin at `whole` and end at `n`; the others are not read.
        let code = unsafe { _mm256_maskz_loadu_epi8(mask, codes.as_ptr().add(whole).cast()) };
        let x = decode_block::<L>(code, base, step);
        // SAFETY: the mask's lanes begin at `whole` and end at `n`; the others are not written.
        unsafe { _mm512_mask_storeu_epi16(pcm.as_mut_ptr().add(whole), mask, x) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn decode_vbmi<L: Law>(codes: &[u8], pcm: &mut [i16]) {
    const WIDTH: usize = 64;
    let n = pcm.len().min(codes.len());
    let Some(last) = n.checked_sub(WIDTH) else {
        return decode::<L>(codes, pcm);
    };
    let (low, high) = const { negatives::<L>() };
    let (low, high) = (bytes(&low), bytes(&high));
    let mut i = 0;
    while i <= last {
        // SAFETY: `i` is at most `last`, so `WIDTH` codes from `i` lie within `codes`.
        let code = unsafe { _mm512_loadu_epi8(codes.as_ptr().add(i).cast()) };
        let [first, second] = decode_block_vbmi(code, low, high);
        // SAFETY: `i` is at most `last`, so `WIDTH` samples from `i` lie within `pcm`.
        unsafe {
            _mm512_storeu_epi16(pcm.as_mut_ptr().add(i), first);
            _mm512_storeu_epi16(pcm.as_mut_ptr().add(i + WIDTH / 2), second);
        }
        i += WIDTH;
    }
    if i < n {
        // SAFETY: `last` codes stand before the last `WIDTH` ones.
        let code = unsafe { _mm512_loadu_epi8(codes.as_ptr().add(last).cast()) };
        let [first, second] = decode_block_vbmi(code, low, high);
        // SAFETY: as many samples as codes.
        unsafe {
            if n - i > WIDTH / 2 {
                _mm512_storeu_epi16(pcm.as_mut_ptr().add(last), first);
            }
            _mm512_storeu_epi16(pcm.as_mut_ptr().add(last + WIDTH / 2), second);
        }
    }
}

/// Sixty-four codes to twice thirty-two samples: the bytes of the negative sample are looked up by the lower seven bits, and
/// the upper bit, set in both laws where the sample is not negative, inverts the sign.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn decode_block_vbmi(codes: __m512i, low: [__m512i; 2], high: [__m512i; 2]) -> [__m512i; 2] {
    let positive = _mm512_movepi8_mask(codes);
    // Unpacking takes the lower halves of 128 bits first: each gets one eighth of the first half there.
    let dealt = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    let low = _mm512_permutex2var_epi8(low[0], dealt, low[1]);
    let high = _mm512_permutex2var_epi8(high[0], dealt, high[1]);
    let zero = _mm512_setzero_si512();
    let first = _mm512_unpacklo_epi8(low, high);
    let second = _mm512_unpackhi_epi8(low, high);
    [
        _mm512_mask_sub_epi16(first, positive as __mmask32, zero, first),
        _mm512_mask_sub_epi16(second, (positive >> 32) as __mmask32, zero, second),
    ]
}

/// Thirty-two samples to codes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn encode_block<L: Law>(x: __m512i, shift: impl Fn(__m512i) -> __m512i) -> __m256i {
    let sign = _mm512_srai_epi16(x, 15);
    let biased = _mm512_adds_epi16(_mm512_xor_si512(x, sign), _mm512_set1_epi16(L::BIAS));
    let shift = _mm512_and_si512(shift(biased), _mm512_set1_epi16(15));
    let sum = _mm512_add_epi16(_mm512_srlv_epi16(biased, shift), _mm512_slli_epi16(shift, 4));
    let code = _mm512_sub_epi16(sum, _mm512_set1_epi16(16 + 16 * 3));
    let toggled = _mm512_xor_si512(code, _mm512_set1_epi16(L::TOGGLE as i16));
    // toggled ^ (sign & 0x80)
    let code = _mm512_ternarylogic_epi32(toggled, sign, _mm512_set1_epi16(0x80), 0x78);
    _mm512_cvtepi16_epi8(code)
}

/// Thirty-two codes to samples.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn decode_block<L: Law>(codes: __m256i, base: __m512i, step: __m512i) -> __m512i {
    let code = _mm512_cvtepu8_epi16(_mm256_xor_si256(codes, _mm256_set1_epi8(L::FLIP as i8)));
    let line = _mm512_srli_epi16(code, 4);
    _mm512_add_epi16(
        _mm512_mullo_epi16(code, _mm512_permutexvar_epi16(line, step)),
        _mm512_permutexvar_epi16(line, base),
    )
}

/// The low and the high bytes of the samples of the codes below 128.
const fn negatives<L: Law>() -> ([u8; 128], [u8; 128]) {
    let (mut low, mut high) = ([0; 128], [0; 128]);
    let mut code = 0;
    while code < 128 {
        let flipped = code as u8 ^ L::FLIP;
        let line = (flipped >> 4) as usize;
        let sample = (flipped as i16)
            .wrapping_mul(L::LINES.step[line])
            .wrapping_add(L::LINES.base[line]);
        [low[code], high[code]] = sample.to_le_bytes();
        code += 1;
    }
    (low, high)
}

/// Segment + 3 for each high byte of a biased magnitude.
const fn shifts<L: Law>() -> [u8; 128] {
    let mut table = [0; 128];
    let mut high = 0;
    while high < 128 {
        let (a, b) = (L::SEGMENTS.low[high & 15], L::SEGMENTS.high[high >> 4]);
        table[high] = 3 + if a > b { a } else { b };
        high += 1;
    }
    table
}

/// The same for high bytes below 32.
const fn shifts_by_low_five<L: Law>() -> [i16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = shifts::<L>()[i] as i16;
        i += 1;
    }
    table
}

/// The same for high bytes of 32 and more, by their upper two bits; zero below.
const fn shifts_by_high_two<L: Law>() -> [i16; 32] {
    let mut table = [0; 32];
    let mut i = 1;
    while i < 4 {
        table[i] = shifts::<L>()[i << 5] as i16;
        i += 1;
    }
    table
}

const fn twice(words: &[i16; 16]) -> [i16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        table[i] = words[i & 15];
        i += 1;
    }
    table
}

/// A lookup table of 128 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn bytes(table: &[u8; 128]) -> [__m512i; 2] {
    // SAFETY: each half is sixty-four bytes.
    unsafe {
        [
            _mm512_loadu_epi8(table.as_ptr().cast()),
            _mm512_loadu_epi8(table.as_ptr().add(64).cast()),
        ]
    }
}

/// A lookup table of words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn words(table: &[i16; 32]) -> __m512i {
    // SAFETY: sixty-four bytes are there to read.
    unsafe { _mm512_loadu_epi16(table.as_ptr()) }
}
