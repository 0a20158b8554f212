//! The shell of a client of `/call-events` or `/frontend-audio`: its WebSocket, read into its [`Viewer`], and its outbox,
//! written to the socket.

use super::{
    Inner,
    audio_messages::AudioSettings,
    call_events::{self, EventSettings, Face},
    conn::{Joined, carry, linger, open, verdict},
    fanout::{Client, Dress, PAGE, Watch},
    listening::Place,
    outbox::{Close, Item, Outbox},
    protocol::Class,
    viewer::{Output, Viewer, Voice},
};
use crate::{
    access::{Credential, Identity},
    base::{
        fault::{Fault, Kind},
        ids::CallId,
        time::{Mono, Wall},
    },
    metrics,
    store::CallRow,
};
use futures_util::{StreamExt, stream::SplitStream};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// What a client came to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// What happens to calls.
    Events(EventSettings),
    /// Their audio.
    Audio(AudioSettings),
}

impl Sight {
    const fn voice(&self) -> Voice {
        match self {
            Self::Events(_) => Voice::Events,
            Self::Audio(_) => Voice::Audio,
        }
    }

    fn call_id(&self) -> Option<&str> {
        match self {
            Self::Events(settings) => settings.call_id.as_deref(),
            Self::Audio(settings) => settings.call_id.as_deref(),
        }
    }
}

/// Serves one client to its end.
pub(super) async fn serve<S>(hub: &Arc<Inner>, io: S, address: IpAddr, identity: Identity, sight: Sight)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (config, voice) = (&hub.config, sight.voice());
    let (mut sink, mut stream) = open(io, config).await;
    let outbox = Outbox::new(config.queue_bytes, config.queue_messages).telling_gaps_by(match voice {
        Voice::Events => |dropped| Voice::Events.gap(dropped),
        Voice::Audio => |dropped| Voice::Audio.gap(dropped),
    });
    let client = Arc::new(Client::new(outbox));
    let _joined = Joined::new(hub, identity.tenant, client.clone());
    let mut shell = Shell {
        hub,
        address,
        viewer: Viewer::new(config, identity, voice, Mono::now(), Wall::now()),
        voice,
        client: client.clone(),
        place: None,
    };
    let reader = async {
        shell.begin(sight).await;
        shell.read(&mut stream).await;
    };
    let alive = carry(config, &client, &mut sink, reader).await;
    if alive && let Ok(mut ws) = sink.reunite(stream) {
        linger(ws.get_mut(), config.close_wait).await;
    }
}

struct Shell<'a> {
    hub: &'a Arc<Inner>,
    address: IpAddr,
    viewer: Viewer,
    voice: Voice,
    client: Arc<Client>,
    place: Option<Place>,
}

impl Shell<'_> {
    /// Lets the client see what it came for, or ends its socket.
    async fn begin(&mut self, sight: Sight) {
        let row = match sight.call_id() {
            None => None,
            Some(id) => match self.find(id).await {
                Ok(row) => Some(row),
                Err(fault) => return self.refuse(&fault),
            },
        };
        let call = row.as_ref().map(|row| row.call_id);
        match sight {
            Sight::Events(settings) => {
                let watch = call.map_or(Watch::Tenant, Watch::Call);
                self.client.watch(watch, Dress::CallEvents);
                let last = match settings.last_event_id {
                    Some(after) => self.replay(row, after).await,
                    None => Ok(None),
                };
                match last {
                    Ok(last) => self.client.outbox.release(last, &HashMap::new()),
                    Err(fault) => self.refuse(&fault),
                }
            }
            Sight::Audio(settings) => {
                self.client.outbox.release(None, &HashMap::new());
                self.answer(settings.connected());
                let (deps, tenant) = (&self.hub.deps, self.viewer.identity().tenant);
                let audience = &self.hub.audience;
                self.place = Some(audience.join(deps, tenant, call, settings, self.client.clone()));
            }
        }
    }

    fn refuse(&mut self, fault: &Fault) {
        let (code, close) = match fault.kind {
            Kind::NotFound => ("not_found", Close::new(4404, "call not found")),
            _ => ("unavailable", Close::new(1013, "try again later")),
        };
        self.answer(self.voice.error(code, &fault.message));
        self.viewer.close(close);
    }

    async fn find(&self, id: &str) -> Result<CallRow, Fault> {
        let tenant = self.viewer.identity().tenant;
        Ok(self.hub.deps.control.call(tenant, id).await?.row)
    }

    /// Sends the events after `after` and returns the id of the last.
    async fn replay(&self, row: Option<CallRow>, after: i64) -> Result<Option<i64>, Fault> {
        let tenant = self.viewer.identity().tenant;
        let call = row.as_ref().map(|row| row.call_id);
        let mut faces: HashMap<CallId, Face> = row.iter().map(|row| (row.call_id, Face::of(row))).collect();
        let (mut after, mut last) = (after.max(0), None);
        loop {
            let rows = self.hub.deps.store.events(tenant, call, after, PAGE).await?;
            for row in &rows {
                (after, last) = (row.id, Some(row.id));
                let face = match faces.entry(row.call_id) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => match self.find(row.call_id.as_str()).await {
                        Ok(row) => new.insert(Face::of(&row)),
                        Err(_) => continue,
                    },
                };
                call_events::replayed(face, row)
                    .into_iter()
                    .for_each(|text| self.answer(text));
            }
            if rows.len() < PAGE || self.client.outbox.is_closing() {
                return Ok(last);
            }
            self.client.outbox.room().await;
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

    /// Reads to the end of the socket.
    async fn read<S>(&mut self, stream: &mut SplitStream<WebSocketStream<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            self.perform();
            let wait = self.viewer.deadline().since(Mono::now());
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
                () = sleep(wait) => self.viewer.tick(Mono::now()),
            }
        }
    }

    fn take(&mut self, message: &Message) {
        let now = Mono::now();
        match message {
            Message::Text(text) => {
                let within = self.hub.tenant_messages.take(self.viewer.identity().tenant, now);
                self.viewer.text(text, within, now);
            }
            Message::Binary(_) => self.viewer.binary(),
            Message::Ping(_) => self.viewer.control_frame(false, now),
            Message::Pong(_) => self.viewer.control_frame(true, now),
            Message::Close(_) | Message::Frame(_) => {}
        }
    }

    fn perform(&mut self) {
        while let Some(output) = self.viewer.poll() {
            match output {
                Output::Send(text) => self.answer(text),
                Output::Ping => self.client.outbox.ping(),
                Output::Close(close) => {
                    metrics::refused("frontend", close.word());
                    self.client.watch(Watch::Nothing, Dress::CallEvents);
                    self.place = None;
                    self.client.outbox.close(close);
                }
                Output::Refresh(token) => {
                    let (now, wall) = (Mono::now(), Wall::now());
                    let credential = Some(Credential::Token(&token));
                    let known = self.hub.deps.access.identify(credential, self.address, now, wall);
                    self.viewer.refreshed(known.ok(), now, wall);
                }
            }
        }
    }
}
