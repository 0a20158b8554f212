//! `application/x-www-form-urlencoded` (WHATWG URL §5) and percent-encoding, both ways.
//!
//! Order, repetition and empty values are kept, because signatures cover them. Bounded by a number of pairs.

use std::{borrow::Cow, fmt};

/// Pairs that a request may carry.
pub const MAX_PAIRS: usize = 256;

/// A form that is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadForm {
    /// More pairs than [`MAX_PAIRS`].
    TooMany,
    /// A name or value that is not UTF-8 once decoded.
    NotUtf8,
}

impl fmt::Display for BadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {MAX_PAIRS} parameters"),
            Self::NotUtf8 => f.write_str("a parameter is not UTF-8"),
        }
    }
}

impl std::error::Error for BadForm {}

/// Decoded pairs in the order received. Borrows what needed no decoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads a body or a query string. Malformed escapes stand for themselves, as browsers and vendors' own tools have it.
    pub fn parse(input: &'a [u8]) -> Result<Self, BadForm> {
        let mut pairs = Vec::new();
        for piece in input.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
            if pairs.len() == MAX_PAIRS {
                return Err(BadForm::TooMany);
            }
            let (name, value) = match memchr::memchr(b'=', piece) {
                Some(at) => (&piece[..at], &piece[at + 1..]),
                None => (piece, &[][..]),
            };
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of that name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| &**v)
    }
}

fn decode(piece: &[u8]) -> Result<Cow<'_, str>, BadForm> {
    if memchr::memchr2(b'%', b'+', piece).is_none() {
        return std::str::from_utf8(piece)
            .map(Cow::Borrowed)
            .map_err(|_| BadForm::NotUtf8);
    }
    let mut out = Vec::with_capacity(piece.len());
    let mut at = 0;
    while at < piece.len() {
        let (byte, step) = match piece[at] {
            b'+' => (b' ', 1),
            b'%' => match piece.get(at + 1..at + 3).and_then(hex) {
                Some(byte) => (byte, 3),
                None => (b'%', 1),
            },
            other => (other, 1),
        };
        out.push(byte);
        at += step;
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| BadForm::NotUtf8)
}

fn hex(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16);
    Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)
}

/// Writes a form, pair by pair.
#[derive(Clone, Debug, Default)]
pub struct FormWriter(String);

impl FormWriter {
    /// An empty form.
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Appends a pair.
    #[must_use]
    pub fn pair(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode(name, true, &mut self.0);
        self.0.push('=');
        encode(value, true, &mut self.0);
        self
    }

    /// The form as text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters: safe as one path segment or query value.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text, false, &mut out);
    out
}

fn encode(text: &str, plus: bool, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(b as char),
            b'~' if !plus => out.push('~'),
            b'*' if plus => out.push('*'),
            b' ' if plus => out.push('+'),
            _ => out.extend(['%', HEX[usize::from(b >> 4)] as char, HEX[usize::from(b & 15)] as char]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let form = Form::parse(text.as_bytes()).unwrap();
        form.0.into_iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    #[test]
    fn order_repetition_and_empty_values_are_kept() {
        let expect: Vec<(String, String)> = [
            ("b", "2"),
            ("a", ""),
            ("b", " 1 "),
            ("c", ""),
            ("", "x"),
            ("Zoë", "& Co"),
        ]
        .map(|(n, v)| (n.into(), v.into()))
        .into();
        assert_eq!(pairs("b=2&a=&&b=+1%20&c&=x&Zo%C3%AB=%26+Co"), expect);
        let form = Form::parse(b"b=2&a=&b=3").unwrap();
        assert_eq!(form.get("b"), Some("2"));
        assert_eq!(form.all("b").collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(form.get("z"), None);
    }

    #[test]
    fn malformed_escapes_stand_for_themselves() {
        assert_eq!(pairs("a=100%&b=%zz&c=%4")[0].1, "100%");
        assert_eq!(pairs("a=100%&b=%zz&c=%4")[1].1, "%zz");
        assert_eq!(pairs("a=100%&b=%zz&c=%4")[2].1, "%4");
        assert_eq!(pairs("a=%+1")[0].1, "% 1");
    }

    #[test]
    fn hostile_forms_are_refused() {
        assert_eq!(Form::parse(b"a=%ff"), Err(BadForm::NotUtf8));
        assert_eq!(Form::parse(b"\xc3=1"), Err(BadForm::NotUtf8));
        assert!(Form::parse("a&".repeat(MAX_PAIRS).as_bytes()).is_ok());
        assert_eq!(
            Form::parse("a&".repeat(MAX_PAIRS + 1).as_bytes()),
            Err(BadForm::TooMany)
        );
    }

    #[test]
    fn a_segment_cannot_leave_its_place_in_a_url() {
        assert_eq!(percent_encode("CA1/../x?y#z ~"), "CA1%2F..%2Fx%3Fy%23z%20~");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(input in prop::collection::vec((".{1,12}", ".{0,20}"), 0..8)) {
            let mut form = FormWriter::new();
            for (n, v) in &input {
                form = form.pair(n, v);
            }
            let text = form.finish();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(pairs(&text), input);
        }
    }
}
