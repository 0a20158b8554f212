//! Moving everything from a SQLite file into an empty PostgreSQL database, in one transaction: all of it arrives, or nothing.

use super::{Config, OpenError, postgres::Import, sqlite::Export};
use crate::base::time::Wall;
use serde_json::Value as Json;
use std::{fmt, path::Path};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Real,
    Bool,
    Text,
    Time,
    Json,
}

/// A value of a row, `None` for NULL.
pub(super) type Cell = Option<Content>;

/// What is not NULL.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Int(i64),
    Real(f64),
    Bool(bool),
    Text(String),
    Time(Wall),
    Json(Json),
}

/// A table that both engines have. Numbers that the engine gives to rows by itself are not moved.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// The columns that rows are read by.
    pub(super) order: &'static str,
}

use Kind::{Bool, Int, Json as J, Real, Text, Time};

/// Every table, those that others refer to first.
pub(super) static TABLES: &[Table] = &[
    Table {
        name: "tenants",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("created_at", Time),
            ("active", Bool),
            ("settings", J),
            ("updated_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "api_keys",
        columns: &[
            ("id", Text),
            ("tenant_id", Int),
            ("name", Text),
            ("prefix", Text),
            ("hash", Text),
            ("role", Text),
            ("scopes", Text),
            ("created_by", Text),
            ("created_at", Time),
            ("expires_at", Time),
            ("revoked_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "agents",
        columns: &[
            ("id", Text),
            ("tenant_id", Int),
            ("source", Text),
            ("name", Text),
            ("settings", J),
            ("created_at", Time),
            ("updated_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "phone_numbers",
        columns: &[
            ("id", Text),
            ("tenant_id", Int),
            ("source", Text),
            ("number", Text),
            ("vendor", Text),
            ("display_name", Text),
            ("agent_id", Text),
            ("status", Text),
            ("settings", J),
            ("secrets", Text),
            ("created_at", Time),
            ("updated_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "phone_calls",
        columns: &[
            ("call_id", Text),
            ("call_sid", Text),
            ("session_id", Text),
            ("vendor", Text),
            ("direction", Text),
            ("customer_number", Text),
            ("organization_number", Text),
            ("status", Text),
            ("end_reason", Text),
            ("start_time", Time),
            ("answered_at", Time),
            ("end_time", Time),
            ("duration", Int),
            ("tenant_id", Int),
            ("agent", Text),
            ("recording", Text),
            ("metadata", J),
            ("created_at", Time),
            ("updated_at", Time),
            ("legal_hold", Bool),
            ("erasing", Text),
            ("text_erased_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "phone_call_messages",
        columns: &[
            ("message_id", Text),
            ("call_id", Text),
            ("tenant_id", Int),
            ("seq", Int),
            ("message_type", Text),
            ("content", Text),
            ("sender_type", Text),
            ("sender_name", Text),
            ("confidence", Real),
            ("detected_language", Text),
            ("is_final", Bool),
            ("delivery", Text),
            ("heard_ms", Int),
            ("metadata", J),
            ("created_at", Time),
            ("updated_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "jobs",
        columns: &[
            ("id", Text),
            ("tenant_id", Int),
            ("kind", Text),
            ("call_id", Text),
            ("payload", J),
            ("state", Text),
            ("attempts", Int),
            ("due_at", Time),
            ("error", Text),
            ("created_at", Time),
            ("updated_at", Time),
        ],
        order: "id",
    },
    Table {
        name: "retention",
        columns: &[
            ("tenant_id", Int),
            ("audio_seconds", Int),
            ("text_seconds", Int),
            ("updated_at", Time),
        ],
        order: "tenant_id",
    },
    Table {
        name: "tenant_counters",
        columns: &[("tenant_id", Int), ("last_event_id", Int)],
        order: "tenant_id",
    },
    Table {
        name: "events",
        columns: &[
            ("tenant_id", Int),
            ("id", Int),
            ("call_id", Text),
            ("payload", Text),
            ("created_at", Time),
        ],
        order: "tenant_id, id",
    },
    Table {
        name: "seen_webhooks",
        columns: &[("vendor", Text), ("key", Text), ("seen_at", Time)],
        order: "vendor, key",
    },
];

/// Why nothing was moved.
#[derive(Debug)]
pub enum TransferError {
    /// One of the two could not be opened.
    Open(OpenError),
    /// The target holds rows: only an empty database is moved into.
    NotEmpty {
        /// The target, without user and password.
        place: String,
        /// A table with rows.
        table: &'static str,
    },
    /// The file could not be read.
    Read(String),
    /// The target could not be written.
    Write(String),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(e) => e.fmt(f),
            Self::NotEmpty { place, table } => write!(
                f,
                "database {place} is not empty ({table} has rows): move into a new one, nothing was changed"
            ),
            Self::Read(what) => write!(f, "the file could not be read, nothing was moved: {what}"),
            Self::Write(what) => write!(f, "the target could not be written, nothing was moved: {what}"),
        }
    }
}

impl std::error::Error for TransferError {}

/// Moves everything; returns how many rows of each table. The daemon of the file must have stopped.
///
/// The file is opened as a start of the daemon would: calls that were left open end as `interrupted`. It stays where it is.
pub fn transfer(file: &Path, url: &str, config: &Config) -> Result<Vec<(&'static str, u64)>, TransferError> {
    let export = Export::open(file, config).map_err(TransferError::Open)?;
    let import = Import::open(url, config).map_err(TransferError::Open)?;
    for table in TABLES {
        if import.has_rows(table)? {
            return Err(TransferError::NotEmpty {
                place: import.place(),
                table: table.name,
            });
        }
    }
    let mut moved = Vec::new();
    for table in TABLES {
        let mut rows = 0;
        export.read(table, |chunk| {
            rows += chunk.len() as u64;
            import.write(table, chunk)
        })?;
        moved.push((table.name, rows));
    }
    import.commit()?;
    Ok(moved)
}
