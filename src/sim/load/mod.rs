//! Many calls from one thread, to measure a daemon or the yardstick: every frame is unique, so a lost, doubled, late or changed one
//! is found, and what it costs the generator is small beside what it costs the daemon.
//!
//! Calls are spread over the phases of a frame, each sends on an absolute schedule, and the echo of every frame is timed from
//! the moment it was handed to the kernel. Payloads leave out the code 0x7F: G.711's negative zero decodes to 0, which encodes as 0xFF.
//!
//! Of a relay, whose agent answers with audio of its own, what comes back is not compared; how evenly it comes is measured.

mod call;
mod hooks;
pub mod search;
mod viewers;

use super::{
    address::Address,
    pace::Pace,
    phrases::Phrases,
    process::{Process, ThreadTime},
};
use crate::{
    base::time::Mono,
    vendor::{Descriptor, PeerCall},
};
use call::{Call, Tally, listen};
use hooks::{Hooks, call_hooks, plan_of_hooks};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, io, rc::Rc, time::Duration};
use tokio::task::LocalSet;

/// Frames a call keeps to recognise echoes that come twice.
const REMEMBERED: usize = 64;
/// Calls begin and frames are sent on this grid.
const TICK: Duration = Duration::from_millis(1);
/// What is sent before this does not count: caches fill, buffers grow.
const WARM_UP: Duration = Duration::from_secs(2);
/// The generator's lateness is noted once in so many ticks.
const LATE_EVERY: u32 = 20;
/// Mask of every frame; any will do.
const MASK: [u8; 4] = [0x5A, 0x91, 0x2C, 0xE7];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In whose dialect.
    pub vendor: &'static Descriptor,
    /// Who is measured, with the path of the media socket if it is not the vendor's.
    pub daemon: Address,
    /// Whether that is the yardstick, which sends every message back as it is.
    pub floor: bool,
    /// Whether the daemon's agent hears with the fake recogniser and speaks by itself; else it echoes.
    pub relay: bool,
    /// Calls at once.
    pub calls: usize,
    /// Frontends that listen, spread over the calls.
    pub viewers: usize,
    /// How long, warm-up not counted.
    pub duration: Duration,
    /// The measured process, for its CPU time and memory.
    pub pid: Option<u32>,
    /// Webhooks a second, announcing further calls meanwhile.
    pub hooks_per_s: u32,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measure {
    /// In whose dialect.
    pub vendor: String,
    /// Milliseconds of audio in a frame sent.
    pub frame_ms: u32,
    /// Calls at once.
    pub calls: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// Frames sent in all, warm-up included.
    pub sent: u64,
    /// Frames that came back.
    pub returned: u64,
    /// Frames that did not come back.
    pub lost: u64,
    /// Frames that came back twice.
    pub doubled: u64,
    /// Frames that came back after a later one.
    pub reordered: u64,
    /// Frames that came back as nothing that was sent.
    pub changed: u64,
    /// Sockets that broke or were closed before the end, those of calls that were refused among them.
    pub broken: u64,
    /// Messages with audio that came, of whatever length.
    pub heard: u64,
    /// Frontends that listened.
    pub viewers: usize,
    /// Messages with audio that they were sent.
    pub viewed: u64,
    /// Times that they were told that audio was left out.
    pub viewer_gaps: u64,
    /// Their sockets that broke.
    pub viewers_broken: u64,
    /// Time from sending a frame until it was back, in µs.
    pub echo_us: Percentiles,
    /// How far from its due time audio came, in µs: the time since the message before against the length of that one's audio, where
    /// they were not sent at once. Of an echo this holds the generator's own unevenness, of a relay the pauses between utterances.
    pub pacing_us: Percentiles,
    /// How late the generator itself sent, in µs: how far these figures may be trusted.
    pub send_late_us: Percentiles,
    /// Time from sending a webhook until its answer was whole, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_us: Option<Percentiles>,
    /// Webhooks that failed.
    pub hooks_failed: u64,
    /// CPU time of the measured process per frame (one in, one out), in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_frame: Option<f64>,
    /// The same by thread, the busiest first.
    pub threads: Vec<ThreadShare>,
    /// Growth of the measured process's own resident memory per call, in bytes: without the pages of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_call: Option<i64>,
}

