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
/// Names the seconds for which a database is away; `scripts/outages` sets it to those that operators must reckon with.
const OUTAGE: &str = "OUTAGE_SECONDS";

/// How long PostgreSQL is away: no longer than it takes, unless it is asked for.
fn outage() -> Duration {
    let asked = std::env::var(OUTAGE)
        .ok()
        .map(|s| s.parse().expect("a number of seconds"));
    Duration::from_secs(asked.unwrap_or(0))
}

/// Live calls, and a person who types to their callers in turn.
struct Chat {
    frontend: Frontend,
    calls: Vec<String>,
    said: usize,
    /// What was told to be stored, by call, in order.
    stored: BTreeMap<String, Vec<String>>,
}

impl Chat {
    /// Places the calls, each of which stays for a minute longer than an outage, and waits until they are live.
    async fn begin(daemon: &Daemon) -> (Self, Vec<JoinHandle<bool>>) {
        let mut frontend = daemon.frontend().await;
        let (mut calls, mut callers) = (Vec::new(), Vec::new());
        for n in 0..CALLS {
            let from = format!("+1555123000{n}");
            let mut plan = daemon.plan(&from, Vec::new(), Duration::from_secs(60) + outage());
            plan.limit += outage();
            let call = place(plan);
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
    let began = Mono::now();
    while Mono::now().since(began) < outage() {
        // No faster than it is spoken.
        chat.say(1).await;
        chat.all_stored().await;
        ready_is(&daemon, 503).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
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

/// A file system of a few megabytes, gone with its folder's end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "none"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|m| m.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("filler")).unwrap();
        let mut piece = 1 << 16;
        while piece > 0 {
            if std::io::Write::write_all(&mut file, &vec![1; piece]).is_err() {
                piece /= 2;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Busy until the daemon is gone, which is dropped before.
        let _ = std::process::Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_calls_go_on_and_nothing_is_told_before_it_is_stored() {
    let Some(disk) = SmallDisk::mount() else {
        // `stores::a_full_disk…` holds the same of the store, by a limit on the size of files.
        eprintln!("skipped: a file system is mounted by root alone");
        return;
    };
    let config = format!("[store]\npath = \"{}/sidetone.db\"\n", disk.path().display());
    let daemon = Daemon::start(&["--dev", "--agent", "human"], &config, &[]).await;
    let (mut chat, callers) = Chat::begin(&daemon).await;
    chat.say(10).await;
    chat.all_stored().await;
    disk.fill();
    // The log may have some room of its own left.
    let began = Mono::now();
    while daemon.get("/ready").await.is_some_and(|r| r.status == 200) {
        chat.say(3).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(Mono::now().since(began) < PATIENCE, "the disk never was full");
    }
    ready_is(&daemon, 503).await;
    let database = || rusqlite::Connection::open(disk.path().join("sidetone.db")).unwrap();
    let stored = || -> Vec<(String, String)> {
        let database = database();
        let sql = "SELECT call_id, content FROM phone_call_messages WHERE content LIKE 'line %' ORDER BY call_id, seq";
        let mut found = database.prepare(sql).unwrap();
        let found = found.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        found.map(Result::unwrap).collect()
    };
    chat.say(10).await;
    let quiet = Duration::from_secs(1).max(outage().min(Duration::from_secs(10)));
    let more = async {
        loop {
            let told = chat
                .frontend
                .until("agent_message_status", |m| m["status"] == "stored")
                .await;
            let text = |key: &str| told[key].as_str().unwrap().to_owned();
            let told = (text("call_id"), text("message"));
            assert!(stored().contains(&told), "{told:?} was told before it was stored");
            chat.stored.entry(told.0).or_default().push(told.1);
        }
    };
    let _ = tokio::time::timeout(quiet, more).await;
    let before: usize = chat.stored.values().map(Vec::len).sum();
    assert!(before < chat.said, "something waits");
    ready_is(&daemon, 503).await;
    disk.make_room();
    let began = Mono::now();
    chat.all_stored().await;
    let took = Mono::now().since(began);
    assert!(took < Duration::from_secs(10), "{took:?} until all was stored");
    ready_is(&daemon, 200).await;
    let told: Vec<_> = chat
        .stored
        .iter()
        .flat_map(|(call, said)| said.iter().map(move |s| (call.clone(), s.clone())))
        .collect();
    assert_eq!(stored(), told, "once and in order");
    let live = daemon.json("/api/calls/active").await;
    assert_eq!(live["data"].as_array().unwrap().len(), CALLS, "no call was dropped");
    callers.into_iter().for_each(|c| c.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_neither_postgresql_nor_its_journal_can_be_written_calls_go_on_and_what_was_said_waits() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a file system is mounted by root alone");
        return;
    };
    let mut server = Server::start(&[]);
    let url = server.database();
    let config = format!("[store]\njournal = \"{}/journal\"\n", disk.path().display());
    let daemon = Daemon::start(&["--dev", "--agent", "human"], &config, &[("SIDETONE_STORE_URL", &url)]).await;
    let (mut chat, callers) = Chat::begin(&daemon).await;
    chat.say(10).await;
    chat.all_stored().await;
    disk.fill();
    server.kill();
    chat.say(40).await;
    ready_is(&daemon, 503).await;
    // What still fits into the journal may be told; the rest must not be.
    let told = tokio::time::timeout(Duration::from_secs(1), chat.all_stored()).await;
    assert!(told.is_err(), "nothing is acknowledged that is nowhere");
    disk.make_room();
    server.restart();
    let began = Mono::now();
    chat.all_stored().await;
    let took = Mono::now().since(began);
    assert!(took < Duration::from_secs(10), "{took:?} until all was stored");
    ready_is(&daemon, 200).await;
    is_all_there(&server, &url, &chat);
    let live = server.psql(&url, "SELECT count(*) FROM phone_calls WHERE status = 'in_progress'");
    assert_eq!(live, CALLS.to_string(), "no call was dropped");
    callers.into_iter().for_each(|c| c.abort());
}
