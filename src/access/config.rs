//! The `[access]` section: which tokens and keys are believed, and how often one may be wrong.

use super::{
    Role,
    apikey::{self, ApiKey},
    jwt::{
        ALGORITHMS, Key, Rules, Verifier,
        keyset::{Place, Source},
    },
    limit::Rate,
    scope::Scopes,
};
use crate::base::{ids::TenantId, settings::Section, time::Wall};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// What `[access]` says.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every token must say.
    pub rules: Rules,
    /// Keys that may sign tokens, `[[access.jwt]]`.
    pub jwt: Vec<Key>,
    /// API keys, `[[access.keys]]`.
    pub keys: Vec<ApiKey>,
    /// Bad credentials an address may present, a minute.
    pub failures: Rate,
    /// How long an address with too many is shut out.
    pub block: Duration,
    /// REST requests of one tenant.
    pub requests: Rate,
    /// REST requests and frontends' upgrades of one address, whoever asks.
    pub address_requests: Rate,
    /// Where more keys of tokens are read from.
    pub jwks: Option<Source>,
    /// The tenant whose admins may change tenants; nobody may over REST when `None`.
    pub operator: Option<TenantId>,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules {
                issuer: "sidetone".to_owned(),
                audience: "sidetone".to_owned(),
                tenant_claim: "tenant_id".to_owned(),
                leeway: SECOND * 30,
                max_lifetime: DAY,
            },
            jwt: Vec::new(),
            keys: Vec::new(),
            failures: Rate::per_minute(20),
            block: SECOND * 60,
            requests: Rate::per_second(100, 200),
            address_requests: Rate::per_second(200, 400),
            jwks: None,
            operator: Some(TenantId(1)),
        }
    }
}

impl Config {
    /// Reads the section, reporting what cannot be used.
    pub fn read(section: &Section<'_>) -> Self {
        let d = Self::default();
        let rules = Rules {
            issuer: section.text("issuer", &d.rules.issuer),
            audience: section.text("audience", &d.rules.audience),
            tenant_claim: section.text("tenant_claim", &d.rules.tenant_claim),
            leeway: section.duration("leeway", d.rules.leeway, Duration::ZERO..=SECOND * 60),
            max_lifetime: section.duration("max_lifetime", d.rules.max_lifetime, SECOND * 60..=DAY),
        };
        let per_second = section.int("requests_per_s", 100u32, 1..=1_000_000);
        Self {
            rules,
            jwt: read_jwt(section),
            keys: read_keys(section),
            failures: Rate::per_minute(section.int("failures_per_minute", 20u32, 1..=100_000)),
            block: section.duration("block", d.block, SECOND..=DAY),
            requests: Rate::per_second(per_second, section.int("requests_burst", 200u32, 1..=1_000_000)),
            address_requests: Rate::per_second(
                section.int("address_requests_per_s", 200u32, 1..=1_000_000),
                section.int("address_requests_burst", 400u32, 1..=1_000_000),
            ),
            jwks: read_jwks(section),
            operator: match section.int("operator_tenant", 1i64, 0..=i64::MAX) {
                0 => None,
                id => Some(TenantId(id)),
            },
        }
    }

    /// Adds a random secret that lives as long as the process, so that a daemon without configured keys can mint a token.
    pub fn add_ephemeral_key(&mut self) {
        let key = apikey::generate()
            .ok()
            .and_then(|s| Key::shared(None, &ALGORITHMS[0], s).ok());
        self.jwt.extend(key);
    }

    /// Whether anybody can prove anything.
    pub fn has_credentials(&self) -> bool {
        !self.jwt.is_empty() || !self.keys.is_empty() || self.jwks.is_some()
    }

    /// Reads and mints tokens by these rules and keys.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.jwt.clone(), self.rules.clone())
    }
}

