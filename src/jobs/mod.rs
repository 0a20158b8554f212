//! What is done after a call: its files, the data in it, the webhook that tells of it. Durable: each step is a job in the store.
//!
//! A job is taken for a while (`lease`), run, and then done, put off or buried, with what it wrote in one batch. Whoever dies
//! with one leaves it to the next, so each may run more than once and leaves the same behind: files have one name, the
//! webhook one id. `files` is queued with the end of the call; it queues `extract` and `webhook`.

mod config;
mod cost;
mod erase;
mod extract;
mod files;
mod retention;
mod webhook;

pub use config::{Config, Rate, Webhook};
pub use erase::Eraser;
pub use retention::{KEPT_HINT, read_kept, show_kept};

use crate::{
    base::{backoff::Backoff, ids::TenantId, time::Wall},
    llm::Chat,
    metrics,
    net::client::HttpClient,
    store::{AFTER_CALL, Batch, CallRow, Committed, ERASE, JobFilter, JobRow, JobState, Store, Write},
};
use serde_json::Value;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// How often due jobs are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Jobs that are run at once.
const AT_ONCE: usize = 8;
/// The first delay of a job that failed, and the longest.
const FIRST_DELAY: Duration = Duration::from_secs(2);
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// What an agent wants done after its calls.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The JSON schema of the data in a call.
    pub schema: Option<Value>,
    /// Who is told of it, where that is not the configured one.
    pub webhook_url: Option<String>,
    /// Calls with fewer messages leave no files.
    pub min_messages: usize,
    /// Who reads the data out of it, and with which model.
    pub chat: Option<(Arc<dyn Chat>, Option<String>)>,
    /// Its recogniser and synthesizer, for their rates.
    pub backends: (String, String),
}

/// Knows what agents want.
pub trait Agents: Send + Sync {
    /// The wishes of an agent; the defaults where there is none of that name any more.
    fn wishes(&self, tenant: TenantId, agent: &str) -> Wishes;
}

/// What jobs stand on.
pub struct Deps {
    /// Times, places, rates.
    pub config: Config,
    /// Where jobs and calls are.
    pub store: Arc<dyn Store>,
    /// What agents want.
    pub agents: Arc<dyn Agents>,
    /// The way to the operator's webhook.
    pub http: HttpClient,
    /// The way to tenants' webhooks: public addresses alone.
    pub tenant_http: HttpClient,
    /// Where files lie, unless their folders are absolute.
    pub data_root: PathBuf,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What became of an attempt.
enum Outcome {
    /// It succeeded; what it writes beside that.
    Done(Vec<Write>),
    /// It may succeed later, not before that long.
    Later(String, Duration),
    /// It will never succeed; what is written all the same.
    Never(String, Vec<Write>),
}

/// Runs what is due, and erases what is too old, until it is dropped.
pub async fn run(deps: Arc<Deps>) {
    tokio::join!(run_due(&deps), retention::run(&deps));
}

async fn run_due(deps: &Arc<Deps>) {
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let room = AT_ONCE - running.len();
        let filter = JobFilter {
            state: Some(JobState::Queued),
            due_by: Some(Wall::now()),
            limit: room,
            ..JobFilter::default()
        };
        let due = match deps.store.jobs(filter).await {
            Ok(due) if room > 0 => due,
            _ => Vec::new(),
        };
        let idle = due.is_empty();
        for job in due {
            if let Some(job) = take(deps, job).await {
                let deps = deps.clone();
                running.spawn(async move { attempt(&deps, job).await });
            }
        }
        if idle {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Some(_) = running.join_next() => {}
            }
        } else if running.len() == AT_ONCE {
            running.join_next().await;
        }
    }
}

/// Takes a job for as long as the lease, unless somebody else did.
async fn take(deps: &Deps, mut job: JobRow) -> Option<JobRow> {
    let (attempts, until) = (job.attempts + 1, later(Wall::now(), deps.config.lease));
    let taken = job.moved(JobState::Queued, attempts, until, job.error.clone());
    let writes = vec![Write::JobMove(Box::new(taken))];
    match deps.store.commit(Batch { writes }).await {
        Ok(Committed::Done { .. }) => {
            job.attempts = attempts;
            Some(job)
        }
        Ok(Committed::Duplicate) => None,
        Err(fault) => {
            warn!(%fault, "a job could not be taken");
            None
        }
    }
}

