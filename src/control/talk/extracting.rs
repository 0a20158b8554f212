//! Data out of the conversation while it goes on: read a moment after the caller's words, one reading at a time, each merged into
//! what is known. The last reading is a job, after the call.

use super::{Event, Talk};
use crate::{
    base::time::Mono,
    llm::{
        ChatError, Usage,
        extract::{self, Extracted},
    },
};
use futures_util::FutureExt;
use serde_json::{Map, Value};
use tracing::{info, warn};

/// Readings of one call; after that the last one alone follows.
const MAX_READINGS: u32 = 100;

/// What a reading gave, by whom.
pub(super) type Reading = (&'static str, Result<(Map<String, Value>, Usage), ChatError>);

/// When the conversation is read next, and whether it is being read.
#[derive(Debug, Default)]
pub(super) struct Extracting {
    due: Option<Mono>,
    running: bool,
    readings: u32,
}

impl Extracting {
    /// When [`Talk::extract`] is due.
    pub(super) const fn next_timeout(&self) -> Option<Mono> {
        if self.running { None } else { self.due }
    }
}

impl Talk {
    /// The caller said something: it is read soon, together with what they say until then.
    pub(super) fn extract_soon(&mut self, now: Mono) {
        let after = self.own.extract_after;
        if self.own.schema.is_some() && !after.is_zero() && self.extracting.readings < MAX_READINGS {
            self.extracting.due.get_or_insert(now + after);
        }
    }

    /// Reads the conversation as it is on record, if that is due.
    pub(super) fn extract(&mut self, now: Mono) {
        if self.extracting.running || self.extracting.due.take_if(|at| *at <= now).is_none() {
            return;
        }
        let reader = self.own.reader(&self.shared.deps.llm);
        let Some((chat, model)) = reader.filter(|(chat, _)| chat.ready().is_ok()) else {
            return;
        };
        let Some(schema) = self.own.schema.clone().filter(|_| !self.call.is_ended()) else {
            return;
        };
        self.extracting.running = true;
        self.extracting.readings += 1;
        info!(reading = self.extracting.readings, last = false, "extraction_started");
        let store = self.shared.deps.store.clone();
        let (tenant, call) = (self.entry.tenant, self.entry.call);
        let job = async move {
            let messages = match store.messages(tenant, call).await {
                Ok(messages) => messages,
                Err(_) => return Event::Extracted((chat.service(), Err(ChatError::Garbled("the record is away")))),
            };
            let said = messages.iter().map(|m| (m.sender_type.as_str(), m.content.as_str()));
            let prompt = extract::prompt(&schema, said, model);
            Event::Extracted((chat.service(), extract::read(chat.ask(prompt)).await))
        };
        self.jobs.push(job.boxed());
    }

    /// What a reading gave. One that failed is made up for by the next.
    pub(super) fn extracted(&mut self, (service, read): Reading) {
        self.extracting.running = false;
        let Some(schema) = &self.own.schema else { return };
        match read {
            Ok((data, usage)) => {
                let known = self.call.known();
                let read = Extracted::new(schema, Some(known), Some(data), "not said");
                self.call.extracted(service, usage, read);
            }
            Err(error) => warn!(service, kind = error.kind(), "the conversation could not be read yet"),
        }
    }
}
