//! Pure signal processing over slices, and the rings samples travel in. Nothing here allocates after construction, does I/O or reads a clock.
//!
//! Samples are i16, mono. Kernels exist per instruction set and give the same bits on each; [`isa`] names the sets.

pub mod codec;
pub mod framer;
pub mod g711;
pub mod g722;
pub mod gain;
pub mod isa;
pub mod l16;
pub mod ogg;
pub mod opus;
pub mod order;
pub mod resample;
pub mod ring;
pub mod simd;
pub mod tone;
pub mod vad;
pub mod wav;
