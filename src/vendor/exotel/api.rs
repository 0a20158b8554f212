//! Exotel's REST API for calls (v1) as request values, and its replies. It places calls and tells of them; it has no command
//! that ends one, so a call ends with its media socket.

use super::{config::Config, hooks};
use crate::{
    base::fault::Fault,
    vendor::{
        Answer, ApiRequest, CallAction, CallDetails,
        params::{self, is_id},
        refusal::{Refusal, nameless},
    },
    wire::{
        base64,
        form::{self, FormWriter},
        json,
        xml::Element,
    },
};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

const TITLE: &str = "Exotel";
/// The longest stream URL that Exotel takes.
const MAX_URL: usize = 600;

/// The request for an action; `None` for what Exotel has no command for, and where the credentials are not configured.
pub(super) fn request(config: &Config, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
    if matches!(action, CallAction::Details) {
        let call = form::percent_encode(call_sid);
        return ask(config, Method::GET, &format!("Calls/{call}.json"), String::new());
    }
    let CallAction::Dial {
        to,
        from,
        answer,
        status_url,
        ring,
        ..
    } = action
    else {
        return None;
    };
    let Answer::Stream { url, session_id, .. } = answer else {
        return None;
    };
    let socket = hooks::socket(config, url, session_id);
    if to.starts_with("sip:") || socket.len() > MAX_URL {
        return None;
    }
    let mut form = FormWriter::new()
        // The number that is dialled first, which is the only one.
        .pair("From", to)
        .pair("CallerId", from)
        .pair("StreamUrl", &socket)
        .pair("StreamType", "bidirectional")
        .pair("TimeOut", &ring.as_secs().clamp(1, 600).to_string())
        .pair("CallType", "trans")
        .pair("CustomField", &session_id.chars().take(128).collect::<String>());
    if !status_url.is_empty() {
        form = form
            .pair("StatusCallback", &config.gate.sealed(status_url))
            .pair("StatusCallbackContentType", "application/json")
            .pair("StatusCallbackEvents[]", "terminal")
            .pair("StatusCallbackEvents[]", "answered");
    }
    ask(config, Method::POST, "Calls/connect.json", form.finish())
}

/// A request about the account's calls.
fn ask(config: &Config, method: Method, what: &str, form: String) -> Option<ApiRequest> {
    let (account, user, secret) = config.credentials()?;
    let basic = base64::encode_string(format!("{user}:{}", secret.expose()).as_bytes());
    let mut basic = HeaderValue::try_from(format!("Basic {basic}")).ok()?;
    basic.set_sensitive(true);
    Some(ApiRequest {
        method,
        // Without the suffix of `what` the reply is XML.
        url: format!(
            "{}/v1/Accounts/{}/{what}",
            config.base_url,
            form::percent_encode(account)
        ),
        headers: HeaderMap::from_iter([
            (header::AUTHORIZATION, basic),
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            ),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ]),
        body: form.into(),
        timeout: config.api_timeout,
    })
}

#[derive(Deserialize, Default)]
struct Reply<'a> {
    #[serde(borrow, rename = "Call")]
    call: Option<Call<'a>>,
    #[serde(borrow, rename = "RestException")]
    exception: Option<Exception<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default, rename = "Sid", deserialize_with = "json::loose_text")]
    sid: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Exception<'a> {
    #[serde(borrow, default, rename = "Message", deserialize_with = "json::loose_text")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "Code", deserialize_with = "json::loose_text")]
    code: Option<Cow<'a, str>>,
}

/// Reads a reply: the call's id, or a fault in Exotel's own words.
pub(super) fn reply(action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
    let reply: Reply<'_> = json::read(body).unwrap_or_default();
    if (200..300).contains(&status) {
        let sid = reply.call.and_then(|c| c.sid).filter(|sid| is_id(sid));
        return sid.map(Cow::into_owned).ok_or_else(|| nameless(TITLE, status));
    }
    let (message, code) = reply
        .exception
        .map_or_else(|| (in_xml(body), None), |e| (e.message.map(Cow::into_owned), e.code));
    let refusal = Refusal {
        vendor: TITLE,
        status,
        code: code.as_deref(),
        words: message.as_deref(),
        keys: "exotel.api_key, api_token and sid",
        hint: match status {
            402 => Some("the account's plan or balance does not allow it"),
            403 => Some("check exotel.sid, and that streams are enabled for the account"),
            _ => None,
        },
        ..Refusal::default()
    };
    Err(refusal.fault(action))
}

