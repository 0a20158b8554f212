//! What happens to every request, whatever its route: who the client is, sizes of the head, CORS, security headers, one log line.
//!
//! The log line holds the route's pattern and the names of parameters, never their values: tokens travel in both.

use super::{Shared, respond::Failure};
use crate::{
    base::{
        fault::{Fault, Kind},
        network::Network,
    },
    net::listen::Permit,
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, uri::Authority};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

/// The other end of a connection, put into each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether TLS is ours.
    pub tls: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            tls: false,
        }
    }
}

/// The request has proven who it is from: its connection counts as a stranger's no more.
pub fn vouch(extensions: &Extensions) {
    if let Some(permit) = extensions.get::<Permit>() {
        permit.vouch();
    }
}

/// The address a request comes from, behind trusted proxies too.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

impl Client {
    /// The client of a request that came through [`every_request`].
    pub fn of(extensions: &Extensions) -> IpAddr {
        extensions
            .get::<Self>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |c| c.0)
    }
}

/// The outermost layer.
pub async fn every_request(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    let client = client_address(peer.address.ip(), request.headers(), &shared.config.trusted_proxies);
    request.extensions_mut().insert(Client(client));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let allowed = allowed_origin(&shared, request.headers());

    let fits = head_fits(&request, shared.config.line_bytes).and_then(|()| check_host(&shared, &request));
    let mut response = match (fits, is_preflight(&request)) {
        (Err(failure), _) => failure.into_response(),
        (Ok(()), true) => StatusCode::NO_CONTENT.into_response(),
        (Ok(()), false) => next.run(request).await,
    };

    security_headers(response.headers_mut(), peer.tls);
    cors_headers(response.headers_mut(), &method, allowed);
    let status = response.status().as_u16();
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let ms = began.elapsed().as_millis() as u64;
    if matches!(route, "/health" | "/ready") {
        tracing::debug!(%method, route, status, ms, %client, "request");
    } else {
        tracing::info!(%method, route, params = %Names(&query), status, ms, %client, "request");
    }
    response
}

/// The last address in `X-Forwarded-For` that no trusted proxy wrote about itself.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |a: IpAddr| trusted.iter().any(|n| n.contains(a));
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = lines.filter_map(|v| v.to_str().ok()).flat_map(|v| v.rsplit(','));
    while is_trusted(client) {
        match hops.next().map(|hop| hop.trim().parse::<IpAddr>()) {
            Some(Ok(hop)) => client = hop.to_canonical(),
            Some(Err(_)) | None => break,
        }
    }
    client
}

fn head_fits(request: &Request, line: usize) -> Result<(), Failure> {
    let uri = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if uri > line {
        return Err(Failure::with_status(StatusCode::URI_TOO_LONG, "the URL is too long"));
    }
    if request.headers().iter().any(|(n, v)| n.as_str().len() + v.len() > line) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Failure::with_status(status, "a header is too long"));
    }
    // RFC 9112 §3.2.
    let hosts = request.headers().get_all(header::HOST);
    if request.version() == Version::HTTP_11 && hosts.iter().count() != 1 {
        let message = "an HTTP/1.1 request names its host once, in a Host header";
        return Err(Fault::client(Kind::Malformed, message).into());
    }
    if !hosts.iter().all(|h| is_host(h.as_bytes())) {
        let message = "the Host header is not a host and perhaps a port";
        return Err(Fault::client(Kind::Malformed, message).into());
    }
    if !is_encoded_text(request.uri().path()) {
        let message = "the path is not percent-encoded UTF-8";
        return Err(Fault::client(Kind::Malformed, message).into());
    }
    Ok(())
}

/// Whether a `Host` is a name or address and perhaps a port (RFC 3986 §3.2.2). Of the delimiters that a name could hold, of
/// which none that is in use has any, none is taken: a comma joins two hosts.
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let (host_is_good, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => return false,
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            (
                !name.is_empty() && name.bytes().all(good) && is_encoded_text(name),
                port,
            )
        }
    };
    let port_is_good = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
        }
        None => port.is_empty(),
    };
    host_is_good && port_is_good
}

/// Whether each `%` begins two hexadecimal digits and the bytes they stand for are UTF-8 with those around them.
fn is_encoded_text(path: &str) -> bool {
    let mut bytes = path.bytes();
    let mut text = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        text.push(match byte {
            b'%' => match digit().zip(digit()) {
                Some((high, low)) => (high * 16 + low) as u8,
                None => return false,
            },
            other => other,
        });
    }
    std::str::from_utf8(&text).is_ok()
}

