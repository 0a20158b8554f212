//! How calls begin: announced by a vendor's webhook, placed by us (`place`), or (where that is allowed) by a stream that nobody announced.

use super::{
    Shared,
    admission::Refusal,
    call::{Call, Terms, session_id},
    cdr::Facts,
    directory::{Carrier, Entered, Entry, Whose},
    rest,
    roster::Line,
    talk::{Command, Dial, Inbox, Talk, refuse_leg},
    watch::watch_over,
};
use crate::{
    agent::Profile,
    base::{
        fault::{Fault, Kind},
        ids::{CallId, TenantId},
        phone::e164,
        time::{Mono, Wall},
    },
    media::Arrival,
    metrics,
    speech::EarSpec,
    store::{CallRow, CallStatus},
    vendor::{Answer, CallAction, CallUpdate, Descriptor, HookKind, NUMBER_HOOK, NUMBER_STREAM, Trunk},
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

/// Whose a call is.
pub(super) struct Served {
    pub(super) tenant: TenantId,
    pub(super) profile: Arc<Profile>,
    /// Our number, if somebody has it.
    pub(super) line: Option<Arc<Line>>,
    /// The account, where it is not as configured.
    pub(super) trunk: Option<Arc<dyn Trunk>>,
}

impl Served {
    /// Our number as the record shall have it.
    fn called(&self, dialled: &str) -> String {
        let ours = self.line.as_ref().map(|l| l.row.number.as_str());
        ours.unwrap_or(dialled).to_owned()
    }
}

/// A call's place among those of this node.
pub(super) enum Seated {
    /// It is in, and this is what its task listens to.
    New(Arc<Entry>, Inbox),
    /// The vendor's call was in already.
    Known(Arc<Entry>),
}

/// Why nobody serves a call.
#[derive(Clone, Copy)]
enum NotServed {
    /// Nobody has the number.
    NoNumber,
    /// It takes no calls now.
    Inactive,
}

impl NotServed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NoNumber => "unknown_number",
            Self::Inactive => "inactive_number",
        }
    }

    const fn begun(self) -> Begun {
        match self {
            Self::NoNumber => Begun::Nobody,
            Self::Inactive => Begun::Busy,
        }
    }
}

/// What a call begins with.
pub(super) struct Seed {
    pub(super) vendor: &'static Descriptor,
    pub(super) inbound: bool,
    pub(super) call_sid: Option<String>,
    pub(super) customer: String,
    pub(super) ours: String,
    pub(super) served: Served,
    pub(super) facts: Facts,
}

impl Shared {
    /// The call that a vendor's news is about, if it is here and of those that who came this way may speak of.
    pub(super) fn known(
        &self,
        vendor: &'static Descriptor,
        update: &CallUpdate,
        line: Option<&Line>,
    ) -> Option<Arc<Entry>> {
        let ours = if update.inbound { &update.to } else { &update.from };
        let unnamed = || self.directory.unnamed(vendor.name, &update.from, &update.to);
        let unnamed = || unnamed().filter(|e| !update.inbound && self.speaks_for(line, e));
        self.named(vendor, &update.call_sid, ours, line).or_else(unnamed)
    }

    /// The call that a stream names, if it is here.
    pub(super) fn named_by(&self, arrival: &Arrival) -> Option<Arc<Entry>> {
        let line = arrival.number.as_deref().and_then(|id| self.roster.line(id));
        let dialled = arrival.start.to.as_deref().unwrap_or_default();
        self.named(arrival.vendor, &arrival.start.call_sid, dialled, line.as_deref())
    }

    /// The same by the vendor's id alone. Where calls of several tenants have it, that of the tenant who has the number.
    pub(super) fn named(
        &self,
        vendor: &'static Descriptor,
        call_sid: &str,
        ours: &str,
        line: Option<&Line>,
    ) -> Option<Arc<Entry>> {
        let mut named = self.directory.by_sid(vendor.name, call_sid);
        named.retain(|e| self.speaks_for(line, e));
        if named.len() > 1 {
            let whose = self.roster.called(vendor.name, ours).map(|l| l.row.tenant_id);
            named.retain(|e| Some(e.tenant) == whose);
        }
        named.pop()
    }

