//! The wire, message by message: what frontends send is read, what they read has every field.

use super::*;
use crate::{
    base::{
        format::Encoding,
        ids::{CallId, MessageId, TenantId},
        time::Wall,
    },
    bus::{Event, News},
    store::{CallStatus, EventRow},
    wire::base64,
};
use bytes::Bytes;
use serde_json::{Value, json};

fn read(message: &Value) -> Result<ClientMessage, String> {
    parse(&message.to_string()).map_err(|e| match e {
        Unreadable::NotJson => "not JSON".to_owned(),
        Unreadable::NotAMessage { what, .. } => what,
    })
}

fn action(message: &Value) -> (Option<String>, Action) {
    match read(message) {
        Ok(ClientMessage::Do { call_id, action }) => (call_id, action),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_message_of_a_frontend_is_read() {
    let at = "2024-01-01T12:00:00Z";
    let init = json!({"type": "init_telephony_stream", "call_id": "CA1", "language": "auto", "model": "nova-2", "client_type": "telephony"});
    let Ok(ClientMessage::Init(settings)) = read(&init) else {
        panic!()
    };
    assert_eq!(
        settings,
        Settings {
            call_id: Some("CA1".into()),
            language: Some("auto".into()),
            model: Some("nova-2".into()),
            client_type: Some("telephony".into()),
            encoding: None,
            last_event_id: None,
        }
    );

    let message = json!({"type": "agent_message", "call_id": "CA1", "message": "Hello! Thank you.", "language": "auto", "timestamp": at, "client_ref": "r-7"});
    let (call, Action::Say(say)) = action(&message) else {
        panic!()
    };
    assert_eq!(call.as_deref(), Some("CA1"));
    assert_eq!(
        (say.text.as_str(), say.language.as_str()),
        ("Hello! Thank you.", "auto")
    );
    assert_eq!(say.client_ref.as_deref(), Some("r-7"));

    for (word, status) in [
        ("answered", CallStatus::Answered),
        ("in_progress", CallStatus::InProgress),
        ("ended", CallStatus::Ended),
    ] {
        let message = json!({"type": "update_call_status", "call_id": "CA1", "status": word, "timestamp": at});
        let (_, Action::Move(to)) = action(&message) else {
            panic!()
        };
        assert_eq!(to, status);
    }

    let message = json!({"type": "audio_data", "call_id": "CA1", "audio_data": "//8A", "sample_rate": 8000, "encoding": "MULAW", "timestamp": at});
    let (_, Action::Hear(audio)) = action(&message) else {
        panic!()
    };
    assert_eq!((audio.samples, audio.rate), (vec![0, 0, -32124], 8000));
    assert!(!audio.to_caller && !audio.last);

    assert!(matches!(read(&json!({"type": "ping"})), Ok(ClientMessage::Ping)));
    let refresh = json!({"type": "refresh_token", "token": "a.b.c"});
    assert!(matches!(read(&refresh), Ok(ClientMessage::RefreshToken(t)) if t == "a.b.c"));
}

#[test]
fn audio_is_read_in_every_format_and_what_is_none_is_named() {
    let audio = |data: &str, encoding: &str, rate: u32, target: &str| json!({"type": "audio_data", "audio_data": data, "encoding": encoding, "sample_rate": rate, "target": target, "last": true});
    let (_, Action::Hear(heard)) = action(&audio("AQD//w==", "L16", 48000, "caller")) else {
        panic!()
    };
    assert_eq!((heard.samples, heard.rate), (vec![1, -1], 48000));
    assert!(heard.to_caller && heard.last);

    let long = base64::encode_string(&vec![0; 8 * 30_000 + 1]);
    for (data, encoding, rate, target, why) in [
        (
            "AQD/",
            "L16",
            8000,
            "",
            "audio_data: audio_data holds half a sample: L16 has two bytes for each",
        ),
        (
            "!!!!",
            "MULAW",
            8000,
            "",
            "audio_data: audio_data is not base64 of at most 30 seconds of audio",
        ),
        (
            long.as_str(),
            "MULAW",
            8000,
            "",
            "audio_data: audio_data is not base64 of at most 30 seconds of audio",
        ),
        ("", "MP3", 8000, "", "audio_data: encoding is none of MULAW, ALAW, L16"),
        (
            "",
            "L16",
            11025,
            "",
            "audio_data: sample_rate is none of 8000, 16000, 24000, 48000",
        ),
        (
            "",
            "L16",
            8000,
            "agent",
            "audio_data: target must be one of caller, stt, not \"agent\"",
        ),
    ] {
        assert_eq!(read(&audio(data, encoding, rate, target)).unwrap_err(), why);
    }
}

#[test]
fn what_is_no_message_is_told_where_it_went_wrong() {
    for (message, why) in [
        (
            json!({"type": "dance"}),
            "type must be one of init_telephony_stream, agent_message, update_call_status, audio_data, refresh_token, ping, not \"dance\"",
        ),
        (json!({"call_id": "CA1"}), "type is missing"),
        (
            json!({"type": 7}),
            "type must be one of init_telephony_stream, agent_message",
        ),
        (
            json!({"type": "agent_message"}),
            "agent_message: message is missing: it must be a string",
        ),
        (
            json!({"type": "agent_message", "message": " "}),
            "agent_message: message is empty",
        ),
        (
            json!({"type": "agent_message", "message": "a", "language": "en us"}),
            "agent_message: language is not auto",
        ),
        (
            json!({"type": "agent_message", "message": "a", "client_ref": "r".repeat(129)}),
            "agent_message: client_ref is longer",
        ),
        (
            json!({"type": "update_call_status"}),
            "update_call_status: status is missing: it must be one of answered, in_progress, ended",
        ),
        (
            json!({"type": "update_call_status", "status": "ringing"}),
            "update_call_status: status must be one of answered, in_progress, ended, not \"ringing\"",
        ),
        (
            json!({"type": "audio_data", "audio_data": 1}),
            "audio_data: audio_data must be a string, not a number",
        ),
        (
            json!({"type": "refresh_token", "tok": "secret"}),
            "refresh_token: token is missing: it must be a string",
        ),
        (
            json!({"type": "init_telephony_stream", "client_type": "fax"}),
            "init_telephony_stream: client_type is not telephony",
        ),
        (
            json!({"type": "ping", "call_id": "c".repeat(256)}),
            "call_id is longer than 255 bytes",
        ),
    ] {
        let got = read(&message).unwrap_err();
        assert!(got.starts_with(why), "{message}: {got}");
    }
    for text in ["", "{", "nonsense", &"[".repeat(17), "{\"type\":\"ping\"} x"] {
        assert_eq!(parse(text).unwrap_err(), Unreadable::NotJson, "{text}");
    }
    let huge = json!({"type": "update_call_status", "status": ["x".repeat(100_000)]});
    assert!(read(&huge).unwrap_err().len() <= 256);
}

#[test]
fn a_query_is_read_as_init_is() {
    let read = |pairs: &[(&str, &str)]| Settings::from_query(pairs.iter().copied());
    let full = read(&[
        ("token", "t"),
        ("call_id", "CA1"),
        ("language", "en"),
        ("client_type", "telephony"),
        ("last_event_id", "41"),
    ]);
    let full = full.unwrap();
    assert_eq!((full.call_id.as_deref(), full.last_event_id), (Some("CA1"), Some(41)));
    assert!(full.suffice());
    let empty = read(&[("token", "t"), ("call_id", ""), ("language", "")]).unwrap();
    assert_eq!(empty, Settings::default());
    assert!(!empty.suffice());
    for bad in [
        ("last_event_id", "x"),
        ("encoding", "mp3"),
        ("client_type", "fax"),
        ("language", "a b"),
    ] {
        assert!(read(&[bad]).is_err(), "{bad:?}");
    }
}

fn event(news: News, id: Option<i64>) -> Event {
    Event {
        tenant: TenantId(1),
        call: "call_1".parse().unwrap(),
        id,
        at: Wall::parse("2024-01-01T12:00:00Z").unwrap(),
        news,
    }
}

fn shown(news: News, id: Option<i64>) -> Value {
    serde_json::from_str(&ServerMessage::news(&event(news, id), Encoding::Ulaw).text()).unwrap()
}

const AT: &str = "2024-01-01T12:00:00.000Z";

#[test]
fn every_message_to_a_frontend_has_every_field() {
    let message_id: MessageId = "msg_1".parse().unwrap();
    let status = News::Status {
        status: "incoming",
        end_reason: None,
        customer_number: "+1234567890".into(),
        organization_number: "+0987654321".into(),
        call_sid: "sid".into(),
        inbound: true,
        duration: None,
    };
    assert_eq!(
        shown(status, Some(7)),
        json!({"type": "call_status_update", "call_id": "call_1", "status": "incoming", "end_reason": null,
            "customer_number": "+1234567890", "organization_number": "+0987654321", "timestamp": AT, "id": 7})
    );
    let words = |is_final| News::Transcript {
        text: "Hello".into(),
        sender: "customer",
        is_final,
        confidence: Some(0.95),
        detected_language: Some("en".into()),
        message_id: is_final.then_some(message_id),
    };
    assert_eq!(
        shown(words(true), Some(8)),
        json!({"type": "customer_transcript", "call_id": "call_1", "transcript": "Hello", "sender": "customer",
            "is_final": true, "confidence": 0.95, "detected_language": "en", "message_id": "msg_1", "stored": true,
            "timestamp": AT, "id": 8})
    );
    let interim = shown(words(false), None);
    assert_eq!(
        (&interim["stored"], &interim["message_id"], interim.get("id")),
        (&json!(false), &Value::Null, None)
    );
    let audio = News::TtsAudio {
        message_id,
        message: "Hi".into(),
        audio: Bytes::from_static(&[0xff, 0x7f]),
        seq: 3,
        last: true,
    };
    assert_eq!(
        shown(audio.clone(), None),
        json!({"type": "agent_tts_audio", "call_id": "call_1", "audio_data": "/38=", "message": "Hi", "timestamp": AT,
            "message_id": "msg_1", "encoding": "MULAW", "sample_rate": 8000, "seq": 3, "last": true})
    );
    let l16 = ServerMessage::news(&event(audio, None), Encoding::L16Le).text();
    let l16: Value = serde_json::from_str(&l16).unwrap();
    assert_eq!(
        (&l16["encoding"], &l16["audio_data"]),
        (&json!("L16"), &json!("AAAAAA=="))
    );
    let heard = News::MessageStatus {
        message_id,
        client_ref: Some("r-7".into()),
        status: "heard",
        heard_ms: 1200,
        message: "Hi".into(),
    };
    assert_eq!(
        shown(heard, Some(9)),
        json!({"type": "agent_message_status", "call_id": "call_1", "message_id": "msg_1", "client_ref": "r-7",
            "status": "heard", "heard_ms": 1200, "message": "Hi", "timestamp": AT, "id": 9})
    );
    assert_eq!(
        shown(News::Dtmf('#'), Some(10)),
        json!({"type": "dtmf", "call_id": "call_1", "digit": "#", "timestamp": AT, "id": 10})
    );
    let fault = News::Fault {
        code: "TTS_ERROR",
        vendor: None,
        message: "no voice".into(),
        message_id: Some(message_id),
        of_stream: false,
    };
    assert_eq!(
        shown(fault, None),
        json!({"type": "telephony_error", "call_id": "call_1", "error_code": "TTS_ERROR", "message": "no voice",
            "message_id": "msg_1", "timestamp": AT})
    );
    assert_eq!(ServerMessage::Pong.text(), r#"{"type":"pong"}"#);
    let connected = ServerMessage::TelephonyConnected {
        call_id: Some("call_1".parse().unwrap()),
        call_sid: Some("CA1"),
        status: "ready",
        language: Some("auto"),
        model: None,
    };
    let connected: Value = serde_json::from_str(&connected.text()).unwrap();
    assert_eq!(
        connected,
        json!({"type": "telephony_connected", "call_id": "call_1", "call_sid": "CA1", "status": "ready",
            "language": "auto", "model": null})
    );
}

#[test]
fn what_is_replayed_is_what_was_sent_live() {
    let message_id: MessageId = "msg_1".parse().unwrap();
    let all = [
        News::Status {
            status: "ended",
            end_reason: Some("completed"),
            customer_number: "+1".into(),
            organization_number: "+2".into(),
            call_sid: "sid".into(),
            inbound: true,
            duration: None,
        },
        News::Transcript {
            text: "Hello".into(),
            sender: "agent",
            is_final: true,
            confidence: Some(0.95),
            detected_language: None,
            message_id: Some(message_id),
        },
        News::MessageStatus {
            message_id,
            client_ref: None,
            status: "cut",
            heard_ms: 250,
            message: "Hi".into(),
        },
        News::Dtmf('5'),
        News::Handoff { agent: "human".into() },
    ];
    for news in all {
        let event = event(news, Some(3));
        let stored = crate::control::news::payload(event.call, event.at, &event.news).unwrap();
        let row = EventRow {
            id: 3,
            call_id: event.call,
            payload: stored.to_string(),
        };
        let live: Value = serde_json::from_str(&ServerMessage::news(&event, Encoding::Ulaw).text()).unwrap();
        let replayed: Value = serde_json::from_str(&replayed(&row).unwrap().0).unwrap();
        assert_eq!(live, replayed);
    }
}

#[test]
fn a_stored_event_is_replayed_with_its_id() {
    let row = |payload: &str| EventRow {
        id: 12,
        call_id: CallId::new(),
        payload: payload.into(),
    };
    let (text, status) = replayed(&row(r#"{"type":"call_status_update","status":"ended"}"#)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["id"], 12);
    assert_eq!(status, Some(CallStatus::Ended));
    let (text, _) = replayed(&row(r#"{"type":"customer_transcript"}"#)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["stored"], true);
    assert_eq!(replayed(&row("[]")), None);
}
