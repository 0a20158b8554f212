//! Voice activity: when a caller begins and stops speaking, from loudness above an adaptive noise floor and from periodicity.
//!
//! Works in hops of 10 ms. A hop is *active* when it is louder than the floor by a margin, and *voiced* when it is active and
//! repeats itself at a pitch of 60 to 400 Hz. Speech begins after [`VadConfig::onset_ms`] of voiced hops (others in between
//! count against it) and ends [`VadConfig::hangover_ms`] after the last hop that was voiced, or active soon after a voiced one.
//!
//! The floor is the quietest the stream has been in the last 1.5 s, so anything that stays as loud for longer becomes floor:
//! stationary noise, hum or a dial tone closes what it opened within about two seconds. White and pink noise rarely open anything,
//! as they are not periodic; whispering does not either. Music and short tones count as voice.
//!
//! Pure and free of allocation after construction. In silence a hop costs a sum of squares and little more; the search for a
//! pitch runs on active hops alone, on samples averaged down to 4 kHz.

#[cfg(test)]
mod tests;

use super::{
    framer::Framer,
    gain::{SILENCE_DBFS, energy, power_dbfs},
};
use std::{fmt, iter::zip};

/// When speech begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VadConfig {
    /// Voiced audio needed before speech is declared.
    pub onset_ms: u32,
    /// Quiet needed before it is declared over.
    pub hangover_ms: u32,
}

impl Default for VadConfig {
    fn default() -> Self {
        Self {
            onset_ms: 60,
            hangover_ms: 500,
        }
    }
}

/// A change, placed on the stream's own clock: samples since construction or [`Vad::reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VadEvent {
    /// Speech has begun.
    Onset {
        /// Where the sound that turned out to be speech began, at most 300 ms before its first voiced hop.
        at_sample: u64,
    },
    /// Speech has ended, a hang-over ago.
    Offset {
        /// Where its last sound ended.
        at_sample: u64,
    },
}

/// A detector on one stream.
#[derive(Clone, Debug)]
pub struct Vad {
    framer: Framer,
    detector: Detector,
}

impl Vad {
    /// A detector for a stream at 8000, 16000, 24000 or 48000 Hz.
    pub fn new(rate: u32, config: VadConfig) -> Result<Self, UnsupportedRate> {
        if ![8000, 16000, 24000, 48000].contains(&rate) {
            return Err(UnsupportedRate(rate));
        }
        Ok(Self {
            framer: Framer::new(rate as usize / 100),
            detector: Detector::new(rate, config),
        })
    }

    /// Listens to the next samples, any number of them, and tells `on_event` what happened in them.
    pub fn process(&mut self, samples: &[i16], mut on_event: impl FnMut(VadEvent)) {
        let Self { framer, detector } = self;
        framer.push(samples, |hop| {
            if let Some(event) = detector.hop(hop) {
                on_event(event);
            }
        });
    }

    /// Whether speech is going on (its hang-over included).
    pub const fn is_speech(&self) -> bool {
        matches!(self.detector.state, State::Speech { .. })
    }

    /// Loudness of the last whole hop in dBFS (root mean square).
    pub const fn level_dbfs(&self) -> f32 {
        self.detector.level
    }

    /// The noise floor in dBFS.
    pub fn floor_dbfs(&self) -> f32 {
        self.detector.floor.level()
    }

    /// Forgets everything: what follows is a new stream.
    pub fn reset(&mut self) {
        self.framer.clear();
        self.detector = Detector::new(self.detector.rate, self.detector.config);
    }
}

/// A rate the detector does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedRate(pub u32);

impl fmt::Display for UnsupportedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot detect voice at {} Hz: the rate must be 8000, 16000, 24000 or 48000",
            self.0
        )
    }
}

impl std::error::Error for UnsupportedRate {}

/// Active means this much above the floor, in dB; less while speech goes on.
const MARGIN: f32 = 6.0;
const MARGIN_IN_SPEECH: f32 = 4.0;

/// Nothing below is active, in dBFS: idle codes of G.711 and line noise of digital networks lie under it.
const QUIETEST_SPEECH: f32 = -52.0;

