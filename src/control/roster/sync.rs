//! Numbers and agents as other nodes change them: whoever has stored a change says so, and the others read the rows again.
//!
//! A notice that is lost is made up for by reading now and then. What did not change stays as it is in memory.

use super::load;
use crate::{
    base::fault::Fault,
    bus::{
        Peers,
        envelope::{self, VERSION},
    },
    control::Shared,
    metrics,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    sync::{PoisonError, Weak},
    time::Duration,
};
use tokio::time::timeout;

/// The service of a node that is told of changes.
const ROSTER: &str = "roster";
/// How often the rows are read though nobody told of a change.
const READ_EVERY: Duration = Duration::from_secs(30);

/// The rows were changed.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    v: u16,
}

impl Shared {
    /// Tells the other nodes that the rows were changed.
    pub(super) fn tell_roster(&self) {
        if let Some(peers) = self.deps.bus.peers()
            && let Ok(body) = envelope::write(&Changed { v: VERSION })
        {
            peers.tell_all(ROSTER, &body);
        }
    }

    async fn read_roster(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.roster.changing.lock().await;
        let deps = &self.deps;
        let mut read = load::read(&*deps.store, &deps.agents, &deps.seal).await?;
        let mut inner = self.roster.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (id, line) in &mut read.lines {
            if let Some(known) = inner.lines.get(id).filter(|known| known.row == line.row) {
                line.clone_from(known);
            }
        }
        for (id, agent) in &mut read.agents {
            if let Some(known) = inner.agents.get(id).filter(|known| known.row == agent.row) {
                agent.clone_from(known);
            }
        }
        *inner = read;
        Ok(())
    }
}

/// Follows the changes of other nodes for as long as the control plane lives.
pub(in crate::control) async fn follow(shared: Weak<Shared>, peers: Peers) {
    let mut told = peers.serve(ROSTER).await;
    loop {
        if let Ok(Some(notice)) = timeout(READ_EVERY, told.next()).await
            && let Err(bad) = envelope::read::<Changed>(&notice.body)
        {
            metrics::dropped("node_message", bad.as_str(), 1);
            continue;
        }
        let Some(shared) = shared.upgrade() else { return };
        if let Err(fault) = shared.read_roster().await {
            tracing::warn!(%fault, "changes of numbers and agents by other nodes could not be read yet");
        }
    }
}
