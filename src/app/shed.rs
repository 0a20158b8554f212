//! When the machine is too small for what it carries: samples how late the media threads run, how much memory is taken and how
//! long storage keeps its work waiting, and lets no new call in while any of them is too much. Live calls are untouched.
//!
//! It begins only after a while of strain and ends only after a longer while of calm well below the bound, so that it does not
//! flutter with the calls that it turns away.

use crate::{
    control::{Control, Strain, StrainLimits},
    metrics::{Histogram, TICK_LATE},
    store::{Store, StoreHealth},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Time between samples.
const EVERY: Duration = Duration::from_millis(500);
/// Strain lasts so long before new calls are refused.
const BEGIN_AFTER: Duration = Duration::from_secs(2);
/// Calm lasts so long before they are let in again.
const END_AFTER: Duration = Duration::from_secs(5);
/// Calm is below this part of the bound.
const CALM: f64 = 0.7;
/// Storage is behind when this part of its queue or journal is taken.
const FULL: f64 = 0.8;
/// Part of ticks that must be within the bound.
const QUANTILE: f64 = 0.99;
/// Fewer ticks than this between two samples say nothing.
const MIN_TICKS: u64 = 50;
/// Part of the memory that the system allows the service, where no bound is configured.
const OF_ALLOWED: f64 = 0.85;

/// Watches for as long as the daemon runs.
pub(super) async fn watch(control: Control, store: Arc<dyn Store>, limits: StrainLimits) {
    let memory = match limits.memory {
        0 => allowed_memory().map(|bytes| bytes as f64 * OF_ALLOWED),
        bytes => Some(bytes as f64),
    };
    let late = Some(limits.late.as_secs_f64()).filter(|s| *s > 0.0);
    let queue = Some(limits.queue.as_secs_f64()).filter(|s| *s > 0.0);
    let (mut lateness, mut room, mut storage) = (Switch::default(), Switch::default(), Switch::default());
    let mut before = TICK_LATE.buckets();
    loop {
        tokio::time::sleep(EVERY).await;
        let now = TICK_LATE.buckets();
        let ticks = Histogram::quantile(&before, &now, QUANTILE, MIN_TICKS);
        before = now;
        let ticks = ticks.map_or(0.0, |t| t.as_secs_f64());
        let is_late = late.is_some_and(|bound| lateness.sample(ticks / bound));
        let taken = resident() as f64;
        let is_full = memory.is_some_and(|bound| room.sample(taken / bound));
        control.make_room(memory.map(|bound| (bound - taken).max(0.0) as u64));
        let is_behind = storage.sample(behind(store.health(), queue));
        let strain = match (is_late, is_full, is_behind) {
            (true, _, _) => Some(Strain::Late),
            (false, true, _) => Some(Strain::Memory),
            (false, false, true) => Some(Strain::Storage),
            (false, false, false) => None,
        };
        if control.strain(strain) != strain {
            match strain {
                Some(strain) => tracing::warn!(reason = strain.as_str(), "no new calls are taken until this passes"),
                None => tracing::info!("new calls are taken again"),
            }
        }
    }
}

/// How far storage is behind, as a part of what it may be: by the age of what waits, or by how much there is of it.
fn behind(health: StoreHealth, age: Option<f64>) -> f64 {
    let oldest = age.map_or(0.0, |bound| health.oldest_ms as f64 / 1000.0 / bound);
    oldest.max(health.fill() / FULL)
}

/// On after a while above the bound, off after a longer while of calm. Pure: one step is one sample.
#[derive(Debug, Default)]
struct Switch {
    on: bool,
    /// How long the samples have spoken against the present position.
    against: Duration,
}

impl Switch {
    /// Takes a sample as a part of its bound. Returns the position.
    fn sample(&mut self, part: f64) -> bool {
        let (against, patience) = match self.on {
            false => (part > 1.0, BEGIN_AFTER),
            true => (part < CALM, END_AFTER),
        };
        self.against = if against { self.against + EVERY } else { Duration::ZERO };
        if self.against >= patience {
            (self.on, self.against) = (!self.on, Duration::ZERO);
        }
        self.on
    }
}

/// Memory of this process in bytes; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0) * 1024
}

/// The memory that the system allows this service and what it is part of (`MemoryMax=` of systemd), where it says.
fn allowed_memory() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(path);
    let above = own.ancestors().take_while(|p| p.starts_with(root));
    let limits = above.filter_map(|p| std::fs::read_to_string(p.join("memory.max")).ok()?.trim().parse().ok());
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples until the switch turns, and how long that took.
    fn turns_after(switch: &mut Switch, part: f64) -> Option<Duration> {
        let was = switch.on;
        (1..100u32).find(|_| switch.sample(part) != was).map(|n| EVERY * n)
    }

    #[test]
    fn strain_counts_after_two_seconds_and_calm_after_five() {
        let mut switch = Switch::default();
        assert_eq!(turns_after(&mut switch, 1.0), None, "the bound itself is allowed");
        assert_eq!(turns_after(&mut switch, 1.1), Some(BEGIN_AFTER));
        assert_eq!(turns_after(&mut switch, 0.8), None, "below the bound is not yet calm");
        assert_eq!(turns_after(&mut switch, 0.6), Some(END_AFTER));
        for _ in 0..20 {
            assert!(!switch.sample(1.5));
            assert!(!switch.sample(1.5));
            assert!(!switch.sample(0.9), "a moment of strain is none");
        }
    }

    #[test]
    fn storage_is_behind_by_age_or_by_amount() {
        let health = |oldest_ms, queued| StoreHealth {
            oldest_ms,
            queued,
            capacity: 100,
            ..StoreHealth::default()
        };
        assert!(behind(health(5001, 0), Some(5.0)) > 1.0);
        assert!(behind(health(5000, 80), Some(5.0)) <= 1.0);
        assert!(behind(health(0, 81), Some(5.0)) > 1.0);
        assert_eq!(behind(health(60_000, 0), None), 0.0);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident() > 1 << 20, "{}", resident());
    }
}
