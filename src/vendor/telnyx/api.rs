//! Telnyx's Call Control commands (API v2) as request values, and its replies.
//!
//! Every command carries a `command_id`: the same request sent again within a minute is carried out once.

use super::config::{Codec, Config};
use crate::{
    base::fault::{Fault, Kind},
    vendor::{
        Answer, ApiRequest, CallAction, CallDetails, params,
        refusal::{Refusal, nameless},
    },
    wire::{base64, form, json},
};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// "Call has already ended": what a hang-up hears that lost the race against the caller's.
const ENDED: &str = "90018";
/// "Too many requests".
const TOO_MANY: &str = "10011";

const TITLE: &str = "Telnyx";

/// The request for an action. `None` where the credentials for it are not configured, or it is to connect to nothing.
pub(super) fn request(config: &Config, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
    let key = config.credentials()?;
    let (command, mut body) = match action {
        CallAction::Dial {
            call,
            agent,
            to,
            from,
            answer,
            status_url,
            ring,
            ..
        } => {
            let mut body = Map::new();
            body.insert("connection_id".into(), config.application_id.clone()?.into());
            body.insert("to".into(), (*to).into());
            body.insert("from".into(), (*from).into());
            body.insert("timeout_secs".into(), ring.as_secs().clamp(5, 600).into());
            body.insert("client_state".into(), state(call, agent).into());
            if !status_url.is_empty() {
                body.insert("webhook_url".into(), (*status_url).into());
            }
            body.append(&mut stream(config, answer)?);
            (None, body)
        }
        CallAction::Accept { call, agent, answer } => {
            let mut body = Map::new();
            body.insert("client_state".into(), state(call, agent).into());
            if !config.needs_rate() {
                body.append(&mut stream(config, answer)?);
                // Not among the parameters of `answer`; the URL holds the token, and the rate is the usual one.
                body.remove("stream_bidirectional_sampling_rate");
                body.remove("stream_auth_token");
            }
            (Some("answer"), body)
        }
        CallAction::Reject { busy } => {
            let cause = if *busy { "USER_BUSY" } else { "CALL_REJECTED" };
            (Some("reject"), members(json!({ "cause": cause })))
        }
        CallAction::StartStream { answer } => (Some("streaming_start"), stream(config, answer)?),
        CallAction::Enhance { on: true } => (Some("suppression_start"), members(json!({ "direction": "both" }))),
        CallAction::Enhance { on: false } => (Some("suppression_stop"), Map::new()),
        CallAction::HangUp => (Some("hangup"), Map::new()),
        CallAction::Transfer { to } => {
            // The new leg's news carries our state too, so it is not taken for a call that came to us.
            let state = base64::encode_string(b"{\"leg\":\"transfer\"}");
            let body = json!({ "to": to, "target_leg_client_state": state });
            (Some("transfer"), members(body))
        }
        CallAction::Digits { digits } => (Some("send_dtmf"), members(json!({ "digits": digits }))),
        CallAction::Details => (None, Map::new()),
    };
    let asks = matches!(action, CallAction::Details);
    body.insert("command_id".into(), uuid::Uuid::new_v4().to_string().into());
    let mut url = format!("{}/calls", config.base_url);
    // Ids hold colons, which a path may.
    let call = form::percent_encode(call_sid).replace("%3A", ":");
    match command {
        Some(command) => url.push_str(&format!("/{call}/actions/{command}")),
        None if asks => url.push_str(&format!("/{call}")),
        None => {}
    }
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose())).ok()?;
    bearer.set_sensitive(true);
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([
        (header::AUTHORIZATION, bearer),
        (header::CONTENT_TYPE, json.clone()),
        (header::ACCEPT, json),
    ]);
    let body = if asks {
        String::new()
    } else {
        Value::Object(body).to_string()
    };
    Some(ApiRequest {
        method: if asks { Method::GET } else { Method::POST },
        url,
        headers,
        body: body.into(),
        timeout: config.api_timeout,
    })
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// What Telnyx gives back with every event of the call.
fn state(call: &str, agent: &str) -> String {
    base64::encode_string(json!({ "callId": call, "agentId": agent }).to_string().as_bytes())
}

