//! Performs what a call's machine and its agent ask for.

use super::{Event, Talk};
use crate::{
    agent::act::{Act, Line},
    base::{fault::Kind, ids::UtteranceId},
    control::{
        call::{Effect, Now, Words},
        directory::lock,
    },
    llm::scripted::Action,
    media::LegCommand,
    metrics,
    speech::SpeechEvent,
    store::Sender,
};
use futures_util::FutureExt;
use std::sync::Arc;
use tracing::{error, info, warn};

impl Talk {
    pub(super) fn perform(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Commit(batch) => {
                let commit = self.shared.deps.store.commit(batch);
                self.jobs.push(commit.map(Event::Committed).boxed());
            }
            Effect::Publish(event) => self.shared.deps.bus.publish(Arc::from(event)),
            Effect::Tell(done) => {
                let _ = done.send(Ok(()));
            }
            Effect::Speak {
                utterance,
                text,
                language,
            } => {
                if !self.mouth.as_ref().is_some_and(|m| m.say(utterance, text, language)) {
                    let message = "the synthesizer's queue is full or it has stopped".to_owned();
                    self.heard(now, Sender::Agent, SpeechEvent::TtsFailed { utterance, message });
                }
            }
            Effect::Cut(floor) => {
                if let Some(mouth) = &self.mouth {
                    mouth.cut(floor);
                }
                self.send_leg(LegCommand::Cut { floor });
            }
            Effect::Over {
                utterance,
                whole,
                heard_ms,
            } => {
                self.unprotect(utterance);
                self.mind.over(now.mono, utterance, whole, heard_ms);
            }
            Effect::Close { code, reason } => self.send_leg(LegCommand::Close { code, reason }),
            Effect::Ask(ask) => self.ask(now, ask),
            Effect::Sid(call_sid) => {
                self.shared.directory.learn_sid(self.entry.call, &call_sid);
                self.shared.pending.bind(self.entry.call, &call_sid);
                tracing::Span::current().record("session", self.call.row().session_id.as_str());
            }
            Effect::Created => self.created(),
            Effect::Released => self.shared.directory.release(self.entry.call),
            Effect::LengthWarning => warn!("the call is close to the longest length and will be ended"),
            Effect::Lost => metrics::dropped("message", "storage_behind", 1),
            Effect::StoreFault(fault) => error!(%fault, "a step of the call could not be stored and is lost"),
        }
    }

    pub(super) fn created(&self) {
        let row = self.call.row();
        info!(
            vendor = row.vendor,
            inbound = row.inbound,
            agent = row.agent,
            "call_started"
        );
        *lock(&self.entry.shown) = Some(self.live());
    }

    pub(super) fn act(&mut self, now: Now, act: Act) {
        match act {
            Act::Say(line) => self.speak(now, line),
            Act::Ask(question) => self.think(now, *question),
            Act::StopAsking => self.thinking = None,
            Act::Cut => self.call.cut(now),
            Act::Fetch(call) => self.fetch(call),
            Act::Tell(order) => {
                if let Some(conversation) = &self.conversation {
                    conversation.tell(order);
                }
            }
            Act::Voice { reply, protected } => self.voice(now, reply, protected),
            Act::Do(Action::HangUp) => self.call.hang_up(now, None),
            Act::Do(Action::Handoff) => self.take_over(now, None),
            Act::Do(Action::Transfer(to)) => match self.shared.may_call(self.entry.tenant, &to) {
                Ok(()) => self.call.transfer(to, None),
                Err(_) => {
                    warn!("the agent may not hand the call to this number: it goes on");
                    self.mind.not_done(now.mono);
                }
            },
            Act::Do(Action::Digits(digits)) => self.call.digits(digits, None),
        }
    }

    fn speak(&mut self, now: Now, line: Line) {
        let words = Words {
            text: line.text.clone(),
            language: line.language,
            sender_name: Some(self.profile.name.clone()),
            ..Words::default()
        };
        let said = match self.call.say(now, words) {
            Ok((_, utterance)) => Some(utterance),
            Err(fault) if fault.kind == Kind::Unavailable => self.call.say_unrecorded(line.text),
            Err(_) => None,
        };
        if let Some(utterance) = said {
            self.waterfall.said(now.mono, utterance);
            if line.protected {
                self.protected.push(utterance);
                self.send_leg(LegCommand::Protect(true));
            }
        }
        self.mind.said(now.mono, said);
    }

    /// Makes a reply of the service that holds the conversation an utterance.
    fn voice(&mut self, now: Now, reply: u32, protected: bool) {
        let utterance = self.call.answer();
        if let Some(utterance) = utterance {
            self.waterfall.said(now.mono, utterance);
            if protected {
                self.protected.push(utterance);
                self.send_leg(LegCommand::Protect(true));
            }
        }
        self.mind.voiced(now.mono, reply, utterance, protected);
    }

    /// An utterance is over: once no other has to be heard to its end, the caller may interrupt again.
    fn unprotect(&mut self, utterance: UtteranceId) {
        let before = self.protected.len();
        self.protected.retain(|u| *u != utterance);
        if before > 0 && self.protected.is_empty() {
            self.send_leg(LegCommand::Protect(false));
        }
    }
}
