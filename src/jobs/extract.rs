//! Data out of a conversation, once more and finally: what was read during the call stays where this reading has nothing better.

use super::{Deps, Outcome, Wishes, files, webhook};
use crate::{
    llm::{
        ChatError, Usage,
        extract::{self, Extracted},
    },
    store::{CallRow, JobRow, MessageRow, Write},
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tracing::info;

pub(super) const KIND: &str = "extract";

/// Asks the model, keeps its answer, and queues the webhook.
pub(super) async fn run(deps: &Deps, job: &JobRow, call: &CallRow, wishes: &Wishes) -> Outcome {
    let Some(schema) = &wishes.schema else {
        return Outcome::Done(vec![super::next(webhook::KIND, call)]);
    };
    let messages = match deps.store.messages(call.tenant_id, call.call_id).await {
        Ok(messages) => messages,
        Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
    };
    info!(
        session = call.session_id,
        attempt = job.attempts,
        last = true,
        "extraction_started"
    );
    let keep = |read: Option<(Map<String, Value>, Used)>, why: &str| {
        let (data, used) = read.unzip();
        let read = Extracted::new(schema, call.metadata.get("extracted"), data, why);
        kept(deps, call, &messages, wishes, read, used)
    };
    match &wishes.chat {
        None => Outcome::Done(keep(None, "no language model is configured for the agent")),
        Some(_) if messages.is_empty() => Outcome::Done(keep(None, "nothing was said")),
        Some((chat, model)) => {
            let said = messages.iter().map(|m| (m.sender_type.as_str(), m.content.as_str()));
            let prompt = extract::prompt(schema, said, model.clone());
            match extract::read(chat.ask(prompt)).await {
                Ok((data, usage)) => Outcome::Done(keep(Some((data, (chat.service(), usage))), "not said")),
                Err(error) => {
                    let wait = match &error {
                        ChatError::TooMany { retry_after } => retry_after.unwrap_or_default(),
                        _ => Duration::ZERO,
                    };
                    let why = error.to_string();
                    match error.may_pass() {
                        false => Outcome::Never(why.clone(), keep(None, &why)),
                        true => Outcome::Later(why, wait),
                    }
                }
            }
        }
    }
}

/// After a day of tries: the webhook tells of the call with what was read during it.
pub(super) fn forgone(job: &JobRow) -> Vec<Write> {
    let now = crate::base::time::Wall::now();
    let webhook = JobRow::new(webhook::KIND, job.tenant_id, job.call_id, now, now);
    vec![Write::Job(Box::new(webhook))]
}

/// A service and its tokens.
type Used = (&'static str, Usage);

fn kept(
    deps: &Deps,
    call: &CallRow,
    messages: &[MessageRow],
    wishes: &Wishes,
    read: Extracted,
    used: Option<Used>,
) -> Vec<Write> {
    let mut call = call.clone();
    call.metadata["extracted"] = read.data;
    call.metadata["extraction"] = json!({ "missing": read.missing });
    if let Some((service, usage)) = used {
        let before = |direction: &str| {
            let path = format!("/llm_usage/{service}/{direction}");
            call.metadata.pointer(&path).and_then(Value::as_u64).unwrap_or(0)
        };
        let (input, output) = (before("input") + usage.input, before("output") + usage.output);
        call.metadata["llm_usage"][service] = json!({ "input": input, "output": output });
    }
    let report = files::report(deps, &call, messages, wishes);
    let mut members = files::members(&report, &["usage", "cost", "extracted", "extraction"]);
    members["llm_usage"] = call.metadata["llm_usage"].clone();
    if let Err(error) = files::rewrite(deps, &call, messages, wishes, &report) {
        tracing::warn!(%error, "the call's file could not be written again");
    }
    vec![files::change(&call, members), super::next(webhook::KIND, &call)]
}
