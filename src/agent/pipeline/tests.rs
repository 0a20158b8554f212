//! Conversations by hand, one rule at a time, and in any order.

use super::*;
use crate::{
    agent::{Kind, WebTool, Wits},
    llm::Usage,
};
use proptest::prelude::*;
use serde_json::json;

const END: Piece = Piece::End {
    stop: Stop::Said,
    usage: Usage { input: 0, output: 0 },
};

/// A conversation, its clock, and the utterances it was given.
struct Scene {
    p: Pipeline,
    now: Mono,
    last: u32,
}

fn profile(change: impl FnOnce(&mut Profile, &mut Wits)) -> Arc<Profile> {
    let mut profile = Profile::new("desk", Kind::Pipeline);
    let mut wits = Wits {
        llm: "anthropic".into(),
        silence_after: Duration::ZERO,
        transfers: vec!["+14155550100".into()],
        ..Wits::default()
    };
    change(&mut profile, &mut wits);
    profile.wits = Arc::new(wits);
    Arc::new(profile)
}

impl Scene {
    fn new(change: impl FnOnce(&mut Profile, &mut Wits)) -> Self {
        Self {
            p: Pipeline::new(profile(change)),
            now: Mono::from_millis(1000),
            last: 0,
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.p.timeout(self.now);
    }

    fn hear(&mut self, text: &str) {
        self.p.heard(self.now, text, None);
    }

    /// What it asks for; what is to be said gets the next utterance.
    fn acts(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some(act) = self.p.poll() {
            if matches!(act, Act::Say(_)) {
                self.last += 1;
                self.p.said(self.now, Some(UtteranceId(self.last)));
            }
            acts.push(act);
        }
        acts
    }

    fn says(&mut self) -> Vec<String> {
        let said = self.acts().into_iter().filter_map(|a| match a {
            Act::Say(line) => Some(line.text),
            _ => None,
        });
        said.collect()
    }

    fn asks(&mut self) -> Option<Question> {
        self.acts().into_iter().rev().find_map(|a| match a {
            Act::Ask(q) => Some(*q),
            _ => None,
        })
    }

    fn answer(&mut self, text: &str) {
        self.p.piece(self.now, Ok(Piece::Text(text.into())));
        self.p.piece(self.now, Ok(END));
    }

    fn over(&mut self, utterance: u32, whole: bool, heard_ms: u32) {
        self.p.over(self.now, UtteranceId(utterance), whole, heard_ms);
    }

    fn call(&mut self, name: &str, arguments: Value) {
        let call = ToolCall {
            id: "c1".into(),
            name: name.into(),
            arguments,
        };
        self.p.piece(self.now, Ok(Piece::Call(call)));
        let stop = Stop::Calls;
        let usage = Usage::default();
        self.p.piece(self.now, Ok(Piece::End { stop, usage }));
    }
}

fn user(text: &str) -> Turn {
    Turn::User(text.into())
}

#[test]
fn the_model_is_told_what_was_said_and_heard() {
    let mut s = Scene::new(|p, _| p.greeting = "Welcome.".into());
    s.p.answered(s.now);
    assert_eq!(s.says(), ["Welcome."]);
    s.over(1, true, 900);
    s.hear("When are you open?");
    let asked = s.asks().unwrap();
    assert_eq!(
        asked.prompt.turns,
        [Turn::assistant("Welcome."), user("When are you open?")]
    );
    assert!(asked.prompt.system.starts_with("You are on a phone call"));
    assert_eq!(asked.prompt.tools.len(), 4);
}

#[test]
fn sentences_are_spoken_while_the_model_goes_on() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Hello");
    s.asks();
    s.p.piece(s.now, Ok(Piece::Text("From nine. We".into())));
    assert_eq!(s.says(), ["From nine."]);
    s.p.piece(s.now, Ok(Piece::Text(" close at five".into())));
    assert!(s.says().is_empty());
    s.p.piece(s.now, Ok(END));
    assert_eq!(s.says(), ["We close at five"]);
    s.over(1, true, 500);
    s.over(2, true, 900);
    s.hear("Thanks");
    let turns = s.asks().unwrap().prompt.turns;
    assert_eq!(turns[1], Turn::assistant("From nine. We close at five"));
}

