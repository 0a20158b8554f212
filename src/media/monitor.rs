//! A copy of a leg's audio for whoever listens in: from the media thread to the control plane by a lossy ring.
//!
//! The listener says what it wants, the vendor's own payloads or samples, and only that is copied. Nothing waits for it: what
//! does not fit is left out and counted. A listener that is gone is noticed by the media thread, which lets go of its end.

use crate::{
    audio::codec,
    base::{format::Encoding, time::Mono},
    record::Side,
    vendor::Payload,
};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

/// Samples of one piece at most, as bytes: 1 s of 48 kHz.
const MAX_BYTES: usize = 96_000;

const RAW: u8 = 1;
const SAMPLES: u8 = 2;

/// How a piece of audio is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The vendor's payload, base64 as it came.
    Base64,
    /// Bytes in the vendor's encoding.
    Encoded,
    /// Little-endian 16-bit samples.
    Samples {
        /// Whether there is no payload beside them, because the vendor writes none in base64.
        only: bool,
    },
}

/// One piece, in front of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorSpan {
    /// Whose audio.
    pub side: Side,
    /// How it is written.
    pub piece: Piece,
    /// When it begins, in ms since the stream began.
    pub at_ms: u64,
    /// Samples a second.
    pub rate: u32,
    /// Bytes.
    pub bytes: u32,
}

/// Makes both ends: room for so many bytes in so many pieces.
pub fn monitor(bytes: usize, pieces: usize) -> (MonitorTx, MonitorRx) {
    let (bytes_tx, bytes_rx) = RingBuffer::new(bytes);
    let (spans_tx, spans_rx) = RingBuffer::new(pieces);
    let (wants, lost) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
    let tx = MonitorTx {
        bytes: bytes_tx,
        spans: spans_tx,
        wants: wants.clone(),
        lost: lost.clone(),
        scratch: vec![0; MAX_BYTES].into(),
    };
    let rx = MonitorRx {
        bytes: bytes_rx,
        spans: spans_rx,
        wants,
        lost,
    };
    (tx, rx)
}

/// The media thread's end.
#[derive(Debug)]
pub struct MonitorTx {
    bytes: Producer<u8>,
    spans: Producer<MonitorSpan>,
    wants: Arc<AtomicU8>,
    lost: Arc<AtomicU64>,
    /// Room for samples as bytes, made where allocating hurts nobody.
    scratch: Box<[u8]>,
}

impl MonitorTx {
    fn wants(&self, what: u8) -> bool {
        self.wants.load(Relaxed) & what != 0
    }

    /// Copies a piece, or counts it as lost where there is no room for it.
    fn push(&mut self, side: Side, piece: Piece, at_ms: u64, rate: u32, bytes: &[u8]) {
        if self.spans.is_full() || self.bytes.push_entire_slice(bytes).is_err() {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        let bytes = bytes.len() as u32;
        let span = MonitorSpan {
            side,
            piece,
            at_ms,
            rate,
            bytes,
        };
        let _ = self.spans.push(span);
    }
}

/// A leg's copies, on the clock of its stream.
#[derive(Debug)]
pub(super) struct Monitor {
    tx: MonitorTx,
    began: Mono,
}

impl Monitor {
    pub(super) const fn new(tx: MonitorTx, began: Mono) -> Self {
        Self { tx, began }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        !self.tx.spans.is_abandoned()
    }

    /// Audio of the caller: the payload as it came, and the samples that it holds. The first `concealed` stand for what was lost
    /// before it.
    pub(super) fn caller(
        &mut self,
        now: Mono,
        payload: Payload<'_>,
        at_ms: Option<u64>,
        (samples, concealed): (&[i16], usize),
        rate: u32,
    ) {
        let at_ms = at_ms.unwrap_or_else(|| now.millis_since(self.began));
        let from_ms = at_ms.saturating_sub(concealed as u64 * 1000 / u64::from(rate.max(1)));
        let raw = match payload {
            Payload::Base64(text) => Some(text),
            Payload::Numbers(_) => None,
        };
        if let Some(text) = raw.filter(|_| self.tx.wants(RAW)) {
            self.tx.push(Side::Caller, Piece::Base64, at_ms, rate, text);
        }
        if self.tx.wants(SAMPLES) || (raw.is_none() && self.tx.wants(RAW)) {
            self.samples(Side::Caller, raw.is_none(), from_ms, rate, samples);
        }
    }

    /// Audio to the caller that begins to sound at `at`: samples, and the same as it is sent.
    pub(super) fn agent(&mut self, at: Mono, samples: &[i16], sent: &[u8], rate: u32) {
        let at_ms = at.millis_since(self.began);
        if self.tx.wants(RAW) {
            self.tx.push(Side::Agent, Piece::Encoded, at_ms, rate, sent);
        }
        if self.tx.wants(SAMPLES) {
            self.samples(Side::Agent, false, at_ms, rate, samples);
        }
    }

