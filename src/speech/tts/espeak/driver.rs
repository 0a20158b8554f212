//! Processes of `espeak-ng`: started ahead, given words, read from, killed when dropped or late.

use super::Config;
use crate::{
    audio::wav::{WavError, WavHeader},
    base::format::Encoding,
    metrics,
    speech::tts::{Pcm, TtsError},
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    process::{ExitStatus, Stdio},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// What the program may learn of our environment: where it and its data are.
const ENVIRONMENT: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "ESPEAK_DATA_PATH", "XDG_DATA_DIRS"];

/// Seconds of audio that one piece of text may make.
const LONGEST: usize = 180;

/// Bytes read at once: 0.37 s of sound.
const READ: usize = 16 * 1024;

/// Runs the program for the mouths of a lane.
pub(super) struct Driver {
    pub(super) config: Config,
    /// Waiting processes, one a voice, the voice used last at the end.
    ready: RefCell<VecDeque<(String, Child)>>,
}

/// Why a process gave no audio, or not all of it.
enum Failure {
    /// The program cannot be run at all.
    NoProgram(io::Error),
    /// Nothing came in time.
    Silent,
    /// It took too long, or made too much.
    Endless,
    /// It ended with an error, of which this is the first line.
    Exited(ExitStatus, String),
    /// It was gone when the words came, as when killed from outside.
    Gone(io::Error),
    /// What it wrote is not the WAVE it should be.
    NotWave(WavError),
}

impl Driver {
    pub(super) const fn new(config: Config) -> Self {
        Self {
            config,
            ready: RefCell::new(VecDeque::new()),
        }
    }

    fn start(&self, voice: &str) -> Result<Child, Failure> {
        let mut command = Command::new(&self.config.program);
        let rate = self.config.rate.to_string();
        command
            .args(["-b", "1", "-v", voice, "-s", &rate, "--stdin", "--stdout"])
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|k| Some((k, std::env::var_os(k)?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().map_err(Failure::NoProgram)
    }

    /// Has a process of this voice wait for words.
    pub(super) fn prepare(&self, voice: &str) {
        let mut ready = self.ready.borrow_mut();
        if self.config.ready_voices == 0 || ready.iter().any(|(v, _)| v == voice) {
            return;
        }
        // A program that cannot be started is reported to whoever has words for it.
        if let Ok(child) = self.start(voice) {
            if ready.len() >= self.config.ready_voices {
                ready.pop_front();
            }
            ready.push_back((voice.to_owned(), child));
        }
    }

    /// A waiting process of this voice, or a new one.
    fn take(&self, voice: &str) -> Result<Child, Failure> {
        let mut ready = self.ready.borrow_mut();
        let waiting = ready
            .iter()
            .position(|(v, _)| v == voice)
            .and_then(|at| ready.remove(at));
        drop(ready);
        waiting.map_or_else(|| self.start(voice), |(_, child)| Ok(child))
    }

    /// Speaks one piece of text. A process that fails before its first audio is replaced by another, once.
    pub(super) async fn speak(&self, text: &str, voice: &str, out: &mpsc::Sender<Pcm>) -> Result<(), TtsError> {
        let mut begun = false;
        let mut outcome = self.try_speak(text, voice, out, &mut begun).await;
        if let (false, Err(failure @ (Failure::Silent | Failure::Gone(_) | Failure::Exited(..)))) = (begun, &outcome) {
            restarted(failure.reason());
            outcome = self.try_speak(text, voice, out, &mut begun).await;
        }
        outcome.map_err(|failure| self.explain(&failure, voice))
    }

    async fn try_speak(
        &self,
        text: &str,
        voice: &str,
        out: &mpsc::Sender<Pcm>,
        begun: &mut bool,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        let (first, end) = (now + self.config.first_audio, now + self.config.limit);
        let mut child = self.take(voice)?;
        let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Gone(io::ErrorKind::BrokenPipe.into()));
        };
        let write = async {
            stdin.write_all(text.as_bytes()).await?;
            stdin.shutdown().await
        };
        let written = timeout_at(first, write).await.map_err(|_| Failure::Silent)?;
        drop(stdin);
        self.prepare(voice);
        let mut reading = Reading::default();
        loop {
            let limit = if *begun { end } else { first.min(end) };
            let read = reading.fill(&mut stdout);
            let n = match timeout_at(limit, read).await {
                Ok(read) => read.map_err(Failure::Gone)?,
                Err(_) if *begun => return Err(Failure::Endless),
                Err(_) => return Err(Failure::Silent),
            };
            if n == 0 {
                break;
            }
            let Some(pcm) = reading.take()? else { continue };
            if reading.samples > LONGEST * pcm.rate as usize {
                return Err(Failure::Endless);
            }
            *begun = true;
            if out.send(pcm).await.is_err() {
                return Ok(());
            }
        }
        match timeout_at(end, finish(child)).await {
            Ok(Ok((status, _))) if status.success() => written.map_err(Failure::Gone),
            Ok(Ok((status, said))) => Err(Failure::Exited(status, said)),
            Ok(Err(error)) => Err(Failure::Gone(error)),
            Err(_) => Err(Failure::Endless),
        }
    }

