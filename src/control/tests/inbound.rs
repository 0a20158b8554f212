//! Calls that come to us: webhooks, streams, tokens, and the end.

use super::*;

#[tokio::test]
async fn a_webhook_is_answered_when_the_call_is_on_record_and_a_repetition_gets_the_same_answer() {
    let mut world = World::start().await;
    let answer = world.announce("sid").await;
    let Answer::Stream {
        url,
        token,
        status_url,
        session_id,
    } = &answer
    else {
        panic!("{answer:?}")
    };
    assert!(
        url.starts_with("wss://relay.example.com/") && url.ends_with(token.as_str()),
        "{url}"
    );
    assert!(status_url.starts_with("https://relay.example.com/"));
    let row = world.row("sid").await;
    assert_eq!(*session_id, row.session_id);
    assert_eq!(
        (row.status, row.agent.as_str(), row.customer_number.as_str()),
        (CallStatus::Incoming, "desk", CALLER)
    );
    world.status("incoming").await;
    let copies = (0..64).map(|_| world.announce("sid"));
    for copy in futures_util::future::join_all(copies).await {
        assert_eq!(copy, answer);
    }
    let page = world
        .store
        .calls(
            TENANT,
            CallFilter {
                limit: 10,
                ..CallFilter::default()
            },
        )
        .await
        .unwrap();
    assert_eq!((page.calls.len(), world.control.live()), (1, 1));
    assert!(world.news.try_recv().is_err(), "told once");
}

#[tokio::test]
async fn while_the_disk_is_away_nothing_is_answered_and_nobody_is_told() {
    let mut world = World::start().await;
    world.shut_store(true);
    let control = world.control.clone();
    let webhook = tokio::spawn(async move { control.incoming(vendor(), update("sid", CallNews::Ringing)).await });
    world.until("the call begins", async || world.control.live() == 1).await;
    assert!(world.control.active(TENANT).is_empty() && world.news.try_recv().is_err() && !webhook.is_finished());
    world.shut_store(false);
    assert!(matches!(webhook.await.unwrap().unwrap(), Answer::Stream { .. }));
    assert_eq!(world.control.active(TENANT).len(), 1);
}

#[tokio::test]
async fn a_stream_with_its_token_carries_the_call_and_a_second_one_is_refused() {
    let mut world = World::start().await;
    let token = token_of(&world.announce("sid").await);
    let mut leg = world.connect(Some(&token), "sid").await.leg().await;
    world.status("answered").await;
    world.status("in_progress").await;
    let live = world.control.active(TENANT).remove(0);
    assert!(live.connection.is_some() && live.row.status == CallStatus::InProgress);
    assert_eq!(world.connect(Some(&token), "sid").await.closed().await, 1008);
    leg.play().await;
    assert_eq!(world.message("heard").await, ("welcome caller".to_owned(), 300));
}

#[tokio::test]
async fn a_stream_without_the_right_token_is_refused_and_the_call_still_waits_for_its_own() {
    let world = World::start().await;
    let token = token_of(&world.announce("sid").await);
    for (token, sid) in [
        (None, "sid"),
        (Some("f00d"), "sid"),
        (Some(token.as_str()), "other"),
        (Some(token.as_str()), ""),
    ] {
        assert_eq!(world.connect(token, sid).await.closed().await, 1008, "{token:?} {sid}");
    }
    world.connect(Some(&token), "sid").await.leg().await;
}

#[tokio::test]
async fn a_call_whose_stream_never_comes_ends_as_failed_and_its_token_with_it() {
    let mut world = World::with(|s| s.config.stream_timeout = Duration::from_millis(50)).await;
    let token = token_of(&world.announce("sid").await);
    world.status("ended").await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Failed));
    assert_eq!(world.connect(Some(&token), "sid").await.closed().await, 1008);
    assert_eq!(
        world.announce("sid").await,
        Answer::HangUp,
        "a replayed webhook of an ended call"
    );
}

#[tokio::test]
async fn the_end_of_the_leg_closes_the_record_once_whatever_the_vendor_says_after() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    leg.end(LegEnd::ClosedWithoutStop).await;
    world.status("ended").await;
    let row = world.row("sid").await;
    assert_eq!(
        (row.status, row.end_reason, row.duration),
        (CallStatus::Ended, Some(EndReason::Completed), Some(0))
    );
    assert_eq!(row.metadata["closed_without_stop"], true);
    assert_eq!(row.metadata["accounting"]["in_frames"], 3);
    world.until("the call leaves", async || world.control.live() == 0).await;
    for news in [
        CallNews::Ended(EndReason::Failed),
        CallNews::Answered,
        CallNews::Ringing,
    ] {
        world.control.update(vendor(), update("sid", news)).await.unwrap();
    }
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Completed));
    assert_eq!(
        world.control.hang_up(TENANT, "sid").await.unwrap().status,
        CallStatus::Ended
    );
}

