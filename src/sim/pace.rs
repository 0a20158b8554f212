//! An absolute schedule for simulated senders: one `timerfd` in the reactor, so a tick is late by the wake-up alone
//! (tens of µs) where a tokio timer is late by 1–2 ms, and lateness never adds up.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::{io, os::fd::OwnedFd, time::Duration};
use tokio::io::{Interest, unix::AsyncFd};

/// A ticker whose n-th tick is due n periods after it was made.
#[derive(Debug)]
pub(super) struct Pace {
    fd: AsyncFd<OwnedFd>,
}

impl Pace {
    /// Starts ticking, the first time one `period` from now. Needs a tokio runtime with I/O.
    pub(super) fn every(period: Duration) -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let now = clock_gettime(rustix::time::ClockId::Monotonic);
        let first = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + period;
        let spec = Itimerspec {
            it_interval: timespec(period),
            it_value: timespec(first),
        };
        timerfd_settime(&fd, TimerfdTimerFlags::ABSTIME, &spec)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, and the successor is an unsafe fn")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Waits until a tick is due and returns how many are: more than one when we were late. Dropping the future loses none.
    pub(super) async fn tick(&mut self) -> io::Result<u64> {
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|fd| {
                let mut count = [0; 8];
                rustix::io::read(fd, &mut count)?;
                Ok(u64::from_ne_bytes(count))
            });
            if let Ok(due) = read {
                return due;
            }
        }
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec {
        tv_sec: d.as_secs() as _,
        tv_nsec: d.subsec_nanos() as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn a_late_reader_gets_every_tick_it_missed() {
        let mut pace = Pace::every(Duration::from_millis(2)).unwrap();
        let start = Instant::now();
        let mut ticks = pace.tick().await.unwrap();
        std::thread::sleep(Duration::from_millis(11));
        while ticks < 10 {
            ticks += pace.tick().await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(20), "{ticks} ticks too early");
    }
}
