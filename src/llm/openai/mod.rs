//! Chat completions as OpenAI speaks them, and as local servers and gateways copy them: `POST /chat/completions`, streamed.

mod proto;

use super::{Account, Descriptor, Dialect, Prompt, Reader};
use crate::{
    base::{secret::Secret, settings::Section},
    net::client::ApiRequest,
};
use std::sync::Arc;

/// This service.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "openai",
    read: |section| Arc::new(OpenAi::read(section)),
};

/// `[llm.openai]`.
#[derive(Clone, Debug)]
pub struct OpenAi {
    account: Account,
    /// What the bound of an answer is called: local servers know only the older name.
    max_tokens_field: &'static str,
    /// Whether the place asks for no key, as a local server does not.
    keyless: bool,
}

impl OpenAi {
    fn read(section: &Section<'_>) -> Self {
        let fields = ["max_completion_tokens", "max_tokens"].map(|f| (f, f));
        let base = "https://api.openai.com/v1";
        let account = Account::read(section, base, "gpt-4o-mini");
        Self {
            keyless: account.base_url != base,
            account,
            max_tokens_field: section.choice("max_tokens_field", fields[0].1, &fields),
        }
    }
}

impl Dialect for OpenAi {
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

    fn needs_key(&self) -> bool {
        !self.keyless
    }

    fn request(&self, prompt: &Prompt, model: &str) -> ApiRequest {
        proto::request(&self.account, self.max_tokens_field, prompt, model)
    }

    fn reader(&self, _prompt: &Prompt) -> Box<dyn Reader> {
        Box::new(proto::Stream::default())
    }
}
