//! What every dialect must do, whatever it is: one body, run for each vendor of the registry and for one that exists here alone, against
//! a daemon in this process, over real sockets.

use crate::{daemon::Frontend, sixth::SIXTH};
use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use sidetone::{
    app,
    audio::{codec, tone::Noise},
    base::{format::Encoding, time::Mono},
    config::{Config, Env},
    net::client::{ApiReply, ApiRequest, HttpClient},
    vendor::{self, Answer, Descriptor, HookKind, Payload, Peer, PeerCall, PeerEvent},
    wire::{base64, numbers},
};
use std::{net::SocketAddr, sync::mpsc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A vendor's place in the registry.
fn place(vendor: &Descriptor) -> usize {
    vendor::all().iter().position(|v| v.name == vendor.name).unwrap()
}

/// A number of `vendor`'s that an agent answers.
fn number(vendor: &Descriptor, agent: &str) -> String {
    let of_agent = if agent == "echo" { "00" } else { "10" };
    format!("+1555030{of_agent}{:02}", place(vendor))
}

/// Starts a daemon in this process that serves every dialect, and returns where, with its metrics.
fn daemon() -> (SocketAddr, SocketAddr) {
    assert!(vendor::add(&[&SIXTH]), "the registry takes one more");
    let folder = tempfile::tempdir().unwrap();
    let metrics = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut toml = format!("[listen]\naddress = \"127.0.0.1:0\"\nmetrics = \"{metrics}\"\n");
    for vendor in vendor::all() {
        for agent in ["echo", "human"] {
            let (number, name) = (number(vendor, agent), vendor.name);
            toml += &format!("[[numbers]]\nnumber = \"{number}\"\nvendor = \"{name}\"\nagent = \"{agent}\"\n");
        }
    }
    let file = folder.path().join("sidetone.toml");
    std::fs::write(&file, toml).unwrap();
    let mut config = Config::load(Some(&file), &Env::new(), &[]).unwrap();
    config.state_dir = folder.path().join("state");
    config.open_for_dev().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _folder = folder;
        let served = app::run(config, move |address| tell.send(address).unwrap());
        panic!("the daemon ended: {served:?}");
    });
    (told.recv_timeout(PATIENCE).expect("the daemon starts"), metrics)
}

/// A vendor, and the daemon it talks to.
#[derive(Clone, Copy)]
struct World {
    vendor: &'static Descriptor,
    address: SocketAddr,
}

/// What a webhook was answered with.
enum Answered {
    /// Where the stream goes; the stream path itself for a vendor that is told by a command.
    Stream(String),
    Refused,
}

impl World {
    fn call(&self, sid: &str, agent: &str) -> PeerCall {
        // Frontends tell calls apart by the caller's number.
        let letters: u32 = sid.bytes().map(u32::from).sum();
        PeerCall {
            call_sid: format!("{sid}0{}", self.vendor.name),
            from: format!("+155520{letters:03}{:02}", place(self.vendor)),
            to: number(self.vendor, agent),
            ..PeerCall::default()
        }
    }

    fn hook(&self, kind: HookKind) -> String {
        format!("http://{}{}", self.address, self.vendor.hook(kind).unwrap().path)
    }

    async fn send(&self, request: ApiRequest) -> ApiReply {
        HttpClient::new().send(request).await.expect("an answer")
    }

    /// Announces a call as the vendor does.
    async fn announce(&self, call: &PeerCall) -> Answered {
        let peer = (self.vendor.peer)(call.clone());
        let Some(request) = peer.announce(&self.hook(HookKind::Call), None) else {
            return Answered::Stream(self.vendor.stream_path.to_owned());
        };
        let reply = self.send(request).await;
        if peer.by_command() {
            assert_eq!(reply.status, 200, "{}", self.vendor.name);
            return Answered::Stream(self.vendor.stream_path.to_owned());
        }
        match peer.answered(&reply.body) {
            Ok(Answer::Stream { url, .. }) if reply.status == 200 => Answered::Stream(url),
            _ => Answered::Refused,
        }
    }

    /// Tells the end of a call as the vendor does, where it does.
    async fn conclude(&self, call: &PeerCall) {
        let peer = (self.vendor.peer)(call.clone());
        if let Some(request) = peer.conclude(&self.hook(HookKind::Status), 1, None) {
            let status = self.send(request).await.status;
            assert!((200..300).contains(&status), "{}: {status}", self.vendor.name);
        }
    }

    /// A call that was announced, on its media socket.
    async fn stream(&self, sid: &str, agent: &str) -> Line {
        let mut call = self.call(sid, agent);
        let Answered::Stream(url) = self.announce(&call).await else {
            panic!("{}: the call was not taken", self.vendor.name)
        };
        let uri: http::Uri = url.parse().unwrap();
        let path = uri.path_and_query().unwrap().to_string();
        call.url = Some(url);
        let mut line = Line::dial(self, call, &path).await;
        for message in line.peer.open() {
            line.send(message).await;
        }
        line
    }

