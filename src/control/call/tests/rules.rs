//! What a call does, one rule at a time.

use super::*;
use tokio::sync::oneshot::error::TryRecvError;

#[test]
fn nothing_is_told_before_it_is_on_disk() {
    let mut desk = Desk::with(true, TERMS);
    let mut told = desk.vendor(CallNews::Ringing);
    assert!(desk.published.is_empty() && !desk.created);
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    desk.commit();
    assert_eq!((desk.statuses(), desk.published[0].id), (vec!["incoming"], Some(1)));
    assert!(desk.created);
    assert_eq!(told.try_recv(), Ok(Ok(())));
}

#[test]
fn an_answered_call_is_answered_once_and_in_progress_when_its_stream_starts() {
    let mut desk = Desk::incoming();
    desk.vendor(CallNews::Answered);
    desk.attach();
    for late in [
        CallNews::Answered,
        CallNews::Ringing,
        CallNews::Initiated,
        CallNews::Other,
    ] {
        desk.vendor(late);
    }
    desk.settle();
    assert_eq!(desk.statuses(), ["incoming", "answered", "in_progress"]);
    let answered = desk
        .stored
        .iter()
        .filter(|w| matches!(w, Write::CallChange(c) if c.answered_at.is_some()));
    assert_eq!(answered.count(), 1);
}

#[test]
fn a_placed_call_rings_and_is_never_incoming() {
    let mut desk = Desk::with(false, TERMS);
    assert!(desk.asks.is_empty(), "asked of the vendor before its record exists");
    desk.commit();
    assert_eq!(desk.asks, [Ask::Dial]);
    desk.answer(Ok("sid"));
    desk.vendor(CallNews::Ringing);
    desk.vendor(CallNews::Ended(EndReason::Busy));
    desk.vendor(CallNews::Answered);
    desk.settle();
    assert_eq!(desk.statuses(), ["initiated", "ringing", "ended"]);
    assert_eq!(
        (desk.end_reason(), desk.call.row().duration),
        (Some(EndReason::Busy), Some(0))
    );
    assert!(desk.call.row().session_id.starts_with("sid-"));
    assert!(desk.call.is_over());
}

#[test]
fn a_call_the_vendor_refuses_ends_as_failed_and_one_it_may_have_placed_waits_for_its_stream() {
    let mut desk = Desk::with(false, TERMS);
    let (done, mut told) = oneshot::channel();
    desk.call.when_dialed(done);
    desk.commit();
    desk.answer(Err(Kind::BadGateway));
    desk.settle();
    assert!(told.try_recv().unwrap().is_err());
    assert_eq!(
        (desk.end_reason(), desk.faults()),
        (Some(EndReason::Failed), vec!["ACME_ERROR"])
    );

    let mut desk = Desk::with(false, TERMS);
    desk.commit();
    desk.answer(Err(Kind::Timeout));
    assert_eq!(desk.end_reason(), None);
    desk.pass(TERMS.stream_within);
    assert_eq!(desk.end_reason(), Some(EndReason::NoAnswer));
}

#[test]
fn an_announced_call_without_a_stream_fails() {
    let mut desk = Desk::incoming();
    desk.pass(TERMS.stream_within - Duration::from_millis(1));
    assert_eq!(desk.end_reason(), None);
    desk.pass(Duration::from_millis(1));
    assert_eq!(
        (desk.end_reason(), desk.asks.clone()),
        (Some(EndReason::Failed), vec![Ask::HangUp])
    );
}

#[test]
fn what_is_said_is_stored_then_heard() {
    let mut desk = Desk::talking(TERMS);
    let u = desk.say("Hello.");
    assert_eq!(desk.spoken, [u], "speech does not wait for the disk");
    desk.played(u, 640, true);
    assert!(desk.deliveries().is_empty());
    desk.settle();
    assert_eq!(desk.deliveries(), [("stored", 0), ("heard", 640)]);
    assert!(desk.stored.iter().any(|w| matches!(
        w,
        Write::Delivery {
            delivery: "heard",
            heard_ms: 640,
            ..
        }
    )));
}

