//! Who answers a call: an agent's configuration, and the pure conversation between what was heard and what to say or do.
//!
//! Knows nothing of calls, sockets or the record; `control::talk` owns a [`turn::Turn`] per call and performs what it asks for.

use crate::{
    base::{keyring::Keyring, settings::Section},
    llm::{
        Chat, Llm,
        scripted::{Rules, Script},
    },
    record::Format,
    speech::{
        EarSpec, MouthSpec,
        duplex::{self as duplex_service, DuplexSpec},
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub mod act;
pub mod cache;
pub mod duplex;
pub mod mind;
pub mod pipeline;
pub mod sentence;
pub mod turn;
mod wits;

pub use wits::{MAX_PROMPT, WebTool, Wits};

/// How an agent deals with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller hears themself.
    Echo,
    /// Nobody answers: the caller is transcribed.
    Listen,
    /// A person types or speaks at a frontend.
    Human,
    /// Rules answer.
    Scripted,
    /// A language model answers, or rules in its place.
    Pipeline,
    /// A service hears and answers by itself, speech to speech.
    Realtime,
}

impl Kind {
    /// The kinds by their words.
    pub const WORDS: [(&str, Self); 6] = [
        ("echo", Self::Echo),
        ("listen", Self::Listen),
        ("human", Self::Human),
        ("scripted", Self::Scripted),
        ("pipeline", Self::Pipeline),
        ("realtime", Self::Realtime),
    ];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }

    /// Whether the agent can say something to the caller.
    pub const fn speaks(self) -> bool {
        matches!(self, Self::Human | Self::Scripted | Self::Pipeline | Self::Realtime)
    }

    /// Whether the caller is transcribed.
    pub const fn hears(self) -> bool {
        !matches!(self, Self::Echo)
    }
}

/// One agent as configured.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name: `agent` of a call's record, `sender_name` of its messages.
    pub name: String,
    /// How it deals with a call.
    pub kind: Kind,
    /// Said when the caller can hear it; empty says nothing.
    pub greeting: String,
    /// BCP 47, or `auto`: what it hears and speaks.
    pub language: String,
    /// Voice as the synthesizer names it; empty chooses by language.
    pub voice: String,
    /// Recogniser's name.
    pub stt: String,
    /// Synthesizer's name.
    pub tts: String,
    /// The recogniser that takes over where that one fails; empty is none.
    pub stt_fallback: String,
    /// The synthesizer that speaks where that one fails; empty is none.
    pub tts_fallback: String,
    /// The service that holds the conversation (`realtime`), perhaps with `/MODEL`.
    pub realtime: String,
    /// The service that takes over where that one fails; empty is none.
    pub realtime_fallback: String,
    /// Playout is cut when the caller has spoken this long over it; `None` lets it play.
    pub barge_in_after: Option<Duration>,
    /// Whether its calls are recorded.
    pub record: bool,
    /// How, where that is not as `[record]` has it.
    pub record_format: Option<Format>,
    /// Whether speech outside the phrases is transcribed too.
    pub free_speech: bool,
    /// Its rules (`scripted`, or `pipeline` with rules for a model).
    pub script: Arc<Script>,
    /// What it thinks with, and how it behaves (`pipeline`, `realtime`).
    pub wits: Arc<Wits>,
    /// The JSON schema of the data that is read out of its calls.
    pub schema: Option<Arc<Value>>,
    /// How long after the caller's words it is read from the conversation so far; zero reads it at the end alone.
    pub extract_after: Duration,
    /// Who is told of its calls, where that is not the configured one.
    pub webhook_url: Option<String>,
    /// Calls with fewer messages leave no files.
    pub min_messages_to_keep: usize,
    /// Keys of services that go before the operator's.
    pub keys: Keyring,
}

