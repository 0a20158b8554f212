//! The guide for vendors of the `ucid` dialect: the messages of a call, and its two scripts, run by Node.js as they stand.

use super::{Site, fits, guides};
use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

const AGENT: &str = r#"
[agents.front-desk]
kind = "scripted"
greeting = "Welcome."

[[agents.front-desk.rules]]
phrases = ["good bye"]
reply = "Good bye."
"#;

const ACCOUNT: &str = r#"
[ozonetel]
webhook_secret = "w"
default_number = "+15550000001"

[[numbers]]
number = "+15550000001"
vendor = "ozonetel"
agent = "front-desk"
"#;

/// Each daemon with the path and query of its socket.
async fn both() -> [(Site, &'static str); 2] {
    let dev = Site::dev(&format!("[calls]\ndefault_agent = \"front-desk\"\n{AGENT}")).await;
    let secure = Site::secure(&format!("{AGENT}{ACCOUNT}")).await;
    [(dev, "/ws"), (secure, "/ws?secret=w")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_started_greeted_and_stopped_with_the_guides_messages() {
    for (site, path) in both().await {
        let mut socket = site.open(path).await;
        socket.say(guides::UCID_START).await;
        let samples = vec!["1234"; 80].join(", ");
        let media = guides::UCID_MEDIA.replace("SAMPLES", &samples);
        for _ in 0..20 {
            socket.say(&media).await;
        }
        let answer = socket.until("event", "media").await;
        fits(&guides::json(&media), &answer);
        assert_eq!(answer["ucid"], "unique-call-id-123");
        assert_eq!(answer["data"]["samples"].as_array().unwrap().len(), 80);
        socket.say(guides::UCID_STOP).await;
        socket.closed().await;
        let ended = |a: &Value| (a["data"]["status"] == "ended").then(|| a["data"]["end_reason"].clone());
        let reason = site.until("/api/calls/unique-call-id-123", ended).await;
        assert_eq!(reason, "completed");
    }
}

/// Runs a script to its end and returns what it printed.
async fn node(site: &Site, script: &str) -> String {
    let file = site.daemon.folder().join("script.js");
    std::fs::write(&file, script).unwrap();
    let run = Command::new("node")
        .arg(file)
        // Where Debian keeps modules, for a Node.js that is not Debian's.
        .env("NODE_PATH", "/usr/share/nodejs")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(30), run).await.expect("the script ends");
    let output = output.expect("node is installed by scripts/setup --tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_automated_test_script_connects_hears_the_greeting_and_is_let_go() {
    for (site, path) in both().await {
        let url = format!("ws://{}{path}", site.daemon.address);
        let script = include_str!("pages/ucid-test.js").replace("wss://your-domain.com/ws", &url);
        let printed = node(&site, &script).await;
        for part in [
            "✅ Connected\n",
            "← Received: {\"event\":\"media\"",
            "✅ Connection closed\n",
        ] {
            assert!(printed.contains(part), "{part}: {printed}");
        }
        // Its `stop` names another call than its `start`, and ends the call of its socket.
        let first = |a: &Value| a["data"].get(0).cloned();
        let call = site.until("/api/calls/history", first).await;
        assert!(call["call_id"].as_str().unwrap().starts_with("TEST-"), "{call}");
        assert_eq!(
            (&call["status"], &call["end_reason"]),
            (&"ended".into(), &"completed".into())
        );
        assert_eq!(call["metadata"]["closed_without_stop"], Value::Null, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_for_the_end_of_a_call_ends_it() {
    for (site, path) in both().await {
        let url = format!("ws://{}{path}", site.daemon.address);
        let begin = format!(
            "const WebSocket = require('ws');\nconst websocket = new WebSocket('{url}');\n\
             websocket.on('open', () => websocket.send(JSON.stringify({{event: 'start', ucid: 'CALL-2025-10-07-001', type: 'text'}})));\n\
             websocket.once('message', () => onCallEnd('CALL-2025-10-07-001'));\n"
        );
        node(&site, &format!("{begin}{}", include_str!("pages/ucid-end.js"))).await;
        let ended = |a: &Value| (a["data"]["status"] == "ended").then(|| a["data"]["end_reason"].clone());
        assert_eq!(site.until("/api/calls/CALL-2025-10-07-001", ended).await, "completed");
    }
}
