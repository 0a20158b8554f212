//! Twilio's end of the voice webhook, for simulation: the request that announces a call, signed as Twilio signs, and the
//! TwiML that answers it, read as strictly as Twilio reads it.

use super::verify;
use crate::{
    base::secret::Secret,
    vendor::{Answer, ApiRequest, PeerCall, WireError},
    wire::{
        form::{Form, FormWriter},
        xml::Element,
    },
};
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;

/// Twilio gives every call-related request 15 s.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Name and value of a `<Parameter>` stay under this many characters together.
const MAX_PARAMETER: usize = 500;

/// The request for `call`, posted to `url`.
pub(super) fn announce(call: &PeerCall, account: &str, url: &str, secret: Option<&Secret>) -> ApiRequest {
    posted(call, account, &[("CallStatus", "ringing")], url, secret)
}

/// The status callback of the end of `call`, posted to `url`.
pub(super) fn conclude(call: &PeerCall, account: &str, seconds: u32, url: &str, secret: Option<&Secret>) -> ApiRequest {
    let seconds = seconds.to_string();
    let news = [
        ("CallStatus", "completed"),
        ("CallDuration", &seconds),
        ("CallbackSource", "call-progress-events"),
        ("SequenceNumber", "0"),
    ];
    posted(call, account, &news, url, secret)
}

fn posted(call: &PeerCall, account: &str, news: &[(&str, &str)], url: &str, secret: Option<&Secret>) -> ApiRequest {
    let body = [
        ("AccountSid", account),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", &call.call_sid),
        ("Called", &call.to),
        ("Caller", &call.from),
        ("Direction", "inbound"),
        ("From", &call.from),
        ("To", &call.to),
    ]
    .iter()
    .chain(news)
    .fold(FormWriter::new(), |form, (name, value)| form.pair(name, value))
    .finish();
    let mut headers = HeaderMap::from_iter([(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8"),
    )]);
    if let Some(secret) = secret {
        let form = Form::parse(body.as_bytes()).unwrap_or_default();
        headers.extend(verify::sign(secret, url, &form));
    }
    ApiRequest {
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: body.into(),
        timeout: TIMEOUT,
    }
}

/// Reads a TwiML document as Twilio follows it: the first verb decides, and what is not TwiML is refused. Verbs after it
/// are for later, when the stream is over.
pub(super) fn answered(document: &[u8]) -> Result<Answer, WireError> {
    let root = std::str::from_utf8(document).ok().and_then(|d| Element::parse(d).ok());
    let root = root
        .filter(|r| r.name == "Response")
        .ok_or(WireError::Shape("Response"))?;
    let verb = root.children.first().ok_or(WireError::Shape("Response"))?;
    match &*verb.name {
        "Hangup" => Ok(Answer::HangUp),
        "Reject" if verb.attribute("reason") == Some("busy") => Ok(Answer::Busy),
        "Reject" => Ok(Answer::HangUp),
        "Connect" => match &verb.children[..] {
            [stream] if stream.name == "Stream" => streamed(stream),
            _ => Err(WireError::Shape("Connect")),
        },
        _ => Err(WireError::Shape("Response")),
    }
}

