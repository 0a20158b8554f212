//! Twilio's end of the voice webhook, for simulation: the request that announces a call, signed as Twilio signs, and the TwiML that
//! answers it, read as far as sidetone writes it.

use crate::{
    base::secret::Secret,
    vendor::{Answer, ApiRequest, PeerCall, WireError},
    wire::{
        base64,
        form::FormWriter,
        sign::{Algorithm, MacKey},
    },
};
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;

/// Twilio gives every call-related request 15 s.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The request for `call`, posted to `url`.
pub(super) fn announce(call: &PeerCall, account: &str, url: &str, secret: Option<&Secret>) -> ApiRequest {
    // In byte order of the names, as the signature wants them.
    let parameters = [
        ("AccountSid", account),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", &call.call_sid),
        ("CallStatus", "ringing"),
        ("Called", &call.to),
        ("Caller", &call.from),
        ("Direction", "inbound"),
        ("From", &call.from),
        ("To", &call.to),
    ];
    let form = parameters
        .iter()
        .fold(FormWriter::new(), |form, (name, value)| form.pair(name, value));
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8"),
    );
    if let Some(secret) = secret {
        let key = MacKey::new(Algorithm::HmacSha1, secret.expose().as_bytes());
        let signed = [url].into_iter().chain(parameters.iter().flat_map(|(n, v)| [*n, *v]));
        let signature = base64::encode_string(key.sign(signed).as_ref());
        if let Ok(value) = HeaderValue::from_str(&signature) {
            headers.insert("x-twilio-signature", value);
        }
    }
    ApiRequest {
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: form.finish().into(),
        timeout: TIMEOUT,
    }
}

/// Reads a TwiML document: its first verb decides.
pub(super) fn answered(document: &[u8]) -> Result<Answer, WireError> {
    let text = std::str::from_utf8(document).map_err(|_| WireError::Shape("document"))?;
    let mut tags = text
        .split('<')
        .skip(1)
        .map(|piece| piece.split('>').next().unwrap_or_default());
    let mut stream = None;
    let mut token = String::new();
    for tag in &mut tags {
        match tag.split([' ', '/']).next().unwrap_or_default() {
            "Reject" => return Ok(Answer::Busy),
            "Hangup" if stream.is_none() => return Ok(Answer::HangUp),
            "Stream" => {
                let url = attribute(tag, "url").ok_or(WireError::Shape("url"))?;
                stream = Some((url, attribute(tag, "statusCallback").unwrap_or_default()));
            }
            "Parameter" if attribute(tag, "name").as_deref() == Some("token") => {
                token = attribute(tag, "value").unwrap_or_default();
            }
            _ => {}
        }
    }
    let (url, status_url) = stream.ok_or(WireError::Shape("Response"))?;
    Ok(Answer::Stream { url, token, status_url })
}

/// The value of an attribute, its entities read.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"')?;
        if before.trim_end().rsplit([' ', '\n']).next() == Some(name) {
            let entities = [
                ("&lt;", "<"),
                ("&gt;", ">"),
                ("&quot;", "\""),
                ("&apos;", "'"),
                ("&amp;", "&"),
            ];
            return Some(
                entities
                    .iter()
                    .fold(value.to_owned(), |text, (e, c)| text.replace(e, c)),
            );
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::hooks::twiml, *};

    #[test]
    fn the_announcement_passes_the_check_of_a_real_one() {
        use crate::{
            base::settings::{Faults, Section, Table},
            vendor::{HookKind, HookRequest, Trunk, twilio},
        };
        let call = PeerCall {
            call_sid: "CA1".into(),
            token: None,
            from: "+15550100".into(),
            to: "sip:a b@example.com".into(),
        };
        let url = "https://relay.example.com/api/calls/twilio/webhook?tenant=7";
        let account = twilio::Account::new(twilio::Config {
            auth_token: Some(Secret::new("12345")),
            ..twilio::Config::read(&Section::root(&Table::new(), &Faults::default()))
        });
        for (secret, believed) in [(Some("12345"), true), (Some("54321"), false), (None, false)] {
            let secret = secret.map(Secret::new);
            let request = announce(&call, "AC1", url, secret.as_ref());
            let hook = HookRequest {
                method: request.method.as_str(),
                path_and_query: "/api/calls/twilio/webhook?tenant=7",
                headers: &request.headers,
                body: &request.body,
                public_base: "https://relay.example.com",
            };
            assert_eq!(account.verify(&hook).is_ok(), believed);
            let update = account.parse(HookKind::Call, &hook).unwrap();
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
        };
        for answer in [stream, Answer::Busy, Answer::HangUp] {
            assert_eq!(answered(twiml(&answer).as_bytes()), Ok(answer));
        }
        assert!(answered(b"<Response><Stream/></Response>").is_err());
        assert!(answered(b"").is_err());
    }
}
