//! Agents over REST: who answers calls, in the words of `[agents.NAME]` in `camelCase`.

use super::{
    Shared,
    body::{self, Ids, Typed},
    respond::{Answer, Failure, done, list as listed, told},
};
use crate::{
    access::Identity,
    base::{
        fault::Fault,
        settings::{json::camel_case, show_duration},
        time::Wall,
    },
    control::{Agent, AgentSpec},
    record::Format,
};
use axum::{
    Extension,
    extract::{RawQuery, Request, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An agent that the tenant may use.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownAgent {
    /// Its id.
    id: String,
    /// Its name, as calls and messages hold it.
    name: String,
    /// How it deals with a call.
    kind: String,
    /// Said when the call is answered.
    greeting: String,
    /// What it hears and speaks, BCP 47, or `auto`.
    language: String,
    /// Voice as the synthesizer names it; empty chooses by language.
    voice: String,
    /// Speech recogniser.
    stt: String,
    /// Speech synthesizer.
    tts: String,
    /// Speech over the agent cuts it off after this long, such as `200ms`; `0ms` lets it finish.
    barge_in_after: String,
    /// Whether its calls are recorded.
    recording: bool,
    /// How: `wav`, `opus`, or `default`, as the operator has it.
    recording_format: &'static str,
    /// Whether speech outside the phrases is transcribed too.
    free_speech: bool,
    /// What a scripted agent answers to what.
    rules: Value,
    /// What it answers to anything else.
    fallback: Value,
    /// What a language model is told about itself.
    prompt: Option<String>,
    /// The language model that answers: `scripted`, or a service, perhaps with `/MODEL`.
    llm: Option<String>,
    /// How the agent behaves in a conversation, as far as that was set, in the words of the body.
    conversation: Map<String, Value>,
    /// The JSON schema of the data that is read out of its calls.
    extraction_schema: Value,
    /// Who is told of its calls, where that is not the configured one.
    webhook_url: Option<String>,
    /// Calls with fewer messages leave no files.
    min_messages_to_keep: usize,
    /// The services that it has keys of its own for.
    keys: Vec<String>,
    /// `config` where the operator wrote it, which cannot be changed here, else `api`.
    source: &'static str,
    /// When it was added.
    created_at: Wall,
    /// When it was last changed.
    updated_at: Wall,
}

/// What is wanted of an agent. When one is changed, fields left out stay and null goes back to the default.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentBody {
    /// Which agent, when one is changed: required here or in the query.
    id: Option<String>,
    /// Its name; required when an agent is added.
    name: Option<String>,
    /// How it deals with a call: echo, listen, human, scripted, pipeline, realtime.
    kind: Option<String>,
    /// Said when the call is answered.
    greeting: Option<String>,
    /// What it hears and speaks, BCP 47, or `auto`.
    language: Option<String>,
    /// Voice as the synthesizer names it; empty chooses by language.
    voice: Option<String>,
    /// Speech recogniser.
    stt: Option<String>,
    /// Speech synthesizer.
    tts: Option<String>,
    /// The recogniser that takes over where that one fails.
    stt_fallback: Option<String>,
    /// The synthesizer that speaks where that one fails.
    tts_fallback: Option<String>,
    /// Speech over the agent cuts it off after this long, such as `200ms`; `0ms` lets it finish.
    barge_in_after: Option<String>,
    /// Whether its calls are recorded.
    recording: Option<bool>,
    /// How: `wav`, `opus`, or `default`, as the operator has it.
    recording_format: Option<String>,
    /// Whether speech outside the phrases is transcribed too.
    free_speech: Option<bool>,
    /// What a scripted agent answers to what.
    rules: Option<Vec<Rule>>,
    /// What it answers to anything else.
    fallback: Option<Fallback>,
    /// What a language model is told about itself.
    prompt: Option<String>,
    /// The language model that answers: `scripted`, or a service, perhaps with `/MODEL`.
    llm: Option<String>,
    /// The service that hears and answers by itself (`realtime`), perhaps with `/MODEL`.
    realtime: Option<String>,
    /// The service that takes over where that one fails; empty is none.
    realtime_fallback: Option<String>,
    /// Asked when that one fails before it has said anything.
    llm_fallback: Option<String>,
    /// What a language model may do: hang_up, handoff, transfer, send_digits.
    tools: Option<Vec<String>>,
    /// Numbers that it may hand calls to, E.164.
    transfers: Option<Vec<String>>,
    /// What it may ask the web.
    http_tools: Option<Vec<HttpTool>>,
    /// How long the caller may pause within what they say.
    endpoint_after: Option<String>,
    /// How long after its last interim a recogniser may owe the final.
    endpoint_timeout: Option<String>,
    /// Words that it takes to interrupt the agent; 0 lets any speech do it.
    interrupt_words: Option<u32>,
    /// An interruption without words is taken back after this long; `0s` never.
    resume_after: Option<String>,
    /// Whether the greeting is said to its end, whoever talks.
    protect_greeting: Option<bool>,
    /// How long the caller may be silent before they are asked; `0s` for ever.
    silence_after: Option<String>,
    /// What they are asked, one after the other.
    silence_prompts: Option<Vec<String>>,
    /// Whether a caller who stays silent after the last of them is hung up on.
    silence_hang_up: Option<bool>,
    /// How long the model may take to its first sentence before something is said.
    thinking_after: Option<String>,
    /// What is said then; empty says nothing.
    thinking_prompt: Option<String>,
    /// Said when no model answers.
    apology: Option<String>,
    /// How long answers to common questions are kept; `0s` asks anew each time.
    cache_ttl: Option<String>,
    /// Turns of the conversation that the model is shown.
    history_turns: Option<u32>,
    /// The JSON schema of the data that is read out of its calls.
    extraction_schema: Option<Map<String, Value>>,
    /// How long after the caller's words it is read from the conversation so far; `0s` reads it at the end alone.
    extract_after: Option<String>,
    /// Who is told of its calls, where that is not the configured one.
    webhook_url: Option<String>,
    /// Calls with fewer messages leave no files.
    min_messages_to_keep: Option<u32>,
    /// Keys of services by the service's name (anthropic, deepgram, elevenlabs, gemini, openai), used by the agent's calls before
    /// the operator's. Write-only; null removes one.
    keys: Option<Map<String, Value>>,
    /// Taken and ignored: the tenant is the credential's.
    #[serde(rename = "userId", skip_serializing)]
    _user_id: Option<Value>,
}

/// Something that a language model may ask the web. Its host must be on the tenant's list.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpTool {
    /// Its name.
    name: String,
    /// When to use it, for the model.
    description: Option<String>,
    /// `https` URL.
    url: String,
    /// `POST` (the default) sends the arguments as JSON, `GET` as the query.
    method: Option<String>,
    /// JSON schema of the arguments.
    parameters: Option<Map<String, Value>>,
    /// How long an answer may take, such as `5s`.
    timeout: Option<String>,
}