    /// Whether the vendor's call was here and is over, of those that who came this way may speak of.
    pub(super) fn has_ended(&self, vendor: &'static Descriptor, call_sid: &str, line: Option<&Line>) -> bool {
        let whose = line.map_or(Whose::Operator, |l| Whose::Tenant(l.row.tenant_id));
        self.directory.has_ended(whose, vendor.name, call_sid)
    }

    /// The announced call: known, or begun now. `line` is the number that was called, where the request's path said it.
    pub(super) fn find_or_begin(
        self: &Arc<Self>,
        vendor: &'static Descriptor,
        update: &CallUpdate,
        line: Option<Arc<Line>>,
        simulated_for: Option<TenantId>,
    ) -> Result<Begun, Fault> {
        if !is_sid(&update.call_sid) {
            return Err(Fault::client(
                Kind::Malformed,
                "the call's id is empty, too long or not printable ASCII",
            ));
        }
        if let Some(entry) = self.known(vendor, update, line.as_deref()) {
            return Ok(Begun::Entry(entry));
        }
        if self.has_ended(vendor, &update.call_sid, line.as_deref()) {
            return Ok(Begun::Nobody);
        }
        if !update.inbound {
            metrics::refused("call", "unknown_call");
            return Ok(Begun::Nobody);
        }
        let served = match self.served_by(vendor, &update.to, line.clone(), simulated_for) {
            Ok(served) => served,
            Err(why) => {
                metrics::refused("call", why.as_str());
                return Ok(why.begun());
            }
        };
        let facts = Facts {
            simulated: simulated_for.is_some(),
            ..Facts::default()
        };
        let seed = Seed {
            vendor,
            inbound: true,
            call_sid: Some(update.call_sid.clone()),
            customer: update.from.clone(),
            ours: served.called(&update.to),
            served,
            facts,
        };
        Ok(match self.begin(seed, None) {
            Ok(entry) if self.speaks_for(line.as_deref(), &entry) => Begun::Entry(entry),
            Ok(_) => Begun::Nobody,
            Err(_) => Begun::Busy,
        })
    }

    /// Whether who came this way may say anything of a call: at a number's path its own account, at the vendor's path the
    /// operator's. Neither proves anything of a call that another account carries.
    pub(super) fn speaks_for(&self, line: Option<&Line>, entry: &Entry) -> bool {
        if self.deps.config.dev {
            return line.is_none_or(|l| l.row.tenant_id == entry.tenant);
        }
        match line {
            None => !entry.carrier.own,
            Some(line) if line.has_own_account() => {
                entry.carrier.own && entry.carrier.via.as_deref() == Some(line.row.id.as_str())
            }
            Some(line) => !entry.carrier.own && line.row.tenant_id == entry.tenant,
        }
    }

    /// Whose the called number is, and which agent serves it: the number of the request's path, else the one that was
    /// dialled, else the default number of the vendor's account.
    fn served_by(
        &self,
        vendor: &'static Descriptor,
        number: &str,
        line: Option<Arc<Line>>,
        tenant: Option<TenantId>,
    ) -> Result<Served, NotServed> {
        let config = &self.deps.config;
        let default = || {
            self.roster
                .called(vendor.name, config.default_numbers.get(vendor.name)?)
        };
        // The operator's account with the vendor does not speak for numbers that have their own.
        let of_operator = |l: &Arc<Line>| config.dev || !l.has_own_account();
        let line = line
            .or_else(|| self.roster.called(vendor.name, number).filter(of_operator))
            .or_else(|| default().filter(of_operator))
            .filter(|l| tenant.is_none_or(|t| t == l.row.tenant_id));
        if line.as_ref().is_some_and(|l| !l.is_usable()) {
            return Err(NotServed::Inactive);
        }
        let anyone = config.accept_unannounced.then_some(config.default_tenant);
        let tenant = tenant.or(line.as_ref().map(|l| l.row.tenant_id)).or(anyone);
        let tenant = tenant.ok_or(NotServed::NoNumber)?;
        let profile = self.roster.answers(config, &self.deps.agents, tenant, line.as_deref());
        let profile = profile.map(|p| self.keyed(tenant, p));
        Ok(Served {
            tenant,
            profile: profile.ok_or(NotServed::NoNumber)?,
            line,
            trunk: None,
        })
    }

