//! What a tenant does with its agents.

use super::{Agent, MAX_PER_TENANT, account::normal, changeable, conflict, invalid, keys, label};
use crate::{
    agent::{Kind, Profile},
    base::{
        fault::Fault,
        ids::{AgentId, TenantId},
        settings::{self, Faults, Section, json::camel_case, show_duration},
        time::Wall,
    },
    control::{Control, Shared},
    record::Format,
    store::{AgentRow, Source, Write},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What is wanted of an agent; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct AgentSpec {
    /// Its name.
    pub name: Option<String>,
    /// Everything else, in the words of `[agents.NAME]`, in `camelCase` or not, and `recording` for `record`; beside them
    /// `extraction_schema`. When an agent is changed, keys left out stay and `null` removes.
    pub settings: Map<String, Value>,
}

impl Control {
    /// The agents that a tenant may use in the order in which they were made.
    pub fn agents(&self, tenant: TenantId) -> Vec<Arc<Agent>> {
        self.shared.roster.agents(tenant)
    }

    /// An agent that a tenant may use, by id or name.
    pub fn agent(&self, tenant: TenantId, id: &str) -> Result<Arc<Agent>, Fault> {
        let agent = self.shared.roster.agent(tenant, id);
        agent.ok_or_else(|| Fault::not_found("agent"))
    }

    /// Takes an agent in.
    pub async fn add_agent(&self, tenant: TenantId, spec: AgentSpec) -> Result<Arc<Agent>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        if shared.roster.agents(tenant).len() >= MAX_PER_TENANT {
            return Err(conflict(format!("a tenant has at most {MAX_PER_TENANT} agents")));
        }
        let now = Wall::now();
        let row = AgentRow {
            id: AgentId::new(),
            tenant_id: Some(tenant),
            source: Source::Api,
            name: String::new(),
            settings: json!({}),
            created_at: now,
            updated_at: now,
        };
        shared.keep_agent(row, tenant, spec).await
    }

    /// Changes an agent; the next call notices.
    pub async fn change_agent(&self, tenant: TenantId, id: &str, spec: AgentSpec) -> Result<Arc<Agent>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        let agent = self.agent(tenant, id)?;
        changeable(agent.row.source, "agent")?;
        let row = AgentRow {
            updated_at: Wall::now(),
            ..agent.row.clone()
        };
        shared.keep_agent(row, tenant, spec).await
    }

    /// Removes an agent that no number is linked to.
    pub async fn remove_agent(&self, tenant: TenantId, id: &str) -> Result<Arc<Agent>, Fault> {
        let shared = &*self.shared;
        let _one_at_a_time = shared.roster.changing.lock().await;
        let agent = self.agent(tenant, id)?;
        changeable(agent.row.source, "agent")?;
        let lines = shared.roster.lines(tenant);
        let linked = lines.iter().filter(|l| l.row.agent_id == Some(agent.row.id));
        let numbers: Vec<_> = linked.map(|l| l.row.number.as_str()).take(8).collect();
        if !numbers.is_empty() {
            let message = format!("numbers are linked to the agent: {}", numbers.join(", "));
            return Err(conflict(message));
        }
        shared.store_roster(vec![Write::AgentGone(agent.row.id)]).await?;
        shared.roster.drop_agent(agent.row.id);
        Ok(agent)
    }
}

impl Shared {
    async fn keep_agent(&self, mut row: AgentRow, tenant: TenantId, spec: AgentSpec) -> Result<Arc<Agent>, Fault> {
        if let Some(name) = &spec.name {
            row.name = label("name", name, 64)?;
        }
        if row.name.is_empty() {
            return Err(invalid("name is required"));
        }
        let namesake = self.roster.agent(tenant, &row.name);
        if namesake.is_some_and(|other| other.row.id != row.id) {
            return Err(conflict(format!("there is an agent {:?} already", row.name)));
        }
        let mut settings = row.settings.as_object().cloned().unwrap_or_default();
        let sealed = settings.remove(keys::SETTING);
        let mut wanted = normal(spec.settings);
        let given = wanted.remove(keys::SETTING);
        settings.extend(wanted);
        settings.retain(|_, value| !value.is_null());
        let mut profile = profile(&row.name, &settings)?;
        self.check_backends(&profile)?;
        let seal = &self.deps.seal;
        profile.keys = keys::changed(keys::open(seal, row.id, sealed.as_ref())?, given)?;
        if let Some(sealed) = keys::seal(seal, row.id, &profile.keys)? {
            settings.insert(keys::SETTING.to_owned(), Value::String(sealed));
        }
        row.settings = Value::Object(settings);
        self.store_roster(vec![Write::Agent(Box::new(row.clone()))]).await?;
        Ok(self.roster.put_agent(Agent {
            row,
            profile: Some(Arc::new(profile)),
        }))
    }

