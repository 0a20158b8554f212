//! The contract on PostgreSQL, and what is PostgreSQL's own: a server that goes away, many daemons, schema versions.

#[path = "../../../tests/it/server.rs"]
mod server;

use super::*;
use crate::{
    base::{fault::Kind, ids::NumberId, time::Wall},
    store::{
        CallStatus, Write,
        contract::{Bench, batch, call, change, event, message, new_call, run_contract},
        journal::{Entry, Record},
        migrations,
    },
};
use server::Server;
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The server that the tests of this process share, but for those that kill theirs.
pub(super) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&[]))
}

/// A database of its own on the server that all share, and a state folder.
struct Place {
    url: String,
    folder: TempDir,
    config: Config,
}

impl Place {
    fn new() -> Self {
        Self::on(shared())
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
        shared().psql(&self.url, sql)
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

#[tokio::test]
async fn calls_of_an_older_schema_keep_their_ids_and_other_tenants_may_have_the_same() {
    let place = Place::new();
    for step in &migrations::ALL[..5] {
        place.psql(step.postgres);
    }
    let (row, mut theirs) = (call(TENANT), call(TenantId(2)));
    place.psql(&format!(
        "CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL);
         INSERT INTO schema_migrations VALUES (1, 'first', now()), (2, 'roster', now()), (3, 'jobs', now()),
             (4, 'tenants', now()), (5, 'keeping', now());
         INSERT INTO tenants (id, name, created_at) VALUES (1, 'one', now());
         INSERT INTO phone_calls (call_id, call_sid, session_id, vendor, direction, customer_number, organization_number,
             status, start_time, tenant_id, agent, node, created_at, updated_at)
         VALUES ('{id}', 'CA1', 'CA1_s', 'acme', 'inbound', '+1', '+2', 'ended', now(), 1, 'echo', 'n', now(), now())",
        id = row.call_id,
    ));
    let store = place.open();
    assert_eq!(store.call(TENANT, "CA1").await.unwrap().unwrap().call_id, row.call_id);
    (theirs.call_sid, theirs.vendor) = ("CA1".to_owned(), "acme".to_owned());
    store.commit(batch([new_call(&theirs)])).await.unwrap();
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

/// Stored messages of a call, in order.
async fn lines(store: &dyn Store, id: CallId) -> Vec<i64> {
    let messages = store.messages(TENANT, id).await.unwrap();
    messages.iter().map(|m| m.seq).collect()
}

/// Commits messages of a call, one after the other, with an event each. Returns the ids of the events.
async fn talk(store: &PostgresStore, row: &CallRow, lines: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    let mut ids = Vec::new();
    for seq in lines {
        let said = Write::Message(Box::new(message(row.call_id, seq)));
        match store.commit(batch([said, event(row, &seq.to_string())])).await {
            Ok(Committed::Done { event_ids }) => ids.extend(event_ids),
            other => panic!("{other:?}"),
        }
    }
    ids
}

#[tokio::test]
async fn what_is_committed_while_the_server_is_away_is_there_once_and_in_order() {
    let server = Server::start(&[]);
    let place = Place::on(&server);
    let store = place.try_open().unwrap();
    let rows: Vec<_> = (0..4).map(|_| call(TENANT)).collect();
    store
        .commit(batch(rows.iter().map(new_call).collect::<Vec<_>>()))
        .await
        .unwrap();
    let talks = rows.iter().map(|row| talk(&store, row, 1..=200));
    let all = futures_util::future::join_all(talks);
    let outage = async {
        until(|| store.health().queued > 0).await;
        tokio::task::spawn_blocking(move || {
            server.kill();
            server
        })
        .await
        .unwrap()
    };
    let (told, mut server) = tokio::join!(all, outage);
    assert!(!store.health().writable);
    assert!(store.health().journal_bytes > 0);
    assert!(store.call(TENANT, "x").await.is_err(), "reading waits for the server");

    // What only the database can decide is refused, and what was seen before is recognised.
    let fault = store
        .commit(batch([Write::NumberGone(NumberId::new())]))
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::Unavailable);
    let seen = || Write::Seen {
        vendor: "acme",
        key: "k".into(),
    };
    assert!(matches!(
        store.commit(batch([seen()])).await,
        Ok(Committed::Done { .. })
    ));
    assert_eq!(store.commit(batch([seen()])).await, Ok(Committed::Duplicate));

    server.restart();
    until(|| store.health().writable).await;
    assert_eq!((store.health().journal_bytes, store.health().journal_ms), (0, 0));
    let mut ids: Vec<i64> = told.concat();
    ids.sort_unstable();
    assert_eq!(ids, (1..=800).collect::<Vec<_>>());
    let events = store.events(TENANT, None, 0, 1000).await.unwrap();
    assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), ids);
    for (row, told) in rows.iter().zip(&told) {
        assert_eq!(lines(&store, row.call_id).await, (1..=200).collect::<Vec<_>>());
        let payload = |id: &i64| events[*id as usize - 1].payload.clone();
        let expected: Vec<_> = (1..=200).map(|n| n.to_string()).collect();
        assert_eq!(
            told.iter().map(payload).collect::<Vec<_>>(),
            expected,
            "the ids are those that were told"
        );
    }
    assert_eq!(store.commit(batch([seen()])).await, Ok(Committed::Duplicate));
    assert_eq!(talk(&store, &rows[0], 201..=201).await, [801]);
}

