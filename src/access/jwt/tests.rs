//! Every rule for tokens as a table of one-step departures from a good one.

use super::*;
use serde_json::json;

const SECRET: &str = "a8c3f1e09b7d4c2286aa55f0e1d2c3b4";
const OTHER: &str = "11d2c3b4a8c3f1e09b7d4c2286aa55f0";
/// A throw-away Ed25519 key pair (PKCS #8 and SubjectPublicKeyInfo).
const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIGnvXIv7NxhVFf0JYEGHDWUoAV6A1CtRRVTdQpvxXTyw\n-----END PRIVATE KEY-----\n";

/// 2024-01-01T00:00:00Z.
const NOW: i64 = 1_704_067_200;

fn now() -> Wall {
    Wall::from_micros(NOW * 1_000_000)
}

fn rules() -> Rules {
    Rules {
        issuer: "https://id.example".into(),
        audience: "sidetone".into(),
        tenant_claim: "tenant_id".into(),
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
    }
}

fn hs256(id: Option<&str>, secret: &str) -> Key {
    Key::shared(id.map(str::to_owned), &ALGORITHMS[0], Secret::new(secret)).unwrap()
}

fn verifier() -> Verifier {
    Verifier::new(vec![hs256(Some("new"), SECRET), hs256(Some("old"), OTHER)], rules())
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "sidetone", "sub": "ann", "tenant_id": 7, "role": "viewer",
        "iat": NOW, "exp": NOW + 300,
    })
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign(header: &str, claims: &str, secret: &str, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!(
        "{message}.{}",
        crypto::sign(message.as_bytes(), &key, algorithm).unwrap()
    )
}

fn token(header: &Value, claims: &Value) -> String {
    sign(&header.to_string(), &claims.to_string(), SECRET, Algorithm::HS256)
}

fn with(mut base: Value, key: &str, value: Value) -> Value {
    base[key] = value;
    base
}

fn without(mut base: Value, key: &str) -> Value {
    base.as_object_mut().unwrap().remove(key);
    base
}

fn verify(token: &str) -> Result<Identity, Refusal> {
    verifier().verify(token, now())
}

#[test]
fn a_good_token_says_who_it_is_for() {
    let identity = verify(&token(&header(), &claims())).unwrap();
    assert_eq!(
        identity,
        Identity {
            scopes: Default::default(),
            key: None,
            tenant: TenantId(7),
            role: Role::Viewer,
            subject: "ann".into(),
            expires: Some(Wall::from_micros((NOW + 300) * 1_000_000)),
        }
    );
}

#[test]
fn what_is_minted_verifies() {
    let grant = Grant {
        tenant: TenantId(3),
        role: Role::Admin,
        scopes: Scopes::ALL,
        subject: "op".into(),
        ttl: Duration::from_secs(60),
    };
    let minted = verifier().mint(&grant, now()).unwrap();
    let identity = verify(minted.expose()).unwrap();
    assert_eq!(
        (identity.tenant, identity.role, identity.subject.as_str()),
        (TenantId(3), Role::Admin, "op")
    );
    let long = Grant {
        ttl: Duration::from_secs(86_401),
        ..grant
    };
    assert!(verifier().mint(&long, now()).is_err());
}

