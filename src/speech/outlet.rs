//! The writing end of a leg's downlink as who speaks sees it: samples go in, and come out on the ring as it carries them: as they
//! are, as G.711 codes or, where the leg wants packets, as Opus of 20 ms. Encoding happens here, on the lane, and never on a media thread.

use crate::{
    audio::{
        codec,
        opus::{Encoder, LOSSY, MAX_PACKET},
        ring::DownlinkTx,
    },
    base::{format::Encoding, ids::UtteranceId},
};

/// Samples that are encoded at once.
const PIECE: usize = 960;

/// A downlink to be spoken into.
#[derive(Debug)]
pub(super) struct Outlet {
    ring: DownlinkTx,
    packer: Option<Packer>,
}

/// Samples on their way into packets.
#[derive(Debug)]
struct Packer {
    encoder: Encoder,
    /// What is no whole packet yet, and whose it is.
    partial: Vec<i16>,
    of: UtteranceId,
    packet: Box<[u8]>,
}

impl Outlet {
    /// Speaks into `ring`, in packets where it takes them.
    pub(super) fn new(ring: DownlinkTx) -> Self {
        let encoder = ring.takes_packets().then(|| Encoder::new(ring.rate(), LOSSY)).flatten();
        let packer = encoder.map(|encoder| Packer {
            partial: Vec::with_capacity(encoder.frame()),
            encoder,
            of: UtteranceId::default(),
            packet: vec![0; MAX_PACKET].into(),
        });
        Self { ring, packer }
    }

    /// Writes as many of `samples` as fit and returns how many. `last` is written with the final sample alone, so a return below
    /// `samples.len()` means that the end is still to be written. An empty slice with `last` ends the utterance. The last packet
    /// of an utterance is filled up with silence.
    pub(super) fn push(&mut self, utterance: UtteranceId, samples: &[i16], last: bool) -> usize {
        let law = self.law();
        match (&mut self.packer, law) {
            (Some(packer), _) => packer.push(&mut self.ring, utterance, samples, last),
            (None, None) => self.ring.push(utterance, samples, last),
            (None, Some(law)) => self.encode(law, utterance, samples, last),
        }
    }

    /// The law of the codes that the ring carries, where it carries codes.
    pub(super) fn law(&self) -> Option<Encoding> {
        Some(self.ring.format().encoding).filter(|e| *e != Encoding::L16Le)
    }

    /// The same as [`Outlet::push`] with codes of the ring's law, one in each place, which pass as they are.
    pub(super) fn pass(&mut self, utterance: UtteranceId, codes: &[i16], last: bool) -> usize {
        self.ring.push(utterance, codes, last)
    }

    fn encode(&mut self, law: Encoding, utterance: UtteranceId, samples: &[i16], last: bool) -> usize {
        let (mut codes, mut wide, mut done) = ([0; PIECE], [0; PIECE], 0);
        loop {
            let rest = &samples[done..];
            let n = rest.len().min(PIECE);
            codec::encode(law, &rest[..n], &mut codes);
            codec::widen(&codes[..n], &mut wide);
            let took = self.ring.push(utterance, &wide[..n], last && n == rest.len());
            done += took;
            if took < n || done == samples.len() {
                return done;
            }
        }
    }

    /// Whether an end marker would be taken now.
    pub(super) fn has_room(&self) -> bool {
        match &self.packer {
            None => self.ring.has_room(),
            Some(packer) => packer.has_room(&self.ring),
        }
    }

    /// Samples that are sure to fit now.
    pub(super) fn room(&self) -> usize {
        match &self.packer {
            None => self.ring.room(),
            Some(packer) if packer.has_room(&self.ring) => packer.encoder.frame() - packer.partial.len(),
            Some(_) => 0,
        }
    }

    /// Sample rate in Hz.
    pub(super) const fn rate(&self) -> u32 {
        self.ring.rate()
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }
}

impl Packer {
    fn has_room(&self, ring: &DownlinkTx) -> bool {
        ring.room() >= self.encoder.frame() && ring.room_for_packets() >= MAX_PACKET
    }

