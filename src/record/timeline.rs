//! Both sides of a call on one clock: runs of samples are placed where they belong, and frames come out in order. No I/O, no clock.
//!
//! Frames are held back for [`HOLD`] samples, so that a side that comes a little later still finds its place.

use super::Side;
use crate::base::time::Mono;
use std::collections::VecDeque;

/// Samples a second on the recording's clock.
pub(super) const RATE: u64 = 8000;
/// How far behind the newest audio of the caller frames are given out.
pub(super) const HOLD: u64 = RATE * 3 / 10;
/// A caller who is silent on the line for longer than this no longer holds the clock.
const STALL: u64 = RATE * 3;
/// The most that is kept of either side. A run further ahead pushes the clock on.
const WINDOW: u64 = RATE * 10;

/// Where the recording's clock stands: at the newest audio of the caller, which arrives as it is spoken (what is sent to the
/// caller runs ahead). While the caller's audio stops, real time moves it.
#[derive(Debug)]
struct Clock {
    position: u64,
    at: Mono,
}

impl Clock {
    fn now(&self, now: Mono) -> u64 {
        let elapsed = now.since(self.at).as_millis() as u64 * RATE / 1000;
        self.position.saturating_add(elapsed.saturating_sub(STALL))
    }
}

/// The two sides.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Position of the first frame not given out yet.
    base: u64,
    caller: VecDeque<i16>,
    agent: VecDeque<i16>,
    clock: Option<Clock>,
    /// Frames at or above this are not recorded.
    limit: u64,
    late: u64,
    over: u64,
}

/// Frames on their way to the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Position of the first.
    pub(super) at: u64,
    /// Position after the last; frames between the bytes' end and here are silence.
    pub(super) end: u64,
}

impl Timeline {
    pub(super) const fn new(limit: u64) -> Self {
        Self {
            base: 0,
            caller: VecDeque::new(),
            agent: VecDeque::new(),
            clock: None,
            limit,
            late: 0,
            over: 0,
        }
    }

    /// Places a run of one side that begins at `at`; of what overlaps, the later run holds. What lies before the frames given out
    /// is late, what lies above the limit is over. Frames that a far jump pushes out are appended to `out`.
    pub(super) fn place(
        &mut self,
        side: Side,
        at: u64,
        samples: &[i16],
        now: Mono,
        out: &mut Vec<u8>,
    ) -> Option<Taken> {
        let fits = self.limit.saturating_sub(at).min(samples.len() as u64) as usize;
        self.over += (samples.len() - fits) as u64;
        if fits == 0 {
            return None;
        }
        let end = at + fits as u64;
        let clock = self.clock.get_or_insert(Clock { position: 0, at: now });
        if side == Side::Caller && end > clock.position {
            *clock = Clock { position: end, at: now };
        }
        let pushed = (end > self.base.saturating_add(WINDOW))
            .then(|| self.take(end - WINDOW, out))
            .flatten();
        let late = (self.base.saturating_sub(at) as usize).min(fits);
        self.late += late as u64;
        let samples = &samples[late..fits];
        let ring = match side {
            Side::Caller => &mut self.caller,
            Side::Agent => &mut self.agent,
        };
        let from = at.saturating_sub(self.base) as usize;
        if samples.is_empty() {
            return pushed;
        }
        if ring.len() < from + samples.len() {
            ring.resize(from + samples.len(), 0);
        }
        ring.range_mut(from..from + samples.len())
            .zip(samples)
            .for_each(|(place, s)| *place = *s);
        pushed
    }

    /// Gives out the frames that nothing more is expected for, interleaved little-endian, caller first.
    pub(super) fn ready(&mut self, now: Mono, out: &mut Vec<u8>) -> Option<Taken> {
        let clock = self.clock.as_ref()?;
        let to = clock.now(now).saturating_sub(HOLD).min(self.limit);
        self.take(to, out)
    }

    /// Gives out everything.
    pub(super) fn rest(&mut self, out: &mut Vec<u8>) -> Option<Taken> {
        let held = self.caller.len().max(self.agent.len()) as u64;
        self.take(self.base + held, out)
    }

    fn take(&mut self, to: u64, out: &mut Vec<u8>) -> Option<Taken> {
        let n = to.checked_sub(self.base).filter(|n| *n > 0)?;
        let held = self.caller.len().max(self.agent.len()).min(n as usize);
        out.reserve(held * 4);
        for _ in 0..held {
            for side in [&mut self.caller, &mut self.agent] {
                out.extend_from_slice(&side.pop_front().unwrap_or_default().to_le_bytes());
            }
        }
        let at = std::mem::replace(&mut self.base, to);
        Some(Taken { at, end: to })
    }

