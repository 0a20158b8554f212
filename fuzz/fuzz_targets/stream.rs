//! `cargo fuzz run stream`: the body is `sidetone::fuzzing::stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::stream(data));
