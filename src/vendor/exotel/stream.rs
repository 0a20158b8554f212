//! Messages of Exotel's media socket, parsed and formatted.
//!
//! Inbound audio takes a positional scan of the documented shape; all else takes serde, leniently (see `message.rs`).
//! Outbound, `sequence_number`, `chunk` and `timestamp` are written because some streams end early without them.

use super::message::{ConnectedMessage, DtmfMessage, Head, MarkMessage, MediaFormat, MediaMessage, StartMessage};
use crate::{
    base::format::{AudioFormat, Encoding},
    vendor::{
        Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, Upgrade, WireError,
        codec::{self, dtmf, id, read},
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
    /// The rate that the socket's URL asks for.
    asked_rate: Option<u32>,
    /// The token, where it came with the greeting.
    token: Option<String>,
    stream: Option<Stream>,
    /// Unescaped text of the last message, where it had escapes.
    scratch: String,
}

/// What `start` settled, prepared for use in every frame.
#[derive(Debug)]
struct Stream {
    id: String,
    outbound: AudioFormat,
    /// What stands between sequence number and chunk number of an inbound media message.
    after_sequence: Vec<u8>,
    /// What stands after an event's name or number: the stream.
    named: String,
    /// Messages and audio messages sent.
    sequence: u64,
    chunk: u64,
    /// Samples sent.
    samples: u64,
}

impl Stream {
    fn new(id: String, outbound: AudioFormat) -> Self {
        let mut quoted = String::new();
        json::escape(&id, |piece| quoted.push_str(piece));
        Self {
            outbound,
            after_sequence: format!(r#"","stream_sid":"{quoted}","media":{{"chunk":""#).into_bytes(),
            named: format!(r#""stream_sid":"{quoted}""#),
            sequence: 0,
            chunk: 0,
            samples: 0,
            id,
        }
    }

    /// The media message of this stream, spelled as the protocol's page spells it.
    fn scan_media<'a>(&self, message: &'a [u8]) -> Option<Media<'a>> {
        let mut scan = Scan::new(message);
        scan.literal(br#"{"event":"media","sequence_number":""#)?;
        scan.digits()?;
        scan.literal(&self.after_sequence)?;
        let chunk = scan.digits()?;
        scan.literal(br#"","timestamp":""#)?;
        let at_ms = scan.digits()?;
        scan.literal(br#"","payload":""#)?;
        let payload = scan.string_rest()?;
        scan.end(b"}}")?;
        Some(Media {
            payload: Payload::Base64(payload),
            inbound: true,
            chunk: Some(chunk),
            at_ms: Some(at_ms),
            rate: None,
        })
    }

    /// Appends a message up to its body.
    fn head(&mut self, event: &str, out: &mut BytesMut) {
        self.sequence += 1;
        let _ = write!(
            out,
            r#"{{"event":"{event}","sequence_number":"{}",{}"#,
            self.sequence, self.named
        );
    }
}

impl Codec {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let asked = upgrade
            .query
            .iter()
            .find(|(n, _)| n == "sample-rate" || n == "sample_rate");
        Self {
            asked_rate: asked.and_then(|(_, rate)| read_rate(rate)),
            token: None,
            stream: None,
            scratch: String::new(),
        }
    }

    /// Everything but the fast path.
    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let event = match json::first_member(message, "event") {
            Some(event) => Cow::Borrowed(event),
            None => read::<Head<'_>>(message, "event")?
                .event()
                .ok_or(WireError::Shape("event"))?,
        };
        match &*event {
            "media" => {
                let mut message: MediaMessage<'a> = read(message, "media")?;
                self.expect_stream(message.ids.stream())?;
                let media = message.media.ok_or(WireError::Shape("media"))?;
                let (chunk, at_ms) = (media.chunk, media.timestamp);
                let outbound = media.track.as_deref() == Some("outbound");
                let payload = media.payload().ok_or(WireError::Shape("media.payload"))?;
                Ok(StreamEvent::Media(Media {
                    payload: Payload::Base64(codec::keep(&mut self.scratch, payload).as_bytes()),
                    inbound: !outbound,
                    chunk,
                    at_ms,
                    rate: None,
                }))
            }
            "connected" => {
                let message: ConnectedMessage<'_> = read(message, "connected")?;
                self.token = message.custom_parameters.token.map(Cow::into_owned);
                Ok(StreamEvent::Hello)
            }
            "start" => self.start(read(message, "start")?),
            "dtmf" => {
                let mut message: DtmfMessage<'_> = read(message, "dtmf")?;
                self.expect_stream(message.ids.stream())?;
                dtmf(message.dtmf.and_then(|d| d.digit).or(message.digit)).map(StreamEvent::Dtmf)
            }
            "mark" => {
                let mut message: MarkMessage<'a> = read(message, "mark")?;
                self.expect_stream(message.ids.stream())?;
                let name = message.mark.and_then(|m| m.name).ok_or(WireError::Shape("mark.name"))?;
                Ok(StreamEvent::Mark(codec::keep(&mut self.scratch, name)))
            }
            "stop" => {
                let message: Head<'_> = read(message, "stop")?;
                self.expect_stream(message.stream_sid())?;
                Ok(StreamEvent::Stop)
            }
            _ => read::<Head<'_>>(message, "event").map(|_| StreamEvent::Ignored),
        }
    }

    fn start<'a>(&mut self, mut message: StartMessage<'_>) -> Result<StreamEvent<'a>, WireError> {
        if self.stream.is_some() {
            return Err(WireError::Shape("start"));
        }
        let mut start = message.start.ok_or(WireError::Shape("start"))?;
        let stream_id = id(start.ids.stream().or(message.ids.stream()), "stream_sid")?;
        let call_sid = id(start.ids.call().or(message.ids.call()), "call_sid")?;
        let account = start.ids.account().or(message.ids.account());
        let format = self.agreed(start.media_format)?;
        let text = |t: Option<Cow<'_, str>>| t.filter(|t| !t.is_empty()).map(Cow::into_owned);
        self.stream = Some(Stream::new(stream_id.clone(), format));
        Ok(StreamEvent::Start(Box::new(StreamStart {
            stream_id,
            call_sid,
            account: text(account).filter(|a| is_id(a)),
            token: text(start.custom_parameters.token).or(self.token.take()),
            inbound: format,
            outbound: format,
            from: text(start.from),
            to: text(start.to),
            ptime_ms: None,
        })))
    }

    /// The format: what `start` says, else what the URL asks for. `base64` and `raw` are no codecs but say that it is PCM.
    fn agreed(&self, said: Option<MediaFormat>) -> Result<AudioFormat, WireError> {
        let (encoding, rate) = said.map_or((None, None), |f| (f.encoding, f.sample_rate));
        let name = encoding.as_deref().unwrap_or_default();
        let name = name.split(';').next().unwrap_or_default();
        if !name.is_empty() && !name.bytes().any(|b| b.is_ascii_alphabetic()) {
            return Err(WireError::Format);
        }
        let encoding = Encoding::parse(name).unwrap_or(Encoding::L16Le);
        let rate = match rate.filter(|r| !r.is_empty()) {
            Some(rate) => read_rate(&rate).ok_or(WireError::Format)?,
            None => self.asked_rate.unwrap_or(8000),
        };
        Ok(AudioFormat { encoding, rate })
    }

    /// A message may leave its `stream_sid` out, and must not name another stream.
    fn expect_stream(&self, named: Option<Cow<'_, str>>) -> Result<(), WireError> {
        match (&self.stream, named) {
            (Some(stream), Some(named)) if stream.id != named => Err(WireError::Shape("stream_sid")),
            _ => Ok(()),
        }
    }
}

