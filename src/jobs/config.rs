//! `[after_call]`, `[retention]` and `[cost]`: where files go, who is told, how long is tried, how long is kept, what things cost.

use super::retention::{KEPT_HINT, read_kept};
use crate::{
    base::{secret::Secret, settings::Section},
    store::Retention,
};
use std::{path::PathBuf, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// What is done after calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where transcripts lie.
    pub transcripts: PathBuf,
    /// Where call files lie.
    pub calls: PathBuf,
    /// Who is told.
    pub webhook: Webhook,
    /// How long a job is tried before it is buried.
    pub retry_for: Duration,
    /// How long an attempt may take; after that the job is anybody's.
    pub lease: Duration,
    /// How long the calls of a tenant without a rule of its own are kept.
    pub retention: Retention,
    /// How often calls that are too old are looked for.
    pub retention_every: Duration,
    /// The currency of the rates.
    pub currency: String,
    /// What things cost.
    pub rates: Vec<Rate>,
}

/// The post-call webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where; agents may name their own.
    pub url: Option<String>,
    /// What it is signed with.
    pub secret: Option<Secret>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// One price.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// `vendor.NAME` and `stt.NAME` (a minute), `tts.NAME` (a thousand characters), `llm.NAME.input` and `llm.NAME.output`
    /// (a million tokens).
    pub of: String,
    /// In the currency.
    pub price: f64,
}

impl Config {
    /// Reads the sections below the root.
    pub fn read(root: &Section<'_>) -> Self {
        let section = root.section("after_call");
        let url = section.text_opt("webhook_url").filter(|u| !u.is_empty());
        if let Some(url) = url.as_deref().filter(|u| !is_url(u)) {
            section.fault("webhook_url", format!("{url:?} is no URL"), "https://…");
        }
        let config = Self {
            transcripts: section.path("transcripts", "transcripts"),
            calls: section.path("calls", "calls"),
            webhook: Webhook {
                secret: section.secret("webhook_secret"),
                timeout: section.duration("webhook_timeout", SECOND * 10, SECOND / 10..=SECOND * 60),
                url,
            },
            retry_for: section.duration("retry_for", DAY, SECOND..=DAY * 30),
            lease: section.duration("lease", SECOND * 120, SECOND..=SECOND * 3600),
            retention: Retention::default(),
            retention_every: Duration::ZERO,
            currency: String::new(),
            rates: Vec::new(),
        };
        if config.webhook.url.is_some() && config.webhook.secret.is_none() {
            let hint = "`openssl rand -base64 32`, given to the receiver too";
            section.fault("webhook_secret", "webhooks are signed", hint);
        }
        section.finish();
        let section = root.section("retention");
        let config = Self {
            retention: Retention {
                audio: kept(&section, "audio"),
                text: kept(&section, "text"),
            },
            retention_every: section.duration("look_every", SECOND * 600, SECOND..=DAY),
            ..config
        };
        section.finish();
        let section = root.section("cost");
        let currency = section.text("currency", "USD");
        let rates = section.sections("rates").into_iter().map(|rate| {
            let of = rate.text("of", "");
            let parts: Vec<_> = of.split('.').collect();
            let known = match parts[..] {
                ["vendor" | "stt" | "tts", name] => !name.is_empty(),
                ["llm", name, "input" | "output"] => !name.is_empty(),
                _ => false,
            };
            if !known {
                let hint = "vendor.NAME, stt.NAME, tts.NAME, llm.NAME.input, llm.NAME.output";
                rate.fault("of", format!("{of:?} has no price"), hint);
            }
            let price = rate.float("price", 0.0, 0.0..=1e6);
            rate.finish();
            Rate { of, price }
        });
        let config = Self {
            rates: rates.collect(),
            currency,
            ..config
        };
        section.finish();
        config
    }

    /// The price of something.
    pub(super) fn price(&self, of: &str) -> f64 {
        self.rates.iter().rev().find(|r| r.of == of).map_or(0.0, |r| r.price)
    }
}

fn kept(section: &Section<'_>, key: &str) -> Option<Duration> {
    let text = section.text(key, "forever");
    read_kept(&text).unwrap_or_else(|| {
        section.fault(key, format!("{text:?} is no such time"), KEPT_HINT);
        None
    })
}

/// Whether a webhook may be sent there.
fn is_url(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.parse::<http::Uri>().is_ok_and(|u| u.host().is_some())
}
