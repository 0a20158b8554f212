//! The shell of one client: its WebSocket, read into its session, and its outbox, written to the socket.
//!
//! Reading and writing run side by side in one task, so a client that does not read is still heard, and one that asks for
//! something slow still gets its news. A write that makes no progress ends the socket.

use super::{
    Config, Inner,
    fanout::{Client, Dress, PAGE, Watch, stored},
    fragments::{Broken, Fragments},
    outbox::{Close, Item, Next, Outbox},
    protocol::{Action, Class, ServerMessage, Settings},
    session::{Bound, Output, Session},
};
use crate::{
    access::{Credential, Identity},
    base::{
        fault::{Fault, Origin},
        format::Encoding,
        ids::{CallId, TenantId},
        time::{Mono, Wall},
    },
    metrics,
    store::{CallRow, CallStatus},
    vendor,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

/// Serves one client to its end.
pub(super) async fn serve<S>(hub: &Inner, io: S, address: IpAddr, identity: Identity, settings: Settings)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let config = &hub.config;
    let (mut sink, mut stream) = open(io, config).await;
    let tenant = identity.tenant;
    let client = Arc::new(Client::new(Outbox::new(config.queue_bytes, config.queue_messages)));
    let _joined = Joined::new(hub, tenant, client.clone());
    let mut shell = Shell {
        hub,
        address,
        session: Session::new(config, identity, settings, Mono::now(), Wall::now()),
        client: client.clone(),
    };

    let alive = carry(config, &client, &mut sink, shell.read(&mut stream)).await;
    if alive && let Ok(mut ws) = sink.reunite(stream) {
        linger(ws.get_mut(), config.close_wait).await;
    }
}

/// A client's WebSocket, held to the bounds of its messages.
pub(super) async fn open<S>(
    io: S,
    config: &Config,
) -> (
    SplitSink<WebSocketStream<Fragments<S>>, Message>,
    SplitStream<WebSocketStream<Fragments<S>>>,
)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ws_config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_frame_size(Some(config.frame_bytes))
        .max_message_size(Some(config.message_bytes));
    let io = Fragments::new(io, config.fragments, config.fragments_timeout);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(ws_config))
        .await
        .split()
}

/// Reads and writes side by side until either ends. Whether the peer is still there to be said goodbye to.
pub(super) async fn carry<S>(
    config: &Config,
    client: &Client,
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    reader: impl Future<Output = ()>,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = std::pin::pin!(reader);
    let mut writer = std::pin::pin!(write(&client.outbox, sink, config.write_stall));
    tokio::select! {
        () = &mut reader => {
            client.outbox.close(Close::new(1000, ""));
            timeout(config.write_stall, writer).await.unwrap_or(false)
        }
        sent = &mut writer => {
            // The client answers our close, or has had its time.
            let _ = timeout(config.close_wait, reader).await;
            sent
        }
    }
}

/// A client in the fan-out, for as long as it lives.
pub(super) struct Joined<'a> {
    hub: &'a Inner,
    tenant: TenantId,
    client: Arc<Client>,
}

impl<'a> Joined<'a> {
    pub(super) fn new(hub: &'a Inner, tenant: TenantId, client: Arc<Client>) -> Self {
        hub.fanout.join(tenant, client.clone());
        Self { hub, tenant, client }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.hub.fanout.leave(self.tenant, &self.client);
    }
}

/// Says that nothing follows and reads what is under way, so that the peer sees our close and not a reset.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, wait: std::time::Duration) {
    let drain = async {
        let mut scrap = [0; 4096];
        if io.shutdown().await.is_ok() {
            while io.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
        }
    };
    let _ = timeout(wait, drain).await;
}

/// Writes what waits until the close has been written. `false` when the peer is gone or does not read.
async fn write<S>(
    outbox: &Outbox,
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    stall: std::time::Duration,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let (message, last) = match outbox.next().await {
            Next::Text(text) => (Message::Text(text), false),
            Next::Ping => (Message::Ping(bytes::Bytes::new()), false),
            Next::Close(close) => {
                let frame = CloseFrame {
                    code: close.code.into(),
                    reason: close.reason.into(),
                };
                (Message::Close(Some(frame)), true)
            }
        };
        match timeout(stall, sink.send(message)).await {
            Ok(Ok(())) if !last => {}
            Ok(Ok(())) => return true,
            // The peer has closed already.
            Ok(Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_))) => return true,
            Ok(Err(_)) => return false,
            Err(_) => {
                metrics::refused("frontend", "stalled");
                return false;
            }
        }
    }
}

/// One client's session and what it acts on.
struct Shell<'a> {
    hub: &'a Inner,
    address: IpAddr,
    session: Session,
    client: Arc<Client>,
}

