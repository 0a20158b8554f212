//! What goes wrong between a vendor and us, on request and without I/O: messages late, in lumps, out of order, twice, or not at all.
//!
//! The same faults at the same places on every run: what is random follows from a fixed seed.

use crate::base::{settings::parse_duration, time::Mono};
use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

/// One message in so many is out of order, or comes twice.
const EVERY: u64 = 25;
/// Messages that come in one lump.
const LUMP: usize = 10;
/// When the line stalls, in time since the stream began.
const STALL_AT: Duration = Duration::from_secs(1);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stream ends without its last message.
    DropStop,
    /// Some messages overtake the one before.
    Reorder,
    /// Some messages, and every webhook, come twice.
    Duplicate,
    /// Every message is late by up to this long.
    Jitter(Duration),
    /// Messages come in lumps of ten.
    Burst,
    /// For so long nothing passes, either way, once.
    Stall(Duration),
    /// The first audio claims another rate than the stream's.
    WrongRate,
}

/// The text names no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFault;

impl fmt::Display for NoFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("known are drop-stop, reorder, duplicate, jitter=80ms, burst, stall=500ms and wrong-rate")
    }
}

impl std::error::Error for NoFault {}

impl FromStr for Fault {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<Self, NoFault> {
        let time = |text: &str| {
            parse_duration(text)
                .filter(|d| *d <= Duration::from_secs(60))
                .ok_or(NoFault)
        };
        Ok(match text.split_once('=') {
            Some(("jitter", by)) => Self::Jitter(time(by)?),
            Some(("stall", by)) => Self::Stall(time(by)?),
            Some(_) => return Err(NoFault),
            None => match text {
                "drop-stop" => Self::DropStop,
                "reorder" => Self::Reorder,
                "duplicate" => Self::Duplicate,
                "burst" => Self::Burst,
                "wrong-rate" => Self::WrongRate,
                _ => return Err(NoFault),
            },
        })
    }
}

/// Messages on their way over a line with faults.
#[derive(Debug)]
pub(super) struct Faulty {
    faults: Vec<Fault>,
    start: Mono,
    /// Messages so far.
    count: u64,
    /// The one that is overtaken.
    overtaken: Option<String>,
    lump: Vec<String>,
    /// What is on the line, and when it arrives.
    line: VecDeque<(Mono, String)>,
    random: u64,
}

