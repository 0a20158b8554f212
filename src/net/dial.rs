//! Dials the WebSockets of services: TCP, TLS by rustls, the handshake; every step bounded in time, every message in size.
//!
//! No reconnecting and no heartbeat: whoever talks knows when silence means death. Error texts name the host and the cause,
//! never a path, query or header.

use super::{client::retry_after, tls};
use http::{HeaderMap, Request, Uri, header};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// Time to connect, to all addresses of a name together.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for TLS and the handshake together.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest message of a service: some seconds of audio in base64.
const MAX_MESSAGE: usize = 4 << 20;
/// Bytes that may wait to be written, over which writing fails.
const MAX_WAITING: usize = 1 << 20;
/// Characters of a refusal's body that are kept.
const MAX_REASON: usize = 200;

/// Bytes both ways, plain or over TLS.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A WebSocket that we dialled.
pub type Socket = WebSocketStream<Box<dyn Wire>>;

/// No socket. Texts are safe to log and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The URL is not one of `ws` or `wss` with a host, or a header cannot be sent.
    Url,
    /// No connection, or no TLS.
    Connect {
        /// Host and port asked for.
        host: String,
        /// The system's or the TLS library's word for it.
        cause: String,
    },
    /// A step took too long.
    Timeout {
        /// Host and port asked for.
        host: String,
    },
    /// The service answered with another status than 101.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of what it says about it, on one line.
        reason: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// What came was no handshake.
    Broken {
        /// Host and port asked for.
        host: String,
        /// The library's word for it.
        cause: String,
    },
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("not a ws:// or wss:// URL"),
            Self::Connect { host, cause } => write!(f, "no connection to {host}: {cause}"),
            Self::Timeout { host } => write!(f, "no answer from {host} in time"),
            Self::Refused { status, reason, .. } if reason.is_empty() => write!(f, "refused with {status}"),
            Self::Refused { status, reason, .. } => write!(f, "refused with {status}: {reason}"),
            Self::Broken { host, cause } => write!(f, "no WebSocket at {host}: {cause}"),
        }
    }
}

impl std::error::Error for DialError {}

/// Dials. Cheap to clone.
#[derive(Clone)]
pub struct Dialer(TlsConnector);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::with_tls(tls::client())
    }
}

impl Dialer {
    /// A dialer with TLS rules of the caller's.
    pub fn with_tls(config: ClientConfig) -> Self {
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Opens a WebSocket at `url` with these headers.
    pub async fn dial(&self, url: &str, headers: HeaderMap) -> Result<Socket, DialError> {
        let mut request = url.into_client_request().map_err(|_| DialError::Url)?;
        request.headers_mut().extend(headers);
        let (name, port, secure) = target(request.uri()).ok_or(DialError::Url)?;
        let host = format!("{name}:{port}");
        let tcp = match timeout(CONNECT, connect(&name, port)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => {
                let cause = e.to_string();
                return Err(DialError::Connect { host, cause });
            }
            Err(_) => return Err(DialError::Timeout { host }),
        };
        match timeout(HANDSHAKE, self.shake_hands(tcp, &name, secure, request, &host)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Timeout { host }),
        }
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        name: &str,
        secure: bool,
        request: Request<()>,
        host: &str,
    ) -> Result<Socket, DialError> {
        let host = || host.to_owned();
        let wire: Box<dyn Wire> = if secure {
            let name = ServerName::try_from(name.to_owned()).map_err(|_| DialError::Url)?;
            let stream = self.0.connect(name, tcp).await.map_err(|e| DialError::Connect {
                host: host(),
                cause: e.to_string(),
            })?;
            Box::new(stream)
        } else {
            Box::new(tcp)
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WAITING)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        match client_async_with_config(request, wire, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(DialError::Refused {
                status: response.status().as_u16(),
                reason: one_line(response.body().as_deref().unwrap_or_default()),
                retry_after: response.headers().get(header::RETRY_AFTER).and_then(retry_after),
            }),
            Err(e) => Err(DialError::Broken {
                host: host(),
                cause: e.to_string(),
            }),
        }
    }
}

/// Host, port and whether there is TLS.
fn target(uri: &Uri) -> Option<(String, u16, bool)> {
    let secure = match uri.scheme_str()? {
        "wss" => true,
        "ws" => false,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    (!host.is_empty()).then(|| (host.to_owned(), port, secure))
}

async fn connect(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((name, port)).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                let socket = SockRef::from(&tcp);
                let probe = TcpKeepalive::new().with_time(Duration::from_secs(15));
                socket.set_tcp_keepalive(&probe)?;
                socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
                return Ok(tcp);
            }
            Err(e) => failure = e,
        }
    }
    Err(failure)
}

/// The beginning of a text from outside, without line ends and other control characters.
pub fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_REASON)]);
    let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use http::HeaderValue;
    use rustls::{RootCertStore, ServerConfig, crypto::ring};
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    use tokio_tungstenite::{accept_async, tungstenite::Message};

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn dialer_and_server() -> (Dialer, tokio_rustls::TlsAcceptor) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = || Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (
            Dialer::with_tls(client),
            tokio_rustls::TlsAcceptor::from(Arc::new(server)),
        )
    }

    #[tokio::test]
    async fn a_socket_over_tls_carries_messages_and_an_unknown_authority_is_refused() {
        let (dialer, acceptor) = dialer_and_server();
        let (listener, port) = listener().await;
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut socket = accept_async(stream).await.unwrap();
                let message = socket.next().await.unwrap().unwrap();
                socket.send(message).await.unwrap();
            }
        });
        let url = format!("wss://localhost:{port}/path?key=hidden");
        let strange = Dialer::default().dial(&url, HeaderMap::new()).await.err().unwrap();
        assert!(matches!(strange, DialError::Connect { .. }), "{strange}");
        assert!(!strange.to_string().contains("hidden"));
        let mut socket = dialer.dial(&url, HeaderMap::new()).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    }

    #[tokio::test]
    async fn a_refusal_tells_its_status_its_reason_and_how_long_to_wait() {
        let (listener, port) = listener().await;
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let reply = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nslow\ndown";
            tcp.write_all(reply.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("hidden"))]);
        let refused = Dialer::default()
            .dial(&format!("ws://127.0.0.1:{port}/"), headers)
            .await
            .err();
        let Some(DialError::Refused {
            status, retry_after, ..
        }) = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((*status, *retry_after), (429, Some(Duration::from_secs(7))));
        assert!(!refused.unwrap().to_string().contains(['\n', '\r']));
    }

    #[tokio::test]
    async fn what_is_no_socket_is_an_error_that_says_so() {
        let dialer = Dialer::default();
        for url in ["http://localhost/", "ws:///", "", "localhost"] {
            assert_eq!(
                dialer.dial(url, HeaderMap::new()).await.err(),
                Some(DialError::Url),
                "{url}"
            );
        }
        let (gone, port) = listener().await;
        drop(gone);
        let refused = dialer
            .dial(&format!("ws://127.0.0.1:{port}/"), HeaderMap::new())
            .await
            .err();
        assert!(matches!(refused, Some(DialError::Connect { .. })), "{refused:?}");
    }
}
