//! Why a database was not opened.

use std::fmt;

/// Why a database was not opened. It was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is damaged: restore a backup. The daemon repairs nothing by deleting.
    Damaged {
        /// The file, or the server's address without user and password.
        place: String,
        /// What the engine found.
        what: String,
    },
    /// It was written by a newer version: run that one.
    TooNew {
        /// The file or address.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// It is a database of something else: configure another one.
    Foreign {
        /// The file or address.
        place: String,
    },
    /// Another daemon works with it: stop that one, or configure another one.
    InUse {
        /// The file or folder.
        place: String,
    },
    /// It cannot be opened or written now: permissions, space, a lock, a server that is away.
    Unavailable {
        /// The file or address.
        place: String,
        /// What the system or the server said.
        what: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { place, what } => write!(
                f,
                "database {place} is damaged ({what}): restore a backup, or move it away to begin anew"
            ),
            Self::TooNew { place, found, known } => write!(
                f,
                "database {place} has schema {found}, and this version knows {known}: run the newer version"
            ),
            Self::Foreign { place } => write!(
                f,
                "{place} is a database of another program: configure another store.path or store.url"
            ),
            Self::InUse { place } => write!(
                f,
                "{place} is in use by another sidetone: stop it, or configure another one"
            ),
            Self::Unavailable { place, what } => write!(f, "database {place} cannot be opened: {what}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    /// It cannot be opened now.
    pub(super) fn unavailable(place: impl ToString, what: impl ToString) -> Self {
        Self::Unavailable {
            place: place.to_string(),
            what: what.to_string(),
        }
    }
}