    fn explain(&self, failure: &Failure, voice: &str) -> TtsError {
        let program = &self.config.program;
        restarted(failure.reason());
        match failure {
            Failure::NoProgram(error) if error.kind() == io::ErrorKind::NotFound => TtsError::Lost(format!(
                "{program} is not installed: install the package espeak-ng, or set speech.tts.espeak.program"
            )),
            Failure::NoProgram(error) => TtsError::Lost(format!("{program} cannot be started: {error}")),
            Failure::Silent => TtsError::Lost(format!(
                "{program} gave no audio within {:?} and was killed",
                self.config.first_audio
            )),
            Failure::Endless => TtsError::Lost(format!("{program} did not come to an end and was killed")),
            Failure::Exited(_, said) if said.contains("voice does not exist") => {
                TtsError::Refused(format!("eSpeak NG has no voice {voice:?}: see `espeak-ng --voices`"))
            }
            Failure::Exited(status, said) => TtsError::Lost(format!("{program} failed ({status}): {said}")),
            Failure::Gone(error) => TtsError::Lost(format!("{program} went away: {error}")),
            Failure::NotWave(error) => TtsError::Lost(format!("{program} does not write WAVE: {error}")),
        }
    }
}

impl Failure {
    const fn reason(&self) -> &'static str {
        match self {
            Self::NoProgram(_) => "missing",
            Self::Silent => "silent",
            Self::Endless => "endless",
            Self::Exited(..) => "exited",
            Self::Gone(_) => "gone",
            Self::NotWave(_) => "not_wave",
        }
    }
}

/// Counts a process that failed, and says so to whoever runs the daemon; the next words get another.
fn restarted(reason: &'static str) {
    tracing::warn!(backend = "espeak", reason, "a speech process failed and is replaced");
    let labels = [("backend", "espeak"), ("reason", reason)];
    metrics::counter(metrics::speech_restarts_total, &labels).increment(1);
}

/// Waits for the end of a process; its status and the first line of what it complained about.
async fn finish(mut child: Child) -> io::Result<(ExitStatus, String)> {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(1000).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    let said = String::from_utf8_lossy(&said);
    Ok((status, said.lines().next().unwrap_or_default().trim().to_owned()))
}

/// A WAVE stream as far as it was read.
#[derive(Default)]
struct Reading {
    bytes: Vec<u8>,
    rate: Option<u32>,
    /// Samples taken.
    samples: usize,
}

impl Reading {
    async fn fill(&mut self, stdout: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.bytes.reserve(READ);
        stdout.read_buf(&mut self.bytes).await
    }

    /// The samples that are complete.
    fn take(&mut self) -> Result<Option<Pcm>, Failure> {
        let rate = match self.rate {
            Some(rate) => rate,
            None => match WavHeader::parse(&self.bytes) {
                Ok(header) if header.format.encoding == Encoding::L16Le && header.format.channels == 1 => {
                    self.bytes.drain(..header.data_at);
                    *self.rate.insert(header.format.rate)
                }
                Ok(_) => return Err(Failure::NotWave(WavError::NotWave)),
                Err(WavError::Incomplete) if self.bytes.len() < READ => return Ok(None),
                Err(error) => return Err(Failure::NotWave(error)),
            },
        };
        let whole = self.bytes.len() & !1;
        let samples: Vec<i16> = self.bytes[..whole]
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]))
            .collect();
        self.bytes.drain(..whole);
        self.samples += samples.len();
        Ok((!samples.is_empty()).then_some(Pcm { rate, samples }))
    }
}
