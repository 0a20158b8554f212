//! Calls through the control plane's door: a real database, real speech lanes with the fake engines, a vendor's REST
//! interface on a real socket, and legs played by hand.

use super::*;
use crate::{
    agent::{Config as Agents, Kind as AgentKind, Profile},
    audio::{
        codec,
        ring::{DownlinkRx, UplinkTx},
    },
    base::{doorbell::Doorbell, format::AudioFormat, ids::UtteranceId, settings::Section},
    bus::{Event, News, local::LocalBus},
    llm::{
        self,
        scripted::{Action, Fallback, Rule, Script},
    },
    media::{Accounting, LegCommand, LegEnd, LegEvent, LegHandle, Plan, Route},
    net::client::ApiRequest,
    record,
    speech::stt::fake::phrase,
    store::{
        AgentRow, ApiKeyRow, Batch, BoxFuture, CallFilter, CallPage, Committed, EventRow, Expired, JobFilter, JobRow,
        MessageRow, NumberRow, StoreHealth, TenantRetention, TenantRow, sqlite::SqliteStore,
    },
    vendor::{Admit, CallAction, Document, EndReason, Handling, Hook, HookRequest, StreamStart, VENDORS},
};
use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

mod budget;
mod commanded;
mod failures;
mod inbound;
mod outbound;
mod speaking;

const TENANT: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);
const CALLER: &str = "+14155550100";
const OURS: &str = "+14155550199";
/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(10);

fn vendor() -> &'static Descriptor {
    VENDORS[0]
}

