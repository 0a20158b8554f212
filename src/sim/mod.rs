//! The other end of the telephone line: simulated callers and load over real sockets, in any vendor's dialect.
//!
//! Nothing here is known to the daemon: a simulated call takes the same webhook, the same answer document and the same media
//! socket as a real one.

mod address;
mod frames;
mod pace;
mod script;

pub mod floor;
pub mod playout;
