//! The control plane of a daemon in this process, on a loopback socket: store, control, hub and router as `app` joins them,
//! with a door to the media threads that only counts. And the clients that knock.

use crate::{asyncapi, openapi};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sidetone::{
    access::{Access, Role, jwt::Grant, registry::Registry},
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
        secret::Secret,
        time::Wall,
    },
    bus::{Bus, local::LocalBus},
    config::{Config, Env},
    control::{self, Control},
    http::{
        self, MediaDoor, Readiness,
        routes::{Gate, Route},
    },
    hub::{self, Hub},
    jobs::Eraser,
    llm::Llm,
    net::client::HttpClient,
    record::Recorder,
    speech::Speech,
    store::{self, Store, seal::Seal},
    vendor::{Descriptor, Upgrade},
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon without media threads.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) control: Control,
    pub(crate) hub: Hub,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) door: Arc<Door>,
    pub(crate) folder: tempfile::TempDir,
    /// What the daemon says of its REST interface: every answer is held to it.
    pub(crate) openapi: Value,
    /// Method, path and gate of every route.
    pub(crate) routes: Vec<(String, String, Gate)>,
}

/// What a house is made of.
pub(crate) struct Furniture {
    config: Config,
    folder: tempfile::TempDir,
    bus: Arc<dyn Bus>,
    door: Arc<Door>,
    pub(crate) deps: http::Deps,
}

/// Counts the media sockets it is handed, and is full when told so.
#[derive(Debug, Default)]
pub(crate) struct Door {
    pub(crate) full: AtomicBool,
    pub(crate) adopted: Mutex<Vec<Upgrade>>,
}

impl MediaDoor for Door {
    fn admit(&self) -> Result<(), Fault> {
        match self.full.load(Relaxed) {
            true => Err(Fault::new(Origin::Us, Kind::Unavailable, "full")),
            false => Ok(()),
        }
    }

    fn adopt(&self, _: &'static Descriptor, upgrade: Upgrade, _: SocketAddr, _: Upgraded) {
        self.adopted.lock().unwrap().push(upgrade);
    }
}

/// Seals secrets: 32 bytes in base64.
const SEAL_KEY: &str = "c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE=";

/// What every test's daemon is configured with: a key, and numbers of two tenants.
pub(crate) const BASICS: &str = r#"
[calls]
public_url = "http://relay.test"

[[numbers]]
number = "+15550100001"
vendor = "twilio"
tenant = 1

[[numbers]]
number = "+15550200001"
vendor = "twilio"
tenant = 2

[[access.jwt]]
secret = "a8c3f1e09b7d4c2286aa55f0e1d2c3b4"
"#;

impl House {
    /// A daemon that believes webhooks without a signature and wants credentials of everybody else.
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// The same with more configuration.
    pub(crate) async fn with(more: &str) -> Self {
        Self::build(&format!("{BASICS}\n{more}\n[twilio]\ninsecure = true\n"), false).await
    }

    /// A daemon with these accounts and no other.
    pub(crate) async fn bare(more: &str) -> Self {
        Self::build(&format!("{BASICS}\n{more}"), false).await
    }

    /// A daemon with this configuration and nothing beside it.
    pub(crate) async fn of(toml: &str) -> Self {
        Self::build(toml, false).await
    }

    /// A daemon on `--dev`.
    pub(crate) async fn dev() -> Self {
        Self::build(BASICS, true).await
    }

    /// A daemon whose webhooks must be signed.
    pub(crate) async fn strict() -> Self {
        let account = "[twilio]\naccount_sid = \"AC00000000000000000000000000000001\"\nauth_token = \"12345678901234567890123456789012\"\n";
        Self::build(&format!("{BASICS}\n{account}"), false).await
    }

