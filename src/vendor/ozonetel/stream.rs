//! Messages of Ozonetel's media socket, parsed and formatted.
//!
//! A hundred messages a second each way, each with eighty numbers: inbound audio takes a positional scan of the usual shape, the
//! numbers go to the caller as they are, and nothing is built from them. Outbound, every message has a `seqid` of its own, because
//! the platform drops what repeats one of the last 3000 ids.

use super::{
    L16_8K,
    message::{Head, Headers, MediaMessage, StartMessage},
};
use crate::{
    base::format::AudioFormat,
    vendor::{
        Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, Upgrade, WireError,
        codec::{dtmf, id, quoted, read},
        params::is_id,
    },
    wire::{json::Scan, numbers},
};
use bytes::BytesMut;
use std::{borrow::Cow, fmt::Write};

/// Messages at another rate after which it is believed.
const PERSISTENT: u32 = 3;
/// What ends an audio message, its rate and frame count apart.
const TAIL: &str = r#"],"bitsPerSample":16,"sampleRate":8000,"channelCount":1,"numberOfFrames":"#;

/// One media socket's codec.
#[derive(Debug)]
pub(super) struct Codec {
    /// The call's id as the vendor told it elsewhere, where the socket's URL says: of a call that we placed it is another one.
    known_as: Option<String>,
    ptime_ms: Option<u32>,
    stream: Option<Stream>,
}

/// What `start` settled, prepared for use in every frame.
#[derive(Debug)]
struct Stream {
    ucid: String,
    /// What stands before the numbers of an inbound audio message.
    before_samples: Vec<u8>,
    /// What stands before the `seqid` of an outbound one.
    before_seqid: String,
    /// The message that empties the platform's queue.
    clear: String,
    /// Runs of audio between two clears, and messages in this one.
    run: u32,
    sent: u64,
    /// The rate of the audio, and of how many messages in a row it was another one.
    rate: u32,
    strays: (u32, u32),
}

impl Stream {
    fn new(ucid: String) -> Self {
        let name = quoted(&ucid);
        Self {
            before_samples: format!(r#"{{"event":"media","type":"media","ucid":"{name}","data":{{"samples":["#)
                .into_bytes(),
            before_seqid: format!(r#"{{"event":"media","type":"media","ucid":"{name}","seqid":"u"#),
            clear: format!(r#"{{"command":"clearBuffer","sessionId":"{name}"}}"#),
            run: 1,
            sent: 0,
            rate: L16_8K.rate,
            strays: (0, 0),
            ucid,
        }
    }

    /// The usual audio message of this stream.
    fn scan_media<'a>(&self, message: &'a [u8]) -> Option<&'a [u8]> {
        let mut scan = Scan::new(message);
        scan.literal(&self.before_samples)?;
        let samples = scan.until(b']')?;
        scan.literal(&TAIL.as_bytes()[1..])?;
        scan.digits()?;
        scan.end(br#","type":"data"}}"#)?;
        Some(samples)
    }

    /// Audio, unless it is of another rate than the stream: the platform's first message claims 16 kHz and is to be ignored.
    /// A rate that persists is the stream's.
    fn media<'a>(&mut self, samples: &'a [u8], rate: u32) -> StreamEvent<'a> {
        if rate == self.rate {
            self.strays = (0, 0);
        } else {
            let before = if self.strays.0 == rate { self.strays.1 } else { 0 };
            self.strays = (rate, before + 1);
            if self.strays.1 < PERSISTENT {
                return StreamEvent::Ignored;
            }
            self.rate = rate;
        }
        StreamEvent::Media(Media {
            payload: Payload::Numbers(samples),
            inbound: true,
            chunk: None,
            at_ms: None,
            rate: Some(self.rate),
        })
    }
}

