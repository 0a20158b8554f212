//! Counts allocations on a media thread while calls stream: after a warm-up there are none per frame.
//!
//! The path is the real one: TCP sockets, WebSocket frames, the vendor's dialect, both rings, playout and the recording's tap, on a
//! running shard. A codec wrapper marks the media thread, and the allocator of this binary counts what that thread asks for.
#![allow(unsafe_code)]

use bytes::BytesMut;
use sidetone::{
    audio::ring,
    base::{
        format::{AudioFormat, Encoding},
        ids::{CallId, ConnectionId, UtteranceId},
    },
    media::{Arrival, LegCommand, LegEvent, Plan, Route},
    net::conn::Conn,
    record::TapTx,
    shard::{CodecBox, Config, Handover, Shards},
    vendor::{self, Agreed, Descriptor, PeerCall, StreamCodec, StreamCommand, StreamEvent, Upgrade, WireError},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

struct Counting;

thread_local! {
    static MEDIA_THREAD: Cell<bool> = const { Cell::new(false) };
}
static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Sizes of the first allocations counted, for whoever must find one.
static SIZES: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
static LAST: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);

fn note(size: usize) {
    if COUNTING.load(SeqCst) && MEDIA_THREAD.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, SeqCst);
        let at = LAST.fetch_add(1, SeqCst) as usize;
        if let Some(slot) = SIZES.get(at) {
            slot.store(size as u64, SeqCst);
        }
    }
}

// SAFETY: every call is passed to the system allocator unchanged; counting touches only atomics and a const thread local.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: `p` came from the system allocator by the methods here.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Marks the thread that parses as the media thread and counts the messages it parses.
struct Marking(Box<dyn StreamCodec>);

impl StreamCodec for Marking {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        MEDIA_THREAD.set(true);
        let event = self.0.parse(message);
        if matches!(event, Ok(StreamEvent::Media(_))) && COUNTING.load(SeqCst) {
            FRAMES.fetch_add(1, SeqCst);
        }
        event
    }
    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        self.0.format(command, out);
    }
}

/// A masked client text frame (RFC 6455 §5).
fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    match text.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(text.as_bytes());
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Echo,
    Relay,
}

