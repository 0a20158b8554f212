//! Where a daemon listens, as given on a command line: `ws://host:port/path` or `http://host:port/path`, or with TLS.

use crate::net::{
    client::HttpClient,
    tls::{self, TlsError},
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Host, port and path of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whom to trust, where the daemon is reached with TLS.
    pub tls: Option<Trust>,
    /// A name or an IP address; IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query; empty when none was given.
    pub path: String,
}

/// The text is not such a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address: ws://HOST[:PORT][/PATH], wss://…, http://… or https://… expected")
    }
}

impl std::error::Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let uri: http::Uri = text.parse().map_err(|_| BadAddress)?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => None,
            Some("wss" | "https") => Some(Trust::default()),
            _ => return Err(BadAddress),
        };
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        Ok(Self {
            host: uri.host().filter(|h| !h.is_empty()).ok_or(BadAddress)?.to_owned(),
            port: uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            tls,
            path: if path == "/" { String::new() } else { path.to_owned() },
        })
    }
}

impl Address {
    /// The way to a listener of this machine.
    pub fn local(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Self {
            host: match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            },
            port: listen.port(),
            path: String::new(),
            tls: None,
        }
    }

    /// `host:port`, as in a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL of `path` at this host; `scheme` is `http` or `ws`, and gets its `s` where it is due.
    pub fn at(&self, scheme: &str, path: &str) -> String {
        let s = if self.tls.is_some() { "s" } else { "" };
        format!("{scheme}{s}://{}{path}", self.authority())
    }

    /// Connects without TLS, which is all that load is measured over.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        if self.tls.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "load is placed without TLS: give a ws:// address",
            ));
        }
        self.reach().await
    }

    /// Connects, with TLS where it is due.
    pub async fn dial(&self) -> io::Result<Box<dyn Line>> {
        let stream = self.reach().await?;
        let Some(trust) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.trim_matches(['[', ']']).to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let connector = TlsConnector::from(trust.0.clone());
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// A client for requests to it.
    pub fn client(&self) -> HttpClient {
        match &self.tls {
            Some(trust) => HttpClient::with_tls((*trust.0).clone()),
            None => HttpClient::new(),
        }
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection, with TLS or without.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Whose certificates are believed: Mozilla's list unless a file says others.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Believes the certificates in a PEM file and no other.
    pub fn only(file: &Path) -> Result<Self, TlsError> {
        tls::client_of(file).map(|config| Self(Arc::new(config)))
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self(Arc::new(tls::client()))
    }
}

impl PartialEq for Trust {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        let a: Address = "ws://127.0.0.1:8080/api/calls/stream?x=1".parse().unwrap();
        assert_eq!(
            (a.host.as_str(), a.port, a.path.as_str()),
            ("127.0.0.1", 8080, "/api/calls/stream?x=1")
        );
        let b: Address = "http://[::1]:90".parse().unwrap();
        assert_eq!((b.at("ws", "/x").as_str(), b.path.as_str()), ("ws://[::1]:90/x", ""));
        let c: Address = "wss://relay.example.com/x".parse().unwrap();
        assert_eq!(
            (c.at("ws", "/x").as_str(), c.tls.is_some()),
            ("wss://relay.example.com:443/x", true)
        );
        for bad in ["127.0.0.1:80", "ftp://x/", "ws:///x", ""] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
    }
}
