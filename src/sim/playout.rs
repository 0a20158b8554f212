//! What a caller hears, without I/O: a vendor's playout queue on a virtual clock.
//!
//! Audio plays at real time in the order it came, after a short jitter buffer whenever playing starts anew. A mark comes back when all
//! audio before it was played, at once when none is queued; a clear drops the queue and brings every mark back. The whole time line,
//! silence included, is kept as encoded bytes.

use crate::{
    audio::codec,
    base::{
        format::{AudioFormat, Encoding},
        time::Mono,
    },
};
use std::{collections::VecDeque, time::Duration};

/// Audio held back when playing starts, as vendors do against jitter.
pub const JITTER_BUFFER: Duration = Duration::from_millis(40);

/// A break in what was heard: the queue ran dry where no mark stood, and audio came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// When, in ms since the stream began.
    pub at_ms: u64,
    /// For how long.
    pub ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to play.
    Idle,
    /// Audio waits in the jitter buffer; plays from this sample of the time line.
    Filling(u64),
    /// Audio plays.
    Playing,
}

/// The playout queue of one simulated call. Positions are in samples.
#[derive(Debug)]
pub struct Playout {
    format: AudioFormat,
    start: Mono,
    state: State,
    queue: VecDeque<u8>,
    /// Samples ever queued.
    queued: u64,
    /// How many of [`Self::queued`] there are up to the last sound among them.
    sound_queued: u64,
    /// Marks that wait for this many samples of [`Self::queued`] to be over.
    marks: VecDeque<(u64, String)>,
    returned: VecDeque<String>,
    heard: Vec<u8>,
    /// Scratch.
    pcm: Vec<i16>,
    /// Where the queue ran dry in the middle of something.
    dry_at: Option<u64>,
    /// The position of the last mark that came back.
    marked: u64,
    gaps: Vec<Gap>,
    audible_until: Option<u64>,
}

impl Playout {
    /// A queue whose time line begins at `start`.
    pub fn new(format: AudioFormat, start: Mono) -> Self {
        Self {
            format,
            start,
            state: State::Idle,
            queue: VecDeque::new(),
            queued: 0,
            sound_queued: 0,
            marks: VecDeque::new(),
            returned: VecDeque::new(),
            heard: Vec::new(),
            pcm: Vec::new(),
            dry_at: None,
            marked: 0,
            gaps: Vec::new(),
            audible_until: None,
        }
    }

    /// Plays up to `now`. Call before every other method that takes no time of its own.
    pub fn advance(&mut self, now: Mono) {
        let target = self.samples(now.since(self.start));
        while self.clock() < target {
            match self.state {
                State::Idle => self.silence(target),
                State::Filling(from) if self.clock() < from => self.silence(from.min(target)),
                State::Filling(_) => self.state = State::Playing,
                State::Playing => self.play(target),
            }
            self.return_marks();
        }
    }

    /// Audio arrived.
    pub fn push(&mut self, audio: &[u8]) {
        let bytes = audio.len() - audio.len() % self.format.encoding.sample_bytes();
        if bytes == 0 {
            return;
        }
        if self.state == State::Idle {
            let from = self.clock() + self.samples(JITTER_BUFFER);
            if let Some(dry) = self.dry_at.take() {
                self.gaps.push(Gap {
                    at_ms: self.millis(dry),
                    ms: self.millis(from - dry),
                });
            }
            self.state = State::Filling(from);
        }
        if let Some(last) = last_sound(self.format.encoding, &audio[..bytes], &mut self.pcm) {
            self.sound_queued = self.queued + (last / self.format.encoding.sample_bytes()) as u64;
        }
        self.queue.extend(&audio[..bytes]);
        self.queued += (bytes / self.format.encoding.sample_bytes()) as u64;
    }

    /// A mark arrived.
    pub fn mark(&mut self, name: &str) {
        self.marks.push_back((self.queued, name.to_owned()));
        self.return_marks();
    }

