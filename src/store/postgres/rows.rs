//! How rows are written as PostgreSQL values: times as `timestamptz`, closed sets as their words, JSON as `jsonb`.
//!
//! PostgreSQL's text holds no NUL; one is kept as U+FFFD.

use super::session::{Trouble, Value};
use crate::{
    base::{ids::TenantId, time::Wall},
    store::{
        AgentRow, ApiKeyRow, CallRow, CallStatus, EventRow, JobRow, JobState, MessageRow, NumberRow, Sender, Source,
        TenantRow,
    },
    vendor::EndReason,
};
use bytes::{BufMut, BytesMut};
use serde_json::Value as Json;
use std::{borrow::Cow, error::Error};
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked},
};

/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH: i64 = 946_684_800_000_000;
/// The first and the last microsecond of the years that have four digits.
const YEARS: (i64, i64) = (-62_135_596_800_000_000, 253_402_300_799_999_999);

/// A time as a `timestamptz`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp(pub(super) Wall);

impl ToSql for Stamp {
    accepts!(TIMESTAMPTZ);
    to_sql_checked!();

    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0.as_micros().clamp(YEARS.0, YEARS.1) - EPOCH);
        Ok(IsNull::No)
    }
}

impl<'a> FromSql<'a> for Stamp {
    accepts!(TIMESTAMPTZ);

    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Wall::from_micros(micros.saturating_add(EPOCH))))
    }
}

/// A text.
pub(super) fn text(text: impl AsRef<str>) -> Value {
    Box::new(without_nul(text.as_ref()).into_owned())
}

/// A text or NULL.
pub(super) fn text_opt(text: Option<impl AsRef<str>>) -> Value {
    Box::new(text.map(|t| without_nul(t.as_ref()).into_owned()))
}

/// A time.
pub(super) fn time(time: Wall) -> Value {
    Box::new(Stamp(time))
}

/// A time or NULL.
pub(super) fn time_opt(time: Option<Wall>) -> Value {
    Box::new(time.map(Stamp))
}

/// A number or NULL.
pub(super) fn int(n: impl Into<Option<i64>>) -> Value {
    Box::new(n.into())
}

/// JSON; NULL for `null`.
pub(super) fn json(value: &Json) -> Value {
    let mut value = value.clone();
    clean(&mut value);
    Box::new(Some(value).filter(|v| !v.is_null()))
}

fn without_nul(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}").into(),
        false => text.into(),
    }
}

