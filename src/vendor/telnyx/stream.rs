//! Messages of Telnyx's media socket, parsed and formatted.
//!
//! Inbound audio takes a positional scan of the shape that Telnyx sends for the stream that `start` named; all else takes
//! serde, which tolerates order, white space, unknown members, and numbers where Telnyx writes strings. Messages may
//! overtake each other: media carries its chunk number for the session to sort by. What we send names no stream.

use super::message::{ConnectedMessage, DtmfMessage, ErrorMessage, Head, MarkMessage, MediaMessage, StartMessage};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        time::Wall,
    },
    vendor::{Agreed, Media, Payload, StreamCodec, StreamCommand, StreamEvent, StreamStart, Upgrade, WireError},
    wire::{
        base64,
        json::{self, BadJson, Scan},
    },
};
use bytes::BytesMut;
use serde::Deserialize;
use std::borrow::Cow;

/// Longest id believed.
const MAX_ID: usize = 200;
/// Where the token travels when the account's commands name one.
pub(super) const TOKEN_HEADER: &str = "x-telnyx-streaming-auth-token";

/// One media socket's codec.
#[derive(Debug)]
pub(super) struct Codec {
    agreed: Agreed,
    /// The token of the upgrade's header or query, or of the greeting.
    token: Option<String>,
    stream: Option<Stream>,
    /// Unescaped text of the last message, where it had escapes.
    scratch: String,
}

/// What `start` settled, prepared for use in every frame.
#[derive(Debug)]
struct Stream {
    id: String,
    /// The member that names the stream, as it stands in a media message.
    member: Vec<u8>,
}

impl Stream {
    fn new(id: String) -> Self {
        let mut quoted = String::new();
        json::escape(&id, |piece| quoted.push_str(piece));
        Self {
            member: format!(r#""stream_id":"{quoted}","#).into_bytes(),
            id,
        }
    }

    /// The media message of this stream, spelled as Telnyx spells it; sequence number and stream stand in either order.
    fn scan_media<'a>(&self, message: &'a [u8]) -> Option<Media<'a>> {
        let mut scan = Scan::new(message);
        scan.literal(br#"{"event":"media","#)?;
        let named_first = scan.literal(&self.member).is_some();
        if scan.literal(br#""sequence_number":""#).is_some() {
            scan.digits()?;
            scan.literal(b"\",")?;
            if !named_first {
                scan.literal(&self.member);
            }
        }
        scan.literal(br#""media":{"track":""#)?;
        let inbound = scan.literal(b"inbound").is_some();
        if !inbound {
            scan.literal(b"outbound")?;
        }
        scan.literal(br#"","chunk":""#)?;
        let chunk = scan.digits()?;
        scan.literal(br#"","timestamp":""#)?;
        let at_ms = scan.digits()?;
        scan.literal(br#"","payload":""#)?;
        let payload = scan.string_rest()?;
        scan.end(b"}}")?;
        Some(Media {
            payload: Payload::Base64(payload),
            inbound,
            chunk: Some(chunk),
            at_ms: Some(at_ms),
            rate: None,
        })
    }
}

impl Codec {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let header = upgrade.headers.get(TOKEN_HEADER).and_then(|v| v.to_str().ok());
        let query = upgrade
            .query
            .iter()
            .find(|(n, _)| n == "token")
            .map(|(_, v)| v.as_str());
        Self {
            agreed: upgrade.agreed,
            token: header.or(query).filter(|t| !t.is_empty()).map(str::to_owned),
            stream: None,
            scratch: String::new(),
        }
    }

    /// Everything but the fast path.
    fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let event = match json::first_member(message, "event") {
            Some(event) => Cow::Borrowed(event),
            None => {
                let head: Head<'_> = read(message, "event")?;
                head.event.ok_or(WireError::Shape("event"))?
            }
        };
        match &*event {
            "media" => {
                let message: MediaMessage<'a> = read(message, "media")?;
                self.expect_stream(message.stream_id)?;
                let media = message.media.ok_or(WireError::Shape("media"))?;
                let payload = media.payload.ok_or(WireError::Shape("media.payload"))?;
                Ok(StreamEvent::Media(Media {
                    payload: Payload::Base64(self.keep(payload).as_bytes()),
                    inbound: !media.track.is_some_and(|t| t.starts_with("outbound")),
                    chunk: media.chunk,
                    at_ms: media.timestamp,
                    rate: None,
                }))
            }
            "connected" => self.greeted(read(message, "connected")?),
            "start" => self.start(read(message, "start")?),
            "dtmf" => {
                let message: DtmfMessage<'_> = read(message, "dtmf")?;
                self.expect_stream(message.stream_id)?;
                let digit = message.dtmf.and_then(|d| d.digit);
                match digit.ok_or(WireError::Shape("dtmf.digit"))?.as_bytes() {
                    [c @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd')] => {
                        let key = c.to_ascii_uppercase() as char;
                        let at = message.occurred_at.and_then(|at| Wall::parse(&at));
                        Ok(at.map_or(StreamEvent::Dtmf(key), |at| StreamEvent::DtmfAt(key, at)))
                    }
                    _ => Err(WireError::Key),
                }
            }
            "mark" => {
                let message: MarkMessage<'a> = read(message, "mark")?;
                self.expect_stream(message.stream_id)?;
                let name = message.mark.and_then(|m| m.name).ok_or(WireError::Shape("mark.name"))?;
                Ok(StreamEvent::Mark(self.keep(name)))
            }
            "error" => {
                let message: ErrorMessage = read(message, "error")?;
                let code = message.payload.and_then(|p| p.code).unwrap_or_default();
                Ok(StreamEvent::Complaint(code))
            }
            "stop" => {
                let message: Head<'_> = read(message, "stop")?;
                self.expect_stream(message.stream_id)?;
                Ok(StreamEvent::Stop)
            }
            _ => read::<Head<'_>>(message, "event").map(|_| StreamEvent::Ignored),
        }
    }

    /// The greeting may tell the token, and must not tell another one than the upgrade did.
    fn greeted<'a>(&mut self, message: ConnectedMessage<'_>) -> Result<StreamEvent<'a>, WireError> {
        let token = message.connected.and_then(|c| c.token).filter(|t| !t.is_empty());
        match (&self.token, token) {
            (Some(known), Some(told)) if *known != told => return Err(WireError::Shape("connected")),
            (None, Some(told)) => self.token = Some(told.into_owned()),
            _ => {}
        }
        Ok(StreamEvent::Hello)
    }

