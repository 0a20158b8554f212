//! Rounds of `kill -9` under load, on either engine: what a frontend was told is stored is there once and in order, no call is
//! left live, and the daemon is soon back.
//!
//! `scripts/kill9` runs more rounds than a test run does (`KILL9_ROUNDS`), and then holds every start to two seconds.

use crate::{
    daemon::{Daemon, Frontend, PATIENCE, place},
    server::Server,
};
use futures_util::SinkExt;
use serde_json::json;
use sidetone::sim::report::Ended;
use std::{collections::HashMap, time::Duration};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// Names the number of rounds.
const ROUNDS: &str = "KILL9_ROUNDS";
/// Rounds of a test run.
const FEW: u64 = 5;
/// Calls at once.
const CALLS: usize = 10;
/// How soon the daemon must be ready again, where that is asked for.
const SOON: Duration = Duration::from_secs(2);

/// Writes down what it was told is stored, until its socket is gone: call, message, in order.
async fn chatter(mut frontend: Frontend, told: mpsc::UnboundedSender<(String, String)>) {
    let mut live: Vec<String> = Vec::new();
    let mut said = 0;
    while let Some(message) = frontend.next().await {
        match message["type"].as_str().unwrap_or_default() {
            "call_status_update" if message["status"] == "in_progress" => {
                live.push(message["call_id"].as_str().unwrap().to_owned());
            }
            "agent_message_status" if message["status"] == "stored" => {
                let text = |key: &str| message[key].as_str().unwrap().to_owned();
                let _ = told.send((text("call_id"), text("message")));
            }
            _ => continue,
        }
        // One more message for every call, in turn.
        if live.len() == CALLS || message["status"] == "stored" {
            let id = &live[said % live.len()];
            said += 1;
            let message = json!({"type": "agent_message", "call_id": id, "message": format!("line {said:05}")});
            if frontend.socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
    }
}

/// What `look` finds in the database for a query, a line for each row with its columns parted by `|`.
async fn rounds(mut daemon: Daemon, engine: &str, look: impl Fn(&Daemon, &str) -> String) {
    let asked = std::env::var(ROUNDS)
        .ok()
        .map(|n| n.parse().expect("a number of rounds"));
    let mut all: Vec<(String, String)> = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..asked.unwrap_or(FEW) {
        let (told, mut stored) = mpsc::unbounded_channel();
        let frontend = daemon.frontend().await;
        let calls: Vec<_> = (0..CALLS)
            .map(|n| place(daemon.plan(&format!("+1555{round:03}{n:04}"), Vec::new(), Duration::from_secs(60))))
            .collect();
        let talk = tokio::spawn(chatter(frontend, told));
        // A moment that differs from round to round, counted in what was stored: never the same, never before the first.
        for _ in 0..(3 + round * 17 % 23) {
            let next = tokio::time::timeout(PATIENCE, stored.recv()).await;
            all.push(next.expect("messages are stored").expect("the frontend lives"));
        }
        daemon.kill();
        talk.await.unwrap();
        while let Ok(more) = stored.try_recv() {
            all.push(more);
        }
        for call in calls {
            // Some were refused with the webhook's connection, most lost their socket.
            if let Ok(outcome) = call.await.unwrap() {
                assert_eq!(outcome.report.ended, Ended::Lost);
            }
        }
        let took = daemon.again().await;
        slowest = slowest.max(took);
        assert!(asked.is_none() || took <= SOON, "{took:?} until ready in round {round}");

        let active = daemon.json("/api/calls/active").await;
        assert_eq!(active["data"], json!([]), "{active}");
    }
    let live = "SELECT count(*) FROM phone_calls WHERE status <> 'ended'";
    assert_eq!(look(&daemon, live), "0");
    let mut rows: HashMap<String, Vec<String>> = HashMap::new();
    let said = "SELECT call_id, content FROM phone_call_messages WHERE sender_type = 'agent' ORDER BY id";
    for row in look(&daemon, said).lines() {
        let (call, content) = row.split_once('|').unwrap();
        rows.entry(call.to_owned()).or_default().push(content.to_owned());
    }
    assert!(
        all.len() as u64 > asked.unwrap_or(FEW) * 15 / 2,
        "{} messages were stored",
        all.len()
    );
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (call, content) in &all {
        let at: Vec<_> = rows[call]
            .iter()
            .enumerate()
            .filter(|(_, c)| *c == content)
            .map(|(i, _)| i)
            .collect();
        assert_eq!(at.len(), 1, "{content} of {call} is there {} times", at.len());
        assert!(
            last.insert(call, at[0]).is_none_or(|before| before < at[0]),
            "{content} of {call} is out of order"
        );
    }
    println!(
        "{engine}: {} rounds, {} acknowledged messages, 0 lost, 0 doubled, 0 calls left live, ready again within {slowest:.1?}",
        asked.unwrap_or(FEW),
        all.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_be_stored_survives_kills_on_sqlite() {
    let daemon = Daemon::dev(&["--agent", "human"]).await;
    rounds(daemon, "SQLite", |daemon, sql| {
        let database = daemon.database();
        let mut query = database.prepare(sql).unwrap();
        let columns = query.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cell = |n| {
                Ok(match row.get_ref(n)? {
                    rusqlite::types::ValueRef::Integer(i) => i.to_string(),
                    other => other.as_str()?.to_owned(),
                })
            };
            let cells: rusqlite::Result<Vec<String>> = (0..columns).map(cell).collect();
            Ok(cells?.join("|"))
        };
        let rows = query.query_map([], row).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap().join("\n")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_be_stored_survives_kills_on_postgresql() {
    let server = Server::start(&[]);
    let url = server.database();
    let daemon = Daemon::start(&["--dev", "--agent", "human"], "", &[("SIDETONE_STORE_URL", &url)]).await;
    rounds(daemon, "PostgreSQL", |_, sql| server.psql(&url, sql)).await;
}
