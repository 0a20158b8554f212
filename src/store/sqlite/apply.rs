//! One batch inside the writer's transaction: each change as a statement with bound parameters.

use super::{
    keeping,
    rows::{direction, stamp},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::{AgentId, CallId, TenantId},
        time::Wall,
    },
    store::{
        AgentRow, ApiKeyRow, Batch, CallChange, CallRow, CallStatus, Committed, JobMove, JobRow, MessageRow, NumberRow,
        SAID, TenantRow, Write, interrupted_event,
    },
    vendor::EndReason,
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, named_params, params};
use serde_json::Value;

/// Why a change was not applied.
#[derive(Debug)]
pub(super) enum NotApplied {
    /// A webhook of the batch was seen before, or a job of it stands elsewhere.
    Duplicate,
    /// The batch itself is at fault: trying again cannot help.
    Batch(Fault),
    /// The database is at fault: the same batch may succeed later.
    Engine(rusqlite::Error),
}

impl From<rusqlite::Error> for NotApplied {
    fn from(e: rusqlite::Error) -> Self {
        use ErrorCode as E;
        // SQLite's message names columns, never values; it is for the log, not for whoever asked.
        let refused = |kind, message: &'static str| {
            tracing::warn!(error = %e, "a batch is refused");
            Self::Batch(Fault::new(Origin::Us, kind, message))
        };
        match e.sqlite_error_code() {
            Some(E::ConstraintViolation) => refused(Kind::Conflict, "the change contradicts what is stored"),
            Some(E::Unknown | E::TooBig | E::TypeMismatch | E::ApiMisuse | E::ParameterOutOfRange) | None => {
                refused(Kind::Internal, "the store cannot apply the change")
            }
            Some(_) => Self::Engine(e),
        }
    }
}