/// How audio travels. Without `rtp` mode Telnyx takes MP3 files and plays nothing of ours.
fn stream(config: &Config, answer: &Answer) -> Option<Map<String, Value>> {
    let Answer::Stream { url, token, .. } = answer else {
        return None;
    };
    let url = match &config.stream_url {
        Some(base) => {
            let uri: http::Uri = url.parse().ok()?;
            format!("{base}{}", uri.path_and_query().map_or("", |p| p.as_str()))
        }
        None => url.clone(),
    };
    let mut body = members(json!({
        "stream_url": url,
        "stream_track": config.track.word(),
        "stream_codec": config.inbound.word(),
        "stream_bidirectional_mode": "rtp",
        "stream_bidirectional_codec": config.bidirectional.word(),
        "stream_bidirectional_sampling_rate": config.bidirectional_rate(),
    }));
    if !token.is_empty() {
        body.insert("stream_auth_token".into(), token.clone().into());
    }
    if config.inbound == Codec::Default {
        body.remove("stream_codec");
    }
    Some(body)
}

#[derive(Deserialize, Default)]
struct Reply<'a> {
    #[serde(borrow)]
    data: Option<Call<'a>>,
    #[serde(borrow, default)]
    errors: Option<Vec<Problem<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    call_control_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    title: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    detail: Option<Cow<'a, str>>,
}

/// Reads what is told of a call, which is forgotten some ten minutes after its end.
pub(super) fn details(body: &[u8]) -> CallDetails {
    let reply: Value = json::read(body).unwrap_or_default();
    let call = &reply["data"];
    let alive = match call["is_alive"].as_bool() {
        Some(true) => "alive",
        Some(false) => "over",
        None => "unknown",
    };
    CallDetails {
        status: alive.to_owned(),
        ..params::details(call, "", "call_duration", ["", ""], "")
    }
}

/// Reads a reply: the call's id, or a fault in Telnyx's own words.
pub(super) fn reply(action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
    let reply: Reply<'_> = json::read(body).unwrap_or_default();
    if (200..300).contains(&status) {
        return match (action, reply.data.and_then(|d| d.call_control_id)) {
            (CallAction::Dial { .. }, Some(sid)) if is_id(&sid) => Ok(sid.into_owned()),
            (CallAction::Dial { .. }, _) => Err(nameless(TITLE, status)),
            _ => Ok(String::new()),
        };
    }
    let refusal = reply.errors.and_then(|e| e.into_iter().next());
    let code = refusal.as_ref().and_then(|r| r.code.as_deref()).unwrap_or_default();
    let over = code == ENDED || status == 404;
    if over && matches!(action, CallAction::HangUp | CallAction::Enhance { on: false }) {
        return Ok(String::new());
    }
    let words = refusal
        .as_ref()
        .and_then(|r| r.detail.as_deref().or(r.title.as_deref()));
    let told = Refusal {
        vendor: TITLE,
        status,
        code: Some(code).filter(|c| (1..=16).contains(&c.len()) && c.chars().all(|c| c.is_ascii_alphanumeric())),
        words,
        keys: "telnyx.api_key",
        kind: match code {
            TOO_MANY => Some(Kind::TooMany),
            ENDED => Some(Kind::Conflict),
            _ => None,
        },
        ..Refusal::default()
    };
    Err(told.fault(action))
}

