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
        fault::{Fault, Origin},
        format::Encoding,
        ids::CallId,
        time::{Mono, Wall},
    },
    store::{CallRow, CallStatus},
    vendor,
};
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves one client to its end.
pub(super) async fn serve<S>(hub: &Arc<Inner>, io: S, address: IpAddr, identity: Identity, settings: Settings)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let config = &hub.config;
    let (tenant, outbox) = (identity.tenant, Outbox::new(config.queue_bytes, config.queue_messages));
    let session = Session::new(config, identity, settings, Mono::now(), Wall::now());
    pump::serve(hub, io, address, tenant, outbox, |desk| Steerer { desk, session }).await;
}

/// One client's session and what it acts on.
struct Steerer<'a> {
    desk: Desk<'a>,
    session: Session,
}

impl Shell for Steerer<'_> {
    async fn perform(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(text) => self.desk.answer(text),
                Output::Ping => self.desk.client.outbox.ping(),
                Output::Close(close) => self.desk.close(close),
                Output::Bind(call) => self.bind(call).await,
                Output::Act { call, action } => self.act(&call, action).await,
                Output::Listen { call, language } => {
                    let (control, tenant) = (&self.desk.hub.deps.control, self.desk.tenant());
                    // A call that is over needs no ear.
                    let _ = control.listen_in(tenant, call.as_str(), language).await;
                }
                Output::Refresh(token) => {
                    let (now, wall) = (Mono::now(), Wall::now());
                    let identity = self.desk.identify(&token, now, wall);
                    self.session.refreshed(identity, now, wall);
                }
            }
        }
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
            Some(after) => match self.replay(row.map(|r| r.call_id), after).await {
                Ok(last) => self.desk.client.outbox.release(last, &HashMap::new()),
                Err(fault) => self.session.unbound(&fault, Wall::now()),
            },
            None => {
                let told = self.snapshot(row).await;
                self.desk.client.outbox.release(None, &told);
            }
        }
    }

    async fn snapshot(&self, row: Option<CallRow>) -> HashMap<CallId, CallStatus> {
        let rows = match row {
            // Found before the news were held back: it may have moved since.
            Some(row) => match self.desk.find(row.call_id.as_str()).await {
                Ok(row) => vec![row],
                Err(_) => vec![row],
            },
            None => {
                let live = self.desk.hub.deps.control.active(self.desk.tenant());
                live.into_iter().map(|c| c.row).rev().collect()
            }
        };
        for row in &rows {
            self.desk.answer(ServerMessage::snapshot(row).text());
        }
        rows.iter().map(|r| (r.call_id, r.status)).collect()
    }

    /// Sends the events after `after` and returns the id of the last.
    async fn replay(&self, call: Option<CallId>, after: i64) -> Result<Option<i64>, Fault> {
        let after = after.max(0);
        let mut pages = self.desk.events(call, after);
        let mut is_first = true;
        while let Some(rows) = pages.next().await? {
            // A tenant's ids have no holes: what is missing before the first is no longer kept.
            if is_first
                && call.is_none()
                && let Some(first) = rows.first().filter(|first| first.id > after + 1)
            {
                let dropped = (first.id - after - 1) as u64;
                self.desk.answer(ServerMessage::Gap { dropped }.text());
            }
            is_first = false;
            let items = rows.iter().filter_map(stored);
            items.for_each(|item| self.desk.client.outbox.answer(item));
        }
        Ok(pages.last)
    }

    async fn act(&mut self, call: &str, action: Action) {
        let tenant = self.desk.tenant();
        let control = &self.desk.hub.deps.control;
        let (asked, client_ref) = (action.name(), action.client_ref());
        let done = match action {
            Action::Say(say) => control.say(tenant, call, say).await.map(|_| ()),
            Action::Move(status) => self.move_to(call, status).await,
            Action::Hear(audio) => control.microphone(tenant, call, audio),
        };
        if let Err(fault) = done {
            let vendor = if fault.origin == Origin::Vendor {
                self.vendor_of(call).await
            } else {
                None
            };
            let (client_ref, wall) = (client_ref.as_deref(), Wall::now());
            self.session.failed(asked, call, client_ref, &fault, vendor, wall);
        }
    }

    /// Moves a call. One that is there already is shown as it stands; else the news of the move is the confirmation.
    async fn move_to(&self, call: &str, status: CallStatus) -> Result<(), Fault> {
        let row = self.desk.find(call).await?;
        if row.status >= status {
            self.desk.answer(ServerMessage::snapshot(&row).text());
            return Ok(());
        }
        let tenant = self.desk.tenant();
        self.desk.hub.deps.control.set_status(tenant, call, status).await
    }

    /// The name and error code of the vendor that carries a call.
    async fn vendor_of(&self, call: &str) -> Option<(&'static str, &'static str)> {
        let row = self.desk.find(call).await.ok()?;
        vendor::by_name(&row.vendor).map(|v| (v.name, v.error_code))
    }
}
