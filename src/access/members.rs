//! Who may use the daemon, as last read from the store: tenants with their own limits, and the keys that were made for them.
//!
//! Lookups never wait for anything. Whoever holds a connection open is told of each change by [`Members::changes`].

use super::{Identity, Role, apikey::KeyHash, destinations::is_prefix, limit::Rate, scope::Scopes};
use crate::{
    base::{
        ids::{KeyId, TenantId},
        settings::{self, Faults, Section, json::camel_case},
        time::Wall,
    },
    store::{ApiKeyRow, TenantRow},
};
use serde_json::{Map, Value};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::watch;

/// What is set for a tenant alone. What is `None` is as configured for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Live calls.
    pub max_calls: Option<usize>,
    /// Live calls that were placed.
    pub max_outbound: Option<usize>,
    /// Live calls of one of its numbers.
    pub max_calls_per_number: Option<usize>,
    /// New calls a minute.
    pub calls_per_minute: Option<u32>,
    /// Calls placed a minute.
    pub outbound_per_minute: Option<u32>,
    /// Prefixes that may be called.
    pub destinations: Option<Vec<String>>,
    /// Prefixes that may not.
    pub blocked_destinations: Option<Vec<String>>,
    /// REST requests a second; twice as many at once.
    pub requests_per_s: Option<u32>,
    /// Messages of its frontends a second; four times as many at once.
    pub messages_per_s: Option<u32>,
    /// Sockets of its frontends.
    pub max_frontends: Option<usize>,
}

/// The most that any limit may be set to.
const MOST: u32 = 1_000_000;
/// Prefixes in a list.
const MAX_PREFIXES: usize = 1000;

impl Limits {
    /// Names of the limits, as the store keeps them.
    pub const NAMES: [&'static str; 10] = [
        "max_calls",
        "max_outbound",
        "max_calls_per_number",
        "calls_per_minute",
        "outbound_per_minute",
        "destinations",
        "blocked_destinations",
        "requests_per_s",
        "messages_per_s",
        "max_frontends",
    ];

