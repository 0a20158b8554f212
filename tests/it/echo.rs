//! RFC 6455 over real sockets: every rule of framing, at the echo that stands on the media sockets' accept path and framing.

use crate::daemon::{Daemon, PATIENCE};
use bytes::BytesMut;
use sidetone::net::websocket::frame::{self, Header, opcode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const CONFIG: &str = "[debug]\nws_echo = true\n[media]\npin = false\n";

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Frame(u8, Vec<u8>),
    /// Its close code: 1005 where it gives none, 1006 where it just goes.
    Closed(u16),
}

fn text(words: &str) -> Said {
    Said::Frame(opcode::TEXT, words.into())
}

/// One frame of a client.
fn piece(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, opcode, payload, Some([0x37, 0xFA, 0x21, 0x3D]));
    if !fin {
        out[0] &= 0x7F;
    }
    out.to_vec()
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    piece(true, opcode, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(opcode::CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The header of a text frame of `length` bytes, and no payload.
fn announced(length: u64) -> Vec<u8> {
    [&[0x81, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat()
}

async fn open(daemon: &Daemon, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET /debug/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

/// Takes one frame off `bytes`, if it is whole.
fn take(bytes: &mut Vec<u8>) -> Option<Said> {
    let header = Header::parse(bytes).unwrap()?;
    let end = header.size + header.payload as usize;
    let frame = (bytes.len() >= end).then(|| bytes.drain(..end).collect::<Vec<_>>())?;
    assert!(header.mask.is_none() && header.fin, "a server masks nothing");
    Some(match (header.opcode, &frame[header.size..]) {
        (opcode::CLOSE, [a, b, ..]) => Said::Closed(u16::from_be_bytes([*a, *b])),
        (opcode::CLOSE, _) => Said::Closed(1005),
        (opcode, payload) => Said::Frame(opcode, payload.to_vec()),
    })
}

/// What comes back for `sent`, given to the kernel in steps of so many bytes.
async fn answers(daemon: &Daemon, sent: &[u8], step: usize, count: usize) -> Vec<Said> {
    let (stream, head) = open(daemon, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (mut reader, mut writer) = stream.into_split();
    let sent = sent.to_vec();
    let writing = tokio::spawn(async move {
        for bytes in sent.chunks(step) {
            if writer.write_all(bytes).await.is_err() {
                break;
            }
        }
        writer
    });
    let (mut said, mut bytes) = (Vec::new(), Vec::new());
    while said.len() < count {
        match take(&mut bytes) {
            Some(frame) => said.push(frame),
            None => match timeout(PATIENCE, reader.read_buf(&mut bytes)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => said.push(Said::Closed(1006)),
                Err(_) => panic!("{said:?}, and then nothing"),
            },
        }
    }
    drop(writing.await);
    said
}

#[tokio::test]
async fn the_framing_of_media_sockets_keeps_every_rule_of_rfc_6455() {
    use opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
    let daemon = Daemon::start(&["--dev"], CONFIG, &[]).await;
    let long = |n: usize| "ä".repeat(n / 2);
    let mut cases: Vec<(String, Vec<Vec<u8>>, Vec<Said>)> = Vec::new();
    let mut case = |name: &str, sent: Vec<Vec<u8>>, wanted: Vec<Said>| cases.push((name.to_owned(), sent, wanted));

    for n in [0, 2, 124, 126, 128, 65_534] {
        case(
            &format!("{n} bytes of text"),
            vec![whole(TEXT, long(n).as_bytes())],
            vec![text(&long(n))],
        );
    }
    let bytes = vec![0xFF; 65_536];
    case(
        "the largest frame",
        vec![whole(BINARY, &bytes)],
        vec![Said::Frame(BINARY, bytes)],
    );
    case(
        "a header over the limit",
        vec![announced(65_537)],
        vec![Said::Closed(1009)],
    );
    case("a length of 2^63", vec![announced(1 << 63)], vec![Said::Closed(1002)]);

    let fragments = || {
        vec![
            piece(false, TEXT, b"one "),
            piece(false, CONTINUATION, b""),
            whole(CONTINUATION, b"two"),
        ]
    };
    case("fragments", fragments(), vec![text("one two")]);
    let mut between = fragments();
    between.insert(1, whole(PING, b"are you there"));
    between.insert(3, whole(PONG, b"unasked"));
    let pong = Said::Frame(PONG, b"are you there".to_vec());
    case("control frames between fragments", between, vec![pong, text("one two")]);
    case(
        "a letter torn by two fragments",
        vec![piece(false, TEXT, b"\xC3"), whole(CONTINUATION, b"\xA4")],
        vec![text("ä")],
    );
    case(
        "a continuation of nothing",
        vec![whole(CONTINUATION, b"x")],
        vec![Said::Closed(1002)],
    );
    case(
        "a message inside another",
        vec![piece(false, TEXT, b"x"), whole(TEXT, b"y")],
        vec![Said::Closed(1002)],
    );
    let four = || {
        (0..4)
            .flat_map(|n| piece(n == 3, if n == 0 { BINARY } else { CONTINUATION }, &[7; 65_536]))
            .collect()
    };
    case(
        "the largest message",
        vec![four()],
        vec![Said::Frame(BINARY, vec![7; 4 * 65_536])],
    );
    let five = (0..5)
        .flat_map(|n| piece(n == 4, if n == 0 { BINARY } else { CONTINUATION }, &[7; 65_000]))
        .collect();
    case("a message over the limit", vec![five], vec![Said::Closed(1009)]);
    let many = (0..70)
        .flat_map(|n| piece(false, if n == 0 { TEXT } else { CONTINUATION }, b"x"))
        .collect();
    case("too many fragments", vec![many], vec![Said::Closed(1008)]);

    for bad in [
        &b"\xFF"[..],
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xF5\x80\x80\x80",
        b"half \xC3",
    ] {
        case(
            &format!("not UTF-8: {bad:?}"),
            vec![whole(TEXT, bad)],
            vec![Said::Closed(1007)],
        );
    }
    case(
        "any bytes in a binary message",
        vec![whole(BINARY, b"\xFF\xFE")],
        vec![Said::Frame(BINARY, vec![0xFF, 0xFE])],
    );

    let pings = vec![whole(PING, b""), whole(TEXT, b"after")];
    case("an empty ping", pings, vec![Said::Frame(PONG, vec![]), text("after")]);
    let full = vec![b'p'; 125];
    case(
        "the longest ping",
        vec![whole(PING, &full)],
        vec![Said::Frame(PONG, full)],
    );
    case(
        "a ping that is too long",
        vec![whole(PING, &[b'p'; 126])],
        vec![Said::Closed(1002)],
    );
    case(
        "a fragmented ping",
        vec![piece(false, PING, b"")],
        vec![Said::Closed(1002)],
    );
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        case(
            &format!("opcode {reserved}"),
            vec![whole(reserved, b"")],
            vec![Said::Closed(1002)],
        );
    }
    for bit in [0x40, 0x20, 0x10] {
        let mut frame = whole(TEXT, b"x");
        frame[0] |= bit;
        case(&format!("reserved bit {bit:#x}"), vec![frame], vec![Said::Closed(1002)]);
    }
    case(
        "a frame without a mask",
        vec![vec![0x81, 1, b'x']],
        vec![Said::Closed(1002)],
    );

    case(
        "a close without a code",
        vec![whole(CLOSE, b"")],
        vec![Said::Closed(1005)],
    );
    case(
        "half a close code",
        vec![whole(CLOSE, b"\x03")],
        vec![Said::Closed(1002)],
    );
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
        case(
            &format!("close {code}"),
            vec![close(code, "bye ä".as_bytes())],
            vec![Said::Closed(code)],
        );
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        case(
            &format!("close {code}"),
            vec![close(code, b"")],
            vec![Said::Closed(1002)],
        );
    }
    case(
        "a reason that is not UTF-8",
        vec![close(1000, b"\xFF")],
        vec![Said::Closed(1007)],
    );
    let after = vec![close(1000, b""), whole(TEXT, b"nobody hears this")];
    case(
        "what follows a close",
        after,
        vec![Said::Closed(1000), Said::Closed(1006)],
    );

    for (name, sent, wanted) in cases {
        let sent = sent.concat();
        let steps = if sent.len() < 2000 {
            vec![1, usize::MAX]
        } else {
            vec![1000, usize::MAX]
        };
        for step in steps {
            let mut said = answers(&daemon, &sent, step, wanted.len()).await;
            // A pong goes out when it can, before or after what was said in the same breath (§5.5.3).
            let is_pong = |said: &Said| matches!(said, Said::Frame(PONG, _));
            said.sort_by_key(|said| !is_pong(said));
            assert!(said == wanted, "{name}, in steps of {step}: {:?}", said.first());
        }
    }
}

#[tokio::test]
async fn the_echo_is_there_for_this_machine_and_only_where_it_is_asked_for() {
    let daemon = Daemon::start(&["--dev"], CONFIG, &[]).await;
    let (_, head) = open(&daemon, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut places = Vec::new();
    let refused = loop {
        let (stream, head) = open(&daemon, "").await;
        if !head.starts_with("HTTP/1.1 101 ") {
            break head;
        }
        places.push(stream);
        assert!(places.len() < 100, "not bounded");
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let daemon = Daemon::dev(&[]).await;
    let (_, head) = open(&daemon, "").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let behind = "[debug]\nws_echo = true\n[http]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let daemon = Daemon::start(&["--dev"], behind, &[]).await;
    let (_, head) = open(&daemon, "X-Forwarded-For: 198.51.100.7\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}
