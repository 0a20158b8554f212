//! Opening the database: whose it is, and its schema, brought up to date by one daemon at a time.

use super::{
    known::Known,
    rows::{int, text, time},
    session::{Session, Settings, Trouble},
};
use crate::{
    base::{ids::TenantId, time::Wall},
    store::{OpenError, migrations},
};

/// Held while the schema is changed (`pg_advisory_lock`): "side".
const LOCK: i64 = 0x7369_6465;

/// Connects, brings the schema up to date, and learns where the events of tenants stand.
pub(super) async fn open(settings: &Settings) -> Result<(Session, Known), OpenError> {
    let place = || settings.place();
    let unavailable = |t: Trouble| OpenError::unavailable(place(), t);
    let session = Session::open(settings).await.map_err(unavailable)?;
    session
        .batch("SET lock_timeout = 0; SET statement_timeout = 0")
        .await
        .map_err(unavailable)?;
    session
        .query("SELECT pg_advisory_lock($1)", &[int(LOCK)])
        .await
        .map_err(unavailable)?;
    let found = match version(&session).await.map_err(unavailable)? {
        Found::Foreign => return Err(OpenError::Foreign { place: place() }),
        Found::Version(found) if found > migrations::CURRENT => {
            return Err(OpenError::TooNew {
                place: place(),
                found,
                known: migrations::CURRENT,
            });
        }
        Found::Version(found) => found,
    };
    migrate(&session, found).await.map_err(unavailable)?;
    // The lock goes with the connection, as do the settings of it.
    drop(session);
    let session = Session::open(settings).await.map_err(unavailable)?;
    let known = learn(&session).await.map_err(unavailable)?;
    Ok((session, known))
}

async fn learn(session: &Session) -> Result<Known, Trouble> {
    let mut known = Known::default();
    let rows = session.query("SELECT tenant_id, last_event_id FROM tenant_counters", &[]);
    for row in rows.await? {
        known.set_last_event(TenantId(row.try_get(0)?), row.try_get(1)?);
    }
    Ok(known)
}

enum Found {
    /// The schema's version; 0 of an empty database.
    Version(i64),
    /// Somebody else's tables have our names.
    Foreign,
}

async fn version(session: &Session) -> Result<Found, Trouble> {
    let there = async |table: &str| -> Result<bool, Trouble> {
        let rows = session
            .query("SELECT to_regclass($1::text) IS NOT NULL", &[text(table)])
            .await?;
        Ok(rows.first().map_or(Ok(false), |r| r.try_get(0))?)
    };
    if !there("schema_migrations").await? {
        for ours in ["tenants", "phone_calls", "phone_call_messages"] {
            if there(ours).await? {
                return Ok(Found::Foreign);
            }
        }
        return Ok(Found::Version(0));
    }
    let rows = session
        .query("SELECT coalesce(max(version), 0) FROM schema_migrations", &[])
        .await?;
    Ok(Found::Version(rows.first().map_or(Ok(0), |r| r.try_get(0))?))
}

async fn migrate(session: &Session, found: i64) -> Result<(), Trouble> {
    for step in migrations::ALL.iter().filter(|m| m.version > found) {
        session.batch("BEGIN").await?;
        session
            .batch(
                "CREATE TABLE IF NOT EXISTS schema_migrations (
                    version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL
                )",
            )
            .await?;
        session.batch(step.postgres).await?;
        session
            .query(
                "INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)",
                &[int(step.version), text(step.name), time(Wall::now())],
            )
            .await?;
        session.batch("COMMIT").await?;
        if found > 0 {
            tracing::info!(version = step.version, name = step.name, "database schema updated");
        }
    }
    Ok(())
}
