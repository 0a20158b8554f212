//! The worker processes: a bounded number of them, each one question at a time, killed when they hang and started again.

use super::{
    Config,
    proto::{Ask, RATE, Reply, Setup, frame},
    turns::{Entered, Turns},
};
use crate::{base::ids::TenantId, metrics};
use std::{
    io,
    pin::pin,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

/// How long a worker may take to load the engine.
const OPENING: Duration = Duration::from_secs(30);

/// How long a worker that could not be started is not tried again.
const COOLING: Duration = Duration::from_secs(5);

/// What a worker may learn of our environment: where libraries are.
const ENVIRONMENT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// A question and where its answer goes.
#[derive(Debug)]
struct Job {
    ask: Ask,
    samples: Vec<i16>,
    reply: oneshot::Sender<Result<Reply, PoolError>>,
}

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PoolError {
    /// Too many wait already.
    Full,
    /// No worker could answer; a sentence that a person can act on.
    Lost(String),
}

/// What waits for a worker, and who waits for that.
#[derive(Debug)]
struct Queue {
    /// `None` once nobody asks any longer.
    turns: Mutex<Option<Turns<Job>>>,
    filled: Notify,
}

impl Queue {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Turns<Job>>) -> T) -> T {
        act(&mut self.turns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a question wait, in the place of another where that is fairer.
    fn push(&self, tenant: TenantId, job: Job) -> Result<(), PoolError> {
        let displaced = match self.with(|turns| turns.as_mut().map(|turns| turns.push(tenant, job))) {
            None => return Err(PoolError::Lost(GONE.to_owned())),
            Some(Entered::Full(_)) => return Err(PoolError::Full),
            Some(Entered::Waits) => None,
            Some(Entered::Displaced(job)) => Some(job),
        };
        self.filled.notify_one();
        if let Some(job) = displaced {
            // Whoever asked may have left.
            let _ = job.reply.send(Err(PoolError::Full));
        }
        Ok(())
    }

    /// The next question; `None` once there is none and nobody asks any longer.
    async fn next(&self) -> Option<Job> {
        loop {
            let mut filled = pin!(self.filled.notified());
            // What comes from here on is not missed.
            filled.as_mut().enable();
            match self.with(|turns| turns.as_mut().map(Turns::pop)) {
                None => return None,
                Some(Some(job)) => return Some(job),
                Some(None) => filled.await,
            }
        }
    }

    fn close(&self) {
        self.with(Option::take);
        self.filled.notify_waiters();
    }
}

/// The workers and the queue in front of them. They end with the last handle.
///
/// Tenants are served in turn, and so are the ears of each: an ear asks one question at a time and comes behind all of its tenant's
/// who wait when it asks the next.
#[derive(Debug)]
pub(super) struct Pool {
    queue: Arc<Queue>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Said where no worker is left.
const GONE: &str = "the recognition workers are gone";

impl Pool {
    /// Starts a thread that keeps the workers.
    pub(super) fn start(config: Config) -> Self {
        let queue = Arc::new(Queue {
            turns: Mutex::new(Some(Turns::new(config.queue))),
            filled: Notify::new(),
        });
        let jobs = Arc::clone(&queue);
        let work = move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                let keepers = (0..config.workers).map(|_| Keeper::new(config.clone(), Arc::clone(&jobs)).run());
                runtime.block_on(futures_util::future::join_all(keepers));
            }
            jobs.close();
        };
        if let Err(error) = thread::Builder::new().name("stt-pool".to_owned()).spawn(work) {
            tracing::error!(%error, "no thread for recognition workers");
            queue.close();
        }
        Self { queue }
    }

    /// Asks the next worker that is free when it is the tenant's turn.
    pub(super) async fn ask(&self, tenant: TenantId, ask: Ask, samples: Vec<i16>) -> Result<Reply, PoolError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(tenant, Job { ask, samples, reply })?;
        answer.await.unwrap_or_else(|_| Err(PoolError::Lost(GONE.to_owned())))
    }
}

/// Keeps one worker process, for ever.
struct Keeper {
    config: Config,
    queue: Arc<Queue>,
    worker: Option<Worker>,
    /// Why the last start failed, and when.
    cooling: Option<(Instant, String)>,
}

/// Why a worker is [`Failure::Broken`] that did not answer in time.
const HUNG: &str = "hung";

/// How a worker failed.
enum Failure {
    /// It could not be started, or not load the engine: another would fare no better now.
    Unusable(String),
    /// It crashed, hung or wrote nonsense.
    Broken(&'static str),
}

impl Keeper {
    fn new(config: Config, queue: Arc<Queue>) -> Self {
        Self {
            config,
            queue,
            worker: None,
            cooling: None,
        }
    }

    async fn run(mut self) {
        loop {
            // Ready before the first question; what goes wrong is told to who asks.
            if self.worker.is_none() && self.cooling.is_none() {
                let _ = self.prepare().await;
            }
            let Some(job) = self.queue.next().await else { return };
            if job.reply.is_closed() {
                continue;
            }
            let outcome = self.answer(&job).await;
            let _ = job.reply.send(outcome.map_err(PoolError::Lost));
        }
    }

