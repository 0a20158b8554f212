//! Speech is found, silence and noise are not, and nothing keeps the detector open.

use super::*;
use crate::audio::{
    g711,
    gain::{Gain, mix},
    tone::{Noise, Sine},
};

/// A vowel: a pulse train through two resonators, at about −20 dBFS.
fn vowel(rate: u32, pitch: f32, formants: [f32; 2], ms: usize) -> Vec<i16> {
    let mut filters = formants.map(|f| {
        let radius = (-std::f32::consts::PI * 90.0 / rate as f32).exp();
        let angle = std::f32::consts::TAU * f / rate as f32;
        (2.0 * radius * angle.cos(), radius * radius, [0f32; 2])
    });
    let (mut phase, mut out) = (0.0, Vec::new());
    for _ in 0..rate as usize * ms / 1000 {
        phase += pitch / rate as f32;
        let mut x = if phase >= 1.0 {
            phase -= 1.0;
            1.0
        } else {
            0.0
        };
        for (a, b, past) in &mut filters {
            let y = x + *a * past[0] - *b * past[1];
            *past = [y, past[0]];
            x = y;
        }
        out.push(x);
    }
    let rms = (out.iter().map(|x| x * x).sum::<f32>() / out.len() as f32).sqrt();
    out.iter()
        .map(|x| (x / rms * 3276.8).clamp(-32768.0, 32767.0) as i16)
        .collect()
}

const FORMANTS: [[f32; 2]; 4] = [[730.0, 1090.0], [270.0, 2290.0], [530.0, 1840.0], [300.0, 870.0]];

/// Syllables of 180 ms with 70 ms between them.
fn sentence(rate: u32, pitch: f32, syllables: usize) -> Vec<i16> {
    let mut out = Vec::new();
    for i in 0..syllables {
        let pitch = pitch * (1.0 + 0.05 * (i as f32).sin());
        out.extend(vowel(rate, pitch, FORMANTS[i % 4], 180));
        out.extend(silence(rate, 70));
    }
    out
}

fn silence(rate: u32, ms: usize) -> Vec<i16> {
    vec![0; rate as usize * ms / 1000]
}

fn events(rate: u32, samples: &[i16]) -> Vec<VadEvent> {
    let mut vad = Vad::new(rate, VadConfig::default()).unwrap();
    let mut events = Vec::new();
    for frame in samples.chunks(rate as usize / 50) {
        vad.process(frame, |event| events.push(event));
    }
    events
}

/// Milliseconds from the start of the stream, of alternating onsets and offsets.
fn times(rate: u32, samples: &[i16]) -> Vec<i64> {
    events(rate, samples)
        .iter()
        .enumerate()
        .map(|(i, event)| match *event {
            VadEvent::Onset { at_sample } if i % 2 == 0 => at_sample as i64 * 1000 / i64::from(rate),
            VadEvent::Offset { at_sample } if i % 2 == 1 => at_sample as i64 * 1000 / i64::from(rate),
            _ => panic!("onsets and offsets must alternate"),
        })
        .collect()
}

fn noise(rate: u32, ms: usize, pink: bool, seed: u64, dbfs: f64) -> Vec<i16> {
    let mut out = silence(rate, ms);
    let mut noise = Noise::new(seed);
    if pink {
        noise.pink(dbfs, &mut out);
    } else {
        noise.white(dbfs, &mut out);
    }
    out
}

#[test]
fn a_sentence_is_one_stretch_of_speech_with_its_ends_in_place() {
    for rate in [8000, 16000, 24000, 48000] {
        for pitch in [80.0, 120.0, 200.0, 300.0] {
            let samples = [silence(rate, 700), sentence(rate, pitch, 8), silence(rate, 1000)].concat();
            let times = times(rate, &samples);
            let [onset, offset] = times[..] else {
                panic!("{rate} Hz, pitch {pitch}: {times:?}");
            };
            assert!((680..=760).contains(&onset), "{rate} Hz, pitch {pitch}: {onset}");
            let end = 700 + 8 * 250 - 70;
            assert!(
                (end - 30..=end + 30).contains(&offset),
                "{rate} Hz, pitch {pitch}: {offset}"
            );
        }
    }
}

