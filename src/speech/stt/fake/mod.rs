//! A recogniser of tones instead of words: deterministic, instant, needs nothing installed. For tests, simulations and load.
//!
//! A burst of tone is an utterance. Its frequency chooses a phrase of the [`EarSpec`]: 400 Hz the first, 500 Hz the second,
//! and so on up to 2900 Hz, the 26th. A burst that chooses none is transcribed as `tone of N Hz`, N rounded to hundreds.
//! A burst begins with 10 ms above −40 dBFS and ends with 100 ms below; shorter ones than 50 ms are ignored. Bursts of more than
//! 300 ms give an interim transcript on the way. A burst at 3000 Hz or above breaks the session, as an engine that crashes would.
//! Every language is understood but `xx`.

mod bursts;

pub use bursts::{Burst, Bursts, Found, words};

use crate::{
    audio::tone::Sine,
    base::settings::Section,
    speech::{
        EarSpec, Hearing, Transcript,
        stt::{Descriptor, Engine, Stt, SttError},
    },
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::{rc::Rc, sync::Arc};

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "fake",
    read: |_: &Section<'_>| Arc::new(Fake),
    double: None,
};

/// Frequencies from here on break the session.
const BREAKING_HZ: u32 = 3000;

/// Samples that are heard as the phrase of that index: `ms` of tone, then the silence that ends a burst.
pub fn phrase(index: u32, ms: u32, rate: u32) -> Vec<i16> {
    let mut samples = vec![0; (rate * (ms + 120) / 1000) as usize];
    let tone = (rate * ms / 1000) as usize;
    Sine::new(rate, f64::from(400 + 100 * index), 8000.0).fill(&mut samples[..tone]);
    samples
}

#[derive(Debug)]
struct Fake;

impl Engine for Fake {
    fn open(&self) -> Rc<dyn Stt> {
        Rc::new(Self)
    }
}

impl Stt for Fake {
    fn rate(&self, _ring: u32) -> u32 {
        8000
    }

    fn accepts(&self, spec: &EarSpec) -> Result<(), SttError> {
        if spec.language == "xx" {
            return Err(SttError::Refused("the fake recogniser has no language xx".to_owned()));
        }
        Ok(())
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            self.accepts(spec)?;
            session(spec, hearing).await
        }
        .boxed_local()
    }
}

async fn session(spec: &EarSpec, hearing: &mut Hearing) -> Result<(), SttError> {
    hearing.ready().await;
    let rate = hearing.rate();
    let mut bursts = Bursts::new(rate);
    let origin = hearing.position();
    let mut chunk = vec![0; rate as usize / 50];
    loop {
        let n = hearing.read(&mut chunk).await;
        let mut found = Vec::new();
        if n == 0 {
            bursts.finish(|f| found.push(f));
        } else {
            bursts.push(&chunk[..n], |f| found.push(f));
        }
        for found in found {
            match found {
                Found::Began { .. } => hearing.started(),
                Found::Going(burst) => {
                    hearing
                        .transcript(transcript(spec, hearing, origin, burst, false))
                        .await
                }
                Found::Ended(burst) => {
                    hearing.settle(origin + bursts.position());
                    if burst.hz >= BREAKING_HZ {
                        return Err(SttError::Lost("the fake recogniser was told to break".to_owned()));
                    }
                    hearing.transcript(transcript(spec, hearing, origin, burst, true)).await;
                }
            }
        }
        if bursts.is_quiet() {
            hearing.settle(origin + bursts.position());
        }
        if n == 0 {
            return Ok(());
        }
    }
}

fn transcript(spec: &EarSpec, hearing: &Hearing, origin: u64, burst: Burst, is_final: bool) -> Transcript {
    let Burst { from, to, hz } = burst;
    let phrase = hz.checked_sub(400).and_then(|n| spec.phrases.get(n as usize / 100));
    let language = match spec.language.as_str() {
        "" | "auto" => "en",
        language => language,
    };
    Transcript {
        text: phrase.cloned().unwrap_or_else(|| words(hz)),
        is_final,
        confidence: Some(1.0),
        language: Some(language.to_owned()),
        from_ms: hearing.ms(origin + from),
        to_ms: hearing.ms(origin + to),
    }
}
