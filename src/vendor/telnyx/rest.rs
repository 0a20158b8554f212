//! Telnyx's end of the Call Control commands, for simulation: takes them as strictly as the official description reads.
//!
//! Refuses a wrong key, an unknown, missing or wrongly typed parameter, another call's id, and any command for a call that is
//! over; carries out a repeated `command_id` once.

use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
    },
    vendor::{Answer, HookRequest, PeerOrder, PeerReply},
    wire::json,
};
use http::header;
use serde_json::{Map, Value, json};

/// What a parameter must be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Word(&'static [&'static str]),
    Number(u64, u64),
    /// Base64.
    State,
    /// A UUID.
    Id,
}

/// Parameter, whether it must be there, and what it must be.
type Parameter = (&'static str, bool, Kind);

const CODECS: &[&str] = &["PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16"];

/// Of every command.
const COMMON: &[Parameter] = &[("client_state", false, Kind::State), ("command_id", true, Kind::Id)];

const STREAM: &[Parameter] = &[
    ("stream_url", false, Kind::Text),
    (
        "stream_track",
        false,
        Kind::Word(&["inbound_track", "outbound_track", "both_tracks"]),
    ),
    (
        "stream_codec",
        false,
        Kind::Word(&["PCMU", "PCMA", "G722", "OPUS", "AMR-WB", "L16", "default"]),
    ),
    ("stream_bidirectional_mode", false, Kind::Word(&["mp3", "rtp"])),
    ("stream_bidirectional_codec", false, Kind::Word(CODECS)),
    (
        "stream_bidirectional_target_legs",
        false,
        Kind::Word(&["self", "opposite", "both"]),
    ),
];

/// What `answer` has no word for.
const STREAM_MORE: &[Parameter] = &[
    ("stream_bidirectional_sampling_rate", false, Kind::Number(8000, 48_000)),
    ("stream_auth_token", false, Kind::Text),
];

const DIAL: &[Parameter] = &[
    ("connection_id", true, Kind::Text),
    ("to", true, Kind::Text),
    ("from", true, Kind::Text),
    ("timeout_secs", false, Kind::Number(5, 600)),
    ("webhook_url", false, Kind::Text),
];

/// The commands by name and what they take, beside [`COMMON`].
const COMMANDS: &[(&str, &[&[Parameter]])] = &[
    ("answer", &[STREAM]),
    (
        "reject",
        &[&[(
            "cause",
            true,
            Kind::Word(&["CALL_REJECTED", "USER_BUSY", "NOT_FOUND", "TEMPORARILY_UNAVAILABLE"]),
        )]],
    ),
    ("hangup", &[]),
    ("streaming_start", &[STREAM, STREAM_MORE]),
    ("streaming_stop", &[&[("stream_id", false, Kind::Text)]]),
    (
        "suppression_start",
        &[&[
            ("direction", false, Kind::Word(&["inbound", "outbound", "both"])),
            ("noise_suppression_engine", false, Kind::Text),
        ]],
    ),
    ("suppression_stop", &[]),
    (
        "transfer",
        &[&[
            ("to", true, Kind::Text),
            ("from", false, Kind::Text),
            ("target_leg_client_state", false, Kind::State),
        ]],
    ),
    ("send_dtmf", &[&[("digits", true, Kind::Text)]]),
];

/// Where the commands for one call arrive.
#[derive(Debug)]
pub(super) struct Desk {
    call_sid: String,
    /// As JSON.
    state: String,
    /// What the stream that was asked for is sent.
    plays: Option<AudioFormat>,
    seen: Vec<String>,
    over: bool,
}

impl Desk {
    pub(super) fn new(call_sid: String) -> Self {
        Self {
            call_sid,
            state: "null".to_owned(),
            plays: None,
            seen: Vec::new(),
            over: false,
        }
    }

    /// The state that the last command gave, as JSON.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// What the last stream that was asked for is sent.
    pub(super) const fn plays(&self) -> Option<AudioFormat> {
        self.plays
    }

    /// What becomes of a request.
    pub(super) fn take(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> PeerReply {
        match self.carry_out(request, key) {
            Ok(reply) => reply,
            Err((status, code, detail)) => PeerReply {
                status,
                body: json!({ "errors": [{ "code": code, "title": "refused", "detail": detail }] }).to_string(),
                order: PeerOrder::Nothing,
            },
        }
    }

    fn carry_out(&mut self, request: &HookRequest<'_>, key: Option<&Secret>) -> Result<PeerReply, Refusal> {
        let bearer = request.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let bearer = bearer.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        if bearer.is_empty() || key.is_some_and(|k| k.expose() != bearer) {
            return Err((401, "10009", "Authentication failed".to_owned()));
        }
        let path = request.path_and_query;
        let path = path.find("/calls").map_or("", |at| &path[at..]);
        let place = || (404, "10005", format!("nothing is at {path}"));
        if request.method == "GET" && path.strip_prefix("/calls/") == Some(&self.call_sid) {
            let told =
                json!({ "data": { "call_control_id": self.call_sid, "is_alive": !self.over, "call_duration": 1 } });
            return Ok(PeerReply {
                status: 200,
                body: told.to_string(),
                order: PeerOrder::Nothing,
            });
        }
        if request.method != "POST" {
            return Err(place());
        }
        let body: Map<String, Value> =
            json::read(request.body).map_err(|e| (400, "10015", format!("the body is {e}")))?;
        if path == "/calls" {
            check(&body, &[COMMON, DIAL, STREAM, STREAM_MORE])?;
            return Ok(self.dialled(&body));
        }
        let (sid, command) = path
            .strip_prefix("/calls/")
            .and_then(|rest| rest.split_once("/actions/"))
            .ok_or_else(place)?;
        let (name, groups) = COMMANDS.iter().find(|(name, _)| *name == command).ok_or_else(place)?;
        if sid != self.call_sid {
            return Err((422, "90015", format!("{sid} is no call_control_id")));
        }
        check(&body, &[groups, &[COMMON][..]].concat())?;
        if self.over {
            return Err((422, "90018", "This call is no longer active".to_owned()));
        }
        Ok(PeerReply {
            status: 200,
            body: json!({ "data": { "result": "ok" } }).to_string(),
            order: self.order(name, &body),
        })
    }

    fn dialled(&mut self, body: &Map<String, Value>) -> PeerReply {
        let order = match self.is_new(body) {
            true => connection(body),
            false => PeerOrder::Nothing,
        };
        let call = json!({ "data": {
            "record_type": "call", "call_control_id": self.call_sid, "call_leg_id": "leg", "call_session_id": "session",
            "is_alive": false, "client_state": body.get("client_state"),
        } });
        PeerReply {
            status: 200,
            body: call.to_string(),
            order,
        }
    }

    fn order(&mut self, command: &str, body: &Map<String, Value>) -> PeerOrder {
        if !self.is_new(body) {
            return PeerOrder::Nothing;
        }
        match command {
            "answer" | "streaming_start" => connection(body),
            "reject" | "hangup" => {
                self.over = true;
                PeerOrder::HangUp
            }
            "transfer" => PeerOrder::Leave,
            _ => PeerOrder::Nothing,
        }
    }

    /// Whether the command is not a repetition; keeps the state that it gives.
    fn is_new(&mut self, body: &Map<String, Value>) -> bool {
        let id = body.get("command_id").and_then(Value::as_str).unwrap_or_default();
        if self.seen.iter().any(|seen| seen == id) {
            return false;
        }
        self.seen.push(id.to_owned());
        if let Some(state) = body.get("client_state") {
            self.state = state.to_string();
        }
        self.plays = played(body).or(self.plays);
        true
    }
}

type Refusal = (u16, &'static str, String);

/// What a stream that is asked for will be sent.
fn played(body: &Map<String, Value>) -> Option<AudioFormat> {
    let rate = body.get("stream_bidirectional_sampling_rate").and_then(Value::as_u64);
    let rate = rate.and_then(|r| u32::try_from(r).ok());
    let (encoding, rate) = match body.get("stream_bidirectional_codec")?.as_str()? {
        "PCMU" => (Encoding::Ulaw, 8000),
        "PCMA" => (Encoding::Alaw, 8000),
        "G722" => (Encoding::G722, 16_000),
        "OPUS" => (Encoding::Opus, rate.unwrap_or(16_000)),
        "L16" => (Encoding::L16Le, rate.unwrap_or(8000)),
        _ => return None,
    };
    Some(AudioFormat { encoding, rate })
}

/// Where the call is connected to; to nothing yet where no stream is named.
fn connection(body: &Map<String, Value>) -> PeerOrder {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match text("stream_url") {
        url if url.is_empty() => PeerOrder::Take,
        url => PeerOrder::Connect(Answer::Stream {
            url,
            token: text("stream_auth_token"),
            status_url: text("webhook_url"),
            session_id: String::new(),
        }),
    }
}

fn check(body: &Map<String, Value>, groups: &[&[Parameter]]) -> Result<(), Refusal> {
    let known = || groups.iter().copied().flatten();
    if let Some(name) = body.keys().find(|name| known().all(|(n, ..)| n != name)) {
        return Err((422, "10015", format!("{name} is no parameter of this command")));
    }
    for (name, required, kind) in known() {
        match body.get(*name) {
            None if *required => return Err((422, "10004", format!("{name} is missing"))),
            Some(value) if !kind.takes(value) => return Err((422, "10027", format!("{name} cannot be {value}"))),
            _ => {}
        }
    }
    let bidirectional = body.keys().any(|k| k.starts_with("stream_bidirectional_codec"));
    if bidirectional && body.get("stream_bidirectional_mode").and_then(Value::as_str) != Some("rtp") {
        return Err((
            422,
            "10015",
            "stream_bidirectional_codec is of use only in rtp mode".to_owned(),
        ));
    }
    Ok(())
}

impl Kind {
    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::String(text)) => !text.is_empty() && text.len() <= 4000,
            (Self::Word(words), Value::String(text)) => words.contains(&text.as_str()),
            (Self::State, Value::String(text)) => crate::wire::base64::decode_vec(text.as_bytes(), text.len()).is_ok(),
            (Self::Id, Value::String(text)) => text.parse::<uuid::Uuid>().is_ok(),
            (Self::Number(least, most), Value::Number(n)) => n.as_u64().is_some_and(|n| (least..=most).contains(&n)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::time::Wall,
        vendor::{
            CallAction, Trunk,
            telnyx::{Account, config::tests::read},
        },
    };
    use std::time::Duration;

    const ID: &str = "1b4e28ba-2fa1-4d3c-8f11-1234567890ab";

    fn post(desk: &mut Desk, path: &str, key: &str, body: &[u8]) -> PeerReply {
        let bearer = header::HeaderValue::try_from(format!("Bearer {key}")).unwrap();
        let headers = http::HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        let request = HookRequest {
            method: "POST",
            path_and_query: path,
            headers: &headers,
            body,
            public_base: "",
            by_number: false,
            client: None,
            received_at: Wall::default(),
        };
        desk.take(&request, Some(&Secret::new("KEY0123")))
    }

    /// What our side writes, taken by the vendor's.
    #[test]
    fn every_command_that_sidetone_writes_is_taken() {
        let answer = Answer::Stream {
            url: "wss://relay.example.com/audio-stream/tok".into(),
            token: "tok".into(),
            status_url: String::new(),
            session_id: String::new(),
        };
        let dial = CallAction::Dial {
            call: "id",
            agent: "desk",
            to: "+15550102",
            from: "+15550101",
            answer: &answer,
            answer_url: "",
            status_url: "https://relay.example.com/telnyx/webhook",
            ring: Duration::from_secs(30),
        };
        let accept = CallAction::Accept {
            call: "id",
            agent: "desk",
            answer: &answer,
        };
        for codec in ["PCMU", "PCMA", "G722", "L16"] {
            let basics = [
                ("api_key", "KEY0123"),
                ("application_id", "1"),
                ("base_url", "http://h/v2"),
                ("stream_bidirectional_codec", codec),
            ];
            let account = Account::new(read(&basics).0);
            let mut desk = Desk::new("v3:abc".into());
            for action in [
                &dial,
                &accept,
                &CallAction::StartStream { answer: &answer },
                &CallAction::Enhance { on: true },
                &CallAction::Enhance { on: false },
                &CallAction::Digits { digits: "1" },
                &CallAction::Transfer { to: "+15550103" },
                &CallAction::HangUp,
            ] {
                let request = account.request("v3:abc", action).unwrap();
                let path = request.url.strip_prefix("http://h").unwrap();
                let reply = post(&mut desk, path, "KEY0123", &request.body);
                assert_eq!(reply.status, 200, "{action:?}: {}", reply.body);
                assert!(account.reply(action, reply.status, reply.body.as_bytes()).is_ok());
                let repeated = post(&mut desk, path, "KEY0123", &request.body);
                assert!(matches!(repeated.order, PeerOrder::Nothing), "carried out once");
                let stranger = post(&mut desk, path, "KEY9999", &request.body);
                assert_eq!(stranger.status, 401);
            }
            let late = account.request("v3:abc", &CallAction::HangUp).unwrap();
            let reply = post(
                &mut desk,
                late.url.strip_prefix("http://h").unwrap(),
                "KEY0123",
                &late.body,
            );
            assert_eq!(reply.status, 422);
            assert!(
                account
                    .reply(&CallAction::HangUp, reply.status, reply.body.as_bytes())
                    .is_ok()
            );
        }
    }

    #[test]
    fn what_is_unknown_missing_or_of_the_wrong_kind_is_refused() {
        let mut desk = Desk::new("v3:abc".into());
        let path = "/v2/calls/v3:abc/actions/answer";
        for (path, body, code) in [
            (path, json!({}), "10004"),
            (path, json!({ "command_id": "1" }), "10027"),
            (path, json!({ "command_id": ID, "stream_sample_rate": "8000" }), "10015"),
            (
                path,
                json!({ "command_id": ID, "stream_bidirectional_sampling_rate": 8000 }),
                "10015",
            ),
            (path, json!({ "command_id": ID, "stream_codec": "pcmu" }), "10027"),
            (
                path,
                json!({ "command_id": ID, "stream_bidirectional_codec": "PCMU" }),
                "10015",
            ),
            (path, json!({ "command_id": ID, "client_state": "{}" }), "10027"),
            ("/v2/calls/v3:xyz/actions/answer", json!({ "command_id": ID }), "90015"),
            ("/v2/calls/v3:abc/actions/mute", json!({ "command_id": ID }), "10005"),
            (
                "/v2/calls",
                json!({ "command_id": ID, "to": "+1", "from": "+1" }),
                "10004",
            ),
            ("/v2/messages", json!({}), "10005"),
        ] {
            let reply = post(&mut desk, path, "KEY0123", body.to_string().as_bytes());
            assert!(
                reply.body.contains(&format!("\"code\":\"{code}\"")),
                "{path} {body}: {}",
                reply.body
            );
        }
        assert_eq!(post(&mut desk, path, "KEY0123", b"[]").status, 400);
    }

    #[test]
    fn an_answer_without_a_stream_waits_for_one() {
        let mut desk = Desk::new("v3:abc".into());
        let body = json!({ "command_id": ID, "client_state": "c3Q=" }).to_string();
        let reply = post(&mut desk, "/calls/v3:abc/actions/answer", "KEY0123", body.as_bytes());
        assert!(matches!(reply.order, PeerOrder::Take));
        assert_eq!(desk.state(), "\"c3Q=\"");
    }
}
