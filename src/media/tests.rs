//! A leg driven by hand: a simulated vendor on one side, rings on the other, time as an argument.

use super::*;
use crate::{
    audio::ring::{DownlinkTx, UplinkRx, downlink, uplink, uplink_of},
    base::{format::AudioFormat, time::Mono},
    vendor::{Descriptor, Payload, Peer, PeerCall, PeerEvent, Upgrade, VENDORS},
    wire::base64,
};
use bytes::BytesMut;
use proptest::prelude::*;

mod formats;
mod hostile;
mod tones;

/// What went out in one drain.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    Audio(Vec<u8>),
    Mark(String),
    Clear,
    Close(u16),
}

struct Desk {
    session: Session,
    peer: Box<dyn Peer>,
    scratch: Scratch,
    at_ms: u64,
    /// Pings drained.
    pings: u32,
}

impl Desk {
    fn new() -> Self {
        Self::of(VENDORS[0])
    }

    fn of(vendor: &'static Descriptor) -> Self {
        let call = PeerCall {
            call_sid: "CA00000000000000000000000000000001".into(),
            token: None,
            from: "+15550100001".into(),
            to: "+15550100002".into(),
            ..PeerCall::default()
        };
        let codec = (vendor.codec)(&Upgrade::default());
        let session = Session::new(Mono::ZERO, vendor.caps, codec, Limits::default());
        Self {
            session,
            peer: (vendor.peer)(call),
            scratch: Scratch::default(),
            at_ms: 0,
            pings: 0,
        }
    }

    fn now(&self) -> Mono {
        Mono::from_millis(self.at_ms)
    }

    fn say(&mut self, message: &str) {
        self.session
            .handle_message(Mono::from_millis(self.at_ms), message.as_bytes(), &mut self.scratch);
    }

    fn open(mut self) -> Self {
        for message in self.peer.open() {
            self.say(&message);
        }
        assert!(self.session.take_arrival().is_some());
        self
    }

    fn plan(&mut self, route: Route) {
        let plan = Plan {
            call: CallId::new(),
            route,
            barge_in_after: None,
            tap: None,
            events: mpsc::channel(1).0,
        };
        self.command(LegCommand::Plan(Box::new(plan)));
    }

    fn command(&mut self, command: LegCommand) {
        self.session
            .handle_command(Mono::from_millis(self.at_ms), command, &mut self.scratch);
    }

    fn echo() -> Self {
        let mut d = Self::new().open();
        d.plan(Route::Echo);
        d
    }

    fn relay() -> (Self, UplinkRx, DownlinkTx) {
        let mut d = Self::new().open();
        let (up, ear) = uplink(8000, 8000, None);
        let (mouth, down) = downlink(8000, 8000, 64);
        d.plan(Route::Relay {
            uplink: Some(up),
            downlink: Some(down),
        });
        (d, ear, mouth)
    }

    fn frame(&mut self, audio: &[u8]) {
        let mut text = String::new();
        self.peer.media(audio, self.at_ms, &mut text);
        self.say(&text);
    }

    fn drain(&mut self) -> Vec<Sent> {
        let (mut sent, mut out) = (Vec::new(), BytesMut::new());
        let now = self.now();
        while let Some(output) = self.session.poll_output(now, &mut self.scratch, &mut out) {
            match output {
                Output::Text => {}
                Output::Ping => {
                    self.pings += 1;
                    continue;
                }
                Output::Close { code, .. } => {
                    sent.push(Sent::Close(code));
                    continue;
                }
            }
            let message = out.split();
            sent.push(match self.peer.read(&message).expect("what the vendor accepts") {
                PeerEvent::Media(Payload::Base64(text)) => Sent::Audio(base64::decode_vec(text, 1 << 16).unwrap()),
                PeerEvent::Mark(name) => Sent::Mark(name.to_owned()),
                PeerEvent::Clear => Sent::Clear,
                other => panic!("{other:?}"),
            });
        }
        sent
    }

    fn pass(&mut self, ms: u64) {
        self.at_ms += ms;
        let now = self.now();
        self.session.handle_tick(now);
    }

