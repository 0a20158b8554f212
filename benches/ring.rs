//! What lies between the stages: a frame of 20 ms handed from one thread's work to another's, beside the queues everybody starts with,
//! and what recording the metrics of a tick costs.
//!
//! Both ends are on one thread: the figures are the cost of the hand-over itself, without the wake that another core may need.

use criterion::{Criterion, criterion_group, criterion_main};
use sidetone::{
    audio::ring,
    base::{ids::UtteranceId, time::Mono},
    metrics,
};
use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{Mutex, mpsc},
    time::Duration,
};

/// Samples of a frame: 20 ms at 8 kHz.
const FRAME: usize = 160;

fn hand_over(c: &mut Criterion) {
    let frame: Vec<i16> = (0..FRAME as i16).map(|n| n * 77).collect();
    let mut out = [0; FRAME];
    let mut group = c.benchmark_group("hand_over_20ms");
    let (mut tx, mut rx) = ring::uplink(8000, 8000, None);
    group.bench_function("uplink ring", |b| {
        b.iter(|| {
            tx.push(black_box(&frame));
            rx.pop(black_box(&mut out))
        });
    });
    let (mut tx, mut rx) = ring::downlink(8000, 8000, 64);
    group.bench_function("downlink ring", |b| {
        b.iter(|| {
            tx.push(UtteranceId(1), black_box(&frame), false);
            rx.pop(black_box(&mut out))
        });
    });
    let (tx, rx) = mpsc::channel();
    group.bench_function("a channel of vectors", |b| {
        b.iter(|| {
            let _ = tx.send(black_box(&frame).clone());
            rx.recv().map(|frame: Vec<i16>| out.copy_from_slice(&frame))
        });
    });
    let queue = Mutex::new(VecDeque::with_capacity(8000));
    group.bench_function("a locked queue of samples", |b| {
        b.iter(|| {
            let lock = || queue.lock().expect("nobody panics here");
            lock().extend(black_box(&frame));
            let mut queue = lock();
            for (place, sample) in out.iter_mut().zip(queue.drain(..FRAME)) {
                *place = sample;
            }
        });
    });
    group.finish();
}

/// What a media thread records: of each tick how late it was and the sums of four counters, of each turn of a leg how long it took
/// and how much waits in its ring.
fn recording(c: &mut Criterion) {
    metrics::install().expect("the only recorder of this process");
    let labels = [("shard", "0")];
    let counters = [
        metrics::frames_in_total,
        metrics::frames_out_total,
        metrics::bytes_in_total,
        metrics::bytes_out_total,
    ]
    .map(|name| metrics::counter(name, &labels));
    let (mut tx, _rx) = ring::uplink(8000, 8000, None);
    tx.push(&[1; FRAME]);
    let mut group = c.benchmark_group("metrics");
    let mut us = 0;
    group.bench_function("of a tick", |b| {
        b.iter(|| {
            us = (us + 7) % 400;
            metrics::TICK_LATE.record(black_box(Duration::from_micros(us)));
            for counter in &counters {
                counter.increment(black_box(50));
            }
        });
    });
    group.bench_function("a histogram's value", |b| {
        b.iter(|| {
            us = (us + 7) % 400;
            metrics::TICK_LATE.record(black_box(Duration::from_micros(us)));
        });
    });
    let turns = metrics::LocalCounts::default();
    group.bench_function("of a turn", |b| {
        b.iter(|| {
            us = (us + 7) % 400;
            turns.record(black_box(Duration::from_micros(us)));
            black_box(Mono::now());
            black_box(&tx).queued()
        });
    });
    group.bench_function("depth of a ring", |b| b.iter(|| black_box(&tx).queued()));
    group.finish();
}

criterion_group!(benches, hand_over, recording);
criterion_main!(benches);
