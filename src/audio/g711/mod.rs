//! G.711 μ-law and A-law over slices, bit for bit as the ITU-T reference coder writes them (G.191 Software Tools Library, `g711.c`).
//!
//! Sixteen-bit samples are left-justified: μ-law uses the upper 14 bits, A-law the upper 12 plus sign.
//! A negative sample is one's-complemented before its segment is sought, in both laws, as the reference coder does;
//! coders that negate instead differ from it on 127 of the 65,536 inputs.
//!
//! Each law is written once as [`scalar`] arithmetic and once per instruction set; `law.rs` holds the handful of constants
//! that tell the laws apart in the latter. [`G711::best`] is chosen once per process; [`G711::on`] picks a set by name.
//!
//! Every function converts `min(input.len(), output.len())` samples and returns that number: nothing here panics.

#[cfg(target_arch = "x86_64")]
mod law;
#[cfg(any(target_arch = "aarch64", test))]
mod portable;
pub mod scalar;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
#[cfg(target_arch = "aarch64")]
mod simd_neon;
#[cfg(target_arch = "x86_64")]
mod simd_sse;
#[cfg(test)]
mod tests;

pub use simd::G711;

/// The μ-law code of silence (positive zero).
pub const ULAW_SILENCE: u8 = 0xff;

/// The A-law code of silence (the smallest positive value: A-law has no zero).
pub const ALAW_SILENCE: u8 = 0xd5;

/// Writes the μ-law code of each sample with the fastest kernel of this CPU.
pub fn ulaw_encode(pcm: &[i16], codes: &mut [u8]) -> usize {
    G711::best().ulaw_encode(pcm, codes)
}

/// Writes the sample of each μ-law code with the fastest kernel of this CPU.
pub fn ulaw_decode(codes: &[u8], pcm: &mut [i16]) -> usize {
    G711::best().ulaw_decode(codes, pcm)
}

/// Writes the A-law code of each sample with the fastest kernel of this CPU.
pub fn alaw_encode(pcm: &[i16], codes: &mut [u8]) -> usize {
    G711::best().alaw_encode(pcm, codes)
}

/// Writes the sample of each A-law code with the fastest kernel of this CPU.
pub fn alaw_decode(codes: &[u8], pcm: &mut [i16]) -> usize {
    G711::best().alaw_decode(codes, pcm)
}
