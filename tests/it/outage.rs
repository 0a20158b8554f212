//! The record while its database is away, locked or full: calls go on, what was told to be stored is there once and in order
//! when it is back, and the daemon says how it stands.

use crate::{
    daemon::{Daemon, Frontend, PATIENCE, place},
    server::Server,
};
use serde_json::json;
use sidetone::base::time::Mono;
use std::{collections::BTreeMap, time::Duration};
use tokio::task::JoinHandle;

const CALLS: usize = 3;

/// Live calls, and a person who types to their callers in turn.
struct Chat {
    frontend: Frontend,
    calls: Vec<String>,
    said: usize,
    /// What was told to be stored, by call, in order.
    stored: BTreeMap<String, Vec<String>>,
}

impl Chat {
    /// Places the calls, each of which stays for a minute, and waits until they are live.
    async fn begin(daemon: &Daemon) -> (Self, Vec<JoinHandle<bool>>) {
        let mut frontend = daemon.frontend().await;
        let (mut calls, mut callers) = (Vec::new(), Vec::new());
        for n in 0..CALLS {
            let from = format!("+1555123000{n}");
            let call = place(daemon.plan(&from, Vec::new(), Duration::from_secs(60)));
            callers.push(tokio::spawn(async move { call.await.unwrap().is_ok() }));
            calls.push(frontend.call_from(&from, "in_progress").await);
        }
        let chat = Self {
            frontend,
            calls,
            said: 0,
            stored: BTreeMap::new(),
        };
        (chat, callers)
    }

    /// Types lines, without waiting for what becomes of them.
    async fn say(&mut self, lines: usize) {
        for _ in 0..lines {
            let id = &self.calls[self.said % self.calls.len()];
            self.said += 1;
            let message = format!("line {:05}", self.said);
            self.frontend
                .send(&json!({"type": "agent_message", "call_id": id, "message": message}))
                .await;
        }
    }

    /// Waits until all that was said is told to be stored.
    async fn all_stored(&mut self) {
        while self.stored.values().map(Vec::len).sum::<usize>() < self.said {
            let told = self
                .frontend
                .until("agent_message_status", |m| m["status"] == "stored")
                .await;
            let text = |key: &str| told[key].as_str().unwrap().to_owned();
            self.stored.entry(text("call_id")).or_default().push(text("message"));
        }
    }
}

