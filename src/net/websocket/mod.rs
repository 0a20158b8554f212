//! The server's end of a media WebSocket: frames read in place from a buffer that all sockets of a thread share.
//!
//! A socket owns bytes only while a frame is torn between two reads, or while the kernel has not taken what was written; so
//! thousands of idle sockets cost next to nothing, and the shared buffers stay in cache. The handshake is the HTTP server's.

pub mod frame;

use super::conn::Conn;
use crate::base::time::Mono;
use bytes::{Buf, BytesMut};
use frame::{Limits, MAX_CONTROL, Message, Reader, Step, Violation, opcode};
use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What one read may bring: some tens of frames.
const INBOX: usize = 16 * 1024;
/// What a turn's frames usually need.
const OUTBOX: usize = 16 * 1024;
/// Capacity that a socket may keep for its next torn frame.
const KEEP: usize = 4 * 1024;

/// Buffers of one thread, lent to whichever socket has the turn.
#[derive(Debug)]
pub struct Buffers {
    inbox: Box<[u8]>,
    /// Frames to be written; empty between turns.
    pub outbox: BytesMut,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            inbox: vec![0; INBOX].into(),
            outbox: BytesMut::with_capacity(OUTBOX),
        }
    }
}

/// Why nothing more will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The peer said close, or is gone.
    Closed,
    /// The peer broke a rule, and is to be told so.
    Violation(Violation),
}

/// One socket.
#[derive(Debug)]
pub struct WebSocket {
    conn: Conn,
    listener: Listener,
    /// Received and not yet whole: the beginning of a frame, or at first what came with the handshake.
    torn: Vec<u8>,
    /// Nothing has been read yet.
    fresh: bool,
    /// What the kernel did not take.
    unsent: BytesMut,
    /// Bytes may wait inside the TLS session.
    flush: bool,
}

impl WebSocket {
    /// A socket whose handshake is done; `read` came behind it.
    pub fn new(conn: Conn, read: &[u8], limits: Limits) -> Self {
        Self {
            conn,
            listener: Listener {
                reader: Reader::new(limits),
                answer: Answer::None,
                deaf: false,
                said: false,
            },
            torn: read.to_vec(),
            fresh: true,
            unsent: BytesMut::new(),
            flush: false,
        }
    }

    /// Reads once, and gives every message that is then whole to `hear`. `Pending` when nothing has come.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Mono,
        buffers: &mut Buffers,
        hear: impl FnMut(Message<'_>),
    ) -> Poll<Result<(), Over>> {
        if self.torn.is_empty() {
            let mut buf = ReadBuf::new(&mut buffers.inbox);
            let read = ready!(Pin::new(&mut self.conn).poll_read(cx, &mut buf));
            let n = buf.filled().len();
            if read.is_err() || n == 0 {
                return Poll::Ready(Err(Over::Closed));
            }
            let received = &mut buffers.inbox[..n];
            let used = self.listener.take_in(now, received, hear)?;
            self.torn.extend_from_slice(&received[used..]);
        } else {
            if !std::mem::take(&mut self.fresh) {
                // No more than as much again as has come: nothing is reserved for what a header only announces.
                self.torn.reserve(self.torn.len().max(512));
                let read = ready!(pin!(self.conn.read_buf(&mut self.torn)).poll(cx));
                if !matches!(read, Ok(1..)) {
                    return Poll::Ready(Err(Over::Closed));
                }
            }
            let used = self.listener.take_in(now, &mut self.torn, hear)?;
            self.torn.drain(..used);
            if self.torn.is_empty() && self.torn.capacity() > KEEP {
                self.torn = Vec::new();
            }
        }
        self.fresh = false;
        Poll::Ready(Ok(()))
    }

    /// Whether the rest of a fragmented message is awaited, so that time must be watched.
    pub fn is_gathering(&self) -> bool {
        self.listener.reader.is_gathering()
    }

    /// Whether the rest of a fragmented message is overdue.
    pub fn is_overdue(&self, now: Mono) -> bool {
        self.listener.reader.is_overdue(now)
    }

    /// Whether everything written so far is in the kernel's hands, so that more may be written.
    pub fn is_idle(&self) -> bool {
        self.unsent.is_empty() && !self.flush
    }

    /// Closes the connection without a word.
    pub fn disconnect(&mut self) {
        self.conn.close();
    }

    /// Whether a ping or a close waits for its answer.
    pub fn owes(&self) -> bool {
        !matches!(self.listener.answer, Answer::None)
    }

    /// Appends a ping to `out`, without a payload.
    pub fn ping(out: &mut BytesMut) {
        frame::put(out, opcode::PING, &[], None);
    }

