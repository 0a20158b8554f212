//! A conversation with a language model as a state machine: hears, thinks, speaks, all at once and one sentence at a time.
//!
//! Inputs take the time; what it asks for is drained with [`Pipeline::poll`]. It knows at any time what the caller has heard of
//! its words, and the model is told that and no more: an answer that was cut is kept as far as it was heard.
//! An interruption without words in it is taken back: what was not heard is said again from the word on where it was cut.

mod reply;
#[cfg(test)]
mod tests;

use super::{
    Profile,
    act::{Act, Line, Question},
};
use crate::{
    base::{ids::UtteranceId, time::Mono},
    llm::{ChatError, Piece, Prompt, Stop, ToolCall, Turn, scripted::Action},
};
use reply::Reply;
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Rounds with tools in one answer; after that the model must talk.
const MAX_ROUNDS: usize = 4;
/// Sentences of one answer; more are not spoken.
const MAX_SENTENCES: usize = 60;
/// How long a deed waits for its announcement at most.
const DEED_WITHIN: Duration = Duration::from_secs(60);
/// A caller who goes on talking after an interruption is given so many times the patience.
const STILL_TALKING: u32 = 4;

/// What every agent is told beside its own prompt.
const RULES: &str = "You are on a phone call: what you write is spoken aloud. Answer in one to three short sentences, without lists, headings, links or emoji.";

/// What one is told beside them that speaks whatever language the caller does.
const ANY_LANGUAGE: &str = " Answer in the language in which the caller speaks.";

/// The machine.
#[derive(Debug)]
pub struct Pipeline {
    profile: Arc<Profile>,
    history: Vec<Turn>,
    reply: Option<Reply>,
    /// The caller's finals that are not answered yet, and the interim that may stand for the next.
    pending: Vec<String>,
    interim: Option<String>,
    language: Option<String>,
    /// Answers fail over once.
    fell_back: bool,
    /// Prompts said since the caller spoke last.
    prompted: usize,
    paused: bool,
    done: bool,
    answer_at: Option<Mono>,
    interim_at: Option<Mono>,
    resume_at: Option<Mono>,
    silent_at: Option<Mono>,
    filler_at: Option<Mono>,
    deed_at: Option<Mono>,
    acts: VecDeque<Act>,
}