fn read_jwks(section: &Section<'_>) -> Option<Source> {
    let place = section.text_opt("jwks").unwrap_or_default();
    let refresh = section.duration("jwks_refresh", SECOND * 900, SECOND..=DAY);
    let retry = section.duration("jwks_retry", SECOND * 30, SECOND..=DAY);
    let place = match place.split_once("://") {
        None if place.is_empty() => return None,
        None => Place::File(PathBuf::from(place)),
        Some(("https", rest)) if !rest.is_empty() => Place::Url(place),
        Some(("http", rest)) if is_this_machine(rest) => Place::Url(place),
        Some(_) => {
            let hint = "write an https URL, an http one of this machine, or the path of a file";
            section.fault("jwks", "whoever is on the way could put keys of their own there", hint);
            return None;
        }
    };
    Some(Source { place, refresh, retry })
}

/// Whether a URL without its scheme names this machine.
fn is_this_machine(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

fn read_jwt(section: &Section<'_>) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for s in section.sections("jwt") {
        let id = s.text_opt("id");
        let words: Vec<_> = ALGORITHMS.iter().map(|a| (a.0, a)).collect();
        let algorithm = s.choice("algorithm", &ALGORITHMS[0], &words);
        let (secret, pem) = (s.secret("secret"), s.text_opt("public_key"));
        let shared = algorithm.0.starts_with("HS");
        let key = match (secret, pem) {
            (Some(secret), None) if shared => Key::shared(id.clone(), algorithm, secret).map_err(|e| ("secret", e)),
            (None, Some(pem)) if !shared => Key::public(id.clone(), algorithm, &pem).map_err(|e| ("public_key", e)),
            _ => {
                let (key, other) = if shared {
                    ("secret", "public_key")
                } else {
                    ("public_key", "secret")
                };
                s.fault(key, format!("{} needs {key} and takes no {other}", algorithm.0), "");
                s.finish();
                continue;
            }
        };
        match key {
            Err((key, why)) => {
                let hint = if shared {
                    "make one with `openssl rand -base64 48`"
                } else {
                    ""
                };
                s.fault(key, why.to_string(), hint);
            }
            Ok(_) if id.is_some() && keys.iter().any(|k| k.id() == id.as_deref()) => {
                s.fault("id", "two keys have this id", "");
            }
            Ok(key) => keys.push(key),
        }
        s.finish();
    }
    keys
}

