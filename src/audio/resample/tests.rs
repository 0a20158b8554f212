//! What the module promises: exact counts, one result however it is cut, flat pass band, rejection, delay, no drift.

mod quality;

use super::{any::AnyResampler, *};
use crate::audio::tone::{Noise, Sine};
use proptest::prelude::*;
use std::f64::consts::TAU;

const RATES: [u32; 4] = [8000, 16000, 24000, 48000];

fn pairs() -> impl Iterator<Item = (u32, u32)> {
    RATES
        .into_iter()
        .flat_map(|from| RATES.into_iter().map(move |to| (from, to)))
}

fn real_pairs() -> impl Iterator<Item = (u32, u32)> {
    pairs().filter(|(from, to)| from != to)
}

/// Resamples in chunks of `ms` milliseconds.
fn stream(resampler: &mut Resampler, input: &[i16], ms: usize) -> Vec<i16> {
    let mut out = vec![0; resampler.output_len(input.len())];
    let mut written = 0;
    for chunk in input.chunks(resampler.from_rate() as usize * ms / 1000) {
        written += resampler.process(chunk, &mut out[written..]);
    }
    assert_eq!(written, out.len());
    out
}

fn tone(rate: u32, frequency: f64, amplitude: f64, ms: usize) -> Vec<i16> {
    let mut samples = vec![0; rate as usize * ms / 1000];
    Sine::new(rate, frequency, amplitude).fill(&mut samples);
    samples
}

/// Complex amplitude of `frequency`, with phase 0 for a sine that starts at sample 0. Whole milliseconds of samples and
/// frequencies in multiples of 50 Hz over 20 ms make it exact.
fn component(rate: u32, samples: &[i16], frequency: f64) -> (f64, f64) {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &x) in samples.iter().enumerate() {
        let angle = TAU * frequency * n as f64 / f64::from(rate);
        re += f64::from(x) * angle.sin();
        im += f64::from(x) * angle.cos();
    }
    let half = samples.len() as f64 / 2.0;
    (re / half, im / half)
}

fn db(ratio: f64) -> f64 {
    20.0 * ratio.max(1e-12).log10()
}

fn rms(samples: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = samples.fold((0.0, 0.0), |(sum, n), x| (sum + x * x, n + 1.0));
    (sum / n).sqrt()
}

#[test]
fn every_chunk_of_ten_milliseconds_gives_exactly_ten_milliseconds() {
    for (from, to) in pairs() {
        let mut resampler = Resampler::new(from, to).unwrap();
        for ms in [10, 20, 10, 30, 100, 1000] {
            let (n, m) = (from as usize * ms / 1000, to as usize * ms / 1000);
            assert_eq!(resampler.output_len(n), m);
            assert_eq!(resampler.process(&vec![1; n], &mut vec![0; m + 5]), m, "{from} to {to}");
        }
    }
}

#[test]
fn equal_rates_pass_through_without_delay() {
    let mut resampler = Resampler::new(16000, 16000).unwrap();
    let input = tone(16000, 1000.0, 9000.0, 10);
    let mut out = vec![0; 160];
    assert_eq!(resampler.process(&input, &mut out), 160);
    assert_eq!(out, input);
    assert_eq!(resampler.delay_samples(), 0);
}

#[test]
fn other_rates_are_refused_by_name() {
    let error = Resampler::new(22050, 8000).unwrap_err();
    assert_eq!(error, UnsupportedRates { from: 22050, to: 8000 });
    assert!(error.to_string().contains("22050"));
    assert!(Resampler::new(8000, 0).is_err());
}

