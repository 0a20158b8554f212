//! Phone numbers and agents of all tenants in memory, as they are stored: whose a number is, which account carries it, who
//! answers it.
//!
//! Calls read it without waiting. A change is stored first and seen by the next call; live calls keep what they began with.

mod account;
mod agents;
mod keys;
mod load;
mod numbers;
mod sync;

pub use agents::AgentSpec;
pub use numbers::{NUMBER_STATUSES, NumberSpec};

pub(super) use load::load;
pub(super) use sync::follow;

use super::Config;
use crate::{
    agent::{self, Profile},
    base::{
        fault::{Fault, Kind},
        ids::{AgentId, NumberId, TenantId},
        phone::e164,
    },
    store::{AgentRow, NumberRow, Source},
    vendor::{Descriptor, Trunk},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

/// Numbers, and agents, of one tenant at most.
const MAX_PER_TENANT: usize = 10_000;

/// A phone number of ours, with what serves it.
pub struct Line {
    /// Its row.
    pub row: NumberRow,
    /// Who carries it.
    pub vendor: &'static Descriptor,
    /// Its own account at the vendor; `None` where the vendor's section of the configuration has it.
    pub account: Option<Arc<dyn Trunk>>,
    /// The names of the secrets of its account.
    pub secrets: Vec<String>,
}

impl Line {
    /// Whether it takes and places calls.
    pub fn is_active(&self) -> bool {
        self.row.status == "active"
    }

    /// Whether calls can be taken and placed: it is active, and the secrets of its own account, if it has one, were read.
    pub fn is_usable(&self) -> bool {
        self.is_active() && (self.account.is_some() || !self.has_own_account())
    }

    /// Whether it has an account of its own at the vendor, be its secrets readable or not.
    pub fn has_own_account(&self) -> bool {
        !self.row.settings.is_null()
    }

    /// What finds it when it is called.
    fn key(&self) -> (&'static str, String) {
        (self.vendor.name, e164(&self.row.number).into_owned())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("id", &self.row.id).finish_non_exhaustive()
    }
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// Its row.
    pub row: AgentRow,
    /// What it does; `None` where its settings no longer make sense to this version.
    pub profile: Option<Arc<Profile>>,
}

impl Agent {
    fn serves(&self, tenant: TenantId) -> bool {
        self.row.tenant_id.is_none_or(|t| t == tenant)
    }
}

#[derive(Debug, Default)]
struct Inner {
    lines: BTreeMap<NumberId, Arc<Line>>,
    called: HashMap<(&'static str, String), NumberId>,
    agents: BTreeMap<AgentId, Arc<Agent>>,
}

/// All numbers and agents.
#[derive(Debug, Default)]
pub(super) struct Roster {
    inner: RwLock<Inner>,
    /// Held over a change, from its checks to its place in memory.
    changing: tokio::sync::Mutex<()>,
}

impl Roster {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of that id.
    pub(super) fn line(&self, id: &str) -> Option<Arc<Line>> {
        self.read().lines.get(&id.parse().ok()?).cloned()
    }

    /// The vendor's number, with its plus sign or without. What is ours is known at any length.
    pub(super) fn called(&self, vendor: &'static str, number: &str) -> Option<Arc<Line>> {
        let inner = self.read();
        let find = |number: String| inner.lines.get(inner.called.get(&(vendor, number))?).cloned();
        find(e164(number).into_owned()).or_else(|| find(format!("+{number}")))
    }

    /// Whether any tenant has a number of the vendor.
    pub(super) fn has_number_of(&self, vendor: &str) -> bool {
        self.read().lines.values().any(|l| l.vendor.name == vendor)
    }

    /// A tenant's numbers in the order in which they were made.
    pub(super) fn lines(&self, tenant: TenantId) -> Vec<Arc<Line>> {
        let inner = self.read();
        let theirs = inner.lines.values().filter(|l| l.row.tenant_id == tenant);
        let mut lines: Vec<_> = theirs.cloned().collect();
        lines.sort_by_key(|l| (l.row.created_at, l.row.id));
        lines
    }

    /// The agents that a tenant may use in the order in which they were made.
    pub(super) fn agents(&self, tenant: TenantId) -> Vec<Arc<Agent>> {
        let inner = self.read();
        let mut agents: Vec<_> = inner.agents.values().filter(|a| a.serves(tenant)).cloned().collect();
        agents.sort_by_key(|a| (a.row.created_at, a.row.id));
        agents
    }

    /// The agent of that id or name; a tenant's own goes before every tenant's.
    pub(super) fn agent(&self, tenant: TenantId, id: &str) -> Option<Arc<Agent>> {
        let inner = self.read();
        let by_id = id.parse().ok().and_then(|id: AgentId| inner.agents.get(&id));
        if let Some(agent) = by_id.filter(|a| a.serves(tenant)) {
            return Some(agent.clone());
        }
        let named = inner.agents.values().filter(|a| a.row.name == id && a.serves(tenant));
        named.max_by_key(|a| a.row.tenant_id).cloned()
    }

    /// Who answers a number: the agent it names, else the tenant's most recent one, else the configured default. A number
    /// that nobody has is the default's.
    pub(super) fn answers(
        &self,
        config: &Config,
        built_in: &agent::Config,
        tenant: TenantId,
        line: Option<&Line>,
    ) -> Option<Arc<Profile>> {
        let default = || built_in.get(&config.default_agent).cloned();
        let Some(line) = line else { return default() };
        let inner = self.read();
        let linked = line.row.agent_id.and_then(|id| inner.agents.get(&id)?.profile.clone());
        let recent = || {
            let own = inner
                .agents
                .values()
                .filter(|a| a.row.tenant_id == Some(tenant) && a.row.source == Source::Api && a.profile.is_some());
            own.max_by_key(|a| (a.row.created_at, a.row.id))?.profile.clone()
        };
        linked.or_else(recent).or_else(default)
    }

    fn put_line(&self, line: Line) -> Arc<Line> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let line = Arc::new(line);
        inner.called.insert(line.key(), line.row.id);
        inner.lines.insert(line.row.id, line.clone());
        line
    }

    fn drop_line(&self, line: &Line) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.lines.remove(&line.row.id);
        inner.called.remove(&line.key());
    }

    fn put_agent(&self, agent: Agent) -> Arc<Agent> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let agent = Arc::new(agent);
        inner.agents.insert(agent.row.id, agent.clone());
        agent
    }

    fn drop_agent(&self, id: AgentId) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.agents.remove(&id);
    }
}

/// What the operator wrote is the operator's to change.
fn changeable(source: Source, what: &str) -> Result<(), Fault> {
    match source {
        Source::Api => Ok(()),
        Source::Config => {
            let message = format!("the {what} is written in the configuration and can be changed there only");
            Err(Fault::client(Kind::Conflict, message))
        }
    }
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::client(Kind::Invalid, message.into())
}

fn conflict(message: impl Into<String>) -> Fault {
    Fault::client(Kind::Conflict, message.into())
}

/// Text of a person's that ends up in logs, files and on screens: trimmed, of `1..=max` characters, none of them control.
fn label(field: &str, text: &str, max: usize) -> Result<String, Fault> {
    let text = text.trim();
    let fits = (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or_else(|| invalid(format!("{field} is 1 to {max} characters on one line")))
}
