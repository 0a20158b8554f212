//! A page in a real browser watches a call and listens to it, as existing frontends do: over the seeds' sockets, without a
//! credential on `--dev`, decoding μ-law by itself.

use crate::daemon::{Daemon, PATIENCE, place};
use serde_json::{Value, json};
use sidetone::audio::g711::{ulaw_decode, ulaw_encode};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
};

const PAGE: &str = include_str!("pages/listen.html");

/// Serves a page on loopback, and passes on what it posts: path and body.
pub(crate) async fn serve(page: String) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (page, tx) = (page.clone(), tx.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                let (head, body) = loop {
                    let mut buf = [0; 65_536];
                    let Ok(n @ 1..) = socket.read(&mut buf).await else {
                        return;
                    };
                    request.extend_from_slice(&buf[..n]);
                    let text = String::from_utf8_lossy(&request);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head
                        .lines()
                        .find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let is_page = path == "/";
                let answer = if is_page { page } else { String::new() };
                if head.starts_with("POST") {
                    let _ = tx.send((path, body)).await;
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, rx)
}

/// A browser that looks at a page, for as long as it is held.
pub(crate) fn browser(profile: &std::path::Path, url: &str) -> Child {
    Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--mute-audio",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("chromium is installed by scripts/setup --tests")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_a_call_and_hears_the_caller_as_spoken() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let page = PAGE.replace("DAEMON", &format!("localhost:{}", daemon.address.port()));
    let (url, mut posts) = serve(page).await;
    let profile = tempfile::tempdir().unwrap();
    let mut browser = browser(profile.path(), &url);
    let mut posted = async |wanted: &str| {
        let post = tokio::time::timeout(PATIENCE, posts.recv()).await;
        let (path, body) = post.unwrap_or_else(|_| panic!("{wanted} did not come")).unwrap();
        assert_eq!(path, wanted, "{body}");
        body
    };
    posted("/open").await;

    let mut samples = vec![0; 8000];
    sidetone::audio::tone::Noise::new(5).white(-12.0, &mut samples);
    let call = place(daemon.plan("+15551230300", samples.clone(), Duration::from_millis(200)));
    let outcome = call.await.unwrap().unwrap();
    let seen: Value = serde_json::from_str(&posted("/report").await).unwrap();
    browser.kill().await.unwrap();

    assert_eq!(
        seen["types"],
        json!([
            "call.initiated",
            "call.answered",
            "streaming.started",
            "streaming.stopped",
            "call.hangup"
        ])
    );
    assert_eq!(
        (&seen["call"], &seen["hungUp"]),
        (&json!(outcome.report.call_sid), &json!(outcome.report.call_sid))
    );
    assert_eq!(
        seen["config"],
        json!({"format": "PCMU", "sampleRate": 8000, "channels": 1})
    );
    assert_eq!(
        (&seen["start"]["media_format"], &seen["errors"]),
        (&json!("audio/PCMU"), &json!([]))
    );

    // What the caller said as a telephone carries it, sample by sample.
    let mut codes = vec![0; samples.len()];
    ulaw_encode(&samples, &mut codes);
    let mut spoken = vec![0; samples.len()];
    ulaw_decode(&codes, &mut spoken);
    let heard: Vec<i16> = seen["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_i64().unwrap() as i16)
        .collect();
    let begin = heard
        .windows(160)
        .position(|w| spoken.windows(160).step_by(160).take(10).any(|s| s == w));
    let begin = begin.expect("the caller is heard");
    let from = spoken
        .windows(160)
        .position(|s| *s == heard[begin..begin + 160])
        .unwrap();
    let rest = (spoken.len() - from).min(heard.len() - begin);
    assert!(rest >= 8000 * 3 / 4, "{rest} of {} samples, from {from}", spoken.len());
    assert!(
        heard[begin..begin + rest] == spoken[from..from + rest],
        "heard as it was spoken"
    );
    let chunks: Vec<u64> = seen["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_u64().unwrap())
        .collect();
    assert_eq!(chunks, (1..=chunks.len() as u64).collect::<Vec<_>>());
}
