//! The composition root: builds the daemon from its configuration, binds, runs, drains.
//!
//! Order of building is order of need; order of stopping is its reverse, with the store last, so that nothing acknowledged is lost.

mod after;
mod door;
pub mod log;
mod shed;
mod watch;

use door::Door;

use crate::{
    access::{Access, jwt::keyset::Place, registry::Registry},
    base::time::Mono,
    bus::{Bus, local::LocalBus, nats::NatsBus},
    config::Config,
    control::{self, Control},
    http::{self, Readiness},
    hub::{self, Hub},
    jobs,
    llm::Llm,
    metrics::{self, Renderer},
    net::{
        client::HttpClient,
        conn::Conn,
        listen::{self, Census, Permit},
        tls::{self, TlsError},
    },
    record::Recorder,
    shard::Shards,
    sim::{Exchange, Simulator, address::Address},
    speech::Speech,
    store::{
        self, OpenError, Store,
        seal::{self, Seal},
    },
};
use axum::Router;
use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch as channel,
};
use tokio_rustls::TlsAcceptor;

/// Why the daemon did not start, with what to do about it.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound.
    Bind(SocketAddr, io::Error),
    /// A folder could not be made.
    Folder(PathBuf, io::Error),
    /// The store could not be opened.
    Store(OpenError),
    /// TLS could not be set up.
    Tls(TlsError),
    /// A thread or runtime could not be started.
    Thread(io::Error),
    /// Parts do not go together, or the store could not be read.
    Config(String),
}

impl StartError {
    /// `sysexits.h`: 78 where the configuration or the data must be mended first, 71 where the system refused.
    pub const fn exit_code(&self) -> u8 {
        match self {
            // These may pass by themselves: systemd tries again.
            Self::Store(OpenError::InUse { .. } | OpenError::Unavailable { .. }) => 71,
            Self::Store(_) | Self::Tls(_) | Self::Config(_) => 78,
            Self::Bind(..) | Self::Folder(..) | Self::Thread(_) => 71,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, e) => write!(f, "{address} could not be bound: {e}; is another daemon running there?"),
            Self::Folder(path, e) => write!(f, "{} could not be made: {e}", path.display()),
            Self::Store(e) => e.fmt(f),
            Self::Tls(e) => e.fmt(f),
            Self::Thread(e) => write!(f, "a thread could not be started: {e}"),
            Self::Config(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the daemon until it is told to stop. `announce` is called once it serves, with the address it listens on.
pub fn run(config: Config, announce: impl FnOnce(SocketAddr)) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .build()
        .map_err(StartError::Thread)?;
    let served = runtime.block_on(serve(config, announce));
    runtime.shutdown_timeout(Duration::from_secs(2));
    served
}

async fn serve(mut config: Config, announce: impl FnOnce(SocketAddr)) -> Result<(), StartError> {
    let renderer = metrics::install().map_err(|e| StartError::Config(e.to_owned()))?;
    let mut signals = Signals::new().map_err(StartError::Thread)?;
    let listener = bind(config.listen.address).await?;
    let more = bind_more(&config).await?;
    let scraped = match config.listen.metrics {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let address = listener.local_addr().map_err(StartError::Thread)?;
    config.settle(address);
    let tls = acceptor(&config)?;
    std::fs::create_dir_all(&config.state_dir).map_err(|e| StartError::Folder(config.state_dir.clone(), e))?;
    let store = store::open(&config.store, &config.state_dir).map_err(StartError::Store)?;
    let open = store
        .close_open_calls()
        .await
        .map_err(|e| StartError::Config(e.to_string()))?;
    if open > 0 {
        tracing::warn!(
            calls = open,
            "calls that a dead process left open were closed as interrupted"
        );
    }

    let parts = Parts::build(&config, address, store.clone()).await?;
    let router = http::router(parts.http(&config)).map_err(|e| StartError::Config(e.to_string()))?;
    let (closing, closed) = channel::channel(false);
    let census = Census::new(config.listen.limits);
    let hub = parts.hub.clone();
    let shared = matches!(config.store.engine, store::Engine::Postgres(_));
    let mut tasks = vec![
        tokio::spawn(watch::feed(parts.shards.clone())),
        tokio::spawn(shed::watch(parts.control.clone(), store.clone(), config.calls.strain)),
        tokio::spawn(async move { hub.run().await }),
        tokio::spawn(members(parts.access.clone(), parts.registry.clone(), shared)),
        tokio::spawn(jobs::run(parts.jobs(&config))),
        tokio::spawn(upkeep(renderer.clone())),
        tokio::spawn(listen::accept(
            listener,
            tls.clone(),
            census.clone(),
            serving(router.clone(), &config, &closed),
        )),
    ];
    for listener in more {
        let serve = serving(router.clone(), &config, &closed);
        tasks.push(tokio::spawn(listen::accept(
            listener,
            tls.clone(),
            census.clone(),
            serve,
        )));
    }
    if let Some(listener) = scraped {
        let router = http::metrics_router(renderer);
        tasks.push(tokio::spawn(listen::accept(
            listener,
            None,
            census,
            serving(router, &config, &closed),
        )));
    }
    parts.readiness.start();
    watch::ready(format!("listening on {address}"));
    tracing::info!(%address, tls = config.listen.tls.is_some(), media_threads = Shards::count(&config.media), "ready");
    announce(address);

    let signal = signals.next().await;
    let limit = config.calls.drain_timeout;
    tracing::info!(
        signal,
        live = parts.control.live(),
        ?limit,
        "draining: no new calls, live ones go on"
    );
    watch::stopping();
    parts.readiness.drain();
    tokio::select! {
        () = parts.control.drain(limit) => {}
        again = signals.next() => {
            tracing::warn!(signal = again, live = parts.control.live(), "stopping now");
            parts.control.drain(Duration::ZERO).await;
        }
    }
    parts.hub.close();
    let _ = closing.send(true);
    // The last answers and close frames get a moment to leave.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for task in tasks {
        task.abort();
    }
    if let Some(peers) = parts.bus.peers() {
        peers.leave_cluster().await;
    }
    drop(parts);
    if let Err(e) = store.close().await {
        tracing::error!(error = %e, "the store was not closed cleanly");
    }
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| StartError::Bind(address, e))
}

/// The other addresses, each once.
async fn bind_more(config: &Config) -> Result<Vec<TcpListener>, StartError> {
    let mut bound = vec![config.listen.address];
    let mut listeners = Vec::new();
    for (_, address) in &config.listen.more {
        if !bound.contains(address) {
            listeners.push(bind(*address).await?);
            bound.push(*address);
        }
    }
    Ok(listeners)
}

fn acceptor(config: &Config) -> Result<Option<TlsAcceptor>, StartError> {
    let Some((cert, key)) = &config.listen.tls else {
        return Ok(None);
    };
    tls::acceptor(cert, key).map(Some).map_err(StartError::Tls)
}

/// Serves one connection with a router until it is done or the daemon closes.
fn serving(
    router: Router,
    config: &Config,
    closed: &channel::Receiver<bool>,
) -> impl Fn(Conn, SocketAddr, Permit) -> Serving + Clone + Send + 'static {
    let (config, closed, tls) = (
        Arc::new(config.http.clone()),
        closed.clone(),
        config.listen.tls.is_some(),
    );
    move |conn, address, permit| {
        let (router, config, mut closed) = (router.clone(), config.clone(), closed.clone());
        Box::pin(async move {
            let closing = async move {
                let _ = closed.wait_for(|closed| *closed).await;
            };
            let peer = http::Peer { address, tls };
            if let Err(e) = http::serve::connection(conn, router, &config, peer, Some(permit), closing).await {
                tracing::debug!(%address, error = %e, "a connection ended");
            }
        })
    }
}

