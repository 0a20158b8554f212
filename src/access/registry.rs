//! Changes to who may use the daemon: stored first, then believed. Other daemons on the same database learn of them when they
//! look again, [`REFRESH`] later at most.

use super::{
    Identity, Role,
    apikey::{self, KeyHash},
    members::{Limits, Members, Tenant},
    scope::Scopes,
};
use crate::{
    base::{
        fault::{Fault, Kind},
        ids::{KeyId, TenantId},
        secret::Secret,
        settings::json::snake_case,
        time::Wall,
    },
    metrics,
    store::{ApiKeyRow, Batch, Store, TenantRow, Write},
};
use serde_json::{Map, Value};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// Time between looks at what other daemons have changed.
pub const REFRESH: Duration = Duration::from_secs(5);
/// Keys on record of one tenant, those that open nothing any more included.
const MAX_KEYS: usize = 1000;

/// What is wanted of a tenant; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantSpec {
    /// What people call it.
    pub name: Option<String>,
    /// Whether it is served.
    pub active: Option<bool>,
    /// Limits of its own, keys in either spelling; `null` goes back to those of all.
    pub limits: Map<String, Value>,
}

/// What is wanted of a new key.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// Its name, which is the subject of whoever presents it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// What it is narrowed to.
    pub scopes: Scopes,
    /// When it ends, if it does.
    pub expires_at: Option<Wall>,
}

/// The registry. One for the process.
pub struct Registry {
    store: Arc<dyn Store>,
    members: Arc<Members>,
    /// Held while something is read, changed and stored.
    changing: Mutex<()>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// The registry of a store, read once.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, Fault> {
        let registry = Self {
            store,
            members: Arc::default(),
            changing: Mutex::default(),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Those that it knows.
    pub const fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Reads all anew.
    pub async fn refresh(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.changing.lock().await;
        let (tenants, keys) = (self.store.tenants().await?, self.store.api_keys(None).await?);
        self.members.replace(tenants, keys);
        Ok(())
    }

    /// Reads all anew every [`REFRESH`], for a store that other daemons write to. Runs for ever. While the store cannot be read,
    /// what was known stays.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH).await;
            if self.refresh().await.is_err() {
                metrics::dropped("members", "unreadable", 1);
            }
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), Fault> {
        self.store.commit(Batch { writes }).await.map(drop)
    }

    /// Makes a tenant, with the next free id where none is asked for.
    pub async fn add_tenant(&self, id: Option<TenantId>, spec: TenantSpec) -> Result<Arc<Tenant>, Fault> {
        let _one_at_a_time = self.changing.lock().await;
        let next = || {
            self.members
                .tenants()
                .last()
                .map_or(1, |t| t.row.id.0.saturating_add(1))
        };
        let id = id.unwrap_or_else(|| TenantId(next()));
        if id.0 <= 0 {
            return Err(invalid("id is a positive integer"));
        }
        if self.members.tenant(id).is_some() {
            return Err(Fault::client(Kind::Conflict, format!("tenant {id} is here already")));
        }
        let now = Wall::now();
        let row = TenantRow {
            id,
            name: format!("tenant {id}"),
            active: true,
            settings: Value::Null,
            created_at: now,
            updated_at: now,
        };
        let row = specified(row, spec)?;
        self.commit(vec![Write::NewTenant(Box::new(row.clone()))]).await?;
        Ok(self.members.put_tenant(row))
    }

