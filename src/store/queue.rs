//! The bounded queue between whoever commits and the one thread that writes. Order in is order out; nothing is dropped once taken in.
//!
//! Work that the writer has taken still counts against the bounds until it is settled, so "full" means what is not yet durable.

use super::{Batch, Committed, StoreHealth, Write};
use crate::{
    base::fault::{Fault, Kind, Origin},
    metrics,
};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Make a batch durable.
    Commit {
        batch: Batch,
        done: oneshot::Sender<Result<Committed, Fault>>,
    },
    /// Close the calls that a dead process left open.
    CloseOpenCalls {
        done: oneshot::Sender<Result<usize, Fault>>,
    },
}

impl Work {
    /// Answers with a fault.
    pub(super) fn fail(self, fault: Fault) {
        match self {
            Self::Commit { done, .. } => drop(done.send(Err(fault))),
            Self::CloseOpenCalls { done } => drop(done.send(Err(fault))),
        }
    }

    /// Whether something is erased by it.
    pub(super) fn erases(&self) -> bool {
        match self {
            Self::Commit { batch, .. } => batch.writes.iter().any(|w| matches!(w, Write::Erased { .. })),
            Self::CloseOpenCalls { .. } => false,
        }
    }

    /// Rows that it touches, for the bound of a group commit.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Commit { batch, .. } => batch.writes.len().max(1),
            Self::CloseOpenCalls { .. } => 1,
        }
    }
}

/// A piece of work in the queue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) queued: Instant,
    bytes: usize,
}

/// What [`Queue::next`] found.
#[derive(Debug)]
pub(super) enum Next {
    /// Work.
    Job(Job),
    /// Nothing came in time.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
    /// Stop at once; what is queued was failed.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No new work; what is queued is still written.
    Closing(Instant),
    /// The writer stops as soon as it looks.
    Abandoned,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Jobs that the writer holds.
    taken: usize,
    oldest_taken: Option<Instant>,
    writable: bool,
    condition: Condition,
    journal: JournalHealth,
    phase: Phase,
}

/// How the journal in front of the database stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalHealth {
    /// Bytes that wait.
    pub(super) bytes: u64,
    /// Their bound.
    pub(super) capacity: u64,
    /// Age of the oldest record, in ms.
    pub(super) oldest_ms: u64,
}

/// What is known of the database's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// No damage was found, or none is suspected.
    Sound,
    /// It is being checked after an unclean stop.
    Unchecked,
    /// Damage was found.
    Damaged,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    max_jobs: usize,
    max_bytes: usize,
}

