//! Many calls from one thread, to measure a daemon or the yardstick: every frame is unique, so a lost, doubled, late or changed one
//! is found, and what it costs the generator is small beside what it costs the daemon.
//!
//! Calls are spread over the phases of a frame, each sends on an absolute schedule, and the echo of every frame is timed from
//! the moment it was handed to the kernel. Payloads leave out the code 0x7F: G.711's negative zero decodes to 0, which encodes as 0xFF.

use super::{
    address::Address,
    announce,
    caller::Webhook,
    frames::{self, CLOSE, PING, PONG, TEXT},
    pace::Pace,
    payload,
    process::{Process, ThreadTime},
};
use crate::{
    base::{format::AudioFormat, time::Mono},
    net::client::HttpClient,
    vendor::{Descriptor, Peer, PeerCall, PeerEvent},
};
use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::VecDeque, io, rc::Rc, time::Duration};
use tokio::{net::TcpStream, task::LocalSet};

/// Frames a call keeps to recognise echoes that come twice.
const REMEMBERED: usize = 64;
/// Calls begin and frames are sent on this grid.
const TICK: Duration = Duration::from_millis(1);
/// Length of a frame.
const FRAME_MS: u64 = 20;
/// What is sent before this does not count: caches fill, buffers grow.
const WARM_UP: Duration = Duration::from_secs(2);
/// Mask of every frame; any will do.
const MASK: [u8; 4] = [0x5A, 0x91, 0x2C, 0xE7];

