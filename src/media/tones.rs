//! Tones in the place of what the caller says: how keys are played where the caller's own audio comes back.

use super::leg::{Leg, Way};
use crate::base::ids::UtteranceId;
use std::{fmt, time::Duration};

/// Sound that takes the caller's place on its way, as far as it goes.
pub struct Tones {
    samples: Vec<i16>,
    /// The same in packets of Opus, each with so many samples, where packets are passed on as they are.
    packets: Vec<Box<[u8]>>,
    packet: usize,
    /// Samples that are said already.
    said: usize,
    /// Samples whose place is taken and not filled by a whole packet yet.
    owed: usize,
}

impl fmt::Debug for Tones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.samples.len() - self.said;
        f.debug_struct("Tones").field("left", &left).finish_non_exhaustive()
    }
}

impl Tones {
    /// Samples at the rate of the caller's audio.
    pub const fn new(samples: Vec<i16>) -> Self {
        Self {
            samples,
            packets: Vec::new(),
            packet: 0,
            said: 0,
            owed: 0,
        }
    }

    /// The same for a leg whose packets are passed on: what says the samples, in packets of `packet` samples, the last one filled
    /// up with silence.
    pub fn in_packets(mut samples: Vec<i16>, packet: usize, packets: Vec<Box<[u8]>>) -> Self {
        samples.resize(packets.len() * packet, 0);
        Self {
            packets,
            packet,
            ..Self::new(samples)
        }
    }

    /// Whether all of it is said.
    pub(super) const fn is_over(&self) -> bool {
        self.said == self.samples.len()
    }

    /// The next samples, at most `n`.
    pub(super) fn next(&mut self, n: usize) -> &[i16] {
        let from = self.said;
        self.said = self.samples.len().min(from + n);
        &self.samples[from..self.said]
    }

    /// The place of so many samples is free for packets.
    pub(super) const fn make_room(&mut self, n: usize) {
        self.owed += n;
    }

    /// The next packet that there is room for, with its samples.
    pub(super) fn next_packet(&mut self) -> Option<(&[i16], &[u8])> {
        if self.packet == 0 || self.owed < self.packet {
            return None;
        }
        let packet = self.packets.get(self.said / self.packet)?;
        let from = self.said;
        self.said += self.packet;
        self.owed -= self.packet;
        Some((&self.samples[from..self.said], packet))
    }
}

impl Leg {
    /// Tones go where the caller's samples would, and count as them.
    pub(super) fn relay_tones(&mut self, mut tones: Box<Tones>, samples: &[i16], resampled: &mut [i16]) {
        if let Way::Passed { down } = &mut self.way {
            self.accounts.in_dropped_unheard += samples.len() as u64;
            tones.make_room(samples.len());
            while let Some((said, packet)) = tones.next_packet() {
                if let Some(playout) = &mut self.playout {
                    playout.expect(Duration::from_millis(
                        said.len() as u64 * 1000 / u64::from(self.ingress.rate()),
                    ));
                }
                down.push_packet(UtteranceId::default(), said, packet, false);
            }
        } else {
            let sound = tones.next(samples.len());
            let rest = &samples[sound.len()..];
            self.hand_on(sound, None, 0, resampled);
            self.accounts.in_dropped_unheard += rest.len() as u64;
        }
        if !tones.is_over() {
            self.tones.push_front(tones);
        }
    }
}
