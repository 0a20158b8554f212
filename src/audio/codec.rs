//! The one place where an [`Encoding`] becomes a function over samples.
//!
//! [`decode`] and [`encode`] serve encodings in which a sample is a sample; [`Decoder`] and [`Encoder`] serve every encoding of
//! one stream, those with a memory included. Neither allocates after construction.

use super::{g711, g722, l16, opus, order::Order};
use crate::base::format::{AudioFormat, Encoding};
use std::fmt;

/// Bytes that are not so many samples: half a sample, a packet that is none, or an encoding that needs a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBytes;

impl fmt::Display for BadBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not audio of that encoding: half a sample, or no packet")
    }
}

impl std::error::Error for BadBytes {}

/// Writes the samples that `bytes` carry. Returns how many: as many as both slices hold.
///
/// Fails where the bytes are no whole number of samples or the encoding has a memory, and writes nothing then.
pub fn decode(encoding: Encoding, bytes: &[u8], pcm: &mut [i16]) -> Result<usize, BadBytes> {
    match encoding {
        Encoding::Ulaw => Ok(g711::ulaw_decode(bytes, pcm)),
        Encoding::Alaw => Ok(g711::alaw_decode(bytes, pcm)),
        Encoding::L16Le | Encoding::L16 => l16::decode_le(bytes, pcm).map_err(|_| BadBytes),
        Encoding::L16Be => l16::decode_be(bytes, pcm).map_err(|_| BadBytes),
        Encoding::G722 | Encoding::Opus => Err(BadBytes),
    }
}

/// Writes samples as bytes. Returns the bytes written: those of as many whole samples as both slices hold, none where the
/// encoding has a memory.
pub fn encode(encoding: Encoding, pcm: &[i16], bytes: &mut [u8]) -> usize {
    let samples = match encoding {
        Encoding::Ulaw => g711::ulaw_encode(pcm, bytes),
        Encoding::Alaw => g711::alaw_encode(pcm, bytes),
        Encoding::L16Le | Encoding::L16 => l16::encode_le(pcm, bytes),
        Encoding::L16Be => l16::encode_be(pcm, bytes),
        Encoding::G722 | Encoding::Opus => 0,
    };
    encoding.bytes(samples)
}

/// Puts G.711 codes that stand one in each place into bytes: as many as both slices hold.
pub fn narrow(wide: &[i16], codes: &mut [u8]) {
    for (code, wide) in codes.iter_mut().zip(wide) {
        *code = wide.to_le_bytes()[0];
    }
}

/// The other way round.
pub fn widen(codes: &[u8], wide: &mut [i16]) {
    for (wide, code) in wide.iter_mut().zip(codes) {
        *wide = i16::from(*code);
    }
}

/// Makes the samples of G.711 codes that stand one in each place, in place.
pub fn decode_wide(law: Encoding, wide: &mut [i16]) {
    let mut codes = [0; 256];
    for piece in wide.chunks_mut(codes.len()) {
        narrow(piece, &mut codes);
        // G.711 has a sample for every code.
        let _ = decode(law, &codes[..piece.len()], piece);
    }
}

/// The bytes of one silent sample repeat this one (L16 in either order, μ-law) or are it (A-law). Encodings with a memory
/// have no such byte; theirs is 0.
pub const fn silence(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Ulaw => g711::ULAW_SILENCE,
        Encoding::Alaw => g711::ALAW_SILENCE,
        Encoding::L16Le | Encoding::L16Be | Encoding::L16 | Encoding::G722 | Encoding::Opus => 0,
    }
}

/// Decodes one stream.
#[derive(Debug)]
pub struct Decoder(Decoding);

#[derive(Debug)]
enum Decoding {
    Plain(Encoding),
    /// 16-bit samples in an order that is found from them.
    Sought(Order),
    G722(Box<g722::Decoder>),
    Opus(opus::Decoder),
}

impl Decoder {
    /// A decoder of `format`. `None` where its encoding has no such rate.
    pub fn new(format: AudioFormat) -> Option<Self> {
        Some(Self(match format.encoding {
            Encoding::L16 => Decoding::Sought(Order::default()),
            Encoding::G722 if format.rate == g722::RATE => Decoding::G722(Box::default()),
            Encoding::G722 => return None,
            Encoding::Opus => Decoding::Opus(opus::Decoder::new(format.rate)?),
            plain => Decoding::Plain(plain),
        }))
    }

    /// Writes the samples that the next bytes of the stream carry, as many as `pcm` holds, and returns how many.
    pub fn decode(&mut self, bytes: &[u8], pcm: &mut [i16]) -> Result<usize, BadBytes> {
        match &mut self.0 {
            Decoding::Plain(encoding) => decode(*encoding, bytes, pcm),
            Decoding::Sought(order) => {
                let encoding = order.of(bytes);
                if order.is_found() {
                    self.0 = Decoding::Plain(encoding);
                }
                decode(encoding, bytes, pcm)
            }
            Decoding::G722(decoder) => Ok(decoder.decode(bytes, pcm)),
            Decoding::Opus(decoder) => decoder.decode(bytes, pcm).map_err(|_| BadBytes),
        }
    }

