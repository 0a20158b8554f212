//! Holds, erasure and retention in SQLite. What is deleted is overwritten (`secure_delete`), and the log folded back after.

use super::{
    apply::{NotApplied, must_exist},
    rows::{self, stamp},
};
use crate::{
    base::{
        fault::{Fault, Kind},
        ids::{CallId, TenantId},
    },
    store::{CallRow, ERASE, Expired, Retention, Scope, TenantRetention, page},
};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

pub(super) fn hold(db: &Connection, call: CallId, held: bool, now: &str) -> Result<(), NotApplied> {
    let changed = db
        .prepare_cached(
            "UPDATE phone_calls SET legal_hold = ?2, updated_at = ?3
             WHERE call_id = ?1 AND (NOT ?2 OR erasing IS NULL)",
        )?
        .execute(params![call.as_str(), held, now])?;
    allowed(changed, "the call is being erased")
}

pub(super) fn begin(db: &Connection, call: CallId, scope: Scope, now: &str) -> Result<(), NotApplied> {
    let begun = db
        .prepare_cached(
            "UPDATE phone_calls SET erasing = ?2, updated_at = ?3
             WHERE call_id = ?1 AND NOT legal_hold AND status = 'ended' AND erasing IS NULL",
        )?
        .execute(params![call.as_str(), scope.as_str(), now])?;
    allowed(
        begun,
        "the call is under legal hold, is not over, or is being erased already",
    )?;
    db.prepare_cached("DELETE FROM jobs WHERE call_id = ?1 AND (kind = ?2 OR ?3)")?
        .execute(params![call.as_str(), ERASE, scope != Scope::Audio])?;
    Ok(())
}

pub(super) fn erased(db: &Connection, call: CallId, scope: Scope, now: &str) -> Result<(), NotApplied> {
    let run = |sql: &str| db.prepare_cached(sql)?.execute([call.as_str()]);
    if scope == Scope::Audio {
        let changed = db
            .prepare_cached(
                "UPDATE phone_calls SET recording = NULL, erasing = NULL, updated_at = ?2 WHERE call_id = ?1",
            )?
            .execute(params![call.as_str(), now])?;
        return must_exist("call", changed);
    }
    run("DELETE FROM phone_call_messages WHERE call_id = ?1")?;
    run("DELETE FROM events WHERE call_id = ?1
             AND tenant_id = (SELECT tenant_id FROM phone_calls WHERE call_id = ?1)")?;
    if scope == Scope::All {
        run("DELETE FROM jobs WHERE call_id = ?1")?;
        return must_exist("call", run("DELETE FROM phone_calls WHERE call_id = ?1")?);
    }
    let changed = db
        .prepare_cached(
            "UPDATE phone_calls SET text_erased_at = ?2, erasing = NULL, updated_at = ?2 WHERE call_id = ?1",
        )?
        .execute(params![call.as_str(), now])?;
    must_exist("call", changed)
}

pub(super) fn set(
    db: &Connection,
    tenant: TenantId,
    retention: Option<Retention>,
    now: &str,
) -> Result<(), NotApplied> {
    let Some(Retention { audio, text }) = retention else {
        db.prepare_cached("DELETE FROM retention WHERE tenant_id = ?1")?
            .execute([tenant.0])?;
        return Ok(());
    };
    let seconds = |d: Option<Duration>| d.map(|d| d.as_secs() as i64);
    db.prepare_cached(
        "INSERT INTO retention (tenant_id, audio_seconds, text_seconds, updated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant_id) DO UPDATE SET audio_seconds = ?2, text_seconds = ?3, updated_at = ?4",
    )?
    .execute(params![tenant.0, seconds(audio), seconds(text), now])?;
    Ok(())
}

pub(super) fn retention(db: &Connection, tenant: Option<TenantId>) -> rusqlite::Result<Vec<TenantRetention>> {
    let read = |row: &rusqlite::Row<'_>| {
        let seconds = |n| {
            let kept = row.get::<_, Option<i64>>(n)?;
            Ok::<_, rusqlite::Error>(kept.map(|s| Duration::from_secs(s.max(0) as u64)))
        };
        let own = Retention {
            audio: seconds(2)?,
            text: seconds(3)?,
        };
        Ok((TenantId(row.get(0)?), row.get::<_, bool>(1)?.then_some(own)))
    };
    let sql = "SELECT t.id, r.tenant_id IS NOT NULL, r.audio_seconds, r.text_seconds
         FROM tenants t LEFT JOIN retention r ON r.tenant_id = t.id WHERE ?1 IS NULL OR t.id = ?1 ORDER BY t.id";
    let mut statement = db.prepare_cached(sql)?;
    match tenant {
        None => statement.query_map([None::<i64>], read)?.collect(),
        Some(tenant) => {
            let found = statement.query_row([tenant.0], read).optional()?;
            Ok(vec![found.unwrap_or((tenant, None))])
        }
    }
}

pub(super) fn expired(db: &Connection, which: Expired) -> rusqlite::Result<Vec<CallRow>> {
    let left = match which.scope {
        Scope::Audio => "recording IS NOT NULL",
        Scope::Text => "text_erased_at IS NULL",
        Scope::All => "TRUE",
    };
    let sql = format!(
        "SELECT {} FROM phone_calls WHERE tenant_id = ?1 AND end_time < ?2 AND {left} AND status = 'ended'
             AND NOT legal_hold AND erasing IS NULL ORDER BY end_time LIMIT ?3",
        rows::CALL
    );
    db.prepare_cached(&sql)?
        .query_map(
            params![which.tenant.0, stamp(which.before), which.limit.min(page::JOBS) as i64],
            rows::call,
        )?
        .collect()
}

fn allowed(changed: usize, why: &'static str) -> Result<(), NotApplied> {
    match changed {
        0 => Err(NotApplied::Batch(Fault::client(Kind::Conflict, why))),
        _ => Ok(()),
    }
}
