//! The `[log]` section: what is logged and how.

use crate::base::settings::Section;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Keys of `[log]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// How a line is written.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of `module=level`.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Human,
            level: "info".into(),
        }
    }
}

impl Config {
    /// Reads `[log]`.
    pub fn read(s: &Section<'_>) -> Self {
        let d = Self::default();
        let format = s.choice("format", d.format, &[("human", Format::Human), ("json", Format::Json)]);
        let level = s.text("level", &d.level);
        if EnvFilter::from_str(&level).is_err() {
            s.fault(
                "level",
                format!("{level:?} is not a level"),
                "error, warn, info, debug or trace",
            );
        }
        Self { format, level }
    }
}
