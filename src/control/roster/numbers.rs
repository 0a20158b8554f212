//! What a tenant does with its phone numbers.

use super::{
    Line, MAX_PER_TENANT,
    account::{self, Account, normal, own_account},
    changeable, conflict, invalid, label,
};
use crate::{
    base::{
        fault::Fault,
        ids::{AgentId, NumberId, TenantId},
        phone::is_e164,
        settings::json::camel_case,
        time::Wall,
    },
    control::{Control, Shared},
    store::{Batch, NumberRow, Source, Write},
    vendor::{self, Descriptor},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What the status of a number may say: it is served, or its callers hear that it is busy.
pub const NUMBER_STATUSES: [&str; 2] = ["active", "inactive"];

/// What is wanted of a number; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct NumberSpec {
    /// E.164. Given once, when the number is added.
    pub number: Option<String>,
    /// The vendor's name. Given once.
    pub vendor: Option<String>,
    /// What people call it.
    pub display_name: Option<String>,
    /// Id or name of the agent that answers; `Some(None)` unlinks it.
    pub agent: Option<Option<String>>,
    /// One of [`NUMBER_STATUSES`].
    pub status: Option<String>,
    /// Its own account at the vendor of that name, in the words of the vendor's section, in `camelCase` or not. When a
    /// number is changed, keys left out stay and `null` removes.
    pub account: Option<(&'static str, Map<String, Value>)>,
}

impl Control {
    /// A tenant's numbers in the order in which they were made.
    pub fn numbers(&self, tenant: TenantId) -> Vec<Arc<Line>> {
        self.shared.roster.lines(tenant)
    }

    /// A tenant's number.
    pub fn number(&self, tenant: TenantId, id: &str) -> Result<Arc<Line>, Fault> {
        let line = self.shared.roster.line(id).filter(|l| l.row.tenant_id == tenant);
        line.ok_or_else(|| Fault::not_found("phone number"))
    }

    /// The number of that id, whosever it is: a vendor asks.
    pub fn line(&self, id: &str) -> Option<Arc<Line>> {
        self.shared.roster.line(id)
    }

    /// Whether anybody has a number of the vendor.
    pub fn has_number_of(&self, vendor: &'static Descriptor) -> bool {
        self.shared.roster.has_number_of(vendor.name)
    }

    /// Takes a number in.
    pub async fn add_number(&self, tenant: TenantId, spec: NumberSpec) -> Result<Arc<Line>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        let number = spec.number.as_deref().unwrap_or_default().trim();
        if !is_e164(number) {
            return Err(invalid("Phone number must be in E.164 format (e.g., +1234567890)"));
        }
        let vendor = known_vendor(spec.vendor.as_deref())?;
        if shared.roster.called(vendor.name, number).is_some() {
            return Err(conflict(format!("{number} is here already with {}", vendor.name)));
        }
        if shared.roster.lines(tenant).len() >= MAX_PER_TENANT {
            return Err(conflict(format!("a tenant has at most {MAX_PER_TENANT} numbers")));
        }
        let (id, now) = (NumberId::new(), Wall::now());
        let row = NumberRow {
            id,
            tenant_id: tenant,
            source: Source::Api,
            number: number.to_owned(),
            vendor: vendor.name.to_owned(),
            display_name: number.to_owned(),
            agent_id: None,
            status: "active".to_owned(),
            settings: Value::Null,
            secrets: None,
            created_at: now,
            updated_at: now,
        };
        let account = account_for(vendor, &spec)?.map(normal);
        shared.keep_number(row, vendor, account, spec).await
    }

    /// Changes a number.
    pub async fn change_number(&self, tenant: TenantId, id: &str, spec: NumberSpec) -> Result<Arc<Line>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        let line = self.number(tenant, id)?;
        changeable(line.row.source, "phone number")?;
        for (field, asked, is) in [
            ("phoneNumber", &spec.number, &line.row.number),
            ("provider", &spec.vendor, &line.row.vendor),
        ] {
            if asked.as_ref().is_some_and(|asked| asked != is) {
                let message = format!("{field} cannot be changed: delete the number and add the other");
                return Err(invalid(message));
            }
        }
        let account = match account_for(line.vendor, &spec)? {
            None => None,
            Some(change) => {
                let mut all = line.row.settings.as_object().cloned().unwrap_or_default();
                let change = normal(change);
                let kept = account::open(&shared.deps.seal, line.row.id, line.row.secrets.as_deref());
                let kept = kept.map_err(|e| conflict(e.to_string()))?;
                same_place(&all, &kept, &change)?;
                all.extend(kept);
                all.extend(change);
                Some(all)
            }
        };
        let row = NumberRow {
            updated_at: Wall::now(),
            ..line.row.clone()
        };
        shared.keep_number(row, line.vendor, account, spec).await
    }

    /// Lets a number go. Its live calls go on.
    pub async fn remove_number(&self, tenant: TenantId, id: &str) -> Result<Arc<Line>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        let line = self.number(tenant, id)?;
        changeable(line.row.source, "phone number")?;
        shared.store_roster(vec![Write::NumberGone(line.row.id)]).await?;
        shared.roster.drop_line(&line);
        Ok(line)
    }
}