#[test]
fn words_before_the_answer_are_spoken_when_the_caller_can_hear() {
    let mut desk = Desk::incoming();
    let u = desk.say("Hello.");
    assert!(desk.spoken.is_empty());
    desk.attach();
    assert_eq!(desk.spoken, [u]);
    let mut desk = Desk::incoming();
    for _ in 0..MAX_HELD {
        desk.say("x");
    }
    assert_eq!(
        desk.call.say(desk.now, Words::default()).unwrap_err().kind,
        Kind::TooMany
    );
}

#[test]
fn speaking_over_an_agent_cuts_all_it_was_about_to_say() {
    let mut desk = Desk::talking(TERMS);
    let (a, b) = (desk.say("one"), desk.say("two"));
    desk.leg(LegEvent::Playing(a));
    desk.leg(LegEvent::BargedIn);
    assert_eq!(desk.cuts, [b.next()]);
    desk.leg(LegEvent::Played {
        utterance: a,
        heard_ms: 200,
        whole: false,
    });
    desk.leg(LegEvent::Played {
        utterance: b,
        heard_ms: 0,
        whole: false,
    });
    desk.settle();
    assert_eq!(
        desk.deliveries(),
        [("stored", 0), ("stored", 0), ("cut", 0), ("cut", 200)]
    );
}

#[test]
fn a_message_that_cannot_be_spoken_fails_once_and_the_call_goes_on() {
    let mut desk = Desk::talking(TERMS);
    let u = desk.say("Hello.");
    desk.call.speech(
        desk.now,
        Sender::Customer,
        SpeechEvent::TtsFailed {
            utterance: u,
            message: "hung".into(),
        },
    );
    desk.drain();
    desk.played(u, 10, true);
    desk.settle();
    assert_eq!(
        (desk.faults(), desk.deliveries()),
        (vec!["TTS_ERROR"], vec![("stored", 0), ("failed", 0)])
    );
    assert!(!desk.call.is_ended());
}

#[test]
fn an_outage_of_recognition_is_told_once() {
    let mut desk = Desk::talking(TERMS);
    for event in [
        SpeechEvent::SttFailed { message: "away".into() },
        SpeechEvent::SttFailed { message: "away".into() },
        SpeechEvent::SttRecovered,
        SpeechEvent::SttFailed { message: "away".into() },
    ] {
        desk.call.speech(desk.now, Sender::Customer, event);
    }
    desk.drain();
    assert_eq!(desk.faults(), ["STT_ERROR", "STT_ERROR"]);
}

#[test]
fn interims_are_live_and_finals_are_stored_first() {
    let mut desk = Desk::talking(TERMS);
    let before = desk.published.len();
    desk.call.speech(desk.now, Sender::Customer, heard("hel", false));
    desk.call.speech(desk.now, Sender::Customer, heard("hello", true));
    desk.call.speech(desk.now, Sender::Customer, heard(" ", true));
    desk.drain();
    assert_eq!(desk.published.len(), before + 1);
    assert!(desk.published[before].id.is_none());
    desk.settle();
    assert_eq!(desk.published.len(), before + 2);
    assert!(desk.published[before + 1].id.is_some());
}

#[test]
fn the_end_of_the_leg_is_the_end_of_the_call() {
    for (end, reason, asked) in [
        (LegEnd::Stopped, EndReason::Completed, false),
        (LegEnd::ClosedWithoutStop, EndReason::Completed, true),
        (LegEnd::Idle, EndReason::MediaLost, true),
        (LegEnd::Stalled, EndReason::MediaLost, true),
        (LegEnd::Violation(1008), EndReason::Failed, true),
        (LegEnd::Crashed, EndReason::Failed, true),
    ] {
        let mut desk = Desk::talking(Terms {
            close_ends_call: false,
            ..TERMS
        });
        desk.leg_ends(end);
        desk.settle();
        assert_eq!((desk.end_reason(), desk.released), (Some(reason), true), "{end:?}");
        assert_eq!(desk.asks == [Ask::HangUp], asked, "{end:?}");
        let metadata = &desk.call.row().metadata;
        assert_eq!(metadata["accounting"]["in_frames"], 7);
        assert_eq!(
            metadata["closed_without_stop"] == true,
            end == LegEnd::ClosedWithoutStop
        );
        assert!(desk.closed.is_empty());
    }
}

