//! Phone numbers and agents over REST, and the paths of a number's own, with vendors' signatures as vendors make them.

use crate::house::{House, PATIENCE};
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::secret::Secret,
    config::{Config, Env},
    net::client::ApiRequest,
    vendor::{self, Answer, Peer, PeerCall},
};
use std::time::Duration;

const NUMBERS: &str = "/api/phone-numbers";
const AGENTS: &str = "/api/agents";
const OURS: &str = "+15557770001";
const ACCOUNT: &str = "AC00000000000000000000000000000009";
const AUTH: &str = "f00dfacef00dfacef00dfacef00dface";

fn line(number: &str) -> Value {
    json!({
        "phoneNumber": number,
        "displayName": "Support line",
        "provider": "twilio",
        "twilioConfig": {"accountSid": ACCOUNT, "authToken": AUTH},
    })
}

fn admin(house: &House, tenant: i64) -> String {
    house.token(tenant, Role::Admin)
}

async fn add(house: &House, tenant: i64, body: &Value) -> Value {
    let (status, answer) = house.post(NUMBERS, Some(&admin(house, tenant)), body).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
    answer["phoneNumber"].clone()
}

async fn hire(house: &House, tenant: i64, body: Value) -> String {
    let (status, answer) = house.post(AGENTS, Some(&admin(house, tenant)), &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["id"].as_str().unwrap().to_owned()
}

async fn listed(house: &House, tenant: i64) -> Vec<Value> {
    let (status, answer) = house.get(NUMBERS, Some(&admin(house, tenant))).await;
    assert_eq!(status, 200, "{answer}");
    answer["phoneNumbers"].as_array().unwrap().clone()
}

/// The path of a URL that we gave.
fn path(url: &Value) -> String {
    let url = url.as_str().unwrap();
    url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap()
}

/// The vendor's side of a call.
fn peer(sid: &str) -> Box<dyn Peer> {
    (vendor::by_name("twilio").unwrap().peer)(PeerCall {
        call_sid: sid.to_owned(),
        token: None,
        from: "+15559990000".to_owned(),
        to: OURS.to_owned(),
        account: Some(ACCOUNT.to_owned()),
        ..PeerCall::default()
    })
}

/// Announces a call as the vendor does, and reads the answer as it does.
async fn ring(house: &House, url: &str, sid: &str, secret: &str) -> Result<Answer, u16> {
    let peer = peer(sid);
    let announcement = peer.announce(url, Some(&Secret::new(secret))).unwrap();
    let answer = house.request(replay(announcement)).await;
    match answer.status().as_u16() {
        200 => Ok(peer.answered(answer.body().as_bytes()).unwrap()),
        status => Err(status),
    }
}

fn replay(request: ApiRequest) -> http::Request<String> {
    let uri: http::Uri = request.url.parse().unwrap();
    let path = uri.path_and_query().unwrap().as_str().to_owned();
    let mut out = http::Request::builder().method(request.method).uri(path);
    out.headers_mut().unwrap().extend(request.headers);
    let out = out.header("host", uri.authority().unwrap().as_str());
    out.body(String::from_utf8(request.body.to_vec()).unwrap()).unwrap()
}

async fn active(house: &House, tenant: i64) -> Vec<Value> {
    let (_, answer) = house.get("/api/calls/active", Some(&admin(house, tenant))).await;
    answer["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_number_goes_in_is_changed_and_goes_without_its_secrets_ever_coming_out() {
    let house = House::new().await;
    let added = add(&house, 1, &line(OURS)).await;
    let id = added["id"].as_str().unwrap();
    assert_eq!(id.len(), "num_".len() + 32);
    assert_eq!(added["phoneNumber"], OURS);
    assert_eq!(added["displayName"], "Support line");
    assert_eq!(added["provider"], "twilio");
    assert_eq!(added["linkedAgentId"], Value::Null);
    assert_eq!(added["status"], "active");
    assert_eq!(added["source"], "api");
    assert_eq!(
        added["webhookUrl"],
        format!("http://relay.test/api/telephony/webhook/{id}")
    );
    assert_eq!(added["websocketUrl"], format!("ws://relay.test/api/telephony/ws/{id}"));
    assert_eq!(added["twilioConfig"], json!({"accountSid": ACCOUNT}));
    assert_eq!(added["secrets"], json!(["authToken"]));

    let change = json!({"id": id, "displayName": "Sales", "status": "inactive", "twilioConfig": {"edge": "dublin", "region": "ie1"}});
    let (status, changed) = house.put(NUMBERS, Some(&admin(&house, 1)), &change).await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["phoneNumber"];
    assert_eq!(
        (&changed["displayName"], &changed["status"]),
        (&json!("Sales"), &json!("inactive"))
    );
    assert_eq!(
        changed["twilioConfig"],
        json!({"accountSid": ACCOUNT, "edge": "dublin", "region": "ie1"})
    );
    assert_eq!(changed["secrets"], json!(["authToken"]), "a secret left out stays");
    assert!(listed(&house, 1).await.contains(changed));

    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let plain = bytes.windows(AUTH.len()).any(|w| w == AUTH.as_bytes());
        assert!(!plain, "a secret lies on disk as it is");
    }

    let (status, gone) = house
        .delete(&format!("{NUMBERS}?id={id}"), Some(&admin(&house, 1)))
        .await;
    assert_eq!((status, &gone["success"]), (200, &json!(true)));
    let again = house
        .delete(&format!("{NUMBERS}?id={id}"), Some(&admin(&house, 1)))
        .await;
    assert_eq!(again.0, 404);
    assert!(listed(&house, 1).await.iter().all(|n| n["id"] != *id));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_word_of_help() {
    let house = House::new().await;
    add(&house, 1, &line(OURS)).await;
    let with = |key: &str, value: Value| {
        let mut body = line("+15557770002");
        body[key] = value;
        body
    };
    for (body, status, part) in [
        (
            with("phoneNumber", json!("15557770002")),
            422,
            "must be in E.164 format (e.g., +1234567890)",
        ),
        (with("phoneNumber", Value::Null), 422, "E.164"),
        (with("provider", json!("acme")), 422, "provider is one of"),
        (with("nope", json!(1)), 422, "unknown fields: nope, tenant_id"),
        (
            with("status", json!("Not Active")),
            422,
            "status is one of active, inactive",
        ),
        (with("displayName", json!("a\nb")), 422, "displayName"),
        (with("linkedAgentId", json!("nobody")), 422, "no agent \"nobody\""),
        (
            with("twilioConfig", json!({"authTokn": "x"})),
            422,
            "twilioConfig.authTokn: no such key (did you mean auth_token?)",
        ),
        (
            with("twilioConfig", json!({"accountSid": "x"})),
            422,
            "twilioConfig.accountSid",
        ),
        (with("twilioConfig", json!("x")), 422, "twilioConfig is not an object"),
        (
            with("twilioConfig", json!({"accountSid": ACCOUNT})),
            422,
            "twilioConfig needs authToken or sharedKeys",
        ),
        (with("phoneNumber", json!(OURS)), 409, "is here already"),
        (with("id", json!("num_1")), 422, "id is given"),
    ] {
        let mut body = body;
        if body.get("nope").is_some() {
            body["tenant_id"] = json!(2);
        }
        let (found, answer) = house.post(NUMBERS, Some(&admin(&house, 1)), &body).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            found == status && message.contains(part),
            "{body}\n{found} {answer}\nwanted {status} {part}"
        );
    }
    let told = with("twilioConfig", json!({"accountSid": ACCOUNT, "insecure": true}));
    assert_eq!(add(&house, 1, &told).await["twilioConfig"]["insecure"], true);
    let bare = json!({"phoneNumber": "+15557770003", "provider": "twilio"});
    let (status, answer) = house.post(NUMBERS, Some(&admin(&house, 2)), &bare).await;
    assert_eq!(
        status, 422,
        "another tenant does not get the operator's account: {answer}"
    );
    assert_eq!(add(&house, 1, &bare).await["secrets"], json!([]));
}

#[tokio::test]
async fn what_the_configuration_says_is_shown_and_cannot_be_changed() {
    let house = House::new().await;
    let numbers = listed(&house, 1).await;
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    assert_eq!(
        (&numbers[0]["source"], &numbers[0]["phoneNumber"]),
        (&json!("config"), &json!("+15550100001"))
    );
    let id = numbers[0]["id"].as_str().unwrap();
    let token = admin(&house, 1);
    let (status, answer) = house
        .put(NUMBERS, Some(&token), &json!({"id": id, "displayName": "x"}))
        .await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("conflict")),
        "{answer}"
    );
    assert_eq!(house.delete(&format!("{NUMBERS}?id={id}"), Some(&token)).await.0, 409);
    let (_, agents) = house.get(AGENTS, Some(&token)).await;
    let agents = agents["data"].as_array().unwrap();
    let echo = agents.iter().find(|a| a["name"] == "echo").unwrap();
    assert_eq!(echo["source"], "config");
    let echo = echo["id"].as_str().unwrap();
    assert_eq!(
        house
            .put(AGENTS, Some(&token), &json!({"id": echo, "greeting": "x"}))
            .await
            .0,
        409
    );
    assert_eq!(house.post(AGENTS, Some(&token), &json!({"name": "echo"})).await.0, 409);
}

