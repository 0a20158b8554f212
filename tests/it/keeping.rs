//! What is kept of calls, over REST: erasure, legal holds, retention, and the history as a file and as figures.

use crate::house::House;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::{
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    store::{Batch, CallRow, CallStatus, MessageRow, Sender, Write},
    vendor::EndReason,
};
use std::path::PathBuf;

/// A call that ended, with what was said on it and its files.
async fn ended(house: &House, tenant: i64, words: &str) -> CallRow {
    let call_id = CallId::new();
    let now = Wall::now();
    let row = CallRow {
        call_id,
        call_sid: format!("CA{call_id}"),
        session_id: call_id.to_string(),
        vendor: "twilio".into(),
        inbound: true,
        customer_number: "+15559990000".into(),
        organization_number: "+15550100001".into(),
        status: CallStatus::Ended,
        end_reason: Some(EndReason::Completed),
        start_time: now,
        answered_at: Some(now),
        end_time: Some(now),
        duration: Some(7),
        tenant_id: TenantId(tenant),
        agent: "=desk()".into(),
        recording: Some(format!("recordings/{call_id}.wav")),
        legal_hold: false,
        metadata: json!({
            "analytics": { "talk_ms": { "customer": 1500, "agent": 2500 } },
            "turns": [{ "total_ms": 400 }, { "total_ms": 900 }],
            "cost": { "currency": "USD", "total": 0.25 },
            "extracted": { "name": "Ada" },
        }),
    };
    let said = MessageRow {
        message_id: MessageId::new(),
        call_id,
        seq: 1,
        message_type: "transcript",
        content: words.to_owned(),
        sender_type: Sender::Customer,
        sender_name: None,
        confidence: None,
        detected_language: None,
        delivery: None,
        heard_ms: None,
        created_at: now,
    };
    let writes = vec![Write::Call(Box::new(row.clone())), Write::Message(Box::new(said))];
    house.store.commit(Batch { writes }).await.unwrap();
    for file in files(house, &row) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "RIFF").unwrap();
    }
    row
}

/// Recording, transcript file, call file.
fn files(house: &House, call: &CallRow) -> [PathBuf; 3] {
    let name = format!("call_{}_{}", call.call_sid, call.end_time.unwrap().as_millis())
        .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
    [
        call.recording.clone().unwrap(),
        format!("transcripts/{name}_transcript.json"),
        format!("calls/{name}.json"),
    ]
    .map(|file| house.folder.path().join(file))
}

fn there(house: &House, call: &CallRow) -> [bool; 3] {
    files(house, call).map(|f| f.exists())
}

#[tokio::test]
async fn an_admin_erases_a_call_and_nothing_of_it_is_left() {
    let house = House::new().await;
    let (call, other) = (ended(&house, 1, "secret").await, ended(&house, 1, "kept").await);
    let path = format!("/api/calls/{}", call.call_sid);
    let foreign = house.token(2, Role::Admin);
    let agent = house.token(1, Role::Agent);
    let admin = house.token(1, Role::Admin);
    assert_eq!(house.delete(&path, Some(&agent)).await.0, 403);
    assert_eq!(
        house.delete(&path, Some(&foreign)).await,
        house.delete("/api/calls/CAabsent", Some(&foreign)).await
    );
    assert_eq!(there(&house, &call), [true; 3]);

    let (status, erased) = house.delete(&path, Some(&admin)).await;
    assert_eq!(
        (status, &erased["data"]["erased"], &erased["data"]["finished"]),
        (200, &json!("all"), &json!(true))
    );
    assert_eq!(there(&house, &call), [false; 3]);
    for what in ["", "/messages", "/transcript", "/recording", "/analytics"] {
        assert_eq!(house.get(&format!("{path}{what}"), Some(&admin)).await.0, 404, "{what}");
    }
    assert_eq!(house.delete(&path, Some(&admin)).await.0, 404);
    let (_, found) = house.get("/api/calls/history?text=secret", Some(&admin)).await;
    assert_eq!(found["count"], 0);
    assert_eq!(there(&house, &other), [true; 3]);
    assert_eq!(house.get("/api/calls/history", Some(&admin)).await.1["count"], 1);
}

