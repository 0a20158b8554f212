//! Audio from the caller: text to bytes to samples to the ear's ring, and a copy to the recording.
//!
//! Works in buffers lent by the media thread, so a leg owns little and a frame allocates nothing.

use crate::{
    audio::{
        codec::{self, Decoder},
        resample::Resampler,
        ring::UplinkTx,
        vad::{Vad, VadConfig, VadEvent},
    },
    base::format::{AudioFormat, Encoding},
    media::Accounting,
    vendor::Payload,
    wire::{base64, numbers},
};

/// Longest message that fits the buffers: 1 s of 48 kHz.
const MAX_SAMPLES: usize = 48_000;

/// Buffers of one media thread, lent to whichever leg has the turn.
#[derive(Debug)]
pub struct Scratch {
    pub(super) bytes: Box<[u8]>,
    pub(super) samples: Box<[i16]>,
    pub(super) resampled: Box<[i16]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            bytes: vec![0; MAX_SAMPLES * 2].into(),
            samples: vec![0; MAX_SAMPLES].into(),
            resampled: vec![0; MAX_SAMPLES].into(),
        }
    }
}

/// What a payload became.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Its bytes.
    pub(super) bytes: usize,
    /// Samples in front of its own that stand for what was lost.
    pub(super) concealed: usize,
    /// Samples, those included.
    pub(super) samples: usize,
}

/// A payload that could not be turned into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPayload;

/// Decodes one stream.
#[derive(Debug)]
pub(super) struct Ingress {
    format: AudioFormat,
    /// Absent for a format that is not spoken.
    decoder: Option<Decoder>,
    max_samples: usize,
}

impl Ingress {
    /// Reads `format`; a message longer than `max_ms` is refused.
    pub(super) fn new(format: AudioFormat, max_ms: u32) -> Self {
        Self {
            format,
            decoder: Decoder::new(format),
            max_samples: format.samples_of_ms(max_ms).min(MAX_SAMPLES),
        }
    }

    /// Whether the format is spoken.
    pub(super) const fn speaks(&self) -> bool {
        self.decoder.is_some()
    }

    /// How the stream writes its samples, as far as it is known.
    pub(super) fn encoding(&self) -> Encoding {
        self.decoder.as_ref().map_or(self.format.encoding, Decoder::encoding)
    }

    /// The audio has another rate from now on.
    pub(super) fn retune(&mut self, rate: u32) {
        let max_ms = self.max_samples * 1000 / self.format.rate as usize;
        *self = Self::new(AudioFormat { rate, ..self.format }, max_ms as u32);
    }

    /// Samples a second.
    pub(super) const fn rate(&self) -> u32 {
        self.format.rate
    }

    /// Samples that last `ms` milliseconds.
    pub(super) const fn samples_of_ms(&self, ms: u32) -> usize {
        self.format.samples_of_ms(ms)
    }

    /// Decodes a payload into `scratch.samples`. What the `lost` messages before it may have carried is made up for in front of it,
    /// where the encoding has the means. Its bytes stay in `scratch.bytes`.
    pub(super) fn decode(
        &mut self,
        payload: Payload<'_>,
        lost: u64,
        scratch: &mut Scratch,
    ) -> Result<Taken, BadPayload> {
        let text = match payload {
            Payload::Base64(text) => text,
            Payload::Numbers(text) => {
                let n = numbers::decode(text, &mut scratch.samples[..self.max_samples]).map_err(|_| BadPayload)?;
                return Ok(Taken {
                    bytes: 0,
                    concealed: 0,
                    samples: n,
                });
            }
        };
        let room = self.format.encoding.bytes(self.max_samples);
        let n = base64::decode(text, &mut scratch.bytes[..room]).map_err(|_| BadPayload)?;
        let decoder = self.decoder.as_mut().ok_or(BadPayload)?;
        let (bytes, samples) = (&scratch.bytes[..n], &mut scratch.samples);
        // Room for the payload itself is left: who conceals sends packets, the longest of 120 ms.
        let half = samples.len() / 2;
        let concealed = match lost {
            0 => 0,
            _ => decoder.conceal(lost, bytes, &mut samples[..half]),
        };
        let decoded = decoder
            .decode(bytes, &mut samples[concealed..])
            .map_err(|_| BadPayload)?;
        Ok(Taken {
            bytes: n,
            concealed,
            samples: concealed + decoded,
        })
    }
}

