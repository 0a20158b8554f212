//! The yardstick of the benches: the least that an echo over WebSocket can do on tokio. One thread, one task per socket, frames
//! by hand, payload copied back, nothing parsed.

use super::frames::{self, CLOSE};
use bytes::{Buf, BytesMut};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves for ever on the current thread. `bound` is told the address.
pub fn serve(listen: SocketAddr, bound: impl FnOnce(SocketAddr)) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async move {
            let listener = TcpListener::bind(listen).await?;
            bound(listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    // A socket that breaks ends its own echo; the load generator sees and counts it.
                    let _ = echo(stream).await;
                });
            }
        })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = frames::accept(&mut stream).await?;
    inbox.reserve(4096);
    let mut outbox = BytesMut::with_capacity(4096);
    loop {
        while let Some(frame) = frames::next(&mut inbox)? {
            frames::put(&mut outbox, frame.opcode, &inbox[frame.begin..frame.end], None);
            inbox.advance(frame.end);
            if frame.opcode == CLOSE {
                return stream.write_all(&outbox).await;
            }
        }
        stream.write_all(&outbox).await?;
        outbox.clear();
        inbox.reserve(2048);
        if stream.read_buf(&mut inbox).await? == 0 {
            return Ok(());
        }
    }
}