#[tokio::test]
async fn a_tenant_manages_its_own_and_only_an_admin_does() {
    let house = House::new().await;
    let id = add(&house, 1, &line(OURS)).await["id"].as_str().unwrap().to_owned();
    let agent = hire(&house, 1, json!({"name": "desk", "kind": "human"})).await;
    let other = admin(&house, 2);
    assert!(listed(&house, 2).await.iter().all(|n| n["id"] != *id));
    let (_, agents) = house.get(AGENTS, Some(&other)).await;
    assert!(agents["data"].as_array().unwrap().iter().all(|a| a["id"] != *agent));
    for (path, id) in [(NUMBERS, &id), (AGENTS, &agent)] {
        let (status, foreign) = house.put(path, Some(&other), &json!({"id": id})).await;
        let absent = house.put(path, Some(&other), &json!({"id": "num_0000"})).await;
        assert_eq!((status, &foreign), (404, &absent.1));
        assert_eq!(house.delete(&format!("{path}?id={id}"), Some(&other)).await.0, 404);
    }
    let linked = json!({"id": listed(&house, 2).await[0]["id"], "linkedAgentId": agent});
    assert_ne!(house.put(NUMBERS, Some(&other), &linked).await.0, 200);

    for (role, method_refused) in [(Role::Viewer, true), (Role::Agent, false)] {
        let token = house.token(1, role);
        let (status, _) = house.get(NUMBERS, Some(&token)).await;
        assert_eq!(status == 403, method_refused, "{role}");
        assert_eq!(house.get(AGENTS, Some(&token)).await.0, 200);
        assert_eq!(house.post(NUMBERS, Some(&token), &line("+15557770009")).await.0, 403);
        assert_eq!(house.put(AGENTS, Some(&token), &json!({"id": agent})).await.0, 403);
        assert_eq!(house.delete(&format!("{NUMBERS}?id={id}"), Some(&token)).await.0, 403);
    }
    assert_eq!(house.get(NUMBERS, None).await.0, 401);
}

