//! The transaction of a group of batches, and of groups that waited in the journal.

use super::{
    apply::{self, NotApplied, Pen},
    rows::{int, text, time},
    session::{Session, Trouble},
};
use crate::{
    base::{fault::Fault, time::Wall},
    store::{
        Batch, Committed, Config,
        journal::{Entry, Front},
        outcome::{Outcome, count},
        queue::{Job, Queue, Work},
    },
};
use std::time::{Duration, Instant};

/// Batches of one group: PostgreSQL keeps track of 64 savepoints of a transaction before it gets slow for everybody.
const MAX_BATCHES: usize = 60;
/// Rows of one table removed in one transaction: commits wait for no more than that.
const PRUNE_ROWS: i64 = 500;
/// Starts of daemons are forgotten after this long.
const WRITERS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Who writes which group.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub(super) node: &'a str,
    pub(super) writer: &'a str,
    pub(super) group: i64,
}

/// One transaction over the group and what joins it. On an error nothing of it is in the database, unless `in_doubt` holds what
/// it came to: then the commit got no answer, and another try of the same group finds out.
pub(super) async fn write(
    session: &Session,
    by: By<'_>,
    queue: &Queue,
    config: &Config,
    group: &mut Vec<Job>,
    in_doubt: &mut Option<Vec<Outcome>>,
) -> Result<Vec<Outcome>, Trouble> {
    let began = Instant::now();
    session.batch("BEGIN").await?;
    if !is_new(session, by).await? {
        session.batch("ROLLBACK").await?;
        // Without it another process would be writing under this one's id.
        return in_doubt.take().ok_or(Trouble::Unreadable);
    }
    *in_doubt = None;
    let mut savepoints = Savepoints::default();
    let (mut outcomes, mut rows) = (Vec::new(), 0);
    loop {
        let n = outcomes.len();
        if n == group.len() {
            let full = rows >= config.commit_rows || n >= MAX_BATCHES;
            if full || began.elapsed() >= config.commit_time {
                break;
            }
            let Some(job) = queue.try_next() else { break };
            group.push(job);
        }
        let pen = Pen {
            node: by.node,
            now: Wall::now(),
        };
        outcomes.push(match &group[n].work {
            Work::Commit { batch, .. } => Outcome::Batch(savepoints.apply(session, pen, batch, &[]).await?),
            Work::CloseOpenCalls { .. } => Outcome::Closed(savepoints.close_open_calls(session, pen).await?),
        });
        rows += group[n].work.rows();
    }
    *in_doubt = Some(outcomes);
    match session.batch("COMMIT").await {
        Err(trouble) if !trouble.is_told() => Err(trouble),
        told => {
            let outcomes = in_doubt.take().unwrap_or_default();
            told.map(|()| outcomes)
        }
    }
}

/// Applies groups that waited in the journal, each unless it was applied before. `aside` takes what the database refuses.
pub(super) async fn replay(
    session: &Session,
    node: &str,
    front: &Front,
    aside: impl Fn(&Entry, &Fault) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    session.batch("BEGIN").await?;
    for record in &front.records {
        let by = By {
            node,
            writer: &front.writer,
            group: record.group,
        };
        if !is_new(session, by).await? {
            continue;
        }
        let mut savepoints = Savepoints::default();
        let pen = Pen { node, now: record.at };
        for entry in &record.entries {
            match savepoints.apply(session, pen, &entry.batch(), &entry.event_ids).await? {
                Ok(Committed::Done { .. }) => count("replayed"),
                Ok(Committed::Duplicate) => count("duplicate"),
                Err(fault) => aside(entry, &fault)?,
            }
        }
        savepoints.end(session).await?;
    }
    session.batch("COMMIT").await
}

/// Writes a group's number down. `false` when it is there already: the group was committed.
async fn is_new(session: &Session, by: By<'_>) -> Result<bool, Trouble> {
    let raised = session
        .query(
            "INSERT INTO writers AS w (id, node, last_group, written_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET last_group = $3, written_at = $4 WHERE w.last_group < $3 RETURNING 1",
            &[text(by.writer), text(by.node), int(by.group), time(Wall::now())],
        )
        .await?;
    Ok(!raised.is_empty())
}

/// The savepoints of a transaction: one for each batch, given up together with the statements of the next.
#[derive(Default)]
struct Savepoints {
    open: bool,
}

impl Savepoints {
    const fn next(&mut self) -> &'static str {
        match std::mem::replace(&mut self.open, true) {
            false => "SAVEPOINT batch",
            true => "RELEASE batch; SAVEPOINT batch",
        }
    }

    async fn apply(
        &mut self,
        session: &Session,
        pen: Pen<'_>,
        batch: &Batch,
        told: &[i64],
    ) -> Result<Result<Committed, Fault>, Trouble> {
        let first = self.next();
        let undone = match apply::batch(session, pen, first, batch, told).await {
            Ok(done) => return Ok(Ok(done)),
            Err(NotApplied::Duplicate) => Ok(Committed::Duplicate),
            Err(NotApplied::Batch(fault)) => Err(fault),
            Err(NotApplied::Engine(trouble)) => return Err(trouble),
        };
        self.undo(session).await?;
        Ok(undone)
    }

    async fn close_open_calls(&mut self, session: &Session, pen: Pen<'_>) -> Result<Result<usize, Fault>, Trouble> {
        session.batch(self.next()).await?;
        let undone = match apply::close_open_calls(session, pen).await {
            Ok(closed) => return Ok(Ok(closed.len())),
            Err(NotApplied::Duplicate) => Ok(0),
            Err(NotApplied::Batch(fault)) => Err(fault),
            Err(NotApplied::Engine(trouble)) => return Err(trouble),
        };
        self.undo(session).await?;
        Ok(undone)
    }

    /// Whatever was sent after the savepoint is undone; the savepoint is there even when its batch never got so far.
    async fn undo(&mut self, session: &Session) -> Result<(), Trouble> {
        self.open = false;
        session.batch("ROLLBACK TO batch; RELEASE batch").await
    }

    async fn end(&mut self, session: &Session) -> Result<(), Trouble> {
        match std::mem::take(&mut self.open) {
            true => session.batch("RELEASE batch").await,
            false => Ok(()),
        }
    }
}

/// Removes what is too old or too many, each statement in a transaction of its own. Returns whether there is more.
pub(super) async fn prune(session: &Session, config: &Config, now: Wall) -> Result<bool, Trouble> {
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
    let mut more = false;
    for (sql, bound) in steps {
        let gone = session.query(sql, &[bound, int(PRUNE_ROWS)]).await?;
        more |= gone.len() as i64 >= PRUNE_ROWS;
    }
    Ok(more)
}
