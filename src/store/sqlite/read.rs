//! Queries: a few threads, each with a connection that only reads, behind a bounded queue. They never wait for the writer.
//!
//! Every query names its tenant in its WHERE.

use super::{
    open::connect_reader,
    rows::{self, stamp},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::{CallId, TenantId},
    },
    store::{
        AgentRow, ApiKeyRow, BoxFuture, CallFilter, CallPage, CallRow, CallStatus, Config, EventRow, JobFilter, JobRow,
        JobState, MessageRow, NumberRow, OpenError, TenantRow,
        page::{self, Cursor},
        queue::closed,
    },
};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};
use tokio::sync::oneshot;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The threads that answer queries. They end when [`Readers::stop`] is called and their queue is empty.
#[derive(Debug)]
pub(super) struct Readers {
    questions: Mutex<Option<Sender<Question>>>,
}

impl Readers {
    pub(super) fn start(path: &Path, config: &Config) -> Result<Self, OpenError> {
        let (tx, rx) = crossbeam_channel::bounded::<Question>(config.reader_queue);
        for n in 0..config.readers {
            let (conn, rx): (_, Receiver<Question>) = (connect_reader(path, config)?, rx.clone());
            std::thread::Builder::new()
                .name(format!("store-read-{n}"))
                .spawn(move || rx.iter().for_each(|question| question(&conn)))
                .map_err(|e| OpenError::unavailable(path.display(), e))?;
        }
        Ok(Self {
            questions: Mutex::new(Some(tx)),
        })
    }

