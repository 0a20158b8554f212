//! The call machine by hand, and against a model under random sequences of all that can happen.

use super::*;
use crate::{
    base::ids::{TenantId, UtteranceId},
    control::news,
    media::Accounting,
    speech::{SpeechEvent, Transcript},
    store::Sender,
    vendor::EndReason,
};
use proptest::prelude::*;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

const TERMS: Terms = Terms {
    vendor: "acme",
    error_code: "ACME_ERROR",
    rest: true,
    close_ends_call: true,
    stream_within: Duration::from_secs(60),
    max_length: Duration::from_secs(3600),
};

fn row(inbound: bool) -> CallRow {
    let call_id = CallId::new();
    CallRow {
        call_id,
        call_sid: if inbound {
            "sid".to_owned()
        } else {
            format!("pending:{call_id}")
        },
        session_id: "session".into(),
        vendor: "acme".into(),
        inbound,
        customer_number: "+14155550100".into(),
        organization_number: "+14155550101".into(),
        status: if inbound {
            CallStatus::Incoming
        } else {
            CallStatus::Initiated
        },
        end_reason: None,
        start_time: Wall::default(),
        answered_at: None,
        end_time: None,
        duration: None,
        tenant_id: TenantId(1),
        agent: "desk".into(),
        recording: None,
        metadata: serde_json::Value::Null,
    }
}

/// A call, a store that commits when told to, and all that the call asked for.
struct Desk {
    call: Call,
    now: Now,
    in_air: Option<Batch>,
    stored: Vec<Write>,
    events: i64,
    published: Vec<Event>,
    spoken: Vec<UtteranceId>,
    asks: Vec<Ask>,
    closed: Vec<u16>,
    cuts: Vec<UtteranceId>,
    created: bool,
    released: bool,
}

impl Desk {
    fn with(inbound: bool, terms: Terms) -> Self {
        let mut desk = Self {
            call: Call::new(Now::default(), row(inbound), terms, Facts::default()),
            now: Now::default(),
            in_air: None,
            stored: Vec::new(),
            events: 0,
            published: Vec::new(),
            spoken: Vec::new(),
            asks: Vec::new(),
            closed: Vec::new(),
            cuts: Vec::new(),
            created: false,
            released: false,
        };
        desk.drain();
        desk
    }

    /// An incoming call on record.
    fn incoming() -> Self {
        let mut desk = Self::with(true, TERMS);
        desk.commit();
        desk
    }

    /// A call whose caller hears and is heard.
    fn talking(terms: Terms) -> Self {
        let mut desk = Self::with(true, terms);
        desk.commit();
        desk.attach();
        desk.commit();
        desk
    }

    fn drain(&mut self) {
        while let Some(effect) = self.call.poll() {
            match effect {
                Effect::Commit(batch) => {
                    assert!(self.in_air.is_none(), "one batch in the air at a time");
                    self.in_air = Some(batch);
                }
                Effect::Publish(event) => self.published.push(*event),
                Effect::Tell(done) => drop(done.send(Ok(()))),
                Effect::Speak { utterance, .. } => self.spoken.push(utterance),
                Effect::Cut(floor) => self.cuts.push(floor),
                Effect::Close { code, .. } => self.closed.push(code),
                Effect::Ask(ask) => self.asks.push(ask),
                Effect::Created => self.created = true,
                Effect::Released => self.released = true,
                Effect::Over { .. } | Effect::Sid(_) | Effect::LengthWarning | Effect::Lost | Effect::StoreFault(_) => {
                }
            }
        }
    }

    fn commit(&mut self) {
        let Some(batch) = self.in_air.take() else { return };
        let count = batch.writes.iter().filter(|w| matches!(w, Write::Event { .. })).count() as i64;
        let event_ids = (self.events + 1..=self.events + count).collect();
        self.events += count;
        self.stored.extend(batch.writes);
        self.call.committed(self.now, Ok(Committed::Done { event_ids }));
        self.drain();
    }

    fn settle(&mut self) {
        while self.in_air.is_some() {
            self.commit();
        }
    }

    fn refuse(&mut self, kind: Kind) {
        self.in_air = None;
        self.call.committed(self.now, Err(Fault::client(kind, "no")));
        self.drain();
    }

    fn attach(&mut self) {
        self.call.attached(self.now, "sid", "stream", true);
        self.drain();
    }

    fn leg(&mut self, event: LegEvent) {
        self.call.leg(self.now, event);
        self.drain();
    }

    fn leg_ends(&mut self, end: LegEnd) {
        let accounting = Accounting {
            in_frames: 7,
            ..Accounting::default()
        };
        self.leg(LegEvent::Ended { end, accounting });
    }

