//! Who may begin a call: how many at once and how often, for the process, each tenant and each number. Pure.

use super::Config;
use crate::{
    access::members::Limits,
    base::{ids::TenantId, time::Mono},
};
use std::{collections::HashMap, time::Duration};

/// Memory that is set aside for a call that begins, until the next sample of what the process takes shows it, in bytes. A call
/// takes 80 KiB of rings and buffers, and about as much again for its speech and its record.
pub(super) const CALL_BYTES: u64 = 256 * 1024;
/// Tenants remembered, before those that are idle are forgotten.
const MAX_IDLE: usize = 4096;

/// Why a call was refused. The word is the label of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The daemon is stopping.
    Draining,
    /// The tenant is not served.
    TenantDisabled,
    /// The process carries as many calls as it may.
    Full,
    /// The tenant does.
    TenantFull,
    /// The tenant has placed as many.
    OutboundFull,
    /// The number carries as many.
    NumberFull,
    /// Too many new calls a second; there is room after so long.
    TooFast(Duration),
    /// Too many new calls a second of the tenant.
    TenantTooFast(Duration),
    /// Too many new calls a minute of the tenant.
    TenantTooMany(Duration),
    /// Too many calls placed a minute by the tenant.
    OutboundTooMany(Duration),
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
    /// What is to be stored waits too long.
    Storage,
}

impl Strain {
    /// One word, for metrics and `/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Memory => "memory",
            Self::Storage => "storage",
        }
    }
}

impl Refusal {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::TenantDisabled => "tenant_disabled",
            Self::Full => "max_calls",
            Self::TenantFull => "max_calls_per_tenant",
            Self::OutboundFull => "max_outbound_per_tenant",
            Self::NumberFull => "max_calls_per_number",
            Self::TooFast(_) => "calls_per_second",
            Self::TenantTooFast(_) => "tenant_calls_per_second",
            Self::TenantTooMany(_) => "tenant_calls_per_minute",
            Self::OutboundTooMany(_) => "tenant_outbound_per_minute",
            Self::StorageBehind => "storage_behind",
            Self::Strained(strain) => strain.as_str(),
        }
    }

    /// After how long another call has a chance, where that is known.
    pub(super) const fn wait(self) -> Option<Duration> {
        match self {
            Self::TooFast(wait)
            | Self::TenantTooFast(wait)
            | Self::TenantTooMany(wait)
            | Self::OutboundTooMany(wait) => Some(wait),
            _ => None,
        }
    }
}

