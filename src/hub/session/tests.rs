//! Conversations with a client: what it says and what comes of it.

use super::*;
use crate::base::ids::TenantId;
use serde_json::{Value, json};
use std::time::Duration;

const T0: Mono = Mono::from_millis(60_000);
const SECOND: Duration = Duration::from_secs(1);

fn identity(role: Role, expires: Option<Wall>) -> Identity {
    Identity {
        scopes: Default::default(),
        key: None,
        tenant: TenantId(1),
        role,
        subject: "ann".into(),
        expires,
    }
}

fn session(role: Role, query: &[(&str, &str)]) -> Session {
    let settings = Settings::from_query(query.iter().copied()).unwrap();
    Session::new(&Config::default(), identity(role, None), settings, T0, Wall::default())
}

fn watching_tenant() -> Session {
    let mut s = session(Role::Agent, &[("client_type", "telephony"), ("language", "es")]);
    assert_eq!(shown(&mut s), ["bind tenant"]);
    assert!(s.bound(Bound::Tenant).is_some());
    s
}

fn watching_call(id: CallId) -> Session {
    let mut s = session(Role::Agent, &[("call_id", "CA1")]);
    assert_eq!(shown(&mut s), ["bind CA1"]);
    let sid = "CA1".to_owned();
    assert!(s.bound(Bound::Call { id, sid }).is_some());
    s
}

fn say(s: &mut Session, message: &Value) {
    s.text(&message.to_string(), true, T0, Wall::default());
}

/// The effects so far, each in a few words.
fn shown(s: &mut Session) -> Vec<String> {
    std::iter::from_fn(|| s.poll())
        .map(|output| match output {
            Output::Send(text) => {
                let v: Value = serde_json::from_str(&text).unwrap();
                let what = v["message"].as_str().unwrap_or_default();
                format!("{} {what}", v["type"].as_str().unwrap()).trim_end().to_owned()
            }
            Output::Bind(call) => format!("bind {}", call.as_deref().unwrap_or("tenant")),
            Output::Act { call, action } => format!("{} {call}", action.name()),
            Output::Listen { language, .. } => format!("listen in {language}"),
            Output::Refresh(_) => "refresh".to_owned(),
            Output::Ping => "ping".to_owned(),
            Output::Close(close) => format!("close {} {}", close.code, close.reason),
        })
        .collect()
}

fn agent_message(call: Option<&str>) -> Value {
    json!({"type": "agent_message", "call_id": call, "message": "hello"})
}

#[test]
fn a_query_that_says_enough_binds_at_once_and_another_waits_for_init() {
    let mut s = session(Role::Agent, &[("token", "x"), ("language", "en")]);
    assert_eq!(shown(&mut s), [""; 0]);
    assert_eq!(s.deadline(), T0 + SECOND * 10);
    say(
        &mut s,
        &json!({"type": "init_telephony_stream", "call_id": "CA7", "language": "de"}),
    );
    assert_eq!(shown(&mut s), ["bind CA7"]);
    assert_eq!(s.settings().language.as_deref(), Some("de"));
}

#[test]
fn without_init_in_ten_seconds_the_socket_ends() {
    let mut s = session(Role::Agent, &[]);
    s.tick(T0 + SECOND * 9);
    assert_eq!(shown(&mut s), [""; 0]);
    say(&mut s, &agent_message(Some("CA1")));
    assert_eq!(
        shown(&mut s),
        ["telephony_error agent_message: init_telephony_stream comes first"]
    );
    s.tick(T0 + SECOND * 10);
    assert_eq!(shown(&mut s), ["close 1008 init_telephony_stream did not come"]);
    s.tick(T0 + SECOND * 60);
    say(&mut s, &json!({"type": "ping"}));
    assert_eq!(shown(&mut s), [""; 0], "nothing follows a close");
    assert!(s.deadline() > T0 + SECOND * 1_000_000);
}

#[test]
fn init_after_a_full_query_is_welcomed_again_and_rebinds_only_to_something_else() {
    let mut s = watching_call(CallId::new());
    say(&mut s, &json!({"type": "init_telephony_stream", "call_id": "CA1"}));
    assert_eq!(shown(&mut s), ["telephony_connected"]);
    say(&mut s, &json!({"type": "init_telephony_stream", "call_id": "CA2"}));
    assert_eq!(shown(&mut s), ["bind CA2"]);
    let mut s = watching_call(CallId::new());
    say(&mut s, &json!({"type": "init_telephony_stream", "last_event_id": 5}));
    assert_eq!(shown(&mut s), ["bind CA1"], "a replay starts anew");
}

