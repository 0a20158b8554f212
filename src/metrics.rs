//! Every metric of the daemon: name, help, unit and bounded labels in one table, and the handles that record them.
//!
//! Counters and gauges are handles of the `metrics` crate, made once and held. Histograms are fixed arrays of atomics of our own:
//! recording one takes an addition and never allocates, so media threads may; they are rendered beside the exporter's output.
//! Labels never hold ids, numbers or text from outside.

use metrics::{Counter, Gauge, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{
    cell::Cell,
    fmt::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What sort of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Only goes up.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Prometheus name.
    pub name: &'static str,
    /// Counter or gauge.
    pub sort: Sort,
    /// Its unit.
    pub unit: Unit,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! table {
    ($($name:ident $sort:ident $unit:ident $help:literal;)*) => {
        $(#[doc = $help] pub const $name: &str = concat!("sidetone_", stringify!($name));)*
        /// Every counter and gauge.
        pub static TABLE: &[Metric] = &[$(Metric { name: $name, sort: Sort::$sort, unit: Unit::$unit, help: $help }),*];
    };
}

#[allow(non_upper_case_globals)]
mod names {
    use super::{Metric, Sort, Unit};
    table! {
        calls_live Gauge Count "Calls in memory";
        calls_total Counter Count "Calls begun, by vendor and direction";
        calls_ended_total Counter Count "Calls ended, by vendor and reason";
        refused_total Counter Count "Requests, sockets and calls refused, by what and why";
        dropped_total Counter Count "Things dropped, by kind and reason";
        legs_live Gauge Count "Media sockets, by shard";
        frames_in_total Counter Count "Audio messages received, by shard";
        frames_out_total Counter Count "Audio messages sent, by shard";
        bytes_in_total Counter Bytes "Bytes of media messages received, by shard";
        bytes_out_total Counter Bytes "Bytes of media messages sent, by shard";
        ticks_missed_total Counter Count "Ticks a media thread was too late for, by shard";
        media_cpu_us_total Counter Microseconds "CPU time of media threads, by shard";
        ear_queue_seconds Gauge Seconds "Audio that waited for its ear, the most of any leg within a second, by shard";
        frontends_live Gauge Count "Frontend sockets";
        hooks_total Counter Count "Webhooks, by vendor and outcome";
        nodes_connected Gauge Count "Whether the server of the cluster's nodes is there";
        nodes_heard Gauge Count "Other nodes of the cluster that are heard";
        nodes_dropped_total Counter Count "Messages to other nodes that were dropped, by kind and reason";
        store_queue Gauge Count "Batches waiting for the store";
        store_journal_bytes Gauge Bytes "Bytes in the journal that wait for the database";
        store_journal_age_seconds Gauge Seconds "Age of the oldest record in the journal";
        store_wal_bytes Gauge Bytes "Size of the database's write-ahead log";
        store_commits_total Counter Count "Commits, by outcome";
        speech_faults_total Counter Count "Failures of speech backends, by backend and kind";
        speech_ears_total Counter Count "Ears opened, by backend and whether the vendor's codes are passed through or decoded";
        duplex_sessions_total Counter Count "Sessions of services that hear and speak, by backend and whether the vendor's codes pass through each way";
        speech_failovers_total Counter Count "Outages that another backend took over, by that backend";
        jobs_total Counter Count "Attempts at jobs, by kind and outcome";
        erased_total Counter Count "Calls of which something was too old and is erased, by scope";
        llm_tokens_total Counter Count "Tokens of language models, by service and direction";
        speech_restarts_total Counter Count "Speech engine processes restarted, by backend and reason";
        recordings_total Counter Count "Recordings, by outcome";
        panics_total Counter Count "Tasks that panicked, by kind";
    }
}
pub use names::*;

/// A counter of the table. Make it once, keep the handle.
pub fn counter(name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    let labels: Vec<_> = labels
        .iter()
        .map(|(k, v)| metrics::Label::new(*k, (*v).to_owned()))
        .collect();
    metrics::counter!(name, labels)
}

/// A gauge of the table. Make it once, keep the handle.
pub fn gauge(name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
    let labels: Vec<_> = labels
        .iter()
        .map(|(k, v)| metrics::Label::new(*k, (*v).to_owned()))
        .collect();
    metrics::gauge!(name, labels)
}

/// Counts something refused.
pub fn refused(what: &'static str, reason: &'static str) {
    metrics::counter!(refused_total, "what" => what, "reason" => reason).increment(1);
}

/// Counts things dropped. Looks the counter up: on a media thread only where a leg ends or stalls, never for a frame.
pub fn dropped(kind: &'static str, reason: &'static str, n: u64) {
    metrics::counter!(dropped_total, "kind" => kind, "reason" => reason).increment(n);
}

/// Upper bounds of histogram buckets, in microseconds.
const BOUNDS_US: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// Counts of a histogram's buckets, the last of what is above all bounds.
pub type Buckets = [u64; BOUNDS_US.len() + 1];

/// A histogram of durations: cumulative buckets are made when rendered, so recording is three relaxed additions.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    count: AtomicU64,
}

impl Histogram {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            buckets: [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1],
            sum_us: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    /// Records one duration.
    pub fn record(&self, d: Duration) {
        let us = d.as_micros() as u64;
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// Adds what one thread has kept back, and empties it.
    pub fn take_in(&self, local: &LocalCounts) {
        let mut count = 0;
        for (bucket, kept) in self.buckets.iter().zip(&local.buckets) {
            match kept.take() {
                0 => {}
                n => {
                    bucket.fetch_add(n, Relaxed);
                    count += n;
                }
            }
        }
        if count > 0 {
            self.sum_us.fetch_add(local.sum_us.take(), Relaxed);
            self.count.fetch_add(count, Relaxed);
        }
    }

    /// How many durations each bucket has.
    pub fn buckets(&self) -> Buckets {
        std::array::from_fn(|at| self.buckets[at].load(Relaxed))
    }

    /// What a part of the durations between two readings of [`Histogram::buckets`] were at most, to the next bound of a bucket.
    /// `None` where there were fewer than `least`.
    pub fn quantile(before: &Buckets, after: &Buckets, part: f64, least: u64) -> Option<Duration> {
        let new: Buckets = std::array::from_fn(|at| after[at].saturating_sub(before[at]));
        let total: u64 = new.iter().sum();
        if total < least.max(1) {
            return None;
        }
        let mut within = 0;
        let at = new.iter().position(|n| {
            within += n;
            within as f64 >= total as f64 * part
        })?;
        Some(BOUNDS_US.get(at).map_or(Duration::MAX, |us| Duration::from_micros(*us)))
    }

    fn render(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "# HELP {} {}\n# TYPE {} histogram",
            self.name, self.help, self.name
        );
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_US) {
            total += bucket.load(Relaxed);
            let _ = writeln!(out, "{}_bucket{{le=\"{}\"}} {total}", self.name, bound as f64 / 1e6);
        }
        total += self.buckets[BOUNDS_US.len()].load(Relaxed);
        let _ = writeln!(out, "{}_bucket{{le=\"+Inf\"}} {total}", self.name);
        let _ = writeln!(out, "{}_sum {}", self.name, self.sum_us.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{}_count {total}\n", self.name);
    }
}

/// Which bucket so many microseconds fall into.
fn bucket(us: u64) -> usize {
    BOUNDS_US.iter().position(|b| us <= *b).unwrap_or(BOUNDS_US.len())
}

/// Durations that one thread records often: counted without an atomic, and handed to a [`Histogram`] now and then.
#[derive(Debug, Default)]
pub struct LocalCounts {
    buckets: [Cell<u64>; BOUNDS_US.len() + 1],
    sum_us: Cell<u64>,
}

impl LocalCounts {
    /// Records one duration.
    pub fn record(&self, d: Duration) {
        let us = u64::from(d.subsec_micros()) + d.as_secs() * 1_000_000;
        let bucket = &self.buckets[bucket(us)];
        bucket.set(bucket.get() + 1);
        self.sum_us.set(self.sum_us.get() + us);
    }
}

/// How long one turn of a leg took.
pub static TURN_TIME: Histogram = Histogram::new(
    "sidetone_leg_turn_seconds",
    "Time of one turn of a leg on its media thread: read, decode, relay, encode, write",
);
/// How late a media thread's tick ran.
pub static TICK_LATE: Histogram = Histogram::new(
    "sidetone_tick_late_seconds",
    "How late a media thread's tick ran after the time it was due",
);
/// Time from a stream's `start` to its plan.
pub static LEG_OPENING: Histogram = Histogram::new(
    "sidetone_leg_opening_seconds",
    "Time from a media stream's start until its leg had its plan",
);
/// Time to answer a webhook.
pub static HOOK_TIME: Histogram =
    Histogram::new("sidetone_hook_seconds", "Time to answer a webhook, its commit included");
/// Time a batch took from queue to disk.
pub static COMMIT_TIME: Histogram = Histogram::new(
    "sidetone_store_commit_seconds",
    "Time from queueing a batch until it was durable",
);
/// Time from queueing words until their first audio.
pub static TTS_FIRST: Histogram = Histogram::new(
    "sidetone_tts_first_audio_seconds",
    "Time from a mouth's turn to speak until its first audio",
);
/// Time from the end of an utterance to its words.
pub static STT_FINAL: Histogram = Histogram::new(
    "sidetone_stt_final_seconds",
    "Time from the end of an utterance until its final transcript",
);

/// From the end of the caller's speech to the first frame of the agent's answer.
pub static ANSWER_TIME: Histogram = Histogram::new(
    "sidetone_turn_seconds",
    "Time from the end of the caller's speech until the first frame of the answer was given to the vendor",
);
/// The segments of that time, in their order: recognition, waiting, first word, first sentence, first audio, playout.
pub static TURN_SEGMENTS: [Histogram; 6] = [
    Histogram::new(
        "sidetone_turn_stt_seconds",
        "Of a turn: from the end of the speech until its final transcript",
    ),
    Histogram::new(
        "sidetone_turn_wait_seconds",
        "Of a turn: from the final transcript until the language model was asked",
    ),
    Histogram::new(
        "sidetone_turn_llm_seconds",
        "Of a turn: from the question until the language model's first word",
    ),
    Histogram::new(
        "sidetone_turn_sentence_seconds",
        "Of a turn: from the first word until the first sentence was whole",
    ),
    Histogram::new(
        "sidetone_turn_tts_seconds",
        "Of a turn: from the first sentence until its first audio",
    ),
    Histogram::new(
        "sidetone_turn_playout_seconds",
        "Of a turn: from the first audio until its first frame was given to the vendor",
    ),
];

static HISTOGRAMS: &[&Histogram] = &[
    &TURN_TIME,
    &TICK_LATE,
    &LEG_OPENING,
    &HOOK_TIME,
    &COMMIT_TIME,
    &TTS_FIRST,
    &STT_FINAL,
    &ANSWER_TIME,
    &TURN_SEGMENTS[0],
    &TURN_SEGMENTS[1],
    &TURN_SEGMENTS[2],
    &TURN_SEGMENTS[3],
    &TURN_SEGMENTS[4],
    &TURN_SEGMENTS[5],
];

/// Renders all metrics in Prometheus' text format.
#[derive(Clone)]
pub struct Renderer(PrometheusHandle);

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renderer")
    }
}