    /// Puts a question; to a second worker if the first one breaks and leaves time for it.
    async fn answer(&mut self, job: &Job) -> Result<Reply, String> {
        // How long the engine takes to load is not the speech's doing.
        if let Err(Failure::Unusable(message)) = self.prepare().await {
            return Err(message);
        }
        let deadline = Instant::now() + limit(self.config.patience, job.samples.len());
        for _ in 0..2 {
            match self.try_answer(job, deadline).await {
                Ok(Reply::Failed(message)) | Err(Failure::Unusable(message)) => return Err(message),
                Ok(reply) => return Ok(reply),
                Err(Failure::Broken(HUNG)) => {
                    return Err("the recognition worker hung and was killed: its speech is given up".to_owned());
                }
                Err(Failure::Broken(_)) => {}
            }
        }
        Err("the recognition worker broke down twice over the same speech, which is given up".to_owned())
    }

    async fn try_answer(&mut self, job: &Job, deadline: Instant) -> Result<Reply, Failure> {
        let prepared = timeout_at(deadline, self.prepare()).await;
        let worker = prepared.unwrap_or(Err(Failure::Broken(HUNG)))?;
        let outcome = worker.ask(&job.ask, &job.samples, deadline).await;
        if let Err(Failure::Broken(reason)) = &outcome {
            self.end_worker(reason);
        }
        outcome
    }

    /// The worker, started if there is none.
    async fn prepare(&mut self) -> Result<&mut Worker, Failure> {
        if self.worker.is_none() {
            if let Some((when, message)) = &self.cooling
                && when.elapsed() < COOLING
            {
                return Err(Failure::Unusable(message.clone()));
            }
            match Worker::open(&self.config).await {
                Ok(worker) => {
                    self.cooling = None;
                    self.worker = Some(worker);
                }
                Err(message) => {
                    restarted("unusable");
                    self.cooling = Some((Instant::now(), message.clone()));
                    return Err(Failure::Unusable(message));
                }
            }
        }
        self.worker.as_mut().ok_or(Failure::Broken("gone"))
    }

    fn end_worker(&mut self, reason: &'static str) {
        restarted(reason);
        self.worker = None;
    }
}

/// Counts a worker that has to be started again, and says so to whoever runs the daemon.
fn restarted(reason: &'static str) {
    tracing::warn!(
        backend = "pocketsphinx",
        reason,
        "a recognition worker failed and is started again"
    );
    let labels = [("backend", "pocketsphinx"), ("reason", reason)];
    metrics::counter(metrics::speech_restarts_total, &labels).increment(1);
}

/// How long an answer may take, a second try included: several times what it takes on a busy machine, so that only a hang is longer.
fn limit(patience: Duration, samples: usize) -> Duration {
    patience + Duration::from_secs_f64(samples as f64 / f64::from(RATE)) * 4
}

/// A process that has loaded the engine. Dropping it kills it.
struct Worker {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    async fn open(config: &Config) -> Result<Self, String> {
        let mut worker = Self::start(config).map_err(|e| {
            let program = config.worker_command.first().map_or("this program", String::as_str);
            format!("a recognition worker cannot be started from {program}: {e}")
        })?;
        let setup = Setup {
            library: config.library.clone(),
            model: config.model.clone(),
            memory_mb: config.memory_mb,
            margin: config.filler_margin,
        };
        match worker.ask(&Ask::Open(setup), &[], Instant::now() + OPENING).await {
            Ok(Reply::Ready) => Ok(worker),
            Ok(Reply::Failed(message)) | Err(Failure::Unusable(message)) => Err(message),
            Ok(_) => Err(
                "the recognition worker speaks another protocol: is speech.stt.pocketsphinx.worker_command right?"
                    .to_owned(),
            ),
            Err(Failure::Broken(how)) => Err(format!("the recognition worker did not load its engine ({how})")),
        }
    }

    fn start(config: &Config) -> io::Result<Self> {
        let mut command = match config.worker_command.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("stt-worker");
                command
            }
        };
        let mut process = command
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|k| Some((k, std::env::var_os(k)?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Self {
            _process: process,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// Asks and waits. After an error the worker is of no more use.
    async fn ask(&mut self, ask: &Ask, samples: &[i16], deadline: Instant) -> Result<Reply, Failure> {
        let exchange = async {
            // One that does not listen any more may have said why.
            let _ = self.input.write_all(&frame(ask, samples)).await;
            self.output.next_line().await
        };
        match timeout_at(deadline, exchange).await {
            Err(_) => Err(Failure::Broken(HUNG)),
            Ok(Err(_) | Ok(None)) => Err(Failure::Broken("crashed")),
            Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|_| Failure::Broken("nonsense")),
        }
    }
}
