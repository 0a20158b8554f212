//! How calls begin: announced by a vendor's webhook, placed by us, or (where that is allowed) by a stream that nobody announced.

use super::{
    DialRequest, Shared,
    admission::Refusal,
    call::{Call, Terms, session_id},
    cdr::Facts,
    directory::{Entered, Entry},
    rest,
    talk::{Command, Dial, Inbox, Talk, refuse_leg},
    watch::watch_over,
};
use crate::{
    agent::Profile,
    base::{
        fault::{Fault, Kind, Origin},
        ids::{CallId, TenantId},
        time::{Mono, Wall},
    },
    media::Arrival,
    metrics,
    store::{CallRow, CallStatus},
    vendor::{self, Answer, CallAction, CallUpdate, Descriptor, HookKind, Trunk},
};
use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::sync::mpsc;
use tracing::{Instrument, debug, info_span, warn};

/// Commands that may wait for a call's task.
const COMMANDS: usize = 256;
/// Pieces of a frontend's audio that may wait for it.
const MICROPHONE: usize = 64;
/// New calls are refused once this part of the store's queue is taken.
const STORE_BUSY: f64 = 0.8;

/// What became of an announcement.
pub(super) enum Begun {
    /// The call is here.
    Entry(Arc<Entry>),
    /// There is no room for it.
    Busy,
    /// Nobody has that number, or the call is over.
    Nobody,
}

/// What a call begins with.
struct Seed {
    tenant: TenantId,
    vendor: &'static Descriptor,
    inbound: bool,
    call_sid: Option<String>,
    customer: String,
    ours: String,
    profile: Arc<Profile>,
    facts: Facts,
}

impl Shared {
    /// The call that a vendor's news is about, if it is here.
    pub(super) fn known(&self, vendor: &'static Descriptor, update: &CallUpdate) -> Option<Arc<Entry>> {
        let by_sid = self.directory.by_sid(vendor.name, &update.call_sid);
        let unnamed = || self.directory.unnamed(vendor.name, &update.from, &update.to);
        by_sid.or_else(|| (!update.inbound).then(unnamed).flatten())
    }

    /// The announced call: known, or begun now.
    pub(super) fn find_or_begin(
        self: &Arc<Self>,
        vendor: &'static Descriptor,
        update: &CallUpdate,
        simulated_for: Option<TenantId>,
    ) -> Result<Begun, Fault> {
        if !is_sid(&update.call_sid) {
            return Err(Fault::client(
                Kind::Malformed,
                "the call's id is empty, too long or not printable ASCII",
            ));
        }
        if let Some(entry) = self.known(vendor, update) {
            return Ok(Begun::Entry(entry));
        }
        if self.directory.has_ended(vendor.name, &update.call_sid) {
            return Ok(Begun::Nobody);
        }
        let Some((tenant, profile)) = self
            .served_by(vendor, &update.to, simulated_for)
            .filter(|_| update.inbound)
        else {
            metrics::refused(
                "call",
                if update.inbound {
                    "unknown_number"
                } else {
                    "unknown_call"
                },
            );
            return Ok(Begun::Nobody);
        };
        let facts = Facts {
            simulated: simulated_for.is_some(),
            ..Facts::default()
        };
        let seed = Seed {
            tenant,
            vendor,
            inbound: true,
            call_sid: Some(update.call_sid.clone()),
            customer: update.from.clone(),
            ours: update.to.clone(),
            profile,
            facts,
        };
        Ok(match self.begin(seed, None) {
            Ok(entry) => Begun::Entry(entry),
            Err(_) => Begun::Busy,
        })
    }

    /// Whose number it is, and which agent serves it.
    fn served_by(
        &self,
        vendor: &Descriptor,
        number: &str,
        tenant: Option<TenantId>,
    ) -> Option<(TenantId, Arc<Profile>)> {
        let config = &self.deps.config;
        let known = config
            .number(vendor.name, number)
            .filter(|n| tenant.is_none_or(|t| t == n.tenant));
        let agent = known.and_then(|n| n.agent.as_deref()).unwrap_or(&config.default_agent);
        let anyone = config.accept_unannounced.then_some(config.default_tenant);
        let tenant = tenant.or(known.map(|n| n.tenant)).or(anyone)?;
        Some((tenant, self.deps.agents.get(agent)?.clone()))
    }

