//! A real daemon process for tests: started on free ports with a state folder of its own, spoken to as the world speaks to it.

use crate::asyncapi;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use sidetone::{
    base::time::Mono,
    hub::asyncapi::TELEPHONY,
    net::client::{ApiReply, ApiRequest, HttpClient},
    sim::{
        address::{Address, Trust},
        announce,
        caller::{self, CallError, Opening, Outcome, Plan, Webhook},
        script::Manner,
    },
    vendor::VENDORS,
};
use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// How long anything may take that should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test.
pub(crate) fn sidetone() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sidetone"))
}

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    pub(crate) address: SocketAddr,
    /// Scheme, host and port.
    base: String,
    pub(crate) metrics: SocketAddr,
    folder: TempDir,
    client: HttpClient,
}

impl Daemon {
    /// Starts `sidetone serve --dev` with more arguments and waits until it is ready.
    pub(crate) async fn dev(arguments: &[&str]) -> Self {
        Self::start(&[&["--dev"], arguments].concat(), "", &[]).await
    }

    /// Starts `sidetone serve` with a configuration, in which `{address}` is replaced, and waits until it is ready.
    pub(crate) async fn start(arguments: &[&str], config: &str, environment: &[(&str, &str)]) -> Self {
        Self::begin(arguments, config, environment, None).await
    }

    /// The same where the configuration gives the daemon a certificate for `localhost`.
    pub(crate) async fn with_tls(arguments: &[&str], config: &str, trust: &Trust) -> Self {
        Self::begin(arguments, config, &[], Some(trust)).await
    }

    async fn begin(arguments: &[&str], config: &str, environment: &[(&str, &str)], tls: Option<&Trust>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (address, metrics) = (free_address(), free_address());
        let mut line: Vec<String> = vec!["serve".into()];
        line.extend(arguments.iter().map(|a| (*a).to_owned()));
        if !config.is_empty() {
            let path = folder.path().join("sidetone.toml");
            std::fs::write(&path, config.replace("{address}", &address.to_string())).unwrap();
            line.extend(["--config".into(), path.display().to_string()]);
        }
        line.extend([
            "--listen".into(),
            address.to_string(),
            "--metrics-listen".into(),
            metrics.to_string(),
            "--state".into(),
            folder.path().join("state").display().to_string(),
        ]);
        let environment: Vec<_> = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut daemon = Self {
            child: spawn(&line, &environment, folder.path()),
            arguments: line,
            environment,
            base: match tls {
                Some(_) => format!("https://localhost:{}", address.port()),
                None => format!("http://{address}"),
            },
            client: Address {
                tls: tls.cloned(),
                ..Address::local(address)
            }
            .client(),
            address,
            metrics,
            folder,
        };
        daemon.until_ready().await;
        daemon
    }

    /// Starts again after [`Daemon::kill`], on the same state. Returns how long it took to be ready.
    pub(crate) async fn again(&mut self) -> Duration {
        let before = Mono::now();
        self.child = spawn(&self.arguments, &self.environment, self.folder.path());
        self.until_ready().await;
        Mono::now().since(before)
    }

