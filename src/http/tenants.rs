//! Tenants over REST. The operator's admins see and change all of them; an admin of another tenant sees its own.

use super::{
    Shared,
    body::{self, Typed},
    respond::{Answer, data, done, list as listed},
};
use crate::{
    access::{
        Identity,
        members::{Limits, Tenant},
        registry::TenantSpec,
    },
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
        settings::json::{camel_case, snake_case},
        time::Wall,
    },
    metrics,
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, RawQuery, Request, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Tenants on a page.
const PAGE: usize = 200;

/// An organization.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownTenant {
    /// Its id.
    id: i64,
    /// What people call it.
    name: String,
    /// `active`, or `disabled`: its credentials open nothing and its numbers take no calls.
    status: &'static str,
    /// What is set for it alone, in the words of the body.
    limits: Map<String, Value>,
    /// When it was made.
    created_at: Wall,
    /// When it was last changed.
    updated_at: Wall,
}

/// What is wanted of a tenant. When one is changed, fields left out stay; a limit that is null goes back to that of all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TenantBody {
    /// Its id, when one is made; without it, the next one free.
    id: Option<i64>,
    /// What people call it.
    name: Option<String>,
    /// `active` or `disabled`.
    status: Option<String>,
    /// Limits of its own.
    limits: Option<LimitsBody>,
}

/// Limits of one tenant; those of the configuration where there is none.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitsBody {
    /// Live calls.
    max_calls: Option<u32>,
    /// Live calls that were placed.
    max_outbound: Option<u32>,
    /// Live calls of one of its numbers.
    max_calls_per_number: Option<u32>,
    /// New calls a minute.
    calls_per_minute: Option<u32>,
    /// Calls placed a minute.
    outbound_per_minute: Option<u32>,
    /// Prefixes that may be called, such as `+91`, or `sip:`; none allows all that is not blocked.
    destinations: Option<Vec<String>>,
    /// Prefixes that may not be called, unless a longer one is allowed.
    blocked_destinations: Option<Vec<String>>,
    /// REST requests a second.
    requests_per_s: Option<u32>,
    /// Messages of its frontends a second.
    messages_per_s: Option<u32>,
    /// Sockets of its frontends.
    max_frontends: Option<u32>,
}

/// `GET /api/tenants`
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    if !shared.access.is_operator(&who) {
        let own = shared.registry.tenant(who.tenant).await;
        return Ok(listed(own.iter().map(|t| shown(t)).collect(), None));
    }
    let query = Form::parse(query.as_deref().unwrap_or_default().as_bytes());
    let query = query.map_err(|_| Fault::client(Kind::Malformed, "the query cannot be read"))?;
    let after = match query.get("cursor") {
        None => 0,
        Some(cursor) => cursor.parse().map_err(|_| invalid("cursor is none of ours"))?,
    };
    shared.registry.refresh().await?;
    let all = shared.access.members().tenants();
    let mut page: Vec<_> = all.iter().filter(|t| t.row.id.0 > after).take(PAGE + 1).collect();
    let more = page.len() > PAGE;
    page.truncate(PAGE);
    let next = page.last().filter(|_| more).map(|t| t.row.id.to_string());
    Ok(listed(page.into_iter().map(|t| shown(t)).collect(), next))
}

/// `GET /api/tenants/{id}`
pub(super) async fn one(
    Path(id): Path<String>,
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
) -> Answer {
    Ok(data(shown(&*visible(&shared, &who, &id).await?)))
}

/// `POST /api/tenants`
pub(super) async fn add(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, id, spec) = read(&shared, request).await?;
    operator(&shared, &who)?;
    let tenant = shared.registry.add_tenant(id.map(TenantId), spec).await?;
    Ok(done(shown(&tenant), "Tenant made"))
}

/// `PUT /api/tenants/{id}`
pub(super) async fn change(Path(id): Path<String>, State(shared): State<Shared>, request: Request) -> Answer {
    let (who, in_body, spec) = read(&shared, request).await?;
    operator(&shared, &who)?;
    let known = visible(&shared, &who, &id).await?.row.id;
    if in_body.is_some_and(|other| other != known.0) {
        return Err(invalid("id is another than the path's").into());
    }
    if spec.active == Some(false) && known == who.tenant {
        return Err(Fault::client(Kind::Conflict, "the operator's own tenant cannot be disabled").into());
    }
    let tenant = shared.registry.change_tenant(known, spec).await?;
    Ok(done(shown(&tenant), "Tenant changed"))
}

/// The tenant of that id, if it is one that may be seen.
pub(super) async fn visible(shared: &Shared, who: &Identity, id: &str) -> Result<Arc<Tenant>, Fault> {
    let plain = !id.starts_with('0') && id.bytes().all(|b| b.is_ascii_digit());
    let id = id.parse().ok().filter(|_| plain).map(TenantId);
    let theirs = id.filter(|id| *id == who.tenant || shared.access.is_operator(who));
    shared
        .registry
        .tenant(theirs.ok_or_else(|| Fault::not_found("tenant"))?)
        .await
}

fn operator(shared: &Shared, who: &Identity) -> Result<(), Fault> {
    if shared.access.is_operator(who) {
        return Ok(());
    }
    metrics::refused("request", "operator");
    let message = "tenants are made and changed by the operator's admins alone";
    Err(Fault::client(Kind::Forbidden, message))
}

async fn read(
    shared: &Shared,
    request: Request,
) -> Result<(Identity, Option<i64>, TenantSpec), super::respond::Failure> {
    let (who, fields) = body::object(shared, request).await?;
    let Typed { value: b, fields } = body::typed::<TenantBody>(fields)?;
    let given = fields.get("limits").and_then(Value::as_object);
    let active = match b.status.as_deref() {
        None => None,
        Some("active") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => return Err(invalid("status is active or disabled").into()),
    };
    // What is null goes back to the limit of all, what was left out stays.
    let mut limits = match serde_json::to_value(b.limits) {
        Ok(Value::Object(limits)) => limits,
        _ => Map::new(),
    };
    limits.retain(|key, _| given.is_some_and(|given| given.contains_key(key)));
    let spec = TenantSpec {
        name: b.name,
        active,
        limits,
    };
    Ok((who, b.id, spec))
}

fn shown(tenant: &Tenant) -> ShownTenant {
    let row = &tenant.row;
    let set = row.settings.as_object().into_iter().flatten();
    let known = set.filter(|(key, _)| Limits::NAMES.contains(&snake_case(key).as_str()));
    ShownTenant {
        id: row.id.0,
        name: row.name.clone(),
        status: if row.active { "active" } else { "disabled" },
        limits: known.map(|(key, value)| (camel_case(key), value.clone())).collect(),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn invalid(message: &'static str) -> Fault {
    Fault::client(Kind::Invalid, message)
}
