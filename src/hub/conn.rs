//! The shell of a client of the telephony socket: what its session's effects mean for calls.

use super::{
    Inner,
    fanout::{Dress, Watch, stored},
    outbox::Outbox,
    protocol::{Action, ServerMessage, Settings},
    pump::{self, Desk, Input, Shell},
    session::{Bound, Output, Session},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind, Origin},
        format::Encoding,
        ids::CallId,
        time::{Mono, Wall},
    },
    metrics,
    store::{CallRow, CallStatus},
    vendor,
};
use futures_util::future::BoxFuture;
use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    net::IpAddr,
    sync::Arc,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// What may wait behind a slow act: more messages than one client may send at once, and their words in bytes.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Serves one client to its end.
pub(super) async fn serve<S>(hub: &Arc<Inner>, io: S, address: IpAddr, identity: Identity, settings: Settings)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let config = &hub.config;
    let (tenant, outbox) = (identity.tenant, Outbox::new(config.queue_bytes, config.queue_messages));
    let session = Session::new(config, identity, settings, Mono::now(), Wall::now());
    pump::serve(hub, io, address, tenant, outbox, |desk| Steerer {
        desk,
        session,
        waiting: VecDeque::new(),
        at_work: None,
    })
    .await;
}

/// One client's session and what it acts on.
struct Steerer<'a> {
    desk: Desk<'a>,
    session: Session,
    /// What is done in turn, beside reading: a vendor may be slow.
    waiting: VecDeque<Task>,
    at_work: Option<BoxFuture<'a, Option<Failed>>>,
}

/// Something to be done to a call.
enum Task {
    Act { call: String, action: Action },
    Listen { call: CallId, language: String },
}

impl Task {
    /// Bytes of text that it holds.
    fn weight(&self) -> usize {
        match self {
            Self::Act {
                action: Action::Say(say),
                ..
            } => say.text.len(),
            _ => 0,
        }
    }
}

/// What was asked for and could not be done.
struct Failed {
    asked: &'static str,
    call: String,
    client_ref: Option<String>,
    fault: Fault,
    vendor: Option<(&'static str, &'static str)>,
}

impl Shell for Steerer<'_> {
    async fn perform(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(text) => self.desk.answer(text),
                Output::Ping => self.desk.client.outbox.ping(),
                Output::Close(close) => self.desk.close(close),
                Output::Bind(call) => self.bind(call).await,
                Output::Act { call, action } => self.act(call, action),
                Output::Listen { call, language } => {
                    // Without room it stays as it is, like one that is over.
                    let _ = self.queue(Task::Listen { call, language });
                }
                Output::Refresh(token) => {
                    let (now, wall) = (Mono::now(), Wall::now());
                    let identity = self.desk.identify(&token, now, wall).await;
                    self.session.refreshed(identity, now, wall);
                }
            }
        }
    }

    async fn work(&mut self) {
        if self.at_work.is_none() {
            let Some(task) = self.waiting.pop_front() else {
                return pending().await;
            };
            self.at_work = Some(Box::pin(perform(self.desk.clone(), task)));
        }
        if let Some(at_work) = &mut self.at_work {
            let failed = at_work.await;
            self.at_work = None;
            if let Some(failed) = failed {
                self.failed(&failed);
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.at_work.is_some() || !self.waiting.is_empty()
    }

    fn identity(&self) -> &Identity {
        self.session.identity()
    }

    fn deadline(&self) -> Mono {
        self.session.deadline()
    }

    fn take(&mut self, input: Input<'_>, now: Mono) {
        match input {
            Input::Text { text, within } => self.session.text(text, within, now, Wall::now()),
            Input::Binary => self.session.binary(),
            Input::Control { pong } => self.session.control_frame(pong, now),
            Input::Silence => self.session.tick(now),
        }
    }
}

impl Steerer<'_> {
    /// Subscribes, tells the client where things stand or what it missed, and lets the news follow.
    async fn bind(&mut self, call: Option<String>) {
        let outbox = &self.desk.client.outbox;
        outbox.hold();
        outbox.forget_news();
        let row = match &call {
            None => None,
            Some(id) => match self.desk.find(id).await {
                Ok(row) => Some(row),
                Err(fault) => return self.session.unbound(&fault, Wall::now()),
            },
        };
        let (bound, watch) = match &row {
            None => (Bound::Tenant, Watch::Tenant),
            Some(row) => {
                let (id, sid) = (row.call_id, row.call_sid.clone());
                (Bound::Call { id, sid }, Watch::Call(id))
            }
        };
        let encoding = self.session.settings().encoding.unwrap_or(Encoding::Ulaw);
        self.desk.client.watch(watch, Dress::Telephony(encoding));
        if let Some(welcome) = self.session.bound(bound) {
            self.desk.answer(welcome);
        }
        match self.session.settings().last_event_id {
            Some(after) => match replay(&self.desk, row.map(|r| r.call_id), after).await {
                Ok(last) => self.desk.client.outbox.release(last, &HashMap::new()),
                Err(fault) => self.session.unbound(&fault, Wall::now()),
            },
            None => {
                let told = snapshot(&self.desk, row).await;
                self.desk.client.outbox.release(None, &told);
            }
        }
    }

    /// Passes audio on at once, for it is of now, and has all else done in turn.
    fn act(&mut self, call: String, action: Action) {
        let (asked, client_ref) = (action.name(), action.client_ref());
        let done = match action {
            Action::Hear(audio) => {
                let control = &self.desk.hub.deps.control;
                control.microphone(self.desk.tenant(), &call, audio)
            }
            action => self.queue(Task::Act {
                call: call.clone(),
                action,
            }),
        };
        if let Err(fault) = done {
            self.failed(&Failed {
                asked,
                call,
                client_ref,
                fault,
                vendor: None,
            });
        }
    }

    /// Puts a task behind those that are not done, so that each call sees them in the order in which they were asked for.
    fn queue(&mut self, task: Task) -> Result<(), Fault> {
        let bytes = task.weight() + self.waiting.iter().map(Task::weight).sum::<usize>();
        if self.waiting.len() < MAX_WAITING && (bytes <= MAX_WAITING_BYTES || self.waiting.is_empty()) {
            self.waiting.push_back(task);
            return Ok(());
        }
        metrics::dropped("frontend_message", "waiting", 1);
        let message = "too much waits for what was asked before";
        Err(Fault::client(Kind::TooMany, message))
    }

    fn failed(&mut self, failed: &Failed) {
        let Failed {
            asked,
            call,
            client_ref,
            fault,
            vendor,
        } = failed;
        self.session
            .failed(asked, call, client_ref.as_deref(), fault, *vendor, Wall::now());
    }
}