#[test]
fn history_holds_only_what_was_heard_before_the_caller_cut_in() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Hello");
    s.asks();
    s.answer("One two three four. Five six.");
    assert_eq!(s.says().len(), 2);
    s.p.audio(UtteranceId(1), 2000, true);
    s.p.cut_off(s.now);
    s.over(1, false, 1000);
    s.over(2, false, 0);
    s.hear("Stop please");
    let turns = s.asks().unwrap().prompt.turns;
    assert_eq!(turns, [user("Hello"), Turn::assistant("One two"), user("Stop please")]);
}

#[test]
fn an_interruption_without_words_is_taken_back() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Hello");
    s.asks();
    s.answer("One two three four. Five six.");
    s.says();
    s.p.audio(UtteranceId(1), 2000, true);
    s.p.cut_off(s.now);
    s.over(1, false, 1000);
    s.over(2, false, 0);
    s.wait(1900);
    assert!(s.acts().is_empty());
    s.wait(200);
    assert_eq!(s.says(), ["three four.", "Five six."]);
    s.over(3, true, 1000);
    s.over(4, true, 1000);
    s.hear("Go on");
    let turns = s.asks().unwrap().prompt.turns;
    assert_eq!(turns[1], Turn::assistant("One two three four. Five six."));
}

#[test]
fn a_caller_who_is_still_talking_is_not_talked_over() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Hello");
    s.asks();
    s.answer("One two three four.");
    s.says();
    s.p.cut_off(s.now);
    s.over(1, false, 100);
    s.p.began(s.now);
    s.wait(5000);
    assert!(s.acts().is_empty());
    s.p.hears(s.now, "wait a");
    s.wait(1900);
    s.hear("Wait a moment");
    assert_eq!(s.asks().unwrap().prompt.turns.last(), Some(&user("Wait a moment")));
}

#[test]
fn it_takes_words_to_interrupt_where_words_are_asked_for() {
    let mut s = Scene::new(|_, w| w.interrupt_words = 2);
    assert_eq!(s.p.profile.onset(), None);
    s.hear("Hello there");
    s.asks();
    s.answer("One two three four.");
    s.says();
    s.p.hears(s.now, "yes");
    s.hear("Yes.");
    assert!(s.acts().is_empty());
    s.p.hears(s.now, "no wait");
    assert_eq!(s.acts(), [Act::Cut]);
    s.over(1, false, 0);
    s.hear("No, wait");
    assert_eq!(s.asks().unwrap().prompt.turns.last(), Some(&user("No, wait")));
}

#[test]
fn words_that_come_before_the_answer_belong_to_the_question() {
    let mut s = Scene::new(|_, w| w.endpoint_after = Duration::from_millis(300));
    s.hear("I would like");
    s.wait(200);
    assert!(s.acts().is_empty());
    s.hear("a table");
    s.wait(300);
    assert_eq!(s.asks().unwrap().prompt.turns, [user("I would like a table")]);
    s.hear("for two");
    s.wait(300);
    let acts = s.acts();
    assert_eq!(acts[0], Act::StopAsking);
    let Act::Ask(q) = &acts[1] else { panic!("{acts:?}") };
    assert_eq!(q.prompt.turns, [user("I would like a table for two")]);
}

#[test]
fn an_interim_stands_for_a_final_that_does_not_come() {
    let mut s = Scene::new(|_, _| {});
    s.p.hears(s.now, "my number is four");
    s.wait(2000);
    assert_eq!(s.asks().unwrap().prompt.turns, [user("my number is four")]);
    s.hear("My number is four.");
    assert!(s.acts().is_empty(), "the final says the same");
}

