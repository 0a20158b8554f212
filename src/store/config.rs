//! The store's part of the configuration: `[store]`.

use super::{postgres, seal};
use crate::base::{secret::Secret, settings::Section};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How far a commit goes before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// On the disk: what was acknowledged survives a power loss.
    Full,
    /// With the operating system: it survives `kill -9`, and a power loss may take the last commits.
    Normal,
}

/// Which database keeps the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The SQLite file of this path, under the state directory unless absolute. Local disk only.
    Sqlite(PathBuf),
    /// The PostgreSQL database of this URL.
    Postgres(Secret),
}

impl Engine {
    /// Reads `sqlite:PATH` or `postgres://…`, or says what is wrong with it.
    pub fn read(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return match path {
                "" => Err("it names no file".to_owned()),
                path => Ok(Self::Sqlite(path.into())),
            };
        }
        if !["postgres://", "postgresql://"].iter().any(|s| url.starts_with(s)) {
            return Err("neither sqlite: nor postgres://".to_owned());
        }
        postgres::place(url)?;
        Ok(Self::Postgres(Secret::new(url)))
    }

    /// Where it is: a path, or a URL without user and password.
    pub fn place(&self, state_dir: &Path) -> String {
        match self {
            Self::Sqlite(path) => state_dir.join(path).display().to_string(),
            Self::Postgres(url) => postgres::place(url.expose()).unwrap_or_default(),
        }
    }
}

/// Where the database is and how hard it is worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The database.
    pub engine: Engine,
    /// The folder where the steps of calls wait while PostgreSQL is away, and with it this daemon's identity; under the state
    /// directory unless absolute. Local disk only.
    pub journal: PathBuf,
    /// The most bytes of the journal.
    pub journal_bytes: usize,
    /// How long PostgreSQL may take for one statement.
    pub statement_timeout: Duration,
    /// How far a commit goes before it is acknowledged.
    pub synchronous: Synchronous,
    /// After an unclean stop, a database up to this many bytes is checked before the start; a larger one beside it.
    pub check_up_to: usize,
    /// How long one try waits for another process's lock on the SQLite file.
    pub busy_timeout: Duration,
    /// Batches that may wait for the disk. Above it commits are refused.
    pub queue_batches: usize,
    /// Bytes that may wait for the disk.
    pub queue_bytes: usize,
    /// Rows after which a group of batches is committed.
    pub commit_rows: usize,
    /// Time after which a group of batches is committed. A group is what came while the one before was written: nobody waits to be joined.
    pub commit_time: Duration,
    /// Threads (SQLite) or connections (PostgreSQL) that answer queries.
    pub readers: usize,
    /// Queries that may wait for a reader.
    pub reader_queue: usize,
    /// How long events are kept for frontends that reconnect.
    pub event_retention: Duration,
    /// How many events are kept per tenant.
    pub events_per_tenant: u32,
    /// How long webhooks are remembered, to recognise repetitions.
    pub seen_retention: Duration,
    /// How long a stop waits for a database that cannot be written.
    pub close_patience: Duration,
    /// The key that seals tenants' secrets: 32 bytes in base64.
    pub seal_key: Option<Secret>,
    /// The key before it, which still opens what it sealed.
    pub seal_key_former: Option<Secret>,
}

impl Config {
    /// Reads `[store]`.
    pub fn read(section: &Section<'_>) -> Self {
        let (ms, s, h) = (Duration::from_millis, Duration::from_secs, |n: u64| {
            Duration::from_secs(n * 3600)
        });
        Self {
            engine: engine(section),
            journal: section.path("journal", "journal"),
            journal_bytes: section.size("journal_bytes", 256 << 20, 1 << 20..=1 << 40),
            statement_timeout: section.duration("statement_timeout", s(5), ms(100)..=s(120)),
            synchronous: section.choice(
                "synchronous",
                Synchronous::Full,
                &[("full", Synchronous::Full), ("normal", Synchronous::Normal)],
            ),
            check_up_to: section.size("check_up_to", 256 << 20, 0..=1 << 50),
            busy_timeout: section.duration("busy_timeout", s(5), ms(10)..=s(60)),
            queue_batches: section.int("queue_batches", 10_000, 16..=1_000_000),
            queue_bytes: section.size("queue_bytes", 64 << 20, 1 << 20..=4 << 30),
            commit_rows: section.int("commit_rows", 256, 1..=10_000),
            commit_time: section.duration("commit_time", ms(10), ms(1)..=s(1)),
            readers: section.int("readers", 4, 1..=16),
            reader_queue: section.int("reader_queue", 256, 1..=100_000),
            event_retention: section.duration("event_retention", h(24), s(60)..=h(24 * 90)),
            events_per_tenant: section.int("events_per_tenant", 10_000, 100..=10_000_000),
            seen_retention: section.duration("seen_retention", h(24), h(1)..=h(24 * 30)),
            close_patience: section.duration("close_patience", s(10), ms(100)..=s(120)),
            seal_key: seal_key(section, "seal_key"),
            seal_key_former: seal_key(section, "seal_key_former"),
        }
    }
}

/// The file `path`, unless a `url` says otherwise.
fn engine(section: &Section<'_>) -> Engine {
    let path = section.path("path", "sidetone.db");
    let Some(url) = section.secret("url").filter(|u| !u.is_empty()) else {
        return Engine::Sqlite(path);
    };
    Engine::read(url.expose()).unwrap_or_else(|what| {
        section.fault("url", what, "sqlite:PATH, or postgres://USER:PASSWORD@HOST/DATABASE");
        Engine::Sqlite(path)
    })
}

fn seal_key(section: &Section<'_>, key: &str) -> Option<Secret> {
    let secret = section.secret(key)?;
    if !seal::is_key(&secret) {
        section.fault(key, "not a key", "32 random bytes in base64: openssl rand -base64 32");
    }
    Some(secret)
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Section::empty(&Default::default()))
    }
}