#[tokio::test]
async fn a_call_to_a_numbers_own_path_is_verified_by_its_own_account() {
    let house = House::strict().await;
    let number = add(&house, 2, &line(OURS)).await;
    let url = number["webhookUrl"].as_str().unwrap();
    assert_eq!(
        ring(&house, url, "CA1", "00000000000000000000000000000000").await,
        Err(403)
    );
    let of_operator = "12345678901234567890123456789012";
    assert_eq!(ring(&house, url, "CA1", of_operator).await, Err(403));
    let nowhere = "http://relay.test/api/telephony/webhook/num_00000000000000000000000000000000";
    assert_eq!(ring(&house, nowhere, "CA1", AUTH).await, Err(404));
    assert!(active(&house, 2).await.is_empty(), "nothing was believed");

    let Answer::Stream {
        url: stream,
        token,
        status_url,
        ..
    } = ring(&house, url, "CA1", AUTH).await.unwrap()
    else {
        panic!("no stream");
    };
    let id = number["id"].as_str().unwrap();
    assert!(
        stream.starts_with(&format!("ws://relay.test/api/telephony/ws/{id}/")),
        "{stream}"
    );
    assert!(stream.ends_with(&token) || !token.is_empty(), "{stream}");
    assert_eq!(status_url, format!("{url}/status"));
    let calls = active(&house, 2).await;
    assert_eq!((calls.len(), &calls[0]["to"]), (1, &json!(OURS)));
    assert!(active(&house, 1).await.is_empty());

    let (wrong, _) = house.upgrade(&path(&json!(stream)), &[]).await.unwrap_err();
    assert_eq!(wrong, 403, "the upgrade is not signed");
    let peer = (vendor::by_name("twilio").unwrap().peer)(PeerCall {
        call_sid: "CA1".to_owned(),
        token: Some(token.clone()),
        from: String::new(),
        to: String::new(),
        account: Some(ACCOUNT.to_owned()),
        ..PeerCall::default()
    });
    let (name, value) = peer.sign_upgrade(&stream, &Secret::new(AUTH)).unwrap();
    assert_eq!(name, "x-twilio-signature");
    let header = ("x-twilio-signature", value.to_str().unwrap());
    let _socket = house.upgrade(&path(&json!(stream)), &[header]).await.unwrap();
    let upgrade = adopted(&house).await;
    assert_eq!(
        (upgrade.path_token.as_deref(), upgrade.number.as_deref()),
        (Some(&*token), Some(id))
    );
    assert!(!upgrade.proven);
}