/// Whose call it is, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party<'a> {
    pub(super) tenant: TenantId,
    pub(super) vendor: &'static str,
    /// Our number.
    pub(super) number: &'a str,
    pub(super) outbound: bool,
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
    fn new(rate: f64, burst: u32, now: Mono) -> Self {
        let burst = f64::from(burst);
        Self {
            rate,
            burst,
            tokens: burst,
            at: now,
        }
    }

    fn a_second(rate: u32, burst: u32, now: Mono) -> Self {
        Self::new(f64::from(rate), burst, now)
    }

    fn a_minute(n: u32, now: Mono) -> Self {
        Self::new(f64::from(n) / 60.0, n, now)
    }

    /// Earns what the time brought, at the rate that holds now.
    fn refill(&mut self, a_minute: Option<u32>, now: Mono) {
        if let Some(n) = a_minute {
            (self.rate, self.burst) = (f64::from(n) / 60.0, f64::from(n));
        }
        let earned = now.since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.burst);
        self.at = now;
    }

    /// After how long there is a token, where there is none.
    fn lacks(&self) -> Option<Duration> {
        (self.tokens < 1.0).then(|| {
            let seconds = (1.0 - self.tokens) / self.rate;
            // Of a rate of zero there is never one: an hour is as good as any.
            Duration::try_from_secs_f64(seconds).unwrap_or(HOUR).min(HOUR)
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Share {
    live: usize,
    outbound: usize,
    second: Bucket,
    minute: Bucket,
    placed: Bucket,
}

impl Share {
    fn is_idle(&self) -> bool {
        let whole = |b: &Bucket| b.tokens >= b.burst;
        self.live == 0 && whole(&self.second) && whole(&self.minute) && whole(&self.placed)
    }
}

/// The counters. Behind one lock: what is asked and what is counted is one step.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Config,
    live: usize,
    bucket: Bucket,
    tenants: HashMap<TenantId, Share>,
    numbers: HashMap<(&'static str, String), usize>,
    draining: bool,
    strain: Option<Strain>,
    /// Bytes of memory that are left for calls, where there is a bound.
    room: Option<u64>,
}

impl Admission {
    /// Nobody is here yet.
    pub(super) fn new(limits: Config, now: Mono) -> Self {
        Self {
            bucket: Bucket::a_second(limits.calls_per_second, limits.calls_burst, now),
            limits,
            live: 0,
            tenants: HashMap::new(),
            numbers: HashMap::new(),
            draining: false,
            strain: None,
            room: None,
        }
    }

    /// Counts a call in, or says why not. `own` is what is set for its tenant alone. A call that is refused costs nothing.
    pub(super) fn admit(&mut self, now: Mono, party: Party<'_>, own: &Limits) -> Result<(), Refusal> {
        let limits = &self.limits;
        if self.tenants.len() >= MAX_IDLE && !self.tenants.contains_key(&party.tenant) {
            self.tenants.retain(|_, share| {
                share.second.refill(None, now);
                share.minute.refill(None, now);
                share.placed.refill(None, now);
                !share.is_idle()
            });
        }
        let a_minute = own.calls_per_minute.unwrap_or(limits.tenant_calls_per_minute);
        let placed_a_minute = own.outbound_per_minute.unwrap_or(limits.tenant_outbound_per_minute);
        let share = self.tenants.entry(party.tenant).or_insert_with(|| Share {
            live: 0,
            outbound: 0,
            second: Bucket::a_second(limits.tenant_calls_per_second, limits.tenant_calls_burst, now),
            minute: Bucket::a_minute(a_minute, now),
            placed: Bucket::a_minute(placed_a_minute, now),
        });
        self.bucket.refill(None, now);
        share.second.refill(None, now);
        share.minute.refill(Some(a_minute), now);
        share.placed.refill(Some(placed_a_minute), now);

        let number = (party.vendor, party.number.to_owned());
        let of_number = self.numbers.get(&number).copied().unwrap_or(0);
        let outbound = party.outbound;
        let refusal = if self.draining {
            Refusal::Draining
        } else if let Some(strain) = self.strain {
            Refusal::Strained(strain)
        } else if self.room.is_some_and(|left| left < CALL_BYTES) {
            Refusal::Strained(Strain::Memory)
        } else if self.live >= limits.max_calls {
            Refusal::Full
        } else if share.live >= own.max_calls.unwrap_or(limits.max_calls_per_tenant) {
            Refusal::TenantFull
        } else if of_number >= own.max_calls_per_number.unwrap_or(limits.max_calls_per_number) {
            Refusal::NumberFull
        } else if outbound && share.outbound >= own.max_outbound.unwrap_or(limits.max_outbound_per_tenant) {
            Refusal::OutboundFull
        } else if let Some(wait) = self.bucket.lacks() {
            Refusal::TooFast(wait)
        } else if let Some(wait) = share.second.lacks() {
            Refusal::TenantTooFast(wait)
        } else if let Some(wait) = share.minute.lacks() {
            Refusal::TenantTooMany(wait)
        } else if let Some(wait) = share.placed.lacks().filter(|_| outbound) {
            Refusal::OutboundTooMany(wait)
        } else {
            self.live += 1;
            share.live += 1;
            share.outbound += usize::from(outbound);
            *self.numbers.entry(number).or_default() += 1;
            for bucket in [&mut self.bucket, &mut share.second, &mut share.minute] {
                bucket.tokens -= 1.0;
            }
            if outbound {
                share.placed.tokens -= 1.0;
            }
            self.room = self.room.map(|left| left - CALL_BYTES);
            return Ok(());
        };
        Err(refusal)
    }

    /// Counts a call out.
    pub(super) fn release(&mut self, party: Party<'_>) {
        self.live = self.live.saturating_sub(1);
        if let Some(share) = self.tenants.get_mut(&party.tenant) {
            share.live = share.live.saturating_sub(1);
            share.outbound = share.outbound.saturating_sub(usize::from(party.outbound));
        }
        let number = (party.vendor, party.number.to_owned());
        if let Some(live) = self.numbers.get_mut(&number) {
            *live -= 1;
            if *live == 0 {
                self.numbers.remove(&number);
            }
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

    /// Bytes of memory that are left for calls, as a sample has just shown.
    pub(super) const fn make_room(&mut self, left: Option<u64>) {
        self.room = left;
    }

    /// How the machine is strained.
    pub(super) const fn strained(&self) -> Option<Strain> {
        self.strain
    }

    /// Calls counted in.
    pub(super) const fn live(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn admission(f: impl FnOnce(&mut Config)) -> Admission {
        let mut limits = Config::default();
        f(&mut limits);
        Admission::new(limits, Mono::ZERO)
    }

    const fn party(tenant: TenantId, number: &str, outbound: bool) -> Party<'_> {
        Party {
            tenant,
            vendor: "acme",
            number,
            outbound,
        }
    }

    fn admit(a: &mut Admission, now: Mono, tenant: TenantId) -> Result<(), Refusal> {
        a.admit(now, party(tenant, "+1", false), &Limits::default())
    }

    #[test]
    fn a_full_tenant_does_not_keep_another_out() {
        let mut a = admission(|l| (l.max_calls, l.max_calls_per_tenant) = (3, 2));
        assert_eq!(
            [admit(&mut a, Mono::ZERO, A), admit(&mut a, Mono::ZERO, A)],
            [Ok(()), Ok(())]
        );
        assert_eq!(admit(&mut a, Mono::ZERO, A), Err(Refusal::TenantFull));
        assert_eq!(admit(&mut a, Mono::ZERO, B), Ok(()));
        assert_eq!(admit(&mut a, Mono::ZERO, B), Err(Refusal::Full));
        a.release(party(A, "+1", false));
        assert_eq!((admit(&mut a, Mono::ZERO, B), a.live()), (Ok(()), 3));
    }

    #[test]
    fn new_calls_come_in_a_burst_and_then_at_the_rate() {
        let mut a = admission(|l| (l.tenant_calls_per_second, l.tenant_calls_burst) = (2, 3));
        let got: Vec<_> = (0..4).map(|_| admit(&mut a, Mono::ZERO, A).is_ok()).collect();
        assert_eq!(got, [true, true, true, false]);
        let soon = Refusal::TenantTooFast(Duration::from_millis(1));
        assert_eq!(
            admit(&mut a, Mono::from_millis(499), A).map_err(|r| r.as_str()),
            Err(soon.as_str())
        );
        assert_eq!(admit(&mut a, Mono::from_millis(500), A), Ok(()));
        assert_eq!(admit(&mut a, Mono::from_millis(500), B), Ok(()));
        let idle = Mono::ZERO + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| admit(&mut a, idle, A).is_ok()).count(), 3);
    }

    #[test]
    fn a_minutes_calls_are_counted_both_ways_and_placed_ones_apart() {
        let mut a = admission(|l| (l.tenant_calls_per_minute, l.tenant_outbound_per_minute) = (4, 2));
        let (own, placed) = (Limits::default(), party(A, "+1", true));
        assert_eq!(a.admit(Mono::ZERO, placed, &own), Ok(()));
        assert_eq!(a.admit(Mono::ZERO, placed, &own), Ok(()));
        let wait = Duration::from_secs(30);
        assert_eq!(a.admit(Mono::ZERO, placed, &own), Err(Refusal::OutboundTooMany(wait)));
        assert_eq!(admit(&mut a, Mono::ZERO, A), Ok(()));
        assert_eq!(admit(&mut a, Mono::ZERO, A), Ok(()));
        assert_eq!(admit(&mut a, Mono::ZERO, A), Err(Refusal::TenantTooMany(wait / 2)));
        assert_eq!(admit(&mut a, Mono::from_millis(15_001), A), Ok(()));
    }

    #[test]
    fn a_number_and_placed_calls_have_bounds_of_their_own() {
        let mut a = admission(|l| (l.max_calls_per_number, l.max_outbound_per_tenant) = (1, 1));
        let own = Limits::default();
        assert_eq!(a.admit(Mono::ZERO, party(A, "+1", true), &own), Ok(()));
        assert_eq!(
            a.admit(Mono::ZERO, party(A, "+1", false), &own),
            Err(Refusal::NumberFull)
        );
        assert_eq!(
            a.admit(Mono::ZERO, party(A, "+2", true), &own),
            Err(Refusal::OutboundFull)
        );
        assert_eq!(a.admit(Mono::ZERO, party(A, "+2", false), &own), Ok(()));
        a.release(party(A, "+1", true));
        assert_eq!(a.admit(Mono::ZERO, party(A, "+1", true), &own), Ok(()));
        a.release(party(A, "+1", true));
        a.release(party(A, "+2", false));
        assert!(a.numbers.is_empty() && a.live() == 0);
    }

    #[test]
    fn what_is_set_for_a_tenant_goes_before_what_is_set_for_all() {
        let mut a = admission(|l| l.max_calls_per_tenant = 1);
        let own = Limits {
            max_calls: Some(2),
            calls_per_minute: Some(0),
            ..Limits::default()
        };
        assert_eq!(
            a.admit(Mono::ZERO, party(A, "+1", false), &own),
            Err(Refusal::TenantTooMany(HOUR))
        );
        let own = Limits {
            calls_per_minute: None,
            ..own
        };
        let minute = Mono::from_millis(60_000);
        for fits in [true, true, false] {
            assert_eq!(a.admit(minute, party(A, "+1", false), &own).is_ok(), fits);
        }
        assert_eq!(admit(&mut a, minute, B), Ok(()));
        assert_eq!(admit(&mut a, minute, B), Err(Refusal::TenantFull));
    }

    #[test]
    fn memory_is_set_aside_for_calls_that_the_next_sample_will_show() {
        let mut a = admission(|_| {});
        a.make_room(Some(2 * CALL_BYTES + 1));
        let got: Vec<_> = (0..3).map(|_| admit(&mut a, Mono::ZERO, A)).collect();
        assert_eq!(got, [Ok(()), Ok(()), Err(Refusal::Strained(Strain::Memory))]);
        a.make_room(Some(CALL_BYTES));
        assert_eq!(admit(&mut a, Mono::ZERO, A), Ok(()));
        a.make_room(None);
        assert_eq!(admit(&mut a, Mono::ZERO, A), Ok(()));
    }

    #[test]
    fn a_refused_call_costs_nothing_and_a_draining_daemon_takes_none() {
        let mut a = admission(|l| (l.calls_per_second, l.calls_burst) = (1, 1));
        assert_eq!(admit(&mut a, Mono::ZERO, A), Ok(()));
        for _ in 0..5 {
            let wait = Duration::from_secs(1);
            assert_eq!(admit(&mut a, Mono::ZERO, A), Err(Refusal::TooFast(wait)));
        }
        assert_eq!(a.live(), 1);
        let later = Mono::from_millis(9000);
        assert_eq!(a.strain(Some(Strain::Memory)), None);
        assert_eq!(admit(&mut a, later, A), Err(Refusal::Strained(Strain::Memory)));
        assert_eq!((a.live(), a.strain(None)), (1, Some(Strain::Memory)));
        a.drain();
        assert_eq!(admit(&mut a, later, A), Err(Refusal::Draining));
    }

    #[test]
    fn tenants_that_are_idle_are_forgotten() {
        let mut a = admission(|l| (l.max_calls, l.calls_per_second, l.calls_burst) = (1_000_000, 1_000_000, 1_000_000));
        for n in 0..MAX_IDLE as i64 {
            let now = Mono::from_millis(n as u64);
            assert_eq!(admit(&mut a, now, TenantId(n)), Ok(()));
            if n > 0 {
                a.release(party(TenantId(n), "+1", false));
            }
        }
        assert_eq!(a.tenants.len(), MAX_IDLE);
        let idle = Mono::ZERO + HOUR;
        assert_eq!(admit(&mut a, idle, TenantId(-1)), Ok(()));
        assert_eq!(a.tenants.len(), 2, "the one with a live call, and the new one");
    }

    proptest! {
        /// Against a model that keeps the list of live calls and counts it anew each time.
        #[test]
        fn no_bound_is_ever_exceeded_and_what_leaves_makes_room(
            steps in prop::collection::vec((0..3i64, 0..3usize, any::<bool>(), any::<bool>(), 0..40u64), 1..200),
        ) {
            let mut a = admission(|l| {
                (l.max_calls, l.max_calls_per_tenant, l.max_calls_per_number, l.max_outbound_per_tenant) = (7, 4, 3, 2);
                (l.tenant_calls_per_second, l.tenant_calls_burst) = (1_000_000, 1_000_000);
                (l.tenant_calls_per_minute, l.tenant_outbound_per_minute) = (1_000_000, 1_000_000);
                (l.calls_per_second, l.calls_burst) = (1_000_000, 1_000_000);
            });
            let (mut live, mut now): (Vec<(i64, usize, bool)>, _) = (Vec::new(), 0);
            let numbers = ["+1", "+2", "+3"];
            for (tenant, number, outbound, leaves, passed) in steps {
                now += passed;
                if leaves && !live.is_empty() {
                    let (t, n, o) = live.swap_remove(number % live.len());
                    a.release(party(TenantId(t), numbers[n], o));
                    continue;
                }
                let of = |f: &dyn Fn(&(i64, usize, bool)) -> bool| live.iter().filter(|c| f(c)).count();
                let fits = live.len() < 7
                    && of(&|c| c.0 == tenant) < 4
                    && of(&|c| c.1 == number) < 3
                    && (!outbound || of(&|c| c.0 == tenant && c.2) < 2);
                let got = a.admit(Mono::from_millis(now), party(TenantId(tenant), numbers[number], outbound), &Limits::default());
                prop_assert_eq!(got.is_ok(), fits, "{:?}", got);
                if fits {
                    live.push((tenant, number, outbound));
                }
                prop_assert_eq!(a.live(), live.len());
            }
        }
    }
}
