//! What Telnyx says on a media socket, as serde reads it: only members that matter, and no counter or id so wrongly typed
//! that the message is lost for it.

use crate::{
    base::format::{AudioFormat, Encoding},
    vendor::{WireError, codec},
    wire::json,
};
use serde::Deserialize;
use std::{borrow::Cow, collections::HashMap};

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
}

/// The greeting; `connected` repeats the token of the upgrade's header.
#[derive(Deserialize)]
pub(super) struct ConnectedMessage<'a> {
    #[serde(borrow)]
    pub(super) connected: Option<ConnectedBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ConnectedBody<'a> {
    #[serde(
        borrow,
        default,
        rename = "x-telnyx-streaming-auth-token",
        deserialize_with = "json::loose_text"
    )]
    pub(super) token: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct MediaMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) media: Option<MediaBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MediaBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) track: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    pub(super) chunk: Option<u64>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    pub(super) timestamp: Option<u64>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) payload: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct StartMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) start: Option<StartBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct StartBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) user_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) call_control_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) from: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) media_format: Option<MediaFormat<'a>>,
    /// Beside a `media_format` that is mere text.
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) sample_rate: Option<u64>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) channels: Option<u64>,
    pub(super) custom_parameters: Option<CustomParameters>,
}

/// The format of the audio from the call, as an object or as text such as `audio/PCMU;rate=8000`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum MediaFormat<'a> {
    Named(#[serde(borrow)] Cow<'a, str>),
    Full {
        #[serde(default, deserialize_with = "codec::told_text")]
        encoding: Option<Cow<'static, str>>,
        #[serde(default, deserialize_with = "codec::told_number")]
        sample_rate: Option<u64>,
        #[serde(default, deserialize_with = "codec::told_number")]
        channels: Option<u64>,
    },
}

impl StartBody<'_> {
    /// The format of the audio from the call, if sidetone speaks it. `l16` is how 16-bit samples are written.
    pub(super) fn audio(&self, l16: Encoding) -> Result<AudioFormat, WireError> {
        let (name, rate, channels) = match &self.media_format {
            None => (None, self.sample_rate, self.channels),
            Some(MediaFormat::Named(text)) => {
                let (name, parameter) = text.split_once(';').unwrap_or((text, ""));
                let rate = parameter.trim().strip_prefix("rate=").map(|r| r.parse().unwrap_or(0));
                (Some(name), rate.or(self.sample_rate), self.channels)
            }
            Some(MediaFormat::Full {
                encoding,
                sample_rate,
                channels,
            }) => (encoding.as_deref(), *sample_rate, *channels),
        };
        if channels.is_some_and(|n| n != 1) {
            return Err(WireError::Format);
        }
        let name = name.unwrap_or("PCMU").trim();
        let name = name.strip_prefix("audio/").unwrap_or(name);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let (encoding, usual) = if is("L16") {
            (l16, 16_000)
        } else if is("G722") {
            // Its clock in RTP runs at half the rate of its samples (RFC 3551 §4.5.2), and is told as its rate.
            return Ok(AudioFormat {
                encoding: Encoding::G722,
                rate: 16_000,
            });
        } else if is("OPUS") {
            (Encoding::Opus, 16_000)
        } else {
            (Encoding::parse(name).ok_or(WireError::Format)?, 8000)
        };
        let rate = rate.unwrap_or(usual);
        let rate = AudioFormat::RATES.into_iter().find(|r| u64::from(*r) == rate);
        let rate = rate.ok_or(WireError::Format)?;
        Ok(AudioFormat { encoding, rate })
    }
}

/// As an object, or as the list that `streaming_start` takes.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum CustomParameters {
    Map(HashMap<String, serde_json::Value>),
    List(Vec<CustomParameter>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
pub(super) struct CustomParameter {
    name: String,
    value: serde_json::Value,
}

impl CustomParameters {
    /// The text of one parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Map(map) => map.get(name)?.as_str(),
            Self::List(list) => list.iter().find(|p| p.name == name)?.value.as_str(),
            Self::Other(_) => None,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DtmfMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) dtmf: Option<DtmfBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct DtmfBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) digit: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct MarkMessage<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) mark: Option<MarkBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MarkBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct ErrorMessage {
    pub(super) payload: Option<ErrorBody>,
}

#[derive(Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default, deserialize_with = "json::loose_u64")]
    pub(super) code: Option<u64>,
}
