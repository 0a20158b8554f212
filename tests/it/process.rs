//! The daemon as a process: whole calls with real engines, kills, drains, readiness, and what operators and vendors see of it.

use crate::daemon::{Daemon, PATIENCE, place, sidetone, speech};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sidetone::{base::time::Mono, sim::report::Ended};
use std::{os::unix::net::UnixDatagram, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_tungstenite::{connect_async, tungstenite};

const DESK: &str = include_str!("../../config/examples/demo.toml");

/// Phrases of the front desk, each with its reply.
const PHRASES: [(&str, &str); 8] = [
    ("what are your opening hours", "We are open from nine to five."),
    ("where can I find you", "Twelve Harbour Street, by the bridge."),
    ("I would like to book an appointment", "Tuesday at ten is free."),
    ("please cancel my appointment", "It is cancelled."),
    ("how much do you charge for a visit", "Forty euros for half an hour."),
    ("is there parking for customers", "Yes, behind the building."),
    ("tell me about your prices please", "The price list is on our web site."),
    ("did my package arrive this morning", "It is waiting for you."),
];

fn texts(lines: &Value) -> Vec<String> {
    lines
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["text"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs `sidetone simulate` as a person would and returns its report.
async fn simulate(daemon: &Daemon, wav: &str, save: &str, more: &[&str]) -> Value {
    let mut command = tokio::process::Command::from(sidetone());
    command
        .args(["simulate", "--json", "--url", &format!("ws://{}", daemon.address)])
        .args(["--wav", wav, "--save", save])
        .args(more)
        .current_dir(daemon.folder());
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}\n{}", output.status, daemon.log());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

fn write_wav(daemon: &Daemon, name: &str, samples: Vec<i16>) {
    let wav = sidetone::audio::wav::Wav {
        rate: 8000,
        channels: 1,
        samples,
    };
    std::fs::write(daemon.folder().join(name), wav.to_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn spoken_phrases_are_recognised_answered_and_recorded() {
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], DESK, &[]).await;
    let spoken = [PHRASES[4], PHRASES[0], PHRASES[5]];
    let text = spoken.map(|(p, _)| p).join(" <break time='1500ms'/> ");
    write_wav(&daemon, "in.wav", speech(daemon.folder(), &text));
    let report = simulate(&daemon, "in.wav", "heard.wav", &["--polite", "--linger", "1s"]).await;

    assert_eq!(
        texts(&report["transcripts"]),
        spoken.map(|(p, _)| p.to_owned()),
        "{report:#}"
    );
    let replies = texts(&report["replies"]);
    assert_eq!(
        replies[replies.len() - 3..],
        spoken.map(|(_, r)| r.to_owned()),
        "{report:#}"
    );
    assert_eq!(report["refused"], json!([]), "{report:#}");

    let rows: Vec<(String, String)> = daemon
        .database()
        .prepare("select sender_type, content from phone_call_messages where sender_type = 'customer' order by rowid")
        .unwrap()
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(
        rows.iter().map(|(_, c)| c.clone()).collect::<Vec<_>>(),
        spoken.map(|(p, _)| p.to_owned())
    );

    // What the caller heard is intelligible: an agent that expects the replies recognises them in it.
    let mut listener = "[agents.listener]\nkind = \"scripted\"\nbarge_in_after = \"0s\"\n".to_owned();
    for (_, reply) in PHRASES {
        listener += &format!(
            "[[agents.listener.rules]]\nphrases = [\"{}\"]\nreply = \"\"\naction = \"digits:1\"\n",
            reply.trim_end_matches('.')
        );
    }
    let second = Daemon::start(&["--dev", "--agent", "listener"], &listener, &[]).await;
    std::fs::copy(daemon.folder().join("heard.wav"), second.folder().join("heard.wav")).unwrap();
    let back = simulate(&second, "heard.wav", "nothing.wav", &[]).await;
    let heard = texts(&back["transcripts"]).join(" ");
    for (_, reply) in spoken {
        let words = reply.trim_end_matches('.');
        assert!(heard.contains(words), "{words:?} is not in {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_noise_and_foreign_speech_are_not_taken_for_phrases() {
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], DESK, &[]).await;
    let mut noise = vec![0; 8000 * 4];
    sidetone::audio::tone::Noise::new(3).pink(-40.0, &mut noise);
    write_wav(&daemon, "noise.wav", noise);
    write_wav(&daemon, "silence.wav", vec![0; 8000 * 4]);
    let foreign = [
        "the quick brown fox jumps over the lazy dog",
        "yesterday it rained all afternoon in the mountains",
        "my brother repairs old bicycles in his garage",
        "seven yellow birds sat on a wooden fence",
        "she wrote a long letter to her grandmother",
        "the train to the north leaves from platform three",
        "nobody knows why the river changed its colour",
        "fresh bread tastes best with salted butter",
    ];
    let text = foreign.join(" <break time='1500ms'/> ");
    write_wav(&daemon, "foreign.wav", speech(daemon.folder(), &text));
    let (noise, silence, foreign) = tokio::join!(
        simulate(&daemon, "noise.wav", "a.wav", &[]),
        simulate(&daemon, "silence.wav", "b.wav", &[]),
        simulate(&daemon, "foreign.wav", "c.wav", &["--polite", "--linger", "1s"]),
    );
    let known = |report: &Value| {
        let replies = texts(&report["replies"]);
        replies
            .iter()
            .filter(|r| PHRASES.iter().any(|(_, reply)| reply == r))
            .count()
    };
    assert_eq!((known(&noise), texts(&noise["transcripts"]).len()), (0, 0), "{noise:#}");
    assert_eq!(
        (known(&silence), texts(&silence["transcripts"]).len()),
        (0, 0),
        "{silence:#}"
    );
    assert!(known(&foreign) <= 2, "{foreign:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_types_and_the_caller_hears_it() {
    let daemon = Daemon::dev(&["--agent", "human"]).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15551230001", vec![0; 8000], Duration::from_millis(1500)));
    let id = frontend.call_from("+15551230001", "in_progress").await;
    frontend
        .send(&json!({"type": "agent_message", "call_id": id, "message": "Your table is ready.", "client_ref": "r1"}))
        .await;
    // Speech does not wait for the disk: it may be told before the words are stored, and neither after they were heard.
    let (mut stored, mut audio) = (None, None);
    let heard = loop {
        let message = frontend.next().await.expect("the socket stays open");
        match (message["type"].as_str(), message["status"].as_str()) {
            (Some("agent_message_status"), Some("stored")) => stored = Some(message),
            (Some("agent_message_status"), Some("heard")) => break message,
            (Some("agent_tts_audio"), _) if message["last"] == true => audio = Some(message),
            _ => {}
        }
    };
    let (stored, audio) = (stored.expect("stored"), audio.expect("spoken"));
    assert_eq!(
        (&audio["message"], &audio["call_id"]),
        (&json!("Your table is ready."), &json!(id))
    );
    assert_eq!(
        (&heard["message_id"], &stored["client_ref"]),
        (&stored["message_id"], &json!("r1"))
    );
    assert!(heard["heard_ms"].as_u64().unwrap() > 500, "{heard}");

    let outcome = call.await.unwrap().unwrap();
    frontend.until("call_status_update", |m| m["status"] == "ended").await;
    let loud = outcome.heard.iter().filter(|s| s.unsigned_abs() > 500).count();
    assert!(loud > 2000, "{loud} loud samples were heard");
    let (sender, content): (String, String) = daemon
        .database()
        .query_row(
            "select sender_type, content from phone_call_messages where sender_type = 'agent'",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .unwrap();
    assert_eq!((sender.as_str(), content.as_str()), ("agent", "Your table is ready."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_calls_and_lets_live_ones_finish() {
    let mut daemon = Daemon::dev(&["--agent", "echo"]).await;
    let mut frontend = daemon.frontend().await;
    let mut speech = vec![0; 8000 * 3];
    sidetone::audio::tone::Noise::new(5).white(-20.0, &mut speech);
    let live = place(daemon.plan("+15551230002", speech, Duration::from_millis(200)));
    frontend.call_from("+15551230002", "in_progress").await;
    daemon.terminate();

    let deadline = Mono::now() + PATIENCE;
    while daemon.get("/ready").await.is_some_and(|r| r.status == 200) {
        assert!(Mono::now() < deadline, "still ready after SIGTERM");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = place(daemon.plan("+15551230003", Vec::new(), Duration::ZERO))
        .await
        .unwrap();
    assert!(refused.is_err(), "a new call was taken while draining");

    for path in ["/api/ws/telephony/stream?client_type=telephony", "/audio-stream"] {
        let url = format!("ws://{}{path}", daemon.address);
        let Err(tungstenite::Error::Http(response)) = connect_async(url).await else {
            panic!("{path} was taken while draining");
        };
        assert_eq!(response.status(), 503, "{path}");
        assert!(response.headers().contains_key("retry-after"), "{path}");
    }

    let outcome = live.await.unwrap().unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
    assert_eq!(outcome.report.echo.unwrap().changed, 0);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    let reason: String = daemon
        .database()
        .query_row(
            "select end_reason from phone_calls where customer_number = '+15551230002'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(reason, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_readiness_life_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut daemon = Daemon::start(&["--dev", "--agent", "echo"], "", &environment).await;
    let until = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let n = socket
                .recv(&mut buffer)
                .unwrap_or_else(|e| panic!("{word} did not come: {e}"));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|l| l == word) {
                return;
            }
        }
    };
    until("READY=1");
    until("WATCHDOG=1");
    until("WATCHDOG=1");
    daemon.terminate();
    until("STOPPING=1");
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_of_calls_and_frames() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let outcome = place(daemon.plan("+15551230004", vec![0; 8000], Duration::ZERO))
        .await
        .unwrap()
        .unwrap();
    let deadline = Mono::now() + PATIENCE;
    let value = |page: &str, name: &str| -> f64 {
        let lines = page.lines().filter(|l| l.starts_with(name));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    loop {
        let page = daemon.scrape().await;
        let frames = value(&page, "sidetone_frames_in_total");
        if value(&page, "sidetone_calls_ended_total") >= 1.0 && frames >= outcome.report.frames_sent as f64 {
            assert!(value(&page, "sidetone_calls_total") >= 1.0, "{page}");
            assert!(value(&page, "sidetone_hook_seconds_count") >= 1.0, "{page}");
            assert!(!page.contains("15551230004"), "a number is in the labels");
            return;
        }
        assert!(Mono::now() < deadline, "{page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontends_microphone_is_heard_by_the_caller_and_recognised() {
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], DESK, &[]).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15551230005", Vec::new(), Duration::from_secs(15)));
    let id = frontend.call_from("+15551230005", "in_progress").await;
    let samples = speech(daemon.folder(), &format!("{} <break time='800ms'/>", PHRASES[0].0));
    // As a microphone gives it: a piece of 100 ms every 100 ms, to the caller and to the recogniser.
    let pieces: Vec<_> = samples.chunks(800).collect();
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    for (n, piece) in pieces.iter().enumerate() {
        clock.tick().await;
        let bytes: Vec<u8> = piece.iter().flat_map(|s| s.to_le_bytes()).collect();
        for target in ["caller", "stt"] {
            let message = json!({
                "type": "audio_data", "call_id": id, "audio_data": STANDARD.encode(&bytes), "sample_rate": 8000,
                "encoding": "L16", "target": target, "last": n + 1 == pieces.len(),
            });
            frontend.send(&message).await;
        }
    }
    let transcript = frontend
        .until("customer_transcript", |m| {
            m["is_final"] == true && m["sender"] == "agent"
        })
        .await;
    // On a call with a leg the microphone is free speech, at which the offline engine is poor: some words, not which.
    assert!(!transcript["transcript"].as_str().unwrap().is_empty(), "{transcript}");
    frontend
        .send(&json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
        .await;
    let ended = frontend.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(ended["call_id"], json!(id));
    let outcome = call.await.unwrap().unwrap();
    assert!(matches!(outcome.report.ended, Ended::Daemon(_)), "{:?}", outcome.report);
    let loud = outcome.heard.iter().filter(|s| s.unsigned_abs() > 500).count();
    assert!(loud > 3000, "{loud} loud samples were heard");
}

/// A vendor's REST API of one answer; tells what it was asked.
async fn vendor_api() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tx, rx) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 16_384];
            let mut have = 0;
            while let Ok(n @ 1..) = socket.read(&mut request[have..]).await {
                have += n;
                let text = String::from_utf8_lossy(&request[..have]).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    let _ = tx.send(text);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{\"sid\":\"CA9\"}";
                    let _ = socket.write_all(answer).await;
                    break;
                }
            }
        }
    });
    (url, rx)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_is_heard_while_its_vendor_does_not_answer() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[twilio]\naccount_sid = \"AC00000000000000000000000000000001\"\nauth_token = \"0123456789abcdef0123456789abcdef\"\n\
         base_url = \"http://{}\"\n[frontends]\nping_every = \"100ms\"\npong_timeout = \"500ms\"\n",
        mute.local_addr().unwrap()
    );
    let daemon = Daemon::start(&["--dev", "--agent", "human"], &config, &[]).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15551230016", Vec::new(), Duration::from_secs(30)));
    let id = frontend.call_from("+15551230016", "in_progress").await;
    frontend
        .send(&json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
        .await;
    // The vendor was asked, and says nothing from now on.
    let (_asked, _) = tokio::time::timeout(PATIENCE, mute.accept()).await.unwrap().unwrap();
    for _ in 0..3 {
        frontend.send(&json!({"type": "ping"})).await;
        frontend.until("pong", |_| true).await;
    }
    // It outlives many pings, and is told how its wish ended.
    frontend.until("telephony_error", |m| m["call_id"] == id).await;
    call.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_call_tells_the_vendor() {
    let (url, mut asked) = vendor_api().await;
    let config = format!(
        "[twilio]\naccount_sid = \"AC00000000000000000000000000000001\"\nauth_token = \"0123456789abcdef0123456789abcdef\"\nbase_url = \"{url}\"\n"
    );
    let daemon = Daemon::start(&["--dev", "--agent", "human"], &config, &[]).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15551230006", Vec::new(), Duration::from_secs(30)));
    let id = frontend.call_from("+15551230006", "in_progress").await;
    frontend
        .send(&json!({"type": "update_call_status", "call_id": id, "status": "ended"}))
        .await;
    let request = tokio::time::timeout(PATIENCE, asked.recv())
        .await
        .expect("the vendor is told")
        .unwrap();
    assert!(
        request.starts_with("POST /2010-04-01/Accounts/AC00000000000000000000000000000001/Calls/"),
        "{request}"
    );
    assert!(request.ends_with("Status=completed"), "{request}");
    frontend.until("call_status_update", |m| m["status"] == "ended").await;
    let outcome = call.await.unwrap().unwrap();
    assert!(matches!(outcome.report.ended, Ended::Daemon(_)), "{:?}", outcome.report);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_language_a_frontend_asks_for_reaches_the_ear_of_its_call() {
    let config = "[agents.tones]\nkind = \"listen\"\nlanguage = \"en\"\nstt = \"fake\"\n";
    let daemon = Daemon::start(&["--dev", "--agent", "tones"], config, &[]).await;
    let mut frontend = daemon.frontend().await;
    // A tone every quarter of a second, as long as it takes.
    let tones: Vec<i16> = (0..80)
        .flat_map(|_| sidetone::speech::stt::fake::phrase(0, 130, 8000))
        .collect();
    let call = place(daemon.plan("+15551230008", tones, Duration::ZERO));
    let id = frontend.call_from("+15551230008", "in_progress").await;
    let init = |language: &str| json!({"type": "init_telephony_stream", "call_id": id, "language": language});
    let heard_in = |language: &'static str| move |m: &Value| m["detected_language"] == language;
    frontend.until("customer_transcript", heard_in("en")).await;
    frontend.send(&init("es")).await;
    frontend.until("customer_transcript", heard_in("es")).await;
    frontend.send(&init("xx")).await;
    frontend
        .until("telephony_error", |m| m["error_code"] == "STT_ERROR")
        .await;
    frontend.until("customer_transcript", heard_in("es")).await;
    call.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_call_rings_talks_and_is_in_the_history() {
    let daemon = Daemon::start(&["--dev", "--agent", "desk"], DESK, &[]).await;
    let mut frontend = daemon.frontend().await;
    let reply = daemon
        .post(
            "/api/calls/simulate",
            &json!({"from": "+15551230007", "text": PHRASES[5].0}),
        )
        .await;
    assert!(
        (200..300).contains(&reply.status),
        "{}",
        String::from_utf8_lossy(&reply.body)
    );
    let id = frontend.call_from("+15551230007", "in_progress").await;
    let transcript = frontend
        .until("customer_transcript", |m| {
            m["is_final"] == true && m["call_id"] == json!(id)
        })
        .await;
    assert_eq!(transcript["transcript"], PHRASES[5].0);
    let messages = daemon.json(&format!("/api/calls/{id}/messages")).await;
    assert!(messages["data"].to_string().contains(PHRASES[5].0), "{messages}");
}