/// Applies a batch. On an error the caller rolls back to where the batch began.
pub(super) fn batch(db: &Connection, batch: &Batch, now: Wall) -> Result<Committed, NotApplied> {
    let now = stamp(now);
    let mut event_ids = Vec::new();
    for write in &batch.writes {
        match write {
            Write::Call(row) => insert_call(db, row, &now)?,
            Write::CallChange(change) => change_call(db, change, &now)?,
            Write::Message(row) => insert_message(db, row, &now)?,
            Write::Delivery {
                message_id,
                delivery,
                heard_ms,
            } => {
                let changed = db
                    .prepare_cached(
                        "UPDATE phone_call_messages SET delivery = ?2, heard_ms = ?3, updated_at = ?4
                         WHERE message_id = ?1",
                    )?
                    .execute(params![message_id.as_str(), delivery, heard_ms, now])?;
                must_exist("message", changed)?;
            }
            Write::Seen { vendor, key } => {
                let new = db
                    .prepare_cached(
                        "INSERT INTO seen_webhooks (vendor, key, seen_at) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![vendor, key, now])?;
                if new == 0 {
                    return Err(NotApplied::Duplicate);
                }
            }
            Write::Event {
                tenant,
                call_id,
                payload,
            } => event_ids.push(insert_event(db, *tenant, *call_id, payload, &now)?),
            Write::Number(row) => put_number(db, row)?,
            Write::NumberGone(id) => {
                let gone = db
                    .prepare_cached("DELETE FROM phone_numbers WHERE id = ?1")?
                    .execute([id.as_str()])?;
                must_exist("phone number", gone)?;
            }
            Write::Agent(row) => put_agent(db, row)?,
            Write::AgentGone(id) => {
                let gone = db
                    .prepare_cached("DELETE FROM agents WHERE id = ?1")?
                    .execute([id.as_str()])?;
                must_exist("agent", gone)?;
            }
            Write::NewTenant(row) => put_tenant(db, row, "")?,
            Write::Tenant(row) => put_tenant(
                db,
                row,
                " ON CONFLICT (id) DO UPDATE SET name = :name, active = :active, settings = :settings,
                     updated_at = :updated_at",
            )?,
            Write::ApiKey(row) => put_api_key(db, row)?,
            Write::ApiKeyGone(id) => {
                let gone = db
                    .prepare_cached("DELETE FROM api_keys WHERE id = ?1")?
                    .execute([id.as_str()])?;
                must_exist("API key", gone)?;
            }
            Write::Job(row) => insert_job(db, row, &now)?,
            Write::JobMove(job) => move_job(db, job, &now)?,
            // One process has this database to itself.
            Write::Carry { .. } => return Err(NotApplied::Batch(Fault::not_found("call"))),
            Write::Hold { call_id, held } => keeping::hold(db, *call_id, *held, &now)?,
            Write::Erase { call_id, scope } => keeping::begin(db, *call_id, *scope, &now)?,
            Write::Erased { call_id, scope } => keeping::erased(db, *call_id, *scope, &now)?,
            Write::Retention { tenant, retention } => {
                need_tenant(db, *tenant, &now)?;
                keeping::set(db, *tenant, *retention, &now)?;
            }
        }
    }
    Ok(Committed::Done { event_ids })
}

fn need_tenant(db: &Connection, tenant: TenantId, now: &str) -> Result<(), NotApplied> {
    db.prepare_cached(
        "INSERT INTO tenants (id, name, created_at) VALUES (?1, 'tenant ' || ?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute(params![tenant.0, now])?;
    Ok(())
}

fn put_number(db: &Connection, row: &NumberRow) -> Result<(), NotApplied> {
    need_tenant(db, row.tenant_id, &stamp(row.created_at))?;
    db.prepare_cached(
        "INSERT INTO phone_numbers (id, tenant_id, source, number, vendor, display_name, agent_id, status, settings,
             secrets, created_at, updated_at)
         VALUES (:id, :tenant_id, :source, :number, :vendor, :display_name, :agent_id, :status, :settings, :secrets,
             :created_at, :updated_at)
         ON CONFLICT (id) DO UPDATE SET tenant_id = :tenant_id, source = :source, number = :number, vendor = :vendor,
             display_name = :display_name, agent_id = :agent_id, status = :status, settings = :settings,
             secrets = :secrets, updated_at = :updated_at",
    )?
    .execute(named_params! {
        ":id": row.id.as_str(),
        ":tenant_id": row.tenant_id.0,
        ":source": row.source.as_str(),
        ":number": row.number,
        ":vendor": row.vendor,
        ":display_name": row.display_name,
        ":agent_id": row.agent_id.as_ref().map(AgentId::as_str),
        ":status": row.status,
        ":settings": (!row.settings.is_null()).then(|| row.settings.to_string()),
        ":secrets": row.secrets,
        ":created_at": stamp(row.created_at),
        ":updated_at": stamp(row.updated_at),
    })?;
    Ok(())
}

fn put_agent(db: &Connection, row: &AgentRow) -> Result<(), NotApplied> {
    if let Some(tenant) = row.tenant_id {
        need_tenant(db, tenant, &stamp(row.created_at))?;
    }
    db.prepare_cached(
        "INSERT INTO agents (id, tenant_id, source, name, settings, created_at, updated_at)
         VALUES (:id, :tenant_id, :source, :name, :settings, :created_at, :updated_at)
         ON CONFLICT (id) DO UPDATE SET tenant_id = :tenant_id, source = :source, name = :name, settings = :settings,
             updated_at = :updated_at",
    )?
    .execute(named_params! {
        ":id": row.id.as_str(),
        ":tenant_id": row.tenant_id.map(|t| t.0),
        ":source": row.source.as_str(),
        ":name": row.name,
        ":settings": row.settings.to_string(),
        ":created_at": stamp(row.created_at),
        ":updated_at": stamp(row.updated_at),
    })?;
    Ok(())
}

fn put_tenant(db: &Connection, row: &TenantRow, known: &str) -> Result<(), NotApplied> {
    let sql = format!(
        "INSERT INTO tenants (id, name, active, settings, created_at, updated_at)
         VALUES (:id, :name, :active, :settings, :created_at, :updated_at){known}"
    );
    db.prepare_cached(&sql)?.execute(named_params! {
        ":id": row.id.0,
        ":name": row.name,
        ":active": row.active,
        ":settings": (!row.settings.is_null()).then(|| row.settings.to_string()),
        ":created_at": stamp(row.created_at),
        ":updated_at": stamp(row.updated_at),
    })?;
    Ok(())
}

fn put_api_key(db: &Connection, row: &ApiKeyRow) -> Result<(), NotApplied> {
    need_tenant(db, row.tenant_id, &stamp(row.created_at))?;
    db.prepare_cached(
        "INSERT INTO api_keys (id, tenant_id, name, prefix, hash, role, scopes, created_by, created_at, expires_at,
             revoked_at)
         VALUES (:id, :tenant_id, :name, :prefix, :hash, :role, :scopes, :created_by, :created_at, :expires_at,
             :revoked_at)
         ON CONFLICT (id) DO UPDATE SET name = :name, role = :role, scopes = :scopes, expires_at = :expires_at,
             revoked_at = :revoked_at",
    )?
    .execute(named_params! {
        ":id": row.id.as_str(),
        ":tenant_id": row.tenant_id.0,
        ":name": row.name,
        ":prefix": row.prefix,
        ":hash": row.hash,
        ":role": row.role,
        ":scopes": row.scopes,
        ":created_by": row.created_by,
        ":created_at": stamp(row.created_at),
        ":expires_at": row.expires_at.map(stamp),
        ":revoked_at": row.revoked_at.map(stamp),
    })?;
    Ok(())
}

