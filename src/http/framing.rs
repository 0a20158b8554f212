//! Where requests begin and end in the bytes of an HTTP/1.1 connection (RFC 9112), for what must be refused before a server
//! library reads it: heads that are too big or no HTTP/1 head at all, and bodies whose length two readers could understand
//! differently.
//!
//! Pure: bytes in, a verdict out.

/// Longest line that begins a chunk, in bytes: a length and extensions that nobody reads.
const MAX_CHUNK_LINE: usize = 1024;

/// Bounds of a request's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Request line and headers together, in bytes.
    pub(super) head: usize,
    /// The request line, in bytes.
    pub(super) line: usize,
    /// Headers.
    pub(super) headers: usize,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head did not come in time.
    Slow,
    /// The request line is too long.
    LongLine,
    /// The headers are too long, or too many.
    LongHead,
    /// The request line or a header is none (RFC 9112 §3 and §5).
    Malformed,
    /// The length of the body is stated twice, differently, or in a way that readers differ over.
    Length,
}

/// A refusal, and how many bytes before it belong to requests that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Refusal,
    pub(super) good: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A head.
    Head,
    /// A body of so many more bytes.
    Body(u64),
    /// The line with a chunk's length.
    ChunkLine,
    /// A chunk of so many more bytes, its line end included.
    Chunk(u64),
    /// What may follow the last chunk, to an empty line.
    Trailers,
    /// No HTTP any more, or none that is looked at.
    Beyond,
}

/// The reader of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    bounds: Bounds,
    at: At,
    /// The line at hand, as far as it came.
    line: Vec<u8>,
    /// Lines and bytes of the head at hand; a line that is empty before the first is none.
    lines: usize,
    bytes: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    heads: usize,
}

impl Framing {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            at: At::Head,
            line: Vec::new(),
            lines: 0,
            bytes: 0,
            length: None,
            chunked: false,
            upgrade: false,
            heads: 0,
        }
    }

    /// Whole heads so far.
    pub(super) const fn heads(&self) -> usize {
        self.heads
    }

    /// Whether a head has begun and is not whole.
    pub(super) const fn is_in_head(&self) -> bool {
        matches!(self.at, At::Head) && self.bytes > 0
    }

    /// Looks at nothing any more: what follows is another protocol.
    pub(super) fn stop(&mut self) {
        self.at = At::Beyond;
        self.line = Vec::new();
    }

    /// Reads what came next.
    pub(super) fn feed(&mut self, new: &[u8]) -> Result<(), Refused> {
        let (mut at, mut good) = (0, 0);
        while at < new.len() {
            let rest = &new[at..];
            let taken = match &mut self.at {
                At::Beyond => return Ok(()),
                At::Body(left) => {
                    let n = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= n as u64;
                    if *left == 0 {
                        self.next_head();
                    }
                    n
                }
                At::Chunk(left) => {
                    let n = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= n as u64;
                    if *left == 0 {
                        self.at = At::ChunkLine;
                    }
                    n
                }
                At::Head | At::ChunkLine | At::Trailers => {
                    let end = memchr::memchr(b'\n', rest);
                    let n = end.map_or(rest.len(), |end| end + 1);
                    self.take(&rest[..n]).map_err(|why| Refused { why, good })?;
                    n
                }
            };
            at += taken;
            if !self.is_in_head() {
                good = at;
            }
        }
        Ok(())
    }

    /// A line, or a piece of one without its end.
    fn take(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let room = match self.at {
            At::ChunkLine => MAX_CHUNK_LINE,
            _ => self.bounds.head - self.bytes.min(self.bounds.head),
        };
        self.bytes += piece.len();
        if self.line.len() + piece.len() > self.bounds.line && self.lines == 0 && self.at == At::Head {
            return Err(Refusal::LongLine);
        }
        if piece.len() > room || self.line.len() + piece.len() > room.max(self.bounds.line) {
            return Err(match self.at {
                At::ChunkLine => Refusal::Length,
                _ => Refusal::LongHead,
            });
        }
        self.line.extend_from_slice(piece);
        if self.line.last() != Some(&b'\n') {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let read = match self.at {
            At::Head => self.head_line(&line),
            At::ChunkLine => self.chunk_line(&line),
            _ if line.is_empty() => {
                self.next_head();
                Ok(())
            }
            _ => Ok(()),
        };
        line.clear();
        self.line = line;
        read
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.is_empty() {
            if self.lines == 0 {
                self.bytes = 0;
                return Ok(());
            }
            return self.body();
        }
        self.lines += 1;
        if self.lines == 1 {
            return is_request_line(line).then_some(()).ok_or(Refusal::Malformed);
        }
        if self.lines - 1 > self.bounds.headers {
            return Err(Refusal::LongHead);
        }
        let colon = memchr::memchr(b':', line).ok_or(Refusal::Malformed)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // A line that begins with a space has no token in front, nor has a name with a space behind it.
        if !is_token(name) || value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(Refusal::Malformed);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let length = text.parse().ok().filter(|_| digits).ok_or(Refusal::Length)?;
            if self.chunked || self.length.is_some_and(|known| known != length) {
                return Err(Refusal::Length);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || self.length.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Length);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    /// The head is whole.
    fn body(&mut self) -> Result<(), Refusal> {
        self.heads += 1;
        let length = self.length.unwrap_or(0);
        if self.upgrade {
            // The answer decides what follows: another protocol, or the end of the connection.
            self.stop();
        } else if self.chunked {
            (self.at, self.bytes) = (At::ChunkLine, 0);
        } else if length > 0 {
            (self.at, self.bytes) = (At::Body(length), 0);
        } else {
            self.next_head();
        }
        Ok(())
    }

    fn chunk_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let hexadecimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let length = u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| hexadecimal && text.len() < 16);
        self.bytes = 0;
        self.at = match length.ok_or(Refusal::Length)? {
            0 => At::Trailers,
            length => At::Chunk(length + 2),
        };
        Ok(())
    }

    fn next_head(&mut self) {
        self.at = At::Head;
        (self.lines, self.bytes, self.length) = (0, 0, None);
        (self.chunked, self.upgrade) = (false, false);
    }
}

