//! Cuts what a caller says into utterances, for recognisers that want them whole. Pure.
//!
//! An utterance is what the voice detector took for speech with [`LEAD_IN`] before and [`TAIL`] after it. Shorter speech than
//! [`SHORTEST`] is ignored, and what goes on longer than [`LONGEST`] is cut there and goes on as another.

use crate::audio::vad::{UnsupportedRate, Vad, VadConfig, VadEvent};
use std::time::Duration;

/// Audio kept before the first sound of speech.
const LEAD_IN: Duration = Duration::from_millis(250);

/// Audio kept after its last sound, out of [`HANG_OVER`].
const TAIL: Duration = Duration::from_millis(250);

/// Quiet that ends an utterance.
pub const HANG_OVER: Duration = Duration::from_millis(500);

const SHORTEST: Duration = Duration::from_millis(180);
const LONGEST: Duration = Duration::from_secs(15);

/// The detector tells of a beginning at most this long after it: its look back and its own onset time.
const HINDSIGHT: Duration = Duration::from_millis(700);

/// Speech to be recognised as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// Position of its first sample.
    pub from: u64,
    /// Position after its last.
    pub to: u64,
    /// The samples.
    pub samples: Vec<i16>,
}

/// What was found in a stretch of audio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Speech began. What is too short to be an utterance begins too.
    Onset,
    /// An utterance is over.
    Utterance(Utterance),
}

/// The cutter of one stream.
#[derive(Debug)]
pub struct Segmenter {
    rate: u32,
    vad: Vad,
    /// Position of the detector's first sample.
    origin: u64,
    /// The samples from `start` on that may still be needed.
    samples: Vec<i16>,
    start: u64,
    /// Where the present speech began, its lead-in included.
    from: Option<u64>,
}

impl Segmenter {
    /// A cutter of a stream at `rate` Hz whose first sample has this position.
    pub fn new(rate: u32, position: u64) -> Result<Self, UnsupportedRate> {
        let config = VadConfig {
            hangover_ms: HANG_OVER.as_millis() as u32,
            ..VadConfig::default()
        };
        Ok(Self {
            rate,
            vad: Vad::new(rate, config)?,
            origin: position,
            samples: Vec::new(),
            start: position,
            from: None,
        })
    }

    /// Position of the next sample.
    pub fn position(&self) -> u64 {
        self.start + self.samples.len() as u64
    }

    /// Position before which nothing is needed any more.
    pub fn needed_from(&self) -> u64 {
        self.from
            .unwrap_or_else(|| self.position().saturating_sub(self.long(HINDSIGHT)))
            .max(self.start)
    }

    fn long(&self, d: Duration) -> u64 {
        d.as_millis() as u64 * u64::from(self.rate) / 1000
    }

    /// Takes the next samples and hands over what is found in them.
    pub fn push(&mut self, samples: &[i16], mut found: impl FnMut(Found)) {
        self.samples.extend_from_slice(samples);
        let (mut events, mut n) = ([None; 4], 0);
        self.vad.process(samples, |event| {
            if let Some(slot) = events.get_mut(n) {
                *slot = Some(event);
                n += 1;
            }
        });
        for event in events.into_iter().flatten() {
            match event {
                VadEvent::Onset { at_sample } => {
                    let at = self.origin + at_sample;
                    self.from = Some(at.saturating_sub(self.long(LEAD_IN)).max(self.start));
                    found(Found::Onset);
                }
                VadEvent::Offset { at_sample } => {
                    self.cut(self.origin + at_sample, &mut found);
                    self.from = None;
                }
            }
        }
        if self
            .from
            .is_some_and(|from| self.position() - from >= self.long(LONGEST))
        {
            let to = self.position();
            self.cut(to, &mut found);
            self.from = Some(to);
        }
        self.forget();
    }

    /// The stream is over: what is left of it.
    pub fn finish(&mut self, mut found: impl FnMut(Found)) {
        self.cut(self.position(), &mut found);
    }

    /// Hands over the present speech, whose last sound ends at `end`.
    fn cut(&mut self, end: u64, found: &mut impl FnMut(Found)) {
        let Some(from) = self.from.take() else { return };
        let spoken = end.saturating_sub(from).saturating_sub(self.long(LEAD_IN));
        if spoken < self.long(SHORTEST) {
            return;
        }
        let to = (end + self.long(TAIL)).min(self.position());
        let samples = self.samples[(from - self.start) as usize..(to - self.start) as usize].to_vec();
        found(Found::Utterance(Utterance { from, to, samples }));
    }

    /// Lets go of what is not needed, now and then rather than each time.
    fn forget(&mut self) {
        let n = (self.needed_from() - self.start) as usize;
        if n > self.rate as usize / 2 {
            self.samples.drain(..n);
            self.start += n as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;

    const RATE: u32 = 8000;

    fn quiet(ms: usize) -> Vec<i16> {
        vec![0; ms * 8]
    }

    /// A buzz of many harmonics, as voices are.
    fn voice(ms: usize) -> Vec<i16> {
        let mut sum = vec![0i16; ms * 8];
        for harmonic in 1..=12 {
            let mut tone = vec![0; ms * 8];
            Sine::new(RATE, 130.0 * f64::from(harmonic), 800.0).fill(&mut tone);
            sum.iter_mut().zip(tone).for_each(|(s, t)| *s += t);
        }
        sum
    }

    fn cut(audio: &[i16], chunk: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut segmenter = Segmenter::new(RATE, 0).unwrap();
        for chunk in audio.chunks(chunk) {
            segmenter.push(chunk, |f| found.push(f));
            assert!(segmenter.samples.len() < 16 * 8000, "bounded");
        }
        segmenter.finish(|f| found.push(f));
        found
    }

    #[test]
    fn an_utterance_has_its_lead_in_and_its_tail() {
        let audio = [quiet(1000), voice(800), quiet(1000), voice(400), quiet(700)].concat();
        for chunk in [37, 160, 20_000] {
            let found = cut(&audio, chunk);
            let [Found::Onset, Found::Utterance(a), Found::Onset, Found::Utterance(b)] = &found[..] else {
                panic!("{} things found", found.len())
            };
            for (u, from, to) in [(a, 1000, 1800), (b, 2800, 3200)] {
                let near = |at: u64, ms: u64| at.abs_diff(ms * 8) <= 40 * 8;
                assert!(
                    near(u.from, from - 250) && near(u.to, to + 250),
                    "{} to {}",
                    u.from / 8,
                    u.to / 8
                );
                assert_eq!(u.samples, audio[u.from as usize..u.to as usize]);
            }
        }
    }

    #[test]
    fn speech_without_end_is_cut_and_nothing_of_it_lost() {
        let mut audio = quiet(500);
        for n in 0..80 {
            audio.extend(voice(400 + n % 7));
            audio.extend(quiet(100));
        }
        let utterances: Vec<_> = cut(&audio, 160)
            .into_iter()
            .filter_map(|f| match f {
                Found::Utterance(u) => Some(u),
                Found::Onset => None,
            })
            .collect();
        assert!(utterances.len() >= 3, "{}", utterances.len());
        for pair in utterances.windows(2) {
            assert_eq!(pair[0].to, pair[1].from);
        }
    }

    #[test]
    fn speech_that_the_end_of_the_call_cuts_off_counts() {
        let audio = [quiet(500), voice(500)].concat();
        assert!(matches!(&cut(&audio, 160)[..], [Found::Onset, Found::Utterance(u)] if u.to == audio.len() as u64));
    }

    #[test]
    fn silence_is_nothing() {
        assert_eq!(cut(&quiet(5000), 160), []);
    }
}
