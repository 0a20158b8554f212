//! News from the bus to the clients that watch: one subscription for the process, one queue for each client.
//!
//! Nothing here waits for a client. Stored events leave in the order of their ids; when one is missing, because two commits
//! crossed or the bus cut us off, it is read from the store.

use super::{
    call_events::{self, Face, Faces},
    order::{Order, PATIENCE},
    outbox::{Close, Item, Outbox},
    protocol::{self, Class, ServerMessage},
};
use crate::{
    base::{
        format::Encoding,
        ids::{CallId, TenantId},
        time::Mono,
    },
    bus::{Bus, Event, News},
    metrics,
    store::{CallStatus, EventRow, Store},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Stored events read at once.
pub const PAGE: usize = 256;

/// Which calls a client watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// None yet.
    Nothing,
    /// All of its tenant.
    Tenant,
    /// One.
    Call(CallId),
}

/// How a client's news is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dress {
    /// As of the telephony socket, with speech in this encoding.
    Telephony(Encoding),
    /// As of `/call-events`.
    CallEvents,
}

/// One client, as the fan-out sees it.
#[derive(Debug)]
pub struct Client {
    /// What waits for it.
    pub outbox: Outbox,
    view: Mutex<(Watch, Dress)>,
}

impl Client {
    /// A client that watches nothing.
    pub const fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            view: Mutex::new((Watch::Nothing, Dress::CallEvents)),
        }
    }

    /// Watches these calls from now on, with the news written so.
    pub fn watch(&self, watch: Watch, dress: Dress) {
        *lock(&self.view) = (watch, dress);
    }

    fn dress_for(&self, call: CallId) -> Option<Dress> {
        let (watch, dress) = *lock(&self.view);
        let sees = match watch {
            Watch::Nothing => false,
            Watch::Tenant => true,
            Watch::Call(one) => one == call,
        };
        sees.then_some(dress)
    }
}

/// All clients, by tenant.
#[derive(Debug, Default)]
pub struct Fanout {
    clients: Mutex<HashMap<TenantId, Vec<Arc<Client>>>>,
    faces: Mutex<Faces>,
}

impl Fanout {
    /// A client comes.
    pub fn join(&self, tenant: TenantId, client: Arc<Client>) {
        lock(&self.clients).entry(tenant).or_default().push(client);
    }

    /// A client goes.
    pub fn leave(&self, tenant: TenantId, client: &Arc<Client>) {
        let mut clients = lock(&self.clients);
        if let Some(of_tenant) = clients.get_mut(&tenant) {
            of_tenant.retain(|c| !Arc::ptr_eq(c, client));
            if of_tenant.is_empty() {
                clients.remove(&tenant);
            }
        }
    }

    /// Ends every socket.
    pub fn close_all(&self, close: Close) {
        for client in lock(&self.clients).values().flatten() {
            client.outbox.close(close);
        }
    }

    /// Queues news for whoever watches its call. Each text is made once for each way in which it is wanted.
    pub fn deliver(&self, event: &Event) {
        let status = match &event.news {
            News::Status { status, .. } => CallStatus::parse(status),
            _ => None,
        };
        let class = match event.news {
            News::Transcript { is_final: false, .. } => Class::Interim,
            _ => Class::Event,
        };
        let item = |text: String, class| Item {
            text: text.into(),
            class,
            call: Some(event.call),
            id: event.id,
            status,
        };
        // Calls are learned from their news, whether or not anybody watches yet.
        let told = lock(&self.faces).tell(event);
        let told: Vec<Item> = told.into_iter().map(|text| item(text, class)).collect();
        let mut texts: Vec<(Encoding, Item)> = Vec::new();
        self.each(event.tenant, event.call, |client, dress| match dress {
            Dress::CallEvents => told.iter().cloned().for_each(|item| client.outbox.news(item)),
            Dress::Telephony(encoding) => {
                let encoding = if event.news.is_live_audio() {
                    encoding
                } else {
                    Encoding::Ulaw
                };
                let made = texts.iter().find(|(e, _)| *e == encoding).map(|(_, item)| item.clone());
                client.outbox.news(made.unwrap_or_else(|| {
                    let message = ServerMessage::news(event, encoding);
                    let made = item(message.text(), message.class());
                    texts.push((encoding, made.clone()));
                    made
                }));
            }
        });
    }

