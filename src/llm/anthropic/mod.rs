//! Anthropic's Messages API: `POST /v1/messages`, streamed.

mod proto;

use super::{Account, Descriptor, Dialect, Prompt, Reader};
use crate::{
    base::{secret::Secret, settings::Section},
    net::client::ApiRequest,
};
use std::sync::Arc;

/// This service.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "anthropic",
    read: |section| Arc::new(Anthropic::read(section)),
};

/// `[llm.anthropic]`.
#[derive(Clone, Debug)]
pub struct Anthropic {
    account: Account,
    /// The `anthropic-version` header.
    version: String,
}

impl Anthropic {
    fn read(section: &Section<'_>) -> Self {
        let version = section.text("version", "2023-06-01");
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            section.fault(
                "version",
                format!("{version:?} is no version"),
                "a date, such as 2023-06-01",
            );
        }
        Self {
            account: Account::read(section, "https://api.anthropic.com", "claude-haiku-4-5"),
            version,
        }
    }
}

impl Dialect for Anthropic {
    fn service(&self) -> &'static str {
        DESCRIPTOR.name
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn with_key(&self, key: &Secret) -> Arc<dyn Dialect> {
        Arc::new(Self {
            account: self.account.with_key(key),
            ..self.clone()
        })
    }

    fn request(&self, prompt: &Prompt, model: &str) -> ApiRequest {
        proto::request(&self.account, &self.version, prompt, model)
    }

    fn reader(&self, prompt: &Prompt) -> Box<dyn Reader> {
        Box::new(proto::Stream::new(prompt.schema.is_some()))
    }
}
