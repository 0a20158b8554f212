//! Playout by hand: a ring on one side, time as an argument, and what is to be written on the other.

use super::*;
use crate::audio::ring::{DownlinkTx, downlink, downlink_of_packets};

static CAPS: Caps = Caps {
    inbound: AudioFormat::ULAW_8K,
    outbound: AudioFormat::ULAW_8K,
    offers: &[],
    ptime_ms: 20,
    chunk_multiple: 160,
    lead_ms: 100,
    mark: true,
    clear: true,
    interrupt: false,
    stop: true,
    close_ends_call: true,
    max_inbound_ms: 1000,
    binary: false,
};

struct Desk {
    tx: DownlinkTx,
    playout: Playout,
    packet: [u8; 100],
    accounts: Accounting,
    events: VecDeque<LegEvent>,
}

impl Desk {
    fn new(live: bool) -> Self {
        Self::of(downlink(8000, 16_000, 256), live)
    }

    fn of((tx, rx): (DownlinkTx, DownlinkRx), live: bool) -> Self {
        let playout = Playout::new(rx, AudioFormat::ULAW_8K, CAPS.ptime_ms, &CAPS, live).unwrap();
        Self {
            tx,
            playout,
            packet: [0; 100],
            accounts: Accounting::default(),
            events: VecDeque::new(),
        }
    }

    fn say(&mut self, u: u32, ms: usize) {
        let samples: Vec<i16> = (0..ms * 8).map(|i| (u as i16) * 1000 + (i % 100) as i16).collect();
        assert_eq!(self.tx.push(UtteranceId(u), &samples, true), samples.len());
    }

    /// Everything due at `ms`.
    fn at(&mut self, ms: u64) -> Vec<Step> {
        let now = Mono::from_millis(ms);
        let mut out = [0; 960];
        self.playout.tick(now, &mut self.events);
        let mut steps = Vec::new();
        loop {
            let (accounts, events) = (&mut self.accounts, &mut self.events);
            match self.playout.poll(now, &mut out, &mut self.packet, accounts, events) {
                Step::Nothing => return steps,
                step => steps.push(step),
            }
        }
    }

    fn frames(&mut self, ms: u64) -> usize {
        self.at(ms).iter().filter(|s| matches!(s, Step::Frame { .. })).count()
    }
}

#[test]
fn sends_the_lead_at_once_and_then_keeps_real_time() {
    let mut d = Desk::new(false);
    d.say(1, 1000);
    assert_eq!(d.frames(1000), 5);
    assert_eq!(d.frames(1019), 0);
    assert_eq!(d.frames(1020), 1);
    let later: usize = (1021..2000).map(|ms| d.frames(ms)).sum();
    assert_eq!(later, 44);
}

#[test]
fn a_stall_is_made_up_within_the_lead_and_not_beyond_it() {
    let mut d = Desk::new(false);
    d.say(1, 2000);
    assert_eq!(d.frames(0), 5);
    assert_eq!(
        d.frames(500),
        5,
        "the vendor ran dry at 100 ms, so it may have its lead again and no more"
    );
}

#[test]
fn the_mark_follows_the_last_frame_and_says_what_was_heard() {
    let mut d = Desk::new(false);
    d.say(1, 50);
    let steps = d.at(0);
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert_eq!(steps[3], Step::Mark(UtteranceId(1)));
    assert_eq!(d.accounts.out_sent, 400);
    d.playout.marked(UtteranceId(1), &mut d.events);
    let played = LegEvent::Played {
        utterance: UtteranceId(1),
        heard_ms: 60,
        whole: true,
    };
    assert_eq!(d.events, [LegEvent::Playing(UtteranceId(1)), played]);
}

#[test]
fn a_lost_mark_is_made_up_by_the_clock() {
    let mut d = Desk::new(false);
    d.say(1, 20);
    d.at(0);
    d.at(5000);
    assert_eq!(d.events.len(), 1);
    d.at(5020);
    assert_eq!(
        d.events[1],
        LegEvent::Played {
            utterance: UtteranceId(1),
            heard_ms: 20,
            whole: true
        }
    );
}

