//! The control plane: decides what happens to calls. One task per call owns its machine and its agent; this is the door.
//!
//! Everything here runs off the media threads and may wait. A step is committed before it is told to anybody.

use crate::{
    access::members::Members,
    agent::{self, cache::Replies},
    base::{
        fault::{Fault, Kind, Origin},
        format::AudioFormat,
        ids::{CallId, ConnectionId, MessageId, TenantId},
        keyring::Keyring,
        phone::e164,
    },
    bus::Bus,
    llm::{Llm, scripted::Script},
    media::{Arrival, monitor::MonitorRx},
    metrics,
    net::client::HttpClient,
    record::Recorder,
    speech::Speech,
    store::{CallRow, CallStatus, Store, seal::Seal},
    vendor::{Answer, CallDetails, CallNews, CallUpdate, Descriptor, Trunk},
};
use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

mod admission;
mod begin;
mod call;
mod cdr;
mod config;
mod directory;
mod microphone;
pub mod news;
mod pending;
mod place;
mod plan;
mod rest;
mod roster;
mod route;
mod survivors;
mod talk;
/// The update with its numbers in the one form in which numbers are compared, kept and shown: some vendors leave the plus
/// sign out.
fn numbered(update: CallUpdate) -> CallUpdate {
    CallUpdate {
        from: e164(&update.from).into_owned(),
        to: e164(&update.to).into_owned(),
        ..update
    }
}

#[cfg(test)]
mod tests;
mod watch;
mod waterfall;

pub use admission::Strain;
pub use config::{Config, Number, StrainLimits, ToolHosts};
pub use roster::{Agent, AgentSpec, Line, NUMBER_STATUSES, NumberSpec};

use begin::Begun;
use call::{Done, Words};
use directory::{Directory, Entry};
use pending::Pending;
use roster::Roster;
use route::{Elsewhere, Order};
use talk::{Clock, Command};

/// How long whoever asks waits for a commit before they are told to try again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where the vendor is asked first.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Calls that are being rejected at once; more ring until their vendor gives up.
const MAX_REJECTIONS: usize = 64;
/// Streams whose calls are looked for on other nodes at once.
const MAX_CLAIMS: usize = 256;
/// Streams that may wait for the control plane.
const MAX_ARRIVALS: usize = 1024;
/// How long stopped calls may take to close their records.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the control plane works with.
pub struct Deps {
    /// Limits, times and numbers.
    pub config: Config,
    /// Who answers.
    pub agents: agent::Config,
    /// Durable memory.
    pub store: Arc<dyn Store>,
    /// Where news goes.
    pub bus: Arc<dyn Bus>,
    /// Ears and mouths.
    pub speech: Speech,
    /// Language models.
    pub llm: Llm,
    /// Recordings.
    pub recorder: Recorder,
    /// Where files lie.
    pub data_root: PathBuf,
    /// Where recordings lie, under the data root unless absolute.
    pub recordings: PathBuf,
    /// Vendor accounts by vendor's name.
    pub trunks: HashMap<&'static str, Arc<dyn Trunk>>,
    /// Accounts with simulated vendors, by vendor's name: they carry the calls that we place where no account can. Empty but
    /// on a developer's own machine.
    pub simulated: HashMap<&'static str, Arc<dyn Trunk>>,
    /// The way to the vendors' REST interfaces.
    pub http: HttpClient,
    /// The same for accounts that tenants entered: it leads to public addresses alone.
    pub tenant_http: HttpClient,
    /// Keeps the secrets of those accounts.
    pub seal: Seal,
    /// Which tenants are served, and what is set for each alone.
    pub members: Arc<Members>,
}

impl Deps {
    /// The way to a vendor's REST interface, whether the account is a tenant's `own`.
    fn client(&self, own: bool) -> &HttpClient {
        if own { &self.tenant_http } else { &self.http }
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    deps: Deps,
    roster: Roster,
    directory: Directory,
    pending: Pending,
    /// Answers to common questions.
    replies: Replies,
    clock: Clock,
    /// Bounds the rejections that are on their way to vendors.
    rejections: Arc<Semaphore>,
    /// Bounds the streams whose calls are looked for on other nodes.
    claims: Arc<Semaphore>,
    /// Where calls of other nodes were found.
    elsewhere: Elsewhere,
}

/// The control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<Arrival>,
}

