//! Calls in Telnyx's dialect: a daemon and, on the other side, a local double of Telnyx that reads commands as strictly as the
//! official description, signs its webhooks, and fails on request.

use super::{daemon, daemon::Daemon, house::House};
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::{ids::TenantId, secret::Secret},
    sim::{
        caller::{Opening, Plan, Webhook},
        desk::{Asked, Desk},
        report::Ended,
        script::Manner,
    },
    store::CallFilter,
    vendor::{self, Answer, Peer, PeerCall, PeerOrder},
};
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// The seed of the account's key and its public half.
const SEED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const PUBLIC: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
const KEY: &str = "KEY0123456789";
const HOOK: &str = "/api/calls/telnyx/webhook";
const OURS: &str = "+15550300001";
const CALLER: &str = "+15559990000";

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn config(rest: SocketAddr) -> String {
    format!(
        "[[numbers]]\nnumber = \"{OURS}\"\nvendor = \"telnyx\"\ntenant = 1\nagent = \"echo\"\n\n[telnyx]\napi_key = \"{KEY}\"\n\
         application_id = \"7267\"\npublic_key = \"{PUBLIC}\"\nbase_url = \"http://{rest}/v2\"\napi_timeout = \"1s\"\n"
    )
}

/// A daemon, and Telnyx.
struct World {
    house: House,
    desk: Desk,
    peer: Box<dyn Peer>,
    token: String,
}

impl World {
    async fn new() -> Self {
        let rest = free_address();
        let desk = Desk::open(rest).await.unwrap();
        let house = House::with(&config(rest)).await;
        let token = house.token(1, Role::Agent);
        Self {
            house,
            desk,
            peer: peer("v3:abc"),
            token,
        }
    }

    /// Posts a webhook as Telnyx does; `seed` signs it.
    async fn hook(&self, request: vendor::ApiRequest) -> (u16, String) {
        let mut builder = http::Request::builder()
            .method("POST")
            .uri(HOOK)
            .header("host", "relay.test");
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let reply = self.house.request(builder.body(body).unwrap()).await;
        (reply.status().as_u16(), reply.body().clone())
    }

    fn ring(&self, seed: &str) -> vendor::ApiRequest {
        self.peer.announce(HOOK, Some(&Secret::new(seed))).unwrap()
    }

    async fn asked(&mut self) -> Asked {
        timeout(SOON, self.desk.next()).await.expect("no command came").unwrap()
    }

    /// Takes the next command, which must be this one, and returns what it says and does.
    async fn command(&mut self, path: &str) -> (Value, PeerOrder) {
        let asked = self.asked().await;
        assert_eq!(asked.path(), format!("/v2/calls{path}"));
        let body = serde_json::from_slice(asked.body()).unwrap();
        (body, asked.carry_out(&mut *self.peer, Some(&Secret::new(KEY))))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.house.post(path, Some(&self.token), &body).await
    }

    /// Places a call beside what `during` does for Telnyx.
    async fn initiate(&mut self, during: impl AsyncFnOnce(&mut Desk, &mut dyn Peer)) -> (u16, Value) {
        self.initiate_with(&json!({}), during).await
    }

