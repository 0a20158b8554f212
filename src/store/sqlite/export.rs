//! Reading everything, table by table, for another database.

use super::{
    SqliteStore, apply,
    open::{self, from_sqlite},
};
use crate::{
    base::time::Wall,
    store::{
        Config, OpenError,
        lock::DaemonLock,
        transfer::{Cell, Content, Kind, Table, TransferError},
    },
};
use rusqlite::{Connection, Row};
use std::path::Path;

/// Rows handed on at once.
const CHUNK: usize = 200;

/// A database that nobody else works with meanwhile.
#[derive(Debug)]
pub(in crate::store) struct Export {
    conn: Connection,
    _lock: DaemonLock,
}

impl Export {
    /// Opens the file, which must be there, as a start of the daemon does.
    pub(in crate::store) fn open(path: &Path, config: &Config) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::unavailable(path.display(), "there is no such file"));
        }
        let (conn, lock, _) = open::open(path, config)?;
        apply::close_open_calls(&conn, Wall::now())
            .map_err(|e| OpenError::unavailable(path.display(), format!("{e:?}")))?;
        open::set_stopped_cleanly(&conn, true).map_err(|e| from_sqlite(path, &e))?;
        Ok(Self { conn, _lock: lock })
    }

    /// Hands on all rows of a table, in order.
    pub(in crate::store) fn read(
        &self,
        table: &Table,
        mut take: impl FnMut(Vec<Vec<Cell>>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let unread = |e: rusqlite::Error| TransferError::Read(e.to_string());
        let columns: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let sql = format!(
            "SELECT {} FROM {} ORDER BY {}",
            columns.join(", "),
            table.name,
            table.order
        );
        let mut statement = self.conn.prepare(&sql).map_err(unread)?;
        let mut rows = statement.query([]).map_err(unread)?;
        let mut chunk = Vec::new();
        while let Some(row) = rows.next().map_err(unread)? {
            let cells = table.columns.iter().enumerate();
            let cells = cells.map(|(n, (name, kind))| {
                cell(row, n, *kind).map_err(|e| TransferError::Read(format!("{}.{name}: {e}", table.name)))
            });
            chunk.push(cells.collect::<Result<_, _>>()?);
            if chunk.len() == CHUNK {
                take(std::mem::take(&mut chunk))?;
            }
        }
        match chunk.is_empty() {
            true => Ok(()),
            false => take(chunk),
        }
    }
}

fn cell(row: &Row<'_>, column: usize, kind: Kind) -> Result<Cell, String> {
    let wrong = |e: rusqlite::Error| e.to_string();
    let text = || row.get::<_, Option<String>>(column).map_err(wrong);
    Ok(match kind {
        Kind::Int => row.get::<_, Option<i64>>(column).map_err(wrong)?.map(Content::Int),
        Kind::Real => row.get::<_, Option<f64>>(column).map_err(wrong)?.map(Content::Real),
        Kind::Bool => row.get::<_, Option<bool>>(column).map_err(wrong)?.map(Content::Bool),
        Kind::Text => text()?.map(Content::Text),
        Kind::Time => {
            let read = |t: String| Wall::parse(&t).ok_or_else(|| format!("{t:?} is no time"));
            text()?.map(read).transpose()?.map(Content::Time)
        }
        Kind::Json => {
            let read = |t: String| serde_json::from_str(&t).map_err(|e| e.to_string());
            text()?.map(read).transpose()?.map(Content::Json)
        }
    })
}

impl SqliteStore {
    /// Brings the schema of the file at `path` up to date, and makes the file where there is none.
    ///
    /// Blocks for as long as that takes.
    pub fn migrate(path: &Path, config: &Config) -> Result<(), OpenError> {
        let (conn, _lock, _) = open::open(path, config)?;
        open::set_stopped_cleanly(&conn, true).map_err(|e| from_sqlite(path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::transfer::TABLES;

    /// Tables that are an engine's own.
    const OWN: [&str; 3] = ["meta", "schema_migrations", "sqlite_sequence"];

    #[test]
    fn every_column_of_every_table_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, _lock, _) = open::open(&folder.path().join("test.db"), &Config::default()).unwrap();
        let list = |sql: &str| -> Vec<String> {
            let mut found = conn.prepare(sql).unwrap();
            let found = found.query_map([], |r| r.get(0)).unwrap();
            found.collect::<Result<_, _>>().unwrap()
        };
        for name in list("SELECT name FROM sqlite_schema WHERE type = 'table'") {
            if OWN.contains(&name.as_str()) {
                continue;
            }
            let moved = TABLES.iter().find(|t| t.name == name);
            let moved = moved.unwrap_or_else(|| panic!("{name} is not moved"));
            let mut columns = list(&format!("SELECT name FROM pragma_table_info('{name}')"));
            // The engine's own number of a row.
            columns.retain(|c| c != "id" || moved.columns.iter().any(|(n, _)| *n == "id"));
            let known: Vec<_> = moved.columns.iter().map(|(n, _)| *n).collect();
            assert_eq!(columns, known, "{name}");
        }
    }
}
