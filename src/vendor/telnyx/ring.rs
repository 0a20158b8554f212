//! Telnyx's end of the webhooks, for simulation: what it posts about a call, signed as Telnyx signs.

use super::{peer::quoted, verify};
use crate::{
    base::{secret::Secret, time::Wall},
    vendor::{ApiRequest, PeerCall},
    wire::sign::PrivateKey,
};
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;

/// The guide gives a webhook 2 s; an application may be set to more, and a loaded machine needs it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A call came in and is parked.
pub(super) fn initiated(call: &PeerCall, url: &str, secret: Option<&Secret>) -> ApiRequest {
    let more = r#""client_state":null,"direction":"incoming","state":"parked""#;
    event(call, "call.initiated", more, url, secret)
}

/// It was answered; `state` is what our command gave, as JSON.
pub(super) fn answered(call: &PeerCall, state: &str, url: &str, secret: Option<&Secret>) -> ApiRequest {
    let more = format!(r#""client_state":{state},"state":"answered""#);
    event(call, "call.answered", &more, url, secret)
}

/// It is over after `seconds`.
pub(super) fn hangup(call: &PeerCall, state: &str, seconds: u32, url: &str, secret: Option<&Secret>) -> ApiRequest {
    let now = Wall::now();
    let began = Wall::from_micros(now.as_micros() - i64::from(seconds) * 1_000_000);
    let more = format!(
        r#""client_state":{state},"state":"hangup","hangup_cause":"normal_clearing","hangup_source":"caller","sip_hangup_cause":"200","start_time":"{began}","end_time":"{now}""#
    );
    event(call, "call.hangup", &more, url, secret)
}

/// One event in the envelope of API v2.
fn event(call: &PeerCall, kind: &str, more: &str, url: &str, secret: Option<&Secret>) -> ApiRequest {
    let now = Wall::now();
    let body = format!(
        r#"{{"data":{{"record_type":"event","event_type":"{kind}","id":"{}","occurred_at":"{now}","payload":{{"call_control_id":"{}","connection_id":"0","from":"{}","to":"{}",{more}}}}},"meta":{{"attempt":1,"delivered_to":"{}"}}}}"#,
        uuid::Uuid::new_v4(),
        quoted(&call.call_sid),
        quoted(&call.from),
        quoted(&call.to),
        quoted(url)
    );
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::USER_AGENT, HeaderValue::from_static("telnyx-webhooks")),
    ]);
    if let Some(key) = secret.and_then(|s| PrivateKey::parse(s.expose())) {
        headers.extend(verify::sign(&key, body.as_bytes(), now));
    }
    ApiRequest {
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: body.into(),
        timeout: TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::{
        CallNews, EndReason, Hook, HookKind, HookRequest, Trunk,
        telnyx::{Account, config::tests::read},
    };

    const SEED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn what_is_posted_passes_the_check_of_a_real_one_and_tells_the_call() {
        let call = PeerCall {
            call_sid: "v3:abc".into(),
            from: "+15550100".into(),
            to: "sip:a\"b@example.com".into(),
            ..PeerCall::default()
        };
        let account = Account::new(read(&[("public_key", "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")]).0);
        let url = "https://relay.example.com/telnyx/webhook";
        for (secret, believed) in [(Some(SEED), true), (Some(&*"0".repeat(64)), false), (None, false)] {
            let secret = secret.map(Secret::new);
            let told = [
                (initiated(&call, url, secret.as_ref()), CallNews::Initiated, None),
                (
                    answered(&call, "\"c3Q=\"", url, secret.as_ref()),
                    CallNews::Answered,
                    None,
                ),
                (
                    hangup(&call, "null", 42, url, secret.as_ref()),
                    CallNews::Ended(EndReason::Completed),
                    Some(42),
                ),
            ];
            for (request, news, seconds) in told {
                let hook = HookRequest {
                    method: request.method.as_str(),
                    path_and_query: "/telnyx/webhook",
                    headers: &request.headers,
                    body: &request.body,
                    public_base: "",
                    by_number: false,
                    client: None,
                    received_at: Wall::now(),
                };
                assert_eq!(account.verify(&hook).is_ok(), believed);
                let (Hook::Call(update) | Hook::News(update)) = account.parse(HookKind::Mixed, &hook).unwrap() else {
                    panic!("of no call")
                };
                assert_eq!((update.news, update.duration_s), (news, seconds));
                assert_eq!((update.call_sid.as_str(), &update.to), ("v3:abc", &call.to));
            }
        }
    }
}