#[test]
fn the_language_of_one_calls_client_reaches_the_ear_once_and_auto_and_viewers_leave_it() {
    let bound = |role, language| {
        let mut s = session(role, &[("call_id", "CA1"), ("language", language)]);
        let _ = s.bound(Bound::Call {
            id: CallId::new(),
            sid: "CA1".to_owned(),
        });
        s
    };
    let mut s = bound(Role::Agent, "es");
    assert_eq!(shown(&mut s), ["bind CA1", "listen in es"]);
    for (language, expected) in [("es", None), ("fr", Some("listen in fr")), ("auto", None)] {
        say(
            &mut s,
            &json!({"type": "init_telephony_stream", "call_id": "CA1", "language": language}),
        );
        let told: Vec<_> = shown(&mut s).into_iter().skip(1).collect();
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{language}");
    }
    assert_eq!(shown(&mut bound(Role::Viewer, "es")), ["bind CA1"]);
    assert_eq!(shown(&mut bound(Role::Agent, "auto")), ["bind CA1"]);
    assert_eq!(
        shown(&mut watching_tenant()),
        [""; 0],
        "of all calls of a tenant, none is meant"
    );
}

#[test]
fn a_client_bound_to_a_call_may_name_it_either_way_and_no_other() {
    let id = CallId::new();
    for call in [None, Some("CA1"), Some(id.as_str())] {
        let mut s = watching_call(id);
        say(&mut s, &agent_message(call));
        let expected = format!("agent_message {}", call.unwrap_or(id.as_str()));
        assert_eq!(shown(&mut s), [expected]);
    }
    for action in [
        agent_message(Some("CA2")),
        json!({"type": "update_call_status", "call_id": "CA2", "status": "ended"}),
        json!({"type": "audio_data", "call_id": "CA2", "audio_data": ""}),
    ] {
        let mut s = watching_call(id);
        say(&mut s, &action);
        assert_eq!(
            shown(&mut s),
            ["telephony_error call not found", "close 4404 call not found"]
        );
    }
}

#[test]
fn a_client_of_the_whole_tenant_names_the_call() {
    let mut s = watching_tenant();
    say(&mut s, &agent_message(Some("CA2")));
    say(&mut s, &agent_message(None));
    assert_eq!(
        shown(&mut s),
        ["agent_message CA2", "telephony_error agent_message: call_id is missing"]
    );
}

#[test]
fn a_call_that_cannot_be_watched_ends_the_socket_without_saying_why() {
    let mut s = session(Role::Agent, &[("call_id", "CA1")]);
    shown(&mut s);
    s.unbound(&Fault::not_found("call"), Wall::default());
    assert_eq!(
        shown(&mut s),
        ["telephony_error call not found", "close 4404 call not found"]
    );
}

#[test]
fn a_viewer_watches_and_does_nothing_to_a_call() {
    let mut s = session(Role::Viewer, &[("client_type", "telephony")]);
    shown(&mut s);
    let _ = s.bound(Bound::Tenant);
    for action in [
        agent_message(Some("CA1")),
        json!({"type": "update_call_status", "call_id": "CA1", "status": "answered"}),
        json!({"type": "audio_data", "call_id": "CA1", "audio_data": "", "target": "caller"}),
    ] {
        say(&mut s, &action);
        let name = action["type"].as_str().unwrap();
        assert_eq!(
            shown(&mut s),
            [format!("telephony_error {name}: not allowed for the role viewer")]
        );
    }
    say(&mut s, &json!({"type": "ping"}));
    assert_eq!(shown(&mut s), ["pong"]);
}

#[test]
fn messages_speak_the_sessions_language_in_its_owners_name() {
    let mut s = watching_tenant();
    say(&mut s, &agent_message(Some("CA1")));
    let Some(Output::Act {
        action: Action::Say(said),
        ..
    }) = s.poll()
    else {
        panic!()
    };
    assert_eq!(
        (said.language.as_str(), said.sender_name.as_deref()),
        ("es", Some("ann"))
    );
    say(
        &mut s,
        &json!({"type": "agent_message", "call_id": "CA1", "message": "a", "language": "fr"}),
    );
    let Some(Output::Act {
        action: Action::Say(said),
        ..
    }) = s.poll()
    else {
        panic!()
    };
    assert_eq!(said.language, "fr");
}

#[test]
fn garbage_is_answered_twice_and_ends_the_socket_the_third_time() {
    let mut s = watching_tenant();
    for text in ["{", "hello", "[[[[[[[[[[[[[[[[[[[["] {
        s.text(text, true, T0, Wall::default());
    }
    let error = "telephony_error not JSON, or nested too deep";
    assert_eq!(shown(&mut s), [error, error, "close 1007 not JSON"]);
    let mut s = watching_tenant();
    for _ in 0..10 {
        say(&mut s, &json!({"type": "dance"}));
    }
    assert_eq!(shown(&mut s).len(), 10, "JSON that is no message is answered each time");
}

