//! The whole loop over real sockets: the daemon's `echo` agent, beside the least that an echo over WebSocket can do and beside the way
//! everybody starts with (a JSON tree, base64 to vectors, a table, a channel, tungstenite with its defaults).
//!
//! Each server takes the same calls at their own pace for a few seconds; what it costs is its own CPU time per frame, so that a figure
//! is a ratio. Pinning and longer runs are `scripts/bench-echo`'s. `CALLS` and `SECONDS` can be set in the environment.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone::{
    audio::g711::scalar,
    sim::load::{self, Measure, Plan},
    vendor,
};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

const SIDETONE: &str = env!("CARGO_BIN_EXE_sidetone");

/// A server process that ends with its owner.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts it and reads its address from the first line that tells one.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(SIDETONE)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary of this package");
        let (tx, rx) = std::sync::mpsc::channel();
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let tell = move |line: String, tx: &std::sync::mpsc::Sender<SocketAddr>| {
            let told = ["yardstick on ", "sidetone --dev on http://"]
                .iter()
                .find_map(|p| line.strip_prefix(p));
            if let Some(address) = told.and_then(|t| t.split(": ").next()?.parse().ok()) {
                let _ = tx.send(address);
            }
        };
        let other = tx.clone();
        std::thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .for_each(|l| tell(l, &tx))
        });
        std::thread::spawn(move || {
            BufReader::new(err)
                .lines()
                .map_while(Result::ok)
                .for_each(|l| tell(l, &other))
        });
        let address = rx
            .recv_timeout(Duration::from_secs(20))
            .expect("a server that tells its address");
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The echo as everybody writes it first, for ever, on a thread of its own.
fn naive() -> SocketAddr {
    let (tx, rx) = std::sync::mpsc::channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let _ = tx.send(listener.local_addr().expect("bound"));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    };
    std::thread::Builder::new()
        .name("naive".into())
        .spawn(serve)
        .expect("a thread");
    rx.recv().expect("an address")
}

async fn answer(stream: TcpStream) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<Vec<i16>>();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        let Ok(message) = serde_json::from_str::<Value>(&text) else {
            return;
        };
        let Some(payload) = message["media"]["payload"].as_str() else {
            continue;
        };
        let Ok(bytes) = STANDARD.decode(payload) else { return };
        let _ = tx.send(bytes.iter().map(|b| scalar::ulaw_decode(*b)).collect());
        let Some(samples) = rx.recv().await else { return };
        let bytes: Vec<u8> = samples.iter().map(|s| scalar::ulaw_encode(*s)).collect();
        let sid = &message["streamSid"];
        let reply = json!({ "event": "media", "streamSid": sid, "media": { "payload": STANDARD.encode(bytes) } });
        if socket.send(Message::Text(reply.to_string().into())).await.is_err() {
            return;
        }
    }
}

fn measure(address: SocketAddr, floor: bool, pid: u32) -> Measure {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let path = if floor { "/any" } else { "" };
    load::run(&Plan {
        vendor: vendor::VENDORS[0],
        daemon: format!("ws://{address}{path}").parse().expect("an address"),
        floor,
        relay: false,
        calls: number("CALLS", 100) as usize,
        viewers: 0,
        duration: Duration::from_secs(number("SECONDS", 4)),
        pid: Some(pid),
        hooks_per_s: 0,
    })
    .expect("a measure")
}

fn main() {
    // `cargo test --benches` runs benches without this argument, to see that they start.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let state = std::env::temp_dir().join(format!("sidetone-e2e-{}", std::process::id()));
    let state_text = state.display().to_string();
    let any = "127.0.0.1:0";
    let floor = {
        let server = Server::start(&["bench", "--floor", "--listen", any]);
        measure(server.address, true, server.child.id())
    };
    let daemon = {
        let server = Server::start(&[
            "serve",
            "--dev",
            "--agent",
            "echo",
            "--state",
            &state_text,
            "--listen",
            any,
            "--metrics-listen",
            "127.0.0.2:0",
        ]);
        measure(server.address, false, server.child.id())
    };
    let naive = measure(naive(), false, std::process::id());
    let _ = std::fs::remove_dir_all(state);
    let cpu = |m: &Measure, thread: &str| -> f64 {
        let threads = m.threads.iter().filter(|t| t.name.starts_with(thread));
        threads.map(|t| t.us_per_frame).sum()
    };
    let least = cpu(&floor, "");
    println!(
        "{:<10}{:>16}{:>10}{:>10}{:>10}{:>8}",
        "", "CPU/frame, µs", "ratio", "p50, µs", "p99, µs", "faults"
    );
    for (name, m, thread) in [
        ("floor", &floor, ""),
        ("daemon", &daemon, ""),
        ("naive", &naive, "naive"),
    ] {
        let us = cpu(m, thread);
        let (ratio, faults) = (us / least, m.faults());
        println!(
            "{name:<10}{us:>16.2}{ratio:>10.2}{:>10}{:>10}{faults:>8}",
            m.echo_us.p50, m.echo_us.p99
        );
    }
}
