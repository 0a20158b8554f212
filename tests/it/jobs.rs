//! What is done after a call by a real daemon: its files, the data in it, the webhook that tells of it, whatever dies in between.

use crate::{
    daemon::{Daemon, PATIENCE, place},
    minds::double::{Act, Double},
};
use serde_json::{Value, json};
use sidetone::{
    base::time::Mono,
    speech::stt::fake::phrase,
    wire::sign::{Algorithm, MacKey},
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const SECRET: &str = "shared-with-the-receiver";

/// Somebody who wants to be told of calls.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    /// What it answers next; afterwards 200.
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// Head and body of each request.
    got: Arc<Mutex<Vec<(String, String)>>>,
}

impl Receiver {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::default(),
            got: Arc::default(),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let receiver = serving.clone();
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    loop {
                        let mut piece = [0; 8192];
                        let Ok(n @ 1..) = socket.read(&mut piece).await else {
                            return;
                        };
                        bytes.extend_from_slice(&piece[..n]);
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        let Some((head, body)) = text.split_once("\r\n\r\n") else {
                            continue;
                        };
                        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
                        if body.len() < length.parse().unwrap() {
                            continue;
                        }
                        receiver.got.lock().unwrap().push((head.to_owned(), body.to_owned()));
                        let status = receiver.answers.lock().unwrap().pop_front().unwrap_or(200);
                        let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                        let _ = socket.write_all(reply.as_bytes()).await;
                        return;
                    }
                });
            }
        });
        receiver
    }

    fn will(&self, answers: impl IntoIterator<Item = u16>) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn section(&self, more: &str) -> String {
        format!(
            "[after_call]\nwebhook_url = \"http://{}/calls\"\nwebhook_secret = \"{SECRET}\"\nlease = \"3s\"\n{more}\n",
            self.address
        )
    }

    /// Until it was told so often: the requests.
    async fn told(&self, n: usize) -> Vec<(String, String)> {
        until("the webhook", || {
            let got = self.got.lock().unwrap();
            (got.len() >= n).then(|| got.clone())
        })
        .await
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Mono::now() + PATIENCE * 2;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Mono::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).unwrap()
}

/// Rules that answer tones, and a price for the vendor.
const DESK: &str =
    "[agents.desk]\nkind = \"pipeline\"\nlanguage = \"en\"\nstt = \"fake\"\ntts = \"fake\"\ngreeting = \"Welcome.\"\n";
const RULES: &str = "[[agents.desk.rules]]\nphrases = [\"when are you open\"]\nreply = \"From nine. Until five.\"\n[[cost.rates]]\nof = \"vendor.twilio\"\nprice = 60.0\n";

/// A call that asks once.
async fn call(daemon: &Daemon) {
    let mut samples = vec![0; 8000];
    samples.extend(phrase(0, 400, 8000));
    samples.resize(samples.len() + 16_000, 0);
    let plan = daemon.plan("+15550501", samples, Duration::from_millis(500));
    place(plan).await.unwrap().unwrap();
}

fn files(folder: &Path) -> Vec<(String, Value)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.map(|e| e.unwrap().path());
    let json = entries.filter(|p| p.extension().is_some_and(|e| e == "json"));
    let read = |p: std::path::PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap())
    };
    json.map(read).collect()
}

