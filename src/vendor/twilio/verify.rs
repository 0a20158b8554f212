//! Who sent a webhook or opened a media socket: `X-Twilio-Signature`.
//!
//! The signature covers the URL *as configured at Twilio*, so it is rebuilt from the configured public base and the path
//! and query as received; no forwarding header is looked at. What is verified is what is read: the parameters come from
//! the one place that the signature was computed over.

use super::config::{ALGORITHMS, Config};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        secret::Secret,
    },
    vendor::HookRequest,
    wire::{
        base64,
        form::Form,
        sign::{self, Algorithm, MacKey},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::iter;

pub(super) static SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
static SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
/// Checks signatures with what the configuration says, and with nothing that the request says.
#[derive(Debug)]
pub(super) struct Verifier {
    auth_token: Option<MacKey>,
    shared: Vec<(String, &'static str, MacKey)>,
    insecure: bool,
}

impl Verifier {
    pub(super) fn new(config: &Config) -> Self {
        let shared = config.shared_keys.iter().map(|key| {
            let mac = MacKey::new(key.algorithm, key.secret.expose().as_bytes());
            (key.id.clone(), name(key.algorithm), mac)
        });
        Self {
            auth_token: config
                .auth_token
                .as_ref()
                .map(|t| MacKey::new(Algorithm::HmacSha1, t.expose().as_bytes())),
            shared: shared.collect(),
            insecure: config.insecure,
        }
    }

    /// Whether a webhook is Twilio's.
    pub(super) fn webhook(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        if self.insecure {
            return Ok(());
        }
        let (key, code) = self.key_and_code(request.headers)?;
        let base = Base::parse(request.public_base)?;
        let body = Body::of(request)?;
        if let Body::Hashed = body {
            let expect = read(query(request.path_and_query).as_bytes())?;
            let mut hashes = expect.all("bodySHA256");
            let matches = |hash: &str| sign::equal(hash.as_bytes(), sign::sha256_hex(request.body).as_bytes());
            if !(hashes.next().is_some_and(matches) && hashes.next().is_none()) {
                return Err(refused("the body is not the one of bodySHA256 in the URL"));
            }
        }
        let parameters = match &body {
            Body::Form(form) => sorted(form),
            Body::Query | Body::Hashed => Vec::new(),
        };
        let matched = base.urls(base.scheme, request.path_and_query).any(|url| {
            let url = url.iter().map(|part| &**part);
            key.verify(url.chain(parameters.iter().flat_map(|(n, v)| [*n, *v])), &code)
        });
        matched.then_some(()).ok_or_else(mismatch)
    }

    /// Whether the upgrade request of a media socket is Twilio's. Its notes and tools disagree on the scheme, on a trailing
    /// slash, and on where a query goes; all of these forms need the key, so all are taken.
    pub(super) fn upgrade(&self, request: &HookRequest<'_>) -> Result<(), Fault> {
        if self.insecure {
            return Ok(());
        }
        let (key, code) = self.key_and_code(request.headers)?;
        let base = Base::parse(request.public_base)?;
        let (path, query) = request
            .path_and_query
            .split_once('?')
            .unwrap_or((request.path_and_query, ""));
        let form = read(query.as_bytes())?;
        let socket = if base.scheme == "http" { "ws" } else { "wss" };
        let question = if query.is_empty() { "" } else { "?" };
        let apart = sorted(&form);
        for scheme in [socket, base.scheme] {
            for slash in ["", "/"] {
                for (tail, parameters) in [([question, query], &[][..]), (["", ""], &apart[..])] {
                    for url in base.urls(scheme, path) {
                        let url = url.iter().map(|part| &**part).chain([slash]).chain(tail);
                        if key.verify(url.chain(parameters.iter().flat_map(|(n, v)| [*n, *v])), &code) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Err(mismatch())
    }

    /// The key that the configuration has for this request, and the code that the request carries.
    fn key_and_code(&self, headers: &HeaderMap) -> Result<(&MacKey, Vec<u8>), Fault> {
        let settings = match one(headers, &SETTINGS) {
            Ok(settings) => settings.filter(|s| !s.trim().is_empty()),
            Err(()) => return Err(refused("the signature settings are given twice or are not text")),
        };
        let key = if !self.shared.is_empty() {
            self.shared_key(settings.unwrap_or_default())
                .ok_or_else(|| refused("not signed with a key and algorithm of twilio.shared_keys"))?
        } else if settings.is_some_and(|s| setting(s, "algorithm").is_some()) {
            return Err(refused(
                "signed with a shared key, and twilio.shared_keys is not configured",
            ));
        } else {
            self.auth_token.as_ref().ok_or_else(|| {
                refused("twilio.auth_token is not configured, so no request of Twilio's can be verified")
            })?
        };
        match one(headers, &SIGNATURE) {
            Ok(Some(text)) => {
                let code = sign::signature(text).ok_or_else(|| refused("X-Twilio-Signature is not a signature"))?;
                Ok((key, code))
            }
            Ok(None) => Err(refused("X-Twilio-Signature is missing")),
            Err(()) => Err(refused("X-Twilio-Signature is given twice or is not text")),
        }
    }

    fn shared_key(&self, settings: &str) -> Option<&MacKey> {
        let (id, algorithm) = (setting(settings, "key")?, setting(settings, "algorithm")?);
        let (_, name, key) = self.shared.iter().find(|(known, ..)| known == id)?;
        (*name == algorithm).then_some(key)
    }
}

/// Signs as Twilio does with an auth token: `url` as configured, then the form's parameters.
pub(super) fn sign(token: &Secret, url: &str, form: &Form<'_>) -> Option<(HeaderName, HeaderValue)> {
    signature(&MacKey::new(Algorithm::HmacSha1, token.expose().as_bytes()), url, form)
}

/// Signs the upgrade request of a media socket as this account's Twilio does: with a shared key once there is one.
pub(super) fn sign_upgrade(config: &Config, url: &str) -> Vec<(HeaderName, HeaderValue)> {
    let form = Form::default();
    let Some(shared) = config.shared_keys.first() else {
        let signed = config.auth_token.as_ref().and_then(|token| sign(token, url, &form));
        return signed.into_iter().collect();
    };
    let key = MacKey::new(shared.algorithm, shared.secret.expose().as_bytes());
    let settings = format!("key={},algorithm={}", shared.id, name(shared.algorithm));
    let settings = HeaderValue::try_from(settings).ok().map(|v| (SETTINGS.clone(), v));
    signature(&key, url, &form).into_iter().chain(settings).collect()
}

fn signature(key: &MacKey, url: &str, form: &Form<'_>) -> Option<(HeaderName, HeaderValue)> {
    let parameters = sorted(form);
    let code = key.sign(iter::once(url).chain(parameters.iter().flat_map(|(n, v)| [*n, *v])));
    let value = HeaderValue::try_from(base64::encode_string(code.as_ref())).ok()?;
    Some((SIGNATURE.clone(), value))
}

/// An algorithm as the settings header names it.
fn name(algorithm: Algorithm) -> &'static str {
    let known = ALGORITHMS.iter().find(|(_, _, a)| *a == algorithm);
    known.map_or("", |(_, name, _)| name)
}

/// The value of the one header of that name.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        _ => Err(()),
    }
}

/// A value of `key=<id>,algorithm=<name>`.
fn setting<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    settings
        .split(',')
        .filter_map(|s| s.trim().split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, v)| v)
}

fn refused(why: &'static str) -> Fault {
    Fault::client(Kind::Forbidden, why)
}

fn mismatch() -> Fault {
    refused("the signature is not Twilio's for this request: check twilio.auth_token and the public base URL")
}

/// A request that is Twilio's and cannot be acted on.
pub(super) fn malformed(what: impl Into<String>) -> Fault {
    Fault::new(Origin::Vendor, Kind::Malformed, what.into())
}

/// Where a request's parameters are, and so what its signature covers beside the URL.
enum Body<'a> {
    /// In the query, which is part of the URL.
    Query,
    /// In the body, as a form.
    Form(Form<'a>),
    /// The body is opaque; its hash is in the URL.
    Hashed,
}

/// The parameters that the signature covers.
pub(super) fn parameters<'a>(request: &HookRequest<'a>) -> Result<Form<'a>, Fault> {
    match Body::of(request)? {
        Body::Form(form) => Ok(form),
        Body::Query => read(query(request.path_and_query).as_bytes()),
        Body::Hashed => Err(malformed("a form is expected")),
    }
}

