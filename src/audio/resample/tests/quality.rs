//! What each resampler does to sound, measured: held within bounds, and compared with the table of the documentation.

use super::*;
use std::fmt::Write;

/// Amplitude of a test tone: half of full scale.
const AMPLITUDE: f64 = 16_000.0;

/// What one resampler does.
#[derive(Debug)]
struct Figures {
    /// The largest deviation of a tone up to 0.425 of the lower rate (3.4 of 8 kHz), in dB.
    ripple: f64,
    /// The loudest that is left of a tone that the lower rate cannot hold (from 0.575 of it), or of a tone's images; in dB.
    rejection: f64,
    /// The least power of such a tone against everything that comes out beside it, rounding included; in dB.
    snr: f64,
    delay_samples: usize,
    delay_ms: f32,
}

type Build = fn(u32, u32) -> Result<Resampler, UnsupportedRates>;

fn figures(build: Build, from: u32, to: u32) -> Figures {
    let resampler = build(from, to).unwrap();
    let (mut ripple, mut snr, mut images) = (0.0_f64, f64::INFINITY, f64::NEG_INFINITY);
    let edge = f64::from(from.min(to)) * 0.425;
    for step in 1..=34 {
        let f = (edge * f64::from(step) / 34.0 / 50.0).round() * 50.0;
        let out = settled(build, from, to, f, AMPLITUDE);
        let (re, im) = component(to, &out, f);
        ripple = ripple.max(db(re.hypot(im) / AMPLITUDE).abs());
        let beside = rms(out.iter().enumerate().map(|(n, &x)| {
            let angle = TAU * f * n as f64 / f64::from(to);
            f64::from(x) - re * angle.sin() - im * angle.cos()
        }));
        snr = snr.min(db(AMPLITUDE / 2f64.sqrt() / beside));
        for image in images_of(f, from, to) {
            let (re, im) = component(to, &out, image);
            images = images.max(db(re.hypot(im) / AMPLITUDE));
        }
    }
    let rejection = if from < to { images } else { aliases(build, from, to) };
    Figures {
        ripple,
        rejection,
        snr,
        delay_samples: resampler.delay_samples(),
        delay_ms: resampler.delay_ms(),
    }
}

/// 100 ms of a tone through a resampler that has heard it for as long before.
fn settled(build: Build, from: u32, to: u32, f: f64, amplitude: f64) -> Vec<i16> {
    let out = stream(&mut build(from, to).unwrap(), &tone(from, f, amplitude, 200), 20);
    out[to as usize / 10..].to_vec()
}

/// Where a tone appears again when its rate is raised.
fn images_of(f: f64, from: u32, to: u32) -> Vec<f64> {
    let (from, to) = (f64::from(from), f64::from(to));
    (1..=6)
        .flat_map(|k| [f64::from(k) * from - f, f64::from(k) * from + f])
        .map(|image| ((image + to / 2.0).rem_euclid(to) - to / 2.0).abs())
        .filter(|image| (image - f).abs() > 1.0)
        .collect()
}

/// The loudest that is left of tones that the lower rate cannot hold.
fn aliases(build: Build, from: u32, to: u32) -> f64 {
    let (begin, end) = (f64::from(to) * 0.575, f64::from(from) / 2.0);
    (0..60)
        .map(|step| {
            let out = settled(
                build,
                from,
                to,
                begin + (end - begin) * f64::from(step) / 60.0,
                30_000.0,
            );
            db(rms(out.iter().map(|&x| f64::from(x))) * 2f64.sqrt() / 30_000.0)
        })
        // Below half a step of 16 bits nothing is left to be measured.
        .fold(-96.0, f64::max)
}

#[test]
fn the_path_and_the_fine_filter_keep_their_promises_and_the_documentation_states_them() {
    let mut table = String::from(
        "| kHz | ripple, dB | aliases or images, dB | SNR, dB | delay, samples | ms | fine: ripple | aliases or images | SNR | samples | ms |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (from, to) in real_pairs() {
        let _ = write!(table, "| {}→{} |", from / 1000, to / 1000);
        let kinds: [(Build, f64, f64, f32); 2] =
            [(Resampler::new, -74.0, 74.0, 2.0), (Resampler::fine, -88.0, 85.0, 2.5)];
        for (build, rejection, snr, delay_ms) in kinds {
            let f = figures(build, from, to);
            let context = format!("{from} to {to}: {f:?}");
            assert!(f.ripple < 0.01, "{context}");
            assert!(f.rejection < rejection, "{context}");
            assert!(f.snr > snr, "{context}");
            assert!(f.delay_ms <= delay_ms, "{context}");
            let _ = write!(
                table,
                " {:.3} | {:.0} | {:.0} | {} | {:.2} |",
                f.ripple, f.rejection, f.snr, f.delay_samples, f.delay_ms
            );
        }
        table.push('\n');
    }
    let documentation = include_str!("../../../../docs/performance.md");
    assert!(
        documentation.contains(&table),
        "docs/performance.md does not state what is measured:\n{table}"
    );
}
