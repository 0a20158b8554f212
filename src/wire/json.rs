//! JSON (RFC 8259) two ways: a positional scan for the one message that arrives fifty times a second, and bounded
//! `serde_json` for everything else.
//!
//! [`Scan`] knows no JSON: a dialect spells out byte for byte the shape that its vendor sends, and anything else (white
//! space, another order, an escape) makes the scan refuse. A refusal is not an error, it is a message for [`read`].
//! Since every byte is accounted for, what a scan accepts is what [`read`] would have said; dialects prove it by property.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt};

/// Arrays and objects that may be open at once in text from outside.
pub const MAX_DEPTH: usize = 16;

/// Members that one object may have in text from outside.
pub const MAX_KEYS: usize = 256;

/// A cursor over a message of known shape. Every step takes what it names or leaves the cursor where it was.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    /// A scan from the first byte.
    pub const fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Takes exactly these bytes.
    #[inline]
    pub fn literal(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    /// Takes 1 to 19 decimal digits: every such number fits.
    #[inline]
    pub fn digits(&mut self) -> Option<u64> {
        let mut value = 0;
        for (n, b) in self.0.iter().enumerate() {
            match b {
                b'0'..=b'9' if n < 19 => value = value * 10 + u64::from(b - b'0'),
                _ if n == 0 || b.is_ascii_digit() => return None,
                _ => {
                    self.0 = &self.0[n..];
                    return Some(value);
                }
            }
        }
        None
    }

    /// Takes the rest of a string that holds no escape, and its closing quote. The bytes in between are not looked at:
    /// for text that a stricter reader takes next, such as base64.
    #[inline]
    pub fn string_rest(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr2(b'"', b'\\', self.0)?;
        if self.0[end] != b'"' {
            return None;
        }
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// Takes everything before this byte, and the byte. What lies before it is not looked at: for text that a stricter
    /// reader takes next, such as an array of numbers.
    #[inline]
    pub fn until(&mut self, byte: u8) -> Option<&'a [u8]> {
        let end = memchr::memchr(byte, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// Takes exactly these bytes and the end of the message.
    #[inline]
    pub fn end(self, bytes: &[u8]) -> Option<()> {
        (self.0 == bytes).then_some(())
    }

    fn space(&mut self) {
        let n = self.0.iter().take_while(|b| b" \t\r\n".contains(b)).count();
        self.0 = &self.0[n..];
    }
}

/// The value of the object's first member if that is `key` with a string without escapes: tells the kind of a message
/// before its type is chosen. `None` says nothing about the message.
pub fn first_member<'a>(text: &'a [u8], key: &str) -> Option<&'a str> {
    let mut scan = Scan::new(text);
    scan.space();
    scan.literal(b"{")?;
    scan.space();
    scan.literal(b"\"")?;
    scan.literal(key.as_bytes())?;
    scan.literal(b"\"")?;
    scan.space();
    scan.literal(b":")?;
    scan.space();
    scan.literal(b"\"")?;
    std::str::from_utf8(scan.string_rest()?).ok()
}

/// Text that is not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadJson {
    /// Not JSON in UTF-8, or nested deeper than [`MAX_DEPTH`].
    Syntax,
    /// JSON, and a member is missing, doubled or of the wrong type.
    Shape,
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => write!(
                f,
                "not JSON, nested deeper than {MAX_DEPTH}, or more than {MAX_KEYS} members in an object"
            ),
            Self::Shape => f.write_str("a member is missing, doubled or of the wrong type"),
        }
    }
}

impl std::error::Error for BadJson {}

/// Reads text from outside, borrowing from it where `T` borrows.
pub fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, BadJson> {
    let text = std::str::from_utf8(text).map_err(|_| BadJson::Syntax)?;
    // Too few brackets to be too deep, whatever they stand for: true of every honest message, and a search is quicker.
    let brackets = memchr::memchr2_iter(b'{', b'[', text.as_bytes()).take(MAX_DEPTH + 1);
    let colons = || memchr::memchr_iter(b':', text.as_bytes()).take(MAX_KEYS + 1);
    if (brackets.count() > MAX_DEPTH || colons().count() > MAX_KEYS) && !is_bounded(text.as_bytes()) {
        return Err(BadJson::Syntax);
    }
    serde_json::from_str(text).map_err(|e| if e.is_data() { BadJson::Shape } else { BadJson::Syntax })
}

/// Whether no more than [`MAX_DEPTH`] arrays and objects are open at once and no object has more than [`MAX_KEYS`] members.
/// Says nothing about whether the text is JSON.
pub fn is_bounded(text: &[u8]) -> bool {
    let (depth, keys) = measure(text);
    depth <= MAX_DEPTH && keys <= MAX_KEYS
}