    /// Writes what `lost` messages before `next` may have carried, and returns the samples written: none where the encoding has
    /// no means to know.
    pub fn conceal(&mut self, lost: u64, next: &[u8], pcm: &mut [i16]) -> usize {
        match &mut self.0 {
            Decoding::Opus(decoder) => decoder.conceal(lost, next, pcm),
            Decoding::Plain(_) | Decoding::Sought(_) | Decoding::G722(_) => 0,
        }
    }

    /// How the stream writes its samples, as far as it is known.
    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Decoding::Plain(encoding) => *encoding,
            Decoding::Sought(_) => Encoding::L16,
            Decoding::G722(_) => Encoding::G722,
            Decoding::Opus(_) => Encoding::Opus,
        }
    }
}

/// Encodes one stream. Opus is not encoded here: it takes too long for a media thread, see [`opus::Encoder`].
#[derive(Debug)]
pub struct Encoder(Way);

#[derive(Debug)]
enum Way {
    Plain(Encoding),
    G722(Box<g722::Encoder>),
}

impl Encoder {
    /// An encoder of `format`. `None` for Opus, and for G.722 at another rate than its own.
    pub fn new(format: AudioFormat) -> Option<Self> {
        Some(Self(match format.encoding {
            Encoding::G722 if format.rate == g722::RATE => Way::G722(Box::default()),
            Encoding::G722 | Encoding::Opus => return None,
            plain => Way::Plain(plain),
        }))
    }

    /// Writes the next samples of the stream as bytes, as many as both slices hold; returns the bytes written.
    pub fn encode(&mut self, pcm: &[i16], bytes: &mut [u8]) -> usize {
        match &mut self.0 {
            Way::Plain(encoding) => encode(*encoding, pcm, bytes),
            Way::G722(encoder) => encoder.encode(pcm, bytes),
        }
    }

    /// Follows the order of the peer's 16-bit samples, where none was agreed and it is known by now.
    pub fn follow(&mut self, peer: Encoding) {
        if let (Way::Plain(ours @ Encoding::L16), Encoding::L16Le | Encoding::L16Be) = (&mut self.0, peer) {
            *ours = peer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 4] = [Encoding::Ulaw, Encoding::Alaw, Encoding::L16Le, Encoding::L16Be];

    fn format(encoding: Encoding) -> AudioFormat {
        AudioFormat { encoding, rate: 16_000 }
    }

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
        assert_eq!(decode(Encoding::L16Le, &[0; 5], &mut pcm), Err(BadBytes));
        assert_eq!(decode(Encoding::Ulaw, &[0; 5], &mut pcm), Ok(5));
    }

    #[test]
    fn a_stream_of_either_order_is_read_and_answered_in_its_own() {
        let pcm: Vec<i16> = (0..640).map(|i| (i % 80 - 40) * 200).collect();
        for order in [Encoding::L16Le, Encoding::L16Be] {
            let mut bytes = vec![0; 1280];
            encode(order, &pcm, &mut bytes);
            let mut decoder = Decoder::new(format(Encoding::L16)).unwrap();
            let mut encoder = Encoder::new(format(Encoding::L16)).unwrap();
            let mut back = vec![0; 640];
            assert_eq!(decoder.decode(&bytes, &mut back), Ok(640));
            assert_eq!((&back, decoder.encoding()), (&pcm, order));
            encoder.follow(decoder.encoding());
            let mut again = vec![0; 1280];
            encoder.encode(&pcm, &mut again);
            assert_eq!(again, bytes);
        }
        let mut agreed = Encoder::new(format(Encoding::L16Le)).unwrap();
        agreed.follow(Encoding::L16Be);
        let mut bytes = [0; 2];
        agreed.encode(&[1], &mut bytes);
        assert_eq!(bytes, [1, 0], "what was agreed holds");
    }

    #[test]
    fn what_has_a_memory_is_no_mere_function_and_what_cannot_be_is_not_made() {
        for encoding in [Encoding::G722, Encoding::Opus] {
            assert_eq!(decode(encoding, &[1, 2], &mut [0; 4]), Err(BadBytes));
            assert_eq!(encode(encoding, &[1, 2], &mut [0; 4]), 0);
            assert_eq!(Decoder::new(format(encoding)).unwrap().encoding(), encoding);
        }
        assert!(Encoder::new(format(Encoding::Opus)).is_none());
        let narrow = AudioFormat {
            encoding: Encoding::G722,
            rate: 8000,
        };
        assert!(Encoder::new(narrow).is_none() && Decoder::new(narrow).is_none());
    }
}