    /// Everything that a router stands on.
    pub(crate) async fn furnish(toml: &str, dev: bool) -> Furniture {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sidetone.toml");
        std::fs::write(&file, toml).unwrap();
        let mut config = Config::load(Some(&file), &Env::new(), &[]).unwrap();
        config.state_dir = folder.path().to_owned();
        if dev {
            config.open_for_dev().unwrap();
        }
        let store = store::open(&config.store, &config.state_dir).unwrap();
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let registry = Arc::new(Registry::load(store.clone()).await.unwrap());
        let access = Arc::new(Access::new(&config.access, config.dev, registry.members().clone()));
        let control = Control::new(control::Deps {
            config: config.calls.clone(),
            agents: config.agents.clone(),
            store: store.clone(),
            bus: bus.clone(),
            speech: Speech::new(&config.speech, 1),
            llm: Llm::new(&config.llm, &HttpClient::new()),
            recorder: Recorder::start(&config.record).unwrap(),
            recordings: config.record.folder.clone(),
            data_root: config.state_dir.clone(),
            trunks: config.trunks(),
            simulated: Default::default(),
            http: HttpClient::new(),
            tenant_http: HttpClient::new(),
            seal: Seal::new(Some(&Secret::new(SEAL_KEY)), None),
            members: registry.members().clone(),
        })
        .await
        .unwrap();
        let hub = Hub::new(
            config.frontends.clone(),
            hub::Deps {
                control: control.clone(),
                store: store.clone(),
                bus: bus.clone(),
                access: access.clone(),
            },
        );
        let door = Arc::new(Door::default());
        let deps = http::Deps {
            config: config.http.clone(),
            debug: config.debug.clone(),
            dev,
            public_url: config.calls.public_url.clone(),
            data_root: config.state_dir.clone(),
            recordings: config.record.clone(),
            control: control.clone(),
            store: store.clone(),
            eraser: Eraser::new(store.clone(), config.jobs.clone(), config.state_dir.clone()),
            retention: config.jobs.retention,
            access,
            registry,
            llm: Llm::new(&config.llm, &HttpClient::new()),
            hub: hub.clone(),
            trunks: config.trunks(),
            media: door.clone(),
            simulate: None,
            readiness: Arc::default(),
        };
        Furniture {
            config,
            folder,
            bus,
            door,
            deps,
        }
    }

    async fn build(toml: &str, dev: bool) -> Self {
        let Furniture {
            config,
            folder,
            bus,
            door,
            deps,
        } = Self::furnish(toml, dev).await;
        let (store, control, hub) = (deps.store.clone(), deps.control.clone(), deps.hub.clone());
        let readiness = deps.readiness.clone();
        let named = |r: Route| (r.method.to_string(), r.path, r.gate);
        let routes = http::routes::table(&deps).into_iter().map(named).collect();
        let router = http::router(deps).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fanout = hub.clone();
        tokio::spawn(async move { fanout.run().await });
        let limits = config.http.clone();
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                let (router, limits) = (router.clone(), limits.clone());
                tokio::spawn(async move {
                    let peer = http::Peer { address, tls: false };
                    let _ = http::serve::connection(stream, router, &limits, peer, None, std::future::pending()).await;
                });
            }
        });
        readiness.start();
        let mut house = Self {
            openapi: Value::Null,
            address,
            config,
            store,
            bus,
            control,
            hub,
            readiness,
            door,
            folder,
            routes,
        };
        let (status, openapi) = house.get("/api/openapi.json", None).await;
        assert_eq!(status, 200);
        house.openapi = openapi;
        house
    }

    /// A token of this daemon.
    pub(crate) fn token(&self, tenant: i64, role: Role) -> String {
        self.short_token(tenant, role, Duration::from_secs(600))
    }

    /// A token that ends soon.
    pub(crate) fn short_token(&self, tenant: i64, role: Role, ttl: Duration) -> String {
        let grant = Grant {
            tenant: TenantId(tenant),
            role,
            scopes: Default::default(),
            subject: format!("{role}-{tenant}"),
            ttl,
        };
        let token = self.config.access.verifier().mint(&grant, Wall::now()).unwrap();
        token.expose().to_owned()
    }

    /// One request on a connection of its own.
    pub(crate) async fn request(&self, request: ::http::Request<String>) -> ::http::Response<String> {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = request.map(|body| Full::new(bytes::Bytes::from(body)));
        let host = ::http::HeaderValue::from_static("relay.test");
        request.headers_mut().entry(::http::header::HOST).or_insert(host);
        let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        ::http::Response::from_parts(parts, String::from_utf8_lossy(&body).into_owned())
    }

    fn builder(&self, method: &str, path: &str, token: Option<&str>) -> ::http::request::Builder {
        let builder = ::http::Request::builder().method(method).uri(path);
        match token {
            Some(token) => builder.header("authorization", format!("Bearer {token}")),
            None => builder,
        }
    }

    /// Status and JSON of a `GET`.
    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        self.rest("GET", path, token, None).await
    }

    /// Status and JSON of a `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        self.rest("POST", path, token, Some(body)).await
    }

    /// Status and JSON of a `PUT` of JSON.
    pub(crate) async fn put(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        self.rest("PUT", path, token, Some(body)).await
    }

    /// Status and JSON of a `DELETE`.
    pub(crate) async fn delete(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        self.rest("DELETE", path, token, None).await
    }

    /// One request of the REST interface, held to its description.
    pub(crate) async fn rest(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let mut builder = self.builder(method, path, token);
        if body.is_some() {
            builder = builder.header("content-type", "application/json");
        }
        let text = body.map_or_else(String::new, Value::to_string);
        let (status, answer) = json_of(self.request(builder.body(text).unwrap()).await);
        openapi::check(&self.openapi, method, path, body, status, &answer);
        (status, answer)
    }

    /// What came back for a form, as vendors post them.
    pub(crate) async fn hook(&self, path: &str, form: &str) -> ::http::Response<String> {
        let builder = self
            .builder("POST", path, None)
            .header("content-type", "application/x-www-form-urlencoded");
        self.request(builder.body(form.to_owned()).unwrap()).await
    }

    /// Announces an incoming call to a number of `tenant`.
    pub(crate) async fn ring(&self, sid: &str, tenant: i64) {
        let form = format!(
            "CallSid={sid}&AccountSid=AC1&From=%2B15559990000&To=%2B15550{tenant}00001&CallStatus=ringing&Direction=inbound&ApiVersion=2010-04-01"
        );
        let answer = self.hook("/api/calls/twilio/webhook", &form).await;
        assert_eq!(answer.status(), 200, "{}", answer.body());
        assert!(answer.body().contains("<Stream"), "{}", answer.body());
    }

    /// News of a call's status from its vendor.
    pub(crate) async fn vendor_says(&self, sid: &str, tenant: i64, status: &str, serial: u32) {
        let form = format!(
            "CallSid={sid}&AccountSid=AC1&From=%2B15559990000&To=%2B15550{tenant}00001&CallStatus={status}&Direction=inbound&SequenceNumber={serial}&CallbackSource=call-progress-events"
        );
        let answer = self.hook("/api/calls/twilio/status", &form).await;
        assert_eq!(answer.status(), 204, "{}", answer.body());
    }

    /// A frontend's socket.
    pub(crate) async fn frontend(&self, query: &str) -> Frontend {
        let path = format!("/api/ws/telephony/stream?{query}");
        self.upgrade(&path, &[]).await.unwrap()
    }

    /// A socket, or the status and body of the refusal.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Frontend, (u16, String)> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        Frontend::open(stream, request).await
    }

    /// What a connection answers to raw bytes until it closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn json_of(response: ::http::Response<String>) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_str(response.body()).unwrap_or_default())
}

