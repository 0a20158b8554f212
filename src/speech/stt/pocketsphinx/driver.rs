//! What an ear asks of the engine: its phrases, free speech, or one after the other.

use super::{
    pool::{Pool, PoolError},
    proto::{Ask, RATE, Reply},
    words::words,
};
use crate::{
    audio::g711,
    base::ids::TenantId,
    speech::{
        EarSpec, Hearing,
        stt::{
            SttError,
            whole::{self, Recognised, Unheard},
        },
    },
};
use futures_util::FutureExt as _;

/// Said where the pool's queue is full.
const CROWDED: &str = "too many calls wait for a recognition worker";

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
    pub(super) async fn prepare(&self, tenant: TenantId, pool: &Pool) -> Result<(), PoolError> {
        if !self.plain.is_empty() {
            pool.ask(tenant, Ask::Prepare(self.plain.clone()), Vec::new()).await?;
        }
        Ok(())
    }

    /// Recognises one utterance: its words, unless it is none of the phrases.
    async fn recognise(&self, spec: &EarSpec, pool: &Pool, mut samples: Vec<i16>) -> Result<Option<String>, PoolError> {
        give_grain(&mut samples);
        if !self.plain.is_empty() {
            let again = if self.free { samples.clone() } else { Vec::new() };
            let heard = std::mem::replace(&mut samples, again);
            match pool.ask(spec.tenant, Ask::Phrase(self.plain.clone()), heard).await? {
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
        match pool.ask(spec.tenant, Ask::Words, samples).await? {
            Reply::Words(words) => Ok(Some(words)),
            _ => Ok(None),
        }
    }
}

/// The comparison with the filler is set on telephone speech. What came over a lossless codec, with silence that is truly
/// silent, fares worse there although it is clearer; so it is given the grain of G.711 first.
fn give_grain(samples: &mut [i16]) {
    let mut codes = [0; 512];
    for piece in samples.chunks_mut(codes.len()) {
        let n = g711::ulaw_encode(piece, &mut codes);
        g711::ulaw_decode(&codes[..n], piece);
    }
}

/// Hears to the end of the audio.
pub(super) async fn session(pool: &Pool, spec: &EarSpec, hearing: &mut Hearing) -> Result<(), SttError> {
    let task = Task::of(spec)?;
    match task.prepare(spec.tenant, pool).await {
        Ok(()) => hearing.ready().await,
        Err(PoolError::Full) => {
            return Err(SttError::Lost(CROWDED.to_owned()));
        }
        Err(PoolError::Lost(message)) => return Err(SttError::Lost(message)),
    }
    let recognise = |samples| {
        let words = task.recognise(spec, pool, samples);
        words
            .map(|outcome| match outcome {
                Ok(Some(text)) => Ok(Recognised {
                    text,
                    language: Some("en".to_owned()),
                }),
                Ok(None) => Err(Unheard::Dropped("not_a_phrase")),
                Err(PoolError::Full) => Err(Unheard::Crowded("queue_full", CROWDED)),
                // It has had its second chance in the pool.
                Err(PoolError::Lost(message)) => Err(Unheard::Spent(SttError::Lost(message))),
            })
            .boxed_local()
    };
    whole::session(hearing, RATE, recognise).await
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
            ..EarSpec::default()
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
