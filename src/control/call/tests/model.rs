//! Whatever happens to a call, in whatever order: one true record is left.

use super::*;
use crate::{control::news, store::AFTER_CALL};
use proptest::prelude::*;

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
    Refused,
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
        LegEnd::Stalled,
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
        1 => Just(Op::Refused),
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
            Op::Handoff => self.call.hand_off(self.now, "human", "test", None),
            Op::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Op::Interrupt => self.call.interrupt(self.now),
            Op::Refused => self.call.refused(self.now),
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
    fn any_sequence_of_events_leaves_one_true_record(inbound: bool, by_command: bool, ops in prop::collection::vec(op(), 0..80)) {
        let handling = Handling { by_command, stream_after_answer: by_command, restream: by_command, ..TERMS.handling };
        let mut desk = Desk::with(inbound, Terms { handling, ..TERMS });
        let mut said = 0;
        for op in ops {
            let before = desk.call.row().status;
            desk.apply(op, &mut said);
            prop_assert!(desk.call.row().status >= before);
        }
        desk.come_to_rest();
        prop_assert!(desk.call.is_over());
        prop_assert!(desk.created && desk.released);
        prop_assert!(desk.call.is_ended() && !desk.call.awaits_leg());

        let mut status = CallStatus::Initiated;
        let (mut ends, mut jobs, mut seq, mut open) = (0, 0, 0, std::collections::BTreeSet::new());
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
                Write::Job(job) => {
                    prop_assert_eq!(&job.id, &format!("{AFTER_CALL}:{}", job.call_id));
                    jobs += 1;
                }
                other => prop_assert!(false, "not a call's to write: {:?}", other),
            }
        }
        prop_assert_eq!((status, ends, jobs), (CallStatus::Ended, 1, 1));
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
