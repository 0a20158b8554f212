//! Calls to read: live, past, one, its messages and transcript. A foreign call and one that never was answer alike.

use super::{
    Shared,
    respond::{Answer, data, list},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        time::Wall,
    },
    control::LiveCall,
    store::{CallFilter, CallRow, CallStatus, MessageRow, Sender},
    vendor,
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, RawQuery, State},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// Calls on a page unless asked otherwise.
const PAGE: usize = 50;
/// Calls on a page at most.
const MAX_PAGE: usize = 200;

/// A call's ids, as both families of frontends read them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CallIds {
    /// Our id.
    pub(super) id: String,
    /// The vendor's id.
    pub(super) call_id: String,
    /// The vendor's id.
    #[serde(rename = "callId")]
    call_id_too: String,
}

impl From<&CallRow> for CallIds {
    fn from(row: &CallRow) -> Self {
        Self {
            id: row.call_id.to_string(),
            call_id: row.call_sid.clone(),
            call_id_too: row.call_sid.clone(),
        }
    }
}

/// Where a call stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallStanding")]
pub(super) struct Standing {
    #[serde(flatten)]
    pub(super) ids: CallIds,
    /// `active` for a call that is up, else as `call_status`.
    pub(super) status: &'static str,
    /// Where it stands exactly: initiated, ringing, incoming, answered, in_progress, ended.
    call_status: &'static str,
    /// Why it ended.
    end_reason: Option<&'static str>,
    /// When it was announced or placed.
    pub(super) started_at: Wall,
    /// When it was answered.
    answered_at: Option<Wall>,
    /// When it ended.
    ended_at: Option<Wall>,
    /// Seconds from answer to end.
    duration: Option<i64>,
}

impl From<&CallRow> for Standing {
    fn from(row: &CallRow) -> Self {
        Self {
            ids: row.into(),
            status: match row.status {
                CallStatus::Answered | CallStatus::InProgress => "active",
                other => other.as_str(),
            },
            call_status: row.status.as_str(),
            end_reason: row.end_reason.map(|r| r.as_str()),
            started_at: row.start_time,
            answered_at: row.answered_at,
            ended_at: row.end_time,
            duration: row.duration,
        }
    }
}

/// A call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Call {
    #[serde(flatten)]
    pub(super) standing: Standing,
    /// The vendor's id.
    call_sid: String,
    /// The one id of the call in logs, files and events.
    session_id: String,
    /// Who carries it.
    pub(super) provider: String,
    /// `inbound` or `outbound`.
    pub(super) direction: &'static str,
    /// The calling number.
    pub(super) from: String,
    /// The called number.
    pub(super) to: String,
    /// The far party.
    customer_number: String,
    /// Our number.
    organization_number: String,
    /// Who serves it.
    agent: String,
    /// Our id of its media socket, while it streams.
    connection_id: Option<String>,
    /// The vendor's id of its stream, while it streams.
    pub(super) stream_id: Option<String>,
    /// Media type of the caller's audio, such as `audio/l16`.
    pub(super) encoding: Option<&'static str>,
    /// Its sample rate in Hz.
    pub(super) sample_rate: Option<u32>,
    /// Whether there is a recording.
    has_recording: bool,
    /// Whether nothing of it may be erased.
    legal_hold: bool,
    /// What else is on record: where every frame went, faults, flags.
    metadata: Value,
}

/// A call as REST shows it.
pub(super) fn shown(call: &LiveCall) -> Call {
    let row = &call.row;
    let (from, to) = match row.inbound {
        true => (&row.customer_number, &row.organization_number),
        false => (&row.organization_number, &row.customer_number),
    };
    let caps = vendor::by_name(&row.vendor).map(|v| v.caps);
    let format = call.stream.as_ref().map(|(_, f)| *f).or(caps.map(|c| c.inbound));
    Call {
        standing: row.into(),
        call_sid: row.call_sid.clone(),
        session_id: row.session_id.clone(),
        provider: row.vendor.clone(),
        direction: if row.inbound { "inbound" } else { "outbound" },
        from: from.clone(),
        to: to.clone(),
        customer_number: row.customer_number.clone(),
        organization_number: row.organization_number.clone(),
        agent: row.agent.clone(),
        connection_id: call.connection.map(|c| c.to_string()),
        stream_id: call.stream.as_ref().map(|(id, _)| id.clone()),
        encoding: format.map(|f| f.encoding.media_type()),
        sample_rate: format.map(|f| f.rate),
        has_recording: row.recording.is_some(),
        legal_hold: row.legal_hold,
        metadata: row.metadata.clone(),
    }
}

