//! WebSockets that wait to be used: opened when a webhook announces a call, or left over from a piece of speech.
//!
//! They belong to a service and its key, and any lane may take one. Bounded in number and age; nobody's is closed.

use super::{Line, Service};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

/// How many wait at most, in place of the oldest.
const SPARES: usize = 64;

/// One that waits.
#[derive(Debug)]
pub struct Spare {
    /// What was asked for when it was opened: path and query.
    pub path: String,
    /// The socket.
    pub line: Line,
    /// When it was opened.
    pub opened: Instant,
    /// Pieces of text and characters that it has spoken.
    pub spoken: (usize, usize),
    /// How often it was kept open.
    pub nudges: u64,
}

/// Those of one service.
#[derive(Debug, Default)]
pub struct Spares {
    waiting: Mutex<Vec<Spare>>,
    /// The paths that somebody looks after.
    tended: Mutex<Vec<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks after a path, alone, until it is dropped.
struct Tender<'a>(&'a Spares, &'a str);

impl Drop for Tender<'_> {
    fn drop(&mut self) {
        lock(&self.0.tended).retain(|path| path != self.1);
    }
}

impl Spares {
    /// Whoever comes first looks after a path.
    fn tender<'a>(&'a self, path: &'a str) -> Option<Tender<'a>> {
        let mut tended = lock(&self.tended);
        let free = !tended.iter().any(|other| other == path);
        free.then(|| {
            tended.push(path.to_owned());
            Tender(self, path)
        })
    }

    /// One for this path which is not older than `age` and still open.
    pub fn take(&self, path: &str, age: Duration) -> Option<Spare> {
        let mut spares = lock(&self.waiting);
        spares.retain_mut(|s| s.path != path || (s.opened.elapsed() < age && s.is_usable()));
        let at = spares.iter().position(|s| s.path == path)?;
        Some(spares.remove(at))
    }

    /// Lets one wait, in place of the oldest where there are too many.
    pub fn put(&self, spare: Spare) {
        let mut spares = lock(&self.waiting);
        if spares.len() >= SPARES {
            spares.remove(0);
        }
        spares.push(spare);
    }

    /// Looks after those of a path: sends them what keeps them open, and gives back those that waited longer than `age` or broke.
    /// Gives the path up where none is left.
    fn tend(&self, path: &str, age: Duration, keep_alive: Option<&Message>) -> (Vec<Spare>, bool) {
        let mut spares = lock(&self.waiting);
        let over = spares.extract_if(.., |s| {
            s.path == path
                && (s.opened.elapsed() >= age
                    || !s.is_usable()
                    || keep_alive.is_some_and(|message| !s.nudge(message.clone())))
        });
        let over = over.collect();
        let left = spares.iter().any(|s| s.path == path);
        if !left {
            // Under the lock: whoever lets another wait looks after it.
            lock(&self.tended).retain(|other| other != path);
        }
        (over, left)
    }
}

impl Spare {
    /// Whether it is open and has said nothing that somebody should have heard: a greeting is kept for who uses it.
    fn is_usable(&mut self) -> bool {
        self.line.is_quiet(self.spoken.0 == 0)
    }

    fn nudge(&mut self, message: Message) -> bool {
        self.nudges += 1;
        self.line.nudge(message)
    }
}

impl Service {
    /// Looks after the spare sockets of a path until none waits, unless somebody does already: keeps them open while somebody may
    /// come for them, and closes those that nobody came for within `age`.
    pub async fn tend(&self, path: &str, age: Duration, every: Duration, keep_alive: Option<Message>) {
        let Some(tender) = self.spares.tender(path) else {
            return;
        };
        loop {
            sleep(every.min(age)).await;
            let (over, left) = self.spares.tend(path, age, keep_alive.as_ref());
            over.into_iter().for_each(|spare| self.resume(spare.line).close());
            if !left {
                // It is given up already.
                std::mem::forget(tender);
                return;
            }
        }
    }
}
