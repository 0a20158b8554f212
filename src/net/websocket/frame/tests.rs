//! Frames against RFC 6455: every length class, every cut, every rule a client can break.

use super::{opcode::*, *};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    frame: 70_000,
    message: 100_000,
    fragments: 4,
    gather: Duration::from_secs(5),
};
const KEY: [u8; 4] = [0x5A, 0x91, 0x2C, 0xE7];

fn reader() -> Reader {
    Reader::new(LIMITS)
}

/// A client's frame with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out, 0, payload, Some(KEY));
    out[0] = first;
    out.to_vec()
}

fn code(bytes: &[u8]) -> Option<u16> {
    let mut bytes = bytes.to_vec();
    reader().next(Mono::ZERO, &mut bytes).err().map(|v| v.code)
}

#[test]
fn a_payload_of_any_length_is_masked_to_its_last_byte() {
    for length in 0..600 {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let naive: Vec<u8> = payload.iter().enumerate().map(|(i, b)| b ^ KEY[i % 4]).collect();
        let mut masked = payload.clone();
        apply_mask(KEY, &mut masked);
        assert_eq!(masked, naive, "{length}");
    }
}

#[test]
fn a_frame_of_every_length_class_is_read_once_it_is_whole() {
    for length in [0, 1, 125, 126, 127, 400, 0xFFFF, 0x1_0000, 70_000] {
        let text = "x".repeat(length);
        let mut bytes = frame(0x80 | TEXT, text.as_bytes());
        let whole = bytes.len();
        bytes.extend(b"next");
        for cut in [0, 1, 2, 3, 5, 9, 13, whole - 1].into_iter().filter(|c| *c < whole) {
            match reader().next(Mono::ZERO, &mut bytes.clone()[..cut]) {
                Ok(Step::Needs(n)) => assert!(n > cut && n <= whole, "{length} cut at {cut} needs {n}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            reader().next(Mono::ZERO, &mut bytes),
            Ok(Step::Message(whole, Message::Text(&text)))
        );
    }
}

#[test]
fn what_the_server_writes_is_the_shortest_frame() {
    for length in [0, 1, 125, 126, 0xFFFF, 0x1_0000, 100_000] {
        let payload = vec![b'y'; length];
        let mut out = BytesMut::from(&b"before"[..]);
        let mut oracle = out.clone();
        put(&mut oracle, TEXT, &payload, None);
        let text = TextFrame::begin(&mut out);
        out.put_slice(&payload);
        text.end(&mut out);
        assert!(out == oracle, "{length}");
    }
    let mut out = BytesMut::from(&b"before"[..]);
    TextFrame::begin(&mut out).cancel(&mut out);
    assert_eq!(&out[..], b"before");
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let mut reader = reader();
    let mut said = Vec::new();
    let stream = [
        frame(TEXT, "hé".as_bytes().split_at(2).0),
        frame(0x80 | PING, b"?"),
        frame(CONTINUATION, "hé".as_bytes().split_at(2).1),
        frame(0x80 | CONTINUATION, b"llo"),
        frame(0x80 | TEXT, b"again"),
    ];
    for mut bytes in stream {
        match reader.next(Mono::ZERO, &mut bytes).unwrap() {
            Step::Message(_, message) => said.push(format!("{message:?}")),
            Step::Gathered(n) => assert_eq!(n, bytes.len()),
            Step::Needs(_) => panic!(),
        }
    }
    assert_eq!(said, ["Ping([63])", "Text(\"héllo\")", "Text(\"again\")"]);
}

#[test]
fn what_a_client_may_not_send_is_refused_with_the_code_that_says_so() {
    let unmasked = [0x81, 1, b'x'];
    let reserved_bit = frame(0xC0 | TEXT, b"x");
    let long_ping = frame(0x80 | PING, &[0; 126]);
    let table: [(&str, u16, &[u8]); 13] = [
        ("no mask", 1002, &unmasked),
        ("a reserved bit", 1002, &reserved_bit),
        ("an unknown opcode", 1002, &frame(0x83, b"x")),
        ("an unknown control opcode", 1002, &frame(0x8B, b"")),
        ("a fragmented ping", 1002, &frame(PING, b"")),
        ("a long ping", 1002, &long_ping),
        ("a continuation of nothing", 1002, &frame(0x80, b"x")),
        ("half a close code", 1002, &frame(0x88, &[3])),
        ("close code 1005", 1002, &frame(0x88, &1005_u16.to_be_bytes())),
        ("close code 999", 1002, &frame(0x88, &999_u16.to_be_bytes())),
        ("a close reason that is not UTF-8", 1007, &frame(0x88, &[3, 0xE8, 0xFF])),
        ("text that is not UTF-8", 1007, &frame(0x81, &[0xC3, 0x28])),
        ("a length of 2^63", 1002, &[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (what, expected, bytes) in table {
        assert_eq!(code(bytes), Some(expected), "{what}");
    }
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_let_pass() {
    let mut long = vec![0x81, 0xFE, 0, 1];
    long.extend(KEY);
    long.push(b'x' ^ KEY[0]);
    let n = long.len();
    assert_eq!(
        reader().next(Mono::ZERO, &mut long),
        Ok(Step::Message(n, Message::Text("x")))
    );
}

#[test]
fn size_is_judged_by_the_header_before_the_payload_has_come() {
    let announced = |n: u64| {
        let mut head = vec![0x81, 0xFF];
        head.extend(n.to_be_bytes());
        head.extend(KEY);
        head
    };
    assert_eq!(code(&announced(70_000)), None);
    assert_eq!(code(&announced(70_001)), Some(1009));
    let mut reader = reader();
    reader.next(Mono::ZERO, &mut frame(TEXT, &[b'x'; 60_000])).unwrap();
    let mut more = frame(CONTINUATION, &[b'x'; 40_001]);
    assert_eq!(reader.next(Mono::ZERO, &mut more).unwrap_err().code, 1009);
}

#[test]
fn fragments_are_counted_and_timed() {
    let mut reader = reader();
    reader.next(Mono::ZERO, &mut frame(TEXT, b"a")).unwrap();
    for _ in 1..4 {
        reader.next(Mono::ZERO, &mut frame(CONTINUATION, b"")).unwrap();
    }
    assert!(!reader.is_overdue(Mono::from_millis(5000)));
    assert!(reader.is_overdue(Mono::from_millis(5001)));
    let mut fifth = frame(0x80, b"z");
    let refused = reader.next(Mono::ZERO, &mut fifth).unwrap_err();
    assert_eq!(refused.reason, "too many fragments");
}

#[test]
fn a_close_is_read_with_and_without_its_code() {
    let mut bare = frame(0x88, b"");
    assert_eq!(
        reader().next(Mono::ZERO, &mut bare),
        Ok(Step::Message(6, Message::Close(None)))
    );
    let mut out = BytesMut::new();
    put_close(&mut out, 1013, &"é".repeat(100));
    let mut echoed = frame(0x88, &out[2..]);
    assert_eq!(out[1] as usize, out.len() - 2, "cut to fit, at a character");
    let n = echoed.len();
    assert_eq!(
        reader().next(Mono::ZERO, &mut echoed),
        Ok(Step::Message(n, Message::Close(Some(1013))))
    );
}

proptest! {
    /// Any bytes, cut anywhere, give the same messages and the same refusal.
    #[test]
    fn cuts_change_nothing(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(32u8..127, 0..200)), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(1usize..300, 1..20),
    ) {
        let mut stream: Vec<u8> = frames.iter().flat_map(|(first, p)| frame(first & 0x8B, p)).collect();
        stream.extend(noise);
        let run = |pieces: &mut dyn FnMut() -> usize| {
            let (mut reader, mut said) = (reader(), Vec::new());
            let (mut buf, mut rest) = (Vec::new(), &stream[..]);
            loop {
                let step = reader.next(Mono::ZERO, &mut buf).map(|s| match s {
                    Step::Message(n, m) => (n, format!("{m:?}")),
                    Step::Gathered(n) => (n, String::new()),
                    Step::Needs(_) => (0, String::new()),
                });
                match step {
                    Err(v) => { said.push(format!("{v:?}")); return said }
                    Ok((0, _)) if rest.is_empty() => return said,
                    Ok((0, _)) => {
                        let (now, later) = rest.split_at(pieces().min(rest.len()));
                        buf.extend_from_slice(now);
                        rest = later;
                    }
                    Ok((n, text)) => { buf.drain(..n); said.push(text) }
                }
            }
        };
        let at_once = run(&mut || usize::MAX);
        let mut n = 0;
        let piecemeal = run(&mut || { n += 1; cuts[n % cuts.len()] });
        prop_assert_eq!(at_once, piecemeal);
    }
}
