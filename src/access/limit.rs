//! How often: token buckets (GCRA, by `governor`) on a clock that the caller turns, and a penalty for bad credentials.
//!
//! Tables keyed by something from outside are bounded: when full of active keys, newcomers share one bucket.

use crate::base::time::Mono;
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Keys remembered at once.
const KEYS: usize = 65_536;

/// A steady rate and how far it may be exceeded at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one unit comes back; zero means no limit.
    pub every: Duration,
    /// Units available after a rest.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        every: Duration::ZERO,
        burst: u32::MAX,
    };

    /// `n` a second, and `burst` at once.
    pub const fn per_second(n: u32, burst: u32) -> Self {
        Self {
            every: Duration::from_nanos(1_000_000_000 / if n == 0 { 1 } else { n } as u64),
            burst,
        }
    }

    /// `n` a minute, and as many at once.
    pub const fn per_minute(n: u32) -> Self {
        Self {
            every: Duration::from_nanos(60_000_000_000 / if n == 0 { 1 } else { n } as u64),
            burst: n,
        }
    }

    fn quota(self) -> Option<Quota> {
        let burst = NonZeroU32::new(self.burst.max(1))?;
        Some(Quota::with_period(self.every)?.allow_burst(burst))
    }
}

/// A clock that shows what it was last turned to, never backwards.
#[derive(Clone, Debug, Default)]
struct Dial(Arc<AtomicU64>);

impl Clock for Dial {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Relaxed))
    }
}

/// One bucket.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, Dial, NoOpMiddleware<Nanos>>>,
    dial: Dial,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let dial = Dial::default();
        let limiter = rate.quota().map(|q| RateLimiter::direct_with_clock(q, dial.clone()));
        Self { rate, limiter, dial }
    }

    /// Takes one unit; `false` when there is none.
    pub fn take(&self, now: Mono) -> bool {
        self.ask(now).is_ok()
    }

    /// Takes one unit, or says after how long there will be one.
    pub fn ask(&self, now: Mono) -> Result<(), Duration> {
        self.dial.0.fetch_max(now.as_nanos(), Relaxed);
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        limiter.check().map_err(|until| until.wait_time_from(self.dial.now()))
    }
}

/// A bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    slots: Mutex<HashMap<K, (Bucket, Mono)>>,
    overflow: Bucket,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Full buckets.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            slots: Mutex::default(),
            overflow: Bucket::new(rate),
        }
    }

    /// The rate of keys that have none of their own.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one unit from the bucket of `key`; `false` when there is none.
    pub fn take(&self, key: K, now: Mono) -> bool {
        self.ask(key, self.rate, now).is_ok()
    }

    /// Takes one unit from the bucket of `key`, whose own rate is `rate`, or says after how long there will be one. Another
    /// rate than the last begins with a full bucket.
    pub fn ask(&self, key: K, rate: Rate, now: Mono) -> Result<(), Duration> {
        if rate.every.is_zero() {
            return Ok(());
        }
        let mut slots = lock(&self.slots);
        if slots.len() >= KEYS && !slots.contains_key(&key) {
            slots.retain(|_, (bucket, last)| now.since(*last) < bucket.rate.every.saturating_mul(bucket.rate.burst));
            if slots.len() >= KEYS {
                return self.overflow.ask(now);
            }
        }
        let (bucket, last) = slots.entry(key).or_insert_with(|| (Bucket::new(rate), now));
        if bucket.rate != rate {
            *bucket = Bucket::new(rate);
        }
        *last = now;
        bucket.ask(now)
    }
}

/// Counts bad credentials by address; one too many shuts the address out for a while.
#[derive(Debug)]
pub struct Strikes {
    buckets: Buckets<IpAddr>,
    blocked: Mutex<HashMap<IpAddr, Mono>>,
    penalty: Duration,
}

