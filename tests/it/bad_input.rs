//! Bad input at a daemon that checks everything: each gets the right answer or close code, and a call beside it is not harmed.

use crate::daemon::{Daemon, PATIENCE, place};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use serde_json::json;
use sidetone::{
    base::secret::Secret,
    sim::{
        announce::AnnounceError,
        caller::{CallError, Opening, Plan},
        report::Ended,
    },
    vendor::{Peer, PeerCall, VENDORS},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

const ACCOUNT_SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = r#"
[calls]
public_url = "http://{address}"
shed_when_late = "0s"

[[numbers]]
number = "+15550000001"
vendor = "twilio"
agent = "echo"

[[numbers]]
number = "+15550000002"
vendor = "twilio"
agent = "human"
tenant = 2

# Nobody listens at the base URL: nothing here may leave this machine.
[twilio]
account_sid = "AC00000000000000000000000000000000"
base_url = "http://127.0.0.1:9"
auth_token = "0123456789abcdef0123456789abcdef"

[[access.jwt]]
algorithm = "HS256"
secret = "a secret of this test and of nothing else, 48 B."

[media]
start_timeout = "1s"
"#;

fn peer() -> Box<dyn Peer> {
    (VENDORS[0].peer)(PeerCall {
        call_sid: "CA00000000000000000000000000000009".into(),
        token: None,
        from: "+15559990000".into(),
        to: "+15550000001".into(),
        ..PeerCall::default()
    })
}

/// A call that the daemon believes, to `to`.
fn signed(daemon: &Daemon, from: &str, to: &str, samples: Vec<i16>, linger: Duration) -> Plan {
    let mut plan = daemon.plan(from, samples, linger);
    plan.to = to.to_owned();
    if let Opening::Webhook(webhook) = &mut plan.opening {
        webhook.secret = Some(Secret::new(ACCOUNT_SECRET));
    }
    plan
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A media socket whose upgrade the vendor signed.
async fn media_socket(daemon: &Daemon, path_token: &str) -> Socket {
    let url = format!("ws://{}{}/{path_token}", daemon.address, VENDORS[0].stream_path);
    let signature = peer().sign_upgrade(&url, &Secret::new(ACCOUNT_SECRET));
    upgrade(&url, signature).await.unwrap()
}

async fn upgrade(url: &str, header: Option<(HeaderName, HeaderValue)>) -> Result<Socket, tungstenite::Error> {
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().extend(header.map(|(n, v)| (Some(n), v)));
    connect_async(request).await.map(|(socket, _)| socket)
}

/// The status with which an upgrade is refused.
async fn refusal(url: &str, header: Option<(HeaderName, HeaderValue)>) -> u16 {
    match upgrade(url, header).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Ok(_) => panic!("{url} was not refused"),
        Err(e) => panic!("{url}: {e}"),
    }
}

/// The close code that the daemon sends.
async fn close_code(socket: &mut Socket) -> u16 {
    let closed = async {
        while let Some(message) = socket.next().await {
            if let Ok(Message::Close(frame)) = message {
                return frame.map_or(1005, |f| f.code.into());
            }
        }
        1006
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("the socket is closed")
}

/// The first text message that `pick` takes.
async fn until(socket: &mut Socket, what: &str, pick: impl Fn(&str) -> bool) -> String {
    let seen = async {
        while let Some(message) = socket.next().await {
            match message {
                Ok(Message::Text(text)) if pick(&text) => return text.to_string(),
                Ok(Message::Close(frame)) => panic!("closed before {what} came: {frame:?}"),
                Ok(_) => {}
                Err(e) => panic!("broken before {what} came: {e}"),
            }
        }
        panic!("gone before {what} came");
    };
    match tokio::time::timeout(PATIENCE, seen).await {
        Ok(text) => text,
        Err(_) => panic!("{what} did not come"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_input_gets_its_answer_and_a_call_beside_it_is_not_harmed() {
    let daemon = Daemon::start(&[], CONFIG, &[]).await;
    let mut noise = vec![0; 8000 * 6];
    sidetone::audio::tone::Noise::new(11).white(-20.0, &mut noise);
    let beside = place(signed(
        &daemon,
        "+15551230100",
        "+15550000001",
        noise,
        Duration::from_millis(300),
    ));

    webhooks(&daemon).await;
    media_sockets(&daemon).await;
    // Whoever set the stream up wrongly finds it in the metrics, though no call was ever told.
    for reason in ["rules", "not_text", "too_large"] {
        let line = format!("sidetone_refused_total{{what=\"media_socket\",reason=\"{reason}\"}}");
        let counted = async {
            while !daemon.scrape().await.contains(&line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect(&line);
    }
    frontends(&daemon).await;

    let outcome = beside.await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
    let echo = outcome.report.echo.expect("the call beside it is an echo");
    assert_eq!(echo.changed, 0);
    assert!(echo.bytes >= 8000 * 5, "{echo:?}");
}

async fn webhooks(daemon: &Daemon) {
    let unsigned = place(daemon.plan("+15551230101", Vec::new(), Duration::ZERO))
        .await
        .unwrap();
    let error = unsigned.unwrap_err();
    assert!(
        matches!(error, CallError::Announce(AnnounceError::Refused(403, _))),
        "{error}"
    );

    let mut forged = signed(daemon, "+15551230102", "+15550000001", Vec::new(), Duration::ZERO);
    if let Opening::Webhook(webhook) = &mut forged.opening {
        webhook.secret = Some(Secret::new("another secret"));
    }
    let error = place(forged).await.unwrap().unwrap_err();
    assert!(
        matches!(error, CallError::Announce(AnnounceError::Refused(403, _))),
        "{error}"
    );
}

async fn media_sockets(daemon: &Daemon) {
    let path = format!("ws://{}{}/abc", daemon.address, VENDORS[0].stream_path);
    assert_eq!(refusal(&path, None).await, 403);

    // A token that nobody gave out.
    let mut socket = media_socket(daemon, "no-such-token").await;
    for message in peer().open() {
        socket.send(Message::text(message)).await.unwrap();
    }
    assert_eq!(close_code(&mut socket).await, 1008);

    // A stream of another account than ours.
    let mut foreign = signed(daemon, "+15551230104", "+15550000001", Vec::new(), PATIENCE);
    if let Opening::Webhook(webhook) = &mut foreign.opening {
        webhook.account = Some("AC00000000000000000000000000000009".to_owned());
    }
    let outcome = place(foreign).await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Daemon(1008), "{:?}", outcome.report);

    // No start at all.
    let mut socket = media_socket(daemon, "x").await;
    assert_eq!(close_code(&mut socket).await, 1008);

    // What is no JSON, three times.
    let mut socket = media_socket(daemon, "x").await;
    for bad in ["{", "[1,2", "\"media"] {
        socket.send(Message::text(bad)).await.unwrap();
    }
    assert_eq!(close_code(&mut socket).await, 1008);

    // Binary where text is due.
    let mut socket = media_socket(daemon, "x").await;
    socket.send(Message::binary(vec![0; 10])).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 1003);

    // A megabyte, of which the daemon need not take more than the header. It may close before all is sent.
    let mut socket = media_socket(daemon, "x").await;
    let sent = socket.send(Message::text("x".repeat(1 << 20))).await;
    let code = close_code(&mut socket).await;
    assert!(code == 1009 || sent.is_err() && code == 1006, "{code}");
}

async fn frontends(daemon: &Daemon) {
    let path = format!("ws://{}/api/ws/telephony/stream?client_type=telephony", daemon.address);
    assert_eq!(refusal(&path, None).await, 401);
    assert_eq!(refusal(&format!("{path}&token=abc"), None).await, 401);

    // Another tenant's call and one that never was are told alike.
    let foreign = place(signed(
        daemon,
        "+15551230103",
        "+15550000002",
        Vec::new(),
        Duration::from_secs(3),
    ));
    let (mine, theirs) = (daemon.token("1"), daemon.token("2"));
    let mut owner = upgrade(&format!("{path}&token={theirs}"), None).await.unwrap();
    let live = until(&mut owner, "the call", |m| {
        m.contains("+15551230103") && m.contains("in_progress")
    })
    .await;
    let live: serde_json::Value = serde_json::from_str(&live).unwrap();
    let id = live["call_id"].as_str().unwrap().to_owned();
    for call in [&id, "call_0"] {
        let mut socket = upgrade(&format!("{path}&token={mine}&call_id={call}"), None)
            .await
            .unwrap();
        let error = until(&mut socket, "the error", |m| m.contains("telephony_error")).await;
        assert!(error.contains("call not found"), "{error}");
        assert_eq!(close_code(&mut socket).await, 4404);
    }

    // The same in a message, and half a sample: an error is told and the socket lives.
    let mut socket = upgrade(&format!("{path}&token={mine}"), None).await.unwrap();
    for message in [
        json!({"type": "agent_message", "call_id": id, "message": "hello"}),
        json!({"type": "audio_data", "call_id": id, "encoding": "L16", "sample_rate": 8000, "audio_data": "AA=="}),
        json!({"type": "audio_data", "call_id": id, "audio_data": "A"}),
    ] {
        socket.send(Message::text(message.to_string())).await.unwrap();
        until(&mut socket, "the error", |m| m.contains("telephony_error")).await;
    }
    socket.send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
    until(&mut socket, "the pong", |m| m.contains("pong")).await;

    // Nobody answers at the vendor: the frontend is told, and the call lives on.
    let hang_up = json!({"type": "update_call_status", "call_id": id, "status": "ended"});
    owner.send(Message::text(hang_up.to_string())).await.unwrap();
    until(&mut owner, "the error", |m| m.contains("telephony_error")).await;
    let outcome = foreign.await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_say_nothing_take_no_more_than_their_share_of_sockets() {
    let config = format!("{CONFIG}\n[listen]\nmax_unauthenticated_sockets = 3\n");
    let daemon = Daemon::start(&[], &config, &[]).await;
    let token = daemon.token("1");
    let path = format!(
        "ws://{}/api/ws/telephony/stream?client_type=telephony&token={token}",
        daemon.address
    );
    let mut known = Vec::new();
    for _ in 0..5 {
        known.push(upgrade(&path, None).await.unwrap());
    }
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(daemon.address).await.unwrap());
    }
    // The oldest of them makes way for who comes next, with a credential or a call.
    known.push(upgrade(&path, None).await.unwrap());
    ended(&mut silent[0]).await;
    silent.push(TcpStream::connect(daemon.address).await.unwrap());
    let call = signed(
        &daemon,
        "+15551230107",
        "+15550000001",
        Vec::new(),
        Duration::from_millis(300),
    );
    let outcome = place(call).await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
    ended(&mut silent[1]).await;
    known[0].send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
    until(&mut known[0], "the pong", |m| m.contains("pong")).await;
}

/// Reads until the daemon has closed the connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // Closed in order, or reset: either way it is over.
    drop(read.expect("the daemon closes it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_no_more_than_its_share_and_the_greediest_makes_way() {
    let more =
        "\n[listen]\nmax_unauthenticated_sockets = 4\nmax_sockets_per_address = 2\n[http]\nheader_timeout = \"60s\"\n";
    let daemon = Daemon::start(&[], &format!("{CONFIG}{more}"), &[]).await;
    let from = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, last], 0).into()).unwrap();
        socket.connect(daemon.address).await.unwrap()
    };
    let mut greedy = [from(1).await, from(1).await];
    let mut third = from(1).await;
    let mut told = String::new();
    let _ = third.read_to_string(&mut told).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 503 "), "{told}");
    let mut others = [from(2).await, from(3).await];
    let mut again = Vec::new();
    // All room is taken. Whoever comes gets in, at the cost of the address with the most.
    let ([first, second], [third, _]) = (&mut greedy, &mut others);
    for (last, evicted) in [(4, first), (5, second), (6, third)] {
        let mut newcomer = from(last).await;
        newcomer
            .write_all(b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, newcomer.read_to_string(&mut answer)).await;
        read.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{last}: {answer}");
        ended(evicted).await;
        // The place that it leaves is taken again.
        again.push(from(last).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn media_sockets_that_prove_nothing_shut_no_call_out() {
    let more = "\n[listen]\nmax_sockets = 30\nmax_unauthenticated_sockets = 5\n";
    let daemon = Daemon::start(&[], &format!("{CONFIG}{more}"), &[]).await;
    for n in 0..40 {
        let path = ["/audio-stream", "/media-stream", "/ws"][n % 3];
        assert_eq!(
            refusal(&format!("ws://{}{path}", daemon.address), None).await,
            404,
            "{path}"
        );
    }
    let call = signed(
        &daemon,
        "+15551230106",
        "+15550000001",
        Vec::new(),
        Duration::from_millis(300),
    );
    let outcome = place(call).await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);

    // Of a vendor whose requests are believed as they come, no more than those who may be strangers, the last who came.
    let patient = CONFIG.replace("start_timeout = \"1s\"", "start_timeout = \"60s\"");
    let daemon = Daemon::start(&[], &format!("{patient}{more}\n[telnyx]\ninsecure = true\n"), &[]).await;
    let mut taken = Vec::new();
    for _ in 0..10 {
        let socket = upgrade(&format!("ws://{}/audio-stream", daemon.address), None).await;
        taken.push(socket.expect("there is room for a newcomer"));
    }
    for socket in &mut taken[..5] {
        let over = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(PATIENCE, over).await.expect("it made way");
    }
    let call = signed(
        &daemon,
        "+15551230108",
        "+15550000001",
        Vec::new(),
        Duration::from_millis(300),
    );
    let outcome = place(call).await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_call_gets_in_where_signatures_are_checked() {
    let shared_key = "[[twilio.shared_keys]]\nid = \"k1\"\nsecret = \"another secret\"\n";
    for more in ["", shared_key] {
        let account = CONFIG.replace(
            "AC00000000000000000000000000000000",
            "AC00000000000000000000000000000007",
        );
        let daemon = Daemon::start(&[], &format!("{account}\n{more}"), &[]).await;
        let token = daemon.token("1");
        let path = format!("ws://{}/api/ws/telephony/stream?client_type=telephony", daemon.address);
        let mut frontend = upgrade(&format!("{path}&token={token}"), None).await.unwrap();
        let call = json!({"from": "+15551230105"});
        let reply = daemon.post_as(&token, "/api/calls/simulate", &call).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        until(&mut frontend, "the stream", |m| {
            m.contains("+15551230105") && m.contains("in_progress")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_audio_is_dropped_and_the_call_goes_on() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let mut peer = peer();
    let url = format!("ws://{}{}", daemon.address, VENDORS[0].stream_path);
    let mut socket = upgrade(&url, None).await.unwrap();
    for message in peer.open() {
        socket.send(Message::text(message)).await.unwrap();
    }
    let mut good = String::new();
    peer.media(&[0x42; 160], 0, &mut good);
    let payload = good
        .split("\"payload\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    for bad in ["%%%%", "QUJD=", "A"] {
        socket.send(Message::text(good.replace(&payload, bad))).await.unwrap();
    }
    // Frames sent now come back: the leg lives.
    let echo = async {
        loop {
            let mut frame = String::new();
            peer.media(&[0x42; 160], 20, &mut frame);
            socket.send(Message::text(frame)).await.unwrap();
            match socket.next().await.unwrap().unwrap() {
                Message::Text(text) if text.contains(&payload) => return,
                Message::Close(frame) => panic!("{frame:?}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, echo).await.expect("the echo goes on");
}
