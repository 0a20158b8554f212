//! Ozonetel's end of the media socket and of the call flow, spelled as it spells them, and what it would drop.

use super::{L16_8K, desk};
use crate::{
    base::{format::AudioFormat, secret::Secret},
    vendor::{
        self, Answer, ApiRequest, HookRequest, Payload, PeerCall, PeerEvent, PeerReply, WireError,
        codec::{quoted, read},
        gate::sealed,
        params::with_query,
    },
    wire::{numbers, xml::Element},
};
use bytes::BytesMut;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::{HashSet, VecDeque},
    fmt::Write,
    time::Duration,
};

/// The platform gives its hook little time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Ids of messages that it remembers, to drop what repeats one.
const REMEMBERED: usize = 3000;

/// A simulated stream of one call.
#[derive(Debug)]
pub(super) struct Peer {
    call: PeerCall,
    /// The last ids of our messages, and their order.
    seen: HashSet<String>,
    order: VecDeque<String>,
    numbers: BytesMut,
}

impl Peer {
    pub(super) fn new(call: PeerCall) -> Self {
        Self {
            call,
            seen: HashSet::new(),
            order: VecDeque::new(),
            numbers: BytesMut::new(),
        }
    }

    fn digits(number: &str) -> &str {
        number.trim_start_matches('+')
    }

    fn hook(&self, url: &str, secret: Option<&Secret>, parameters: &[(&str, &str)]) -> ApiRequest {
        let url = parameters.iter().fold(
            sealed(url, self.call.url_secret.as_ref().or(secret)),
            |url, (name, value)| with_query(&url, name, value),
        );
        ApiRequest {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Default::default(),
            timeout: TIMEOUT,
        }
    }
}

impl vendor::Peer for Peer {
    fn format(&self) -> AudioFormat {
        L16_8K
    }

    fn frame_ms(&self) -> u32 {
        10
    }

