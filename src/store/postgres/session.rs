//! One connection to the server: how it is set up, its prepared statements, and a limit of time on whatever is asked of it.

use super::address::Address;
use crate::store::{Config, Synchronous};
use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio_postgres::{Client, Row, Statement, error::SqlState, types::ToSql};

/// A parameter of a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// Added to the server's own limit before its silence counts as its absence.
const GRACE: Duration = Duration::from_secs(2);
/// Prepared statements that a connection keeps. There are fewer.
const STATEMENTS: usize = 256;

/// Why something was not done. The database may do it later, unless [`Trouble::is_refusal`].
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server or the connection to it.
    Server(tokio_postgres::Error),
    /// No answer in time: whether it was done is not known.
    Silent,
    /// There is no connection.
    Gone,
    /// A row holds what this version cannot read.
    Unreadable,
}

impl Trouble {
    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Server(e) => e.code(),
            Self::Silent | Self::Gone | Self::Unreadable => None,
        }
    }

    /// Whether a constraint was violated.
    pub(super) fn is_contradiction(&self) -> bool {
        self.state().is_some_and(|s| s.code().starts_with("23"))
    }

    /// Whether what was asked can never be done: a constraint, or a value that the server cannot hold.
    pub(super) fn is_refusal(&self) -> bool {
        let refused = |s: &SqlState| ["22", "23", "54"].iter().any(|class| s.code().starts_with(class));
        self.state().is_some_and(refused)
    }

    /// Whether the transaction was broken before.
    pub(super) fn is_echo(&self) -> bool {
        self.state() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
    }

    /// Whether the server told what went wrong, so that the connection may live on.
    pub(super) fn is_told(&self) -> bool {
        self.state().is_some()
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(e: tokio_postgres::Error) -> Self {
        Self::Server(e)
    }
}

impl fmt::Display for Trouble {
    /// What an operator needs: the server's sentence and code, never its details, which quote values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no answer in time"),
            Self::Gone => f.write_str("the connection is gone"),
            Self::Unreadable => f.write_str("a row holds what this version does not know"),
            Self::Server(e) => match e.as_db_error() {
                Some(told) => write!(f, "{} ({})", told.message(), told.code().code()),
                None => match std::error::Error::source(e) {
                    Some(cause) => write!(f, "{e}: {cause}"),
                    None => e.fmt(f),
                },
            },
        }
    }
}

/// What a connection is set to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    address: Address,
    statement: Duration,
    synchronous: Synchronous,
}

impl Settings {
    pub(super) fn new(address: Address, config: &Config) -> Self {
        Self {
            address,
            statement: config.statement_timeout,
            synchronous: config.synchronous,
        }
    }

    pub(super) fn place(&self) -> String {
        self.address.to_string()
    }

    /// How long to wait for an answer.
    fn patience(&self) -> Duration {
        self.statement + GRACE
    }
}

/// A connection.
pub(super) struct Session {
    client: Client,
    patience: Duration,
    statements: Mutex<HashMap<String, Statement>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Connects and sets the connection up. To be run on the runtime that drives connections.
    pub(super) async fn open(settings: &Settings) -> Result<Self, Trouble> {
        let connecting = settings.address.config.connect(settings.address.tls.clone());
        let (client, connection) =
            within(settings.patience(), async { connecting.await.map_err(Trouble::from) }).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        let session = Self {
            client,
            patience: settings.patience(),
            statements: Mutex::default(),
        };
        let synchronous = match settings.synchronous {
            Synchronous::Full => "on",
            Synchronous::Normal => "off",
        };
        let set_up = format!(
            "SET statement_timeout = {}; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '10s';
             SET synchronous_commit = {synchronous}; SET client_min_messages = warning",
            settings.statement.as_millis()
        );
        session.batch(&set_up).await?;
        Ok(session)
    }

    /// Whether the connection is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        within(self.patience, async { Ok(self.client.batch_execute(sql).await?) }).await
    }

    /// Prepares a statement, or finds it prepared.
    pub(super) async fn prepare(&self, sql: &str) -> Result<Statement, Trouble> {
        let known = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(sql)
            .cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = within(self.patience, async { Ok(self.client.prepare(sql).await?) }).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a prepared statement and reads its rows. The request is on its way once the future was polled.
    pub(super) async fn run(&self, statement: &Statement, values: &[Value]) -> Result<Vec<Row>, Trouble> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| &**v as &(dyn ToSql + Sync)).collect();
        within(self.patience, async {
            Ok(self.client.query(statement, &values).await?)
        })
        .await
    }

    /// Prepares a statement and runs it.
    pub(super) async fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Trouble> {
        let statement = self.prepare(sql).await?;
        self.run(&statement, values).await
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(patience, work)
        .await
        .unwrap_or(Err(Trouble::Silent))
}
