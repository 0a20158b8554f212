//! Rows of what a tenant owns beside its calls: phone numbers and agents.

use crate::base::{
    ids::{AgentId, NumberId, TenantId},
    time::Wall,
};
use serde_json::Value;

/// Who wrote a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator, in the configuration: a start of the daemon rewrites it, nothing else does.
    Config,
    /// The tenant, over REST.
    Api,
}

impl Source {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Api => "api",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Config, Self::Api].into_iter().find(|s| s.as_str() == word)
    }
}

/// A row of `phone_numbers`. A vendor's number is in one row.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberRow {
    /// Our id.
    pub id: NumberId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Who wrote it.
    pub source: Source,
    /// E.164, or a SIP address.
    pub number: String,
    /// The vendor's name.
    pub vendor: String,
    /// What people call it.
    pub display_name: String,
    /// Who answers it; the tenant's most recent agent when `None`.
    pub agent_id: Option<AgentId>,
    /// `active`, or a word for why not.
    pub status: String,
    /// The vendor's account as the tenant wrote it, a JSON object without its secrets; `Null` where the vendor's section
    /// of the configuration serves the number.
    pub settings: Value,
    /// The secrets of the account, sealed by [`super::seal`].
    pub secrets: Option<String>,
    /// When it was made.
    pub created_at: Wall,
    /// When it was last changed.
    pub updated_at: Wall,
}

/// A row of `agents`. A tenant has one agent of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRow {
    /// Our id.
    pub id: AgentId,
    /// Whose it is; every tenant's when `None`, as those of the configuration are.
    pub tenant_id: Option<TenantId>,
    /// Who wrote it.
    pub source: Source,
    /// Its name, as calls and messages hold it.
    pub name: String,
    /// JSON object: everything else about it.
    pub settings: Value,
    /// When it was made.
    pub created_at: Wall,
    /// When it was last changed.
    pub updated_at: Wall,
}
