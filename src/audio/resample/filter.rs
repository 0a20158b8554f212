//! The low-pass filter of a ratio, cut into the taps each output sample needs. Computed once per ratio and shared.
//!
//! With `up` outputs for `down` inputs, output `up·t + j` lies at `(up·t + j)·down` on the grid both rates share. The
//! prototype's tap at distance `k` meets the input samples that lie on multiples of `up` there; which ones repeats with `t`.

use super::{
    Quality,
    kernel::{HISTORY, STRIDE},
};
use std::{
    f64::consts::PI,
    sync::{Arc, OnceLock},
};

/// How long and how steep a filter is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Half the filter's length, in samples of the lower rate: its delay.
    half_length: usize,
    /// Shape of the Kaiser window.
    kaiser_beta: f64,
}

impl Quality {
    const fn shape(self) -> Shape {
        match self {
            Self::Path => Shape {
                half_length: 16,
                kaiser_beta: 7.31,
            },
            Self::Fine => Shape {
                half_length: 20,
                kaiser_beta: 9.2,
            },
        }
    }
}

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
    pub(super) fn shared(from: u32, to: u32, quality: Quality) -> Option<Arc<Self>> {
        const RATIOS: [(usize, usize); 8] = [(2, 1), (3, 1), (6, 1), (1, 2), (1, 3), (1, 6), (3, 2), (2, 3)];
        static FILTERS: [[OnceLock<Arc<Filter>>; 8]; 2] = [const { [const { OnceLock::new() }; 8] }; 2];
        let ratio = RATIOS
            .iter()
            .position(|&(up, down)| from as usize * up == to as usize * down)?;
        let (up, down) = RATIOS[ratio];
        let filter = &FILTERS[quality as usize][ratio];
        Some(
            filter
                .get_or_init(|| Arc::new(Self::new(up, down, quality.shape())))
                .clone(),
        )
    }

    fn new(up: usize, down: usize, shape: Shape) -> Self {
        let prototype = prototype(up.max(down), shape);
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
            delay: shape.half_length * up.max(down) / down,
            outputs,
        }
    }
}

/// A windowed sinc that crosses zero every `zeros_apart` taps, `half_length` times on each side.
fn prototype(zeros_apart: usize, shape: Shape) -> Vec<f64> {
    let half = (shape.half_length * zeros_apart) as isize;
    let beta = shape.kaiser_beta;
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
            sinc * bessel_i0(beta * (1.0 - edge * edge).max(0.0).sqrt()) / bessel_i0(beta)
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
