//! The cursor with which every module reads its own part of the configuration, gathering all faults instead of stopping at the first.
//!
//! [`Table`] is the tree as written (file and environment merged by `config`), with a line for each key.
//! A module takes its values from a [`Section`]; what it does not take by [`Section::finish`] is an unknown key.
//! This file knows neither TOML nor any key.

use super::secret::Secret;
use std::{
    cell::RefCell, collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Int(i64),
    /// A number with a point.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    Array(Vec<Item>),
    /// A table or inline table.
    Table(Table),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "text",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, at this line (from 1).
    Line(u32),
    /// In an environment variable.
    Env(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Keys and values of one table.
pub type Table = BTreeMap<String, Item>;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The full key, such as `limits.max_calls`.
    pub key: String,
    /// Where it was written, if it was.
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.key, self.what)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// All faults found so far.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Adds a fault.
    pub fn push(&self, fault: Fault) {
        self.0.borrow_mut().push(fault);
    }

    /// Takes the faults out, in the order found.
    pub fn take(&self) -> Vec<Fault> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// A cursor over one table of the configuration. An absent table reads as empty, so defaults apply.
pub struct Section<'a> {
    path: String,
    table: Option<&'a Table>,
    faults: &'a Faults,
    known: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// A cursor over the root.
    pub fn root(table: &'a Table, faults: &'a Faults) -> Self {
        Self {
            path: String::new(),
            table: Some(table),
            faults,
            known: RefCell::default(),
        }
    }

    /// A cursor over nothing: every value is its default.
    pub fn empty(faults: &'a Faults) -> Self {
        Self {
            path: String::new(),
            table: None,
            faults,
            known: RefCell::default(),
        }
    }

    /// The full name of `key` in this table.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Whether the table was written at all.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        self.known.borrow_mut().push(key.to_owned());
        self.table?.get(key)
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

    fn wrong_kind(&self, key: &str, found: &Value, expected: &str) {
        self.fault(key, format!("{} found where {expected} is expected", found.kind()), "");
    }

    /// A whole number within `range`.
    pub fn int<T>(&self, key: &str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let Some(item) = self.item(key) else { return default };
        let Value::Int(n) = item.value else {
            self.wrong_kind(key, &item.value, "a whole number");
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
        let Some(item) = self.item(key) else { return default };
        let n = match item.value {
            Value::Float(n) => n,
            Value::Int(n) => n as f64,
            _ => {
                self.wrong_kind(key, &item.value, "a number");
                return default;
            }
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
        match self.item(key).map(|i| &i.value) {
            None => default,
            Some(Value::Bool(b)) => *b,
            Some(other) => {
                self.wrong_kind(key, other, "true or false");
                default
            }
        }
    }

    /// Text, if written.
    pub fn text_opt(&self, key: &str) -> Option<String> {
        match self.item(key).map(|i| &i.value) {
            None => None,
            Some(Value::String(s)) => Some(s.clone()),
            Some(other) => {
                self.wrong_kind(key, other, "text");
                None
            }
        }
    }

    /// Text.
    pub fn text(&self, key: &str, default: &str) -> String {
        self.text_opt(key).unwrap_or_else(|| default.to_owned())
    }

    /// A path.
    pub fn path(&self, key: &str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key, default))
    }

    /// A secret, if written and not empty.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.text_opt(key).filter(|s| !s.is_empty()).map(Secret::new)
    }

    /// Text that `T` can read, such as a socket address.
    pub fn parsed<T: FromStr>(&self, key: &str, default: T, expected: &str) -> T {
        let Some(text) = self.text_opt(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.fault(key, format!("{text:?} is not {expected}"), "");
            default
        })
    }

    /// One of a set of words.
    pub fn choice<T: Copy>(&self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.text_opt(key) else { return default };
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
        let Some(text) = self.text_opt(key) else { return default };
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
        let Some(item) = self.item(key) else { return default };
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

    /// A list of texts.
    pub fn texts(&self, key: &str, default: &[&str]) -> Vec<String> {
        let Some(item) = self.item(key) else {
            return default.iter().map(|s| (*s).to_owned()).collect();
        };
        let Value::Array(items) = &item.value else {
            self.wrong_kind(key, &item.value, "a list of texts");
            return Vec::new();
        };
        let mut out = Vec::with_capacity(items.len());
        for i in items {
            match &i.value {
                Value::String(s) => out.push(s.clone()),
                other => self.wrong_kind(key, other, "text in this list"),
            }
        }
        out
    }

    fn below(&self, key: &str, table: Option<&'a Table>) -> Section<'a> {
        Section {
            path: self.key(key),
            table,
            faults: self.faults,
            known: RefCell::default(),
        }
    }

    /// The table under `key`; an absent one reads as empty.
    pub fn section(&self, key: &str) -> Section<'a> {
        let table = match self.item(key).map(|i| &i.value) {
            None => None,
            Some(Value::Table(t)) => Some(t),
            Some(other) => {
                self.wrong_kind(key, other, "a table");
                None
            }
        };
        self.below(key, table)
    }

    /// The tables of an array of tables (`[[key]]`), in order.
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let Value::Array(items) = &item.value else {
            self.wrong_kind(key, &item.value, "a list of tables");
            return Vec::new();
        };
        let mut out = Vec::with_capacity(items.len());
        for (n, i) in items.iter().enumerate() {
            match &i.value {
                Value::Table(t) => out.push(self.below(&format!("{key}[{n}]"), Some(t))),
                other => self.wrong_kind(key, other, "a table in this list"),
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
            let near = known
                .iter()
                .filter(|k| distance(k, key) <= 2)
                .min_by_key(|k| distance(k, key));
            let hint = near.map_or_else(
                || {
                    if known.is_empty() {
                        String::new()
                    } else {
                        format!("known here: {}", known.join(", "))
                    }
                },
                |k| format!("did you mean {k}?"),
            );
            self.fault(key, "no such key", hint);
        }
    }
}

/// Reads `250ms`, `10s`, `5m`, `4h`, `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (n, unit) = text.split_at(digits);
    let n: u64 = n.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    n.checked_mul(ms).map(Duration::from_millis)
}

/// Writes a length of time as [`parse_duration`] reads it, in the largest unit that is exact.
pub fn show_duration(d: Duration) -> String {
    let ms = d.as_millis() as u64;
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// Reads `512KiB`, `64MiB`, `4GiB`, `100`.
pub fn parse_size(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (n, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    n.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Writes a number of bytes as [`parse_size`] reads it, in the largest unit that is exact.
pub fn show_size(bytes: usize) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn durations_read_what_they_write() {
        for text in ["0ms", "250ms", "10s", "90s", "5m", "4h", "1d"] {
            let d = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&show_duration(d)), Some(d), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "10 s"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_what_they_write() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
