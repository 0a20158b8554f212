//! What Ozonetel says on a media socket, as serde reads it: everything but the event and the call's id may be missing.

use crate::{vendor::codec, wire::json};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type", deserialize_with = "json::loose_text")]
    pub(super) kind: Option<Cow<'a, str>>,
    /// The key, where it is one.
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) signal: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct MediaMessage<'a> {
    #[serde(borrow)]
    pub(super) data: Option<MediaBody<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MediaBody<'a> {
    #[serde(borrow)]
    pub(super) samples: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) sample_rate: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct StartMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) ucid: Option<Cow<'a, str>>,
    /// The called number.
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) did: Option<Cow<'a, str>>,
    /// The caller's number, despite its name.
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) x_account: Option<Cow<'a, str>>,
    /// The call's other leg, which is of no consequence for the socket's audio.
    pub(super) media: Option<LegFormat>,
    /// JSON text in a string, or an object.
    #[serde(borrow)]
    pub(super) x_headers: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LegFormat {
    #[serde(default, deserialize_with = "codec::told_text")]
    pub(super) encoding: Option<Cow<'static, str>>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) sample_rate: Option<u64>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) channels: Option<u64>,
}

impl LegFormat {
    /// Whether it can be the format of anything.
    pub(super) fn makes_sense(&self) -> bool {
        let named = |name: &str| name.is_empty() || name.bytes().any(|b| b.is_ascii_alphabetic());
        self.encoding.as_deref().is_none_or(named)
            && self.sample_rate.is_none_or(|rate| (1..=192_000).contains(&rate))
            && self.channels.is_none_or(|channels| channels == 1)
    }
}

/// What our call-flow answer put along, and what the platform knows.
#[derive(Deserialize, Default)]
pub(super) struct Headers {
    #[serde(default, deserialize_with = "owned")]
    pub(super) token: Option<String>,
    #[serde(default, deserialize_with = "owned")]
    pub(super) cid_e164: Option<String>,
    #[serde(default, deserialize_with = "owned")]
    pub(super) cid: Option<String>,
    #[serde(default, deserialize_with = "owned")]
    pub(super) called_number: Option<String>,
}

impl Headers {
    pub(super) fn read(raw: &RawValue) -> Self {
        let text: Cow<'_, str> = match json::read::<Cow<'_, str>>(raw.get().as_bytes()) {
            Ok(text) => text,
            Err(_) => raw.get().into(),
        };
        // A list would be read as the members in order.
        let object = text.trim_start().starts_with('{');
        object
            .then(|| json::read(text.as_bytes()).ok())
            .flatten()
            .unwrap_or_default()
    }
}

fn owned<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(json::loose_text(d)?.map(Cow::into_owned).filter(|t| !t.is_empty()))
}
