//! Teler's REST API for calls as request values, and its replies.

use super::config::Config;
use crate::{
    base::fault::Fault,
    vendor::{
        Answer, ApiRequest, CallAction, CallDetails,
        params::{self, is_id},
        refusal::{Refusal, nameless},
    },
    wire::{form, json, sign},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;

const TITLE: &str = "Teler";
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");

/// The request for an action; `None` for what Teler has no command for, and where the key is not configured.
pub(super) fn request(config: &Config, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
    let of_call = |what: &str| format!("/voice/calls/{}/{what}", form::percent_encode(call_sid));
    let (path, body, key) = match action {
        CallAction::Dial {
            to,
            from,
            answer,
            answer_url,
            status_url,
            ..
        } => {
            let Answer::Stream { token, .. } = answer else {
                return None;
            };
            let body = json!({
                "from_number": from,
                "to_number": to,
                "flow_url": config.gate.sealed(answer_url),
                "status_callback_url": config.gate.sealed(status_url),
                "record": config.record,
            });
            // The token is this call's alone, so trying again does not dial twice.
            (
                "/voice/calls/initiate".to_owned(),
                body,
                sign::sha256_hex(token.as_bytes()),
            )
        }
        CallAction::HangUp => (
            of_call("hangup"),
            json!({ "reason": "AGENT_HANGUP" }),
            sign::sha256_hex(format!("hangup {call_sid}").as_bytes()),
        ),
        CallAction::Transfer { to } => {
            let target = match to.starts_with("sip:") {
                true => json!({ "kind": "sip", "uri": to }),
                false => json!({ "kind": "pstn", "number": to }),
            };
            (
                of_call("transfer"),
                json!({ "target": target }),
                sign::sha256_hex(format!("transfer {call_sid} {to}").as_bytes()),
            )
        }
        CallAction::Accept { .. }
        | CallAction::Reject { .. }
        | CallAction::StartStream { .. }
        | CallAction::Enhance { .. } => return None,
        CallAction::Details => {
            let path = format!("/voice/calls/{}", form::percent_encode(call_sid));
            (path, serde_json::Value::Null, String::new())
        }
        CallAction::Digits { digits } => {
            // The same keys may be sent twice on purpose.
            (of_call("dtmf"), json!({ "digits": digits }), String::new())
        }
    };
    let mut secret = HeaderValue::from_str(config.api_key.as_ref()?.expose()).ok()?;
    secret.set_sensitive(true);
    let mut headers = HeaderMap::from_iter([
        (API_KEY.clone(), secret),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    if let (false, Ok(key)) = (key.is_empty(), HeaderValue::try_from(key)) {
        headers.insert(&IDEMPOTENCY, key);
    }
    let asks = body.is_null();
    Some(ApiRequest {
        method: if asks { Method::GET } else { Method::POST },
        url: format!("{}{path}", config.base_url),
        headers,
        body: if asks { String::new() } else { body.to_string() }.into(),
        timeout: config.api_timeout,
    })
}

#[derive(Deserialize, Default)]
struct Reply<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<Created<'a>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    errors: Vec<Invalid<'a>>,
}

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Invalid<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    msg: Option<Cow<'a, str>>,
}

/// Reads what is told of a call; it may or may not be wrapped in `data`.
pub(super) fn details(body: &[u8]) -> CallDetails {
    let reply: serde_json::Value = json::read(body).unwrap_or_default();
    let call = reply.get("data").unwrap_or(&reply);
    params::details(call, "state", "duration_seconds", ["price", ""], "")
}

/// Reads a reply: the call's id, or a fault in Teler's own words. Single objects may or may not be wrapped in `data`.
pub(super) fn reply(action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
    let reply: Reply<'_> = json::read(body).unwrap_or_default();
    if (200..300).contains(&status) {
        let id = reply.data.and_then(|d| d.id).or(reply.id).filter(|id| is_id(id));
        return match (id, action) {
            (Some(id), CallAction::Dial { .. }) => Ok(id.into_owned()),
            (None, CallAction::Dial { .. }) => Err(nameless(TITLE, status)),
            _ => Ok(String::new()),
        };
    }
    // The call is over already, which is what was wanted.
    if matches!(action, CallAction::HangUp) && matches!(status, 404 | 409 | 410) {
        return Ok(String::new());
    }
    let detail = reply.errors.first().and_then(|e| e.msg.as_deref());
    let message = match (reply.message.as_deref(), detail) {
        (Some(message), Some(detail)) => Some(Cow::Owned(format!("{message} ({detail})"))),
        (message, detail) => message.or(detail).map(Cow::Borrowed),
    };
    let refusal = Refusal {
        vendor: TITLE,
        status,
        code: reply.code.as_deref(),
        words: message.as_deref(),
        keys: "teler.api_key",
        ..Refusal::default()
    };
    Err(refusal.fault(action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::fault::Kind, vendor::account::tests::configured};
    use serde_json::Value;
    use std::time::Duration;

    fn config() -> Config {
        let keys = [
            ("api_key", "k"),
            ("base_url", "http://127.0.0.1:9/api/v1"),
            ("webhook_secret", "w"),
        ];
        configured(&keys, Config::read).0
    }

    fn answer() -> Answer {
        Answer::Stream {
            url: "wss://relay.example.com/media-stream?token=t".into(),
            token: "t".into(),
            status_url: String::new(),
            session_id: "s-1".into(),
        }
    }

    fn dial(answer: &Answer) -> CallAction<'_> {
        CallAction::Dial {
            call: "1",
            agent: "human",
            to: "+916360154904",
            from: "+918065193776",
            answer,
            answer_url: "https://relay.example.com/flow",
            status_url: "https://relay.example.com/webhook",
            ring: Duration::from_secs(30),
        }
    }

    fn said(request: &ApiRequest) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn a_call_is_placed_with_both_urls_and_a_key_against_dialling_twice() {
        let answer = answer();
        let placed = request(&config(), "", &dial(&answer)).unwrap();
        assert_eq!(placed.url, "http://127.0.0.1:9/api/v1/voice/calls/initiate");
        assert_eq!(placed.headers[&API_KEY], "k");
        assert_eq!(placed.headers[&IDEMPOTENCY], sign::sha256_hex(b"t").as_str());
        assert_eq!(
            said(&placed),
            json!({
                "from_number": "+918065193776",
                "to_number": "+916360154904",
                "flow_url": "https://relay.example.com/flow?secret=w",
                "status_callback_url": "https://relay.example.com/webhook?secret=w",
                "record": true,
            })
        );
        assert!(request(&configured(&[], Config::read).0, "", &dial(&answer)).is_none());
    }

    #[test]
    fn every_other_command_names_its_call() {
        for (action, what, body) in [
            (CallAction::HangUp, "hangup", json!({"reason":"AGENT_HANGUP"})),
            (CallAction::Digits { digits: "12#" }, "dtmf", json!({"digits":"12#"})),
            (
                CallAction::Transfer { to: "+15550100" },
                "transfer",
                json!({"target":{"kind":"pstn","number":"+15550100"}}),
            ),
            (
                CallAction::Transfer { to: "sip:a@b" },
                "transfer",
                json!({"target":{"kind":"sip","uri":"sip:a@b"}}),
            ),
        ] {
            let asked = request(&config(), "cs/1", &action).unwrap();
            assert_eq!(
                asked.url,
                format!("http://127.0.0.1:9/api/v1/voice/calls/cs%2F1/{what}")
            );
            assert_eq!(said(&asked), body);
        }
    }

    #[test]
    fn replies_are_an_id_or_a_clear_fault() {
        let answer = answer();
        let dial = dial(&answer);
        let id = reply(&dial, 202, include_bytes!("testdata/call.json"));
        assert_eq!(id.as_deref(), Ok("cs_5NGFF35W81ACMAH2PEVCQVCQ93"));
        assert_eq!(reply(&dial, 202, br#"{"id":"cs_1"}"#).as_deref(), Ok("cs_1"));
        assert_eq!(reply(&dial, 202, b"{}").unwrap_err().kind, Kind::BadGateway);
        assert_eq!(
            reply(&CallAction::HangUp, 202, br#"{"request_id":"req_1"}"#).as_deref(),
            Ok("")
        );
        for over in [404, 409, 410] {
            assert!(reply(&CallAction::HangUp, over, b"").is_ok());
        }
        let body = br#"{"success":false,"message":"Number not provisioned","code":"from_number_not_provisioned"}"#;
        let fault = reply(&dial, 400, body).unwrap_err();
        assert_eq!(
            (fault.kind, &*fault.message),
            (
                Kind::Invalid,
                "Teler: Number not provisioned (code from_number_not_provisioned)"
            )
        );
        let invalid = br#"{"message":"Validation failed","errors":[{"loc":["body"],"msg":"too short","type":"x"}]}"#;
        assert!(
            reply(&dial, 422, invalid)
                .unwrap_err()
                .message
                .contains("failed (too short)")
        );
        for (status, kind) in [
            (403, Kind::BadGateway),
            (429, Kind::TooMany),
            (502, Kind::BadGateway),
            (503, Kind::BadGateway),
        ] {
            assert_eq!(reply(&dial, status, b"").unwrap_err().kind, kind);
        }
    }
}
