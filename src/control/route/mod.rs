//! Calls of other nodes. Whatever is wanted of a call is done here if the call is here; else the node that has it is asked, by
//! the bus, to do the same in the name of the same tenant.
//!
//! Nobody keeps a map of who has which call: the nodes that are heard are asked, and all but one say that it is not theirs. Where
//! the answer was found is remembered, as a hint. What is on record is read from the store, which all share; only what is live
//! (where a call streams) is asked for.

mod claim;
mod wire;

pub(super) use wire::{NOT_E164, Order, Told, check_dialable, not_understood};

use super::{
    Control, LONG_PATIENCE, LiveCall, Microphone, Mute, PATIENCE, Shared, Silence,
    call::Words,
    directory::{Entry, lock},
    gone,
    roster::Line,
    talk::Command,
};
use crate::{
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
    },
    bus::{
        Peers,
        envelope::BadMessage,
        peers::{AskError, Question},
    },
    metrics,
    store::{CallFilter, CallRow, CallStatus},
    vendor::{self, Answer, CallUpdate, Descriptor},
};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use wire::{Asked, Live, Piece, Said, Update};

/// The service of a node that does what is wanted of its calls.
const CALLS: &str = "calls";
/// The service of a node that takes frontends' microphones for its calls.
const MICROPHONES: &str = "microphones";
/// How long others may take to say what is live.
const LIVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long others may take to say that a vendor's call is theirs.
const NEWS_PATIENCE: Duration = Duration::from_secs(4);
/// Questions of other nodes that are worked at.
const MAX_QUESTIONS: usize = 512;
/// Calls whose node is remembered.
const MAX_HINTS: usize = 4096;
/// Calls told to another node at once.
const MAX_LIVE: usize = 1000;
/// Calls of other nodes listed at most.
const MAX_LISTED: usize = 10_000;

/// Where calls were found.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    hints: Mutex<HashMap<(TenantId, String), String>>,
}

impl Elsewhere {
    fn of(&self, tenant: TenantId, id: &str) -> Option<String> {
        lock(&self.hints).get(&(tenant, id.to_owned())).cloned()
    }

    fn learn(&self, tenant: TenantId, id: &str, node: &str) {
        let mut hints = lock(&self.hints);
        if hints.len() >= MAX_HINTS {
            hints.clear();
        }
        hints.insert((tenant, id.to_owned()), node.to_owned());
    }

    fn forget(&self, tenant: TenantId, id: &str) {
        lock(&self.hints).remove(&(tenant, id.to_owned()));
    }
}

impl Control {
    /// The other nodes.
    fn peers(&self) -> Option<&Peers> {
        self.shared.deps.bus.peers()
    }

    /// Carries an order out, wherever the call is. `id` is either id of the call, or that of its media socket where the order
    /// is about that.
    pub(super) async fn order(&self, tenant: TenantId, id: &str, order: Order) -> Result<Told, Fault> {
        order.check()?;
        match self.target(tenant, id, &order) {
            Some(entry) => self.obey(&entry, order).await,
            // Ending an ended call succeeds.
            None if !matches!(order, Order::HangUp) && !order.is_of_socket() && self.is_over(tenant, id).await? => {
                Err(gone())
            }
            None => self.pass_on(tenant, id, order).await,
        }
    }

    /// The call here that an order is about.
    fn target(&self, tenant: TenantId, id: &str, order: &Order) -> Option<Arc<Entry>> {
        let directory = &self.shared.directory;
        if !order.is_of_socket() {
            return directory.find(tenant, id);
        }
        let calls = directory.of_tenant(tenant);
        let of_socket = |c: &&LiveCall| c.connection.is_some_and(|socket| socket.as_str() == id);
        directory.get(calls.iter().find(of_socket)?.row.call_id)
    }

