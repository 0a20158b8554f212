//! Says in people's words how a JSON value differs from what a type reads: the field, what it must be, what it is.
//!
//! A reader of JSON knows that it failed and in words of its own; the type's schema knows what would have done. Looks only
//! at what derived schemas say: types, words, ranges, members; never at how texts must be written.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// Longest text of the sender's that is repeated, in characters.
const MAX_QUOTE: usize = 40;

/// The first difference between `value` and what `T` reads, or `None` where the schema of `T` allows it. `whole` is what
/// the value itself is called, such as `the body`.
pub fn difference<T: JsonSchema>(value: &Value, whole: &str) -> Option<String> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let (path, what) = differ(&schema, value)?;
    let subject = if path.is_empty() { whole } else { &path };
    Some(format!("{subject} {what}"))
}

/// Where, and what is wrong there.
type Difference = (String, String);

fn differ(schema: &Value, value: &Value) -> Option<Difference> {
    one_of_many(schema, value)
        .or_else(|| word(schema, value))
        .or_else(|| kind(schema, value))
        .or_else(|| range(schema, value))
        .or_else(|| members(schema, value))
        .or_else(|| items(schema, value))
}

fn here(what: String) -> Option<Difference> {
    Some((String::new(), what))
}

/// `anyOf` and `oneOf`: the alternative that is meant, by its tag or for want of another, says what is wrong.
fn one_of_many(schema: &Value, value: &Value) -> Option<Difference> {
    let all = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    if all.iter().any(|alternative| differ(alternative, value).is_none()) {
        return None;
    }
    if let Some(tag) = all.first().and_then(tag_of) {
        return match all.iter().find(|a| a["properties"][tag]["const"] == value[tag]) {
            Some(meant) => differ(meant, value),
            None if !value.is_object() => here(must_be(&["an object".to_owned()], value)),
            None if value.get(tag).is_none() => here_at(tag, "is missing".to_owned()),
            None => {
                let words: Vec<_> = all.iter().map(|a| &a["properties"][tag]["const"]).collect();
                here_at(tag, must_be_word(&words, &value[tag]))
            }
        };
    }
    let rest: Vec<_> = all.iter().filter(|a| a["type"] != "null").collect();
    match rest[..] {
        [one] => differ(one, value),
        _ => match words_of(&rest) {
            Some(words) => here(must_be_word(&words, value)),
            None => here(must_be(&rest.iter().flat_map(|a| kinds(a)).collect::<Vec<_>>(), value)),
        },
    }
}

/// The member whose word tells alternatives apart.
fn tag_of(alternative: &Value) -> Option<&str> {
    let members = alternative.get("properties")?.as_object()?;
    let tag = members.iter().find(|(_, schema)| schema.get("const").is_some())?;
    Some(tag.0)
}

/// The words that alternatives allow, where each is nothing but words.
fn words_of<'a>(alternatives: &[&'a Value]) -> Option<Vec<&'a Value>> {
    let words = alternatives.iter().map(|a| match (a.get("const"), a.get("enum")) {
        (Some(word), _) => Some(vec![word]),
        (None, Some(words)) => words.as_array().map(|w| w.iter().collect()),
        (None, None) => None,
    });
    Some(words.collect::<Option<Vec<_>>>()?.concat())
}

fn word(schema: &Value, value: &Value) -> Option<Difference> {
    let words = words_of(&[schema])?;
    match words.contains(&value) {
        true => None,
        false => here(must_be_word(&words, value)),
    }
}

fn kind(schema: &Value, value: &Value) -> Option<Difference> {
    let names = schema.get("type")?;
    let fits = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    };
    let fits = match names.as_array() {
        Some(names) => names.iter().any(fits),
        None => fits(names),
    };
    match fits {
        true => None,
        false => here(must_be(&kinds(schema), value)),
    }
}

