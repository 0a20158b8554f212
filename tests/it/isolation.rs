//! Two tenants, every route and socket × {own, foreign, absent, another role}: a table over the router's own list of routes, so
//! that a route without a rule fails. What is another tenant's and what never was get the same answer, byte for byte.

use crate::house::House;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::ids::{CallId, ConnectionId, KeyId, TenantId},
    http::routes::Gate,
    media::{Arrival, LegCommand, LegHandle},
    store::{Batch, JobRow, JobState, Write},
    vendor::{self, Answer, CallNews, CallUpdate, StreamStart},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// All vendors, each wanting a proof that no stranger has, and nobody at the other end of their REST interfaces.
const CONFIG: &str = r#"
[calls]
public_url = "http://relay.test"
default_agent = "echo"
max_calls_per_tenant = 100000
max_calls_per_number = 100000
max_outbound_per_tenant = 100000
tenant_calls_per_second = 100000
tenant_calls_burst = 100000
tenant_calls_per_minute = 100000
calls_per_second = 100000
calls_burst = 100000

[access]
failures_per_minute = 100000
requests_per_s = 100000
requests_burst = 100000
address_requests_per_s = 100000
address_requests_burst = 100000

[[access.jwt]]
secret = "a8c3f1e09b7d4c2286aa55f0e1d2c3b4"

[twilio]
account_sid = "AC00000000000000000000000000000001"
auth_token = "12345678901234567890123456789012"
base_url = "http://127.0.0.1:9"

[telnyx]
api_key = "KEY0"
application_id = "7267"
public_key = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
base_url = "http://127.0.0.1:9"

[exotel]
webhook_secret = "9c1f7a2e5b8d40639c1f7a2e5b8d4063"

[ozonetel]
webhook_secret = "9c1f7a2e5b8d40639c1f7a2e5b8d4063"

[teler]
webhook_secret = "9c1f7a2e5b8d40639c1f7a2e5b8d4063"
"#;

/// The tenant that asks. It is not the operator's.
const OURS: i64 = 2;
/// The tenant whose things it may not know of.
const THEIRS: i64 = 3;

/// Of what a route is about one, named by an id.
#[derive(Clone, Copy, Debug)]
enum Thing {
    /// A live call, by our id.
    Call,
    /// The same, by its vendor's.
    Sid,
    /// A live media socket.
    Connection,
    Number,
    Agent,
    Job,
    Key,
    Tenant,
}

