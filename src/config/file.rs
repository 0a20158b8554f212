//! A TOML file as a [`Table`], with the line of every key.

use crate::base::settings::{Fault, Item, Place, Table, Value};
use std::{ops::Range, path::Path};
use toml_edit::{Document, Item as TomlItem, TableLike, Value as TomlValue};

/// Reads and parses the file.
pub(super) fn read(path: &Path) -> Result<Table, Vec<Fault>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        vec![Fault {
            key: String::new(),
            place: None,
            what: format!("{} cannot be read: {e}", path.display()),
            hint: String::new(),
        }]
    })?;
    parse(&text)
}

/// Parses a file's text.
pub(super) fn parse(text: &str) -> Result<Table, Vec<Fault>> {
    let document = Document::parse(text).map_err(|e| {
        vec![Fault {
            key: String::new(),
            place: e.span().map(|s| Place::Line(line(text, s.start))),
            what: e.message().replace('\n', ", "),
            hint: "the file is not TOML beyond this point".to_owned(),
        }]
    })?;
    let mut reader = Reader {
        text,
        faults: Vec::new(),
    };
    let table = reader.table(document.as_table(), 1);
    if reader.faults.is_empty() {
        Ok(table)
    } else {
        Err(reader.faults)
    }
}

fn line(text: &str, at: usize) -> u32 {
    1 + text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count() as u32
}

struct Reader<'t> {
    text: &'t str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    /// The line of a span; that of what surrounds it where the parser keeps none.
    fn line(&self, span: Option<Range<usize>>, around: u32) -> u32 {
        span.map_or(around, |s| line(self.text, s.start))
    }

    fn table(&mut self, table: &dyn TableLike, around: u32) -> Table {
        let mut out = Table::new();
        for (name, item) in table.iter() {
            let key = table.key(name).and_then(toml_edit::Key::span);
            let line = self.line(key.or_else(|| item.span()), around);
            if let Some(value) = self.item(name, item, line) {
                let place = Place::Line(line);
                out.insert(name.to_owned(), Item { value, place });
            }
        }
        out
    }

    fn item(&mut self, name: &str, item: &TomlItem, line: u32) -> Option<Value> {
        match item {
            TomlItem::None => None,
            TomlItem::Value(value) => self.value(name, value, line),
            TomlItem::Table(table) => Some(Value::Table(self.table(table, line))),
            TomlItem::ArrayOfTables(tables) => {
                let items = tables.iter().map(|table| {
                    let line = self.line(table.span(), line);
                    Item {
                        value: Value::Table(self.table(table, line)),
                        place: Place::Line(line),
                    }
                });
                Some(Value::Array(items.collect()))
            }
        }
    }

    fn value(&mut self, name: &str, value: &TomlValue, line: u32) -> Option<Value> {
        Some(match value {
            TomlValue::String(s) => Value::String(s.value().clone()),
            TomlValue::Integer(n) => Value::Int(*n.value()),
            TomlValue::Float(n) => Value::Float(*n.value()),
            TomlValue::Boolean(b) => Value::Bool(*b.value()),
            TomlValue::InlineTable(table) => Value::Table(self.table(table, line)),
            TomlValue::Array(items) => {
                let mut out = Vec::with_capacity(items.len());
                for item in items {
                    let line = self.line(item.span(), line);
                    let place = Place::Line(line);
                    out.extend(self.value(name, item, line).map(|value| Item { value, place }));
                }
                Value::Array(out)
            }
            TomlValue::Datetime(_) => {
                self.faults.push(Fault {
                    key: name.to_owned(),
                    place: Some(Place::Line(line)),
                    what: "a date is found where none is expected".to_owned(),
                    hint: "write it as text, in quotation marks".to_owned(),
                });
                return None;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let text = "a = 1\n\n[b]\nc = \"x\" # why\nd = [1.5,\n  true]\n[[e]]\nf = { g = 1 }\n[[e]]\nh.i = 2\n";
        let table = parse(text).unwrap();
        let mut found = Vec::new();
        walk("", &table, &mut found);
        assert_eq!(
            found,
            [
                "a:1",
                "b:3",
                "b.c:4",
                "b.d:5",
                "b.d[0]:5",
                "b.d[1]:6",
                "e:7",
                "e[0]:7",
                "e[0].f:8",
                "e[0].f.g:8",
                "e[1]:9",
                "e[1].h:10",
                "e[1].h.i:10"
            ]
        );
    }

    fn walk(path: &str, table: &Table, found: &mut Vec<String>) {
        for (key, item) in table {
            visit(format!("{path}{key}"), item, found);
        }
    }

    fn visit(path: String, item: &Item, found: &mut Vec<String>) {
        let Place::Line(n) = item.place else { panic!() };
        found.push(format!("{path}:{n}"));
        match &item.value {
            Value::Table(t) => walk(&format!("{path}."), t, found),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(n, i)| visit(format!("{path}[{n}]"), i, found)),
            _ => {}
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let faults = parse("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].place, Some(Place::Line(2)), "{}", faults[0]);
        assert!(!faults[0].what.is_empty());
    }

    #[test]
    fn a_key_written_twice_is_said() {
        let faults = parse("[a]\nb = 1\nb = 2\n").unwrap_err();
        assert_eq!(faults[0].place, Some(Place::Line(3)), "{}", faults[0]);
    }

    #[test]
    fn a_date_is_said_to_be_text() {
        let faults = parse("a = 2027-01-31\nb = 2027-01-31\n").unwrap_err();
        assert_eq!(faults.len(), 2);
        assert_eq!(faults[1].place, Some(Place::Line(2)));
    }

    #[test]
    fn a_file_that_is_not_there_is_said() {
        let faults = read(Path::new("/nonexistent/sidetone.toml")).unwrap_err();
        assert!(
            faults[0]
                .to_string()
                .starts_with("/nonexistent/sidetone.toml cannot be read"),
            "{}",
            faults[0]
        );
    }
}