/// A call to place.
#[derive(Clone, Debug, Default)]
pub struct DialRequest {
    /// E.164 (`^\+[1-9][0-9]{6,14}$`), or `sip:` where the vendor takes it.
    pub to: String,
    /// One of the tenant's numbers; the first of the vendor's when empty.
    pub from: String,
    /// The vendor; that of `from` when `None`.
    pub vendor: Option<String>,
    /// The agent that serves the call; the number's when `None`, and under `--dev` when nobody has that name.
    pub agent: Option<String>,
    /// What its media stream shall be other than configured, in the words of the vendor's API.
    pub stream: Vec<(&'static str, String)>,
}

/// Words to say to a caller.
#[derive(Clone, Debug, Default)]
pub struct Say {
    /// The words.
    pub text: String,
    /// BCP 47, or `auto`.
    pub language: String,
    /// The frontend's own reference, echoed in every status of the message.
    pub client_ref: Option<String>,
    /// Who says it.
    pub sender_name: Option<String>,
}

/// What of the audio queued at the vendor is not to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// All of it.
    Everything,
    /// One of our messages, by its number; the last one when `None`.
    Chunk(Option<u64>),
}

/// A piece of a frontend's microphone.
#[derive(Clone, Debug)]
pub struct Microphone {
    /// Mono samples.
    pub samples: Vec<i16>,
    /// Their rate, one of `AudioFormat::RATES`.
    pub rate: u32,
    /// Whether the caller hears it (else it is recognised).
    pub to_caller: bool,
    /// Whether the microphone stops with it.
    pub last: bool,
}

/// Which ways of a call's audio are stopped at the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mute {
    /// The caller is not heard by the agent, and cannot interrupt it. A recording goes on.
    pub inbound: Option<bool>,
    /// The caller hears silence, whoever speaks.
    pub outbound: Option<bool>,
}

/// A call in memory.
#[derive(Clone, Debug)]
pub struct LiveCall {
    /// Its record as it stands.
    pub row: CallRow,
    /// Its media socket, once it streams.
    pub connection: Option<ConnectionId>,
    /// The vendor's id of the stream and the format of the caller's audio, once it streams.
    pub stream: Option<(String, AudioFormat)>,
}

/// The audio of a call, for somebody who listens in.
#[derive(Debug)]
pub struct Listening {
    /// The call's record as it stands.
    pub row: CallRow,
    /// The vendor's id of the stream.
    pub stream_id: String,
    /// How the vendor writes the caller's audio.
    pub inbound: AudioFormat,
    /// How it wants audio to the caller.
    pub outbound: AudioFormat,
    /// The audio.
    pub audio: MonitorRx,
}

impl Control {
    /// Starts the control plane on the current runtime: reads numbers and agents, and brings those of the configuration up
    /// to date in the store. The error says that they cannot be read, or that the system has no randomness to give.
    pub async fn new(deps: Deps) -> Result<Self, Fault> {
        let clock = Clock::new();
        let pending = Pending::new().map_err(|_| Fault::internal("the system gives no random numbers"))?;
        let directory = Directory::new(deps.config.clone(), clock.now().mono);
        let roster = roster::load(&*deps.store, &deps.config, &deps.agents, &deps.seal).await?;
        let shared = Arc::new(Shared {
            deps,
            roster,
            directory,
            pending,
            replies: Replies::default(),
            clock,
            rejections: Arc::new(Semaphore::new(MAX_REJECTIONS)),
            claims: Arc::new(Semaphore::new(MAX_CLAIMS)),
            elsewhere: Elsewhere::default(),
        });
        let (arrivals, inbox) = mpsc::channel(MAX_ARRIVALS);
        let control = Self { shared, arrivals };
        let shared = Arc::downgrade(&control.shared);
        tokio::spawn(begin::take_arrivals(shared.clone(), inbox));
        if let Some(peers) = control.shared.deps.bus.peers() {
            tokio::spawn(route::serve(shared.clone(), control.arrivals.clone(), peers.clone()));
            tokio::spawn(roster::follow(shared.clone(), peers.clone()));
            tokio::spawn(survivors::watch(shared, peers.clone()));
        }
        Ok(control)
    }

