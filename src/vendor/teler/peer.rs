//! Teler's end of the media socket, the flow and the webhooks, spelled as it spells them, and what it would ignore.

use super::{L16_8K, desk, verify};
use crate::{
    base::{format::AudioFormat, secret::Secret, time::Wall},
    vendor::{
        self, Answer, ApiRequest, HookRequest, Payload, PeerCall, PeerEvent, PeerReply, WireError,
        codec::{quoted, read},
        gate::sealed,
    },
    wire::{base64, form::Form, json, sign},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;
use std::{borrow::Cow, fmt::Write, time::Duration};

/// The account of simulated calls, unless one is given.
const ACCOUNT: &str = "acc_00000000000000000000000000";
/// Teler waits this long for a flow.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message it is sent: two seconds and a bit.
const MAX_AUDIO: usize = 64_000;

/// A simulated stream of one call.
#[derive(Debug)]
pub(super) struct Peer {
    call: PeerCall,
    stream_id: String,
    format: AudioFormat,
    chunk_ms: u32,
    message_id: u64,
    /// The number of our last chunk.
    last: u64,
}

impl Peer {
    /// The stream's id follows from the call's, so that a simulation sends the same bytes on every run.
    pub(super) fn new(call: PeerCall) -> Self {
        let stream_id = format!("ms_{:.26}", sign::sha256_hex(call.call_sid.as_bytes()).to_uppercase());
        let query = call.url.as_deref().and_then(|url| url.split_once('?'));
        let form = Form::parse(query.map_or("", |(_, q)| q).as_bytes()).unwrap_or_default();
        let number = |name: &str| form.get(name).and_then(|n| n.parse().ok());
        Self {
            format: AudioFormat {
                rate: number("rate").or(call.format.map(|f| f.rate)).unwrap_or(L16_8K.rate),
                ..L16_8K
            },
            chunk_ms: number("chunk").unwrap_or(500),
            call,
            stream_id,
            message_id: 0,
            last: 0,
        }
    }

    fn account(&self) -> &str {
        self.call.account.as_deref().unwrap_or(ACCOUNT)
    }

    fn post(&self, url: &str, secret: Option<&Secret>, body: String) -> ApiRequest {
        ApiRequest {
            method: Method::POST,
            url: sealed(url, self.call.url_secret.as_ref().or(secret)),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body: Bytes::from(body),
            timeout: TIMEOUT,
        }
    }
}

impl vendor::Peer for Peer {
    fn format(&self) -> AudioFormat {
        self.format
    }

    fn plays(&self) -> AudioFormat {
        L16_8K
    }

    fn frame_ms(&self) -> u32 {
        self.chunk_ms
    }

    fn open(&mut self) -> Vec<String> {
        self.message_id = 1;
        // The id that the socket knows is not the one that REST and webhooks know. The rate is 8000 whatever the flow asked for.
        let asked = self.call.url.as_deref().is_some_and(|url| url.contains("rate="));
        let rate = if asked { L16_8K.rate } else { self.format.rate };
        vec![format!(
            r#"{{"type":"start","account_id":"{}","call_app_id":"va_00000000000000000000000000","call_id":"cs_{:.26}","stream_id":"{}","message_id":1,"data":{{"encoding":"audio/l16","sample_rate":{rate},"channels":1}}}}"#,
            quoted(self.account()),
            sign::sha256_hex(self.stream_id.as_bytes()).to_uppercase(),
            self.stream_id
        )]
    }

    fn media(&mut self, audio: &[u8], _: u64, out: &mut String) {
        self.message_id += 1;
        let _ = write!(
            out,
            r#"{{"type":"audio","stream_id":"{}","message_id":{},"data":{{"audio_b64":""#,
            self.stream_id, self.message_id
        );
        base64::append_str(audio, out);
        out.push_str(r#""}}"#);
    }

    /// Keys do not travel on the socket.
    fn dtmf(&mut self, _: char) -> String {
        String::new()
    }

    /// Nor do marks.
    fn mark(&mut self, _: &str) -> String {
        String::new()
    }

    /// The socket's end is the stream's.
    fn stop(&mut self) -> String {
        String::new()
    }

    fn announce(&self, url: &str, secret: Option<&Secret>) -> Option<ApiRequest> {
        let body = json!({
            "call_id": self.call.call_sid,
            "account_id": self.account(),
            "from_number": self.call.from,
            "to_number": self.call.to,
            "direction": "inbound",
        });
        Some(self.post(url, secret, body.to_string()))
    }

    fn answered(&self, document: &[u8]) -> Result<Answer, WireError> {
        let flow: Flow<'_> = read(document, "flow")?;
        match &*flow.action {
            "hangup" => Ok(Answer::HangUp),
            "stream" => {
                let url = flow.ws_url.unwrap_or_default();
                let chunk = flow.chunk_size.unwrap_or(400);
                let socket = url.starts_with("wss://") || url.starts_with("ws://");
                let rate = matches!(flow.sample_rate.as_deref(), None | Some("8k" | "16k"));
                if !socket || !rate || !(20..=2000).contains(&chunk) || !chunk.is_multiple_of(20) {
                    return Err(WireError::Shape("flow"));
                }
                let form = Form::parse(url.split_once('?').map_or("", |(_, q)| q).as_bytes());
                let token = form.unwrap_or_default().get("token").unwrap_or_default().to_owned();
                Ok(Answer::Stream {
                    url: url.into_owned(),
                    token,
                    status_url: String::new(),
                    session_id: String::new(),
                })
            }
            _ => Err(WireError::Shape("action")),
        }
    }

    fn conclude(&self, url: &str, seconds: u32, secret: Option<&Secret>) -> Option<ApiRequest> {
        let at = Wall::now();
        let body = json!({
            "id": format!("evt_{:.26}", sign::sha256_hex(format!("end {}", self.call.call_sid).as_bytes())),
            "type": "call.completed",
            "api_version": "2026-06-01",
            "occurred_at": at,
            "account_id": self.account(),
            "voice_app_id": "va_00000000000000000000000000",
            "sip_trunk_id": null,
            "call_id": self.call.call_sid,
            "leg_id": null,
            "data": { "call_id": self.call.call_sid, "reason": "callee_hangup", "duration_seconds": seconds },
            "previous_attributes": null,
        })
        .to_string();
        let signature = secret.and_then(|s| verify::headers(s, at, &body));
        let mut request = self.post(url, secret, body);
        request.headers.extend(signature.into_iter().flatten());
        Some(request)
    }

    fn command(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Option<PeerReply> {
        Some(desk::command(&self.call, request, key))
    }

    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<PeerEvent<'a>, WireError> {
        match read(message, "type")? {
            Outbound::Audio { audio_b64, chunk_id } => {
                let Cow::Borrowed(payload) = audio_b64 else {
                    return Err(WireError::Shape("audio_b64"));
                };
                let whole = base64::decode_vec(payload.as_bytes(), MAX_AUDIO)
                    .is_ok_and(|a| !a.is_empty() && a.len().is_multiple_of(2));
                if !whole || chunk_id <= self.last {
                    return Err(WireError::Shape("audio"));
                }
                self.last = chunk_id;
                Ok(PeerEvent::Media(Payload::Base64(payload.as_bytes())))
            }
            Outbound::Interrupt { chunk_id } if chunk_id > self.last => Err(WireError::Shape("chunk_id")),
            Outbound::Interrupt { .. } => Ok(PeerEvent::Other),
            Outbound::Clear {} => Ok(PeerEvent::Clear),
        }
    }
}

#[derive(Deserialize)]
struct Flow<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    ws_url: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "json::loose_u64")]
    chunk_size: Option<u64>,
    #[serde(borrow)]
    sample_rate: Option<Cow<'a, str>>,
}

