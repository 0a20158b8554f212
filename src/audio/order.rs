//! The byte order of 16-bit samples, found from the samples: neighbours in sound lie close together, and read the wrong way
//! round they do not.

use crate::base::format::Encoding;

/// Samples looked at before a guess is settled at the least: 20 ms at 16 kHz.
const LEAST: u32 = 320;
/// Samples after which the better guess is settled, however close it was: 2 s at 16 kHz.
const MOST: u32 = 32_000;
/// How much rougher the wrong order must look.
const RATIO: u64 = 4;

/// What is known of the order of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Sums of the differences of neighbours, read either way.
    little: u64,
    big: u64,
    /// Samples that said something: zeros read alike both ways.
    seen: u32,
}

impl Order {
    /// The order in which the next bytes of the stream are to be read.
    pub fn of(&mut self, bytes: &[u8]) -> Encoding {
        if !self.is_found() {
            let (samples, _) = bytes.as_chunks::<2>();
            for pair in samples.windows(2) {
                let difference = |read: fn([u8; 2]) -> i16| u64::from(read(pair[0]).abs_diff(read(pair[1])));
                self.little += difference(i16::from_le_bytes);
                self.big += difference(i16::from_be_bytes);
                self.seen += u32::from(pair[1] != [0, 0]);
            }
        }
        if self.big < self.little {
            Encoding::L16Be
        } else {
            Encoding::L16Le
        }
    }

    /// Whether the guess will not change any more.
    pub const fn is_found(&self) -> bool {
        let (least, most) = match self.big < self.little {
            true => (self.big, self.little),
            false => (self.little, self.big),
        };
        self.seen >= MOST || (self.seen >= LEAST && most >= least * RATIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{
        l16,
        tone::{Noise, Sine},
    };

    /// Frames of 20 ms at 16 kHz until the order is found, and what was found.
    fn found(samples: &[i16], big: bool) -> Option<(usize, Encoding)> {
        let mut bytes = vec![0; samples.len() * 2];
        match big {
            true => l16::encode_be(samples, &mut bytes),
            false => l16::encode_le(samples, &mut bytes),
        };
        let mut order = Order::default();
        bytes.chunks(640).enumerate().find_map(|(n, frame)| {
            let encoding = order.of(frame);
            order.is_found().then_some((n + 1, encoding))
        })
    }

    fn signal(what: &str) -> Vec<i16> {
        let mut samples = vec![0; 16_000];
        match what {
            "a loud tone" => Sine::new(16_000, 440.0, 20_000.0).fill(&mut samples),
            "a quiet tone" => Sine::new(16_000, 440.0, 60.0).fill(&mut samples),
            "the noise of a quiet line" => Noise::new(3).white(-72.0, &mut samples),
            "pink noise" => Noise::new(3).pink(-30.0, &mut samples),
            _ => {}
        }
        samples
    }

    #[test]
    fn either_order_is_found_within_the_first_frames_of_any_sound() {
        for what in ["a loud tone", "a quiet tone", "the noise of a quiet line", "pink noise"] {
            for (big, encoding) in [(false, Encoding::L16Le), (true, Encoding::L16Be)] {
                let (frames, order) = found(&signal(what), big).unwrap_or_else(|| panic!("{what}: never found"));
                assert_eq!(order, encoding, "{what}");
                assert!(frames <= 5, "{what}: {frames} frames");
            }
        }
    }

    #[test]
    fn silence_tells_nothing_and_is_read_as_little_endian() {
        assert_eq!(found(&signal("silence"), true), None);
        assert_eq!(Order::default().of(&[0; 640]), Encoding::L16Le);
    }

    #[test]
    fn noise_that_looks_alike_both_ways_is_settled_in_the_end() {
        let mut samples = vec![0; 40_000];
        Noise::new(9).white(-3.0, &mut samples);
        let (frames, _) = found(&samples, true).unwrap();
        assert!((100..=101).contains(&frames), "{frames}");
    }
}
