//! A dialect that exists in the tests alone: one folder, added by one call. It lacks whatever a vendor can lack (marks, a clear, a
//! stop, REST) and frames A-law in 40 ms, so that everything the relay makes up for is made up for here.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::json;
use sidetone::{
    base::{
        fault::{Fault, Kind},
        format::{AudioFormat, Encoding},
        secret::Secret,
    },
    vendor::{
        Admit, Answer, ApiRequest, CallAction, CallNews, CallUpdate, Caps, Claim, Descriptor, Document, EndReason,
        Hook, HookKind, HookPath, HookRequest, Media, Payload, Peer, PeerCall, PeerEvent, StreamCodec, StreamCommand,
        StreamEvent, StreamStart, TokenPlace, Trunk, WireError,
    },
    wire::{base64, form::Form, json},
};
use std::{sync::Arc, time::Duration};

/// What it is.
pub(crate) static SIXTH: Descriptor = Descriptor {
    title: "Sixth",
    name: "sixth",
    caps: &CAPS,
    error_code: "VENDOR_ERROR",
    stream_path: "/api/calls/sixth/stream",
    token_in: TokenPlace::Query,
    hook_paths: &[HookPath {
        path: "/api/calls/sixth/webhook",
        kind: HookKind::Mixed,
    }],
    number_hook: HookKind::Mixed,
    dials_by_default: false,
    dials_sip: false,
    claims: |_| Claim::No,
    codec: |_| Box::new(Codec),
    trunk: |_| Arc::new(Account),
    peer: |call| Box::new(Sixth(call)),
    simulated: &[],
};

const ALAW_8K: AudioFormat = AudioFormat {
    encoding: Encoding::Alaw,
    rate: 8000,
};

static CAPS: Caps = Caps {
    inbound: ALAW_8K,
    outbound: ALAW_8K,
    offers: &[ALAW_8K],
    ptime_ms: 40,
    chunk_multiple: 80,
    lead_ms: 120,
    mark: false,
    clear: false,
    interrupt: false,
    stop: false,
    close_ends_call: true,
    max_inbound_ms: 1000,
    binary: false,
};

#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
enum Message<'a> {
    Start { call: String, from: String, to: String },
    Audio { a: &'a str },
    Key { k: char },
}

struct Codec;

impl StreamCodec for Codec {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        Ok(match json::read(message).map_err(|_| WireError::NotJson)? {
            Message::Start { call, from, to } => StreamEvent::Start(Box::new(StreamStart {
                stream_id: call.clone(),
                call_sid: call,
                account: None,
                token: None,
                inbound: ALAW_8K,
                outbound: ALAW_8K,
                from: Some(from),
                to: Some(to),
                ptime_ms: None,
            })),
            Message::Audio { a } => StreamEvent::Media(Media {
                payload: Payload::Base64(a.as_bytes()),
                inbound: true,
                chunk: None,
                at_ms: None,
                rate: None,
            }),
            Message::Key { k } => StreamEvent::Dtmf(k),
        })
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        if let StreamCommand::Media(audio) = command {
            out.put_slice(br#"{"t":"audio","a":""#);
            base64::append(audio, out);
            out.put_slice(br#""}"#);
        }
    }
}

struct Account;

impl Trunk for Account {
    fn verify(&self, _: &HookRequest<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn unguarded(&self) -> Option<&'static str> {
        None
    }

    fn verify_upgrade(&self, _: &HookRequest<'_>) -> Result<Admit, Fault> {
        Ok(Admit::WithToken)
    }

    fn parse(&self, _: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
        let query = request.path_and_query.split_once('?').map_or("", |(_, q)| q);
        let form = Form::parse(query.as_bytes()).unwrap_or_default();
        let text = |name| form.get(name).map(str::to_owned);
        let missing = || Fault::client(Kind::Malformed, "a parameter is missing");
        let over = text("over").is_some();
        let call_sid = text("call").ok_or_else(missing)?;
        let update = CallUpdate {
            why: None,
            from: text("from").ok_or_else(missing)?,
            to: text("to").ok_or_else(missing)?,
            inbound: true,
            news: match over {
                true => CallNews::Ended(EndReason::Completed),
                false => CallNews::Ringing,
            },
            dedup_key: format!("{call_sid}:{over}"),
            duration_s: None,
            call_sid,
        };
        Ok(if over { Hook::News(update) } else { Hook::Call(update) })
    }

    fn answer(&self, _: &HookRequest<'_>, answer: &Answer) -> Document {
        Document {
            status: 200,
            content_type: "text/plain",
            body: match answer {
                Answer::Stream { url, .. } => url.clone(),
                Answer::Busy => "busy".to_owned(),
                Answer::HangUp => "bye".to_owned(),
            },
        }
    }

    fn request(&self, _: &str, _: &CallAction<'_>) -> Option<ApiRequest> {
        None
    }

    fn reply(&self, _: &CallAction<'_>, _: u16, _: &[u8]) -> Result<String, Fault> {
        Ok(String::new())
    }

    fn can_dial(&self) -> bool {
        false
    }
}

struct Sixth(PeerCall);

impl Sixth {
    fn hook(&self, url: &str, over: &str) -> ApiRequest {
        let PeerCall { call_sid, from, to, .. } = &self.0;
        let (from, to) = (from.replace('+', "%2B"), to.replace('+', "%2B"));
        ApiRequest {
            method: Method::GET,
            url: format!("{url}?call={call_sid}&from={from}&to={to}{over}"),
            headers: HeaderMap::new(),
            body: Default::default(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Peer for Sixth {
    fn format(&self) -> AudioFormat {
        ALAW_8K
    }

    fn frame_ms(&self) -> u32 {
        40
    }

    fn open(&mut self) -> Vec<String> {
        let start = json!({ "t": "start", "call": self.0.call_sid, "from": self.0.from, "to": self.0.to });
        vec![start.to_string()]
    }

    fn media(&mut self, audio: &[u8], _: u64, out: &mut String) {
        out.push_str(r#"{"t":"audio","a":""#);
        base64::append_str(audio, out);
        out.push_str(r#""}"#);
    }

    fn dtmf(&mut self, digit: char) -> String {
        json!({ "t": "key", "k": digit }).to_string()
    }

    fn mark(&mut self, _: &str) -> String {
        String::new()
    }

    fn stop(&mut self) -> String {
        String::new()
    }

    fn announce(&self, url: &str, _: Option<&Secret>) -> Option<ApiRequest> {
        Some(self.hook(url, ""))
    }

    fn conclude(&self, url: &str, _: u32, _: Option<&Secret>) -> Option<ApiRequest> {
        Some(self.hook(url, "&over=1"))
    }

    fn answered(&self, document: &[u8]) -> Result<Answer, WireError> {
        match std::str::from_utf8(document) {
            Ok("bye") => Ok(Answer::HangUp),
            Ok("busy") => Ok(Answer::Busy),
            Ok(url) => Ok(Answer::Stream {
                url: url.to_owned(),
                token: String::new(),
                status_url: String::new(),
                session_id: String::new(),
            }),
            Err(_) => Err(WireError::Shape("document")),
        }
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        match json::read(message).map_err(|_| WireError::NotJson)? {
            // 10 ms of A-law, and whole ones.
            Message::Audio { a } if base64::decode_vec(a.as_bytes(), 8000).is_ok_and(|a| a.len() % 80 == 0) => {
                Ok(PeerEvent::Media(Payload::Base64(a.as_bytes())))
            }
            _ => Err(WireError::Shape("t")),
        }
    }
}
