//! The steps from an empty database to the schema of this version, for every engine. Steps only add; each runs in one transaction.
//!
//! A step that was released is never edited. A database that knows a later step is refused by the engine.

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: from 1, without gaps.
    pub version: i64,
    /// What it brings.
    pub name: &'static str,
    /// The statements for SQLite. Foreign keys are checked after them, not meanwhile.
    pub sqlite: &'static str,
    /// The statements for PostgreSQL.
    pub postgres: &'static str,
}

/// All steps in order.
pub const ALL: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        sqlite: include_str!("0001_first.sqlite.sql"),
        postgres: include_str!("0001_first.postgres.sql"),
    },
    Migration {
        version: 2,
        name: "roster",
        sqlite: include_str!("0002_roster.sqlite.sql"),
        postgres: include_str!("0002_roster.postgres.sql"),
    },
    Migration {
        version: 3,
        name: "jobs",
        sqlite: include_str!("0003_jobs.sqlite.sql"),
        postgres: include_str!("0003_jobs.postgres.sql"),
    },
    Migration {
        version: 4,
        name: "tenants",
        sqlite: include_str!("0004_tenants.sqlite.sql"),
        postgres: include_str!("0004_tenants.postgres.sql"),
    },
    Migration {
        version: 5,
        name: "keeping",
        sqlite: include_str!("0005_keeping.sqlite.sql"),
        postgres: include_str!("0005_keeping.postgres.sql"),
    },
    Migration {
        version: 6,
        name: "sids",
        sqlite: include_str!("0006_sids.sqlite.sql"),
        postgres: include_str!("0006_sids.postgres.sql"),
    },
    Migration {
        version: 7,
        name: "nodes",
        sqlite: include_str!("0007_nodes.sqlite.sql"),
        postgres: include_str!("0007_nodes.postgres.sql"),
    },
];

/// The version that this daemon writes.
pub const CURRENT: i64 = ALL[ALL.len() - 1].version;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_from_one() {
        for (n, m) in (1..).zip(ALL) {
            assert_eq!(m.version, n, "{}", m.name);
        }
    }
}
