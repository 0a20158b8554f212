//! One conversation as a state machine: told what the caller said and what became of its own words, it asks for words and deeds.
//!
//! A deed that follows a reply waits until the caller has heard the reply, with a cap. A caller who talks over a goodbye
//! is not hung up on; other deeds were wished for by the caller and follow even when their announcement is cut.

use super::{
    Kind, Profile,
    act::{Act, Line},
};
use crate::{
    base::{ids::UtteranceId, time::Mono},
    llm::scripted::{Action, Fallback, Rule, Script},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// How long a deed waits for its announcement beyond the time that speaking it should take.
const GRACE: Duration = Duration::from_secs(10);
/// Generous time to speak one character.
const PER_CHAR: Duration = Duration::from_millis(100);

/// The state of one conversation.
#[derive(Debug)]
pub struct Turn {
    greeting: String,
    script: Option<Arc<Script>>,
    state: State,
    fallbacks: u32,
    /// A person has the call.
    paused: bool,
    acts: VecDeque<Act>,
}

#[derive(Debug)]
enum State {
    /// The next words of the caller are answered.
    Listening,
    /// A deed waits until its announcement was heard; `by` at the latest.
    Announcing {
        deed: Action,
        utterance: Option<UtteranceId>,
        by: Mono,
    },
    /// A person talks, or nobody.
    Silent,
}

impl Turn {
    /// A conversation of this agent.
    pub fn new(profile: &Profile) -> Self {
        let scripted = profile.kind == Kind::Scripted;
        Self {
            greeting: profile.greeting.clone(),
            script: scripted.then(|| profile.script.clone()),
            state: if scripted { State::Listening } else { State::Silent },
            fallbacks: 0,
            paused: false,
            acts: VecDeque::new(),
        }
    }

    /// The caller can hear from now on.
    pub fn answered(&mut self) {
        let greeting = std::mem::take(&mut self.greeting);
        if !greeting.is_empty() {
            self.acts.push_back(Act::Say(Line::plain(greeting)));
        }
    }

    /// The caller said something, finally.
    pub fn heard(&mut self, now: Mono, text: &str) {
        let (State::Listening, Some(script)) = (&self.state, self.script.clone()) else {
            return;
        };
        match script.rule(text) {
            Some(rule) => {
                self.fallbacks = 0;
                self.reply(now, rule);
            }
            None => self.fall_back(script.fallback(), text),
        }
    }

    fn reply(&mut self, now: Mono, rule: &Rule) {
        if !rule.reply.is_empty() {
            self.acts.push_back(Act::Say(Line::plain(rule.reply.as_str())));
        }
        match &rule.action {
            Some(deed) if rule.reply.is_empty() => self.act(deed.clone()),
            Some(deed) => {
                let by = now + GRACE + PER_CHAR * rule.reply.chars().count() as u32;
                self.state = State::Announcing {
                    deed: deed.clone(),
                    utterance: None,
                    by,
                };
            }
            None => {}
        }
    }

    fn fall_back(&mut self, fallback: Option<&Fallback>, text: &str) {
        if let Some(fallback) = fallback.filter(|f| self.fallbacks < f.max && !text.trim().is_empty()) {
            self.fallbacks += 1;
            self.acts.push_back(Act::Say(Line::plain(fallback.reply.as_str())));
        }
    }

    /// What was asked for by [`Act::Say`] goes to the caller as this utterance, or cannot (`None`).
    pub fn said(&mut self, said: Option<UtteranceId>) {
        if let State::Announcing { utterance, .. } = &mut self.state {
            match said {
                Some(u) => *utterance = Some(u),
                None => self.fulfil(),
            }
        }
    }

    /// An utterance is over: heard wholly (or never to be), or cut.
    pub fn over(&mut self, utterance: UtteranceId, whole: bool) {
        match &self.state {
            State::Announcing {
                deed: Action::HangUp,
                utterance: Some(u),
                ..
            } if *u == utterance && !whole => {
                self.state = State::Listening;
            }
            State::Announcing { utterance: Some(u), .. } if *u == utterance => self.fulfil(),
            _ => {}
        }
    }

    /// When [`Turn::timeout`] is due.
    pub const fn next_timeout(&self) -> Option<Mono> {
        match &self.state {
            State::Announcing { by, .. } => Some(*by),
            _ => None,
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Mono) {
        if self.next_timeout().is_some_and(|by| by <= now) {
            self.fulfil();
        }
    }

    /// A person takes over: nothing is answered or done from now on.
    pub fn pause(&mut self) {
        self.paused = true;
        self.state = State::Silent;
        self.acts.clear();
    }

    /// The person hands the call back.
    pub fn resume(&mut self) {
        self.paused = false;
        self.not_done();
    }

    /// A transfer did not come about: the agent goes on listening.
    pub fn not_done(&mut self) {
        if self.script.is_some() && !self.paused && matches!(self.state, State::Silent) {
            self.state = State::Listening;
        }
    }

    fn fulfil(&mut self) {
        if let State::Announcing { deed, .. } = std::mem::replace(&mut self.state, State::Listening) {
            self.act(deed);
        }
    }

    fn act(&mut self, deed: Action) {
        self.state = match deed {
            Action::Digits(_) => State::Listening,
            Action::HangUp | Action::Handoff | Action::Transfer(_) => State::Silent,
        };
        self.acts.push_back(Act::Do(deed));
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono::from_millis(1000);
    const U: UtteranceId = UtteranceId(4);

    fn turn() -> Turn {
        let rule = |phrase: &str, reply: &str, action| Rule {
            phrases: vec![phrase.to_owned()],
            reply: reply.to_owned(),
            action,
        };
        let rules = vec![
            rule("hello", "Hi.", None),
            rule("bye", "Goodbye.", Some(Action::HangUp)),
            rule("a person", "One moment.", Some(Action::Handoff)),
            rule("press one", "", Some(Action::Digits("1".into()))),
        ];
        let fallback = Fallback {
            reply: "Pardon?".to_owned(),
            max: 2,
        };
        let mut profile = Profile::new("desk", Kind::Scripted);
        profile.greeting = "Welcome.".to_owned();
        profile.script = Arc::new(Script::new(rules, Some(fallback)));
        Turn::new(&profile)
    }

    fn say(text: &str) -> Option<Act> {
        Some(Act::Say(Line::plain(text)))
    }

    #[test]
    fn the_greeting_is_said_once() {
        let mut t = turn();
        assert_eq!(t.poll(), None);
        t.answered();
        t.answered();
        assert_eq!((t.poll(), t.poll()), (say("Welcome."), None));
    }

    #[test]
    fn a_hang_up_waits_until_the_goodbye_was_heard() {
        let mut t = turn();
        t.heard(NOW, "bye");
        assert_eq!((t.poll(), t.poll()), (say("Goodbye."), None));
        t.said(Some(U));
        t.over(UtteranceId(3), true);
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), None);
        t.over(U, true);
        assert_eq!((t.poll(), t.poll()), (Some(Act::Do(Action::HangUp)), None));
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), None);
    }

    #[test]
    fn a_caller_who_talks_over_the_goodbye_is_answered() {
        let mut t = turn();
        t.heard(NOW, "bye");
        t.poll();
        t.said(Some(U));
        t.over(U, false);
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), say("Hi."));
    }

    #[test]
    fn other_deeds_follow_an_announcement_that_was_cut() {
        for whole in [false, true] {
            let mut t = turn();
            t.heard(NOW, "a person");
            t.poll();
            t.said(Some(U));
            t.over(U, whole);
            assert_eq!(t.poll(), Some(Act::Do(Action::Handoff)));
        }
    }

    #[test]
    fn a_deed_does_not_wait_for_ever() {
        let mut t = turn();
        t.heard(NOW, "bye");
        t.poll();
        t.said(Some(U));
        let due = t.next_timeout().unwrap();
        assert!(due > NOW + GRACE);
        t.timeout(due - Duration::from_millis(1));
        assert_eq!(t.poll(), None);
        t.timeout(due);
        assert_eq!(t.poll(), Some(Act::Do(Action::HangUp)));
        assert_eq!(t.next_timeout(), None);
    }

    #[test]
    fn a_deed_without_words_or_voice_is_done_at_once() {
        let mut t = turn();
        t.heard(NOW, "press one");
        assert_eq!(t.poll(), Some(Act::Do(Action::Digits("1".into()))));
        t.heard(NOW, "bye");
        assert_eq!(t.poll(), say("Goodbye."));
        t.said(None);
        assert_eq!(t.poll(), Some(Act::Do(Action::HangUp)));
    }

    #[test]
    fn the_fallback_is_bounded_until_a_rule_matches() {
        let mut t = turn();
        let mut replies = 0;
        for _ in 0..5 {
            t.heard(NOW, "mumble");
            replies += usize::from(t.poll() == say("Pardon?"));
        }
        assert_eq!(replies, 2);
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), say("Hi."));
        t.heard(NOW, "mumble");
        assert_eq!(t.poll(), say("Pardon?"));
        t.heard(NOW, "  ");
        assert_eq!(t.poll(), None);
    }

    #[test]
    fn an_agent_whose_transfer_failed_listens_again_unless_a_person_took_over() {
        let mut t = turn();
        t.act(Action::Transfer("+14155550100".into()));
        t.poll();
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), None);
        t.not_done();
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), say("Hi."));
        t.pause();
        t.not_done();
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), None);
        t.resume();
        t.heard(NOW, "hello");
        assert_eq!(t.poll(), say("Hi."));
    }

    #[test]
    fn a_person_who_takes_over_is_not_talked_over() {
        let mut t = turn();
        t.heard(NOW, "bye");
        t.pause();
        t.said(Some(U));
        t.over(U, true);
        t.heard(NOW, "hello");
        assert_eq!((t.poll(), t.next_timeout()), (None, None));
    }
}
