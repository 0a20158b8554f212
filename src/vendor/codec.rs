//! What the stream codecs of several dialects share: reading JSON into errors of the wire, ids, keys, and borrowed text.

use super::WireError;
use crate::wire::json::{self, BadJson};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
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

/// For `deserialize_with`, where a format is told: a whole number, as it is or as text. What is there and none is 0, which no
/// format has, so that it is refused and not taken for untold.
pub(super) fn told_number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.trim().parse().unwrap_or(0)),
        Value::Number(n) => Some(n.as_u64().or_else(|| whole(n.as_f64()?)).unwrap_or(0)),
        _ => Some(0),
    })
}

/// The same for a name or what holds a number: what is there and no text is `?`, which is no name.
pub(super) fn told_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Cow<'static, str>>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Null => None,
        Value::String(text) => Some(text.into()),
        Value::Number(n) => Some(n.to_string().into()),
        _ => Some("?".into()),
    })
}

fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..1e9).contains(&number)).then_some(number as u64)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::{PeerCall, StreamEvent, Upgrade, VENDORS};
    use serde_json::json;

    /// Sets every member of these names, and returns how many there were.
    fn set(message: &mut Value, names: &[&str], to: &Value) -> usize {
        match message {
            Value::Object(members) => members
                .iter_mut()
                .map(|(name, value)| match names.contains(&name.as_str()) {
                    true => {
                        *value = to.clone();
                        1
                    }
                    false => set(value, names, to),
                })
                .sum(),
            _ => 0,
        }
    }

    #[test]
    fn a_start_that_tells_nonsense_of_its_audio_is_refused_in_every_dialect() {
        let rates = ["sampleRate", "sample_rate"];
        let channels = ["channels"];
        let encodings = ["encoding"];
        for vendor in VENDORS {
            let mut peer = (vendor.peer)(PeerCall {
                call_sid: "c1".into(),
                token: Some("t".into()),
                ..PeerCall::default()
            });
            let mut open = peer.open();
            let start = open.pop().unwrap();
            let say = |start: &str| {
                let mut codec = (vendor.codec)(&Upgrade::default());
                for greeting in &open {
                    codec.parse(greeting.as_bytes()).unwrap();
                }
                match codec.parse(start.as_bytes()) {
                    Ok(StreamEvent::Start(_)) => Ok(()),
                    Ok(other) => panic!("{}: {other:?}", vendor.title),
                    Err(error) => Err(error),
                }
            };
            assert_eq!(say(&start), Ok(()), "{}", vendor.title);
            for (names, nonsense) in [
                (
                    &rates[..],
                    &[
                        json!(-8000),
                        json!("-8000"),
                        json!(0),
                        json!("0"),
                        json!(0.5),
                        json!(1e12),
                        json!(true),
                        json!([8000]),
                        json!({"rate": 8000}),
                        json!("fast"),
                    ][..],
                ),
                (
                    &channels,
                    &[json!(-1), json!(2), json!("two"), json!(0), json!([1]), json!(false)],
                ),
                (
                    &encodings,
                    &[json!(-5), json!(["audio/x-mulaw"]), json!(false), json!({})],
                ),
            ] {
                for told in nonsense {
                    let mut message: Value = serde_json::from_str(&start).unwrap();
                    if set(&mut message, names, told) == 0 {
                        continue;
                    }
                    let said = say(&message.to_string());
                    assert_eq!(said, Err(WireError::Format), "{} {names:?} {told}", vendor.title);
                }
            }
            let mut message: Value = serde_json::from_str(&start).unwrap();
            assert!(
                set(&mut message, &rates, &json!(8000.0)) > 0,
                "{} tells its rate",
                vendor.title
            );
            assert_eq!(say(&message.to_string()), Ok(()), "{}", vendor.title);
        }
    }
}
