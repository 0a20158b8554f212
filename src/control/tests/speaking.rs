//! What is said on a call: agents, persons, microphones, and what becomes of their words.

use super::*;
use crate::store::Sender::{Agent, Customer};

#[tokio::test]
async fn a_scripted_agent_greets_answers_and_hangs_up_after_the_goodbye_was_heard() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    leg.hear_phrase(HOURS);
    assert_eq!(world.final_words().await, ("opening hours".to_owned(), "customer"));
    leg.play().await;
    leg.hear_phrase(UNKNOWN);
    leg.play().await;
    leg.hear_phrase(GOODBYE);
    let (goodbye, taken, _) = leg.take(usize::MAX).await;
    leg.tell(LegEvent::Playing(goodbye)).await;
    world
        .event(|e| {
            matches!(&e.news, News::MessageStatus { status: "stored", message, .. } if message == "bye now")
                .then_some(())
        })
        .await;
    assert!(world.rest.asked().is_empty(), "hung up before the goodbye was heard");
    leg.tell(LegEvent::Played {
        utterance: goodbye,
        heard_ms: (taken / 8) as u32,
        whole: true,
    })
    .await;
    world.status("ended").await;
    assert_eq!(world.rest.asked(), ["/hangup/sid"]);
    assert_eq!(leg.wire.closed().await, 1000);
    let said = world.messages("sid").await;
    let said: Vec<_> = said
        .iter()
        .map(|(who, words, delivery)| (*who, words.as_str(), *delivery))
        .collect();
    assert_eq!(
        said,
        [
            (Agent, "welcome caller", Some("heard")),
            (Customer, "opening hours", None),
            (Agent, "nine to five", Some("heard")),
            (Customer, "tone of 1300 Hz", None),
            (Agent, "pardon", Some("heard")),
            (Customer, "good bye", None),
            (Agent, "bye now", Some("heard")),
        ]
    );
}

#[tokio::test]
async fn a_persons_words_are_stored_then_heard_and_carry_their_reference() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let mut leg = world.call("sid").await;
    let say = Say {
        text: " good day to you ".into(),
        client_ref: Some("r1".into()),
        sender_name: Some("Ada".into()),
        ..Say::default()
    };
    let message = world.control.say(TENANT, "sid", say).await.unwrap();
    leg.play().await;
    assert_eq!(world.message("heard").await, ("good day to you".to_owned(), 600));
    let of_message = |e: &&Arc<Event>| matches!(&e.news, News::MessageStatus { message_id, client_ref, .. } if *message_id == message && client_ref.as_deref() == Some("r1"));
    let statuses: Vec<_> = world.seen.iter().filter(of_message).collect();
    assert_eq!(statuses.len(), 2);
    assert!(statuses[0].id < statuses[1].id && statuses[0].id.is_some());
    let row = world
        .store
        .messages(TENANT, world.row("sid").await.call_id)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (row.message_id, row.sender_name.as_deref(), row.heard_ms),
        (message, Some("Ada"), Some(600))
    );
    let audio = world
        .seen
        .iter()
        .filter(|e| matches!(&e.news, News::TtsAudio { message_id, .. } if *message_id == message));
    assert!(audio.count() > 0, "frontends get the speech");
}

#[tokio::test]
async fn words_are_spoken_while_the_disk_is_away_and_confirmed_when_it_is_back() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let mut leg = world.call("sid").await;
    world.shut_store(true);
    let say = Say {
        text: "hello".into(),
        ..Say::default()
    };
    world.control.say(TENANT, "sid", say).await.unwrap();
    leg.play().await;
    let unconfirmed = timeout(Duration::from_millis(100), world.message("stored")).await;
    assert!(unconfirmed.is_err());
    world.shut_store(false);
    world.message("stored").await;
    world.message("heard").await;
}

#[tokio::test]
async fn what_cannot_be_spoken_fails_with_its_message_named_and_the_call_goes_on() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let mut leg = world.call("sid").await;
    for text in ["[break]", "hello"] {
        let say = Say {
            text: text.into(),
            ..Say::default()
        };
        world.control.say(TENANT, "sid", say).await.unwrap();
    }
    assert_eq!(world.fault().await, ("TTS_ERROR", None));
    let named = |e: &Arc<Event>| {
        matches!(
            &e.news,
            News::Fault {
                message_id: Some(_),
                ..
            }
        )
    };
    assert!(world.seen.iter().any(named));
    assert_eq!(world.message("failed").await.0, "[break]");
    while leg.take(usize::MAX).await.1 == 0 {}
    assert!(world.control.call_exists(TENANT, "sid").is_some());
}

