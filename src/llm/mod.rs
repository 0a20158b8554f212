//! The wits of agents: what to answer to what was heard. The conversation around an answer is `agent`'s.
//!
//! A service is a folder with the pure half of its protocol (a [`Dialect`]: request out, events in) and one line in
//! [`SERVICES`]; one driver speaks for all of them. Rules (`scripted`) are a [`Chat`] too, and need nobody.

pub mod anthropic;
mod config;
pub mod extract;
pub mod gemini;
pub mod openai;
mod remote;
pub mod scripted;
mod sse;

pub use config::{Account, Config};
pub use remote::Remote;

use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        keyring::Keyring,
        secret::Secret,
        settings::Section,
    },
    net::client::{ApiRequest, HttpClient},
};
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

/// Every service. Configuration, metrics labels and tests iterate it.
pub static SERVICES: &[&Descriptor] = &[&anthropic::DESCRIPTOR, &openai::DESCRIPTOR, &gemini::DESCRIPTOR];

/// The name of the rules that need no service.
pub const SCRIPTED: &str = "scripted";

/// What a service is called and how it is configured.
pub struct Descriptor {
    /// Lower-case name: configuration section, metrics label.
    pub name: &'static str,
    /// Reads its section. Does no I/O.
    pub read: fn(&Section<'_>) -> Arc<dyn Dialect>,
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Who the model is and how it is to answer; may be empty.
    pub system: String,
    /// What was said so far, oldest first. Ends with what is to be answered.
    pub turns: Vec<Turn>,
    /// What the model may do beside talking.
    pub tools: Vec<Tool>,
    /// The JSON schema of the answer, where it is to be data and not talk. The answer is one [`Piece::Text`] of JSON.
    pub schema: Option<Value>,
    /// Another model than the configured one.
    pub model: Option<String>,
}

/// One step of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// The caller's words.
    User(String),
    /// The model's words, and what it asked to be done.
    Assistant {
        /// The words; may be empty beside calls.
        text: String,
        /// The calls.
        calls: Vec<ToolCall>,
    },
    /// What came of a call.
    Result {
        /// Whose.
        call: ToolCall,
        /// What the model is told.
        content: String,
    },
}

impl Turn {
    /// Words of the model alone.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant {
            text: text.into(),
            calls: Vec::new(),
        }
    }
}

/// Something that the model may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// When to use it, for the model.
    pub description: String,
    /// JSON schema of its arguments: an object.
    pub parameters: Value,
}

/// The model wants something done.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The service's id of it; empty where it gives none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// An object.
    pub arguments: Value,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// More words.
    Text(String),
    /// Something to be done.
    Call(ToolCall),
    /// The answer is complete; nothing follows.
    End {
        /// Why it ended.
        stop: Stop,
        /// What it used.
        usage: Usage,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// All was said.
    #[default]
    Said,
    /// It reached the longest answer.
    Length,
    /// It waits for what comes of its calls.
    Calls,
    /// The service would not answer this.
    Declined,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input += other.input;
        self.output += other.output;
    }
}

/// An answer as it comes. Dropping it stops the service.
pub type Answer = BoxStream<'static, Result<Piece, ChatError>>;

/// Somebody who answers.
pub trait Chat: fmt::Debug + Send + Sync {
    /// The service's name, for records, rates and metrics.
    fn service(&self) -> &'static str;

    /// The model that answers.
    fn model(&self) -> String;

    /// Whether it can be asked at all: a key is there.
    fn ready(&self) -> Result<(), ChatError>;

    /// Asks. The answer ends with [`Piece::End`] or an error.
    fn ask(&self, prompt: Prompt) -> Answer;
}

/// A service's protocol: pure, one for the daemon. `Debug` shows its configuration without the key.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// The service's name.
    fn service(&self) -> &'static str;

    /// Key, place, model, times.
    fn account(&self) -> &Account;

    /// The same with another key.
    fn with_key(&self, key: &Secret) -> Arc<dyn Dialect>;

    /// Whether it works without a key.
    fn needs_key(&self) -> bool {
        true
    }

    /// The request.
    fn request(&self, prompt: &Prompt, model: &str) -> ApiRequest;

    /// Reads one answer.
    fn reader(&self, prompt: &Prompt) -> Box<dyn Reader>;
}

/// Reads the events of one answer.
pub trait Reader: Send {
    /// An event's data.
    fn event(&mut self, data: &str, out: &mut VecDeque<Piece>) -> Result<(), ChatError>;

    /// The stream ended in order; gives [`Piece::End`] unless it was given, or says what is missing.
    fn finish(&mut self, out: &mut VecDeque<Piece>) -> Result<(), ChatError>;
}

