//! Legs in every format: what the caller says reaches the ear, what the mouth says reaches the caller, whatever is spoken on the
//! wire, in order.

use super::*;
use crate::{
    audio::{
        codec, g722, opus,
        ring::{downlink_of, downlink_of_packets},
        tone::Sine,
    },
    base::format::{AudioFormat, Encoding},
    vendor::{Media, StreamCodec, StreamCommand, StreamEvent, StreamStart, WireError},
};

/// A dialect of three words: `start`, `<chunk>[@<rate>] <base64>`, `stop`; and out, base64 alone.
struct Plain {
    inbound: AudioFormat,
    outbound: AudioFormat,
}

impl StreamCodec for Plain {
    fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<StreamEvent<'a>, WireError> {
        let text = std::str::from_utf8(message).unwrap();
        Ok(match text.split_once(' ') {
            Some((head, audio)) => {
                let (chunk, rate) = head.split_once('@').unwrap_or((head, ""));
                StreamEvent::Media(Media {
                    payload: Payload::Base64(audio.as_bytes()),
                    inbound: true,
                    chunk: chunk.parse().ok(),
                    at_ms: None,
                    rate: rate.parse().ok(),
                })
            }
            None if text == "stop" => StreamEvent::Stop,
            None => StreamEvent::Start(Box::new(StreamStart {
                stream_id: "s".into(),
                call_sid: "c".into(),
                account: None,
                token: None,
                inbound: self.inbound,
                outbound: self.outbound,
                ptime_ms: None,
                from: None,
                to: None,
            })),
        })
    }

    fn format(&mut self, command: StreamCommand<'_>, out: &mut BytesMut) {
        if let StreamCommand::Media(audio) = command {
            base64::append(audio, out);
        }
    }
}

const fn format(encoding: Encoding, rate: u32) -> AudioFormat {
    AudioFormat { encoding, rate }
}

/// A leg with an ear and a mouth at 16 kHz.
struct Wire {
    session: Session,
    scratch: Scratch,
    ear: UplinkRx,
    mouth: DownlinkTx,
    now: Mono,
}

impl Wire {
    fn new(inbound: AudioFormat, outbound: AudioFormat) -> Self {
        let (up, ear) = uplink(16_000, 32_000, None);
        let (mouth, down) = downlink(16_000, 16_000, 64);
        let route = Route::Relay {
            uplink: Some(up),
            downlink: Some(down),
        };
        Self {
            ear,
            mouth,
            ..Self::routed(inbound, outbound, route)
        }
    }

    /// The same with other ends.
    fn routed(inbound: AudioFormat, outbound: AudioFormat, route: Route) -> Self {
        let codec = Box::new(Plain { inbound, outbound });
        let mut session = Session::new(Mono::ZERO, VENDORS[0].caps, codec, Limits::default());
        let mut scratch = Scratch::default();
        session.handle_message(Mono::ZERO, b"start", &mut scratch);
        assert!(session.take_arrival().is_some());
        let plan = Plan {
            call: CallId::new(),
            route,
            barge_in_after: None,
            tap: None,
            events: mpsc::channel(1).0,
        };
        session.handle_command(Mono::ZERO, LegCommand::Plan(Box::new(plan)), &mut scratch);
        Self {
            session,
            scratch,
            ear: uplink(16_000, 1, None).1,
            mouth: downlink(16_000, 1, 1).0,
            now: Mono::ZERO,
        }
    }

    /// The messages of audio that go out now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let (mut sent, mut out) = (Vec::new(), BytesMut::new());
        while self
            .session
            .poll_output(self.now, &mut self.scratch, &mut out)
            .is_some()
        {
            sent.push(base64::decode_vec(&out, 4000).unwrap());
            out.clear();
        }
        sent
    }

    fn hear(&mut self, chunk: u64, audio: &[u8]) {
        let message = format!("{chunk} {}", base64::encode_string(audio));
        self.session
            .handle_message(self.now, message.as_bytes(), &mut self.scratch);
    }

    fn heard(&mut self) -> Vec<i16> {
        let mut samples = vec![0; 32_000];
        let n = self.ear.pop(&mut samples);
        samples.truncate(n);
        samples
    }

    /// What goes out when the mouth says this.
    fn said(&mut self, samples: &[i16]) -> Vec<u8> {
        self.mouth.push(UtteranceId(1), samples, true);
        let mut audio = Vec::new();
        for _ in 0..samples.len() / 320 + 2 {
            audio.extend(self.sent().concat());
            self.now = self.now + Duration::from_millis(20);
        }
        audio
    }
}

