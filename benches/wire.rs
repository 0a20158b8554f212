//! One media message: parsed and formatted as the media path does it, beside the ways everybody starts with; and base64.
//!
//! Each dialect is measured through the registry, with messages of its own simulated peer. The `serde` rows read and write
//! the same JSON by owned structs, a `String` of base64 and a `Vec` of samples.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use sidetone::{
    vendor::{Payload, PeerCall, StreamCodec, StreamCommand, StreamEvent, VENDORS},
    wire::{base64 as ours, numbers as ours_numbers},
};
use std::hint::black_box;

/// One 20 ms frame of G.711, with no two bytes alike nearby.
fn frame(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    event: String,
    stream_sid: String,
    media: OwnedMedia,
}

#[derive(Deserialize, Serialize)]
struct OwnedMedia {
    payload: String,
}

/// A codec whose stream has begun, a media message for it, and that message with white space, which the scan refuses.
fn stream(vendor: &sidetone::vendor::Descriptor) -> (Box<dyn StreamCodec>, String, String) {
    let mut codec = (vendor.codec)(&Default::default());
    let mut peer = (vendor.peer)(PeerCall {
        call_sid: "CA00000000000000000000000000000001".into(),
        token: None,
        from: "+15550100".into(),
        to: "+15550101".into(),
        ..PeerCall::default()
    });
    for message in peer.open() {
        codec.parse(message.as_bytes()).expect("an opening message");
    }
    let mut message = String::new();
    peer.media(&frame(peer.format().bytes_of_ms(20)), 20, &mut message);
    let spaced = message.replacen(':', ": ", 1);
    (codec, message, spaced)
}

/// Decodes what a codec made of a message, as ingress does.
fn audio(codec: &mut dyn StreamCodec, message: &[u8], out: &mut [u8]) -> usize {
    match codec.parse(message) {
        Ok(StreamEvent::Media(media)) => match media.payload {
            Payload::Base64(text) => ours::decode(text, out).expect("base64"),
            Payload::Numbers(text) => text.len(),
        },
        other => panic!("{other:?}"),
    }
}

fn parse(c: &mut Criterion) {
    for vendor in VENDORS {
        let (mut codec, message, spaced) = stream(vendor);
        let mut group = c.benchmark_group(format!("parse/{}", vendor.name));
        group.throughput(Throughput::Elements(1));
        group.bench_function("scan", |b| {
            b.iter(|| codec.parse(black_box(message.as_bytes())).is_ok())
        });
        group.bench_function("fallback", |b| {
            b.iter(|| codec.parse(black_box(spaced.as_bytes())).is_ok())
        });
        let mut out = [0; 4096];
        group.bench_function("scan + base64", |b| {
            b.iter(|| audio(&mut *codec, black_box(message.as_bytes()), &mut out));
        });
        if serde_json::from_str::<Owned>(&message).is_ok() {
            group.bench_function("serde", |b| {
                b.iter(|| serde_json::from_str::<Owned>(black_box(&message)).expect("a media message"));
            });
            group.bench_function("serde + base64", |b| {
                b.iter(|| {
                    let message: Owned = serde_json::from_str(black_box(&message)).expect("a media message");
                    STANDARD.decode(&message.media.payload).expect("base64")
                });
            });
        }
        group.finish();
    }
}

fn format(c: &mut Criterion) {
    for vendor in VENDORS {
        let (mut codec, ..) = stream(vendor);
        let audio = frame(vendor.caps.outbound.bytes_of_ms(20));
        let mut group = c.benchmark_group(format!("format/{}", vendor.name));
        group.throughput(Throughput::Elements(1));
        let mut arena = BytesMut::with_capacity(64 * 1024);
        group.bench_function("arena", |b| {
            b.iter(|| {
                arena.clear();
                codec.format(StreamCommand::Media(black_box(&audio)), &mut arena);
                arena.len()
            });
        });
        group.bench_function("serde", |b| {
            b.iter(|| {
                let message = Owned {
                    event: "media".to_owned(),
                    stream_sid: "MZ00000000000000000000000000000001".to_owned(),
                    media: OwnedMedia {
                        payload: STANDARD.encode(black_box(&audio)),
                    },
                };
                serde_json::to_string(&message).expect("JSON")
            });
        });
        group.finish();
    }
}

fn base64(c: &mut Criterion) {
    for len in [160, 320, 960] {
        let bytes = frame(len);
        let text = STANDARD.encode(&bytes);
        let (mut up, mut down) = (vec![0; text.len()], vec![0; len]);
        let mut group = c.benchmark_group(format!("base64/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("encode", |b| b.iter(|| ours::encode(black_box(&bytes), &mut up)));
        group.bench_function("encode scalar", |b| {
            b.iter(|| STANDARD.encode_slice(black_box(&bytes), &mut up));
        });
        group.bench_function("decode", |b| {
            b.iter(|| ours::decode(black_box(text.as_bytes()), &mut down))
        });
        group.bench_function("decode scalar", |b| {
            b.iter(|| STANDARD.decode_slice(black_box(text.as_bytes()), &mut down));
        });
        group.finish();
    }
}

/// A 10 ms frame as a JSON array of 80 numbers, beside serde_json's own reading and writing of one.
fn numbers(c: &mut Criterion) {
    #[derive(Deserialize, Serialize)]
    struct Samples {
        samples: Vec<i16>,
    }
    // Speech-like lengths: from one digit to five, with signs.
    let samples: Vec<i16> = (0..80_u32)
        .map(|n| ((n.wrapping_mul(2_654_435_761) as i32 >> 16) >> (n % 4 * 3)) as i16)
        .collect();
    let pcm: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let owned = Samples { samples };
    let json = serde_json::to_string(&owned).expect("JSON");
    let text = json
        .trim_start_matches("{\"samples\":[")
        .trim_end_matches("]}")
        .to_owned();
    let mut group = c.benchmark_group("numbers/80");
    let mut out = [0; 80];
    group.bench_function("decode", |b| {
        b.iter(|| ours_numbers::decode(black_box(text.as_bytes()), &mut out));
    });
    group.bench_function("decode serde", |b| {
        b.iter(|| serde_json::from_str::<Samples>(black_box(&json)).expect("JSON"));
    });
    let mut arena = BytesMut::with_capacity(64 * 1024);
    group.bench_function("append", |b| {
        b.iter(|| {
            arena.clear();
            ours_numbers::append(black_box(&pcm), &mut arena);
            arena.len()
        });
    });
    group.bench_function("append serde", |b| {
        b.iter(|| serde_json::to_string(black_box(&owned)).expect("JSON"));
    });
    group.finish();
}

criterion_group!(benches, parse, format, base64, numbers);
criterion_main!(benches);
