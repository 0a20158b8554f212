//! Lock-free single-producer single-consumer rings between a media thread and the threads that hear and speak.
//!
//! Samples are i16, mono, at the rate named when the ring is made. Either way may carry G.711 codes instead, one in each place, for
//! ears that take a vendor's codec as it is and mouths that speak it. Nothing blocks and nothing allocates after construction; a full ring refuses and the refusal is the caller's to count. Built on `rtrb`.
//!
//! A downlink may carry packets: then each run of samples comes with the packet that says the same, encoded where there is time
//! for it, and the media thread passes it on. The samples stay beside it for whoever records or listens.

use crate::base::{
    doorbell::Doorbell,
    format::{AudioFormat, Encoding},
    ids::UtteranceId,
};
use rtrb::{Consumer, Producer, RingBuffer, chunks::ChunkError};
use std::sync::Arc;

/// The writing end of audio from the caller (media thread).
#[derive(Debug)]
pub struct UplinkTx {
    samples: Producer<i16>,
    bell: Option<Arc<Doorbell>>,
    format: AudioFormat,
}

/// The reading end of audio from the caller (ear).
#[derive(Debug)]
pub struct UplinkRx {
    samples: Consumer<i16>,
    format: AudioFormat,
}

/// Makes an uplink ring of `capacity` samples at `rate` Hz. `bell` wakes the reader.
pub fn uplink(rate: u32, capacity: usize, bell: Option<Arc<Doorbell>>) -> (UplinkTx, UplinkRx) {
    let encoding = Encoding::L16Le;
    uplink_of(AudioFormat { encoding, rate }, capacity, bell)
}

/// The same for a stream of this format: a ring of its codes where it is G.711, else of samples at its rate.
pub fn uplink_of(format: AudioFormat, capacity: usize, bell: Option<Arc<Doorbell>>) -> (UplinkTx, UplinkRx) {
    let (tx, rx) = RingBuffer::new(capacity);
    let format = carried(format);
    let tx = UplinkTx {
        samples: tx,
        bell,
        format,
    };
    (tx, UplinkRx { samples: rx, format })
}

/// What a ring for a stream of this format carries: codes where that is G.711, else samples.
const fn carried(format: AudioFormat) -> AudioFormat {
    let encoding = match format.encoding {
        law @ (Encoding::Ulaw | Encoding::Alaw) => law,
        _ => Encoding::L16Le,
    };
    AudioFormat { encoding, ..format }
}

impl UplinkTx {
    /// Writes all of `samples`, or none when they do not fit. Returns whether they did.
    pub fn push(&mut self, samples: &[i16]) -> bool {
        self.samples.push_entire_slice(samples).is_ok()
    }

    /// What is in it: G.711 codes, or samples, whose encoding is [`Encoding::L16Le`].
    pub const fn format(&self) -> AudioFormat {
        self.format
    }

    /// The reader's bell, to be rung once after a batch of pushes.
    pub fn bell(&self) -> Option<&Arc<Doorbell>> {
        self.bell.as_ref()
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.format.rate
    }

    /// Samples written and not yet read.
    pub fn queued(&self) -> usize {
        self.samples.buffer().capacity() - self.samples.slots()
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.samples.is_abandoned()
    }
}

impl UplinkRx {
    /// Reads up to `out.len()` samples, returns how many.
    pub fn pop(&mut self, out: &mut [i16]) -> usize {
        pop_some(&mut self.samples, out)
    }

    /// What is in it: G.711 codes, or samples, whose encoding is [`Encoding::L16Le`].
    pub const fn format(&self) -> AudioFormat {
        self.format
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.format.rate
    }

    /// Samples ready to be read.
    pub fn queued(&self) -> usize {
        self.samples.slots()
    }

    /// Whether the writer is gone and all was read.
    pub fn is_closed(&self) -> bool {
        self.samples.is_abandoned() && self.samples.is_empty()
    }
}

/// A run of samples of one utterance, in front of the samples themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose samples these are.
    pub utterance: UtteranceId,
    /// How many.
    pub samples: u32,
    /// Whether the utterance ends with them.
    pub last: bool,
    /// Bytes of the packet that says the same, in a ring of packets.
    pub bytes: u32,
}

