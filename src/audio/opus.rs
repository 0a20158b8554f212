//! Opus (RFC 6716) both ways, mono, by libopus.
//!
//! One packet a call. libopus works on the stack, so nothing is allocated after construction. Decoding, and making up for packets
//! that were lost, may be done on a media thread; encoding takes 30 to 210 µs a frame and has no place there.

use audiopus::{
    Application, Bitrate, Channels, SampleRate,
    coder::{Decoder as Reader, Encoder as Writer},
};
use std::fmt;

/// Longest audio of one packet, in ms (RFC 6716 §3.2.5).
pub const MAX_MS: usize = 120;

/// Audio of the packets made here, in ms.
pub const FRAME_MS: u32 = 20;

/// Longest packet made here, in bytes: eight times the bit rate.
pub const MAX_PACKET: usize = 640;

/// Packets in a row that are made up for. After a longer gap the stream goes on where it is.
pub const MAX_LOST: u64 = 10;

/// Packets that may be lost on a leg, in percent: what forward error correction is laid out for.
pub const LOSSY: u8 = 5;

/// Packets to samples, mono.
#[derive(Debug)]
pub struct Decoder {
    library: Reader,
    rate: u32,
    /// Samples of the last packet.
    last: usize,
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

fn hz(rate: u32) -> Option<SampleRate> {
    Some(match rate {
        8000 => SampleRate::Hz8000,
        12_000 => SampleRate::Hz12000,
        16_000 => SampleRate::Hz16000,
        24_000 => SampleRate::Hz24000,
        48_000 => SampleRate::Hz48000,
        _ => return None,
    })
}

impl Decoder {
    /// A decoder that gives samples at `rate` Hz, whatever the packets were made from. `None` where libopus has no such
    /// rate.
    pub fn new(rate: u32) -> Option<Self> {
        let library = Reader::new(hz(rate)?, Channels::Mono).ok()?;
        Some(Self { library, rate, last: 0 })
    }

    /// Samples a second.
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// Decodes one packet; returns the samples written.
    pub fn decode(&mut self, packet: &[u8], pcm: &mut [i16]) -> Result<usize, BadPacket> {
        let room = pcm.len().min(self.rate as usize * MAX_MS / 1000);
        let n = self
            .library
            .decode(Some(packet), &mut pcm[..room], false)
            .map_err(|_| BadPacket)?;
        self.last = n;
        Ok(n)
    }

    /// Writes what `lost` packets before `next` may have held, each as long as the last one decoded, and returns the samples
    /// written. The one next to `next` comes from the copy that `next` may carry (in-band forward error correction, RFC 6716
    /// §2.1.7), the others are extrapolated. More than [`MAX_LOST`] are not made up for, nor is what comes before the first packet.
    pub fn conceal(&mut self, lost: u64, next: &[u8], pcm: &mut [i16]) -> usize {
        let (each, mut at) = (self.last, 0);
        if each == 0 || lost > MAX_LOST {
            return 0;
        }
        for left in (1..=lost).rev() {
            let Some(room) = pcm.get_mut(at..at + each) else { break };
            let n = match left {
                1 => self.library.decode(Some(next), room, true),
                _ => self.library.decode(None::<&[u8]>, room, false),
            };
            at += n.unwrap_or(0);
        }
        at
    }
}

/// Samples to packets of [`FRAME_MS`], mono.
#[derive(Debug)]
pub struct Encoder {
    library: Writer,
    frame: usize,
    lookahead: usize,
}

impl Encoder {
    /// An encoder of samples at `rate` Hz, tuned for speech. With `loss` percent of packets expected to be lost, packets carry
    /// copies of those before them. `None` where libopus has no such rate.
    pub fn new(rate: u32, loss: u8) -> Option<Self> {
        let bits = match rate {
            8000 => 20_000,
            12_000 | 16_000 => 28_000,
            _ => 32_000,
        };
        let mut library = Writer::new(hz(rate)?, Channels::Mono, Application::Voip).ok()?;
        library.set_bitrate(Bitrate::BitsPerSecond(bits)).ok()?;
        library.set_complexity(COMPLEXITY).ok()?;
        library.set_inband_fec(loss > 0).ok()?;
        library.set_packet_loss_perc(loss).ok()?;
        let lookahead = library.lookahead().ok()? as usize;
        Some(Self {
            library,
            frame: (rate * FRAME_MS / 1000) as usize,
            lookahead,
        })
    }

    /// Samples of a packet.
    pub const fn frame(&self) -> usize {
        self.frame
    }

    /// Samples by which what is decoded comes later than what was encoded.
    pub const fn lookahead(&self) -> usize {
        self.lookahead
    }