    async fn until_ready(&mut self) {
        let deadline = Mono::now() + PATIENCE;
        while self.get("/ready").await.is_none_or(|r| r.status != 200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(Mono::now() < deadline, "the daemon did not get ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Lets it stand still for a while, as on a machine that is short of time.
    pub(crate) async fn freeze(&self, long: Duration) {
        self.signal(rustix::process::Signal::STOP);
        tokio::time::sleep(long).await;
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Mono::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Mono::now() < deadline, "the daemon did not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it printed and logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A read-only look into the database.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let path = std::fs::read_dir(self.state())
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| {
                p.extension()
                    .is_some_and(|e| e == "db" || e == "sqlite" || e == "sqlite3")
            })
            .expect("a database in the state folder");
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// A request without a body; `None` when nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Option<ApiReply> {
        self.request(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> ApiReply {
        self.request(Method::POST, path, &body.to_string())
            .await
            .expect("an answer")
    }

    /// A form, as vendors post their webhooks.
    pub(crate) async fn post_form(&self, path: &str, form: &str) -> ApiReply {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = ApiRequest {
            method: Method::POST,
            url: format!("{}{path}", self.base),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]),
            body: form.to_owned().into(),
            timeout: PATIENCE,
        };
        self.client.send(request).await.expect("an answer")
    }

    /// The same with a token.
    pub(crate) async fn post_as(&self, token: &str, path: &str, body: &Value) -> ApiReply {
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::AUTHORIZATION, bearer),
        ]);
        let request = ApiRequest {
            method: Method::POST,
            url: format!("{}{path}", self.base),
            headers,
            body: body.to_string().into(),
            timeout: PATIENCE,
        };
        self.client.send(request).await.expect("an answer")
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let reply = self.get(path).await.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
        serde_json::from_slice(&reply.body).unwrap()
    }

    async fn request(&self, method: Method, path: &str, body: &str) -> Option<ApiReply> {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = ApiRequest {
            method,
            url: format!("{}{path}", self.base),
            headers,
            body: body.to_owned().into(),
            timeout: PATIENCE,
        };
        self.client.send(request).await.ok()
    }

    pub(crate) async fn scrape(&self) -> String {
        let request = ApiRequest {
            method: Method::GET,
            url: format!("http://{}/metrics", self.metrics),
            headers: HeaderMap::new(),
            body: Default::default(),
            timeout: PATIENCE,
        };
        let reply = self.client.send(request).await.unwrap();
        assert_eq!(reply.status, 200);
        String::from_utf8(reply.body.to_vec()).unwrap()
    }

    pub(crate) fn url(&self) -> Address {
        format!("ws://{}", self.address).parse().unwrap()
    }

    /// A call of the first vendor with a voice webhook, that says `samples` and stays `linger` longer.
    pub(crate) fn plan(&self, from: &str, samples: Vec<i16>, linger: Duration) -> Plan {
        let hook = announce::hook_path(VENDORS[0]).unwrap();
        let address: Address = format!("http://{}{hook}", self.address).parse().unwrap();
        Plan {
            vendor: VENDORS[0],
            daemon: self.url(),
            opening: Opening::Webhook(Webhook {
                url_secret: None,
                rest: None,
                signed_as: address.at("http", hook),
                address,
                secret: None,
                account: None,
            }),
            from: from.to_owned(),
            to: "+15550000001".to_owned(),
            samples,
            manner: Manner::AsRecorded,
            format: None,
            faults: Vec::new(),
            linger,
            limit: Duration::from_secs(120),
        }
    }

    /// A token of an agent's, by the command that makes them.
    pub(crate) fn token(&self, tenant: &str) -> String {
        self.token_for(tenant, "agent")
    }

    /// The same for another role.
    pub(crate) fn token_for(&self, tenant: &str, role: &str) -> String {
        let config = self.folder.path().join("sidetone.toml");
        let output = sidetone()
            .args(["token", "--tenant", tenant, "--role", role, "--config"])
            .arg(config)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A frontend on the telephony socket, connected and ready.
    pub(crate) async fn frontend(&self) -> Frontend {
        let url = format!("ws://{}/api/ws/telephony/stream?client_type=telephony", self.address);
        let (socket, _) = connect_async(url).await.unwrap();
        let mut frontend = Frontend { socket };
        frontend.until("telephony_connected", |_| true).await;
        frontend
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

fn spawn(line: &[String], environment: &[(String, String)], folder: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    sidetone()
        .args(line)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// An address that nobody listens on now.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Places a call on a task of its own.
pub(crate) fn place(plan: Plan) -> tokio::task::JoinHandle<Result<Outcome, CallError>> {
    tokio::spawn(async move {
        let (progress, _unwatched) = mpsc::channel(1);
        caller::place(plan, &progress).await
    })
}

/// A client of the telephony socket.
pub(crate) struct Frontend {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Frontend {
    pub(crate) async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message; `None` when the socket is closed or broke.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).unwrap();
                    asyncapi::check(TELEPHONY, asyncapi::BY_DAEMON, &message);
                    return Some(message);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The first message of this type that `pick` takes; the others are read and only told when it does not come.
    pub(crate) async fn until(&mut self, kind: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let mut others: Vec<String> = Vec::new();
        let seen = async {
            while let Some(message) = self.next().await {
                if message["type"] == kind && pick(&message) {
                    return Some(message);
                }
                others.push(message.to_string().chars().take(300).collect());
            }
            None
        };
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the socket closed before {kind} came, after {others:#?}"),
            Err(_) => panic!("{kind} did not come, but {others:#?}"),
        }
    }

    /// Our id of the call from that number, once it is in this status.
    pub(crate) async fn call_from(&mut self, number: &str, status: &str) -> String {
        let update = self
            .until("call_status_update", |m| {
                m["customer_number"] == number && m["status"] == status
            })
            .await;
        update["call_id"].as_str().unwrap().to_owned()
    }
}

/// Speech by eSpeak NG at 8 kHz; `text` may hold SSML.
pub(crate) fn speech(folder: &Path, text: &str) -> Vec<i16> {
    let path = folder.join(format!("speech-{}.wav", Mono::now().as_nanos()));
    let status = Command::new("espeak-ng")
        .args(["-v", "en-us", "-s", "160", "-m", "-w"])
        .arg(&path)
        .arg(format!("<speak>{text}</speak>"))
        .status()
        .expect("espeak-ng is installed by scripts/setup");
    assert!(status.success());
    let wav = sidetone::audio::wav::Wav::parse(&std::fs::read(&path).unwrap()).unwrap();
    let rate = wav.rate;
    sidetone::audio::resample::any::AnyResampler::convert(rate, 8000, &wav.into_mono()).unwrap()
}