impl Queue {
    /// A queue of at most `max_jobs` batches and about `max_bytes` of their contents.
    pub(super) fn new(max_jobs: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                bytes: 0,
                taken: 0,
                oldest_taken: None,
                writable: true,
                condition: Condition::Sound,
                journal: JournalHealth::default(),
                phase: Phase::Open,
            }),
            changed: Condvar::new(),
            max_jobs,
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes work in, or answers it with a fault at once.
    pub(super) fn push(&self, work: Work) {
        let bytes = match &work {
            Work::Commit { batch, .. } => batch.size(),
            Work::CloseOpenCalls { .. } => 0,
        };
        let mut state = self.lock();
        let refusal = if state.phase != Phase::Open {
            Some(closed())
        } else if state.jobs.len() + state.taken >= self.max_jobs || state.bytes + bytes > self.max_bytes {
            Some(Fault::new(
                Origin::Us,
                Kind::Unavailable,
                "the store's queue is full: earlier writes are not on disk yet",
            ))
        } else {
            None
        };
        if let Some(fault) = refusal {
            drop(state);
            metrics::refused("commit", "queue");
            return work.fail(fault);
        }
        state.bytes += bytes;
        state.jobs.push_back(Job {
            work,
            queued: Instant::now(),
            bytes,
        });
        gauge(&state);
        drop(state);
        self.changed.notify_one();
    }

    /// The next job, waiting for it up to `wait`. Writer only.
    pub(super) fn next(&self, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            if state.phase == Phase::Abandoned {
                return Next::Abandoned;
            }
            if let Some(job) = take(&mut state) {
                return Next::Job(job);
            }
            if state.phase != Phase::Open {
                return Next::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Idle;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The next job if one waits. Writer only.
    pub(super) fn try_next(&self) -> Option<Job> {
        take(&mut self.lock())
    }

    /// Says that the work taken so far is done with. Writer only, before it answers.
    pub(super) fn settle(&self, jobs: &[Job]) {
        let mut state = self.lock();
        state.bytes -= jobs.iter().map(|j| j.bytes).sum::<usize>();
        state.taken -= jobs.len();
        state.oldest_taken = None;
        gauge(&state);
    }

    /// Says whether writes get through. Returns whether that is news.
    pub(super) fn set_writable(&self, writable: bool) -> bool {
        std::mem::replace(&mut self.lock().writable, writable) != writable
    }

    /// Waits before another try: `true` when it is due, `false` when the work should be given up, because the store was
    /// abandoned or has been closing for longer than `patience`.
    pub(super) fn pause(&self, wait: Duration, patience: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Abandoned => return false,
                Phase::Closing(since) if since.elapsed() >= patience => return false,
                Phase::Open | Phase::Closing(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Takes no more work in; what is queued is still written.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing(Instant::now());
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes no more work in and fails what is queued.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.phase = Phase::Abandoned;
        let jobs = std::mem::take(&mut state.jobs);
        state.bytes -= jobs.iter().map(|j| j.bytes).sum::<usize>();
        gauge(&state);
        drop(state);
        self.changed.notify_all();
        jobs.into_iter().for_each(|j| j.work.fail(closed()));
    }

    /// What is known of the database's condition from now on.
    pub(super) fn set_condition(&self, condition: Condition) {
        self.lock().condition = condition;
    }

    /// How the journal stands from now on.
    pub(super) fn set_journal(&self, journal: JournalHealth) {
        self.lock().journal = journal;
    }

    /// What is known of the database's condition.
    pub(super) fn condition(&self) -> Condition {
        self.lock().condition
    }

    /// How the queue stands.
    pub(super) fn health(&self) -> StoreHealth {
        let state = self.lock();
        let oldest = state.oldest_taken.or_else(|| state.jobs.front().map(|j| j.queued));
        StoreHealth {
            writable: state.writable && state.condition != Condition::Damaged && state.phase == Phase::Open,
            queued: state.jobs.len() + state.taken,
            capacity: self.max_jobs,
            oldest_ms: oldest.map_or(0, |t| t.elapsed().as_millis() as u64),
            journal_bytes: state.journal.bytes,
            journal_capacity: state.journal.capacity,
            journal_ms: state.journal.oldest_ms,
        }
    }
}

fn take(state: &mut State) -> Option<Job> {
    let job = state.jobs.pop_front()?;
    state.taken += 1;
    state.oldest_taken = state.oldest_taken.or(Some(job.queued));
    Some(job)
}

fn gauge(state: &State) {
    ::metrics::gauge!(metrics::store_queue).set((state.jobs.len() + state.taken) as f64);
}

/// The store takes no more work.
pub(super) fn closed() -> Fault {
    Fault::new(Origin::Us, Kind::Unavailable, "the store is closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &Queue) -> oneshot::Receiver<Result<Committed, Fault>> {
        let (done, rx) = oneshot::channel();
        queue.push(Work::Commit {
            batch: Batch::default(),
            done,
        });
        rx
    }

    #[test]
    fn work_counts_against_the_bound_until_it_is_settled() {
        let queue = Queue::new(2, 1 << 20);
        let (_a, _b) = (push(&queue), push(&queue));
        let Next::Job(job) = queue.next(Duration::ZERO) else {
            panic!()
        };
        assert_eq!(push(&queue).try_recv().unwrap().unwrap_err().kind, Kind::Unavailable);
        queue.settle(&[job]);
        assert!(push(&queue).try_recv().is_err(), "taken in");
        assert_eq!(queue.health().queued, 2);
    }

    #[test]
    fn bytes_bound_the_queue_too() {
        let queue = Queue::new(1000, Batch::default().size());
        let _first = push(&queue);
        assert!(push(&queue).try_recv().unwrap().is_err());
    }

    #[test]
    fn a_closed_queue_hands_out_what_it_holds_and_refuses_more() {
        let queue = Queue::new(10, 1 << 20);
        let _held = push(&queue);
        queue.close();
        assert!(push(&queue).try_recv().unwrap().is_err());
        assert!(matches!(queue.next(Duration::ZERO), Next::Job(_)));
        assert!(matches!(queue.next(Duration::ZERO), Next::Closed));
    }

    #[test]
    fn an_abandoned_queue_fails_what_it_holds() {
        let queue = Queue::new(10, 1 << 20);
        let mut held = push(&queue);
        queue.abandon();
        assert!(held.try_recv().unwrap().is_err());
        assert!(matches!(queue.next(Duration::ZERO), Next::Abandoned));
        assert!(!queue.pause(Duration::from_secs(60), Duration::from_secs(60)));
    }
}
