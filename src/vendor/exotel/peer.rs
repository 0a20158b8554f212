//! Exotel's end of the media socket and of the webhooks, spelled as it spells them, and what it could not play.

use super::{L16_8K, desk};
use crate::{
    base::{format::AudioFormat, secret::Secret},
    vendor::{
        self, Answer, ApiRequest, HookRequest, Payload, PeerCall, PeerEvent, PeerReply, WireError,
        codec::{keep, quoted, read},
        gate::sealed,
        params::with_query,
    },
    wire::{base64, form::Form, json, sign, xml::Element},
};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use std::{borrow::Cow, fmt::Write, time::Duration};

/// The account of simulated calls, unless one is given.
const ACCOUNT: &str = "sidetone1";
/// Exotel waits this long for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest payload it takes, in bytes, and what its length is a multiple of.
const MAX_PAYLOAD: usize = 100_000;
const MULTIPLE: usize = 320;
/// Parameters of the URL that come back in `start`, and their characters in all.
const MAX_PARAMETERS: usize = 3;
const MAX_CHARACTERS: usize = 256;

/// A simulated stream of one call.
#[derive(Debug)]
pub(super) struct Peer {
    call: PeerCall,
    stream_sid: String,
    format: AudioFormat,
    /// Parameters of the socket's URL, but for the rate.
    parameters: Vec<(String, String)>,
    sequence: u64,
    chunk: u64,
    /// Unescaped text of the last message read, where it had escapes.
    scratch: String,
}

impl Peer {
    /// The stream's id follows from the call's, so that a simulation sends the same bytes on every run.
    pub(super) fn new(call: PeerCall) -> Self {
        let stream_sid = format!("{:.32}", sign::sha256_hex(call.call_sid.as_bytes()));
        let query = call.url.as_deref().and_then(|url| url.split_once('?'));
        let form = Form::parse(query.map_or("", |(_, q)| q).as_bytes()).unwrap_or_default();
        // Streams are told their rate, whatever their URL asked for.
        let asked = form.get("sample-rate").and_then(|r| r.parse().ok());
        let rate = call.format.map(|f| f.rate).or(asked).unwrap_or(L16_8K.rate);
        let own = form.0.iter().filter(|(n, _)| n != "sample-rate");
        let parameters = own.map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Self {
            call,
            stream_sid,
            format: AudioFormat { rate, ..L16_8K },
            parameters,
            sequence: 0,
            chunk: 0,
            scratch: String::new(),
        }
    }

    fn account(&self) -> &str {
        self.call.account.as_deref().unwrap_or(ACCOUNT)
    }

    /// Appends a message up to its body.
    fn head(&mut self, event: &str, out: &mut String) {
        self.sequence += 1;
        let _ = write!(
            out,
            r#"{{"event":"{event}","sequence_number":"{}","stream_sid":"{}","#,
            self.sequence, self.stream_sid
        );
    }

    #[cfg(test)]
    pub(super) fn open_messages(&mut self) -> Vec<String> {
        vendor::Peer::open(self)
    }
}

impl vendor::Peer for Peer {
    fn format(&self) -> AudioFormat {
        self.format
    }

    fn frame_ms(&self) -> u32 {
        100
    }

