//! RIFF/WAVE: reading what people and programs write, writing 16-bit PCM with sizes that can be patched later.
//!
//! Reads 16-bit PCM, μ-law and A-law of any channel count and rate, plain or in `WAVE_FORMAT_EXTENSIBLE`. Lengths are believed
//! only as far as the bytes go: programs that write to a pipe put 0, 0x7ffff000 or 0xffffffff there. Odd chunks are padded
//! to even ones as the format asks, and unknown ones are skipped.

use super::{codec, gain};
use crate::base::format::Encoding;
use std::fmt;

/// How the samples of a file are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WavFormat {
    /// Little-endian PCM, μ-law or A-law.
    pub encoding: Encoding,
    /// Frames a second.
    pub rate: u32,
    /// Interleaved channels, at least one.
    pub channels: u16,
}

/// What stands in front of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WavHeader {
    /// How to read the samples.
    pub format: WavFormat,
    /// Where they begin, in bytes.
    pub data_at: usize,
    /// How many bytes they are said to be, where that is believable: `None` means "to the end of the stream".
    pub data_len: Option<u32>,
}

/// Why bytes are no usable WAVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WavError {
    /// So far so good, but the samples have not begun: more bytes are needed.
    Incomplete,
    /// Not RIFF/WAVE at all.
    NotWave,
    /// The samples begin before the format is told.
    NoFormat,
    /// The format chunk makes no sense (too short, no channels, rate 0).
    BadFormat,
    /// A kind of samples we do not read: format tag and bits per sample.
    Unsupported {
        /// The `wFormatTag`.
        tag: u16,
        /// Bits per sample.
        bits: u16,
    },
}

impl fmt::Display for WavError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("the file ends before its samples begin"),
            Self::NotWave => f.write_str("not a RIFF/WAVE file"),
            Self::NoFormat => f.write_str("the file has samples but no format before them"),
            Self::BadFormat => f.write_str("the format chunk makes no sense"),
            Self::Unsupported { tag, bits } => write!(
                f,
                "format {tag} with {bits} bits is not read; convert the file to 16-bit PCM, μ-law or A-law"
            ),
        }
    }
}

impl std::error::Error for WavError {}

const PCM: u16 = 1;
const ALAW: u16 = 6;
const MULAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;

/// Sizes from here on are placeholders of programs that could not seek back (eSpeak NG writes exactly this one).
const ENDLESS: u32 = 0x7fff_f000;

impl WavHeader {
    /// Reads the header at the beginning of `bytes`. [`WavError::Incomplete`] asks for more of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, WavError> {
        for (at, name) in [(0, b"RIFF"), (8, b"WAVE")] {
            let there = bytes.get(at..).unwrap_or_default();
            let n = there.len().min(4);
            if there[..n] != name[..n] {
                return Err(WavError::NotWave);
            }
        }
        let mut at = 12usize;
        let mut format = None;
        loop {
            let head = bytes
                .get(at..)
                .and_then(|b| b.first_chunk::<8>())
                .ok_or(WavError::Incomplete)?;
            let [a, b, c, d, size @ ..] = *head;
            let size = u32::from_le_bytes(size);
            at += head.len();
            match &[a, b, c, d] {
                b"data" => {
                    return Ok(Self {
                        format: format.ok_or(WavError::NoFormat)?,
                        data_at: at,
                        data_len: (size != 0 && size < ENDLESS).then_some(size),
                    });
                }
                b"fmt " => {
                    let body = bytes.get(at..).unwrap_or_default();
                    // 40 bytes hold the longest form; more are not looked at.
                    let needed = (size as usize).min(40);
                    format = Some(parse_format(body.get(..needed).ok_or(WavError::Incomplete)?)?);
                }
                _ => {}
            }
            at = at.saturating_add(size as usize).saturating_add(size as usize % 2);
        }
    }
}

fn parse_format(body: &[u8]) -> Result<WavFormat, WavError> {
    let u16_at = |at: usize| {
        let pair = body.get(at..).and_then(|b| b.first_chunk::<2>());
        pair.map(|&pair| u16::from_le_bytes(pair)).ok_or(WavError::BadFormat)
    };
    let (tag, channels, bits) = (u16_at(0)?, u16_at(2)?, u16_at(14)?);
    let rate = u32::from(u16_at(4)?) | u32::from(u16_at(6)?) << 16;
    // The extensible form keeps the plain tag at the head of its GUID.
    let tag = if tag == EXTENSIBLE { u16_at(24)? } else { tag };
    let encoding = match (tag, bits) {
        (PCM, 16) => Encoding::L16Le,
        (ALAW, 8) => Encoding::Alaw,
        (MULAW, 8) => Encoding::Ulaw,
        _ => return Err(WavError::Unsupported { tag, bits }),
    };
    if channels == 0 || rate == 0 {
        return Err(WavError::BadFormat);
    }
    Ok(WavFormat {
        encoding,
        rate,
        channels,
    })
}

