//! A peer that lies about time, repeats itself, presses keys that do not exist, names nothing or does not read.

use super::*;
use crate::record::{Side, TapSpan};
use rtrb::{Consumer, RingBuffer};

impl Desk {
    fn with_sid(vendor: &'static Descriptor, call_sid: &str) -> Self {
        let mut d = Self::of(vendor);
        d.peer = (vendor.peer)(PeerCall {
            call_sid: call_sid.into(),
            ..PeerCall::default()
        });
        d
    }

    /// A call whose audio is copied to these spans.
    fn recorded() -> (Self, Consumer<TapSpan>) {
        let mut d = Self::new().open();
        let (samples, _) = RingBuffer::new(1 << 16);
        let (tx, spans) = RingBuffer::new(1024);
        let plan = Plan {
            call: CallId::new(),
            route: Route::Relay {
                uplink: None,
                downlink: None,
            },
            barge_in_after: None,
            tap: Some(TapTx::new(samples, tx)),
            events: mpsc::channel(1).0,
        };
        d.command(LegCommand::Plan(Box::new(plan)));
        (d, spans)
    }

    /// 20 ms of audio that says it began at `at_ms`.
    fn dated(&mut self, at_ms: u64) {
        let mut text = String::new();
        self.peer.media(&[0x10; 160], at_ms, &mut text);
        self.say(&text);
    }
}

#[test]
fn one_wrong_timestamp_leaves_the_recording_where_it_was() {
    let (mut d, mut spans) = Desk::recorded();
    for n in 0..100 {
        d.pass(20);
        d.dated(if n == 50 { 17_000_000 } else { n * 20 });
    }
    let places: Vec<_> = std::iter::from_fn(|| spans.pop().ok()).map(|s| s.at).collect();
    let expected: Vec<_> = (0..100).map(|n| n * 160).collect();
    assert_eq!(places, expected);
    assert_eq!(d.session.accounting().in_misdated, 1);
}

#[test]
fn a_clock_that_drifts_a_little_is_believed() {
    let (mut d, mut spans) = Desk::recorded();
    d.pass(20);
    d.dated(1500);
    assert_eq!(spans.pop().unwrap().at, 12_000);
    assert_eq!(d.session.accounting().in_misdated, 0);
}

proptest! {
    #[test]
    fn no_timestamp_panics_or_moves_the_recording_far(
        stamps in prop::collection::vec(prop_oneof![any::<u64>(), (0u32..64).prop_map(|n| u64::MAX >> n), 0..5000u64], 1..40)
    ) {
        let (mut d, mut spans) = Desk::recorded();
        for at_ms in stamps {
            d.pass(20);
            d.dated(at_ms);
            while let Ok(span) = spans.pop() {
                prop_assert_eq!(span.side, Side::Caller);
                prop_assert!(span.at <= (d.at_ms + 2000) * 8, "{} at {} ms", span.at, d.at_ms);
            }
        }
    }
}

#[test]
fn what_is_said_twice_is_heard_once() {
    let mut numbered = 0;
    for vendor in VENDORS {
        let mut d = Desk::of(vendor).open();
        d.plan(Route::Echo);
        let mut text = String::new();
        d.peer.media(&[9; 320], d.at_ms, &mut text);
        if !text.contains(r#""chunk":"1""#) {
            continue;
        }
        numbered += 1;
        d.say(&text);
        for n in 0..5 {
            text.clear();
            d.peer.media(&[n; 320], d.at_ms, &mut text);
            d.say(&text);
            d.say(&text);
            d.pass(20);
        }
        let a = d.session.accounting();
        assert_eq!((a.in_frames, a.in_late), (6, 5), "{}", vendor.name);
    }
    assert!(numbered >= 3);
}

#[test]
fn keys_that_no_telephone_has_are_counted_and_the_call_goes_on() {
    for vendor in VENDORS {
        let mut d = Desk::of(vendor).open();
        d.plan(Route::Echo);
        let key = d.peer.dtmf('Z');
        if key.is_empty() {
            continue;
        }
        for odd in [
            key.clone(),
            key.replace("\"Z\"", "\"\""),
            key.replace("\"Z\"", "\"12\""),
        ] {
            d.say(&odd);
        }
        assert_eq!(d.drain(), [], "{}", vendor.name);
        let a = d.session.accounting();
        assert_eq!((a.keys_dropped, a.in_bad), (3, 0), "{}", vendor.name);
    }
}

#[test]
fn a_start_that_names_no_call_is_refused_at_once() {
    for vendor in VENDORS {
        for sid in ["C".repeat(300), "CA\u{1}".into()] {
            let mut d = Desk::with_sid(vendor, &sid);
            let opening = d.peer.open();
            opening.iter().for_each(|message| d.say(message));
            // One vendor's calls have an id of their own there.
            if opening.iter().any(|m| m.contains(&sid) || m.contains("\\u0001")) {
                assert_eq!(d.drain(), [Sent::Close(1008)], "{} {sid:?}", vendor.name);
            }
        }
    }
    let mut d = Desk::new();
    d.say(r#"{"event":"start","start":{"streamSid":"MZ1","callSid":""}}"#);
    assert_eq!(d.drain(), [Sent::Close(1008)]);
}

#[test]
fn a_peer_that_does_not_read_is_told_so_and_ends_as_stalled() {
    let mut d = Desk::echo();
    let now = d.now();
    assert!(d.session.handle_stalled(now));
    assert!(!d.session.handle_stalled(now), "once");
    assert_eq!(d.drain(), [Sent::Close(1013)]);
    assert_eq!(d.end().unwrap().0, LegEnd::Stalled);
}