    /// Queues an event read from the store for whoever watches its call. `face` is the call's, where it is known.
    pub fn deliver_row(&self, tenant: TenantId, row: &EventRow, face: Option<&Face>) {
        let item = stored(row);
        let told = face.map_or_else(Vec::new, |face| call_events::replayed(face, row));
        self.each(tenant, row.call_id, |client, dress| match dress {
            Dress::Telephony(_) => item.iter().cloned().for_each(|item| client.outbox.news(item)),
            Dress::CallEvents => told.iter().for_each(|text| {
                client.outbox.news(Item {
                    text: text.clone().into(),
                    class: Class::Event,
                    call: Some(row.call_id),
                    id: Some(row.id),
                    status: None,
                });
            }),
        });
    }

    fn each(&self, tenant: TenantId, call: CallId, mut each: impl FnMut(&Client, Dress)) {
        for client in lock(&self.clients).get(&tenant).into_iter().flatten() {
            if let Some(dress) = client.dress_for(call) {
                each(client, dress);
            }
        }
    }

    /// Carries news from the bus for ever.
    pub async fn run(&self, bus: &dyn Bus, store: &dyn Store) {
        let mut orders: HashMap<TenantId, Order<Arc<Event>>> = HashMap::new();
        loop {
            let mut news = bus.subscribe();
            for (tenant, order) in &mut orders {
                self.catch_up(store, *tenant, order, order.last()).await;
            }
            loop {
                let waits = orders.values().any(Order::waits);
                let event = match waits {
                    true => tokio::time::timeout(PATIENCE, news.recv()).await,
                    false => Ok(news.recv().await),
                };
                match event {
                    Ok(Some(event)) => self.take(event, &mut orders),
                    Ok(None) => break,
                    Err(_) => {}
                }
                for (tenant, order) in orders.iter_mut().filter(|_| waits) {
                    let overdue = order.overdue(Mono::now());
                    if overdue.is_some() {
                        self.catch_up(store, *tenant, order, overdue).await;
                    }
                }
            }
            metrics::dropped("news", "interrupted", 1);
            tracing::warn!("news to frontends were interrupted; reading what was missed from the store");
        }
    }

    fn take(&self, event: Arc<Event>, orders: &mut HashMap<TenantId, Order<Arc<Event>>>) {
        let Some(id) = event.id else {
            return self.deliver(&event);
        };
        let order = orders.entry(event.tenant).or_default();
        for due in order.place(id, event, Mono::now()) {
            self.deliver(&due);
        }
    }

    async fn face(&self, store: &dyn Store, tenant: TenantId, call: CallId) -> Option<Face> {
        let known = lock(&self.faces).of(call);
        if known.is_some() {
            return known;
        }
        let row = store.call(tenant, call.as_str()).await.ok().flatten()?;
        Some(Face::of(&row))
    }

    async fn catch_up(&self, store: &dyn Store, tenant: TenantId, order: &mut Order<Arc<Event>>, after: Option<i64>) {
        let Some(mut last) = after else { return };
        loop {
            match store.events(tenant, None, last, PAGE).await {
                Ok(rows) => {
                    for row in &rows {
                        let face = self.face(store, tenant, row.call_id).await;
                        self.deliver_row(tenant, row, face.as_ref());
                        last = row.id;
                    }
                    if rows.len() < PAGE {
                        break;
                    }
                }
                Err(fault) => {
                    metrics::dropped("news", "store", 1);
                    tracing::warn!(%fault, "events missed by frontends could not be read");
                    break;
                }
            }
        }
        for due in order.filled(last, Mono::now()) {
            self.deliver(&due);
        }
    }
}

/// A stored event as a message.
pub fn stored(row: &EventRow) -> Option<Item> {
    let (text, status) = protocol::replayed(row)?;
    Some(Item {
        text: text.into(),
        class: protocol::Class::Event,
        call: Some(row.call_id),
        id: Some(row.id),
        status,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