async fn attempt(deps: &Deps, job: JobRow) {
    let within = deps.config.lease.mul_f64(0.9);
    let mut about = None;
    let outcome = match tokio::time::timeout(within, perform(deps, &job, &mut about)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Later("it took too long".to_owned(), Duration::ZERO),
    };
    let now = Wall::now();
    let (word, moved, writes) = match outcome {
        Outcome::Done(writes) => ("done", job.moved(JobState::Done, job.attempts, now, None), writes),
        Outcome::Never(why, writes) => (
            "buried",
            job.moved(JobState::Buried, job.attempts, now, Some(why)),
            writes,
        ),
        Outcome::Later(why, least) => {
            let due = later(now, delay(job.attempts).max(least));
            if due > later(job.created_at, deps.config.retry_for) {
                let writes = forgone(&job);
                (
                    "buried",
                    job.moved(JobState::Buried, job.attempts, now, Some(why)),
                    writes,
                )
            } else {
                (
                    "retried",
                    job.moved(JobState::Queued, job.attempts, due, Some(why)),
                    Vec::new(),
                )
            }
        }
    };
    metrics::counter(metrics::jobs_total, &[("kind", kind(&job)), ("outcome", word)]).increment(1);
    if word != "done" {
        warn!(
            job = job.id,
            attempt = job.attempts,
            why = moved.error,
            outcome = word,
            "a job failed"
        );
    }
    // First, because an erasure takes the job with it.
    let writes = [vec![Write::JobMove(Box::new(moved))], writes].concat();
    match deps.store.commit(Batch { writes }).await {
        Ok(Committed::Done { .. }) if word == "done" && job.kind == ERASE => erase::audit("erased", &job),
        Ok(Committed::Done { .. }) => {}
        Ok(Committed::Duplicate) => give_way(deps, &job, about).await,
        Err(fault) => {
            warn!(%fault, job = job.id, "what became of a job could not be stored: it will be run again");
        }
    }
}

/// Somebody else has moved the job, or an erasure has taken it away: then what it left is removed again.
async fn give_way(deps: &Deps, job: &JobRow, about: Option<CallRow>) {
    let filter = JobFilter {
        id: Some(job.id.clone()),
        limit: 1,
        ..JobFilter::default()
    };
    if let (Ok(found), Some(call)) = (deps.store.jobs(filter).await, about)
        && found.is_empty()
    {
        Eraser::of(deps).sweep(&call).await;
    }
}

/// Does the work of a job. `about` is the call, once that is known.
async fn perform(deps: &Deps, job: &JobRow, about: &mut Option<CallRow>) -> Outcome {
    if kind(job) == ERASE {
        return Eraser::of(deps).run(job).await;
    }
    let call = match deps.store.call(job.tenant_id, job.call_id.as_str()).await {
        Ok(Some(call)) => call,
        Ok(None) => return Outcome::Never("the call is not on record".to_owned(), Vec::new()),
        Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
    };
    let call = &*about.insert(call);
    let wishes = deps.agents.wishes(call.tenant_id, &first_agent(call));
    match kind(job) {
        AFTER_CALL => files::run(deps, call, &wishes).await,
        extract::KIND => extract::run(deps, job, call, &wishes).await,
        webhook::KIND => webhook::run(deps, job, call, &wishes).await,
        _ => Outcome::Never("this version knows no such job".to_owned(), Vec::new()),
    }
}

/// What is done all the same when a job is given up.
fn forgone(job: &JobRow) -> Vec<Write> {
    match kind(job) {
        extract::KIND => extract::forgone(job),
        _ => Vec::new(),
    }
}

/// The sort of a job as one of a few words, for metrics.
fn kind(job: &JobRow) -> &'static str {
    let known = [AFTER_CALL, ERASE, extract::KIND, webhook::KIND];
    known.into_iter().find(|k| *k == job.kind).unwrap_or("other")
}

/// The agent that the call began with: a person may have had it at the end.
fn first_agent(call: &CallRow) -> String {
    let first = call.metadata.pointer("/handoffs/0/from").and_then(Value::as_str);
    first.unwrap_or(&call.agent).to_owned()
}

/// Work that follows, for the same call, due at once.
fn next(kind: &str, call: &CallRow) -> Write {
    let now = Wall::now();
    Write::Job(Box::new(JobRow::new(kind, call.tenant_id, call.call_id, now, now)))
}

fn later(at: Wall, wait: Duration) -> Wall {
    Wall::from_micros(at.as_micros().saturating_add(wait.as_micros() as i64))
}

/// Doubles with each attempt, with full jitter above a half.
fn delay(attempts: u32) -> Duration {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, Duration::MAX);
    let jitter = uuid::Uuid::new_v4().as_u128() as u8;
    let mut delay = FIRST_DELAY;
    for _ in 0..attempts.clamp(1, 24) {
        delay = backoff.next(0.5 + f64::from(jitter) / 510.0).unwrap_or(LONGEST_DELAY);
    }
    delay
}

/// Queues a buried job again. `false` where it is not buried.
pub async fn replay(store: &dyn Store, job: &JobRow) -> Result<bool, crate::base::fault::Fault> {
    if job.state != JobState::Buried {
        return Ok(false);
    }
    // Its time begins anew with its attempts; what it was queued for is long past.
    let moved = job.moved(JobState::Queued, 0, Wall::now(), job.error.clone());
    let writes = vec![Write::JobMove(Box::new(moved))];
    let done = store.commit(Batch { writes }).await?;
    info!(job = job.id, "a buried job is queued again");
    Ok(matches!(done, Committed::Done { .. }))
}

#[cfg(test)]
mod tests;
