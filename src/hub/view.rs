//! The shell of a client of `/call-events` or `/frontend-audio`: what it came to see, and what its viewer's effects mean.

use super::{
    Inner,
    audio_messages::AudioSettings,
    call_events::{self, EventSettings, Face},
    fanout::{Dress, Watch},
    listening::Place,
    outbox::{Close, Outbox},
    pump::{self, Desk, Input, Shell},
    viewer::{Output, Viewer, Voice},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind, Origin},
        ids::CallId,
        time::{Mono, Wall},
    },
    store::CallRow,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};
use tokio::io::{AsyncRead, AsyncWrite};

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
    let outbox = Outbox::new(config.queue_bytes, config.queue_messages).telling_gaps_by(match voice {
        Voice::Events => |dropped| Voice::Events.gap(dropped),
        Voice::Audio => |dropped| Voice::Audio.gap(dropped),
    });
    let tenant = identity.tenant;
    let viewer = Viewer::new(config, identity, voice, Mono::now(), Wall::now());
    let shell = |desk| Watcher {
        desk,
        viewer,
        voice,
        sight: Some(sight),
        place: None,
    };
    pump::serve(hub, io, address, tenant, outbox, shell).await;
}

struct Watcher<'a> {
    desk: Desk<'a>,
    viewer: Viewer,
    voice: Voice,
    /// What it came to see, until it sees it.
    sight: Option<Sight>,
    place: Option<Place>,
}

impl Shell for Watcher<'_> {
    async fn begin(&mut self) {
        if let Some(sight) = self.sight.take()
            && let Err(fault) = self.show(sight).await
        {
            self.refuse(&fault);
        }
    }

    async fn perform(&mut self) {
        while let Some(output) = self.viewer.poll() {
            match output {
                Output::Send(text) => self.desk.answer(text),
                Output::Ping => self.desk.client.outbox.ping(),
                Output::Close(close) => {
                    self.place = None;
                    self.desk.close(close);
                }
                Output::Refresh(token) => {
                    let (now, wall) = (Mono::now(), Wall::now());
                    let identity = self.desk.identify(&token, now, wall).await;
                    self.viewer.refreshed(identity, now, wall);
                }
            }
        }
    }

    fn identity(&self) -> &Identity {
        self.viewer.identity()
    }

    fn deadline(&self) -> Mono {
        self.viewer.deadline()
    }

    fn take(&mut self, input: Input<'_>, now: Mono) {
        match input {
            Input::Text { text, within } => self.viewer.text(text, within, now),
            Input::Binary => self.viewer.binary(),
            Input::Control { pong } => self.viewer.control_frame(pong, now),
            Input::Silence => self.viewer.tick(now),
        }
    }
}

impl Watcher<'_> {
    /// Lets the client see what it came for.
    async fn show(&mut self, sight: Sight) -> Result<(), Fault> {
        let row = match sight.call_id() {
            None => None,
            Some(id) => Some(self.desk.find(id).await?),
        };
        let call = row.as_ref().map(|row| row.call_id);
        let client = &self.desk.client;
        match sight {
            Sight::Events(settings) => {
                client.watch(call.map_or(Watch::Tenant, Watch::Call), Dress::CallEvents);
                let last = match settings.last_event_id {
                    Some(after) => self.replay(row, after).await?,
                    None => None,
                };
                client.outbox.release(last, &HashMap::new());
            }
            Sight::Audio(settings) => {
                let control = &self.desk.hub.deps.control;
                if row.is_some_and(|row| control.is_elsewhere(&row)) {
                    let message = "the call's audio is on another node: connect again to reach it";
                    return Err(Fault::new(Origin::Us, Kind::Unavailable, message));
                }
                client.outbox.release(None, &HashMap::new());
                self.desk.answer(settings.connected());
                let (deps, audience) = (&self.desk.hub.deps, &self.desk.hub.audience);
                let place = audience.join(deps, self.desk.tenant(), call, settings, client.clone());
                self.place = Some(place);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, fault: &Fault) {
        let (code, close) = match fault.kind {
            Kind::NotFound => ("not_found", Close::new(4404, "call not found")),
            _ => ("unavailable", Close::new(1013, "try again later")),
        };
        self.desk.answer(self.voice.error(code, &fault.message));
        self.viewer.close(close);
    }

    /// Sends the events after `after` and returns the id of the last.
    async fn replay(&self, row: Option<CallRow>, after: i64) -> Result<Option<i64>, Fault> {
        let call = row.as_ref().map(|row| row.call_id);
        let mut faces: HashMap<CallId, Face> = row.iter().map(|row| (row.call_id, Face::of(row))).collect();
        let mut pages = self.desk.events(call, after.max(0));
        while let Some(rows) = pages.next().await? {
            for row in &rows {
                let face = match faces.entry(row.call_id) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => match self.desk.find(row.call_id.as_str()).await {
                        Ok(row) => new.insert(Face::of(&row)),
                        Err(_) => continue,
                    },
                };
                let told = call_events::replayed(face, row);
                told.into_iter().for_each(|text| self.desk.answer(text));
            }
        }
        Ok(pages.last)
    }
}
