//! Queries: a few connections that only read, made when they are needed. They never wait for the writer.
//!
//! Every query names its tenant in its WHERE.

use super::{
    rows::{self, int, text, text_opt, time, time_opt},
    session::{Session, Settings, Trouble, Value},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::{CallId, TenantId},
    },
    store::{
        AgentRow, ApiKeyRow, BoxFuture, CallFilter, CallPage, CallRow, CallStatus, Config, EventRow, JobFilter, JobRow,
        JobState, MessageRow, NumberRow, TenantRow,
        page::{self, Cursor},
        queue::closed,
    },
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore};

/// How long a query waits for a connection that is free.
const ACQUIRE: Duration = Duration::from_secs(2);

/// The connections that answer queries.
#[derive(Debug)]
pub(super) struct Readers {
    io: Handle,
    settings: Settings,
    idle: Mutex<Vec<Session>>,
    /// One for each connection.
    slots: Semaphore,
    /// One for each query that is answered or waits.
    places: Semaphore,
    closed: AtomicBool,
}

impl Readers {
    pub(super) fn new(io: Handle, settings: Settings, config: &Config) -> Arc<Self> {
        Arc::new(Self {
            io,
            settings,
            idle: Mutex::default(),
            slots: Semaphore::new(config.readers),
            places: Semaphore::new(config.readers + config.reader_queue),
            closed: AtomicBool::new(false),
        })
    }

    /// Asks once, and once more on a new connection where the old one turned out to be gone.
    pub(super) async fn ask<T>(
        &self,
        query: impl for<'s> Fn(&'s Session) -> BoxFuture<'s, Result<T, Trouble>>,
    ) -> Result<T, Fault> {
        let unavailable = |what| Fault::new(Origin::Us, Kind::Unavailable, what);
        if self.closed.load(Relaxed) {
            return Err(closed());
        }
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| unavailable("too many queries wait"))?;
        let slot = tokio::time::timeout(ACQUIRE, self.slots.acquire()).await;
        let _slot = slot
            .map_err(|_| unavailable("too many queries wait"))?
            .map_err(|_| closed())?;
        let mut tried = false;
        let failed = loop {
            let kept = self.lock().pop();
            let known = kept.is_some();
            let session = match kept {
                Some(session) if session.is_closed() => continue,
                Some(session) => session,
                None => match self.connect().await {
                    Ok(session) => session,
                    Err(trouble) => break trouble,
                },
            };
            match query(&session).await {
                Ok(answer) => {
                    self.keep(session);
                    return Ok(answer);
                }
                Err(trouble) if trouble.is_told() && !session.is_closed() => {
                    self.keep(session);
                    break trouble;
                }
                Err(_) if known && !tried && session.is_closed() => tried = true,
                Err(trouble) => break trouble,
            }
        };
        tracing::warn!(error = %failed, "a query failed");
        Err(unavailable("the database could not be read"))
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let settings = self.settings.clone();
        let opening = self.io.spawn(async move {
            let session = Session::open(&settings).await?;
            session.batch("SET default_transaction_read_only = on").await?;
            Ok(session)
        });
        opening.await.unwrap_or(Err(Trouble::Gone))
    }

    fn keep(&self, session: Session) {
        if !self.closed.load(Relaxed) {
            self.lock().push(session);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.closed.store(true, Relaxed);
        self.slots.close();
        self.lock().clear();
    }
}

pub(super) async fn call(db: &Session, tenant: TenantId, id: &str) -> Result<Option<CallRow>, Trouble> {
    for key in ["call_id", "call_sid"] {
        let sql = format!(
            "SELECT {} FROM phone_calls c WHERE tenant_id = $1 AND {key} = $2 AND erasing IS DISTINCT FROM 'all' ORDER BY c.id DESC LIMIT 1",
            rows::CALL
        );
        let found = db.query(&sql, &[int(tenant.0), text(id)]).await?;
        if let Some(row) = found.first() {
            return rows::call(row).map(Some);
        }
    }
    Ok(None)
}

