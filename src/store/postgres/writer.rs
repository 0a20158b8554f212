//! The one thread that writes: takes what is queued, commits it as a group, answers, and prunes when there is nothing else to do.
//!
//! A group is what waits when the writer comes to look, and what arrives while it applies it; a lone batch is committed at once.
//! Each batch has a savepoint, so one that is refused or was seen before is void alone.
//!
//! A group has a number, which its transaction writes down. When a commit gets no answer, the next try of the same number finds
//! out what became of it: the row of the number is locked until an earlier try of the group is over.
//!
//! While the database is away, groups go to the [`Journal`] and are answered once they are on its disk; when it is back they are
//! applied in order, those that arrive meanwhile behind them, and only when none is left are groups committed directly again.

use super::{group, known::Known, link::Link, node::Node, session::Trouble};
use crate::{
    base::{
        backoff::Backoff,
        fault::{Fault, Kind, Origin},
        time::Wall,
    },
    store::{
        Committed, Config,
        journal::{Entry, Front, Journal, Record},
        outcome::{Outcome, answer, count},
        queue::{Job, JournalHealth, Next, Queue, Work, closed},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often an idle connection is looked at, so that health tells the truth.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often the making of a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often what is too old is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long pruning may be put off by work.
const PRUNE_AT_LAST: Duration = Duration::from_secs(600);
/// Tries of a group before it goes to the journal, where the server says what is wrong: a deadlock, a lock that took too long.
const TRIES: u32 = 3;

/// The writer's state.
pub(super) struct Writer {
    link: Link,
    node: Node,
    /// This start of the daemon, in `writers`.
    id: String,
    /// Number of the group that is being written, from 1.
    group: i64,
    /// What the group came to, while nobody knows whether its commit did.
    in_doubt: Option<Vec<Outcome>>,
    /// Whether groups go to the journal.
    away: bool,
    journal: Journal,
    known: Known,
    /// Work that waits until the journal is empty.
    held: Option<Job>,
    queue: Arc<Queue>,
    config: Config,
    backoff: Backoff,
    retry_due: Instant,
    prune_due: Instant,
}

impl Writer {
    /// A writer over a connection. What earlier starts left in the journal comes first.
    pub(super) fn new(
        link: Link,
        node: Node,
        id: String,
        journal: Journal,
        known: Known,
        queue: Arc<Queue>,
        config: &Config,
    ) -> Self {
        let writer = Self {
            link,
            node,
            id,
            group: 1,
            in_doubt: None,
            away: !journal.is_empty(),
            journal,
            known,
            held: None,
            queue,
            config: config.clone(),
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1), Duration::MAX),
            retry_due: Instant::now(),
            prune_due: Instant::now() + PRUNE_EVERY,
        };
        if writer.away {
            tracing::info!(
                bytes = writer.journal.bytes(),
                "what the journal holds goes to the database first"
            );
            writer.queue.set_writable(false);
        }
        writer.tell();
        writer
    }

    /// Works until the queue is closed and empty, or abandoned.
    pub(super) fn run(&mut self) -> Result<(), Fault> {
        loop {
            let wait = if self.away { self.catch_up() } else { PING_EVERY };
            if !self.away
                && let Some(job) = self.held.take()
            {
                self.write_through(vec![job])?;
            }
            match self.queue.next(wait) {
                Next::Job(job) => self.take(job)?,
                Next::Idle if self.away => {}
                Next::Idle if self.prune_due <= Instant::now() => self.prune(),
                Next::Idle => self.ping(),
                Next::Closed => return self.finish(),
                Next::Abandoned => return Err(closed()),
            }
            if !self.away && self.prune_due.elapsed() > PRUNE_AT_LAST {
                self.prune();
            }
            self.tell();
        }
    }

    fn take(&mut self, job: Job) -> Result<(), Fault> {
        match (&job.work, self.away) {
            (Work::CloseOpenCalls { .. }, true) => {
                if let Some(earlier) = self.held.replace(job) {
                    self.settle(vec![earlier], vec![Outcome::Closed(Err(closed()))]);
                }
                Ok(())
            }
            (Work::CloseOpenCalls { .. }, false) => self.write_through(vec![job]),
            (Work::Commit { .. }, true) => self.spool(vec![job]),
            (Work::Commit { .. }, false) => self.write(vec![job]),
        }
    }

    /// Writes a group that begins with `group` to the database, or else to the journal.
    fn write(&mut self, mut group: Vec<Job>) -> Result<(), Fault> {
        for _ in 0..TRIES {
            match self.attempt(&mut group) {
                Ok(outcomes) => {
                    self.finish_group(group, outcomes);
                    return Ok(());
                }
                Err(trouble) => {
                    count("retried");
                    if !trouble.is_told() {
                        self.leave(&trouble);
                        break;
                    }
                    tracing::warn!(error = %trouble, "a group of batches was not written: once more");
                }
            }
        }
        if !self.away {
            self.leave(&Trouble::Gone);
        }
        match group.iter().any(|j| matches!(j.work, Work::CloseOpenCalls { .. })) {
            true => self.write_through(group),
            false => self.spool(group),
        }
    }

    /// Writes a group to the database, however long it takes, because the journal cannot answer for it.
    fn write_through(&mut self, mut group: Vec<Job>) -> Result<(), Fault> {
        loop {
            let wait = if self.away { self.catch_up() } else { Duration::ZERO };
            if !self.away {
                match self.attempt(&mut group) {
                    Ok(outcomes) => {
                        self.finish_group(group, outcomes);
                        return Ok(());
                    }
                    Err(trouble) => self.leave(&trouble),
                }
            }
            if !self.queue.pause(wait.max(LOOK_EVERY), self.config.close_patience) {
                return self.give_up(group);
            }
        }
    }

    /// Answers for a group from what is known, once it is in the journal. While that cannot be written either, nothing is
    /// acknowledged and both are tried again.
    fn spool(&mut self, mut group: Vec<Job>) -> Result<(), Fault> {
        let outcomes: Vec<_> = match self.in_doubt.take() {
            Some(outcomes) => group.iter().zip(outcomes).map(|(job, o)| doubt(&job.work, o)).collect(),
            None => {
                self.gather(&mut group);
                group.iter().map(|job| self.judge(&job.work)).collect()
            }
        };
        let entries: Vec<_> = group
            .iter()
            .zip(&outcomes)
            .filter_map(|(j, o)| entry(&j.work, o))
            .collect();
        let record = Record {
            group: self.group,
            at: Wall::now(),
            entries,
        };
        let mut told = false;
        loop {
            let appended = match record.entries.is_empty() {
                true => Ok(()),
                false => self.journal.append(&record),
            };
            match appended {
                Ok(()) => {
                    self.finish_group(group, outcomes);
                    return Ok(());
                }
                Err(error) if !told => {
                    told = true;
                    tracing::error!(%error, "neither the database nor the journal can be written: batches wait");
                }
                Err(_) => {}
            }
            count("retried");
            let wait = self.catch_up();
            self.tell();
            if !self.away {
                // What it was judged to come to is found out by the database itself, in the same order.
                self.in_doubt = Some(outcomes);
                return self.write(group);
            }
            if !self.queue.pause(wait.max(LOOK_EVERY), self.config.close_patience) {
                return self.give_up(group);
            }
        }
    }

    /// Takes what waits along, up to a group's size.
    fn gather(&mut self, group: &mut Vec<Job>) {
        let mut rows: usize = group.iter().map(|j| j.work.rows()).sum();
        while rows < self.config.commit_rows && self.held.is_none() {
            match self.queue.try_next() {
                Some(job) if matches!(job.work, Work::CloseOpenCalls { .. }) => self.held = Some(job),
                Some(job) => {
                    rows += job.work.rows();
                    group.push(job);
                }
                None => break,
            }
        }
    }

    fn judge(&mut self, work: &Work) -> Outcome {
        let away = || Fault::new(Origin::Us, Kind::Unavailable, "the database is away: try again later");
        Outcome::Batch(match work {
            Work::Commit { batch, .. } if Entry::new(batch, Vec::new()).is_none() => Err(away()),
            Work::Commit { batch, .. } => Ok(match self.known.judge(batch) {
                Some(event_ids) => Committed::Done { event_ids },
                None => Committed::Duplicate,
            }),
            Work::CloseOpenCalls { .. } => Err(away()),
        })
    }

    /// The group is durable: answers, and goes on to the next number.
    fn finish_group(&mut self, group: Vec<Job>, outcomes: Vec<Outcome>) {
        self.group += 1;
        for (job, outcome) in group.iter().zip(&outcomes) {
            if let (Work::Commit { batch, .. }, Outcome::Batch(Ok(Committed::Done { event_ids }))) =
                (&job.work, outcome)
            {
                self.known.learn(batch, event_ids);
            }
        }
        self.tell();
        self.settle(group, outcomes);
    }

    fn settle(&self, group: Vec<Job>, outcomes: Vec<Outcome>) {
        self.queue.settle(&group);
        group.into_iter().zip(outcomes).for_each(|(job, o)| answer(job, o));
    }

    fn give_up(&mut self, group: Vec<Job>) -> Result<(), Fault> {
        let fault = Fault::internal("the store stopped before the batch could be written");
        self.queue.settle(&group);
        group.into_iter().for_each(|j| j.work.fail(fault.clone()));
        self.queue.abandon();
        Err(fault)
    }

    /// One try of a group.
    fn attempt(&mut self, jobs: &mut Vec<Job>) -> Result<Vec<Outcome>, Trouble> {
        let io = self.link.io.clone();
        io.block_on(async {
            let session = self.link.session()?;
            let by = group::By {
                node: self.node.id(),
                writer: &self.id,
                group: self.group,
            };
            let written = group::write(session, by, &self.queue, &self.config, jobs, &mut self.in_doubt).await;
            if let Err(trouble) = &written {
                self.link.recover(trouble).await;
            }
            written
        })
    }

    /// From now on groups go to the journal.
    fn leave(&mut self, trouble: &Trouble) {
        self.away = true;
        self.retry_due = Instant::now();
        if self.queue.set_writable(false) {
            tracing::warn!(
                database = self.link.place(),
                error = %trouble,
                "the database is away: steps of calls go to the journal"
            );
        }
    }

    /// Looks whether the database is back, and applies some of the journal. Returns how long to wait before the next look.
    fn catch_up(&mut self) -> Duration {
        let left = self.retry_due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return left.min(LOOK_EVERY);
        }
        let applied = match self.link.poll() {
            None => return LOOK_EVERY,
            Some(Ok(())) => self.apply_front().inspect_err(|error| {
                tracing::warn!(%error, "the database does not take what the journal holds: tried again");
            }),
            Some(Err(trouble)) => Err(trouble.to_string()),
        };
        match applied {
            Ok(true) => {
                self.backoff.reset();
                Duration::ZERO
            }
            Ok(false) => {
                self.away = false;
                self.backoff.reset();
                if self.queue.set_writable(true) {
                    tracing::info!(
                        database = self.link.place(),
                        "the database is back, and has all of the journal"
                    );
                }
                Duration::ZERO
            }
            Err(error) => {
                tracing::debug!(%error, "the database is still away");
                self.retry_due = Instant::now() + self.backoff.next(1.0).unwrap_or(Duration::from_secs(1));
                LOOK_EVERY
            }
        }
    }

    /// Applies the oldest records of the journal. `false` when there are none.
    fn apply_front(&mut self) -> Result<bool, String> {
        let Some(front) = self.journal.front().map_err(|e| e.to_string())? else {
            return Ok(false);
        };
        let io = self.link.io.clone();
        let applied = io.block_on(async {
            let applied = match self.link.session() {
                Ok(session) => self.replay(session, &front).await,
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = &applied {
                self.link.recover(trouble).await;
            }
            applied
        });
        applied.map_err(|trouble| trouble.to_string())?;
        self.journal.applied(&front).map_err(|e| e.to_string())?;
        Ok(true)
    }

    async fn replay(&self, session: &super::session::Session, front: &Front) -> Result<(), Trouble> {
        let aside = |entry: &Entry, fault: &Fault| {
            count("journal_refused");
            tracing::error!(error = %fault, "the database refuses what was acknowledged while it was away: put aside");
            self.journal.put_aside(entry).map_err(|_| Trouble::Gone)
        };
        group::replay(session, self.node.id(), front, aside).await
    }

    /// Asks the server for a sign of life.
    fn ping(&mut self) {
        let io = self.link.io.clone();
        let alive = io.block_on(async {
            let alive = match self.link.session() {
                Ok(session) => session.batch("").await,
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = &alive {
                self.link.recover(trouble).await;
            }
            alive
        });
        if let Err(trouble) = alive {
            self.leave(&trouble);
        }
    }

    /// Removes a bounded number of rows that are too old or too many. More of them are due at once, none in a minute.
    pub(super) fn prune(&mut self) {
        let io = self.link.io.clone();
        let pruned = io.block_on(async {
            let pruned = match self.link.session() {
                Ok(session) => group::prune(session, &self.config, Wall::now()).await,
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = &pruned {
                self.link.recover(trouble).await;
                tracing::debug!(error = %trouble, "pruning put off");
            }
            pruned
        });
        let more = pruned.unwrap_or(false);
        self.prune_due = Instant::now() + if more { Duration::ZERO } else { PRUNE_EVERY };
    }

    /// Stops in order. What the journal still holds stays there for the next start.
    fn finish(&mut self) -> Result<(), Fault> {
        if let Some(job) = self.held.take() {
            self.settle(vec![job], vec![Outcome::Closed(Err(closed()))]);
        }
        while self.away {
            let wait = self.catch_up();
            if self.away && !self.queue.pause(wait, self.config.close_patience) {
                let bytes = self.journal.bytes();
                tracing::warn!(
                    bytes,
                    "the database is away: what the journal holds waits for the next start"
                );
                break;
            }
        }
        Ok(())
    }

    fn tell(&self) {
        let waits = !self.journal.is_empty();
        self.queue.set_journal(JournalHealth {
            bytes: if waits { self.journal.bytes() } else { 0 },
            capacity: self.journal.capacity(),
            oldest_ms: self.journal.age_ms(Wall::now()),
        });
    }
}

/// What is told of a batch whose commit got no answer: that it is stored, where the journal makes that true.
fn doubt(work: &Work, outcome: Outcome) -> Outcome {
    match (work, outcome) {
        (Work::Commit { batch, .. }, Outcome::Batch(Ok(Committed::Done { .. })))
            if Entry::new(batch, Vec::new()).is_none() =>
        {
            let message = "the database went away before it said whether this was stored: look again later";
            Outcome::Batch(Err(Fault::new(Origin::Us, Kind::Timeout, message)))
        }
        (_, outcome) => outcome,
    }
}

/// A batch that is answered with success, for the journal.
fn entry(work: &Work, outcome: &Outcome) -> Option<Entry> {
    match (work, outcome) {
        (Work::Commit { batch, .. }, Outcome::Batch(Ok(Committed::Done { event_ids }))) => {
            Entry::new(batch, event_ids.clone())
        }
        _ => None,
    }
}