/// The writing end of audio to the caller (mouth).
#[derive(Debug)]
pub struct DownlinkTx {
    samples: Producer<i16>,
    spans: Producer<Span>,
    packets: Option<Producer<u8>>,
    format: AudioFormat,
}

/// The reading end of audio to the caller (playout).
#[derive(Debug)]
pub struct DownlinkRx {
    samples: Consumer<i16>,
    spans: Consumer<Span>,
    packets: Option<Consumer<u8>>,
    head: Option<Span>,
    format: AudioFormat,
}

/// Makes a downlink ring of `capacity` samples at `rate` Hz and room for `spans` descriptors.
pub fn downlink(rate: u32, capacity: usize, spans: usize) -> (DownlinkTx, DownlinkRx) {
    make(samples_of(rate), capacity, spans, None)
}

/// The same for a stream of this format: a ring of its codes where it is G.711, else of samples at its rate.
pub fn downlink_of(format: AudioFormat, capacity: usize, spans: usize) -> (DownlinkTx, DownlinkRx) {
    make(carried(format), capacity, spans, None)
}

/// The same with packets beside the samples, `spans` at most and `bytes` of them.
pub fn downlink_of_packets(rate: u32, capacity: usize, spans: usize, bytes: usize) -> (DownlinkTx, DownlinkRx) {
    make(samples_of(rate), capacity, spans, Some(bytes))
}

const fn samples_of(rate: u32) -> AudioFormat {
    let encoding = Encoding::L16Le;
    AudioFormat { encoding, rate }
}

fn make(format: AudioFormat, capacity: usize, spans: usize, bytes: Option<usize>) -> (DownlinkTx, DownlinkRx) {
    let (samples_tx, samples_rx) = RingBuffer::new(capacity);
    let (spans_tx, spans_rx) = RingBuffer::new(spans);
    let (packets_tx, packets_rx) = bytes.map(RingBuffer::new).unzip();
    (
        DownlinkTx {
            samples: samples_tx,
            spans: spans_tx,
            packets: packets_tx,
            format,
        },
        DownlinkRx {
            samples: samples_rx,
            spans: spans_rx,
            packets: packets_rx,
            head: None,
            format,
        },
    )
}

impl DownlinkTx {
    /// Writes as many of `samples` as fit and returns how many. `last` is written with the final sample alone, so a
    /// return below `samples.len()` means that the end is still to be written. An empty slice with `last` ends the utterance.
    /// A ring of packets is filled by [`DownlinkTx::push_packet`] instead.
    pub fn push(&mut self, utterance: UtteranceId, samples: &[i16], last: bool) -> usize {
        if self.spans.is_full() {
            return 0;
        }
        let n = samples.len().min(self.samples.slots());
        let last = last && n == samples.len();
        if n == 0 && !last {
            return 0;
        }
        let _ = self.samples.push_entire_slice(&samples[..n]);
        let _ = self.spans.push(Span {
            utterance,
            samples: n as u32,
            last,
            bytes: 0,
        });
        n
    }

    /// Writes a packet and the samples that it says, or neither where they do not fit. Returns whether they did.
    pub fn push_packet(&mut self, utterance: UtteranceId, samples: &[i16], packet: &[u8], last: bool) -> bool {
        if self.spans.is_full() || self.samples.slots() < samples.len() {
            return false;
        }
        let Some(packets) = &mut self.packets else { return false };
        if packets.push_entire_slice(packet).is_err() {
            return false;
        }
        let _ = self.samples.push_entire_slice(samples);
        let _ = self.spans.push(Span {
            utterance,
            samples: samples.len() as u32,
            last,
            bytes: packet.len() as u32,
        });
        true
    }

    /// Whether this is a ring of packets.
    pub const fn takes_packets(&self) -> bool {
        self.packets.is_some()
    }

    /// Bytes of packets that fit now.
    pub fn room_for_packets(&self) -> usize {
        self.packets.as_ref().map_or(0, Producer::slots)
    }

    /// Whether an end marker would be taken now.
    pub fn has_room(&self) -> bool {
        !self.spans.is_full() && self.samples.slots() > 0
    }

    /// Samples that fit now.
    pub fn room(&self) -> usize {
        if self.spans.is_full() { 0 } else { self.samples.slots() }
    }

    /// What is in it: G.711 codes, or samples, whose encoding is [`Encoding::L16Le`].
    pub const fn format(&self) -> AudioFormat {
        self.format
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.format.rate
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.samples.is_abandoned()
    }
}