fn read(form: &[u8]) -> Result<Form<'_>, Fault> {
    Form::parse(form).map_err(|e| malformed(e.to_string()))
}

impl<'a> Body<'a> {
    fn of(request: &HookRequest<'a>) -> Result<Self, Fault> {
        let media_type = request
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(';').next())
            .unwrap_or_default()
            .trim();
        if request.method.eq_ignore_ascii_case("GET") {
            Ok(Self::Query)
        } else if media_type.is_empty() || media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            read(request.body).map(Self::Form)
        } else {
            Ok(Self::Hashed)
        }
    }
}

fn query(path_and_query: &str) -> &str {
    path_and_query.split_once('?').map_or("", |(_, query)| query)
}

/// Names in byte order, and for each name its distinct values in byte order.
fn sorted<'a>(form: &'a Form<'_>) -> Vec<(&'a str, &'a str)> {
    let mut pairs: Vec<_> = form.0.iter().map(|(n, v)| (&**n, &**v)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// The public base URL, in parts.
struct Base<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    /// A path that a proxy in front of us takes away.
    prefix: &'a str,
}

impl<'a> Base<'a> {
    fn parse(url: &'a str) -> Result<Self, Fault> {
        let bad = || Fault::internal("the public base URL is not http:// or https:// and a host");
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        if !matches!(scheme, "http" | "https") {
            return Err(bad());
        }
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            scheme,
            host,
            port,
            prefix: prefix.trim_end_matches('/'),
        })
    }

    /// The URLs that Twilio may have signed for `path`: without a port, and with the one configured or the scheme's
    /// default. Its back ends differ, and its SDK takes port 80 to be the default of everything but `https`.
    fn urls<'b>(&'b self, scheme: &'b str, path: &'b str) -> impl Iterator<Item = [&'b str; 7]> {
        let default: &[&str] = match (self.port, scheme) {
            (Some(_), _) => &[],
            (None, "https") => &["443"],
            (None, "wss") => &["443", "80"],
            (None, _) => &["80"],
        };
        let with_port = self.port.into_iter().chain(default.iter().copied());
        let ports = iter::once(("", "")).chain(with_port.map(|port| (":", port)));
        ports.map(move |(colon, port)| [scheme, "://", self.host, colon, port, self.prefix, path])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;
    use crate::vendor::{
        HookKind,
        twilio::{config::SharedKey, hooks},
    };
    use proptest::prelude::*;
    use std::time::Duration;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn config(token: Option<&str>, shared: &[(&str, &str)]) -> Config {
        let key = |(id, secret): &(&str, &str)| SharedKey {
            id: (*id).into(),
            secret: Secret::new(*secret),
            algorithm: Algorithm::HmacSha256,
        };
        Config {
            account_sid: None,
            auth_token: token.map(Secret::new),
            api_key_sid: None,
            api_key_secret: None,
            base_url: String::new(),
            api_timeout: Duration::ZERO,
            shared_keys: shared.iter().map(key).collect(),
            insecure: false,
        }
    }

    /// A request to `url`; content type and settings are left out when empty.
    struct Case<'a> {
        method: &'a str,
        url: &'a str,
        content_type: &'a str,
        body: &'a str,
        settings: &'a str,
        signature: &'a str,
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

    impl Case<'_> {
        fn with<T>(&self, check: impl FnOnce(&HookRequest<'_>) -> T) -> T {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                (&SIGNATURE, self.signature),
                (&SETTINGS, self.settings),
                (&header::CONTENT_TYPE, self.content_type),
            ] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let after = self.url.find("://").unwrap() + 3;
            let path = after + self.url[after..].find('/').unwrap();
            check(&HookRequest {
                method: self.method,
                path_and_query: &self.url[path..],
                headers: &headers,
                body: self.body.as_bytes(),
                public_base: &self.url[..path],
                by_number: false,
                client: None,
                received_at: Wall::default(),
            })
        }

        fn ok(&self, config: &Config) -> bool {
            self.with(|r| Verifier::new(config).webhook(r)).is_ok()
        }
    }

    fn post<'a>(url: &'a str, body: &'a str, signature: &'a str) -> Case<'a> {
        Case {
            method: "POST",
            url,
            content_type: FORM,
            body,
            settings: "",
            signature,
        }
    }

    const V2_URL: &str = "https://relay.example.com/twilio/voice?tenant=7";
    const V2_BODY: &str = "AccountSid=AC00000000000000000000000000000001&ApiVersion=2010-04-01&CallSid=CA00000000000000000000000000000001&CallStatus=ringing&CallerName=Zo%C3%AB+%26+Co&Direction=inbound&From=%2B15551230001&ForwardedFrom=&To=%2B15551230002";
    const V2_SIG: &str = "44/evwI+xB3w+Cq7K8DnZ4sIoPU=";
    const V2_SIG_PORT: &str = "Em4KXeLPfkWyLnL+d9Xlm2rCPVk=";
    const V2_SHA256: &str = "xusywR5HbhwBaS/ESFKjTKmCAcfVaIftBIxFkYkehBE=";

    #[test]
    fn the_documented_examples_verify() {
        let url = "https://example.com/myapp.php?foo=1&bar=2";
        let body = "CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212";
        assert!(post(url, body, "L/OH5YylLD5NRKLltdqwSvS0BnU=").ok(&config(Some("12345"), &[])));
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let body = "CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212";
        assert!(post(url, body, "0/KCTR6DLpKmkAf8muzZqo1nDgQ=").ok(&config(Some("12345"), &[])));
    }

    #[test]
    fn either_form_of_the_url_takes_the_signature_of_either() {
        let config = config(Some(TOKEN), &[]);
        for url in [V2_URL, "https://relay.example.com:443/twilio/voice?tenant=7"] {
            for signature in [V2_SIG, V2_SIG_PORT] {
                assert!(post(url, V2_BODY, signature).ok(&config), "{url} {signature}");
            }
        }
    }

    #[test]
    fn any_change_to_a_signed_form_is_refused() {
        let config = config(Some(TOKEN), &[]);
        for (url, body) in [
            ("http://relay.example.com/twilio/voice?tenant=7", V2_BODY),
            ("https://relay.example.com/twilio/voice?tenant=8", V2_BODY),
            ("https://relay.example.com/twilio/voice", V2_BODY),
            ("https://evil.example.com/twilio/voice?tenant=7", V2_BODY),
            (V2_URL, &V2_BODY.replace("ringing", "completed")),
            (V2_URL, &V2_BODY.replace("&ForwardedFrom=", "")),
            (V2_URL, &format!("{V2_BODY}&CallSid=CA2")),
            (V2_URL, ""),
        ] {
            assert!(!post(url, body, V2_SIG).ok(&config), "{url} {body}");
            assert!(!post(url, body, V2_SIG_PORT).ok(&config), "{url} {body}");
        }
        for signature in [
            "",
            "44/evwI+xB3w+Cq7K8DnZ4sIoPU",
            "44_evwI-xB3w-Cq7K8DnZ4sIoPU=",
            "AAAA",
            V2_SHA256,
        ] {
            assert!(!post(V2_URL, V2_BODY, signature).ok(&config), "{signature}");
        }
        let json = Case {
            content_type: "application/json",
            ..post(V2_URL, V2_BODY, V2_SIG)
        };
        assert!(!json.ok(&config));
        let get = Case {
            method: "GET",
            ..post(V2_URL, V2_BODY, V2_SIG)
        };
        assert!(!get.ok(&config));
    }

    #[test]
    fn repetitions_collapse_and_names_sort_by_bytes() {
        let config = config(Some(TOKEN), &[]);
        let url = "https://relay.example.com/twilio/status";
        let body = "CallSid=CA1&StatusCallbackEvent=ringing&StatusCallbackEvent=answered&StatusCallbackEvent=ringing";
        assert!(post(url, body, "J3/I34yiVI5eLhfX3EJiaZGar24=").ok(&config));
        let url = "https://relay.example.com/t";
        assert!(post(url, "b=2&A=1&a=3&B=4&_x=5", "XfpXm9+VUKyJZo/FGJ+zDXRBPxQ=").ok(&config));
        assert!(post(url, "_x=5&a=3&A=1&B=4&b=2", "XfpXm9+VUKyJZo/FGJ+zDXRBPxQ=").ok(&config));
    }

    #[test]
    fn a_json_body_is_held_by_its_hash_in_the_url() {
        let config = config(Some(TOKEN), &[]);
        let body = r#"{"CallSid":"CA00000000000000000000000000000001","event":"ping"}"#;
        let bare = "https://relay.example.com/twilio/json";
        let url = format!("{bare}?bodySHA256=5ebbcceb649912e05e5defe319eeaa803b9c48ed203343adaf81b11611f7c682");
        let case = |url: &str, body: &str| {
            let case = post(url, body, "8C2jPOs/z0EnuNR3S11dlCxqe2k=");
            Case {
                content_type: "application/json",
                ..case
            }
            .ok(&config)
        };
        assert!(case(&url, body));
        assert!(!case(&url, &format!("{body} ")));
        assert!(!case(bare, body));
        assert!(!case(&format!("{url}&bodySHA256=00"), body));
    }

    #[test]
    fn a_get_is_its_url() {
        let config = config(Some(TOKEN), &[]);
        let url = "https://relay.example.com/twilio/status?CallSid=CA1&CallStatus=completed";
        let case = |url| Case {
            method: "GET",
            content_type: "",
            ..post(url, "", "0SK8xKJNP704wMPD+1N6jG3IPwE=")
        };
        assert!(case(url).ok(&config));
        assert!(!case("https://relay.example.com/twilio/status?CallStatus=completed&CallSid=CA1").ok(&config));
    }

    #[test]
    fn an_upgrade_verifies_in_every_form_that_is_signed() {
        let config = config(Some(TOKEN), &[]);
        let ok = |url: &str, signature: &str| {
            let case = post(url, "", signature);
            let case = Case {
                method: "GET",
                content_type: "",
                ..case
            };
            case.with(|r| Verifier::new(&config).upgrade(r)).is_ok()
        };
        let signed = [
            "TJXuGL4T096LLZorzIYIeI967aU=",
            "89idFiHn5UdFeXtLyaCF2EFdDOY=",
            "uKjtyw2N/YPiR59CHNGCW9D312A=",
        ];
        for signature in signed {
            assert!(ok("https://relay.example.com/twilio/media", signature), "{signature}");
            assert!(!ok("https://relay.example.com/twilio/medib", signature), "{signature}");
            assert!(!ok("https://relay.example.org/twilio/media", signature), "{signature}");
        }
        let key = MacKey::new(Algorithm::HmacSha1, TOKEN.as_bytes());
        for url in [
            "wss://relay.example.com:443/m",
            "wss://relay.example.com:80/m",
            "wss://relay.example.com:443/m/",
            "https://relay.example.com:443/m",
        ] {
            let signature = base64::encode_string(key.sign([url]).as_ref());
            assert!(ok("https://relay.example.com/m", &signature), "{url}");
        }
        for parts in [
            ["wss://relay.example.com/m?b=1&a=%20", ""],
            ["wss://relay.example.com/m/?b=1&a=%20", ""],
            ["wss://relay.example.com/m", "a b1"],
        ] {
            let signature = base64::encode_string(key.sign(parts).as_ref());
            assert!(ok("https://relay.example.com/m?b=1&a=%20", &signature), "{parts:?}");
        }
        assert!(!ok("https://relay.example.com/twilio/media", ""));
    }

    #[test]
    fn with_a_shared_key_configured_sha_1_is_out_of_reach() {
        let named = "key=k1,algorithm=HMAC_SHA256";
        let shared = config(Some(TOKEN), &[("k0", "other"), ("k1", TOKEN)]);
        let case = |settings, signature| Case {
            settings,
            ..post(V2_URL, V2_BODY, signature)
        };
        assert!(case(named, V2_SHA256).ok(&shared));
        assert!(case("algorithm=HMAC_SHA256, key=k1", V2_SHA256).ok(&shared));
        for (settings, signature) in [
            (named, V2_SIG),
            ("", V2_SIG),
            ("", V2_SHA256),
            ("key=k1", V2_SIG),
            ("key=k1,algorithm=HMAC_SHA1", V2_SIG),
            ("key=k0,algorithm=HMAC_SHA256", V2_SHA256),
            ("key=k2,algorithm=HMAC_SHA256", V2_SHA256),
            ("key=k1,algorithm=none", V2_SHA256),
        ] {
            assert!(!case(settings, signature).ok(&shared), "{settings} {signature}");
        }
        let token = config(Some(TOKEN), &[]);
        assert!(!case(named, V2_SHA256).ok(&token));
        assert!(!case(named, V2_SIG).ok(&token));
        assert!(case("key=k1", V2_SIG).ok(&token));
    }

    #[test]
    fn without_a_key_nothing_is_believed_and_the_reason_is_said() {
        let fault = post(V2_URL, V2_BODY, V2_SIG)
            .with(|r| Verifier::new(&config(None, &[])).webhook(r))
            .unwrap_err();
        assert_eq!(fault.kind, Kind::Forbidden);
        assert!(fault.message.contains("twilio.auth_token is not configured"), "{fault}");
        let mut config = config(None, &[]);
        config.insecure = true;
        assert!(post(V2_URL, V2_BODY, "").ok(&config));
    }

    #[test]
    fn a_header_given_twice_is_refused() {
        let verifier = Verifier::new(&config(Some(TOKEN), &[]));
        post(V2_URL, V2_BODY, V2_SIG).with(|request| {
            for name in [&SIGNATURE, &SETTINGS] {
                let mut headers = request.headers.clone();
                headers.append(name, V2_SIG.parse().unwrap());
                headers.append(name, V2_SIG.parse().unwrap());
                let twice = HookRequest {
                    headers: &headers,
                    ..*request
                };
                assert_eq!(verifier.webhook(&twice).unwrap_err().kind, Kind::Forbidden);
            }
        });
    }

    #[test]
    fn a_public_base_may_have_a_port_a_prefix_or_an_address() {
        let key = MacKey::new(Algorithm::HmacSha1, TOKEN.as_bytes());
        let verifier = Verifier::new(&config(Some(TOKEN), &[]));
        for (base, signed) in [
            ("https://h:8443", "https://h:8443/p?q"),
            ("https://h:8443", "https://h/p?q"),
            ("http://h:8080", "http://h:8080/p?q"),
            ("http://h", "http://h:80/p?q"),
            ("https://h/relay", "https://h/relay/p?q"),
            ("https://[::1]:8443", "https://[::1]:8443/p?q"),
            ("https://[::1]", "https://[::1]:443/p?q"),
        ] {
            let signature = base64::encode_string(key.sign([signed]).as_ref());
            post("https://x/p?q", "", &signature).with(|r| {
                let request = HookRequest {
                    public_base: base,
                    by_number: false,
                    client: None,
                    received_at: Wall::default(),
                    ..*r
                };
                assert_eq!(verifier.webhook(&request), Ok(()), "{base} {signed}");
            });
        }
        for base in ["", "relay.example.com", "ftp://h", "https://", "https:///p"] {
            assert!(Base::parse(base).is_err(), "{base:?}");
        }
    }

    proptest! {
        #[test]
        fn a_hostile_request_never_panics_and_is_never_believed(
            method in prop::sample::select(&["GET", "POST", "PUT", ""][..]),
            path_and_query in "/?[a-c=&?/%+]{0,20}(bodySHA256=[a-f0-9]{0,64})?",
            public_base in prop_oneof![Just("https://h".to_owned()), any::<String>()],
            content_type in prop::sample::select(&["", "application/json", FORM, ";"][..]),
            signature in prop_oneof![Just(V2_SIG.to_owned()), "[A-Za-z0-9+/]{27}=", "[ -~]{0,40}"],
            body in prop::collection::vec(prop::sample::select(&b"CallSid=CallStatus&%+ \x00\xff{}"[..]), 0..60),
        ) {
            let mut headers = HeaderMap::new();
            headers.insert(&SIGNATURE, signature.parse().unwrap());
            headers.insert(&header::CONTENT_TYPE, content_type.parse().unwrap());
            let request = HookRequest {
                method,
                path_and_query: &path_and_query,
                headers: &headers,
                body: &body,
                public_base: &public_base,
                by_number: false,
                client: None,
                received_at: Wall::default(),
            };
            let verifier = Verifier::new(&config(Some(TOKEN), &[]));
            prop_assert!(verifier.webhook(&request).is_err());
            prop_assert!(verifier.upgrade(&request).is_err());
            let _ = hooks::parse(HookKind::Call, &request);
            let _ = hooks::parse(HookKind::Status, &request);
        }
    }
}