    /// Who carries the calls of a number: its own account, or the vendor's section.
    pub(super) fn account(&self, vendor: &Descriptor, line: Option<&Line>) -> Carrier {
        let own = line.and_then(|l| l.account.clone());
        Carrier {
            via: None,
            own: own.is_some(),
            trunk: own.or_else(|| self.deps.trunks.get(vendor.name).cloned()),
        }
    }

    /// The same for a call, with the paths that the vendor is told.
    fn carrier(&self, vendor: &Descriptor, line: Option<&Line>, call: CallId, ours: bool) -> Carrier {
        let carrier = match ours.then(|| self.dials(vendor, line)).flatten() {
            Some((carrier, _)) => carrier,
            None => self.account(vendor, line),
        };
        // A vendor without paths of its own is told the number's, and where nobody has the number, some.
        let via = || line.map_or_else(|| call.to_string(), |l| l.row.id.to_string());
        Carrier {
            via: (carrier.own || vendor.stream_path.is_empty()).then(via),
            ..carrier
        }
    }

    /// Begins a call, unless the vendor's call is here already. `ring` is how long a call of ours may ring.
    pub(super) fn begin(self: &Arc<Self>, seed: Seed, ring: Option<Duration>) -> Result<Arc<Entry>, Refusal> {
        let now = self.clock.now();
        let row = new_row(now.wall, &seed);
        let (entry, inbox) = match self.seat(seed.vendor, &seed.served, &row, seed.call_sid.as_deref())? {
            Seated::New(entry, inbox) => (entry, inbox),
            Seated::Known(known) => return Ok(known),
        };
        let direction = if seed.inbound { "inbound" } else { "outbound" };
        metrics::counter(
            metrics::calls_total,
            &[("vendor", seed.vendor.name), ("direction", direction)],
        )
        .increment(1);
        let life = self.deps.config.stream_timeout + ring.unwrap_or_default();
        self.await_stream(now.mono, &entry, seed.call_sid.clone(), ring.unwrap_or_default());
        self.warm(entry.tenant, &seed.served.profile, seed.vendor);
        let dial = ring.map(|ring| Dial {
            to: seed.customer.clone(),
            from: seed.ours.clone(),
            answer_url: self.hook_url(&entry, HookKind::Call),
            status_url: self.hook_url(&entry, HookKind::Status),
            ring,
        });
        let terms = self.terms(&entry, &seed.facts, life);
        let call = Call::new(now, row, terms, seed.facts);
        self.run(entry.clone(), inbox, call, seed.served.profile, dial);
        Ok(entry)
    }

