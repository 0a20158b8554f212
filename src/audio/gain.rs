//! Louder, softer, mixed and measured. Everything saturates; nothing wraps.

use super::simd::Loops;

/// A factor on amplitudes, exact at unity and silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// In steps of 2⁻¹².
    q12: i32,
}

impl Gain {
    /// Leaves samples as they are.
    pub const UNITY: Self = Self { q12: 1 << 12 };

    /// Leaves nothing.
    pub const SILENCE: Self = Self { q12: 0 };

    /// The most that amplitudes can be raised: +24 dB.
    const MOST: i32 = 1 << 16;

    /// A gain in decibels, +24 dB at most; minus infinity and what is not a number are silence.
    pub fn from_db(db: f32) -> Self {
        let factor = 10f32.powf(db / 20.0) * Self::UNITY.q12 as f32;
        Self {
            q12: (factor.round() as i32).clamp(0, Self::MOST),
        }
    }

    /// Applies it in place.
    pub fn apply(self, samples: &mut [i16]) {
        match self {
            Self::UNITY => {}
            Self::SILENCE => samples.fill(0),
            Self { q12 } => Loops::best().amplify(samples, q12),
        }
    }
}

/// Adds `other` to `samples`, as far as both go.
pub fn mix(samples: &mut [i16], other: &[i16]) {
    Loops::best().mix(samples, other);
}

/// Root mean square in dBFS: 0 for a full-scale square wave, −3 for a full-scale sine, [`SILENCE_DBFS`] for silence or nothing.
pub fn level_dbfs(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return SILENCE_DBFS;
    }
    let mean = energy(samples) as f32 / samples.len() as f32;
    power_dbfs(mean)
}

/// What digital silence measures, and the least any level measures: a lone ±1 in a hundred milliseconds is about as quiet.
pub const SILENCE_DBFS: f32 = -120.0;

/// Sum of squares.
pub(super) fn energy(samples: &[i16]) -> u64 {
    Loops::best().energy(samples)
}

/// A mean square in dBFS.
pub(super) fn power_dbfs(mean_square: f32) -> f32 {
    (10.0 * (mean_square / (32768.0 * 32768.0)).log10()).max(SILENCE_DBFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unity_and_silence_are_exact() {
        let mut samples = [i16::MIN, -1, 0, 1, i16::MAX];
        Gain::from_db(0.0).apply(&mut samples);
        assert_eq!(samples, [i16::MIN, -1, 0, 1, i16::MAX]);
        Gain::from_db(f32::NEG_INFINITY).apply(&mut samples);
        assert_eq!(samples, [0; 5]);
        assert_eq!(Gain::from_db(f32::NAN), Gain::SILENCE);
    }

    #[test]
    fn six_decibels_double_and_halve() {
        let mut samples = [1000, -1000, 30_000, -30_000];
        Gain::from_db(6.0206).apply(&mut samples);
        assert_eq!(samples, [2000, -2000, i16::MAX, i16::MIN]);
        let mut samples = [1000, -1000];
        Gain::from_db(-6.0206).apply(&mut samples);
        assert_eq!(samples, [500, -500]);
    }

    #[test]
    fn levels_are_those_of_the_definition() {
        assert_eq!(level_dbfs(&[]), SILENCE_DBFS);
        assert_eq!(level_dbfs(&[0; 80]), SILENCE_DBFS);
        assert_eq!(level_dbfs(&[i16::MIN; 80]), 0.0);
        assert!((level_dbfs(&[3277, -3277]) + 20.0).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn mixing_is_addition_that_stops_at_the_ends(a: Vec<i16>, b: Vec<i16>) {
            let mut mixed = a.clone();
            mix(&mut mixed, &b);
            for i in 0..a.len() {
                let sum = i32::from(a[i]) + b.get(i).map_or(0, |&y| i32::from(y));
                prop_assert_eq!(i32::from(mixed[i]), sum.clamp(-32768, 32767));
            }
        }

        #[test]
        fn a_gain_never_changes_a_sign(db in -100f32..100.0, x: i16) {
            let mut y = [x];
            Gain::from_db(db).apply(&mut y);
            prop_assert!(i32::from(x).signum() * i32::from(y[0]).signum() >= 0);
        }
    }
}
