//! The signal kernels alone: G.711 by instruction set beside the usual table loops, plain loops by instruction set, resampling beside rubato, voice activity.
//!
//! One frame is 20 ms. Each measurement walks through [`INPUTS`] different frames, so that branches and tables meet varied samples.
//! Compare ratios within one run: absolute figures are the machine's.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction, audioadapter_buffers::direct::InterleavedSlice};
use sidetone::audio::{
    g711::{G711, scalar},
    g722,
    gain::{Gain, mix},
    isa::Isa,
    resample::{Quality, Resampler},
    simd::Loops,
    tone::{Noise, Sine},
    vad::{Vad, VadConfig},
};
use std::{hint::black_box, iter::zip};

const INPUTS: usize = 32;

/// Frames that rise and fall like syllables: harmonics of a gliding pitch over pink noise.
fn speech(rate: u32) -> Vec<Vec<i16>> {
    let mut noise = Noise::new(1);
    let mut frames = Vec::new();
    for i in 0..INPUTS {
        let mut frame = vec![0; rate as usize / 50];
        noise.pink(-45.0, &mut frame);
        for harmonic in 1..=12 {
            let mut voice = vec![0; frame.len()];
            let pitch = 110.0 + 3.0 * i as f64;
            Sine::new(rate, pitch * f64::from(harmonic), 6000.0 / f64::from(harmonic)).fill(&mut voice);
            mix(&mut frame, &voice);
        }
        Gain::from_db(-((i % 8) as f32) * 4.0).apply(&mut frame);
        frames.push(frame);
    }
    frames
}

/// The next of a ring of inputs.
struct Rotation<'a, T> {
    inputs: &'a [Vec<T>; INPUTS],
    next: usize,
}

impl<'a, T> Rotation<'a, T> {
    fn new(inputs: &'a [Vec<T>]) -> Self {
        let inputs = inputs.try_into().expect("as many inputs as the rotation has places");
        Self { inputs, next: 0 }
    }

    fn turn(&mut self) -> &'a [T] {
        let input = &self.inputs[self.next];
        self.next = (self.next + 1) % INPUTS;
        input
    }
}

fn g711(c: &mut Criterion) {
    let frames = speech(8000);
    for (law, encode_one) in [
        ("ulaw", scalar::ulaw_encode as fn(i16) -> u8),
        ("alaw", scalar::alaw_encode),
    ] {
        let mut group = c.benchmark_group(format!("{law}_encode_160"));
        let mut codes = vec![0; 160];
        // A sample's upper 14 bits are all either law looks at.
        let table: Vec<u8> = (0..1 << 14).map(|i: u16| encode_one((i << 2) as i16)).collect();
        let table: &[u8; 1 << 14] = table.as_slice().try_into().unwrap();
        let mut inputs = Rotation::new(&frames);
        group.bench_function("table_16k", |b| {
            b.iter(|| {
                for (&x, code) in zip(black_box(inputs.turn()), black_box(&mut codes)) {
                    *code = table[usize::from(x as u16 >> 2)];
                }
            });
        });
        for isa in Isa::available() {
            let kernels = G711::on(isa).unwrap();
            let encode = if law == "ulaw" {
                G711::ulaw_encode
            } else {
                G711::alaw_encode
            };
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| encode(&kernels, black_box(inputs.turn()), black_box(&mut codes)));
            });
        }
        group.finish();
    }
    for (law, decode_one) in [
        ("ulaw", scalar::ulaw_decode as fn(u8) -> i16),
        ("alaw", scalar::alaw_decode),
    ] {
        let mut group = c.benchmark_group(format!("{law}_decode_160"));
        let coded: Vec<Vec<u8>> = frames
            .iter()
            .map(|frame| frame.iter().map(|&x| scalar::ulaw_encode(x)).collect())
            .collect();
        let mut pcm = vec![0; 160];
        let table: [i16; 256] = std::array::from_fn(|i| decode_one(i as u8));
        let table = black_box(&table);
        let mut inputs = Rotation::new(&coded);
        group.bench_function("table_256", |b| {
            b.iter(|| {
                for (&code, x) in zip(black_box(inputs.turn()), black_box(&mut pcm)) {
                    *x = table[usize::from(code)];
                }
            });
        });
        for isa in Isa::available() {
            let kernels = G711::on(isa).unwrap();
            let decode = if law == "ulaw" {
                G711::ulaw_decode
            } else {
                G711::alaw_decode
            };
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| decode(&kernels, black_box(inputs.turn()), black_box(&mut pcm)));
            });
        }
        group.finish();
    }
}

