//! One frame through a whole leg without its socket: message in, decode, ring, ring, playout, encode, message out. Beside it the way
//! everybody starts with. Each dialect is measured through the registry.
//!
//! With `FRAMES=n VENDOR=name` in the environment it only sends so many frames, for `scripts/instructions`, which counts what they
//! take; `VENDOR=list` names the dialects.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use criterion::Criterion;
use serde_json::{Value, json};
use sidetone::{
    audio::codec,
    base::{ids::CallId, time::Mono},
    media::{LegCommand, Limits, Plan, Route, Scratch, Session},
    vendor::{Descriptor, Peer, PeerCall, VENDORS},
};
use std::{collections::VecDeque, hint::black_box};

/// A leg that echoes, and the vendor's end of it.
struct Echo {
    session: Session,
    peer: Box<dyn Peer>,
    scratch: Scratch,
    audio: Vec<u8>,
    frame_ms: u64,
    at_ms: u64,
    message: String,
    out: BytesMut,
}

impl Echo {
    fn new(vendor: &'static Descriptor) -> Self {
        let limits = Limits {
            messages_per_s: 1_000_000,
            ..Limits::default()
        };
        let mut session = Session::new(Mono::ZERO, vendor.caps, (vendor.codec)(&Default::default()), limits);
        let mut peer = (vendor.peer)(PeerCall {
            call_sid: "CA00000000000000000000000000000001".into(),
            from: "+15550100".into(),
            to: "+15550101".into(),
            ..PeerCall::default()
        });
        let mut scratch = Scratch::default();
        for message in peer.open() {
            session.handle_message(Mono::ZERO, message.as_bytes(), &mut scratch);
        }
        let (events, _) = tokio::sync::mpsc::channel(64);
        let plan = Plan {
            call: CallId::new(),
            route: Route::Echo,
            barge_in_after: None,
            tap: None,
            events,
        };
        session.handle_command(Mono::ZERO, LegCommand::Plan(Box::new(plan)), &mut scratch);
        let frame_ms = peer.frame_ms();
        let bytes = peer.format().bytes_of_ms(frame_ms) as u32;
        Self {
            session,
            peer,
            scratch,
            audio: (0..bytes)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
            frame_ms: u64::from(frame_ms),
            at_ms: 0,
            message: String::new(),
            out: BytesMut::with_capacity(64 * 1024),
        }
    }

    /// The vendor's next message.
    fn speak(&mut self) {
        self.message.clear();
        self.peer.media(&self.audio, self.at_ms, &mut self.message);
        self.at_ms += self.frame_ms;
    }

    /// That message through the leg. Returns the bytes sent back. What `scripts/instructions` counts.
    #[inline(never)]
    fn turn(&mut self) -> usize {
        let now = Mono::from_millis(self.at_ms);
        self.session
            .handle_message(now, self.message.as_bytes(), &mut self.scratch);
        self.out.clear();
        while self
            .session
            .poll_output(now, &mut self.scratch, &mut self.out)
            .is_some()
        {}
        while self.session.pop_event().is_some() {}
        self.out.len()
    }
}

/// The same job with owned values: a tree of JSON, a vector for each step, a queue between them.
fn naive(message: &str, queue: &mut VecDeque<Vec<i16>>) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let bytes = STANDARD.decode(message["media"]["payload"].as_str()?).ok()?;
    let mut samples = vec![0; bytes.len()];
    codec::decode(sidetone::base::format::Encoding::Ulaw, &bytes, &mut samples).ok()?;
    queue.push_back(samples);
    let samples = queue.pop_front()?;
    let mut bytes = vec![0; samples.len()];
    codec::encode(sidetone::base::format::Encoding::Ulaw, &samples, &mut bytes);
    let stream = message["streamSid"].as_str()?;
    Some(json!({"event": "media", "streamSid": stream, "media": {"payload": STANDARD.encode(&bytes)}}).to_string())
}

fn echo(c: &mut Criterion) {
    for vendor in VENDORS {
        let mut group = c.benchmark_group(format!("session/{}", vendor.name));
        let mut leg = Echo::new(vendor);
        group.bench_function("echo", |b| {
            b.iter(|| {
                leg.speak();
                leg.turn()
            });
        });
        let mut leg = Echo::new(vendor);
        group.bench_function("the vendor's end alone", |b| {
            b.iter(|| {
                leg.speak();
                leg.message.len()
            })
        });
        let mut queue = VecDeque::new();
        leg.speak();
        if naive(&leg.message, &mut queue).is_some() {
            group.bench_function("naive", |b| {
                b.iter(|| naive(black_box(&leg.message), &mut queue));
            });
        }
        group.finish();
    }
}

fn main() {
    if std::env::var("VENDOR").is_ok_and(|v| v == "list") {
        VENDORS.iter().for_each(|v| println!("{}", v.name));
        return;
    }
    if let (Ok(frames), Ok(vendor)) = (std::env::var("FRAMES"), std::env::var("VENDOR")) {
        let mut leg = Echo::new(sidetone::vendor::by_name(&vendor).expect("a vendor's name"));
        let frames: u32 = frames.parse().expect("a number of frames");
        let mut sent = 0;
        for _ in 0..frames {
            leg.speak();
            sent += usize::from(leg.turn() > 0);
        }
        println!("{sent} of {frames} frames came back");
        return;
    }
    let mut c = Criterion::default().configure_from_args();
    echo(&mut c);
    c.final_summary();
}
