//! The recorder's part of the configuration: `[record]`. Which calls are recorded is each agent's own setting.

use super::vault::{self, Keys};
use crate::base::{secret::Secret, settings::Section};
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

    /// The words of an agent's choice; `None` is what `[record]` says.
    pub const CHOICES: [(&str, Option<Self>); 3] =
        [("default", None), ("wav", Some(Self::Wav)), ("opus", Some(Self::Opus))];

    /// The word of an agent's choice.
    pub fn choice(format: Option<Self>) -> &'static str {
        let mut known = Self::CHOICES.iter();
        known.find(|(_, f)| *f == format).map_or("default", |(word, _)| word)
    }

    /// How the names of such files end.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Opus => "opus",
        }
    }

    /// The media type of a file of that name (RFC 7845 §9).
    pub fn media_type(name: &str) -> &'static str {
        match name.trim_end_matches(SEALED).ends_with(".opus") {
            true => "audio/ogg; codecs=opus",
            false => "audio/wav",
        }
    }
}

/// How the names of sealed files end, behind that of their format.
pub(super) const SEALED: &str = ".sealed";

/// Where recordings go and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the files, under the state directory unless absolute.
    pub folder: PathBuf,
    /// How they are written, unless an agent says otherwise.
    pub format: Format,
    /// What they are sealed with, if they are.
    pub keys: Keys,
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
            keys: Keys {
                current: key(section, "key"),
                former: key(section, "key_former"),
            },
            max_recordings: section.int("max_recordings", 1000, 1..=100_000),
            buffer: section.duration("buffer", s(1), Duration::from_millis(500)..=s(30)),
            max_length: section.duration("max_length", h(5), s(60)..=h(36)),
        }
    }
}

fn key(section: &Section<'_>, name: &str) -> Option<Secret> {
    let secret = section.secret(name)?;
    if !vault::is_key(&secret) {
        section.fault(name, "not a key", "32 random bytes in base64: openssl rand -base64 32");
    }
    Some(secret)
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Section::empty(&Default::default()))
    }
}