    fn played(&mut self, utterance: UtteranceId, heard_ms: u32, whole: bool) {
        self.leg(LegEvent::Playing(utterance));
        self.leg(LegEvent::Played {
            utterance,
            heard_ms,
            whole,
        });
    }

    fn vendor(&mut self, news: CallNews) -> Receiver<Result<(), Fault>> {
        let (done, told) = oneshot::channel();
        self.call.vendor(self.now, news, None, done);
        self.drain();
        told
    }

    fn say(&mut self, text: &str) -> UtteranceId {
        let words = Words {
            text: text.into(),
            client_ref: Some("ref".into()),
            ..Words::default()
        };
        let (_, utterance) = self.call.say(self.now, words).unwrap();
        self.drain();
        utterance
    }

    fn hang_up(&mut self) -> Receiver<Result<(), Fault>> {
        let (done, told) = oneshot::channel();
        self.call.hang_up(self.now, Some(done));
        self.drain();
        told
    }

    fn answer(&mut self, result: Result<&str, Kind>) {
        let ask = self.asks.remove(0);
        let result = result
            .map(str::to_owned)
            .map_err(|k| Fault::new(crate::base::fault::Origin::Vendor, k, "refused"));
        self.call.asked(self.now, ask, result);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.call.timeout(self.now);
        self.drain();
    }

    fn statuses(&self) -> Vec<&'static str> {
        let status = |e: &Event| match e.news {
            News::Status { status, .. } => Some(status),
            _ => None,
        };
        self.published.iter().filter_map(status).collect()
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.call.row().end_reason
    }

    fn deliveries(&self) -> Vec<(&'static str, u32)> {
        let status = |e: &Event| match e.news {
            News::MessageStatus { status, heard_ms, .. } => Some((status, heard_ms)),
            _ => None,
        };
        self.published.iter().filter_map(status).collect()
    }

    fn faults(&self) -> Vec<&'static str> {
        let code = |e: &Event| match e.news {
            News::Fault { code, .. } => Some(code),
            _ => None,
        };
        self.published.iter().filter_map(code).collect()
    }
}

fn heard(text: &str, is_final: bool) -> SpeechEvent {
    SpeechEvent::Transcript(Transcript {
        text: text.into(),
        is_final,
        confidence: Some(0.5),
        language: None,
        from_ms: 0,
        to_ms: 100,
    })
}

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
    (0..MAX_HELD).for_each(|_| drop(desk.say("x")));
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
    desk.call.hand_off(desk.now, "human", "asked for");
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

/// Anything that can happen to a call.
#[derive(Clone, Debug)]
enum Op {
    Commit,
    CommitFails,
    Vendor(CallNews),
    Attach,
    LegEnds(LegEnd),
    Say,
    Playing(u32),
    Played(u32, bool),
    BargedIn,
    TtsFailed(u32),
    Heard(bool),
    HangUp,
    Status(CallStatus),
    Asked(bool),
    Handoff,
    Pass(u64),
    Interrupt,
}

fn op() -> impl Strategy<Value = Op> {
    let reasons = [
        EndReason::Completed,
        EndReason::Busy,
        EndReason::NoAnswer,
        EndReason::Failed,
        EndReason::Canceled,
    ];
    let news = prop_oneof![
        Just(CallNews::Initiated),
        Just(CallNews::Ringing),
        Just(CallNews::Answered),
        Just(CallNews::StreamFailed),
        Just(CallNews::Other),
        prop::sample::select(reasons.to_vec()).prop_map(CallNews::Ended),
    ];
    let ends = vec![
        LegEnd::Stopped,
        LegEnd::ClosedWithoutStop,
        LegEnd::Idle,
        LegEnd::Closed,
        LegEnd::Crashed,
    ];
    let statuses = vec![
        CallStatus::Incoming,
        CallStatus::Answered,
        CallStatus::InProgress,
        CallStatus::Ended,
    ];
    prop_oneof![
        8 => Just(Op::Commit),
        1 => Just(Op::CommitFails),
        4 => news.prop_map(Op::Vendor),
        3 => Just(Op::Attach),
        1 => prop::sample::select(ends).prop_map(Op::LegEnds),
        5 => Just(Op::Say),
        4 => (1u32..12).prop_map(Op::Playing),
        4 => (1u32..12, any::<bool>()).prop_map(|(u, w)| Op::Played(u, w)),
        1 => Just(Op::BargedIn),
        1 => (1u32..12).prop_map(Op::TtsFailed),
        4 => any::<bool>().prop_map(Op::Heard),
        1 => Just(Op::HangUp),
        2 => prop::sample::select(statuses).prop_map(Op::Status),
        2 => any::<bool>().prop_map(Op::Asked),
        1 => Just(Op::Handoff),
        1 => (0u64..30).prop_map(Op::Pass),
        1 => Just(Op::Interrupt),
    ]
}

