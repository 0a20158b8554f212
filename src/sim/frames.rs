//! WebSocket handshakes by hand and whole frames (RFC 6455), for the yardstick and the load generator: they must cost as little
//! as can be, so that what is measured is the daemon. The simulated caller uses tungstenite, so that two implementations meet.

use crate::net::websocket::frame::{self, Header};
use bytes::{Buf, BytesMut};
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

pub(super) use frame::{opcode::*, put};

/// The largest request, response or frame taken.
const LIMIT: usize = 1 << 20;

/// A whole frame at the beginning of a buffer, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    /// Where its payload begins.
    pub(super) begin: usize,
    /// Where it ends, and the next frame begins.
    pub(super) end: usize,
}

/// Finds the frame at the beginning of `buf` and unmasks its payload in place. `None` until it is whole.
pub(super) fn next(buf: &mut [u8]) -> io::Result<Option<Frame>> {
    let Some(header) = Header::parse(buf).map_err(|v| bad(v.reason))? else {
        return Ok(None);
    };
    if !header.fin {
        return Err(bad("a fragmented frame"));
    }
    if header.payload > LIMIT as u64 {
        return Err(bad("a frame of more than 1 MiB"));
    }
    let (begin, end) = (header.size, header.size + header.payload as usize);
    let Some(payload) = buf.get_mut(begin..end) else {
        return Ok(None);
    };
    if let Some(key) = header.mask {
        frame::apply_mask(key, payload);
    }
    Ok(Some(Frame {
        opcode: header.opcode,
        begin,
        end,
    }))
}

/// Answers a handshake. Returns what came after it.
pub(super) async fn accept(stream: &mut TcpStream) -> io::Result<BytesMut> {
    let (head, rest) = read_head(stream).await?;
    let key = header(&head, "sec-websocket-key").ok_or_else(|| bad("no Sec-WebSocket-Key"))?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(response.as_bytes()).await?;
    Ok(rest)
}

/// Asks for a WebSocket. Returns what came after the answer.
pub(super) async fn connect(stream: &mut TcpStream, host: &str, path: &str) -> io::Result<BytesMut> {
    let key = generate_key();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(stream).await?;
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(io::Error::other(format!("the socket was refused: {status}")));
    }
    if header(&head, "sec-websocket-accept") != Some(&derive_accept_key(key.as_bytes())) {
        return Err(bad("a wrong Sec-WebSocket-Accept"));
    }
    Ok(rest)
}

async fn read_head(stream: &mut TcpStream) -> io::Result<(String, BytesMut)> {
    let mut buf = BytesMut::with_capacity(1024);
    loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buf[..at]).into_owned();
            buf.advance(at + 4);
            return Ok((head, buf));
        }
        if buf.len() > LIMIT {
            return Err(bad("an endless header"));
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_class_survive_masked_and_bare() {
        for length in [0, 1, 125, 126, 127, 400, 0xFFFF, 0x1_0000, 100_001] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
                let mut buf = BytesMut::new();
                put(&mut buf, TEXT, &payload, mask);
                let whole = buf.len();
                buf.extend_from_slice(b"next");
                for cut in [0, 1, 2, 5, whole - 1] {
                    assert_eq!(next(&mut buf.clone()[..cut.min(whole - 1)]).unwrap(), None);
                }
                let frame = next(&mut buf).unwrap().unwrap();
                assert_eq!((frame.opcode, frame.end), (TEXT, whole));
                assert_eq!(&buf[frame.begin..frame.end], &payload);
            }
        }
    }

    #[test]
    fn what_we_do_not_speak_is_an_error() {
        assert!(next(&mut [0x01, 0x00]).is_err());
        assert!(next(&mut [0x81, 127, 0, 0, 0, 0, 0xFF, 0, 0, 0]).is_err());
    }

    #[tokio::test]
    async fn both_ends_shake_hands() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            accept(&mut stream).await.unwrap()
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        connect(&mut stream, "localhost", "/x").await.unwrap();
        assert!(server.await.unwrap().is_empty());
    }
}