    /// A call arrived at a vendor: records it, tells the frontends, and says how to answer. A repetition gets the same answer.
    /// A vendor that is answered by commands is told by the call's task, or told here that the call is not for us; nobody
    /// waits for either.
    pub async fn incoming(&self, vendor: &'static Descriptor, update: CallUpdate) -> Result<Answer, Fault> {
        self.answer_call(vendor, numbered(update), None).await
    }

    /// The same, for a call that arrived at a number's own path.
    pub async fn incoming_to(&self, line: &Arc<Line>, update: CallUpdate) -> Result<Answer, Fault> {
        self.answer_call(line.vendor, numbered(update), Some(line.clone()))
            .await
    }

    async fn answer_call(
        &self,
        vendor: &'static Descriptor,
        update: CallUpdate,
        line: Option<Arc<Line>>,
    ) -> Result<Answer, Fault> {
        let call_sid = update.call_sid.clone();
        let known = self.shared.known(vendor, &update, line.as_deref()).is_some()
            || self.shared.has_ended(vendor, &call_sid, line.as_deref());
        if !known && let Some(answer) = self.news_elsewhere(vendor, &update, line.as_deref(), true).await {
            return answer;
        }
        let called = line
            .clone()
            .or_else(|| self.shared.roster.called(vendor.name, &update.to));
        let answer = self.announce(vendor, update, line, None).await?;
        if !known && !matches!(answer, Answer::Stream { .. }) {
            self.shared
                .reject(vendor, called.as_deref(), &call_sid, answer == Answer::Busy);
        }
        Ok(answer)
    }

    /// Announces a simulated incoming call of a tenant, to be streamed to by whoever holds the returned token.
    pub async fn announce_simulated(
        &self,
        tenant: TenantId,
        vendor: &'static Descriptor,
        update: CallUpdate,
    ) -> Result<Answer, Fault> {
        self.announce(vendor, numbered(update), None, Some(tenant)).await
    }

    async fn announce(
        &self,
        vendor: &'static Descriptor,
        update: CallUpdate,
        line: Option<Arc<Line>>,
        simulated_for: Option<TenantId>,
    ) -> Result<Answer, Fault> {
        let called = update.to.clone();
        let entry = match self
            .shared
            .find_or_begin(vendor, &update, line.clone(), simulated_for)?
        {
            Begun::Entry(entry) => entry,
            Begun::Busy => return Ok(Answer::Busy),
            Begun::Nobody => {
                let number = crate::base::secret::LastFour(&called);
                tracing::warn!(vendor = vendor.name, %number, "a call was hung up: nobody has its number; add it to [[numbers]]");
                return Ok(Answer::HangUp);
            }
        };
        match self.connect(&entry, update.clone()).await? {
            // The same webhook at two nodes at once: the other's call is the one on record.
            Answer::HangUp => {
                let elsewhere = self.news_elsewhere(vendor, &update, line.as_deref(), true).await;
                elsewhere.unwrap_or(Ok(Answer::HangUp))
            }
            answer => Ok(answer),
        }
    }

    /// Tells a call of ours that it was announced, and says how its vendor is to connect it.
    async fn connect(&self, entry: &Arc<Entry>, update: CallUpdate) -> Result<Answer, Fault> {
        let mut refusal = Refusal(Some(entry));
        let told = self.tell_vendor_news(entry, update).await;
        if told.as_ref().map_or_else(|f| f.kind == Kind::Conflict, |()| true) {
            refusal.0 = None;
        }
        drop(refusal);
        match told {
            Ok(()) if entry.show().is_some_and(|c| c.row.status != CallStatus::Ended) => {
                Ok(self.shared.stream_answer(entry))
            }
            Ok(()) => Ok(Answer::HangUp),
            Err(fault) if fault.kind == Kind::Conflict => Ok(Answer::HangUp),
            Err(fault) => Err(fault),
        }
    }