    /// Places a call; its task asks the vendor once the record exists.
    pub(super) fn place(self: &Arc<Self>, tenant: TenantId, request: &DialRequest) -> Result<Arc<Entry>, Fault> {
        let config = &self.deps.config;
        let mut ours = config.numbers.iter().filter(|n| n.tenant == tenant);
        let number = ours
            .find(|n| {
                let of_vendor = request.vendor.as_ref().is_none_or(|v| *v == n.vendor);
                of_vendor && (request.from.is_empty() || request.from == n.number)
            })
            .ok_or_else(|| Fault::client(Kind::Invalid, "from is not one of your numbers with this vendor"))?;
        let vendor = vendor::by_name(&number.vendor)
            .ok_or_else(|| Fault::client(Kind::Invalid, format!("no vendor {:?}", number.vendor)))?;
        let can_dial = self.deps.trunks.get(vendor.name).is_some_and(|t| t.can_dial());
        if !can_dial {
            let message = format!(
                "calls cannot be placed: {}'s REST credentials are not configured",
                vendor.name
            );
            return Err(Fault::client(Kind::Conflict, message));
        }
        let agent = request
            .agent
            .as_ref()
            .or(number.agent.as_ref())
            .unwrap_or(&config.default_agent);
        let profile = self.deps.agents.get(agent);
        let profile = profile.ok_or_else(|| Fault::client(Kind::Invalid, format!("no agent {agent:?}")))?;
        let seed = Seed {
            tenant,
            vendor,
            inbound: false,
            call_sid: None,
            customer: request.to.clone(),
            ours: number.number.clone(),
            profile: profile.clone(),
            facts: Facts::default(),
        };
        self.begin(seed, Some(config.ring_timeout))
            .map_err(|refusal| match refusal {
                Refusal::Draining | Refusal::StorageBehind | Refusal::Strained(_) => Fault::new(
                    Origin::Us,
                    Kind::Unavailable,
                    "no new calls are taken now: try again in a moment",
                ),
                _ => Fault::client(Kind::TooMany, "too many calls: try again when one has ended"),
            })
    }

    /// Begins a call, unless the vendor's call is here already. `ring` is how long a call of ours may ring.
    fn begin(self: &Arc<Self>, seed: Seed, ring: Option<Duration>) -> Result<Arc<Entry>, Refusal> {
        let now = self.clock.now();
        let row = new_row(now.wall, &seed);
        let (commands_tx, commands) = mpsc::channel(COMMANDS);
        let (microphone_tx, microphone) = mpsc::channel(MICROPHONE);
        let entry = Arc::new(Entry {
            call: row.call_id,
            tenant: seed.tenant,
            vendor: seed.vendor,
            parties: (seed.ours.clone(), seed.customer.clone()),
            inbound: seed.inbound,
            commands: commands_tx,
            microphone: microphone_tx,
            shown: Mutex::default(),
            leg: Mutex::default(),
        });
        let entered = match self.store_keeps_up() {
            true => self.directory.enter(now.mono, &entry, seed.call_sid.as_deref()),
            false => Entered::Refused(Refusal::StorageBehind),
        };
        match entered {
            Entered::New => {}
            Entered::Known(known) => return Ok(known),
            Entered::Refused(refusal) => {
                metrics::refused("call", refusal.as_str());
                return Err(refusal);
            }
        }
        let direction = if seed.inbound { "inbound" } else { "outbound" };
        metrics::counter(
            metrics::calls_total,
            &[("vendor", seed.vendor.name), ("direction", direction)],
        )
        .increment(1);
        let life = self.deps.config.stream_timeout + ring.unwrap_or_default();
        self.await_stream(now.mono, &entry, seed.call_sid.clone(), ring.unwrap_or_default());
        self.warm(&seed.profile);
        let dial = ring.map(|ring| Dial {
            to: seed.customer.clone(),
            from: seed.ours.clone(),
            answer_url: self.hook_url(seed.vendor, HookKind::Call),
            status_url: self.hook_url(seed.vendor, HookKind::Status),
            ring,
        });
        // Of a call that the vendor does not carry, it is told nothing. Without credentials nothing can be told, which ends
        // a call that wants a command, unless its stream may come by itself.
        let carried = !seed.facts.simulated && !seed.facts.unannounced;
        let told = |t: &&Arc<dyn Trunk>| carried && (t.can_dial() || !self.deps.config.accept_unannounced);
        let trunk = self.deps.trunks.get(seed.vendor.name).filter(told);
        let handling = trunk.map(|t| t.handling()).unwrap_or_default();
        let terms = Terms {
            vendor: seed.vendor.name,
            error_code: seed.vendor.error_code,
            rest: self.ends_calls(seed.vendor),
            handling,
            close_ends_call: seed.vendor.caps.close_ends_call,
            stream_within: life,
            max_length: self.deps.config.max_length,
        };
        let span = info_span!("call", id = %row.call_id, session = row.session_id);
        let call = Call::new(now, row, terms, seed.facts);
        let talk = Talk::new(
            self.clone(),
            entry.clone(),
            Inbox { commands, microphone },
            call,
            seed.profile,
            dial,
        );
        tokio::spawn(watch_over(self.clone(), entry.clone(), talk).instrument(span));
        Ok(entry)
    }

