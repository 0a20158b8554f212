//! Stands between a connection and the HTTP library: heads that are late, too big or ambiguous are answered here in the one
//! shape of errors, and a peer that does not take its answer is let go.
//!
//! The library knows none of these answers: it closes, or says a bare status. After an upgrade the guard only passes bytes on.

use super::{
    Config,
    framing::{Bounds, Framing, Refusal},
    respond::Failure,
};
use crate::{metrics, net::listen::Permit};
use http::StatusCode;
use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a refused peer may take to read why, and how much of what it still sends is read meanwhile: closing on unread
/// bytes would take the answer back.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// A guarded connection.
#[derive(Debug)]
pub struct Guarded<I> {
    io: I,
    framing: Framing,
    head_timeout: Duration,
    write_stall: Duration,
    /// Until when the head at hand must be whole.
    head: Option<Pin<Box<Sleep>>>,
    /// Until when the peer must take something.
    write: Option<Pin<Box<Sleep>>>,
    /// Requests whose answers are under way or gone.
    answered: Arc<AtomicUsize>,
    refused: Option<Goodbye>,
    upgraded: bool,
    /// The socket's place, kept until it closes, whoever has it by then.
    permit: Option<Permit>,
}

/// An answer that is ours, and the end.
#[derive(Debug)]
struct Goodbye {
    answer: Vec<u8>,
    sent: usize,
    shut: bool,
    read: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl<I> Guarded<I> {
    /// Guards a connection that has just been accepted. `answered` counts the requests that the service has answered.
    pub(super) fn new(io: I, config: &Config, answered: Arc<AtomicUsize>, permit: Option<Permit>) -> Self {
        let bounds = Bounds {
            head: config.header_bytes,
            line: config.line_bytes,
            headers: config.headers,
        };
        Self {
            io,
            framing: Framing::new(bounds),
            head_timeout: config.header_timeout,
            write_stall: config.write_stall,
            head: Some(Box::pin(sleep(config.header_timeout))),
            write: None,
            answered,
            refused: None,
            upgraded: false,
            permit,
        }
    }

    /// The connection itself and its place among sockets, for who takes it over after an upgrade.
    pub fn into_parts(self) -> (I, Option<Permit>) {
        (self.io, self.permit)
    }

    fn refuse(&mut self, why: Refusal) {
        let (status, message) = match why {
            Refusal::Slow => (StatusCode::REQUEST_TIMEOUT, "the request did not come in time"),
            Refusal::LongLine => (StatusCode::URI_TOO_LONG, "the URL is too long"),
            Refusal::LongHead => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the headers are too long or too many",
            ),
            Refusal::Malformed => (
                StatusCode::BAD_REQUEST,
                "the head of the request is not well-formed HTTP/1.1",
            ),
            Refusal::Length => (
                StatusCode::BAD_REQUEST,
                "the length of the body is ambiguous: one Content-Length, or Transfer-Encoding: chunked",
            ),
        };
        metrics::refused("request", if why == Refusal::Slow { "slow" } else { "head" });
        self.head = None;
        self.refused = Some(Goodbye {
            answer: Failure::with_status(status, message).to_http(),
            sent: 0,
            shut: false,
            read: 0,
            until: None,
        });
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Guarded<I> {
    /// Says why, closes, and reads what is still under way. Ready when the connection is over.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(goodbye) = &mut self.refused else {
            return Poll::Ready(Ok(()));
        };
        let until = goodbye.until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while goodbye.sent < goodbye.answer.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &goodbye.answer[goodbye.sent..])) {
                Ok(n) if n > 0 => goodbye.sent += n,
                _ => return Poll::Ready(Ok(())),
            }
        }
        if !goodbye.shut {
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            goodbye.shut = true;
        }
        let mut scrap = [0; 4096];
        while goodbye.read < LINGER_BYTES {
            let mut scrap = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut scrap));
            if read.is_err() || scrap.filled().is_empty() {
                break;
            }
            goodbye.read += scrap.filled().len();
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at what was read behind `before`, and takes back what must not be seen.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let fed = self.framing.feed(&buf.filled()[before..]);
        match fed {
            Ok(()) if self.framing.is_in_head() => {
                let timeout = self.head_timeout;
                self.head.get_or_insert_with(|| Box::pin(sleep(timeout)));
            }
            Ok(()) => {
                if self.framing.heads() > 0 {
                    self.head = None;
                }
            }
            Err(refused) => {
                buf.set_filled(before + refused.good);
                self.refuse(refused.why);
            }
        }
    }

    /// Fails a write that has made no progress for too long.
    fn stalled<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() || self.upgraded {
            self.write = None;
            return polled;
        }
        let stall = self.write_stall;
        let until = self.write.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(until.as_mut().poll(cx));
        metrics::refused("request", "stalled");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Notices the answer to an upgrade that was taken.
    fn watch(&mut self, answer: &[u8]) {
        if !self.upgraded && answer.starts_with(b"HTTP/1.1 101 ") {
            self.upgraded = true;
            self.framing.stop();
            self.head = None;
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.upgraded {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        if this.refused.is_none() {
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > before => {
                    this.look(buf, before);
                    if buf.filled().len() > before || this.refused.is_none() {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    let late = this.head.as_mut().map(|head| head.as_mut().poll(cx));
                    if late.is_none_or(|late| late.is_pending()) {
                        return Poll::Pending;
                    }
                    this.refuse(Refusal::Slow);
                }
            }
        }
        // What was asked before is answered before; its answer wakes whoever reads.
        if this.answered.load(Relaxed) < this.framing.heads() {
            return Poll::Pending;
        }
        this.say_goodbye(cx)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch(buf);
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.stalled(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch(bufs.first().map_or(&[], |b| &**b));
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.stalled(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.stalled(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn guarded(io: DuplexStream) -> Guarded<DuplexStream> {
        Guarded::new(io, &Config::default(), Arc::default(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_let_go_and_a_slow_one_is_not() {
        let (near, mut far) = duplex(1000);
        let mut near = guarded(near);
        let slow = async {
            let mut buf = [0; 1000];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                far.read_exact(&mut buf).await.unwrap();
            }
            far
        };
        let (sent, far) = tokio::join!(near.write_all(&[b'x'; 6000]), slow);
        sent.unwrap();
        let error = near.write_all(&[b'x'; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_upgrade_bytes_pass_as_they_are() {
        let (near, mut far) = duplex(100_000);
        let mut near = guarded(near);
        far.write_all(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let mut buf = [0; 64];
        let _ = near.read(&mut buf).await.unwrap();
        near.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let frames = "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: x\r\n\r\n".repeat(1000);
        far.write_all(frames.as_bytes()).await.unwrap();
        let mut got = vec![0; frames.len()];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(got, frames.as_bytes());
    }
}
