//! Links to speech services: how one is reached, how long it may be silent, and what its failures mean.
//!
//! A [`Service`] is one configured backend: its address, key, patience and circuit breaker. A [`Link`] is one WebSocket to it, which
//! pings, and counts as dead when nothing at all comes back in time. Reconnecting is the ear's and the mouth's: they know what must be
//! said again. Messages name the service and the key of the configuration, never a secret, a URL or words.

mod breaker;
mod spare;

pub use breaker::Breaker;
pub use spare::{Spare, Spares};

use super::{stt::SttError, tts::TtsError};
use crate::{
    base::{
        secret::Secret,
        settings::{Section, show_duration},
    },
    metrics,
    net::{
        client::{ApiRequest, ClientError, HttpClient, Reply},
        dial::{DialError, Dialer, Socket, one_line},
    },
    wire::form::percent_encode,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// How long a message may take to be written.
const WRITE_STALL: Duration = Duration::from_secs(3);

/// Messages with which a service greets, at most.
const GREETING: usize = 4;

/// How long a close may take.
const CLOSE: Duration = Duration::from_secs(2);

/// Why a service did not do what it was asked. Both carry a sentence that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It never will, asked like this: the key, the account or the request is wrong.
    Refused(String),
    /// It may another time: it is away, overloaded, silent, or broke off.
    Lost(String),
}

impl From<LinkError> for SttError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(m) => Self::Refused(m),
            LinkError::Lost(m) => Self::Lost(m),
        }
    }
}

impl From<LinkError> for TtsError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(m) => Self::Refused(m),
            LinkError::Lost(m) => Self::Lost(m),
        }
    }
}

/// A configured service.
#[derive(Clone)]
pub struct Service {
    /// Its name for people.
    pub name: &'static str,
    /// Its section of the configuration.
    pub section: String,
    /// Scheme, host and path prefix, without a trailing slash.
    url: String,
    /// The credential.
    pub key: Option<Secret>,
    /// Time between pings on a WebSocket.
    ping_every: Duration,
    /// A WebSocket on which nothing came for this long is dead.
    silence: Duration,
    breaker: Arc<Breaker>,
    /// Sockets that wait to be used.
    pub spares: Arc<Spares>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name)
            .field("url", &self.url)
            .field("key", &self.key)
            .field("ping_every", &self.ping_every)
            .field("silence", &self.silence)
            .finish()
    }
}

impl Service {
    /// Reads `url`, `key`, `ping_every` and `silence` of the section of a backend behind WebSockets.
    pub fn read(section: &Section<'_>, name: &'static str, url: &str) -> Self {
        Self::read_http(section, name, url).with_heartbeat(section)
    }

    /// Reads `url` and `key` of the section of a backend behind HTTP.
    pub fn read_http(section: &Section<'_>, name: &'static str, url: &str) -> Self {
        let service = Self::at(section, name, url);
        let key = section.secret("key");
        Self { key, ..service }
    }

    /// Reads `url`, `ping_every` and `silence` of the section of a backend behind WebSockets that asks for no key.
    pub fn read_open(section: &Section<'_>, name: &'static str, url: &str) -> Self {
        Self::at(section, name, url).with_heartbeat(section)
    }

    fn with_heartbeat(self, section: &Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        let ping_every = section.duration("ping_every", seconds(1), Duration::from_millis(20)..=seconds(60));
        let silence = section.duration("silence", seconds(4), Duration::from_millis(100)..=seconds(120));
        if silence < ping_every * 2 {
            let least = show_duration(ping_every * 2);
            section.fault(
                "silence",
                "too short for an answer to a ping to come",
                format!("at least {least}"),
            );
        }
        Self {
            ping_every,
            silence,
            ..self
        }
    }

    fn at(section: &Section<'_>, name: &'static str, url: &str) -> Self {
        let path = section.key("");
        Self {
            name,
            section: path.trim_end_matches('.').to_owned(),
            url: endpoint(section, url),
            key: None,
            ping_every: Duration::MAX,
            silence: Duration::MAX,
            breaker: Arc::default(),
            spares: Arc::default(),
        }
    }

    /// The same with another account: its health and its sockets are its own.
    pub fn with_key(&self, key: &Secret) -> Self {
        Self {
            key: Some(key.clone()),
            breaker: Arc::default(),
            spares: Arc::default(),
            ..self.clone()
        }
    }

    /// What to write so that there is a key; nothing where there is one.
    pub fn lacks_key(&self, variable: &str) -> Option<String> {
        let section = &self.section;
        self.key
            .is_none()
            .then(|| format!("set {section}.key, or the environment variable {variable}"))
    }