/// Something that was said on a call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(super) struct Said {
    /// Our id.
    id: String,
    /// Our id.
    message_id: String,
    /// Our id of the call.
    call_id: String,
    /// Order within the call, from 1.
    seq: i64,
    /// `transcript` for what was heard, `tts_audio` for what was said.
    message_type: &'static str,
    /// The words.
    content: String,
    /// `customer` or `agent`.
    sender_type: &'static str,
    /// Who said it.
    sender_name: Option<String>,
    /// The recogniser's confidence from 0 to 1, where it means something.
    confidence: Option<f64>,
    /// The language that was detected.
    detected_language: Option<String>,
    /// Always true: interim transcripts are not kept.
    is_final: bool,
    /// What became of what was said: stored, heard, cut, failed.
    delivery: Option<&'static str>,
    /// How much of it the caller heard, in milliseconds.
    heard_ms: Option<u32>,
    /// When it was said.
    created_at: Wall,
}

/// Who said what.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Transcript {
    /// Our id of the call.
    id: String,
    /// The vendor's id of the call.
    call_id: String,
    conversation: Vec<Turn>,
    /// All of it, a line each.
    text: String,
}

/// One thing that was said.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Turn {
    /// `customer` or `agent`.
    sender: &'static str,
    text: String,
    timestamp: Wall,
}

/// A call as the store has it.
pub(super) fn stored(row: CallRow) -> LiveCall {
    LiveCall {
        row,
        connection: None,
        stream: None,
    }
}

/// `GET /api/calls/active`
pub(super) async fn active(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    let calls = shared.control.active_everywhere(who.tenant).await?;
    Ok(list(calls.iter().map(shown).collect(), None))
}

/// `GET /api/calls/history?status&from&until&number&agent&vendor&text&limit&cursor`: ended calls, newest first; `status=all`
/// for the others too.
pub(super) async fn history(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let filter = read_filter(query.as_deref().unwrap_or_default(), &[])?;
    let page = shared.store.calls(who.tenant, filter).await?;
    let calls = page.calls.into_iter().map(|row| shown(&stored(row))).collect();
    Ok(list(calls, page.next))
}

/// Reads the filters of a query. Names in `others` are somebody else's to read.
pub(super) fn read_filter(query: &str, others: &[&str]) -> Result<CallFilter, Fault> {
    let form = Form::parse(query.as_bytes()).map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    let invalid = |message: &'static str| Fault::client(Kind::Invalid, message);
    let mut filter = CallFilter {
        statuses: vec![CallStatus::Ended],
        limit: PAGE,
        ..CallFilter::default()
    };
    let moment = |value: &str| Wall::parse(value).ok_or_else(|| invalid("from and until are RFC 3339 times"));
    let word = |value: &str| Some(value.to_owned()).filter(|v| !v.is_empty());
    for (name, value) in &form.0 {
        match &**name {
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
                filter.limit = limit.ok_or_else(|| invalid("limit is a whole number from 1 to 200"))?;
            }
            "cursor" => filter.after = Some(value.clone().into_owned()).filter(|c| !c.is_empty()),
            "status" if value == "all" => filter.statuses.clear(),
            "status" => {
                let words = "status is all, initiated, ringing, incoming, answered, in_progress or ended";
                let status = CallStatus::parse(value).ok_or_else(|| invalid(words))?;
                filter.statuses = vec![status];
            }
            "from" => filter.from = Some(moment(value)?),
            "until" => filter.until = Some(moment(value)?),
            // A plus sign that was not escaped arrives as a space.
            "number" => filter.number = word(&value.replacen(' ', "+", 1)),
            "agent" => filter.agent = word(value),
            "vendor" => filter.vendor = word(value),
            "text" => filter.text = word(value),
            // The seeds' frontends send it; the credential says whose calls they are.
            "userId" => {}
            other if others.contains(&other) => {}
            other => {
                let name: String = other.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(Fault::client(Kind::Invalid, format!("unknown parameter: {name}")));
            }
        }
    }
    Ok(filter)
}

/// `GET /api/calls/{id}`
pub(super) async fn one(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let call = shared.control.call(who.tenant, &id).await?;
    Ok(data(shown(&call)))
}

