//! The one thread that writes: takes what is queued, commits it as a group, answers, and prunes when there is nothing else to do.
//!
//! A group is what waits when the writer comes to look, and what arrives while it applies it; a lone batch is committed at once.
//! Each batch has a savepoint, so one that is refused or was seen before is void alone.

use super::{
    apply::{self, NotApplied},
    open::{LAST_CHECKPOINT, set_stopped_cleanly},
    rows::stamp,
};
use crate::{
    base::{backoff::Backoff, fault::Fault, time::Wall},
    metrics,
    store::{
        Committed, Config,
        outcome::{Outcome, answer, count},
        queue::{Condition, Job, Next, Queue, Work, closed},
    },
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Above this size of the write-ahead log, something keeps it from being folded back: a query that never ends, or an outside reader.
const WAL_WARN: u64 = 256 << 20;
/// How often what is too old is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long pruning may be put off by work.
const PRUNE_AT_LAST: Duration = Duration::from_secs(600);
/// Rows of one table removed in one transaction: commits wait for no more than that.
const PRUNE_ROWS: usize = 500;

/// How long after an erasure the log, which still holds what was erased, is folded back, and tried again while a reader holds it.
const FOLD_AFTER: Duration = Duration::from_millis(100);
/// How long one such try waits for readers.
const FOLD_WAIT: Duration = Duration::from_millis(20);

/// The writer's state.
pub(super) struct Writer {
    conn: Connection,
    queue: Arc<Queue>,
    config: Config,
    backoff: Backoff,
    prune_due: Instant,
    fold_due: Option<Instant>,
}

impl Writer {
    pub(super) fn new(conn: Connection, queue: Arc<Queue>, config: &Config) -> Self {
        Self {
            conn,
            queue,
            config: config.clone(),
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1), Duration::MAX),
            prune_due: Instant::now() + PRUNE_EVERY,
            fold_due: None,
        }
    }

    /// Works until the queue is closed and empty, or abandoned.
    pub(super) fn run(&mut self) -> Result<(), Fault> {
        loop {
            let due = self.fold_due.map_or(self.prune_due, |fold| fold.min(self.prune_due));
            let wait = due.saturating_duration_since(Instant::now());
            match self.queue.next(wait.max(Duration::from_millis(1))) {
                Next::Job(job) => self.write(vec![job])?,
                Next::Idle if self.prune_due <= Instant::now() => self.prune(),
                Next::Idle => {}
                Next::Closed => return self.finish(),
                Next::Abandoned => return Err(closed()),
            }
            if self.prune_due.elapsed() > PRUNE_AT_LAST {
                self.prune();
            }
            if self.fold_due.is_some_and(|due| due <= Instant::now()) {
                self.fold();
            }
        }
    }

    /// Writes a group that begins with `group`, however long it takes. An error means that the store was told to stop first.
    pub(super) fn write(&mut self, mut group: Vec<Job>) -> Result<(), Fault> {
        loop {
            match self.try_write(&mut group) {
                Ok(outcomes) => {
                    self.backoff.reset();
                    if self.queue.set_writable(true) {
                        tracing::info!("the database can be written again");
                    }
                    if group.iter().any(|j| j.work.erases()) {
                        self.fold_due = Some(Instant::now() + FOLD_AFTER);
                    }
                    self.queue.settle(&group);
                    group.into_iter().zip(outcomes).for_each(|(job, o)| answer(job, o));
                    return Ok(());
                }
                Err(e) => {
                    count("retried");
                    if self.queue.set_writable(false) {
                        tracing::warn!(error = %e, "the database cannot be written: batches wait");
                    }
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

    /// One transaction over the group and what joins it. On an error nothing of it is in the database.
    fn try_write(&mut self, group: &mut Vec<Job>) -> rusqlite::Result<Vec<Outcome>> {
        let mut tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let began = Instant::now();
        let (mut outcomes, mut rows) = (Vec::new(), 0);
        loop {
            let n = outcomes.len();
            if n == group.len() {
                if rows >= self.config.commit_rows || began.elapsed() >= self.config.commit_time {
                    break;
                }
                let Some(job) = self.queue.try_next() else { break };
                group.push(job);
            }
            outcomes.push(apply_one(&mut tx, &group[n].work)?);
            rows += group[n].work.rows();
        }
        tx.commit()?;
        Ok(outcomes)
    }

    /// Removes a bounded number of rows that are too old or too many. More of them are due at once, none in a minute.
    pub(super) fn prune(&mut self) {
        let pruned = self.try_prune(Wall::now());
        let more = matches!(pruned, Ok(n) if n >= PRUNE_ROWS);
        if let Err(e) = pruned {
            tracing::debug!(error = %e, "pruning put off");
        }
        if !more {
            self.watch_log();
        }
        self.prune_due = Instant::now() + if more { Duration::ZERO } else { PRUNE_EVERY };
    }

    fn try_prune(&mut self, now: Wall) -> rusqlite::Result<usize> {
        let before = |age: Duration| stamp(Wall::from_micros(now.as_micros() - age.as_micros() as i64));
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let seen = tx
            .prepare_cached(
                "DELETE FROM seen_webhooks WHERE (vendor, key) IN
                     (SELECT vendor, key FROM seen_webhooks WHERE seen_at < ?1 LIMIT ?2)",
            )?
            .execute(params![before(self.config.seen_retention), PRUNE_ROWS as i64])?;
        let old = tx
            .prepare_cached(
                "DELETE FROM events WHERE (tenant_id, id) IN
                     (SELECT tenant_id, id FROM events WHERE created_at < ?1 LIMIT ?2)",
            )?
            .execute(params![before(self.config.event_retention), PRUNE_ROWS as i64])?;
        let many = tx
            .prepare_cached(
                "DELETE FROM events WHERE (tenant_id, id) IN
                     (SELECT e.tenant_id, e.id FROM tenant_counters c CROSS JOIN events e
                      WHERE e.tenant_id = c.tenant_id AND e.id <= c.last_event_id - ?1 LIMIT ?2)",
            )?
            .execute(params![self.config.events_per_tenant, PRUNE_ROWS as i64])?;
        let done = tx
            .prepare_cached(
                "DELETE FROM jobs WHERE id IN
                     (SELECT id FROM jobs WHERE state = 'done' AND updated_at < ?1 LIMIT ?2)",
            )?
            .execute(params![before(self.config.event_retention), PRUNE_ROWS as i64])?;
        tx.commit()?;
        Ok(seen.max(old).max(many).max(done))
    }

    /// Folds the whole log back into the file and cuts it, unless a reader is in it.
    fn fold(&mut self) {
        let _ = self.conn.busy_timeout(FOLD_WAIT);
        let busy = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let _ = self.conn.busy_timeout(self.config.busy_timeout);
        self.fold_due = match busy {
            Ok(0) => None,
            _ => Some(Instant::now() + FOLD_AFTER),
        };
    }

    fn watch_log(&self) {
        let Some(path) = self.conn.path() else { return };
        let bytes = std::fs::metadata(format!("{path}-wal")).map_or(0, |m| m.len());
        ::metrics::gauge!(metrics::store_wal_bytes).set(bytes as f64);
        if bytes > WAL_WARN {
            tracing::warn!(
                bytes,
                "the database's write-ahead log does not shrink: a reader holds it"
            );
        }
    }

    fn finish(&mut self) -> Result<(), Fault> {
        if self.queue.condition() == Condition::Sound {
            set_stopped_cleanly(&self.conn, true)
                .map_err(|e| Fault::internal(format!("the database was not closed in order: {e}")))?;
        }
        let _ = self.conn.busy_timeout(LAST_CHECKPOINT);
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        Ok(())
    }
}

fn apply_one(tx: &mut Transaction<'_>, work: &Work) -> rusqlite::Result<Outcome> {
    let savepoint = tx.savepoint()?;
    let now = Wall::now();
    let outcome = match work {
        Work::Commit { batch, .. } => match apply::batch(&savepoint, batch, now) {
            Ok(done) => Outcome::Batch(Ok(done)),
            Err(NotApplied::Duplicate) => Outcome::Batch(Ok(Committed::Duplicate)),
            Err(NotApplied::Batch(fault)) => Outcome::Batch(Err(fault)),
            Err(NotApplied::Engine(e)) => return Err(e),
        },
        Work::CloseOpenCalls { .. } => match apply::close_open_calls(&savepoint, now) {
            Ok(n) => Outcome::Closed(Ok(n)),
            Err(NotApplied::Duplicate) => Outcome::Closed(Ok(0)),
            Err(NotApplied::Batch(fault)) => Outcome::Closed(Err(fault)),
            Err(NotApplied::Engine(e)) => return Err(e),
        },
    };
    // Dropped instead of committed, a savepoint rolls back.
    if let Outcome::Batch(Ok(Committed::Done { .. })) | Outcome::Closed(Ok(_)) = outcome {
        savepoint.commit()?;
    } else {
        savepoint.finish()?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::ids::TenantId,
        store::{
            contract::{batch, call, event, new_call},
            sqlite::open,
        },
    };
    use tokio::sync::oneshot;

    #[test]
    fn a_full_disk_takes_nothing_of_a_group_and_all_of_it_once_there_is_space() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default();
        let (conn, _lock, _) = open::open(&folder.path().join("test.db"), &config).unwrap();
        let limit = |conn: &Connection, pages: i64| {
            conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .unwrap();
        };
        let count = |conn: &Connection, table: &str| -> i64 {
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))
                .unwrap()
        };
        let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
        limit(&conn, pages);

        let queue = Arc::new(Queue::new(100, 1 << 30));
        let mut writer = Writer::new(conn, queue.clone(), &config);
        let row = call(TenantId(1));
        let batches = [
            vec![new_call(&row)],
            vec![event(&row, &"x".repeat(100_000))],
            vec![event(&row, "2")],
        ];
        for writes in batches {
            let (done, _) = oneshot::channel();
            queue.push(Work::Commit {
                batch: batch(writes),
                done,
            });
        }
        let Next::Job(first) = queue.next(Duration::ZERO) else {
            panic!()
        };
        let mut group = vec![first];
        assert!(writer.try_write(&mut group).is_err());
        assert_eq!(count(&writer.conn, "phone_calls"), 0);
        limit(&writer.conn, 1_000_000);
        let outcomes = writer.try_write(&mut group).unwrap();
        assert_eq!((outcomes.len(), group.len()), (3, 3));
        assert_eq!(
            (count(&writer.conn, "phone_calls"), count(&writer.conn, "events")),
            (1, 2)
        );
    }
}