#[test]
fn claims_are_required_and_typed() {
    let role = |r| with(claims(), "role", r);
    let cases = [
        ("no exp", without(claims(), "exp"), Err(Refusal::Claim("exp"))),
        (
            "exp as text",
            with(claims(), "exp", json!("1704067500")),
            Err(Refusal::Claim("exp")),
        ),
        (
            "exp huge",
            with(claims(), "exp", json!(1e300)),
            Err(Refusal::Claim("exp")),
        ),
        (
            "exp negative",
            with(claims(), "exp", json!(-1)),
            Err(Refusal::Claim("exp")),
        ),
        (
            "exp with a fraction",
            with(claims(), "exp", json!(NOW as f64 + 0.5)),
            Ok(()),
        ),
        ("no sub", without(claims(), "sub"), Err(Refusal::Claim("sub"))),
        (
            "empty sub",
            with(claims(), "sub", json!("")),
            Err(Refusal::Claim("sub")),
        ),
        (
            "sub as number",
            with(claims(), "sub", json!(7)),
            Err(Refusal::Claim("sub")),
        ),
        ("no iss", without(claims(), "iss"), Err(Refusal::Claim("iss"))),
        (
            "other iss",
            with(claims(), "iss", json!("https://id.example/")),
            Err(Refusal::Claim("iss")),
        ),
        ("no aud", without(claims(), "aud"), Err(Refusal::Claim("aud"))),
        (
            "other aud",
            with(claims(), "aud", json!("sidetone2")),
            Err(Refusal::Claim("aud")),
        ),
        ("aud in a list", with(claims(), "aud", json!(["x", "sidetone"])), Ok(())),
        (
            "aud in a mixed list",
            with(claims(), "aud", json!(["sidetone", 1])),
            Err(Refusal::Claim("aud")),
        ),
        (
            "empty aud list",
            with(claims(), "aud", json!([])),
            Err(Refusal::Claim("aud")),
        ),
        (
            "no tenant",
            without(claims(), "tenant_id"),
            Err(Refusal::Claim("tenant")),
        ),
        ("tenant as digits", with(claims(), "tenant_id", json!("7")), Ok(())),
        (
            "tenant as signed digits",
            with(claims(), "tenant_id", json!("+7")),
            Err(Refusal::Claim("tenant")),
        ),
        (
            "empty tenant",
            with(claims(), "tenant_id", json!("")),
            Err(Refusal::Claim("tenant")),
        ),
        (
            "tenant zero",
            with(claims(), "tenant_id", json!(0)),
            Err(Refusal::Claim("tenant")),
        ),
        (
            "tenant negative",
            with(claims(), "tenant_id", json!(-7)),
            Err(Refusal::Claim("tenant")),
        ),
        (
            "tenant with a point",
            with(claims(), "tenant_id", json!(7.0)),
            Err(Refusal::Claim("tenant")),
        ),
        (
            "tenant as list",
            with(claims(), "tenant_id", json!([7])),
            Err(Refusal::Claim("tenant")),
        ),
        ("no role", without(claims(), "role"), Ok(())),
        ("unknown role", role(json!("root")), Err(Refusal::Claim("role"))),
        ("role as list", role(json!(["admin"])), Err(Refusal::Claim("role"))),
        ("role null", role(Value::Null), Err(Refusal::Claim("role"))),
        ("scope", with(claims(), "scope", json!("ws openid")), Ok(())),
        (
            "scope as list",
            with(claims(), "scope", json!(["ws"])),
            Err(Refusal::Claim("scope")),
        ),
        (
            "iat as text",
            with(claims(), "iat", json!("now")),
            Err(Refusal::Claim("iat")),
        ),
        (
            "an unknown claim",
            with(claims(), "email", json!("a@b.example")),
            Ok(()),
        ),
    ];
    for (case, claims, expected) in cases {
        assert_eq!(verify(&token(&header(), &claims)).map(|_| ()), expected, "{case}");
    }
    assert_eq!(
        verify(&token(&header(), &without(claims(), "role"))).unwrap().role,
        Role::Agent
    );
}

