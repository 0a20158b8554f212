//! Ozonetel's outbound API as a request value, and its replies: XML with status 200 whatever happened. Calls are ended on their
//! media socket.

use super::config::Config;
use crate::{
    base::fault::{Fault, Kind},
    vendor::{
        ApiRequest, CallAction,
        params::{is_id, with_query},
        refusal::{Refusal, nameless},
    },
    wire::xml::Element,
};
use http::{HeaderMap, Method};

const TITLE: &str = "Ozonetel";
const KEYS: &str = "ozonetel.api_key";
const CHECK_KEY: &str = "check ozonetel.api_key";

/// The request for an action; `None` for what the API has no command for, and where the key is not configured.
pub(super) fn request(config: &Config, action: &CallAction<'_>) -> Option<ApiRequest> {
    let CallAction::Dial {
        to,
        from,
        answer_url,
        status_url,
        ..
    } = action
    else {
        return None;
    };
    let (key, digits) = (config.api_key.as_ref()?, to.strip_prefix('+')?);
    let mut url = format!("{}/outbound/outbound.php", config.base_url);
    for (name, value) in [
        ("api_key", key.expose()),
        ("phone_no", digits),
        ("outbound_version", "2"),
        ("caller_id", from.trim_start_matches('+')),
        // The flow is asked for when the call is answered. Given at once, as `extra_data`, it could not name the call.
        ("url", &config.gate.sealed(answer_url)),
        ("callback_url", &config.gate.sealed(status_url)),
    ] {
        url = with_query(&url, name, value);
    }
    Some(ApiRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: Default::default(),
        timeout: config.api_timeout,
    })
}

/// Reads a reply: the call's id, or a fault in Ozonetel's own words.
pub(super) fn reply(action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
    let root = std::str::from_utf8(body)
        .ok()
        .and_then(|b| Element::parse(b.trim()).ok());
    let text = |name: &str| {
        let children = root.as_ref().map_or(&[][..], |r| &r.children);
        children.iter().find(|c| c.name == name).map_or("", |c| c.text.trim())
    };
    let (said, message) = (text("status"), text("message"));
    let refusal = Refusal {
        vendor: TITLE,
        status,
        words: Some(message),
        keys: KEYS,
        ..Refusal::default()
    };
    match (status, said) {
        (200..300, "queued") if is_id(message) => return Ok(message.to_owned()),
        (200..300, "error") if is_of_key(message) => Err(Refusal {
            kind: Some(Kind::BadGateway),
            hint: Some(CHECK_KEY),
            ..refusal
        }),
        (200..300, "error") => Err(Refusal {
            kind: Some(Kind::Invalid),
            ..refusal
        }),
        (200..300, _) => return Err(nameless(TITLE, status)),
        _ => Err(refusal),
    }
    .map_err(|refusal| refusal.fault(action))
}

/// Whether the words of an error, which all come with status 200, are about who we are.
fn is_of_key(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["api key", "api_key", "apikey", "authenti", "authori", "invalid key"]
        .iter()
        .any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        vendor::{Answer, account::tests::configured},
        wire::form::Form,
    };
    use std::time::Duration;

    #[test]
    fn a_call_is_placed_with_the_flow_to_ask_for() {
        let keys = [
            ("api_key", "k&1"),
            ("base_url", "http://127.0.0.1:9"),
            ("webhook_secret", "w"),
        ];
        let (config, _) = configured(&keys, Config::read);
        let dial = |to| CallAction::Dial {
            call: "1",
            agent: "human",
            to,
            from: "+918000000000",
            answer: &Answer::HangUp,
            answer_url: "https://relay.example.com/h",
            status_url: "https://relay.example.com/st",
            ring: Duration::from_secs(30),
        };
        let placed = request(&config, &dial("+919800000001")).unwrap();
        let (url, query) = placed.url.split_once('?').unwrap();
        assert_eq!(
            (url, placed.method),
            ("http://127.0.0.1:9/outbound/outbound.php", Method::GET)
        );
        let form = Form::parse(query.as_bytes()).unwrap();
        let pairs: Vec<_> = form.0.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            pairs,
            [
                ("api_key", "k&1"),
                ("phone_no", "919800000001"),
                ("outbound_version", "2"),
                ("caller_id", "918000000000"),
                ("url", "https://relay.example.com/h?secret=w"),
                ("callback_url", "https://relay.example.com/st?secret=w"),
            ]
        );
        assert!(request(&config, &dial("sip:a@b")).is_none());
        assert!(request(&config, &CallAction::HangUp).is_none());
        assert!(request(&configured(&[], Config::read).0, &dial("+919800000001")).is_none());
    }

    #[test]
    fn replies_are_an_id_or_a_clear_fault() {
        let answer = Answer::HangUp;
        let dial = CallAction::Dial {
            call: "",
            agent: "",
            to: "",
            from: "",
            answer: &answer,
            answer_url: "",
            status_url: "",
            ring: Duration::ZERO,
        };
        let read = |status, body: &str| reply(&dial, status, body.as_bytes());
        let queued = "<response><status>queued</status><message>34322178840270491</message></response>\n";
        assert_eq!(read(200, queued).as_deref(), Ok("34322178840270491"));
        let error = "<response><status>error</status><message>Invalid\u{a0}number</message></response>";
        let fault = read(200, error).unwrap_err();
        assert_eq!(
            (fault.kind, &*fault.message),
            (Kind::Invalid, "Ozonetel: Invalid\u{a0}number (status 200)")
        );
        for (status, body, kind) in [
            (200, "<response><status>queued</status></response>", Kind::BadGateway),
            (200, "queued", Kind::BadGateway),
            (401, "", Kind::BadGateway),
            (403, "", Kind::BadGateway),
            (422, "", Kind::Invalid),
            (
                200,
                "<response><status>error</status><message>Invalid API key</message></response>",
                Kind::BadGateway,
            ),
            (429, "", Kind::TooMany),
            (500, queued, Kind::BadGateway),
            (404, "", Kind::BadGateway),
        ] {
            assert_eq!(read(status, body).unwrap_err().kind, kind, "{status} {body}");
        }
    }
}