/// A frontend's end of its socket.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) ws: WebSocketStream<TcpStream>,
    pub(crate) protocol: Option<String>,
    path: String,
    /// The messages that passed, as the description calls them.
    pub(crate) seen: BTreeSet<String>,
}

impl Frontend {
    async fn open(stream: TcpStream, request: ::http::Request<()>) -> Result<Self, (u16, String)> {
        let path = request.uri().path().to_owned();
        match timeout(PATIENCE, client_async(request, stream)).await.unwrap() {
            Ok((ws, response)) => Ok(Self {
                ws,
                protocol: response
                    .headers()
                    .get("sec-websocket-protocol")
                    .map(|v| v.to_str().unwrap().to_owned()),
                path,
                seen: BTreeSet::new(),
            }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// A socket on which the kernel keeps little: small segments make for small buffers on both sides.
    pub(crate) async fn narrow(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket2::SockRef::from(&socket).set_tcp_mss(536).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let request = format!("ws://{address}{path}").into_client_request().unwrap();
        Self::open(stream, request).await.unwrap()
    }

    /// Says a message that is described.
    pub(crate) async fn say(&mut self, message: &Value) {
        self.seen
            .insert(asyncapi::check(&self.path, asyncapi::BY_CLIENT, message));
        self.ws.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next JSON message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.event().await {
            Ok(message) => message,
            Err(close) => panic!("closed instead: {close:?}"),
        }
    }

    /// The next JSON message of this type; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind || message["event"] == kind {
                return message;
            }
        }
    }

    /// Reads to the close: its code, and the messages before it.
    pub(crate) async fn closed(&mut self) -> (u16, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            match self.event().await {
                Ok(message) => before.push(message),
                Err(close) => return (close.map_or(1006, |c| c.code.into()), before),
            }
        }
    }

    async fn event(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match timeout(PATIENCE, self.ws.next()).await.expect("nothing came") {
                Some(Ok(Message::Text(text))) => {
                    let message = serde_json::from_str(&text).unwrap();
                    self.seen
                        .insert(asyncapi::check(&self.path, asyncapi::BY_DAEMON, &message));
                    return Ok(message);
                }
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}
