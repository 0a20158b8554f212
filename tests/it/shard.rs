//! Media threads with real sockets: connections move to them with their bytes and their TLS, and one leg's end is its own.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use sidetone::{
    base::ids::{CallId, ConnectionId},
    media::{Arrival, LegCommand, LegEnd, LegEvent, Plan, Route},
    net::conn::{Conn, Slot},
    shard::{CodecBox, Config, Handover, Shards},
    vendor::{Peer, PeerCall, PeerEvent, StreamCodec, StreamCommand, StreamEvent, Upgrade, VENDORS, WireError},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

const PATIENCE: Duration = Duration::from_secs(10);

struct House {
    shards: Shards,
    arrivals: mpsc::Receiver<Arrival>,
    listener: TcpListener,
}

struct Caller<S> {
    ws: WebSocketStream<S>,
    peer: Box<dyn Peer>,
    events: mpsc::Receiver<LegEvent>,
}

fn peer() -> Box<dyn Peer> {
    let call = PeerCall {
        call_sid: "CA00000000000000000000000000000001".into(),
        token: None,
        from: "+15550100001".into(),
        to: "+15550100002".into(),
        ..PeerCall::default()
    };
    (VENDORS[0].peer)(call)
}

fn real_codec() -> Box<dyn StreamCodec> {
    (VENDORS[0].codec)(&Upgrade::default())
}

impl House {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let (tx, arrivals) = mpsc::channel(64);
        let config = Config {
            threads: 1,
            pin: false,
            ..config
        };
        let shards = Shards::start(&config, &tx).unwrap();
        Self {
            shards,
            arrivals,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        (client, server)
    }

    fn place(&self, mut conn: Conn, read: Bytes, codec: Box<dyn StreamCodec>) {
        conn.park().unwrap();
        let handover = Handover {
            conn,
            read,
            connection: ConnectionId::new(),
            vendor: VENDORS[0],
            codec: CodecBox(codec),
            path_token: None,
            number: None,
            proven: false,
            peer: ([127, 0, 0, 1], 1).into(),
            permit: None,
        };
        self.shards.place(handover).map_err(|_| "refused").unwrap();
    }

    /// An echo call over `client`, whose other end the shard has.
    async fn start<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: S) -> Caller<S> {
        let mut ws = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut peer = peer();
        for message in peer.open() {
            ws.send(Message::text(message)).await.unwrap();
        }
        let events = self.plan().await;
        Caller { ws, peer, events }
    }

    async fn plan(&mut self) -> mpsc::Receiver<LegEvent> {
        let arrival = timeout(PATIENCE, self.arrivals.recv()).await.unwrap().unwrap();
        Self::answer(&arrival)
    }

    fn answer(arrival: &Arrival) -> mpsc::Receiver<LegEvent> {
        let (events_tx, events) = mpsc::channel(64);
        let plan = Plan {
            call: CallId::new(),
            route: Route::Echo,
            barge_in_after: None,
            tap: None,
            events: events_tx,
        };
        arrival.leg.try_send(LegCommand::Plan(Box::new(plan))).unwrap();
        events
    }

    async fn echo_call(&mut self) -> Caller<TcpStream> {
        let (client, server) = self.connect().await;
        self.place(Conn::plain(server), Bytes::new(), real_codec());
        self.start(client).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    /// Sends a frame and hears it back.
    async fn hears_itself(&mut self, code: u8) {
        let mut text = String::new();
        self.peer.media(&[code; 160], 0, &mut text);
        self.ws.send(Message::text(text)).await.unwrap();
        let heard = self.next().await;
        let Message::Text(heard) = heard else {
            panic!("{heard:?}")
        };
        assert!(
            matches!(self.peer.read(heard.as_bytes()), Ok(PeerEvent::Media(_))),
            "{heard}"
        );
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.ws.next())
            .await
            .expect("in time")
            .expect("a message")
            .expect("a good one")
    }

    async fn closed_with(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.expect("a code").code.into();
            }
        }
    }

    async fn end(&mut self) -> LegEnd {
        loop {
            match timeout(PATIENCE, self.events.recv()).await.expect("in time") {
                Some(LegEvent::Ended { end, .. }) => return end,
                Some(_) => {}
                None => return LegEnd::Crashed,
            }
        }
    }
}

/// Panics at its third message.
struct Fragile(Box<dyn StreamCodec>, u32);