/// A vendor's REST interface that answers as told.
#[derive(Clone, Default)]
struct Rest {
    replies: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Rest {
    /// Serves on a port of its own and returns the base URL.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let rest = self.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let rest = rest.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let line = String::from_utf8_lossy(&head)
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    rest.asked.lock().unwrap().push(path);
                    let (status, body) = rest.replies.lock().unwrap().pop_front().unwrap_or((200, ""));
                    let length = body.len();
                    let reply =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                    let _ = socket.write_all(reply.as_bytes()).await;
                });
            }
        });
        base
    }

    fn will_reply(&self, status: u16, body: &'static str) {
        self.replies.lock().unwrap().push_back((status, body));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An account whose requests go to [`Rest`], by the name of the action.
struct Account {
    base: String,
    credentials: bool,
    hangs_up: bool,
    handling: Handling,
}

impl Trunk for Account {
    fn verify(&self, _: &HookRequest<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn unguarded(&self) -> Option<&'static str> {
        None
    }

    fn verify_upgrade(&self, _: &HookRequest<'_>) -> Result<Admit, Fault> {
        Ok(Admit::WithToken)
    }

    fn parse(&self, _: crate::vendor::HookKind, _: &HookRequest<'_>) -> Result<Hook, Fault> {
        Err(Fault::internal("webhooks are not parsed here"))
    }

    fn answer(&self, _: &HookRequest<'_>, _: &Answer) -> Document {
        Document::EMPTY
    }

    fn request(&self, call_sid: &str, action: &CallAction<'_>) -> Option<ApiRequest> {
        let path = match action {
            CallAction::Dial { to, .. } => format!("/dial/{to}"),
            CallAction::Details => return None,
            CallAction::HangUp if !self.hangs_up => return None,
            CallAction::HangUp => format!("/hangup/{call_sid}"),
            CallAction::Transfer { to } => format!("/transfer/{to}"),
            CallAction::Digits { digits } if *digits == "*0*" => panic!("a trunk with a bug"),
            CallAction::Accept { .. } => format!("/accept/{call_sid}"),
            CallAction::Reject { busy } => format!("/reject/{call_sid}?busy={busy}"),
            CallAction::StartStream { .. } => format!("/stream/{call_sid}"),
            CallAction::Enhance { on } => format!("/enhance/{call_sid}?on={on}"),
            CallAction::Digits { .. } => return None,
        };
        Some(ApiRequest {
            method: http::Method::GET,
            url: format!("{}{path}", self.base),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout: Duration::from_secs(5),
        })
    }

    fn reply(&self, _: &CallAction<'_>, status: u16, body: &[u8]) -> Result<String, Fault> {
        match status {
            200 => Ok(String::from_utf8_lossy(body).into_owned()),
            _ => Err(Fault::new(
                Origin::Vendor,
                Kind::BadGateway,
                format!("the vendor said {status}"),
            )),
        }
    }

    fn can_dial(&self) -> bool {
        self.credentials
    }

    fn handling(&self) -> Handling {
        self.handling
    }
}

/// A store whose commits can be held back.
struct Gate {
    store: Arc<SqliteStore>,
    shut: Arc<AtomicBool>,
    opened: Arc<Notify>,
}

impl Store for Gate {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<Committed, Fault>> {
        let (shut, opened) = (self.shut.clone(), self.opened.clone());
        if !shut.load(SeqCst) {
            return self.store.commit(batch);
        }
        // Held back before it reaches the store: durable only after the gate has opened.
        let store = self.store.clone();
        Box::pin(async move {
            while shut.load(SeqCst) {
                opened.notified().await;
            }
            store.commit(batch).await
        })
    }

    fn call<'a>(&'a self, tenant: TenantId, id: &'a str) -> BoxFuture<'a, Result<Option<CallRow>, Fault>> {
        self.store.call(tenant, id)
    }

    fn calls<'a>(&'a self, tenant: TenantId, filter: CallFilter) -> BoxFuture<'a, Result<CallPage, Fault>> {
        self.store.calls(tenant, filter)
    }

    fn messages<'a>(&'a self, tenant: TenantId, call: CallId) -> BoxFuture<'a, Result<Vec<MessageRow>, Fault>> {
        self.store.messages(tenant, call)
    }

    fn events<'a>(
        &'a self,
        tenant: TenantId,
        call: Option<CallId>,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Fault>> {
        self.store.events(tenant, call, after, limit)
    }

    fn numbers<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<NumberRow>, Fault>> {
        self.store.numbers(tenant)
    }

    fn agents<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<AgentRow>, Fault>> {
        self.store.agents(tenant)
    }

    fn tenants<'a>(&'a self) -> BoxFuture<'a, Result<Vec<TenantRow>, Fault>> {
        self.store.tenants()
    }

    fn api_keys<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<ApiKeyRow>, Fault>> {
        self.store.api_keys(tenant)
    }

    fn jobs<'a>(&'a self, filter: JobFilter) -> BoxFuture<'a, Result<Vec<JobRow>, Fault>> {
        self.store.jobs(filter)
    }

    fn retention<'a>(&'a self, tenant: Option<TenantId>) -> BoxFuture<'a, Result<Vec<TenantRetention>, Fault>> {
        self.store.retention(tenant)
    }

    fn expired<'a>(&'a self, which: Expired) -> BoxFuture<'a, Result<Vec<CallRow>, Fault>> {
        self.store.expired(which)
    }

    fn close_open_calls<'a>(&'a self) -> BoxFuture<'a, Result<usize, Fault>> {
        self.store.close_open_calls()
    }

    fn health(&self) -> StoreHealth {
        self.store.health()
    }

    fn close<'a>(&'a self) -> BoxFuture<'a, Result<(), Fault>> {
        self.store.close()
    }
}

/// What a world begins with.
struct Setup {
    config: Config,
    agents: Agents,
    credentials: bool,
    /// Whether the vendor has a command that ends calls.
    hangs_up: bool,
    handling: Handling,
    /// The way to what tenants name.
    tenant_http: HttpClient,
}

/// A control plane and all it needs.
struct World {
    control: Control,
    store: Arc<dyn Store>,
    gate: (Arc<AtomicBool>, Arc<Notify>),
    rest: Rest,
    news: mpsc::Receiver<Arc<Event>>,
    seen: Vec<Arc<Event>>,
    folder: tempfile::TempDir,
}