/// Whether a line is a method, a target and a version of HTTP/1, with one space between each.
fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    method.is_some_and(is_token)
        && target.is_some_and(|target| http::Uri::try_from(target).is_ok())
        && matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"))
        && words.next().is_none()
}

/// Whether it is a token (RFC 9110 §5.6.2).
fn is_token(text: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        head: 200,
        line: 60,
        headers: 4,
    };

    fn read(bytes: &[u8], piece: usize) -> (usize, Result<(), Refusal>) {
        let mut framing = Framing::new(BOUNDS);
        for piece in bytes.chunks(piece) {
            if let Err(refused) = framing.feed(piece) {
                return (framing.heads(), Err(refused.why));
            }
        }
        (framing.heads(), Ok(()))
    }

    /// However the bytes are cut.
    fn reads(text: &str) -> (usize, Result<(), Refusal>) {
        let whole = read(text.as_bytes(), text.len().max(1));
        for piece in 1..20 {
            assert_eq!(read(text.as_bytes(), piece), whole, "{text:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn requests_are_told_apart_however_their_bodies_end() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let fixed = "POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\nGET / HTTP/";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nab\r\n\n\r\n00A\r\n0123456789\r\n0\r\nT: u\r\n\r\n";
        for (text, heads) in [
            ("", 0),
            ("GET / HT", 0),
            (get, 1),
            ("\r\n\r\nGET / HTTP/1.1\n\n", 1),
            (&[get, fixed, chunked, get].concat(), 4),
            (&[chunked, chunked, fixed, fixed].concat(), 4),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 1),
        ] {
            assert_eq!(reads(text), (heads, Ok(())), "{text:?}");
        }
    }

    #[test]
    fn a_length_that_readers_could_differ_over_is_refused() {
        for headers in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "transfer-encoding:chunked\r\nCONTENT-LENGTH:3",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3, 3",
            "Content-Length: +3",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\nabc");
            assert_eq!(reads(&text).1, Err(Refusal::Length), "{headers:?}");
        }
        for chunk in ["", "-1", "0x5", "g", "FFFFFFFFFFFFFFFFF", "5 5"] {
            let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\n");
            assert_eq!(reads(&text), (1, Err(Refusal::Length)), "{chunk:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for line in [
            "GET /",
            "GET",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 x",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "G(T / HTTP/1.1",
            "GET /\x00 HTTP/1.1",
            "GET / HTTP/1.1\rX: y",
            "\rGET / HTTP/1.1",
        ] {
            assert_eq!(reads(&format!("{line}\r\n")).1, Err(Refusal::Malformed), "{line:?}");
        }
        for header in [
            "Host : a",
            "Host: a\r\n b",
            "Host: a\r\n\tb: c",
            "Host",
            ": a",
            "Ho st: a",
            "Host: a\rb",
            "Host: a\x00",
            "Transfer-Encoding: \x0bchunked",
        ] {
            let text = format!("GET / HTTP/1.1\r\n{header}\r\n");
            assert_eq!(reads(&text).1, Err(Refusal::Malformed), "{header:?}");
        }
        assert_eq!(reads("OPTIONS * HTTP/1.0\r\nX:\t\u{e9} y \r\n\r\n"), (1, Ok(())));
    }

    #[test]
    fn heads_are_bounded_before_they_are_whole() {
        let line = |n: usize| format!("GET /{} ", "x".repeat(n));
        assert_eq!(reads(&line(53)).1, Ok(()));
        assert_eq!(reads(&line(60)).1, Err(Refusal::LongLine));
        let header = "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
        assert_eq!(reads(&["GET / HTTP/1.1\r\n", &header.repeat(3)].concat()).1, Ok(()));
        assert_eq!(
            reads(&["GET / HTTP/1.1\r\n", &header.repeat(4)].concat()).1,
            Err(Refusal::LongHead)
        );
        let many = "X: y\r\n".repeat(5);
        assert_eq!(reads(&format!("GET / HTTP/1.1\r\n{many}")).1, Err(Refusal::LongHead));
    }

    #[test]
    fn what_came_before_a_refused_head_stands() {
        let mut framing = Framing::new(BOUNDS);
        let good = "GET / HTTP/1.1\r\n\r\n";
        let bad = "GET / HTTP/1.1\r\nContent-Length: x\r\n";
        let refused = framing.feed([good, bad].concat().as_bytes()).unwrap_err();
        assert_eq!((refused.good, framing.heads()), (good.len(), 1));
    }

    #[test]
    fn what_follows_an_upgrade_is_not_looked_at() {
        let text = ["GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", &"x".repeat(999)].concat();
        assert_eq!(reads(&text), (1, Ok(())));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics_or_is_kept_beyond_the_bounds(bytes in prop::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b':'), Just(b'0'), any::<u8>()
        ], 0..600), piece in 1usize..50) {
            let mut framing = Framing::new(BOUNDS);
            for piece in bytes.chunks(piece) {
                if framing.feed(piece).is_err() {
                    break;
                }
                prop_assert!(framing.line.len() <= MAX_CHUNK_LINE);
            }
        }
    }
}