    /// The same with more in the request.
    async fn initiate_with(
        &mut self,
        more: &Value,
        during: impl AsyncFnOnce(&mut Desk, &mut dyn Peer),
    ) -> (u16, Value) {
        let Self {
            house,
            desk,
            peer,
            token,
        } = self;
        let path = "/api/calls/telnyx/initiate";
        let mut body = json!({ "to": CALLER, "from": OURS, "agentId": "echo" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (answer, ()) = tokio::join!(house.post(path, Some(token), &body), during(desk, &mut **peer));
        answer
    }

    async fn stored(&self) -> usize {
        let everything = CallFilter {
            limit: 10,
            ..CallFilter::default()
        };
        self.house
            .store
            .calls(TenantId(1), everything)
            .await
            .unwrap()
            .calls
            .len()
    }

    async fn status(&self, id: &str) -> Value {
        let (status, body) = self.house.get(&format!("/api/calls/{id}"), Some(&self.token)).await;
        assert_eq!(status, 200, "{body}");
        body["data"].clone()
    }

    async fn until_status(&self, id: &str, wanted: &str) -> Value {
        let waited = async {
            loop {
                let call = self.status(id).await;
                if call["call_status"] == wanted {
                    return call;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, waited)
            .await
            .unwrap_or_else(|_| panic!("{id} was not {wanted} in time"))
    }
}

fn peer(call_sid: &str) -> Box<dyn Peer> {
    let vendor = vendor::by_name("telnyx").unwrap();
    (vendor.peer)(PeerCall {
        call_sid: call_sid.into(),
        from: CALLER.into(),
        to: OURS.into(),
        ..PeerCall::default()
    })
}

#[tokio::test]
async fn a_signed_webhook_is_acknowledged_and_the_call_answered_by_a_command_once() {
    let mut world = World::new().await;
    let ring = world.ring(SEED);
    for _ in 0..3 {
        assert_eq!(world.hook(ring.clone()).await, (200, r#"{"received":true}"#.to_owned()));
    }
    let (body, order) = world.command("/v3:abc/actions/answer").await;
    let PeerOrder::Connect(Answer::Stream { url, .. }) = order else {
        panic!("{order:?}")
    };
    assert!(url.starts_with("ws://relay.test/audio-stream/"), "{url}");
    assert_eq!(body["stream_bidirectional_mode"], "rtp");
    let call = world.until_status("v3:abc", "incoming").await;
    assert_eq!((call["from"].as_str(), call["to"].as_str()), (Some(CALLER), Some(OURS)));
    assert_eq!(world.stored().await, 1);

    let picked_up = world.peer.pick_up(HOOK, Some(&Secret::new(SEED))).unwrap();
    assert_eq!(world.hook(picked_up).await.0, 200);
    let (body, _) = world.command("/v3:abc/actions/suppression_start").await;
    assert_eq!(body["direction"], "both");
    let over = world.peer.conclude(HOOK, 42, Some(&Secret::new(SEED))).unwrap();
    assert_eq!(world.hook(over).await.0, 200);
    world.command("/v3:abc/actions/suppression_stop").await;
    let call = world.until_status("v3:abc", "ended").await;
    assert_eq!(
        (call["end_reason"].as_str(), &call["metadata"]["vendor_duration_s"]),
        (Some("completed"), &json!(42))
    );
}

#[tokio::test]
async fn a_webhook_with_a_wrong_secret_or_none_is_refused_and_leaves_no_trace() {
    let world = World::new().await;
    let strangers = [world.ring(&"00".repeat(32)), world.peer.announce(HOOK, None).unwrap()];
    for request in strangers {
        assert_eq!(world.hook(request).await.0, 403);
    }
    let mut tampered = world.ring(SEED);
    tampered.body = [&tampered.body[..], b" "].concat().into();
    assert_eq!(world.hook(tampered).await.0, 403);
    assert_eq!(world.stored().await, 0);
}

#[tokio::test]
async fn a_call_to_a_number_that_nobody_has_is_rejected() {
    let mut world = World::new().await;
    let vendor = vendor::by_name("telnyx").unwrap();
    world.peer = (vendor.peer)(PeerCall {
        call_sid: "v3:lost".into(),
        from: CALLER.into(),
        to: "+15550999999".into(),
        ..PeerCall::default()
    });
    assert_eq!(world.hook(world.ring(SEED)).await.0, 200);
    let (body, order) = world.command("/v3:lost/actions/reject").await;
    assert_eq!(
        (body["cause"].as_str(), order),
        (Some("CALL_REJECTED"), PeerOrder::HangUp)
    );
    assert_eq!(world.stored().await, 0);
}

#[tokio::test]
async fn a_placed_call_is_asked_for_as_described_and_answers_in_the_seeds_shape() {
    let mut world = World::new().await;
    let mut said = Value::Null;
    let (status, answer) = world
        .initiate(async |desk, peer| {
            let asked = desk.next().await.unwrap();
            assert_eq!(asked.path(), "/v2/calls");
            said = serde_json::from_slice(asked.body()).unwrap();
            let order = asked.carry_out(peer, Some(&Secret::new(KEY)));
            assert!(matches!(order, PeerOrder::Connect(_)), "{order:?}");
        })
        .await;
    assert_eq!(status, 200, "{answer}");
    let data = &answer["data"];
    assert_eq!(
        (answer["success"].as_bool(), data["callId"].as_str()),
        (Some(true), Some("v3:abc"))
    );
    assert_eq!(
        (data["status"].as_str(), data["direction"].as_str()),
        (Some("initiated"), Some("outbound-dial"))
    );
    assert_eq!(data["streamUrl"], "ws://relay.test/audio-stream");
    assert_eq!(data["dbRecord"]["to"], CALLER);
    assert_eq!(said["connection_id"], "7267");
    assert_eq!(said["webhook_url"], format!("http://relay.test{HOOK}"));
    let state = said["client_state"].as_str().unwrap();
    let state = sidetone::wire::base64::decode_vec(state.as_bytes(), 500).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!((&state["agentId"], &state["callId"]), (&json!("echo"), &data["id"]));

    let (status, answer) = {
        let World {
            house,
            desk,
            peer,
            token,
        } = &mut world;
        let body = json!({ "call_control_id": "v3:abc" });
        let ended = house.post("/api/calls/telnyx/end", Some(token), &body);
        let (answer, ()) = tokio::join!(ended, async {
            let asked = timeout(SOON, desk.next()).await.unwrap().unwrap();
            assert_eq!(asked.path(), "/v2/calls/v3:abc/actions/hangup");
            asked.carry_out(&mut **peer, Some(&Secret::new(KEY)));
        });
        answer
    };
    assert_eq!((status, &answer["data"]["status"]), (200, &json!("ended")));
}

#[tokio::test]
async fn a_call_may_have_a_stream_of_its_own_in_the_words_of_the_guide_and_of_the_api() {
    let mut world = World::new().await;
    let wishes = json!({
        "stream_track": "both_tracks", "stream_codec": "PCMA", "stream_sample_rate": "8000",
        "stream_bidirectional_mode": "rtp", "stream_bidirectional_codec": "L16",
        "stream_bidirectional_sample_rate": 16000,
    });
    let mut said = Value::Null;
    let (status, answer) = world
        .initiate_with(&wishes, async |desk, peer| {
            let asked = desk.next().await.unwrap();
            said = serde_json::from_slice(asked.body()).unwrap();
            asked.carry_out(peer, Some(&Secret::new(KEY)));
        })
        .await;
    assert_eq!(status, 200, "{answer}");
    for (name, value) in [
        ("stream_track", json!("both_tracks")),
        ("stream_codec", json!("PCMA")),
        ("stream_bidirectional_mode", json!("rtp")),
        ("stream_bidirectional_codec", json!("L16")),
        ("stream_bidirectional_sampling_rate", json!(16000)),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    for absent in ["stream_sample_rate", "stream_bidirectional_sample_rate"] {
        assert_eq!(said.get(absent), None, "the API knows no {absent}");
    }
    for (wish, why) in [
        (json!({"stream_track": "inbound"}), "stream_track is one of"),
        (
            json!({"stream_bidirectional_mode": "mp3"}),
            "stream_bidirectional_mode is rtp",
        ),
        (json!({"stream_sample_rate": -8000}), "stream_sample_rate is a rate"),
        (json!({"stream_tracks": "both_tracks"}), "unknown field: stream_tracks"),
    ] {
        let (status, answer) = world.initiate_with(&wish, async |_, _| ()).await;
        assert_eq!(status, 422, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(world.stored().await, 1, "what is refused leaves no record");
}

#[tokio::test]
async fn what_telnyx_says_against_a_call_reaches_the_client_in_its_words() {
    let mut world = World::new().await;
    let refusal = r#"{"errors":[{"code":"10016","title":"Invalid","detail":"The 'to' number is not E.164."}]}"#;
    let (status, answer) = world
        .initiate(async |desk, _| desk.next().await.unwrap().refuse(422, refusal))
        .await;
    assert_eq!(status, 422);
    assert_eq!(
        answer["error"]["message"],
        "Telnyx: The 'to' number is not E.164. (code 10016)"
    );
    let wrong_key = r#"{"errors":[{"code":"10009","title":"Authentication failed"}]}"#;
    let (status, answer) = world
        .initiate(async |desk, _| desk.next().await.unwrap().refuse(401, wrong_key))
        .await;
    assert_eq!(status, 502);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("check telnyx.api_key"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_outage_is_bridged_by_the_same_command_and_a_long_one_is_told() {
    for outage in [429, 500, 503] {
        let mut world = World::new().await;
        let mut ids = Vec::new();
        let (status, answer) = world
            .initiate(async |desk, peer| {
                for last in [false, true] {
                    let asked = desk.next().await.unwrap();
                    let body: Value = serde_json::from_slice(asked.body()).unwrap();
                    ids.push(body["command_id"].clone());
                    match last {
                        false => asked.refuse(outage, ""),
                        true => drop(asked.carry_out(peer, Some(&Secret::new(KEY)))),
                    }
                }
            })
            .await;
        assert_eq!((status, &answer["data"]["callId"]), (200, &json!("v3:abc")), "{outage}");
        assert_eq!(ids[0], ids[1], "a repetition of the same command");
    }
    let mut world = World::new().await;
    let mut silent = Vec::new();
    let (status, answer) = world
        .initiate(async |desk, _| {
            for _ in 0..3 {
                silent.push(desk.next().await.unwrap());
            }
        })
        .await;
    assert_eq!(status, 504, "{answer}");
}

#[tokio::test]
async fn a_call_is_muted_at_the_relay_and_commanded_at_the_vendor() {
    let mut world = World::new().await;
    world.hook(world.ring(SEED)).await;
    world.command("/v3:abc/actions/answer").await;
    let ways = |answer: &Value| {
        let muted = &answer["data"]["muted"];
        (
            muted["inbound"].as_bool().unwrap(),
            muted["outbound"].as_bool().unwrap(),
        )
    };
    for (what, body, inbound, outbound) in [
        ("mute", json!({}), false, true),
        ("mute", json!({ "direction": "inbound" }), true, true),
        ("unmute", json!({ "direction": "outbound" }), true, false),
        ("mute", json!({ "direction": "both" }), true, true),
        ("unmute", json!({}), false, false),
    ] {
        let (status, answer) = world.post(&format!("/api/calls/telnyx/v3:abc/{what}"), body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(ways(&answer), (inbound, outbound), "{what}");
        assert_eq!(answer["data"]["callId"], "v3:abc");
    }
    for (path, body, status) in [
        ("telnyx/v3:abc/mute", json!({ "direction": "sideways" }), 422),
        ("telnyx/v3:abc/mute", json!({ "volume": 3 }), 422),
        ("telnyx/v3:nobody/mute", json!({}), 404),
        ("twilio/v3:abc/mute", json!({}), 404),
        ("telnyx/v3:abc/digits", json!({ "digits": "12x" }), 422),
        ("telnyx/v3:abc/digits", json!({}), 422),
        ("telnyx/v3:abc/transfer", json!({ "to": "911" }), 422),
    ] {
        assert_eq!(
            world.post(&format!("/api/calls/{path}"), body).await.0,
            status,
            "{path}"
        );
    }
    for (what, body, command, key, value) in [
        ("digits", json!({ "digits": "1a#" }), "send_dtmf", "digits", "1A#"),
        ("transfer", json!({ "to": "+15550100" }), "transfer", "to", "+15550100"),
    ] {
        let World {
            house,
            desk,
            peer,
            token,
        } = &mut world;
        let path = format!("/api/calls/telnyx/v3:abc/{what}");
        let (answer, ()) = tokio::join!(house.post(&path, Some(token), &body), async {
            let asked = timeout(SOON, desk.next()).await.unwrap().unwrap();
            assert_eq!(asked.path(), format!("/v2/calls/v3:abc/actions/{command}"));
            let said: Value = serde_json::from_slice(asked.body()).unwrap();
            assert_eq!(said[key], value);
            asked.carry_out(&mut **peer, Some(&Secret::new(KEY)));
        });
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
}

/// A call that says half a second of noise, through a whole daemon.
async fn simulate(daemon: &Daemon, rest: Option<SocketAddr>, secret: Option<&str>) -> Result<caller::Outcome, String> {
    let vendor = vendor::by_name("telnyx").unwrap();
    let mut samples = vec![0; 4000];
    sidetone::audio::tone::Noise::new(7).white(-20.0, &mut samples);
    let address: sidetone::sim::address::Address = format!("http://{}{HOOK}", daemon.address).parse().unwrap();
    let plan = Plan {
        vendor,
        daemon: daemon.url(),
        opening: Opening::Webhook(Webhook {
            url_secret: None,
            signed_as: address.at("http", HOOK),
            address,
            secret: secret.map(Secret::new),
            account: None,
            rest,
        }),
        from: CALLER.into(),
        to: OURS.into(),
        samples,
        manner: Manner::AsRecorded,
        format: None,
        faults: Vec::new(),
        linger: Duration::from_millis(500),
        limit: Duration::from_secs(30),
    };
    daemon::place(plan).await.unwrap().map_err(|e| e.to_string())
}

use sidetone::sim::caller;

#[tokio::test]
async fn a_simulated_call_is_carried_with_signatures_and_commands_and_its_record_is_whole() {
    let rest = free_address();
    let daemon = Daemon::start(&[], &secure(rest), &[]).await;
    let outcome = simulate(&daemon, Some(rest), Some(SEED)).await.unwrap();
    let report = &outcome.report;
    assert_eq!(report.ended, Ended::Caller, "{report:?}");
    assert_eq!(report.refused, [""; 0]);
    let echo = report.echo.expect("an echo");
    assert!(echo.bytes >= 3500, "{report:?}");
    let row = daemon::PATIENCE;
    let ended = async {
        loop {
            let found = daemon.database().query_row(
                "SELECT status, end_reason FROM phone_calls WHERE call_sid = ?1",
                [&report.call_sid],
                |r| Ok((r.get::<_, String>(0)?, r.get::<_, Option<String>>(1)?)),
            );
            if let Ok((status, Some(reason))) = found
                && status == "ended"
            {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(timeout(row, ended).await.unwrap(), "completed");
}

#[tokio::test]
async fn a_simulated_call_with_a_wrong_secret_is_refused_and_leaves_no_trace() {
    let rest = free_address();
    let daemon = Daemon::start(&[], &secure(rest), &[]).await;
    let refused = simulate(&daemon, Some(rest), Some(&"00".repeat(32))).await.unwrap_err();
    assert!(refused.contains("403"), "{refused}");
    let rows: i64 = daemon
        .database()
        .query_row("SELECT count(*) FROM phone_calls", [], |r| r.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_daemon_for_trying_out_takes_the_call_without_any_account() {
    let daemon = Daemon::dev(&["--agent", "echo"]).await;
    let outcome = simulate(&daemon, None, None).await.unwrap();
    assert_eq!(outcome.report.ended, Ended::Caller, "{:?}", outcome.report);
    assert!(outcome.report.echo.expect("an echo").bytes >= 3500);
}

fn secure(rest: SocketAddr) -> String {
    let access = "[access]\n[[access.jwt]]\nsecret = \"a8c3f1e09b7d4c2286aa55f0e1d2c3b4\"\n";
    format!(
        "{access}\n[calls]\npublic_url = \"http://{{address}}\"\n\n{}",
        config(rest)
    )
}
