//! One media thread and the handles to all of them.
//!
//! A shard ticks every millisecond while it has legs: it takes what other threads queued, wakes the legs whose phase it is,
//! and rings its lane's bell once if an ear has something to hear. Without legs the timer is off and a doorbell wakes it.

use super::{Config, affinity, leg_task};
use crate::{
    base::{doorbell::Doorbell, ids::ConnectionId, time::Mono},
    media::{Arrival, LegCommand, LegEvent, LegHandle, Scratch},
    metrics::{self, LocalCounts},
    net::{conn::Conn, listen::Permit, websocket::Buffers},
    vendor::{Descriptor, StreamCodec},
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

/// Phases of the tick: a leg is looked at in one of them, so that its work falls on ticks and the legs' work is spread.
const PHASES: usize = 20;
/// The thread's CPU time is read, and the deepest queue shown, once in so many ticks: about a second.
const TICKS_PER_READING: u32 = 1000;
/// Commands and sockets that may wait for a shard.
const QUEUE: usize = 8192;

/// An upgraded media socket on its way to a shard.
#[derive(Debug)]
pub struct Handover {
    /// The connection, parked.
    pub conn: Conn,
    /// Bytes already read behind the upgrade request.
    pub read: Bytes,
    /// Our id of the socket.
    pub connection: ConnectionId,
    /// Whose dialect it speaks.
    pub vendor: &'static Descriptor,
    /// The dialect's codec.
    pub codec: CodecBox,
    /// The token of its path.
    pub path_token: Option<String>,
    /// The id of our number in its path.
    pub number: Option<String>,
    /// Whether its request proved itself.
    pub proven: bool,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Its place among sockets, kept until the leg ends and vouched for once a call has taken it.
    pub permit: Option<Permit>,
}

/// A codec without a `Debug` of its own.
pub struct CodecBox(pub Box<dyn StreamCodec>);

impl std::fmt::Debug for CodecBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("codec")
    }
}

/// What other threads hold of a shard.
#[derive(Debug)]
struct ShardHandle {
    sockets: Sender<Handover>,
    bell: Arc<Doorbell>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a shard shows to other threads.
#[derive(Debug, Default)]
struct Shared {
    /// Sockets placed and not ended.
    legs: AtomicUsize,
    /// When it last ticked.
    beat: AtomicU64,
    stop: AtomicBool,
}

/// All media threads.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<ShardHandle>,
    max_legs: usize,
}

impl Shards {
    /// How many threads `config` asks for on this machine.
    pub fn count(config: &Config) -> usize {
        match config.threads {
            0 => affinity::allowed().len().saturating_sub(1).max(1),
            n => n,
        }
    }

    /// Starts the threads. Legs that begin are reported to `arrivals`.
    pub fn start(config: &Config, arrivals: &mpsc::Sender<Arrival>) -> io::Result<Self> {
        let cpus = if config.pin {
            affinity::plan(Self::count(config), &affinity::allowed())
        } else {
            vec![None; Self::count(config)]
        };
        if config.pin && cpus.iter().any(Option::is_none) {
            tracing::warn!(
                threads = cpus.len(),
                "media threads are not pinned: there are not enough CPUs for one each"
            );
        }
        let mut shards = Vec::with_capacity(cpus.len());
        for (index, cpu) in cpus.into_iter().enumerate() {
            let (sockets_tx, sockets) = bounded(QUEUE);
            let (commands_tx, commands) = bounded(QUEUE);
            let bell = Arc::new(Doorbell::new());
            let shared = Arc::new(Shared::default());
            let shard = Shard {
                index,
                cpu,
                config: config.clone(),
                sockets,
                commands,
                commands_tx,
                bell: bell.clone(),
                shared: shared.clone(),
                arrivals: arrivals.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("media-{index}"))
                .spawn(move || shard.run())?;
            shards.push(ShardHandle {
                sockets: sockets_tx,
                bell,
                shared,
                thread: Some(thread),
            });
        }
        Ok(Self {
            shards,
            max_legs: config.max_legs,
        })
    }

    /// Whether a socket would be taken now.
    pub fn has_room(&self) -> bool {
        self.shards.iter().any(|s| s.shared.legs.load(Relaxed) < self.max_legs)
    }

