//! The other nodes of a cluster: which are heard, what they watch, and how they are asked.
//!
//! Each node says every second that it lives. Questions go to one node or to all that are heard; each names a *service* of the
//! node that answers, whose words are its own. Everything that leaves without being waited for takes a place in one bounded
//! queue: what finds none is dropped and counted, and what is durable of it is read from the store by those who missed it.

use super::envelope::{self, BadMessage, MAX_BYTES, VERSION};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
        time::Mono,
    },
    metrics,
};
use async_nats::{Client, Subject, client::RequestErrorKind};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// How often a node says that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A node that was not heard for so long is not asked any more.
const HEARD_FOR: Duration = Duration::from_millis(3500);
/// Tenants named in a beat; a node that watches more is told of all.
const MAX_WATCHED: usize = 4096;
/// Nodes that are remembered.
const MAX_NODES: usize = 256;
/// Messages that may wait to leave, and their bytes.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 16 << 20;
/// Messages that may wait in one subscription.
pub(super) const INBOX: usize = 4096;
/// Bytes of a node's name at most.
const MAX_NAME: usize = 64;

/// The other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: String,
    prefix: String,
    client: Client,
    out: mpsc::Sender<Leaving>,
    state: Arc<State>,
    others: Mutex<HashMap<String, Other>>,
    /// Frontends by their tenant.
    watched: Mutex<HashMap<TenantId, usize>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("me", &self.0.me).finish_non_exhaustive()
    }
}

/// What the connection's callback knows too.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) connected: AtomicBool,
    /// Something durable was not told to the others: they shall look into the store.
    pub(super) missed: AtomicBool,
    /// A beat is due at once.
    pub(super) hurry: Notify,
    /// Bytes that wait to leave.
    bytes: AtomicUsize,
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    subject: String,
    body: Bytes,
}

/// Another node.
#[derive(Debug)]
struct Other {
    heard: Mono,
    watches: Watches,
}

#[derive(Debug)]
enum Watches {
    All,
    These(BTreeSet<TenantId>),
}

/// What a node says every second.
#[derive(Debug, Serialize, Deserialize)]
struct Beat {
    v: u16,
    node: String,
    /// Tenants whose frontends are here; `None` for more than can be named.
    watches: Option<Vec<i64>>,
    /// Not all that happened could be told: look into the store.
    missed: bool,
    /// The node stops.
    bye: bool,
}

/// Why a node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The server is away, or nobody of that name is there: nothing was asked.
    NotThere,
    /// It did not answer in time, and nobody knows what it did.
    Silent,
    /// The question, or the answer, is too long.
    TooLong,
}

impl AskError {
    /// The same, for whoever wanted something of a call on that node.
    pub fn fault(self) -> Fault {
        match self {
            Self::NotThere => Fault::new(
                Origin::Us,
                Kind::Unavailable,
                "the call is on another node, which cannot be reached: try again in a moment",
            ),
            Self::Silent => Fault::new(
                Origin::Us,
                Kind::Timeout,
                "the call is on another node, which did not answer in time",
            ),
            Self::TooLong => Fault::client(Kind::TooLarge, "too long to be passed on to the node of the call"),
        }
    }
}

/// A question of another node's.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub body: Bytes,
    reply: Option<Subject>,
    peers: Peers,
}

impl Question {
    /// Answers it. What finds no place in the queue is not answered, which the other node takes for silence.
    pub fn answer(self, body: Vec<u8>) {
        if let Some(subject) = self.reply {
            self.peers.leave("answer", subject.to_string(), body);
        }
    }
}

impl Peers {
    pub(super) fn new(me: &str, prefix: &str, client: Client, state: Arc<State>) -> (Self, mpsc::Receiver<Leaving>) {
        let (out, leaving) = mpsc::channel(QUEUE);
        let inner = Inner {
            me: me.to_owned(),
            prefix: prefix.to_owned(),
            client,
            out,
            state,
            others: Mutex::default(),
            watched: Mutex::default(),
        };
        (Self(Arc::new(inner)), leaving)
    }

    /// This node's name.
    pub fn me(&self) -> &str {
        &self.0.me
    }

    /// Whether the others can be reached: the server is there.
    pub fn is_connected(&self) -> bool {
        self.0.state.connected.load(Relaxed)
    }

    /// The other nodes that are heard.
    pub fn heard(&self) -> Vec<String> {
        let now = Mono::now();
        let others = lock(&self.0.others);
        let heard = others.iter().filter(|(_, other)| now.since(other.heard) < HEARD_FOR);
        heard.map(|(name, _)| name.clone()).collect()
    }