/// How long sounds without pitch count as part of the word around them, in hops.
const UNVOICED_HOPS: u32 = 30;

/// How many inactive hops do not yet end a run of active ones (the closure of a stop consonant).
const GAP_HOPS: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum State {
    /// No speech. `score` rises with each voiced hop and falls with each other one; `voiced_at` is where it left zero.
    Quiet { score: u32, voiced_at: u64 },
    /// Speech that lasts at least until sample `until`.
    Speech { until: u64, since_voiced: u32, quiet: u32 },
}

#[derive(Clone, Debug)]
struct Detector {
    rate: u32,
    config: VadConfig,
    state: State,
    /// Samples before the next hop.
    now: u64,
    level: f32,
    floor: Floor,
    pitch: Pitch,
    /// Where the latest run of active hops began, and how many inactive hops have followed it.
    active_since: u64,
    inactive: u32,
}

impl Detector {
    fn new(rate: u32, config: VadConfig) -> Self {
        Self {
            rate,
            config,
            state: State::Quiet { score: 0, voiced_at: 0 },
            now: 0,
            level: SILENCE_DBFS,
            floor: Floor::new(),
            pitch: Pitch::new(rate),
            active_since: 0,
            inactive: GAP_HOPS,
        }
    }

    fn hop(&mut self, hop: &[i16]) -> Option<VadEvent> {
        let power = energy(hop) as f32 / hop.len() as f32;
        self.level = power_dbfs(power);
        self.floor.listen(power);
        self.pitch.listen(hop);
        let margin = match self.state {
            State::Quiet { .. } => MARGIN,
            State::Speech { .. } => MARGIN_IN_SPEECH,
        };
        let active = self.level > QUIETEST_SPEECH && self.level > self.floor.level() + margin;
        let voiced = active && self.pitch.is_periodic();
        let (start, end) = (self.now, self.now + hop.len() as u64);
        self.now = end;
        self.note_activity(active, start);
        match &mut self.state {
            State::Quiet { score, voiced_at } => {
                if !voiced {
                    *score = score.saturating_sub(1);
                    return None;
                }
                if *score == 0 {
                    *voiced_at = start;
                }
                *score += 1;
                if *score * 10 < self.config.onset_ms {
                    return None;
                }
                let earliest = voiced_at.saturating_sub(u64::from(UNVOICED_HOPS) * hop.len() as u64);
                let at_sample = self.active_since.clamp(earliest, *voiced_at);
                self.state = State::Speech {
                    until: end,
                    since_voiced: 0,
                    quiet: 0,
                };
                Some(VadEvent::Onset { at_sample })
            }
            State::Speech {
                until,
                since_voiced,
                quiet,
            } => {
                *since_voiced = if voiced { 0 } else { *since_voiced + 1 };
                if active && *since_voiced <= UNVOICED_HOPS {
                    *until = end;
                    *quiet = 0;
                    return None;
                }
                *quiet += 1;
                if *quiet * 10 < self.config.hangover_ms {
                    return None;
                }
                let at_sample = *until;
                self.state = State::Quiet {
                    score: 0,
                    voiced_at: end,
                };
                Some(VadEvent::Offset { at_sample })
            }
        }
    }

    fn note_activity(&mut self, active: bool, start: u64) {
        if !active {
            self.inactive = self.inactive.saturating_add(1);
            return;
        }
        if self.inactive >= GAP_HOPS {
            self.active_since = start;
        }
        self.inactive = 0;
    }
}

/// The noise floor: the least smoothed power in a sliding window, kept as the minima of five parts of it.
#[derive(Clone, Debug)]
struct Floor {
    smoothed: f32,
    minima: [f32; Self::PARTS],
    hops: u32,
    level: f32,
}

impl Floor {
    const PARTS: usize = 5;
    const HOPS_OF_PART: u32 = 30;

    /// Before anything was heard: a quiet line.
    const INITIAL_DBFS: f32 = -60.0;

    fn new() -> Self {
        let power = 32768.0 * 32768.0 * 1e-6;
        Self {
            smoothed: power,
            minima: [power; Self::PARTS],
            hops: 0,
            level: Self::INITIAL_DBFS,
        }
    }