    /// Carries an order out on a call of ours.
    async fn obey(&self, entry: &Entry, order: Order) -> Result<Told, Fault> {
        let done = match order {
            Order::Say {
                text,
                language,
                client_ref,
                sender_name,
            } => {
                let words = Words {
                    text,
                    language,
                    client_ref,
                    sender_name,
                };
                let (told, answer) = oneshot::channel();
                self.send(entry, Command::Say(Box::new(words), told)).await?;
                let message = answer.await.map_err(|_| gone())??;
                return Ok(Told::Message(message.to_string()));
            }
            Order::Mute { inbound, outbound } => {
                let (told, answer) = oneshot::channel();
                self.send(entry, Command::Mute(Mute { inbound, outbound }, told))
                    .await?;
                return answer.await.map(Told::muted).map_err(|_| gone());
            }
            Order::Record(on) => {
                let (done, answer) = oneshot::channel();
                self.send(entry, Command::Record(on, done)).await?;
                answer.await.map_err(|_| gone())?
            }
            Order::Silence { everything, chunk } => {
                let what = match everything {
                    true => Silence::Everything,
                    false => Silence::Chunk(chunk),
                };
                self.send(entry, Command::Silence(what)).await
            }
            Order::Language(language) => self.send(entry, Command::Language(language)).await,
            Order::Move(status) => {
                let status = CallStatus::parse(&status).ok_or_else(not_understood)?;
                self.ask(entry, PATIENCE, |done| Command::SetStatus(status, done)).await
            }
            Order::Digits(digits) => {
                self.ask(entry, LONG_PATIENCE, |done| Command::Digits(digits, done))
                    .await
            }
            Order::Transfer(to) => self.ask(entry, LONG_PATIENCE, |done| Command::Transfer(to, done)).await,
            Order::Person { takes, by } => {
                self.ask(entry, PATIENCE, |done| Command::Person { takes, by, done })
                    .await
            }
            Order::HangUp => self.ask(entry, LONG_PATIENCE, Command::HangUp).await,
        };
        done.map(|()| Told::Done)
    }

    /// Has an order carried out by the node that has the call.
    async fn pass_on(&self, tenant: TenantId, id: &str, order: Order) -> Result<Told, Fault> {
        let absent = || Fault::not_found(if order.is_of_socket() { "stream" } else { "call" });
        let Some(peers) = self.peers() else {
            return Err(absent());
        };
        if !peers.is_connected() {
            return Err(AskError::NotThere.fault());
        }
        let asked = Asked::Do {
            tenant: tenant.0,
            call: id.to_owned(),
            order: order.clone(),
        };
        let (patience, body) = (order.patience(), asked.write().map_err(|_| AskError::TooLong.fault())?);
        if let Some(node) = self.shared.elsewhere.of(tenant, id) {
            match peers.ask(&node, CALLS, body.clone(), patience).await {
                Ok(said) => {
                    if let Some(outcome) = read(&said).outcome() {
                        return outcome;
                    }
                }
                Err(AskError::NotThere) => {}
                Err(error) => return Err(error.fault()),
            }
            self.shared.elsewhere.forget(tenant, id);
        }
        let mut silent = None;
        let mut answers = peers.ask_each(CALLS, &body, patience);
        while let Some((node, answer)) = answers.next().await {
            match answer {
                Ok(said) => {
                    if let Some(outcome) = read(&said).outcome() {
                        self.shared.elsewhere.learn(tenant, id, &node);
                        return outcome;
                    }
                }
                Err(AskError::NotThere) => {}
                Err(error) => silent = Some(error),
            }
        }
        Err(silent.map_or_else(absent, AskError::fault))
    }

    /// Passes a frontend's microphone on to the node that has the call. Never waits: where that node is not known yet, it is
    /// looked for and this piece is dropped.
    pub(super) fn pass_on_microphone(&self, tenant: TenantId, id: &str, audio: &Microphone) -> Result<(), Fault> {
        let Some(peers) = self.peers() else {
            return Err(Fault::not_found("call"));
        };
        let Some(node) = self.shared.elsewhere.of(tenant, id) else {
            metrics::dropped("frontend_audio", "node_not_known", 1);
            let (control, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move { control.call(tenant, &id).await.map(drop) });
            return Ok(());
        };
        let body = Piece::write(tenant.0, id, audio).map_err(|_| AskError::TooLong.fault())?;
        peers.tell(&node, MICROPHONES, body);
        Ok(())
    }

    /// Whether a call that is on record and not over is another node's.
    pub fn is_elsewhere(&self, row: &CallRow) -> bool {
        self.peers().is_some() && row.status != CallStatus::Ended && self.shared.directory.get(row.call_id).is_none()
    }