/// What a scripted agent answers to what.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(super) struct Rule {
    /// What the caller may say; case and punctuation do not matter.
    phrases: Vec<String>,
    /// The answer.
    reply: Option<String>,
    /// Done once the answer was heard: `hang_up`, `handoff`, `transfer:NUMBER`, `digits:KEYS`.
    action: Option<String>,
}

/// What a scripted agent answers to what it does not know.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(super) struct Fallback {
    /// The answer.
    reply: String,
    /// How often in a row.
    max: Option<u32>,
}

/// `GET /api/agents`
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let agents = match Ids::of_query(query.as_deref())?.in_query {
        Some(id) => vec![shared.control.agent(who.tenant, &id)?],
        None => shared.control.agents(who.tenant),
    };
    Ok(listed(agents.iter().map(|agent| shown(agent)).collect(), None))
}

/// `POST /api/agents`
pub(super) async fn add(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, ids, spec) = read(&shared, request).await?;
    ids.none_of_new("an agent")?;
    let agent = shared.control.add_agent(who.tenant, spec).await?;
    Ok(done(shown(&agent), "Agent added"))
}

/// `PUT /api/agents`
pub(super) async fn change(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, ids, spec) = read(&shared, request).await?;
    let agent = shared.control.change_agent(who.tenant, &ids.one()?, spec).await?;
    Ok(done(shown(&agent), "Agent changed"))
}

