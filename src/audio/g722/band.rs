//! One sub-band of G.722: the adaptive predictor and the adaptive step that encoder and decoder share.
//!
//! After clause 3 of ITU-T G.722 (2012); blocks and tables bear its names.

use super::tables::ILB;

/// State of a band.
#[derive(Clone, Debug)]
pub(super) struct Band {
    /// The predicted sample (`SL`, `SH`).
    pub(super) predicted: i32,
    /// The zero section's part of it (`SZL`, `SZH`).
    zero: i32,
    /// The zero section and the difference, of the last two samples (`PLT`).
    partial: [i32; 2],
    /// The reconstructed signal of the last two samples (`RLT`).
    reconstructed: [i32; 2],
    /// Coefficients of the pole section (`AL`).
    poles: [i32; 2],
    /// Coefficients of the zero section (`BL`), and the quantised differences they weigh (`DLT`), the latest first.
    zeros: [i32; 6],
    differences: [i32; 6],
    /// Logarithm of the step (`NBL`, `NBH`).
    log_step: i32,
    /// The step (`DETL`, `DETH`).
    pub(super) step: i32,
}

/// To 16 bits.
pub(super) fn saturate(x: i32) -> i32 {
    x.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// `amount` if both have the same sign, else its negative. Zero counts as positive.
const fn alike(x: i32, y: i32, amount: i32) -> i32 {
    if (x < 0) == (y < 0) { amount } else { -amount }
}

impl Band {
    /// A band whose step begins at `step`: 32 for the lower, 8 for the higher.
    pub(super) const fn new(step: i32) -> Self {
        Self {
            predicted: 0,
            zero: 0,
            partial: [0; 2],
            reconstructed: [0; 2],
            poles: [0; 2],
            zeros: [0; 6],
            differences: [0; 6],
            log_step: 0,
            step,
        }
    }

    /// Adapts the step by a multiplier (`LOGSCL` and `SCALEL`, `LOGSCH` and `SCALEH`). `most` bounds its logarithm;
    /// `shift` is 8 for the lower band and 10 for the higher.
    pub(super) fn scale(&mut self, multiplier: i32, most: i32, shift: i32) {
        self.log_step = (((self.log_step * 127) >> 7) + multiplier).clamp(0, most);
        let mantissa = ILB[((self.log_step >> 6) & 31) as usize];
        let exponent = shift - (self.log_step >> 11);
        let scaled = match exponent < 0 {
            true => mantissa << -exponent,
            false => mantissa >> exponent,
        };
        self.step = scaled << 2;
    }

    /// Takes the quantised difference of a sample and predicts the next one.
    pub(super) fn adapt(&mut self, difference: i32) {
        let reconstructed = saturate(self.predicted + difference);
        let partial = saturate(self.zero + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);
        self.partial = [partial, self.partial[0]];
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.predict();
    }

    /// `UPPOL2` and `UPPOL1`.
    fn adapt_poles(&mut self, partial: i32) {
        let [first, second] = self.poles;
        let fed_back = alike(partial, self.partial[0], -saturate(first << 2)).min(i32::from(i16::MAX));
        let nudge = alike(partial, self.partial[1], 128);
        let second = ((fed_back >> 7) + nudge + ((second * 32_512) >> 15)).clamp(-12_288, 12_288);
        let first = saturate(alike(partial, self.partial[0], 192) + ((first * 32_640) >> 15));
        let bound = saturate(15_360 - second);
        self.poles = [first.clamp(-bound, bound), second];
    }

    /// `UPZERO`, and the delay line of the differences.
    fn adapt_zeros(&mut self, difference: i32) {
        let amount = if difference == 0 { 0 } else { 128 };
        for (zero, past) in self.zeros.iter_mut().zip(self.differences) {
            *zero = saturate(alike(past, difference, amount) + ((*zero * 32_640) >> 15));
        }
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
    }

    /// `FILTEP`, `FILTEZ` and `PREDIC`.
    fn predict(&mut self) {
        let weigh = |(coefficient, sample): (&i32, &i32)| (coefficient * saturate(sample * 2)) >> 15;
        let pole: i32 = self.poles.iter().zip(&self.reconstructed).map(weigh).sum();
        let zero: i32 = self.zeros.iter().zip(&self.differences).map(weigh).sum();
        self.zero = saturate(zero);
        self.predicted = saturate(saturate(pole) + self.zero);
    }
}
