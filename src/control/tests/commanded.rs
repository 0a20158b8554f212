//! Calls of a vendor that is answered by commands: accepted, refused, streamed once more, cleaned of noise.

use super::*;

const COMMANDED: Handling = Handling {
    by_command: true,
    stream_after_answer: false,
    restream: true,
    enhance: true,
    repeatable: true,
};

async fn deliver(control: &Control, update: CallUpdate) {
    match update.news {
        CallNews::Initiated => drop(control.incoming(vendor(), update).await.unwrap()),
        _ => control.update(vendor(), update).await.unwrap(),
    }
}

async fn world_with(handling: Handling) -> World {
    World::with(|s| s.handling = handling).await
}

impl World {
    /// A webhook, as `http::hooks` hands it over.
    async fn told(&self, update: CallUpdate) {
        deliver(&self.control, update).await;
    }

    async fn tell(&self, sid: &str, news: CallNews) {
        self.told(update(sid, news)).await;
    }

    async fn asks(&self, wanted: &[&str]) {
        self.until(&format!("{wanted:?} asked"), async || self.rest.asked() == wanted)
            .await;
    }

    /// The stream that the accepted call opens.
    async fn stream(&self, sid: &str) -> Leg {
        let call = self.control.call_exists(TENANT, sid).unwrap();
        let token = self.control.shared.pending.token(call);
        self.connect(Some(&token), sid).await.leg().await
    }
}

#[tokio::test]
async fn an_announced_call_is_accepted_once_it_is_on_record_and_not_before() {
    let mut world = world_with(COMMANDED).await;
    world.shut_store(true);
    let control = world.control.clone();
    let webhook = tokio::spawn(async move { deliver(&control, update("sid", CallNews::Initiated)).await });
    world.until("the call begins", async || world.control.live() == 1).await;
    assert_eq!(world.rest.asked(), [""; 0]);
    world.shut_store(false);
    webhook.await.unwrap();
    world.asks(&["/accept/sid"]).await;
    for _ in 0..3 {
        world.tell("sid", CallNews::Initiated).await;
    }
    let mut leg = world.stream("sid").await;
    leg.play().await;
    world.status("in_progress").await;
    world.asks(&["/accept/sid", "/enhance/sid?on=true"]).await;
    world.control.hang_up(TENANT, "sid").await.unwrap();
    world
        .until("the noise suppression stops", async || world.rest.asked().len() == 4)
        .await;
    let mut last = world.rest.asked().split_off(2);
    last.sort();
    assert_eq!(last, ["/enhance/sid?on=false", "/hangup/sid"]);
}

#[tokio::test]
async fn a_call_that_cannot_be_taken_is_rejected_and_a_repetition_of_a_live_one_is_not() {
    let world = World::with(|s| {
        s.handling = COMMANDED;
        s.config.max_calls = 1;
    })
    .await;
    let stranger = CallUpdate {
        to: "+14155559999".into(),
        ..update("lost", CallNews::Initiated)
    };
    world.told(stranger).await;
    world.asks(&["/reject/lost?busy=false"]).await;
    world.tell("sid", CallNews::Initiated).await;
    world.tell("second", CallNews::Initiated).await;
    world
        .until("three requests", async || world.rest.asked().len() == 3)
        .await;
    let mut asked = world.rest.asked();
    asked.sort();
    assert_eq!(
        asked,
        ["/accept/sid", "/reject/lost?busy=false", "/reject/second?busy=true"]
    );
    assert!(world.control.call(TENANT, "second").await.is_err());
}

#[tokio::test]
async fn a_refused_acceptance_ends_the_call_as_failed_and_tells_the_frontends() {
    let mut world = world_with(COMMANDED).await;
    world.rest.will_reply(422, "");
    world.tell("sid", CallNews::Initiated).await;
    assert_eq!(world.fault().await, (vendor().error_code, Some(vendor().name)));
    world.status("ended").await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Failed));
    world.asks(&["/accept/sid", "/hangup/sid"]).await;
}

#[tokio::test]
async fn a_request_whose_fate_is_unknown_is_repeated_where_the_vendor_recognises_it() {
    let world = world_with(COMMANDED).await;
    world.rest.will_reply(503, "");
    world.rest.will_reply(500, "");
    world.tell("sid", CallNews::Initiated).await;
    world.asks(&["/accept/sid"; 3]).await;
    assert_eq!(world.control.live(), 1);
    let world = world_with(Handling {
        repeatable: false,
        ..COMMANDED
    })
    .await;
    world.rest.will_reply(503, "");
    world.tell("sid", CallNews::Initiated).await;
    world.asks(&["/accept/sid", "/hangup/sid"]).await;
}

