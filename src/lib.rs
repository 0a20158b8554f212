//! sidetone, a low-latency media relay daemon for phone voice: the library behind the `sidetone` binary.
//!
//! Modules are layers, and imports only go down; `ARCHITECTURE.md` draws them and `tests/it/tidy.rs` holds them.
//! Read [`vendor`] for the words every dialect is translated into, then [`media`] for the path of a frame.

pub mod base;
pub mod metrics;

pub mod audio;
pub mod net;
pub mod wire;

pub mod bus;
pub mod record;
pub mod store;
pub mod vendor;

pub mod jobs;
pub mod llm;
pub mod media;
pub mod speech;

pub mod access;
pub mod agent;
pub mod shard;

pub mod control;
pub mod http;
pub mod hub;

pub mod config;
pub mod sim;

pub mod app;
pub mod cli;
pub mod fuzzing;