    /// Live calls of a tenant on every node, newest first.
    pub async fn active_everywhere(&self, tenant: TenantId) -> Result<Vec<LiveCall>, Fault> {
        let mut calls = self.active(tenant);
        if self.peers().is_none() {
            return Ok(calls);
        }
        let mut others = Vec::new();
        let mut filter = CallFilter {
            statuses: CallStatus::ALL
                .into_iter()
                .filter(|s| *s != CallStatus::Ended)
                .collect(),
            limit: 200,
            ..CallFilter::default()
        };
        loop {
            let page = self.shared.deps.store.calls(tenant, filter.clone()).await?;
            let elsewhere = page
                .calls
                .into_iter()
                .filter(|row| self.shared.directory.get(row.call_id).is_none());
            others.extend(elsewhere.map(on_record));
            filter.after = page.next;
            if filter.after.is_none() || others.len() >= MAX_LISTED {
                break;
            }
        }
        self.add_live(tenant, None, &mut others).await;
        calls.extend(others);
        calls.sort_by_key(|c| std::cmp::Reverse((c.row.start_time, c.row.call_id)));
        Ok(calls)
    }

    /// Adds what is live of calls of other nodes to what is on record, as far as those nodes answer.
    pub(super) async fn add_live(&self, tenant: TenantId, call: Option<&str>, calls: &mut [LiveCall]) {
        let Some(peers) = self.peers().filter(|p| p.is_connected() && !calls.is_empty()) else {
            return;
        };
        let asked = Asked::Live {
            tenant: tenant.0,
            call: call.map(str::to_owned),
        };
        let Ok(body) = asked.write() else { return };
        let mut at: HashMap<String, usize> = calls
            .iter()
            .enumerate()
            .map(|(n, c)| (c.row.call_id.to_string(), n))
            .collect();
        let mut answers = peers.ask_each(CALLS, &body, LIVE_PATIENCE);
        while let Some((node, answer)) = answers.next().await {
            let Ok(Said::Live(live)) = answer.map(|said| read(&said)) else {
                continue;
            };
            for live in live {
                let Some(call) = at.remove(&live.call).and_then(|n| calls.get_mut(n)) else {
                    continue;
                };
                for id in [call.row.call_id.as_str(), &call.row.call_sid] {
                    self.shared.elsewhere.learn(tenant, id, &node);
                }
                live.add_to(call);
            }
            if at.is_empty() {
                return;
            }
        }
    }

    /// Tells the node that has the vendor's call of its news; with `answer`, says how it wants the call to be connected. `None`
    /// where no node has it.
    pub(super) async fn news_elsewhere(
        &self,
        vendor: &'static Descriptor,
        update: &CallUpdate,
        line: Option<&Line>,
        answer: bool,
    ) -> Option<Result<Answer, Fault>> {
        let peers = self.peers().filter(|p| p.is_connected())?;
        let asked = Asked::News {
            vendor: vendor.name.to_owned(),
            line: line.map(|l| l.row.id.to_string()),
            update: Update::from(update),
            answer,
        };
        let body = asked.write().ok()?;
        let mut answers = peers.ask_each(CALLS, &body, NEWS_PATIENCE);
        while let Some((_, answer)) = answers.next().await {
            let Ok(said) = answer else { continue };
            match read(&said) {
                Said::Answer(connect) => return Some(Ok(connect.into())),
                other => {
                    if let Some(outcome) = other.outcome() {
                        return Some(outcome.map(|_| Answer::HangUp));
                    }
                }
            }
        }
        None
    }

    /// What another node is told.
    async fn answer(&self, body: &[u8]) -> Said {
        let asked = match Asked::read(body) {
            Ok(asked) => asked,
            Err(bad) => return refused(bad),
        };
        match asked {
            Asked::Do { tenant, call, order } => {
                let Some(entry) = self.target(TenantId(tenant), &call, &order) else {
                    return Said::NotHere;
                };
                let done = match order.check() {
                    Ok(()) => self.obey(&entry, order).await,
                    Err(fault) => Err(fault),
                };
                done.map_or_else(|fault| Said::fault(&fault), Said::Told)
            }
            Asked::Live { tenant, call } => Said::Live(self.live_here(TenantId(tenant), call.as_deref())),
            Asked::Claim(claim) => self.shared.give(claim).await,
            Asked::News {
                vendor,
                line,
                update,
                answer,
            } => self.news_here(&vendor, line.as_deref(), update, answer).await,
        }
    }

