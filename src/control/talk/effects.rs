//! Performs what a call's machine and its agent ask for.

use super::{Event, Talk};
use crate::{
    agent::turn::Act,
    base::fault::Kind,
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
            Effect::Over { utterance, whole } => self.turn.over(utterance, whole),
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
            "call on record"
        );
        *lock(&self.entry.shown) = Some(self.live());
    }

    pub(super) fn act(&mut self, now: Now, act: Act) {
        match act {
            Act::Say(text) => {
                let words = Words {
                    text: text.clone(),
                    sender_name: Some(self.profile.name.clone()),
                    ..Words::default()
                };
                let said = match self.call.say(now, words) {
                    Ok((_, utterance)) => Some(utterance),
                    Err(fault) if fault.kind == Kind::Unavailable => self.call.say_unrecorded(text),
                    Err(_) => None,
                };
                self.turn.said(said);
            }
            Act::Do(Action::HangUp) => self.call.hang_up(now, None),
            Act::Do(Action::Handoff) => self.hand_off(now),
            Act::Do(Action::Transfer(to)) => self.call.transfer(to, None),
            Act::Do(Action::Digits(digits)) => self.call.digits(digits, None),
        }
    }

    /// Gives the call to a person: the voice stays, the rules fall silent.
    pub(super) fn hand_off(&mut self, now: Now) {
        if let Some(person) = self.shared.deps.agents.get("human") {
            self.profile = person.clone();
            self.turn.silence();
            self.call.hand_off(now, &person.name, "the script said so");
        }
    }
}
