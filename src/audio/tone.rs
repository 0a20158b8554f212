//! Test signals and call tones: sine, DTMF digits, white and pink noise from a seed.

use std::f64::consts::TAU;

/// A sine wave that keeps its phase between calls.
#[derive(Clone, Debug)]
pub struct Sine {
    /// Turns per sample.
    step: f64,
    /// In turns, 0 to 1.
    phase: f64,
    amplitude: f64,
}

impl Sine {
    /// A sine of `frequency` Hz with `amplitude` as its peak (0 to 32767), at `rate` samples a second.
    pub fn new(rate: u32, frequency: f64, amplitude: f64) -> Self {
        Self {
            step: frequency / f64::from(rate),
            phase: 0.0,
            amplitude: amplitude.clamp(0.0, 32767.0),
        }
    }

    fn next(&mut self) -> f64 {
        let x = self.amplitude * (TAU * self.phase).sin();
        self.phase = (self.phase + self.step).fract();
        x
    }

    /// Writes the next samples.
    pub fn fill(&mut self, out: &mut [i16]) {
        out.fill_with(|| self.next().round() as i16);
    }
}

/// A keypad key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtmfKey {
    row: u8,
    column: u8,
}

/// Frequencies of the rows and columns of a keypad in Hz (ITU-T Q.23).
const DTMF_ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const DTMF_COLUMNS: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const DTMF_KEYS: [&[u8; 4]; 4] = [b"123A", b"456B", b"789C", b"*0#D"];

impl DtmfKey {
    /// The key of `0`-`9`, `*`, `#`, `A`-`D` (either case).
    pub fn of(key: char) -> Option<Self> {
        let key = u8::try_from(key).ok()?.to_ascii_uppercase();
        DTMF_KEYS.iter().enumerate().find_map(|(row, keys)| {
            let column = keys.iter().position(|&k| k == key)?;
            Some(Self {
                row: row as u8,
                column: column as u8,
            })
        })
    }

    /// The two frequencies of the key in Hz, low and high.
    pub fn frequencies(self) -> (f64, f64) {
        (DTMF_ROWS[usize::from(self.row)], DTMF_COLUMNS[usize::from(self.column)])
    }
}

/// Digits as in-band tones: each `on_ms` of tone and `off_ms` of silence.
#[derive(Clone, Debug)]
pub struct Dtmf {
    rate: u32,
    low: Sine,
    high: Sine,
    on: usize,
    off: usize,
    /// Samples of tone, then of silence, left of the current digit.
    left: (usize, usize),
}

impl Dtmf {
    /// Peak of each of the two tones: −9 dBFS and −7 dBFS, the high one louder as ITU-T Q.23 networks expect.
    const AMPLITUDES: (f64, f64) = (11_600.0, 14_600.0);

    /// A silent generator at `rate` Hz. ITU-T Q.24 asks for at least 40 ms of each; 100 ms is usual.
    pub fn new(rate: u32, on_ms: u32, off_ms: u32) -> Self {
        let samples = |ms: u32| rate as usize * ms as usize / 1000;
        Self {
            rate,
            low: Sine::new(rate, 0.0, 0.0),
            high: Sine::new(rate, 0.0, 0.0),
            on: samples(on_ms),
            off: samples(off_ms),
            left: (0, 0),
        }
    }

    /// Begins a digit, cutting short the one before it.
    pub fn press(&mut self, key: DtmfKey) {
        let (low, high) = key.frequencies();
        self.low = Sine::new(self.rate, low, Self::AMPLITUDES.0);
        self.high = Sine::new(self.rate, high, Self::AMPLITUDES.1);
        self.left = (self.on, self.off);
    }

    /// Writes what is left of the digit, as far as `out` goes; returns how many samples, 0 when it is over.
    pub fn fill(&mut self, out: &mut [i16]) -> usize {
        let on = self.left.0.min(out.len());
        let (tone, rest) = out.split_at_mut(on);
        tone.fill_with(|| (self.low.next() + self.high.next()).round() as i16);
        let off = self.left.1.min(rest.len());
        rest[..off].fill(0);
        self.left = (self.left.0 - on, self.left.1 - off);
        on + off
    }
}

/// A small generator of reproducible noise (xorshift64*). Not for secrets.
#[derive(Clone, Debug)]
pub struct Noise {
    state: u64,
    /// Paul Kellet's pink filter: white noise through parallel one-pole low-passes.
    pink: [f64; 3],
}

