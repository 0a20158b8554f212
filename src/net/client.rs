//! HTTP requests to vendors and backends: pooled connections, TLS by rustls, everything bounded.
//!
//! One request in, one whole reply, or one that is read as it comes, or one error out. No redirects, no retries, no cookies: what may be repeated is the
//! caller's knowledge, and [`ClientError::was_sent`] tells what it needs for that. Error texts name the host and the cause,
//! never a path, query or header.

use super::{
    public::{Resolver, is_public},
    tls,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, response::Parts};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use std::{error::Error, fmt, net::IpAddr, time::Duration};

/// Longest reply body that is read.
pub const MAX_BODY: usize = 1024 * 1024;

const MAX_HEAD: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const POOL_IDLE: Duration = Duration::from_secs(60);
const POOL_PER_HOST: usize = 16;
/// A server may ask for patience, not for resignation.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A request.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// `GET`, `POST`, `DELETE`.
    pub method: Method,
    /// The whole URL, `http` or `https`.
    pub url: String,
    /// Headers, credentials included; their values are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long to wait for the whole reply, connecting included.
    pub timeout: Duration,
}

/// A whole reply, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most [`MAX_BODY`].
    pub body: Bytes,
    /// How long the server asks to wait (`Retry-After` in seconds or as a date), at most an hour.
    pub retry_after: Option<Duration>,
}

/// A reply whose body is still on its way. Dropping it drops the connection.
#[derive(Debug)]
pub struct Reply {
    head: Parts,
    body: Incoming,
    host: String,
}

impl Reply {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.head.headers.get(header::RETRY_AFTER).and_then(retry_after)
    }

    /// The media type of the body, without parameters; empty where none is told.
    pub fn content_type(&self) -> &str {
        let value = self.head.headers.get(header::CONTENT_TYPE);
        let text = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(e)) => {
                    let (host, cause) = (self.host.clone(), root(&e));
                    return Err(ClientError::Broken { host, cause });
                }
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// No whole reply. Texts are safe to log and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The URL is not one of `http` or `https` with a host.
    Url,
    /// No connection: name not found, refused, certificate not trusted, no answer within 3 s. Nothing was sent.
    Connect {
        /// Host and port asked for.
        host: String,
        /// The operating system's or the TLS library's word for it.
        cause: String,
    },
    /// A tenant's URL without TLS, or to an address that is not public. Nothing was sent.
    NotPublic {
        /// Host and port asked for.
        host: String,
    },
    /// No whole reply within the request's time. What the server did is unknown.
    Timeout {
        /// Host and port asked for.
        host: String,
    },
    /// The connection broke, or what came was not HTTP. What the server did is unknown.
    Broken {
        /// Host and port asked for.
        host: String,
        /// The operating system's or the HTTP library's word for it.
        cause: String,
    },
    /// A reply with more than [`MAX_BODY`]. The server did what it was asked.
    TooLarge {
        /// Host and port asked for.
        host: String,
    },
}

impl ClientError {
    /// Whether the server may have acted on the request.
    pub const fn was_sent(&self) -> bool {
        !matches!(self, Self::Url | Self::Connect { .. } | Self::NotPublic { .. })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("not an http:// or https:// URL"),
            Self::Connect { host, cause } => write!(f, "no connection to {host}: {cause}"),
            Self::NotPublic { host } => write!(f, "{host} is no public address with https"),
            Self::Timeout { host } => write!(f, "no reply from {host} in time"),
            Self::Broken { host, cause } => write!(f, "connection to {host} broke: {cause}"),
            Self::TooLarge { host } => write!(f, "reply from {host} is larger than {MAX_BODY} bytes"),
        }
    }
}

impl Error for ClientError {}

