//! Many nodes: real daemons that share a real PostgreSQL and a real NATS server.

mod cluster;

use crate::{
    daemon::{Daemon, place},
    nodes::cluster::Cluster,
};
use serde_json::Value;
use std::time::Duration;

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
        while ready(daemon).await.1["warnings"] != serde_json::json!(["nodes"]) {
            assert!(std::time::Instant::now() < deadline, "{:?}", ready(daemon).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ready(daemon).await.0, 200, "calls are still taken");
    }
    // The call goes on at its own node, and ends there; the other learns that once the server is back.
    let mut here = a.frontend().await;
    here.send(&serde_json::json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
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
