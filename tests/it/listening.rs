//! `/call-events` and `/frontend-audio`: what they tell, to whom, in which format.

use crate::{
    asyncapi,
    daemon::{Daemon, PATIENCE, place},
    house::House,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    audio::g711::ulaw_encode,
    hub::asyncapi::{CALL_EVENTS, FRONTEND_AUDIO},
};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(daemon: &Daemon, path: &str) -> Socket {
    connect_async(format!("ws://{}{path}", daemon.address)).await.unwrap().0
}

/// Waits until a ping is answered: the socket is subscribed by then. To be called while there is no news yet.
async fn subscribed(socket: &mut Socket) {
    socket.send(Message::Ping(Default::default())).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, socket.next()).await;
    assert!(matches!(&answer, Ok(Some(Ok(m))) if m.is_pong()), "{answer:?}");
}

/// Everything up to the message that `last` takes, each as JSON.
async fn until(socket: &mut Socket, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut seen = Vec::new();
    let read = async {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let address = if message.get("event").is_some() {
                FRONTEND_AUDIO
            } else {
                CALL_EVENTS
            };
            asyncapi::check(address, asyncapi::BY_DAEMON, &message);
            let is_last = last(&message);
            seen.push(message);
            if is_last {
                return true;
            }
        }
        false
    };
    let came = tokio::time::timeout(PATIENCE, read).await;
    assert_eq!(came, Ok(true), "after {seen:#?}");
    seen
}

/// The audio of one track, and whether its chunks count up by one and its time by 20 ms.
fn audio(messages: &[Value], track: &str) -> Vec<u8> {
    let media: Vec<_> = messages
        .iter()
        .filter(|m| m["event"] == "media" && m["media"]["track"] == track)
        .collect();
    let number = |m: &Value, name: &str| m["media"][name].as_str().unwrap().parse::<u64>().unwrap();
    for (n, pair) in media.windows(2).enumerate() {
        assert_eq!(number(pair[1], "chunk"), number(pair[0], "chunk") + 1, "{n}");
        assert!(number(pair[1], "timestamp") >= number(pair[0], "timestamp"), "{n}");
    }
    media
        .iter()
        .flat_map(|m| STANDARD.decode(m["media"]["payload"].as_str().unwrap()).unwrap())
        .collect()
}

