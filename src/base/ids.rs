//! Ids: inline, `Copy`, printable ASCII, safe in a log line and in a URL. Vendors' ids stay strings of their own.

use std::{fmt, str::FromStr};

/// An id was empty, too long, or held something other than ASCII letters, digits, `_`, `-`, `:` and `.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id: 1 to 40 letters, digits, '_', '-', ':' or '.' expected")
    }
}

impl std::error::Error for BadId {}

macro_rules! inline_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        inline_id! {
            $(#[$doc])*
            ///
            /// Ordered by the time it was made.
            $name, $prefix, uuid::Uuid::now_v7()
        }
    };
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $bits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { len: u8, text: [u8; 40] }

        impl $name {
            /// A new id, unique everywhere.
            pub fn new() -> Self {
                let mut text = [0; 40];
                let head = $prefix.as_bytes();
                text[..head.len()].copy_from_slice(head);
                let simple = $bits.simple();
                let mut hex = uuid::Uuid::encode_buffer();
                let hex = simple.encode_lower(&mut hex);
                text[head.len()..head.len() + 32].copy_from_slice(hex.as_bytes());
                Self { len: (head.len() + 32) as u8, text }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.text[..self.len as usize]).unwrap_or_default()
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::new() }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                let ok = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'.');
                if s.is_empty() || s.len() > 40 || !s.as_bytes().iter().all(ok) { return Err(BadId) }
                let mut text = [0; 40];
                text[..s.len()].copy_from_slice(s.as_bytes());
                Ok(Self { len: s.len() as u8, text })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(self.as_str()) }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}

inline_id! {
    /// Our id of a call (`phone_calls.call_id`).
    CallId, "call_"
}
inline_id! {
    /// Our id of one stored message of a call.
    MessageId, "msg_"
}
inline_id! {
    /// Our id of one media socket (`connection_id` in REST).
    ConnectionId, "conn_"
}

inline_id! {
    /// Our id of a phone number of ours: 128 random bits, because a vendor that signs nothing proves itself by knowing it.
    NumberId, "num_", random()
}
inline_id! {
    /// Our id of an agent.
    AgentId, "agent_"
}
inline_id! {
    /// Our id of an API key. It opens nothing.
    KeyId, "key_"
}

/// 128 random bits: each of the two has six bits that are not.
fn random() -> uuid::Uuid {
    let (a, b) = (uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4().as_u128());
    uuid::Uuid::from_u128(a.rotate_left(32) ^ b)
}

/// An organization. Everything a caller or operator owns belongs to exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct TenantId(pub i64);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One stretch of audio towards the caller, numbered from 1 within its call. A barge-in raises the floor below which
/// utterances are no longer played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtteranceId(pub u32);

impl UtteranceId {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_birth_and_survive_text() {
        let (a, b) = (CallId::new(), CallId::new());
        assert!(a < b, "{a} {b}");
        assert!(a.as_str().starts_with("call_"));
        assert_eq!(a.to_string().parse(), Ok(a));
    }

    #[test]
    fn every_bit_of_a_numbers_id_is_random() {
        let bits = || u128::from_str_radix(&NumberId::new().as_str()[4..], 16).unwrap();
        let (ones, zeros) = (0..64).fold((0, 0), |(ones, zeros), _| {
            let id = bits();
            (ones | id, zeros | !id)
        });
        assert_eq!((ones, zeros), (u128::MAX, u128::MAX));
    }

    #[test]
    fn ids_refuse_what_could_forge_a_log_line() {
        for bad in ["", "a b", "a\nb", "x/../y", "é", &"x".repeat(41)] {
            assert_eq!(bad.parse::<CallId>(), Err(BadId), "{bad:?}");
        }
    }
}
