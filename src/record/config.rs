//! The recorder's part of the configuration: `[record]`. Which calls are recorded is each agent's own setting.

use crate::base::settings::Section;
use std::{path::PathBuf, time::Duration};

/// How recordings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 16-bit samples, 115 MB an hour.
    Wav,
    /// Ogg Opus (RFC 7845), at most 18 MB an hour.
    Opus,
}

impl Format {
    const WORDS: [(&str, Self); 2] = [("wav", Self::Wav), ("opus", Self::Opus)];

    /// How the names of such files end.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Opus => "opus",
        }
    }

    /// The media type of a file of that name (RFC 7845 §9).
    pub fn media_type(name: &str) -> &'static str {
        match name.ends_with(".opus") {
            true => "audio/ogg; codecs=opus",
            false => "audio/wav",
        }
    }
}

/// Where recordings go and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the files, under the state directory unless absolute.
    pub folder: PathBuf,
    /// How they are written.
    pub format: Format,
    /// Recordings at once. Calls beyond it are served and not recorded.
    pub max_recordings: usize,
    /// Audio kept for a disk that is slow to take it, per recording. What comes beyond it is left out.
    pub buffer: Duration,
    /// The longest recording. What comes after is left out.
    pub max_length: Duration,
}

impl Config {
    /// Reads `[record]`.
    pub fn read(section: &Section<'_>) -> Self {
        let (s, h) = (Duration::from_secs, |n: u64| Duration::from_secs(n * 3600));
        Self {
            folder: section.path("folder", "recordings"),
            format: section.choice("format", Format::Wav, &Format::WORDS),
            max_recordings: section.int("max_recordings", 1000, 1..=100_000),
            buffer: section.duration("buffer", s(1), Duration::from_millis(500)..=s(30)),
            max_length: section.duration("max_length", h(5), s(60)..=h(36)),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Section::empty(&Default::default()))
    }
}
