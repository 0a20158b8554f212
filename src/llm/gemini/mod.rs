//! Google's Gemini API: `POST /models/{model}:streamGenerateContent?alt=sse`.

mod proto;

use super::{Account, Descriptor, Dialect, Prompt, Reader};
use crate::{
    base::{secret::Secret, settings::Section},
    net::client::ApiRequest,
};
use std::sync::Arc;

/// This service.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "gemini",
    read: |section| Arc::new(Gemini::read(section)),
};

/// `[llm.gemini]`.
#[derive(Clone, Debug)]
pub struct Gemini {
    account: Account,
    /// Tokens that the model may think with before it answers; left to the model at −1.
    thinking_budget: i32,
}

impl Gemini {
    fn read(section: &Section<'_>) -> Self {
        Self {
            account: Account::read(
                section,
                "https://generativelanguage.googleapis.com/v1beta",
                "gemini-flash-lite-latest",
            ),
            thinking_budget: section.int("thinking_budget", -1, -1..=100_000),
        }
    }
}

impl Dialect for Gemini {
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
        proto::request(&self.account, self.thinking_budget, prompt, model)
    }

    fn reader(&self, _prompt: &Prompt) -> Box<dyn Reader> {
        Box::new(proto::Stream::default())
    }
}