    fn events(&mut self) -> Vec<LegEvent> {
        std::iter::from_fn(|| self.session.pop_event()).collect()
    }

    fn end(&mut self) -> Option<(LegEnd, Accounting)> {
        self.events().into_iter().find_map(|e| match e {
            LegEvent::Ended { end, accounting } => Some((end, *accounting)),
            _ => None,
        })
    }
}

/// Every code but negative zero, which G.711 itself does not bring back.
fn codes() -> Vec<u8> {
    (0..=255).filter(|c| *c != 0x7F).chain(0..65).collect()
}

#[test]
fn an_echo_comes_back_at_once_and_bit_for_bit() {
    let mut d = Desk::echo();
    for audio in codes().chunks_exact(160) {
        d.frame(audio);
        assert_eq!(d.drain(), [Sent::Audio(audio.to_vec())]);
        d.pass(20);
    }
}

#[test]
fn audio_that_comes_before_the_plan_is_heard_first() {
    let mut d = Desk::new().open();
    d.frame(&[0x10; 160]);
    d.pass(20);
    d.frame(&[0x20; 160]);
    let (up, mut ear) = uplink(8000, 8000, None);
    d.plan(Route::Relay {
        uplink: Some(up),
        downlink: None,
    });
    d.frame(&[0x30; 160]);
    let mut heard = [0; 480];
    assert_eq!(ear.pop(&mut heard), 480);
    let mut expected = [0; 480];
    crate::audio::codec::decode(
        crate::base::format::Encoding::Ulaw,
        &[[0x10u8; 160], [0x20; 160], [0x30; 160]].concat(),
        &mut expected,
    )
    .unwrap();
    assert_eq!(heard, expected);
}

#[test]
fn an_ear_that_takes_codes_gets_those_that_came() {
    let mut d = Desk::new().open();
    let (up, mut ear) = uplink_of(AudioFormat::ULAW_8K, 8000, None);
    d.plan(Route::Relay {
        uplink: Some(up),
        downlink: None,
    });
    let codes: Vec<u8> = (0..=255).cycle().take(320).collect();
    d.frame(&codes[..160]);
    d.frame(&codes[160..]);
    let mut heard = [0; 400];
    assert_eq!(ear.pop(&mut heard), 320);
    // Negative zero too, which would come back from samples as positive.
    assert!(
        heard[..320]
            .iter()
            .eq(codes.iter().map(|c| i16::from(*c)).collect::<Vec<_>>().iter())
    );
}

#[test]
fn a_ring_of_codes_takes_what_came_before_the_plan_and_another_rate() {
    let mut d = Desk::new().open();
    d.frame(&[0x10; 160]);
    let (up, mut ear) = uplink_of(AudioFormat::ULAW_8K, 8000, None);
    d.plan(Route::Relay {
        uplink: Some(up),
        downlink: None,
    });
    let mut heard = [0; 400];
    assert_eq!((ear.pop(&mut heard), heard[0], heard[159]), (160, 0x10, 0x10));
    let (up, mut ear) = uplink_of(
        AudioFormat {
            rate: 16_000,
            ..AudioFormat::ULAW_8K
        },
        8000,
        None,
    );
    let mut d = Desk::new().open();
    d.plan(Route::Relay {
        uplink: Some(up),
        downlink: None,
    });
    d.frame(&[0x20; 160]);
    let n = ear.pop(&mut heard);
    assert!(
        n.abs_diff(320) <= 64 && heard[..n].iter().all(|c| (0..=255).contains(c)),
        "{n} codes"
    );
    assert_eq!(heard[n - 1], 0x20);
}

#[test]
fn a_socket_that_never_starts_is_closed_by_policy() {
    let mut d = Desk::new();
    d.pass(9_999);
    assert_eq!(d.drain(), []);
    d.pass(1);
    assert_eq!(d.drain(), [Sent::Close(1008)]);
    assert_eq!(d.end().unwrap().0, LegEnd::Violation(1008));
    d.pass(2000);
    assert!(d.session.is_closed());
}

