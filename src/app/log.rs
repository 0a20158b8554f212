//! Logging: one structured line an event, on standard error, for people or as JSON.
//!
//! Every line of a call carries its ids through the span its task runs in. What may not be logged has types that print `***`;
//! text from outside is logged as a field value, which both formats escape.

use crate::base::settings::Section;
use std::{io::IsTerminal, str::FromStr};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Starts logging. Later calls in one process (tests) change nothing.
pub fn start(config: &Config) {
    let filter = EnvFilter::from_str(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match config.format {
        Format::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        Format::Human => {
            let colours = std::io::stderr().is_terminal();
            registry
                .with(
                    fmt::layer()
                        .with_ansi(colours)
                        .with_target(false)
                        .with_writer(std::io::stderr),
                )
                .try_init()
        }
    };
}
