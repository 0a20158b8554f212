//! What one client may do, as a pure machine: messages and time in, effects out. The socket and the calls are `conn`'s.
//!
//! `Waiting` until the client has said which call it wants (its query may have), then `Bound` to that call or to its
//! tenant. A bound client may name its call and no other; the answer for a call that is another's and for one that never
//! was is the same.

use super::{
    Config,
    outbox::Close,
    protocol::{self, Action, ClientMessage, ServerMessage, Settings, Unreadable, error_code},
    vitals::{Due, Vitals},
};
use crate::{
    access::{Identity, Role},
    base::{
        fault::{Fault, Kind, Origin},
        ids::CallId,
        time::{Mono, Wall},
    },
    metrics,
};
use std::collections::VecDeque;

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
    vitals: Vitals,
    settings: Settings,
    state: State,
    out: VecDeque<Output>,
}

impl Session {
    /// A client that has just connected, with what its query said.
    pub fn new(config: &Config, identity: Identity, settings: Settings, now: Mono, wall: Wall) -> Self {
        let mut session = Self {
            state: State::Waiting {
                until: now + config.init_timeout,
            },
            vitals: Vitals::new(config, identity, now, wall),
            out: VecDeque::new(),
            settings,
        };
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
        self.vitals.identity()
    }

    /// When [`Session::tick`] is due at the latest.
    pub fn deadline(&self) -> Mono {
        let init = match self.state {
            State::Closed => return Mono::from_nanos(u64::MAX),
            State::Waiting { until } => Some(until),
            State::Binding | State::Bound(_) => None,
        };
        init.into_iter().fold(self.vitals.deadline(), Ord::min)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Mono) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if matches!(self.state, State::Waiting { until } if until <= now) {
            return self.close(1008, "init_telephony_stream did not come");
        }
        match self.vitals.tick(now) {
            Due::Nothing => {}
            Due::Ping => self.out.push_back(Output::Ping),
            Due::Close(close) => self.end(close),
        }
    }

    /// A ping or pong came.
    pub fn control_frame(&mut self, pong: bool, now: Mono) {
        if let Err(close) = self.vitals.control_frame(pong, now) {
            self.end(close);
        }
    }

    /// A binary message came.
    pub fn binary(&mut self) {
        self.close(1003, "text messages only");
    }

    /// A text message came. `within` says whether the tenant's own limit allows it.
    pub fn text(&mut self, text: &str, within: bool, now: Mono, wall: Wall) {
        self.tick(now);
        if matches!(self.state, State::Closed) {
            return;
        }
        match self.vitals.admit(within, now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(close) => return self.end(close),
        }
        match protocol::parse(text) {
            Ok(message) => self.message(message, wall),
            Err(Unreadable::NotJson) => {
                if let Err(close) = self.vitals.garbage() {
                    return self.end(close);
                }
                self.error(None, "CONNECTION_FAILED", "not JSON, or nested too deep", None, wall);
            }
            Err(Unreadable::NotAMessage { asked, what, call_id }) => {
                metrics::dropped("frontend_message", "shape", 1);
                self.error(
                    call_id.as_deref(),
                    error_code(Origin::Client, &asked),
                    &what,
                    None,
                    wall,
                );
            }
        }
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
        if self.identity().role < action.needs() {
            metrics::refused("frontend_message", "role");
            let what = format!("{}: not allowed for the role {}", action.name(), self.identity().role);
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
            say.sender_name = Some(self.identity().subject.clone());
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
        if let Some(language) = language.filter(|_| self.identity().role >= Role::Agent) {
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
        match self.vitals.refreshed(identity, now, wall) {
            Some(expires_at) => self.send(&ServerMessage::TokenRefreshed { expires_at }),
            None => self.error(None, "CONNECTION_FAILED", "refresh_token: token refused", None, wall),
        }
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
        self.end(Close::new(code, reason));
    }

    fn end(&mut self, close: Close) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.out.push_back(Output::Close(close));
        }
    }
}

#[cfg(test)]
mod tests;
