//! What a client of `/call-events` or `/frontend-audio` may say: nothing but pings and a fresh token. A pure machine, as
//! [`super::session`] is for the telephony socket.

use super::{
    Config,
    outbox::Close,
    vitals::{Due, Vitals},
};
use crate::{
    access::Identity,
    base::time::{Mono, Wall},
    wire::json,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::VecDeque;

/// How a socket's messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// `{"type": …}`, as of `/call-events`.
    Events,
    /// `{"event": …}`, as of `/frontend-audio`.
    Audio,
}

/// What a client may say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request {
    /// Wants a pong.
    Ping {},
    /// Prolongs the session.
    RefreshToken {
        /// A fresh token of the same tenant.
        token: String,
    },
}

/// What a client is told of its socket.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Notice<'a> {
    /// Answers a ping.
    Pong,
    /// The session lives on.
    TokenRefreshed {
        /// Until when; null for ever.
        expires_at: Option<Wall>,
    },
    /// Live messages were left out because the client reads too slowly.
    Gap {
        /// How many.
        dropped: u64,
    },
    /// Something went wrong.
    Error {
        /// What.
        error: Complaint<'a>,
    },
}

/// Why something was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Complaint<'a> {
    /// One word for programs.
    code: &'a str,
    /// A sentence for people.
    message: &'a str,
}

impl Voice {
    /// The member that says what a message is.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Events => "type",
            Self::Audio => "event",
        }
    }

    fn say(self, notice: &Notice<'_>) -> String {
        let mut message = serde_json::to_value(notice).unwrap_or_default();
        if let Some(members) = message.as_object_mut()
            && let Some(kind) = members.remove("type")
        {
            members.insert(self.tag().to_owned(), kind);
        }
        message.to_string()
    }

    /// Messages were left out because the client reads too slowly.
    pub fn gap(self, dropped: u64) -> String {
        self.say(&Notice::Gap { dropped })
    }

    /// Something went wrong.
    pub fn error(self, code: &str, message: &str) -> String {
        let error = Complaint { code, message };
        self.say(&Notice::Error { error })
    }
}

/// What the shell has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the client.
    Send(String),
    /// Verify the token, then [`Viewer::refreshed`].
    Refresh(String),
    /// Send a ping.
    Ping,
    /// End the socket once everything before has been sent.
    Close(Close),
}

/// One client.
#[derive(Debug)]
pub struct Viewer {
    vitals: Vitals,
    voice: Voice,
    closed: bool,
    out: VecDeque<Output>,
}

impl Viewer {
    /// A client that has just connected.
    pub fn new(config: &Config, identity: Identity, voice: Voice, now: Mono, wall: Wall) -> Self {
        Self {
            vitals: Vitals::new(config, identity, now, wall),
            voice,
            closed: false,
            out: VecDeque::new(),
        }
    }

    /// The next effect. Drain after every input.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Whose calls.
    pub const fn identity(&self) -> &Identity {
        self.vitals.identity()
    }

