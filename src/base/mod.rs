//! Words every other module uses: units, time, ids, audio formats, faults, secrets, settings. No I/O, no threads.

pub mod backoff;
pub mod doorbell;
pub mod fault;
pub mod format;
pub mod ids;
pub mod keyring;
pub mod network;
pub mod phone;
pub mod secret;
pub mod settings;
pub mod time;
