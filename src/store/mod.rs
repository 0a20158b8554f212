//! Durable memory: calls, messages, what was seen. Steps are committed as one [`Batch`]; "stored" means the commit returned.
//!
//! No SQL outside the engine folders. Queries take a tenant and answer for that tenant alone. An engine passes the suite in `contract`.

mod config;
#[cfg(test)]
mod contract;
mod error;
mod job;
mod journal;
mod keeping;
mod lock;
pub mod migrations;
mod outcome;
mod page;
pub mod postgres;
mod queue;
mod roster;
pub mod seal;
pub mod sqlite;
mod tenants;
mod transfer;

pub use config::{Config, Engine, Synchronous};
pub use error::OpenError;
pub use job::{AFTER_CALL, ERASE, JobFilter, JobMove, JobRow, JobState};
use keeping::SAID;
pub use keeping::{Expired, Retention, Scope, TenantRetention};
pub use roster::{AgentRow, NumberRow, Source};
pub use tenants::{ApiKeyRow, TenantRow};
pub use transfer::{TransferError, transfer};

use crate::{
    base::{
        fault::Fault,
        ids::{AgentId, CallId, KeyId, MessageId, NumberId, TenantId},
        time::Wall,
    },
    vendor::EndReason,
};
use std::{future::Future, path::Path, pin::Pin, sync::Arc};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Status of a call, in the order in which it may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallStatus {
    /// Outbound, asked of the vendor.
    Initiated,
    /// Outbound, rings.
    Ringing,
    /// Inbound, announced.
    Incoming,
    /// Picked up.
    Answered,
    /// Audio flows.
    InProgress,
    /// Over.
    Ended,
}

impl CallStatus {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::Incoming => "incoming",
            Self::Answered => "answered",
            Self::InProgress => "in_progress",
            Self::Ended => "ended",
        }
    }

    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Initiated,
        Self::Ringing,
        Self::Incoming,
        Self::Answered,
        Self::InProgress,
        Self::Ended,
    ];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// A row of `phone_calls`.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// Our id.
    pub call_id: CallId,
    /// The vendor's id, `pending:<call_id>` until it is known.
    pub call_sid: String,
    /// The one id of the call in logs, files and events: the vendor's id as prefix.
    pub session_id: String,
    /// The vendor's name.
    pub vendor: String,
    /// Whether the call came to us.
    pub inbound: bool,
    /// The far party.
    pub customer_number: String,
    /// Our number.
    pub organization_number: String,
    /// Where it stands.
    pub status: CallStatus,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// When it was announced or placed.
    pub start_time: Wall,
    /// When it was answered.
    pub answered_at: Option<Wall>,
    /// When it ended.
    pub end_time: Option<Wall>,
    /// Seconds from answer to end (0 when never answered).
    pub duration: Option<i64>,
    /// Whose call it is.
    pub tenant_id: TenantId,
    /// Name of the agent that serves it.
    pub agent: String,
    /// Recording file under the data root, if one was made.
    pub recording: Option<String>,
    /// Whether nothing of it may be erased. Set by [`Write::Hold`]; a new call is not held.
    pub legal_hold: bool,
    /// JSON: accounting, `closed_without_stop`, fault counts.
    pub metadata: serde_json::Value,
}

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The caller.
    Customer,
    /// An agent or a person at a frontend.
    Agent,
}

impl Sender {
    /// The word stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Agent => "agent",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Customer, Self::Agent].into_iter().find(|s| s.as_str() == word)
    }
}

/// A row of `phone_call_messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    /// Our id.
    pub message_id: MessageId,
    /// The call.
    pub call_id: CallId,
    /// Order within the call, from 1; given by the call's task.
    pub seq: i64,
    /// `transcript` (heard) or `tts_audio` (said).
    pub message_type: &'static str,
    /// The words.
    pub content: String,
    /// Who said them.
    pub sender_type: Sender,
    /// A person's or agent's name.
    pub sender_name: Option<String>,
    /// Recogniser's confidence 0..1, where it means something.
    pub confidence: Option<f32>,
    /// Detected language.
    pub detected_language: Option<String>,
    /// `stored`, `heard`, `cut`, `failed` for what was said; `None` for what was heard.
    pub delivery: Option<&'static str>,
    /// How much of it the caller heard, in ms.
    pub heard_ms: Option<u32>,
    /// When it was said.
    pub created_at: Wall,
}

