//! Logging: one structured line an event, on standard error, for people or as JSON.
//!
//! Every line of a call carries its ids through the span its task runs in. What may not be logged has types that print `***`;
//! text from outside is logged as a field value, which both formats escape.

use crate::config::log::{Config, Format};
use std::{io::IsTerminal, str::FromStr};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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
