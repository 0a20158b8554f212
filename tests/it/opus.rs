//! Opus through a whole daemon: to and from the caller.

use crate::daemon::{Daemon, PATIENCE};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone::audio::{g711, opus, tone::Sine};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const TONE: f64 = 600.0;

/// Samples of a tone at `rate`.
fn tone(rate: u32, ms: u32) -> Vec<i16> {
    let mut samples = vec![0; (rate * ms / 1000) as usize];
    Sine::new(rate, TONE, 9000.0).fill(&mut samples);
    samples
}

/// The power of the tone over that of all else in the second half, in dB.
fn clean(heard: &[i16], rate: u32) -> f64 {
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
struct Line {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    chunk: u64,
}

impl Line {
    async fn open(daemon: &Daemon, call: &str, encoding: &str, rate: u32) -> Self {
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

    async fn stop(mut self) {
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