proptest! {
    #[test]
    fn how_a_stream_is_cut_does_not_change_it(
        pair in 0usize..16,
        cuts in prop::collection::vec(0usize..700, 1..12),
        seed: u64,
    ) {
        let (from, to) = pairs().nth(pair).unwrap();
        let mut input = vec![0; cuts.iter().sum()];
        Noise::new(seed).white(-9.0, &mut input);
        let mut whole = Resampler::new(from, to).unwrap();
        let mut expected = vec![0; whole.output_len(input.len())];
        prop_assert_eq!(whole.process(&input, &mut expected), expected.len());
        let mut cut = Resampler::new(from, to).unwrap();
        let (mut out, mut rest) = (vec![0; expected.len()], &input[..]);
        let mut written = 0;
        for n in cuts {
            let (now, later) = rest.split_at(n);
            let due = cut.output_len(n);
            let got = cut.process(now, &mut out[written..]);
            prop_assert_eq!(got, due);
            written += got;
            rest = later;
        }
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn an_output_too_short_loses_samples_and_nothing_else(pair in 0usize..16, room in 0usize..500) {
        let (from, to) = pairs().nth(pair).unwrap();
        let mut input = vec![0; 960];
        Noise::new(1).white(-9.0, &mut input);
        let (mut a, mut b) = (Resampler::new(from, to).unwrap(), Resampler::new(from, to).unwrap());
        let mut full = vec![0; a.output_len(960)];
        a.process(&input, &mut full);
        let mut short = vec![0; room];
        let n = b.process(&input, &mut short);
        prop_assert_eq!(n, room.min(full.len()));
        prop_assert_eq!(&short[..n], &full[..n]);
        let (mut next_a, mut next_b) = (full.clone(), full.clone());
        a.process(&input, &mut next_a);
        b.process(&input, &mut next_b);
        prop_assert_eq!(next_a, next_b);
    }
}

#[test]
fn ten_and_twenty_millisecond_frames_give_the_same_samples() {
    for (from, to) in pairs() {
        let mut input = vec![0; from as usize];
        Noise::new(3).pink(-12.0, &mut input);
        let by_10 = stream(&mut Resampler::new(from, to).unwrap(), &input, 10);
        let by_20 = stream(&mut Resampler::new(from, to).unwrap(), &input, 20);
        assert!(by_10 == by_20, "{from} to {to}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_samples() {
    for (from, to) in pairs() {
        for quality in [Quality::Path, Quality::Fine] {
            let on = |isa| Resampler::on(isa, from, to, quality).unwrap().unwrap();
            let mut input = vec![0; from as usize / 10];
            Noise::new(5).white(-6.0, &mut input);
            let scalar = stream(&mut on(Isa::Scalar), &input, 20);
            for isa in Isa::available() {
                let out = stream(&mut on(isa), &input, 20);
                assert!(out == scalar, "{from} to {to}, {quality:?} on {isa}");
            }
        }
    }
}

#[test]
fn an_impulse_comes_out_after_the_stated_delay() {
    for (from, to) in real_pairs() {
        for (mut resampler, lags) in [
            (Resampler::new(from, to).unwrap(), 16_000.0),
            (Resampler::fine(from, to).unwrap(), 20_000.0),
        ] {
            let mut input = vec![0; from as usize / 50];
            input[0] = 30_000;
            let out = stream(&mut resampler, &input, 10);
            let peak = (0..out.len()).max_by_key(|&i| out[i]).unwrap();
            assert_eq!(peak, resampler.delay_samples(), "{from} to {to}");
            let expected = lags / from.min(to) as f32;
            assert!((resampler.delay_ms() - expected).abs() < 1e-4, "{from} to {to}");
        }
    }
}

#[test]
fn a_minute_brings_no_drift() {
    for (from, to) in real_pairs() {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut sine = Sine::new(from, 1000.0, 16_000.0);
        let mut input = vec![0; from as usize / 50];
        let mut out = vec![0; to as usize / 50];
        for _ in 0..3000 {
            sine.fill(&mut input);
            assert_eq!(resampler.process(&input, &mut out), out.len());
        }
        // 1 kHz has whole periods in a frame: the phase of the last frame is that of the delay alone.
        let (re, im) = component(to, &out, 1000.0);
        let lag = TAU * 1000.0 * f64::from(resampler.delay_ms()) / 1000.0;
        let error = (im.atan2(re) + lag).rem_euclid(TAU);
        assert!(error < 1e-3 || TAU - error < 1e-3, "{from} to {to}: {error} rad");
    }
}

#[test]
fn full_scale_saturates_instead_of_wrapping() {
    for (from, to) in real_pairs() {
        let period = from as usize / 500;
        let input: Vec<i16> = (0..from as usize / 10)
            .map(|i| if i % period < period / 2 { i16::MAX } else { i16::MIN })
            .collect();
        let out = stream(&mut Resampler::new(from, to).unwrap(), &input, 20);
        let delay = Resampler::new(from, to).unwrap().delay_samples();
        let period = to as usize / 500;
        for (i, &x) in out.iter().enumerate().skip(delay) {
            let at = (i - delay) % period;
            let quarter = period / 4;
            if at == quarter || at == quarter * 3 {
                assert!((i32::from(x) > 20_000) == (at == quarter), "{from} to {to} at {i}: {x}");
            }
        }
    }
}

#[test]
fn reset_makes_a_new_stream() {
    let mut resampler = Resampler::new(8000, 24000).unwrap();
    let input = tone(8000, 700.0, 12_000.0, 40);
    let first = stream(&mut resampler, &input, 20);
    let second = stream(&mut resampler, &input, 20);
    assert!(first != second);
    resampler.reset();
    assert!(first == stream(&mut resampler, &input, 20));
}

#[test]
fn any_rate_gives_the_due_number_of_samples_aligned_with_the_input() {
    for (from, to) in [
        (22050, 8000),
        (22050, 16000),
        (44100, 8000),
        (11025, 16000),
        (8000, 44100),
        (8000, 8000),
        (11127, 8000),
    ] {
        let input = tone(from, 440.0, 12_000.0, 1000);
        let out = AnyResampler::convert(from, to, &input).unwrap();
        assert_eq!(
            out.len() as u64,
            (input.len() as u64 * u64::from(to)).div_ceil(u64::from(from))
        );
        let middle = &out[to as usize / 4..to as usize * 3 / 4];
        let (re, im) = component(to, middle, 440.0);
        assert!(db(re.hypot(im) / 12_000.0).abs() < 0.05, "{from} to {to}");
        // A quarter of a second is 110 periods; blocks of odd length are off by half an input sample.
        let skew = TAU * 440.0 * ((to / 4) as f64 / f64::from(to));
        let error = (im.atan2(re) - skew).rem_euclid(TAU);
        let half = TAU * 440.0 / f64::from(from) / 2.0 + 1e-3;
        assert!(error < half || TAU - error < half, "{from} to {to}: {error} rad");
    }
}

#[test]
fn any_rate_may_be_cut_anywhere_and_used_again() {
    let input = tone(22050, 600.0, 12_000.0, 333);
    let expected = AnyResampler::convert(22050, 8000, &input).unwrap();
    let mut resampler = AnyResampler::new(22050, 8000).unwrap();
    for size in [1, 7, 441, 1000, 22050] {
        let mut out = Vec::new();
        for chunk in input.chunks(size) {
            resampler.push(chunk, &mut out);
        }
        resampler.finish(&mut out);
        assert!(out == expected, "chunks of {size}");
    }
}

#[test]
fn any_rate_rejects_what_no_sound_has() {
    assert_eq!(AnyResampler::new(0, 8000).unwrap_err().0, 0);
    assert_eq!(AnyResampler::new(8000, 4_000_000).unwrap_err().0, 4_000_000);
    let mut none = Vec::new();
    AnyResampler::new(22050, 8000).unwrap().finish(&mut none);
    assert!(none.is_empty());
}