    /// A clear arrived. Returns how much audio it dropped, in ms.
    pub fn clear(&mut self) -> u64 {
        let dropped = self.waiting();
        self.queue.clear();
        self.state = State::Idle;
        self.dry_at = None;
        self.return_marks();
        self.millis(dropped)
    }

    /// The next mark that has come back.
    pub fn pop_mark(&mut self) -> Option<String> {
        self.returned.pop_front()
    }

    /// When the next mark is due.
    pub fn next_mark(&self) -> Option<Mono> {
        let (position, _) = self.marks.front()?;
        let begin = match self.state {
            State::Filling(from) => from.max(self.clock()),
            _ => self.clock(),
        };
        let left = position.saturating_sub(self.queued - self.waiting());
        Some(self.start + self.duration(begin + left))
    }

    /// Whether nothing is queued.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is sound in the queue; silence alone does not count.
    pub fn has_sound(&self) -> bool {
        self.sound_queued > self.queued - self.waiting()
    }

    /// When sound was last heard, in ms of the time line.
    pub fn last_sound_ms(&self) -> Option<u64> {
        self.audible_until.map(|s| self.millis(s))
    }

    /// The breaks so far.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The time line so far, encoded.
    pub fn heard(&self) -> &[u8] {
        &self.heard
    }

    fn play(&mut self, target: u64) {
        let width = self.format.encoding.sample_bytes();
        let mut n = (target - self.clock()).min(self.waiting());
        // Stop at the next mark, so that it comes back before what follows is played.
        if let Some((position, _)) = self.marks.front() {
            n = n.min(position - (self.queued - self.waiting()));
        }
        let begin = self.heard.len();
        self.heard.extend(self.queue.drain(..n as usize * width));
        if let Some(last) = last_sound(self.format.encoding, &self.heard[begin..], &mut self.pcm) {
            self.audible_until = Some(((begin + last) / width) as u64);
        }
        if self.queue.is_empty() {
            self.state = State::Idle;
            let at_mark = self.marks.front().is_some_and(|(p, _)| *p == self.queued) || self.marked == self.queued;
            self.dry_at = (!at_mark).then(|| self.clock());
        }
    }

    fn silence(&mut self, until: u64) {
        let width = self.format.encoding.sample_bytes();
        self.heard
            .resize(until as usize * width, codec::silence(self.format.encoding));
    }

    fn return_marks(&mut self) {
        let over = self.queued - self.waiting();
        while self.marks.front().is_some_and(|(position, _)| *position <= over) {
            if let Some((position, name)) = self.marks.pop_front() {
                self.marked = position;
                if self.queue.is_empty() {
                    self.dry_at = None;
                }
                self.returned.push_back(name);
            }
        }
    }

    fn clock(&self) -> u64 {
        (self.heard.len() / self.format.encoding.sample_bytes()) as u64
    }

    fn waiting(&self) -> u64 {
        (self.queue.len() / self.format.encoding.sample_bytes()) as u64
    }

    fn samples(&self, d: Duration) -> u64 {
        (d.as_nanos() * u128::from(self.format.rate) / 1_000_000_000) as u64
    }

    fn duration(&self, samples: u64) -> Duration {
        Duration::from_nanos((u128::from(samples) * 1_000_000_000).div_ceil(u128::from(self.format.rate)) as u64)
    }

    fn millis(&self, samples: u64) -> u64 {
        samples * 1000 / u64::from(self.format.rate)
    }
}