#[test]
fn a_hang_up_waits_for_the_goodbye_and_not_for_a_caller_who_talks_over_it() {
    for talks in [false, true] {
        let mut s = Scene::new(|_, _| {});
        s.hear("Bye");
        s.asks();
        s.p.piece(s.now, Ok(Piece::Text("Good bye.".into())));
        s.call("hang_up", json!({}));
        assert_eq!(s.says(), ["Good bye."]);
        s.over(1, !talks, 300);
        let expected = if talks { vec![] } else { vec![Act::Do(Action::HangUp)] };
        assert_eq!(s.acts(), expected);
    }
}

#[test]
fn calls_are_transferred_to_listed_numbers_alone() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Sales");
    s.asks();
    s.call("transfer", json!({ "to": "+19005550000" }));
    let turns = s.asks().unwrap().prompt.turns;
    assert!(matches!(turns.last(), Some(Turn::Result { content, .. }) if content.contains("not one")));
    s.call("transfer", json!({ "to": "+14155550100" }));
    assert_eq!(s.acts(), [Act::Do(Action::Transfer("+14155550100".into()))]);
    s.p.not_done(s.now);
    s.hear("Hello?");
    assert!(s.asks().is_some());
}

#[test]
fn what_the_web_answers_is_told_to_the_model() {
    let mut s = Scene::new(|_, w| {
        let tool = WebTool {
            description: "Orders".into(),
            url: "https://api.example.com".into(),
            post: true,
            parameters: json!({}),
            timeout: Duration::from_secs(1),
        };
        w.web.insert("order".into(), tool);
    });
    s.hear("My order?");
    assert_eq!(s.asks().unwrap().prompt.tools.len(), 5);
    s.p.piece(s.now, Ok(Piece::Text("One moment.".into())));
    s.call("order", json!({ "n": 7 }));
    let acts = s.acts();
    let Some(Act::Fetch(call)) = acts.last() else {
        panic!("{acts:?}")
    };
    s.over(1, true, 500);
    assert!(s.acts().is_empty(), "it waits for the web");
    s.p.fetched(s.now, call.clone(), "shipped".into());
    let turns = s.asks().unwrap().prompt.turns;
    assert!(matches!(&turns[1], Turn::Assistant { text, calls } if text == "One moment." && calls.len() == 1));
    assert!(matches!(&turns[2], Turn::Result { content, .. } if content == "shipped"));
    s.answer("It was shipped.");
    assert_eq!(s.says(), ["It was shipped."]);
}

#[test]
fn a_model_that_only_ever_calls_is_stopped() {
    let mut s = Scene::new(|_, _| {});
    s.hear("Hello");
    let mut asked = 0;
    while s.asks().is_some() {
        asked += 1;
        s.call("nonsense", json!({}));
        assert!(asked < 20);
    }
    assert!(asked > 2);
}

#[test]
fn another_model_is_asked_and_then_the_caller_is_told() {
    let failed = || Err(ChatError::Unauthenticated);
    let mut s = Scene::new(|_, w| w.llm_fallback = Some("openai/small".into()));
    s.hear("Hello");
    assert!(!s.asks().unwrap().fallback);
    s.p.piece(s.now, failed());
    let second = s.asks().unwrap();
    assert_eq!((second.fallback, second.prompt.model.as_deref()), (true, Some("small")));
    s.p.piece(s.now, failed());
    assert!(s.says()[0].starts_with("I am sorry"));
    s.over(1, true, 100);
    s.hear("Again");
    assert!(!s.asks().unwrap().fallback, "the first choice is tried again");
    s.p.piece(s.now, Ok(Piece::Text("Half. An answ".into())));
    s.p.piece(s.now, failed());
    assert_eq!(
        s.says(),
        ["Half.", "An answ"],
        "what was begun is not begun again by somebody else"
    );
}

#[test]
fn a_silent_caller_is_asked_and_then_hung_up_on() {
    let mut s = Scene::new(|p, w| {
        p.greeting = "Welcome.".into();
        w.silence_after = Duration::from_secs(5);
        w.silence_hang_up = true;
    });
    s.p.answered(s.now);
    s.says();
    s.wait(6000);
    assert!(s.acts().is_empty(), "nobody is silent while they are spoken to");
    s.over(1, true, 900);
    s.wait(5000);
    assert_eq!(s.says(), ["Are you still there?"]);
    s.over(2, true, 900);
    s.wait(5000);
    assert_eq!(s.acts(), [Act::Do(Action::HangUp)]);
}