#[tokio::test]
async fn speaking_over_the_agent_cuts_it_and_what_was_queued() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let mut leg = world.call("sid").await;
    for text in ["one two three four five six seven eight", "nine"] {
        let say = Say {
            text: text.into(),
            ..Say::default()
        };
        world.control.say(TENANT, "sid", say).await.unwrap();
    }
    let (first, ..) = leg.take(800).await;
    leg.tell(LegEvent::Playing(first)).await;
    leg.tell(LegEvent::BargedIn).await;
    leg.tell(LegEvent::Played {
        utterance: first,
        heard_ms: 100,
        whole: false,
    })
    .await;
    let (a, b) = (world.message("cut").await, world.message("cut").await);
    assert_eq!((a.1 + b.1, a.0.len().min(b.0.len())), (100, 4));
    let LegCommand::Cut { floor } = leg.wire.command().await else {
        panic!("no cut")
    };
    let say = Say {
        text: "anew".into(),
        ..Say::default()
    };
    world.control.say(TENANT, "sid", say).await.unwrap();
    loop {
        let (utterance, ..) = leg.take(1).await;
        if utterance >= floor {
            break;
        }
    }
}

#[tokio::test]
async fn a_script_hands_over_to_a_person_and_falls_silent() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    leg.hear_phrase(PERSON);
    leg.play().await;
    world
        .event(|e| matches!(&e.news, News::Handoff { agent } if agent == "human").then_some(()))
        .await;
    leg.hear_phrase(HOURS);
    assert_eq!(world.final_words().await.0, "opening hours");
    let say = Say {
        text: "hello".into(),
        ..Say::default()
    };
    world.control.say(TENANT, "sid", say).await.unwrap();
    leg.play().await;
    loop {
        if world.message("heard").await.0 == "hello" {
            break;
        }
    }
    let row = world.row("sid").await;
    assert_eq!(
        (row.agent.as_str(), &row.metadata["handoffs"][0]["from"]),
        ("human", &"desk".into())
    );
    let said = world.messages("sid").await;
    assert!(!said.iter().any(|(_, words, _)| words == "nine to five"), "{said:?}");
}

#[tokio::test]
async fn keys_a_vendor_cannot_send_are_played_as_tones_and_are_no_message() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    leg.hear_phrase(KEYS);
    world.final_words().await;
    assert_eq!(leg.play().await, 3 * 200);
    leg.hear_phrase(HOURS);
    world.final_words().await;
    let said: Vec<_> = world
        .messages("sid")
        .await
        .into_iter()
        .map(|(_, words, _)| words)
        .take(3)
        .collect();
    assert_eq!(said, ["welcome caller", "press keys", "opening hours"]);
}

#[tokio::test]
async fn a_pressed_key_is_told() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    leg.tell(LegEvent::Dtmf('#')).await;
    let id = world.event(|e| matches!(e.news, News::Dtmf('#')).then_some(e.id)).await;
    assert!(id.is_some());
}

fn microphone(samples: Vec<i16>, to_caller: bool) -> Microphone {
    Microphone {
        samples,
        rate: 8000,
        to_caller,
        last: true,
    }
}

#[tokio::test]
async fn a_microphone_is_recognised_as_the_agents_words_on_a_carried_call_and_not_answered() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    world
        .control
        .microphone(TENANT, "sid", microphone(phrase(HOURS, 100, 8000), false))
        .unwrap();
    assert_eq!(world.final_words().await, ("tone of 400 Hz".to_owned(), "agent"));
    leg.hear_phrase(HOURS);
    assert_eq!(world.final_words().await.1, "customer");
    leg.play().await;
}

#[tokio::test]
async fn without_a_vendor_leg_the_microphone_is_the_customer() {
    let mut world = World::start().await;
    world.announce("sid").await;
    world
        .control
        .microphone(TENANT, "sid", microphone(phrase(HOURS, 100, 8000), false))
        .unwrap();
    assert_eq!(world.final_words().await, ("opening hours".to_owned(), "customer"));
}

#[tokio::test]
async fn a_microphone_for_the_caller_is_played_as_it_is_and_is_no_message() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let mut leg = world.call("sid").await;
    world
        .control
        .microphone(TENANT, "sid", microphone(vec![500; 1600], true))
        .unwrap();
    assert_eq!(leg.play().await, 200);
    assert!(world.messages("sid").await.is_empty());
    assert!(
        world
            .control
            .microphone(OTHER, "sid", microphone(vec![0], true))
            .is_err()
    );
}

#[tokio::test]
async fn recognition_that_breaks_is_told_once_and_the_agent_still_speaks() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    for _ in 0..3 {
        leg.hear_phrase(26);
    }
    assert_eq!(world.fault().await, ("STT_ERROR", None));
    leg.play().await;
    world.message("heard").await;
}

