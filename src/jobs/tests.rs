//! Delays, and erasure on a real store: what is too old goes by its tenant's rule, and what has begun is finished by the runner.

use super::*;
use crate::{
    base::ids::CallId,
    store::{self, CallStatus, Retention, Scope, sqlite::SqliteStore},
};
use serde_json::json;
use std::path::Path;

const TENANT: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn delays_double_to_an_hour_and_vary() {
    for (attempts, most) in [(1, 2), (2, 4), (5, 32), (12, 3600), (1000, 3600)] {
        let (d, most) = (delay(attempts), Duration::from_secs(most));
        assert!(d <= most && d >= most / 2, "{attempts}: {d:?}");
    }
}

struct Nobody;

impl Agents for Nobody {
    fn wishes(&self, _: TenantId, _: &str) -> Wishes {
        Wishes::default()
    }
}

fn deps(folder: &Path) -> Arc<Deps> {
    let store = SqliteStore::open(&folder.join("test.db"), &store::Config::default()).unwrap();
    let faults = crate::base::settings::Faults::default();
    let mut config = Config::read(&crate::base::settings::Section::empty(&faults));
    config.retention.audio = Some(HOUR * 24);
    Arc::new(Deps {
        config,
        store: Arc::new(store),
        agents: Arc::new(Nobody),
        http: HttpClient::new(),
        tenant_http: HttpClient::new(),
        data_root: folder.to_owned(),
    })
}

/// A call of a tenant that ended so long ago, with all its files.
async fn ended(deps: &Deps, tenant: TenantId, ago: Duration) -> CallRow {
    let call_id = CallId::new();
    let end = Wall::from_micros(Wall::now().as_micros() - ago.as_micros() as i64);
    let row = CallRow {
        call_id,
        call_sid: format!("CA{call_id}"),
        session_id: call_id.to_string(),
        vendor: "acme".into(),
        inbound: true,
        customer_number: "+15550101".into(),
        organization_number: "+15550100".into(),
        status: CallStatus::Ended,
        end_reason: None,
        start_time: end,
        answered_at: Some(end),
        end_time: Some(end),
        duration: Some(1),
        tenant_id: tenant,
        agent: "desk".into(),
        recording: Some(format!("recordings/{call_id}.wav")),
        legal_hold: false,
        metadata: json!({ "more_recordings": [format!("recordings/{call_id}-2.wav")], "extracted": { "name": "Ada" } }),
    };
    let writes = vec![Write::Call(Box::new(row.clone()))];
    deps.store.commit(Batch { writes }).await.unwrap();
    for file in audio_of(deps, &row).into_iter().chain(text_of(deps, &row)) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    row
}

fn audio_of(deps: &Deps, call: &CallRow) -> [PathBuf; 2] {
    let first = call.recording.as_ref().unwrap();
    let second = call.metadata["more_recordings"][0].as_str().unwrap();
    [first, second].map(|name| deps.data_root.join(name))
}

fn text_of(deps: &Deps, call: &CallRow) -> [PathBuf; 2] {
    files::paths(&deps.config, &deps.data_root, call).into()
}

/// Whether any of them is left.
fn there(files: [PathBuf; 2]) -> bool {
    files.iter().any(|f| f.exists())
}

/// Looks until `done`, for at most ten seconds.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

