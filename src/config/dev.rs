//! What `--dev` changes: a daemon for a developer's own machine, open to that machine alone.

use super::Config;
use crate::base::settings::{Fault, Place};
use std::{net::SocketAddr, time::Duration};

/// Stands for "no limit" where a limit must be a number.
const PLENTY: u32 = 1_000_000;

impl Config {
    /// Lifts limits and credentials. Refused where an address is not this machine's own.
    pub fn open_for_dev(&mut self) -> Result<(), Vec<Fault>> {
        let more = self.listen.more.iter();
        let addresses = [
            ("listen.address".to_owned(), Some(self.listen.address)),
            ("listen.metrics".to_owned(), self.listen.metrics),
        ]
        .into_iter()
        .chain(more.map(|(key, address)| (format!("listen.{key}"), Some(*address))));
        let open = |a: &Option<SocketAddr>| a.is_some_and(|a| !a.ip().is_loopback());
        let faults: Vec<_> = addresses
            .filter(|(_, a)| open(a))
            .map(|(key, address)| Fault {
                key,
                place: Some(Place::Flag("--dev".to_owned())),
                what: format!(
                    "{} can be reached from elsewhere",
                    address.map(|a| a.to_string()).unwrap_or_default()
                ),
                hint: "--dev needs no credentials and so listens on loopback only, such as 127.0.0.1:8080".to_owned(),
            })
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        self.dev = true;
        let limits = &mut self.listen.limits;
        (limits.total, limits.per_address, limits.unproven) = (0, 0, 0);
        self.media.max_legs = PLENTY as usize;
        self.frontends.lift_limits();
        self.calls.lift_limits();
        self.calls.strain.late = Duration::ZERO;
        self.calls.strain.memory = usize::MAX;
        self.record.max_recordings = PLENTY as usize;
        if !self.access.has_credentials() {
            self.access.add_ephemeral_key();
        }
        Ok(())
    }
}
