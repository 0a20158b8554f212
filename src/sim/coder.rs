//! Samples into the payloads of a simulated vendor's messages, and payloads into samples, in every encoding that a vendor has.
//!
//! What the daemon need not do on a media thread is done here too: Opus is encoded.

use crate::{
    audio::{
        codec::{self, Decoder},
        opus,
    },
    base::format::{AudioFormat, Encoding},
};
use audiopus::{Application, Channels, SampleRate, coder::Encoder as OpusEncoder};
use std::fmt;

/// The longest packet that Opus makes (RFC 6716 §3.4).
const MAX_PACKET: usize = 1275;

/// Encodes one stream, a frame at a time.
pub(super) enum Coder {
    Plain(Encoding, codec::Encoder),
    Opus(OpusEncoder),
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coder")
    }
}

impl Coder {
    /// A coder of `format`; `None` where its encoding has no such rate.
    pub(super) fn new(format: AudioFormat) -> Option<Self> {
        if format.encoding != Encoding::Opus {
            return codec::Encoder::new(format).map(|encoder| Self::Plain(format.encoding, encoder));
        }
        let rate = match format.rate {
            8000 => SampleRate::Hz8000,
            16_000 => SampleRate::Hz16000,
            24_000 => SampleRate::Hz24000,
            48_000 => SampleRate::Hz48000,
            _ => return None,
        };
        let encoder = OpusEncoder::new(rate, Channels::Mono, Application::Voip);
        encoder.ok().map(Self::Opus)
    }

    /// The payload of a frame.
    pub(super) fn frame(&mut self, samples: &[i16]) -> Vec<u8> {
        match self {
            Self::Plain(encoding, encoder) => {
                let mut bytes = vec![0; encoding.bytes(samples.len())];
                let written = encoder.encode(samples, &mut bytes);
                bytes.truncate(written);
                bytes
            }
            Self::Opus(encoder) => {
                let mut packet = vec![0; MAX_PACKET];
                // Frames have a length that Opus knows; were it another, the packet would be empty.
                let written = encoder.encode(samples, &mut packet).unwrap_or(0);
                packet.truncate(written);
                packet
            }
        }
    }
}

/// Turns what a vendor is sent into 16-bit samples, where its encoding has a memory.
#[derive(Debug)]
pub(super) struct Reader {
    decoder: Decoder,
    pcm: Vec<i16>,
}

impl Reader {
    /// A reader of `format`, and the format of what it gives; `None` where the bytes are as good as samples.
    pub(super) fn new(format: AudioFormat) -> Option<(Self, AudioFormat)> {
        if !matches!(format.encoding, Encoding::G722 | Encoding::Opus) {
            return None;
        }
        let reader = Self {
            decoder: Decoder::new(format)?,
            pcm: vec![0; format.samples_of_ms(opus::MAX_MS as u32 * 10)],
        };
        let linear = AudioFormat {
            encoding: Encoding::L16Le,
            rate: format.rate,
        };
        Some((reader, linear))
    }

    /// The samples of a payload, little-endian; nothing where it cannot be read.
    pub(super) fn read(&mut self, payload: &[u8]) -> Vec<u8> {
        let samples = self.decoder.decode(payload, &mut self.pcm).unwrap_or(0);
        self.pcm[..samples].iter().flat_map(|s| s.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audio::tone::Sine, vendor};

    #[test]
    fn what_any_vendor_offers_is_written_and_can_be_read() {
        for vendor in vendor::VENDORS {
            assert_eq!(vendor.caps.offers.first(), Some(&vendor.caps.inbound), "{vendor:?}");
            for format in vendor.caps.offers {
                let mut tone = vec![0; format.samples_of_ms(400)];
                Sine::new(format.rate, 440.0, 8000.0).fill(&mut tone);
                let mut coder = Coder::new(*format).unwrap();
                let mut decoder = Decoder::new(*format).unwrap();
                let mut heard = Vec::new();
                for frame in tone.chunks(format.samples_of_ms(20)) {
                    let mut pcm = vec![0; format.samples_of_ms(120)];
                    let n = decoder.decode(&coder.frame(frame), &mut pcm).unwrap();
                    heard.extend_from_slice(&pcm[..n]);
                }
                assert_eq!(heard.len(), tone.len(), "{format:?}");
                let power = |s: &[i16]| s.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
                let half = tone.len() / 2;
                let ratio = power(&heard[half..]) / power(&tone[half..]);
                assert!((0.7..1.4).contains(&ratio), "{format:?}: {ratio}");
            }
        }
    }
}
