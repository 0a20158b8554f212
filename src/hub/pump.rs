//! What every client's socket needs whatever it speaks: its WebSocket, read into its shell, and its outbox, written to it.
//!
//! Reading and writing run side by side in one task, so a client that does not read is still heard, and one that asks for
//! something slow still gets its news. A write that makes no progress ends the socket.

use super::{
    Config, Inner,
    fanout::{Client, Dress, PAGE, Watch},
    fragments::{Broken, Fragments},
    outbox::{Close, Item, Next, Outbox},
    protocol::Class,
};
use crate::{
    access::{Credential, Identity, scope::Scope},
    base::{
        fault::Fault,
        ids::{CallId, TenantId},
        time::{Mono, Wall},
    },
    metrics,
    store::{CallRow, EventRow},
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

/// What comes from a client's socket.
pub(super) enum Input<'a> {
    /// A text message; `within` says whether the tenant's own limit allows it.
    Text { text: &'a str, within: bool },
    /// A binary message.
    Binary,
    /// A ping, or a pong.
    Control { pong: bool },
    /// Nothing, for as long as the shell could wait.
    Silence,
}

/// What makes one sort of socket of a socket: a pure machine, and what its effects mean.
pub(super) trait Shell {
    /// Done once, before anything is read.
    async fn begin(&mut self) {}

    /// Does what the machine has asked for.
    async fn perform(&mut self);

    /// Goes on with what is slow, beside reading; returns when the machine may have something to be done, and never while nothing
    /// is slow. It may be dropped at any point and called again.
    async fn work(&mut self) {
        std::future::pending().await
    }

    /// Whether something slow is not done yet.
    fn is_busy(&self) -> bool {
        false
    }

    /// Whose session it is.
    fn identity(&self) -> &Identity;

    /// When the machine wants to be told that nothing came.
    fn deadline(&self) -> Mono;

    /// Feeds the machine.
    fn take(&mut self, input: Input<'_>, now: Mono);
}

/// One client's place at the hub.
#[derive(Clone)]
pub(super) struct Desk<'a> {
    pub(super) hub: &'a Arc<Inner>,
    pub(super) client: Arc<Client>,
    address: IpAddr,
    tenant: TenantId,
}

/// Serves one client to its end.
pub(super) async fn serve<'a, S, H>(
    hub: &'a Arc<Inner>,
    io: S,
    address: IpAddr,
    tenant: TenantId,
    outbox: Outbox,
    shell: impl FnOnce(Desk<'a>) -> H,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Shell,
{
    let config = &hub.config;
    let (mut sink, mut stream) = open(io, config).await;
    let client = Arc::new(Client::new(outbox));
    let _joined = Joined::new(hub, tenant, client.clone());
    let mut shell = shell(Desk {
        hub,
        client: client.clone(),
        address,
        tenant,
    });
    let reader = read(hub, tenant, &client, &mut shell, &mut stream);
    let alive = carry(config, &client, &mut sink, reader).await;
    if alive && let Ok(mut ws) = sink.reunite(stream) {
        linger(ws.get_mut(), config.close_wait).await;
    }
}

/// A client's WebSocket, held to the bounds of its messages.
async fn open<S>(
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

/// Reads to the end of the socket, then finishes what was asked for before it.
async fn read<S, H>(
    hub: &Inner,
    tenant: TenantId,
    client: &Client,
    shell: &mut H,
    stream: &mut SplitStream<WebSocketStream<S>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Shell,
{
    // Heard of from here on, and looked at once: a change between the proof and this is not missed.
    let members = hub.deps.access.members();
    let mut changes = members.changes();
    changes.mark_changed();
    shell.begin().await;
    loop {
        shell.perform().await;
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            if !members.stands(shell.identity(), Wall::now()) {
                let close = Close::new(4401, "the credential opens nothing any more");
                metrics::refused("frontend", "revoked");
                client.watch(Watch::Nothing, Dress::CallEvents);
                client.outbox.close(close);
                break;
            }
        }
        let wait = shell.deadline().since(Mono::now());
        let message = tokio::select! {
            frame = stream.next() => match frame {
                None => break,
                Some(Ok(message)) => Some(message),
                Some(Err(error)) => {
                    if let Some(close) = verdict(&error) {
                        metrics::refused("frontend", close.word());
                        client.outbox.close(close);
                    }
                    break;
                }
            },
            () = shell.work() => continue,
            Ok(()) = changes.changed() => {
                changes.mark_changed();
                continue;
            }
            () = sleep(wait) => None,
        };
        let now = Mono::now();
        let input = match &message {
            None => Input::Silence,
            Some(Message::Text(text)) => {
                let own = members.limits(tenant).messages();
                let rate = own.unwrap_or(hub.tenant_messages.rate());
                let within = hub.tenant_messages.ask(tenant, rate, now).is_ok();
                Input::Text { text, within }
            }
            Some(Message::Binary(_)) => Input::Binary,
            Some(Message::Ping(_)) => Input::Control { pong: false },
            Some(Message::Pong(_)) => Input::Control { pong: true },
            Some(Message::Close(_) | Message::Frame(_)) => continue,
        };
        shell.take(input, now);
    }
    while shell.is_busy() {
        shell.work().await;
    }
}

/// Reads and writes side by side until either ends. Whether the peer is still there to be said goodbye to.
async fn carry<S>(
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
struct Joined<'a> {
    hub: &'a Inner,
    tenant: TenantId,
    client: Arc<Client>,
}

impl<'a> Joined<'a> {
    fn new(hub: &'a Inner, tenant: TenantId, client: Arc<Client>) -> Self {
        hub.fanout.join(tenant, client.clone());
        hub.deps.bus.watch(tenant, true);
        Self { hub, tenant, client }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.hub.fanout.leave(self.tenant, &self.client);
        self.hub.deps.bus.watch(self.tenant, false);
    }
}

/// Says that nothing follows and reads what is under way, so that the peer sees our close and not a reset.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, wait: Duration) {
    let drain = async {
        let mut scrap = [0; 4096];
        if io.shutdown().await.is_ok() {
            while io.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
        }
    };
    let _ = timeout(wait, drain).await;
}

/// Writes what waits until the close has been written. `false` when the peer is gone or does not read.
async fn write<S>(outbox: &Outbox, sink: &mut SplitSink<WebSocketStream<S>, Message>, stall: Duration) -> bool
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

/// How a socket ends whose peer broke a rule; `None` when the peer is gone.
fn verdict(error: &Error) -> Option<Close> {
    Some(match error {
        Error::Capacity(_) => Close::new(1009, "too big"),
        Error::Utf8(_) => Close::new(1007, "not UTF-8"),
        Error::Io(e) => match Broken::of(e)? {
            Broken::Many => Close::new(1008, "too many fragments"),
            Broken::Slow => Close::new(1008, "a message took too long"),
        },
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => Close::new(1002, "protocol error"),
        _ => return None,
    })
}

impl Desk<'_> {
    /// Whose calls the client may see.
    pub(super) const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Queues a message for the client.
    pub(super) fn answer(&self, text: String) {
        self.client.outbox.answer(Item {
            text: text.into(),
            class: Class::Event,
            call: None,
            id: None,
            status: None,
        });
    }

    /// Ends the socket once everything before has been sent.
    pub(super) fn close(&self, close: Close) {
        metrics::refused("frontend", close.word());
        self.client.watch(Watch::Nothing, Dress::CallEvents);
        self.client.outbox.close(close);
    }

    /// Whose a fresh token is.
    pub(super) async fn identify(&self, token: &str, now: Mono, wall: Wall) -> Option<Identity> {
        let credential = Some(Credential::Token(token));
        let identified = self.hub.deps.access.identify(credential, self.address, now, wall).await;
        identified.ok().filter(|who| who.scopes.allow(Some(Scope::Ws)))
    }

    /// A call of the tenant, by either id.
    pub(super) async fn find(&self, id: &str) -> Result<CallRow, Fault> {
        Ok(self.hub.deps.control.call(self.tenant, id).await?.row)
    }

    /// The stored events after `after`.
    pub(super) const fn events(&self, call: Option<CallId>, after: i64) -> Pages<'_> {
        Pages {
            desk: self,
            call,
            after,
            last: None,
            whole: false,
        }
    }
}

