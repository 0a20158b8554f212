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
    access::{Identity, Role, limit::Bucket},
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
    /// Have the call understood in this language.
    Listen {
        /// The call.
        call: CallId,
        /// BCP 47.
        language: String,
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
            language: new.language.or_else(|| old.language.clone()),
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
            if self.settings.language != old.language {
                self.listen();
            }
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
        self.listen();
        self.welcome()
    }

    /// Passes on the language that was asked for: of one call, by who may act on it. `auto` leaves it as the call's agent has it.
    fn listen(&mut self) {
        let State::Bound(Bound::Call { id, .. }) = &self.state else {
            return;
        };
        let language = self.settings.language.as_ref().filter(|l| *l != "auto");
        if let Some(language) = language.filter(|_| self.identity.role >= Role::Agent) {
            let (call, language) = (*id, language.clone());
            self.out.push_back(Output::Listen { call, language });
        }
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
mod tests;
