//! Many nodes: real daemons that share a real PostgreSQL and a real NATS server.

mod cluster;

use crate::{
    daemon::{Daemon, place},
    nodes::cluster::{Cluster, Nats},
    server::Server,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sidetone::{
    sim::{
        announce,
        caller::{Opening, Plan},
        report::Report,
    },
    vendor::{HookKind, VENDORS},
};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// The places in which a call stood, as a frontend was told them, up to `last`, with the ids of the events.
async fn told(frontend: &mut crate::daemon::Frontend, number: &str, last: &str) -> (Vec<String>, Vec<i64>) {
    let (mut statuses, mut ids) = (Vec::new(), Vec::new());
    loop {
        let update = frontend
            .until("call_status_update", |m| m["customer_number"] == number)
            .await;
        ids.extend(update["id"].as_i64());
        statuses.push(update["status"].as_str().unwrap().to_owned());
        if statuses.last().is_some_and(|s| s == last) {
            return (statuses, ids);
        }
    }
}

async fn ready(daemon: &Daemon) -> (u16, Value) {
    let reply = daemon.get("/ready").await.expect("an answer");
    (reply.status, serde_json::from_slice(&reply.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_of_one_node_sees_a_call_of_another_in_order_and_once() {
    let cluster = Cluster::start();
    let (a, b) = cluster.pair("echo").await;
    let mut here = a.frontend().await;
    let mut there = b.frontend().await;
    let call = place(a.plan("+15551234001", vec![0; 8000], Duration::from_millis(300)));
    let (statuses, ids) = told(&mut there, "+15551234001", "ended").await;
    assert_eq!(statuses, ["incoming", "answered", "in_progress", "ended"]);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(told(&mut here, "+15551234001", "ended").await, (statuses, ids));
    call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_nodes_server_each_node_serves_its_own_calls_and_says_so() {
    let mut cluster = Cluster::start();
    let (a, b) = cluster.pair("echo").await;
    let mut there = b.frontend().await;
    let call = place(a.plan("+15551234002", vec![0; 8000], Duration::from_secs(60)));
    let id = there.call_from("+15551234002", "in_progress").await;
    cluster.nats.kill();
    let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
    for daemon in [&a, &b] {
        while ready(daemon).await.1["warnings"] != json!(["nodes"]) {
            assert!(std::time::Instant::now() < deadline, "{:?}", ready(daemon).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ready(daemon).await.0, 200, "calls are still taken");
    }
    // The call goes on at its own node, and ends there; the other learns that once the server is back.
    let mut here = a.frontend().await;
    here.send(&json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
        .await;
    here.until("call_status_update", |m| m["status"] == "ended").await;
    call.await.unwrap().unwrap();
    cluster.nats.restart();
    let ended = there.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(ended["call_id"], id.as_str());
    assert!(ready(&b).await.1["warnings"].is_null());
    assert!(
        cluster::metric(&a, "sidetone_nodes_dropped_total").await > 0.0,
        "what was dropped is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_steered_from_another_node_and_its_death_is_told_there() {
    let cluster = Cluster::start();
    let (mut a, b) = cluster.pair("human").await;
    let mut there = b.frontend().await;
    let call = place(a.plan("+15551234003", vec![0; 8000], Duration::from_secs(120)));
    let id = there.call_from("+15551234003", "in_progress").await;

    // Listed, shown and steered over REST, with what is live of it.
    let active = b.json("/api/calls/active").await;
    assert_eq!(active["data"][0]["id"], id.as_str(), "{active}");
    let socket = active["data"][0]["connection_id"]
        .as_str()
        .expect("where it streams")
        .to_owned();
    let streams = b.json("/api/websocket/streams").await;
    assert_eq!(streams["data"][0]["connection_id"], socket.as_str(), "{streams}");
    assert_eq!(b.json(&format!("/api/calls/{id}")).await["data"]["status"], "active");
    let muted = b
        .post(&format!("/api/calls/{}/{id}/mute", VENDORS[0].name), &json!({}))
        .await;
    assert_eq!(muted.status, 200, "{}", String::from_utf8_lossy(&muted.body));
    let open = b
        .post(&format!("/api/calls/{}/{id}/unmute", VENDORS[0].name), &json!({}))
        .await;
    assert_eq!(open.status, 200, "{}", String::from_utf8_lossy(&open.body));
    let cleared = b.post(&format!("/api/websocket/clear/{socket}"), &json!({})).await;
    assert_eq!(cleared.status, 200, "{}", String::from_utf8_lossy(&cleared.body));
    for (path, status) in [
        ("/api/calls/nobody/takeover", 404),
        ("/api/websocket/clear/nobody", 404),
    ] {
        assert_eq!(b.post(path, &json!({})).await.status, status, "{path}");
    }

    // Who wants to listen in is sent away to come to the call's own node.
    let url = format!("ws://{}/frontend-audio?call_id={id}", b.address);
    let (mut listener, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let closed = async {
        loop {
            match listener.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|f| u16::from(f.code)),
                Some(Ok(_)) => {}
                _ => return None,
            }
        }
    };
    assert_eq!(closed.await, Some(1013));

    // Typed here, heard there.
    there
        .send(&json!({"type": "agent_message", "call_id": id, "message": "Good morning.", "client_ref": "r-1"}))
        .await;
    for status in ["stored", "heard"] {
        let told = there
            .until("agent_message_status", |m| {
                m["client_ref"] == "r-1" && m["status"] == status
            })
            .await;
        assert_eq!(told["message"], "Good morning.");
    }

    a.kill();
    let ended = there.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(
        (&ended["call_id"], &ended["end_reason"]),
        (&json!(id), &json!("interrupted"))
    );
    let _ = call.await.unwrap();
    assert_eq!(b.json("/api/calls/active").await["count"], 0);
    // Once: whoever comes back finds it closed.
    a.again().await;
    let events = "SELECT count(*) FROM events WHERE payload LIKE '%interrupted%'";
    assert_eq!(cluster.server.psql(&cluster.database, events), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frontend_hears_of_a_call_on_another_node_comes_only_where_it_is_wanted() {
    let cluster = Cluster::start();
    let (a, b) = cluster.pair("human").await;
    let mut there = b.frontend().await;
    let call = place(a.plan("+15551234004", vec![0; 8000], Duration::from_secs(60)));
    let id = there.call_from("+15551234004", "in_progress").await;
    let say = json!({"type": "agent_message", "call_id": id, "message": "Do you hear me?"});
    there.send(&say).await;
    let first = there.until("agent_tts_audio", |_| true).await;
    assert_eq!(first["seq"], 0, "{first}");
    there.until("agent_tts_audio", |m| m["last"] == true).await;
    there
        .send(&json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
        .await;
    there.until("call_status_update", |m| m["status"] == "ended").await;
    call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_repeated_at_another_node_gets_the_same_answer() {
    let cluster = Cluster::start();
    let (a, b) = cluster.pair("echo").await;
    let hook = announce::hook_path(VENDORS[0]).unwrap();
    let form = |status: &str| {
        format!(
            "CallSid=CA900&AccountSid=AC1&From=%2B15551234005&To=%2B15550000001&CallStatus={status}&Direction=inbound"
        )
    };
    let mut here = a.frontend().await;
    let first = a.post_form(hook, &form("ringing")).await;
    let again = b.post_form(hook, &form("ringing")).await;
    assert_eq!((first.status, again.status), (200, 200));
    assert!(String::from_utf8_lossy(&first.body).contains("<Stream"), "{first:?}");
    assert_eq!(first.body, again.body, "one call, one token");
    // Its vendor's later news may come anywhere, too.
    let status = VENDORS[0].hook(HookKind::Status).unwrap().path;
    assert!(b.post_form(status, &form("completed")).await.status < 300);
    let ended = here.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(ended["end_reason"], "completed");
    let calls = "SELECT count(*) FROM phone_calls";
    assert_eq!(cluster.server.psql(&cluster.database, calls), "1");
}

/// The answer of a vendor's webhook: where the media socket is, and the token in it.
async fn announced(daemon: &Daemon, call_sid: &str, from: &str) -> (String, String) {
    let hook = announce::hook_path(VENDORS[0]).unwrap();
    let from = from.replace('+', "%2B");
    let form =
        format!("CallSid={call_sid}&AccountSid=AC1&From={from}&To=%2B15550000001&CallStatus=ringing&Direction=inbound");
    let reply = daemon.post_form(hook, &form).await;
    let answer = String::from_utf8(reply.body.to_vec()).unwrap();
    let url = answer.split("url=\"").nth(1).and_then(|rest| rest.split('"').next());
    let url = url.unwrap_or_else(|| panic!("{answer}")).to_owned();
    let token = url.rsplit('/').next().unwrap().to_owned();
    (url, token)
}

/// A caller with one second of tone whose media socket comes to this node.
fn streaming(node: &Daemon, call_sid: &str, from: &str, (url, token): (String, String)) -> Plan {
    let mut samples = vec![0; 16_000];
    for (n, sample) in samples[..8000].iter_mut().enumerate() {
        *sample = if n % 16 < 8 { 6000 } else { -6000 };
    }
    Plan {
        opening: Opening::Announced {
            call_sid: call_sid.to_owned(),
            token,
            url,
            account: None,
            signature: Vec::new(),
        },
        ..node.plan(from, samples, Duration::from_millis(500))
    }
}

fn node_of(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.state().join("journal/node")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_moves_to_the_node_that_its_media_stream_comes_to() {
    let cluster = Cluster::start();
    let (mut a, b) = cluster.pair("echo").await;
    let mut there = b.frontend().await;
    let (sid, from) = ("CA901", "+15551234006");
    let answer = announced(&a, sid, from).await;
    let call = place(streaming(&b, sid, from, answer));
    let id = there.call_from(from, "in_progress").await;
    let owner = format!("SELECT node FROM phone_calls WHERE call_id = '{id}'");
    assert_eq!(cluster.server.psql(&cluster.database, &owner), node_of(&b));
    // Its first node is no longer needed.
    a.kill();
    let ended = there.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(
        (&ended["call_id"], &ended["end_reason"]),
        (&json!(id), &json!("completed"))
    );
    let report = call.await.unwrap().unwrap().report;
    assert!(report.audio_received_ms > 900, "{report:#?}");
    let (statuses, ids) = stored(&cluster, &id);
    assert_eq!(statuses, ["incoming", "answered", "in_progress", "ended"]);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

/// Where a call stood, and the ids of the events that said so.
fn stored(cluster: &Cluster, id: &str) -> (Vec<String>, Vec<i64>) {
    let events = format!(
        "SELECT id || ' ' || (payload::json->>'status') FROM events WHERE call_id = '{id}' AND payload LIKE '%call_status_update%' ORDER BY id"
    );
    let found = cluster.server.psql(&cluster.database, &events);
    let lines = found.lines().map(|l| l.split_once(' ').unwrap());
    lines
        .map(|(id, status)| (status.to_owned(), id.parse::<i64>().unwrap()))
        .unzip()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_used_at_two_nodes_lets_one_stream_in() {
    let cluster = Cluster::start();
    let (a, b) = cluster.pair("echo").await;
    for n in 0..4 {
        let (sid, from) = (format!("CA91{n}"), format!("+1555123410{n}"));
        let answer = announced(&a, &sid, &from).await;
        let (one, two) = tokio::join!(
            place(streaming(&a, &sid, &from, answer.clone())),
            place(streaming(&b, &sid, &from, answer.clone()))
        );
        let reports = [one, two].map(|outcome| outcome.unwrap().map(|o| o.report));
        let heard = |r: &Result<Report, _>| r.as_ref().is_ok_and(|r| r.audio_received_ms > 900);
        assert_eq!(reports.iter().filter(|r| heard(r)).count(), 1, "{reports:#?}");
        // Nor is it good once more, anywhere.
        for node in [&a, &b] {
            let again = place(streaming(node, &sid, &from, answer.clone())).await.unwrap();
            assert!(!heard(&again.map(|o| o.report)));
        }
    }
    let calls = "SELECT count(*), count(*) FILTER (WHERE end_reason = 'completed') FROM phone_calls";
    assert_eq!(cluster.server.psql(&cluster.database, calls), "4|4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_entered_at_one_node_is_soon_known_to_the_others() {
    let cluster = Cluster::start();
    let (a, b) = cluster.pair("echo").await;
    let number = json!({"phoneNumber": "+14155550123", "provider": VENDORS[0].name, "displayName": "Desk"});
    let added = a.post("/api/phone-numbers", &number).await;
    assert!(added.status < 300, "{}", String::from_utf8_lossy(&added.body));
    let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
    loop {
        let known = b.json("/api/phone-numbers").await;
        if known.to_string().contains("+14155550123") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{known}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_proves_itself_to_the_server_and_without_that_serves_alone() {
    let server = Server::start(&[]);
    let (database, nats) = (
        server.database(),
        Nats::start(&["--user", "sidetone", "--pass", "right"]),
    );
    let node = async |password: &str| {
        let environment = [
            ("SIDETONE_STORE_URL", database.as_str()),
            ("SIDETONE_NODES_URL", &nats.url()),
            ("SIDETONE_NODES_USER", "sidetone"),
            ("SIDETONE_NODES_PASSWORD", password),
        ];
        Daemon::start(&["--dev", "--agent", "echo"], "", &environment).await
    };
    let (known, stranger) = (node("right").await, node("wrong").await);
    cluster::hears(&known, 0).await;
    assert_eq!(ready(&known).await, (200, json!({"status": "ready"})));
    assert_eq!(
        ready(&stranger).await,
        (200, json!({"status": "ready", "warnings": ["nodes"]}))
    );
    assert!(!stranger.log().contains("wrong"), "{}", stranger.log());
    let call = place(stranger.plan("+15551234007", vec![0; 1600], Duration::from_millis(100)));
    call.await.unwrap().unwrap();
}

#[test]
fn nodes_without_a_common_database_are_a_fault_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetone.toml");
    std::fs::write(&path, "[nodes]\nurl = \"nats://127.0.0.1:4222\"\n").unwrap();
    let checked = crate::daemon::sidetone()
        .args(["check-config", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("nodes.url") && said.contains("store.url"), "{said}");
}