    /// Gives a socket to the least loaded shard, or back when none has room.
    pub fn place(&self, handover: Handover) -> Result<(), Box<Handover>> {
        let least = self.shards.iter().min_by_key(|s| s.shared.legs.load(Relaxed));
        let Some(shard) = least.filter(|s| s.shared.legs.load(Relaxed) < self.max_legs) else {
            return Err(Box::new(handover));
        };
        shard.shared.legs.fetch_add(1, Relaxed);
        match shard.sockets.try_send(handover) {
            Ok(()) => {
                shard.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(h) | TrySendError::Disconnected(h)) => {
                shard.shared.legs.fetch_sub(1, Relaxed);
                Err(Box::new(h))
            }
        }
    }

    /// Media sockets open.
    pub fn legs(&self) -> usize {
        self.shards.iter().map(|s| s.shared.legs.load(Relaxed)).sum()
    }

    /// How long ago the slowest shard last ticked.
    pub fn slowest_beat(&self, now: Mono) -> Duration {
        let beats = self
            .shards
            .iter()
            .map(|s| now.since(Mono::from_nanos(s.shared.beat.load(Relaxed))));
        beats.max().unwrap_or_default()
    }

    /// Stops the threads; legs still open are dropped.
    pub fn stop(&mut self) {
        for s in &self.shards {
            s.shared.stop.store(true, Relaxed);
            s.bell.ring();
        }
        for thread in self.shards.iter_mut().filter_map(|s| s.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a leg's task and its shard share.
pub(super) struct LegCell {
    pub(super) key: u64,
    /// It is the leg's phase.
    pub(super) due: Cell<bool>,
    /// Until when the leg's phases may pass it by.
    pub(super) quiet_until: Cell<Mono>,
    pub(super) inbox: RefCell<Vec<LegCommand>>,
    waker: Cell<Option<Waker>>,
}

impl LegCell {
    /// Remembers whom to wake; clones a waker only when it has changed.
    pub(super) fn remember(&self, waker: &Waker) {
        let known = self.waker.take();
        self.waker.set(Some(match known {
            Some(w) if w.will_wake(waker) => w,
            _ => waker.clone(),
        }));
    }

    /// Where the leg's news shall go, once its plan comes; nowhere when it is refused instead.
    pub(super) fn poll_plan(&self, cx: &Context<'_>) -> Poll<Option<mpsc::Sender<LegEvent>>> {
        self.remember(cx.waker());
        for command in self.inbox.take() {
            match command {
                LegCommand::Plan(plan) => return Poll::Ready(Some(plan.events)),
                LegCommand::Close { .. } => return Poll::Ready(None),
                _ => {}
            }
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(w) = self.waker.take() {
            w.wake_by_ref();
            self.waker.set(Some(w));
        }
    }
}

/// What all legs of a shard use in turn.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) scratch: RefCell<Scratch>,
    pub(super) buffers: RefCell<Buffers>,
    pub(super) arrivals: mpsc::Sender<Arrival>,
    pub(super) meters: Meters,
    /// The lane's bell, to be rung at the end of this tick.
    pub(super) ring: RefCell<Option<Arc<Doorbell>>>,
    legs: RefCell<HashMap<u64, Rc<LegCell>>>,
    phases: RefCell<Vec<Vec<Rc<LegCell>>>>,
    shared: Arc<Shared>,
}

/// A shard's own counters.
pub(super) struct Meters {
    pub(super) frames_in: Tally,
    pub(super) frames_out: Tally,
    pub(super) bytes_in: Tally,
    pub(super) bytes_out: Tally,
    /// How long turns took.
    pub(super) turns: LocalCounts,
    missed: ::metrics::Counter,
    legs: ::metrics::Gauge,
    /// The most audio that has waited for an ear since the last reading.
    deepest: Cell<Duration>,
    ear_queue: ::metrics::Gauge,
    cpu: ::metrics::Counter,
    ticks: Cell<u32>,
}

impl Meters {
    fn new(index: usize) -> Self {
        let shard = index.to_string();
        let labels: &[(&'static str, &str)] = &[("shard", shard.as_str())];
        let tally = |name| Tally {
            since: Cell::new(0),
            counter: metrics::counter(name, labels),
        };
        Self {
            frames_in: tally(metrics::frames_in_total),
            frames_out: tally(metrics::frames_out_total),
            bytes_in: tally(metrics::bytes_in_total),
            bytes_out: tally(metrics::bytes_out_total),
            turns: LocalCounts::default(),
            missed: metrics::counter(metrics::ticks_missed_total, labels),
            legs: metrics::gauge(metrics::legs_live, labels),
            deepest: Cell::default(),
            ear_queue: metrics::gauge(metrics::ear_queue_seconds, labels),
            cpu: metrics::counter(metrics::media_cpu_us_total, labels),
            ticks: Cell::new(0),
        }
    }

    /// So much audio waits for an ear.
    pub(super) fn note_ear_queue(&self, queued: Duration) {
        self.deepest.set(self.deepest.get().max(queued));
    }

    /// Shows what was counted since the last tick.
    fn publish(&self) {
        for tally in [&self.frames_in, &self.frames_out, &self.bytes_in, &self.bytes_out] {
            match tally.since.take() {
                0 => {}
                n => tally.counter.increment(n),
            }
        }
        metrics::TURN_TIME.take_in(&self.turns);
        self.ticks.set(self.ticks.get() + 1);
        if self.ticks.get() >= TICKS_PER_READING {
            self.ticks.set(0);
            self.ear_queue.set(self.deepest.take().as_secs_f64());
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            self.cpu
                .absolute(cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1000);
        }
    }
}

/// Counts without an atomic; published once a tick.
pub(super) struct Tally {
    since: Cell<u64>,
    counter: ::metrics::Counter,
}

impl Tally {
    pub(super) fn add(&self, n: u64) {
        self.since.set(self.since.get() + n);
    }
}

/// Takes a leg off its shard's lists, also when its task panicked.
pub(super) struct Seat {
    pub(super) desk: Rc<Desk>,
    pub(super) cell: Rc<LegCell>,
    phase: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::counter(metrics::panics_total, &[("kind", "leg")]).increment(1);
        }
        self.desk.legs.borrow_mut().remove(&self.cell.key);
        self.desk.phases.borrow_mut()[self.phase].retain(|c| c.key != self.cell.key);
        let left = self.desk.shared.legs.fetch_sub(1, Relaxed) - 1;
        self.desk.meters.legs.set(left as f64);
    }
}

struct Shard {
    index: usize,
    cpu: Option<usize>,
    config: Config,
    sockets: Receiver<Handover>,
    commands: Receiver<(u64, LegCommand)>,
    commands_tx: Sender<(u64, LegCommand)>,
    bell: Arc<Doorbell>,
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Shard {
    fn run(self) {
        if let Some(cpu) = self.cpu
            && let Err(e) = affinity::pin(cpu)
        {
            tracing::warn!(cpu, error = %e, "a media thread could not be pinned and runs unpinned");
        }
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(16)
            .build()
        {
            Ok(runtime) => runtime,
            Err(e) => return tracing::error!(shard = self.index, error = %e, "a media thread could not start"),
        };
        tokio::task::LocalSet::new().block_on(&runtime, self.work());
    }

    async fn work(self) {
        let desk = Rc::new(Desk {
            config: self.config.clone(),
            scratch: RefCell::default(),
            buffers: RefCell::default(),
            arrivals: self.arrivals.clone(),
            meters: Meters::new(self.index),
            ring: RefCell::default(),
            legs: RefCell::default(),
            phases: RefCell::new((0..PHASES).map(|_| Vec::with_capacity(64)).collect()),
            shared: self.shared.clone(),
        });
        let timer = match Ticker::new() {
            Ok(timer) => timer,
            Err(e) => return tracing::error!(shard = self.index, error = %e, "a media thread has no timer"),
        };
        let mut next_key = 0;
        while !self.shared.stop.load(Relaxed) {
            self.shared.beat.store(Mono::now().as_nanos(), Relaxed);
            desk.meters.publish();
            if desk.legs.borrow().is_empty() && self.sockets.is_empty() {
                // Commands to legs that are gone are let go, so that what they hold is freed.
                while self.commands.try_recv().is_ok() {}
                timer.disarm();
                let idle = self
                    .bell
                    .wait(|| !self.sockets.is_empty() || self.shared.stop.load(Relaxed));
                let _ = tokio::time::timeout(Duration::from_secs(1), idle).await;
                continue;
            }
            let (ticks, late) = timer.tick().await;
            metrics::TICK_LATE.record(late);
            if ticks > 1 {
                desk.meters.missed.increment(ticks - 1);
            }
            self.commands(&desk);
            while let Ok(handover) = self.sockets.try_recv() {
                next_key += 1;
                self.seat(&desk, handover, next_key);
            }
            // A tick that comes late stands for those it missed: their legs are woken once.
            let now = Mono::now();
            for n in 0..ticks.min(PHASES as u64) {
                let phase = ((timer.count.get() - n) % PHASES as u64) as usize;
                for cell in desk.phases.borrow()[phase]
                    .iter()
                    .filter(|c| c.quiet_until.get() <= now)
                {
                    cell.due.set(true);
                    cell.wake();
                }
            }
            if let Some(bell) = desk.ring.borrow_mut().take() {
                bell.ring();
            }
        }
    }

    fn commands(&self, desk: &Desk) {
        while let Ok((key, command)) = self.commands.try_recv() {
            if let Some(cell) = desk.legs.borrow().get(&key) {
                cell.inbox.borrow_mut().push(command);
                cell.wake();
            }
        }
    }

    fn seat(&self, desk: &Rc<Desk>, handover: Handover, key: u64) {
        let cell = Rc::new(LegCell {
            key,
            due: Cell::new(false),
            quiet_until: Cell::default(),
            inbox: RefCell::default(),
            waker: Cell::default(),
        });
        let phase = (key % PHASES as u64) as usize;
        desk.legs.borrow_mut().insert(key, cell.clone());
        desk.phases.borrow_mut()[phase].push(cell.clone());
        desk.meters.legs.set(self.shared.legs.load(Relaxed) as f64);
        let seat = Seat {
            desk: desk.clone(),
            cell,
            phase,
        };
        let handle = LegHandle::new(self.commands_tx.clone(), self.bell.clone(), key);
        tokio::task::spawn_local(leg_task::run(seat, handover, handle, self.index));
    }
}

/// One timerfd: a fixed grid of milliseconds, armed only while there is work.
struct Ticker {
    fd: AsyncFd<OwnedFd>,
    armed: Cell<bool>,
    /// When the next tick is due.
    due: Cell<Mono>,
    /// Ticks since it was made.
    count: Cell<u64>,
}

impl Ticker {
    const PERIOD: Duration = Duration::from_millis(1);

    fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[allow(
            deprecated,
            reason = "sound here: the descriptor is owned, and open for as long as it is registered"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self {
            fd,
            armed: Cell::new(false),
            due: Cell::default(),
            count: Cell::new(PHASES as u64),
        })
    }

    fn arm(&self) {
        // The first expiry is relative; the kernel keeps all that follow on the grid it begins.
        if self.set(Self::PERIOD) {
            self.armed.set(true);
            self.due.set(Mono::now() + Self::PERIOD);
        }
    }

    fn disarm(&self) {
        if self.armed.replace(false) {
            self.set(Duration::ZERO);
        }
    }

    /// Expires every `period` from now on; never when it is zero.
    fn set(&self, period: Duration) -> bool {
        let period = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        let spec = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec).is_ok()
    }

    /// Waits for the next tick. Returns how many have passed and how late the latest of them runs.
    async fn tick(&self) -> (u64, Duration) {
        if !self.armed.get() {
            self.arm();
        }
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return (1, Duration::ZERO);
            };
            let mut ticks = [0; 8];
            match rustix::io::read(self.fd.get_ref(), &mut ticks) {
                Ok(8) => {
                    ready.retain_ready();
                    let ticks = u64::from_ne_bytes(ticks);
                    self.count.set(self.count.get() + ticks);
                    let latest = self.due.get() + Self::PERIOD * (ticks as u32 - 1);
                    self.due.set(latest + Self::PERIOD);
                    return (ticks, Mono::now().since(latest));
                }
                _ => ready.clear_ready(),
            }
        }
    }
}
