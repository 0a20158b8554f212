//! The messages of `/call-events`: what happens to calls, in the names of Telnyx's webhooks whichever vendor carries the call.
//! Pure.
//!
//! `{"type","id","occurred_at","payload"}`. `payload.call_control_id` is the vendor's id of the call (ours until the vendor has
//! told it), `payload.call_id` ours. The `id` of a stored event may be given back as `last_event_id`.

use crate::{
    base::{
        fault::{Fault, Kind},
        ids::CallId,
        time::Wall,
    },
    bus::{Event, News},
    store::{CallRow, EventRow},
    wire::form::Form,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::HashMap};

/// What a client of `/call-events` wants to see, from its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSettings {
    /// One call by either id; the whole tenant when `None`.
    pub call_id: Option<String>,
    /// The last event the client saw before it lost its socket.
    pub last_event_id: Option<i64>,
}

impl EventSettings {
    /// What the query of the upgrade request may hold, beside `token`.
    pub const QUERY: &'static [(&'static str, &'static str)] = &[
        (
            "call_id",
            "The one call to watch, by either id; without one, every call of the tenant.",
        ),
        (
            "last_event_id",
            "The `id` of the last event that was seen: what followed is sent first.",
        ),
    ];

    /// Reads the query of the upgrade request.
    pub fn from_query(query: &Form<'_>) -> Result<Self, Fault> {
        let value = |name| query.get(name).filter(|v| !v.is_empty());
        let last = value("last_event_id").map(|id| {
            let whole = Fault::client(Kind::Malformed, "last_event_id is not the id of a stored event");
            last_seen(id).ok_or(whole)
        });
        Ok(Self {
            call_id: value("call_id").map(str::to_owned),
            last_event_id: last.transpose()?,
        })
    }
}

/// The tenant's event up to which a client has seen everything. The second of two that tell of one stands for both.
fn last_seen(id: &str) -> Option<i64> {
    match id.split_once('-') {
        None => id.parse().ok(),
        Some((id, _)) => id.parse::<i64>().ok().map(|id| id - 1),
    }
}

/// What every event says of its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    call: CallId,
    call_sid: String,
    inbound: bool,
    customer: String,
    ours: String,
}

impl Face {
    /// That of a stored call.
    pub fn of(row: &CallRow) -> Self {
        Self {
            call: row.call_id,
            call_sid: row.call_sid.clone(),
            inbound: row.inbound,
            customer: row.customer_number.clone(),
            ours: row.organization_number.clone(),
        }
    }

    fn about<M>(&self, more: M) -> About<'_, M> {
        let (from, to) = match self.inbound {
            true => (&self.customer, &self.ours),
            false => (&self.ours, &self.customer),
        };
        About {
            call_control_id: match self.call_sid.starts_with("pending:") {
                true => self.call.as_str(),
                false => &self.call_sid,
            },
            call_id: self.call,
            from,
            to,
            direction: if self.inbound {
                Direction::Incoming
            } else {
                Direction::Outgoing
            },
            more,
        }
    }
}

/// An event as it is written.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Written<'a> {
    /// Of a stored event, to be given back as `last_event_id`; of a live one, its own.
    id: String,
    /// When.
    occurred_at: Wall,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", content = "payload")]
