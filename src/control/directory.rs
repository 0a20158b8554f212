//! Every call in memory, by our id and by the vendor's; who is let in; who ended a moment ago.
//!
//! A call stays here until its task is over; it stops counting, and being found by tenants, once its end is on record.

use super::{
    Config, LiveCall, Microphone,
    admission::{Admission, Party, Refusal, Strain},
    talk::Command,
};
use crate::{
    access::members::Limits,
    base::{
        ids::{CallId, TenantId},
        time::Mono,
    },
    media::LegHandle,
    metrics,
    vendor::{Descriptor, Trunk},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, watch};

/// Ended calls remembered, so that late news of them finds nobody instead of making a call.
const MAX_ENDED: usize = 100_000;

/// The account that carries a call.
#[derive(Clone, Default)]
pub(super) struct Carrier {
    /// The account, if there is one.
    pub(super) trunk: Option<Arc<dyn Trunk>>,
    /// Whether it is the tenant's and not the operator's: its requests go to public addresses alone.
    pub(super) own: bool,
    /// The id in the paths that the vendor is given for it; `None` for the vendor's own paths.
    pub(super) via: Option<String>,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// What others know of a call's task.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) call: CallId,
    pub(super) tenant: TenantId,
    pub(super) vendor: &'static Descriptor,
    /// The numbers of a call we place: news of it may come before the vendor has told us its id.
    pub(super) parties: (String, String),
    pub(super) inbound: bool,
    /// Who carries it.
    pub(super) carrier: Carrier,
    /// To the task.
    pub(super) commands: mpsc::Sender<Command>,
    /// To the task, for what may be dropped.
    pub(super) microphone: mpsc::Sender<Box<Microphone>>,
    /// The call as it may be shown; `None` until its record exists.
    pub(super) shown: Mutex<Option<LiveCall>>,
    /// The leg, to be closed should the task panic.
    pub(super) leg: Mutex<Option<LegHandle>>,
}

impl Entry {
    /// Whose call it is, and which way it goes.
    fn party(&self) -> Party<'_> {
        Party {
            tenant: self.tenant,
            vendor: self.vendor.name,
            number: &self.parties.0,
            outbound: !self.inbound,
        }
    }

    /// The call as it may be shown.
    pub(super) fn show(&self) -> Option<LiveCall> {
        lock(&self.shown).clone()
    }
}

/// Locks what a panicking task may have held: every value behind these locks is whole at all times.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose ended calls are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A tenant's.
    Tenant(TenantId),
    /// Anybody's that the operator's account carried.
    Operator,
}

/// An ended call, under each of those who may ask for it.
type Ended = (Whose, &'static str, String);

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    /// The vendor's id, unique with its name and the tenant: it may be the word of the tenant's own account.
    sid: Option<String>,
    released: bool,
}

#[derive(Debug)]
struct Inner {
    calls: HashMap<CallId, Slot>,
    /// By the vendor's id; calls of several vendors and tenants may share one.
    sids: HashMap<String, Vec<CallId>>,
    admission: Admission,
    ended: HashSet<Ended>,
    ended_order: VecDeque<Ended>,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    inner: Mutex<Inner>,
    live: watch::Sender<usize>,
    tasks: watch::Sender<usize>,
}

/// What became of a new call.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is in.
    New,
    /// The vendor's call was in already.
    Known(Arc<Entry>),
    /// It may not come in.
    Refused(Refusal),
}

impl Directory {
    /// An empty one.
    pub(super) fn new(limits: Config, now: Mono) -> Self {
        let inner = Inner {
            calls: HashMap::new(),
            sids: HashMap::new(),
            admission: Admission::new(limits, now),
            ended: HashSet::new(),
            ended_order: VecDeque::new(),
        };
        Self {
            inner: Mutex::new(inner),
            live: watch::Sender::new(0),
            tasks: watch::Sender::new(0),
        }
    }

    /// Lets a call in, unless the tenant has the vendor's call in already or there is no room. `own` is what is set for the
    /// tenant alone.
    pub(super) fn enter(&self, now: Mono, entry: &Arc<Entry>, call_sid: Option<&str>, own: &Limits) -> Entered {
        let mut inner = lock(&self.inner);
        let named = call_sid.map(|sid| inner.by_sid(entry.vendor.name, sid));
        if let Some(known) = named.into_iter().flatten().find(|e| e.tenant == entry.tenant) {
            return Entered::Known(known.clone());
        }
        if let Err(refusal) = inner.admission.admit(now, entry.party(), own) {
            return Entered::Refused(refusal);
        }
        inner.calls.insert(
            entry.call,
            Slot {
                entry: entry.clone(),
                sid: None,
                released: false,
            },
        );
        if let Some(sid) = call_sid {
            inner.name(entry.call, sid);
        }
        self.tell(&inner);
        Entered::New
    }

