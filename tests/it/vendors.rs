//! What every vendor must do the same, by iteration of the registry, against a real daemon and simulated vendors as strict as the
//! real ones: placed calls and their control, numbers of their own, every format, binary frames, repeated and late webhooks.

use crate::daemon::{Daemon, PATIENCE, place, speech};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use sidetone::{
    base::{format::AudioFormat, time::Mono},
    net::client::{ApiReply, ApiRequest, HttpClient},
    sim::{
        address::Address,
        announce,
        caller::{CallError, Opening, Outcome, Plan, Webhook},
        report::Ended,
        script::Manner,
    },
    vendor::{Answer, CallAction, Descriptor, HookKind, Peer, PeerCall, VENDORS},
};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::{connect_async, tungstenite::Message};

const OURS: &str = "+15550000001";
const SCRIPTED: &str = r#"
[calls]
default_agent = "front-desk"

[agents.front-desk]
kind = "scripted"
greeting = "Welcome."

[[agents.front-desk.rules]]
phrases = ["what are your opening hours"]
reply = "From nine to five."
"#;

async fn echoing() -> Daemon {
    Daemon::dev(&["--agent", "echo"]).await
}

/// What becomes of a request that a vendor makes.
async fn deliver(request: ApiRequest) -> ApiReply {
    HttpClient::new().send(request).await.expect("an answer")
}