    async fn frontend(&self) -> Frontend {
        let url = format!("ws://{}/api/ws/telephony/stream?client_type=telephony", self.address);
        let (socket, _) = connect_async(url).await.unwrap();
        let mut frontend = Frontend { socket };
        frontend.until("telephony_connected", |_| true).await;
        frontend
    }

    async fn record(&self, sid: &str) -> Value {
        let reply = self
            .send(ApiRequest {
                method: http::Method::GET,
                url: format!("http://{}/api/calls/{sid}", self.address),
                headers: Default::default(),
                body: Default::default(),
                timeout: PATIENCE,
            })
            .await;
        assert_eq!(reply.status, 200, "{sid}");
        serde_json::from_slice::<Value>(&reply.body).unwrap()["data"].take()
    }

    /// The record of a call once it is over.
    async fn over(&self, sid: &str) -> Value {
        let deadline = Mono::now() + PATIENCE;
        loop {
            let record = self.record(sid).await;
            if record["status"] == "ended" && !record["metadata"]["accounting"].is_null() {
                return record;
            }
            assert!(Mono::now() < deadline, "{sid} does not end: {record}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A media socket, as its vendor has it.
struct Line {
    vendor: &'static Descriptor,
    call: PeerCall,
    peer: Box<dyn Peer>,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    path: String,
    sent_ms: u64,
    /// Samples to send.
    noise: Noise,
}

/// What the daemon did.
#[derive(Debug, PartialEq)]
enum Did {
    Audio(Vec<u8>),
    Mark(String),
    Clear,
    Closed(u16),
}

impl Line {
    async fn dial(world: &World, call: PeerCall, path: &str) -> Self {
        let (socket, _) = connect_async(format!("ws://{}{path}", world.address)).await.unwrap();
        Self {
            vendor: world.vendor,
            peer: (world.vendor.peer)(call.clone()),
            call,
            socket,
            path: path.to_owned(),
            sent_ms: 0,
            noise: Noise::new(7),
        }
    }

    fn sid(&self) -> &str {
        &self.call.call_sid
    }

    async fn send(&mut self, message: String) {
        if !message.is_empty() {
            self.socket.send(Message::text(message)).await.unwrap();
        }
    }

    /// Sends a frame, in time, and returns it encoded: noise, of which no part is like another, or a voice.
    async fn speak(&mut self, voice: bool) -> Vec<u8> {
        let (format, ms) = (self.peer.format(), self.peer.frame_ms());
        let mut samples = vec![0; format.samples_of_ms(ms)];
        self.noise.white(-15.0, &mut samples);
        if voice {
            // A saw-tooth of 140 Hz, with syllables.
            let rate = f64::from(format.rate);
            for (n, sample) in samples.iter_mut().enumerate() {
                let t = self.sent_ms as f64 / 1000.0 + n as f64 / rate;
                let syllable = 0.6 + 0.4 * (t * 4.0 * std::f64::consts::TAU).sin();
                *sample = (((t * 140.0).fract() - 0.5) * 20_000.0 * syllable) as i16;
            }
        }
        let mut audio = vec![0; format.bytes_of_ms(ms)];
        codec::encode(format.encoding, &samples, &mut audio);
        let mut message = String::new();
        self.peer.media(&audio, self.sent_ms, &mut message);
        self.sent_ms += u64::from(ms);
        self.send(message).await;
        tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
        audio
    }

    /// What the daemon does next, if it does something within a moment. What the vendor would refuse fails the test.
    async fn next(&mut self, patience: Duration) -> Option<Did> {
        let message = timeout(patience, self.socket.next()).await.ok()?;
        match message {
            Some(Ok(Message::Text(text))) => Some(match self.peer.read(text.as_bytes()) {
                Ok(PeerEvent::Media(payload)) => Did::Audio(bytes(payload)),
                Ok(PeerEvent::Mark(name)) => Did::Mark(name.to_owned()),
                Ok(PeerEvent::Clear) => Did::Clear,
                Ok(PeerEvent::Other) => return Box::pin(self.next(patience)).await,
                Err(e) => panic!("{} would refuse {text:.200}: {e}", self.vendor.name),
            }),
            Some(Ok(Message::Close(frame))) => Some(Did::Closed(frame.map_or(1005, |f| f.code.into()))),
            Some(Ok(_)) => Box::pin(self.next(patience)).await,
            Some(Err(_)) | None => Some(Did::Closed(1006)),
        }
    }

    /// Everything until `pick` takes something, which is the last.
    async fn until(&mut self, what: &str, pick: impl Fn(&Did) -> bool) -> Vec<Did> {
        let mut all = Vec::new();
        let deadline = Mono::now() + PATIENCE;
        while Mono::now() < deadline {
            if let Some(did) = self.next(Duration::from_millis(100)).await {
                let over = pick(&did);
                all.push(did);
                if over {
                    return all;
                }
            }
        }
        let all: Vec<_> = all.iter().map(|did| format!("{did:.60?}")).collect();
        panic!("{}: {what} did not come, but {all:?}", self.vendor.name);
    }

    async fn closed(&mut self) -> u16 {
        match self.until("the close", |d| matches!(d, Did::Closed(_))).await.pop() {
            Some(Did::Closed(code)) => code,
            other => panic!("{other:?}"),
        }
    }
}

fn samples(encoding: Encoding, audio: &[u8]) -> Vec<i16> {
    let mut samples = vec![0; audio.len()];
    let n = codec::decode(encoding, audio, &mut samples).unwrap();
    samples.truncate(n);
    samples
}

/// The audio of a payload, as bytes.
fn bytes(payload: Payload<'_>) -> Vec<u8> {
    match payload {
        Payload::Base64(text) => base64::decode_vec(text, text.len()).unwrap(),
        Payload::Numbers(text) => {
            let mut samples = vec![0; text.len()];
            let n = numbers::decode(text, &mut samples).unwrap();
            samples[..n].iter().flat_map(|s| s.to_le_bytes()).collect()
        }
    }
}

/// What is said comes back unchanged, keys are heard, another socket is not let in, and the stream's end is the call's.
async fn media_both_ways(world: World) {
    let name = world.vendor.name;
    let mut frontend = world.frontend().await;
    let mut line = world.stream("e1", "echo").await;
    frontend.call_from(&line.call.from.clone(), "in_progress").await;
    // Compared as samples: G.711 has two zeros.
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    let (from, to) = (line.peer.format().encoding, line.peer.plays().encoding);
    for _ in 0..2000_u32.div_ceil(line.peer.frame_ms()) {
        said.extend(samples(from, &line.speak(false).await));
        while let Some(did) = line.next(Duration::from_millis(1)).await {
            match did {
                Did::Audio(audio) => heard.extend(samples(to, &audio)),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    let least = line.peer.plays().samples_of_ms(400);
    assert!(
        heard.len() >= least,
        "{name}: {} of {} samples came back",
        heard.len(),
        said.len()
    );
    let begin = said.windows(least).position(|w| w == &heard[..least]);
    assert!(begin.is_some(), "{name}: the echo is not what was said");

    let key = line.peer.dtmf('5');
    if !key.is_empty() {
        line.send(key).await;
        frontend.until("dtmf", |m| m["digit"] == "5").await;
    }

    let path = line.path.clone();
    let mut second = Line::dial(&world, line.call.clone(), &path).await;
    for message in second.peer.open() {
        second.send(message).await;
    }
    assert_eq!(second.closed().await, 1008, "{name}: a second socket");

    let stop = line.peer.stop();
    match stop.is_empty() {
        true => line.socket.close(None).await.unwrap(),
        false => {
            line.send(stop).await;
            assert_eq!(line.closed().await, 1000, "{name}");
        }
    }
    let record = world.over(line.sid()).await;
    assert_eq!(record["end_reason"], "completed", "{name}");
    assert_eq!(record["provider"], name);
    assert_ne!(record["metadata"]["closed_without_stop"], true, "{name}");
    let count = |key: &str| record["metadata"]["accounting"][key].as_u64().unwrap_or(0);
    assert_eq!(
        count("in_samples"),
        count("in_relayed") + count("in_dropped_unheard") + count("in_dropped_full")
    );
    late_news_changes_nothing(world, &line.call, &record).await;
}

/// Webhooks that come again, late, or in the wrong order leave the record of a call as it is, and begin no other.
async fn late_news_changes_nothing(world: World, call: &PeerCall, record: &Value) {
    world.conclude(call).await;
    if !(world.vendor.peer)(call.clone()).by_command() {
        let late = world.announce(call).await;
        assert!(
            matches!(late, Answered::Refused),
            "{}: a call that is over was taken",
            world.vendor.name
        );
    }
    world.conclude(call).await;
    let after = world.record(&call.call_sid).await;
    for key in [
        "id",
        "status",
        "end_reason",
        "started_at",
        "answered_at",
        "ended_at",
        "duration",
    ] {
        assert_eq!(after[key], record[key], "{}: {key}", world.vendor.name);
    }
}

/// A webhook that comes twice is one call, and a socket that just closes is its end.
async fn close_without_stop(world: World) {
    let name = world.vendor.name;
    let mut frontend = world.frontend().await;
    let call = world.call("c1", "echo");
    let first = world.announce(&call).await;
    let mut line = world.stream("c1", "echo").await;
    if let Answered::Stream(first) = first {
        let url: http::Uri = first.parse().unwrap();
        assert_eq!(
            url.path_and_query().unwrap().as_str(),
            line.path,
            "{name}: the same answer again"
        );
    }
    frontend.call_from(&line.call.from.clone(), "in_progress").await;
    for _ in 0..100_u32.div_ceil(line.peer.frame_ms()) {
        line.speak(false).await;
    }
    line.socket.close(None).await.unwrap();
    let record = world.over(line.sid()).await;
    assert_eq!(record["end_reason"], "completed", "{name}");
    let flagged = record["metadata"]["closed_without_stop"].as_bool().unwrap_or(false);
    assert_eq!(flagged, world.vendor.caps.stop, "{name}: only where a stop was to come");
}

/// Words reach the caller and are reported as heard, by the vendor's mark or the clock; the caller's voice cuts them off; we hang up.
async fn spoken_cut_and_hung_up(world: World) {
    let (name, caps) = (world.vendor.name, world.vendor.caps);
    let mut frontend = world.frontend().await;
    let mut line = world.stream("s1", "human").await;
    let id = frontend.call_from(&line.call.from.clone(), "in_progress").await;
    let say = |text: &str, reference: &str| json!({ "type": "agent_message", "call_id": id, "message": text, "client_ref": reference });

    frontend.send(&say("Hello there.", "one")).await;
    let heard = line.until("audio", |d| matches!(d, Did::Audio(_))).await;
    assert!(matches!(heard[..], [Did::Audio(_)]), "{name}: {heard:?}");
    let quantum = caps.chunk_multiple;
    if caps.mark {
        let all = line.until("the mark", |d| matches!(d, Did::Mark(_))).await;
        for did in &all {
            assert!(
                !matches!(did, Did::Audio(a) if a.len() % quantum != 0),
                "{name}: a ragged message"
            );
        }
        let Some(Did::Mark(mark)) = all.last() else {
            panic!("no mark")
        };
        let echo = line.peer.mark(mark);
        line.send(echo).await;
    }
    let status = frontend
        .until("agent_message_status", |m| {
            m["client_ref"] == "one" && m["status"] == "heard"
        })
        .await;
    assert!(status["heard_ms"].as_u64().unwrap() > 200, "{name}: {status}");

    frontend
        .send(&say("This is a rather long sentence, which goes on and on, so that the caller has all the time there is to interrupt it.", "two"))
        .await;
    line.until("the sentence", |d| matches!(d, Did::Audio(_))).await;
    let mut cleared = false;
    for _ in 0..3000_u32.div_ceil(line.peer.frame_ms()) {
        line.speak(true).await;
        while let Some(did) = line.next(Duration::from_millis(1)).await {
            cleared |= did == Did::Clear;
        }
        if cleared {
            break;
        }
    }
    assert_eq!(
        cleared, caps.clear,
        "{name}: the vendor's queue is cleared where it can be"
    );
    let status = frontend
        .until("agent_message_status", |m| {
            m["client_ref"] == "two" && m["status"] == "cut"
        })
        .await;
    assert!(status["heard_ms"].as_u64().unwrap() < 5000, "{name}: {status}");

    if caps.close_ends_call {
        let over = json!({ "type": "update_call_status", "call_id": id, "status": "ended" });
        frontend.send(&over).await;
    } else {
        // Such a call is ended over REST, for which there are no credentials here.
        let stop = line.peer.stop();
        line.send(stop).await;
    }
    assert_eq!(line.closed().await, 1000, "{name}");
    assert_eq!(world.over(line.sid()).await["end_reason"], "completed", "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_carries_a_call_from_its_announcement_to_its_end() {
    let (address, metrics) = daemon();
    let worlds = || vendor::all().iter().map(|vendor| World { vendor, address });
    assert!(worlds().any(|w| w.vendor.name == "sixth"));
    join_all(worlds().map(media_both_ways)).await;
    join_all(worlds().map(close_without_stop)).await;
    join_all(worlds().map(spoken_cut_and_hung_up)).await;

    let scrape = ApiRequest {
        method: http::Method::GET,
        url: format!("http://{metrics}/metrics"),
        headers: Default::default(),
        body: Default::default(),
        timeout: PATIENCE,
    };
    let scraped = HttpClient::new().send(scrape).await.unwrap();
    let scraped = String::from_utf8(scraped.body.to_vec()).unwrap();
    for vendor in vendor::all() {
        let label = format!("vendor=\"{}\"", vendor.name);
        let counted = scraped
            .lines()
            .any(|l| l.contains("calls_ended_total") && l.contains(&label));
        assert!(counted, "{label} is not counted");
    }
}