impl MessageRow {
    /// The word of a message's type, if it is one.
    pub fn type_word(word: &str) -> Option<&'static str> {
        ["transcript", "tts_audio"].into_iter().find(|w| *w == word)
    }

    /// The word of what became of a message, if it is one.
    pub fn delivery_word(word: &str) -> Option<&'static str> {
        ["stored", "heard", "cut", "failed"].into_iter().find(|w| *w == word)
    }
}

/// One change.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new call.
    Call(Box<CallRow>),
    /// A call moved: every `Some` replaces.
    CallChange(Box<CallChange>),
    /// A new message.
    Message(Box<MessageRow>),
    /// What became of a message said to the caller.
    Delivery {
        /// Which.
        message_id: MessageId,
        /// `heard`, `cut`, `failed`.
        delivery: &'static str,
        /// How much was heard.
        heard_ms: u32,
    },
    /// A webhook, by the key that recognises a repetition. A key seen before makes the whole batch void.
    Seen {
        /// The vendor.
        vendor: &'static str,
        /// The key.
        key: String,
    },
    /// An event for frontends: takes the tenant's next event id.
    Event {
        /// Whose.
        tenant: TenantId,
        /// The call.
        call_id: CallId,
        /// JSON as the frontend will see it.
        payload: String,
    },
    /// A phone number: new, or in the place of the row of its id.
    Number(Box<NumberRow>),
    /// A phone number is no longer ours.
    NumberGone(NumberId),
    /// An agent: new, or in the place of the row of its id.
    Agent(Box<AgentRow>),
    /// An agent is no more; its numbers are left without.
    AgentGone(AgentId),
    /// A tenant that must not be there yet.
    NewTenant(Box<TenantRow>),
    /// A tenant, in the place of the row of its id.
    Tenant(Box<TenantRow>),
    /// An API key: new, or in the place of the row of its id.
    ApiKey(Box<ApiKeyRow>),
    /// An API key is forgotten.
    ApiKeyGone(KeyId),
    /// Work to be done, unless it is queued already.
    Job(Box<JobRow>),
    /// Work that was taken, done, put off or given up. Makes the whole batch void where somebody else moved it.
    JobMove(Box<JobMove>),
    /// A live call is this daemon's from now on. Refused (not found) where `from` has it no more, or it is over.
    Carry {
        /// Which call.
        call_id: CallId,
        /// The daemon that had it.
        from: String,
    },
    /// A legal hold on a call. Refused (conflict) where something of it is being erased.
    Hold {
        /// Which call.
        call_id: CallId,
        /// Whether it is held from now on.
        held: bool,
    },
    /// Something of a call is going to be erased, by the job of [`ERASE`] that follows in the batch: jobs that would need it are
    /// gone. Refused (conflict) where the call is held, is not over, or is being erased already.
    Erase {
        /// Which call.
        call_id: CallId,
        /// What of it.
        scope: Scope,
    },
    /// It is erased, as far as the database goes; the files went before.
    Erased {
        /// Which call.
        call_id: CallId,
        /// What of it.
        scope: Scope,
    },
    /// How long a tenant's calls are kept; `None` as is configured.
    Retention {
        /// Whose.
        tenant: TenantId,
        /// How long.
        retention: Option<Retention>,
    },
}

/// What changes in a call's row.
#[derive(Clone, Debug, Default)]
pub struct CallChange {
    /// Which call.
    pub call_id: Option<CallId>,
    /// The vendor told its id.
    pub call_sid: Option<String>,
    /// The session id was made.
    pub session_id: Option<String>,
    /// It moved; the store never moves a row back.
    pub status: Option<CallStatus>,
    /// It ended.
    pub end_reason: Option<EndReason>,
    /// It was answered.
    pub answered_at: Option<Wall>,
    /// It ended.
    pub end_time: Option<Wall>,
    /// Seconds.
    pub duration: Option<i64>,
    /// A recording was made.
    pub recording: Option<String>,
    /// Members of the metadata that are new or replaced; the others stay. What is to be gone is null.
    pub metadata: Option<serde_json::Value>,
    /// The agent changed (handed to a person).
    pub agent: Option<String>,
}