/// Byte order, gain, mix and energy of 160 samples. `scalar` is the same loop for the target's baseline.
fn loops(c: &mut Criterion) {
    let frames = speech(8000);
    let coded: Vec<Vec<[u8; 2]>> = frames
        .iter()
        .map(|frame| frame.iter().map(|x| x.to_be_bytes()).collect())
        .collect();
    let mut pcm = vec![0; 160];
    for isa in Isa::available() {
        let loops = Loops::on(isa).unwrap();
        let mut inputs = Rotation::new(&coded);
        c.bench_function(&format!("l16_be_decode_160/{isa}"), |b| {
            b.iter(|| loops.read_be(black_box(inputs.turn()), black_box(&mut pcm)));
        });
        let mut inputs = Rotation::new(&frames);
        c.bench_function(&format!("gain_160/{isa}"), |b| {
            b.iter(|| loops.amplify(black_box(&mut pcm), black_box(3000)));
        });
        c.bench_function(&format!("mix_160/{isa}"), |b| {
            b.iter(|| loops.mix(black_box(&mut pcm), black_box(inputs.turn())));
        });
        c.bench_function(&format!("energy_160/{isa}"), |b| {
            b.iter(|| loops.energy(black_box(inputs.turn())));
        });
    }
}

fn resample(c: &mut Criterion) {
    for (from, to) in [
        (8000, 16000),
        (8000, 24000),
        (8000, 48000),
        (16000, 24000),
        (16000, 8000),
        (24000, 8000),
        (48000, 8000),
        (24000, 16000),
    ] {
        let mut group = c.benchmark_group(format!("resample_{}_{}_20ms", from / 1000, to / 1000));
        let frames = speech(from);
        let mut inputs = Rotation::new(&frames);
        let mut out = vec![0; to as usize / 50];
        for isa in Isa::available() {
            let mut resampler = Resampler::on(isa, from, to, Quality::Path).unwrap().unwrap();
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| resampler.process(black_box(inputs.turn()), black_box(&mut out)));
            });
        }
        let mut fine = Resampler::fine(from, to).unwrap();
        group.bench_function("fine", |b| {
            b.iter(|| fine.process(black_box(inputs.turn()), black_box(&mut out)));
        });
        // rubato at its best for telephony: a Hann window and 5 ms blocks, here without the conversion to and from i16.
        let (frames_in, frames_out) = (from as usize / 50, to as usize / 50);
        let window = WindowFunction::Hann;
        let mut fft =
            Fft::<f32>::new_custom(from as usize, to as usize, frames_in, 4, 1, window, FixedSync::Input).unwrap();
        let floats: Vec<Vec<f32>> = frames
            .iter()
            .map(|f| f.iter().map(|&x| f32::from(x)).collect())
            .collect();
        let mut inputs = Rotation::new(&floats);
        let mut out = vec![0.0; frames_out];
        group.bench_function("rubato_fft", |b| {
            b.iter(|| {
                let input = InterleavedSlice::new(black_box(inputs.turn()), 1, frames_in).unwrap();
                let mut output = InterleavedSlice::new_mut(black_box(&mut out[..]), 1, frames_out).unwrap();
                fft.process_into_buffer(&input, &mut output, None).unwrap()
            });
        });
        group.finish();
    }
}

fn vad(c: &mut Criterion) {
    let mut group = c.benchmark_group("vad_20ms");
    let mut line_noise = vec![vec![0; 160]; INPUTS];
    for frame in &mut line_noise {
        Noise::new(2).white(-65.0, frame);
    }
    for (name, frames) in [
        ("silence", vec![vec![0; 160]; INPUTS]),
        ("line_noise", line_noise),
        ("speech", speech(8000)),
    ] {
        let mut vad = Vad::new(8000, VadConfig::default()).unwrap();
        let mut inputs = Rotation::new(&frames);
        let mut events = 0;
        group.bench_function(name, |b| {
            b.iter(|| vad.process(black_box(inputs.turn()), |_| events += 1));
        });
        black_box(events);
    }
    group.finish();
}

fn g722(c: &mut Criterion) {
    let frames = speech(g722::RATE);
    let coded: Vec<Vec<u8>> = {
        let mut encoder = g722::Encoder::default();
        let code = |frame: &Vec<i16>| {
            let mut bytes = vec![0; frame.len() / 2];
            encoder.encode(frame, &mut bytes);
            bytes
        };
        frames.iter().map(code).collect()
    };
    let mut group = c.benchmark_group("g722");
    let (mut inputs, mut encoder, mut bytes) = (Rotation::new(&frames), g722::Encoder::default(), [0; 160]);
    group.bench_function("encode", |b| {
        b.iter(|| encoder.encode(black_box(inputs.turn()), black_box(&mut bytes)));
    });
    let (mut inputs, mut decoder, mut pcm) = (Rotation::new(&coded), g722::Decoder::default(), [0; 320]);
    group.bench_function("decode", |b| {
        b.iter(|| decoder.decode(black_box(inputs.turn()), black_box(&mut pcm)));
    });
    group.finish();
}

criterion_group!(benches, g711, loops, g722, resample, vad);
criterion_main!(benches);