    fn start<'a>(&mut self, message: StartMessage<'_>) -> Result<StreamEvent<'a>, WireError> {
        if self.stream.is_some() {
            return Err(WireError::Shape("start"));
        }
        let start = message.start.ok_or(WireError::Shape("start"))?;
        let inbound = start.audio(self.agreed.l16.unwrap_or(Encoding::L16))?;
        let stream_id = id(message.stream_id.or(start.stream_id), "stream_id")?;
        // A stream that names no call is a call by its own name: nothing else tells it from another.
        let call_sid = match start.call_control_id {
            Some(sid) => id(Some(sid), "start.call_control_id")?,
            None => stream_id.clone(),
        };
        let account = start.user_id.map(|a| id(Some(a), "start.user_id")).transpose()?;
        let parameter = start.custom_parameters.as_ref().and_then(|p| p.get("token"));
        let text = |t: Option<Cow<'_, str>>| t.filter(|t| !t.is_empty()).map(Cow::into_owned);
        self.stream = Some(Stream::new(stream_id.clone()));
        Ok(StreamEvent::Start(Box::new(StreamStart {
            stream_id,
            call_sid,
            account,
            token: self.token.take().or(parameter.map(str::to_owned)),
            inbound,
            ptime_ms: None,
            outbound: self.agreed.outbound.unwrap_or(AudioFormat::ULAW_8K),
            from: text(start.from),
            to: text(start.to),
        })))
    }

    /// A message may leave its `stream_id` out, and must not name another stream.
    fn expect_stream(&self, named: Option<Cow<'_, str>>) -> Result<(), WireError> {
        match (&self.stream, named) {
            (Some(stream), Some(named)) if stream.id != named => Err(WireError::Shape("stream_id")),
            _ => Ok(()),
        }
    }

    fn keep<'a>(&'a mut self, text: Cow<'a, str>) -> &'a str {
        match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => {
                self.scratch = text;
                &self.scratch
            }
        }
    }
}

impl StreamCodec for Codec {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        match self.stream.as_ref().and_then(|s| s.scan_media(message)) {
            Some(media) => Ok(StreamEvent::Media(media)),
            None => self.read(message),
        }
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        const MEDIA: &[u8] = br#"{"event":"media","media":{"payload":""#;
        match command {
            StreamCommand::Media([]) => {}
            StreamCommand::Media(audio) => {
                out.reserve(MEDIA.len() + base64::encoded_len(audio.len()) + 3);
                out.extend_from_slice(MEDIA);
                base64::append(audio, out);
                out.extend_from_slice(br#""}}"#);
            }
            StreamCommand::Mark(name) => {
                out.extend_from_slice(br#"{"event":"mark","mark":{"name":""#);
                json::escape(name, |piece| out.extend_from_slice(piece.as_bytes()));
                out.extend_from_slice(br#""}}"#);
            }
            StreamCommand::HangUp | StreamCommand::Interrupt(_) => {}
            StreamCommand::Clear => out.extend_from_slice(br#"{"event":"clear"}"#),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(message: &'a [u8], what: &'static str) -> Result<T, WireError> {
    json::read(message).map_err(|e| match e {
        BadJson::Syntax => WireError::NotJson,
        BadJson::Shape => WireError::Shape(what),
    })
}

fn id(text: Option<Cow<'_, str>>, what: &'static str) -> Result<String, WireError> {
    text.filter(|t| (1..=MAX_ID).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic()))
        .map(Cow::into_owned)
        .ok_or(WireError::Id(what))
}

#[cfg(test)]
mod tests;