#[test]
fn an_onset_is_told_within_a_tenth_of_a_second() {
    let samples = [silence(8000, 500), vowel(8000, 120.0, FORMANTS[0], 500)].concat();
    let mut vad = Vad::new(8000, VadConfig::default()).unwrap();
    let mut told = None;
    for (i, hop) in samples.chunks(80).enumerate() {
        vad.process(hop, |_| told = Some(i * 10 + 10 - 500));
        if told.is_some() {
            break;
        }
    }
    assert!(told.is_some_and(|ms| ms <= 100), "{told:?}");
    assert!(vad.is_speech());
}

#[test]
fn two_sentences_with_a_pause_are_two() {
    let one = sentence(8000, 140.0, 4);
    let samples = [
        silence(8000, 300),
        one.clone(),
        silence(8000, 900),
        one,
        silence(8000, 900),
    ]
    .concat();
    assert_eq!(times(8000, &samples).len(), 4);
}

#[test]
fn quiet_and_loud_callers_are_both_heard() {
    for db in [-25.0, -15.0, 0.0, 12.0] {
        let mut speech = sentence(8000, 120.0, 6);
        Gain::from_db(db).apply(&mut speech);
        let samples = [silence(8000, 300), speech, silence(8000, 900)].concat();
        assert_eq!(times(8000, &samples).len(), 2, "{db} dB");
    }
}

#[test]
fn speech_is_found_in_noise_ten_decibels_below() {
    for pink in [false, true] {
        for seed in 0..5 {
            let mut samples = [silence(8000, 3000), sentence(8000, 130.0, 8), silence(8000, 2000)].concat();
            let noise = noise(8000, samples.len() / 8, pink, seed, -31.0);
            mix(&mut samples, &noise);
            let times = times(8000, &samples);
            assert!(
                times.chunks(2).any(|t| (2900..3500).contains(&t[0])),
                "pink {pink}, seed {seed}: {times:?}"
            );
            assert!(
                times.len().is_multiple_of(2),
                "it ended: pink {pink}, seed {seed}: {times:?}"
            );
        }
    }
}

#[test]
fn silence_and_idle_codes_are_never_speech() {
    assert!(events(8000, &silence(8000, 20_000)).is_empty());
    // Both zeros of μ-law, the smallest values of A-law, and now and then the next ones.
    for (decode, idle) in [
        (
            g711::scalar::ulaw_decode as fn(u8) -> i16,
            [0xff, 0x7f, 0xff, 0xfe, 0x7e],
        ),
        (g711::scalar::alaw_decode, [0xd5, 0x55, 0xd5, 0xd4, 0x54]),
    ] {
        let pcm: Vec<i16> = (0..160_000).map(|i| decode(idle[i % 7 % 5])).collect();
        assert!(events(8000, &pcm).is_empty());
    }
}

#[test]
fn stationary_noise_hardly_starts_it_and_never_holds_it() {
    let (mut onsets, mut seconds) = (0, 0);
    for pink in [false, true] {
        for dbfs in [-10.0, -20.0, -30.0, -40.0, -50.0] {
            for seed in 0..4 {
                let samples = [silence(8000, 500), noise(8000, 20_000, pink, seed, dbfs)].concat();
                let events = events(8000, &samples);
                onsets += events.len().div_ceil(2);
                seconds += 20;
                for pair in events.chunks(2) {
                    let [VadEvent::Onset { at_sample: on }, VadEvent::Offset { at_sample: off }] = *pair else {
                        panic!("still open after noise, pink {pink} at {dbfs} dBFS: {events:?}");
                    };
                    assert!(off - on < 8000 * 3, "pink {pink} at {dbfs} dBFS: {events:?}");
                }
            }
        }
    }
    assert!(onsets <= 2, "{onsets} onsets in {seconds} s of noise");
}

