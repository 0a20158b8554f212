//! Messages of Teler's media socket, parsed and formatted.
//!
//! Inbound audio takes a positional scan of the documented shape; all else takes serde. Outbound messages are flat: nested ones
//! are ignored silently, and the caller hears nothing.

use super::{
    L16_8K,
    message::{AudioMessage, Head, StartMessage},
};
use crate::{
    base::format::{AudioFormat, Encoding},
    vendor::{
        Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, Upgrade, WireError,
        codec::{id, keep, quoted, read},
        params::is_id,
    },
    wire::{
        base64,
        json::{self, Scan},
    },
};
use bytes::BytesMut;
use std::{borrow::Cow, fmt::Write};

/// One media socket's codec.
#[derive(Debug)]
pub(super) struct Codec {
    /// What our call flow put into the socket's URL: the call's id in REST and webhooks, the rate that was asked for, which goes over
    /// the one that `start` says, and the length of our messages.
    known_as: Option<String>,
    asked_rate: Option<u32>,
    ptime_ms: Option<u32>,
    stream: Option<Stream>,
    /// Unescaped text of the last message, where it had escapes.
    scratch: String,
}

/// What `start` settled, prepared for use in every frame.
#[derive(Debug)]
struct Stream {
    id: String,
    /// What stands before the number of an inbound audio message.
    before_number: Vec<u8>,
    /// Number of the last audio message sent.
    chunk: u64,
}

impl Stream {
    fn new(id: String) -> Self {
        let name = quoted(&id);
        Self {
            before_number: format!(r#"{{"type":"audio","stream_id":"{name}","message_id":"#).into_bytes(),
            chunk: 0,
            id,
        }
    }

    /// The audio message of this stream, spelled as Teler's page spells it.
    fn scan_audio<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        let mut scan = Scan::new(message);
        scan.literal(&self.before_number)?;
        scan.digits()?;
        scan.literal(br#","data":{"audio_b64":""#)?;
        let payload = scan.string_rest()?;
        scan.end(b"}}")?;
        Some(payload)
    }
}

/// Audio from the call.
const fn media(payload: &[u8]) -> StreamEvent<'_> {
    StreamEvent::Media(Media {
        payload: Payload::Base64(payload),
        inbound: true,
        chunk: None,
        at_ms: None,
        rate: None,
    })
}

impl Codec {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let query = |name| upgrade.query.iter().find(|(n, _)| n == name).map(|(_, v)| &**v);
        let number = |name| query(name).and_then(|v| v.parse::<u32>().ok());
        Self {
            known_as: query("call").filter(|c| is_id(c)).map(str::to_owned),
            asked_rate: number("rate").filter(|r| AudioFormat::RATES.contains(r)),
            ptime_ms: number("playback").filter(|ms| (20..=2000).contains(ms) && ms.is_multiple_of(20)),
            stream: None,
            scratch: String::new(),
        }
    }

    /// Everything but the fast path.
    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let kind = match json::first_member(message, "type") {
            Some(kind) => Cow::Borrowed(kind),
            None => read::<Head<'_>>(message, "type")?
                .kind
                .ok_or(WireError::Shape("type"))?,
        };
        match &*kind {
            "audio" => {
                let message: AudioMessage<'a> = read(message, "audio")?;
                let Some(stream) = &self.stream else {
                    return Err(WireError::Shape("start"));
                };
                if message.stream_id.is_some_and(|named| named != stream.id) {
                    return Err(WireError::Shape("stream_id"));
                }
                let audio = message.data.and_then(|d| d.audio_b64).or(message.audio_b64);
                let audio = audio.ok_or(WireError::Shape("data.audio_b64"))?;
                Ok(media(keep(&mut self.scratch, audio).as_bytes()))
            }
            "start" => self.start(read(message, "start")?),
            // Teler says nothing of the kind; who plays Teler may.
            "stop" => read::<Head<'_>>(message, "stop").map(|_| StreamEvent::Stop),
            _ => read::<Head<'_>>(message, "type").map(|_| StreamEvent::Ignored),
        }
    }

    fn start<'a>(&mut self, start: StartMessage<'_>) -> Result<StreamEvent<'a>, WireError> {
        if self.stream.is_some() {
            return Err(WireError::Shape("start"));
        }
        let stream_id = id(start.stream_id, "stream_id")?;
        let call_id = id(start.call_id, "call_id")?;
        let (encoding, rate, channels) = start
            .data
            .map_or((None, None, None), |d| (d.encoding, d.sample_rate, d.channels));
        let encoding = match encoding.as_deref() {
            None => Encoding::L16Le,
            Some(name) => Encoding::parse(name).ok_or(WireError::Format)?,
        };
        let said = rate.and_then(|r| u32::try_from(r).ok());
        let rate = self.asked_rate.or(said).unwrap_or(8000);
        if !AudioFormat::RATES.contains(&rate) || channels.is_some_and(|c| c != 1) {
            return Err(WireError::Format);
        }
        self.stream = Some(Stream::new(stream_id.clone()));
        Ok(StreamEvent::Start(Box::new(StreamStart {
            stream_id,
            call_sid: self.known_as.clone().unwrap_or(call_id),
            account: start.account_id.map(Cow::into_owned).filter(|a| is_id(a)),
            token: None,
            inbound: AudioFormat { encoding, rate },
            outbound: L16_8K,
            from: None,
            to: None,
            ptime_ms: self.ptime_ms,
        })))
    }
}

