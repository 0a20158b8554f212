//! The one thread that writes recordings: takes what the taps hold ten times a second and streams it to disk.
//!
//! A file is valid at any moment up to the last second. A disk that fails or is full ends that
//! recording alone; the call never waits for it, because a tap that nobody empties drops what it is given.

use super::{
    Config, Format, TapSpan, TapTx,
    config::SEALED,
    sink::Sink,
    timeline::{RATE, Taken, Timeline},
};
use crate::{base::time::Mono, metrics};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rtrb::{Consumer, RingBuffer};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often the taps are emptied.
const PERIOD: Duration = Duration::from_millis(100);
/// How often a file's sizes are brought up to date.
const PATCH_EVERY: Duration = Duration::from_secs(1);
/// Spans per second of buffer: both sides in frames of 10 ms.
const SPANS_PER_SECOND: usize = 200;

/// Why a call is not recorded. It goes on.
#[derive(Debug)]
pub enum RecordError {
    /// As many recordings as are allowed run already.
    TooMany {
        /// How many that is.
        limit: usize,
    },
    /// The file cannot be made.
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The recorder has stopped.
    Stopped,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => write!(f, "{limit} recordings run already"),
            Self::File { path, error } => write!(f, "recording {} cannot be made: {error}", path.display()),
            Self::Stopped => f.write_str("the recorder has stopped"),
        }
    }
}

impl std::error::Error for RecordError {}

/// Starts recordings. Dropping it ends them, with files complete up to what their taps hold.
#[derive(Debug)]
pub struct Recorder {
    begun: Option<Sender<Box<Recording>>>,
    thread: Option<JoinHandle<()>>,
    live: Arc<AtomicUsize>,
    config: Config,
}

impl Recorder {
    /// Starts the thread.
    pub fn start(config: &Config) -> io::Result<Self> {
        // Bounded by the count of live recordings.
        let (tx, rx) = crossbeam_channel::unbounded();
        let live = Arc::new(AtomicUsize::new(0));
        let counter = live.clone();
        let thread = std::thread::Builder::new()
            .name("record".into())
            .spawn(move || run(&rx, &counter))?;
        Ok(Self {
            begun: Some(tx),
            thread: Some(thread),
            live,
            config: config.clone(),
        })
    }

    /// Begins a recording in a new file of mode 0640, making its folders, named by [`Recorder::extension`]. The recording ends when
    /// the tap is dropped.
    ///
    /// Makes the file before it returns, so it is not for media threads.
    pub fn open(&self, path: &Path, format: Format) -> Result<TapTx, RecordError> {
        let opened = self.try_open(path, format);
        if opened.is_err() {
            count("refused");
        }
        opened
    }

    fn try_open(&self, path: &Path, format: Format) -> Result<TapTx, RecordError> {
        let limit = self.config.max_recordings;
        if self.live.fetch_add(1, Relaxed) >= limit {
            self.live.fetch_sub(1, Relaxed);
            return Err(RecordError::TooMany { limit });
        }
        let made = Sink::create(path, format, self.config.keys.current.as_ref()).map_err(|error| RecordError::File {
            path: path.to_owned(),
            error,
        });
        let sent = made.and_then(|sink| {
            let seconds = self.config.buffer.as_secs_f64();
            let (samples_tx, samples) = RingBuffer::new((2.0 * RATE as f64 * seconds) as usize);
            let (spans_tx, spans) = RingBuffer::new((SPANS_PER_SECOND as f64 * seconds) as usize);
            let limit = RATE * self.config.max_length.as_secs();
            let recording = Recording::new(path.to_owned(), sink, samples, spans, limit);
            let begun = self.begun.as_ref().ok_or(RecordError::Stopped)?;
            begun.send(Box::new(recording)).map_err(|_| RecordError::Stopped)?;
            Ok(TapTx::new(samples_tx, spans_tx))
        });
        if sent.is_err() {
            self.live.fetch_sub(1, Relaxed);
        }
        sent
    }

    /// How recordings are written, unless an agent says otherwise.
    pub const fn format(&self) -> Format {
        self.config.format
    }