    /// The key as a header's value behind `prefix`, marked as secret.
    pub fn credential(&self, header: HeaderName, prefix: &str) -> Result<HeaderMap, LinkError> {
        let section = &self.section;
        let key = self.key.as_ref().ok_or_else(|| {
            LinkError::Refused(format!("{} cannot be used without a key: set {section}.key", self.name))
        })?;
        let mut value = HeaderValue::try_from(format!("{prefix}{}", key.expose()))
            .map_err(|_| LinkError::Refused(format!("{section}.key holds characters that no key has")))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(header, value)]))
    }

    /// The same where a key need not be: on one's own machine.
    pub fn credential_if_any(&self, header: HeaderName, prefix: &str) -> Result<HeaderMap, LinkError> {
        match self.key {
            Some(_) => self.credential(header, prefix),
            None => Ok(HeaderMap::new()),
        }
    }

    /// Whether it is this host.
    pub fn is_at(&self, host: &str) -> bool {
        self.url.parse::<Uri>().is_ok_and(|u| u.host() == Some(host))
    }

    /// `path` under the base URL, as a WebSocket's URL.
    pub fn socket_url(&self, path: &str) -> String {
        let rest = self.url.strip_prefix("http").unwrap_or(&self.url);
        format!("ws{rest}{path}")
    }

    /// `path` under the base URL.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// A sentence about it.
    pub fn lost(&self, what: impl fmt::Display) -> LinkError {
        LinkError::Lost(format!("{} {what}", self.name))
    }

    /// Whether it may be tried now.
    fn admit(&self) -> Result<(), LinkError> {
        self.breaker.admit(Instant::now()).map_err(|left| {
            let seconds = left.as_secs() + 1;
            self.lost(format_args!("failed too often and is tried again in {seconds} s"))
        })
    }

    /// Books that it does what it is for: a handshake alone proves nothing.
    pub fn works(&self) {
        self.breaker.succeeded();
    }

    /// Books a failure that says something about the service's health.
    fn failed(&self) {
        self.breaker.failed(Instant::now());
    }

    /// What a status other than success means.
    fn refusal(&self, status: u16, reason: &str, retry_after: Option<Duration>) -> LinkError {
        let (name, section) = (self.name, &self.section);
        let because = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        match status {
            401 | 403 => LinkError::Refused(format!(
                "{name} does not accept the key ({status}): check {section}.key"
            )),
            402 => LinkError::Refused(format!(
                "{name} wants to be paid first (402): see to the account's credit"
            )),
            429 => {
                self.failed();
                if let Some(long) = retry_after {
                    self.breaker.hold(Instant::now(), long);
                }
                self.lost("is asked too much at once (429)")
            }
            408 | 500.. => {
                self.failed();
                if let Some(long) = retry_after {
                    self.breaker.hold(Instant::now(), long);
                }
                self.lost(format_args!("is out of order ({status}){because}"))
            }
            _ => LinkError::Refused(format!("{name} refused the request ({status}){because}")),
        }
    }

    /// Opens a WebSocket.
    pub async fn dial(&self, dialer: &Dialer, path: &str, headers: HeaderMap) -> Result<Link<'_>, LinkError> {
        self.admit()?;
        match dialer.dial(&self.socket_url(path), headers).await {
            Ok(socket) => {
                let now = Instant::now();
                Ok(Link {
                    service: self,
                    line: Line {
                        socket,
                        held: VecDeque::new(),
                        heard: now,
                        pinged: now,
                    },
                })
            }
            Err(DialError::Refused {
                status,
                reason,
                retry_after,
            }) => Err(self.refusal(status, &reason, retry_after)),
            Err(DialError::Url) => Err(LinkError::Refused(format!(
                "{}.url is no URL that can be dialled",
                self.section
            ))),
            Err(error) => {
                self.failed();
                Err(self.lost(format_args!("cannot be reached: {error}")))
            }
        }
    }

    /// Goes on with a WebSocket that was put aside.
    pub fn resume(&self, mut line: Line) -> Link<'_> {
        line.heard = Instant::now();
        Link { service: self, line }
    }

    /// Posts a request; returns once the head of a reply of success is there, within `patience`.
    pub async fn post(
        &self,
        client: &HttpClient,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        patience: Duration,
    ) -> Result<Reply, LinkError> {
        self.admit()?;
        let request = ApiRequest {
            method: http::Method::POST,
            url: self.url(path),
            headers,
            body,
            timeout: patience,
        };
        match client.begin(request).await {
            Ok(reply) if reply.status() == 200 => Ok(reply),
            Ok(mut reply) => {
                let body = timeout(Duration::from_secs(1), reply.next()).await;
                let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
                Err(self.refusal(reply.status(), &one_line(&body), reply.retry_after()))
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// What a failed request means.
    pub fn broken(&self, error: &ClientError) -> LinkError {
        if matches!(error, ClientError::Url) {
            return LinkError::Refused(format!("{}.url is no URL that can be asked", self.section));
        }
        self.failed();
        self.lost(format_args!("did not answer: {error}"))
    }

    /// It was too slow.
    pub fn late(&self, what: &str, patience: Duration) -> LinkError {
        self.failed();
        self.lost(format_args!("gave no {what} within {patience:?}"))
    }

    /// It says what its protocol does not have. `what` is fixed text.
    pub fn strange(&self, what: &str) -> LinkError {
        self.failed();
        metrics::dropped("backend_message", "unreadable", 1);
        self.lost(format_args!("does not speak its protocol: {what}"))
    }

    /// A WebSocket broke.
    fn broke(&self, cause: impl fmt::Display) -> LinkError {
        self.failed();
        self.lost(format_args!("broke the connection: {cause}"))
    }

    /// It closed a WebSocket.
    pub fn closed(&self, code: u16, reason: &str) -> LinkError {
        self.failed();
        let because = if reason.is_empty() { "" } else { ": " };
        self.lost(format_args!("closed the connection ({code}){because}{reason}"))
    }
}

/// The base URL under `url`: with a scheme for HTTP or WebSockets, which stand for each other.
fn endpoint(section: &Section<'_>, default: &str) -> String {
    let written = section.text("url", default);
    let url = match written.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => written.clone(),
    };
    let is_base = url.parse::<Uri>().is_ok_and(|u| {
        matches!(u.scheme_str(), Some("http" | "https"))
            && u.host().is_some_and(|h| !h.is_empty())
            && u.authority().is_some_and(|a| !a.as_str().contains('@'))
            && u.query().is_none()
    });
    if !is_base || url.contains('#') {
        let hint = "https:// or wss://, a host, no user, no query";
        section.fault("url", format!("{written:?} is not a base URL"), hint);
    }
    url.trim_end_matches('/').to_owned()
}

/// What came on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// The service closed. Nothing follows.
    Closed {
        /// RFC 6455 §7.4 code; 1005 where there was none.
        code: u16,
        /// Its reason, on one line.
        reason: String,
    },
}

