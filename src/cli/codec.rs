//! `sidetone codec`: G.711 as a filter, standard input to standard output, on any instruction set this CPU has.
//!
//! Encoding reads 16-bit little-endian samples and writes codes; decoding does the reverse. Neither has a header.

use crate::audio::{g711::G711, isa::Isa, l16};
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    process::ExitCode,
};

/// Arguments of `sidetone codec`.
#[derive(Clone, Debug, clap::Args)]
pub struct CodecArgs {
    /// Companding law
    #[arg(value_enum)]
    pub law: Law,

    /// Samples to codes or codes to samples
    #[arg(value_enum)]
    pub direction: Direction,

    /// Instruction set, the fastest of this CPU if not given: scalar, sse, avx2, avx512, neon
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
}

/// A companding law of G.711.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Law {
    /// μ-law: North America and Japan
    Ulaw,
    /// A-law: elsewhere
    Alaw,
}

/// Which way to convert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// 16-bit little-endian samples in, codes out
    Encode,
    /// Codes in, 16-bit little-endian samples out
    Decode,
}

/// The input is no whole number of samples (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;

/// The CPU lacks the instruction set asked for (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

/// Reading or writing failed (`EX_IOERR`).
const EXIT_IO: u8 = 74;

/// Runs the filter until the input ends. A reader that goes away ends it without a word.
pub fn run(args: &CodecArgs) -> ExitCode {
    let kernels = match G711::on(args.isa.unwrap_or_else(Isa::best)) {
        Ok(kernels) => kernels,
        Err(missing) => {
            eprintln!("sidetone codec: {missing}");
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    match convert(
        &kernels,
        args.law,
        args.direction,
        io::stdin().lock(),
        io::stdout().lock(),
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ConvertError::Io(e)) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sidetone codec: {e}");
            ExitCode::from(match e {
                ConvertError::HalfSample => EXIT_DATA,
                ConvertError::Io(_) => EXIT_IO,
            })
        }
    }
}

#[derive(Debug)]
enum ConvertError {
    HalfSample,
    Io(io::Error),
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HalfSample => {
                f.write_str("the input ends in the middle of a 16-bit sample; all whole samples before it were encoded")
            }
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl From<io::Error> for ConvertError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

fn convert(
    kernels: &G711,
    law: Law,
    direction: Direction,
    mut input: impl Read,
    mut output: impl Write,
) -> Result<(), ConvertError> {
    const SAMPLES: usize = 32 * 1024;
    let mut bytes = vec![0; SAMPLES * 2];
    let mut pcm = vec![0; SAMPLES];
    let mut codes = vec![0; SAMPLES];
    let sample_bytes = match direction {
        Direction::Encode => 2,
        Direction::Decode => 1,
    };
    let mut held = 0;
    loop {
        let room = &mut bytes[held..SAMPLES * sample_bytes];
        let n = match input.read(room) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        if n == 0 {
            break;
        }
        let there = held + n;
        let samples = there / sample_bytes;
        let whole = samples * sample_bytes;
        match direction {
            Direction::Encode => {
                // Whole pairs of bytes are never refused.
                let _ = l16::decode_le(&bytes[..whole], &mut pcm);
                match law {
                    Law::Ulaw => kernels.ulaw_encode(&pcm[..samples], &mut codes),
                    Law::Alaw => kernels.alaw_encode(&pcm[..samples], &mut codes),
                };
                output.write_all(&codes[..samples])?;
                bytes.copy_within(whole..there, 0);
                held = there - whole;
            }
            Direction::Decode => {
                match law {
                    Law::Ulaw => kernels.ulaw_decode(&bytes[..samples], &mut pcm),
                    Law::Alaw => kernels.alaw_decode(&bytes[..samples], &mut pcm),
                };
                l16::encode_le(&pcm[..samples], &mut bytes);
                output.write_all(&bytes[..samples * 2])?;
            }
        }
    }
    output.flush()?;
    if held == 0 {
        Ok(())
    } else {
        Err(ConvertError::HalfSample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::g711::scalar;

    /// Gives its bytes in pieces of a size that splits samples.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(out.len()).min(4097);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn converted(law: Law, direction: Direction, input: &[u8]) -> (Vec<u8>, Result<(), ConvertError>) {
        let mut output = Vec::new();
        let result = convert(G711::best(), law, direction, Dribble(input), &mut output);
        (output, result)
    }

    #[test]
    fn every_sample_in_any_pieces_becomes_its_code() {
        let pcm: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let bytes: Vec<u8> = pcm.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (law, reference) in [
            (Law::Ulaw, scalar::ulaw_encode as fn(i16) -> u8),
            (Law::Alaw, scalar::alaw_encode),
        ] {
            let (codes, result) = converted(law, Direction::Encode, &bytes);
            assert!(result.is_ok());
            assert!(codes.iter().copied().eq(pcm.iter().map(|&x| reference(x))));
        }
    }

    #[test]
    fn every_code_becomes_its_sample() {
        let codes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for (law, reference) in [
            (Law::Ulaw, scalar::ulaw_decode as fn(u8) -> i16),
            (Law::Alaw, scalar::alaw_decode),
        ] {
            let (bytes, result) = converted(law, Direction::Decode, &codes);
            assert!(result.is_ok());
            assert!(
                bytes
                    .into_iter()
                    .eq(codes.iter().flat_map(|&c| reference(c).to_le_bytes()))
            );
        }
    }

    #[test]
    fn half_a_sample_at_the_end_is_an_error_after_the_whole_ones() {
        let (codes, result) = converted(Law::Ulaw, Direction::Encode, &[0, 0, 0, 0, 7]);
        assert_eq!(codes, [0xff, 0xff]);
        assert!(matches!(result, Err(ConvertError::HalfSample)));
    }

    #[test]
    fn nothing_becomes_nothing() {
        let (codes, result) = converted(Law::Alaw, Direction::Encode, &[]);
        assert!(codes.is_empty() && result.is_ok());
    }
}