/// Stored events, a page at a time, as fast as the client takes them.
pub(super) struct Pages<'a> {
    desk: &'a Desk<'a>,
    call: Option<CallId>,
    after: i64,
    /// The id of the last event that the client has.
    pub(super) last: Option<i64>,
    whole: bool,
}

impl Pages<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Vec<EventRow>>, Fault> {
        let outbox = &self.desk.client.outbox;
        if self.whole || outbox.is_closing() {
            return Ok(None);
        }
        if self.last.is_some() {
            outbox.room().await;
        }
        let store = &self.desk.hub.deps.store;
        let rows = store.events(self.desk.tenant, self.call, self.after, PAGE).await?;
        self.whole = rows.len() < PAGE;
        match rows.last() {
            Some(row) => (self.after, self.last) = (row.id, Some(row.id)),
            // The client was told ahead of the fan-out, which must not tell it again. An id that never was is not believed.
            None if self.last.is_none() && self.happened().await? => self.last = Some(self.after),
            None => {}
        }
        Ok(Some(rows))
    }

    /// Whether there is an event of the id after which is read.
    async fn happened(&self) -> Result<bool, Fault> {
        let store = &self.desk.hub.deps.store;
        let rows = store.events(self.desk.tenant, None, self.after - 1, 1).await?;
        Ok(rows.first().is_some_and(|row| row.id == self.after))
    }
}