impl Desk {
    fn apply(&mut self, op: Op, said: &mut usize) {
        match op {
            Op::Commit => self.commit(),
            Op::CommitFails => {
                if self.in_air.is_some() {
                    self.refuse(Kind::Unavailable);
                }
            }
            Op::Vendor(news) => drop(self.vendor(news)),
            Op::Attach => {
                if self.call.awaits_leg() {
                    self.attach();
                }
            }
            Op::LegEnds(end) => {
                if self.call.has_leg() {
                    self.leg_ends(end);
                }
            }
            Op::Say => *said += usize::from(self.call.say(self.now, Words::default()).is_ok()),
            Op::Playing(u) => self.leg(LegEvent::Playing(UtteranceId(u))),
            Op::Played(u, whole) => {
                self.leg(LegEvent::Played {
                    utterance: UtteranceId(u),
                    heard_ms: u,
                    whole,
                });
            }
            Op::BargedIn => self.leg(LegEvent::BargedIn),
            Op::TtsFailed(u) => {
                let event = SpeechEvent::TtsFailed {
                    utterance: UtteranceId(u),
                    message: "x".into(),
                };
                self.call.speech(self.now, Sender::Customer, event);
            }
            Op::Heard(is_final) => self.call.speech(self.now, Sender::Customer, heard("words", is_final)),
            Op::HangUp => drop(self.hang_up()),
            Op::Status(status) => {
                let (done, _) = oneshot::channel();
                self.call.set_status(self.now, status, done);
            }
            Op::Asked(ok) => {
                if !self.asks.is_empty() {
                    self.answer(if ok { Ok("sid") } else { Err(Kind::BadGateway) });
                }
            }
            Op::Handoff => self.call.hand_off(self.now, "human", "test"),
            Op::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Op::Interrupt => self.call.interrupt(self.now),
        }
        self.drain();
    }

    /// Lets the world come to rest: everything answered, everything committed.
    fn come_to_rest(&mut self) {
        self.call.interrupt(self.now);
        self.drain();
        for _ in 0..20 {
            self.commit();
            if !self.asks.is_empty() {
                self.answer(Ok("sid"));
            }
            self.pass(Duration::from_secs(6));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What holds of every call, whatever happens to it: one end, forward only, told only what is stored, every word settled once.
    #[test]
    fn any_sequence_of_events_leaves_one_true_record(inbound: bool, ops in prop::collection::vec(op(), 0..80)) {
        let mut desk = Desk::with(inbound, TERMS);
        let mut said = 0;
        for op in ops {
            let before = desk.call.row().status;
            desk.apply(op, &mut said);
            prop_assert!(desk.call.row().status >= before);
        }
        desk.come_to_rest();
        prop_assert!(desk.call.is_over());
        prop_assert!(desk.created && desk.released);

        let mut status = CallStatus::Initiated;
        let (mut ends, mut seq, mut open) = (0, 0, std::collections::BTreeSet::new());
        let mut payloads = Vec::new();
        for write in &desk.stored {
            match write {
                Write::CallChange(c) => {
                    if let Some(next) = c.status {
                        prop_assert!(next > status, "{:?} after {:?}", next, status);
                        status = next;
                    }
                    ends += usize::from(c.end_reason.is_some());
                }
                Write::Message(m) => {
                    prop_assert!(m.seq > seq);
                    seq = m.seq;
                    if m.sender_type == Sender::Agent { open.insert(m.message_id); }
                }
                Write::Delivery { message_id, .. } => prop_assert!(open.remove(message_id), "settled twice"),
                Write::Event { payload, .. } => payloads.push(payload.clone()),
                Write::Call(_) | Write::Seen { .. } => {}
            }
        }
        prop_assert_eq!((status, ends), (CallStatus::Ended, 1));
        prop_assert!(open.is_empty(), "said and never settled");
        let stored = desk.stored.iter().filter(|w| matches!(w, Write::Message(m) if m.sender_type == Sender::Agent)).count();
        prop_assert_eq!(stored, said);

        let kept: Vec<_> = desk.published.iter().filter(|e| e.id.is_some()).collect();
        let told: Vec<_> = kept.iter().filter_map(|e| news::payload(e.call, e.at, &e.news)).map(|p| p.to_string()).collect();
        prop_assert_eq!(told, payloads, "what was told is what was stored, in order");
        prop_assert!(kept.iter().map(|e| e.id.unwrap()).eq(1..=kept.len() as i64));
        let live = |e: &&Event| news::payload(e.call, e.at, &e.news).is_none();
        prop_assert!(desk.published.iter().filter(|e| e.id.is_none()).all(|e| live(&e)));
    }
}
