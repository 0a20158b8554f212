//! Who sent a webhook: HMAC-SHA256 over `<X-Teler-Timestamp>.<raw body>` where it is signed, else what the URL brings.
//!
//! Only webhooks are signed, and only where a secret is attached to the voice app. Flow requests never are.

use super::config::Config;
use crate::{
    base::{
        fault::{Fault, Kind},
        secret::Secret,
        time::Wall,
    },
    vendor::{HookRequest, gate::Gate, params::Params},
    wire::sign::{self, Algorithm, MacKey},
};
use http::{HeaderMap, HeaderName, HeaderValue};

static SIGNATURE: HeaderName = HeaderName::from_static("x-teler-signature");
static TIMESTAMP: HeaderName = HeaderName::from_static("x-teler-timestamp");
/// Seconds that a signature may be old, or ahead.
const TOLERANCE: i64 = 300;

/// Checks requests with what the configuration says.
#[derive(Debug)]
pub(super) struct Verifier {
    key: Option<MacKey>,
    gate: Gate,
}

impl Verifier {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            key: config.signing_secret.as_ref().map(key),
            gate: config.gate.clone(),
        }
    }

    /// Whether a request is Teler's. A signature that is there must be right.
    pub(super) fn check(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        match &self.key {
            Some(key) if !self.gate.insecure() && request.headers.contains_key(&SIGNATURE) => {
                signed(key, request).ok_or_else(|| {
                    Fault::client(
                        Kind::Forbidden,
                        "the signature is not Teler's for this request or too old: check teler.signing_secret and the clock",
                    )
                })
            }
            // Where events are signed they must be, whatever the URL brings: else leaving the signature out would do.
            Some(_) if !self.gate.insecure() && is_event(request) => {
                Err(Fault::client(
                    Kind::Forbidden,
                    "the event is not signed: attach teler.signing_secret to the voice app",
                ))
            }
            _ => self.gate.check(request),
        }
    }
}

/// Whether the request tells news of a call, and does not ask for a flow.
fn is_event(request: &HookRequest<'_>) -> bool {
    Params::read(request).is_ok_and(|params| params.any("event") || params.any("type"))
}

fn key(secret: &Secret) -> MacKey {
    MacKey::new(Algorithm::HmacSha256, secret.expose().as_bytes())
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?.trim();
    all.next().is_none().then_some(value)
}

fn signed(key: &MacKey, request: &HookRequest<'_>) -> Option<()> {
    let timestamp = one(request.headers, &TIMESTAMP)?;
    let at: i64 = timestamp.parse().ok()?;
    if request.received_at.as_secs().abs_diff(at) > TOLERANCE as u64 {
        return None;
    }
    let text = one(request.headers, &SIGNATURE)?;
    let text = text.strip_prefix("sha256=").unwrap_or(text);
    // Hexadecimal as documented, or base64 as some versions had it.
    let code = sign::hex(text).or_else(|| sign::signature(text))?;
    key.verify([timestamp, ".", std::str::from_utf8(request.body).ok()?], &code)
        .then_some(())
}

