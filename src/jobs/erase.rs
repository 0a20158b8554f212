//! Erasure: what is kept of a call goes, its files first, then its rows. A durable job, begun where it is asked for.
//!
//! The job is queued in the batch that begins the erasure, taken by whoever began it, and finished by the job runner should that
//! one fail or die. It carries the names of the files, because a call that is erased whole is found by nobody any more.

use super::{Config, Deps, Outcome, files};
use crate::{
    base::{fault::Fault, time::Wall},
    store::{Batch, CallRow, ERASE, JobRow, JobState, Scope, Store, Write},
};
use serde_json::{Value, json};
use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};

/// Erases what is kept of calls.
#[derive(Clone)]
pub struct Eraser {
    store: Arc<dyn Store>,
    config: Config,
    data_root: PathBuf,
}

impl fmt::Debug for Eraser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eraser").finish_non_exhaustive()
    }
}

impl Eraser {
    /// Erases rows of `store`, and files under `data_root` unless their folders are absolute.
    pub const fn new(store: Arc<dyn Store>, config: Config, data_root: PathBuf) -> Self {
        Self {
            store,
            config,
            data_root,
        }
    }

    pub(super) fn of(deps: &Deps) -> Self {
        Self::new(deps.store.clone(), deps.config.clone(), deps.data_root.clone())
    }

    /// Erases something of a call on behalf of `by`. `true` when it is gone; `false` when it has begun and the job runner has to
    /// finish it. Refused (conflict) where the call is held, is not over, or is being erased already.
    pub async fn erase(&self, call: &CallRow, scope: Scope, by: &str) -> Result<bool, Fault> {
        let now = Wall::now();
        let taken = super::later(now, self.config.lease);
        let mut job = JobRow::new(ERASE, call.tenant_id, call.call_id, now, taken);
        job.attempts = 1;
        job.payload = json!({ "scope": scope.as_str(), "by": by, "files": self.files(call, scope) });
        let call_id = call.call_id;
        let writes = vec![Write::Erase { call_id, scope }, Write::Job(Box::new(job.clone()))];
        self.store.commit(Batch { writes }).await?;
        audit("erasure begun", &job);
        let done = match self.run(&job).await {
            Outcome::Done(writes) => {
                let moved = job.moved(JobState::Done, job.attempts, Wall::now(), None);
                let writes = [vec![Write::JobMove(Box::new(moved))], writes].concat();
                self.store.commit(Batch { writes }).await.map(drop)
            }
            Outcome::Later(why, _) | Outcome::Never(why, _) => Err(Fault::internal(why)),
        };
        match done {
            Ok(()) => {
                audit("erased", &job);
                Ok(true)
            }
            Err(fault) => {
                warn!(%fault, job = job.id, "an erasure is not finished: it is tried again");
                Ok(false)
            }
        }
    }

    /// Removes the files of a job, and says what is to be written of it.
    pub(super) async fn run(&self, job: &JobRow) -> Outcome {
        let Some(scope) = scope(job) else {
            return Outcome::Never("this version knows no such erasure".to_owned(), Vec::new());
        };
        let named = job.payload["files"].as_array().into_iter().flatten();
        let paths: Vec<_> = named.filter_map(Value::as_str).filter_map(|n| self.place(n)).collect();
        match tokio::task::spawn_blocking(move || paths.iter().try_for_each(|p| remove(p))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Outcome::Later(format!("a file could not be removed: {error}"), Duration::ZERO),
            Err(_) => return Outcome::Later("the files could not be removed".to_owned(), Duration::ZERO),
        }
        let mut writes = Vec::new();
        if scope != Scope::All {
            match self.store.call(job.tenant_id, job.call_id.as_str()).await {
                Ok(Some(call)) => writes.push(files::change(&call, without(&call.metadata, scope))),
                Ok(None) => return Outcome::Never("the call is not on record".to_owned(), Vec::new()),
                Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
            }
        }
        writes.push(Write::Erased {
            call_id: job.call_id,
            scope,
        });
        Outcome::Done(writes)
    }

