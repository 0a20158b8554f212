//! Lock-free single-producer single-consumer rings between a media thread and the threads that hear and speak.
//!
//! Samples are i16, mono, at the rate named when the ring is made. An uplink may carry G.711 codes instead, one in each place,
//! for ears that take a vendor's codec as it is. Nothing blocks and nothing allocates after construction; a full ring refuses and the refusal is the caller's to count. Built on `rtrb`.

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
    let encoding = match format.encoding {
        law @ (Encoding::Ulaw | Encoding::Alaw) => law,
        _ => Encoding::L16Le,
    };
    let format = AudioFormat { encoding, ..format };
    let tx = UplinkTx {
        samples: tx,
        bell,
        format,
    };
    (tx, UplinkRx { samples: rx, format })
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
}

/// The writing end of audio to the caller (mouth).
#[derive(Debug)]
pub struct DownlinkTx {
    samples: Producer<i16>,
    spans: Producer<Span>,
    rate: u32,
}

/// The reading end of audio to the caller (playout).
#[derive(Debug)]
pub struct DownlinkRx {
    samples: Consumer<i16>,
    spans: Consumer<Span>,
    head: Option<Span>,
    rate: u32,
}

/// Makes a downlink ring of `capacity` samples at `rate` Hz and room for `spans` descriptors.
pub fn downlink(rate: u32, capacity: usize, spans: usize) -> (DownlinkTx, DownlinkRx) {
    let (samples_tx, samples_rx) = RingBuffer::new(capacity);
    let (spans_tx, spans_rx) = RingBuffer::new(spans);
    (
        DownlinkTx {
            samples: samples_tx,
            spans: spans_tx,
            rate,
        },
        DownlinkRx {
            samples: samples_rx,
            spans: spans_rx,
            head: None,
            rate,
        },
    )
}

impl DownlinkTx {
    /// Writes as many of `samples` as fit and returns how many. `last` is written with the final sample alone, so a
    /// return below `samples.len()` means that the end is still to be written. An empty slice with `last` ends the utterance.
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
        });
        n
    }

    /// Whether an end marker would be taken now.
    pub fn has_room(&self) -> bool {
        !self.spans.is_full() && self.samples.slots() > 0
    }

    /// Samples that fit now.
    pub fn room(&self) -> usize {
        if self.spans.is_full() { 0 } else { self.samples.slots() }
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.rate
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

    /// Throws away up to `n` samples of the run at the head. Returns how many and whether the utterance ended with them.
    pub fn skip(&mut self, n: usize) -> (usize, bool) {
        let Some(span) = self.peek() else { return (0, false) };
        let n = n.min(span.samples as usize).min(self.samples.slots());
        if let Ok(chunk) = self.samples.read_chunk(n) {
            chunk.commit_all();
        }
        (n, self.advance(n))
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

    /// Whether nothing is queued, not even an end marker.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.spans.is_empty()
    }

    /// Sample rate in Hz.
    pub const fn rate(&self) -> u32 {
        self.rate
    }
}

fn pop_some(ring: &mut Consumer<i16>, out: &mut [i16]) -> usize {
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
                last: true
            })
        );
        assert_eq!(rx.skip(10), (0, true));
        assert!(rx.is_empty());
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
