//! What a `pipeline` agent thinks with, and how it behaves in a conversation.

use crate::{
    base::{phone::is_e164, settings::Section},
    llm::{self, Tool},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// Longest prompt, in bytes.
pub const MAX_PROMPT: usize = 32 * 1024;
/// Tools of one agent.
const MAX_TOOLS: usize = 32;

/// What the model may do besides asking the web.
const DEEDS: &[&str] = &["hang_up", "handoff", "transfer", "send_digits"];

/// The settings of a mind that asks a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Wits {
    /// What the agent is told about itself.
    pub prompt: String,
    /// `scripted`, or a service of `[llm]`, perhaps with `/MODEL`.
    pub llm: String,
    /// Asked when that one fails before it has said anything.
    pub llm_fallback: Option<String>,
    /// What it may do: of `hang_up`, `handoff`, `transfer`, `send_digits`.
    pub deeds: Vec<String>,
    /// Numbers that it may hand calls to.
    pub transfers: Vec<String>,
    /// What it may ask the web, by name.
    pub web: BTreeMap<String, WebTool>,
    /// How long the caller may pause within what they say, after the recogniser's final.
    pub endpoint_after: Duration,
    /// How long after its last interim a recogniser may owe the final.
    pub endpoint_timeout: Duration,
    /// Words that it takes to interrupt the agent; 0 lets any speech do it.
    pub interrupt_words: u32,
    /// An interruption without words in it is taken back after this long; zero never.
    pub resume_after: Duration,
    /// Whether the greeting is said to its end, whoever talks.
    pub protect_greeting: bool,
    /// How long the caller may be silent before they are asked; zero for ever.
    pub silence_after: Duration,
    /// What they are asked, one after the other.
    pub silence_prompts: Vec<String>,
    /// Whether a caller who stays silent after the last of them is hung up on.
    pub silence_hang_up: bool,
    /// How long the model may take to its first sentence before something is said.
    pub thinking_after: Duration,
    /// What is said then; empty says nothing.
    pub thinking_prompt: String,
    /// Said when no model answers.
    pub apology: String,
    /// How long answers to common questions are kept; zero asks anew each time.
    pub cache_ttl: Duration,
    /// Turns of the conversation that the model is shown.
    pub history_turns: usize,
}

/// Something that the model may ask the web.
#[derive(Clone, Debug, PartialEq)]
pub struct WebTool {
    /// When to use it, for the model.
    pub description: String,
    /// `https` URL. Its host must be on the tenant's list.
    pub url: String,
    /// Whether the arguments are posted as JSON; else they are the query.
    pub post: bool,
    /// JSON schema of the arguments.
    pub parameters: Value,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for Wits {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            llm: llm::SCRIPTED.to_owned(),
            llm_fallback: None,
            deeds: DEEDS.iter().map(|d| (*d).to_owned()).collect(),
            transfers: Vec::new(),
            web: BTreeMap::new(),
            endpoint_after: Duration::ZERO,
            endpoint_timeout: SECOND * 2,
            interrupt_words: 0,
            resume_after: SECOND * 2,
            protect_greeting: false,
            silence_after: SECOND * 10,
            silence_prompts: vec!["Are you still there?".to_owned()],
            silence_hang_up: false,
            thinking_after: SECOND * 3,
            thinking_prompt: String::new(),
            apology: "I am sorry, something went wrong. Could you say that again?".to_owned(),
            cache_ttl: Duration::ZERO,
            history_turns: 40,
        }
    }
}