    /// Finds a call a place among those of this node, unless the vendor's call is here already.
    pub(super) fn seat(
        &self,
        vendor: &'static Descriptor,
        served: &Served,
        row: &CallRow,
        call_sid: Option<&str>,
    ) -> Result<Seated, Refusal> {
        let (commands_tx, commands) = mpsc::channel(COMMANDS);
        let (microphone_tx, microphone) = mpsc::channel(MICROPHONE);
        let carrier = self.carrier(vendor, served.line.as_deref(), row.call_id, !row.inbound);
        let entry = Arc::new(Entry {
            call: row.call_id,
            tenant: served.tenant,
            vendor,
            parties: (row.organization_number.clone(), row.customer_number.clone()),
            inbound: row.inbound,
            carrier: Carrier {
                trunk: served.trunk.clone().or(carrier.trunk),
                ..carrier
            },
            commands: commands_tx,
            microphone: microphone_tx,
            shown: Mutex::default(),
            leg: Mutex::default(),
        });
        let (members, now) = (&self.deps.members, self.clock.now().mono);
        let entered = match (self.store_keeps_up(), members.is_active(served.tenant)) {
            (true, true) => self
                .directory
                .enter(now, &entry, call_sid, &members.limits(served.tenant)),
            (true, false) => Entered::Refused(Refusal::TenantDisabled),
            (false, _) => Entered::Refused(Refusal::StorageBehind),
        };
        match entered {
            Entered::New => Ok(Seated::New(entry, Inbox { commands, microphone })),
            Entered::Known(known) => Ok(Seated::Known(known)),
            Entered::Refused(refusal) => {
                metrics::refused("call", refusal.as_str());
                Err(refusal)
            }
        }
    }

    /// What the surroundings of a call allow.
    pub(super) fn terms(&self, entry: &Entry, facts: &Facts, stream_within: Duration) -> Terms {
        // Of a call that the vendor does not carry, it is told nothing; a call of ours is carried by whoever was asked for
        // it. Without credentials nothing can be told, which ends a call that wants a command, unless its stream may come
        // by itself.
        let carried = !entry.inbound || (!facts.simulated && !facts.unannounced);
        let told = |t: &&Arc<dyn Trunk>| carried && (t.can_dial() || !self.deps.config.accept_unannounced);
        let trunk = entry.carrier.trunk.as_ref().filter(told);
        Terms {
            vendor: entry.vendor.name,
            error_code: entry.vendor.error_code,
            rest: ends_calls(&entry.carrier),
            handling: trunk.map(|t| t.handling()).unwrap_or_default(),
            close_ends_call: entry.vendor.caps.close_ends_call,
            stream_within,
            media_grace: self.deps.config.media_grace,
            max_length: self.deps.config.max_length,
        }
    }

    /// Gives a call its task.
    pub(super) fn run(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        inbox: Inbox,
        call: Call,
        profile: Arc<Profile>,
        dial: Option<Dial>,
    ) {
        let row = call.row();
        let span = info_span!("call", id = %row.call_id, session = row.session_id);
        let talk = Talk::new(self.clone(), entry.clone(), inbox, call, profile, dial);
        tokio::spawn(watch_over(self.clone(), entry, Box::new(talk)).instrument(span));
    }

    /// Lets one media stream of a call in, for the time that a call which rings for `ring` waits for it.
    pub(super) fn await_stream(&self, now: Mono, entry: &Entry, call_sid: Option<String>, ring: Duration) {
        let life = self.deps.config.stream_timeout + ring;
        self.pending
            .await_stream(now, entry.call, entry.vendor.name, call_sid, life);
    }

    /// Gets speech ready while the phone still rings, on the first lane: on which the stream will land is not known yet.
    fn warm(&self, tenant: TenantId, profile: &Profile, vendor: &Descriptor) {
        let ear = profile
            .ear()
            .map(|spec| (EarSpec { tenant, ..spec }, vendor.caps.inbound));
        let mouth = profile.mouth();
        if let Some(spec) = profile.duplex() {
            self.deps.speech.warm_duplex(0, spec);
            return self.deps.speech.warm(0, None, mouth);
        }
        if ear.is_some() || mouth.is_some() {
            self.deps.speech.warm(0, ear, mouth);
        }
    }

    /// An agent with its tenant's keys behind its own.
    pub(super) fn keyed(&self, tenant: TenantId, profile: Arc<Profile>) -> Arc<Profile> {
        match self.deps.config.service_keys.get(&tenant.0) {
            None => profile,
            Some(keys) => Arc::new(Profile {
                keys: profile.keys.or(keys),
                ..(*profile).clone()
            }),
        }
    }

