//! The store in a PostgreSQL database: one thread writes, a few connections read.
//!
//! A commit is acknowledged after PostgreSQL's `COMMIT` returned, with `synchronous_commit` as configured; while the server is
//! away, a step of a call is acknowledged once it is in the journal on the local disk, and numbers and agents stay as they are. Many daemons may share
//! a database: each knows by its [`node`](node::Node) which calls it carries, and the schema is changed by one at a time.
//!
//! Connections live on a runtime of their own, so that neither the daemon's own work nor its end disturbs them.

mod address;
mod apply;
mod group;
mod import;
mod keeping;
mod known;
mod link;
mod node;
mod nodes;
mod open;
mod read;
mod rows;
mod session;
mod tls;
mod writer;

pub(super) use address::place_of as place;
pub(super) use import::Import;

use super::{
    AgentRow, ApiKeyRow, Batch, BoxFuture, CallFilter, CallPage, CallRow, ClosedCall, Committed, Config, EventRow,
    Expired, JobFilter, JobRow, MessageRow, NodeBeat, NumberRow, OpenError, Store, StoreHealth, TenantRetention,
    TenantRow,
    journal::Journal,
    page::Cursor,
    queue::{Queue, Work, closed},
};
use crate::base::{
    fault::Fault,
    ids::{CallId, TenantId},
};
use address::Address;
use link::Link;
use node::Node;
use nodes::Vitals;
use read::Readers;
use session::Settings;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
};
use writer::Writer;

/// How the writer's thread ended.
type End = Option<Result<(), Fault>>;

/// A store in a PostgreSQL database. Dropping it without [`Store::close`] is like a crash: what was not acknowledged is lost.
#[derive(Debug)]
pub struct PostgresStore {
    /// This daemon's id among those of the database.
    id: String,
    vitals: Vitals,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    ended: watch::Receiver<End>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Ends the runtime of the connections when it is dropped.
    io: Mutex<Option<Io>>,
}