fn rule(phrase: &str, reply: &str, action: Option<Action>) -> Rule {
    Rule {
        phrases: vec![phrase.to_owned()],
        reply: reply.to_owned(),
        action,
    }
}

/// The phrases of the scripted agent, by the index that [`phrase`] takes.
const HOURS: u32 = 0;
const GOODBYE: u32 = 1;
const PERSON: u32 = 2;
const KEYS: u32 = 3;
const BUG: u32 = 4;
const TRANSFER: u32 = 5;
const UNKNOWN: u32 = 9;

fn agents() -> Agents {
    let fake = |name: &str, kind| Profile {
        stt: "fake".into(),
        tts: "fake".into(),
        ..Profile::new(name, kind)
    };
    let rules = vec![
        rule("opening hours", "nine to five", None),
        rule("good bye", "bye now", Some(Action::HangUp)),
        rule("a person", "one moment", Some(Action::Handoff)),
        rule("press keys", "", Some(Action::Digits("12#".into()))),
        rule("press bug", "", Some(Action::Digits("*0*".into()))),
        rule("transfer me", "", Some(Action::Transfer("+14155550177".into()))),
    ];
    let fallback = Some(Fallback {
        reply: "pardon".into(),
        max: 9,
    });
    let mut agents = Agents::default();
    agents.insert(Profile {
        greeting: "welcome caller".into(),
        script: Arc::new(Script::new(rules, fallback)),
        ..fake("desk", AgentKind::Scripted)
    });
    agents.insert(fake("human", AgentKind::Human));
    agents.insert(fake("listen", AgentKind::Listen));
    agents
}

