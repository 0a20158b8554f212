//! One batch inside the writer's transaction: its statements are sent together, and what they came to is looked at after.
//!
//! A batch costs one round trip: whatever fails, the caller rolls back to where the batch began.

use super::{
    keeping,
    rows::{CALL, call, direction, int, json, text, text_opt, time, time_opt},
    session::{Session, Trouble, Value},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::{AgentId, CallId, TenantId},
        time::Wall,
    },
    store::{
        AgentRow, ApiKeyRow, Batch, CallChange, CallRow, CallStatus, ClosedCall, Committed, JobMove, JobRow,
        MessageRow, NumberRow, SAID, TenantRow, Write, interrupted_event,
    },
    vendor::EndReason,
};
use futures_util::future::{join, join_all};
use tokio_postgres::Row;

/// Why a change was not applied.
#[derive(Debug)]
pub(super) enum NotApplied {
    /// A webhook of the batch was seen before, or a job of it stands elsewhere.
    Duplicate,
    /// The batch itself is at fault: trying again cannot help.
    Batch(Fault),
    /// The database is at fault: the same batch may succeed later.
    Engine(Trouble),
}

impl From<Trouble> for NotApplied {
    fn from(trouble: Trouble) -> Self {
        if !trouble.is_refusal() {
            return Self::Engine(trouble);
        }
        // The server's sentence names constraints, never values; it is for the log, not for whoever asked.
        tracing::warn!(error = %trouble, "a batch is refused");
        Self::Batch(match trouble.is_contradiction() {
            true => Fault::new(Origin::Us, Kind::Conflict, "the change contradicts what is stored"),
            false => Fault::internal("the store cannot apply the change"),
        })
    }
}

/// Who writes: on whose behalf calls are open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen<'a> {
    pub(super) node: &'a str,
    pub(super) now: Wall,
}

