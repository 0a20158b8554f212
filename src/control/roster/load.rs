//! A start of the daemon: the rows of the configuration are brought up to date, secrets sealed with a former key are sealed
//! anew, and all rows are read into memory.

use super::{
    Agent, Inner, Line, Roster,
    account::{self, Account, own_account},
    agents::{profile, settings_of},
    keys,
};
use crate::{
    agent,
    base::{
        fault::{Fault, Kind},
        ids::{AgentId, NumberId},
        secret::LastFour,
        settings::json::camel_case,
        time::Wall,
    },
    control::Config,
    store::{
        AgentRow, Batch, NumberRow, Source, Store, Write,
        seal::{Seal, SealError},
    },
    vendor,
};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Tries of a start that crosses with another node's.
const TRIES: u32 = 8;

/// Brings the store up to date with the configuration and reads all of it. Nodes that start at the same time write the same
/// rows: who comes second finds them there.
pub(in crate::control) async fn load(
    store: &dyn Store,
    config: &Config,
    built_in: &agent::Config,
    seal: &Seal,
) -> Result<Roster, Fault> {
    let mut tries = 1;
    loop {
        match load_once(store, config, built_in, seal).await {
            Err(fault) if fault.kind == Kind::Conflict && tries < TRIES => tries += 1,
            loaded => return loaded,
        }
    }
}

async fn load_once(store: &dyn Store, config: &Config, built_in: &agent::Config, seal: &Seal) -> Result<Roster, Fault> {
    let mut writes = Vec::new();
    let agents = write_agents(store.agents(None).await?, built_in, &mut writes);
    let numbers = write_numbers(store.numbers(None).await?, config, &agents, &mut writes);
    let inner = inner(agents, numbers, built_in, seal, &mut writes);
    if !writes.is_empty() {
        store.commit(Batch { writes }).await?;
    }
    Ok(Roster {
        inner: inner.into(),
        ..Roster::default()
    })
}

/// All rows as they are stored.
pub(super) async fn read(store: &dyn Store, built_in: &agent::Config, seal: &Seal) -> Result<Inner, Fault> {
    let (agents, numbers) = (store.agents(None).await?, store.numbers(None).await?);
    // Secrets that were sealed with a former key are sealed anew by whoever starts with them.
    Ok(inner(agents, numbers, built_in, seal, &mut Vec::new()))
}

/// The rows ready to serve; what of them is to be written anew is added to `writes`.
fn inner(
    agents: Vec<AgentRow>,
    numbers: Vec<NumberRow>,
    built_in: &agent::Config,
    seal: &Seal,
    writes: &mut Vec<Write>,
) -> Inner {
    let mut inner = Inner::default();
    for row in agents {
        let row = resealed(row, seal, writes);
        let read = match row.source {
            Source::Config => built_in.get(&row.name).cloned(),
            Source::Api => read_profile(&row, seal),
        };
        let agent = Agent { row, profile: read };
        inner.agents.insert(agent.row.id, Arc::new(agent));
    }
    for row in numbers {
        let Some(line) = line(row, seal, writes) else {
            continue;
        };
        inner.called.insert(line.key(), line.row.id);
        inner.lines.insert(line.row.id, Arc::new(line));
    }
    inner
}

/// The agents as they shall be stored; what differs from how they are is written.
fn write_agents(stored: Vec<AgentRow>, built_in: &agent::Config, writes: &mut Vec<Write>) -> Vec<AgentRow> {
    let now = Wall::now();
    let (written, mut agents): (Vec<_>, Vec<_>) = stored.into_iter().partition(|a| a.source == Source::Config);
    for profile in built_in.names().filter_map(|name| built_in.get(name)) {
        let settings = Value::Object(settings_of(profile));
        let known = written.iter().find(|a| a.name == profile.name);
        let row = AgentRow {
            id: known.map_or_else(AgentId::new, |a| a.id),
            tenant_id: None,
            source: Source::Config,
            name: profile.name.clone(),
            settings,
            created_at: known.map_or(now, |a| a.created_at),
            updated_at: known.map_or(now, |a| a.updated_at),
        };
        match known {
            Some(known) if *known == row => agents.push(row),
            _ => {
                let row = AgentRow { updated_at: now, ..row };
                writes.push(Write::Agent(Box::new(row.clone())));
                agents.push(row);
            }
        }
    }
    let gone = written.iter().filter(|a| built_in.get(&a.name).is_none());
    writes.extend(gone.map(|a| Write::AgentGone(a.id)));
    agents
}

