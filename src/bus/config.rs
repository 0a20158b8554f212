//! The bus's part of the configuration: `[nodes]`.

use crate::base::{secret::Secret, settings::Section};
use std::path::PathBuf;

/// How the nodes of a cluster find each other. Without a `url` this node is the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The NATS servers: `nats://HOST:PORT` or `tls://HOST:PORT`, parted by commas. A secret, for it may hold a password.
    pub url: Option<Secret>,
    /// What every subject begins with: clusters that share a server differ in it.
    pub prefix: String,
    /// The user, with `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A token, in place of a user.
    pub token: Option<Secret>,
    /// A NATS credentials file: a JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    /// The seed of an nkey.
    pub nkey: Option<Secret>,
    /// Whether the connection must be TLS, whatever the server says.
    pub tls: bool,
    /// Certificates of authorities to be trusted beside the system's, PEM.
    pub ca: Option<PathBuf>,
    /// Our own certificate, PEM, with `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
}

impl Config {
    /// Reads `[nodes]`.
    pub fn read(section: &Section<'_>) -> Self {
        let path = |key| section.text_opt(key).filter(|p| !p.is_empty()).map(PathBuf::from);
        let config = Self {
            url: section.secret("url"),
            prefix: section.text("prefix", "sidetone"),
            user: section.text_opt("user").filter(|u| !u.is_empty()),
            password: section.secret("password"),
            token: section.secret("token"),
            credentials: path("credentials"),
            nkey: section.secret("nkey"),
            tls: section.bool("tls", false),
            ca: path("ca"),
            tls_cert: path("tls_cert"),
            tls_key: path("tls_key"),
        };
        config.check(section);
        config
    }

    /// Whether there may be other nodes.
    pub const fn is_cluster(&self) -> bool {
        self.url.is_some()
    }

    fn check(&self, section: &Section<'_>) {
        let servers = self.url.iter().flat_map(|url| url.expose().split(','));
        let is_server = |url: &str| {
            let rest = ["nats://", "tls://"].iter().find_map(|s| url.trim().strip_prefix(s));
            rest.is_some_and(|host| !host.is_empty())
        };
        for server in servers {
            // What is wrong with it may stand beside a password: it is not shown.
            if !is_server(server) || server.trim().parse::<async_nats::ServerAddr>().is_err() {
                section.fault(
                    "url",
                    "not the address of a NATS server",
                    "nats://HOST:4222, or several parted by commas",
                );
            }
        }
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(is_word) {
            section.fault("prefix", "not one word", "1 to 64 of letters, digits, _ and -");
        }
        if self.user.is_some() != self.password.is_some() {
            section.fault("user", "user and password go together", "set both or neither");
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            section.fault("tls_cert", "tls_cert and tls_key go together", "set both or neither");
        }
        let ways = [
            self.user.is_some(),
            self.token.is_some(),
            self.credentials.is_some(),
            self.nkey.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            section.fault(
                "user",
                "more than one way to prove who this node is",
                "one of user and password, token, credentials, nkey",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    fn faults(keys: &[(&str, &str)]) -> Vec<String> {
        let mut table = Table::new();
        for (key, value) in keys {
            let value = Value::String((*value).to_owned());
            table.insert(
                (*key).to_owned(),
                Item {
                    value,
                    place: Place::Line(1),
                },
            );
        }
        let found = Faults::default();
        Config::read(&Section::root(&table, &found));
        found.take().into_iter().map(|f| f.key).collect()
    }

    #[test]
    fn what_cannot_work_is_told_by_its_key() {
        assert!(faults(&[]).is_empty());
        assert!(faults(&[("url", "nats://a:4222, tls://b"), ("user", "u"), ("password", "p")]).is_empty());
        assert_eq!(faults(&[("url", "http://a")]), ["url"]);
        assert_eq!(faults(&[("url", "nats://")]), ["url"]);
        assert_eq!(faults(&[("prefix", "a.b")]), ["prefix"]);
        assert_eq!(faults(&[("user", "u")]), ["user"]);
        assert_eq!(faults(&[("tls_key", "k")]), ["tls_cert"]);
        assert_eq!(faults(&[("token", "t"), ("nkey", "n")]), ["user"]);
    }
}