    /// Samples that came too late and samples beyond the limit since the last call.
    pub(super) fn take_lost(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.late), std::mem::take(&mut self.over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(bytes: &[u8]) -> Vec<(i16, i16)> {
        bytes
            .chunks_exact(4)
            .map(|b| (i16::from_le_bytes([b[0], b[1]]), i16::from_le_bytes([b[2], b[3]])))
            .collect()
    }

    #[test]
    fn sides_meet_at_their_positions_with_silence_between() {
        let (mut t, mut out) = (Timeline::new(u64::MAX), Vec::new());
        t.place(Side::Agent, 3, &[7, 8], Mono::ZERO, &mut out);
        t.place(Side::Caller, 1, &[1, 2, 3], Mono::ZERO, &mut out);
        assert_eq!(t.ready(Mono::ZERO, &mut out), None);
        assert_eq!(t.rest(&mut out), Some(Taken { at: 0, end: 5 }));
        assert_eq!(frames(&out), [(0, 0), (1, 0), (2, 0), (3, 7), (0, 8)]);
    }

    #[test]
    fn frames_wait_for_the_other_side_and_then_it_is_late() {
        let (mut t, mut out) = (Timeline::new(u64::MAX), Vec::new());
        let second = [1; RATE as usize];
        t.place(Side::Caller, 0, &second, Mono::ZERO, &mut out);
        assert_eq!(
            t.ready(Mono::ZERO, &mut out),
            Some(Taken {
                at: 0,
                end: RATE - HOLD
            })
        );
        t.place(Side::Agent, RATE - HOLD - 2, &[5, 6, 7], Mono::ZERO, &mut out);
        assert_eq!(t.take_lost(), (2, 0));
        out.clear();
        t.rest(&mut out);
        assert_eq!(frames(&out)[..2], [(1, 7), (1, 0)]);
    }

    #[test]
    fn audio_ahead_of_the_caller_waits_for_its_time() {
        let (mut t, mut out) = (Timeline::new(u64::MAX), Vec::new());
        t.place(Side::Agent, RATE, &[9; 4000], Mono::ZERO, &mut out);
        t.place(Side::Caller, 0, &[1; 160], Mono::ZERO, &mut out);
        assert_eq!(t.ready(Mono::ZERO, &mut out), None);
        assert_eq!(t.take_lost(), (0, 0));
    }

    #[test]
    fn real_time_moves_the_clock_once_the_caller_has_stopped() {
        let (mut t, mut out) = (Timeline::new(u64::MAX), Vec::new());
        t.place(Side::Caller, 0, &[1; RATE as usize], Mono::ZERO, &mut out);
        let later = t.ready(Mono::from_millis(5000), &mut out).unwrap();
        assert_eq!(later.end, RATE + 2 * RATE - HOLD);
        assert_eq!(frames(&out).len() as u64, RATE, "silence is not spelled out");
        assert!(t.caller.is_empty());
    }

    #[test]
    fn nothing_is_kept_beyond_the_window_or_the_limit() {
        let (mut t, mut out) = (Timeline::new(RATE * 3600), Vec::new());
        for n in 0..100 {
            t.place(Side::Agent, n * RATE * 20, &[3; 160], Mono::ZERO, &mut out);
            assert!(t.agent.len() as u64 <= WINDOW);
        }
        assert_eq!(t.take_lost(), (0, 0));
        assert_eq!(
            t.place(Side::Caller, RATE * 3600 - 1, &[1, 2], Mono::ZERO, &mut out)
                .unwrap()
                .end,
            RATE * 3590
        );
        assert_eq!(t.place(Side::Caller, u64::MAX, &[1, 2], Mono::ZERO, &mut out), None);
        assert_eq!(t.take_lost(), (0, 3));
    }

    proptest! {
        /// Against a plain array per side: every sample is where it was placed, or counted as late.
        #[test]
        fn every_sample_is_in_its_place_or_counted(
            runs in prop::collection::vec((any::<bool>(), 0u64..9000, 1usize..400, 0u64..400), 1..80)
        ) {
            let (mut t, mut bytes) = (Timeline::new(u64::MAX), Vec::new());
            let mut model = [vec![0i16; 1 << 20], vec![0i16; 1 << 20]];
            let (mut now, mut next, mut late, mut at) = (0, [0u64; 2], 0, 0u64);
            let mut file: Vec<u8> = Vec::new();
            let mut write = |taken: Option<Taken>, bytes: &mut Vec<u8>| if let Some(taken) = taken {
                assert_eq!(taken.at, at);
                bytes.resize((taken.end - taken.at) as usize * 4, 0);
                file.append(bytes);
                at = taken.end;
            };
            for (caller, gap, n, ms) in runs {
                let side = if caller { Side::Caller } else { Side::Agent };
                let which = usize::from(!caller);
                // Runs of a side may overlap what came before, and the later one holds.
                let from = (next[which] + gap).saturating_sub(300);
                next[which] = from + n as u64;
                let samples: Vec<i16> = (0..n).map(|i| (from as i16).wrapping_add(i as i16) | 1).collect();
                let base = t.base;
                write(t.place(side, from, &samples, Mono::from_millis(now), &mut bytes), &mut bytes);
                let skip = (base.saturating_sub(from) as usize).min(n);
                late += skip as u64;
                model[which][from as usize + skip..from as usize + n].copy_from_slice(&samples[skip..]);
                now += ms;
                write(t.ready(Mono::from_millis(now), &mut bytes), &mut bytes);
            }
            write(t.rest(&mut bytes), &mut bytes);
            prop_assert_eq!(t.take_lost(), (late, 0));
            for (n, (l, r)) in frames(&file).into_iter().enumerate() {
                prop_assert_eq!((l, r), (model[0][n], model[1][n]), "frame {}", n);
            }
            let end = next.iter().max().copied().unwrap_or(0);
            prop_assert!(file.len() as u64 / 4 >= end.min(t.base));
        }
    }
}
