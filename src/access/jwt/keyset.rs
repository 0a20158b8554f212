//! Public keys that somebody else keeps: a JWK set (RFC 7517 §5) in a file or behind a URL, read anew from time to time and
//! when a token names a key that is not in it.
//!
//! A set that cannot be read, or holds no key that can be used, changes nothing: the keys that were there stay.

use super::{ALGORITHMS, Key};
use crate::{
    base::time::Mono,
    metrics,
    net::client::{ApiRequest, HttpClient},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use serde_json::Value;
use std::{
    fmt,
    io::Read,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Mutex;

/// Keys of a set that are used; more are left out.
const MAX_KEYS: usize = 64;
/// The largest set, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a set is read from, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub place: Place,
    /// Time from one reading to the next.
    pub refresh: Duration,
    /// Time between two readings at least, whatever tokens ask for.
    pub retry: Duration,
}

/// Where a set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// An `https` URL, or an `http` one of this machine.
    Url(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // A query could hold a secret.
            Self::Url(url) => f.write_str(url.split(['?', '#']).next().unwrap_or_default()),
        }
    }
}

/// A set.
#[derive(Debug)]
pub struct KeySet {
    source: Source,
    http: HttpClient,
    keys: RwLock<Arc<[Key]>>,
    /// When it was last tried to read it. Held while it is read.
    tried: Mutex<Option<Mono>>,
}

impl KeySet {
    /// A set that has not been read.
    pub fn new(source: Source, http: HttpClient) -> Self {
        Self {
            source,
            http,
            keys: RwLock::new(Arc::new([])),
            tried: Mutex::default(),
        }
    }

    /// Where it is.
    pub const fn place(&self) -> &Place {
        &self.source.place
    }

    /// The keys as last read.
    pub(super) fn keys(&self) -> Arc<[Key]> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads it now. The error says why the keys are what they were.
    pub async fn read(&self, now: Mono) -> Result<(), String> {
        let mut tried = self.tried.lock().await;
        *tried = Some(now);
        self.fetch().await
    }

    /// A token named a key that is not here: reads the set, unless that was done a moment ago. Whether the keys may be others
    /// than those that the token was held against.
    pub async fn look_again(&self, now: Mono) -> bool {
        // Who comes while it is read waits for what comes of it.
        let waited = self.tried.try_lock().is_err();
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|at| now.since(at) < self.source.retry) {
            return waited;
        }
        *tried = Some(now);
        self.fetch().await.is_ok()
    }

    /// Reads it for ever: as often as configured, sooner after a failure.
    pub async fn keep_fresh(&self) {
        let mut wait = self.source.refresh;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.read(Mono::now()).await {
                Ok(()) => self.source.refresh,
                Err(why) => {
                    metrics::dropped("jwks", "unreadable", 1);
                    tracing::warn!(place = %self.source.place, why, "the keys of tokens could not be read: those that were read before stay");
                    self.source.retry.min(self.source.refresh)
                }
            };
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let bytes = match &self.source.place {
            Place::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = Vec::new();
                    let file = std::fs::File::open(path)?;
                    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
                    std::io::Result::Ok(bytes)
                });
                let read = read.await.map_err(|e| e.to_string())?;
                Bytes::from(read.map_err(|e| e.to_string())?)
            }
            Place::Url(url) => {
                let mut headers = HeaderMap::new();
                let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
                headers.insert(header::ACCEPT, accept);
                let request = ApiRequest {
                    method: Method::GET,
                    url: url.clone(),
                    headers,
                    body: Bytes::new(),
                    timeout: PATIENCE,
                };
                let reply = self.http.send(request).await.map_err(|e| e.to_string())?;
                if reply.status != 200 {
                    return Err(format!("the answer is {}", reply.status));
                }
                reply.body
            }
        };
        if bytes.len() > MAX_BYTES {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        let keys = parse(&bytes)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        Ok(())
    }
}

/// The keys of a set that can be used: public, for signatures, of an algorithm that is known.
pub fn parse(json: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON")?;
    let all = set["keys"]
        .as_array()
        .ok_or("it is no JWK set: there are no \"keys\"")?;
    let (mut keys, mut left_out) = (Vec::new(), 0);
    for one in all {
        match key(one).filter(|_| keys.len() < MAX_KEYS) {
            Some(key) => keys.push(key),
            None => left_out += 1,
        }
    }
    if keys.is_empty() {
        return Err("it holds no public key of a known algorithm for signatures".to_owned());
    }
    if left_out > 0 {
        tracing::debug!(used = keys.len(), left_out, "keys of a JWK set");
    }
    Ok(keys)
}

