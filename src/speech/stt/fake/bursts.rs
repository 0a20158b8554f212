//! Finds bursts of tone in audio of any rate, in hops of 10 ms: what the fake recogniser and the stand-ins of services hear. Pure.

/// Root mean square of −40 dBFS.
const LOUD: i64 = 328;

/// Samples below have no sign.
const FAINT: u16 = 200;

/// Quiet hops that end a burst.
const QUIET: u32 = 10;

/// A burst, by positions since the first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Its first sample.
    pub from: u64,
    /// Behind its last.
    pub to: u64,
    /// Frequency in Hz, rounded to hundreds.
    pub hz: u32,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A burst began at this sample.
    Began {
        /// The sample.
        at: u64,
    },
    /// It goes on for more than 300 ms; told once.
    Going(Burst),
    /// It is over, and was no click.
    Ended(Burst),
}

/// What a burst is heard as where no phrase is expected.
pub fn words(hz: u32) -> String {
    format!("tone of {hz} Hz")
}

/// A burst in progress.
#[derive(Debug)]
struct Open {
    from: u64,
    to: u64,
    /// Where the sign first changed, and last did, and how often in between.
    first: Option<u64>,
    latest: u64,
    crossings: u64,
    negative: bool,
    quiet: u32,
    told: bool,
}

/// The finder of one stream.
#[derive(Debug)]
pub struct Bursts {
    rate: u32,
    hop: Vec<i16>,
    /// Position of the hop's first sample.
    at: u64,
    open: Option<Open>,
}

impl Bursts {
    /// A finder in samples of `rate` Hz.
    pub const fn new(rate: u32) -> Self {
        Self {
            rate,
            hop: Vec::new(),
            at: 0,
            open: None,
        }
    }

    /// Behind the last whole hop.
    pub const fn position(&self) -> u64 {
        self.at
    }

    /// Whether no burst is in progress.
    pub const fn is_quiet(&self) -> bool {
        self.open.is_none()
    }

    /// Takes samples.
    pub fn push(&mut self, mut samples: &[i16], mut found: impl FnMut(Found)) {
        let hop = (self.rate / 100).max(1) as usize;
        while !samples.is_empty() {
            let n = samples.len().min(hop - self.hop.len());
            self.hop.extend_from_slice(&samples[..n]);
            samples = &samples[n..];
            if self.hop.len() == hop {
                self.take(&mut found);
            }
        }
    }

    /// The stream is over, and so is a burst.
    pub fn finish(&mut self, mut found: impl FnMut(Found)) {
        if !self.hop.is_empty() {
            self.take(&mut found);
        }
        self.end(&mut found);
    }

    fn take(&mut self, found: &mut impl FnMut(Found)) {
        let n = self.hop.len() as u64;
        let energy: i64 = self.hop.iter().map(|&s| i64::from(s).pow(2)).sum();
        let loud = energy > LOUD * LOUD * n as i64;
        if self.open.is_none() && loud {
            found(Found::Began { at: self.at });
            self.open = Some(Open {
                from: self.at,
                to: self.at,
                first: None,
                latest: 0,
                crossings: 0,
                negative: false,
                quiet: 0,
                told: false,
            });
        }
        self.at += n;
        let rate = self.rate;
        if let Some(open) = &mut self.open {
            if loud {
                open.quiet = 0;
                open.to = self.at;
                let start = self.at - n;
                // What is all but silent has no sign: it is the ringing of a filter.
                for (at, s) in (start..).zip(&self.hop).filter(|(_, s)| s.unsigned_abs() > FAINT) {
                    if (*s < 0) != std::mem::replace(&mut open.negative, *s < 0) {
                        open.cross(at);
                    }
                }
            } else {
                open.quiet += 1;
            }
            if open.quiet >= QUIET {
                self.hop.clear();
                return self.end(found);
            }
            if (open.to - open.from) * 1000 > 300 * u64::from(rate) && !open.told {
                open.told = true;
                found(Found::Going(open.burst(rate)));
            }
        }
        self.hop.clear();
    }

    fn end(&mut self, found: &mut impl FnMut(Found)) {
        let Some(open) = self.open.take() else { return };
        if (open.to - open.from) * 1000 >= 50 * u64::from(self.rate) {
            found(Found::Ended(open.burst(self.rate)));
        }
    }
}

impl Open {
    fn cross(&mut self, at: u64) {
        match self.first {
            None => self.first = Some(at),
            Some(_) => self.crossings += 1,
        }
        self.latest = at;
    }

    fn burst(&self, rate: u32) -> Burst {
        let long = self.first.map_or(0, |first| self.latest - first);
        let hz = self.crossings * u64::from(rate) / 2 / long.max(1);
        Burst {
            from: self.from,
            to: self.to,
            hz: (hz as u32 + 50) / 100 * 100,
        }
    }
}
