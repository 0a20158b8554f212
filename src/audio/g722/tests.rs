//! G.722 against an independent implementation, bit for bit, and what must hold of any.
//!
//! The figures were computed with spandsp 0.0.6, which passes the Recommendation's test sequences.

use super::*;
use crate::audio::tone::Sine;
use proptest::prelude::*;

/// Two seconds of everything: noise, a triangle, a rising saw, and half a second of near silence.
fn mixture() -> Vec<i16> {
    let mut state = 1_u32;
    let sample = |i: i32| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
        let noise = (state >> 16) as i32 % 2001 - 1000;
        let triangle = (i * 37 % 400 - 200).abs() * 60 - 6000;
        let saw = ((i * i / 64) % 256 - 128) * 40;
        match i / 8000 {
            // Rounds towards minus infinity, as the reference's generator does.
            1 => noise.div_euclid(100) as i16,
            _ => (noise + triangle + saw) as i16,
        }
    };
    (0..32_000).map(sample).collect()
}

/// FNV-1a, 64 bits.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn encoded(pcm: &[i16]) -> Vec<u8> {
    let mut bytes = vec![0; pcm.len() / 2];
    assert_eq!(Encoder::default().encode(pcm, &mut bytes), pcm.len() / 2);
    bytes
}

fn decoded(bytes: &[u8]) -> Vec<i16> {
    let mut pcm = vec![0; bytes.len() * 2];
    assert_eq!(Decoder::default().decode(bytes, &mut pcm), pcm.len());
    pcm
}

#[test]
fn both_directions_give_the_bits_of_an_independent_implementation() {
    let bytes = encoded(&mixture());
    let first: String = bytes[..24].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(first, "de30892085208484858f1abd128d109cfa190e0e983bff54");
    assert_eq!(hash(bytes.iter().copied()), 0x3a90_290d_5196_5be9);
    let pcm = decoded(&bytes);
    assert_eq!(pcm[..12], [-1, 0, 0, -1, -1, 0, 0, -2, -1, 3, -1, -14]);
    assert_eq!(
        pcm[20_000..20_008],
        [3658, 6927, -565, 2594, -5694, -3482, -9003, -3095]
    );
    assert_eq!(hash(pcm.iter().flat_map(|s| s.to_le_bytes())), 0xc2c2_347e_28bc_cfb9);
}

#[test]
fn speech_comes_back_close_after_22_samples() {
    for frequency in [200.0, 1000.0, 3000.0, 5000.0] {
        let mut pcm = vec![0; 8000];
        Sine::new(RATE, frequency, 8000.0).fill(&mut pcm);
        let back = decoded(&encoded(&pcm));
        let power = |x: f64| x * x;
        let (mut signal, mut noise) = (0.0, 0.0);
        for (sent, heard) in pcm[800..].iter().zip(&back[822..]) {
            signal += power(f64::from(*sent));
            noise += power(f64::from(*sent) - f64::from(*heard));
        }
        let snr = 10.0 * (signal / noise).log10();
        assert!(snr > 15.0, "{frequency} Hz: {snr:.1} dB");
    }
}

#[test]
fn silence_stays_silent() {
    assert!(decoded(&encoded(&[0; 3200])).iter().all(|s| s.abs() <= 8));
}

#[test]
fn an_odd_sample_waits_for_nobody() {
    let mut bytes = [7; 4];
    assert_eq!(Encoder::default().encode(&[0; 5], &mut bytes), 2);
    assert_eq!(bytes[2..], [7, 7]);
    let mut pcm = [7; 5];
    assert_eq!(Decoder::default().decode(&[0; 4], &mut pcm), 4);
    assert_eq!(pcm[4], 7);
}

proptest! {
    #[test]
    fn the_length_of_the_pieces_changes_nothing(pcm in prop::collection::vec(any::<i16>(), 0..400), cuts in prop::collection::vec(1usize..40, 1..20)) {
        let pcm = &pcm[..pcm.len() / 2 * 2];
        let whole = encoded(pcm);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        let (mut rest, mut cut) = (pcm, cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at((cut.next().unwrap() * 2).min(rest.len()));
            let mut out = vec![0; piece.len() / 2];
            encoder.encode(piece, &mut out);
            let mut heard = vec![0; piece.len()];
            decoder.decode(&out, &mut heard);
            bytes.extend(out);
            back.extend(heard);
            rest = later;
        }
        prop_assert_eq!(&bytes, &whole);
        prop_assert_eq!(back, decoded(&whole));
    }

    #[test]
    fn hostile_bytes_never_overflow(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let pcm = decoded(&bytes);
        let _ = encoded(&pcm);
    }
}
