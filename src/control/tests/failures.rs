//! What must not hurt anybody else: a panic, a stop, a stream that breaks.

use super::*;

#[tokio::test]
async fn a_panic_ends_its_own_call_alone() {
    let mut world = World::start().await;
    let (mut bad, mut good) = (world.call("bad").await, world.call("good").await);
    bad.play().await;
    bad.hear_phrase(BUG);
    assert_eq!(bad.wire.closed().await, 1011);
    world.status("ended").await;
    let row = world.row("bad").await;
    assert_eq!(
        (row.status, row.end_reason),
        (CallStatus::Ended, Some(EndReason::Failed))
    );
    world.until("it leaves", async || world.control.live() == 1).await;
    good.play().await;
    good.hear_phrase(HOURS);
    good.play().await;
    assert_eq!(world.row("good").await.status, CallStatus::InProgress);
}

#[tokio::test]
async fn a_stopping_daemon_takes_no_new_calls_and_waits_for_the_live_ones() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    let control = world.control.clone();
    let drain = tokio::spawn(async move { control.drain(SOON).await });
    tokio::task::yield_now().await;
    assert_eq!(world.announce("new").await, Answer::Busy);
    assert!(!drain.is_finished());
    leg.end(LegEnd::Stopped).await;
    drain.await.unwrap();
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Completed));
}

#[tokio::test]
async fn a_daemon_that_can_wait_no_longer_ends_its_calls_as_interrupted() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    let control = world.control.clone();
    let drain = tokio::spawn(async move { control.drain(Duration::ZERO).await });
    assert_eq!(leg.wire.closed().await, 1001);
    leg.end(LegEnd::Closed).await;
    drain.await.unwrap();
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Interrupted));
    assert_eq!(world.rest.asked(), ["/hangup/sid"], "the vendor is told");
}

#[tokio::test]
async fn a_leg_whose_thread_is_gone_ends_its_call_as_failed() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    drop(leg);
    world.status("ended").await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Failed));
}

#[tokio::test]
async fn a_silent_stream_ends_its_call_as_media_lost() {
    let mut world = World::start().await;
    world.call("sid").await.end(LegEnd::Idle).await;
    world.status("ended").await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::MediaLost));
}

#[tokio::test]
async fn a_stream_that_broke_a_rule_ends_its_call_as_failed() {
    let mut world = World::start().await;
    world.call("sid").await.end(LegEnd::Violation(1008)).await;
    world.status("ended").await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Failed));
}