/// What to measure.
#[derive(Debug)]
pub struct Plan {
    /// In whose dialect.
    pub vendor: &'static Descriptor,
    /// Who is measured, with the path of the media socket if it is not the vendor's.
    pub daemon: Address,
    /// Whether that is the yardstick, which sends every message back as it is.
    pub floor: bool,
    /// Calls at once.
    pub calls: usize,
    /// How long, warm-up not counted.
    pub duration: Duration,
    /// The measured process, for its CPU time and memory.
    pub pid: Option<u32>,
    /// Webhooks a second, announcing further calls meanwhile.
    pub hooks_per_s: u32,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
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
    /// Sockets that broke.
    pub broken: u64,
    /// Time from sending a frame until it was back, in µs.
    pub echo_us: Percentiles,
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
    /// Growth of the measured process's resident memory per call, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_call: Option<i64>,
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
    let mut calls = Vec::with_capacity(plan.calls);
    for n in 0..plan.calls {
        let call = Call::open(plan, n).await?;
        tokio::task::spawn_local(listen(call.clone()));
        calls.push(call);
    }
    let frames = (plan.calls as u64 * plan.duration.as_millis() as u64 / FRAME_MS) as usize;
    let tally = Rc::new(RefCell::new(Tally::with_room(frames)));
    for call in &calls {
        call.borrow_mut().tally = tally.clone();
    }
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
                hooks.borrow_mut().times.clear();
            }
            let phase = tick as usize % FRAME_MS as usize;
            for call in calls.iter().skip(phase).step_by(FRAME_MS as usize) {
                call.borrow_mut().send();
            }
            if tally.borrow().counts && phase == 0 {
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
    let in_window = tally.borrow().in_window;
    if let Some(task) = hooking {
        task.abort();
    }

    // What is on its way may still arrive.
    let deadline = Mono::now() + Duration::from_secs(1);
    while Mono::now() < deadline && calls.iter().any(|c| !c.borrow().in_flight.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for call in &calls {
        let mut call = call.borrow_mut();
        call.hang_up();
        tally.borrow_mut().lost += call.in_flight.len() as u64;
    }
    // Give the kernel the closing frames before the sockets are dropped.
    tokio::time::sleep(Duration::from_millis(50)).await;

    let threads = shares(&before, &after, in_window);
    let t = std::mem::take(&mut *tally.borrow_mut());
    let hooks = hooks.borrow();
    Ok(Measure {
        calls: plan.calls,
        seconds,
        sent: t.sent,
        returned: t.returned,
        lost: t.lost,
        doubled: t.doubled,
        reordered: t.reordered,
        changed: t.changed,
        broken: t.broken,
        echo_us: Percentiles::of(t.echo),
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

#[derive(Debug, Default)]
struct Tally {
    /// Whether this is the window that is measured.
    counts: bool,
    in_window: u64,
    sent: u64,
    returned: u64,
    lost: u64,
    doubled: u64,
    reordered: u64,
    changed: u64,
    broken: u64,
    echo: Vec<u32>,
}

impl Tally {
    fn with_room(frames: usize) -> Self {
        Self {
            echo: Vec::with_capacity(frames),
            ..Self::default()
        }
    }
}

/// A frame on its way: what must come back, and when it was sent.
struct Flight {
    body: Vec<u8>,
    sent: Mono,
}

struct Call {
    stream: Rc<TcpStream>,
    peer: Box<dyn Peer>,
    floor: bool,
    format: AudioFormat,
    /// State of the noise that fills frames.
    noise: u64,
    at_ms: u64,
    in_flight: VecDeque<Flight>,
    /// When the newest frame that is back was sent.
    newest_back: Mono,
    /// Bodies that are back.
    back: VecDeque<Vec<u8>>,
    /// Bodies to use again.
    spare: Vec<Vec<u8>>,
    /// Audio that is not yet a whole frame.
    partial: Vec<u8>,
    message: String,
    outbox: BytesMut,
    tally: Rc<RefCell<Tally>>,
    over: bool,
}

impl Call {
    async fn open(plan: &Plan, n: usize) -> io::Result<Rc<RefCell<Self>>> {
        let mut peer = (plan.vendor.peer)(PeerCall {
            call_sid: announce::new_call_sid(),
            token: None,
            from: format!("+1555{n:07}"),
            to: "+15550000000".to_owned(),
            ..PeerCall::default()
        });
        let path = match plan.daemon.path.as_str() {
            "" => plan.vendor.stream_path,
            path => path,
        };
        let mut stream = plan.daemon.connect().await?;
        frames::connect(&mut stream, &plan.daemon.authority(), path).await?;
        let mut outbox = BytesMut::with_capacity(2048);
        if !plan.floor {
            for message in peer.open() {
                frames::put(&mut outbox, TEXT, message.as_bytes(), Some(MASK));
            }
        }
        let mut call = Self {
            stream: Rc::new(stream),
            format: peer.format(),
            peer,
            floor: plan.floor,
            noise: 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + 1),
            at_ms: 0,
            in_flight: VecDeque::with_capacity(REMEMBERED),
            newest_back: Mono::ZERO,
            back: VecDeque::with_capacity(REMEMBERED),
            spare: Vec::new(),
            partial: Vec::new(),
            message: String::with_capacity(1024),
            outbox,
            tally: Rc::default(),
            over: false,
        };
        call.flush();
        Ok(Rc::new(RefCell::new(call)))
    }

    /// Sends the next frame.
    fn send(&mut self) {
        if self.over {
            return;
        }
        let mut body = self.spare.pop().unwrap_or_default();
        body.clear();
        let bytes = self.format.bytes_of_ms(FRAME_MS as u32);
        body.extend((0..bytes).map(|_| {
            // xorshift64
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            (self.noise as u8) & 0xFE
        }));
        self.message.clear();
        self.peer.media(&body, self.at_ms, &mut self.message);
        self.at_ms += FRAME_MS;
        if self.floor {
            body.clear();
            body.extend_from_slice(self.message.as_bytes());
        }
        frames::put(&mut self.outbox, TEXT, self.message.as_bytes(), Some(MASK));
        self.in_flight.push_back(Flight {
            body,
            sent: Mono::now(),
        });
        self.tally.borrow_mut().sent += 1;
        self.flush();
    }

    /// Writes what the kernel takes; the rest goes with the next frame.
    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(n) => self.outbox.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.broke(),
            }
        }
    }

    /// Reads one message of the far end.
    fn hear(&mut self, message: &[u8]) {
        if self.floor {
            return self.came_back(message);
        }
        let audio = match self.peer.read(message) {
            Ok(PeerEvent::Media(payload)) => payload::decode(payload),
            Ok(PeerEvent::Mark(name)) => {
                let name = name.to_owned();
                let answer = self.peer.mark(&name);
                frames::put(&mut self.outbox, TEXT, answer.as_bytes(), Some(MASK));
                return self.flush();
            }
            Ok(_) => return,
            Err(_) => None,
        };
        let Some(audio) = audio else {
            self.tally.borrow_mut().changed += 1;
            return;
        };
        let bytes = self.format.bytes_of_ms(FRAME_MS as u32);
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(&audio);
        let whole = partial.len() / bytes * bytes;
        for frame in partial[..whole].chunks(bytes) {
            self.came_back(frame);
        }
        partial.drain(..whole);
        self.partial = partial;
    }

    fn came_back(&mut self, body: &[u8]) {
        let mut tally = self.tally.borrow_mut();
        let Some(at) = self.in_flight.iter().position(|f| f.body == body) else {
            match self.back.iter().any(|b| b == body) {
                true => tally.doubled += 1,
                false => tally.changed += 1,
            }
            return;
        };
        let Some(flight) = self.in_flight.remove(at) else {
            return;
        };
        tally.returned += 1;
        tally.reordered += u64::from(flight.sent < self.newest_back);
        self.newest_back = self.newest_back.max(flight.sent);
        if tally.counts {
            tally.in_window += 1;
            tally.echo.push(micros(Mono::now().since(flight.sent)));
        }
        if self.back.len() == REMEMBERED
            && let Some(old) = self.back.pop_front()
        {
            self.spare.push(old);
        }
        self.back.push_back(flight.body);
    }

    fn broke(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.tally.borrow_mut().broken += 1;
        }
    }

    fn hang_up(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if !self.floor {
            let stop = self.peer.stop();
            frames::put(&mut self.outbox, TEXT, stop.as_bytes(), Some(MASK));
        }
        frames::put(&mut self.outbox, CLOSE, &1000_u16.to_be_bytes(), Some(MASK));
        self.flush();
    }
}

