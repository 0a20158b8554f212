//! The bus of a cluster: within this process as ever, and to the other nodes by a NATS server.
//!
//! Nothing waits for the server. While it is away this node serves its own calls; what it could not tell is dropped and counted,
//! and afterwards every node reads from the store what is durable of it. Speech leaves for nodes alone that have a frontend of
//! its tenant.
//!
//! Subjects, each behind the cluster's prefix: `event.TENANT`, `beat`, `node.NODE.SERVICE`.

use super::{
    Bus, Config, Event,
    envelope::{self, BadMessage},
    local::LocalBus,
    peers::{INBOX, Peers, State},
};
use crate::{
    base::{backoff::Backoff, ids::TenantId},
    metrics,
};
use async_nats::{ConnectOptions, ServerAddr};
use futures_util::StreamExt;
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::mpsc;

/// Messages that may wait inside the client, behind our own queue.
const CLIENT_QUEUE: usize = 128;
/// How long one try to connect may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How often an idle connection is looked at; two that are not answered end it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Waiting between tries: up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Why the bus could not be set up.
#[derive(Debug)]
pub struct NatsError(String);

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[nodes]: {}", self.0)
    }
}

impl std::error::Error for NatsError {}

/// The bus of one node of a cluster.
#[derive(Debug)]
pub struct NatsBus {
    local: Arc<LocalBus>,
    peers: Peers,
    state: Arc<State>,
}

impl NatsBus {
    /// Sets out to reach the server, which may come later. `me` is this node's name among those of the database.
    pub async fn connect(config: &Config, me: &str) -> Result<Self, NatsError> {
        let local = Arc::new(LocalBus::new());
        let state = Arc::new(State::default());
        let url = config.url.as_ref().map(|url| url.expose()).unwrap_or_default();
        let servers: Result<Vec<ServerAddr>, _> = url.split(',').map(|s| s.trim().parse()).collect();
        // What the parser says may quote the address, which may hold a password.
        let servers = servers.map_err(|_| NatsError("url is not the address of a NATS server".to_owned()))?;
        let options = options(config).await?.name(me).event_callback({
            let (local, state) = (local.clone(), state.clone());
            move |event| {
                turned(&event, &local, &state);
                std::future::ready(())
            }
        });
        let connected = options.connect(servers).await;
        let client = connected.map_err(|e| NatsError(e.to_string()))?;
        let (peers, leaving) = Peers::new(me, &config.prefix, client, state.clone());
        tokio::spawn(peers.clone().send(leaving));
        tokio::spawn(peers.clone().live());
        tokio::spawn(peers.clone().hear({
            let local = local.clone();
            move || local.interrupt()
        }));
        tokio::spawn(receive(peers.clone(), local.clone()));
        Ok(Self { local, peers, state })
    }
}

/// The connection turned up, or away.
fn turned(event: &async_nats::Event, local: &LocalBus, state: &State) {
    let connected = metrics::gauge(metrics::nodes_connected, &[]);
    match event {
        async_nats::Event::Connected => {
            if !state.connected.swap(true, Relaxed) {
                tracing::info!("the nodes' server is there");
            }
            connected.set(1.0);
            // What others told meanwhile is in the store, and so is what we could not tell.
            local.interrupt();
            state.missed.store(true, Relaxed);
            state.hurry.notify_one();
        }
        async_nats::Event::Disconnected | async_nats::Event::Closed => {
            if state.connected.swap(false, Relaxed) {
                tracing::warn!("the nodes' server is away: this node serves its own calls alone until it is back");
            }
            connected.set(0.0);
        }
        async_nats::Event::SlowConsumer(_) => {
            metrics::dropped("node_message", "inbox_full", 1);
            local.interrupt();
        }
        other => tracing::debug!(event = %other, "the nodes' server"),
    }
}

async fn options(config: &Config) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .no_echo()
        .retry_on_initial_connect()
        .connection_timeout(CONNECT)
        .ping_interval(PING_EVERY)
        .client_capacity(CLIENT_QUEUE)
        .subscription_capacity(INBOX)
        .reconnect_delay_callback(|tries| {
            let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_WAIT, Duration::MAX);
            let jitter = 0.5 + f64::from(uuid::Uuid::new_v4().as_u128() as u8) / 510.0;
            let waits = (0..tries.clamp(1, 16)).filter_map(|_| backoff.next(jitter));
            waits.last().unwrap_or(LONGEST_WAIT)
        });
    if let Some((user, password)) = config.user.as_ref().zip(config.password.as_ref()) {
        options = options.user_and_password(user.clone(), password.expose().to_owned());
    }
    if let Some(token) = &config.token {
        options = options.token(token.expose().to_owned());
    }
    if let Some(seed) = &config.nkey {
        options = options.nkey(seed.expose().to_owned());
    }
    if let Some(path) = &config.credentials {
        let read = options.credentials_file(path).await;
        options = read.map_err(|e| NatsError(format!("credentials {}: {e}", path.display())))?;
    }
    if let Some(path) = &config.ca {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((cert, key)) = config.tls_cert.as_ref().zip(config.tls_key.as_ref()) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options.require_tls(config.tls))
}

/// Publishes here what other nodes tell, for ever.
async fn receive(peers: Peers, local: Arc<LocalBus>) {
    let Ok(mut told) = peers.client().subscribe(peers.all_events()).await else {
        return;
    };
    while let Some(message) = told.next().await {
        let tenant = message.subject.rsplit('.').next().and_then(|t| t.parse().ok());
        let event = tenant
            .ok_or(BadMessage::Tenant)
            .and_then(|tenant| envelope::read_event(&message.payload, TenantId(tenant)));
        match event {
            Ok(event) => local.publish(Arc::new(event)),
            Err(bad) => metrics::dropped("node_message", bad.as_str(), 1),
        }
    }
}

impl Bus for NatsBus {
    fn publish(&self, event: Arc<Event>) {
        self.local.publish(event.clone());
        if event.news.is_live_audio() && !self.peers.is_watched(event.tenant) {
            return;
        }
        let sent = match envelope::write_event(&event) {
            Ok(body) => self.peers.leave("event", self.peers.events_of(event.tenant), body),
            Err(bad) => {
                metrics::dropped("node_message", bad.as_str(), 1);
                false
            }
        };
        if !sent && event.id.is_some() {
            self.state.missed.store(true, Relaxed);
        }
    }

    fn subscribe(&self) -> mpsc::Receiver<Arc<Event>> {
        self.local.subscribe()
    }

    fn watch(&self, tenant: TenantId, comes: bool) {
        self.peers.watch(tenant, comes);
    }

    fn peers(&self) -> Option<&Peers> {
        Some(&self.peers)
    }
}
