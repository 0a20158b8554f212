//! x
pub mod log;
mod watch;