fn json_of(reply: &ApiReply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

/// Asks until `pick` finds what it looks for.
async fn until<T>(daemon: &Daemon, path: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
    let deadline = Mono::now() + PATIENCE;
    loop {
        let answer = daemon.get(path).await.map(|r| json_of(&r)).unwrap_or_default();
        if let Some(found) = pick(&answer) {
            return found;
        }
        assert!(Mono::now() < deadline, "{path} stays {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A call of `vendor` in a format of its, which says `samples`.
async fn call(
    daemon: &Daemon,
    vendor: &'static Descriptor,
    opening: Opening,
    path: &str,
    format: Option<AudioFormat>,
    samples: Vec<i16>,
) -> Result<Outcome, CallError> {
    place(Plan {
        vendor,
        daemon: Address {
            path: path.to_owned(),
            ..daemon.url()
        },
        opening,
        from: announce::new_number(),
        to: OURS.to_owned(),
        format,
        samples,
        manner: Manner::Polite,
        faults: Vec::new(),
        linger: Duration::from_millis(1500),
        limit: Duration::from_secs(60),
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_is_heard_and_the_transcript_right_in_every_format_of_every_vendor() {
    let daemon = Daemon::start(&["--dev"], SCRIPTED, &[]).await;
    let words = speech(daemon.folder(), "What are your opening hours?");
    let all = VENDORS.iter().flat_map(|v| v.caps.offers.iter().map(|f| (*v, *f)));
    let calls = stream::iter(all).map(|(vendor, format)| {
        let (daemon, words) = (&daemon, words.clone());
        async move {
            let outcome = call(daemon, vendor, Opening::Unannounced, "", Some(format), words).await;
            (vendor, format, outcome)
        }
    });
    let calls: Vec<_> = calls.buffer_unordered(3).collect().await;
    assert!(calls.len() >= 15);
    let expected = calls.len();
    for (vendor, format, outcome) in calls {
        let report = outcome.unwrap_or_else(|e| panic!("{vendor:?} {format:?}: {e}")).report;
        assert_eq!(
            (report.ended, report.refused),
            (Ended::Caller, vec![]),
            "{vendor:?} {format:?}"
        );
    }
    // Not every stream names its call by an id that the caller knows, so all that there were are looked at.
    let over = |a: &Value| (a["count"].as_u64() == Some(expected as u64)).then(|| a["data"].clone());
    let records = until(&daemon, "/api/calls/history?limit=100", over).await;
    for record in records.as_array().unwrap() {
        let messages = daemon
            .json(&format!("/api/calls/{}/messages", record["id"].as_str().unwrap()))
            .await;
        let said = |sender: &str| {
            let all = messages["data"].as_array().unwrap().iter();
            all.filter(|m| m["sender_type"] == sender)
                .map(|m| m["content"].as_str().unwrap().to_lowercase())
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(said("customer"), "what are your opening hours", "{record}");
        assert_eq!(said("agent"), "welcome.; from nine to five.", "{record}");
        assert_eq!(messages["data"][0]["delivery"], "heard", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_its_own_is_heard_both_ways_with_every_vendor() {
    let daemon = echoing().await;
    for (n, vendor) in VENDORS.iter().enumerate() {
        let body = json!({ "phoneNumber": format!("+1555777000{n}"), "provider": vendor.name });
        let number = json_of(&daemon.post("/api/phone-numbers", &body).await)["phoneNumber"].clone();
        let path = |url: &str| format!("/{}", number[url].as_str().unwrap().splitn(4, '/').nth(3).unwrap());
        let hook = path("webhookUrl");
        let address: Address = format!("http://{}{hook}", daemon.address).parse().unwrap();
        let opening = Opening::Webhook(Webhook {
            url_secret: None,
            signed_as: address.at("http", &hook),
            address,
            secret: None,
            account: None,
            rest: None,
        });
        let mut noise = vec![0; Plan::rate(vendor) as usize];
        sidetone::audio::tone::Noise::new(3).white(-20.0, &mut noise);
        let outcome = call(&daemon, vendor, opening, &path("websocketUrl"), None, noise).await;
        let report = outcome.unwrap_or_else(|e| panic!("{vendor:?}: {e}")).report;
        assert_eq!((report.ended, report.refused), (Ended::Caller, vec![]), "{vendor:?}");
        let echo = report.echo.unwrap_or_else(|| panic!("{vendor:?}: no echo"));
        assert!(
            echo.bytes > 4000 && echo.changed * 20 < echo.bytes,
            "{vendor:?}: {echo:?}"
        );
        let record = daemon.json(&format!("/api/calls/{}", report.call_sid)).await;
        assert_eq!(
            record["data"]["organization_number"], number["phoneNumber"],
            "{vendor:?}"
        );
    }
}

/// Whether a vendor has a command for it.
fn commands(vendor: &Descriptor, action: &CallAction<'_>) -> bool {
    // Of the placed call's account in this daemon, whose settings these are.
    use sidetone::base::settings::{Faults, Item, Place, Section, Table, Value};
    let item = |text: &str| Item {
        value: Value::String(text.replace("{base}", "http://127.0.0.1:9")),
        place: Place::Request,
    };
    let pairs = vendor.simulated.iter();
    let table: Table = pairs.map(|(key, text)| ((*key).to_owned(), item(text))).collect();
    let trunk = (vendor.trunk)(&Section::root(&table, &Faults::default()));
    trunk.request("call", action).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placed_call_is_muted_given_keys_transferred_and_ended_with_every_vendor() {
    // Nobody speaks on these calls, and keys are sent all the same.
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    for vendor in VENDORS {
        let name = vendor.name;
        let placed = async || {
            let body = json!({ "to": "+15559990000", "from": OURS });
            let reply = daemon.post(&format!("/api/calls/{name}/initiate"), &body).await;
            assert_eq!(reply.status, 200, "{name}: {:?}", json_of(&reply));
            let id = json_of(&reply)["data"]["call_id"].as_str().unwrap().to_owned();
            let streams = |a: &Value| a["data"]["stream_id"].is_string().then_some(());
            until(&daemon, &format!("/api/calls/{id}"), streams).await;
            id
        };
        let act = async |path: String, body: Value| {
            let reply = daemon.post(&format!("/api/calls/{name}/{path}"), &body).await;
            (reply.status, json_of(&reply))
        };
        let id = placed().await;
        for (what, ways, inbound, outbound) in [
            ("mute", json!({}), false, true),
            ("mute", json!({ "direction": "inbound" }), true, true),
            ("unmute", json!({}), false, false),
        ] {
            let (status, answer) = act(format!("{id}/{what}"), ways).await;
            let muted = json!({ "inbound": inbound, "outbound": outbound });
            assert_eq!(
                (status, &answer["data"]["muted"]),
                (200, &muted),
                "{name} {what}: {answer}"
            );
        }
        // By command or as tones: either way they are sent.
        let (status, answer) = act(format!("{id}/digits"), json!({ "digits": "12#" })).await;
        assert_eq!(status, 200, "{name}: {answer}");
        let told = daemon.get(&format!("/api/calls/{id}/details")).await.unwrap();
        let (tells, answer) = (commands(vendor, &CallAction::Details), json_of(&told));
        assert_eq!(told.status, if tells { 200 } else { 409 }, "{name}: {answer}");
        if tells {
            let status = answer["data"]["status"].as_str().unwrap();
            assert!(
                ["in-progress", "alive", "answered"].contains(&status),
                "{name}: {answer}"
            );
        }
        let (status, answer) = act("end".to_owned(), json!({ "call_id": id })).await;
        assert_eq!(
            (status, &answer["data"]["status"]),
            (200, &json!("ended")),
            "{name}: {answer}"
        );
        let (status, answer) = act("end".to_owned(), json!({ "call_id": id })).await;
        assert_eq!(
            (status, &answer["data"]["end_reason"]),
            (200, &json!("completed")),
            "{name}: {answer}"
        );

        let id = placed().await;
        let (status, answer) = act(format!("{id}/transfer"), json!({ "to": "+15550100" })).await;
        let can = commands(vendor, &CallAction::Transfer { to: "+15550100" });
        assert_eq!(status == 200, can, "{name}: {status} {answer}");
        if !can {
            let why = answer["error"]["message"].as_str().unwrap();
            assert!(
                (400..500).contains(&status) && why.contains("no such command"),
                "{name}: {status} {why}"
            );
        }
        // A vendor that was told so ends the stream by itself.
        if !can {
            act("end".to_owned(), json!({ "call_id": id })).await;
        }
        let over = |a: &Value| (a["data"]["status"] == "ended").then(|| a["data"].clone());
        let record = until(&daemon, &format!("/api/calls/{id}"), over).await;
        if can {
            assert_eq!(record["metadata"]["vendor_faults"], Value::Null, "{name}: {record}");
        }
        assert_eq!(record["end_reason"], "completed", "{name}: {record}");
        let handed = record["metadata"]["transferred_to"] == "+15550100";
        assert_eq!(handed, can, "{name}: {record}");
    }
}

fn peer(vendor: &Descriptor, sid: &str) -> Box<dyn Peer> {
    (vendor.peer)(PeerCall {
        call_sid: sid.to_owned(),
        from: announce::new_number(),
        to: OURS.to_owned(),
        ..PeerCall::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_come_twice_or_late_leave_one_record_with_every_vendor() {
    let daemon = echoing().await;
    for vendor in VENDORS {
        let name = vendor.name;
        let sid = format!("replayed-{name}");
        let peer = peer(vendor, &sid);
        let url = |kind| {
            let path = vendor.hook(kind).or(vendor.hook(HookKind::Call)).unwrap().path;
            format!("http://{}{path}", daemon.address)
        };
        let ring = || peer.announce(&url(HookKind::Call), None).unwrap();
        let [first, second] = [deliver(ring()).await, deliver(ring()).await];
        assert_eq!(first, second, "{name}: the same answer");
        if !peer.by_command() {
            let stream = peer.answered(&first.body).unwrap();
            assert!(matches!(stream, Answer::Stream { .. }), "{name}: {stream:?}");
        }
        let path = format!("/api/calls/{sid}");
        until(&daemon, &path, |a| (a["data"]["status"] == "incoming").then_some(())).await;
        let over = || peer.conclude(&url(HookKind::Status), 7, None).unwrap();
        for _ in 0..2 {
            assert!((200..300).contains(&deliver(over()).await.status), "{name}");
        }
        let ended = |a: &Value| (a["data"]["status"] == "ended").then(|| a["data"].clone());
        let record = until(&daemon, &path, ended).await;

        // What is late changes nothing, and no call begins with it.
        if let Some(answered) = peer.pick_up(&url(HookKind::Call), None) {
            assert_eq!(deliver(answered).await.status, 200, "{name}");
        }
        let late = deliver(ring()).await;
        if !peer.by_command() {
            let refused = late.status == 404 || peer.answered(&late.body) == Ok(Answer::HangUp);
            assert!(refused, "{name}: {late:?}");
        }
        assert_eq!(daemon.json(&path).await["data"], record, "{name}");
        let rows: i64 = daemon
            .database()
            .query_row("SELECT count(*) FROM phone_calls WHERE call_sid = ?1", [&sid], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(rows, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_in_binary_frames_is_read_where_the_vendor_sends_it_so_and_refused_elsewhere() {
    let daemon = echoing().await;
    for vendor in VENDORS {
        let mut peer = peer(vendor, &format!("binary-{}", vendor.name));
        let url = format!("ws://{}{}", daemon.address, vendor.stream_path);
        let (mut socket, _) = connect_async(url).await.unwrap();
        let mut say = peer.open();
        let format = peer.format();
        let mut noise = vec![0_i16; format.samples_of_ms(peer.frame_ms())];
        sidetone::audio::tone::Noise::new(5).white(-20.0, &mut noise);
        let mut frame = vec![0; format.bytes_of_ms(peer.frame_ms())];
        sidetone::audio::codec::encode(format.encoding, &noise, &mut frame);
        for n in 0..20 {
            let mut message = String::new();
            peer.media(&frame, n * u64::from(peer.frame_ms()), &mut message);
            say.push(message);
        }
        if vendor.caps.binary {
            // One that is no text is passed over.
            socket.send(Message::binary(vec![0xFF, 0xFE, 0])).await.unwrap();
        }
        for message in say {
            if socket.send(Message::binary(message.into_bytes())).await.is_err() {
                break;
            }
        }
        let heard = async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        if let Ok(sidetone::vendor::PeerEvent::Media(_)) = peer.read(text.as_bytes()) {
                            return Ok(());
                        }
                    }
                    Some(Ok(Message::Close(frame))) => return Err(frame.map(|f| u16::from(f.code))),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        };
        let heard = timeout(PATIENCE, heard).await.expect("an answer");
        let expected = if vendor.caps.binary { Ok(()) } else { Err(Some(1003)) };
        assert_eq!(heard, expected, "{vendor:?}");
    }
}

/// A request that a vendor which signs nothing makes, through a proxy that tells this address.
async fn forwarded(daemon: &Daemon, path: &str, address: &str) -> u16 {
    let request = ApiRequest {
        method: Method::GET,
        url: format!("http://{}{path}", daemon.address),
        headers: HeaderMap::from_iter([(
            "x-forwarded-for".parse().unwrap(),
            HeaderValue::try_from(address).unwrap(),
        )]),
        body: Default::default(),
        timeout: PATIENCE,
    };
    deliver(request).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_is_believed_for_its_addresses_in_the_configuration_and_in_a_numbers_account() {
    let config = |addresses: &str| {
        format!(
            r#"
            [calls]
            public_url = "http://{{address}}"
            [store]
            seal_key = "c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE="
            [http]
            trusted_proxies = ["127.0.0.1"]
            [[access.jwt]]
            secret = "a secret of this test and of nothing else, 48 B."
            [ozonetel]
            webhook_addresses = ["{addresses}"]
            [[numbers]]
            number = "{OURS}"
            vendor = "ozonetel"
            agent = "echo"
            "#
        )
    };
    let ring = |sid: &str| format!("?event=NewCall&sid={sid}&cid=15559990000&called_number={}", &OURS[1..]);
    let daemon = Daemon::start(&[], &config("203.0.113.0/24"), &[]).await;
    let hook = "/api/calls/ozonetel/webhook";
    for (address, status) in [
        ("203.0.113.9", 200),
        ("203.0.114.9", 403),
        ("203.0.113.9, 198.51.100.1", 403),
    ] {
        let path = format!("{hook}{}", ring(&address.replace([',', ' '], "-")));
        assert_eq!(forwarded(&daemon, &path, address).await, status, "{address}");
    }

    let token = daemon.token_for("1", "admin");
    let body = json!({ "phoneNumber": "+15557770001", "provider": "exotel",
        "exotelConfig": { "webhookAddresses": ["2001:db8::/32"] } });
    let added = json_of(&daemon.post_as(&token, "/api/phone-numbers", &body).await);
    let url = added["phoneNumber"]["webhookUrl"]
        .as_str()
        .unwrap_or_else(|| panic!("{added}"));
    assert_eq!(
        added["phoneNumber"]["exotelConfig"]["webhookAddresses"],
        json!(["2001:db8::/32"])
    );
    let own = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    let ring = "?CallSid=c1&CallFrom=%2B15559990000&CallTo=%2B15557770001&Direction=incoming";
    for (address, status) in [("2001:db8::5", 200), ("2001:db9::5", 403)] {
        assert_eq!(
            forwarded(&daemon, &format!("{own}{ring}"), address).await,
            status,
            "{address}"
        );
    }
    let wrong = json!({ "phoneNumber": "+15557770002", "provider": "exotel",
        "exotelConfig": { "webhookAddresses": ["everybody"] } });
    let refused = daemon.post_as(&token, "/api/phone-numbers", &wrong).await;
    let why = json_of(&refused)["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        refused.status == 422 && why.contains("exotelConfig.webhookAddresses"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_placed_with_the_account_of_its_own_number() {
    use sidetone::{base::secret::Secret, sim::desk::Desk};
    let mut desk = Desk::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let daemon = echoing().await;
    let account = json!({ "apiKey": "own", "apiToken": "t0ken", "sid": "acct7", "baseUrl": format!("http://{}", desk.address()) });
    let body = json!({ "phoneNumber": "+15557770009", "provider": "exotel", "exotelConfig": account });
    assert_eq!(daemon.post("/api/phone-numbers", &body).await.status, 200);
    let vendor = VENDORS.iter().copied().find(|v| v.name == "exotel").unwrap();
    let dial = json!({ "to": "+15559990000", "from": "+15557770009" });
    let placed = daemon.post("/api/calls/initiate", &dial);
    let carried = async {
        let asked = desk.next().await.unwrap();
        assert!(asked.path().starts_with("/v1/Accounts/acct7/"), "{}", asked.path());
        let mut peer = peer(vendor, "placed-by-its-own");
        asked.carry_out(&mut *peer, Some(&Secret::new("t0ken")))
    };
    let (reply, order) = timeout(PATIENCE, async { tokio::join!(placed, carried) })
        .await
        .unwrap();
    let answer = json_of(&reply);
    assert_eq!(
        (reply.status, &answer["data"]["callId"]),
        (200, &json!("placed-by-its-own")),
        "{answer}"
    );
    assert_eq!(answer["data"]["provider"], "exotel", "found by its number");
    let sidetone::vendor::PeerOrder::Connect(Answer::Stream { url, .. }) = order else {
        panic!("{order:?}")
    };
    assert!(url.contains("/api/telephony/ws/num_"), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_outlive_a_change_of_their_key() {
    const FORMER: &str = "c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE=";
    const LATTER: &str = "YW5vdGhlciBrZXkgYXQgcmVzdCwgZm9yIHRlc3RzISE=";
    let config = |keys: &str| {
        format!(
            "[calls]\npublic_url = \"http://relay.test\"\n[store]\n{keys}\n[[access.jwt]]\n\
             secret = \"a secret of this test and of nothing else, 48 B.\"\n"
        )
    };
    let mut daemon = Daemon::start(&[], &config(&format!("seal_key = \"{FORMER}\"")), &[]).await;
    let token = daemon.token_for("1", "admin");
    let body = json!({ "phoneNumber": "+15557770001", "provider": "ozonetel", "ozonetelConfig": { "webhookSecret": "s3cret" } });
    let added = json_of(&daemon.post_as(&token, "/api/phone-numbers", &body).await);
    let url = added["phoneNumber"]["webhookUrl"]
        .as_str()
        .unwrap_or_else(|| panic!("{added}"));
    let hook = format!(
        "/{}?event=NewCall&cid=15559990000&sid=",
        url.splitn(4, '/').nth(3).unwrap()
    );
    let stored = |daemon: &Daemon| -> String {
        let read = |r: &rusqlite::Row<'_>| r.get(0);
        let found = daemon
            .database()
            .query_row("SELECT secrets FROM phone_numbers", [], read);
        found.unwrap()
    };
    let before = stored(&daemon);
    for (n, keys) in [
        format!("seal_key = \"{FORMER}\""),
        format!("seal_key = \"{LATTER}\"\nseal_key_former = \"{FORMER}\""),
        format!("seal_key = \"{LATTER}\""),
    ]
    .iter()
    .enumerate()
    {
        daemon.kill();
        std::fs::write(daemon.folder().join("sidetone.toml"), config(keys)).unwrap();
        daemon.again().await;
        let ring = async |secret: &str| daemon.get(&format!("{hook}c{n}&secret={secret}")).await.unwrap().status;
        assert_eq!((ring("s3cret").await, ring("another").await), (200, 403), "start {n}");
        assert_eq!(
            stored(&daemon) == before,
            n == 0,
            "sealed anew with the new key, start {n}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_certificate_of_its_own_is_called_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(file("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let config = format!(
        "[listen]\ntls_cert = \"{}\"\ntls_key = \"{}\"\n[calls]\ndefault_agent = \"echo\"\n",
        file("cert.pem").display(),
        file("key.pem").display()
    );
    let trust = sidetone::sim::address::Trust::only(&file("cert.pem")).unwrap();
    let daemon = Daemon::with_tls(&["--dev"], &config, &trust).await;
    let mut noise = vec![0; 8000];
    sidetone::audio::tone::Noise::new(5).white(-20.0, &mut noise);
    let wav = sidetone::audio::wav::Wav {
        rate: 8000,
        channels: 1,
        samples: noise,
    };
    std::fs::write(file("in.wav"), wav.to_bytes()).unwrap();
    for vendor in VENDORS {
        let simulate = async |more: &[&str]| {
            let url = format!("wss://localhost:{}", daemon.address.port());
            let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidetone"))
                .args([
                    "simulate",
                    "--json",
                    "--vendor",
                    vendor.name,
                    "--url",
                    &url,
                    "--linger",
                    "500ms",
                ])
                .arg("--wav")
                .arg(file("in.wav"))
                .args(more)
                .kill_on_drop(true)
                .output();
            timeout(PATIENCE * 2, run).await.expect("the call ends").unwrap()
        };
        let ca = file("cert.pem").display().to_string();
        let output = simulate(&["--ca", &ca]).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{vendor:?}: {told}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["echo"]["bytes"].as_u64() >= Some(3000), "{vendor:?}: {report}");
        assert!(
            report["call_id"].is_string(),
            "{vendor:?}: watched over TLS, too: {told}"
        );
        if vendor.name == VENDORS[0].name {
            let stranger = simulate(&[]).await;
            assert_eq!(
                stranger.status.code(),
                Some(69),
                "an unknown certificate is not believed"
            );
        }
    }
}