    /// The vendor told its id of a call.
    pub(super) fn learn_sid(&self, call: CallId, call_sid: &str) {
        lock(&self.inner).name(call, call_sid);
    }

    /// The call of that id.
    pub(super) fn get(&self, call: CallId) -> Option<Arc<Entry>> {
        lock(&self.inner).calls.get(&call).map(|s| s.entry.clone())
    }

    /// The vendor's calls of that id: at most one of each tenant.
    pub(super) fn by_sid(&self, vendor: &'static str, call_sid: &str) -> Vec<Arc<Entry>> {
        lock(&self.inner).by_sid(vendor, call_sid).cloned().collect()
    }

    /// The one call between these numbers that was placed and whose id the vendor has not told; `None` if there are several.
    pub(super) fn unnamed(&self, vendor: &'static str, from: &str, to: &str) -> Option<Arc<Entry>> {
        let inner = lock(&self.inner);
        let mut found = inner.calls.values().filter(|s| {
            let e = &s.entry;
            s.sid.is_none() && !e.inbound && e.vendor.name == vendor && e.parties.0 == from && e.parties.1 == to
        });
        let only = found.next()?;
        found.next().is_none().then(|| only.entry.clone())
    }

    /// Whether the vendor's call ended here a while ago.
    pub(super) fn has_ended(&self, whose: Whose, vendor: &'static str, call_sid: &str) -> bool {
        lock(&self.inner).ended.contains(&(whose, vendor, call_sid.to_owned()))
    }

    /// A live call of a tenant by either id.
    pub(super) fn find(&self, tenant: TenantId, id: &str) -> Option<Arc<Entry>> {
        let inner = lock(&self.inner);
        let ours: Option<CallId> = id.parse().ok();
        let named = inner.sids.get(id).into_iter().flatten();
        let mut slots = ours.iter().chain(named).filter_map(|call| inner.calls.get(call));
        slots
            .find(|s| s.entry.tenant == tenant && !s.released)
            .map(|s| s.entry.clone())
    }

    /// Live calls of a tenant that may be shown, newest first.
    pub(super) fn of_tenant(&self, tenant: TenantId) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = {
            let inner = lock(&self.inner);
            let theirs = inner.calls.values().filter(|s| s.entry.tenant == tenant && !s.released);
            theirs.filter_map(|s| s.entry.show()).collect()
        };
        calls.sort_by_key(|c| std::cmp::Reverse((c.row.start_time, c.row.call_id)));
        calls
    }

    /// Every call.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.inner).calls.values().map(|s| s.entry.clone()).collect()
    }

    /// The end of a call is on record: it counts no more.
    pub(super) fn release(&self, call: CallId) {
        let mut inner = lock(&self.inner);
        inner.release(call);
        self.tell(&inner);
    }

    /// A call was let go of: another node has it, or will have.
    pub(super) fn leave(&self, call: CallId) {
        let mut inner = lock(&self.inner);
        inner.release(call);
        if let Some(sid) = inner.calls.remove(&call).and_then(|slot| slot.sid) {
            inner.forget(call, &sid);
        }
        self.tell(&inner);
    }

    /// A call's task is over.
    pub(super) fn remove(&self, call: CallId) {
        let mut inner = lock(&self.inner);
        inner.release(call);
        if let Some(Slot {
            entry, sid: Some(sid), ..
        }) = inner.calls.remove(&call)
        {
            inner.forget(call, &sid);
            let (tenant, vendor) = (entry.tenant, entry.vendor.name);
            if !entry.carrier.own {
                inner.remember((Whose::Operator, vendor, sid.clone()));
            }
            inner.remember((Whose::Tenant(tenant), vendor, sid));
        }
        self.tell(&inner);
    }

    /// Lets nobody in from now on.
    pub(super) fn drain(&self) {
        lock(&self.inner).admission.drain();
    }

    /// Lets nobody in while the machine is strained. Returns how it was.
    pub(super) fn strain(&self, strain: Option<Strain>) -> Option<Strain> {
        lock(&self.inner).admission.strain(strain)
    }

    /// Bytes of memory that are left for calls, where there is a bound.
    pub(super) fn make_room(&self, left: Option<u64>) {
        lock(&self.inner).admission.make_room(left);
    }

    /// How the machine is strained.
    pub(super) fn strained(&self) -> Option<Strain> {
        lock(&self.inner).admission.strained()
    }

    /// Live calls.
    pub(super) fn live(&self) -> usize {
        lock(&self.inner).admission.live()
    }

    /// Live calls as they change.
    pub(super) fn watch_live(&self) -> watch::Receiver<usize> {
        self.live.subscribe()
    }

    /// Calls' tasks as they change; some work on after their call has ended.
    pub(super) fn watch_tasks(&self) -> watch::Receiver<usize> {
        self.tasks.subscribe()
    }

    fn tell(&self, inner: &Inner) {
        let live = inner.admission.live();
        metrics::gauge(metrics::calls_live, &[]).set(live as f64);
        self.live.send_replace(live);
        self.tasks.send_replace(inner.calls.len());
    }
}