    fn check_backends(&self, profile: &Profile) -> Result<(), Fault> {
        let (stt, tts) = self.deps.speech.backends();
        let duplex = self.deps.speech.duplexes();
        let fallback = Some(profile.realtime_fallback.clone()).filter(|f| !f.is_empty());
        for (field, asked, known) in [
            ("stt", profile.ear().map(|e| e.backend), stt),
            ("tts", profile.mouth().map(|m| m.backend), tts),
            ("realtime", profile.service().map(|(s, _)| s.to_owned()), duplex.clone()),
            ("realtimeFallback", fallback, duplex),
        ] {
            if asked.is_some_and(|asked| !known.contains(&asked.as_str())) {
                return Err(invalid(format!("{field} is one of {}", known.join(", "))));
            }
        }
        Ok(())
    }
}

/// Reads an agent from settings with keys as the configuration writes them. What later versions act on is checked alike.
pub(super) fn profile(name: &str, settings: &Map<String, Value>) -> Result<Profile, Fault> {
    let mut rest = settings.clone();
    // The file has schemas as text, a request as they are.
    if let Some(schema) = rest.get_mut("extraction_schema") {
        if !schema.is_object() {
            return Err(invalid("extractionSchema is a JSON object"));
        }
        *schema = Value::String(schema.to_string());
    }
    if let Some(Value::Array(tools)) = rest.get_mut("http_tools") {
        for parameters in tools.iter_mut().filter_map(|t| t.get_mut("parameters")) {
            if parameters.is_object() {
                *parameters = Value::String(parameters.to_string());
            }
        }
    }
    if let Some(recording) = rest.remove("recording")
        && rest.insert("record".to_owned(), recording).is_some()
    {
        return Err(invalid("recording and record are one setting"));
    }
    if let Some(format) = rest.remove("recording_format")
        && rest.insert("record_format".to_owned(), format).is_some()
    {
        return Err(invalid("recordingFormat and recordFormat are one setting"));
    }
    let table = settings::json::table(&rest).map_err(invalid)?;
    let faults = Faults::default();
    let section = Section::root(&table, &faults);
    let profile = Profile::read(name, &section);
    section.finish();
    let faults: Vec<_> = faults
        .take()
        .into_iter()
        .map(|fault| {
            let hint = if fault.hint.is_empty() {
                String::new()
            } else {
                format!(" ({})", fault.hint)
            };
            format!("{}: {}{hint}", camel_case(&fault.key), fault.what)
        })
        .collect();
    if faults.is_empty() {
        Ok(profile)
    } else {
        Err(invalid(faults.join("; ")))
    }
}

/// An agent of the configuration as the settings that REST shows.
pub(super) fn settings_of(profile: &Profile) -> Map<String, Value> {
    let barge_in_after = profile.barge_in_after.unwrap_or_default();
    let settings = json!({
        "kind": profile.kind.as_str(),
        "greeting": profile.greeting,
        "language": profile.language,
        "voice": profile.voice,
        "stt": profile.stt,
        "tts": profile.tts,
        "barge_in_after": show_duration(barge_in_after),
        "recording": profile.record,
        "recording_format": Format::choice(profile.record_format),
        "free_speech": profile.free_speech,
        "webhook_url": profile.webhook_url,
        "min_messages_to_keep": profile.min_messages_to_keep,
        "extraction_schema": profile.schema.as_deref(),
        "extract_after": show_duration(profile.extract_after),
    });
    let Value::Object(mut settings) = settings else {
        return Map::new();
    };
    let wits = &profile.wits;
    if matches!(profile.kind, Kind::Pipeline | Kind::Realtime) {
        settings.extend([
            ("prompt".to_owned(), json!(wits.prompt)),
            ("tools".to_owned(), json!(wits.deeds)),
            ("transfers".to_owned(), json!(wits.transfers)),
        ]);
    }
    if profile.kind == Kind::Realtime {
        settings.extend([
            ("realtime".to_owned(), json!(profile.realtime)),
            ("realtime_fallback".to_owned(), json!(profile.realtime_fallback)),
        ]);
    }
    if profile.kind == Kind::Pipeline {
        settings.extend([
            ("llm".to_owned(), json!(wits.llm)),
            ("llm_fallback".to_owned(), json!(wits.llm_fallback)),
        ]);
    }
    settings
}
