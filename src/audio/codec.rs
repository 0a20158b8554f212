//! The one place where an [`Encoding`] becomes a function over samples.

use super::{g711, l16};
use crate::base::format::Encoding;

pub use l16::OddLength;

/// Writes the samples that `bytes` carry. Returns how many: as many as both slices hold.
///
/// Fails where the bytes are no whole number of samples, and writes nothing then.
pub fn decode(encoding: Encoding, bytes: &[u8], pcm: &mut [i16]) -> Result<usize, OddLength> {
    match encoding {
        Encoding::Ulaw => Ok(g711::ulaw_decode(bytes, pcm)),
        Encoding::Alaw => Ok(g711::alaw_decode(bytes, pcm)),
        Encoding::L16Le => l16::decode_le(bytes, pcm),
        Encoding::L16Be => l16::decode_be(bytes, pcm),
    }
}

/// Writes samples as bytes. Returns the bytes written: those of as many whole samples as both slices hold.
pub fn encode(encoding: Encoding, pcm: &[i16], bytes: &mut [u8]) -> usize {
    let samples = match encoding {
        Encoding::Ulaw => g711::ulaw_encode(pcm, bytes),
        Encoding::Alaw => g711::alaw_encode(pcm, bytes),
        Encoding::L16Le => l16::encode_le(pcm, bytes),
        Encoding::L16Be => l16::encode_be(pcm, bytes),
    };
    encoding.bytes(samples)
}

/// The bytes of one silent sample repeat this one (L16 in either order, μ-law) or are it (A-law).
pub const fn silence(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Ulaw => g711::ULAW_SILENCE,
        Encoding::Alaw => g711::ALAW_SILENCE,
        Encoding::L16Le | Encoding::L16Be => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 4] = [Encoding::Ulaw, Encoding::Alaw, Encoding::L16Le, Encoding::L16Be];

    #[test]
    fn what_was_encoded_decodes_to_nearly_the_same() {
        let pcm: Vec<i16> = (-100..100).map(|i| i * 300).collect();
        for encoding in ALL {
            let mut bytes = vec![0; encoding.bytes(pcm.len())];
            assert_eq!(encode(encoding, &pcm, &mut bytes), bytes.len());
            let mut back = vec![0; pcm.len()];
            assert_eq!(decode(encoding, &bytes, &mut back), Ok(pcm.len()));
            for (a, b) in pcm.iter().zip(&back) {
                assert!((a - b).abs() <= 16 + a.abs() / 32, "{encoding}: {a} became {b}");
            }
        }
    }

    #[test]
    fn the_silence_byte_decodes_to_silence() {
        for encoding in ALL {
            let mut pcm = [99; 4];
            decode(encoding, &vec![silence(encoding); encoding.bytes(4)], &mut pcm).unwrap();
            assert!(pcm.iter().all(|x| x.abs() <= 8), "{encoding}: {pcm:?}");
        }
    }

    #[test]
    fn an_odd_byte_is_refused_where_samples_have_two() {
        let mut pcm = [0; 8];
        assert_eq!(decode(Encoding::L16Le, &[0; 5], &mut pcm), Err(OddLength(5)));
        assert_eq!(decode(Encoding::Ulaw, &[0; 5], &mut pcm), Ok(5));
    }
}
