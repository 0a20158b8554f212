//! What the writer's work came to, and telling whoever waits for it.

use super::{
    Committed,
    queue::{Job, Work},
};
use crate::{base::fault::Fault, metrics};

/// What a piece of work came to, to be told after the commit.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Of a batch.
    Batch(Result<Committed, Fault>),
    /// Of closing the calls that a dead process left open: how many.
    Closed(Result<usize, Fault>),
}

/// Answers whoever waits for a piece of work.
pub(super) fn answer(job: Job, outcome: Outcome) {
    metrics::COMMIT_TIME.record(job.queued.elapsed());
    count(match &outcome {
        Outcome::Batch(Ok(Committed::Done { .. })) | Outcome::Closed(Ok(_)) => "done",
        Outcome::Batch(Ok(Committed::Duplicate)) => "duplicate",
        Outcome::Batch(Err(_)) | Outcome::Closed(Err(_)) => "refused",
    });
    match (job.work, outcome) {
        (Work::Commit { done, .. }, Outcome::Batch(result)) => drop(done.send(result)),
        (Work::CloseOpenCalls { done }, Outcome::Closed(result)) => drop(done.send(result)),
        (work, _) => work.fail(Fault::internal("the store mixed up its answers")),
    }
}

/// Counts a commit.
pub(super) fn count(outcome: &'static str) {
    ::metrics::counter!(metrics::store_commits_total, "outcome" => outcome).increment(1);
}
