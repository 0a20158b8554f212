//! The store in one SQLite file: one thread writes, a few read, and SQLite's write-ahead log is the journal.
//!
//! A commit is acknowledged after SQLite's `COMMIT` returned, with `synchronous` as configured. While the file is locked, full
//! or out of order, batches wait in the bounded queue, nothing is acknowledged, and writing is tried again until it works.
//! Local disk only: the write-ahead log needs shared memory, which network file systems do not have.
//!
//! Times are UTC, as RFC 3339 text with microseconds (`2026-01-31T12:00:00.250000Z`), so that `sqlite3` shows and sorts them; JSON is text.

mod apply;
mod check;
mod export;
mod keeping;
mod open;
mod read;
mod rows;
mod writer;

pub(super) use export::Export;

use super::{
    AgentRow, ApiKeyRow, Batch, BoxFuture, CallFilter, CallPage, CallRow, Committed, Config, EventRow, Expired,
    JobFilter, JobRow, MessageRow, NumberRow, OpenError, Store, StoreHealth, TenantRetention, TenantRow,
    page::Cursor,
    queue::{Queue, Work, closed},
};
use crate::base::{
    fault::Fault,
    ids::{CallId, TenantId},
};
use check::Check;
use read::Readers;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{oneshot, watch};
use writer::Writer;

/// How the writer's thread ended.
type End = Option<Result<(), Fault>>;

/// A store in a SQLite file. Dropping it without [`Store::close`] is like a crash: what was not acknowledged is lost.
#[derive(Debug)]
pub struct SqliteStore {
    queue: Arc<Queue>,
    readers: Readers,
    ended: watch::Receiver<End>,
    writer: Mutex<Option<JoinHandle<()>>>,
    check: Mutex<Option<Check>>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it; brings its schema up to date; checks it when the last stop was unclean,
    /// a large one beside its work.
    ///
    /// Blocks for as long as that takes.
    pub fn open(path: &Path, config: &Config) -> Result<Self, OpenError> {
        let (conn, lock, unchecked) = open::open(path, config)?;
        let readers = Readers::start(path, config)?;
        let queue = Arc::new(Queue::new(config.queue_batches, config.queue_bytes));
        let check = unchecked
            .then(|| Check::start(path, config, queue.clone()))
            .transpose()?;
        let (tell, ended) = watch::channel(None);
        let mut writer = Writer::new(conn, queue.clone(), config);
        let guard = AbandonOnExit(queue.clone());
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let end = writer.run();
                drop(guard);
                drop(writer);
                drop(lock);
                tell.send_replace(Some(end));
            })
            .map_err(|e| OpenError::unavailable(path.display(), e))?;
        Ok(Self {
            queue,
            readers,
            ended,
            writer: Mutex::new(Some(thread)),
            check: Mutex::new(check),
        })
    }

    fn give_up_check(&self) {
        drop(self.check.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Answers whoever waits when the writer's thread is gone, even if it panicked.
struct AbandonOnExit(Arc<Queue>);

impl Drop for AbandonOnExit {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.give_up_check();
        self.queue.abandon();
        self.readers.stop();
        self.join();
    }
}

impl Store for SqliteStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, Fault>> {
        let (done, rx) = oneshot::channel();
        self.queue.push(Work::Commit { batch, done });
        Box::pin(async move { rx.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn call<'a>(&'a self, tenant: TenantId, id: &'a str) -> BoxFuture<'a, Result<Option<CallRow>, Fault>> {
        let id = id.to_owned();
        self.readers.ask(move |conn| read::call(conn, tenant, &id))
    }

    fn calls<'a>(&'a self, tenant: TenantId, filter: CallFilter) -> BoxFuture<'a, Result<CallPage, Fault>> {
        let after = match Cursor::of(&filter) {
            Ok(after) => after,
            Err(fault) => return Box::pin(async move { Err(fault) }),
        };
        self.readers.ask(move |conn| read::calls(conn, tenant, &filter, after))
    }

    fn messages<'a>(&'a self, tenant: TenantId, call_id: CallId) -> BoxFuture<'a, Result<Vec<MessageRow>, Fault>> {
        self.readers.ask(move |conn| read::messages(conn, tenant, call_id))
    }

    fn events<'a>(
        &'a self,
        tenant: TenantId,
        call_id: Option<CallId>,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Fault>> {
        self.readers
            .ask(move |conn| read::events(conn, tenant, call_id, after, limit))
    }

    fn numbers<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<NumberRow>, Fault>> {
        self.readers.ask(move |conn| read::numbers(conn, tenant))
    }

    fn agents<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<AgentRow>, Fault>> {
        self.readers.ask(move |conn| read::agents(conn, tenant))
    }

    fn tenants<'a>(&'a self) -> BoxFuture<'a, Result<Vec<TenantRow>, Fault>> {
        self.readers.ask(read::tenants)
    }

    fn api_keys<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<ApiKeyRow>, Fault>> {
        self.readers.ask(move |conn| read::api_keys(conn, tenant))
    }

    fn jobs<'a>(&'a self, filter: JobFilter) -> BoxFuture<'a, Result<Vec<JobRow>, Fault>> {
        self.readers.ask(move |conn| read::jobs(conn, &filter))
    }

    fn retention<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<TenantRetention>, Fault>> {
        self.readers.ask(move |conn| keeping::retention(conn, tenant))
    }

    fn expired<'a>(&'a self, which: Expired) -> BoxFuture<'a, Result<Vec<CallRow>, Fault>> {
        self.readers.ask(move |conn| keeping::expired(conn, which))
    }

    fn close_open_calls<'a>(&'a self) -> BoxFuture<'a, Result<usize, Fault>> {
        let (done, rx) = oneshot::channel();
        self.queue.push(Work::CloseOpenCalls { done });
        Box::pin(async move { rx.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn health(&self) -> StoreHealth {
        self.queue.health()
    }

    fn close<'a>(&'a self) -> BoxFuture<'a, Result<(), Fault>> {
        self.give_up_check();
        self.queue.close();
        self.readers.stop();
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let end = ended.wait_for(Option::is_some).await;
            let end = end.map_or_else(
                |_| Err(Fault::internal("the store's thread died")),
                |e| e.clone().unwrap_or(Ok(())),
            );
            self.join();
            end
        })
    }
}

#[cfg(test)]
mod tests;
