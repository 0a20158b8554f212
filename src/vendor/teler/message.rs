//! What Teler says on a media socket, as serde reads it: nested under `data` as documented, or flat.

use crate::{vendor::codec, wire::json};
use serde::Deserialize;
use std::borrow::Cow;

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "json::loose_text")]
    pub(super) kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct AudioMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<AudioBody<'a>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) audio_b64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct AudioBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) audio_b64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct StartMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) account_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    pub(super) data: Option<StartBody>,
}

#[derive(Deserialize)]
pub(super) struct StartBody {
    #[serde(default, deserialize_with = "codec::told_text")]
    pub(super) encoding: Option<Cow<'static, str>>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) sample_rate: Option<u64>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) channels: Option<u64>,
}