async fn adopted(house: &House) -> sidetone::vendor::Upgrade {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(upgrade) = house.door.adopted.lock().unwrap().pop() {
            return upgrade;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing was adopted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_operators_secret_opens_no_number_that_has_an_account_of_its_own() {
    let house = House::strict().await;
    let number = add(&house, 2, &line(OURS)).await;
    let (vendors, of_operator) = (
        "http://relay.test/api/calls/twilio/webhook",
        "12345678901234567890123456789012",
    );
    let answer = ring(&house, vendors, "CA1", of_operator).await;
    assert!(!matches!(answer, Ok(Answer::Stream { .. })), "{answer:?}");
    assert!(active(&house, 2).await.is_empty());
    let url = number["webhookUrl"].as_str().unwrap();
    let answer = ring(&house, url, "CA2", AUTH).await;
    assert!(matches!(answer, Ok(Answer::Stream { .. })), "{answer:?}");
    // Nor is the operator's account told where the stream of a call goes that another account carries.
    let answer = ring(&house, vendors, "CA2", of_operator).await;
    assert!(!matches!(answer, Ok(Answer::Stream { .. })), "{answer:?}");
    assert_eq!(active(&house, 2).await.len(), 1);
}

#[tokio::test]
async fn who_moves_an_account_elsewhere_must_bring_its_secrets_again() {
    let house = House::new().await;
    let added = add(&house, 1, &line(OURS)).await;
    let token = admin(&house, 1);
    let moved = |more: Value| {
        let mut config = json!({"baseUrl": "https://elsewhere.example"});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"id": added["id"], "twilioConfig": config})
    };
    let (status, refused) = house.put(NUMBERS, Some(&token), &moved(json!({}))).await;
    assert_eq!(status, 422, "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("baseUrl") && message.contains("authToken"),
        "{message}"
    );
    assert_eq!(listed(&house, 1).await[0]["twilioConfig"].get("baseUrl"), None);
    let (status, answer) = house
        .put(NUMBERS, Some(&token), &moved(json!({"authToken": AUTH})))
        .await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_call_id_that_another_tenant_took_first_is_still_ours_and_its_news_are_not() {
    let house = House::strict().await;
    let (ours, theirs) = (
        add(&house, 1, &line(OURS)).await,
        add(&house, 2, &line("+15557770008")).await,
    );
    let url = |number: &Value| number["webhookUrl"].as_str().unwrap().to_owned();
    let taken = ring(&house, &url(&theirs), "CA7", AUTH).await;
    assert!(matches!(taken, Ok(Answer::Stream { .. })), "{taken:?}");
    let answer = ring(&house, &url(&ours), "CA7", AUTH).await;
    assert!(matches!(answer, Ok(Answer::Stream { .. })), "{answer:?}");
    assert_ne!(answer, taken);
    let calls = async || (active(&house, 1).await.len(), active(&house, 2).await.len());
    assert_eq!(calls().await, (1, 1));
    let over = |number: &Value| {
        let over = peer("CA7").conclude(&format!("{}/status", url(number)), 1, Some(&Secret::new(AUTH)));
        house.request(replay(over.unwrap()))
    };
    assert_eq!(over(&theirs).await.status(), 204);
    assert_eq!(calls().await, (1, 0), "news of theirs end theirs");
    // Nor is a call of ours over because one of theirs is.
    assert_eq!(ring(&house, &url(&theirs), "CA7", AUTH).await, Ok(Answer::HangUp));
    assert_eq!(ring(&house, &url(&ours), "CA7", AUTH).await, answer);
    assert_eq!(over(&ours).await.status(), 204);
    assert_eq!(calls().await, (0, 0));
}

#[tokio::test]
async fn a_number_that_is_not_active_is_busy() {
    let house = House::strict().await;
    let number = add(&house, 1, &line(OURS)).await;
    let url = number["webhookUrl"].as_str().unwrap();
    let paused = json!({"id": number["id"], "status": "inactive"});
    assert_eq!(house.put(NUMBERS, Some(&admin(&house, 1)), &paused).await.0, 200);
    assert_eq!(ring(&house, url, "CA1", AUTH).await, Ok(Answer::Busy));
    assert!(active(&house, 1).await.is_empty());
    let dial = json!({"to": "+14155550123", "from": OURS});
    let (status, answer) = house.post("/api/calls/initiate", Some(&admin(&house, 1)), &dial).await;
    assert_eq!(status, 409, "{answer}");
}

#[tokio::test]
async fn the_status_of_a_number_is_one_of_two_words() {
    let house = House::strict().await;
    let id = add(&house, 1, &line(OURS)).await["id"].clone();
    for word in ["busy", "paused", "ACTIVE", "active ", ""] {
        let change = json!({"id": id, "status": word});
        let (status, answer) = house.put(NUMBERS, Some(&admin(&house, 1)), &change).await;
        assert_eq!(
            (status, &answer["error"]["message"]),
            (422, &json!("status is one of active, inactive")),
            "{word:?}"
        );
    }
    for word in ["inactive", "active"] {
        let change = json!({"id": id, "status": word});
        let (status, answer) = house.put(NUMBERS, Some(&admin(&house, 1)), &change).await;
        assert_eq!((status, &answer["phoneNumber"]["status"]), (200, &json!(word)));
    }
}

#[tokio::test]
async fn a_number_is_answered_by_its_agent_else_by_the_most_recent_one() {
    let house = House::strict().await;
    let number = add(&house, 1, &line(OURS)).await;
    let url = number["webhookUrl"].as_str().unwrap();
    let serves = async |sid: &str| {
        ring(&house, url, sid, AUTH).await.unwrap();
        active(&house, 1).await.iter().find(|c| c["call_sid"] == *sid).unwrap()["agent"].clone()
    };
    assert_eq!(serves("CA1").await, "human", "nobody else is there");
    let first = hire(&house, 1, json!({"name": "first", "kind": "listen"})).await;
    assert_eq!(serves("CA2").await, "first");
    hire(&house, 1, json!({"name": "second", "kind": "echo"})).await;
    hire(&house, 2, json!({"name": "not theirs", "kind": "echo"})).await;
    assert_eq!(serves("CA3").await, "second");
    let link = |agent: Value| json!({"id": number["id"], "linkedAgentId": agent});
    let token = admin(&house, 1);
    let (_, linked) = house.put(NUMBERS, Some(&token), &link(json!("first"))).await;
    assert_eq!(
        linked["phoneNumber"]["linkedAgentId"],
        json!(first),
        "by name, shown by id"
    );
    assert_eq!(serves("CA4").await, "first");
    assert_eq!(house.delete(&format!("{AGENTS}?id={first}"), Some(&token)).await.0, 409);
    house.put(NUMBERS, Some(&token), &link(Value::Null)).await;
    assert_eq!(serves("CA5").await, "second");
    assert_eq!(house.delete(&format!("{AGENTS}?id={first}"), Some(&token)).await.0, 200);
}

#[tokio::test]
async fn an_agent_is_kept_whole_and_what_it_says_takes_effect() {
    let house = House::new().await;
    let token = admin(&house, 1);
    let body = json!({
        "name": "Front desk", "kind": "scripted", "greeting": "Good morning.", "language": "en-GB",
        "bargeInAfter": "300ms", "recording": true, "prompt": "You are kind.", "llm": "scripted",
        "extractionSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
        "rules": [{"phrases": ["good bye"], "reply": "Bye.", "action": "hang_up"}],
        "fallback": {"reply": "Pardon?", "max": 2},
    });
    let id = hire(&house, 1, body.clone()).await;
    let (_, agents) = house.get(&format!("{AGENTS}?id={id}"), Some(&token)).await;
    let shown = &agents["data"][0];
    for (key, value) in body.as_object().unwrap() {
        assert_eq!(&shown[key], value, "{key}");
    }
    let (status, changed) = house
        .put(
            AGENTS,
            Some(&token),
            &json!({"id": id, "greeting": null, "recording": false}),
        )
        .await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["data"];
    assert_eq!(
        (&changed["greeting"], &changed["recording"]),
        (&json!(""), &json!(false))
    );
    assert_eq!(
        (&changed["prompt"], &changed["rules"]),
        (&body["prompt"], &body["rules"])
    );
    for (bad, part) in [
        (
            json!({"name": "x", "kind": "robot"}),
            "kind: \"robot\" is not known (one of echo, listen",
        ),
        (json!({"name": "x"}), "rules: a scripted agent needs rules"),
        (json!({"kind": "echo"}), "name is required"),
        (json!({"name": "Front desk", "kind": "echo"}), "already"),
        (json!({"name": "x", "kind": "human", "tts": "nobody"}), "tts is one of"),
        (
            json!({"name": "x", "kind": "human", "mood": "good"}),
            "unknown field: mood",
        ),
        (
            json!({"name": "x", "kind": "human", "recording": "yes"}),
            "recording must be true or false, not a string",
        ),
        (
            json!({"name": "x", "kind": "scripted", "rules": [{"phrases": ["a"], "reply": "b", "then": 1}]}),
            "rules.0.then",
        ),
        (
            json!({"name": "x", "kind": "human", "extractionSchema": []}),
            "extractionSchema must be an object, not a list",
        ),
    ] {
        let (status, answer) = house.post(AGENTS, Some(&token), &bad).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            (409..=422).contains(&status) && message.contains(part),
            "{bad} {status} {answer}"
        );
    }
}