    /// Encodes [`Encoder::frame`] samples into `packet`, and returns the bytes written: at most [`MAX_PACKET`], and none where
    /// there are not so many samples.
    pub fn encode(&mut self, pcm: &[i16], packet: &mut [u8]) -> usize {
        let room = packet.len().min(MAX_PACKET);
        match pcm.len() == self.frame {
            true => self.library.encode(pcm, &mut packet[..room]).unwrap_or(0),
            false => 0,
        }
    }
}

/// Half of libopus's scale: no worse for speech that anybody could tell, at half the time.
const COMPLEXITY: u8 = 5;

/// Writes a packet of silence that lasts `samples` at `rate`, in units of 2.5 ms, without an encoder: CELT frames with the
/// silence flag (RFC 6716 §3.1, §4.3). Returns the bytes written, at most 98.
pub fn silence(samples: usize, rate: u32, packet: &mut [u8]) -> usize {
    const FRAME: [u8; 2] = [0xff, 0xfe];
    let units = (samples * 400 / rate.max(1) as usize).clamp(1, MAX_MS * 2 / 5);
    // Configurations 31 to 28: full band, 20, 10, 5 and 2.5 ms, mono.
    let (toc, per) = match units {
        n if n % 8 == 0 => (31 << 3, 8),
        n if n % 4 == 0 => (30 << 3, 4),
        n if n % 2 == 0 => (29 << 3, 2),
        _ => (28 << 3, 1),
    };
    let frames = units / per;
    // Several frames: code 3, constant length, no padding.
    let head: &[u8] = if frames == 1 { &[toc] } else { &[toc | 3, frames as u8] };
    let bytes = head.len() + FRAME.len() * frames;
    let Some(packet) = packet.get_mut(..bytes) else {
        return 0;
    };
    packet[..head.len()].copy_from_slice(head);
    packet[head.len()..]
        .chunks_exact_mut(2)
        .for_each(|f| f.copy_from_slice(&FRAME));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone::Sine;
    use proptest::prelude::*;

    fn tone(rate: u32) -> Vec<i16> {
        let mut pcm = vec![0; rate as usize];
        Sine::new(rate, 400.0, 10_000.0).fill(&mut pcm);
        pcm
    }

    fn packets(rate: u32, loss: u8, pcm: &[i16]) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(rate, loss).unwrap();
        let encode = |piece: &[i16]| {
            let mut packet = vec![0; MAX_PACKET];
            let n = encoder.encode(piece, &mut packet);
            packet.truncate(n);
            packet
        };
        pcm.chunks_exact(rate as usize / 50).map(encode).collect()
    }

    /// The amplitude of the tone in what was heard, and its power over that of all else, in dB, once everything has settled.
    fn tone_in(heard: &[i16], rate: u32) -> (f64, f64) {
        let heard = &heard[heard.len() / 4..];
        let turn = |n: usize| (n as f64 * 400.0 * std::f64::consts::TAU / f64::from(rate)).sin_cos();
        let (mut s, mut c, mut all) = (0.0, 0.0, 0.0);
        for (n, x) in heard.iter().enumerate() {
            let (sin, cos) = turn(n);
            (s, c) = (s + f64::from(*x) * sin, c + f64::from(*x) * cos);
            all += f64::from(*x).powi(2);
        }
        let half = heard.len() as f64 / 2.0;
        let power = (s.powi(2) + c.powi(2)) / half;
        ((power / half).sqrt(), 10.0 * (power / (all - power).max(1e-9)).log10())
    }

    #[test]
    fn what_was_encoded_comes_back_clean_and_as_loud() {
        for rate in [8000, 16_000, 24_000, 48_000] {
            let mut decoder = Decoder::new(rate).unwrap();
            let mut heard = Vec::new();
            for packet in packets(rate, 0, &tone(rate)) {
                assert!(packet.len() <= 200, "{} bytes at {rate}", packet.len());
                let mut out = vec![0; rate as usize / 50];
                assert_eq!(decoder.decode(&packet, &mut out), Ok(out.len()));
                heard.extend(out);
            }
            let (amplitude, db) = tone_in(&heard, rate);
            assert!(db > 25.0, "{db:.1} dB at {rate}");
            assert!((amplitude / 10_000.0 - 1.0).abs() < 0.05, "{amplitude:.0} at {rate}");
        }
    }

    #[test]
    fn a_click_comes_back_later_by_the_lookahead() {
        for rate in [8000, 48_000] {
            let (mut pcm, mut heard) = (vec![0; rate as usize], Vec::new());
            let at = rate as usize / 2;
            pcm[at..at + rate as usize / 1000].fill(20_000);
            let mut decoder = Decoder::new(rate).unwrap();
            for packet in packets(rate, 0, &pcm) {
                let mut out = vec![0; rate as usize / 50];
                decoder.decode(&packet, &mut out).unwrap();
                heard.extend(out);
            }
            let loudest = (0..heard.len()).max_by_key(|n| heard[*n].unsigned_abs()).unwrap();
            let late = loudest - at;
            let lookahead = Encoder::new(rate, 0).unwrap().lookahead();
            let ms = rate as usize / 1000;
            assert!(
                late.abs_diff(lookahead) <= 2 * ms,
                "{late} samples late, not {lookahead}"
            );
        }
    }