/// Tells where things stand.
async fn snapshot(desk: &Desk<'_>, row: Option<CallRow>) -> HashMap<CallId, CallStatus> {
    let rows = match row {
        // Found before the news were held back: it may have moved since.
        Some(row) => match desk.find(row.call_id.as_str()).await {
            Ok(row) => vec![row],
            Err(_) => vec![row],
        },
        None => {
            let control = &desk.hub.deps.control;
            let live = control.active_everywhere(desk.tenant()).await;
            // What is here is known though the record cannot be read.
            let live = live.unwrap_or_else(|_| control.active(desk.tenant()));
            live.into_iter().map(|c| c.row).rev().collect()
        }
    };
    for row in &rows {
        desk.answer(ServerMessage::snapshot(row).text());
    }
    rows.iter().map(|r| (r.call_id, r.status)).collect()
}

/// Sends the events after `after` and returns the id of the last.
async fn replay(desk: &Desk<'_>, call: Option<CallId>, after: i64) -> Result<Option<i64>, Fault> {
    let after = after.max(0);
    let mut pages = desk.events(call, after);
    let mut is_first = true;
    while let Some(rows) = pages.next().await? {
        // A tenant's ids have no holes: what is missing before the first is no longer kept.
        if is_first
            && call.is_none()
            && let Some(first) = rows.first().filter(|first| first.id > after + 1)
        {
            let dropped = (first.id - after - 1) as u64;
            desk.answer(ServerMessage::Gap { dropped }.text());
        }
        is_first = false;
        let items = rows.iter().filter_map(stored);
        items.for_each(|item| desk.client.outbox.answer(item));
    }
    Ok(pages.last)
}

/// Does one thing. What became of it is returned where it failed; else the news of the call tell.
async fn perform(desk: Desk<'_>, task: Task) -> Option<Failed> {
    let (control, tenant) = (&desk.hub.deps.control, desk.tenant());
    let (call, action) = match task {
        Task::Listen { call, language } => {
            // A call that is over needs no ear.
            let _ = control.listen_in(tenant, call.as_str(), language).await;
            return None;
        }
        Task::Act { call, action } => (call, action),
    };
    let (asked, client_ref) = (action.name(), action.client_ref());
    let done = match action {
        Action::Say(say) => control.say(tenant, &call, say).await.map(|_| ()),
        Action::Move(status) => move_to(&desk, &call, status).await,
        Action::Hear(audio) => control.microphone(tenant, &call, audio),
    };
    let fault = done.err()?;
    let vendor = match fault.origin {
        Origin::Vendor => vendor_of(&desk, &call).await,
        _ => None,
    };
    Some(Failed {
        asked,
        call,
        client_ref,
        fault,
        vendor,
    })
}

/// Moves a call. One that is there already is shown as it stands; else the news of the move is the confirmation.
async fn move_to(desk: &Desk<'_>, call: &str, status: CallStatus) -> Result<(), Fault> {
    let row = desk.find(call).await?;
    if row.status >= status {
        desk.answer(ServerMessage::snapshot(&row).text());
        return Ok(());
    }
    desk.hub.deps.control.set_status(desk.tenant(), call, status).await
}

/// The name and error code of the vendor that carries a call.
async fn vendor_of(desk: &Desk<'_>, call: &str) -> Option<(&'static str, &'static str)> {
    let row = desk.find(call).await.ok()?;
    vendor::by_name(&row.vendor).map(|v| (v.name, v.error_code))
}