    fn push(&mut self, ring: &mut DownlinkTx, utterance: UtteranceId, samples: &[i16], last: bool) -> usize {
        if self.of != utterance && !self.partial.is_empty() {
            // Its end was never said.
            if !self.has_room(ring) {
                return 0;
            }
            self.send(ring, true);
        }
        self.of = utterance;
        let mut left = samples;
        loop {
            let (piece, rest) = left.split_at(left.len().min(self.encoder.frame() - self.partial.len()));
            let ends = last && rest.is_empty();
            let whole = self.partial.len() + piece.len() == self.encoder.frame();
            if (whole || ends) && !self.has_room(ring) {
                break;
            }
            self.partial.extend_from_slice(piece);
            left = rest;
            if whole || ends {
                self.send(ring, ends);
            }
            if left.is_empty() {
                break;
            }
        }
        samples.len() - left.len()
    }

    /// Sends what is there as a packet; there is room for it.
    fn send(&mut self, ring: &mut DownlinkTx, last: bool) {
        let bytes = match self.partial.is_empty() {
            true => 0,
            false => {
                self.partial.resize(self.encoder.frame(), 0);
                self.encoder.encode(&self.partial, &mut self.packet)
            }
        };
        ring.push_packet(self.of, &self.partial, &self.packet[..bytes], last);
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{
        opus::Decoder,
        ring::{DownlinkRx, downlink, downlink_of, downlink_of_packets},
        tone::Sine,
    };
    use crate::base::format::AudioFormat;
    use proptest::prelude::*;

    const U: UtteranceId = UtteranceId(1);

    fn outlet() -> (Outlet, DownlinkRx) {
        let (tx, rx) = downlink_of_packets(8000, 1600, 16, 4000);
        (Outlet::new(tx), rx)
    }

    /// The packets on the ring: utterance, samples, bytes, whether the utterance ends.
    fn taken(rx: &mut DownlinkRx) -> Vec<(u32, Vec<i16>, Vec<u8>, bool)> {
        let (mut samples, mut packet) = ([0; 960], [0; MAX_PACKET]);
        let mut all = Vec::new();
        while let Some(span) = rx.peek() {
            let (n, bytes, last) = rx.pop_packet(&mut samples, &mut packet);
            all.push((span.utterance.0, samples[..n].to_vec(), packet[..bytes].to_vec(), last));
        }
        all
    }

    #[test]
    fn a_ring_of_samples_is_given_samples() {
        let (tx, mut rx) = downlink(8000, 100, 8);
        let mut outlet = Outlet::new(tx);
        assert_eq!((outlet.room(), outlet.push(U, &[1, 2, 3], true)), (100, 3));
        assert_eq!(rx.pop(&mut [0; 9]), (3, true));
    }

    #[test]
    fn a_ring_of_codes_is_given_codes_those_that_are_codes_already_as_they_are() {
        for law in [Encoding::Ulaw, Encoding::Alaw] {
            let (tx, mut rx) = downlink_of(
                AudioFormat {
                    encoding: law,
                    rate: 8000,
                },
                3000,
                8,
            );
            let mut outlet = Outlet::new(tx);
            let mut said = vec![0; 2500];
            Sine::new(8000, 400.0, 9000.0).fill(&mut said);
            assert_eq!((outlet.law(), outlet.push(U, &said, true)), (Some(law), 2500));
            let every: Vec<i16> = (0..256).collect();
            assert_eq!(outlet.pass(U.next(), &every, true), 256);
            let (mut heard, mut expected) = (vec![0; 2500], vec![0; 2500]);
            let mut at = 0;
            let ended = loop {
                let (n, last) = rx.pop(&mut heard[at..]);
                at += n;
                if last || n == 0 {
                    break last;
                }
            };
            codec::encode(law, &said, &mut expected);
            assert!(ended && at == 2500 && heard.iter().copied().eq(expected.iter().map(|c| i16::from(*c))));
            assert_eq!(rx.pop(&mut heard), (256, true));
            assert_eq!(heard[..256], every);
            assert_eq!(
                (outlet.push(U, &[1; 4000], true), outlet.push(U, &[1; 10], true)),
                (3000, 0)
            );
        }
    }

    #[test]
    fn packets_decode_to_what_was_said_and_lie_beside_it() {
        let (mut outlet, mut rx) = outlet();
        let mut said = vec![0; 1500];
        Sine::new(8000, 400.0, 9000.0).fill(&mut said);
        for piece in said.chunks(70) {
            assert_eq!(outlet.push(U, piece, false), piece.len());
        }
        assert_eq!(outlet.push(U, &[], true), 0);
        let packets = taken(&mut rx);
        assert_eq!(packets.len(), 10);
        said.resize(1600, 0);
        assert_eq!(packets.iter().flat_map(|p| &p.1).copied().collect::<Vec<_>>(), said);
        let (mut decoder, mut heard) = (Decoder::new(8000).unwrap(), [0; 160]);
        for (n, (_, _, packet, last)) in packets.iter().enumerate() {
            assert_eq!(decoder.decode(packet, &mut heard), Ok(160));
            assert_eq!(*last, n == 9);
        }
    }

    #[test]
    fn a_full_ring_takes_no_part_of_a_packet_and_loses_nothing() {
        let (mut outlet, mut rx) = outlet();
        let mut said = 0;
        while outlet.push(U, &[5; 160], false) == 160 {
            said += 1;
        }
        assert!(!outlet.has_room() && outlet.room() == 0);
        assert_eq!(
            outlet.push(U, &[5; 100], false),
            100,
            "what is no packet yet waits here"
        );
        assert_eq!(outlet.push(U, &[5; 100], true), 0);
        assert_eq!(taken(&mut rx).len(), said);
        assert_eq!(outlet.room(), 60);
        assert_eq!(outlet.push(U, &[5; 100], true), 100);
        let rest = taken(&mut rx);
        assert_eq!(
            rest.iter().map(|p| (p.1.len(), p.3)).collect::<Vec<_>>(),
            [(160, false), (160, true)]
        );
    }

    #[test]
    fn an_utterance_whose_end_was_never_said_ends_where_another_begins() {
        let (mut outlet, mut rx) = outlet();
        outlet.push(U, &[1; 40], false);
        outlet.push(UtteranceId(2), &[2; 160], true);
        let packets = taken(&mut rx);
        assert_eq!(
            packets.iter().map(|p| (p.0, p.3)).collect::<Vec<_>>(),
            [(1, true), (2, true)]
        );
        assert_eq!(packets[1].1, [2; 160]);
        outlet.push(U, &[], true);
        let end = taken(&mut rx);
        assert_eq!((end[0].1.len(), end[0].2.len(), end[0].3), (0, 0, true));
    }

    proptest! {
        #[test]
        fn whatever_the_pieces_every_sample_taken_is_sent_once(pieces in prop::collection::vec((0usize..500, any::<bool>()), 1..40)) {
            let (mut outlet, mut rx) = outlet();
            let (mut model, mut sent, mut utterance) = (Vec::<i16>::new(), Vec::new(), U);
            for (n, last) in pieces {
                let samples: Vec<i16> = (0..n as i16).map(|i| i + 1).collect();
                let took = outlet.push(utterance, &samples, last);
                model.extend(&samples[..took]);
                let ended = last && took == n && taken_end(&mut rx, &mut sent);
                if ended {
                    model.resize(sent.len(), 0);
                    utterance = utterance.next();
                }
            }
            taken_end(&mut rx, &mut sent);
            prop_assert!(model.starts_with(&sent));
            prop_assert!(model.len() - sent.len() < 160);
        }
    }

    /// Takes what is on the ring; returns whether an utterance ended with it.
    fn taken_end(rx: &mut DownlinkRx, sent: &mut Vec<i16>) -> bool {
        let packets = taken(rx);
        sent.extend(packets.iter().flat_map(|p| &p.1));
        packets.last().is_some_and(|p| p.3)
    }
}
