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
    let (read, mut n) = decode_dense(text, out);
    let mut rest = space(&text[read..]);
    if rest.is_empty() && n == 0 {
        return Ok(0);
    }
    loop {
        let (value, after) = number(rest).ok_or(BadNumbers::Invalid)?;
        *out.get_mut(n).ok_or(BadNumbers::TooLong)? = value;
        n += 1;
        rest = match space(after) {
            [] => return Ok(n),
            [b',', next @ ..] => space(next),
            _ => return Err(BadNumbers::Invalid),
        };
    }
}

/// Reads numbers as machines write them, each with its comma right behind it, until something else comes or `out` is full.
/// Returns how much of the text is read and how many numbers that were.
///
/// The commas of eight bytes are found in one step, so that no number waits for the length of the one before.
fn decode_dense(text: &[u8], out: &mut [i16]) -> (usize, usize) {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (mut start, mut n) = (0, 0);
    for (at, word) in text.as_chunks::<8>().0.iter().enumerate() {
        let others = u64::from_le_bytes(*word) ^ (LOW * b',' as u64);
        // The upper bit of every byte that was a comma: neither its lower seven bits nor itself are set.
        let mut commas = !(((others & !HIGH) + !HIGH) | others) & HIGH;
        while commas != 0 {
            let end = at * 8 + commas.trailing_zeros() as usize / 8;
            let (Some(value), Some(place)) = (dense(text, start, end), out.get_mut(n)) else {
                return (start, n);
            };
            *place = value;
            n += 1;
            start = end + 1;
            commas &= commas - 1;
        }
    }
    (start, n)
}

