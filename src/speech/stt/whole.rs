//! The session of an ear with a recogniser that wants utterances whole: cuts them, has them recognised one after the other, tells
//! what they were.

use super::{
    SttError,
    segment::{Found, HANG_OVER, Segmenter, Utterance},
};
use crate::{
    audio::resample::any::AnyResampler,
    metrics,
    speech::{Hearing, Transcript},
};
use futures_util::future::LocalBoxFuture;
use std::collections::VecDeque;
use tokio::time::Instant;

/// Utterances of one ear that wait at most; the oldest gives way.
const WAITING: usize = 4;

/// The words of an utterance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recognised {
    /// The words.
    pub(super) text: String,
    /// BCP 47, where it is told.
    pub(super) language: Option<String>,
}

/// Why an utterance has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    /// The recogniser heard it, and it is left out for this reason.
    Dropped(&'static str),
    /// There is no room for it: the reason, and a sentence for who listens. An outage, which ends with the next answer.
    Crowded(&'static str, &'static str),
    /// The recogniser broke over it and has had its chances: the next session goes on behind it.
    Spent(SttError),
    /// The recogniser is out of order: the next session hears it again.
    Again(SttError),
}

/// An utterance on its way.
struct Pending<'a> {
    from: u64,
    to: u64,
    cut: Instant,
    words: LocalBoxFuture<'a, Result<Recognised, Unheard>>,
}

/// Hears to the end of the audio; `recognise` gets utterances at `rate` Hz. It is for the caller to say [`Hearing::ready`] before, if it knows;
/// the first words say it too.
pub(super) async fn session<'a>(
    hearing: &mut Hearing,
    rate: u32,
    recognise: impl Fn(Vec<i16>) -> LocalBoxFuture<'a, Result<Recognised, Unheard>>,
) -> Result<(), SttError> {
    let heard_rate = hearing.rate();
    let mut segmenter = segmenter(heard_rate, hearing.position())?;
    let mut waiting: VecDeque<(Instant, Utterance)> = VecDeque::new();
    let mut pending: Option<Pending<'a>> = None;
    let mut chunk = vec![0; heard_rate as usize / 50];
    let mut over = false;
    loop {
        if pending.is_none() {
            pending = waiting.pop_front().map(|(cut, utterance)| {
                let Utterance { from, to, samples } = utterance;
                let samples = AnyResampler::convert(heard_rate, rate, &samples).unwrap_or_default();
                let words = recognise(samples);
                Pending { from, to, cut, words }
            });
        }
        if over && pending.is_none() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(outcome) = answer(&mut pending) => {
                if let Some(done) = pending.take() {
                    tell(outcome, &done, hearing).await?;
                }
            }
            n = hearing.read(&mut chunk), if !over => {
                over = n == 0;
                let lost_some = segmenter.position() + n as u64 != hearing.position();
                let found = |f| note(f, hearing, &mut waiting);
                if over || lost_some {
                    segmenter.finish(found);
                } else {
                    segmenter.push(&chunk[..n], found);
                }
                if lost_some && !over {
                    // What comes after a gap has nothing to do with what came before.
                    segmenter = self::segmenter(heard_rate, hearing.position() - n as u64)?;
                    segmenter.push(&chunk[..n], |f| note(f, hearing, &mut waiting));
                }
            }
        }
        while waiting.len() > WAITING {
            metrics::dropped("stt_utterance", "slow_recogniser", 1);
            waiting.pop_front();
            hearing
                .fail("the recogniser does not keep up with the call: some of what is said is left out")
                .await;
        }
        let unheard = pending
            .iter()
            .map(|p| p.from)
            .chain(waiting.iter().map(|(_, u)| u.from));
        hearing.settle(unheard.min().unwrap_or(u64::MAX).min(segmenter.needed_from()));
    }
}

fn segmenter(rate: u32, position: u64) -> Result<Segmenter, SttError> {
    Segmenter::new(rate, position).map_err(|e| SttError::Refused(e.to_string()))
}

/// The answer to the question that is out, if one is.
async fn answer(pending: &mut Option<Pending<'_>>) -> Option<Result<Recognised, Unheard>> {
    Some(pending.as_mut()?.words.as_mut().await)
}

/// Takes up what was found in the audio.
fn note(found: Found, hearing: &Hearing, waiting: &mut VecDeque<(Instant, Utterance)>) {
    match found {
        Found::Onset => hearing.started(),
        Found::Utterance(utterance) => waiting.push_back((Instant::now(), utterance)),
    }
}

/// Tells what an utterance was.
async fn tell(
    outcome: Result<Recognised, Unheard>,
    utterance: &Pending<'_>,
    hearing: &mut Hearing,
) -> Result<(), SttError> {
    match outcome {
        Ok(Recognised { text, language }) => {
            hearing.ready().await;
            metrics::STT_FINAL.record(utterance.cut.elapsed() + HANG_OVER);
            let transcript = Transcript {
                text,
                is_final: true,
                // No recogniser of this sort says how sure it is in a number that means something.
                confidence: None,
                language,
                from_ms: hearing.ms(utterance.from),
                to_ms: hearing.ms(utterance.to),
            };
            hearing.transcript(transcript).await;
            Ok(())
        }
        Err(Unheard::Dropped(reason)) => {
            hearing.ready().await;
            metrics::dropped("stt_utterance", reason, 1);
            Ok(())
        }
        Err(Unheard::Crowded(reason, message)) => {
            metrics::dropped("stt_utterance", reason, 1);
            hearing.fail(message).await;
            Ok(())
        }
        Err(Unheard::Spent(error)) => {
            hearing.settle(utterance.to);
            Err(error)
        }
        Err(Unheard::Again(error)) => Err(error),
    }
}
