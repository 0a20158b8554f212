//! API keys over REST: made, shown without their secret, revoked.

use super::{
    Shared,
    body::{self, Typed},
    respond::{Answer, done, list as listed},
};
use crate::{
    access::{Identity, Role, apikey::ApiKey, registry::KeySpec, scope::Scopes},
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
        time::Wall,
    },
    store::ApiKeyRow,
    wire::form::Form,
};
use axum::{
    Extension,
    extract::{Path, RawQuery, Request, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An API key, without the key.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ApiKey")]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownKey {
    /// Its id; null for a key of the configuration.
    id: Option<String>,
    /// Its name, seen in records as who acted.
    name: String,
    /// How the key begins; null for a key of the configuration, of which there is only the hash.
    prefix: Option<String>,
    /// What it allows: viewer, agent, admin.
    role: String,
    /// What it is narrowed to; empty opens all that the role allows.
    scopes: Vec<String>,
    /// Who made it.
    created_by: Option<String>,
    /// When it was made.
    created_at: Option<Wall>,
    /// When it ends; null for never.
    expires_at: Option<Wall>,
    /// When it was revoked.
    revoked_at: Option<Wall>,
    /// `config` where the operator wrote it, which is revoked there alone, else `api`.
    source: &'static str,
}

/// An API key that was just made.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NewKey {
    /// The key, which is shown this once.
    key: String,
    #[serde(flatten)]
    shown: ShownKey,
}

/// What is wanted of a new key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyBody {
    /// Its name, seen in records as who acted. Required.
    name: Option<String>,
    /// What it allows: viewer, agent (without it), admin; no more than the credential that makes it.
    role: Option<String>,
    /// What it is narrowed to: calls, numbers, agents, ai, jobs, keys, tenants, ws. Without any, all that the role allows.
    scopes: Option<Vec<String>>,
    /// When it ends, RFC 3339; without it never.
    expires_at: Option<String>,
}

/// `GET /api/keys`
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let tenant = meant(&shared, &who, query.as_deref()).await?;
    let configured = shared.access.configured_keys(tenant).into_iter().map(configured);
    let made = shared.access.members().keys(tenant).into_iter().map(shown);
    Ok(listed(configured.chain(made).collect(), None))
}

/// `POST /api/keys`
pub(super) async fn add(State(shared): State<Shared>, request: Request) -> Answer {
    let query = request.uri().query().map(str::to_owned);
    let (who, fields) = body::object(&shared, request).await?;
    let Typed { value: b, .. } = body::typed::<KeyBody>(fields)?;
    let tenant = meant(&shared, &who, query.as_deref()).await?;
    let invalid = |message: String| Fault::client(Kind::Invalid, message);
    let role = b.role.as_deref().map_or(Ok(Role::default()), str::parse);
    let scopes: Result<Scopes, _> = b.scopes.unwrap_or_default().join(",").parse();
    let expires_at = match b.expires_at {
        None => None,
        Some(text) => {
            let at = Wall::parse(&text);
            Some(at.ok_or_else(|| invalid("expiresAt is a time such as 2027-01-31T00:00:00Z".to_owned()))?)
        }
    };
    let spec = KeySpec {
        name: b.name.ok_or_else(|| invalid("name is required".to_owned()))?,
        role: role.map_err(|what| invalid(format!("role: {what}")))?,
        scopes: scopes.map_err(|what| invalid(format!("scopes: {what}")))?,
        expires_at,
    };
    let (row, key) = shared.registry.add_key(tenant, spec, &who).await?;
    let new = NewKey {
        key: key.expose().to_owned(),
        shown: shown(row),
    };
    Ok(done(new, "Key made: it is shown this once"))
}

/// `DELETE /api/keys/{id}`
pub(super) async fn revoke(
    Path(id): Path<String>,
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let tenant = meant(&shared, &who, query.as_deref()).await?;
    let row = shared.registry.revoke_key(tenant, &id).await?;
    Ok(done(shown(row), "Key revoked"))
}

/// Whose keys are meant: the operator may name a tenant, everybody else has their own.
async fn meant(shared: &Shared, who: &Identity, query: Option<&str>) -> Result<TenantId, Fault> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let query = query.map_err(|_| Fault::client(Kind::Malformed, "the query cannot be read"))?;
    let Some(named) = query.get("tenant") else {
        return Ok(who.tenant);
    };
    super::tenants::visible(shared, who, named).await.map(|t| t.row.id)
}

fn shown(row: ApiKeyRow) -> ShownKey {
    ShownKey {
        id: Some(row.id.to_string()),
        name: row.name,
        prefix: Some(row.prefix),
        role: row.role,
        scopes: row.scopes.split_whitespace().map(str::to_owned).collect(),
        created_by: Some(row.created_by),
        created_at: Some(row.created_at),
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        source: "api",
    }
}

fn configured(key: &ApiKey) -> ShownKey {
    ShownKey {
        id: None,
        name: key.name.clone(),
        prefix: None,
        role: key.role.to_string(),
        scopes: key.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
        created_by: None,
        created_at: None,
        expires_at: key.expires,
        revoked_at: None,
        source: "config",
    }
}