#[test]
fn a_dial_tone_closes_what_it_opened() {
    let mut tone = silence(8000, 6000);
    let mut other = tone.clone();
    Sine::new(8000, 350.0, 6000.0).fill(&mut tone);
    Sine::new(8000, 440.0, 6000.0).fill(&mut other);
    mix(&mut tone, &other);
    let times = times(8000, &[silence(8000, 500), tone].concat());
    let [_, offset] = times[..] else { panic!("{times:?}") };
    assert!(offset < 500 + 2500, "{offset}");
}

#[test]
fn noise_that_starts_during_speech_lets_it_end() {
    for pink in [false, true] {
        for seed in 0..4 {
            let mut samples = [silence(8000, 500), sentence(8000, 120.0, 4), silence(8000, 6000)].concat();
            let at = 8000;
            let noise = noise(8000, (samples.len() - at) / 8, pink, seed, -25.0);
            mix(&mut samples[at..], &noise);
            let times = times(8000, &samples);
            assert!(
                times.len().is_multiple_of(2) && !times.is_empty(),
                "pink {pink}, seed {seed}: {times:?}"
            );
            assert!(*times.last().unwrap() < 4500, "pink {pink}, seed {seed}: {times:?}");
        }
    }
}

#[test]
fn a_click_and_a_short_grunt_are_no_onset() {
    let mut samples = silence(8000, 1000);
    samples[4000..4016].fill(20_000);
    assert!(events(8000, &samples).is_empty());
    let samples = [
        silence(8000, 500),
        vowel(8000, 120.0, FORMANTS[0], 35),
        silence(8000, 500),
    ]
    .concat();
    assert!(events(8000, &samples).is_empty());
}

#[test]
fn onset_and_hangover_are_as_configured() {
    let samples = [
        silence(8000, 300),
        vowel(8000, 120.0, FORMANTS[0], 150),
        silence(8000, 300),
        vowel(8000, 120.0, FORMANTS[0], 150),
        silence(8000, 800),
    ]
    .concat();
    let count = |onset_ms, hangover_ms| {
        let mut vad = Vad::new(8000, VadConfig { onset_ms, hangover_ms }).unwrap();
        let mut n = 0;
        vad.process(&samples, |_| n += 1);
        n
    };
    assert_eq!(count(60, 500), 2);
    assert_eq!(count(60, 200), 4);
    assert_eq!(count(400, 200), 0);
}

#[test]
fn how_a_stream_is_cut_does_not_change_the_events() {
    let samples = [silence(8000, 333), sentence(8000, 120.0, 4), silence(8000, 900)].concat();
    let expected = events(8000, &samples);
    for size in [1, 80, 113, 4000] {
        let mut vad = Vad::new(8000, VadConfig::default()).unwrap();
        let mut events = Vec::new();
        for chunk in samples.chunks(size) {
            vad.process(chunk, |event| events.push(event));
        }
        assert_eq!(events, expected, "chunks of {size}");
        vad.reset();
        let mut again = Vec::new();
        vad.process(&samples, |event| again.push(event));
        assert_eq!(again, expected, "after a reset");
    }
}

#[test]
fn the_level_is_that_of_the_last_hop() {
    let mut vad = Vad::new(8000, VadConfig::default()).unwrap();
    vad.process(&[3277; 80], |_| {});
    assert!((vad.level_dbfs() + 20.0).abs() < 0.1);
    vad.process(&[0; 80], |_| {});
    assert_eq!(vad.level_dbfs(), SILENCE_DBFS);
    assert!(vad.floor_dbfs() <= -60.0);
}

#[test]
fn other_rates_are_refused() {
    assert_eq!(
        Vad::new(22050, VadConfig::default()).unwrap_err(),
        UnsupportedRate(22050)
    );
}