fn tone() -> Vec<i16> {
    let mut samples = vec![0; 6400];
    Sine::new(16_000, 500.0, 9000.0).fill(&mut samples);
    samples
}

/// The frequency of a tone, by its crossings of zero, in the half where everything has settled.
fn frequency(samples: &[i16]) -> u32 {
    let tail = &samples[samples.len() / 2..];
    let crossings = tail.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count() as u32;
    crossings * 16_000 / (2 * tail.len() as u32)
}

#[test]
fn g722_is_heard_and_spoken_bit_for_bit_as_its_codec_does() {
    let wide = format(Encoding::G722, 16_000);
    let mut wire = Wire::new(wide, wide);
    let mut bytes = vec![0; 3200];
    g722::Encoder::default().encode(&tone(), &mut bytes);
    for (n, frame) in bytes.chunks(160).enumerate() {
        wire.hear(n as u64, frame);
    }
    let mut expect = vec![0; 6400];
    g722::Decoder::default().decode(&bytes, &mut expect);
    assert_eq!(wire.heard(), expect);
    assert_eq!(wire.said(&tone()), bytes);
}

#[test]
fn l16_in_either_order_is_heard_and_answered_in_kind() {
    for order in [Encoding::L16Le, Encoding::L16Be] {
        let sought = format(Encoding::L16, 16_000);
        let mut wire = Wire::new(sought, sought);
        let mut bytes = vec![0; 12_800];
        codec::encode(order, &tone(), &mut bytes);
        for (n, frame) in bytes.chunks(640).enumerate() {
            wire.hear(n as u64, frame);
        }
        assert_eq!(wire.heard(), tone(), "{order}");
        assert_eq!(wire.said(&tone()), bytes, "{order}");
    }
}

/// The tone as packets of 20 ms at 16 kHz.
fn opus_tone() -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(16_000, opus::LOSSY).unwrap();
    let mut encode = |frame: &[i16]| {
        let mut packet = vec![0; opus::MAX_PACKET];
        let n = encoder.encode(frame, &mut packet);
        packet.truncate(n);
        packet
    };
    tone().chunks(320).map(&mut encode).collect()
}

#[test]
fn opus_is_heard_and_samples_that_nobody_encoded_are_not_spoken() {
    let mut wire = Wire::new(format(Encoding::Opus, 48_000), format(Encoding::Opus, 48_000));
    for (n, packet) in opus_tone().iter().enumerate() {
        wire.hear(n as u64, packet);
    }
    let heard = wire.heard();
    assert!(heard.len() > 6000, "{}", heard.len());
    assert!((490..=510).contains(&frequency(&heard)), "{} Hz", frequency(&heard));
    assert!(wire.said(&tone()).is_empty());
}

#[test]
fn what_was_lost_of_opus_is_made_up_for_and_counted() {
    let linear = format(Encoding::L16Le, 16_000);
    let mut wire = Wire::new(format(Encoding::Opus, 16_000), linear);
    for (n, packet) in opus_tone().iter().enumerate().filter(|(n, _)| ![8, 9].contains(n)) {
        wire.hear(n as u64, packet);
    }
    let heard = wire.heard();
    assert_eq!(heard.len(), tone().len(), "no hole is left");
    let gap = &heard[8 * 320..10 * 320];
    let power = |samples: &[i16]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
    assert!(power(gap) > power(&heard) / 4.0, "the gap is not silent");
    let accounts = wire.session.accounting();
    assert_eq!((accounts.in_frames, accounts.in_concealed), (18, 640));
    assert_eq!((accounts.in_samples, accounts.in_relayed), (6400, 6400));
}

/// A leg that echoes packets.
fn opus_echo() -> Wire {
    let opus = |rate| format(Encoding::Opus, rate);
    Wire::routed(opus(48_000), opus(16_000), Route::Echo)
}