#[tokio::test]
async fn a_call_the_vendor_ends_closes_the_socket() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    let mut ended = update("sid", CallNews::Ended(EndReason::Completed));
    ended.duration_s = Some(12);
    for _ in 0..3 {
        world.control.update(vendor(), ended.clone()).await.unwrap();
    }
    assert_eq!(leg.wire.closed().await, 1000);
    leg.end(LegEnd::Closed).await;
    world
        .until("the accounting is stored", async || {
            !world.row("sid").await.metadata["accounting"].is_null()
        })
        .await;
    assert_eq!(world.row("sid").await.metadata["vendor_duration_s"], 12);
}

#[tokio::test]
async fn news_that_overtakes_the_webhook_leaves_the_same_record() {
    let world = World::start().await;
    world
        .control
        .update(vendor(), update("sid", CallNews::Ended(EndReason::Canceled)))
        .await
        .unwrap();
    assert_eq!(world.announce("sid").await, Answer::HangUp);
    let row = world.row("sid").await;
    assert_eq!(
        (row.status, row.end_reason),
        (CallStatus::Ended, Some(EndReason::Canceled))
    );
}

#[tokio::test]
async fn a_number_nobody_has_is_hung_up_on_unless_any_number_is_accepted() {
    let world = World::start().await;
    let mut foreign = update("sid", CallNews::Ringing);
    foreign.to = "+14155550000".into();
    assert_eq!(
        world.control.incoming(vendor(), foreign.clone()).await.unwrap(),
        Answer::HangUp
    );
    world.control.update(vendor(), foreign.clone()).await.unwrap();
    assert_eq!(world.control.live(), 0);

    let world = World::with(|s| s.config.lift_limits()).await;
    assert!(matches!(
        world.control.incoming(vendor(), foreign).await.unwrap(),
        Answer::Stream { .. }
    ));
}

#[tokio::test]
async fn an_unannounced_stream_makes_a_call_only_where_that_is_allowed() {
    let world = World::start().await;
    assert_eq!(world.connect(None, "sid").await.closed().await, 1008);

    let mut world = World::with(|s| s.config.lift_limits()).await;
    let mut leg = world.connect(None, "sid").await.leg().await;
    leg.play().await;
    assert_eq!(world.message("heard").await.0, "welcome caller");
    let row = world.row("sid").await;
    assert_eq!(
        (row.customer_number.as_str(), row.organization_number.as_str()),
        (CALLER, OURS)
    );
    assert_eq!(row.metadata["unannounced"], true);
    assert_eq!(
        world.connect(None, "sid").await.closed().await,
        1008,
        "a second stream of the call"
    );
    assert_eq!(
        world.connect(Some("f00d"), "new").await.closed().await,
        1008,
        "a wrong token is wrong everywhere"
    );
}

#[tokio::test]
async fn a_full_house_says_busy_and_the_live_call_goes_on() {
    let mut world = World::with(|s| s.config.max_calls = 1).await;
    let mut leg = world.call("one").await;
    assert_eq!(world.announce("two").await, Answer::Busy);
    leg.play().await;
    world.message("heard").await;
    leg.end(LegEnd::Stopped).await;
    world.status("ended").await;
    world.until("the call leaves", async || world.control.live() == 0).await;
    assert!(matches!(world.announce("two").await, Answer::Stream { .. }));
}

#[tokio::test]
async fn a_simulated_call_belongs_to_the_tenant_that_asked_for_it() {
    let world = World::start().await;
    let answer = world
        .control
        .announce_simulated(OTHER, vendor(), update("sid", CallNews::Ringing))
        .await
        .unwrap();
    assert_eq!(world.control.active(OTHER).len(), 1);
    assert!(world.control.active(TENANT).is_empty());
    world.connect(Some(&token_of(&answer)), "sid").await.leg().await;
}

#[tokio::test]
async fn one_tenant_neither_finds_nor_steers_anothers_call() {
    let world = World::start().await;
    world.announce("sid").await;
    let call = world.row("sid").await.call_id;
    for id in ["sid", call.as_str()] {
        assert_eq!(world.control.call_exists(TENANT, id), Some(call));
        assert_eq!(world.control.call_exists(OTHER, id), None);
        let say = Say {
            text: "hello".into(),
            ..Say::default()
        };
        assert_eq!(
            world.control.say(OTHER, id, say).await.unwrap_err(),
            Fault::not_found("call")
        );
        assert_eq!(
            world.control.hang_up(OTHER, id).await.unwrap_err(),
            Fault::not_found("call")
        );
        let moved = world.control.set_status(OTHER, id, CallStatus::Ended).await;
        assert_eq!(moved.unwrap_err(), Fault::not_found("call"));
    }
    assert_eq!(world.control.live(), 1);
}

#[tokio::test]
async fn an_id_that_cannot_be_one_is_refused() {
    let world = World::start().await;
    for sid in ["", "pending:x", "a b", "é", &"x".repeat(201)] {
        let refused = world.control.incoming(vendor(), update(sid, CallNews::Ringing)).await;
        assert_eq!(refused.unwrap_err().kind, Kind::Malformed, "{sid:?}");
    }
}