    /// Removes what a job wrote for a call whose words were erased while it ran.
    pub(super) async fn sweep(&self, call: &CallRow) {
        let paths: Vec<_> = self
            .files(call, Scope::Text)
            .iter()
            .filter_map(|n| self.place(n))
            .collect();
        let removed = tokio::task::spawn_blocking(move || paths.iter().try_for_each(|p| remove(p))).await;
        if !matches!(removed, Ok(Ok(()))) {
            warn!(
                session = call.session_id,
                "files of an erased call could not be removed"
            );
        }
    }

    /// The names of the files that go.
    fn files(&self, call: &CallRow, scope: Scope) -> Vec<String> {
        let mut names = Vec::new();
        if scope != Scope::Text {
            names.extend(call.recording.clone());
            let more = call.metadata.get("more_recordings").and_then(Value::as_array);
            names.extend(more.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        }
        if scope != Scope::Audio {
            let (transcript, file) = files::paths(&self.config, Path::new(""), call);
            for path in [transcript, file] {
                names.extend([path.with_extension("part"), path].map(|p| p.to_string_lossy().into_owned()));
            }
        }
        names
    }

    /// Where a file is, unless its name leads elsewhere.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let name = Path::new(name);
        let straight = !name.components().any(|c| c == Component::ParentDir);
        straight.then(|| self.data_root.join(name))
    }
}

/// A line for those who must show what was erased, when, and on whose behalf.
pub(super) fn audit(what: &'static str, job: &JobRow) {
    let of = |key: &str| job.payload[key].as_str().unwrap_or_default();
    info!(
        target: "sidetone::audit",
        tenant = job.tenant_id.0,
        call = %job.call_id,
        scope = of("scope"),
        by = of("by"),
        "audit: {what}"
    );
}

fn scope(job: &JobRow) -> Option<Scope> {
    job.payload["scope"].as_str().and_then(Scope::parse)
}

/// What changes in the metadata of a call: what goes is null, and when it went is there.
fn without(metadata: &Value, scope: Scope) -> Value {
    let mut changed = serde_json::Map::new();
    let gone: &[&str] = match scope {
        Scope::Audio => &["more_recordings"],
        Scope::Text | Scope::All => &["extracted", "extraction"],
    };
    for name in gone.iter().filter(|name| metadata.get(name).is_some()) {
        changed.insert((*name).to_owned(), Value::Null);
    }
    if scope != Scope::Audio
        && let Some(figures) = metadata.get("analytics").and_then(Value::as_object)
    {
        let mut figures = figures.clone();
        figures.remove("question_answers");
        changed.insert("analytics".to_owned(), figures.into());
    }
    changed.insert(format!("{}_erased_at", scope.as_str()), json!(Wall::now()));
    changed.into()
}

/// Removes a file for good. One that is not there is gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_leaves_the_metadata_and_figures_stay() {
        let metadata = json!({
            "analytics": { "duration": 7, "question_answers": [{ "question": "Who?" }] },
            "extracted": { "name": "Ada" },
            "more_recordings": ["recordings/b.wav"],
        });
        let changed = |metadata: &Value, scope: Scope| {
            let mut changed = without(metadata, scope);
            let at = changed
                .as_object_mut()
                .unwrap()
                .remove(&format!("{}_erased_at", scope.as_str()));
            assert!(at.is_some_and(|at| at.is_string()));
            changed
        };
        let text = json!({ "analytics": { "duration": 7 }, "extracted": null });
        assert_eq!(changed(&metadata, Scope::Text), text);
        assert_eq!(changed(&metadata, Scope::Audio), json!({ "more_recordings": null }));
        assert_eq!(changed(&Value::Null, Scope::Text), json!({}));
    }

    #[test]
    fn a_file_is_gone_for_good_and_gone_twice_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        fs::write(&path, "x").unwrap();
        for _ in 0..2 {
            remove(&path).unwrap();
            assert!(!path.exists());
        }
    }
}