#[tokio::test]
async fn an_agent_without_a_voice_cannot_be_spoken_through() {
    let mut world = World::with(|s| s.config.default_agent = "listen".into()).await;
    let mut leg = world.call("sid").await;
    let say = Say {
        text: "hello".into(),
        ..Say::default()
    };
    assert_eq!(
        world.control.say(TENANT, "sid", say).await.unwrap_err().kind,
        Kind::Conflict
    );
    // Nor does a frontend's microphone reach the caller: the ring is there for keys alone.
    let aloud = microphone(vec![500; 1600], true);
    world.control.microphone(TENANT, "sid", aloud).unwrap();
    leg.hear_phrase(2);
    assert_eq!(world.final_words().await.0, "tone of 600 Hz");

    assert!(leg.downlink.as_mut().unwrap().peek().is_none());

    let mut world = World::with(|s| s.config.default_agent = "echo".into()).await;
    assert!(world.call("sid").await.echo);
}

#[tokio::test]
async fn keys_are_played_to_the_caller_whatever_agent_has_the_call() {
    for agent in ["listen", "human"] {
        let mut world = World::with(|s| s.config.default_agent = agent.into()).await;
        let mut leg = world.call("sid").await;
        world.control.digits(TENANT, "sid", "12#".into()).await.unwrap();
        assert_eq!(
            leg.play().await,
            600,
            "{agent}: three keys of 100 ms, and as much silence"
        );
    }
    let mut world = World::with(|s| s.config.default_agent = "echo".into()).await;
    let leg = world.call("sid").await;
    world.control.digits(TENANT, "sid", "12#".into()).await.unwrap();
    assert!(matches!(leg.wire.command().await, LegCommand::Tones(_)));
    // A minute of them may wait.
    let mut refused = None;
    for _ in 0..5 {
        refused = world
            .control
            .digits(TENANT, "sid", "0".repeat(64))
            .await
            .err()
            .or(refused);
    }
    assert_eq!(refused.map(|fault| fault.kind), Some(Kind::TooMany));
    world.announce("rings").await;
    let fault = world.control.digits(TENANT, "rings", "1".into()).await.unwrap_err();
    assert_eq!(fault.kind, Kind::Conflict, "nobody hears them yet");
}

#[tokio::test]
async fn an_ended_call_can_be_asked_for_nothing_and_a_foreign_one_is_not_found() {
    let mut world = World::start().await;
    let leg = world.call("sid").await;
    leg.end(LegEnd::Stopped).await;
    world.status("ended").await;
    world
        .until("the call is let go", async || world.control.live() == 0)
        .await;
    let control = &world.control;
    for (tenant, id, kind) in [
        (TENANT, "sid", Kind::Conflict),
        (OTHER, "sid", Kind::NotFound),
        (TENANT, "never", Kind::NotFound),
    ] {
        let faults = [
            control.mute(tenant, id, Mute::default()).await.err(),
            control.digits(tenant, id, "1".into()).await.err(),
            control.transfer(tenant, id, CALLER.into()).await.err(),
            control.record(tenant, id, false).await.err(),
            control.take_over(tenant, id, "Ada".into()).await.err(),
            control.listen(tenant, id).await.err(),
            control.set_status(tenant, id, CallStatus::InProgress).await.err(),
        ];
        for (n, fault) in faults.into_iter().enumerate() {
            let fault = fault.unwrap();
            assert_eq!(fault.kind, kind, "{n} {id}: {fault}");
            let said = match kind {
                Kind::Conflict => "the call has ended",
                _ => "call not found",
            };
            assert_eq!(fault.message, said, "{n} {id}");
        }
    }
    assert!(
        control.hang_up(TENANT, "sid").await.is_ok(),
        "what is wanted is so already"
    );
    assert_eq!(control.hang_up(OTHER, "sid").await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn words_are_checked_before_they_are_said() {
    let mut world = World::with(|s| s.config.default_agent = "human".into()).await;
    let _leg = world.call("sid").await;
    for (text, kind) in [("  ", Kind::Invalid), (&*"x".repeat(4001), Kind::TooLarge)] {
        let say = Say {
            text: text.into(),
            ..Say::default()
        };
        assert_eq!(world.control.say(TENANT, "sid", say).await.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn the_last_words_before_the_end_are_kept() {
    let mut world = World::start().await;
    let mut leg = world.call("sid").await;
    leg.play().await;
    let words = phrase(HOURS, 100, 8000);
    leg.hear(&words[..900]);
    leg.uplink = None;
    leg.end(LegEnd::Stopped).await;
    assert_eq!(world.final_words().await.0, "opening hours");
    let said = world.messages("sid").await;
    assert!(
        said.iter()
            .any(|(who, words, _)| *who == Customer && words == "opening hours")
    );
}

#[tokio::test]
async fn a_recorded_call_names_its_file() {
    let mut world = World::with(|s| {
        let human = s.agents.get("human").unwrap().as_ref().clone();
        s.agents.insert(Profile { record: true, ..human });
        s.config.default_agent = "human".into();
    })
    .await;
    let leg = world.call("sid").await;
    assert!(leg.recorded);
    world
        .until("the file is named", async || world.row("sid").await.recording.is_some())
        .await;
    let file = world.row("sid").await.recording.unwrap();
    assert!(world.folder.path().join(&file).exists(), "{file}");
}
