//! `multipart/form-data` (RFC 7578) as webhooks carry it: small text fields, borrowed from the body. Files are not taken.

use std::{fmt, str};

/// Fields that a body may have.
pub const MAX_FIELDS: usize = 128;

/// A body that is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMultipart {
    /// No boundary in the content type, or none where one must be.
    Boundary,
    /// A part without a name, or one that is not UTF-8.
    Part,
    /// More fields than [`MAX_FIELDS`].
    TooMany,
}

impl fmt::Display for BadMultipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boundary => f.write_str("the boundary of the multipart body is missing"),
            Self::Part => f.write_str("a part of the multipart body has no name or is not UTF-8"),
            Self::TooMany => write!(f, "more than {MAX_FIELDS} parts"),
        }
    }
}

impl std::error::Error for BadMultipart {}

/// Reads the fields of a body whose content type this is.
pub fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<(&'a str, &'a str)>, BadMultipart> {
    let boundary = parameter(content_type, "boundary").filter(|b| (1..=70).contains(&b.len()));
    let delimiter = format!("\r\n--{}", boundary.ok_or(BadMultipart::Boundary)?);
    let delimiter = delimiter.as_bytes();
    // The first delimiter has no line before it, or a preamble that is nobody's.
    let mut rest = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => rest,
        None => after(body, delimiter)?.1,
    };
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        let (part, next) = after(rest, delimiter)?;
        if fields.len() == MAX_FIELDS {
            return Err(BadMultipart::TooMany);
        }
        fields.push(field(part)?);
        rest = next;
    }
    Ok(fields)
}

/// What stands before the delimiter, and after it.
fn after<'a>(text: &'a [u8], delimiter: &[u8]) -> Result<(&'a [u8], &'a [u8]), BadMultipart> {
    let at = memchr::memmem::find(text, delimiter).ok_or(BadMultipart::Boundary)?;
    Ok((&text[..at], &text[at + delimiter.len()..]))
}

fn field(part: &[u8]) -> Result<(&str, &str), BadMultipart> {
    let part = str::from_utf8(part).map_err(|_| BadMultipart::Part)?;
    let (head, value) = part.split_once("\r\n\r\n").ok_or(BadMultipart::Part)?;
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let name = disposition.and_then(|d| parameter(d, "name"));
    Ok((name.ok_or(BadMultipart::Part)?, value))
}

/// A parameter of a header's value, without its quotes.
fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').skip(1).find_map(|piece| {
        let (key, value) = piece.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        key.trim().eq_ignore_ascii_case(name).then_some(bare.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"--x9\"";

    #[test]
    fn fields_are_read_in_order_whatever_their_lines() {
        let body = b"preamble\r\n----x9\r\nContent-Disposition: form-data; name=\"CallSid\"\r\n\r\nabc\r\n\
            ----x9\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; NAME=Status\r\n\r\ntwo\r\nlines\r\n\
            ----x9\r\nContent-Disposition: form-data; name=\"Empty\"\r\n\r\n\r\n----x9--\r\nepilogue";
        let fields = parse(TYPE, body).unwrap();
        assert_eq!(fields, [("CallSid", "abc"), ("Status", "two\r\nlines"), ("Empty", "")]);
        assert_eq!(parse("multipart/form-data; boundary=b", b"--b--\r\n"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_such_body_is_refused() {
        for (kind, body, why) in [
            ("multipart/form-data", "--b--", BadMultipart::Boundary),
            ("multipart/form-data; boundary=", "--b--", BadMultipart::Boundary),
            ("multipart/form-data; boundary=b", "", BadMultipart::Boundary),
            ("multipart/form-data; boundary=b", "--b\r\n", BadMultipart::Boundary),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nx\r\n--b--",
                BadMultipart::Part,
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data\r\n\r\nv\r\n--b--",
                BadMultipart::Part,
            ),
        ] {
            assert_eq!(parse(kind, body.as_bytes()), Err(why), "{kind} {body}");
        }
        let part = "\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n--b";
        let body = |n: usize| format!("--b{}--", part.repeat(n));
        let kind = "multipart/form-data; boundary=b";
        assert_eq!(parse(kind, body(MAX_FIELDS).as_bytes()).unwrap().len(), MAX_FIELDS);
        assert_eq!(parse(kind, body(MAX_FIELDS + 1).as_bytes()), Err(BadMultipart::TooMany));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(body in prop::collection::vec(prop::sample::select(&b"-b\r\n:;=\" namecontent-disposition\xff"[..]), 0..200)) {
            let _ = parse("multipart/form-data; boundary=b", &body);
        }
    }
}