impl StreamCodec for Codec {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        match self.stream.as_ref().and_then(|s| s.scan_audio(message)) {
            Some(payload) => Ok(media(payload)),
            None => self.read(message),
        }
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        let Some(stream) = &mut self.stream else { return };
        match command {
            // Closing the socket ends the call.
            StreamCommand::Media([]) | StreamCommand::Mark(_) | StreamCommand::HangUp => {}
            StreamCommand::Media(audio) => {
                stream.chunk += 1;
                out.reserve(base64::encoded_len(audio.len()) + 80);
                out.extend_from_slice(br#"{"type":"audio","audio_b64":""#);
                base64::append(audio, out);
                let _ = write!(out, r#"","chunk_id":{}}}"#, stream.chunk);
            }
            StreamCommand::Clear => out.extend_from_slice(br#"{"type":"clear"}"#),
            StreamCommand::Interrupt(chunk) => {
                let _ = write!(
                    out,
                    r#"{{"type":"interrupt","chunk_id":{}}}"#,
                    chunk.unwrap_or(stream.chunk)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::{Peer as _, PeerCall, PeerEvent, teler::peer::Peer};

    const EXCHANGE: &str = include_str!("testdata/stream.jsonl");
    const BARE: &str = include_str!("testdata/bare.jsonl");

    fn codec(query: &[(&str, &str)]) -> Codec {
        let query = query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Codec::new(&Upgrade {
            query: query.collect(),
            ..Upgrade::default()
        })
    }

    fn start_of(codec: &mut Codec, message: &str) -> StreamStart {
        match codec.parse(message.as_bytes()) {
            Ok(StreamEvent::Start(start)) => *start,
            other => panic!("{message}: {other:?}"),
        }
    }

    fn say(codec: &mut Codec, message: &str) -> String {
        format!("{:?}", codec.parse(message.as_bytes()))
    }

    fn written(codec: &mut Codec, command: StreamCommand<'_>) -> String {
        let mut out = BytesMut::new();
        codec.format(command, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn whole_exchanges_are_understood_with_and_without_what_may_be_missing() {
        for (exchange, call, stream) in [
            (
                EXCHANGE,
                "cs_5NGFF35W81ACMAH2PEVCQVCQ93",
                "ms_0VCX9M023M8GYA4RJARK06QJPF",
            ),
            (BARE, "call-uuid", "stream-uuid"),
        ] {
            let (mut codec, mut lines) = (codec(&[]), exchange.lines());
            let start = start_of(&mut codec, lines.next().unwrap());
            assert_eq!((&*start.call_sid, &*start.stream_id), (call, stream));
            assert_eq!((start.inbound, start.outbound, start.token), (L16_8K, L16_8K, None));
            for line in lines {
                let Ok(StreamEvent::Media(media)) = codec.parse(line.as_bytes()) else {
                    panic!("{line}")
                };
                assert_eq!(media.payload, Payload::Base64(b"AAABAP//"));
            }
        }
    }

    #[test]
    fn the_url_says_which_call_and_rate_and_start_does_not_overrule_it() {
        let mut codec = codec(&[("call", "rest-id"), ("rate", "16000"), ("playback", "200")]);
        let start = start_of(&mut codec, EXCHANGE.lines().next().unwrap());
        assert_eq!(
            (&*start.call_sid, start.inbound.rate, start.outbound.rate),
            ("rest-id", 16000, 8000)
        );
        assert_eq!(start.ptime_ms, Some(200));
        let odd = [("call", "a b"), ("rate", "44100"), ("playback", "30")];
        let start = start_of(&mut self::codec(&odd), EXCHANGE.lines().next().unwrap());
        assert!(start.call_sid.starts_with("cs_") && start.inbound.rate == 8000 && start.ptime_ms.is_none());
    }

    #[test]
    fn what_is_no_message_is_refused_and_what_is_unknown_ignored() {
        let mut codec = codec(&[]);
        assert_eq!(say(&mut codec, r#"{"type":"hello"}"#), "Ok(Ignored)");
        assert!(
            codec.parse(br#"{"type":"audio","data":{"audio_b64":"AAA="}}"#).is_err(),
            "before start"
        );
        start_of(&mut codec, BARE.lines().next().unwrap());
        assert!(say(&mut codec, r#"{"type":"audio","audio_b64":"A\u0041A="}"#).contains("Base64"));
        assert_eq!(say(&mut codec, r#"{"type":"stop"}"#), "Ok(Stop)");
        for bad in [
            "not json",
            r#"{"event":"audio"}"#,
            r#"{"type":"audio","stream_id":"other","data":{"audio_b64":"AAA="}}"#,
            r#"{"type":"audio","data":{}}"#,
            BARE.lines().next().unwrap(),
        ] {
            assert!(codec.parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in [
            r#"{"type":"start","call_id":"c"}"#,
            r#"{"type":"start","stream_id":"s"}"#,
            r#"{"type":"start","call_id":"c","stream_id":"s","data":{"encoding":"speex"}}"#,
            r#"{"type":"start","call_id":"c","stream_id":"s","data":{"sample_rate":11025}}"#,
            r#"{"type":"start","call_id":"c","stream_id":"s","data":{"channels":2}}"#,
        ] {
            assert!(self::codec(&[]).parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn chunks_are_numbered_from_one_and_read_by_the_other_end() {
        assert_eq!(written(&mut codec(&[]), StreamCommand::Clear), "");
        let mut peer = Peer::new(PeerCall::default());
        let mut codec = codec(&[]);
        start_of(&mut codec, BARE.lines().next().unwrap());
        let first = written(&mut codec, StreamCommand::Media(&[0, 0]));
        assert_eq!(first, r#"{"type":"audio","audio_b64":"AAA=","chunk_id":1}"#);
        let second = written(&mut codec, StreamCommand::Media(&[0; 8000]));
        assert!(matches!(peer.read(second.as_bytes()), Ok(PeerEvent::Media(_))));
        let last = written(&mut codec, StreamCommand::Interrupt(None));
        assert_eq!(last, r#"{"type":"interrupt","chunk_id":2}"#);
        assert!(written(&mut codec, StreamCommand::Interrupt(Some(1))).contains(":1}"));
        assert_eq!(
            peer.read(written(&mut codec, StreamCommand::Clear).as_bytes()),
            Ok(PeerEvent::Clear)
        );
        let silent = [
            StreamCommand::Mark("m"),
            StreamCommand::HangUp,
            StreamCommand::Media(&[]),
        ];
        assert_eq!(silent.map(|c| written(&mut codec, c)), [""; 3]);
    }
}
