//! Every option in the query of a frontend's socket: what it does, and what a value that is none is answered.

use crate::house::{Frontend, House};
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    hub::{asyncapi, audio_messages::AudioSettings, call_events::EventSettings, protocol::Settings},
};
use std::collections::BTreeSet;

async fn open(house: &House, path: &str, query: &str) -> Result<Frontend, (u16, String)> {
    let token = house.token(1, Role::Agent);
    house.upgrade(&format!("{path}?token={token}&{query}"), &[]).await
}

/// The complaint of a refused upgrade.
async fn refused(house: &House, path: &str, query: &str) -> String {
    let (status, body) = match open(house, path, query).await {
        Ok(_) => panic!("{path}?{query} was taken"),
        Err(refused) => refused,
    };
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("malformed")),
        "{path}?{query}"
    );
    body["error"]["message"].as_str().unwrap().to_owned()
}

/// The names that stand in queries.
fn names<'a>(queries: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    queries
        .flat_map(|q| q.split('&'))
        .filter_map(|p| Some(p.split_once('=')?.0))
        .collect()
}

fn described(options: &'static [(&'static str, &'static str)]) -> BTreeSet<&'static str> {
    options.iter().map(|(name, _)| *name).collect()
}

const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

#[tokio::test]
async fn every_bad_value_is_refused_with_what_would_do() {
    let house = House::new().await;
    let telephony: &[(&str, &str)] = &[
        ("encoding=mp3", "encoding is none of MULAW, ALAW, L16"),
        ("client_type=fax", "client_type is not telephony"),
        (
            "language=a%20b",
            "language is not auto or a language tag such as en or pt-BR",
        ),
        ("last_event_id=x", "last_event_id is not a whole number"),
        (
            "last_event_id=99999999999999999999",
            "last_event_id is not a whole number",
        ),
    ];
    let events: &[(&str, &str)] = &[
        ("last_event_id=x", "last_event_id is not the id of a stored event"),
        ("last_event_id=-5", "last_event_id is not the id of a stored event"),
        // As the ids of live events are.
        (
            "last_event_id=0198b7c1-9f8b-7000-8000-000000000000x",
            "last_event_id is not the id of a stored event",
        ),
    ];
    let audio: &[(&str, &str)] = &[
        ("track=left", "track is none of inbound, outbound, both"),
        ("format=mp3", "format is none of PCMU, PCMA, L16, opus, native"),
        ("sample_rate=44100", "sample_rate is none of 8000, 16000, 24000, 48000"),
        ("sample_rate=fast", "sample_rate is none of 8000, 16000, 24000, 48000"),
        ("sample_rate=-8000", "sample_rate is none of 8000, 16000, 24000, 48000"),
        (
            "format=native&sample_rate=8000",
            "sample_rate does not go with format=native: the rate is the vendor's",
        ),
    ];
    for (path, table) in [
        (asyncapi::TELEPHONY, telephony),
        (asyncapi::CALL_EVENTS, events),
        (asyncapi::FRONTEND_AUDIO, audio),
    ] {
        for (query, why) in table {
            assert_eq!(refused(&house, path, query).await, *why, "{path}?{query}");
        }
    }
    let long = refused(&house, asyncapi::TELEPHONY, &format!("model={LONG}")).await;
    assert_eq!(long, "model is not a name of at most 64 characters");
    let long = refused(&house, asyncapi::TELEPHONY, &format!("call_id={}", LONG.repeat(4))).await;
    assert_eq!(long, "call_id is longer than 255 bytes");
}

#[tokio::test]
async fn a_call_that_is_none_closes_every_socket_with_the_same_code() {
    let house = House::new().await;
    for path in [asyncapi::TELEPHONY, asyncapi::CALL_EVENTS, asyncapi::FRONTEND_AUDIO] {
        for id in ["CA404", &LONG[..60], "call_0198b7c19f8b70008000000000000000"] {
            let mut socket = open(&house, path, &format!("call_id={id}")).await.unwrap();
            let (code, before) = socket.closed().await;
            let [error] = &before[..] else { panic!("{before:?}") };
            let message = error.pointer("/error/message").or(error.get("message"));
            assert_eq!((code, message), (4404, Some(&json!("call not found"))), "{path} {id}");
        }
    }
}

#[tokio::test]
async fn every_option_of_the_audio_socket_does_what_it_says() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let table: &[(&str, &str, Option<u32>)] = &[
        ("", "PCMU", Some(8000)),
        ("call_id=&track=&format=&sample_rate=", "PCMU", Some(8000)),
        ("format=PCMU", "PCMU", Some(8000)),
        ("format=pcmu&sample_rate=48000", "PCMU", Some(48_000)),
        ("format=PCMA", "PCMA", Some(8000)),
        ("format=L16", "L16", Some(8000)),
        ("format=L16&sample_rate=16000", "L16", Some(16_000)),
        ("format=pcm_s16le&sample_rate=24000", "L16", Some(24_000)),
        ("format=native", "native", None),
        ("sample_rate=8000", "PCMU", Some(8000)),
        ("track=inbound", "PCMU", Some(8000)),
        ("track=outbound", "PCMU", Some(8000)),
        ("track=both", "PCMU", Some(8000)),
        ("call_id=CA1", "PCMU", Some(8000)),
        ("more=1", "PCMU", Some(8000)),
    ];
    for (query, format, rate) in table {
        let mut socket = open(&house, asyncapi::FRONTEND_AUDIO, query).await.unwrap();
        let config = &socket.next_of("connected").await["config"];
        let wanted = json!({"format": format, "sampleRate": rate, "channels": 1});
        assert_eq!(*config, wanted, "{query}");
    }
    let mut tried = names(table.iter().map(|(query, ..)| *query));
    assert!(tried.remove("more"));
    assert_eq!(tried, described(AudioSettings::QUERY));
}