/// The most arrays and objects open at once, and the most members of one object among the outermost [`MAX_DEPTH`].
fn measure(text: &[u8]) -> (usize, usize) {
    let (mut open, mut most, mut at) = (0usize, 0, 0);
    let (mut keys, mut widest) = ([0; MAX_DEPTH + 1], 0);
    while let Some(b) = text.get(at) {
        at += 1;
        match b {
            b'{' | b'[' => {
                open += 1;
                most = most.max(open);
                if let Some(keys) = keys.get_mut(open) {
                    *keys = 0;
                }
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b':' => {
                if let Some(keys) = keys.get_mut(open) {
                    *keys += 1;
                    widest = widest.max(*keys);
                }
            }
            b'"' => loop {
                let Some(n) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) else {
                    return (most, widest);
                };
                at += n + 1;
                if text[at - 1] == b'"' {
                    break;
                }
                at += 1;
            },
            _ => {}
        }
    }
    (most, widest)
}

/// Passes `text` on with what a JSON string must not hold escaped, piece by piece; quotes around it are the caller's.
pub fn escape(text: &str, mut put: impl FnMut(&str)) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut from = 0;
    for (at, b) in text.bytes().enumerate() {
        let mut unicode = *b"\\u0000";
        let instead = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => {
                unicode[4] = HEX[usize::from(b >> 4)];
                unicode[5] = HEX[usize::from(b & 15)];
                std::str::from_utf8(&unicode).unwrap_or_default()
            }
            _ => continue,
        };
        if from < at {
            put(&text[from..at]);
        }
        put(instead);
        from = at + 1;
    }
    if from < text.len() {
        put(&text[from..]);
    }
}

/// For `deserialize_with`: a whole number, or a string that holds one. Everything else is `None`, never an error,
/// because no vendor's counter is worth losing its message.
pub fn loose_u64<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    Ok(match d.deserialize_any(Loose)? {
        Scalar::Number(n) => Some(n),
        Scalar::Text(t) => t.parse().ok(),
        Scalar::Other => None,
    })
}

/// For `deserialize_with`: a string, or the text of a whole number. Everything else is `None`, never an error.
pub fn loose_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    Ok(match d.deserialize_any(Loose)? {
        Scalar::Number(n) => Some(n.to_string().into()),
        Scalar::Text(t) => Some(t),
        Scalar::Other => None,
    })
}

enum Scalar<'de> {
    Number(u64),
    Text(Cow<'de, str>),
    Other,
}

struct Loose;

