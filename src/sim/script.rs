//! What a simulated caller says, without I/O: a recording cut into frames, and when to go on where the caller waits for answers.

use super::coder::Coder;
use crate::base::format::AudioFormat;
use std::ops::Range;

/// Silence inside speech that does not end it.
const BREATH_MS: u64 = 400;
/// How long the far end must be quiet before a polite caller goes on.
const QUIET_MS: u64 = 700;
/// How long a polite caller waits for an answer.
const PATIENCE_MS: u64 = 4000;

/// How a caller treats the pauses of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As recorded, whatever the far end does.
    AsRecorded,
    /// Before each stretch of speech, and after the last, waits until the far end has answered and fallen quiet.
    Polite,
}

/// What the caller knows of the far end, on the caller's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FarEnd {
    /// When sound was last heard, in ms.
    pub last_sound_ms: Option<u64>,
    /// Whether more sound is queued.
    pub playing: bool,
}

/// A recording on its way.
#[derive(Debug)]
pub struct Script {
    manner: Manner,
    /// Length of a frame in ms.
    frame_ms: u64,
    frames: Vec<Vec<u8>>,
    silent_frame: Vec<u8>,
    /// Stretches of speech, in frames.
    speech: Vec<Range<usize>>,
    /// The next frame of the recording.
    at: usize,
    /// The next stretch of speech.
    stretch: usize,
    /// Frames given out: the caller's clock.
    given: u64,
    /// Since when the caller waits for the far end, in ms.
    waiting_since: Option<u64>,
}

/// One frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Encoded audio.
    pub audio: &'a [u8],
    /// The stretch of speech that begins with this frame.
    pub begins: Option<usize>,
    /// The stretch of speech that ends with this frame.
    pub ends: Option<usize>,
}

impl Script {
    /// Cuts `samples` (at the format's rate) into frames of `frame_ms`. `None` for a format that cannot be written.
    pub fn new(samples: &[i16], format: AudioFormat, frame_ms: u32, manner: Manner) -> Option<Self> {
        let per_frame = format.samples_of_ms(frame_ms);
        let mut coder = Coder::new(format)?;
        let whole = |frame: &[i16]| [frame, &vec![0; per_frame - frame.len()]].concat();
        let frames = samples.chunks(per_frame).map(|f| coder.frame(&whole(f))).collect();
        let loud: Vec<bool> = samples.chunks(per_frame).map(is_loud).collect();
        Some(Self {
            manner,
            frame_ms: u64::from(frame_ms),
            frames,
            silent_frame: coder.frame(&vec![0; per_frame]),
            speech: stretches(&loud, u64::from(frame_ms)),
            at: 0,
            stretch: 0,
            given: 0,
            waiting_since: (manner == Manner::Polite).then_some(0),
        })
    }

    /// The next frame. Call once every frame's length.
    pub fn next(&mut self, far: FarEnd) -> Frame<'_> {
        let now = self.now_ms();
        self.given += 1;
        if self.waiting_since.is_some_and(|since| !goes_on(since, now, far)) {
            return self.silence();
        }
        if self.waiting_since.take().is_some()
            && let Some(next) = self.speech.get(self.stretch)
        {
            self.at = next.start;
        }
        let Some(audio) = self.frames.get(self.at) else {
            return self.silence();
        };
        self.at += 1;
        let mut frame = Frame {
            audio,
            begins: None,
            ends: None,
        };
        if let Some(current) = self.speech.get(self.stretch) {
            frame.begins = (current.start + 1 == self.at).then_some(self.stretch);
            if current.end == self.at {
                frame.ends = Some(self.stretch);
                self.stretch += 1;
                if self.manner == Manner::Polite {
                    self.waiting_since = Some(self.now_ms());
                    if self.stretch == self.speech.len() {
                        self.at = self.frames.len();
                    }
                }
            }
        }
        frame
    }

    /// Whether everything was said, and answered where the caller waits for it.
    pub fn is_over(&self) -> bool {
        self.at >= self.frames.len() && self.waiting_since.is_none()
    }

    /// Stretches of speech in the recording.
    pub fn stretches(&self) -> usize {
        self.speech.len()
    }

    /// Length of the recording in ms, and how much of it was sent.
    pub fn progress_ms(&self) -> (u64, u64) {
        (self.at as u64 * self.frame_ms, self.frames.len() as u64 * self.frame_ms)
    }

    fn now_ms(&self) -> u64 {
        self.given * self.frame_ms
    }

    fn silence(&self) -> Frame<'_> {
        Frame {
            audio: &self.silent_frame,
            begins: None,
            ends: None,
        }
    }
}

