//! Where a PostgreSQL server is and whether it is spoken to through TLS, read from a URL as libpq reads it.
//!
//! `sslmode` is `disable` or `verify-full` (`require` and `verify-ca` are taken for it: an encrypted connection to nobody knows
//! whom helps little). Without it, `verify-full` unless every host is a Unix socket or the loopback. `sslrootcert` names a PEM
//! file of authorities, instead of Mozilla's.

use super::tls::Tls;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{fmt, net::IpAddr, path::Path, str::FromStr, sync::Arc, time::Duration};
use tokio_postgres::config::{Host, SslMode};

/// How long to wait for a server that does not answer the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing sent is acknowledged for this long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// A server's address. Shown without user and password.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
    place: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// The place that a URL names, to be shown, or what is wrong with the URL. Reads no files.
pub(in crate::store) fn place_of(url: &str) -> Result<String, String> {
    split(url).map(|parts| place(&parts.config))
}

/// What of the URL is ours to read.
struct Parts {
    config: tokio_postgres::Config,
    encrypted: bool,
    authorities: Option<String>,
}

fn split(url: &str) -> Result<Parts, String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut authorities, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", word)) => mode = Some(word),
            Some(("sslrootcert", path)) => authorities = Some(path.replace("%2F", "/").replace("%2f", "/")),
            _ => rest.push(pair),
        }
    }
    let url = match rest.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", rest.join("&")),
    };
    let mut config = tokio_postgres::Config::from_str(&url).map_err(|e| {
        let cause = std::error::Error::source(&e).map(ToString::to_string);
        cause.unwrap_or_else(|| e.to_string())
    })?;
    if config.get_hosts().is_empty() {
        return Err("it names no host".to_owned());
    }
    let encrypted = match mode {
        Some("disable") => false,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(other) => return Err(format!("sslmode {other} is not offered: disable or verify-full")),
        None => !config.get_hosts().iter().all(is_local),
    };
    config
        .application_name("sidetone")
        .connect_timeout(CONNECT)
        .tcp_user_timeout(DEAD_AFTER)
        .keepalives_idle(DEAD_AFTER)
        .ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
    Ok(Parts {
        config,
        encrypted,
        authorities,
    })
}

impl Address {
    /// Reads a URL, and the authorities that it names.
    pub(super) fn read(url: &str) -> Result<Self, String> {
        let parts = split(url)?;
        let tls = match parts.encrypted {
            false => Tls::none(),
            true => Tls::new(client(parts.authorities.as_deref().map(Path::new))?),
        };
        let place = place(&parts.config);
        Ok(Self {
            config: parts.config,
            tls,
            place,
        })
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|a| a.is_loopback()),
    }
}

fn place(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
    let hosts = config.get_hosts().iter().enumerate().map(|(n, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(n)),
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<_> = hosts.collect();
    format!(
        "postgres://{}/{}",
        hosts.join(","),
        config.get_dbname().or(config.get_user()).unwrap_or_default()
    )
}

fn client(authorities: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let (added, _) = roots.add_parsable_certificates(read.map_err(|e| format!("{}: {e}", path.display()))?);
            if added == 0 {
                return Err(format!("{}: no certificate of an authority in PEM", path.display()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_who_uses_it() {
        for (url, shown) in [
            (
                "postgres://user:geheim@db.example/calls?sslmode=disable",
                "postgres://db.example:5432/calls",
            ),
            (
                "postgresql://user:geheim@a:5433,b:5434/calls?sslmode=disable",
                "postgres://a:5433,b:5434/calls",
            ),
            (
                "postgres://user:geheim@%2Frun%2Fpostgresql/calls",
                "postgres:///run/postgresql/calls",
            ),
            ("postgres://calls@localhost", "postgres://localhost:5432/calls"),
        ] {
            let address = Address::read(url).unwrap();
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("geheim"));
        }
    }

    #[test]
    fn strangers_are_spoken_to_through_tls_alone_unless_asked_otherwise() {
        for (url, encrypted) in [
            ("postgres://u@db.example/x", true),
            ("postgres://u@db.example/x?sslmode=require", true),
            ("postgres://u@db.example/x?sslmode=disable", false),
            ("postgres://u@127.0.0.1/x", false),
            ("postgres://u@localhost/x?sslmode=verify-full", true),
            ("postgres://u@%2Ftmp/x", false),
            ("postgres://u@localhost,db.example/x", true),
        ] {
            assert_eq!(split(url).unwrap().encrypted, encrypted, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, why) in [
            ("postgres://u@h/x?sslmode=prefer", "sslmode prefer is not offered"),
            ("postgres://u@h:port/x", "port"),
            ("postgres:///x", "it names no host"),
            ("postgres://u@h/x?no_such=1", "no_such"),
        ] {
            let fault = place_of(url).unwrap_err();
            assert!(fault.contains(why), "{url}: {fault}");
        }
        let absent = Address::read("postgres://u@h/x?sslrootcert=/nowhere/ca.pem").unwrap_err();
        assert!(absent.starts_with("/nowhere/ca.pem"), "{absent}");
    }
}