    /// The answer to a request that names no call, where streams that nobody announced are taken: the stream will name it.
    pub fn unnamed(&self, vendor: &'static Descriptor) -> Option<Answer> {
        let taken = self.shared.deps.config.accept_unannounced && !vendor.stream_path.is_empty();
        taken.then(|| self.shared.open_answer(vendor))
    }

    /// News of a call from its vendor. Repeated and late news change nothing.
    pub async fn update(&self, vendor: &'static Descriptor, update: CallUpdate) -> Result<(), Fault> {
        self.news(vendor, numbered(update), None).await
    }

    /// The same, that came to a number's own path: it says nothing of other tenants' calls.
    pub async fn update_of(&self, line: &Arc<Line>, update: CallUpdate) -> Result<(), Fault> {
        self.news(line.vendor, numbered(update), Some(line.clone())).await
    }

    async fn news(
        &self,
        vendor: &'static Descriptor,
        update: CallUpdate,
        line: Option<Arc<Line>>,
    ) -> Result<(), Fault> {
        let known = self.shared.known(vendor, &update, line.as_deref());
        if known.is_none()
            && !self.shared.has_ended(vendor, &update.call_sid, line.as_deref())
            && let Some(told) = self.news_elsewhere(vendor, &update, line.as_deref(), false).await
        {
            return told.map(drop);
        }
        let worth_a_record =
            update.inbound && !matches!(update.news, CallNews::Other | CallNews::StreamFailed | CallNews::Key(_));
        let entry = match known {
            Some(entry) => entry,
            None if worth_a_record => match self.shared.find_or_begin(vendor, &update, line, None)? {
                Begun::Entry(entry) => entry,
                Begun::Busy | Begun::Nobody => return Ok(()),
            },
            None => {
                if !self.shared.has_ended(vendor, &update.call_sid, line.as_deref()) {
                    metrics::refused("update", "unknown_call");
                }
                return Ok(());
            }
        };
        match self.tell_vendor_news(&entry, update).await {
            Err(fault) if fault.kind == Kind::Conflict => Ok(()),
            told => told,
        }
    }

    async fn tell_vendor_news(&self, entry: &Entry, update: CallUpdate) -> Result<(), Fault> {
        self.ask(entry, PATIENCE, |done| Command::Vendor(Box::new(update), done))
            .await
    }

    /// Places a call. Returns once the vendor has taken it.
    pub async fn dial(&self, tenant: TenantId, request: DialRequest) -> Result<CallRow, Fault> {
        route::check_dialable(&request.to)?;
        let entry = self.shared.place(tenant, &request)?;
        self.ask(&entry, LONG_PATIENCE, Command::WhenDialed).await?;
        shown_row(&entry)
    }

    /// Stops the audio of a call at the relay, or lets it pass again; a direction that is `None` stays as it is.
    pub async fn mute(&self, tenant: TenantId, id: &str, mute: Mute) -> Result<Mute, Fault> {
        let Mute { inbound, outbound } = mute;
        self.order(tenant, id, Order::Mute { inbound, outbound }).await?.mute()
    }

    /// Stops the recording of a call, or lets it go on. What is said meanwhile is silence in the file.
    pub async fn record(&self, tenant: TenantId, id: &str, on: bool) -> Result<(), Fault> {
        self.order(tenant, id, Order::Record(on)).await.map(drop)
    }

    /// Drops what is queued at the vendor of the media socket of that id, or one chunk of it where the vendor can tell them apart.
    pub async fn silence(&self, tenant: TenantId, connection: &str, what: Silence) -> Result<(), Fault> {
        self.order(tenant, connection, Order::silence(what)).await.map(drop)
    }