#[test]
fn after_a_barge_in_no_stale_sample_is_sent_and_what_was_heard_is_told() {
    let mut d = Desk::new(false);
    d.say(1, 400);
    d.say(2, 400);
    d.at(0);
    d.at(50);
    d.events.clear();
    d.playout
        .barge_in(Mono::from_millis(60), &mut d.accounts, &mut d.events);
    let cut = LegEvent::Played {
        utterance: UtteranceId(1),
        heard_ms: 60,
        whole: false,
    };
    assert_eq!(d.events, [LegEvent::BargedIn, cut]);
    assert_eq!(d.at(61), [Step::Clear], "utterance 2 waits until the cut is confirmed");
    d.playout
        .cut(UtteranceId(3), Mono::from_millis(70), &mut d.accounts, &mut d.events);
    d.say(3, 20);
    let steps = d.at(71);
    assert_eq!(steps[0], Step::Clear);
    assert_eq!(
        steps[1],
        Step::Frame {
            samples: 160,
            at: Mono::from_millis(71)
        }
    );
    assert_eq!(d.events.back(), Some(&LegEvent::Playing(UtteranceId(3))));
    let a = d.accounts;
    assert_eq!(a.out_samples, a.out_sent + a.out_cut + d.playout.queued());
}

#[test]
fn an_unconfirmed_barge_in_lets_playout_go_on() {
    let mut d = Desk::new(false);
    d.say(1, 400);
    d.say(2, 400);
    d.at(0);
    d.playout
        .barge_in(Mono::from_millis(60), &mut d.accounts, &mut d.events);
    assert_eq!(d.frames(559), 0);
    assert_eq!(d.frames(560), 5);
}

#[test]
fn an_utterance_that_ends_with_an_empty_push_still_gets_its_mark() {
    let mut d = Desk::new(false);
    d.tx.push(UtteranceId(1), &[1; 160], false);
    assert_eq!(d.at(0).len(), 1);
    d.tx.push(UtteranceId(1), &[], true);
    assert_eq!(d.at(1), [Step::Mark(UtteranceId(1))]);
}

#[test]
fn a_live_stream_is_back_at_its_baseline_within_a_second_of_a_freeze() {
    let mut d = Desk::new(true);
    let none = UtteranceId::default();
    let mut worst_after = 0;
    for ms in 0..4000u64 {
        if ms % 20 == 0 && !(1000..1500).contains(&ms) {
            d.tx.push(none, &[5; 160], false);
        }
        if ms == 1500 {
            (0..25).for_each(|_| assert_eq!(d.tx.push(none, &[6; 160], false), 160));
        }
        if !(1000..1500).contains(&ms) {
            d.at(ms);
        }
        if ms > 2500 {
            let late = d.playout.horizon.millis_since(Mono::from_millis(ms)) + d.playout.ring.queued() as u64 / 8;
            worst_after = worst_after.max(late);
        }
    }
    assert!(worst_after <= 60, "{worst_after} ms late a second after the freeze");
    assert!(d.accounts.out_dropped_stalled > 0);
    let a = d.accounts;
    assert_eq!(a.out_samples, a.out_sent + a.out_dropped_stalled + d.playout.queued());
}

#[test]
fn a_short_burst_of_a_live_stream_loses_nothing() {
    let mut d = Desk::new(true);
    for ms in 0..3000u64 {
        let frames = if ms == 200 {
            10
        } else {
            usize::from(ms % 20 == 0 && !(1..200).contains(&ms))
        };
        (0..frames).for_each(|_| assert_eq!(d.tx.push(UtteranceId::default(), &[5; 160], false), 160));
        d.at(ms);
    }
    assert_eq!(d.accounts.out_dropped_stalled, 0);
}

/// A desk whose ring holds packets: each is its number, and its samples say the same.
fn packets(live: bool) -> Desk {
    Desk::of(downlink_of_packets(8000, 16_000, 256, 4000), live)
}

impl Desk {
    fn pass(&mut self, u: u32, number: u8, ms: usize, last: bool) {
        let samples = vec![i16::from(number); ms * 8];
        assert!(self.tx.push_packet(UtteranceId(u), &samples, &[number; 3], last));
    }