#[tokio::test]
async fn in_development_any_id_will_do_and_the_request_shows_whose_it_is() {
    let house = House::dev().await;
    let form = "CallSid=CA1&AccountSid=AC1&From=%2B15559990000&To=%2B15550100001&CallStatus=ringing&Direction=inbound&ApiVersion=2010-04-01";
    let answer = house.hook("/api/telephony/webhook/123?provider=twilio", form).await;
    assert_eq!(answer.status(), 200, "{}", answer.body());
    assert!(answer.body().contains("<Stream"), "{}", answer.body());
    assert_eq!(
        house
            .hook("/api/telephony/webhook/123?provider=nobody", form)
            .await
            .status(),
        422
    );

    let _by_id = house
        .upgrade("/api/telephony/ws/123?provider=twilio", &[])
        .await
        .unwrap();
    let upgrade = adopted(&house).await;
    assert_eq!((upgrade.path_token, upgrade.number), (None, None));
    let token = answer
        .body()
        .split("token\" value=\"")
        .nth(1)
        .map(|rest| rest[..32].to_owned());
    let token = token
        .or_else(|| answer.body().split("/stream/").nth(1).map(|rest| rest[..32].to_owned()))
        .unwrap();
    let _by_token = house.upgrade(&format!("/ws/{token}"), &[]).await.unwrap();
    assert_eq!(
        adopted(&house).await.path_token,
        Some(token),
        "where a number may stand, a token is told from it"
    );
}