fn clean(value: &mut Json) {
    match value {
        Json::String(text) => {
            if let Cow::Owned(cleaned) = without_nul(text) {
                *text = cleaned;
            }
        }
        Json::Array(items) => items.iter_mut().for_each(clean),
        Json::Object(fields) => {
            if fields.keys().any(|k| k.contains('\0')) {
                let renamed = std::mem::take(fields).into_iter();
                *fields = renamed.map(|(k, v)| (without_nul(&k).into_owned(), v)).collect();
            }
            fields.values_mut().for_each(clean);
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The columns of a [`CallRow`], in the order [`call`] reads them.
pub(super) const CALL: &str = "c.call_id, c.call_sid, c.session_id, c.vendor, c.direction, c.customer_number, \
     c.organization_number, c.status, c.end_reason, c.start_time, c.answered_at, c.end_time, c.duration, c.tenant_id, \
     c.agent, c.recording, c.metadata, c.legal_hold";

/// Reads the columns of [`CALL`].
pub(super) fn call(row: &Row) -> Result<CallRow, Trouble> {
    Ok(CallRow {
        call_id: word(row, 0, |s| s.parse().ok())?,
        call_sid: row.try_get(1)?,
        session_id: row.try_get(2)?,
        vendor: row.try_get(3)?,
        inbound: word(row, 4, inbound)?,
        customer_number: row.try_get(5)?,
        organization_number: row.try_get(6)?,
        status: word(row, 7, CallStatus::parse)?,
        end_reason: word_opt(row, 8, EndReason::parse)?,
        start_time: row.try_get::<_, Stamp>(9)?.0,
        answered_at: row.try_get::<_, Option<Stamp>>(10)?.map(|t| t.0),
        end_time: row.try_get::<_, Option<Stamp>>(11)?.map(|t| t.0),
        duration: row.try_get(12)?,
        tenant_id: TenantId(row.try_get(13)?),
        agent: row.try_get(14)?,
        recording: row.try_get(15)?,
        legal_hold: row.try_get(17)?,
        metadata: row.try_get::<_, Option<Json>>(16)?.unwrap_or_default(),
    })
}

/// The columns of a [`MessageRow`], in the order [`message`] reads them.
pub(super) const MESSAGE: &str = "message_id, call_id, seq, message_type, content, sender_type, sender_name, \
     confidence, detected_language, delivery, heard_ms, created_at";

/// Reads the columns of [`MESSAGE`].
pub(super) fn message(row: &Row) -> Result<MessageRow, Trouble> {
    Ok(MessageRow {
        message_id: word(row, 0, |s| s.parse().ok())?,
        call_id: word(row, 1, |s| s.parse().ok())?,
        seq: row.try_get(2)?,
        message_type: word(row, 3, MessageRow::type_word)?,
        content: row.try_get(4)?,
        sender_type: word(row, 5, Sender::parse)?,
        sender_name: row.try_get(6)?,
        confidence: row.try_get::<_, Option<f64>>(7)?.map(|c| c as f32),
        detected_language: row.try_get(8)?,
        delivery: word_opt(row, 9, MessageRow::delivery_word)?,
        heard_ms: row
            .try_get::<_, Option<i64>>(10)?
            .map(|ms| ms.clamp(0, i64::from(u32::MAX)) as u32),
        created_at: row.try_get::<_, Stamp>(11)?.0,
    })
}

/// The columns of a [`NumberRow`], in the order [`number`] reads them.
pub(super) const NUMBER: &str = "id, tenant_id, source, number, vendor, display_name, agent_id, status, settings, \
     secrets, created_at, updated_at";

/// Reads the columns of [`NUMBER`].
pub(super) fn number(row: &Row) -> Result<NumberRow, Trouble> {
    Ok(NumberRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: TenantId(row.try_get(1)?),
        source: word(row, 2, Source::parse)?,
        number: row.try_get(3)?,
        vendor: row.try_get(4)?,
        display_name: row.try_get(5)?,
        agent_id: word_opt(row, 6, |s| s.parse().ok())?,
        status: row.try_get(7)?,
        settings: row.try_get::<_, Option<Json>>(8)?.unwrap_or_default(),
        secrets: row.try_get(9)?,
        created_at: row.try_get::<_, Stamp>(10)?.0,
        updated_at: row.try_get::<_, Stamp>(11)?.0,
    })
}

/// The columns of an [`AgentRow`], in the order [`agent`] reads them.
pub(super) const AGENT: &str = "id, tenant_id, source, name, settings, created_at, updated_at";

/// Reads the columns of [`AGENT`].
pub(super) fn agent(row: &Row) -> Result<AgentRow, Trouble> {
    Ok(AgentRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: row.try_get::<_, Option<i64>>(1)?.map(TenantId),
        source: word(row, 2, Source::parse)?,
        name: row.try_get(3)?,
        settings: row.try_get(4)?,
        created_at: row.try_get::<_, Stamp>(5)?.0,
        updated_at: row.try_get::<_, Stamp>(6)?.0,
    })
}

/// The columns of a [`TenantRow`], in the order [`tenant`] reads them.
pub(super) const TENANT: &str = "id, name, active, settings, created_at, coalesce(updated_at, created_at)";

/// Reads the columns of [`TENANT`].
pub(super) fn tenant(row: &Row) -> Result<TenantRow, Trouble> {
    Ok(TenantRow {
        id: TenantId(row.try_get(0)?),
        name: row.try_get(1)?,
        active: row.try_get(2)?,
        settings: row.try_get::<_, Option<Json>>(3)?.unwrap_or_default(),
        created_at: row.try_get::<_, Stamp>(4)?.0,
        updated_at: row.try_get::<_, Stamp>(5)?.0,
    })
}

/// The columns of an [`ApiKeyRow`], in the order [`api_key`] reads them.
pub(super) const API_KEY: &str =
    "id, tenant_id, name, prefix, hash, role, scopes, created_by, created_at, expires_at, revoked_at";

/// Reads the columns of [`API_KEY`].
pub(super) fn api_key(row: &Row) -> Result<ApiKeyRow, Trouble> {
    Ok(ApiKeyRow {
        id: word(row, 0, |s| s.parse().ok())?,
        tenant_id: TenantId(row.try_get(1)?),
        name: row.try_get(2)?,
        prefix: row.try_get(3)?,
        hash: row.try_get(4)?,
        role: row.try_get(5)?,
        scopes: row.try_get(6)?,
        created_by: row.try_get(7)?,
        created_at: row.try_get::<_, Stamp>(8)?.0,
        expires_at: row.try_get::<_, Option<Stamp>>(9)?.map(|t| t.0),
        revoked_at: row.try_get::<_, Option<Stamp>>(10)?.map(|t| t.0),
    })
}

/// The columns of a [`JobRow`], in the order [`job`] reads them.
pub(super) const JOB: &str = "id, tenant_id, kind, call_id, payload, state, attempts, due_at, error, created_at";

/// Reads the columns of [`JOB`].
pub(super) fn job(row: &Row) -> Result<JobRow, Trouble> {
    Ok(JobRow {
        id: row.try_get(0)?,
        tenant_id: TenantId(row.try_get(1)?),
        kind: row.try_get(2)?,
        call_id: word(row, 3, |s| s.parse().ok())?,
        payload: row.try_get(4)?,
        state: word(row, 5, JobState::parse)?,
        attempts: u32::try_from(row.try_get::<_, i64>(6)?).unwrap_or(u32::MAX),
        due_at: row.try_get::<_, Stamp>(7)?.0,
        error: row.try_get(8)?,
        created_at: row.try_get::<_, Stamp>(9)?.0,
    })
}

/// Reads `id, call_id, payload`.
pub(super) fn event(row: &Row) -> Result<EventRow, Trouble> {
    Ok(EventRow {
        id: row.try_get(0)?,
        call_id: word(row, 1, |s| s.parse().ok())?,
        payload: row.try_get(2)?,
    })
}

/// The word for a direction.
pub(super) const fn direction(inbound: bool) -> &'static str {
    if inbound { "inbound" } else { "outbound" }
}

fn inbound(word: &str) -> Option<bool> {
    [true, false].into_iter().find(|b| direction(*b) == word)
}

fn word<T>(row: &Row, column: usize, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Trouble> {
    read(row.try_get(column)?).ok_or(Trouble::Unreadable)
}

fn word_opt<T>(row: &Row, column: usize, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Trouble> {
    let Some(text) = row.try_get::<_, Option<&str>>(column)? else {
        return Ok(None);
    };
    read(text).map(Some).ok_or(Trouble::Unreadable)
}
