//! WebSocket frames in and out over slices (RFC 6455 §5): headers, masks, and the server's reading of messages in place.
//!
//! No sockets and no handshake. A message in one frame is borrowed from the buffer it was received in; only a fragmented one is
//! gathered. Limits are applied to a header before anything is allocated for what it announces.

use crate::base::time::Mono;
use bytes::{BufMut, BytesMut};
use std::time::Duration;

/// Opcodes (RFC 6455 §5.2).
pub mod opcode {
    /// A further fragment of a message.
    pub const CONTINUATION: u8 = 0;
    /// Text, UTF-8.
    pub const TEXT: u8 = 1;
    /// Bytes.
    pub const BINARY: u8 = 2;
    /// The end, with an optional code and reason.
    pub const CLOSE: u8 = 8;
    /// A question to be answered with its own payload.
    pub const PING: u8 = 9;
    /// The answer to a ping.
    pub const PONG: u8 = 10;
}

/// Longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// What the peer did that RFC 6455 forbids or that we do not take, and the code to close with (§7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002 framing, 1007 not UTF-8, 1008 too many fragments, 1009 too big.
    pub code: u16,
    /// For the peer's log.
    pub reason: &'static str,
}

const fn protocol(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// See [`opcode`].
    pub opcode: u8,
    /// The key, where the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the header itself.
    pub size: usize,
    /// Bytes of the payload.
    pub payload: u64,
}

impl Header {
    /// Reads the header at the beginning of `bytes`; `None` until it is whole. A length in more bytes than it needs is let pass:
    /// it is against §5.2, unambiguous, and no reason to drop a call.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(protocol("a reserved bit is set"));
        }
        let (payload, wide) = match (second & 0x7F, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            (n, _) => (u64::from(n), 0),
        };
        if payload >> 63 != 0 {
            return Err(protocol("a length of 2^63 or more"));
        }
        let masked = second & 0x80 != 0;
        let mask = match (masked, rest.get(wide..)) {
            (false, _) => None,
            (true, Some([a, b, c, d, ..])) => Some([*a, *b, *c, *d]),
            (true, _) => return Ok(None),
        };
        Ok(Some(Self {
            fin: first & 0x80 != 0,
            opcode: first & 0x0F,
            mask,
            size: 2 + wide + if masked { 4 } else { 0 },
            payload,
        }))
    }
}

/// Masks or unmasks a payload in place.
pub fn apply_mask(key: [u8; 4], payload: &mut [u8]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, k) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= k;
    }
}

/// Appends a whole frame; clients mask.
pub fn put(out: &mut BytesMut, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    let flag = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(0x80 | opcode);
    match payload.len() {
        n @ 0..126 => out.put_u8(flag | n as u8),
        n @ 126..0x1_0000 => {
            out.put_u8(flag | 126);
            out.put_u16(n as u16);
        }
        n => {
            out.put_u8(flag | 127);
            out.put_u64(n as u64);
        }
    }
    if let Some(key) = mask {
        out.put_slice(&key);
    }
    let begin = out.len();
    out.put_slice(payload);
    if let Some(key) = mask {
        apply_mask(key, &mut out[begin..]);
    }
}

/// Appends a close frame with a code and a reason of at most 123 bytes.
pub fn put_close(out: &mut BytesMut, code: u16, reason: &str) {
    let mut payload = [0; MAX_CONTROL];
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason);
    put(out, opcode::CLOSE, &payload[..2 + reason.len()], None);
}

/// Room kept before a payload that is written straight into its place: the header of 126 to 65,535 bytes.
const ROOM: usize = 4;

/// A server's text frame whose payload is written in place, between [`TextFrame::begin`] and [`TextFrame::end`].
#[derive(Debug)]
pub struct TextFrame {
    at: usize,
}

impl TextFrame {
    /// Keeps room for the header; the payload is appended to `out` after this.
    pub fn begin(out: &mut BytesMut) -> Self {
        let at = out.len();
        out.put_slice(&[0; ROOM]);
        Self { at }
    }

    /// Writes the header before the payload, and returns the payload's length.
    pub fn end(self, out: &mut BytesMut) -> usize {
        let Self { at } = self;
        let from = at + ROOM;
        let n = out.len() - from;
        let header = 0x80 | opcode::TEXT;
        match n {
            0..126 => {
                out.copy_within(from.., at + 2);
                out.truncate(at + 2 + n);
                out[at..at + 2].copy_from_slice(&[header, n as u8]);
            }
            126..0x1_0000 => {
                let [a, b] = (n as u16).to_be_bytes();
                out[at..from].copy_from_slice(&[header, 126, a, b]);
            }
            _ => {
                out.put_slice(&[0; 6]);
                out.copy_within(from..from + n, from + 6);
                out[at..at + 2].copy_from_slice(&[header, 127]);
                out[at + 2..at + 10].copy_from_slice(&(n as u64).to_be_bytes());
            }
        }
        n
    }

    /// Takes back what was begun.
    pub fn cancel(self, out: &mut BytesMut) {
        out.truncate(self.at);
    }
}