#[test]
fn the_environment_that_set_ups_have_is_enough_for_their_accounts() {
    let names = [
        ("TELNYX_API_KEY", "KEY1"),
        ("TELNYX_PUBLIC_KEY", "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="),
        ("TELNYX_APPLICATION_ID", "1293384261075731499"),
        ("TELNYX_STREAM_URL", "wss://relay.example.com/audio-stream"),
        ("EXOTEL_API_KEY", "k"),
        ("EXOTEL_API_TOKEN", "t"),
        ("EXOTEL_SID", "s"),
        ("TELER_ACCESS_TOKEN", "t"),
        ("NEXT_PUBLIC_APP_URL", "https://relay.example.com"),
        ("GEMINI_API_KEY", "of a later version"),
        ("WS_CALL_EVENTS_PORT", "3001"),
        ("PORT", "8000"),
    ];
    let env = names.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = Config::load(None, &env, &[]).unwrap_or_else(|faults| panic!("{faults:?}"));
    let trunks = config.trunks();
    for vendor in ["telnyx", "exotel", "teler"] {
        assert!(trunks[vendor].can_dial(), "{vendor}");
    }
    assert_eq!(config.calls.public_url, "https://relay.example.com");
    assert_eq!(config.listen.address.port(), 8000);
}

#[test]
fn a_configured_number_whose_vendor_anybody_could_pass_for_is_refused() {
    let load = |more: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sidetone.toml");
        let text = format!("[[numbers]]\nnumber = \"+15550100001\"\nvendor = \"twilio\"\n[twilio]\n{more}");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), &Env::new(), &[]).unwrap()
    };
    let refused = load("").check_guarded().unwrap_err();
    let said = refused[0].to_string();
    assert!(
        said.contains("set auth_token or shared_keys, or insecure = true"),
        "{said}"
    );
    assert!(load("insecure = true").check_guarded().is_ok());
    let account = format!("account_sid = \"{ACCOUNT}\"\nauth_token = \"{AUTH}\"\n");
    assert!(load(&account).check_guarded().is_ok());
}

