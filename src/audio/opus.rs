//! Opus (RFC 6716), decoding alone, by libopus.
//!
//! One packet a call. libopus works on the stack, so nothing is allocated after construction. There is no encoder: at 30
//! to 210 µs a frame it has no place on a media thread.

use audiopus::{Channels, SampleRate, coder::Decoder as Library};
use std::fmt;

/// Longest audio of one packet, in ms (RFC 6716 §3.2.5).
pub const MAX_MS: usize = 120;

/// Packets to samples, mono.
#[derive(Debug)]
pub struct Decoder {
    library: Library,
    rate: u32,
}

/// A packet that is none, or holds more samples than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

impl fmt::Display for BadPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Opus packet, or longer than there is room for")
    }
}

impl std::error::Error for BadPacket {}

impl Decoder {
    /// A decoder that gives samples at `rate` Hz, whatever the packets were made from. `None` where libopus has no such
    /// rate.
    pub fn new(rate: u32) -> Option<Self> {
        let hz = match rate {
            8000 => SampleRate::Hz8000,
            12_000 => SampleRate::Hz12000,
            16_000 => SampleRate::Hz16000,
            24_000 => SampleRate::Hz24000,
            48_000 => SampleRate::Hz48000,
            _ => return None,
        };
        let library = Library::new(hz, Channels::Mono).ok()?;
        Some(Self { library, rate })
    }

    /// Samples a second.
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// Decodes one packet; returns the samples written.
    pub fn decode(&mut self, packet: &[u8], pcm: &mut [i16]) -> Result<usize, BadPacket> {
        let room = pcm.len().min(self.rate as usize * MAX_MS / 1000);
        self.library
            .decode(Some(packet), &mut pcm[..room], false)
            .map_err(|_| BadPacket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;
    use audiopus::{Application, coder::Encoder};
    use proptest::prelude::*;

    fn packets(rate: SampleRate, pcm: &[i16], frame: usize) -> Vec<Vec<u8>> {
        let encoder = Encoder::new(rate, Channels::Mono, Application::Voip).unwrap();
        let encode = |piece: &[i16]| {
            let mut packet = vec![0; 1500];
            let n = encoder.encode(piece, &mut packet).unwrap();
            packet.truncate(n);
            packet
        };
        pcm.chunks_exact(frame).map(encode).collect()
    }

    #[test]
    fn a_tone_comes_back_at_the_rate_that_was_asked_for() {
        let mut pcm = vec![0; 16_000];
        Sine::new(16_000, 400.0, 10_000.0).fill(&mut pcm);
        for rate in [8000, 16_000, 24_000, 48_000] {
            let mut decoder = Decoder::new(rate).unwrap();
            let mut heard = Vec::new();
            for packet in packets(SampleRate::Hz16000, &pcm, 320) {
                let mut out = vec![0; rate as usize / 10];
                let n = decoder.decode(&packet, &mut out).unwrap();
                assert_eq!(n, rate as usize / 50);
                heard.extend_from_slice(&out[..n]);
            }
            let tail = &heard[heard.len() / 2..];
            let crossings = tail.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count() as u32;
            let hz = crossings * rate / (2 * tail.len() as u32);
            assert!((395..=405).contains(&hz), "{hz} Hz at {rate}");
        }
    }

    #[test]
    fn no_packet_and_no_room_are_refused() {
        let mut decoder = Decoder::new(16_000).unwrap();
        assert_eq!(decoder.decode(&[], &mut [0; 960]), Err(BadPacket));
        assert_eq!(decoder.decode(&[0xff; 3], &mut [0; 960]), Err(BadPacket));
        let packet = &packets(SampleRate::Hz16000, &[0; 320], 320)[0];
        assert_eq!(decoder.decode(packet, &mut [0; 10]), Err(BadPacket));
        assert!(
            decoder.decode(packet, &mut [0; 48_000]).is_ok(),
            "room for more is no fault"
        );
        assert!(Decoder::new(22_050).is_none());
    }

    proptest! {
        #[test]
        fn hostile_packets_are_refused_or_decoded(packet in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut pcm = [0; 5760];
            if let Ok(n) = Decoder::new(48_000).unwrap().decode(&packet, &mut pcm) {
                prop_assert!(n <= pcm.len());
            }
        }
    }
}