impl Pipeline {
    /// A conversation of this agent.
    pub fn new(profile: Arc<Profile>) -> Self {
        Self {
            profile,
            history: Vec::new(),
            reply: None,
            pending: Vec::new(),
            interim: None,
            language: None,
            fell_back: false,
            prompted: 0,
            paused: false,
            done: false,
            answer_at: None,
            interim_at: None,
            resume_at: None,
            silent_at: None,
            filler_at: None,
            deed_at: None,
            acts: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// The caller can hear from now on.
    pub fn answered(&mut self, now: Mono) {
        let greeting = self.profile.greeting.clone();
        if greeting.is_empty() {
            return self.watch_silence(now);
        }
        let protected = self.profile.wits.protect_greeting;
        let mut reply = Reply::default();
        reply.say(greeting.clone());
        self.reply = Some(reply);
        self.acts.push_back(Act::Say(Line {
            text: greeting,
            language: None,
            protected,
        }));
    }

    /// The caller began to speak.
    pub fn began(&mut self, now: Mono) {
        self.silent_at = None;
        if self.answer_at.is_some() {
            self.answer_at = Some(now + self.profile.wits.endpoint_timeout);
        }
        if self.resume_at.is_some() {
            self.resume_at = Some(now + self.profile.wits.resume_after * STILL_TALKING);
        }
    }

    /// What the caller is saying, so far.
    pub fn hears(&mut self, now: Mono, text: &str) {
        if self.paused || self.done || text.trim().is_empty() {
            return;
        }
        self.silent_at = None;
        self.interim = Some(text.trim().to_owned());
        self.interim_at = Some(now + self.profile.wits.endpoint_timeout);
        if self.answer_at.is_some() {
            self.answer_at = self.interim_at;
        }
        self.interrupt(text);
    }

    /// The caller said something, finally.
    pub fn heard(&mut self, now: Mono, text: &str, language: Option<&str>) {
        let text = text.trim();
        self.interim_at = None;
        let taken = self.interim.take();
        if text.is_empty() || self.done {
            return;
        }
        self.silent_at = None;
        self.prompted = 0;
        if self.paused {
            return self.history.push(Turn::User(text.to_owned()));
        }
        if self.profile.language == "auto" {
            self.language = language.map(str::to_owned).or(self.language.take());
        }
        // A few words of listening ("yes", "I see") do not take the floor.
        let is_backchannel = self.is_speaking() && words(text) < self.profile.wits.interrupt_words as usize;
        if is_backchannel && self.profile.barge_in_after.is_some() {
            return;
        }
        self.interrupt(text);
        // The interim was answered in the final's place, and the final says the same.
        if taken.is_none() && self.answered_already(text) {
            return;
        }
        self.pending.push(text.to_owned());
        self.answer_at = Some(now + self.profile.wits.endpoint_after);
        self.timeout(now);
    }

    fn answered_already(&self, text: &str) -> bool {
        use crate::llm::scripted::normalise;
        let thinking = self.reply.as_ref().is_some_and(|r| r.thinking && !r.begun);
        let last = self.history.iter().rev().find_map(|turn| match turn {
            Turn::User(said) => Some(said),
            _ => None,
        });
        thinking && last.is_some_and(|said| normalise(said) == normalise(text))
    }

    /// Speech of so many words ends the agent's turn, where speech may.
    fn interrupt(&mut self, text: &str) {
        let enough = words(text) >= self.profile.wits.interrupt_words.max(1) as usize;
        if !enough {
            return;
        }
        self.resume_at = None;
        let by_words = self.profile.wits.interrupt_words > 0 && self.profile.barge_in_after.is_some();
        if by_words && self.is_speaking() {
            self.acts.push_back(Act::Cut);
        }
    }

    fn is_speaking(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_speaking)
    }

    /// The caller's voice cut the agent off; what was cut is told by [`Pipeline::over`].
    pub fn cut_off(&mut self, now: Mono) {
        let wits = &self.profile.wits;
        if self.reply.is_some() && !self.paused && !self.done && !wits.resume_after.is_zero() {
            self.resume_at = Some(now + wits.resume_after);
        }
    }

    /// What was asked for by [`Act::Say`] goes to the caller as this utterance, or cannot (`None`).
    pub fn said(&mut self, now: Mono, utterance: Option<UtteranceId>) {
        if let Some(reply) = &mut self.reply {
            reply.named(utterance);
        }
        self.look(now);
    }

    /// More audio of an utterance was synthesized.
    pub fn audio(&mut self, utterance: UtteranceId, ms: u32, last: bool) {
        if let Some(reply) = &mut self.reply {
            reply.audio(utterance, ms, last);
        }
    }

    /// An utterance is over.
    pub fn over(&mut self, now: Mono, utterance: UtteranceId, whole: bool, heard_ms: u32) {
        let ours = self.reply.as_mut().is_some_and(|r| r.over(utterance, whole, heard_ms));
        if ours && !whole {
            // Who talks over a goodbye is not hung up on; the rest was wished for by the caller.
            if let Some(reply) = self.reply.as_mut().filter(|r| r.deed == Some(Action::HangUp)) {
                reply.deed = None;
                self.deed_at = None;
            }
        }
        self.look(now);
    }

    /// A piece of the model's answer.
    pub fn piece(&mut self, now: Mono, piece: Result<Piece, ChatError>) {
        let Some(reply) = self.reply.as_mut().filter(|r| r.thinking) else {
            return;
        };
        match piece {
            Ok(Piece::Text(text)) => {
                let ready = reply.sentences.feed(&text);
                self.say_all(ready);
            }
            Ok(Piece::Call(call)) => {
                reply.begun = true;
                reply.open_calls.push(call);
            }
            Ok(Piece::End { stop, .. }) => {
                reply.thinking = false;
                let rest = reply.sentences.finish();
                self.say_all(rest);
                self.filler_at = None;
                self.call_tools(now, stop);
            }
            Err(_) => self.failed(now),
        }
        self.look(now);
    }

    fn say_all(&mut self, sentences: impl IntoIterator<Item = String>) {
        for text in sentences {
            let Some(reply) = &mut self.reply else { return };
            if reply.sentences_said() >= MAX_SENTENCES {
                return;
            }
            reply.begun = true;
            self.filler_at = None;
            reply.say(text.clone());
            self.acts.push_back(Act::Say(Line {
                text,
                language: self.language.clone(),
                protected: false,
            }));
        }
    }

    /// No answer, or no more of it: somebody else is asked, or the caller is told.
    fn failed(&mut self, now: Mono) {
        self.filler_at = None;
        let begun = self.reply.as_ref().is_some_and(|r| r.begun);
        if let Some(reply) = &mut self.reply {
            reply.thinking = false;
            if !begun {
                reply.sentences = Default::default();
            }
        }
        if begun {
            let rest = self.reply.as_mut().and_then(|r| r.sentences.finish());
            return self.say_all(rest);
        }
        if self.profile.wits.llm_fallback.is_some() && !self.fell_back {
            self.fell_back = true;
            return self.ask(now);
        }
        self.say_all(Some(self.profile.wits.apology.clone()).filter(|a| !a.is_empty()));
    }

    /// Does what the model asked for: the web is asked at once, deeds wait until all was heard.
    fn call_tools(&mut self, now: Mono, stop: Stop) {
        let Some(reply) = &mut self.reply else { return };
        let calls = std::mem::take(&mut reply.open_calls);
        let (mut fetched, mut refused) = (false, false);
        for call in calls {
            if self.profile.wits.web.contains_key(&call.name) {
                reply.open_calls.push(call.clone());
                self.acts.push_back(Act::Fetch(call));
                fetched = true;
                continue;
            }
            match deed(&call, &self.profile) {
                Ok(deed) => {
                    reply.deed = Some(deed);
                    self.deed_at = Some(now + DEED_WITHIN);
                    reply.result(call, "It is done as soon as the caller has heard you.".to_owned());
                }
                Err(why) => {
                    reply.result(call, why.to_owned());
                    refused = true;
                }
            }
        }
        if refused && !fetched && stop == Stop::Calls {
            self.go_on(now);
        }
    }

    /// What came of an [`Act::Fetch`].
    pub fn fetched(&mut self, now: Mono, call: ToolCall, content: String) {
        let Some(reply) = self.reply.as_mut().filter(|r| r.open_calls.contains(&call)) else {
            return;
        };
        reply.result(call, content);
        if reply.open_calls.is_empty() {
            self.go_on(now);
        }
        self.look(now);
    }

    /// Asks again, with what came of the calls.
    fn go_on(&mut self, now: Mono) {
        let Some(reply) = &mut self.reply else { return };
        reply.again += 1;
        if reply.again <= MAX_ROUNDS {
            self.ask(now);
        }
    }

    /// Asks the model for the rest of the turn.
    fn ask(&mut self, now: Mono) {
        let wits = &self.profile.wits;
        let reply = self.reply.get_or_insert_default();
        let in_progress = reply.turns(true);
        let first = in_progress.is_empty();
        let tools = if reply.again < MAX_ROUNDS {
            wits.tools()
        } else {
            Vec::new()
        };
        let skip = self.history.len().saturating_sub(wits.history_turns);
        let turns: Vec<_> = self.history.iter().skip(skip).cloned().chain(in_progress).collect();
        let name = if self.fell_back {
            wits.llm_fallback.as_deref().unwrap_or("")
        } else {
            &wits.llm
        };
        let common = match self.history.last() {
            Some(Turn::User(text)) if first && !wits.cache_ttl.is_zero() => Some(text.clone()),
            _ => None,
        };
        let any = if self.profile.language == "auto" {
            ANY_LANGUAGE
        } else {
            ""
        };
        let question = Question {
            prompt: Prompt {
                system: format!("{RULES}{any}\n\n{}", wits.prompt).trim_end().to_owned(),
                turns,
                tools,
                schema: None,
                model: crate::llm::split(name).1.map(str::to_owned),
            },
            fallback: self.fell_back,
            common,
        };
        reply.thinking = true;
        reply.begun = false;
        if !wits.thinking_prompt.is_empty() && first {
            self.filler_at = Some(now + wits.thinking_after);
        }
        self.acts.push_back(Act::Ask(Box::new(question)));
    }

    /// The caller's turn is over: answers it.
    fn answer(&mut self, now: Mono) {
        self.answer_at = None;
        let mut said = std::mem::take(&mut self.pending);
        let unheard = self.reply.as_ref().is_some_and(|r| r.thinking && !r.begun);
        self.settle(true);
        // Nothing of the answer to what came before was heard: the two are one.
        if unheard && let Some(Turn::User(before)) = self.history.last() {
            said.insert(0, before.clone());
            self.history.pop();
        }
        if said.is_empty() {
            return;
        }
        self.history.push(Turn::User(said.join(" ")));
        self.fell_back = false;
        self.ask(now);
    }

    /// The agent's turn is over: the conversation keeps what was heard of it.
    fn settle(&mut self, expected: bool) {
        let Some(reply) = self.reply.take() else { return };
        if reply.thinking {
            self.acts.push_back(Act::StopAsking);
        }
        self.history.extend(reply.turns(expected));
        (self.filler_at, self.resume_at, self.deed_at) = (None, None, None);
    }

    /// Looks whether all was said: then its deed is done, and silence is watched.
    fn look(&mut self, now: Mono) {
        if self.resume_at.is_some() || !self.reply.as_ref().is_some_and(Reply::is_over) {
            return;
        }
        if self.acts.iter().any(|a| matches!(a, Act::Say(_) | Act::Ask(_))) {
            return;
        }
        let deed = self.reply.as_mut().and_then(|r| r.deed.take());
        self.settle(true);
        match deed {
            Some(deed) => self.act(deed),
            None => self.watch_silence(now),
        }
    }

    fn act(&mut self, deed: Action) {
        self.done = !matches!(deed, Action::Digits(_));
        self.acts.push_back(Act::Do(deed));
    }

    fn watch_silence(&mut self, now: Mono) {
        let wits = &self.profile.wits;
        let more = self.prompted < wits.silence_prompts.len() || wits.silence_hang_up;
        let quiet = self.pending.is_empty() && self.interim.is_none() && !self.paused && !self.done;
        self.silent_at = (quiet && more && !wits.silence_after.is_zero()).then(|| now + wits.silence_after);
    }

    fn prompt_silent(&mut self) {
        match self.profile.wits.silence_prompts.get(self.prompted).cloned() {
            Some(text) => {
                self.prompted += 1;
                self.reply = Some(Reply::default());
                self.say_all([text]);
            }
            None => self.act(Action::HangUp),
        }
    }

    /// The interruption had no words in it: says what was not heard.
    fn take_back(&mut self, now: Mono) {
        let rest = self.reply.as_mut().map(Reply::unheard).unwrap_or_default();
        self.say_all(rest);
        self.look(now);
    }

    /// When [`Pipeline::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        let timers = [
            self.answer_at,
            self.interim_at,
            self.resume_at,
            self.silent_at,
            self.filler_at,
            self.deed_at,
        ];
        timers.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Mono) {
        let due = |timer: &mut Option<Mono>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.interim_at)
            && let Some(text) = self.interim.take()
        {
            self.pending.push(text);
            self.answer_at = Some(now);
        }
        if due(&mut self.answer_at) {
            self.answer(now);
        }
        if due(&mut self.resume_at) {
            self.take_back(now);
        }
        if due(&mut self.silent_at) {
            self.prompt_silent();
        }
        if due(&mut self.filler_at) {
            let text = self.profile.wits.thinking_prompt.clone();
            let begun = self.reply.as_ref().is_some_and(|r| r.begun);
            self.say_all([text]);
            if let Some(reply) = &mut self.reply {
                reply.begun = begun;
            }
        }
        if due(&mut self.deed_at)
            && let Some(deed) = self.reply.as_mut().and_then(|r| r.deed.take())
        {
            self.settle(true);
            self.act(deed);
        }
    }

    /// A person takes over: nothing is answered or done, but everything is noted for when the call is handed back.
    pub fn pause(&mut self) {
        self.settle(false);
        self.acts.retain(|act| matches!(act, Act::StopAsking));
        let said = std::mem::take(&mut self.pending);
        self.history.extend(said.into_iter().map(Turn::User));
        (self.answer_at, self.interim_at, self.silent_at) = (None, None, None);
        self.paused = true;
    }

    /// What a person said to the caller.
    pub fn person_said(&mut self, text: &str) {
        self.history.push(Turn::assistant(text));
    }

    /// The person hands the call back.
    pub fn resume(&mut self, now: Mono) {
        (self.paused, self.done) = (false, false);
        match self.history.last() {
            Some(Turn::User(_)) => self.ask(now),
            _ => self.watch_silence(now),
        }
    }

    /// What the agent asked for did not come about: it goes on listening.
    pub fn not_done(&mut self, now: Mono) {
        self.done = false;
        self.watch_silence(now);
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace()
        .filter(|w| w.chars().any(char::is_alphanumeric))
        .count()
}

/// A call of the model as a deed, or what is wrong with it.
pub(super) fn deed(call: &ToolCall, profile: &Profile) -> Result<Action, &'static str> {
    let allowed = profile.wits.deeds.contains(&call.name);
    let text = |name: &str| call.arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    match call.name.as_str() {
        _ if !allowed => Err("There is no such tool."),
        "hang_up" => Ok(Action::HangUp),
        "handoff" => Ok(Action::Handoff),
        "transfer" => {
            let to = text("to");
            let known = profile.wits.transfers.iter().any(|n| n == to) || profile.script.transfers_to(to);
            known
                .then(|| Action::Transfer(to.to_owned()))
                .ok_or("This number is not one that calls may be transferred to.")
        }
        _ => Action::parse(&format!("digits:{}", text("digits"))).map_err(|_| "digits are 1 to 32 of 0-9, *, #."),
    }
}