/// A rate as it is written: `8000`, `16kHz`.
fn read_rate(text: &str) -> Option<u32> {
    let digits = text.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    let rate: u32 = digits.parse().ok()?;
    let rate = if rate < 1000 { rate * 1000 } else { rate };
    AudioFormat::RATES.contains(&rate).then_some(rate)
}

impl StreamCodec for Codec {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        match self.stream.as_ref().and_then(|s| s.scan_media(message)) {
            Some(media) => Ok(StreamEvent::Media(media)),
            None => self.read(message),
        }
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        let Some(stream) = &mut self.stream else { return };
        match command {
            StreamCommand::Media([]) => {}
            StreamCommand::Media(audio) => {
                out.reserve(stream.named.len() + base64::encoded_len(audio.len()) + 160);
                stream.head("media", out);
                stream.chunk += 1;
                let at_ms = stream.samples * 1000 / u64::from(stream.outbound.rate);
                let _ = write!(
                    out,
                    r#","media":{{"chunk":"{}","timestamp":"{at_ms}","payload":""#,
                    stream.chunk
                );
                base64::append(audio, out);
                out.extend_from_slice(br#""}}"#);
                stream.samples += (audio.len() / stream.outbound.encoding.sample_bytes()) as u64;
            }
            StreamCommand::Mark(name) => {
                stream.head("mark", out);
                out.extend_from_slice(br#","mark":{"name":""#);
                json::escape(name, |piece| out.extend_from_slice(piece.as_bytes()));
                out.extend_from_slice(br#""}}"#);
            }
            StreamCommand::Clear => {
                stream.head("clear", out);
                out.extend_from_slice(b"}");
            }
            // Closing the socket ends the stream, and with it a call that we placed.
            StreamCommand::HangUp => {}
            // One chunk cannot be told from another.
            StreamCommand::Interrupt(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::{Peer as _, PeerCall, PeerEvent, exotel::peer::Peer};

    const EXCHANGE: &str = include_str!("testdata/stream.jsonl");
    const SID: &str = "57b1d8a0c4e54e0f8e6f0c7d1a2b3c4d";
    const CALL: &str = "c5797dcbaaeed7678c4062a4a3ed2f8a";

    fn codec(query: &[(&str, &str)]) -> Codec {
        let query = query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Codec::new(&Upgrade {
            query: query.collect(),
            ..Upgrade::default()
        })
    }

    fn started(codec: &mut Codec, message: &str) -> StreamStart {
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
    fn a_whole_exchange_is_understood() {
        let mut codec = codec(&[]);
        let mut lines = EXCHANGE.lines();
        let mut next = || lines.next().unwrap();
        assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Hello)));
        let format = AudioFormat {
            encoding: Encoding::L16Le,
            rate: 8000,
        };
        let expect = StreamStart {
            stream_id: SID.into(),
            call_sid: CALL.into(),
            account: Some("acct1".into()),
            token: Some("t0k".into()),
            inbound: format,
            outbound: format,
            from: Some("+15550100".into()),
            to: Some("+15550101".into()),
            ptime_ms: None,
        };
        assert_eq!(started(&mut codec, next()), expect);
        let Ok(StreamEvent::Media(media)) = codec.parse(next().as_bytes()) else {
            panic!("no media")
        };
        assert_eq!(
            (media.payload, media.inbound, media.at_ms),
            (Payload::Base64(b"AAABAP//"), true, Some(100))
        );
        assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Dtmf('5'))));
        assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Mark("u7"))));
        assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Stop)));
    }

    #[test]
    fn every_spelling_of_a_start_is_read() {
        for (message, rate, encoding) in [
            (
                r#"{"event":"start","stream_sid":"s","start":{"call_sid":"c"}}"#,
                8000,
                Encoding::L16Le,
            ),
            (
                r#"{"event":"start","streamSid":"s","start":{"callSid":"c","mediaFormat":{"encoding":"base64","sampleRate":16000}}}"#,
                16000,
                Encoding::L16Le,
            ),
            (
                r#"{"Event":"start","start":{"stream_sid":"s","leg_sid":"c","media_format":{"encoding":"raw","sample_rate":"24kHz"}}}"#,
                24000,
                Encoding::L16Le,
            ),
            (
                r#"{"event":"start","stream_sid":"s","call_sid":"c","start":{"custom_parameters":null,"media_format":{"encoding":"audio/x-mulaw;rate=8000","sample_rate":"8000","bit_rate":"128kbps"}}}"#,
                8000,
                Encoding::Ulaw,
            ),
            (
                r#"{"event":"start","stream_sid":"s","start":{"stream_sid":"s","streamSid":"s","call_sid":"c","custom_parameters":{"token":""},"from":5}}"#,
                8000,
                Encoding::L16Le,
            ),
        ] {
            let start = started(&mut codec(&[]), message);
            assert_eq!(
                (&*start.stream_id, &*start.call_sid, start.token),
                ("s", "c", None),
                "{message}"
            );
            assert_eq!(
                (start.inbound.rate, start.outbound.encoding),
                (rate, encoding),
                "{message}"
            );
        }
        let bare = r#"{"event":"start","stream_sid":"s","start":{"call_sid":"c"}}"#;
        assert_eq!(
            started(&mut codec(&[("sample-rate", "16000")]), bare).inbound.rate,
            16000
        );
        assert_eq!(
            started(&mut codec(&[("sample_rate", "24000")]), bare).inbound.rate,
            24000
        );
        assert_eq!(
            started(&mut codec(&[("sample-rate", "11025")]), bare).inbound.rate,
            8000
        );
        let mut greeted = codec(&[]);
        say(
            &mut greeted,
            r#"{"event":"connected","custom_parameters":{"token":"t"}}"#,
        );
        assert_eq!(started(&mut greeted, bare).token.as_deref(), Some("t"));
    }

    #[test]
    fn numbers_and_texts_are_the_same_and_other_streams_are_refused() {
        let mut codec = codec(&[]);
        started(
            &mut codec,
            r#"{"event":"start","stream_sid":"s","start":{"call_sid":"c"}}"#,
        );
        let media = say(
            &mut codec,
            r#"{"event":"media","sequence_number":"3","stream_sid":"s","media":{"chunk":"2","timestamp":"200","payload":"AAA="}}"#,
        );
        for same in [
            r#"{"event":"media","sequence_number":3,"stream_sid":"s","media":{"chunk":2,"timestamp":200,"payload":"AAA="}}"#,
            r#"{"media":{"payload":"AAA=","timestamp":"200","chunk":"2"},"event":"media"}"#,
            r#"{"event":"media","streamSid":"s","media":{"Payload":"A\u0041A=","chunk":2,"timestamp":200}}"#,
        ] {
            assert_eq!(say(&mut codec, same), media, "{same}");
        }
        assert!(say(&mut codec, r#"{"event":"dtmf","digit":"5"}"#).contains("Dtmf('5')"));
        for ignored in [
            r#"{"event":"clear"}"#,
            r#"{"event":"silence","x":[1]}"#,
            r#"{"event":"hm"}"#,
        ] {
            assert_eq!(say(&mut codec, ignored), "Ok(Ignored)", "{ignored}");
        }
        for bad in [
            r#"{"event":"media","stream_sid":"t","media":{"payload":"AAA="}}"#,
            r#"{"event":"media","stream_sid":"s"}"#,
            r#"{"event":"media","stream_sid":"s","media":{}}"#,
            r#"{"event":"dtmf","dtmf":{"digit":"55"}}"#,
            r#"{"event":"start","stream_sid":"s","start":{"call_sid":"c"}}"#,
            r#"{"type":"media"}"#,
            "not json",
        ] {
            assert!(codec.parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut fresh = self::codec(&[]);
        let odd =
            r#"{"event":"start","stream_sid":"s","start":{"call_sid":"c","media_format":{"sample_rate":"11025"}}}"#;
        assert_eq!(fresh.parse(odd.as_bytes()).unwrap_err(), WireError::Format);
    }

    #[test]
    fn what_is_written_is_numbered_and_read_by_the_other_end() {
        let mut codec = codec(&[]);
        assert_eq!(written(&mut codec, StreamCommand::Clear), "");
        let mut peer = Peer::new(PeerCall {
            call_sid: CALL.into(),
            ..PeerCall::default()
        });
        for message in peer.open_messages() {
            let _ = codec.parse(message.as_bytes()).unwrap();
        }
        let first = written(&mut codec, StreamCommand::Media(&[0; 1600]));
        assert!(
            first.contains(r#""sequence_number":"1""#) && first.contains(r#""chunk":"1","timestamp":"0""#),
            "{first}"
        );
        let second = written(&mut codec, StreamCommand::Media(&[0; 1600]));
        assert!(second.contains(r#""chunk":"2","timestamp":"100""#), "{second}");
        assert!(matches!(peer.read(first.as_bytes()), Ok(PeerEvent::Media(_))));
        let mark = written(&mut codec, StreamCommand::Mark("turn \"1\""));
        assert_eq!(peer.read(mark.as_bytes()), Ok(PeerEvent::Mark("turn \"1\"")));
        let clear = written(&mut codec, StreamCommand::Clear);
        assert_eq!(peer.read(clear.as_bytes()), Ok(PeerEvent::Clear));
        assert_eq!(written(&mut codec, StreamCommand::HangUp), "");
    }
}