#[test]
fn the_session_ends_with_its_token_unless_it_was_refreshed_within_the_tenant() {
    let wall = Wall::from_micros(1_000_000_000);
    let until = |s: u64| Some(Wall::from_micros(wall.as_micros() + s as i64 * 1_000_000));
    let settings = Settings {
        client_type: Some("telephony".into()),
        ..Settings::default()
    };
    let start = || {
        let who = identity(Role::Agent, until(15));
        let mut s = Session::new(&Config::default(), who, settings.clone(), T0, wall);
        let _ = s.bound(Bound::Tenant);
        shown(&mut s);
        s
    };
    let mut s = start();
    assert_eq!(s.deadline(), T0 + SECOND * 15);
    s.tick(T0 + SECOND * 15);
    assert_eq!(shown(&mut s), ["close 4401 token expired"]);

    let mut s = start();
    say(&mut s, &json!({"type": "refresh_token", "token": "t"}));
    assert_eq!(shown(&mut s), ["refresh"]);
    s.refreshed(Some(identity(Role::Viewer, until(60))), T0, wall);
    assert_eq!(shown(&mut s), ["token_refreshed"]);
    s.tick(T0 + SECOND * 15);
    assert_eq!(shown(&mut s), [""; 0]);
    assert_eq!(s.identity().role, Role::Viewer, "the new token's role counts");

    for bad in [
        None,
        Some(Identity {
            scopes: Default::default(),
            key: None,
            tenant: TenantId(2),
            ..identity(Role::Agent, until(60))
        }),
    ] {
        let mut s = start();
        s.refreshed(bad, T0, wall);
        assert_eq!(shown(&mut s), ["telephony_error refresh_token: token refused"]);
        s.tick(T0 + SECOND * 15);
        assert_eq!(shown(&mut s), ["close 4401 token expired"]);
    }
}

#[test]
fn a_ping_every_twenty_seconds_wants_a_pong_within_twenty() {
    let mut s = watching_tenant();
    for n in 1..4 {
        assert_eq!(s.deadline(), T0 + SECOND * 20 * n);
        s.tick(s.deadline());
        assert_eq!(shown(&mut s), ["ping"]);
        s.control_frame(true, s.deadline());
    }
    s.tick(T0 + SECOND * 80);
    s.tick(T0 + SECOND * 100);
    assert_eq!(shown(&mut s), ["ping", "close 1001 no pong"]);
}

#[test]
fn a_burst_is_cut_and_ten_seconds_over_the_limit_end_the_socket() {
    let ping = json!({"type": "ping"}).to_string();
    let mut s = watching_tenant();
    for _ in 0..300 {
        s.text(&ping, true, T0, Wall::default());
    }
    assert_eq!(shown(&mut s).len(), 200);
    let mut ended = None;
    for ms in (0..20_000).step_by(10) {
        let now = T0 + Duration::from_millis(ms);
        s.text(&ping, true, now, Wall::default());
        if shown(&mut s)
            .last()
            .is_some_and(|o| o == "close 1008 too many messages")
        {
            ended = Some(ms);
            break;
        }
    }
    assert!(ended.is_some_and(|ms| (10_000..10_100).contains(&ms)), "{ended:?}");
}

#[test]
fn a_voice_at_fifty_frames_a_second_beside_pings_is_no_flood() {
    let mut s = watching_tenant();
    let mut dropped = 0;
    for frame in 0..50 * 1200u64 {
        let now = T0 + Duration::from_millis(frame * 20);
        if frame % 1000 == 999 {
            s.control_frame(true, now);
        }
        for _ in 0..1 + usize::from(frame % 250 == 0) {
            s.text(r#"{"type":"ping"}"#, true, now, Wall::default());
            let out = shown(&mut s);
            assert!(!out.iter().any(|o| o.starts_with("close")), "{out:?}");
            dropped += usize::from(out.is_empty());
        }
    }
    assert!((1..100).contains(&dropped), "{dropped}");
}

#[test]
fn a_fault_carries_the_code_of_who_caused_it() {
    let vendor = Some(("acme", "ACME_ERROR"));
    for (origin, asked, vendor, code) in [
        (Origin::Backend, "agent_message", None, "TTS_ERROR"),
        (Origin::Backend, "audio_data", None, "STT_ERROR"),
        (Origin::Client, "agent_message", None, "CONNECTION_FAILED"),
        (Origin::Us, "update_call_status", None, "CONNECTION_FAILED"),
        (Origin::Vendor, "update_call_status", None, "VENDOR_ERROR"),
        (Origin::Vendor, "update_call_status", vendor, "ACME_ERROR"),
    ] {
        let mut s = watching_tenant();
        let fault = Fault::new(origin, Kind::Unavailable, "it broke");
        s.failed(asked, "CA1", Some("r1"), &fault, vendor, Wall::default());
        let Some(Output::Send(text)) = s.poll() else { panic!() };
        let v: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(v["error_code"], code);
        assert_eq!(v["message"], format!("{asked}: it broke"));
        assert_eq!(
            (v["call_id"].as_str(), v["client_ref"].as_str()),
            (Some("CA1"), Some("r1"))
        );
        assert_eq!(v["vendor"].as_str(), vendor.map(|v| v.0));
    }
}