/// `GET /api/calls/{id}/status`
pub(super) async fn status(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let row = shared.control.call(who.tenant, &id).await?.row;
    Ok(data(Standing::from(&row)))
}

/// What a vendor tells of a call, in its own words.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Told {
    /// Our id.
    id: String,
    /// The vendor's id.
    call_id: String,
    /// Who carries it.
    provider: String,
    /// Where it stands.
    status: String,
    /// Seconds, once the vendor has counted them.
    duration: Option<u32>,
    /// What it cost, once that is known.
    price: Option<String>,
    /// The vendor's own recording.
    recording_url: Option<String>,
}

/// `GET /api/calls/{id}/details`
pub(super) async fn details(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let (row, details) = shared.control.details(who.tenant, &id).await?;
    Ok(data(Told {
        id: row.call_id.to_string(),
        call_id: row.call_sid,
        provider: row.vendor,
        status: details.status,
        duration: details.duration_s,
        price: details.price,
        recording_url: details.recording_url,
    }))
}

async fn messages_of(shared: &Shared, who: &Identity, id: &str) -> Result<(CallRow, Vec<MessageRow>), Fault> {
    let row = shared.control.call(who.tenant, id).await?.row;
    let messages = shared.store.messages(who.tenant, row.call_id).await?;
    Ok((row, messages))
}

/// `GET /api/calls/{id}/messages`
pub(super) async fn messages(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let (_, messages) = messages_of(&shared, &who, &id).await?;
    let shown = messages.into_iter().map(|m| Said {
        id: m.message_id.to_string(),
        message_id: m.message_id.to_string(),
        call_id: m.call_id.to_string(),
        seq: m.seq,
        message_type: m.message_type,
        content: m.content,
        sender_type: m.sender_type.as_str(),
        sender_name: m.sender_name,
        confidence: m.confidence.map(|c| (f64::from(c) * 1e4).round() / 1e4),
        detected_language: m.detected_language,
        is_final: true,
        delivery: m.delivery,
        heard_ms: m.heard_ms,
        created_at: m.created_at,
    });
    Ok(list(shown.collect(), None))
}

/// `GET /api/calls/{id}/transcript`: who said what, as a conversation and as plain text.
pub(super) async fn transcript(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Path(id): Path<String>,
) -> Answer {
    let (row, messages) = messages_of(&shared, &who, &id).await?;
    let line = |m: &MessageRow| {
        let name = match m.sender_type {
            Sender::Customer => "Customer",
            Sender::Agent => "Agent",
        };
        format!("{name}: {}", m.content)
    };
    let turn = |m: &MessageRow| Turn {
        sender: m.sender_type.as_str(),
        text: m.content.clone(),
        timestamp: m.created_at,
    };
    Ok(data(Transcript {
        id: row.call_id.to_string(),
        call_id: row.call_sid,
        conversation: messages.iter().map(turn).collect(),
        text: messages.iter().map(line).collect::<Vec<_>>().join("\n"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_and_what_is_none_is_named() {
        let filter = read_filter("limit=7&cursor=abc&status=all&userId=mukul", &[]).unwrap();
        assert_eq!((filter.limit, filter.after.as_deref()), (7, Some("abc")));
        assert!(filter.statuses.is_empty());
        assert_eq!(read_filter("", &[]).unwrap().statuses, [CallStatus::Ended]);
        let filter = read_filter(
            "from=2026-01-31T12:00:00Z&number=+15550100&agent=&vendor=acme&text=a%20b",
            &[],
        )
        .unwrap();
        assert_eq!(
            filter.from.map(|t| t.to_string()).as_deref(),
            Some("2026-01-31T12:00:00.000Z")
        );
        let words = [&filter.number, &filter.agent, &filter.vendor, &filter.text].map(Option::as_deref);
        assert_eq!(words, [Some("+15550100"), None, Some("acme"), Some("a b")]);
        for (query, why) in [
            ("limit=0", "limit is"),
            ("limit=201", "limit is"),
            ("limit=x", "limit is"),
            ("status=gone", "status is"),
            ("from=yesterday", "from and until"),
            ("tenant_id=2", "unknown parameter: tenant_id"),
        ] {
            assert!(read_filter(query, &[]).unwrap_err().message.starts_with(why), "{query}");
        }
    }
}