impl Wits {
    /// Reads them from an agent's section.
    pub fn read(section: &Section<'_>) -> Self {
        let d = Self::default();
        let known = |key: &str, name: &str| {
            if !llm::is_known(name) {
                section.fault(
                    key,
                    format!("no language model {name:?}"),
                    format!("one of {}", llm::names()),
                );
            }
        };
        let llm = section.text("llm", &d.llm);
        known("llm", &llm);
        let llm_fallback = section.text_opt("llm_fallback").filter(|name| !name.is_empty());
        llm_fallback.iter().for_each(|name| known("llm_fallback", name));
        let prompt = section.text("prompt", "");
        if prompt.len() > MAX_PROMPT {
            section.fault(
                "prompt",
                "the prompt is too long",
                format!("text of at most {MAX_PROMPT} bytes"),
            );
        }
        let deeds = section.texts("tools", DEEDS);
        for deed in deeds.iter().filter(|d| !DEEDS.contains(&d.as_str())) {
            section.fault("tools", format!("no tool {deed:?}"), format!("of {}", DEEDS.join(", ")));
        }
        let transfers = section.texts("transfers", &[]);
        for number in transfers.iter().filter(|n| !is_e164(n)) {
            section.fault(
                "transfers",
                format!("{number:?} is no number"),
                "E.164, such as +14155550100",
            );
        }
        let silence_prompts: Vec<_> = d.silence_prompts.iter().map(String::as_str).collect();
        Self {
            prompt,
            llm,
            llm_fallback,
            deeds,
            transfers,
            web: read_web(section),
            endpoint_after: section.duration("endpoint_after", d.endpoint_after, Duration::ZERO..=SECOND * 5),
            endpoint_timeout: section.duration("endpoint_timeout", d.endpoint_timeout, SECOND / 5..=SECOND * 30),
            interrupt_words: section.int("interrupt_words", d.interrupt_words, 0..=20),
            resume_after: section.duration("resume_after", d.resume_after, Duration::ZERO..=SECOND * 10),
            protect_greeting: section.bool("protect_greeting", d.protect_greeting),
            silence_after: section.duration("silence_after", d.silence_after, Duration::ZERO..=SECOND * 600),
            silence_prompts: section.texts("silence_prompts", &silence_prompts),
            silence_hang_up: section.bool("silence_hang_up", d.silence_hang_up),
            thinking_after: section.duration("thinking_after", d.thinking_after, SECOND / 5..=SECOND * 60),
            thinking_prompt: section.text("thinking_prompt", &d.thinking_prompt),
            apology: section.text("apology", &d.apology),
            cache_ttl: section.duration("cache_ttl", d.cache_ttl, Duration::ZERO..=SECOND * 86_400),
            history_turns: section.int("history_turns", d.history_turns, 2..=500),
        }
    }

    /// Whether rules answer, and no service.
    pub fn is_scripted(&self) -> bool {
        self.llm == llm::SCRIPTED
    }

    /// What the model is told it may do.
    pub fn tools(&self) -> Vec<Tool> {
        let none = || json!({ "type": "object", "properties": {} });
        let one = |name: &str, of: Value| json!({ "type": "object", "properties": { name: of }, "required": [name] });
        let deeds = self.deeds.iter().filter_map(|deed| {
            let (description, parameters) = match deed.as_str() {
                "hang_up" => (
                    "End the call, once the caller has heard your goodbye. Say goodbye first.",
                    none(),
                ),
                "handoff" => ("Give the call to a person. Tell the caller first.", none()),
                "transfer" if self.transfers.is_empty() => return None,
                "transfer" => (
                    "Give the call to another phone number. Tell the caller first.",
                    one("to", json!({ "type": "string", "enum": self.transfers })),
                ),
                _ => (
                    "Press keys on the phone, for a machine at the other end.",
                    one("digits", json!({ "type": "string", "pattern": "^[0-9*#]{1,32}$" })),
                ),
            };
            Some(Tool {
                name: deed.clone(),
                description: description.to_owned(),
                parameters,
            })
        });
        let web = self.web.iter().map(|(name, tool)| Tool {
            name: name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
        });
        deeds.chain(web).collect()
    }
}

fn read_web(agent: &Section<'_>) -> BTreeMap<String, WebTool> {
    let mut tools = BTreeMap::new();
    for section in agent.sections("http_tools") {
        let name = section.text("name", "");
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) || DEEDS.contains(&name.as_str()) {
            section.fault(
                "name",
                format!("{name:?} is no name of a tool"),
                "letters, digits, _ and -, at most 64",
            );
        }
        let url = section.text("url", "");
        if !url.starts_with("https://") && !url.starts_with("http://") {
            section.fault("url", format!("{url:?} is no URL"), "https://…");
        }
        let text = section.text("parameters", r#"{"type":"object","properties":{}}"#);
        let parameters = serde_json::from_str(&text).ok().filter(Value::is_object);
        if parameters.is_none() {
            section.fault("parameters", "this is no JSON schema", "a JSON object as text");
        }
        let tool = WebTool {
            description: section.text("description", ""),
            url,
            post: section.choice("method", true, &[("POST", true), ("GET", false)]),
            parameters: parameters.unwrap_or_default(),
            timeout: section.duration("timeout", SECOND * 5, SECOND / 10..=SECOND * 30),
        };
        section.finish();
        if tools.insert(name.clone(), tool).is_some() {
            agent.fault("http_tools", format!("{name} is there twice"), "a name for each");
        }
    }
    if tools.len() > MAX_TOOLS {
        agent.fault("http_tools", "too many tools", format!("at most {MAX_TOOLS}"));
    }
    tools
}