#[tokio::test]
async fn sound_and_words_are_erased_apart_and_the_call_stays_on_record() {
    let house = House::new().await;
    let call = ended(&house, 1, "secret").await;
    let (path, admin) = (format!("/api/calls/{}", call.call_id), house.token(1, Role::Admin));
    assert_eq!(house.delete(&format!("{path}/recording"), Some(&admin)).await.0, 200);
    assert_eq!(there(&house, &call), [false, true, true]);
    assert_eq!(house.get(&format!("{path}/recording"), Some(&admin)).await.0, 404);
    let (_, shown) = house.get(&path, Some(&admin)).await;
    assert_eq!(shown["data"]["has_recording"], false);
    assert!(shown["data"]["metadata"]["audio_erased_at"].is_string());
    assert_eq!(house.get(&format!("{path}/messages"), Some(&admin)).await.1["count"], 1);

    assert_eq!(house.delete(&format!("{path}/transcript"), Some(&admin)).await.0, 200);
    assert_eq!(there(&house, &call), [false; 3]);
    assert_eq!(house.get(&format!("{path}/messages"), Some(&admin)).await.1["count"], 0);
    let (_, figures) = house.get(&format!("{path}/analytics"), Some(&admin)).await;
    assert_eq!(
        (&figures["data"]["extracted"], &figures["data"]["cost"]["total"]),
        (&Value::Null, &json!(0.25))
    );
}

#[tokio::test]
async fn what_is_held_or_live_is_not_erased() {
    let house = House::new().await;
    let call = ended(&house, 1, "evidence").await;
    let (path, admin) = (format!("/api/calls/{}", call.call_id), house.token(1, Role::Admin));
    let (status, held) = house.post(&format!("{path}/hold"), Some(&admin), &json!({})).await;
    assert_eq!((status, &held["data"]["legal_hold"]), (200, &json!(true)));
    for what in ["", "/recording", "/transcript"] {
        let (status, refused) = house.delete(&format!("{path}{what}"), Some(&admin)).await;
        assert_eq!(status, 409, "{refused}");
    }
    assert_eq!(there(&house, &call), [true; 3]);
    assert_eq!(house.get(&path, Some(&admin)).await.1["data"]["legal_hold"], true);
    assert_eq!(house.delete(&format!("{path}/hold"), Some(&admin)).await.0, 200);
    assert_eq!(house.delete(&path, Some(&admin)).await.0, 200);

    house.ring("CAlive", 1).await;
    assert_eq!(house.delete("/api/calls/CAlive", Some(&admin)).await.0, 409);
}

#[tokio::test]
async fn a_tenants_retention_is_its_own() {
    let house = House::with("[retention]\naudio = \"90d\"").await;
    let (admin, other) = (house.token(1, Role::Admin), house.token(2, Role::Admin));
    let rule = async |token: &str| {
        let (_, rule) = house.get("/api/retention", Some(token)).await;
        let [audio, text, source] = ["audio", "text", "source"].map(|k| rule["data"][k].as_str().unwrap().to_owned());
        format!("{audio} {text} {source}")
    };
    assert_eq!(rule(&admin).await, "90d forever config");
    let (status, _) = house
        .put("/api/retention", Some(&admin), &json!({ "text": "30d" }))
        .await;
    assert_eq!(status, 200);
    assert_eq!(rule(&admin).await, "90d 30d tenant");
    assert_eq!(rule(&other).await, "90d forever config");
    for bad in [
        json!({ "text": "0s" }),
        json!({ "text": 30 }),
        json!({ "tenant_id": 2 }),
    ] {
        assert_eq!(house.put("/api/retention", Some(&admin), &bad).await.0, 422, "{bad}");
    }
    assert_eq!(house.delete("/api/retention", Some(&admin)).await.0, 200);
    assert_eq!(rule(&admin).await, "90d forever config");
}