/// A vendor that can be asked for another stream.
const RESTREAMS: Terms = Terms {
    handling: Handling {
        restream: true,
        ..TERMS.handling
    },
    close_ends_call: false,
    ..TERMS
};

#[test]
fn a_broken_stream_is_asked_for_again_and_what_is_said_meanwhile_waits_for_it() {
    let mut desk = Desk::talking(RESTREAMS);
    let before = desk.say("Cut off in the middle.");
    desk.settle();
    desk.leg_ends(LegEnd::ClosedWithoutStop);
    desk.settle();
    assert_eq!((desk.end_reason(), desk.asks.clone()), (None, vec![Ask::StartStream]));
    assert_eq!(desk.faults(), ["ACME_ERROR"]);
    assert!(desk.call.awaits_leg(), "another socket may take the call");
    let after = desk.say("Said into the gap.");
    assert_eq!(desk.spoken, [before]);
    // The vendor's own late word on the old stream changes nothing.
    desk.vendor(CallNews::StreamFailed);
    assert_eq!((desk.end_reason(), desk.asks.len()), (None, 1));
    desk.pass(RESTREAMS.media_grace - Duration::from_millis(1));
    desk.call.attached(desk.now, "sid", "second", true);
    desk.drain();
    assert_eq!(desk.spoken, [before, after]);
    desk.pass(RESTREAMS.media_grace);
    assert_eq!(desk.end_reason(), None);
    desk.leg_ends(LegEnd::Stopped);
    desk.settle();
    assert_eq!(desk.end_reason(), Some(EndReason::Completed));
    let metadata = &desk.call.row().metadata;
    assert_eq!(metadata["lost_streams"][0]["end"], "closed_without_stop");
    assert_eq!(metadata["lost_streams"][0]["accounting"]["in_frames"], 7);
    assert_eq!(metadata["stream_id"], "second");
}

#[test]
fn a_broken_stream_that_does_not_come_back_loses_the_call_in_time() {
    for (overdue, refused) in [(true, None), (false, Some(Kind::BadGateway))] {
        let mut desk = Desk::talking(RESTREAMS);
        desk.leg_ends(LegEnd::Idle);
        if let Some(kind) = refused {
            let fault = Fault::client(kind, "the call is no longer active");
            desk.call.asked(desk.now, Ask::StartStream, Err(fault));
            desk.drain();
        }
        if overdue {
            desk.pass(RESTREAMS.media_grace);
        }
        desk.settle();
        assert_eq!(desk.end_reason(), Some(EndReason::MediaLost));
        assert_eq!(desk.asks, [Ask::StartStream, Ask::HangUp]);
    }
}

/// Loses a stream and gets another.
fn lose_stream(desk: &mut Desk) {
    desk.leg_ends(LegEnd::ClosedWithoutStop);
    assert!(desk.call.awaits_leg());
    desk.call.asked(desk.now, Ask::StartStream, Ok(String::new()));
    desk.call.attached(desk.now, "sid", "again", true);
    desk.drain();
    desk.settle();
}

#[test]
fn a_stream_that_breaks_again_and_again_within_a_minute_loses_the_call() {
    let mut desk = Desk::talking(RESTREAMS);
    for _ in 0..3 {
        desk.pass(Duration::from_secs(19));
        lose_stream(&mut desk);
    }
    desk.leg_ends(LegEnd::ClosedWithoutStop);
    desk.settle();
    assert_eq!(desk.end_reason(), Some(EndReason::MediaLost));
    assert_eq!(desk.asks.last(), Some(&Ask::HangUp));
}