    /// Sends keys to the far end of a call: by the vendor's command, else as tones in the caller's ear.
    pub async fn digits(&self, tenant: TenantId, id: &str, digits: String) -> Result<(), Fault> {
        self.order(tenant, id, Order::Digits(digits)).await.map(drop)
    }

    /// Hands a call to a number, which ends our part of it. Returns once the vendor has taken the order.
    pub async fn transfer(&self, tenant: TenantId, id: &str, to: String) -> Result<(), Fault> {
        self.order(tenant, id, Order::Transfer(to)).await.map(drop)
    }

    /// A person takes a call from its agent, which falls silent and listens on. Taking a call that a person has succeeds.
    pub async fn take_over(&self, tenant: TenantId, id: &str, by: String) -> Result<CallRow, Fault> {
        self.change(tenant, id, Order::Person { takes: true, by }).await
    }

    /// A person hands a call back to its agent, which knows what was said meanwhile.
    pub async fn hand_back(&self, tenant: TenantId, id: &str, by: String) -> Result<CallRow, Fault> {
        self.change(tenant, id, Order::Person { takes: false, by }).await
    }

    /// Carries an order out and returns the call's record as it is then.
    async fn change(&self, tenant: TenantId, id: &str, order: Order) -> Result<CallRow, Fault> {
        let here = self.shared.directory.find(tenant, id);
        self.order(tenant, id, order).await?;
        match here {
            Some(entry) => shown_row(&entry),
            None => self.stored(tenant, id).await,
        }
    }

    /// What the vendor tells of a call, live or ended. Either id.
    pub async fn details(&self, tenant: TenantId, id: &str) -> Result<(CallRow, CallDetails), Fault> {
        let row = self.call(tenant, id).await?.row;
        let details = self.shared.details(&row).await?;
        Ok((row, details))
    }

    /// Ends a call, at the vendor too. Either id. Ending an ended call succeeds.
    pub async fn hang_up(&self, tenant: TenantId, id: &str) -> Result<CallRow, Fault> {
        let fault = match self.change(tenant, id, Order::HangUp).await {
            Err(fault) if matches!(fault.kind, Kind::NotFound | Kind::Unavailable) => fault,
            done => return done,
        };
        let row = self.stored(tenant, id).await?;
        match row.status {
            CallStatus::Ended => Ok(row),
            _ => Err(fault),
        }
    }

    /// Whether a call's phone rings on although the call is ended here: nobody has answered it, and its vendor has no command
    /// that ends it. Who answers it is hung up on.
    pub fn rings_on(&self, tenant: TenantId, id: &str) -> bool {
        let entry = self.shared.directory.find(tenant, id);
        let rings = |row: &CallRow| !row.inbound && row.answered_at.is_none();
        entry.is_some_and(|e| !begin::ends_calls(&e.carrier) && e.show().is_some_and(|call| rings(&call.row)))
    }

    /// Says something to the caller. Returns once it is queued; `News::MessageStatus` tells when it is durable and when it was heard.
    pub async fn say(&self, tenant: TenantId, id: &str, say: Say) -> Result<MessageId, Fault> {
        let words = Words {
            text: say.text.trim().to_owned(),
            language: Some(say.language).filter(|l| !l.is_empty() && l != "auto"),
            client_ref: say.client_ref,
            sender_name: say.sender_name,
        };
        self.order(tenant, id, Order::say(words)).await?.message()
    }

    /// A person moves the call: `Answered`, `InProgress`, or `Ended` (which hangs up).
    pub async fn set_status(&self, tenant: TenantId, id: &str, status: CallStatus) -> Result<(), Fault> {
        if status == CallStatus::Ended {
            return self.hang_up(tenant, id).await.map(drop);
        }
        let order = Order::Move(status.as_str().to_owned());
        self.order(tenant, id, order).await.map(drop)
    }

    /// A frontend wants the call understood in this language (BCP 47). `News::Fault` tells of a recogniser that cannot.
    pub async fn listen_in(&self, tenant: TenantId, id: &str, language: String) -> Result<(), Fault> {
        self.order(tenant, id, Order::Language(language)).await.map(drop)
    }

