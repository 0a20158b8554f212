//! The guide to calls with Telnyx: REST, webhook, media messages and the frontends' two sockets.

use super::{Site, Socket, fits, free_address, guides, vendor_at};
use crate::daemon::PATIENCE;
use serde_json::{Value, json};
use sidetone::{
    base::{secret::Secret, time::Wall},
    sim::desk::Desk,
    vendor::{self, Answer, PeerCall, PeerOrder},
    wire::sign::PrivateKey,
};
use std::net::SocketAddr;
use tokio::time::timeout;

/// The seed of the webhooks' key.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const KEY: &str = "KEY0123";

fn secure(rest: SocketAddr) -> String {
    let public = PrivateKey::parse(SEED).unwrap().public();
    format!(
        r#"
        [telnyx]
        api_key = "{KEY}"
        application_id = "1"
        public_key = "{public}"
        base_url = "http://{rest}/v2"
        noise_suppression = false

        [agents.agent-id-here]
        kind = "echo"

        [[numbers]]
        number = "+0987654321"
        vendor = "telnyx"
        "#
    )
}

async fn events(site: &Site) -> Socket {
    site.watch("/call-events").await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_dev_a_call_is_placed_seen_heard_muted_and_ended_as_the_guide_says() {
    let site = Site::dev("[calls]\ndefault_agent = \"echo\"\n").await;
    let mut events = events(&site).await;
    let mut audio = site.watch("/frontend-audio").await;
    fits(
        &guides::json(guides::AUDIO_CONNECTED),
        &audio.until("event", "connected").await,
    );

    let path = "/api/calls/telnyx/initiate";
    let placed = site.fits("POST", path, guides::DIAL, guides::DIALLED).await;
    assert_eq!(
        placed["data"]["dbRecord"]["metadata"]["simulated"],
        json!(true),
        "{placed}"
    );
    let id = placed["data"]["callId"].as_str().unwrap().to_owned();
    for kind in ["call.initiated", "call.answered", "streaming.started"] {
        let event = events.until("type", kind).await;
        fits(&guides::json(guides::CALL_EVENT), &event);
        // The first is told before the vendor has told its own id.
        let ours = kind == "call.initiated" && event["payload"]["call_control_id"] == event["payload"]["call_id"];
        assert!(ours || event["payload"]["call_control_id"] == id.as_str(), "{event}");
    }
    fits(&guides::json(guides::AUDIO_START), &audio.until("event", "start").await);
    let media = audio.until("event", "media").await;
    fits(&guides::json(guides::AUDIO_MEDIA), &media);
    assert_eq!(media["media"]["track"], "inbound");

    for what in ["mute", "unmute"] {
        let (status, answer) = site.ask("POST", &format!("/api/calls/telnyx/{id}/{what}"), "").await;
        assert_eq!(status, 200, "{answer}");
    }
    let end = guides::END.replace("call-control-id", &id);
    let (status, answer) = site.ask("POST", "/api/calls/telnyx/end", &end).await;
    assert_eq!((status, &answer["data"]["status"]), (200, &json!("ended")), "{answer}");
    events.until("type", "call.hangup").await;
    fits(&guides::json(guides::AUDIO_STOP), &audio.until("event", "stop").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_credential_the_same_requests_do_the_same() {
    let rest = free_address();
    vendor_at(rest, "telnyx", "v3:placed", KEY).await;
    let site = Site::secure(&secure(rest)).await;
    let mut events = events(&site).await;
    let path = "/api/calls/telnyx/initiate";
    let (status, _) = site.send("POST", path, &[], guides::DIAL).await;
    assert_eq!(status, 401, "a credential is asked for");
    let placed = site.fits("POST", path, guides::DIAL, guides::DIALLED).await;
    assert_eq!(placed["data"]["callId"], "v3:placed");
    fits(
        &guides::json(guides::CALL_EVENT),
        &events.until("type", "call.initiated").await,
    );
    for what in ["mute", "unmute"] {
        let (status, answer) = site
            .ask("POST", &format!("/api/calls/telnyx/v3:placed/{what}"), "")
            .await;
        assert_eq!(status, 200, "{answer}");
    }
    let end = guides::END.replace("call-control-id", "v3:placed");
    let (status, answer) = site.ask("POST", "/api/calls/telnyx/end", &end).await;
    assert_eq!((status, &answer["data"]["status"]), (200, &json!("ended")), "{answer}");
    events.until("type", "call.hangup").await;
}

#[tokio::test]
async fn the_webhook_is_received_on_either_path_and_signed_where_signatures_are_checked() {
    let dev = Site::dev("").await;
    let placeholders = [
        ("telnyx-signature-ed25519", "signature-here"),
        ("telnyx-timestamp", "timestamp-here"),
    ];
    let secure = Site::secure(&secure(free_address())).await;
    let now = Wall::now().as_secs().to_string();
    let signature = PrivateKey::parse(SEED)
        .unwrap()
        .sign(format!("{now}|{}", guides::WEBHOOK).as_bytes());
    let signed = [("telnyx-signature-ed25519", &*signature), ("telnyx-timestamp", &*now)];
    for (site, headers, status) in [
        (&dev, &placeholders, 200),
        (&secure, &signed, 200),
        (&secure, &placeholders, 403),
    ] {
        for path in ["/api/calls/telnyx/webhook", "/telnyx/webhook"] {
            let answer = site.send("POST", path, headers, guides::WEBHOOK).await;
            assert_eq!(answer.0, status, "{answer:?}");
            if status == 200 {
                assert_eq!(answer.1, r#"{"received":true}"#);
            }
        }
    }
}

/// Plays the guide's stream and says what listeners were told of it.
async fn stream(site: &Site, path: &str) {
    let mut audio = site.watch("/frontend-audio").await;
    audio.until("event", "connected").await;
    let mut socket = site.open(path).await;
    socket.say(guides::AUDIO_START).await;
    fits(&guides::json(guides::AUDIO_START), &audio.until("event", "start").await);
    // The example's payload is no audio: it is passed over, and what is audio goes on.
    socket.say(guides::AUDIO_MEDIA).await;
    let real = guides::AUDIO_MEDIA
        .replace("base64-encoded-audio-data", &"/38B".repeat(54))
        .replace("\"1\"", "\"2\"");
    socket.say(&real).await;
    fits(&guides::json(guides::AUDIO_MEDIA), &audio.until("event", "media").await);
    socket.say(guides::AUDIO_STOP).await;
    fits(&guides::json(guides::AUDIO_STOP), &audio.until("event", "stop").await);
    socket.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_media_messages_are_understood_and_passed_on_to_listeners() {
    let dev = Site::dev("[calls]\ndefault_agent = \"echo\"\n").await;
    stream(&dev, "/audio-stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_media_messages_need_but_the_token_of_an_announced_call() {
    let rest = free_address();
    let mut desk = Desk::open(rest).await.unwrap();
    let site = Site::secure(&secure(rest)).await;
    let mut peer = (vendor::by_name("telnyx").unwrap().peer)(PeerCall {
        call_sid: "v3:rings".to_owned(),
        from: "+1234567890".to_owned(),
        to: "+0987654321".to_owned(),
        ..PeerCall::default()
    });
    let ring = peer.announce("/telnyx/webhook", Some(&Secret::new(SEED))).unwrap();
    let headers: Vec<_> = ring
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    let body = String::from_utf8(ring.body.to_vec()).unwrap();
    assert_eq!(site.send("POST", "/telnyx/webhook", &headers, &body).await.0, 200);
    let answered = timeout(PATIENCE, desk.next()).await.unwrap().unwrap();
    let PeerOrder::Connect(Answer::Stream { url, .. }) = answered.carry_out(&mut *peer, Some(&Secret::new(KEY))) else {
        panic!("no stream is asked for");
    };
    tokio::spawn(async move {
        while let Some(asked) = desk.next().await {
            asked.carry_out(&mut *peer, Some(&Secret::new(KEY)));
        }
    });
    let path = url.splitn(4, '/').nth(3).unwrap();
    stream(&site, &format!("/{path}")).await;
    let (_, calls) = site.ask("GET", "/api/calls/v3:rings", "").await;
    assert_eq!(calls["data"]["from"], "+1234567890", "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_not_e164_is_told_so_in_the_guides_words() {
    let site = Site::dev("").await;
    let body = guides::DIAL.replace("+1234567890", "1234567890");
    let (status, answer) = site.ask("POST", "/api/calls/telnyx/initiate", &body).await;
    let message: &Value = &answer["error"]["message"];
    assert_eq!(
        (status, message),
        (
            422,
            &json!("Destination number must be in E.164 format (e.g., +1234567890)")
        )
    );
}