/// What a route must do with two tenants. In texts, `{id}` stands for the thing's.
enum Rule {
    /// It is about one thing: path with its query, and body. Foreign and absent are alike, and one's own is neither refused nor
    /// not found.
    One(Thing, String, Option<Value>),
    /// It shows what the tenant has: this thing if it is its own, and never if it is not.
    Shows(Thing, String),
    /// It takes names of things in its body, and what is foreign is as absent there.
    Names(Thing, Value),
    /// It changes the tenant's own, whose others see nothing: what is asked, and what shows it.
    Changes(Value, &'static str),
    /// The operator alone may, whoever is asked about.
    Operator(Value),
    /// There is nothing of a tenant in it: all get the same answer.
    Same(Option<Value>),
    /// A frontend's socket: its query names a call.
    Socket,
    /// A vendor's: no tenant's credential opens it.
    Vendor,
}

/// The rule of every route.
fn rule(method: &str, path: &str) -> Option<Rule> {
    use Rule::{Changes, Names, One, Operator, Same, Shows, Socket, Vendor};
    let one = |thing, body| Some(One(thing, path.to_owned(), body));
    let by_query = |thing, body| Some(One(thing, format!("{path}?id={{id}}"), body));
    if let Some((name, rest)) = path.strip_prefix("/api/calls/").and_then(|p| p.split_once('/'))
        && vendor::by_name(name).is_some()
        && !is_hook(path)
    {
        return match (method, rest) {
            ("POST", "initiate") => Some(Names(Thing::Agent, json!({"to": "+14155550123", "agent": "{id}"}))),
            ("POST", "end") => one(Thing::Sid, Some(json!({"call_control_id": "{id}"}))),
            ("POST", "{id}/mute" | "{id}/unmute") => one(Thing::Sid, Some(json!({}))),
            ("POST", "{id}/digits") => one(Thing::Sid, Some(json!({"digits": "1"}))),
            ("POST", "{id}/transfer") => one(Thing::Sid, Some(json!({"to": "+14155550123"}))),
            _ => None,
        };
    }
    if is_hook(path) {
        return Some(Vendor);
    }
    match (method, path) {
        ("GET", "/health" | "/ready" | "/api/openapi.json" | "/api/asyncapi.json" | "/api/ai/status") => {
            Some(Same(None))
        }
        ("POST", "/api/ai/conversation") => Some(Same(Some(json!({"message": "hello", "sessionId": "s"})))),
        ("GET", "/api/ws/telephony/stream" | "/call-events" | "/frontend-audio") => Some(Socket),
        ("GET", "/api/calls/active") => Some(Shows(Thing::Call, path.to_owned())),
        ("GET", "/api/calls/history" | "/api/calls/export") => Some(Shows(Thing::Sid, format!("{path}?status=all"))),
        // Counts: each tenant has as many calls as the other, and so many are shown.
        ("GET", "/api/analytics") => Some(Same(None)),
        ("GET", "/api/websocket/streams") => Some(Shows(Thing::Connection, path.to_owned())),
        ("GET", "/api/phone-numbers") => Some(Shows(Thing::Number, path.to_owned())),
        ("GET", "/api/agents") => Some(Shows(Thing::Agent, path.to_owned())),
        ("GET", "/api/jobs") => Some(Shows(Thing::Job, format!("{path}?state=all"))),
        ("GET", "/api/keys") => Some(Shows(Thing::Key, path.to_owned())),
        ("GET", "/api/tenants") => Some(Shows(Thing::Tenant, path.to_owned())),
        ("GET", "/api/retention") => Some(Same(None)),
        ("PUT", "/api/retention") => Some(Changes(json!({"text": "91d"}), "/api/retention")),
        ("DELETE", "/api/retention") => Some(Same(None)),
        ("POST", "/api/calls/initiate") => Some(Names(Thing::Agent, json!({"to": "+14155550123", "agent": "{id}"}))),
        ("POST", "/api/calls/simulate") => Some(Same(Some(json!({})))),
        ("POST", "/api/websocket/interrupt/{connection_id}" | "/api/websocket/clear/{connection_id}") => {
            one(Thing::Connection, Some(json!({})))
        }
        ("POST", "/api/phone-numbers") => Some(Names(
            Thing::Agent,
            json!({"phoneNumber": "+14155550777", "provider": "twilio", "linkedAgentId": "{id}",
                "twilioConfig": {"accountSid": "AC00000000000000000000000000000001", "insecure": true}}),
        )),
        ("PUT", "/api/phone-numbers") => by_query(Thing::Number, Some(json!({"displayName": "x"}))),
        ("DELETE", "/api/phone-numbers") => by_query(Thing::Number, None),
        ("POST", "/api/agents") => Some(Changes(json!({"name": "maker", "kind": "echo"}), "/api/agents")),
        ("PUT", "/api/agents") => by_query(Thing::Agent, Some(json!({"greeting": "hello"}))),
        ("DELETE", "/api/agents") => by_query(Thing::Agent, None),
        ("POST", "/api/jobs/{id}/replay") => one(Thing::Job, Some(json!({}))),
        ("POST", "/api/keys") => Some(Changes(json!({"name": "maker"}), "/api/keys")),
        ("DELETE", "/api/keys/{id}") => one(Thing::Key, None),
        ("POST", "/api/tenants") => Some(Operator(json!({"name": "x"}))),
        ("PUT", "/api/tenants/{id}") => Some(Operator(json!({"name": "x"}))),
        ("GET", "/api/tenants/{id}") => one(Thing::Tenant, None),
        ("GET" | "DELETE", _) if path.starts_with("/api/calls/{id}") => one(Thing::Call, None),
        ("POST", _) if path.starts_with("/api/calls/{id}/") => one(Thing::Sid, Some(json!({}))),
        _ => None,
    }
}

/// Whether a path is one that vendors are told.
fn is_hook(path: &str) -> bool {
    let of = |v: &&vendor::Descriptor| {
        let stream =
            !v.stream_path.is_empty() && (path == v.stream_path || path == format!("{}/{{token}}", v.stream_path));
        stream || v.hook_paths.iter().any(|hook| hook.path == path)
    };
    let of_number = [vendor::NUMBER_HOOK, vendor::NUMBER_STREAM, "/ws"];
    vendor::all().iter().any(of) || of_number.iter().any(|p| path.starts_with(&format!("{p}/{{number}}")))
}

/// An answer: status, headers without the date, body with the id that was asked for replaced.
#[derive(Debug, PartialEq)]
struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

struct World {
    house: House,
    serial: AtomicU64,
    legs: std::sync::Mutex<Vec<crossbeam_channel::Receiver<(u64, LegCommand)>>>,
}

impl World {
    async fn new() -> Self {
        let house = House::of(CONFIG).await;
        for id in [OURS, THEIRS] {
            let body = json!({"id": id, "name": format!("tenant {id}")});
            let (status, said) = house
                .post("/api/tenants", Some(&house.token(1, Role::Admin)), &body)
                .await;
            assert_eq!(status, 200, "{said}");
        }
        Self {
            house,
            serial: AtomicU64::new(0),
            legs: std::sync::Mutex::default(),
        }
    }