#[test]
fn time_is_kept_with_a_leeway_and_a_longest_life() {
    let day = 86_400;
    let at = |iat: Option<i64>, nbf: Option<i64>, exp: i64| {
        let mut c = without(claims(), "iat");
        c["exp"] = json!(exp);
        if let Some(t) = iat {
            c["iat"] = json!(t);
        }
        if let Some(t) = nbf {
            c["nbf"] = json!(t);
        }
        verify(&token(&header(), &c)).map(|_| ())
    };
    let cases = [
        (None, None, NOW - 29, Ok(())),
        (None, None, NOW - 30, Err(Refusal::Expired)),
        (Some(NOW + 30), None, NOW + 60, Ok(())),
        (Some(NOW + 31), None, NOW + 60, Err(Refusal::NotYet)),
        (None, Some(NOW + 30), NOW + 60, Ok(())),
        (None, Some(NOW + 31), NOW + 60, Err(Refusal::NotYet)),
        (Some(NOW), None, NOW + day, Ok(())),
        (Some(NOW), None, NOW + day + 1, Err(Refusal::Lifetime)),
        (Some(NOW - 100), None, NOW + day - 99, Err(Refusal::Lifetime)),
        (Some(NOW + 20), None, NOW + day + 1, Err(Refusal::Lifetime)),
        (None, None, NOW + day + 30, Ok(())),
        (None, None, NOW + day + 31, Err(Refusal::Lifetime)),
    ];
    for (iat, nbf, exp, expected) in cases {
        assert_eq!(at(iat, nbf, exp), expected, "iat {iat:?} nbf {nbf:?} exp {exp}");
    }
}

#[test]
fn headers_name_a_configured_key_and_bring_none() {
    let h = |key: &str, value: Value| with(header(), key, value);
    let cases = [
        ("kid of the key", h("kid", json!("new")), Ok(())),
        ("kid of the other key", h("kid", json!("old")), Err(Refusal::Signature)),
        (
            "unknown kid",
            h("kid", json!("../../dev/null")),
            Err(Refusal::UnknownKey),
        ),
        ("kid prefix", h("kid", json!("ne")), Err(Refusal::UnknownKey)),
        ("kid as number", h("kid", json!(1)), Err(Refusal::Header)),
        ("kid null", h("kid", Value::Null), Err(Refusal::Header)),
        ("no alg", without(header(), "alg"), Err(Refusal::Header)),
        ("alg as list", h("alg", json!(["HS256"])), Err(Refusal::Header)),
        ("no typ", without(header(), "typ"), Ok(())),
        ("typ of another kind", h("typ", json!("JWE")), Err(Refusal::Header)),
        ("typ of RFC 9068", h("typ", json!("at+JWT")), Ok(())),
        ("jwk", h("jwk", json!({"kty": "oct"})), Err(Refusal::Header)),
        ("jku", h("jku", json!("https://evil.example/k")), Err(Refusal::Header)),
        ("x5u", h("x5u", json!("https://evil.example/c")), Err(Refusal::Header)),
        ("x5c", h("x5c", json!(["MII"])), Err(Refusal::Header)),
        ("x5t", h("x5t", json!("dGh1bWI")), Ok(())),
        ("crit", h("crit", json!(["exp"])), Err(Refusal::Header)),
        ("empty crit", h("crit", json!([])), Err(Refusal::Header)),
        ("b64 false", h("b64", json!(false)), Err(Refusal::Header)),
        ("zip", h("zip", json!("DEF")), Err(Refusal::Header)),
    ];
    for (case, header, expected) in cases {
        assert_eq!(verify(&token(&header, &claims())).map(|_| ()), expected, "{case}");
    }
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens_choice() {
    let c = claims().to_string();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA",
    ] {
        let h = json!({"alg": alg}).to_string();
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(
                verify(&sign(&h, &c, SECRET, algorithm)),
                Err(Refusal::Algorithm),
                "alg {alg:?} signed with {algorithm:?}"
            );
        }
    }
    // Said to be the key's algorithm, and made with another.
    assert_eq!(
        verify(&sign(&header().to_string(), &c, SECRET, Algorithm::HS384)),
        Err(Refusal::Signature)
    );
}