/// Why there is no answer, or no more of it. Texts are safe to log and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatError {
    /// There is no key, or no such service: the configuration has to change.
    NotConfigured(String),
    /// The service does not take the key.
    Unauthenticated,
    /// The account has no credit left.
    NoCredit,
    /// Too many requests.
    TooMany {
        /// How long to wait, where the service says.
        retry_after: Option<Duration>,
    },
    /// The service does not take the request: no such model, too long, not allowed.
    Refused(String),
    /// The service is away or overloaded.
    Unavailable(String),
    /// It took too long, to begin or to go on.
    Timeout(&'static str),
    /// What came cannot be read.
    Garbled(&'static str),
}

impl ChatError {
    /// The word for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotConfigured(_) => "llm_not_configured",
            Self::Unauthenticated => "llm_unauthenticated",
            Self::NoCredit => "llm_no_credit",
            Self::TooMany { .. } => "llm_too_many",
            Self::Refused(_) => "llm_refused",
            Self::Unavailable(_) => "llm_unavailable",
            Self::Timeout(_) => "llm_timeout",
            Self::Garbled(_) => "llm_garbled",
        }
    }

    /// The same, classified for whoever asked us.
    pub fn fault(self) -> Fault {
        let kind = match self {
            Self::TooMany { .. } => Kind::TooMany,
            Self::NotConfigured(_) | Self::Unavailable(_) => Kind::Unavailable,
            Self::Timeout(_) => Kind::Timeout,
            _ => Kind::BadGateway,
        };
        Fault::new(Origin::Backend, kind, self.to_string())
    }

    /// Whether the same request may be answered a moment later.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::TooMany { .. } | Self::Unavailable(_) | Self::Timeout(_) | Self::Garbled(_)
        )
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured(what) => f.write_str(what),
            Self::Unauthenticated => f.write_str("the language model's service does not take the key"),
            Self::NoCredit => f.write_str("the account with the language model's service has no credit left"),
            Self::TooMany { retry_after: None } => f.write_str("too many requests to the language model's service"),
            Self::TooMany { retry_after: Some(d) } => write!(
                f,
                "too many requests to the language model's service: again in {} s",
                d.as_secs()
            ),
            Self::Refused(what) => write!(f, "the language model's service refused the request: {what}"),
            Self::Unavailable(what) => write!(f, "the language model's service is away: {what}"),
            Self::Timeout(what) => write!(f, "the language model was too slow: {what}"),
            Self::Garbled(what) => write!(f, "the language model's answer cannot be read: {what}"),
        }
    }
}

impl std::error::Error for ChatError {}

/// The configured services, ready to be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Llm {
    dialects: Arc<[Arc<dyn Dialect>]>,
    http: HttpClient,
    default: &'static str,
    prompt: Arc<str>,
    scripted_reply: Arc<str>,
}

impl Llm {
    /// The services of a configuration, reached through `http`.
    pub fn new(config: &Config, http: &HttpClient) -> Self {
        Self {
            dialects: config.services.clone().into(),
            http: http.clone(),
            default: config.default,
            prompt: config.prompt.as_str().into(),
            scripted_reply: config.scripted_reply.as_str().into(),
        }
    }

    /// The service of that name, with the key that goes before the operator's, if there is one.
    pub fn service(&self, name: &str, keys: &Keyring) -> Option<Arc<dyn Chat>> {
        let dialect = self.dialects.iter().find(|d| d.service() == name)?;
        let dialect = match keys.get(name) {
            Some(key) => dialect.with_key(key),
            None => dialect.clone(),
        };
        Some(Arc::new(Remote::new(dialect, self.http.clone())))
    }

    /// What a model is told about itself where nobody says anything else.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The name of the one that answers where none is named; [`SCRIPTED`] is none of the services.
    pub const fn default_name(&self) -> &'static str {
        self.default
    }

    /// The one that answers where none is named; `None` where rules do.
    pub fn default(&self, keys: &Keyring) -> Option<Arc<dyn Chat>> {
        self.service(self.default, keys)
    }

    /// Rules in the place of a model, with an answer to what none of them knows.
    pub fn rules(&self, script: &scripted::Script) -> Arc<dyn Chat> {
        Arc::new(scripted::Rules(Arc::new(script.or_reply(&self.scripted_reply))))
    }
}

/// `service` or `service/model`, as agents name what they think with.
pub fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('/') {
        Some((service, model)) => (service, Some(model)),
        None => (name, None),
    }
}

/// Whether there is a service of that name, or it is the rules.
pub fn is_known(name: &str) -> bool {
    let (service, model) = split(name);
    let named = SERVICES.iter().any(|d| d.name == service) && model != Some("");
    named || name == SCRIPTED
}

/// What agents may name.
pub fn names() -> String {
    let services: Vec<_> = SERVICES.iter().map(|d| d.name).collect();
    format!(
        "{SCRIPTED}, {} (with /MODEL after it for another model)",
        services.join(", ")
    )
}

#[cfg(test)]
pub(crate) mod tests;
