//! Taking in everything of another database, in one transaction.

use super::{
    Io,
    address::Address,
    open,
    rows::{Stamp, json, text},
    session::{Session, Settings, Trouble, Value},
};
use crate::store::{
    Config, OpenError,
    transfer::{Cell, Content, Kind, Table, TransferError},
};
use futures_util::future::join_all;

/// The node of calls that were carried before this database was. They have all ended.
const BEFORE: &str = "moved";

/// A database into which rows are written. Nothing of it is there until [`Import::commit`].
pub(in crate::store) struct Import {
    io: Io,
    settings: Settings,
    session: Session,
}

impl Import {
    /// Connects, brings the schema up to date, and begins.
    pub(in crate::store) fn open(url: &str, config: &Config) -> Result<Self, OpenError> {
        let address = Address::read(url).map_err(|what| OpenError::unavailable("of the target's URL", what))?;
        let settings = Settings::new(address, config);
        let unavailable = |e: &dyn std::fmt::Display| OpenError::unavailable(settings.place(), e);
        let io = Io::start().map_err(|e| unavailable(&e))?;
        let opening = {
            let settings = settings.clone();
            io.handle.spawn(async move { open::open(&settings).await })
        };
        let (session, _) = io.handle.block_on(opening).map_err(|e| unavailable(&e))??;
        let begun = session.batch("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0");
        io.handle.block_on(begun).map_err(|e| unavailable(&e))?;
        Ok(Self { io, settings, session })
    }

    /// Where it is, without user and password.
    pub(in crate::store) fn place(&self) -> String {
        self.settings.place()
    }

    /// Whether a table is not empty.
    pub(in crate::store) fn has_rows(&self, table: &Table) -> Result<bool, TransferError> {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name);
        let asked = self.io.handle.block_on(self.session.query(&sql, &[]));
        asked.map(|rows| !rows.is_empty()).map_err(unwritten)
    }

    /// Writes rows behind those before.
    pub(in crate::store) fn write(&self, table: &Table, rows: Vec<Vec<Cell>>) -> Result<(), TransferError> {
        let mut columns: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let of_calls = table.name == "phone_calls";
        columns.extend(of_calls.then_some("node"));
        let marks: Vec<_> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            table.name,
            columns.join(", "),
            marks.join(", ")
        );
        let written = self.io.handle.block_on(async {
            let statement = self.session.prepare(&sql).await?;
            let rows: Vec<Vec<Value>> = rows
                .into_iter()
                .map(|row| {
                    let cells = row.into_iter().zip(table.columns);
                    let cells = cells.map(|(cell, (_, kind))| value(cell, *kind));
                    cells.chain(of_calls.then(|| text(BEFORE))).collect()
                })
                .collect();
            let sent = rows.iter().map(|row| self.session.run(&statement, row));
            let first_fault = join_all(sent).await.into_iter().find_map(Result::err);
            first_fault.map_or(Ok(()), Err)
        });
        written.map_err(|trouble: Trouble| TransferError::Write(format!("{}: {trouble}", table.name)))
    }

    /// Makes all that was written durable.
    pub(in crate::store) fn commit(self) -> Result<(), TransferError> {
        self.io.handle.block_on(self.session.batch("COMMIT")).map_err(unwritten)
    }
}

fn unwritten(trouble: Trouble) -> TransferError {
    TransferError::Write(trouble.to_string())
}

fn value(cell: Cell, kind: Kind) -> Value {
    match cell {
        Some(Content::Int(n)) => Box::new(n),
        Some(Content::Real(x)) => Box::new(x),
        Some(Content::Bool(b)) => Box::new(b),
        Some(Content::Text(t)) => text(t),
        Some(Content::Time(t)) => Box::new(Stamp(t)),
        Some(Content::Json(j)) => json(&j),
        None => match kind {
            Kind::Int => Box::new(None::<i64>),
            Kind::Real => Box::new(None::<f64>),
            Kind::Bool => Box::new(None::<bool>),
            Kind::Text => Box::new(None::<String>),
            Kind::Time => Box::new(None::<Stamp>),
            Kind::Json => Box::new(None::<serde_json::Value>),
        },
    }
}

#[cfg(test)]
mod tests;
