//! Which CPU each media thread is pinned to: one of those the process may use, or none.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs this process may run on, in order. Empty when the kernel does not say.
pub(super) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The CPU of each of `threads` media threads. The first allowed CPU is left to the control plane where there is another;
/// with more threads than CPUs, or none known, nothing is pinned.
pub(super) fn plan(threads: usize, allowed: &[usize]) -> Vec<Option<usize>> {
    let free = if allowed.len() > 1 { &allowed[1..] } else { allowed };
    if threads > free.len() {
        return vec![None; threads];
    }
    free.iter().take(threads).copied().map(Some).collect()
}

/// Pins the calling thread.
pub(super) fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_pinned_within_the_allowed_set_or_not_at_all() {
        assert_eq!(plan(1, &[0, 1]), [Some(1)]);
        assert_eq!(plan(2, &[3, 5, 9]), [Some(5), Some(9)]);
        assert_eq!(plan(1, &[7]), [Some(7)]);
        assert_eq!(plan(2, &[0, 1]), [None, None], "two threads would share one CPU");
        assert_eq!(plan(1, &[]), [None]);
    }

    #[test]
    fn a_thread_can_be_pinned_where_the_process_may_run() {
        std::thread::spawn(|| {
            let cpus = allowed();
            if let Some(last) = cpus.last() {
                pin(*last).unwrap();
                assert_eq!(allowed(), [*last]);
            }
        })
        .join()
        .unwrap();
    }
}