impl Shell<'_> {
    /// Reads to the end of the socket.
    async fn read<S>(&mut self, stream: &mut SplitStream<WebSocketStream<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            self.perform().await;
            let wait = self.session.deadline().since(Mono::now());
            tokio::select! {
                frame = stream.next() => match frame {
                    None => return,
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => {
                        if let Some(close) = verdict(&error) {
                            metrics::refused("frontend", close.word());
                            self.client.outbox.close(close);
                        }
                        return;
                    }
                },
                () = sleep(wait) => self.session.tick(Mono::now()),
            }
        }
    }

    fn take(&mut self, message: &Message) {
        let (now, wall) = (Mono::now(), Wall::now());
        match message {
            Message::Text(text) => {
                let within = self.hub.tenant_messages.take(self.session.identity().tenant, now);
                self.session.text(text, within, now, wall);
            }
            Message::Binary(_) => self.session.binary(),
            Message::Ping(_) => self.session.control_frame(false, now),
            Message::Pong(_) => self.session.control_frame(true, now),
            Message::Close(_) | Message::Frame(_) => {}
        }
    }

    async fn perform(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(text) => self.answer(text),
                Output::Ping => self.client.outbox.ping(),
                Output::Close(close) => {
                    metrics::refused("frontend", close.word());
                    self.client.watch(Watch::Nothing, Dress::CallEvents);
                    self.client.outbox.close(close);
                }
                Output::Bind(call) => self.bind(call).await,
                Output::Act { call, action } => self.act(&call, action).await,
                Output::Listen { call, language } => {
                    let tenant = self.session.identity().tenant;
                    // A call that is over needs no ear.
                    let _ = self.hub.deps.control.listen_in(tenant, call.as_str(), language).await;
                }
                Output::Refresh(token) => {
                    let (now, wall) = (Mono::now(), Wall::now());
                    let credential = Some(Credential::Token(&token));
                    let known = self.hub.deps.access.identify(credential, self.address, now, wall);
                    self.session.refreshed(known.ok(), now, wall);
                }
            }
        }
    }

    fn answer(&self, text: String) {
        self.client.outbox.answer(Item {
            text: text.into(),
            class: Class::Event,
            call: None,
            id: None,
            status: None,
        });
    }

    /// Subscribes, tells the client where things stand or what it missed, and lets the news follow.
    async fn bind(&mut self, call: Option<String>) {
        let outbox = &self.client.outbox;
        outbox.hold();
        outbox.forget_news();
        let row = match &call {
            None => None,
            Some(id) => match self.find(id).await {
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
        self.client.watch(watch, Dress::Telephony(encoding));
        if let Some(welcome) = self.session.bound(bound) {
            self.answer(welcome);
        }
        match self.session.settings().last_event_id {
            Some(after) => match self.replay(row.map(|r| r.call_id), after).await {
                Ok(last) => self.client.outbox.release(last, &HashMap::new()),
                Err(fault) => self.session.unbound(&fault, Wall::now()),
            },
            None => {
                let told = self.snapshot(row).await;
                self.client.outbox.release(None, &told);
            }
        }
    }

    async fn find(&self, id: &str) -> Result<CallRow, Fault> {
        let tenant = self.session.identity().tenant;
        Ok(self.hub.deps.control.call(tenant, id).await?.row)
    }

    async fn snapshot(&self, row: Option<CallRow>) -> HashMap<CallId, CallStatus> {
        let rows = match row {
            // Found before the news were held back: it may have moved since.
            Some(row) => match self.find(row.call_id.as_str()).await {
                Ok(row) => vec![row],
                Err(_) => vec![row],
            },
            None => {
                let live = self.hub.deps.control.active(self.session.identity().tenant);
                live.into_iter().map(|c| c.row).rev().collect()
            }
        };
        for row in &rows {
            self.answer(ServerMessage::snapshot(row).text());
        }
        rows.iter().map(|r| (r.call_id, r.status)).collect()
    }

    /// Sends the events after `after` and returns the id of the last.
    async fn replay(&self, call: Option<CallId>, after: i64) -> Result<Option<i64>, Fault> {
        let tenant = self.session.identity().tenant;
        let (mut after, mut last) = (after.max(0), None);
        loop {
            let rows = self.hub.deps.store.events(tenant, call, after, PAGE).await?;
            // A tenant's ids have no holes: what is missing before the first is no longer kept.
            if let (None, None, Some(first)) = (last, call, rows.first())
                && first.id > after + 1
            {
                let dropped = (first.id - after - 1) as u64;
                self.answer(ServerMessage::Gap { dropped }.text());
            }
            for row in &rows {
                (after, last) = (row.id, Some(row.id));
                if let Some(item) = stored(row) {
                    self.client.outbox.answer(item);
                }
            }
            if rows.len() < PAGE || self.client.outbox.is_closing() {
                return Ok(last);
            }
            self.client.outbox.room().await;
        }
    }

    async fn act(&mut self, call: &str, action: Action) {
        let tenant = self.session.identity().tenant;
        let control = &self.hub.deps.control;
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
        let row = self.find(call).await?;
        if row.status >= status {
            self.answer(ServerMessage::snapshot(&row).text());
            return Ok(());
        }
        let tenant = self.session.identity().tenant;
        self.hub.deps.control.set_status(tenant, call, status).await
    }

    /// The name and error code of the vendor that carries a call.
    async fn vendor_of(&self, call: &str) -> Option<(&'static str, &'static str)> {
        let row = self.find(call).await.ok()?;
        vendor::by_name(&row.vendor).map(|v| (v.name, v.error_code))
    }
}

/// How a socket ends whose peer broke a rule; `None` when the peer is gone.
pub(super) fn verdict(error: &Error) -> Option<Close> {
    Some(match error {
        Error::Capacity(_) => Close::new(1009, "too big"),
        Error::Utf8(_) => Close::new(1007, "not UTF-8"),
        Error::Io(e) => match Broken::of(e)? {
            Broken::Many => Close::new(1008, "too many fragments"),
            Broken::Slow => Close::new(1008, "a message took too long"),
        },
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            return None;
        }
        Error::Protocol(_) => Close::new(1002, "protocol error"),
        _ => return None,
    })
}