#[test]
fn a_leg_that_gets_no_plan_and_one_that_hears_nothing_end_in_time() {
    let mut d = Desk::new().open();
    d.pass(5000);
    assert_eq!(d.drain(), [Sent::Close(1011)]);
    let mut d = Desk::echo();
    d.pass(29_000);
    d.frame(&[0xFF; 160]);
    d.drain();
    d.pass(29_999);
    assert_eq!(d.drain(), []);
    d.pass(1);
    assert_eq!(d.drain(), [Sent::Close(1000)]);
    assert_eq!(d.end().unwrap().0, LegEnd::Idle);
}

#[test]
fn a_peer_that_says_nothing_at_all_to_a_ping_is_gone() {
    let limits = Limits {
        start: Duration::from_secs(600),
        ..Limits::default()
    };
    let codec = (VENDORS[0].codec)(&Upgrade::default());
    let mut d = Desk::new();
    d.session = Session::new(Mono::ZERO, VENDORS[0].caps, codec, limits);
    d.pass(20_000);
    assert_eq!((d.drain(), d.pings), (vec![], 1));
    d.pass(10_000);
    d.session.handle_control(d.now());
    d.pass(10_000);
    assert_eq!((d.drain(), d.pings), (vec![], 2), "a pong is a sign of life");
    d.pass(20_000);
    assert_eq!((d.drain(), d.pings), (vec![Sent::Close(1001)], 2));
    assert_eq!(d.end().unwrap().0, LegEnd::Idle);
}

#[test]
fn a_start_in_a_format_that_nobody_speaks_is_refused_at_once() {
    let mut d = Desk::new();
    for message in d.peer.open() {
        d.say(&message.replace("audio/x-mulaw", "audio/x-l24"));
    }
    assert_eq!(d.drain(), [Sent::Close(1008)]);
    assert_eq!(d.end().unwrap().0, LegEnd::Violation(1008));
}

#[test]
fn keys_that_overtook_each_other_are_told_in_the_order_in_which_they_were_pressed() {
    let stamped = |v: &&&Descriptor| (v.peer)(PeerCall::default()).dtmf('5').contains("occurred_at");
    let mut d = Desk::of(VENDORS.iter().find(stamped).unwrap()).open();
    d.plan(Route::Echo);
    let told = |d: &mut Desk| -> String {
        let events = d.events();
        let keys = events.iter().filter_map(|e| match e {
            LegEvent::Dtmf(key) => Some(*key),
            _ => None,
        });
        keys.collect()
    };
    let press = |d: &mut Desk, key, ms: &str| {
        let message = d.peer.dtmf(key).replace(".000000Z", &format!(".{ms}000Z"));
        d.say(&message);
    };
    press(&mut d, '2', "020");
    d.pass(40);
    press(&mut d, '1', "010");
    d.pass(60);
    press(&mut d, '3', "030");
    assert_eq!(told(&mut d), "");
    d.pass(50);
    assert_eq!(told(&mut d), "12");
    let stop = d.peer.stop();
    d.say(&stop);
    assert_eq!(told(&mut d), "3", "the end of the stream waits for nothing");
}

#[test]
fn keys_that_the_call_does_not_take_are_dropped_and_counted() {
    let mut d = Desk::echo();
    let key = d.peer.dtmf('5');
    for ms in 0..300 {
        d.at_ms = ms * 5;
        d.say(&key);
    }
    let events = d.events();
    let keys = events.iter().filter(|e| matches!(e, LegEvent::Dtmf('5'))).count();
    assert!(keys <= 256, "{keys}");
    assert_eq!(d.session.accounting().keys_dropped, 300 - keys as u64);
}

#[test]
fn three_unreadable_messages_close_and_two_do_not() {
    let mut d = Desk::echo();
    d.say("{");
    d.say("\"hello\"");
    d.frame(&[0x11; 160]);
    assert_eq!(d.drain(), [Sent::Audio(vec![0x11; 160])]);
    d.say("\u{1}");
    assert_eq!(d.drain(), [Sent::Close(1008)]);
    assert_eq!(d.end().unwrap().1.in_bad, 3);
}

