//! The pool against workers that misbehave: small shell scripts in the place of `sidetone stt-worker`.

use super::{
    Config, DESCRIPTOR, PocketSphinx, Shared,
    pool::{Pool, PoolError},
    proto::{Ask, Reply},
};
use crate::{
    audio::{ring, tone::Sine},
    base::ids::TenantId,
    speech::{self, EarSpec, Speech, SpeechEvent, stt::Engine},
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The tenant of most tests.
const ALONE: TenantId = TenantId(1);

struct Bench {
    folder: tempfile::TempDir,
    pool: Pool,
}

/// A pool of one worker that runs `script` in a folder of its own.
fn bench(script: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("cd {} || exit 1; echo $$ >>pids; {script}", folder.path().display());
    let pool = Pool::start(config(&script, Duration::from_millis(300)));
    Bench { folder, pool }
}

/// One worker that runs `script`, and a queue of one.
fn config(script: &str, patience: Duration) -> Config {
    Config {
        workers: 1,
        queue: 1,
        library: String::new(),
        model: String::new(),
        memory_mb: 64,
        filler_margin: 0.0,
        patience,
        worker_command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
    }
}

impl Bench {
    async fn ask(&self) -> Result<Reply, PoolError> {
        self.pool
            .ask(ALONE, Ask::Phrase(vec!["yes".to_owned()]), vec![0; 160])
            .await
    }

    fn pids(&self) -> Vec<String> {
        let pids = std::fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
        pids.lines().map(str::to_owned).collect()
    }
}

/// Waits for a process to end, if only as one that is still to be reaped.
async fn gone(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{pid}/fd/0")).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const READY: &str = r#"echo '"ready"'"#;
const ANSWER: &str = r#"echo '{"phrase":{"index":0,"deficit":1.5}}'"#;

fn answer() -> Result<Reply, PoolError> {
    Ok(Reply::Phrase { index: 0, deficit: 1.5 })
}

#[tokio::test]
async fn a_worker_is_kept_for_many_questions() {
    let b = bench(&format!("{READY}; {ANSWER}; {ANSWER}; exec sleep 60"));
    assert_eq!(b.ask().await, answer());
    assert_eq!(b.ask().await, answer());
    let pids = b.pids();
    assert_eq!(pids.len(), 1);
    drop(b.pool);
    gone(&pids[0]).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_its_speech_given_up_in_time() {
    let b = bench(&format!("{READY}; exec sleep 60"));
    let limit = Duration::from_millis(300) + Duration::from_secs(2);
    let began = Instant::now();
    let Err(PoolError::Lost(message)) = b.pool.ask(ALONE, Ask::Words, vec![0; 8000]).await else {
        panic!("nobody could answer")
    };
    assert!(message.contains("hung"), "{message}");
    assert!(
        began.elapsed() < limit * 2,
        "{:?} is time for two tries",
        began.elapsed()
    );
    gone(&b.pids()[0]).await;
}

#[tokio::test]
async fn an_ear_whose_speech_finds_the_queue_full_says_so() {
    let mut voice = vec![0i16; 8000];
    for harmonic in 1..=12 {
        let mut tone = vec![0; 8000];
        Sine::new(8000, 130.0 * f64::from(harmonic), 800.0).fill(&mut tone);
        voice.iter_mut().zip(tone).for_each(|(s, t)| *s += t);
    }
    voice.resize(16_000, 0);
    let hangs = config(&format!("{READY}; exec sleep 60"), Duration::from_secs(60));
    let shared = Shared {
        config: hangs,
        pool: Mutex::default(),
    };
    let engine: Arc<dyn Engine> = Arc::new(PocketSphinx(Arc::new(shared)));
    let stt = vec![(DESCRIPTOR.name, engine)];
    let speech = Speech::new(
        &speech::Config {
            stt,
            ..speech::Config::default()
        },
        1,
    );
    let (told, mut news) = mpsc::channel(64);
    let ears = [(); 4].map(|()| {
        let (mut ring, audio) = ring::uplink(8000, 32_000, Some(speech.bell(0)));
        let spec = EarSpec {
            backend: DESCRIPTOR.name.to_owned(),
            free_speech: true,
            ..EarSpec::default()
        };
        let handle = speech.open_ear(0, spec, audio, told.clone());
        assert!(voice.chunks(160).all(|frame| ring.push(frame)));
        speech.bell(0).ring();
        (ring, handle)
    });
    let failure = async {
        loop {
            if let SpeechEvent::SttFailed { message } = news.recv().await.unwrap() {
                break message;
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(20), failure).await.unwrap();
    assert!(message.contains("too many calls"), "{message}");
    drop(ears);
}

#[tokio::test]
async fn speech_that_a_worker_died_of_or_garbled_gets_another_worker() {
    for death in ["exit 1", "echo nonsense; exec sleep 60"] {
        let b = bench(&format!(
            "{READY}; [ -e second ] || {{ touch second; {death}; }}; {ANSWER}; exec sleep 60"
        ));
        assert_eq!(b.ask().await, answer(), "{death}");
        assert_eq!(b.pids().len(), 2, "{death}");
    }
}

#[tokio::test]
async fn more_than_the_queue_holds_is_refused_at_once() {
    let b = bench(&format!("{READY}; exec sleep 60"));
    let full = || async {
        let (one, two, three) = tokio::join!(b.ask(), b.ask(), b.ask());
        [one, two, three]
            .into_iter()
            .filter(|r| *r == Err(PoolError::Full))
            .count()
    };
    let refused = full().await;
    assert!(
        (1..=2).contains(&refused),
        "{refused}: one is asked, one waits, or both are still to be fetched"
    );
}

#[tokio::test]
async fn a_tenant_with_many_questions_does_not_keep_anothers_waiting_behind_them() {
    // The worker is ready once everybody waits, and answers whatever comes.
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    // The answers are numbered, so that each tells whose turn it was.
    let answers = [0, 1, 2, 3, 4, 5].map(|n| ANSWER.replace("\"index\":0", &format!("\"index\":{n}")));
    let answers = answers.join("; ");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; {READY}; {answers}; exec sleep 60",
        go.display()
    );
    let pool = Pool::start(Config {
        queue: 6,
        ..config(&script, Duration::from_secs(10))
    });
    let done = Mutex::new(Vec::new());
    let ask = async |tenant: TenantId, name: &'static str| {
        let outcome = pool.ask(tenant, Ask::Words, vec![0; 160]).await;
        let turn = match outcome {
            Ok(Reply::Phrase { index, .. }) => Some(index),
            _ => None,
        };
        done.lock().unwrap().push((turn, name));
    };
    let (many, few) = (TenantId(1), TenantId(2));
    let begin = async { std::fs::write(&go, "").unwrap() };
    tokio::join!(
        ask(many, "m1"),
        ask(many, "m2"),
        ask(many, "m3"),
        ask(many, "m4"),
        ask(many, "m5"),
        ask(many, "m6"),
        // For these two, two of the others are told that there is no room.
        ask(few, "f1"),
        ask(few, "f2"),
        begin,
    );
    let mut done = done.into_inner().unwrap();
    done.sort();
    let order: Vec<_> = done.iter().map(|(_, name)| *name).collect();
    assert_eq!(order, ["m5", "m6", "m1", "f1", "m2", "f2", "m3", "m4"]);
    assert!(done[1].0.is_none() && done[2].0 == Some(0), "{done:?}");
}

#[tokio::test]
async fn a_worker_that_cannot_start_is_not_tried_again_at_once() {
    let b = bench(r#"echo '{"failed":"no engine here"}'"#);
    for _ in 0..5 {
        assert_eq!(b.ask().await, Err(PoolError::Lost("no engine here".to_owned())));
    }
    assert_eq!(b.pids().len(), 1);
}

#[tokio::test]
async fn a_worker_command_that_is_no_program_is_named() {
    let mut config = Config {
        workers: 1,
        queue: 1,
        library: String::new(),
        model: String::new(),
        memory_mb: 64,
        filler_margin: 0.0,
        patience: Duration::from_secs(1),
        worker_command: vec!["/nowhere/sidetone".to_owned()],
    };
    let Err(PoolError::Lost(message)) = Pool::start(config.clone()).ask(ALONE, Ask::Words, Vec::new()).await else {
        panic!("there is no such program")
    };
    assert!(message.contains("/nowhere/sidetone"), "{message}");
    config.worker_command = vec!["/bin/true".to_owned()];
    let Err(PoolError::Lost(message)) = Pool::start(config).ask(ALONE, Ask::Words, Vec::new()).await else {
        panic!("it says nothing")
    };
    assert!(message.contains("crashed"), "{message}");
}
