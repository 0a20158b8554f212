//! The cursor with which every module reads its own part of the configuration, gathering all faults instead of stopping at the first.
//!
//! [`Table`] is the tree as written (file, environment and arguments merged by `config`), with the place of each key.
//! A module takes its values from a [`Section`]; what it does not take by [`Section::finish`] is an unknown key.
//! A [`Catalogue`] learns every key and default as it is taken. Nothing here knows TOML or any key.

pub mod json;
mod section;
mod words;

pub use section::Section;
pub use words::{nearest, parse_duration, parse_size, show_duration, show_size};

use std::{cell::RefCell, collections::BTreeMap, fmt};

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

impl Item {
    /// The text that stands for a value where only text can be written.
    fn loose(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) if self.place.is_text() => Some(text.trim()),
            _ => None,
        }
    }

    fn int(&self) -> Option<i64> {
        match self.value {
            Value::Int(n) => Some(n),
            _ => self.loose()?.parse().ok(),
        }
    }

    fn float(&self) -> Option<f64> {
        match self.value {
            Value::Float(n) => Some(n),
            Value::Int(n) => Some(n as f64),
            _ => self.loose()?.parse().ok().filter(|n: &f64| n.is_finite()),
        }
    }

    fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(b) => Some(b),
            _ => match self.loose()? {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
        }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, at this line (from 1).
    Line(u32),
    /// In an environment variable.
    Env(String),
    /// In an argument of the command line.
    Flag(String),
    /// In a file of its own, as secrets are.
    File(String),
    /// In the JSON of a request.
    Request,
}

impl Place {
    /// Whether only text can be written there, so that a number is text that reads as one.
    const fn is_text(&self) -> bool {
        !matches!(self, Self::Line(_) | Self::Request)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::File(path) => write!(f, "file {path}"),
            Self::Request => f.write_str("request"),
        }
    }
}

/// Keys and values of one table.
pub type Table = BTreeMap<String, Item>;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The full key, such as `limits.max_calls`; empty when the fault lies with no key.
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
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
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

/// A step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a table, by its key.
    Key(String),
    /// Into a list, by position.
    At(usize),
}

/// Writes a path as it is shown: `access.jwt[0].secret`.
pub fn show_path(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::At(n) => out += &format!("[{n}]"),
            Step::Key(key) if out.is_empty() => out += key,
            Step::Key(key) => out += &format!(".{key}"),
        }
    }
    out
}

/// A key that a module asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The way to it.
    pub path: Vec<Step>,
    /// Its default as TOML writes it; `None` where there is none.
    pub default: Option<String>,
    /// Whether it is a secret.
    pub secret: bool,
}

/// Every key that was asked for, in the order of asking.
#[derive(Debug, Default)]
pub struct Catalogue(RefCell<Vec<Known>>);

impl Catalogue {
    fn learn(&self, known: Known) {
        self.0.borrow_mut().push(known);
    }

    /// Takes the keys out.
    pub fn take(&self) -> Vec<Known> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}
