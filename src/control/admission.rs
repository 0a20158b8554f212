//! Who may begin a call: how many at once and how many a second, for the process and for each tenant. Pure.

use super::Config;
use crate::base::{ids::TenantId, time::Mono};
use std::collections::HashMap;

/// Why a call was refused. The word is the label of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The daemon is stopping.
    Draining,
    /// The process carries as many calls as it may.
    Full,
    /// The tenant does.
    TenantFull,
    /// Too many new calls a second.
    TooFast,
    /// Too many new calls a second of the tenant.
    TenantTooFast,
    /// Storage does not keep up.
    StorageBehind,
    /// The machine does not.
    Strained(Strain),
}

/// In what the machine does not keep up with the calls it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strain {
    /// Media threads run late.
    Late,
    /// Memory is short.
    Memory,
}

impl Strain {
    /// One word, for metrics and `/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Memory => "memory",
        }
    }
}

impl Refusal {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Full => "max_calls",
            Self::TenantFull => "max_calls_per_tenant",
            Self::TooFast => "calls_per_second",
            Self::TenantTooFast => "tenant_calls_per_second",
            Self::StorageBehind => "storage_behind",
            Self::Strained(strain) => strain.as_str(),
        }
    }
}

/// A token bucket: `burst` at once, `rate` a second after that.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Mono,
}

impl Bucket {
    fn new(rate: u32, burst: u32, now: Mono) -> Self {
        let burst = f64::from(burst);
        Self {
            rate: f64::from(rate),
            burst,
            tokens: burst,
            at: now,
        }
    }

    fn refill(&mut self, now: Mono) {
        let earned = now.since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.burst);
        self.at = now;
    }
}

#[derive(Debug)]
struct Share {
    live: usize,
    bucket: Bucket,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Config,
    all: Share,
    tenants: HashMap<TenantId, Share>,
    draining: bool,
    strain: Option<Strain>,
}

impl Admission {
    /// Nobody is here yet.
    pub(super) fn new(limits: Config, now: Mono) -> Self {
        let bucket = Bucket::new(limits.calls_per_second, limits.calls_burst, now);
        Self {
            limits,
            all: Share { live: 0, bucket },
            tenants: HashMap::new(),
            draining: false,
            strain: None,
        }
    }

    /// Counts a call in, or says why not.
    pub(super) fn admit(&mut self, now: Mono, tenant: TenantId) -> Result<(), Refusal> {
        let limits = &self.limits;
        let share = self.tenants.entry(tenant).or_insert_with(|| Share {
            live: 0,
            bucket: Bucket::new(limits.tenant_calls_per_second, limits.tenant_calls_burst, now),
        });
        self.all.bucket.refill(now);
        share.bucket.refill(now);
        let refusal = if self.draining {
            Refusal::Draining
        } else if let Some(strain) = self.strain {
            Refusal::Strained(strain)
        } else if self.all.live >= limits.max_calls {
            Refusal::Full
        } else if share.live >= limits.max_calls_per_tenant {
            Refusal::TenantFull
        } else if self.all.bucket.tokens < 1.0 {
            Refusal::TooFast
        } else if share.bucket.tokens < 1.0 {
            Refusal::TenantTooFast
        } else {
            for share in [&mut self.all, share] {
                share.live += 1;
                share.bucket.tokens -= 1.0;
            }
            return Ok(());
        };
        Err(refusal)
    }

    /// Counts a call out.
    pub(super) fn release(&mut self, tenant: TenantId) {
        self.all.live = self.all.live.saturating_sub(1);
        if let Some(share) = self.tenants.get_mut(&tenant) {
            share.live = share.live.saturating_sub(1);
        }
    }

    /// Refuses all from now on.
    pub(super) const fn drain(&mut self) {
        self.draining = true;
    }

    /// Refuses all while the machine is strained. Returns how it was.
    pub(super) const fn strain(&mut self, strain: Option<Strain>) -> Option<Strain> {
        std::mem::replace(&mut self.strain, strain)
    }

    /// How the machine is strained.
    pub(super) const fn strained(&self) -> Option<Strain> {
        self.strain
    }

    /// Calls counted in.
    pub(super) const fn live(&self) -> usize {
        self.all.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn admission(f: impl FnOnce(&mut Config)) -> Admission {
        let mut limits = Config::default();
        f(&mut limits);
        Admission::new(limits, Mono::ZERO)
    }

    #[test]
    fn a_full_tenant_does_not_keep_another_out() {
        let mut a = admission(|l| (l.max_calls, l.max_calls_per_tenant) = (3, 2));
        assert_eq!([a.admit(Mono::ZERO, A), a.admit(Mono::ZERO, A)], [Ok(()), Ok(())]);
        assert_eq!(a.admit(Mono::ZERO, A), Err(Refusal::TenantFull));
        assert_eq!(a.admit(Mono::ZERO, B), Ok(()));
        assert_eq!(a.admit(Mono::ZERO, B), Err(Refusal::Full));
        a.release(A);
        assert_eq!((a.admit(Mono::ZERO, B), a.live()), (Ok(()), 3));
    }

    #[test]
    fn new_calls_come_in_a_burst_and_then_at_the_rate() {
        let mut a = admission(|l| (l.tenant_calls_per_second, l.tenant_calls_burst) = (2, 3));
        let got: Vec<_> = (0..4).map(|_| a.admit(Mono::ZERO, A).is_ok()).collect();
        assert_eq!(got, [true, true, true, false]);
        assert_eq!(a.admit(Mono::from_millis(499), A), Err(Refusal::TenantTooFast));
        assert_eq!(a.admit(Mono::from_millis(500), A), Ok(()));
        assert_eq!(a.admit(Mono::from_millis(500), B), Ok(()));
        let idle = Mono::ZERO + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| a.admit(idle, A).is_ok()).count(), 3);
    }

    #[test]
    fn a_refused_call_costs_nothing_and_a_draining_daemon_takes_none() {
        let mut a = admission(|l| (l.calls_per_second, l.calls_burst) = (1, 1));
        assert_eq!(a.admit(Mono::ZERO, A), Ok(()));
        for _ in 0..5 {
            assert_eq!(a.admit(Mono::ZERO, A), Err(Refusal::TooFast));
        }
        assert_eq!(a.live(), 1);
        let later = Mono::from_millis(9000);
        assert_eq!(a.strain(Some(Strain::Memory)), None);
        assert_eq!(a.admit(later, A), Err(Refusal::Strained(Strain::Memory)));
        assert_eq!((a.live(), a.strain(None)), (1, Some(Strain::Memory)));
        a.drain();
        assert_eq!(a.admit(later, A), Err(Refusal::Draining));
    }
}
