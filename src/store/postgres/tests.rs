//! The contract on PostgreSQL, and what is PostgreSQL's own: a server that goes away, many daemons, schema versions.

#[path = "../../../tests/it/server.rs"]
mod server;

use super::*;
use crate::store::{
    CallStatus,
    contract::{Bench, batch, call, change, event, new_call, run_contract},
};
use server::Server;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A database of its own on the server that all share, and a state folder.
struct Place {
    url: String,
    folder: TempDir,
    config: Config,
}

impl Place {
    fn new() -> Self {
        Self::on(Server::shared())
    }

    fn on(server: &Server) -> Self {
        Self {
            url: server.database(),
            folder: tempfile::tempdir().unwrap(),
            config: Config {
                queue_batches: 1000,
                close_patience: Duration::from_millis(100),
                ..Config::default()
            },
        }
    }

    fn try_open(&self) -> Result<PostgresStore, OpenError> {
        PostgresStore::open(&self.url, &self.folder.path().join("journal"), &self.config)
    }

    fn psql(&self, sql: &str) -> String {
        Server::shared().psql(&self.url, sql)
    }
}

impl Bench for Place {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.try_open().unwrap())
    }
}

run_contract!(Place::new());

const TENANT: TenantId = TenantId(1);

/// Polls until `done`, for at most twenty seconds.
async fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    drop(place.try_open().unwrap());
    place.psql("INSERT INTO schema_migrations VALUES (999, 'later', now())");
    let refused = place.try_open().unwrap_err();
    assert!(matches!(refused, OpenError::TooNew { found: 999, .. }), "{refused}");
}

#[test]
fn another_programs_tables_are_left_alone() {
    let place = Place::new();
    place.psql("CREATE TABLE phone_calls (x int)");
    assert!(matches!(place.try_open(), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_server_that_is_not_there_is_said_without_the_password() {
    let mut place = Place::new();
    place.url = "postgres://ada:geheim@%2Fnowhere/calls".into();
    let refused = place.try_open().unwrap_err();
    assert!(matches!(refused, OpenError::Unavailable { .. }), "{refused}");
    let said = refused.to_string();
    assert!(
        said.contains("postgres:///nowhere/calls") && !said.contains("geheim"),
        "{said}"
    );
}

#[test]
fn daemons_that_start_at_once_make_the_schema_once() {
    let place = Place::new();
    let open = || {
        let folder = tempfile::tempdir().unwrap();
        PostgresStore::open(&place.url, folder.path(), &place.config).map(drop)
    };
    std::thread::scope(|s| {
        let starts: Vec<_> = (0..4).map(|_| s.spawn(open)).collect();
        for start in starts {
            start.join().unwrap().unwrap();
        }
    });
}

#[tokio::test]
async fn a_start_closes_the_calls_of_its_own_node_alone() {
    let (here, there) = (Place::new(), tempfile::tempdir().unwrap());
    let other = PostgresStore::open(&here.url, there.path(), &here.config).unwrap();
    let theirs = call(TENANT);
    other.commit(batch([new_call(&theirs)])).await.unwrap();
    let store = here.open();
    let ours = call(TENANT);
    store.commit(batch([new_call(&ours)])).await.unwrap();
    drop(store);
    let store = here.open();
    assert_eq!(store.close_open_calls().await, Ok(1));
    let status = async |id: CallId| store.call(TENANT, id.as_str()).await.unwrap().unwrap().status;
    assert_eq!(status(ours.call_id).await, CallStatus::Ended);
    assert_eq!(status(theirs.call_id).await, CallStatus::Incoming);
}

/// Seed 000's tables: every column with its name.
#[test]
fn the_seeds_columns_are_there() {
    let place = Place::new();
    drop(place.try_open().unwrap());
    place.psql(
        "SELECT id, call_id, message_type, content, sender_type, sender_name, confidence, detected_language, is_final,
             metadata, created_at, updated_at FROM phone_call_messages",
    );
    place.psql(
        "SELECT id, call_id, call_sid, customer_number, organization_number, status, start_time, end_time, duration,
             tenant_id, created_at, updated_at FROM phone_calls",
    );
}

#[tokio::test]
async fn nul_is_kept_as_a_mark_because_the_server_has_none() {
    let store = Place::new().open();
    let mut row = call(TENANT);
    row.agent = "front\0desk".into();
    row.metadata = serde_json::json!({"a\0b": ["\0"]});
    store.commit(batch([new_call(&row), event(&row, "\0")])).await.unwrap();
    let found = store.call(TENANT, row.call_id.as_str()).await.unwrap().unwrap();
    assert_eq!(found.agent, "front\u{fffd}desk");
    assert_eq!(found.metadata, serde_json::json!({"a\u{fffd}b": ["\u{fffd}"]}));
}

#[tokio::test]
async fn a_refusal_shows_neither_content_nor_schema() {
    let store = Place::new().open();
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

#[tokio::test]
async fn a_reader_and_the_writer_find_a_restarted_server_again() {
    let mut server = Server::start(&[]);
    let place = Place::on(&server);
    let store = place.try_open().unwrap();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
    assert!(store.call(TENANT, row.call_id.as_str()).await.unwrap().is_some());
    server.kill();
    until(|| !store.health().writable).await;
    let later = store.commit(batch([event(&row, "{}")]));
    assert!(store.call(TENANT, row.call_id.as_str()).await.is_err());
    server.restart();
    assert_eq!(later.await, Ok(Committed::Done { event_ids: vec![1] }));
    assert!(store.call(TENANT, row.call_id.as_str()).await.unwrap().is_some());
    assert!(store.health().writable);
}