impl DownlinkRx {
    /// The run at the head: what is left of it. Spans without samples appear too, for their `last`.
    pub fn peek(&mut self) -> Option<Span> {
        if self.head.is_none() {
            self.head = self.spans.pop().ok();
        }
        self.head
    }

    /// Reads up to `out.len()` samples of the run at the head. Returns how many and whether the utterance ended with them.
    pub fn pop(&mut self, out: &mut [i16]) -> (usize, bool) {
        let Some(span) = self.peek() else { return (0, false) };
        let n = (span.samples as usize).min(out.len());
        let n = pop_some(&mut self.samples, &mut out[..n]);
        (n, self.advance(n))
    }

    /// Reads the packet at the head and the samples that it says, as far as each finds room. Returns how many samples and bytes, and
    /// whether the utterance ended with them.
    pub fn pop_packet(&mut self, out: &mut [i16], packet: &mut [u8]) -> (usize, usize, bool) {
        let Some(span) = self.peek() else { return (0, 0, false) };
        let n = (span.samples as usize).min(out.len());
        let n = pop_some(&mut self.samples, &mut out[..n]);
        let bytes = (span.bytes as usize).min(packet.len());
        let bytes = match &mut self.packets {
            Some(packets) => pop_some(packets, &mut packet[..bytes]),
            None => 0,
        };
        drop_some(&mut self.samples, span.samples as usize - n);
        (n, bytes, self.end_head(bytes))
    }

    /// Throws away up to `n` samples of the run at the head, in a ring of packets all of it or nothing. Returns how many and whether
    /// the utterance ended with them.
    pub fn skip(&mut self, n: usize) -> (usize, bool) {
        let Some(span) = self.peek() else { return (0, false) };
        if self.packets.is_some() {
            if n == 0 && span.samples > 0 {
                return (0, false);
            }
            let n = drop_some(&mut self.samples, span.samples as usize);
            return (n, self.end_head(0));
        }
        let n = drop_some(&mut self.samples, n.min(span.samples as usize));
        (n, self.advance(n))
    }

    /// The packet at the head is done with, of which `taken` bytes were read.
    fn end_head(&mut self, taken: usize) -> bool {
        let Some(span) = self.head.take() else { return false };
        if let Some(packets) = &mut self.packets {
            drop_some(packets, span.bytes as usize - taken);
        }
        span.last
    }

    fn advance(&mut self, n: usize) -> bool {
        let Some(span) = &mut self.head else { return false };
        span.samples -= n as u32;
        if span.samples > 0 {
            return false;
        }
        let last = span.last;
        self.head = None;
        last
    }

    /// Samples queued over all runs.
    pub fn queued(&self) -> usize {
        self.samples.slots()
    }

    /// Whether this is a ring of packets.
    pub const fn holds_packets(&self) -> bool {
        self.packets.is_some()
    }

    /// Whether nothing is queued, not even an end marker.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.spans.is_empty()
    }

    /// What is in it: G.711 codes, or samples, whose encoding is [`Encoding::L16Le`].
    pub const fn format(&self) -> AudioFormat {
        self.format
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.format.rate
    }
}

fn pop_some<T: Copy>(ring: &mut Consumer<T>, out: &mut [T]) -> usize {
    let n = out.len().min(ring.slots());
    match ring.read_chunk(n) {
        Ok(chunk) => {
            let (a, b) = chunk.as_slices();
            out[..a.len()].copy_from_slice(a);
            out[a.len()..n].copy_from_slice(b);
            chunk.commit_all();
            n
        }
        Err(ChunkError::TooFewSlots(_)) => 0,
    }
}