/// What a statement must come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Must {
    /// Anything.
    Nothing,
    /// A row, or the change is refused with this sentence.
    BeAllowed(&'static str),
    /// A row, or this is not there.
    Find(&'static str),
    /// A row, or the batch was seen before.
    BeNew,
    /// A row with the id of an event.
    Number,
}

/// A statement and its parameters. It returns a row for each that it touched.
pub(super) struct Step {
    sql: &'static str,
    values: Vec<Value>,
    must: Must,
}

pub(super) const fn step(sql: &'static str, values: Vec<Value>, must: Must) -> Step {
    Step { sql, values, must }
}

/// Applies a batch behind the statements of `first`, which set its savepoint. On an error the caller rolls back to that.
/// `told` are the ids that its events were given before, which they keep unless they are taken.
pub(super) async fn batch(
    db: &Session,
    pen: Pen<'_>,
    first: &str,
    batch: &Batch,
    told: &[i64],
) -> Result<Committed, NotApplied> {
    let (mut steps, mut told) = (Vec::new(), told.iter().copied());
    for write in &batch.writes {
        if let Err(refused) = plan(&mut steps, pen, write, &mut told) {
            db.batch(first).await?;
            return Err(refused);
        }
    }
    let event_ids = run(db, first, &steps).await?;
    Ok(Committed::Done { event_ids })
}

async fn run(db: &Session, first: &str, steps: &[Step]) -> Result<Vec<i64>, NotApplied> {
    let mut prepared = Vec::with_capacity(steps.len());
    for step in steps {
        prepared.push(db.prepare(step.sql).await?);
    }
    let sent = steps.iter().zip(&prepared).map(|(step, p)| db.run(p, &step.values));
    let (begun, came) = join(db.batch(first), join_all(sent)).await;
    begun?;
    let (mut event_ids, mut echo) = (Vec::new(), None);
    for (step, came) in steps.iter().zip(came) {
        let rows = match came {
            Ok(rows) => rows,
            Err(trouble) if trouble.is_echo() => {
                echo = Some(trouble);
                continue;
            }
            Err(trouble) => return Err(trouble.into()),
        };
        match (step.must, rows.first()) {
            (Must::Nothing, _) | (Must::Find(_) | Must::BeNew | Must::BeAllowed(_), Some(_)) => {}
            (Must::BeAllowed(why), None) => return Err(NotApplied::Batch(Fault::client(Kind::Conflict, why))),
            (Must::Find(what), None) => return Err(NotApplied::Batch(Fault::not_found(what))),
            (Must::BeNew, None) => return Err(NotApplied::Duplicate),
            (Must::Number, Some(row)) => event_ids.push(id(row)?),
            (Must::Number, None) => return Err(NotApplied::Engine(Trouble::Unreadable)),
        }
    }
    echo.map_or(Ok(event_ids), |trouble| Err(NotApplied::Engine(trouble)))
}

fn id(row: &Row) -> Result<i64, Trouble> {
    Ok(row.try_get(0)?)
}

fn plan(
    steps: &mut Vec<Step>,
    pen: Pen<'_>,
    write: &Write,
    told: &mut impl Iterator<Item = i64>,
) -> Result<(), NotApplied> {
    match write {
        Write::Call(row) => insert_call(steps, pen, row),
        Write::CallChange(change) => steps.push(change_call(change, pen.now)?),
        Write::Message(row) => steps.push(insert_message(row, pen.now)),
        Write::Delivery {
            message_id,
            delivery,
            heard_ms,
        } => steps.push(step(
            "UPDATE phone_call_messages SET delivery = $2, heard_ms = $3, updated_at = $4 WHERE message_id = $1
             RETURNING 1",
            vec![
                text(message_id.as_str()),
                text(delivery),
                int(i64::from(*heard_ms)),
                time(pen.now),
            ],
            Must::Find("message"),
        )),
        Write::Seen { vendor, key } => steps.push(step(
            "INSERT INTO seen_webhooks (vendor, key, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1",
            vec![text(vendor), text(key), time(pen.now)],
            Must::BeNew,
        )),
        Write::Event {
            tenant,
            call_id,
            payload,
        } => steps.push(insert_event(*tenant, *call_id, payload, told.next(), pen.now)),
        Write::Number(row) => put_number(steps, row),
        Write::NumberGone(id) => steps.push(step(
            "DELETE FROM phone_numbers WHERE id = $1 RETURNING 1",
            vec![text(id.as_str())],
            Must::Find("phone number"),
        )),
        Write::Agent(row) => put_agent(steps, row),
        Write::AgentGone(id) => steps.push(step(
            "DELETE FROM agents WHERE id = $1 RETURNING 1",
            vec![text(id.as_str())],
            Must::Find("agent"),
        )),
        Write::NewTenant(row) => steps.push(put_tenant(
            row,
            "INSERT INTO tenants (id, name, active, settings, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )),
        Write::Tenant(row) => steps.push(put_tenant(
            row,
            "INSERT INTO tenants (id, name, active, settings, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET name = $2, active = $3, settings = $4, updated_at = $6",
        )),
        Write::ApiKey(row) => put_api_key(steps, row),
        Write::ApiKeyGone(id) => steps.push(step(
            "DELETE FROM api_keys WHERE id = $1 RETURNING 1",
            vec![text(id.as_str())],
            Must::Find("API key"),
        )),
        Write::Job(row) => steps.push(insert_job(row, pen.now)),
        Write::JobMove(job) => steps.push(move_job(job, pen.now)),
        Write::Carry { call_id, from } => steps.push(step(
            "UPDATE phone_calls SET node = $3, updated_at = $4 WHERE call_id = $1 AND node = $2 AND status <> 'ended'
             RETURNING 1",
            vec![text(call_id.as_str()), text(from), text(pen.node), time(pen.now)],
            Must::Find("call"),
        )),
        Write::Hold { call_id, held } => steps.push(keeping::hold(*call_id, *held, pen.now)),
        Write::Erase { call_id, scope } => keeping::begin(steps, *call_id, *scope, pen.now),
        Write::Erased { call_id, scope } => keeping::erased(steps, *call_id, *scope, pen.now),
        Write::Retention { tenant, retention } => {
            steps.push(need_tenant(*tenant, pen.now));
            steps.push(keeping::set(*tenant, *retention, pen.now));
        }
    }
    Ok(())
}

fn need_tenant(tenant: TenantId, now: Wall) -> Step {
    step(
        "INSERT INTO tenants (id, name, created_at) VALUES ($1::bigint, 'tenant ' || $1::bigint, $2) ON CONFLICT DO NOTHING",
        vec![int(tenant.0), time(now)],
        Must::Nothing,
    )
}

fn put_number(steps: &mut Vec<Step>, row: &NumberRow) {
    steps.push(need_tenant(row.tenant_id, row.created_at));
    steps.push(step(
        "INSERT INTO phone_numbers (id, tenant_id, source, number, vendor, display_name, agent_id, status, settings,
             secrets, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE SET tenant_id = $2, source = $3, number = $4, vendor = $5, display_name = $6,
             agent_id = $7, status = $8, settings = $9, secrets = $10, updated_at = $12",
        vec![
            text(row.id.as_str()),
            int(row.tenant_id.0),
            text(row.source.as_str()),
            text(&row.number),
            text(&row.vendor),
            text(&row.display_name),
            text_opt(row.agent_id.as_ref().map(AgentId::as_str)),
            text(&row.status),
            json(&row.settings),
            text_opt(row.secrets.as_ref()),
            time(row.created_at),
            time(row.updated_at),
        ],
        Must::Nothing,
    ));
}

fn put_agent(steps: &mut Vec<Step>, row: &AgentRow) {
    steps.extend(row.tenant_id.map(|tenant| need_tenant(tenant, row.created_at)));
    steps.push(step(
        "INSERT INTO agents (id, tenant_id, source, name, settings, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (id) DO UPDATE SET tenant_id = $2, source = $3, name = $4, settings = $5, updated_at = $7",
        vec![
            text(row.id.as_str()),
            int(row.tenant_id.map(|t| t.0)),
            text(row.source.as_str()),
            text(&row.name),
            json(&row.settings),
            time(row.created_at),
            time(row.updated_at),
        ],
        Must::Nothing,
    ));
}

fn put_tenant(row: &TenantRow, sql: &'static str) -> Step {
    step(
        sql,
        vec![
            int(row.id.0),
            text(&row.name),
            Box::new(row.active),
            json(&row.settings),
            time(row.created_at),
            time(row.updated_at),
        ],
        Must::Nothing,
    )
}

fn put_api_key(steps: &mut Vec<Step>, row: &ApiKeyRow) {
    steps.push(need_tenant(row.tenant_id, row.created_at));
    steps.push(step(
        "INSERT INTO api_keys (id, tenant_id, name, prefix, hash, role, scopes, created_by, created_at, expires_at,
             revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (id) DO UPDATE SET name = $3, role = $6, scopes = $7, expires_at = $10, revoked_at = $11",
        vec![
            text(row.id.as_str()),
            int(row.tenant_id.0),
            text(&row.name),
            text(&row.prefix),
            text(&row.hash),
            text(&row.role),
            text(&row.scopes),
            text(&row.created_by),
            time(row.created_at),
            time_opt(row.expires_at),
            time_opt(row.revoked_at),
        ],
        Must::Nothing,
    ));
}

fn insert_call(steps: &mut Vec<Step>, pen: Pen<'_>, row: &CallRow) {
    steps.push(need_tenant(row.tenant_id, pen.now));
    steps.push(step(
        "INSERT INTO phone_calls (call_id, call_sid, session_id, vendor, direction, customer_number,
             organization_number, status, end_reason, start_time, answered_at, end_time, duration, tenant_id, agent,
             recording, metadata, node, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19)",
        vec![
            text(row.call_id.as_str()),
            text(&row.call_sid),
            text(&row.session_id),
            text(&row.vendor),
            text(direction(row.inbound)),
            text(&row.customer_number),
            text(&row.organization_number),
            text(row.status.as_str()),
            text_opt(row.end_reason.map(EndReason::as_str)),
            time(row.start_time),
            time_opt(row.answered_at),
            time_opt(row.end_time),
            int(row.duration),
            int(row.tenant_id.0),
            text(&row.agent),
            text_opt(row.recording.as_ref()),
            json(&row.metadata),
            text(pen.node),
            time(pen.now),
        ],
        Must::Nothing,
    ));
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

fn change_call(change: &CallChange, now: Wall) -> Result<Step, NotApplied> {
    let Some(call_id) = &change.call_id else {
        return Err(NotApplied::Batch(Fault::internal("a change names no call")));
    };
    Ok(step(
        concat!(
            "UPDATE phone_calls SET
                call_sid = coalesce($2, call_sid),
                session_id = coalesce($3, session_id),
                status = CASE WHEN ",
            rank!("$4::text"),
            " > ",
            rank!("status"),
            " THEN $4::text ELSE status END,
                end_reason = coalesce($5, end_reason),
                answered_at = coalesce($6, answered_at),
                end_time = coalesce($7, end_time),
                duration = coalesce($8, duration),
                recording = coalesce($9, recording),
                metadata = CASE WHEN $10::jsonb IS NULL THEN metadata
                    ELSE coalesce(metadata, '{}'::jsonb) || ($10::jsonb
                        - CASE WHEN text_erased_at IS NULL THEN '{}' ELSE $13::text[] END) END,
                agent = coalesce($11, agent),
                updated_at = $12
             WHERE call_id = $1 RETURNING 1"
        ),
        vec![
            text(call_id.as_str()),
            text_opt(change.call_sid.as_ref()),
            text_opt(change.session_id.as_ref()),
            text_opt(change.status.map(CallStatus::as_str)),
            text_opt(change.end_reason.map(EndReason::as_str)),
            time_opt(change.answered_at),
            time_opt(change.end_time),
            int(change.duration),
            text_opt(change.recording.as_ref()),
            json(change.metadata.as_ref().unwrap_or(&serde_json::Value::Null)),
            text_opt(change.agent.as_ref()),
            time(now),
            // What was said does not come back once it is erased.
            Box::new(SAID.map(str::to_owned).to_vec()),
        ],
        Must::Find("call"),
    ))
}

fn insert_message(row: &MessageRow, now: Wall) -> Step {
    step(
        "INSERT INTO phone_call_messages (message_id, call_id, tenant_id, seq, message_type, content, sender_type,
             sender_name, confidence, detected_language, is_final, delivery, heard_ms, created_at, updated_at)
         SELECT $1::text, call_id, tenant_id, $3::bigint, $4::text, $5::text, $6::text, $7::text, $8::float8, $9::text,
             TRUE, $10::text, $11::bigint, $12::timestamptz, $13::timestamptz
         FROM phone_calls WHERE call_id = $2 RETURNING 1",
        vec![
            text(row.message_id.as_str()),
            text(row.call_id.as_str()),
            int(row.seq),
            text(row.message_type),
            text(&row.content),
            text(row.sender_type.as_str()),
            text_opt(row.sender_name.as_ref()),
            Box::new(row.confidence.map(f64::from)),
            text_opt(row.detected_language.as_ref()),
            text_opt(row.delivery),
            int(row.heard_ms.map(i64::from)),
            time(row.created_at),
            time(now),
        ],
        Must::Find("call"),
    )
}

fn insert_event(tenant: TenantId, call: CallId, payload: &str, told: Option<i64>, now: Wall) -> Step {
    step(
        "WITH next AS (
             INSERT INTO tenant_counters AS c (tenant_id, last_event_id) VALUES ($1::bigint, greatest($5::bigint, 1))
             ON CONFLICT (tenant_id) DO UPDATE SET last_event_id = greatest(c.last_event_id + 1, $5::bigint)
             RETURNING last_event_id)
         INSERT INTO events (tenant_id, id, call_id, payload, created_at)
         SELECT $1::bigint, last_event_id, $2::text, $3::text, $4::timestamptz FROM next RETURNING id",
        vec![int(tenant.0), text(call.as_str()), text(payload), time(now), int(told)],
        Must::Number,
    )
}

fn insert_job(row: &JobRow, now: Wall) -> Step {
    step(
        "INSERT INTO jobs (id, tenant_id, kind, call_id, payload, state, attempts, due_at, error, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        vec![
            text(&row.id),
            int(row.tenant_id.0),
            text(&row.kind),
            text(row.call_id.as_str()),
            json(&row.payload),
            text(row.state.as_str()),
            int(i64::from(row.attempts)),
            time(row.due_at),
            text_opt(row.error.as_ref()),
            time(row.created_at),
            time(now),
        ],
        Must::Nothing,
    )
}