/// Runs `legs` calls of 20 ms frames for `warm` and then `count` frames each, and returns allocations and frames counted.
fn run(kind: Kind, vendor: &'static Descriptor, legs: usize, warm: usize, count: usize) -> (u64, u64) {
    // Where the dialect leaves the format to an agreement, it is the one that costs most.
    let wide = AudioFormat {
        encoding: Encoding::G722,
        rate: 16_000,
    };
    let upgrade = Upgrade {
        agreed: Agreed {
            outbound: Some(wide),
            l16: None,
        },
        ..Upgrade::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (arrivals_tx, mut arrivals) = mpsc::channel::<Arrival>(1024);
    let config = Config {
        threads: 1,
        pin: false,
        ..Config::default()
    };
    let shards = Shards::start(&config, &arrivals_tx).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut clients, mut peers) = (Vec::new(), Vec::new());
    for n in 0..legs {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, address) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let conn = {
            let _in = runtime.enter();
            let mut conn = Conn::plain(tokio::net::TcpStream::from_std(server).unwrap());
            conn.park().unwrap();
            conn
        };
        let handover = Handover {
            conn,
            read: bytes::Bytes::new(),
            connection: ConnectionId::new(),
            vendor,
            codec: CodecBox(Box::new(Marking((vendor.codec)(&upgrade)))),
            path_token: None,
            number: None,
            proven: false,
            peer: address,
        };
        shards.place(handover).map_err(|_| "refused").unwrap();
        let call = PeerCall {
            call_sid: format!("CA{n:032x}"),
            token: Some("token".into()),
            from: "+15550100001".into(),
            to: "+15550100002".into(),
            ..PeerCall::default()
        };
        peers.push((vendor.peer)(call));
        clients.push(client);
    }
    for (client, peer) in clients.iter_mut().zip(&mut peers) {
        for message in peer.open() {
            client.write_all(&frame(&message)).unwrap();
        }
    }
    let mut kept = Vec::new();
    let (events_tx, mut events) = mpsc::channel::<LegEvent>(1024);
    let mut ears = Vec::new();
    let mut mouths = Vec::new();
    for _ in 0..legs {
        let arrival = runtime.block_on(arrivals.recv()).unwrap();
        let route = match kind {
            Kind::Echo => Route::Echo,
            Kind::Relay => {
                let (up, ear) = ring::uplink(8000, 40_000, None);
                let (mouth, down) = ring::downlink(8000, 16_000, 64);
                ears.push(ear);
                mouths.push(mouth);
                Route::Relay {
                    uplink: Some(up),
                    downlink: Some(down),
                }
            }
        };
        let (samples, taken) = rtrb::RingBuffer::new(16_000);
        let (spans, descriptors) = rtrb::RingBuffer::new(256);
        kept.push((taken, descriptors));
        let plan = Plan {
            call: CallId::new(),
            route,
            barge_in_after: (kind == Kind::Relay).then_some(Duration::from_millis(200)),
            tap: Some(TapTx::new(samples, spans)),
            events: events_tx.clone(),
        };
        arrival.leg.try_send(LegCommand::Plan(Box::new(plan))).unwrap();
    }
    let mut sink = vec![0; 1 << 16];
    let mut pcm = [0i16; 4096];
    let start = Instant::now();
    for n in 0..warm + count {
        if n == warm {
            COUNTING.store(true, SeqCst);
        }
        for (client, peer) in clients.iter_mut().zip(&mut peers) {
            let mut text = String::new();
            peer.media(&[0xD5; 160], n as u64 * 20, &mut text);
            let burst = if n == warm / 2 { 12 } else { 1 };
            client.write_all(&frame(&text).repeat(burst)).unwrap();
        }
        // Once in the warm-up comes as much as the vendor's lead allows in one turn, as a greeting does.
        let burst = if n == warm / 2 { 12 } else { 1 };
        for mouth in &mut mouths {
            mouth.push(UtteranceId(1), &[1000; 160 * 12][..160 * burst], false);
        }
        for ear in &mut ears {
            while ear.pop(&mut pcm) > 0 {}
        }
        for (samples, spans) in &mut kept {
            let n = samples.slots();
            samples.read_chunk(n).unwrap().commit_all();
            while spans.pop().is_ok() {}
        }
        let due = start + Duration::from_millis(20 * (n as u64 + 1));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            while client.read(&mut sink).is_ok_and(|n| n > 0) {}
            client.set_nonblocking(false).unwrap();
        }
    }
    COUNTING.store(false, SeqCst);
    drop(clients);
    let mut ended = 0;
    while ended < legs {
        if let Some(LegEvent::Ended { accounting: a, .. }) = runtime.block_on(events.recv()) {
            assert_eq!(
                a.in_samples,
                a.in_relayed + a.in_dropped_unheard + a.in_dropped_full,
                "{a:?}"
            );
            assert_eq!(
                a.out_samples,
                a.out_sent + a.out_cut + a.out_dropped_stalled + a.out_queued,
                "{a:?}"
            );
            assert!(a.out_sent > 0 && a.in_bad == 0, "{a:?}");
            ended += 1;
        }
    }
    (ALLOCATIONS.swap(0, SeqCst), FRAMES.swap(0, SeqCst))
}

/// One test, because the counters are the process's.
#[test]
fn a_media_thread_allocates_nothing_per_frame() {
    let vendors = ["twilio", "telnyx"].map(|name| vendor::by_name(name).expect("a registered vendor"));
    for (kind, vendor) in [Kind::Echo, Kind::Relay]
        .into_iter()
        .flat_map(|k| vendors.map(|v| (k, v)))
    {
        LAST.store(0, SeqCst);
        let (allocations, frames) = run(kind, vendor, 50, 100, 200);
        assert!(frames >= 50 * 199, "only {frames} frames were counted");
        let name = if kind == Kind::Echo {
            "echo"
        } else {
            "relay with ear, mouth and tap"
        };
        let sizes: Vec<_> = SIZES.iter().map(|s| s.swap(0, SeqCst)).filter(|s| *s > 0).collect();
        assert_eq!(
            allocations, 0,
            "{vendor:?}, {name}: {allocations} allocations in {frames} frames, of {sizes:?} bytes"
        );
    }
}
