//! Parameters of a webhook that arrive in whatever form a vendor's pages promise: query, form, multipart form or JSON.
//!
//! JSON objects are laid flat: `{"Stream":{"Status":"x"}}` is the parameter `Stream[Status]`, as forms write it, and a value
//! that is itself the text of a JSON object is laid flat too. What the query says comes first.
//! And what replies tell of a call.

use super::HookRequest;
use crate::{
    base::fault::{Fault, Kind, Origin},
    wire::{
        form::{Form, MAX_PAIRS},
        json, multipart,
    },
};
use http::header;
use serde_json::Value;
use std::borrow::Cow;

/// Longest value believed of a parameter that is stored.
const MAX_VALUE: usize = 512;

/// All parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads them.
    pub(super) fn read(request: &HookRequest<'_>) -> Result<Self, Fault> {
        let mut params = Self::default();
        let query = request.path_and_query.split_once('?').map_or("", |(_, query)| query);
        params.form(query.as_bytes())?;
        let kind = request.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*essence {
            _ if request.body.is_empty() => {}
            "multipart/form-data" => {
                let fields = multipart::parse(kind, request.body).map_err(|e| malformed(e.to_string()))?;
                for (name, value) in fields {
                    params.put(name.into(), value.into(), 0)?;
                }
            }
            "application/x-www-form-urlencoded" => params.form(request.body)?,
            // Some senders forget to say that it is JSON.
            _ if essence.ends_with("json") || request.body.trim_ascii_start().starts_with(b"{") => {
                let body: Value = json::read(request.body).map_err(|e| malformed(e.to_string()))?;
                params.flatten("", body, 0)?;
            }
            _ => params.form(request.body)?,
        }
        Ok(params)
    }

    fn form(&mut self, text: &[u8]) -> Result<(), Fault> {
        let form = Form::parse(text).map_err(|e| malformed(e.to_string()))?;
        for (name, value) in form.0 {
            self.put(name, value, 0)?;
        }
        Ok(())
    }

    fn put(&mut self, name: Cow<'_, str>, value: Cow<'_, str>, depth: usize) -> Result<(), Fault> {
        if value.starts_with('{')
            && let Ok(inner @ Value::Object(_)) = json::read(value.as_bytes())
        {
            return self.flatten(&name, inner, depth + 1);
        }
        if self.0.len() == MAX_PAIRS {
            return Err(malformed(format!("more than {MAX_PAIRS} parameters")));
        }
        self.0.push((name.into_owned(), value.into_owned()));
        Ok(())
    }

    fn flatten(&mut self, name: &str, value: Value, depth: usize) -> Result<(), Fault> {
        if depth > json::MAX_DEPTH {
            return Err(malformed("parameters are nested too deeply"));
        }
        let inner = |key: &str| match name {
            "" => key.to_owned(),
            name => format!("{name}[{key}]"),
        };
        match value {
            Value::Object(members) => members
                .into_iter()
                .try_for_each(|(key, value)| self.flatten(&inner(&key), value, depth + 1)),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .try_for_each(|(n, value)| self.flatten(&inner(&n.to_string()), value, depth + 1)),
            Value::Null => Ok(()),
            Value::String(text) => self.put(name.into(), text.into(), depth),
            other => self.put(name.into(), other.to_string().into(), depth),
        }
    }

    /// The first value that is not empty under any of these names, which mean the same; the first name goes first.
    pub(super) fn get(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| {
            let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v);
            values.find(|v| !v.is_empty())
        })
    }

    /// Whether a parameter's name begins so.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.0.iter().any(|(n, _)| n.starts_with(prefix))
    }

    /// All of them.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }

    /// A text that is stored; empty where there is none.
    pub(super) fn text(&self, names: &[&str]) -> Result<String, Fault> {
        let text = self.get(names).unwrap_or_default();
        if text.len() > MAX_VALUE {
            return Err(malformed(format!("{} is longer than {MAX_VALUE} bytes", names[0])));
        }
        Ok(text.to_owned())
    }

    /// An id, if there is one.
    pub(super) fn id(&self, names: &[&str]) -> Result<Option<String>, Fault> {
        let Some(id) = self.get(names) else { return Ok(None) };
        if !is_id(id) {
            return Err(malformed(format!("{} is not an id", names[0])));
        }
        Ok(Some(id.to_owned()))
    }
}

/// Whether a vendor's id is one: short, printable, and of no meaning in a path, a log line or a file name.
pub(super) fn is_id(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.:+".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(ok)
}

/// A request that is the vendor's and cannot be acted on.
pub(super) fn malformed(what: impl Into<String>) -> Fault {
    Fault::new(Origin::Vendor, Kind::Malformed, what.into())
}

/// A URL with one more query parameter.
pub(super) fn with_query(url: &str, name: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{name}={}", crate::wire::form::percent_encode(value))
}

/// What a vendor tells of a call, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallDetails {
    /// Where it stands.
    pub status: String,
    /// Its length as the vendor counts it, in seconds; some tell it minutes late.
    pub duration_s: Option<u32>,
    /// What it cost, with the currency where that is told.
    pub price: Option<String>,
    /// The vendor's own recording.
    pub recording_url: Option<String>,
}