impl PostgresStore {
    /// Opens the database at `url`, and brings its schema up to date. `folder` holds what is this daemon's own.
    ///
    /// Blocks for as long as that takes.
    pub fn open(url: &str, folder: &Path, config: &Config) -> Result<Self, OpenError> {
        let address = Address::read(url).map_err(|what| OpenError::unavailable("of store.url", what))?;
        let node = Node::take(folder)?;
        let name = node.id().to_owned();
        let id = format!("writer_{}", uuid::Uuid::now_v7().simple());
        let journal = Journal::open(folder, &id, config.journal_bytes as u64);
        let journal = journal.map_err(|e| OpenError::unavailable(folder.display(), e))?;
        let settings = Settings::new(address, config);
        let io = Io::start().map_err(|e| OpenError::unavailable(settings.place(), e))?;
        let queue = Arc::new(Queue::new(config.queue_batches, config.queue_bytes));
        let readers = Readers::new(io.handle.clone(), settings.clone(), config);
        let vitals = Vitals::new(io.handle.clone(), settings.clone(), &name);
        let (tell, ended) = watch::channel(None);
        let (opened, open) = std::sync::mpsc::channel();
        let (handle, guard, config) = (io.handle.clone(), AbandonOnExit(queue.clone()), config.clone());
        let place = settings.place();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let opening = handle.spawn({
                    let settings = settings.clone();
                    async move { open::open(&settings).await }
                });
                let session = handle.block_on(opening);
                let session = session.unwrap_or_else(|e| Err(OpenError::unavailable(settings.place(), e)));
                let mut writer = match session {
                    Ok((session, known)) => {
                        let link = Link::new(handle, settings, session);
                        Writer::new(link, node, id, journal, known, guard.0.clone(), &config)
                    }
                    Err(e) => return drop(opened.send(Err(e))),
                };
                let _ = opened.send(Ok(()));
                let end = writer.run();
                drop(guard);
                drop(writer);
                tell.send_replace(Some(end));
            })
            .map_err(|e| OpenError::unavailable(&place, e))?;
        open.recv()
            .unwrap_or_else(|_| Err(OpenError::unavailable(&place, "the store's thread died")))?;
        Ok(Self {
            id: name,
            vitals,
            queue,
            readers,
            ended,
            writer: Mutex::new(Some(thread)),
            io: Mutex::new(Some(io)),
        })
    }

    fn ask<'a, T: Send + 'a>(
        &self,
        query: impl for<'s> Fn(&'s session::Session) -> BoxFuture<'s, Result<T, session::Trouble>> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<T, Fault>> {
        let readers = self.readers.clone();
        Box::pin(async move { readers.ask(query).await })
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        drop(self.io.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Brings the schema of the database at `url` up to date.
///
/// Blocks for as long as that takes.
pub fn migrate(url: &str, config: &Config) -> Result<(), OpenError> {
    Import::open(url, config).map(drop)
}

/// The runtime of the connections, on a thread of its own.
#[derive(Debug)]
struct Io {
    handle: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    fn start() -> std::io::Result<Self> {
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("store-io".into())
            .spawn(move || drop(runtime.block_on(stopped)))?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
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

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.queue.abandon();
        self.readers.stop();
        self.join();
    }
}

impl Store for PostgresStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, Fault>> {
        let (done, rx) = oneshot::channel();
        self.queue.push(Work::Commit { batch, done });
        Box::pin(async move { rx.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn call<'a>(&'a self, tenant: TenantId, id: &'a str) -> BoxFuture<'a, Result<Option<CallRow>, Fault>> {
        let id: Arc<str> = id.into();
        self.ask(move |db| {
            let id = id.clone();
            Box::pin(async move { read::call(db, tenant, &id).await })
        })
    }

    fn calls<'a>(&'a self, tenant: TenantId, filter: CallFilter) -> BoxFuture<'a, Result<CallPage, Fault>> {
        let after = match Cursor::of(&filter) {
            Ok(after) => after,
            Err(fault) => return Box::pin(async move { Err(fault) }),
        };
        let filter = Arc::new(filter);
        self.ask(move |db| {
            let filter = filter.clone();
            Box::pin(async move { read::calls(db, tenant, &filter, after).await })
        })
    }

    fn messages<'a>(&'a self, tenant: TenantId, call_id: CallId) -> BoxFuture<'a, Result<Vec<MessageRow>, Fault>> {
        self.ask(move |db| Box::pin(read::messages(db, tenant, call_id)))
    }

    fn events<'a>(
        &'a self,
        tenant: TenantId,
        call_id: Option<CallId>,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Fault>> {
        self.ask(move |db| Box::pin(read::events(db, tenant, call_id, after, limit)))
    }

    fn numbers<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<NumberRow>, Fault>> {
        self.ask(move |db| Box::pin(read::numbers(db, tenant)))
    }

    fn agents<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<AgentRow>, Fault>> {
        self.ask(move |db| Box::pin(read::agents(db, tenant)))
    }

    fn tenants<'a>(&'a self) -> BoxFuture<'a, Result<Vec<TenantRow>, Fault>> {
        self.ask(|db| Box::pin(read::tenants(db)))
    }

    fn api_keys<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<ApiKeyRow>, Fault>> {
        self.ask(move |db| Box::pin(read::api_keys(db, tenant)))
    }

    fn jobs<'a>(&'a self, filter: JobFilter) -> BoxFuture<'a, Result<Vec<JobRow>, Fault>> {
        let filter = Arc::new(filter);
        self.ask(move |db| {
            let filter = filter.clone();
            Box::pin(async move { read::jobs(db, &filter).await })
        })
    }

    fn retention<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<TenantRetention>, Fault>> {
        self.ask(move |db| Box::pin(keeping::retention(db, tenant)))
    }

    fn expired<'a>(&'a self, which: Expired) -> BoxFuture<'a, Result<Vec<CallRow>, Fault>> {
        self.ask(move |db| Box::pin(keeping::expired(db, which)))
    }

    fn close_open_calls<'a>(&'a self) -> BoxFuture<'a, Result<usize, Fault>> {
        let (done, rx) = oneshot::channel();
        self.queue.push(Work::CloseOpenCalls { done });
        Box::pin(async move { rx.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn beat<'a>(&'a self) -> BoxFuture<'a, Result<Vec<NodeBeat>, Fault>> {
        Box::pin(self.vitals.beat())
    }

    fn bury<'a>(&'a self, dead: &'a NodeBeat) -> BoxFuture<'a, Result<Vec<ClosedCall>, Fault>> {
        Box::pin(self.vitals.bury(dead))
    }

    fn node(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn health(&self) -> StoreHealth {
        self.queue.health()
    }

    fn close<'a>(&'a self) -> BoxFuture<'a, Result<(), Fault>> {
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
