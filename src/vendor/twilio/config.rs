//! The `[twilio]` section: the account, how to reach its API, and what its webhooks are signed with.

use crate::{
    base::{secret::Secret, settings::Section},
    wire::sign::Algorithm,
};
use http::Uri;
use std::time::Duration;

/// Twilio's account as configured. Without an `auth_token` or `shared_keys` no webhook is believed; without
/// `account_sid` and credentials no call can be placed.
#[derive(Clone, Debug)]
pub struct Config {
    /// `account_sid`: the account, `AC` and 32 hexadecimal digits.
    pub account_sid: Option<String>,
    /// `auth_token`: the account's *primary* auth token; signs webhooks, and REST where no API key is named.
    pub auth_token: Option<Secret>,
    /// `api_key_sid`: an API key for REST, `SK` and 32 hexadecimal digits; with `api_key_secret`.
    pub api_key_sid: Option<String>,
    /// `api_key_secret`: the secret of `api_key_sid`.
    pub api_key_secret: Option<Secret>,
    /// `base_url`: where the REST API is, without a trailing slash. Default `https://api.twilio.com`, or the host of
    /// `edge` and `region`, such as `https://api.dublin.ie1.twilio.com`.
    pub base_url: String,
    /// `api_timeout`: how long to wait for a REST reply. Default `10s`.
    pub api_timeout: Duration,
    /// `[[twilio.shared_keys]]` with `id`, `secret` and `algorithm` (default and only value `hmac-sha256`): keys named by
    /// `X-Twilio-Webhooks-Signature-Settings`. Once one is configured, SHA-1 signatures with the auth token are refused.
    pub shared_keys: Vec<SharedKey>,
    /// `insecure`: believe webhooks and media sockets without a signature. Default `false`; only behind a gateway that
    /// has checked it.
    pub insecure: bool,
}

/// A key that webhooks are signed with in place of the auth token.
#[derive(Clone, Debug)]
pub struct SharedKey {
    /// The id that a request names.
    pub id: String,
    /// The key.
    pub secret: Secret,
    /// The hash. From here, never from the request.
    pub algorithm: Algorithm,
}

/// The algorithms a shared key may have: as configured, as the settings header says, and what they are.
pub(super) const ALGORITHMS: [(&str, &str, Algorithm); 1] = [("hmac-sha256", "HMAC_SHA256", Algorithm::HmacSha256)];

const PUBLIC_API: &str = "https://api.twilio.com";

impl Config {
    /// Reads and checks the section.
    pub fn read(s: &Section<'_>) -> Self {
        let config = Self {
            account_sid: sid(s, "account_sid", "AC"),
            auth_token: s.secret("auth_token"),
            api_key_sid: sid(s, "api_key_sid", "SK"),
            api_key_secret: s.secret("api_key_secret"),
            base_url: base_url(s),
            api_timeout: s.duration(
                "api_timeout",
                Duration::from_secs(10),
                Duration::from_secs(1)..=Duration::from_secs(60),
            ),
            shared_keys: s.sections("shared_keys").into_iter().filter_map(shared_key).collect(),
            insecure: s.bool("insecure", false),
        };
        if config.api_key_sid.is_some() != config.api_key_secret.is_some() {
            s.fault(
                "api_key_sid",
                "is of use only with api_key_secret",
                "set both or neither",
            );
        }
        let secret = config.auth_token.is_some() || config.api_key_secret.is_some();
        if secret && config.account_sid.is_none() {
            s.fault(
                "account_sid",
                "missing beside the credentials",
                "copy it from the account's console",
            );
        }
        config
    }

    /// Account, user and password for REST, if they are configured.
    pub(super) fn credentials(&self) -> Option<(&str, &str, &Secret)> {
        let account = self.account_sid.as_deref()?;
        match (&self.api_key_sid, &self.api_key_secret) {
            (Some(user), Some(secret)) => Some((account, user, secret)),
            _ => Some((account, account, self.auth_token.as_ref()?)),
        }
    }
}

fn sid(s: &Section<'_>, key: &str, prefix: &str) -> Option<String> {
    let text = s.text_opt(key).filter(|t| !t.is_empty())?;
    let hex = text.strip_prefix(prefix).unwrap_or_default();
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        s.fault(
            key,
            format!("{text:?} is not an id"),
            format!("{prefix} and 32 hexadecimal digits"),
        );
    }
    Some(text)
}

fn base_url(s: &Section<'_>) -> String {
    let label = |key: &str| {
        let text = s.text_opt(key).filter(|t| !t.is_empty())?;
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            s.fault(key, format!("{text:?} is not a name"), "such as dublin or ie1");
        }
        Some(text)
    };
    let url = s.text_opt("base_url").filter(|t| !t.is_empty());
    match (url, label("edge"), label("region")) {
        (Some(url), None, None) => {
            if !is_base(&url) {
                s.fault(
                    "base_url",
                    format!("{url:?} is not a base URL"),
                    "http:// or https://, a host, no user, no query",
                );
            }
            url.trim_end_matches('/').to_owned()
        }
        (Some(url), ..) => {
            s.fault("base_url", "contradicts edge and region", "set one or the other");
            url
        }
        (None, Some(edge), Some(region)) => format!("https://api.{edge}.{region}.twilio.com"),
        (None, None, None) => PUBLIC_API.to_owned(),
        (None, edge, _) => {
            let key = if edge.is_some() { "edge" } else { "region" };
            s.fault(
                key,
                "is of use only with the other of edge and region",
                "set both or neither",
            );
            PUBLIC_API.to_owned()
        }
    }
}

