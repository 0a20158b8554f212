//! The frontends of a tenant: telephony WebSockets that see calls live, speak to callers and steer calls; and sockets that
//! only watch (`/call-events`) or listen (`/frontend-audio`).
//!
//! [`protocol`] reads and writes messages and [`session`] decides what one client may do, both pure; `conn` is the socket.
//! [`asyncapi`] describes all of it. [`fanout`] carries news to the [`outbox`] of each client, in the [`order`] in which it was stored. A slow client loses
//! live audio, then its socket; it never slows a call.

pub mod asyncapi;
pub mod audio_messages;
pub mod call_events;
mod config;
mod conn;
pub mod fanout;
mod fragments;
mod listening;
pub mod order;
pub mod outbox;
pub mod protocol;
mod pump;
pub mod session;
mod view;
pub mod viewer;
pub mod vitals;

pub use config::Config;

use crate::{
    access::{Access, Identity, limit::Buckets},
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
    },
    bus::Bus,
    control::Control,
    metrics,
    store::Store,
};
use audio_messages::AudioSettings;
use call_events::EventSettings;
use fanout::Fanout;
use listening::Audience;
use outbox::Close;
use protocol::Settings;
use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the hub stands on.
#[derive(Clone)]
pub struct Deps {
    /// Speaks to callers and moves calls.
    pub control: Control,
    /// Remembers what a client missed.
    pub store: Arc<dyn Store>,
    /// Brings the news.
    pub bus: Arc<dyn Bus>,
    /// Verifies refreshed tokens.
    pub access: Arc<Access>,
}

/// What a frontend's socket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To see calls, speak to callers and steer calls.
    Telephony(Settings),
    /// To see what happens to calls.
    CallEvents(EventSettings),
    /// To hear them.
    Audio(AudioSettings),
}

/// All frontends of the process. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    config: Config,
    deps: Deps,
    fanout: Fanout,
    audience: Arc<Audience>,
    seats: Mutex<Seats>,
    tenant_messages: Buckets<TenantId>,
    live: ::metrics::Gauge,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    by_address: HashMap<IpAddr, usize>,
    by_tenant: HashMap<TenantId, usize>,
    closed: bool,
}

/// The right to one socket, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Hub,
    address: IpAddr,
    tenant: TenantId,
}

impl Seat {
    /// The client's address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.hub.seats();
        seats.taken -= 1;
        give_back(&mut seats.by_address, &self.address);
        give_back(&mut seats.by_tenant, &self.tenant);
        self.hub.0.live.decrement(1.0);
    }
}

fn give_back<K: Eq + Hash>(taken: &mut HashMap<K, usize>, by: &K) {
    if let Some(n) = taken.get_mut(by) {
        *n -= 1;
        if *n == 0 {
            taken.remove(by);
        }
    }
}

impl Hub {
    /// A hub without clients.
    pub fn new(config: Config, deps: Deps) -> Self {
        Self(Arc::new(Inner {
            tenant_messages: Buckets::new(config.tenant_messages),
            fanout: Fanout::default(),
            audience: Arc::default(),
            seats: Mutex::default(),
            live: metrics::gauge(metrics::frontends_live, &[]),
            config,
            deps,
        }))
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries news from the bus to the clients. Runs for ever: spawn it once.
    pub async fn run(&self) {
        let deps = &self.0.deps;
        tokio::join!(self.0.fanout.run(&*deps.bus, &*deps.store), self.0.audience.run(deps));
    }

    /// Decides whether one more client of the tenant is taken, before its upgrade is answered.
    pub fn admit(&self, address: IpAddr, tenant: TenantId) -> Result<Seat, Fault> {
        let own = self.0.deps.access.members().limits(tenant).max_frontends;
        let of_tenant = own.unwrap_or(self.0.config.sockets_per_tenant);
        let mut seats = self.seats();
        let refuse = |reason, kind, text: &'static str| {
            metrics::refused("frontend", reason);
            Err(Fault::new(Origin::Us, kind, text))
        };
        if seats.closed {
            return refuse("draining", Kind::Unavailable, "shutting down");
        }
        if seats.taken >= self.0.config.sockets {
            return refuse("full", Kind::Unavailable, "too many frontends");
        }
        if seats.by_address.get(&address).copied().unwrap_or(0) >= self.0.config.sockets_per_address {
            return refuse("address", Kind::TooMany, "too many frontends from this address");
        }
        if seats.by_tenant.get(&tenant).copied().unwrap_or(0) >= of_tenant {
            return refuse("tenant", Kind::TooMany, "too many frontends of this tenant");
        }
        *seats.by_address.entry(address).or_default() += 1;
        *seats.by_tenant.entry(tenant).or_default() += 1;
        seats.taken += 1;
        self.0.live.increment(1.0);
        Ok(Seat {
            hub: self.clone(),
            address,
            tenant,
        })
    }

    /// Serves an upgraded connection to its end.
    pub async fn serve<S>(&self, io: S, seat: Seat, identity: Identity, wish: Wish)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let address = seat.address();
        match wish {
            Wish::Telephony(settings) => conn::serve(&self.0, io, address, identity, settings).await,
            Wish::CallEvents(settings) => {
                view::serve(&self.0, io, address, identity, view::Sight::Events(settings)).await;
            }
            Wish::Audio(settings) => view::serve(&self.0, io, address, identity, view::Sight::Audio(settings)).await,
        }
    }

    /// Takes no new clients and ends those there are.
    pub fn close(&self) {
        self.seats().closed = true;
        self.0.fanout.close_all(Close::new(1001, "shutting down"));
    }
}