pub(super) async fn calls(
    db: &Session,
    tenant: TenantId,
    filter: &CallFilter,
    after: Option<Cursor>,
) -> Result<CallPage, Trouble> {
    let limit = page::limit(filter);
    let mut sql = format!(
        "SELECT {} FROM phone_calls c WHERE tenant_id = $1 AND erasing IS DISTINCT FROM 'all'",
        rows::CALL
    );
    let mut values: Vec<Value> = vec![int(tenant.0)];
    if !filter.statuses.is_empty() {
        let words: Vec<String> = filter.statuses.iter().map(|s| s.as_str().to_owned()).collect();
        values.push(Box::new(words));
        sql += " AND status = ANY($2)";
        if !filter.statuses.contains(&CallStatus::Ended) {
            sql += " AND status <> 'ended'"; // lets the index of open calls answer
        }
    }
    let mut narrow = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            sql += &condition.replace('?', &format!("${}", values.len()));
        }
    };
    narrow(" AND start_time >= ?", filter.from.map(time));
    narrow(" AND start_time < ?", filter.until.map(time));
    narrow(
        " AND ? IN (customer_number, organization_number)",
        filter.number.as_ref().map(text),
    );
    narrow(" AND agent = ?", filter.agent.as_ref().map(text));
    narrow(" AND vendor = ?", filter.vendor.as_ref().map(text));
    narrow(
        " AND EXISTS (SELECT 1 FROM phone_call_messages m WHERE m.call_id = c.call_id AND m.content ILIKE ?)",
        filter.text.as_deref().map(page::holding).map(text),
    );
    if let Some(cursor) = after {
        let n = values.len();
        sql += &format!(" AND (start_time, call_id) < (${}, ${})", n + 1, n + 2);
        values.push(time(cursor.start));
        values.push(text(cursor.call.as_str()));
    }
    sql += &format!(" ORDER BY start_time DESC, call_id DESC LIMIT ${}", values.len() + 1);
    values.push(int(limit as i64 + 1));
    let found = db.query(&sql, &values).await?;
    let calls = found.iter().map(rows::call).collect::<Result<_, _>>()?;
    Ok(page::page(calls, limit))
}

pub(super) async fn messages(db: &Session, tenant: TenantId, call: CallId) -> Result<Vec<MessageRow>, Trouble> {
    let sql = format!(
        "SELECT {} FROM phone_call_messages WHERE tenant_id = $1 AND call_id = $2 ORDER BY seq",
        rows::MESSAGE
    );
    let found = db.query(&sql, &[int(tenant.0), text(call.as_str())]).await?;
    found.iter().map(rows::message).collect()
}

pub(super) async fn numbers(db: &Session, tenant: Option<TenantId>) -> Result<Vec<NumberRow>, Trouble> {
    let sql = format!(
        "SELECT {} FROM phone_numbers WHERE $1::bigint IS NULL OR tenant_id = $1 ORDER BY created_at, id",
        rows::NUMBER
    );
    let found = db.query(&sql, &[int(tenant.map(|t| t.0))]).await?;
    found.iter().map(rows::number).collect()
}

pub(super) async fn agents(db: &Session, tenant: Option<TenantId>) -> Result<Vec<AgentRow>, Trouble> {
    let sql = format!(
        "SELECT {} FROM agents WHERE $1::bigint IS NULL OR tenant_id = $1 ORDER BY created_at, id",
        rows::AGENT
    );
    let found = db.query(&sql, &[int(tenant.map(|t| t.0))]).await?;
    found.iter().map(rows::agent).collect()
}

pub(super) async fn tenants(db: &Session) -> Result<Vec<TenantRow>, Trouble> {
    let sql = format!("SELECT {} FROM tenants ORDER BY id", rows::TENANT);
    db.query(&sql, &[]).await?.iter().map(rows::tenant).collect()
}

pub(super) async fn api_keys(db: &Session, tenant: Option<TenantId>) -> Result<Vec<ApiKeyRow>, Trouble> {
    let sql = format!(
        "SELECT {} FROM api_keys WHERE $1::bigint IS NULL OR tenant_id = $1 ORDER BY created_at, id",
        rows::API_KEY
    );
    let found = db.query(&sql, &[int(tenant.map(|t| t.0))]).await?;
    found.iter().map(rows::api_key).collect()
}

pub(super) async fn jobs(db: &Session, filter: &JobFilter) -> Result<Vec<JobRow>, Trouble> {
    let sql = format!(
        "SELECT {} FROM jobs
         WHERE ($1::bigint IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR id = $2) AND ($3::text IS NULL OR state = $3)
             AND ($4::timestamptz IS NULL OR due_at <= $4) ORDER BY due_at, id LIMIT $5",
        rows::JOB
    );
    let values = [
        int(filter.tenant.map(|t| t.0)),
        text_opt(filter.id.as_ref()),
        text_opt(filter.state.map(JobState::as_str)),
        time_opt(filter.due_by),
        int(filter.limit.min(page::JOBS) as i64),
    ];
    let found = db.query(&sql, &values).await?;
    found.iter().map(rows::job).collect()
}

pub(super) async fn events(
    db: &Session,
    tenant: TenantId,
    call: Option<CallId>,
    after: i64,
    limit: usize,
) -> Result<Vec<EventRow>, Trouble> {
    let found = db
        .query(
            "SELECT id, call_id, payload FROM events
             WHERE tenant_id = $1 AND id > $2 AND ($3::text IS NULL OR call_id = $3) ORDER BY id LIMIT $4",
            &[
                int(tenant.0),
                int(after),
                text_opt(call.as_ref().map(CallId::as_str)),
                int(limit.min(page::EVENTS) as i64),
            ],
        )
        .await?;
    found.iter().map(rows::event).collect()
}
