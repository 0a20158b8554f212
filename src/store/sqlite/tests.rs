//! The contract on SQLite, and what is SQLite's own: locks, full disks, damage, schema versions, pruning, file modes.

use super::{super::queue::Condition, *};
use crate::base::fault::Kind;
use crate::store::{
    CallStatus, Scope, Write,
    contract::{Bench, batch, call, change, event, message, new_call, run_contract},
    migrations,
};
use rusqlite::Connection;
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;

struct File {
    folder: TempDir,
    config: Config,
}

impl File {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            config: Config {
                busy_timeout: Duration::from_millis(20),
                queue_batches: 1000,
                close_patience: Duration::from_millis(100),
                ..Config::default()
            },
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state/test.db")
    }

    fn try_open(&self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open(&self.path(), &self.config)
    }

    /// A connection from outside, as of an operator's tool.
    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}

impl Bench for File {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.try_open().unwrap())
    }
}

run_contract!(File::new());

const TENANT: TenantId = TenantId(1);

/// Polls until `done`, for at most ten seconds.
async fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_locked_database_queues_acknowledges_nothing_and_recovers_by_itself() {
    let file = File::new();
    let store = file.open();
    let other = file.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let row = call(TENANT);
    let mut first = store.commit(batch([new_call(&row)]));
    let rest: Vec<_> = (0..50).map(|_| store.commit(batch([event(&row, "{}")]))).collect();
    until(|| !store.health().writable).await;
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
    assert!(polled, "nothing is acknowledged");
    let health = store.health();
    assert_eq!((health.queued, health.capacity), (51, 1000));
    assert_eq!(
        store.call(TENANT, row.call_id.as_str()).await,
        Ok(None),
        "reading goes on"
    );
    other.execute_batch("COMMIT").unwrap();
    first.await.unwrap();
    for (n, answer) in (1..).zip(rest) {
        assert_eq!(answer.await, Ok(Committed::Done { event_ids: vec![n] }));
    }
    let health = store.health();
    assert_eq!((health.writable, health.queued, health.oldest_ms), (true, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_with_unavailable_and_takes_again_once_it_drains() {
    let mut file = File::new();
    file.config.queue_batches = 16;
    let store = file.open();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
    let other = file.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held: Vec<_> = (0..16).map(|_| store.commit(batch([event(&row, "{}")]))).collect();
    let refused = store.commit(batch([event(&row, "{}")])).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    other.execute_batch("COMMIT").unwrap();
    for answer in held {
        answer.await.unwrap();
    }
    store.commit(batch([event(&row, "{}")])).await.unwrap();
}

#[tokio::test]
async fn closing_gives_up_on_a_database_that_stays_locked() {
    let file = File::new();
    let store = file.open();
    let other = file.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let lost = store.commit(batch([new_call(&call(TENANT))]));
    assert!(store.close().await.is_err());
    assert!(lost.await.is_err());
}

#[tokio::test]
async fn a_lone_batch_is_not_kept_waiting_for_company() {
    let mut file = File::new();
    file.config.commit_time = Duration::from_secs(3600);
    let store = file.open();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
}

#[test]
fn a_second_daemon_is_refused_the_database() {
    let file = File::new();
    let first = file.try_open().unwrap();
    assert!(matches!(file.try_open(), Err(OpenError::InUse { .. })));
    drop(first);
    file.try_open().unwrap();
}

#[tokio::test]
async fn damage_is_found_after_an_unclean_stop_and_nothing_is_deleted() {
    let file = File::new();
    let store = file.open();
    let row = call(TENANT);
    for n in 0..200 {
        let text = format!("{n} {}", "x".repeat(2000));
        store
            .commit(batch(if n == 0 {
                vec![new_call(&row)]
            } else {
                vec![event(&row, &text)]
            }))
            .await
            .unwrap();
    }
    drop(store);
    file.raw()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    let (page, pages) = (4096, bytes.len() / 4096);
    for n in pages / 2..pages {
        bytes[n * page..n * page + 64].fill(0xa5);
    }
    std::fs::write(file.path(), &bytes).unwrap();
    let refused = file.try_open().unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
}

#[tokio::test]
async fn a_large_database_is_checked_beside_its_work_and_damage_is_told() {
    let mut file = File::new();
    let (row, text) = (call(TENANT), "x".repeat(400));
    let store = file.open();
    store.commit(batch([new_call(&row)])).await.unwrap();
    for _ in 0..40 {
        store
            .commit(batch((0..20).map(|_| event(&row, &text)).collect::<Vec<_>>()))
            .await
            .unwrap();
    }
    drop(store);
    file.config.check_up_to = 0;
    let store = file.try_open().unwrap();
    store.commit(batch(vec![event(&row, &text)])).await.unwrap();
    until(|| store.queue.condition() == Condition::Sound).await;
    drop(store);

    file.raw()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    let (page, pages) = (4096, bytes.len() / 4096);
    for n in pages / 2..pages {
        bytes[n * page..n * page + 64].fill(0xa5);
    }
    std::fs::write(file.path(), &bytes).unwrap();
    let store = file.try_open().unwrap();
    until(|| !store.health().writable).await;
    let _ = store.close().await;
    drop(store);
    file.config.check_up_to = usize::MAX;
    let refused = file.try_open().unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[test]
fn a_file_that_is_no_database_is_damage() {
    let file = File::new();
    std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
    std::fs::write(
        file.path(),
        "not a database, though long enough to look like one".repeat(100),
    )
    .unwrap();
    assert!(matches!(file.try_open(), Err(OpenError::Damaged { .. })));
}

#[test]
fn another_programs_database_is_left_alone() {
    let file = File::new();
    std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
    file.raw().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(file.try_open(), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_newer_schema_is_refused() {
    let file = File::new();
    drop(file.try_open().unwrap());
    file.raw()
        .execute("INSERT INTO schema_migrations VALUES (999, 'later', '')", [])
        .unwrap();
    let refused = file.try_open().unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 999, .. }), "{refused}");
}

#[tokio::test]
async fn calls_of_an_older_schema_keep_their_ids_messages_and_jobs() {
    let file = File::new();
    std::fs::create_dir_all(file.path().parent().unwrap()).unwrap();
    let old = file.raw();
    for step in &migrations::ALL[..5] {
        old.execute_batch(step.sqlite).unwrap();
    }
    let (row, mut theirs) = (call(TENANT), call(TenantId(2)));
    let sql = format!(
        "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL);
         INSERT INTO schema_migrations VALUES (1, 'first', ''), (2, 'roster', ''), (3, 'jobs', ''),
             (4, 'tenants', ''), (5, 'keeping', '');
         PRAGMA application_id = 0x73696465;
         INSERT INTO tenants (id, name, created_at) VALUES (1, 'one', '2026-01-01T00:00:00.000000Z');
         INSERT INTO phone_calls VALUES (41, '{id}', 'CA1', 'CA1_s', 'acme', 'inbound', '+1', '+2', 'ended', 'completed',
             '2026-01-01T00:00:00.000000Z', NULL, '2026-01-01T00:00:05.000000Z', 5, 1, 'echo', NULL, NULL,
             '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', TRUE, 'text', NULL);
         INSERT INTO phone_call_messages (message_id, call_id, tenant_id, seq, message_type, content, sender_type,
             created_at, updated_at) VALUES ('{message}', '{id}', 1, 1, 'transcript', 'hello', 'customer',
             '2026-01-01T00:00:01.000000Z', '2026-01-01T00:00:01.000000Z');",
        id = row.call_id,
        message = crate::base::ids::MessageId::new(),
    );
    old.execute_batch(&sql).unwrap();
    drop(old);
    let store = file.open();
    let found = store.call(TENANT, "CA1").await.unwrap().unwrap();
    assert_eq!((found.call_id, found.duration), (row.call_id, Some(5)));
    assert_eq!(store.messages(TENANT, row.call_id).await.unwrap()[0].content, "hello");
    (theirs.call_sid, theirs.vendor) = ("CA1".to_owned(), "acme".to_owned());
    store.commit(batch([new_call(&theirs)])).await.unwrap();
    let now = file.raw();
    let one = |sql: &str| now.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(
        one("SELECT id FROM phone_calls WHERE tenant_id = 1 AND legal_hold AND erasing = 'text'"),
        41
    );
    assert_eq!(one("SELECT max(id) FROM phone_calls"), 42, "ids go on");
    assert_eq!(one("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    drop(store);
    let orphan = "PRAGMA foreign_keys = ON; DELETE FROM phone_calls WHERE id = 41";
    assert!(now.execute_batch(orphan).is_err(), "messages still refer to it");
}

#[test]
fn a_path_that_cannot_be_made_is_said() {
    let file = File::new();
    std::fs::write(file.folder.path().join("state"), "").unwrap();
    assert!(matches!(file.try_open(), Err(OpenError::Unavailable { .. })));
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    let file = File::new();
    let store = file.open();
    store.commit(batch([new_call(&call(TENANT))])).await.unwrap();
    for name in ["test.db", "test.db-wal", "test.db-shm", "test.db.lock"] {
        let path = file.path().with_file_name(name);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn commits_are_synchronous_unless_asked_otherwise() {
    use crate::store::Synchronous;
    for (choice, pragma) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
        let mut file = File::new();
        file.config.synchronous = choice;
        let (conn, _lock, _) = open::open(&file.path(), &file.config).unwrap();
        let get = |name: &str| conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!(get("synchronous"), pragma);
        assert_eq!(
            (get("foreign_keys"), get("trusted_schema"), get("cell_size_check")),
            (1, 0, 1)
        );
        assert_eq!(
            (get("wal_autocheckpoint"), get("journal_size_limit")),
            (1000, 67_108_864)
        );
        let mode: String = conn.pragma_query_value(None, "journal_mode", |r| r.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}

/// Seed 000's tables: every column with its name.
#[test]
fn the_seeds_columns_are_there() {
    let file = File::new();
    drop(file.try_open().unwrap());
    let db = file.raw();
    for (table, columns) in [
        (
            "phone_call_messages",
            "id call_id message_type content sender_type sender_name confidence detected_language is_final metadata \
             created_at updated_at",
        ),
        (
            "phone_calls",
            "id call_id call_sid customer_number organization_number status start_time end_time duration tenant_id \
             created_at updated_at",
        ),
    ] {
        for column in columns.split_whitespace() {
            db.prepare(&format!("SELECT {column} FROM {table}"))
                .unwrap_or_else(|e| panic!("{table}.{column}: {e}"));
        }
    }
}

#[tokio::test]
async fn pruning_keeps_the_newest_events_and_forgets_old_webhooks() {
    let mut file = File::new();
    file.config.events_per_tenant = 100;
    let store = file.open();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
    let many: Vec<_> = (0..150).map(|_| event(&row, "{}")).collect();
    store.commit(batch(many)).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let db = file.raw();
    let long_ago = rows::stamp(crate::base::time::Wall::from_micros(0));
    db.execute("INSERT INTO seen_webhooks VALUES ('acme', 'old', ?1)", [&long_ago])
        .unwrap();
    let now = rows::stamp(crate::base::time::Wall::now());
    db.execute("INSERT INTO seen_webhooks VALUES ('acme', 'new', ?1)", [&now])
        .unwrap();
    db.execute("UPDATE events SET created_at = ?1 WHERE id = 60", [&long_ago])
        .unwrap();
    drop(db);

    let (conn, lock, _) = open::open(&file.path(), &file.config).unwrap();
    let mut writer = Writer::new(conn, Arc::new(Queue::new(1, 1)), &file.config);
    writer.prune();
    drop((writer, lock));
    let (ids, keys): (Vec<i64>, Vec<String>) = {
        let db = file.raw();
        let mut ids = db.prepare("SELECT id FROM events ORDER BY id").unwrap();
        let mut keys = db.prepare("SELECT key FROM seen_webhooks").unwrap();
        (
            ids.query_map([], |r| r.get(0))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap(),
            keys.query_map([], |r| r.get(0))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap(),
        )
    };
    assert_eq!(ids, (51..=150).filter(|n| *n != 60).collect::<Vec<_>>());
    assert_eq!(keys, ["new"]);
}

#[tokio::test]
async fn a_refusal_shows_neither_content_nor_schema() {
    let file = File::new();
    let store = file.open();
    let mut row = call(TENANT);
    row.customer_number = "+15551239999".into();
    store.commit(batch([new_call(&row)])).await.unwrap();
    let fault = store
        .commit(batch([new_call(&row), change(row.call_id, |_| {})]))
        .await
        .unwrap_err();
    for part in ["9999", row.call_id.as_str(), "phone_calls"] {
        assert!(!fault.message.contains(part), "{fault}");
    }
}

#[test]
fn an_operators_tool_does_not_take_the_log_of_a_new_database_away() {
    let file = File::new();
    let store = file.try_open().unwrap();
    let log = file.path().with_extension("db-wal");
    assert!(log.exists(), "nothing is tested without a log");
    // Another process, because locks are a process's: the tool believes itself the last user unless it sees ours.
    let tool = std::process::Command::new("sqlite3")
        .arg(file.path())
        .arg("select count(*) from phone_calls")
        .output()
        .expect("scripts/setup installs sqlite3");
    assert!(tool.status.success(), "{tool:?}");
    assert!(log.exists(), "the tool has deleted the log that we write to");
    drop(store);
}

#[tokio::test]
async fn what_was_erased_is_in_no_byte_of_the_files() {
    let file = File::new();
    let store = file.open();
    let mut row = call(TENANT);
    row.status = CallStatus::Ended;
    let mut said = message(row.call_id, 1);
    said.content = format!("my secret is {}", "plover ".repeat(2000));
    let call_id = row.call_id;
    let writes = [new_call(&row), Write::Message(Box::new(said)), event(&row, "plover")];
    store.commit(batch(writes)).await.unwrap();
    let there = || {
        let names = ["test.db", "test.db-wal"].map(|n| file.folder.path().join("state").join(n));
        names.iter().any(|path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            memchr::memmem::find(&bytes, b"plover").is_some()
        })
    };
    assert!(there());
    let scope = Scope::Text;
    store
        .commit(batch([
            Write::Erase { call_id, scope },
            Write::Erased { call_id, scope },
        ]))
        .await
        .unwrap();
    until(|| !there()).await;
}