    fn open(&mut self) -> Vec<String> {
        let mut headers = format!(r#"{{"event":"NewCall","sid":"{}""#, quoted(&self.call.call_sid));
        if let Some(token) = &self.call.token {
            let _ = write!(headers, r#","token":"{}""#, quoted(token));
        }
        headers.push('}');
        vec![format!(
            r#"{{"event":"start","type":"text","ucid":"{}","did":"{}","call_id":"{}","x_account":"{}","x_headers":"{}","media":{{"encoding":"PCMU","sampleRate":8000,"channels":1,"bitsPerSample":16,"payloadType":0}}}}"#,
            quoted(&self.call.call_sid),
            quoted(Self::digits(&self.call.to)),
            quoted(Self::digits(&self.call.from)),
            quoted(self.call.account.as_deref().unwrap_or("sidetone")),
            quoted(&headers)
        )]
    }

    fn media(&mut self, audio: &[u8], _: u64, out: &mut String) {
        self.numbers.clear();
        numbers::append(audio, &mut self.numbers);
        let _ = write!(
            out,
            r#"{{"event":"media","type":"media","ucid":"{}","data":{{"samples":[{}],"bitsPerSample":16,"sampleRate":8000,"channelCount":1,"numberOfFrames":{},"type":"data"}}}}"#,
            quoted(&self.call.call_sid),
            String::from_utf8_lossy(&self.numbers),
            audio.len() / 2
        );
    }

    fn stray(&mut self) -> Option<String> {
        let mut message = String::new();
        self.media(&[0; 320], 0, &mut message);
        Some(message.replace(r#""sampleRate":8000"#, r#""sampleRate":16000"#))
    }

    fn dtmf(&mut self, digit: char) -> String {
        let digit = quoted(digit.encode_utf8(&mut [0; 4]));
        let ucid = quoted(&self.call.call_sid);
        format!(r#"{{"event":"media","type":"dtmf","ucid":"{ucid}","signal":"{digit}"}}"#)
    }

    fn mark(&mut self, name: &str) -> String {
        let (ucid, name) = (quoted(&self.call.call_sid), quoted(name));
        format!(r#"{{"event":"mark","type":"ack","ucid":"{ucid}","seqid":"{name}","timestamp":0}}"#)
    }

    fn stop(&mut self) -> String {
        let (ucid, did) = (quoted(&self.call.call_sid), quoted(Self::digits(&self.call.to)));
        format!(r#"{{"event":"stop","type":"text","ucid":"{ucid}","did":"{did}","cause":433}}"#)
    }

    fn announce(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        let parameters = [
            ("event", "NewCall"),
            ("sid", &*self.call.call_sid),
            ("cid", Self::digits(&self.call.from)),
            ("cid_e164", &self.call.from),
            ("called_number", Self::digits(&self.call.to)),
            ("cid_type", "MOBILE"),
        ];
        Some(self.hook(url, secret, &parameters))
    }

    fn answered(&self, document: &[u8]) -> Result<Answer, WireError> {
        let root = std::str::from_utf8(document).ok().and_then(|d| Element::parse(d).ok());
        let root = root
            .filter(|r| r.name == "response")
            .ok_or(WireError::Shape("response"))?;
        let tag = root.children.first().ok_or(WireError::Shape("response"))?;
        match &*tag.name {
            "hangup" => Ok(Answer::HangUp),
            "stream" if tag.attribute("is_sip") == Some("true") => {
                #[derive(Deserialize, Default)]
                struct Carried {
                    #[serde(default)]
                    token: String,
                    #[serde(default)]
                    session_id: String,
                }
                let url = tag.attribute("url").unwrap_or_default();
                let carried = tag.attribute("x-uui").unwrap_or("{}");
                let carried: Carried = read(carried.as_bytes(), "x-uui")?;
                if !url.starts_with("ws://") && !url.starts_with("wss://") {
                    return Err(WireError::Shape("url"));
                }
                Ok(Answer::Stream {
                    url: url.to_owned(),
                    token: carried.token,
                    status_url: String::new(),
                    session_id: carried.session_id,
                })
            }
            _ => Err(WireError::Shape("response")),
        }
    }

    fn conclude(&self, url: &str, _: u32, secret: Option<&Secret>) -> Option<ApiRequest> {
        let parameters = [
            ("event", "Hangup"),
            ("sid", &*self.call.call_sid),
            ("process", "stream"),
        ];
        Some(self.hook(url, secret, &parameters))
    }

    fn command(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Option<PeerReply> {
        Some(desk::command(&self.call, request, key))
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        let message: Outbound<'a> = read(message, "event")?;
        match message.command.as_deref() {
            Some("clearBuffer") => return Ok(PeerEvent::Clear),
            Some("callDisconnect") => return Ok(PeerEvent::Other),
            Some(_) => return Err(WireError::Shape("command")),
            None => {}
        }
        if message.event.as_deref() != Some("media") || message.ucid.as_deref() != Some(&*self.call.call_sid) {
            return Err(WireError::Shape("ucid"));
        }
        let data = message.data.ok_or(WireError::Shape("data"))?;
        let samples = data.samples.get().trim();
        let samples = samples.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
        let samples = samples.ok_or(WireError::Shape("data.samples"))?;
        let said = data.number_of_frames as usize;
        let mut pcm = vec![0; said];
        let counted = numbers::decode(samples.as_bytes(), &mut pcm) == Ok(said) && (1..=8000).contains(&said);
        if !counted || (data.sample_rate, data.bits_per_sample, data.channel_count) != (8000, 16, 1) {
            return Err(WireError::Shape("data"));
        }
        let seqid = message
            .seqid
            .filter(|s| !s.is_empty())
            .ok_or(WireError::Shape("seqid"))?;
        if !self.seen.insert(seqid.to_string()) {
            return Err(WireError::Shape("seqid"));
        }
        self.order.push_back(seqid.into_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        Ok(PeerEvent::Media(Payload::Numbers(samples.as_bytes())))
    }
}

#[derive(Deserialize)]
struct Outbound<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    command: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ucid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    seqid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<OutboundData<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutboundData<'a> {
    #[serde(borrow)]
    samples: &'a RawValue,
    bits_per_sample: u32,
    sample_rate: u32,
    channel_count: u32,
    number_of_frames: u16,
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Account, Config},
        *,
    };
    use crate::vendor::{
        CallNews, EndReason, Hook, HookKind, Peer as _, Trunk, account::tests::configured, params::tests::asked,
    };

    fn peer() -> Peer {
        Peer::new(PeerCall {
            call_sid: "777".into(),
            from: "+919800000001".into(),
            to: "+918000000000".into(),
            ..PeerCall::default()
        })
    }

    #[test]
    fn an_announced_call_is_believed_with_the_right_secret_and_reads_its_flow() {
        let account = Account::new(configured(&[("webhook_secret", "w")], Config::read).0);
        for (secret, believed) in [("w", true), ("v", false)] {
            let secret = Secret::new(secret);
            let announced = peer().announce("/h", Some(&secret)).unwrap();
            let concluded = peer().conclude("/h", 7, Some(&secret)).unwrap();
            asked("GET", &concluded.url, "", "", |r| {
                assert_eq!(account.verify(r).is_ok(), believed);
                let Ok(Hook::News(update)) = account.parse(HookKind::Mixed, r) else {
                    panic!("no news")
                };
                assert_eq!(update.news, CallNews::Ended(EndReason::Completed));
            });
            asked("GET", &announced.url, "", "", |r| {
                assert_eq!(account.verify(r).is_ok(), believed);
                let Ok(Hook::Call(update)) = account.parse(HookKind::Mixed, r) else {
                    panic!("no call")
                };
                assert_eq!((&*update.from, &*update.to), ("+919800000001", "918000000000"));
                let stream = Answer::Stream {
                    url: "wss://relay.example.com/ws?token=t".into(),
                    token: "t".into(),
                    status_url: String::new(),
                    session_id: "s-1".into(),
                };
                let document = account.answer(r, &stream);
                assert_eq!(peer().answered(document.body.as_bytes()), Ok(stream));
                let document = account.answer(r, &Answer::Busy);
                assert_eq!(peer().answered(document.body.as_bytes()), Ok(Answer::HangUp));
            });
        }
    }

    #[test]
    fn what_the_platform_would_drop_is_refused() {
        let mut peer = peer();
        let media = |n: u32| {
            format!(
                r#"{{"event":"media","type":"media","ucid":"777","seqid":"u1-{n}","data":{{"samples":[1,2],"bitsPerSample":16,"sampleRate":8000,"channelCount":1,"numberOfFrames":2,"type":"data"}}}}"#
            )
        };
        assert!(peer.read(media(1).as_bytes()).is_ok());
        let bad = [
            media(1),
            media(2).replace("777", "778"),
            media(2).replace(r#""seqid":"u1-2","#, ""),
            media(2).replace("[1,2]", "[1,2,3]"),
            media(2).replace("8000", "16000"),
            media(2).replace("[1,2]", "\"AQI=\""),
            r#"{"command":"dance"}"#.to_owned(),
            r#"{"event":"stop","ucid":"777"}"#.to_owned(),
        ];
        for bad in bad {
            assert!(peer.read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(peer.answered(b"<response/>").is_err());
        assert!(peer.answered(b"<response><stream url='wss://h'/></response>").is_err());
    }
}