    /// Changes a tenant.
    pub async fn change_tenant(&self, id: TenantId, spec: TenantSpec) -> Result<Arc<Tenant>, Fault> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.tenant(id).await?;
        let row = TenantRow {
            updated_at: Wall::now(),
            ..known.row.clone()
        };
        let row = specified(row, spec)?;
        self.commit(vec![Write::Tenant(Box::new(row.clone()))]).await?;
        Ok(self.members.put_tenant(row))
    }

    /// A tenant, looked for in the store too: what belongs to one brings it there.
    pub async fn tenant(&self, id: TenantId) -> Result<Arc<Tenant>, Fault> {
        if let Some(known) = self.members.tenant(id) {
            return Ok(known);
        }
        let rows = self.store.tenants().await?;
        let row = rows.into_iter().find(|row| row.id == id);
        row.map(|row| self.members.put_tenant(row))
            .ok_or_else(|| Fault::not_found("tenant"))
    }

    /// Makes a key for a tenant, on behalf of `by`. The key itself is told this once.
    pub async fn add_key(&self, tenant: TenantId, spec: KeySpec, by: &Identity) -> Result<(ApiKeyRow, Secret), Fault> {
        let name = label("name", &spec.name)?;
        if spec.expires_at.is_some_and(|end| end <= Wall::now()) {
            return Err(invalid("expiresAt has passed: the key would open nothing"));
        }
        if spec.role > by.role || !by.scopes.include(spec.scopes) {
            let message = "a key opens no more than the credential that makes it";
            return Err(Fault::client(Kind::Forbidden, message));
        }
        let _one_at_a_time = self.changing.lock().await;
        let key = apikey::generate().map_err(Fault::internal)?;
        let now = Wall::now();
        let mut writes = Vec::new();
        let theirs = self.store.api_keys(Some(tenant)).await?;
        let spent = theirs
            .iter()
            .find(|k| k.revoked_at.is_some() || k.expires_at.is_some_and(|end| end <= now));
        let forgotten = (theirs.len() >= MAX_KEYS).then_some(spent.map(|k| k.id));
        match forgotten {
            None => {}
            Some(Some(id)) => writes.push(Write::ApiKeyGone(id)),
            Some(None) => {
                let message = format!("a tenant has at most {MAX_KEYS} keys: revoke one that is not used");
                return Err(Fault::client(Kind::Conflict, message));
            }
        }
        let row = ApiKeyRow {
            id: KeyId::new(),
            tenant_id: tenant,
            name,
            prefix: apikey::prefix(&key),
            hash: KeyHash::of(key.expose()).to_string(),
            role: spec.role.to_string(),
            scopes: spec.scopes.to_string(),
            created_by: by.subject.clone(),
            created_at: now,
            expires_at: spec.expires_at,
            revoked_at: None,
        };
        writes.push(Write::ApiKey(Box::new(row.clone())));
        self.commit(writes).await?;
        if let Some(Some(id)) = forgotten {
            self.members.drop_key(id);
        }
        self.members.put_key(row.clone());
        Ok((row, key))
    }

    /// Revokes a key of a tenant, once and for all: what it has open is closed.
    pub async fn revoke_key(&self, tenant: TenantId, id: &str) -> Result<ApiKeyRow, Fault> {
        let _one_at_a_time = self.changing.lock().await;
        let theirs = self.store.api_keys(Some(tenant)).await?;
        let row = theirs.into_iter().find(|row| row.id.as_str() == id);
        let mut row = row.ok_or_else(|| Fault::not_found("API key"))?;
        if row.revoked_at.is_none() {
            row.revoked_at = Some(Wall::now());
            self.commit(vec![Write::ApiKey(Box::new(row.clone()))]).await?;
        }
        self.members.put_key(row.clone());
        Ok(row)
    }
}

/// A row as the specification wants it.
fn specified(mut row: TenantRow, spec: TenantSpec) -> Result<TenantRow, Fault> {
    if let Some(name) = &spec.name {
        row.name = label("name", name)?;
    }
    row.active = spec.active.unwrap_or(row.active);
    let mut settings = row.settings.as_object().cloned().unwrap_or_default();
    settings.extend(spec.limits.into_iter().map(|(key, value)| (snake_case(&key), value)));
    settings.retain(|_, value| !value.is_null());
    Limits::read(&settings).map_err(invalid)?;
    row.settings = if settings.is_empty() {
        Value::Null
    } else {
        Value::Object(settings)
    };
    Ok(row)
}