/// The number that fills `text[start..end]`, if eight bytes end there and it has no more than six digits: they are added up in
/// pairs, fours and eights.
#[inline]
fn dense(text: &[u8], start: usize, end: usize) -> Option<i16> {
    let word = u64::from_le_bytes(*text.get(..end)?.last_chunk()?);
    let length = end - start;
    if !(1..=7).contains(&length) {
        return None;
    }
    let negative = (word >> (64 - 8 * length)) as u8 == b'-';
    let length = length - usize::from(negative);
    if !(1..=6).contains(&length) {
        return None;
    }
    let before = 64 - 8 * length;
    let digits = (word ^ 0x3030_3030_3030_3030) >> before << before;
    // A byte's upper half is zero, and stays so with 6 added, if it was a digit.
    let others = (digits | digits.wrapping_add(0x0606_0606_0606_0606)) & 0xF0F0_F0F0_F0F0_F0F0;
    if others != 0 || (length > 1 && (digits >> before) as u8 == 0) {
        return None;
    }
    let mut sum = (digits * 10 + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    sum = (sum * 100 + (sum >> 16)) & 0x0000_FFFF_0000_FFFF;
    sum = (sum * 10_000 + (sum >> 32)) & 0xFFFF_FFFF;
    Some(if negative {
        -(sum.min(32_768) as i32) as i16
    } else {
        sum.min(32_767) as i16
    })
}

fn space(text: &[u8]) -> &[u8] {
    let n = text.iter().take_while(|b| b" \t\r\n".contains(b)).count();
    &text[n..]
}

/// A number at the beginning of `text`, and what follows it.
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
///
/// A number is its sign and thousands out of one table and its last three digits out of another, side by side in one word of eight
/// bytes. All arithmetic is done for sixteen numbers at once, in a form that compilers vectorise; what is left for each is two
/// lookups, a shift and a store.
pub fn append(pcm: &[u8], out: &mut BytesMut) {
    let (samples, _) = pcm.as_chunks::<2>();
    let begin = out.len();
    // A sign, five digits and a comma each; eight bytes are written where fewer are meant.
    out.put_bytes(0, samples.len() * 7 + 8);
    let text = &mut out[begin..];
    let mut at = 0;
    let (batches, rest) = samples.as_chunks();
    for samples in batches {
        at += Batch::of(samples).write(Batch::SIZE, &mut text[at..]);
    }
    let mut last = [[0; 2]; Batch::SIZE];
    last[..rest.len()].copy_from_slice(rest);
    at += Batch::of(&last).write(rest.len(), &mut text[at..]);
    out.truncate(begin + at.saturating_sub(1));
}

/// What the text of some numbers is made of.
struct Batch {
    /// Entries of [`HEADS`].
    head: [u16; Self::SIZE],
    /// Entries of [`TAILS`].
    tail: [u16; Self::SIZE],
    /// Lengths of the heads in bits.
    head_bits: [u16; Self::SIZE],
    /// Lengths of the numbers in bytes, their commas included.
    len: [u16; Self::SIZE],
}

impl Batch {
    const SIZE: usize = 16;

    /// Of little-endian samples.
    #[inline]
    fn of(samples: &[[u8; 2]; Self::SIZE]) -> Self {
        let mut batch = Self {
            head: [0; Self::SIZE],
            tail: [0; Self::SIZE],
            head_bits: [0; Self::SIZE],
            len: [0; Self::SIZE],
        };
        for (i, sample) in samples.iter().enumerate() {
            let sample = i16::from_le_bytes(*sample);
            let negative = u16::from(sample < 0);
            let value = sample.unsigned_abs();
            let (thousands, rest) = (value / 1000, value % 1000);
            let digits = 1 + u16::from(value >= 10) + u16::from(value >= 100);
            let head = negative + u16::from(thousands > 0) + u16::from(thousands >= 10);
            batch.head[i] = thousands | negative << 6;
            // Behind thousands the zeros in front stay, and `digits` is three.
            batch.tail[i] = rest | u16::from(thousands > 0) << 10;
            batch.head_bits[i] = head * 8;
            batch.len[i] = head + digits + 1;
        }
        batch
    }

    /// Writes the first `n` numbers, eight bytes each where fewer are meant. Returns the length of what is meant.
    #[inline]
    fn write(&self, n: usize, text: &mut [u8]) -> usize {
        let mut at = 0;
        for i in 0..n.min(Self::SIZE) {
            let head = u64::from(HEADS[usize::from(self.head[i] & 127)]);
            let tail = u64::from(TAILS[usize::from(self.tail[i] & 2047)]);
            let number = head | tail << (self.head_bits[i] & 63);
            text[at..at + 8].copy_from_slice(&number.to_le_bytes());
            at += usize::from(self.len[i]);
        }
        at
    }
}

/// The sign and the thousands, the first character lowest; entry 64 and those behind it are of negative numbers.
static HEADS: [u32; 128] = {
    let mut heads = [0; 128];
    let mut n = 0;
    while n < 128 {
        let thousands = n & 63;
        let (mut text, mut bits) = if n < 64 { (0, 0) } else { (b'-' as u32, 8) };
        if thousands >= 10 {
            text |= (b'0' as u32 + thousands / 10) << bits;
            bits += 8;
        }
        if thousands > 0 {
            text |= (b'0' as u32 + thousands % 10) << bits;
        }
        heads[n as usize] = text;
        n += 1;
    }
    heads
};

/// The last three digits of a number and a comma, the first character lowest: without zeros in front, and from entry 1024 on with
/// them.
static TAILS: [u32; 2048] = {
    let mut tails = [0; 2048];
    let mut n = 0;
    while n < 1000 {
        let (hundreds, tens, ones) = (n / 100, n / 10 % 10, n % 10);
        let digits =
            (b'0' as u32 + hundreds) | (b'0' as u32 + tens) << 8 | (b'0' as u32 + ones) << 16 | (b',' as u32) << 24;
        let zeros = (n < 10) as u32 + (n < 100) as u32;
        tails[n as usize] = digits >> (8 * zeros);
        tails[n as usize + 1024] = digits;
        n += 1;
    }
    tails
};

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

    #[test]
    fn every_sample_is_written_as_arithmetic_writes_it_and_read_back() {
        let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let pcm: Vec<u8> = all.iter().flat_map(|s| s.to_le_bytes()).collect();
        let mut text = BytesMut::from(&b"["[..]);
        append(&pcm, &mut text);
        let plain: Vec<_> = all.iter().map(i16::to_string).collect();
        assert!(text[1..] == *plain.join(",").as_bytes());
        let mut out = vec![0; all.len()];
        assert_eq!(decode(&text[1..], &mut out), Ok(all.len()));
        assert!(out == all);
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
        fn what_json_refuses_is_refused_and_what_it_takes_is_equal(text in "[-0-9, .e\\[]{0,12}|(-?[0-9]{1,9},){0,3}[0-9]{8}") {
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