/// Sends requests. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    public_only: bool,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// A client that trusts Mozilla's certificate authorities.
    ///
    /// # Panics
    /// Never: `ring` has the cipher suites of TLS 1.2 and 1.3.
    pub fn new() -> Self {
        Self::with_tls(tls::client())
    }

    /// The same for URLs that a tenant wrote: it goes to public addresses alone, and nowhere without TLS.
    ///
    /// # Panics
    /// Never, as [`HttpClient::new`].
    pub fn to_public_addresses() -> Self {
        Self::build(tls::client(), true)
    }

    /// A client with TLS rules of the caller's: another authority, a client certificate.
    pub fn with_tls(config: ClientConfig) -> Self {
        Self::build(config, false)
    }

    fn build(config: ClientConfig, public_only: bool) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(public_only));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_PER_HOST)
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Self { client, public_only }
    }

    /// Whether this client would go where `url` leads, as far as can be told now: names may lead elsewhere later, so what is sent
    /// is checked again. A name that leads nowhere now is let pass.
    pub async fn may_reach(&self, url: &str) -> Result<(), ClientError> {
        let uri: Uri = url.parse().map_err(|_| ClientError::Url)?;
        let name = uri.host().filter(|h| !h.is_empty()).ok_or(ClientError::Url)?;
        let host = || format!("{name}:{}", uri.port_u16().unwrap_or(443));
        if !self.public_only {
            return Ok(());
        }
        if !may_be_public(&uri) {
            return Err(ClientError::NotPublic { host: host() });
        }
        let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(host())).await;
        let Ok(Ok(addresses)) = found else { return Ok(()) };
        let mut addresses = addresses.map(|a| is_public(a.ip())).peekable();
        match addresses.peek().is_none() || addresses.any(|public| public) {
            true => Ok(()),
            false => Err(ClientError::NotPublic { host: host() }),
        }
    }

    /// Sends a request and reads the whole reply.
    pub async fn send(&self, request: ApiRequest) -> Result<ApiReply, ClientError> {
        let timeout = request.timeout;
        let (message, host) = self.message(request)?;
        match tokio::time::timeout(timeout, self.exchange(message, &host)).await {
            Ok(reply) => reply,
            Err(_) => Err(ClientError::Timeout { host }),
        }
    }

    /// The request as it is sent, and the host it goes to.
    fn message(&self, request: ApiRequest) -> Result<(Request<Full<Bytes>>, String), ClientError> {
        let uri: Uri = request.url.parse().map_err(|_| ClientError::Url)?;
        let host = match (uri.scheme_str(), uri.host()) {
            (Some(scheme @ ("http" | "https")), Some(host)) if !host.is_empty() => {
                let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
                format!("{host}:{port}")
            }
            _ => return Err(ClientError::Url),
        };
        if self.public_only && !may_be_public(&uri) {
            return Err(ClientError::NotPublic { host });
        }
        let mut message = Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = uri;
        *message.headers_mut() = request.headers;
        Ok((message, host))
    }

    /// Sends a request and returns once the head of the reply is there, within the request's time. The body is the caller's to
    /// read, to bound and to time.
    pub async fn begin(&self, request: ApiRequest) -> Result<Reply, ClientError> {
        let timeout = request.timeout;
        let (message, host) = self.message(request)?;
        let begun = tokio::time::timeout(timeout, self.head(message, &host)).await;
        let reply = begun.map_err(|_| ClientError::Timeout { host: host.clone() })??;
        let (head, body) = reply.into_parts();
        Ok(Reply { head, body, host })
    }

    async fn head(&self, message: Request<Full<Bytes>>, host: &str) -> Result<Response<Incoming>, ClientError> {
        let host = || host.to_owned();
        self.client.request(message).await.map_err(|e| {
            let cause = root(&e);
            if e.is_connect() {
                ClientError::Connect { host: host(), cause }
            } else {
                ClientError::Broken { host: host(), cause }
            }
        })
    }

    async fn exchange(&self, message: Request<Full<Bytes>>, host: &str) -> Result<ApiReply, ClientError> {
        let (head, body) = self.head(message, host).await?.into_parts();
        let host = || host.to_owned();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                ClientError::TooLarge { host: host() }
            } else {
                let cause = root(&*e);
                ClientError::Broken { host: host(), cause }
            }
        })?;
        Ok(ApiReply {
            status: head.status.as_u16(),
            body: body.to_bytes(),
            retry_after: head.headers.get(header::RETRY_AFTER).and_then(retry_after),
        })
    }
}