impl<'de> Visitor<'de> for Loose {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(text.to_owned().into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(n))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        // 2^53: up to here a whole f64 is one number and not many.
        Ok(if n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&n) {
            Scalar::Number(n as u64)
        } else {
            Scalar::Other
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scan_takes_what_it_names_and_nothing_else() {
        let mut s = Scan::new(br#"{"n":"042","p":"ab=="}"#);
        assert_eq!(s.literal(b"{\"x"), None);
        assert_eq!(s.literal(b"{\"n\":\""), Some(()));
        assert_eq!(s.digits(), Some(42));
        assert_eq!(s.digits(), None);
        assert_eq!(s.literal(br#"","p":""#), Some(()));
        assert_eq!(s.string_rest(), Some(&b"ab=="[..]));
        assert_eq!(s.end(b"}"), Some(()));
        assert_eq!(s.end(b""), None);
    }

    #[test]
    fn a_scan_refuses_escapes_and_numbers_that_could_overflow() {
        assert_eq!(Scan::new(br#"a\/b""#).string_rest(), None);
        assert_eq!(Scan::new(b"unterminated").string_rest(), None);
        assert_eq!(
            Scan::new(b"9999999999999999999,").digits(),
            Some(9_999_999_999_999_999_999)
        );
        assert_eq!(Scan::new(b"00000000000000000001,").digits(), None);
        assert_eq!(Scan::new(b"12").digits(), None);
        assert_eq!(Scan::new(b"-1,").digits(), None);
    }

    #[test]
    fn the_first_member_is_told_whatever_the_white_space() {
        for text in [r#"{"event":"media"}"#, " {\n \"event\" :\t\"media\" , \"event\": 1"] {
            assert_eq!(first_member(text.as_bytes(), "event"), Some("media"));
        }
        for text in [
            r#"{"x":1,"event":"media"}"#,
            r#"{"event":5}"#,
            r#"{"event":"m\u0065dia"}"#,
            "",
            "[",
            "{\"event",
        ] {
            assert_eq!(first_member(text.as_bytes(), "event"), None, "{text}");
        }
    }

    #[test]
    fn members_are_counted_for_each_object_by_itself() {
        for (text, keys) in [
            ("{}", 0),
            (r#"[{"a":1,"b:c":":"},{"a":{"x":1,"y":2,"z":[{}]}}]"#, 3),
            (r#"{"a":{"b":1},"c":1,"d":{"e":1}}"#, 3),
        ] {
            assert_eq!(measure(text.as_bytes()).1, keys, "{text}");
        }
        let wide = |n: usize| {
            let members: Vec<_> = (0..n).map(|i| format!(r#""k{i}":{i}"#)).collect();
            format!("[{{{}}}]", members.join(","))
        };
        assert!(read::<serde_json::Value>(wide(MAX_KEYS).as_bytes()).is_ok());
        assert!(read::<serde_json::Value>(wide(MAX_KEYS + 1).as_bytes()).is_err());
        let many = format!("[{}]", vec![r#"{"a":1,"b":2}"#; 400].join(","));
        assert!(
            read::<serde_json::Value>(many.as_bytes()).is_ok(),
            "many objects are not one wide one"
        );
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        for (text, expect) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}],"b":{}}"#, 3),
            (r#"["[[[[", "\"[[", "\\"]"#, 1),
            (r#"["[[["#, 1),
            (r#"["\"#, 1),
            ("]]]][[", 2),
        ] {
            assert_eq!(measure(text.as_bytes()).0, expect, "{text}");
        }
    }

    #[test]
    fn deep_text_is_refused_before_serde_sees_it() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read::<serde_json::Value>(nest(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            read::<serde_json::Value>(nest(MAX_DEPTH + 1).as_bytes()),
            Err(BadJson::Syntax)
        );
        assert!(read::<serde_json::Value>(format!("[{}0]", "{},".repeat(100)).as_bytes()).is_ok());
        assert!(read::<&str>(format!("\"{}\"", "[".repeat(100)).as_bytes()).is_ok());
        assert_eq!(read::<u8>(b"\"x\""), Err(BadJson::Shape));
        assert_eq!(read::<u8>(b"1 2"), Err(BadJson::Syntax));
        assert_eq!(read::<&str>(b"\"\xff\""), Err(BadJson::Syntax));
    }

    #[test]
    fn loose_values_are_read_whatever_their_type() {
        #[derive(Deserialize, Debug, PartialEq)]
        struct Row<'a> {
            #[serde(default, deserialize_with = "loose_u64")]
            n: Option<u64>,
            #[serde(default, borrow, deserialize_with = "loose_text")]
            t: Option<Cow<'a, str>>,
        }
        for (text, n, t) in [
            (r#"{"n":5,"t":"a"}"#, Some(5), Some("a")),
            (r#"{"n":"5","t":7}"#, Some(5), Some("7")),
            (r#"{"n":5.0,"t":"\u0061"}"#, Some(5), Some("a")),
            (r#"{"n":-5,"t":null}"#, None, None),
            (r#"{"n":"x","t":{"a":[1]}}"#, None, None),
            (r#"{"n":[1,{"b":2}],"t":true}"#, None, None),
            (r#"{"n":1e300,"t":1.5}"#, None, None),
            ("{}", None, None),
        ] {
            let t = t.map(Cow::from);
            assert_eq!(read::<Row<'_>>(text.as_bytes()), Ok(Row { n, t }), "{text}");
        }
        let row: Row<'_> = read(br#"{"t":"borrowed"}"#).unwrap();
        assert!(matches!(row.t, Some(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn escaped_text_reads_back_whatever_it_was(text in any::<String>()) {
            let mut json = String::from("\"");
            escape(&text, |piece| json.push_str(piece));
            json.push('"');
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn depth_is_that_of_the_value(value in arb_value()) {
            fn of(v: &serde_json::Value) -> usize {
                match v {
                    serde_json::Value::Array(a) => 1 + a.iter().map(of).max().unwrap_or(0),
                    serde_json::Value::Object(o) => 1 + o.values().map(of).max().unwrap_or(0),
                    _ => 0,
                }
            }
            prop_assert_eq!(measure(value.to_string().as_bytes()).0, of(&value));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(prop::sample::select(&b"{}[]\"\\:,event0 \xff"[..]), 0..60)) {
            measure(&bytes);
            first_member(&bytes, "event");
            let _ = read::<serde_json::Value>(&bytes);
        }
    }

    fn arb_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Into::into),
            "[\\[\\]{}\"\\\\a]{0,6}".prop_map(serde_json::Value::from)
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map("[a\"{]{0,3}", inner, 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }
}
