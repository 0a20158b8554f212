//! Opus through a whole daemon: to and from the caller, to listeners, and into recordings.

use crate::daemon::{Daemon, PATIENCE};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone::audio::{g711, ogg, opus, tone::Sine};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const TONE: f64 = 600.0;

/// Samples of a tone at `rate`.
fn tone(rate: u32, ms: u32) -> Vec<i16> {
    let mut samples = vec![0; (rate * ms / 1000) as usize];
    Sine::new(rate, TONE, 9000.0).fill(&mut samples);
    samples
}

/// The power of the tone over that of all else in the second half, in dB.
pub(crate) fn clean(heard: &[i16], rate: u32) -> f64 {
    let heard = &heard[heard.len() / 2..];
    let (mut s, mut c, mut all) = (0.0, 0.0, 0.0);
    for (n, x) in heard.iter().enumerate() {
        let (sin, cos) = (n as f64 * TONE * std::f64::consts::TAU / f64::from(rate)).sin_cos();
        (s, c) = (s + f64::from(*x) * sin, c + f64::from(*x) * cos);
        all += f64::from(*x).powi(2);
    }
    let power = (s * s + c * c) * 2.0 / heard.len() as f64;
    10.0 * (power / (all - power).max(1e-9)).log10()
}

/// The tone in packets of 20 ms at 16 kHz.
fn packets(ms: u32) -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(16_000, opus::LOSSY).unwrap();
    let samples = tone(16_000, ms);
    let encode = |frame: &[i16]| {
        let mut packet = vec![0; opus::MAX_PACKET];
        let n = encoder.encode(frame, &mut packet);
        packet.truncate(n);
        packet
    };
    samples.chunks_exact(320).map(encode).collect()
}

fn decoded(packets: &[Vec<u8>], rate: u32) -> Vec<i16> {
    let mut decoder = opus::Decoder::new(rate).unwrap();
    let mut heard = Vec::new();
    for packet in packets {
        let mut samples = vec![0; rate as usize * 120 / 1000];
        let n = decoder.decode(packet, &mut samples).unwrap();
        assert_eq!(n, rate as usize / 50, "20 ms a packet");
        heard.extend_from_slice(&samples[..n]);
    }
    heard
}

/// A stream as Telnyx opens it.
pub(crate) struct Line {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    chunk: u64,
}

impl Line {
    pub(crate) async fn open(daemon: &Daemon, call: &str, encoding: &str, rate: u32) -> Self {
        let url = format!("ws://{}/audio-stream", daemon.address);
        let mut line = Self {
            socket: connect_async(url).await.unwrap().0,
            chunk: 0,
        };
        line.say(json!({"event": "connected", "version": "1.0.0"})).await;
        let format = json!({"encoding": encoding, "sample_rate": rate, "channels": 1});
        let start =
            json!({"call_control_id": call, "from": "+15551230000", "to": "+15551230001", "media_format": format});
        line.say(json!({"event": "start", "sequence_number": "1", "stream_id": "s", "start": start}))
            .await;
        line
    }

    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Sends a frame of audio as the next one.
    async fn audio(&mut self, audio: &[u8]) {
        self.chunk += 1;
        let media = json!({"track": "inbound", "chunk": self.chunk.to_string(),
            "timestamp": (self.chunk * 20).to_string(), "payload": STANDARD.encode(audio)});
        self.say(json!({"event": "media", "stream_id": "s", "media": media}))
            .await;
    }

    /// The next audio that the caller is sent.
    async fn heard(&mut self) -> Vec<u8> {
        loop {
            let message = timeout(PATIENCE, self.socket.next())
                .await
                .expect("audio")
                .unwrap()
                .unwrap();
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["event"] == "media" {
                return STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap();
            }
        }
    }

    pub(crate) async fn stop(mut self) {
        self.say(json!({"event": "stop", "stream_id": "s", "stop": {}})).await;
        while let Some(Ok(_)) = timeout(PATIENCE, self.socket.next()).await.expect("an end") {}
    }
}