    fn listen(&mut self, power: f32) {
        // Below one the level says the same, and a decay towards zero would never get there.
        self.smoothed += 0.3 * (power.max(1.0) - self.smoothed);
        let newest = &mut self.minima[0];
        let fell = self.smoothed < *newest;
        *newest = newest.min(self.smoothed);
        self.hops += 1;
        let turned = self.hops == Self::HOPS_OF_PART;
        if turned {
            self.hops = 0;
            self.minima.rotate_right(1);
            self.minima[0] = self.smoothed;
        }
        if fell || turned {
            self.level = power_dbfs(self.minima.iter().copied().fold(f32::INFINITY, f32::min));
        }
    }

    const fn level(&self) -> f32 {
        self.level
    }
}

/// The last moments at 4 kHz, and whether they repeat themselves.
#[derive(Clone, Debug)]
struct Pitch {
    /// Samples averaged into one.
    factor: usize,
    /// Of the high-pass at about 100 Hz: last input and output.
    high_pass: (f32, f32),
    past: [f32; Self::PAST],
}

impl Pitch {
    /// Samples of a hop.
    const HOP: usize = 40;

    /// Samples compared with those `lag` before them: 20 ms.
    const FRAME: usize = 80;

    /// Lags looked at, the first [`FIRST_PITCH`](Self::FIRST_PITCH) of them for the valley before a peak only.
    const LAGS: usize = 64;
    const FIRST_LAG: usize = 3;
    const LAST_LAG: usize = Self::FIRST_LAG + Self::LAGS - 1;
    const FIRST_PITCH: usize = 10;

    const PAST: usize = Self::FRAME + Self::LAST_LAG;

    /// The least correlation of a voiced sound with itself one period earlier.
    const PEAK: f32 = 0.5;

    /// How far correlation falls between no lag and the period. Noise with a slope in its spectrum has no such valley.
    const VALLEY: f32 = 0.4;

    const fn new(rate: u32) -> Self {
        Self {
            factor: rate as usize / 4000,
            high_pass: (0.0, 0.0),
            past: [0.0; Self::PAST],
        }
    }

    fn listen(&mut self, hop: &[i16]) {
        self.past.copy_within(Self::HOP.., 0);
        let (mut x1, mut y1) = self.high_pass;
        let places = &mut self.past[Self::PAST - Self::HOP..];
        for (place, group) in zip(places, hop.chunks_exact(self.factor)) {
            let x = group.iter().map(|&x| i32::from(x)).sum::<i32>() as f32;
            y1 = x - x1 + 0.85 * y1;
            x1 = x;
            *place = y1;
        }
        // In silence the decay ends here instead of among the slow subnormal numbers.
        self.high_pass = (x1, if y1.abs() < 1e-3 { 0.0 } else { y1 });
    }

    fn is_periodic(&self) -> bool {
        let frame = &self.past[Self::LAST_LAG..];
        // By falling lag, so that consecutive lags lie side by side in memory: entry `i` is lag `LAST_LAG − i`.
        let mut products = [0.0f32; Self::LAGS];
        for (n, &x) in frame.iter().enumerate() {
            for (product, &y) in zip(&mut products, &self.past[n..n + Self::LAGS]) {
                *product += x * y;
            }
        }
        let power = |samples: &[f32]| samples.iter().map(|x| x * x).sum::<f32>();
        let here = power(frame);
        let mut there = power(&self.past[..Self::FRAME]);
        let mut correlations = [0.0; Self::LAGS];
        for (i, correlation) in correlations.iter_mut().enumerate() {
            *correlation = products[i] / (here * there).sqrt().max(1.0);
            let (leaves, enters) = (self.past[i], self.past[i + Self::FRAME]);
            there = (there - leaves * leaves + enters * enters).max(0.0);
        }
        let mut valley = 1.0f32;
        correlations.iter().rev().enumerate().any(|(i, &r)| {
            valley = valley.min(r);
            i + Self::FIRST_LAG >= Self::FIRST_PITCH && r > Self::PEAK && r - valley > Self::VALLEY
        })
    }
}
