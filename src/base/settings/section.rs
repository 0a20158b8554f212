//! [`Section`]: a cursor over one table, which reads values by type and remembers what was asked for.

use super::{
    Catalogue, Fault, Faults, Item, Known, Step, Table, Value, nearest, parse_duration, parse_size, show_duration,
    show_path, show_size, words::quote,
};
use crate::base::secret::Secret;
use std::{cell::RefCell, fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

/// A cursor over one table of the configuration. An absent table reads as empty, so defaults apply.
pub struct Section<'a> {
    path: Vec<Step>,
    table: Option<&'a Table>,
    faults: &'a Faults,
    catalogue: Option<&'a Catalogue>,
    known: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// A cursor over the root.
    pub fn root(table: &'a Table, faults: &'a Faults) -> Self {
        Self {
            path: Vec::new(),
            table: Some(table),
            faults,
            catalogue: None,
            known: RefCell::default(),
        }
    }

    /// A cursor over nothing: every value is its default.
    pub fn empty(faults: &'a Faults) -> Self {
        Self {
            path: Vec::new(),
            table: None,
            faults,
            catalogue: None,
            known: RefCell::default(),
        }
    }

    /// The same cursor, telling `catalogue` what is asked of it and of every section below.
    #[must_use]
    pub fn telling(self, catalogue: &'a Catalogue) -> Self {
        Self {
            catalogue: Some(catalogue),
            ..self
        }
    }

    /// The full name of `key` in this table.
    pub fn key(&self, key: &str) -> String {
        show_path(&self.path_to(key))
    }

    fn path_to(&self, key: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        path
    }

    /// Whether the table was written at all.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        let mut known = self.known.borrow_mut();
        if !known.iter().any(|k| k == key) {
            known.push(key.to_owned());
        }
        self.table?.get(key)
    }

    /// The value of a key, which has this default.
    fn value(&self, key: &str, default: impl FnOnce() -> Option<String>, secret: bool) -> Option<&'a Item> {
        if let Some(catalogue) = self.catalogue {
            catalogue.learn(Known {
                path: self.path_to(key),
                default: default(),
                secret,
            });
        }
        self.item(key)
    }

    /// Records a fault about `key`.
    pub fn fault(&self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let place = self.table.and_then(|t| t.get(key)).map(|i| i.place.clone());
        self.faults.push(Fault {
            key: self.key(key),
            place,
            what: what.into(),
            hint: hint.into(),
        });
    }

    fn wrong_kind(&self, key: &str, found: &Item, expected: &str) {
        let what = match &found.value {
            Value::String(text) if found.place.is_text() => format!("{text:?} is not {expected}"),
            other => format!("{} found where {expected} is expected", other.kind()),
        };
        self.fault(key, what, "");
    }

    /// A whole number within `range`.
    pub fn int<T>(&self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let Some(item) = self.value(key, || Some(default.to_string()), false) else {
            return default;
        };
        let Some(n) = item.int() else {
            self.wrong_kind(key, item, "a whole number");
            return default;
        };
        match T::try_from(n).ok().filter(|n| range.contains(n)) {
            Some(n) => n,
            None => {
                self.fault(
                    key,
                    format!("{n} is out of range"),
                    format!("{} to {}", range.start(), range.end()),
                );
                default
            }
        }
    }

    /// A number within `range`; whole numbers are taken too.
    pub fn float(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(item) = self.value(key, || Some(format!("{default:?}")), false) else {
            return default;
        };
        let Some(n) = item.float() else {
            self.wrong_kind(key, item, "a number");
            return default;
        };
        if range.contains(&n) {
            return n;
        }
        self.fault(
            key,
            format!("{n} is out of range"),
            format!("{} to {}", range.start(), range.end()),
        );
        default
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &str, default: bool) -> bool {
        let Some(item) = self.value(key, || Some(default.to_string()), false) else {
            return default;
        };
        item.bool().unwrap_or_else(|| {
            self.wrong_kind(key, item, "true or false");
            default
        })
    }

    fn read_text(&self, key: &str, default: impl FnOnce() -> Option<String>, secret: bool) -> Option<String> {
        let item = self.value(key, default, secret)?;
        if let Value::String(s) = &item.value {
            return Some(s.clone());
        }
        self.wrong_kind(key, item, "text");
        None
    }

    /// Text, if written.
    pub fn text_opt(&self, key: &str) -> Option<String> {
        self.read_text(key, || None, false)
    }

    /// Text.
    pub fn text(&self, key: &str, default: &str) -> String {
        self.read_text(key, || Some(quote(default)), false)
            .unwrap_or_else(|| default.to_owned())
    }

    /// A path.
    pub fn path(&self, key: &str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key, default))
    }

    /// A secret, if written and not empty.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.read_text(key, || None, true)
            .filter(|s| !s.is_empty())
            .map(Secret::new)
    }

    /// Text that `T` can read, such as a socket address.
    pub fn parsed<T: FromStr + fmt::Display>(&self, key: &str, default: T, expected: &str) -> T {
        let Some(text) = self.read_text(key, || Some(quote(&default.to_string())), false) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.fault(key, format!("{text:?} is not {expected}"), "");
            default
        })
    }

    /// One of a set of words.
    pub fn choice<T: Copy + PartialEq>(&self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let default_word = || words.iter().find(|(_, t)| *t == default).map(|(w, _)| quote(w));
        let Some(text) = self.read_text(key, default_word, false) else {
            return default;
        };
        words.iter().find(|(w, _)| *w == text).map_or_else(
            || {
                let all: Vec<_> = words.iter().map(|(w, _)| *w).collect();
                self.fault(
                    key,
                    format!("{text:?} is not known"),
                    format!("one of {}", all.join(", ")),
                );
                default
            },
            |(_, t)| *t,
        )
    }

    /// A length of time written as `250ms`, `10s`, `5m`, `4h`, `1d`, within `range`.
    pub fn duration(&self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let Some(text) = self.read_text(key, || Some(quote(&show_duration(default))), false) else {
            return default;
        };
        let Some(d) = parse_duration(&text) else {
            self.fault(
                key,
                format!("{text:?} is not a length of time"),
                "write 250ms, 10s, 5m, 4h or 1d",
            );
            return default;
        };
        if range.contains(&d) {
            return d;
        }
        let range = format!("{} to {}", show_duration(*range.start()), show_duration(*range.end()));
        self.fault(key, format!("{text} is out of range"), range);
        default
    }

    /// A number of bytes written as `512KiB`, `64MiB`, `4GiB` or a whole number, within `range`.
    pub fn size(&self, key: &str, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(item) = self.value(key, || Some(quote(&show_size(default))), false) else {
            return default;
        };
        let read = match &item.value {
            Value::Int(n) => usize::try_from(*n).ok(),
            Value::String(text) => parse_size(text),
            _ => None,
        };
        let Some(n) = read else {
            self.fault(
                key,
                "not a number of bytes",
                "write 512KiB, 64MiB, 4GiB or a whole number",
            );
            return default;
        };
        if range.contains(&n) {
            return n;
        }
        let range = format!("{} to {}", show_size(*range.start()), show_size(*range.end()));
        self.fault(key, format!("{} is out of range", show_size(n)), range);
        default
    }

    /// A list of texts. In the environment they are parted by commas.
    pub fn texts(&self, key: &str, default: &[&str]) -> Vec<String> {
        let written = || {
            let texts: Vec<_> = default.iter().map(|s| quote(s)).collect();
            Some(format!("[{}]", texts.join(", ")))
        };
        let Some(item) = self.value(key, written, false) else {
            return default.iter().map(|s| (*s).to_owned()).collect();
        };
        let items = match &item.value {
            Value::Array(items) => items,
            Value::String(text) if item.place.is_text() => {
                let texts = text.split(',').map(str::trim);
                return texts.filter(|t| !t.is_empty()).map(str::to_owned).collect();
            }
            _ => {
                self.wrong_kind(key, item, "a list of texts");
                return Vec::new();
            }
        };
        let mut out = Vec::with_capacity(items.len());
        for i in items {
            match &i.value {
                Value::String(s) => out.push(s.clone()),
                _ => self.wrong_kind(key, i, "text in this list"),
            }
        }
        out
    }

    fn below(&self, path: Vec<Step>, table: Option<&'a Table>) -> Section<'a> {
        Section {
            path,
            table,
            faults: self.faults,
            catalogue: self.catalogue,
            known: RefCell::default(),
        }
    }

    /// The table under `key`; an absent one reads as empty.
    pub fn section(&self, key: &str) -> Section<'a> {
        let item = self.item(key);
        let table = match item.map(|i| &i.value) {
            Some(Value::Table(t)) => Some(t),
            _ => None,
        };
        if let (Some(item), None) = (item, table) {
            self.wrong_kind(key, item, "a table");
        }
        self.below(self.path_to(key), table)
    }

    /// The tables of an array of tables (`[[key]]`), in order.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let Value::Array(items) = &item.value else {
            self.wrong_kind(key, item, "a list of tables");
            return Vec::new();
        };
        let mut out = Vec::with_capacity(items.len());
        for (n, i) in items.iter().enumerate() {
            match &i.value {
                Value::Table(t) => {
                    let mut path = self.path_to(key);
                    path.push(Step::At(n));
                    out.push(self.below(path, Some(t)));
                }
                _ => self.wrong_kind(key, i, "a table in this list"),
            }
        }
        out
    }

    /// The named tables under this one (`[agents.NAME]`), in the order of their names.
    pub fn named(&self) -> Vec<(String, Section<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        table.keys().map(|name| (name.clone(), self.section(name))).collect()
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        let (Some(table), known) = (self.table, self.known.borrow()) else {
            return;
        };
        for key in table.keys().filter(|k| !known.contains(k)) {
            let hint = match nearest(key, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => String::new(),
                None => format!("known here: {}", known.join(", ")),
            };
            self.fault(key, "no such key", hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Place, *};

    fn item(value: Value) -> Item {
        Item {
            value,
            place: Place::Line(3),
        }
    }

    #[test]
    fn all_faults_are_found_at_once_with_key_place_and_hint() {
        let table = Table::from([
            ("max_call".to_owned(), item(Value::Int(5))),
            ("idle".to_owned(), item(Value::String("soon".into()))),
            ("law".to_owned(), item(Value::String("c".into()))),
            ("port".to_owned(), item(Value::Int(99_999))),
        ]);
        let faults = Faults::default();
        let s = Section::root(&table, &faults);
        assert_eq!(s.int("max_calls", 1000u32, 1..=100_000), 1000);
        assert_eq!(
            s.duration("idle", Duration::from_secs(1), Duration::ZERO..=Duration::MAX),
            Duration::from_secs(1)
        );
        assert_eq!(s.choice("law", 1, &[("a", 1), ("u", 2)]), 1);
        assert_eq!(s.int("port", 80u16, 1..=65535), 80);
        s.finish();
        let said: Vec<_> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "line 3: idle: \"soon\" is not a length of time (write 250ms, 10s, 5m, 4h or 1d)",
                "line 3: law: \"c\" is not known (one of a, u)",
                "line 3: port: 99999 is out of range (1 to 65535)",
                "line 3: max_call: no such key (did you mean max_calls?)",
            ]
        );
    }

    #[test]
    fn what_can_only_be_written_as_text_is_read_as_what_is_asked_for() {
        let env = |text: &str| Item {
            value: Value::String(text.into()),
            place: Place::Env("X".into()),
        };
        let table = Table::from([
            ("n".to_owned(), env(" 5 ")),
            ("f".to_owned(), env("0.5")),
            ("b".to_owned(), env("yes")),
            ("l".to_owned(), env("a, b,")),
            ("bad".to_owned(), env("five")),
            ("written".to_owned(), item(Value::String("5".into()))),
        ]);
        let faults = Faults::default();
        let s = Section::root(&table, &faults);
        assert_eq!(s.int("n", 0, 0..=9), 5);
        assert_eq!(s.float("f", 0.0, 0.0..=1.0), 0.5);
        assert!(s.bool("b", false));
        assert_eq!(s.texts("l", &[]), ["a", "b"]);
        assert_eq!((s.int("bad", 1, 0..=9), s.int("written", 2, 0..=9)), (1, 2));
        let said: Vec<_> = faults.take().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "environment variable X: bad: \"five\" is not a whole number",
                "line 3: written: text found where a whole number is expected",
            ]
        );
    }

    #[test]
    fn a_catalogue_learns_keys_and_defaults_at_every_depth() {
        let rule = Table::from([("phrase".to_owned(), item(Value::String("hi".into())))]);
        let rules = Value::Array(vec![item(Value::Table(rule))]);
        let table = Table::from([("rules".to_owned(), item(rules))]);
        let (faults, catalogue) = (Faults::default(), Catalogue::default());
        let s = Section::root(&table, &faults).telling(&catalogue);
        s.int("n", 7u8, 0..=9);
        s.choice("law", 2, &[("a", 1), ("u", 2)]);
        s.duration("idle", Duration::from_secs(60), Duration::ZERO..=Duration::MAX);
        s.size("room", 2048, 0..=usize::MAX);
        s.texts("list", &["x", "y"]);
        s.section("door").secret("key");
        s.sections("rules")[0].text("phrase", "say \"hi\"");
        let learnt = catalogue.take();
        let shown: Vec<_> = learnt
            .iter()
            .map(|k| (show_path(&k.path), k.default.as_deref(), k.secret))
            .collect();
        let shown: Vec<_> = shown.iter().map(|(k, d, s)| (k.as_str(), *d, *s)).collect();
        assert_eq!(
            shown,
            [
                ("n", Some("7"), false),
                ("law", Some("\"u\""), false),
                ("idle", Some("\"1m\""), false),
                ("room", Some("\"2KiB\""), false),
                ("list", Some("[\"x\", \"y\"]"), false),
                ("door.key", None, true),
                ("rules[0].phrase", Some("\"say \\\"hi\\\"\""), false),
            ]
        );
    }
}