impl Inner {
    fn by_sid(&self, vendor: &str, call_sid: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let calls = self.sids.get(call_sid).into_iter().flatten();
        let entries = calls.filter_map(|call| self.calls.get(call)).map(|s| &s.entry);
        entries.filter(move |e| e.vendor.name == vendor)
    }

    fn name(&mut self, call: CallId, call_sid: &str) {
        let Some(slot) = self.calls.get_mut(&call).filter(|s| s.sid.is_none()) else {
            return;
        };
        slot.sid = Some(call_sid.to_owned());
        self.sids.entry(call_sid.to_owned()).or_default().push(call);
    }

    fn forget(&mut self, call: CallId, call_sid: &str) {
        if let Some(calls) = self.sids.get_mut(call_sid) {
            calls.retain(|c| *c != call);
            if calls.is_empty() {
                self.sids.remove(call_sid);
            }
        }
    }

    fn release(&mut self, call: CallId) {
        let Some(slot) = self.calls.get_mut(&call).filter(|s| !s.released) else {
            return;
        };
        slot.released = true;
        self.admission.release(slot.entry.party());
    }

    fn remember(&mut self, ended: Ended) {
        if self.ended.insert(ended.clone()) {
            self.ended_order.push_back(ended);
        }
        if self.ended_order.len() > MAX_ENDED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::VENDORS;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    const FROM: &str = "+14155550199";

    fn entry(tenant: i64, to: &str) -> Arc<Entry> {
        Arc::new(Entry {
            call: CallId::new(),
            tenant: TenantId(tenant),
            vendor: VENDORS[0],
            parties: (FROM.to_owned(), to.to_owned()),
            inbound: false,
            carrier: Carrier::default(),
            commands: mpsc::channel(1).0,
            microphone: mpsc::channel(1).0,
            shown: Mutex::default(),
            leg: Mutex::default(),
        })
    }

    fn directory() -> Directory {
        Directory::new(Config::default(), Mono::ZERO)
    }

    fn enter(directory: &Directory, entry: &Arc<Entry>, sid: Option<&str>) {
        assert!(matches!(
            directory.enter(Mono::ZERO, entry, sid, &Limits::default()),
            Entered::New
        ));
    }

    fn found(entry: impl IntoIterator<Item = Arc<Entry>>) -> Option<CallId> {
        entry.into_iter().map(|e| e.call).next()
    }

    #[test]
    fn a_call_is_found_by_either_id_by_its_tenant_while_it_lives() {
        let (d, a) = (directory(), entry(1, "a"));
        enter(&d, &a, Some("sid"));
        let again = entry(1, "a");
        assert!(
            matches!(d.enter(Mono::ZERO, &again, Some("sid"), &Limits::default()), Entered::Known(e) if e.call == a.call)
        );
        for id in ["sid", a.call.as_str()] {
            assert_eq!(found(d.find(TenantId(1), id)), Some(a.call));
            assert_eq!(found(d.find(TenantId(2), id)), None);
        }
        d.release(a.call);
        d.release(a.call);
        assert_eq!((found(d.find(TenantId(1), "sid")), d.live()), (None, 0));
        assert_eq!(
            found(d.by_sid(VENDORS[0].name, "sid")),
            Some(a.call),
            "late news still finds its task"
        );
        d.remove(a.call);
        assert_eq!((found(d.by_sid(VENDORS[0].name, "sid")), d.live()), (None, 0));
        let ended = |whose| d.has_ended(whose, VENDORS[0].name, "sid");
        assert!(ended(Whose::Tenant(TenantId(1))) && ended(Whose::Operator) && !ended(Whose::Tenant(TenantId(2))));
        assert!(!d.has_ended(Whose::Operator, "other", "sid"));
    }

    #[test]
    fn an_id_that_one_tenant_has_taken_is_every_other_tenants_all_the_same() {
        let (d, a, b) = (directory(), entry(1, "a"), entry(2, "b"));
        enter(&d, &a, Some("sid"));
        enter(&d, &b, Some("sid"));
        let both: Vec<_> = d.by_sid(VENDORS[0].name, "sid").iter().map(|e| e.call).collect();
        assert_eq!(both, [a.call, b.call]);
        assert_eq!(found(d.find(TenantId(2), "sid")), Some(b.call));
        d.remove(a.call);
        assert!(!d.has_ended(Whose::Tenant(TenantId(2)), VENDORS[0].name, "sid"));
        assert_eq!(found(d.find(TenantId(2), "sid")), Some(b.call));
    }

    #[test]
    fn what_ended_at_a_tenants_own_account_is_not_what_ended_at_the_operators() {
        let (d, a) = (directory(), entry(1, "a"));
        let own = Entry {
            carrier: Carrier {
                own: true,
                ..Carrier::default()
            },
            ..Arc::into_inner(a).unwrap()
        };
        let own = Arc::new(own);
        enter(&d, &own, Some("sid"));
        d.remove(own.call);
        let ended = |whose| d.has_ended(whose, VENDORS[0].name, "sid");
        assert!(ended(Whose::Tenant(TenantId(1))) && !ended(Whose::Operator));
    }

    #[test]
    fn a_placed_call_is_found_by_its_numbers_while_only_one_can_be_meant() {
        let (d, a, b) = (directory(), entry(1, "a"), entry(1, "a"));
        let vendor = VENDORS[0].name;
        enter(&d, &a, None);
        assert_eq!(found(d.unnamed(vendor, FROM, "a")), Some(a.call));
        assert_eq!(found(d.unnamed(vendor, "a", FROM)), None);
        enter(&d, &b, None);
        assert_eq!(found(d.unnamed(vendor, FROM, "a")), None);
        d.learn_sid(b.call, "sid");
        d.learn_sid(b.call, "another");
        assert_eq!(found(d.unnamed(vendor, FROM, "a")), Some(a.call));
        assert_eq!(found(d.by_sid(vendor, "sid")), Some(b.call));
        assert_eq!(found(d.by_sid(vendor, "another")), None);
    }

    #[test]
    fn watchers_see_calls_leave_before_their_tasks() {
        let (d, a) = (directory(), entry(1, "a"));
        enter(&d, &a, None);
        d.release(a.call);
        assert_eq!((*d.watch_live().borrow(), *d.watch_tasks().borrow()), (0, 1));
        d.remove(a.call);
        assert_eq!((*d.watch_live().borrow(), *d.watch_tasks().borrow()), (0, 0));
    }

    #[test]
    fn no_bound_is_exceeded_by_calls_that_come_and_go_at_once() {
        const TENANTS: i64 = 3;
        let d = Directory::new(
            Config {
                max_calls: 10,
                max_calls_per_tenant: 5,
                max_calls_per_number: 4,
                max_outbound_per_tenant: 4,
                calls_per_second: u32::MAX,
                calls_burst: u32::MAX,
                tenant_calls_per_second: u32::MAX,
                tenant_calls_burst: u32::MAX,
                tenant_calls_per_minute: u32::MAX,
                tenant_outbound_per_minute: u32::MAX,
                ..Config::default()
            },
            Mono::ZERO,
        );
        let held: Vec<AtomicUsize> = (0..=TENANTS).map(|_| AtomicUsize::new(0)).collect();
        let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for n in 0..8i64 {
                let (d, held, taken, refused) = (&d, &held, &taken, &refused);
                scope.spawn(move || {
                    for round in 0..500 {
                        let tenant = (n + round) % TENANTS;
                        let (one, sid) = (entry(tenant, "a"), format!("{n}-{round}"));
                        match d.enter(Mono::ZERO, &one, Some(&sid), &Limits::default()) {
                            Entered::New => {
                                taken.fetch_add(1, SeqCst);
                                // Counted after the directory let it in and before it is let out: never more than it holds.
                                let all = held[TENANTS as usize].fetch_add(1, SeqCst) + 1;
                                let theirs = held[tenant as usize].fetch_add(1, SeqCst) + 1;
                                assert!(all <= 10 && theirs <= 4, "{all} {theirs}");
                                std::thread::yield_now();
                                held[tenant as usize].fetch_sub(1, SeqCst);
                                held[TENANTS as usize].fetch_sub(1, SeqCst);
                                d.release(one.call);
                                d.remove(one.call);
                            }
                            Entered::Refused(_) => drop(refused.fetch_add(1, SeqCst)),
                            Entered::Known(_) => panic!("a vendor's id was used twice"),
                        }
                    }
                });
            }
        });
        assert_eq!(taken.load(SeqCst) + refused.load(SeqCst), 8 * 500);
        assert_eq!(d.live(), 0);
    }
}