/// A whole file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wav {
    /// Frames a second.
    pub rate: u32,
    /// Interleaved channels.
    pub channels: u16,
    /// Interleaved samples, whole frames only.
    pub samples: Vec<i16>,
}

impl Wav {
    /// Reads a file. Samples go as far as the bytes do; the rest of an incomplete frame at the end is dropped.
    pub fn parse(bytes: &[u8]) -> Result<Self, WavError> {
        let header = WavHeader::parse(bytes)?;
        let data = &bytes[header.data_at..];
        let data = match header.data_len {
            Some(len) => &data[..data.len().min(len as usize)],
            None => data,
        };
        let WavFormat {
            encoding,
            rate,
            channels,
        } = header.format;
        let frame = encoding.sample_bytes() * usize::from(channels);
        let data = &data[..data.len() - data.len() % frame];
        let mut samples = vec![0; data.len() / encoding.sample_bytes()];
        // Whole frames are whole samples: the decoder has nothing to refuse.
        let n = codec::decode(encoding, data, &mut samples).unwrap_or(0);
        samples.truncate(n);
        Ok(Self {
            rate,
            channels,
            samples,
        })
    }

    /// All channels mixed into one.
    pub fn into_mono(self) -> Vec<i16> {
        if self.channels == 1 {
            return self.samples;
        }
        let channels = i32::from(self.channels);
        let frames = self.samples.chunks_exact(usize::from(self.channels));
        frames
            .map(|frame| (frame.iter().map(|&x| i32::from(x)).sum::<i32>() / channels) as i16)
            .collect()
    }

    /// One channel alone, counted from 0; empty if there is no such channel.
    pub fn channel(&self, channel: u16) -> Vec<i16> {
        if channel >= self.channels {
            return Vec::new();
        }
        let every = usize::from(self.channels);
        self.samples
            .iter()
            .skip(usize::from(channel))
            .step_by(every)
            .copied()
            .collect()
    }

