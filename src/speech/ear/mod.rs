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
    audio::{resample::Resampler, ring::UplinkRx},
    base::backoff::Backoff,
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

/// Samples taken from a ring at once: 20 ms at 48 kHz.
const CHUNK: usize = 960;

/// The half of an ear that moves audio. Never waits.
#[derive(Debug)]
pub(super) struct Ear {
    ring: UplinkRx,
    resampler: Resampler,
    feed: Feed,
}

impl Ear {
    /// An ear on `ring`, and what its recogniser reads from.
    pub(super) fn new(
        ring: UplinkRx,
        stt: &dyn Stt,
        events: mpsc::Sender<SpeechEvent>,
    ) -> Result<(Self, Hearing), String> {
        let rate = stt.rate(ring.rate());
        let resampler = Resampler::new(ring.rate(), rate).map_err(|e| e.to_string())?;
        let (feed, hearing) = hearing(rate, events);
        Ok((Self { ring, resampler, feed }, hearing))
    }

    /// Whether a turn would do something.
    pub(super) fn has_work(&self) -> bool {
        self.ring.queued() > 0 || self.ring.is_closed()
    }

    /// Moves what the ring holds on to the recogniser. Returns whether more can come.
    pub(super) fn turn(&mut self) -> bool {
        let (mut heard, mut wanted) = ([0; CHUNK], [0; 6 * CHUNK]);
        let mut left = self.ring.queued();
        while left > 0 {
            let n = self.ring.pop(&mut heard[..left.min(CHUNK)]);
            left -= n;
            let n = self.resampler.process(&heard[..n], &mut wanted);
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

/// Keeps a recogniser listening until the caller is gone and the last words are told, or until it says that it never will.
/// A wanted language begins another session, which hears what the last one had not settled; one that is not understood changes nothing.
pub(super) async fn listen(
    stt: Rc<dyn Stt>,
    mut spec: EarSpec,
    mut hearing: Hearing,
    backend: &'static str,
    mut language: watch::Receiver<String>,
) {
    let mut delays = Backoff::new(Duration::from_millis(500), Duration::from_secs(10), Duration::MAX);
    let overdue = hearing.overdue(LAST_WORDS);
    tokio::pin!(overdue);
    loop {
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
        let labels = [("backend", backend), ("kind", error.kind())];
        metrics::counter(metrics::speech_faults_total, &labels).increment(1);
        hearing.fail(error.message()).await;
        let was_ready = hearing.rewind();
        if matches!(error, SttError::Refused(_)) || (hearing.is_over() && !hearing.has_unread()) {
            return;
        }
        if was_ready && began.elapsed() > PROVEN {
            delays.reset();
        }
        let delay = delays.next(0.5 + fraction() / 2.0).unwrap_or(PROVEN);
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