/// What a schema's types are called.
fn kinds(schema: &Value) -> Vec<String> {
    let name = |name: &Value| match name.as_str()? {
        "null" => None,
        "boolean" => Some("true or false".to_owned()),
        "integer" => Some(match bounds(schema) {
            (Some(least), Some(most)) if most < 1 << 31 => format!("a whole number from {least} to {most}"),
            (Some(least), _) if least >= 0 => format!("a whole number, {least} or more"),
            _ => "a whole number".to_owned(),
        }),
        "number" => Some("a number".to_owned()),
        "string" => Some("a string".to_owned()),
        "array" => Some("a list".to_owned()),
        other => Some(format!("an {other}")),
    };
    match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(name).collect(),
        one => name(one).into_iter().collect(),
    }
}

/// The least and the most of a whole number: as said, or as its width allows.
fn bounds(schema: &Value) -> (Option<i64>, Option<i64>) {
    let said = |name: &str| schema.get(name).and_then(Value::as_i64);
    let width = match schema["format"].as_str() {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        _ => return (said("minimum"), said("maximum")),
    };
    (said("minimum").or(Some(width.0)), said("maximum").or(Some(width.1)))
}

fn range(schema: &Value, value: &Value) -> Option<Difference> {
    let (least, most) = bounds(schema);
    let number = match value.as_i64() {
        Some(number) => number,
        // Beyond what any of our fields holds.
        None if value.is_u64() => i64::MAX,
        None => return None,
    };
    let fits = least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
    match fits {
        true => None,
        false => here(format!("must be {}, not {value}", kinds(schema).join(" or "))),
    }
}

fn members(schema: &Value, value: &Value) -> Option<Difference> {
    let members = value.as_object()?;
    let described = schema.get("properties").and_then(Value::as_object)?;
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return here_at(name, missing(described.get(name).unwrap_or(&Value::Null)));
        }
    }
    members
        .iter()
        .find_map(|(name, value)| within(name, differ(described.get(name)?, value)?))
}

fn items(schema: &Value, value: &Value) -> Option<Difference> {
    let each = schema.get("items")?;
    let mut items = value.as_array()?.iter().enumerate();
    items.find_map(|(n, item)| within(&n.to_string(), differ(each, item)?))
}

fn here_at(name: &str, what: String) -> Option<Difference> {
    within(name, (String::new(), what))
}

fn within(name: &str, (path, what): Difference) -> Option<Difference> {
    let path = match path.is_empty() {
        true => name.to_owned(),
        false => format!("{name}.{path}"),
    };
    Some((path, what))
}

fn missing(schema: &Value) -> String {
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    let words = match alternatives {
        Some(all) => words_of(&all.iter().collect::<Vec<_>>()),
        None => words_of(&[schema]),
    };
    let expected = match (words, kinds(schema)) {
        (Some(words), _) => must_be_word(&words, &Value::Null),
        (None, kinds) if kinds.is_empty() => return "is missing".to_owned(),
        (None, kinds) => format!("must be {}", kinds.join(" or ")),
    };
    format!("is missing: it {expected}")
}

fn must_be(kinds: &[String], value: &Value) -> String {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    // 1.5 is a number too.
    let is = match kinds.iter().any(|kind| kind.starts_with("a whole number")) && value.is_f64() {
        true => value.to_string(),
        false => is.to_owned(),
    };
    format!("must be {}, not {is}", kinds.join(" or "))
}

