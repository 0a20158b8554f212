//! The session of one ear: cuts utterances, has them recognised one after the other, tells what they were.

use super::{
    pool::{Pool, PoolError},
    proto::{Ask, RATE, Reply},
    words::words,
};
use crate::{
    audio::resample::any::AnyResampler,
    metrics,
    speech::{
        EarSpec, Hearing, Transcript,
        stt::{
            SttError,
            segment::{Found, HANG_OVER, Segmenter, Utterance},
        },
    },
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Utterances of one ear that wait at most; the oldest gives way.
const WAITING: usize = 4;

/// What an ear listens for, as the engine takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// The phrases in plain words, each once.
    plain: Vec<String>,
    /// Which phrase of the ear's each of them is.
    index: Vec<usize>,
    /// Whether other speech is wanted too.
    free: bool,
}

impl Task {
    /// Reads a spec, or says what is wrong with it.
    pub(super) fn of(spec: &EarSpec) -> Result<Self, SttError> {
        let language = spec.language.split(['-', '_']).next().unwrap_or_default();
        if !["", "auto", "en"].iter().any(|l| language.eq_ignore_ascii_case(l)) {
            return Err(SttError::Refused(format!(
                "PocketSphinx understands English only, not {:?}: set the language to en, or choose another recogniser",
                spec.language
            )));
        }
        let mut task = Self {
            plain: Vec::new(),
            index: Vec::new(),
            free: spec.free_speech,
        };
        for (index, phrase) in spec.phrases.iter().enumerate() {
            let plain = words(phrase).join(" ");
            if plain.is_empty() {
                tracing::warn!(index, "a phrase without English words cannot be listened for");
            } else if !task.plain.contains(&plain) {
                task.plain.push(plain);
                task.index.push(index);
            }
        }
        if task.plain.is_empty() && !task.free {
            return Err(SttError::Refused(
                "PocketSphinx has nothing to listen for: give the agent phrases of English words, or allow free speech"
                    .to_owned(),
            ));
        }
        Ok(task)
    }

    /// Gets a worker ready for the phrases. Free speech alone has no grammar to prepare.
    pub(super) async fn prepare(&self, pool: &Pool) -> Result<(), PoolError> {
        if !self.plain.is_empty() {
            pool.ask(Ask::Prepare(self.plain.clone()), Vec::new()).await?;
        }
        Ok(())
    }

    /// Recognises one utterance: its words, unless it is none of the phrases.
    async fn recognise(&self, spec: &EarSpec, pool: &Pool, mut samples: Vec<i16>) -> Result<Option<String>, PoolError> {
        if !self.plain.is_empty() {
            let again = if self.free { samples.clone() } else { Vec::new() };
            let heard = std::mem::replace(&mut samples, again);
            match pool.ask(Ask::Phrase(self.plain.clone()), heard).await? {
                Reply::Phrase { index, deficit } => {
                    tracing::debug!(deficit, "speech was taken for a phrase");
                    let phrase = self.index.get(index).and_then(|at| spec.phrases.get(*at));
                    return Ok(phrase.map(|p| p.trim().to_owned()));
                }
                Reply::Nothing { deficit } => tracing::debug!(deficit, "speech was no phrase"),
                Reply::Ready | Reply::Words(_) | Reply::Failed(_) => {}
            }
        }
        if !self.free {
            return Ok(None);
        }
        match pool.ask(Ask::Words, samples).await? {
            Reply::Words(words) => Ok(Some(words)),
            _ => Ok(None),
        }
    }
}

/// An utterance on its way.
struct Pending<'a> {
    from: u64,
    to: u64,
    cut: Instant,
    words: LocalBoxFuture<'a, Result<Option<String>, PoolError>>,
}