/// The body and media type of an export.
async fn export(house: &House, query: &str, token: &str) -> (String, String) {
    let request = http::Request::get(format!("/api/calls/export?{query}"))
        .header("authorization", format!("Bearer {token}"))
        .body(String::new())
        .unwrap();
    let answer = house.request(request).await;
    assert_eq!(answer.status(), 200, "{}", answer.body());
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, answer.into_body())
}

#[tokio::test]
async fn the_history_is_exported_whole_and_a_tenants_own() {
    let house = House::new().await;
    let mut calls = Vec::new();
    // More than a page.
    for n in 0..230 {
        calls.push(ended(&house, 1, &format!("words {n}, \"quoted\"\nand more")).await);
    }
    ended(&house, 2, "of another tenant").await;
    let viewer = house.token(1, Role::Viewer);
    let (kind, lines) = export(&house, "format=jsonl&transcript=true", &viewer).await;
    assert_eq!(kind, "application/x-ndjson");
    let rows: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut ids: Vec<_> = rows.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    let mut known: Vec<_> = calls.iter().map(|c| c.call_id.to_string()).collect();
    ids.sort();
    known.sort();
    assert_eq!(ids, known);
    assert!(
        rows[0]["conversation"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("words ")
    );

    let (kind, csv) = export(
        &house,
        "number=%2B15559990000&transcript=true&text=words%20229",
        &viewer,
    )
    .await;
    assert!(kind.starts_with("text/csv"), "{kind}");
    let (head, row) = csv.split_once("\r\n").unwrap();
    assert!(
        head.starts_with("id,call_sid,") && head.ends_with(",transcript"),
        "{head}"
    );
    assert!(
        row.contains(",+15559990000,") && row.contains(",\"'=desk()\","),
        "{row}"
    );
    assert!(
        row.ends_with(",0.25,USD,\"customer: words 229, \"\"quoted\"\"\nand more\"\r\n"),
        "{row}"
    );
    let (_, none) = export(&house, "number=%2B1", &viewer).await;
    assert_eq!(none.lines().count(), 1, "a head alone: {none}");
    for bad in ["format=xls", "limit=5", "tenant_id=2"] {
        let (status, _) = house.get(&format!("/api/calls/export?{bad}"), Some(&viewer)).await;
        assert_eq!(status, 422, "{bad}");
    }
}

#[tokio::test]
async fn figures_are_summed_over_a_tenants_calls() {
    let house = House::new().await;
    for _ in 0..3 {
        ended(&house, 1, "hello").await;
    }
    ended(&house, 2, "hello").await;
    let viewer = house.token(1, Role::Viewer);
    let (status, shown) = house.get("/api/analytics", Some(&viewer)).await;
    assert_eq!(status, 200);
    let figures = &shown["data"];
    for (path, expected) in [
        ("/complete", json!(true)),
        ("/calls", json!(3)),
        ("/answered", json!(3)),
        ("/duration_s", json!(21)),
        ("/longest_s", json!(7)),
        ("/end_reasons", json!({ "completed": 3 })),
        ("/providers", json!({ "twilio": 3 })),
        ("/talk_ms", json!({ "customer": 4500, "agent": 7500 })),
        (
            "/latency_ms",
            json!({ "turns": 6, "median": 400, "p95": 900, "worst": 900 }),
        ),
        ("/cost", json!({ "USD": 0.75 })),
    ] {
        assert_eq!(figures.pointer(path), Some(&expected), "{path} in {figures}");
    }
    let (_, none) = house.get("/api/analytics?agent=nobody", Some(&viewer)).await;
    assert_eq!(none["data"]["calls"], 0);
}
