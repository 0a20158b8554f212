//! A service's conversation by hand: its news on one side, what is done and told on the other.

use super::*;
use crate::agent::{Kind, WebTool};
use serde_json::json;

const U: UtteranceId = UtteranceId(5);

fn at(ms: u64) -> Mono {
    Mono::from_millis(1000 + ms)
}

struct Bench {
    duplex: Duplex,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Profile)) -> Self {
        let mut profile = Profile::new("desk", Kind::Realtime);
        let mut wits = (*profile.wits).clone();
        wits.transfers = vec!["+14155550100".to_owned()];
        let order = WebTool {
            description: String::new(),
            url: "https://api.example.com/".to_owned(),
            post: true,
            parameters: json!({}),
            timeout: Duration::from_secs(1),
        };
        wits.web.insert("order".to_owned(), order);
        profile.wits = Arc::new(wits);
        change(&mut profile);
        let duplex = Duplex::new(Arc::new(profile));
        Self { duplex }
    }

    fn acts(&mut self) -> Vec<Act> {
        std::iter::from_fn(|| self.duplex.poll()).collect()
    }

    /// A reply that is being heard.
    fn reply(&mut self, now: Mono, number: u32) {
        self.duplex.begins(number);
        let acts = self.acts();
        let Some(Act::Voice { reply, protected }) = acts.last() else {
            panic!("{acts:?}")
        };
        self.duplex.voiced(now, *reply, Some(U), *protected);
        let utterance = Some(U);
        assert_eq!(
            self.acts(),
            [Act::Tell(Order::Name {
                reply: number,
                utterance
            })]
        );
    }

    fn wants(&mut self, now: Mono, name: &str, arguments: serde_json::Value) -> ToolCall {
        let call = ToolCall {
            id: "c1".to_owned(),
            name: name.to_owned(),
            arguments,
        };
        self.duplex.wants(now, call.clone());
        call
    }
}

fn respond(how: Option<&str>) -> Act {
    Act::Tell(Order::Respond {
        how: how.map(str::to_owned),
        tools: true,
    })
}

fn over(whole: bool, heard_ms: u32) -> Act {
    Act::Tell(Order::Over {
        reply: 1,
        whole,
        heard_ms,
    })
}

#[test]
fn the_greeting_is_asked_for_word_by_word_and_heard_to_its_end_where_it_is_protected() {
    let mut b = Bench::new(|p| {
        p.greeting = "Hello \"you\".".to_owned();
        Arc::make_mut(&mut p.wits).protect_greeting = true;
    });
    b.duplex.answered(at(0));
    let how = "Say exactly this to the caller, and nothing else: \"Hello 'you'.\"";
    assert_eq!(b.acts(), [respond(Some(how))]);
    b.duplex.begins(1);
    let voice = Act::Voice {
        reply: 1,
        protected: true,
    };
    assert_eq!(b.acts(), [voice]);
    b.duplex.voiced(at(10), 1, Some(U), true);
    b.acts();
    b.duplex.began();
    assert_eq!(b.acts(), [], "it may not be talked over");
    b.duplex.over(at(900), U, true, 800);
    assert_eq!(b.acts(), [over(true, 800)]);
    b.duplex.answered(at(1000));
    assert_eq!(b.acts(), [], "a caller whose stream broke is not greeted again");
}

#[test]
fn speech_that_the_service_hears_cuts_it_off_unless_it_may_finish() {
    let mut b = Bench::new(|_| {});
    b.reply(at(0), 1);
    b.duplex.began();
    assert_eq!(b.acts(), [Act::Cut]);
    b.duplex.over(at(300), U, false, 280);
    assert_eq!(b.acts(), [over(false, 280)]);
    let mut b = Bench::new(|p| p.barge_in_after = None);
    b.reply(at(0), 1);
    b.duplex.began();
    assert_eq!(b.acts(), []);
}

#[test]
fn a_cough_is_taken_back_and_words_are_not() {
    for words in [false, true] {
        let mut b = Bench::new(|_| {});
        b.reply(at(0), 1);
        b.duplex.complete(at(100));
        b.duplex.cut_off(at(500));
        b.duplex.over(at(500), U, false, 400);
        b.acts();
        if words {
            b.duplex.began();
            b.duplex.stopped();
        }
        b.duplex.timeout(at(2500));
        let expected: &[Act] = if words { &[] } else { &[respond(Some(GO_ON))] };
        assert_eq!(b.acts(), expected);
    }
}