/// Reads what is told of a call. Length and price come minutes after its end.
pub(super) fn details(body: &[u8]) -> CallDetails {
    let reply: Value = json::read(body).unwrap_or_default();
    params::details(&reply["Call"], "Status", "Duration", ["Price", ""], "RecordingUrl")
}

/// The message of an error in XML, as Exotel's gateways write it whatever was asked for.
fn in_xml(body: &[u8]) -> Option<String> {
    let root = Element::parse(std::str::from_utf8(body).ok()?).ok()?;
    let exception = root.children.into_iter().find(|c| c.name == "RestException")?;
    exception
        .children
        .into_iter()
        .find(|c| c.name == "Message")
        .map(|m| m.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::fault::Kind, vendor::account::tests::configured, wire::form::Form};
    use std::time::Duration;

    fn config() -> Config {
        let keys = [
            ("api_key", "key"),
            ("api_token", "token"),
            ("sid", "acct1"),
            ("base_url", "http://127.0.0.1:9"),
            ("webhook_secret", "w"),
            ("sample_rate", "16000"),
        ];
        configured(&keys, Config::read).0
    }

    fn answer() -> Answer {
        Answer::Stream {
            url: "wss://relay.example.com/s?token=t".into(),
            token: "t".into(),
            status_url: String::new(),
            session_id: "s-1".into(),
        }
    }

    fn dial<'a>(to: &'a str, answer: &'a Answer) -> CallAction<'a> {
        CallAction::Dial {
            call: "1",
            agent: "human",
            to,
            from: "+15550101",
            answer,
            answer_url: "",
            status_url: "https://relay.example.com/st",
            ring: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_call_is_placed_to_the_customer_first_with_our_socket() {
        let answer = answer();
        let request = request(&config(), "", &dial("+15550102", &answer)).unwrap();
        assert_eq!(request.url, "http://127.0.0.1:9/v1/Accounts/acct1/Calls/connect.json");
        assert_eq!(request.headers[header::AUTHORIZATION], "Basic a2V5OnRva2Vu");
        let form = Form::parse(&request.body).unwrap();
        for (name, value) in [
            ("From", "+15550102"),
            ("CallerId", "+15550101"),
            (
                "StreamUrl",
                "wss://relay.example.com/s?token=t&sample-rate=16000&sessionId=s-1",
            ),
            ("StreamType", "bidirectional"),
            ("TimeOut", "30"),
            ("CustomField", "s-1"),
            ("StatusCallback", "https://relay.example.com/st?secret=w"),
        ] {
            assert_eq!(form.get(name), Some(value), "{name}");
        }
        let events = form.0.iter().filter(|(n, _)| n == "StatusCallbackEvents[]");
        assert_eq!(events.map(|(_, v)| &**v).collect::<Vec<_>>(), ["terminal", "answered"]);
        assert!(super::request(&config(), "", &dial("sip:a@b", &answer)).is_none());
        assert!(super::request(&config(), "c", &CallAction::HangUp).is_none());
        let (bare, _) = configured(&[], Config::read);
        assert!(super::request(&bare, "", &dial("+15550102", &answer)).is_none());
    }

    #[test]
    fn replies_are_an_id_or_a_clear_fault() {
        let answer = answer();
        let read = |status, body: &str| reply(&dial("+15550102", &answer), status, body.as_bytes());
        let call = include_str!("testdata/call.json");
        assert_eq!(read(200, call).as_deref(), Ok("c5797dcbaaeed7678c4062a4a3ed2f8a"));
        assert_eq!(read(200, "{}").unwrap_err().kind, Kind::BadGateway);
        let json = r#"{"RestException":{"Status":400,"Message":"bad \u0007number","Code":34001}}"#;
        let fault = read(400, json).unwrap_err();
        assert_eq!(
            (fault.kind, &*fault.message),
            (Kind::Invalid, "Exotel: bad number (code 34001)")
        );
        let xml =
            "<TwilioResponse><RestException><Status>403</Status><Message>no</Message></RestException></TwilioResponse>";
        assert!(
            read(403, xml)
                .unwrap_err()
                .message
                .starts_with("Exotel: no (status 403): check exotel.sid")
        );
        for (status, kind) in [
            (401, Kind::BadGateway),
            (429, Kind::TooMany),
            (404, Kind::BadGateway),
            (500, Kind::BadGateway),
        ] {
            assert_eq!(read(status, "").unwrap_err().kind, kind);
        }
    }
}