/// The byte just after the last sample that is clearly not silence (about −48 dBFS and more). `pcm` is scratch.
fn last_sound(encoding: Encoding, audio: &[u8], pcm: &mut Vec<i16>) -> Option<usize> {
    let width = encoding.sample_bytes();
    pcm.resize(audio.len() / width, 0);
    codec::decode(encoding, audio, pcm).ok()?;
    pcm.iter()
        .rposition(|s| s.unsigned_abs() >= 128)
        .map(|i| (i + 1) * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 160] = [0x20; 160];

    fn ms(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    fn playout() -> Playout {
        Playout::new(AudioFormat::ULAW_8K, Mono::ZERO)
    }

    #[test]
    fn audio_plays_at_real_time_after_the_jitter_buffer() {
        let mut p = playout();
        p.advance(ms(100));
        p.push(&FRAME);
        p.push(&[0xFF; 80]);
        assert!(p.has_sound());
        p.advance(ms(150));
        let heard = p.heard();
        assert_eq!(heard.len(), 150 * 8);
        assert!(heard[..140 * 8].iter().all(|b| *b == 0xFF));
        assert!(heard[140 * 8..].iter().all(|b| *b == 0x20));
        p.advance(ms(200));
        assert_eq!(p.heard()[160 * 8 - 1], 0x20);
        assert_eq!(p.heard()[160 * 8], 0xFF);
        assert_eq!((p.last_sound_ms(), p.has_sound()), (Some(160), false));
    }

    #[test]
    fn a_mark_comes_back_when_the_audio_before_it_was_played() {
        let mut p = playout();
        p.push(&FRAME);
        p.mark("one");
        p.push(&FRAME);
        p.mark("two");
        assert_eq!(p.next_mark(), Some(ms(60)));
        p.advance(ms(59));
        assert_eq!(p.pop_mark(), None);
        p.advance(ms(60));
        assert_eq!(p.pop_mark().as_deref(), Some("one"));
        assert_eq!(p.pop_mark(), None);
        assert_eq!(p.next_mark(), Some(ms(80)));
        p.advance(ms(500));
        assert_eq!(p.pop_mark().as_deref(), Some("two"));
    }

    #[test]
    fn a_mark_with_nothing_before_it_comes_back_at_once() {
        let mut p = playout();
        p.mark("now");
        assert_eq!(p.pop_mark().as_deref(), Some("now"));
    }

    #[test]
    fn a_clear_drops_what_was_not_played_and_returns_every_mark() {
        let mut p = playout();
        for _ in 0..10 {
            p.push(&FRAME);
        }
        p.mark("a");
        p.mark("b");
        p.advance(ms(90));
        assert_eq!(p.clear(), 150);
        assert_eq!(p.pop_mark().as_deref(), Some("a"));
        assert_eq!(p.pop_mark().as_deref(), Some("b"));
        p.advance(ms(400));
        assert!(p.heard()[90 * 8..].iter().all(|b| *b == 0xFF));
        assert_eq!(p.gaps(), []);
    }

    #[test]
    fn running_dry_in_the_middle_is_a_gap_and_at_a_mark_is_not() {
        let mut p = playout();
        p.push(&FRAME);
        p.advance(ms(100));
        p.push(&FRAME);
        p.mark("end");
        p.advance(ms(300));
        p.push(&FRAME);
        p.advance(ms(400));
        assert_eq!(p.gaps(), [Gap { at_ms: 60, ms: 80 }]);
    }

    #[test]
    fn steady_frames_with_jitter_leave_no_gap() {
        let mut p = playout();
        for i in 0..100 {
            let jitter = [0, 7, 13, 2, 31][i % 5];
            p.advance(ms(i as u64 * 20 + jitter));
            p.push(&FRAME);
        }
        p.advance(ms(2015));
        assert_eq!(p.gaps(), []);
        assert_eq!(p.heard().iter().filter(|b| **b == 0x20).count(), (2015 - 40) * 8);
    }

    #[test]
    fn quiet_codes_are_silence_in_every_encoding() {
        let last = |encoding, audio: &[u8]| last_sound(encoding, audio, &mut Vec::new());
        assert_eq!(last(Encoding::Ulaw, &[0x20, 0xFF, 0x7E, 0xFE]), Some(1));
        assert_eq!(last(Encoding::Alaw, &[0xD5, 0x55, 0xD4]), None);
        assert_eq!(last(Encoding::L16Le, &[0, 1, 5, 0]), Some(2));
        assert_eq!(last(Encoding::L16Be, &[0, 1, 1, 0]), Some(4));
    }
}