#[test]
fn an_echo_of_opus_gives_the_callers_packets_back_byte_for_byte_and_in_order() {
    let mut wire = opus_echo();
    let packets = opus_tone();
    // Neighbours change places on the way.
    for n in [0, 2, 1, 3, 5, 4, 6].into_iter().chain(7..20) {
        wire.hear(n, &packets[n as usize]);
    }
    let mut heard = Vec::new();
    while heard.len() < packets.len() {
        let before = heard.len();
        heard.extend(wire.sent());
        assert!(heard.len() > before, "{before} packets came back");
        wire.now = wire.now + Duration::from_millis(20);
    }
    assert_eq!(heard, packets);
    let a = *wire.session.accounting();
    assert_eq!((a.in_samples, a.in_relayed, a.out_sent), (19_200, 19_200, 19_200));
    assert_eq!(a.out_frames, 20);
}

#[test]
fn an_echo_of_opus_makes_nothing_up_and_is_silent_when_muted() {
    let mut wire = opus_echo();
    let packets = opus_tone();
    for n in [0, 2, 3, 4, 5, 6] {
        wire.hear(n, &packets[n as usize]);
    }
    assert_eq!(wire.sent(), [0, 2, 3, 4, 5, 6].map(|n: usize| packets[n].clone()));
    let a = *wire.session.accounting();
    assert_eq!((a.in_concealed, a.in_dropped_unheard), (960, 960));
    assert_eq!(a.in_samples, a.in_relayed + a.in_dropped_unheard);
    let mute = LegCommand::Mute {
        uplink: false,
        downlink: true,
    };
    wire.session.handle_command(wire.now, mute, &mut wire.scratch);
    wire.now = wire.now + Duration::from_millis(200);
    wire.hear(7, &packets[7]);
    assert_eq!(wire.sent(), [[0xf8, 0xff, 0xfe]]);
}

#[test]
fn keys_take_the_place_of_the_callers_packets_and_then_the_packets_come_back_again() {
    let mut wire = opus_echo();
    let packets = opus_tone();
    let mut encoder = opus::Encoder::new(48_000, 0).unwrap();
    let mut key = [0; opus::MAX_PACKET];
    let n = encoder.encode(&[1000; 960], &mut key);
    let tones = Tones::in_packets(vec![1000; 960], 960, vec![key[..n].into()]);
    let press = LegCommand::Tones(Box::new(tones));
    wire.session.handle_command(wire.now, press, &mut wire.scratch);
    let mut heard = Vec::new();
    for at in 0..3 {
        wire.hear(at, &packets[at as usize]);
        heard.extend(wire.sent());
        wire.now = wire.now + Duration::from_millis(20);
    }
    assert_eq!(heard, [key[..n].to_vec(), packets[1].clone(), packets[2].clone()]);
}

#[test]
fn packets_of_the_mouth_reach_the_caller_untouched() {
    let opus = format(Encoding::Opus, 16_000);
    let (mut mouth, down) = downlink_of_packets(16_000, 16_000, 64, 4000);
    let route = Route::Relay {
        uplink: None,
        downlink: Some(down),
    };
    let mut wire = Wire::routed(format(Encoding::Ulaw, 8000), opus, route);
    let packets = opus_tone();
    for packet in &packets[..5] {
        assert!(mouth.push_packet(UtteranceId(1), &[7; 320], packet, false));
    }
    assert_eq!(wire.sent(), packets[..5]);
}

#[test]
fn the_two_directions_differ_in_codec_and_rate() {
    let mut wire = Wire::new(format(Encoding::Alaw, 8000), format(Encoding::L16Be, 24_000));
    let (mut narrow, mut bytes) = (vec![0; 3200], vec![0; 3200]);
    Sine::new(8000, 500.0, 9000.0).fill(&mut narrow);
    codec::encode(Encoding::Alaw, &narrow, &mut bytes);
    for (n, frame) in bytes.chunks(160).enumerate() {
        wire.hear(n as u64, frame);
    }
    let heard = wire.heard();
    assert!((490..=510).contains(&frequency(&heard)), "{} Hz", frequency(&heard));
    assert_eq!(wire.said(&tone()).len(), 20 * 960, "whole frames of 20 ms");
}

