//! Frontends' sockets over real TCP: what they see, what they may do, how they end.

use crate::house::{Frontend, House, PATIENCE};
use futures_util::SinkExt;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::{
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    bus::{Event, News},
    store::{Batch, Write},
};
use std::{sync::Arc, time::Duration};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// A frontend that watches a whole tenant, welcomed.
async fn watching(house: &House, tenant: i64, role: Role, more: &str) -> Frontend {
    let query = format!("token={}&client_type=telephony{more}", house.token(tenant, role));
    let mut frontend = house.frontend(&query).await;
    let welcome = frontend.next().await;
    assert_eq!(
        (&welcome["type"], &welcome["status"]),
        (&json!("telephony_connected"), &json!("ready"))
    );
    frontend
}

/// The id of the one live call of a tenant.
async fn only_call(house: &House, tenant: i64) -> String {
    let token = house.token(tenant, Role::Viewer);
    let (status, calls) = house.get("/api/calls/active", Some(&token)).await;
    assert_eq!((status, &calls["count"]), (200, &json!(1)), "{calls}");
    calls["data"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_incoming_call_is_seen_with_both_numbers_by_its_tenant_alone() {
    let house = House::new().await;
    let mut ours = watching(&house, 1, Role::Agent, "").await;
    let mut theirs = watching(&house, 2, Role::Agent, "").await;
    house.ring("CA1", 1).await;
    let news = ours.next().await;
    assert_eq!(news["type"], "call_status_update");
    assert_eq!(news["status"], "incoming");
    assert_eq!(news["customer_number"], "+15559990000");
    assert_eq!(news["organization_number"], "+15550100001");
    assert!(news["id"].is_i64() && Wall::parse(news["timestamp"].as_str().unwrap()).is_some());
    assert_eq!(news["call_id"], only_call(&house, 1).await);

    house.ring("CA2", 2).await;
    let news = theirs.next().await;
    assert_eq!(
        news["organization_number"], "+15550200001",
        "the other tenant's call was not seen"
    );
}

#[tokio::test]
async fn numbers_that_come_without_their_plus_are_those_with_it() {
    let house = House::new().await;
    let mut frontend = watching(&house, 1, Role::Viewer, "").await;
    let form = "CallSid=CA1&AccountSid=AC1&From=15559990000&To=15550100001&CallStatus=ringing&Direction=inbound&ApiVersion=2010-04-01";
    let answer = house.hook("/api/calls/twilio/webhook", form).await;
    assert!(answer.body().contains("<Stream"), "{}", answer.body());
    let news = frontend.next().await;
    assert_eq!(
        (&news["customer_number"], &news["organization_number"]),
        (&json!("+15559990000"), &json!("+15550100001"))
    );
}

#[tokio::test]
async fn a_newcomer_is_told_where_calls_stand_and_then_what_changes() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut frontend = watching(&house, 1, Role::Agent, "&call_id=CA1").await;
    let snapshot = frontend.next().await;
    assert_eq!(
        (&snapshot["status"], &snapshot["snapshot"]),
        (&json!("incoming"), &json!(true))
    );
    house.vendor_says("CA1", 1, "completed", 1).await;
    let news = frontend.next_of("call_status_update").await;
    assert_eq!(
        (&news["status"], &news["end_reason"]),
        (&json!("ended"), &json!("completed"))
    );
    assert_eq!(news.get("snapshot"), None);
}

#[tokio::test]
async fn a_frontend_of_one_call_sees_no_other() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut frontend = watching(&house, 1, Role::Agent, "&call_id=CA1").await;
    frontend.next().await;
    house.ring("CA2", 1).await;
    house.vendor_says("CA2", 1, "completed", 1).await;
    house.vendor_says("CA1", 1, "completed", 1).await;
    let call = frontend.next().await;
    assert_eq!(
        (&call["status"], &call["call_id"].as_str().is_some()),
        (&json!("ended"), &true)
    );
    let (_, shown) = house.get("/api/calls/CA1", Some(&house.token(1, Role::Viewer))).await;
    assert_eq!(shown["data"]["id"], call["call_id"]);
}