    /// Audio from a frontend. Never waits; a full queue drops the audio and counts it.
    pub fn microphone(&self, tenant: TenantId, id: &str, audio: Microphone) -> Result<(), Fault> {
        match self.shared.directory.find(tenant, id) {
            Some(entry) => {
                route::hear(&entry, audio);
                Ok(())
            }
            None => self.pass_on_microphone(tenant, id, &audio),
        }
    }

    /// The live call of that id, either one.
    pub fn call_exists(&self, tenant: TenantId, id: &str) -> Option<CallId> {
        self.shared.directory.find(tenant, id).map(|e| e.call)
    }

    /// Listens in on a call that streams: its audio both ways from now on, in place of who listened before.
    pub async fn listen(&self, tenant: TenantId, id: &str) -> Result<Listening, Fault> {
        let entry = self.find(tenant, id).await?;
        let (told, answer) = oneshot::channel();
        self.send(&entry, Command::Listen(told)).await?;
        answer.await.map_err(|_| gone())?
    }

    /// The agent that a tenant's call was served by, by name, as it is now.
    pub fn agent_of_call(&self, tenant: TenantId, name: &str) -> Option<Arc<agent::Profile>> {
        let own = self.shared.roster.agent(tenant, name).and_then(|a| a.profile.clone());
        let profile = own.or_else(|| self.shared.deps.agents.get(name).cloned())?;
        Some(self.shared.keyed(tenant, profile))
    }

    /// The keys of services that a tenant has of its own.
    pub fn service_keys(&self, tenant: TenantId) -> Keyring {
        let keys = self.shared.deps.config.service_keys.get(&tenant.0);
        keys.cloned().unwrap_or_default()
    }

    /// The rules of an agent of the tenant's: of the one of that name, else of the most recent one that has some, else of the
    /// default one.
    pub fn script(&self, tenant: TenantId, agent: Option<&str>) -> Arc<Script> {
        let named = agent.and_then(|name| self.agent_of_call(tenant, name));
        let recent = self.shared.roster.agents(tenant);
        let recent = recent.iter().rev().filter_map(|agent| agent.profile.clone());
        let default = &self.shared.deps.config.default_agent;
        let default = self.shared.deps.agents.get(default).cloned();
        let scripts = named
            .into_iter()
            .chain(recent)
            .chain(default)
            .map(|profile| profile.script.clone());
        scripts
            .into_iter()
            .find(|script| !script.is_empty())
            .unwrap_or_default()
    }

    /// A call by either id: as it stands while it lives, else as it is stored.
    pub async fn call(&self, tenant: TenantId, id: &str) -> Result<LiveCall, Fault> {
        if let Some(live) = self.shared.directory.find(tenant, id).and_then(|e| e.show()) {
            return Ok(live);
        }
        let mut call = [route::on_record(self.stored(tenant, id).await?)];
        if call[0].row.status != CallStatus::Ended {
            self.add_live(tenant, Some(id), &mut call).await;
        }
        let [call] = call;
        Ok(call)
    }

    /// A call's record as it is stored.
    async fn stored(&self, tenant: TenantId, id: &str) -> Result<CallRow, Fault> {
        let row = self.shared.deps.store.call(tenant, id).await?;
        row.ok_or_else(|| Fault::not_found("call"))
    }

    /// Live calls of a tenant on this node, newest first.
    pub fn active(&self, tenant: TenantId) -> Vec<LiveCall> {
        self.shared.directory.of_tenant(tenant)
    }

    /// The vendor of the call that a stream token is of, and the account that carries it.
    pub fn awaited(&self, token: &str) -> Option<(&'static Descriptor, Option<Arc<dyn Trunk>>)> {
        let entry = self.shared.directory.get(self.shared.pending.peek(token)?)?;
        Some((entry.vendor, entry.carrier.trunk.clone()))
    }

