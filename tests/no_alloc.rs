//! Counts allocations on a media thread while calls of every vendor stream: after a warm-up there are none per frame.
//!
//! The path is the real one: TCP sockets, WebSocket frames, the vendors' dialects, both rings, playout, the recording's tap and a
//! listener's copies, on a running shard. A codec wrapper marks the media thread and the dialect that has the turn, and the allocator
//! of this binary counts what that thread asks for. Over TLS, rustls allocates for every record; how often is counted apart.
#![allow(unsafe_code)]

use bytes::BytesMut;
use sidetone::{
    audio::{opus, ring},
    base::{
        format::{AudioFormat, Encoding},
        ids::{CallId, ConnectionId, UtteranceId},
    },
    media::{
        Arrival, LegCommand, LegEvent, Plan, Route,
        monitor::{MonitorRx, monitor},
    },
    net::conn::{Conn, Slot},
    record::TapTx,
    shard::{CodecBox, Config, Handover, Shards},
    vendor::{
        self, Agreed, Descriptor, Peer, PeerCall, StreamCodec, StreamCommand, StreamEvent, Upgrade, VENDORS, WireError,
    },
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_rustls::TlsAcceptor;

/// Streams before counting begins: longer than any vendor's lead.
const WARM_MS: u64 = 2000;
/// Streams while it counts: some frames of every vendor.
const COUNT_MS: u64 = 3000;
/// Calls of each vendor.
const LEGS: usize = 10;
/// Vendors, with room to spare.
const DIALECTS: usize = 16;

struct Counting;

thread_local! {
    /// On the media thread, which dialect had the turn last.
    static TURN: Cell<Option<usize>> = const { Cell::new(None) };
}
static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: [AtomicU64; DIALECTS] = [const { AtomicU64::new(0) }; DIALECTS];
static FRAMES: [AtomicU64; DIALECTS] = [const { AtomicU64::new(0) }; DIALECTS];
/// Sizes of the first allocations counted, for whoever must find one.
static SIZES: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
static LAST: AtomicU64 = AtomicU64::new(0);

fn note(size: usize) {
    if !COUNTING.load(SeqCst) {
        return;
    }
    if let Some(dialect) = TURN.try_with(Cell::get).ok().flatten() {
        ALLOCATIONS[dialect].fetch_add(1, SeqCst);
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

/// Marks the thread that parses as the media thread and counts the messages with audio that it parses.
struct Marking {
    dialect: usize,
    codec: Box<dyn StreamCodec>,
}

impl StreamCodec for Marking {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        TURN.set(Some(self.dialect));
        let event = self.codec.parse(message);
        if matches!(event, Ok(StreamEvent::Media(_))) && COUNTING.load(SeqCst) {
            FRAMES[self.dialect].fetch_add(1, SeqCst);
        }
        event
    }
    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        TURN.set(Some(self.dialect));
        self.codec.format(command, out);
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

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Back through both rings on the shard.
    Echo,
    /// Back as the packets of Opus that came.
    Passed,
    /// To an ear and from a mouth.
    Relay,
}

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// The vendor's end of a call.
struct Far {
    tcp: TcpStream,
    socket: Box<dyn Socket>,
    peer: Box<dyn Peer>,
    /// What it says in place of silence.
    packet: Option<Vec<u8>>,
}

impl Far {
    /// The audio that is due `ms` into the call, if a frame begins there; in the middle of the warm-up comes as much in one go as
    /// a vendor's lead allows, as a greeting does.
    fn speak(&mut self, ms: u64) -> Option<u64> {
        let frame_ms = u64::from(self.peer.frame_ms());
        if !ms.is_multiple_of(frame_ms) {
            return None;
        }
        let burst = match (WARM_MS / 2..WARM_MS / 2 + frame_ms).contains(&ms) {
            true => (240 / frame_ms).max(2),
            false => 1,
        };
        let bytes = self.peer.format().bytes_of_ms(frame_ms as u32);
        let mut text = String::new();
        let silence = vec![0xD5; bytes];
        self.peer
            .media(self.packet.as_deref().unwrap_or(&silence), ms, &mut text);
        self.socket.write_all(&frame(&text).repeat(burst as usize)).unwrap();
        Some(burst * frame_ms)
    }

    /// Reads what has come.
    fn drain(&mut self, sink: &mut [u8]) {
        self.tcp.set_nonblocking(true).unwrap();
        while self.socket.read(sink).is_ok_and(|n| n > 0) {}
        self.tcp.set_nonblocking(false).unwrap();
    }
}

/// Both ends of a TLS setup that trust each other.
struct Tls {
    acceptor: TlsAcceptor,
    client: Arc<rustls::ClientConfig>,
}

impl Tls {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            acceptor: sidetone::net::tls::acceptor(&cert, &key).unwrap(),
            client: Arc::new(client),
        }
    }

    /// Shakes hands on a connected pair.
    fn wrap(&self, runtime: &Runtime, client: TcpStream, server: tokio::net::TcpStream) -> (Box<dyn Socket>, Conn) {
        let acceptor = self.acceptor.clone();
        let accepting = runtime.spawn(async move { acceptor.accept(Slot::Live(server)).await });
        let session = rustls::ClientConnection::new(self.client.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, client);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let server = runtime.block_on(accepting).unwrap().unwrap();
        (Box::new(stream), Conn::Tls(Box::new(server)))
    }
}