    /// Asks one node.
    pub async fn ask(&self, node: &str, service: &str, body: Vec<u8>, patience: Duration) -> Result<Bytes, AskError> {
        if body.len() > MAX_BYTES {
            return Err(AskError::TooLong);
        }
        if !self.is_connected() {
            return Err(AskError::NotThere);
        }
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(patience));
        let asked = self.0.client.send_request(self.service(node, service), request);
        // The client's own patience begins when the question has found its way into its queue.
        let answer = tokio::time::timeout(patience, asked)
            .await
            .map_err(|_| AskError::Silent)?;
        match answer {
            Ok(message) if message.payload.len() > MAX_BYTES => Err(AskError::TooLong),
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders | RequestErrorKind::InvalidSubject => AskError::NotThere,
                RequestErrorKind::MaxPayloadExceeded => AskError::TooLong,
                RequestErrorKind::TimedOut | RequestErrorKind::Other => AskError::Silent,
            }),
        }
    }

    /// Asks every node that is heard. Answers come as they are given.
    pub fn ask_each(
        &self,
        service: &'static str,
        body: &[u8],
        patience: Duration,
    ) -> impl Stream<Item = (String, Result<Bytes, AskError>)> + Send + Unpin + use<> {
        let heard = self.heard().into_iter();
        let asked = heard.map(|node| {
            let (peers, body) = (self.clone(), body.to_vec());
            async move {
                let answer = peers.ask(&node, service, body, patience).await;
                if let Err(error) = answer {
                    metrics::dropped("node_question", "unanswered", 1);
                    tracing::debug!(node, service, ?error, "another node did not answer");
                }
                (node, answer)
            }
        });
        asked.map(Box::pin).collect::<FuturesUnordered<_>>()
    }

    /// Tells a node something, without waiting; what finds no place in the queue is dropped and counted.
    pub fn tell(&self, node: &str, service: &'static str, body: Vec<u8>) -> bool {
        self.leave(service, self.service(node, service), body)
    }

    /// Tells every node that is heard.
    pub fn tell_all(&self, service: &'static str, body: &[u8]) {
        for node in self.heard() {
            self.tell(&node, service, body.to_vec());
        }
    }

    /// The questions that come to a service of this node, from now on.
    pub async fn serve(&self, service: &str) -> impl Stream<Item = Question> + Send + Unpin + use<> {
        let subject = self.service(self.me(), service);
        let peers = self.clone();
        let questions = match self.0.client.subscribe(subject).await {
            Ok(questions) => questions.left_stream(),
            Err(error) => {
                tracing::error!(%error, service, "questions of other nodes cannot be heard");
                futures_util::stream::pending().right_stream()
            }
        };
        let bounded = questions.filter_map(move |message| {
            let fits = message.payload.len() <= MAX_BYTES;
            if !fits {
                metrics::dropped("node_message", BadMessage::TooLong.as_str(), 1);
            }
            std::future::ready(fits.then(|| Question {
                body: message.payload,
                reply: message.reply,
                peers: peers.clone(),
            }))
        });
        Box::pin(bounded)
    }

    fn service(&self, node: &str, service: &str) -> String {
        format!("{}.node.{node}.{service}", self.0.prefix)
    }

    /// The subject of a tenant's events.
    pub(super) fn events_of(&self, tenant: TenantId) -> String {
        format!("{}.event.{tenant}", self.0.prefix)
    }

    /// The subject of all events.
    pub(super) fn all_events(&self) -> String {
        format!("{}.event.*", self.0.prefix)
    }

    fn beats(&self) -> String {
        format!("{}.beat", self.0.prefix)
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    /// Queues a message. Whether there was room for it, and a server to take it.
    pub(super) fn leave(&self, kind: &'static str, subject: String, body: Vec<u8>) -> bool {
        let state = &self.0.state;
        let n = body.len();
        let why = match () {
            () if n > MAX_BYTES => Some("too_long"),
            () if !self.is_connected() => Some("server_away"),
            () if state.bytes.load(Relaxed) + n > QUEUE_BYTES => Some("queue_full"),
            () => {
                state.bytes.fetch_add(n, Relaxed);
                let sent = self.0.out.try_send(Leaving {
                    subject,
                    body: body.into(),
                });
                if sent.is_err() {
                    state.bytes.fetch_sub(n, Relaxed);
                }
                sent.is_err().then_some("queue_full")
            }
        };
        if let Some(why) = why {
            metrics::counter(metrics::nodes_dropped_total, &[("kind", kind), ("reason", why)]).increment(1);
        }
        why.is_none()
    }

    /// Says what leaves, for ever.
    pub(super) async fn send(self, mut leaving: mpsc::Receiver<Leaving>) {
        while let Some(Leaving { subject, body }) = leaving.recv().await {
            let n = body.len();
            if let Err(error) = self.0.client.publish(subject, body).await {
                metrics::counter(metrics::nodes_dropped_total, &[("kind", "any"), ("reason", "refused")]).increment(1);
                tracing::debug!(%error, "a message to other nodes was refused");
            }
            self.0.state.bytes.fetch_sub(n, Relaxed);
        }
    }

    /// A frontend of a tenant came, or went.
    pub(super) fn watch(&self, tenant: TenantId, comes: bool) {
        let mut watched = lock(&self.0.watched);
        let n = watched.entry(tenant).or_default();
        *n = if comes { *n + 1 } else { n.saturating_sub(1) };
        if *n == 0 {
            watched.remove(&tenant);
        } else if comes && *n == 1 {
            self.0.state.hurry.notify_one();
        }
    }

    /// Whether another node wants what is live of a tenant's calls.
    pub(super) fn is_watched(&self, tenant: TenantId) -> bool {
        lock(&self.0.others).values().any(|other| match &other.watches {
            Watches::All => true,
            Watches::These(tenants) => tenants.contains(&tenant),
        })
    }

    fn beat(&self, bye: bool) -> Beat {
        let watched = lock(&self.0.watched);
        let few = watched.len() <= MAX_WATCHED;
        Beat {
            v: VERSION,
            node: self.0.me.clone(),
            watches: few.then(|| watched.keys().map(|t| t.0).collect()),
            missed: self.is_connected() && self.0.state.missed.swap(false, Relaxed),
            bye,
        }
    }

    /// Says that this node lives, every second and whenever that is urgent, for ever.
    pub(super) async fn live(self) {
        let heard = metrics::gauge(metrics::nodes_heard, &[]);
        loop {
            let beat = self.beat(false);
            let missed = beat.missed;
            let sent = envelope::write(&beat).is_ok_and(|body| self.leave("beat", self.beats(), body));
            if missed && !sent {
                self.0.state.missed.store(true, Relaxed);
            }
            let _ = tokio::time::timeout(BEAT_EVERY, self.0.state.hurry.notified()).await;
            heard.set(self.prune() as f64);
        }
    }

    /// Forgets who is not heard any more. Returns how many are.
    fn prune(&self) -> usize {
        let now = Mono::now();
        let mut others = lock(&self.0.others);
        others.retain(|node, other| {
            let heard = now.since(other.heard) < HEARD_FOR;
            if !heard {
                tracing::warn!(node, "another node is not heard any more");
            }
            heard
        });
        others.len()
    }

    /// Hears the others, for ever. `missed` is called when one of them could not tell all.
    pub(super) async fn hear(self, missed: impl Fn()) {
        let Ok(mut beats) = self.0.client.subscribe(self.beats()).await else {
            return;
        };
        while let Some(message) = beats.next().await {
            match envelope::read::<Beat>(&message.payload) {
                Ok(beat) if is_name(&beat.node) => {
                    if self.heard_from(&beat) {
                        missed();
                    }
                }
                Ok(_) => metrics::dropped("node_message", BadMessage::Shape.as_str(), 1),
                Err(bad) => metrics::dropped("node_message", bad.as_str(), 1),
            }
        }
    }

    /// Whether the node could not tell all.
    fn heard_from(&self, beat: &Beat) -> bool {
        if beat.node == self.0.me {
            return false;
        }
        let mut others = lock(&self.0.others);
        if beat.bye {
            others.remove(&beat.node);
            tracing::info!(node = beat.node, "another node has left");
            return beat.missed;
        }
        let watches = match &beat.watches {
            Some(tenants) if tenants.len() <= MAX_WATCHED => {
                Watches::These(tenants.iter().copied().map(TenantId).collect())
            }
            _ => Watches::All,
        };
        let other = Other {
            heard: Mono::now(),
            watches,
        };
        if others.len() >= MAX_NODES && !others.contains_key(&beat.node) {
            metrics::dropped("node_message", "too_many_nodes", 1);
            return false;
        }
        let known = others.insert(beat.node.clone(), other).is_some();
        if !known {
            tracing::info!(node = beat.node, "another node is heard");
            // It shall hear us at once, too.
            self.0.state.hurry.notify_one();
        }
        beat.missed || !known
    }

    /// Says that this node stops, and waits a moment until that has left.
    pub async fn leave_cluster(&self) {
        let Ok(body) = envelope::write(&self.beat(true)) else {
            return;
        };
        let goodbye = async {
            let _ = self.0.client.publish(self.beats(), body.into()).await;
            let _ = self.0.client.flush().await;
        };
        if self.is_connected() {
            let _ = tokio::time::timeout(BEAT_EVERY, goodbye).await;
        }
    }
}

/// Whether a node may be called so: its name becomes a part of a subject and a field of the log.
pub fn is_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