    /// One of it of a tenant, made anew.
    async fn make(&self, thing: Thing, tenant: i64, carrier: &'static vendor::Descriptor) -> String {
        let n = self.serial.fetch_add(1, Relaxed);
        let admin = self.house.token(tenant, Role::Admin);
        let made = async |path: &str, body: Value| {
            let (status, said) = self.house.post(path, Some(&admin), &body).await;
            assert_eq!(status, 200, "{path} {said}");
            said
        };
        let text = |v: &Value| v.as_str().unwrap_or_else(|| panic!("{v}")).to_owned();
        match thing {
            Thing::Call => self.call(n, tenant, carrier).await.0,
            Thing::Sid => self.call(n, tenant, carrier).await.1,
            Thing::Connection => self.call(n, tenant, carrier).await.2,
            Thing::Number => {
                let account = json!({"accountSid": "AC00000000000000000000000000000001", "authToken": "12345678901234567890123456789012"});
                let body =
                    json!({"phoneNumber": format!("+1415556{n:04}"), "provider": "twilio", "twilioConfig": account});
                text(&made("/api/phone-numbers", body).await["phoneNumber"]["id"])
            }
            Thing::Agent => {
                let body = json!({"name": format!("agent {n}"), "kind": "echo"});
                text(&made("/api/agents", body).await["data"]["id"])
            }
            Thing::Job => {
                let call = self.call(n, tenant, carrier).await.0;
                let row = self.house.store.call(TenantId(tenant), &call).await.unwrap().unwrap();
                let at = sidetone::base::time::Wall::now();
                let mut job = JobRow::after_call(&row, at, at);
                (job.id, job.state) = (format!("test:{n:06}"), JobState::Buried);
                let id = job.id.clone();
                let writes = vec![Write::Job(Box::new(job))];
                self.house.store.commit(Batch { writes }).await.unwrap();
                id
            }
            Thing::Key => text(&made("/api/keys", json!({"name": format!("key {n}")})).await["data"]["id"]),
            Thing::Tenant => tenant.to_string(),
        }
    }

    /// The id of one that never was, as long as those that are.
    fn absent(&self, thing: Thing, carrier: &'static vendor::Descriptor) -> String {
        let n = self.serial.fetch_add(1, Relaxed);
        match thing {
            Thing::Call => CallId::new().to_string(),
            Thing::Sid => sid(carrier, n),
            Thing::Connection => ConnectionId::new().to_string(),
            Thing::Number => sidetone::base::ids::NumberId::new().to_string(),
            Thing::Agent => sidetone::base::ids::AgentId::new().to_string(),
            Thing::Job => format!("test:{n:06}"),
            Thing::Key => KeyId::new().to_string(),
            Thing::Tenant => "9".to_owned(),
        }
    }