#[test]
fn media_before_start_is_a_strike_and_a_second_start_changes_nothing() {
    let mut d = Desk::new();
    d.frame(&[0x11; 160]);
    d.frame(&[0x11; 160]);
    assert_eq!(d.drain(), []);
    let mut d = Desk::echo();
    for message in d.peer.open() {
        d.say(&message);
    }
    assert!(d.session.take_arrival().is_none());
    d.frame(&[0x11; 160]);
    assert_eq!(d.drain(), [Sent::Audio(vec![0x11; 160])]);
}

#[test]
fn stop_and_a_lost_socket_end_the_leg_once_each_in_its_own_way() {
    let mut d = Desk::echo();
    let stop = d.peer.stop();
    d.say(&stop);
    assert_eq!(d.drain(), [Sent::Close(1000)]);
    let now = d.now();
    d.session.handle_closed(now);
    let ends: Vec<_> = d
        .events()
        .into_iter()
        .filter(|e| matches!(e, LegEvent::Ended { .. }))
        .collect();
    assert!(
        matches!(
            ends[..],
            [LegEvent::Ended {
                end: LegEnd::Stopped,
                ..
            }]
        ),
        "{ends:?}"
    );
    let mut d = Desk::echo();
    d.session.handle_closed(Mono::from_millis(5));
    assert_eq!(d.end().unwrap().0, LegEnd::ClosedWithoutStop);
    assert!(d.session.is_closed());
}

#[test]
fn a_muted_caller_is_not_heard_and_a_muted_agent_is_silence_in_time() {
    let (mut d, mut ear, mut mouth) = Desk::relay();
    d.command(LegCommand::Mute {
        uplink: true,
        downlink: true,
    });
    d.frame(&[0x11; 160]);
    assert_eq!(ear.pop(&mut [0; 160]), 0);
    mouth.push(UtteranceId(1), &[9000; 320], true);
    assert_eq!(
        d.drain(),
        [
            Sent::Audio(vec![0xFF; 160]),
            Sent::Audio(vec![0xFF; 160]),
            Sent::Mark("u1".into())
        ]
    );
    d.command(LegCommand::Mute {
        uplink: false,
        downlink: false,
    });
    d.frame(&[0x11; 160]);
    assert_eq!(ear.pop(&mut [0; 160]), 160);
}

#[test]
fn marks_come_back_as_utterances_heard() {
    let (mut d, _ear, mut mouth) = Desk::relay();
    mouth.push(UtteranceId(7), &[5; 800], true);
    assert_eq!(d.drain().last(), Some(&Sent::Mark("u7".into())));
    d.pass(100);
    for name in ["x7", "u", "u99", "u7"] {
        let mark = d.peer.mark(name);
        d.say(&mark);
    }
    let utterance = UtteranceId(7);
    assert_eq!(
        d.events(),
        [
            LegEvent::Playing(utterance),
            LegEvent::Played {
                utterance,
                heard_ms: 100,
                whole: true
            }
        ]
    );
}

#[test]
fn a_flood_is_dropped_and_counted_and_closes_after_ten_seconds() {
    let mut d = Desk::echo();
    let mut closed_at = None;
    for ms in 0..13_000 {
        d.at_ms = ms;
        d.frame(&[0xFF; 160]);
        if d.drain().contains(&Sent::Close(1008)) {
            closed_at = Some(ms);
            break;
        }
    }
    assert!(closed_at.is_some_and(|ms| ms > 10_000), "{closed_at:?}");
    assert!(d.end().unwrap().1.in_flooded > 1000);
}

#[test]
fn heartbeats_are_welcome_and_a_flood_of_them_closes() {
    let mut d = Desk::echo();
    for s in 0..60 {
        (0..20).for_each(|_| d.session.handle_control(Mono::from_millis(s * 1000)));
    }
    assert!(d.drain().is_empty());
    (0..201).for_each(|_| d.session.handle_control(Mono::from_millis(60_000)));
    assert_eq!(d.drain(), [Sent::Close(1008)]);
}

