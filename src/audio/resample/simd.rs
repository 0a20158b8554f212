//! One body per ratio, compiled per instruction set.
#![allow(unsafe_code)]

use super::{filter::Filter, kernel};
use crate::audio::isa::Isa;

/// [`kernel::run`] for the filter's ratio on `isa`, which the caller has found available.
#[inline]
pub(super) fn run(isa: Isa, filter: &Filter, streams: &mut [f32], waiting: usize, input: &[i16], out: &mut [i16]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a resampler is built only for a set the CPU has; this one includes AVX2.
        Isa::Avx2 | Isa::Avx512 => unsafe { run_avx2(filter, streams, waiting, input, out) },
        _ => run_here::<40>(filter, streams, waiting, input, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(filter: &Filter, streams: &mut [f32], waiting: usize, input: &[i16], out: &mut [i16]) {
    run_here::<80>(filter, streams, waiting, input, out);
}

/// For the features of whichever function it is inlined into. Ten vectors of sums leave registers for the rest.
#[inline(always)]
fn run_here<const LANES: usize>(filter: &Filter, streams: &mut [f32], waiting: usize, input: &[i16], out: &mut [i16]) {
    match (filter.up, filter.down) {
        (2, 1) => kernel::run::<LANES, 2, 1>(filter, streams, waiting, input, out),
        (3, 1) => kernel::run::<LANES, 3, 1>(filter, streams, waiting, input, out),
        (6, 1) => kernel::run::<LANES, 6, 1>(filter, streams, waiting, input, out),
        (1, 2) => kernel::run::<LANES, 1, 2>(filter, streams, waiting, input, out),
        (1, 3) => kernel::run::<LANES, 1, 3>(filter, streams, waiting, input, out),
        (1, 6) => kernel::run::<LANES, 1, 6>(filter, streams, waiting, input, out),
        (3, 2) => kernel::run::<LANES, 3, 2>(filter, streams, waiting, input, out),
        (2, 3) => kernel::run::<LANES, 2, 3>(filter, streams, waiting, input, out),
        _ => {}
    }
}