type Serving = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The keys of tenants' secrets. A developer's own machine makes one where none is configured.
fn seal(config: &Config) -> Result<Seal, StartError> {
    let (key, former) = (&config.store.seal_key, &config.store.seal_key_former);
    if !config.dev || key.is_some() {
        return Ok(Seal::new(key.as_ref(), former.as_ref()));
    }
    let path = config.state_dir.join("seal.key");
    let made = seal::key_in(&path).map_err(|e| StartError::Config(format!("{}: {e}", path.display())))?;
    Ok(Seal::new(Some(&made), former.as_ref()))
}

/// The way to what tenants name. A developer's own machine may be named too.
fn tenant_http(config: &Config) -> HttpClient {
    match config.dev {
        true => HttpClient::new(),
        false => HttpClient::to_public_addresses(),
    }
}

/// The bus of this process, or of the cluster where one is configured.
async fn bus(config: &Config, store: &dyn Store) -> Result<Arc<dyn Bus>, StartError> {
    let Some(me) = store.node().filter(|_| config.nodes.is_cluster()) else {
        return Ok(Arc::new(LocalBus::new()));
    };
    let bus = NatsBus::connect(&config.nodes, me).await;
    bus.map(|bus| Arc::new(bus) as Arc<dyn Bus>)
        .map_err(|e| StartError::Config(e.to_string()))
}

/// Keeps up with what others change: the keys of tokens, and with a database that many daemons share, tenants and API keys.
async fn members(access: Arc<Access>, registry: Arc<Registry>, shared: bool) {
    let keys = async {
        if let Some(set) = access.key_set() {
            set.keep_fresh().await;
        }
    };
    let members = async {
        if shared {
            registry.keep_fresh().await;
        }
    };
    tokio::join!(keys, members);
}

