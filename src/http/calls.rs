//! Calls to read: live, past, one, its messages and transcript. A foreign call and one that never was answer alike.

use super::{
    Shared,
    respond::{Answer, data, list},
};
use crate::{
    access::Identity,
    base::fault::{Fault, Kind},
    control::LiveCall,
    store::{CallFilter, CallRow, CallStatus, MessageRow, Sender},
    vendor,
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, RawQuery, State},
};
use serde_json::{Value, json};

/// Calls on a page unless asked otherwise.
const PAGE: usize = 50;
/// Calls on a page at most.
const MAX_PAGE: usize = 200;

/// A call as REST shows it: the vendor's id as `call_id` and `callId`, ours as `id`.
pub(super) fn shown(call: &LiveCall) -> Value {
    let row = &call.row;
    let (from, to) = match row.inbound {
        true => (&row.customer_number, &row.organization_number),
        false => (&row.organization_number, &row.customer_number),
    };
    let caps = vendor::by_name(&row.vendor).map(|v| v.caps);
    let format = call.stream.as_ref().map(|(_, f)| *f).or(caps.map(|c| c.inbound));
    json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "callId": row.call_sid,
        "call_sid": row.call_sid,
        "session_id": row.session_id,
        "provider": row.vendor,
        "direction": if row.inbound { "inbound" } else { "outbound" },
        "from": from,
        "to": to,
        "customer_number": row.customer_number,
        "organization_number": row.organization_number,
        "status": status_word(row),
        "call_status": row.status.as_str(),
        "end_reason": row.end_reason.map(|r| r.as_str()),
        "started_at": row.start_time,
        "answered_at": row.answered_at,
        "ended_at": row.end_time,
        "duration": row.duration,
        "agent": row.agent,
        "connection_id": call.connection,
        "stream_id": call.stream.as_ref().map(|(id, _)| id),
        "encoding": format.map(|f| f.encoding.name()),
        "sample_rate": format.map(|f| f.rate),
        "has_recording": row.recording.is_some(),
        "metadata": row.metadata,
    })
}

/// `active` for a call that is up; `call_status` beside it says exactly where it stands.
fn status_word(row: &CallRow) -> &'static str {
    match row.status {
        CallStatus::Answered | CallStatus::InProgress => "active",
        other => other.as_str(),
    }
}

pub(super) fn stored(row: CallRow) -> LiveCall {
    LiveCall {
        row,
        connection: None,
        stream: None,
    }
}

/// `GET /api/calls/active`
pub(super) async fn active(State(shared): State<Shared>, Extension(who): Extension<Identity>) -> Answer {
    let calls = shared.control.active(who.tenant);
    Ok(list(calls.iter().map(shown).collect(), None))
}

/// `GET /api/calls/history?status&limit&cursor`: ended calls, newest first; `status=all` for the others too.
pub(super) async fn history(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let filter = read_filter(query.as_deref().unwrap_or_default())?;
    let page = shared.store.calls(who.tenant, filter).await?;
    let calls = page.calls.into_iter().map(|row| shown(&stored(row))).collect();
    Ok(list(calls, page.next))
}

fn read_filter(query: &str) -> Result<CallFilter, Fault> {
    let form = Form::parse(query.as_bytes()).map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    let invalid = |message: &'static str| Fault::client(Kind::Invalid, message);
    let mut filter = CallFilter {
        statuses: vec![CallStatus::Ended],
        limit: PAGE,
        after: None,
    };
    for (name, value) in &form.0 {
        match &**name {
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
                filter.limit = limit.ok_or_else(|| invalid("limit is a whole number from 1 to 200"))?;
            }
            "cursor" => filter.after = Some(value.clone().into_owned()).filter(|c| !c.is_empty()),
            "status" if value == "all" => filter.statuses.clear(),
            "status" => {
                let status = CallStatus::parse(value).ok_or_else(|| invalid("status is all or one of a call"))?;
                filter.statuses = vec![status];
            }
            // The seeds' frontends send it; the credential says whose calls they are.
            "userId" => {}
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
    Ok(data(json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "callId": row.call_sid,
        "status": status_word(&row),
        "call_status": row.status.as_str(),
        "end_reason": row.end_reason.map(|r| r.as_str()),
        "started_at": row.start_time,
        "answered_at": row.answered_at,
        "ended_at": row.end_time,
        "duration": row.duration,
    })))
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
    let shown = messages.iter().map(|m| {
        json!({
            "id": m.message_id,
            "message_id": m.message_id,
            "call_id": m.call_id,
            "seq": m.seq,
            "message_type": m.message_type,
            "content": m.content,
            "sender_type": m.sender_type.as_str(),
            "sender_name": m.sender_name,
            "confidence": m.confidence.map(|c| (f64::from(c) * 1e4).round() / 1e4),
            "detected_language": m.detected_language,
            "is_final": true,
            "delivery": m.delivery,
            "heard_ms": m.heard_ms,
            "created_at": m.created_at,
        })
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
    let turn =
        |m: &MessageRow| json!({ "sender": m.sender_type.as_str(), "text": m.content, "timestamp": m.created_at });
    Ok(data(json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "conversation": messages.iter().map(turn).collect::<Vec<_>>(),
        "text": messages.iter().map(line).collect::<Vec<_>>().join("\n"),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_and_what_is_none_is_named() {
        let filter = read_filter("limit=7&cursor=abc&status=all&userId=mukul").unwrap();
        assert_eq!((filter.limit, filter.after.as_deref()), (7, Some("abc")));
        assert!(filter.statuses.is_empty());
        assert_eq!(read_filter("").unwrap().statuses, [CallStatus::Ended]);
        for (query, why) in [
            ("limit=0", "limit is"),
            ("limit=201", "limit is"),
            ("limit=x", "limit is"),
            ("status=gone", "status is"),
            ("tenant_id=2", "unknown parameter: tenant_id"),
        ] {
            assert!(read_filter(query).unwrap_err().message.starts_with(why), "{query}");
        }
    }
}
