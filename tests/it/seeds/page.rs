//! The browser snippets of the guide to calls with Telnyx, run as they stand by a real browser: a page places a call, watches
//! it, plays it and ends it.

use super::{Site, free_address};
use crate::{
    browser::{browser, serve},
    daemon::Daemon,
};
use serde_json::Value;
use sidetone::net::client::HttpClient;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_places_watches_plays_and_ends_a_call_on_the_guides_three_ports() {
    let ports = [free_address(), free_address(), free_address()].map(|a| a.port().to_string());
    let environment = [
        ("WS_CALL_EVENTS_PORT", &*ports[0]),
        ("WS_AUDIO_STREAM_PORT", &*ports[1]),
        ("WS_FRONTEND_AUDIO_PORT", &*ports[2]),
    ];
    let site = Site {
        daemon: Daemon::start(&["--dev", "--agent", "echo"], "", &environment).await,
        token: None,
        client: HttpClient::new(),
    };
    let page = include_str!("pages/telnyx.html")
        .replace(":PORT", &format!(":{}", site.daemon.address.port()))
        .replace(":8080", &format!(":{}", ports[0]))
        .replace(":8082", &format!(":{}", ports[2]));
    let (url, mut posts) = serve(page).await;
    let profile = tempfile::tempdir().unwrap();
    let mut browser = browser(profile.path(), &url);
    let posted = timeout(Duration::from_secs(60), posts.recv()).await;
    let (path, report) = posted.expect("the page reports").unwrap();
    browser.kill().await.unwrap();
    assert_eq!(path, "/report", "{report}");
    let seen: Value = serde_json::from_str(&report).unwrap();
    let logged: Vec<_> = seen["logged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_str().unwrap())
        .collect();
    for line in [
        "Connected to call events",
        "Connected to audio stream",
        "Audio stream connected:",
        "Call initiated:",
        "Stream started:",
        "Stream stopped",
        "Call ended:",
    ] {
        assert!(logged.contains(&line), "{line}: {report}");
    }
    for status in ["Connected", "Call Ended"] {
        assert!(
            seen["statuses"].as_array().unwrap().contains(&status.into()),
            "{status}: {report}"
        );
    }
    assert!(seen["played"].as_u64() >= Some(10), "{report}");
    assert_eq!(seen["errors"], serde_json::json!([]), "{report}");
}