/// The headers with which the voice app of this secret signs a body.
pub(super) fn headers(secret: &Secret, at: Wall, body: &str) -> Option<[(HeaderName, HeaderValue); 2]> {
    let timestamp = at.as_secs().to_string();
    let key = key(secret);
    let hex: String = key
        .sign([&*timestamp, ".", body])
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Some([
        (TIMESTAMP.clone(), HeaderValue::from_str(&timestamp).ok()?),
        (SIGNATURE.clone(), HeaderValue::try_from(hex).ok()?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        vendor::{account::tests::configured, params::tests::asked},
        wire::base64,
    };

    fn verifier(pairs: &[(&str, &str)]) -> Verifier {
        Verifier::new(&configured(pairs, Config::read).0)
    }

    const BODY: &str = r#"{"event":"call.completed"}"#;

    /// Whether a request with these headers is believed.
    fn believed(verifier: &Verifier, path: &str, headers: &[(&HeaderName, &str)]) -> bool {
        asked("POST", path, "application/json", BODY, |r| {
            let mut all = r.headers.clone();
            for (name, value) in headers {
                all.append(*name, HeaderValue::from_str(value).unwrap());
            }
            verifier.check(&HookRequest { headers: &all, ..*r }).is_ok()
        })
    }

    /// When `asked` receives requests.
    const NOW: i64 = 1_767_225_600;

    fn code(secret: &str, timestamp: &str) -> Vec<u8> {
        key(&Secret::new(secret)).sign([timestamp, ".", BODY]).as_ref().to_vec()
    }

    fn hex(code: &[u8]) -> String {
        code.iter().map(|b| format!("{b:02x}")).collect()
    }

    const FLOW: &str = r#"{"call_id":"1","from_number":"+1","to_number":"+2"}"#;

    #[test]
    fn an_event_is_signed_where_events_are_whatever_the_url_brings() {
        let signing = ("signing_secret", "topsecret");
        let number = ("/api/telephony/webhook/num_1/status", true);
        for (pairs, (path, by_number)) in [
            (&[signing][..], number),
            (&[signing, ("webhook_secret", "w")], ("/webhook?secret=w", false)),
        ] {
            let verifier = verifier(pairs);
            let believed = |body: &str| {
                asked("POST", path, "application/json", body, |r| {
                    verifier.check(&HookRequest { by_number, ..*r }).is_ok()
                })
            };
            assert!(!believed(BODY), "{path}");
            assert!(believed(FLOW), "flow requests are never signed: {path}");
        }
    }

    #[test]
    fn the_code_of_an_independent_implementation_is_believed() {
        // printf '1767225600.{"event":"call.completed"}' | openssl dgst -sha256 -hmac topsecret
        let expect = include_str!("testdata/signature.hex").trim();
        assert_eq!(hex(&code("topsecret", "1767225600")), expect);
        let verifier = verifier(&[("signing_secret", "topsecret")]);
        assert!(believed(
            &verifier,
            "/webhook",
            &[(&TIMESTAMP, "1767225600"), (&SIGNATURE, expect)]
        ));
    }

    #[test]
    fn a_signature_is_believed_in_every_encoding_for_five_minutes() {
        let verifier = verifier(&[("signing_secret", "s")]);
        for (age, fresh) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            let timestamp = (NOW - age).to_string();
            let code = code("s", &timestamp);
            for text in [
                hex(&code),
                format!("sha256={}", hex(&code)),
                base64::encode_string(&code),
            ] {
                let headers = [(&TIMESTAMP, &*timestamp), (&SIGNATURE, &*text)];
                assert_eq!(believed(&verifier, "/webhook", &headers), fresh, "{age} {text}");
            }
        }
    }

    #[test]
    fn a_wrong_or_half_signature_is_refused_whatever_the_url_brings() {
        let verifier = verifier(&[("signing_secret", "s"), ("webhook_secret", "w")]);
        let (now, later) = (NOW.to_string(), (NOW + 1).to_string());
        let (good, other) = (hex(&code("s", &now)), hex(&code("t", &now)));
        for headers in [
            &[(&SIGNATURE, &*good)][..],
            &[(&TIMESTAMP, &*now), (&SIGNATURE, &*other)],
            &[(&TIMESTAMP, &*later), (&SIGNATURE, &*good)],
            &[(&TIMESTAMP, &*now), (&SIGNATURE, "")],
            &[(&TIMESTAMP, &*now), (&SIGNATURE, &*good), (&SIGNATURE, &*good)],
            &[(&TIMESTAMP, "soon"), (&SIGNATURE, &*good)],
        ] {
            assert!(!believed(&verifier, "/webhook?secret=w", headers), "{headers:?}");
        }
    }

    #[test]
    fn what_is_not_signed_needs_the_secret_of_the_url() {
        let verifier = verifier(&[("signing_secret", "s"), ("webhook_secret", "w")]);
        let flow = |path| asked("POST", path, "application/json", FLOW, |r| verifier.check(r).is_ok());
        assert!(flow("/flow?secret=w"));
        assert!(!flow("/flow") && !flow("/flow?secret=s"));
        assert!(believed(
            &self::verifier(&[("insecure", "true")]),
            "/flow",
            &[(&SIGNATURE, "x")]
        ));
    }
}
