//! A JSON object as a [`Table`], so that what comes over REST is read by the same code as the file.
//!
//! Keys are `camelCase` or as in the file; in the table they are as in the file.

use super::{Item, Place, Table, Value};
use serde_json::{Map, Value as Json};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 8;

/// Reads an object. `null` is a key not written. The error names the key and says what is wrong with it.
pub fn table(object: &Map<String, Json>) -> Result<Table, String> {
    read(object, 0)
}

fn read(object: &Map<String, Json>, depth: usize) -> Result<Table, String> {
    let mut table = Table::new();
    for (key, json) in object {
        let Some(value) = value(json, depth).map_err(|what| format!("{key}: {what}"))? else {
            continue;
        };
        let place = Place::Request;
        if table.insert(snake_case(key), Item { value, place }).is_some() {
            return Err(format!("{key}: written twice"));
        }
    }
    Ok(table)
}

fn value(json: &Json, depth: usize) -> Result<Option<Value>, String> {
    if depth >= MAX_DEPTH {
        return Err("nested too deeply".to_owned());
    }
    Ok(Some(match json {
        Json::Null => return Ok(None),
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Object(object) => Value::Table(read(object, depth + 1)?),
        Json::Array(items) => {
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                let value = value(item, depth + 1)?.ok_or("null in a list")?;
                let place = Place::Request;
                values.push(Item { value, place });
            }
            Value::Array(values)
        }
    }))
}

/// `apiKey` as `api_key`.
pub fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `api_key` as `apiKey`.
pub fn camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::Faults, super::Section, *};
    use serde_json::json;

    fn object(json: Json) -> Map<String, Json> {
        match json {
            Json::Object(object) => object,
            _ => panic!("no object"),
        }
    }

    #[test]
    fn an_object_is_read_as_the_file_is() {
        let object = object(json!({
            "apiKey": "k", "retries": 3, "factor": 0.5, "insecure": true, "gone": null,
            "sharedKeys": [{"id": "1"}], "list": ["a"], "snake_case": "x"
        }));
        let (table, faults) = (table(&object).unwrap(), Faults::default());
        let s = Section::root(&table, &faults);
        assert_eq!(s.text("api_key", ""), "k");
        assert_eq!(s.int("retries", 0, 0..=9), 3);
        assert_eq!(s.float("factor", 0.0, 0.0..=1.0), 0.5);
        assert!(s.bool("insecure", false));
        assert_eq!(s.texts("list", &[]), ["a"]);
        assert_eq!(s.text("snake_case", ""), "x");
        assert_eq!(s.sections("shared_keys")[0].text("id", ""), "1");
        s.finish();
        assert_eq!(faults.take(), []);
    }

    #[test]
    fn text_is_no_number_as_it_would_be_in_the_environment() {
        let object = object(json!({"n": "5", "unknownKey": 1}));
        let (table, faults) = (table(&object).unwrap(), Faults::default());
        let s = Section::root(&table, &faults);
        assert_eq!(s.int("n", 1, 0..=9), 1);
        s.finish();
        let said: Vec<_> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "request: n: text found where a whole number is expected",
                "request: unknown_key: no such key (known here: n)"
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_names_its_key() {
        let read = |json| table(&object(json)).unwrap_err();
        assert_eq!(read(json!({"apiKey": "a", "api_key": "b"})), "api_key: written twice");
        assert_eq!(read(json!({"list": [null]})), "list: null in a list");
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!([deep]);
        }
        assert_eq!(read(json!({ "deep": deep })), "deep: nested too deeply");
    }

    #[test]
    fn names_go_both_ways() {
        for (camel, snake) in [
            ("apiKey", "api_key"),
            ("sid", "sid"),
            ("bargeInAfter", "barge_in_after"),
        ] {
            assert_eq!(snake_case(camel), snake);
            assert_eq!(camel_case(snake), camel);
            assert_eq!(snake_case(snake), snake);
        }
    }
}
