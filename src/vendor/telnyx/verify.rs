//! Who sent a webhook: `telnyx-signature-ed25519` over the timestamp as written, `|`, and the raw body.
//!
//! Nothing else is signed: not the URL, so no proxy matters, and not the upgrade of a media socket. A retry has a new
//! timestamp, so replays are recognised by the event's id, not here.

use super::config::Config;
use crate::{
    base::{
        fault::{Fault, Kind},
        time::Wall,
    },
    vendor::HookRequest,
    wire::sign::{self, PrivateKey},
};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) static SIGNATURE: HeaderName = HeaderName::from_static("telnyx-signature-ed25519");
static TIMESTAMP: HeaderName = HeaderName::from_static("telnyx-timestamp");

/// Seconds that a request may be old, or early, as in the official SDKs.
const WINDOW_S: u64 = 300;

/// Whether a webhook is Telnyx's, and of now.
pub(super) fn webhook(config: &Config, request: &HookRequest<'_>) -> Result<(), Fault> {
    if config.insecure {
        return Ok(());
    }
    if config.public_keys.is_empty() {
        return Err(refused(
            "telnyx.public_key is not configured, so no request of Telnyx's can be verified",
        ));
    }
    let timestamp = one(request.headers, &TIMESTAMP)?;
    let signature = sign::signature(one(request.headers, &SIGNATURE)?)
        .ok_or_else(|| refused("the signature is not base64 of 64 bytes"))?;
    let digits = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
    let at: u64 = timestamp
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| refused("the timestamp is not a number of seconds"))?;
    let message = message(timestamp, request.body);
    if !config.public_keys.iter().any(|key| key.verify(&message, &signature)) {
        return Err(refused(
            "the signature is not Telnyx's for this body: check telnyx.public_key",
        ));
    }
    let now = request.received_at.as_secs().max(0) as u64;
    if now.abs_diff(at) > WINDOW_S {
        return Err(refused(
            "the timestamp is more than 300 seconds from this machine's clock",
        ));
    }
    Ok(())
}

/// The headers by which Telnyx signs `body` at a time.
pub(super) fn sign(key: &PrivateKey, body: &[u8], now: Wall) -> [(HeaderName, HeaderValue); 2] {
    let timestamp = now.as_secs().to_string();
    let signature = key.sign(&message(&timestamp, body));
    let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    [
        (SIGNATURE.clone(), value(signature)),
        (TIMESTAMP.clone(), value(timestamp)),
    ]
}

fn message(timestamp: &str, body: &[u8]) -> Vec<u8> {
    [timestamp.as_bytes(), b"|", body].concat()
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Fault> {
    let mut all = headers.get_all(name).iter();
    match (all.next().map(HeaderValue::to_str), all.next()) {
        (Some(Ok(value)), None) => Ok(value),
        (None, _) => Err(refused("the request is not signed")),
        _ => Err(refused("the signature's headers are given twice or are not text")),
    }
}

fn refused(why: &'static str) -> Fault {
    Fault::client(Kind::Forbidden, why)
}

#[cfg(test)]
mod tests {
    use super::{super::config::tests::read, *};

    /// The key of these vectors has the seed 00 01 … 1f; they were computed with PyNaCl and are accepted by the official SDK.
    const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    const ANSWERED: &str = include_str!("testdata/signed-answered.json");
    const VECTORS: [(u64, &str, &str); 3] = [
        (
            1_704_110_400,
            ANSWERED,
            "cc1vywKH6e153mvp5zYxC1uRSeJxCgn32gKWI8fNjpRre7cwh0xHBzjhzM4Oca5omhbtTaX87DsiC5FMfOfuAg==",
        ),
        (
            1_704_110_401,
            "{\"data\":{\"event_type\":\"call.hangup\",\"payload\":{\"caller_id_name\":\"Zoë ☃\"}}}",
            "S2TSty1BN7nhJKm0PqCm1AzIUwEu3UqjPFgUC7GlptggIE7h4PDmKEhRgpahw6DWrBebPAhFVTBp9oCmACNADg==",
        ),
        (
            1_704_110_402,
            "",
            "ZX4lEey3pSVk6LhtVj4okKtTY/q5D8AYXLCRZQDIQRH6/Q0lXKwbUta4uMVP95C39K5FeV2qNNt2S0nTfxnGCA==",
        ),
    ];

    fn at(seconds: u64) -> Wall {
        Wall::from_micros(seconds as i64 * 1_000_000)
    }

    fn check(keys: &str, headers: &[(&HeaderName, &str)], body: &str, now: u64) -> Result<(), Fault> {
        let (config, _) = read(&[("public_key", keys)]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let request = HookRequest {
            method: "POST",
            path_and_query: "/anything",
            headers: &map,
            body: body.as_bytes(),
            public_base: "",
            by_number: false,
            client: None,
            received_at: at(now),
        };
        webhook(&config, &request)
    }

    #[test]
    fn the_vectors_hold_within_five_minutes_and_not_beyond() {
        for (t, body, signature) in VECTORS {
            let stamp = t.to_string();
            let headers = [(&SIGNATURE, signature), (&TIMESTAMP, stamp.as_str())];
            for (now, ok) in [
                (t, true),
                (t + 300, true),
                (t - 300, true),
                (t + 301, false),
                (t - 301, false),
            ] {
                assert_eq!(check(KEY, &headers, body, now).is_ok(), ok, "{t} {now}");
            }
            assert!(check(KEY, &headers, &format!("{body} "), t).is_err());
            let padded = format!("0{t}");
            let restamped = [(&SIGNATURE, signature), (&TIMESTAMP, padded.as_str())];
            assert!(
                check(KEY, &restamped, body, t).is_err(),
                "the text is signed, not the number"
            );
        }
    }

    #[test]
    fn one_of_several_keys_is_enough_and_another_is_not() {
        let (t, body, signature) = VECTORS[0];
        let stamp = t.to_string();
        let headers = [(&SIGNATURE, signature), (&TIMESTAMP, stamp.as_str())];
        let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert!(check(&format!("{other},{KEY}"), &headers, body, t).is_ok());
        assert!(check(other, &headers, body, t).is_err());
        assert!(check("", &headers, body, t).is_err());
    }

    #[test]
    fn what_is_not_signed_properly_is_refused() {
        let (t, body, signature) = VECTORS[0];
        let stamp = t.to_string();
        let stamp = stamp.as_str();
        let unpadded = signature.trim_end_matches('=');
        for headers in [
            &[(&SIGNATURE, signature)][..],
            &[(&TIMESTAMP, stamp)],
            &[(&SIGNATURE, ""), (&TIMESTAMP, stamp)],
            &[(&SIGNATURE, unpadded), (&TIMESTAMP, stamp)],
            &[(&SIGNATURE, "AAAA"), (&TIMESTAMP, stamp)],
            &[(&SIGNATURE, signature), (&TIMESTAMP, "soon")],
            &[(&SIGNATURE, signature), (&TIMESTAMP, "-1704110400")],
            &[(&SIGNATURE, signature), (&TIMESTAMP, "1704110400.0")],
            &[(&SIGNATURE, signature), (&SIGNATURE, signature), (&TIMESTAMP, stamp)],
        ] {
            assert!(check(KEY, headers, body, t).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn what_is_signed_here_is_believed_there() {
        let key = PrivateKey::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        for (t, body, signature) in VECTORS {
            let headers = sign(&key, body.as_bytes(), at(t));
            assert_eq!(headers[0].1, signature);
            assert_eq!(headers[1].1, t.to_string());
        }
    }
}