fn is_id(sid: &str) -> bool {
    (1..=200).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::{super::config::tests::read, *};
    use crate::base::fault::Origin;
    use proptest::prelude::*;
    use std::time::Duration;

    const CALL: &str = "v3:abc-_1";

    fn config(more: &[(&str, &str)]) -> Config {
        let basics = [
            ("api_key", "KEY0123"),
            ("application_id", "7267"),
            ("base_url", "http://127.0.0.1:9/v2"),
        ];
        let (config, faults) = read(&[&basics, more].concat());
        assert_eq!(faults, [""; 0]);
        config
    }

    fn answer() -> Answer {
        Answer::Stream {
            url: "wss://relay.example.com/audio-stream/tok".into(),
            token: "tok".into(),
            status_url: String::new(),
            session_id: String::new(),
        }
    }

    fn dial(answer: &Answer) -> CallAction<'_> {
        CallAction::Dial {
            call: "our-id",
            agent: "front-desk",
            to: "+15550102",
            from: "+15550101",
            answer,
            answer_url: "",
            status_url: "https://relay.example.com/api/calls/telnyx/webhook",
            ring: Duration::from_secs(30),
        }
    }

    /// Where a request goes and what it says, its command's id checked and taken out.
    fn said(config: &Config, action: &CallAction<'_>) -> (String, Value) {
        let request = request(config, CALL, action).unwrap();
        assert_eq!(request.method, Method::POST);
        let auth = &request.headers[header::AUTHORIZATION];
        assert!(auth.is_sensitive() && auth == "Bearer KEY0123");
        let mut body: Value = serde_json::from_slice(&request.body).unwrap();
        let id = body.as_object_mut().unwrap().remove("command_id").unwrap();
        assert!(id.as_str().unwrap().parse::<uuid::Uuid>().is_ok());
        (
            request.url.strip_prefix("http://127.0.0.1:9/v2").unwrap().to_owned(),
            body,
        )
    }

    #[test]
    fn a_dial_carries_the_stream_in_the_official_spelling_and_our_state() {
        let answer = answer();
        let (path, body) = said(&config(&[]), &dial(&answer));
        assert_eq!(path, "/calls");
        let state = body["client_state"].as_str().unwrap();
        let state: Value = serde_json::from_slice(&base64::decode_vec(state.as_bytes(), 200).unwrap()).unwrap();
        assert_eq!(state, json!({ "callId": "our-id", "agentId": "front-desk" }));
        let expect = json!({
            "connection_id": "7267",
            "to": "+15550102",
            "from": "+15550101",
            "timeout_secs": 30,
            "client_state": body["client_state"],
            "webhook_url": "https://relay.example.com/api/calls/telnyx/webhook",
            "stream_url": "wss://relay.example.com/audio-stream/tok",
            "stream_auth_token": "tok",
            "stream_track": "inbound_track",
            "stream_codec": "PCMU",
            "stream_bidirectional_mode": "rtp",
            "stream_bidirectional_codec": "PCMU",
            "stream_bidirectional_sampling_rate": 8000,
        });
        assert_eq!(body, expect);
    }

    #[test]
    fn a_call_is_answered_with_its_stream_where_the_answer_can_say_it_and_without_elsewhere() {
        let answer = answer();
        let accept = CallAction::Accept {
            call: "our-id",
            agent: "front-desk",
            answer: &answer,
        };
        let (path, body) = said(&config(&[]), &accept);
        assert_eq!(path, "/calls/v3:abc-_1/actions/answer");
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "client_state",
                "stream_bidirectional_codec",
                "stream_bidirectional_mode",
                "stream_codec",
                "stream_track",
                "stream_url"
            ]
        );
        let wide = config(&[("stream_bidirectional_codec", "L16"), ("stream_codec", "default")]);
        let (_, body) = said(&wide, &accept);
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["client_state"]);
        let (path, body) = said(&wide, &CallAction::StartStream { answer: &answer });
        assert_eq!(path, "/calls/v3:abc-_1/actions/streaming_start");
        assert_eq!(
            body,
            json!({
                "stream_url": "wss://relay.example.com/audio-stream/tok",
                "stream_auth_token": "tok",
                "stream_track": "inbound_track",
                "stream_bidirectional_mode": "rtp",
                "stream_bidirectional_codec": "L16",
                "stream_bidirectional_sampling_rate": 16000,
            })
        );
    }

    #[test]
    fn the_other_commands_say_what_they_must_and_no_more() {
        let config = config(&[]);
        for (action, path, body) in [
            (CallAction::HangUp, "hangup", json!({})),
            (
                CallAction::Reject { busy: true },
                "reject",
                json!({ "cause": "USER_BUSY" }),
            ),
            (
                CallAction::Reject { busy: false },
                "reject",
                json!({ "cause": "CALL_REJECTED" }),
            ),
            (
                CallAction::Enhance { on: true },
                "suppression_start",
                json!({ "direction": "both" }),
            ),
            (CallAction::Enhance { on: false }, "suppression_stop", json!({})),
            (
                CallAction::Digits { digits: "12#" },
                "send_dtmf",
                json!({ "digits": "12#" }),
            ),
            (
                CallAction::Transfer { to: "+15550103" },
                "transfer",
                json!({ "to": "+15550103", "target_leg_client_state": "eyJsZWciOiJ0cmFuc2ZlciJ9" }),
            ),
        ] {
            let said = said(&config, &action);
            assert_eq!(said, (format!("/calls/{CALL}/actions/{path}"), body));
        }
        let hostile = request(&config, "../x?y", &CallAction::HangUp).unwrap();
        assert!(
            hostile.url.ends_with("/calls/..%2Fx%3Fy/actions/hangup"),
            "{}",
            hostile.url
        );
        let id = |r: ApiRequest| serde_json::from_slice::<Value>(&r.body).unwrap()["command_id"].clone();
        let again = request(&config, CALL, &CallAction::HangUp).unwrap();
        assert_ne!(id(hostile), id(again), "a command of its own");
    }

    #[test]
    fn the_stream_may_be_elsewhere_than_the_webhooks() {
        let answer = answer();
        for host in ["stream.example.com", "wss://stream.example.com/"] {
            let (_, body) = said(&config(&[("stream_url", host)]), &dial(&answer));
            assert_eq!(body["stream_url"], "wss://stream.example.com/audio-stream/tok");
        }
    }

    #[test]
    fn without_credentials_there_is_no_request() {
        let (bare, _) = read(&[]);
        assert!(request(&bare, CALL, &CallAction::HangUp).is_none());
        let (key, _) = read(&[("api_key", "k")]);
        assert!(request(&key, CALL, &CallAction::HangUp).is_some());
        assert!(
            request(&key, "", &dial(&answer())).is_none(),
            "a placed call needs the application"
        );
        assert!(request(&config(&[]), "", &dial(&Answer::HangUp)).is_none());
    }

    #[test]
    fn replies_are_the_call_id_or_a_fault_in_the_vendors_words() {
        let answer = answer();
        let dial = dial(&answer);
        let call = include_bytes!("testdata/call.json");
        assert_eq!(
            reply(&dial, 200, call).as_deref(),
            Ok("v3:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ")
        );
        let errors = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","title":"T","detail":"D"}}]}}"#);
        for (action, status, body, kind) in [
            (&dial, 200, "{}".to_owned(), Kind::BadGateway),
            (&dial, 200, "<html>".to_owned(), Kind::BadGateway),
            (&dial, 422, errors("10016"), Kind::Invalid),
            (&dial, 401, errors("10009"), Kind::BadGateway),
            (&dial, 429, String::new(), Kind::TooMany),
            (&dial, 422, errors("10011"), Kind::TooMany),
            (&dial, 404, errors("10005"), Kind::BadGateway),
            (&CallAction::Transfer { to: "" }, 404, errors("10005"), Kind::NotFound),
            (&dial, 500, String::new(), Kind::BadGateway),
            (&CallAction::Transfer { to: "" }, 422, errors("90018"), Kind::Conflict),
            (&CallAction::HangUp, 503, String::new(), Kind::BadGateway),
        ] {
            let fault = reply(action, status, body.as_bytes()).unwrap_err();
            assert_eq!(
                (fault.kind, fault.origin),
                (kind, Origin::Vendor),
                "{status} {body} {fault}"
            );
        }
        let fault = reply(&dial, 422, errors("10016").replace('D', "Not\\u001b E.164").as_bytes()).unwrap_err();
        assert_eq!(fault.message, "Telnyx: Not E.164 (code 10016)");
    }

    #[test]
    fn ending_an_ended_call_succeeds() {
        let ended = br#"{"errors":[{"code":"90018","title":"Call has already ended"}]}"#;
        for action in [CallAction::HangUp, CallAction::Enhance { on: false }] {
            assert_eq!(reply(&action, 422, ended).as_deref(), Ok(""));
            assert_eq!(reply(&action, 200, br#"{"data":{"result":"ok"}}"#).as_deref(), Ok(""));
        }
        assert!(reply(&CallAction::HangUp, 422, br#"{"errors":[{"code":"90015"}]}"#).is_err());
        assert!(reply(&CallAction::Enhance { on: true }, 422, ended).is_err());
    }

    proptest! {
        #[test]
        fn no_reply_panics(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = reply(&CallAction::HangUp, status, &body);
            let _ = reply(&CallAction::Transfer { to: "" }, status, &body);
        }
    }
}