    /// A live call with its stream: our id, the vendor's, and that of its socket.
    async fn call(&self, n: u64, tenant: i64, carrier: &'static vendor::Descriptor) -> (String, String, String) {
        let sid = sid(carrier, n);
        let update = CallUpdate {
            call_sid: sid.clone(),
            from: "+15559990000".into(),
            to: format!("+1555{tenant}00001"),
            inbound: true,
            news: CallNews::Ringing,
            dedup_key: sid.clone(),
            duration_s: None,
            why: Default::default(),
        };
        let control = &self.house.control;
        let answer = control
            .announce_simulated(TenantId(tenant), carrier, update)
            .await
            .unwrap();
        let Answer::Stream { token, .. } = answer else {
            panic!("{answer:?}")
        };
        let (commands, inbox) = crossbeam_channel::unbounded();
        let connection = ConnectionId::new();
        let start = StreamStart {
            stream_id: format!("stream-{sid}"),
            call_sid: sid.clone(),
            account: None,
            token: None,
            inbound: sidetone::base::format::AudioFormat::ULAW_8K,
            outbound: sidetone::base::format::AudioFormat::ULAW_8K,
            from: None,
            to: None,
            ptime_ms: None,
        };
        let arrival = Arrival {
            leg: LegHandle::new(commands, Arc::new(sidetone::base::doorbell::Doorbell::new()), 1),
            connection,
            vendor: carrier,
            start,
            path_token: Some(token),
            number: None,
            proven: false,
            peer: self.house.address,
            shard: 0,
        };
        self.legs.lock().unwrap().push(inbox);
        control.arrivals().send(arrival).await.unwrap();
        let begun = async {
            loop {
                let live = control.call(TenantId(tenant), &sid).await.unwrap();
                if live.connection.is_some() {
                    break live.row.call_id.to_string();
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let id = tokio::time::timeout(crate::house::PATIENCE, begun)
            .await
            .expect("the call streams");
        (id, sid, connection.to_string())
    }

    /// One request as it is, and its answer without what differs for everybody.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>, token: Option<&str>, id: &str) -> Said {
        let mut request = ::http::Request::builder().method(method).uri(path.replace("{id}", id));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let text = body.map_or_else(String::new, |b| b.to_string().replace("{id}", id));
        let response = self.house.request(request.body(text).unwrap()).await;
        let headers = response.headers().iter().filter(|(name, _)| *name != "date");
        Said {
            status: response.status().as_u16(),
            headers: headers.map(|(n, v)| (n.to_string(), format!("{v:?}"))).collect(),
            body: response.body().replace(id, "{id}"),
        }
    }
}

fn sid(carrier: &vendor::Descriptor, n: u64) -> String {
    format!("{}-{n:06}", carrier.name)
}

fn carrier_of(path: &str) -> &'static vendor::Descriptor {
    let named = path.strip_prefix("/api/calls/").and_then(|p| p.split('/').next());
    named.and_then(vendor::by_name).unwrap_or(vendor::all()[0])
}

const REFUSALS: [u16; 3] = [401, 403, 404];

#[tokio::test(flavor = "multi_thread")]
async fn no_route_tells_a_tenant_of_another() {
    let world = World::new().await;
    let routes = world.house.routes.clone();
    assert!(routes.len() > 60, "{}", routes.len());
    for (method, path, gate) in &routes {
        let rule =
            rule(method, path).unwrap_or_else(|| panic!("{method} {path} has no rule for two tenants: write one"));
        let at = format!("{method} {path}");
        let role = match gate {
            Gate::Role(role) => *role,
            Gate::Frontend => Role::Viewer,
            Gate::Open | Gate::Vendor => Role::Admin,
        };
        let (token, theirs) = (world.house.token(OURS, role), world.house.token(THEIRS, role));
        let carrier = carrier_of(path);
        // Who may less is told so whatever is asked about, and who is nobody even before.
        let gated = async |place: &str, body: Option<&Value>, ids: &[&str]| {
            let lower = Role::ALL
                .into_iter()
                .filter(|r| *r < role && matches!(gate, Gate::Role(_)));
            for asker in lower.map(|r| Some(world.house.token(OURS, r))).chain([None]) {
                let expected = if asker.is_some() { 403 } else { 401 };
                let mut said = Vec::new();
                for id in ids {
                    said.push(world.ask(method, place, body, asker.as_deref(), id).await);
                }
                assert_eq!(said[0].status, expected, "{at} {said:?}");
                assert!(said.windows(2).all(|w| w[0] == w[1]), "{at} {said:?}");
            }
        };
        match rule {
            Rule::One(thing, place, body) => {
                let (own, foreign) = (
                    world.make(thing, OURS, carrier).await,
                    world.make(thing, THEIRS, carrier).await,
                );
                let absent = world.absent(thing, carrier);
                let place = place.replace("{connection_id}", "{id}");
                gated(&place, body.as_ref(), &[&own, &foreign, &absent]).await;
                let of_foreign = world.ask(method, &place, body.as_ref(), Some(&token), &foreign).await;
                let of_absent = world.ask(method, &place, body.as_ref(), Some(&token), &absent).await;
                assert_eq!(of_foreign, of_absent, "{at}");
                assert_eq!(of_foreign.status, 404, "{at} {of_foreign:?}");
                // Asked for last: it may be gone after that. Where it has none of what is asked for, it says so in another way.
                let of_own = world.ask(method, &place, body.as_ref(), Some(&token), &own).await;
                assert!(!REFUSALS[..2].contains(&of_own.status), "{at} {of_own:?}");
                assert_ne!(of_own.body, of_absent.body, "{at}");
                let untouched = world.ask(method, &place, body.as_ref(), Some(&theirs), &foreign).await;
                assert_ne!(untouched.body, of_absent.body, "{at}: theirs is still there for them");
            }
            Rule::Shows(thing, place) => {
                let (own, foreign) = (
                    world.make(thing, OURS, carrier).await,
                    world.make(thing, THEIRS, carrier).await,
                );
                gated(&place, None, &[&own]).await;
                // An id of a tenant is a digit: it is looked for where ids stand.
                let quoted = |id: &str| {
                    if matches!(thing, Thing::Tenant) {
                        format!("\"id\":{id},")
                    } else {
                        id.to_owned()
                    }
                };
                for (asker, sees, not) in [(&token, &own, &foreign), (&theirs, &foreign, &own)] {
                    let said = world.ask(method, &place, None, Some(asker), "nothing").await;
                    assert_eq!(said.status, 200, "{at} {said:?}");
                    assert!(said.body.contains(&quoted(sees)), "{at} {said:?}");
                    assert!(!said.body.contains(&quoted(not)), "{at} {said:?}");
                }
            }
            Rule::Names(thing, body) => {
                let (own, foreign) = (
                    world.make(thing, OURS, carrier).await,
                    world.make(thing, THEIRS, carrier).await,
                );
                let absent = world.absent(thing, carrier);
                gated(path, Some(&body), &[&own, &foreign, &absent]).await;
                let of_foreign = world.ask(method, path, Some(&body), Some(&token), &foreign).await;
                let of_absent = world.ask(method, path, Some(&body), Some(&token), &absent).await;
                assert_eq!(of_foreign, of_absent, "{at}");
                assert!(of_foreign.status >= 400, "{at} {of_foreign:?}");
                let of_own = world.ask(method, path, Some(&body), Some(&token), &own).await;
                assert!(!REFUSALS.contains(&of_own.status), "{at} {of_own:?}");
            }
            Rule::Changes(body, shown) => {
                gated(path, Some(&body), &["x"]).await;
                let viewer = world.house.token(THEIRS, Role::Admin);
                let before = world.ask("GET", shown, None, Some(&viewer), "x").await;
                let said = world.ask(method, path, Some(&body), Some(&token), "x").await;
                assert_eq!(said.status, 200, "{at} {said:?}");
                assert_eq!(world.ask("GET", shown, None, Some(&viewer), "x").await, before, "{at}");
            }
            Rule::Operator(body) => {
                gated(path, Some(&body), &["2", "3", "9"]).await;
                let mut said = Vec::new();
                for id in ["2", "3", "9"] {
                    said.push(world.ask(method, path, Some(&body), Some(&token), id).await);
                }
                assert_eq!(said[0].status, 403, "{at} {said:?}");
                assert!(said.windows(2).all(|w| w[0] == w[1]), "{at} {said:?}");
                let operator = world.house.token(1, role);
                assert_eq!(
                    world.ask(method, path, Some(&body), Some(&operator), "2").await.status,
                    200,
                    "{at}"
                );
            }
            Rule::Same(body) => {
                if matches!(gate, Gate::Role(_)) {
                    gated(path, body.as_ref(), &["x"]).await;
                }
                // Of as many calls each: times of day and ids of errors aside, which a body without any has not.
                let shown = async |token| {
                    let said = world.ask(method, path, body.as_ref(), Some(token), "\u{0}").await;
                    let body: Value = serde_json::from_str(&said.body).unwrap_or_default();
                    (said.status, body["error"].clone())
                };
                assert_eq!(shown(&token).await, shown(&theirs).await, "{at}");
            }
            Rule::Socket => {
                let (own, foreign) = (
                    world.make(Thing::Call, OURS, carrier).await,
                    world.make(Thing::Call, THEIRS, carrier).await,
                );
                sockets(
                    &world,
                    path,
                    &token,
                    [&own, &foreign, &world.absent(Thing::Call, carrier)],
                )
                .await;
            }
            Rule::Vendor => {
                let (own, foreign) = (
                    world.make(Thing::Number, OURS, carrier).await,
                    world.make(Thing::Number, THEIRS, carrier).await,
                );
                for number in [&own, &foreign] {
                    let place = path
                        .replace("{number}", number)
                        .replace("{what}", "status")
                        .replace("{token}", "t0ken");
                    let body = (method == "POST").then(|| json!({"CallSid": "x"}));
                    let stranger = world.ask(method, &place, body.as_ref(), None, "\u{0}").await;
                    let tenant = world.ask(method, &place, body.as_ref(), Some(&token), "\u{0}").await;
                    assert_eq!(stranger, tenant, "{at}: a tenant's credential is no vendor's proof");
                    assert!(stranger.status >= 400, "{at} {stranger:?}");
                }
            }
        }
    }
}

/// What a socket says that is asked about a call, to its end, without what differs for everybody.
async fn refused(world: &World, path: &str, token: &str, id: &str) -> (u16, String) {
    let mut socket = world
        .house
        .upgrade(&format!("{path}?call_id={id}&token={token}"), &[])
        .await
        .unwrap();
    let (code, said) = socket.closed().await;
    (code, plain(&said, id))
}

fn plain(said: &[Value], id: &str) -> String {
    let mut said = said.to_vec();
    for message in &mut said {
        if let Some(members) = message.as_object_mut() {
            members.remove("timestamp");
        }
    }
    json!(said).to_string().replace(id, "{id}")
}

/// A frontend's socket and each of its messages, about one's own call, a foreign one and none.
async fn sockets(world: &World, path: &str, token: &str, [own, foreign, absent]: [&str; 3]) {
    let stranger = world
        .house
        .upgrade(&format!("{path}?call_id={own}"), &[])
        .await
        .unwrap_err();
    for id in [foreign, absent] {
        let other = world
            .house
            .upgrade(&format!("{path}?call_id={id}"), &[])
            .await
            .unwrap_err();
        assert_eq!((stranger.0, &stranger), (401, &other), "{path}");
    }
    let of_foreign = refused(world, path, token, foreign).await;
    assert_eq!(of_foreign, refused(world, path, token, absent).await, "{path}");
    assert_eq!(of_foreign.0, 4404, "{path} {of_foreign:?}");
    let mut welcome = world
        .house
        .upgrade(&format!("{path}?call_id={own}&token={token}"), &[])
        .await
        .unwrap();
    let named = if path == "/frontend-audio" { "event" } else { "type" };
    welcome.say(&json!({ named: "ping" })).await;
    welcome.next_of("pong").await;
    if !path.contains("telephony") {
        return;
    }
    let messages = [
        json!({"type": "agent_message", "call_id": "{id}", "message": "hello"}),
        json!({"type": "update_call_status", "call_id": "{id}", "status": "ended"}),
        json!({"type": "audio_data", "call_id": "{id}", "audio_data": "////", "encoding": "MULAW", "sample_rate": 8000}),
        json!({"type": "init_telephony_stream", "call_id": "{id}"}),
    ];
    for (role, bound) in [(Role::Agent, false), (Role::Agent, true), (Role::Viewer, false)] {
        for message in &messages {
            let mut told = Vec::new();
            for id in [foreign, absent] {
                let call = if bound {
                    format!("&call_id={own}")
                } else {
                    String::new()
                };
                let query = format!(
                    "{path}?client_type=telephony&token={}{call}",
                    world.house.token(OURS, role)
                );
                let mut socket = world.house.upgrade(&query, &[]).await.unwrap();
                socket.next_of("telephony_connected").await;
                let message: Value = serde_json::from_str(&message.to_string().replace("{id}", id)).unwrap();
                socket.say(&message).await;
                told.push(plain(&[socket.next_of("telephony_error").await], id));
            }
            assert_eq!(told[0], told[1], "{message} of {role}, bound: {bound}");
        }
    }
    // A token of another tenant prolongs nothing and opens nothing.
    let mut socket = world
        .house
        .upgrade(&format!("{path}?call_id={own}&token={token}"), &[])
        .await
        .unwrap();
    socket
        .say(&json!({"type": "refresh_token", "token": world.house.token(THEIRS, Role::Agent)}))
        .await;
    socket.next_of("telephony_error").await;
    socket
        .say(&json!({"type": "init_telephony_stream", "call_id": foreign}))
        .await;
    socket.next_of("telephony_error").await;
    let theirs = world.house.control.call(TenantId(THEIRS), foreign).await.unwrap();
    assert_ne!(
        theirs.row.status,
        sidetone::store::CallStatus::Ended,
        "nobody has ended it"
    );
}