fn key(json: &Value) -> Option<Key> {
    let object = json.as_object()?;
    // Who publishes the private half lets anybody sign.
    if ["d", "k", "p", "q"].iter().any(|part| object.contains_key(*part)) {
        return None;
    }
    let sign = |v: &Value| v == "sig";
    let verify = |v: &Value| v.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    if !object.get("use").is_none_or(sign) || !object.get("key_ops").is_none_or(verify) {
        return None;
    }
    let named = match object.get("alg") {
        None => None,
        Some(name) => Some(ALGORITHMS.iter().find(|a| *name == a.0)?),
    };
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let fits: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => return None,
    };
    // A key that names no algorithm is of the first that fits: one key, one algorithm.
    let algorithm = named.or_else(|| ALGORITHMS.iter().find(|a| a.1 == fits[0]))?;
    if !fits.contains(&algorithm.1) {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        name: algorithm.0,
        algorithm: algorithm.1,
        verify: DecodingKey::from_jwk(&jwk).ok()?,
        sign: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 8037 appendix A.2.
    fn ed(id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": id})
    }

    /// RFC 7517 appendix A.1, without its `use`.
    fn ec() -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": "1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn used(keys: &[Value]) -> Vec<String> {
        let set = json!({ "keys": keys }).to_string();
        parse(set.as_bytes())
            .unwrap_or_default()
            .iter()
            .map(|k| format!("{k:?}"))
            .collect()
    }

    #[test]
    fn keys_that_can_be_used_are_of_one_algorithm_each() {
        let rsa = json!({"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "kid": "r"});
        assert_eq!(
            used(&[ed("a"), ec(), rsa.clone(), with(rsa, "alg", json!("PS256"))]),
            ["Key(EdDSA a)", "Key(ES256 1)", "Key(RS256 r)", "Key(PS256 r)"]
        );
    }

    #[test]
    fn what_is_no_public_key_for_signatures_is_left_out() {
        for bad in [
            with(ed("a"), "d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")),
            with(ed("a"), "use", json!("enc")),
            with(ed("a"), "key_ops", json!(["encrypt"])),
            with(ed("a"), "alg", json!("HS256")),
            with(ed("a"), "alg", json!("none")),
            with(ed("a"), "alg", json!("ES256")),
            with(ed("a"), "crv", json!("X25519")),
            with(ec(), "alg", json!("ES384")),
            with(ec(), "crv", json!("secp256k1")),
            json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256", "kid": "a"}),
            json!("key"),
            json!({}),
        ] {
            assert_eq!(used(&[bad.clone(), ed("b")]), ["Key(EdDSA b)"], "{bad}");
        }
    }

    #[test]
    fn a_set_is_bounded_and_one_without_keys_is_none() {
        let many: Vec<_> = (0..200).map(|n| ed(&n.to_string())).collect();
        assert_eq!(used(&many).len(), MAX_KEYS);
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":{}}"#,
            r#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    fn in_file(folder: &tempfile::TempDir) -> (PathBuf, KeySet) {
        let path = folder.path().join("jwks.json");
        let source = Source {
            place: Place::File(path.clone()),
            refresh: Duration::from_secs(900),
            retry: Duration::from_secs(30),
        };
        (path, KeySet::new(source, HttpClient::new()))
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_in_a_while_and_a_bad_set_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, set) = in_file(&folder);
        let (ids, start) = (
            || {
                set.keys()
                    .iter()
                    .map(|k| k.id().unwrap().to_owned())
                    .collect::<Vec<_>>()
            },
            Mono::from_millis(1),
        );
        assert!(set.read(start).await.is_err());
        assert!(
            !set.look_again(start + Duration::from_secs(1)).await,
            "tried a moment ago"
        );
        std::fs::write(&path, json!({"keys": [ed("a")]}).to_string()).unwrap();
        assert!(!set.look_again(start + Duration::from_secs(29)).await);
        assert!(set.look_again(start + Duration::from_secs(30)).await);
        assert_eq!(ids(), ["a"]);
        std::fs::write(&path, "{}").unwrap();
        assert!(!set.look_again(start + Duration::from_secs(60)).await);
        assert_eq!(ids(), ["a"], "what was read stays");
        std::fs::write(&path, json!({"keys": [ed("b")]}).to_string()).unwrap();
        assert!(set.read(start + Duration::from_secs(61)).await.is_ok());
        assert_eq!(ids(), ["b"], "a key that was taken back is gone");
        std::fs::write(&path, " ".repeat(MAX_BYTES + 1)).unwrap();
        assert!(
            set.read(start + Duration::from_secs(99))
                .await
                .unwrap_err()
                .contains("larger")
        );
    }
}
