//! Twilio's end of the media socket: what it sends, spelled as it spells it, and what it refuses to read.

use super::{desk, ring, verify};
use crate::{
    base::{format::AudioFormat, secret::Secret},
    vendor::{self, Answer, ApiRequest, HookRequest, Payload, PeerCall, PeerEvent, PeerReply, WireError},
    wire::{
        base64,
        form::Form,
        json::{self, BadJson},
        sign,
    },
};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use std::{borrow::Cow, fmt::Write};

/// A simulated stream of one call.
#[derive(Debug)]
pub(super) struct Peer {
    call: PeerCall,
    stream_sid: String,
    /// Number of the last message that carries one.
    sequence: u64,
    /// Number of the last media message.
    chunk: u64,
    /// Unescaped text of the last message read, where it had escapes.
    scratch: String,
}

/// The account of simulated calls that name none.
const ACCOUNT: &str = "AC00000000000000000000000000000000";

impl Peer {
    /// The stream's id follows from the call's, so that a simulation sends the same bytes on every run.
    pub(super) fn new(call: PeerCall) -> Self {
        let stream_sid = format!("MZ{:.32}", sign::sha256_hex(call.call_sid.as_bytes()));
        Self {
            call,
            stream_sid,
            sequence: 0,
            chunk: 0,
            scratch: String::new(),
        }
    }

    /// Appends a message up to its body: event, sequence number and stream.
    fn head(&mut self, event: &str, out: &mut String) {
        self.sequence += 1;
        let _ = write!(
            out,
            r#"{{"event":"{event}","sequenceNumber":"{}","streamSid":"{}","#,
            self.sequence, self.stream_sid
        );
    }

    fn account(&self) -> &str {
        self.call.account.as_deref().unwrap_or(ACCOUNT)
    }

    fn expect_stream(&self, named: &str) -> Result<(), WireError> {
        if named == self.stream_sid {
            Ok(())
        } else {
            Err(WireError::Shape("streamSid"))
        }
    }
}

impl vendor::Peer for Peer {
    fn format(&self) -> AudioFormat {
        AudioFormat::ULAW_8K
    }