#[tokio::test]
async fn every_option_of_the_event_socket_does_what_it_says() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    house.ring("CA2", 1).await;
    house.vendor_says("CA1", 1, "completed", 1).await;
    // Everything there is, from the beginning.
    let mut all = open(&house, asyncapi::CALL_EVENTS, "last_event_id=0").await.unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|e: &Value| e["type"] != "call.hangup") {
        told.push(all.next().await);
    }
    let of = |sid: &str| {
        let of_call = told.iter().filter(|e| e["payload"]["call_control_id"] == sid);
        of_call.cloned().collect::<Vec<_>>()
    };
    assert_eq!((of("CA1").len(), of("CA2").len()), (3, 1), "{told:#?}");
    let ours = told[0]["payload"]["call_id"].as_str().unwrap();

    // One call, by either id, and what followed an event, by the id of either half of a pair.
    let (first, stopped) = (of("CA1")[0]["id"].clone(), of("CA1")[1]["id"].clone());
    let (first, stopped) = (first.as_str().unwrap(), stopped.as_str().unwrap());
    assert!(stopped.ends_with("-stream"), "{stopped}");
    let table = [
        ("call_id=CA1&last_event_id=0".to_owned(), of("CA1")),
        (format!("call_id={ours}&last_event_id=0"), of("CA1")),
        ("call_id=CA2&last_event_id=0".to_owned(), of("CA2")),
        (format!("call_id=CA1&last_event_id={first}"), of("CA1")[1..].to_vec()),
        // Who saw half of a pair gets both again.
        (format!("call_id=CA1&last_event_id={stopped}"), of("CA1")[1..].to_vec()),
        (format!("last_event_id={first}"), told[1..].to_vec()),
        ("call_id=&last_event_id=".to_owned(), Vec::new()),
    ];
    for (query, expected) in &table {
        let mut socket = open(&house, asyncapi::CALL_EVENTS, query).await.unwrap();
        socket.say(&json!({"type": "ping"})).await;
        let mut got = Vec::new();
        loop {
            match socket.next().await {
                pong if pong["type"] == "pong" => break,
                event => got.push(event),
            }
        }
        assert_eq!(got, *expected, "{query}");
    }
    assert_eq!(
        names(table.iter().map(|(query, _)| &**query)),
        described(EventSettings::QUERY)
    );
}

#[tokio::test]
async fn every_option_of_the_telephony_socket_does_what_it_says() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let table = [
        ("client_type=telephony", json!(null), json!(null), json!(null)),
        (
            "client_type=telephony&language=pt-BR&model=nova-2",
            json!(null),
            json!("pt-BR"),
            json!("nova-2"),
        ),
        ("call_id=CA1", json!("CA1"), json!(null), json!(null)),
        (
            "call_id=CA1&encoding=ALAW&language=auto",
            json!("CA1"),
            json!("auto"),
            json!(null),
        ),
        (
            "client_type=telephony&last_event_id=0",
            json!(null),
            json!(null),
            json!(null),
        ),
    ];
    for (query, sid, language, model) in &table {
        let mut socket = open(&house, asyncapi::TELEPHONY, query).await.unwrap();
        let welcome = socket.next_of("telephony_connected").await;
        let echoed = (&welcome["call_sid"], &welcome["language"], &welcome["model"]);
        assert_eq!(echoed, (sid, language, model), "{query}");
        let first = socket.next().await;
        assert_eq!(first["status"], "incoming", "{query}");
        // What was missed is told as it was; else where the call stands.
        assert_eq!(
            first.get("snapshot").is_some(),
            !query.contains("last_event_id"),
            "{query}"
        );
    }
    assert_eq!(
        names(table.iter().map(|(query, ..)| *query)),
        described(Settings::QUERY)
    );
}
