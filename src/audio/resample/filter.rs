//! The low-pass filter of a ratio, cut into the taps each output sample needs. Computed once per ratio and shared.
//!
//! With `up` outputs for `down` inputs, output `up·t + j` lies at `(up·t + j)·down` on the grid both rates share. The
//! prototype's tap at distance `k` meets the input samples that lie on multiples of `up` there; which ones repeats with `t`.

use super::kernel::{HISTORY, STRIDE};
use std::{
    f64::consts::PI,
    sync::{Arc, OnceLock},
};

/// Half the filter's length, in samples of the lower rate.
const HALF_LENGTH: usize = 16;

/// Shape of the Kaiser window: 74.6 dB of rejection from 0.575 of the lower rate at this length.
const KAISER_BETA: f64 = 7.31;

/// The taps of a ratio `up : down` in lowest terms.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) up: usize,
    pub(super) down: usize,
    /// Delay in output samples.
    pub(super) delay: usize,
    /// For each of the `up` outputs of a group, its taps.
    pub(super) outputs: Vec<Vec<Tap>>,
}

/// A coefficient and the place of its input sample for the first group of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub(super) coefficient: f32,
    pub(super) at: usize,
}

impl Filter {
    /// The filter between two rates, if their ratio is one of those built for. Built at first use.
    pub(super) fn shared(from: u32, to: u32) -> Option<Arc<Self>> {
        const RATIOS: [(usize, usize); 8] = [(2, 1), (3, 1), (6, 1), (1, 2), (1, 3), (1, 6), (3, 2), (2, 3)];
        static FILTERS: [OnceLock<Arc<Filter>>; 8] = [const { OnceLock::new() }; 8];
        let ratio = RATIOS
            .iter()
            .position(|&(up, down)| from as usize * up == to as usize * down)?;
        let (up, down) = RATIOS[ratio];
        Some(FILTERS[ratio].get_or_init(|| Arc::new(Self::new(up, down))).clone())
    }

    fn new(up: usize, down: usize) -> Self {
        let prototype = prototype(up.max(down));
        let outputs = (0..up)
            .map(|j| {
                let (first, phase) = (j * down / up, j * down % up);
                let taps = prototype.iter().skip(phase).step_by(up);
                let gain = taps.clone().sum::<f64>();
                taps.enumerate()
                    .filter(|&(_, &h)| h != 0.0)
                    .map(|(i, &h)| {
                        // Input sample `down·t + first − i`: which stream, and how many groups back.
                        let sample = first as isize - i as isize;
                        let stream = sample.rem_euclid(down as isize) as usize;
                        let back = -sample.div_euclid(down as isize);
                        Tap {
                            coefficient: (h / gain) as f32,
                            at: (stream * STRIDE + HISTORY).saturating_add_signed(-back),
                        }
                    })
                    .collect()
            })
            .collect();
        Self {
            up,
            down,
            delay: HALF_LENGTH * up.max(down) / down,
            outputs,
        }
    }
}

/// A windowed sinc that crosses zero every `zeros_apart` taps, `HALF_LENGTH` times on each side.
fn prototype(zeros_apart: usize) -> Vec<f64> {
    let half = (HALF_LENGTH * zeros_apart) as isize;
    (-half..=half)
        .map(|k| {
            let x = PI * k as f64 / zeros_apart as f64;
            let sinc = match k {
                0 => 1.0,
                // Exactly zero where rounding would leave 1e-17.
                _ if k % zeros_apart as isize == 0 => 0.0,
                _ => x.sin() / x,
            };
            let edge = k as f64 / half as f64;
            sinc * bessel_i0(KAISER_BETA * (1.0 - edge * edge).max(0.0).sqrt()) / bessel_i0(KAISER_BETA)
        })
        .collect()
}

/// The modified Bessel function of the first kind and order zero, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= (x / 2.0 / k) * (x / 2.0 / k);
        sum += term;
        k += 1.0;
    }
    sum
}