#[test]
fn a_public_key_verifies_its_own_algorithm_and_is_no_shared_secret() {
    let private = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    let public = ed_public();
    let ed = ALGORITHMS.iter().find(|a| a.0 == "EdDSA").unwrap();
    let verifier = Verifier::new(vec![Key::public(Some("ed".into()), ed, &public).unwrap()], rules());

    let message = format!("{}.{}", b64(r#"{"alg":"EdDSA","kid":"ed"}"#), b64(claims().to_string()));
    let good = format!(
        "{message}.{}",
        crypto::sign(message.as_bytes(), &private, Algorithm::EdDSA).unwrap()
    );
    assert_eq!(verifier.verify(&good, now()).map(|i| i.tenant), Ok(TenantId(7)));

    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"ed"}"#] {
        let forged = sign(header, &claims().to_string(), &public, Algorithm::HS256);
        assert_eq!(verifier.verify(&forged, now()), Err(Refusal::Algorithm));
    }
    let forged = sign(r#"{"alg":"EdDSA"}"#, &claims().to_string(), &public, Algorithm::HS256);
    assert_eq!(verifier.verify(&forged, now()), Err(Refusal::Signature));
    assert!(
        verifier
            .mint(
                &Grant {
                    tenant: TenantId(1),
                    role: Role::Agent,
                    scopes: Scopes::ALL,
                    subject: "x".into(),
                    ttl: Duration::from_secs(1)
                },
                now()
            )
            .is_err()
    );
}

/// The public half of [`ED_PRIVATE`].
fn ed_public() -> String {
    use base64::engine::general_purpose::STANDARD;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let der: String = ED_PRIVATE.lines().filter(|l| !l.starts_with("-----")).collect();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(der).unwrap()).unwrap();
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    spki.extend_from_slice(pair.public_key().as_ref());
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(spki)
    )
}

#[test]
fn two_keys_are_valid_at_once_and_a_third_is_not() {
    let (h, c) = (header().to_string(), claims().to_string());
    for (secret, good) in [
        (SECRET, true),
        (OTHER, true),
        ("33d2c3b4a8c3f1e09b7d4c2286aa55f0", false),
    ] {
        let token = sign(&h, &c, secret, Algorithm::HS256);
        assert_eq!(verify(&token).is_ok(), good);
    }
}

#[test]
fn a_token_is_three_canonical_parts_of_strict_json() {
    let good = token(&header(), &claims());
    let [h, c, s]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let twice = r#"{"alg":"none","alg":"HS256"}"#;
    let mut loose = s.to_owned();
    // 32 bytes end in a character of which two bits are unused: setting them decodes alike in a lax reader.
    let last = loose.pop().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loose.push(alphabet.as_bytes()[alphabet.find(last).unwrap() | 1] as char);
    let cases = [
        ("empty", String::new(), Refusal::Parts),
        ("two parts", format!("{h}.{c}"), Refusal::Parts),
        ("four parts", format!("{good}."), Refusal::Parts),
        ("JWE", format!("{h}.{c}.{s}.{s}.{s}"), Refusal::Parts),
        ("no signature", format!("{h}.{c}."), Refusal::Signature),
        ("padding", format!("{h}=.{c}.{s}"), Refusal::Base64),
        ("standard alphabet", format!("{h}.{c}.{}+", &s[1..]), Refusal::Base64),
        ("trailing bits", format!("{h}.{c}.{loose}"), Refusal::Base64),
        ("space", format!(" {good}"), Refusal::Base64),
        ("line end", format!("{good}\n"), Refusal::Base64),
        (
            "alg twice",
            sign(twice, &claims().to_string(), SECRET, Algorithm::HS256),
            Refusal::Json,
        ),
        (
            "claims as list",
            sign(&header().to_string(), "[]", SECRET, Algorithm::HS256),
            Refusal::Json,
        ),
        (
            "claims not JSON",
            sign(&header().to_string(), "{", SECRET, Algorithm::HS256),
            Refusal::Json,
        ),
        (
            "other claims",
            format!("{h}.{}.{s}", b64(with(claims(), "tenant_id", json!(8)).to_string())),
            Refusal::Signature,
        ),
        (
            "too long",
            format!("{h}.{}.{s}", "a".repeat(MAX_TOKEN)),
            Refusal::TooLong,
        ),
    ];
    for (case, token, expected) in cases {
        assert_eq!(verify(&token), Err(expected), "{case}");
    }
}