impl Strikes {
    /// Nobody is shut out. More than `rate` costs `penalty`.
    pub fn new(rate: Rate, penalty: Duration) -> Self {
        Self {
            buckets: Buckets::new(rate),
            blocked: Mutex::default(),
            penalty,
        }
    }

    /// How long the address is still shut out.
    pub fn blocked(&self, address: IpAddr, now: Mono) -> Option<Duration> {
        let until = *lock(&self.blocked).get(&network(address))?;
        (until > now).then(|| until.since(now))
    }

    /// Counts a failure.
    pub fn strike(&self, address: IpAddr, now: Mono) {
        let network = network(address);
        if self.buckets.take(network, now) {
            return;
        }
        let mut blocked = lock(&self.blocked);
        if blocked.len() >= KEYS {
            blocked.retain(|_, until| *until > now);
        }
        if blocked.len() < KEYS {
            blocked.insert(network, now + self.penalty);
        }
    }
}

/// What one party is likely to own: an IPv4 address, or the /64 of an IPv6 one.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let bucket = Bucket::new(Rate::per_second(50, 200));
        let start = Mono::from_millis(5);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 200);
        assert_eq!((0..1000).filter(|_| bucket.take(start + SECOND)).count(), 50);
        assert_eq!((0..1000).filter(|_| bucket.take(start + SECOND * 60)).count(), 200);
    }

    #[test]
    fn who_is_refused_is_told_when_the_next_unit_comes() {
        let buckets = Buckets::new(Rate::UNLIMITED);
        let (slow, now) = (Rate::per_minute(2), Mono::from_millis(1));
        assert_eq!(buckets.ask(1, slow, now), Ok(()));
        assert_eq!(buckets.ask(1, slow, now), Ok(()));
        assert_eq!(buckets.ask(1, slow, now), Err(SECOND * 30));
        assert_eq!(buckets.ask(1, slow, now + SECOND * 10), Err(SECOND * 20));
        assert_eq!(buckets.ask(1, slow, now + SECOND * 30), Ok(()));
        assert_eq!(
            buckets.ask(1, Rate::per_minute(3), now + SECOND * 30),
            Ok(()),
            "a new rate"
        );
        assert_eq!(buckets.ask(2, Rate::UNLIMITED, now), Ok(()));
    }

    #[test]
    fn an_unlimited_rate_never_refuses() {
        let bucket = Bucket::new(Rate::UNLIMITED);
        assert!((0..100_000).all(|_| bucket.take(Mono::ZERO)));
    }

    #[test]
    fn time_that_goes_back_refills_nothing() {
        let bucket = Bucket::new(Rate::per_second(1, 1));
        assert!(bucket.take(Mono::from_millis(9000)));
        assert!(!bucket.take(Mono::from_millis(1)));
    }

    #[test]
    fn keys_do_not_share_until_the_table_is_full_of_active_ones() {
        let buckets = Buckets::new(Rate::per_minute(1));
        let now = Mono::from_millis(1);
        assert!((0..KEYS).all(|k| buckets.take(k, now)));
        assert!(buckets.take(KEYS, now), "the shared bucket's one unit");
        assert!(!buckets.take(KEYS + 1, now));
        assert!(buckets.take(KEYS + 1, now + SECOND * 61), "stale keys made room");
        assert!(lock(&buckets.slots).len() < 10);
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let strikes = Strikes::new(Rate::per_minute(20), SECOND * 60);
        let now = Mono::from_millis(1);
        for n in 0..21u16 {
            strikes.strike(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n)), now);
        }
        let same = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, 9));
        let other = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0));
        assert_eq!(strikes.blocked(same, now), Some(SECOND * 60));
        assert_eq!(strikes.blocked(other, now), None);
        assert_eq!(strikes.blocked(same, now + SECOND * 60), None);
        assert_eq!(
            network("::ffff:192.0.2.7".parse().unwrap()),
            IpAddr::from([192, 0, 2, 7])
        );
    }
}
