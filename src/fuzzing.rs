//! Bodies of all fuzz targets: whatever the bytes are, nothing panics, nothing grows without bound, and two readers of the same text
//! agree. Compiled in every build and run over the corpora by the tests; `fuzz/` holds one call for each.

use crate::{
    base::time::Wall,
    hub::protocol,
    vendor::{self, Answer, CallAction, HookKind, HookRequest, Payload, PeerCall, StreamCommand, StreamEvent, Upgrade},
    wire::{base64, form::Form, json, multipart, numbers, xml::Element},
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, header};

/// A target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub static TARGETS: &[Target] = &[
    ("stream", stream),
    ("peer", peer),
    ("hook", hook),
    ("reply", reply),
    ("frontend", frontend),
    ("wire_json", wire_json),
    ("wire_numbers", wire_numbers),
    ("wire_text", wire_text),
];

/// A vendor chosen by the first byte, and the rest.
fn choose(data: &[u8]) -> Option<(&'static vendor::Descriptor, &[u8])> {
    let (first, rest) = data.split_first()?;
    let all = vendor::all();
    Some((all[usize::from(*first) % all.len()], rest))
}

fn call() -> PeerCall {
    PeerCall {
        call_sid: "c1".to_owned(),
        token: Some("t".to_owned()),
        from: "+15550100".to_owned(),
        to: "+15550101".to_owned(),
        ..PeerCall::default()
    }
}

/// Messages on a vendor's media socket, one a line, after the vendor has opened the stream as it does. What is understood as audio is
/// decoded; between them everything that can be written is.
pub fn stream(data: &[u8]) {
    let Some((vendor, rest)) = choose(data) else { return };
    let mut codec = (vendor.codec)(&Upgrade::default());
    // Half of the inputs begin before `start`.
    if data[0] & 0x80 == 0 {
        for message in (vendor.peer)(call()).open() {
            let _ = codec.parse(message.as_bytes());
        }
    }
    let (mut bytes, mut samples) = ([0; 4096], [0; 4096]);
    let mut out = BytesMut::new();
    for message in rest.split(|b| *b == b'\n') {
        match codec.parse(message) {
            Ok(StreamEvent::Media(media)) => match media.payload {
                Payload::Base64(text) => drop(base64::decode(text, &mut bytes)),
                Payload::Numbers(text) => drop(numbers::decode(text, &mut samples)),
            },
            Ok(StreamEvent::Dtmf(key) | StreamEvent::DtmfAt(key, _)) => {
                assert!(key.is_ascii_digit() || "*#ABCD".contains(key))
            }
            Ok(_) | Err(_) => {}
        }
        for command in [
            StreamCommand::Media(&bytes[..160]),
            StreamCommand::Mark("u\"1"),
            StreamCommand::Clear,
            StreamCommand::Interrupt(None),
            StreamCommand::HangUp,
        ] {
            out.clear();
            codec.format(command, &mut out);
            // Whatever the far end put into its ids, what is written is JSON.
            assert!(out.is_empty() || serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }
    }
}

/// Our messages as the other end reads them, and the documents that answer it.
pub fn peer(data: &[u8]) {
    let Some((vendor, rest)) = choose(data) else { return };
    let mut peer = (vendor.peer)(call());
    for message in rest.split(|b| *b == b'\n') {
        let _ = peer.read(message);
    }
    let _ = peer.answered(rest);
}

/// A webhook: the path and query, the content type, and the body, parted by line feeds. It is read whether it is believed or not, and
/// whatever it asks for is answered.
pub fn hook(data: &[u8]) {
    let Some((vendor, rest)) = choose(data) else { return };
    let mut parts = rest.splitn(3, |b| *b == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (path, kind, body) = (next(), next(), next());
    let Ok(path) = std::str::from_utf8(path) else { return };
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_bytes(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let request = HookRequest {
        method: if body.is_empty() { "GET" } else { "POST" },
        path_and_query: path,
        headers: &headers,
        body,
        public_base: "https://relay.example.com",
        by_number: false,
        client: None,
        received_at: Wall::default(),
    };
    let trunk = bare(vendor);
    let _ = trunk.verify(&request);
    let _ = trunk.verify_upgrade(&request);
    for kind in [HookKind::Call, HookKind::Status, HookKind::Mixed] {
        let _ = trunk.parse(kind, &request);
    }
    for answer in [answer(), Answer::Busy, Answer::HangUp] {
        let _ = trunk.answer(&request, &answer);
    }
    let _ = trunk.receipt(&request);
    let _ = (vendor.claims)(&request);
}

/// A vendor's reply to a REST request: status in the second byte, then the body.
pub fn reply(data: &[u8]) {
    let Some((vendor, [status, body @ ..])) = choose(data) else {
        return;
    };
    let trunk = bare(vendor);
    let answer = answer();
    let dial = CallAction::Dial {
        call: "1",
        agent: "human",
        to: "+15550100",
        from: "+15550101",
        answer: &answer,
        answer_url: "https://relay.example.com/a",
        status_url: "https://relay.example.com/s",
        ring: std::time::Duration::from_secs(30),
    };
    for action in [dial, CallAction::HangUp] {
        if let Ok(sid) = trunk.reply(&action, 200 + u16::from(*status), body) {
            assert!(sid.len() <= 1024);
        }
    }
}

/// A frontend's message.
pub fn frontend(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = protocol::parse(text);
    }
}

/// JSON: the bounded reader takes a part of what serde takes, and says the same.
pub fn wire_json(data: &[u8]) {
    let ours = json::read::<serde_json::Value>(data).ok();
    let theirs = serde_json::from_slice::<serde_json::Value>(data).ok();
    assert!(ours.is_none() || ours == theirs);
    assert!(ours.is_some() || theirs.is_none() || !json::is_bounded(data));
    let _ = json::first_member(data, "event");
}

/// Arrays of numbers: what serde takes as one, within 16 bits, is read the same.
pub fn wire_numbers(data: &[u8]) {
    let mut samples = [0; 512];
    let read = numbers::decode(data, &mut samples).map(|n| &samples[..n]);
    let text = [b"[", data, b"]"].concat();
    if let Ok(numbers) = serde_json::from_slice::<Vec<i16>>(&text)
        && numbers.len() <= 512
        && !data.iter().any(|b| b"eE.".contains(b))
    {
        assert_eq!(read, Ok(&numbers[..]));
    }
}

/// Forms, multipart forms, XML, base64.
pub fn wire_text(data: &[u8]) {
    let _ = Form::parse(data);
    let _ = multipart::parse("multipart/form-data; boundary=b", data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Element::parse(text);
    }
    if let Ok(bytes) = base64::decode_vec(data, 4096) {
        let text = base64::encode_string(&bytes);
        assert_eq!(base64::decode_vec(text.as_bytes(), 4096), Ok(bytes));
    }
}

/// An account with nothing configured.
fn bare(vendor: &vendor::Descriptor) -> std::sync::Arc<dyn vendor::Trunk> {
    let faults = crate::base::settings::Faults::default();
    (vendor.trunk)(&crate::base::settings::Section::empty(&faults))
}

fn answer() -> Answer {
    Answer::Stream {
        url: "wss://relay.example.com/s?token=t".to_owned(),
        token: "t".to_owned(),
        status_url: "https://relay.example.com/s".to_owned(),
        session_id: "s-1".to_owned(),
    }
}
