//! Holds a client's fragmented messages to a number of fragments and a time (RFC 6455 §5.4), which the WebSocket library does not.
//!
//! It looks at the heads of frames as bytes pass and changes none. What breaks a bound ends the reading with an error that
//! [`Broken::of`] finds again.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Which bound was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A message in too many fragments.
    Many,
    /// A fragmented message that was not finished in time.
    Slow,
}

impl Broken {
    /// The bound whose breaking an I/O error reports.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Many => "a message in too many fragments",
            Self::Slow => "a fragmented message took too long",
        })
    }
}

impl Error for Broken {}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::other(broken)
    }
}

/// The frames in a stream of bytes. Pure.
#[derive(Debug, Default)]
struct Frames {
    /// The head at hand: at most 14 bytes, of a mask too.
    head: [u8; 14],
    have: usize,
    /// Bytes of the payload at hand that are still to come.
    payload: u64,
    /// Fragments of the message at hand; 0 when there is none, or it is not fragmented.
    fragments: u32,
}

impl Frames {
    /// Reads what came next. Returns the most fragments that a message at hand had.
    fn feed(&mut self, mut new: &[u8]) -> u32 {
        let mut most = self.fragments;
        while !new.is_empty() {
            let skipped = new.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= skipped as u64;
            new = &new[skipped..];
            let Some((byte, rest)) = new.split_first() else { break };
            new = rest;
            self.head[self.have] = *byte;
            self.have += 1;
            if self.have == Self::length(self.head) {
                self.frame();
                most = most.max(self.fragments);
            }
        }
        most
    }

    /// Length of the whole head, as far as its bytes say it: what is not there yet counts for little.
    const fn length(head: [u8; 14]) -> usize {
        let extended = match head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn frame(&mut self) {
        let mut wide = [0; 8];
        self.payload = match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                wide.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(wide)
            }
            n => u64::from(n),
        };
        let (last, opcode) = (self.head[0] & 0x80 != 0, self.head[0] & 0x0f);
        // Control frames stand between fragments and are none.
        if opcode < 8 {
            self.fragments = if last { 0 } else { self.fragments + 1 };
        }
        (self.head, self.have) = ([0; 14], 0);
    }
}

/// A connection whose fragmented messages are bounded.
#[derive(Debug)]
pub(super) struct Fragments<S> {
    io: S,
    frames: Frames,
    most: u32,
    patience: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Fragments<S> {
    /// At most `most` fragments a message, the last within `patience` of the first.
    pub(super) fn new(io: S, most: u32, patience: Duration) -> Self {
        Self {
            io,
            frames: Frames::default(),
            most,
            patience,
            until: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fragments<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_ready() {
            // The last fragment counts too.
            if this.frames.feed(&buf.filled()[before..]) >= this.most {
                return Poll::Ready(Err(Broken::Many.into()));
            }
            if this.frames.fragments == 0 {
                this.until = None;
            }
        }
        if this.frames.fragments > 0 {
            let patience = this.patience;
            let until = this.until.get_or_insert_with(|| Box::pin(sleep(patience)));
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Broken::Slow.into()));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fragments<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame of `payload` bytes.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut out = vec![first];
        match payload {
            0..=125 => out.push(0x80 | payload as u8),
            126..=0xffff => {
                out.push(0x80 | 126);
                out.extend((payload as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend((payload as u64).to_be_bytes());
            }
        }
        out.extend([0xff; 4]);
        out.resize(out.len() + payload, 0x01);
        out
    }

    const TEXT: u8 = 0x81;
    const BEGIN: u8 = 0x01;
    const MORE: u8 = 0x00;
    const END: u8 = 0x80;
    const PING: u8 = 0x89;

    #[test]
    fn fragments_are_counted_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = [
            frame(TEXT, 5),
            frame(BEGIN, 300),
            frame(PING, 3),
            frame(MORE, 0),
            frame(MORE, 70_000),
            frame(END, 126),
            frame(TEXT, 0),
            frame(BEGIN, 1),
            frame(END, 1),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 100, bytes.len()] {
            let mut frames = Frames::default();
            let most = bytes.chunks(piece).map(|b| frames.feed(b)).max();
            assert_eq!(
                (most, frames.fragments, frames.have),
                (Some(3), 0, 0),
                "pieces of {piece}"
            );
        }
        let mut frames = Frames::default();
        frames.feed(&frame(BEGIN, 1));
        frames.feed(&frame(MORE, 1));
        assert_eq!(frames.fragments, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unfinished_message_ends_the_reading_in_time() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Fragments::new(near, 64, Duration::from_secs(5));
        let mut buf = [0; 100];
        far.write_all(&frame(BEGIN, 1)).await.unwrap();
        let _ = near.read(&mut buf).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        far.write_all(&frame(MORE, 1)).await.unwrap();
        let _ = near.read(&mut buf).await.unwrap();
        let error = near.read(&mut buf).await.unwrap_err();
        assert_eq!(Broken::of(&error), Some(Broken::Slow));
    }
}
