//! Where a daemon listens, as given on a command line: `ws://host:port/path` or `http://host:port/path`, never encrypted.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Host, port and path of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
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
        f.write_str("not an address: ws://HOST[:PORT][/PATH] or http://… expected (encrypted ones are not dialled)")
    }
}

impl std::error::Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let uri: http::Uri = text.parse().map_err(|_| BadAddress)?;
        if !matches!(uri.scheme_str(), Some("ws" | "http")) {
            return Err(BadAddress);
        }
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        Ok(Self {
            host: uri.host().filter(|h| !h.is_empty()).ok_or(BadAddress)?.to_owned(),
            port: uri.port_u16().unwrap_or(80),
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
        }
    }

    /// `host:port`, as in a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL of `path` at this host.
    pub fn at(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.authority())
    }

    /// Connects.
    pub async fn connect(&self) -> std::io::Result<tokio::net::TcpStream> {
        let host = self.host.trim_matches(['[', ']']);
        let stream = tokio::net::TcpStream::connect((host, self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_encrypted_ones_refused() {
        let a: Address = "ws://127.0.0.1:8080/api/calls/stream?x=1".parse().unwrap();
        assert_eq!(
            (a.host.as_str(), a.port, a.path.as_str()),
            ("127.0.0.1", 8080, "/api/calls/stream?x=1")
        );
        let b: Address = "http://[::1]:90".parse().unwrap();
        assert_eq!((b.at("ws", "/x").as_str(), b.path.as_str()), ("ws://[::1]:90/x", ""));
        for bad in ["wss://relay.example.com/x", "127.0.0.1:80", "ftp://x/", "ws:///x", ""] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
    }
}