#[tokio::test]
async fn a_call_leaves_its_files_and_a_signed_webhook() {
    let receiver = Receiver::open().await;
    receiver.will([503]);
    let config = format!("{DESK}\n{RULES}\n{}", receiver.section(""));
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    let told = receiver.told(2).await;
    let (first, second) = (&told[0], &told[1]);
    assert_eq!(
        header(&first.0, "x-sidetone-event-id"),
        header(&second.0, "x-sidetone-event-id")
    );
    for (head, body) in &told {
        let key = MacKey::new(Algorithm::HmacSha256, SECRET.as_bytes());
        let code = key.sign([header(head, "x-sidetone-timestamp"), ".", body]);
        let hex: String = code.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(header(head, "x-sidetone-signature"), format!("v1={hex}"));
    }
    let event: Value = serde_json::from_str(&second.1).unwrap();
    let data = &event["data"];
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("call.ended"), &json!(header(&second.0, "x-sidetone-event-id")))
    );

    let (transcripts, calls) = (
        files(&daemon.state().join("transcripts")),
        files(&daemon.state().join("calls")),
    );
    assert_eq!((transcripts.len(), calls.len()), (1, 1));
    let (name, transcript) = &transcripts[0];
    let sid = data["call_id"].as_str().unwrap();
    assert!(
        name.starts_with(&format!("call_{sid}_")) && name.ends_with("_transcript.json"),
        "{name}"
    );
    assert_eq!(name.replace("_transcript", ""), calls[0].0);
    let said: Vec<_> = transcript["conversation"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["text"])
        .collect();
    assert_eq!(said, ["Welcome.", "when are you open", "From nine.", "Until five."]);
    let file = &calls[0].1;
    let pair = &file["analytics"]["question_answers"][0];
    assert_eq!(
        (&pair["question"], &pair["answer"]),
        (&json!("when are you open"), &json!("From nine. Until five."))
    );
    assert_eq!(file["analytics"]["latency_ms"]["turns"], 1);
    assert!(file["analytics"]["talk_ms"]["agent"].as_u64().unwrap() > 0, "{file}");
    assert!(file["analytics"]["talk_ms"]["customer"].as_u64().unwrap() > 0, "{file}");
    let seconds = file["duration"].as_f64().unwrap();
    assert_eq!(
        file["cost"]["total"].as_f64().unwrap(),
        seconds,
        "a dollar a second: {file}"
    );
    let log = daemon.log();
    assert!(log.contains("transcript_saved") && !log.contains("From nine"), "{log}");
}

