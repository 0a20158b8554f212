//! JSON Web Tokens (RFC 7519), read strictly: one algorithm per key, no key named by the token itself, every claim typed.
//!
//! Only the signature is left to a library. Header and claims are read here, because what a permissive reader ignores
//! (a second `alg`, an embedded key, `b64: false`) is what forgeries are made of.

pub mod keyset;

use super::{Identity, Role, scope::Scopes};
use crate::base::{ids::TenantId, secret::Secret, time::Wall};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use keyset::KeySet;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::{fmt, sync::Arc, time::Duration};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// The shortest shared secret, in bytes: the size of the smallest hash (RFC 7518 §3.2).
pub const MIN_SECRET: usize = 32;

/// Algorithms a key may be configured for, by their names in a header.
pub const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Secrets of public examples, long enough to pass for real ones.
const KNOWN_SECRETS: [&str; 5] = [
    "a-string-secret-at-least-256-bits-long",
    "your-256-bit-secret-your-256-bit-secret",
    "0123456789abcdef0123456789abcdef",
    "00112233445566778899aabbccddeeff",
    "change-me-change-me-change-me-change-me",
];

/// A key that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// Shorter than [`MIN_SECRET`].
    Short,
    /// Published as an example, or one character repeated.
    Known,
    /// A PEM where a shared secret is expected: whoever has the public key could sign.
    PemAsSecret,
    /// Not a public key of the algorithm in PEM.
    NotPem,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "is shorter than 32 bytes",
            Self::Known => "is a published example or one character repeated",
            Self::PemAsSecret => "is a PEM key, which an HS algorithm must not use",
            Self::NotPem => "is not a PEM public key of this algorithm",
        })
    }
}

impl std::error::Error for BadKey {}

/// A key tokens may be signed with, for exactly one algorithm.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    name: &'static str,
    algorithm: Algorithm,
    verify: DecodingKey,
    sign: Option<Secret>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.name, self.id.as_deref().unwrap_or("without id"))
    }
}

impl Key {
    /// A shared secret for `HS256`, `HS384` or `HS512`. Its tokens can be minted here.
    pub fn shared(id: Option<String>, algorithm: &(&'static str, Algorithm), secret: Secret) -> Result<Self, BadKey> {
        let text = secret.expose();
        let first = text.bytes().next();
        if text.trim_start().starts_with("-----BEGIN") {
            return Err(BadKey::PemAsSecret);
        }
        if text.len() < MIN_SECRET {
            return Err(BadKey::Short);
        }
        if KNOWN_SECRETS.contains(&text) || text.bytes().all(|b| Some(b) == first) {
            return Err(BadKey::Known);
        }
        Ok(Self {
            id,
            name: algorithm.0,
            algorithm: algorithm.1,
            verify: DecodingKey::from_secret(text.as_bytes()),
            sign: Some(secret),
        })
    }

    /// A public key in PEM, for the other algorithms.
    pub fn public(id: Option<String>, algorithm: &(&'static str, Algorithm), pem: &str) -> Result<Self, BadKey> {
        let pem = pem.as_bytes();
        let verify = match algorithm.1 {
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return Err(BadKey::NotPem),
            _ => DecodingKey::from_rsa_pem(pem),
        };
        Ok(Self {
            id,
            name: algorithm.0,
            algorithm: algorithm.1,
            verify: verify.map_err(|_| BadKey::NotPem)?,
            sign: None,
        })
    }

    /// The name that a token's `kid` selects it by.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// What every token must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `iss`.
    pub issuer: String,
    /// One of `aud`.
    pub audience: String,
    /// Name of the claim that holds the tenant.
    pub tenant_claim: String,
    /// How far clocks may differ; at most 60 s.
    pub leeway: Duration,
    /// The longest life; at most 24 h.
    pub max_lifetime: Duration,
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Longer than [`MAX_TOKEN`].
    TooLong,
    /// Not exactly three parts.
    Parts,
    /// A part is not canonical base64url without padding.
    Base64,
    /// Header or claims are not one JSON object with each key once.
    Json,
    /// The header holds something that is not understood, or of the wrong type.
    Header,
    /// `kid` names no configured key.
    UnknownKey,
    /// `alg` is not the key's.
    Algorithm,
    /// The signature is not the key's.
    Signature,
    /// This claim is missing, of the wrong type or of the wrong value.
    Claim(&'static str),
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYet,
    /// It lives longer than allowed.
    Lifetime,
}

impl Refusal {
    /// One word for metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Parts => "parts",
            Self::Base64 => "base64",
            Self::Json => "json",
            Self::Header => "header",
            Self::UnknownKey => "unknown_key",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Claim(_) => "claim",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Lifetime => "lifetime",
        }
    }
}

/// Whom a new token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose calls.
    pub tenant: TenantId,
    /// What it allows.
    pub role: Role,
    /// What it is narrowed to.
    pub scopes: Scopes,
    /// Who carries it.
    pub subject: String,
    /// How long it lives.
    pub ttl: Duration,
}

