//! The messages of the telephony socket, both ways, as JSON text. Pure: no socket, no clock, no call is looked up.
//!
//! Names and fields are those that existing frontends speak; what sidetone adds (`id`, `client_ref`, `seq`, …) stands beside
//! them. Unknown members are ignored, an unknown `type` is not.

mod client;
mod server;

pub(super) use client::Written;
pub use client::{Action, ClientMessage, Settings, Unreadable, parse};
pub use server::{Class, ServerMessage, replayed};

use crate::base::fault::Origin;

/// `error_code` of a fault in answer to the message named `asked`. A vendor's own code is the caller's to know.
pub fn error_code(origin: Origin, asked: &str) -> &'static str {
    match (origin, asked) {
        (Origin::Client | Origin::Backend, "audio_data") => "STT_ERROR",
        (Origin::Backend, _) => "TTS_ERROR",
        (Origin::Vendor, _) => "VENDOR_ERROR",
        (Origin::Client | Origin::Us, _) => "CONNECTION_FAILED",
    }
}

#[cfg(test)]
mod tests;