#[tokio::test]
async fn what_is_too_old_goes_by_its_tenants_rule_and_what_is_held_stays() {
    let folder = tempfile::tempdir().unwrap();
    let deps = deps(folder.path());
    let rule = Retention {
        audio: None,
        text: Some(HOUR * 2),
    };
    let writes = vec![Write::Retention {
        tenant: OTHER,
        retention: Some(rule),
    }];
    deps.store.commit(Batch { writes }).await.unwrap();
    let mut old = Vec::new();
    // More than a page.
    for _ in 0..120 {
        old.push(ended(&deps, TENANT, HOUR * 25).await);
    }
    let young = ended(&deps, TENANT, HOUR * 23).await;
    let held = ended(&deps, TENANT, HOUR * 25).await;
    let foreign = ended(&deps, OTHER, HOUR * 25).await;
    let call_id = held.call_id;
    let writes = vec![Write::Hold { call_id, held: true }];
    deps.store.commit(Batch { writes }).await.unwrap();

    let keeping = tokio::spawn({
        let deps = deps.clone();
        async move { retention::run(&deps).await }
    });
    until(async || !there(text_of(&deps, &foreign)) && old.iter().all(|c| !there(audio_of(&deps, c)))).await;
    until(async || {
        let filter = JobFilter {
            state: Some(JobState::Queued),
            limit: 1,
            ..JobFilter::default()
        };
        deps.store.jobs(filter).await.unwrap().is_empty()
    })
    .await;
    keeping.abort();
    for call in [&young, &held] {
        assert!(there(audio_of(&deps, call)));
    }
    assert!(there(audio_of(&deps, &foreign)), "its own rule keeps sound for ever");
    assert!(there(text_of(&deps, &old[0])), "words are kept for ever here");
    let read = async |call: &CallRow| {
        let found = deps.store.call(call.tenant_id, call.call_id.as_str()).await;
        found.unwrap().unwrap()
    };
    let gone = read(&old[0]).await;
    assert_eq!(
        (gone.recording, &gone.metadata["more_recordings"]),
        (None, &Value::Null)
    );
    assert!(gone.metadata["audio_erased_at"].is_string() && gone.metadata["extracted"].is_object());
    let silent = read(&foreign).await;
    assert_eq!(
        (&silent.metadata["extracted"], silent.recording.is_some()),
        (&Value::Null, true)
    );
}

#[tokio::test]
async fn an_erasure_that_has_begun_is_finished_by_whoever_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let deps = deps(folder.path());
    let call = ended(&deps, TENANT, HOUR).await;
    // A folder in a file's place: it cannot be removed.
    let [recording, _] = audio_of(&deps, &call);
    std::fs::remove_file(&recording).unwrap();
    std::fs::create_dir(&recording).unwrap();
    let finished = Eraser::of(&deps).erase(&call, Scope::All, "a test").await.unwrap();
    assert!(!finished);
    let found = deps.store.call(TENANT, call.call_id.as_str()).await.unwrap();
    assert_eq!(found, None, "nobody finds it any more");
    std::fs::remove_dir(&recording).unwrap();

    // As after the death of whoever began: the lease is over.
    let job = deps
        .store
        .jobs(JobFilter {
            limit: 1,
            ..JobFilter::default()
        })
        .await
        .unwrap()
        .remove(0);
    let due = job.moved(JobState::Queued, job.attempts, Wall::now(), None);
    let writes = vec![Write::JobMove(Box::new(due))];
    deps.store.commit(Batch { writes }).await.unwrap();
    let running = tokio::spawn(run(deps.clone()));
    until(async || {
        let left = deps
            .store
            .jobs(JobFilter {
                limit: 1,
                ..JobFilter::default()
            })
            .await;
        left.unwrap().is_empty()
    })
    .await;
    running.abort();
    assert!(!there(audio_of(&deps, &call)) && !there(text_of(&deps, &call)));
}

#[tokio::test]
async fn what_a_job_leaves_behind_an_erasure_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let deps = deps(folder.path());
    let call = ended(&deps, TENANT, HOUR).await;
    let now = Wall::now();
    let job = JobRow::after_call(&call, now, now);
    let writes = vec![Write::Job(Box::new(job.clone()))];
    deps.store.commit(Batch { writes }).await.unwrap();
    let job = take(&deps, job).await.unwrap();
    // The call goes while the job runs.
    assert!(Eraser::of(&deps).erase(&call, Scope::Text, "a test").await.unwrap());
    assert!(!there(text_of(&deps, &call)));
    attempt(&deps, job).await;
    assert!(!there(text_of(&deps, &call)));
    let again = Eraser::of(&deps).erase(&call, Scope::Text, "a test").await;
    assert!(again.unwrap(), "gone twice is gone");
}
