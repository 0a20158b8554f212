//! A wake-up that costs its ringer nothing while the sleeper is awake.
//!
//! Waking another thread takes 6–8 µs, more than all the work on a frame; so a consumer says when it sleeps, and a
//! producer rings only then. The order (say asleep, look again, wait) leaves no window in which work can be missed.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// One sleeper, any number of ringers.
#[derive(Debug, Default)]
pub struct Doorbell {
    asleep: AtomicBool,
    notify: Notify,
}

impl Doorbell {
    /// A bell whose sleeper is awake.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the sleeper if it said that it sleeps. Call after publishing the work.
    pub fn ring(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Sleeps until rung, unless `has_work` says that there is something to do already.
    pub async fn wait(&self, mut has_work: impl FnMut() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        if has_work() {
            self.asleep.store(false, Ordering::Relaxed);
            return;
        }
        self.notify.notified().await;
        self.asleep.store(false, Ordering::Relaxed);
    }
}