/// Where no credential is needed, a page may not come in by a name that its own server points at this machine: the host
/// must be this machine's or that of the public URL, and so must the page's own origin, on vendors' routes too. A request without
/// one is no browser's.
fn check_host(shared: &Shared, request: &Request) -> Result<(), Failure> {
    if !shared.dev {
        return Ok(());
    }
    check_origin(shared, request.headers())?;
    let public = shared.public_url.parse::<Uri>().ok();
    let public = public.as_ref().and_then(Uri::host);
    let named = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .map(|h| h.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    for authority in named.chain(target) {
        let host = authority.parse::<Authority>();
        let ours = host
            .as_ref()
            .is_ok_and(|a| is_this_machine(a) || Some(a.host()) == public);
        if !ours {
            crate::metrics::refused("request", "host");
            let message = "on --dev only this machine is served: call it localhost or by its loopback address";
            return Err(Fault::client(Kind::Forbidden, message).into());
        }
    }
    Ok(())
}

/// Names of a query's parameters, for logs.
struct Names<'a>(&'a str);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.split('&').filter(|p| !p.is_empty()).take(16);
        for (n, pair) in pairs.enumerate() {
            // A parameter without `=` may be all value.
            let name = pair.split_once('=').map_or("?", |(name, _)| name);
            f.write_str(if n > 0 { "," } else { "" })?;
            name.chars()
                .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '?'))
                .take(32)
                .try_for_each(|c| write!(f, "{c}"))?;
        }
        Ok(())
    }
}

fn security_headers(headers: &mut HeaderMap, tls: bool) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    if tls {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

/// The request's origin, if it names exactly one and its pages are welcome.
pub fn allowed_origin(shared: &Shared, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return None;
    };
    let text = origin.to_str().ok()?;
    let listed = shared.config.origins.iter().any(|o| o == text);
    let ours = shared.public_url == text;
    (listed || ours || (shared.dev && is_loopback(text))).then(|| origin.clone())
}

/// Whether an origin is a page of this very machine.
fn is_loopback(origin: &str) -> bool {
    let authority = ["http://", "https://"].iter().find_map(|s| origin.strip_prefix(s));
    let Some(authority) = authority.and_then(|a| a.parse::<Authority>().ok()) else {
        return false;
    };
    is_this_machine(&authority)
}

/// Whether an authority names this very machine, and nobody in front of an `@`.
fn is_this_machine(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let loopback = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|a| a.is_loopback());
    loopback && !authority.as_str().contains('@')
}

/// Refuses a page that is not welcome. No `Origin` is no browser: its credential decides.
pub fn check_origin(shared: &Shared, headers: &HeaderMap) -> Result<(), Failure> {
    if headers.contains_key(header::ORIGIN) && allowed_origin(shared, headers).is_none() {
        crate::metrics::refused("request", "origin");
        return Err(Fault::client(Kind::Forbidden, "this origin is not allowed").into());
    }
    Ok(())
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn cors_headers(headers: &mut HeaderMap, method: &Method, allowed: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = allowed else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if method == Method::OPTIONS {
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE");
        set(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, x-api-key",
        );
        set(header::ACCESS_CONTROL_MAX_AGE, "600");
    } else {
        let exposed = HeaderValue::from_static("retry-after, content-range, accept-ranges");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_from_trusted_proxies_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, rubbish"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_path_is_percent_encoded_text_or_refused() {
        for good in ["/", "/api/calls/CA%2F1", "/%e2%82%ac", "/%25", "/ü"] {
            assert!(is_encoded_text(good), "{good}");
        }
        for bad in ["/%", "/%4", "/%zz", "/%ff", "/%e2%82", "/%+1"] {
            assert!(!is_encoded_text(bad), "{bad}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let status = |host: &[u8]| {
            let host = http::HeaderValue::from_bytes(host).unwrap();
            let request = Request::builder().header("host", host);
            let failure = head_fits(&request.body(axum::body::Body::empty()).unwrap(), 1000).err();
            failure.map(|f| f.into_response().status().as_u16())
        };
        for good in [
            "relay.example.com",
            "relay.example.com:8443",
            "localhost:",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "a_b.c~d",
            "a%2Db",
        ] {
            assert_eq!(status(good.as_bytes()), None, "{good}");
        }
        for bad in [
            "", "a b", "[::1", "::1", "[x]", "[::1]x", "a/b", "a,b", "u@h", "a:b", "a:99999", "a:1:2", ":80", "a%zz",
            "a?b",
        ] {
            assert_eq!(status(bad.as_bytes()), Some(400), "{bad:?}");
        }
        assert_eq!(status(b"\xff"), Some(400));
    }

    #[test]
    fn a_log_line_names_parameters_and_no_values() {
        let shown = |q| Names(q).to_string();
        assert_eq!(shown("token=eyJ.x.y&call_id=CA1"), "token,call_id");
        assert_eq!(shown("eyJhbGciOi&x=1"), "?,x");
        assert_eq!(shown("a%0Ab\u{1b}=1&&"), "a0Ab");
    }

    #[test]
    fn only_this_machines_pages_are_loopback() {
        for good in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8443",
            "http://[::1]:80",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "null",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "http://evil.example",
            "file://localhost",
            "http://10.0.0.1",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
