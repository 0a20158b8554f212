//! `GET /debug/echo`: a WebSocket that says back whatever it is told, where `[debug] ws_echo` asks for it and for this machine alone.
//!
//! It stands on the accept path, the handshake and the framing of vendors' media sockets, so that a conformance suite for RFC 6455
//! can be pointed at them. It is no media socket: nothing is decoded, and no call is there.

use super::{
    Guarded, Shared,
    edge::Client,
    respond::Failure,
    upgrade::{handshake, switching},
};
use crate::{
    base::{settings::Section, time::Mono},
    metrics,
    net::{
        conn::Conn,
        websocket::{
            Buffers, Over, WebSocket,
            frame::{self, Limits, Message, opcode},
        },
    },
};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

/// What `[debug]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Serves `/debug/echo` to this machine.
    pub ws_echo: bool,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &Section<'_>) -> Self {
        Self {
            ws_echo: section.bool("ws_echo", Self::default().ws_echo),
        }
    }
}

/// As media sockets have them by default.
const LIMITS: Limits = Limits {
    frame: 64 * 1024,
    message: 256 * 1024,
    fragments: 64,
    gather: Duration::from_secs(5),
};
/// A socket on which nothing moves for so long is let go.
const IDLE: Duration = Duration::from_secs(60);
/// How long the peer has to answer our close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Sockets at once.
const MAX_SOCKETS: usize = 16;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A place among [`MAX_SOCKETS`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        OPEN.fetch_update(Relaxed, Relaxed, |n| (n < MAX_SOCKETS).then_some(n + 1))
            .is_ok()
            .then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

/// Upgrades the socket and echoes until it ends.
pub(super) async fn echo(State(_): State<Shared>, mut request: Request) -> Response {
    if !Client::of(request.extensions()).is_loopback() {
        return Failure::no_route().into_response();
    }
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(place) = Place::take() else {
        metrics::refused("echo_socket", "full");
        return Failure::with_status(StatusCode::SERVICE_UNAVAILABLE, "too many echo sockets").into_response();
    };
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await
            && let Ok(parts) = upgraded.downcast::<TokioIo<Guarded<Conn>>>()
        {
            let (conn, _permit) = parts.io.into_inner().into_parts();
            Echo::new(conn, &parts.read_buf).run().await;
        }
        drop(place);
    });
    switching(accept, None)
}

struct Echo {
    ws: WebSocket,
    buffers: Buffers,
    /// Frames that are yet to be written.
    said: BytesMut,
    /// We have said close, and wait for the peer's.
    closing: bool,
    /// The peer has said close, or is gone.
    gone: bool,
}

impl Echo {
    fn new(conn: Conn, read: &[u8]) -> Self {
        Self {
            ws: WebSocket::new(conn, read, LIMITS),
            buffers: Buffers::default(),
            said: BytesMut::new(),
            closing: false,
            gone: false,
        }
    }

    async fn run(mut self) {
        loop {
            let patience = match (self.closing, self.ws.is_gathering()) {
                (true, _) => CLOSE_GRACE,
                (false, true) => LIMITS.gather,
                (false, false) => IDLE,
            };
            match tokio::time::timeout(patience, poll_fn(|cx| self.turn(cx))).await {
                Ok(true) if self.ws.is_overdue(Mono::now()) => self.close(1008, "a fragmented message took too long"),
                Ok(true) => {}
                Ok(false) => return,
                Err(_) if self.closing => return,
                Err(_) => self.close(1008, "nothing came in time"),
            }
        }
    }

    fn close(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.closing, true) {
            self.ws.close(&mut self.said, code, reason);
        }
    }

    /// Writes what is owed, then reads once more; nothing is read before the peer took what was said. `false` when the socket is
    /// gone.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.said.is_empty() && self.ws.is_idle() {
            self.buffers.outbox.extend_from_slice(&self.said.split());
        }
        let owes = !self.buffers.outbox.is_empty() || !self.ws.is_idle() || self.ws.owes();
        if owes {
            match self.ws.poll_write(cx, &mut self.buffers) {
                Poll::Ready(Ok(())) => return Poll::Ready(true),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.gone {
            return Poll::Ready(false);
        }
        let said = &mut self.said;
        let read = self
            .ws
            .poll_read(cx, Mono::now(), &mut self.buffers, |message| match message {
                Message::Text(text) => frame::put(said, opcode::TEXT, text.as_bytes(), None),
                Message::Binary(bytes) => frame::put(said, opcode::BINARY, bytes, None),
                Message::Ping(_) | Message::Pong | Message::Close(_) => {}
            });
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Over::Closed)) => self.gone = true,
            Poll::Ready(Err(Over::Violation(v))) => self.close(v.code, v.reason),
        }
        Poll::Ready(true)
    }
}