    /// When [`Viewer::tick`] is due at the latest.
    pub fn deadline(&self) -> Mono {
        match self.closed {
            true => Mono::from_nanos(u64::MAX),
            false => self.vitals.deadline(),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Mono) {
        if self.closed {
            return;
        }
        match self.vitals.tick(now) {
            Due::Nothing => {}
            Due::Ping => self.out.push_back(Output::Ping),
            Due::Close(close) => self.close(close),
        }
    }

    /// A ping or pong came.
    pub fn control_frame(&mut self, pong: bool, now: Mono) {
        let fine = self.vitals.control_frame(pong, now);
        self.hold_to(fine);
    }

    /// A binary message came.
    pub fn binary(&mut self) {
        self.close(Close::new(1003, "text messages only"));
    }

    /// A text message came. `within` says whether the tenant's own limit allows it.
    pub fn text(&mut self, text: &str, within: bool, now: Mono) {
        self.tick(now);
        if self.closed {
            return;
        }
        match self.vitals.admit(within, now) {
            Ok(true) => {}
            Ok(false) => return,
            Err(close) => return self.close(close),
        }
        let Ok(mut said) = json::read::<Map<String, Value>>(text.as_bytes()) else {
            self.send(self.voice.error("malformed", "not a JSON object"));
            let fine = self.vitals.garbage();
            return self.hold_to(fine);
        };
        // Either socket takes either name.
        if let Some(kind) = said.remove("event") {
            said.insert("type".to_owned(), kind);
        }
        match Request::deserialize(Value::Object(said)) {
            Ok(Request::Ping {}) => self.send(self.voice.say(&Notice::Pong)),
            Ok(Request::RefreshToken { token }) => self.out.push_back(Output::Refresh(token)),
            Err(_) => self.send(self.voice.error(
                "invalid",
                "only ping, and refresh_token with a token, are understood here",
            )),
        }
    }

    /// A token sent by `refresh_token` was verified, or was not.
    pub fn refreshed(&mut self, identity: Option<Identity>, now: Mono, wall: Wall) {
        let told = match self.vitals.refreshed(identity, now, wall) {
            Some(expires_at) => self.voice.say(&Notice::TokenRefreshed { expires_at }),
            None => self.voice.error("unauthenticated", "token refused"),
        };
        self.send(told);
    }

    fn hold_to(&mut self, fine: Result<(), Close>) {
        if let Err(close) = fine {
            self.close(close);
        }
    }

    fn send(&mut self, text: String) {
        self.out.push_back(Output::Send(text));
    }

    /// Ends the socket.
    pub fn close(&mut self, close: Close) {
        if !std::mem::replace(&mut self.closed, true) {
            self.out.push_back(Output::Close(close));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Role, base::ids::TenantId};
    use std::time::Duration;

    const T0: Mono = Mono::from_millis(60_000);

    fn viewer(voice: Voice) -> Viewer {
        let identity = Identity {
            scopes: Default::default(),
            key: None,
            tenant: TenantId(1),
            role: Role::Viewer,
            subject: "ann".into(),
            expires: Some(Wall::from_micros(30_000_000)),
        };
        Viewer::new(&Config::default(), identity, voice, T0, Wall::default())
    }

    fn said(viewer: &mut Viewer, text: &str) -> Vec<Output> {
        viewer.text(text, true, T0);
        std::iter::from_fn(|| viewer.poll()).collect()
    }

    #[test]
    fn each_socket_answers_in_its_own_shape() {
        let send = |text: &str| vec![Output::Send(text.to_owned())];
        let (mut events, mut audio) = (viewer(Voice::Events), viewer(Voice::Audio));
        assert_eq!(said(&mut events, r#"{"type":"ping"}"#), send(r#"{"type":"pong"}"#));
        assert_eq!(said(&mut audio, r#"{"event":"ping"}"#), send(r#"{"event":"pong"}"#));
        assert_eq!(Voice::Audio.gap(3), r#"{"dropped":3,"event":"gap"}"#);
        let refused = said(&mut audio, r#"{"event":"media"}"#);
        assert!(
            matches!(&refused[..], [Output::Send(text)] if text.contains("only ping")),
            "{refused:?}"
        );
        assert_eq!(
            said(&mut events, r#"{"type":"refresh_token","token":"t"}"#),
            [Output::Refresh("t".into())]
        );
    }

    #[test]
    fn garbage_and_the_end_of_the_token_end_the_socket() {
        let close = |outputs: Vec<Output>| match outputs.last() {
            Some(Output::Close(close)) => Some(close.code),
            _ => None,
        };
        let mut v = viewer(Voice::Events);
        let codes: Vec<_> = ["{", "[", "nope"].iter().map(|t| close(said(&mut v, t))).collect();
        assert_eq!(codes, [None, None, Some(1007)]);
        assert_eq!(said(&mut v, r#"{"type":"ping"}"#), [], "nothing follows a close");
        let mut v = viewer(Voice::Audio);
        assert_eq!(v.deadline(), T0 + Duration::from_secs(20));
        v.tick(T0 + Duration::from_secs(30));
        assert_eq!(v.poll(), Some(Output::Close(Close::new(4401, "token expired"))));
    }
}