fn insert_call(db: &Connection, row: &CallRow, now: &str) -> Result<(), NotApplied> {
    need_tenant(db, row.tenant_id, now)?;
    db.prepare_cached(
        "INSERT INTO phone_calls (call_id, call_sid, session_id, vendor, direction, customer_number,
             organization_number, status, end_reason, start_time, answered_at, end_time, duration, tenant_id, agent,
             recording, metadata, created_at, updated_at)
         VALUES (:call_id, :call_sid, :session_id, :vendor, :direction, :customer_number, :organization_number,
             :status, :end_reason, :start_time, :answered_at, :end_time, :duration, :tenant_id, :agent, :recording,
             :metadata, :now, :now)",
    )?
    .execute(named_params! {
        ":call_id": row.call_id.as_str(),
        ":call_sid": row.call_sid,
        ":session_id": row.session_id,
        ":vendor": row.vendor,
        ":direction": direction(row.inbound),
        ":customer_number": row.customer_number,
        ":organization_number": row.organization_number,
        ":status": row.status.as_str(),
        ":end_reason": row.end_reason.map(EndReason::as_str),
        ":start_time": stamp(row.start_time),
        ":answered_at": row.answered_at.map(stamp),
        ":end_time": row.end_time.map(stamp),
        ":duration": row.duration,
        ":tenant_id": row.tenant_id.0,
        ":agent": row.agent,
        ":recording": row.recording,
        ":metadata": (!row.metadata.is_null()).then(|| row.metadata.to_string()),
        ":now": now,
    })?;
    Ok(())
}

/// The place of a status in the order of [`CallStatus`]; NULL stays NULL.
macro_rules! rank {
    ($of:literal) => {
        concat!(
            "CASE ",
            $of,
            " WHEN 'initiated' THEN 0 WHEN 'ringing' THEN 1 WHEN 'incoming' THEN 2 WHEN 'answered' THEN 3",
            " WHEN 'in_progress' THEN 4 WHEN 'ended' THEN 5 END"
        )
    };
}

fn change_call(db: &Connection, change: &CallChange, now: &str) -> Result<(), NotApplied> {
    let Some(call_id) = &change.call_id else {
        return Err(NotApplied::Batch(Fault::internal("a change names no call")));
    };
    let metadata = match &change.metadata {
        Some(members) => Some(with_members(db, call_id.as_str(), members)?),
        None => None,
    };
    let changed = db
        .prepare_cached(concat!(
            "UPDATE phone_calls SET
                call_sid = coalesce(:call_sid, call_sid),
                session_id = coalesce(:session_id, session_id),
                status = CASE WHEN ",
            rank!(":status"),
            " > ",
            rank!("status"),
            " THEN :status ELSE status END,
                end_reason = coalesce(:end_reason, end_reason),
                answered_at = coalesce(:answered_at, answered_at),
                end_time = coalesce(:end_time, end_time),
                duration = coalesce(:duration, duration),
                recording = coalesce(:recording, recording),
                metadata = coalesce(:metadata, metadata),
                agent = coalesce(:agent, agent),
                updated_at = :now
             WHERE call_id = :call_id"
        ))?
        .execute(named_params! {
            ":call_id": call_id.as_str(),
            ":call_sid": change.call_sid,
            ":session_id": change.session_id,
            ":status": change.status.map(CallStatus::as_str),
            ":end_reason": change.end_reason.map(EndReason::as_str),
            ":answered_at": change.answered_at.map(stamp),
            ":end_time": change.end_time.map(stamp),
            ":duration": change.duration,
            ":recording": change.recording,
            ":metadata": metadata,
            ":agent": change.agent,
            ":now": now,
        })?;
    must_exist("call", changed)
}

