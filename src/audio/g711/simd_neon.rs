//! G.711 with Advanced SIMD: the portable arithmetic, vectorised by the compiler for Neon.
#![allow(unsafe_code)]

use super::{portable, simd::G711};
use crate::audio::isa::Isa;

pub(super) const KERNELS: G711 = G711::new(Isa::Neon, (ulaw_encode, ulaw_decode), (alaw_encode, alaw_decode));

#[target_feature(enable = "neon")]
fn ulaw_encode(pcm: &[i16], codes: &mut [u8]) {
    portable::ulaw_encode(pcm, codes);
}

#[target_feature(enable = "neon")]
fn ulaw_decode(codes: &[u8], pcm: &mut [i16]) {
    portable::ulaw_decode(codes, pcm);
}

#[target_feature(enable = "neon")]
fn alaw_encode(pcm: &[i16], codes: &mut [u8]) {
    portable::alaw_encode(pcm, codes);
}

#[target_feature(enable = "neon")]
fn alaw_decode(codes: &[u8], pcm: &mut [i16]) {
    portable::alaw_decode(codes, pcm);
}
