//! A conversation that a service holds by itself, as its call sees it: which reply is which utterance, what is done that the service
//! asks for, and when it is asked to speak up. A state machine: inputs take the time, what it asks for is drained with
//! [`Duplex::poll`].
//!
//! Words and their order are the service's; what the caller heard, when they may interrupt, and what may be done are decided here.

#[cfg(test)]
mod tests;

use super::{Profile, act::Act, pipeline::deed};
use crate::{
    base::{ids::UtteranceId, time::Mono},
    llm::{ToolCall, scripted::Action},
    speech::duplex::Order,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Answers in a row that ask for something; after that the service must talk.
const MAX_ROUNDS: usize = 4;
/// How long a deed waits for its announcement at most.
const DEED_WITHIN: Duration = Duration::from_secs(60);

/// What the service is told when noise cut it off.
const GO_ON: &str = "A noise cut you off; the caller said nothing. Go on from where you were cut off, without repeating what was heard.";
/// What it is told that asked for a deed.
const DONE: &str = "It is done as soon as the caller has heard you.";

/// What every such agent is told beside its own prompt.
const RULES: &str = "You are on a phone call. Answer in one to three short sentences.";

/// What the service is told about itself.
pub fn instructions(profile: &Profile) -> String {
    format!("{RULES}\n\n{}", profile.wits.prompt).trim_end().to_owned()
}

/// How the service is asked to say these words.
fn exactly(words: &str) -> String {
    let words = words.replace('"', "'");
    format!("Say exactly this to the caller, and nothing else: \"{words}\"")
}

/// A reply that is not over.
#[derive(Clone, Copy, Debug)]
struct Reply {
    number: u32,
    utterance: UtteranceId,
}

/// The machine.
#[derive(Debug)]
pub struct Duplex {
    profile: Arc<Profile>,
    replies: Vec<Reply>,
    greeted: bool,
    /// The next reply is the greeting, and may not be talked over.
    greeting: bool,
    protected: Option<UtteranceId>,
    /// The service is expected to answer, or does.
    answering: bool,
    /// The caller is speaking, as the service hears it.
    talking: bool,
    /// What was asked to be done and is not.
    open: Vec<ToolCall>,
    /// The service is to be asked to go on once all of that came back.
    owed: bool,
    rounds: usize,
    deed: Option<Action>,
    /// Prompts said since the caller spoke last.
    prompted: usize,
    paused: bool,
    done: bool,
    resume_at: Option<Mono>,
    silent_at: Option<Mono>,
    deed_at: Option<Mono>,
    acts: VecDeque<Act>,
}

impl Duplex {
    /// A conversation of this agent.
    pub const fn new(profile: Arc<Profile>) -> Self {
        Self {
            profile,
            replies: Vec::new(),
            greeted: false,
            greeting: false,
            protected: None,
            answering: false,
            talking: false,
            open: Vec::new(),
            owed: false,
            rounds: 0,
            deed: None,
            prompted: 0,
            paused: false,
            done: false,
            resume_at: None,
            silent_at: None,
            deed_at: None,
            acts: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    fn tell(&mut self, order: Order) {
        self.acts.push_back(Act::Tell(order));
    }

    fn respond(&mut self, how: Option<String>) {
        self.answering = true;
        self.silent_at = None;
        let tools = self.rounds < MAX_ROUNDS;
        self.tell(Order::Respond { how, tools });
    }

    /// The caller can hear from now on, perhaps again: what an earlier stream's session was about to say is not coming.
    pub fn answered(&mut self, now: Mono) {
        (self.answering, self.talking, self.owed) = (false, false, false);
        self.open.clear();
        let greeted = std::mem::replace(&mut self.greeted, true);
        if greeted || self.paused || self.profile.greeting.is_empty() {
            return self.watch_silence(now);
        }
        self.greeting = self.profile.wits.protect_greeting;
        let how = exactly(&self.profile.greeting);
        self.respond(Some(how));
    }

    /// The caller began to speak.
    pub fn began(&mut self) {
        self.talking = true;
        (self.silent_at, self.resume_at) = (None, None);
        let may = self.profile.barge_in_after.is_some() && self.protected.is_none();
        if may && !self.replies.is_empty() && !self.paused && !self.done {
            self.acts.push_back(Act::Cut);
        }
    }

    /// The caller stopped, and is to be answered.
    pub fn stopped(&mut self) {
        self.talking = false;
        self.answering = !self.paused;
        self.rounds = 0;
    }

    /// The caller's words, so far or finally.
    pub const fn heard(&mut self) {
        self.prompted = 0;
        (self.silent_at, self.resume_at) = (None, None);
    }

    /// The caller's voice cut the agent off.
    pub fn cut_off(&mut self, now: Mono) {
        let after = self.profile.wits.resume_after;
        if !self.talking && !self.paused && !self.done && !after.is_zero() {
            self.resume_at = Some(now + after);
        }
    }

    /// A reply begins: it is to be an utterance.
    pub fn begins(&mut self, reply: u32) {
        self.silent_at = None;
        if self.paused || self.done {
            let utterance = None;
            return self.tell(Order::Name { reply, utterance });
        }
        let protected = std::mem::take(&mut self.greeting);
        self.acts.push_back(Act::Voice { reply, protected });
    }

    /// What was asked for by [`Act::Voice`] goes to the caller as this utterance, or cannot (`None`).
    pub fn voiced(&mut self, now: Mono, number: u32, utterance: Option<UtteranceId>, protected: bool) {
        if let Some(utterance) = utterance {
            self.replies.push(Reply { number, utterance });
            if protected {
                self.protected = Some(utterance);
            }
        }
        let reply = number;
        self.tell(Order::Name { reply, utterance });
        self.look(now);
    }

    /// An utterance is over.
    pub fn over(&mut self, now: Mono, utterance: UtteranceId, whole: bool, heard_ms: u32) {
        self.protected.take_if(|u| *u == utterance);
        if let Some(at) = self.replies.iter().position(|r| r.utterance == utterance) {
            let reply = self.replies.remove(at).number;
            // Who talks over a goodbye is not hung up on; the rest was wished for by the caller.
            if !whole && self.deed == Some(Action::HangUp) {
                (self.deed, self.deed_at) = (None, None);
            }
            self.tell(Order::Over { reply, whole, heard_ms });
        }
        self.look(now);
    }

    /// The service wants something done: the web is asked at once, deeds wait until all was heard.
    pub fn wants(&mut self, now: Mono, call: ToolCall) {
        if self.paused || self.done {
            return;
        }
        if self.profile.wits.web.contains_key(&call.name) {
            self.open.push(call.clone());
            self.owed = true;
            return self.acts.push_back(Act::Fetch(call));
        }
        match deed(&call, &self.profile) {
            Ok(deed) => {
                self.deed = Some(deed);
                self.deed_at = Some(now + DEED_WITHIN);
                self.result(call.id, DONE.to_owned());
            }
            Err(why) => {
                self.owed = true;
                self.result(call.id, why.to_owned());
            }
        }
    }

    fn result(&mut self, id: String, content: String) {
        self.tell(Order::Result { id, content });
    }

    /// What came of an [`Act::Fetch`].
    pub fn fetched(&mut self, now: Mono, call: &ToolCall, content: String) {
        let Some(at) = self.open.iter().position(|open| open == call) else {
            return;
        };
        self.open.remove(at);
        self.result(call.id.clone(), content);
        self.look(now);
    }

    /// An answer is complete.
    pub fn complete(&mut self, now: Mono) {
        self.answering = false;
        self.look(now);
    }

    /// The service is out of order: what it was about to say is not coming.
    pub fn failed(&mut self, now: Mono) {
        self.answering = false;
        self.talking = false;
        self.open.clear();
        self.owed = false;
        self.look(now);
    }

    /// Looks what follows: what came of requests is told, deeds are done, silence is watched.
    fn look(&mut self, now: Mono) {
        if self.paused || self.done || self.answering {
            return;
        }
        if self.owed && self.open.is_empty() {
            self.owed = false;
            self.rounds += 1;
            return self.respond(None);
        }
        let naming = self.acts.iter().any(|a| matches!(a, Act::Voice { .. }));
        if !self.replies.is_empty() || naming || self.resume_at.is_some() {
            return;
        }
        match self.deed.take() {
            Some(deed) => self.act(deed),
            None => self.watch_silence(now),
        }
    }

    fn act(&mut self, deed: Action) {
        self.deed_at = None;
        self.done = !matches!(deed, Action::Digits(_));
        self.acts.push_back(Act::Do(deed));
    }

    fn watch_silence(&mut self, now: Mono) {
        let wits = &self.profile.wits;
        let more = self.prompted < wits.silence_prompts.len() || wits.silence_hang_up;
        let quiet = !self.talking && !self.paused && !self.done && self.open.is_empty();
        self.silent_at = (quiet && more && !wits.silence_after.is_zero()).then(|| now + wits.silence_after);
    }

    fn prompt_silent(&mut self) {
        match self.profile.wits.silence_prompts.get(self.prompted) {
            Some(text) => {
                let how = exactly(text);
                self.prompted += 1;
                self.respond(Some(how));
            }
            None => self.act(Action::HangUp),
        }
    }

    /// When [`Duplex::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        [self.resume_at, self.silent_at, self.deed_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Mono) {
        let due = |timer: &mut Option<Mono>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.resume_at) && !self.answering && self.replies.is_empty() {
            self.respond(Some(GO_ON.to_owned()));
        }
        if due(&mut self.silent_at) {
            self.prompt_silent();
        }
        if due(&mut self.deed_at)
            && let Some(deed) = self.deed.take()
        {
            self.act(deed);
        }
    }

    /// A person takes over: the service hears on and says nothing.
    pub fn pause(&mut self) {
        self.acts.retain(|act| matches!(act, Act::Tell(_)));
        self.open.clear();
        (self.owed, self.answering, self.greeting, self.deed) = (false, false, false, None);
        (self.resume_at, self.silent_at, self.deed_at) = (None, None, None);
        self.paused = true;
        self.tell(Order::Pause(true));
    }

    /// What a person said to the caller.
    pub fn person_said(&mut self, text: &str) {
        self.tell(Order::Note(text.to_owned()));
    }

    /// The person hands the call back.
    pub fn resume(&mut self, now: Mono) {
        (self.paused, self.done) = (false, false);
        self.tell(Order::Pause(false));
        self.watch_silence(now);
    }

    /// What the agent asked for did not come about: it goes on listening.
    pub fn not_done(&mut self, now: Mono) {
        self.done = false;
        self.watch_silence(now);
    }
}