fn must_be_word(words: &[&Value], value: &Value) -> String {
    let words: Vec<_> = words.iter().filter_map(|w| w.as_str()).collect();
    let one = if words.len() == 1 { "" } else { "one of " };
    let expected = format!("must be {one}{}", words.join(", "));
    match value.as_str() {
        Some(text) => {
            let quote: String = text.chars().filter(|c| !c.is_control()).take(MAX_QUOTE).collect();
            format!("{expected}, not {quote:?}")
        }
        None => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read to see whether it can be")]
    struct Order {
        name: String,
        count: Option<u8>,
        level: Option<i64>,
        gift: Option<bool>,
        paper: Option<Paper>,
        lines: Option<Vec<Line>>,
        chunk: Option<Chunk>,
        ribbon: Option<Ribbon>,
        #[serde(flatten)]
        by: By,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read to see whether it can be")]
    struct Line {
        /// How heavy.
        weight: f64,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "read to see whether it can be")]
    struct Ribbon {
        colour: Colour,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        Blue,
    }

    /// Of which sort.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Paper {
        /// With both sides alike.
        Plain,
        /// With gold on one.
        Gilt,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "read to see whether it can be")]
    enum Chunk {
        Number(u64),
        Text(String),
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "snake_case")]
    #[expect(dead_code, reason = "read to see whether it can be")]
    enum By {
        Post { zip: String },
        Hand,
    }

    #[test]
    fn a_value_that_does_not_fit_is_told_where_and_why() {
        let long = "x".repeat(100);
        for (value, why) in [
            (json!([]), "the order must be an object, not a list"),
            (json!({"type": "hand"}), "name is missing: it must be a string"),
            (
                json!({"type": "hand", "name": 7}),
                "name must be a string, not a number",
            ),
            (json!({"type": "hand", "name": null}), "name must be a string, not null"),
            (
                json!({"type": "hand", "name": "a", "count": 256}),
                "count must be a whole number from 0 to 255, not 256",
            ),
            (
                json!({"type": "hand", "name": "a", "count": 1.5}),
                "count must be a whole number from 0 to 255, not 1.5",
            ),
            (
                json!({"type": "hand", "name": "a", "level": "3"}),
                "level must be a whole number, not a string",
            ),
            (
                json!({"type": "hand", "name": "a", "gift": "yes"}),
                "gift must be true or false, not a string",
            ),
            (
                json!({"type": "hand", "name": "a", "paper": "rice"}),
                "paper must be one of plain, gilt, not \"rice\"",
            ),
            (
                json!({"type": "hand", "name": "a", "paper": long}),
                &format!("paper must be one of plain, gilt, not {:?}", "x".repeat(40)),
            ),
            (
                json!({"type": "hand", "name": "a", "paper": 1}),
                "paper must be one of plain, gilt",
            ),
            (
                json!({"type": "hand", "name": "a", "lines": [{"weight": 1}, {"weight": "2"}]}),
                "lines.1.weight must be a number, not a string",
            ),
            (
                json!({"type": "hand", "name": "a", "lines": [{}]}),
                "lines.0.weight is missing: it must be a number",
            ),
            (
                json!({"type": "hand", "name": "a", "chunk": true}),
                "chunk must be a whole number, 0 or more or a string, not true or false",
            ),
            (
                json!({"type": "hand", "name": "a", "ribbon": {}}),
                "ribbon.colour is missing: it must be one of red, blue",
            ),
            (json!({"name": "a"}), "type is missing"),
            (
                json!({"type": "air", "name": "a"}),
                "type must be one of post, hand, not \"air\"",
            ),
            (
                json!({"type": "post", "name": "a"}),
                "zip is missing: it must be a string",
            ),
            (
                json!({"type": "post", "name": "a", "zip": {}}),
                "zip must be a string, not an object",
            ),
        ] {
            assert_eq!(
                difference::<Order>(&value, "the order").as_deref(),
                Some(why),
                "{value}"
            );
            assert!(serde_json::from_value::<Order>(value).is_err());
        }
    }

    #[test]
    fn a_value_that_fits_differs_in_nothing() {
        for value in [
            json!({"type": "hand", "name": "a"}),
            json!({"type": "post", "name": "a", "zip": "1", "count": null, "chunk": "x", "more": []}),
            json!({"type": "hand", "name": "", "count": 255, "paper": "gilt", "lines": [], "level": -1, "chunk": 7}),
        ] {
            assert_eq!(difference::<Order>(&value, "the order"), None, "{value}");
            serde_json::from_value::<Order>(value).unwrap();
        }
    }
}