fn move_job(job: &JobMove, now: Wall) -> Step {
    let (state, attempts) = job.seen;
    step(
        "UPDATE jobs SET state = $4, attempts = $5, due_at = $6, error = $7, updated_at = $8
         WHERE id = $1 AND state = $2 AND attempts = $3 RETURNING 1",
        vec![
            text(&job.id),
            text(state.as_str()),
            int(i64::from(attempts)),
            text(job.state.as_str()),
            int(i64::from(job.attempts)),
            time(job.due_at),
            text_opt(job.error.as_ref()),
            time(now),
        ],
        Must::BeNew,
    )
}

/// Ends every open call of the pen's node as `interrupted`, at the last time anything is known of it.
pub(super) async fn close_open_calls(db: &Session, pen: Pen<'_>) -> Result<Vec<ClosedCall>, NotApplied> {
    let open = db
        .query(
            &format!(
                "SELECT {CALL}, greatest(c.start_time, c.updated_at,
                     (SELECT max(m.updated_at) FROM phone_call_messages m WHERE m.call_id = c.call_id))
                 FROM phone_calls c WHERE status <> 'ended' AND node = $1
                 ORDER BY tenant_id, start_time, call_id FOR UPDATE OF c"
            ),
            &[text(pen.node)],
        )
        .await?;
    let (mut steps, mut closed) = (Vec::new(), Vec::new());
    for row in &open {
        let last = row.try_get::<_, super::rows::Stamp>(18).map_err(Trouble::from)?.0;
        let call = call(row)?;
        let change = CallChange {
            call_id: Some(call.call_id),
            status: Some(CallStatus::Ended),
            end_reason: Some(EndReason::Interrupted),
            end_time: Some(last),
            duration: Some(call.answered_at.map_or(0, |t| (last.as_secs() - t.as_secs()).max(0))),
            ..CallChange::default()
        };
        steps.push(change_call(&change, pen.now)?);
        let payload = interrupted_event(&call, last);
        steps.push(insert_event(call.tenant_id, call.call_id, &payload, None, pen.now));
        steps.push(insert_job(&JobRow::after_call(&call, pen.now, pen.now), pen.now));
        closed.push((call, last));
    }
    let event_ids = run(db, "", &steps).await?;
    let closed = closed.into_iter().zip(event_ids);
    Ok(closed
        .map(|((row, at), event_id)| ClosedCall { row, event_id, at })
        .collect())
}