impl Faulty {
    /// A line with these faults, whose stream begins at `start`.
    pub(super) fn new(faults: &[Fault], start: Mono) -> Self {
        Self {
            faults: faults.to_vec(),
            start,
            count: 0,
            overtaken: None,
            lump: Vec::new(),
            line: VecDeque::new(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether the stream's last message is lost.
    pub(super) fn drops_stop(&self) -> bool {
        self.has(Fault::DropStop)
    }

    /// Takes a message of audio.
    pub(super) fn push(&mut self, now: Mono, message: &str) {
        self.count += 1;
        let turn = self.count % EVERY;
        if turn == EVERY - 1 && self.has(Fault::Reorder) && self.overtaken.is_none() {
            self.overtaken = Some(message.to_owned());
            return;
        }
        let twice = turn == EVERY / 2 && self.has(Fault::Duplicate);
        for _ in 0..1 + usize::from(twice) {
            self.lump.push(message.to_owned());
        }
        self.lump.extend(self.overtaken.take());
        if !self.has(Fault::Burst) || self.lump.len() >= LUMP {
            self.send_lump(now);
        }
    }

    fn send_lump(&mut self, now: Mono) {
        let jitter = self.faults.iter().find_map(|f| match f {
            Fault::Jitter(most) => Some(*most),
            _ => None,
        });
        for message in std::mem::take(&mut self.lump) {
            let late = jitter.map_or(Duration::ZERO, |most| most.mul_f64(self.random()));
            let due = (now + late).max(self.stalled_until(now).unwrap_or(now));
            // TCP keeps the order.
            let due = self.line.back().map_or(due, |(before, _)| due.max(*before));
            self.line.push_back((due, message));
        }
    }

    /// Until when nothing passes, if now is such a time.
    pub(super) fn stalled_until(&self, now: Mono) -> Option<Mono> {
        let begin = self.start + STALL_AT;
        self.faults.iter().find_map(|f| match f {
            Fault::Stall(long) if now >= begin && now < begin + *long => Some(begin + *long),
            _ => None,
        })
    }

    /// The next message that has arrived.
    pub(super) fn pop(&mut self, now: Mono) -> Option<String> {
        let arrived = self.line.front().is_some_and(|(due, _)| *due <= now);
        arrived
            .then(|| self.line.pop_front())
            .flatten()
            .map(|(_, message)| message)
    }

    /// When the next message arrives.
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.line.front().map(|(due, _)| *due)
    }

    /// All that is still on its way: the stream is over.
    pub(super) fn drain(&mut self) -> Vec<String> {
        let mut rest: Vec<_> = self.line.drain(..).map(|(_, message)| message).collect();
        rest.append(&mut self.lump);
        rest.extend(self.overtaken.take());
        rest
    }

    /// A number from 0 to 1 (xorshift64).
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives, with the number of the tick, of one message every 20 ms.
    fn carried(faults: &[Fault], messages: u64) -> Vec<(u64, u64)> {
        let mut line = Faulty::new(faults, Mono::ZERO);
        let mut arrived = Vec::new();
        for tick in 1..messages + 200 {
            let now = Mono::from_millis(tick * 20);
            if tick <= messages {
                line.push(now, &tick.to_string());
            }
            while let Some(message) = line.pop(now) {
                arrived.push((tick, message.parse().unwrap()));
            }
        }
        let rest = line.drain().into_iter().map(|m| (messages, m.parse().unwrap()));
        arrived.extend(rest);
        arrived
    }

    fn numbers(arrived: &[(u64, u64)]) -> Vec<u64> {
        arrived.iter().map(|(_, n)| *n).collect()
    }

    #[test]
    fn a_line_without_faults_changes_nothing() {
        assert_eq!(carried(&[], 100), (1..=100).map(|n| (n, n)).collect::<Vec<_>>());
    }

    #[test]
    fn messages_are_swapped_or_doubled_and_none_is_lost() {
        let mut swapped = numbers(&carried(&[Fault::Reorder], 99));
        assert_eq!(swapped[23..26], [25, 24, 26]);
        swapped.sort_unstable();
        assert_eq!(swapped, (1..=99).collect::<Vec<_>>());
        let mut doubled = numbers(&carried(&[Fault::Duplicate], 100));
        assert_eq!((doubled.len(), &doubled[11..14]), (104, &[12, 12, 13][..]));
        doubled.dedup();
        assert_eq!(doubled, (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn jitter_delays_within_its_bound_and_keeps_the_order() {
        let late = carried(&[Fault::Jitter(Duration::from_millis(80))], 500);
        assert_eq!(numbers(&late), (1..=500).collect::<Vec<_>>());
        let delays: Vec<_> = late.iter().map(|(tick, n)| tick - n).collect();
        assert!(delays.iter().all(|d| *d <= 5) && delays.iter().any(|d| *d > 0));
    }

    #[test]
    fn a_lump_comes_at_once_and_a_stall_holds_everything_once() {
        let lumps = carried(&[Fault::Burst], 20);
        assert_eq!(
            lumps.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(),
            [[10; 10], [20; 10]].concat()
        );
        let stalled = carried(&[Fault::Stall(Duration::from_millis(500))], 100);
        assert_eq!(stalled[49..51], [(75, 50), (75, 51)]);
        assert_eq!((stalled[48], stalled[75]), ((49, 49), (76, 76)));
    }

    #[test]
    fn faults_are_read_as_they_are_written() {
        assert_eq!("jitter=80ms".parse(), Ok(Fault::Jitter(Duration::from_millis(80))));
        assert_eq!("drop-stop".parse(), Ok(Fault::DropStop));
        for bad in ["", "jitter", "jitter=x", "stall=5h", "burst=1s", "earthquake"] {
            assert_eq!(bad.parse::<Fault>(), Err(NoFault), "{bad}");
        }
    }
}
