//! The composition root: builds the daemon from its configuration, binds, runs, drains.

pub mod log;
