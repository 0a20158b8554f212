//! 16-bit linear PCM as bytes, in either order.
//!
//! Decoding refuses an odd number of bytes, as half a sample is lost data somebody must know of; both directions convert as
//! many samples as both slices hold and return that number.

use super::simd::Loops;
use std::{fmt, iter::zip};

/// Half a sample at the end: the bytes given are an odd number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddLength(pub usize);

impl fmt::Display for OddLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are no whole number of 16-bit samples", self.0)
    }
}

impl std::error::Error for OddLength {}

/// Reads little-endian samples.
pub fn decode_le(bytes: &[u8], pcm: &mut [i16]) -> Result<usize, OddLength> {
    let pairs = pairs(bytes)?;
    for (&pair, sample) in zip(pairs, &mut *pcm) {
        *sample = i16::from_le_bytes(pair);
    }
    Ok(pairs.len().min(pcm.len()))
}

/// Reads big-endian samples (network order, RFC 3551).
pub fn decode_be(bytes: &[u8], pcm: &mut [i16]) -> Result<usize, OddLength> {
    let pairs = pairs(bytes)?;
    Loops::best().read_be(pairs, pcm);
    Ok(pairs.len().min(pcm.len()))
}

/// Writes little-endian samples.
pub fn encode_le(pcm: &[i16], bytes: &mut [u8]) -> usize {
    let (pairs, _) = bytes.as_chunks_mut::<2>();
    let n = pairs.len().min(pcm.len());
    for (&sample, pair) in zip(pcm, pairs) {
        *pair = sample.to_le_bytes();
    }
    n
}

/// Writes big-endian samples (network order, RFC 3551).
pub fn encode_be(pcm: &[i16], bytes: &mut [u8]) -> usize {
    let (pairs, _) = bytes.as_chunks_mut::<2>();
    Loops::best().write_be(pcm, pairs);
    pairs.len().min(pcm.len())
}

fn pairs(bytes: &[u8]) -> Result<&[[u8; 2]], OddLength> {
    match bytes.as_chunks::<2>() {
        (pairs, []) => Ok(pairs),
        _ => Err(OddLength(bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn byte_order_is_as_named() {
        let mut bytes = [0; 4];
        assert_eq!(encode_le(&[0x1234, -2], &mut bytes), 2);
        assert_eq!(bytes, [0x34, 0x12, 0xfe, 0xff]);
        assert_eq!(encode_be(&[0x1234, -2], &mut bytes), 2);
        assert_eq!(bytes, [0x12, 0x34, 0xff, 0xfe]);
    }

    #[test]
    fn half_a_sample_is_an_error_and_writes_nothing() {
        let mut pcm = [7; 4];
        assert_eq!(decode_le(&[1, 2, 3], &mut pcm), Err(OddLength(3)));
        assert_eq!(decode_be(&[1], &mut pcm), Err(OddLength(1)));
        assert_eq!(pcm, [7; 4]);
    }

    proptest! {
        #[test]
        fn samples_survive_the_wire(pcm: Vec<i16>) {
            let mut bytes = vec![0; pcm.len() * 2];
            let mut back = vec![0; pcm.len()];
            prop_assert_eq!(encode_le(&pcm, &mut bytes), pcm.len());
            prop_assert_eq!(decode_le(&bytes, &mut back), Ok(pcm.len()));
            prop_assert_eq!(&back, &pcm);
            encode_be(&pcm, &mut bytes);
            prop_assert_eq!(decode_be(&bytes, &mut back), Ok(pcm.len()));
            prop_assert_eq!(&back, &pcm);
        }

        #[test]
        fn unequal_lengths_convert_what_both_hold(from in 0usize..9, to in 0usize..9) {
            let mut bytes = vec![0xa5; to];
            prop_assert_eq!(encode_le(&vec![0; from], &mut bytes), from.min(to / 2));
            let mut pcm = vec![7; to];
            prop_assert_eq!(decode_le(&vec![0; from * 2], &mut pcm), Ok(from.min(to)));
        }
    }
}