fn drop_some<T: Copy>(ring: &mut Consumer<T>, n: usize) -> usize {
    let n = n.min(ring.slots());
    match ring.read_chunk(n) {
        Ok(chunk) => {
            chunk.commit_all();
            n
        }
        Err(ChunkError::TooFewSlots(_)) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_uplink_takes_all_or_nothing() {
        let (mut tx, mut rx) = uplink(8000, 4, None);
        assert!(tx.push(&[1, 2, 3]));
        assert!(!tx.push(&[4, 5]));
        assert_eq!(tx.queued(), 3);
        let mut out = [0; 8];
        assert_eq!(rx.pop(&mut out), 3);
        assert_eq!(&out[..3], &[1, 2, 3]);
        drop(tx);
        assert!(rx.is_closed());
    }

    #[test]
    fn the_end_of_an_utterance_travels_with_its_last_sample() {
        let (mut tx, mut rx) = downlink(8000, 4, 8);
        let u = UtteranceId(1);
        assert_eq!(tx.push(u, &[1, 2, 3, 4, 5, 6], true), 4);
        let mut out = [0; 3];
        assert_eq!(rx.pop(&mut out), (3, false));
        assert_eq!(tx.push(u, &[5, 6], true), 2);
        assert_eq!(rx.pop(&mut out), (1, false));
        assert_eq!(rx.pop(&mut out), (2, true));
        assert_eq!(tx.push(u, &[], true), 0);
        assert_eq!(
            rx.peek(),
            Some(Span {
                utterance: u,
                samples: 0,
                last: true,
                bytes: 0
            })
        );
        assert_eq!(rx.skip(10), (0, true));
        assert!(rx.is_empty());
    }

    #[test]
    fn a_packet_and_its_samples_come_whole_or_not_at_all() {
        let (mut tx, mut rx) = downlink_of_packets(8000, 6, 3, 8);
        let u = UtteranceId(1);
        assert!(tx.takes_packets() && rx.holds_packets());
        assert!(tx.push_packet(u, &[1, 2], b"abc", false));
        assert!(!tx.push_packet(u, &[3], b"longer", false), "no room for its bytes");
        assert!(!tx.push_packet(u, &[3; 5], b"d", false), "no room for its samples");
        assert_eq!((tx.room(), tx.room_for_packets()), (4, 5));
        assert!(tx.push_packet(u, &[3, 4], b"de", false));
        assert!(tx.push_packet(u, &[5, 6], b"f", true));
        assert!(!tx.push_packet(u, &[], b"", true), "no room for its descriptor");
        let (mut out, mut packet) = ([0; 9], [0; 9]);
        assert_eq!(rx.skip(0), (0, false));
        assert_eq!(rx.pop_packet(&mut out, &mut packet), (2, 3, false));
        assert_eq!((&out[..2], &packet[..3]), (&[1, 2][..], &b"abc"[..]));
        assert_eq!(rx.skip(1), (2, false), "a packet cannot be halved");
        assert_eq!(rx.pop_packet(&mut out[..1], &mut packet), (1, 1, true));
        assert_eq!((out[0], packet[0]), (5, b'f'));
        assert!(rx.is_empty() && rx.queued() == 0);
        assert_eq!((tx.room(), tx.room_for_packets()), (6, 8));
        let (mut plain, _rx) = downlink(8000, 6, 3);
        assert!(
            !plain.push_packet(u, &[1], b"a", false),
            "a ring of samples takes no packets"
        );
    }

    proptest! {
        #[test]
        fn a_downlink_is_a_queue_of_tagged_samples(ops in prop::collection::vec((0usize..3, 0usize..9, any::<bool>()), 1..200)) {
            let (mut tx, mut rx) = downlink(8000, 16, 6);
            let mut model: std::collections::VecDeque<(u32, i16)> = Default::default();
            let (mut u, mut next) = (UtteranceId(1), 0i16);
            for (op, n, last) in ops {
                let mut out = [0; 9];
                match op {
                    0 => {
                        let samples: Vec<i16> = (0..n as i16).map(|i| next.wrapping_add(i)).collect();
                        let took = tx.push(u, &samples, last);
                        model.extend(samples[..took].iter().map(|s| (u.0, *s)));
                        next = next.wrapping_add(took as i16);
                        if last && took == n { u = u.next(); }
                    }
                    _ => {
                        let tag = rx.peek().map(|s| s.utterance.0);
                        let (got, _) = if op == 1 { rx.pop(&mut out[..n]) } else { rx.skip(n) };
                        for (i, sample) in out.iter().enumerate().take(got) {
                            let (mu, ms) = model.pop_front().unwrap();
                            prop_assert_eq!(Some(mu), tag);
                            if op == 1 { prop_assert_eq!(ms, *sample, "at {}", i); }
                        }
                    }
                }
                prop_assert_eq!(rx.queued(), model.len());
            }
        }
    }
}
