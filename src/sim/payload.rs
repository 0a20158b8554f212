//! Audio out of the messages that a simulated vendor reads.

use crate::{vendor::Payload, wire::base64};

/// The encoded audio, or `None` where it cannot be read.
pub(super) fn decode(payload: Payload<'_>) -> Option<Vec<u8>> {
    match payload {
        Payload::Base64(text) => base64::decode_vec(text, text.len()).ok(),
        Payload::Numbers(text) => {
            let numbers = std::str::from_utf8(text).ok()?;
            let samples = numbers.split(',').map(|n| n.trim().parse().map(i16::to_le_bytes));
            samples.collect::<Result<Vec<_>, _>>().ok().map(|s| s.concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_garbage_is_not() {
        assert_eq!(decode(Payload::Base64(b"AAEC")), Some(vec![0, 1, 2]));
        assert_eq!(
            decode(Payload::Numbers(b"1, -2,256")),
            Some(vec![1, 0, 0xFE, 0xFF, 0, 1])
        );
        assert_eq!(decode(Payload::Base64(b"A%")), None);
        assert_eq!(decode(Payload::Numbers(b"1,40000")), None);
    }
}