#[test]
fn a_stream_that_lived_for_a_minute_starts_anew_and_the_record_stays_small() {
    let mut desk = Desk::talking(RESTREAMS);
    for _ in 0..20 {
        lose_stream(&mut desk);
        desk.pass(Duration::from_secs(60));
    }
    assert_eq!((desk.end_reason(), desk.call.lost_streams()), (None, 20));
    desk.leg_ends(LegEnd::Stopped);
    desk.settle();
    assert_eq!(desk.end_reason(), Some(EndReason::Completed));
    let metadata = &desk.call.row().metadata;
    assert_eq!(metadata["streams_lost"], 20);
    assert_eq!(metadata["lost_streams"].as_array().map(Vec::len), Some(16));
}

#[test]
fn a_call_that_was_refused_before_it_was_on_record_counts_no_more_and_never_becomes_live() {
    for by_command in [false, true] {
        let handling = Handling {
            by_command,
            ..TERMS.handling
        };
        let mut desk = Desk::with(true, Terms { handling, ..TERMS });
        let first = desk.in_air.take().expect("its record is on its way");
        desk.call.committed(
            desk.now,
            Err(Fault::new(
                crate::base::fault::Origin::Us,
                Kind::Unavailable,
                "the disk is full",
            )),
        );
        desk.drain();
        desk.call.refused(desk.now);
        desk.drain();
        assert!(desk.released, "nobody waits for it");
        assert!(!desk.call.awaits_leg());
        // Space returns.
        desk.in_air = Some(first);
        desk.settle();
        assert_eq!(desk.end_reason(), Some(EndReason::Failed));
        assert!(!desk.asks.contains(&Ask::Accept), "{:?}", desk.asks);
        assert!(desk.call.is_over());
    }
}

#[test]
fn a_call_on_record_outlives_the_refusal_of_a_repeated_announcement() {
    let mut desk = Desk::incoming();
    desk.call.refused(desk.now);
    desk.settle();
    assert_eq!((desk.end_reason(), desk.released), (None, false));
}

#[test]
fn a_call_the_vendor_ended_closes_its_socket_and_still_takes_what_comes_after() {
    let mut desk = Desk::talking(TERMS);
    desk.call.set_ears_open(true);
    desk.vendor(CallNews::Ended(EndReason::Completed));
    assert_eq!(desk.closed, [1000]);
    desk.settle();
    assert!(!desk.call.is_over(), "the leg has not reported yet");
    desk.leg_ends(LegEnd::Closed);
    desk.call.speech(desk.now, Sender::Customer, heard("bye", true));
    desk.call.set_ears_open(false);
    desk.drain();
    desk.settle();
    assert!(desk.call.is_over());
    assert_eq!(desk.statuses().iter().filter(|s| **s == "ended").count(), 1);
    assert!(
        desk.stored
            .iter()
            .any(|w| matches!(w, Write::Message(m) if m.content == "bye"))
    );
    assert_eq!(desk.call.row().metadata["accounting"]["in_frames"], 7);
}

#[test]
fn an_ended_call_does_not_wait_for_ever() {
    let mut desk = Desk::talking(TERMS);
    desk.call.set_ears_open(true);
    let u = desk.say("never played");
    desk.vendor(CallNews::Ended(EndReason::Completed));
    desk.settle();
    desk.pass(LINGER);
    desk.settle();
    assert!(desk.call.is_over(), "{u:?}");
    assert_eq!(desk.deliveries(), [("stored", 0), ("cut", 0)]);
}