/// Changes that become durable together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// About how many bytes it holds, for the bound of the queue.
    pub fn size(&self) -> usize {
        let text = |s: &Option<String>| s.as_ref().map_or(0, String::len);
        let of = |w: &Write| match w {
            Write::Call(c) => {
                let texts = [
                    &c.call_sid,
                    &c.session_id,
                    &c.vendor,
                    &c.customer_number,
                    &c.organization_number,
                    &c.agent,
                ];
                size_of::<CallRow>() + texts.iter().map(|t| t.len()).sum::<usize>() + json_size(&c.metadata)
            }
            Write::CallChange(c) => {
                size_of::<CallChange>()
                    + [&c.call_sid, &c.session_id, &c.recording, &c.agent]
                        .into_iter()
                        .map(text)
                        .sum::<usize>()
                    + c.metadata.as_ref().map_or(0, json_size)
            }
            Write::Message(m) => size_of::<MessageRow>() + m.content.len() + text(&m.sender_name),
            Write::Delivery { .. } => 0,
            Write::Seen { key, .. } => key.len(),
            Write::Event { payload, .. } => payload.len(),
            Write::Number(n) => {
                let texts = [&n.number, &n.vendor, &n.display_name, &n.status];
                let texts = texts.iter().map(|t| t.len()).sum::<usize>();
                size_of::<NumberRow>() + texts + json_size(&n.settings) + text(&n.secrets)
            }
            Write::Agent(a) => size_of::<AgentRow>() + a.name.len() + json_size(&a.settings),
            Write::Job(j) => size_of::<JobRow>() + j.id.len() + json_size(&j.payload),
            Write::JobMove(j) => size_of::<JobMove>() + j.id.len() + text(&j.error),
            Write::NewTenant(t) | Write::Tenant(t) => size_of::<TenantRow>() + t.name.len() + json_size(&t.settings),
            Write::ApiKey(k) => {
                let texts = [&k.name, &k.prefix, &k.hash, &k.role, &k.scopes, &k.created_by];
                size_of::<ApiKeyRow>() + texts.iter().map(|t| t.len()).sum::<usize>()
            }
            Write::NumberGone(_) | Write::AgentGone(_) | Write::ApiKeyGone(_) => 0,
            Write::Carry { from, .. } => from.len(),
            Write::Hold { .. } | Write::Erase { .. } | Write::Erased { .. } | Write::Retention { .. } => 0,
        };
        size_of::<Self>() + self.writes.iter().map(|w| size_of::<Write>() + of(w)).sum::<usize>()
    }
}

fn json_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    size_of::<Value>()
        + match value {
            Value::String(s) => s.len(),
            Value::Array(items) => items.iter().map(json_size).sum(),
            Value::Object(fields) => fields.iter().map(|(k, v)| k.len() + json_size(v)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable. Ids of the batch's events, in order.
    Done {
        /// Event ids.
        event_ids: Vec<i64>,
    },
    /// A [`Write::Seen`] key was there before, or a [`Write::JobMove`] came too late: nothing was changed.
    Duplicate,
}

/// A page of calls to read.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Only these statuses; empty means all.
    pub statuses: Vec<CallStatus>,
    /// Only calls that began at this time or later.
    pub from: Option<Wall>,
    /// Only calls that began before this time.
    pub until: Option<Wall>,
    /// Only calls with this number on either side.
    pub number: Option<String>,
    /// Only calls served by the agent of this name.
    pub agent: Option<String>,
    /// Only this vendor's calls.
    pub vendor: Option<String>,
    /// Only calls with a message that holds this text, in whatever case (of ASCII letters; of all letters on PostgreSQL).
    pub text: Option<String>,
    /// At most this many (the store caps it at 200).
    pub limit: usize,
    /// The cursor of the page before.
    pub after: Option<String>,
}

/// A page of calls, newest first.
#[derive(Clone, Debug, Default)]
pub struct CallPage {
    /// The calls.
    pub calls: Vec<CallRow>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// An event kept for frontends that reconnect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Position in the tenant's order.
    pub id: i64,
    /// The call.
    pub call_id: CallId,
    /// JSON as stored.
    pub payload: String,
}

/// A sign of life of a daemon that shares the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBeat {
    /// Its name.
    pub node: String,
    /// How often it has said that it lives.
    pub beat: i64,
}

/// A call that was closed for a dead daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedCall {
    /// Its record, as it was.
    pub row: CallRow,
    /// The event that tells frontends.
    pub event_id: i64,
    /// The last time known of it, which is its end.
    pub at: Wall,
}

/// The store. Commits queue and return when durable; queries read committed data.
pub trait Store: Send + Sync {
    /// Makes a batch durable. Takes its place in the queue before the future is first polled.
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, Fault>>;

    /// One call by either id (`call_id` or `call_sid`).
    fn call<'a>(&'a self, tenant: TenantId, id: &'a str) -> BoxFuture<'a, Result<Option<CallRow>, Fault>>;

