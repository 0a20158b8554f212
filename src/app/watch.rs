//! Tells systemd how the daemon is: ready, stopping, and alive. The watchdog is fed only while every media thread ticks and the
//! control runtime takes turns, so a hang of either is noticed; a free-running timer would hide it.

use crate::{base::time::Mono, shard::Shards};
use std::{sync::Arc, time::Duration};

/// A media thread silent for longer is taken for hung. Idle ones beat once a second.
const SILENCE: Duration = Duration::from_secs(4);

/// Says that the daemon serves.
pub(super) fn ready(status: String) {
    drop(tell(move || {
        sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)])
    }));
}

/// Says that the daemon drains.
pub(super) fn stopping() {
    drop(tell(|| sd_notify::notify(&[sd_notify::NotifyState::Stopping])));
}

/// Feeds the watchdog for as long as it should be fed. Runs on the control runtime, which thereby vouches for itself.
pub(super) async fn feed(shards: Arc<Shards>) {
    let Some(period) = sd_notify::watchdog_enabled().map(|limit| limit / 3) else {
        return;
    };
    loop {
        if shards.slowest_beat(Mono::now()) < SILENCE {
            // Awaited, so that at most one message waits for a reader.
            let _ = tell(|| sd_notify::notify(&[sd_notify::NotifyState::Watchdog])).await;
        } else {
            tracing::error!("a media thread does not tick; the watchdog is not fed");
        }
        tokio::time::sleep(period).await;
    }
}

/// Sends apart from the runtime's threads: a notify socket that nobody reads blocks whoever writes to it.
fn tell(send: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let _ = send();
    })
}
