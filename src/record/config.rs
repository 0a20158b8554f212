//! The recorder's part of the configuration: `[record]`. Which calls are recorded is each agent's own setting.

use crate::base::settings::Section;
use std::{path::PathBuf, time::Duration};

/// Where recordings go and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the files, under the state directory unless absolute.
    pub folder: PathBuf,
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