    /// Reads what is set, keys in either spelling. The error names the key and says what is wrong with it.
    pub fn read(settings: &Map<String, Value>) -> Result<Self, String> {
        let table = settings::json::table(settings)?;
        let faults = Faults::default();
        let section = Section::root(&table, &faults);
        let given = |key: &str| table.contains_key(key);
        let int = |key: &str| given(key).then(|| section.int(key, 0u32, 0..=MOST));
        let some = |key: &str| given(key).then(|| section.int(key, 1u32, 1..=MOST));
        let size = |key: &str| int(key).map(|n| n as usize);
        let prefixes = |key: &str| given(key).then(|| read_prefixes(&section, key, &[]));
        let limits = Self {
            max_calls: size("max_calls"),
            max_outbound: size("max_outbound"),
            max_calls_per_number: size("max_calls_per_number"),
            calls_per_minute: int("calls_per_minute"),
            outbound_per_minute: int("outbound_per_minute"),
            destinations: prefixes("destinations"),
            blocked_destinations: prefixes("blocked_destinations"),
            requests_per_s: some("requests_per_s"),
            messages_per_s: some("messages_per_s"),
            max_frontends: size("max_frontends"),
        };
        section.finish();
        let faults: Vec<_> = faults.take();
        match &faults[..] {
            [] => Ok(limits),
            faults => {
                let said = faults.iter().map(|f| format!("{} {}", camel_case(&f.key), f.what));
                Err(said.collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// REST requests, where they are limited otherwise than all tenants' are.
    pub fn requests(&self) -> Option<Rate> {
        self.requests_per_s.map(|n| Rate::per_second(n, n.saturating_mul(2)))
    }

    /// Messages of frontends, where they are limited otherwise than all tenants' are.
    pub fn messages(&self) -> Option<Rate> {
        self.messages_per_s.map(|n| Rate::per_second(n, n.saturating_mul(4)))
    }
}

/// A list of prefixes of destinations.
pub fn read_prefixes(section: &Section<'_>, key: &str, default: &[&str]) -> Vec<String> {
    let prefixes = section.texts(key, default);
    let hint = "write + and digits, such as +1415, or sip:";
    if let Some(bad) = prefixes.iter().find(|p| !is_prefix(p)) {
        section.fault(key, format!("{bad:?} is no prefix of a number"), hint);
    }
    if prefixes.len() > MAX_PREFIXES {
        section.fault(key, format!("more than {MAX_PREFIXES} prefixes"), "");
    }
    prefixes
}

/// A tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its row.
    pub row: TenantRow,
    /// What is set for it alone.
    pub limits: Arc<Limits>,
}

impl Tenant {
    fn read(row: TenantRow) -> Self {
        let read = row.settings.as_object().map_or(Ok(Limits::default()), Limits::read);
        let limits = read.unwrap_or_else(|what| {
            tracing::error!(
                tenant = row.id.0,
                what,
                "the limits of a tenant cannot be read: those of all apply"
            );
            Limits::default()
        });
        Self {
            row,
            limits: Arc::new(limits),
        }
    }
}

/// A key that was made over REST.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredKey {
    pub(super) row: ApiKeyRow,
    role: Role,
    scopes: Scopes,
}

impl StoredKey {
    /// `None` where a later version wrote what this one does not know: such a key opens nothing.
    fn read(row: ApiKeyRow) -> Option<(KeyHash, Self)> {
        let (hash, role, scopes) = (
            row.hash.parse().ok()?,
            Role::parse(&row.role)?,
            row.scopes.parse().ok()?,
        );
        Some((hash, Self { row, role, scopes }))
    }

    /// Whether it opens anything at that time.
    pub(super) fn stands(&self, now: Wall) -> bool {
        self.row.revoked_at.is_none() && self.row.expires_at.is_none_or(|end| end > now)
    }
}

#[derive(Debug, Default)]
struct Inner {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    keys: HashMap<KeyHash, StoredKey>,
}

/// The members. One for the process.
#[derive(Debug, Default)]
pub struct Members {
    inner: RwLock<Inner>,
    changed: watch::Sender<u64>,
}

impl Members {
    fn inner(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of all that was known.
    pub(super) fn replace(&self, tenants: Vec<TenantRow>, keys: Vec<ApiKeyRow>) {
        let new = Inner {
            tenants: tenants
                .into_iter()
                .map(|row| (row.id, Arc::new(Tenant::read(row))))
                .collect(),
            keys: keys.into_iter().filter_map(StoredKey::read).collect(),
        };
        let mut inner = self.change();
        if inner.tenants == new.tenants && inner.keys == new.keys {
            return;
        }
        *inner = new;
        drop(inner);
        self.tell();
    }

    pub(super) fn put_tenant(&self, row: TenantRow) -> Arc<Tenant> {
        let tenant = Arc::new(Tenant::read(row));
        self.change().tenants.insert(tenant.row.id, tenant.clone());
        self.tell();
        tenant
    }

    pub(super) fn put_key(&self, row: ApiKeyRow) {
        if let Some((hash, key)) = StoredKey::read(row) {
            self.change().keys.insert(hash, key);
            self.tell();
        }
    }

    pub(super) fn drop_key(&self, id: KeyId) {
        self.change().keys.retain(|_, key| key.row.id != id);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Tells of every change of a tenant or a key.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A tenant that is on record.
    pub fn tenant(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.inner().tenants.get(&id).cloned()
    }

    /// Tenants in the order of their ids.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut all: Vec<_> = self.inner().tenants.values().cloned().collect();
        all.sort_by_key(|t| t.row.id);
        all
    }

    /// Whether a tenant is served. One that nobody has made is.
    pub fn is_active(&self, tenant: TenantId) -> bool {
        self.inner().tenants.get(&tenant).is_none_or(|t| t.row.active)
    }

    /// What is set for a tenant alone.
    pub fn limits(&self, tenant: TenantId) -> Arc<Limits> {
        let inner = self.inner();
        inner
            .tenants
            .get(&tenant)
            .map_or_else(Arc::default, |t| t.limits.clone())
    }

    /// The keys that were made for a tenant, in the order in which they were.
    pub fn keys(&self, tenant: TenantId) -> Vec<ApiKeyRow> {
        let inner = self.inner();
        let theirs = inner.keys.values().filter(|k| k.row.tenant_id == tenant);
        let mut rows: Vec<_> = theirs.map(|k| k.row.clone()).collect();
        rows.sort_by_key(|row| (row.created_at, row.id));
        rows
    }

    /// Whose key it is, unless unknown, revoked or past its end.
    pub(super) fn identify(&self, hash: KeyHash, now: Wall) -> Option<Identity> {
        let inner = self.inner();
        let key = inner.keys.get(&hash).filter(|k| k.stands(now))?;
        Some(Identity {
            tenant: key.row.tenant_id,
            role: key.role,
            scopes: key.scopes,
            subject: key.row.name.clone(),
            expires: key.row.expires_at,
            key: Some(hash),
        })
    }

    /// Whether whoever was identified so still is: the tenant is served, and the key, if there was one, is not revoked.
    pub fn stands(&self, who: &Identity, now: Wall) -> bool {
        let inner = self.inner();
        let served = inner.tenants.get(&who.tenant).is_none_or(|t| t.row.active);
        served
            && who
                .key
                .is_none_or(|hash| inner.keys.get(&hash).is_some_and(|k| k.stands(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(json: Value) -> Result<Limits, String> {
        Limits::read(json.as_object().unwrap())
    }

    #[test]
    fn what_is_set_is_read_in_either_spelling_and_the_rest_is_as_configured() {
        let read =
            limits(json!({"maxCalls": 3, "calls_per_minute": 0, "destinations": ["+91", "sip:"], "maxOutbound": null}));
        let expected = Limits {
            max_calls: Some(3),
            calls_per_minute: Some(0),
            destinations: Some(vec!["+91".into(), "sip:".into()]),
            ..Limits::default()
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(limits(json!({})), Ok(Limits::default()));
    }

    #[test]
    fn what_cannot_be_a_limit_is_named() {
        for (bad, key) in [
            (json!({"maxCalls": -1}), "maxCalls"),
            (json!({"maxCalls": 1e30}), "maxCalls"),
            (json!({"requestsPerS": 0}), "requestsPerS"),
            (json!({"maxCalls": "many"}), "maxCalls"),
            (json!({"destinations": ["91"]}), "destinations"),
            (json!({"destinations": vec!["+1"; 1001]}), "destinations"),
            (json!({"maxcalls": 1}), "maxcalls"),
        ] {
            let said = limits(bad).unwrap_err();
            assert!(said.contains(key), "{said}");
        }
    }

    #[test]
    fn every_name_is_read() {
        for name in Limits::NAMES {
            let value = if name.ends_with("destinations") {
                json!(["+1"])
            } else {
                json!(1)
            };
            let mut settings = Map::new();
            settings.insert(name.to_owned(), value);
            assert_ne!(Limits::read(&settings), Ok(Limits::default()), "{name}");
        }
    }
}
