//! What one client may do, as a pure machine: messages and time in, effects out. The socket and the calls are `conn`'s.
//!
//! `Waiting` until the client has said which call it wants (its query may have), then `Bound` to that call or to its
//! tenant. A bound client may name its call and no other; the answer for a call that is another's and for one that never
//! was is the same.

use super::{
    Config,
    outbox::Close,
    protocol::{self, Action, ClientMessage, ServerMessage, Settings, Unreadable, error_code},
};
use crate::{
    access::{Identity, limit::Bucket},
    base::{
        fault::{Fault, Kind, Origin},
        ids::CallId,
        time::{Mono, Wall},
    },
    metrics,
};
use std::{collections::VecDeque, time::Duration};

/// Pause after which a client that sent too much starts anew.
const CALM: Duration = Duration::from_secs(2);
/// Messages that were no JSON, before the socket is closed.
const MAX_GARBAGE: u8 = 3;

/// What a client watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Every call of its tenant.
    Tenant,
    /// One call.
    Call {
        /// Our id.
        id: CallId,
        /// The vendor's.
        sid: String,
    },
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Output {
    /// Tell the client.
    Send(String),
    /// Find out whether the call (or the tenant, for `None`) can be watched, then [`Session::bound`] or [`Session::unbound`].
    Bind(Option<String>),
    /// Do this to a call; on failure, [`Session::failed`].
    Act {
        /// The call, by either id.
        call: String,
        /// What.
        action: Action,
    },
    /// Verify the token, then [`Session::refreshed`].
    Refresh(String),
    /// Send a ping.
    Ping,
    /// End the socket once everything before has been sent.
    Close(Close),
}

#[derive(Debug)]
enum State {
    Waiting { until: Mono },
    Binding,
    Bound(Bound),
    Closed,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    expires: Option<Mono>,
    settings: Settings,
    state: State,
    limits: Limits,
    next_ping: Mono,
    ping_sent: Option<Mono>,
    garbage: u8,
    out: VecDeque<Output>,
}

#[derive(Debug)]
struct Limits {
    messages: Bucket,
    control: Bucket,
    over_since: Option<Mono>,
    last_drop: Mono,
    over_limit: Duration,
    ping_every: Duration,
    pong_timeout: Duration,
}

impl Session {
    /// A client that has just connected, with what its query said.
    pub fn new(config: &Config, identity: Identity, settings: Settings, now: Mono, wall: Wall) -> Self {
        let mut session = Self {
            expires: None,
            identity: identity.clone(),
            state: State::Waiting {
                until: now + config.init_timeout,
            },
            limits: Limits {
                messages: Bucket::new(config.messages),
                control: Bucket::new(config.control_frames),
                over_since: None,
                last_drop: Mono::ZERO,
                over_limit: config.over_limit,
                ping_every: config.ping_every,
                pong_timeout: config.pong_timeout,
            },
            next_ping: now + config.ping_every,
            ping_sent: None,
            garbage: 0,
            out: VecDeque::new(),
            settings,
        };
        session.assume(identity, now, wall);
        if session.settings.suffice() {
            session.bind();
        }
        session
    }

