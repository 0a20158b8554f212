//! Opening the file: the daemon's own lock, SQLite's settings, the check after an unclean stop, and the schema.

use crate::{
    base::time::Wall,
    store::{Config, OpenError, Synchronous, lock::DaemonLock, migrations, sqlite::rows::stamp},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

/// Marks a file as ours (`PRAGMA application_id`): "side".
const APPLICATION_ID: i64 = 0x7369_6465;

/// What SQLite said of a file.
pub(super) fn from_sqlite(path: &Path, e: &rusqlite::Error) -> OpenError {
    let (place, what) = (path.display().to_string(), e.to_string());
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged { place, what },
        _ => OpenError::Unavailable { place, what },
    }
}

/// Opens the writing connection. The lock must live as long as it.
/// The last value says whether the database is still to be checked.
pub(super) fn open(path: &Path, config: &Config) -> Result<(Connection, DaemonLock, bool), OpenError> {
    let unavailable = |what: String| OpenError::unavailable(path.display(), what);
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| unavailable(format!("{}: {e}", folder.display())))?;
    }
    let lock = lock(path)?;
    // Made here for its mode; SQLite gives its log the mode of the database. Closed before SQLite opens it,
    // because closing any descriptor of a file drops the process's record locks on it.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(file) => drop(file),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(unavailable(e.to_string())),
    }
    let mut conn = connect(path, config).map_err(|e| from_sqlite(path, &e))?;
    let unchecked = prepare(path, config, &mut conn)?;
    Ok((conn, lock, unchecked))
}

fn lock(path: &Path) -> Result<DaemonLock, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let unavailable = |what: String| OpenError::unavailable(path.display(), what);
    let taken = DaemonLock::take(Path::new(&name));
    let taken = taken.map_err(|e| unavailable(format!("{}: {e}", Path::new(&name).display())))?;
    taken.ok_or_else(|| OpenError::InUse {
        place: format!("database {}", path.display()),
    })
}

fn connect(path: &Path, config: &Config) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(config.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Opens a connection that only reads. The writing one was opened before.
pub(super) fn connect_reader(path: &Path, config: &Config) -> Result<Connection, OpenError> {
    let open = || {
        let conn =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(config.busy_timeout)?;
        conn.set_prepared_statement_cache_capacity(64);
        settings(&conn)?;
        Ok(conn)
    };
    open().map_err(|e| from_sqlite(path, &e))
}

/// What every connection is set to.
fn settings(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)
}

fn prepare(path: &Path, config: &Config, conn: &mut Connection) -> Result<bool, OpenError> {
    let sql = |e: rusqlite::Error| from_sqlite(path, &e);
    let found = identify(path, conn)?;
    settings(conn).map_err(sql)?;
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "wal", |r| r.get(0))
        .map_err(sql)?;
    if mode != "wal" {
        return Err(OpenError::Unavailable {
            place: path.display().to_string(),
            what: format!("write-ahead logging is refused (journal mode {mode}): use a local disk"),
        });
    }
    let synchronous = match config.synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    };
    conn.pragma_update(None, "synchronous", synchronous).map_err(sql)?;
    // What is deleted is overwritten.
    conn.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))
        .map_err(sql)?;
    conn.pragma_update(None, "wal_autocheckpoint", 1000).map_err(sql)?;
    conn.pragma_update_and_check(None, "journal_size_limit", 67_108_864, |_| Ok(()))
        .map_err(sql)?;
    let mut unchecked = found > 0 && !stopped_cleanly(conn).map_err(sql)?;
    if unchecked && std::fs::metadata(path).is_ok_and(|m| m.len() <= config.check_up_to as u64) {
        tracing::info!(path = %path.display(), "the last stop was unclean: checking the database");
        check(path, conn)?;
        unchecked = false;
    }
    migrate(conn, found).map_err(sql)?;
    set_stopped_cleanly(conn, false).map_err(sql)?;
    Ok(unchecked)
}

/// The schema version of the file, 0 when it is empty. Changes nothing.
fn identify(path: &Path, conn: &Connection) -> Result<i64, OpenError> {
    let sql = |e: rusqlite::Error| from_sqlite(path, &e);
    let objects: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
        .map_err(sql)?;
    if objects == 0 {
        return Ok(0);
    }
    let id: i64 = conn
        .pragma_query_value(None, "application_id", |r| r.get(0))
        .map_err(sql)?;
    if id != APPLICATION_ID {
        return Err(OpenError::Foreign {
            place: path.display().to_string(),
        });
    }
    let found = conn
        .query_row("SELECT max(version) FROM schema_migrations", [], |r| r.get(0))
        .map_err(sql)?;
    if found > migrations::CURRENT {
        return Err(OpenError::TooNew {
            place: path.display().to_string(),
            found,
            known: migrations::CURRENT,
        });
    }
    Ok(found)
}

/// Reads the whole database and looks for damage.
pub(super) fn check(path: &Path, conn: &Connection) -> Result<(), OpenError> {
    let what: String = conn
        .query_row("PRAGMA quick_check(1)", [], |r| r.get(0))
        .map_err(|e| from_sqlite(path, &e))?;
    if what == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged {
        place: path.display().to_string(),
        what: what.lines().next().unwrap_or_default().to_owned(),
    })
}

fn migrate(conn: &mut Connection, found: i64) -> rusqlite::Result<()> {
    // A table that others refer to can be made anew only while nobody looks; a transaction cannot look away.
    conn.pragma_update(None, "foreign_keys", false)?;
    for step in migrations::ALL.iter().filter(|m| m.version > found) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
                version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL
            )",
        )?;
        tx.execute_batch(step.sqlite)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?1, ?2, ?3)",
            (step.version, step.name, stamp(Wall::now())),
        )?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.commit()?;
        if found > 0 {
            tracing::info!(version = step.version, name = step.name, "database schema updated");
        }
    }
    conn.pragma_update(None, "foreign_keys", true)
}

fn stopped_cleanly(conn: &Connection) -> rusqlite::Result<bool> {
    let value: Option<String> = conn
        .query_row("SELECT value FROM meta WHERE key = 'clean_stop'", [], |r| r.get(0))
        .optional()?;
    Ok(value.as_deref() == Some("yes"))
}

/// Notes whether the file is being left in order.
pub(super) fn set_stopped_cleanly(conn: &Connection, clean: bool) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO meta (key, value) VALUES ('clean_stop', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1",
        [if clean { "yes" } else { "no" }],
    )?;
    Ok(())
}

/// How long a last checkpoint may wait for readers at a stop.
pub(super) const LAST_CHECKPOINT: Duration = Duration::from_millis(200);
