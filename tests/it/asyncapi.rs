//! The description of the frontends' sockets, held to what really passes over them: [`check`] looks at each message of every
//! test, strictly, so that a field that is not described is noticed.

use crate::{
    daemon::{Daemon, place},
    house::{Frontend, House},
};
use jsonschema::Validator;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::{
        ids::{MessageId, TenantId},
        time::Wall,
    },
    bus::{Event, News},
    http::routes::Gate,
    hub::asyncapi,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Where the description is kept for those who read it without a daemon.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.json");

static DESCRIBED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&std::fs::read_to_string(KEPT).unwrap()).unwrap());

/// What validates each message, by address and key.
static VALIDATORS: LazyLock<BTreeMap<(String, String), Validator>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    for channel in DESCRIBED["channels"].as_object().unwrap().values() {
        for (key, message) in channel["messages"].as_object().unwrap() {
            let mut schema = message["payload"].clone();
            close(&mut schema);
            let address = channel["address"].as_str().unwrap().to_owned();
            all.insert((address, key.clone()), jsonschema::draft7::new(&schema).unwrap());
        }
    }
    all
});

/// Who says a message, in the words of the description.
pub(crate) const BY_CLIENT: &str = "receive";
pub(crate) const BY_DAEMON: &str = "send";

/// Panics where a message on the socket of `address` is not as described. Returns its key.
pub(crate) fn check(address: &str, by: &str, message: &Value) -> String {
    let kind = message["type"]
        .as_str()
        .or(message["event"].as_str())
        .unwrap_or_default();
    let key = format!("{by}.{kind}");
    let validator = VALIDATORS.get(&(address.to_owned(), key.clone()));
    let validator = validator.unwrap_or_else(|| panic!("{address} {key} is not described: {message}"));
    let faults: Vec<_> = validator
        .iter_errors(message)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{address} {key} {message}\nagainst its description: {faults:#?}"
    );
    key
}

/// Lets objects have no members but those described.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Every message of a socket, as `receive.name` and `send.name`.
fn described(address: &str) -> BTreeSet<String> {
    let of = VALIDATORS.keys().filter(|(of, _)| of == address);
    of.map(|(_, key)| key.clone()).collect()
}

#[test]
fn the_kept_description_is_that_of_the_code() {
    let made = serde_json::to_string_pretty(&asyncapi::document()).unwrap() + "\n";
    if std::env::var_os("SIDETONE_UPDATE").is_some() {
        std::fs::write(KEPT, &made).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(
        kept == made,
        "docs/asyncapi.json is out of date: run this test with SIDETONE_UPDATE=1"
    );
}

#[tokio::test]
async fn the_description_is_served_with_the_servers_address_and_names_every_socket_of_frontends() {
    let house = House::new().await;
    let (status, mut served) = house.get("/api/asyncapi.json", None).await;
    assert_eq!(status, 200);
    let servers = served.as_object_mut().unwrap().remove("servers");
    assert_eq!(
        servers,
        Some(json!({"daemon": {"host": "relay.test", "protocol": "ws"}}))
    );
    assert_eq!(served, *DESCRIBED);
    let channels = served["channels"].as_object().unwrap().values();
    let addresses: BTreeSet<_> = channels.map(|c| c["address"].as_str().unwrap()).collect();
    let sockets = house.routes.iter().filter(|(_, _, gate)| *gate == Gate::Frontend);
    assert_eq!(addresses, sockets.map(|(_, path, _)| path.as_str()).collect());
}

#[test]
fn references_lead_somewhere_and_each_message_has_a_sentence() {
    let mut found = 0;
    let mut look = vec![&*DESCRIBED];
    while let Some(value) = look.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(DESCRIBED.pointer(pointer).is_some(), "{reference} leads nowhere");
                    found += 1;
                }
                if members.contains_key("payload") && members.contains_key("name") {
                    assert!(
                        members["summary"].as_str().is_some_and(|s| !s.is_empty()),
                        "{members:?}"
                    );
                }
                look.extend(members.values());
            }
            Value::Array(items) => look.extend(items),
            _ => {}
        }
    }
    assert!(found > 40, "{found}");
}

#[test]
#[should_panic(expected = "against its description")]
fn a_field_that_is_not_described_is_noticed() {
    check(asyncapi::TELEPHONY, BY_DAEMON, &json!({"type": "pong", "more": 1}));
}

fn told(news: News) -> Arc<Event> {
    Arc::new(Event {
        tenant: TenantId(1),
        call: "call_1".parse().unwrap(),
        id: None,
        at: Wall::now(),
        news,
    })
}

fn status(status: &'static str) -> News {
    News::Status {
        status,
        end_reason: (status == "ended").then_some("completed"),
        customer_number: "+15559990000".into(),
        organization_number: "+15550100001".into(),
        call_sid: "CA1".into(),
        inbound: true,
        duration: (status == "ended").then_some(3),
    }
}

fn words(text: String, is_final: bool) -> News {
    News::Transcript {
        text,
        sender: "customer",
        is_final,
        confidence: Some(0.5),
        detected_language: None,
        message_id: is_final.then(MessageId::new),
    }
}

fn fault(of_stream: bool) -> News {
    News::Fault {
        code: "TTS_ERROR",
        vendor: None,
        message: "no voice".into(),
        message_id: Some(MessageId::new()),
        of_stream,
    }
}