#[tokio::test]
async fn a_daemon_that_dies_after_the_hang_up_tells_of_the_call_once_it_is_back() {
    let receiver = Receiver::open().await;
    receiver.will([500; 3]);
    let config = format!("{DESK}\n{RULES}\n{}", receiver.section(""));
    let mut daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    let before = receiver.told(1).await;
    daemon.kill();
    receiver.answers.lock().unwrap().clear();
    let n = receiver.got.lock().unwrap().len();
    daemon.again().await;
    let told = receiver.told(n + 1).await;
    let ids: Vec<_> = told
        .iter()
        .map(|(head, _)| header(head, "x-sidetone-event-id"))
        .collect();
    assert!(
        ids.iter().all(|id| *id == header(&before[0].0, "x-sidetone-event-id")),
        "{ids:?}"
    );
    let jobs = || async { daemon.json("/api/jobs?state=all").await };
    let deadline = Mono::now() + PATIENCE;
    while jobs().await["data"]
        .as_array()
        .unwrap()
        .iter()
        .any(|j| j["state"] != "done")
    {
        assert!(Mono::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(receiver.got.lock().unwrap().len(), n + 1, "taken once is told once");
    assert_eq!(files(&daemon.state().join("transcripts")).len(), 1);
    assert_eq!(files(&daemon.state().join("calls")).len(), 1);
}

#[tokio::test]
async fn a_daemon_that_dies_as_the_caller_hangs_up_leaves_files_and_webhook_once() {
    let receiver = Receiver::open().await;
    let config = format!("{DESK}\n{RULES}\n{}", receiver.section(""));
    let mut daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    let mut frontend = daemon.frontend().await;
    let mut samples = vec![0; 8000];
    samples.extend(phrase(0, 400, 8000));
    samples.resize(samples.len() + 16_000, 0);
    let placed = place(daemon.plan("+15550509", samples, Duration::from_millis(500)));
    frontend.until("call_status_update", |m| m["status"] == "ended").await;
    daemon.kill();
    let _ = placed.await;
    let before = receiver.got.lock().unwrap().len();
    daemon.again().await;
    let told = receiver.told(1).await;
    until("the jobs are done", || {
        daemon.log().contains("webhook_delivered").then_some(())
    })
    .await;
    let (transcripts, calls) = (
        files(&daemon.state().join("transcripts")),
        files(&daemon.state().join("calls")),
    );
    assert_eq!((transcripts.len(), calls.len()), (1, 1));
    let ids: std::collections::BTreeSet<_> = told
        .iter()
        .map(|(head, _)| header(head, "x-sidetone-event-id"))
        .collect();
    assert_eq!((before, ids.len(), told.len()), (0, 1, 1));
    assert_eq!(calls[0].1["end_reason"], "completed", "{}", calls[0].1);
}

#[tokio::test]
async fn a_call_in_which_hardly_anything_was_said_leaves_no_files_and_is_told_of() {
    let receiver = Receiver::open().await;
    let config = format!("{DESK}min_messages_to_keep = 5\n{RULES}\n{}", receiver.section(""));
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    let told = receiver.told(1).await;
    let event: Value = serde_json::from_str(&told[0].1).unwrap();
    assert_eq!(event["data"]["conversation"].as_array().unwrap().len(), 4);
    assert!(files(&daemon.state().join("transcripts")).is_empty() && files(&daemon.state().join("calls")).is_empty());
}

#[tokio::test]
async fn a_webhook_that_nobody_takes_is_buried_and_can_be_sent_again() {
    let receiver = Receiver::open().await;
    receiver.will([500; 8]);
    let config = format!("{DESK}\n{RULES}\n{}", receiver.section("retry_for = \"1s\""));
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    let deadline = Mono::now() + PATIENCE;
    let buried = loop {
        let jobs = daemon.json("/api/jobs").await;
        if let Some(job) = jobs["data"].as_array().unwrap().first() {
            break job.clone();
        }
        assert!(Mono::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        (&buried["kind"], &buried["error"]),
        (&json!("webhook"), &json!("status 500"))
    );
    receiver.answers.lock().unwrap().clear();
    let n = receiver.got.lock().unwrap().len();
    let id = buried["id"].as_str().unwrap();
    let reply = daemon.post(&format!("/api/jobs/{id}/replay"), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let told = receiver.told(n + 1).await;
    assert_eq!(header(&told[n].0, "x-sidetone-event-id"), id);
    let reply = daemon.post(&format!("/api/jobs/{id}/replay"), &json!({})).await;
    assert_eq!(reply.status, 409);
}

#[tokio::test]
async fn data_is_read_out_of_a_call_and_what_was_not_said_is_null_with_a_reason() {
    let (receiver, double) = (Receiver::open().await, Double::open("anthropic").await);
    double.will([Act::Status(529), Act::Data(json!({ "name": "Ada", "guests": "two" }))]);
    let schema = r#"{"type":"object","properties":{"name":{"type":"string"},"guests":{"type":"integer"},"when":{"type":"string"}}}"#;
    let config = format!(
        "{DESK}extraction_schema = '{schema}'\n{RULES}\n{}\n{}",
        receiver.section(""),
        double.section()
    );
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    let told = receiver.told(1).await;
    let event: Value = serde_json::from_str(&told[0].1).unwrap();
    let data = &event["data"];
    assert_eq!(
        data["extracted"],
        json!({ "name": "Ada", "guests": null, "when": null })
    );
    let reasons = &data["extraction"]["missing"];
    assert_eq!(
        (&reasons["guests"], &reasons["when"]),
        (&json!("what was given is no integer"), &json!("not said"))
    );
    let file = &files(&daemon.state().join("calls"))[0].1;
    assert_eq!(file["extracted"], data["extracted"]);
    assert_eq!(double.asked().len(), 2, "an overloaded model is asked again");
    let id = data["id"].as_str().unwrap();
    let record = daemon.json(&format!("/api/calls/{id}")).await;
    assert_eq!(record["data"]["metadata"]["extracted"], data["extracted"]);
}

#[tokio::test]
async fn data_is_read_while_the_caller_talks_and_once_more_at_the_end_and_nothing_is_forgotten() {
    let (receiver, double) = (Receiver::open().await, Double::open("anthropic").await);
    double.will([
        Act::Data(json!({ "name": "Ada", "address": { "city": "Pune" } })),
        Act::Data(json!({ "guests": 2, "name": null })),
    ]);
    let schema = r#"{"type":"object","properties":{"name":{"type":"string"},"guests":{"type":"integer"},"address":{"type":"object","properties":{"city":{"type":"string"},"street":{"type":"string"}}}}}"#;
    let config = format!(
        "{DESK}extraction_schema = '{schema}'\nextract_after = \"200ms\"\n{RULES}\n[[cost.rates]]\nof = \"llm.anthropic.input\"\nprice = 1000000.0\n{}\n{}",
        receiver.section(""),
        double.section()
    );
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    let mut samples = vec![0; 8000];
    samples.extend(phrase(0, 400, 8000));
    samples.resize(samples.len() + 8 * 4000, 0);
    let placed = place(daemon.plan("+15550511", samples, Duration::from_millis(500)));
    let deadline = Mono::now() + PATIENCE;
    let live = loop {
        let calls = daemon.json("/api/calls/active").await;
        let id = calls["data"][0]["id"].as_str().map(str::to_owned);
        if let Some(id) = id {
            let record = daemon.json(&format!("/api/calls/{id}")).await["data"].clone();
            if record["metadata"]["extracted"]["name"] == "Ada" {
                break record;
            }
        }
        assert!(
            Mono::now() < deadline,
            "nothing was read during the call: {}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let metadata = &live["metadata"];
    assert_eq!(
        metadata["extracted"],
        json!({ "name": "Ada", "guests": null, "address": { "city": "Pune", "street": null } })
    );
    placed.await.unwrap().unwrap();
    let told = receiver.told(1).await;
    let event: Value = serde_json::from_str(&told[0].1).unwrap();
    let data = &event["data"];
    assert_eq!(
        data["extracted"],
        json!({ "name": "Ada", "guests": 2, "address": { "city": "Pune", "street": null } })
    );
    assert_eq!(data["extraction"]["missing"], json!({ "address.street": "not said" }));
    // Each reading is paid for: eleven tokens read, twice, a currency unit each.
    assert_eq!(data["cost"]["lines"]["llm.anthropic.input"], 22.0, "{data}");
    let asked = double.asked();
    assert_eq!(asked.len(), 2, "once for what the caller said, and once at the end");
}

#[tokio::test]
async fn the_log_tells_the_story_of_a_call_and_none_of_its_words() {
    let double = Double::open("anthropic").await;
    double.will([Act::Data(json!({ "name": "Ada" })), Act::Data(json!({ "name": "Ada" }))]);
    let schema = r#"{"type":"object","properties":{"name":{"type":"string"}}}"#;
    let config = format!(
        "[log]\nformat = \"json\"\n{DESK}extraction_schema = '{schema}'\nextract_after = \"200ms\"\n{RULES}\n{}",
        double.section()
    );
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await;
    call(&daemon).await;
    until("the transcript", || {
        daemon.log().contains("transcript_saved").then_some(())
    })
    .await;
    let log = daemon.log();
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |name: &str| {
        let at = events.iter().position(|e| e["message"] == name);
        at.unwrap_or_else(|| panic!("no {name} in {log}"))
    };
    let story = [
        "call_started",
        "backend_connected",
        "transcript_final",
        "extraction_started",
        "stop_received",
        "call_ended",
        "transcript_saved",
    ]
    .map(find);
    assert!(story.is_sorted(), "{story:?}: {log}");
    let connected = events.iter().filter(|e| e["message"] == "backend_connected");
    let mut kinds: Vec<_> = connected.filter_map(|e| e["kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["stt", "tts"]);
    assert_eq!(events[story[2]]["characters"], "when are you open".len());
    assert!(events[story[5]]["call_duration_ms"].as_u64().unwrap() > 1000);
    assert!(events[story[6]]["file"].as_str().unwrap().ends_with("_transcript.json"));
    // One session id on every line of the call.
    let session = |e: &Value| {
        e["span"]["session"]
            .as_str()
            .or(e["session"].as_str())
            .map(str::to_owned)
    };
    let sessions: Vec<_> = story.iter().map(|at| session(&events[*at])).collect();
    assert!(
        sessions[0].is_some() && sessions.iter().all(|s| *s == sessions[0]),
        "{sessions:?}"
    );
    for words in ["when are you open", "Welcome.", "From nine", "Ada"] {
        assert!(!log.contains(words), "{words}");
    }
}