impl Codec {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let query = |name| upgrade.query.iter().find(|(n, _)| n == name).map(|(_, v)| &**v);
        let ptime_ms = query("frame_ms").and_then(|ms| ms.parse::<u32>().ok());
        Self {
            known_as: query("call").filter(|c| is_id(c)).map(str::to_owned),
            ptime_ms: ptime_ms.filter(|ms| (10..=100).contains(ms) && ms.is_multiple_of(10)),
            stream: None,
        }
    }

    /// Everything but the fast path.
    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let head: Head<'_> = read(message, "event")?;
        let kind = head.kind.as_deref().unwrap_or_default();
        let event = match head.event.as_deref() {
            Some(event) => event,
            // Some integrations leave the event out where the type says it.
            None if matches!(kind, "media" | "dtmf") => "media",
            None => return Err(WireError::Shape("event")),
        };
        match (event, kind) {
            ("media", "dtmf") => dtmf(head.signal).map(StreamEvent::Dtmf),
            ("media", _) => {
                let Some(stream) = &mut self.stream else {
                    return Err(WireError::Shape("start"));
                };
                let message: MediaMessage<'a> = read(message, "data")?;
                let data = message.data.ok_or(WireError::Shape("data"))?;
                let samples = data.samples.ok_or(WireError::Shape("data.samples"))?.get().trim();
                let samples = samples.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
                let samples = samples.ok_or(WireError::Shape("data.samples"))?;
                let rate = match data.sample_rate {
                    None => stream.rate,
                    Some(told) => AudioFormat::RATES
                        .into_iter()
                        .find(|rate| u64::from(*rate) == told)
                        .ok_or(WireError::Format)?,
                };
                Ok(stream.media(samples.as_bytes(), rate))
            }
            ("start", _) => self.start(read(message, "start")?),
            // The socket's call ends, whatever call it says: senders are known to invent a new id here.
            ("stop", _) => Ok(StreamEvent::Stop),
            // What a mark means is disputed; the clock says what was played.
            _ => Ok(StreamEvent::Ignored),
        }
    }

    fn start<'a>(&mut self, start: StartMessage<'_>) -> Result<StreamEvent<'a>, WireError> {
        let ucid = id(start.ucid, "ucid")?;
        if let Some(stream) = &self.stream {
            // The same again is a repetition; another call on this socket means that the first is over.
            return Ok(match stream.ucid == ucid {
                true => StreamEvent::Ignored,
                false => StreamEvent::Stop,
            });
        }
        if start.media.is_some_and(|leg| !leg.makes_sense()) {
            return Err(WireError::Format);
        }
        let headers = start.x_headers.map(Headers::read).unwrap_or_default();
        let text = |t: Option<Cow<'_, str>>| t.filter(|t| !t.is_empty()).map(Cow::into_owned);
        let from = headers.cid_e164.or(text(start.call_id)).or(headers.cid);
        let to = text(start.did).or(headers.called_number);
        self.stream = Some(Stream::new(ucid.clone()));
        Ok(StreamEvent::Start(Box::new(StreamStart {
            call_sid: self.known_as.clone().unwrap_or_else(|| ucid.clone()),
            stream_id: ucid,
            account: text(start.x_account).filter(|a| is_id(a)),
            token: headers.token,
            inbound: L16_8K,
            outbound: L16_8K,
            from,
            to,
            ptime_ms: self.ptime_ms,
        })))
    }
}