/// Everything that can happen to a call, but for its first status.
fn happenings() -> Vec<Arc<Event>> {
    let speech = News::TtsAudio {
        message_id: MessageId::new(),
        message: "words".into(),
        audio: vec![0x55; 160].into(),
        seq: 0,
        last: true,
    };
    let cut = News::MessageStatus {
        message_id: MessageId::new(),
        client_ref: None,
        status: "cut",
        heard_ms: 250,
        message: "words".into(),
    };
    let all = [
        words("hel".into(), false),
        speech,
        fault(false),
        fault(true),
        status("answered"),
        status("in_progress"),
        words("hello".into(), true),
        cut,
        News::Dtmf('5'),
        News::Handoff { agent: "human".into() },
        status("ended"),
    ];
    all.map(told).into()
}

/// A socket whose buffers hold little.
async fn narrow(house: &House, path: &str, role: Role) -> Frontend {
    Frontend::narrow(house.address, &format!("{path}token={}", house.token(1, role))).await
}

/// A hub that queues little.
const NARROW: &str = "[frontends]\nqueue_bytes = 65536\nwrite_stall = \"60s\"";

#[tokio::test]
async fn every_message_of_the_telephony_socket_is_as_described() {
    let house = House::with(NARROW).await;
    let mut frontend = narrow(&house, "/api/ws/telephony/stream?", Role::Agent).await;
    let at = "2026-01-31T12:00:00Z";
    frontend
        .say(&json!({"type": "init_telephony_stream", "language": "auto", "model": "nova-2", "client_type": "telephony", "timestamp": at}))
        .await;
    frontend.next_of("telephony_connected").await;
    house.ring("CA1", 1).await;
    let call = frontend.next_of("call_status_update").await["call_id"].clone();
    frontend
        .say(&json!({"type": "agent_message", "call_id": call, "message": "Hello", "language": "en", "client_ref": "r", "timestamp": at}))
        .await;
    frontend.next_of("agent_message_status").await;
    frontend
        .say(&json!({"type": "audio_data", "call_id": "CA404", "audio_data": "//8A", "sample_rate": 8000, "encoding": "MULAW", "timestamp": at}))
        .await;
    frontend.next_of("telephony_error").await;
    frontend
        .say(&json!({"type": "refresh_token", "token": house.token(1, Role::Agent)}))
        .await;
    frontend.next_of("token_refreshed").await;
    for event in happenings() {
        house.bus.publish(event);
    }
    frontend.next_of("call_handoff").await;
    // More speech than fits on its way to one who does not read.
    for _ in 0..2000 {
        let speech = News::TtsAudio {
            message_id: MessageId::new(),
            message: "words".into(),
            audio: vec![0x55; 1600].into(),
            seq: 0,
            last: false,
        };
        house.bus.publish(told(speech));
        tokio::task::yield_now().await;
    }
    frontend
        .say(&json!({"type": "update_call_status", "call_id": call, "status": "ended", "timestamp": at}))
        .await;
    frontend.next_of("gap").await;
    frontend.say(&json!({"type": "ping"})).await;
    frontend.next_of("pong").await;
    assert_eq!(frontend.seen, described(asyncapi::TELEPHONY));
}

#[tokio::test]
async fn every_message_of_the_event_socket_is_as_described() {
    let house = House::with(NARROW).await;
    let mut frontend = narrow(&house, "/call-events?", Role::Viewer).await;
    frontend.say(&json!({"type": "ping"})).await;
    frontend.next_of("pong").await;
    house.bus.publish(told(status("incoming")));
    for event in happenings() {
        house.bus.publish(event);
    }
    frontend.next_of("call.hangup").await;
    frontend.say(&json!({"type": "refresh_token", "token": "a.b.c"})).await;
    frontend.next_of("error").await;
    frontend
        .say(&json!({"type": "refresh_token", "token": house.token(1, Role::Viewer)}))
        .await;
    frontend.next_of("token_refreshed").await;
    // More words than fit on their way to one who does not read.
    house.bus.publish(told(status("incoming")));
    for n in 0..2000 {
        house
            .bus
            .publish(told(words(format!("{n} {}", "x".repeat(2000)), false)));
        tokio::task::yield_now().await;
    }
    frontend.next_of("gap").await;
    assert_eq!(frontend.seen, described(asyncapi::CALL_EVENTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_the_audio_socket_is_as_described() {
    let house = House::new().await;
    let mut frontend = narrow(&house, "/frontend-audio?", Role::Viewer).await;
    frontend.next_of("connected").await;
    frontend.say(&json!({"event": "ping"})).await;
    frontend.next_of("pong").await;
    frontend.say(&json!({"event": "refresh_token", "token": "a.b.c"})).await;
    frontend.next_of("error").await;
    frontend
        .say(&json!({"event": "refresh_token", "token": house.token(1, Role::Viewer)}))
        .await;
    frontend.next_of("token_refreshed").await;
    let mut seen = frontend.seen;

    let daemon = Daemon::start(&["--dev", "--agent", "echo"], NARROW, &[]).await;
    let path = "/frontend-audio?track=both&format=L16&sample_rate=48000";
    let mut slow = Frontend::narrow(daemon.address, path).await;
    slow.next_of("connected").await;
    // Four seconds of audio are a megabyte for one who does not read.
    let call = place(daemon.plan("+15551230304", vec![5000; 32_000], Duration::from_millis(100)));
    call.await.unwrap().unwrap();
    slow.next_of("gap").await;
    slow.next_of("stop").await;
    let mut native = Frontend::narrow(daemon.address, "/frontend-audio?track=both&format=native").await;
    native.next_of("connected").await;
    let call = place(daemon.plan("+15551230305", vec![5000; 800], Duration::from_millis(100)));
    native.next_of("stop").await;
    call.await.unwrap().unwrap();
    seen.extend(slow.seen);
    assert_eq!(seen, described(asyncapi::FRONTEND_AUDIO));
}