/// Text of a person's that ends up in logs and on screens.
fn label(field: &str, text: &str) -> Result<String, Fault> {
    let text = text.trim();
    let fits = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or_else(|| invalid(format!("{field} is 1 to 128 characters on one line")))
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::client(Kind::Invalid, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;
    use serde_json::json;

    struct Bench {
        registry: Registry,
        folder: tempfile::TempDir,
    }

    async fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::load(open(&folder)).await.unwrap();
        Bench { registry, folder }
    }

    fn open(folder: &tempfile::TempDir) -> Arc<dyn Store> {
        store::open(&store::Config::default(), folder.path()).unwrap()
    }

    fn admin(scopes: &str) -> Identity {
        Identity {
            tenant: TenantId(1),
            role: Role::Admin,
            scopes: scopes.parse().unwrap(),
            subject: "ann".into(),
            expires: None,
            key: None,
        }
    }

    fn spec(role: Role, scopes: &str) -> KeySpec {
        KeySpec {
            name: "bot".into(),
            role,
            scopes: scopes.parse().unwrap(),
            expires_at: None,
        }
    }

    fn limits(limits: Value) -> TenantSpec {
        TenantSpec {
            limits: limits.as_object().unwrap().clone(),
            ..TenantSpec::default()
        }
    }

    #[tokio::test]
    async fn a_key_opens_until_it_is_revoked_and_after_a_restart_too() {
        let Bench { registry, folder } = bench().await;
        let (row, key) = registry
            .add_key(TenantId(7), spec(Role::Viewer, "ws"), &admin(""))
            .await
            .unwrap();
        assert!(key.expose().starts_with(&row.prefix) && row.prefix.len() < 12);
        let (hash, now) = (KeyHash::of(key.expose()), Wall::now());
        let who = registry.members().identify(hash, now).unwrap();
        assert_eq!(
            (who.tenant, who.role, who.scopes.to_string()),
            (TenantId(7), Role::Viewer, "ws".into())
        );
        assert!(registry.members().stands(&who, now));
        let mut changes = registry.members().changes();
        drop(registry);

        let registry = Registry::load(open(&folder)).await.unwrap();
        assert_eq!(registry.members().identify(hash, now), Some(who.clone()));
        let foreign = registry.revoke_key(TenantId(1), row.id.as_str()).await.unwrap_err();
        let absent = registry.revoke_key(TenantId(1), "key_0").await.unwrap_err();
        assert_eq!((foreign.kind, &foreign), (Kind::NotFound, &absent));
        assert!(changes.has_changed().is_err(), "the first registry is gone");
        changes = registry.members().changes();
        registry.revoke_key(TenantId(7), row.id.as_str()).await.unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!(registry.members().identify(hash, now), None);
        assert!(!registry.members().stands(&who, now));
        let shown = registry.members().keys(TenantId(7));
        assert!(shown[0].revoked_at.is_some());
        let again = registry.revoke_key(TenantId(7), row.id.as_str()).await.unwrap();
        assert_eq!(again.revoked_at, shown[0].revoked_at, "a key is revoked once");
    }

    #[tokio::test]
    async fn a_key_opens_no_more_than_the_credential_that_makes_it() {
        let Bench {
            registry,
            folder: _folder,
        } = bench().await;
        for (by, wanted, fine) in [
            (admin(""), spec(Role::Admin, ""), true),
            (admin("keys"), spec(Role::Admin, "keys"), true),
            (admin("keys"), spec(Role::Viewer, ""), false),
            (admin("keys"), spec(Role::Viewer, "calls"), false),
        ] {
            let made = registry.add_key(TenantId(1), wanted.clone(), &by).await;
            assert_eq!(made.is_ok(), fine, "{by:?} {wanted:?}");
        }
        let agent = Identity {
            role: Role::Agent,
            ..admin("")
        };
        let made = registry.add_key(TenantId(1), spec(Role::Admin, ""), &agent).await;
        assert_eq!(made.unwrap_err().kind, Kind::Forbidden);
        let late = KeySpec {
            expires_at: Some(Wall::default()),
            ..spec(Role::Viewer, "")
        };
        assert_eq!(
            registry.add_key(TenantId(1), late, &admin("")).await.unwrap_err().kind,
            Kind::Invalid
        );
    }

    #[tokio::test]
    async fn spent_keys_make_room_and_live_ones_do_not() {
        let Bench {
            registry,
            folder: _folder,
        } = bench().await;
        let by = admin("");
        let (first, _) = registry
            .add_key(TenantId(1), spec(Role::Viewer, ""), &by)
            .await
            .unwrap();
        let more = (1..MAX_KEYS).map(|n| {
            let row = ApiKeyRow {
                id: KeyId::new(),
                hash: KeyHash::of(&n.to_string()).to_string(),
                ..first.clone()
            };
            Write::ApiKey(Box::new(row))
        });
        registry.commit(more.collect()).await.unwrap();
        registry.refresh().await.unwrap();
        let full = registry.add_key(TenantId(1), spec(Role::Viewer, ""), &by).await;
        assert_eq!(full.unwrap_err().kind, Kind::Conflict);
        registry
            .add_key(TenantId(2), spec(Role::Viewer, ""), &by)
            .await
            .unwrap();
        registry.revoke_key(TenantId(1), first.id.as_str()).await.unwrap();
        registry
            .add_key(TenantId(1), spec(Role::Viewer, ""), &by)
            .await
            .unwrap();
        let keys = registry.members().keys(TenantId(1));
        assert_eq!(keys.len(), MAX_KEYS);
        assert!(keys.iter().all(|k| k.id != first.id));
    }

    #[tokio::test]
    async fn tenants_are_made_changed_and_disabled_and_their_limits_merge() {
        let Bench { registry, folder } = bench().await;
        let one = registry
            .add_tenant(None, limits(json!({"maxCalls": 3, "destinations": ["+91"]})))
            .await
            .unwrap();
        let two = registry.add_tenant(None, TenantSpec::default()).await.unwrap();
        assert_eq!((one.row.id, two.row.id), (TenantId(1), TenantId(2)));
        let twin = registry.add_tenant(Some(TenantId(2)), TenantSpec::default()).await;
        assert_eq!(twin.unwrap_err().kind, Kind::Conflict);
        let changed = registry
            .change_tenant(TenantId(1), limits(json!({"destinations": null, "max_outbound": 1})))
            .await;
        let own = changed.unwrap().limits.clone();
        assert_eq!(
            (own.max_calls, own.max_outbound, &own.destinations),
            (Some(3), Some(1), &None)
        );
        let bad = registry
            .change_tenant(TenantId(1), limits(json!({"maxCalls": "x"})))
            .await;
        assert_eq!(bad.unwrap_err().kind, Kind::Invalid);
        assert_eq!(
            registry.members().limits(TenantId(1)).max_calls,
            Some(3),
            "what is refused changes nothing"
        );
        let off = TenantSpec {
            active: Some(false),
            ..TenantSpec::default()
        };
        registry.change_tenant(TenantId(2), off).await.unwrap();
        assert!(registry.members().is_active(TenantId(1)) && !registry.members().is_active(TenantId(2)));
        assert!(
            registry.members().is_active(TenantId(99)),
            "nobody has made it, nobody has disabled it"
        );
        assert_eq!(registry.tenant(TenantId(99)).await.unwrap_err().kind, Kind::NotFound);
        drop(registry);
        let registry = Registry::load(open(&folder)).await.unwrap();
        assert!(!registry.members().is_active(TenantId(2)));
        assert_eq!(*registry.members().limits(TenantId(1)), *own);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn tenants_made_at_once_get_different_ids() {
        let Bench {
            registry,
            folder: _folder,
        } = bench().await;
        let registry = Arc::new(registry);
        let made = (0..16).map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.add_tenant(None, TenantSpec::default()).await.unwrap().row.id })
        });
        let mut ids = Vec::new();
        for id in made.collect::<Vec<_>>() {
            ids.push(id.await.unwrap().0);
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=16).collect::<Vec<_>>());
    }
}
