//! How a pipeline agent behaves on a call, by real daemons between stand-ins: who may talk over it, what silence does, what is kept.

use crate::{
    backends::{bursts, says, tones},
    daemon::place,
    minds::double::Act,
    turns::{Desk, LONG, asks, without_gaps},
};
use serde_json::Value;
use sidetone::{sim::caller::Outcome, speech::double::Fault};
use std::time::Duration;

/// A caller who says the same, `at_ms` into the call, and waits.
async fn call(desk: &Desk, at_ms: usize, wait: Duration) -> Outcome {
    let mut samples = vec![0; at_ms * 8];
    samples.extend(says(500));
    let outcome = place(desk.daemon.plan("+15550801", samples, wait))
        .await
        .unwrap()
        .unwrap();
    desk.in_order();
    outcome
}

fn words(tones: &[u32], times: usize) -> Vec<u32> {
    tones.repeat(times)
}

#[tokio::test]
async fn a_protected_greeting_is_said_to_its_end_whoever_talks() {
    let desk = Desk::open(&format!(
        "greeting = \"{LONG}\"\nprotect_greeting = true\nbarge_in_after = \"100ms\""
    ))
    .await;
    let outcome = call(&desk, 0, Duration::from_secs(5)).await;
    let heard = bursts(&without_gaps(&outcome));
    assert!(heard.starts_with(&tones(LONG)), "{heard:?}");
    assert_eq!(outcome.report.clears, 0, "{:?}", outcome.report);
}

#[tokio::test]
async fn too_few_words_do_not_interrupt_and_are_taken_for_listening() {
    // What the stand-in hears is four words.
    for (needed, cut) in [(5, false), (4, true)] {
        let desk = Desk::open(&format!("greeting = \"{LONG}\"\ninterrupt_words = {needed}")).await;
        let outcome = call(&desk, 0, Duration::from_secs(5)).await;
        let whole = bursts(&without_gaps(&outcome)).starts_with(&tones(LONG));
        assert_eq!((outcome.report.clears > 0, whole), (cut, !cut), "{:?}", outcome.report);
        assert_eq!(desk.model.asked().len(), usize::from(cut), "{needed}");
    }
}

#[tokio::test]
async fn an_interruption_without_words_is_taken_back_from_the_word_on_where_it_cut() {
    let desk = Desk::open(&format!(
        "greeting = \"{LONG}\"\nbarge_in_after = \"100ms\"\nresume_after = \"1s\""
    ))
    .await;
    // Nobody makes words of the noise.
    desk.ears.go_wrong(&[Fault::Hang; 4]);
    let outcome = call(&desk, 1000, Duration::from_secs(3)).await;
    assert_eq!(outcome.report.clears, 1, "{:?}", outcome.report);
    let (said, heard) = (tones(LONG), bursts(&outcome.heard));
    // All words came in their order; the one in which the cut was, if it was in one, began once more.
    let resumed = |k: usize| (k..=k + 1).any(|cut| heard == [&said[..cut], &said[k..]].concat());
    assert!((1..said.len()).any(resumed), "{heard:?} of {said:?}");
}

#[tokio::test]
async fn a_silent_caller_is_asked_and_then_hung_up_on() {
    let manners = "silence_after = \"1s\"\nsilence_prompts = [\"hello there\", \"still here\"]\nsilence_hang_up = true";
    let desk = Desk::open(manners).await;
    let plan = desk
        .daemon
        .plan("+15550802", vec![0; 8000 * 20], Duration::from_secs(1));
    let outcome = place(plan).await.unwrap().unwrap();
    assert_eq!(bursts(&outcome.heard), tones("hello there still here"));
    assert!(
        outcome.report.duration_ms < 19_000,
        "the daemon ended it: {:?}",
        outcome.report
    );
    assert_eq!(desk.record().await["metadata"].get("turns"), None::<&Value>);
}

#[tokio::test]
async fn a_model_that_is_slow_is_excused_once_and_then_heard() {
    let desk = Desk::open("thinking_after = \"300ms\"\nthinking_prompt = \"one moment\"").await;
    desk.model
        .will([Act::Slow(Duration::from_millis(1500), "from nine to five")]);
    let outcome = call(&desk, 0, Duration::from_secs(4)).await;
    assert_eq!(bursts(&without_gaps(&outcome)), tones("one moment from nine to five"));
}

#[tokio::test]
async fn a_common_question_is_answered_by_the_model_once() {
    let desk = Desk::open("cache_ttl = \"1m\"").await;
    desk.model
        .will([Act::Say("from nine to five"), Act::Say("something else")]);
    let once = tones("from nine to five");
    let first = place(desk.daemon.plan("+15550803", asks(1, 2500), Duration::from_secs(1)));
    assert_eq!(bursts(&without_gaps(&first.await.unwrap().unwrap())), once);
    // Another caller, who asks twice. In the second turn of a call the words are a common question too.
    let second = place(desk.daemon.plan("+15550804", asks(2, 2500), Duration::from_secs(1)));
    assert_eq!(bursts(&without_gaps(&second.await.unwrap().unwrap())), words(&once, 2));
    assert_eq!(desk.model.asked().len(), 1);
    let usage = desk.record().await["metadata"]["llm_usage"].clone();
    assert_eq!(usage["anthropic"], Value::Null, "what was kept costs nothing: {usage}");
}