#[tokio::test]
async fn a_full_journal_acknowledges_nothing_and_loses_nothing() {
    let mut server = Server::start(&[]);
    let mut place = Place::on(&server);
    place.config.journal_bytes = 20_000;
    let store = place.try_open().unwrap();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
    server.kill();
    until(|| !store.health().writable).await;
    let said = |seq| store.commit(batch([Write::Message(Box::new(message(row.call_id, seq)))]));
    let mut waiting = Vec::new();
    let mut told = 0;
    for seq in 1..=200 {
        let mut answer = said(seq);
        if waiting.is_empty()
            && tokio::time::timeout(Duration::from_millis(300), &mut answer)
                .await
                .is_ok()
        {
            told = seq;
        } else {
            waiting.push(answer);
        }
    }
    let health = store.health();
    assert!(told > 5 && waiting.len() > 5, "{told} {}", waiting.len());
    assert!(health.fill() > 0.8 && health.journal_bytes <= 20_000, "{health:?}");
    server.restart();
    for answer in waiting {
        answer.await.unwrap();
    }
    until(|| store.health().writable).await;
    assert_eq!(lines(&store, row.call_id).await, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_server_refuses_later_is_put_aside_and_holds_nothing_up() {
    let place = Place::new();
    let store = place.try_open().unwrap();
    let row = call(TENANT);
    store.commit(batch([new_call(&row)])).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let folder = place.folder.path().join("journal");
    let mut journal = Journal::open(&folder, "writer_before", 1 << 20).unwrap();
    let stranger = batch([Write::Message(Box::new(message(CallId::new(), 1)))]);
    let entries = [stranger, batch([event(&row, "{}")])].map(|b| Entry::new(&b, vec![7]).unwrap());
    let record = Record {
        group: 1,
        at: Wall::from_micros(9),
        entries: entries.into(),
    };
    journal.append(&record).unwrap();
    drop(journal);
    let store = place.try_open().unwrap();
    until(|| store.health().writable).await;
    let events = store.events(TENANT, None, 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), [7]);
    let aside = std::fs::read_to_string(folder.join("refused.jsonl")).unwrap();
    assert_eq!(aside.lines().count(), 1);
}

#[test]
fn a_server_elsewhere_proves_its_name_or_is_not_spoken_to() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    server::give(folder.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", cert.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    let server = Server::start(&settings.each_ref().map(String::as_str));
    let mut place = Place::on(&server);
    let name = place.url.rsplit('/').next().unwrap().to_owned();
    let mut open = |rest: &str| {
        place.url = format!("postgres://postgres@{}", rest.replace("NAME", &name));
        place.try_open()
    };
    let trusted = format!("sslrootcert={}", cert.display());
    let store = open(&format!("localhost:{port}/NAME?sslmode=verify-full&{trusted}")).unwrap();
    let encrypted = "SELECT count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'sidetone'";
    assert_eq!(server.psql("postgres", encrypted), "t");
    drop(store);
    for (rest, why) in [
        (format!("localhost:{port}/NAME?sslmode=require"), "certificate"),
        (
            format!("127.0.0.1:{port}/NAME?sslmode=require&{trusted}"),
            "certificate",
        ),
    ] {
        let refused = open(&rest).unwrap_err().to_string();
        assert!(refused.contains(why), "{rest}: {refused}");
    }
    open(&format!("localhost:{port}/NAME")).unwrap();
}