    /// How the names of files of that format end, from their dot on.
    pub fn extension(&self, format: Format) -> String {
        let sealed = self.config.keys.current.as_ref().map_or("", |_| SEALED);
        format!(".{}{sealed}", format.extension())
    }

    /// Recordings that run.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.begun.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(begun: &Receiver<Box<Recording>>, live: &AtomicUsize) {
    let mut recordings: Vec<Box<Recording>> = Vec::new();
    let mut due = Instant::now();
    loop {
        let new = if recordings.is_empty() {
            begun.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            begun.recv_deadline(due)
        };
        match new {
            Ok(recording) => recordings.push(recording),
            Err(RecvTimeoutError::Timeout) => {
                due = Instant::now() + PERIOD;
                let now = Mono::now();
                recordings.retain_mut(|r| {
                    let goes_on = r.pump(now);
                    live.fetch_sub(usize::from(!goes_on), Relaxed);
                    goes_on
                });
            }
            Err(RecvTimeoutError::Disconnected) => {
                recordings.into_iter().for_each(|mut r| r.end());
                return;
            }
        }
    }
}

/// One file and the reading ends of its tap.
#[derive(Debug)]
struct Recording {
    path: PathBuf,
    sink: Sink,
    samples: Consumer<i16>,
    spans: Consumer<TapSpan>,
    timeline: Timeline,
    /// Scratch: one run of samples, and frames on their way to the file.
    run: Vec<i16>,
    bytes: Vec<u8>,
    patched: Mono,
}

impl Recording {
    fn new(path: PathBuf, sink: Sink, samples: Consumer<i16>, spans: Consumer<TapSpan>, limit: u64) -> Self {
        Self {
            path,
            sink,
            samples,
            spans,
            timeline: Timeline::new(limit),
            run: Vec::new(),
            bytes: Vec::new(),
            patched: Mono::ZERO,
        }
    }

    /// Takes what the tap holds to the file. `false` when the recording is over, for better or worse.
    fn pump(&mut self, now: Mono) -> bool {
        if self.spans.is_abandoned() {
            self.end();
            return false;
        }
        match self.advance(now) {
            Ok(()) => true,
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn advance(&mut self, now: Mono) -> io::Result<()> {
        self.drain(now)?;
        let taken = self.timeline.ready(now, &mut self.bytes);
        self.write(taken)?;
        if now.since(self.patched) >= PATCH_EVERY {
            self.patched = now;
            self.sink.patch()?;
        }
        let (late, over) = self.timeline.take_lost();
        for (reason, n) in [("late", late), ("too_long", over)] {
            if n > 0 {
                metrics::dropped("recorded_samples", reason, n);
            }
        }
        Ok(())
    }

    /// Writes all that is left.
    fn end(&mut self) {
        let mut finish = || {
            self.advance(Mono::now())?;
            let taken = self.timeline.rest(&mut self.bytes);
            self.write(taken)?;
            self.sink.end()
        };
        match finish() {
            Ok(()) => count("done"),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &io::Error) {
        count("failed");
        tracing::warn!(path = %self.path.display(), %error, "a recording stops: its file cannot be written");
    }

    fn drain(&mut self, now: Mono) -> io::Result<()> {
        while let Ok(span) = self.spans.pop() {
            let n = (span.samples as usize).min(self.samples.slots());
            let Ok(chunk) = self.samples.read_chunk(n) else {
                continue;
            };
            let (a, b) = chunk.as_slices();
            self.run.clear();
            self.run.extend_from_slice(a);
            self.run.extend_from_slice(b);
            chunk.commit_all();
            let pushed = self.timeline.place(span.side, span.at, &self.run, now, &mut self.bytes);
            self.write(pushed)?;
        }
        Ok(())
    }

    /// Writes the bytes gathered, which are the frames of `taken`. What they do not spell out is silence.
    fn write(&mut self, taken: Option<Taken>) -> io::Result<()> {
        let Some(taken) = taken else { return Ok(()) };
        self.sink.write(&taken, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

fn count(outcome: &'static str) {
    ::metrics::counter!(metrics::recordings_total, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
