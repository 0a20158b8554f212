//! Twilio's REST API for calls (version 2010-04-01) as request values, and its replies.

use super::{config::Config, hooks};
use crate::{
    base::fault::{Fault, Kind},
    vendor::{
        ApiRequest, CallAction, CallDetails, params,
        refusal::{Refusal, nameless},
    },
    wire::{
        base64,
        form::{self, FormWriter},
        json,
        xml::Escaped,
    },
};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use std::borrow::Cow;

/// "The requested resource was not found": also what a hang-up hears that lost the race against the caller's.
const NOT_FOUND: u64 = 20404;
/// "Invalid call state": the call has ended already.
const CALL_STATE: u64 = 21220;
/// "Too many requests". The request was not processed.
const TOO_MANY: u64 = 20429;

const TITLE: &str = "Twilio";

/// The request for an action. `None` where Twilio has no command that leaves the stream alone (digits: `<Play digits>`
/// would replace the running `<Connect>`), and where the credentials for it are not configured.
pub(super) fn request(config: &Config, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
    let form = match action {
        CallAction::Dial {
            to,
            from,
            answer,
            status_url,
            ring,
            ..
        } => {
            let mut form = FormWriter::new()
                .pair("To", to)
                .pair("From", from)
                .pair("Twiml", &hooks::twiml(answer))
                .pair("Timeout", &ring.as_secs().clamp(1, 600).to_string());
            if !status_url.is_empty() {
                form = form
                    .pair("StatusCallback", status_url)
                    .pair("StatusCallbackMethod", "POST");
                for event in ["initiated", "ringing", "answered", "completed"] {
                    form = form.pair("StatusCallbackEvent", event);
                }
            }
            form
        }
        CallAction::HangUp => FormWriter::new().pair("Status", "completed"),
        CallAction::Transfer { to } => FormWriter::new().pair("Twiml", &dial(to)),
        CallAction::Details => FormWriter::new(),
        CallAction::Digits { .. }
        | CallAction::Accept { .. }
        | CallAction::Reject { .. }
        | CallAction::StartStream { .. }
        | CallAction::Enhance { .. } => return None,
    };
    let (account, user, secret) = config.credentials()?;
    let mut url = format!(
        "{}/2010-04-01/Accounts/{}/Calls",
        config.base_url,
        form::percent_encode(account)
    );
    if !matches!(action, CallAction::Dial { .. }) {
        url.push('/');
        url.push_str(&form::percent_encode(call_sid));
    }
    url.push_str(".json");

    let basic = base64::encode_string(format!("{user}:{}", secret.expose()).as_bytes());
    let mut basic = HeaderValue::try_from(format!("Basic {basic}")).ok()?;
    basic.set_sensitive(true);
    let headers = HeaderMap::from_iter([
        (header::AUTHORIZATION, basic),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        ),
        (header::ACCEPT, HeaderValue::from_static("application/json")),
    ]);
    Some(ApiRequest {
        method: match action {
            CallAction::Details => Method::GET,
            _ => Method::POST,
        },
        url,
        headers,
        body: form.finish().into(),
        timeout: config.api_timeout,
    })
}

fn dial(to: &str) -> String {
    let noun = if to.starts_with("sip:") { "Sip" } else { "Number" };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response><Dial answerOnBridge="true"><{noun}>{}</{noun}></Dial></Response>"#,
        Escaped(to)
    )
}

#[derive(Deserialize, Default)]
struct Reply<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    sid: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    code: Option<u64>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    message: Option<Cow<'a, str>>,
}

/// Reads a reply: the call's id, or a fault in Twilio's own words.
pub(super) fn reply(action: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
    let reply: Reply<'_> = json::read(body).unwrap_or_default();
    let code = reply.code.unwrap_or_default();
    let hanging_up = matches!(action, CallAction::HangUp);
    if (200..300).contains(&status) {
        return match reply.sid {
            Some(sid) if is_id(&sid) => Ok(sid.into_owned()),
            _ if matches!(action, CallAction::Dial { .. }) => Err(nameless(TITLE, status)),
            _ => Ok(String::new()),
        };
    }
    if hanging_up && (status == 404 || code == NOT_FOUND || code == CALL_STATE) {
        return Ok(String::new());
    }
    let told = (code != 0).then(|| code.to_string());
    let refusal = Refusal {
        vendor: TITLE,
        status,
        code: told.as_deref(),
        words: reply.message.as_deref(),
        keys: "twilio.account_sid and its credentials",
        kind: match code {
            TOO_MANY => Some(Kind::TooMany),
            NOT_FOUND if !matches!(action, CallAction::Dial { .. }) => Some(Kind::NotFound),
            CALL_STATE => Some(Kind::Conflict),
            _ => None,
        },
        ..Refusal::default()
    };
    Err(refusal.fault(action))
}

/// Reads what is told of a call. The price comes minutes after its end.
pub(super) fn details(body: &[u8]) -> CallDetails {
    let reply = json::read(body).unwrap_or_default();
    params::details(&reply, "status", "duration", ["price", "price_unit"], "")
}