#[test]
fn audio_that_overtook_other_audio_is_put_back_and_a_repetition_is_dropped() {
    let linear = format(Encoding::L16Le, 16_000);
    let mut wire = Wire::new(linear, linear);
    let frame = |n: u64| [n as i16 + 1; 320].map(i16::to_le_bytes).concat();
    for n in [0, 2, 1, 1, 3, 5, 4, 7] {
        wire.hear(n, &frame(n));
    }
    let firsts = |heard: &[i16]| heard.chunks(320).map(|f| f[0]).collect::<Vec<_>>();
    assert_eq!(firsts(&wire.heard()), [1, 2, 3, 4, 5, 6]);
    wire.session.handle_message(wire.now, b"stop", &mut wire.scratch);
    assert_eq!(firsts(&wire.heard()), [8], "what waited is heard before the end");
    let accounts = wire.session.accounting();
    assert_eq!((accounts.in_frames, accounts.in_late, accounts.in_bad), (7, 1, 0));
}

#[test]
fn a_rate_that_keeps_changing_is_followed_a_few_times_and_then_left_out() {
    let linear = format(Encoding::L16Le, 8000);
    let mut wire = Wire::new(linear, linear);
    for n in 0..20 {
        let rate = if n % 2 == 0 { 16_000 } else { 8000 };
        let mut message = BytesMut::from(format!("@{rate} ").as_bytes());
        base64::append(&[0; 320], &mut message);
        wire.session.handle_message(wire.now, &message, &mut wire.scratch);
    }
    // After eight changes the rate is 8 kHz and stays so.
    let accounts = wire.session.accounting();
    assert_eq!((accounts.in_frames, accounts.in_bad), (14, 6));
}

#[test]
fn a_caller_who_is_muted_is_not_heard_and_cannot_interrupt() {
    let linear = format(Encoding::L16Le, 16_000);
    let mut wire = Wire::new(linear, linear);
    let mute = |uplink, downlink| LegCommand::Mute { uplink, downlink };
    wire.session
        .handle_command(wire.now, mute(true, true), &mut wire.scratch);
    wire.hear(0, &[1; 640]);
    assert!(wire.heard().is_empty());
    assert!(wire.said(&tone()).iter().all(|b| *b == 0), "silence of the same length");
    wire.session
        .handle_command(wire.now, mute(false, false), &mut wire.scratch);
    wire.hear(1, &[1; 640]);
    assert_eq!(wire.heard().len(), 320);
}

#[test]
fn codes_reach_the_caller_as_they_are_and_what_is_muted_is_the_law_s_silence() {
    for law in [Encoding::Ulaw, Encoding::Alaw] {
        let wire = format(law, 8000);
        let (mut mouth, down) = downlink_of(wire, 1000, 16);
        let route = Route::Relay {
            uplink: None,
            downlink: Some(down),
        };
        let mut leg = Wire::routed(wire, wire, route);
        let codes: Vec<i16> = (0..=255).collect();
        assert_eq!(mouth.push(UtteranceId(1), &codes, true), 256);
        let sent = leg.sent().concat();
        let silence = codec::silence(law);
        let expected: Vec<u8> = (0..=255).chain([silence; 64]).collect();
        assert_eq!(sent, expected, "both zeros of the law stay what they were");
        let mute = LegCommand::Mute {
            uplink: false,
            downlink: true,
        };
        leg.session.handle_command(leg.now, mute, &mut leg.scratch);
        mouth.push(UtteranceId(2), &codes[..160], true);
        assert_eq!(leg.sent().concat(), [silence; 160]);
        // Codes of another law are not played.
        let other = if law == Encoding::Ulaw {
            Encoding::Alaw
        } else {
            Encoding::Ulaw
        };
        let (mut mouth, down) = downlink_of(format(other, 8000), 1000, 16);
        let route = Route::Relay {
            uplink: None,
            downlink: Some(down),
        };
        let mut leg = Wire::routed(wire, wire, route);
        mouth.push(UtteranceId(1), &codes, true);
        assert!(leg.sent().is_empty());
    }
}
