//! What Exotel says on a media socket, as serde reads it. Its pages and products disagree about spelling, about what is text and
//! what a number, and about what stands where; all of it is read, and no counter is worth losing its message.

use crate::{vendor::codec, wire::json};
use serde::{Deserialize, Deserializer, de};
use std::{borrow::Cow, fmt};

/// A text under one of two spellings.
type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    event: Text<'a>,
    #[serde(borrow, default, rename = "Event", deserialize_with = "json::loose_text")]
    other_event: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    stream_sid: Text<'a>,
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    other_stream_sid: Text<'a>,
}

impl<'a> Head<'a> {
    pub(super) fn event(self) -> Text<'a> {
        self.event.or(self.other_event)
    }

    pub(super) fn stream_sid(self) -> Text<'a> {
        self.stream_sid.or(self.other_stream_sid)
    }
}

#[derive(Deserialize)]
pub(super) struct MediaMessage<'a> {
    #[serde(borrow, flatten)]
    pub(super) ids: Ids<'a>,
    #[serde(borrow)]
    pub(super) media: Option<MediaBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MediaBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) track: Text<'a>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    pub(super) chunk: Option<u64>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    pub(super) timestamp: Option<u64>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    payload: Text<'a>,
    #[serde(borrow, default, rename = "Payload", deserialize_with = "json::loose_text")]
    other_payload: Text<'a>,
}

impl<'a> MediaBody<'a> {
    pub(super) fn payload(self) -> Text<'a> {
        self.payload.or(self.other_payload)
    }
}

/// Ids, at the top of a message or inside `start`.
#[derive(Deserialize, Default)]
pub(super) struct Ids<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    stream_sid: Text<'a>,
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "json::loose_text")]
    other_stream_sid: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    call_sid: Text<'a>,
    #[serde(borrow, default, rename = "callSid", deserialize_with = "json::loose_text")]
    other_call_sid: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    leg_sid: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    account_sid: Text<'a>,
    #[serde(borrow, default, rename = "accountSid", deserialize_with = "json::loose_text")]
    other_account_sid: Text<'a>,
}

impl<'a> Ids<'a> {
    pub(super) fn stream(&mut self) -> Text<'a> {
        self.stream_sid.take().or(self.other_stream_sid.take())
    }

    /// A stream that the Legs API started may know its leg alone.
    pub(super) fn call(&mut self) -> Text<'a> {
        self.call_sid
            .take()
            .or(self.other_call_sid.take())
            .or(self.leg_sid.take())
    }

    pub(super) fn account(&mut self) -> Text<'a> {
        self.account_sid.take().or(self.other_account_sid.take())
    }
}

#[derive(Deserialize)]
pub(super) struct StartMessage<'a> {
    #[serde(borrow, flatten)]
    pub(super) ids: Ids<'a>,
    #[serde(borrow)]
    pub(super) start: Option<StartBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct StartBody<'a> {
    #[serde(borrow, flatten)]
    pub(super) ids: Ids<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) from: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) to: Text<'a>,
    #[serde(borrow, default, alias = "customParameters")]
    pub(super) custom_parameters: Custom<'a>,
    #[serde(default, alias = "mediaFormat")]
    pub(super) media_format: Option<MediaFormat>,
}

/// A greeting, which carries the URL's parameters in some products.
#[derive(Deserialize)]
pub(super) struct ConnectedMessage<'a> {
    #[serde(borrow, default, alias = "customParameters")]
    pub(super) custom_parameters: Custom<'a>,
}

#[derive(Deserialize)]
pub(super) struct MediaFormat {
    #[serde(default, deserialize_with = "codec::told_text")]
    pub(super) encoding: Text<'static>,
    #[serde(default, alias = "sampleRate", deserialize_with = "codec::told_text")]
    pub(super) sample_rate: Text<'static>,
}

/// What came along in the URL's query; `null` or a text is nothing.
#[derive(Default)]
pub(super) struct Custom<'a> {
    pub(super) token: Text<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Custom<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> de::Visitor<'de> for Read {
            type Value = Custom<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Loose<'a>(#[serde(borrow, deserialize_with = "json::loose_text")] Text<'a>);
                let mut custom = Custom::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let Loose(value) = map.next_value()?;
                    if key == "token" {
                        custom.token = value.filter(|v| !v.is_empty());
                    }
                }
                Ok(custom)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Custom::default())
            }

            fn visit_borrowed_str<E>(self, _: &'de str) -> Result<Self::Value, E> {
                Ok(Custom::default())
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Custom::default())
            }
        }
        d.deserialize_any(Read)
    }
}

#[derive(Deserialize)]
pub(super) struct DtmfMessage<'a> {
    #[serde(borrow, flatten)]
    pub(super) ids: Ids<'a>,
    #[serde(borrow)]
    pub(super) dtmf: Option<DtmfBody<'a>>,
    /// The flat form of the extension's page.
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) digit: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct DtmfBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) digit: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct MarkMessage<'a> {
    #[serde(borrow, flatten)]
    pub(super) ids: Ids<'a>,
    #[serde(borrow)]
    pub(super) mark: Option<MarkBody<'a>>,
}

#[derive(Deserialize)]
pub(super) struct MarkBody<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    pub(super) name: Text<'a>,
}