    /// Appends a close frame to `out`; the peer's own is not answered then.
    pub fn close(&mut self, out: &mut BytesMut, code: u16, reason: &str) {
        self.listener.said = true;
        frame::put_close(out, code, reason);
    }

    /// Writes `buffers.outbox`, behind the answer that a ping or a close is owed, and empties it. To be given frames only when
    /// [`WebSocket::is_idle`]. `Ready` when the kernel has it all, `Pending` with a wake-up to come otherwise.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(Pin::new(&mut self.conn).poll_write(cx, &self.unsent))?;
            self.unsent.advance(n);
            self.flush = true;
        }
        self.listener.answer(&mut buffers.outbox);
        let written = self.write_out(cx, &buffers.outbox);
        // Whatever became of it: what one socket leaves here the next would send to somebody else.
        buffers.outbox.clear();
        if written?.is_pending() {
            return Poll::Pending;
        }
        if self.flush {
            ready!(Pin::new(&mut self.conn).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the kernel what it takes of `out`, and keeps the rest.
    fn write_out(&mut self, cx: &mut Context<'_>, mut out: &[u8]) -> io::Result<Poll<()>> {
        while !out.is_empty() {
            match Pin::new(&mut self.conn).poll_write(cx, out)? {
                Poll::Ready(n) => out = &out[n..],
                Poll::Pending => {
                    self.unsent = BytesMut::from(out);
                    return Ok(Poll::Pending);
                }
            }
            self.flush = true;
        }
        Ok(Poll::Ready(()))
    }
}

/// The protocol's side of reading.
#[derive(Debug)]
struct Listener {
    reader: Reader,
    answer: Answer,
    /// A rule was broken or the end was said: what else arrives is thrown away.
    deaf: bool,
    /// We have said close.
    said: bool,
}

/// What the peer is owed. Only the latest ping must be answered (RFC 6455 §5.5.3), and nothing follows a close.
#[derive(Debug)]
enum Answer {
    None,
    Pong { len: u8, payload: [u8; MAX_CONTROL] },
    Close(Option<u16>),
}

impl Listener {
    /// Tells every whole message in `buf` and returns how many bytes they used.
    fn take_in(&mut self, now: Mono, buf: &mut [u8], mut hear: impl FnMut(Message<'_>)) -> Result<usize, Over> {
        let mut used = 0;
        while !self.deaf {
            match self.reader.next(now, &mut buf[used..]) {
                Ok(Step::Needs(_)) => return Ok(used),
                Ok(Step::Gathered(n)) => used += n,
                Ok(Step::Message(n, message)) => {
                    used += n;
                    match message {
                        Message::Ping(bytes) if !matches!(self.answer, Answer::Close(_)) => {
                            let mut payload = [0; MAX_CONTROL];
                            payload[..bytes.len()].copy_from_slice(bytes);
                            self.answer = Answer::Pong {
                                len: bytes.len() as u8,
                                payload,
                            };
                        }
                        Message::Close(code) => {
                            self.deaf = true;
                            if !self.said {
                                self.answer = Answer::Close(code);
                            }
                            return Err(Over::Closed);
                        }
                        _ => {}
                    }
                    hear(message);
                }
                Err(violation) => {
                    self.deaf = true;
                    return Err(Over::Violation(violation));
                }
            }
        }
        Ok(buf.len())
    }

    /// Appends what is owed.
    fn answer(&mut self, out: &mut BytesMut) {
        match std::mem::replace(&mut self.answer, Answer::None) {
            Answer::None => {}
            Answer::Pong { len, payload } => {
                frame::put(out, opcode::PONG, &payload[..usize::from(len)], None);
            }
            Answer::Close(Some(code)) => frame::put_close(out, code, ""),
            Answer::Close(None) => frame::put(out, opcode::CLOSE, &[], None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn what_one_socket_could_not_write_never_reaches_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let limits = Limits {
            frame: 1000,
            message: 1000,
            fragments: 4,
            gather: Duration::from_secs(5),
        };
        let mut socket = WebSocket::new(Conn::plain(server), &[], limits);
        let mut buffers = Buffers::default();
        // A reset, as of a peer that vanished with bytes unread.
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        let mut failed = false;
        for _ in 0..1000 {
            frame::put(&mut buffers.outbox, opcode::TEXT, b"for the first caller only", None);
            let written = poll_fn(|cx| Poll::Ready(socket.poll_write(cx, &mut buffers))).await;
            assert!(buffers.outbox.is_empty(), "{written:?}");
            failed |= matches!(written, Poll::Ready(Err(_)));
            if failed {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(failed, "the peer's reset was never seen");
    }
}