#[test]
fn hanging_up_asks_the_vendor_once_and_tells_all_who_wait() {
    let mut desk = Desk::talking(TERMS);
    let (mut a, mut b) = (desk.hang_up(), desk.hang_up());
    assert_eq!(desk.asks, [Ask::HangUp]);
    assert_eq!(desk.end_reason(), None);
    desk.answer(Ok(""));
    assert_eq!(
        (desk.end_reason(), desk.closed.clone()),
        (Some(EndReason::Completed), vec![1000])
    );
    assert_eq!(a.try_recv(), Err(TryRecvError::Empty), "told before it is on disk");
    desk.settle();
    assert_eq!((a.try_recv(), b.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
    desk.leg_ends(LegEnd::Closed);
    desk.settle();
    assert_eq!(desk.hang_up().try_recv(), Ok(Ok(())), "ending an ended call succeeds");
}

#[test]
fn a_vendor_that_refuses_to_hang_up_leaves_the_call_as_it_is() {
    let mut desk = Desk::talking(TERMS);
    let mut told = desk.hang_up();
    desk.answer(Err(Kind::BadGateway));
    assert!(told.try_recv().unwrap().is_err());
    assert_eq!((desk.end_reason(), desk.faults()), (None, vec!["ACME_ERROR"]));
    desk.hang_up();
    assert_eq!(desk.asks, [Ask::HangUp], "it can be tried again");
}

#[test]
fn without_credentials_closing_the_socket_ends_the_call_where_that_is_so() {
    let mut desk = Desk::talking(Terms { rest: false, ..TERMS });
    let mut told = desk.hang_up();
    desk.settle();
    assert_eq!((desk.closed.clone(), told.try_recv()), (vec![1000], Ok(Ok(()))));

    let mut desk = Desk::talking(Terms {
        rest: false,
        close_ends_call: false,
        ..TERMS
    });
    assert_eq!(desk.hang_up().try_recv().unwrap().unwrap_err().kind, Kind::Conflict);
    assert_eq!(desk.end_reason(), None);
}

#[test]
fn a_call_hung_up_while_it_is_being_placed_ends_when_the_vendor_has_told_its_id() {
    let mut desk = Desk::with(false, TERMS);
    desk.commit();
    let mut told = desk.hang_up();
    desk.answer(Ok("sid"));
    assert_eq!(desk.asks, [Ask::HangUp]);
    desk.answer(Ok(""));
    desk.settle();
    assert_eq!(
        (desk.end_reason(), told.try_recv()),
        (Some(EndReason::Canceled), Ok(Ok(())))
    );

    let mut desk = Desk::with(false, TERMS);
    desk.hang_up();
    desk.settle();
    assert!(
        desk.asks.is_empty(),
        "a call that was ended before its record existed is not placed"
    );
    assert!(desk.call.is_over());
}

#[test]
fn the_longest_length_ends_a_call() {
    let mut desk = Desk::talking(TERMS);
    desk.pass(TERMS.max_length);
    assert_eq!(desk.asks, [Ask::HangUp]);
    desk.answer(Err(Kind::BadGateway));
    assert_eq!(
        desk.end_reason(),
        Some(EndReason::Completed),
        "the socket is closed instead"
    );
    assert_eq!(desk.call.row().metadata["length_limit"], true);
    assert_eq!(desk.call.row().duration, Some(3600));
}

#[test]
fn a_stopping_daemon_closes_with_1001_and_says_interrupted() {
    let mut desk = Desk::talking(TERMS);
    desk.call.interrupt(desk.now);
    desk.drain();
    assert_eq!(
        (desk.closed.clone(), desk.end_reason()),
        (vec![1001], Some(EndReason::Interrupted))
    );
    assert_eq!(desk.asks, [Ask::HangUp]);
}

#[test]
fn a_handoff_is_on_record_with_who_served_before() {
    let mut desk = Desk::talking(TERMS);
    desk.call.hand_off(desk.now, "human", "asked for", None);
    desk.drain();
    desk.settle();
    let change = desk.stored.iter().find_map(|w| match w {
        Write::CallChange(c) if c.agent.is_some() => Some(c),
        _ => None,
    });
    let handoff = &change.unwrap().metadata.as_ref().unwrap()["handoffs"][0];
    assert_eq!((&handoff["from"], &handoff["to"]), (&"desk".into(), &"human".into()));
    assert!(
        desk.published
            .iter()
            .any(|e| matches!(&e.news, News::Handoff { agent } if agent == "human"))
    );
}

#[test]
fn a_failed_commit_is_tried_again_and_one_that_never_works_is_told() {
    let mut desk = Desk::talking(TERMS);
    let u = desk.say("Hello.");
    desk.refuse(Kind::Unavailable);
    desk.played(u, 10, true);
    assert!(desk.in_air.is_none() && desk.deliveries().is_empty());
    desk.pass(Duration::from_secs(5));
    desk.settle();
    assert_eq!(desk.deliveries(), [("stored", 0), ("heard", 10)]);

    let mut told = desk.vendor(CallNews::Ended(EndReason::Completed));
    desk.refuse(Kind::Internal);
    assert!(told.try_recv().unwrap().is_err());
    assert!(desk.released, "a record that cannot be closed does not keep others out");
    assert!(!desk.statuses().contains(&"ended"));
}

#[test]
fn a_call_that_was_seen_before_never_was() {
    let mut desk = Desk::with(true, TERMS);
    let mut told = desk.vendor(CallNews::Ended(EndReason::Completed));
    desk.in_air = None;
    desk.call.committed(desk.now, Ok(Committed::Duplicate));
    desk.drain();
    assert_eq!(told.try_recv().unwrap().unwrap_err().kind, Kind::Conflict);
    assert!(desk.call.is_over() && desk.published.is_empty() && !desk.created);
}

#[test]
fn a_key_of_which_stream_and_webhook_both_tell_is_told_once() {
    let mut desk = Desk::talking(TERMS);
    let keys = |desk: &Desk| {
        let key = |e: &Event| match e.news {
            News::Dtmf(key) => Some(key),
            _ => None,
        };
        desk.published.iter().filter_map(key).collect::<String>()
    };
    desk.leg(LegEvent::Dtmf('1'));
    desk.vendor(CallNews::Key('1'));
    desk.vendor(CallNews::Key('#'));
    desk.leg(LegEvent::Dtmf('#'));
    desk.leg(LegEvent::Dtmf('1'));
    desk.settle();
    assert_eq!(keys(&desk), "1#1");
    // One whose stream tells of no keys is heard all the same, and a repeated webhook changes nothing.
    desk.vendor_request(CallNews::Key('7'), 70);
    desk.vendor_request(CallNews::Key('7'), 70);
    desk.settle();
    assert_eq!(keys(&desk), "1#17");
    desk.leg_ends(LegEnd::Stopped);
    desk.vendor(CallNews::Key('9'));
    desk.settle();
    assert_eq!(keys(&desk), "1#17", "the call is over");
}

#[test]
fn while_storage_is_away_words_are_refused_and_not_kept_without_bound() {
    let mut desk = Desk::talking(TERMS);
    desk.say("in the air");
    for n in 0..5000 {
        desk.call.speech(desk.now, Sender::Customer, heard("x", true));
        desk.leg(LegEvent::Dtmf('1'));
        if n == 4999 {
            assert_eq!(
                desk.call.say(desk.now, Words::default()).unwrap_err().kind,
                Kind::Unavailable
            );
        }
    }
    desk.settle();
    let kept = desk.stored.iter().filter(|w| matches!(w, Write::Message(_))).count();
    assert!((100..1000).contains(&kept), "{kept}");
    desk.leg_ends(LegEnd::Stopped);
    assert!(desk.call.row().metadata["messages_lost"].as_u64().unwrap() > 4000);
}

#[test]
fn repeated_news_changes_nothing_and_is_answered_like_the_first() {
    let mut desk = Desk::talking(TERMS);
    for _ in 0..3 {
        let mut told = desk.vendor_request(CallNews::StreamFailed, 77);
        assert_eq!(told.try_recv(), Ok(Ok(())));
    }
    assert_eq!(desk.faults(), ["ACME_ERROR"]);
    (0..1000).for_each(|n| drop(desk.vendor_request(CallNews::Other, 100 + n)));
    assert_eq!(desk.call.seen.len(), MAX_SEEN);
}