    /// Lets one media stream of a call in, for the time that a call which rings for `ring` waits for it.
    pub(super) fn await_stream(&self, now: Mono, entry: &Entry, call_sid: Option<String>, ring: Duration) {
        let life = self.deps.config.stream_timeout + ring;
        self.pending
            .await_stream(now, entry.call, entry.vendor.name, call_sid, life);
    }

    /// Gets speech ready while the phone still rings, on the first lane: on which the stream will land is not known yet.
    fn warm(&self, profile: &Profile) {
        let (ear, mouth) = (profile.ear(), profile.mouth());
        if ear.is_some() || mouth.is_some() {
            self.deps.speech.warm(0, ear.as_ref(), mouth.as_ref());
        }
    }

    fn store_keeps_up(&self) -> bool {
        let health = self.deps.store.health();
        (health.queued as f64) < health.capacity as f64 * STORE_BUSY
    }

    /// How the vendor is told to connect the call to us.
    pub(super) fn stream_answer(&self, entry: &Entry) -> Answer {
        let token = self.pending.token(entry.call);
        let url = format!("{}{}", self.deps.config.stream_base(), entry.vendor.stream_path);
        let session_id = entry.show().map(|call| call.row.session_id);
        Answer::Stream {
            url: entry.vendor.token_in.url(&url, &token),
            token,
            status_url: self.hook_url(entry.vendor, HookKind::Status),
            session_id: session_id.unwrap_or_else(|| entry.call.to_string()),
        }
    }

    /// Whether the vendor ends calls when its REST interface is asked to.
    fn ends_calls(&self, vendor: &Descriptor) -> bool {
        let ends = |t: &Arc<dyn Trunk>| t.can_dial() && t.request("call", &CallAction::HangUp).is_some();
        self.deps.trunks.get(vendor.name).is_some_and(ends)
    }

    /// Tells a vendor that takes commands that a call is not for us. Nobody waits for it.
    pub(super) fn reject(&self, vendor: &'static Descriptor, call_sid: &str, busy: bool) {
        let commanded = |t: &&Arc<dyn Trunk>| t.can_dial() && t.handling().by_command;
        let trunk = self.deps.trunks.get(vendor.name).filter(commanded);
        let action = CallAction::Reject { busy };
        let Some((trunk, request)) = trunk.and_then(|t| Some((t.clone(), t.request(call_sid, &action)?))) else {
            return;
        };
        let Ok(slot) = self.rejections.clone().try_acquire_owned() else {
            return metrics::dropped("rejection", "too_many", 1);
        };
        let http = self.deps.http.clone();
        tokio::spawn(async move {
            let reply = rest::send(&http, request, trunk.handling().repeatable).await;
            if let Err(fault) = reply.and_then(|r| trunk.reply(&action, r.status, &r.body)) {
                warn!(vendor = vendor.name, %fault, "a call that is not for us was not rejected");
            }
            drop(slot);
        });
    }

    fn hook_url(&self, vendor: &Descriptor, kind: HookKind) -> String {
        let hook = vendor.hook(kind);
        hook.map_or_else(String::new, |h| format!("{}{}", self.deps.config.public_url, h.path))
    }

    fn arrive(self: &Arc<Self>, arrival: Arrival) {
        match self.called_by(&arrival) {
            Ok(entry) => {
                let undelivered = entry.commands.try_send(Command::Arrival(Box::new(arrival)));
                if let Err(e) = undelivered
                    && let Command::Arrival(arrival) = e.into_inner()
                {
                    refuse_leg(arrival.leg, 1013, "the call is busy or over", "call_busy");
                }
            }
            Err((code, reason, why)) => {
                debug!(vendor = arrival.vendor.name, connection = %arrival.connection, why, "media stream refused");
                refuse_leg(arrival.leg, code, reason, why);
            }
        }
    }

