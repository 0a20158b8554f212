//! Keys on legs that echo: tones in the place of what the caller says.

use super::*;
use crate::audio::{
    codec, opus,
    tone::{Dtmf, DtmfKey},
};
use crate::base::format::Encoding;

/// A key as the caller of an echo should hear it.
fn key(rate: u32) -> Vec<i16> {
    let mut dtmf = Dtmf::new(rate, 100, 100);
    dtmf.press(DtmfKey::of('5').unwrap());
    let mut samples = vec![0; rate as usize / 5];
    assert_eq!(dtmf.fill(&mut samples), samples.len());
    samples
}

#[test]
fn keys_come_back_from_an_echo_in_the_place_of_the_callers_voice_and_then_the_voice_again() {
    let mut d = Desk::echo();
    let tones = key(8000);
    let mut expected = vec![0; tones.len()];
    codec::encode(Encoding::Ulaw, &tones, &mut expected);
    // A caller who is muted hears the keys all the same.
    d.command(LegCommand::Mute {
        uplink: true,
        downlink: false,
    });
    d.command(LegCommand::Tones(Box::new(Tones::new(tones))));
    let mut heard = Vec::new();
    for _ in 0..10 {
        d.frame(&[0x20; 160]);
        for sent in d.drain() {
            if let Sent::Audio(audio) = sent {
                heard.extend(audio);
            }
        }
        d.pass(20);
    }
    assert_eq!(heard, expected);
    d.command(LegCommand::Mute {
        uplink: false,
        downlink: false,
    });
    d.frame(&[0x20; 160]);
    assert_eq!(d.drain(), [Sent::Audio(vec![0x20; 160])]);
    let a = *d.session.accounting();
    assert_eq!(a.in_samples, a.in_relayed + a.in_dropped_unheard);
}

#[test]
fn keys_that_wait_are_played_one_after_the_other() {
    let mut d = Desk::echo();
    for level in [1000, 2000] {
        d.command(LegCommand::Tones(Box::new(Tones::new(vec![level; 160]))));
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        d.frame(&[0xff; 160]);
        heard.extend(d.drain());
        d.pass(20);
    }
    let ulaw = |level: i16| {
        let mut code = [0];
        codec::encode(Encoding::Ulaw, &[level], &mut code);
        Sent::Audio(vec![code[0]; 160])
    };
    assert_eq!(heard, [ulaw(1000), ulaw(2000), ulaw(0)]);
}

#[test]
fn an_echo_of_packets_passes_the_keys_packets_on_whatever_the_length_of_the_callers() {
    for callers_ms in [10, 20, 40] {
        let samples = key(48_000);
        let mut encoder = opus::Encoder::new(48_000, 0).unwrap();
        let frame = encoder.frame();
        let packets: Vec<Box<[u8]>> = samples
            .chunks_exact(frame)
            .map(|piece| {
                let mut packet = [0; opus::MAX_PACKET];
                let n = encoder.encode(piece, &mut packet);
                packet[..n].into()
            })
            .collect();
        let mut tones = Tones::in_packets(samples, frame, packets.clone());
        let mut said: Vec<Vec<u8>> = Vec::new();
        for _ in 0..200 / callers_ms {
            tones.make_room(48 * callers_ms);
            while let Some((samples, packet)) = tones.next_packet() {
                assert_eq!(samples.len(), frame);
                said.push(packet.to_vec());
            }
        }
        assert!(tones.is_over());
        assert!(
            said.iter().map(|p| &p[..]).eq(packets.iter().map(|p| &p[..])),
            "{callers_ms}"
        );
    }
}