    /// The file of these samples.
    pub fn to_bytes(&self) -> Vec<u8> {
        let data = u32::try_from(self.samples.len() * 2).unwrap_or(u32::MAX);
        let mut bytes = header(self.rate, self.channels, data).to_vec();
        bytes.extend(self.samples.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    /// Root mean square over all channels, in dBFS.
    pub fn level_dbfs(&self) -> f32 {
        gain::level_dbfs(&self.samples)
    }
}

/// Bytes of the header that [`header`] writes.
pub const HEADER_LEN: usize = 44;

/// The header of a 16-bit PCM file whose samples are `data_bytes` long. A writer that does not know yet says 0 and patches
/// [`sizes`] in when it does.
pub fn header(rate: u32, channels: u16, data_bytes: u32) -> [u8; HEADER_LEN] {
    let frame = channels.saturating_mul(2);
    let mut bytes = [0; HEADER_LEN];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(b"RIFF\0\0\0\0WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&PCM.to_le_bytes());
    put(&channels.to_le_bytes());
    put(&rate.to_le_bytes());
    put(&rate.saturating_mul(frame.into()).to_le_bytes());
    put(&frame.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data\0\0\0\0");
    for (at, size) in sizes(data_bytes) {
        bytes[at..at + 4].copy_from_slice(&size);
    }
    bytes
}

/// Where the two sizes of a file with `data_bytes` of samples go, and what they are. Saturates at the format's 4 GiB.
pub fn sizes(data_bytes: u32) -> [(usize, [u8; 4]); 2] {
    let riff = data_bytes.saturating_add(HEADER_LEN as u32 - 8);
    [(4, riff.to_le_bytes()), (40, data_bytes.to_le_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = name.to_vec();
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len() + body.len() % 2, 0);
        bytes
    }

    fn format_body(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let frame = channels * bits / 8;
        let mut body = Vec::new();
        for part in [
            &tag.to_le_bytes()[..],
            &channels.to_le_bytes(),
            &rate.to_le_bytes(),
            &(rate * u32::from(frame)).to_le_bytes(),
            &frame.to_le_bytes(),
            &bits.to_le_bytes(),
        ] {
            body.extend(part);
        }
        body
    }

    fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut body = b"WAVE".to_vec();
        body.extend(chunks.concat());
        chunk(b"RIFF", &body)
    }

    #[test]
    fn what_is_written_reads_back() {
        let wav = Wav {
            rate: 8000,
            channels: 2,
            samples: vec![1, -1, i16::MAX, i16::MIN],
        };
        let bytes = wav.to_bytes();
        assert_eq!(bytes.len(), HEADER_LEN + 8);
        assert_eq!(Wav::parse(&bytes), Ok(wav.clone()));
        assert_eq!(wav.channel(1), [-1, i16::MIN]);
        assert!(wav.channel(2).is_empty());
        assert_eq!(wav.into_mono(), [0, 0]);
    }

    #[test]
    fn a_header_written_early_can_be_patched() {
        let mut early = header(16000, 2, 0);
        for (at, size) in sizes(64_000) {
            early[at..at + 4].copy_from_slice(&size);
        }
        assert_eq!(early, header(16000, 2, 64_000));
        assert_eq!(sizes(u32::MAX)[0].1, u32::MAX.to_le_bytes());
    }

    #[test]
    fn the_sizes_of_a_pipe_mean_until_the_end() {
        for size in [0, ENDLESS, 0x7fff_ffff, u32::MAX] {
            let mut bytes = header(22050, 1, size).to_vec();
            bytes.extend([1, 0, 2, 0, 3]);
            assert_eq!(WavHeader::parse(&bytes).unwrap().data_len, None);
            assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 2], "{size:#x}");
        }
    }

    #[test]
    fn a_size_beyond_the_end_is_cut_to_what_there_is() {
        let mut bytes = header(8000, 1, 1000).to_vec();
        bytes.extend([1, 0, 2, 0]);
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 2]);
    }

    #[test]
    fn g711_files_are_decoded() {
        for (tag, silence, decoded) in [(MULAW, 0xff, 0), (ALAW, 0xd5, 8)] {
            let bytes = riff(&[
                chunk(b"fmt ", &format_body(tag, 1, 8000, 8)),
                chunk(b"fact", &[0; 4]),
                chunk(b"data", &[silence; 3]),
            ]);
            let wav = Wav::parse(&bytes).unwrap();
            assert_eq!((wav.rate, wav.samples), (8000, vec![decoded; 3]));
        }
    }

    #[test]
    fn odd_and_unknown_chunks_are_skipped_with_their_padding() {
        let bytes = riff(&[
            chunk(b"LIST", b"odd"),
            chunk(b"fmt ", &format_body(PCM, 1, 8000, 16)),
            chunk(b"junk", b""),
            chunk(b"data", &[5, 0]),
            chunk(b"LIST", b"after"),
        ]);
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [5]);
    }

    #[test]
    fn the_extensible_form_is_read_by_its_inner_tag() {
        let mut body = format_body(EXTENSIBLE, 2, 48000, 16);
        body.extend([22, 0, 16, 0, 3, 0, 0, 0, 1, 0]);
        body.extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
        let bytes = riff(&[chunk(b"fmt ", &body), chunk(b"data", &[1, 0, 2, 0])]);
        assert_eq!(Wav::parse(&bytes).unwrap().channels, 2);
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let good = header(8000, 1, 4).to_vec();
        for n in 0..good.len() {
            assert_eq!(WavHeader::parse(&good[..n]), Err(WavError::Incomplete), "{n}");
        }
        assert_eq!(Wav::parse(b"OggS"), Err(WavError::NotWave));
        assert_eq!(Wav::parse(b"RIFF\0\0\0\0AVI "), Err(WavError::NotWave));
        assert_eq!(Wav::parse(&riff(&[chunk(b"data", &[0; 4])])), Err(WavError::NoFormat));
        let with = |body: &[u8]| Wav::parse(&riff(&[chunk(b"fmt ", body), chunk(b"data", &[0; 4])]));
        assert_eq!(with(&format_body(PCM, 0, 8000, 16)), Err(WavError::BadFormat));
        assert_eq!(with(&format_body(PCM, 1, 0, 16)), Err(WavError::BadFormat));
        assert_eq!(with(&[1, 0]), Err(WavError::BadFormat));
        assert_eq!(
            with(&format_body(3, 1, 8000, 32)),
            Err(WavError::Unsupported { tag: 3, bits: 32 })
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            chunks in prop::collection::vec((prop::sample::select(vec![*b"fmt ", *b"data", *b"LIST"]), any::<u32>(), prop::collection::vec(any::<u8>(), 0..48)), 0..5),
            noise: Vec<u8>,
        ) {
            let _ = Wav::parse(&noise);
            let mut bytes = b"RIFF\xff\xff\xff\xffWAVE".to_vec();
            for (name, size, body) in chunks {
                bytes.extend(name);
                bytes.extend(if size % 3 == 0 { body.len() as u32 } else { size }.to_le_bytes());
                bytes.extend(body);
            }
            if let Ok(wav) = Wav::parse(&bytes) {
                prop_assert!(wav.samples.len() <= bytes.len());
                prop_assert!(wav.samples.len().is_multiple_of(usize::from(wav.channels)));
                wav.into_mono();
            }
        }

        #[test]
        fn any_samples_survive_a_file(rate in 1u32.., channels in 1u16..9, frames in 0usize..50, seed: i16) {
            let samples = (0..frames * usize::from(channels)).map(|i| seed.wrapping_mul(i as i16)).collect();
            let wav = Wav { rate, channels, samples };
            prop_assert_eq!(Wav::parse(&wav.to_bytes()), Ok(wav));
        }
    }
}