    /// Whether there are other nodes that cannot be reached now.
    pub fn is_cut_off(&self) -> bool {
        self.shared.deps.bus.peers().is_some_and(|peers| !peers.is_connected())
    }

    /// Where the shards report legs that began.
    pub fn arrivals(&self) -> mpsc::Sender<Arrival> {
        self.arrivals.clone()
    }

    /// Live calls in all.
    pub fn live(&self) -> usize {
        self.shared.directory.live()
    }

    /// Refuses new calls while the machine is strained; live ones go on. Returns how it was before.
    pub fn strain(&self, strain: Option<Strain>) -> Option<Strain> {
        self.shared.directory.strain(strain)
    }

    /// Bytes of memory that are left for calls, as a sample has just shown; `None` without a bound. Calls that begin before the
    /// next have some set aside for each.
    pub fn make_room(&self, left: Option<u64>) {
        self.shared.directory.make_room(left);
    }

    /// How the machine is strained, and new calls are refused.
    pub fn strained(&self) -> Option<Strain> {
        self.shared.directory.strained()
    }

    /// Refuses new calls from now on; live ones go on. Returns when none is left or `limit` has passed, then ends the rest.
    pub async fn drain(&self, limit: Duration) {
        let directory = &self.shared.directory;
        directory.drain();
        let mut tasks = directory.watch_tasks();
        let mut live = directory.watch_live();
        if timeout(limit, live.wait_for(|n| *n == 0)).await.is_err() {
            let all = directory.all();
            // A call that takes nothing any more holds up none of the others.
            let told = all
                .iter()
                .map(|e| timeout(LAST_WORDS, e.commands.send(Command::Interrupt)));
            futures_util::future::join_all(told).await;
        }
        let _ = timeout(LAST_WORDS, tasks.wait_for(|n| *n == 0)).await;
    }

    /// A tenant's live call. One that has ended can be asked for nothing; a foreign one and one that never was are not found.
    async fn find(&self, tenant: TenantId, id: &str) -> Result<Arc<Entry>, Fault> {
        match self.shared.directory.find(tenant, id) {
            Some(entry) => Ok(entry),
            None if self.is_over(tenant, id).await? => Err(gone()),
            None => Err(Fault::not_found("call")),
        }
    }

    /// Whether a tenant's call is on record as ended.
    async fn is_over(&self, tenant: TenantId, id: &str) -> Result<bool, Fault> {
        let row = self.shared.deps.store.call(tenant, id).await?;
        Ok(row.is_some_and(|row| row.status == CallStatus::Ended))
    }

    async fn send(&self, entry: &Entry, command: Command) -> Result<(), Fault> {
        match timeout(PATIENCE, entry.commands.send(command)).await {
            Ok(sent) => sent.map_err(|_| gone()),
            Err(_) => Err(too_slow()),
        }
    }

    /// Sends a command and waits until what it did is durable.
    async fn ask(&self, entry: &Entry, patience: Duration, command: impl FnOnce(Done) -> Command) -> Result<(), Fault> {
        let (done, told) = oneshot::channel();
        self.send(entry, command(done)).await?;
        match timeout(patience, told).await {
            Ok(told) => told.map_err(|_| gone())?,
            Err(_) => Err(too_slow()),
        }
    }
}

/// Tells a call, once dropped, that its announcement was refused; also where nobody waits for the answer any longer.
struct Refusal<'a>(Option<&'a Entry>);

impl Drop for Refusal<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0 {
            // A full queue is that of a call whose stream's deadline decides.
            let _ = entry.commands.try_send(Command::Refused);
        }
    }
}

fn shown_row(entry: &Entry) -> Result<CallRow, Fault> {
    entry.show().map(|call| call.row).ok_or_else(gone)
}

/// The call's task ended meanwhile.
fn gone() -> Fault {
    Fault::client(Kind::Conflict, "the call has ended")
}

fn too_slow() -> Fault {
    Fault::new(
        Origin::Us,
        Kind::Unavailable,
        "storage does not keep up: try again in a moment",
    )
}