impl Renderer {
    /// The page a scrape gets.
    pub fn render(&self) -> String {
        let mut page = self.0.render();
        for h in HISTOGRAMS {
            h.render(&mut page);
        }
        page
    }

    /// Work the exporter wants done now and then.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs the recorder for the whole process, once; daemons that share a process share it. Fails where another one is installed.
pub fn install() -> Result<Renderer, &'static str> {
    static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = INSTALLED.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        for m in TABLE {
            match m.sort {
                Sort::Counter => metrics::describe_counter!(m.name, m.unit, m.help),
                Sort::Gauge => metrics::describe_gauge!(m.name, m.unit, m.help),
            }
        }
        Some(handle)
    });
    handle
        .clone()
        .map(Renderer)
        .ok_or("another metrics recorder is installed already")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_rules() {
        for m in TABLE {
            assert!(
                m.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                m.name
            );
            assert_eq!(m.sort == Sort::Counter, m.name.ends_with("_total"), "{}", m.name);
            assert!(!m.help.is_empty());
        }
    }

    #[test]
    fn a_quantile_is_of_what_came_between_two_readings() {
        let h = Histogram::new("x_seconds", "X");
        let record = |us, times| (0..times).for_each(|_| h.record(Duration::from_micros(us)));
        let quantile = |before: &Buckets, least| Histogram::quantile(before, &h.buckets(), 0.99, least);
        record(9_000_000, 50);
        let before = h.buckets();
        assert_eq!(quantile(&before, 0), None);
        record(15_000, 99);
        record(30_000, 1);
        assert_eq!(quantile(&before, 100), Some(Duration::from_millis(20)));
        record(30_000, 1);
        assert_eq!(quantile(&before, 100), Some(Duration::from_millis(50)));
        assert_eq!(quantile(&before, 102), None);
        record(60_000_000, 900);
        assert_eq!(quantile(&before, 100), Some(Duration::MAX));
    }

    #[test]
    fn what_a_thread_keeps_back_is_handed_over_once() {
        let (h, local) = (Histogram::new("x_seconds", "X"), LocalCounts::default());
        for us in [5, 20, 1_500_000] {
            local.record(Duration::from_micros(us));
        }
        h.record(Duration::from_micros(20));
        h.take_in(&local);
        h.take_in(&local);
        let direct = Histogram::new("x_seconds", "X");
        for us in [5, 20, 20, 1_500_000] {
            direct.record(Duration::from_micros(us));
        }
        let page = |h: &Histogram| {
            let mut page = String::new();
            h.render(&mut page);
            page
        };
        assert_eq!(page(&h), page(&direct));
    }

    #[test]
    fn a_histogram_renders_cumulative_buckets() {
        let h = Histogram::new("x_seconds", "X");
        for us in [5, 20, 20, 20_000_000] {
            h.record(Duration::from_micros(us));
        }
        let mut page = String::new();
        h.render(&mut page);
        assert!(page.contains("x_seconds_bucket{le=\"0.00001\"} 1\n"), "{page}");
        assert!(page.contains("x_seconds_bucket{le=\"0.000025\"} 3\n"), "{page}");
        assert!(page.contains("x_seconds_bucket{le=\"10\"} 3\n"), "{page}");
        assert!(
            page.contains("x_seconds_bucket{le=\"+Inf\"} 4\n") && page.contains("x_seconds_count 4\n"),
            "{page}"
        );
    }
}