/// Where every frame of a call went, once it is on record.
async fn accounting(daemon: &Daemon, call: &str) -> Value {
    let on_record = async {
        loop {
            let call = daemon.json(&format!("/api/calls/{call}")).await;
            let accounting = &call["data"]["metadata"]["accounting"];
            if accounting.is_object() {
                return accounting.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, on_record).await.expect("the call's end on record")
}

const CONFIG: &str = "[telnyx]\nstream_bidirectional_codec = \"OPUS\"\n[agents.greeter]\nkind = \"human\"\ntts = \"fake\"\n\
                      greeting = \"f f f f f f f f\"\n";

async fn daemon(agent: &str) -> Daemon {
    Daemon::start(&["--dev", "--agent", agent], CONFIG, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_speaks_opus_hears_an_echo_of_the_same_bytes() {
    let daemon = daemon("echo").await;
    let mut line = Line::open(&daemon, "v3:same", "OPUS", 48_000).await;
    let packets = packets(600);
    let mut back = Vec::new();
    for packet in &packets {
        line.audio(packet).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while back.len() < packets.len() {
        back.push(line.heard().await);
    }
    assert_eq!(back, packets);
    line.stop().await;
    let accounting = accounting(&daemon, "v3:same").await;
    let counts = ["in_frames", "out_frames", "in_concealed"].map(|name| accounting[name].as_u64());
    assert_eq!(counts, [Some(30), Some(30), Some(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_speaks_another_codec_hears_an_echo_in_opus() {
    let daemon = daemon("echo").await;
    let mut line = Line::open(&daemon, "v3:mixed", "PCMU", 8000).await;
    let samples = tone(8000, 800);
    let mut codes = vec![0; samples.len()];
    g711::ulaw_encode(&samples, &mut codes);
    for frame in codes.chunks(160) {
        line.audio(frame).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut back = Vec::new();
    while back.len() < 30 {
        back.push(line.heard().await);
    }
    let db = clean(&decoded(&back, 16_000), 16_000);
    assert!(db > 15.0, "{db:.1} dB");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_is_encoded_for_the_caller() {
    let daemon = daemon("greeter").await;
    let mut line = Line::open(&daemon, "v3:said", "PCMU", 8000).await;
    let mut back = Vec::new();
    // Eight words of 150 ms.
    while back.len() < 60 {
        back.push(line.heard().await);
    }
    let heard = decoded(&back, 16_000);
    let mut loud = heard.chunks(320).filter(|f| f.iter().any(|s| s.unsigned_abs() > 3000));
    assert!(loud.clone().count() > 40, "{} of 60 packets", loud.clone().count());
    assert!(loud.all(|f| f.iter().all(|s| s.unsigned_abs() < 14_000)));
    line.stop().await;
}

/// Sends a tone of PCMU in real time.
pub(crate) async fn speak(line: &mut Line, ms: u32) {
    let samples = tone(8000, ms);
    let mut codes = vec![0; samples.len()];
    g711::ulaw_encode(&samples, &mut codes);
    for frame in codes.chunks(160) {
        line.audio(frame).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_the_caller_in_opus() {
    let daemon = Daemon::dev(&["--agent", "listen"]).await;
    let url = format!("ws://{}/frontend-audio?format=opus&sample_rate=16000", daemon.address);
    let (mut listener, _) = connect_async(url).await.unwrap();
    let mut next = async || loop {
        let message = timeout(PATIENCE, listener.next())
            .await
            .expect("a message")
            .unwrap()
            .unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str::<Value>(&text).unwrap();
        }
    };
    assert_eq!(
        next().await["config"],
        json!({"format": "OPUS", "sampleRate": 16_000, "channels": 1})
    );
    let mut line = Line::open(&daemon, "v3:heard", "PCMU", 8000).await;
    let speaking = async {
        speak(&mut line, 1000).await;
        line.stop().await;
    };
    let hearing = async {
        let (mut packets, mut last) = (Vec::new(), None);
        loop {
            let message = next().await;
            match message["event"].as_str() {
                Some("start") => assert_eq!(message["start"]["media_format"], "audio/OPUS"),
                Some("media") => {
                    let media = &message["media"];
                    let number = |name: &str| media[name].as_str().unwrap().parse::<u64>().unwrap();
                    assert_eq!(number("chunk"), packets.len() as u64 + 1);
                    assert!(
                        last.is_none_or(|at| number("timestamp") >= at + 19),
                        "{media} after {last:?}"
                    );
                    last = Some(number("timestamp"));
                    packets.push(STANDARD.decode(media["payload"].as_str().unwrap()).unwrap());
                }
                _ => return packets,
            }
        }
    };
    let ((), packets) = tokio::join!(speaking, hearing);
    assert!(packets.len() >= 40, "{} packets", packets.len());
    let db = clean(&decoded(&packets, 16_000), 16_000);
    assert!(db > 20.0, "{db:.1} dB");
}

const RECORDED: &str = "[record]\nformat = \"opus\"\n[agents.taped]\nkind = \"echo\"\nrecord = true\n";

/// The one recording there is.
fn recording(daemon: &Daemon) -> Vec<u8> {
    let folder = daemon.state().join("recordings");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].extension().is_some_and(|e| e == "opus"), "{files:?}");
    std::fs::read(&files[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_opus_is_paused_served_whole_and_in_part() {
    let daemon = Daemon::start(&["--dev", "--agent", "taped"], RECORDED, &[]).await;
    let mut line = Line::open(&daemon, "v3:taped", "PCMU", 8000).await;
    speak(&mut line, 1000).await;
    let steer = async |verb: &str| {
        daemon
            .post(&format!("/api/calls/v3:taped/recording/{verb}"), &json!({}))
            .await
    };
    let paused = steer("pause").await;
    assert_eq!(paused.status, 200, "{:?}", paused.body);
    speak(&mut line, 1000).await;
    assert_eq!(steer("resume").await.status, 200);
    speak(&mut line, 600).await;
    line.stop().await;
    accounting(&daemon, "v3:taped").await;
    let path = "/api/calls/v3:taped/recording";
    let whole = async {
        loop {
            let file = daemon.get(path).await.unwrap();
            if ogg::read(&file.body).is_ok_and(|sides| sides.complete) {
                return file;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let file = timeout(PATIENCE, whole).await.expect("the recording is completed");
    let sides = ogg::read(&file.body).unwrap();
    for side in [&sides.left, &sides.right] {
        let loud = |from: usize| side[from..from + 1600].iter().any(|s| s.unsigned_abs() > 3000);
        assert!(loud(4000) && loud(side.len() - 4000), "what was said before and after");
        assert!(!loud(11_000), "what was said meanwhile");
    }
    let size = file.body.len();
    let (status, headers, part) = part_of(&daemon, path, "bytes=0-3").await;
    assert_eq!((status, &part[..]), (206, &b"OggS"[..]));
    assert!(
        headers.contains(&format!("content-range: bytes 0-3/{size}")),
        "{headers}"
    );
    assert!(headers.contains("content-type: audio/ogg; codecs=opus"), "{headers}");
    let (status, headers, _) = part_of(&daemon, path, "bytes=99999999-").await;
    assert!(
        status == 416 && headers.contains(&format!("content-range: bytes */{size}")),
        "{headers}"
    );
    assert_eq!(steer("pause").await.status, 409, "the call is over");
}

/// What a request for a range is answered: status, headers in lower case, bytes.
pub(crate) async fn part_of(daemon: &Daemon, path: &str, range: &str) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(daemon.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nRange: {range}\r\nConnection: close\r\n\r\n",
        daemon.address
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut reply))
        .await
        .expect("an answer")
        .unwrap();
    let head = reply.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let headers = String::from_utf8(reply[..head].to_vec()).unwrap().to_lowercase();
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    (status, headers, reply[head + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_opus_survives_a_kill_up_to_the_last_second() {
    let mut daemon = Daemon::start(&["--dev", "--agent", "taped"], RECORDED, &[]).await;
    let mut line = Line::open(&daemon, "v3:killed", "PCMU", 8000).await;
    speak(&mut line, 3000).await;
    daemon.kill();
    let sides = ogg::read(&recording(&daemon)).unwrap();
    assert!(
        !sides.complete && sides.left.len() >= 16_000,
        "{} samples",
        sides.left.len()
    );
    let db = clean(&sides.left[1600..], 8000);
    assert!(db > 20.0, "{db:.1} dB");
}
