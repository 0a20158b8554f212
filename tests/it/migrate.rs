//! `sidetone migrate` as operators run it: a simulated call in SQLite as `sqlite3` shows it, moved to PostgreSQL as `psql` shows it,
//! whole or not at all, whatever interrupts it.

use crate::{
    daemon::{Daemon, place, sidetone},
    server::Server,
};
use sidetone::{
    base::{ids::TenantId, time::Wall},
    store::{Batch, Config, Store, Write, sqlite::SqliteStore},
};
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The seed's columns of a call and of a message, in the words of both databases.
const SEED: [&str; 2] = [
    "SELECT call_id, call_sid, customer_number, organization_number, status, duration, tenant_id,
         start_time IS NOT NULL AND end_time IS NOT NULL AND created_at IS NOT NULL AND updated_at IS NOT NULL
     FROM phone_calls ORDER BY id",
    "SELECT message_id, call_id, message_type, content, sender_type, sender_name, confidence, detected_language, is_final,
         created_at IS NOT NULL AND updated_at IS NOT NULL
     FROM phone_call_messages ORDER BY id",
];

fn sqlite3(file: &Path, sql: &str) -> String {
    let done = Command::new("sqlite3").arg(file).arg(sql).output();
    let done = done.expect("scripts/setup installs sqlite3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// What both show of the seed's tables, in the same words.
fn shown(show: impl Fn(&str) -> String) -> [String; 2] {
    SEED.map(|sql| {
        let rows = show(sql);
        let row = |line: &str| {
            let cells = line.split('|').map(|c| match c {
                "t" => "1",
                "f" => "0",
                other => other,
            });
            cells.collect::<Vec<_>>().join("|")
        };
        rows.lines().map(row).collect::<Vec<_>>().join("\n")
    })
}

fn begin(file: &Path, url: &str) -> Child {
    sidetone()
        .arg("migrate")
        .arg(format!("--from=sqlite:{}", file.display()))
        .arg(format!("--to={url}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn migrate(file: &Path, url: &str) -> Output {
    begin(file, url).wait_with_output().unwrap()
}

/// A daemon's file after a call on which a person typed a line.
async fn file_of_a_call(folder: &Path) -> std::path::PathBuf {
    let mut daemon = Daemon::dev(&["--agent", "human"]).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15551230001", Vec::new(), Duration::from_secs(60)));
    let id = frontend.call_from("+15551230001", "in_progress").await;
    let said = serde_json::json!({"type": "agent_message", "call_id": id, "message": "Your table is ready."});
    frontend.send(&said).await;
    frontend
        .until("agent_message_status", |m| m["status"] == "stored")
        .await;
    let end = serde_json::json!({"type": "update_call_status", "call_id": id, "status": "ended"});
    frontend.send(&end).await;
    frontend.until("call_status_update", |m| m["status"] == "ended").await;
    let _ = call.await.unwrap();
    let running = daemon.state().join("sidetone.db");
    let [calls, messages] = shown(|sql| sqlite3(&running, sql));
    assert!(calls.contains("|+15551230001|+15550000001|ended|"), "{calls}");
    assert!(
        messages.contains("|tts_audio|Your table is ready.|agent|"),
        "{messages}"
    );
    daemon.terminate();
    assert!(daemon.ended().await.success());
    let file = folder.join("moved.db");
    std::fs::copy(running, &file).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_sqlite3_shows_is_the_one_that_psql_shows_once_it_is_moved() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_of_a_call(folder.path()).await;
    let server = Server::start(&[]);
    let url = server.database();
    let moved = migrate(&file, &url);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert_eq!(shown(|sql| server.psql(&url, sql)), shown(|sql| sqlite3(&file, sql)));
    let events = "SELECT tenant_id, id, call_id, payload FROM events ORDER BY tenant_id, id";
    assert_eq!(server.psql(&url, events), sqlite3(&file, events));

    // A second time nothing is moved, and nothing is changed.
    let again = migrate(&file, &url);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("is not empty"), "{said}");
    assert!(!said.contains("postgres@"), "{said}");
    assert_eq!(shown(|sql| server.psql(&url, sql)), shown(|sql| sqlite3(&file, sql)));
    // The daemon goes on with it.
    let daemon = Daemon::start(&["--dev", "--agent", "human"], "", &[("SIDETONE_STORE_URL", &url)]).await;
    let history = daemon.json("/api/calls/history").await;
    assert_eq!(history["data"][0]["customer_number"], "+15551230001");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_interrupted_leaves_nothing_and_is_done_again() {
    const EVENTS: usize = 40_000;
    let folder = tempfile::tempdir().unwrap();
    let file = file_of_a_call(folder.path()).await;
    let call = sqlite3(&file, "SELECT call_id FROM phone_calls");
    let store = SqliteStore::open(&file, &Config::default()).unwrap();
    let event = |n: usize| Write::Event {
        tenant: TenantId(1),
        call_id: call.parse().unwrap(),
        payload: format!("{{\"n\": {n}, \"at\": \"{}\"}}", Wall::now()),
    };
    for n in 0..EVENTS / 1000 {
        let writes = (0..1000).map(|m| event(n * 1000 + m)).collect();
        store.commit(Batch { writes }).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let all = sqlite3(&file, "SELECT count(*) FROM events");

    let mut server = Server::start(&[]);
    let url = server.database();
    // Rows are on their way once somebody has begun to write in a transaction.
    let writing = |server: &Server| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND query LIKE 'INSERT INTO events%'";
        while server.psql(&url, sql) == "0" {
            assert!(Instant::now() < deadline, "nothing is moved");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let nothing = |server: &Server| {
        for table in ["tenants", "phone_calls", "phone_call_messages", "events"] {
            assert_eq!(
                server.psql(&url, &format!("SELECT count(*) FROM {table}")),
                "0",
                "{table}"
            );
        }
    };
    let mut killed = begin(&file, &url);
    writing(&server);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success());
    nothing(&server);

    let cut = begin(&file, &url);
    writing(&server);
    server.kill();
    let cut = cut.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&cut.stderr);
    assert!(!cut.status.success() && said.contains("nothing was moved"), "{said}");
    server.restart();
    nothing(&server);

    let moved = migrate(&file, &url);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert_eq!(server.psql(&url, "SELECT count(*) FROM events"), all);
    assert_eq!(shown(|sql| server.psql(&url, sql)), shown(|sql| sqlite3(&file, sql)));
}
