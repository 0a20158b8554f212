//! Jobs: work that outlives the process. A job is queued in the batch of what it follows from, and moved by whoever read it last.
//!
//! Taking a job counts its attempts up and puts its due time off: that is its lease. Should whoever took it die, it is
//! due again; should two take it, the store lets the first and tells the other `Duplicate`.

use super::CallRow;
use crate::base::{
    ids::{CallId, TenantId},
    time::Wall,
};
use serde_json::{Value, json};

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// To be run when it is due.
    #[default]
    Queued,
    /// It succeeded.
    Done,
    /// It was given up; a person may queue it again.
    Buried,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queued, Self::Done, Self::Buried];

    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Done => "done",
            Self::Buried => "buried",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// A row of `jobs`.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    /// `kind:call_id`: the same work for the same call is queued once.
    pub id: String,
    /// Whose.
    pub tenant_id: TenantId,
    /// What sort of work.
    pub kind: String,
    /// The call it is about.
    pub call_id: CallId,
    /// What it needs to know beside the call's record.
    pub payload: Value,
    /// Where it stands.
    pub state: JobState,
    /// Attempts begun.
    pub attempts: u32,
    /// When it is to be run, or taken for lost by whoever runs it now.
    pub due_at: Wall,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was queued.
    pub created_at: Wall,
}

/// The sort of job that every call ends with: its files, and what follows from them.
pub const AFTER_CALL: &str = "files";

/// The sort of job that erases something of a call; see [`Write::Erase`](super::Write::Erase).
pub const ERASE: &str = "erase";

impl JobRow {
    /// Work of that kind for a call.
    pub fn new(kind: &str, tenant_id: TenantId, call_id: CallId, now: Wall, due_at: Wall) -> Self {
        Self {
            id: format!("{kind}:{call_id}"),
            tenant_id,
            kind: kind.to_owned(),
            call_id,
            payload: json!({}),
            state: JobState::Queued,
            attempts: 0,
            due_at,
            error: None,
            created_at: now,
        }
    }

    /// What is done after a call.
    pub fn after_call(call: &CallRow, now: Wall, due_at: Wall) -> Self {
        Self::new(AFTER_CALL, call.tenant_id, call.call_id, now, due_at)
    }

    /// Moves the job from how it stands here.
    pub fn moved(&self, to: JobState, attempts: u32, due_at: Wall, error: Option<String>) -> JobMove {
        JobMove {
            id: self.id.clone(),
            seen: (self.state, self.attempts),
            state: to,
            attempts,
            due_at,
            error,
        }
    }
}

/// A job's next standing. Void, as a webhook seen before is, where the job no longer stands as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct JobMove {
    /// Which.
    pub id: String,
    /// State and attempts as they were read.
    pub seen: (JobState, u32),
    /// Where it stands now.
    pub state: JobState,
    /// Attempts begun.
    pub attempts: u32,
    /// When it is to be run, or taken for lost.
    pub due_at: Wall,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// Which jobs to read; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Of this tenant; of all for the daemon itself.
    pub tenant: Option<TenantId>,
    /// The one of that id.
    pub id: Option<String>,
    /// Standing so.
    pub state: Option<JobState>,
    /// Due at that time.
    pub due_by: Option<Wall>,
    /// At most this many (the store caps it at 200).
    pub limit: usize,
}
