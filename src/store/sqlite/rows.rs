//! How rows are written as SQLite values: times as text of one width, closed sets as their words, JSON as text.

use crate::{
    base::{ids::TenantId, time::Wall},
    store::{
        AgentRow, ApiKeyRow, CallRow, CallStatus, EventRow, JobRow, JobState, MessageRow, NumberRow, Sender, Source,
        TenantRow,
    },
    vendor::EndReason,
};
use rusqlite::{Row, types::Type};

/// Writes a time: RFC 3339, UTC, microseconds, so that the order of texts is the order of times.
pub(super) fn stamp(t: Wall) -> String {
    let whole = t.to_string();
    let micros = t.as_micros().rem_euclid(1000);
    format!("{}{micros:03}Z", whole.trim_end_matches('Z'))
}

/// The columns of a [`CallRow`], in the order [`call`] reads them.
pub(super) const CALL: &str = "call_id, call_sid, session_id, vendor, direction, customer_number, organization_number, \
     status, end_reason, start_time, answered_at, end_time, duration, tenant_id, agent, recording, metadata, \
     legal_hold";

/// Reads the columns of [`CALL`].
pub(super) fn call(row: &Row<'_>) -> rusqlite::Result<CallRow> {
    Ok(CallRow {
        call_id: word(row, 0, |s| s.parse().ok())?,
        call_sid: row.get(1)?,
        session_id: row.get(2)?,
        vendor: row.get(3)?,
        inbound: word(row, 4, inbound)?,
        customer_number: row.get(5)?,
        organization_number: row.get(6)?,
        status: word(row, 7, CallStatus::parse)?,
        end_reason: word_opt(row, 8, EndReason::parse)?,
        start_time: word(row, 9, Wall::parse)?,
        answered_at: word_opt(row, 10, Wall::parse)?,
        end_time: word_opt(row, 11, Wall::parse)?,
        duration: row.get(12)?,
        tenant_id: TenantId(row.get(13)?),
        agent: row.get(14)?,
        recording: row.get(15)?,
        legal_hold: row.get(17)?,
        metadata: word_opt(row, 16, |s| serde_json::from_str(s).ok())?.unwrap_or_default(),
    })
}

/// The columns of a [`MessageRow`], in the order [`message`] reads them.
pub(super) const MESSAGE: &str = "message_id, call_id, seq, message_type, content, sender_type, sender_name, \
     confidence, detected_language, delivery, heard_ms, created_at";

/// Reads the columns of [`MESSAGE`].
pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        message_id: word(row, 0, |s| s.parse().ok())?,
        call_id: word(row, 1, |s| s.parse().ok())?,
        seq: row.get(2)?,
        message_type: word(row, 3, MessageRow::type_word)?,
        content: row.get(4)?,
        sender_type: word(row, 5, Sender::parse)?,
        sender_name: row.get(6)?,
        confidence: row.get::<_, Option<f64>>(7)?.map(|c| c as f32),
        detected_language: row.get(8)?,
        delivery: word_opt(row, 9, MessageRow::delivery_word)?,
        heard_ms: row.get(10)?,
        created_at: word(row, 11, Wall::parse)?,
    })
}

/// The columns of a [`NumberRow`], in the order [`number`] reads them.
pub(super) const NUMBER: &str = "id, tenant_id, source, number, vendor, display_name, agent_id, status, settings, \
     secrets, created_at, updated_at";

/// Reads the columns of [`NUMBER`].
pub(super) fn number(row: &Row<'_>) -> rusqlite::Result<NumberRow> {
    Ok(NumberRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: TenantId(row.get(1)?),
        source: word(row, 2, Source::parse)?,
        number: row.get(3)?,
        vendor: row.get(4)?,
        display_name: row.get(5)?,
        agent_id: word_opt(row, 6, |s| s.parse().ok())?,
        status: row.get(7)?,
        settings: word_opt(row, 8, |s| serde_json::from_str(s).ok())?.unwrap_or_default(),
        secrets: row.get(9)?,
        created_at: word(row, 10, Wall::parse)?,
        updated_at: word(row, 11, Wall::parse)?,
    })
}