    #[test]
    fn a_packet_is_heard_at_the_rate_that_was_asked_for() {
        for rate in [8000, 16_000, 24_000, 48_000] {
            let mut decoder = Decoder::new(rate).unwrap();
            let mut heard = Vec::new();
            for packet in packets(16_000, LOSSY, &tone(16_000)) {
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

    /// What is heard of a tone when every fourth packet is lost; `made_up` says whether the gap is concealed or silent.
    fn heard_with_losses(made_up: bool) -> f64 {
        let mut decoder = Decoder::new(16_000).unwrap();
        let (mut heard, mut lost) = (Vec::new(), 0);
        for (n, packet) in packets(16_000, 25, &tone(16_000)).into_iter().enumerate() {
            if n % 4 == 3 {
                lost += 1;
                continue;
            }
            let mut out = [0; 640];
            let gap = match made_up {
                true => decoder.conceal(lost, &packet, &mut out),
                false => 320 * lost as usize,
            };
            assert_eq!(gap, 320 * lost as usize);
            heard.extend_from_slice(&out[..gap]);
            let n = decoder.decode(&packet, &mut out).unwrap();
            heard.extend_from_slice(&out[..n]);
            lost = 0;
        }
        tone_in(&heard, 16_000).1
    }

    #[test]
    fn lost_packets_are_made_up_for() {
        let (silent, concealed) = (heard_with_losses(false), heard_with_losses(true));
        assert!(concealed > silent + 1.5, "{concealed:.1} dB beside {silent:.1}");
    }

    #[test]
    fn what_cannot_be_made_up_for_is_left_out() {
        let packet = &packets(16_000, LOSSY, &tone(16_000))[0];
        let mut decoder = Decoder::new(16_000).unwrap();
        let mut out = [0; 1000];
        assert_eq!(decoder.conceal(1, packet, &mut out), 0, "nothing came before");
        decoder.decode(packet, &mut out).unwrap();
        assert_eq!(decoder.conceal(MAX_LOST + 1, packet, &mut out), 0);
        assert_eq!(
            decoder.conceal(5, packet, &mut out),
            960,
            "as much as there is room for"
        );
        assert_eq!(decoder.conceal(0, packet, &mut out), 0);
    }

    #[test]
    fn silence_needs_no_encoder_and_lasts_as_long_as_was_asked() {
        for (ms, bytes) in [(20, 3), (10, 3), (5, 3), (40, 6), (60, 8), (120, 14), (30, 8)] {
            let (mut packet, mut out) = ([0; 98], [1; 5760]);
            let n = silence(48 * ms, 48_000, &mut packet);
            assert_eq!(n, bytes, "{ms} ms");
            let mut decoder = Decoder::new(48_000).unwrap();
            assert_eq!(decoder.decode(&packet[..n], &mut out), Ok(48 * ms), "{ms} ms");
            assert!(out[..48 * ms].iter().all(|s| *s == 0));
        }
        assert_eq!(silence(960, 48_000, &mut [0; 2]), 0, "no room");
    }

    #[test]
    fn no_packet_and_no_room_are_refused() {
        let mut decoder = Decoder::new(16_000).unwrap();
        assert_eq!(decoder.decode(&[], &mut [0; 960]), Err(BadPacket));
        assert_eq!(decoder.decode(&[0xff; 3], &mut [0; 960]), Err(BadPacket));
        let packet = &packets(16_000, 0, &[0; 320])[0];
        assert_eq!(decoder.decode(packet, &mut [0; 10]), Err(BadPacket));
        assert!(
            decoder.decode(packet, &mut [0; 48_000]).is_ok(),
            "room for more is no fault"
        );
        assert!(Decoder::new(22_050).is_none() && Encoder::new(22_050, 0).is_none());
        let mut encoder = Encoder::new(16_000, 0).unwrap();
        assert_eq!(encoder.encode(&[0; 319], &mut [0; 100]), 0, "no whole frame");
    }

    proptest! {
        #[test]
        fn hostile_packets_are_refused_or_decoded(packet in prop::collection::vec(any::<u8>(), 0..400), lost in 0u64..12) {
            let mut pcm = [0; 5760];
            let mut decoder = Decoder::new(48_000).unwrap();
            for _ in 0..2 {
                prop_assert!(decoder.conceal(lost, &packet, &mut pcm) <= pcm.len());
                if let Ok(n) = decoder.decode(&packet, &mut pcm) {
                    prop_assert!(n <= pcm.len());
                }
            }
        }
    }
}