#[test]
fn a_deed_is_done_once_its_goodbye_was_heard_and_a_hang_up_not_if_it_was_talked_over() {
    for whole in [true, false] {
        let mut b = Bench::new(|_| {});
        b.reply(at(0), 1);
        b.wants(at(50), "hang_up", json!({}));
        let (id, content) = ("c1".to_owned(), DONE.to_owned());
        assert_eq!(b.acts(), [Act::Tell(Order::Result { id, content })]);
        b.duplex.complete(at(60));
        assert_eq!(b.acts(), [], "the caller has not heard it yet");
        b.duplex.over(at(900), U, whole, 800);
        let mut expected = vec![over(whole, 800)];
        expected.extend(whole.then_some(Act::Do(Action::HangUp)));
        assert_eq!(b.acts(), expected);
    }
    let mut b = Bench::new(|_| {});
    b.reply(at(0), 1);
    b.wants(at(50), "hang_up", json!({}));
    b.duplex.complete(at(60));
    b.acts();
    b.duplex.timeout(at(50) + DEED_WITHIN);
    assert_eq!(b.acts(), [Act::Do(Action::HangUp)], "it does not wait for ever");
}

#[test]
fn what_the_web_answers_is_told_and_the_service_goes_on_a_few_times_at_most() {
    let mut b = Bench::new(|_| {});
    for round in 1..=6 {
        let call = b.wants(at(0), "order", json!({ "n": round }));
        assert_eq!(b.acts(), [Act::Fetch(call.clone())]);
        b.duplex.complete(at(10));
        assert_eq!(b.acts(), []);
        b.duplex.fetched(at(20), &call, "shipped".to_owned());
        let (id, content) = ("c1".to_owned(), "shipped".to_owned());
        let go_on = Order::Respond {
            how: None,
            tools: round < MAX_ROUNDS,
        };
        assert_eq!(b.acts(), [Act::Tell(Order::Result { id, content }), Act::Tell(go_on)]);
    }
    b.duplex.stopped();
    b.duplex.complete(at(30));
    b.acts();
    b.wants(at(40), "transfer", json!({ "to": "+19995550100" }));
    b.duplex.complete(at(50));
    let acts = b.acts();
    assert!(
        matches!(&acts[..], [Act::Tell(Order::Result { content, .. }), next]
            if content.contains("not one that calls may be transferred to") && *next == respond(None)),
        "{acts:?}"
    );
}

#[test]
fn a_silent_caller_is_asked_and_then_hung_up_on() {
    let mut b = Bench::new(|p| Arc::make_mut(&mut p.wits).silence_hang_up = true);
    b.duplex.answered(at(0));
    b.duplex.timeout(at(10_000));
    let how = "Say exactly this to the caller, and nothing else: \"Are you still there?\"";
    assert_eq!(b.acts(), [respond(Some(how))]);
    b.reply(at(10_100), 1);
    b.duplex.complete(at(10_200));
    b.duplex.over(at(11_000), U, true, 900);
    b.acts();
    assert_eq!(b.duplex.next_timeout(), Some(at(21_000)));
    b.duplex.timeout(at(21_000));
    assert_eq!(b.acts(), [Act::Do(Action::HangUp)]);
}

#[test]
fn while_a_person_has_the_call_the_service_hears_and_says_nothing() {
    let mut b = Bench::new(|_| {});
    b.reply(at(0), 1);
    b.duplex.pause();
    assert_eq!(b.acts(), [Act::Tell(Order::Pause(true))]);
    b.duplex.over(at(10), U, false, 10);
    assert_eq!(b.acts(), [over(false, 10)]);
    b.duplex.begins(2);
    let drop = Order::Name {
        reply: 2,
        utterance: None,
    };
    assert_eq!(b.acts(), [Act::Tell(drop)]);
    b.wants(at(20), "hang_up", json!({}));
    b.duplex.person_said("I am Bob.");
    b.duplex.resume(at(30));
    let expected = [
        Act::Tell(Order::Note("I am Bob.".to_owned())),
        Act::Tell(Order::Pause(false)),
    ];
    assert_eq!(b.acts(), expected);
}

#[test]
fn an_outage_leaves_nothing_that_is_waited_for() {
    let mut b = Bench::new(|_| {});
    b.duplex.stopped();
    b.wants(at(0), "order", json!({}));
    b.acts();
    b.duplex.failed(at(10));
    assert!(b.duplex.next_timeout().is_some(), "silence is watched again");
    b.duplex.timeout(at(60_000));
    assert!(matches!(&b.acts()[..], [Act::Tell(Order::Respond { .. })]));
}
