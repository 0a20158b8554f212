//! Telnyx's end of the media socket: what it sends, spelled as it spells it, and what it refuses to read.

use super::{rest::Desk, ring, stream::TOKEN_HEADER};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
    },
    vendor::{self, Answer, ApiRequest, HookRequest, Payload, PeerCall, PeerEvent, PeerOrder, PeerReply, WireError},
    wire::{
        base64,
        json::{self, BadJson},
        sign,
    },
};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use std::{borrow::Cow, fmt::Write};

/// A simulated call and its stream.
#[derive(Debug)]
pub(super) struct Peer {
    call: PeerCall,
    stream_id: String,
    /// Number of the last message that carries one.
    sequence: u64,
    /// Number of the last media message.
    chunk: u64,
    /// Where our commands arrive.
    desk: Desk,
    /// Unescaped text of the last message read, where it had escapes.
    scratch: String,
}

/// The account of simulated calls.
const ACCOUNT: &str = "00000000-0000-4000-8000-000000000000";
/// Milliseconds of the shortest and the longest audio that a message may hold.
const SPAN_MS: [u32; 2] = [20, 30_000];

impl Peer {
    /// The stream's id follows from the call's, so that a simulation sends the same bytes on every run.
    pub(super) fn new(call: PeerCall) -> Self {
        let hash = sign::sha256_hex(call.call_sid.as_bytes());
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hash[part]);
        Self {
            stream_id: format!("{a}-{b}-{c}-{d}-{e}"),
            desk: Desk::new(call.call_sid.clone()),
            call,
            sequence: 0,
            chunk: 0,
            scratch: String::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl vendor::Peer for Peer {
    fn format(&self) -> AudioFormat {
        self.call.format.unwrap_or(AudioFormat::ULAW_8K)
    }

    /// As the command that asked for the stream has it, where one did.
    fn plays(&self) -> AudioFormat {
        self.desk.plays().unwrap_or(AudioFormat::ULAW_8K)
    }

    fn open(&mut self) -> Vec<String> {
        let number = self.number();
        let token = self.call.token.as_deref().unwrap_or_default();
        let greeting = match token {
            "" => r#"{"event":"connected","version":"1.0.0"}"#.to_owned(),
            token => format!(
                r#"{{"event":"connected","version":"1.0.0","connected":{{"{TOKEN_HEADER}":"{}"}}}}"#,
                quoted(token)
            ),
        };
        let (name, rate) = told(self.format());
        let start = format!(
            r#"{{"event":"start","sequence_number":"{}","stream_id":"{}","start":{{"user_id":"{}","call_control_id":"{}","call_session_id":"{}","from":"{}","to":"{}","client_state":{},"media_format":{{"encoding":"{}","sample_rate":{},"channels":1}}}}}}"#,
            number,
            self.stream_id,
            quoted(self.call.account.as_deref().unwrap_or(ACCOUNT)),
            quoted(&self.call.call_sid),
            self.stream_id,
            quoted(&self.call.from),
            quoted(&self.call.to),
            self.desk.state(),
            name,
            rate,
        );
        vec![greeting, start]
    }

    fn media(&mut self, audio: &[u8], at_ms: u64, out: &mut String) {
        self.chunk += 1;
        let number = self.number();
        let _ = write!(
            out,
            r#"{{"event":"media","sequence_number":"{number}","stream_id":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{at_ms}","payload":""#,
            self.stream_id, self.chunk
        );
        base64::append_str(audio, out);
        out.push_str(r#""}}"#);
    }

    fn dtmf(&mut self, digit: char) -> String {
        let number = self.number();
        format!(
            r#"{{"event":"dtmf","stream_id":"{}","sequence_number":"{}","occurred_at":"2026-01-01T00:00:00.000000Z","dtmf":{{"digit":"{}"}}}}"#,
            self.stream_id,
            number,
            quoted(digit.encode_utf8(&mut [0; 4])),
        )
    }

    fn mark(&mut self, name: &str) -> String {
        let number = self.number();
        format!(
            r#"{{"event":"mark","stream_id":"{}","sequence_number":"{}","mark":{{"name":"{}"}}}}"#,
            self.stream_id,
            number,
            quoted(name)
        )
    }

    fn stop(&mut self) -> String {
        let number = self.number();
        format!(
            r#"{{"event":"stop","sequence_number":"{}","stream_id":"{}","stop":{{"user_id":"{}","call_control_id":"{}"}}}}"#,
            number,
            self.stream_id,
            quoted(self.call.account.as_deref().unwrap_or(ACCOUNT)),
            quoted(&self.call.call_sid)
        )
    }

    fn announce(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        Some(ring::initiated(&self.call, url, secret))
    }

    fn pick_up(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        Some(ring::answered(&self.call, self.desk.state(), url, secret))
    }

    fn conclude(&self, url: &str, seconds: u32, secret: Option<&Secret>) -> Option<ApiRequest> {
        Some(ring::hangup(&self.call, self.desk.state(), seconds, url, secret))
    }

    /// Not a signature: the token that the command named, which is all that tells the socket from another.
    fn sign_upgrade(&self, _url: &str, _secret: &Secret) -> Option<(HeaderName, HeaderValue)> {
        let token = self.call.token.as_deref()?;
        Some((
            HeaderName::from_static(TOKEN_HEADER),
            HeaderValue::try_from(token).ok()?,
        ))
    }

    fn by_command(&self) -> bool {
        true
    }

    fn command(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Option<PeerReply> {
        let reply = self.desk.take(request, key);
        if let PeerOrder::Connect(Answer::Stream { token, .. }) = &reply.order {
            self.call.token = Some(token.clone()).filter(|t| !t.is_empty());
        }
        Some(reply)
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        let message: Outbound<'a> = json::read(message).map_err(|e| match e {
            BadJson::Syntax => WireError::NotJson,
            BadJson::Shape => WireError::Shape("event"),
        })?;
        match message {
            Outbound::Media { media } => {
                // Standard base64 needs no escape in JSON; one that has some is not what a vendor would get from us.
                let Cow::Borrowed(payload) = media.payload else {
                    return Err(WireError::Shape("media.payload"));
                };
                let audio = base64::decode_vec(payload.as_bytes(), payload.len());
                let [least, most] = SPAN_MS.map(|ms| self.plays().bytes_of_ms(ms));
                // A packet of Opus is as long as it needs to be.
                let least = if self.plays().encoding == Encoding::Opus {
                    1
                } else {
                    least
                };
                if !audio.is_ok_and(|a| (least..=most).contains(&a.len())) {
                    return Err(WireError::Shape("media.payload"));
                }
                Ok(PeerEvent::Media(Payload::Base64(payload.as_bytes())))
            }
            Outbound::Mark { mark } => Ok(PeerEvent::Mark(match mark.name {
                Cow::Borrowed(name) => name,
                Cow::Owned(name) => {
                    self.scratch = name;
                    &self.scratch
                }
            })),
            Outbound::Clear {} => Ok(PeerEvent::Clear),
        }
    }
}

/// A codec by its name, and the rate that is told with it.
fn told(format: AudioFormat) -> (&'static str, u32) {
    match format.encoding {
        Encoding::Ulaw => ("PCMU", format.rate),
        Encoding::Alaw => ("PCMA", format.rate),
        // RTP's clock runs at half the rate of its samples.
        Encoding::G722 => ("G722", 8000),
        Encoding::Opus => ("OPUS", format.rate),
        Encoding::L16 | Encoding::L16Le | Encoding::L16Be => ("L16", format.rate),
    }
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    json::escape(text, |piece| out.push_str(piece));
    out
}

/// All that is said to Telnyx on a bidirectional stream.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Outbound<'a> {
    Media {
        #[serde(borrow)]
        media: OutboundMedia<'a>,
    },
    Mark {
        #[serde(borrow)]
        mark: OutboundMark<'a>,
    },
    Clear {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundMedia<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundMark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::Peer as _;

    fn peer() -> Peer {
        Peer::new(PeerCall {
            call_sid: "v3:abc".into(),
            token: Some("t".into()),
            from: "+15550100".into(),
            ..PeerCall::default()
        })
    }

    #[test]
    fn a_stream_is_numbered_and_named_as_telnyx_does() {
        let mut peer = peer();
        let opening = peer.open();
        let id = peer.stream_id.clone();
        assert_eq!(
            opening[0],
            r#"{"event":"connected","version":"1.0.0","connected":{"x-telnyx-streaming-auth-token":"t"}}"#
        );
        assert!(opening[1].starts_with(&format!(
            r#"{{"event":"start","sequence_number":"1","stream_id":"{id}","start":{{"user_id":"{ACCOUNT}","call_control_id":"v3:abc","#
        )));
        let mut media = String::new();
        peer.media(&[0xff], 5, &mut media);
        assert_eq!(
            media,
            format!(
                r#"{{"event":"media","sequence_number":"2","stream_id":"{id}","media":{{"track":"inbound","chunk":"1","timestamp":"5","payload":"/w=="}}}}"#
            )
        );
        assert!(peer.dtmf('5').contains(r#""sequence_number":"3""#));
        assert!(peer.mark("m").contains(r#""sequence_number":"4""#));
        assert!(peer.stop().contains(r#""sequence_number":"5""#));
    }

    #[test]
    fn what_telnyx_would_not_play_is_refused() {
        let mut peer = peer();
        let frame = base64::encode_string(&[0xff; 160]);
        let media = format!(r#"{{"event":"media","media":{{"payload":"{frame}"}}}}"#);
        assert!(peer.read(media.as_bytes()).is_ok());
        for bad in [
            media.replace(&frame, &base64::encode_string(&[0xff; 159])),
            media.replace(&frame, &base64::encode_string(&vec![0xff; 240_001])),
            media.replace(&frame, "/w=!"),
            media.replace("payload", "playload"),
            media.replace("media", "audio"),
            r#"{"event":"mark","mark":{}}"#.to_owned(),
            r#"{"event":"clear","media":{}}"#.to_owned(),
            r#"{"event":"stop"}"#.to_owned(),
            "media".to_owned(),
        ] {
            assert!(peer.read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