    /// Calls, newest first.
    fn calls<'a>(&'a self, tenant: TenantId, filter: CallFilter) -> BoxFuture<'a, Result<CallPage, Fault>>;

    /// Messages of a call in order.
    fn messages<'a>(&'a self, tenant: TenantId, call_id: CallId) -> BoxFuture<'a, Result<Vec<MessageRow>, Fault>>;

    /// Events after `after`, in order, at most `limit`; of one call if named.
    fn events<'a>(
        &'a self,
        tenant: TenantId,
        call_id: Option<CallId>,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Fault>>;

    /// Phone numbers in the order in which they were made: of a tenant, or of all for the daemon itself.
    fn numbers<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<NumberRow>, Fault>>;

    /// Agents in the order in which they were made: of a tenant, without every tenant's, or all for the daemon itself.
    fn agents<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<AgentRow>, Fault>>;

    /// All tenants in the order of their ids, for the daemon itself.
    fn tenants<'a>(&'a self) -> BoxFuture<'a, Result<Vec<TenantRow>, Fault>>;

    /// API keys in the order in which they were made: of a tenant, or of all for the daemon itself.
    fn api_keys<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<ApiKeyRow>, Fault>>;

    /// Jobs, those that are due first to begin with.
    fn jobs<'a>(&'a self, filter: JobFilter) -> BoxFuture<'a, Result<Vec<JobRow>, Fault>>;

    /// How long calls are kept: of every tenant for the daemon itself, or of one, also where nothing is known of it.
    fn retention<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<TenantRetention>, Fault>>;

    /// Calls that are too old, those that ended first to begin with.
    fn expired<'a>(&'a self, which: Expired) -> BoxFuture<'a, Result<Vec<CallRow>, Fault>>;

    /// Closes calls that a dead process left open: `ended`, `interrupted`, at the last time known of each, each with its job of
    /// [`AFTER_CALL`]. Returns how many.
    fn close_open_calls<'a>(&'a self) -> BoxFuture<'a, Result<usize, Fault>>;

    /// Says that this daemon lives, and how often each other daemon of the database has said so. Nobody, where it has the database
    /// to itself.
    fn beat<'a>(&'a self) -> BoxFuture<'a, Result<Vec<NodeBeat>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Closes the calls that a dead daemon left open, as [`Store::close_open_calls`] does, unless it has said that it lives since
    /// `dead` was read, or another daemon was first.
    fn bury<'a>(&'a self, _dead: &'a NodeBeat) -> BoxFuture<'a, Result<Vec<ClosedCall>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// This daemon's name among those that share the database; `None` where it has the database to itself.
    fn node(&self) -> Option<&str> {
        None
    }

    /// Whether writes are getting through, and how much waits.
    fn health(&self) -> StoreHealth;

    /// Flushes what is queued and closes. Idempotent.
    fn close<'a>(&'a self) -> BoxFuture<'a, Result<(), Fault>>;
}

/// Opens the database that the configuration names; relative paths begin at `state_dir`. Blocks for as long as that takes.
pub fn open(config: &Config, state_dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match &config.engine {
        Engine::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(&state_dir.join(path), config)?),
        Engine::Postgres(url) => {
            let journal = state_dir.join(&config.journal);
            Arc::new(postgres::PostgresStore::open(url.expose(), &journal, config)?)
        }
    })
}

/// How the store is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether the last commit succeeded.
    pub writable: bool,
    /// Batches waiting.
    pub queued: usize,
    /// The bound of the queue.
    pub capacity: usize,
    /// Age of the oldest waiting batch, in ms.
    pub oldest_ms: u64,
    /// Bytes that wait in the journal for a database that is away. What they hold is durable.
    pub journal_bytes: u64,
    /// The bound of the journal; 0 where there is none.
    pub journal_capacity: u64,
    /// Age of the oldest record in the journal, in ms.
    pub journal_ms: u64,
}

impl StoreHealth {
    /// How full the fuller of queue and journal is, from 0 to 1.
    pub fn fill(&self) -> f64 {
        let part = |n: f64, of: f64| if of > 0.0 { n / of } else { 0.0 };
        let queue = part(self.queued as f64, self.capacity as f64);
        queue.max(part(self.journal_bytes as f64, self.journal_capacity as f64))
    }
}

/// The event of a call that a dead process left open, as the frontends see a change of status.
fn interrupted_event(call: &CallRow, end: Wall) -> String {
    serde_json::json!({
        "type": "call_status_update",
        "call_id": call.call_id,
        "status": CallStatus::Ended.as_str(),
        "end_reason": EndReason::Interrupted.as_str(),
        "customer_number": call.customer_number,
        "organization_number": call.organization_number,
        "timestamp": end,
    })
    .to_string()
}