    fn store_keeps_up(&self) -> bool {
        self.deps.store.health().fill() < STORE_BUSY
    }

    /// How the vendor is told to connect the call to us.
    pub(super) fn stream_answer(&self, entry: &Entry) -> Answer {
        let token = self.pending.token(entry.call);
        let base = self.deps.config.stream_base();
        let url = match &entry.carrier.via {
            Some(id) => format!("{base}{NUMBER_STREAM}/{id}"),
            None => format!("{base}{}", entry.vendor.stream_path),
        };
        let session_id = entry.show().map(|call| call.row.session_id);
        Answer::Stream {
            url: entry.vendor.token_in.url(&url, &token),
            token,
            status_url: self.hook_url(entry, HookKind::Status),
            session_id: session_id.unwrap_or_else(|| entry.call.to_string()),
        }
    }

    /// How a vendor is told to connect a call that it did not name: its stream says which one it is.
    pub(super) fn open_answer(&self, vendor: &Descriptor) -> Answer {
        Answer::Stream {
            url: format!("{}{}", self.deps.config.stream_base(), vendor.stream_path),
            token: String::new(),
            status_url: String::new(),
            session_id: String::new(),
        }
    }

    /// Tells a vendor that takes commands that a call is not for us. Nobody waits for it.
    pub(super) fn reject(&self, vendor: &'static Descriptor, line: Option<&Line>, call_sid: &str, busy: bool) {
        let account = self.account(vendor, line);
        let commanded = |t: &Arc<dyn Trunk>| t.can_dial() && t.handling().by_command;
        let action = CallAction::Reject { busy };
        let trunk = account.trunk.filter(commanded);
        let Some((trunk, request)) = trunk.and_then(|t| t.request(call_sid, &action).map(|r| (t, r))) else {
            return;
        };
        let Ok(slot) = self.rejections.clone().try_acquire_owned() else {
            return metrics::dropped("rejection", "too_many", 1);
        };
        let http = self.deps.client(account.own).clone();
        tokio::spawn(async move {
            if let Err(fault) = rest::ask(&http, vendor, &*trunk, &action, request).await {
                warn!(vendor = vendor.name, %fault, "a call that is not for us was not rejected");
            }
            drop(slot);
        });
    }

    /// Where the vendor of a call posts this kind of webhook.
    fn hook_url(&self, entry: &Entry, kind: HookKind) -> String {
        let base = &self.deps.config.public_url;
        match (&entry.carrier.via, kind) {
            (Some(id), HookKind::Status) => format!("{base}{NUMBER_HOOK}/{id}/status"),
            (Some(id), _) => format!("{base}{NUMBER_HOOK}/{id}"),
            (None, kind) => {
                let hook = entry.vendor.hook(kind);
                hook.map_or_else(String::new, |h| format!("{base}{}", h.path))
            }
        }
    }

    fn arrive(self: &Arc<Self>, mut arrival: Arrival) {
        for number in [&mut arrival.start.from, &mut arrival.start.to] {
            *number = number.take().map(|n| e164(&n).into_owned());
        }
        if !self.may_be_elsewhere(&arrival) {
            return self.arrive_here(arrival);
        }
        let Ok(place) = self.claims.clone().try_acquire_owned() else {
            return refuse_leg(arrival.leg, 1013, "too many streams at once", "claims_busy");
        };
        let shared = self.clone();
        tokio::spawn(async move {
            match shared.claim(&arrival).await {
                Ok(Some(entry)) => deliver(&entry, arrival),
                Ok(None) => shared.arrive_here(arrival),
                Err(fault) => {
                    warn!(%fault, "a media stream's call is on another node and could not be moved here");
                    refuse_leg(arrival.leg, 1013, "the call is on another node", "not_given");
                }
            }
            drop(place);
        });
    }