/// Samples on their way into an ear's ring, at its rate; or the stream's own codes, where the ring has those.
#[derive(Debug)]
pub(super) struct Uplink {
    ring: UplinkTx,
    resampler: Option<Resampler>,
}

impl Uplink {
    /// Feeds `ring` with samples of `rate`. `None` where no resampler exists between the rates.
    pub(super) fn new(ring: UplinkTx, rate: u32) -> Option<Self> {
        let resampler = match ring.rate() {
            r if r == rate => None,
            r => Some(Resampler::new(rate, r).ok()?),
        };
        Some(Self { ring, resampler })
    }

    /// Takes samples of another rate from now on. Where no resampler exists, they keep the pitch they have.
    pub(super) fn retune(&mut self, rate: u32) {
        self.resampler = match self.ring.rate() {
            r if r == rate => None,
            r => Resampler::new(rate, r).ok(),
        };
    }

    /// Pushes samples and books them. `codes` are the bytes they were decoded from and their encoding, where they are at hand.
    /// Returns whether the ear should be woken.
    pub(super) fn push(
        &mut self,
        samples: &[i16],
        codes: Option<(Encoding, &[u8])>,
        resampled: &mut [i16],
        accounts: &mut Accounting,
    ) -> bool {
        let law = Some(self.ring.format().encoding).filter(|e| *e != Encoding::L16Le);
        let taken = match (law, codes, &mut self.resampler) {
            (None, _, None) => self.ring.push(samples),
            (None, _, Some(r)) => {
                let n = r.process(samples, resampled);
                self.ring.push(&resampled[..n])
            }
            (Some(law), Some((encoding, codes)), None) if law == encoding => {
                let wide = &mut resampled[..codes.len()];
                widen(codes, wide);
                self.ring.push(wide)
            }
            // What came before the plan, or in another format than the stream began with.
            (Some(law), _, resampler) => {
                let n = match resampler {
                    Some(r) => r.process(samples, resampled),
                    None => {
                        resampled[..samples.len()].copy_from_slice(samples);
                        samples.len()
                    }
                };
                let wide = &mut resampled[..n];
                let mut codes = [0; 256];
                for piece in wide.chunks_mut(codes.len()) {
                    let n = codec::encode(law, piece, &mut codes);
                    widen(&codes[..n], piece);
                }
                self.ring.push(wide)
            }
        };
        let book = if taken {
            &mut accounts.in_relayed
        } else {
            &mut accounts.in_dropped_full
        };
        *book += samples.len() as u64;
        taken
    }

    /// The ear's bell.
    pub(super) fn ring(&self) -> &UplinkTx {
        &self.ring
    }
}

/// Puts each code in a place of its own.
fn widen(codes: &[u8], wide: &mut [i16]) {
    for (wide, code) in wide.iter_mut().zip(codes) {
        *wide = i16::from(*code);
    }
}

/// Hears the caller speak over the playout.
#[derive(Debug)]
pub(super) struct Onset {
    vad: Vad,
    config: VadConfig,
}

impl Onset {
    /// Listens to samples of `rate`. `None` where the detector does not know it.
    pub(super) fn new(rate: u32, config: VadConfig) -> Option<Self> {
        let vad = Vad::new(rate, config).ok()?;
        Some(Self { vad, config })
    }

    /// Listens to samples of another rate from now on.
    pub(super) fn retune(&mut self, rate: u32) {
        if let Ok(vad) = Vad::new(rate, self.config) {
            self.vad = vad;
        }
    }

    /// Whether speech began within `samples`.
    pub(super) fn heard(&mut self, samples: &[i16]) -> bool {
        let mut began = false;
        self.vad
            .process(samples, |event| began |= matches!(event, VadEvent::Onset { .. }));
        began
    }
}