impl StreamCodec for Codec {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let samples = self.stream.as_ref().and_then(|s| s.scan_media(message));
        if let (Some(samples), Some(stream)) = (samples, &mut self.stream) {
            return Ok(stream.media(samples, L16_8K.rate));
        }
        self.read(message)
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        let Some(stream) = &mut self.stream else { return };
        match command {
            StreamCommand::Media([]) | StreamCommand::Mark(_) | StreamCommand::Interrupt(_) => {}
            StreamCommand::Media(audio) => {
                stream.sent += 1;
                out.reserve(stream.before_seqid.len() + TAIL.len() + audio.len() / 2 * 7 + 80);
                out.extend_from_slice(stream.before_seqid.as_bytes());
                let _ = write!(out, r#"{}-{:05}","data":{{"samples":["#, stream.run, stream.sent);
                numbers::append(audio, out);
                let _ = write!(out, r#"{TAIL}{},"type":"data"}}}}"#, audio.len() / 2);
            }
            StreamCommand::Clear => {
                stream.run += 1;
                out.extend_from_slice(stream.clear.as_bytes());
            }
            StreamCommand::HangUp => out.extend_from_slice(br#"{"command":"callDisconnect","causeCode":200}"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::{Peer as _, PeerCall, PeerEvent, ozonetel::peer::Peer};
    use proptest::prelude::*;

    const OFFICIAL: &str = include_str!("testdata/stream.jsonl");
    const DIRECT: &str = include_str!("testdata/direct.jsonl");
    const UCID: &str = "21275806501458167";

    fn codec() -> Codec {
        Codec::new(&Upgrade::default())
    }

    fn start_of(codec: &mut Codec, message: &str) -> StreamStart {
        match codec.parse(message.as_bytes()) {
            Ok(StreamEvent::Start(start)) => *start,
            other => panic!("{message}: {other:?}"),
        }
    }

    fn started() -> Codec {
        let mut codec = codec();
        start_of(&mut codec, OFFICIAL.lines().next().unwrap());
        codec
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
    fn a_whole_exchange_of_the_platform_is_understood() {
        let (mut codec, mut lines) = (codec(), OFFICIAL.lines());
        let mut next = || lines.next().unwrap();
        let expect = StreamStart {
            stream_id: UCID.into(),
            call_sid: UCID.into(),
            account: Some("serv_del".into()),
            token: Some("t0k".into()),
            inbound: L16_8K,
            outbound: L16_8K,
            from: Some("919800000001".into()),
            to: Some("918000000000".into()),
            ptime_ms: None,
        };
        assert_eq!(start_of(&mut codec, next()), expect);
        assert_eq!(
            say(&mut codec, next()),
            "Ok(Ignored)",
            "the first message claims 16 kHz"
        );
        let Ok(StreamEvent::Media(media)) = codec.parse(next().as_bytes()) else {
            panic!("no media")
        };
        assert_eq!((media.payload, media.rate), (Payload::Numbers(b"8,8,-3"), Some(8000)));
        for expect in ["Ok(Dtmf('5'))", "Ok(Ignored)", "Ok(Stop)"] {
            assert_eq!(say(&mut codec, next()), expect);
        }
    }

    #[test]
    fn a_vendor_that_connects_directly_needs_nothing_but_its_id() {
        let (mut codec, mut lines) = (codec(), DIRECT.lines());
        let mut next = || lines.next().unwrap();
        let start = start_of(&mut codec, next());
        assert_eq!(
            (&*start.call_sid, start.token, start.from),
            ("unique-call-id-123", None, None)
        );
        assert!(
            say(&mut codec, next()).contains("Numbers"),
            "no message of the right rate is dropped"
        );
        assert_eq!(say(&mut codec, next()), "Ok(Stop)", "with another ucid than start");
    }

    #[test]
    fn audio_is_dropped_only_while_its_rate_is_a_stray() {
        let mut codec = started();
        let media = |rate| format!(r#"{{"event":"media","ucid":"x","data":{{"samples":[1],"sampleRate":{rate}}}}}"#);
        let heard = |codec: &mut Codec, rate: u32| say(codec, &media(rate)).contains("Media");
        assert!(heard(&mut codec, 8000));
        assert!(!heard(&mut codec, 16000) && !heard(&mut codec, 24000) && !heard(&mut codec, 16000));
        assert!(heard(&mut codec, 8000));
        assert!(!heard(&mut codec, 16000) && !heard(&mut codec, 16000) && heard(&mut codec, 16000));
        assert!(say(&mut codec, &media(16000)).contains("Some(16000)"));
        assert!(!heard(&mut codec, 8000));
    }

    #[test]
    fn headers_are_an_object_or_its_text() {
        let start = |x: &str| {
            let message =
                format!(r#"{{"event":"start","type":"text","ucid":"1","did":"918000000000","x_headers":{x}}}"#);
            start_of(&mut codec(), &message)
        };
        for x in [
            r#"{"token":"t","cid":"9800000001","cid_e164":"+919800000001"}"#,
            r#""{\"token\":\"t\",\"cid_e164\":\"+919800000001\"}""#,
        ] {
            let start = start(x);
            assert_eq!(
                (start.token.as_deref(), start.from.as_deref()),
                (Some("t"), Some("+919800000001")),
                "{x}"
            );
            assert_eq!(start.to.as_deref(), Some("918000000000"));
        }
        for x in ["null", "\"{\"", "5", "\"\"", "[1]"] {
            assert_eq!(start(x).token, None, "{x}");
        }
    }

    #[test]
    fn a_second_start_is_a_repetition_or_the_end_of_the_first() {
        let mut codec = started();
        assert_eq!(say(&mut codec, OFFICIAL.lines().next().unwrap()), "Ok(Ignored)");
        assert_eq!(say(&mut codec, r#"{"event":"start","ucid":"other"}"#), "Ok(Stop)");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut codec = started();
        for bad in [
            "not json",
            r#"{"type":"text"}"#,
            r#"{"event":"media","type":"media","ucid":"x"}"#,
            r#"{"event":"media","data":{}}"#,
            r#"{"event":"media","data":{"samples":"AAAA"}}"#,
            r#"{"event":"media","type":"dtmf","signal":"55"}"#,
        ] {
            assert!(codec.parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(
            self::codec()
                .parse(br#"{"event":"media","data":{"samples":[1]}}"#)
                .is_err(),
            "before start"
        );
        assert!(self::codec().parse(br#"{"event":"start"}"#).is_err());
    }

    #[test]
    fn the_url_names_a_placed_call_and_the_frame() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let mut codec = Codec::new(&Upgrade {
            query: vec![pair("call", "34322178840270491"), pair("frame_ms", "20")],
            ..Upgrade::default()
        });
        let start = start_of(&mut codec, r#"{"event":"start","ucid":"777"}"#);
        assert_eq!(
            (&*start.call_sid, &*start.stream_id, start.ptime_ms),
            ("34322178840270491", "777", Some(20))
        );
    }

    #[test]
    fn every_message_has_an_id_of_its_own_and_is_read_by_the_other_end() {
        assert_eq!(written(&mut codec(), StreamCommand::Clear), "");
        let mut peer = Peer::new(PeerCall {
            call_sid: UCID.into(),
            ..PeerCall::default()
        });
        let mut codec = started();
        let audio: Vec<u8> = [1_i16, -3].iter().flat_map(|s| s.to_le_bytes()).collect();
        let first = written(&mut codec, StreamCommand::Media(&audio));
        assert_eq!(
            first,
            format!(
                r#"{{"event":"media","type":"media","ucid":"{UCID}","seqid":"u1-00001","data":{{"samples":[1,-3],"bitsPerSample":16,"sampleRate":8000,"channelCount":1,"numberOfFrames":2,"type":"data"}}}}"#
            )
        );
        let clear = written(&mut codec, StreamCommand::Clear);
        assert_eq!(clear, format!(r#"{{"command":"clearBuffer","sessionId":"{UCID}"}}"#));
        assert!(written(&mut codec, StreamCommand::Media(&audio)).contains(r#""seqid":"u2-00002""#));
        assert_eq!(written(&mut codec, StreamCommand::Mark("m")), "");
        let whole = written(&mut codec, StreamCommand::Media(&[0; 160]));
        assert!(matches!(peer.read(whole.as_bytes()), Ok(PeerEvent::Media(_))));
        assert!(peer.read(whole.as_bytes()).is_err(), "the same seqid again");
        assert_eq!(peer.read(clear.as_bytes()), Ok(PeerEvent::Clear));
        let bye = written(&mut codec, StreamCommand::HangUp);
        assert_eq!(peer.read(bye.as_bytes()), Ok(PeerEvent::Other));
    }

    proptest! {
        #[test]
        fn the_scan_says_what_serde_says(samples in prop::collection::vec(any::<i16>(), 0..90), damage in 0..400_usize, byte in any::<u8>()) {
            let mut peer = Peer::new(PeerCall { call_sid: UCID.into(), ..PeerCall::default() });
            let pcm: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
            let mut message = String::new();
            crate::vendor::Peer::media(&mut peer, &pcm, 0, &mut message);
            let mut bytes = message.into_bytes();
            if let Some(b) = bytes.get_mut(damage) {
                *b = byte;
            }
            let mut scanned = started();
            let slow = format!("{:?}", started().read(&bytes));
            let quick = scanned.parse(&bytes).map(|e| format!("{e:?}"));
            // The scan does not look at the numbers, which their reader does.
            if let (Ok(quick), false) = (quick, slow.starts_with("Err")) {
                prop_assert_eq!(format!("Ok({quick})"), slow);
            }
        }
    }
}
