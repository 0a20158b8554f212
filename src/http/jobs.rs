//! Jobs over REST: what is done after calls, where it stands, and what was given up queued again.

use super::{
    Shared,
    respond::{Answer, done, list as listed},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        time::Wall,
    },
    jobs,
    store::{JobFilter, JobRow, JobState},
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, RawQuery, State},
};
use schemars::JsonSchema;
use serde::Serialize;

/// Jobs on a page.
const PAGE: usize = 100;

/// Work after a call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Job {
    /// Its id: what is done, and the call. A webhook carries it.
    id: String,
    /// `files`, `extract`, `webhook`.
    kind: String,
    /// Our id of the call.
    call_id: String,
    /// `queued`, `done`, `buried`.
    state: &'static str,
    /// Attempts begun.
    attempts: u32,
    /// When it is tried next.
    #[schemars(with = "String")]
    due_at: Wall,
    /// Why the last attempt failed.
    error: Option<String>,
    /// When it was queued.
    #[schemars(with = "String")]
    created_at: Wall,
}

/// `GET /api/jobs`
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = query.unwrap_or_default();
    let malformed = |_| Fault::client(Kind::Malformed, "the query cannot be read");
    let query = Form::parse(query.as_bytes()).map_err(malformed)?;
    let state = match query.get("state") {
        None | Some("buried") => Some(JobState::Buried),
        Some("all") => None,
        Some(word) => {
            let hint = "state is one of queued, done, buried, all";
            Some(JobState::parse(word).ok_or_else(|| Fault::client(Kind::Invalid, hint))?)
        }
    };
    let filter = JobFilter {
        tenant: Some(who.tenant),
        state,
        limit: PAGE,
        ..JobFilter::default()
    };
    let jobs = shared.store.jobs(filter).await?;
    Ok(listed(jobs.into_iter().map(shown).collect(), None))
}

/// `POST /api/jobs/{id}/replay`
pub(super) async fn replay(
    Path(id): Path<String>,
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
) -> Answer {
    let filter = JobFilter {
        tenant: Some(who.tenant),
        id: Some(id),
        limit: 1,
        ..JobFilter::default()
    };
    let job = shared.store.jobs(filter).await?.pop();
    let job = job.ok_or_else(|| Fault::not_found("job"))?;
    if !jobs::replay(&*shared.store, &job).await? {
        return Err(Fault::client(Kind::Conflict, "only a buried job can be queued again").into());
    }
    Ok(done(shown(job), "Job queued"))
}

fn shown(job: JobRow) -> Job {
    Job {
        id: job.id,
        kind: job.kind,
        call_id: job.call_id.to_string(),
        state: job.state.as_str(),
        attempts: job.attempts,
        due_at: job.due_at,
        error: job.error,
        created_at: job.created_at,
    }
}