enum What<'a> {
    /// A call came or was placed.
    #[serde(rename = "call.initiated")]
    Initiated(About<'a, State>),
    /// It was answered.
    #[serde(rename = "call.answered")]
    Answered(About<'a, State>),
    /// Its media stream began.
    #[serde(rename = "streaming.started")]
    Started(About<'a, Nothing>),
    /// Its media stream ended.
    #[serde(rename = "streaming.stopped")]
    Stopped(About<'a, Nothing>),
    /// The vendor could not carry the stream.
    #[serde(rename = "streaming.failed")]
    Failed(About<'a, Why<'a>>),
    /// Words were recognised.
    #[serde(rename = "call.transcription")]
    Transcription(About<'a, Words<'a>>),
    /// A key was pressed.
    #[serde(rename = "call.dtmf.received")]
    Dtmf(About<'a, Key<'a>>),
    /// It ended.
    #[serde(rename = "call.hangup")]
    Hangup(About<'a, End<'a>>),
}

/// What every event says of its call, and what it says beside.
#[derive(Debug, Serialize, JsonSchema)]
struct About<'a, M> {
    /// The vendor's id of the call; ours until the vendor has told it.
    call_control_id: &'a str,
    /// Ours.
    call_id: CallId,
    /// The calling number.
    from: &'a str,
    /// The called number.
    to: &'a str,
    /// Seen from us.
    direction: Direction,
    #[serde(flatten)]
    more: M,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Incoming,
    Outgoing,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Nothing {}

#[derive(Debug, Serialize, JsonSchema)]
struct State {
    /// Where the call stands.
    state: Stands,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Stands {
    /// It came.
    Parked,
    /// It was placed.
    Bridging,
    Answered,
    Hangup,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Why<'a> {
    /// For people.
    failure_reason: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Words<'a> {
    /// What was said.
    transcription_data: Transcribed<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Transcribed<'a> {
    /// The words.
    transcript: &'a str,
    /// Whether they are final.
    is_final: bool,
    /// 0..1, where it means something.
    confidence: Option<f64>,
    /// Whose.
    transcription_track: Track,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Track {
    /// The caller.
    Inbound,
    /// Our side.
    Outbound,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Key<'a> {
    /// `0`-`9`, `*`, `#`, `A`-`D`.
    digit: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct End<'a> {
    /// Where the call stands.
    state: Stands,
    /// Why, in the words of a hangup cause.
    hangup_cause: &'static str,
    /// `unknown`: vendors do not tell alike who hung up.
    hangup_source: &'static str,
    /// Why, as everywhere else here.
    end_reason: Option<&'a str>,
    /// From answer to end.
    duration_seconds: Option<i64>,
}

/// The faces of live calls, learned from their news.
#[derive(Debug, Default)]
pub struct Faces(HashMap<CallId, Face>);

impl Faces {
    /// That of a live call.
    pub fn of(&self, call: CallId) -> Option<Face> {
        self.0.get(&call).cloned()
    }

    /// The messages that tell of an event.
    pub fn tell(&mut self, event: &Event) -> Vec<String> {
        if let News::Status {
            customer_number,
            organization_number,
            call_sid,
            inbound,
            ..
        } = &event.news
        {
            let face = Face {
                call: event.call,
                call_sid: call_sid.clone(),
                inbound: *inbound,
                customer: customer_number.clone(),
                ours: organization_number.clone(),
            };
            self.0.insert(event.call, face);
        }
        let told = match self.0.get(&event.call) {
            Some(face) => Happening::of(&event.news).map_or_else(Vec::new, |h| h.tell(face, event.id, event.at)),
            None => Vec::new(),
        };
        if matches!(event.news, News::Status { status: "ended", .. }) {
            self.0.remove(&event.call);
        }
        told
    }
}

/// The messages that tell of a stored event of that call, for a client that missed it.
pub fn replayed(face: &Face, row: &EventRow) -> Vec<String> {
    let Ok(event) = serde_json::from_str::<Map<String, Value>>(&row.payload) else {
        return Vec::new();
    };
    let at = event.get("timestamp").and_then(Value::as_str).and_then(Wall::parse);
    Happening::stored(&event).map_or_else(Vec::new, |h| h.tell(face, Some(row.id), at.unwrap_or_default()))
}

/// What happened, from the news or from what was kept of them.
enum Happening<'a> {
    Status {
        status: &'a str,
        end_reason: Option<&'a str>,
        duration: Option<i64>,
    },
    Words {
        text: &'a str,
        sender: &'a str,
        is_final: bool,
        confidence: Option<f64>,
    },
    Key(Cow<'a, str>),
    StreamFailed(&'a str),
}

impl<'a> Happening<'a> {
    fn of(news: &'a News) -> Option<Self> {
        Some(match news {
            News::Status {
                status,
                end_reason,
                duration,
                ..
            } => Self::Status {
                status,
                end_reason: *end_reason,
                duration: *duration,
            },
            News::Transcript {
                text,
                sender,
                is_final,
                confidence,
                ..
            } => Self::Words {
                text,
                sender,
                is_final: *is_final,
                confidence: confidence.map(f64::from),
            },
            News::Dtmf(digit) => Self::Key(Cow::Owned(digit.to_string())),
            News::Fault {
                of_stream: true,
                message,
                ..
            } => Self::StreamFailed(message),
            News::Fault { .. } | News::TtsAudio { .. } | News::MessageStatus { .. } | News::Handoff { .. } => {
                return None;
            }
        })
    }

    fn stored(event: &'a Map<String, Value>) -> Option<Self> {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        Some(match text("type")? {
            "call_status_update" => Self::Status {
                status: text("status")?,
                end_reason: text("end_reason"),
                duration: event.get("duration").and_then(Value::as_i64),
            },
            "customer_transcript" => Self::Words {
                text: text("transcript")?,
                sender: text("sender")?,
                is_final: true,
                confidence: event.get("confidence").and_then(Value::as_f64),
            },
            "dtmf" => Self::Key(Cow::Borrowed(text("digit")?)),
            _ => return None,
        })
    }

    fn tell(&self, face: &Face, id: Option<i64>, at: Wall) -> Vec<String> {
        // What is merely live has an id of its own, which leads nowhere.
        let own = id.map_or_else(|| uuid::Uuid::new_v4().to_string(), |id| id.to_string());
        let one = |id: String, what: What<'_>| {
            let event = Written {
                id,
                occurred_at: at,
                what,
            };
            // Writing strings and numbers into memory has no way to fail.
            serde_json::to_string(&event).unwrap_or_default()
        };
        let state = |state| face.about(State { state });
        match self {
            Self::Status {
                status,
                end_reason,
                duration,
            } => match *status {
                "initiated" => vec![one(own, What::Initiated(state(Stands::Bridging)))],
                "incoming" => vec![one(own, What::Initiated(state(Stands::Parked)))],
                "answered" => vec![one(own, What::Answered(state(Stands::Answered)))],
                "in_progress" => vec![one(own, What::Started(face.about(Nothing {})))],
                "ended" => {
                    let end = End {
                        state: Stands::Hangup,
                        hangup_cause: cause(end_reason.unwrap_or_default()),
                        hangup_source: "unknown",
                        end_reason: *end_reason,
                        duration_seconds: *duration,
                    };
                    vec![
                        one(format!("{own}-stream"), What::Stopped(face.about(Nothing {}))),
                        one(own, What::Hangup(face.about(end))),
                    ]
                }
                // Ringing has no name there.
                _ => Vec::new(),
            },
            Self::Words {
                text,
                sender,
                is_final,
                confidence,
            } => {
                let transcription_data = Transcribed {
                    transcript: text,
                    is_final: *is_final,
                    confidence: confidence.map(|c| (c * 1e4).round() / 1e4),
                    transcription_track: match *sender {
                        "agent" => Track::Outbound,
                        _ => Track::Inbound,
                    },
                };
                vec![one(own, What::Transcription(face.about(Words { transcription_data })))]
            }
            Self::Key(digit) => vec![one(own, What::Dtmf(face.about(Key { digit })))],
            Self::StreamFailed(failure_reason) => {
                vec![one(own, What::Failed(face.about(Why { failure_reason })))]
            }
        }
    }
}

/// Why a call ended, in the words of a hangup cause.
fn cause(end_reason: &str) -> &'static str {
    match end_reason {
        "completed" => "normal_clearing",
        "busy" => "user_busy",
        "no_answer" => "timeout",
        "canceled" => "originator_cancel",
        _ => "unspecified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::ids::TenantId, control::news};
    use serde_json::json;

    fn event(call: CallId, id: Option<i64>, news: News) -> Event {
        Event {
            tenant: TenantId(1),
            call,
            id,
            at: Wall::from_micros(1_704_110_400_000_000),
            news,
        }
    }

    fn status(status: &'static str, call_sid: &str) -> News {
        News::Status {
            status,
            end_reason: (status == "ended").then_some("busy"),
            customer_number: "+15550001".into(),
            organization_number: "+15550002".into(),
            call_sid: call_sid.into(),
            inbound: false,
            duration: (status == "ended").then_some(12),
        }
    }

    fn read(texts: Vec<String>) -> Vec<Value> {
        texts.iter().map(|t| serde_json::from_str(t).unwrap()).collect()
    }

    #[test]
    fn a_placed_call_is_told_as_telnyx_would_tell_it() {
        let (mut faces, call) = (Faces::default(), CallId::new());
        let first = read(faces.tell(&event(call, Some(7), status("initiated", &format!("pending:{call}")))));
        assert_eq!(
            first,
            [json!({
                "type": "call.initiated",
                "id": "7",
                "occurred_at": "2024-01-01T12:00:00.000Z",
                "payload": {
                    "call_control_id": call.as_str(), "call_id": call.as_str(), "from": "+15550002", "to": "+15550001",
                    "direction": "outgoing", "state": "bridging",
                },
            })]
        );
        assert_eq!(faces.tell(&event(call, Some(8), status("ringing", "v3:abc"))), [""; 0]);
        let kinds: Vec<_> = ["answered", "in_progress", "ended"]
            .into_iter()
            .zip(9..)
            .flat_map(|(s, id)| read(faces.tell(&event(call, Some(id), status(s, "v3:abc")))))
            .map(|e| {
                (
                    e["type"].as_str().unwrap().to_owned(),
                    e["id"].as_str().unwrap().to_owned(),
                    e["payload"].clone(),
                )
            })
            .collect();
        let names: Vec<_> = kinds.iter().map(|(kind, id, _)| (kind.as_str(), id.as_str())).collect();
        assert_eq!(
            names,
            [
                ("call.answered", "9"),
                ("streaming.started", "10"),
                ("streaming.stopped", "11-stream"),
                ("call.hangup", "11")
            ]
        );
        let hangup = &kinds[3].2;
        assert_eq!(hangup["call_control_id"], "v3:abc");
        assert_eq!(
            (&hangup["hangup_cause"], &hangup["duration_seconds"]),
            (&json!("user_busy"), &json!(12))
        );
        assert!(faces.0.is_empty(), "an ended call is forgotten");
    }

    #[test]
    fn what_was_missed_is_told_as_it_was_live() {
        let (mut faces, call) = (Faces::default(), CallId::new());
        let words = News::Transcript {
            text: "hello".into(),
            sender: "customer",
            is_final: true,
            confidence: Some(0.95),
            detected_language: None,
            message_id: None,
        };
        for (id, news) in (1..).zip([
            status("initiated", "s"),
            status("answered", "s"),
            words,
            News::Dtmf('5'),
            status("ended", "s"),
        ]) {
            let event = event(call, Some(id), news);
            let face = Face {
                call,
                call_sid: "s".into(),
                inbound: false,
                customer: "+15550001".into(),
                ours: "+15550002".into(),
            };
            let row = EventRow {
                id,
                call_id: call,
                payload: news::payload(call, event.at, &event.news).unwrap().to_string(),
            };
            assert_eq!(read(replayed(&face, &row)), read(faces.tell(&event)));
        }
    }

    #[test]
    fn half_of_a_pair_is_not_the_whole() {
        assert_eq!(last_seen("12"), Some(12));
        assert_eq!(last_seen("12-stream"), Some(11));
        assert_eq!(last_seen("9f8b"), None);
    }
}
