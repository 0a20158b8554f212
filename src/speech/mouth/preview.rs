//! Synthesized speech for frontends: μ-law at 8 kHz in numbered chunks, as fast as it is made.

use super::Raw;
use crate::{
    audio::{codec, g711, resample::any::AnyResampler},
    base::{format::Encoding, ids::UtteranceId},
    metrics,
    speech::{SpeechEvent, outbox::Outbox, tts::Pcm},
};
use bytes::Bytes;

const RATE: u32 = 8000;

/// A chunk is sent once it has this much (200 ms), and never holds more than [`LONGEST`] (1 s).
const ENOUGH: usize = 1600;
const LONGEST: usize = 8000;

/// The chunks of one utterance.
#[derive(Debug)]
pub(super) struct Preview {
    utterance: UtteranceId,
    resampler: Option<(u32, AnyResampler)>,
    samples: Vec<i16>,
    seq: u32,
    silent: bool,
    ended: bool,
}

impl Preview {
    pub(super) const fn new(utterance: UtteranceId) -> Self {
        Self {
            utterance,
            resampler: None,
            samples: Vec::new(),
            seq: 0,
            silent: true,
            ended: false,
        }
    }

    /// Whether nothing was added yet.
    pub(super) const fn is_silent(&self) -> bool {
        self.silent
    }

    /// Adds samples as synthesized.
    pub(super) fn add(&mut self, pcm: &Pcm, news: &mut Outbox) {
        self.add_samples(&pcm.samples, pcm.rate, news);
    }

    /// Adds audio as it was given; what frontends take already is passed on unread.
    pub(super) fn add_raw(&mut self, raw: &Raw, news: &mut Outbox) {
        match raw {
            Raw::Samples(samples, rate) => self.add_samples(samples, *rate, news),
            Raw::Codes(codes, Encoding::Ulaw) => {
                self.silent = false;
                for piece in codes.chunks(LONGEST) {
                    self.put(Bytes::copy_from_slice(piece), false, news);
                }
            }
            Raw::Codes(codes, law) => {
                let mut samples = vec![0; codes.len()];
                let n = codec::decode(*law, codes, &mut samples).unwrap_or_default();
                self.add_samples(&samples[..n], RATE, news);
            }
        }
    }

    fn add_samples(&mut self, samples: &[i16], rate: u32, news: &mut Outbox) {
        self.silent = false;
        if self.resampler.as_ref().is_none_or(|(from, _)| *from != rate) {
            self.finish_resampling();
            match AnyResampler::new(rate, RATE) {
                Ok(resampler) => self.resampler = Some((rate, resampler)),
                Err(_) => {
                    metrics::dropped("tts_chunk", "bad_rate", 1);
                    return;
                }
            }
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(samples, &mut self.samples);
        }
        self.send(ENOUGH, news);
    }

    /// The utterance is complete: sends the rest, and that it was the last.
    pub(super) fn finish(&mut self, news: &mut Outbox) {
        self.finish_resampling();
        self.send(1, news);
        self.end(news);
    }

    /// The utterance was cut or failed: ends its chunks, if there were any.
    pub(super) fn cut(&mut self, news: &mut Outbox) {
        if self.seq > 0 && !self.ended {
            self.end(news);
        }
    }

    fn finish_resampling(&mut self) {
        if let Some((_, mut resampler)) = self.resampler.take() {
            resampler.finish(&mut self.samples);
        }
    }

    fn send(&mut self, enough: usize, news: &mut Outbox) {
        while self.samples.len() >= enough {
            let n = self.samples.len().min(LONGEST);
            let mut codes = vec![0; n];
            g711::ulaw_encode(&self.samples[..n], &mut codes);
            self.samples.drain(..n);
            self.put(codes.into(), false, news);
        }
    }

    fn end(&mut self, news: &mut Outbox) {
        self.ended = true;
        self.put(Bytes::new(), true, news);
    }

    fn put(&mut self, audio: Bytes, last: bool, news: &mut Outbox) {
        news.put(SpeechEvent::Audio {
            utterance: self.utterance,
            seq: self.seq,
            audio,
            last,
        });
        self.seq += 1;
    }
}