impl Shared {
    /// Stores a number as `spec` wants it, then serves it.
    async fn keep_number(
        &self,
        mut row: NumberRow,
        vendor: &'static Descriptor,
        account: Option<Map<String, Value>>,
        spec: NumberSpec,
    ) -> Result<Arc<Line>, Fault> {
        if let Some(name) = &spec.display_name {
            row.display_name = label("displayName", name, 128)?;
        }
        if let Some(status) = &spec.status {
            row.status = status_word(status)?;
        }
        if let Some(agent) = spec.agent {
            row.agent_id = match agent {
                Some(id) => self.agent_id(row.tenant_id, &id)?,
                None => None,
            };
        }
        let before = self.roster.line(row.id.as_str());
        let (mut own, mut secrets) = match &before {
            Some(line) => (line.account.clone(), line.secrets.clone()),
            None => (None, Vec::new()),
        };
        if let Some(settings) = account {
            let Account { trunk, open, secret } = own_account(vendor, settings)?;
            self.check_places(vendor, &open).await?;
            row.secrets = account::seal(&self.deps.seal, row.id, &secret)?;
            row.settings = Value::Object(open);
            secrets = secret.keys().map(|k| camel_case(k)).collect();
            own = Some(trunk);
        }
        let line = Line {
            row,
            vendor,
            account: own,
            secrets,
        };
        self.check_account(&line)?;
        self.store_roster(vec![Write::Number(Box::new(line.row.clone()))])
            .await?;
        Ok(self.roster.put_line(line))
    }

    /// A tenant's account is not at an address that only this machine or its network knows.
    async fn check_places(&self, vendor: &Descriptor, settings: &Map<String, Value>) -> Result<(), Fault> {
        for place in PLACES {
            let Some(text) = settings.get(place).and_then(Value::as_str).filter(|t| !t.is_empty()) else {
                continue;
            };
            // A mere host is asked with TLS.
            let url = match text.contains("://") {
                true => text.to_owned(),
                false => format!("https://{text}"),
            };
            self.deps
                .tenant_http
                .may_reach(&url)
                .await
                .map_err(|why| invalid(format!("{}Config.{}: {why}", vendor.name, camel_case(place))))?;
        }
        Ok(())
    }

    /// A number has an account to be carried by, and its vendor can be told from anybody.
    fn check_account(&self, line: &Line) -> Result<(), Fault> {
        let config = &self.deps.config;
        let (name, own) = (line.vendor.name, line.account.as_ref());
        if line.row.settings.is_null() && line.row.tenant_id != config.default_tenant && !config.dev {
            let message =
                format!("{name}Config is required: the daemon's own account with {name} is not this tenant's");
            return Err(invalid(message));
        }
        let trunk = own.or_else(|| self.deps.trunks.get(name)).filter(|_| !config.dev);
        match trunk.and_then(|trunk| vendor::lacks(&**trunk)) {
            None => Ok(()),
            Some(needed) => {
                let words = needed.split(' ').map(camel_case).collect::<Vec<_>>().join(" ");
                Err(invalid(format!(
                    "anybody could pass for {name}: {name}Config needs {words}, or insecure: true where a gateway has checked"
                )))
            }
        }
    }

    /// The agent of that id or name. On a developer's own machine nobody answers to an agent that is not there.
    fn agent_id(&self, tenant: TenantId, id: &str) -> Result<Option<AgentId>, Fault> {
        let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
        match self.roster.agent(tenant, id) {
            Some(agent) => Ok(Some(agent.row.id)),
            None if self.deps.config.dev => {
                tracing::warn!(agent = shown, "there is no such agent: the number is left unlinked");
                Ok(None)
            }
            None => Err(invalid(format!(
                "no agent {shown:?}: GET /api/agents names those there are, and without one the most recent answers"
            ))),
        }
    }

    pub(super) async fn store_roster(&self, writes: Vec<Write>) -> Result<(), Fault> {
        self.deps.store.commit(Batch { writes }).await?;
        self.tell_roster();
        Ok(())
    }
}

/// The account that is wanted, if it is one with the number's vendor.
fn account_for(vendor: &Descriptor, spec: &NumberSpec) -> Result<Option<Map<String, Value>>, Fault> {
    match &spec.account {
        Some((name, _)) if *name != vendor.name => Err(invalid(format!("{name}Config is of another provider"))),
        account => Ok(account.as_ref().map(|(_, account)| account.clone())),
    }
}

/// Settings that decide where an account's secrets are sent.
const PLACES: [&str; 2] = ["base_url", "domain"];

/// Secrets are write-only: who moves the account to another place must bring them again, or could have them sent to himself.
fn same_place(
    before: &Map<String, Value>,
    kept: &Map<String, Value>,
    change: &Map<String, Value>,
) -> Result<(), Fault> {
    let moved = PLACES
        .into_iter()
        .find(|place| change.get(*place).is_some_and(|to| before.get(*place) != Some(to)));
    let missing: Vec<_> = kept.keys().filter(|name| !change.contains_key(*name)).collect();
    match moved {
        Some(place) if !missing.is_empty() => Err(invalid(format!(
            "{} decides where the secrets are sent: give {} again with it",
            camel_case(place),
            missing
                .into_iter()
                .map(|name| camel_case(name))
                .collect::<Vec<_>>()
                .join(" and ")
        ))),
        _ => Ok(()),
    }
}

fn known_vendor(name: Option<&str>) -> Result<&'static Descriptor, Fault> {
    name.and_then(vendor::by_name).ok_or_else(|| {
        let names: Vec<_> = vendor::all().iter().map(|v| v.name).collect();
        invalid(format!("provider is one of {}", names.join(", ")))
    })
}

fn status_word(status: &str) -> Result<String, Fault> {
    match NUMBER_STATUSES.contains(&status) {
        true => Ok(status.to_owned()),
        false => Err(invalid(format!("status is one of {}", NUMBER_STATUSES.join(", ")))),
    }
}