/// Waits until `/ready` answers with this status.
async fn ready_is(daemon: &Daemon, status: u16) -> Duration {
    let began = Mono::now();
    loop {
        let reply = daemon.get("/ready").await.expect("an answer");
        if reply.status == status {
            let said = String::from_utf8_lossy(&reply.body).into_owned();
            assert_eq!(said.contains("storage"), status == 503, "{said}");
            return Mono::now().since(began);
        }
        assert!(Mono::now().since(began) < PATIENCE, "/ready never said {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was told is in the database, once and in order, and the ids of events have no gaps.
fn is_all_there(server: &Server, url: &str, chat: &Chat) {
    for (call, told) in &chat.stored {
        let found = server.psql(
            url,
            &format!("SELECT content FROM phone_call_messages WHERE call_id = '{call}' AND content LIKE 'line %' ORDER BY seq"),
        );
        assert_eq!(found.lines().collect::<Vec<_>>(), *told, "{call}");
    }
    let gaps = "SELECT count(*), min(id), max(id) FROM events WHERE tenant_id = 1";
    let found = server.psql(url, gaps);
    let parts: Vec<u64> = found.split('|').map(|n| n.parse().unwrap()).collect();
    assert_eq!((parts[1], parts[2]), (1, parts[0]), "{found}");
}

fn journals(daemon: &Daemon) -> Vec<String> {
    let folder = std::fs::read_dir(daemon.state().join("journal")).unwrap();
    let names = folder.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".journal")).collect()
}

async fn gauge(daemon: &Daemon, name: &str) -> f64 {
    let scraped = daemon.scrape().await;
    let line = scraped.lines().find(|l| l.starts_with(name) && !l.starts_with('#'));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

async fn on_postgres(url: &str) -> Daemon {
    Daemon::start(&["--dev", "--agent", "human"], "", &[("SIDETONE_STORE_URL", url)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_calls_go_on_and_nothing_told_is_lost() {
    let mut server = Server::start(&[]);
    let url = server.database();
    let daemon = on_postgres(&url).await;
    let (mut chat, callers) = Chat::begin(&daemon).await;
    chat.say(20).await;
    // The server dies with some of them on their way.
    server.kill();
    chat.say(40).await;
    chat.all_stored().await;
    ready_is(&daemon, 503).await;
    assert!(gauge(&daemon, "sidetone_store_journal_bytes").await > 0.0);
    let newcomer = place(daemon.plan("+15551239999", Vec::new(), Duration::from_millis(100)));
    chat.frontend.call_from("+15551239999", "in_progress").await;
    assert!(
        newcomer.await.unwrap().is_ok(),
        "new calls are taken while the journal has room"
    );
    server.restart();
    chat.say(20).await;
    chat.all_stored().await;
    let took = ready_is(&daemon, 200).await;
    assert!(took < Duration::from_secs(10), "{took:?} until all was stored");
    assert!(gauge(&daemon, "sidetone_store_journal_bytes").await == 0.0);
    is_all_there(&server, &url, &chat);
    let live = server.psql(&url, "SELECT count(*) FROM phone_calls WHERE status = 'in_progress'");
    assert_eq!(live, CALLS.to_string(), "no call was dropped");
    callers.into_iter().for_each(|c| c.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_survives_the_daemons_death_and_is_applied_once() {
    let mut server = Server::start(&[]);
    let url = server.database();
    let mut daemon = on_postgres(&url).await;
    let (mut chat, callers) = Chat::begin(&daemon).await;
    chat.say(10).await;
    chat.all_stored().await;
    server.kill();
    chat.say(30).await;
    chat.all_stored().await;
    daemon.kill();
    assert_eq!(journals(&daemon).len(), 1);
    let folder = daemon.state().join("journal");
    let journal = folder.join(&journals(&daemon)[0]);
    let kept = std::fs::read(&journal).unwrap();
    server.restart();
    daemon.again().await;
    is_all_there(&server, &url, &chat);
    assert!(journals(&daemon).is_empty());
    let open = "SELECT count(*) FROM phone_calls WHERE status <> 'ended' OR end_reason <> 'interrupted'";
    assert_eq!(server.psql(&url, open), "0");

    // As after a crash between the commit and the clearing of the journal.
    let before = server.psql(&url, "SELECT count(*) FROM events");
    daemon.kill();
    std::fs::write(&journal, kept).unwrap();
    daemon.again().await;
    assert_eq!(server.psql(&url, "SELECT count(*) FROM events"), before);
    is_all_there(&server, &url, &chat);
    callers.into_iter().for_each(|c| c.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sqlite_is_locked_calls_go_on_and_nothing_is_told_before_it_is_stored() {
    const LOCKED: Duration = Duration::from_secs(10);
    let daemon = Daemon::dev(&["--agent", "human"]).await;
    let (mut chat, callers) = Chat::begin(&daemon).await;
    chat.say(10).await;
    chat.all_stored().await;
    let other = rusqlite::Connection::open(daemon.state().join("sidetone.db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Mono::now();
    chat.say(30).await;
    let stored = |db: &rusqlite::Connection| -> i64 {
        let sql = "SELECT count(*) FROM phone_call_messages WHERE content LIKE 'line %'";
        db.query_row(sql, [], |r| r.get(0)).unwrap()
    };
    assert_eq!(stored(&other), 10);
    ready_is(&daemon, 503).await;
    let early = tokio::time::timeout(
        LOCKED.saturating_sub(Mono::now().since(began)),
        chat.frontend.until("agent_message_status", |m| m["status"] == "stored"),
    );
    assert!(early.await.is_err(), "nothing is acknowledged meanwhile");
    other.execute_batch("COMMIT").unwrap();
    let began = Mono::now();
    chat.all_stored().await;
    let took = Mono::now().since(began);
    assert!(took < Duration::from_secs(10), "{took:?} until all was stored");
    ready_is(&daemon, 200).await;
    assert_eq!(stored(&daemon.database()), 40);
    for (call, told) in &chat.stored {
        let database = daemon.database();
        let sql = "SELECT content FROM phone_call_messages WHERE call_id = ?1 AND content LIKE 'line %' ORDER BY seq";
        let mut found = database.prepare(sql).unwrap();
        let found = found.query_map([call], |r| r.get::<_, String>(0)).unwrap();
        assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), *told, "{call}");
    }
    let live = daemon.json("/api/calls/active").await;
    assert_eq!(live["data"].as_array().unwrap().len(), CALLS, "no call was dropped");
    callers.into_iter().for_each(|c| c.abort());
}