fn is_base(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https"))
            && u.host().is_some_and(|h| !h.is_empty())
            && u.authority().is_some_and(|a| !a.as_str().contains('@'))
            && u.query().is_none()
    }) && !url.contains('#')
}

fn shared_key(s: Section<'_>) -> Option<SharedKey> {
    let id = s.text("id", "");
    let secret = s.secret("secret");
    let words = ALGORITHMS.map(|(word, _, algorithm)| (word, algorithm));
    let algorithm = s.choice("algorithm", Algorithm::HmacSha256, &words);
    if id.is_empty() || id.contains([',', '=']) {
        s.fault("id", "missing or not an id", "the key's id at Twilio");
    }
    if secret.is_none() {
        s.fault("secret", "missing", "the key's secret at Twilio");
    }
    s.finish();
    Some(SharedKey {
        id,
        secret: secret?,
        algorithm,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    fn item(value: Value) -> Item {
        Item {
            value,
            place: Place::Line(1),
        }
    }

    fn table(pairs: &[(&str, &str)]) -> Table {
        let text = |v: &str| item(Value::String(v.to_owned()));
        pairs.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect()
    }

    fn read(table: &Table) -> (Config, Vec<String>) {
        let faults = Faults::default();
        let s = Section::root(table, &faults);
        let config = Config::read(&s);
        s.finish();
        (config, faults.take().iter().map(ToString::to_string).collect())
    }

    const SID: &str = "AC00000000000000000000000000000001";
    const KEY: &str = "SK00000000000000000000000000000001";

    #[test]
    fn an_empty_section_is_an_account_that_can_do_nothing() {
        let (config, faults) = read(&Table::new());
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.base_url, "https://api.twilio.com");
        assert!(config.credentials().is_none());
    }

    #[test]
    fn an_api_key_goes_before_the_auth_token() {
        let (config, faults) = read(&table(&[("account_sid", SID), ("auth_token", "t")]));
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.credentials(), Some((SID, SID, &Secret::new("t"))));
        let (config, faults) = read(&table(&[
            ("account_sid", SID),
            ("auth_token", "t"),
            ("api_key_sid", KEY),
            ("api_key_secret", "s"),
        ]));
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.credentials(), Some((SID, KEY, &Secret::new("s"))));
    }

    #[test]
    fn edge_and_region_name_a_host_and_a_base_url_stands_alone() {
        let (config, _) = read(&table(&[("edge", "dublin"), ("region", "ie1")]));
        assert_eq!(config.base_url, "https://api.dublin.ie1.twilio.com");
        let (config, faults) = read(&table(&[("base_url", "http://127.0.0.1:9/x/")]));
        assert_eq!((config.base_url.as_str(), faults.len()), ("http://127.0.0.1:9/x", 0));
        for bad in [
            &[("edge", "dublin")][..],
            &[("region", "ie1")],
            &[("edge", "a.evil.example/"), ("region", "ie1")],
            &[("base_url", "http://h"), ("edge", "dublin"), ("region", "ie1")],
            &[("base_url", "ftp://h")],
            &[("base_url", "https://u:p@h")],
            &[("base_url", "https://h/?q=1")],
            &[("base_url", "https://h/#f")],
            &[("base_url", "api.example.com")],
            &[("account_sid", "AC1")],
            &[("auth_token", "t")],
            &[("account_sid", SID), ("api_key_sid", KEY)],
        ] {
            assert_eq!(read(&table(bad)).1.len(), 1, "{bad:?} {:?}", read(&table(bad)).1);
        }
    }

    #[test]
    fn shared_keys_are_whole_or_a_fault() {
        let keys = |rows: Vec<Table>| {
            let rows = rows.into_iter().map(|t| item(Value::Table(t))).collect();
            Table::from([("shared_keys".to_owned(), item(Value::Array(rows)))])
        };
        let (config, faults) = read(&keys(vec![table(&[("id", "k1"), ("secret", "s")])]));
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.shared_keys[0].algorithm, Algorithm::HmacSha256);
        for bad in [
            table(&[("id", "k1")]),
            table(&[("secret", "s")]),
            table(&[("id", "k1"), ("secret", "s"), ("algorithm", "hmac-sha1")]),
            table(&[("id", "k1"), ("secret", "s"), ("keyid", "x")]),
        ] {
            assert_eq!(read(&keys(vec![bad.clone()])).1.len(), 1, "{bad:?}");
        }
    }
}