    fn live_here(&self, tenant: TenantId, call: Option<&str>) -> Vec<Live> {
        match call {
            Some(id) => {
                let shown = self.shared.directory.find(tenant, id).and_then(|e| e.show());
                shown.iter().map(Live::from).collect()
            }
            None => self.active(tenant).iter().take(MAX_LIVE).map(Live::from).collect(),
        }
    }

    async fn news_here(&self, vendor: &str, line: Option<&str>, update: Update, answer: bool) -> Said {
        let Some((vendor, update)) = vendor::by_name(vendor).zip(update.read()) else {
            return refused(BadMessage::Shape);
        };
        let line = match line {
            None => None,
            Some(id) => match self.shared.roster.line(id) {
                Some(line) => Some(line),
                None => return Said::NotHere,
            },
        };
        let Some(entry) = self.shared.known(vendor, &update, line.as_deref()) else {
            return match self.shared.has_ended(vendor, &update.call_sid, line.as_deref()) {
                true => Said::Told(Told::Done),
                false => Said::NotHere,
            };
        };
        match answer {
            true => match self.connect(&entry, update).await {
                Ok(answer) => Said::Answer(answer.into()),
                Err(fault) => Said::fault(&fault),
            },
            false => match self.tell_vendor_news(&entry, update).await {
                Err(fault) if fault.kind != Kind::Conflict => Said::fault(&fault),
                _ => Said::Told(Told::Done),
            },
        }
    }

    fn hear_microphone(&self, body: &[u8]) {
        let (piece, audio) = match Piece::read(body) {
            Ok(read) => read,
            Err(bad) => return drop(refused(bad)),
        };
        match self.shared.directory.find(TenantId(piece.tenant), &piece.call) {
            Some(entry) => hear(&entry, audio),
            None => metrics::dropped("frontend_audio", "not_here", 1),
        }
    }
}

/// Queues a piece of a frontend's microphone; a full queue drops it.
pub(super) fn hear(entry: &Entry, audio: Microphone) {
    if entry.microphone.try_send(Box::new(audio)).is_err() {
        metrics::dropped("frontend_audio", "queue_full", 1);
    }
}

/// A call of which only the record is known.
pub(super) const fn on_record(row: CallRow) -> LiveCall {
    LiveCall {
        row,
        connection: None,
        stream: None,
    }
}

fn read(said: &[u8]) -> Said {
    Said::read(said).unwrap_or_else(refused)
}

/// Counts a message that is not believed, and answers it.
fn refused(bad: BadMessage) -> Said {
    metrics::dropped("node_message", bad.as_str(), 1);
    Said::fault(&Fault::client(
        Kind::Malformed,
        "nodes of different versions do not understand each other",
    ))
}

/// Does what other nodes want of our calls, for as long as the control plane lives.
pub(super) async fn serve(shared: Weak<Shared>, arrivals: mpsc::Sender<crate::media::Arrival>, peers: Peers) {
    let (mut questions, mut microphones) = (peers.serve(CALLS).await, peers.serve(MICROPHONES).await);
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    loop {
        let (question, is_audio) = tokio::select! {
            Some(question) = questions.next() => (question, false),
            Some(audio) = microphones.next() => (audio, true),
            else => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        let control = Control {
            shared,
            arrivals: arrivals.clone(),
        };
        if is_audio {
            control.hear_microphone(&question.body);
        } else {
            spawn_answer(control, question, &places);
        }
    }
}

fn spawn_answer(control: Control, question: Question, places: &Arc<Semaphore>) {
    let Ok(place) = places.clone().try_acquire_owned() else {
        metrics::dropped("node_question", "too_many", 1);
        let busy = Fault::client(Kind::TooMany, "the call's node is busy: try again in a moment");
        return question.answer(Said::fault(&busy).write());
    };
    tokio::spawn(async move {
        let said = control.answer(&question.body).await;
        question.answer(said.write());
        drop(place);
    });
}