#[tokio::test]
async fn a_number_of_a_vendor_that_signs_nothing_is_believed_by_its_id() {
    let house = House::strict().await;
    let body = json!({
        "phoneNumber": "+919876543210", "displayName": "Support Line", "provider": "exotel",
        "exotelConfig": {"apiKey": "your_api_key", "apiToken": "your_api_token", "sid": "your_account_sid",
            "appId": "optional_app_id", "domain": "api.in.exotel.com", "region": "in"},
    });
    let number = add(&house, 1, &body).await;
    assert_eq!(number["secrets"], json!(["apiKey", "apiToken"]));
    assert!(!number.to_string().contains("your_api_"), "{number}");
    let form = "CallSid=c0ffee&From=%2B919876500000&To=09876543210&Status=in-progress";
    let answer = house.hook(&path(&number["webhookUrl"]), form).await;
    assert_eq!(answer.status(), 200, "{}", answer.body());
    let stream = "<Stream url=\"ws://relay.test/api/telephony/ws/num_";
    assert!(answer.body().contains(stream), "{}", answer.body());
    let calls = active(&house, 1).await;
    assert_eq!(
        (&calls[0]["to"], &calls[0]["provider"]),
        (&json!("+919876543210"), &json!("exotel"))
    );
    let shared_path = house.hook("/api/calls/exotel/webhook", form).await;
    assert_eq!(shared_path.status(), 403);
    assert_eq!(house.hook("/api/telephony/webhook/123", form).await.status(), 404);

    for prefix in ["/api/telephony/ws", "/ws"] {
        let url = format!("{prefix}/{}?sample-rate=16000", number["id"].as_str().unwrap());
        let _socket = house.upgrade(&url, &[]).await.unwrap();
        let upgrade = adopted(&house).await;
        assert!(
            upgrade.proven && upgrade.number.as_deref() == number["id"].as_str(),
            "{prefix}"
        );
    }
    assert_eq!(house.upgrade("/api/telephony/ws/123", &[]).await.unwrap_err().0, 404);
}