/// Runs calls of `vendors` for the warm-up and the time that is counted. Returns, for each vendor, allocations and frames.
fn run(kind: Kind, vendors: &[&'static Descriptor], tls: Option<&Tls>) -> Vec<(u64, u64)> {
    let passed = kind == Kind::Passed;
    // Where the dialect leaves the format to an agreement, it is the one that costs most.
    let wide = AudioFormat {
        encoding: if passed { Encoding::Opus } else { Encoding::G722 },
        rate: 16_000,
    };
    let packet = passed.then(|| {
        let mut packet = vec![0; opus::MAX_PACKET];
        let n = opus::Encoder::new(16_000, 0).unwrap().encode(&[500; 320], &mut packet);
        packet.truncate(n);
        packet
    });
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
    let mut far = Vec::new();
    for (n, (dialect, vendor)) in vendors
        .iter()
        .enumerate()
        .cycle()
        .take(LEGS * vendors.len())
        .enumerate()
    {
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = tcp.try_clone().unwrap();
        let (server, address) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let _in = runtime.enter();
        let server = tokio::net::TcpStream::from_std(server).unwrap();
        let (socket, mut conn): (Box<dyn Socket>, _) = match tls {
            None => (Box::new(client), Conn::plain(server)),
            Some(tls) => tls.wrap(&runtime, client, server),
        };
        conn.park().unwrap();
        let codec = Marking {
            dialect,
            codec: (vendor.codec)(&upgrade),
        };
        let handover = Handover {
            conn,
            read: bytes::Bytes::new(),
            connection: ConnectionId::new(),
            vendor,
            codec: CodecBox(Box::new(codec)),
            path_token: None,
            number: None,
            proven: false,
            peer: address,
            permit: None,
        };
        shards.place(handover).map_err(|_| "refused").unwrap();
        let call = PeerCall {
            call_sid: format!("CA{n:032x}"),
            token: Some("token".into()),
            from: "+15550100001".into(),
            to: "+15550100002".into(),
            ..PeerCall::default()
        };
        let peer = (vendor.peer)(call);
        far.push(Far {
            tcp,
            socket,
            peer,
            packet: packet.clone(),
        });
    }
    for far in &mut far {
        for mut message in far.peer.open() {
            if passed {
                message = message.replace("PCMU", "OPUS");
            }
            far.socket.write_all(&frame(&message)).unwrap();
        }
    }
    let (events_tx, mut events) = mpsc::channel::<LegEvent>(1024);
    let (mut ears, mut mouths, mut tapes, mut listeners) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..far.len() {
        let arrival = runtime.block_on(arrivals.recv()).unwrap();
        let route = match kind {
            Kind::Echo | Kind::Passed => Route::Echo,
            Kind::Relay => {
                let (up, ear) = ring::uplink_of(AudioFormat::ULAW_8K, 40_000, None);
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
        tapes.push((taken, descriptors));
        let plan = Plan {
            call: CallId::new(),
            route,
            barge_in_after: (kind == Kind::Relay).then_some(Duration::from_millis(200)),
            tap: Some(TapTx::new(samples, spans)),
            events: events_tx.clone(),
        };
        arrival.leg.try_send(LegCommand::Plan(Box::new(plan))).unwrap();
        // Somebody listens in, to the vendor's payloads and to samples.
        let (tx, rx) = monitor(1 << 18, 256);
        rx.want(true, true);
        arrival.leg.try_send(LegCommand::Monitor(Box::new(tx))).unwrap();
        listeners.push(rx);
    }
    let mut sink = vec![0; 1 << 16];
    let mut pcm = [0i16; 4096];
    let mut piece = Vec::new();
    let mut pieces = 0;
    let start = Instant::now();
    for ms in (0..WARM_MS + COUNT_MS).step_by(10) {
        if ms == WARM_MS {
            COUNTING.store(true, SeqCst);
        }
        for (n, far) in far.iter_mut().enumerate() {
            let spoken_ms = far.speak(ms);
            if let (Some(ms), Some(mouth)) = (spoken_ms, mouths.get_mut(n)) {
                mouth.push(UtteranceId(1), &[1000; 8 * 1000][..8 * ms as usize], false);
            }
        }
        for ear in &mut ears {
            while ear.pop(&mut pcm) > 0 {}
        }
        for (samples, spans) in &mut tapes {
            let n = samples.slots();
            samples.read_chunk(n).unwrap().commit_all();
            while spans.pop().is_ok() {}
        }
        for rx in &mut listeners {
            pieces += heard(rx, &mut piece);
        }
        let due = start + Duration::from_millis(ms + 10);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for far in &mut far {
            far.drain(&mut sink);
        }
    }
    COUNTING.store(false, SeqCst);
    assert!(
        pieces as u64 > far.len() as u64 * (WARM_MS + COUNT_MS) / 500,
        "only {pieces} pieces were listened to"
    );
    let legs = far.len();
    drop(far);
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
    let of = |counters: &[AtomicU64; DIALECTS], n: usize| counters[n].swap(0, SeqCst);
    (0..vendors.len())
        .map(|n| (of(&ALLOCATIONS, n), of(&FRAMES, n)))
        .collect()
}

/// Takes what a listener was given. Returns how many pieces that were.
fn heard(rx: &mut MonitorRx, piece: &mut Vec<u8>) -> usize {
    let mut n = 0;
    while rx.next(piece).is_some() {
        n += 1;
    }
    n
}

/// One test, because the counters are the process's.
#[test]
fn a_media_thread_allocates_nothing_per_frame_in_any_dialect_and_tls_a_little() {
    let opus = [vendor::by_name("telnyx").expect("a registered vendor")];
    for (kind, vendors) in [(Kind::Echo, VENDORS), (Kind::Relay, VENDORS), (Kind::Passed, &opus)] {
        LAST.store(0, SeqCst);
        let counts = run(kind, vendors, None);
        let sizes: Vec<_> = SIZES.iter().map(|s| s.swap(0, SeqCst)).filter(|s| *s > 0).collect();
        for (vendor, (allocations, frames)) in vendors.iter().zip(counts) {
            let frame_ms = u64::from((vendor.peer)(PeerCall::default()).frame_ms());
            let least = LEGS as u64 * (COUNT_MS / frame_ms - 1);
            assert!(
                frames >= least,
                "{}: only {frames} frames of {least} were counted",
                vendor.name
            );
            assert_eq!(
                allocations, 0,
                "{}, {kind:?} with tap and listener: {allocations} allocations in {frames} frames; the first of all were of \
                 {sizes:?} bytes",
                vendor.name
            );
        }
    }
    // rustls makes a buffer for each record that it opens and each that it seals.
    let vendor = vendor::by_name("twilio").expect("a registered vendor");
    let (allocations, frames) = run(Kind::Relay, &[vendor], Some(&Tls::new()))[0];
    println!("over TLS, {allocations} allocations in {frames} frames each way");
    assert!(
        frames > 0 && allocations <= frames * 5,
        "{allocations} allocations in {frames} frames"
    );
}