/// A WebSocket that may be put aside for later.
pub struct Line {
    socket: Socket,
    /// What it said while nobody used it.
    held: VecDeque<Frame>,
    /// When something last came.
    heard: Instant,
    pinged: Instant,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// A WebSocket in use.
#[derive(Debug)]
pub struct Link<'a> {
    /// To whom.
    pub service: &'a Service,
    line: Line,
}

impl Link<'_> {
    /// Writes a message.
    pub async fn send(&mut self, message: Message) -> Result<(), LinkError> {
        match timeout(WRITE_STALL, self.line.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.service.broke(error)),
            Err(_) => Err(self.service.broke("it does not read what it is sent")),
        }
    }

    /// The next message. Pings meanwhile, and fails when nothing at all comes for too long. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        if let Some(frame) = self.line.held.pop_front() {
            return Ok(frame);
        }
        loop {
            let (ping_at, dead_at) = (
                self.line.pinged + self.service.ping_every,
                self.line.heard + self.service.silence,
            );
            let message = tokio::select! {
                biased;
                message = self.line.socket.next() => message,
                () = tokio::time::sleep_until(dead_at) => {
                    self.service.failed();
                    let silence = self.service.silence;
                    return Err(self.service.lost(format_args!("is silent: nothing came for {silence:?}")));
                }
                () = tokio::time::sleep_until(ping_at) => {
                    self.line.pinged = Instant::now();
                    self.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            self.line.heard = Instant::now();
            return Ok(match message {
                Some(Ok(Message::Text(text))) => Frame::Text(text),
                Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes),
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |f| {
                        (u16::from(f.code), one_line(f.reason.as_bytes()))
                    });
                    Frame::Closed { code, reason }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => return Err(self.service.broke(error)),
                None => return Err(self.service.broke("it is at its end")),
            });
        }
    }

    /// Puts it aside.
    pub fn set_aside(self) -> Line {
        self.line
    }

    /// Says goodbye, beside whatever follows.
    pub fn close(self) {
        let mut socket = self.line.socket;
        tokio::task::spawn_local(async move {
            let _ = timeout(CLOSE, socket.close(None)).await;
        });
    }
}

impl Line {
    /// Whether it is still open and has nothing to say, as one that is put aside should be. A few texts of a `fresh` one are kept
    /// for who will use it: some services greet.
    pub(in crate::speech) fn is_quiet(&mut self, fresh: bool) -> bool {
        loop {
            match self.socket.next().now_or_never() {
                None => return true,
                Some(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Some(Some(Ok(Message::Text(text)))) if fresh && self.held.len() < GREETING => {
                    self.held.push_back(Frame::Text(text));
                }
                Some(_) => return false,
            }
        }
    }

    /// Says something small without waiting. Whether it went out.
    fn nudge(&mut self, message: Message) -> bool {
        matches!(self.socket.send(message).now_or_never(), Some(Ok(())))
    }
}

/// A path with a query.
pub fn with_query(path: &str, pairs: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (n, (key, value)) in pairs.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out += &format!("{key}={}", percent_encode(value));
    }
    out
}
