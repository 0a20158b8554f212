//! A recogniser of tones instead of words: deterministic, instant, needs nothing installed. For tests, simulations and load.
//!
//! A burst of tone is an utterance. Its frequency chooses a phrase of the [`EarSpec`]: 400 Hz the first, 500 Hz the second,
//! and so on up to 2900 Hz, the 26th. A burst that chooses none is transcribed as `tone of N Hz`, N rounded to hundreds.
//! A burst begins with 10 ms above −40 dBFS and ends with 100 ms below; shorter ones than 50 ms are ignored. Bursts of more than
//! 300 ms give an interim transcript on the way. A burst at 3000 Hz or above breaks the session, as an engine that crashes would.
//! Every language is understood but `xx`.

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
};

/// Frequencies from here on break the session.
const BREAKING_HZ: u32 = 3000;

/// Root mean square of −40 dBFS.
const LOUD: i64 = 328;

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

/// A burst in progress.
#[derive(Default)]
struct Burst {
    from: u64,
    to: u64,
    crossings: u32,
    quiet_hops: u32,
    last: i16,
    told: bool,
}

impl Burst {
    fn hop(&mut self, samples: &[i16], loud: bool) {
        if loud {
            self.quiet_hops = 0;
            self.to += samples.len() as u64;
            for &s in samples {
                self.crossings += u32::from((self.last < 0) != (s < 0));
                self.last = s;
            }
        } else {
            self.quiet_hops += 1;
        }
    }

    fn ms(&self) -> u64 {
        (self.to - self.from) / 8
    }

    /// Frequency in Hz, rounded to hundreds.
    fn hz(&self) -> u32 {
        let hz = u64::from(self.crossings) * 4000 / (self.to - self.from).max(1);
        (hz as u32 + 50) / 100 * 100
    }
}

async fn session(spec: &EarSpec, hearing: &mut Hearing) -> Result<(), SttError> {
    hearing.ready().await;
    let mut burst: Option<Burst> = None;
    let (mut hop, mut filled) = ([0; 80], 0);
    loop {
        let n = hearing.read(&mut hop[filled..]).await;
        filled += n;
        let over = n == 0;
        if filled < hop.len() && !over {
            continue;
        }
        let samples = &hop[..std::mem::take(&mut filled)];
        let energy: i64 = samples.iter().map(|&s| i64::from(s).pow(2)).sum();
        let loud = energy > LOUD * LOUD * samples.len() as i64;
        if burst.is_none() && loud {
            let at = hearing.position() - samples.len() as u64;
            hearing.started();
            burst = Some(Burst {
                from: at,
                to: at,
                ..Burst::default()
            });
        }
        let Some(b) = &mut burst else {
            hearing.settle(hearing.position());
            if over {
                return Ok(());
            }
            continue;
        };
        b.hop(samples, loud);
        if b.quiet_hops >= 10 || over {
            hearing.settle(hearing.position());
            if b.hz() >= BREAKING_HZ {
                return Err(SttError::Lost("the fake recogniser was told to break".to_owned()));
            }
            if b.ms() >= 50 {
                hearing.transcript(transcript(spec, hearing, b, true)).await;
            }
            burst = None;
        } else if b.ms() > 300 && !b.told {
            b.told = true;
            let interim = transcript(spec, hearing, b, false);
            hearing.transcript(interim).await;
        }
        if over {
            return Ok(());
        }
    }
}

fn transcript(spec: &EarSpec, hearing: &Hearing, burst: &Burst, is_final: bool) -> Transcript {
    let hz = burst.hz();
    let phrase = hz.checked_sub(400).and_then(|n| spec.phrases.get(n as usize / 100));
    let language = match spec.language.as_str() {
        "" | "auto" => "en",
        language => language,
    };
    Transcript {
        text: phrase.cloned().unwrap_or_else(|| format!("tone of {hz} Hz")),
        is_final,
        confidence: Some(1.0),
        language: Some(language.to_owned()),
        from_ms: hearing.ms(burst.from),
        to_ms: hearing.ms(burst.to),
    }
}