    fn arrive_here(self: &Arc<Self>, arrival: Arrival) {
        match self.called_by(&arrival) {
            Ok(entry) => deliver(&entry, arrival),
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
        if !self.is_of_our_account(arrival) {
            return Err((1008, "the stream is of another account", "account"));
        }
        if let (Some(in_path), Some(in_start)) = (&arrival.path_token, &start.token)
            && in_path != in_start
        {
            return Err((1008, "the stream's two tokens differ", "bad_token"));
        }
        match arrival.path_token.as_deref().or(start.token.as_deref()) {
            Some(token) => {
                let taken = self.pending.take(now, token, vendor.name, start.names_call());
                let entry = taken.ok().and_then(|call| self.directory.get(call));
                entry.ok_or((1008, "the stream's token is unknown or used", "bad_token"))
            }
            None if arrival.proven || self.deps.config.accept_unannounced => self.unannounced(arrival),
            None => Err((1008, "the stream has no token", "no_token")),
        }
    }

    /// Whether the account that a stream names, if it names one, is that of its call or number, if there is one. Where
    /// any stream is taken, that of any account is.
    fn is_of_our_account(&self, arrival: &Arrival) -> bool {
        let token = arrival.path_token.as_deref().or(arrival.start.token.as_deref());
        let entry = token.and_then(|t| self.directory.get(self.pending.peek(t)?));
        let trunk = match entry {
            Some(entry) => entry.carrier.trunk.clone(),
            None => {
                let line = arrival.number.as_deref().and_then(|id| self.roster.line(id));
                self.account(arrival.vendor, line.as_deref()).trunk
            }
        };
        let ours = trunk.as_ref().and_then(|t| t.account());
        let named = arrival.start.account.as_deref();
        self.deps.config.accept_unannounced || ours.zip(named).is_none_or(|(ours, named)| ours == named)
    }

    fn unannounced(self: &Arc<Self>, arrival: &Arrival) -> Result<Arc<Entry>, (u16, &'static str, &'static str)> {
        let (vendor, start) = (arrival.vendor, &arrival.start);
        let line = arrival.number.as_deref().and_then(|id| self.roster.line(id));
        let dialled = start.to.clone().unwrap_or_default();
        if let Some(entry) = self.named(vendor, &start.call_sid, &dialled, line.as_deref()) {
            self.pending.revoke(entry.call);
            return Ok(entry);
        }
        let served = self.served_by(vendor, &dialled, line, None).map_err(|why| match why {
            NotServed::NoNumber => (1008, "nobody has that number", why.as_str()),
            NotServed::Inactive => (1013, "the number takes no calls", why.as_str()),
        })?;
        let seed = Seed {
            vendor,
            inbound: true,
            call_sid: Some(start.call_sid.clone()),
            customer: start.from.clone().unwrap_or_else(|| "anonymous".to_owned()),
            ours: served.called(&dialled),
            served,
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

/// Gives a call its stream.
fn deliver(entry: &Entry, arrival: Arrival) {
    let undelivered = entry.commands.try_send(Command::Arrival(Box::new(arrival)));
    if let Err(e) = undelivered
        && let Command::Arrival(arrival) = e.into_inner()
    {
        refuse_leg(arrival.leg, 1013, "the call is busy or over", "call_busy");
    }
}

/// Whether the vendor ends calls when its REST interface is asked to.
pub(super) fn ends_calls(carrier: &Carrier) -> bool {
    let ends = |t: &Arc<dyn Trunk>| t.can_dial() && t.request("call", &CallAction::HangUp).is_some();
    carrier.trunk.as_ref().is_some_and(ends)
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
        tenant_id: seed.served.tenant,
        agent: seed.served.profile.name.clone(),
        recording: None,
        legal_hold: false,
        metadata: serde_json::Value::Null,
    }
}
