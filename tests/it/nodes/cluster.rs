//! A real NATS server for tests, and daemons that share it and a PostgreSQL database.

use crate::{daemon::Daemon, server::Server};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the server until standard input ends, however the test's process ends.
const WATCH: &str = r#""$@" >/dev/null 2>&1 & server=$!; read -r _; kill -9 $server; wait"#;

/// A NATS server. Dropping it stops it.
pub(super) struct Nats {
    address: SocketAddr,
    arguments: Vec<String>,
    watch: Option<Child>,
}

impl Nats {
    /// Starts one on a free port.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Self {
            address,
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            watch: None,
        };
        server.restart();
        server
    }

    /// Starts it again, on the same port, and waits until it answers.
    pub(super) fn restart(&mut self) {
        // Debian keeps it where only root looks.
        let debian = Path::new("/usr/sbin/nats-server");
        let program = if debian.exists() {
            debian
        } else {
            Path::new("nats-server")
        };
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "sh"]).arg(program);
        command.args(["-a", "127.0.0.1", "-p", &self.address.port().to_string()]);
        let watch = command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        self.watch = Some(watch);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(
                Instant::now() < deadline,
                "nats-server did not start: scripts/setup --tests installs it"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it at once.
    pub(super) fn kill(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            drop(watch.stdin.take());
            let _ = watch.wait();
        }
    }

    pub(super) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What nodes share.
pub(super) struct Cluster {
    pub(super) nats: Nats,
    pub(super) server: Server,
    pub(super) database: String,
}

impl Cluster {
    pub(super) fn start() -> Self {
        let server = Server::start(&[]);
        Self {
            database: server.database(),
            nats: Nats::start(&[]),
            server,
        }
    }

    /// One more node, for developers, whose calls are served by this agent.
    pub(super) async fn node(&self, agent: &str) -> Daemon {
        let environment = [
            ("SIDETONE_STORE_URL", self.database.as_str()),
            ("SIDETONE_NODES_URL", &self.nats.url()),
        ];
        let daemon = Daemon::start(&["--dev", "--agent", agent], "", &environment).await;
        hears(&daemon, 0).await;
        daemon
    }

    /// Two nodes that hear each other.
    pub(super) async fn pair(&self, agent: &str) -> (Daemon, Daemon) {
        let (a, b) = tokio::join!(self.node(agent), self.node(agent));
        tokio::join!(hears(&a, 1), hears(&b, 1));
        (a, b)
    }
}

/// A gauge or counter, its labels summed up.
pub(super) async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let scraped = daemon.scrape().await;
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let values = scraped.lines().filter(of);
    values.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until a node is connected and hears so many others.
pub(super) async fn hears(daemon: &Daemon, others: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = metric(daemon, "sidetone_nodes_connected").await > 0.0;
        let heard = metric(daemon, "sidetone_nodes_heard").await;
        if connected && heard >= others as f64 {
            return;
        }
        assert!(Instant::now() < deadline, "{heard} nodes are heard:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