impl Profile {
    /// An agent with the defaults of its kind.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            greeting: String::new(),
            language: "en-US".to_owned(),
            voice: String::new(),
            stt: "pocketsphinx".to_owned(),
            tts: "espeak".to_owned(),
            stt_fallback: String::new(),
            tts_fallback: String::new(),
            realtime: "openai".to_owned(),
            realtime_fallback: String::new(),
            barge_in_after: kind.speaks().then_some(Duration::from_millis(200)),
            record: false,
            record_format: None,
            free_speech: matches!(kind, Kind::Listen | Kind::Human),
            script: Arc::default(),
            wits: Arc::default(),
            schema: None,
            extract_after: Duration::from_secs(1),
            webhook_url: None,
            min_messages_to_keep: 0,
            keys: Keyring::default(),
        }
    }

    /// Reads an agent's section.
    pub fn read(name: &str, section: &Section<'_>) -> Self {
        let built_in = Kind::WORDS.iter().find(|(w, _)| *w == name).map(|(_, k)| *k);
        let kind = section.choice("kind", built_in.unwrap_or(Kind::Scripted), &Kind::WORDS);
        let base = Self::new(name, kind);
        let barge_in = section.duration(
            "barge_in_after",
            base.barge_in_after.unwrap_or_default(),
            Duration::ZERO..=Duration::from_secs(5),
        );
        let wits = Wits::read(section);
        let free_speech = base.free_speech || (kind == Kind::Pipeline && !wits.is_scripted());
        let profile = Self {
            greeting: section.text("greeting", "").trim().to_owned(),
            language: section.text("language", &base.language),
            voice: section.text("voice", ""),
            stt: section.text("stt", &base.stt),
            tts: section.text("tts", &base.tts),
            stt_fallback: section.text("stt_fallback", ""),
            tts_fallback: section.text("tts_fallback", ""),
            realtime: section.text("realtime", &base.realtime),
            realtime_fallback: section.text("realtime_fallback", ""),
            barge_in_after: (kind.speaks() && !barge_in.is_zero()).then_some(barge_in),
            record: section.bool("record", false),
            record_format: section.choice("record_format", None, &Format::CHOICES),
            free_speech: section.bool("free_speech", free_speech),
            script: Arc::new(Script::read(section)),
            wits: Arc::new(wits),
            schema: read_schema(section).map(Arc::new),
            extract_after: section.duration(
                "extract_after",
                base.extract_after,
                Duration::ZERO..=Duration::from_secs(60),
            ),
            webhook_url: read_webhook(section),
            min_messages_to_keep: section.int("min_messages_to_keep", 0, 0..=1000),
            ..base
        };
        profile.check(section);
        profile
    }

    fn check(&self, section: &Section<'_>) {
        let scripted = self.has_rules();
        if scripted && self.script.is_empty() {
            section.fault(
                "rules",
                "a scripted agent needs rules",
                "write [[agents.NAME.rules]] with phrases and a reply",
            );
        }
        if !scripted && (!self.script.is_empty() || self.script.fallback().is_some()) {
            section.fault(
                "rules",
                "only a scripted agent has rules",
                "set kind = \"scripted\", or llm = \"scripted\" of a pipeline",
            );
        }
        if self.kind == Kind::Realtime && self.wits.interrupt_words > 0 {
            section.fault(
                "interrupt_words",
                "a realtime agent is interrupted by speech, not by words",
                "leave it out; barge_in_after = \"0s\" lets it finish",
            );
        }
        if !self.kind.speaks() && !self.greeting.is_empty() {
            section.fault(
                "greeting",
                "this kind of agent has no voice",
                "use kind human, scripted, pipeline or realtime, or leave it out",
            );
        }
    }

    /// Whether rules answer.
    pub fn has_rules(&self) -> bool {
        self.kind == Kind::Scripted || (self.kind == Kind::Pipeline && self.wits.is_scripted())
    }

    /// How much speech over the agent cuts playout at once; `None` leaves that to words, or lets it play.
    pub fn onset(&self) -> Option<Duration> {
        let by_words = self.kind == Kind::Pipeline && self.wits.interrupt_words > 0;
        self.barge_in_after.filter(|_| !by_words)
    }

    /// Who answers (`pipeline`): the first choice, or the fallback.
    pub fn chat(&self, llm: &Llm, fallback: bool) -> Option<Arc<dyn Chat>> {
        let name = match fallback {
            true => self.wits.llm_fallback.as_deref()?,
            false => &self.wits.llm,
        };
        match crate::llm::split(name).0 {
            crate::llm::SCRIPTED => Some(Arc::new(Rules(self.script.clone()))),
            service => llm.service(service, &self.keys),
        }
    }

    /// Who reads the data out of its calls, and with which model: who answers, or where rules do the configured model.
    pub fn reader(&self, llm: &Llm) -> Option<(Arc<dyn Chat>, Option<String>)> {
        let (service, model) = crate::llm::split(&self.wits.llm);
        let own = llm.service(service, &self.keys);
        own.map(|chat| (chat, model.map(str::to_owned)))
            .or_else(|| Some((llm.default(&self.keys)?, None)))
    }

    /// What its ear listens with, if it hears. Whoever opens it says whose call it is.
    pub fn ear(&self) -> Option<EarSpec> {
        self.kind.hears().then(|| EarSpec {
            backend: self.stt.clone(),
            fallback: self.stt_fallback.clone(),
            language: self.language.clone(),
            phrases: self.script.phrases(),
            free_speech: self.free_speech,
            keys: self.keys.clone(),
            ..EarSpec::default()
        })
    }

    /// What its mouth speaks with, if it speaks. Of a service that speaks itself, that is what people type.
    pub fn mouth(&self) -> Option<MouthSpec> {
        let voice = match self.kind {
            Kind::Realtime => String::new(),
            _ => self.voice.clone(),
        };
        self.kind.speaks().then(|| MouthSpec {
            backend: self.tts.clone(),
            fallback: self.tts_fallback.clone(),
            voice,
            language: self.language.clone(),
            keys: self.keys.clone(),
        })
    }

    /// The service that holds its conversations and its model, where one does.
    pub fn service(&self) -> Option<(&str, Option<&str>)> {
        let (name, model) = match self.realtime.split_once('/') {
            Some((name, model)) => (name, Some(model)),
            None => (self.realtime.as_str(), None),
        };
        (self.kind == Kind::Realtime).then_some((name, model))
    }

    /// What its conversations are held with, where a service holds them.
    pub fn duplex(&self) -> Option<DuplexSpec> {
        let (backend, model) = self.service()?;
        let tools = self.wits.tools().into_iter().map(|tool| duplex_service::Tool {
            name: tool.name,
            description: tool.description,
            parameters: tool.parameters,
        });
        Some(DuplexSpec {
            backend: backend.to_owned(),
            fallback: self.realtime_fallback.clone(),
            model: model.map(str::to_owned),
            voice: self.voice.clone(),
            language: self.language.clone(),
            keys: self.keys.clone(),
            instructions: duplex::instructions(self),
            tools: tools.collect(),
            interruptible: self.barge_in_after.is_some() && !self.wits.protect_greeting,
            ..DuplexSpec::default()
        })
    }
}

