//! The polyphase filter as loops a compiler vectorises: across time, not across taps.
//!
//! A tap adds one coefficient times `LANES` consecutive inputs to as many accumulators. No sum runs across lanes and no
//! multiply is fused with its add, so every vector width computes each output by the same operations in the same order.

use super::filter::{Filter, Tap};
use std::iter::zip;

/// Groups per block: 20 ms where the lower rate is 8 kHz. A multiple of every number of lanes in use.
pub(super) const BLOCK: usize = 160;

/// Groups of history the longest filter looks back.
pub(super) const HISTORY: usize = 40;

/// Samples of a stream: history and one block.
pub(super) const STRIDE: usize = HISTORY + BLOCK;

/// Takes in `input` behind the `waiting` samples of an incomplete group and writes the outputs of all complete groups, as far
/// as `out` goes. `UP` and `DOWN` are the filter's; `LANES` outputs of one kind are computed together, as many as registers
/// can sum.
#[inline(always)]
pub(super) fn run<const LANES: usize, const UP: usize, const DOWN: usize>(
    filter: &Filter,
    streams: &mut [f32],
    waiting: usize,
    input: &[i16],
    out: &mut [i16],
) {
    deal::<DOWN>(streams, waiting, input);
    for (block, out) in out.chunks_mut(LANES * UP).enumerate() {
        let mut lanes = [[0.0; LANES]; UP];
        for (lanes, taps) in zip(&mut lanes, &filter.outputs) {
            *lanes = convolve(taps, &streams[block * LANES..]);
        }
        if let Ok(out) = <&mut [[i16; UP]; LANES]>::try_from(out.as_chunks_mut::<UP>().0) {
            interleave(&lanes, out);
        } else {
            let mut last = [[0; UP]; LANES];
            interleave(&lanes, &mut last);
            out.copy_from_slice(&last.as_flattened()[..out.len()]);
        }
    }
}

/// Deals samples out to the streams in turn, behind their history.
#[inline(always)]
fn deal<const DOWN: usize>(streams: &mut [f32], waiting: usize, input: &[i16]) {
    // At most DOWN − 1 samples complete the group that waits; at most DOWN − 1 begin the next.
    let (first, input) = input.split_at(input.len().min((DOWN - waiting) % DOWN));
    for (i, &sample) in first.iter().enumerate() {
        streams[(waiting + i) * STRIDE + HISTORY] = f32::from(sample);
    }
    let start = HISTORY + usize::from(waiting > 0);
    let (groups, last) = input.as_chunks::<DOWN>();
    for (s, stream) in streams.chunks_exact_mut(STRIDE).enumerate() {
        for (group, place) in zip(groups, &mut stream[start..]) {
            *place = f32::from(group[s]);
        }
    }
    for (s, &sample) in last.iter().enumerate() {
        streams[s * STRIDE + start + groups.len()] = f32::from(sample);
    }
}

/// The same output of `LANES` consecutive groups.
#[inline(always)]
fn convolve<const LANES: usize>(taps: &[Tap], streams: &[f32]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for tap in taps {
        let samples = &streams[tap.at..tap.at + LANES];
        for (sum, sample) in zip(&mut sums, samples) {
            *sum += tap.coefficient * sample;
        }
    }
    sums
}

/// Rounds each group's outputs and puts them side by side.
#[inline(always)]
fn interleave<const LANES: usize, const UP: usize>(lanes: &[[f32; LANES]; UP], out: &mut [[i16; UP]; LANES]) {
    for (t, group) in out.iter_mut().enumerate() {
        for (sample, lanes) in zip(group, lanes) {
            *sample = round(lanes[t]);
        }
    }
}

/// To the nearest sample, ties to even, the ends of the range saturating.
#[inline(always)]
fn round(x: f32) -> i16 {
    /// 1.5 × 2²³: floats from here on are whole numbers, and the low bits of their representation are two's complement.
    const WHOLE: f32 = 12_582_912.0;
    (x.clamp(-32768.0, 32767.0) + WHOLE).to_bits() as i16
}