fn holds(long: &[u8], piece: &[u8]) -> bool {
    long.windows(piece.len()).any(|w| w == piece)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_in_order_and_what_was_missed_is_told_again() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let mut events = connect(&daemon, "/call-events").await;
    subscribed(&mut events).await;
    let call = place(daemon.plan("+15551230301", vec![0; 1600], Duration::from_millis(100)));
    let told = until(&mut events, |e| e["type"] == "call.hangup").await;
    let sid = call.await.unwrap().unwrap().report.call_sid;
    let names: Vec<_> = told.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "call.initiated",
            "call.answered",
            "streaming.started",
            "streaming.stopped",
            "call.hangup"
        ]
    );
    for event in &told {
        assert_eq!(event["payload"]["call_control_id"], json!(sid));
        assert_eq!(event["payload"]["from"], "+15551230301");
        assert_eq!(event["payload"]["direction"], "incoming");
        assert!(event["occurred_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
    assert!(told[4]["payload"]["duration_seconds"].is_i64());

    let seen = told[1]["id"].as_str().unwrap();
    let mut again = connect(&daemon, &format!("/call-events?last_event_id={seen}")).await;
    let missed = until(&mut again, |e| e["type"] == "call.hangup").await;
    assert_eq!(missed, told[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_heard_in_the_format_of_each_listener() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let mut plain = connect(&daemon, "/frontend-audio?track=both").await;
    let mut native = connect(&daemon, "/frontend-audio?format=native").await;
    let mut wide = connect(&daemon, "/frontend-audio?format=L16&sample_rate=16000").await;
    for (socket, config) in [
        (&mut plain, json!({"format": "PCMU", "sampleRate": 8000, "channels": 1})),
        (
            &mut native,
            json!({"format": "native", "sampleRate": null, "channels": 1}),
        ),
        (&mut wide, json!({"format": "L16", "sampleRate": 16000, "channels": 1})),
    ] {
        let greeting = until(socket, |m| m["event"] == "connected").await;
        assert_eq!(greeting[0]["config"], config);
    }
    let mut samples = vec![0; 12_000];
    sidetone::audio::tone::Noise::new(7).white(-15.0, &mut samples);
    let mut codes = vec![0; samples.len()];
    ulaw_encode(&samples, &mut codes);
    let call = place(daemon.plan("+15551230302", samples, Duration::from_millis(300)));
    let is_stop = |m: &Value| m["event"] == "stop";
    let (plain, native, wide) = tokio::join!(
        until(&mut plain, is_stop),
        until(&mut native, is_stop),
        until(&mut wide, is_stop)
    );
    call.await.unwrap().unwrap();

    for (messages, format, rate) in [
        (&plain, "audio/PCMU", 8000),
        (&native, "audio/PCMU", 8000),
        (&wide, "audio/L16", 16_000),
    ] {
        assert_eq!(messages[0]["event"], "start");
        let start = &messages[0]["start"];
        assert_eq!(
            (&start["media_format"], &start["sample_rate"]),
            (&json!(format), &json!(rate))
        );
        assert!(messages.iter().all(|m| m["stream_id"] == messages[0]["stream_id"]));
    }
    // The middle of what the caller said, byte for byte; the echo of it on the other track.
    let middle = &codes[4000..8000];
    assert!(holds(&audio(&plain, "inbound"), middle));
    assert!(holds(&audio(&plain, "outbound"), middle));
    assert!(holds(&audio(&native, "inbound"), middle));
    assert!(audio(&native, "outbound").is_empty() && audio(&wide, "outbound").is_empty());
    let (narrow, wide) = (audio(&native, "inbound").len(), audio(&wide, "inbound").len());
    assert!(wide.abs_diff(narrow * 4) <= 4 * 480, "{wide} bytes beside {narrow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_hears_the_rest_and_a_port_of_its_own_serves_too() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let daemon = Daemon::start(&["--dev", "--agent", "echo"], "", &[("WS_FRONTEND_AUDIO_PORT", &port)]).await;
    let mut events = connect(&daemon, "/call-events").await;
    subscribed(&mut events).await;
    let call = place(daemon.plan("+15551230303", vec![5000; 16_000], Duration::from_millis(100)));
    let started = until(&mut events, |e| e["type"] == "streaming.started").await;
    let id = started[0]["payload"]["call_control_id"].as_str().unwrap();
    let url = format!("ws://127.0.0.1:{port}/frontend-audio?call_id={id}");
    let (mut late, _) = connect_async(url).await.unwrap();
    let heard = until(&mut late, |m| m["event"] == "stop").await;
    assert_eq!(
        (&heard[0]["event"], &heard[1]["event"]),
        (&json!("connected"), &json!("start"))
    );
    assert!(audio(&heard, "inbound").len() >= 4000);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn each_tenant_sees_its_own_calls_and_nobody_comes_in_without_a_token() {
    let house = House::new().await;
    let socket = async |path: &str, tenant| {
        let token = house.token(tenant, Role::Viewer);
        let path = format!("{path}token={token}");
        house.upgrade(&path, &[]).await
    };
    for path in ["/call-events", "/frontend-audio"] {
        assert_eq!(house.upgrade(path, &[]).await.unwrap_err().0, 401);
        let evil = house.upgrade(path, &[("origin", "https://evil.example")]).await;
        assert_eq!(evil.unwrap_err().0, 403);
    }
    let mut ours = socket("/call-events?", 1).await.unwrap();
    let mut theirs = socket("/call-events?", 2).await.unwrap();
    house.ring("CA1", 1).await;
    house.ring("CA2", 2).await;
    assert_eq!(ours.next().await["payload"]["call_control_id"], "CA1");
    assert_eq!(
        theirs.next().await["payload"]["call_control_id"],
        "CA2",
        "the other tenant's call was not seen"
    );
    for path in [
        "/call-events?call_id=CA1&",
        "/frontend-audio?call_id=CA1&",
        "/frontend-audio?call_id=CA404&",
    ] {
        let (code, before) = socket(path, 2).await.unwrap().closed().await;
        assert_eq!(
            (code, &before[0]["error"]["message"]),
            (4404, &json!("call not found")),
            "{path}"
        );
    }
    let foreign = json!({"type": "agent_message", "message": "x"});
    ours.ws.send(Message::text(foreign.to_string())).await.unwrap();
    assert_eq!(ours.next().await["error"]["code"], "invalid");
    ours.say(&json!({"type": "ping"})).await;
    assert_eq!(ours.next().await, json!({"type": "pong"}));
}
