//! Data out of a conversation, by a JSON schema. Every field of the schema is there afterwards, those of objects within it too: what
//! was not said is null, with the reason beside it. What was read before stays where a later reading has nothing better.

use super::{Answer, ChatError, Piece, Prompt, Turn, Usage};
use futures_util::StreamExt;
use serde_json::{Map, Value};

/// Longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;
/// Most of a conversation that is read, in bytes: its end.
const MAX_SPOKEN: usize = 64 * 1024;
/// How deep a schema is followed.
const MAX_DEPTH: usize = 8;

const TASK: &str = "You read the transcript of a phone call and answer with the data that the schema asks for. Take only what was said. A field that was not said is null.";

/// Asks for the data in a conversation: who said what.
pub fn prompt<'a>(schema: &Value, said: impl IntoIterator<Item = (&'a str, &'a str)>, model: Option<String>) -> Prompt {
    let lines: Vec<_> = said.into_iter().map(|(who, text)| format!("{who}: {text}")).collect();
    let mut bytes = 0;
    let fits = |line: &&String| {
        bytes += line.len() + 1;
        bytes <= MAX_SPOKEN
    };
    let recent = lines.iter().rev().take_while(fits).count();
    Prompt {
        system: TASK.to_owned(),
        turns: vec![Turn::User(lines[lines.len() - recent..].join("\n"))],
        schema: Some(schema.clone()),
        model,
        ..Prompt::default()
    }
}

/// Reads the model's answer to [`prompt`], and what it used.
pub async fn read(mut pieces: Answer) -> Result<(Map<String, Value>, Usage), ChatError> {
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Text(more) => text.push_str(&more),
            Piece::Call(_) => {}
            Piece::End { usage, .. } => {
                return match serde_json::from_str(text.trim()) {
                    Ok(Value::Object(data)) => Ok((data, usage)),
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

/// What is known of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// Each field of the schema with its value, or null.
    pub data: Value,
    /// Why each null is one, by the field's path (`address.city`).
    pub missing: Value,
}

impl Extracted {
    /// The fields of `schema`: from `data`, else as they were `before`, else null because of `why`. Other fields are left out.
    pub fn new(schema: &Value, before: Option<&Value>, data: Option<Map<String, Value>>, why: &str) -> Self {
        let mut missing = Map::new();
        let given = Value::Object(data.unwrap_or_default());
        let data = object(schema, before, &given, why, "", 0, &mut missing);
        Self {
            data,
            missing: Value::Object(missing),
        }
    }
}

fn object(
    schema: &Value,
    before: Option<&Value>,
    given: &Value,
    why: &str,
    path: &str,
    depth: usize,
    missing: &mut Map<String, Value>,
) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let field = |(name, wanted): (&String, &Value)| {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        let (before, given) = (
            before.and_then(|b| b.get(name)),
            given.get(name).unwrap_or(&Value::Null),
        );
        let value = match wanted["properties"].is_object() && depth < MAX_DEPTH {
            true => object(wanted, before, given, why, &path, depth + 1, missing),
            false => leaf(wanted, before, given, why, &path, missing),
        };
        (name.clone(), value)
    };
    properties.into_iter().flatten().map(field).collect()
}

fn leaf(
    wanted: &Value,
    before: Option<&Value>,
    given: &Value,
    why: &str,
    path: &str,
    missing: &mut Map<String, Value>,
) -> Value {
    let usable = |value: &&Value| !value.is_null() && fits(wanted, value);
    if let Some(value) = Some(given).filter(usable).or(before.filter(usable)) {
        return value.clone();
    }
    let reason = match given.is_null() {
        true => why.to_owned(),
        false => format!(
            "what was given is no {}",
            wanted["type"].as_str().unwrap_or("such value")
        ),
    };
    missing.insert(path.to_owned(), reason.into());
    Value::Null
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
    use proptest::prelude::*;
    use serde_json::json;

    fn data(value: Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    #[test]
    fn no_field_is_ever_undefined_and_every_null_has_its_reason() {
        let schema = json!({ "type": "object", "properties": {
            "name": { "type": "string" }, "guests": { "type": "integer" }, "mood": { "enum": ["good", "bad"] }, "when": {},
        } });
        let given = data(json!({ "name": "Ada", "guests": "two", "mood": "fine", "other": 1 }));
        let read = Extracted::new(&schema, None, given, "not said");
        assert_eq!(
            read.data,
            json!({ "name": "Ada", "guests": null, "mood": null, "when": null })
        );
        assert_eq!(
            read.missing,
            json!({ "guests": "what was given is no integer", "mood": "what was given is no such value", "when": "not said" })
        );
        let none = Extracted::new(&schema, None, None, "no model");
        assert_eq!(none.missing.as_object().unwrap().len(), 4);
    }

    #[test]
    fn a_later_reading_adds_and_corrects_and_takes_nothing_away() {
        let schema = json!({ "properties": { "name": { "type": "string" }, "guests": { "type": "integer" },
            "address": { "type": "object", "properties": { "street": { "type": "string" }, "city": { "type": "string" } } } } });
        let first = Extracted::new(
            &schema,
            None,
            data(json!({ "name": "Eda", "address": { "city": "Pune" } })),
            "not said",
        );
        assert_eq!(
            first.missing,
            json!({ "guests": "not said", "address.street": "not said" })
        );
        let later = data(json!({ "name": "Ada", "guests": 2, "address": null }));
        let second = Extracted::new(&schema, Some(&first.data), later, "not said");
        assert_eq!(
            second.data,
            json!({ "name": "Ada", "guests": 2, "address": { "street": null, "city": "Pune" } })
        );
        assert_eq!(second.missing, json!({ "address.street": "not said" }));
    }

    #[test]
    fn of_a_long_conversation_the_end_is_read() {
        let long = "x".repeat(1000);
        let said = (0..100)
            .map(|_| ("customer", long.as_str()))
            .chain([("agent", "the end")]);
        let prompt = prompt(&json!({}), said, None);
        let Turn::User(text) = &prompt.turns[0] else { panic!() };
        assert!(text.len() <= MAX_SPOKEN && text.len() > MAX_SPOKEN / 2 && text.ends_with("agent: the end"));
    }

    proptest! {
        #[test]
        fn whatever_a_model_gives_every_field_is_there(name in "[a-z]{0,3}", n in any::<i64>(), nested in any::<bool>()) {
            let schema = json!({ "properties": { "a": { "type": "string" }, "o": { "properties": { "b": { "type": "boolean" } } } } });
            let given = json!({ &name: n, "a": n, "o": if nested { json!({ "b": n }) } else { json!(n) } });
            let read = Extracted::new(&schema, None, data(given), "not said");
            prop_assert_eq!(read.data, json!({ "a": null, "o": { "b": null } }));
            prop_assert_eq!(read.missing.as_object().unwrap().len(), 2);
        }
    }
}