/// Reads the keys of tokens that somebody else keeps. A file must be there; a server may come later.
async fn read_keys(access: &Access) -> Result<(), StartError> {
    let Some(set) = access.key_set() else {
        return Ok(());
    };
    match (set.read(Mono::now()).await, set.place()) {
        (Ok(()), _) => Ok(()),
        (Err(why), Place::File(path)) => Err(StartError::Config(format!("access.jwks: {}: {why}", path.display()))),
        (Err(why), place) => {
            tracing::warn!(%place, why, "the keys of tokens could not be read yet");
            Ok(())
        }
    }
}

async fn upkeep(renderer: Renderer) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        renderer.upkeep();
    }
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.0.recv() => "SIGTERM",
            _ = self.1.recv() => "SIGINT",
        }
    }
}

/// What runs, besides the store.
struct Parts {
    access: Arc<Access>,
    bus: Arc<dyn Bus>,
    registry: Arc<Registry>,
    control: Control,
    hub: Hub,
    llm: Llm,
    readiness: Arc<Readiness>,
    shards: Arc<Shards>,
    simulator: Option<Arc<Simulator>>,
    store: Arc<dyn Store>,
}

impl Parts {
    async fn build(config: &Config, address: SocketAddr, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let bus = bus(config, &*store).await?;
        let registry = Registry::load(store.clone()).await;
        let registry = Arc::new(registry.map_err(|e| StartError::Config(e.to_string()))?);
        let access = Arc::new(Access::new(&config.access, config.dev, registry.members().clone()));
        read_keys(&access).await?;
        let speech = Speech::new(&config.speech, Shards::count(&config.media));
        // Simulated phones speak plain WebSocket; behind our own TLS there is none.
        let plain = config.listen.tls.is_none();
        let exchange = match config.dev && plain {
            true => Some(Exchange::open().await.map_err(StartError::Thread)?),
            false => None,
        };
        let llm = Llm::new(&config.llm, &HttpClient::new());
        let control = Control::new(control::Deps {
            config: config.calls.clone(),
            agents: config.agents.clone(),
            store: store.clone(),
            bus: bus.clone(),
            speech: speech.clone(),
            llm: llm.clone(),
            recorder: Recorder::start(&config.record).map_err(StartError::Thread)?,
            data_root: config.state_dir.clone(),
            recordings: config.record.folder.clone(),
            trunks: config.trunks(),
            simulated: exchange.as_ref().map(Exchange::accounts).unwrap_or_default(),
            http: HttpClient::new(),
            tenant_http: tenant_http(config),
            seal: seal(config)?,
            members: registry.members().clone(),
        })
        .await
        .map_err(|e| StartError::Config(e.to_string()))?;
        let shards = Shards::start(&config.media, &control.arrivals()).map_err(StartError::Thread)?;
        let deps = hub::Deps {
            control: control.clone(),
            store: store.clone(),
            bus: bus.clone(),
            access: access.clone(),
        };
        let hub = Hub::new(config.frontends.clone(), deps);
        if let Some(exchange) = exchange {
            tokio::spawn(exchange.run(speech.clone(), Address::local(address)));
        }
        let simulator = plain.then(|| Simulator::new(control.clone(), speech, address));
        Ok(Self {
            access,
            bus,
            registry,
            control,
            hub,
            llm,
            readiness: Arc::default(),
            shards: Arc::new(shards),
            simulator: simulator.map(Arc::new),
            store,
        })
    }

    fn jobs(&self, config: &Config) -> Arc<jobs::Deps> {
        let roster = after::Roster {
            control: self.control.clone(),
            llm: self.llm.clone(),
        };
        Arc::new(jobs::Deps {
            config: config.jobs.clone(),
            store: self.store.clone(),
            agents: Arc::new(roster),
            http: HttpClient::new(),
            tenant_http: tenant_http(config),
            data_root: config.state_dir.clone(),
        })
    }

    fn http(&self, config: &Config) -> http::Deps {
        http::Deps {
            config: config.http.clone(),
            debug: config.debug.clone(),
            dev: config.dev,
            public_url: config.calls.public_url.clone(),
            data_root: config.state_dir.clone(),
            recordings: config.record.clone(),
            control: self.control.clone(),
            store: self.store.clone(),
            eraser: jobs::Eraser::new(self.store.clone(), config.jobs.clone(), config.state_dir.clone()),
            retention: config.jobs.retention,
            access: self.access.clone(),
            registry: self.registry.clone(),
            llm: self.llm.clone(),
            hub: self.hub.clone(),
            trunks: config.trunks(),
            media: Arc::new(Door(self.shards.clone())),
            simulate: self.simulator.clone().map(|s| s as Arc<dyn http::Simulate>),
            readiness: self.readiness.clone(),
        }
    }
}