#[tokio::test]
async fn a_foreign_call_and_one_that_never_was_answer_alike() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let refused = async |call: &str| {
        let token = house.token(2, Role::Admin);
        let mut frontend = house.frontend(&format!("token={token}&call_id={call}")).await;
        let (code, before) = frontend.closed().await;
        let [error] = before.as_slice() else {
            panic!("{before:?}")
        };
        assert_eq!(error["call_id"], call);
        (code, error["error_code"].clone(), error["message"].clone())
    };
    let foreign = refused("CA1").await;
    assert_eq!(foreign, (4404, json!("CONNECTION_FAILED"), json!("call not found")));
    assert_eq!(refused("CA404").await, foreign);

    let mut tenant = watching(&house, 2, Role::Agent, "").await;
    for call in ["CA1", "CA404"] {
        tenant
            .say(&json!({"type": "agent_message", "call_id": call, "message": "hello"}))
            .await;
        let error = tenant.next().await;
        assert_eq!(error["message"], "agent_message: call not found", "{error}");
        tenant
            .say(&json!({"type": "audio_data", "call_id": call, "audio_data": "/w=="}))
            .await;
        assert_eq!(tenant.next().await["message"], "audio_data: call not found");
        tenant
            .say(&json!({"type": "update_call_status", "call_id": call, "status": "ended"}))
            .await;
        assert_eq!(tenant.next().await["message"], "update_call_status: call not found");
    }
}

#[tokio::test]
async fn a_message_is_confirmed_once_it_is_on_disk() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut frontend = watching(&house, 1, Role::Agent, "&call_id=CA1").await;
    frontend
        .say(&json!({"type": "agent_message", "call_id": "CA1", "message": "One moment, please.", "client_ref": "r-1"}))
        .await;
    let stored = frontend.next_of("agent_message_status").await;
    assert_eq!(stored["status"], "stored", "{stored}");
    assert_eq!((&stored["client_ref"], &stored["heard_ms"]), (&json!("r-1"), &json!(0)));
    let (_, messages) = house
        .get("/api/calls/CA1/messages", Some(&house.token(1, Role::Viewer)))
        .await;
    let message = &messages["data"][0];
    assert_eq!(message["message_id"], stored["message_id"]);
    assert_eq!(
        (&message["content"], &message["sender_type"]),
        (&json!("One moment, please."), &json!("agent"))
    );
    assert_eq!(message["sender_name"], "agent-1");
}

