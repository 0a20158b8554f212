//! A server-side TCP connection, plain or TLS, that can leave one runtime's reactor and join another's.
//!
//! hyper accepts and upgrades on the control runtime; the upgraded socket then belongs to a media thread.
//! [`Conn::park`] deregisters it where it was, [`Conn::adopt`] registers it with the current runtime; the TLS session is untouched.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A TCP stream in or between reactors.
#[derive(Debug)]
pub enum Slot {
    /// Registered with a reactor.
    Live(TcpStream),
    /// Between reactors; reads and writes fail.
    Parked(std::net::TcpStream),
    /// Lost to a failed move.
    Gone,
}

impl Slot {
    fn park(&mut self) -> io::Result<()> {
        if let Self::Live(s) = std::mem::replace(self, Self::Gone) {
            *self = Self::Parked(s.into_std()?);
        }
        Ok(())
    }

    fn adopt(&mut self) -> io::Result<()> {
        if let Self::Parked(s) = std::mem::replace(self, Self::Gone) {
            *self = Self::Live(TcpStream::from_std(s)?);
        }
        Ok(())
    }

    fn live(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Live(s) => Ok(Pin::new(s)),
            Self::Parked(_) | Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Slot {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.live()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Slot {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.live()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.live()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.live()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.live()?.poll_shutdown(cx)
    }
}

/// An accepted connection.
#[derive(Debug)]
pub enum Conn {
    /// Plain TCP.
    Plain(Slot),
    /// TLS over TCP.
    Tls(Box<TlsStream<Slot>>),
}

impl Conn {
    /// A plain connection.
    pub const fn plain(stream: TcpStream) -> Self {
        Self::Plain(Slot::Live(stream))
    }

    fn slot(&mut self) -> &mut Slot {
        match self {
            Self::Plain(s) => s,
            Self::Tls(t) => t.get_mut().0,
        }
    }

    /// Leaves the reactor. Must be called on the runtime that owns it.
    pub fn park(&mut self) -> io::Result<()> {
        self.slot().park()
    }

    /// Joins the current runtime's reactor.
    pub fn adopt(&mut self) -> io::Result<()> {
        self.slot().adopt()
    }

    /// Closes the socket; reads and writes fail from now on.
    pub fn close(&mut self) {
        *self.slot() = Slot::Gone;
    }
}

macro_rules! forward {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Conn::Plain(s) => {
                let $io = Pin::new(s);
                $call
            }
            Conn::Tls(t) => {
                let $io = Pin::new(&mut **t);
                $call
            }
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_shutdown(cx))
    }
}
