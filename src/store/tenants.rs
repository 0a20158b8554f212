//! Rows of who may use the daemon: tenants, and the API keys that they make.

use crate::base::{
    ids::{KeyId, TenantId},
    time::Wall,
};
use serde_json::Value;

/// A row of `tenants`. What belongs to a tenant brings its row with it, so one may be there that nobody has made.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// What people call it.
    pub name: String,
    /// Whether its credentials open anything and its numbers take calls.
    pub active: bool,
    /// JSON object of what is set for it alone; `Null` where nothing is.
    pub settings: Value,
    /// When it was made.
    pub created_at: Wall,
    /// When it was last changed.
    pub updated_at: Wall,
}

/// A row of `api_keys`. Of the key itself there is its hash.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKeyRow {
    /// Our id.
    pub id: KeyId,
    /// Whose calls it opens.
    pub tenant_id: TenantId,
    /// Its name, which is the subject of whoever presents it.
    pub name: String,
    /// How the key begins, for people to know it by.
    pub prefix: String,
    /// SHA-256 of the key, in hexadecimal digits. No two keys share one.
    pub hash: String,
    /// `viewer`, `agent`, `admin`.
    pub role: String,
    /// Words parted by spaces; empty opens all that the role allows.
    pub scopes: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Wall,
    /// When it ends, if it does.
    pub expires_at: Option<Wall>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Wall>,
}