/// A `<Stream>`. The real Twilio takes `wss` alone (error 31922); a simulated call also reaches a daemon without TLS.
fn streamed(stream: &Element) -> Result<Answer, WireError> {
    let url = stream.attribute("url").unwrap_or_default();
    let socket = url.starts_with("wss://") || url.starts_with("ws://");
    if !socket || url.contains(['?', '#']) {
        return Err(WireError::Shape("Stream url"));
    }
    let mut token = String::new();
    for parameter in &stream.children {
        match (
            &*parameter.name,
            parameter.attribute("name"),
            parameter.attribute("value"),
        ) {
            ("Parameter", Some(name), Some(value)) if name.len() + value.len() < MAX_PARAMETER => {
                if name == "token" {
                    value.clone_into(&mut token);
                }
            }
            _ => return Err(WireError::Shape("Parameter")),
        }
    }
    Ok(Answer::Stream {
        url: url.to_owned(),
        token,
        status_url: stream.attribute("statusCallback").unwrap_or_default().to_owned(),
        session_id: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::hooks::twiml, *};
    use crate::{
        base::{
            settings::{Faults, Section, Table},
            time::Wall,
        },
        vendor::{
            Hook, HookKind, HookRequest, Trunk,
            twilio::{Account, Config},
        },
    };

    fn account(token: &str) -> Account {
        Account::new(Config {
            auth_token: Some(Secret::new(token)),
            ..Config::read(&Section::root(&Table::new(), &Faults::default()))
        })
    }

    #[test]
    fn the_announcement_passes_the_check_of_a_real_one() {
        let call = PeerCall {
            call_sid: "CA1".into(),
            token: None,
            from: "+15550100".into(),
            to: "sip:a b@example.com".into(),
            ..PeerCall::default()
        };
        let url = "https://relay.example.com/api/calls/twilio/webhook?tenant=7";
        let account = account("12345");
        for (secret, believed) in [(Some("12345"), true), (Some("54321"), false), (None, false)] {
            let secret = secret.map(Secret::new);
            let request = announce(&call, "AC1", url, secret.as_ref());
            let hook = HookRequest {
                method: request.method.as_str(),
                path_and_query: "/api/calls/twilio/webhook?tenant=7",
                headers: &request.headers,
                body: &request.body,
                public_base: "https://relay.example.com",
                by_number: false,
                client: None,
                received_at: Wall::default(),
            };
            assert_eq!(account.verify(&hook).is_ok(), believed);
            let Ok(Hook::Call(update)) = account.parse(HookKind::Call, &hook) else {
                panic!("no call")
            };
            assert_eq!(
                (update.from, update.to, update.inbound),
                (call.from.clone(), call.to.clone(), true)
            );
        }
    }

    #[test]
    fn every_answer_that_sidetone_writes_is_read_back() {
        let stream = Answer::Stream {
            url: "wss://relay.example.com/api/calls/twilio/stream/abc".into(),
            token: "a&b<\"'>".into(),
            status_url: "https://relay.example.com/api/calls/twilio/status?a=1&b=2".into(),
            session_id: String::new(),
        };
        for answer in [stream, Answer::Busy, Answer::HangUp] {
            assert_eq!(answered(twiml(&answer).as_bytes()), Ok(answer));
        }
        assert!(answered(b"<Response><Stream/></Response>").is_err());
        assert!(answered(b"").is_err());
    }

    #[test]
    fn a_signed_upgrade_passes_the_check_of_a_real_one() {
        let secret = Secret::new("12345");
        let header = verify::sign(&secret, "wss://relay.example.com/s/t", &Form::default());
        let headers = HeaderMap::from_iter(header);
        for (token, path, believed) in [
            ("12345", "/s/t", true),
            ("12345", "/s/u", false),
            ("54321", "/s/t", false),
        ] {
            let request = HookRequest {
                method: "GET",
                path_and_query: path,
                headers: &headers,
                body: b"",
                public_base: "https://relay.example.com",
                by_number: false,
                client: None,
                received_at: Wall::default(),
            };
            assert_eq!(
                account(token).verify_upgrade(&request).is_ok(),
                believed,
                "{token} {path}"
            );
        }
    }

    #[test]
    fn a_document_that_twilio_could_not_follow_is_refused() {
        let stream = |inside: &str| format!("<Response><Connect>{inside}</Connect></Response>");
        for bad in [
            "<Response/>",
            "<Answer><Hangup/></Answer>",
            "<Response><Hangup></Response>",
            "<Response><Dance/></Response>",
            &stream(""),
            &stream("<Stream/>"),
            &stream("<Stream url='https://h/s'/>"),
            &stream("<Stream url='wss://h/s?token=t'/>"),
            &stream("<Stream url='wss://h/s'><Parameter name='token'/></Stream>"),
            &stream(&format!(
                "<Stream url='wss://h/s'><Parameter name='token' value='{}'/></Stream>",
                "t".repeat(495)
            )),
        ] {
            assert!(answered(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
