//! Base64 (RFC 4648 §4, standard alphabet) between slices, by one SIMD engine per process.
//!
//! The instruction set is detected at first use (AVX2, NEON, else scalar). Encoding always pads; decoding takes padding
//! whole, in part or absent, because some vendors omit it, and refuses everything else that is not canonical. [`crate::wire::sign`] is
//! stricter about signatures.

use base64::engine::{DecodePaddingMode, Engine, general_purpose::GeneralPurposeConfig};
use bytes::BytesMut;
use std::{fmt, sync::LazyLock};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Best = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Best = base64::engine::GeneralPurpose;

const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENGINE: LazyLock<Best> = LazyLock::new(|| Best::standard(CONFIG));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENGINE: LazyLock<Best> = LazyLock::new(|| Best::new(&base64::alphabet::STANDARD, CONFIG));

/// Text that is not base64, or more of it than fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBase64 {
    /// A byte outside the alphabet, a length that no encoder makes, or bits set beyond the last byte.
    Invalid,
    /// It decodes to more bytes than there is room for.
    TooLong,
}

impl fmt::Display for BadBase64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "not base64",
            Self::TooLong => "base64 of more bytes than allowed",
        })
    }
}

impl std::error::Error for BadBase64 {}

impl From<base64::DecodeSliceError> for BadBase64 {
    fn from(e: base64::DecodeSliceError) -> Self {
        match e {
            base64::DecodeSliceError::DecodeError(_) => Self::Invalid,
            base64::DecodeSliceError::OutputSliceTooSmall => Self::TooLong,
        }
    }
}

/// Characters that encode `n` bytes, padding included.
pub const fn encoded_len(n: usize) -> usize {
    n.div_ceil(3) * 4
}

/// Writes the text of `input` to the front of `out` and returns its length, [`encoded_len`].
///
/// # Panics
/// If `out` is shorter than that: the caller sizes its own buffers.
pub fn encode(input: &[u8], out: &mut [u8]) -> usize {
    ENGINE
        .encode_slice(input, out)
        .expect("the output holds encoded_len bytes")
}

/// Appends the text of `input`. Allocates only if `out` lacks the room.
pub fn append(input: &[u8], out: &mut BytesMut) {
    let at = out.len();
    out.resize(at + encoded_len(input.len()), 0);
    encode(input, &mut out[at..]);
}

/// Appends the text of `input` to a string.
pub fn append_str(input: &[u8], out: &mut String) {
    ENGINE.encode_string(input, out);
}

/// The text of `input`.
pub fn encode_string(input: &[u8]) -> String {
    ENGINE.encode(input)
}

/// Writes the bytes of `text` to the front of `out` and returns how many.
pub fn decode(text: &[u8], out: &mut [u8]) -> Result<usize, BadBase64> {
    Ok(ENGINE.decode_slice(text, out)?)
}

/// The bytes of `text`, at most `max` of them; longer text is refused before anything is allocated.
pub fn decode_vec(text: &[u8], max: usize) -> Result<Vec<u8>, BadBase64> {
    let unpadded = text.len() - text.iter().rev().take(2).take_while(|b| **b == b'=').count();
    let len = unpadded / 4 * 3 + (unpadded % 4).saturating_sub(1);
    if len > max {
        return Err(BadBase64::TooLong);
    }
    // One group more than needed, so that surplus padding is called invalid and not too long.
    let mut out = vec![0; len + 3];
    let n = decode(text, &mut out)?;
    out.truncate(n);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_rfc_4648_hold_padded_and_not() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode_string(plain.as_bytes()), text);
            let mut out = [0; 6];
            for t in [text, text.trim_end_matches('=')] {
                assert_eq!(decode(t.as_bytes(), &mut out), Ok(plain.len()), "{t}");
                assert_eq!(&out[..plain.len()], plain.as_bytes());
                assert_eq!(decode_vec(t.as_bytes(), plain.len()).as_deref(), Ok(plain.as_bytes()));
            }
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        for bad in [
            "Z",
            "Zg===",
            "=Zg=",
            "Zm9v=",
            "Zh==",
            "Zm 9v",
            "Zm9v\n",
            "Zm-_",
            "Zm9\u{e9}",
            "A===",
            "====",
        ] {
            assert_eq!(decode_vec(bad.as_bytes(), 100), Err(BadBase64::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn no_room_is_an_error_and_not_a_panic() {
        assert_eq!(decode(b"Zm9vYmFy", &mut [0; 5]), Err(BadBase64::TooLong));
        assert_eq!(decode(b"Zm9vYg==", &mut [0; 3]), Err(BadBase64::TooLong));
        assert_eq!(decode_vec(b"Zm9vYg", 3), Err(BadBase64::TooLong));
        assert_eq!(decode(b"Zm9vYg==", &mut [0; 4]), Ok(4));
    }

    proptest! {
        #[test]
        fn every_length_and_alignment_equals_the_scalar_engine(bytes in prop::collection::vec(any::<u8>(), 0..700), skip in 0usize..33) {
            let input = &bytes[skip.min(bytes.len())..];
            let text = STANDARD.encode(input);
            prop_assert_eq!(&encode_string(input), &text);
            prop_assert_eq!(text.len(), encoded_len(input.len()));
            let mut arena = BytesMut::from(&b"head"[..]);
            append(input, &mut arena);
            prop_assert_eq!(&arena[4..], text.as_bytes());
            prop_assert_eq!(decode_vec(text.as_bytes(), input.len()).unwrap(), input);
        }

        #[test]
        fn any_bytes_decode_as_the_scalar_engine_says(text in prop::collection::vec(prop::sample::select(&b"ABCDwxyz0189+/==- \xff"[..]), 0..200)) {
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let oracle = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config);
            prop_assert_eq!(decode_vec(&text, 1000).ok(), oracle.decode(&text).ok());
        }
    }
}