/// Whether a tenant's URL may be tried; the resolver has the last word on names.
fn may_be_public(uri: &Uri) -> bool {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    uri.scheme_str() == Some("https") && host.parse::<IpAddr>().map_or(true, is_public)
}

/// The innermost error's text. The outer ones say "client error (Connect)"; none of them knows the URL.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

pub(super) fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()?;
            Duration::try_from(at - time::OffsetDateTime::now_utc()).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{RootCertStore, ServerConfig, crypto::ring};
    use std::{net::SocketAddr, sync::Arc};
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };

    const LIMIT: Duration = Duration::from_secs(5);

    fn request(url: String) -> ApiRequest {
        let mut secret = HeaderValue::from_static("Basic c2VjcmV0");
        secret.set_sensitive(true);
        ApiRequest {
            method: Method::POST,
            url,
            headers: HeaderMap::from_iter([(header::AUTHORIZATION, secret)]),
            body: Bytes::from_static(b"a=1"),
            timeout: LIMIT,
        }
    }

    /// Reads one request to its end.
    async fn take(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
        let mut text = String::new();
        loop {
            let mut piece = [0; 1024];
            match socket.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => text.push_str(std::str::from_utf8(&piece[..n]).unwrap()),
            }
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
                if body.len() == length.map_or(0, |l| l.parse().unwrap()) {
                    return Some(text);
                }
            }
        }
    }

    async fn serve(
        mut socket: impl AsyncRead + AsyncWrite + Unpin,
        reply: Vec<u8>,
        seen: mpsc::UnboundedSender<String>,
    ) {
        while let Some(request) = take(&mut socket).await {
            let _ = seen.send(request);
            if socket.write_all(&reply).await.is_err() || reply.is_empty() {
                return;
            }
        }
    }

    /// A server that answers every request alike (and by closing when `reply` is empty), and what it was asked.
    async fn server(reply: impl Into<Vec<u8>>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tx, rx) = mpsc::unbounded_channel();
        let reply = reply.into();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, reply.clone(), tx.clone()));
            }
        });
        (address, rx)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_request_arrives_whole_and_its_reply_comes_back() {
        let (address, mut seen) = server(ok("hello")).await;
        let client = HttpClient::new();
        let reply = client.send(request(format!("http://{address}/p?q=1"))).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
        let got = seen.recv().await.unwrap();
        assert!(got.starts_with("POST /p?q=1 HTTP/1.1\r\n"), "{got}");
        assert!(got.contains("authorization: Basic c2VjcmV0\r\n"), "{got}");
        assert!(got.ends_with("\r\n\r\na=1"), "{got}");
    }

    #[tokio::test]
    async fn a_status_is_no_error_and_a_redirect_is_not_followed() {
        let (elsewhere, mut asked) = server(ok("")).await;
        let (address, _) = server(format!(
            "HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        let reply = HttpClient::new()
            .send(request(format!("http://{address}/")))
            .await
            .unwrap();
        assert_eq!((reply.status, reply.retry_after), (302, Some(Duration::from_secs(7))));
        assert!(asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused_whether_announced_or_not() {
        let body = "x".repeat(MAX_BODY + 1);
        let (announced, _a) = server(ok(&body)).await;
        let chunked = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let (streamed, _b) = server(chunked).await;
        let (fits, _c) = server(ok(&body[1..])).await;
        let client = HttpClient::new();
        for address in [announced, streamed] {
            let error = client.send(request(format!("http://{address}/"))).await.unwrap_err();
            assert_eq!(
                error,
                ClientError::TooLarge {
                    host: address.to_string()
                }
            );
        }
        let reply = client.send(request(format!("http://{fits}/"))).await.unwrap();
        assert_eq!(reply.body.len(), MAX_BODY);
    }

    #[tokio::test]
    async fn errors_say_what_was_sent_and_never_the_secret() {
        let (closes, _a) = server("").await;
        let (garbage, _b) = server("no http\r\n\r\n").await;
        let (short, _c) = server("HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nx").await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let client = HttpClient::new();
        for (url, name, sent) in [
            (format!("http://{refused}/hidden?token=hidden"), "Connect", false),
            (format!("https://{garbage}/hidden?token=hidden"), "Connect", false),
            ("ftp://hidden/".into(), "Url", false),
            ("http://ho st/hidden".into(), "Url", false),
            ("/hidden".into(), "Url", false),
            (format!("http://{closes}/hidden?token=hidden"), "Broken", true),
            (format!("http://{garbage}/hidden?token=hidden"), "Broken", true),
            (format!("http://u:hidden@{garbage}/"), "Broken", true),
            (
                format!("http://{}/hidden", silent.local_addr().unwrap()),
                "Timeout",
                true,
            ),
            (format!("http://{short}/hidden"), "Timeout", true),
        ] {
            let mut request = request(url.clone());
            if name == "Timeout" {
                request.timeout = Duration::from_millis(50);
            }
            let error = client.send(request).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(format!("{error:?}").starts_with(name), "{url}: {text}");
            assert_eq!(error.was_sent(), sent, "{url}: {text}");
            assert!(!text.contains("hidden") && !text.contains("c2VjcmV0"), "{text}");
        }
    }

    #[tokio::test]
    async fn where_a_tenants_url_leads_is_told_before_anything_is_sent() {
        let (anywhere, public) = (HttpClient::new(), HttpClient::to_public_addresses());
        for private in [
            "https://127.0.0.1",
            "https://10.0.0.8/v2",
            "https://[::1]:8443",
            "https://169.254.169.254/latest",
            "https://localhost/v2",
            "http://93.184.216.34",
        ] {
            assert!(anywhere.may_reach(private).await.is_ok(), "{private}");
            let refused = public.may_reach(private).await;
            assert!(
                matches!(refused, Err(ClientError::NotPublic { .. })),
                "{private} {refused:?}"
            );
        }
        for fine in ["https://93.184.216.34/v2", "https://nowhere.invalid"] {
            assert_eq!(public.may_reach(fine).await, Ok(()), "{fine}");
        }
        assert_eq!(public.may_reach("no url").await, Err(ClientError::Url));
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tx, mut seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // One connection only: a second would never be answered.
            let (socket, _) = listener.accept().await.unwrap();
            serve(socket, ok("x").into(), tx).await;
        });
        let client = HttpClient::new();
        for _ in 0..3 {
            assert!(client.clone().send(request(format!("http://{address}/"))).await.is_ok());
        }
        for _ in 0..3 {
            assert!(seen.recv().await.is_some());
        }
    }

    #[tokio::test]
    async fn tls_is_spoken_to_those_it_trusts() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                made.signing_key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tx, mut seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Ok(socket) = acceptor.accept(socket).await {
                    tokio::spawn(serve(socket, ok("secret").into(), tx.clone()));
                }
            }
        });
        let url = format!("https://localhost:{port}/");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let reply = HttpClient::with_tls(trusting).send(request(url.clone())).await.unwrap();
        assert_eq!(&reply.body[..], b"secret");
        assert!(seen.recv().await.is_some());

        let error = HttpClient::new().send(request(url)).await.unwrap_err();
        assert!(!error.was_sent(), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let read = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read(" 5 "), Some(Duration::from_secs(5)));
        assert_eq!(read("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("Fri, 31 Dec 9999 23:59:59 GMT"), Some(MAX_RETRY_AFTER));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