#[tokio::test]
async fn a_failed_stream_is_told_asked_for_once_more_and_then_ends_the_call() {
    let mut world = world_with(COMMANDED).await;
    world.tell("sid", CallNews::Initiated).await;
    world.asks(&["/accept/sid"]).await;
    let failed = |n: u32| CallUpdate {
        dedup_key: format!("failed-{n}"),
        ..update("sid", CallNews::StreamFailed)
    };
    for _ in 0..2 {
        world.told(failed(1)).await;
    }
    world.fault().await;
    world.asks(&["/accept/sid", "/stream/sid"]).await;
    drop(world.stream("sid").await);

    world.tell("two", CallNews::Initiated).await;
    let failed = |n: u32| CallUpdate {
        dedup_key: format!("failed-{n}"),
        ..update("two", CallNews::StreamFailed)
    };
    world.told(failed(1)).await;
    world.told(failed(2)).await;
    world
        .until("the call ends", async || world.row("two").await.end_reason.is_some())
        .await;
    assert_eq!(world.row("two").await.end_reason, Some(EndReason::Failed));
    assert_eq!(world.rest.asked().iter().filter(|a| *a == "/stream/two").count(), 1);
}

#[tokio::test]
async fn a_socket_that_broke_is_replaced_by_another_and_a_second_one_beside_it_is_not() {
    let mut world = World::with(|s| {
        s.handling = COMMANDED;
        s.config.media_grace = Duration::from_secs(60);
    })
    .await;
    world.tell("sid", CallNews::Initiated).await;
    world.asks(&["/accept/sid"]).await;
    let mut leg = world.stream("sid").await;
    leg.play().await;
    leg.end(LegEnd::ClosedWithoutStop).await;
    let wanted = ["/accept/sid", "/enhance/sid?on=true", "/stream/sid"];
    world.asks(&wanted).await;
    let mut leg = world.stream("sid").await;
    let call = world.control.call_exists(TENANT, "sid").unwrap();
    let token = world.control.shared.pending.token(call);
    assert_eq!(world.connect(Some(&token), "sid").await.closed().await, 1008);
    leg.hear_phrase(0);
    assert!(
        leg.play().await > 0,
        "the agent answers on the new stream, without another greeting"
    );
    let agents = world.messages("sid").await;
    let said: Vec<_> = agents.iter().map(|(_, text, _)| text.as_str()).collect();
    leg.end(LegEnd::Stopped).await;
    world.status("ended").await;
    assert_eq!(
        world.row("sid").await.end_reason,
        Some(EndReason::Completed),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_call_taken_without_a_stream_asks_for_it_once_it_is_answered() {
    let world = world_with(Handling {
        stream_after_answer: true,
        enhance: false,
        ..COMMANDED
    })
    .await;
    world.tell("sid", CallNews::Initiated).await;
    world.asks(&["/accept/sid"]).await;
    for _ in 0..2 {
        world.tell("sid", CallNews::Answered).await;
    }
    world.asks(&["/accept/sid", "/stream/sid"]).await;
    drop(world.stream("sid").await);
}

#[tokio::test]
async fn a_call_that_the_vendor_ended_while_it_was_accepted_troubles_nobody() {
    let mut world = world_with(COMMANDED).await;
    world.rest.will_reply(422, "");
    world.shut_store(true);
    let control = world.control.clone();
    let first = tokio::spawn(async move { deliver(&control, update("sid", CallNews::Initiated)).await });
    world.until("the call begins", async || world.control.live() == 1).await;
    let control = world.control.clone();
    let second = tokio::spawn(async move {
        let over = CallNews::Ended(EndReason::Canceled);
        deliver(&control, update("sid", over)).await
    });
    world.shut_store(false);
    first.await.unwrap();
    second.await.unwrap();
    world.status("ended").await;
    world.until("the call leaves", async || world.control.live() == 0).await;
    assert_eq!(world.row("sid").await.end_reason, Some(EndReason::Canceled));
}

#[tokio::test]
async fn without_credentials_a_call_that_wants_a_command_fails_and_says_why() {
    let mut world = World::with(|s| {
        s.handling = COMMANDED;
        s.credentials = false;
    })
    .await;
    world.tell("sid", CallNews::Initiated).await;
    let why = world
        .event(|e| match &e.news {
            News::Fault { message, .. } => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(why.contains("credentials are missing"), "{why}");
    world.status("ended").await;
    let world = World::with(|s| {
        s.handling = COMMANDED;
        s.credentials = false;
        s.config.accept_unannounced = true;
    })
    .await;
    world.tell("sid", CallNews::Initiated).await;
    drop(world.connect(None, "sid").await.leg().await);
}
