//! Requests: REST, webhooks, health, and the upgrades of frontends' and vendors' sockets, on one router.
//!
//! The listener and the media threads are others'; they are reached through [`serve::connection`] and [`MediaDoor`].
//! [`routes`] is the list of all routes with what each asks for; [`edge`] is what happens to every request.

mod agents;
mod ai;
mod analytics;
pub mod auth;
pub mod body;
mod called;
mod calls;
mod config;
mod echo;
pub mod edge;
mod export;
mod framing;
mod frontends;
pub mod guard;
pub mod health;
mod hooks;
mod jobs;
mod keeping;
mod keys;
mod numbers;
mod openapi;
mod place;
mod recording;
pub mod respond;
pub mod routes;
pub mod serve;
mod streams;
mod tenants;
mod upgrade;

pub use config::Config;
pub use echo::Config as DebugConfig;
pub use edge::Peer;
pub use guard::Guarded;
pub use health::{Readiness, metrics_router};
pub use routes::router;

use crate::{
    access::{Access, registry::Registry},
    base::{fault::Fault, ids::TenantId},
    control::Control,
    hub::Hub,
    jobs::Eraser,
    llm::Llm,
    record,
    store::{BoxFuture, CallRow, Retention, Store},
    vendor::{Descriptor, Trunk, Upgrade},
};
use hyper::upgrade::Upgraded;
use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc};

/// The way to the media threads.
pub trait MediaDoor: Send + Sync {
    /// Whether one more media socket is taken; asked before its upgrade is answered.
    fn admit(&self) -> Result<(), Fault>;

    /// Takes an upgraded connection, with what its request said.
    fn adopt(&self, vendor: &'static Descriptor, upgrade: Upgrade, peer: SocketAddr, upgraded: Upgraded);
}

/// A simulated call somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulateRequest {
    /// The vendor whose dialect is spoken; the first when `None`.
    pub vendor: Option<String>,
    /// The caller's number; one made up when `None`.
    pub from: Option<String>,
    /// The called number; the tenant's first when `None`.
    pub to: Option<String>,
    /// What the caller says; a ringing tone when `None`.
    pub text: Option<String>,
}

/// Places simulated calls to this very daemon.
pub trait Simulate: Send + Sync {
    /// Starts a simulated incoming call and returns its record.
    fn simulate(&self, tenant: TenantId, request: SimulateRequest) -> BoxFuture<'_, Result<CallRow, Fault>>;
}

/// What the routes stand on.
pub struct Deps {
    /// Times, sizes, origins.
    pub config: Config,
    /// What is served to those who look for faults.
    pub debug: DebugConfig,
    /// Needs no credentials, believes every webhook (`--dev`).
    pub dev: bool,
    /// Where vendors and browsers reach us: scheme and host without a trailing slash.
    pub public_url: String,
    /// What the names of files begin at.
    pub data_root: PathBuf,
    /// Where recordings lie, and what opens them.
    pub recordings: record::Config,
    /// Decides what happens to calls.
    pub control: Control,
    /// Remembers them.
    pub store: Arc<dyn Store>,
    /// Erases what is kept of calls.
    pub eraser: Eraser,
    /// How long the calls of a tenant without a rule of its own are kept.
    pub retention: Retention,
    /// Knows who may do what.
    pub access: Arc<Access>,
    /// Changes who may.
    pub registry: Arc<Registry>,
    /// Language models.
    pub llm: Llm,
    /// Serves frontends' sockets.
    pub hub: Hub,
    /// Vendor accounts by vendor's name. A vendor without one has no routes.
    pub trunks: HashMap<&'static str, Arc<dyn Trunk>>,
    /// Serves vendors' sockets.
    pub media: Arc<dyn MediaDoor>,
    /// Places simulated calls, where that is offered.
    pub simulate: Option<Arc<dyn Simulate>>,
    /// Whether the daemon is open for new calls.
    pub readiness: Arc<Readiness>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps")
            .field("config", &self.config)
            .field("dev", &self.dev)
            .finish_non_exhaustive()
    }
}

/// [`Deps`], as every handler holds them.
pub type Shared = Arc<Deps>;
