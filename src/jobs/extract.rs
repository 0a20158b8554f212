//! Data out of a conversation, by the agent's JSON schema. Every field of the schema is there afterwards: what was not said is
//! null, with the reason beside it.

use super::{Deps, Outcome, Wishes, files, webhook};
use crate::{
    llm::{ChatError, Piece, Prompt, Turn},
    store::{CallRow, JobRow, MessageRow, Write},
};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tracing::info;

pub(super) const KIND: &str = "extract";

/// Longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

const TASK: &str = "You read the transcript of a phone call and answer with the data that the schema asks for. Take only what was said. A field that was not said is null.";

/// Asks the model, keeps its answer, and queues the webhook.
pub(super) async fn run(deps: &Deps, job: &JobRow, call: &CallRow, wishes: &Wishes) -> Outcome {
    let Some(schema) = &wishes.schema else {
        return Outcome::Done(vec![super::next(webhook::KIND, call)]);
    };
    let messages = match deps.store.messages(call.tenant_id, call.call_id).await {
        Ok(messages) => messages,
        Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
    };
    info!(session = call.session_id, attempt = job.attempts, "extraction_started");
    let (data, why) = match &wishes.chat {
        None => (None, "no language model is configured for the agent"),
        Some(_) if messages.is_empty() => (None, "nothing was said"),
        Some((chat, model)) => {
            let prompt = Prompt {
                system: TASK.to_owned(),
                turns: vec![Turn::User(spoken(&messages))],
                schema: Some(schema.clone()),
                model: model.clone(),
                ..Prompt::default()
            };
            match answer(chat.ask(prompt)).await {
                Ok(data) => (Some(data), "not said"),
                Err(error) => {
                    let wait = match &error {
                        ChatError::TooMany { retry_after } => retry_after.unwrap_or_default(),
                        _ => Duration::ZERO,
                    };
                    let permanent = !error.may_pass();
                    let why = error.to_string();
                    return match permanent {
                        true => Outcome::Never(why.clone(), given_up(deps, call, &messages, wishes, schema, &why)),
                        false => Outcome::Later(why, wait),
                    };
                }
            }
        }
    };
    Outcome::Done(kept(deps, call, &messages, wishes, filled(schema, data, why)))
}

/// What is left behind when no model will ever answer.
fn given_up(
    deps: &Deps,
    call: &CallRow,
    messages: &[MessageRow],
    wishes: &Wishes,
    schema: &Value,
    why: &str,
) -> Vec<Write> {
    kept(deps, call, messages, wishes, filled(schema, None, why))
}

/// After a day of tries: the webhook tells of the call without the data.
pub(super) fn forgone(job: &JobRow) -> Vec<Write> {
    let now = crate::base::time::Wall::now();
    let webhook = JobRow::new(webhook::KIND, job.tenant_id, job.call_id, now, now);
    vec![Write::Job(Box::new(webhook))]
}

fn kept(
    deps: &Deps,
    call: &CallRow,
    messages: &[MessageRow],
    wishes: &Wishes,
    (data, reasons): (Value, Value),
) -> Vec<Write> {
    let mut call = call.clone();
    call.metadata["extracted"] = data;
    call.metadata["extraction"] = json!({ "missing": reasons });
    if let Err(error) = files::rewrite(deps, &call, messages, wishes) {
        tracing::warn!(%error, "the call's file could not be written again");
    }
    let metadata = call.metadata.clone();
    vec![files::change(&call, metadata), super::next(webhook::KIND, &call)]
}

fn spoken(messages: &[MessageRow]) -> String {
    let lines = messages
        .iter()
        .map(|m| format!("{}: {}", m.sender_type.as_str(), m.content));
    lines.collect::<Vec<_>>().join("\n")
}

async fn answer(mut pieces: crate::llm::Answer) -> Result<Map<String, Value>, ChatError> {
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Text(more) => text.push_str(&more),
            Piece::Call(_) => {}
            Piece::End { .. } => {
                let data = serde_json::from_str::<Value>(text.trim());
                return match data {
                    Ok(Value::Object(data)) => Ok(data),
                    _ => Err(ChatError::Garbled("the extracted data is no JSON object")),
                };
            }
        }
        if text.len() > MAX_ANSWER {
            break;
        }
    }
    Err(ChatError::Garbled("the extracted data has no end"))
}

/// The fields of the schema, each with its value or null, and why each null is one. Other fields are left out.
fn filled(schema: &Value, data: Option<Map<String, Value>>, why: &str) -> (Value, Value) {
    let mut data = data.unwrap_or_default();
    let (mut fields, mut reasons) = (Map::new(), Map::new());
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, wanted) in properties.into_iter().flatten() {
        let given = data.remove(name).unwrap_or_default();
        let reason = match given.is_null() {
            true => Some(why.to_owned()),
            false if fits(wanted, &given) => None,
            false => Some(format!(
                "what was given is no {}",
                wanted["type"].as_str().unwrap_or("such value")
            )),
        };
        let value = if reason.is_some() { Value::Null } else { given };
        reasons.extend(reason.map(|r| (name.clone(), json!(r))));
        fields.insert(name.clone(), value);
    }
    (Value::Object(fields), Value::Object(reasons))
}

/// Whether a value is of the type that its schema names, and one of the words, where it lists them.
fn fits(schema: &Value, value: &Value) -> bool {
    let is = |word: &str| match word {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    let typed = match &schema["type"] {
        Value::String(word) => is(word),
        Value::Array(words) => words.iter().filter_map(Value::as_str).any(is),
        _ => true,
    };
    typed && schema["enum"].as_array().is_none_or(|words| words.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_ever_undefined_and_every_null_has_its_reason() {
        let schema = json!({ "type": "object", "properties": {
            "name": { "type": "string" }, "guests": { "type": "integer" }, "mood": { "enum": ["good", "bad"] }, "when": {},
        } });
        let Value::Object(data) = json!({ "name": "Ada", "guests": "two", "mood": "fine", "other": 1 }) else {
            panic!()
        };
        let (fields, reasons) = filled(&schema, Some(data), "not said");
        assert_eq!(
            fields,
            json!({ "name": "Ada", "guests": null, "mood": null, "when": null })
        );
        assert_eq!(
            reasons,
            json!({ "guests": "what was given is no integer", "mood": "what was given is no such value", "when": "not said" })
        );
        let (fields, reasons) = filled(&schema, None, "no model");
        assert_eq!(
            (fields.as_object().unwrap().len(), reasons.as_object().unwrap().len()),
            (4, 4)
        );
    }
}