    /// The next effect. Drain after every input.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What the client asked to see.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whose calls.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When [`Session::tick`] is due at the latest.
    pub fn deadline(&self) -> Mono {
        let init = match self.state {
            State::Closed => return Mono::from_nanos(u64::MAX),
            State::Waiting { until } => Some(until),
            State::Binding | State::Bound(_) => None,
        };
        let pong = self.ping_sent.map(|at| at + self.limits.pong_timeout);
        [init, pong, self.expires]
            .into_iter()
            .flatten()
            .fold(self.next_ping, Ord::min)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Mono) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if self.expires.is_some_and(|end| end <= now) {
            return self.close(4401, "token expired");
        }
        if matches!(self.state, State::Waiting { until } if until <= now) {
            return self.close(1008, "init_telephony_stream did not come");
        }
        if self
            .ping_sent
            .is_some_and(|at| now.since(at) >= self.limits.pong_timeout)
        {
            return self.close(1001, "no pong");
        }
        if self.next_ping <= now {
            self.next_ping = now + self.limits.ping_every;
            self.ping_sent.get_or_insert(now);
            self.out.push_back(Output::Ping);
        }
    }

    /// A ping or pong came.
    pub fn control_frame(&mut self, pong: bool, now: Mono) {
        if pong {
            self.ping_sent = None;
        }
        if !self.limits.control.take(now) {
            self.close(1008, "too many control frames");
        }
    }

    /// A binary message came.
    pub fn binary(&mut self) {
        self.close(1003, "text messages only");
    }

    /// A text message came. `within` says whether the tenant's own limit allows it.
    pub fn text(&mut self, text: &str, within: bool, now: Mono, wall: Wall) {
        self.tick(now);
        if matches!(self.state, State::Closed) || !self.admit(within, now) {
            return;
        }
        match protocol::parse(text) {
            Ok(message) => self.message(message, wall),
            Err(Unreadable::NotJson) => {
                self.garbage += 1;
                metrics::dropped("frontend_message", "not_json", 1);
                if self.garbage >= MAX_GARBAGE {
                    return self.close(1007, "not JSON");
                }
                self.error(None, "CONNECTION_FAILED", "not JSON, or nested too deep", None, wall);
            }
            Err(Unreadable::NotAMessage { asked, what, call_id }) => {
                metrics::dropped("frontend_message", "shape", 1);
                self.error(call_id.as_deref(), error_code(Origin::Client, asked), &what, None, wall);
            }
        }
    }

    fn admit(&mut self, within: bool, now: Mono) -> bool {
        let limits = &mut self.limits;
        if limits.messages.take(now) && within {
            return true;
        }
        metrics::dropped("frontend_message", "rate", 1);
        if now.since(limits.last_drop) > CALM {
            limits.over_since = None;
        }
        limits.last_drop = now;
        if now.since(*limits.over_since.get_or_insert(now)) >= limits.over_limit {
            self.close(1008, "too many messages");
        }
        false
    }

    fn message(&mut self, message: ClientMessage, wall: Wall) {
        match message {
            ClientMessage::Ping => self.send(&ServerMessage::Pong),
            ClientMessage::RefreshToken(token) => self.out.push_back(Output::Refresh(token)),
            ClientMessage::Init(settings) => self.init(settings),
            ClientMessage::Do { call_id, action } => self.act(call_id, action, wall),
        }
    }

    fn init(&mut self, new: Settings) {
        let old = std::mem::take(&mut self.settings);
        self.settings = Settings {
            call_id: new.call_id.or(old.call_id),
            language: new.language.or(old.language),
            model: new.model.or(old.model),
            client_type: new.client_type.or(old.client_type),
            encoding: new.encoding.or(old.encoding),
            last_event_id: new.last_event_id,
        };
        let same = match (&self.state, &self.settings.call_id) {
            (State::Bound(Bound::Tenant), None) => true,
            (State::Bound(Bound::Call { id, sid }), Some(asked)) => id.as_str() == asked || sid == asked,
            _ => false,
        };
        if same && self.settings.last_event_id.is_none() {
            self.out.extend(self.welcome().map(Output::Send));
        } else {
            self.bind();
        }
    }

    fn act(&mut self, call_id: Option<String>, action: Action, wall: Wall) {
        let client_ref = action.client_ref();
        if self.identity.role < action.needs() {
            metrics::refused("frontend_message", "role");
            let what = format!("{}: not allowed for the role {}", action.name(), self.identity.role);
            return self.error(
                call_id.as_deref(),
                "CONNECTION_FAILED",
                &what,
                client_ref.as_deref(),
                wall,
            );
        }
        let call = match (&self.state, call_id) {
            (State::Bound(Bound::Tenant), Some(call)) => Ok(call),
            (State::Bound(Bound::Tenant), None) => Err("call_id is missing"),
            (State::Bound(Bound::Call { id, .. }), None) => Ok(id.to_string()),
            (State::Bound(Bound::Call { id, sid }), Some(call)) if id.as_str() == call || *sid == call => Ok(call),
            (State::Bound(Bound::Call { .. }), Some(call)) => {
                metrics::refused("frontend_message", "call");
                self.error(
                    Some(&call),
                    "CONNECTION_FAILED",
                    "call not found",
                    client_ref.as_deref(),
                    wall,
                );
                return self.close(4404, "call not found");
            }
            (State::Waiting { .. } | State::Binding | State::Closed, _) => Err("init_telephony_stream comes first"),
        };
        match call {
            Ok(call) => {
                let action = self.complete(action);
                self.out.push_back(Output::Act { call, action });
            }
            Err(what) => {
                let what = format!("{}: {what}", action.name());
                self.error(None, "CONNECTION_FAILED", &what, client_ref.as_deref(), wall);
            }
        }
    }

    /// Fills in what the message left to the session.
    fn complete(&self, mut action: Action) -> Action {
        if let Action::Say(say) = &mut action {
            if say.language.is_empty() {
                say.language = self.settings.language.clone().unwrap_or_else(|| "auto".to_owned());
            }
            say.sender_name = Some(self.identity.subject.clone());
        }
        action
    }

    fn bind(&mut self) {
        self.state = State::Binding;
        self.out.push_back(Output::Bind(self.settings.call_id.clone()));
    }

    /// The call or the tenant is watched from now on: the welcome, to be sent before anything else.
    #[must_use]
    pub fn bound(&mut self, bound: Bound) -> Option<String> {
        if matches!(self.state, State::Closed) {
            return None;
        }
        self.state = State::Bound(bound);
        self.welcome()
    }

    /// The call cannot be watched.
    pub fn unbound(&mut self, fault: &Fault, wall: Wall) {
        let call = self.settings.call_id.clone();
        self.error(call.as_deref(), "CONNECTION_FAILED", &fault.message, None, wall);
        match fault.kind {
            Kind::NotFound => self.close(4404, "call not found"),
            _ => self.close(1013, "try again later"),
        }
    }

    fn welcome(&self) -> Option<String> {
        let State::Bound(bound) = &self.state else { return None };
        let (call_id, call_sid) = match bound {
            Bound::Tenant => (None, None),
            Bound::Call { id, sid } => (Some(*id), Some(sid.as_str())),
        };
        let connected = ServerMessage::TelephonyConnected {
            call_id,
            call_sid,
            status: "ready",
            language: self.settings.language.as_deref(),
            model: self.settings.model.as_deref(),
        };
        Some(connected.text())
    }

    /// What the client asked for could not be done. `vendor` is the one at fault with its code, where one is.
    pub fn failed(
        &mut self,
        asked: &'static str,
        call: &str,
        client_ref: Option<&str>,
        fault: &Fault,
        vendor: Option<(&'static str, &'static str)>,
        wall: Wall,
    ) {
        let error = ServerMessage::TelephonyError {
            call_id: Some(call),
            error_code: vendor.map_or_else(|| error_code(fault.origin, asked), |(_, code)| code),
            message: &format!("{asked}: {fault}"),
            vendor: vendor.map(|(name, _)| name),
            message_id: None,
            client_ref,
            timestamp: wall,
        };
        self.out.push_back(Output::Send(error.text()));
    }

    /// A token sent by `refresh_token` was verified, or was not.
    pub fn refreshed(&mut self, identity: Option<Identity>, now: Mono, wall: Wall) {
        match identity {
            Some(new) if new.tenant == self.identity.tenant => {
                self.assume(new, now, wall);
                let expires_at = self.identity.expires;
                self.send(&ServerMessage::TokenRefreshed { expires_at });
            }
            _ => self.error(None, "CONNECTION_FAILED", "refresh_token: token refused", None, wall),
        }
    }

    /// The wall clock is read once: the session ends when as much time has passed, however that clock is set meanwhile.
    fn assume(&mut self, identity: Identity, now: Mono, wall: Wall) {
        self.expires = identity.expires.map(|end| {
            let left = end.as_micros().saturating_sub(wall.as_micros()).max(0);
            now + Duration::from_micros(left as u64)
        });
        self.identity = identity;
    }

    fn send(&mut self, message: &ServerMessage<'_>) {
        self.out.push_back(Output::Send(message.text()));
    }

    fn error(&mut self, call: Option<&str>, code: &'static str, what: &str, client_ref: Option<&str>, wall: Wall) {
        self.send(&ServerMessage::TelephonyError {
            call_id: call,
            error_code: code,
            message: what,
            vendor: None,
            message_id: None,
            client_ref,
            timestamp: wall,
        });
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.out.push_back(Output::Close(Close::new(code, reason)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Role, base::ids::TenantId};
    use serde_json::{Value, json};

    const T0: Mono = Mono::from_millis(60_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn identity(role: Role, expires: Option<Wall>) -> Identity {
        Identity {
            tenant: TenantId(1),
            role,
            subject: "ann".into(),
            expires,
        }
    }

    fn session(role: Role, query: &[(&str, &str)]) -> Session {
        let settings = Settings::from_query(query.iter().copied()).unwrap();
        Session::new(&Config::default(), identity(role, None), settings, T0, Wall::default())
    }

    fn watching_tenant() -> Session {
        let mut s = session(Role::Agent, &[("client_type", "telephony"), ("language", "es")]);
        assert_eq!(shown(&mut s), ["bind tenant"]);
        assert!(s.bound(Bound::Tenant).is_some());
        s
    }

    fn watching_call(id: CallId) -> Session {
        let mut s = session(Role::Agent, &[("call_id", "CA1")]);
        assert_eq!(shown(&mut s), ["bind CA1"]);
        let sid = "CA1".to_owned();
        assert!(s.bound(Bound::Call { id, sid }).is_some());
        s
    }

    fn say(s: &mut Session, message: &Value) {
        s.text(&message.to_string(), true, T0, Wall::default());
    }

    /// The effects so far, each in a few words.
    fn shown(s: &mut Session) -> Vec<String> {
        std::iter::from_fn(|| s.poll())
            .map(|output| match output {
                Output::Send(text) => {
                    let v: Value = serde_json::from_str(&text).unwrap();
                    let what = v["message"].as_str().unwrap_or_default();
                    format!("{} {what}", v["type"].as_str().unwrap()).trim_end().to_owned()
                }
                Output::Bind(call) => format!("bind {}", call.as_deref().unwrap_or("tenant")),
                Output::Act { call, action } => format!("{} {call}", action.name()),
                Output::Refresh(_) => "refresh".to_owned(),
                Output::Ping => "ping".to_owned(),
                Output::Close(close) => format!("close {} {}", close.code, close.reason),
            })
            .collect()
    }

    fn agent_message(call: Option<&str>) -> Value {
        json!({"type": "agent_message", "call_id": call, "message": "hello"})
    }

    #[test]
    fn a_query_that_says_enough_binds_at_once_and_another_waits_for_init() {
        let mut s = session(Role::Agent, &[("token", "x"), ("language", "en")]);
        assert_eq!(shown(&mut s), [""; 0]);
        assert_eq!(s.deadline(), T0 + SECOND * 10);
        say(
            &mut s,
            &json!({"type": "init_telephony_stream", "call_id": "CA7", "language": "de"}),
        );
        assert_eq!(shown(&mut s), ["bind CA7"]);
        assert_eq!(s.settings().language.as_deref(), Some("de"));
    }

    #[test]
    fn without_init_in_ten_seconds_the_socket_ends() {
        let mut s = session(Role::Agent, &[]);
        s.tick(T0 + SECOND * 9);
        assert_eq!(shown(&mut s), [""; 0]);
        say(&mut s, &agent_message(Some("CA1")));
        assert_eq!(
            shown(&mut s),
            ["telephony_error agent_message: init_telephony_stream comes first"]
        );
        s.tick(T0 + SECOND * 10);
        assert_eq!(shown(&mut s), ["close 1008 init_telephony_stream did not come"]);
        s.tick(T0 + SECOND * 60);
        say(&mut s, &json!({"type": "ping"}));
        assert_eq!(shown(&mut s), [""; 0], "nothing follows a close");
        assert!(s.deadline() > T0 + SECOND * 1_000_000);
    }

    #[test]
    fn init_after_a_full_query_is_welcomed_again_and_rebinds_only_to_something_else() {
        let mut s = watching_call(CallId::new());
        say(&mut s, &json!({"type": "init_telephony_stream", "call_id": "CA1"}));
        assert_eq!(shown(&mut s), ["telephony_connected"]);
        say(&mut s, &json!({"type": "init_telephony_stream", "call_id": "CA2"}));
        assert_eq!(shown(&mut s), ["bind CA2"]);
        let mut s = watching_call(CallId::new());
        say(&mut s, &json!({"type": "init_telephony_stream", "last_event_id": 5}));
        assert_eq!(shown(&mut s), ["bind CA1"], "a replay starts anew");
    }

    #[test]
    fn a_client_bound_to_a_call_may_name_it_either_way_and_no_other() {
        let id = CallId::new();
        for call in [None, Some("CA1"), Some(id.as_str())] {
            let mut s = watching_call(id);
            say(&mut s, &agent_message(call));
            let expected = format!("agent_message {}", call.unwrap_or(id.as_str()));
            assert_eq!(shown(&mut s), [expected]);
        }
        for action in [
            agent_message(Some("CA2")),
            json!({"type": "update_call_status", "call_id": "CA2", "status": "ended"}),
            json!({"type": "audio_data", "call_id": "CA2", "audio_data": ""}),
        ] {
            let mut s = watching_call(id);
            say(&mut s, &action);
            assert_eq!(
                shown(&mut s),
                ["telephony_error call not found", "close 4404 call not found"]
            );
        }
    }

    #[test]
    fn a_client_of_the_whole_tenant_names_the_call() {
        let mut s = watching_tenant();
        say(&mut s, &agent_message(Some("CA2")));
        say(&mut s, &agent_message(None));
        assert_eq!(
            shown(&mut s),
            ["agent_message CA2", "telephony_error agent_message: call_id is missing"]
        );
    }

    #[test]
    fn a_call_that_cannot_be_watched_ends_the_socket_without_saying_why() {
        let mut s = session(Role::Agent, &[("call_id", "CA1")]);
        shown(&mut s);
        s.unbound(&Fault::not_found("call"), Wall::default());
        assert_eq!(
            shown(&mut s),
            ["telephony_error call not found", "close 4404 call not found"]
        );
    }

    #[test]
    fn a_viewer_watches_and_does_nothing_to_a_call() {
        let mut s = session(Role::Viewer, &[("client_type", "telephony")]);
        shown(&mut s);
        let _ = s.bound(Bound::Tenant);
        for action in [
            agent_message(Some("CA1")),
            json!({"type": "update_call_status", "call_id": "CA1", "status": "answered"}),
            json!({"type": "audio_data", "call_id": "CA1", "audio_data": "", "target": "caller"}),
        ] {
            say(&mut s, &action);
            let name = action["type"].as_str().unwrap();
            assert_eq!(
                shown(&mut s),
                [format!("telephony_error {name}: not allowed for the role viewer")]
            );
        }
        say(&mut s, &json!({"type": "ping"}));
        assert_eq!(shown(&mut s), ["pong"]);
    }

    #[test]
    fn messages_speak_the_sessions_language_in_its_owners_name() {
        let mut s = watching_tenant();
        say(&mut s, &agent_message(Some("CA1")));
        let Some(Output::Act {
            action: Action::Say(said),
            ..
        }) = s.poll()
        else {
            panic!()
        };
        assert_eq!(
            (said.language.as_str(), said.sender_name.as_deref()),
            ("es", Some("ann"))
        );
        say(
            &mut s,
            &json!({"type": "agent_message", "call_id": "CA1", "message": "a", "language": "fr"}),
        );
        let Some(Output::Act {
            action: Action::Say(said),
            ..
        }) = s.poll()
        else {
            panic!()
        };
        assert_eq!(said.language, "fr");
    }

    #[test]
    fn garbage_is_answered_twice_and_ends_the_socket_the_third_time() {
        let mut s = watching_tenant();
        for text in ["{", "hello", "[[[[[[[[[[[[[[[[[[[["] {
            s.text(text, true, T0, Wall::default());
        }
        let error = "telephony_error not JSON, or nested too deep";
        assert_eq!(shown(&mut s), [error, error, "close 1007 not JSON"]);
        let mut s = watching_tenant();
        for _ in 0..10 {
            say(&mut s, &json!({"type": "dance"}));
        }
        assert_eq!(shown(&mut s).len(), 10, "JSON that is no message is answered each time");
    }

    #[test]
    fn the_session_ends_with_its_token_unless_it_was_refreshed_within_the_tenant() {
        let wall = Wall::from_micros(1_000_000_000);
        let until = |s: u64| Some(Wall::from_micros(wall.as_micros() + s as i64 * 1_000_000));
        let settings = Settings {
            client_type: Some("telephony".into()),
            ..Settings::default()
        };
        let start = || {
            let who = identity(Role::Agent, until(15));
            let mut s = Session::new(&Config::default(), who, settings.clone(), T0, wall);
            let _ = s.bound(Bound::Tenant);
            shown(&mut s);
            s
        };
        let mut s = start();
        assert_eq!(s.deadline(), T0 + SECOND * 15);
        s.tick(T0 + SECOND * 15);
        assert_eq!(shown(&mut s), ["close 4401 token expired"]);

        let mut s = start();
        say(&mut s, &json!({"type": "refresh_token", "token": "t"}));
        assert_eq!(shown(&mut s), ["refresh"]);
        s.refreshed(Some(identity(Role::Viewer, until(60))), T0, wall);
        assert_eq!(shown(&mut s), ["token_refreshed"]);
        s.tick(T0 + SECOND * 15);
        assert_eq!(shown(&mut s), [""; 0]);
        assert_eq!(s.identity().role, Role::Viewer, "the new token's role counts");

        for bad in [
            None,
            Some(Identity {
                tenant: TenantId(2),
                ..identity(Role::Agent, until(60))
            }),
        ] {
            let mut s = start();
            s.refreshed(bad, T0, wall);
            assert_eq!(shown(&mut s), ["telephony_error refresh_token: token refused"]);
            s.tick(T0 + SECOND * 15);
            assert_eq!(shown(&mut s), ["close 4401 token expired"]);
        }
    }

    #[test]
    fn a_ping_every_twenty_seconds_wants_a_pong_within_twenty() {
        let mut s = watching_tenant();
        for n in 1..4 {
            assert_eq!(s.deadline(), T0 + SECOND * 20 * n);
            s.tick(s.deadline());
            assert_eq!(shown(&mut s), ["ping"]);
            s.control_frame(true, s.deadline());
        }
        s.tick(T0 + SECOND * 80);
        s.tick(T0 + SECOND * 100);
        assert_eq!(shown(&mut s), ["ping", "close 1001 no pong"]);
    }

    #[test]
    fn a_burst_is_cut_and_ten_seconds_over_the_limit_end_the_socket() {
        let ping = json!({"type": "ping"}).to_string();
        let mut s = watching_tenant();
        for _ in 0..300 {
            s.text(&ping, true, T0, Wall::default());
        }
        assert_eq!(shown(&mut s).len(), 200);
        let mut ended = None;
        for ms in (0..20_000).step_by(10) {
            let now = T0 + Duration::from_millis(ms);
            s.text(&ping, true, now, Wall::default());
            if shown(&mut s)
                .last()
                .is_some_and(|o| o == "close 1008 too many messages")
            {
                ended = Some(ms);
                break;
            }
        }
        assert!(ended.is_some_and(|ms| (10_000..10_100).contains(&ms)), "{ended:?}");
    }

    #[test]
    fn a_voice_at_fifty_frames_a_second_beside_pings_is_no_flood() {
        let mut s = watching_tenant();
        let mut dropped = 0;
        for frame in 0..50 * 1200u64 {
            let now = T0 + Duration::from_millis(frame * 20);
            if frame % 1000 == 999 {
                s.control_frame(true, now);
            }
            for _ in 0..1 + usize::from(frame % 250 == 0) {
                s.text(r#"{"type":"ping"}"#, true, now, Wall::default());
                let out = shown(&mut s);
                assert!(!out.iter().any(|o| o.starts_with("close")), "{out:?}");
                dropped += usize::from(out.is_empty());
            }
        }
        assert!((1..100).contains(&dropped), "{dropped}");
    }

    #[test]
    fn a_fault_carries_the_code_of_who_caused_it() {
        let vendor = Some(("acme", "ACME_ERROR"));
        for (origin, asked, vendor, code) in [
            (Origin::Backend, "agent_message", None, "TTS_ERROR"),
            (Origin::Backend, "audio_data", None, "STT_ERROR"),
            (Origin::Client, "agent_message", None, "CONNECTION_FAILED"),
            (Origin::Us, "update_call_status", None, "CONNECTION_FAILED"),
            (Origin::Vendor, "update_call_status", None, "VENDOR_ERROR"),
            (Origin::Vendor, "update_call_status", vendor, "ACME_ERROR"),
        ] {
            let mut s = watching_tenant();
            let fault = Fault::new(origin, Kind::Unavailable, "it broke");
            s.failed(asked, "CA1", Some("r1"), &fault, vendor, Wall::default());
            let Some(Output::Send(text)) = s.poll() else { panic!() };
            let v: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(v["error_code"], code);
            assert_eq!(v["message"], format!("{asked}: it broke"));
            assert_eq!(
                (v["call_id"].as_str(), v["client_ref"].as_str()),
                (Some("CA1"), Some("r1"))
            );
            assert_eq!(v["vendor"].as_str(), vendor.map(|v| v.0));
        }
    }
}