/// `DELETE /api/agents?id=`
pub(super) async fn remove(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let id = Ids::of_query(query.as_deref())?.one()?;
    shared.control.remove_agent(who.tenant, &id).await?;
    Ok(told("Agent deleted"))
}

async fn read(shared: &Shared, request: Request) -> Result<(Identity, Ids, AgentSpec), Failure> {
    let ids = Ids::of_query(request.uri().query())?;
    let (who, fields) = body::object(shared, request).await?;
    let Typed { value: body, fields } = body::typed::<AgentBody>(fields)?;
    let (in_body, name) = (body.id.clone().filter(|id| !id.is_empty()), body.name.clone());
    let Ok(Value::Object(mut settings)) = serde_json::to_value(body) else {
        return Err(Fault::internal("an agent's body is no object").into());
    };
    // What was left out stays as it is; what is null goes back to its default.
    settings.retain(|key, _| fields.contains_key(key));
    for other in ["id", "name"] {
        settings.remove(other);
    }
    Ok((who, Ids { in_body, ..ids }, AgentSpec { name, settings }))
}

/// Settings that are shown as they were set.
const CONVERSATION: &[&str] = &[
    "realtime",
    "realtime_fallback",
    "stt_fallback",
    "tts_fallback",
    "extract_after",
    "llm_fallback",
    "tools",
    "transfers",
    "http_tools",
    "endpoint_after",
    "endpoint_timeout",
    "interrupt_words",
    "resume_after",
    "protect_greeting",
    "silence_after",
    "silence_prompts",
    "silence_hang_up",
    "thinking_after",
    "thinking_prompt",
    "apology",
    "cache_ttl",
    "history_turns",
];

fn shown(agent: &Agent) -> ShownAgent {
    let (row, profile) = (&agent.row, agent.profile.as_deref());
    let kept = |key: &str| row.settings.get(key).cloned().unwrap_or_default();
    let text = |key: &str| kept(key).as_str().map(str::to_owned);
    let is = |value: Option<&String>, key: &str| value.cloned().or_else(|| text(key)).unwrap_or_default();
    ShownAgent {
        id: row.id.to_string(),
        name: row.name.clone(),
        kind: is(profile.map(|p| p.kind.as_str().to_owned()).as_ref(), "kind"),
        greeting: is(profile.map(|p| &p.greeting), "greeting"),
        language: is(profile.map(|p| &p.language), "language"),
        voice: is(profile.map(|p| &p.voice), "voice"),
        stt: is(profile.map(|p| &p.stt), "stt"),
        tts: is(profile.map(|p| &p.tts), "tts"),
        barge_in_after: show_duration(profile.and_then(|p| p.barge_in_after).unwrap_or_default()),
        recording: profile.is_some_and(|p| p.record),
        recording_format: Format::choice(profile.and_then(|p| p.record_format)),
        free_speech: profile.is_some_and(|p| p.free_speech),
        rules: kept("rules"),
        fallback: kept("fallback"),
        prompt: text("prompt"),
        llm: text("llm"),
        conversation: CONVERSATION
            .iter()
            .filter_map(|key| Some((camel_case(key), row.settings.get(*key)?.clone())))
            .collect(),
        extraction_schema: kept("extraction_schema"),
        webhook_url: text("webhook_url"),
        min_messages_to_keep: profile.map_or(0, |p| p.min_messages_to_keep),
        keys: profile.map_or_else(Vec::new, |p| p.keys.services().map(str::to_owned).collect()),
        source: row.source.as_str(),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}