    fn samples(&mut self, side: Side, only: bool, at_ms: u64, rate: u32, samples: &[i16]) {
        let mut scratch = std::mem::take(&mut self.tx.scratch);
        let n = codec::encode(Encoding::L16Le, samples, &mut scratch);
        self.tx.push(side, Piece::Samples { only }, at_ms, rate, &scratch[..n]);
        self.tx.scratch = scratch;
    }
}

/// The listener's end.
#[derive(Debug)]
pub struct MonitorRx {
    bytes: Consumer<u8>,
    spans: Consumer<MonitorSpan>,
    wants: Arc<AtomicU8>,
    lost: Arc<AtomicU64>,
}

impl MonitorRx {
    /// Asks for the vendor's own payloads, for samples, or for both, from now on.
    pub fn want(&self, raw: bool, samples: bool) {
        let wants = if raw { RAW } else { 0 } | if samples { SAMPLES } else { 0 };
        self.wants.store(wants, Relaxed);
    }

    /// The next piece; its bytes replace what is in `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Option<MonitorSpan> {
        let span = self.spans.pop().ok()?;
        out.clear();
        out.resize(span.bytes as usize, 0);
        // The bytes were there before their span.
        let _ = self.bytes.pop_entire_slice(out);
        Some(span)
    }

    /// Pieces that found no room since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }

    /// Whether the leg is over and everything was read.
    pub fn is_over(&self) -> bool {
        self.spans.is_abandoned() && self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(rx: &mut MonitorRx) -> Vec<(Side, Piece, u64, Vec<u8>)> {
        let mut out = Vec::new();
        std::iter::from_fn(|| rx.next(&mut out).map(|s| (s.side, s.piece, s.at_ms, out.clone()))).collect()
    }

    #[test]
    fn pieces_come_whole_and_in_order_and_what_does_not_fit_is_left_out() {
        let (mut tx, mut rx) = monitor(10, 3);
        tx.push(Side::Caller, Piece::Base64, 20, 8000, b"abcd");
        tx.push(Side::Agent, Piece::Encoded, 21, 8000, b"efghi");
        tx.push(Side::Caller, Piece::Base64, 40, 8000, b"jk");
        tx.push(Side::Caller, Piece::Base64, 60, 8000, b"");
        tx.push(Side::Caller, Piece::Base64, 80, 8000, b"");
        let expected = [
            (Side::Caller, Piece::Base64, 20, b"abcd".to_vec()),
            (Side::Agent, Piece::Encoded, 21, b"efghi".to_vec()),
            (Side::Caller, Piece::Base64, 60, Vec::new()),
        ];
        assert_eq!(drained(&mut rx), expected);
        assert_eq!(
            (rx.take_lost(), rx.take_lost()),
            (2, 0),
            "one had no room for its bytes, one for itself"
        );
        assert!(!rx.is_over());
        drop(tx);
        assert!(rx.is_over());
    }

    #[test]
    fn only_what_is_wanted_is_copied_and_payloads_are_not_touched() {
        let (tx, mut rx) = monitor(1000, 30);
        let mut leg = Monitor::new(tx, Mono::from_millis(1000));
        let now = Mono::from_millis(1040);
        let mut copied = |raw, samples| {
            rx.want(raw, samples);
            leg.caller(now, Payload::Base64(b"//8="), None, (&[1, -1], 0), 8000);
            leg.caller(now, Payload::Numbers(b"1,-1"), None, (&[1, -1], 0), 8000);
            leg.agent(Mono::from_millis(1060), &[2], b"z", 8000);
            drained(&mut rx)
        };
        let base64 = (Side::Caller, Piece::Base64, 40, b"//8=".to_vec());
        let of_caller = |only| (Side::Caller, Piece::Samples { only }, 40, vec![1, 0, 0xff, 0xff]);
        let sent = (Side::Agent, Piece::Encoded, 60, b"z".to_vec());
        let of_agent = (Side::Agent, Piece::Samples { only: false }, 60, vec![2, 0]);
        assert_eq!(copied(false, false), []);
        assert_eq!(copied(true, false), [base64.clone(), of_caller(true), sent.clone()]);
        assert_eq!(
            copied(false, true),
            [of_caller(false), of_caller(true), of_agent.clone()]
        );
        assert_eq!(
            copied(true, true),
            [base64, of_caller(false), of_caller(true), sent, of_agent]
        );
        assert!(leg.is_heard());
        drop(rx);
        assert!(!leg.is_heard());
    }
}