/// The columns of an [`AgentRow`], in the order [`agent`] reads them.
pub(super) const AGENT: &str = "id, tenant_id, source, name, settings, created_at, updated_at";

/// Reads the columns of [`AGENT`].
pub(super) fn agent(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: row.get::<_, Option<i64>>(1)?.map(TenantId),
        source: word(row, 2, Source::parse)?,
        name: row.get(3)?,
        settings: word(row, 4, |s| serde_json::from_str(s).ok())?,
        created_at: word(row, 5, Wall::parse)?,
        updated_at: word(row, 6, Wall::parse)?,
    })
}

/// The columns of a [`TenantRow`], in the order [`tenant`] reads them.
pub(super) const TENANT: &str = "id, name, active, settings, created_at, coalesce(updated_at, created_at)";

/// Reads the columns of [`TENANT`].
pub(super) fn tenant(row: &Row<'_>) -> rusqlite::Result<TenantRow> {
    Ok(TenantRow {
        id: TenantId(row.get(0)?),
        name: row.get(1)?,
        active: row.get(2)?,
        settings: word_opt(row, 3, |s| serde_json::from_str(s).ok())?.unwrap_or_default(),
        created_at: word(row, 4, Wall::parse)?,
        updated_at: word(row, 5, Wall::parse)?,
    })
}

/// The columns of an [`ApiKeyRow`], in the order [`api_key`] reads them.
pub(super) const API_KEY: &str =
    "id, tenant_id, name, prefix, hash, role, scopes, created_by, created_at, expires_at, revoked_at";

/// Reads the columns of [`API_KEY`].
pub(super) fn api_key(row: &Row<'_>) -> rusqlite::Result<ApiKeyRow> {
    Ok(ApiKeyRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: TenantId(row.get(1)?),
        name: row.get(2)?,
        prefix: row.get(3)?,
        hash: row.get(4)?,
        role: row.get(5)?,
        scopes: row.get(6)?,
        created_by: row.get(7)?,
        created_at: word(row, 8, Wall::parse)?,
        expires_at: word_opt(row, 9, Wall::parse)?,
        revoked_at: word_opt(row, 10, Wall::parse)?,
    })
}

/// The columns of a [`JobRow`], in the order [`job`] reads them.
pub(super) const JOB: &str = "id, tenant_id, kind, call_id, payload, state, attempts, due_at, error, created_at";

/// Reads the columns of [`JOB`].
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: row.get(0)?,
        tenant_id: TenantId(row.get(1)?),
        kind: row.get(2)?,
        call_id: word(row, 3, |s| s.parse().ok())?,
        payload: word(row, 4, |s| serde_json::from_str(s).ok())?,
        state: word(row, 5, JobState::parse)?,
        attempts: row.get(6)?,
        due_at: word(row, 7, Wall::parse)?,
        error: row.get(8)?,
        created_at: word(row, 9, Wall::parse)?,
    })
}

/// Reads `id, call_id, payload`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: row.get(0)?,
        call_id: word(row, 1, |s| s.parse().ok())?,
        payload: row.get(2)?,
    })
}

/// The word for a direction.
pub(super) const fn direction(inbound: bool) -> &'static str {
    if inbound { "inbound" } else { "outbound" }
}

fn inbound(word: &str) -> Option<bool> {
    [true, false].into_iter().find(|b| direction(*b) == word)
}

fn word<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    read(row.get_ref(column)?.as_str()?).ok_or_else(|| unreadable(column))
}

fn word_opt<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else {
        return Ok(None);
    };
    read(text).map(Some).ok_or_else(|| unreadable(column))
}

fn unreadable(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "not a word that this column holds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_microseconds_and_sort_as_text() {
        let t = Wall::from_micros(1_704_110_400_250_007);
        assert_eq!(stamp(t), "2024-01-01T12:00:00.250007Z");
        assert_eq!(Wall::parse(&stamp(t)), Some(t));
        assert!(stamp(t) < stamp(Wall::from_micros(1_704_110_400_250_010)));
    }
}
