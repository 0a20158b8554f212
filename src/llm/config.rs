//! `[llm]`: a section per service.

use super::{Dialect, SCRIPTED, SERVICES};
use crate::{
    base::{
        secret::Secret,
        settings::{Faults, Section},
    },
    net::client::ApiRequest,
};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::Value;
use std::{fmt, sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// What `[llm]` says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The services in the order of their list.
    pub services: Vec<Arc<dyn Dialect>>,
    /// The one that answers where none is named: the first with a key, unless it is told; the rules where none has one.
    pub default: &'static str,
    /// What it is told about itself when it is asked over REST.
    pub prompt: String,
    /// What the rules answer over REST where none of them fits.
    pub scripted_reply: String,
}

const SCRIPTED_REPLY: &str = "I can only answer what my rules know.";
const PROMPT: &str =
    "You help people on the phone. Answer in a sentence or two, in plain words that can be spoken aloud.";

impl Config {
    /// Reads the section.
    pub fn read(section: &Section<'_>) -> Self {
        let services: Vec<_> = SERVICES
            .iter()
            .map(|service| {
                let section = section.section(service.name);
                let dialect = (service.read)(&section);
                section.finish();
                dialect
            })
            .collect();
        let mut words: Vec<_> = SERVICES.iter().map(|s| (s.name, s.name)).collect();
        words.push((SCRIPTED, SCRIPTED));
        // The first one that can be asked, else what needs nobody.
        let keyed = services.iter().find(|s| s.account().api_key.is_some());
        let likely = keyed.map_or(SCRIPTED, |s| s.service());
        Self {
            default: section.choice("default", likely, &words),
            services,
            prompt: section.text("prompt", PROMPT),
            scripted_reply: section.text("scripted_reply", SCRIPTED_REPLY),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Section::empty(&Faults::default()))
    }
}

impl PartialEq for Config {
    /// Two configurations are equal when they print alike: dialects show all of theirs.
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// What every service's section has.
#[derive(Clone)]
pub struct Account {
    /// Proves who we are.
    pub api_key: Option<Secret>,
    /// Where the service is, without a slash at its end.
    pub base_url: String,
    /// The model.
    pub model: String,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// How long the first word may take.
    pub first_token: Duration,
    /// How long the answer may stand still.
    pub idle: Duration,
    /// How long an answer may take in all.
    pub total: Duration,
}

impl Account {
    /// Reads what services have in common.
    pub fn read(section: &Section<'_>, base_url: &str, model: &str) -> Self {
        let base = section.text("base_url", base_url);
        if !(base.starts_with("https://") || base.starts_with("http://")) {
            section.fault("base_url", format!("{base:?} is no URL"), format!("such as {base_url}"));
        }
        let model = section.text("model", model);
        if model.is_empty() || !model.bytes().all(|b| b.is_ascii_graphic() && !b"?#%".contains(&b)) {
            section.fault("model", format!("{model:?} is no model"), "the service's id of it");
        }
        Self {
            api_key: section.secret("api_key"),
            base_url: base.trim_end_matches('/').to_owned(),
            model,
            max_tokens: section.int("max_tokens", 400, 1..=100_000),
            first_token: section.duration("first_token_timeout", SECOND * 8, SECOND / 10..=SECOND * 120),
            idle: section.duration("idle_timeout", SECOND * 10, SECOND / 10..=SECOND * 120),
            total: section.duration("timeout", SECOND * 60, SECOND..=SECOND * 600),
        }
    }

    /// The same with another key.
    pub fn with_key(&self, key: &Secret) -> Self {
        Self {
            api_key: Some(key.clone()),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("has_key", &self.api_key.is_some())
            .field("base_url", &self.base_url)
            .field("model", &self.model)
            .field("max_tokens", &self.max_tokens)
            .field("times", &(self.first_token, self.idle, self.total))
            .finish()
    }
}

/// A request to a service: JSON, its credentials marked sensitive.
pub(super) fn post(
    account: &Account,
    path: &str,
    headers: impl IntoIterator<Item = (&'static str, String)>,
    body: &Value,
) -> ApiRequest {
    let mut all = HeaderMap::new();
    all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, text) in headers {
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            all.insert(name, value);
        }
    }
    ApiRequest {
        method: Method::POST,
        url: format!("{}{path}", account.base_url),
        headers: all,
        body: body.to_string().into(),
        timeout: account.total,
    }
}
