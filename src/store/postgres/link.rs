//! The writer's connection: kept while it lives, made anew without holding the writer up.

use super::session::{Session, Settings, Trouble};
use tokio::{runtime::Handle, task::JoinHandle};

/// A connection, or the making of one.
pub(super) struct Link {
    pub(super) io: Handle,
    settings: Settings,
    session: Option<Session>,
    making: Option<JoinHandle<Result<Session, Trouble>>>,
}

impl Link {
    pub(super) const fn new(io: Handle, settings: Settings, session: Session) -> Self {
        Self {
            io,
            settings,
            session: Some(session),
            making: None,
        }
    }

    pub(super) fn place(&self) -> String {
        self.settings.place()
    }

    /// The connection, if it lives.
    pub(super) fn session(&self) -> Result<&Session, Trouble> {
        self.session.as_ref().filter(|s| !s.is_closed()).ok_or(Trouble::Gone)
    }

    /// What was asked failed: the connection goes, unless the server told what was wrong and the transaction could be ended.
    pub(super) async fn recover(&mut self, trouble: &Trouble) {
        let kept = match &self.session {
            Some(session) if trouble.is_told() => session.batch("ROLLBACK").await.is_ok(),
            _ => false,
        };
        if !kept {
            self.session = None;
        }
    }

    /// Whether there is a connection: begins to make one where there is none, and looks how that goes. `None` while it goes on.
    pub(super) fn poll(&mut self) -> Option<Result<(), Trouble>> {
        if self.session().is_ok() {
            return Some(Ok(()));
        }
        self.session = None;
        let settings = &self.settings;
        let making = self.making.get_or_insert_with(|| {
            let settings = settings.clone();
            self.io.spawn(async move { Session::open(&settings).await })
        });
        if !making.is_finished() {
            return None;
        }
        let made = self.making.take().map(|making| self.io.block_on(making));
        match made {
            Some(Ok(Ok(session))) => {
                self.session = Some(session);
                Some(Ok(()))
            }
            Some(Ok(Err(trouble))) => Some(Err(trouble)),
            Some(Err(_)) | None => Some(Err(Trouble::Gone)),
        }
    }
}