/// Reads tokens, and mints them where a shared secret is configured.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    set: Option<Arc<KeySet>>,
    rules: Rules,
}

impl Verifier {
    /// A reader that knows `keys`, any of which may have signed a token.
    pub const fn new(keys: Vec<Key>, rules: Rules) -> Self {
        Self { keys, set: None, rules }
    }

    /// One that knows the keys of a set besides.
    #[must_use]
    pub fn with_set(self, set: Option<Arc<KeySet>>) -> Self {
        Self { set, ..self }
    }

    /// Whom the token speaks for.
    pub fn verify(&self, token: &str, now: Wall) -> Result<Identity, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Parts);
        };
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Base64);
        let (head, body) = (Object::read(&decode(header)?)?, decode(claims)?);
        decode(signature)?;

        let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
        let proves =
            |key: &Key| crypto::verify(signature, signed, &key.verify, key.algorithm).is_ok_and(|proven| proven);
        let set = self.set.as_ref().map(|set| set.keys()).unwrap_or_default();
        if !self.candidates(&head, &set)?.into_iter().any(proves) {
            return Err(Refusal::Signature);
        }
        self.read_claims(&Object::read(&body)?, now)
    }

    /// The keys that may have signed a token with this header.
    fn candidates<'a>(&'a self, head: &Object, set: &'a [Key]) -> Result<Vec<&'a Key>, Refusal> {
        let mut algorithm = None;
        let mut id = None;
        for (name, value) in &head.0 {
            match (name.as_str(), value) {
                ("alg", Value::String(alg)) => algorithm = Some(alg.as_str()),
                ("kid", Value::String(kid)) => id = Some(kid.as_str()),
                ("typ", Value::String(typ))
                    if typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt") => {}
                // Thumbprints of the signer's certificate: they name a key, as `kid` does, and bring none.
                ("x5t" | "x5t#S256", Value::String(_)) => {}
                _ => return Err(Refusal::Header),
            }
        }
        let algorithm = algorithm.ok_or(Refusal::Header)?;
        let ours = self.keys.iter().filter(|k| id.is_none() || k.id() == id);
        // Of a set, which may be large, a key is used by its name or is the only one.
        let theirs = set.iter().filter(|k| k.id() == id || (id.is_none() && set.len() == 1));
        let named: Vec<_> = ours.chain(theirs).collect();
        if named.is_empty() {
            return Err(Refusal::UnknownKey);
        }
        let fit: Vec<_> = named.into_iter().filter(|k| k.name == algorithm).collect();
        if fit.is_empty() {
            Err(Refusal::Algorithm)
        } else {
            Ok(fit)
        }
    }

    fn read_claims(&self, claims: &Object, now: Wall) -> Result<Identity, Refusal> {
        let rules = &self.rules;
        let now = now.as_micros() as f64 / 1e6;
        let leeway = rules.leeway.as_secs_f64();

        let subject = match claims.get("sub") {
            Some(Value::String(s)) if !s.is_empty() && s.len() <= 255 => s.clone(),
            _ => return Err(Refusal::Claim("sub")),
        };
        if !matches!(claims.get("iss"), Some(Value::String(s)) if *s == rules.issuer) {
            return Err(Refusal::Claim("iss"));
        }
        let for_us = |v: &Value| matches!(v, Value::String(s) if *s == rules.audience);
        let addressed = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(for_us),
            Some(one) => for_us(one),
            None => false,
        };
        if !addressed {
            return Err(Refusal::Claim("aud"));
        }
        let tenant = match claims.get(&rules.tenant_claim) {
            Some(Value::Number(n)) => n.as_i64(),
            Some(Value::String(s)) if s.bytes().all(|b| b.is_ascii_digit()) => s.parse().ok(),
            _ => None,
        };
        let tenant = tenant.filter(|t| *t > 0).ok_or(Refusal::Claim("tenant"))?;
        let role = match claims.get("role") {
            None => Role::default(),
            Some(Value::String(word)) => Role::parse(word).ok_or(Refusal::Claim("role"))?,
            Some(_) => return Err(Refusal::Claim("role")),
        };

        let scopes = match claims.get("scope") {
            None => Scopes::ALL,
            Some(Value::String(words)) => Scopes::claimed(words),
            Some(_) => return Err(Refusal::Claim("scope")),
        };

        let expires = claims.time("exp")?.ok_or(Refusal::Claim("exp"))?;
        let issued = claims.time("iat")?;
        if expires + leeway <= now {
            return Err(Refusal::Expired);
        }
        for start in [claims.time("nbf")?, issued].into_iter().flatten() {
            if start > now + leeway {
                return Err(Refusal::NotYet);
            }
        }
        // A token that does not say when it was issued was issued now at the latest.
        let life = expires - issued.unwrap_or(now).min(now);
        let slack = if issued.is_some() { 0.0 } else { leeway };
        if life > rules.max_lifetime.as_secs_f64() + slack {
            return Err(Refusal::Lifetime);
        }
        Ok(Identity {
            tenant: TenantId(tenant),
            role,
            scopes,
            subject,
            key: None,
            expires: Some(Wall::from_micros((expires * 1e6) as i64)),
        })
    }

    /// Signs a token with the first shared secret.
    pub fn mint(&self, grant: &Grant, now: Wall) -> Result<Secret, &'static str> {
        let (key, secret) = self.keys.iter().find_map(|k| Some((k, k.sign.as_ref()?))).ok_or(
            "no shared secret is configured: tokens of public keys are signed by whoever holds the private key",
        )?;
        if grant.ttl > self.rules.max_lifetime {
            return Err("a token may not live longer than access.max_lifetime");
        }
        let mut header = serde_json::json!({ "alg": key.name, "typ": "JWT" });
        if let Some(id) = &key.id {
            header["kid"] = Value::from(id.as_str());
        }
        let mut claims = serde_json::json!({
            "iss": self.rules.issuer,
            "aud": self.rules.audience,
            "sub": grant.subject,
            "role": grant.role.as_str(),
            "iat": now.as_secs(),
            "exp": now.as_secs() + grant.ttl.as_secs() as i64,
        });
        if grant.scopes != Scopes::ALL {
            claims["scope"] = Value::from(grant.scopes.to_string());
        }
        claims[&self.rules.tenant_claim] = Value::from(grant.tenant.0);
        let encode = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let key_bytes = EncodingKey::from_secret(secret.expose().as_bytes());
        let signature =
            crypto::sign(message.as_bytes(), &key_bytes, key.algorithm).map_err(|_| "the token could not be signed")?;
        Ok(Secret::new(format!("{message}.{signature}")))
    }
}

/// A JSON object in which no key comes twice.
struct Object(Vec<(String, Value)>);

impl Object {
    fn read(json: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(json).map_err(|_| Refusal::Json)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// A NumericDate (RFC 7519 §2), in seconds.
    fn time(&self, name: &'static str) -> Result<Option<f64>, Refusal> {
        let sane = |t: &f64| (0.0..1e11).contains(t);
        match self.get(name) {
            None => Ok(None),
            Some(v) => v.as_f64().filter(sane).map(Some).ok_or(Refusal::Claim(name)),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with each key once")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if pairs.iter().any(|(k, _)| *k == key) {
                        return Err(serde::de::Error::custom("a key comes twice"));
                    }
                    pairs.push((key, value));
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests;
