//! Simulated incoming calls to this very daemon: `POST /api/calls/simulate` and the console's test panel.
//!
//! The call is announced to the control plane for the tenant that asked; from there on it is a caller like any other, on a real
//! media socket over loopback.

use super::{
    address::Address,
    announce,
    caller::{self, Opening, Plan},
    script::Manner,
    voice,
};
use crate::{
    audio::tone::Sine,
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
    },
    control::Control,
    http::{Simulate, SimulateRequest},
    speech::Speech,
    store::{BoxFuture, CallRow},
    vendor::{self, Answer, CallNews, CallUpdate, Descriptor, EndReason, VENDORS},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Simulated calls at once.
const MOST: usize = 16;
/// Characters that a simulated caller may say.
const MOST_TEXT: usize = 1000;
/// The caller hangs up after this much silence from both sides: long enough for a person to type an answer.
const LINGER: Duration = Duration::from_secs(60);
/// The caller hangs up after this time whatever happens.
const LIMIT: Duration = Duration::from_secs(600);
/// The called number where none is given.
const CALLED: &str = "+15550000001";

/// Places simulated calls.
#[derive(Debug)]
pub struct Simulator {
    inner: Arc<Inner>,
}

struct Inner {
    control: Control,
    speech: Speech,
    daemon: Address,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator")
            .field("daemon", &self.daemon)
            .finish_non_exhaustive()
    }
}

impl Simulator {
    /// A simulator that calls the daemon at `listen`, without TLS.
    pub fn new(control: Control, speech: Speech, listen: SocketAddr) -> Self {
        Self {
            inner: Arc::new(Inner {
                control,
                speech,
                daemon: Address::local(listen),
                slots: Arc::new(Semaphore::new(MOST)),
            }),
        }
    }
}

impl Simulate for Simulator {
    fn simulate(&self, tenant: TenantId, request: SimulateRequest) -> BoxFuture<'_, Result<CallRow, Fault>> {
        Box::pin(self.inner.clone().place(tenant, request))
    }
}

impl Inner {
    async fn place(self: Arc<Self>, tenant: TenantId, request: SimulateRequest) -> Result<CallRow, Fault> {
        let vendor = match &request.vendor {
            Some(name) => vendor::by_name(name).ok_or_else(|| invalid("no such vendor"))?,
            None => VENDORS[0],
        };
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| {
            Fault::client(
                Kind::TooMany,
                format!("{MOST} simulated calls are live already; wait for one to end"),
            )
        })?;
        let text = request.text.filter(|t| !t.trim().is_empty());
        if text.as_ref().is_some_and(|t| t.chars().count() > MOST_TEXT) {
            return Err(invalid("text is longer than 1000 characters"));
        }
        let rate = Plan::rate(vendor);
        let samples = match text {
            Some(text) => voice::speak(&self.speech, text, rate).await?,
            None => ring(rate),
        };
        let update = CallUpdate {
            why: None,
            call_sid: announce::new_call_sid(),
            from: request.from.unwrap_or_else(announce::new_number),
            to: request.to.unwrap_or_else(|| CALLED.to_owned()),
            inbound: true,
            news: CallNews::Ringing,
            dedup_key: String::new(),
            duration_s: None,
        };
        self.start(tenant, vendor, update, samples, slot).await
    }

    async fn start(
        self: Arc<Self>,
        tenant: TenantId,
        vendor: &'static Descriptor,
        mut update: CallUpdate,
        samples: Vec<i16>,
        slot: OwnedSemaphorePermit,
    ) -> Result<CallRow, Fault> {
        update.dedup_key = format!("{}:simulated", update.call_sid);
        let gone = CallUpdate {
            news: CallNews::Ended(EndReason::Canceled),
            dedup_key: format!("{}:gone", update.call_sid),
            ..update.clone()
        };
        let (call_sid, from, to) = (update.call_sid.clone(), update.from.clone(), update.to.clone());
        let unavailable = |what: &'static str| Fault::new(Origin::Us, Kind::Unavailable, what);
        let (url, token) = match self.control.announce_simulated(tenant, vendor, update).await? {
            Answer::Stream { url, token, .. } => (url, token),
            Answer::Busy => return Err(unavailable("no more calls are taken now")),
            Answer::HangUp => return Err(unavailable("the call was not taken")),
        };
        // Its account may be the number's own.
        let trunk = self.control.awaited(&token).and_then(|(_, trunk)| trunk);
        let plan = Plan {
            vendor,
            daemon: self.daemon.clone(),
            opening: Opening::Announced {
                call_sid: call_sid.clone(),
                token,
                account: trunk.as_ref().and_then(|t| t.account().map(str::to_owned)),
                signature: trunk.map_or_else(Vec::new, |t| t.sign_upgrade(&url)),
                url,
            },
            from,
            to,
            samples,
            manner: Manner::Polite,
            format: None,
            faults: Vec::new(),
            linger: LINGER,
            limit: LIMIT,
        };
        let row = self.control.call(tenant, &call_sid).await?.row;
        tokio::spawn(async move {
            let (progress, _unwatched) = mpsc::channel(1);
            if let Err(error) = caller::place(plan, &progress).await {
                tracing::warn!(%error, "a simulated call failed");
                // No stream will come: its caller has hung up.
                let _ = self.control.update(vendor, gone).await;
            }
            drop(slot);
        });
        Ok(row)
    }
}

fn invalid(message: &'static str) -> Fault {
    Fault::client(Kind::Invalid, message)
}

/// What a caller without words sends: two seconds of a ringing tone.
fn ring(rate: u32) -> Vec<i16> {
    let mut tone = Sine::new(rate, 425.0, 4000.0);
    let mut samples = vec![0; rate as usize * 2];
    tone.fill(&mut samples);
    samples
}
