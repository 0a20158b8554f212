//! A backend's guide to calls with Teler: REST, the flow, and the messages of the media socket.

use super::{Site, Socket, fits, free_address, guides, vendor_at};
use serde_json::{Value, json};
use std::net::SocketAddr;

const KEY: &str = "key0123";
const OURS: &str = "+918065193776";

fn secure(rest: SocketAddr) -> String {
    format!(
        r#"
        [teler]
        api_key = "{KEY}"
        webhook_secret = "w"
        base_url = "http://{rest}/api/v1"

        [[numbers]]
        number = "{OURS}"
        vendor = "teler"
        agent = "echo"
        "#
    )
}

/// What Teler asks the flow of a call.
fn flow_request(call: &str) -> String {
    json!({ "call_id": call, "account_id": "uuid", "from_number": "+916360154904", "to_number": OURS }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_dev_a_call_is_placed_and_shown_as_the_guide_says() {
    let site = Site::dev("[calls]\ndefault_agent = \"echo\"\n").await;
    let (path, dial) = ("/api/calls/initiate", guides::TELER_DIAL);
    let placed = site.fits("POST", path, dial, guides::TELER_DIALLED).await;
    assert_eq!(placed["data"]["provider"], "teler");
    let id = placed["data"]["call_id"].as_str().unwrap().to_owned();
    let streaming = |a: &Value| (a["data"][0]["stream_id"].is_string()).then(|| a.clone());
    let active = site.until("/api/calls/active", streaming).await;
    fits(&guides::json(guides::TELER_ACTIVE), &active);
    assert_eq!(active["data"][0]["encoding"], "audio/l16");
    fits(
        &guides::json(guides::TELER_ACTIVE),
        &site.ask("GET", "/api/websocket/streams", "").await.1,
    );
    for what in ["", "/status"] {
        let (status, one) = site.ask("GET", &format!("/api/calls/{id}{what}"), "").await;
        assert_eq!(
            (status, &one["data"]["call_id"], &one["data"]["status"]),
            (200, &json!(id), &json!("active"))
        );
    }
    let end = json!({ "call_id": id }).to_string();
    assert_eq!(site.ask("POST", "/api/calls/teler/end", &end).await.0, 200);
    let listed = |a: &Value| (a["data"][0]["call_id"] == *id).then(|| a["success"].clone());
    assert_eq!(site.until("/api/calls/history", listed).await, json!(true));
    assert_eq!(site.ask("GET", "/health", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_credential_the_vendor_without_a_name_is_asked_to_place_the_call() {
    let rest = free_address();
    vendor_at(rest, "teler", "cl_placed", KEY).await;
    let site = Site::secure(&secure(rest)).await;
    let (path, dial) = ("/api/calls/initiate", guides::TELER_DIAL);
    assert_eq!(site.send("POST", path, &[], dial).await.0, 401);
    let placed = site.fits("POST", path, dial, guides::TELER_DIALLED).await;
    assert_eq!(
        (&placed["data"]["call_id"], &placed["data"]["provider"]),
        (&json!("cl_placed"), &json!("teler"))
    );
    for path in ["active", "history", "cl_placed", "cl_placed/status"] {
        let (status, answer) = site.ask("GET", &format!("/api/calls/{path}"), "").await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{path}: {answer}");
    }
}

/// Asks the flow of a call, opens the media socket where it says, and says what the guide says there.
async fn stream(site: &Site, secret: &str) {
    let (status, flow) = site
        .send("POST", &format!("/flow{secret}"), &[], &flow_request("cl_1"))
        .await;
    assert_eq!(status, 200, "{flow}");
    let flow: Value = serde_json::from_str(&flow).unwrap();
    let wanted = guides::json(guides::TELER_FLOW);
    fits(&wanted, &flow);
    for key in ["action", "chunk_size", "record"] {
        assert_eq!(flow[key], wanted[key], "{key}");
    }
    let url = flow["ws_url"].as_str().unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    assert!(path.starts_with("media-stream"), "{url}");
    let mut socket = site.open(&format!("/{path}")).await;
    socket.say(guides::TELER_START).await;
    // The example's audio is none: it is passed over.
    socket.say(guides::TELER_AUDIO).await;
    speak(&mut socket).await;
    fits(
        &guides::json(guides::TELER_AUDIO_OUT),
        &socket.until("type", "audio").await,
    );

    let of = |a: &Value| a["data"][0]["connection_id"].as_str().map(str::to_owned);
    let connection = site.until("/api/websocket/streams", of).await;
    speak(&mut socket).await;
    let said = socket.until("type", "audio").await["chunk_id"].clone();
    let path = format!("/api/websocket/interrupt/{connection}");
    let (status, answer) = site.ask("POST", &path, &json!({ "chunk_id": said }).to_string()).await;
    assert_eq!(status, 200, "{answer}");
    fits(
        &guides::json(guides::TELER_INTERRUPT),
        &socket.until("type", "interrupt").await,
    );
    let (status, answer) = site
        .ask("POST", &format!("/api/websocket/clear/{connection}"), "")
        .await;
    assert_eq!(status, 200, "{answer}");
    fits(&guides::json(guides::TELER_CLEAR), &socket.until("type", "clear").await);
    let news = json!({ "event": "call.completed", "data": { "call_id": "cl_1" } }).to_string();
    assert_eq!(site.send("POST", &format!("/webhook{secret}"), &[], &news).await.0, 200);
    let ended = |a: &Value| (a["data"]["status"] == "ended").then_some(());
    site.until("/api/calls/cl_1", ended).await;
}

/// Says a second and a half of something loud.
async fn speak(socket: &mut Socket) {
    let mut samples = vec![0; 4000];
    sidetone::audio::tone::Noise::new(9).white(-20.0, &mut samples);
    let bytes: Vec<u8> = samples.iter().flat_map(|s: &i16| s.to_le_bytes()).collect();
    let mut code = String::new();
    sidetone::wire::base64::append_str(&bytes, &mut code);
    for _ in 0..3 {
        socket
            .say(&guides::TELER_AUDIO.replace("base64_encoded_audio", &code))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_and_the_media_messages_are_understood_with_and_without_a_credential() {
    stream(&Site::dev("[calls]\ndefault_agent = \"echo\"\n").await, "").await;
    let site = Site::secure(&secure(free_address())).await;
    assert_eq!(site.send("POST", "/flow", &[], &flow_request("cl_0")).await.0, 403);
    stream(&site, "?secret=w").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_dev_the_flow_is_answered_as_the_guide_asks_for_it_and_its_socket_is_a_call() {
    let site = Site::dev("[calls]\ndefault_agent = \"echo\"\n").await;
    for method in ["POST", "GET"] {
        let (status, flow) = site.send(method, "/flow", &[], "").await;
        assert_eq!(status, 200, "{flow}");
        let flow: Value = serde_json::from_str(&flow).unwrap();
        let wanted = guides::json(guides::TELER_FLOW);
        fits(&wanted, &flow);
        for key in ["action", "chunk_size", "record"] {
            assert_eq!(flow[key], wanted[key], "{key}");
        }
        let path = flow["ws_url"]
            .as_str()
            .unwrap()
            .splitn(4, '/')
            .nth(3)
            .unwrap()
            .to_owned();
        let mut socket = site.open(&format!("/{path}")).await;
        socket
            .say(&guides::TELER_START.replacen("\"call_id\": \"uuid\"", &format!("\"call_id\": \"of-{method}\""), 1))
            .await;
        speak(&mut socket).await;
        socket.until("type", "audio").await;
        let (status, one) = site.ask("GET", &format!("/api/calls/of-{method}"), "").await;
        assert_eq!((status, &one["data"]["encoding"]), (200, &json!("audio/l16")), "{one}");
    }
    // What names a call wrongly is told so, and other tools' bodies are not taken for nothing.
    assert_eq!(site.send("POST", "/flow", &[], "{}").await.0, 400);
    let secure = Site::secure(&secure(free_address())).await;
    assert_eq!(secure.send("POST", "/flow", &[], "").await.0, 403);
    assert_eq!(secure.send("POST", "/flow?secret=w", &[], "").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_key_rules_answer_the_guides_conversation_on_dev_and_with_a_credential() {
    let rules = r#"
        [calls]
        default_agent = "desk"

        [agents.desk]
        kind = "scripted"

        [[agents.desk.rules]]
        phrases = ["how can you help me"]
        reply = "With our opening hours."
    "#;
    let secure = format!(
        "{}{}",
        super::SECURE.replace("[calls]", "[calls]\ndefault_agent = \"desk\""),
        &rules[rules.find("[agents").unwrap()..]
    );
    let sites = [
        (Site::dev("").await, "I can only answer what my rules know."),
        (Site::dev(rules).await, "With our opening hours."),
        (Site::with(&secure).await, "With our opening hours."),
    ];
    for (site, said) in sites {
        let (path, body) = ("/api/ai/conversation", guides::TELER_CONVERSATION);
        let answer = site.fits("POST", path, body, r#"{"success": true, "data": {"response": "", "session_id": "", "model": "rules", "usage": {}, "timestamp": ""}}"#).await;
        assert_eq!(answer["data"]["response"], said);
        let (status, answer) = site.ask("GET", "/api/ai/status", "").await;
        assert_eq!(
            (status, &answer["data"]["available"], &answer["data"]["provider"]),
            (200, &json!(true), &json!("scripted"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_dev_a_media_socket_that_nobody_announced_is_a_call() {
    let site = Site::dev("[calls]\ndefault_agent = \"echo\"\n").await;
    let mut socket = site.open("/media-stream").await;
    socket.say(guides::TELER_START).await;
    speak(&mut socket).await;
    fits(
        &guides::json(guides::TELER_AUDIO_OUT),
        &socket.until("type", "audio").await,
    );
}