#[test]
fn a_slow_model_is_excused_once() {
    let mut s = Scene::new(|_, w| {
        w.thinking_after = Duration::from_millis(800);
        w.thinking_prompt = "One moment.".into();
    });
    s.hear("Hello");
    s.asks();
    s.wait(800);
    assert_eq!(s.says(), ["One moment."]);
    s.over(1, true, 500);
    s.wait(5000);
    assert!(s.acts().is_empty());
    s.answer("Here it is.");
    assert_eq!(s.says(), ["Here it is."]);
}

#[test]
fn who_hands_a_call_back_finds_an_agent_that_knows_what_was_said() {
    let mut s = Scene::new(|_, _| {});
    s.hear("I want a person");
    s.asks();
    s.p.pause();
    assert_eq!(s.acts(), [Act::StopAsking]);
    s.p.person_said("I am Ada.");
    s.hear("My order is late");
    assert!(s.acts().is_empty());
    s.p.resume(s.now);
    let turns = s.asks().unwrap().prompt.turns;
    let expected = [
        user("I want a person"),
        Turn::assistant("I am Ada."),
        user("My order is late"),
    ];
    assert_eq!(turns, expected);
}

#[test]
fn a_common_question_may_be_answered_from_what_was_kept() {
    let mut s = Scene::new(|_, w| w.cache_ttl = Duration::from_secs(60));
    s.hear("When are you open?");
    assert_eq!(s.asks().unwrap().common.as_deref(), Some("When are you open?"));
}

#[test]
fn whoever_speaks_any_language_answers_in_the_callers() {
    let mut s = Scene::new(|p, _| p.language = "auto".into());
    s.p.heard(s.now, "Buenos días", Some("es"));
    let asked = s.asks().unwrap();
    assert!(
        asked.prompt.system.ends_with("in which the caller speaks."),
        "{:?}",
        asked.prompt.system
    );
    s.answer("Hola.");
    let language = |acts: Vec<Act>| match acts.into_iter().next() {
        Some(Act::Say(line)) => line.language,
        other => panic!("{other:?}"),
    };
    assert_eq!(language(s.acts()).as_deref(), Some("es"));
    s.over(1, true, 300);
    // A word in which no language is heard changes none.
    s.hear("Hm?");
    s.asks();
    s.answer("¿Sí?");
    assert_eq!(language(s.acts()).as_deref(), Some("es"));
    let mut s = Scene::new(|_, _| {});
    s.p.heard(s.now, "Buenos días", Some("es"));
    s.asks();
    s.answer("Hello.");
    assert_eq!(language(s.acts()), None, "an agent of one language speaks that");
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order_is_taken(ops in prop::collection::vec((0u8..14, 1u32..6), 0..120)) {
        let mut s = Scene::new(|p, w| {
            p.greeting = "Welcome to us.".into();
            w.silence_after = Duration::from_secs(3);
            w.interrupt_words = 1;
        });
        for (op, n) in ops {
            match op {
                0 => s.p.answered(s.now),
                1 => s.hear("What is it"),
                2 => s.p.hears(s.now, "what"),
                3 => s.p.began(s.now),
                4 => s.p.cut_off(s.now),
                5 => s.over(n, true, 500),
                6 => s.over(n, false, 100 * n),
                7 => s.p.piece(s.now, Ok(Piece::Text("A word. And another".into()))),
                8 => s.p.piece(s.now, Ok(END)),
                9 => s.p.piece(s.now, Err(ChatError::NoCredit)),
                10 => s.call("send_digits", json!({ "digits": "1" })),
                11 => s.p.pause(),
                12 => s.p.resume(s.now),
                _ => s.wait(u64::from(n) * 700),
            }
            let acts = s.acts();
            prop_assert!(acts.len() <= MAX_SENTENCES + 4);
            for act in acts {
                if let Act::Ask(q) = act {
                    prop_assert!(!q.prompt.turns.is_empty());
                }
            }
        }
    }
}