    /// The call that a stream belongs to.
    fn called_by(self: &Arc<Self>, arrival: &Arrival) -> Result<Arc<Entry>, (u16, &'static str, &'static str)> {
        let (vendor, start) = (arrival.vendor, &arrival.start);
        if !is_sid(&start.call_sid) {
            return Err((1008, "start names no call", "no_call_id"));
        }
        let now = self.clock.now().mono;
        if !self.is_of_our_account(vendor, start.account.as_deref()) {
            return Err((1008, "the stream is of another account", "account"));
        }
        if let (Some(in_path), Some(in_start)) = (&arrival.path_token, &start.token)
            && in_path != in_start
        {
            return Err((1008, "the stream's two tokens differ", "bad_token"));
        }
        match arrival.path_token.as_deref().or(start.token.as_deref()) {
            Some(token) => {
                let taken = self.pending.take(now, token, vendor.name, &start.call_sid);
                let entry = taken.ok().and_then(|call| self.directory.get(call));
                entry.ok_or((1008, "the stream's token is unknown or used", "bad_token"))
            }
            None if arrival.proven || self.deps.config.accept_unannounced => self.unannounced(arrival),
            None => Err((1008, "the stream has no token", "no_token")),
        }
    }

    /// Whether the account that a stream names, if it names one, is the configured one, if one is. Where any stream is
    /// taken, that of any account is.
    fn is_of_our_account(&self, vendor: &Descriptor, named: Option<&str>) -> bool {
        let ours = self.deps.trunks.get(vendor.name).and_then(|t| t.account());
        self.deps.config.accept_unannounced || ours.zip(named).is_none_or(|(ours, named)| ours == named)
    }

    fn unannounced(self: &Arc<Self>, arrival: &Arrival) -> Result<Arc<Entry>, (u16, &'static str, &'static str)> {
        let (vendor, start) = (arrival.vendor, &arrival.start);
        if let Some(entry) = self.directory.by_sid(vendor.name, &start.call_sid) {
            self.pending.revoke(entry.call);
            return Ok(entry);
        }
        let ours = start.to.clone().unwrap_or_default();
        let (tenant, profile) =
            self.served_by(vendor, &ours, None)
                .ok_or((1008, "nobody has that number", "unknown_number"))?;
        let seed = Seed {
            tenant,
            vendor,
            inbound: true,
            call_sid: Some(start.call_sid.clone()),
            customer: start.from.clone().unwrap_or_else(|| "anonymous".to_owned()),
            ours,
            profile,
            facts: Facts {
                unannounced: true,
                ..Facts::default()
            },
        };
        let entry = self
            .begin(seed, None)
            .map_err(|r| (1013, "no room for another call", r.as_str()))?;
        self.pending.revoke(entry.call);
        Ok(entry)
    }
}

/// Takes the legs that begin, for as long as the control plane lives.
pub(super) async fn take_arrivals(shared: Weak<Shared>, mut inbox: mpsc::Receiver<Arrival>) {
    while let Some(arrival) = inbox.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        shared.arrive(arrival);
    }
}

/// Whether a vendor's id of a call can be one: it becomes a key, a file name and a log field.
fn is_sid(sid: &str) -> bool {
    (1..=200).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_graphic()) && !sid.starts_with("pending:")
}

fn new_row(now: Wall, seed: &Seed) -> CallRow {
    let call_id = CallId::new();
    let session_id = seed.call_sid.as_ref().map(|sid| session_id(sid, call_id));
    CallRow {
        call_id,
        call_sid: seed.call_sid.clone().unwrap_or_else(|| format!("pending:{call_id}")),
        session_id: session_id.unwrap_or_else(|| call_id.to_string()),
        vendor: seed.vendor.name.to_owned(),
        inbound: seed.inbound,
        customer_number: seed.customer.clone(),
        organization_number: seed.ours.clone(),
        status: if seed.inbound {
            CallStatus::Incoming
        } else {
            CallStatus::Initiated
        },
        end_reason: None,
        start_time: now,
        answered_at: None,
        end_time: None,
        duration: None,
        tenant_id: seed.tenant,
        agent: seed.profile.name.clone(),
        recording: None,
        metadata: serde_json::Value::Null,
    }
}