impl Noise {
    /// The same seed gives the same noise.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            pink: [0.0; 3],
        }
    }

    /// A number from −1 to 1, evenly spread.
    fn next(&mut self) -> f64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Writes white noise of the given root mean square in dBFS (a full-scale square wave is 0).
    pub fn white(&mut self, level_dbfs: f64, out: &mut [i16]) {
        let scale = 32768.0 * 10f64.powf(level_dbfs / 20.0) * 3f64.sqrt();
        out.fill_with(|| (self.next() * scale).round() as i16);
    }

    /// Writes noise that falls by 3 dB an octave, of about the given root mean square in dBFS.
    pub fn pink(&mut self, level_dbfs: f64, out: &mut [i16]) {
        /// Root mean square of the filter's output, for evenly spread input in −1 to 1, measured.
        const FILTER_RMS: f64 = 1.72;
        let scale = 32768.0 * 10f64.powf(level_dbfs / 20.0) / FILTER_RMS;
        out.fill_with(|| {
            let white = self.next();
            let [a, b, c] = &mut self.pink;
            *a = 0.99765 * *a + white * 0.099_046;
            *b = 0.963 * *b + white * 0.296_516_4;
            *c = 0.57 * *c + white * 1.052_691_3;
            ((*a + *b + *c + white * 0.1848) * scale).round() as i16
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rms_dbfs(samples: &[i16]) -> f64 {
        let sum: f64 = samples.iter().map(|&x| f64::from(x).powi(2)).sum();
        10.0 * (sum / samples.len() as f64 / 32768f64.powi(2)).log10()
    }

    /// Amplitude of one frequency in the samples.
    fn amplitude(rate: u32, samples: &[i16], frequency: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, &x) in samples.iter().enumerate() {
            let angle = TAU * frequency * n as f64 / f64::from(rate);
            re += f64::from(x) * angle.cos();
            im += f64::from(x) * angle.sin();
        }
        2.0 * re.hypot(im) / samples.len() as f64
    }

    #[test]
    fn a_sine_has_its_frequency_and_amplitude_across_calls() {
        let mut sine = Sine::new(8000, 440.0, 10_000.0);
        let mut samples = vec![0; 8000];
        for chunk in samples.chunks_mut(77) {
            sine.fill(chunk);
        }
        assert!((amplitude(8000, &samples, 440.0) - 10_000.0).abs() < 10.0);
        assert!(amplitude(8000, &samples, 450.0) < 10.0);
    }

    #[test]
    fn every_key_has_its_two_tones_and_its_pause() {
        for key in "0123456789*#ABCDd".chars() {
            let key = DtmfKey::of(key).unwrap();
            let mut dtmf = Dtmf::new(8000, 100, 50);
            dtmf.press(key);
            let mut samples = vec![1; 2000];
            assert_eq!(dtmf.fill(&mut samples), 1200);
            assert_eq!(dtmf.fill(&mut samples), 0);
            let (low, high) = key.frequencies();
            for f in DTMF_ROWS.into_iter().chain(DTMF_COLUMNS) {
                let present = amplitude(8000, &samples[..800], f) > 5000.0;
                assert_eq!(present, f == low || f == high, "{f}");
            }
            assert!(samples[800..1200].iter().all(|&x| x == 0));
            assert!(samples[1200..].iter().all(|&x| x == 1));
        }
        assert_eq!(DtmfKey::of('E'), None);
        assert_eq!(DtmfKey::of('é'), None);
    }

    #[test]
    fn a_digit_cut_into_frames_is_the_same_digit() {
        let key = DtmfKey::of('5').unwrap();
        let (mut whole, mut framed) = (Dtmf::new(8000, 100, 100), Dtmf::new(8000, 100, 100));
        whole.press(key);
        framed.press(key);
        let (mut a, mut b) = (vec![0; 1600], vec![0; 1600]);
        whole.fill(&mut a);
        for frame in b.chunks_mut(160) {
            framed.fill(frame);
        }
        assert_eq!(a, b);
    }

    #[test]
    fn noise_is_reproducible_and_as_loud_as_asked() {
        let (mut a, mut b) = (vec![0; 80_000], vec![0; 80_000]);
        Noise::new(7).white(-20.0, &mut a);
        Noise::new(7).white(-20.0, &mut b);
        assert_eq!(a, b);
        assert!((rms_dbfs(&a) + 20.0).abs() < 0.2, "{}", rms_dbfs(&a));
        Noise::new(8).white(-20.0, &mut b);
        assert_ne!(a, b);
        Noise::new(7).pink(-20.0, &mut a);
        assert!((rms_dbfs(&a) + 20.0).abs() < 1.5, "{}", rms_dbfs(&a));
    }
}