/// Reads a call's socket until it ends.
async fn listen(call: Rc<RefCell<Call>>) {
    let stream = call.borrow().stream.clone();
    let mut inbox = BytesMut::with_capacity(4096);
    loop {
        inbox.reserve(1024);
        let read = match stream.try_read_buf(&mut inbox) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match stream.readable().await {
                Ok(()) => continue,
                Err(_) => 0,
            },
            Ok(n) => n,
            Err(_) => 0,
        };
        if read == 0 {
            return call.borrow_mut().broke();
        }
        loop {
            let mut call = call.borrow_mut();
            match frames::next(&mut inbox) {
                Ok(Some(frame)) => {
                    let payload = &inbox[frame.begin..frame.end];
                    match frame.opcode {
                        TEXT => call.hear(payload),
                        PING => {
                            frames::put(&mut call.outbox, PONG, payload, Some(MASK));
                            call.flush();
                        }
                        CLOSE => return call.broke(),
                        _ => {}
                    }
                    inbox.advance(frame.end);
                }
                Ok(None) => break,
                Err(_) => return call.broke(),
            }
        }
    }
}

/// Webhooks sent while calls are live.
#[derive(Debug, Default)]
struct Hooks {
    times: Vec<u32>,
    failed: u64,
}

struct HookPlan {
    vendor: &'static Descriptor,
    webhook: Webhook,
    every: Duration,
}

fn plan_of_hooks(plan: &Plan) -> HookPlan {
    let mut address = plan.daemon.clone();
    announce::hook_path(plan.vendor)
        .unwrap_or("/")
        .clone_into(&mut address.path);
    HookPlan {
        vendor: plan.vendor,
        webhook: Webhook {
            rest: None,
            signed_as: address.at("http", &address.path),
            address,
            secret: None,
            account: None,
        },
        every: Duration::from_secs(1) / plan.hooks_per_s.max(1),
    }
}

async fn call_hooks(plan: HookPlan, hooks: Rc<RefCell<Hooks>>) {
    let Ok(mut pace) = Pace::every(plan.every) else { return };
    let client = HttpClient::new();
    for n in 0_u64.. {
        if pace.tick().await.is_err() {
            return;
        }
        let mut call = PeerCall {
            call_sid: announce::new_call_sid(),
            token: None,
            from: format!("+1556{n:07}"),
            to: "+15550000000".to_owned(),
            ..PeerCall::default()
        };
        let before = Mono::now();
        let mut peer = (plan.vendor.peer)(call.clone());
        let answered = match peer.by_command() {
            true => announce::commanded(&client, &mut *peer, None, &plan.webhook)
                .await
                .map(drop),
            false => announce::announce(&client, plan.vendor, &mut call, &plan.webhook)
                .await
                .map(drop),
        };
        match answered {
            Ok(()) => hooks.borrow_mut().times.push(micros(Mono::now().since(before))),
            Err(_) => hooks.borrow_mut().failed += 1,
        }
    }
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