/// What a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of a frame, in bytes.
    pub frame: usize,
    /// Largest message, in bytes.
    pub message: usize,
    /// Most fragments of a message.
    pub fragments: u32,
    /// Longest time from the first fragment of a message to its last.
    pub gather: Duration,
}

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping of ours, or a heartbeat.
    Pong,
    /// The peer ends the conversation; the code it gave.
    Close(Option<u16>),
}

/// Reads a client's messages as a server must (RFC 6455 §5.1, §5.4, §5.5, §8.1).
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// The fragments so far, and after the last one the message until the next is read.
    gathered: Vec<u8>,
    gathering: Option<Gathering>,
}

/// A message of which more fragments are to come.
#[derive(Debug)]
struct Gathering {
    text: bool,
    fragments: u32,
    since: Mono,
}

/// How far [`Reader::next`] came.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A message, and the bytes of the buffer that it used up.
    Message(usize, Message<'a>),
    /// A fragment was put away; go on behind so many bytes.
    Gathered(usize),
    /// The frame at the beginning is not whole; it has so many bytes in all, as far as can be told.
    Needs(usize),
}

impl Reader {
    /// A reader at the beginning of a connection.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            gathered: Vec::new(),
            gathering: None,
        }
    }

    /// Whether the rest of a fragmented message is awaited.
    pub const fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// Whether the rest of a fragmented message is overdue.
    pub fn is_overdue(&self, now: Mono) -> bool {
        self.gathering
            .as_ref()
            .is_some_and(|g| now.since(g.since) > self.limits.gather)
    }

    /// Reads what stands at the beginning of `buf`, unmasking it in place.
    pub fn next<'a>(&'a mut self, now: Mono, buf: &'a mut [u8]) -> Result<Step<'a>, Violation> {
        if self.gathering.is_none() && self.gathered.capacity() > 0 {
            self.gathered = Vec::new();
        }
        let Some(header) = Header::parse(buf)? else {
            return Ok(Step::Needs(buf.len() + 1));
        };
        let Some(key) = header.mask else {
            return Err(protocol("a client's frame is not masked"));
        };
        self.admit(&header)?;
        let end = header.size + header.payload as usize;
        let Some(payload) = buf.get_mut(header.size..end) else {
            return Ok(Step::Needs(end));
        };
        apply_mask(key, payload);
        let payload = &*payload;
        let message = match header.opcode {
            opcode::PING => Message::Ping(payload),
            opcode::PONG => Message::Pong,
            opcode::CLOSE => Message::Close(close_code(payload)?),
            _ if header.fin && self.gathering.is_none() => whole(header.opcode == opcode::TEXT, payload)?,
            _ => return self.gather(now, &header, payload, end),
        };
        Ok(Step::Message(end, message))
    }

    /// Refuses a frame by its header alone.
    fn admit(&self, header: &Header) -> Result<(), Violation> {
        let gathered = self.gathering.as_ref().map(|g| (self.gathered.len(), g.fragments));
        match (header.opcode, gathered) {
            (opcode::CLOSE | opcode::PING | opcode::PONG, _) => {
                if !header.fin || header.payload > MAX_CONTROL as u64 {
                    return Err(protocol("a control frame is fragmented or too long"));
                }
                return Ok(());
            }
            (opcode::CONTINUATION, None) => return Err(protocol("a continuation of nothing")),
            (opcode::TEXT | opcode::BINARY, Some(_)) => return Err(protocol("a message inside a fragmented message")),
            (opcode::CONTINUATION | opcode::TEXT | opcode::BINARY, _) => {}
            _ => return Err(protocol("an unknown opcode")),
        }
        let (bytes, fragments) = gathered.unwrap_or_default();
        if header.payload > self.limits.frame as u64 || bytes as u64 + header.payload > self.limits.message as u64 {
            return Err(Violation {
                code: 1009,
                reason: "message too big",
            });
        }
        if fragments >= self.limits.fragments {
            return Err(Violation {
                code: 1008,
                reason: "too many fragments",
            });
        }
        Ok(())
    }

    /// Puts a fragment away; with the last one the message is told.
    fn gather<'a>(&'a mut self, now: Mono, header: &Header, payload: &[u8], end: usize) -> Result<Step<'a>, Violation> {
        let gathering = self.gathering.get_or_insert(Gathering {
            text: header.opcode == opcode::TEXT,
            fragments: 0,
            since: now,
        });
        gathering.fragments += 1;
        self.gathered.extend_from_slice(payload);
        if !header.fin {
            return Ok(Step::Gathered(end));
        }
        let text = gathering.text;
        self.gathering = None;
        Ok(Step::Message(end, whole(text, &self.gathered)?))
    }
}

/// A message in one piece.
fn whole(text: bool, payload: &[u8]) -> Result<Message<'_>, Violation> {
    if !text {
        return Ok(Message::Binary(payload));
    }
    std::str::from_utf8(payload).map(Message::Text).map_err(|_| Violation {
        code: 1007,
        reason: "not UTF-8",
    })
}

/// The code of a close frame (RFC 6455 §7.4; codes 1012 to 1014 are registered with IANA).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(protocol("half a close code")),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("a close code that may not be sent"));
    }
    whole(true, reason)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests;