/// Hears to the end of the audio.
pub(super) async fn session(pool: &Pool, spec: &EarSpec, hearing: &mut Hearing) -> Result<(), SttError> {
    let task = Task::of(spec)?;
    match task.prepare(pool).await {
        Ok(()) => hearing.ready().await,
        Err(PoolError::Full) => {
            return Err(SttError::Lost(
                "too many calls wait for a recognition worker".to_owned(),
            ));
        }
        Err(PoolError::Lost(message)) => return Err(SttError::Lost(message)),
    }
    let rate = hearing.rate();
    let mut segmenter = segmenter(rate, hearing.position())?;
    let mut waiting: VecDeque<(Instant, Utterance)> = VecDeque::new();
    let mut pending: Option<Pending<'_>> = None;
    let mut chunk = vec![0; rate as usize / 50];
    let mut over = false;
    loop {
        if pending.is_none() {
            pending = waiting.pop_front().map(|(cut, utterance)| {
                let Utterance { from, to, samples } = utterance;
                let samples = AnyResampler::convert(rate, RATE, &samples).unwrap_or_default();
                let words = task.recognise(spec, pool, samples).boxed_local();
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
                    segmenter = self::segmenter(rate, hearing.position() - n as u64)?;
                    segmenter.push(&chunk[..n], |f| note(f, hearing, &mut waiting));
                }
            }
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
async fn answer(pending: &mut Option<Pending<'_>>) -> Option<Result<Option<String>, PoolError>> {
    Some(pending.as_mut()?.words.as_mut().await)
}

/// Takes up what was found in the audio.
fn note(found: Found, hearing: &Hearing, waiting: &mut VecDeque<(Instant, Utterance)>) {
    match found {
        Found::Onset => hearing.started(),
        Found::Utterance(utterance) => {
            if waiting.len() >= WAITING {
                metrics::dropped("stt_utterance", "slow_recogniser", 1);
                waiting.pop_front();
            }
            waiting.push_back((Instant::now(), utterance));
        }
    }
}

/// Tells what an utterance was.
async fn tell(
    outcome: Result<Option<String>, PoolError>,
    utterance: &Pending<'_>,
    hearing: &mut Hearing,
) -> Result<(), SttError> {
    match outcome {
        Ok(Some(text)) => {
            metrics::STT_FINAL.record(utterance.cut.elapsed() + HANG_OVER);
            let transcript = Transcript {
                text,
                is_final: true,
                // The engine's own probability says nothing under a grammar, and little otherwise.
                confidence: None,
                language: Some("en".to_owned()),
                from_ms: hearing.ms(utterance.from),
                to_ms: hearing.ms(utterance.to),
            };
            hearing.transcript(transcript).await;
            Ok(())
        }
        Ok(None) => {
            metrics::dropped("stt_utterance", "not_a_phrase", 1);
            Ok(())
        }
        Err(PoolError::Full) => {
            metrics::dropped("stt_utterance", "queue_full", 1);
            Ok(())
        }
        Err(PoolError::Lost(message)) => {
            // It has had its second chance in the pool; the next session goes on behind it.
            hearing.settle(utterance.to);
            Err(SttError::Lost(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(language: &str, phrases: &[&str], free_speech: bool) -> EarSpec {
        EarSpec {
            backend: "pocketsphinx".to_owned(),
            language: language.to_owned(),
            phrases: phrases.iter().map(|p| (*p).to_owned()).collect(),
            free_speech,
        }
    }

    #[test]
    fn phrases_keep_their_place_when_others_drop_out() {
        let task = Task::of(&spec("en-GB", &["Yes!", "…", "yes", "Opening hours?"], false)).unwrap();
        assert_eq!(task.plain, ["yes", "opening hours"]);
        assert_eq!(task.index, [0, 3]);
    }

    #[test]
    fn what_cannot_be_recognised_is_refused_with_a_reason() {
        for (spec, reason) in [
            (spec("de", &["ja"], false), "English only"),
            (spec("auto", &["…"], false), "nothing to listen for"),
            (spec("", &[], false), "nothing to listen for"),
        ] {
            let Err(SttError::Refused(message)) = Task::of(&spec) else {
                panic!("{spec:?}")
            };
            assert!(message.contains(reason), "{message}");
        }
        assert!(Task::of(&spec("en", &[], true)).is_ok());
    }
}