fn is_id(sid: &str) -> bool {
    (1..=128).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{fault::Origin, secret::Secret},
        vendor::Answer,
    };
    use http::header::AUTHORIZATION;
    use proptest::prelude::*;
    use std::time::Duration;

    const SID: &str = "AC00000000000000000000000000000001";

    fn config() -> Config {
        Config {
            account_sid: Some(SID.into()),
            auth_token: Some(Secret::new("12345")),
            api_key_sid: None,
            api_key_secret: None,
            base_url: "http://127.0.0.1:9/tw".into(),
            api_timeout: Duration::from_secs(7),
            shared_keys: Vec::new(),
            insecure: false,
        }
    }

    fn pairs(request: &ApiRequest) -> Vec<(String, String)> {
        let form = form::Form::parse(&request.body).unwrap();
        form.0.into_iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    #[test]
    fn a_dial_carries_the_answer_and_asks_for_every_status() {
        let answer = Answer::Stream {
            url: "wss://relay.example.com/s/tok".into(),
            token: "tok".into(),
            status_url: "https://relay.example.com/st".into(),
            session_id: String::new(),
        };
        let action = CallAction::Dial {
            call: "",
            agent: "",
            to: "+15550102",
            from: "+15550101",
            answer: &answer,
            answer_url: "",
            status_url: "https://relay.example.com/status?a=1&b=2",
            ring: Duration::from_secs(30),
        };
        let request = request(&config(), "", &action).unwrap();
        assert_eq!(request.method, Method::POST);
        assert_eq!(
            request.url,
            format!("http://127.0.0.1:9/tw/2010-04-01/Accounts/{SID}/Calls.json")
        );
        assert_eq!(request.timeout, Duration::from_secs(7));
        let auth = &request.headers[AUTHORIZATION];
        assert!(auth.is_sensitive());
        assert_eq!(
            auth,
            &format!("Basic {}", base64::encode_string(format!("{SID}:12345").as_bytes()))
        );
        let expect = [
            ("To", "+15550102"),
            ("From", "+15550101"),
            ("Twiml", &hooks::twiml(&answer)),
            ("Timeout", "30"),
            ("StatusCallback", "https://relay.example.com/status?a=1&b=2"),
            ("StatusCallbackMethod", "POST"),
            ("StatusCallbackEvent", "initiated"),
            ("StatusCallbackEvent", "ringing"),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "completed"),
        ];
        assert_eq!(pairs(&request), expect.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_hang_up_and_a_transfer_update_the_call_and_digits_have_no_command() {
        let hang_up = request(&config(), "CA1", &CallAction::HangUp).unwrap();
        assert!(hang_up.url.ends_with("/Calls/CA1.json"), "{}", hang_up.url);
        assert_eq!(&hang_up.body[..], b"Status=completed");
        let escaped = request(&config(), "../x?y", &CallAction::HangUp).unwrap();
        assert!(escaped.url.ends_with("/Calls/..%2Fx%3Fy.json"), "{}", escaped.url);

        let to = |to| {
            pairs(&request(&config(), "CA1", &CallAction::Transfer { to }).unwrap())[0]
                .1
                .clone()
        };
        assert!(to("+15550103").contains("<Dial answerOnBridge=\"true\"><Number>+15550103</Number></Dial>"));
        assert!(to("sip:a@b?x=<&").contains("<Sip>sip:a@b?x=&lt;&amp;</Sip>"));
        assert!(request(&config(), "CA1", &CallAction::Digits { digits: "1" }).is_none());
    }

    #[test]
    fn without_credentials_there_is_no_request() {
        let mut config = config();
        config.auth_token = None;
        assert!(request(&config, "CA1", &CallAction::HangUp).is_none());
        config.api_key_sid = Some("SK1".into());
        config.api_key_secret = Some(Secret::new("s"));
        let by_key = request(&config, "CA1", &CallAction::HangUp).unwrap();
        assert_eq!(by_key.headers[AUTHORIZATION], "Basic U0sxOnM=");
    }

    #[test]
    fn replies_are_the_call_id_or_a_fault_in_the_vendors_words() {
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
        let call = include_bytes!("testdata/call.json");
        assert_eq!(
            reply(&dial, 201, call).as_deref(),
            Ok("CA00000000000000000000000000000002")
        );
        for (action, status, body, kind) in [
            (&dial, 201, "{}", Kind::BadGateway),
            (&dial, 201, "<html>", Kind::BadGateway),
            (&dial, 400, r#"{"code":21211,"message":"Invalid 'To'"}"#, Kind::Invalid),
            (
                &dial,
                401,
                r#"{"code":20003,"message":"Authenticate"}"#,
                Kind::BadGateway,
            ),
            (&dial, 429, "", Kind::TooMany),
            (&dial, 400, r#"{"code":20429}"#, Kind::TooMany),
            (&dial, 500, "", Kind::BadGateway),
            (&dial, 302, "", Kind::BadGateway),
            (
                &CallAction::Transfer { to: "" },
                404,
                r#"{"code":20404}"#,
                Kind::NotFound,
            ),
            (
                &CallAction::Transfer { to: "" },
                400,
                r#"{"code":21220}"#,
                Kind::Conflict,
            ),
            (&CallAction::HangUp, 503, "", Kind::BadGateway),
        ] {
            let fault = reply(action, status, body.as_bytes()).unwrap_err();
            assert_eq!(
                (fault.kind, fault.origin),
                (kind, Origin::Vendor),
                "{status} {body} {fault}"
            );
        }
        let fault = reply(&dial, 400, b"{\"code\":21211,\"message\":\"Bad\\u001b[31m number\"}").unwrap_err();
        assert_eq!(fault.message, "Twilio: Bad[31m number (code 21211)");
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(5000));
        assert!(reply(&dial, 500, long.as_bytes()).unwrap_err().message.len() < 400);
    }

    #[test]
    fn hanging_up_an_ended_call_succeeds() {
        for (status, body) in [
            (200, r#"{"sid":"CA1"}"#),
            (404, ""),
            (404, r#"{"code":20404}"#),
            (400, r#"{"code":21220,"message":"Call is not in-progress"}"#),
        ] {
            assert!(
                reply(&CallAction::HangUp, status, body.as_bytes()).is_ok(),
                "{status} {body}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_reply_panics(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = reply(&CallAction::HangUp, status, &body);
            let _ = reply(&CallAction::Transfer { to: "" }, status, &body);
        }
    }
}
