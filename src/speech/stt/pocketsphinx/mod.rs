//! Recognition by PocketSphinx: offline, English, near-perfect on phrases it expects, poor on free speech.
//!
//! The engine runs in worker processes of this same binary (`sidetone stt-worker`), which open the library at run time: a missing
//! library is a clear message, a crash or a hang costs one utterance, and none of its memory is the daemon's. The acoustic model is
//! made for 16 kHz; telephone speech is resampled, cut into utterances, and each decoded as a whole, which is what makes the
//! difference between useless and good on a narrow band.

mod driver;
mod ffi;
mod pool;
mod proto;
#[cfg(test)]
mod tests;
mod turns;
mod words;
mod worker;

pub use worker::run as run_worker;

use super::{Descriptor, Engine, Stt, SttError};
use crate::{
    base::{format::AudioFormat, settings::Section},
    speech::{EarSpec, Hearing},
};
use driver::Task;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use pool::Pool;
use std::{
    cell::OnceCell,
    fmt,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "pocketsphinx",
    read: |section| {
        Arc::new(PocketSphinx(Arc::new(Shared {
            config: Config::read(section),
            pool: Mutex::default(),
        })))
    },
    double: None,
};

/// `[speech.stt.pocketsphinx]`.
#[derive(Clone, Debug, PartialEq)]
struct Config {
    /// Worker processes.
    workers: usize,
    /// Utterances of all calls that wait for a worker at most; tenants take turns.
    queue: usize,
    /// Shared library: a name for the system's loader, or a path.
    library: String,
    /// Folder of the English model.
    model: String,
    /// Memory that the engine may take in each worker, in MiB.
    memory_mb: u64,
    /// How much worse than a row of arbitrary sounds a phrase may fit before it counts as foreign speech.
    filler_margin: f64,
    /// How long a worker may take over an utterance, besides four times its length, before it counts as hung.
    patience: Duration,
    /// Program and arguments of a worker; empty for this program itself.
    worker_command: Vec<String>,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        Self {
            workers: section.int("workers", 2, 1..=64),
            queue: section.int("queue", 64, 1..=10_000),
            library: section.text("library", "libpocketsphinx.so.3"),
            model: section.text("model", "/usr/share/pocketsphinx/model/en-us"),
            memory_mb: section.int("memory_mb", 512, 64..=65_536),
            filler_margin: section.float("filler_margin", 50.0, 0.0..=1000.0),
            patience: section.duration(
                "patience",
                Duration::from_secs(5),
                Duration::from_millis(100)..=Duration::from_secs(300),
            ),
            worker_command: section.texts("worker_command", &[]),
        }
    }
}

/// The configured engine.
struct PocketSphinx(Arc<Shared>);

/// One pool for all lanes: it is started by the first ear and lives as long as a lane that has used it.
struct Shared {
    config: Config,
    pool: Mutex<Weak<Pool>>,
}

impl Shared {
    fn pool(&self) -> Arc<Pool> {
        let mut shared = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let pool = Arc::new(Pool::start(self.config.clone()));
            *shared = Arc::downgrade(&pool);
            pool
        })
    }
}

impl fmt::Debug for PocketSphinx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.config.fmt(f)
    }
}

impl Engine for PocketSphinx {
    fn open(&self) -> Rc<dyn Stt> {
        Rc::new(Lane {
            shared: Arc::clone(&self.0),
            pool: OnceCell::new(),
        })
    }
}

/// The engine on a lane.
struct Lane {
    shared: Arc<Shared>,
    pool: OnceCell<Arc<Pool>>,
}

impl Lane {
    fn pool(&self) -> &Arc<Pool> {
        self.pool.get_or_init(|| self.shared.pool())
    }
}

impl Stt for Lane {
    fn rate(&self, ring: u32) -> u32 {
        ring.min(proto::RATE)
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        driver::session(self.pool(), spec, hearing).boxed_local()
    }

    fn warm(&self, spec: &EarSpec, _: AudioFormat) {
        if let Ok(task) = Task::of(spec) {
            let (pool, tenant) = (Arc::clone(self.pool()), spec.tenant);
            tokio::task::spawn_local(async move {
                // What goes wrong is told to the ear, when it opens.
                let _ = task.prepare(tenant, &pool).await;
            });
        }
    }
}