fn goes_on(since: u64, now: u64, far: FarEnd) -> bool {
    if far.playing {
        return false;
    }
    match far.last_sound_ms {
        Some(at) if at > since => now >= at + QUIET_MS,
        _ => now >= since + PATIENCE_MS,
    }
}

/// Louder than about −46 dBFS on average.
fn is_loud(frame: &[i16]) -> bool {
    let energy: u64 = frame.iter().map(|s| u64::from(s.unsigned_abs()).pow(2)).sum();
    energy > frame.len() as u64 * 160 * 160
}

/// Runs of loud frames, those a breath apart joined.
fn stretches(loud: &[bool], frame_ms: u64) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in (0..loud.len()).filter(|i| loud[*i]) {
        match found.last_mut() {
            Some(last) if ((at - last.end) as u64) < (BREATH_MS / frame_ms).max(1) => last.end = at + 1,
            _ => found.push(at..at + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::codec;

    const FORMAT: AudioFormat = AudioFormat::ULAW_8K;
    const FRAME_MS: u64 = 20;

    /// `ms` of loud or silent samples.
    fn audio(parts: &[(u64, bool)]) -> Vec<i16> {
        parts
            .iter()
            .flat_map(|(ms, loud)| (0..ms * 8).map(move |i| if *loud { 3000 - (i as i16 % 7) * 1000 } else { 0 }))
            .collect()
    }

    #[test]
    fn a_recording_is_sent_as_it_is_and_then_silence() {
        let samples = audio(&[(100, false), (210, true)]);
        let mut script = Script::new(&samples, FORMAT, FRAME_MS as u32, Manner::AsRecorded).unwrap();
        let mut sent = Vec::new();
        while !script.is_over() {
            sent.extend_from_slice(script.next(FarEnd::default()).audio);
        }
        let mut expected = vec![0; samples.len()];
        codec::encode(FORMAT.encoding, &samples, &mut expected);
        assert_eq!(sent.len(), 320 * 8);
        assert_eq!(sent[..expected.len()], expected);
        assert!(script.next(FarEnd::default()).audio.iter().all(|b| *b == 0xFF));
    }

    #[test]
    fn stretches_are_told_where_they_begin_and_end() {
        let samples = audio(&[
            (40, false),
            (100, true),
            (300, false),
            (60, true),
            (500, false),
            (40, true),
            (20, false),
        ]);
        let mut script = Script::new(&samples, FORMAT, FRAME_MS as u32, Manner::AsRecorded).unwrap();
        assert_eq!(script.stretches(), 2);
        let mut seen = Vec::new();
        for n in 0..60 {
            let frame = script.next(FarEnd::default());
            seen.extend(frame.begins.map(|s| (n, "begins", s)));
            seen.extend(frame.ends.map(|s| (n, "ends", s)));
        }
        assert_eq!(
            seen,
            [(2, "begins", 0), (24, "ends", 0), (50, "begins", 1), (51, "ends", 1)]
        );
    }

    #[test]
    fn a_polite_caller_speaks_when_the_far_end_has_finished() {
        let samples = audio(&[(100, true), (600, false), (100, true)]);
        let mut script = Script::new(&samples, FORMAT, FRAME_MS as u32, Manner::Polite).unwrap();
        let mut began = Vec::new();
        for n in 0..400 {
            let now = n * FRAME_MS;
            // A greeting until 1000 ms, an answer from 2500 to 3000 ms.
            let last = match now {
                0..100 => None,
                100..1000 => Some(now),
                1000..2500 => Some(1000),
                2500..3000 => Some(now),
                _ => Some(3000),
            };
            let playing = (100..1000).contains(&now) || (2500..3000).contains(&now);
            let far = FarEnd {
                last_sound_ms: last,
                playing,
            };
            if script.next(far).begins.is_some() {
                began.push(now);
            }
        }
        assert_eq!(began, [1700, 3700]);
    }

    #[test]
    fn patience_ends_where_nobody_answers() {
        let mut script = Script::new(&audio(&[(100, true)]), FORMAT, FRAME_MS as u32, Manner::Polite).unwrap();
        let began = (0..400).find(|_| script.next(FarEnd::default()).begins.is_some());
        assert_eq!(began.map(|n| n * FRAME_MS), Some(PATIENCE_MS));
        assert!(!script.is_over());
        while !script.is_over() {
            script.next(FarEnd::default());
        }
        assert!(script.now_ms() >= 2 * PATIENCE_MS + 100);
    }
}
