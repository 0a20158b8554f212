//! The one thread that writes: takes what is queued, commits it as a group, answers, and prunes when there is nothing else to do.
//!
//! A group is what waits when the writer comes to look, and what arrives while it applies it; a lone batch is committed at once.
//! Each batch has a savepoint, so one that is refused or was seen before is void alone.
//!
//! A group has a number, which its transaction writes down. When a commit gets no answer, the next try of the same number finds
//! out what became of it: the row of the number is locked until an earlier try of the group is over.

use super::{
    apply::{self, NotApplied, Pen},
    node::Node,
    rows::{int, text, time},
    session::{Session, Settings, Trouble},
};
use crate::{
    base::{backoff::Backoff, fault::Fault, time::Wall},
    store::{
        Committed, Config,
        outcome::{Outcome, answer, count},
        queue::{Job, Next, Queue, Work, closed},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How often an idle connection is looked at, so that health tells the truth.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often what is too old is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long pruning may be put off by work.
const PRUNE_AT_LAST: Duration = Duration::from_secs(600);
/// Rows of one table removed in one transaction: commits wait for no more than that.
const PRUNE_ROWS: i64 = 500;
/// Starts of daemons are forgotten after this long.
const WRITERS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Batches of one group: PostgreSQL keeps track of 64 savepoints of a transaction before it gets slow for everybody.
const MAX_BATCHES: usize = 60;

/// The writer's state.
pub(super) struct Writer {
    io: Handle,
    settings: Settings,
    session: Option<Session>,
    node: Node,
    /// This start of the daemon, in `writers`.
    id: String,
    /// Number of the group that is being written, from 1.
    group: i64,
    /// What the group came to, while nobody knows whether its commit did.
    in_doubt: Option<Vec<Outcome>>,
    queue: Arc<Queue>,
    config: Config,
    backoff: Backoff,
    prune_due: Instant,
}

impl Writer {
    pub(super) fn new(
        io: Handle,
        settings: Settings,
        session: Session,
        node: Node,
        queue: Arc<Queue>,
        config: &Config,
    ) -> Self {
        Self {
            io,
            settings,
            session: Some(session),
            node,
            id: format!("writer_{}", uuid::Uuid::now_v7().simple()),
            group: 1,
            in_doubt: None,
            queue,
            config: config.clone(),
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1), Duration::MAX),
            prune_due: Instant::now() + PRUNE_EVERY,
        }
    }

    /// Works until the queue is closed and empty, or abandoned.
    pub(super) fn run(&mut self) -> Result<(), Fault> {
        loop {
            match self.queue.next(PING_EVERY) {
                Next::Job(job) => self.write(vec![job])?,
                Next::Idle if self.prune_due <= Instant::now() => self.prune(),
                Next::Idle => self.ping(),
                Next::Closed => return Ok(()),
                Next::Abandoned => return Err(closed()),
            }
            if self.prune_due.elapsed() > PRUNE_AT_LAST {
                self.prune();
            }
        }
    }

    /// Writes a group that begins with `group`, however long it takes. An error means that the store was told to stop first.
    fn write(&mut self, mut group: Vec<Job>) -> Result<(), Fault> {
        loop {
            match self.attempt(&mut group) {
                Ok(outcomes) => {
                    self.group += 1;
                    self.queue.settle(&group);
                    group.into_iter().zip(outcomes).for_each(|(job, o)| answer(job, o));
                    return Ok(());
                }
                Err(()) => {
                    count("retried");
                    let wait = self.backoff.next(1.0).unwrap_or(Duration::from_secs(1));
                    if !self.queue.pause(wait, self.config.close_patience) {
                        let fault = Fault::internal("the store stopped before the batch could be written");
                        self.queue.settle(&group);
                        group.into_iter().for_each(|j| j.work.fail(fault.clone()));
                        self.queue.abandon();
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// One try of a group; tells the queue whether the database can be written.
    fn attempt(&mut self, group: &mut Vec<Job>) -> Result<Vec<Outcome>, ()> {
        let io = self.io.clone();
        let result = io.block_on(async {
            self.connect().await?;
            self.try_write(group).await
        });
        self.note(result)
    }

    fn note<T>(&mut self, result: Result<T, Trouble>) -> Result<T, ()> {
        match result {
            Ok(done) => {
                self.backoff.reset();
                if self.queue.set_writable(true) {
                    tracing::info!(database = self.settings.place(), "the database can be written again");
                }
                Ok(done)
            }
            Err(trouble) => {
                if self.queue.set_writable(false) {
                    tracing::warn!(
                        database = self.settings.place(),
                        error = %trouble,
                        "the database cannot be written: batches wait"
                    );
                }
                Err(())
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = None;
            let settings = self.settings.clone();
            let opening = self.io.spawn(async move { Session::open(&settings).await });
            self.session = Some(opening.await.unwrap_or(Err(Trouble::Silent))?);
        }
        Ok(())
    }

    /// One transaction over the group and what joins it. On an error nothing of it is in the database, or it is in doubt.
    async fn try_write(&mut self, group: &mut Vec<Job>) -> Result<Vec<Outcome>, Trouble> {
        let session = self.session.take().ok_or(Trouble::Silent)?;
        let written = self.transact(&session, group).await;
        match &written {
            Ok(_) => self.session = Some(session),
            // A transaction that is given up with the connection leaves nothing either, but takes longer to.
            Err(trouble) if trouble.is_told() && session.batch("ROLLBACK").await.is_ok() => {
                self.session = Some(session);
            }
            Err(_) => {}
        }
        written
    }

    async fn transact(&mut self, session: &Session, group: &mut Vec<Job>) -> Result<Vec<Outcome>, Trouble> {
        let began = Instant::now();
        session.batch("BEGIN").await?;
        if !self.is_new(session).await? {
            if let Some(outcomes) = self.in_doubt.take() {
                session.batch("ROLLBACK").await?;
                return Ok(outcomes);
            }
            // Another process writes under this one's id; the commits of both would be lost on each other.
            return Err(Trouble::Unreadable);
        }
        self.in_doubt = None;
        let (mut outcomes, mut rows) = (Vec::new(), 0);
        loop {
            let n = outcomes.len();
            if n == group.len() {
                let full = rows >= self.config.commit_rows || n >= MAX_BATCHES;
                if full || began.elapsed() >= self.config.commit_time {
                    break;
                }
                let Some(job) = self.queue.try_next() else { break };
                group.push(job);
            }
            outcomes.push(self.apply(session, &group[n].work).await?);
            rows += group[n].work.rows();
        }
        self.in_doubt = Some(outcomes.clone());
        let committed = session.batch("COMMIT").await;
        match &committed {
            Ok(()) => self.in_doubt = None,
            Err(trouble) if trouble.is_told() => self.in_doubt = None,
            Err(_) => {}
        }
        committed.map(|()| outcomes)
    }

    /// Writes the group's number down. `false` when it is there already: the group was committed.
    async fn is_new(&self, session: &Session) -> Result<bool, Trouble> {
        let raised = session
            .query(
                "INSERT INTO writers AS w (id, node, last_group, written_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET last_group = $3, written_at = $4 WHERE w.last_group < $3 RETURNING 1",
                &[text(&self.id), text(self.node.id()), int(self.group), time(Wall::now())],
            )
            .await?;
        Ok(!raised.is_empty())
    }

    async fn apply(&self, session: &Session, work: &Work) -> Result<Outcome, Trouble> {
        let pen = Pen {
            node: self.node.id(),
            now: Wall::now(),
        };
        session.batch("SAVEPOINT batch").await?;
        let outcome = match work {
            Work::Commit { batch, .. } => match apply::batch(session, pen, batch).await {
                Ok(done) => Outcome::Batch(Ok(done)),
                Err(NotApplied::Duplicate) => Outcome::Batch(Ok(Committed::Duplicate)),
                Err(NotApplied::Batch(fault)) => Outcome::Batch(Err(fault)),
                Err(NotApplied::Engine(trouble)) => return Err(trouble),
            },
            Work::CloseOpenCalls { .. } => match apply::close_open_calls(session, pen).await {
                Ok(n) => Outcome::Closed(Ok(n)),
                Err(NotApplied::Duplicate) => Outcome::Closed(Ok(0)),
                Err(NotApplied::Batch(fault)) => Outcome::Closed(Err(fault)),
                Err(NotApplied::Engine(trouble)) => return Err(trouble),
            },
        };
        let end = match outcome {
            Outcome::Batch(Ok(Committed::Done { .. })) | Outcome::Closed(Ok(_)) => "RELEASE batch",
            Outcome::Batch(_) | Outcome::Closed(_) => "ROLLBACK TO batch; RELEASE batch",
        };
        session.batch(end).await?;
        Ok(outcome)
    }

    /// Asks the server for a sign of life.
    fn ping(&mut self) {
        let io = self.io.clone();
        let result = io.block_on(async {
            self.connect().await?;
            match &self.session {
                Some(session) => session.batch("").await,
                None => Err(Trouble::Silent),
            }
        });
        if self.note(result).is_err() {
            self.session = None;
        }
    }

    /// Removes a bounded number of rows that are too old or too many. More of them are due at once, none in a minute.
    pub(super) fn prune(&mut self) {
        let io = self.io.clone();
        let pruned = io.block_on(async {
            self.connect().await?;
            match &self.session {
                Some(session) => prune(session, &self.config, Wall::now()).await,
                None => Err(Trouble::Silent),
            }
        });
        let more = matches!(pruned, Ok(n) if n >= PRUNE_ROWS as usize);
        if let Err(error) = pruned {
            self.session = None;
            tracing::debug!(%error, "pruning put off");
        }
        self.prune_due = Instant::now() + if more { Duration::ZERO } else { PRUNE_EVERY };
    }
}

/// Each statement is a transaction. Returns the most rows that one of them removed.
async fn prune(session: &Session, config: &Config, now: Wall) -> Result<usize, Trouble> {
    let before = |age: Duration| time(Wall::from_micros(now.as_micros() - age.as_micros() as i64));
    let steps = [
        (
            "DELETE FROM seen_webhooks WHERE (vendor, key) IN
                 (SELECT vendor, key FROM seen_webhooks WHERE seen_at < $1 LIMIT $2) RETURNING 1",
            before(config.seen_retention),
        ),
        (
            "DELETE FROM events WHERE (tenant_id, id) IN
                 (SELECT tenant_id, id FROM events WHERE created_at < $1 LIMIT $2) RETURNING 1",
            before(config.event_retention),
        ),
        (
            "DELETE FROM events WHERE (tenant_id, id) IN
                 (SELECT e.tenant_id, e.id FROM tenant_counters c JOIN events e
                      ON e.tenant_id = c.tenant_id AND e.id <= c.last_event_id - $1 LIMIT $2) RETURNING 1",
            int(i64::from(config.events_per_tenant)),
        ),
        (
            "DELETE FROM jobs WHERE id IN
                 (SELECT id FROM jobs WHERE state = 'done' AND updated_at < $1 LIMIT $2) RETURNING 1",
            before(config.event_retention),
        ),
        (
            "DELETE FROM writers WHERE id IN (SELECT id FROM writers WHERE written_at < $1 LIMIT $2) RETURNING 1",
            before(WRITERS_KEPT),
        ),
    ];
    let mut most = 0;
    for (sql, bound) in steps {
        let gone = session.query(sql, &[bound, int(PRUNE_ROWS)]).await?;
        most = most.max(gone.len());
    }
    Ok(most)
}
