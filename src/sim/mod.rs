//! The other end of the telephone line: simulated callers and load over real sockets, in any vendor's dialect.
//!
//! Nothing here is known to the daemon: a simulated call takes the same webhook, the same answer document and the same media
//! socket as a real one.

mod coder;
mod exchange;
mod frames;
mod pace;
mod payload;
mod phrases;
mod process;

pub mod address;
pub mod announce;
pub mod caller;
pub mod desk;
pub mod fault;
pub mod floor;
pub mod load;
pub mod playout;
pub mod report;
pub mod script;
mod simulator;
mod voice;
pub mod watch;

pub use exchange::Exchange;
pub use simulator::Simulator;