#[tokio::test]
async fn ending_a_call_from_a_frontend_ends_it_for_everybody() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut one = watching(&house, 1, Role::Agent, "&call_id=CA1").await;
    let mut all = watching(&house, 1, Role::Viewer, "").await;
    one.say(&json!({"type": "update_call_status", "call_id": "CA1", "status": "ended"}))
        .await;
    for frontend in [&mut one, &mut all] {
        loop {
            let news = frontend.next_of("call_status_update").await;
            if news["status"] == "ended" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_move_to_where_the_call_stands_already_is_confirmed() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut frontend = watching(&house, 1, Role::Agent, "").await;
    frontend.next_of("call_status_update").await;
    let to = |status: &str| json!({"type": "update_call_status", "call_id": "CA1", "status": status});
    frontend.say(&to("in_progress")).await;
    let news = frontend.next_of("call_status_update").await;
    assert_eq!((&news["status"], news.get("snapshot")), (&json!("in_progress"), None));
    for (asked, stands) in [("answered", "in_progress"), ("in_progress", "in_progress")] {
        frontend.say(&to(asked)).await;
        let confirmed = frontend.next().await;
        assert_eq!(
            (&confirmed["type"], &confirmed["status"], &confirmed["snapshot"]),
            (&json!("call_status_update"), &json!(stands), &json!(true))
        );
    }
    house.vendor_says("CA1", 1, "completed", 1).await;
    frontend.next_of("call_status_update").await;
    frontend.say(&to("answered")).await;
    let confirmed = frontend.next().await;
    assert_eq!(
        (&confirmed["status"], &confirmed["end_reason"]),
        (&json!("ended"), &json!("completed"))
    );
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_in_order_and_once() {
    let house = House::new().await;
    let mut first = watching(&house, 1, Role::Agent, "").await;
    house.ring("CA1", 1).await;
    let incoming = first.next().await;
    let (seen, call) = (incoming["id"].as_i64().unwrap(), incoming["call_id"].as_str().unwrap());
    drop(first);
    // Steps of other calls, more than one page of them.
    for n in 0..700 {
        let write = Write::Event {
            tenant: TenantId(1),
            call_id: call.parse().unwrap(),
            payload: json!({"type": "dtmf", "call_id": call, "digit": "1", "timestamp": Wall::from_micros(n)})
                .to_string(),
        };
        drop(house.store.commit(Batch { writes: vec![write] }));
    }
    let token = house.token(1, Role::Agent);
    let query = format!("token={token}&client_type=telephony&last_event_id={seen}");
    let (mut back, ()) = tokio::join!(house.frontend(&query), house.vendor_says("CA1", 1, "completed", 9));
    assert_eq!(back.next().await["type"], "telephony_connected");
    let mut ids = Vec::new();
    loop {
        let event = back.next().await;
        ids.push(event["id"].as_i64().unwrap());
        if event["status"] == "ended" {
            break;
        }
    }
    assert_eq!(ids, (seen + 1..).take(ids.len()).collect::<Vec<_>>());
    assert_eq!(ids.len(), 701);
    // Nothing comes twice, whichever way it came.
    back.say(&json!({"type": "ping"})).await;
    assert_eq!(back.next().await["type"], "pong");
}

#[tokio::test]
async fn without_a_token_nobody_is_let_in_and_missing_and_bad_look_alike() {
    let house = House::new().await;
    let path = |token: &str| format!("/api/ws/telephony/stream?client_type=telephony{token}");
    let missing = house.upgrade(&path(""), &[]).await.unwrap_err();
    let bad = house.upgrade(&path("&token=a.b.c"), &[]).await.unwrap_err();
    assert_eq!(missing.0, 401);
    assert_eq!(missing, bad);
    let token = house.token(1, Role::Agent);
    let twice = house
        .upgrade(&path(&format!("&token={token}&token={token}")), &[])
        .await
        .unwrap_err();
    assert_eq!(twice.0, 400);
}

#[tokio::test]
async fn a_token_travels_in_the_query_the_header_or_the_subprotocol() {
    let house = House::new().await;
    let token = house.token(1, Role::Agent);
    let path = "/api/ws/telephony/stream?client_type=telephony";
    let bearer = format!("Bearer {token}");
    let mut by_header = house.upgrade(path, &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(by_header.next().await["type"], "telephony_connected");
    let offered = format!("bearer, {token}");
    let mut by_protocol = house
        .upgrade(path, &[("sec-websocket-protocol", &offered)])
        .await
        .unwrap();
    assert_eq!(by_protocol.protocol.as_deref(), Some("bearer"), "never the token");
    assert_eq!(by_protocol.next().await["type"], "telephony_connected");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_before_the_upgrade() {
    let house = House::with("[http]\norigins = [\"https://app.example.com\"]").await;
    let path = format!(
        "/api/ws/telephony/stream?client_type=telephony&token={}",
        house.token(1, Role::Agent)
    );
    for (origin, status) in [
        ("https://app.example.com", 101),
        ("http://relay.test", 101),
        ("https://app.example.com.evil.example", 403),
        ("https://evil.example", 403),
        ("http://app.example.com", 403),
        ("https://app.example.com:8443", 403),
        ("null", 403),
        ("http://localhost:3000", 403),
    ] {
        let got = house
            .upgrade(&path, &[("origin", origin)])
            .await
            .map_or_else(|e| e.0, |_| 101);
        assert_eq!(got, status, "{origin}");
    }
}

#[tokio::test]
async fn on_dev_this_machines_pages_need_no_token_and_others_are_refused() {
    let house = House::dev().await;
    let path = "/api/ws/telephony/stream?client_type=telephony";
    for (origin, status) in [("http://localhost:3000", 101), ("https://evil.example", 403)] {
        let got = house
            .upgrade(path, &[("origin", origin)])
            .await
            .map_or_else(|e| e.0, |_| 101);
        assert_eq!(got, status, "{origin}");
    }
    assert!(house.upgrade(path, &[]).await.is_ok());
    let wrong = house.upgrade(&format!("{path}&token=a.b.c"), &[]).await.unwrap_err();
    assert_eq!(wrong.0, 401, "a wrong token is wrong even here");
}

#[tokio::test]
async fn a_viewer_only_watches() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let mut viewer = watching(&house, 1, Role::Viewer, "&call_id=CA1").await;
    viewer.say(&json!({"type": "agent_message", "message": "hello"})).await;
    let error = viewer.next_of("telephony_error").await;
    assert_eq!(error["error_code"], "CONNECTION_FAILED");
    viewer.say(&json!({"type": "ping"})).await;
    assert_eq!(viewer.next().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn bad_messages_are_answered_and_the_third_that_is_no_json_ends_the_socket() {
    let house = House::new().await;
    let mut frontend = watching(&house, 1, Role::Agent, "").await;
    for text in ["{", "nonsense", "]"] {
        frontend.ws.send(Message::text(text)).await.unwrap();
    }
    let (code, before) = frontend.closed().await;
    assert_eq!((code, before.len()), (1007, 2));
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    let house = House::new().await;
    let mut binary = watching(&house, 1, Role::Agent, "").await;
    binary.ws.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(binary.closed().await.0, 1003);

    let mut big = watching(&house, 1, Role::Agent, "").await;
    // The server may close while we still write.
    let _ = big.ws.send(Message::text("x".repeat(1 << 20))).await;
    assert_eq!(big.closed().await.0, 1009);

    let mut other = watching(&house, 1, Role::Agent, "").await;
    other.say(&json!({"type": "ping"})).await;
    assert_eq!(other.next().await["type"], "pong", "others do not notice");
}

#[tokio::test]
async fn a_message_may_come_in_a_few_fragments_and_not_in_many_or_for_ever() {
    let house = House::with("[frontends]\nfragments_timeout = \"200ms\"").await;
    let piece = |text: &str, first: bool, last: bool| {
        let opcode = OpCode::Data(if first { Data::Text } else { Data::Continue });
        Message::Frame(Frame::message(text.to_owned(), opcode, last))
    };
    let mut frontend = watching(&house, 1, Role::Agent, "").await;
    let ping = r#"{"type":"ping"}"#;
    for (n, letter) in ping.chars().enumerate() {
        let message = piece(&letter.to_string(), n == 0, n + 1 == ping.len());
        frontend.ws.send(message).await.unwrap();
    }
    assert_eq!(frontend.next().await, json!({"type": "pong"}));
    for n in 0..64 {
        frontend.ws.send(piece(" ", n == 0, false)).await.unwrap();
    }
    assert_eq!(frontend.closed().await.0, 1008);

    let mut slow = watching(&house, 1, Role::Agent, "").await;
    slow.ws.send(piece("{", true, false)).await.unwrap();
    assert_eq!(slow.closed().await.0, 1008);
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let house = House::new().await;
    let token = house.short_token(1, Role::Agent, Duration::from_secs(1));
    let mut frontend = house.frontend(&format!("token={token}&client_type=telephony")).await;
    assert_eq!(frontend.closed().await.0, 4401);

    let token = house.short_token(1, Role::Agent, Duration::from_secs(2));
    let mut frontend = house.frontend(&format!("token={token}&client_type=telephony")).await;
    frontend.next().await;
    frontend
        .say(&json!({"type": "refresh_token", "token": house.token(1, Role::Agent)}))
        .await;
    let refreshed = frontend.next().await;
    assert_eq!(refreshed["type"], "token_refreshed");
    let until = Wall::parse(refreshed["expires_at"].as_str().unwrap()).unwrap();
    assert!(until.as_secs() > Wall::now().as_secs() + 300);
}

#[tokio::test]
async fn init_names_the_call_where_the_query_did_not_and_must_come_in_time() {
    let house = House::with("[frontends]\ninit_timeout = \"300ms\"").await;
    house.ring("CA1", 1).await;
    let token = house.token(1, Role::Agent);
    let mut frontend = house.frontend(&format!("token={token}")).await;
    frontend
        .say(&json!({"type": "init_telephony_stream", "call_id": "CA1", "language": "auto", "model": "nova-2", "client_type": "telephony"}))
        .await;
    let welcome = frontend.next().await;
    assert_eq!(
        (&welcome["type"], &welcome["call_sid"]),
        (&json!("telephony_connected"), &json!("CA1"))
    );
    let mut silent = house.frontend(&format!("token={token}")).await;
    assert_eq!(silent.closed().await.0, 1008);
}

fn speech(tenant: i64, seq: u32) -> Arc<Event> {
    let news = News::TtsAudio {
        message_id: MessageId::new(),
        message: "words".into(),
        audio: vec![0x55; 1600].into(),
        seq,
        last: false,
    };
    Arc::new(Event {
        tenant: TenantId(tenant),
        call: CallId::new(),
        id: None,
        at: Wall::now(),
        news,
    })
}

fn event(tenant: i64, id: i64) -> Arc<Event> {
    let news = News::Status {
        status: "incoming",
        end_reason: None,
        customer_number: "+1".repeat(2000),
        organization_number: "+2".into(),
        call_sid: "sid".into(),
        inbound: true,
        duration: None,
    };
    Arc::new(Event {
        tenant: TenantId(tenant),
        call: CallId::new(),
        id: Some(id),
        at: Wall::now(),
        news,
    })
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_audio_then_its_socket_and_harms_nobody() {
    let house = House::with("[frontends]\nqueue_bytes = 65536\nwrite_stall = \"60s\"").await;
    let mut stuck = watching(&house, 1, Role::Viewer, "").await;
    let mut quick = watching(&house, 1, Role::Viewer, "").await;
    // Enough to fill both kernels' buffers of a socket nobody reads, and its queue.
    let mut seen = 0;
    for seq in 0..8000 {
        house.bus.publish(speech(1, seq));
        if quick.next().await["type"] == "agent_tts_audio" {
            seen += 1;
        }
    }
    assert_eq!(seen, 8000, "who reads misses nothing");
    for id in 1..200 {
        house.bus.publish(event(1, id));
        assert_eq!(quick.next().await["id"], id);
    }
    let (code, before) = stuck.closed().await;
    assert_eq!(code, 1013);
    let audio = before.iter().filter(|m| m["type"] == "agent_tts_audio").count();
    assert!(audio < 8000, "{audio}");
}

#[tokio::test]
async fn a_client_that_reads_again_is_told_of_the_gap_and_gets_every_event() {
    let house = House::with("[frontends]\nqueue_bytes = 262144").await;
    let mut slow = watching(&house, 1, Role::Viewer, "").await;
    for seq in 0..8000 {
        house.bus.publish(speech(1, seq));
        if seq % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for id in 1..=20 {
        house.bus.publish(event(1, id));
    }
    let (mut gap, mut ids) = (0, Vec::new());
    while ids.len() < 20 {
        let message = slow.next().await;
        match message["type"].as_str().unwrap() {
            "gap" => gap += message["dropped"].as_u64().unwrap(),
            "call_status_update" => ids.push(message["id"].as_i64().unwrap()),
            _ => {}
        }
    }
    assert!(gap > 0);
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn crossed_events_reach_clients_in_order() {
    let house = House::new().await;
    let mut frontend = watching(&house, 1, Role::Viewer, "").await;
    for id in [1, 3, 4, 2, 5] {
        house.bus.publish(event(1, id));
    }
    for id in 1..=5 {
        assert_eq!(frontend.next().await["id"], id);
    }
}

#[tokio::test]
async fn speech_is_encoded_as_each_client_asked() {
    let house = House::new().await;
    let mut plain = watching(&house, 1, Role::Viewer, "").await;
    let mut linear = watching(&house, 1, Role::Viewer, "&encoding=L16").await;
    house.bus.publish(speech(1, 0));
    let (plain, linear) = (plain.next().await, linear.next().await);
    assert_eq!(
        (&plain["encoding"], &plain["sample_rate"]),
        (&json!("MULAW"), &json!(8000))
    );
    assert_eq!(linear["encoding"], "L16");
    let len = |m: &Value| m["audio_data"].as_str().unwrap().len();
    assert!(len(&linear) > len(&plain) * 19 / 10);
}

#[tokio::test]
async fn too_many_sockets_of_one_address_are_refused() {
    let house = House::with("[frontends]\nsockets_per_address = 2").await;
    let _one = watching(&house, 1, Role::Viewer, "").await;
    let two = watching(&house, 1, Role::Viewer, "").await;
    let path = format!(
        "/api/ws/telephony/stream?client_type=telephony&token={}",
        house.token(1, Role::Viewer)
    );
    assert_eq!(house.upgrade(&path, &[]).await.unwrap_err().0, 429);
    drop(two);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while house.upgrade(&path, &[]).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the seat was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_closing_hub_says_goodbye_and_takes_nobody_new() {
    let house = House::new().await;
    let mut frontend = watching(&house, 1, Role::Viewer, "").await;
    house.hub.close();
    assert_eq!(frontend.closed().await.0, 1001);
    let path = format!("/api/ws/telephony/stream?token={}", house.token(1, Role::Viewer));
    assert_eq!(house.upgrade(&path, &[]).await.unwrap_err().0, 503);
}
