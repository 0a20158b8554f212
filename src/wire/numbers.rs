//! Audio as a JSON array of 16-bit numbers, between slices: the text between the brackets on one side, samples on the other.
//!
//! Numbers beyond 16 bits are clamped and fractions cut off, because senders compute them; exponents, leading zeros and
//! everything else that JSON or arithmetic would not write are refused.

use bytes::{BufMut, BytesMut};
use std::fmt;

/// Text that is not such an array, or more of it than fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNumbers {
    /// Something that is no decimal number, or none between two commas.
    Invalid,
    /// More numbers than there is room for.
    TooLong,
}

impl fmt::Display for BadNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "not a list of decimal numbers",
            Self::TooLong => "more numbers than allowed",
        })
    }
}

impl std::error::Error for BadNumbers {}

/// Writes the numbers of `text` to the front of `out` and returns how many.
pub fn decode(text: &[u8], out: &mut [i16]) -> Result<usize, BadNumbers> {
    let mut rest = space(text);
    if rest.is_empty() {
        return Ok(0);
    }
    let mut n = 0;
    loop {
        let (value, after) = number(rest).ok_or(BadNumbers::Invalid)?;
        *out.get_mut(n).ok_or(BadNumbers::TooLong)? = value;
        n += 1;
        rest = match after {
            // Between numbers there is a comma and nothing else, in every message but a pretty-printed one.
            [b',', next @ ..] => next,
            other => match space(other) {
                [] => return Ok(n),
                [b',', next @ ..] => next,
                _ => return Err(BadNumbers::Invalid),
            },
        };
        if !matches!(rest, [b'-' | b'0'..=b'9', ..]) {
            rest = space(rest);
        }
    }
}

fn space(text: &[u8]) -> &[u8] {
    let n = text.iter().take_while(|b| b" \t\r\n".contains(b)).count();
    &text[n..]
}

/// A number at the beginning of `text`, and what follows it.
#[inline]
fn number(text: &[u8]) -> Option<(i16, &[u8])> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (mut value, mut len) = (0_u32, 0);
    while let Some(digit @ b'0'..=b'9') = digits.get(len) {
        value = (value * 10 + u32::from(digit - b'0')).min(100_000);
        len += 1;
    }
    if len == 0 || (len > 1 && digits[0] == b'0') {
        return None;
    }
    let mut rest = &digits[len..];
    if let [b'.', fraction @ ..] = rest {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        rest = &fraction[len..];
    }
    let value = if negative {
        -(value.min(32_768) as i32)
    } else {
        value.min(32_767) as i32
    };
    Some((value as i16, rest))
}

/// Appends little-endian samples as numbers parted by commas. Allocates only if `out` lacks the room.
pub fn append(pcm: &[u8], out: &mut BytesMut) {
    let (samples, _) = pcm.as_chunks::<2>();
    // A sign, five digits and a comma.
    out.reserve(samples.len() * 7);
    for (n, sample) in samples.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        let sample = i16::from_le_bytes(*sample);
        if sample < 0 {
            out.put_u8(b'-');
        }
        let mut text = [0; 5];
        let mut at = text.len();
        let mut left = sample.unsigned_abs();
        loop {
            at -= 1;
            text[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out.put_slice(&text[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<i16>, BadNumbers> {
        let mut out = [0; 8];
        decode(text.as_bytes(), &mut out).map(|n| out[..n].to_vec())
    }

    #[test]
    fn numbers_are_read_as_senders_write_them() {
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read(" \n"), Ok(vec![]));
        assert_eq!(read("8,8,-3"), Ok(vec![8, 8, -3]));
        assert_eq!(read(" 0 , -0\t,\r\n-32768, 32767 "), Ok(vec![0, 0, -32768, 32767]));
        assert_eq!(read("40000,-40000,99999999999"), Ok(vec![32767, -32768, 32767]));
        assert_eq!(read("1.9,-1.9,0.0"), Ok(vec![1, -1, 0]));
    }

    #[test]
    fn what_is_no_list_of_numbers_is_refused() {
        for bad in [
            ",", "1,", ",1", "1,,2", "1 2", "-", "--1", "+1", "01", "1.", ".5", "1e3", "null", "\"1\"", "[1]", "1;2",
        ] {
            assert_eq!(read(bad), Err(BadNumbers::Invalid), "{bad}");
        }
        assert_eq!(read("1,2,3,4,5,6,7,8,9"), Err(BadNumbers::TooLong));
    }

    proptest! {
        #[test]
        fn samples_survive(samples in prop::collection::vec(any::<i16>(), 0..200)) {
            let pcm: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
            let mut text = BytesMut::new();
            append(&pcm, &mut text);
            let mut out = vec![0; samples.len()];
            prop_assert_eq!(decode(&text, &mut out), Ok(samples.len()));
            prop_assert_eq!(out, samples);
        }

        #[test]
        fn what_json_refuses_is_refused_and_what_it_takes_is_equal(text in "[-0-9, .e\\[]{0,12}") {
            let mut out = [0; 16];
            let ours = decode(text.as_bytes(), &mut out).map(|n| out[..n].to_vec());
            match serde_json::from_str::<Vec<f64>>(&format!("[{text}]")) {
                Ok(json) if !text.contains('e') => {
                    let json: Vec<i16> = json.iter().map(|n| n.trunc().clamp(-32768.0, 32767.0) as i16).collect();
                    prop_assert_eq!(ours, Ok(json));
                }
                _ => prop_assert!(ours.is_err()),
            }
        }
    }
}
