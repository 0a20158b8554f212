//! What Twilio says on a media socket, as serde reads it: only members that matter, and no counter or id so wrongly typed
//! that the message is lost for it.

use crate::{
    base::format::{AudioFormat, Encoding},
    vendor::{WireError, codec},
    wire::json,
};
use serde::Deserialize;
use std::borrow::Cow;

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct MediaMessage<'a> {
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
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
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) start: Option<StartBody<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StartBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) account_sid: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) call_sid: Option<Cow<'a, str>>,
    pub(super) media_format: Option<MediaFormat>,
    #[serde(borrow)]
    pub(super) custom_parameters: Option<CustomParameters<'a>>,
}

/// Documented as always μ-law, 8000, 1; newer TwiML attributes may ask for more, so it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MediaFormat {
    #[serde(default, deserialize_with = "codec::told_text")]
    pub(super) encoding: Option<Cow<'static, str>>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) sample_rate: Option<u64>,
    #[serde(default, deserialize_with = "codec::told_number")]
    pub(super) channels: Option<u64>,
}

impl MediaFormat {
    /// The format, if sidetone speaks it.
    pub(super) fn audio(self) -> Result<AudioFormat, WireError> {
        let encoding = match &self.encoding {
            None => Encoding::Ulaw,
            Some(name) => Encoding::parse(name).ok_or(WireError::Format)?,
        };
        let rate = self.sample_rate.unwrap_or(8000);
        let rate = AudioFormat::RATES.into_iter().find(|r| u64::from(*r) == rate);
        match (rate, self.channels) {
            (Some(rate), None | Some(1)) => Ok(AudioFormat { encoding, rate }),
            _ => Err(WireError::Format),
        }
    }
}

/// The `<Parameter>`s that our answer document writes. Others are not ours.
#[derive(Deserialize, Default)]
pub(super) struct CustomParameters<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) token: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) from: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) to: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct DtmfMessage<'a> {
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
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
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    pub(super) stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) mark: Option<MarkBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MarkBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) name: Option<Cow<'a, str>>,
}