impl Measure {
    /// Frames that did not come back as they should, and sockets that broke.
    pub const fn faults(&self) -> u64 {
        self.lost + self.doubled + self.reordered + self.changed + self.broken + self.viewers_broken
    }
}

/// CPU time of the threads of one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadShare {
    /// The name.
    pub name: String,
    /// CPU time per frame in µs.
    pub us_per_frame: f64,
}

/// A distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Samples.
    pub count: usize,
    /// Half are at most this.
    pub p50: u32,
    /// 99 of 100 are at most this.
    pub p99: u32,
    /// 999 of 1000 are at most this.
    pub p999: u32,
    /// The largest.
    pub max: u32,
}

impl Percentiles {
    fn of(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        let at = |q: f64| {
            let rank = (samples.len() as f64 * q).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            count: samples.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// Runs the load on this thread until it is measured.
pub fn run(plan: &Plan) -> io::Result<Measure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(plan))
}

async fn measure(plan: &Plan) -> io::Result<Measure> {
    let process = plan.pid.map(Process);
    let memory_before = process.map(|p| p.resident_bytes()).transpose()?;
    let peer = (plan.vendor.peer)(PeerCall::default());
    let (format, frame_ms) = (peer.format(), peer.frame_ms());
    let phrases = match plan.relay {
        false => None,
        true => {
            let phrases = Phrases::new(format, frame_ms);
            let phrases = phrases.ok_or_else(|| io::Error::other(format!("{format} is not written here")))?;
            Some(Rc::new(phrases))
        }
    };
    let mut calls = Vec::with_capacity(plan.calls);
    for n in 0..plan.calls {
        let call = Call::open(plan, n, phrases.as_ref()).await?;
        tokio::task::spawn_local(listen(call.clone()));
        calls.push(call);
    }
    let frames = (plan.calls as u64 * plan.duration.as_millis() as u64 / u64::from(frame_ms)) as usize;
    let tally = Rc::new(RefCell::new(Tally::with_room(frames)));
    for call in &calls {
        call.borrow_mut().tally = tally.clone();
    }
    let viewed = viewers::open(plan).await?;
    let hooks = Rc::new(RefCell::new(Hooks::default()));
    let hooking =
        (plan.hooks_per_s > 0).then(|| tokio::task::spawn_local(call_hooks(plan_of_hooks(plan), hooks.clone())));

    let mut measured = Mono::now();
    let mut before = Vec::new();
    let mut late = Vec::with_capacity(frames / 4);
    let mut pace = Pace::every(TICK)?;
    let started = Mono::now();
    let mut tick = 0;
    loop {
        for _ in 0..pace.tick().await? {
            tick += 1;
            let due = started + TICK * tick;
            if due.since(started) == WARM_UP {
                before = process.map(|p| p.threads()).transpose()?.unwrap_or_default();
                measured = Mono::now();
                tally.borrow_mut().counts = true;
                viewed.borrow_mut().counts = true;
                hooks.borrow_mut().times.clear();
            }
            let phase = (tick % frame_ms) as usize;
            for call in calls.iter().skip(phase).step_by(frame_ms as usize) {
                call.borrow_mut().send();
            }
            if tally.borrow().counts && tick % LATE_EVERY == 0 {
                late.push(micros(Mono::now().since(due)));
            }
        }
        if Mono::now().since(started) >= WARM_UP + plan.duration {
            break;
        }
    }
    let seconds = Mono::now().since(measured).as_secs_f64();
    let after = process.map(|p| p.threads()).transpose()?.unwrap_or_default();
    let memory_after = process.map(|p| p.resident_bytes()).transpose()?;
    tally.borrow_mut().counts = false;
    viewed.borrow_mut().counts = false;
    let in_window = tally.borrow().in_window;
    if let Some(task) = hooking {
        task.abort();
    }

    // What is on its way may still arrive.
    let deadline = Mono::now() + Duration::from_secs(1);
    while Mono::now() < deadline && calls.iter().any(|c| c.borrow().in_flight() > 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let broken = calls.iter().filter(|c| c.borrow().is_over()).count() as u64;
    for call in &calls {
        let mut call = call.borrow_mut();
        call.hang_up();
        tally.borrow_mut().lost += call.in_flight() as u64;
    }
    // Give the kernel the closing frames before the sockets are dropped.
    tokio::time::sleep(Duration::from_millis(50)).await;

    let threads = shares(&before, &after, in_window);
    let t = std::mem::take(&mut *tally.borrow_mut());
    let (hooks, viewed) = (hooks.borrow(), viewed.borrow());
    Ok(Measure {
        vendor: plan.vendor.name.to_owned(),
        frame_ms,
        calls: plan.calls,
        seconds,
        sent: t.sent,
        returned: t.returned,
        lost: t.lost,
        doubled: t.doubled,
        reordered: t.reordered,
        changed: t.changed,
        broken,
        heard: t.heard,
        viewers: plan.viewers,
        viewed: viewed.media,
        viewer_gaps: viewed.gaps,
        viewers_broken: viewed.broken,
        echo_us: Percentiles::of(t.echo),
        pacing_us: Percentiles::of(t.pacing),
        send_late_us: Percentiles::of(late),
        hook_us: (plan.hooks_per_s > 0).then(|| Percentiles::of(hooks.times.clone())),
        hooks_failed: hooks.failed,
        cpu_us_per_frame: process.map(|_| threads.iter().map(|t| t.us_per_frame).sum()),
        threads,
        bytes_per_call: memory_before
            .zip(memory_after)
            .map(|(a, b)| (b as i64 - a as i64) / plan.calls.max(1) as i64),
    })
}

fn shares(before: &[ThreadTime], after: &[ThreadTime], frames: u64) -> Vec<ThreadShare> {
    let mut shares: Vec<ThreadShare> = Vec::new();
    for thread in after {
        let was = before.iter().find(|t| t.id == thread.id).map_or(0, |t| t.cpu_ns);
        let us = thread.cpu_ns.saturating_sub(was) as f64 / 1000.0 / frames.max(1) as f64;
        match shares.iter_mut().find(|s| s.name == thread.name) {
            Some(share) => share.us_per_frame += us,
            None => shares.push(ThreadShare {
                name: thread.name.clone(),
                us_per_frame: us,
            }),
        }
    }
    shares.sort_by(|a, b| b.us_per_frame.total_cmp(&a.us_per_frame));
    shares
}

fn micros(d: Duration) -> u32 {
    d.as_micros().try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks_of_the_samples() {
        let p = Percentiles::of((1..=1000).rev().collect());
        assert_eq!((p.count, p.p50, p.p99, p.p999, p.max), (1000, 500, 990, 999, 1000));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
        assert_eq!(Percentiles::of(vec![7]).p50, 7);
    }

    #[test]
    fn time_is_shared_out_by_the_names_of_threads() {
        let t = |id, name: &str, cpu_ns| ThreadTime {
            id,
            name: name.into(),
            cpu_ns,
        };
        let before = [t(1, "media-0", 1000), t(2, "control", 500)];
        let after = [t(1, "media-0", 21_000), t(2, "control", 1500), t(3, "control", 4000)];
        let shares = shares(&before, &after, 10);
        assert_eq!(shares[0].name, "media-0");
        assert!((shares[0].us_per_frame - 2.0).abs() < 1e-9 && (shares[1].us_per_frame - 0.5).abs() < 1e-9);
    }
}