fn read_keys(section: &Section<'_>) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    for s in section.sections("keys") {
        let name = s.text("name", "");
        if name.is_empty() {
            s.fault("name", "a key needs a name", "");
        }
        let tenant = TenantId(s.int("tenant", 1i64, 1..=i64::MAX));
        let words = Role::ALL.map(|r| (r.as_str(), r));
        let role = s.choice("role", Role::default(), &words);
        let scopes = s.texts("scopes", &[]).join(" ").parse().unwrap_or_else(|what: String| {
            s.fault("scopes", what, "");
            Scopes::ALL
        });
        let expires = s.text_opt("expires").and_then(|text| {
            let at = Wall::parse(&text);
            if at.is_none() {
                s.fault(
                    "expires",
                    format!("{text:?} is not a time"),
                    "write 2027-01-31T00:00:00Z",
                );
            }
            at
        });
        match s.text("hash", "").parse() {
            Err(why) => s.fault("hash", "is not the hash of a key", why),
            Ok(hash) if keys.iter().any(|k| k.hash == hash) => s.fault("hash", "two keys have this hash", ""),
            Ok(hash) => keys.push(ApiKey {
                name,
                hash,
                tenant,
                role,
                scopes,
                expires,
            }),
        }
        s.finish();
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::Place as Where;
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    fn table<const N: usize>(pairs: [(&str, Value); N]) -> Table {
        let item = |value| Item {
            value,
            place: Place::Line(1),
        };
        pairs.into_iter().map(|(k, v)| (k.to_owned(), item(v))).collect()
    }

    fn text(s: &str) -> Value {
        Value::String(s.to_owned())
    }

    fn list(tables: Vec<Table>) -> Value {
        let item = |t| Item {
            value: Value::Table(t),
            place: Place::Line(2),
        };
        Value::Array(tables.into_iter().map(item).collect())
    }

    fn read(root: &Table) -> (Config, Vec<String>) {
        let faults = Faults::default();
        let section = Section::root(root, &faults);
        let config = Config::read(&section);
        section.finish();
        (
            config,
            faults.take().iter().map(|f| format!("{}: {}", f.key, f.what)).collect(),
        )
    }

    #[test]
    fn an_absent_section_reads_as_the_defaults() {
        let (config, faults) = read(&Table::new());
        assert_eq!((config.rules, faults.len()), (Config::default().rules, 0));
        assert_eq!(
            (config.failures, config.requests),
            (Rate::per_minute(20), Rate::per_second(100, 200))
        );
        assert!(!config.jwt.iter().any(|_| true) && config.keys.is_empty());
    }

    #[test]
    fn a_set_of_keys_is_a_file_or_comes_from_where_nobody_stands_between() {
        for (text, place) in [
            ("", None),
            (
                "/etc/sidetone/jwks.json",
                Some(Where::File("/etc/sidetone/jwks.json".into())),
            ),
            (
                "https://id.example/jwks",
                Some(Where::Url("https://id.example/jwks".into())),
            ),
            (
                "http://127.0.0.1:9/jwks",
                Some(Where::Url("http://127.0.0.1:9/jwks".into())),
            ),
            ("http://[::1]:9/jwks", Some(Where::Url("http://[::1]:9/jwks".into()))),
        ] {
            let (config, faults) = read(&table([("jwks", Value::String(text.to_owned()))]));
            assert_eq!((config.jwks.map(|s| s.place), faults.len()), (place, 0), "{text}");
        }
        for bad in [
            "http://id.example/jwks",
            "http://127.0.0.1.example/",
            "http://localhost@id.example/",
            "ftp://x",
            "https://",
        ] {
            let (config, faults) = read(&table([("jwks", text(bad))]));
            assert_eq!((config.jwks, faults.len()), (None, 1), "{bad}");
        }
    }

    #[test]
    fn unusable_keys_are_all_reported() {
        let secret = "a8c3f1e09b7d4c2286aa55f0e1d2c3b4";
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let root = table([
            (
                "jwt",
                list(vec![
                    table([("secret", text(secret)), ("id", text("a"))]),
                    table([("secret", text("short"))]),
                    table([("secret", text("0123456789abcdef0123456789abcdef"))]),
                    table([("secret", text(&"x".repeat(64)))]),
                    table([(
                        "secret",
                        text("-----BEGIN PUBLIC KEY-----\nMFkwEwYH\n-----END PUBLIC KEY-----"),
                    )]),
                    table([("algorithm", text("RS256")), ("secret", text(secret))]),
                    table([("algorithm", text("ES256")), ("public_key", text("not a pem"))]),
                    table([("secret", text(secret)), ("id", text("a"))]),
                    table([("algorithm", text("none")), ("secret", text(secret))]),
                ]),
            ),
            (
                "keys",
                list(vec![
                    table([("name", text("ci")), ("hash", text(hash))]),
                    table([("name", text("ci2")), ("hash", text(hash))]),
                    table([("hash", text("abc"))]),
                ]),
            ),
        ]);
        let (config, faults) = read(&root);
        assert_eq!(
            faults,
            [
                "jwt[1].secret: is shorter than 32 bytes",
                "jwt[2].secret: is a published example or one character repeated",
                "jwt[3].secret: is a published example or one character repeated",
                "jwt[4].secret: is a PEM key, which an HS algorithm must not use",
                "jwt[5].public_key: RS256 needs public_key and takes no secret",
                "jwt[6].public_key: is not a PEM public key of this algorithm",
                "jwt[7].id: two keys have this id",
                "jwt[8].algorithm: \"none\" is not known",
                "keys[1].hash: two keys have this hash",
                "keys[2].name: a key needs a name",
                "keys[2].hash: is not the hash of a key",
            ]
        );
        assert_eq!((config.jwt.len(), config.keys.len()), (2, 1));
    }
}
