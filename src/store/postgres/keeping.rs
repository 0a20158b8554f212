//! Holds, erasure and retention in PostgreSQL. Rows that are deleted leave the disk with the server's next vacuum.

use super::{
    apply::{Must, Step, step},
    rows::{self, int, text, time},
    session::{Session, Trouble},
};
use crate::{
    base::{
        ids::{CallId, TenantId},
        time::Wall,
    },
    store::{CallRow, ERASE, Expired, Retention, Scope, TenantRetention, page},
};
use std::time::Duration;

pub(super) fn hold(call: CallId, held: bool, now: Wall) -> Step {
    step(
        "UPDATE phone_calls SET legal_hold = $2, updated_at = $3
         WHERE call_id = $1 AND (NOT $2 OR erasing IS NULL) RETURNING 1",
        vec![text(call.as_str()), Box::new(held), time(now)],
        Must::BeAllowed("the call is being erased"),
    )
}

pub(super) fn begin(steps: &mut Vec<Step>, call: CallId, scope: Scope, now: Wall) {
    steps.push(step(
        "UPDATE phone_calls SET erasing = $2, updated_at = $3
         WHERE call_id = $1 AND NOT legal_hold AND status = 'ended' AND erasing IS NULL RETURNING 1",
        vec![text(call.as_str()), text(scope.as_str()), time(now)],
        Must::BeAllowed("the call is under legal hold, is not over, or is being erased already"),
    ));
    steps.push(step(
        "DELETE FROM jobs WHERE call_id = $1 AND (kind = $2 OR $3)",
        vec![text(call.as_str()), text(ERASE), Box::new(scope != Scope::Audio)],
        Must::Nothing,
    ));
}

pub(super) fn erased(steps: &mut Vec<Step>, call: CallId, scope: Scope, now: Wall) {
    let mut run = |sql, must| steps.push(step(sql, vec![text(call.as_str())], must));
    if scope != Scope::Audio {
        run("DELETE FROM phone_call_messages WHERE call_id = $1", Must::Nothing);
        run(
            "DELETE FROM events WHERE call_id = $1
                 AND tenant_id = (SELECT tenant_id FROM phone_calls WHERE call_id = $1)",
            Must::Nothing,
        );
    }
    if scope == Scope::All {
        run("DELETE FROM jobs WHERE call_id = $1", Must::Nothing);
        return run(
            "DELETE FROM phone_calls WHERE call_id = $1 RETURNING 1",
            Must::Find("call"),
        );
    }
    let sql = match scope {
        Scope::Audio => {
            "UPDATE phone_calls SET recording = NULL, erasing = NULL, updated_at = $2 WHERE call_id = $1 RETURNING 1"
        }
        _ => {
            "UPDATE phone_calls SET text_erased_at = $2, erasing = NULL, updated_at = $2 WHERE call_id = $1 RETURNING 1"
        }
    };
    steps.push(step(sql, vec![text(call.as_str()), time(now)], Must::Find("call")));
}

pub(super) fn set(tenant: TenantId, retention: Option<Retention>, now: Wall) -> Step {
    let Some(Retention { audio, text }) = retention else {
        return step(
            "DELETE FROM retention WHERE tenant_id = $1",
            vec![int(tenant.0)],
            Must::Nothing,
        );
    };
    let seconds = |d: Option<Duration>| int(d.map(|d| d.as_secs() as i64));
    step(
        "INSERT INTO retention (tenant_id, audio_seconds, text_seconds, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id) DO UPDATE SET audio_seconds = $2, text_seconds = $3, updated_at = $4",
        vec![int(tenant.0), seconds(audio), seconds(text), time(now)],
        Must::Nothing,
    )
}

pub(super) async fn retention(db: &Session, tenant: Option<TenantId>) -> Result<Vec<TenantRetention>, Trouble> {
    let found = db
        .query(
            "SELECT t.id, r.tenant_id IS NOT NULL, r.audio_seconds, r.text_seconds
             FROM tenants t LEFT JOIN retention r ON r.tenant_id = t.id
             WHERE $1::bigint IS NULL OR t.id = $1 ORDER BY t.id",
            &[int(tenant.map(|t| t.0))],
        )
        .await?;
    let mut all = Vec::with_capacity(found.len());
    for row in &found {
        let seconds = |n| {
            let kept = row.try_get::<_, Option<i64>>(n)?;
            Ok::<_, Trouble>(kept.map(|s| Duration::from_secs(s.max(0) as u64)))
        };
        let own = Retention {
            audio: seconds(2)?,
            text: seconds(3)?,
        };
        all.push((TenantId(row.try_get(0)?), row.try_get::<_, bool>(1)?.then_some(own)));
    }
    if let (Some(tenant), true) = (tenant, all.is_empty()) {
        all.push((tenant, None));
    }
    Ok(all)
}

pub(super) async fn expired(db: &Session, which: Expired) -> Result<Vec<CallRow>, Trouble> {
    let left = match which.scope {
        Scope::Audio => "recording IS NOT NULL",
        Scope::Text => "text_erased_at IS NULL",
        Scope::All => "TRUE",
    };
    let sql = format!(
        "SELECT {} FROM phone_calls c WHERE tenant_id = $1 AND end_time < $2 AND {left} AND status = 'ended'
             AND NOT legal_hold AND erasing IS NULL ORDER BY end_time LIMIT $3",
        rows::CALL
    );
    let values = [
        int(which.tenant.0),
        time(which.before),
        int(which.limit.min(page::JOBS) as i64),
    ];
    let found = db.query(&sql, &values).await?;
    found.iter().map(rows::call).collect()
}
