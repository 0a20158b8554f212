//! Names of audio encodings and the pair (encoding, sample rate) that describes a mono stream.

use std::fmt;

/// How samples are written as bytes. All streams in sidetone are mono. Most write each sample by itself; G.722 and Opus have a
/// memory, so only `audio::codec`'s decoder and encoder of one stream can read and write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// G.711 μ-law, one byte a sample (RTP name `PCMU`).
    Ulaw,
    /// G.711 A-law, one byte a sample (RTP name `PCMA`).
    Alaw,
    /// 16-bit linear PCM, little-endian.
    L16Le,
    /// 16-bit linear PCM, big-endian (network order, RFC 3551 `L16`).
    L16Be,
    /// 16-bit linear PCM in an order that the peer does not tell: found from its samples, little-endian until then.
    L16,
    /// ITU-T G.722 at 64 kbit/s: two samples a byte, 16 kHz.
    G722,
    /// Opus (RFC 6716), one packet a message.
    Opus,
}

impl Encoding {
    /// Reads a name as vendors and frontends write it, ignoring case: `MULAW`, `PCMU`, `audio/x-mulaw`, `L16`, `pcm_s16le`…
    /// Only encodings that write each sample by itself have one here.
    ///
    /// A bare `L16` is little-endian here: that is what every frontend and vendor of this family sends;
    /// RFC 3551's network order is asked for by `l16be` or `pcm_s16be`.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |list: &[&str]| list.iter().any(|n| name.eq_ignore_ascii_case(n));
        if is(&[
            "mulaw",
            "ulaw",
            "pcmu",
            "audio/x-mulaw",
            "g711u",
            "g711_ulaw",
            "audio/pcmu",
        ]) {
            Some(Self::Ulaw)
        } else if is(&["alaw", "pcma", "audio/x-alaw", "g711a", "g711_alaw", "audio/pcma"]) {
            Some(Self::Alaw)
        } else if is(&[
            "l16",
            "pcm",
            "linear16",
            "pcm_s16le",
            "s16le",
            "audio/l16",
            "audio/x-l16",
            "raw/slin",
        ]) {
            Some(Self::L16Le)
        } else if is(&["l16be", "pcm_s16be", "s16be"]) {
            Some(Self::L16Be)
        } else {
            None
        }
    }

    /// Bytes that carry `samples` samples; for Opus more than it ever takes.
    pub const fn bytes(self, samples: usize) -> usize {
        match self {
            Self::Ulaw | Self::Alaw => samples,
            Self::L16Le | Self::L16Be | Self::L16 | Self::Opus => samples * 2,
            Self::G722 => samples.div_ceil(2),
        }
    }

    /// Bytes of one sample.
    pub const fn sample_bytes(self) -> usize {
        self.bytes(1)
    }

    /// The media type without its parameters, in the case that REST clients compare it in (RFC 3551, 4856, 7587).
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ulaw => "audio/pcmu",
            Self::Alaw => "audio/pcma",
            Self::L16Le | Self::L16 | Self::L16Be => "audio/l16",
            Self::G722 => "audio/g722",
            Self::Opus => "audio/opus",
        }
    }

    /// The name frontends see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ulaw => "MULAW",
            Self::Alaw => "ALAW",
            Self::L16Le | Self::L16 => "L16",
            Self::L16Be => "L16BE",
            Self::G722 => "G722",
            Self::Opus => "OPUS",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Encoding and sample rate (Hz) of a mono stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AudioFormat {
    /// How samples are written as bytes.
    pub encoding: Encoding,
    /// Samples a second: one of 8000, 16000, 24000, 48000 on every wire sidetone speaks.
    pub rate: u32,
}

impl AudioFormat {
    /// G.711 μ-law at 8 kHz: what telephone networks carry.
    pub const ULAW_8K: Self = Self {
        encoding: Encoding::Ulaw,
        rate: 8000,
    };

    /// The sample rates accepted on any wire, in Hz.
    pub const RATES: [u32; 4] = [8000, 16000, 24000, 48000];

    /// Bytes that carry `ms` milliseconds.
    pub const fn bytes_of_ms(self, ms: u32) -> usize {
        self.encoding.bytes(self.samples_of_ms(ms))
    }

    /// Samples that last `ms` milliseconds.
    pub const fn samples_of_ms(self, ms: u32) -> usize {
        (self.rate as usize * ms as usize) / 1000
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.encoding, self.rate)
    }
}