/// What an object of JSON tells of a call, under these names; what it does not tell is left out.
pub(super) fn details(call: &Value, status: &str, duration: &str, price: [&str; 2], recording: &str) -> CallDetails {
    let text = |name: &str| match call.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(n)) => Some(n.to_string()),
        _ => None,
    };
    let text = |name: &str| text(name).filter(|t| !t.is_empty()).map(|t| words(&t));
    let price = text(price[0]).map(|sum| match text(price[1]) {
        Some(unit) => format!("{sum} {unit}"),
        None => sum,
    });
    CallDetails {
        status: text(status).unwrap_or_else(|| "unknown".to_owned()),
        duration_s: text(duration).and_then(|d| d.parse().ok()),
        price,
        recording_url: text(recording),
    }
}

/// A vendor's own words, as far as they are passed on.
pub(super) fn words(text: &str) -> String {
    const MAX_WORDS: usize = 200;
    let mut words: String = text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    if words.trim().is_empty() {
        words = "no reason given".to_owned();
    }
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::time::Wall;
    use http::{HeaderMap, HeaderValue};

    /// Lends a request to `with`, received at 2026-01-01T00:00:00Z.
    pub(in crate::vendor) fn asked<T>(
        method: &str,
        path_and_query: &str,
        kind: &str,
        body: &str,
        with: impl FnOnce(&HookRequest<'_>) -> T,
    ) -> T {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        }
        with(&HookRequest {
            method,
            path_and_query,
            headers: &headers,
            body: body.as_bytes(),
            public_base: "https://relay.example.com",
            by_number: false,
            client: None,
            received_at: Wall::from_micros(1_767_225_600_000_000),
        })
    }

    fn read(kind: &str, body: &str) -> Vec<(String, String)> {
        let params = asked("POST", "/x?q=1", kind, body, |r| Params::read(r).unwrap());
        params.pairs().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn every_way_to_write_parameters_says_the_same() {
        let expect = [
            ("q", "1"),
            ("CallSid", "c1"),
            ("Stream[Status]", "failed"),
            ("Stream[Duration]", "3"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
        let form = "application/x-www-form-urlencoded";
        for (kind, body) in [
            (form, "CallSid=c1&Stream%5BStatus%5D=failed&Stream%5BDuration%5D=3"),
            (
                form,
                "CallSid=c1&Stream=%7B%22Status%22%3A%22failed%22%2C%22Duration%22%3A3%7D",
            ),
            (
                "application/json",
                r#"{"CallSid":"c1","Stream":{"Status":"failed","Duration":3},"To":null}"#,
            ),
            (
                "text/plain",
                r#" {"CallSid":"c1","Stream":"{\"Status\":\"failed\",\"Duration\":3}"}"#,
            ),
            ("", "CallSid=c1&Stream[Status]=failed&Stream[Duration]=3"),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"CallSid\"\r\n\r\nc1\r\n--b\r\nContent-Disposition: \
                 form-data; name=\"Stream\"\r\n\r\n{\"Status\":\"failed\",\"Duration\":3}\r\n--b--",
            ),
        ] {
            let mut read = read(kind, body);
            read[2..].sort_by(|a, b| b.cmp(a));
            assert_eq!(read, expect, "{kind} {body}");
        }
    }

    #[test]
    fn lists_have_their_places_and_depth_has_an_end() {
        let read = read("application/json", r#"{"Legs":[{"Status":"completed"}]}"#);
        assert_eq!(read[1], ("Legs[0][Status]".to_owned(), "completed".to_owned()));
        let mut nested = "\"x\"".to_owned();
        for _ in 0..5 {
            nested = Value::String(format!("{{\"a\":{nested}}}")).to_string();
        }
        let body = format!("{{\"a\":{nested}}}");
        let parsed = asked("POST", "/", "application/json", &body, Params::read);
        assert!(parsed.is_ok_and(|p| p.0.len() == 1));
        for _ in 0..5 {
            nested = Value::String(format!("{{\"a\":{nested}}}")).to_string();
        }
        let body = format!("{{\"a\":{nested}}}");
        assert!(asked("POST", "/", "application/json", &body, Params::read).is_err());
        assert!(asked("POST", "/", "application/json", "{", Params::read).is_err());
        assert!(asked("POST", "/", "multipart/form-data", "x", Params::read).is_err());
    }

    #[test]
    fn values_that_are_stored_are_bounded_and_ids_are_ids() {
        let long = format!("a={}&b=x%20y&c=&c=2&d=ok-1", "1".repeat(MAX_VALUE + 1));
        asked("GET", &format!("/?{long}"), "", "", |r| {
            let params = Params::read(r).unwrap();
            assert!(params.text(&["a"]).is_err() && params.id(&["b"]).is_err());
            assert_eq!(params.id(&["zz", "d"]).unwrap().as_deref(), Some("ok-1"));
            assert_eq!(
                (params.get(&["c"]), params.text(&["none"]).unwrap().as_str()),
                (Some("2"), "")
            );
        });
        assert_eq!(with_query(&with_query("u", "a", "b c"), "d", "&"), "u?a=b%20c&d=%26");
    }
}
