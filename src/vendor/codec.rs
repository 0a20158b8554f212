//! What the stream codecs of several dialects share: reading JSON into errors of the wire, ids, keys, and borrowed text.

use super::WireError;
use crate::wire::json::{self, BadJson};
use serde::Deserialize;
use std::borrow::Cow;

/// Longest id believed. Ids are repeated in every message we send.
const MAX_ID: usize = 128;

/// Reads a message; `what` is named where its shape is wrong.
pub(super) fn read<'a, T: Deserialize<'a>>(message: &'a [u8], what: &'static str) -> Result<T, WireError> {
    json::read(message).map_err(|e| match e {
        BadJson::Syntax => WireError::NotJson,
        BadJson::Shape => WireError::Shape(what),
    })
}

/// An id that must be there: short and printable.
pub(super) fn id(text: Option<Cow<'_, str>>, what: &'static str) -> Result<String, WireError> {
    text.filter(|t| (1..=MAX_ID).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic()))
        .map(Cow::into_owned)
        .ok_or(WireError::Id(what))
}

/// A key that must be there.
pub(super) fn dtmf(text: Option<Cow<'_, str>>) -> Result<char, WireError> {
    match text.as_deref().map(str::as_bytes) {
        Some([c @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd')]) => Ok(c.to_ascii_uppercase() as char),
        Some(_) => Err(WireError::Key),
        None => Err(WireError::Shape("digit")),
    }
}

/// Text of a message, which lies in `scratch` where it had to be unescaped.
pub(super) fn keep<'a>(scratch: &'a mut String, text: Cow<'a, str>) -> &'a str {
    match text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => {
            *scratch = text;
            scratch
        }
    }
}

/// A text as it stands between the quotes of a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    json::escape(text, |piece| out.push_str(piece));
    out
}
