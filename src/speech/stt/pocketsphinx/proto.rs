//! What the daemon and a recognition worker say to each other. Pure.
//!
//! Downwards on the worker's stdin: frames of a JSON [`Ask`] and 16 kHz little-endian samples, each with its length in bytes in front as
//! a little-endian 32-bit number; the samples may be none. Upwards on its stdout: one JSON [`Reply`] a line, one for each frame.

use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// What the engine wants, in Hz.
pub(super) const RATE: u32 = 16_000;

/// Bounds of what a worker believes, in bytes.
const LONGEST_ASK: usize = 1 << 20;
const LONGEST_AUDIO: usize = 60 * 2 * RATE as usize;

/// What a worker is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Loads the engine. The first, once.
    Open(Setup),
    /// Gets ready to listen for these phrases (plain words).
    Prepare(Vec<String>),
    /// Says which of these phrases the samples are, if any.
    Phrase(Vec<String>),
    /// Transcribes the samples with the general model.
    Words,
}

/// How a worker sets itself up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Setup {
    /// Name or path of the shared library.
    pub(super) library: String,
    /// Folder of the model.
    pub(super) model: String,
    /// How much memory the engine may take, in MiB.
    pub(super) memory_mb: u64,
    /// How much worse than a row of arbitrary sounds a phrase may fit.
    pub(super) margin: f64,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// Done, as asked.
    Ready,
    /// The samples are the phrase of this index.
    Phrase {
        /// Index into the phrases asked for.
        index: usize,
        /// By how much a row of arbitrary sounds fits better, for each 10 ms of words.
        deficit: f64,
    },
    /// The samples are these words.
    Words(String),
    /// The samples are no phrase, or no words.
    Nothing {
        /// As for a phrase, where there was a candidate.
        deficit: Option<f64>,
    },
    /// It cannot be done; a sentence that a person can act on.
    Failed(String),
}

/// A frame as bytes.
pub(super) fn frame(ask: &Ask, samples: &[i16]) -> Vec<u8> {
    let ask = serde_json::to_vec(ask).unwrap_or_default();
    let mut frame = Vec::with_capacity(8 + ask.len() + 2 * samples.len());
    frame.extend((ask.len() as u32).to_le_bytes());
    frame.extend(ask);
    frame.extend((2 * samples.len() as u32).to_le_bytes());
    frame.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    frame
}

/// Reads a frame; `None` at the end of the stream.
pub(super) fn read_frame(input: &mut impl Read) -> io::Result<Option<(Ask, Vec<i16>)>> {
    let Some(ask) = read_part(input, LONGEST_ASK)? else {
        return Ok(None);
    };
    let ask = serde_json::from_slice(&ask)?;
    let bytes = read_part(input, LONGEST_AUDIO)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let samples = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]]));
    Ok(Some((ask, samples.collect())))
}

fn read_part(input: &mut impl Read, longest: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > longest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut part = vec![0; length];
    input.read_exact(&mut part)?;
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_as_they_were_written() {
        let asks = [
            (Ask::Prepare(vec!["yes".into(), "i'd like".into()]), vec![]),
            (Ask::Phrase(vec!["no".into()]), vec![1, -2, i16::MIN]),
            (Ask::Words, vec![0; 1000]),
        ];
        let stream: Vec<u8> = asks.iter().flat_map(|(ask, samples)| frame(ask, samples)).collect();
        let mut input = &stream[..];
        for expected in asks {
            assert_eq!(read_frame(&mut input).unwrap(), Some(expected));
        }
        assert_eq!(read_frame(&mut input).unwrap(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_or_cut_short_is_an_error() {
        assert!(read_frame(&mut &[255u8; 8][..]).is_err());
        let whole = frame(&Ask::Words, &[1, 2, 3]);
        for end in 4..whole.len() {
            assert!(read_frame(&mut &whole[..end]).is_err(), "{end} bytes");
        }
    }
}
