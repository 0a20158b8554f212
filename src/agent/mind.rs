//! The mind of a call: rules, a language model, a service that hears and speaks, or nobody. One set of inputs, one set of acts.

use super::{Kind, Profile, act::Act, duplex::Duplex, pipeline::Pipeline, turn};
use crate::{
    base::{ids::UtteranceId, time::Mono},
    llm::{ChatError, Piece, ToolCall},
    speech::duplex::News,
};
use std::sync::Arc;

/// The mind of one call.
#[derive(Debug)]
pub enum Mind {
    /// Rules answer, a person types, or nobody does.
    Rules(turn::Turn),
    /// A language model answers.
    Model(Box<Pipeline>),
    /// A service hears and answers by itself.
    Service(Box<Duplex>),
}

impl Mind {
    /// The mind of an agent.
    pub fn new(profile: &Arc<Profile>) -> Self {
        match profile.kind {
            Kind::Pipeline => Self::Model(Box::new(Pipeline::new(profile.clone()))),
            Kind::Realtime => Self::Service(Box::new(Duplex::new(profile.clone()))),
            _ => Self::Rules(turn::Turn::new(profile)),
        }
    }

    /// The caller can hear from now on.
    pub fn answered(&mut self, now: Mono) {
        match self {
            Self::Rules(turn) => turn.answered(),
            Self::Model(pipeline) => pipeline.answered(now),
            Self::Service(duplex) => duplex.answered(now),
        }
    }

    /// The caller began to speak.
    pub fn began(&mut self, now: Mono) {
        match self {
            Self::Model(pipeline) => pipeline.began(now),
            Self::Service(duplex) => duplex.began(),
            Self::Rules(_) => {}
        }
    }

    /// The caller said something; unless it is final, it may still change.
    pub fn heard(&mut self, now: Mono, text: &str, is_final: bool, language: Option<&str>) {
        match self {
            Self::Rules(turn) if is_final => turn.heard(now, text),
            Self::Model(pipeline) if is_final => pipeline.heard(now, text, language),
            Self::Model(pipeline) => pipeline.hears(now, text),
            Self::Service(duplex) => duplex.heard(),
            Self::Rules(_) => {}
        }
    }

    /// The caller's voice cut the agent off.
    pub fn cut_off(&mut self, now: Mono) {
        match self {
            Self::Model(pipeline) => pipeline.cut_off(now),
            Self::Service(duplex) => duplex.cut_off(now),
            Self::Rules(_) => {}
        }
    }

    /// What was asked for by [`Act::Say`] goes to the caller as this utterance, or cannot (`None`).
    pub fn said(&mut self, now: Mono, utterance: Option<UtteranceId>) {
        match self {
            Self::Rules(turn) => turn.said(utterance),
            Self::Model(pipeline) => pipeline.said(now, utterance),
            Self::Service(_) => {}
        }
    }

    /// More audio of an utterance was synthesized.
    pub fn audio(&mut self, utterance: UtteranceId, ms: u32, last: bool) {
        if let Self::Model(pipeline) = self {
            pipeline.audio(utterance, ms, last);
        }
    }

    /// An utterance is over: heard wholly (or never to be), or cut after this long.
    pub fn over(&mut self, now: Mono, utterance: UtteranceId, whole: bool, heard_ms: u32) {
        match self {
            Self::Rules(turn) => turn.over(utterance, whole),
            Self::Model(pipeline) => pipeline.over(now, utterance, whole, heard_ms),
            Self::Service(duplex) => duplex.over(now, utterance, whole, heard_ms),
        }
    }

    /// A piece of the model's answer.
    pub fn piece(&mut self, now: Mono, piece: Result<Piece, ChatError>) {
        if let Self::Model(pipeline) = self {
            pipeline.piece(now, piece);
        }
    }

    /// What the web answered.
    pub fn fetched(&mut self, now: Mono, call: ToolCall, content: String) {
        match self {
            Self::Model(pipeline) => pipeline.fetched(now, call, content),
            Self::Service(duplex) => duplex.fetched(now, &call, content),
            Self::Rules(_) => {}
        }
    }

    /// Whether a service holds the conversation.
    pub const fn is_service(&self) -> bool {
        matches!(self, Self::Service(_))
    }

    /// News of the service that holds the conversation.
    pub fn news(&mut self, now: Mono, news: News) {
        let Self::Service(duplex) = self else { return };
        match news {
            News::Stopped { .. } => duplex.stopped(),
            News::Begins { reply } => duplex.begins(reply),
            News::Wants(asked) => {
                let call = ToolCall {
                    id: asked.id,
                    name: asked.name,
                    arguments: asked.arguments,
                };
                duplex.wants(now, call);
            }
            News::Answered => duplex.complete(now),
            News::Words { .. } | News::Used { .. } => {}
        }
    }

    /// That service is out of order.
    pub fn failed(&mut self, now: Mono) {
        if let Self::Service(duplex) = self {
            duplex.failed(now);
        }
    }

    /// What was asked for by [`Act::Voice`] goes to the caller as this utterance, or cannot (`None`).
    pub fn voiced(&mut self, now: Mono, reply: u32, utterance: Option<UtteranceId>, protected: bool) {
        if let Self::Service(duplex) = self {
            duplex.voiced(now, reply, utterance, protected);
        }
    }

    /// When [`Mind::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        match self {
            Self::Rules(turn) => turn.next_timeout(),
            Self::Model(pipeline) => pipeline.next_timeout(),
            Self::Service(duplex) => duplex.next_timeout(),
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Mono) {
        match self {
            Self::Rules(turn) => turn.timeout(now),
            Self::Model(pipeline) => pipeline.timeout(now),
            Self::Service(duplex) => duplex.timeout(now),
        }
    }

    /// A person takes over, or the call is over: nothing is answered or done.
    pub fn pause(&mut self) {
        match self {
            Self::Rules(turn) => turn.pause(),
            Self::Model(pipeline) => pipeline.pause(),
            Self::Service(duplex) => duplex.pause(),
        }
    }

    /// What a person said to the caller meanwhile.
    pub fn person_said(&mut self, text: &str) {
        match self {
            Self::Model(pipeline) => pipeline.person_said(text),
            Self::Service(duplex) => duplex.person_said(text),
            Self::Rules(_) => {}
        }
    }

    /// The person hands the call back.
    pub fn resume(&mut self, now: Mono) {
        match self {
            Self::Rules(turn) => turn.resume(),
            Self::Model(pipeline) => pipeline.resume(now),
            Self::Service(duplex) => duplex.resume(now),
        }
    }

    /// A deed did not come about.
    pub fn not_done(&mut self, now: Mono) {
        match self {
            Self::Rules(turn) => turn.not_done(),
            Self::Model(pipeline) => pipeline.not_done(now),
            Self::Service(duplex) => duplex.not_done(now),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        match self {
            Self::Rules(turn) => turn.poll(),
            Self::Model(pipeline) => pipeline.poll(),
            Self::Service(duplex) => duplex.poll(),
        }
    }
}