    /// Queues a query at once; the future waits for its answer.
    pub(super) fn ask<'a, T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, Fault>> {
        let (tx, rx) = oneshot::channel();
        let question: Question = Box::new(move |conn| {
            let answer = query(conn).map_err(|e| {
                tracing::warn!(error = %e, "a query failed");
                Fault::new(Origin::Us, Kind::Unavailable, "the database could not be read")
            });
            drop(tx.send(answer));
        });
        let sent = match &*self.questions.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Err(closed()),
            Some(questions) => questions.try_send(question).map_err(|e| match e {
                TrySendError::Full(_) => Fault::new(Origin::Us, Kind::Unavailable, "too many queries wait"),
                TrySendError::Disconnected(_) => closed(),
            }),
        };
        Box::pin(async move {
            sent?;
            rx.await.unwrap_or_else(|_| Err(closed()))
        })
    }

    pub(super) fn stop(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub(super) fn call(db: &Connection, tenant: TenantId, id: &str) -> rusqlite::Result<Option<CallRow>> {
    for key in ["call_id", "call_sid"] {
        let sql = format!(
            "SELECT {} FROM phone_calls WHERE tenant_id = ?1 AND {key} = ?2 AND erasing IS NOT 'all' ORDER BY phone_calls.id DESC LIMIT 1",
            rows::CALL
        );
        let found = db
            .prepare_cached(&sql)?
            .query_row(params![tenant.0, id], rows::call)
            .optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

pub(super) fn calls(
    db: &Connection,
    tenant: TenantId,
    filter: &CallFilter,
    after: Option<Cursor>,
) -> rusqlite::Result<CallPage> {
    let limit = page::limit(filter);
    let mut sql = format!(
        "SELECT {} FROM phone_calls WHERE tenant_id = ? AND erasing IS NOT 'all'",
        rows::CALL
    );
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(tenant.0)];
    if !filter.statuses.is_empty() {
        let marks = vec!["?"; filter.statuses.len()].join(", ");
        sql += &format!(" AND status IN ({marks})");
        values.extend(filter.statuses.iter().map(|s| Box::new(s.as_str()) as Box<dyn ToSql>));
        if !filter.statuses.contains(&CallStatus::Ended) {
            sql += " AND status <> 'ended'"; // lets the index of open calls answer
        }
    }
    let mut narrow = |condition: &str, value: Option<String>| {
        if let Some(value) = value {
            sql += condition;
            values.extend(
                condition
                    .matches('?')
                    .map(|_| Box::new(value.clone()) as Box<dyn ToSql>),
            );
        }
    };
    narrow(" AND start_time >= ?", filter.from.map(stamp));
    narrow(" AND start_time < ?", filter.until.map(stamp));
    narrow(
        " AND (customer_number = ? OR organization_number = ?)",
        filter.number.clone(),
    );
    narrow(" AND agent = ?", filter.agent.clone());
    narrow(" AND vendor = ?", filter.vendor.clone());
    narrow(
        " AND EXISTS (SELECT 1 FROM phone_call_messages m WHERE m.call_id = phone_calls.call_id
             AND m.content LIKE ? ESCAPE '\\')",
        filter.text.as_deref().map(page::holding),
    );
    if let Some(cursor) = after {
        sql += " AND (start_time, call_id) < (?, ?)";
        values.push(Box::new(stamp(cursor.start)));
        values.push(Box::new(cursor.call.as_str().to_owned()));
    }
    sql += " ORDER BY start_time DESC, call_id DESC LIMIT ?";
    values.push(Box::new(limit as i64 + 1));
    let calls = db
        .prepare_cached(&sql)?
        .query_map(rusqlite::params_from_iter(values), rows::call)?
        .collect::<Result<_, _>>()?;
    Ok(page::page(calls, limit))
}

pub(super) fn messages(db: &Connection, tenant: TenantId, call: CallId) -> rusqlite::Result<Vec<MessageRow>> {
    let sql = format!(
        "SELECT {} FROM phone_call_messages WHERE tenant_id = ?1 AND call_id = ?2 ORDER BY seq",
        rows::MESSAGE
    );
    db.prepare_cached(&sql)?
        .query_map(params![tenant.0, call.as_str()], rows::message)?
        .collect()
}

pub(super) fn numbers(db: &Connection, tenant: Option<TenantId>) -> rusqlite::Result<Vec<NumberRow>> {
    let sql = format!(
        "SELECT {} FROM phone_numbers WHERE ?1 IS NULL OR tenant_id = ?1 ORDER BY created_at, id",
        rows::NUMBER
    );
    db.prepare_cached(&sql)?
        .query_map([tenant.map(|t| t.0)], rows::number)?
        .collect()
}

pub(super) fn agents(db: &Connection, tenant: Option<TenantId>) -> rusqlite::Result<Vec<AgentRow>> {
    let sql = format!(
        "SELECT {} FROM agents WHERE ?1 IS NULL OR tenant_id = ?1 ORDER BY created_at, id",
        rows::AGENT
    );
    db.prepare_cached(&sql)?
        .query_map([tenant.map(|t| t.0)], rows::agent)?
        .collect()
}

pub(super) fn tenants(db: &Connection) -> rusqlite::Result<Vec<TenantRow>> {
    let sql = format!("SELECT {} FROM tenants ORDER BY id", rows::TENANT);
    db.prepare_cached(&sql)?.query_map([], rows::tenant)?.collect()
}

pub(super) fn api_keys(db: &Connection, tenant: Option<TenantId>) -> rusqlite::Result<Vec<ApiKeyRow>> {
    let sql = format!(
        "SELECT {} FROM api_keys WHERE ?1 IS NULL OR tenant_id = ?1 ORDER BY created_at, id",
        rows::API_KEY
    );
    db.prepare_cached(&sql)?
        .query_map([tenant.map(|t| t.0)], rows::api_key)?
        .collect()
}

pub(super) fn jobs(db: &Connection, filter: &JobFilter) -> rusqlite::Result<Vec<JobRow>> {
    let sql = format!(
        "SELECT {} FROM jobs
         WHERE (?1 IS NULL OR tenant_id = ?1) AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR state = ?3)
             AND (?4 IS NULL OR due_at <= ?4) ORDER BY due_at, id LIMIT ?5",
        rows::JOB
    );
    db.prepare_cached(&sql)?
        .query_map(
            params![
                filter.tenant.map(|t| t.0),
                filter.id,
                filter.state.map(JobState::as_str),
                filter.due_by.map(stamp),
                filter.limit.min(page::JOBS) as i64
            ],
            rows::job,
        )?
        .collect()
}

pub(super) fn events(
    db: &Connection,
    tenant: TenantId,
    call: Option<CallId>,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<EventRow>> {
    db.prepare_cached(
        "SELECT id, call_id, payload FROM events
         WHERE tenant_id = ?1 AND id > ?2 AND (?3 IS NULL OR call_id = ?3) ORDER BY id LIMIT ?4",
    )?
    .query_map(
        params![
            tenant.0,
            after,
            call.as_ref().map(CallId::as_str),
            limit.min(page::EVENTS) as i64
        ],
        rows::event,
    )?
    .collect()
}
