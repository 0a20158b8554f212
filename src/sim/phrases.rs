//! What a caller says to an agent whose ear is the fake recogniser: a tone that means a phrase, then quiet while the agent answers,
//! over and over. Encoded once and shared by all calls of a load.

use crate::{audio::codec::Encoder, base::format::AudioFormat, speech::stt::fake};

/// Length of a turn: the phrase and what the agent has time for. Whole frames of every vendor.
const TURN_MS: u32 = 8000;
/// Length of the tone.
const TONE_MS: u32 = 300;

/// One turn, in frames.
#[derive(Debug)]
pub(super) struct Phrases {
    frames: Vec<Vec<u8>>,
}

impl Phrases {
    /// In frames of `frame_ms`. `None` for a format that is not written here.
    pub(super) fn new(format: AudioFormat, frame_ms: u32) -> Option<Self> {
        let mut encoder = Encoder::new(format)?;
        let mut samples = fake::phrase(0, TONE_MS, format.rate);
        samples.resize((format.rate / 1000 * TURN_MS) as usize, 0);
        let frames = samples.chunks(format.samples_of_ms(frame_ms)).map(|samples| {
            let mut bytes = vec![0; format.encoding.bytes(samples.len())];
            encoder.encode(samples, &mut bytes);
            bytes
        });
        Some(Self {
            frames: frames.collect(),
        })
    }

    /// Frame `n` of the endless stream.
    pub(super) fn frame(&self, n: usize) -> &[u8] {
        &self.frames[n % self.frames.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_tone_and_quiet_in_whole_frames() {
        let phrases = Phrases::new(AudioFormat::ULAW_8K, 20).unwrap();
        assert_eq!(phrases.frames.len(), 400);
        assert!(phrases.frames.iter().all(|f| f.len() == 160));
        let silent = |n: usize| phrases.frame(n).iter().all(|b| *b == 0xff);
        assert!(!silent(0) && !silent(14) && silent(15) && silent(399) && !silent(400));
    }
}
