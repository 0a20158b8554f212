//! The check of a large database after an unclean stop, beside the daemon that works with it: a start must not wait for it.
//!
//! Damage that it finds makes the store unwell (`/ready` says so) and leaves the mark of the unclean stop, so that the next
//! start looks again and, with the check made first, refuses. Until then what can be written is written.

use super::open;
use crate::store::{
    Config, OpenError,
    queue::{Condition, Queue},
};
use rusqlite::InterruptHandle;
use std::{path::Path, sync::Arc, thread::JoinHandle};

/// A check under way. Dropping it gives up.
pub(super) struct Check {
    interrupt: InterruptHandle,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

impl Check {
    /// Begins. The queue's condition says how it goes.
    pub(super) fn start(path: &Path, config: &Config, queue: Arc<Queue>) -> Result<Self, OpenError> {
        let conn = open::connect_reader(path, config)?;
        let interrupt = conn.get_interrupt_handle();
        queue.set_condition(Condition::Unchecked);
        let shown = path.to_owned();
        let check = move || {
            tracing::info!(path = %shown.display(), "the last stop was unclean: checking the database meanwhile");
            match open::check(&shown, &conn) {
                Ok(()) => {
                    tracing::info!(path = %shown.display(), "the database is sound");
                    queue.set_condition(Condition::Sound);
                }
                Err(error @ OpenError::Damaged { .. }) => {
                    tracing::error!(%error, "stop the daemon before more is written");
                    queue.set_condition(Condition::Damaged);
                }
                Err(error) => tracing::warn!(%error, "the database is still to be checked: the next start tries again"),
            }
        };
        let thread = std::thread::Builder::new().name("store-check".into()).spawn(check);
        let thread = thread.map_err(|e| OpenError::unavailable(path.display(), e))?;
        Ok(Self {
            interrupt,
            thread: Some(thread),
        })
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // An interruption between two statements is lost, so it is repeated until it is heeded.
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            self.interrupt.interrupt();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