impl StreamCodec for Fragile {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        self.1 += 1;
        assert!(self.1 < 3, "a bug in one dialect");
        self.0.parse(message)
    }
    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        self.0.format(command, out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_one_leg_ends_that_leg_alone() {
    let mut house = House::new().await;
    let mut well = house.echo_call().await;
    let (client, server) = house.connect().await;
    house.place(Conn::plain(server), Bytes::new(), Box::new(Fragile(real_codec(), 0)));
    let mut ill = house.start(client).await;
    well.hears_itself(0x11).await;
    let mut text = String::new();
    ill.peer.media(&[0x11; 160], 0, &mut text);
    ill.ws.send(Message::text(text)).await.unwrap();
    assert_eq!(ill.end().await, LegEnd::Crashed);
    well.hears_itself(0x12).await;
    assert_eq!(house.shards.legs(), 1);
    let mut next = house.echo_call().await;
    next.hears_itself(0x13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_get_their_close_code_and_a_parallel_call_goes_on() {
    let mut house = House::new().await;
    let mut well = house.echo_call().await;
    let cases = [
        (Message::binary(vec![1, 2, 3]), 1003),
        (Message::text("x".repeat(1 << 20)), 1009),
        (Message::text("x".repeat(65 * 1024)), 1009),
    ];
    for (message, code) in cases {
        let mut ill = house.echo_call().await;
        // The server may close before it has read all of it: the error on this side is expected.
        let _ = ill.ws.send(message).await;
        assert_eq!(ill.closed_with().await, code);
        assert_eq!(ill.end().await, LegEnd::Violation(code));
        well.hears_itself(0x21).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_closes_without_stop_ends_its_leg_so() {
    let mut house = House::new().await;
    let mut call = house.echo_call().await;
    call.hears_itself(0x31).await;
    let Caller { ws, mut events, .. } = call;
    drop(ws);
    loop {
        match timeout(PATIENCE, events.recv()).await.unwrap() {
            Some(LegEvent::Ended { end, accounting }) => {
                assert_eq!(end, LegEnd::ClosedWithoutStop);
                assert_eq!((accounting.in_samples, accounting.out_sent), (160, 160));
                break;
            }
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_is_not_one_that_hung_up() {
    let mut house = House::with(Config {
        write_stall: Duration::from_millis(200),
        ..Config::default()
    })
    .await;
    // Buffers as small as the system has them, so that they are soon full.
    let listening = TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(1).unwrap();
    listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
    house.listener = listening.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let client = socket.connect(house.listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = house.listener.accept().await.unwrap();
    house.place(Conn::plain(server), Bytes::new(), real_codec());
    let mut call = house.start(client).await;
    let mut frames = tokio::time::interval(Duration::from_millis(20));
    let end = timeout(PATIENCE, async {
        for n in 0.. {
            tokio::select! {
                event = call.events.recv() => match event {
                    Some(LegEvent::Ended { end, .. }) => return end,
                    Some(_) => {}
                    None => return LegEnd::Crashed,
                },
                _ = frames.tick() => {
                    let mut text = String::new();
                    call.peer.media(&[0x41; 160], n * 20, &mut text);
                    // The leg is over before its last word comes through.
                    let _ = call.ws.send(Message::text(text)).await;
                }
            }
        }
        LegEnd::Crashed
    })
    .await;
    assert_eq!(end.expect("in time"), LegEnd::Stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_gone_before_the_plan_came_is_accounted_for_all_the_same() {
    let mut house = House::new().await;
    let (client, server) = house.connect().await;
    house.place(Conn::plain(server), Bytes::new(), real_codec());
    let mut ws = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut peer = peer();
    let mut text = String::new();
    peer.media(&[0x11; 160], 0, &mut text);
    for message in peer.open().into_iter().chain([text]) {
        ws.send(Message::text(message)).await.unwrap();
    }
    let arrival = timeout(PATIENCE, house.arrivals.recv()).await.unwrap().unwrap();
    ws.close(None).await.unwrap();
    while timeout(PATIENCE, ws.next()).await.unwrap().is_some() {}
    let mut events = House::answer(&arrival);
    match timeout(PATIENCE, events.recv()).await.unwrap() {
        Some(LegEvent::Ended { end, accounting }) => {
            assert_eq!(end, LegEnd::ClosedWithoutStop);
            assert_eq!(accounting.in_frames, 1);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_behind_the_upgrade_and_a_tls_session_move_with_the_socket() {
    let mut house = House::new().await;
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let acceptor = sidetone::net::tls::acceptor(&cert, &key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));

    let (client, server) = house.connect().await;
    let (client, server) = tokio::join!(
        connector.connect("localhost".try_into().unwrap(), client),
        acceptor.accept(Slot::Live(server)),
    );
    house.place(Conn::Tls(Box::new(server.unwrap())), Bytes::new(), real_codec());
    let mut call = house.start(client.unwrap()).await;
    for code in 0..100 {
        call.hears_itself(code).await;
    }

    // The vendor's first messages arrive in one segment with its upgrade request.
    let (client, server) = house.connect().await;
    let mut early = BytesMut::new();
    for message in peer().open() {
        early.extend([0x81, 0x80 | 126]);
        early.extend((message.len() as u16).to_be_bytes());
        early.extend([0; 4]);
        early.extend(message.as_bytes());
    }
    house.place(Conn::plain(server), early.freeze(), real_codec());
    let events = house.plan().await;
    let ws = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut peer = peer();
    peer.open();
    let mut call = Caller { ws, peer, events };
    call.hears_itself(0x41).await;
}

#[test]
fn a_tls_setup_that_cannot_work_says_which_file_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.pem");
    let said = sidetone::net::tls::acceptor(&missing, &missing)
        .err()
        .unwrap()
        .to_string();
    assert!(said.contains("none.pem"), "{said}");
}