    fn open(&mut self) -> Vec<String> {
        let own: Vec<_> = self
            .parameters
            .iter()
            .map(|(n, v)| format!(r#""{}":"{}""#, quoted(n), quoted(v)))
            .collect();
        let mut start = String::new();
        self.head("start", &mut start);
        let _ = write!(
            start,
            r#""start":{{"stream_sid":"{}","call_sid":"{}","account_sid":"{}","from":"{}","to":"{}","custom_parameters":{{{}}},"media_format":{{"encoding":"base64","sample_rate":"{}","bit_rate":"128kbps"}}}}}}"#,
            self.stream_sid,
            quoted(&self.call.call_sid),
            quoted(self.account()),
            quoted(&self.call.from),
            quoted(&self.call.to),
            own.join(","),
            self.format.rate,
        );
        vec![r#"{"event":"connected"}"#.to_owned(), start]
    }

    fn media(&mut self, audio: &[u8], at_ms: u64, out: &mut String) {
        self.head("media", out);
        self.chunk += 1;
        let _ = write!(
            out,
            r#""media":{{"chunk":"{}","timestamp":"{at_ms}","payload":""#,
            self.chunk
        );
        base64::append_str(audio, out);
        out.push_str(r#""}}"#);
    }

    fn dtmf(&mut self, digit: char) -> String {
        let mut out = String::new();
        self.head("dtmf", &mut out);
        let digit = quoted(digit.encode_utf8(&mut [0; 4]));
        let _ = write!(out, r#""dtmf":{{"digit":"{digit}","duration":"100"}}}}"#);
        out
    }

    fn mark(&mut self, name: &str) -> String {
        let mut out = String::new();
        self.head("mark", &mut out);
        let _ = write!(out, r#""mark":{{"name":"{}"}}}}"#, quoted(name));
        out
    }

    fn stop(&mut self) -> String {
        let mut out = String::new();
        self.head("stop", &mut out);
        let _ = write!(
            out,
            r#""stop":{{"call_sid":"{}","account_sid":"{}","reason":"callended"}}}}"#,
            quoted(&self.call.call_sid),
            quoted(self.account())
        );
        out
    }

    /// The Voicebot applet asks where its stream goes.
    fn announce(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        let url = [
            ("CallSid", &*self.call.call_sid),
            ("CallFrom", &self.call.from),
            ("CallTo", &self.call.to),
            ("Direction", "incoming"),
        ]
        .into_iter()
        .fold(
            sealed(url, self.call.url_secret.as_ref().or(secret)),
            |url, (name, value)| with_query(&url, name, value),
        );
        Some(ApiRequest {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Default::default(),
            timeout: TIMEOUT,
        })
    }

    /// JSON as the applet reads it, or XML as an answer URL's.
    fn answered(&self, document: &[u8]) -> Result<Answer, WireError> {
        #[derive(Deserialize)]
        struct Resolved<'a> {
            #[serde(borrow)]
            url: Cow<'a, str>,
        }
        let url = match json::read::<Resolved<'_>>(document) {
            Ok(resolved) => resolved.url.into_owned(),
            Err(_) => match instructions(document)? {
                Ok(url) => url,
                Err(refusal) => return Ok(refusal),
            },
        };
        let (base, query) = url.split_once('?').unwrap_or((&url, ""));
        let form = Form::parse(query.as_bytes()).unwrap_or_default();
        let own = || form.0.iter().filter(|(n, _)| n != "sample-rate");
        let characters: usize = own().map(|(n, v)| n.len() + v.len() + 2).sum();
        let socket = base.starts_with("wss://") || base.starts_with("ws://");
        if !socket || own().count() > MAX_PARAMETERS || characters > MAX_CHARACTERS {
            return Err(WireError::Shape("url"));
        }
        let text = |name| form.get(name).unwrap_or_default().to_owned();
        Ok(Answer::Stream {
            token: text("token"),
            session_id: text("sessionId"),
            status_url: String::new(),
            url,
        })
    }

    /// The status callback of a call's end, as a multipart form: the default.
    fn conclude(&self, url: &str, seconds: u32, secret: Option<&Secret>) -> Option<ApiRequest> {
        const BOUNDARY: &str = "------------------------5f1d7a84bc6e2039";
        let mut body = String::new();
        for (name, value) in [
            ("CallSid", &*self.call.call_sid),
            ("EventType", "terminal"),
            ("Status", "completed"),
            ("From", &self.call.from),
            ("To", &self.call.to),
            ("ConversationDuration", &seconds.to_string()),
            ("RecordingUrl", ""),
        ] {
            let _ = write!(
                body,
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let _ = write!(body, "--{BOUNDARY}--\r\n");
        let kind = HeaderValue::try_from(format!("multipart/form-data; boundary={BOUNDARY}")).ok()?;
        Some(ApiRequest {
            method: Method::POST,
            url: sealed(url, self.call.url_secret.as_ref().or(secret)),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]),
            body: body.into(),
            timeout: TIMEOUT,
        })
    }

    fn command(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Option<PeerReply> {
        Some(desk::command(&self.call, request, key))
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        let expect = |named: &str| match named == self.stream_sid {
            true => Ok(()),
            false => Err(WireError::Shape("stream_sid")),
        };
        match read(message, "event")? {
            Outbound::Media { stream_sid, media } => {
                expect(&stream_sid)?;
                let Cow::Borrowed(payload) = media.payload else {
                    return Err(WireError::Shape("media.payload"));
                };
                let audio = base64::decode_vec(payload.as_bytes(), MAX_PAYLOAD);
                let whole = audio.is_ok_and(|a| !a.is_empty() && a.len().is_multiple_of(MULTIPLE));
                if !whole || media.chunk.is_empty() || media.timestamp.is_empty() {
                    return Err(WireError::Shape("media"));
                }
                Ok(PeerEvent::Media(Payload::Base64(payload.as_bytes())))
            }
            Outbound::Mark { stream_sid, mark } => {
                expect(&stream_sid)?;
                Ok(PeerEvent::Mark(keep(&mut self.scratch, mark.name)))
            }
            Outbound::Clear { stream_sid } => expect(&stream_sid).map(|()| PeerEvent::Clear),
        }
    }
}

/// The URL that a document of instructions connects to, or its refusal.
fn instructions(document: &[u8]) -> Result<Result<String, Answer>, WireError> {
    let root = std::str::from_utf8(document).ok().and_then(|d| Element::parse(d).ok());
    let root = root
        .filter(|r| r.name == "Response")
        .ok_or(WireError::Shape("Response"))?;
    let verb = root.children.iter().find(|c| c.name != "Say");
    let verb = verb.ok_or(WireError::Shape("Response"))?;
    match (&*verb.name, &verb.children[..]) {
        ("Connect", [stream]) if stream.name == "Stream" => {
            let session = stream.children.iter().any(|p| p.attribute("name") == Some("sessionId"));
            let url = stream.attribute("url").filter(|_| session);
            url.map(|u| Ok(u.to_owned())).ok_or(WireError::Shape("Stream"))
        }
        ("Reject", _) => Ok(Err(Answer::Busy)),
        ("Hangup", _) => Ok(Err(Answer::HangUp)),
        _ => Err(WireError::Shape("Response")),
    }
}

/// All that Exotel takes on a bidirectional stream; members beside these do no harm.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Outbound<'a> {
    Media {
        #[serde(borrow)]
        stream_sid: Cow<'a, str>,
        #[serde(borrow)]
        media: OutboundMedia<'a>,
    },
    Mark {
        #[serde(borrow)]
        stream_sid: Cow<'a, str>,
        #[serde(borrow)]
        mark: OutboundMark<'a>,
    },
    Clear {
        #[serde(borrow)]
        stream_sid: Cow<'a, str>,
    },
}

#[derive(Deserialize)]
struct OutboundMedia<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow, default)]
    chunk: Cow<'a, str>,
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
struct OutboundMark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Account, Config, stream::Codec},
        *,
    };
    use crate::base::time::Wall;
    use crate::vendor::{
        Hook, HookKind, HookRequest, Peer as _, StreamCodec, StreamEvent, Trunk, Upgrade, account::tests::configured,
        params::tests::asked,
    };

    fn call(url: Option<&str>) -> PeerCall {
        PeerCall {
            call_sid: "c1".into(),
            from: "+15550100".into(),
            to: "+15550101".into(),
            url: url.map(str::to_owned),
            ..PeerCall::default()
        }
    }

    /// The codec of the socket at this URL.
    fn codec_at(url: &str) -> Codec {
        let query = Form::parse(url.split_once('?').map_or("", |(_, q)| q).as_bytes()).unwrap();
        Codec::new(&Upgrade {
            query: query.0.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            ..Upgrade::default()
        })
    }

    fn account(secret: &str) -> Account {
        Account::new(configured(&[("webhook_secret", secret), ("sample_rate", "16000")], Config::read).0)
    }

    #[test]
    fn an_announced_call_reaches_its_socket_at_the_rate_that_was_asked_for() {
        let (account, secret) = (account("w"), Secret::new("w"));
        let announced = Peer::new(call(None))
            .announce("https://relay.example.com/w", Some(&secret))
            .unwrap();
        let path = announced.url.strip_prefix("https://relay.example.com").unwrap();
        let document = asked("GET", path, "", "", |r| {
            account.verify(r).unwrap();
            let Ok(Hook::Call(update)) = account.parse(HookKind::Mixed, r) else {
                panic!("no call")
            };
            assert_eq!((&*update.from, &*update.to), ("+15550100", "+15550101"));
            account.answer(
                r,
                &Answer::Stream {
                    url: "wss://relay.example.com/s?token=t".into(),
                    token: "t".into(),
                    status_url: String::new(),
                    session_id: "s-1".into(),
                },
            )
        });
        let Ok(Answer::Stream {
            url, token, session_id, ..
        }) = Peer::new(call(None)).answered(document.body.as_bytes())
        else {
            panic!("{document:?}")
        };
        assert_eq!((&*token, &*session_id), ("t", "s-1"));
        let (mut peer, mut codec) = (Peer::new(call(Some(&url))), codec_at(&url));
        let opening = peer.open();
        assert!(matches!(codec.parse(opening[0].as_bytes()), Ok(StreamEvent::Hello)));
        let Ok(StreamEvent::Start(start)) = codec.parse(opening[1].as_bytes()) else {
            panic!("{opening:?}")
        };
        assert_eq!((start.token.as_deref(), start.inbound.rate), (Some("t"), 16000));
        assert_eq!(peer.format().rate, 16000);
    }

    #[test]
    fn the_end_is_told_as_a_form_that_is_believed_with_the_right_secret() {
        let account = account("w");
        for (secret, believed) in [("w", true), ("v", false)] {
            let told = Peer::new(call(None))
                .conclude("/st", 7, Some(&Secret::new(secret)))
                .unwrap();
            let request = HookRequest {
                method: "POST",
                path_and_query: &told.url,
                headers: &told.headers,
                body: &told.body,
                public_base: "",
                by_number: false,
                client: None,
                received_at: Wall::default(),
            };
            assert_eq!(account.verify(&request).is_ok(), believed);
            let Ok(Hook::News(update)) = account.parse(HookKind::Status, &request) else {
                panic!("no news")
            };
            assert_eq!((update.duration_s, &*update.call_sid), (Some(7), "c1"));
        }
    }

    #[test]
    fn what_exotel_could_not_play_is_refused() {
        let mut peer = Peer::new(call(None));
        let sid = peer.stream_sid.clone();
        let audio = |n| base64::encode_string(&vec![0; n]);
        let media = |payload: &str| {
            format!(
                r#"{{"event":"media","stream_sid":"{sid}","media":{{"chunk":"1","timestamp":"0","payload":"{payload}"}}}}"#
            )
        };
        assert!(peer.read(media(&audio(1600)).as_bytes()).is_ok());
        for bad in [
            media(&audio(1601)),
            media(&audio(0)),
            media(&audio(100_160)),
            media("!"),
            media(&audio(320)).replace(&sid, "other"),
            media(&audio(320)).replace("chunk", "piece"),
            r#"{"event":"clear"}"#.to_owned(),
            format!(r#"{{"event":"stop","stream_sid":"{sid}"}}"#),
        ] {
            assert!(peer.read(bad.as_bytes()).is_err(), "{bad:.120}");
        }
        let refuse = |d: &str| peer.answered(d.as_bytes());
        assert_eq!(
            refuse("<Response><Reject reason=\"busy\"/></Response>"),
            Ok(Answer::Busy)
        );
        assert_eq!(refuse("<Response><Say>x</Say><Hangup/></Response>"), Ok(Answer::HangUp));
        for bad in [
            "{}",
            r#"{"url":"https://h"}"#,
            r#"{"url":"wss://h?a=1&b=2&c=3&d=4"}"#,
            "<Response><Connect/></Response>",
        ] {
            assert!(refuse(bad).is_err(), "{bad}");
        }
    }
}