/// The numbers as they shall be stored; what differs from how they are is written.
fn write_numbers(
    stored: Vec<NumberRow>,
    config: &Config,
    agents: &[AgentRow],
    writes: &mut Vec<Write>,
) -> Vec<NumberRow> {
    let now = Wall::now();
    let mut numbers = Vec::new();
    let stored_as: HashMap<_, _> = stored.iter().map(|n| ((&n.vendor, &n.number), n)).collect();
    for number in &config.numbers {
        let known = stored_as.get(&(&number.vendor, &number.number)).copied();
        if known.is_some_and(|n| n.source == Source::Api) {
            let number = LastFour(&number.number);
            tracing::warn!(%number, "a number entered over REST is the configuration's now");
        }
        let named = |a: &&AgentRow| a.source == Source::Config && Some(&a.name) == number.agent.as_ref();
        let row = NumberRow {
            id: known.map_or_else(NumberId::new, |n| n.id),
            tenant_id: number.tenant,
            source: Source::Config,
            number: number.number.clone(),
            vendor: number.vendor.clone(),
            display_name: known.map_or_else(|| number.number.clone(), |n| n.display_name.clone()),
            agent_id: agents.iter().find(named).map(|a| a.id),
            status: "active".to_owned(),
            settings: Value::Null,
            secrets: None,
            created_at: known.map_or(now, |n| n.created_at),
            updated_at: known.map_or(now, |n| n.updated_at),
        };
        match known {
            Some(known) if *known == row => numbers.push(row),
            _ => {
                let row = NumberRow { updated_at: now, ..row };
                writes.push(Write::Number(Box::new(row.clone())));
                numbers.push(row);
            }
        }
    }
    let written: HashSet<_> = numbers.iter().map(|n| n.id).collect();
    for mut row in stored {
        if written.contains(&row.id) {
            continue;
        }
        if row.source == Source::Config {
            writes.push(Write::NumberGone(row.id));
            continue;
        }
        // The store has unlinked it with the agent.
        row.agent_id = row.agent_id.filter(|id| agents.iter().any(|a| a.id == *id));
        numbers.push(row);
    }
    numbers
}

/// The agent with its keys sealed by the present key, where a former one sealed them.
fn resealed(mut row: AgentRow, seal: &Seal, writes: &mut Vec<Write>) -> AgentRow {
    let sealed = row.settings.get(keys::SETTING);
    if sealed.and_then(Value::as_str).is_some_and(|s| seal.is_stale(s))
        && let Ok(known) = keys::open(seal, row.id, sealed)
        && let Ok(Some(anew)) = keys::seal(seal, row.id, &known)
    {
        row.settings[keys::SETTING] = Value::String(anew);
        writes.push(Write::Agent(Box::new(row.clone())));
    }
    row
}

fn read_profile(row: &AgentRow, seal: &Seal) -> Option<Arc<agent::Profile>> {
    let mut settings = row.settings.as_object().cloned().unwrap_or_default();
    let sealed = settings.remove(keys::SETTING);
    let read = profile(&row.name, &settings).and_then(|profile| {
        let keys = keys::open(seal, row.id, sealed.as_ref())?;
        Ok(agent::Profile { keys, ..profile })
    });
    match read {
        Ok(profile) => Some(Arc::new(profile)),
        Err(fault) => {
            tracing::warn!(agent = %row.id, %fault, "an agent cannot be used any more");
            None
        }
    }
}

/// A number ready to serve; `None` where its vendor is not known to this version.
fn line(mut row: NumberRow, seal: &Seal, writes: &mut Vec<Write>) -> Option<Line> {
    let Some(vendor) = vendor::by_name(&row.vendor) else {
        tracing::warn!(number = %LastFour(&row.number), vendor = row.vendor, "a number's vendor is not known");
        return None;
    };
    let read = own(&row, vendor, seal);
    let (account, secret) = match read {
        Ok(None) => (None, Map::new()),
        Ok(Some(Account { trunk, secret, .. })) => (Some(trunk), secret),
        Err(fault) => {
            let number = LastFour(&row.number);
            tracing::error!(%number, fault, "a number's account cannot be used: its calls are refused");
            (None, Map::new())
        }
    };
    if row.secrets.as_deref().is_some_and(|s| seal.is_stale(s))
        && account.is_some()
        && let Ok(anew) = account::seal(seal, row.id, &secret)
    {
        row.secrets = anew;
        writes.push(Write::Number(Box::new(row.clone())));
    }
    Some(Line {
        row,
        vendor,
        account,
        secrets: secret.keys().map(|k| camel_case(k)).collect(),
    })
}

fn own(row: &NumberRow, vendor: &'static vendor::Descriptor, seal: &Seal) -> Result<Option<Account>, String> {
    let Some(open) = row.settings.as_object() else {
        return Ok(None);
    };
    let mut settings = open.clone();
    settings.extend(account::open(seal, row.id, row.secrets.as_deref()).map_err(|e: SealError| e.to_string())?);
    own_account(vendor, settings).map(Some).map_err(|f| f.to_string())
}
