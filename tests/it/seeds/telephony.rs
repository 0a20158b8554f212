//! What a telephony frontend wants of its backend: the messages of its socket, both ways, around one call.

use super::{Site, fits, free_address, guides};
use crate::daemon::{place, speech};
use serde_json::{Value, json};
use sidetone::{
    base::secret::Secret,
    sim::{caller::Opening, desk::Desk},
};
use std::time::Duration;

const AGENT: &str = r#"
[agents.front-desk]
kind = "scripted"
greeting = "Welcome."

[[agents.front-desk.rules]]
phrases = ["what are your opening hours"]
reply = "From nine to five."
"#;

const ACCOUNT: &str = r#"
[twilio]
account_sid = "AC00000000000000000000000000000000"
auth_token = "0123456789abcdef0123456789abcdef"
base_url = "http://{rest}"

[[numbers]]
number = "+15550000001"
vendor = "twilio"
agent = "front-desk"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_the_frontends_socket_is_understood_and_answered() {
    let dev = Site::dev(&format!("[calls]\ndefault_agent = \"front-desk\"\n{AGENT}")).await;
    let rest = free_address();
    let mut desk = Desk::open(rest).await.unwrap();
    tokio::spawn(async move {
        // Whatever is asked of the vendor is done.
        while let Some(asked) = desk.next().await {
            asked.refuse(200, r#"{"sid": "CA1"}"#);
        }
    });
    let account = ACCOUNT.replace("{rest}", &rest.to_string());
    let secure = Site::secure(&format!("{AGENT}{account}")).await;
    for site in [dev, secure] {
        converse(&site).await;
    }
}

async fn converse(site: &Site) {
    let path = "/api/ws/telephony/stream?call_id=&language=auto&model=nova-2&client_type=telephony";
    let mut socket = site.watch(path).await;
    // The call is whatever comes: no example can know it.
    let everything = guides::INIT.replace("\"string\"", "\"\"");
    for language in ["auto", "en", "es", "fr", "de"] {
        socket.say(&everything.replace("auto|en|es|fr|de", language)).await;
        let mut connected = guides::json(guides::TELEPHONY_CONNECTED);
        connected["call_id"] = Value::Null;
        fits(&connected, &socket.until("type", "telephony_connected").await);
    }
    socket.say(r#"{"type": "ping"}"#).await;
    assert_eq!(socket.until("type", "pong").await, json!({"type": "pong"}));

    let samples = speech(
        site.daemon.folder(),
        r#"<break time="2500ms"/>What are your opening hours?<break time="1s"/>"#,
    );
    let mut plan = site.daemon.plan("+1234567890", samples, Duration::from_secs(60));
    if let Opening::Webhook(webhook) = &mut plan.opening {
        let secret = || Secret::new("0123456789abcdef0123456789abcdef");
        webhook.secret = (!site.is_dev()).then(secret);
    }
    let call = place(plan);
    let incoming = socket.until("status", "incoming").await;
    fits(&guides::json(guides::INCOMING), &incoming);
    let id = incoming["call_id"].as_str().unwrap();
    let about = |example: &str| example.replace("\"string\"", &format!("\"{id}\""));
    fits(
        &guides::json(guides::STATUS_UPDATE),
        &socket.until("status", "answered").await,
    );
    fits(
        &guides::json(guides::TTS_AUDIO),
        &socket
            .sometime(&[("type", "agent_tts_audio"), ("message", "Welcome.")])
            .await,
    );
    let mut heard = socket.sometime(&[("type", "customer_transcript")]).await;
    while heard["is_final"] != true {
        heard = socket.sometime(&[("type", "customer_transcript")]).await;
    }
    fits(&guides::json(guides::TRANSCRIPT), &heard);
    let words = heard["transcript"].as_str().unwrap().to_lowercase();
    assert!(words.contains("opening hours"), "{words}");

    socket.say(&about(guides::AGENT_MESSAGE)).await;
    let said = "Hello! Thank you for calling. How can I help you today?";
    let spoken = [("type", "agent_tts_audio"), ("message", said)];
    fits(&guides::json(guides::TTS_AUDIO), &socket.sometime(&spoken).await);
    let stored = |m: &Value| m["data"].as_array()?.iter().any(|m| m["content"] == said).then_some(());
    site.until(&format!("/api/calls/{id}/messages"), stored).await;

    // The example's audio is none, which is told; the socket goes on.
    socket.say(&about(guides::AUDIO_DATA)).await;
    let error = socket.until("type", "telephony_error").await;
    let mut wanted = guides::json(guides::TELEPHONY_ERROR);
    wanted["error_code"] = json!("");
    fits(&wanted, &error);
    let silence = "/".repeat(216);
    socket
        .say(&about(guides::AUDIO_DATA).replace("base64_encoded_audio", &silence))
        .await;
    for status in ["in_progress", "ended"] {
        socket
            .say(&about(guides::UPDATE_STATUS).replace("answered|in_progress|ended", status))
            .await;
        fits(
            &guides::json(guides::STATUS_UPDATE),
            &socket.until("status", status).await,
        );
    }
    call.await.unwrap().unwrap();
}