/// All that Teler takes, flat.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Outbound<'a> {
    Audio {
        #[serde(borrow)]
        audio_b64: Cow<'a, str>,
        chunk_id: u64,
    },
    Interrupt {
        chunk_id: u64,
    },
    Clear {},
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Account, Config},
        *,
    };
    use crate::vendor::{
        Hook, HookKind, HookRequest, Peer as _, Trunk, account::tests::configured, params::tests::asked,
    };

    fn peer(url: Option<&str>) -> Peer {
        Peer::new(PeerCall {
            call_sid: "rest-1".into(),
            from: "+15550100".into(),
            to: "+15550101".into(),
            url: url.map(str::to_owned),
            ..PeerCall::default()
        })
    }

    fn with<T>(request: &ApiRequest, at: Wall, then: impl FnOnce(&HookRequest<'_>) -> T) -> T {
        then(&HookRequest {
            method: "POST",
            path_and_query: &request.url,
            headers: &request.headers,
            body: &request.body,
            public_base: "",
            by_number: false,
            client: None,
            received_at: at,
        })
    }

    #[test]
    fn a_flow_is_asked_for_with_the_secret_and_followed() {
        let account = Account::new(
            configured(
                &[("webhook_secret", "w"), ("sample_rate", "16000"), ("chunk_size", "40")],
                Config::read,
            )
            .0,
        );
        for (secret, believed) in [("w", true), ("v", false)] {
            let request = peer(None).announce("/flow", Some(&Secret::new(secret))).unwrap();
            with(&request, Wall::default(), |r| {
                assert_eq!(account.verify(r).is_ok(), believed);
                assert!(matches!(account.parse(HookKind::Call, r), Ok(Hook::Call(u)) if u.from == "+15550100"));
                let answer = account.answer(
                    r,
                    &Answer::Stream {
                        url: "wss://h/media-stream?token=t".into(),
                        token: "t".into(),
                        status_url: String::new(),
                        session_id: String::new(),
                    },
                );
                let Ok(Answer::Stream { url, token, .. }) = peer(None).answered(answer.body.as_bytes()) else {
                    panic!("{answer:?}")
                };
                let peer = peer(Some(&url));
                assert_eq!(
                    (&*token, peer.format().rate, peer.plays().rate, peer.frame_ms()),
                    ("t", 16000, 8000, 40)
                );
            });
        }
        asked("POST", "/flow", "", "", |r| {
            let refusal = account.answer(r, &Answer::Busy);
            assert_eq!(peer(None).answered(refusal.body.as_bytes()), Ok(Answer::HangUp));
        });
    }

    #[test]
    fn an_account_with_two_secrets_is_brought_both() {
        let secrets = [("signing_secret", "s"), ("webhook_secret", "w")];
        let account = Account::new(configured(&secrets, Config::read).0);
        let of = |url_secret: &str| Peer {
            call: PeerCall {
                url_secret: Some(Secret::new(url_secret)),
                ..peer(None).call
            },
            ..peer(None)
        };
        for (signs, stands, flow, news) in [("s", "w", true, true), ("s", "v", false, true), ("t", "w", true, false)] {
            let (peer, secret) = (of(stands), Secret::new(signs));
            let asked = peer.announce("/flow", Some(&secret)).unwrap();
            with(&asked, Wall::now(), |r| {
                assert_eq!(account.verify(r).is_ok(), flow, "{signs} {stands}")
            });
            let told = peer.conclude("/webhook", 7, Some(&secret)).unwrap();
            with(&told, Wall::now(), |r| {
                assert_eq!(account.verify(r).is_ok(), news, "{signs} {stands}")
            });
        }
    }

    #[test]
    fn the_end_is_told_with_a_signature() {
        let account = Account::new(configured(&[("signing_secret", "s")], Config::read).0);
        for (secret, believed) in [("s", true), ("t", false)] {
            let told = peer(None).conclude("/webhook", 7, Some(&Secret::new(secret))).unwrap();
            with(&told, Wall::now(), |r| {
                assert_eq!(account.verify(r).is_ok(), believed);
                assert!(matches!(account.parse(HookKind::Status, r), Ok(Hook::News(u)) if u.duration_s == Some(7)));
            });
        }
    }

    #[test]
    fn what_teler_would_ignore_is_refused() {
        let mut peer = peer(None);
        let audio = |n| format!(r#"{{"type":"audio","audio_b64":"AAA=","chunk_id":{n}}}"#);
        assert!(peer.read(audio(1).as_bytes()).is_ok());
        for bad in [
            audio(1),
            audio(2).replace("AAA=", "AA=="),
            audio(2).replace("AAA=", "?"),
            r#"{"type":"audio","data":{"audio_b64":"AAA=","chunk_id":2}}"#.to_owned(),
            r#"{"type":"interrupt","chunk_id":9}"#.to_owned(),
            r#"{"type":"stop"}"#.to_owned(),
        ] {
            assert!(peer.read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(peer.read(br#"{"type":"interrupt","chunk_id":1}"#), Ok(PeerEvent::Other));
        assert!(
            peer.answered(br#"{"action":"stream","ws_url":"wss://h","chunk_size":30}"#)
                .is_err()
        );
        assert!(peer.answered(br#"{"action":"stream","ws_url":"https://h"}"#).is_err());
    }
}