fn read_schema(section: &Section<'_>) -> Option<Value> {
    let text = section.text_opt("extraction_schema").filter(|t| !t.is_empty())?;
    let schema = serde_json::from_str::<Value>(&text)
        .ok()
        .filter(|s| s["properties"].is_object());
    if schema.is_none() {
        section.fault(
            "extraction_schema",
            "this is no JSON schema of an object",
            r#"such as {"type":"object","properties":{"name":{"type":"string"}}}"#,
        );
    }
    schema
}

fn read_webhook(section: &Section<'_>) -> Option<String> {
    let url = section.text_opt("webhook_url").filter(|u| !u.is_empty())?;
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        section.fault("webhook_url", format!("{url:?} is no URL"), "https://…");
    }
    Some(url)
}

/// All agents by name. `echo`, `listen` and `human` are always there.
#[derive(Clone, Debug)]
pub struct Config {
    profiles: BTreeMap<String, Arc<Profile>>,
}

impl Default for Config {
    fn default() -> Self {
        let built_in = [("echo", Kind::Echo), ("listen", Kind::Listen), ("human", Kind::Human)];
        Self {
            profiles: built_in
                .into_iter()
                .map(|(n, k)| (n.to_owned(), Arc::new(Profile::new(n, k))))
                .collect(),
        }
    }
}

impl Config {
    /// Reads `[agents.NAME]` tables.
    pub fn read(agents: &Section<'_>) -> Self {
        let mut config = Self::default();
        for (name, section) in agents.named() {
            let profile = Profile::read(&name, &section);
            section.finish();
            config.insert(profile);
        }
        config
    }

    /// Adds or replaces an agent.
    pub fn insert(&mut self, profile: Profile) {
        self.profiles.insert(profile.name.clone(), Arc::new(profile));
    }

    /// The agent of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    fn table(pairs: Vec<(&str, Value)>) -> Table {
        let item = |value| Item {
            value,
            place: Place::Line(7),
        };
        pairs.into_iter().map(|(k, v)| (k.to_owned(), item(v))).collect()
    }

    fn read(pairs: Vec<(&str, Value)>) -> (Config, Vec<String>) {
        let agents = table(vec![("desk", Value::Table(table(pairs)))]);
        let faults = Faults::default();
        let config = Config::read(&Section::root(&agents, &faults));
        (config, faults.take().iter().map(ToString::to_string).collect())
    }

    fn text(t: &str) -> Value {
        Value::String(t.into())
    }

    #[test]
    fn the_built_in_agents_are_always_there() {
        let (config, faults) = read(vec![("kind", text("human")), ("greeting", text(" Hello. "))]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(config.names().collect::<Vec<_>>(), ["desk", "echo", "human", "listen"]);
        let desk = config.get("desk").unwrap();
        assert_eq!((desk.kind, desk.greeting.as_str()), (Kind::Human, "Hello."));
        assert_eq!(desk.barge_in_after, Some(Duration::from_millis(200)));
        assert!(config.get("echo").unwrap().ear().is_none() && config.get("listen").unwrap().mouth().is_none());
        assert!(config.get("listen").unwrap().ear().is_some_and(|e| e.free_speech));
    }

    #[test]
    fn zero_means_no_barge_in() {
        let (config, _) = read(vec![("kind", text("human")), ("barge_in_after", text("0ms"))]);
        assert_eq!(config.get("desk").unwrap().barge_in_after, None);
    }

    #[test]
    fn what_cannot_work_is_a_fault_with_a_hint() {
        for (pairs, part) in [
            (
                vec![("kind", text("robot"))],
                "one of echo, listen, human, scripted, pipeline, realtime",
            ),
            (vec![("kind", text("scripted"))], "a scripted agent needs rules"),
            (vec![("kind", text("echo")), ("greeting", text("Hi"))], "no voice"),
            (
                vec![("kind", text("human")), ("gretting", text("Hi"))],
                "did you mean greeting",
            ),
            (
                vec![
                    ("kind", text("human")),
                    ("fallback", Value::Table(table(vec![("reply", text("x"))]))),
                ],
                "only a scripted agent",
            ),
        ] {
            let (_, faults) = read(pairs);
            assert!(faults.iter().any(|f| f.contains(part)), "{part}: {faults:?}");
        }
    }
}