/// The metadata of a call with some of its members new or replaced. What was said does not come back once it is erased.
fn with_members(db: &Connection, call_id: &str, members: &Value) -> Result<String, NotApplied> {
    let known: Option<(Option<String>, bool)> = db
        .prepare_cached("SELECT metadata, text_erased_at IS NOT NULL FROM phone_calls WHERE call_id = ?1")?
        .query_row([call_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (known, erased) = known.unwrap_or_default();
    let known = known.and_then(|text| serde_json::from_str(&text).ok());
    let mut members = members.clone();
    if let Some(members) = members.as_object_mut().filter(|_| erased) {
        SAID.iter().for_each(|name| drop(members.remove(*name)));
    }
    let all = match (known, members) {
        (Some(Value::Object(mut known)), Value::Object(members)) => {
            known.extend(members);
            Value::Object(known)
        }
        (_, members) => members,
    };
    Ok(all.to_string())
}

fn insert_message(db: &Connection, row: &MessageRow, now: &str) -> Result<(), NotApplied> {
    let added = db
        .prepare_cached(
            "INSERT INTO phone_call_messages (message_id, call_id, tenant_id, seq, message_type, content, sender_type,
                 sender_name, confidence, detected_language, is_final, delivery, heard_ms, created_at, updated_at)
             SELECT :message_id, call_id, tenant_id, :seq, :message_type, :content, :sender_type, :sender_name,
                 :confidence, :detected_language, TRUE, :delivery, :heard_ms, :created_at, :now
             FROM phone_calls WHERE call_id = :call_id",
        )?
        .execute(named_params! {
            ":message_id": row.message_id.as_str(),
            ":call_id": row.call_id.as_str(),
            ":seq": row.seq,
            ":message_type": row.message_type,
            ":content": row.content,
            ":sender_type": row.sender_type.as_str(),
            ":sender_name": row.sender_name,
            ":confidence": row.confidence,
            ":detected_language": row.detected_language,
            ":delivery": row.delivery,
            ":heard_ms": row.heard_ms,
            ":created_at": stamp(row.created_at),
            ":now": now,
        })?;
    must_exist("call", added)
}

fn insert_event(db: &Connection, tenant: TenantId, call: CallId, payload: &str, now: &str) -> rusqlite::Result<i64> {
    let id = db
        .prepare_cached(
            "INSERT INTO tenant_counters (tenant_id, last_event_id) VALUES (?1, 1)
             ON CONFLICT DO UPDATE SET last_event_id = last_event_id + 1 RETURNING last_event_id",
        )?
        .query_row([tenant.0], |r| r.get(0))?;
    db.prepare_cached("INSERT INTO events (tenant_id, id, call_id, payload, created_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![tenant.0, id, call.as_str(), payload, now])?;
    Ok(id)
}

fn insert_job(db: &Connection, row: &JobRow, now: &str) -> Result<(), NotApplied> {
    db.prepare_cached(
        "INSERT INTO jobs (id, tenant_id, kind, call_id, payload, state, attempts, due_at, error, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        row.id,
        row.tenant_id.0,
        row.kind,
        row.call_id.as_str(),
        row.payload.to_string(),
        row.state.as_str(),
        row.attempts,
        stamp(row.due_at),
        row.error,
        stamp(row.created_at),
        now,
    ])?;
    Ok(())
}

fn move_job(db: &Connection, job: &JobMove, now: &str) -> Result<(), NotApplied> {
    let (state, attempts) = job.seen;
    let moved = db
        .prepare_cached(
            "UPDATE jobs SET state = ?4, attempts = ?5, due_at = ?6, error = ?7, updated_at = ?8
             WHERE id = ?1 AND state = ?2 AND attempts = ?3",
        )?
        .execute(params![
            job.id,
            state.as_str(),
            attempts,
            job.state.as_str(),
            job.attempts,
            stamp(job.due_at),
            job.error,
            now,
        ])?;
    if moved == 0 {
        return Err(NotApplied::Duplicate);
    }
    Ok(())
}

pub(super) fn must_exist(what: &str, changed: usize) -> Result<(), NotApplied> {
    if changed == 0 {
        return Err(NotApplied::Batch(Fault::not_found(what)));
    }
    Ok(())
}

/// Ends every open call as `interrupted`, at the last time anything is known of it. Returns how many.
pub(super) fn close_open_calls(db: &Connection, at: Wall) -> Result<usize, NotApplied> {
    let now = stamp(at);
    let open: Vec<(CallRow, Wall)> = db
        .prepare_cached(&format!(
            "SELECT {}, max(start_time, updated_at, coalesce(
                 (SELECT max(m.updated_at) FROM phone_call_messages m WHERE m.call_id = c.call_id), ''))
             FROM phone_calls c WHERE status <> 'ended' ORDER BY tenant_id, start_time, call_id",
            super::rows::CALL
        ))?
        .query_map([], |row| {
            let last: String = row.get(18)?;
            let call = super::rows::call(row)?;
            let last = Wall::parse(&last).unwrap_or(call.start_time);
            Ok((call, last))
        })?
        .collect::<Result<_, _>>()?;
    for (call, last) in &open {
        let change = CallChange {
            call_id: Some(call.call_id),
            status: Some(CallStatus::Ended),
            end_reason: Some(EndReason::Interrupted),
            end_time: Some(*last),
            duration: Some(call.answered_at.map_or(0, |t| (last.as_secs() - t.as_secs()).max(0))),
            ..CallChange::default()
        };
        change_call(db, &change, &now)?;
        insert_event(db, call.tenant_id, call.call_id, &interrupted_event(call, *last), &now)?;
        insert_job(db, &JobRow::after_call(call, at, at), &now)?;
    }
    Ok(open.len())
}
