//! An ear: takes a leg's uplink ring as it fills, and keeps a recogniser listening to it for the leg's life.
//!
//! [`Ear`] is the half that a lane turns on each wake; [`listen`] is the half that runs recogniser sessions one after the
//! other, reports an outage once, and sees to it that the last words are told after the caller is gone.

mod hearing;

pub use hearing::Hearing;

use super::{
    EarSpec, SpeechEvent,
    stt::{Stt, SttError},
};
use crate::{
    audio::{codec, resample::Resampler, ring::UplinkRx},
    base::{
        backoff::Backoff,
        format::{AudioFormat, Encoding},
    },
    metrics,
};
use futures_util::FutureExt as _;
use hearing::{Feed, hearing};
use std::{
    any::Any,
    hash::{BuildHasher as _, Hasher as _},
    panic::AssertUnwindSafe,
    pin::pin,
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// How long the last words may take after the caller is gone.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// A session that worked this long starts the delays anew when it breaks.
const PROVEN: Duration = Duration::from_secs(10);

/// Tries in a row after which another candidate takes over.
const TRIES: usize = 2;

/// An outage of this length hands over too: a while before audio is lost, which is kept for 5 s.
const LOSING: Duration = Duration::from_secs(2);

/// Delays of an outage, all together; after them a try is made every [`SPENT`].
const BUDGET: Duration = Duration::from_secs(60);
const SPENT: Duration = Duration::from_secs(30);

/// Samples taken from a ring at once: 20 ms at 48 kHz.
const CHUNK: usize = 960;

/// The half of an ear that moves audio. Never waits.
#[derive(Debug)]
pub(super) struct Ear {
    ring: UplinkRx,
    /// What the present recogniser wants, and how it is made of what the ring carries.
    wanted: AudioFormat,
    resampler: Resampler,
    feed: Feed,
}

/// A recogniser that an ear may listen with.
pub(super) struct Candidate {
    pub(super) name: &'static str,
    pub(super) stt: Rc<dyn Stt>,
    /// In what it hears.
    format: AudioFormat,
}

impl Candidate {
    /// A recogniser for what a ring carries: as it is where the recogniser takes that, else samples at the rate it wants.
    pub(super) fn new(name: &'static str, stt: Rc<dyn Stt>, ring: AudioFormat) -> Result<Self, String> {
        let rate = stt.rate(ring.rate);
        let encoding = match ring.encoding {
            codes if rate == ring.rate && stt.takes(codes) => codes,
            _ => Encoding::L16Le,
        };
        Resampler::new(ring.rate, rate).map_err(|e| e.to_string())?;
        let format = AudioFormat { encoding, rate };
        Ok(Self { name, stt, format })
    }

    /// Gets it ready for such a ring.
    pub(super) fn warm(&self, spec: &EarSpec) {
        self.stt.warm(spec, self.format);
    }

    /// Whether it hears the codes that the ring carries as they are.
    pub(super) fn takes(&self, ring: AudioFormat) -> bool {
        ring == self.format && ring.encoding != Encoding::L16Le
    }
}

impl Ear {
    /// An ear on `ring` for a recogniser, and what that reads from.
    pub(super) fn new(
        ring: UplinkRx,
        first: &Candidate,
        events: mpsc::Sender<SpeechEvent>,
    ) -> Result<(Self, Hearing), String> {
        let wanted = first.format;
        let resampler = Resampler::new(ring.rate(), wanted.rate).map_err(|e| e.to_string())?;
        let (feed, hearing) = hearing(wanted, events);
        let ear = Self {
            ring,
            wanted,
            resampler,
            feed,
        };
        Ok((ear, hearing))
    }

    /// Whether a turn would do something.
    pub(super) fn has_work(&self) -> bool {
        self.ring.queued() > 0 || self.ring.is_closed()
    }

    /// Moves what the ring holds on to the recogniser. Returns whether more can come.
    pub(super) fn turn(&mut self) -> bool {
        let (mut heard, mut wanted) = ([0; CHUNK], [0; 6 * CHUNK]);
        if self.wanted != self.feed.format() {
            self.wanted = self.feed.format();
            if let Ok(resampler) = Resampler::new(self.ring.rate(), self.wanted.rate) {
                self.resampler = resampler;
            }
        }
        let carried = self.ring.format();
        let mut left = self.ring.queued();
        while left > 0 {
            let n = self.ring.pop(&mut heard[..left.min(CHUNK)]);
            left -= n;
            let heard = &mut heard[..n];
            if carried == self.wanted {
                self.feed.push(heard);
                continue;
            }
            if carried.encoding != Encoding::L16Le {
                codec::decode_wide(carried.encoding, heard);
            }
            let n = self.resampler.process(heard, &mut wanted);
            self.feed.push(&wanted[..n]);
        }
        !self.ring.is_closed()
    }
}

/// How one session ended.
enum Turn {
    /// By itself, or by a panic.
    Over(Result<Result<(), SttError>, Box<dyn Any + Send>>),
    /// Another language is wanted, and understood.
    Anew(EarSpec),
    /// The caller is gone and the last words took too long.
    Overdue,
}

/// What became of the tries to listen since a recogniser last worked.
struct Outage {
    /// Tries in a row that ended without words.
    tries: usize,
    began: Instant,
    delays: Backoff,
}

impl Outage {
    fn new() -> Self {
        Self {
            tries: 0,
            began: Instant::now(),
            delays: Backoff::new(Duration::from_millis(100), Duration::from_secs(5), BUDGET),
        }
    }
}

/// Keeps a recogniser listening until the caller is gone and the last words are told, or until none is left that might.
///
/// A session that breaks is begun again, after delays that grow; where there is another candidate, it takes over once two tries
/// failed or two seconds passed, before audio is lost, and keeps the ear unless it fails in its turn. A wanted language begins another
/// session, which hears what the last one had not settled; one that is not understood changes nothing.
pub(super) async fn listen(
    mut candidates: Vec<Candidate>,
    mut spec: EarSpec,
    mut hearing: Hearing,
    mut language: watch::Receiver<String>,
) {
    let mut at = 0;
    let mut outage = Outage::new();
    let overdue = hearing.overdue(LAST_WORDS);
    tokio::pin!(overdue);
    loop {
        let Candidate { name, stt, .. } = &candidates[at];
        hearing.served_by(name);
        let began = Instant::now();
        let teller = hearing.teller();
        let turn = {
            let mut session = pin!(AssertUnwindSafe(stt.listen(&spec, &mut hearing)).catch_unwind());
            loop {
                tokio::select! {
                    biased;
                    () = &mut overdue => break Turn::Overdue,
                    wanted = other_language(&spec, &mut language) => match stt.accepts(&wanted) {
                        Ok(()) => break Turn::Anew(wanted),
                        Err(refused) => teller.refuse(refused.message()).await,
                    },
                    outcome = &mut session => break Turn::Over(outcome),
                }
            }
        };
        let error = match turn {
            Turn::Overdue => {
                metrics::dropped("stt_utterance", "overdue", 1);
                return;
            }
            Turn::Anew(wanted) => {
                spec = wanted;
                hearing.rewind();
                continue;
            }
            Turn::Over(Ok(Ok(()))) => return,
            Turn::Over(Ok(Err(error))) => error,
            Turn::Over(Err(_)) => {
                metrics::counter(metrics::panics_total, &[("kind", "recogniser")]).increment(1);
                SttError::Lost("the recogniser crashed; it is being restarted".to_owned())
            }
        };
        let labels = [("backend", *name), ("kind", error.kind())];
        metrics::counter(metrics::speech_faults_total, &labels).increment(1);
        tracing::warn!(
            backend = *name,
            kind = error.kind(),
            reason = error.message(),
            "recognition broke off"
        );
        hearing.fail(error.message()).await;
        let was_ready = hearing.rewind();
        if hearing.is_over() && !hearing.has_unread() {
            return;
        }
        if was_ready && began.elapsed() > PROVEN {
            outage = Outage::new();
        }
        if outage.tries == 0 {
            outage.began = if was_ready { Instant::now() } else { began };
        }
        outage.tries += 1;
        let refused = matches!(error, SttError::Refused(_));
        let patient = !outage.tries.is_multiple_of(TRIES) && outage.began.elapsed() < LOSING;
        if refused {
            candidates.remove(at);
            at = 0;
        } else if !patient {
            at = (at + 1) % candidates.len();
        }
        let Some(next) = candidates.get(at) else { return };
        let others_turn = refused || (!patient && candidates.len() > 1);
        if others_turn {
            metrics::counter(metrics::speech_failovers_total, &[("backend", next.name)]).increment(1);
            hearing.recast(next.format);
        }
        if others_turn && outage.tries <= TRIES {
            continue;
        }
        let jitter = 0.5 + fraction() / 2.0;
        let delay = outage.delays.next(jitter).unwrap_or(SPENT.mul_f64(jitter));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = &mut overdue => return,
        }
    }
}

/// Waits until another language is wanted than that of `spec`, and returns the spec with it. A language without a region is
/// content with any region of it.
async fn other_language(spec: &EarSpec, language: &mut watch::Receiver<String>) -> EarSpec {
    loop {
        if language.changed().await.is_err() {
            return std::future::pending().await;
        }
        let wanted = language.borrow_and_update().clone();
        let own = spec.language.to_ascii_lowercase();
        let primary = own.split(['-', '_']).next().unwrap_or_default();
        if !wanted.is_empty() && !wanted.eq_ignore_ascii_case(&own) && !wanted.eq_ignore_ascii_case(primary) {
            return EarSpec {
                language: wanted,
                ..spec.clone()
            };
        }
    }
}

/// A number from 0 to 1 that differs from ear to ear, so that they do not all come back at once.
fn fraction() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
