//! A call that moves to another node before its stream begins: when it may be let go of, and how it goes on.

use super::*;
use crate::control::call::Left;

#[test]
fn a_call_is_let_go_of_before_its_stream_and_once_all_is_on_record() {
    let mut desk = Desk::with(true, TERMS);
    assert!(!desk.call.is_settled(), "its record is not there yet");
    desk.commit();
    assert!(desk.call.may_leave() && desk.call.is_settled());
    desk.say("good morning");
    desk.settle();
    desk.call.give_words_up(desk.now);
    desk.drain();
    assert!(!desk.call.is_settled());
    desk.settle();
    assert!(desk.call.is_settled());
    assert_ne!(
        desk.deliveries().last(),
        Some(&("stored", 0)),
        "nobody waits for it in vain"
    );
    let simulated = false;
    assert_eq!(desk.call.left(), Left { seq: 1, simulated });
    desk.attach();
    assert!(!desk.call.may_leave());
}

#[test]
fn a_placed_call_stays_until_its_vendor_has_taken_it() {
    let mut desk = Desk::with(false, TERMS);
    desk.commit();
    assert!(!desk.call.is_settled());
    desk.answer(Ok("sid"));
    desk.settle();
    assert!(desk.call.is_settled() && desk.call.may_leave());
    desk.vendor(CallNews::Ended(EndReason::Busy));
    desk.settle();
    assert!(!desk.call.may_leave());
}

#[test]
fn an_adopted_call_goes_on_where_it_stood() {
    let mut desk = Desk::incoming();
    let row = desk.call.row().clone();
    desk.call = Call::adopted(desk.now, row, TERMS, Facts::default(), 4);
    desk.published.clear();
    desk.created = false;
    desk.drain();
    assert!(desk.created && desk.in_air.is_none(), "its record is there");
    desk.attach();
    desk.settle();
    assert_eq!(desk.statuses(), ["answered", "in_progress"]);
    desk.say("good morning");
    desk.settle();
    let seq = desk.stored.iter().rev().find_map(|w| match w {
        Write::Message(m) => Some(m.seq),
        _ => None,
    });
    assert_eq!(seq, Some(5), "numbers go on");
}