    fn open(&mut self) -> Vec<String> {
        let parameters = [
            ("token", self.call.token.as_deref()),
            ("from", Some(&*self.call.from)),
            ("to", Some(&*self.call.to)),
        ];
        let parameters: Vec<_> = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!(r#""{name}":"{}""#, quoted(value.filter(|v| !v.is_empty())?))))
            .collect();
        let mut start = String::new();
        self.head("start", &mut start);
        let _ = write!(
            start,
            r#""start":{{"accountSid":"{}","streamSid":"{}","callSid":"{}","tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{{}}}}}}}"#,
            quoted(self.account()),
            self.stream_sid,
            quoted(&self.call.call_sid),
            parameters.join(","),
        );
        vec![
            r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned(),
            start,
        ]
    }

    fn media(&mut self, audio: &[u8], at_ms: u64, out: &mut String) {
        self.head("media", out);
        self.chunk += 1;
        let _ = write!(
            out,
            r#""media":{{"track":"inbound","chunk":"{}","timestamp":"{at_ms}","payload":""#,
            self.chunk
        );
        base64::append_str(audio, out);
        out.push_str(r#""}}"#);
    }

    fn dtmf(&mut self, digit: char) -> String {
        self.sequence += 1;
        format!(
            r#"{{"event":"dtmf","streamSid":"{}","sequenceNumber":"{}","dtmf":{{"track":"inbound_track","digit":"{}"}}}}"#,
            self.stream_sid,
            self.sequence,
            quoted(digit.encode_utf8(&mut [0; 4])),
        )
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
            r#""stop":{{"accountSid":"{}","callSid":"{}"}}}}"#,
            quoted(self.account()),
            quoted(&self.call.call_sid)
        );
        out
    }

    fn announce(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        Some(ring::announce(&self.call, self.account(), url, secret))
    }

    fn conclude(&self, url: &str, seconds: u32, secret: Option<&Secret>) -> Option<ApiRequest> {
        Some(ring::conclude(&self.call, self.account(), seconds, url, secret))
    }

    fn sign_upgrade(&self, url: &str, secret: &Secret) -> Option<(HeaderName, HeaderValue)> {
        verify::sign(secret, url, &Form::default())
    }

    fn answered(&self, document: &[u8]) -> Result<Answer, WireError> {
        ring::answered(document)
    }

    fn command(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Option<PeerReply> {
        Some(desk::command(&self.call, request, key))
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        let message: Outbound<'a> = json::read(message).map_err(|e| match e {
            BadJson::Syntax => WireError::NotJson,
            BadJson::Shape => WireError::Shape("event"),
        })?;
        match message {
            Outbound::Media { stream_sid, media } => {
                self.expect_stream(&stream_sid)?;
                // Standard base64 needs no escape in JSON; one that has some is not what a vendor would get from us.
                let Cow::Borrowed(payload) = media.payload else {
                    return Err(WireError::Shape("media.payload"));
                };
                base64::decode_vec(payload.as_bytes(), payload.len()).map_err(|_| WireError::Shape("media.payload"))?;
                Ok(PeerEvent::Media(Payload::Base64(payload.as_bytes())))
            }
            Outbound::Mark { stream_sid, mark } => {
                self.expect_stream(&stream_sid)?;
                Ok(PeerEvent::Mark(match mark.name {
                    Cow::Borrowed(name) => name,
                    Cow::Owned(name) => {
                        self.scratch = name;
                        &self.scratch
                    }
                }))
            }
            Outbound::Clear { stream_sid } => {
                self.expect_stream(&stream_sid)?;
                Ok(PeerEvent::Clear)
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    json::escape(text, |piece| out.push_str(piece));
    out
}

/// All that Twilio takes on a bidirectional stream, nothing missing and nothing more.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Outbound<'a> {
    Media {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
        #[serde(borrow)]
        media: OutboundMedia<'a>,
    },
    Mark {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
        #[serde(borrow)]
        mark: OutboundMark<'a>,
    },
    Clear {
        #[serde(borrow, rename = "streamSid")]
        stream_sid: Cow<'a, str>,
    },
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
            call_sid: "CA00000000000000000000000000000002".into(),
            token: Some("t".into()),
            from: "+15550100".into(),
            to: String::new(),
            ..PeerCall::default()
        })
    }

    #[test]
    fn a_stream_is_numbered_as_twilio_numbers_it() {
        let mut peer = peer();
        let opening = peer.open();
        let sid = peer.stream_sid.clone();
        assert_eq!(sid.len(), 34);
        assert_eq!(
            opening[0],
            r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#
        );
        assert_eq!(
            opening[1],
            format!(
                r#"{{"event":"start","sequenceNumber":"1","streamSid":"{sid}","start":{{"accountSid":"{ACCOUNT}","streamSid":"{sid}","callSid":"CA00000000000000000000000000000002","tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{"token":"t","from":"+15550100"}}}}}}"#
            )
        );
        let mut media = String::new();
        peer.media(&[0xff], 5, &mut media);
        assert_eq!(
            media,
            format!(
                r#"{{"event":"media","sequenceNumber":"2","streamSid":"{sid}","media":{{"track":"inbound","chunk":"1","timestamp":"5","payload":"/w=="}}}}"#
            )
        );
        assert!(peer.dtmf('5').contains(r#""sequenceNumber":"3""#));
        let mut media = String::new();
        peer.media(&[0xff], 25, &mut media);
        assert!(media.contains(r#""sequenceNumber":"4""#) && media.contains(r#""chunk":"2""#));
        assert!(peer.mark("m").contains(r#""sequenceNumber":"5""#));
        assert!(peer.stop().contains(r#""sequenceNumber":"6""#));
    }

    #[test]
    fn what_twilio_would_ignore_is_refused() {
        let mut peer = peer();
        let sid = peer.stream_sid.clone();
        let media = format!(r#"{{"event":"media","streamSid":"{sid}","media":{{"payload":"/w=="}}}}"#);
        assert!(peer.read(media.as_bytes()).is_ok());
        for bad in [
            media.replace(&sid, "MZ1"),
            media.replace(r#""event""#, r#""sequenceNumber":"1","event""#),
            media.replace(r#""payload""#, r#""track":"outbound","payload""#),
            media.replace("payload", "playload"),
            media.replace("/w==", "/w=!"),
            media.replace("/w==", r"\/w=="),
            media.replace(&format!(r#""streamSid":"{sid}","#), ""),
            media.replace("media", "audio"),
            format!(r#"{{"event":"mark","streamSid":"{sid}"}}"#),
            format!(r#"{{"event":"mark","streamSid":"{sid}","mark":{{}}}}"#),
            format!(r#"{{"event":"clear","streamSid":"{sid}","media":{{}}}}"#),
            r#"{"event":"clear"}"#.to_owned(),
            r#"{"event":"stop"}"#.to_owned(),
        ] {
            assert!(peer.read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