    /// What is due at `ms`, as (number, its length in samples); marks and clears are left out.
    fn passed(&mut self, ms: u64) -> Vec<(u8, usize)> {
        let (now, mut out, mut passed) = (Mono::from_millis(ms), [0; 960], Vec::new());
        loop {
            let (accounts, events) = (&mut self.accounts, &mut self.events);
            match self.playout.poll(now, &mut out, &mut self.packet, accounts, events) {
                Step::Nothing => return passed,
                Step::Packet { samples, bytes, .. } => {
                    assert_eq!(bytes, 3);
                    assert!(out[..samples].iter().all(|s| *s == i16::from(self.packet[0])));
                    passed.push((self.packet[0], samples));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn packets_are_passed_on_as_they_are_and_as_long_as_they_are() {
    let mut d = packets(false);
    for (number, ms) in [(1, 20), (2, 60), (3, 20), (4, 20)] {
        d.pass(1, number, ms, number == 4);
    }
    assert_eq!(d.passed(0), [(1, 160), (2, 480), (3, 160)], "the lead is 100 ms");
    assert_eq!(d.passed(19), []);
    assert_eq!(d.passed(20), [(4, 160)]);
    assert_eq!(d.accounts.out_sent, 960);
    d.playout.marked(UtteranceId(1), &mut d.events);
    let played = LegEvent::Played {
        utterance: UtteranceId(1),
        heard_ms: 120,
        whole: true,
    };
    assert_eq!(d.events, [LegEvent::Playing(UtteranceId(1)), played]);
}

#[test]
fn a_barge_in_drops_packets_whole_and_says_how_many_milliseconds_were_heard() {
    let mut d = packets(false);
    (0..20).for_each(|n| d.pass(1, n, 20, n == 19));
    d.pass(2, 50, 20, true);
    assert_eq!(d.passed(0).len(), 5);
    d.playout
        .barge_in(Mono::from_millis(60), &mut d.accounts, &mut d.events);
    let cut = LegEvent::Played {
        utterance: UtteranceId(1),
        heard_ms: 60,
        whole: false,
    };
    assert_eq!(d.events.back(), Some(&cut));
    d.playout
        .cut(UtteranceId(3), Mono::from_millis(70), &mut d.accounts, &mut d.events);
    d.pass(3, 9, 20, true);
    assert_eq!(d.passed(71), [(9, 160)], "no stale packet");
    let a = d.accounts;
    assert_eq!((a.out_sent, a.out_cut), (6 * 160, 16 * 160));
    assert_eq!(a.out_samples, a.out_sent + a.out_cut);
}

#[test]
fn a_muted_packet_is_a_packet_of_silence_of_the_same_length() {
    let mut d = packets(false);
    d.playout.mute(true);
    d.pass(1, 7, 20, false);
    let steps = d.at(0);
    assert_eq!(
        steps,
        [Step::Packet {
            samples: 160,
            bytes: 3,
            at: Mono::ZERO
        }]
    );
    let mut heard = [1; 160];
    let mut decoder = opus::Decoder::new(8000).unwrap();
    assert_eq!(decoder.decode(&d.packet[..3], &mut heard), Ok(160));
    assert_eq!(heard, [0; 160]);
}

#[test]
fn an_end_without_a_packet_still_gets_its_mark() {
    let mut d = packets(false);
    d.pass(1, 1, 20, false);
    assert_eq!(d.at(0).len(), 1);
    assert!(d.tx.push_packet(UtteranceId(1), &[], &[], true));
    assert_eq!(d.at(1), [Step::Mark(UtteranceId(1))]);
}

#[test]
fn a_live_stream_of_packets_that_stays_late_skips_whole_packets() {
    let mut d = packets(true);
    (0..60).for_each(|n| d.pass(0, n, 20, false));
    let sent: usize = (0..1000).map(|ms| d.passed(ms).len()).sum();
    assert!(sent < 40, "{sent} of 60 packets in a second");
    assert!(d.accounts.out_dropped_stalled > 0);
    let a = d.accounts;
    assert_eq!(a.out_samples, a.out_sent + a.out_dropped_stalled);
    assert_eq!(a.out_dropped_stalled % 160, 0);
}