impl World {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let number = Number {
            number: OURS.into(),
            vendor: vendor().name.into(),
            agent: None,
            tenant: TENANT,
        };
        let mut setup = Setup {
            config: Config {
                public_url: "https://relay.example.com".into(),
                default_agent: "desk".into(),
                numbers: vec![number],
                ..Config::default()
            },
            agents: agents(),
            credentials: true,
            hangs_up: true,
            handling: Handling::default(),
            tenant_http: HttpClient::new(),
        };
        change(&mut setup);
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("calls.db"), &crate::store::Config::default()).unwrap();
        let gate = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let store: Arc<dyn Store> = Arc::new(Gate {
            store: Arc::new(store),
            shut: gate.0.clone(),
            opened: gate.1.clone(),
        });
        let bus = Arc::new(LocalBus::new());
        let news = bus.subscribe();
        let rest = Rest::default();
        let trunk: Arc<dyn Trunk> = Arc::new(Account {
            base: rest.serve().await,
            credentials: setup.credentials,
            hangs_up: setup.hangs_up,
            handling: setup.handling,
        });
        let faults = crate::base::settings::Faults::default();
        let speech = Speech::new(&crate::speech::Config::read(&Section::empty(&faults)), 1);
        let recorder = Recorder::start(&record::Config::read(&Section::empty(&faults))).unwrap();
        let control = Control::new(Deps {
            config: setup.config,
            agents: setup.agents,
            store: store.clone(),
            bus,
            speech,
            llm: Llm::new(&llm::Config::default(), &HttpClient::new()),
            recorder,
            data_root: folder.path().to_owned(),
            recordings: "recordings".into(),
            trunks: HashMap::from([(vendor().name, trunk)]),
            simulated: HashMap::new(),
            http: HttpClient::new(),
            tenant_http: setup.tenant_http,
            seal: Seal::new(
                Some(&crate::base::secret::Secret::new(
                    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                )),
                None,
            ),
            members: Arc::default(),
        })
        .await
        .unwrap();
        Self {
            control,
            store,
            gate,
            rest,
            news,
            seen: Vec::new(),
            folder,
        }
    }

    fn shut_store(&self, shut: bool) {
        self.gate.0.store(shut, SeqCst);
        self.gate.1.notify_waiters();
        self.gate.1.notify_one();
    }

    /// Waits for an event that `wanted` makes something of. Events before it are kept in `seen`.
    async fn event<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let found = timeout(SOON, async {
            loop {
                let event = self.news.recv().await.expect("the bus lives");
                self.seen.push(event.clone());
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("not told in time; told so far: {:#?}", self.seen),
        }
    }

    async fn status(&mut self, wanted: &str) {
        self.event(|e| matches!(&e.news, News::Status { status, .. } if *status == wanted).then_some(()))
            .await;
    }

    /// Waits until a message has that status, and returns its words and how much was heard.
    async fn message(&mut self, wanted: &str) -> (String, u32) {
        self.event(|e| match &e.news {
            News::MessageStatus {
                status,
                message,
                heard_ms,
                ..
            } if *status == wanted => Some((message.clone(), *heard_ms)),
            _ => None,
        })
        .await
    }

    async fn final_words(&mut self) -> (String, &'static str) {
        self.event(|e| match &e.news {
            News::Transcript {
                text,
                sender,
                is_final: true,
                ..
            } => Some((text.clone(), *sender)),
            _ => None,
        })
        .await
    }

    async fn fault(&mut self) -> (&'static str, Option<&'static str>) {
        self.event(|e| match &e.news {
            News::Fault { code, vendor, .. } => Some((*code, *vendor)),
            _ => None,
        })
        .await
    }

    /// The call as stored.
    async fn row(&self, id: &str) -> CallRow {
        self.store.call(TENANT, id).await.unwrap().expect("the call is stored")
    }

    /// Who said what, and what became of it, as stored.
    async fn messages(&self, id: &str) -> Vec<(crate::store::Sender, String, Option<&'static str>)> {
        let call = self.row(id).await.call_id;
        let messages = self.store.messages(TENANT, call).await.unwrap();
        messages
            .into_iter()
            .map(|m| (m.sender_type, m.content, m.delivery))
            .collect()
    }

    /// Waits until a condition holds that nobody tells of.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds().await {
            assert!(Instant::now() < deadline, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn announce(&self, sid: &str) -> Answer {
        self.control
            .incoming(vendor(), update(sid, CallNews::Ringing))
            .await
            .unwrap()
    }

    /// A socket whose vendor said `start`.
    async fn connect(&self, token: Option<&str>, sid: &str) -> Wire {
        let (commands, inbox) = crossbeam_channel::bounded(64);
        let start = StreamStart {
            stream_id: format!("stream-{sid}"),
            call_sid: sid.to_owned(),
            account: None,
            token: None,
            inbound: AudioFormat::ULAW_8K,
            outbound: AudioFormat::ULAW_8K,
            from: Some(CALLER.into()),
            to: Some(OURS.into()),
            ptime_ms: None,
        };
        let arrival = Arrival {
            leg: LegHandle::new(commands, Arc::new(Doorbell::new()), 1),
            connection: ConnectionId::new(),
            vendor: vendor(),
            start,
            path_token: token.map(str::to_owned),
            number: None,
            proven: false,
            peer: "127.0.0.1:1".parse().unwrap(),
            shard: 0,
        };
        self.control.arrivals().send(arrival).await.unwrap();
        Wire { inbox }
    }

    /// An incoming call with its leg.
    async fn call(&mut self, sid: &str) -> Leg {
        let token = token_of(&self.announce(sid).await);
        let leg = self.connect(Some(&token), sid).await.leg().await;
        self.status("in_progress").await;
        leg
    }
}

fn update(sid: &str, news: CallNews) -> CallUpdate {
    CallUpdate {
        why: None,
        call_sid: sid.into(),
        from: CALLER.into(),
        to: OURS.into(),
        inbound: true,
        news,
        dedup_key: format!("{sid}:{news:?}"),
        duration_s: None,
    }
}

fn token_of(answer: &Answer) -> String {
    match answer {
        Answer::Stream { token, .. } => token.clone(),
        other => panic!("{other:?} answers no stream"),
    }
}

/// The shard's side of a socket, before its plan.
struct Wire {
    inbox: crossbeam_channel::Receiver<(u64, LegCommand)>,
}

impl Wire {
    async fn command(&self) -> LegCommand {
        let deadline = Instant::now() + SOON;
        loop {
            match self.inbox.try_recv() {
                Ok((_, command)) => return command,
                Err(_) => assert!(Instant::now() < deadline, "the leg was told nothing in time"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn leg(self) -> Leg {
        match self.command().await {
            LegCommand::Plan(plan) => Leg::new(self, *plan),
            other => panic!("{other:?} instead of a plan"),
        }
    }

    /// The code it is closed with.
    async fn closed(&self) -> u16 {
        loop {
            match self.command().await {
                LegCommand::Close { code, .. } => return code,
                LegCommand::Plan(_) => panic!("a plan instead of a close"),
                _ => {}
            }
        }
    }
}

/// A leg played by hand.
struct Leg {
    wire: Wire,
    echo: bool,
    uplink: Option<UplinkTx>,
    downlink: Option<DownlinkRx>,
    recorded: bool,
    events: mpsc::Sender<LegEvent>,
}

impl Leg {
    fn new(wire: Wire, plan: Plan) -> Self {
        let recorded = plan.tap.is_some();
        let (echo, uplink, downlink) = match plan.route {
            Route::Echo => (true, None, None),
            Route::Relay { uplink, downlink } => (false, uplink, downlink),
        };
        Self {
            wire,
            echo,
            uplink,
            downlink,
            recorded,
            events: plan.events,
        }
    }

    async fn tell(&self, event: LegEvent) {
        self.events.send(event).await.unwrap();
    }

    /// The caller speaks.
    fn hear(&mut self, samples: &[i16]) {
        let uplink = self.uplink.as_mut().expect("somebody listens");
        let mut codes = [0; 160];
        for piece in samples.chunks(codes.len()) {
            let n = codec::encode(uplink.format().encoding, piece, &mut codes);
            let wide: Vec<i16> = codes[..n].iter().map(|c| i16::from(*c)).collect();
            assert!(uplink.push(&wide), "the ear keeps up");
        }
        if let Some(bell) = uplink.bell() {
            bell.ring();
        }
    }

    fn hear_phrase(&mut self, index: u32) {
        self.hear(&phrase(index, 100, 8000));
    }

    /// Takes samples of the utterance at the head until `enough`, and returns it, how many, and whether it ended.
    async fn take(&mut self, enough: usize) -> (UtteranceId, usize, bool) {
        let downlink = self.downlink.as_mut().expect("somebody speaks");
        let deadline = Instant::now() + SOON;
        let (mut taken, mut buffer) = (0, [0; 160]);
        loop {
            if let Some(span) = downlink.peek() {
                let (n, last) = downlink.pop(&mut buffer);
                taken += n;
                if last || taken >= enough {
                    return (span.utterance, taken, last);
                }
            } else {
                assert!(Instant::now() < deadline, "nothing to play in time");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Plays one utterance to its end.
    async fn play(&mut self) -> u32 {
        let (utterance, taken, last) = self.take(usize::MAX).await;
        assert!(last);
        let heard_ms = (taken / 8) as u32;
        self.tell(LegEvent::Playing(utterance)).await;
        self.tell(LegEvent::Played {
            utterance,
            heard_ms,
            whole: true,
        })
        .await;
        heard_ms
    }

    async fn end(self, end: LegEnd) {
        let accounting = Box::new(Accounting {
            in_frames: 3,
            ..Accounting::default()
        });
        self.tell(LegEvent::Ended { end, accounting }).await;
    }
}