#[test]
fn unreadable_audio_is_forgiven_until_there_is_too_much_of_it() {
    let mut d = Desk::echo();
    let mut audio = vec![0; 256];
    let n = base64::encode(&[0x11; 160], &mut audio);
    let payload = String::from_utf8(audio[..n].to_vec()).unwrap();
    let bad = |d: &mut Desk| {
        let mut text = String::new();
        d.peer.media(&[0x11; 160], 0, &mut text);
        let bad = text.replace(&payload, &payload.replacen("ER", "!!", 1));
        assert_ne!(text, bad);
        d.say(&bad);
    };
    for _ in 0..99 {
        bad(&mut d);
    }
    d.frame(&[0x11; 160]);
    assert_eq!(d.drain(), [Sent::Audio(vec![0x11; 160])]);
    bad(&mut d);
    assert_eq!(d.drain(), [Sent::Close(1008)]);
}

#[derive(Clone, Debug)]
enum Op {
    Frame(usize),
    Say(usize, bool),
    Cut(u32),
    Mark(u32),
    Pass(u64),
    Mute(bool, bool),
    Garbage,
    Drain,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0usize..400).prop_map(Op::Frame),
        (0usize..1000, any::<bool>()).prop_map(|(n, last)| Op::Say(n, last)),
        (0u32..8).prop_map(Op::Cut),
        (0u32..8).prop_map(Op::Mark),
        (0u64..300).prop_map(Op::Pass),
        (any::<bool>(), any::<bool>()).prop_map(|(u, d)| Op::Mute(u, d)),
        Just(Op::Garbage),
        Just(Op::Drain),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_accounts_close_and_the_leg_ends_once(ops in prop::collection::vec(op(), 0..120), echo: bool) {
        let (mut d, mut ear, mut mouth) = if echo {
            let (_, ear) = uplink(8000, 1, None);
            (Desk::echo(), ear, downlink(8000, 1, 1).0)
        } else {
            Desk::relay()
        };
        d.session.handle_tick(d.now());
        let (mut utterance, mut said, mut ended) = (UtteranceId(1), 0, 0);
        let mut heard = std::collections::HashMap::new();
        for op in ops {
            match op {
                Op::Frame(n) => d.frame(&vec![0x33; n]),
                Op::Say(n, last) if !echo && !mouth.is_closed() => {
                    let took = mouth.push(utterance, &vec![77; n], last);
                    said += took as u64;
                    if last && took == n { utterance = utterance.next(); }
                }
                Op::Say(..) => {}
                Op::Cut(n) => d.command(LegCommand::Cut { floor: UtteranceId(n) }),
                Op::Mark(n) => { let m = d.peer.mark(&format!("u{n}")); d.say(&m); }
                Op::Pass(ms) => d.pass(ms),
                Op::Mute(uplink, downlink) => d.command(LegCommand::Mute { uplink, downlink }),
                Op::Garbage => d.say("nonsense"),
                Op::Drain => { d.drain(); ear.pop(&mut [0; 500]); }
            }
            for e in d.events() {
                match e {
                    LegEvent::Ended { .. } => ended += 1,
                    LegEvent::Played { utterance, .. } => {
                        *heard.entry(utterance).or_insert(0) += 1;
                    }
                    _ => {}
                }
            }
        }
        let now = d.now();
        d.session.handle_closed(now);
        let a = *d.session.accounting();
        for e in d.events() {
            match e {
                LegEvent::Ended { accounting, .. } => { ended += 1; prop_assert_eq!(*accounting, a); }
                LegEvent::Played { utterance, .. } => { *heard.entry(utterance).or_insert(0) += 1; }
                _ => {}
            }
        }
        prop_assert_eq!(ended, 1);
        prop_assert!(heard.values().all(|n| *n == 1), "an utterance was reported twice: {:?}", heard);
        prop_assert_eq!(a.in_samples, a.in_relayed + a.in_dropped_unheard + a.in_dropped_full);
        prop_assert_eq!(a.out_samples, a.out_sent + a.out_cut + a.out_dropped_stalled + a.out_queued);
        if !echo { prop_assert_eq!(a.out_samples, said); }
    }
}
