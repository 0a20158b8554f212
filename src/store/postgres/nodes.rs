//! Who lives: each node of a cluster raises a number of its own, and what a node whose number stands still left open is closed by
//! another, once.
//!
//! It has a connection of its own, so that a beat does not wait behind the writer's work and says nothing but that the node lives
//! and reaches the database.

use super::{
    apply::{self, NotApplied, Pen},
    rows::{int, text, time},
    session::{Session, Settings, Trouble},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        time::Wall,
    },
    store::{ClosedCall, NodeBeat},
};
use tokio::{runtime::Handle, sync::Mutex};

/// The connection.
#[derive(Debug)]
pub(super) struct Vitals {
    io: Handle,
    settings: Settings,
    node: String,
    session: Mutex<Option<Session>>,
}

impl Vitals {
    pub(super) fn new(io: Handle, settings: Settings, node: &str) -> Self {
        Self {
            io,
            settings,
            node: node.to_owned(),
            session: Mutex::default(),
        }
    }

    /// Raises this node's number and reads those of the others.
    pub(super) async fn beat(&self) -> Result<Vec<NodeBeat>, Fault> {
        let mut kept = self.session.lock().await;
        let session = self.take(&mut kept).await?;
        let beats = beat(&session, &self.node).await.map_err(away)?;
        *kept = Some(session);
        Ok(beats)
    }

    /// Takes a node's row away, unless it has raised its number above `beat`, and closes its calls. Who comes second finds nothing
    /// to be done.
    pub(super) async fn bury(&self, dead: &NodeBeat) -> Result<Vec<ClosedCall>, Fault> {
        let mut kept = self.session.lock().await;
        let session = self.take(&mut kept).await?;
        let closed = bury(&session, dead).await.map_err(away)?;
        *kept = Some(session);
        Ok(closed)
    }

    /// Takes the connection out, or makes one: what is broken off on it is not used again.
    async fn take(&self, kept: &mut Option<Session>) -> Result<Session, Fault> {
        match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => Ok(session),
            None => self.connect().await.map_err(away),
        }
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let settings = self.settings.clone();
        let opening = self.io.spawn(async move { Session::open(&settings).await });
        opening.await.unwrap_or(Err(Trouble::Gone))
    }
}

fn away(trouble: Trouble) -> Fault {
    tracing::debug!(error = %trouble, "the beats of nodes cannot be read and written");
    Fault::new(Origin::Us, Kind::Unavailable, "the database could not be reached")
}

async fn beat(db: &Session, node: &str) -> Result<Vec<NodeBeat>, Trouble> {
    db.query(
        "INSERT INTO nodes AS n (id, beat, beat_at) VALUES ($1, 1, $2)
         ON CONFLICT (id) DO UPDATE SET beat = n.beat + 1, beat_at = $2",
        &[text(node), time(Wall::now())],
    )
    .await?;
    let found = db
        .query(
            "SELECT id, beat FROM nodes WHERE id <> $1 ORDER BY id LIMIT 1000",
            &[text(node)],
        )
        .await?;
    let read = |row: &tokio_postgres::Row| -> Result<NodeBeat, Trouble> {
        Ok(NodeBeat {
            node: row.try_get(0)?,
            beat: row.try_get(1)?,
        })
    };
    found.iter().map(read).collect()
}

async fn bury(db: &Session, dead: &NodeBeat) -> Result<Vec<ClosedCall>, Trouble> {
    db.batch("BEGIN").await?;
    let ours = db
        .query(
            "DELETE FROM nodes WHERE id = $1 AND beat = $2 RETURNING 1",
            &[text(&dead.node), int(dead.beat)],
        )
        .await?;
    if ours.is_empty() {
        db.batch("ROLLBACK").await?;
        return Ok(Vec::new());
    }
    let pen = Pen {
        node: &dead.node,
        now: Wall::now(),
    };
    let closed = match apply::close_open_calls(db, pen).await {
        Ok(closed) => closed,
        Err(NotApplied::Engine(trouble)) => return Err(trouble),
        Err(NotApplied::Duplicate | NotApplied::Batch(_)) => return Err(Trouble::Unreadable),
    };
    db.batch("COMMIT").await?;
    Ok(closed)
}
